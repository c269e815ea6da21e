#include "core/registrar.h"

#include <stdio.h>
#include <string.h>

#include "core/authority.h"
#include "core/store_enroll.h"
#include "federation/attest/introduce.h"
#include "federation/invite.h"
#include "federation/throttle.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define ANSWER_BYTES_MAX (4u * 1024u * 1024u)
#define BODY_BYTES_MAX 16384u
#define CALLS_MAX 64u
#define TOKEN_MS 300000 /* as long as a question of the verifier is open */
#define PER_MINUTE 60u  /* of one address: many gateways may stand behind one */
#define ROOT "/v1/enroll/tpms"
#define ASK "/v1/enroll/tpm"

static const char *const reasons[] = {"unregistered", "endorsement", "request", "rate", "restored", "other"};
enum { REFUSED_UNREGISTERED, REFUSED_ENDORSEMENT, REFUSED_REQUEST, REFUSED_RATE, REFUSED_RESTORED, REFUSED_OTHER };
static struct metric refused = METRIC_COUNTER_LABELS(
    "grey_core_tpm_enroll_refused_total", "Gateways that asked to come in by their TPM and were refused.", "reason", reasons);
static struct metric challenged = METRIC_COUNTER("grey_core_tpm_enroll_challenged_total", "Challenges given to registered TPMs.");

void registrar_register(void) {
    metrics_register(&refused);
    metrics_register(&challenged);
}

struct registrar {
    struct conn_context x;
    struct worker *storage;
    struct makers_watch *makers;
    struct throttle throttle;
    uint32_t calls;
    bool stopping;
};

enum what { INVITE, ADD, LIST, REMOVE };

struct call {
    struct storage_job storage;
    struct worker_job judging;
    struct registrar *r;
    struct http_request *q;
    struct makers *makers; /* by whom it is judged; NULL: it is not */
    enum what what;
    uint8_t ek[DIGEST_SHA256_BYTES], token[DIGEST_SHA256_BYTES];
    char site[LIMIT_NAME_BYTES + 1], node[LIMIT_NAME_BYTES + 1];
    struct builder introduction;
    struct credential challenge;
    enum grey_error err; /* of judging */
    struct fault fault;
    struct builder out;
    struct json_writer w;
};

static void call_free(struct call *c) {
    c->r->calls--;
    makers_release(c->makers);
    builder_free(&c->introduction);
    builder_free(&c->out);
    mem_free(c);
}

static void reply_error(struct call *c, enum grey_error err, const char *detail) {
    if (c->what == INVITE) {
        metrics_add(&refused,
                    err == E_TOKEN_UNKNOWN    ? REFUSED_UNREGISTERED
                    : err == E_ATTEST_EK      ? REFUSED_ENDORSEMENT
                    : err == E_BAD_REQUEST    ? REFUSED_REQUEST
                    : err == E_STORE_RESTORED ? REFUSED_RESTORED
                                              : REFUSED_OTHER,
                    1);
        log_limited(LOG_WARN, "enroll", "refuse", "peer=%s by=tpm error=GREY-%d %s: %s", http_peer_address(c->q), error_id(err),
                    error_sentence(err), detail);
    }
    http_reply_error(c->q, err, detail);
    call_free(c);
}

/* --- on the storage thread ---------------------------------------------------------------------------------------------------------------- */

static void run_call(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    if (c->what == INVITE) {
        storage->err = store_tpm_invite(store, c->ek, c->token, now_wall_ms(), TOKEN_MS, c->site, c->node, &storage->fault);
    } else if (c->what == ADD) {
        storage->err = store_tpm_add(store, c->ek, c->site, c->node, now_wall_ms(), &storage->fault);
    } else if (c->what == LIST) {
        storage->err = store_tpm_list(store, &c->w, &storage->fault);
    } else {
        storage->err = store_tpm_remove(store, c->ek, &storage->fault);
    }
}

static void put(struct call *c, const char *name, const char *text) {
    json_member_str(&c->w, name, text);
}

static void put_challenge(struct call *c) {
    char hex[2 * INTRODUCE_CHALLENGE_BYTES_MAX + 1];
    struct builder b;
    builder_init(&b, INTRODUCE_CHALLENGE_BYTES_MAX);
    introduce_put_challenge(&b, &c->challenge);
    c->out.err = c->out.err != E_OK ? c->out.err : b.err;
    bytes_hex(b.data, b.size, hex);
    put(c, "challenge", hex);
    builder_free(&b);
    metrics_add(&challenged, 0, 1);
    log_info("enroll", "challenge", "site=%s node=%s peer=%s", c->site, c->node, http_peer_address(c->q));
}

