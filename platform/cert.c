#include "platform/cert.h"

#include <arpa/inet.h>
#include <mbedtls/asn1write.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/x509_crt.h>
#include <mbedtls/x509_csr.h>
#include <stdio.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/digest.h"
#include "platform/keys.h"

#define SERIAL_BYTES 16u
#define EXTENSION_BYTES 1024u

static enum grey_error refuse(struct fault *f, enum grey_error err, const char *what, int code) {
    char reason[128];
    mbedtls_strerror(code, reason, sizeof reason);
    return fault_set(f, err, "%s: %s", what, reason);
}

/* --- dates: proleptic Gregorian, as RFC 5280 wants them ------------------------------------------------------------------------------- */

/* Days since 1970-01-01 to civil date (H. Hinnant, "chrono-compatible low-level date algorithms"). */
static void format_time(int64_t unix_s, char out[16]) {
    int64_t days = unix_s / 86400, rest = unix_s % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    days += 719468;
    int64_t era = days / 146097;
    int64_t doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    int64_t day = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);
    char text[64];
    (void)snprintf(text, sizeof text, "%04d%02d%02d%02d%02d%02d", (int)(year % 10000), (int)month, (int)day, (int)(rest / 3600),
                   (int)(rest / 60 % 60), (int)(rest % 60));
    memcpy(out, text, 14);
    out[14] = 0;
}

static int64_t unix_of(const mbedtls_x509_time *t) {
    int64_t year = t->year - (t->mon <= 2);
    int64_t era = year / 400, yoe = year - era * 400;
    int64_t doy = (153 * (t->mon + (t->mon > 2 ? -3 : 9)) + 2) / 5 + t->day - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return ((era * 146097 + doe - 719468) * 24 + t->hour) * 3600 + t->min * 60 + t->sec;
}

/* --- issuing ---------------------------------------------------------------------------------------------------------------------------- */

/* mbedTLS 2.28 writes no subject alternative names: GeneralNames ::= SEQUENCE OF [6] URI | [2] dNSName | [7] iPAddress. */
static int add_names(mbedtls_x509write_cert *crt, const struct cert_request *q) {
    unsigned char room[EXTENSION_BYTES], *at = room + sizeof room;
    int total = 0;
    for (uint32_t i = q->name_count; i > 0; i--) {
        const struct cert_name *n = &q->names[i - 1];
        unsigned char address[16];
        const unsigned char *data = (const unsigned char *)n->text;
        size_t size = strlen(n->text);
        unsigned char tag = MBEDTLS_ASN1_CONTEXT_SPECIFIC | (n->kind == CERT_NAME_URI ? 6 : n->kind == CERT_NAME_DNS ? 2 : 7);
        if (n->kind == CERT_NAME_IP) {
            size = inet_pton(AF_INET, n->text, address) == 1 ? 4 : inet_pton(AF_INET6, n->text, address) == 1 ? 16 : 0;
            data = address;
        }
        if (size == 0) {
            return MBEDTLS_ERR_X509_BAD_INPUT_DATA;
        }
        int wrote = mbedtls_asn1_write_raw_buffer(&at, room, data, size);
        int length = wrote < 0 ? wrote : mbedtls_asn1_write_len(&at, room, size);
        int tagged = length < 0 ? length : mbedtls_asn1_write_tag(&at, room, tag);
        if (tagged < 0) {
            return tagged;
        }
        total += wrote + length + tagged;
    }
    int length = mbedtls_asn1_write_len(&at, room, (size_t)total);
    int tagged = length < 0 ? length : mbedtls_asn1_write_tag(&at, room, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    if (tagged < 0) {
        return tagged;
    }
    return mbedtls_x509write_crt_set_extension(crt, MBEDTLS_OID_SUBJECT_ALT_NAME, MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME), 0,
                                               at, (size_t)(total + length + tagged));
}

