#include "core/core_attest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/policytext.h"
#include "core/store_attest.h"
#include "core/store_objects.h"
#include "platform/log.h"
#include "platform/now.h"

#define ANSWER_BYTES_MAX (16u * 1024u * 1024u)
#define LIMIT_DEFAULT 1000u
#define LIMIT_MAX 10000u
#define BODY_BYTES_MAX 1024u
#define ROOT "/v1/attestations"

enum what { LIST, SHOW, FORGET, LEARN };

struct call {
    struct storage_job storage;
    struct core_api *api;
    struct http_request *q;
    enum what what;
    char site[LIMIT_NAME_BYTES + 1], node[LIMIT_NAME_BYTES + 1], after_site[LIMIT_NAME_BYTES + 1], after_node[LIMIT_NAME_BYTES + 1];
    uint32_t limit, count;
    bool learn; /* of LEARN: begin or end it */
    uint64_t version, issue;
    struct builder out;
    struct json_writer w;
};

static void call_free(struct call *c) {
    builder_free(&c->out);
    mem_free(c);
}

/* --- on the storage thread ---------------------------------------------------------------------------------------------------------------- */

static void run_list(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    const struct store_attest_query q = {.site = c->site,
                                         .node = c->node,
                                         .after_site = c->after_site,
                                         .after_node = c->after_node,
                                         .limit = c->limit,
                                         .now_ms = now_wall_ms()};
    storage->err = store_attest_list(store, &q, &c->w, &c->count, &storage->fault);
    if (storage->err == E_OK && c->what == SHOW && c->count == 0) {
        storage->err = E_NOT_FOUND;
    }
}

static void run_forget(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    storage->err = store_attest_forget(store, &(struct store_gateway){c->site, c->node}, &storage->fault);
}

/* What gateways that were accepted show. */
struct learnt {
    struct reference *policy;
    uint32_t types; /* that there are */
    bool full;
};

static void learn_value(struct learnt *l, enum reference_kind kind, const uint8_t digest[DIGEST_SHA256_BYTES]) {
    static const uint8_t nothing[DIGEST_SHA256_BYTES];
    struct reference *p = l->policy;
    if (memcmp(digest, nothing, sizeof nothing) == 0 || reference_accepts(p, kind, STARTLOG_PCR, digest, INT64_MAX, true)) {
        return;
    }
    if (p->value_count == REFERENCE_VALUES_MAX) {
        l->full = true;
        return;
    }
    struct reference_value *v = &p->values[p->value_count++];
    *v = (struct reference_value){.kind = kind, .pcr = STARTLOG_PCR, .until_ms = -1};
    memcpy(v->digest, digest, sizeof v->digest);
}

static void learn_gateway(void *context, struct bytes kept) {
    struct learnt *l = context;
    struct verifier_facts facts;
    struct attested a;
    if (verifier_look(kept, 0, &facts) != E_OK || facts.why != E_OK || facts.until_ms == 0) {
        return; /* a gateway that is refused teaches nothing */
    }
    l->types |= 1u << facts.type;
    if (verifier_measured(kept, &a)) {
        learn_value(l, REFERENCE_PROGRAM, a.program);
        learn_value(l, REFERENCE_CONFIG, a.config);
    }
}

static enum grey_error now_in_force(struct store *store, const struct reference *fallback, struct reference *p, struct fault *f) {
    struct store_object object;
    struct builder text;
    builder_init(&text, POLICYTEXT_BYTES_MAX);
    enum grey_error err = store_object_get(store, OBJECT_POLICY, POLICYTEXT_NAME, 0, &object, &text, f);
    if (err == E_OK) {
        err = policytext_read(builder_bytes(&text), p, f);
    } else if (err == E_NOT_FOUND && fallback != NULL) {
        *p = *fallback;
        err = E_OK;
    } else if (err == E_NOT_FOUND) {
        policytext_learn(p);
        p->types = 1u << ATTEST_TPM2 | 1u << ATTEST_VTPM;
        err = E_OK;
    }
    builder_free(&text);
    return err;
}

