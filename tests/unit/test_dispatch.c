#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/work_rig.h"

static struct rig *site_of(unsigned nodes, uint64_t cores) {
    static const char *const names[] = {"n1", "n2", "n3"};
    struct rig *r = rig_new();
    for (unsigned i = 0; i < nodes; i++) {
        struct node_facts facts = rig_node_facts(10 + i, names[i], cores, 100);
        assert_int_equal(rig_node(r, &facts), E_OK);
    }
    return r;
}

/* One place, all lanes waiting: the order of completion must be 0, 1, 2, 3, 4. */
static void lanes_end_in_their_order_on_one_slot(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10); /* 9 cores for tasks */
    char done[16] = "";
    struct task_order o = rig_order("holder", "default", LANE_CRITICAL);
    o.cpu_millicores = 9000;
    assert_int_equal(rig_submit(r, &o), E_OK);
    for (unsigned lane = LANE_COUNT; lane-- > 0;) {
        char id[4] = {(char)('0' + lane), 0};
        o.id = bytes_str(id);
        o.lane = (enum task_lane)lane;
        assert_int_equal(rig_submit(r, &o), E_OK);
        assert_int_equal(rig_state(r, id), TASK_QUEUED);
    }
    assert_int_equal(rig_report(r, "holder", REPORT_COMPLETED), E_OK);
    for (unsigned n = 0; n < LANE_COUNT; n++) {
        for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
            char id[4] = {(char)('0' + lane), 0};
            if (rig_state(r, id) == TASK_ASSIGNED) {
                (void)strcat(done, id);
                assert_int_equal(rig_report(r, id, REPORT_RUNNING), E_OK);
                assert_int_equal(rig_report(r, id, REPORT_COMPLETED), E_OK);
                break;
            }
        }
    }
    assert_string_equal(done, "01234");
    rig_free(r);
}

/* An urgent task on a full node must not wait for work that was declared stoppable. */
static void lane_4_gives_way_and_is_queued_again(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    struct task_order o = rig_order("batch", "default", LANE_PREEMPT);
    o.cpu_millicores = 8000;
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_report(r, "batch", REPORT_RUNNING), E_OK);
    o = rig_order("urgent", "default", LANE_HIGH);
    o.cpu_millicores = 4000;
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_state(r, "batch"), TASK_PREEMPTED);
    assert_int_equal(rig_task(r, "batch")->stop, REASON_PREEMPTED);
    assert_int_equal(rig_state(r, "urgent"), TASK_QUEUED); /* until the node says that it stopped */
    assert_int_equal(rig_simple(r, "thief", LANE_NORMAL), E_OK);
    assert_int_equal(rig_state(r, "thief"), TASK_ASSIGNED); /* the ninth core is nobody's yet */
    assert_int_equal(rig_report(r, "batch", REPORT_STOPPED), E_OK);
    assert_int_equal(rig_state(r, "urgent"), TASK_ASSIGNED);
    assert_int_equal(rig_state(r, "batch"), TASK_QUEUED);
    assert_int_equal(rig_task(r, "batch")->preemptions, 1);
    assert_int_equal(rig_task(r, "batch")->reason, REASON_PREEMPTED);
    uint64_t token = rig_task(r, "batch")->token;
    assert_int_equal(rig_report(r, "urgent", REPORT_COMPLETED), E_OK);
    assert_int_equal(rig_report(r, "thief", REPORT_COMPLETED), E_OK);
    assert_int_equal(rig_state(r, "batch"), TASK_ASSIGNED);
    assert_true(rig_task(r, "batch")->token > token);
    assert_int_equal(rig_report_token(r, "batch", token, REPORT_COMPLETED, REASON_NONE), E_CONDITION); /* of the run before */
    rig_free(r);
}

/* At 69% nothing waits, at 80% a second, and above 90% everything but the critical. */
static void zones_delay_hold_and_refuse(void **context) {
    (void)context;
    struct rig *r = site_of(1, 1000); /* 900 cores for tasks */
    struct task_order o = rig_order("base", "default", LANE_NORMAL);
    o.cpu_millicores = 621000; /* 69% */
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_simple(r, "green", LANE_NORMAL), E_OK);
    assert_int_equal(rig_state(r, "green"), TASK_ASSIGNED);
    o.id = bytes_str("to-80");
    o.cpu_millicores = 98000; /* with the others 720 of 900 */
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_state(r, "to-80"), TASK_ASSIGNED);
    assert_int_equal(dispatch_usage(rig_scheduler(r), LANE_NORMAL), 800);
    assert_int_equal(rig_simple(r, "yellow", LANE_NORMAL), E_OK);
    assert_int_equal(rig_state(r, "yellow"), TASK_QUEUED);
    assert_int_equal(dispatch_due_ms(rig_scheduler(r)), r->now_ms + 1000);
    rig_pass(r, 900);
    assert_int_equal(rig_state(r, "yellow"), TASK_QUEUED);
    rig_pass(r, 100);
    assert_int_equal(rig_state(r, "yellow"), TASK_ASSIGNED);
    o.id = bytes_str("red");
    o.lane = LANE_CRITICAL; /* no delay for these */
    o.cpu_millicores = 90000;
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_state(r, "red"), TASK_ASSIGNED);
    assert_int_equal(quota_zone(dispatch_usage(rig_scheduler(r), LANE_NORMAL)), ZONE_RED);
    for (unsigned i = 0; i < 1000; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "wait%u", i);
        assert_int_equal(rig_simple(r, id, LANE_NORMAL), E_OK); /* the thousandth is still taken */
    }
    rig_pass(r, 10000);
    assert_int_equal(lanes_waiting(&rig_scheduler(r)->lanes), 1000);
    assert_int_equal(rig_simple(r, "wait1000", LANE_NORMAL), E_THROTTLED);
    assert_null(rig_task(r, "wait1000"));
    assert_int_equal(rig_simple(r, "wait7", LANE_NORMAL), E_OK); /* a repeat is known as one */
    assert_int_equal(rig_cancel(r, "wait7"), E_OK);
    assert_int_equal(rig_simple(r, "wait1000", LANE_NORMAL), E_OK);
    rig_free(r);
}

