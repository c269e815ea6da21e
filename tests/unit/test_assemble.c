/* Large frames that come in parts: a mistake here loses an event, joins two that do not belong together, or fills the core's memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/assemble.h"

static uint8_t frame[1000];

static enum assemble_verdict give(struct assembler *a, const char *site, enum event_channel c, uint64_t number, uint32_t offset,
                                  uint32_t size, struct bytes *whole) {
    struct sync_part p = {
        .epoch = 5, .number = number, .offset = offset, .total_bytes = sizeof frame, .bytes = bytes_of(frame + offset, size)};
    return assemble_part(a, site, c, &p, whole);
}

static void parts_become_the_frame(void **state) {
    (void)state;
    struct assembler *a = assemble_new(10000);
    struct bytes whole;
    for (size_t i = 0; i < sizeof frame; i++) {
        frame[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (uint32_t size = 1; size <= sizeof frame; size = size * 2 + 1) { /* two sites and two channels at a time */
        for (uint32_t at = 0; at < sizeof frame; at += size) {
            uint32_t part = at + size < sizeof frame ? size : (uint32_t)sizeof frame - at;
            enum assemble_verdict expected = at + part == sizeof frame ? ASSEMBLE_WHOLE : ASSEMBLE_MORE;
            assert_int_equal(give(a, "a", CHANNEL_DATA, size, at, part, &whole), expected);
            assert_int_equal(give(a, "a", CHANNEL_EVENTS, size, at, part, &whole), expected);
            assert_int_equal(give(a, "b", CHANNEL_DATA, size, at, part, &whole), expected);
            if (expected == ASSEMBLE_WHOLE) {
                assert_int_equal(whole.size, sizeof frame);
                assert_memory_equal(whole.data, frame, sizeof frame);
            } else {
                assert_int_equal(give(a, "b", CHANNEL_DATA, size, at, part, &whole), ASSEMBLE_MORE); /* twice */
            }
        }
        assemble_done(a, "a", CHANNEL_DATA);
        assemble_done(a, "a", CHANNEL_EVENTS);
        assemble_done(a, "b", CHANNEL_DATA);
        assert_int_equal(assemble_bytes(a), 0);
    }
    assemble_free(a);
}

static void what_does_not_follow_is_dropped(void **state) {
    (void)state;
    struct assembler *a = assemble_new(10000);
    struct bytes whole;
    assert_int_equal(give(a, "a", CHANNEL_DATA, 1, 500, 100, &whole), ASSEMBLE_DROPPED); /* never began */
    assert_int_equal(give(a, "a", CHANNEL_DATA, 1, 0, 400, &whole), ASSEMBLE_MORE);
    assert_int_equal(give(a, "a", CHANNEL_DATA, 1, 500, 500, &whole), ASSEMBLE_DROPPED); /* a hole */
    assert_int_equal(give(a, "a", CHANNEL_DATA, 1, 400, 600, &whole), ASSEMBLE_DROPPED);
    assert_int_equal(assemble_bytes(a), 0);
    assert_int_equal(give(a, "a", CHANNEL_DATA, 2, 0, 400, &whole), ASSEMBLE_MORE);
    assert_int_equal(give(a, "a", CHANNEL_DATA, 3, 400, 600, &whole), ASSEMBLE_DROPPED); /* of another frame */
    assert_int_equal(give(a, "a", CHANNEL_DATA, 4, 0, 400, &whole), ASSEMBLE_MORE);
    assert_int_equal(give(a, "a", CHANNEL_DATA, 5, 0, 400, &whole), ASSEMBLE_MORE); /* begins anew */
    struct sync_part former = {.epoch = 4, .number = 9, .total_bytes = 10, .bytes = bytes_of(frame, 10)};
    assert_int_equal(assemble_part(a, "a", CHANNEL_DATA, &former, &whole), ASSEMBLE_DROPPED);
    assert_int_equal(give(a, "a", CHANNEL_DATA, 5, 400, 600, &whole), ASSEMBLE_WHOLE);
    assemble_done(a, "a", CHANNEL_DATA);
    assert_int_equal(give(a, "a", CHANNEL_DATA, 6, 0, 400, &whole), ASSEMBLE_MORE);
    assemble_forget(a, "a"); /* a hello */
    assert_int_equal(give(a, "a", CHANNEL_DATA, 6, 400, 600, &whole), ASSEMBLE_DROPPED);
    struct sync_part wrong = {.epoch = 5, .number = 7, .offset = 0, .total_bytes = 100, .bytes = bytes_of(frame, 101)};
    assert_int_equal(assemble_part(a, "a", CHANNEL_DATA, &wrong, &whole), ASSEMBLE_DROPPED); /* more than it said */
    assert_int_equal(assemble_bytes(a), 0);
    assemble_free(a);
}

static void memory_is_bounded(void **state) {
    (void)state;
    struct assembler *a = assemble_new(10 * sizeof frame);
    struct bytes whole;
    char site[20];
    assert_int_equal(give(a, "busy", CHANNEL_DATA, 1, 0, 1, &whole), ASSEMBLE_MORE);
    for (uint32_t i = 1; i < 1000; i++) {
        (void)snprintf(site, sizeof site, "site-%u", i);
        assert_int_equal(give(a, site, CHANNEL_DATA, 1, 0, 10, &whole), ASSEMBLE_MORE);
        assert_in_range(assemble_bytes(a), 1, 10 * sizeof frame);
        assert_int_equal(give(a, "busy", CHANNEL_DATA, 1, i, 1, &whole), i < 999 ? ASSEMBLE_MORE : ASSEMBLE_WHOLE); /* is kept */
    }
    assert_int_equal(give(a, "site-900", CHANNEL_DATA, 1, 10, 10, &whole), ASSEMBLE_DROPPED); /* it gave way long ago */
    assert_int_equal(give(a, "site-999", CHANNEL_DATA, 1, 10, 10, &whole), ASSEMBLE_MORE);
    struct sync_part huge = {.epoch = 5, .number = 1, .total_bytes = 10 * sizeof frame + 1, .bytes = bytes_of(frame, 1)};
    assert_int_equal(assemble_part(a, "huge", CHANNEL_DATA, &huge, &whole), ASSEMBLE_DROPPED);
    assemble_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_become_the_frame),
        cmocka_unit_test(what_does_not_follow_is_dropped),
        cmocka_unit_test(memory_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
