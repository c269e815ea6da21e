#include "platform/crl.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <mbedtls/asn1write.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/certtime.h"

#define ENTRY_BYTES_MAX 48u
#define FRAME_BYTES_MAX 1024u /* beside the entries */
#define BEGIN "-----BEGIN X509 CRL-----\n"
#define END "-----END X509 CRL-----\n"
#define SEQUENCE (MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE)

static const char oid_number[] = "\x55\x1d\x14"; /* id-ce-cRLNumber */

static enum grey_error refuse(struct fault *f, enum grey_error err, const char *what, int code) {
    char reason[128];
    mbedtls_strerror(code, reason, sizeof reason);
    return fault_set(f, err, "%s: %s", what, reason);
}

/* --- writing: ASN.1 is written backwards ------------------------------------------------------------------------------------------------- */

struct writing {
    unsigned char *room, *at;
    int err; /* 0, or the first failure */
};

static size_t size_from(const struct writing *w, const unsigned char *mark) {
    return (size_t)(mark - w->at);
}

static void put(struct writing *w, int wrote) {
    w->err = w->err != 0 ? w->err : wrote < 0 ? wrote : 0;
}

/* What was written since mark becomes the content of a tag. */
static void wrap(struct writing *w, const unsigned char *mark, unsigned char tag) {
    put(w, mbedtls_asn1_write_len(&w->at, w->room, size_from(w, mark)));
    put(w, mbedtls_asn1_write_tag(&w->at, w->room, tag));
}

/* UTCTime until 2049, then GeneralizedTime. */
static void put_time(struct writing *w, int64_t unix_s) {
    char text[16];
    certtime_format(unix_s, text);
    bool early = text[0] == '2' && text[1] == '0' && text[2] < '5';
    const unsigned char *mark = w->at;
    put(w, mbedtls_asn1_write_raw_buffer(&w->at, w->room, (const unsigned char *)"Z", 1));
    put(w, mbedtls_asn1_write_raw_buffer(&w->at, w->room, (const unsigned char *)text + (early ? 2 : 0), early ? 12 : 14));
    wrap(w, mark, early ? MBEDTLS_ASN1_UTC_TIME : MBEDTLS_ASN1_GENERALIZED_TIME);
}

/* A whole number above 0, its first bit kept free of the sign. */
static void put_integer(struct writing *w, const uint8_t *bytes, size_t size) {
    const unsigned char *mark = w->at;
    while (size > 1 && bytes[0] == 0) {
        bytes++;
        size--;
    }
    put(w, mbedtls_asn1_write_raw_buffer(&w->at, w->room, bytes, size));
    if ((bytes[0] & 0x80) != 0) {
        put(w, mbedtls_asn1_write_raw_buffer(&w->at, w->room, (const unsigned char *)"", 1));
    }
    wrap(w, mark, MBEDTLS_ASN1_INTEGER);
}

static void put_number(struct writing *w, uint64_t number) {
    uint8_t big[8];
    for (int i = 0; i < 8; i++) {
        big[i] = (uint8_t)(number >> (56 - 8 * i));
    }
    put_integer(w, big, sizeof big);
}

static void put_entries(struct writing *w, const struct crl_request *q) {
    const unsigned char *mark = w->at;
    for (size_t i = q->entry_count; i > 0; i--) {
        const unsigned char *entry = w->at;
        put_time(w, q->entries[i - 1].revoked_s);
        put_integer(w, q->entries[i - 1].serial, CERT_SERIAL_BYTES);
        wrap(w, entry, SEQUENCE);
    }
    if (q->entry_count > 0) { /* the list is left out when it is empty */
        wrap(w, mark, SEQUENCE);
    }
}

