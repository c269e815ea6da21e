/* series.h: numbers of one kind that follow each other, coded by how far each is from where it was to be expected.  Pure. */
#ifndef FEDERATION_SERIES_H
#define FEDERATION_SERIES_H

#include "federation/entropy.h"
#include "federation/token.h"

#define SERIES_CLASSES 32u /* numbers of so many bits; the last stands for all longer ones */

/* Where a number is counted from: 0 (noise), the last one (a walk), or as far on as the last one came (counters, times). */
enum series_origin { SERIES_FROM_ZERO, SERIES_FROM_LAST, SERIES_FROM_STEP, SERIES_ORIGINS };

struct series {
    struct token_form form;
    uint64_t last, step;
    uint16_t cost[SERIES_ORIGINS]; /* bits that each origin would have cost lately, weighted */
    entropy_model other_form, negative, length[SERIES_CLASSES], second_bit[SERIES_CLASSES];
};

void series_new(struct series *s);
/* The next number, modulo 2^64.  A reader ignores the argument and returns what was written; 0 when c->err is set. */
uint64_t series_code(struct entropy *c, struct series *s, uint64_t value);
/* The form of the next number, which s has then; the last number goes on in its units.  Always token_form_valid. */
void series_code_form(struct entropy *c, struct series *s, struct token_form form);

#endif