/* A site whose tasks take more than they asked for must shed the least important, and say why. */
static void an_emergency_stops_the_lowest_lane_first(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    assert_int_equal(rig_simple(r, "low", LANE_LOW), E_OK);
    assert_int_equal(rig_simple(r, "preempt", LANE_PREEMPT), E_OK);
    assert_int_equal(rig_simple(r, "critical", LANE_CRITICAL), E_OK);
    assert_int_equal(rig_simple(r, "high", LANE_HIGH), E_OK);
    struct node_facts facts = rig_node_facts(10, "n1", 10, 100);
    facts.measured_cpu_permille = 1000; /* 100% is not above 100% */
    assert_int_equal(rig_node(r, &facts), E_OK);
    assert_int_equal(rig_state(r, "preempt"), TASK_ASSIGNED);
    facts.measured_cpu_permille = 1050;
    assert_int_equal(rig_node(r, &facts), E_OK);
    assert_int_equal(rig_state(r, "preempt"), TASK_PREEMPTED);
    assert_int_equal(rig_task(r, "preempt")->reason, REASON_EMERGENCY);
    assert_int_equal(rig_state(r, "low"), TASK_ASSIGNED);
    facts.measured_cpu_permille = 1300; /* 112 of it goes with the one that stops: two more have to */
    assert_int_equal(rig_node(r, &facts), E_OK);
    assert_int_equal(rig_state(r, "low"), TASK_PREEMPTED);
    assert_int_equal(rig_state(r, "high"), TASK_PREEMPTED);
    assert_int_equal(rig_state(r, "critical"), TASK_ASSIGNED);
    assert_int_equal(rig_report(r, "low", REPORT_STOPPED), E_OK);
    assert_int_equal(rig_state(r, "low"), TASK_QUEUED); /* not at once again */
    static const char *const stopped[] = {"preempt", "low", "high"};
    assert_int_equal(rig_scheduler(r)->alarm_count, 3); /* told of by whoever leads, each once */
    for (unsigned i = 0; i < 3; i++) {
        const struct scheduler_alarm *a = &rig_scheduler(r)->alarms[i];
        assert_string_equal(a->task.text, stopped[i]);
        assert_string_equal(a->node.text, "n1");
        assert_int_equal(a->token, rig_task(r, stopped[i])->token);
        assert_int_equal(a->cpu_permille, i == 0 ? 1050 : 1300);
    }
    rig_free(r);
}

/* Else a gateway that cannot keep up would keep all it has while others are idle, or would lose all of it at once. */
static void a_hot_spot_gives_away_one_task_at_a_time(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    assert_int_equal(rig_simple(r, "first", LANE_NORMAL), E_OK);
    assert_int_equal(rig_simple(r, "second", LANE_NORMAL), E_OK);
    assert_int_equal(rig_simple(r, "critical", LANE_CRITICAL), E_OK);
    struct node_facts hot = rig_node_facts(10, "n1", 10, 100), other = rig_node_facts(11, "n2", 10, 100);
    hot.condition = NODE_HOT;
    assert_int_equal(rig_node(r, &hot), E_OK); /* nobody else has room */
    assert_int_equal(rig_state(r, "second"), TASK_ASSIGNED);
    assert_int_equal(rig_node(r, &other), E_OK);
    assert_int_equal(rig_node(r, &hot), E_OK);
    assert_int_equal(rig_state(r, "second"), TASK_PREEMPTED);
    assert_int_equal(rig_task(r, "second")->reason, REASON_HOT);
    assert_int_equal(rig_node(r, &hot), E_OK); /* that one has not left yet */
    assert_int_equal(rig_state(r, "first"), TASK_ASSIGNED);
    assert_int_equal(rig_report(r, "second", REPORT_STOPPED), E_OK);
    assert_string_equal(rig_place(r, "second"), "n2");
    assert_int_equal(rig_node(r, &hot), E_OK);
    assert_int_equal(rig_report(r, "first", REPORT_STOPPED), E_OK);
    assert_string_equal(rig_place(r, "first"), "n2");
    assert_int_equal(rig_node(r, &hot), E_OK);
    assert_int_equal(rig_state(r, "critical"), TASK_ASSIGNED);
    rig_free(r);
}

