#include "federation/entropy.h"

#define MODEL_BITS 13u
#define COUNT_BITS 3u
#define COUNT_MAX ((1u << COUNT_BITS) - 1)
#define RANGE_MIN (1u << 24)
#define RAW_BITS_MAX 16u
#define CODE_BYTES 4u

static const uint8_t rates[COUNT_MAX + 1] = {1, 2, 2, 3, 3, 4, 4, 5}; /* the older, the slower */

void entropy_models_new(entropy_model *m, size_t count) {
    for (size_t i = 0; i < count; i++) {
        m[i] = ENTROPY_MODEL_NEW;
    }
}

void entropy_write(struct entropy *c, struct builder *out) {
    *c = (struct entropy){.out = out, .out_start = out->size, .range = UINT32_MAX};
}

static uint8_t next_byte(struct entropy *c) {
    return c->at++ < c->in.size ? c->in.data[c->at - 1] : 0; /* the writer leaves zeros out at the end */
}

void entropy_read(struct entropy *c, struct bytes in) {
    *c = (struct entropy){.in = in, .range = UINT32_MAX};
    for (unsigned i = 0; i < CODE_BYTES; i++) {
        c->code = c->code << 8 | next_byte(c);
    }
}

/* The top byte of low leaves: at once, or when it is known whether a carry still reaches it. */
static void shift_out(struct entropy *c) {
    if (c->low < 0xff000000u || c->low > UINT32_MAX) {
        uint8_t carry = (uint8_t)(c->low >> 32);
        if (c->any) {
            builder_add_byte(c->out, (uint8_t)(c->first + carry));
        }
        for (; c->held > 0; c->held--) {
            builder_add_byte(c->out, (uint8_t)(0xffu + carry));
        }
        c->first = (uint8_t)(c->low >> 24);
        c->any = true;
    } else {
        c->held++;
    }
    c->low = (c->low & 0x00ffffffu) << 8;
}

static void normalize(struct entropy *c) {
    while (c->range < RANGE_MIN) {
        c->range <<= 8;
        if (c->out != NULL) {
            shift_out(c);
        } else {
            c->code = c->code << 8 | next_byte(c);
        }
    }
}

bool entropy_bit(struct entropy *c, entropy_model *m, bool bit) {
    uint32_t p = *m >> COUNT_BITS, count = *m & COUNT_MAX;
    uint32_t bound = (c->range >> MODEL_BITS) * p;
    if (c->out == NULL) {
        bit = c->code >= bound && c->err == E_OK;
    }
    if (bit) {
        c->low += c->out != NULL ? bound : 0;
        c->code -= c->out == NULL ? bound : 0;
        c->range -= bound;
        p -= p >> rates[count];
    } else {
        c->range = bound;
        p += ((1u << MODEL_BITS) - p) >> rates[count];
    }
    *m = (entropy_model)(p << COUNT_BITS | (count < COUNT_MAX ? count + 1 : count));
    normalize(c);
    return bit;
}

unsigned entropy_tree(struct entropy *c, entropy_model *tree, unsigned bits, unsigned value) {
    unsigned node = 1;
    for (unsigned i = bits; i-- > 0;) {
        node = node << 1 | (unsigned)entropy_bit(c, &tree[node], (value >> i & 1) != 0);
    }
    return node - (1u << bits);
}

uint64_t entropy_raw(struct entropy *c, unsigned bits, uint64_t value) {
    uint64_t got = 0;
    while (bits > 0) {
        unsigned part = bits < RAW_BITS_MAX ? bits : RAW_BITS_MAX;
        bits -= part;
        uint32_t v = (uint32_t)(value >> bits) & ((1u << part) - 1);
        c->range >>= part;
        if (c->out != NULL) {
            c->low += (uint64_t)v * c->range;
        } else {
            v = c->code / c->range;
            if (v >> part != 0) { /* beyond the interval: no writer made this */
                c->err = E_CORRUPT;
            }
            v = c->err == E_OK ? v : 0;
            c->code -= v * c->range;
        }
        got = got << part | v;
        normalize(c);
    }
    return got;
}

enum grey_error entropy_end(struct entropy *c) {
    if (c->out == NULL) {
        /* all bytes were looked at, and the last of them is one that the writer would not have left out */
        bool whole = c->at >= c->in.size && (c->in.size == 0 || c->in.data[c->in.size - 1] != 0);
        c->err = c->err == E_OK && !whole ? E_CORRUPT : c->err;
        return c->err;
    }
    uint64_t top = c->low + c->range - 1; /* of the interval: the number with most zeros at its end is as good as any */
    for (unsigned zeros = 32; zeros > 0; zeros -= 8) {
        uint64_t cut = top >> zeros << zeros;
        if (cut >= c->low) {
            c->low = cut;
            break;
        }
    }
    for (unsigned i = 0; i <= CODE_BYTES; i++) {
        shift_out(c);
    }
    while (c->out->err == E_OK && c->out->size > c->out_start && c->out->data[c->out->size - 1] == 0) {
        c->out->size--;
    }
    return c->out->err;
}
