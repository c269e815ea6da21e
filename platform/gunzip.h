/* gunzip.h: gzip (RFC 1952) in pieces, in bounded memory (about 64 KiB). */
#ifndef PLATFORM_GUNZIP_H
#define PLATFORM_GUNZIP_H

#include <sys/types.h>

#include "platform/bytes.h"

struct gunzip;

/* Where the compressed bytes come from: up to size of them; 0: the end; -1: an error. */
typedef ssize_t gunzip_source(void *context, uint8_t *out, size_t size);

struct gunzip *gunzip_new(gunzip_source *source, void *context); /* NULL: no memory */
void gunzip_free(struct gunzip *g);
/* Up to size bytes; 0: the end, which the data itself says; -1: an error of the source, or no gzip (errno EBADMSG). */
ssize_t gunzip_read(struct gunzip *g, uint8_t *out, size_t size);

#endif