static void submit_for(struct rig *r, const char *tenant, unsigned *number) {
    char id[16];
    (void)snprintf(id, sizeof id, "t%u", (*number)++);
    struct task_order o = rig_order(id, tenant, LANE_NORMAL);
    assert_int_equal(rig_submit(r, &o), E_OK);
}

/* Tenants with 30, 25 and 10 percent of the site and endless tasks: the places that they get over 1,000 tasks are as their shares. */
static void tenants_get_places_by_their_shares(void **context) {
    (void)context;
    static const char *const names[] = {"acme", "beta", "gamma"};
    static const uint32_t shares[] = {300, 250, 100};
    static const char *const nodes[] = {"n1", "n2", "n3"};
    struct rig *r = rig_new();
    unsigned number = 0, given[3] = {0}, total = 0;
    payload_quota_limits(&r->payload, &(struct capacity_limits){.queue_max = 1000, .concurrent_max = 1000}); /* no bursts */
    assert_int_equal(rig_entry(r, ENTRY_QUOTA), E_OK);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(rig_tenant(r, names[i], "", shares[i], shares[i]), E_OK);
        for (unsigned k = 0; k < 60; k++) {
            submit_for(r, names[i], &number);
        }
    }
    for (unsigned i = 0; i < 3; i++) { /* all wait when the nodes come; 120 cores: 36, 30 and 12 of them */
        struct node_facts facts = rig_node_facts(10 + i, nodes[i], 40, 100);
        assert_int_equal(rig_node(r, &facts), E_OK);
    }
    rig_pass(r, 5000);
    while (total < 1000) { /* the oldest ends, and its tenant sends another */
        const struct task *oldest = NULL;
        for (const struct task *t = scheduler_next(rig_scheduler(r), NULL); t != NULL; t = scheduler_next(rig_scheduler(r), t)) {
            oldest = t->node != NULL && (oldest == NULL || t->token < oldest->token) ? t : oldest;
        }
        assert_non_null(oldest);
        char id[16];
        unsigned tenant = 0;
        (void)snprintf(id, sizeof id, "%s", oldest->vertex->id);
        while (strcmp(oldest->tenant->name.text, names[tenant]) != 0) {
            tenant++;
        }
        given[tenant]++;
        total++;
        r->now_ms += 1000;
        assert_int_equal(rig_report(r, id, REPORT_COMPLETED), E_OK);
        submit_for(r, names[tenant], &number);
        rig_pass(r, 1000);
        for (unsigned i = 0; i < 3; i++) {
            const struct quota_tenant *t = quota_find(&rig_scheduler(r)->quota, bytes_str(names[i]));
            assert_int_equal(t->used.cpu_millicores, 120 * shares[i]); /* all that it may have, and no more */
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        uint32_t right = shares[i] * 1000 / 650, off = given[i] > right ? given[i] - right : right - given[i];
        if (off * 100 > right * 3) {
            fail_msg("%s had %u of 1000, should have %u", names[i], given[i], right);
        }
    }
    rig_free(r);
}

/* On an idle site a tenant may have twice its share for a minute; then what is above it must stop. */
static void a_burst_ends_by_stopping_what_is_above_the_share(void **context) {
    (void)context;
    struct rig *r = site_of(3, 10);
    assert_int_equal(rig_tenant(r, "acme", "", 200, 200), E_OK); /* 6 cores of 30 */
    struct task_order o = rig_order("", "acme", LANE_NORMAL);
    for (unsigned i = 0; i < 13; i++) {
        char id[8];
        (void)snprintf(id, sizeof id, "t%02u", i);
        o.id = bytes_str(id);
        o.lane = i % 2 == 0 ? LANE_NORMAL : LANE_LOW;
        assert_int_equal(rig_submit(r, &o), E_OK);
    }
    const struct quota_tenant *acme = quota_find(&rig_scheduler(r)->quota, bytes_str("acme"));
    assert_int_equal(acme->used.cpu_millicores, 12000);
    assert_int_equal(quota_due_ms(&rig_scheduler(r)->quota), r->now_ms + 60000);
    rig_pass(r, 59900);
    assert_int_equal(rig_state(r, "t11"), TASK_ASSIGNED);
    rig_pass(r, 100);
    unsigned stopped = 0, low = 0;
    for (const struct task *t = scheduler_next(rig_scheduler(r), NULL); t != NULL; t = scheduler_next(rig_scheduler(r), t)) {
        stopped += t->state == TASK_PREEMPTED && t->reason == REASON_BURST;
        low += t->state == TASK_PREEMPTED && t->lane == LANE_LOW;
    }
    assert_int_equal(stopped, 6);
    assert_int_equal(low, 6); /* the lower lane first */
    for (unsigned i = 1; i < 12; i += 2) {
        char id[8];
        (void)snprintf(id, sizeof id, "t%02u", i);
        assert_int_equal(rig_report(r, id, REPORT_STOPPED), E_OK);
    }
    acme = quota_find(&rig_scheduler(r)->quota, bytes_str("acme"));
    assert_int_equal(acme->used.cpu_millicores, 6000);
    rig_pass(r, 30000);
    acme = quota_find(&rig_scheduler(r)->quota, bytes_str("acme"));
    assert_int_equal(acme->used.cpu_millicores, 6000); /* half rested: nothing is started only to be stopped again */
    assert_int_equal(dispatch_due_ms(rig_scheduler(r)), r->now_ms + 30000);
    rig_pass(r, 30000);
    acme = quota_find(&rig_scheduler(r)->quota, bytes_str("acme"));
    assert_int_equal(acme->used.cpu_millicores, 12000);
    rig_free(r);
}

