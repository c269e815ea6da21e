/* jansson reads.  What it does not bound is bounded before: size, and depth by a look at the brackets.  The raw slices are found by
 * a scanner that relies on json_read's checks for the right answer, but on nothing for its own safety. */
#include "platform/json.h"

#include <inttypes.h>
#include <string.h>

#include "include/grey/must.h"

#define DEPTH_MAX 64u
#define TREE_BYTES_MAX (32u * 1024u * 1024u) /* half of the 64 MiB that greyd must live in; 4 MiB of "[]," would take 150 */

/* --- Reading -------------------------------------------------------------------------------------------------------------------- */

/* What a look at the brackets, commas and quotes tells before jansson allocates anything. */
struct outline {
    size_t too_deep_at; /* where the depth first exceeds DEPTH_MAX, or the size of the text */
    size_t tree_bytes;  /* about what jansson's tree will take, from above (jansson 2.14, glibc, 64 bits) */
};

static struct outline outline_of(struct bytes text) {
    struct outline o = {.too_deep_at = text.size, .tree_bytes = 2 * text.size};
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
            continue;
        }
        switch (c) {
        case '"':
            in_string = true;
            o.tree_bytes += 48;
            break;
        case ',':
            o.tree_bytes += 48; /* a number and its place in an array */
            break;
        case ':':
            o.tree_bytes += 96; /* a pair of the hash table */
            break;
        case '{':
        case '[':
            o.tree_bytes += c == '{' ? 256 : 144;
            if (++depth > DEPTH_MAX) {
                o.too_deep_at = i;
                return o;
            }
            break;
        case '}':
        case ']':
            depth -= depth > 0;
            break;
        default:
            break;
        }
    }
    return o;
}

json_t *json_read(struct bytes text, struct fault *f) {
    struct outline o = outline_of(text);
    if (o.too_deep_at < text.size) {
        size_t line = 1, line_start = 0;
        for (size_t i = 0; i < o.too_deep_at; i++) {
            if (text.data[i] == '\n') {
                line++, line_start = i + 1;
            }
        }
        size_t column = o.too_deep_at - line_start + 1;
        (void)fault_set(f, E_BAD_JSON, "line %zu, column %zu: more than %u levels deep", line, column, DEPTH_MAX);
        return NULL;
    }
    if (o.tree_bytes > TREE_BYTES_MAX) {
        (void)fault_set(f, E_TOO_LARGE, "%zu bytes of JSON would take %zu MiB to read, at most %u", text.size, o.tree_bytes >> 20,
                        TREE_BYTES_MAX >> 20);
        return NULL;
    }
    json_error_t error;
    json_t *value =
        json_loadb(text.size == 0 ? "" : (const char *)text.data, text.size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (value == NULL) {
        enum grey_error code = json_error_code(&error) == json_error_out_of_memory ? E_NO_MEMORY : E_BAD_JSON;
        (void)fault_set(f, code, "line %d, column %d: %s", error.line, error.column, error.text);
    }
    return value;
}

/* --- Raw slices ----------------------------------------------------------------------------------------------------------------- */

static struct bytes drop(struct bytes text, size_t size) {
    return size >= text.size ? bytes_of(NULL, 0) : bytes_of(text.data + size, text.size - size);
}

static struct bytes drop_space(struct bytes text) {
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t' || text.data[0] == '\n' || text.data[0] == '\r')) {
        text = drop(text, 1);
    }
    return text;
}

static bool starts_with(struct bytes text, char c) {
    return text.size > 0 && text.data[0] == (uint8_t)c;
}

/* Size of the string at the head of text, quotes included; 0 when it does not end. */
static size_t string_size(struct bytes text) {
    for (size_t i = 1; i < text.size; i++) {
        if (text.data[i] == '\\') {
            i++;
        } else if (text.data[i] == '"') {
            return i + 1;
        }
    }
    return 0;
}

/* Size of the value at the head of text; 0 when there is none or it does not end. */
static size_t value_size(struct bytes text) {
    if (starts_with(text, '"')) {
        return string_size(text);
    }
    size_t depth = 0, i = 0;
    while (i < text.size) {
        uint8_t c = text.data[i];
        if (c == '"') {
            size_t size = string_size(drop(text, i));
            if (size == 0) {
                return 0;
            }
            i += size;
            continue;
        }
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0) {
                return i; /* the end of what holds this value */
            }
            if (--depth == 0) {
                return i + 1;
            }
        } else if (depth == 0 && (c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
            return i;
        }
        i++;
    }
    return depth == 0 ? i : 0;
}

/* A walk over the elements or members of a top-level array or object. */
struct walk {
    struct bytes rest;
    char closer;
};

static bool walk_start(struct walk *w, struct bytes text, char opener) {
    text = drop_space(text);
    w->closer = opener == '[' ? ']' : '}';
    w->rest = drop_space(drop(text, 1));
    return starts_with(text, opener);
}

