#include <endian.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/work_rig.h"

static uint64_t seed;

/* One draw in each full expression: in which order arguments and initializers are evaluated is the compiler's choice, on ARM another, and the
 * histories must be the same everywhere (tests/cross/same.sh). */
static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

/* --- One random entry ------------------------------------------------------------------------------------------------------------------------- */

static const char *const tenants[] = {"default", "acme", "beta"};

static enum entry_kind draw_submit(struct builder *out) {
    char id[8], on[3][8];
    const char *tenant = tenants[draw(3)];
    struct task_order o = rig_order("", tenant, (enum task_lane)draw(LANE_COUNT));
    (void)snprintf(id, sizeof id, "t%u", (unsigned)draw(120));
    o.id = bytes_str(id);
    o.name_space = draw(3) == 0 ? bytes_str("staging") : bytes_of(NULL, 0);
    o.cpu_millicores = (uint32_t)(draw(8) == 0 ? 4000 + draw(3000) : 1 + draw(1500));
    o.memory_bytes = MIB * (1 + draw(700));
    o.timeout_s = (uint32_t)draw(20);
    o.restart = draw(6) == 0 ? RESTART_ALWAYS : (enum task_restart)draw(2);
    o.max_retries = (uint32_t)draw(3);
    if (draw(4) == 0) {
        o.delivery = DELIVERY_AT_MOST_ONCE;
        o.restart = RESTART_NEVER;
        o.max_retries = 0;
    }
    for (uint64_t i = draw(8) < 3 ? draw(4) : 0; i > 0; i--) {
        (void)snprintf(on[i - 1], sizeof on[0], "t%u", (unsigned)draw(120));
        bool twice = false;
        for (uint32_t k = 0; k < o.depends_on.count; k++) {
            twice = twice || bytes_equal_str(o.depends_on.at[k], on[i - 1]);
        }
        if (!twice) {
            o.depends_on.at[o.depends_on.count++] = bytes_str(on[i - 1]);
        }
    }
    if (draw(6) == 0) {
        o.selectors.count = 1;
        o.selectors.at[0] = bytes_str("disk=large");
    }
    if (draw(4) == 0) {
        o.affinity = bytes_str(draw(2) == 0 ? "n1" : "n3");
    }
    bool is_schedule = o.depends_on.count == 0 && o.restart != RESTART_ALWAYS && draw(12) == 0;
    o.schedule = is_schedule ? bytes_str("* * * * *") : bytes_of(NULL, 0);
    if (!is_schedule && o.restart != RESTART_ALWAYS && o.selectors.count == 0 && o.affinity.size == 0 && draw(3) == 0) {
        o.offload = o.delivery == DELIVERY_AT_MOST_ONCE ? OFFLOAD_WAIT : (enum task_offload)draw(OFFLOAD_COUNT);
        o.offload_patience_s = o.offload == OFFLOAD_LOCAL ? (uint32_t)draw(100) : 0;
    } else if (is_schedule && draw(2) == 0) {
        o.zone = bytes_str("Europe/Berlin");
        o.zone_rule = bytes_str("CET-1CEST,M3.5.0,M10.5.0/3");
    }
    payload_task_submit(out, &o, is_schedule ? START_MS : -1);
    return ENTRY_TASK;
}

static void draw_node(struct builder *out) {
    static const char *const names[] = {"n1", "n2", "n3", "n4"};
    unsigned n = (unsigned)draw(16) % 4;
    uint64_t cpus = 4 + draw(6);
    struct node_facts facts = rig_node_facts(100 - n, names[n], cpus, 2 + draw(4));
    facts.condition = draw(5) == 0 ? (enum node_condition)draw(NODE_CONDITION_COUNT) : NODE_READY;
    facts.gone = draw(12) == 0;
    facts.measured_cpu_permille = (uint32_t)draw(draw(4) == 0 ? 1500 : 500);
    facts.measured_memory_permille = (uint32_t)draw(draw(4) == 0 ? 1300 : 500);
    facts.labels.count = 1;
    facts.labels.at[0] = bytes_str(draw(2) == 0 ? "disk=large" : "disk=small");
    payload_node(out, &facts);
}

