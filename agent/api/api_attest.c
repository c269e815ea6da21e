/* How far the gateways of the site may be trusted, as this one judges (agent/state/standing.h). */
#include "agent/api/api_core.h"
#include "platform/metrics.h"
#include "platform/now.h"

static struct metric expiry = METRIC_GAUGE("grey_attestation_expiry_seconds",
                                           "How long this gateway's attestation result is still good; -1: it has none that is.");

void api_attest_start(void) {
    metrics_register(&expiry);
    metrics_set(&expiry, 0, -1);
}

static bool own(const struct api *a, struct api_attest_facts *out) {
    *out = (struct api_attest_facts){.detail = ""};
    return a->o.attest != NULL && a->o.attest->facts(a->o.attest_context, out);
}

static const struct standing_of *of(const struct api *a, raft_id id) {
    return standing_find(node_standings(a->o.node), id);
}

void api_attest_metrics(const struct api *a) {
    struct api_attest_facts f;
    int64_t now_s = now_wall_ms() / 1000;
    metrics_set(&expiry, 0, own(a, &f) && f.until_s > now_s ? f.until_s - now_s : -1);
}

/* The words of the API: what is over is as good as refused, and before the first word a gateway of a site that attests is pending. */
const char *api_attest_word(const struct api *a, raft_id id) {
    struct api_attest_facts f;
    const struct standing_of *s = of(a, id);
    switch (s == NULL ? STANDING_NONE : s->standing) {
    case STANDING_TRUSTED:
        return "trusted";
    case STANDING_FAILED:
    case STANDING_EXPIRED:
        return "failed";
    case STANDING_PENDING:
        return "pending";
    case STANDING_NONE:
        break;
    }
    return own(a, &f) ? "pending" : "none";
}

bool api_attest_quarantined(const struct api *a, raft_id id) {
    const struct standing_of *s = of(a, id);
    return s != NULL && s->quarantined;
}

static void put_time(struct json_writer *w, const char *name, int64_t unix_s) {
    char text[32];
    json_key(w, name);
    if (unix_s == 0) {
        json_none(w);
        return;
    }
    now_format(unix_s * 1000, text);
    json_str(w, text);
}

static void put_why(struct json_writer *w, enum grey_error why, const char *detail) {
    json_key(w, "why");
    if (why == E_OK) {
        json_none(w);
        return;
    }
    json_open(w, '{');
    json_member_uint(w, "error", (uint64_t)error_id(why));
    json_member_str(w, "sentence", error_sentence(why));
    json_member_str(w, "detail", detail);
    json_member_str(w, "remedy", error_remedy(why));
    json_close(w);
}

static void put_member(const struct api *a, struct json_writer *w, const struct raft_member *m) {
    static const struct standing_of nothing;
    const struct standing_of *s = of(a, m->id);
    s = s == NULL ? &nothing : s;
    bool known = s->until_s != 0;
    json_open(w, '{');
    json_member_str(w, "id", m->node.text);
    json_member_str(w, "attestation", api_attest_word(a, m->id));
    json_member_str(w, "standing", standing_name(s->standing));
    json_member_bool(w, "quarantined", s->quarantined);
    json_member_bool(w, "votes", m->voter);
    json_key(w, "type");
    known ? json_str(w, attest_type_name(s->type)) : json_none(w);
    json_key(w, "status");
    known ? json_uint(w, s->status) : json_none(w);
    json_key(w, "policy_serial");
    known ? json_uint(w, s->policy_serial) : json_none(w);
    put_time(w, "from", s->from_s);
    put_time(w, "until", s->until_s);
    put_why(w, s->why, s->detail);
    json_close(w);
}

/* Members of the answer; the caller has opened the object. */
void api_attest_put(const struct api *a, struct json_writer *w) {
    struct api_attest_facts f;
    struct raft_status s;
    bool enabled = own(a, &f);
    node_raft_status(a->o.node, &s);
    json_member_bool(w, "enabled", enabled);
    json_member_open(w, "members", '[');
    for (uint32_t i = 0; i < s.members->count; i++) {
        put_member(a, w, &s.members->at[i]);
    }
    json_close(w);
    json_key(w, "self"); /* what this gateway heard itself, in the log or not */
    if (!enabled) {
        json_none(w);
        return;
    }
    json_open(w, '{');
    json_member_str(w, "state", f.state);
    json_member_str(w, "type", f.type);
    put_time(w, "from", f.from_s);
    put_time(w, "until", f.until_s);
    put_why(w, f.why, f.detail);
    json_close(w);
}

void api_attest_get(struct api_call *c) {
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    api_attest_put(c->api, &a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_attest_now(struct api_call *c) {
    if (c->api->o.attest == NULL) {
        api_call_error(c, E_NOT_FOUND, "attestation is off here (attestation.enabled)");
        return;
    }
    api_note(c);
    c->api->o.attest->now(c->api->o.attest_context);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", "asked");
    json_close(&a.w);
    api_answer_send(&a, c, 202, NULL, 0);
}

void api_attest_health(const struct api *a, struct json_writer *w) {
    struct api_attest_facts f;
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    bool enabled = own(a, &f);
    json_open(w, '{');
    json_member_str(w, "status", enabled ? api_attest_word(a, s.self) : "none");
    json_member_bool(w, "quarantined", api_attest_quarantined(a, s.self));
    put_time(w, "until", f.until_s);
    json_close(w);
}