/* Takes the next element (key NULL) or member; its name is given raw, with quotes.  False at the end. */
static bool walk_next(struct walk *w, struct bytes *key, struct bytes *value) {
    if (w->rest.size == 0 || starts_with(w->rest, w->closer)) {
        return false;
    }
    if (key != NULL) {
        size_t key_size = starts_with(w->rest, '"') ? string_size(w->rest) : 0;
        *key = bytes_of(w->rest.data, key_size);
        w->rest = drop_space(drop(w->rest, key_size));
        if (key_size == 0 || !starts_with(w->rest, ':')) {
            return false;
        }
        w->rest = drop_space(drop(w->rest, 1));
    }
    size_t size = value_size(w->rest);
    if (size == 0) {
        return false;
    }
    *value = bytes_of(w->rest.data, size);
    w->rest = drop_space(drop(w->rest, size));
    if (starts_with(w->rest, ',')) {
        w->rest = drop_space(drop(w->rest, 1));
    }
    return true;
}

struct bytes json_raw_element(struct bytes array_text, size_t index) {
    struct walk w;
    struct bytes value;
    if (walk_start(&w, array_text, '[')) {
        for (size_t i = 0; walk_next(&w, NULL, &value); i++) {
            if (i == index) {
                return value;
            }
        }
    }
    return bytes_of(NULL, 0);
}

size_t json_raw_elements(struct bytes array_text, struct bytes *out, size_t max) {
    struct walk w;
    struct bytes value;
    size_t count = 0;
    if (walk_start(&w, array_text, '[')) {
        for (; walk_next(&w, NULL, &value); count++) {
            if (count < max) {
                out[count] = value;
            }
        }
    }
    return count;
}

