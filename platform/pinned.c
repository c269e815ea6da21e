#include "platform/pinned.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <errno.h>
#include <mbedtls/error.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "platform/cert.h"
#include "platform/digest.h"
#include "platform/keys.h"
#include "platform/now.h"
#include "platform/vouch.h"

struct pinned {
    int fd;
    mbedtls_ssl_config config;
    mbedtls_ssl_context ssl;
};

static int tls_send(void *context, const unsigned char *data, size_t size) {
    ssize_t sent = send(*(const int *)context, data, size, MSG_NOSIGNAL);
    return sent >= 0 ? (int)sent : errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_WRITE : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

static int tls_receive(void *context, unsigned char *data, size_t size) {
    ssize_t got = recv(*(const int *)context, data, size, 0);
    return got >= 0 ? (int)got : errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_READ : MBEDTLS_ERR_SSL_CONN_EOF;
}

static int shake(struct pinned *p, uint64_t deadline_ms, bool *late) {
    int code;
    while ((code = mbedtls_ssl_handshake(&p->ssl)) == MBEDTLS_ERR_SSL_WANT_READ || code == MBEDTLS_ERR_SSL_WANT_WRITE) {
        uint64_t now_ms = now_monotonic_ms();
        struct pollfd poll_fd = {.fd = p->fd, .events = code == MBEDTLS_ERR_SSL_WANT_READ ? POLLIN : POLLOUT};
        if (now_ms >= deadline_ms || poll(&poll_fd, 1, (int)(deadline_ms - now_ms)) <= 0) {
            *late = true;
            return code;
        }
    }
    return code;
}

static bool is_core(const mbedtls_x509_crt *leaf) {
    for (const mbedtls_x509_sequence *s = &leaf->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.p != NULL && s->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER) &&
            cert_role_of(bytes_of(s->buf.p, s->buf.len)) == CERT_ROLE_CORE) {
            return true;
        }
    }
    return false;
}

/* The CA alone is trusted: not what else the server sent with it. */
static int vouched(mbedtls_x509_crt *shown, const mbedtls_x509_crt *named, uint32_t *flags) {
    mbedtls_x509_crt ca;
    mbedtls_x509_crt_init(&ca);
    int code = mbedtls_x509_crt_parse_der(&ca, named->raw.p, named->raw.len);
    code = code != 0 ? code : mbedtls_x509_crt_verify(shown, &ca, NULL, NULL, flags, NULL, NULL);
    mbedtls_x509_crt_free(&ca);
    return code;
}

static enum grey_error judge(const mbedtls_ssl_context *ssl, const uint8_t fingerprint[32], struct fault *f) {
    mbedtls_x509_crt *shown = (mbedtls_x509_crt *)(uintptr_t)mbedtls_ssl_get_peer_cert(ssl);
    uint32_t flags = 0;
    char text[200] = "";
    for (const mbedtls_x509_crt *c = shown; c != NULL; c = c->next) {
        uint8_t hash[DIGEST_SHA256_BYTES];
        digest_sha256(bytes_of(c->raw.p, c->raw.len), hash);
        if (memcmp(hash, fingerprint, sizeof hash) != 0 || c->ca_istrue == 0) {
            continue;
        }
        if (vouched(shown, c, &flags) != 0) {
            (void)mbedtls_x509_crt_verify_info(text, sizeof text, "", flags);
            text[strcspn(text, "\n")] = 0;
            return fault_set(f, E_FINGERPRINT, "the CA of the token does not vouch for the server's certificate: %s", text);
        }
        if (vouch_is_by_site(shown)) { /* a gateway that a neighbour vouches for is no core */
            return fault_set(f, E_FINGERPRINT, "the server's certificate is by a gateway");
        }
        return is_core(shown) ? E_OK : fault_set(f, E_FINGERPRINT, "the server's certificate is not a core's");
    }
    return fault_set(f, E_FINGERPRINT, "the server shows no certificate of the CA that the token names");
}

struct pinned *pinned_open(int fd, const uint8_t fingerprint[32], uint64_t deadline_ms, struct fault *f) {
    char text[128];
    bool late = false;
    struct pinned *p = mem_new(1, sizeof *p);
    if (p == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "TLS");
        return NULL;
    }
    p->fd = fd;
    mbedtls_ssl_config_init(&p->config);
    mbedtls_ssl_init(&p->ssl);
    int code = mbed_configure(&p->config, MBEDTLS_SSL_IS_CLIENT, false);
    if (code == 0) {
        mbedtls_ssl_conf_authmode(&p->config, MBEDTLS_SSL_VERIFY_NONE); /* judged below, before a byte is sent */
        code = mbedtls_ssl_setup(&p->ssl, &p->config);
    }
    if (code == 0) {
        mbedtls_ssl_set_bio(&p->ssl, &p->fd, tls_send, tls_receive, NULL);
        code = shake(p, deadline_ms, &late);
    }
    enum grey_error err = late        ? fault_set(f, E_TIMEOUT, "the TLS handshake took too long")
                          : code != 0 ? (mbedtls_strerror(code, text, sizeof text), fault_set(f, E_TLS, "%s", text))
                                      : judge(&p->ssl, fingerprint, f);
    if (err != E_OK) {
        pinned_close(p);
        return NULL;
    }
    return p;
}

void pinned_close(struct pinned *p) {
    if (p != NULL) {
        (void)mbedtls_ssl_close_notify(&p->ssl);
        mbedtls_ssl_free(&p->ssl);
        mbedtls_ssl_config_free(&p->config);
        mem_free(p);
    }
}

ssize_t pinned_send(struct pinned *p, struct bytes out) {
    int sent = mbedtls_ssl_write(&p->ssl, out.data, out.size);
    if (sent < 0) {
        errno = sent == MBEDTLS_ERR_SSL_WANT_READ || sent == MBEDTLS_ERR_SSL_WANT_WRITE ? EAGAIN : EPROTO;
        return -1;
    }
    return sent;
}

ssize_t pinned_receive(struct pinned *p, void *room, size_t size) {
    int got;
    do {
        got = mbedtls_ssl_read(&p->ssl, room, size);
    } while (mbed_read_again(&p->ssl, got));
    if (got == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || got == MBEDTLS_ERR_SSL_CONN_EOF) {
        return 0;
    }
    if (got < 0) {
        errno = got == MBEDTLS_ERR_SSL_WANT_READ || got == MBEDTLS_ERR_SSL_WANT_WRITE ? EAGAIN : EPROTO;
        return -1;
    }
    return got;
}