/* What a node says of a task it holds, mostly with the right token. */
static void draw_report(struct scheduler *s, struct builder *out) {
    const struct task *found = NULL;
    for (uint32_t i = 0; i < s->placement.count; i++) {
        for (const struct task *t = s->placement.nodes[i]->tasks; t != NULL; t = t->next_on_node) {
            found = found == NULL || draw(4) == 0 ? t : found;
        }
    }
    if (found == NULL) {
        payload_task_report(out, bytes_str("t1"), draw(50), REPORT_RUNNING, REASON_NONE, 0, bytes_of(NULL, 0));
        return;
    }
    enum task_report what = found->stop != REASON_NONE && draw(2) == 0 ? REPORT_STOPPED : (enum task_report)draw(REPORT_COUNT);
    uint64_t token = found->token - (draw(10) == 0);
    int32_t status = (int32_t)draw(9) - 4;
    payload_task_report(out, bytes_str(found->vertex->id), token, what, what == REPORT_FAILED ? REASON_SIGNAL : REASON_NONE, status,
                        what != REPORT_RUNNING && draw(2) == 0 ? bytes_str("a proof") : bytes_of(NULL, 0));
}

/* What the core says of a task it has, mostly with the right token. */
static void draw_return(struct scheduler *s, struct builder *out) {
    static const uint8_t hash[DIGEST_BYTES] = {1};
    const struct task *found = NULL;
    for (const struct task *t = scheduler_next(s, NULL); t != NULL; t = scheduler_next(s, t)) {
        found = scheduler_is_away(t) && (found == NULL || draw(3) == 0) ? t : found;
    }
    struct work_return w = {.id = bytes_str(found == NULL ? "t1" : found->vertex->id),
                            .token = found == NULL ? 1 : found->token - (draw(8) == 0),
                            .report = (enum task_report)draw(REPORT_COUNT),
                            .exit_status = (int32_t)draw(3)};
    if (w.report == REPORT_COMPLETED || w.report == REPORT_FAILED) {
        w.output_hash = bytes_of(hash, sizeof hash);
        w.output_bytes = 7;
        w.output = bytes_str("written");
    }
    payload_task_return(out, &w);
}

static enum entry_kind draw_entry(struct scheduler *s, struct builder *out, int64_t *now_ms) {
    char id[16];
    uint64_t what = draw(100);
    *now_ms += (int64_t)draw(draw(10) == 0 ? 20000 : 400);
    if (what < 40) {
        draw_report(s, out);
    } else if (what < 45) {
        draw_return(s, out);
    } else if (what < 75) {
        return draw_submit(out);
    } else if (what < 80) {
        (void)snprintf(id, sizeof id, "t%u", (unsigned)draw(120));
        payload_task_cancel(out, bytes_str(id));
    } else if (what < 85) {
        const struct task *t = scheduler_next(s, NULL);
        while (t != NULL && !(t->is_schedule && t->state == TASK_PENDING)) {
            t = scheduler_next(s, t);
        }
        int64_t runs[3] = {*now_ms, *now_ms + 60000, *now_ms + 120000};
        (void)snprintf(id, sizeof id, "%s", t == NULL ? "t0" : t->vertex->id);
        payload_task_fire(out, bytes_str(id), t == NULL ? 0 : t->firing_ms, runs, (size_t)draw(4), *now_ms + 60000);
    } else if (what < 90) {
        payload_task_epoch(out);
    } else if (what < 96) {
        draw_node(out);
        return ENTRY_NODE;
    } else if (what < 98) {
        const char *tenant = tenants[1 + draw(2)];
        if (draw(3) == 0) {
            uint32_t parts[6]; /* one by one: in which order one expression draws, the compiler chooses */
            for (int i = 0; i < 6; i++) {
                parts[i] = (uint32_t)draw(i == 4 ? 1001 : i == 5 ? 900 : 600);
            }
            struct quotatree_share shares[] = {
                {bytes_str(tenants[1]), bytes_of(NULL, 0), {parts[0], parts[1]}},
                {bytes_str(tenants[2]), bytes_of(NULL, 0), {parts[2], parts[3]}},
                {bytes_str(tenant), bytes_str("staging"), {parts[4], parts[5]}},
            };
            payload_quota_tree(out, shares, 1 + (uint32_t)draw(3));
        } else if (draw(4) == 0) {
            payload_quota_remove(out, bytes_str(tenant), bytes_str(draw(2) == 0 ? "staging" : ""));
        } else {
            const char *space = draw(2) == 0 ? "staging" : "";
            uint32_t cpu = (uint32_t)draw(700), memory = (uint32_t)draw(700);
            payload_quota_set(out, bytes_str(tenant), bytes_str(space), (struct quota_share){cpu, memory});
        }
        return ENTRY_QUOTA;
    } else if (what == 98) {
        struct capacity_limits l = {.queue_max = (uint32_t)draw(30)};
        l.concurrent_max = 1 + (uint32_t)draw(40);
        l.burst_ms = draw(90000);
        bool with_proof = draw(2) == 1;
        l.proof_s = with_proof ? (uint32_t)draw(500) : 0;
        l.overcommit = draw(8) == 0;
        l.offloads = draw(2) == 0;
        payload_quota_limits(out, &l);
        return ENTRY_QUOTA;
    } else {
        *now_ms += (int64_t)draw(1000000) - 500000;
        payload_clock(out, *now_ms);
        return ENTRY_CLOCK;
    }
    return ENTRY_TASK;
}