/* crlExtensions [0]: authority key identifier and number. */
static void put_extensions(struct writing *w, const struct crl_request *q, mbedtls_x509_crt *issuer) {
    const unsigned char *all = w->at, *one = w->at;
    uint8_t hash[20];
    put_number(w, q->number);
    wrap(w, one, MBEDTLS_ASN1_OCTET_STRING);
    put(w, mbedtls_asn1_write_oid(&w->at, w->room, oid_number, sizeof oid_number - 1));
    wrap(w, one, SEQUENCE);
    one = w->at;
    unsigned char key[256], *key_at = key + sizeof key; /* the identifier is SHA-1 of the bits of the key, as in its certificates */
    int key_size = mbedtls_pk_write_pubkey(&key_at, key, &issuer->pk);
    put(w, key_size);
    put(w, key_size < 0 ? 0 : mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA1), key_at, (size_t)key_size, hash));
    put(w, mbedtls_asn1_write_raw_buffer(&w->at, w->room, hash, sizeof hash));
    wrap(w, one, MBEDTLS_ASN1_CONTEXT_SPECIFIC | 0);
    wrap(w, one, SEQUENCE);
    wrap(w, one, MBEDTLS_ASN1_OCTET_STRING);
    put(w, mbedtls_asn1_write_oid(&w->at, w->room, MBEDTLS_OID_AUTHORITY_KEY_IDENTIFIER,
                                  MBEDTLS_OID_SIZE(MBEDTLS_OID_AUTHORITY_KEY_IDENTIFIER)));
    wrap(w, one, SEQUENCE);
    wrap(w, all, SEQUENCE);
    wrap(w, all, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_CONTEXT_SPECIFIC | 0);
}

/* TBSCertList ::= SEQUENCE { version, signature, issuer, thisUpdate, nextUpdate, revokedCertificates, crlExtensions [0] } */
static void put_list(struct writing *w, const struct crl_request *q, mbedtls_x509_crt *issuer) {
    const unsigned char *mark = w->at;
    put_extensions(w, q, issuer);
    put_entries(w, q);
    put_time(w, q->next_s);
    put_time(w, q->this_s);
    put(w, mbedtls_asn1_write_raw_buffer(&w->at, w->room, issuer->subject_raw.p, issuer->subject_raw.len));
    put(w, mbed_write_algorithm(&w->at, w->room));
    put(w, mbedtls_asn1_write_int(&w->at, w->room, 1)); /* version 2 */
    wrap(w, mark, SEQUENCE);
}

static void put_signature(struct writing *w, struct bytes list, struct builder *signature) {
    const unsigned char *mark = w->at;
    put(w, mbed_write_signature(&w->at, w->room, builder_bytes(signature)));
    put(w, mbedtls_asn1_write_raw_buffer(&w->at, w->room, list.data, list.size));
    wrap(w, mark, SEQUENCE);
}

static enum grey_error write_pem(struct bytes der, struct builder *pem, struct fault *f) {
    size_t room = der.size * 2 + 128, size = 0;
    unsigned char *text = mem_new(room, 1);
    if (text == NULL) {
        return fault_set(f, E_NO_MEMORY, "revocation list");
    }
    int code = mbedtls_pem_write_buffer(BEGIN, END, der.data, der.size, text, room, &size);
    if (code == 0) {
        builder_add_str(pem, (const char *)text);
    }
    mem_free(text);
    return code != 0          ? refuse(f, E_CERT, "revocation list", code)
           : pem->err == E_OK ? E_OK
                              : fault_set(f, pem->err, "no room for the revocation list");
}

