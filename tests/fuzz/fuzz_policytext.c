/* The attestation policy, as a tired operator might write it: what is read is a policy, and written again reads as the same. */
#include <stddef.h>
#include <stdint.h>

#include "core/policytext.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct reference p, again;
    struct fault f = {0};
    if (policytext_read(bytes_of(data, size), &p, &f) != E_OK) {
        must(f.text[0] != 0 && f.code == E_ATTEST_POLICY);
        return 0;
    }
    struct builder text, first, second;
    builder_init(&text, POLICYTEXT_BYTES_MAX);
    builder_init(&first, REFERENCE_BYTES_MAX);
    builder_init(&second, REFERENCE_BYTES_MAX);
    policytext_write(&text, &p);
    reference_put(&first, &p);
    if (text.err == E_OK && policytext_read(builder_bytes(&text), &again, &f) == E_OK) { /* as long as it fits a text */
        reference_put(&second, &again);
        must(first.err == E_OK && bytes_equal(builder_bytes(&first), builder_bytes(&second)));
    }
    must(reference_get(builder_bytes(&first), &again) == E_OK);
    builder_free(&second);
    builder_free(&first);
    builder_free(&text);
    return 0;
}
