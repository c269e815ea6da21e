#include "platform/conn_core.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>

#include "include/grey/must.h"
#include "platform/cert.h"
#include "platform/keyring.h"
#include "platform/keys.h"
#include "platform/now.h"

#define SESSION_MS_MAX 86400000u /* then the server shows its certificate again */
#define ROLE_URI "grey-role:"
#define SESSION_TRIES_MAX 2u /* that came to nothing: perhaps the server does not like it and does not say so */

/* What was read from the files, as one; the last of conn_tls and the conns that began with it frees it.  Thread of all counting: the loop's. */
struct tls_material {
    uint32_t holders;
    mbedtls_ssl_config client, server, guests, offering; /* guests: as server, a certificate is not asked of everybody */
    /* offering: as client, with ALPN; only with protocols[0] set */
    mbedtls_x509_crt ca, own;
    mbedtls_x509_crl revoked;
    mbedtls_pk_context key;
};

struct conn_tls {
    struct tls_material *now;
    const char *protocols[2];
    char *ca_path, *cert_path, *key_path, *trust_path; /* copies */
    /* A key that a TPM keeps is read once: a reload is the loop's, and must not wait for the service. */
    struct keysign elsewhere; /* at a handle; not all zero: the key of all materials */
    struct builder secret;    /* of a file that the TPM opened; empty: the key is in a plain file */
    bool anybody, from_13;
};

/* One for all, on the loop's thread: TLS bytes on their way to mbedTLS. */
static uint8_t sealed_scratch[CONN_READ_BYTES];
static struct bytes ahead; /* the rest of the TLS bytes of the conn that receives just now */

/* --- certificates ------------------------------------------------------------------------------------------------------------------------- */

const char *conn_tls_text(int code, char text[128]) {
    mbedtls_strerror(code, text, 128);
    return text;
}

/* Days since 1970 of a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms"). */
static int64_t date_ms(const mbedtls_x509_time *t) {
    int64_t year = t->mon <= 2 ? t->year - 1 : t->year, era = (year >= 0 ? year : year - 399) / 400;
    int64_t of_era = year - era * 400, of_year = (153 * (t->mon + (t->mon > 2 ? -3 : 9)) + 2) / 5 + t->day - 1;
    int64_t days = era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
    return (((days * 24 + t->hour) * 60 + t->min) * 60 + t->sec) * 1000;
}

