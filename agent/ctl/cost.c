/* What the link to the core may carry and who spent its bytes, and whether an event gets through. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/ctl/verbs.h"

#define PROBE_PAUSE_NS (100u * 1000u * 1000u)
#define PROBE_SECONDS_MAX 3600u

static const char *const features[] = {"control", "events",     "data",    "attestation", "traces",
                                       "logs",    "handshakes", "resends", "session",     "total"};

/* --- the leader's answer ---------------------------------------------------------------------------------------------------------------- */

struct view {
    json_t *doc; /* /v1/federation/status */
    struct builder raw;
    bool of_leader; /* it is the answer of the node that holds the link */
};

static void view_free(struct view *v) {
    json_decref(v->doc);
    builder_free(&v->raw);
}

static int view_take(struct call *c, struct view *v) {
    *v = (struct view){0};
    builder_init(&v->raw, CLIENT_ANSWER_BYTES_MAX);
    int code = client_get(&c->client, CLIENT_NODE, "/v1/federation/status", &v->doc, &v->raw, &c->problem);
    if (code == CTL_OK && !json_is_true(json_object_get(v->doc, "enabled"))) {
        code = client_problem_set(&c->problem, CTL_REFUSED, "this site has no core", "set federation.enabled and its endpoints",
                                  "the node that was asked has no link configured");
    }
    v->of_leader = code == CTL_OK && strcmp(verbs_text(v->doc, "link_of"), verbs_text(v->doc, "owner")) == 0;
    return code;
}

static void say_elsewhere(const struct view *v, struct builder *out) {
    if (!v->of_leader) {
        builder_addf(out, "node %.64s leads and holds the link: ask it (--addr) for what the link carries now\n",
                     verbs_text(v->doc, "owner"));
    }
}

/* --- limits ------------------------------------------------------------------------------------------------------------------------------- */

static const char *rate_text(uint64_t bytes_per_s, char text[RENDER_SHORT]) {
    if (bytes_per_s == 0) {
        (void)snprintf(text, RENDER_SHORT, "no limit");
    } else {
        (void)snprintf(text, RENDER_SHORT, "%.3f Mbit/s", (double)bytes_per_s * 8 / 1e6);
    }
    return text;
}

void cost_put_limits(const json_t *federation, struct builder *out) {
    const json_t *bandwidth = json_object_get(federation, "bandwidth"), *one;
    char up[RENDER_SHORT], down[RENDER_SHORT];
    size_t i;
    builder_addf(out, "limits: up %s, down %s\n", rate_text(verbs_uint(bandwidth, "limit_bytes_per_second"), up),
                 rate_text(verbs_uint(bandwidth, "down_limit_bytes_per_second"), down));
    json_array_foreach(json_object_get(bandwidth, "held"), i, one) {
        builder_add_str(out, i == 0 ? "held back by a window or a spent budget: " : ", ");
        render_text(out, bytes_str(json_string_value(one)));
    }
    builder_add_str(out, i > 0 ? "; what is critical goes on\n" : "");
}

/* --- budget --------------------------------------------------------------------------------------------------------------------------------- */

static void put_budget(struct builder *out, const char *name, const json_t *budget, uint64_t reserve_percent) {
    char used[RENDER_SHORT], whole[RENDER_SHORT];
    uint64_t bytes = verbs_uint(budget, "bytes"), used_bytes = verbs_uint(budget, "used_bytes");
    (void)render_size(used_bytes, used);
    if (bytes == 0) {
        builder_addf(out, "%-14s%s used, no budget\n", name, used);
        return;
    }
    bool spent = used_bytes >= bytes - bytes / 100 * reserve_percent;
    builder_addf(out, "%-14s%s of %s used (%.0f%%), %" PRIu64 "%% kept for what is critical%s\n", name, used,
                 render_size(bytes, whole), (double)used_bytes * 100 / (double)bytes, reserve_percent,
                 spent ? "; SPENT: only that goes on" : "");
}

