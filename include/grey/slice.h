/* slice.h: how bytes travel: a place and a size, never a C string.  Functions on them: platform/bytes.h. */
#ifndef GREY_SLICE_H
#define GREY_SLICE_H

#include <stddef.h>
#include <stdint.h>

struct bytes {
    const uint8_t *data;
    size_t size;
};

struct blob; /* shared, counted bytes: platform/bytes.h */

#endif
