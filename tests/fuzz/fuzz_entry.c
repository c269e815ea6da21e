/* Any payloads as a log, on two gateways of which one forgets and flushes all the time: neither crashes, their states stay the same,
 * and what is on the disk of the second loads again.
 *
 * An entry: kind u8 (above the known ones: flush, failed flush, restart), hours since the last u8, payload size u16, payload. */
#include "tests/unit/rows_on_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(struct gateway *a, struct gateway *b) {
    struct builder dumps[2];
    builder_init(&dumps[0], 1u << 26);
    builder_init(&dumps[1], 1u << 26);
    gateway_dump(a, &dumps[0]);
    gateway_dump(b, &dumps[1]);
    must(bytes_equal(builder_bytes(&dumps[0]), builder_bytes(&dumps[1])));
    builder_free(&dumps[0]);
    builder_free(&dumps[1]);
    for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f[2];
        state_channel(a->state, (enum event_channel)c, &f[0]);
        state_channel(b->state, (enum event_channel)c, &f[1]);
        must(memcmp(&f[0], &f[1], sizeof f[0]) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gateway calm = gateway_new(SIZE_MAX / 8), busy = gateway_new(256 * 1024);
    int64_t time_ms = 0;
    while (size >= 4) {
        unsigned kind = data[0] % (ENTRY_KIND_COUNT + 4u);
        size_t payload_size = bytes_get_be16(data + 2);
        time_ms += data[1] * 3600000ll;
        data += 4, size -= 4;
        payload_size = payload_size < size ? payload_size : size;
        struct bytes payload = bytes_of(data, payload_size);
        data += payload_size, size -= payload_size;
        if (kind == ENTRY_KIND_COUNT + 1) {
            gateway_flush(&busy);
            continue;
        }
        if (kind == ENTRY_KIND_COUNT + 2) {
            struct table_flush f;
            must(table_flush_begin(busy.rows, &f) == E_OK);
            if (f.count > 0) {
                table_flush_done(busy.rows, false);
            }
            continue;
        }
        if (kind == ENTRY_KIND_COUNT + 3) {
            compare(&calm, &busy);
            gateway_flush(&busy);
            gateway_stop(&busy);
            gateway_start(&busy);
            continue;
        }
        struct entry e = {
            .index = state_applied(calm.state) + 1, .kind = (uint16_t)kind, .schema = ENTRY_SCHEMA, .time_ms = time_ms, .term = 1};
        e.payload = payload.size == 0 ? NULL : blob_copy(payload);
        struct outcome o[2];
        struct builder answers[2];
        uint8_t hashes[2][DIGEST_BYTES];
        builder_init(&answers[0], 1 << 16);
        builder_init(&answers[1], 1 << 16);
        enum grey_error err = gateway_apply(&calm, &e, &o[0], &answers[0]);
        bool known = kind <= ENTRY_VERDICT || kind == ENTRY_UPDATE; /* numbers between are of other versions */
        must(err == (known ? E_OK : E_UNKNOWN_ENTRY));
        must(gateway_apply(&busy, &e, &o[1], &answers[1]) == err);
        must(memcmp(&o[0], &o[1], sizeof o[0]) == 0 && bytes_equal(builder_bytes(&answers[0]), builder_bytes(&answers[1])));
        state_hash(calm.state, hashes[0]);
        state_hash(busy.state, hashes[1]);
        must(memcmp(hashes[0], hashes[1], DIGEST_BYTES) == 0);
        builder_free(&answers[0]);
        builder_free(&answers[1]);
        blob_unref(e.payload);
    }
    compare(&calm, &busy);
    gateway_free(&calm);
    gateway_free(&busy);
    return 0;
}
