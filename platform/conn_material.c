#include "platform/conn_material.h"

#include <errno.h>
#include <mbedtls/error.h>
#include <mbedtls/pem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "include/grey/must.h"
#include "platform/keyring.h"
#include "platform/keys.h"
#include "platform/now.h"

/* Days since 1970 of a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms"). */
static int64_t date_ms(const mbedtls_x509_time *t) {
    int64_t year = t->mon <= 2 ? t->year - 1 : t->year, era = (year >= 0 ? year : year - 399) / 400;
    int64_t of_era = year - era * 400, of_year = (153 * (t->mon + (t->mon > 2 ? -3 : 9)) + 2) / 5 + t->day - 1;
    int64_t days = era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
    return (((days * 24 + t->hour) * 60 + t->min) * 60 + t->sec) * 1000;
}

/* A gateway that was switched off when its certificate ended, and for which its site has vouched meanwhile: how else could it learn of it? */
static bool is_known(const struct tls_material *m, const mbedtls_x509_crt *crt) {
    for (const mbedtls_x509_crt *k = m->known.version == 0 ? NULL : &m->known; k != NULL; k = k->next) {
        if (k->pk_raw.len == crt->pk_raw.len && memcmp(k->pk_raw.p, crt->pk_raw.p, crt->pk_raw.len) == 0 &&
            k->subject_raw.len == crt->subject_raw.len && memcmp(k->subject_raw.p, crt->subject_raw.p, crt->subject_raw.len) == 0 &&
            now_valid(date_ms(&k->valid_from), date_ms(&k->valid_to) + 999) == NOW_VALID) {
            return true;
        }
    }
    return false;
}

/* The dates of a certificate are judged by what is known of the time, not by the machine's clock alone. */
static int judge_dates(void *context, mbedtls_x509_crt *crt, int depth, uint32_t *flags) {
    const struct tls_material *m = context;
    /* A list that should have been renewed is better than none, and a clock that is wrong must not close the site. */
    *flags &= ~(uint32_t)(MBEDTLS_X509_BADCRL_EXPIRED | MBEDTLS_X509_BADCRL_FUTURE);
    enum now_validity v = now_valid(date_ms(&crt->valid_from), date_ms(&crt->valid_to) + 999);
    *flags &= ~(uint32_t)(MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
    v = v == NOW_EXPIRED && depth == 0 && is_known(m, crt) ? NOW_VALID : v;
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
    mbedtls_ssl_conf_verify(c, judge_dates, m);
    return mbedtls_ssl_conf_own_cert(c, &m->own, &m->key);
}

void conn_material_drop(struct tls_material *m) {
    if (m == NULL || --m->holders > 0) {
        return;
    }
    mbedtls_ssl_config_free(&m->client);
    mbedtls_ssl_config_free(&m->server);
    mbedtls_ssl_config_free(&m->guests);
    mbedtls_ssl_config_free(&m->offering);
    mbedtls_x509_crt_free(&m->ca);
    mbedtls_x509_crt_free(&m->own);
    mbedtls_x509_crt_free(&m->known);
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
        mbedtls_x509_crt_init(&m->known);
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
    bool lists_only = code == MBEDTLS_ERR_X509_INVALID_FORMAT; /* then they must be lists */
    code =
        lists_only || code == MBEDTLS_ERR_X509_CERT_UNKNOWN_FORMAT || code == MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT ? 0 : code;
    if (code == 0) {
        code = mbedtls_x509_crl_parse_file(&m->revoked, path);
        code = code == MBEDTLS_ERR_X509_CERT_UNKNOWN_FORMAT || code == MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT ||
                       (code == MBEDTLS_ERR_X509_INVALID_FORMAT && !lists_only && m->revoked.version == 0)
                   ? 0
                   : code;
    }
    return code == 0 ? E_OK : fault_set(f, E_CERT, "%s: %s", path, conn_tls_text(code, text));
}

/* What the site gave, while it holds for longer than what the core gave; without them all is as the core said. */
static void read_site(const struct conn_tls *t, struct tls_material *m) {
    mbedtls_x509_crt own;
    mbedtls_x509_crt_init(&own);
    if (t->site_path != NULL && mbedtls_x509_crt_parse_file(&own, t->site_path) == 0 &&
        date_ms(&own.valid_to) > date_ms(&m->own.valid_to) && mbed_check_pair(&own.pk, &m->key) == 0) {
        mbedtls_x509_crt_free(&m->own);
        m->own = own;
        mbedtls_x509_crt_init(&own);
    }
    mbedtls_x509_crt_free(&own);
    if (t->known_path != NULL && mbedtls_x509_crt_parse_file(&m->known, t->known_path) != 0) {
        mbedtls_x509_crt_free(&m->known);
        mbedtls_x509_crt_init(&m->known);
    }
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

/* mbedTLS says of a file that it cannot read only that it could not. */
static enum grey_error look_at(const char *path, enum grey_error err, struct fault *f) {
    return access(path, R_OK) == 0 ? E_OK : fault_set(f, err, "%s: %s", path, strerror(errno));
}

static enum grey_error read_key(const struct conn_tls *t, struct tls_material *m, struct fault *f) {
    char text[128];
    bool in_file = t->elsewhere.key == NULL && t->secret.size == 0;
    if (in_file && look_at(t->key_path, E_KEY, f) != E_OK) {
        return E_KEY;
    }
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
    if ((!t->anybody && look_at(t->ca_path, E_CERT, f) != E_OK) || look_at(t->cert_path, E_CERT, f) != E_OK) {
        return E_CERT;
    }
    if (!t->anybody && (code = mbedtls_x509_crt_parse_file(&m->ca, t->ca_path)) != 0) {
        return fault_set(f, E_CERT, "%s: %s", t->ca_path, conn_tls_text(code, text));
    }
    if ((code = mbedtls_x509_crt_parse_file(&m->own, t->cert_path)) != 0) {
        return fault_set(f, E_CERT, "%s: %s", t->cert_path, conn_tls_text(code, text));
    }
    enum grey_error err = read_key(t, m, f);
    if (err != E_OK) {
        return err;
    }
    read_site(t, m);
    err = read_trust(m, t->trust_path, f);
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
        conn_material_drop(m);
        return err;
    }
    conn_material_drop(t->now);
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
        !copy_path(&t->key_path, files->key_path) || !copy_path(&t->trust_path, files->trust_path) ||
        !copy_path(&t->site_path, files->site_path) || !copy_path(&t->known_path, files->known_path)) {
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
        conn_material_drop(t->now);
        keysign_close(&t->elsewhere);
        if (t->secret.data != NULL) {
            keys_wipe(t->secret.data, t->secret.size);
        }
        builder_free(&t->secret);
        mem_free(t->ca_path);
        mem_free(t->cert_path);
        mem_free(t->key_path);
        mem_free(t->trust_path);
        mem_free(t->site_path);
        mem_free(t->known_path);
        mem_free(t);
    }
}

enum grey_error conn_tls_offer(struct conn_tls *t, const char *protocol, struct fault *f) {
    must(t->protocols[0] == NULL);
    t->protocols[0] = protocol;
    return offer(t, t->now, f);
}