/* A pipeline whose second step starts before the first has ended works on half a file. */
static void dependencies_run_in_order_and_fail_together(void **context) {
    (void)context;
    struct rig *r = site_of(3, 10);
    struct task_order o = rig_order("c", "default", LANE_NORMAL);
    o.depends_on.count = 1;
    o.depends_on.at[0] = bytes_str("b");
    assert_int_equal(rig_submit(r, &o), E_OK);
    o.id = bytes_str("b");
    o.depends_on.at[0] = bytes_str("a");
    assert_int_equal(rig_submit(r, &o), E_OK);
    o.id = bytes_str("a");
    o.depends_on.at[0] = bytes_str("c");
    assert_int_equal(rig_submit(r, &o), E_CYCLE);
    assert_string_equal(r->o.detail, "a waits for c waits for b waits for a");
    o.depends_on.count = 0;
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_state(r, "a"), TASK_ASSIGNED);
    assert_int_equal(rig_state(r, "b"), TASK_PENDING);
    rig_restart(r);
    assert_int_equal(rig_report(r, "a", REPORT_COMPLETED), E_OK);
    assert_int_equal(rig_state(r, "b"), TASK_ASSIGNED);
    assert_int_equal(rig_state(r, "c"), TASK_PENDING);
    assert_int_equal(rig_report(r, "b", REPORT_FAILED), E_OK);
    assert_int_equal(rig_state(r, "b"), TASK_FAILED);
    assert_int_equal(rig_state(r, "c"), TASK_FAILED);
    assert_int_equal(rig_task(r, "c")->reason, REASON_DEPENDENCY);
    o.id = bytes_str("d");
    o.depends_on.count = 1;
    o.depends_on.at[0] = bytes_str("b");
    assert_int_equal(rig_submit(r, &o), E_CONDITION);
    rig_free(r);
}

/* A task that keeps failing must neither be given up at once nor hammer the machine. */
static void failures_are_tried_again_with_growing_pauses(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    struct task_order o = rig_order("t", "default", LANE_NORMAL);
    o.max_retries = 3;
    assert_int_equal(rig_submit(r, &o), E_OK);
    for (int64_t pause_ms = 1000; pause_ms <= 4000; pause_ms *= 2) {
        assert_int_equal(rig_report(r, "t", REPORT_RUNNING), E_OK);
        assert_int_equal(rig_report(r, "t", REPORT_FAILED), E_OK);
        assert_int_equal(rig_state(r, "t"), TASK_PENDING);
        assert_int_equal(dispatch_due_ms(rig_scheduler(r)), r->now_ms + pause_ms);
        rig_pass(r, pause_ms - 100);
        assert_int_equal(rig_state(r, "t"), TASK_PENDING);
        rig_restart(r);
        rig_pass(r, 100);
        assert_int_equal(rig_state(r, "t"), TASK_ASSIGNED);
    }
    assert_int_equal(rig_report(r, "t", REPORT_FAILED), E_OK);
    assert_int_equal(rig_state(r, "t"), TASK_FAILED);
    assert_int_equal(rig_task(r, "t")->failures, 4);
    assert_int_equal(rig_task(r, "t")->exit_status, 1);
    rig_free(r);
}

/* "At most once" means that a valve is not opened twice; "at least once" that it is opened. */
static void a_lost_node_gives_back_only_what_may_run_twice(void **context) {
    (void)context;
    struct rig *r = site_of(2, 10);
    struct task_order o = rig_order("once", "default", LANE_NORMAL);
    o.delivery = DELIVERY_AT_MOST_ONCE;
    o.affinity = bytes_str("n1");
    assert_int_equal(rig_submit(r, &o), E_OK);
    o.id = bytes_str("again");
    o.delivery = DELIVERY_AT_LEAST_ONCE;
    assert_int_equal(rig_submit(r, &o), E_OK);
    o.id = bytes_str("cancelled");
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_string_equal(rig_place(r, "once"), "n1");
    assert_string_equal(rig_place(r, "again"), "n1");
    assert_int_equal(rig_cancel(r, "cancelled"), E_OK);
    assert_string_equal(rig_place(r, "cancelled"), "n1"); /* until it has stopped */
    uint64_t token = rig_task(r, "again")->token;
    struct node_facts facts = rig_node_facts(10, "n1", 10, 100);
    facts.condition = NODE_LOST;
    assert_int_equal(rig_node(r, &facts), E_OK);
    assert_int_equal(rig_state(r, "once"), TASK_FAILED);
    assert_int_equal(rig_task(r, "once")->reason, REASON_NODE_LOST);
    assert_int_equal(rig_state(r, "again"), TASK_ASSIGNED);
    assert_string_equal(rig_place(r, "again"), "n2");
    assert_string_equal(rig_place(r, "cancelled"), "");
    assert_int_equal(rig_report_token(r, "again", token, REPORT_COMPLETED, REASON_NONE), E_CONDITION);
    facts.gone = true;
    assert_int_equal(rig_node(r, &facts), E_OK);
    assert_int_equal(rig_scheduler(r)->placement.count, 1);
    rig_restart(r);
    assert_int_equal(rig_scheduler(r)->placement.count, 1);
    rig_free(r);
}