/* Learning ends by naming what was learnt, so that one gateway may become like another, and all that is new is refused. */
static void run_learn(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    struct reference *p = mem_new(1, sizeof *p);
    struct learnt l = {.policy = p};
    struct store_object object = {0};
    struct builder text;
    builder_init(&text, POLICYTEXT_BYTES_MAX);
    storage->err = p == NULL ? E_NO_MEMORY : now_in_force(store, attesting_fallback(c->api->attesting), p, &storage->fault);
    if (storage->err == E_OK) {
        p->learn = c->learn;
    }
    if (storage->err == E_OK && !c->learn) {
        storage->err = store_attest_each(store, learn_gateway, &l, &storage->fault);
        p->types = (p->types & l.types) != 0 ? p->types & l.types : p->types;
        if (storage->err == E_OK && l.full) {
            storage->err = fault_set(&storage->fault, E_TOO_LARGE, "more than %u values were learnt", REFERENCE_VALUES_MAX);
        }
    }
    if (storage->err == E_OK) {
        policytext_write(&text, p);
        storage->err = policytext_read(builder_bytes(&text), p, &storage->fault); /* what could not be read must not be given */
    }
    if (storage->err == E_OK) {
        storage->err = text.err != E_OK ? text.err
                                        : store_object_put(store, OBJECT_POLICY, POLICYTEXT_NAME, "application/yaml",
                                                           builder_bytes(&text), now_wall_ms(), &object, &storage->fault);
    }
    c->version = object.version;
    c->issue = object.issue;
    c->count = p == NULL ? 0 : p->value_count;
    builder_free(&text);
    mem_free(p);
}

/* --- on the loop -------------------------------------------------------------------------------------------------------------------------- */

static void put_learnt(struct call *c) {
    json_open(&c->w, '{');
    json_member_bool(&c->w, "learn", c->learn);
    json_member_uint(&c->w, "version", c->version);
    json_member_uint(&c->w, "serial", c->issue);
    json_member_uint(&c->w, "values", c->count);
    json_close(&c->w);
    log_info("attest", "policy", "learn=%s version=%" PRIu64 " serial=%" PRIu64 " values=%" PRIu32, c->learn ? "yes" : "no",
             c->version, c->issue, c->count);
    giver_news(c->api->giver);
    attesting_policy(c->api->attesting);
}

static void call_done(struct worker_job *job) {
    struct call *c = (struct call *)(void *)job;
    enum grey_error err = c->storage.err;
    if (err == E_OK && c->what == FORGET) {
        log_info("attest", "forget", "site=%s node=%s", c->site, c->node);
        http_reply(c->q, 204, NULL, bytes_of(NULL, 0), NULL, 0);
        call_free(c);
        return;
    }
    if (err == E_OK && c->what == LEARN) {
        put_learnt(c);
    }
    if (err != E_OK) {
        http_reply_error(c->q, err, err == E_NOT_FOUND ? "no gateway of this name was ever attested here" : c->storage.fault.text);
    } else if (c->what == SHOW && c->out.err == E_OK) { /* the one of the array */
        http_reply(c->q, 200, "application/json", json_raw_element(builder_bytes(&c->out), 0), NULL, 0);
    } else {
        http_reply_json(c->q, 200, &c->out, NULL, 0);
    }
    call_free(c);
}

static bool take_name(char out[LIMIT_NAME_BYTES + 1], struct bytes text) {
    if (!grey_name_valid((const char *)text.data, text.size)) {
        return false;
    }
    memcpy(out, text.data, text.size);
    return true;
}

/* "SITE/NODE". */
static bool take_pair(char site[LIMIT_NAME_BYTES + 1], char node[LIMIT_NAME_BYTES + 1], struct bytes text) {
    const uint8_t *slash = text.size == 0 ? NULL : memchr(text.data, '/', text.size);
    size_t size = slash == NULL ? 0 : (size_t)(slash - text.data);
    return slash != NULL && take_name(site, bytes_of(text.data, size)) &&
           take_name(node, bytes_of(slash + 1, text.size - size - 1));
}

