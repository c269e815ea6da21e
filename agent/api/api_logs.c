/* What tasks wrote: the launcher of the gateway that ran them has it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/work/work.h"

#define LOG_BYTES_MAX (1024u * 1024u) /* of one answer: all that is kept of a stream */

#define FOLLOW_MS 20000u /* a question that waits for more is answered after so long in any case */
#define FOLLOW_LOOK_MS 300u
#define FOLLOWING_MAX 64u

struct reading {
    struct api_call *c;
    bool follow;
    uint64_t until_ms; /* follow */
    raft_id where;
    uint64_t token;
    enum launch_stream stream;
    uint64_t first, offset; /* first: of the answer, known with its first part */
    bool begun;
    struct builder text;
};

static void answer(struct reading *r, uint64_t end_offset) {
    char first[24], end[24], token[24];
    (void)snprintf(first, sizeof first, "%" PRIu64, r->first);
    (void)snprintf(end, sizeof end, "%" PRIu64, end_offset);
    (void)snprintf(token, sizeof token, "%" PRIu64, r->token);
    struct http_extra extra[] = {{"X-Grey-Offset", first}, {"X-Grey-End", end}, {"X-Grey-Token", token}};
    http_reply(r->c->q, 200, "text/plain", builder_bytes(&r->text), extra, 3);
    builder_free(&r->text);
    mem_free(r->c);
    mem_free(r);
}

/* --- Those who wait for more ------------------------------------------------------------------------------------------------------------ */

struct api_following {
    struct api_following *next;
    struct reading *reading;
};

static void part(void *context, enum grey_error err, struct bytes data, uint64_t offset, uint64_t end_offset);

static bool goes_on(const struct reading *r) {
    const struct scheduler *all = state_scheduler(node_state(r->c->api->o.node));
    const struct task *t = all == NULL ? NULL : scheduler_find(all, bytes_of(r->c->arg, r->c->arg_size));
    return t != NULL && t->token == r->token && t->node != NULL;
}

static void read_more(struct reading *r) {
    tasklog_read(r->c->api->o.tasklog, r->where, r->token, r->stream, r->offset, LAUNCHWIRE_PART_BYTES_MAX, part, r);
}

/* Asks again a little later, and a last time when the run has ended: what it wrote to the end is there then. */
static bool wait_for_more(struct reading *r) {
    struct api *a = r->c->api;
    bool wanted = r->follow && r->text.size == 0 && loop_now_ms(a->o.loop) < r->until_ms && a->following_count < FOLLOWING_MAX &&
                  !http_client_gone(r->c->q);
    struct api_following *f = wanted ? mem_new(1, sizeof *f) : NULL;
    if (f == NULL) {
        return false;
    }
    r->follow = goes_on(r);
    *f = (struct api_following){.next = a->following, .reading = r};
    a->following = f;
    a->following_count++;
    if (a->follow_timer.place == 0) {
        loop_timer_after(a->o.loop, &a->follow_timer, FOLLOW_LOOK_MS);
    }
    return true;
}

void api_logs_follow_timer(void *context) {
    struct api *a = context;
    struct api_following *all = a->following; /* who asks again while these are read waits for the next time */
    a->following = NULL;
    a->following_count = 0;
    while (all != NULL) {
        struct api_following *f = all;
        all = f->next;
        read_more(f->reading);
        mem_free(f);
    }
}

void api_logs_free(struct api *a) {
    while (a->following != NULL) {
        struct api_following *f = a->following;
        a->following = f->next;
        builder_free(&f->reading->text);
        mem_free(f->reading->c);
        mem_free(f->reading);
        mem_free(f);
    }
    loop_timer_cancel(a->o.loop, &a->follow_timer);
}

/* --- Reading --------------------------------------------------------------------------------------------------------------------------------- */

