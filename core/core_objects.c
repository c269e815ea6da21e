#include "core/core_objects.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/policytext.h"
#include "core/store_objects.h"
#include "federation/update.h"
#include "platform/log.h"
#include "platform/now.h"

#define LIST_BYTES_MAX (4u * 1024u * 1024u)

static const struct {
    const char *path;
    enum object_kind kind;
} roots[] = {
    {"/v1/configs", OBJECT_CONFIG}, {"/v1/policies", OBJECT_POLICY}, {"/v1/data", OBJECT_DATA}, {"/v1/updates", OBJECT_UPDATE}};

struct call {
    struct storage_job storage;
    struct core_api *api;
    struct http_request *q;
    enum object_kind kind;
    char name[LIMIT_NAME_BYTES + 1]; /* "": the list */
    char content_type[OBJECT_TYPE_BYTES_MAX + 1];
    uint64_t version;
    struct store_object object;
    struct builder out;
};

static void run_list(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    struct json_writer w;
    json_writer_init(&w, &c->out);
    storage->err = store_object_list(store, c->kind, &w, &storage->fault);
}

static void run_get(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    storage->err = store_object_get(store, c->kind, c->name, c->version, &c->object, &c->out, &storage->fault);
}

static void run_put(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    storage->err =
        store_object_put(store, c->kind, c->name, c->content_type, http_body(c->q), now_wall_ms(), &c->object, &storage->fault);
}

static bool is_attestation(const struct call *c) {
    return c->kind == OBJECT_POLICY && strcmp(c->name, POLICYTEXT_NAME) == 0;
}

static void reply_put(struct call *c) {
    char etag[32];
    struct json_writer w;
    (void)snprintf(etag, sizeof etag, "\"%" PRIu64 "\"", c->object.version);
    json_writer_init(&w, &c->out);
    json_open(&w, '{');
    json_member_str(&w, "name", c->name);
    json_member_uint(&w, "version", c->object.version);
    json_member_uint(&w, "issue", c->object.issue);
    json_member_uint(&w, "bytes", c->object.size);
    json_close(&w);
    http_reply_json(c->q, c->object.version == 1 ? 201 : 200, &c->out, (struct http_extra[]){{"ETag", etag}}, 1);
    log_info("core", "put", "kind=%s name=%s version=%" PRIu64 " bytes=%" PRIu64, object_kind_name(c->kind), c->name,
             c->object.version, c->object.size);
    giver_news(c->api->giver);
    if (is_attestation(c)) {
        attesting_policy(c->api->attesting);
    }
}

static void reply_get(struct call *c) {
    char etag[32], issue[24];
    (void)snprintf(etag, sizeof etag, "\"%" PRIu64 "\"", c->object.version);
    (void)snprintf(issue, sizeof issue, "%" PRIu64, c->object.issue);
    http_reply(c->q, 200, c->object.content_type[0] != 0 ? c->object.content_type : "application/octet-stream",
               builder_bytes(&c->out), (struct http_extra[]){{"ETag", etag}, {"X-Grey-Issue", issue}}, 2);
}

static void call_done(struct worker_job *job) {
    struct call *c = (struct call *)(void *)job;
    enum grey_error err = c->storage.err != E_OK ? c->storage.err : c->out.err;
    if (err != E_OK) {
        http_reply_error(c->q, err, err == E_NOT_FOUND ? "no such object or version" : c->storage.fault.text);
    } else if (c->storage.is_write) {
        reply_put(c);
    } else if (c->name[0] != 0) {
        reply_get(c);
    } else {
        http_reply_json(c->q, 200, &c->out, NULL, 0);
    }
    builder_free(&c->out);
    mem_free(c);
}

/* What is wrong with the request; NULL: nothing. */
static const char *read_call(struct call *c) {
    char version[24], *end;
    struct bytes type = http_header(c->q, "Content-Type");
    if (http_query(c->q, "version", version, sizeof version)) {
        c->version = strtoull(version, &end, 10);
        if (version[0] < '1' || version[0] > '9' || *end != 0 || c->version > INT64_MAX) {
            return "version is a number from 1";
        }
    }
    if (type.size > OBJECT_TYPE_BYTES_MAX || !bytes_utf8_valid(type)) {
        return "Content-Type is longer than 128 bytes, or no text";
    }
    if (type.size > 0) {
        memcpy(c->content_type, type.data, type.size);
    }
    return NULL;
}

static void handle(struct core_api *api, struct http_request *q, enum object_kind kind, struct bytes name) {
    bool put = strcmp(http_method(q), "PUT") == 0, get = strcmp(http_method(q), "GET") == 0;
    if ((!put && !get) || (put && name.size == 0)) {
        http_reply_error(q, E_METHOD,
                         name.size == 0 ? "the list is read with GET" : "an object is read with GET, and given with PUT");
        return;
    }
    if (name.size > 0 && !grey_name_valid((const char *)name.data, name.size)) {
        http_reply_error(q, E_BAD_REQUEST, "a name is 1 to 64 of A-Z a-z 0-9 . _ -");
        return;
    }
    struct update_manifest bundle;
    if (put && kind == OBJECT_UPDATE && update_read(http_body(q), &bundle) != E_OK) { /* gateways look at its signature */
        http_reply_error(q, E_UPDATE_FORMAT, "make it with 'grey-update pack'");
        return;
    }
    struct call *c = mem_new(1, sizeof *c);
    if (c == NULL) {
        http_reply_error(q, E_NO_MEMORY, "");
        return;
    }
    c->api = api;
    c->q = q;
    c->kind = kind;
    c->storage = (struct storage_job){.job = {.done = call_done},
                                      .is_write = put,
                                      .run = put             ? run_put
                                             : name.size > 0 ? run_get
                                                             : run_list};
    if (name.size > 0) {
        memcpy(c->name, name.data, name.size);
    }
    builder_init(&c->out, name.size > 0 ? OBJECT_BYTES_MAX : LIST_BYTES_MAX);
    struct fault f = {0};
    const char *wrong = read_call(c);
    if (wrong == NULL && put &&
        is_attestation(c)) { /* this one the core reads itself: a fault in it is told now, and not when gateways fail */
        struct reference *p = mem_new(1, sizeof *p);
        wrong = p == NULL || policytext_read(http_body(q), p, &f) == E_OK ? NULL : f.text;
        mem_free(p);
    }
    enum grey_error err = wrong != NULL ? E_BAD_REQUEST : worker_submit(api->storage, &c->storage.job);
    if (err != E_OK) {
        http_reply_error(q, err, wrong);
        mem_free(c);
    }
}

bool core_objects_handle(struct core_api *api, struct http_request *q) {
    struct bytes path = http_path(q);
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        size_t size = strlen(roots[i].path);
        if (path.size >= size && memcmp(path.data, roots[i].path, size) == 0 &&
            (path.size == size || (path.data[size] == '/' && path.size > size + 1))) {
            size_t skip = path.size == size ? size : size + 1;
            handle(api, q, roots[i].kind, bytes_of(path.data + skip, path.size - skip));
            return true;
        }
    }
    return false;
}