/* ExtKeyUsageSyntax ::= SEQUENCE OF KeyPurposeId. */
static int add_usages(mbedtls_x509write_cert *crt, const struct cert_request *q) {
    unsigned char room[64], *at = room + sizeof room;
    int total = 0;
    const char *const purposes[] = {q->client ? MBEDTLS_OID_CLIENT_AUTH : NULL, q->server ? MBEDTLS_OID_SERVER_AUTH : NULL};
    for (size_t i = 0; i < 2; i++) {
        if (purposes[i] != NULL) {
            int wrote = mbedtls_asn1_write_oid(&at, room, purposes[i], strlen(purposes[i]));
            if (wrote < 0) {
                return wrote;
            }
            total += wrote;
        }
    }
    int length = mbedtls_asn1_write_len(&at, room, (size_t)total);
    int tagged = length < 0 ? length : mbedtls_asn1_write_tag(&at, room, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    if (tagged < 0) {
        return tagged;
    }
    return mbedtls_x509write_crt_set_extension(crt, MBEDTLS_OID_EXTENDED_KEY_USAGE,
                                               MBEDTLS_OID_SIZE(MBEDTLS_OID_EXTENDED_KEY_USAGE), 0, at,
                                               (size_t)(total + length + tagged));
}

static int fill(mbedtls_x509write_cert *crt, const struct cert_request *q, mbedtls_mpi *serial, bool is_ca) {
    uint8_t number[SERIAL_BYTES];
    char from[16], to[16];
    keys_random(number, sizeof number);
    number[0] = (uint8_t)((number[0] & 0x7f) | 0x40); /* positive, and of full length */
    format_time(q->not_before_s, from);
    format_time(q->not_after_s, to);
    int code = mbedtls_mpi_read_binary(serial, number, sizeof number);
    mbedtls_x509write_crt_set_version(crt, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(crt, MBEDTLS_MD_SHA256);
    code = code != 0 ? code : mbedtls_x509write_crt_set_serial(crt, serial);
    code = code != 0 ? code : mbedtls_x509write_crt_set_validity(crt, from, to);
    code = code != 0 ? code : mbedtls_x509write_crt_set_subject_name(crt, q->subject);
    code = code != 0 ? code : mbedtls_x509write_crt_set_basic_constraints(crt, is_ca ? 1 : 0, is_ca ? 0 : -1);
    code = code != 0 ? code
                     : mbedtls_x509write_crt_set_key_usage(crt, is_ca ? MBEDTLS_X509_KU_KEY_CERT_SIGN | MBEDTLS_X509_KU_CRL_SIGN
                                                                      : MBEDTLS_X509_KU_DIGITAL_SIGNATURE);
    code = code != 0 ? code : mbedtls_x509write_crt_set_subject_key_identifier(crt);
    code = code != 0 ? code : mbedtls_x509write_crt_set_authority_key_identifier(crt);
    code = code != 0 || q->name_count == 0 ? code : add_names(crt, q);
    return code != 0 || (!q->client && !q->server) ? code : add_usages(crt, q);
}

static int read_key(mbedtls_pk_context *key, const char *pem) {
    return mbedtls_pk_parse_key(key, (const unsigned char *)pem, strlen(pem) + 1, NULL, 0);
}

enum grey_error cert_issue(const struct cert_request *q, struct builder *pem, struct fault *f) {
    must(q->name_count <= CERT_NAMES_MAX && (q->issuer_pem == NULL) == (q->issuer_key_pem == NULL));
    bool is_ca = q->issuer_pem == NULL;
    mbedtls_pk_context key, issuer_key;
    mbedtls_x509_crt issuer;
    mbedtls_x509write_cert crt;
    mbedtls_mpi serial;
    unsigned char text[4096];
    char issuer_name[256];
    enum grey_error err = E_OK;
    mbedtls_pk_init(&key);
    mbedtls_pk_init(&issuer_key);
    mbedtls_x509_crt_init(&issuer);
    mbedtls_x509write_crt_init(&crt);
    mbedtls_mpi_init(&serial);
    int code = read_key(&key, q->key_pem);
    if (code != 0) {
        err = refuse(f, E_KEY, "key of the subject", code);
        goto end;
    }
    if (!is_ca) {
        code = read_key(&issuer_key, q->issuer_key_pem);
        if (code != 0) {
            err = refuse(f, E_KEY, "key of the issuer", code);
            goto end;
        }
        code = mbedtls_x509_crt_parse(&issuer, (const unsigned char *)q->issuer_pem, strlen(q->issuer_pem) + 1);
        if (code == 0) {
            code = mbedtls_x509_dn_gets(issuer_name, sizeof issuer_name, &issuer.subject);
            code = code > 0 ? 0 : code;
        }
        if (code != 0) {
            err = refuse(f, E_CERT, "certificate of the issuer", code);
            goto end;
        }
    }
    mbedtls_x509write_crt_set_subject_key(&crt, &key);
    mbedtls_x509write_crt_set_issuer_key(&crt, is_ca ? &key : &issuer_key);
    code = mbedtls_x509write_crt_set_issuer_name(&crt, is_ca ? q->subject : issuer_name);
    code = code != 0 ? code : fill(&crt, q, &serial, is_ca);
    code = code != 0 ? code : mbedtls_x509write_crt_pem(&crt, text, sizeof text, keys_rng, NULL);
    if (code != 0) {
        err = refuse(f, E_CERT, q->subject, code);
        goto end;
    }
    builder_add_str(pem, (const char *)text);
    err = pem->err;
end:
    mbedtls_mpi_free(&serial);
    mbedtls_x509write_crt_free(&crt);
    mbedtls_x509_crt_free(&issuer);
    mbedtls_pk_free(&issuer_key);
    mbedtls_pk_free(&key);
    return err;
}

/* --- reading ------------------------------------------------------------------------------------------------------------------------------ */

enum grey_error cert_read(const char *pem, struct cert_facts *out, struct fault *f) {
    mbedtls_x509_crt crt;
    memset(out, 0, sizeof *out);
    mbedtls_x509_crt_init(&crt);
    int code = mbedtls_x509_crt_parse(&crt, (const unsigned char *)pem, strlen(pem) + 1);
    if (code != 0) {
        mbedtls_x509_crt_free(&crt);
        return refuse(f, E_CERT, "certificate", code);
    }
    for (const mbedtls_x509_name *n = &crt.subject; n != NULL; n = n->next) {
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0 && n->val.len < sizeof out->subject_cn) {
            memcpy(out->subject_cn, n->val.p, n->val.len);
            out->subject_cn[n->val.len] = 0;
        }
    }
    for (const mbedtls_x509_sequence *s = &crt.subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.p != NULL && s->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | 6) && s->buf.len < sizeof out->uri &&
            out->uri[0] == 0) {
            memcpy(out->uri, s->buf.p, s->buf.len);
        }
    }
    out->not_before_s = unix_of(&crt.valid_from);
    out->not_after_s = unix_of(&crt.valid_to);
    digest_sha256(bytes_of(crt.raw.p, crt.raw.len), out->fingerprint);
    mbedtls_x509_crt_free(&crt);
    return E_OK;
}
