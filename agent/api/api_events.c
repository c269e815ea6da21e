#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/state/intake.h"
#include "include/grey/must.h"
#include "platform/now.h"

struct post {
    struct api_call *c;
    struct intake_result result;
};

static void post_free(struct post *p) {
    intake_result_free(&p->result);
    mem_free(p);
}

/* Names one event of a batch that this gateway keeps. */
static void put_receipt(struct json_writer *w, const struct api_call *c, uint64_t receipt, uint32_t element) {
    struct raft_status s;
    char text[64];
    node_raft_status(c->api->o.node, &s);
    (void)snprintf(text, sizeof text, "%016" PRIx64 "-%" PRIu64 "-%" PRIu32, s.self, receipt, element);
    json_member_str(w, "receipt", text);
}

static void put_no_numbers(struct json_writer *w) {
    static const char *const names[] = {"channel", "seq", "index"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_key(w, names[i]);
        json_none(w);
    }
}

static void kept(struct post *p, uint64_t receipt) {
    struct api_answer out;
    api_answer_begin(&out);
    json_open(&out.w, '{');
    json_member_open(&out.w, "accepted", '[');
    for (uint32_t i = 0; i < p->result.count; i++) {
        struct bytes id;
        json_open(&out.w, '{');
        json_member_text(&out.w, "id", intake_id(&p->result, i, &id) ? id : bytes_of(NULL, 0));
        put_no_numbers(&out.w);
        put_receipt(&out.w, p->c, receipt, i);
        json_close(&out.w);
    }
    json_close(&out.w);
    json_member_bool(&out.w, "provisional", true);
    json_close(&out.w);
    api_answer_send(&out, p->c, 202, NULL, 0);
    post_free(p);
}

static void accepted(void *context, const struct node_answer *a) {
    struct post *p = context;
    struct api_call *c = p->c;
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
        post_free(p);
        return;
    }
    if (a->receipt > 0) {
        kept(p, a->receipt);
        return;
    }
    struct answer_event *events = mem_new(p->result.count, sizeof *events);
    size_t count = events == NULL ? 0 : answer_events(a->answer, events, p->result.count);
    if (count != p->result.count) {
        api_call_error(c, E_OUTCOME_UNKNOWN,
                       events == NULL ? "the events are kept, and no memory was left to say under which numbers"
                                      : "the events are kept; the leader's answer cannot be read");
        mem_free(events);
        post_free(p);
        return;
    }
    struct api_answer out;
    bool all_duplicates = true;
    api_answer_begin(&out);
    json_open(&out.w, '{');
    json_member_open(&out.w, "accepted", '[');
    for (uint32_t i = 0; i < count; i++) {
        struct bytes id;
        json_open(&out.w, '{');
        json_member_text(&out.w, "id", intake_id(&p->result, i, &id) ? id : bytes_of(NULL, 0));
        json_member_str(&out.w, "channel", event_channel_name(events[i].channel));
        json_member_uint(&out.w, "seq", events[i].seq);
        json_member_uint(&out.w, "index", events[i].index);
        if (events[i].duplicate) {
            json_member_bool(&out.w, "duplicate", true);
        }
        all_duplicates = all_duplicates && events[i].duplicate;
        json_close(&out.w);
    }
    json_close(&out.w);
    json_member_bool(&out.w, "provisional", false);
    json_close(&out.w);
    char epoch[24];
    (void)snprintf(epoch, sizeof epoch, "%" PRIu64, a->epoch);
    struct http_extra extra[] = {{"X-Grey-Leader", node_leader_name(c->api->o.node)}, {"X-Grey-Epoch", epoch}};
    api_answer_send(&out, c, all_duplicates ? 200 : 201, extra, 2);
    mem_free(events);
    post_free(p);
}

void api_events_post(struct api_call *c) {
    struct post *p = mem_new(1, sizeof *p);
    if (p == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    p->c = c;
    struct intake_options o = {.default_source = c->api->source,
                               .default_priority = c->api->o.default_priority,
                               .id_seed = c->api->id_seed++,
                               .traceparent = http_header(c->q, "traceparent")};
    struct builder b;
    struct fault f = {0};
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    enum grey_error err = intake_json(http_body(c->q), http_header(c->q, "Content-Type"), &o, &b, &p->result, &f);
    struct blob *payload = err == E_OK ? builder_blob(&b) : NULL;
    builder_free(&b);
    if (payload == NULL) {
        api_call_error(c, err != E_OK ? err : E_NO_MEMORY, f.text);
        post_free(p);
        return;
    }
    bool urgent = p->result.most_urgent == PRIORITY_CRITICAL;
    node_propose(c->api->o.node, ENTRY_EVENTS, payload, urgent, accepted, p);
    blob_unref(payload);
}

/* --- one event by its id ---------------------------------------------------------------------------------------------------------------- */

#define SOURCE_TEXT_BYTES 2048u /* as it comes: each byte may be a %XX */

/* An id is remembered together with its source only, so it is not found by itself.  False: none was given, and what came without one is
 * looked for. */
static bool event_source(const struct api_call *c, char *source, size_t size) {
    bool given = http_query(c->q, "source", source, size);
    if (!given) {
        (void)snprintf(source, size, "%s", c->api->source);
    }
    return given;
}

static void found(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    char source[SOURCE_TEXT_BYTES];
    struct answer_event e;
    bool given = event_source(c, source, sizeof source);
    struct bytes id = bytes_of(c->arg, c->arg_size);
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
        return;
    }
    if (state_dedup(node_state(c->api->o.node), bytes_str(source), id, &e) != TABLE_FOUND) {
        api_call_error(c, E_NOT_FOUND,
                       given ? "no event of this source and id is remembered; what came without an id never is"
                             : "no event of this id came without a source: if it had one, ask with ?source=SOURCE");
        return;
    }
    struct api_answer out;
    api_answer_begin(&out);
    json_open(&out.w, '{');
    json_member_text(&out.w, "id", id);
    json_member_str(&out.w, "source", source);
    json_member_str(&out.w, "channel", event_channel_name(e.channel));
    json_member_uint(&out.w, "seq", e.seq);
    json_member_uint(&out.w, "index", e.index);
    struct channel_facts facts;
    state_channel(node_state(c->api->o.node), e.channel, &facts);
    json_member_bool(&out.w, "acknowledged", e.seq <= facts.acked_seq);
    json_member_bool(&out.w, "provisional", false);
    json_close(&out.w);
    api_answer_send(&out, c, 200, NULL, 0);
}

