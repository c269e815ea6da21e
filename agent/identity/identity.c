#include "agent/identity/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/identity/doorway.h"
#include "agent/identity/sitecert.h"
#include "agent/state/holding.h"
#include "federation/certify.h"
#include "federation/trust.h"
#include "include/grey/limits.h"
#include "platform/cert.h"
#include "platform/crl.h"
#include "platform/csr.h"
#include "platform/keyring.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"
#include "platform/vouch.h"
#include "platform/wholefile.h"

#define PEM_BYTES_MAX 65536u
#define TRUST_BYTES_MAX (2u * CRL_PEM_BYTES_MAX)
#define LOOK_MS_FIRST 5000u
#define LOOK_MS 600000u      /* how often it looks how old its certificate is */
#define ASK_MS_MAX 21600000u /* doubled from LOOK_MS on while no answer comes: the core may be away for a week */
#define WARN_S (3 * 86400)   /* before the end */

static const char *const reasons[] = {"trust", "certificate"};
enum { REFUSED_TRUST, REFUSED_CERTIFICATE };
static struct metric expires = METRIC_GAUGE("grey_identity_certificate_expires_seconds",
                                            "When this gateway's certificate ends, in Unix seconds; 0: it has none.");
static struct metric renewals =
    METRIC_COUNTER("grey_identity_renewals_total", "Certificates of this gateway that replaced an older one.");
static struct metric refused = METRIC_COUNTER_LABELS("grey_identity_refused_total",
                                                     "Certificates and trust lists that came and did not hold.", "reason", reasons);

void identity_register(void) {
    metrics_register(&expires);
    metrics_register(&renewals);
    metrics_register(&refused);
    sitecert_register();
}

enum task { TASK_LOOK, TASK_TRUST, TASK_CERTIFICATE };

/* One at a time: what the crypto worker does for us. */
struct work {
    struct worker_job job;
    enum task task;
    struct builder in;      /* trust list or certificate that came, with a NUL */
    struct builder request; /* of TASK_LOOK: PEM, empty when none is due */
    struct cert_facts facts;
    bool changed; /* a file was replaced */
    enum grey_error err;
    struct fault fault;
};

struct identity {
    struct conn_context x;
    struct node *node;
    struct uplink *uplink;
    struct sitecert *sitecert; /* NULL: links to other gateways are plain */
    struct doorway *doorway;
    struct conn_tls *tls, *upstream_tls;
    struct loop_timer timer;
    struct work work;
    bool working, stopping, trust_due, trust_asking;
    struct builder coming; /* a certificate that waits for the worker; empty: none */
    uint64_t issue;        /* of the trust list in the file, as far as this process knows */
    uint32_t trust_next;   /* chunk of it that is read next */
    struct builder trust;
    uint64_t asked_ms, ask_every_ms;
    char site[LIMIT_NAME_BYTES + 1], node_name[LIMIT_NAME_BYTES + 1];
    char ca_path[LIMIT_PATH_BYTES + 1], cert_path[LIMIT_PATH_BYTES + 1], key_path[LIMIT_PATH_BYTES + 1],
        trust_path[LIMIT_PATH_BYTES + 16];
};

/* --- on the crypto worker ------------------------------------------------------------------------------------------------------------------- */

/* All CA certificates that this gateway trusts, as one text. */
static enum grey_error read_authorities(const struct identity *i, struct builder *out, struct fault *f) {
    builder_init(out, TRUST_BYTES_MAX + PEM_BYTES_MAX);
    enum grey_error err = wholefile_read(i->ca_path, out, f);
    if (err == E_OK && wholefile_exists(i->trust_path)) {
        out->size--;
        err = wholefile_read(i->trust_path, out, f);
    }
    return err;
}

static enum grey_error read_own(const struct identity *i, struct cert_facts *facts, struct fault *f) {
    struct builder pem;
    builder_init(&pem, PEM_BYTES_MAX);
    enum grey_error err = wholefile_read(i->cert_path, &pem, f);
    err = err != E_OK ? err : cert_read((const char *)pem.data, facts, f);
    builder_free(&pem);
    return err;
}

static enum grey_error make_request(const struct identity *i, struct builder *request, struct fault *f) {
    struct keysign key = {0};
    enum grey_error err = keyring_open(i->key_path, &key, f);
    err = err != E_OK ? err : csr_make(i->site, i->node_name, &key, request, f);
    keysign_close(&key);
    return err;
}

