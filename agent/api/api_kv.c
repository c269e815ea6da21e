#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "include/grey/must.h"
#include "platform/metrics.h"

#define WATCH_MS 55000u /* a long poll ends before usual proxies cut it */
#define LIST_DEFAULT 1000u
#define LIST_MAX 10000u

static struct metric watchers_gauge = METRIC_GAUGE("grey_kv_watchers", "Requests that wait for a key to change.");

/* "12" or 12 as a version; false: not one. */
static bool parse_version(struct bytes text, raft_index *version) {
    if (text.size >= 2 && text.data[0] == '"' && text.data[text.size - 1] == '"') {
        text = bytes_of(text.data + 1, text.size - 2);
    }
    *version = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || *version > UINT64_MAX / 10 - 1) {
            return false;
        }
        *version = *version * 10 + (raft_index)(text.data[i] - '0');
    }
    return text.size > 0;
}

static struct bytes call_key(const struct api_call *c) {
    return bytes_of(c->arg, c->arg_size);
}

/* --- put and delete ------------------------------------------------------------------------------------------------------------------- */

static void written(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    raft_index version = 0;
    bool existed = false;
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
        return;
    }
    if (!answer_kv(a->answer, &version, &existed)) {
        api_call_error(c, E_OUTCOME_UNKNOWN, "it is done; the leader's answer cannot be read");
        return;
    }
    bool put = http_method(c->q)[0] == 'P';
    char etag[32], body[64], epoch[24];
    (void)snprintf(etag, sizeof etag, "\"%" PRIu64 "\"", version);
    int size = snprintf(body, sizeof body, "{\"version\":%" PRIu64 ",\"existed\":%s}\n", version, existed ? "true" : "false");
    (void)snprintf(epoch, sizeof epoch, "%" PRIu64, a->epoch);
    struct http_extra extra[] = {{"X-Grey-Leader", node_leader_name(c->api->o.node)}, {"X-Grey-Epoch", epoch}, {"ETag", etag}};
    http_reply(c->q, put && !existed ? 201 : 200, "application/json", bytes_of(body, (size_t)size), extra, put ? 3 : 2);
    mem_free(c);
}

static void write_key(struct api_call *c, bool is_delete) {
    struct bytes if_match = http_header(c->q, "If-Match"), if_none = http_header(c->q, "If-None-Match");
    struct bytes type = http_header(c->q, "Content-Type"), value = http_body(c->q);
    enum kv_condition condition = KV_ALWAYS;
    raft_index version = 0;
    if (c->arg_size == 0) {
        api_call_error(c, E_BAD_REQUEST, "the key is empty");
        return;
    }
    if (value.size > LIMIT_VALUE_BYTES) {
        api_call_error(c, E_TOO_LARGE, "a value is at most 1 MiB; larger data belongs into /v1/blobs");
        return;
    }
    if (type.size > LIMIT_EVENT_FIELD_BYTES) {
        api_call_error(c, E_BAD_REQUEST, "Content-Type is longer than 256 bytes");
        return;
    }
    if (if_match.size > 0 && if_none.size > 0) {
        api_call_error(c, E_BAD_REQUEST, "If-Match and If-None-Match do not go together");
        return;
    }
    if (if_match.size > 0) {
        condition = KV_IF_VERSION;
        if (!parse_version(if_match, &version)) {
            api_call_error(c, E_BAD_REQUEST, "If-Match wants the ETag of an earlier answer, such as \"17\"");
            return;
        }
    } else if (if_none.size > 0) {
        condition = KV_IF_ABSENT;
        if (!bytes_equal_str(if_none, "*")) {
            api_call_error(c, E_BAD_REQUEST, "If-None-Match wants *");
            return;
        }
    }
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    api_origin_put(c, &b);
    payload_kv(&b, is_delete, call_key(c), condition, version, type, value);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    node_propose(c->api->o.node, ENTRY_KV, payload, true, written, c);
    blob_unref(payload);
}

void api_kv_put(struct api_call *c) {
    write_key(c, false);
}

void api_kv_delete(struct api_call *c) {
    write_key(c, true);
}

