/* makers.h: whose TPMs, and whose identity documents, a core trusts: certificates and keys out of files, read as a whole or not at all.
 *
 * A reading does not change; who judges by it on another thread holds it meanwhile.  makers_watch looks for changes of the files each
 * minute, and at makers_reload (SIGHUP); what cannot be read is logged and counted, and what was read before goes on.  Thread: the loop's; the
 * content of a makers that is held: any. */
#ifndef CORE_MAKERS_H
#define CORE_MAKERS_H

#include "federation/attest/evidence.h"
#include "platform/keys.h"
#include "platform/loop.h"

#define MAKERS_DOCUMENT_KEYS_MAX 16u

struct makers {
    const char *roots_pem[ATTEST_TYPES]; /* certificates of makers, by type; NULL: none is trusted */
    uint8_t document_keys[MAKERS_DOCUMENT_KEYS_MAX][KEYS_ED25519_PUBLIC_BYTES];
    uint32_t document_key_count;
    uint32_t holders;
    struct builder roots, vtpm_roots;
};

struct makers_files { /* "" each: nobody; copied */
    const char *roots, *vtpm_roots;
    const char *document_keys; /* a public key in hexadecimal digits a line; # begins a remark */
};

struct makers_watch;
/* Reads the files.  E_CONFIG, E_NOT_FOUND, E_SYSTEM: one of them, by name; E_NO_MEMORY. */
struct makers_watch *makers_watch_new(struct loop *loop, const struct makers_files *files, struct fault *f);
void makers_watch_free(struct makers_watch *w); /* NULL is allowed */
void makers_reload(struct makers_watch *w);     /* now, changed or not.  NULL is allowed */

struct makers *makers_hold(struct makers_watch *w); /* as read last */
void makers_release(struct makers *m);              /* NULL is allowed */

#endif
