#include "core/enroller.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/authority.h"
#include "core/batch.h"
#include "core/revoker.h"
#include "core/store_enroll.h"
#include "federation/certify.h"
#include "federation/invite.h"
#include "include/grey/limits.h"
#include "platform/json.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define ANSWER_BYTES_MAX (4u * 1024u * 1024u)
#define BODY_BYTES_MAX 8192u
#define CONNECTIONS_MAX 64u
#define TTL_S_DEFAULT 3600
#define TTL_S_MAX (30 * 86400)
#define TICK_MS 3600000u
#define BUSY_MS 50u
#define RENEW_SERVER_MS (30 * INT64_C(86400000))

static const char *const reasons[] = {"unknown", "used", "expired", "site", "name", "request", "revoked", "restored", "other"};
static struct metric refused = METRIC_COUNTER_LABELS("grey_core_enroll_refused_total",
                                                     "Gateways that asked for a certificate and got none.", "reason", reasons);
static struct metric issued = METRIC_COUNTER("grey_core_certificates_issued_total", "Certificates issued for gateways.");

void enroller_register(void) {
    metrics_register(&refused);
    metrics_register(&issued);
    revoker_register();
}

struct enroller {
    struct conn_context x;
    struct worker *storage;
    struct ingest *ingest;
    struct revoker *revoker;
    struct registrar *registrar;
    struct authority ca;
    struct conn_tls *tls;
    struct http_server *http; /* NULL: no address of its own */
    struct loop_timer timer;
    int64_t life_ms, server_ms; /* server_ms: when its own certificate was made */
    uint32_t calls;             /* jobs under way */
    bool stopping;
    char ca_dir[LIMIT_PATH_BYTES + 1], prefix[LIMIT_PATH_BYTES + 16];
    uint8_t core_key[KEYS_ED25519_PUBLIC_BYTES];
};

enum what { ENROLL, TOKEN_ADD, TOKEN_LIST, TOKEN_END, LIST, REVOKE };

struct call {
    struct storage_job storage;
    struct enroller *e;
    struct http_request *q;
    enum what what;
    json_t *body;
    /* of tokens */
    struct invite invite;
    uint8_t token[DIGEST_SHA256_BYTES];
    int64_t nodes, ttl_s, expires_ms;
    char id[16];
    bool renewal;
    /* of certificates */
    char site[LIMIT_NAME_BYTES + 1], node[LIMIT_NAME_BYTES + 1];
    struct csr_facts asked;
    struct builder request, certificate;
    uint64_t incarnation; /* of who asked over a link */
    grey_epoch epoch;
    bool fresh;
    uint32_t count;
    struct builder out;
    struct json_writer w;
};

static void call_free(struct call *c) {
    json_decref(c->body);
    builder_free(&c->request);
    builder_free(&c->certificate);
    builder_free(&c->out);
    mem_free(c);
}

/* --- calls: on the storage thread ----------------------------------------------------------------------------------------------------------- */

static enum grey_error issue(struct call *c, struct store *store, const struct store_enroll *ask, struct fault *f) {
    struct cert_facts facts;
    enum grey_error err = authority_sign(&c->e->ca, &c->asked, ask->now_ms / 1000, ask->life_ms / 1000, &c->certificate, f);
    err = err != E_OK ? err : authority_delegate(&c->e->ca, &c->asked, ask->now_ms / 1000, ask->life_ms / 1000, &c->certificate, f);
    builder_add_byte(&c->certificate, 0);
    err = err != E_OK ? err : c->certificate.err;
    err = err != E_OK ? err : cert_read((const char *)c->certificate.data, &facts, f);
    if (err != E_OK) {
        return err;
    }
    c->certificate.size--;
    c->expires_ms = facts.not_after_s * 1000;
    c->fresh = true;
    struct store_certificate kept = {.not_after_ms = c->expires_ms, .pem = builder_bytes(&c->certificate)};
    memcpy(kept.serial, facts.serial, sizeof kept.serial);
    return store_certificate_add(store, ask, &kept, f);
}

