/* When to connect where: a mistake here leaves a site without its core though a broker is there, or lets a fleet trample the core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/reconnect.h"

static uint64_t seed;

static uint32_t chance(void) { /* splitmix64 */
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

/* How an endpoint behaves. */
enum manner { GOOD, REFUSES, SILENT_TCP, SILENT_TLS, SILENT_MQTT, SILENT_HELLO, DROPS_AFTER_5S };

#define STEP_MS 50u

/* A site in a world where every stage takes 50 ms; counts what it does. */
struct site {
    struct reconnect r;
    enum manner manners[RECONNECT_ENDPOINTS_MAX];
    uint64_t now_ms, up_ms; /* up_ms: in all */
    uint32_t tries[RECONNECT_ENDPOINTS_MAX], probes[RECONNECT_ENDPOINTS_MAX], ups[RECONNECT_ENDPOINTS_MAX], leaves, orders;
    bool busy;
    const char *why;
};

static void site_init(struct site *s, uint32_t endpoints, uint32_t failback_ms) {
    struct reconnect_options o = {.endpoint_count = endpoints, .failback_ms = failback_ms};
    memset(s, 0, sizeof *s);
    for (uint32_t i = 0; i < endpoints; i++) {
        o.priorities[i] = i + 1;
    }
    reconnect_init(&s->r, &o);
    s->now_ms = 1000000;
    reconnect_start(&s->r, s->now_ms);
}

static enum reconnect_stage stops_at(enum manner m) {
    return m == SILENT_TCP ? RECONNECT_DIAL : m == SILENT_TLS ? RECONNECT_TLS : m == SILENT_MQTT ? RECONNECT_MQTT : RECONNECT_HELLO;
}

static void obey(struct site *s) {
    for (;;) {
        struct reconnect_order o = reconnect_step(&s->r, s->now_ms, chance(), !s->busy);
        if (o.action == RECONNECT_NOTHING) {
            return;
        }
        assert_in_range(++s->orders, 1, 1000000); /* no endless orders */
        if (o.action == RECONNECT_CONNECT) {
            s->tries[o.endpoint]++;
        } else if (o.action == RECONNECT_PROBE) {
            s->probes[o.endpoint]++;
            reconnect_probed(&s->r, s->manners[o.endpoint] == GOOD || s->manners[o.endpoint] == DROPS_AFTER_5S, s->now_ms,
                             chance());
        } else {
            s->leaves++;
            s->why = o.why;
            if (o.returns) {
                reconnect_left(&s->r, s->now_ms);
            } else {
                reconnect_failed(&s->r, s->now_ms, chance());
            }
        }
    }
}

static void world(struct site *s) {
    enum manner m = s->r.current == RECONNECT_NONE ? GOOD : s->manners[s->r.current];
    enum reconnect_stage at = s->r.stage;
    if (at == RECONNECT_UP) {
        s->up_ms += STEP_MS;
        if ((m != GOOD && m != DROPS_AFTER_5S) || (m == DROPS_AFTER_5S && s->now_ms >= s->r.since_ms + 5000)) {
            reconnect_failed(&s->r, s->now_ms, chance());
        }
    } else if (at >= RECONNECT_DIAL && m == REFUSES) {
        reconnect_failed(&s->r, s->now_ms, chance());
    } else if (at >= RECONNECT_DIAL && (m == GOOD || m == DROPS_AFTER_5S || at < stops_at(m))) {
        reconnect_reached(&s->r, (enum reconnect_stage)(at + 1), s->now_ms);
        s->ups[s->r.current] += s->r.stage == RECONNECT_UP;
    }
}

static void run_ms(struct site *s, uint64_t ms) {
    for (uint64_t end = s->now_ms + ms; s->now_ms < end; s->now_ms += STEP_MS) {
        world(s);
        obey(s);
        uint64_t wake = reconnect_wake_ms(&s->r, s->now_ms);
        assert_true(wake > s->now_ms); /* or the owner's timer would spin */
    }
}

static bool run_until_up(struct site *s, uint32_t endpoint, uint64_t ms) {
    for (uint64_t end = s->now_ms + ms; s->now_ms < end && !(s->r.stage == RECONNECT_UP && s->r.current == endpoint);) {
        run_ms(s, STEP_MS);
    }
    return s->r.stage == RECONNECT_UP && s->r.current == endpoint;
}

