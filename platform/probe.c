#include "platform/probe.h"

#include <stdio.h>
#include <string.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"

#define BUFFER_BYTES 4096u

static void keep_counts(struct probe *p) {
    struct conn_count c = conn_counted(p->conn);
    p->count.in_bytes += c.in_bytes;
    p->count.out_bytes += c.out_bytes;
    conn_wire_add(&p->wire, p->conn);
}

static void over(struct probe *p, bool good, const char *why) {
    keep_counts(p);
    p->conn = NULL;
    p->done(p->context, good, why);
}

static void on_open(void *context, struct conn *c) {
    over(context, true, "");
    conn_close(c);
}

static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    (void)context, (void)c;
    return in.size;
}

static void on_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    char text[280];
    (void)c;
    (void)snprintf(text, sizeof text, "%s: %.200s", error_sentence(why), detail);
    over(context, false, text);
}

static const struct conn_events events = {.on_open = on_open, .on_bytes = on_bytes, .on_closed = on_closed};

void probe_begin(struct probe *p, const struct conn_context *x, const char *address, const struct conn_options *o,
                 void (*done)(void *context, bool good, const char *why), void *context) {
    struct fault f = {0};
    char host[LIMIT_ADDRESS_BYTES + 1];
    struct conn_options mine = *o;
    must(p->conn == NULL);
    (void)snprintf(host, sizeof host, "%.*s", (int)strcspn(address, ":"), address);
    p->done = done;
    p->context = context;
    mine.expected_host = host;
    mine.input_limit_bytes = mine.output_limit_bytes = BUFFER_BYTES;
    mine.events = &events;
    mine.context = p;
    p->conn = conn_dial(x, address, &mine, &f);
    if (p->conn == NULL) {
        done(context, false, f.text);
    }
}

void probe_end(struct probe *p) {
    if (p->conn != NULL) {
        keep_counts(p);
        conn_close(p->conn);
        p->conn = NULL;
    }
}