static void run_enroll(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    struct fault inner = {0};
    c->fresh = false;
    c->certificate.size = 0; /* of the time before, when this is done again */
    storage->err = csr_read(builder_bytes(&c->request), &c->asked, &inner);
    bool other = storage->err == E_OK && c->site[0] != 0 && strcmp(c->site, c->asked.site) != 0; /* over the link of another site */
    if (storage->err != E_OK || other || authority_site_reserved(c->asked.site)) {
        const char *why = storage->err != E_OK ? inner.text
                          : other              ? "it is for a gateway of another site"
                                               : "a site cannot have this name";
        storage->err = fault_set(&storage->fault, other ? E_TOKEN_SITE : E_CSR, "%s", why);
        return;
    }
    struct store_enroll ask = {.token = c->renewal ? NULL : c->token,
                               .site = c->asked.site,
                               .node = c->asked.node,
                               .now_ms = now_wall_ms(),
                               .life_ms = c->e->life_ms};
    memcpy(ask.key, c->asked.key_hash, sizeof ask.key);
    storage->err = store_enroll(store, &ask, &c->certificate, &storage->fault);
    if (storage->err == E_OK && c->certificate.size == 0) {
        storage->err = issue(c, store, &ask, &storage->fault);
    }
}

static void run_call(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    int64_t now_ms = now_wall_ms();
    if (c->what == ENROLL) {
        run_enroll(storage, store);
    } else if (c->what == TOKEN_ADD) {
        c->expires_ms = now_ms + c->ttl_s * 1000;
        struct store_token t = {.site = c->site, .nodes = (uint32_t)c->nodes, .created_ms = now_ms, .expires_ms = c->expires_ms};
        memcpy(t.hash, c->token, sizeof t.hash);
        storage->err = store_token_add(store, &t, &storage->fault);
    } else if (c->what == TOKEN_LIST) {
        storage->err = store_token_list(store, now_ms, &c->w, &storage->fault);
    } else if (c->what == TOKEN_END) {
        storage->err = store_token_end(store, c->id, now_ms, &storage->fault);
    } else if (c->what == LIST) {
        storage->err = store_certificate_list(store, c->site, &c->w, &storage->fault);
    } else {
        storage->err = store_revoke(store, c->site, c->node, now_ms, &c->count, &storage->fault);
    }
}

/* --- calls: answers -------------------------------------------------------------------------------------------------------------------------- */

static void put(struct call *c, const char *name, const char *text) {
    json_member_str(&c->w, name, text);
}

static void count_refusal(enum grey_error err) {
    static const enum grey_error of[] = {E_TOKEN_UNKNOWN, E_TOKEN_USED, E_TOKEN_EXPIRED, E_TOKEN_SITE,
                                         E_TOKEN_NODE,    E_CSR,        E_REVOKED,       E_STORE_RESTORED};
    size_t i = 0;
    while (i < sizeof of / sizeof of[0] && of[i] != err) {
        i++;
    }
    metrics_add(&refused, (unsigned)i, 1);
}

/* Everything that a gateway needs to take part. */
static void answer_enroll(struct call *c) {
    char key[2 * KEYS_ED25519_PUBLIC_BYTES + 1];
    bytes_hex(c->e->core_key, sizeof c->e->core_key, key);
    json_open(&c->w, '{');
    put(c, "site", c->asked.site);
    put(c, "node", c->asked.node);
    json_member_text(&c->w, "certificate", builder_bytes(&c->certificate));
    put(c, "ca", (const char *)c->e->ca.bundle.data);
    put(c, "core_key", key);
    json_close(&c->w);
    if (c->fresh) {
        metrics_add(&issued, 0, 1);
        log_info("enroll", c->renewal ? "renew" : "enroll", "site=%s node=%s peer=%s", c->asked.site, c->asked.node,
                 http_peer_address(c->q));
        revoker_publish(c->e->revoker); /* it may have replaced others */
    }
}

