/* codec.h: deterministic CBOR (RFC 8949 section 4.2.1), written and read.  libcbor does the items; strictness is ours.
 *
 * Our formats are arrays with fixed positions, or maps with small ascending unsigned keys.  The reader refuses non-shortest
 * integers, indefinite lengths, tags, floats, bad UTF-8, nesting above LIMIT_CBOR_DEPTH and (by codec_end) trailing bytes.
 * Errors are sticky on both sides: go through all fields, check once.  Nothing is allocated by the reader. */
#ifndef PLATFORM_CODEC_H
#define PLATFORM_CODEC_H

#include "platform/bytes.h"

void codec_put_uint(struct builder *b, uint64_t v);
void codec_put_int(struct builder *b, int64_t v);
void codec_put_bool(struct builder *b, bool v);
void codec_put_null(struct builder *b);
void codec_put_bytes(struct builder *b, struct bytes v);
void codec_put_text(struct builder *b,
                    struct bytes utf8);                  /* not UTF-8: sets b->err = E_BAD_MESSAGE, since no reader would take it */
void codec_put_array(struct builder *b, uint64_t count); /* count items follow */
void codec_put_map(struct builder *b, uint64_t count);   /* count pairs follow, keys ascending */

struct codec_reader {
    struct bytes rest;   /* what is not read yet */
    enum grey_error err; /* E_OK, E_BAD_CBOR (not deterministic CBOR) or E_BAD_MESSAGE (another type or out of range) */
};

void codec_reader_init(struct codec_reader *r, struct bytes in);
/* Each returns a value that is safe to use when err is set: 0, false, an empty slice. */
uint64_t codec_uint(struct codec_reader *r, uint64_t max); /* above max: E_BAD_MESSAGE */
int64_t codec_int(struct codec_reader *r);
bool codec_bool(struct codec_reader *r);
struct bytes codec_bytes(struct codec_reader *r, size_t size_max);   /* borrows from the input */
struct bytes codec_text(struct codec_reader *r, size_t size_max);    /* valid UTF-8; borrows */
void codec_fixed(struct codec_reader *r, uint8_t *out, size_t size); /* a byte string of exactly this size; zeroed on error */
uint64_t codec_array(struct codec_reader *r, uint64_t count_max);
uint64_t codec_map(struct codec_reader *r,
                   uint64_t count_max);            /* looks through the whole map first: keys ascend, all is well formed */
bool codec_null(struct codec_reader *r);           /* true and skipped when the next item is null; else false and nothing is read */
struct bytes codec_skip(struct codec_reader *r);   /* any one item, checked in depth; lends its encoding */
enum grey_error codec_end(struct codec_reader *r); /* sets E_BAD_CBOR when bytes are left; returns err */

#endif