static enum grey_error look(struct identity *i, struct work *w) {
    enum grey_error err = read_own(i, &w->facts, &w->fault);
    int64_t now_s = now_wall_ms() / 1000, life_s = w->facts.not_after_s - w->facts.not_before_s;
    if (err == E_OK && now_s - w->facts.not_before_s > life_s / 3) {
        err = make_request(i, &w->request, &w->fault);
    }
    return err;
}

/* The list must be by a CA that comes with it; that they may come at all, the core's signature over the object has said. */
static enum grey_error take_trust(struct identity *i, struct work *w) {
    struct trust_parts parts;
    struct crl_facts fresh, old;
    struct builder authorities, have;
    struct bytes text = bytes_of(w->in.data, w->in.size - 1);
    if (!trust_split(text, &parts)) {
        return fault_set(&w->fault, E_BAD_MESSAGE, "it is not certificates and a list");
    }
    builder_init(&authorities, PEM_BYTES_MAX);
    builder_add(&authorities, parts.authorities);
    builder_add_byte(&authorities, 0);
    builder_init(&have, TRUST_BYTES_MAX);
    enum grey_error err =
        authorities.err != E_OK ? authorities.err : crl_read(parts.list, (const char *)authorities.data, &fresh, &w->fault);
    bool there = err == E_OK && wholefile_exists(i->trust_path) && wholefile_read(i->trust_path, &have, &w->fault) == E_OK;
    bool same = there && have.size == w->in.size && memcmp(have.data, w->in.data, have.size) == 0;
    struct trust_parts former;
    if (there && !same && trust_split(bytes_of(have.data, have.size - 1), &former) &&
        crl_read(former.list, (const char *)authorities.data, &old, &w->fault) == E_OK && old.number > fresh.number) {
        err = fault_set(&w->fault, E_CONDITION, "its number %" PRIu64 " is below %" PRIu64, fresh.number, old.number);
    }
    if (err == E_OK && !same) {
        err = wholefile_write(i->trust_path, text, 0644, &w->fault);
        w->changed = err == E_OK;
    }
    builder_free(&authorities);
    builder_free(&have);
    return err;
}

/* The certificate last, for it decides what is asked for next. */
static enum grey_error keep_certificate(const struct identity *i, const char *pem, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 32];
    struct builder own, delegation;
    builder_init(&own, PEM_BYTES_MAX);
    builder_init(&delegation, PEM_BYTES_MAX);
    sitecert_beside(i->cert_path, SITECERT_DELEGATION_FILE, path, sizeof path);
    enum grey_error err = vouch_split(pem, &own, &delegation, f);
    if (err == E_OK && delegation.size > 0) {
        err = wholefile_write(path, builder_bytes(&delegation), 0644, f);
    }
    err = err != E_OK ? err : wholefile_write(i->cert_path, builder_bytes(&own), 0644, f);
    builder_free(&own);
    builder_free(&delegation);
    return err;
}

/* For this gateway and this key, by a CA that is trusted, and better than what is there. */
static enum grey_error take_certificate(struct identity *i, struct work *w) {
    struct cert_facts own;
    struct builder authorities;
    const char *pem = (const char *)w->in.data;
    enum grey_error err = read_own(i, &own, &w->fault);
    err = err != E_OK ? err : cert_read(pem, &w->facts, &w->fault);
    if (err == E_OK && memcmp(own.fingerprint, w->facts.fingerprint, sizeof own.fingerprint) == 0) {
        return E_OK;
    }
    if (err == E_OK && vouch_text_is_by_site(pem)) {
        return E_OK; /* what neighbours gave lies elsewhere, for the link to the core shows what the core gave: sitecert */
    }
    err = err != E_OK ? err : read_authorities(i, &authorities, &w->fault);
    if (err != E_OK) {
        return err;
    }
    err = cert_verify(pem, (const char *)authorities.data, &w->fault);
    if (err == E_OK && (memcmp(own.key_hash, w->facts.key_hash, sizeof own.key_hash) != 0 || strcmp(own.uri, w->facts.uri) != 0 ||
                        strcmp(own.subject_cn, w->facts.subject_cn) != 0 || w->facts.not_after_s <= own.not_after_s)) {
        err = fault_set(&w->fault, E_CERT, "it is not a newer one for this gateway's key and name: '%.80s'", w->facts.uri);
    }
    err = err != E_OK ? err : keep_certificate(i, pem, &w->fault);
    w->changed = err == E_OK;
    builder_free(&authorities);
    return err;
}

