/* How events become frames: an old core must go on getting what it reads, a frame that was not sent must not be missed by the other end,
 * and no frame may be larger than what the link or the broker takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/uplink/uplink_core.h"
#include "core/unpack.h"
#include "federation/frame.h"
#include "federation/record.h"

#define EVENTS 1500u
#define MIB (1024u * 1024u)
#define INCARNATION 77u

static struct sync_item items[EVENTS];
static struct builder records;
static struct uplink u; /* of which only the packing is used here */
static struct unpack *core;

static struct bytes telemetry(unsigned i, char *text, size_t size) {
    (void)snprintf(text, size, "{\"temperature\":%u.%03u,\"state\":\"running\",\"unit\":\"celsius\",\"line\":\"hall-2\"}",
                   20 + i % 3, (unsigned)rand() % 1000);
    return bytes_str(text);
}

static struct bytes noise(unsigned i, char *text, size_t size) {
    (void)i;
    for (size_t k = 0; k < size; k++) {
        text[k] = (char)rand();
    }
    return bytes_of(text, size);
}

static struct bytes repeats(unsigned i, char *text, size_t size) {
    static const char digits[] = "0123456789abcdef";
    for (size_t k = 0; k < size; k++) {
        text[k] = k < 500 ? digits[(unsigned)rand() % 16] : text[k - 500];
    }
    return bytes_of(text, i % 2 == 0 ? size : size / 2);
}

static void make(struct bytes (*data)(unsigned, char *, size_t), size_t size_max, unsigned count) {
    static char text[100000];
    size_t starts[EVENTS + 1] = {0};
    builder_reset(&records);
    srand(1);
    for (unsigned i = 0; i < count; i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "e-%u", i + 1);
        struct event e = {.id = bytes_str(id),
                          .source = bytes_str("s"),
                          .type = bytes_str("t"),
                          .data = data(i, text, size_max),
                          .priority = PRIORITY_LOW};
        record_encode(&e, &records);
        starts[i + 1] = records.size;
    }
    assert_int_equal(records.err, E_OK);
    for (unsigned i = 0; i < count; i++) {
        items[i] = (struct sync_item){
            .seq = i + 1, .index = i + 1, .time_ms = i, .record = bytes_of(records.data + starts[i], starts[i + 1] - starts[i])};
    }
}

static struct sync_events events(unsigned from, unsigned count) {
    return (struct sync_events){.incarnation = INCARNATION,
                                .epoch = 1,
                                .channel = CHANNEL_DATA,
                                .from_seq = from + 1,
                                .to_seq = from + count,
                                .items = items + from,
                                .item_count = count};
}

/* Reads u.frame as a core does; the kind of message that was in it. */
static enum message_kind arrive(const struct sync_events *sent) {
    struct frame f;
    size_t used, need;
    enum grey_error why;
    struct builder scratch, plain, wanted;
    struct bytes content;
    builder_init(&scratch, MIB);
    builder_init(&plain, MIB);
    builder_init(&wanted, MIB);
    assert_int_equal(frame_read(builder_bytes(&u.frame), &f, &used, &need, &why), FRAME_READY);
    assert_int_equal(frame_content(&f, &scratch, &content), E_OK);
    enum message_kind kind = sync_kind(content);
    if (kind == MESSAGE_UP_SQUEEZED) {
        struct sync_squeezed q;
        assert_int_equal(sync_get_squeezed(content, &q), E_OK);
        assert_int_equal(unpack_frame(core, "s", &q, 1, &plain), UNPACK_TAKEN);
        content = builder_bytes(&plain);
    }
    sync_put_events(&wanted, sent);
    assert_true(bytes_equal(content, builder_bytes(&wanted)));
    builder_free(&scratch);
    builder_free(&plain);
    builder_free(&wanted);
    builder_free(&u.frame);
    return kind;
}

static int begin(void **state) {
    (void)state;
    builder_init(&records, 64 * MIB);
    core = unpack_new(1);
    return core != NULL && unpack_admit(core, "s", 0) ? 0 : 1;
}

static int end(void **state) {
    (void)state;
    uplink_pack_end(&u);
    builder_free(&records);
    unpack_free(core);
    return 0;
}

