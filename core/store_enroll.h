/* store_enroll.h: enrolment tokens and certificates in the core's store.  What may be enrolled is decided here, once for all databases.
 *
 * Taking a token and writing the certificate that it buys are one transaction: a token is used exactly when there is a certificate.
 * Thread: the core's storage thread; between store_begin and store_commit. */
#ifndef CORE_STORE_ENROLL_H
#define CORE_STORE_ENROLL_H

#include "core/store.h"
#include "platform/crl.h"
#include "platform/json.h"

#define STORE_ENROLL_NODES_MAX 64u
#define STORE_ENROLL_LAPSED_DAYS 400 /* a known key may have its certificate renewed for so long after it ended */

struct store_token {
    uint8_t hash[DIGEST_SHA256_BYTES]; /* of the secret */
    const char *site, *node;           /* node: the only one that it enrols; NULL: any */
    uint32_t nodes;
    int64_t created_ms, expires_ms;
};
enum grey_error store_token_add(struct store *s, const struct store_token *t, struct fault *f);
/* An array: id (the first 8 digits of the hash), site, nodes, used, created, expires.  Those that ended more than a day ago are left out. */
enum grey_error store_token_list(struct store *s, int64_t now_ms, struct json_writer *w, struct fault *f);
/* Ends a token now, by its id.  E_NOT_FOUND. */
enum grey_error store_token_end(struct store *s, const char *id, int64_t now_ms, struct fault *f);

/* TPMs that were registered, by SHA-256 of their endorsement certificates; one for each gateway, the latest.  E_NOT_FOUND. */
enum grey_error store_tpm_add(struct store *s, const uint8_t ek[DIGEST_SHA256_BYTES], const char *site, const char *node,
                              int64_t now_ms, struct fault *f);
/* Which one was registered for this gateway. */
enum grey_error store_tpm_of(struct store *s, const char *site, const char *node, uint8_t ek[DIGEST_SHA256_BYTES], struct fault *f);
enum grey_error store_tpm_remove(struct store *s, const uint8_t ek[DIGEST_SHA256_BYTES], struct fault *f);
enum grey_error store_tpm_list(struct store *s, struct json_writer *w, struct fault *f); /* an array: ek, site, node, registered */
/* Makes a token (by its hash) for the gateway that this TPM was registered for; site, node: LIMIT_NAME_BYTES + 1.  E_TOKEN_UNKNOWN,
 * E_STORE_RESTORED. */
enum grey_error store_tpm_invite(struct store *s, const uint8_t ek[DIGEST_SHA256_BYTES], const uint8_t token[DIGEST_SHA256_BYTES],
                                 int64_t now_ms, int64_t life_ms, char *site, char *node, struct fault *f);

/* A gateway asks for a certificate. */
struct store_enroll {
    const uint8_t *token; /* hash; NULL: renewal for a key that is known */
    uint8_t key[DIGEST_SHA256_BYTES];
    const char *site, *node;
    int64_t now_ms, life_ms;
};
/* May it?  again: appended to (PEM, without a NUL) when the same key asks again and has what it asked for: no new certificate is due.
 * Takes the token's use where it takes one.  E_TOKEN_UNKNOWN, E_TOKEN_SITE, E_TOKEN_EXPIRED, E_TOKEN_USED, E_TOKEN_NODE, E_REVOKED,
 * E_STORE_RESTORED. */
enum grey_error store_enroll(struct store *s, const struct store_enroll *q, struct builder *again, struct fault *f);
/* Errors of the one who asks: the transaction goes on. */
static inline bool store_enroll_refuses(enum grey_error err) {
    return err >= E_TOKEN_UNKNOWN && err <= E_STORE_RESTORED;
}

struct store_certificate {
    uint8_t serial[CERT_SERIAL_BYTES];
    int64_t not_after_ms;
    struct bytes pem;
};
/* Keeps what was issued for q.  Certificates that the node had with another key are revoked: it was replaced, or it lost its key. */
enum grey_error store_certificate_add(struct store *s, const struct store_enroll *q, const struct store_certificate *c,
                                      struct fault *f);
/* Revokes what a node has, or with node "" all that the site has.  *count: certificates that were good until now.  E_NOT_FOUND: none ever. */
enum grey_error store_revoke(struct store *s, const char *site, const char *node, int64_t now_ms, uint32_t *count, struct fault *f);
/* Was what this gateway has revoked?  False too for one that has nothing of this core. */
enum grey_error store_is_revoked(struct store *s, const char *site, const char *node, bool *revoked, struct fault *f);
/* One certificate, by its number: found, and since when it is revoked, 0: it is not. */
enum grey_error store_serial_find(struct store *s, const uint8_t serial[CERT_SERIAL_BYTES], bool *found, int64_t *revoked_ms,
                                  struct fault *f);
enum grey_error store_serial_revoke(struct store *s, const uint8_t serial[CERT_SERIAL_BYTES], int64_t now_ms, struct fault *f);
/* What the list of revoked certificates must name: those that would still hold.  At most max, the latest. */
enum grey_error store_revoked(struct store *s, int64_t now_ms, struct crl_entry *out, size_t max, size_t *count, struct fault *f);
/* An array of the newest certificate of each node: site, node, serial, issued, expires, revoked.  site "": of all. */
enum grey_error store_certificate_list(struct store *s, const char *site, struct json_writer *w, struct fault *f);

#endif