static void run_work(struct worker_job *job) {
    struct work *w = (struct work *)(void *)job;
    struct identity *i = (struct identity *)(void *)((char *)w - offsetof(struct identity, work));
    w->err = w->task == TASK_LOOK ? look(i, w) : w->task == TASK_TRUST ? take_trust(i, w) : take_certificate(i, w);
}

/* --- on the loop ---------------------------------------------------------------------------------------------------------------------------- */

static void work_done(struct worker_job *job);

/* in: taken. */
static bool begin(struct identity *i, enum task task, struct builder in) {
    if (i->working || i->stopping) {
        builder_free(&in);
        return false;
    }
    i->work = (struct work){.job = {.work = run_work, .done = work_done}, .task = task, .in = in};
    builder_init(&i->work.request, CSR_PEM_BYTES_MAX);
    i->working = worker_submit(i->x.crypto, &i->work.job) == E_OK;
    if (!i->working) {
        builder_free(&i->work.in);
    }
    return i->working;
}

static void reload(struct identity *i, const char *why) {
    struct conn_tls *const all[] = {i->tls, i->upstream_tls};
    for (size_t k = 0; k < 2; k++) {
        struct fault f = {0};
        if (all[k] != NULL && conn_tls_reload(all[k], &f) != E_OK) {
            log_error("identity", "reload", "%s: what was read before stays in use: %s", why, f.text);
        }
    }
}