static void answer_token(struct call *c) {
    char text[INVITE_TEXT_BYTES], id[9], time[32];
    memcpy(c->invite.fingerprint, c->e->ca.fingerprint, sizeof c->invite.fingerprint);
    invite_write(&c->invite, text);
    bytes_hex(c->token, 4, id);
    now_format(c->expires_ms, time);
    json_open(&c->w, '{');
    put(c, "token", text);
    put(c, "id", id);
    put(c, "site", c->site);
    json_member_int(&c->w, "nodes", c->nodes);
    put(c, "expires", time);
    json_close(&c->w);
    explicit_bzero(text, sizeof text);
    log_info("enroll", "token", "id=%s site=%s nodes=%" PRId64 " expires=%s", id, c->site, c->nodes, time);
}

static void answer_revoke(struct call *c) {
    json_open(&c->w, '{');
    put(c, "site", c->site);
    put(c, "node", c->node);
    json_member_uint(&c->w, "revoked", c->count);
    json_close(&c->w);
    log_info("enroll", "revoke", "site=%s node=%s certificates=%" PRIu32, c->site, c->node[0] != 0 ? c->node : "(all)", c->count);
    revoker_publish(c->e->revoker);
}

static void call_done(struct worker_job *job) {
    struct call *c = (struct call *)(void *)job;
    struct enroller *e = c->e;
    enum grey_error err = c->storage.err;
    if (err != E_OK && c->what == ENROLL) {
        count_refusal(err);
        log_warn("enroll", "refuse", "peer=%s error=GREY-%d %s: %s", http_peer_address(c->q), error_id(err), error_sentence(err),
                 c->storage.fault.text);
    }
    if (err == E_OK) {
        if (c->what == ENROLL) {
            answer_enroll(c);
        } else if (c->what == TOKEN_ADD) {
            answer_token(c);
        } else if (c->what == REVOKE) {
            answer_revoke(c);
        } else if (c->what == TOKEN_END) {
            json_open(&c->w, '{');
            json_close(&c->w);
            log_info("enroll", "token", "id=%s ended", c->id);
        }
        bool made = c->what == TOKEN_ADD || (c->what == ENROLL && c->fresh);
        http_reply_json(c->q, made ? 201 : 200, &c->out, NULL, 0);
    } else {
        http_reply_error(c->q, err, err == E_NOT_FOUND ? "nothing of this name was ever made here" : c->storage.fault.text);
    }
    call_free(c);
    e->calls--;
}

/* --- calls: questions ------------------------------------------------------------------------------------------------------------------------ */

static bool take_number(int64_t *out, const json_t *v, int64_t fallback, int64_t max) {
    *out = v == NULL ? fallback : json_is_integer(v) ? json_integer_value(v) : 0;
    return *out >= 1 && *out <= max;
}

static const char *read_enroll(struct call *c) {
    const char *token = json_string_value(json_object_get(c->body, "token"));
    uint8_t secret[INVITE_SECRET_BYTES];
    c->renewal = json_object_get(c->body, "token") == NULL;
    if (json_string_value(json_object_get(c->body, "csr")) == NULL || (!c->renewal && token == NULL)) {
        return "expected {\"csr\":\"-----BEGIN CERTIFICATE REQUEST...\",\"token\":\"its secret\"}; without a token a known key is "
               "renewed";
    }
    if (!c->renewal && (strlen(token) != 2 * sizeof secret || !bytes_unhex(token, sizeof secret, secret))) {
        return "the token's secret is 32 hexadecimal digits";
    }
    builder_add_str(&c->request, json_string_value(json_object_get(c->body, "csr")));
    if (!c->renewal) {
        digest_sha256(bytes_of(secret, sizeof secret), c->token);
    }
    explicit_bzero(secret, sizeof secret);
    return NULL;
}