static void part(void *context, enum grey_error err, struct bytes data, uint64_t offset, uint64_t end_offset) {
    struct reading *r = context;
    if (err != E_OK) {
        api_call_error(r->c, err, "what the gateway that ran it answered, or that it did not");
        builder_free(&r->text);
        mem_free(r);
        return;
    }
    r->first = r->begun ? r->first : offset;
    bool follows = !r->begun || offset == r->offset; /* else the oldest left while it was read */
    r->begun = true;
    r->offset = offset + data.size;
    if (follows) {
        builder_add(&r->text, data);
    }
    if (!follows || data.size == 0 || r->offset >= end_offset || r->text.size + LAUNCHWIRE_PART_BYTES_MAX > LOG_BYTES_MAX) {
        if (!wait_for_more(r)) {
            answer(r, end_offset);
        }
        return;
    }
    read_more(r);
}

/* Of a run beside the core the site has the end of what it wrote, in the entry of its return. */
static void part_of_entry(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct reading *r = context;
    struct work_output out;
    (void)detail;
    bool there = payload != NULL &&
                 work_output(state_table(node_state(r->c->api->o.node)), bytes_of(r->c->arg, r->c->arg_size), &out) &&
                 out.token == r->token;
    if (!there) {
        part(r, err != E_OK ? err : E_NOT_FOUND, bytes_of(NULL, 0), 0, 0);
        return;
    }
    struct bytes text = payload_task_output(blob_bytes(payload));
    uint64_t first = out.bytes > text.size ? out.bytes - text.size : 0;
    uint64_t skip = r->stream == LAUNCH_STDERR || r->offset >= out.bytes ? text.size : r->offset > first ? r->offset - first : 0;
    builder_add(&r->text, bytes_of(text.data + skip, (size_t)(text.size - skip)));
    r->first = first + skip;
    answer(r, out.bytes);
}

static bool read_query(struct api_call *c, enum launch_stream *stream, uint64_t *offset, bool *follow) {
    char text[24];
    *follow = http_query(c->q, "follow", text, sizeof text) && strcmp(text, "true") == 0;
    *stream = LAUNCH_STDOUT;
    *offset = 0;
    if (http_query(c->q, "stream", text, sizeof text)) {
        *stream = strcmp(text, "stderr") == 0 ? LAUNCH_STDERR : LAUNCH_STDOUT;
        if (*stream == LAUNCH_STDOUT && strcmp(text, "stdout") != 0) {
            return false;
        }
    }
    if (http_query(c->q, "offset", text, sizeof text)) {
        char *end;
        *offset = strtoull(text, &end, 10);
        return text[0] >= '0' && text[0] <= '9' && *end == 0 && *offset <= INT64_MAX;
    }
    return true;
}

static void find(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    enum launch_stream stream;
    uint64_t offset;
    bool follow;
    const struct scheduler *all = a->err == E_OK ? state_scheduler(node_state(c->api->o.node)) : NULL;
    const struct task *t = all == NULL ? NULL : scheduler_find(all, bytes_of(c->arg, c->arg_size));
    if (t == NULL) {
        api_call_error(c,
                       a->err != E_OK ? a->err
                       : all == NULL  ? E_NO_MEMORY
                                      : E_NOT_FOUND,
                       a->err != E_OK ? a->detail : "no such task");
    } else if (!read_query(c, &stream, &offset, &follow)) {
        api_call_error(c, E_BAD_REQUEST, "stream is stdout or stderr, offset a number of bytes");
    } else if (t->token == 0 || scheduler_is_away(t)) {
        api_call_error(c, E_NOT_FOUND, "it did not run yet");
    } else {
        struct reading *r = mem_new(1, sizeof *r);
        if (r == NULL) {
            api_call_error(c, E_NO_MEMORY, "");
            return;
        }
        *r = (struct reading){.c = c,
                              .where = t->last_node,
                              .token = t->token,
                              .stream = stream,
                              .offset = offset,
                              .follow = follow,
                              .until_ms = loop_now_ms(c->api->o.loop) + FOLLOW_MS};
        builder_init(&r->text, LOG_BYTES_MAX);
        struct work_output out;
        if (work_output(state_table(node_state(c->api->o.node)), bytes_of(c->arg, c->arg_size), &out) && out.token == t->token) {
            node_payload(c->api->o.node, out.index, part_of_entry, r);
            return;
        }
        read_more(r);
    }
}

void api_task_logs(struct api_call *c) {
    node_read_barrier(c->api->o.node, find, c);
}
