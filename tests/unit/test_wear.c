/* What was written to flash in a day.  If it failed, a gateway's flash would wear out unnoticed, or events would wait for nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/store/wear.h"

#define HOUR_MS 3600000ll
#define NOON (1700000000ll * 1000)

static void a_day_forgets_what_is_older(void **state) {
    (void)state;
    struct wear w;
    wear_init(&w, 0);
    for (int hour = 0; hour < 100; hour++) {
        assert_int_equal(wear_add(&w, NOON + hour * HOUR_MS, 10), WEAR_LOW); /* without a bound */
        assert_int_equal(w.day_bytes, hour < 24 ? 10 * (hour + 1) : 240);
    }
    wear_add(&w, NOON + 110 * HOUR_MS, 0);
    assert_int_equal(w.day_bytes, 130);
    wear_add(&w, NOON + 50 * HOUR_MS, 5); /* the clock was set back: it counts all the same */
    assert_int_equal(w.day_bytes, 135);
    wear_add(&w, NOON + 5000 * HOUR_MS, 1);
    assert_int_equal(w.day_bytes, 1);
    wear_add(&w, NOON + 5000 * HOUR_MS, UINT64_MAX);
    assert_true(w.day_bytes == UINT64_MAX);
}

static void the_level_rises_at_once_and_falls_late(void **state) {
    (void)state;
    static const struct {
        int hour;
        uint64_t bytes;
        enum wear_level level;
    } steps[] = {
        {0, 699, WEAR_LOW},   {0, 100, WEAR_LOW}, {1, 1, WEAR_HIGH},  {2, 199, WEAR_HIGH},
        {3, 1, WEAR_OVER},    {10, 0, WEAR_OVER}, {23, 0, WEAR_OVER}, {24, 0, WEAR_LOW}, /* 201 are left */
        {25, 800, WEAR_OVER},                                                            /* with the 200 of hours 2 and 3 */
        {26, 0, WEAR_HIGH},                                                              /* 801 */
        {27, 0, WEAR_HIGH},   {49, 0, WEAR_LOW},
    };
    struct wear w;
    wear_init(&w, 1000);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (wear_add(&w, NOON + steps[i].hour * HOUR_MS, steps[i].bytes) != steps[i].level) {
            fail_msg("step %zu: %s with %llu bytes", i, wear_level_name(w.level), (unsigned long long)w.day_bytes);
        }
    }
}

static void it_outlives_a_restart(void **state) {
    (void)state;
    struct wear w, again;
    struct builder b;
    wear_init(&w, 1000000);
    for (int hour = 0; hour < 30; hour++) {
        wear_add(&w, NOON + hour * HOUR_MS, 33333u + (unsigned)hour);
    }
    builder_init(&b, WEAR_FILE_BYTES_MAX);
    wear_put(&w, &b);
    assert_int_equal(b.err, E_OK);
    wear_init(&again, 1000000);
    assert_true(wear_get(&again, builder_bytes(&b)));
    assert_memory_equal(&again, &w, sizeof w);

    /* No part of it, and nothing with a byte more or less, is taken. */
    struct bytes whole = builder_bytes(&b);
    char text[WEAR_FILE_BYTES_MAX + 1];
    for (size_t size = 0; size < whole.size; size++) {
        assert_false(wear_get(&again, bytes_of(whole.data, size)));
    }
    memcpy(text, whole.data, whole.size);
    text[whole.size] = '\n';
    assert_false(wear_get(&again, bytes_of(text, whole.size + 1)));
    text[12] = 'x';
    assert_false(wear_get(&again, bytes_of(text, whole.size)));
    assert_false(wear_get(&again, bytes_str("grey-wear 1 99999999999999999999 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")));
    assert_false(wear_get(&again, bytes_str("grey-wear 2 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")));
    assert_memory_equal(&again, &w, sizeof w);

    /* The longest there can be has room. */
    memset(w.hours, 0xff, sizeof w.hours);
    w.hour = INT64_MAX / HOUR_MS;
    builder_reset(&b);
    wear_put(&w, &b);
    assert_int_equal(b.err, E_OK);
    assert_true(wear_get(&again, builder_bytes(&b)));
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_day_forgets_what_is_older),
        cmocka_unit_test(the_level_rises_at_once_and_falls_late),
        cmocka_unit_test(it_outlives_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
