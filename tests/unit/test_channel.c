/* Numbers, turns and pace on the way to the core: a mistake here loses events, sends them for ever, or lets an alarm wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "federation/channel.h"

static void a_stream_goes_on_behind_the_acknowledged(void **state) {
    (void)state;
    struct channel_out c;
    channel_begin(&c, 10);
    assert_int_equal(channel_next(&c, 10, 11), 0); /* nothing was given behind 10 */
    assert_int_equal(channel_next(&c, 10, 31), 11);
    channel_sent(&c, 20, 100);
    channel_sent(&c, 25, 7);
    assert_int_equal(c.bytes_on_way, 107);
    assert_int_equal(channel_next(&c, 10, 31), 26);
    assert_false(channel_acked(&c, 10));
    assert_true(channel_acked(&c, 19)); /* within the first frame: it is still on the way */
    assert_int_equal(c.frames, 2);
    assert_true(channel_acked(&c, 20));
    assert_int_equal(c.frames, 1);
    assert_int_equal(c.bytes_on_way, 7);
    assert_false(channel_acked(&c, 15)); /* an old word changes nothing */
    assert_true(channel_acked(&c, 28));  /* a former session had sent more */
    assert_true(c.frames == 0 && c.bytes_on_way == 0 && c.sent == 28);
    assert_int_equal(channel_next(&c, 30, 31), 0); /* the site's log has let go of the rest meanwhile */
    channel_begin(&c, 28);
    assert_int_equal(channel_next(&c, 10, 31), 29);
}

static void the_window_is_bounded_and_wraps(void **state) {
    (void)state;
    struct channel_out c;
    channel_begin(&c, 0);
    grey_seq sent = 0, acked = 0;
    for (int i = 0; i < 1000; i++) {
        while (channel_room(&c)) {
            assert_int_equal(channel_next(&c, 0, UINT64_MAX), sent + 1);
            channel_sent(&c, sent += 3, 10);
        }
        assert_int_equal(c.frames, CHANNEL_FRAMES_MAX);
        acked += 1 + (unsigned)i * 7 % 50;
        acked = acked < sent ? acked : sent;
        (void)channel_acked(&c, acked);
        assert_int_equal(c.frames, (sent - acked + 2) / 3);
    }
}

static void the_core_takes_what_fits(void **state) {
    (void)state;
    assert_int_equal(channel_judge(0, 1, 5), CHANNEL_FITS);
    assert_int_equal(channel_judge(5, 1, 5), CHANNEL_REPEAT);
    assert_int_equal(channel_judge(5, 1, 6), CHANNEL_FITS);
    assert_int_equal(channel_judge(5, 6, 6), CHANNEL_FITS);
    assert_int_equal(channel_judge(5, 7, 9), CHANNEL_HOLE);
}

static void urgent_goes_first_and_nobody_starves(void **state) {
    (void)state;
    struct channel_turns t = {0};
    bool waiting[CHANNEL_COUNT] = {true, true, true};
    uint64_t bytes[CHANNEL_COUNT] = {0};
    assert_int_equal(channel_turn(&t, waiting), CHANNEL_CONTROL);
    for (int i = 0; i < 100000; i++) {
        enum event_channel c = channel_turn(&t, waiting);
        uint32_t size = c == CHANNEL_DATA ? 30000 : 200;
        bytes[c] += size;
        channel_turn_took(&t, waiting, c, size);
    }
    uint64_t all = bytes[0] + bytes[1] + bytes[2];
    assert_in_range(bytes[CHANNEL_DATA] * 1000 / all, 40, 60); /* 5% of the bytes, though its frames are 150 times larger */
    assert_in_range(bytes[CHANNEL_EVENTS] * 1000 / all, 40, 60);

    /* With nothing above it, a channel neither saves nor owes. */
    t = (struct channel_turns){0};
    bool alone[CHANNEL_COUNT] = {false, false, true};
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(channel_turn(&t, alone), CHANNEL_DATA);
        channel_turn_took(&t, alone, CHANNEL_DATA, 250000);
    }
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        assert_int_equal(t.credit_bytes[i], 0);
    }
    bool none[CHANNEL_COUNT] = {false};
    assert_int_equal(channel_turn(&t, none), CHANNEL_COUNT);
}

