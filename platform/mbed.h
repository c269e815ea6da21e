/* mbed.h: what the two mbedTLS that we build with say differently: 2.28 (Debian 12) and 3.6 (Debian 13).  Sources that use mbedTLS include
 * this before its headers; beside it and mbed.c none asks for the version.
 *
 * int: 0, or an error of mbedTLS.  Thread: any. */
#ifndef PLATFORM_MBED_H
#define PLATFORM_MBED_H

/* 3.6 hides fields for which 2.28 has no function: with this they have the same names in both. */
#define MBEDTLS_ALLOW_PRIVATE_ACCESS

#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>

#include "platform/bytes.h"
#include "platform/digest.h"
#include "platform/keysign.h"

#define MBED_ERR_KEY_AWAY (-0x0070) /* MBEDTLS_ERR_PLATFORM_HW_ACCEL_FAILED: a key that lies elsewhere did not sign */

/* --- keys ----------------------------------------------------------------------------------------------------------------------------------- */

int mbed_parse_key(mbedtls_pk_context *key, struct bytes text); /* a private one: PEM with its NUL, or DER */
int mbed_parse_key_file(mbedtls_pk_context *key, const char *path);
bool mbed_is_p256(const mbedtls_pk_context *key);
int mbed_check_pair(mbedtls_pk_context *public_half, mbedtls_pk_context *key);
int mbed_sign(mbedtls_pk_context *key, const uint8_t hash[DIGEST_SHA256_BYTES], unsigned char *room, size_t room_size,
              size_t *size); /* DER */
/* A key that signs elsewhere (a TPM) becomes one of mbedTLS, for handshakes: with 2.28 only, because 3.6 has no place for it.  k: borrowed for
 * the life of key; its calls may then come from any thread, one at a time.  False: this mbedTLS cannot. */
bool mbed_can_sign_elsewhere(void);
int mbed_sign_elsewhere(mbedtls_pk_context *key, const struct keysign *k);

/* --- ASN.1, written backwards: how many bytes, or an error below 0 ---------------------------------------------------------------------------- */

/* AlgorithmIdentifier of ECDSA with SHA-256, without parameters (RFC 5758, 3.2). */
int mbed_write_algorithm(unsigned char **at, unsigned char *room);
/* That, and the signature as BIT STRING behind it. */
int mbed_write_signature(unsigned char **at, unsigned char *room, struct bytes der);

/* --- TLS ------------------------------------------------------------------------------------------------------------------------------------ */

bool mbed_has_tls13(void);
/* A configuration that begins from what mbedTLS thinks right: TLS 1.2 and above (from_13: 1.3 and above), AEAD suites with forward secrecy, curves
 * X25519 and P-256, no renegotiation, random numbers of the kernel.  Client: sessions may be resumed by tickets. */
int mbed_configure(mbedtls_ssl_config *c, int endpoint, bool from_13);
/* What mbedtls_ssl_read said is no result: with TLS 1.3, messages of the handshake come among the data, and the rest of what was received waits
 * inside.  Read on at once; no socket will tell.  mbed_is_ticket: it was a ticket, which can be had now. */
bool mbed_read_again(const mbedtls_ssl_context *ssl, int code);
bool mbed_is_ticket(int code);
bool mbed_tickets_follow(
    const mbedtls_ssl_context *ssl); /* they are still to come: what the handshake gave is nothing to come back with */
/* Takes from a session what is not needed to come back with it. */
void mbed_trim_session(mbedtls_ssl_session *session);
/* A client's handshake was a short one.  fresh: the session it gave; offered: the one it began with, trimmed. */
bool mbed_resumed(const mbedtls_ssl_context *ssl, const mbedtls_ssl_session *fresh, const mbedtls_ssl_session *offered);
/* The other side does not speak what we ask for: an older TLS, or no suite that we take. */
bool mbed_is_old_tls(int code);

#endif
