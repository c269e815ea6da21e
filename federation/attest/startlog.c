/* The log is rows one after the other, each an array of 4: count, version, program, config.  What is measured of a start is
 * "grey-start-1" with its NUL ‖ size of the version u8 ‖ version ‖ program ‖ config. */
#include "federation/attest/startlog.h"

#include <string.h>

#include "federation/attest/bootlog.h"
#include "include/grey/must.h"
#include "platform/codec.h"

#define LABEL "grey-start-1"

static void put_row(struct builder *b, const struct startlog_start *s, uint32_t count) {
    codec_put_array(b, 4);
    codec_put_uint(b, count);
    codec_put_text(b, s->version);
    codec_put_bytes(b, bytes_of(s->program, sizeof s->program));
    codec_put_bytes(b, bytes_of(s->config, sizeof s->config));
}

void startlog_measure(const struct startlog_start *s, uint8_t out[DIGEST_SHA256_BYTES]) {
    uint8_t event[sizeof LABEL + 1 + STARTLOG_VERSION_BYTES + 2 * DIGEST_SHA256_BYTES], *at = event;
    must(s->version.size <= STARTLOG_VERSION_BYTES);
    memcpy(at, LABEL, sizeof LABEL);
    at += sizeof LABEL;
    *at++ = (uint8_t)s->version.size;
    if (s->version.size > 0) {
        memcpy(at, s->version.data, s->version.size);
        at += s->version.size;
    }
    memcpy(at, s->program, sizeof s->program);
    memcpy(at + sizeof s->program, s->config, sizeof s->config);
    digest_sha256(bytes_of(event, (size_t)(at - event) + 2 * DIGEST_SHA256_BYTES), out);
}

void startlog_open(struct startlog_reader *r, struct bytes log) {
    *r = (struct startlog_reader){.rest = log, .start_count = log.size > STARTLOG_BYTES_MAX ? STARTLOG_STARTS_MAX + 1 : 0};
}

bool startlog_next(struct startlog_reader *r, struct startlog_start *out, uint32_t *count, enum grey_error *err) {
    struct codec_reader c;
    *err = r->start_count > STARTLOG_STARTS_MAX ? E_ATTEST_START_LOG : E_OK;
    memset(out, 0, sizeof *out);
    *count = 0;
    if (*err != E_OK || r->rest.size == 0) {
        return false;
    }
    codec_reader_init(&c, r->rest);
    uint64_t fields = codec_array(&c, 4), times = codec_uint(&c, STARTLOG_STARTS_MAX - r->start_count);
    out->version = codec_text(&c, STARTLOG_VERSION_BYTES);
    codec_fixed(&c, out->program, sizeof out->program);
    codec_fixed(&c, out->config, sizeof out->config);
    if (c.err != E_OK || fields != 4 || times == 0) {
        *err = E_ATTEST_START_LOG;
        return false;
    }
    r->rest = c.rest;
    r->start_count += (uint32_t)times;
    *count = (uint32_t)times;
    return true;
}

static bool is_same(const struct startlog_start *a, const struct startlog_start *b) {
    return bytes_equal(a->version, b->version) && memcmp(a->program, b->program, sizeof a->program) == 0 &&
           memcmp(a->config, b->config, sizeof a->config) == 0;
}

enum grey_error startlog_add(struct bytes log, const struct startlog_start *s, struct builder *out) {
    struct startlog_reader r;
    struct startlog_start last;
    uint32_t count, last_count = 0;
    enum grey_error err;
    size_t last_at = 0;
    startlog_open(&r, log);
    for (size_t at = 0; startlog_next(&r, &last, &count, &err); at = log.size - r.rest.size) {
        last_at = at, last_count = is_same(&last, s) ? count : 0;
    }
    if (err != E_OK || r.start_count >= STARTLOG_STARTS_MAX || s->version.size > STARTLOG_VERSION_BYTES) {
        return E_ATTEST_START_LOG;
    }
    builder_add(out, bytes_of(log.data, last_count > 0 ? last_at : log.size));
    put_row(out, s, last_count + 1);
    return out->err;
}

enum grey_error startlog_drop_last(struct bytes log, struct builder *out) {
    struct startlog_reader r;
    struct startlog_start start, last = {.version = bytes_of(NULL, 0)};
    uint32_t count, last_count = 0;
    enum grey_error err;
    size_t last_at = 0;
    startlog_open(&r, log);
    for (size_t at = 0; startlog_next(&r, &start, &count, &err); at = log.size - r.rest.size) {
        last_at = at, last_count = count, last = start;
    }
    if (err != E_OK || last_count == 0) {
        return E_ATTEST_START_LOG;
    }
    builder_add(out, bytes_of(log.data, last_at));
    if (last_count > 1) {
        put_row(out, &last, last_count - 1);
    }
    return out->err;
}

enum grey_error startlog_replay(struct bytes log, uint8_t value[DIGEST_SHA256_BYTES]) {
    struct startlog_reader r;
    struct startlog_start start;
    uint32_t count;
    enum grey_error err;
    startlog_open(&r, log);
    while (startlog_next(&r, &start, &count, &err)) {
        uint8_t digest[DIGEST_SHA256_BYTES];
        startlog_measure(&start, digest);
        for (; count > 0; count--) {
            bootlog_extend(value, digest);
        }
    }
    return err;
}
