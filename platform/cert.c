#include "platform/cert.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <arpa/inet.h>
#include <inttypes.h>
#include <mbedtls/asn1write.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/certtime.h"
#include "platform/digest.h"
#include "platform/keys.h"
#include "platform/vouch.h"

#define EXTENSION_BYTES 1024u
#define TEXT_BYTES 4096u
#define SEQUENCE (MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE)
#define PEM_BEGIN "-----BEGIN CERTIFICATE-----\n"
#define PEM_END "-----END CERTIFICATE-----\n"
#define NOT_OF_ISSUER "key of the issuer: it does not belong to the certificate of the issuer"

static enum grey_error refuse(struct fault *f, enum grey_error err, const char *what, int code) {
    char reason[128];
    mbedtls_strerror(code, reason, sizeof reason);
    return fault_set(f, err, "%s: %s", what, reason);
}

static int64_t unix_of(const mbedtls_x509_time *t) {
    return certtime_unix_s(t->year, t->mon, t->day, t->hour, t->min, t->sec);
}

/* --- issuing ---------------------------------------------------------------------------------------------------------------------------- */

static const struct {
    uint32_t role;
    const char *uri;
} roles[] = {{CERT_ROLE_GATEWAY, CERT_ROLE_PREFIX "gateway"},
             {CERT_ROLE_CORE, CERT_ROLE_PREFIX "core"},
             {CERT_ROLE_BROKER, CERT_ROLE_PREFIX "broker"}};
#define ROLE_COUNT (sizeof roles / sizeof roles[0])

static size_t read_address(const char *text, uint8_t out[16]) {
    return inet_pton(AF_INET, text, out) == 1 ? 4 : inet_pton(AF_INET6, text, out) == 1 ? 16 : 0;
}

/* Names go to text forms that know no other characters, and nothing in them may end or split a name. */
static bool is_plain(const char *text, const char *refused) {
    for (; *text != 0; text++) {
        if (*text < 0x20 || *text > 0x7e || strchr(refused, *text) != NULL) {
            return false;
        }
    }
    return true;
}

static enum grey_error check(const struct cert_request *q, struct fault *f) {
    size_t size = 0;
    if (strncmp(q->subject, "CN=", 3) != 0 || q->subject[3] == 0 || strlen(q->subject + 3) > CERT_CN_BYTES ||
        !is_plain(q->subject, ",+\\\"<>;#")) {
        return fault_set(f, E_CERT, "'%.80s' is not CN= and a name of 1 to %u plain characters", q->subject, CERT_CN_BYTES);
    }
    for (uint32_t i = 0; i < q->name_count; i++) {
        const struct cert_name *n = &q->names[i];
        uint8_t address[16];
        size += strlen(n->text) + 4; /* the most that tag and length take below EXTENSION_BYTES */
        if (n->text[0] == 0 || (n->kind == CERT_NAME_IP ? read_address(n->text, address) == 0 : !is_plain(n->text, " "))) {
            return fault_set(f, E_CERT, "%s: '%.120s' cannot stand in a certificate as %s", q->subject, n->text,
                             n->kind == CERT_NAME_IP    ? "an IP address"
                             : n->kind == CERT_NAME_DNS ? "a DNS name"
                                                        : "a URI");
        }
    }
    if (size > EXTENSION_BYTES - ROLE_COUNT * 32 - 8) {
        return fault_set(f, E_CERT, "%s: its names are longer than %zu bytes", q->subject, EXTENSION_BYTES - ROLE_COUNT * 32 - 8);
    }
    if (q->not_before_s < CERTTIME_FIRST_S || q->not_after_s > CERTTIME_LAST_S || q->not_before_s > q->not_after_s) {
        return fault_set(f, E_CERT, "%s: valid from %" PRId64 " to %" PRId64 " (Unix seconds): is this machine's clock right?",
                         q->subject, q->not_before_s, q->not_after_s);
    }
    return E_OK;
}