/* A link of so many bytes a second and such a round trip, with a queue that keeps everything: returns how long, at the worst of the
 * second half, a byte waited in it beyond the round trip; *carried: bytes in the whole time. */
static uint64_t drive(uint64_t bytes_per_s, uint32_t round_trip_ms, uint64_t run_ms, uint64_t *carried) {
    struct channel_pace p;
    struct {
        uint64_t at_ms, sent_ms;
        uint32_t bytes;
    } way[4096];
    uint32_t first = 0, count = 0;
    uint64_t link_free_us = 0, worst_ms = 0;
    channel_pace_begin(&p, 0);
    *carried = 0;
    channel_pace_sent(&p, 150); /* the hello shows the bare round trip */
    channel_pace_confirmed(&p, 150, round_trip_ms, round_trip_ms);
    for (uint64_t now_ms = round_trip_ms; now_ms < run_ms; now_ms++) {
        while (count > 0 && way[first].at_ms <= now_ms) {
            uint32_t took_ms = (uint32_t)(now_ms - way[first].sent_ms);
            channel_pace_confirmed(&p, way[first].bytes, took_ms, now_ms);
            *carried += way[first].bytes;
            worst_ms = now_ms > run_ms / 2 && took_ms - round_trip_ms > worst_ms ? took_ms - round_trip_ms : worst_ms;
            first = (first + 1) % 4096;
            count--;
        }
        while (count < 20 && channel_pace_room(&p)) {
            uint32_t bytes = channel_pace_frame_bytes(&p);
            link_free_us = (link_free_us > now_ms * 1000 ? link_free_us : now_ms * 1000) + bytes * 1000000ull / bytes_per_s;
            way[(first + count) % 4096].at_ms = link_free_us / 1000 + round_trip_ms;
            way[(first + count) % 4096].sent_ms = now_ms;
            way[(first + count++) % 4096].bytes = bytes;
            channel_pace_sent(&p, bytes);
        }
    }
    return worst_ms;
}

static void thin_links_hold_little_and_thick_ones_are_filled(void **state) {
    (void)state;
    static const struct {
        uint64_t bytes_per_s;
        uint32_t round_trip_ms, used_percent_min;
        uint64_t waits_ms_max;
    } links[] = {
        {1200, 600, 60, 2500}, /* 9.6 kbit/s */
        {8000, 600, 70, 1000},   {8000, 3000, 30, 1500},  {32000, 100, 80, 1000},
        {125000, 600, 60, 1000}, {1250000, 40, 80, 1000}, {12500000, 20, 70, 1000},
    };
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        uint64_t carried, run_ms = 120000;
        uint64_t waited_ms = drive(links[i].bytes_per_s, links[i].round_trip_ms, run_ms, &carried);
        uint64_t percent = carried * 100 / (links[i].bytes_per_s * run_ms / 1000);
        print_message("%8u bytes/s, round trip %4u ms: %3u%% used, waits up to %u ms\n", (unsigned)links[i].bytes_per_s,
                      links[i].round_trip_ms, (unsigned)percent, (unsigned)waited_ms);
        assert_in_range(percent, links[i].used_percent_min, 100);
        assert_in_range(waited_ms, 0, links[i].waits_ms_max);
    }
}

static void one_frame_may_always_go(void **state) {
    (void)state;
    struct channel_pace p;
    channel_pace_begin(&p, 10); /* 10 bytes a second */
    assert_int_equal(p.bytes_max, CHANNEL_PACE_BYTES_MIN);
    assert_true(channel_pace_room(&p));
    channel_pace_sent(&p, 262144); /* an event of the largest size */
    assert_false(channel_pace_room(&p));
    channel_pace_confirmed(&p, 262144, 26000000, 26000000);
    assert_true(channel_pace_room(&p));
    channel_pace_confirmed(&p, 1, 5, 5); /* of the connection before: never below nothing */
    assert_int_equal(p.bytes_on_way, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_goes_on_behind_the_acknowledged),
        cmocka_unit_test(the_window_is_bounded_and_wraps),
        cmocka_unit_test(the_core_takes_what_fits),
        cmocka_unit_test(urgent_goes_first_and_nobody_starves),
        cmocka_unit_test(thin_links_hold_little_and_thick_ones_are_filled),
        cmocka_unit_test(one_frame_may_always_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