int cost_budget(struct call *c) {
    static const char *const titles[] = {"FEATURE", "UP>", "DOWN>", "SHARE>"};
    struct view v;
    struct builder out;
    struct render_table t;
    char size[RENDER_SHORT];
    int code = view_take(c, &v);
    if (code != CTL_OK) {
        view_free(&v);
        return client_complain(&c->problem);
    }
    const json_t *budget = json_object_get(v.doc, "budget"), *ledger = json_object_get(v.doc, "ledger");
    const json_t *up = json_object_get(ledger, "up"), *down = json_object_get(ledger, "down");
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    if (c->output == OUTPUT_JSON) {
        struct json_writer w;
        json_t *both = json_pack("{s:O,s:O}", "budget", budget, "ledger", ledger);
        char *text = both == NULL ? NULL : json_dumps(both, JSON_COMPACT);
        json_writer_init(&w, &out);
        if (text != NULL) {
            json_raw(&w, bytes_str(text));
        } else {
            json_none(&w);
        }
        free(text);
        json_decref(both);
        view_free(&v);
        return verbs_print(&out);
    }
    uint64_t all = verbs_uint(up, "total") + verbs_uint(down, "total"), reserve = verbs_uint(budget, "reserve_percent");
    say_elsewhere(&v, &out);
    put_budget(&out, "today", json_object_get(budget, "day"), reserve);
    put_budget(&out, "this month", json_object_get(budget, "month"), reserve);
    builder_add_str(&out, "\n");
    render_table_begin(&t, titles, 4);
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        uint64_t sum = verbs_uint(up, features[i]) + verbs_uint(down, features[i]);
        if (sum == 0 && c->output != OUTPUT_WIDE) {
            continue;
        }
        render_cell(&t, features[i]);
        render_cell(&t, render_size(verbs_uint(up, features[i]), size));
        render_cell(&t, render_size(verbs_uint(down, features[i]), size));
        render_cellf(&t, "%.1f%%", all == 0 ? 0 : (double)sum * 100 / (double)all);
    }
    render_table_end(&t, &out);
    builder_add_str(&out, "\non the wire with all headers, since this node leads or started\n");
    view_free(&v);
    return verbs_print(&out);
}

/* --- test ------------------------------------------------------------------------------------------------------------------------------------- */

static double seconds_now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* An event of the highest priority; its number on the channel control. */
static int send_probe(struct call *c, uint64_t *seq) {
    static const char body[] = "{\"type\":\"grey.link.test\",\"priority\":\"critical\",\"data\":{\"by\":\"greyctl\"}}";
    struct client_request q = {.method = "POST", .path = "/v1/events", .body = bytes_str(body), .body_type = "application/json"};
    struct http_answer a;
    int code = client_call(&c->client, &q, &a, &c->problem);
    json_t *doc = code == CTL_OK ? json_read(builder_bytes(&a.body), NULL) : NULL;
    *seq = verbs_uint(json_array_get(json_object_get(doc, "accepted"), 0), "seq");
    json_decref(doc);
    builder_free(&a.body);
    if (code == CTL_OK && *seq == 0) {
        code = client_problem_set(&c->problem, CTL_NO_QUORUM, "the event was only taken provisionally",
                                  "wait until the site has a leader again: greyctl status",
                                  "it has no number yet, so its way to the core cannot be followed");
    }
    return code;
}

int cost_probe(struct call *c) {
    uint64_t seq = 0, patience_s;
    struct builder out;
    double began_s = seconds_now(), taken_s = 0;
    if (!verbs_number(c, "seconds", 1, PROBE_SECONDS_MAX, 60, &patience_s)) {
        return CTL_USAGE;
    }
    struct view v;
    int code = view_take(c, &v);
    view_free(&v);
    code = code == CTL_OK ? send_probe(c, &seq) : code;
    if (code != CTL_OK) {
        return client_complain(&c->problem);
    }
    double kept_s = seconds_now() - began_s;
    while (taken_s == 0 && seconds_now() < began_s + (double)patience_s) {
        json_t *queue;
        const struct timespec pause = {.tv_nsec = PROBE_PAUSE_NS};
        code = client_get(&c->client, CLIENT_NODE, "/v1/queue", &queue, NULL, &c->problem);
        if (code != CTL_OK) {
            return client_complain(&c->problem);
        }
        if (verbs_uint(json_object_get(json_object_get(queue, "channels"), "control"), "acked_seq") >= seq) {
            taken_s = seconds_now() - began_s;
        } else {
            (void)nanosleep(&pause, NULL);
        }
        json_decref(queue);
    }
    if (taken_s == 0) {
        (void)client_problem_set(&c->problem, CTL_FAILED, "the core has not acknowledged the test",
                                 "greyctl link status and greyctl doctor say what is wrong; the event stays in the queue",
                                 "event %" PRIu64
                                 " of channel control was kept by the site and did not reach the core within %" PRIu64 " s",
                                 seq, patience_s);
        return client_complain(&c->problem);
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    if (c->output == OUTPUT_JSON) {
        builder_addf(&out, "{\"seq\":%" PRIu64 ",\"kept_seconds\":%.3f,\"acknowledged_seconds\":%.3f}\n", seq, kept_s, taken_s);
    } else {
        builder_addf(
            &out, "kept by the site after %.2f s, acknowledged by the core after %.2f s (event %" PRIu64 " of channel control)\n",
            kept_s, taken_s, seq);
    }
    return verbs_print(&out);
}