/* mbedTLS 2.28 writes no subject alternative names: GeneralNames ::= SEQUENCE OF [6] URI | [2] dNSName | [7] iPAddress. */
static int add_names(mbedtls_x509write_cert *crt, const struct cert_request *q) {
    unsigned char room[EXTENSION_BYTES], *at = room + sizeof room;
    int total = 0;
    for (size_t i = ROLE_COUNT; i > 0; i--) {
        size_t size = strlen(roles[i - 1].uri);
        if ((q->roles & roles[i - 1].role) != 0) {
            int wrote = mbedtls_asn1_write_raw_buffer(&at, room, (const unsigned char *)roles[i - 1].uri, size);
            int length = wrote < 0 ? wrote : mbedtls_asn1_write_len(&at, room, size);
            int tagged = length < 0 ? length : mbedtls_asn1_write_tag(&at, room, MBEDTLS_ASN1_CONTEXT_SPECIFIC | 6);
            if (tagged < 0) {
                return tagged;
            }
            total += wrote + length + tagged;
        }
    }
    for (uint32_t i = q->name_count; i > 0; i--) {
        const struct cert_name *n = &q->names[i - 1];
        unsigned char address[16];
        const unsigned char *data = (const unsigned char *)n->text;
        size_t size = strlen(n->text);
        unsigned char tag = MBEDTLS_ASN1_CONTEXT_SPECIFIC | (n->kind == CERT_NAME_URI ? 6 : n->kind == CERT_NAME_DNS ? 2 : 7);
        if (n->kind == CERT_NAME_IP) {
            size = read_address(n->text, address);
            data = address;
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

/* NameConstraints ::= SEQUENCE { [0] permittedSubtrees }: of directory names (RFC 5280, 4.2.1.10) CN=name.  Not critical, though it should be: mbedTLS
 * refuses what it does not know, and platform/vouch.h looks itself. */
static int add_constraint(mbedtls_x509write_cert *crt, const char *name) {
    static const unsigned char tags[] = {MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE, /* AttributeTypeAndValue */
                                         MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SET,
                                         MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE,             /* Name */
                                         MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_ASN1_CONSTRUCTED | 4, /* directoryName */
                                         MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE,             /* GeneralSubtree */
                                         MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_ASN1_CONSTRUCTED | 0, /* permittedSubtrees */
                                         MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE};
    unsigned char room[256], *at = room + sizeof room;
    int value = mbedtls_asn1_write_tagged_string(&at, room, MBEDTLS_ASN1_UTF8_STRING, name, strlen(name));
    int type = value < 0 ? value : mbedtls_asn1_write_oid(&at, room, MBEDTLS_OID_AT_CN, MBEDTLS_OID_SIZE(MBEDTLS_OID_AT_CN));
    if (type < 0) {
        return type;
    }
    for (size_t i = 0; i < sizeof tags; i++) {
        int length = mbedtls_asn1_write_len(&at, room, (size_t)(room + sizeof room - at));
        int tagged = length < 0 ? length : mbedtls_asn1_write_tag(&at, room, tags[i]);
        if (tagged < 0) {
            return tagged;
        }
    }
    return mbedtls_x509write_crt_set_extension(crt, MBEDTLS_OID_NAME_CONSTRAINTS, MBEDTLS_OID_SIZE(MBEDTLS_OID_NAME_CONSTRAINTS), 0,
                                               at, (size_t)(room + sizeof room - at));
}

static int fill(mbedtls_x509write_cert *crt, const struct cert_request *q, mbedtls_mpi *serial, bool is_ca) {
    uint8_t number[CERT_SERIAL_BYTES];
    char from[16], to[16];
    unsigned usage = !is_ca              ? MBEDTLS_X509_KU_DIGITAL_SIGNATURE
                     : q->within != NULL ? MBEDTLS_X509_KU_KEY_CERT_SIGN
                                         : MBEDTLS_X509_KU_KEY_CERT_SIGN | MBEDTLS_X509_KU_CRL_SIGN;
    keys_random(number, sizeof number);
    number[0] = (uint8_t)((number[0] & 0x7f) | 0x40); /* positive, and of full length */
    certtime_format(q->not_before_s, from);
    certtime_format(q->not_after_s, to);
    int code = mbedtls_mpi_read_binary(serial, number, sizeof number);
    mbedtls_x509write_crt_set_version(crt, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(crt, MBEDTLS_MD_SHA256);
    code = code != 0 ? code : mbedtls_x509write_crt_set_serial(crt, serial);
    code = code != 0 ? code : mbedtls_x509write_crt_set_validity(crt, from, to);
    code = code != 0 ? code : mbedtls_x509write_crt_set_subject_name(crt, q->subject);
    code = code != 0 ? code : mbedtls_x509write_crt_set_basic_constraints(crt, is_ca ? 1 : 0, is_ca ? (int)q->depth : -1);
    code = code != 0 ? code : mbedtls_x509write_crt_set_key_usage(crt, usage);
    code = code != 0 ? code : mbedtls_x509write_crt_set_subject_key_identifier(crt);
    code = code != 0 ? code : mbedtls_x509write_crt_set_authority_key_identifier(crt);
    code = code != 0 || (q->name_count == 0 && q->roles == 0) ? code : add_names(crt, q);
    code = code != 0 || q->within == NULL ? code : add_constraint(crt, q->within);
    return code != 0 || (!q->client && !q->server) ? code : add_usages(crt, q);
}

static enum grey_error read_key(mbedtls_pk_context *key, const char *pem, const char *whose, struct fault *f) {
    int code = mbed_parse_key(key, bytes_of((const uint8_t *)pem, strlen(pem) + 1));
    if (code != 0) {
        return refuse(f, E_KEY, whose, code);
    }
    if (!mbed_is_p256(key)) {
        return fault_set(f, E_KEY, "%s: not a P-256 key", whose);
    }
    return E_OK;
}

static enum grey_error new_key(mbedtls_pk_context *key, struct fault *f) {
    struct builder pem;
    builder_init(&pem, TEXT_BYTES);
    enum grey_error err = keys_new_p256(&pem, f);
    builder_add_byte(&pem, 0);
    err = err != E_OK       ? err
          : pem.err != E_OK ? fault_set(f, pem.err, "a key for once")
                            : read_key(key, (const char *)pem.data, "a key for once", f);
    if (pem.data != NULL) {
        keys_wipe(pem.data, pem.size);
    }
    builder_free(&pem);
    return err;
}

static enum grey_error read_subject_key(mbedtls_pk_context *key, const struct cert_request *q, struct fault *f) {
    static const char whose[] = "key of the subject";
    if (q->key_pem != NULL) {
        return read_key(key, q->key_pem, whose, f);
    }
    int code = mbedtls_pk_parse_public_key(key, q->public_key.data, q->public_key.size);
    if (code != 0) {
        return refuse(f, E_KEY, whose, code);
    }
    return mbed_is_p256(key) ? E_OK : fault_set(f, E_KEY, "%s: not a P-256 key", whose);
}

/* The issuer's subject as it stands in its certificate, forms of text included: other programs compare names byte by byte. */
static int copy_issuer_name(mbedtls_x509write_cert *crt, const mbedtls_x509_name *from) {
    for (const mbedtls_x509_name *n = from; n != NULL; n = n->next) {
        if (n->next_merged != 0 || mbedtls_asn1_find_named_data(crt->issuer, (const char *)n->oid.p, n->oid.len) != NULL) {
            return MBEDTLS_ERR_X509_FEATURE_UNAVAILABLE; /* mbedTLS could write neither; the chain would not hold */
        }
        mbedtls_asn1_named_data *to =
            mbedtls_asn1_store_named_data(&crt->issuer, (const char *)n->oid.p, n->oid.len, n->val.p, n->val.len);
        if (to == NULL) {
            return MBEDTLS_ERR_X509_ALLOC_FAILED;
        }
        to->val.tag = n->val.tag;
    }
    return 0;
}

/* What lies elsewhere has its public half here only, and is compared by it. */
static enum grey_error check_elsewhere(const struct keysign *key, mbedtls_pk_context *issuer, struct fault *f) {
    unsigned char room[KEYSIGN_PUBLIC_BYTES_MAX];
    struct builder der;
    builder_init(&der, KEYSIGN_PUBLIC_BYTES_MAX);
    enum grey_error err = key->public_key(key->key, &der, f);
    int size = mbed_is_p256(issuer) ? mbedtls_pk_write_pubkey_der(issuer, room, sizeof room) : 0; /* at the end of the room */
    if (err == E_OK && (size <= 0 || der.size != (size_t)size || memcmp(room + sizeof room - size, der.data, der.size) != 0)) {
        err = fault_set(f, E_KEY, NOT_OF_ISSUER);
    }
    builder_free(&der);
    return err;
}

/* key: what mbedTLS signs with; of a key that lies elsewhere, one for once, whose signature is replaced (sign_elsewhere). */
static enum grey_error read_issuer(mbedtls_x509_crt *issuer, mbedtls_pk_context *key, const struct cert_request *q,
                                   struct fault *f) {
    static const char whose[] = "certificate of the issuer";
    enum grey_error err = q->issuer_key != NULL ? new_key(key, f) : read_key(key, q->issuer_key_pem, "key of the issuer", f);
    if (err != E_OK) {
        return err;
    }
    int code = mbedtls_x509_crt_parse(issuer, (const unsigned char *)q->issuer_pem, strlen(q->issuer_pem) + 1);
    if (code != 0) {
        return refuse(f, E_CERT, whose, code);
    }
    if (!issuer->ca_istrue || mbedtls_x509_crt_check_key_usage(issuer, MBEDTLS_X509_KU_KEY_CERT_SIGN) != 0) {
        return fault_set(f, E_CERT, "%s: it may not sign certificates", whose);
    }
    if (q->issuer_key != NULL) {
        return check_elsewhere(q->issuer_key, &issuer->pk, f);
    }
    return mbed_check_pair(&issuer->pk, key) == 0 ? E_OK : fault_set(f, E_KEY, NOT_OF_ISSUER);
}

/* How many bytes of a certificate, from its `signed` on, are what is signed and the AlgorithmIdentifier behind it, which says the same as within (with or
 * without parameters: the two mbedTLS differ); or an error below 0. */
static int measure_signed(const mbedtls_x509_crt *crt) {
    unsigned char *at = crt->tbs.p + crt->tbs.len;
    size_t size = 0;
    int code = mbedtls_asn1_get_tag(&at, crt->raw.p + crt->raw.len, &size, SEQUENCE);
    return code != 0 ? code : (int)(at + size - crt->tbs.p);
}

/* The certificate in DER becomes PEM, with a signature by this key in the place of its own.  mbedTLS 3.6 has no place for keys that lie elsewhere: so it
 * goes the same way with both. */
static enum grey_error sign_elsewhere(struct bytes der, const struct keysign *key, unsigned char text[TEXT_BYTES],
                                      struct fault *f) {
    static const char what[] = "signing a certificate";
    uint8_t hash[DIGEST_SHA256_BYTES];
    unsigned char room[TEXT_BYTES], *at = room + sizeof room;
    struct builder signature;
    mbedtls_x509_crt crt;
    size_t size;
    mbedtls_x509_crt_init(&crt);
    builder_init(&signature, KEYSIGN_SIGNATURE_BYTES_MAX);
    int code = mbedtls_x509_crt_parse_der(&crt, der.data, der.size);
    int head = code != 0 ? code : measure_signed(&crt);
    enum grey_error err = head < 0 ? refuse(f, E_CERT, what, head) : E_OK;
    if (err == E_OK) {
        digest_sha256(bytes_of(crt.tbs.p, crt.tbs.len), hash);
        err = key->sign(key->key, hash, &signature, f);
    }
    if (err == E_OK) {
        code = mbedtls_asn1_write_bitstring(&at, room, signature.data, signature.size * 8);
        code = code < 0 ? code : mbedtls_asn1_write_raw_buffer(&at, room, crt.tbs.p, (size_t)head);
        code = code < 0 ? code : mbedtls_asn1_write_len(&at, room, (size_t)(room + sizeof room - at));
        code = code < 0 ? code : mbedtls_asn1_write_tag(&at, room, SEQUENCE);
        size_t whole = (size_t)(room + sizeof room - at);
        code = code < 0 ? code : mbedtls_pem_write_buffer(PEM_BEGIN, PEM_END, at, whole, text, TEXT_BYTES, &size);
        err = code == 0 ? E_OK : refuse(f, E_CERT, what, code);
    }
    builder_free(&signature);
    mbedtls_x509_crt_free(&crt);
    return err;
}

static enum grey_error write_signed(mbedtls_x509write_cert *crt, mbedtls_pk_context *issuer_key, const struct cert_request *q,
                                    unsigned char text[TEXT_BYTES], struct fault *f) {
    unsigned char room[TEXT_BYTES];
    mbedtls_x509write_crt_set_issuer_key(crt, issuer_key); /* anew: fill named the issuer by its public half */
    int size = q->issuer_key != NULL ? mbedtls_x509write_crt_der(crt, room, sizeof room, keys_rng, NULL) /* at the end */
                                     : mbedtls_x509write_crt_pem(crt, text, TEXT_BYTES, keys_rng, NULL);
    if (size < 0) {
        return refuse(f, E_CERT, q->subject, size);
    }
    return q->issuer_key == NULL ? E_OK : sign_elsewhere(bytes_of(room + sizeof room - size, (size_t)size), q->issuer_key, text, f);
}

enum grey_error cert_issue(const struct cert_request *q, struct builder *pem, struct fault *f) {
    must(q->name_count <= CERT_NAMES_MAX && (q->issuer_key_pem == NULL || q->issuer_key == NULL));
    must((q->issuer_pem == NULL) == (q->issuer_key_pem == NULL && q->issuer_key == NULL));
    must((q->key_pem != NULL) != (q->public_key.size > 0) && (q->key_pem != NULL || q->issuer_pem != NULL));
    bool own = q->issuer_pem == NULL;
    mbedtls_pk_context key, issuer_key;
    mbedtls_x509_crt issuer;
    mbedtls_x509write_cert crt;
    mbedtls_mpi serial;
    unsigned char text[TEXT_BYTES];
    int code;
    enum grey_error err = check(q, f);
    mbedtls_pk_init(&key);
    mbedtls_pk_init(&issuer_key);
    mbedtls_x509_crt_init(&issuer);
    mbedtls_x509write_crt_init(&crt);
    mbedtls_mpi_init(&serial);
    err = err != E_OK ? err : read_subject_key(&key, q, f);
    err = err != E_OK || own ? err : read_issuer(&issuer, &issuer_key, q, f);
    if (err != E_OK) {
        goto end;
    }
    mbedtls_x509write_crt_set_subject_key(&crt, &key);
    mbedtls_x509write_crt_set_issuer_key(&crt, own ? &key : &issuer.pk);
    code = own ? mbedtls_x509write_crt_set_issuer_name(&crt, q->subject) : copy_issuer_name(&crt, &issuer.subject);
    code = code != 0 ? code : fill(&crt, q, &serial, own || q->authority);
    err = code != 0 ? refuse(f, E_CERT, q->subject, code) : write_signed(&crt, own ? &key : &issuer_key, q, text, f);
    if (err != E_OK) {
        goto end;
    }
    builder_add_str(pem, (const char *)text);
    err = pem->err == E_OK ? E_OK : fault_set(f, pem->err, "%s: no room for the certificate", q->subject);
end:
    mbedtls_mpi_free(&serial);
    mbedtls_x509write_crt_free(&crt);
    mbedtls_x509_crt_free(&issuer);
    mbedtls_pk_free(&issuer_key);
    mbedtls_pk_free(&key);
    return err;
}

/* --- reading ------------------------------------------------------------------------------------------------------------------------------ */

/* Odd bytes become '?': a name with a NUL inside must not pass for the shorter one, nor garble a log. */
static void copy_name(char *out, const mbedtls_x509_buf *from) {
    for (size_t i = 0; i < from->len; i++) {
        out[i] = from->p[i] < 0x20 || from->p[i] > 0x7e ? '?' : (char)from->p[i];
    }
    out[from->len] = 0;
}

uint32_t cert_role_of(struct bytes uri) {
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        if (bytes_equal_str(uri, roles[i].uri)) {
            return roles[i].role;
        }
    }
    return 0;
}

/* The first URI is the name; those behind it that say a role are roles. */
static enum grey_error read_uris(const mbedtls_x509_crt *crt, struct cert_facts *out, struct fault *f) {
    for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.p == NULL || s->buf.tag != (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER)) {
            continue;
        }
        uint32_t role = cert_role_of(bytes_of(s->buf.p, s->buf.len));
        out->roles |= role;
        if (role == 0 && out->uri[0] == 0) {
            if (s->buf.len >= sizeof out->uri) {
                return fault_set(f, E_CERT, "certificate: its URI is longer than %zu bytes", sizeof out->uri - 1);
            }
            copy_name(out->uri, &s->buf);
        }
    }
    return E_OK;
}

static enum grey_error read_subject(const mbedtls_x509_crt *crt, struct cert_facts *out, struct fault *f) {
    for (const mbedtls_x509_name *n = &crt->subject; n != NULL; n = n->next) {
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0) {
            if (n->val.len >= sizeof out->subject_cn) {
                return fault_set(f, E_CERT, "certificate: its common name is longer than %u bytes", CERT_CN_BYTES);
            }
            copy_name(out->subject_cn, &n->val);
        }
    }
    return E_OK;
}

