/* Any bytes as a record and as a batch: what is accepted is written back as it was. */
#include "federation/record.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct codec_reader r;
    struct event e;
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    codec_reader_init(&r, bytes_of(data, size));
    if (record_decode(&r, &e) == E_OK) {
        record_encode(&e, &b);
        must(b.err == E_OK && bytes_equal(builder_bytes(&b), bytes_of(data, size - r.rest.size)));
    } else {
        must(e.id.size == 0 && e.data.size == 0);
    }
    builder_free(&b);
    for (uint32_t slot = 0; slot < 3; slot++) {
        struct bytes record;
        bool found = record_slot(bytes_of(data, size), slot, &record) == E_OK;
        must(found == (record.size > 0));
        must(!found || (record.data > data && record.data + record.size <= data + size));
    }
    return 0;
}
