/* handshake.h: a site and the core agree on the keys of a session (federation/envelope.h) across a broker that both distrust.
 *
 * The site knows the core by its Ed25519 key (federation.upstream.core_key, and with it the X25519 key that belongs to that); the core knows
 * gateways by their certificates.  As the pattern NK of the Noise framework (revision 34, 7.5), with the site's signature in the first
 * message where IK would have a static key, because keys of certificates sign, and some live in a TPM:
 *
 *   site -> core  its fresh public key; sealed with what that and the core's key give: the hello, the gateway's certificate, its signature
 *                 over all of that
 *   core -> site  its fresh public key; sealed with what both fresh keys give as well: the welcome
 *
 * Then each way has a key that depends on every byte said.  The broker learns that a session begins, and sizes.  Who learns the core's long key
 * later reads old hellos, but no event.  Who plays an old hello again gets a welcome it cannot open: a core keeps the former session until a
 * frame of the new one has held.  Pure: secrets are drawn by the caller, signatures made and judged by it. */
#ifndef FEDERATION_HANDSHAKE_H
#define FEDERATION_HANDSHAKE_H

#include "platform/cipher.h"
#include "platform/digest.h"
#include "platform/keys.h"

#define HANDSHAKE_CERT_BYTES_MAX 4096u
#define HANDSHAKE_SIGNATURE_BYTES_MAX 128u

struct handshake {
    uint8_t secret[KEYS_X25519_BYTES]; /* ours, fresh; the core's only from the welcome on */
    uint8_t theirs[KEYS_X25519_BYTES];
    uint8_t chain[CIPHER_KEY_BYTES];   /* all secrets so far */
    uint8_t said[DIGEST_SHA256_BYTES]; /* the hash of all that was said */
};

struct handshake_keys {
    uint8_t up[CIPHER_KEY_BYTES], down[CIPHER_KEY_BYTES];
};

/* --- the site ------------------------------------------------------------------------------------------------------------------------------ */

/* fresh: KEYS_X25519_BYTES that were drawn for this handshake alone.  False: core_key is no key. */
bool handshake_begin(struct handshake *h, const char *site, const uint8_t core_key[KEYS_ED25519_PUBLIC_BYTES],
                     const uint8_t fresh[KEYS_X25519_BYTES]);
/* What the gateway's key must sign: that this hello, with this certificate, belongs to this handshake. */
void handshake_proof(const struct handshake *h, struct bytes hello, struct bytes cert, uint8_t proof[DIGEST_SHA256_BYTES]);
/* Appends the content of UP_SEALED_HELLO. */
void handshake_put_hello(struct builder *out, struct handshake *h, struct bytes hello, struct bytes cert, struct bytes signature);
/* The content of DOWN_SEALED_WELCOME; *welcome lies in scratch.  E_BAD_CBOR, E_BAD_MESSAGE, E_SEALED: not the core's answer to this hello; h then
 * waits on for the one that is. */
enum grey_error handshake_get_welcome(struct handshake *h, struct bytes content, struct builder *scratch, struct bytes *welcome,
                                      struct handshake_keys *keys);

/* --- the core ------------------------------------------------------------------------------------------------------------------------------ */

struct handshake_hello { /* slices lie in the scratch of handshake_get_hello */
    struct bytes hello;
    struct bytes cert; /* DER */
    struct bytes signature;
    uint8_t proof[DIGEST_SHA256_BYTES]; /* what the signature must be over: the caller judges that before it believes a word */
};
/* E_BAD_CBOR, E_BAD_MESSAGE, E_SEALED: meant for another core or another site, or changed. */
enum grey_error handshake_get_hello(struct handshake *h, const char *site, const uint8_t core_secret[KEYS_ED25519_SECRET_BYTES],
                                    struct bytes content, struct builder *scratch, struct handshake_hello *out);
/* Appends the content of DOWN_SEALED_WELCOME, and gives the keys.  fresh: as above.  E_SEALED: the site's key is none. */
enum grey_error handshake_put_welcome(struct builder *out, struct handshake *h, const uint8_t fresh[KEYS_X25519_BYTES],
                                      struct bytes welcome, struct handshake_keys *keys);

#endif