static enum grey_error read_key_hash(mbedtls_x509_crt *crt, uint8_t hash[32], struct fault *f) {
    unsigned char room[1024];
    int size = mbedtls_pk_write_pubkey_der(&crt->pk, room, sizeof room); /* at the end of the room */
    if (size < 0) {
        return refuse(f, E_CERT, "certificate: its key", size);
    }
    digest_sha256(bytes_of(room + sizeof room - size, (size_t)size), hash);
    return E_OK;
}

static enum grey_error parse(mbedtls_x509_crt *crt, const char *pem, const char *what, struct fault *f) {
    int code = mbedtls_x509_crt_parse(crt, (const unsigned char *)pem, strlen(pem) + 1);
    return code == 0 ? E_OK : refuse(f, E_CERT, what, code);
}

enum grey_error cert_read(const char *pem, struct cert_facts *out, struct fault *f) {
    mbedtls_x509_crt crt;
    memset(out, 0, sizeof *out);
    mbedtls_x509_crt_init(&crt);
    enum grey_error err = parse(&crt, pem, "certificate", f);
    err = err != E_OK ? err : read_subject(&crt, out, f);
    err = err != E_OK ? err : read_uris(&crt, out, f);
    err = err != E_OK ? err : read_key_hash(&crt, out->key_hash, f);
    if (err == E_OK) {
        size_t size = crt.serial.len < CERT_SERIAL_BYTES ? crt.serial.len : CERT_SERIAL_BYTES;
        memcpy(out->serial + CERT_SERIAL_BYTES - size, crt.serial.p + crt.serial.len - size, size);
        out->authority = crt.ca_istrue != 0;
        out->depth = !out->authority ? 0 : crt.max_pathlen <= 0 ? UINT32_MAX : (uint32_t)crt.max_pathlen - 1;
        out->not_before_s = unix_of(&crt.valid_from);
        out->not_after_s = unix_of(&crt.valid_to);
        digest_sha256(bytes_of(crt.raw.p, crt.raw.len), out->fingerprint);
    }
    mbedtls_x509_crt_free(&crt);
    return err;
}