static const char *read_token(struct call *c) {
    if (!authority_name(c->site, json_string_value(json_object_get(c->body, "site"))) || authority_site_reserved(c->site)) {
        return "site: 1 to 64 of A-Z a-z 0-9 . _ -, and not grey-core or grey-broker";
    }
    if (!take_number(&c->nodes, json_object_get(c->body, "nodes"), 1, STORE_ENROLL_NODES_MAX)) {
        return "nodes: how many gateways it may enrol, 1 to 64";
    }
    if (!take_number(&c->ttl_s, json_object_get(c->body, "ttl_seconds"), TTL_S_DEFAULT, TTL_S_MAX)) {
        return "ttl_seconds: 1 to 2592000 (30 days)";
    }
    memcpy(c->invite.site.text, c->site, sizeof c->site);
    keys_random(c->invite.secret, sizeof c->invite.secret);
    digest_sha256(bytes_of(c->invite.secret, sizeof c->invite.secret), c->token);
    return NULL;
}

static const char *read_revoke(struct call *c) {
    const json_t *node = json_object_get(c->body, "node");
    return !authority_name(c->site, json_string_value(json_object_get(c->body, "site"))) ||
                   (node != NULL && !authority_name(c->node, json_string_value(node)))
               ? "expected {\"site\":\"S\",\"node\":\"N\"}; without a node all of the site"
               : NULL;
}

static const char *read_call(struct call *c) {
    struct fault f = {0};
    if (c->what == LIST) {
        char site[LIMIT_NAME_BYTES + 1];
        if (http_query(c->q, "site", site, sizeof site)) {
            if (!grey_name_valid(site, strlen(site))) {
                return "site is no name";
            }
            memcpy(c->site, site, sizeof site);
        }
        return NULL;
    }
    if (c->what == TOKEN_LIST || c->what == TOKEN_END) {
        return NULL;
    }
    c->body = http_body(c->q).size > BODY_BYTES_MAX ? NULL : json_read(http_body(c->q), &f);
    if (!json_is_object(c->body)) {
        return "expected a JSON object of at most 8192 bytes";
    }
    return c->what == ENROLL ? read_enroll(c) : c->what == TOKEN_ADD ? read_token(c) : read_revoke(c);
}

static struct call *call_new(struct enroller *e, enum what what) {
    struct call *c = e->stopping ? NULL : mem_new(1, sizeof *c);
    if (c != NULL) {
        c->e = e;
        c->what = what;
        builder_init(&c->request, CSR_PEM_BYTES_MAX + 1);
        builder_init(&c->certificate, 16384);
        builder_init(&c->out, ANSWER_BYTES_MAX);
        json_writer_init(&c->w, &c->out);
    }
    return c;
}

static void ask(struct enroller *e, struct http_request *q, enum what what, const char *id) {
    struct call *c = call_new(e, what);
    if (c == NULL) {
        http_reply_error(q, e->stopping ? E_STOPPING : E_NO_MEMORY, "");
        return;
    }
    c->q = q;
    (void)snprintf(c->id, sizeof c->id, "%s", id);
    c->storage = (struct storage_job){.job = {.done = call_done}, .is_write = what != TOKEN_LIST && what != LIST, .run = run_call};
    const char *wrong = read_call(c);
    enum grey_error err = wrong != NULL ? E_BAD_REQUEST : worker_submit(e->storage, &c->storage.job);
    if (err != E_OK) {
        if (what == ENROLL) {
            count_refusal(E_CSR);
        }
        http_reply_error(q, err, wrong);
        call_free(c);
        return;
    }
    e->calls++;
}

/* --- renewal over a site's link -------------------------------------------------------------------------------------------------------------- */

