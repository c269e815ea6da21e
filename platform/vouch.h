/* vouch.h: certificates that a site gives its own members while the core is away (X.509, RFC 5280; docs/IDENTITY.md, "While the core is away").
 *
 * With its certificate a gateway B gets a *delegation* from the core: a certificate for the same key that may issue others, for at most 60 days, below
 * which nobody may issue any (path length 0), and for subjects of this site only (name constraints, which OpenSSL enforces).  With it B may vouch for
 * another member X of its site.  What it gives is a chain: the new certificate, B's delegation, and what the core once gave X for the same key.
 *
 * Nobody who judges such a chain believes B alone: a stranger's key, another site's name, another role than gateway, a member that prolongs itself, and
 * more than VOUCH_LIFE_S at a time are refused by every reader of certificates of this program (vouch_judge).  Name constraints stand in the certificate for others;
 * mbedTLS reads over them.  No file, no clock.  Thread: any. */
#ifndef PLATFORM_VOUCH_H
#define PLATFORM_VOUCH_H

#include "platform/cert.h"

#define VOUCH_ISSUER "grey-issuer://" /* URI of a delegation: grey-issuer://SITE/NODE */
#define VOUCH_LIFE_S (14 * INT64_C(86400))
#define VOUCH_REACH_S (60 * INT64_C(86400)) /* no longer than so after the end of what the core gave */

struct mbedtls_x509_crt;
struct mbedtls_x509_crl;

/* For chains whose signatures and dates hold by way of ca.  E_OK: no delegation is in their way, or all of the above is kept.  E_CERT, E_REVOKED: what is not.
 * revoked: NULL for none. */
enum grey_error vouch_judge(const struct mbedtls_x509_crt *shown, struct mbedtls_x509_crt *ca, struct mbedtls_x509_crl *revoked,
                            struct fault *f);
/* The certificate is issued by way of a delegation. */
bool vouch_is_by_site(const struct mbedtls_x509_crt *shown);

bool vouch_text_is_by_site(const char *pem);

struct vouch_facts {
    struct cert_facts shown;   /* the first certificate */
    struct cert_facts by_core; /* what the core gave: the same, or what stands behind it */
    bool by_site;
};
/* Reads what a gateway shows: PEM, the own certificate first.  Signatures, names and lists of revoked ones (in trust: CA certificates and lists, in any
 * order) are checked, dates are not, and are the caller's to judge.  E_CERT, E_REVOKED. */
enum grey_error vouch_read(const char *pem, const char *trust, struct vouch_facts *out, struct fault *f);

/* The chain for the member whose certificate by the core is in `member`, as PEM without a NUL.  delegation, key: the issuer's (in a TPM: it blocks).  Dates from now_s, at
 * most VOUCH_LIFE_S, not beyond the delegation.  E_CERT: the member is the issuer itself, of another site, or too long without the core; what key said. */
enum grey_error vouch_make(const char *delegation, const struct keysign *key, const char *member, int64_t now_s,
                           struct builder *pem, struct fault *f);
/* What the core gives, taken apart: the delegation, which may be missing, and all else.  Appends PEM without a NUL.  E_CERT. */
enum grey_error vouch_split(const char *pem, struct builder *own, struct builder *delegation, struct fault *f);

#endif
