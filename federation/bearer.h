/* bearer.h: bearer tokens of the HTTP APIs (RFC 6750): "grey_", 8 hexadecimal digits that name it, "_", 64 that are secret.
 *
 * The secret is 256 random bits, so one SHA-256 is all the hashing it needs: what is kept opens nothing, and cannot be guessed back.
 * The prefix lets scanners of repositories find a token that was left where it does not belong. */
#ifndef FEDERATION_BEARER_H
#define FEDERATION_BEARER_H

#include "platform/bytes.h"
#include "platform/digest.h"

#define BEARER_ID_BYTES 8u
#define BEARER_SEED_BYTES 36u                        /* random bytes that make one: 4 of the name, 32 secret */
#define BEARER_BYTES (5u + BEARER_ID_BYTES + 1 + 64) /* as text */
#define BEARER_NAME_BYTES 64u

/* What is kept of a token. */
struct bearer {
    char id[BEARER_ID_BYTES + 1];
    unsigned role; /* enum access_role */
    uint8_t hash[DIGEST_SHA256_BYTES];
    int64_t created_ms, expires_ms;   /* Unix */
    char name[BEARER_NAME_BYTES + 1]; /* for people; printable ASCII */
};

/* text, with a NUL, is the secret: wipe it when it was handed over.  b: its id and hash; the rest is left as it is. */
void bearer_make(const uint8_t seed[BEARER_SEED_BYTES], char text[BEARER_BYTES + 1], struct bearer *b);
struct bytes bearer_of(struct bytes authorization); /* the token in a header "Bearer ..."; empty: it holds none */
/* False: it has not the form of a token. */
bool bearer_id(struct bytes token, char id[BEARER_ID_BYTES + 1]);
bool bearer_fits(const struct bearer *b, struct bytes token); /* its hash; in constant time */
/* 1 to BEARER_NAME_BYTES of printable ASCII, or nothing. */
bool bearer_name_valid(struct bytes name);

#endif