/* Lost on its way it is asked for again, and given again. */
static void renewed(struct worker_job *job) {
    struct call *c = (struct call *)(void *)job;
    struct enroller *e = c->e;
    enum grey_error err = c->storage.err;
    if (err != E_OK) {
        count_refusal(err);
        log_limited(LOG_WARN, "enroll", "refuse", "site=%s error=GREY-%d %s: %s", c->site, error_id(err), error_sentence(err),
                    c->storage.fault.text);
    } else {
        struct grey_name site = {0};
        struct builder b;
        builder_init(&b, 32768);
        memcpy(site.text, c->site, sizeof site.text);
        certify_put_certificate(&b, &(struct certify){.incarnation = c->incarnation,
                                                      .epoch = c->epoch,
                                                      .node = bytes_str(c->asked.node),
                                                      .pem = builder_bytes(&c->certificate)});
        if (!e->stopping && b.err == E_OK) {
            (void)ingest_tell(e->ingest, &site, builder_bytes(&b));
        }
        builder_free(&b);
        metrics_add(&issued, 0, c->fresh);
        log_info("enroll", "renew", "site=%s node=%s fresh=%s", c->site, c->asked.node, c->fresh ? "yes" : "no");
    }
    call_free(c);
    e->calls--;
}

static void heard(void *context, const struct grey_name *site, struct bytes content) {
    struct enroller *e = context;
    struct certify asked;
    struct call *c = certify_get_request(content, &asked) == E_OK ? call_new(e, ENROLL) : NULL;
    if (c == NULL) {
        count_refusal(E_CSR);
        return;
    }
    c->renewal = true;
    c->incarnation = asked.incarnation;
    c->epoch = asked.epoch;
    memcpy(c->site, site->text, sizeof c->site);
    builder_add(&c->request, asked.pem);
    c->storage = (struct storage_job){.job = {.done = renewed}, .is_write = true, .run = run_call};
    if (worker_submit(e->storage, &c->storage.job) != E_OK) {
        call_free(c);
        return;
    }
    e->calls++;
}

/* --- routes ------------------------------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *method, *path;
    enum what what;
} routes[] = {
    {"POST", "/v1/enroll", ENROLL},           {"POST", "/v1/enroll/tokens", TOKEN_ADD},
    {"GET", "/v1/enroll/tokens", TOKEN_LIST}, {"DELETE", "/v1/enroll/tokens/", TOKEN_END},
    {"GET", "/v1/certificates", LIST},        {"POST", "/v1/certificates/revoke", REVOKE},
};

bool enroller_handle(struct enroller *e, struct http_request *q) {
    struct bytes path = http_path(q);
    bool known = false;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        size_t size = strlen(routes[i].path);
        bool named = routes[i].what == TOKEN_END && path.size == size + 8 && memcmp(path.data, routes[i].path, size) == 0;
        if (!named && !bytes_equal_str(path, routes[i].path)) {
            continue;
        }
        known = true;
        if (strcmp(http_method(q), routes[i].method) == 0) {
            char id[16] = "";
            if (e == NULL) {
                http_reply_error(q, E_NOT_HERE_YET, "this core was started without --ca-dir");
                return true;
            }
            memcpy(id, path.data + size, named ? 8 : 0);
            ask(e, q, routes[i].what, id);
            return true;
        }
    }
    if (known) {
        http_reply_error(q, E_METHOD, "");
    }
    return known;
}

/* The address that anybody may reach takes this call and no other. */
static void handle_anybody(void *context, struct http_request *q) {
    struct enroller *e = context;
    if (bytes_equal_str(http_path(q), "/v1/enroll") && strcmp(http_method(q), "POST") == 0) {
        ask(e, q, ENROLL, "");
    } else if (!registrar_handle_anybody(e->registrar, q)) {
        http_reply_error(q, E_NOT_FOUND, "this address serves POST /v1/enroll and /v1/enroll/tpm only");
    }
}

/* --- life -------------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error make_server(struct enroller *e, struct fault *f) {
    e->server_ms = now_wall_ms();
    return authority_serve(e->ca_dir, "", e->prefix, f);
}

/* Another process may have rotated the CA; the list and the server's own certificate grow old. */
static void tick(void *context) {
    struct enroller *e = context;
    struct authority fresh;
    struct fault f = {0};
    bool busy = e->calls > 0 || revoker_busy(e->revoker); /* the storage thread reads the CA */
    loop_timer_after(e->x.loop, &e->timer, busy ? BUSY_MS : TICK_MS);
    if (!busy) {
        if (authority_open(e->ca_dir, &fresh, &f) == E_OK) {
            authority_close(&e->ca);
            e->ca = fresh;
        } else {
            log_error("enroll", "authority", "%s: the CA cannot be read, the one in memory goes on: %s", e->ca_dir, f.text);
        }
    }
    if (e->tls != NULL && now_wall_ms() - e->server_ms > RENEW_SERVER_MS &&
        (make_server(e, &f) != E_OK || conn_tls_reload(e->tls, &f) != E_OK)) {
        log_error("enroll", "authority", "the certificate of the enrolment address could not be renewed: %s", f.text);
    }
    revoker_publish(e->revoker);
}