static void call_done(struct worker_job *job) {
    struct call *c = (struct call *)(void *)job;
    if (c->storage.err != E_OK) {
        reply_error(c, c->storage.err,
                    c->storage.err == E_NOT_FOUND ? "no TPM with this certificate was registered" : c->storage.fault.text);
        return;
    }
    if (c->what != LIST) {
        char hex[2 * DIGEST_SHA256_BYTES + 1];
        bytes_hex(c->ek, sizeof c->ek, hex);
        json_open(&c->w, '{');
        if (c->what != REMOVE) {
            put(c, "site", c->site);
            put(c, "node", c->node);
        }
        if (c->what == INVITE) {
            put_challenge(c);
        } else {
            put(c, "ek", hex);
            log_info("enroll", "tpm", "ek=%.16s %s site=%s node=%s", hex, c->what == ADD ? "registered" : "removed", c->site,
                     c->node);
        }
        json_close(&c->w);
    }
    http_reply_json(c->q, c->what == ADD ? 201 : 200, &c->out, NULL, 0);
    call_free(c);
}

static void submit(struct call *c) {
    c->storage = (struct storage_job){.job = {.done = call_done}, .is_write = c->what != LIST, .run = run_call};
    enum grey_error err = worker_submit(c->r->storage, &c->storage.job);
    if (err != E_OK) {
        reply_error(c, err, "");
    }
}

/* --- the challenge, on the crypto worker -------------------------------------------------------------------------------------------------- */

static void judge(struct worker_job *job) {
    struct call *c = (struct call *)(void *)((char *)job - offsetof(struct call, judging));
    struct introduction i;
    struct introduce_pending pending;
    uint8_t random[INTRODUCE_RANDOM_BYTES], secret[INVITE_SECRET_BYTES];
    must(introduce_get(builder_bytes(&c->introduction), &i) == E_OK);
    keys_random(random, sizeof random);
    c->err = introduce_judge(&i, &i.who, c->makers->roots_pem, now_wall_ms() / 1000, random, &pending, &c->challenge, &c->fault);
    memcpy(c->ek, pending.claimed.endorsement, sizeof c->ek);
    invite_of_challenge(pending.secret, secret);
    digest_sha256(bytes_of(secret, sizeof secret), c->token);
    keys_wipe(&pending, sizeof pending);
    keys_wipe(random, sizeof random);
    keys_wipe(secret, sizeof secret);
}

static void judged(struct worker_job *job) {
    struct call *c = (struct call *)(void *)((char *)job - offsetof(struct call, judging));
    if (c->err != E_OK || c->r->stopping) {
        reply_error(c, c->err != E_OK ? c->err : E_STOPPING, c->fault.text);
        return;
    }
    submit(c);
}

/* --- questions ---------------------------------------------------------------------------------------------------------------------------- */

/* What was wrong; NULL: nothing. */
static const char *read_add(struct call *c, const json_t *body) {
    const char *ek = json_string_value(json_object_get(body, "ek"));
    bool good = ek != NULL && strlen(ek) == 2 * sizeof c->ek && bytes_unhex(ek, sizeof c->ek, c->ek) &&
                authority_name(c->site, json_string_value(json_object_get(body, "site"))) &&
                authority_name(c->node, json_string_value(json_object_get(body, "node"))) && !authority_site_reserved(c->site);
    return good ? NULL
                : "expected {\"ek\":\"SHA-256 of the endorsement certificate, 64 hexadecimal "
                  "digits\",\"site\":\"S\",\"node\":\"N\"}";
}

static const char *read_ask(struct call *c, const json_t *body) {
    const char *hex = json_string_value(json_object_get(body, "introduction"));
    size_t size = hex == NULL ? 0 : strlen(hex);
    struct introduction i;
    uint8_t *room = size == 0 || size % 2 != 0 ? NULL : builder_room(&c->introduction, size / 2);
    bool good = room != NULL && bytes_unhex(hex, size / 2, room) && introduce_get(builder_bytes(&c->introduction), &i) == E_OK;
    return good ? NULL : "expected {\"introduction\":\"what 'grey-tpm introduce' says, as hexadecimal digits\"}";
}

static const char *read_body(struct call *c) {
    struct fault f = {0};
    json_t *body = http_body(c->q).size > BODY_BYTES_MAX ? NULL : json_read(http_body(c->q), &f);
    const char *wrong = c->what == ADD ? read_add(c, body) : read_ask(c, body);
    json_decref(body);
    return wrong;
}

