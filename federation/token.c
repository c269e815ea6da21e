#include "federation/token.h"

#include <string.h>

#include "include/grey/must.h"

#define DIGITS_MAX 18u       /* below 2^63 */
#define LETTERS_MAX 32u      /* around a number that is part of a word, as in pump17 or 5kW */
#define TIME_BYTES 19u       /* 2026-01-31T23:59:59 */
#define TIME_DECIMALS_MAX 9u /* nanoseconds */
#define YEAR_MIN 1970u
#define YEAR_MAX 2200u /* in nanoseconds below 2^63 */
#define DAY_SECONDS 86400u
#define EPOCH_DAYS 719468u /* from 0000-03-01 to 1970-01-01 */

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

static bool digit_at(struct bytes text, size_t at) {
    return at < text.size && is_digit(text.data[at]);
}

static size_t digits_at(struct bytes text, size_t at) {
    size_t n = 0;
    while (digit_at(text, at + n)) {
        n++;
    }
    return n;
}

uint64_t token_power_of_ten(unsigned exponent) {
    uint64_t v = 1;
    must(exponent <= DIGITS_MAX);
    while (exponent-- > 0) {
        v *= 10;
    }
    return v;
}

/* --- times ----------------------------------------------------------------------------------------------------------------------------- */

/* Days since 1970 and back, in years that begin in March (so the leap day is the last) of eras of 400 years. */
static uint64_t days_of(uint64_t year, uint64_t month, uint64_t day) {
    year -= month <= 2;
    uint64_t era = year / 400, of_era = year % 400;
    uint64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH_DAYS;
}

static void date_of(uint64_t days, uint64_t *year, uint64_t *month, uint64_t *day) {
    days += EPOCH_DAYS;
    uint64_t era = days / 146097, rest = days % 146097;
    uint64_t of_era = (rest - rest / 1460 + rest / 36524 - rest / 146096) / 365;
    uint64_t of_year = rest - (365 * of_era + of_era / 4 - of_era / 100);
    uint64_t shifted = (5 * of_year + 2) / 153;
    *day = of_year - (153 * shifted + 2) / 5 + 1;
    *month = shifted < 10 ? shifted + 3 : shifted - 9;
    *year = era * 400 + of_era + (*month <= 2);
}

static char *put_digits(char *at, uint64_t v, unsigned width) {
    for (unsigned i = width; i-- > 0; v /= 10) {
        at[i] = (char)('0' + v % 10);
    }
    return at + width;
}

static size_t render_time(uint64_t seconds, char *out) {
    uint64_t year, month, day, second = seconds % DAY_SECONDS;
    date_of(seconds / DAY_SECONDS, &year, &month, &day);
    if (year > YEAR_MAX) {
        return 0;
    }
    char *at = put_digits(out, year, 4);
    *at++ = '-';
    at = put_digits(at, month, 2);
    *at++ = '-';
    at = put_digits(at, day, 2);
    *at++ = 'T';
    at = put_digits(at, second / 3600, 2);
    *at++ = ':';
    at = put_digits(at, second / 60 % 60, 2);
    *at++ = ':';
    at = put_digits(at, second % 60, 2);
    return (size_t)(at - out);
}

