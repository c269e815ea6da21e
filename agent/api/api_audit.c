/* GET /v1/audit: the log as it stands, with what is needed to verify it: hashes, seals and the keys they were made with. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "federation/origin.h"
#include "federation/record.h"
#include "platform/now.h"

#define ENTRIES_MAX 1000u
#define ENTRIES_USUAL 100u
#define READ_BYTES (1024u * 1024u)
#define TRACES_MAX 8u /* of one entry */

static const char *const kind_names[ENTRY_KIND_COUNT] = {"noop",
                                                         "members",
                                                         "site",
                                                         "clock",
                                                         "kv",
                                                         "events",
                                                         "ack",
                                                         "limits",
                                                         "expire",
                                                         "task",
                                                         "quota",
                                                         "node",
                                                         "object",
                                                         "token",
                                                         "note",
                                                         "verdict",
                                                         [ENTRY_UPDATE] = "update"};

struct audit {
    struct api_call *c;
    raft_index from, to;
    uint32_t limit;
    int kind; /* -1: all */
    struct sitelog_seal seals;
    struct sitelog_read read;
    struct seal *found;
    uint32_t found_count;
    struct sealdb_signer *signers;
    uint32_t signer_count;
    struct raft_point before;
};

static void audit_free(struct audit *q) {
    mem_free(q->found);
    mem_free(q->signers);
    mem_free(q);
}

void api_put_seal(struct json_writer *w, const struct seal *s, const char *node) {
    json_open(w, '{');
    json_member_uint(w, "index", s->index);
    json_member_uint(w, "epoch", s->epoch);
    json_member_id(w, "signer", s->signer);
    json_member_str(w, "node", node);
    json_member_hex(w, "hash", bytes_of(s->hash, sizeof s->hash));
    json_member_hex(w, "signature", bytes_of(s->signature, sizeof s->signature));
    json_close(w);
}

static const char *signer_name(const struct audit *q, raft_id id) {
    for (uint32_t i = 0; i < q->signer_count; i++) {
        if (q->signers[i].id == id) {
            return q->signers[i].node.text;
        }
    }
    return "";
}

/* The first seal at or above the entry. */
static const struct seal *seal_of(const struct audit *q, raft_index index) {
    for (uint32_t i = 0; i < q->found_count; i++) {
        if (q->found[i].index >= index) {
            return &q->found[i];
        }
    }
    return NULL;
}

static void put_key(void *context, enum table_id id, struct bytes key) {
    struct json_writer *w = context;
    if (id == TABLE_KV) {
        json_member_text(w, "key", key);
    }
}

static void put_events(struct json_writer *w, struct bytes payload) {
    struct codec_reader r;
    struct event e;
    struct bytes traces[TRACES_MAX];
    uint32_t trace_count = 0;
    codec_reader_init(&r, payload);
    uint64_t count = codec_array(&r, LIMIT_BATCH_EVENTS);
    json_member_uint(w, "events", count);
    json_member_open(w, "ids", '[');
    for (uint64_t i = 0; i < count && record_decode(&r, &e) == E_OK; i++) {
        json_text(w, e.id);
        bool known = e.traceparent.size == 0 || trace_count == TRACES_MAX;
        for (uint32_t k = 0; k < trace_count && !known; k++) {
            known = bytes_equal(traces[k], e.traceparent);
        }
        if (!known) {
            traces[trace_count++] = e.traceparent;
        }
    }
    json_close(w);
    json_member_open(w, "traces", '[');
    for (uint32_t k = 0; k < trace_count; k++) {
        json_text(w, traces[k]);
    }
    json_close(w);
}

/* Who asked for the entry, and from where: as the gateway that took the call has written it. */
static struct bytes put_origin(struct json_writer *w, struct bytes payload) {
    struct origin o;
    struct bytes rest = origin_skip(payload, &o);
    json_key(w, "by");
    if (o.who.size == 0) {
        json_none(w);
        return rest;
    }
    json_open(w, '{');
    json_member_text(w, "who", o.who);
    json_member_str(w, "role", access_role_name(o.role));
    json_member_text(w, "address", o.address);
    json_member_text(w, "gateway", o.node);
    json_close(w);
    return rest;
}

/* What was asked, in the words of the call. */
static void put_note(struct json_writer *w, struct bytes payload) {
    struct codec_reader r;
    codec_reader_init(&r, payload);
    (void)codec_array(&r, 2);
    struct bytes method = codec_text(&r, 16), path = codec_text(&r, LIMIT_HTTP_HEAD_BYTES);
    json_member_text(w, "method", method);
    json_member_text(w, "path", path);
}

