/* Requests of a real node, a site of one: what a leader decided is proposed in its own term only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"

#define PATIENCE_MS 60000u /* bounds a hang only */

struct rig {
    struct conn_context x;
    struct node *node;
    struct loop_timer late;
    bool leads;
};

struct told {
    struct rig *rig;
    bool called;
    enum grey_error err;
};

static void leading(void *context, bool leads, grey_epoch epoch) {
    struct rig *r = context;
    (void)epoch;
    r->leads = leads;
    loop_stop(r->x.loop);
}

static void failed(void *context, enum grey_error err, const char *detail) {
    (void)context;
    fail_msg("%s: %s", error_sentence(err), detail);
}

static void too_late(void *context) {
    (void)context;
    fail_msg("nothing came of it in time");
}

static void told(void *context, const struct node_answer *a) {
    struct told *t = context;
    t->called = true;
    t->err = a->err;
    loop_stop(t->rig->x.loop);
}

/* Lets the loop run until it has been answered. */
static enum grey_error decide(struct rig *r) {
    struct told t = {.rig = r};
    struct builder b;
    builder_init(&b, 4096);
    payload_kv(&b, false, bytes_str("key"), KV_ALWAYS, 0, bytes_of(NULL, 0), bytes_str("value"));
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    requests_decide(r->node, ENTRY_KV, payload, true, told, &t);
    blob_unref(payload);
    while (!t.called) {
        loop_run(r->x.loop);
    }
    return t.err;
}

/* If what a leader decided were proposed under a later one, a result would be settled, or a member forgotten, by what was known before. */
static void a_decision_counts_in_its_own_term_only(void **state) {
    (void)state;
    static const struct node_events events = {.leading = leading, .failed = failed};
    struct rig r = {0};
    struct fault f = {0};
    char dir[] = "/tmp/grey-requests-XXXXXX", log_dir[64], command[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(log_dir, sizeof log_dir, "%s/log", dir);
    log_configure(LOG_ERROR, LOG_PRETTY);
    r.x.loop = loop_new(&f);
    assert_non_null(r.x.loop);
    r.late = (struct loop_timer){.fire = too_late};
    loop_timer_after(r.x.loop, &r.late, PATIENCE_MS);
    struct node_options o = {.node = "1",
                             .site = "s",
                             .data_dir = dir,
                             .wal_dir = log_dir,
                             .http_address = "127.0.0.1:1",
                             .seeds = "",
                             .bootstrap = true,
                             .heartbeat_ms = 150,
                             .election_timeout_ms_min = 300,
                             .election_timeout_ms_max = 500,
                             .snapshot_threshold_entries = 10000,
                             .snapshot_interval_s = 3600,
                             .snapshots_kept = 3,
                             .seal_interval_ms = 1000,
                             .request_timeout_ms = PATIENCE_MS,
                             .queue = {.bytes_max = 1u << 30}};
    r.node = node_new(&r.x, &o, &events, &r, &f);
    assert_non_null(r.node);
    while (!r.leads) {
        loop_run(r.x.loop);
    }
    assert_int_equal(decide(&r), E_OK);
    raft_term now = r.node->leading_term;
    raft_index applied = state_applied(r.node->state);
    r.node->leading_term = now + 1; /* as if this had been decided in another term than the one that it comes to */
    assert_int_equal(decide(&r), E_NOT_LEADER);
    r.node->leading_term = now;
    assert_int_equal(decide(&r), E_OK);
    assert_true(state_applied(r.node->state) > applied);
    loop_timer_cancel(r.x.loop, &r.late);
    node_free(r.node);
    loop_free(r.x.loop);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decision_counts_in_its_own_term_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