enum grey_error cert_verify(const char *pem, const char *ca_pem, struct fault *f) {
    mbedtls_x509_crt crt, ca;
    uint32_t flags = 0;
    char text[240] = "";
    mbedtls_x509_crt_init(&crt);
    mbedtls_x509_crt_init(&ca);
    enum grey_error err = parse(&crt, pem, "certificate", f);
    err = err != E_OK ? err : parse(&ca, ca_pem, "certificate of the CA", f);
    if (err == E_OK && mbedtls_x509_crt_verify(&crt, &ca, NULL, NULL, &flags, NULL, NULL) != 0) {
        (void)mbedtls_x509_crt_verify_info(text, sizeof text, "", flags);
        text[strcspn(text, "\n")] = 0;
        err = fault_set(f, E_CERT, "certificate: %s", text);
    }
    err = err != E_OK ? err : vouch_judge(&crt, &ca, NULL, f);
    mbedtls_x509_crt_free(&crt);
    mbedtls_x509_crt_free(&ca);
    return err;
}

enum grey_error cert_to_der(const char *pem, struct builder *der, struct fault *f) {
    mbedtls_x509_crt crt;
    mbedtls_x509_crt_init(&crt);
    enum grey_error err = parse(&crt, pem, "certificate", f);
    if (err == E_OK) {
        builder_add(der, bytes_of(crt.raw.p, crt.raw.len));
        err = der->err;
    }
    mbedtls_x509_crt_free(&crt);
    return err;
}

