#include "agent/run/tasklog.h"

#include "include/grey/protocol.h"

#define ANSWER_MS 5000u
#define ASKED_MAX 64u

struct question {
    struct question *next;
    uint64_t number, deadline_ms;
    raft_id where;
    executor_output *done;
    void *context;
};

struct tasklog {
    struct loop *loop;
    struct node *node;
    struct executor *executor;
    struct question *asked; /* of other gateways */
    uint32_t count;
    uint64_t next_number;
    struct loop_timer timer;
};

/* A question of another gateway, while the launcher is asked. */
struct relay {
    struct tasklog *log;
    raft_id to;
    uint64_t request;
};

static void answer(struct tasklog *l, struct question **at, enum grey_error err, const struct message_output *o) {
    struct question *q = *at;
    *at = q->next;
    l->count--;
    q->done(q->context, err, o == NULL ? bytes_of(NULL, 0) : o->data, o == NULL ? 0 : o->offset, o == NULL ? 0 : o->end_offset);
    mem_free(q);
}

static void expire(void *context) {
    struct tasklog *l = context;
    uint64_t now_ms = loop_now_ms(l->loop);
    for (struct question **at = &l->asked; *at != NULL;) {
        if ((*at)->deadline_ms <= now_ms) {
            answer(l, at, E_CONNECT, NULL);
        } else {
            at = &(*at)->next;
        }
    }
    if (l->asked != NULL) {
        loop_timer_after(l->loop, &l->timer, ANSWER_MS / 5);
    }
}

void tasklog_read(struct tasklog *l, raft_id where, uint64_t token, enum launch_stream stream, uint64_t offset, uint32_t size,
                  executor_output *done, void *context) {
    struct raft_status s;
    struct peers *peers = node_peers(l->node);
    node_raft_status(l->node, &s);
    if (where == s.self && l->executor != NULL) {
        executor_read(l->executor, token, stream, offset, size, done, context);
        return;
    }
    uint32_t level = where == s.self || peers == NULL ? 0 : peers_feature_level(peers, where);
    struct question *q = level >= FEATURE_LEVEL_TASKS && l->count < ASKED_MAX ? mem_new(1, sizeof *q) : NULL;
    struct message m = {
        .kind = MESSAGE_OUTPUT_FETCH,
        .u.output_fetch = {
            .request = l->next_number + 1, .token = token, .offset = offset, .stream = (uint32_t)stream, .bytes_max = size}};
    if (q == NULL || !peers_send(peers, where, &m)) {
        mem_free(q);
        done(context, where == s.self || level > 0 ? E_NOT_HERE_YET : E_CONNECT, bytes_of(NULL, 0), 0, 0);
        return;
    }
    *q = (struct question){.next = l->asked,
                           .number = ++l->next_number,
                           .deadline_ms = loop_now_ms(l->loop) + ANSWER_MS,
                           .where = where,
                           .done = done,
                           .context = context};
    l->asked = q;
    l->count++;
    if (l->timer.place == 0) {
        loop_timer_after(l->loop, &l->timer, ANSWER_MS);
    }
}

static void pass_on(void *context, enum grey_error err, struct bytes data, uint64_t offset, uint64_t end_offset) {
    struct relay *r = context;
    struct message m = {.kind = MESSAGE_OUTPUT,
                        .u.output = {.request = r->request, .offset = offset, .end_offset = end_offset, .err = err, .data = data}};
    if (err != E_STOPPING && node_peers(r->log->node) != NULL) { /* at the end the node is gone already */
        (void)peers_send(node_peers(r->log->node), r->to, &m);   /* without room it asks again, or gives up */
    }
    mem_free(r);
}

void tasklog_message(struct tasklog *l, raft_id from, const struct message *m) {
    if (m->kind == MESSAGE_OUTPUT) {
        for (struct question **at = &l->asked; *at != NULL; at = &(*at)->next) {
            if ((*at)->number == m->u.output.request && (*at)->where == from) {
                answer(l, at, m->u.output.err, &m->u.output);
                return;
            }
        }
        return;
    }
    const struct message_output_fetch *f = &m->u.output_fetch;
    struct relay *r = mem_new(1, sizeof *r);
    if (r == NULL) {
        return;
    }
    *r = (struct relay){.log = l, .to = from, .request = f->request};
    uint32_t size = f->bytes_max < LAUNCHWIRE_PART_BYTES_MAX ? f->bytes_max : LAUNCHWIRE_PART_BYTES_MAX;
    if (l->executor == NULL) {
        pass_on(r, E_NOT_HERE_YET, bytes_of(NULL, 0), 0, 0);
    } else {
        executor_read(l->executor, f->token, (enum launch_stream)f->stream, f->offset, size, pass_on, r);
    }
}

struct tasklog *tasklog_new(struct loop *loop, struct node *node, struct executor *x, struct fault *f) {
    struct tasklog *l = mem_new(1, sizeof *l);
    if (l == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "tasklog");
        return NULL;
    }
    *l = (struct tasklog){.loop = loop, .node = node, .executor = x, .timer = {.fire = expire}};
    l->timer.context = l;
    return l;
}

void tasklog_free(struct tasklog *l) {
    if (l == NULL) {
        return;
    }
    loop_timer_cancel(l->loop, &l->timer);
    while (l->asked != NULL) {
        answer(l, &l->asked, E_STOPPING, NULL);
    }
    mem_free(l);
}
