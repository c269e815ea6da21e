/* If this found anything, an image that means no good could crash, or keep busy for ever, the child that unpacks it. */
#include <stdlib.h>
#include <string.h>

#include "agent/launch/tar.h"
#include "platform/gunzip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
    struct bytes rest;
    struct gunzip *gunzip; /* NULL: as it is */
    uint64_t taken;
};

#define TAKEN_MAX (16u << 20) /* of a few bytes of gzip much may come */

static ssize_t take_raw(void *context, uint8_t *out, size_t size) {
    struct source *s = context;
    size_t most = size < s->rest.size ? size : s->rest.size;
    if (most > 0) {
        memcpy(out, s->rest.data, most);
    }
    s->rest = bytes_of(s->rest.data + most, s->rest.size - most);
    return (ssize_t)most;
}

static ssize_t take(void *context, uint8_t *out, size_t size) {
    struct source *s = context;
    ssize_t got = s->taken > TAKEN_MAX ? -1 : s->gunzip != NULL ? gunzip_read(s->gunzip, out, size) : take_raw(s, out, size);
    s->taken += got > 0 ? (uint64_t)got : 0;
    return got;
}

static bool skip(void *context, uint64_t size) {
    uint8_t room[4096];
    while (size > 0) {
        ssize_t got = take(context, room, size < sizeof room ? (size_t)size : sizeof room);
        if (got <= 0) {
            return false;
        }
        size -= (uint64_t)got;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct tar_entry e;
    uint8_t room[1024];
    if (size == 0) {
        return 0;
    }
    struct source s = {.rest = bytes_of(data + 1, size - 1)};
    struct tar t = {.read = take, .skip = skip, .context = &s};
    s.gunzip = (data[0] & 1) != 0 ? gunzip_new(take_raw, &s) : NULL;
    while (tar_next(&t, &e) == 1) {
        uint64_t had = 0;
        ssize_t got = 0;
        if (strlen(e.path) > TAR_PATH_BYTES || strlen(e.link) > TAR_PATH_BYTES || e.mode > 07777) {
            abort();
        }
        while ((data[0] & 2) != 0 && (got = tar_read(&t, room, sizeof room)) > 0) {
            had += (uint64_t)got;
        }
        if (e.kind == TAR_FILE && had > e.size) {
            abort();
        }
    }
    gunzip_free(s.gunzip);
    return 0;
}
