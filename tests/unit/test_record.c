#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/record.h"

static struct event example(void) {
    return (struct event){.id = bytes_str("e-1"),
                          .source = bytes_str("grey://s/n"),
                          .type = bytes_str("door"),
                          .subject = bytes_str("north"),
                          .time = bytes_str("2026-01-01T00:00:00Z"),
                          .content_type = bytes_str("application/json"),
                          .traceparent = bytes_str("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                          .data = bytes_str("{\"open\": true}"),
                          .priority = PRIORITY_HIGH,
                          .provisional = true,
                          .has_id = true};
}

static enum grey_error encode_and_decode(const struct event *in, struct builder *b, struct event *out) {
    builder_reset(b);
    record_encode(in, b);
    if (b->err != E_OK) {
        return b->err;
    }
    struct codec_reader r;
    codec_reader_init(&r, builder_bytes(b));
    enum grey_error err = record_decode(&r, out);
    return err != E_OK ? err : codec_end(&r);
}

/* An event must reach the core byte for byte as the device sent it. */
static void what_is_encoded_is_decoded(void **context) {
    (void)context;
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    struct event in = example(), out;
    assert_int_equal(encode_and_decode(&in, &b, &out), E_OK);
    assert_true(bytes_equal(in.id, out.id) && bytes_equal(in.source, out.source) && bytes_equal(in.type, out.type));
    assert_true(bytes_equal(in.subject, out.subject) && bytes_equal(in.time, out.time) && bytes_equal(in.data, out.data));
    assert_true(bytes_equal(in.content_type, out.content_type) && bytes_equal(in.traceparent, out.traceparent));
    assert_int_equal(in.priority, out.priority);
    assert_true(out.provisional && out.has_id);
    struct event least = {.id = bytes_str("i"), .source = bytes_str("s"), .type = bytes_str("t"), .priority = PRIORITY_LOW};
    assert_int_equal(encode_and_decode(&least, &b, &out), E_OK);
    assert_int_equal(out.data.size, 0);
    assert_false(out.provisional || out.has_id);
    static const uint8_t wanted[] = {0x8a, 0x61, 'i', 0x61, 's', 0x61, 't', 0x60, 0x60, 0x60, 0x60, 0x03, 0x00, 0x40};
    assert_int_equal(b.size, sizeof wanted);
    assert_memory_equal(b.data, wanted, sizeof wanted); /* the format is fixed: docs/FORMATS.md */
    builder_free(&b);
}

/* A record beyond the bounds, from a faulty or hostile peer, must not get into a site's log or the core's store. */
static void each_bound_is_checked(void **context) {
    (void)context;
    static uint8_t big[LIMIT_EVENT_BYTES + 1];
    memset(big, 'x', sizeof big);
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    struct event out;
    for (int field = 0; field < 7; field++) {
        for (size_t over = 0; over < 2; over++) {
            struct event e = example();
            struct bytes *texts[] = {&e.id, &e.source, &e.type, &e.subject, &e.time, &e.content_type, &e.traceparent};
            *texts[field] = bytes_of(big, LIMIT_EVENT_FIELD_BYTES + over);
            assert_int_equal(encode_and_decode(&e, &b, &out), over ? E_BAD_MESSAGE : E_OK);
        }
        struct event e = example();
        struct bytes *texts[] = {&e.id, &e.source, &e.type, &e.subject, &e.time, &e.content_type, &e.traceparent};
        *texts[field] = bytes_of(NULL, 0);
        assert_int_equal(encode_and_decode(&e, &b, &out), field < 3 ? E_BAD_MESSAGE : E_OK);
    }
    struct event e = example();
    e.data = bytes_of(big, LIMIT_EVENT_BYTES);
    assert_int_equal(encode_and_decode(&e, &b, &out), E_OK);
    e.data = bytes_of(big, LIMIT_EVENT_BYTES + 1);
    assert_int_equal(encode_and_decode(&e, &b, &out), E_BAD_MESSAGE);
    assert_int_equal(out.id.size, 0);
    e = example();
    e.priority = PRIORITY_COUNT;
    assert_int_equal(encode_and_decode(&e, &b, &out), E_BAD_MESSAGE);
    builder_free(&b);
}

/* A record cut anywhere (a torn page, a lost part) must be refused, not read beyond its end. */
static void every_prefix_is_refused(void **context) {
    (void)context;
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    struct event e = example();
    record_encode(&e, &b);
    for (size_t size = 0; size < b.size; size++) {
        struct codec_reader r;
        struct event out;
        codec_reader_init(&r, bytes_of(b.data, size));
        assert_int_not_equal(record_decode(&r, &out), E_OK);
    }
    builder_free(&b);
}

/* The uplink sends record `slot` of a batch: another one would be another event under this number. */
static void a_slot_names_one_record_of_a_batch(void **context) {
    (void)context;
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    codec_put_array(&b, 3);
    const char *ids[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        struct event e = example();
        e.id = bytes_str(ids[i]);
        record_encode(&e, &b);
    }
    struct bytes record;
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(record_slot(builder_bytes(&b), i, &record), E_OK);
        struct codec_reader r;
        struct event e;
        codec_reader_init(&r, record);
        assert_int_equal(record_decode(&r, &e), E_OK);
        assert_int_equal(codec_end(&r), E_OK);
        assert_true(bytes_equal_str(e.id, ids[i]));
    }
    assert_int_equal(record_slot(builder_bytes(&b), 3, &record), E_NOT_FOUND);
    assert_int_equal(record_slot(bytes_of(b.data, b.size - 1), 2, &record), E_BAD_CBOR);
    assert_int_equal(record_slot(bytes_of(NULL, 0), 0, &record), E_BAD_CBOR);
    assert_int_equal(record.size, 0);
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(each_bound_is_checked),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(a_slot_names_one_record_of_a_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
