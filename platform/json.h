/* json.h: JSON in (jansson, with bounds on depth and size) and out (a small writer that puts raw slices through untouched). */
#ifndef PLATFORM_JSON_H
#define PLATFORM_JSON_H

#include <jansson.h>

#include "platform/bytes.h"
#include "platform/fault.h"

/* Parses one document; duplicate keys, trailing bytes, invalid UTF-8, NUL in strings and depth above 64 are refused:
 * E_BAD_JSON with line and column.
 * So are integers beyond 64 bits and reals beyond a double, which jansson cannot hold.  What would take more than 32 MiB to read
 * (some 100,000 objects, 500,000 numbers): E_TOO_LARGE, before anything is allocated.  The caller owns the result (json_decref). */
json_t *json_read(struct bytes text, struct fault *f);

/* In a document that json_read accepted: the bytes of element `index` of the top-level array, or of member `name` of the top-level
 * object, as they were received.  Empty when absent.  Borrows from text. */
struct bytes json_raw_element(struct bytes array_text, size_t index);
struct bytes json_raw_member(struct bytes object_text, const char *name);
/* As json_raw_element for all elements in one pass: fills out[0..max), returns the number of elements. */
size_t json_raw_elements(struct bytes array_text, struct bytes *out, size_t max);

/* Writer: commas and quoting are its work.  json_open(&w, '{'), json_key, a value, json_close(&w). */
struct json_writer {
    struct builder *out;
    uint8_t depth;
    char closers[32];
    bool need_comma, after_key;
};
void json_writer_init(struct json_writer *w, struct builder *out);
void json_open(struct json_writer *w, char bracket); /* '{' or '[' */
void json_close(struct json_writer *w);
void json_key(struct json_writer *w, const char *name);
void json_text(struct json_writer *w, struct bytes utf8); /* escaped; invalid UTF-8 becomes U+FFFD */
void json_str(struct json_writer *w, const char *text);
void json_uint(struct json_writer *w, uint64_t v);
void json_int(struct json_writer *w, int64_t v);
void json_milli(struct json_writer *w, int64_t thousandths); /* 1234 -> 1.234 */
void json_bool(struct json_writer *w, bool v);
void json_none(struct json_writer *w);                    /* null */
void json_raw(struct json_writer *w, struct bytes value); /* a value that is JSON already */
void json_base64(struct json_writer *w, struct bytes v);

/* A member of the object that is open: json_key and the value, as above. */
void json_member_text(struct json_writer *w, const char *name, struct bytes utf8);
void json_member_str(struct json_writer *w, const char *name, const char *text);
void json_member_uint(struct json_writer *w, const char *name, uint64_t v);
void json_member_int(struct json_writer *w, const char *name, int64_t v);
void json_member_milli(struct json_writer *w, const char *name, int64_t thousandths);
void json_member_milli_if(struct json_writer *w, const char *name, bool known, int64_t thousandths); /* null unless known */
void json_member_bool(struct json_writer *w, const char *name, bool v);
void json_member_open(struct json_writer *w, const char *name, char bracket); /* json_close ends it */
/* Strings of lower-case digits: two for each byte, 16 for an id (a number above 2^53 would not be safe: RFC 8259, 6). */
void json_member_hex(struct json_writer *w, const char *name, struct bytes v);
void json_member_id(struct json_writer *w, const char *name, uint64_t id);

#endif