static struct call *call_new(struct registrar *r, struct http_request *q, enum what what) {
    struct call *c = r->stopping || r->calls >= CALLS_MAX ? NULL : mem_new(1, sizeof *c);
    if (c == NULL) {
        http_reply_error(q, r->stopping ? E_STOPPING : E_BUSY, "");
        return NULL;
    }
    r->calls++;
    c->r = r;
    c->q = q;
    c->what = what;
    builder_init(&c->introduction, INTRODUCE_BYTES_MAX);
    builder_init(&c->out, ANSWER_BYTES_MAX);
    json_writer_init(&c->w, &c->out);
    return c;
}

static void ask(struct registrar *r, struct http_request *q) {
    uint64_t wait_ms = throttle_take(&r->throttle, bytes_str(http_peer_address(q)), loop_now_ms(r->x.loop));
    if (wait_ms > 0) {
        metrics_add(&refused, REFUSED_RATE, 1);
        http_reply_wait(q, E_TOO_OFTEN, "too many introductions from this address", wait_ms);
        return;
    }
    struct call *c = call_new(r, q, INVITE);
    if (c == NULL) {
        return;
    }
    const char *wrong = read_body(c);
    c->makers = makers_hold(r->makers);
    c->judging = (struct worker_job){.work = judge, .done = judged};
    enum grey_error err = wrong != NULL ? E_BAD_REQUEST : worker_submit(r->x.crypto, &c->judging);
    if (err != E_OK) {
        reply_error(c, err, wrong);
    }
}

static void operate(struct registrar *r, struct http_request *q, enum what what, struct bytes ek) {
    struct call *c = call_new(r, q, what);
    if (c == NULL) {
        return;
    }
    const char *wrong = what == ADD ? read_body(c) : NULL;
    if (what == REMOVE && (ek.size != 2 * sizeof c->ek || !bytes_unhex((const char *)ek.data, sizeof c->ek, c->ek))) {
        wrong = "the certificate is named by its SHA-256, 64 hexadecimal digits";
    }
    if (wrong != NULL) {
        reply_error(c, E_BAD_REQUEST, wrong);
    } else {
        submit(c);
    }
}

bool registrar_handle_anybody(struct registrar *r, struct http_request *q) {
    if (!bytes_equal_str(http_path(q), ASK)) {
        return false;
    }
    if (strcmp(http_method(q), "POST") != 0) {
        http_reply_error(q, E_METHOD, "a TPM introduces itself with POST");
    } else if (r == NULL) {
        http_reply_error(q, E_NOT_HERE_YET, "this core was started without --ca-dir or --attest-roots");
    } else {
        ask(r, q);
    }
    return true;
}

bool registrar_handle(struct registrar *r, struct http_request *q) {
    struct bytes path = http_path(q);
    size_t size = strlen(ROOT);
    if (registrar_handle_anybody(r, q)) {
        return true;
    }
    if (path.size < size || memcmp(path.data, ROOT, size) != 0 || (path.size > size && path.data[size] != '/')) {
        return false;
    }
    const char *method = http_method(q);
    struct bytes ek = path.size > size ? bytes_of(path.data + size + 1, path.size - size - 1) : bytes_of(NULL, 0);
    bool one = path.size > size, get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    if (one ? strcmp(method, "DELETE") != 0 : !get && strcmp(method, "POST") != 0) {
        http_reply_error(q, E_METHOD, "listed with GET, registered with POST, removed with DELETE");
    } else if (r == NULL) {
        http_reply_error(q, E_NOT_HERE_YET, "this core was started without --ca-dir or --attest-roots");
    } else {
        operate(r, q, one ? REMOVE : get ? LIST : ADD, ek);
    }
    return true;
}

/* --- life --------------------------------------------------------------------------------------------------------------------------------- */

struct registrar *registrar_new(const struct conn_context *x, struct worker *storage, struct makers_watch *makers) {
    uint64_t seed;
    struct registrar *r = mem_new(1, sizeof *r);
    if (r != NULL) {
        r->x = *x;
        r->storage = storage;
        r->makers = makers;
        keys_random(&seed, sizeof seed);
        throttle_init(&r->throttle, seed, PER_MINUTE, PER_MINUTE);
    }
    return r;
}

void registrar_stop(struct registrar *r) {
    if (r != NULL) {
        r->stopping = true;
    }
}

void registrar_free(struct registrar *r) {
    if (r != NULL) {
        must(r->calls == 0);
        mem_free(r);
    }
}