void enroller_reload(struct enroller *e) {
    if (e != NULL && !e->stopping) {
        loop_timer_after(e->x.loop, &e->timer, 0);
    }
}

static bool listen_anybody(struct enroller *e, const char *address, bool from_13, struct fault *f) {
    static const struct http_limits limits = {.connections_max = CONNECTIONS_MAX,
                                              .body_bytes_max = 2 * BODY_BYTES_MAX, /* of the largest call */
                                              .idle_timeout_ms = 15000,
                                              .request_timeout_ms = 10000};
    char crt[LIMIT_PATH_BYTES + 32], key[LIMIT_PATH_BYTES + 32];
    (void)snprintf(crt, sizeof crt, "%s.crt", e->prefix);
    (void)snprintf(key, sizeof key, "%s.key", e->prefix);
    if (make_server(e, f) != E_OK) {
        return false;
    }
    e->tls = conn_tls_open(&(struct conn_tls_files){.cert_path = crt, .key_path = key, .anybody = true, .from_13 = from_13}, f);
    e->http = e->tls == NULL ? NULL : http_server_new(&e->x, &limits, handle_anybody, e);
    return e->http != NULL && http_server_listen(e->http, address, e->tls, f) == E_OK;
}

struct enroller *enroller_new(const struct conn_context *x, const struct enroller_options *o, struct worker *storage,
                              struct ingest *ingest, struct giver *giver, struct fault *f) {
    struct enroller *e = mem_new(1, sizeof *e);
    if (e == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "enrolment");
        return NULL;
    }
    e->x = *x;
    e->storage = storage;
    e->registrar = o->registrar;
    e->ingest = ingest;
    e->life_ms = (int64_t)o->life_hours * 3600000;
    (void)snprintf(e->ca_dir, sizeof e->ca_dir, "%s", o->ca_dir);
    (void)snprintf(e->prefix, sizeof e->prefix, "%.1000s/enroll", o->data_dir);
    memcpy(e->core_key, o->core_key, sizeof e->core_key);
    if (authority_open(o->ca_dir, &e->ca, f) != E_OK || (o->address[0] != 0 && !listen_anybody(e, o->address, o->from_13, f))) {
        enroller_free(e);
        return NULL;
    }
    struct revoker_options lists = {
        .loop = x->loop, .storage = storage, .giver = giver, .ca = &e->ca, .ca_dir = o->ca_dir, .broker_pid = o->broker_pid};
    e->revoker = revoker_new(&lists, f);
    if (e->revoker == NULL) {
        enroller_free(e);
        return NULL;
    }
    e->timer = (struct loop_timer){.fire = tick, .context = e};
    loop_timer_after(x->loop, &e->timer, TICK_MS);
    ingest_on_certify(ingest, heard, e);
    revoker_publish(e->revoker);
    return e;
}

void enroller_stop(struct enroller *e) {
    if (e != NULL) {
        e->stopping = true;
        ingest_on_certify(e->ingest, NULL, NULL);
        revoker_stop(e->revoker);
        loop_timer_cancel(e->x.loop, &e->timer);
        http_server_free(e->http);
        e->http = NULL;
    }
}

void enroller_free(struct enroller *e) {
    if (e != NULL) {
        http_server_free(e->http);
        conn_tls_free(e->tls);
        revoker_free(e->revoker);
        authority_close(&e->ca);
        mem_free(e);
    }
}