static enum grey_error make(const struct crl_request *q, mbedtls_x509_crt *issuer, struct builder *pem, struct fault *f) {
    size_t room = q->entry_count * ENTRY_BYTES_MAX + FRAME_BYTES_MAX;
    unsigned char *memory = mem_new(2 * room, 1);
    struct builder signature;
    uint8_t hash[DIGEST_SHA256_BYTES];
    if (memory == NULL) {
        return fault_set(f, E_NO_MEMORY, "revocation list");
    }
    struct writing w = {.room = memory, .at = memory + room}, all = {.room = memory + room, .at = memory + 2 * room};
    builder_init(&signature, KEYSIGN_SIGNATURE_BYTES_MAX);
    put_list(&w, q, issuer);
    struct bytes list = bytes_of(w.at, w.err != 0 ? 0 : size_from(&w, memory + room));
    enum grey_error err = w.err != 0 ? refuse(f, E_CERT, "revocation list", w.err) : E_OK;
    if (err == E_OK) {
        digest_sha256(list, hash);
        err = q->issuer->sign(q->issuer->key, hash, &signature, f);
    }
    if (err == E_OK) {
        put_signature(&all, list, &signature);
        err = all.err != 0 ? refuse(f, E_CERT, "revocation list", all.err)
                           : write_pem(bytes_of(all.at, size_from(&all, memory + 2 * room)), pem, f);
    }
    builder_free(&signature);
    mem_free(memory);
    return err;
}

enum grey_error crl_make(const struct crl_request *q, struct builder *pem, struct fault *f) {
    must(q->entry_count <= CRL_ENTRIES_MAX && q->number > 0 && q->this_s >= CERTTIME_FIRST_S && q->next_s <= CERTTIME_LAST_S);
    mbedtls_x509_crt issuer;
    mbedtls_x509_crt_init(&issuer);
    int code = mbedtls_x509_crt_parse(&issuer, (const unsigned char *)q->issuer_pem, strlen(q->issuer_pem) + 1);
    enum grey_error err = code != 0 ? refuse(f, E_CERT, "certificate of the issuer", code) : make(q, &issuer, pem, f);
    mbedtls_x509_crt_free(&issuer);
    return err;
}

/* --- reading ------------------------------------------------------------------------------------------------------------------------------ */

static int64_t unix_of(const mbedtls_x509_time *t) {
    return certtime_unix_s(t->year, t->mon, t->day, t->hour, t->min, t->sec);
}

static bool signed_by(const mbedtls_x509_crl *list, mbedtls_x509_crt *ca) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    if (ca->ca_istrue == 0 || mbedtls_x509_crt_check_key_usage(ca, MBEDTLS_X509_KU_CRL_SIGN) != 0 ||
        list->issuer_raw.len != ca->subject_raw.len || memcmp(list->issuer_raw.p, ca->subject_raw.p, ca->subject_raw.len) != 0 ||
        list->sig_md != MBEDTLS_MD_SHA256 || list->sig_pk != MBEDTLS_PK_ECDSA) {
        return false;
    }
    digest_sha256(bytes_of(list->tbs.p, list->tbs.len), hash);
    return mbedtls_pk_verify(&ca->pk, MBEDTLS_MD_SHA256, hash, sizeof hash, list->sig.p, list->sig.len) == 0;
}

/* The CRL number among the extensions. */
static uint64_t number_of(const mbedtls_x509_crl *list) {
    unsigned char *at = list->crl_ext.p, *end = at == NULL ? NULL : at + list->crl_ext.len;
    size_t size;
    if (at == NULL || mbedtls_asn1_get_tag(&at, end, &size, SEQUENCE) != 0) {
        return 0;
    }
    while (at < end) {
        uint64_t number = 0;
        if (mbedtls_asn1_get_tag(&at, end, &size, SEQUENCE) != 0) {
            return 0;
        }
        unsigned char *inner = at, *inner_end = at + size;
        at = inner_end;
        if (mbedtls_asn1_get_tag(&inner, inner_end, &size, MBEDTLS_ASN1_OID) != 0) {
            return 0;
        }
        bool is_number = size == sizeof oid_number - 1 && memcmp(inner, oid_number, size) == 0;
        inner += size;
        if (is_number && mbedtls_asn1_get_tag(&inner, inner_end, &size, MBEDTLS_ASN1_OCTET_STRING) == 0 &&
            mbedtls_asn1_get_tag(&inner, inner_end, &size, MBEDTLS_ASN1_INTEGER) == 0 && size >= 1 && size <= 9) {
            for (size_t i = 0; i < size; i++) {
                number = number << 8 | inner[i];
            }
            return number;
        }
    }
    return 0;
}

