/* entropy.h: an adaptive binary range coder: decisions that were foreseen cost next to nothing.
 *
 * The same calls write and read, so that a model is described once for both ends: each takes the decision and returns it; a reader
 * ignores what it is given and returns what was written.  The byte order of the carry is LZMA's.  Pure; allocates nothing but through
 * the builder. */
#ifndef FEDERATION_ENTROPY_H
#define FEDERATION_ENTROPY_H

#include "platform/bytes.h"

/* How likely a decision is "no", and how often it was asked: 13 bits of 1/8192 and 3 bits that let young ones learn faster. */
typedef uint16_t entropy_model;
#define ENTROPY_MODEL_NEW ((entropy_model)(4096u << 3))

struct entropy {
    struct builder *out; /* NULL: reads */
    struct bytes in;
    size_t out_start, at;
    uint64_t low; /* the writer's interval */
    uint32_t range, code;
    uint64_t held;       /* bytes 0xff that a carry may still turn, behind `first` */
    uint8_t first;       /* the byte before them */
    bool any;            /* there is one */
    enum grey_error err; /* of a reader: E_CORRUPT; sticky, and what is returned then is "no" and 0 */
};

void entropy_write(struct entropy *c, struct builder *out); /* out: appended to, lent until entropy_end */
void entropy_read(struct entropy *c, struct bytes in);      /* in: lent until entropy_end */
/* Writer: appends what is left.  Reader: E_CORRUPT when bytes were left.  Returns the error of either. */
enum grey_error entropy_end(struct entropy *c);

bool entropy_bit(struct entropy *c, entropy_model *m, bool bit);
/* A number of `bits` bits, 1 to 8, by a tree of models: room for 1 << bits of them. */
unsigned entropy_tree(struct entropy *c, entropy_model *tree, unsigned bits, unsigned value);
uint64_t entropy_raw(struct entropy *c, unsigned bits, uint64_t value); /* 0 to 64 bits of which nothing is known */

void entropy_models_new(entropy_model *m, size_t count);

#endif