/* --- Laws -------------------------------------------------------------------------------------------------------------------------------------- */

static struct quota_amount twice(struct quota_amount a) {
    return (struct quota_amount){2 * a.cpu_millicores, 2 * a.memory_bytes};
}

/* What must be true of every state: nothing is in two places, sums are sums, nobody holds more than there is. */
static void check_laws(const struct scheduler *s, uint64_t tokens_before) {
    uint32_t held = 0, waiting = 0, live = 0, away = 0;
    for (uint32_t i = 0; i < s->placement.count; i++) {
        const struct placement_node *n = s->placement.nodes[i];
        struct quota_amount sum = {0, 0};
        uint32_t count = 0;
        uint64_t token = UINT64_MAX;
        for (const struct task *t = n->tasks; t != NULL; t = t->next_on_node) {
            assert_ptr_equal(t->node, n);
            assert_true(t->token < token); /* each token once, newest first */
            token = t->token;
            sum = quota_sum(sum, scheduler_need(t));
            count++;
        }
        assert_true(sum.cpu_millicores == n->held.cpu_millicores && sum.memory_bytes == n->held.memory_bytes);
        assert_int_equal(count, n->task_count);
        held += count;
        assert_true(n->condition != NODE_LOST || count == 0);
    }
    assert_int_equal(held, s->held_count);
    for (const struct task *t = scheduler_next(s, NULL); t != NULL; t = scheduler_next(s, t)) {
        enum task_state state = (enum task_state)t->state;
        assert_true((state == TASK_QUEUED) == (t->item.queue != NULL));
        assert_true((state != TASK_ASSIGNED && state != TASK_RUNNING && state != TASK_PREEMPTED) || t->node != NULL ||
                    (scheduler_is_away(t) && t->may_leave && t->reason == REASON_OFFLOADED));
        assert_true(t->stop != REASON_PREEMPTED || t->lane == LANE_PREEMPT);
        assert_true(t->node == NULL || !task_ended(state) || state == TASK_CANCELLED);
        assert_true(t->vertex->unmet == 0 || state == TASK_PENDING);
        assert_true(t->stop == REASON_NONE || t->node != NULL);
        assert_true(t->kept == NULL || state == TASK_QUEUED);
        waiting += state == TASK_QUEUED;
        live += !task_ended(state);
        away += scheduler_is_away(t);
        if (t->token > tokens_before &&
            t->node != NULL) { /* placed by this very step: it fits its node, its tenant and its namespace */
            struct quota_amount limit = quota_limit(&s->quota, t->tenant);
            assert_int_equal(t->node->condition, NODE_READY);
            assert_true(quota_within(t->node->held, placement_usable(t->node)));
            assert_true(s->held_count <= s->saved.concurrent_max || t->taken_from != 0);
            if (t->taken_from != 0) {
                continue; /* it moved: its tenant holds no more than before, which may be too much since its share was cut */
            }
            assert_true(quota_within(t->tenant->used, twice(limit)));
            assert_true(t->tenant->burst_left_ms > 0 || quota_within(t->tenant->used, limit));
            assert_true(task_space(t) == &t->tenant->namespaces[0] ||
                        quota_within(task_space(t)->used, quota_namespace_limit(&s->quota, t->tenant, task_space(t))));
        }
    }
    assert_int_equal(waiting, lanes_waiting(&s->lanes));
    assert_int_equal(live, s->live);
    assert_int_equal(away, s->away);
}