/* --- get ------------------------------------------------------------------------------------------------------------------------------ */

struct get {
    struct api_call *c;
    bool stale;
    const char *how; /* X-Grey-Read */
    raft_index version;
};

static void send_value(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct get *g = context;
    struct api_call *c = g->c;
    struct bytes type, value;
    if (err == E_OK && !payload_kv_value(blob_bytes(payload), &type, &value)) {
        err = E_CORRUPT;
        detail = "the value is not one";
    }
    if (err != E_OK) {
        bool changed =
            err == E_NOT_FOUND; /* written or deleted while its value was fetched; the client's next read is right again */
        api_call_error(c, changed ? E_BUSY : err, changed ? "the key changed while it was read; repeat" : detail);
        mem_free(g);
        return;
    }
    char etag[32], index[24], type_text[LIMIT_EVENT_FIELD_BYTES + 1];
    (void)snprintf(etag, sizeof etag, "\"%" PRIu64 "\"", g->version);
    (void)snprintf(index, sizeof index, "%" PRIu64, state_applied(node_state(c->api->o.node)));
    size_t type_size = type.size < sizeof type_text ? type.size : sizeof type_text - 1;
    if (type_size > 0) {
        memcpy(type_text, type.data, type_size);
    }
    type_text[type_size] = 0;
    struct http_extra extra[] = {{"ETag", etag}, {"X-Grey-Index", index}, {"X-Grey-Read", g->how}, {"X-Grey-Stale", "true"}};
    http_reply(c->q, 200, type_size > 0 ? type_text : "application/octet-stream", value, extra, g->stale ? 4 : 3);
    mem_free(c);
    mem_free(g);
}

static void row_ready(void *context, const struct node_answer *a);

/* The row is in memory or fetched; then the value, which is the payload of the entry that wrote it. */
static void serve(struct get *g, bool fetched) {
    struct api_call *c = g->c;
    struct kv_row row;
    enum table_found found = state_kv(node_state(c->api->o.node), call_key(c), &row);
    if (found == TABLE_UNKNOWN && !fetched) {
        struct builder wants;
        builder_init(&wants, 4096);
        sitelog_want(&wants, TABLE_KV, call_key(c));
        node_fetch_rows(c->api->o.node, &wants, row_ready, g);
        return;
    }
    if (found != TABLE_FOUND) {
        api_call_error(c, found == TABLE_ABSENT ? E_NOT_FOUND : E_BUSY,
                       found == TABLE_ABSENT ? "no such key" : "repeat the request");
        mem_free(g);
        return;
    }
    g->version = row.version;
    node_payload(c->api->o.node, row.version, send_value, g);
}

static void row_ready(void *context, const struct node_answer *a) {
    struct get *g = context;
    if (a->err != E_OK) {
        api_call_error(g->c, a->err, a->detail);
        mem_free(g);
        return;
    }
    serve(g, true);
}

static void barrier_passed(void *context, const struct node_answer *a) {
    struct get *g = context;
    g->how = a->lease ? "lease" : "index";
    if (a->err != E_OK) {
        api_call_error(g->c, a->err, a->detail);
        mem_free(g);
        return;
    }
    serve(g, false);
}

/* --- watch: a long poll on one key ----------------------------------------------------------------------------------------------------- */

struct api_watcher {
    struct api_watcher *next;
    struct api_call *c;
    raft_index version; /* answered when the key's last change is above this */
    uint64_t deadline_ms;
};

static void unlink_watcher(struct api *a, struct api_watcher *w) {
    struct api_watcher **at = &a->watchers;
    while (*at != w) {
        must(*at != NULL);
        at = &(*at)->next;
    }
    *at = w->next;
    a->watcher_count--;
    metrics_set(&watchers_gauge, 0, a->watcher_count);
}

static void not_modified(struct api_watcher *w) {
    char etag[32];
    (void)snprintf(etag, sizeof etag, "\"%" PRIu64 "\"", w->version);
    struct http_extra extra[] = {{"ETag", etag}};
    http_reply(w->c->q, 304, NULL, bytes_of(NULL, 0), extra, 1);
    mem_free(w->c);
    mem_free(w);
}