static void read_one(const mbedtls_x509_crl *list, struct crl_facts *out) {
    out->number = number_of(list);
    out->this_s = unix_of(&list->this_update);
    out->next_s = unix_of(&list->next_update);
    for (const mbedtls_x509_crl_entry *e = &list->entry; e != NULL && e->raw.len > 0; e = e->next) {
        size_t size = e->serial.len < CERT_SERIAL_BYTES ? e->serial.len : CERT_SERIAL_BYTES;
        for (size_t i = 0; i < size; i++) {
            out->serials_xor[CERT_SERIAL_BYTES - 1 - i] ^= e->serial.p[e->serial.len - 1 - i];
        }
        out->entry_count++;
    }
}

static bool trusted(const mbedtls_x509_crl *list, mbedtls_x509_crt *ca) {
    while (ca != NULL && !signed_by(list, ca)) {
        ca = ca->next;
    }
    return ca != NULL;
}

/* list: parsed, and its first one signed by a CA of ca_pem; the caller frees it in any case. */
static enum grey_error open_list(struct bytes pem, const char *ca_pem, mbedtls_x509_crl *list, struct fault *f) {
    mbedtls_x509_crt ca;
    struct builder text;
    mbedtls_x509_crl_init(list);
    if (pem.size == 0 || pem.size > CRL_PEM_BYTES_MAX || memchr(pem.data, 0, pem.size) != NULL) {
        return fault_set(f, E_CERT, "revocation list: not PEM text of at most %u bytes", CRL_PEM_BYTES_MAX);
    }
    builder_init(&text, CRL_PEM_BYTES_MAX + 1);
    builder_add(&text, pem);
    builder_add_byte(&text, 0);
    mbedtls_x509_crt_init(&ca);
    enum grey_error err = text.err != E_OK ? fault_set(f, text.err, "revocation list") : E_OK;
    int code = err != E_OK ? 0 : mbedtls_x509_crl_parse(list, text.data, text.size);
    err = code != 0 ? refuse(f, E_CERT, "revocation list", code) : err;
    code = err != E_OK ? 0 : mbedtls_x509_crt_parse(&ca, (const unsigned char *)ca_pem, strlen(ca_pem) + 1);
    err = code != 0 ? refuse(f, E_CERT, "certificate of the CA", code) : err;
    if (err == E_OK && !trusted(list, &ca)) {
        err = fault_set(f, E_CERT, "revocation list: it is not signed by a CA that is trusted here");
    }
    mbedtls_x509_crt_free(&ca);
    builder_free(&text);
    return err;
}

enum grey_error crl_read(struct bytes pem, const char *ca_pem, struct crl_facts *out, struct fault *f) {
    mbedtls_x509_crl list;
    memset(out, 0, sizeof *out);
    enum grey_error err = open_list(pem, ca_pem, &list, f);
    if (err == E_OK) {
        read_one(&list, out);
    }
    mbedtls_x509_crl_free(&list);
    return err;
}

enum grey_error crl_entries(struct bytes pem, const char *ca_pem, struct crl_entry *out, size_t max, size_t *count,
                            struct fault *f) {
    mbedtls_x509_crl list;
    *count = 0;
    enum grey_error err = open_list(pem, ca_pem, &list, f);
    for (const mbedtls_x509_crl_entry *e = &list.entry; err == E_OK && e != NULL && e->raw.len > 0 && *count < max; e = e->next) {
        size_t size = e->serial.len < CERT_SERIAL_BYTES ? e->serial.len : CERT_SERIAL_BYTES;
        memset(out[*count].serial, 0, CERT_SERIAL_BYTES);
        memcpy(out[*count].serial + CERT_SERIAL_BYTES - size, e->serial.p + e->serial.len - size, size);
        out[(*count)++].revoked_s = unix_of(&e->revocation_date);
    }
    mbedtls_x509_crl_free(&list);
    return err;
}