/* A task that hangs must be stopped, and a place is free only when its node says so. */
static void a_task_that_runs_too_long_is_stopped(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    struct task_order o = rig_order("t", "default", LANE_NORMAL);
    o.timeout_s = 30;
    assert_int_equal(rig_submit(r, &o), E_OK);
    rig_pass(r, 100000); /* waiting for its node does not count */
    assert_int_equal(rig_report(r, "t", REPORT_RUNNING), E_OK);
    rig_pass(r, 29900);
    assert_int_equal(rig_task(r, "t")->stop, REASON_NONE);
    rig_pass(r, 100);
    assert_int_equal(rig_task(r, "t")->stop, REASON_TIMEOUT);
    assert_string_equal(rig_place(r, "t"), "n1");
    assert_int_equal(rig_report(r, "t", REPORT_STOPPED), E_OK);
    assert_int_equal(rig_state(r, "t"), TASK_FAILED);
    assert_int_equal(rig_task(r, "t")->reason, REASON_TIMEOUT);
    rig_free(r);
}

/* A correction of the site's clock by three days, either way, must neither time out what runs nor start what waits. */
static void a_corrected_clock_times_nothing_out(void **context) {
    (void)context;
    for (int sign = -1; sign <= 1; sign += 2) {
        struct rig *r = site_of(1, 10);
        struct task_order o = rig_order("t", "default", LANE_NORMAL);
        o.timeout_s = 30;
        assert_int_equal(rig_submit(r, &o), E_OK);
        assert_int_equal(rig_report(r, "t", REPORT_RUNNING), E_OK);
        o.id = bytes_str("f");
        o.max_retries = 5;
        assert_int_equal(rig_submit(r, &o), E_OK);
        assert_int_equal(rig_report(r, "f", REPORT_FAILED), E_OK);
        r->now_ms += sign * 3 * 24 * 3600 * 1000ll;
        payload_clock(&r->payload, r->now_ms);
        assert_int_equal(rig_entry(r, ENTRY_CLOCK), E_OK);
        rig_restart(r);
        rig_pass(r, 900);
        assert_int_equal(rig_state(r, "t"), TASK_RUNNING);
        assert_int_equal(rig_state(r, "f"), TASK_PENDING);
        assert_int_equal(dispatch_due_ms(rig_scheduler(r)), r->now_ms + 100);
        rig_pass(r, 100);
        assert_int_equal(rig_state(r, "f"), TASK_ASSIGNED);
        rig_pass(r, 29000);
        assert_int_equal(rig_task(r, "t")->stop, REASON_TIMEOUT);
        rig_free(r);
    }
}

/* An idle gateway must not look on while another has more than it can begin. */
static void an_idle_node_takes_what_another_has_not_begun(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    struct task_order o = rig_order("a", "default", LANE_NORMAL);
    assert_int_equal(rig_submit(r, &o), E_OK);
    o.id = bytes_str("b");
    assert_int_equal(rig_submit(r, &o), E_OK);
    o.id = bytes_str("once");
    o.delivery = DELIVERY_AT_MOST_ONCE;
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_report(r, "a", REPORT_RUNNING), E_OK);
    struct node_facts facts = rig_node_facts(11, "n2", 10, 100);
    assert_int_equal(rig_node(r, &facts), E_OK);
    uint64_t token = rig_task(r, "b")->token;
    rig_pass(r, 1900);
    assert_string_equal(rig_place(r, "b"), "n1");
    rig_pass(r, 100);
    assert_string_equal(rig_place(r, "b"), "n2");
    assert_int_equal(rig_task(r, "b")->taken_from, 10);
    assert_true(rig_task(r, "b")->token > token);
    assert_string_equal(rig_place(r, "a"), "n1");
    assert_string_equal(rig_place(r, "once"), "n1");
    assert_int_equal(rig_report_token(r, "b", token, REPORT_RUNNING, REASON_NONE), E_CONDITION);
    rig_free(r);
}

