#include "core/sealed.h"

#include <stdio.h>
#include <string.h>

#include "federation/handshake.h"
#include "include/grey/limits.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/wholefile.h"

#define CA_BYTES_MAX (256u * 1024u)
#define URI_PREFIX "grey://"
#define BUCKETS 1024u
#define HELLOS_MAX 48u /* being judged: of more, sites say hello again */

struct session {
    struct envelope_receiver up;
    struct envelope_sender down;
};

struct entry {
    struct entry *next;
    char site[LIMIT_NAME_BYTES + 1];
    enum sealed_manner manner;
    bool awaits, has_now, has_coming;
    struct handshake handshake; /* awaits: of the hello whose welcome is on its way */
    struct session now, coming; /* coming: nothing has been heard under it yet */
    uint64_t heard_ms;
};

struct sealed {
    struct conn_context x;
    sealed_heard *heard;
    void *context;
    struct entry *buckets[BUCKETS];
    uint32_t count, open, judging; /* open: with a session */
    bool stopped;
    uint8_t secret_key[KEYS_ED25519_SECRET_BYTES];
    char ca_path[LIMIT_PATH_BYTES + 1];
};

struct judgement {
    struct worker_job job;
    struct sealed *s;
    struct grey_name site;
    enum event_channel channel;
    struct blob *content;
    struct builder scratch;
    struct handshake handshake;
    struct handshake_hello said;
    struct sealed_speaker who;
    enum grey_error err;
    struct fault fault;
};

static struct metric sessions = METRIC_GAUGE("grey_core_sealed_sites", "Sites with a session that is sealed end to end.");
static struct metric refused = METRIC_COUNTER("grey_core_sealed_hellos_refused_total",
                                              "Sealed hellos that did not hold, or were by a gateway that may not speak.");

void sealed_register(void) {
    metrics_register(&sessions);
    metrics_register(&refused);
}

/* --- on the crypto worker ------------------------------------------------------------------------------------------------------------------- */

/* "grey://SITE/NODE" of this site. */
static bool take_node(const char *uri, const char *site, char node[LIMIT_NAME_BYTES + 1]) {
    size_t size = strlen(site), prefix = strlen(URI_PREFIX);
    if (strncmp(uri, URI_PREFIX, prefix) != 0 || strncmp(uri + prefix, site, size) != 0 || uri[prefix + size] != '/') {
        return false;
    }
    const char *name = uri + prefix + size + 1;
    if (!grey_name_valid(name, strlen(name))) {
        return false;
    }
    memcpy(node, name, strlen(name) + 1);
    return true;
}

static enum grey_error judge_certificate(struct judgement *j, const char *pem, const char *ca) {
    struct cert_facts facts;
    enum grey_error err = cert_read(pem, &facts, &j->fault);
    err = err != E_OK ? err : cert_verify(pem, ca, &j->fault);
    err = err != E_OK ? err : cert_has_signed(pem, j->said.proof, j->said.signature, &j->fault);
    if (err == E_OK && (strcmp(facts.subject_cn, j->site.text) != 0 || !take_node(facts.uri, j->site.text, j->who.node))) {
        err = fault_set(&j->fault, E_WRONG_SITE, "the certificate is of %s, %s", facts.subject_cn, facts.uri);
    }
    if (err == E_OK && (facts.authority || (facts.roles & CERT_ROLE_GATEWAY) == 0)) {
        err = fault_set(&j->fault, E_CERT, "the certificate of %s is not a gateway's", facts.uri);
    }
    return err;
}

