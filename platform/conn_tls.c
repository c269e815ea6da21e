#include "platform/conn_material.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <mbedtls/error.h>
#include <mbedtls/oid.h>

#include "include/grey/must.h"
#include "platform/cert.h"
#include "platform/now.h"
#include "platform/vouch.h"

#define SESSION_MS_MAX 86400000u /* then the server shows its certificate again */
#define ROLE_URI "grey-role:"
#define SESSION_TRIES_MAX 2u /* that came to nothing: perhaps the server does not like it and does not say so */

/* One for all, on the loop's thread: TLS bytes on their way to mbedTLS. */
static uint8_t sealed_scratch[CONN_READ_BYTES];
static struct bytes ahead; /* the rest of the TLS bytes of the conn that receives just now */

const char *conn_tls_text(int code, char text[128]) {
    mbedtls_strerror(code, text, 128);
    return text;
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
    const mbedtls_x509_crt *shown = c->ssl == NULL || c->state != CONN_OPEN ? NULL : mbedtls_ssl_get_peer_cert(c->ssl);
    for (const mbedtls_x509_crt *crt = shown; crt != NULL; crt = crt->next) { /* of a chain by neighbours also what the core gave */
        for (const mbedtls_x509_crl *l = &c->o.tls->now->revoked; l != NULL && l->version != 0; l = l->next) {
            if (l->issuer_raw.len == crt->issuer_raw.len && memcmp(l->issuer_raw.p, crt->issuer_raw.p, crt->issuer_raw.len) == 0 &&
                mbedtls_x509_crt_is_revoked(crt, l) != 0) {
                return true;
            }
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
    conn_material_drop(c->material);
    c->material = NULL;
    builder_free(&c->sealed);
}

/* --- handshake on the crypto worker ------------------------------------------------------------------------------------------------------ */

/* What a neighbour vouched for must keep to what it may vouch for. */
static enum grey_error judge_chain(const struct conn *c, struct fault *f) {
    struct tls_material *m = c->material;
    return vouch_judge(mbedtls_ssl_get_peer_cert(c->ssl), &m->ca, m->revoked.version == 0 ? NULL : &m->revoked, f);
}

static void handshake_work(struct worker_job *job) {
    struct conn *c = (struct conn *)(void *)((char *)job - offsetof(struct conn, job));
    c->job_result = mbedtls_ssl_handshake(c->ssl);
    c->judged = c->job_result == 0 ? judge_chain(c, NULL) : E_OK;
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
    } else if (c->judged != E_OK) {
        struct fault f = {0};
        (void)judge_chain(c, &f);
        conn_fail(c, c->judged, f.text);
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