/* A large task among many small ones must get its place although room for it never comes by itself. */
static void a_large_task_is_not_starved_by_small_ones(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    assert_int_equal(rig_tenant(r, "large", "", 450, 450), E_OK);
    assert_int_equal(rig_tenant(r, "small", "", 450, 450), E_OK);
    struct task_order o = rig_order("", "small", LANE_CRITICAL); /* no zone holds this lane back */
    unsigned number = 0, rounds = 0;
    o.cpu_millicores = 450;
    for (unsigned i = 0; i < 20; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "s%u", number++);
        o.id = bytes_str(id);
        assert_int_equal(rig_submit(r, &o), E_OK);
    }
    struct task_order large = rig_order("large", "large", LANE_CRITICAL);
    large.cpu_millicores = 4500;
    assert_int_equal(rig_tenant(r, "small", "", 450, 450), E_OK);
    assert_int_equal(rig_submit(r, &large), E_OK);
    while (rig_state(r, "large") == TASK_QUEUED && rounds++ < 200) { /* one small one ends each second, and another comes */
        struct task *oldest = NULL;
        for (struct task *t = scheduler_next(rig_scheduler(r), NULL); t != NULL; t = scheduler_next(rig_scheduler(r), t)) {
            if (t->node != NULL && (oldest == NULL || t->token < oldest->token)) {
                oldest = t;
            }
        }
        char id[16];
        (void)snprintf(id, sizeof id, "%s", oldest->vertex->id);
        r->now_ms += 1000;
        assert_int_equal(rig_report(r, id, REPORT_COMPLETED), E_OK);
        (void)snprintf(id, sizeof id, "s%u", number++);
        o.id = bytes_str(id);
        assert_int_equal(rig_submit(r, &o), E_OK);
    }
    assert_int_equal(rig_state(r, "large"), TASK_ASSIGNED);
    assert_true(rounds <= SCHEDULER_RESERVE_MS / 1000 + 12);
    rig_free(r);
}

/* Two leaders, one after the other, must not run a nightly job twice. */
static void a_firing_happens_once(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    struct task_order o = rig_order("nightly", "default", LANE_NORMAL);
    int64_t first = START_MS + 3600000, runs[2] = {first, first + 60000};
    o.schedule = bytes_str("0 2 * * *");
    payload_task_submit(&r->payload, &o, first);
    assert_int_equal(rig_entry(r, ENTRY_TASK), E_OK);
    assert_int_equal(rig_state(r, "nightly"), TASK_PENDING);
    payload_task_fire(&r->payload, bytes_str("nightly"), first, runs, 2, first + 86400000);
    assert_int_equal(rig_entry(r, ENTRY_TASK), E_OK);
    payload_task_fire(&r->payload, bytes_str("nightly"), first, runs, 2, first + 86400000);
    assert_int_equal(rig_entry(r, ENTRY_TASK), E_CONDITION);
    char id[64];
    (void)snprintf(id, sizeof id, "nightly.%lld", (long long)(first / 60000));
    assert_int_equal(rig_state(r, id), TASK_ASSIGNED);
    assert_int_equal(rig_scheduler(r)->live, 3);
    assert_int_equal(rig_task(r, "nightly")->firing_ms, first + 86400000);
    assert_int_equal(rig_task(r, id)->order_index, rig_task(r, "nightly")->order_index);
    assert_int_equal(rig_cancel(r, "nightly"), E_OK);
    payload_task_fire(&r->payload, bytes_str("nightly"), first + 86400000, runs, 1, -1);
    assert_int_equal(rig_entry(r, ENTRY_TASK), E_CONDITION);
    rig_free(r);
}

/* --- With the core ---------------------------------------------------------------------------------------------------------------------- */

static void offload(struct rig *r, bool on) {
    payload_quota_limits(&r->payload, &(struct capacity_limits){.queue_max = 1000, .concurrent_max = 1000, .offloads = on});
    assert_int_equal(rig_entry(r, ENTRY_QUOTA), E_OK);
}

static void submit_mobile(struct rig *r, const char *id, uint32_t cpu) {
    struct task_order o = rig_order(id, "default", LANE_NORMAL);
    o.offload = OFFLOAD_LOCAL;
    o.offload_patience_s = 10;
    o.cpu_millicores = cpu;
    assert_int_equal(rig_submit(r, &o), E_OK);
}

static enum grey_error come_back(struct rig *r, const char *id, uint64_t token, enum task_report report, int32_t status) {
    static const uint8_t hash[DIGEST_BYTES] = {7};
    struct work_return w = {.id = bytes_str(id), .token = token, .report = report, .exit_status = status};
    if (report != REPORT_STOPPED) {
        w.output_hash = bytes_of(hash, sizeof hash);
        w.output_bytes = 100000;
        w.output = bytes_str("the end of it");
    }
    payload_task_return(&r->payload, &w);
    return rig_entry(r, ENTRY_TASK);
}

/* A task that was handed to the core and taken back must not end by what the core says of the first time; one that is there must not
 * run here. */
