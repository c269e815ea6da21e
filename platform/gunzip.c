#include "platform/gunzip.h"

#include <errno.h>
#include <zlib.h>

#define WINDOW_BITS_GZIP (15 + 16) /* zlib.h, inflateInit2: the largest window, with a gzip header */
#define ROOM_BYTES 16384u

struct gunzip {
    gunzip_source *source;
    void *context;
    z_stream z;
    bool between; /* after a whole member: another one, or nothing, may follow */
    uint8_t room[ROOM_BYTES];
};

struct gunzip *gunzip_new(gunzip_source *source, void *context) {
    struct gunzip *g = mem_new(1, sizeof *g);
    if (g == NULL) {
        return NULL;
    }
    g->source = source;
    g->context = context;
    if (inflateInit2(&g->z, WINDOW_BITS_GZIP) != Z_OK) {
        mem_free(g);
        return NULL;
    }
    return g;
}

void gunzip_free(struct gunzip *g) {
    if (g != NULL) {
        (void)inflateEnd(&g->z);
        mem_free(g);
    }
}

/* More compressed bytes, when there are none left.  1: there are some; 0: the source has ended; -1. */
static int feed(struct gunzip *g) {
    if (g->z.avail_in > 0) {
        return 1;
    }
    ssize_t got = g->source(g->context, g->room, sizeof g->room);
    if (got <= 0) {
        return (int)got;
    }
    g->z.next_in = g->room;
    g->z.avail_in = (unsigned)got;
    return 1;
}

ssize_t gunzip_read(struct gunzip *g, uint8_t *out, size_t size) {
    size_t most = size < ROOM_BYTES ? size : ROOM_BYTES;
    g->z.next_out = out;
    g->z.avail_out = (unsigned)most;
    while (g->z.avail_out == most) {
        int fed = feed(g);
        if (fed <= 0) {
            if (fed == 0 && g->between) {
                return 0;
            }
            errno = fed == 0 ? EBADMSG : errno; /* it was cut off */
            return -1;
        }
        if (g->between && inflateReset(&g->z) != Z_OK) {
            errno = EBADMSG;
            return -1;
        }
        g->between = false;
        int state = inflate(&g->z, Z_NO_FLUSH);
        if (state == Z_STREAM_END) {
            g->between = true;
        } else if (state != Z_OK && state != Z_BUF_ERROR) {
            errno = EBADMSG;
            return -1;
        }
    }
    return (ssize_t)(most - g->z.avail_out);
}
