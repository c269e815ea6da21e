/* What greyctl shows.  If a span, a size or the verdict were wrong, an engineer would drive to a site that is well, or stay in bed
 * while one is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/ctl/render.h"

#define DAY_S 86400.0

static void assert_shows(struct builder *out, const char *wanted) {
    builder_add_byte(out, 0);
    assert_int_equal(out->err, E_OK);
    assert_string_equal((const char *)out->data, wanted);
    builder_free(out);
}

/* "3 d 4 h" must be three days and four hours, at every edge of the units. */
static void spans_are_right(void **state) {
    (void)state;
    static const struct {
        double seconds;
        const char *shown;
    } table[] = {{-5, "0 s"},
                 {0, "0 s"},
                 {0.9, "0 s"},
                 {59.9, "59 s"},
                 {60, "1 min"},
                 {252, "4 min 12 s"},
                 {3600, "1 h"},
                 {3659, "1 h"},
                 {11100, "3 h 5 min"},
                 {3 * DAY_S + 4 * 3600 + 59, "3 d 4 h"},
                 {99 * DAY_S + 3600, "99 d 1 h"},
                 {120 * DAY_S + 3600, "120 d"},
                 {1e300, "11574074 d"}};
    char text[RENDER_SHORT];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_string_equal(render_span(table[i].seconds, text), table[i].shown);
    }
}

/* A size that is off by a thousand would make a full disk look empty. */
static void sizes_are_right(void **state) {
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *shown;
    } table[] = {{0, "0 B"},          {999, "999 B"},         {1000, "1.0 kB"},     {1200, "1.2 kB"},
                 {9949, "9.9 kB"},    {9950, "10 kB"},        {999499, "999 kB"},   {999500, "1.0 MB"},
                 {61000000, "61 MB"}, {1073741824, "1.1 GB"}, {UINT64_MAX, "18 EB"}};
    char text[RENDER_SHORT];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_string_equal(render_size(table[i].bytes, text), table[i].shown);
    }
}

/* A device's event text must not be able to command the engineer's terminal. */
static void control_characters_are_harmless(void **state) {
    (void)state;
    struct builder out;
    builder_init(&out, 1000);
    render_text(&out, bytes_str("a\033[2Jb\n\x7f\xc2\x9b gr\xc3\xbc\xc3\x9f \xc2\xa0"));
    assert_shows(&out, "a?[2Jb??? gr\xc3\xbc\xc3\x9f \xc2\xa0");
}

/* If columns did not line up, 3 a.m. eyes would read the wrong node's state. */
static void tables_line_up(void **state) {
    (void)state;
    static const char *const titles[] = {"NODE", "BEHIND>", "WHERE"};
    struct render_table t;
    struct builder out;
    builder_init(&out, 1000);
    render_table_begin(&t, titles, 3);
    render_cell(&t, "1");
    render_cellf(&t, "%d", 7);
    render_cell(&t, "hall");
    render_cell(&t, "gr\xc3\xbc\xc3\x9f"
                    "e");
    render_cellf(&t, "%d", 123456789);
    render_cell(&t, NULL);
    render_table_end(&t, &out);
    assert_shows(&out, "NODE      BEHIND  WHERE\n"
                       "1              7  hall\n"
                       "gr\xc3\xbc\xc3\x9f"
                       "e  123456789  -\n");
    builder_init(&out, 1000);
    render_table_begin(&t, titles, 3);
    render_table_end(&t, &out);
    assert_shows(&out, "NODE  BEHIND  WHERE\n");
}

static struct render_facts whole_site(void) {
    return (struct render_facts){.voters = 3,
                                 .voters_alive = 3,
                                 .quorum = true,
                                 .leader = "2",
                                 .silent = "",
                                 .link = LINK_UP,
                                 .offline_s = 4,
                                 .queue_limit_bytes = 1073741824};
}

static void assert_verdict(const struct render_facts *f, enum render_verdict wanted, const char *shown) {
    struct builder out;
    builder_init(&out, 1000);
    assert_int_equal(render_verdict(f, false, &out), wanted);
    assert_shows(&out, shown);
}

static void verdict_of_a_whole_site(void **state) {
    (void)state;
    struct render_facts f = whole_site();
    assert_verdict(&f, VERDICT_OK, "OK: 3 of 3 nodes, leader 2, can lose 1 node; link up, 0 events waiting");
    f.link = LINK_NONE;
    f.waiting_events = 1, f.waiting_bytes = 80;
    assert_verdict(&f, VERDICT_OK, "OK: 3 of 3 nodes, leader 2, can lose 1 node; no core configured, 1 event (80 B) waiting");
    f.link = LINK_ELSEWHERE;
    f.voters = f.voters_alive = 5, f.learners = 1;
    assert_verdict(&f, VERDICT_OK,
                   "OK: 5 of 5 nodes, leader 2, can lose 2 nodes, 1 joining; link kept by node 2, 1 event (80 B) waiting");
    f = whole_site();
    f.voters = f.voters_alive = 1;
    assert_verdict(&f, VERDICT_OK, "OK: one node alone, no second copy of its data; link up, 0 events waiting");
}

