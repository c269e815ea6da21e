/* What a real node, a site of one, does for its disk by itself: images of its state, the log behind them, and verifying what is stored. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "tests/unit/node_rig.h"

#define KEPT 3u
#define IMAGES 5u

struct made {
    struct node_rig *rig;
    bool called;
    enum grey_error err;
};

static void image_made(void *context, enum grey_error err, const struct sitelog_snapshot_info *info, const char *detail) {
    struct made *m = context;
    (void)info, (void)detail;
    m->called = true;
    m->err = err;
    loop_stop(m->rig->x.loop);
}

static void write_image(struct node_rig *r) {
    struct made m = {.rig = r};
    node_snapshot(r->node, false, image_made, &m);
    while (!m.called) {
        loop_run(r->x.loop);
    }
    assert_int_equal(m.err, E_OK);
    while (r->node->upkeep.compacting) {
        node_rig_wait(r, 10);
    }
}

static raft_index base(const struct node_rig *r) {
    struct raft_status s;
    raft_status(r->node->raft, &s);
    return s.base_index;
}

static void spoil(const char *dir, const char *name, off_t at) {
    char path[200];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "damaged damaged damaged damaged ", 32, at), 32);
    assert_int_equal(close(fd), 0);
}

/* If this failed, the older of the images that are kept would be dead weight: with the newer ones and state.db damaged, a gateway alone
 * would have lost its state though an image of it lies on its disk. */
static void the_log_reaches_back_to_the_oldest_image(void **state) {
    (void)state;
    struct node_rig r;
    struct sitelog_snapshot_info images[SITELOG_SNAPSHOTS_MAX];
    char name[32];
    node_rig_new(&r);
    node_rig_open(&r);
    for (uint32_t i = 0; i < IMAGES; i++) {
        (void)snprintf(name, sizeof name, "key%" PRIu32, i);
        assert_int_equal(node_rig_put(&r, name, KV_ALWAYS), E_OK);
        write_image(&r);
        size_t count = sitelog_snapshots(r.node->log, images, SITELOG_SNAPSHOTS_MAX);
        assert_int_equal(count, i + 1 < KEPT ? i + 1 : KEPT);
        assert_int_equal(base(&r), i + 1 < KEPT ? 0 : images[KEPT - 1].point.index);
    }
    assert_int_equal(node_rig_put(&r, "last", KV_ALWAYS), E_OK);
    node_rig_close(&r);
    for (uint32_t newer = 0; newer + 1 < KEPT; newer++) {
        char dir[80];
        (void)snprintf(dir, sizeof dir, "%s/snapshots", r.dir);
        spoil(dir, images[newer].name, (off_t)images[newer].file_bytes - 64);
        spoil(r.dir, "state.db", 100);
        node_rig_open(&r);
        for (uint32_t i = 0; i < IMAGES; i++) {
            (void)snprintf(name, sizeof name, "key%" PRIu32, i);
            assert_int_equal(node_rig_put(&r, name, KV_IF_ABSENT), E_CONDITION);
        }
        assert_int_equal(node_rig_put(&r, "last", KV_IF_ABSENT), E_CONDITION);
        node_rig_close(&r);
    }
    node_rig_remove(&r);
}

/* If this failed, a gateway with nothing to do would read its files through again and again, and its disk would never rest. */
static void a_round_of_the_check_is_made_once_in_its_interval(void **state) {
    (void)state;
    struct node_rig r;
    node_rig_new(&r);
    r.options.check_interval_s = 3600;
    node_rig_open(&r);
    assert_int_equal(node_rig_put(&r, "key", KV_ALWAYS), E_OK);
    struct diskcheck *c = &r.node->diskcheck;
    for (unsigned turn = 0; turn < 200; turn++) { /* as many seconds of which each allows all there is */
        c->allowance += 1 << 20;
        diskcheck_duty(r.node);
        node_rig_wait(&r, 2);
    }
    assert_int_equal(c->rounds, 1);
    c->rests_until_ms = loop_now_ms(r.x.loop); /* an hour has passed */
    for (unsigned turn = 0; turn < 200; turn++) {
        c->allowance += 1 << 20;
        diskcheck_duty(r.node);
        node_rig_wait(&r, 2);
    }
    assert_int_equal(c->rounds, 2);
    node_rig_close(&r);
    node_rig_remove(&r);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_reaches_back_to_the_oldest_image),
        cmocka_unit_test(a_round_of_the_check_is_made_once_in_its_interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