static void what_may_leave_is_in_one_place_at_a_time(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    submit_mobile(r, "early", 1000);
    assert_int_equal(rig_state(r, "early"), TASK_ASSIGNED); /* nobody has switched it on */
    assert_string_equal(rig_place(r, "early"), "n1");
    submit_mobile(r, "waiting", 9000);
    assert_int_equal(rig_state(r, "waiting"), TASK_QUEUED);
    offload(r, true);
    assert_true(scheduler_is_away(rig_task(r, "waiting"))); /* what waits goes at once, what runs stays */
    assert_string_equal(rig_place(r, "early"), "n1");
    assert_int_equal(rig_simple(r, "fixed", LANE_NORMAL), E_OK);
    assert_string_equal(rig_place(r, "fixed"), "n1"); /* its order does not let it leave */
    submit_mobile(r, "a", 1000);
    submit_mobile(r, "b", 1000);
    submit_mobile(r, "c", 1000);
    uint64_t token = rig_task(r, "a")->token;
    assert_true(scheduler_is_away(rig_task(r, "a")) && rig_scheduler(r)->away == 4);
    assert_int_equal(rig_report_token(r, "a", token, REPORT_COMPLETED, REASON_NONE), E_CONDITION); /* no node has it */
    rig_restart(r);
    assert_true(scheduler_is_away(rig_task(r, "a")) && rig_scheduler(r)->away == 4 && rig_scheduler(r)->saved.offloads);
    assert_int_equal(come_back(r, "a", token, REPORT_STOPPED, 0), E_OK); /* taken back: runs here, and does not leave again */
    assert_string_equal(rig_place(r, "a"), "n1");
    assert_int_equal(rig_task(r, "a")->reason, REASON_NONE);
    assert_int_equal(come_back(r, "a", token, REPORT_COMPLETED, 0), E_CONDITION);
    assert_int_equal(rig_report(r, "a", REPORT_COMPLETED), E_OK);
    assert_int_equal(come_back(r, "b", rig_task(r, "b")->token, REPORT_COMPLETED, 0), E_OK);
    assert_int_equal(rig_state(r, "b"), TASK_COMPLETED);
    struct work_output out;
    assert_true(work_output(r->g.rows, bytes_str("b"), &out) && out.bytes == 100000 && out.hash[0] == 7);
    assert_false(work_output(r->g.rows, bytes_str("a"), &out));
    assert_int_equal(come_back(r, "c", rig_task(r, "c")->token, REPORT_FAILED, 3), E_OK);
    assert_true(rig_state(r, "c") == TASK_FAILED && rig_task(r, "c")->reason == REASON_EXIT && rig_task(r, "c")->exit_status == 3);
    assert_int_equal(rig_cancel(r, "waiting"), E_OK);
    assert_int_equal(rig_scheduler(r)->away, 0);
    offload(r, false);
    submit_mobile(r, "late", 1000);
    assert_string_equal(rig_place(r, "late"), "n1");
    rig_free(r);
}

/* One that runs at most once comes back only when the core could not begin it; what may have run there has failed, and never runs here. */
static void what_runs_at_most_once_runs_in_one_place(void **context) {
    (void)context;
    static const char *const names[] = {"refused", "lost"};
    struct rig *r = site_of(1, 10);
    offload(r, true);
    for (size_t i = 0; i < 2; i++) {
        struct task_order o = rig_order(names[i], "default", LANE_NORMAL);
        o.offload = OFFLOAD_LOCAL;
        o.offload_patience_s = 10;
        o.delivery = DELIVERY_AT_MOST_ONCE;
        assert_int_not_equal(rig_submit(r, &o), E_OK); /* it could not be known whether it has run there */
        o.offload = OFFLOAD_WAIT;
        o.offload_patience_s = 0;
        assert_int_equal(rig_submit(r, &o), E_OK);
        assert_true(scheduler_is_away(rig_task(r, names[i])));
    }
    assert_int_equal(come_back(r, "refused", rig_task(r, "refused")->token, REPORT_STOPPED, 0), E_OK);
    assert_string_equal(rig_place(r, "refused"), "n1");
    assert_int_equal(come_back(r, "lost", rig_task(r, "lost")->token, REPORT_FAILED, 255), E_OK);
    assert_true(rig_state(r, "lost") == TASK_FAILED && rig_task(r, "lost")->reason == REASON_EXIT);
    assert_int_equal(rig_scheduler(r)->away, 0);
    rig_free(r);
}

/* Shares that were given while over-commit was allowed must neither make the state unreadable nor be lost when it is not any more. */
static void shares_outlive_the_time_of_over_commit(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    assert_int_equal(rig_tenant(r, "acme", "", 600, 600), E_OK);
    assert_int_equal(rig_tenant(r, "beta", "", 600, 600), E_QUOTA);
    payload_quota_limits(&r->payload, &(struct capacity_limits){.queue_max = 1000, .concurrent_max = 1000, .overcommit = true});
    assert_int_equal(rig_entry(r, ENTRY_QUOTA), E_OK);
    assert_int_equal(rig_tenant(r, "beta", "", 600, 600), E_OK);
    offload(r, false); /* without over-commit */
    assert_int_equal(rig_tenant(r, "gamma", "", 1, 1), E_QUOTA);
    rig_restart(r);
    assert_int_equal(quota_find(&rig_scheduler(r)->quota, bytes_str("beta"))->share.cpu_permille, 600);
    assert_false(rig_scheduler(r)->quota.overcommit);
    assert_int_equal(rig_tenant(r, "beta", "", 300, 300), E_OK);
    rig_free(r);
}

