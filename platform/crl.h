/* crl.h: signed lists of revoked certificates (X.509 CRL version 2, RFC 5280, 5), made by the issuing CA and read by everybody.
 * No file, no clock: PEM text and times come from the caller.  Thread: any. */
#ifndef PLATFORM_CRL_H
#define PLATFORM_CRL_H

#include "platform/cert.h"
#include "platform/keysign.h"

#define CRL_ENTRIES_MAX 4096u
#define CRL_PEM_BYTES_MAX (256u * 1024u)

struct crl_entry {
    uint8_t serial[CERT_SERIAL_BYTES];
    int64_t revoked_s; /* Unix seconds */
};

struct crl_request {
    const char *issuer_pem; /* its first certificate signs */
    const struct keysign *issuer;
    uint64_t number; /* rises with each list of this issuer, above 0 */
    int64_t this_s, next_s;
    const struct crl_entry *entries;
    size_t entry_count; /* at most CRL_ENTRIES_MAX */
};
/* Appends the list as PEM.  E_CERT, E_KEY, or the builder's error. */
enum grey_error crl_make(const struct crl_request *q, struct builder *pem, struct fault *f);

struct crl_facts {
    uint64_t number; /* 0: it has none */
    int64_t this_s, next_s;
    uint32_t entry_count;
    uint8_t
        serials_xor[CERT_SERIAL_BYTES]; /* of the last bytes of all serial numbers: two lists with the same name the same ones */
};
/* Reads a list and checks that one of the CA certificates of ca_pem, which may sign lists, signed it.  Judges no times.  E_CERT. */
enum grey_error crl_read(struct bytes pem, const char *ca_pem, struct crl_facts *out, struct fault *f);

/* The entries of a list that is such a one, at most max.  E_CERT. */
enum grey_error crl_entries(struct bytes pem, const char *ca_pem, struct crl_entry *out, size_t max, size_t *count,
                            struct fault *f);

#endif