/* The dates of a certificate are judged by what is known of the time, not by the machine's clock alone. */
static int judge_dates(void *context, mbedtls_x509_crt *crt, int depth, uint32_t *flags) {
    (void)context, (void)depth;
    /* A list that should have been renewed is better than none, and a clock that is wrong must not close the site. */
    *flags &= ~(uint32_t)(MBEDTLS_X509_BADCRL_EXPIRED | MBEDTLS_X509_BADCRL_FUTURE);
    enum now_validity v = now_valid(date_ms(&crt->valid_from), date_ms(&crt->valid_to) + 999);
    *flags &= ~(uint32_t)(MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
    *flags |= v == NOW_EXPIRED ? MBEDTLS_X509_BADCERT_EXPIRED : v == NOW_NOT_YET ? MBEDTLS_X509_BADCERT_FUTURE : 0u;
    return 0;
}

static int configure(struct tls_material *m, mbedtls_ssl_config *c, int endpoint, bool anybody, bool from_13) {
    int code = mbed_configure(c, endpoint, from_13);
    if (code != 0) {
        return code;
    }
    mbedtls_ssl_conf_authmode(c, anybody ? MBEDTLS_SSL_VERIFY_NONE : MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(c, &m->ca, m->revoked.version == 0 ? NULL : &m->revoked);
    mbedtls_ssl_conf_verify(c, judge_dates, NULL);
    return mbedtls_ssl_conf_own_cert(c, &m->own, &m->key);
}

static void material_drop(struct tls_material *m) {
    if (m == NULL || --m->holders > 0) {
        return;
    }
    mbedtls_ssl_config_free(&m->client);
    mbedtls_ssl_config_free(&m->server);
    mbedtls_ssl_config_free(&m->guests);
    mbedtls_ssl_config_free(&m->offering);
    mbedtls_x509_crt_free(&m->ca);
    mbedtls_x509_crt_free(&m->own);
    mbedtls_x509_crl_free(&m->revoked);
    mbedtls_pk_free(&m->key);
    mem_free(m);
}

static struct tls_material *material_new(void) {
    struct tls_material *m = mem_new(1, sizeof *m);
    if (m != NULL) {
        m->holders = 1;
        mbedtls_ssl_config_init(&m->client);
        mbedtls_ssl_config_init(&m->server);
        mbedtls_ssl_config_init(&m->guests);
        mbedtls_ssl_config_init(&m->offering);
        mbedtls_x509_crt_init(&m->ca);
        mbedtls_x509_crt_init(&m->own);
        mbedtls_x509_crl_init(&m->revoked);
        mbedtls_pk_init(&m->key);
    }
    return m;
}

/* Certificates and lists in one file; either may be missing.  A list of nobody known is passed over by mbedTLS, certificate by certificate. */
static enum grey_error read_trust(struct tls_material *m, const char *path, struct fault *f) {
    char text[128];
    if (path == NULL || access(path, F_OK) != 0) {
        return E_OK;
    }
    int code = mbedtls_x509_crt_parse_file(&m->ca, path);
    code = code == MBEDTLS_ERR_X509_CERT_UNKNOWN_FORMAT || code == MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT ? 0 : code;
    if (code == 0) {
        code = mbedtls_x509_crl_parse_file(&m->revoked, path);
        code = code == MBEDTLS_ERR_X509_CERT_UNKNOWN_FORMAT || code == MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT ||
                       (code == MBEDTLS_ERR_X509_INVALID_FORMAT && m->revoked.version == 0)
                   ? 0
                   : code;
    }
    return code == 0 ? E_OK : fault_set(f, E_CERT, "%s: %s", path, conn_tls_text(code, text));
}

static enum grey_error open_tpm_key(struct conn_tls *t, struct fault *f) {
    builder_init(&t->secret, KEYRING_TEXT_BYTES_MAX);
    if (!keyring_with_tpm(t->key_path)) {
        return E_OK;
    }
    if (keyring_in_tpm(t->key_path) && !mbed_can_sign_elsewhere()) {
        return fault_set(f, E_VAULT_LIBRARY, "%.100s: mbedTLS 3.6 takes keys from files only", t->key_path);
    }
    return keyring_in_tpm(t->key_path) ? keyring_open(t->key_path, &t->elsewhere, f) : keyring_read(t->key_path, &t->secret, f);
}

static enum grey_error read_key(const struct conn_tls *t, struct tls_material *m, struct fault *f) {
    char text[128];
    int code = t->elsewhere.key != NULL ? mbed_sign_elsewhere(&m->key, &t->elsewhere)
               : t->secret.size > 0     ? mbed_parse_key(&m->key, builder_bytes(&t->secret))
                                        : mbed_parse_key_file(&m->key, t->key_path);
    if (code != 0) {
        return fault_set(f, E_KEY, "%s: %s", t->key_path, conn_tls_text(code, text));
    }
    if (mbed_check_pair(&m->own.pk, &m->key) != 0) {
        return fault_set(f, t->elsewhere.key != NULL ? E_VAULT_OTHER : E_KEY, "%s does not belong to %s", t->key_path,
                         t->cert_path);
    }
    return E_OK;
}

static enum grey_error read_files(const struct conn_tls *t, struct tls_material *m, struct fault *f) {
    char text[128];
    int code;
    if (t->from_13 && !conn_tls_knows_13()) {
        return fault_set(f, E_TLS_VERSION, "TLS 1.3 was asked for as the least; mbedTLS 2.28 speaks 1.2");
    }
    if (!t->anybody && (code = mbedtls_x509_crt_parse_file(&m->ca, t->ca_path)) != 0) {
        return fault_set(f, E_CERT, "%s: %s", t->ca_path, conn_tls_text(code, text));
    }
    if ((code = mbedtls_x509_crt_parse_file(&m->own, t->cert_path)) != 0) {
        return fault_set(f, E_CERT, "%s: %s", t->cert_path, conn_tls_text(code, text));
    }
    enum grey_error err = read_key(t, m, f);
    err = err != E_OK ? err : read_trust(m, t->trust_path, f);
    if (err == E_OK && ((code = configure(m, &m->client, MBEDTLS_SSL_IS_CLIENT, false, t->from_13)) != 0 ||
                        (code = configure(m, &m->server, MBEDTLS_SSL_IS_SERVER, t->anybody, t->from_13)) != 0 ||
                        (code = configure(m, &m->guests, MBEDTLS_SSL_IS_SERVER, false, t->from_13)) != 0)) {
        err = fault_set(f, E_TLS, "%s", conn_tls_text(code, text));
    }
    mbedtls_ssl_conf_authmode(&m->guests, MBEDTLS_SSL_VERIFY_OPTIONAL);
    return err;
}

static enum grey_error offer(struct conn_tls *t, struct tls_material *m, struct fault *f) {
    char text[128];
    int code = configure(m, &m->offering, MBEDTLS_SSL_IS_CLIENT, false, t->from_13);
    code = code != 0 ? code : mbedtls_ssl_conf_alpn_protocols(&m->offering, t->protocols);
    return code == 0 ? E_OK : fault_set(f, E_TLS, "ALPN '%.40s': %s", t->protocols[0], conn_tls_text(code, text));
}

enum grey_error conn_tls_reload(struct conn_tls *t, struct fault *f) {
    struct tls_material *m = material_new();
    enum grey_error err = m == NULL ? fault_set(f, E_NO_MEMORY, "certificates") : read_files(t, m, f);
    err = err != E_OK || t->protocols[0] == NULL ? err : offer(t, m, f);
    if (err != E_OK) {
        material_drop(m);
        return err;
    }
    material_drop(t->now);
    t->now = m;
    return E_OK;
}

static bool copy_path(char **to, const char *from) {
    if (from == NULL) {
        return true;
    }
    *to = mem_new(strlen(from) + 1, 1);
    if (*to != NULL) {
        memcpy(*to, from, strlen(from) + 1);
    }
    return *to != NULL;
}

bool conn_tls_knows_13(void) {
    return mbed_has_tls13();
}

bool conn_tls_signs_elsewhere(void) {
    return mbed_can_sign_elsewhere();
}

struct conn_tls *conn_tls_open(const struct conn_tls_files *files, struct fault *f) {
    struct conn_tls *t = mem_new(1, sizeof *t);
    if (t == NULL || !copy_path(&t->ca_path, files->ca_path) || !copy_path(&t->cert_path, files->cert_path) ||
        !copy_path(&t->key_path, files->key_path) || !copy_path(&t->trust_path, files->trust_path)) {
        (void)fault_set(f, E_NO_MEMORY, "certificates");
        conn_tls_free(t);
        return NULL;
    }
    t->anybody = files->anybody;
    t->from_13 = files->from_13;
    if (open_tpm_key(t, f) != E_OK || conn_tls_reload(t, f) != E_OK) {
        conn_tls_free(t);
        return NULL;
    }
    return t;
}

struct conn_tls *conn_tls_new(const char *ca_path, const char *cert_path, const char *key_path, struct fault *f) {
    return conn_tls_open(&(struct conn_tls_files){.ca_path = ca_path, .cert_path = cert_path, .key_path = key_path}, f);
}

void conn_tls_free(struct conn_tls *t) {
    if (t != NULL) {
        material_drop(t->now);
        keysign_close(&t->elsewhere);
        if (t->secret.data != NULL) {
            keys_wipe(t->secret.data, t->secret.size);
        }
        builder_free(&t->secret);
        mem_free(t->ca_path);
        mem_free(t->cert_path);
        mem_free(t->key_path);
        mem_free(t->trust_path);
        mem_free(t);
    }
}

enum grey_error conn_tls_offer(struct conn_tls *t, const char *protocol, struct fault *f) {
    must(t->protocols[0] == NULL);
    t->protocols[0] = protocol;
    return offer(t, t->now, f);
}

/* --- sessions that are resumed ---------------------------------------------------------------------------------------------------------- */

struct conn_session {
    mbedtls_ssl_session kept; /* nothing in it when born_ms is 0 */
    uint64_t born_ms;         /* of its full handshake */
    uint32_t tries;           /* with it, since a handshake was done */
    bool resumed;
};

struct conn_session *conn_session_new(void) {
    struct conn_session *s = mem_new(1, sizeof *s);
    if (s != NULL) {
        mbedtls_ssl_session_init(&s->kept);
    }
    return s;
}

static void forget_session(struct conn_session *s) {
    mbedtls_ssl_session_free(&s->kept); /* wipes it, and is an init as well */
    s->born_ms = 0;
    s->tries = 0;
}

void conn_session_free(struct conn_session *s) {
    if (s != NULL) {
        forget_session(s);
        mem_free(s);
    }
}

bool conn_session_resumed(const struct conn_session *s) {
    return s->resumed;
}

static int offer_session(struct conn *c) {
    struct conn_session *s = c->o.session;
    if (s == NULL || !c->client) {
        return 0;
    }
    s->resumed = false;
    bool old = loop_now_ms(c->x.loop) >= s->born_ms + SESSION_MS_MAX;
    if (s->born_ms != 0 && (old || s->tries++ == SESSION_TRIES_MAX)) {
        forget_session(s);
    }
    return s->born_ms == 0 ? 0 : mbedtls_ssl_set_session(c->ssl, &s->kept);
}

/* What this connection gave to come back with: the handshake (shaken), or with TLS 1.3 a ticket that comes later. */
static void keep_session(struct conn *c, bool shaken) {
    struct conn_session *s = c->o.session;
    mbedtls_ssl_session fresh;
    if (s == NULL || !c->client) {
        return;
    }
    mbedtls_ssl_session_init(&fresh);
    bool got = mbedtls_ssl_get_session(c->ssl, &fresh) == 0;
    if (got && shaken) {
        s->resumed = s->born_ms != 0 && mbed_resumed(c->ssl, &fresh, &s->kept);
    }
    bool usable = got && (!shaken || !mbed_tickets_follow(c->ssl));
    if (usable) {
        uint64_t born_ms = s->resumed && s->born_ms != 0 ? s->born_ms : loop_now_ms(c->x.loop) + 1;
        mbedtls_ssl_session_free(&s->kept);
        s->kept = fresh; /* with the newest ticket */
        mbed_trim_session(&s->kept);
        s->born_ms = born_ms;
    } else {
        mbedtls_ssl_session_free(&fresh);
        if (!got || !s->resumed) {
            forget_session(s);
        }
    }
    s->tries = 0;
}

/* --- names of the other side ----------------------------------------------------------------------------------------------------------- */

static void copy_slice(char *out, size_t out_size, const unsigned char *data, size_t size) {
    size = size < out_size - 1 ? size : out_size - 1;
    memcpy(out, data, size);
    out[size] = 0;
    for (size_t i = 0; i < size; i++) { /* a name with odd bytes in it must not match anything, nor garble a log */
        if (out[i] < 0x21 || out[i] > 0x7e) {
            out[i] = '?';
        }
    }
}

static void read_peer(struct conn *c) {
    const mbedtls_x509_crt *crt = mbedtls_ssl_get_peer_cert(c->ssl);
    if (crt == NULL) {
        return;
    }
    c->names = mem_new(1, sizeof *c->names);
    if (c->names == NULL) {
        return; /* without names it is nobody, and refused above */
    }
    for (const mbedtls_x509_name *n = &crt->subject; n != NULL; n = n->next) {
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0 && n->val.len <= LIMIT_NAME_BYTES) {
            copy_slice(c->names->name, sizeof c->names->name, n->val.p, n->val.len);
        }
    }
    for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.tag != (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER)) {
            continue;
        }
        size_t head = sizeof ROLE_URI - 1;
        bool is_role = s->buf.len > head && memcmp(s->buf.p, ROLE_URI, head) == 0;
        uint32_t role = cert_role_of(bytes_of(s->buf.p, s->buf.len));
        c->names->roles |= role;
        if (is_role && c->names->role[0] == 0) {
            copy_slice(c->names->role, sizeof c->names->role, s->buf.p + head, s->buf.len - head);
        } else if (!is_role && role == 0 && c->names->uri[0] == 0 && s->buf.len < sizeof c->names->uri) {
            copy_slice(c->names->uri, sizeof c->names->uri, s->buf.p, s->buf.len);
        }
    }
}

