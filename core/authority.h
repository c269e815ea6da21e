/* authority.h: the certificate authority of the federation, in a directory:
 *
 *   root.crt  root.key        the root; its key signs issuing certificates only, and may lie elsewhere between times
 *   issuing.crt issuing.key   signs gateways' certificates and the revocation list
 *   ca.crt                    what everybody trusts: issuing and root certificates, the present ones first, former ones behind them
 *   next.crt next.key         the issuing key to come, while it is made known: "rotate" makes it, "promote" begins to use it
 *   former.crt former.key     the issuing key before: signs no more certificates, but the list for those that it signed
 *   crl.pem                   lists of revoked certificates, one of each of the two
 *   core-sign.key .pub        with it cores sign what they give (platform/keyfile.h)
 *
 * Keys are 0600.  `grey-core ca ...` is its command line.  A gateway's key is made on the gateway and stays there: what comes here is its
 * request (platform/csr.h).  docs/IDENTITY.md. */
#ifndef CORE_AUTHORITY_H
#define CORE_AUTHORITY_H

#include "include/grey/limits.h"
#include "platform/cert.h"
#include "platform/crl.h"
#include "platform/csr.h"

/* argv of the words behind `grey-core ca`.  Returns the exit code. */
int authority_command(int argc, char **argv);

enum grey_error authority_init(const char *dir, struct fault *f); /* makes what there is not; harmless when all is there */
/* Writes PREFIX.key and PREFIX.crt for a core on this machine, with names localhost and 127.0.0.1 and, unless it is "", the host's.  In
 * PREFIX.crt stand the authorities behind its certificate too, so that who knows the root needs nothing else. */
enum grey_error authority_serve(const char *dir, const char *host, const char *prefix, struct fault *f);
/* The issuing key to come: made, and put into ca.crt; then, when all sites know it, used. */
enum grey_error authority_rotate(const char *dir, struct fault *f);
enum grey_error authority_promote(const char *dir, struct fault *f);

/* The issuing half, in memory. */
struct authority {
    struct builder issuing, issuing_key, bundle, root; /* PEM with a NUL behind it */
    struct keysign signer;
    struct builder former, former_key;
    struct keysign former_signer; /* all zero: none */
    uint8_t fingerprint[32];      /* SHA-256 of the root certificate: what tokens carry */
};
enum grey_error authority_open(const char *dir, struct authority *a, struct fault *f); /* E_NOT_FOUND, E_CERT, E_KEY */
void authority_close(struct authority *a); /* wipes; one that was never opened is allowed */

/* Copies the name of a site or a gateway.  False: text is none, or NULL. */
bool authority_name(char out[LIMIT_NAME_BYTES + 1], const char *text);
/* Names that are the broker's rights (deploy/local/broker.acl) or nobody's: no site may be called so. */
bool authority_site_reserved(const char *site);
/* A gateway's certificate for a request that was read and allowed: subject CN = site, URI grey://site/node, role gateway.  Appends PEM
 * without a NUL. */
enum grey_error authority_sign(const struct authority *a, const struct csr_facts *asked, int64_t now_s, int64_t life_s,
                               struct builder *pem, struct fault *f);
/* With which this gateway may vouch for its neighbours (platform/vouch.h), for twice as long, at most 60 days.  Appends PEM; nothing when the issuing CA is
 * of before and may not have issuers below it: the next `ca rotate` makes one that may. */
enum grey_error authority_delegate(const struct authority *a, const struct csr_facts *asked, int64_t now_s, int64_t life_s,
                                   struct builder *pem, struct fault *f);
/* Lists of revoked certificates, as PEM, of the present issuer and of the former one; their number is now_ms.  Dated an hour back, for clocks that are slow. */
enum grey_error authority_list(const struct authority *a, const struct crl_entry *entries, size_t count, int64_t now_ms,
                               struct builder *pem, struct fault *f);
#define AUTHORITY_LIST_DAYS 30 /* after that readers should have a newer list; they go on with this one and say so */

#endif
