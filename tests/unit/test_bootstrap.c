/* How a site begins, and that it begins once: --bootstrap stays in a unit file for ever, and gateways stop at any moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "tests/unit/node_rig.h"

#define OTHER_CLUSTER UINT64_C(0x1234567)

static void stored(void *context, struct sitelog_store *job) {
    assert_int_equal(job->err, E_OK);
    loop_stop(context);
    mem_free(job);
}

/* Leaves a directory as a gateway does that stops once it has stored the id of a cluster, and no membership; its raft id. */
static raft_id stop_after_cluster_id(struct node_rig *r, uint64_t cluster_id, bool began) {
    struct sitelog_options o = {.data_dir = r->dir,
                                .wal_dir = r->log_dir,
                                .window_entries = 10,
                                .window_bytes = 1u << 20,
                                .snapshots_kept = 3,
                                .rejoins = true};
    struct grey_name node = {.text = "1"}, site = {.text = "s"};
    struct sitelog_start start;
    struct fault f = {0};
    struct loop *loop = loop_new(&f);
    struct table *table = table_new(1u << 20);
    struct sitelog *log = sitelog_open(loop, &o, table, &start, &f);
    assert_non_null(log);
    raft_id self = start.self;
    assert_int_equal(sitelog_claim(log, &node, &site, &f), E_OK);
    struct sitelog_store *job = mem_new(1, sizeof *job);
    assert_non_null(job);
    builder_init(&job->wants, 0);
    job->cluster_id = cluster_id;
    job->vote_given = began;
    job->term = 1;
    job->vote = self;
    job->done = stored;
    job->context = loop;
    assert_int_equal(sitelog_store(log, job), E_OK);
    loop_run(loop);
    sitelog_start_free(&start);
    sitelog_close(log);
    table_free(table);
    loop_free(loop);
    return self;
}

/* If this failed, a gateway with an empty disk that lost its power a second time, in the moment in which it joined its site again, would begin a
 * site of its own: it would take events that never reach anybody, and be turned away by the others until somebody drives there. */
static void who_was_about_to_join_a_cluster_never_begins_one(void **state) {
    (void)state;
    struct node_rig r;
    node_rig_new(&r);
    (void)stop_after_cluster_id(&r, OTHER_CLUSTER, false);
    for (int start = 0; start < 2; start++) {
        node_rig_start(&r);
        node_rig_wait(&r, 1500);
        assert_false(r.leads);
        assert_true(node_cluster_id(r.node) == OTHER_CLUSTER);
        node_rig_close(&r);
    }
    node_rig_remove(&r);
}

/* If this failed, a site whose first gateway lost its power while it began would never come to be: the others had heard of the cluster that it
 * began first, and would turn it away under the id of another. */
static void who_was_about_to_begin_goes_on_under_the_same_id(void **state) {
    (void)state;
    struct node_rig r;
    node_rig_new(&r);
    raft_id self = stop_after_cluster_id(&r, OTHER_CLUSTER, true);
    node_rig_open(&r);
    assert_true(r.node->self == self);
    assert_true(node_cluster_id(r.node) == OTHER_CLUSTER);
    assert_int_equal(node_rig_put(&r, "key", KV_ALWAYS), E_OK);
    node_rig_close(&r);
    r.options.bootstrap = false;
    node_rig_open(&r);
    assert_true(node_cluster_id(r.node) == OTHER_CLUSTER);
    node_rig_close(&r);
    node_rig_remove(&r);
}

static void make_image(void *context, enum grey_error err, const struct sitelog_snapshot_info *info, const char *detail) {
    struct node_rig *r = context;
    char command[400];
    (void)detail;
    assert_int_equal(err, E_OK);
    (void)snprintf(command, sizeof command, "cp '%s/snapshots/%s' /tmp/grey-image-%d", r->dir, info->name, (int)getpid());
    assert_int_equal(system(command), 0);
    loop_stop(r->x.loop);
}

/* If this failed, a restored gateway that is started while its neighbours are off, and once more before it has begun its site, would never
 * start again. */
static void a_restored_one_may_stop_before_it_begins(void **state) {
    (void)state;
    struct node_rig from, to;
    struct fault f = {0};
    char image[64];
    (void)snprintf(image, sizeof image, "/tmp/grey-image-%d", (int)getpid());
    node_rig_new(&from);
    node_rig_open(&from);
    assert_int_equal(node_rig_put(&from, "key", KV_ALWAYS), E_OK);
    node_snapshot(from.node, true, make_image, &from);
    loop_run(from.x.loop);
    raft_index made = node_applied(from.node);
    node_rig_close(&from);
    node_rig_remove(&from);
    node_rig_new(&to);
    if (sitelog_restore(image, to.dir, to.log_dir, &f) != E_OK) {
        fail_msg("%s", f.text);
    }
    (void)unlink(image);
    to.options.seeds = "127.0.0.1:1"; /* for whose word it waits */
    node_rig_start(&to);
    node_rig_close(&to);
    to.options.seeds = "";
    node_rig_open(&to);
    assert_true(node_applied(to.node) >= made);
    assert_int_equal(node_rig_put(&to, "key", KV_IF_ABSENT), E_CONDITION); /* it is there */
    node_rig_close(&to);
    node_rig_remove(&to);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_was_about_to_join_a_cluster_never_begins_one),
        cmocka_unit_test(who_was_about_to_begin_goes_on_under_the_same_id),
        cmocka_unit_test(a_restored_one_may_stop_before_it_begins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
