#include "agent/identity/sitecert.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "federation/certify.h"
#include "include/grey/limits.h"
#include "platform/crl.h"
#include "platform/keyring.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"
#include "platform/vouch.h"
#include "platform/wholefile.h"

#define MEMBERS_MAX (LIMIT_MEMBERS + 1u) /* and this gateway, should it be none */
#define KEY_BYTES (sizeof CERTIFY_KEY_CERTIFICATE + LIMIT_NAME_BYTES)
#define PEM_BYTES_MAX 65536u
#define TRUST_BYTES_MAX (2u * CRL_PEM_BYTES_MAX + PEM_BYTES_MAX)
#define FIRST_MS 6000u   /* after the start: the site first finds itself */
#define SOON_MS 1000u    /* after a certificate was written: several come together */
#define RETRY_MS 60000u  /* after a look that could do nothing yet, or whose certificates may not have come to be written */
#define LOOK_MS 3600000u /* a life of days is measured in hours */
#define GAIN_S 3600      /* a new one must hold for so much longer than the one before */

static struct metric vouched =
    METRIC_COUNTER("grey_identity_vouched_total", "Certificates that this gateway gave its neighbours while the core was away.");
static struct metric expires =
    METRIC_GAUGE("grey_identity_site_certificate_expires_seconds",
                 "When the certificate that this gateway's neighbours gave it ends, in Unix seconds; 0: it has none.");

void sitecert_register(void) {
    metrics_register(&vouched);
    metrics_register(&expires);
}

/* A row of the site's log, and what is to stand there instead. */
struct member {
    char name[LIMIT_NAME_BYTES + 1];
    raft_index version;
    struct builder text;  /* with a NUL; empty: it could not be read */
    struct builder fresh; /* empty: nothing */
    bool vouched;
};

struct survey {
    struct worker_job job;
    struct member *members;
    uint32_t count;
    bool reload;
    int64_t site_end_s;
    enum grey_error err;
    struct fault fault;
};

