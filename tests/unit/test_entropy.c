/* The coder below all squeezed events: one decision read otherwise than it was written, and the rest of a session is noise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "federation/entropy.h"
#include "federation/series.h"

#define DECISIONS 5000u

struct models {
    entropy_model bits[4], tree[256];
};

static void new_models(struct models *m) {
    entropy_models_new(m->bits, 4);
    entropy_models_new(m->tree, 256);
}

/* The same decisions, written or read; returns how many came out as they should. */
static unsigned decide(struct entropy *c, struct models *m, unsigned seed, unsigned count) {
    unsigned same = 0;
    srand(seed);
    for (unsigned i = 0; i < count; i++) {
        unsigned one_of = 2u + (unsigned)rand() % 400u;
        bool bit = (unsigned)rand() % one_of == 0;
        unsigned value = (unsigned)rand() & 255u & (unsigned)rand(), bits = (unsigned)rand() % 65u;
        uint64_t ones = bits < 64 ? ((uint64_t)1 << bits) - 1 : UINT64_MAX;
        uint64_t raw = ((uint64_t)rand() << 40 ^ (uint64_t)rand() << 20 ^ (uint64_t)rand()) & ones;
        raw = rand() % 8 == 0 ? ones : raw; /* runs of ones make carries wait */
        bool read = c->out == NULL;
        same += entropy_bit(c, &m->bits[i % 4], !read && bit) == bit;
        same += i % 7 != 0 || entropy_tree(c, m->tree, 8, read ? 0 : value) == value;
        same += i % 5 != 0 || entropy_raw(c, bits, read ? 0 : raw) == raw;
    }
    return same;
}

static void what_is_written_is_read(void **state) {
    (void)state;
    for (unsigned seed = 1; seed < 300; seed++) {
        unsigned count = seed < 200 ? seed % 23 : DECISIONS;
        struct builder b;
        struct entropy c;
        struct models m;
        builder_init(&b, 1000000);
        builder_add_str(&b, "before");
        new_models(&m);
        entropy_write(&c, &b);
        (void)decide(&c, &m, seed, count);
        assert_int_equal(entropy_end(&c), E_OK);
        struct bytes written = bytes_of(b.data + 6, b.size - 6);
        new_models(&m);
        entropy_read(&c, written);
        assert_int_equal(decide(&c, &m, seed, count), 3 * count);
        assert_int_equal(entropy_end(&c), E_OK);
        builder_free(&b);
    }
}

static void what_is_likely_costs_little(void **state) {
    (void)state;
    struct builder b;
    struct entropy c;
    entropy_model m = ENTROPY_MODEL_NEW;
    builder_init(&b, 100000);
    entropy_write(&c, &b);
    for (unsigned i = 0; i < 80000; i++) {
        (void)entropy_bit(&c, &m, i == 40000);
    }
    assert_int_equal(entropy_end(&c), E_OK);
    assert_in_range(b.size, 1, 80000 / 8 / 100);
    builder_free(&b);
}

static void what_follows_or_lacks_is_seen(void **state) {
    (void)state;
    struct builder b;
    struct entropy c;
    struct models m;
    builder_init(&b, 100000);
    new_models(&m);
    entropy_write(&c, &b);
    (void)decide(&c, &m, 9, 100);
    assert_int_equal(entropy_end(&c), E_OK);
    builder_add_str(&b, "follows");
    new_models(&m);
    entropy_read(&c, builder_bytes(&b));
    assert_int_equal(decide(&c, &m, 9, 100), 300);
    assert_int_equal(entropy_end(&c), E_CORRUPT);
    new_models(&m);
    entropy_read(&c, bytes_of(b.data, b.size / 2));
    assert_true(decide(&c, &m, 9, 100) < 300 || entropy_end(&c) != E_OK);
    builder_free(&b);
}

/* Numbers of every kind, the widest included, and what a walk costs. */
static void series_go_there_and_back(void **state) {
    (void)state;
    static const uint64_t odd[] = {0, 1, UINT64_MAX, INT64_MAX, 1ull << 63, 5, 5, 5, 1ull << 31, (1ull << 31) - 1, 0, 1ull << 62};
    enum { ODD = sizeof odd / sizeof odd[0], COUNT = 3000 };
    static uint64_t values[COUNT];
    for (unsigned kind = 0; kind < 4; kind++) {
        struct builder b;
        struct entropy c;
        struct series s;
        uint64_t v = 1000000;
        srand(3);
        for (unsigned i = 0; i < COUNT; i++) {
            v += kind == 1 ? 1000 : (uint64_t)(rand() % 64) - 32;
            values[i] = kind == 0 ? odd[i % ODD] : kind == 3 ? (uint64_t)(rand() % 64) : v;
        }
        builder_init(&b, 1000000);
        series_new(&s);
        entropy_write(&c, &b);
        for (unsigned i = 0; i < COUNT; i++) {
            assert_int_equal(series_code(&c, &s, values[i]), values[i]);
        }
        assert_int_equal(entropy_end(&c), E_OK);
        size_t bits = 8 * b.size / COUNT;
        assert_true(kind == 0 || (kind == 1 ? bits == 0 : bits <= 6)); /* counter; walk and noise: 6 bits are in each */
        series_new(&s);
        entropy_read(&c, builder_bytes(&b));
        for (unsigned i = 0; i < COUNT; i++) {
            assert_int_equal(series_code(&c, &s, 0), values[i]);
        }
        assert_int_equal(entropy_end(&c), E_OK);
        builder_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(what_is_likely_costs_little),
        cmocka_unit_test(what_follows_or_lacks_is_seen),
        cmocka_unit_test(series_go_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
