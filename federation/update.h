/* update.h: programs and images for gateways, as one file that its maker signed.
 *
 * A bundle is a header of UPDATE_HEADER_BYTES with the signed manifest, and then the files that it names, each from a multiple of
 * UPDATE_ALIGN_BYTES on: so a file that did not change keeps its chunks when another grows (federation/object.h), and only what differs travels.
 *
 * It is signed with a key of its own that lies offline with who makes the programs.  The core signs as well, that this site should have it; but a
 * core that was broken into cannot put programs of its own on gateways.  `counter` is what keeps old ones away: it rises when a version must not be
 * replaced by an earlier one any more, and with each such release only (as in TF-M's and AVB's rollback indexes).  docs/UPDATES.md, docs/FORMATS.md. */
#ifndef FEDERATION_UPDATE_H
#define FEDERATION_UPDATE_H

#include "include/grey/ids.h"
#include "include/grey/limits.h"
#include "platform/digest.h"
#include "platform/keys.h"

#define UPDATE_HEADER_BYTES 4096u
#define UPDATE_ALIGN_BYTES 4096u
#define UPDATE_FILES_MAX 16u
#define UPDATE_WORD_BYTES_MAX 64u /* of product, architecture, version, and names of files */
#define UPDATE_FILE_BYTES_MAX (1ull << 40)
#define UPDATE_ID_BYTES DIGEST_SHA256_BYTES

#define UPDATE_PRODUCT_AGENT "agent" /* programs for a folder of slots; images are called as their board is */

/* Of this program, as Debian calls it. */
#if defined(__x86_64__)
#define UPDATE_ARCHITECTURE "amd64"
#elif defined(__aarch64__)
#define UPDATE_ARCHITECTURE "arm64"
#elif defined(__arm__)
#define UPDATE_ARCHITECTURE "armhf"
#else
#define UPDATE_ARCHITECTURE "unknown"
#endif

struct update_file {
    struct bytes name; /* of a program; [A-Za-z0-9._-], not "." or ".." */
    uint64_t size;
    uint8_t hash[DIGEST_SHA256_BYTES];
};

struct update_manifest {
    struct bytes product, architecture, version;
    uint64_t counter;
    uint64_t replaces_max; /* a gateway whose floor is at most this takes it although `counter` is below; 0: none does */
    struct update_file files[UPDATE_FILES_MAX];
    uint32_t file_count;
    uint8_t id[UPDATE_ID_BYTES]; /* SHA-256 of what is signed: one name for exactly these bytes */
};

/* Fills a header; id is set.  E_UPDATE_FORMAT: m is none, or it does not fit. */
enum grey_error update_sign(struct update_manifest *m, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES],
                            uint8_t header[UPDATE_HEADER_BYTES]);
/* Reads a header; m borrows from it.  The signature is not looked at.  E_UPDATE_FORMAT. */
enum grey_error update_read(struct bytes header, struct update_manifest *m);
/* The same, and E_UPDATE_SIGNATURE unless it was signed with that key. */
enum grey_error update_verify(struct bytes header, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], struct update_manifest *m);

uint64_t update_offset(const struct update_manifest *m, uint32_t file); /* in the bundle; of file_count: where the bundle ends */

/* Whether a gateway of that product, architecture and floor may have it: E_OK, E_UPDATE_PRODUCT, E_UPDATE_OLDER. */
enum grey_error update_fits(const struct update_manifest *m, const char *product, const char *architecture, uint64_t floor);

#endif
