/* Credits: a mistake here lets a thousand sites that return after a week fill the core's memory, or holds up a site for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/credit.h"

#define ROOM (16u * 1024u * 1024u)

/* If this fails, a site waits for a word of the core that nothing causes, or an alarm waits behind a week of temperatures. */
static void something_may_always_go(void **state) {
    (void)state;
    assert_true(credit_allows(0, 0, false));
    assert_true(credit_allows(CREDIT_BYTES_LEAST, CREDIT_BYTES_LEAST - 1, false));
    assert_false(credit_allows(CREDIT_BYTES_LEAST, CREDIT_BYTES_LEAST, false));
    assert_true(credit_allows(CREDIT_BYTES_LEAST, 1u << 30, true));
}

/* If this fails, few sites are held to what a thousand would get, or a thousand get what few would. */
static void the_room_is_shared(void **state) {
    (void)state;
    struct credit c = {0};
    assert_int_equal(credit_grant(&c, 0, ROOM), CREDIT_BYTES_FULL);
    for (int i = 0; i < 1000; i++) {
        char name[20];
        (void)snprintf(name, sizeof name, "site-%d", i);
        credit_seen(&c, name, 50000, 8000, 8000);
        credit_seen(&c, name, 50001, 8000, 0);
    }
    assert_in_range(credit_sites(&c), 880, 1000);
    assert_in_range(credit_grant(&c, 0, ROOM), CREDIT_BYTES_LEAST, 20000);
    assert_int_equal(credit_grant(&c, ROOM, ROOM), CREDIT_BYTES_LEAST);
    assert_int_equal(credit_grant(&c, SIZE_MAX, ROOM), CREDIT_BYTES_LEAST);
    for (int i = 0; i < 10; i++) {
        credit_seen(&c, "one", 50000 + 10000u * (unsigned)(i + 1), 100, 100); /* the others have gone */
    }
    assert_int_equal(credit_sites(&c), 1);
    assert_int_equal(credit_grant(&c, ROOM / 2, ROOM), CREDIT_BYTES_FULL);
}

/* If this fails, events that were squeezed to a tenth fill ten times the memory that was meant for them. */
static void what_swells_gets_less(void **state) {
    (void)state;
    struct credit c = {0};
    for (int i = 0; i < 200; i++) {
        credit_seen(&c, "one", 50000, 10000, 100000);
    }
    assert_in_range(credit_grant(&c, 0, ROOM), ROOM / 11, ROOM / 9);
    for (int i = 0; i < 200; i++) {
        credit_seen(&c, "one", 50000, 10000, 9000);
    }
    assert_int_equal(credit_grant(&c, 0, ROOM), CREDIT_BYTES_FULL);
}

#define SITES 1000u
#define FRAME_BYTES 8192u

/* A thousand sites with a week each before a core that stores so many bytes a second; links of 1 MB/s and 50 ms. */
static void a_slow_core_slows_the_sites(void **state) {
    (void)state;
    static struct {
        uint32_t credit;
        uint64_t on_way, left;
    } sites[SITES];
    static uint32_t queue[1u << 20]; /* frames at the core, by site */
    size_t head = 0, tail = 0, most = 0, waiting = 0;
    static struct credit c;
    uint64_t now_ms = 100000, stored = 0;
    for (uint32_t i = 0; i < SITES; i++) {
        sites[i].credit = CREDIT_BYTES_FIRST;
        sites[i].left = 1024u * 1024u;
    }
    for (uint32_t turn = 0; stored < 1024ull * 1024u * SITES; turn++, now_ms += 50) {
        assert_in_range(turn, 0, 1000000);
        for (uint32_t i = 0; i < SITES; i++) { /* each sends what it may */
            for (int frames = 0; frames < 6 && sites[i].left > 0 && credit_allows(sites[i].credit, sites[i].on_way, false);
                 frames++) {
                char name[20];
                (void)snprintf(name, sizeof name, "site-%u", i);
                credit_seen(&c, name, now_ms, FRAME_BYTES, FRAME_BYTES);
                sites[i].left -= FRAME_BYTES;
                sites[i].on_way += FRAME_BYTES;
                waiting += FRAME_BYTES;
                queue[head++ % (sizeof queue / sizeof queue[0])] = i;
            }
        }
        most = waiting > most ? waiting : most;
        for (int frames = 0; frames < 120 && tail < head; frames++) { /* 20 MB/s are stored and acknowledged */
            uint32_t i = queue[tail++ % (sizeof queue / sizeof queue[0])];
            waiting -= FRAME_BYTES;
            stored += FRAME_BYTES;
            sites[i].on_way -= FRAME_BYTES;
            sites[i].credit = credit_grant(&c, waiting, ROOM);
        }
    }
    /* The first credits are given before the core knows of the crowd; then it shrinks to the least for each. */
    assert_in_range(most, 16u * 1024u * SITES, (CREDIT_BYTES_FIRST + FRAME_BYTES) * SITES);
    assert_int_equal(waiting, 0);
    assert_in_range(now_ms - 100000, 50000, 60000); /* as fast as the core can */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(something_may_always_go),
        cmocka_unit_test(the_room_is_shared),
        cmocka_unit_test(what_swells_gets_less),
        cmocka_unit_test(a_slow_core_slows_the_sites),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
