#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/work/lanes.h"

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

struct thing {
    struct lane_item item;
    unsigned flow;
    enum task_lane lane;
};

struct bench {
    struct lanes lanes;
    struct lane_flow *flows;
    unsigned flow_count;
    uint64_t tickets;
    uint64_t room;     /* items that still fit */
    uint64_t cost_max; /* larger ones never fit; 0: all do */
    uint64_t served[QUOTA_TENANTS_MAX], cost[QUOTA_TENANTS_MAX];
    char order[4096];
    unsigned last_flow;
};

static void bench_init(struct bench *b, const char *const *names, const uint32_t *weights, unsigned count) {
    memset(b, 0, sizeof *b);
    b->flows = calloc(count, sizeof *b->flows);
    b->flow_count = count;
    for (unsigned i = 0; i < count; i++) {
        b->flows[i].name = names[i];
        b->flows[i].weight = weights[i];
        lanes_flow_add(&b->lanes, &b->flows[i]);
    }
}

static void put(struct bench *b, unsigned flow, enum task_lane lane, unsigned name_space, uint64_t cost) {
    struct thing *x = calloc(1, sizeof *x);
    x->item.ticket = ++b->tickets;
    x->item.cost = cost;
    x->flow = flow;
    x->lane = lane;
    lanes_put(&b->lanes, &b->flows[flow], lane, name_space, &x->item);
}

static bool fits(void *context, struct lane_item *item) {
    struct bench *b = context;
    return b->room > 0 && (b->cost_max == 0 || item->cost <= b->cost_max);
}

static void serve(void *context, struct lane_item *item) {
    struct bench *b = context;
    struct thing *x = (struct thing *)item;
    b->room--;
    b->served[x->flow]++;
    b->cost[x->flow] += item->cost;
    b->last_flow = x->flow;
    size_t size = strlen(b->order);
    if (size + 2 < sizeof b->order) {
        b->order[size] = (char)('0' + x->lane);
        b->order[size + 1] = 0;
    }
    free(x);
}

static void run(struct bench *b, uint64_t room) {
    struct lanes_server s = {fits, serve, b};
    b->room = room;
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        lanes_run(&b->lanes, (enum task_lane)lane, &s);
    }
}

static void bench_free(struct bench *b) {
    b->cost_max = 0;
    run(b, UINT64_MAX);
    assert_int_equal(lanes_waiting(&b->lanes), 0);
    free(b->flows);
}

/* With one place free at a time the critical task must come first, whenever it was submitted. */
static void lanes_are_served_strictly_in_order(void **context) {
    (void)context;
    struct bench b;
    bench_init(&b, (const char *const[]){"a"}, (const uint32_t[]){100}, 1);
    for (unsigned lane = LANE_COUNT; lane-- > 0;) {
        put(&b, 0, (enum task_lane)lane, 0, 10);
        put(&b, 0, (enum task_lane)lane, 0, 10);
    }
    for (unsigned i = 0; i < 10; i++) {
        run(&b, 1);
    }
    assert_string_equal(b.order, "0011223344");
    bench_free(&b);
}

/* Keeps every tenant's queue full and lets `places` free up at a time. */
static void share_out(struct bench *b, unsigned tasks, unsigned places, uint64_t (*cost)(unsigned flow)) {
    for (unsigned served = 0; served < tasks; served += places) {
        for (unsigned i = 0; i < b->flow_count; i++) {
            while (b->flows[i].counts[LANE_NORMAL] < 20) {
                put(b, i, LANE_NORMAL, 0, cost(i));
            }
        }
        run(b, places);
    }
}

static uint64_t same_cost(unsigned flow) {
    (void)flow;
    return 100;
}

static uint64_t any_cost(unsigned flow) {
    return flow == 0 ? 4000 : 1 + draw(1500);
}

static void expect_shares(const struct bench *b, unsigned within_permille) {
    uint64_t weights = 0, cost = 0;
    for (unsigned i = 0; i < b->flow_count; i++) {
        weights += b->flows[i].weight;
        cost += b->cost[i];
    }
    for (unsigned i = 0; i < b->flow_count; i++) {
        int64_t share = (int64_t)(b->cost[i] * 10000 / cost), right = (int64_t)((uint64_t)b->flows[i].weight * 10000 / weights);
        int64_t off = share > right ? share - right : right - share;
        if (off * 1000 > right * within_permille) {
            fail_msg("flow %u has %lld of 10000, should have %lld", i, (long long)share, (long long)right);
        }
    }
}