static void judge(struct worker_job *job) {
    struct judgement *j = (struct judgement *)(void *)job;
    struct builder ca, pem;
    builder_init(&ca, CA_BYTES_MAX);
    builder_init(&pem, 2 * HANDSHAKE_CERT_BYTES_MAX);
    builder_init(&j->scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    j->err = handshake_get_hello(&j->handshake, j->site.text, j->s->secret_key, blob_bytes(j->content), &j->scratch, &j->said);
    j->err = j->err != E_OK ? j->err : wholefile_read(j->s->ca_path, &ca, &j->fault);
    j->err = j->err != E_OK ? j->err : cert_from_der(j->said.cert, &pem, &j->fault);
    j->err = j->err != E_OK ? j->err : judge_certificate(j, (const char *)pem.data, (const char *)ca.data);
    builder_free(&ca);
    builder_free(&pem);
}

/* --- sites ---------------------------------------------------------------------------------------------------------------------------------- */

static struct entry **place(struct sealed *s, const char *site) {
    struct entry **at = &s->buckets[digest_crc32(0, bytes_str(site)) % BUCKETS];
    while (*at != NULL && strcmp((*at)->site, site) != 0) {
        at = &(*at)->next;
    }
    return at;
}

static void close_session(struct sealed *s, struct entry *e) {
    s->open -= e->has_now || e->has_coming;
    e->awaits = e->has_now = e->has_coming = false;
    metrics_set(&sessions, 0, s->open);
}

static void forget(struct sealed *s, struct entry **at) {
    struct entry *e = *at;
    *at = e->next;
    close_session(s, e);
    cipher_wipe(e, sizeof *e);
    mem_free(e);
    s->count--;
}

static bool make_room(struct sealed *s, uint64_t now_ms) {
    for (uint32_t i = 0; i < BUCKETS && s->count >= SEALED_SITES_MAX; i++) {
        for (struct entry **at = &s->buckets[i]; *at != NULL;) {
            if (now_ms - (*at)->heard_ms > SEALED_IDLE_MS) {
                forget(s, at);
            } else {
                at = &(*at)->next;
            }
        }
    }
    return s->count < SEALED_SITES_MAX;
}

/* NULL: no room. */
static struct entry *find_or_make(struct sealed *s, const char *site) {
    struct entry *e = *place(s, site);
    if (e == NULL && make_room(s, loop_now_ms(s->x.loop)) && (e = mem_new(1, sizeof *e)) != NULL) {
        struct entry **at = place(s, site);
        (void)snprintf(e->site, sizeof e->site, "%s", site);
        *at = e;
        s->count++;
    }
    if (e != NULL) {
        e->heard_ms = loop_now_ms(s->x.loop);
    }
    return e;
}

enum sealed_manner sealed_manner(struct sealed *s, const char *site) {
    const struct entry *e = *place(s, site);
    return e == NULL ? SEALED_UNKNOWN : e->manner;
}

void sealed_greeted_plain(struct sealed *s, const char *site) {
    struct entry *e = find_or_make(s, site);
    if (e != NULL) {
        e->manner = SEALED_PLAIN;
        close_session(s, e);
    }
}

static void release(struct sealed *s) {
    if (!s->stopped || s->judging > 0) {
        return;
    }
    for (uint32_t i = 0; i < BUCKETS; i++) {
        while (s->buckets[i] != NULL) {
            forget(s, &s->buckets[i]);
        }
    }
    cipher_wipe(s, sizeof *s);
    mem_free(s);
}

/* --- hello and welcome ---------------------------------------------------------------------------------------------------------------------- */

static void judged(struct worker_job *job) {
    struct judgement *j = (struct judgement *)(void *)job;
    struct sealed *s = j->s;
    s->judging--;
    struct entry *e = j->err == E_OK && !s->stopped ? find_or_make(s, j->site.text) : NULL;
    if (e != NULL) {
        e->handshake = j->handshake;
        e->awaits = true;
        s->heard(s->context, &j->site, j->channel, j->said.hello, &j->who);
    } else if (j->err != E_OK) {
        metrics_add(&refused, 0, 1);
        log_limited(LOG_WARN, "ingest", "sealed-hello", "site=%s error=GREY-%d %s: %s", j->site.text, error_id(j->err),
                    error_sentence(j->err), j->fault.text);
    }
    cipher_wipe(&j->handshake, sizeof j->handshake);
    blob_unref(j->content);
    builder_free(&j->scratch);
    mem_free(j);
    release(s);
}

void sealed_hello(struct sealed *s, const struct grey_name *site, enum event_channel c, struct bytes content) {
    struct judgement *j = s->judging < HELLOS_MAX && !s->stopped ? mem_new(1, sizeof *j) : NULL;
    if (j == NULL) {
        return; /* the site says it again */
    }
    j->job = (struct worker_job){.work = judge, .done = judged};
    j->s = s;
    j->site = *site;
    j->channel = c;
    j->content = blob_copy(content);
    if (j->content == NULL || worker_submit(s->x.crypto, &j->job) != E_OK) {
        blob_unref(j->content);
        mem_free(j);
        return;
    }
    s->judging++;
}

bool sealed_awaits(struct sealed *s, const char *site) {
    const struct entry *e = *place(s, site);
    return e != NULL && e->awaits;
}

enum grey_error sealed_welcome(struct sealed *s, const char *site, struct bytes welcome, struct builder *out) {
    struct entry *e = *place(s, site);
    struct handshake_keys keys;
    uint8_t fresh[KEYS_X25519_BYTES];
    if (e == NULL || !e->awaits) {
        return E_NOT_FOUND;
    }
    struct handshake h = e->handshake; /* it may have to be said again */
    keys_random(fresh, sizeof fresh);
    enum grey_error err = handshake_put_welcome(out, &h, fresh, welcome, &keys);
    if (err == E_OK) {
        s->open += !(e->has_now || e->has_coming);
        metrics_set(&sessions, 0, s->open);
        envelope_receiver_init(&e->coming.up, ENVELOPE_UP, keys.up);
        envelope_sender_init(&e->coming.down, ENVELOPE_DOWN, keys.down, loop_now_ms(s->x.loop));
        e->has_coming = true;
        e->manner = SEALED_SEALED;
    }
    cipher_wipe(&keys, sizeof keys);
    cipher_wipe(fresh, sizeof fresh);
    return err;
}

void sealed_welcomed(struct sealed *s, const char *site) {
    struct entry *e = *place(s, site);
    if (e != NULL) {
        e->awaits = false;
        cipher_wipe(&e->handshake, sizeof e->handshake);
    }
}

/* --- frames --------------------------------------------------------------------------------------------------------------------------------- */

enum grey_error sealed_open(struct sealed *s, const char *site, enum event_channel c, const struct frame *f,
                            struct builder *scratch, struct frame *plain) {
    struct entry *e = *place(s, site);
    if (e == NULL || !(e->has_now || e->has_coming)) {
        return E_NOT_FOUND;
    }
    enum grey_error err = e->has_now ? envelope_open(&e->now.up, c, f, scratch, plain) : E_SEALED;
    if (err != E_OK && e->has_coming && envelope_open(&e->coming.up, c, f, scratch, plain) == E_OK) {
        e->now = e->coming;
        e->has_now = true;
        e->has_coming = false;
        cipher_wipe(&e->coming, sizeof e->coming);
        err = E_OK;
    }
    e->heard_ms = err == E_OK ? loop_now_ms(s->x.loop) : e->heard_ms;
    return err;
}

enum grey_error sealed_seal(struct sealed *s, const char *site, enum event_channel c, struct bytes frame, struct builder *out) {
    struct entry *e = *place(s, site);
    if (e == NULL || !(e->has_now || e->has_coming)) {
        return E_NOT_FOUND;
    }
    return envelope_seal(e->has_now ? &e->now.down : &e->coming.down, c, frame, loop_now_ms(s->x.loop), out);
}

/* --- life ----------------------------------------------------------------------------------------------------------------------------------- */

struct sealed *sealed_new(const struct conn_context *x, const uint8_t *secret_key, const char *ca_path, sealed_heard *heard,
                          void *context) {
    struct sealed *s = mem_new(1, sizeof *s);
    if (s != NULL) {
        s->x = *x;
        s->heard = heard;
        s->context = context;
        memcpy(s->secret_key, secret_key, sizeof s->secret_key);
        (void)snprintf(s->ca_path, sizeof s->ca_path, "%s", ca_path == NULL ? "" : ca_path);
    }
    return s;
}

void sealed_free(struct sealed *s) {
    if (s != NULL) {
        s->stopped = true;
        release(s);
    }
}
