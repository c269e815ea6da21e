/* Headers of bundles: they come from whoever can write in greyd's folder, and root reads them. */
#include <string.h>

#include "federation/update.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t header[UPDATE_HEADER_BYTES];
    static const uint8_t key[KEYS_ED25519_PUBLIC_BYTES] = {1};
    struct update_manifest m;
    /* The head and the padding are put right, so that what is tried is the manifest. */
    if (size > UPDATE_HEADER_BYTES - 12) {
        return 0;
    }
    memset(header, 0, sizeof header);
    memcpy(header, "GREYUPD1", 8);
    bytes_put_be32(header + 8, (uint32_t)size);
    if (size > 0) {
        memcpy(header + 12, data, size);
    }
    struct bytes head = bytes_of(header, sizeof header);
    if (update_read(head, &m) == E_OK) {
        must(m.file_count > 0 && m.file_count <= UPDATE_FILES_MAX && m.counter > 0);
        for (uint32_t i = 0; i < m.file_count; i++) {
            must(m.files[i].name.size > 0 && m.files[i].name.data[0] != '.' &&
                 memchr(m.files[i].name.data, '/', m.files[i].name.size) == NULL);
            must(update_offset(&m, i + 1) >= update_offset(&m, i) + m.files[i].size);
        }
    }
    must(update_verify(head, key, &m) != E_OK);
    must(update_read(bytes_of(data, size), &m) != E_OK || size >= UPDATE_HEADER_BYTES);
    return 0;
}
