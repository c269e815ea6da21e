#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "platform/bytes.h"

/* The scheduler of this program gets its memory from here: the n-th call fails. */
static unsigned long calls_left;

static bool refused(void) {
    return calls_left > 0 && --calls_left == 0;
}

static void *scarce_new(size_t count, size_t size) {
    return refused() ? NULL : mem_new(count, size);
}

static void *scarce_grow(void *p, size_t count, size_t size) {
    return refused() ? NULL : mem_grow(p, count, size);
}

#define mem_new scarce_new
#define mem_grow scarce_grow
/* clang-format off */
#include "agent/work/dag.c"
#include "agent/work/due.c"
#include "agent/work/placement.c"
#include "agent/work/quota.c"
#include "agent/work/scheduler.c"
#include "agent/work/submit.c"
#include "agent/work/workrow.c"
/* clang-format on */
#undef mem_new
#undef mem_grow

#include "agent/work/work.h"
#include "tests/unit/rows_on_disk.h"

#define STEPS 24u

/* What step n asks for: nodes, tenants, tasks with all that takes memory, runs of a schedule, ends. */
static enum entry_kind fill(unsigned n, struct builder *p) {
    struct task_order o = {.tenant = bytes_str(n % 2 == 0 ? "acme" : "default"),
                           .cpu_millicores = 100,
                           .memory_bytes = TASK_MEMORY_BYTES_MIN,
                           .missed_max = 1,
                           .affinity = bytes_str("n1")};
    char id[8], on[8];
    o.command.count = 1;
    o.command.at[0] = bytes_str("true");
    (void)snprintf(id, sizeof id, "t%u", n);
    (void)snprintf(on, sizeof on, "t%u", n + 1);
    o.id = bytes_str(id);
    if (n < 2) {
        struct node_facts facts = {.id = n + 1, .name = bytes_str(n == 0 ? "n1" : "n2"), .capacity = {8000, 1ull << 32}};
        payload_node(p, &facts);
        return ENTRY_NODE;
    }
    if (n < 4) {
        payload_quota_set(p, bytes_str("acme"), bytes_str(n == 2 ? "" : "staging"), (struct quota_share){200, 200});
        return ENTRY_QUOTA;
    }
    if (n == 6) {
        o.schedule = bytes_str("* * * * *");
        payload_task_submit(p, &o, 60000);
    } else if (n == 8) {
        int64_t runs[] = {60000, 120000, 180000};
        payload_task_fire(p, bytes_str("t6"), 60000, runs, 3, 240000);
    } else if (n == 20) {
        payload_task_cancel(p, bytes_str("t6"));
    } else if (n == 22) { /* the first of a chain: those that wait for it fail with it */
        payload_task_cancel(p, bytes_str("t21"));
    } else {
        if (n > 10 && n < 21 && n != 19) {
            o.depends_on.count = 1;
            o.depends_on.at[0] = bytes_str(on);
        }
        payload_task_submit(p, &o, -1);
    }
    return ENTRY_TASK;
}

/* A gateway that is short of memory for a moment must come to the same state as the others when it has some again. */
static void an_entry_that_met_no_memory_is_applied_again(void **context) {
    (void)context;
    struct gateway rich = gateway_new(1 << 20), poor = gateway_new(1 << 20);
    struct builder p;
    unsigned failures = 0;
    builder_init(&p, 1 << 16);
    for (unsigned i = 0; i < STEPS; i++) {
        struct outcome o[2];
        uint8_t before[DIGEST_BYTES], hash[2][DIGEST_BYTES];
        builder_reset(&p);
        enum entry_kind kind = fill(i, &p);
        struct entry e = {
            .index = i + 1, .kind = (uint16_t)kind, .schema = ENTRY_SCHEMA, .time_ms = 1000 + i, .payload = builder_blob(&p)};
        must(gateway_apply(&rich, &e, &o[0], NULL) == E_OK);
        assert_int_equal(o[0].err, E_OK);
        state_hash(poor.state, before);
        enum grey_error err = E_NO_MEMORY;
        for (unsigned long n = 1; err != E_OK; n++) {
            calls_left = n;
            err = gateway_apply(&poor, &e, &o[1], NULL);
            calls_left = 0;
            if (err != E_OK) {
                assert_int_equal(err, E_NO_MEMORY);
                state_hash(poor.state, hash[1]);
                assert_memory_equal(before, hash[1], DIGEST_BYTES);
                failures++;
            }
        }
        assert_int_equal(o[1].err, E_OK);
        state_hash(rich.state, hash[0]);
        state_hash(poor.state, hash[1]);
        assert_memory_equal(hash[0], hash[1], DIGEST_BYTES);
        blob_unref(e.payload);
    }
    assert_true(failures > 100);
    assert_int_equal(state_scheduler(poor.state)->live, state_scheduler(rich.state)->live);
    builder_free(&p);
    gateway_free(&rich);
    gateway_free(&poor);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_entry_that_met_no_memory_is_applied_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