static const char *read_list(struct call *c) {
    char text[2 * LIMIT_NAME_BYTES + 2];
    c->limit = LIMIT_DEFAULT;
    if (http_query(c->q, "site", text, sizeof text) && !take_name(c->site, bytes_str(text))) {
        return "site is no name";
    }
    if (http_query(c->q, "after", text, sizeof text) && !take_pair(c->after_site, c->after_node, bytes_str(text))) {
        return "after is SITE/NODE, the last that was listed";
    }
    if (http_query(c->q, "limit", text, sizeof text)) {
        char *end;
        unsigned long limit = strtoul(text, &end, 10);
        if (text[0] < '1' || text[0] > '9' || *end != 0 || limit > LIMIT_MAX) {
            return "limit is a number from 1 to 10000";
        }
        c->limit = (uint32_t)limit;
    }
    return NULL;
}

static const char *read_learn(struct call *c) {
    struct fault f = {0};
    json_t *body = http_body(c->q).size > BODY_BYTES_MAX ? NULL : json_read(http_body(c->q), &f);
    const json_t *learn = json_object_get(body, "learn");
    bool good = json_is_boolean(learn);
    c->learn = json_is_true(learn);
    json_decref(body);
    return good ? NULL : "expected {\"learn\":true} to begin, false to end it and name what was learnt";
}

/* What is asked; false: no call of this kind. */
static bool read_path(struct call *c, struct bytes path) {
    static const char forget[] = "/forget";
    struct bytes rest = bytes_of(path.data + strlen(ROOT), path.size - strlen(ROOT));
    c->what = LIST;
    if (rest.size == 0) {
        return true;
    }
    rest = bytes_of(rest.data + 1, rest.size - 1);
    if (bytes_equal_str(rest, "policy")) {
        c->what = LEARN;
        return true;
    }
    bool is_forget = rest.size > strlen(forget) && memcmp(rest.data + rest.size - strlen(forget), forget, strlen(forget)) == 0 &&
                     memchr(rest.data, '/', rest.size - strlen(forget)) != NULL;
    c->what = is_forget ? FORGET : SHOW;
    return take_pair(c->site, c->node, bytes_of(rest.data, rest.size - (is_forget ? strlen(forget) : 0)));
}

static void handle(struct core_api *api, struct http_request *q) {
    struct call *c = mem_new(1, sizeof *c);
    const char *wrong = NULL;
    if (c == NULL) {
        http_reply_error(q, E_NO_MEMORY, "");
        return;
    }
    c->api = api;
    c->q = q;
    c->limit = 1;
    builder_init(&c->out, ANSWER_BYTES_MAX);
    json_writer_init(&c->w, &c->out);
    enum grey_error err = read_path(c, http_path(q)) ? E_OK : E_NOT_FOUND;
    bool changes = c->what == FORGET || c->what == LEARN;
    bool fits = strcmp(http_method(q), "POST") == 0 ? changes : strcmp(http_method(q), "GET") == 0 && !changes;
    if (err == E_OK && !fits) {
        err = E_METHOD;
        wrong = changes ? "this is done with POST" : "this is read with GET";
    } else if (err == E_OK) {
        wrong = c->what == LIST ? read_list(c) : c->what == LEARN ? read_learn(c) : NULL;
        err = wrong != NULL ? E_BAD_REQUEST : E_OK;
    }
    c->storage = (struct storage_job){.job = {.done = call_done},
                                      .is_write = changes,
                                      .run = c->what == FORGET  ? run_forget
                                             : c->what == LEARN ? run_learn
                                                                : run_list};
    c->storage.site = c->what == FORGET ? c->site : NULL;
    err = err != E_OK ? err : worker_submit(api->storage, &c->storage.job);
    if (err != E_OK) {
        http_reply_error(q, err, err == E_NOT_FOUND ? "no such path; docs/openapi.yaml lists them all" : wrong);
        call_free(c);
    }
}

bool core_attest_handle(struct core_api *api, struct http_request *q) {
    struct bytes path = http_path(q);
    size_t size = strlen(ROOT);
    if (path.size < size || memcmp(path.data, ROOT, size) != 0 || (path.size > size && path.data[size] != '/')) {
        return false;
    }
    handle(api, q);
    return true;
}