static void want_row(void *context, enum table_id id, struct bytes key) {
    sitelog_want(context, id, key);
}

static void fetch_row(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    char source[SOURCE_TEXT_BYTES];
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
        return;
    }
    (void)event_source(c, source, sizeof source);
    struct builder wants;
    builder_init(&wants, 4096);
    state_dedup_wants(bytes_str(source), bytes_of(c->arg, c->arg_size), want_row, &wants);
    node_fetch_rows(c->api->o.node, &wants, found, c);
}

static void searched(void *context, uint64_t receipt, uint32_t element) {
    struct api_call *c = context;
    char source[SOURCE_TEXT_BYTES];
    if (receipt == 0) {
        node_read_barrier(c->api->o.node, fetch_row, c);
        return;
    }
    struct api_answer out;
    (void)event_source(c, source, sizeof source);
    api_answer_begin(&out);
    json_open(&out.w, '{');
    json_member_text(&out.w, "id", bytes_of(c->arg, c->arg_size));
    json_member_str(&out.w, "source", source);
    put_no_numbers(&out.w);
    put_receipt(&out.w, c, receipt, element);
    json_member_bool(&out.w, "provisional", true);
    json_close(&out.w);
    api_answer_send(&out, c, 200, NULL, 0);
}

void api_events_get(struct api_call *c) {
    char source[SOURCE_TEXT_BYTES];
    (void)event_source(c, source, sizeof source);
    if (strlen(source) > LIMIT_EVENT_FIELD_BYTES) {
        api_call_error(c, E_BAD_REQUEST, "source: at most 256 bytes are expected");
        return;
    }
    node_provisional_find(c->api->o.node, bytes_str(source), bytes_of(c->arg, c->arg_size), searched, c);
}

/* --- the queue -------------------------------------------------------------------------------------------------------------------------- */

void api_queue_get(struct api_call *c) {
    struct node *n = c->api->o.node;
    struct api_answer out;
    api_answer_begin(&out);
    json_open(&out.w, '{');
    json_member_open(&out.w, "channels", '{');
    uint64_t bytes = 0;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(node_state(n), (enum event_channel)i, &f);
        bytes += f.pending_bytes;
        json_member_open(&out.w, event_channel_name((enum event_channel)i), '{');
        json_member_uint(&out.w, "next_seq", f.next_seq);
        json_member_uint(&out.w, "acked_seq", f.acked_seq);
        json_member_uint(&out.w, "pending", f.pending_count);
        json_member_uint(&out.w, "bytes", f.pending_bytes);
        json_key(&out.w, "oldest_seconds");
        int64_t age_ms = f.oldest_time_ms == 0 ? 0 : node_site_time_ms(n) - f.oldest_time_ms;
        json_milli(&out.w, age_ms > 0 ? age_ms : 0);
        json_member_uint(&out.w, "gaps", f.gap_ranges);
        json_member_uint(&out.w, "gap_events", f.gap_events);
        json_member_uint(&out.w, "gap_bytes", f.gap_bytes);
        json_member_uint(&out.w, "expired_events", f.expired_events);
        json_member_uint(&out.w, "expired_bytes", f.expired_bytes);
        json_close(&out.w);
    }
    json_close(&out.w);
    uint64_t kept_events, kept_bytes;
    node_provisional_facts(n, &kept_events, &kept_bytes);
    json_key(&out.w, "provisional"); /* on this gateway, until the site has a leader */
    json_open(&out.w, '{');
    json_member_uint(&out.w, "pending", kept_events);
    json_member_uint(&out.w, "bytes", kept_bytes);
    json_close(&out.w);
    json_member_uint(&out.w, "bytes", bytes);
    json_member_uint(&out.w, "limit_bytes", state_limits(node_state(n))->bytes_max);
    json_member_bool(&out.w, "overdue", node_overdue(n));
    json_close(&out.w);
    api_answer_send(&out, c, 200, NULL, 0);
}