/* Tickets of the tasks that are being stopped. */
struct stops {
    uint64_t tickets[256];
    unsigned count;
};

static void note_stops(const struct scheduler *s, struct stops *out) {
    out->count = 0;
    for (const struct task *t = scheduler_next(s, NULL); t != NULL; t = scheduler_next(s, t)) {
        if (t->stop != REASON_NONE) {
            assert_true(out->count < sizeof out->tickets / sizeof out->tickets[0]);
            out->tickets[out->count++] = t->item.ticket;
        }
    }
}

static bool was_stopped(const struct stops *before, const struct task *t) {
    for (unsigned i = 0; i < before->count; i++) {
        if (before->tickets[i] == t->item.ticket) {
            return true;
        }
    }
    return false;
}

/* In an emergency no task is stopped while one of a lower lane, or a newer one of its own, could have been stopped at its node. */
static void check_stops(const struct scheduler *s, const struct stops *before, uint64_t tokens_before) {
    for (const struct task *t = scheduler_next(s, NULL); t != NULL; t = scheduler_next(s, t)) {
        if (t->stop != REASON_EMERGENCY || was_stopped(before, t)) {
            continue;
        }
        for (const struct task *u = t->node->tasks; u != NULL; u = u->next_on_node) {
            bool lower = u->lane > t->lane || (u->lane == t->lane && u->token > t->token);
            assert_false(lower && scheduler_may_stop(u, LANE_HIGH) && u->token <= tokens_before);
        }
    }
}

static void expect_equal_dumps(struct gateway *a, struct gateway *b) {
    struct builder x, y;
    builder_init(&x, SIZE_MAX / 8);
    builder_init(&y, SIZE_MAX / 8);
    gateway_dump(a, &x);
    gateway_dump(b, &y);
    assert_true(bytes_equal(builder_bytes(&x), builder_bytes(&y)));
    builder_free(&x);
    builder_free(&y);
}

/* If a gateway that was started again decided otherwise than one that was not, they would run the same task in two places.  So: two
 * instances, one of which is made anew from its rows again and again, give the same answers and the same state after each of 50,000
 * random entries; and the laws hold in each. */
