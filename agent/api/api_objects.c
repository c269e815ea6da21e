/* Configs, policies and data that the core gave, as they are in force on this gateway; the link to the core is not needed for it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/state/holding.h"
#include "platform/now.h"

struct read {
    struct api_call *c;
    enum object_kind kind;
    uint64_t issue;
    uint32_t next;           /* chunk */
    bool asking, came, lost; /* the one before it */
    struct fault fault;      /* why that one could not be read */
    struct builder out;
};

static struct table *rows(const struct api_call *c) {
    return state_table(node_state(c->api->o.node));
}

static struct bytes call_name(const struct api_call *c) {
    return bytes_of(c->arg, c->arg_size);
}

/* --- one ------------------------------------------------------------------------------------------------------------------------------ */

/* Takes r. */
static void give_up(struct read *r, enum grey_error err, const char *detail) {
    api_call_error(r->c, err, detail);
    builder_free(&r->out);
    mem_free(r);
}

static void send_object(struct read *r, const struct holding *h) {
    char etag[32], issue[24], type[OBJECT_TYPE_BYTES_MAX + 1] = "application/octet-stream";
    (void)snprintf(etag, sizeof etag, "\"%" PRIu64 "\"", h->force.version);
    (void)snprintf(issue, sizeof issue, "%" PRIu64, h->force.issue);
    if (h->force.content_type.size > 0) {
        memcpy(type, h->force.content_type.data, h->force.content_type.size);
        type[h->force.content_type.size] = 0;
    }
    struct http_extra extra[] = {{"ETag", etag}, {"X-Grey-Issue", issue}};
    http_reply(r->c->q, 200, type, builder_bytes(&r->out), extra, 2);
    builder_free(&r->out);
    mem_free(r->c);
    mem_free(r);
}

static void read_on(struct read *r);

static void chunk_read(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct read *r = context;
    struct bytes content = payload == NULL ? bytes_of(NULL, 0) : holding_content(blob_bytes(payload));
    builder_add(&r->out, content);
    r->came = true;
    r->lost = content.size == 0;
    (void)fault_set(&r->fault, err == E_NOT_FOUND ? E_OK : err, "%s", detail);
    if (!r->asking) {
        read_on(r);
    }
}

/* Chunks in memory come at once, others when the storage thread has read them. */
static void read_on(struct read *r) {
    struct api_call *c = r->c;
    struct holding h;
    while (r->came) {
        if (!holding_find(rows(c), r->kind, call_name(c), &h) || h.force.version == 0) {
            give_up(r, E_NOT_FOUND, "the core has not given this to the site");
            return;
        }
        if (r->fault.code != E_OK) {
            give_up(r, r->fault.code, r->fault.text);
            return;
        }
        if (r->lost || (r->issue != 0 && r->issue != h.force.issue)) {
            give_up(r, E_BUSY, "the object changed while it was read; repeat");
            return;
        }
        if (r->out.err != E_OK) {
            give_up(r, r->out.err, "");
            return;
        }
        if (r->next == object_chunk_count(&h.force)) {
            send_object(r, &h);
            return;
        }
        r->issue = h.force.issue;
        r->came = false;
        r->asking = true;
        node_payload(c->api->o.node, holding_chunk(rows(c), object_hash(&h.force, r->next++)), chunk_read, r);
        r->asking = false;
    }
}

static void get_one(struct api_call *c, enum object_kind kind) {
    struct read *r = mem_new(1, sizeof *r);
    if (r == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    r->c = c;
    r->kind = kind;
    r->came = true;
    builder_init(&r->out, OBJECT_BYTES_MAX);
    read_on(r);
}

void api_config_get(struct api_call *c) {
    get_one(c, OBJECT_CONFIG);
}

void api_policy_get(struct api_call *c) {
    get_one(c, OBJECT_POLICY);
}

void api_data_get(struct api_call *c) {
    get_one(c, OBJECT_DATA);
}

/* --- lists ---------------------------------------------------------------------------------------------------------------------------- */

/* Versions that come, and how much of them is here. */
void api_coming_put(struct api_call *c, struct json_writer *w, const struct object_manifest *m) {
    uint32_t count = object_chunk_count(m), missing = 0;
    for (uint32_t i = holding_missing(rows(c), m, 0); i < count; i = holding_missing(rows(c), m, i + 1)) {
        missing++;
    }
    json_member_open(w, "coming", '{');
    json_member_uint(w, "version", m->version);
    json_member_uint(w, "bytes", m->size);
    json_member_uint(w, "chunks", count);
    json_member_uint(w, "missing", missing);
    json_close(w);
}

static void list(struct api_call *c, enum object_kind kind) {
    struct api_answer a;
    struct bytes key = {0};
    struct holding h;
    api_answer_begin(&a);
    json_open(&a.w, '[');
    while (holding_next(rows(c), key, &key, &h)) {
        const struct object_manifest *any = h.force.version > 0 ? &h.force : &h.coming;
        if (any->kind != kind) {
            continue;
        }
        json_open(&a.w, '{');
        json_member_text(&a.w, "name", any->name);
        if (h.force.version > 0) {
            char since[32];
            now_format(h.since_ms, since);
            json_member_uint(&a.w, "version", h.force.version);
            json_member_uint(&a.w, "issue", h.force.issue);
            json_member_uint(&a.w, "bytes", h.force.size);
            json_member_str(&a.w, "since", since);
            json_member_str(&a.w, "health", supply_health_name(h.health));
        }
        if (h.coming.version > 0) {
            api_coming_put(c, &a.w, &h.coming);
        }
        json_close(&a.w);
    }
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_config_list(struct api_call *c) {
    list(c, OBJECT_CONFIG);
}

void api_policy_list(struct api_call *c) {
    list(c, OBJECT_POLICY);
}

void api_data_list(struct api_call *c) {
    list(c, OBJECT_DATA);
}

/* --- how it does -------------------------------------------------------------------------------------------------------------------------- */

/* {"issue":N,"health":"healthy"|"failed"} by who uses the object: the core takes a version back that fails. */
static void say(struct api_call *c, enum object_kind kind) {
    struct fault f = {0};
    struct holding h;
    json_t *body = json_read(http_body(c->q), &f);
    const char *word = json_string_value(json_object_get(body, "health"));
    json_int_t issue = json_integer_value(json_object_get(body, "issue"));
    bool good = word != NULL && strcmp(word, "healthy") == 0, bad = word != NULL && strcmp(word, "failed") == 0;
    json_decref(body);
    if (body == NULL || (!good && !bad) || issue < 0) {
        api_call_error(c, E_BAD_REQUEST,
                       "expected {\"health\":\"healthy\"} or {\"health\":\"failed\"}, with the issue it is about");
        return;
    }
    if (!holding_find(rows(c), kind, call_name(c), &h) || h.force.version == 0) {
        api_call_error(c, E_NOT_FOUND, "the core has not given this to the site");
        return;
    }
    struct builder b;
    builder_init(&b, 512 + API_ORIGIN_BYTES_MAX);
    api_origin_put(c, &b);
    payload_health(&b, kind, call_name(c), issue > 0 ? (uint64_t)issue : h.force.issue, good ? SUPPLY_HEALTHY : SUPPLY_FAILED);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    node_propose(c->api->o.node, ENTRY_OBJECT, payload, true, api_done, c);
    blob_unref(payload);
}

void api_config_health(struct api_call *c) {
    say(c, OBJECT_CONFIG);
}

void api_policy_health(struct api_call *c) {
    say(c, OBJECT_POLICY);
}

void api_data_health(struct api_call *c) {
    say(c, OBJECT_DATA);
}