/* If this fails, a site that is switched on waits before it tries its core, or never says hello. */
static void the_first_try_is_at_once(void **state) {
    (void)state;
    struct site s;
    site_init(&s, 1, 300000);
    assert_true(run_until_up(&s, 0, 1000));
    run_ms(&s, 600000);
    assert_int_equal(s.tries[0], 1);
    assert_int_equal(s.r.breakers[0].state, BREAKER_CLOSED);
    assert_true(reconnect_wake_ms(&s.r, s.now_ms) == UINT64_MAX); /* a link that is good costs no wake-up */
}

/* If this fails, a broker that refuses is asked several times a second, or not any more when it is back. */
static void a_dead_endpoint_is_asked_ever_more_rarely(void **state) {
    (void)state;
    for (int round = 0; round < 4; round++) {
        struct site s;
        seed = (uint64_t)round;
        site_init(&s, 1, 300000);
        s.manners[0] = REFUSES;
        run_ms(&s, 29000); /* the third failure comes within 16 s and opens the breaker for 30 s at least */
        assert_in_range(s.tries[0], 3, 3);
        assert_int_equal(s.r.breakers[0].state, BREAKER_OPEN);
        run_ms(&s, 3600000);
        assert_in_range(s.tries[0], 7, 14);
        uint32_t before = s.tries[0];
        run_ms(&s, 7 * 86400000ull); /* a week: 672 to 1008 tries */
        assert_in_range(s.tries[0] - before, 650, 1050);
        s.manners[0] = GOOD;
        assert_true(run_until_up(&s, 0, 901000));
        run_ms(&s, 61000);
        assert_int_equal(s.r.breakers[0].openings, 0); /* forgiven */
    }
}

/* If this fails, all sites are without their core for minutes because its broker was restarted three times. */
static void the_core_is_eager(void **state) {
    (void)state;
    struct site s;
    site_init(&s, 2, 60000);
    struct reconnect_options o = s.r.o;
    o.longest_wait_ms = 5000;
    s.manners[0] = s.manners[1] = REFUSES;
    reconnect_init(&s.r, &o);
    reconnect_start(&s.r, s.now_ms);
    run_ms(&s, 3600000);
    assert_in_range(s.tries[0] + s.tries[1], 3600 / 5, 3600 * 2);
    s.manners[0] = GOOD;
    assert_true(run_until_up(&s, 0, 11000));
}

/* If this fails, an operator who has mended the line waits up to a quarter of an hour for the proof. */
static void hurry_tries_now(void **state) {
    (void)state;
    struct site s;
    site_init(&s, 2, 300000);
    s.manners[0] = s.manners[1] = REFUSES;
    run_ms(&s, 3600000);
    s.manners[1] = GOOD;
    reconnect_hurry(&s.r, s.now_ms);
    assert_true(run_until_up(&s, 1, 9000)); /* the other one may be asked before, and fail */
}

/* If this fails, one dead broker of two keeps a site from its core. */
static void another_endpoint_is_tried_next(void **state) {
    (void)state;
    for (int m = REFUSES; m <= SILENT_HELLO; m++) {
        struct site s;
        site_init(&s, 3, 300000);
        s.manners[0] = (enum manner)m;
        assert_true(run_until_up(&s, 1, 40000)); /* 30 s of patience at the hello, 4 s of chance, 4 stages */
        assert_int_equal(s.tries[0], 1);
        assert_int_equal(s.tries[2], 0);
    }
}

