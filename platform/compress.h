/* compress.h: LZ4 blocks with a stated bound on what comes out. */
#ifndef PLATFORM_COMPRESS_H
#define PLATFORM_COMPRESS_H

#include "platform/bytes.h"

/* Appends the LZ4 block of `in` to out.  E_TOO_LARGE when it does not get smaller: send it as it is. */
enum grey_error compress_lz4(struct bytes in, struct builder *out);
/* Appends the content of the block, exactly size_bytes (the caller checked it against its limit before).  E_CORRUPT otherwise. */
enum grey_error compress_unlz4(struct bytes block, size_t size_bytes, struct builder *out);

#endif
