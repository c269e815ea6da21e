/* token.h: texts cut into words and numbers, and numbers written back exactly as they stood.
 *
 * Where a text is cut is the writer's affair; the reader only puts words and rendered numbers together again.  Pure. */
#ifndef FEDERATION_TOKEN_H
#define FEDERATION_TOKEN_H

#include "platform/bytes.h"

#define TOKEN_WORD_BYTES 22u   /* longer ones are cut */
#define TOKEN_NUMBER_BYTES 48u /* the longest that token_render makes, and some */
#define TOKEN_DECIMALS_MAX 15u
#define TOKEN_WIDTH_MAX 18u

enum token_style {
    TOKEN_PLAIN,     /* 007, -12.500 */
    TOKEN_STRIP_ONE, /* zeros at the end are left out, but for one: 12.5 for 12500, 12.0 for 12000 */
    TOKEN_STRIP_ALL, /* 12 for 12000 */
    TOKEN_TIME,      /* 2026-01-31T23:59:59.250: seconds since 1970 */
    TOKEN_STYLE_COUNT
};

/* How the text of a number comes from a value in units of 10^-decimals. */
struct token_form {
    uint8_t style;
    uint8_t decimals; /* at most TOKEN_DECIMALS_MAX, of a time 9 */
    uint8_t width;    /* TOKEN_PLAIN: digits before the point at least, by zeros; at most TOKEN_WIDTH_MAX */
};

/* The token of text at `at` (below its size): its size, and whether it is a number. */
size_t token_next(struct bytes text, size_t at, bool *number);

/* The value of a number that token_next found, in a form that renders it as it stands: in *form if that can, else in one that is
 * written there, as near to the former one as possible. */
int64_t token_value(struct bytes number, struct token_form *form);

/* The text; its size, 0 when there is none of this form and value. */
size_t token_render(struct token_form form, int64_t value, char out[TOKEN_NUMBER_BYTES]);
bool token_form_valid(struct token_form form);

uint64_t token_power_of_ten(unsigned exponent); /* at most 18 */

#endif