enum grey_error cert_from_der(struct bytes der, struct builder *pem, struct fault *f) {
    builder_add_str(pem, PEM_BEGIN);
    builder_add_base64(pem, der);
    builder_add_str(pem, "\n" PEM_END);
    builder_add_byte(pem, 0);
    return pem->err == E_OK ? E_OK : fault_set(f, pem->err, "certificate");
}

enum grey_error cert_has_signed(const char *pem, const uint8_t hash[32], struct bytes signature, struct fault *f) {
    mbedtls_x509_crt crt;
    mbedtls_x509_crt_init(&crt);
    enum grey_error err = parse(&crt, pem, "certificate", f);
    if (err == E_OK && (!mbedtls_pk_can_do(&crt.pk, MBEDTLS_PK_ECDSA) ||
                        mbedtls_pk_verify(&crt.pk, MBEDTLS_MD_SHA256, hash, 32, signature.data, signature.size) != 0)) {
        err = fault_set(f, E_KEY, "the signature is not by the key of the certificate");
    }
    mbedtls_x509_crt_free(&crt);
    return err;
}

enum grey_error cert_find_root(const char *pem, const uint8_t fingerprint[32], struct builder *root, struct fault *f) {
    mbedtls_x509_crt all;
    mbedtls_x509_crt_init(&all);
    enum grey_error err = parse(&all, pem, "certificates", f), found = E_CERT;
    for (const mbedtls_x509_crt *c = &all; c != NULL && err == E_OK && found != E_OK; c = c->next) {
        uint8_t hash[32];
        unsigned char text[8192];
        size_t size;
        digest_sha256(bytes_of(c->raw.p, c->raw.len), hash);
        if (memcmp(hash, fingerprint, sizeof hash) == 0 && c->ca_istrue != 0 &&
            mbedtls_pem_write_buffer(PEM_BEGIN, PEM_END, c->raw.p, c->raw.len, text, sizeof text, &size) == 0) {
            builder_add_str(root, (const char *)text);
            found = root->err;
        }
    }
    mbedtls_x509_crt_free(&all);
    return err != E_OK ? err : found == E_OK ? E_OK : fault_set(f, E_CERT, "none of the certificates is the CA that was named");
}