static void put_token(struct json_writer *w, struct bytes payload) {
    struct codec_reader r;
    codec_reader_init(&r, payload);
    (void)codec_array(&r, 3);
    bool revoked = codec_uint(&r, 1) == 1;
    struct bytes id = codec_text(&r, BEARER_ID_BYTES);
    json_member_text(w, "token", id);
    json_member_bool(w, "revoked", revoked);
}

/* What was said of a gateway: "trusted", "failed" with the reason, or "forgotten". */
static void put_verdict(struct json_writer *w, struct bytes payload) {
    struct verdicts_word v;
    if (!verdicts_read(payload, &v)) {
        return;
    }
    json_member_text(w, "node", v.node);
    json_member_str(w, "verdict", v.forgets ? "forgotten" : v.refused ? "failed" : "trusted");
    if (v.refused) {
        json_member_uint(w, "error", v.number);
        json_member_text(w, "detail", v.detail);
    }
}

static void put_entry(const struct audit *q, struct json_writer *w, const struct entry *e) {
    const struct seal *s = seal_of(q, e->index);
    char time_text[32];
    json_open(w, '{');
    json_member_uint(w, "index", e->index);
    json_member_uint(w, "term", e->term);
    json_member_uint(w, "epoch", e->epoch);
    now_format(e->time_ms, time_text);
    json_member_str(w, "time", time_text);
    json_member_int(w, "time_ms", e->time_ms);
    json_member_str(w, "type", kind_names[e->kind]);
    json_member_uint(w, "kind", e->kind);
    json_member_uint(w, "schema", e->schema);
    json_member_uint(w, "size", blob_bytes(e->payload).size);
    json_member_hex(w, "digest", bytes_of(e->digest, DIGEST_BYTES));
    json_member_hex(w, "hash", bytes_of(e->hash, DIGEST_BYTES));
    json_key(w, "proposer"); /* the leader of its epoch; one that fell before it sealed is not known from here */
    if (s != NULL && s->epoch == e->epoch) {
        json_str(w, signer_name(q, s->signer));
    } else {
        json_none(w);
    }
    json_key(w, "sealed_at");
    if (s != NULL) {
        json_uint(w, s->index);
    } else {
        json_none(w);
    }
    struct bytes rest = put_origin(w, e->kind == ENTRY_EVENTS ? bytes_of(NULL, 0) : blob_bytes(e->payload));
    if (e->kind == ENTRY_EVENTS) {
        put_events(w, blob_bytes(e->payload));
    } else if (e->kind == ENTRY_NOTE) {
        put_note(w, rest);
    } else if (e->kind == ENTRY_VERDICT) {
        put_verdict(w, rest);
    } else if (e->kind == ENTRY_TOKEN) {
        put_token(w, rest);
    } else if (e->kind == ENTRY_KV) {
        state_wants(e, put_key, w);
    }
    json_close(w);
}

static void answer(struct audit *q, const struct sitelog_read *read) {
    struct api_answer a;
    struct api_call *c = q->c;
    struct raft_status status;
    raft_index last = q->from - 1;
    uint32_t shown = 0;
    node_raft_status(c->api->o.node, &status);
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "site", node_site(c->api->o.node));
    json_member_id(&a.w, "cluster_id", node_cluster_id(c->api->o.node));
    json_member_uint(&a.w, "first_index", status.base_index + 1);
    json_member_uint(&a.w, "last_index", node_applied(c->api->o.node));
    json_member_hex(&a.w, "previous_hash", bytes_of(q->before.hash, DIGEST_BYTES)); /* of the entry before `from` */
    json_member_open(&a.w, "entries", '[');
    for (uint32_t i = 0; i < read->entry_count && shown < q->limit && a.out.size < API_ANSWER_BYTES_MAX / 2; i++) {
        last = read->entries[i].index;
        if (read->entries[i].kind < ENTRY_KIND_COUNT && kind_names[read->entries[i].kind] != NULL &&
            (q->kind < 0 || q->kind == read->entries[i].kind)) {
            put_entry(q, &a.w, &read->entries[i]);
            shown++;
        }
    }
    json_close(&a.w);
    json_member_open(&a.w, "seals", '[');
    for (uint32_t i = 0; i < q->found_count; i++) {
        api_put_seal(&a.w, &q->found[i], signer_name(q, q->found[i].signer));
        if (q->found[i].index >= last) {
            break;
        }
    }
    json_close(&a.w);
    json_member_open(&a.w, "signers", '[');
    for (uint32_t i = 0; i < q->signer_count; i++) {
        json_open(&a.w, '{');
        json_member_id(&a.w, "id", q->signers[i].id);
        json_member_str(&a.w, "node", q->signers[i].node.text);
        json_member_hex(&a.w, "public_key", bytes_of(q->signers[i].public_key, KEYS_ED25519_PUBLIC_BYTES));
        json_close(&a.w);
    }
    json_close(&a.w);
    json_key(&a.w, "next");
    if (last < q->to) {
        json_uint(&a.w, last + 1);
    } else {
        json_none(&a.w);
    }
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

