/* digest.h: checksums and hashes. */
#ifndef PLATFORM_DIGEST_H
#define PLATFORM_DIGEST_H

#include "platform/bytes.h"

#define DIGEST_SHA256_BYTES 32u

void digest_sha256(struct bytes in, uint8_t out[DIGEST_SHA256_BYTES]);                    /* FIPS 180-4 */
void digest_sha256_two(struct bytes a, struct bytes b, uint8_t out[DIGEST_SHA256_BYTES]); /* of a followed by b */
/* SHA-256 of what comes in pieces: begin, add as often as needed, end (which may be asked of a copy, to go on afterwards). */
struct digest_stream {
    uint64_t room[18];
};
void digest_stream_begin(struct digest_stream *s);
void digest_stream_add(struct digest_stream *s, struct bytes in);
void digest_stream_end(struct digest_stream *s, uint8_t out[DIGEST_SHA256_BYTES]);
/* HMAC-SHA256 (RFC 2104) of the parts, one behind the other; asks for no memory. */
void digest_hmac(struct bytes key, const struct bytes *parts, size_t count, uint8_t out[DIGEST_SHA256_BYTES]);
uint32_t digest_crc32(uint32_t crc, struct bytes in); /* IEEE 802.3; start with 0, go on with the last result */

#endif