static void request_kept(void *context, const struct node_answer *a) {
    (void)context;
    if (a->err != E_OK) {
        log_limited(LOG_WARN, "identity", "renew", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
}

/* False: the last one is not so long ago. */
static bool propose_request(struct identity *i, struct bytes request) {
    char key[sizeof CERTIFY_KEY_REQUEST + LIMIT_NAME_BYTES];
    struct builder b;
    uint64_t now_ms = loop_now_ms(i->x.loop);
    if (i->asked_ms != 0 && now_ms < i->asked_ms + i->ask_every_ms) {
        return false;
    }
    i->ask_every_ms = i->asked_ms == 0 ? LOOK_MS : i->ask_every_ms * 2 > ASK_MS_MAX ? ASK_MS_MAX : i->ask_every_ms * 2;
    i->asked_ms = now_ms;
    (void)snprintf(key, sizeof key, CERTIFY_KEY_REQUEST "%s", i->node_name);
    builder_init(&b, CERTIFY_REQUEST_BYTES_MAX + 1024u);
    payload_kv(&b, false, bytes_str(key), KV_ALWAYS, 0, bytes_str("application/pkcs10"), request);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload != NULL) {
        node_propose(i->node, ENTRY_KV, payload, true, request_kept, NULL);
        blob_unref(payload);
    }
    return true;
}

static void see_sites(struct identity *i) {
    if (i->sitecert != NULL) {
        sitecert_changed(i->sitecert);
    }
}

/* Files are new, by way of the address where gateways enrol. */
static void renewed(void *context) {
    struct identity *i = context;
    metrics_add(&renewals, 0, 1);
    i->asked_ms = 0;
    reload(i, i->cert_path);
    loop_timer_after(i->x.loop, &i->timer, 0);
    see_sites(i);
}

static void looked(struct identity *i, const struct work *w) {
    char end[32];
    int64_t left_s = w->facts.not_after_s - now_wall_ms() / 1000;
    metrics_set(&expires, 0, w->facts.not_after_s);
    doorway_tell(i->doorway, w->facts.not_after_s);
    now_format(w->facts.not_after_s * 1000, end);
    if (w->request.size > 0 && propose_request(i, builder_bytes(&w->request))) {
        log_at(left_s < WARN_S ? LOG_WARN : LOG_INFO, "identity", left_s < 0 ? "lapsed" : "renew",
               "the certificate ends %s; asking for a new one%s", end,
               left_s < 0 ? ".  The broker lets this gateway in no more; where the core can be reached it is renewed there, as "
                            "'greyd enroll' does"
                          : "");
    }
}

static void trust_on(struct identity *i);

static void go_on(struct identity *i) {
    if (i->coming.size > 0) {
        struct builder in = i->coming;
        builder_init(&i->coming, CERTIFY_CERTIFICATE_BYTES_MAX + 1);
        (void)begin(i, TASK_CERTIFICATE, in);
    } else if (i->trust_due) {
        trust_on(i);
    }
}

static void work_done(struct worker_job *job) {
    struct work *w = (struct work *)(void *)job;
    struct identity *i = (struct identity *)(void *)((char *)w - offsetof(struct identity, work));
    i->working = false;
    if (w->err != E_OK) {
        if (w->task != TASK_LOOK) {
            metrics_add(&refused, w->task == TASK_TRUST ? REFUSED_TRUST : REFUSED_CERTIFICATE, 1);
        }
        log_error("identity",
                  w->task == TASK_LOOK    ? "look"
                  : w->task == TASK_TRUST ? "trust"
                                          : "certificate",
                  "error=GREY-%d %s: %s", error_id(w->err), error_sentence(w->err), w->fault.text);
    } else if (w->task == TASK_LOOK && !i->stopping) {
        looked(i, w);
    } else if (w->changed && w->task == TASK_TRUST) {
        log_info("identity", "trust", "certificates and revocations of the core, issue=%" PRIu64, i->issue);
        reload(i, i->trust_path);
        if (!i->stopping) {
            node_check_certificates(i->node);
        }
    } else if (w->changed) {
        char end[32];
        now_format(w->facts.not_after_s * 1000, end);
        log_info("identity", "renewed", "the certificate ends %s", end);
        metrics_add(&renewals, 0, 1);
        metrics_set(&expires, 0, w->facts.not_after_s);
        i->asked_ms = 0;
        reload(i, i->cert_path);
        doorway_tell(i->doorway, w->facts.not_after_s);
        see_sites(i);
    }
    builder_free(&w->in);
    builder_free(&w->request);
    if (!i->stopping) {
        go_on(i);
    }
}

/* --- the trust list, chunk by chunk ---------------------------------------------------------------------------------------------------------- */

static struct table *rows(const struct identity *i) {
    return state_table(node_state(i->node));
}

static void chunk_came(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct identity *i = context;
    (void)err, (void)detail; /* without a payload it is tried again with the next entry */
    struct bytes content = payload == NULL ? bytes_of(NULL, 0) : holding_content(blob_bytes(payload));
    i->trust_asking = false;
    if (i->stopping) {
        return;
    }
    if (err != E_OK && err != E_NOT_FOUND) {
        log_limited(LOG_ERROR, "identity", "trust", "the list cannot be read: error=GREY-%d %s", error_id(err), detail);
        i->issue = 0; /* from its first chunk the next time */
    }
    if (content.size == 0) {
        builder_free(&i->trust); /* another issue replaced it: its entry comes */
        return;
    }
    builder_add(&i->trust, content);
    trust_on(i);
}

/* Reads what is in force; a newer issue on the way begins anew. */
static void trust_on(struct identity *i) {
    struct holding h;
    if (i->trust_asking || i->stopping || !holding_find(rows(i), OBJECT_POLICY, bytes_str(TRUST_NAME), &h) ||
        h.force.version == 0) {
        return;
    }
    if (h.force.issue != i->issue) {
        builder_free(&i->trust);
        builder_init(&i->trust, TRUST_BYTES_MAX);
        i->issue = h.force.issue;
        i->trust_next = 0;
        i->trust_due = true;
    }
    if (!i->trust_due) {
        return;
    }
    if (i->trust_next < object_chunk_count(&h.force)) {
        i->trust_asking = true;
        node_payload(i->node, holding_chunk(rows(i), object_hash(&h.force, i->trust_next++)), chunk_came, i);
    } else if (!i->working) {
        struct builder in = i->trust;
        builder_init(&i->trust, TRUST_BYTES_MAX);
        i->trust_due = false;
        builder_add_byte(&in, 0);
        if (in.err == E_OK) {
            (void)begin(i, TASK_TRUST, in);
        } else {
            builder_free(&in);
        }
    }
}

/* --- entries ---------------------------------------------------------------------------------------------------------------------------------- */

/* What stands under a key of this module in an entry; empty: another key. */
static struct bytes value_under(const struct entry *e, const char *key) {
    struct bytes type, value, at = payload_kv_key(blob_bytes(e->payload));
    return bytes_equal_str(at, key) && payload_kv_value(blob_bytes(e->payload), &type, &value) ? value : bytes_of(NULL, 0);
}

static void key_written(struct identity *i, const struct entry *e) {
    static const char prefix[] = CERTIFY_KEY_REQUEST;
    char own[sizeof CERTIFY_KEY_CERTIFICATE + LIMIT_NAME_BYTES];
    struct bytes type, value, key = payload_kv_key(blob_bytes(e->payload));
    if (i->uplink != NULL && key.size > strlen(prefix) && memcmp(key.data, prefix, strlen(prefix)) == 0 &&
        payload_kv_value(blob_bytes(e->payload), &type, &value) && value.size <= CERTIFY_REQUEST_BYTES_MAX) {
        uplink_certify(i->uplink, value);
    }
    if (key.size > strlen(CERTIFY_KEY_CERTIFICATE) &&
        memcmp(key.data, CERTIFY_KEY_CERTIFICATE, strlen(CERTIFY_KEY_CERTIFICATE)) == 0) {
        see_sites(i);
    }
    (void)snprintf(own, sizeof own, CERTIFY_KEY_CERTIFICATE "%s", i->node_name);
    value = value_under(e, own);
    if (value.size > 0 && value.size <= CERTIFY_CERTIFICATE_BYTES_MAX && memchr(value.data, 0, value.size) == NULL) {
        builder_free(&i->coming);
        builder_init(&i->coming, CERTIFY_CERTIFICATE_BYTES_MAX + 1);
        builder_add(&i->coming, value);
        builder_add_byte(&i->coming, 0);
        if (!i->working && i->coming.err == E_OK) {
            go_on(i);
        }
    }
}

void identity_applied(struct identity *i, const struct entry *e) {
    if (e->kind == ENTRY_KV) {
        key_written(i, e);
    } else if (e->kind == ENTRY_OBJECT) {
        trust_on(i);
    }
}

/* --- life -------------------------------------------------------------------------------------------------------------------------------------- */

static void on_timer(void *context) {
    struct identity *i = context;
    struct builder none;
    builder_init(&none, 1);
    loop_timer_after(i->x.loop, &i->timer, LOOK_MS);
    trust_on(i); /* what came into force before this process began */
    (void)begin(i, TASK_LOOK, none);
}

struct identity *identity_new(const struct conn_context *x, const struct identity_options *o, struct node *node,
                              struct uplink *uplink, struct fault *f) {
    struct identity *i = mem_new(1, sizeof *i);
    if (i == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "identity");
        return NULL;
    }
    i->x = *x;
    i->node = node;
    i->uplink = uplink;
    i->tls = o->tls;
    i->upstream_tls = o->upstream_tls;
    (void)snprintf(i->site, sizeof i->site, "%s", o->site);
    (void)snprintf(i->node_name, sizeof i->node_name, "%s", o->node);
    (void)snprintf(i->ca_path, sizeof i->ca_path, "%s", o->ca_path);
    (void)snprintf(i->cert_path, sizeof i->cert_path, "%s", o->cert_path);
    (void)snprintf(i->key_path, sizeof i->key_path, "%s", o->key_path);
    (void)snprintf(i->trust_path, sizeof i->trust_path, "%.1000s/" IDENTITY_TRUST_FILE, o->data_dir);
    builder_init(&i->coming, CERTIFY_CERTIFICATE_BYTES_MAX + 1);
    builder_init(&i->trust, TRUST_BYTES_MAX);
    i->timer = (struct loop_timer){.fire = on_timer, .context = i};
    struct sitecert_options site = {.site = o->site,
                                    .node = o->node,
                                    .data_dir = o->data_dir,
                                    .ca_path = o->ca_path,
                                    .cert_path = o->cert_path,
                                    .key_path = o->key_path,
                                    .trust_path = i->trust_path,
                                    .tls = o->tls};
    i->sitecert = o->tls == NULL ? NULL : sitecert_new(x, &site, node, f);
    i->doorway = doorway_new(x->loop, o->cert_path, renewed, i, f);
    if (i->doorway == NULL || (o->tls != NULL && i->sitecert == NULL)) {
        identity_free(i);
        return NULL;
    }
    loop_timer_after(x->loop, &i->timer, LOOK_MS_FIRST);
    return i;
}

void identity_stop(struct identity *i) {
    if (i != NULL) {
        i->stopping = true;
        loop_timer_cancel(i->x.loop, &i->timer);
        sitecert_stop(i->sitecert);
        doorway_free(i->doorway);
        i->doorway = NULL;
        loop_timer_cancel(i->x.loop, &i->timer);
    }
}

void identity_free(struct identity *i) {
    if (i != NULL) {
        sitecert_free(i->sitecert);
        doorway_free(i->doorway);
        builder_free(&i->coming);
        builder_free(&i->trust);
        mem_free(i);
    }
}