static void a_restart_changes_no_decision(void **context) {
    (void)context;
    uint64_t hashes = 0; /* of all rounds: tests/cross/same.sh compares them */
    unsigned placed = 0, refused = 0, stopped = 0, stolen = 0, emergencies = 0, away = 0;
    for (uint64_t round = 1; round <= 200; round++) {
        seed = round * 0x9e3779b97f4a7c15u;
        struct gateway a = gateway_new(1 << 20), b = gateway_new(1 << 20);
        struct builder p[2], answer[2];
        int64_t now_ms = START_MS;
        for (int i = 0; i < 2; i++) {
            builder_init(&p[i], LIMIT_PAYLOAD_BYTES);
            builder_init(&answer[i], 1024);
        }
        for (unsigned step = 0; step < 250; step++) {
            uint64_t tokens = state_scheduler(a.state)->saved.tokens;
            struct stops stops;
            note_stops(state_scheduler(a.state), &stops);
            enum entry_kind kind = step < 3 ? ENTRY_NODE : draw_entry(state_scheduler(a.state), &p[0], &now_ms);
            if (step < 3) {
                draw_node(&p[0]);
            }
            builder_add(&p[1], builder_bytes(&p[0]));
            struct outcome o[2];
            for (int i = 0; i < 2; i++) {
                builder_reset(&answer[i]);
                (void)gateway_entry(i == 0 ? &a : &b, kind, now_ms, &p[i], &o[i], &answer[i]);
            }
            assert_int_equal(o[0].err, o[1].err);
            assert_true(o[0].err != E_BAD_MESSAGE);
            assert_string_equal(o[0].detail, o[1].detail);
            assert_true(bytes_equal(builder_bytes(&answer[0]), builder_bytes(&answer[1])));
            uint8_t hash[2][DIGEST_BYTES];
            state_hash(a.state, hash[0]);
            state_hash(b.state, hash[1]);
            if (memcmp(hash[0], hash[1], DIGEST_BYTES) != 0) {
                fail_msg("round %" PRIu64 ", step %u, kind %u", round, step, kind);
            }
            const struct scheduler *s = state_scheduler(a.state);
            assert_int_equal(dispatch_due_ms(state_scheduler(a.state)), dispatch_due_ms(state_scheduler(b.state)));
            check_laws(s, o[0].err == E_OK ? tokens : UINT64_MAX);
            check_stops(s, &stops, tokens);
            away += s->away;
            refused += o[0].err != E_OK;
            placed += (unsigned)(s->saved.tokens - tokens);
            for (const struct task *t = scheduler_next(s, NULL); t != NULL; t = scheduler_next(s, t)) {
                stopped += t->stop != REASON_NONE;
                emergencies += t->stop == REASON_EMERGENCY;
                stolen += t->taken_from != 0;
            }
            if (draw(4) == 0) {
                gateway_flush(&b);
                gateway_stop(&b);
                gateway_start(&b);
            }
        }
        expect_equal_dumps(&a, &b);
        for (int i = 0; i < 2; i++) {
            builder_free(&p[i]);
            builder_free(&answer[i]);
        }
        uint8_t hash[DIGEST_BYTES];
        uint64_t head;
        state_hash(a.state, hash);
        memcpy(&head, hash, sizeof head);
        hashes = (hashes << 1 | hashes >> 63) ^ be64toh(head);
        gateway_free(&a);
        gateway_free(&b);
    }
    print_message("state hash %016" PRIx64 "\n", hashes);
    assert_true(placed > 5000 && refused > 2500 && stopped > 2500 && stolen > 50 && emergencies > 100 &&
                away > 2500); /* the rounds are not empty */
}

static unsigned proofs(struct rig *r) {
    struct bytes from = bytes_of(NULL, 0), key, value;
    raft_index ref;
    uint8_t after[9] = {0};
    unsigned count = 0;
    struct work_proof p;
    for (; table_next(r->g.rows, TABLE_PROOF, from, &key, &value, &ref); count++) {
        assert_true(work_proof_row(key, value, &p) && p.index == ref && bytes_equal_str(p.task, "t"));
        memcpy(after, key.data, key.size);
        from = bytes_of(after, sizeof after);
    }
    return count;
}