static uint64_t number_at(const uint8_t *p, size_t digits) {
    uint64_t v = 0;
    for (size_t i = 0; i < digits; i++) {
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    return v;
}

/* The seconds of a time as it stands in text; false when it would not be rendered the same. */
static bool time_at(struct bytes text, size_t at, uint64_t *seconds) {
    static const char pattern[] = "0000-00-00T00:00:00";
    char again[TOKEN_NUMBER_BYTES];
    if (text.size - at < TIME_BYTES || text.data[at + 4] != '-' || text.data[at + 10] != 'T') {
        return false;
    }
    const uint8_t *p = text.data + at;
    for (size_t i = 0; i < TIME_BYTES; i++) {
        if (pattern[i] == '0' ? !is_digit(p[i]) : p[i] != (uint8_t)pattern[i]) {
            return false;
        }
    }
    uint64_t year = number_at(p, 4), month = number_at(p + 5, 2), day = number_at(p + 8, 2);
    if (year < YEAR_MIN || year > YEAR_MAX || month == 0 || month > 12 || day == 0 || day > 31) {
        return false;
    }
    *seconds =
        days_of(year, month, day) * DAY_SECONDS + number_at(p + 11, 2) * 3600 + number_at(p + 14, 2) * 60 + number_at(p + 17, 2);
    return render_time(*seconds, again) == TIME_BYTES && memcmp(again, p, TIME_BYTES) == 0;
}

/* --- cutting ---------------------------------------------------------------------------------------------------------------------------- */

/* A number between other things, or the only one in a word: what digests and random ids are made of is none. */
static bool stands_alone(struct bytes text, size_t at, size_t end) {
    size_t before = at, after = end;
    while (before > 0 && is_letter(text.data[before - 1])) {
        if (at - --before > LETTERS_MAX) {
            return false;
        }
    }
    while (after < text.size && is_letter(text.data[after])) {
        if (++after - end > LETTERS_MAX) {
            return false;
        }
    }
    return (before == at || before == 0 || !is_digit(text.data[before - 1])) && (after == end || !digit_at(text, after));
}

/* The size of the number that begins at `at`, 0 if none does. */
static size_t number_size(struct bytes text, size_t at) {
    uint64_t seconds;
    bool within = at > 0 && is_digit(text.data[at - 1]);
    if (within) {
        return 0;
    }
    if (digit_at(text, at) && time_at(text, at, &seconds)) {
        size_t decimals =
            at + TIME_BYTES < text.size && text.data[at + TIME_BYTES] == '.' ? digits_at(text, at + TIME_BYTES + 1) : 0;
        return TIME_BYTES + (decimals > 0 && decimals <= TIME_DECIMALS_MAX ? 1 + decimals : 0);
    }
    uint8_t before = at > 0 ? text.data[at - 1] : 0;
    bool sign = text.data[at] == '-' && !is_letter(before);
    size_t begin = at + sign, whole = digits_at(text, begin), end = begin + whole;
    if (whole == 0 || whole > DIGITS_MAX || !stands_alone(text, begin, end)) {
        return 0;
    }
    size_t decimals = before != '.' && end < text.size && text.data[end] == '.' ? digits_at(text, end + 1) : 0;
    if (decimals > 0 && decimals <= TOKEN_DECIMALS_MAX && whole + decimals <= DIGITS_MAX) {
        size_t last = end + 1 + decimals;
        bool version = last < text.size && text.data[last] == '.' && digit_at(text, last + 1);
        end = !version && stands_alone(text, end + 1, last) ? last : end;
    }
    bool zero = true;
    for (size_t i = begin; i < end; i++) {
        zero = zero && (text.data[i] == '0' || text.data[i] == '.');
    }
    return sign && zero ? 0 : end - at; /* no value renders as -0 */
}

static bool may_begin(struct bytes text, size_t at) {
    return is_digit(text.data[at]) || (text.data[at] == '-' && digit_at(text, at + 1));
}

size_t token_next(struct bytes text, size_t at, bool *number) {
    bool letters = false;
    size_t size = may_begin(text, at) ? number_size(text, at) : 0;
    *number = size > 0;
    while (!*number && at + size < text.size && size < TOKEN_WORD_BYTES) {
        uint8_t c = text.data[at + size];
        if (size > 0 && may_begin(text, at + size) && number_size(text, at + size) > 0) {
            break;
        }
        size++;
        letters = letters || is_letter(c);
        if (c == '"' || (c == ' ' && letters)) { /* a key, a value, a word of a sentence */
            break;
        }
    }
    return size;
}

/* --- numbers ----------------------------------------------------------------------------------------------------------------------------- */

bool token_form_valid(struct token_form form) {
    return form.style < TOKEN_STYLE_COUNT && form.decimals <= (form.style == TOKEN_TIME ? TIME_DECIMALS_MAX : TOKEN_DECIMALS_MAX) &&
           form.width <= (form.style == TOKEN_PLAIN ? TOKEN_WIDTH_MAX : 0);
}

size_t token_render(struct token_form form, int64_t value, char out[TOKEN_NUMBER_BYTES]) {
    must(token_form_valid(form));
    uint64_t unit = token_power_of_ten(form.decimals), magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    uint64_t whole = magnitude / unit, part = magnitude % unit;
    unsigned decimals = form.decimals;
    char *at = out;
    if (value < 0) {
        *at++ = '-';
    }
    if (form.style == TOKEN_TIME) {
        size_t size = value < 0 ? 0 : render_time(whole, out);
        if (size == 0) {
            return 0;
        }
        at += size;
    } else {
        unsigned width = 1;
        for (uint64_t v = whole; v >= 10; v /= 10) {
            width++;
        }
        at = put_digits(at, whole, width < form.width ? form.width : width);
    }
    unsigned least = form.style == TOKEN_STRIP_ONE ? 1 : form.style == TOKEN_STRIP_ALL ? 0 : decimals;
    while (decimals > least && part % 10 == 0) {
        part /= 10;
        decimals--;
    }
    if (decimals > 0) {
        *at++ = '.';
        at = put_digits(at, part, decimals);
    }
    return (size_t)(at - out);
}

/* A number as it stands: its digits, how many stand behind the point, and how wide zeros make it. */
struct digits {
    bool negative, time;
    uint64_t value;
    unsigned decimals, width;
};

static struct digits digits_of(struct bytes number) {
    struct digits d = {.negative = number.data[0] == '-'};
    size_t at = d.negative;
    d.time = number.size >= TIME_BYTES && time_at(number, 0, &d.value);
    if (d.time) {
        at = TIME_BYTES;
    } else {
        size_t whole = digits_at(number, at);
        d.value = number_at(number.data + at, whole);
        d.width = number.data[at] == '0' && whole > 1 ? (unsigned)whole : 0;
        at += whole;
    }
    if (at < number.size) {
        d.decimals = (unsigned)(number.size - at - 1);
        d.value = d.value * token_power_of_ten(d.decimals) + number_at(number.data + at + 1, d.decimals);
    }
    return d;
}

static bool fits(struct bytes number, const struct digits *d, struct token_form form, int64_t *value) {
    char again[TOKEN_NUMBER_BYTES];
    if (form.decimals < d->decimals || d->time != (form.style == TOKEN_TIME) || !token_form_valid(form)) {
        return false;
    }
    uint64_t unit = token_power_of_ten(form.decimals - d->decimals);
    if (d->value > (uint64_t)INT64_MAX / unit) {
        return false;
    }
    int64_t magnitude = (int64_t)(d->value * unit);
    *value = d->negative ? -magnitude : magnitude;
    return token_render(form, *value, again) == number.size && memcmp(again, number.data, number.size) == 0;
}

int64_t token_value(struct bytes number, struct token_form *form) {
    struct digits d = digits_of(number);
    struct token_form plain = {
        .style = d.time ? TOKEN_TIME : TOKEN_PLAIN, .decimals = (uint8_t)d.decimals, .width = (uint8_t)d.width};
    uint8_t most = form->decimals > plain.decimals ? form->decimals : plain.decimals;
    bool stripped = form->style == TOKEN_STRIP_ONE || form->style == TOKEN_STRIP_ALL;
    int64_t value;
    if (token_form_valid(*form) && fits(number, &d, *form, &value)) {
        return value;
    }
    struct token_form wider[] = {{.style = stripped ? form->style : TOKEN_STRIP_ONE, .decimals = most},
                                 {.style = TOKEN_STRIP_ALL, .decimals = most}};
    for (size_t i = 0; i < 2 && (stripped || form->decimals > plain.decimals); i++) {
        if (fits(number, &d, wider[i], &value)) {
            *form = wider[i];
            return value;
        }
    }
    bool rendered = fits(number, &d, plain, &value);
    must(rendered);
    *form = plain;
    return value;
}
