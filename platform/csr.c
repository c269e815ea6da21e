#include "platform/csr.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <mbedtls/asn1write.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/x509_csr.h>
#include <stdio.h>
#include <string.h>

#include "include/grey/ids.h"

#define DER_BYTES_MAX 1024u
#define BEGIN "-----BEGIN CERTIFICATE REQUEST-----\n"
#define END "-----END CERTIFICATE REQUEST-----\n"

static enum grey_error refuse(struct fault *f, enum grey_error err, const char *what, int code) {
    char reason[128];
    mbedtls_strerror(code, reason, sizeof reason);
    return fault_set(f, err, "%s: %s", what, reason);
}

/* Of an ASN.1 writer, which writes backwards: keeps the sum, or the first failure. */
static int plus(int sum, int wrote) {
    return sum < 0 ? sum : wrote < 0 ? wrote : sum + wrote;
}

static int wrap(unsigned char **at, unsigned char *room, int size, unsigned char tag) {
    int sum = plus(size, size < 0 ? size : mbedtls_asn1_write_len(at, room, (size_t)size));
    return plus(sum, sum < 0 ? sum : mbedtls_asn1_write_tag(at, room, tag));
}

/* RelativeDistinguishedName ::= SET { SEQUENCE { type, value } } */
static int write_name(unsigned char **at, unsigned char *room, const char *oid, size_t oid_size, const char *value) {
    int sum = mbedtls_asn1_write_utf8_string(at, room, value, strlen(value));
    sum = plus(sum, sum < 0 ? sum : mbedtls_asn1_write_oid(at, room, oid, oid_size));
    sum = wrap(at, room, sum, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    return wrap(at, room, sum, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SET);
}

/* Name: CN the site, then OU the node. */
static int write_subject(unsigned char **at, unsigned char *room, const char *site, const char *node) {
    int sum = write_name(at, room, MBEDTLS_OID_AT_ORG_UNIT, MBEDTLS_OID_SIZE(MBEDTLS_OID_AT_ORG_UNIT), node);
    sum = plus(sum, sum < 0 ? sum : write_name(at, room, MBEDTLS_OID_AT_CN, MBEDTLS_OID_SIZE(MBEDTLS_OID_AT_CN), site));
    return wrap(at, room, sum, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
}

/* CertificationRequestInfo ::= SEQUENCE { version, subject, subjectPKInfo, attributes [0] } with no attributes. */
static int write_info(unsigned char **at, unsigned char *room, const char *site, const char *node, struct bytes public_key) {
    int sum = wrap(at, room, 0, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_CONTEXT_SPECIFIC);
    sum = plus(sum, sum < 0 ? sum : mbedtls_asn1_write_raw_buffer(at, room, public_key.data, public_key.size));
    sum = plus(sum, sum < 0 ? sum : write_subject(at, room, site, node));
    sum = plus(sum, sum < 0 ? sum : mbedtls_asn1_write_int(at, room, 0));
    return wrap(at, room, sum, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
}

static enum grey_error sign_info(struct bytes info, const struct keysign *key, struct builder *pem, struct fault *f) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    unsigned char room[DER_BYTES_MAX], *at = room + sizeof room, text[CSR_PEM_BYTES_MAX];
    struct builder signature;
    size_t text_size;
    builder_init(&signature, KEYSIGN_SIGNATURE_BYTES_MAX);
    digest_sha256(info, hash);
    enum grey_error err = key->sign(key->key, hash, &signature, f);
    if (err == E_OK) {
        int sum = mbed_write_signature(&at, room, builder_bytes(&signature));
        sum = plus(sum, sum < 0 ? sum : mbedtls_asn1_write_raw_buffer(&at, room, info.data, info.size));
        sum = wrap(&at, room, sum, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
        sum = sum < 0 ? sum : mbedtls_pem_write_buffer(BEGIN, END, at, (size_t)sum, text, sizeof text, &text_size);
        if (sum < 0) {
            err = refuse(f, E_CERT, "certificate request", sum);
        } else {
            builder_add_str(pem, (const char *)text);
            err = pem->err == E_OK ? E_OK : fault_set(f, pem->err, "no room for the certificate request");
        }
    }
    builder_free(&signature);
    return err;
}

enum grey_error csr_make(const char *site, const char *node, const struct keysign *key, struct builder *pem, struct fault *f) {
    unsigned char room[DER_BYTES_MAX], *at = room + sizeof room;
    struct builder public_key;
    if (!grey_name_valid(site, strlen(site)) || !grey_name_valid(node, strlen(node))) {
        return fault_set(f, E_CERT, "'%.64s' of '%.64s' cannot be a gateway's name: 1 to 64 letters, digits, '.', '_' or '-'", node,
                         site);
    }
    builder_init(&public_key, KEYSIGN_PUBLIC_BYTES_MAX);
    enum grey_error err = key->public_key(key->key, &public_key, f);
    if (err == E_OK) {
        int size = write_info(&at, room, site, node, builder_bytes(&public_key));
        err = size < 0 ? refuse(f, E_CERT, "certificate request", size) : sign_info(bytes_of(at, (size_t)size), key, pem, f);
    }
    builder_free(&public_key);
    return err;
}

/* --- reading ------------------------------------------------------------------------------------------------------------------------------ */

static bool take_name(char out[CERT_CN_BYTES + 1], const mbedtls_x509_buf *from) {
    if (out[0] != 0 || !grey_name_valid((const char *)from->p, from->len)) {
        return false;
    }
    memcpy(out, from->p, from->len);
    out[from->len] = 0;
    return true;
}

/* One CN and one OU that are names, and nothing else. */
static bool take_subject(const mbedtls_x509_csr *csr, struct csr_facts *out) {
    for (const mbedtls_x509_name *n = &csr->subject; n != NULL; n = n->next) {
        bool site = MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0, node = MBEDTLS_OID_CMP(MBEDTLS_OID_AT_ORG_UNIT, &n->oid) == 0;
        if (n->next_merged != 0 || !(site || node) || !take_name(site ? out->site : out->node, &n->val)) {
            return false;
        }
    }
    return out->site[0] != 0 && out->node[0] != 0;
}

/* The info ends behind the key with attributes that hold nothing. */
static bool asks_for_nothing(const mbedtls_x509_csr *csr) {
    unsigned char *at = csr->cri.p, *end = csr->cri.p + csr->cri.len;
    size_t size = 0;
    int code = mbedtls_asn1_get_tag(&at, end, &size, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    static const int fields[] = {MBEDTLS_ASN1_INTEGER, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE,
                                 MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0] && code == 0; i++) {
        code = mbedtls_asn1_get_tag(&at, end, &size, fields[i]);
        at += code == 0 ? size : 0;
    }
    code = code != 0 ? code : mbedtls_asn1_get_tag(&at, end, &size, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_CONTEXT_SPECIFIC);
    return code == 0 && size == 0 && at == end;
}

/* mbedTLS reads requests and does not look at their signature. */
static int verify(mbedtls_x509_csr *csr) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    if (csr->sig_md != MBEDTLS_MD_SHA256 || csr->sig_pk != MBEDTLS_PK_ECDSA) {
        return MBEDTLS_ERR_X509_UNKNOWN_SIG_ALG;
    }
    digest_sha256(bytes_of(csr->cri.p, csr->cri.len), hash);
    return mbedtls_pk_verify(&csr->pk, MBEDTLS_MD_SHA256, hash, sizeof hash, csr->sig.p, csr->sig.len);
}

static enum grey_error judge(mbedtls_x509_csr *csr, struct csr_facts *out, struct fault *f) {
    unsigned char room[KEYSIGN_PUBLIC_BYTES_MAX];
    if (!mbed_is_p256(&csr->pk)) {
        return fault_set(f, E_KEY, "certificate request: its key is not P-256");
    }
    int code = verify(csr);
    if (code != 0) {
        return refuse(f, E_CERT, "certificate request: it is not signed by the key in it", code);
    }
    if (!take_subject(csr, out)) {
        return fault_set(f, E_CERT, "certificate request: its subject is not CN=site, OU=node with names of this product");
    }
    if (!asks_for_nothing(csr)) {
        return fault_set(f, E_CERT, "certificate request: it asks for extensions; here the CA says what a certificate holds");
    }
    int size = mbedtls_pk_write_pubkey_der(&csr->pk, room, sizeof room);
    if (size < 0) {
        return refuse(f, E_KEY, "certificate request", size);
    }
    out->public_key_size = (size_t)size;
    memcpy(out->public_key, room + sizeof room - size, (size_t)size);
    digest_sha256(bytes_of(out->public_key, (size_t)size), out->key_hash);
    return E_OK;
}

enum grey_error csr_read(struct bytes pem, struct csr_facts *out, struct fault *f) {
    char text[CSR_PEM_BYTES_MAX + 1];
    mbedtls_x509_csr csr;
    memset(out, 0, sizeof *out);
    if (pem.size == 0 || pem.size > CSR_PEM_BYTES_MAX || memchr(pem.data, 0, pem.size) != NULL) {
        return fault_set(f, E_CERT, "certificate request: not PEM text of at most %u bytes", CSR_PEM_BYTES_MAX);
    }
    memcpy(text, pem.data, pem.size);
    text[pem.size] = 0;
    mbedtls_x509_csr_init(&csr);
    int code = mbedtls_x509_csr_parse(&csr, (const unsigned char *)text, pem.size + 1);
    enum grey_error err = code != 0 ? refuse(f, E_CERT, "certificate request", code) : judge(&csr, out, f);
    mbedtls_x509_csr_free(&csr);
    return err;
}
