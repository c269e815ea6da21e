/* Requests of strangers: however the bytes are cut into pieces, the same requests come out, and a refusal is final. */
#include <string.h>

#include "include/grey/must.h"
#include "platform/digest.h"
#include "platform/http_wire.h"

#define BODY_BYTES_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
    uint32_t requests;
    int status;
    uint8_t hash[32];
};

static void note(struct reading *r, const struct http_wire_request *q) {
    uint8_t both[64];
    must(q->path.size > 0 && q->text[q->path.at] == '/' && memchr(q->text + q->path.at, 0, q->path.size) == NULL);
    must((size_t)q->body.at + q->body.size <= q->size && q->body.size <= BODY_BYTES_MAX &&
         q->header_count <= HTTP_WIRE_HEADERS_MAX);
    must((size_t)q->query.at + q->query.size <= q->size);
    memcpy(both, r->hash, 32);
    digest_sha256(bytes_of(q->text, q->size), both + 32);
    digest_sha256(bytes_of(both, sizeof both), r->hash);
    r->requests++;
    (void)http_wire_header(q, "Host");
}

/* step: bytes that come at a time; 0: all at once. */
static struct reading read_all(const uint8_t *data, size_t size, size_t step) {
    struct reading r = {0};
    struct http_wire w = {.body_bytes_max = BODY_BYTES_MAX};
    size_t shown = 0, at = 0;
    for (;;) {
        shown = step == 0 || size - shown < step ? size : shown + step;
        for (;;) {
            size_t used = 0;
            enum http_wire_result result = http_wire_read(&w, bytes_of(data + at, shown - at), &used);
            must(used <= shown - at);
            at += used;
            if (result == HTTP_WIRE_REFUSED) {
                must(w.status >= 400 && w.why != E_OK);
                r.status = w.status;
                http_wire_free(&w);
                return r;
            }
            if (result == HTTP_WIRE_MORE) {
                break;
            }
            note(&r, w.request);
            http_wire_free(&w);
        }
        if (shown == size) {
            http_wire_free(&w);
            return r;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    struct reading whole = read_all(data + 1, size - 1, 0), parts = read_all(data + 1, size - 1, (size_t)data[0] + 1);
    must(whole.requests == parts.requests && whole.status == parts.status && memcmp(whole.hash, parts.hash, 32) == 0);
    return 0;
}