bool conn_peer_revoked(const struct conn *c) {
    const mbedtls_x509_crt *crt = c->ssl == NULL || c->state != CONN_OPEN ? NULL : mbedtls_ssl_get_peer_cert(c->ssl);
    for (const mbedtls_x509_crl *l = crt == NULL ? NULL : &c->o.tls->now->revoked; l != NULL && l->version != 0; l = l->next) {
        if (l->issuer_raw.len == crt->issuer_raw.len && memcmp(l->issuer_raw.p, crt->issuer_raw.p, crt->issuer_raw.len) == 0 &&
            mbedtls_x509_crt_is_revoked(crt, l) != 0) {
            return true;
        }
    }
    return false;
}

/* --- records ------------------------------------------------------------------------------------------------------------------------------ */

static int tls_send(void *context, const unsigned char *data, size_t size) {
    ssize_t sent = conn_socket_send(context, data, size);
    if (sent >= 0) {
        return (int)sent;
    }
    return errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_WRITE : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

static int tls_receive(void *context, unsigned char *data, size_t size) {
    struct conn *c = context;
    ssize_t got = conn_socket_receive(c, data, size);
    if (got >= 0) {
        return (int)got;
    }
    return errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_READ : MBEDTLS_ERR_SSL_CONN_EOF;
}

/* Once open, on the loop's thread: reads ahead, so that a record costs one recv and not three (header, body, "no more"). */
static int tls_receive_ahead(void *context, unsigned char *data, size_t size) {
    struct conn *c = context;
    if (ahead.size == 0) {
        if (c->emptied) {
            return MBEDTLS_ERR_SSL_WANT_READ;
        }
        int got = tls_receive(c, sealed_scratch, sizeof sealed_scratch);
        if (got <= 0) {
            return got;
        }
        c->emptied = (size_t)got < sizeof sealed_scratch;
        ahead = bytes_of(sealed_scratch, (size_t)got);
    }
    size = size < ahead.size ? size : ahead.size;
    memcpy(data, ahead.data, size);
    ahead = bytes_of(ahead.data + size, ahead.size - size);
    return (int)size;
}

ssize_t conn_tls_send(struct conn *c, const uint8_t *data, size_t size) {
    size_t record = c->tls_pending > 0 ? c->tls_pending : size; /* a write that was put off is repeated with its length */
    must(record <= size);
    int wrote = mbedtls_ssl_write(c->ssl, data, record);
    if (wrote == MBEDTLS_ERR_SSL_WANT_WRITE || wrote == MBEDTLS_ERR_SSL_WANT_READ) {
        c->tls_pending = record;
        errno = EAGAIN;
        return -1;
    }
    c->tls_pending = 0;
    if (wrote < 0) {
        errno = EPIPE;
        return -1;
    }
    return wrote;
}

ssize_t conn_tls_receive(struct conn *c, uint8_t *data, size_t size) {
    int got;
    do {
        got = mbedtls_ssl_read(c->ssl, data, size);
        if (mbed_is_ticket(got)) {
            keep_session(c, false);
        }
    } while (mbed_read_again(c->ssl, got));
    if (got == MBEDTLS_ERR_SSL_WANT_READ || got == MBEDTLS_ERR_SSL_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (got == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || got == MBEDTLS_ERR_SSL_CONN_EOF) {
        return 0;
    }
    if (got < 0) {
        c->job_result = got;
        errno = EPROTO;
    }
    return got;
}

void conn_tls_receive_begin(struct conn *c) {
    must(ahead.size == 0);
    c->unsealing = c->sealed;
    ahead = builder_bytes(&c->unsealing);
    builder_init(&c->sealed, CONN_READ_BYTES);
    c->emptied = false;
}

enum grey_error conn_tls_receive_end(struct conn *c) {
    if (ahead.size > 0 && !c->dead && !c->shut && !c->half_shut) {
        builder_add(&c->sealed, ahead);
    }
    ahead = bytes_of(NULL, 0);
    builder_free(&c->unsealing);
    return c->sealed.err;
}

bool conn_tls_waits(const struct conn *c) {
    return c->sealed.size > 0 || mbedtls_ssl_check_pending(c->ssl) != 0;
}

void conn_tls_opened(struct conn *c) {
    mbedtls_ssl_set_bio(c->ssl, c, tls_send, tls_receive_ahead, NULL);
}

void conn_tls_notify(struct conn *c) {
    (void)mbedtls_ssl_close_notify(c->ssl);
}

void conn_tls_end(struct conn *c) {
    if (c->ssl != NULL) {
        mbedtls_ssl_free(c->ssl);
        mem_free(c->ssl);
    }
    material_drop(c->material);
    c->material = NULL;
    builder_free(&c->sealed);
}

/* --- handshake on the crypto worker ------------------------------------------------------------------------------------------------------ */

static void handshake_work(struct worker_job *job) {
    struct conn *c = (struct conn *)(void *)((char *)job - offsetof(struct conn, job));
    c->job_result = mbedtls_ssl_handshake(c->ssl);
}

/* A guest's certificate that is not good does not end the handshake by itself. */
static uint32_t guest_refused(const struct conn *c) {
    uint32_t flags = c->client || !c->o.guests ? 0 : mbedtls_ssl_get_verify_result(c->ssl);
    return flags == MBEDTLS_X509_BADCERT_MISSING || flags == MBEDTLS_X509_BADCERT_SKIP_VERIFY ? 0 : flags;
}

static void handshake_done(struct worker_job *job) {
    struct conn *c = (struct conn *)(void *)((char *)job - offsetof(struct conn, job));
    c->job_runs = false;
    if (c->dead) {
        conn_free_if_unheld(c);
        return;
    }
    if (c->shut) {
        return;
    }
    char text[128], detail[240];
    if (c->job_result == MBEDTLS_ERR_SSL_WANT_READ) {
        (void)conn_watch(c, EPOLLIN | EPOLLRDHUP);
    } else if (c->job_result == MBEDTLS_ERR_SSL_WANT_WRITE) {
        (void)conn_watch(c, EPOLLOUT | EPOLLRDHUP);
    } else if (c->job_result != 0 || guest_refused(c) != 0) {
        if (c->o.session != NULL && c->client && c->job_result != MBEDTLS_ERR_SSL_CONN_EOF) {
            forget_session(c->o.session); /* perhaps it was that: the next handshake is a full one */
        }
        uint32_t flags = mbedtls_ssl_get_verify_result(c->ssl);
        enum grey_error why = mbed_is_old_tls(c->job_result)       ? E_TLS_OLD
                              : c->job_result == MBED_ERR_KEY_AWAY ? E_VAULT_AWAY
                                                                   : E_TLS;
        if (flags != 0 && flags != UINT32_MAX) {
            why = (flags & MBEDTLS_X509_BADCERT_REVOKED) != 0 ? E_REVOKED : E_CERT;
            char *end = detail;
            if (mbedtls_x509_crt_verify_info(detail, sizeof detail, "", flags) > 0) {
                end = strchr(detail, '\n');
            }
            if (end != NULL) {
                *end = 0;
            }
        } else {
            (void)snprintf(detail, sizeof detail, "%s", conn_tls_text(c->job_result, text));
        }
        conn_fail(c, why, detail);
    } else {
        read_peer(c);
        keep_session(c, true);
        conn_opened(c);
    }
}

void conn_tls_step(struct conn *c) {
    loop_fd_remove(c->x.loop, &c->watch); /* the worker has the socket for itself */
    c->job.work = handshake_work;
    c->job.done = handshake_done;
    c->job_runs = true;
    if (worker_submit(c->x.crypto, &c->job) != E_OK) {
        c->job_runs = false;
        conn_fail(c, E_BUSY, "too many handshakes at once");
    }
}

void conn_tls_start(struct conn *c) {
    char text[128];
    c->state = CONN_HANDSHAKE;
    c->ssl = mem_new(1, sizeof *c->ssl);
    if (c->ssl == NULL) {
        conn_fail(c, E_NO_MEMORY, "TLS");
        return;
    }
    mbedtls_ssl_init(c->ssl);
    struct tls_material *m = c->o.tls->now;
    c->material = m;
    m->holders++;
    bool offers = c->o.offer && c->o.tls->protocols[0] != NULL;
    int code = mbedtls_ssl_setup(c->ssl, !c->client ? (c->o.guests ? &m->guests : &m->server) : offers ? &m->offering : &m->client);
    if (code == 0 && c->client) { /* NULL is said as well: later versions refuse a client that has not said which name it means */
        code = mbedtls_ssl_set_hostname(c->ssl, c->o.expected_host);
    }
    code = code != 0 ? code : offer_session(c);
    if (code != 0) {
        conn_fail(c, E_TLS, conn_tls_text(code, text));
        return;
    }
    mbedtls_ssl_set_bio(c->ssl, c, tls_send, tls_receive, NULL);
    conn_tls_step(c);
}