/* Labels, sizes and quotas must be refused at the door where they can never be met, with a reason. */
static void orders_that_cannot_be_met_are_refused(void **context) {
    (void)context;
    struct rig *r = site_of(2, 10);
    struct task_order o = rig_order("t", "nobody", LANE_NORMAL);
    assert_int_equal(rig_submit(r, &o), E_NOT_FOUND);
    o = rig_order("t", "default", LANE_NORMAL);
    o.cpu_millicores = 9001;
    assert_int_equal(rig_submit(r, &o), E_TOO_LARGE);
    assert_int_equal(rig_tenant(r, "acme", "", 300, 250), E_OK);
    assert_int_equal(rig_tenant(r, "acme", "staging", 200, 200), E_OK);
    o = rig_order("t", "acme", LANE_NORMAL);
    o.name_space = bytes_str("staging");
    o.cpu_millicores = 1201; /* 6% of 20 cores is 1,200 */
    assert_int_equal(rig_submit(r, &o), E_QUOTA);
    o.cpu_millicores = 1200;
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_state(r, "t"), TASK_ASSIGNED);
    o.cpu_millicores = 1199;
    assert_int_equal(rig_submit(r, &o), E_ID_REUSED);
    o.id = bytes_str("u");
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_state(r, "u"), TASK_QUEUED); /* the namespace is full */
    o = rig_order("picky", "default", LANE_NORMAL);
    o.selectors.count = 1;
    o.selectors.at[0] = bytes_str("line=3");
    assert_int_equal(rig_submit(r, &o), E_OK);
    assert_int_equal(rig_state(r, "picky"), TASK_QUEUED);
    rig_restart(r);
    struct node_facts facts = rig_node_facts(11, "n2", 10, 100);
    facts.labels.count = 2;
    facts.labels.at[0] = bytes_str("gpu=no");
    facts.labels.at[1] = bytes_str("line=3");
    assert_int_equal(rig_node(r, &facts), E_OK);
    assert_string_equal(rig_place(r, "picky"), "n2");
    assert_int_equal(rig_cancel(r, "nothing"), E_NOT_FOUND);
    rig_free(r);
}

/* The 1,001st task that would run at a time waits. */
static void so_many_run_at_a_time_and_the_next_waits(void **context) {
    (void)context;
    struct rig *r = site_of(3, 1000);
    char id[16];
    for (unsigned i = 0; i <= 1000; i++) {
        (void)snprintf(id, sizeof id, "t%u", i);
        struct task_order o = rig_order(id, "default", LANE_NORMAL);
        o.cpu_millicores = 1;
        assert_int_equal(rig_submit(r, &o), E_OK);
        assert_int_equal(rig_state(r, id), i < 1000 ? TASK_ASSIGNED : TASK_QUEUED);
    }
    assert_int_equal(rig_report(r, "t0", REPORT_COMPLETED), E_OK);
    assert_int_equal(rig_state(r, "t1000"), TASK_ASSIGNED);
    rig_free(r);
}

/* What ended long ago must not fill the gateways' memory. */
static void only_the_youngest_that_ended_are_remembered(void **context) {
    (void)context;
    struct rig *r = site_of(1, 10);
    char id[16];
    for (unsigned i = 0; i < SCHEDULER_ENDED_MAX + 10; i++) {
        (void)snprintf(id, sizeof id, "t%u", i);
        assert_int_equal(rig_simple(r, id, LANE_NORMAL), E_OK);
        r->now_ms += 100;
        assert_int_equal(rig_report(r, id, REPORT_COMPLETED), E_OK);
    }
    assert_null(rig_task(r, "t9"));
    assert_non_null(rig_task(r, "t10"));
    rig_restart(r);
    assert_null(rig_task(r, "t9"));
    assert_int_equal(rig_scheduler(r)->ended, SCHEDULER_ENDED_MAX);
    rig_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_end_in_their_order_on_one_slot),
        cmocka_unit_test(lane_4_gives_way_and_is_queued_again),
        cmocka_unit_test(zones_delay_hold_and_refuse),
        cmocka_unit_test(an_emergency_stops_the_lowest_lane_first),
        cmocka_unit_test(a_hot_spot_gives_away_one_task_at_a_time),
        cmocka_unit_test(tenants_get_places_by_their_shares),
        cmocka_unit_test(a_burst_ends_by_stopping_what_is_above_the_share),
        cmocka_unit_test(dependencies_run_in_order_and_fail_together),
        cmocka_unit_test(failures_are_tried_again_with_growing_pauses),
        cmocka_unit_test(a_lost_node_gives_back_only_what_may_run_twice),
        cmocka_unit_test(a_task_that_runs_too_long_is_stopped),
        cmocka_unit_test(a_corrected_clock_times_nothing_out),
        cmocka_unit_test(an_idle_node_takes_what_another_has_not_begun),
        cmocka_unit_test(a_large_task_is_not_starved_by_small_ones),
        cmocka_unit_test(a_firing_happens_once),
        cmocka_unit_test(what_may_leave_is_in_one_place_at_a_time),
        cmocka_unit_test(what_runs_at_most_once_runs_in_one_place),
        cmocka_unit_test(shares_outlive_the_time_of_over_commit),
        cmocka_unit_test(orders_that_cannot_be_met_are_refused),
        cmocka_unit_test(so_many_run_at_a_time_and_the_next_waits),
        cmocka_unit_test(only_the_youngest_that_ended_are_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
