/* How many frames each site may have on the way to the core.  If this fails, a thousand sites that come back at once drown the broker, which
 * drops what they then send again over thin links; or a dozen sites are slowed down for nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/crowd.h"

static struct crowd crowd;

static void see(unsigned sites, uint64_t now_ms) {
    for (unsigned i = 0; i < sites; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "site-%05u", i);
        for (int times = 0; times < 3; times++) {
            crowd_saw(&crowd, name, now_ms);
        }
    }
}

static void the_budget_is_shared(void **state) {
    (void)state;
    static const struct {
        unsigned sites;
        uint32_t least, most;
    } cases[] = {{0, 16, 16}, {1, 16, 16}, {100, 16, 16}, {128, 16, 16}, {256, 8, 8}, {1000, 2, 2}, {3000, 1, 1}, {50000, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        crowd = (struct crowd){0};
        see(cases[i].sites, 100000);
        assert_in_range(crowd_window(&crowd), cases[i].least, cases[i].most);
        if (cases[i].sites > 0 && cases[i].sites <= 3000) { /* of all sites together no more than the budget, or one each */
            assert_true(crowd_window(&crowd) * cases[i].sites <= CROWD_FRAMES + CROWD_FRAMES / 16 || crowd_window(&crowd) == 1);
        }
    }
}

static void who_is_silent_is_forgotten(void **state) {
    (void)state;
    crowd = (struct crowd){0};
    see(1000, 5 * CROWD_SPAN_MS);
    see(10, 6 * CROWD_SPAN_MS); /* the thousand may only be resting */
    assert_int_equal(crowd_window(&crowd), 2);
    see(10, 7 * CROWD_SPAN_MS);
    assert_int_equal(crowd_window(&crowd), CROWD_WINDOW_FULL);
    see(1000, 8 * CROWD_SPAN_MS);
    see(10, 20 * CROWD_SPAN_MS); /* nobody for a while */
    assert_int_equal(crowd_window(&crowd), CROWD_WINDOW_FULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_budget_is_shared), cmocka_unit_test(who_is_silent_is_forgotten)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