/* Tenants with 30, 25 and 10 percent and endless tasks: each within 3% of its share over 1,000 tasks. */
static void tenants_get_their_shares_over_a_thousand_tasks(void **context) {
    (void)context;
    for (unsigned places = 1; places <= 7; places += 2) {
        struct bench b;
        bench_init(&b, (const char *const[]){"acme", "beta", "gamma"}, (const uint32_t[]){300, 250, 100}, 3);
        share_out(&b, 1000, places, same_cost);
        expect_shares(&b, 30);
        bench_free(&b);
    }
}

/* The same with tasks of all sizes, one tenant's huge: within 2% over 10,000 tasks, counted by cost. */
static void huge_and_tiny_tasks_get_their_share_by_cost(void **context) {
    (void)context;
    static const char *const names[] = {"huge", "a", "b", "c", "d"};
    for (unsigned places = 1; places <= 16; places *= 4) {
        struct bench b;
        bench_init(&b, names, (const uint32_t[]){100, 150, 50, 300, 200}, 5);
        share_out(&b, 10000, places, any_cost);
        expect_shares(&b, 20);
        bench_free(&b);
    }
}

/* However small a tenant's share, it is served within a bound that follows from the weights alone. */
static void no_tenant_waits_longer_than_the_computed_bound(void **context) {
    (void)context;
    enum { FLOWS = 6, COST_MAX = 2000 };
    static const char *const names[FLOWS] = {"a", "b", "c", "d", "e", "f"};
    static const uint32_t weights[FLOWS] = {5, 300, 200, 100, 250, 45};
    struct bench b;
    bench_init(&b, names, weights, FLOWS);
    uint64_t bound[FLOWS], waited[FLOWS] = {0}, worst = 0;
    for (unsigned i = 0; i < FLOWS; i++) {
        uint64_t rounds = (COST_MAX + weights[i] * LANES_QUANTUM - 1) / (weights[i] * LANES_QUANTUM) + 1;
        bound[i] = 0;
        for (unsigned k = 0; k < FLOWS; k++) {
            bound[i] += k == i ? 0 : rounds * weights[k] * LANES_QUANTUM + COST_MAX;
        }
    }
    for (unsigned step = 0; step < 20000; step++) {
        for (unsigned i = 0; i < FLOWS; i++) {
            while (b.flows[i].counts[LANE_NORMAL] < 3) {
                put(&b, i, LANE_NORMAL, 0, 1 + draw(COST_MAX));
            }
        }
        uint64_t before[FLOWS];
        memcpy(before, b.cost, sizeof before);
        run(&b, 1);
        uint64_t cost = b.cost[b.last_flow] - before[b.last_flow];
        for (unsigned i = 0; i < FLOWS; i++) {
            waited[i] = i == b.last_flow ? 0 : waited[i] + cost;
            worst = i == 0 && waited[i] > worst ? waited[i] : worst;
            if (waited[i] > bound[i]) {
                fail_msg("flow %u waited for %llu, bound %llu", i, (unsigned long long)waited[i], (unsigned long long)bound[i]);
            }
        }
    }
    assert_true(worst > 10000); /* the bound was tried */
    bench_free(&b);
}

/* One tenant's task that fits nowhere must not hold up the others, nor the tenant's other tasks. */
static void what_fits_goes_by_what_does_not(void **context) {
    (void)context;
    struct bench b;
    bench_init(&b, (const char *const[]){"a", "b"}, (const uint32_t[]){100, 100}, 2);
    b.cost_max = 500;
    put(&b, 0, LANE_NORMAL, 0, 1000);
    put(&b, 0, LANE_NORMAL, 0, 100);
    put(&b, 0, LANE_NORMAL, 1, 100); /* of another namespace */
    put(&b, 1, LANE_NORMAL, 0, 100);
    run(&b, 10);
    assert_int_equal(b.served[0], 2);
    assert_int_equal(b.served[1], 1);
    assert_int_equal(lanes_waiting(&b.lanes), 1);
    bench_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_are_served_strictly_in_order),
        cmocka_unit_test(tenants_get_their_shares_over_a_thousand_tasks),
        cmocka_unit_test(huge_and_tiny_tasks_get_their_share_by_cost),
        cmocka_unit_test(no_tenant_waits_longer_than_the_computed_bound),
        cmocka_unit_test(what_fits_goes_by_what_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