struct sitecert {
    struct conn_context x;
    struct node *node;
    struct conn_tls *tls;
    struct loop_timer timer;
    struct survey survey;
    uint32_t read; /* members whose text was asked for */
    bool busy, again, unsettled, stopping;
    char site[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    char ca[LIMIT_PATH_BYTES + 1], cert[LIMIT_PATH_BYTES + 1], key[LIMIT_PATH_BYTES + 1], trust[LIMIT_PATH_BYTES + 32];
    char own[LIMIT_PATH_BYTES + 32], known[LIMIT_PATH_BYTES + 32], delegation[LIMIT_PATH_BYTES + 32];
};

void sitecert_beside(const char *cert_path, const char *name, char *out, size_t size) {
    const char *slash = strrchr(cert_path, '/');
    (void)snprintf(out, size, "%.*s%s", slash == NULL ? 0 : (int)(slash + 1 - cert_path), cert_path, name);
}

/* --- on the crypto worker ------------------------------------------------------------------------------------------------------------------- */

struct known {
    const char *trust;     /* PEM */
    struct builder others; /* what goes into the file */
    struct cert_facts own; /* what the core gave this gateway */
    struct builder own_text, delegation;
    struct keysign key; /* once it was asked for; it may lie in a TPM */
    bool asked;
    int64_t now_s;
    bool told; /* what the core gave stands in the log */
};

static void read_optional(const char *path, struct builder *out, size_t bytes_max) {
    builder_init(out, bytes_max);
    if (wholefile_read(path, out, NULL) != E_OK) {
        builder_free(out);
        builder_init(out, bytes_max);
    }
}

static bool replace(const char *path, struct bytes text) {
    struct builder have;
    struct fault f = {0};
    read_optional(path, &have, TRUST_BYTES_MAX);
    bool differs = have.size == 0 ? text.size > 0 : have.size - 1 != text.size || memcmp(have.data, text.data, text.size) != 0;
    bool done = differs && wholefile_write(path, text, 0644, &f) == E_OK;
    if (differs && !done) {
        log_error("identity", "vouch", "%s: %s", path, f.text);
    }
    builder_free(&have);
    return done;
}

/* What neighbours gave this gateway: better than what the core gave, and than what is there. */
static void take_own(struct sitecert *s, struct known *k, const struct member *m, const struct vouch_facts *v) {
    struct builder have;
    struct cert_facts facts = {0};
    k->told = memcmp(v->by_core.fingerprint, k->own.fingerprint, sizeof k->own.fingerprint) == 0 ||
              v->by_core.not_after_s > k->own.not_after_s;
    if (!v->by_site || memcmp(v->shown.key_hash, k->own.key_hash, sizeof k->own.key_hash) != 0 ||
        v->shown.not_after_s <= k->own.not_after_s) {
        return;
    }
    read_optional(s->own, &have, PEM_BYTES_MAX);
    if (have.size > 0 && cert_read((const char *)have.data, &facts, NULL) != E_OK) {
        facts = (struct cert_facts){0};
    }
    builder_free(&have);
    if (v->shown.not_after_s > facts.not_after_s && replace(s->own, bytes_of(m->text.data, m->text.size - 1))) {
        s->survey.reload = true;
        s->survey.site_end_s = v->shown.not_after_s;
    }
}

/* Asked for when it is needed only: a TPM is slow.  False: it cannot sign, which was told. */
static bool open_key(const struct sitecert *s, struct known *k) {
    struct fault f = {0};
    enum grey_error err = k->asked ? E_OK : keyring_open(s->key, &k->key, &f);
    k->asked = true;
    if (err != E_OK) {
        log_limited(LOG_WARN, "identity", "vouch", "no neighbour is vouched for: error=GREY-%d %s: %s", error_id(err),
                    error_sentence(err), f.text);
    }
    return k->key.key != NULL;
}

static void see_other(struct sitecert *s, struct known *k, struct member *m, const struct vouch_facts *v) {
    int64_t life_s = v->shown.not_after_s - v->shown.not_before_s, left_s = v->shown.not_after_s - k->now_s;
    bool due = left_s < (v->by_site ? life_s / 2 : life_s / 3);
    struct cert_facts facts;
    struct fault f = {0};
    if (v->by_site && left_s > 0) {
        builder_add(&k->others, bytes_of(m->text.data, m->text.size - 1));
    }
    if (!due || k->delegation.size == 0 || !open_key(s, k)) {
        return;
    }
    enum grey_error err =
        vouch_make((const char *)k->delegation.data, &k->key, (const char *)m->text.data, k->now_s, &m->fresh, &f);
    if (err != E_OK && err != E_CERT) {
        keysign_close(&k->key); /* a TPM that does not answer is not waited for once more for each neighbour */
    }
    builder_add_byte(&m->fresh, 0);
    err = err != E_OK ? err : m->fresh.err != E_OK ? m->fresh.err : cert_read((const char *)m->fresh.data, &facts, &f);
    if (err == E_OK && facts.not_after_s > v->shown.not_after_s + GAIN_S) {
        m->fresh.size--;
        m->vouched = true;
        return;
    }
    builder_free(&m->fresh);
    if (err != E_OK) {
        log_limited(LOG_WARN, "identity", "vouch", "node=%s error=GREY-%d %s: %s", m->name, error_id(err), error_sentence(err),
                    f.text);
    }
}

static void judge(struct sitecert *s, struct known *k, struct member *m) {
    struct vouch_facts v;
    struct fault f = {0};
    char uri[2 * LIMIT_NAME_BYTES + 16];
    (void)snprintf(uri, sizeof uri, "grey://%s/%s", s->site, m->name);
    enum grey_error err = m->text.size == 0 ? E_NOT_FOUND : vouch_read((const char *)m->text.data, k->trust, &v, &f);
    if (err == E_OK && (strcmp(v.shown.uri, uri) != 0 || strcmp(v.by_core.uri, uri) != 0)) {
        err = fault_set(&f, E_CERT, "it is for %.100s", v.shown.uri);
    }
    if (err != E_OK) {
        log_limited(LOG_WARN, "identity", "vouch", "what stands in the log for %s is not taken: error=GREY-%d %s", m->name,
                    error_id(err), f.text);
    } else if (strcmp(m->name, s->name) == 0) {
        take_own(s, k, m, &v);
    } else {
        see_other(s, k, m, &v);
    }
}

/* What the core gave this gateway comes into the log, if it does not stand there: its neighbours must have seen it. */
static void tell_own(struct sitecert *s, struct known *k) {
    struct survey *v = &s->survey;
    uint32_t i = 0;
    while (i < v->count && strcmp(v->members[i].name, s->name) != 0) {
        i++;
    }
    bool same = i < v->count && v->members[i].text.size == k->own_text.size && k->own_text.size > 0 &&
                memcmp(v->members[i].text.data, k->own_text.data, k->own_text.size) == 0;
    if (k->told || same || i == MEMBERS_MAX) { /* the same, and not taken: writing it again would go on for ever */
        return;
    }
    if (i == v->count) {
        v->members[v->count++] = (struct member){.version = 0};
        (void)snprintf(v->members[i].name, sizeof v->members[i].name, "%s", s->name);
    }
    builder_init(&v->members[i].fresh, CERTIFY_CERTIFICATE_BYTES_MAX);
    builder_add(&v->members[i].fresh, bytes_of(k->own_text.data, k->own_text.size - 1));
}

static void survey(struct worker_job *job) {
    struct survey *v = (struct survey *)(void *)job;
    struct sitecert *s = (struct sitecert *)(void *)((char *)v - offsetof(struct sitecert, survey));
    struct known k = {.now_s = now_wall_ms() / 1000};
    struct builder trust;
    builder_init(&trust, TRUST_BYTES_MAX);
    builder_init(&k.others, PEM_BYTES_MAX);
    builder_init(&k.own_text, PEM_BYTES_MAX);
    v->err = wholefile_read(s->ca, &trust, &v->fault);
    if (v->err == E_OK && wholefile_exists(s->trust)) {
        trust.size--;
        v->err = wholefile_read(s->trust, &trust, &v->fault);
    }
    v->err = v->err != E_OK ? v->err : wholefile_read(s->cert, &k.own_text, &v->fault);
    v->err = v->err != E_OK ? v->err : cert_read((const char *)k.own_text.data, &k.own, &v->fault);
    read_optional(s->delegation, &k.delegation, PEM_BYTES_MAX);
    k.trust = (const char *)trust.data;
    for (uint32_t i = 0; i < v->count && v->err == E_OK; i++) {
        judge(s, &k, &v->members[i]);
    }
    if (v->err == E_OK) {
        tell_own(s, &k);
        v->reload = replace(s->known, builder_bytes(&k.others)) || v->reload;
    }
    keysign_close(&k.key);
    builder_free(&k.delegation);
    builder_free(&k.own_text);
    builder_free(&k.others);
    builder_free(&trust);
}

/* --- on the loop ---------------------------------------------------------------------------------------------------------------------------- */

static void end(struct sitecert *s) {
    for (uint32_t i = 0; s->survey.members != NULL && i < MEMBERS_MAX; i++) {
        builder_free(&s->survey.members[i].text);
        builder_free(&s->survey.members[i].fresh);
    }
    mem_free(s->survey.members);
    s->survey.members = NULL;
    s->busy = false;
    if (!s->stopping) {
        loop_timer_after(s->x.loop, &s->timer, s->again ? SOON_MS : s->unsettled ? RETRY_MS : LOOK_MS);
    }
    s->again = s->unsettled = false;
}

static void written(void *context, const struct node_answer *a) {
    (void)context;
    if (a->err != E_OK && a->err != E_CONDITION) { /* a neighbour or the core was first: all the better */
        log_limited(LOG_WARN, "identity", "vouch", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
}

static void vouched_for(void *context, const struct node_answer *a) {
    if (a->err == E_OK) {
        metrics_add(&vouched, 0, 1);
        log_info("identity", "vouch", "the core has not renewed the certificate of a neighbour: this gateway vouches for it");
    }
    written(context, a);
}

static void put_key(char key[KEY_BYTES], const char *name) {
    (void)snprintf(key, KEY_BYTES, CERTIFY_KEY_CERTIFICATE "%s", name);
}

static void propose(const struct sitecert *s, const struct member *m) {
    char key[KEY_BYTES];
    struct builder b;
    put_key(key, m->name);
    builder_init(&b, CERTIFY_CERTIFICATE_BYTES_MAX + 1024u);
    payload_kv(&b, false, bytes_str(key), m->version == 0 ? KV_IF_ABSENT : KV_IF_VERSION, m->version,
               bytes_str("application/pem-certificate-chain"), builder_bytes(&m->fresh));
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload != NULL) {
        node_propose(s->node, ENTRY_KV, payload, true, m->vouched ? vouched_for : written, NULL);
        blob_unref(payload);
    }
}

static void surveyed(struct worker_job *job) {
    struct survey *v = (struct survey *)(void *)job;
    struct sitecert *s = (struct sitecert *)(void *)((char *)v - offsetof(struct sitecert, survey));
    struct fault f = {0};
    if (v->err != E_OK) {
        log_limited(LOG_ERROR, "identity", "vouch", "error=GREY-%d %s: %s", error_id(v->err), error_sentence(v->err),
                    v->fault.text);
    }
    for (uint32_t i = 0; i < v->count && v->err == E_OK && !s->stopping; i++) {
        struct member *m = &v->members[i];
        if (m->fresh.size > 0) {
            propose(s, m);
            s->unsettled = true;
        }
    }
    if (v->reload && conn_tls_reload(s->tls, &f) != E_OK) {
        log_error("identity", "reload", "what was read before stays in use: %s", f.text);
    }
    if (v->site_end_s != 0) {
        char text[32];
        now_format(v->site_end_s * 1000, text);
        metrics_set(&expires, 0, v->site_end_s);
        log_info("identity", "vouched", "neighbours vouch for this gateway until %s", text);
    }
    end(s);
}

static void read_on(struct sitecert *s);

static void text_came(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct sitecert *s = context;
    struct bytes type, value;
    (void)err, (void)detail; /* a row whose payload is gone was replaced meanwhile: the next look finds it */
    struct member *m = &s->survey.members[s->read - 1];
    if (payload != NULL && payload_kv_value(blob_bytes(payload), &type, &value) && value.size > 0 &&
        value.size <= CERTIFY_CERTIFICATE_BYTES_MAX && memchr(value.data, 0, value.size) == NULL) {
        builder_add(&m->text, value);
        builder_add_byte(&m->text, 0);
    }
    read_on(s);
}

static void read_on(struct sitecert *s) {
    if (s->stopping) {
        end(s);
    } else if (s->read < s->survey.count) {
        struct member *m = &s->survey.members[s->read++];
        node_payload(s->node, m->version, text_came, s);
    } else {
        s->survey.job = (struct worker_job){.work = survey, .done = surveyed};
        if (worker_submit(s->x.crypto, &s->survey.job) != E_OK) {
            end(s);
        }
    }
}

/* Of those who are asked for, the ones of whom something stands in the log. */
static void rows_ready(void *context, const struct node_answer *a) {
    struct sitecert *s = context;
    struct survey *v = &s->survey;
    uint32_t asked = v->count;
    v->count = 0;
    if (s->stopping || a->err != E_OK) {
        end(s);
        return;
    }
    for (uint32_t i = 0; i < asked; i++) {
        struct kv_row row;
        char key[KEY_BYTES];
        put_key(key, v->members[i].name);
        enum table_found found = state_kv(node_state(s->node), bytes_str(key), &row);
        if (found == TABLE_FOUND) {
            struct member *m = &v->members[v->count++];
            memmove(m->name, v->members[i].name, sizeof m->name);
            m->version = row.version;
            builder_init(&m->text, CERTIFY_CERTIFICATE_BYTES_MAX + 1);
            builder_init(&m->fresh, CERTIFY_CERTIFICATE_BYTES_MAX + 1);
        }
        s->again = s->again || found == TABLE_UNKNOWN; /* it left memory at once */
    }
    read_on(s);
}

/* The members, each by its name: whoever else stands in the log, many that were removed as well, is vouched for no more and hides none of them. */
static void ask(struct sitecert *s) {
    struct survey *v = &s->survey;
    struct raft_status status;
    struct builder wants;
    builder_init(&wants, LIMIT_MEMBERS * (KEY_BYTES + 8u));
    node_raft_status(s->node, &status);
    for (uint32_t i = 0; i < status.members->count; i++) {
        const char *name = status.members->at[i].node.text;
        uint32_t same = 0;
        while (same < v->count && strcmp(v->members[same].name, name) != 0) {
            same++;
        }
        if (same == v->count) { /* a member that takes another's place has its name */
            char key[KEY_BYTES];
            (void)snprintf(v->members[v->count++].name, sizeof v->members[0].name, "%s", name);
            put_key(key, name);
            sitelog_want(&wants, TABLE_KV, bytes_str(key));
        }
    }
    node_fetch_rows(s->node, &wants, rows_ready, s);
}

static void look(void *context) {
    struct sitecert *s = context;
    struct site_facts site;
    if (s->busy) {
        s->again = true;
        return;
    }
    s->survey = (struct survey){.members = mem_new(MEMBERS_MAX, sizeof(struct member))};
    s->read = 0;
    s->busy = true;
    if (s->survey.members == NULL || !state_site(node_state(s->node), &site)) {
        s->again = true; /* not in a site yet */
        end(s);
        return;
    }
    if (site.feature_level < FEATURE_LEVEL_VOUCH) {
        /* A gateway of before would take it for the core's; or one has not said yet what it is. */
        s->unsettled = true;
        end(s);
        return;
    }
    ask(s);
}

void sitecert_changed(struct sitecert *s) {
    if (s->stopping) {
        return;
    }
    if (s->busy) {
        s->again = true;
    } else {
        loop_timer_after(s->x.loop, &s->timer, SOON_MS);
    }
}

struct sitecert *sitecert_new(const struct conn_context *x, const struct sitecert_options *o, struct node *node, struct fault *f) {
    struct sitecert *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "identity");
        return NULL;
    }
    s->x = *x;
    s->node = node;
    s->tls = o->tls;
    (void)snprintf(s->site, sizeof s->site, "%s", o->site);
    (void)snprintf(s->name, sizeof s->name, "%s", o->node);
    (void)snprintf(s->ca, sizeof s->ca, "%s", o->ca_path);
    (void)snprintf(s->cert, sizeof s->cert, "%s", o->cert_path);
    (void)snprintf(s->key, sizeof s->key, "%s", o->key_path);
    (void)snprintf(s->trust, sizeof s->trust, "%s", o->trust_path);
    (void)snprintf(s->own, sizeof s->own, "%.1000s/" SITECERT_OWN_FILE, o->data_dir);
    (void)snprintf(s->known, sizeof s->known, "%.1000s/" SITECERT_KNOWN_FILE, o->data_dir);
    sitecert_beside(s->cert, SITECERT_DELEGATION_FILE, s->delegation, sizeof s->delegation);
    s->timer = (struct loop_timer){.fire = look, .context = s};
    loop_timer_after(x->loop, &s->timer, FIRST_MS);
    return s;
}

void sitecert_stop(struct sitecert *s) {
    if (s != NULL) {
        s->stopping = true;
        loop_timer_cancel(s->x.loop, &s->timer);
    }
}

void sitecert_free(struct sitecert *s) {
    if (s != NULL) {
        s->stopping = true;
        end(s);
        mem_free(s);
    }
}
