/* node_rig.h: how tests set up a node: node_rig_options what all of them have in common, node_rig_open a site of one with a loop of its
 * own, which leads when that returns. */
#ifndef TESTS_NODE_RIG_H
#define TESTS_NODE_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/log.h"

#define NODE_RIG_PATIENCE_MS 60000u /* bounds a hang only */

static inline struct node_options node_rig_options(const char *name, const char *dir, const char *log_dir) {
    return (struct node_options){.node = name,
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
                                 .request_timeout_ms = 5000,
                                 .queue = {.bytes_max = 1u << 30}};
}

struct node_rig {
    struct conn_context x;
    struct node_options options;
    struct node *node;
    struct loop_timer late;
    bool leads;
    char dir[64], log_dir[72];
};

static inline void node_rig_leading(void *context, bool leads, grey_epoch epoch) {
    struct node_rig *r = context;
    (void)epoch;
    r->leads = leads;
    loop_stop(r->x.loop);
}

static inline void node_rig_failed(void *context, enum grey_error err, const char *detail) {
    (void)context, (void)err;
    must_failed(detail, 0, "a node that goes on");
}

static inline void node_rig_late(void *context) {
    (void)context;
    must_failed(__FILE__, __LINE__, "something comes of it in time");
}

/* Starts what r->options says; they may be changed between node_rig_new and here, and again after node_rig_close. */
static inline void node_rig_start(struct node_rig *r) {
    static const struct node_events events = {.leading = node_rig_leading, .failed = node_rig_failed};
    struct fault f = {0};
    r->leads = false;
    r->x.loop = loop_new(&f);
    must(r->x.loop != NULL);
    r->late = (struct loop_timer){.fire = node_rig_late};
    loop_timer_after(r->x.loop, &r->late, NODE_RIG_PATIENCE_MS);
    r->node = node_new(&r->x, &r->options, &events, r, &f);
    if (r->node == NULL) {
        must_failed(f.text, 0, "a node that starts");
    }
}

/* The same, until it leads. */
static inline void node_rig_open(struct node_rig *r) {
    node_rig_start(r);
    while (!r->leads) {
        loop_run(r->x.loop);
    }
}

static inline void node_rig_close(struct node_rig *r) {
    loop_timer_cancel(r->x.loop, &r->late);
    node_free(r->node);
    loop_free(r->x.loop);
}

static inline void node_rig_new(struct node_rig *r) {
    *r = (struct node_rig){.dir = "/tmp/grey-node-XXXXXX"};
    must(mkdtemp(r->dir) != NULL);
    (void)snprintf(r->log_dir, sizeof r->log_dir, "%s/log", r->dir);
    log_configure(LOG_ERROR, LOG_PRETTY);
    r->options = node_rig_options("1", r->dir, r->log_dir);
    r->options.request_timeout_ms = NODE_RIG_PATIENCE_MS;
}

static inline void node_rig_remove(struct node_rig *r) {
    char command[96];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", r->dir);
    must(system(command) == 0);
}

struct node_rig_answer {
    struct node_rig *rig;
    bool called;
    enum grey_error err;
};

static inline void node_rig_told(void *context, const struct node_answer *a) {
    struct node_rig_answer *t = context;
    t->called = true;
    t->err = a->err;
    loop_stop(t->rig->x.loop);
}

/* Has the leader decide to write a key, and waits for what comes of it. */
static inline enum grey_error node_rig_put(struct node_rig *r, const char *key, enum kv_condition condition) {
    struct node_rig_answer t = {.rig = r};
    struct builder b;
    builder_init(&b, 4096);
    payload_kv(&b, false, bytes_str(key), condition, 0, bytes_of(NULL, 0), bytes_str("value"));
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    requests_decide(r->node, ENTRY_KV, payload, true, node_rig_told, &t);
    blob_unref(payload);
    while (!t.called) {
        loop_run(r->x.loop);
    }
    return t.err;
}

static inline void node_rig_woken(void *context) {
    loop_stop(context);
}

/* Lets the loop run for so long. */
static inline void node_rig_wait(struct node_rig *r, uint64_t ms) {
    struct loop_timer wake = {.fire = node_rig_woken, .context = r->x.loop};
    loop_timer_after(r->x.loop, &wake, ms);
    loop_run(r->x.loop);
    loop_timer_cancel(r->x.loop, &wake);
}

#endif