static void entries_read(void *context, struct sitelog_read *read) {
    struct audit *q = context;
    if (read->err != E_OK) {
        api_call_error(q->c, read->err, read->fault.text);
    } else {
        answer(q, read);
    }
    audit_free(q);
}

static void seals_read(void *context, struct sitelog_seal *job) {
    struct audit *q = context;
    enum grey_error err = job->err;
    q->found = job->seals;
    q->found_count = job->seal_count;
    q->signers = job->signers;
    q->signer_count = job->signer_count;
    q->before = job->before;
    if (err == E_OK) {
        q->read = (struct sitelog_read){
            .kind = SITELOG_ENTRIES, .from = q->from, .to = q->to, .bytes_max = READ_BYTES, .done = entries_read, .context = q};
        err = sitelog_read(node_log(q->c->api->o.node), &q->read);
    }
    if (err != E_OK) {
        api_call_error(q->c, err, job->fault.text);
        audit_free(q);
    }
}

/* False: refused. */
static bool number(struct api_call *c, const char *name, uint64_t min, uint64_t max, uint64_t fallback, uint64_t *out) {
    char text[32], *end, detail[120];
    *out = fallback;
    if (!http_query(c->q, name, text, sizeof text)) {
        return true;
    }
    *out = strtoull(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && *end == 0 && *out >= min && *out <= max) {
        return true;
    }
    (void)snprintf(detail, sizeof detail, "%s: a number from %" PRIu64 " to %" PRIu64 " is expected", name, min, max);
    api_call_error(c, E_BAD_REQUEST, detail);
    return false;
}

static bool kind_asked(struct api_call *c, int *kind) {
    char text[32];
    *kind = -1;
    if (!http_query(c->q, "type", text, sizeof text)) {
        return true;
    }
    for (int i = 0; i < ENTRY_KIND_COUNT; i++) {
        if (kind_names[i] != NULL && strcmp(text, kind_names[i]) == 0) {
            *kind = i;
            return true;
        }
    }
    api_call_error(
        c, E_BAD_REQUEST,
        "type: noop, members, site, clock, kv, events, ack, limits, expire, task, quota, node, token, note or update is expected");
    return false;
}

void api_audit(struct api_call *c) {
    struct raft_status s;
    node_raft_status(c->api->o.node, &s);
    raft_index first = s.base_index + 1, last = node_applied(c->api->o.node);
    uint64_t limit;
    struct audit ask = {.c = c};
    if (!number(c, "from", 1, INT64_MAX, first, &ask.from) || !number(c, "to", 1, INT64_MAX, last, &ask.to) ||
        !number(c, "limit", 1, ENTRIES_MAX, ENTRIES_USUAL, &limit) || !kind_asked(c, &ask.kind)) {
        return;
    }
    if (ask.from < first || ask.from > last || ask.to < ask.from) {
        char detail[160];
        (void)snprintf(detail, sizeof detail,
                       "this gateway has entries %" PRIu64 " to %" PRIu64 "; what is older is in snapshots only", first, last);
        api_call_error(c, ask.from < first || ask.from > last ? E_NOT_FOUND : E_BAD_REQUEST, detail);
        return;
    }
    ask.to = ask.to < last ? ask.to : last;
    ask.limit = (uint32_t)limit;
    struct audit *q = mem_new(1, sizeof *q);
    if (q == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    *q = ask;
    q->seals = (struct sitelog_seal){.kind = SITELOG_SEAL_LIST, .from = q->from, .to = q->to, .done = seals_read, .context = q};
    enum grey_error err = sitelog_seal(node_log(c->api->o.node), &q->seals);
    if (err != E_OK) {
        api_call_error(c, err, "");
        audit_free(q);
    }
}
