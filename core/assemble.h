/* assemble.h: frames that sites send in parts, so that what is urgent can go between, become whole again.
 *
 * A site has at most one frame in parts on each channel, and its parts come in order.  What does not follow is dropped: nobody
 * acknowledged it, and the site sends it again.  At most so many bytes are held for all sites together; when there is no room, the site
 * that was silent the longest loses its parts.  Thread: one. */
#ifndef CORE_ASSEMBLE_H
#define CORE_ASSEMBLE_H

#include "federation/sync.h"

#define ASSEMBLE_BYTES_MAX (64u * 1024u * 1024u)

struct assembler;

struct assembler *assemble_new(size_t bytes_max); /* NULL: out of memory */
void assemble_free(struct assembler *a);          /* NULL is allowed */

enum assemble_verdict {
    ASSEMBLE_MORE,    /* kept; others are to follow */
    ASSEMBLE_WHOLE,   /* the frame is whole; assemble_done must follow */
    ASSEMBLE_DROPPED, /* does not follow what is here, or there is no room */
};
/* whole: lent until assemble_done. */
enum assemble_verdict assemble_part(struct assembler *a, const char *site, enum event_channel c, const struct sync_part *p,
                                    struct bytes *whole);
void assemble_done(struct assembler *a, const char *site, enum event_channel c);
void assemble_forget(struct assembler *a, const char *site); /* it has said hello: it begins anew */
size_t assemble_bytes(const struct assembler *a);            /* held for all sites */

#endif