/* If this fails, a site hangs for ever on a broker that accepts and says nothing, and its engineer is not told at which stage. */
static void silence_is_found_at_each_stage(void **state) {
    (void)state;
    static const struct {
        enum manner manner;
        uint32_t found_ms;
        const char *word;
    } cases[] = {
        {SILENT_TCP, 12000, "TCP"}, {SILENT_TLS, 25000, "TLS"}, {SILENT_MQTT, 20000, "MQTT"}, {SILENT_HELLO, 30000, "core"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct site s;
        site_init(&s, 2, 300000);
        s.manners[0] = cases[i].manner;
        s.manners[1] = REFUSES;
        run_ms(&s, cases[i].found_ms);
        assert_int_equal(s.leaves, 0);
        run_ms(&s, 500);
        assert_int_equal(s.leaves, 1);
        assert_non_null(strstr(s.why, cases[i].word));
    }
}

/* If this fails, a core that is down for the night costs a TLS handshake every minute. */
static void a_silent_core_is_waited_for_on_the_connection(void **state) {
    (void)state;
    struct site s;
    site_init(&s, 1, 300000);
    s.manners[0] = SILENT_HELLO;
    run_ms(&s, 12 * 3600000ull);
    assert_in_range(s.tries[0], 23, 25); /* every half hour */
    struct site two;
    site_init(&two, 2, 300000);
    two.manners[0] = two.manners[1] = SILENT_HELLO;
    run_ms(&two, 12 * 3600000ull);
    assert_in_range(two.tries[0] + two.tries[1], 20, 150); /* both are asked, ever more rarely */
}

/* If this fails, a site stays on the far broker after the near one was mended, or leaves it while the near one is still shaky. */
static void it_returns_when_the_better_one_has_been_good(void **state) {
    (void)state;
    struct site s;
    site_init(&s, 2, 300000);
    assert_true(run_until_up(&s, 0, 1000));
    run_ms(&s, 120000);
    s.manners[0] = REFUSES;
    assert_true(run_until_up(&s, 1, 20000));
    run_ms(&s, 3600000);
    assert_int_equal(s.r.current, 1);
    assert_int_equal(s.ups[1], 1);
    assert_in_range(s.probes[0], 5, 40);
    s.manners[0] = GOOD;
    run_ms(&s, 299000);
    assert_int_equal(s.r.current, 1); /* not at once */
    s.busy = true;
    run_ms(&s, 1800000);
    assert_int_equal(s.r.current, 1); /* not while something is on the way */
    s.busy = false;
    assert_true(run_until_up(&s, 0, 10000));
    run_ms(&s, 3600000);
    assert_true(s.r.stage == RECONNECT_UP && s.r.current == 0);
    assert_int_equal(s.ups[0], 2);
    assert_int_equal(s.r.hold_ms, 300000);
}

/* If this fails, a site under load all day never returns to its own broker. */
static void a_busy_site_returns_in_the_end(void **state) {
    (void)state;
    struct site s;
    site_init(&s, 2, 60000);
    s.manners[0] = REFUSES;
    assert_true(run_until_up(&s, 1, 20000));
    s.manners[0] = GOOD;
    s.busy = true;
    run_ms(&s, 500000);
    assert_int_equal(s.r.current, 1);
    assert_true(run_until_up(&s, 0, 300000));
}

/* If this fails, a broker that takes everybody in and drops them after 5 s makes the whole fleet run to and fro. */
static void a_flapping_favourite_is_left_alone(void **state) {
    (void)state;
    struct site s;
    site_init(&s, 2, 300000);
    s.manners[0] = DROPS_AFTER_5S;
    run_ms(&s, 86400000);
    assert_in_range(s.ups[0], 2, 30); /* the time of trial doubles up to an hour */
    assert_true(s.up_ms > 86400000 / 100 * 99);
}

/* If this fails, a line that flaps all day is given up for most of it, or each flap costs a handshake at once. */
static void a_flapping_line_is_used_and_bounded(void **state) {
    (void)state;
    struct site s;
    site_init(&s, 1, 300000);
    s.manners[0] = DROPS_AFTER_5S;
    run_ms(&s, 86400000);
    assert_in_range(s.tries[0], 86400 / 70, 86400 / 25); /* a wait of 30 s in the mean, 60 s at most, and 5 s of use */
    assert_true(s.r.breakers[0].state == BREAKER_CLOSED);
}

/* If this fails, equal brokers are not used equally, and adding one does not help. */
static void equals_share(void **state) {
    (void)state;
    uint32_t first[3] = {0};
    seed = 7;
    for (int i = 0; i < 3000; i++) {
        struct site s;
        site_init(&s, 4, 300000);
        s.r.o.priorities[0] = s.r.o.priorities[1] = s.r.o.priorities[2] = 1;
        obey(&s);
        assert_in_range(s.r.current, 0, 2);
        first[s.r.current]++;
    }
    for (int i = 0; i < 3; i++) {
        assert_in_range(first[i], 900, 1100);
    }
}

/* --- a fleet -------------------------------------------------------------------------------------------------------------------------- */

#define SITES 1000u
#define SHAKES_PER_S 200u /* what the broker can do */
#define SECOND_STEPS (1000u / STEP_MS)

struct fleet {
    struct site sites[SITES];
    uint64_t now_ms;
    bool down;
    uint32_t queue[SITES], waiting; /* sites in the broker's handshake queue */
    uint32_t peak_per_s, most_waiting;
};

static void fleet_run_s(struct fleet *f, uint64_t seconds) {
    for (uint64_t second = 0; second < seconds; second++) {
        uint32_t came = 0;
        for (uint32_t step = 0; step < SECOND_STEPS; step++, f->now_ms += STEP_MS) {
            for (uint32_t n = SHAKES_PER_S / SECOND_STEPS; n > 0 && f->waiting > 0; n--) {
                struct site *s = &f->sites[f->queue[0]];
                memmove(f->queue, f->queue + 1, --f->waiting * sizeof f->queue[0]);
                if (s->r.stage == RECONNECT_DIAL) {
                    reconnect_reached(&s->r, RECONNECT_UP, f->now_ms);
                }
            }
            for (uint32_t i = 0; i < SITES; i++) {
                struct site *s = &f->sites[i];
                s->now_ms = f->now_ms;
                if (f->now_ms < reconnect_wake_ms(&s->r, f->now_ms - 1)) {
                    continue;
                }
                uint32_t before = s->tries[0];
                obey(s);
                if (s->tries[0] > before) {
                    came++;
                    if (f->down) {
                        reconnect_failed(&s->r, f->now_ms, chance());
                    } else {
                        f->queue[f->waiting++] = i;
                        f->most_waiting = f->waiting > f->most_waiting ? f->waiting : f->most_waiting;
                    }
                }
            }
        }
        f->peak_per_s = came > f->peak_per_s ? came : f->peak_per_s;
    }
}

static uint32_t fleet_up(const struct fleet *f) {
    uint32_t up = 0;
    for (uint32_t i = 0; i < SITES; i++) {
        up += f->sites[i].r.stage == RECONNECT_UP;
    }
    return up;
}

static void fleet_lose(struct fleet *f) {
    for (uint32_t i = 0; i < SITES; i++) {
        reconnect_failed(&f->sites[i].r, f->now_ms, chance());
    }
}

/* If this fails, a thousand sites that lost their broker in one moment come back in one moment, and it falls over again. */
static void a_fleet_does_not_trample(void **state) {
    (void)state;
    static struct fleet f;
    seed = 42;
    for (uint32_t i = 0; i < SITES; i++) {
        site_init(&f.sites[i], 1, 300000);
        f.now_ms = f.sites[i].now_ms;
        obey(&f.sites[i]);
        reconnect_reached(&f.sites[i].r, RECONNECT_UP, f.now_ms);
    }
    fleet_run_s(&f, 120);
    assert_int_equal(fleet_up(&f), SITES);

    /* It restarts and is back at once: they come within 4 s, evenly. */
    fleet_lose(&f);
    fleet_run_s(&f, 30);
    assert_int_equal(fleet_up(&f), SITES);
    assert_in_range(f.peak_per_s, 200, 350);
    assert_in_range(f.most_waiting, 0, 400);

    /* It is away for a minute. */
    fleet_run_s(&f, 120);
    f.down = true;
    fleet_lose(&f);
    fleet_run_s(&f, 60);
    f.down = false;
    f.peak_per_s = f.most_waiting = 0;
    fleet_run_s(&f, 100);
    assert_int_equal(fleet_up(&f), SITES);
    assert_in_range(f.peak_per_s, 10, 80);

    /* It is away for a day: all are back within a quarter of an hour, a few each second. */
    f.down = true;
    fleet_lose(&f);
    fleet_run_s(&f, 86400);
    f.down = false;
    f.peak_per_s = f.most_waiting = 0;
    fleet_run_s(&f, 901);
    assert_int_equal(fleet_up(&f), SITES);
    assert_in_range(f.peak_per_s, 1, 15);
    assert_in_range(f.most_waiting, 0, 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_try_is_at_once),
        cmocka_unit_test(a_dead_endpoint_is_asked_ever_more_rarely),
        cmocka_unit_test(the_core_is_eager),
        cmocka_unit_test(hurry_tries_now),
        cmocka_unit_test(another_endpoint_is_tried_next),
        cmocka_unit_test(silence_is_found_at_each_stage),
        cmocka_unit_test(a_silent_core_is_waited_for_on_the_connection),
        cmocka_unit_test(it_returns_when_the_better_one_has_been_good),
        cmocka_unit_test(a_busy_site_returns_in_the_end),
        cmocka_unit_test(a_flapping_favourite_is_left_alone),
        cmocka_unit_test(a_flapping_line_is_used_and_bounded),
        cmocka_unit_test(equals_share),
        cmocka_unit_test(a_fleet_does_not_trample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
