/* If this failed, a byte that was damaged or forged could make the one process that may be root do what nobody asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/launch/launchwire.h"
#include "platform/codec.h"

static const uint8_t hash[LAUNCHWIRE_HASH_BYTES] = {1, 2, 3};

static struct launch_message start_message(void) {
    struct launch_message m = {
        .kind = LAUNCH_START,
        .scope = 0x1122334455667788,
        .token = 42,
        .id = bytes_str("task-1"),
        .standard_input = bytes_str("in"),
        .cpu_millicores = 250,
        .memory_bytes = 64u << 20,
        .leased = true,
        .again = true,
        .disk_bytes = 5,
        .probe = {
            .command = {.count = 1, .at = {bytes_str("probe")}}, .delay_ms = 1, .interval_ms = 2, .timeout_ms = 3, .failures = 4}};
    m.command = (struct launch_texts){.count = 2, .at = {bytes_str("/bin/echo"), bytes_str("hi")}};
    m.env = (struct launch_texts){.count = 1, .at = {bytes_str("A=1")}};
    m.io_read_bps = 6;
    m.io_write_bps = 7;
    m.isolate = LAUNCH_ISOLATE_ALL;
    m.stop_signal = 10;
    m.grace_ms = 11;
    m.image = bytes_str("/image");
    m.bundle = true;
    m.files.count = 2;
    m.files.at[0] = (struct launch_file){.name = bytes_str("a"), .text = bytes_str("content"), .mode = 0600};
    m.files.at[1] = (struct launch_file){
        .name = bytes_str("b"), .source = LAUNCH_FILE_STORED, .hash = bytes_of(hash, sizeof hash), .mode = 0755};
    return m;
}

static enum grey_error round_trip(const struct launch_message *in, struct launch_message *out, struct builder *b) {
    builder_init(b, LAUNCHWIRE_BYTES_MAX);
    launchwire_encode(b, in);
    assert_int_equal(b->err, E_OK);
    return launchwire_decode(builder_bytes(b), out);
}

static void test_start(void **state) {
    struct launch_message in = start_message(), out;
    struct builder b;
    (void)state;
    assert_int_equal(round_trip(&in, &out, &b), E_OK);
    assert_true(out.scope == in.scope && out.token == in.token && out.leased && out.again);
    assert_true(out.disk_bytes == 5 && out.probe.command.count == 1 && bytes_equal_str(out.probe.command.at[0], "probe"));
    assert_true(out.probe.delay_ms == 1 && out.probe.interval_ms == 2 && out.probe.timeout_ms == 3 && out.probe.failures == 4);
    assert_true(bytes_equal(out.id, in.id) && bytes_equal(out.standard_input, in.standard_input));
    assert_true(out.command.count == 2 && bytes_equal_str(out.command.at[1], "hi"));
    assert_true(out.env.count == 1 && bytes_equal_str(out.env.at[0], "A=1"));
    assert_true(out.cpu_millicores == 250 && out.memory_bytes == 64u << 20);
    assert_true(out.io_read_bps == 6 && out.io_write_bps == 7 && out.isolate == LAUNCH_ISOLATE_ALL);
    assert_true(out.stop_signal == 10 && out.grace_ms == 11 && bytes_equal_str(out.image, "/image") && out.bundle);
    assert_true(out.files.count == 2 && bytes_equal_str(out.files.at[0].text, "content") && out.files.at[1].mode == 0755);
    assert_true(out.files.at[1].source == LAUNCH_FILE_STORED && bytes_equal(out.files.at[1].hash, in.files.at[1].hash));
    builder_free(&b);
}

static void test_every_kind(void **state) {
    const struct launch_message all[] = {
        {.kind = LAUNCH_STOP, .scope = 1, .token = 2, .time_ms = 10000},
        {.kind = LAUNCH_FORGET, .scope = 1, .token = 2},
        {.kind = LAUNCH_LIST},
        {.kind = LAUNCH_LEASE, .until_ms = 123456789},
        {.kind = LAUNCH_READ, .scope = 1, .token = 2, .number = 3, .stream = LAUNCH_STDERR, .offset = 4, .size = 5},
        {.kind = LAUNCH_STATE,
         .scope = 1,
         .token = 2,
         .state = LAUNCH_ENDED,
         .end = LAUNCH_END_MEMORY,
         .status = -9,
         .use = {.memory_peak_bytes = 5, .output_hash = {{1}, {2}}}},
        {.kind = LAUNCH_LISTED, .limits = LAUNCH_LIMITS_CGROUP2},
        {.kind = LAUNCH_PART,
         .scope = 1,
         .token = 2,
         .number = 3,
         .stream = LAUNCH_STDERR,
         .offset = 4,
         .end_offset = 9,
         .data = {(const uint8_t *)"x", 1}},
        {.kind = LAUNCH_STORE, .hash = {hash, sizeof hash}, .offset = 3, .end_offset = 9, .data = {(const uint8_t *)"x", 1}},
        {.kind = LAUNCH_STORED, .hash = {hash, sizeof hash}, .stored = LAUNCH_STORED_DIFFERS},
        {.kind = LAUNCH_STATE, .scope = 1, .token = 2, .state = LAUNCH_LACKS, .status = 1},
        {.kind = LAUNCH_MEASURE},
        {.kind = LAUNCH_USE,
         .scope = 1,
         .token = 2,
         .use = {.cpu_us = 7, .memory_bytes = 8, .wall_ms = 9, .output_bytes = {10, 11}}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct launch_message out;
        struct builder b;
        assert_int_equal(round_trip(&all[i], &out, &b), E_OK);
        assert_true(out.kind == all[i].kind && out.scope == all[i].scope && out.token == all[i].token);
        assert_true(out.time_ms == all[i].time_ms && out.until_ms == all[i].until_ms && out.number == all[i].number);
        assert_true(out.state == all[i].state && out.end == all[i].end && out.status == all[i].status);
        assert_true(out.limits == all[i].limits && out.stream == all[i].stream && out.offset == all[i].offset);
        assert_true(bytes_equal(out.hash, all[i].hash) && out.stored == all[i].stored);
        assert_memory_equal(&out.use, &all[i].use, sizeof out.use);
        assert_true(out.end_offset == all[i].end_offset && out.size == all[i].size && bytes_equal(out.data, all[i].data));
        builder_free(&b);
    }
}

static void refuses(struct launch_message m) {
    struct launch_message out;
    struct builder b;
    assert_int_equal(round_trip(&m, &out, &b), E_BAD_MESSAGE);
    builder_free(&b);
}

static void test_refusals(void **state) {
    struct launch_message m = start_message();
    (void)state;
    m.command.count = 0; /* nothing to run but its image */
    m.image = bytes_of(NULL, 0);
    refuses(m);
    m.image = bytes_str("relative");
    refuses(m);
    static const char *const names[] = {"", "..", ".hidden", "a/b", "/a"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) { /* out of its directory */
        m = start_message();
        m.files.at[0].name = bytes_str(names[i]);
        refuses(m);
    }
    m = start_message();
    m.files.at[1].hash = bytes_of(hash, 3);
    refuses(m);
    m = start_message();
    m.files.at[1].source = LAUNCH_FILE_PATH; /* of which place? */
    refuses(m);
    m = start_message();
    m.files.at[0].mode = 04755; /* another user's rights */
    refuses(m);
    m = start_message();
    m.isolate = LAUNCH_ISOLATE_ALL + 1;
    refuses(m);
    m = start_message();
    m.command.at[0] = bytes_str("");
    refuses(m);
    m = start_message();
    m.command.at[1] = bytes_of("a\0b", 3); /* the kernel would cut it */
    refuses(m);
    m = start_message();
    m.env.at[0] = bytes_str("NAME"); /* no variable */
    refuses(m);
    m.env.at[0] = bytes_str("=value");
    refuses(m);
    m = start_message();
    m.id = bytes_str("../x");
    refuses(m);
    m = (struct launch_message){.kind = LAUNCH_STOP, .time_ms = LAUNCHWIRE_GRACE_MS_MAX + 1};
    refuses(m);
    m = (struct launch_message){.kind = LAUNCH_READ, .size = LAUNCHWIRE_PART_BYTES_MAX + 1};
    refuses(m);
    m = (struct launch_message){.kind = LAUNCH_READ, .stream = LAUNCH_STREAM_COUNT};
    refuses(m);
}

static void test_damage(void **state) {
    struct launch_message m = start_message(), out;
    struct builder b;
    (void)state;
    assert_int_equal(round_trip(&m, &out, &b), E_OK);
    for (size_t size = 0; size < b.size; size++) { /* cut anywhere */
        assert_int_not_equal(launchwire_decode(bytes_of(b.data, size), &out), E_OK);
    }
    builder_add_byte(&b, 0); /* something behind it */
    assert_int_not_equal(launchwire_decode(builder_bytes(&b), &out), E_OK);
    builder_reset(&b);
    codec_put_array(&b, 1);
    codec_put_uint(&b, LAUNCH_KIND_COUNT); /* a kind of a later version */
    assert_int_equal(launchwire_decode(builder_bytes(&b), &out), E_BAD_MESSAGE);
    builder_reset(&b);
    codec_put_array(&b, 2); /* a field too many */
    codec_put_uint(&b, LAUNCH_LIST);
    codec_put_uint(&b, 0);
    assert_int_equal(launchwire_decode(builder_bytes(&b), &out), E_BAD_MESSAGE);
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_start), cmocka_unit_test(test_every_kind),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_damage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
