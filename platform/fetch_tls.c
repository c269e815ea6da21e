#include "platform/fetch_tls.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <errno.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "include/grey/limits.h"
#include "platform/cert.h"
#include "platform/keys.h"
#include "platform/now.h"
#include "platform/vouch.h"

struct fetch_tls {
    mbedtls_ssl_config config;
    mbedtls_ssl_context ssl;
    mbedtls_x509_crt ca, own;
    mbedtls_pk_context key;
    mbedtls_net_context socket;
};

static enum grey_error failed(struct fault *f, enum grey_error err, const char *what, int code) {
    char text[128];
    mbedtls_strerror(code, text, sizeof text);
    return fault_set(f, err, "%.120s: %.120s", what, text);
}

static enum grey_error load(struct fetch_tls *t, const struct http_fetch_tls *from, struct fault *f) {
    int code = mbedtls_x509_crt_parse_file(&t->ca, from->ca_path);
    if (code != 0) {
        return failed(f, E_CERT, from->ca_path, code);
    }
    if (from->cert_path != NULL && (code = mbedtls_x509_crt_parse_file(&t->own, from->cert_path)) != 0) {
        return failed(f, E_CERT, from->cert_path, code);
    }
    if (from->cert_path != NULL && from->key_path != NULL && (code = mbed_parse_key_file(&t->key, from->key_path)) != 0) {
        return failed(f, E_KEY, from->key_path, code);
    }
    code = mbed_configure(&t->config, MBEDTLS_SSL_IS_CLIENT, false);
    if (code == 0 && from->cert_path != NULL) {
        code = mbedtls_ssl_conf_own_cert(&t->config, &t->own, &t->key);
    }
    if (code == 0) {
        mbedtls_ssl_conf_authmode(&t->config, MBEDTLS_SSL_VERIFY_REQUIRED);
        mbedtls_ssl_conf_ca_chain(&t->config, &t->ca, NULL);
        code = mbedtls_ssl_setup(&t->ssl, &t->config);
    }
    if (code == 0) { /* a gateway is known by the URI of its certificate, not by where it happens to be reached */
        code = mbedtls_ssl_set_hostname(&t->ssl, NULL);
        mbedtls_ssl_set_bio(&t->ssl, &t->socket, mbedtls_net_send, mbedtls_net_recv, NULL);
    }
    return code == 0 ? E_OK : failed(f, E_TLS, "TLS", code);
}

static bool is_core(const mbedtls_x509_crt *crt) {
    for (const mbedtls_x509_sequence *s = crt == NULL ? NULL : &crt->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER) &&
            cert_role_of(bytes_of(s->buf.p, s->buf.len)) == CERT_ROLE_CORE) {
            return true;
        }
    }
    return false;
}

static bool is_gateway(const mbedtls_x509_crt *crt, const char *site) {
    char wanted[LIMIT_NAME_BYTES + 16];
    int size = snprintf(wanted, sizeof wanted, "grey://%.64s%s", site == NULL ? "" : site, site == NULL ? "" : "/");
    for (const mbedtls_x509_sequence *s = crt == NULL ? NULL : &crt->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER) &&
            s->buf.len > (size_t)size && memcmp(s->buf.p, wanted, (size_t)size) == 0) {
            return true;
        }
    }
    return false;
}

static enum grey_error shake_hands(struct fetch_tls *t, const struct http_fetch_tls *from, uint64_t deadline_ms, struct fault *f) {
    int code;
    while ((code = mbedtls_ssl_handshake(&t->ssl)) == MBEDTLS_ERR_SSL_WANT_READ || code == MBEDTLS_ERR_SSL_WANT_WRITE) {
        uint64_t now_ms = now_monotonic_ms();
        struct pollfd p = {.fd = t->socket.fd, .events = code == MBEDTLS_ERR_SSL_WANT_READ ? POLLIN : POLLOUT};
        if (now_ms >= deadline_ms || poll(&p, 1, (int)(deadline_ms - now_ms)) <= 0) {
            return fault_set(f, E_TIMEOUT, "the TLS handshake took too long");
        }
    }
    uint32_t flags = mbedtls_ssl_get_verify_result(&t->ssl);
    char text[200] = "";
    if (code != 0 && flags != 0 && flags != UINT32_MAX && mbedtls_x509_crt_verify_info(text, sizeof text, "", flags) > 0) {
        text[strcspn(text, "\n")] = 0;
        return fault_set(f, E_CERT, "the certificate of the other side: %s", text);
    }
    if (code != 0) {
        return failed(f, E_TLS, "the handshake", code);
    }
    const mbedtls_x509_crt *shown = mbedtls_ssl_get_peer_cert(&t->ssl);
    if (vouch_judge(shown, &t->ca, NULL, f) != E_OK) {
        return E_CERT;
    }
    if (from->core && !is_core(shown)) {
        return fault_set(f, E_CERT, "the certificate of the other side is not that of a core");
    }
    if (!from->core && !is_gateway(shown, from->site)) {
        return fault_set(f, E_CERT, "the certificate of the other side is not that of a gateway of %s",
                         from->site == NULL ? "any site" : from->site);
    }
    return E_OK;
}

struct fetch_tls *fetch_tls_open(const struct http_fetch_tls *from, int fd, uint64_t deadline_ms, struct fault *f) {
    struct fetch_tls *t = mem_new(1, sizeof *t);
    if (t == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "TLS");
        return NULL;
    }
    mbedtls_ssl_config_init(&t->config);
    mbedtls_ssl_init(&t->ssl);
    mbedtls_x509_crt_init(&t->ca);
    mbedtls_x509_crt_init(&t->own);
    mbedtls_pk_init(&t->key);
    t->socket.fd = fd;
    if (load(t, from, f) != E_OK || shake_hands(t, from, deadline_ms, f) != E_OK) {
        fetch_tls_close(t);
        return NULL;
    }
    return t;
}

static ssize_t result(int code) {
    if (code == MBEDTLS_ERR_SSL_WANT_READ || code == MBEDTLS_ERR_SSL_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (code == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || code == MBEDTLS_ERR_SSL_CONN_EOF) {
        return 0;
    }
    if (code < 0) {
        errno = EPROTO; /* also: our certificate was refused, which TLS 1.3 tells only here */
        return -1;
    }
    return code;
}

ssize_t fetch_tls_send(struct fetch_tls *t, struct bytes out) {
    return result(mbedtls_ssl_write(&t->ssl, out.data, out.size));
}

ssize_t fetch_tls_receive(struct fetch_tls *t, void *in, size_t size) {
    int got;
    do {
        got = mbedtls_ssl_read(&t->ssl, in, size);
    } while (mbed_read_again(&t->ssl, got)); /* one call, one session: nobody comes back with it */
    return result(got);
}

void fetch_tls_close(struct fetch_tls *t) {
    if (t != NULL) {
        (void)mbedtls_ssl_close_notify(&t->ssl);
        mbedtls_ssl_free(&t->ssl);
        mbedtls_ssl_config_free(&t->config);
        mbedtls_x509_crt_free(&t->ca);
        mbedtls_x509_crt_free(&t->own);
        mbedtls_pk_free(&t->key);
        mem_free(t);
    }
}
