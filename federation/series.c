#include "federation/series.h"

#include <assert.h>

#define LENGTH_BITS 5u /* of a class */
#define LONG_BITS 6u   /* of what a length is above the last class */
#define LONG_CLASS (SERIES_CLASSES - 1u)
#define COST_UNIT 32u
#define COST_FADES 16u
#define STYLE_BITS 2u
#define DECIMALS_BITS 4u
#define WIDTH_BITS 5u

static_assert(1u << LENGTH_BITS == SERIES_CLASSES && 64u - LONG_CLASS < 1u << LONG_BITS, "every length of 64 bits has a code");
static_assert(TOKEN_STYLE_COUNT <= 1u << STYLE_BITS && TOKEN_DECIMALS_MAX < 1u << DECIMALS_BITS &&
                  TOKEN_WIDTH_MAX < 1u << WIDTH_BITS,
              "and every form");

void series_new(struct series *s) {
    *s = (struct series){.other_form = ENTROPY_MODEL_NEW, .negative = ENTROPY_MODEL_NEW};
    entropy_models_new(s->length, SERIES_CLASSES);
    entropy_models_new(s->second_bit, SERIES_CLASSES);
}

static bool is_negative(uint64_t difference) {
    return difference >> 63 != 0;
}

static uint64_t magnitude_of(uint64_t difference) {
    return is_negative(difference) ? 0 - difference : difference;
}

static unsigned length_of(uint64_t v) {
    return v == 0 ? 0 : 64u - (unsigned)__builtin_clzll(v);
}

/* Its length in bits, its sign, its second bit, and the rest as it is. */
static uint64_t code_difference(struct entropy *c, struct series *s, uint64_t difference) {
    uint64_t magnitude = magnitude_of(difference);
    unsigned length = length_of(magnitude);
    unsigned class = entropy_tree(c, s->length, LENGTH_BITS, length < LONG_CLASS ? length : LONG_CLASS);
    length = class < LONG_CLASS ? class : LONG_CLASS + (unsigned)entropy_raw(c, LONG_BITS, length - LONG_CLASS);
    if (length > 64) {
        c->err = E_CORRUPT;
    }
    if (length == 0 || c->err != E_OK) {
        return 0;
    }
    bool negative = entropy_bit(c, &s->negative, is_negative(difference));
    unsigned left = length - 1;
    uint64_t got = 1;
    if (left > 0) {
        left--;
        got = got << 1 | (uint64_t)entropy_bit(c, &s->second_bit[class], (magnitude >> left & 1) != 0);
    }
    got = got << left | entropy_raw(c, left, magnitude & ((1ull << left) - 1));
    return negative ? 0 - got : got;
}

uint64_t series_code(struct entropy *c, struct series *s, uint64_t value) {
    const uint64_t origins[SERIES_ORIGINS] = {
        [SERIES_FROM_ZERO] = 0, [SERIES_FROM_LAST] = s->last, [SERIES_FROM_STEP] = s->last + s->step};
    unsigned best = SERIES_FROM_LAST;
    for (unsigned o = 0; o < SERIES_ORIGINS; o++) {
        best = s->cost[o] < s->cost[best] ? o : best;
    }
    value = origins[best] + code_difference(c, s, value - origins[best]);
    if (c->err != E_OK) {
        return 0;
    }
    for (unsigned o = 0; o < SERIES_ORIGINS; o++) {
        unsigned length = length_of(magnitude_of(value - origins[o]));
        s->cost[o] = (uint16_t)(s->cost[o] - s->cost[o] / COST_FADES + COST_UNIT * length);
    }
    s->step = value - s->last;
    s->last = value;
    return value;
}

void series_code_form(struct entropy *c, struct series *s, struct token_form form) {
    const struct token_form *old = &s->form;
    bool other = form.style != old->style || form.decimals != old->decimals || form.width != old->width;
    if (!entropy_bit(c, &s->other_form, other)) {
        return;
    }
    form.style = (uint8_t)entropy_raw(c, STYLE_BITS, form.style);
    form.decimals = (uint8_t)entropy_raw(c, DECIMALS_BITS, form.decimals);
    form.width = (uint8_t)entropy_raw(c, WIDTH_BITS, form.width);
    if (c->err != E_OK || !token_form_valid(form)) {
        c->err = E_CORRUPT;
        return;
    }
    if ((old->style == TOKEN_TIME) != (form.style == TOKEN_TIME)) {
        s->last = 0;
    } else if (form.decimals >= old->decimals) {
        s->last *= token_power_of_ten((unsigned)(form.decimals - old->decimals));
    } else {
        s->last = (uint64_t)((int64_t)s->last / (int64_t)token_power_of_ten((unsigned)(old->decimals - form.decimals)));
    }
    s->step = 0;
    s->form = form;
}
