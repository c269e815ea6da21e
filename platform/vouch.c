#include "platform/vouch.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <string.h>

#include "platform/certtime.h"

#define URI_TAG (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER)
#define GATEWAY_URI "grey://"
#define URI_BYTES 192u
#define SLACK_S INT64_C(172800) /* a certificate begins a while before it was made, for clocks that are slow */

static bool same(struct mbedtls_asn1_buf a, struct mbedtls_asn1_buf b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

static int64_t unix_s(const mbedtls_x509_time *t) {
    return certtime_unix_s(t->year, t->mon, t->day, t->hour, t->min, t->sec);
}

/* The first URI that begins so, without its beginning; false: there is none, or it is too long, or not plain. */
static bool find_uri(const mbedtls_x509_crt *c, const char *scheme, char out[URI_BYTES]) {
    size_t head = strlen(scheme);
    for (const mbedtls_x509_sequence *s = &c->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.p != NULL && s->buf.tag == URI_TAG && s->buf.len > head && memcmp(s->buf.p, scheme, head) == 0) {
            size_t size = s->buf.len - head;
            for (size_t i = 0; i < size; i++) {
                if (s->buf.p[head + i] <= 0x20 || s->buf.p[head + i] > 0x7e) {
                    return false;
                }
            }
            if (size < URI_BYTES) {
                memcpy(out, s->buf.p + head, size);
                out[size] = 0;
            }
            return size < URI_BYTES;
        }
    }
    return false;
}

static bool is_delegation(const mbedtls_x509_crt *c) {
    for (const mbedtls_x509_sequence *s = &c->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.p != NULL && s->buf.tag == URI_TAG && s->buf.len >= strlen(VOUCH_ISSUER) &&
            memcmp(s->buf.p, VOUCH_ISSUER, strlen(VOUCH_ISSUER)) == 0) {
            return true;
        }
    }
    return false;
}

/* By the name that it must have to be in the way; whether it signed, the reader of the chain has looked. */
static const mbedtls_x509_crt *delegation_of(const mbedtls_x509_crt *shown) {
    for (const mbedtls_x509_crt *c = shown->next; c != NULL; c = c->next) {
        if (is_delegation(c) && same(c->subject_raw, shown->issuer_raw)) {
            return c;
        }
    }
    return NULL;
}

bool vouch_is_by_site(const mbedtls_x509_crt *shown) {
    return delegation_of(shown) != NULL;
}

/* One URI grey://..., one role, which is gateway's, and no other name. */
static bool is_only_gateway(const mbedtls_x509_crt *c) {
    unsigned names = 0, roles = 0, others = 0;
    for (const mbedtls_x509_sequence *s = &c->subject_alt_names; s != NULL; s = s->next) {
        bool uri = s->buf.p != NULL && s->buf.tag == URI_TAG;
        struct bytes text = bytes_of(uri ? s->buf.p : NULL, uri ? s->buf.len : 0);
        bool names_it = text.size > strlen(GATEWAY_URI) && memcmp(text.data, GATEWAY_URI, strlen(GATEWAY_URI)) == 0;
        bool role = uri && cert_role_of(text) == CERT_ROLE_GATEWAY;
        names += names_it;
        roles += role;
        others += !names_it && !role;
    }
    return names == 1 && roles == 1 && others == 0 && c->ca_istrue == 0;
}

/* "site/node" of both: the same site, and not the same node. */
static bool is_other_member(const char *a, const char *b) {
    size_t site = strcspn(a, "/");
    return a[site] == '/' && strncmp(a, b, site + 1) == 0 && strcmp(a + site, b + site) != 0;
}

static bool has_subject(const mbedtls_x509_crt *c, const char *member) {
    size_t size = strcspn(member, "/");
    const mbedtls_x509_name *n = &c->subject;
    return n->next == NULL && MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0 && n->val.len == size &&
           memcmp(n->val.p, member, size) == 0;
}

/* Of a certificate alone, by a CA that is trusted: signature, and whether it was revoked.  Dates are not looked at. */
static enum grey_error check_alone(const mbedtls_x509_crt *c, mbedtls_x509_crt *ca, mbedtls_x509_crl *revoked, struct fault *f) {
    const uint32_t of_time =
        MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE | MBEDTLS_X509_BADCRL_EXPIRED | MBEDTLS_X509_BADCRL_FUTURE;
    mbedtls_x509_crt alone;
    uint32_t flags = 0;
    char text[160] = "it cannot be read";
    mbedtls_x509_crt_init(&alone);
    bool good = mbedtls_x509_crt_parse_der(&alone, c->raw.p, c->raw.len) == 0;
    if (good) {
        int code = mbedtls_x509_crt_verify(&alone, ca, revoked, NULL, &flags, NULL, NULL);
        flags &= ~of_time;
        good = (code == 0 || code == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) && flags == 0;
        (void)mbedtls_x509_crt_verify_info(text, sizeof text, "", flags);
        text[strcspn(text, "\n")] = 0;
    }
    mbedtls_x509_crt_free(&alone);
    enum grey_error err = (flags & MBEDTLS_X509_BADCERT_REVOKED) != 0 ? E_REVOKED : E_CERT;
    return good ? E_OK : fault_set(f, err, "what the core gave this member does not hold: %s", text);
}

