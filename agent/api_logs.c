/* What tasks wrote: the launcher of the gateway that ran them has it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api_core.h"
#include "agent/work.h"

#define LOG_BYTES_MAX (1024u * 1024u) /* of one answer: all that is kept of a stream */

struct reading {
    struct api_call *c;
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
        answer(r, end_offset);
        return;
    }
    tasklog_read(r->c->api->o.tasklog, r->where, r->token, r->stream, r->offset, LAUNCHWIRE_PART_BYTES_MAX, part, r);
}

static bool read_query(struct api_call *c, enum launch_stream *stream, uint64_t *offset) {
    char text[24];
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
    const struct scheduler *all = a->err == E_OK ? state_scheduler(node_state(c->api->o.node)) : NULL;
    const struct task *t = all == NULL ? NULL : scheduler_find(all, bytes_of(c->arg, c->arg_size));
    if (t == NULL) {
        api_call_error(c,
                       a->err != E_OK ? a->err
                       : all == NULL  ? E_NO_MEMORY
                                      : E_NOT_FOUND,
                       a->err != E_OK ? a->detail : "no such task");
    } else if (!read_query(c, &stream, &offset)) {
        api_call_error(c, E_BAD_REQUEST, "stream is stdout or stderr, offset a number of bytes");
    } else if (t->token == 0) {
        api_call_error(c, E_NOT_FOUND, "it did not run yet");
    } else {
        struct reading *r = mem_new(1, sizeof *r);
        if (r == NULL) {
            api_call_error(c, E_NO_MEMORY, "");
            return;
        }
        *r = (struct reading){.c = c, .where = t->last_node, .token = t->token, .stream = stream, .offset = offset};
        builder_init(&r->text, LOG_BYTES_MAX);
        tasklog_read(c->api->o.tasklog, r->where, r->token, stream, offset, LAUNCHWIRE_PART_BYTES_MAX, part, r);
    }
}

void api_task_logs(struct api_call *c) {
    node_read_barrier(c->api->o.node, find, c);
}