void api_kv_watch_timer(void *context) {
    struct api *a = context;
    uint64_t now_ms = loop_now_ms(a->o.loop);
    struct api_watcher *next;
    for (struct api_watcher *w = a->watchers; w != NULL; w = next) {
        next = w->next;
        if (now_ms >= w->deadline_ms || http_client_gone(w->c->q)) {
            unlink_watcher(a, w);
            not_modified(w);
        }
    }
    if (a->watcher_count > 0) {
        loop_timer_after(a->o.loop, &a->watch_timer, 1000);
    }
}

void api_kv_watchers_free(struct api *a) {
    while (a->watchers != NULL) {
        struct api_watcher *w = a->watchers;
        unlink_watcher(a, w);
        not_modified(w);
    }
}

static void start_serving(struct api_call *c, bool stale) {
    struct get *g = mem_new(1, sizeof *g);
    if (g == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    g->c = c;
    g->stale = stale;
    g->how = "stale";
    if (stale) {
        serve(g, false);
    } else {
        node_read_barrier(c->api->o.node, barrier_passed, g);
    }
}

void api_kv_applied(struct api *a, const struct entry *e) {
    struct api_watcher *next;
    for (struct api_watcher *w = a->watchers; w != NULL; w = next) {
        next = w->next;
        struct kv_row row;
        enum table_found found = state_kv(node_state(a->o.node), call_key(w->c), &row);
        bool changed =
            found == TABLE_FOUND ? row.version == e->index : found == TABLE_ABSENT && payload_kv_deletes(e, call_key(w->c));
        if (changed && e->index > w->version) {
            unlink_watcher(a, w);
            start_serving(w->c, true); /* this very state */
            mem_free(w);
        }
    }
}

static void watch_row_ready(void *context, const struct node_answer *a) {
    struct api_watcher *w = context;
    struct api *api = w->c->api;
    struct kv_row row;
    enum table_found found = a->err != E_OK ? TABLE_UNKNOWN : state_kv(node_state(api->o.node), call_key(w->c), &row);
    if (a->err != E_OK || found == TABLE_UNKNOWN) {
        api_call_error(w->c, a->err != E_OK ? a->err : E_BUSY, a->detail);
        mem_free(w);
    } else if ((found == TABLE_FOUND && row.version > w->version) || (found == TABLE_ABSENT && w->version > 0)) {
        start_serving(w->c, true); /* it has changed since */
        mem_free(w);
    } else if (api->watcher_count >= API_WATCHERS_MAX) {
        api_call_error(w->c, E_BUSY, "too many keys are being watched on this node");
        mem_free(w);
    } else {
        w->next = api->watchers;
        api->watchers = w;
        api->watcher_count++;
        metrics_set(&watchers_gauge, 0, api->watcher_count);
        w->deadline_ms = loop_now_ms(api->o.loop) + WATCH_MS;
        loop_timer_after(api->o.loop, &api->watch_timer, 1000);
    }
}

static void watch_barrier(void *context, const struct node_answer *a) {
    struct api_watcher *w = context;
    if (a->err != E_OK) {
        api_call_error(w->c, a->err, a->detail);
        mem_free(w);
        return;
    }
    struct builder wants;
    builder_init(&wants, 4096);
    sitelog_want(&wants, TABLE_KV, call_key(w->c));
    node_fetch_rows(w->c->api->o.node, &wants, watch_row_ready, w);
}

static void watch(struct api_call *c, const char *text) {
    raft_index version;
    if (!parse_version(bytes_str(text), &version)) {
        api_call_error(c, E_BAD_REQUEST, "watch wants a version, such as 17; 0 waits for the key to appear");
        return;
    }
    struct api_watcher *w = mem_new(1, sizeof *w);
    if (w == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    metrics_register(&watchers_gauge);
    w->c = c;
    w->version = version;
    node_read_barrier(c->api->o.node, watch_barrier, w);
}

void api_kv_get(struct api_call *c) {
    char text[32];
    bool stale = false;
    if (http_query(c->q, "consistency", text, sizeof text)) {
        stale = strcmp(text, "stale") == 0;
        if (!stale && strcmp(text, "linearizable") != 0) {
            api_call_error(c, E_BAD_REQUEST, "consistency is linearizable or stale");
            return;
        }
    }
    if (http_query(c->q, "watch", text, sizeof text)) {
        watch(c, text);
        return;
    }
    start_serving(c, stale);
}

/* --- list ------------------------------------------------------------------------------------------------------------------------------- */

struct list {
    struct api_call *c;
    uint32_t limit;
    bool stale;
    const char *how; /* X-Grey-Read */
    uint8_t low[LIMIT_KEY_BYTES], high[LIMIT_KEY_BYTES];
    size_t low_size, high_size;
};

static void listed(void *context, enum grey_error err, const struct node_row *rows, size_t count, bool more) {
    struct list *l = context;
    if (err != E_OK) {
        api_call_error(l->c, err, "");
        mem_free(l);
        return;
    }
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_open(&a.w, "keys", '[');
    for (size_t i = 0; i < count; i++) {
        struct kv_row row;
        if (state_kv_row(rows[i].value, &row) != E_OK) {
            continue;
        }
        json_open(&a.w, '{');
        json_member_text(&a.w, "key", rows[i].key);
        json_member_uint(&a.w, "version", row.version);
        json_member_uint(&a.w, "bytes", row.value_bytes);
        json_member_text(&a.w, "content_type", row.content_type);
        json_close(&a.w);
    }
    json_close(&a.w);
    json_key(&a.w, "next");
    if (more && count > 0) {
        json_text(&a.w, rows[count - 1].key);
    } else {
        json_none(&a.w);
    }
    json_close(&a.w);
    struct http_extra extra[] = {{"X-Grey-Read", l->how}, {"X-Grey-Stale", "true"}};
    api_answer_send(&a, l->c, 200, extra, l->stale ? 2 : 1);
    mem_free(l);
}

static void list_now(void *context, const struct node_answer *a) {
    struct list *l = context;
    l->how = l->stale ? "stale" : a->lease ? "lease" : "index";
    if (a->err != E_OK) {
        api_call_error(l->c, a->err, a->detail);
        mem_free(l);
        return;
    }
    node_scan(l->c->api->o.node, TABLE_KV, bytes_of(l->low, l->low_size), bytes_of(l->high, l->high_size), l->limit, listed, l);
}

/* The smallest key that no longer starts with the prefix; empty when there is none. */
static void prefix_end(struct list *l, size_t prefix_size) {
    memcpy(l->high, l->low, prefix_size);
    l->high_size = prefix_size;
    while (l->high_size > 0 && l->high[l->high_size - 1] == 0xff) {
        l->high_size--;
    }
    if (l->high_size > 0) {
        l->high[l->high_size - 1]++;
    }
}

void api_kv_list(struct api_call *c) {
    struct list *l = mem_new(1, sizeof *l);
    char text[LIMIT_KEY_BYTES + 1];
    if (l == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    l->c = c;
    l->limit = LIST_DEFAULT;
    if (http_query(c->q, "prefix", text, sizeof text)) {
        l->low_size = strlen(text);
        memcpy(l->low, text, l->low_size);
        prefix_end(l, l->low_size);
    }
    if (http_query(c->q, "limit", text, sizeof text)) {
        char *end;
        unsigned long limit = strtoul(text, &end, 10);
        if (*end != 0 || text[0] == 0 || limit < 1 || limit > LIST_MAX) {
            api_call_error(c, E_BAD_REQUEST, "limit is a number from 1 to 10000");
            mem_free(l);
            return;
        }
        l->limit = (uint32_t)limit;
    }
    if (http_query(c->q, "after", text, sizeof text) && strlen(text) < LIMIT_KEY_BYTES) {
        l->low_size = strlen(text) + 1; /* the smallest key behind it: with one zero byte more */
        memcpy(l->low, text, l->low_size);
    }
    if (http_query(c->q, "consistency", text, sizeof text) && strcmp(text, "stale") == 0) {
        l->stale = true;
        struct node_answer now = {.err = E_OK, .detail = ""};
        list_now(l, &now);
        return;
    }
    node_read_barrier(c->api->o.node, list_now, l);
}