/* What the core gave this member for the same key. */
static const mbedtls_x509_crt *by_core(const mbedtls_x509_crt *shown, const char *member) {
    char name[URI_BYTES];
    for (const mbedtls_x509_crt *c = shown->next; c != NULL; c = c->next) {
        if (is_only_gateway(c) && find_uri(c, GATEWAY_URI, name) && strcmp(name, member) == 0 && same(c->pk_raw, shown->pk_raw)) {
            return c;
        }
    }
    return NULL;
}

enum grey_error vouch_judge(const mbedtls_x509_crt *shown, mbedtls_x509_crt *ca, mbedtls_x509_crl *revoked, struct fault *f) {
    char member[URI_BYTES], issuer[URI_BYTES];
    const mbedtls_x509_crt *delegation = shown == NULL ? NULL : delegation_of(shown);
    if (delegation == NULL) {
        return E_OK;
    }
    if (!find_uri(delegation, VOUCH_ISSUER, issuer) || !find_uri(shown, GATEWAY_URI, member) || !is_only_gateway(shown) ||
        !has_subject(shown, member)) {
        return fault_set(f, E_CERT, "a gateway may vouch for gateways only, and for nothing else of them");
    }
    if (!is_other_member(issuer, member) || same(shown->pk_raw, delegation->pk_raw)) {
        return fault_set(f, E_CERT, "gateway %.80s may not vouch for %.80s", issuer, member);
    }
    if (unix_s(&shown->valid_to) - unix_s(&shown->valid_from) > VOUCH_LIFE_S + SLACK_S) {
        return fault_set(f, E_CERT, "gateway %.80s vouches for %.80s for too long", issuer, member);
    }
    const mbedtls_x509_crt *core = by_core(shown, member);
    if (core == NULL) {
        return fault_set(f, E_CERT, "the core never gave %.80s a certificate for this key, as far as is shown", member);
    }
    if (unix_s(&shown->valid_to) > unix_s(&core->valid_to) + VOUCH_REACH_S) {
        return fault_set(f, E_CERT, "%.80s is without the core for too long", member);
    }
    return check_alone(core, ca, revoked, f);
}

/* --- texts --------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error parse(mbedtls_x509_crt *crt, const char *pem, struct fault *f) {
    return mbedtls_x509_crt_parse(crt, (const unsigned char *)pem, strlen(pem) + 1) == 0
               ? E_OK
               : fault_set(f, E_CERT, "not certificates, or one of them is damaged");
}

static enum grey_error put_pem(const mbedtls_x509_crt *c, struct builder *out, struct fault *f) {
    unsigned char text[8192];
    size_t size;
    if (mbedtls_pem_write_buffer("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", c->raw.p, c->raw.len, text,
                                 sizeof text, &size) != 0) {
        return fault_set(f, E_CERT, "a certificate is too large");
    }
    builder_add_str(out, (const char *)text);
    return out->err == E_OK ? E_OK : fault_set(f, out->err, "no room for certificates");
}

static enum grey_error read_one(const mbedtls_x509_crt *c, struct cert_facts *out, struct fault *f) {
    struct builder pem;
    builder_init(&pem, 16384);
    enum grey_error err = put_pem(c, &pem, f);
    builder_add_byte(&pem, 0);
    err = err != E_OK ? err : cert_read((const char *)pem.data, out, f);
    builder_free(&pem);
    return err;
}

bool vouch_text_is_by_site(const char *pem) {
    mbedtls_x509_crt text;
    mbedtls_x509_crt_init(&text);
    bool by_site = parse(&text, pem, NULL) == E_OK && vouch_is_by_site(&text);
    mbedtls_x509_crt_free(&text);
    return by_site;
}

/* By way of the delegation, whose own issuer is trusted. */
static enum grey_error check_chain(mbedtls_x509_crt *shown, mbedtls_x509_crt *ca, mbedtls_x509_crl *revoked, struct fault *f) {
    const uint32_t of_time =
        MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE | MBEDTLS_X509_BADCRL_EXPIRED | MBEDTLS_X509_BADCRL_FUTURE;
    uint32_t flags = 0;
    int code = mbedtls_x509_crt_verify(shown, ca, revoked, NULL, &flags, NULL, NULL);
    if ((code != 0 && code != MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) || (flags & ~of_time) != 0) {
        return fault_set(f, (flags & MBEDTLS_X509_BADCERT_REVOKED) != 0 ? E_REVOKED : E_CERT,
                         "no CA that is trusted stands behind the certificate");
    }
    return vouch_judge(shown, ca, revoked, f);
}