/* "can lose 0" must be said before it hurts, and who is missing. */
static void verdict_of_a_damaged_site(void **state) {
    (void)state;
    struct render_facts f = whole_site();
    f.voters = f.voters_alive = 2, f.distrusted = "3";
    assert_verdict(&f, VERDICT_DEGRADED,
                   "DEGRADED: 2 of 2 nodes, leader 2, can lose 0 nodes, in quarantine: 3; link up, 0 events waiting");
    f.voters = 3, f.distrusted = "";
    f.voters_alive = 2, f.silent = "3";
    assert_verdict(&f, VERDICT_DEGRADED,
                   "DEGRADED: 2 of 3 nodes, leader 2, can lose 0 nodes, silent: 3; link up, 0 events waiting");
    f.one_disk = true; /* the third is a witness */
    assert_verdict(&f, VERDICT_DEGRADED,
                   "DEGRADED: 2 of 3 nodes, leader 2, can lose 0 nodes, silent: 3, answers rest on one disk; link up, 0 events "
                   "waiting");
    f.one_disk = false;
    f.link = LINK_DOWN, f.offline_s = 90;
    assert_verdict(&f, VERDICT_DEGRADED,
                   "DEGRADED: 2 of 3 nodes, leader 2, can lose 0 nodes, silent: 3; OFFLINE for 1 min 30 s, 0 events "
                   "waiting, room for 1.1 GB");
    f.voters_alive = 1, f.silent = "2, 3", f.quorum = false, f.leader = "";
    assert_verdict(&f, VERDICT_NO_QUORUM,
                   "NO QUORUM: 1 of 3 nodes answers, silent: 2, 3; nothing can be decided, stale reads go on; 0 events waiting");
    f.voters_alive = 3, f.silent = "";
    assert_verdict(&f, VERDICT_NO_QUORUM,
                   "NO QUORUM: 3 of 3 nodes answer, none leads yet; nothing can be decided, stale reads go on; 0 events waiting");
}

/* The room is what decides whether somebody must travel this weekend. */
static void verdict_offline_says_how_long_it_holds(void **state) {
    (void)state;
    struct render_facts f = whole_site();
    f.link = LINK_DOWN, f.offline_s = 76 * 3600.0, f.oldest_s = 76 * 3600.0;
    f.waiting_events = 300000, f.waiting_bytes = 61000000, f.queue_limit_bytes = 161000000;
    assert_verdict(
        &f, VERDICT_OFFLINE,
        "OFFLINE for 3 d 4 h, 300000 events (61 MB) waiting, room for 5 d 4 h more; 3 of 3 nodes, leader 2, can lose 1 node");
    f.offline_s = -1, f.oldest_s = 10, f.waiting_bytes = 500, f.waiting_events = 2;
    assert_verdict(&f, VERDICT_OFFLINE,
                   "OFFLINE, no contact since the leader started, 2 events (500 B) waiting, room for 161 MB; 3 of 3 nodes, "
                   "leader 2, can lose 1 node");
    f.waiting_bytes = f.queue_limit_bytes, f.oldest_s = 100;
    assert_true(render_room_s(&f) == 0);
    f.waiting_bytes = 2000, f.oldest_s = 100;
    assert_true(render_room_s(&f) > 0);
    f.oldest_s = 59;
    assert_true(render_room_s(&f) < 0); /* too young to extrapolate from */
    f.offline_s = 1000 * DAY_S, f.waiting_bytes = 2000;
    struct builder out;
    builder_init(&out, 1000);
    assert_int_equal(render_verdict(&f, true, &out), VERDICT_OFFLINE);
    builder_add_byte(&out, 0);
    assert_non_null(strstr((const char *)out.data, "room for more than a year"));
    assert_non_null(strstr((const char *)out.data, "\033[33mOFFLINE\033[0m"));
    builder_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(spans_are_right),
                                       cmocka_unit_test(sizes_are_right),
                                       cmocka_unit_test(control_characters_are_harmless),
                                       cmocka_unit_test(tables_line_up),
                                       cmocka_unit_test(verdict_of_a_whole_site),
                                       cmocka_unit_test(verdict_of_a_damaged_site),
                                       cmocka_unit_test(verdict_offline_says_how_long_it_holds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
