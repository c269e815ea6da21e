/* digest.h: checksums and hashes. */
#ifndef PLATFORM_DIGEST_H
#define PLATFORM_DIGEST_H

#include "platform/bytes.h"

#define DIGEST_SHA256_BYTES 32u

void digest_sha256(struct bytes in, uint8_t out[DIGEST_SHA256_BYTES]);                    /* FIPS 180-4 */
void digest_sha256_two(struct bytes a, struct bytes b, uint8_t out[DIGEST_SHA256_BYTES]); /* of a followed by b */
uint32_t digest_crc32(uint32_t crc, struct bytes in); /* IEEE 802.3; start with 0, go on with the last result */

#endif