enum grey_error vouch_read(const char *pem, const char *trust, struct vouch_facts *out, struct fault *f) {
    mbedtls_x509_crt shown, ca;
    mbedtls_x509_crl revoked;
    char member[URI_BYTES];
    memset(out, 0, sizeof *out);
    mbedtls_x509_crt_init(&shown);
    mbedtls_x509_crt_init(&ca);
    mbedtls_x509_crl_init(&revoked);
    enum grey_error err = parse(&shown, pem, f);
    err = err != E_OK ? err : parse(&ca, trust, f);
    bool lists = strstr(trust, "-----BEGIN X509 CRL-----") != NULL;
    if (err == E_OK && lists && mbedtls_x509_crl_parse(&revoked, (const unsigned char *)trust, strlen(trust) + 1) != 0) {
        err = fault_set(f, E_CERT, "the list of revoked certificates is damaged");
    }
    err = err != E_OK ? err : check_chain(&shown, &ca, lists ? &revoked : NULL, f);
    if (err == E_OK) {
        out->by_site = vouch_is_by_site(&shown);
        bool named = find_uri(&shown, GATEWAY_URI, member);
        const mbedtls_x509_crt *core = !named ? NULL : out->by_site ? by_core(&shown, member) : &shown;
        if (core == NULL) {
            err = fault_set(f, E_CERT, "not a gateway's certificate");
        } else {
            err = read_one(&shown, &out->shown, f);
            err = err != E_OK ? err : read_one(core, &out->by_core, f);
        }
    }
    mbedtls_x509_crt_free(&shown);
    mbedtls_x509_crt_free(&ca);
    mbedtls_x509_crl_free(&revoked);
    return err;
}

/* The last one: of a chain that a site made, what the core gave; of the core's own, itself, for a delegation stands behind it. */
static const mbedtls_x509_crt *of_member(const mbedtls_x509_crt *text) {
    char member[URI_BYTES];
    const mbedtls_x509_crt *core = vouch_is_by_site(text) && find_uri(text, GATEWAY_URI, member) ? by_core(text, member) : text;
    return core;
}

/* q: issuer and now_s, in not_before_s. */
static enum grey_error make(const mbedtls_x509_crt *delegation, const mbedtls_x509_crt *core, struct cert_request q,
                            struct builder *pem, struct fault *f) {
    char member[URI_BYTES], issuer[URI_BYTES], uri[URI_BYTES + 8], subject[CERT_CN_BYTES + 8];
    if (core == NULL || !find_uri(core, GATEWAY_URI, member) || !is_only_gateway(core) ||
        !find_uri(delegation, VOUCH_ISSUER, issuer) || !is_other_member(issuer, member)) {
        return fault_set(f, E_CERT, "the certificate is not one of another gateway of this site");
    }
    int64_t last_s = unix_s(&core->valid_to) + VOUCH_REACH_S, end_s = unix_s(&delegation->valid_to);
    int64_t now_s = q.not_before_s;
    q.not_after_s = now_s + VOUCH_LIFE_S;
    q.not_after_s = q.not_after_s < last_s ? q.not_after_s : last_s;
    q.not_after_s = q.not_after_s < end_s ? q.not_after_s : end_s;
    q.not_before_s -= SLACK_S / 2;
    if (q.not_after_s <= now_s) {
        return fault_set(f, E_CERT, "%.80s has been without the core for too long, or gateway %.80s has", member, issuer);
    }
    (void)snprintf(uri, sizeof uri, GATEWAY_URI "%s", member);
    (void)snprintf(subject, sizeof subject, "CN=%.*s", (int)strcspn(member, "/"), member);
    q.subject = subject;
    q.public_key = bytes_of(core->pk_raw.p, core->pk_raw.len);
    q.names[0] = (struct cert_name){CERT_NAME_URI, uri};
    q.name_count = 1;
    q.roles = CERT_ROLE_GATEWAY;
    q.server = q.client = true;
    enum grey_error err = cert_issue(&q, pem, f);
    err = err != E_OK ? err : put_pem(delegation, pem, f);
    return err != E_OK ? err : put_pem(core, pem, f);
}

enum grey_error vouch_make(const char *delegation, const struct keysign *key, const char *member, int64_t now_s,
                           struct builder *pem, struct fault *f) {
    mbedtls_x509_crt issuer, text;
    mbedtls_x509_crt_init(&issuer);
    mbedtls_x509_crt_init(&text);
    struct cert_request q = {.issuer_pem = delegation, .issuer_key = key, .not_before_s = now_s};
    enum grey_error err = parse(&issuer, delegation, f);
    err = err != E_OK ? err : parse(&text, member, f);
    err = err != E_OK ? err : make(&issuer, of_member(&text), q, pem, f);
    mbedtls_x509_crt_free(&issuer);
    mbedtls_x509_crt_free(&text);
    return err;
}

enum grey_error vouch_split(const char *pem, struct builder *own, struct builder *delegation, struct fault *f) {
    mbedtls_x509_crt text;
    mbedtls_x509_crt_init(&text);
    enum grey_error err = parse(&text, pem, f);
    for (const mbedtls_x509_crt *c = &text; c != NULL && err == E_OK; c = c->next) {
        bool delegates = c != &text && is_delegation(c) && delegation->size == 0;
        err = put_pem(c, delegates ? delegation : own, f);
    }
    mbedtls_x509_crt_free(&text);
    return err;
}