/* A proof that left too early could not be shown to anybody; one that stayed would fill the log for ever. */
static void proofs_stay_as_long_as_they_should(void **context) {
    (void)context;
    struct rig *r = rig_new();
    struct node_facts facts = rig_node_facts(1, "n1", 8, 8);
    assert_int_equal(rig_node(r, &facts), E_OK);
    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct task_order o = rig_order("t", "default", LANE_NORMAL);
        o.restart = RESTART_ALWAYS;
        assert_int_equal(rig_submit(r, &o), E_OK);
        for (unsigned i = 0; i < 3; i++) { /* three runs, a minute after each other */
            rig_pass(r, 60000);
            const struct task *t = rig_task(r, "t");
            assert_true((t->assigned_index > 0) == (keeps > 0) || t->state != TASK_ASSIGNED);
            payload_task_report(&r->payload, bytes_str("t"), t->token, REPORT_COMPLETED, REASON_NONE, 0, bytes_str("a proof"));
            assert_int_equal(rig_entry(r, ENTRY_TASK), E_OK);
        }
        assert_int_equal(proofs(r), 3 * keeps); /* without a time to keep them, none is kept */
        payload_quota_limits(&r->payload, &(struct capacity_limits){.queue_max = 1000, .concurrent_max = 1000, .proof_s = 180});
        assert_int_equal(rig_entry(r, ENTRY_QUOTA), E_OK);
    }
    rig_restart(r);
    assert_int_equal(proofs(r), 3);
    rig_pass(r, 60000); /* the first is three minutes old */
    assert_int_equal(proofs(r), 3);
    rig_pass(r, 1);
    assert_int_equal(proofs(r), 2);
    rig_restart(r);
    rig_pass(r, 3600000);
    assert_int_equal(proofs(r), 0);
    rig_free(r);
}

/* Bytes from a faulty leader must be refused alike by all, without harm. */
static void malformed_payloads_are_refused(void **context) {
    (void)context;
    struct rig *r = rig_new();
    seed = 7;
    unsigned refused = 0;
    for (unsigned i = 0; i < 3000; i++) {
        int64_t now_ms = r->now_ms;
        enum entry_kind kind = draw_entry(rig_scheduler(r), &r->payload, &now_ms);
        if (kind == ENTRY_CLOCK) {
            builder_reset(&r->payload);
            continue;
        }
        if (r->payload.size > 1 && draw(2) == 0) {
            r->payload.size -= 1 + (size_t)draw(r->payload.size - 1);
        } else if (r->payload.size > 0) {
            size_t at = (size_t)draw(r->payload.size);
            r->payload.data[at] ^= (uint8_t)(1u << draw(8));
        }
        refused += rig_entry(r, kind) != E_OK;
        check_laws(rig_scheduler(r), UINT64_MAX);
    }
    assert_true(refused > 1500);
    rig_free(r);
}

/* A damaged row must stop the node, not give it a state of its own. */
static void damaged_rows_are_found(void **context) {
    (void)context;
    unsigned found = 0;
    seed = 99;
    for (unsigned round = 0; round < 60; round++) {
        struct rig *r = rig_new();
        struct node_facts facts = rig_node_facts(1, "n1", 8, 8);
        assert_int_equal(rig_node(r, &facts), E_OK);
        assert_int_equal(rig_tenant(r, "acme", "", 100, 100), E_OK);
        assert_int_equal(rig_simple(r, "t", LANE_NORMAL), E_OK);
        gateway_flush(&r->g);
        static const enum table_id ids[] = {TABLE_TASK, TABLE_TENANT, TABLE_NODE};
        struct bytes key, value;
        raft_index ref;
        enum table_id id = ids[round % 3];
        assert_true(table_next(r->g.rows, id, bytes_of(NULL, 0), &key, &value, &ref));
        uint8_t k[64], v[1024];
        size_t size = (size_t)draw(value.size);
        memcpy(k, key.data, key.size);
        memcpy(v, value.data, value.size);
        struct table *rows = r->g.rows;
        assert_int_equal(table_put(rows, id, bytes_of(k, key.size), bytes_of(v, size), ref), E_OK); /* cut short */
        struct fault f = {0};
        struct state *s = state_new(rows, &f);
        found += s == NULL && f.code == E_CORRUPT;
        state_free(s);
        rig_free(r);
    }
    assert_int_equal(found, 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restart_changes_no_decision),
        cmocka_unit_test(malformed_payloads_are_refused),
        cmocka_unit_test(damaged_rows_are_found),
        cmocka_unit_test(proofs_stay_as_long_as_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
