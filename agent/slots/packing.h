/* packing.h: makes bundles (federation/update.h), where the programs are made.  All calls block. */
#ifndef AGENT_PACKING_H
#define AGENT_PACKING_H

#include "federation/update.h"
#include "platform/fault.h"

/* paths: of the files, called in the bundle as they are called last; m: all but files and id.  Writes out anew.  E_UPDATE_FORMAT, E_SYSTEM, E_IO. */
enum grey_error packing_write(struct update_manifest *m, char *const *paths, uint32_t count,
                              const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES], const char *out, struct fault *f);

/* The root of an image, without its empty blocks (federation/imagemap.h).  image: a file of whole blocks.  A folder beside out, `OUT.parts`, is made and removed. */
enum grey_error packing_image(struct update_manifest *m, const char *image, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES],
                              const char *out, struct fault *f);

#endif