static void an_old_core_gets_what_it_reads(void **state) {
    (void)state;
    make(telemetry, 200, 40);
    uplink_pack_begin(&u, 0);
    assert_int_equal(uplink_pack_wish(&u, 2000, MIB), 2000);
    assert_int_equal(uplink_pack_wish(&u, MIB, 20000), 20000 - 4096);
    struct sync_events e = events(0, 40);
    uplink_pack_frame(&u, &e);
    assert_int_equal(e.item_count, 40);
    assert_int_equal(arrive(&e), MESSAGE_UP_EVENTS);
    uplink_pack_begin(&u, 0x80); /* a coding that nobody has made yet */
    uplink_pack_frame(&u, &e);
    assert_int_equal(arrive(&e), MESSAGE_UP_EVENTS);
    uplink_pack_end(&u);
}

/* A frame is about as large as was wished, however well its events can be squeezed, and none is left out. */
static void frames_have_the_wished_size(void **state) {
    (void)state;
    make(telemetry, 200, EVENTS);
    uplink_pack_begin(&u, CODING_SQUEEZE);
    unsigned at = 0, frames = 0;
    size_t largest = 0;
    while (at < EVENTS) {
        uint32_t plain = uplink_pack_wish(&u, 600, MIB);
        unsigned count = 0;
        for (size_t bytes = 0; at + count < EVENTS && bytes < plain; count++) {
            bytes += items[at + count].record.size;
        }
        struct sync_events e = events(at, count);
        uplink_pack_frame(&u, &e);
        largest = u.frame.size > largest ? u.frame.size : largest;
        assert_true(e.item_count > 0 && e.to_seq == at + e.item_count);
        assert_int_equal(arrive(&e), MESSAGE_UP_SQUEEZED);
        at += e.item_count;
        frames++;
    }
    assert_in_range(largest, 500, 600 + 200);
    assert_in_range(frames, 2, 20);
    uplink_pack_end(&u);
}

static void what_was_not_sent_is_not_missed(void **state) {
    (void)state;
    make(telemetry, 200, 40);
    uplink_pack_begin(&u, CODING_SQUEEZE);
    (void)uplink_pack_wish(&u, MIB, MIB);
    for (unsigned i = 0; i < 4; i++) {
        struct sync_events e = events(0, 10);
        uplink_pack_frame(&u, &e);
        assert_int_equal(arrive(&e), MESSAGE_UP_SQUEEZED);
        e = events(10, 10);
        uplink_pack_frame(&u, &e); /* the connection did not take it */
        builder_free(&u.frame);
        uplink_pack_lost(&u);
        e = events(10, 10);
        uplink_pack_frame(&u, &e);
        assert_int_equal(arrive(&e), MESSAGE_UP_SQUEEZED);
    }
    uplink_pack_end(&u);
}

static void what_squeezing_does_not_know_goes_plainly(void **state) {
    (void)state;
    uplink_pack_begin(&u, CODING_SQUEEZE);
    for (unsigned i = 0; i < 3; i++) {
        make(repeats, 20000, 10);
        (void)uplink_pack_wish(&u, MIB, MIB);
        struct sync_events e = events(0, 10);
        uplink_pack_frame(&u, &e);
        assert_in_range(u.frame.size, 1, 10 * 1000);
        assert_int_equal(arrive(&e), MESSAGE_UP_EVENTS);
        make(telemetry, 200, 40);
        e = events(0, 40);
        uplink_pack_frame(&u, &e);
        assert_int_equal(arrive(&e), MESSAGE_UP_SQUEEZED);
    }
    uplink_pack_end(&u);
}

/* A frame that the broker refuses would be made again and again. */
static void no_frame_is_larger_than_the_broker_takes(void **state) {
    (void)state;
    enum { MOST = 32768 };
    make(noise, 9000, EVENTS / 10);
    uplink_pack_begin(&u, CODING_SQUEEZE);
    for (unsigned at = 0; at < EVENTS / 10;) {
        uint32_t plain = uplink_pack_wish(&u, 128 * 1024, MOST);
        unsigned count = 0;
        for (size_t bytes = 0; at + count < EVENTS / 10 && bytes < plain; count++) {
            bytes += items[at + count].record.size;
        }
        struct sync_events e = events(at, count);
        uplink_pack_frame(&u, &e);
        assert_in_range(u.frame.size, 1, MOST);
        (void)arrive(&e);
        at += e.item_count;
    }
    uplink_pack_end(&u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_old_core_gets_what_it_reads),           cmocka_unit_test(frames_have_the_wished_size),
        cmocka_unit_test(what_was_not_sent_is_not_missed),          cmocka_unit_test(what_squeezing_does_not_know_goes_plainly),
        cmocka_unit_test(no_frame_is_larger_than_the_broker_takes),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