static int hex_digit(uint8_t c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The code unit of the "\uXXXX" at the head of text, or -1. */
static long escaped_unit(struct bytes text) {
    if (text.size < 6 || text.data[0] != '\\' || text.data[1] != 'u') {
        return -1;
    }
    long unit = 0;
    for (size_t i = 2; i < 6; i++) {
        int digit = hex_digit(text.data[i]);
        if (digit < 0) {
            return -1;
        }
        unit = unit * 16 + digit;
    }
    return unit;
}

/* Decodes the character or escape at the head of text (the inside of a string) into out as UTF-8.  Returns how many bytes of text it
 * took, 0 when it is not well formed. */
static size_t decode_one(struct bytes text, uint8_t out[4], size_t *out_size) {
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (text.data[0] != '\\') {
        out[0] = text.data[0], *out_size = 1;
        return 1;
    }
    const char *escape = text.size > 1 && text.data[1] != 0 ? strchr(escapes, text.data[1]) : NULL;
    if (escape != NULL) {
        out[0] = (uint8_t)meanings[escape - escapes], *out_size = 1;
        return 2;
    }
    long unit = escaped_unit(text), low = escaped_unit(drop(text, 6));
    size_t used = 6;
    if (unit >= 0xd800 && unit < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
        unit = 0x10000 + (unit - 0xd800) * 0x400 + (low - 0xdc00);
        used = 12;
    }
    if (unit < 0) {
        return 0;
    }
    if (unit < 0x80) {
        out[0] = (uint8_t)unit, *out_size = 1;
    } else if (unit < 0x800) {
        out[0] = (uint8_t)(0xc0 | unit >> 6), out[1] = (uint8_t)(0x80 | (unit & 0x3f)), *out_size = 2;
    } else if (unit < 0x10000) {
        out[0] = (uint8_t)(0xe0 | unit >> 12), out[1] = (uint8_t)(0x80 | (unit >> 6 & 0x3f)), *out_size = 3;
        out[2] = (uint8_t)(0x80 | (unit & 0x3f));
    } else {
        out[0] = (uint8_t)(0xf0 | unit >> 18), out[1] = (uint8_t)(0x80 | (unit >> 12 & 0x3f)), *out_size = 4;
        out[2] = (uint8_t)(0x80 | (unit >> 6 & 0x3f)), out[3] = (uint8_t)(0x80 | (unit & 0x3f));
    }
    return used;
}

/* True when the raw string, quotes included, says `name`: "\u0069d" is "id" to jansson, so it must be to us. */
static bool names(struct bytes raw, const char *name) {
    struct bytes inside = bytes_of(raw.data + 1, raw.size - 2), wanted = bytes_str(name);
    while (inside.size > 0) {
        uint8_t c[4];
        size_t size = 0, used = decode_one(inside, c, &size);
        if (used == 0 || size > wanted.size || memcmp(c, wanted.data, size) != 0) {
            return false;
        }
        inside = drop(inside, used);
        wanted = drop(wanted, size);
    }
    return wanted.size == 0;
}

struct bytes json_raw_member(struct bytes object_text, const char *name) {
    struct walk w;
    struct bytes key, value;
    if (walk_start(&w, object_text, '{')) {
        while (walk_next(&w, &key, &value)) {
            if (names(key, name)) {
                return value;
            }
        }
    }
    return bytes_of(NULL, 0);
}

/* --- Writing -------------------------------------------------------------------------------------------------------------------- */

void json_writer_init(struct json_writer *w, struct builder *out) {
    *w = (struct json_writer){.out = out};
}

static void before_value(struct json_writer *w) {
    if (w->need_comma && !w->after_key) {
        builder_add_byte(w->out, ',');
    }
    w->need_comma = true;
    w->after_key = false;
}

void json_open(struct json_writer *w, char bracket) {
    must(bracket == '{' || bracket == '[');
    must(w->depth < sizeof w->closers);
    before_value(w);
    builder_add_byte(w->out, (uint8_t)bracket);
    w->closers[w->depth++] = bracket == '{' ? '}' : ']';
    w->need_comma = false;
}

void json_close(struct json_writer *w) {
    must(w->depth > 0 && !w->after_key);
    builder_add_byte(w->out, (uint8_t)w->closers[--w->depth]);
    w->need_comma = true;
}

static void add_quoted(struct builder *out, struct bytes utf8) {
    builder_add_byte(out, '"');
    while (utf8.size > 0) {
        static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
        uint8_t c = utf8.data[0];
        size_t size = bytes_utf8_size(utf8);
        const char *place = c == 0 ? NULL : strchr(escaped, c);
        if (size == 0) {
            builder_add_str(out, "\xef\xbf\xbd");
            size = 1;
        } else if (place != NULL) {
            builder_add_byte(out, '\\');
            builder_add_byte(out, (uint8_t)letters[place - escaped]);
        } else if (c < 0x20) {
            builder_addf(out, "\\u%04x", c);
        } else {
            builder_add(out, bytes_of(utf8.data, size));
        }
        utf8 = drop(utf8, size);
    }
    builder_add_byte(out, '"');
}

void json_key(struct json_writer *w, const char *name) {
    must(w->depth > 0 && w->closers[w->depth - 1] == '}' && !w->after_key);
    before_value(w);
    add_quoted(w->out, bytes_str(name));
    builder_add_byte(w->out, ':');
    w->after_key = true;
}

void json_text(struct json_writer *w, struct bytes utf8) {
    before_value(w);
    add_quoted(w->out, utf8);
}

void json_str(struct json_writer *w, const char *text) {
    json_text(w, bytes_str(text));
}

void json_uint(struct json_writer *w, uint64_t v) {
    before_value(w);
    builder_addf(w->out, "%" PRIu64, v);
}

void json_int(struct json_writer *w, int64_t v) {
    before_value(w);
    builder_addf(w->out, "%" PRId64, v);
}

void json_milli(struct json_writer *w, int64_t thousandths) {
    before_value(w);
    uint64_t size = thousandths < 0 ? 0 - (uint64_t)thousandths : (uint64_t)thousandths;
    builder_addf(w->out, "%s%" PRIu64 ".%03" PRIu64, thousandths < 0 ? "-" : "", size / 1000, size % 1000);
}

void json_bool(struct json_writer *w, bool v) {
    before_value(w);
    builder_add_str(w->out, v ? "true" : "false");
}

void json_none(struct json_writer *w) {
    before_value(w);
    builder_add_str(w->out, "null");
}

void json_raw(struct json_writer *w, struct bytes value) {
    before_value(w);
    builder_add(w->out, value);
}

void json_base64(struct json_writer *w, struct bytes v) {
    before_value(w);
    builder_add_byte(w->out, '"');
    builder_add_base64(w->out, v);
    builder_add_byte(w->out, '"');
}

void json_member_text(struct json_writer *w, const char *name, struct bytes utf8) {
    json_key(w, name);
    json_text(w, utf8);
}

void json_member_str(struct json_writer *w, const char *name, const char *text) {
    json_key(w, name);
    json_str(w, text);
}

void json_member_uint(struct json_writer *w, const char *name, uint64_t v) {
    json_key(w, name);
    json_uint(w, v);
}

void json_member_int(struct json_writer *w, const char *name, int64_t v) {
    json_key(w, name);
    json_int(w, v);
}

void json_member_milli(struct json_writer *w, const char *name, int64_t thousandths) {
    json_key(w, name);
    json_milli(w, thousandths);
}

void json_member_milli_if(struct json_writer *w, const char *name, bool known, int64_t thousandths) {
    json_key(w, name);
    if (known) {
        json_milli(w, thousandths);
    } else {
        json_none(w);
    }
}

void json_member_bool(struct json_writer *w, const char *name, bool v) {
    json_key(w, name);
    json_bool(w, v);
}

void json_member_open(struct json_writer *w, const char *name, char bracket) {
    json_key(w, name);
    json_open(w, bracket);
}

void json_member_hex(struct json_writer *w, const char *name, struct bytes v) {
    json_key(w, name);
    before_value(w);
    builder_add_byte(w->out, '"');
    for (size_t i = 0; i < v.size; i++) {
        char digits[3];
        bytes_hex(v.data + i, 1, digits);
        builder_add_str(w->out, digits);
    }
    builder_add_byte(w->out, '"');
}

void json_member_id(struct json_writer *w, const char *name, uint64_t id) {
    json_key(w, name);
    before_value(w);
    builder_addf(w->out, "\"%016" PRIx64 "\"", id);
}
