#include "federation/offload.h"

#include <string.h>

#include "platform/digest.h"

enum { RESULT_FIELDS = 10 };

void offload_name(char out[OFFLOAD_NAME_BYTES], struct bytes task, uint64_t token) {
    char digits[20];
    size_t size = task.size < LIMIT_NAME_BYTES ? task.size : LIMIT_NAME_BYTES, count = 0;
    do {
        digits[count++] = (char)('0' + token % 10);
        token /= 10;
    } while (token > 0);
    if (size > 0) {
        memcpy(out, task.data, size);
    }
    out[size++] = '/';
    while (count > 0) {
        out[size++] = digits[--count];
    }
    out[size] = 0;
}

bool offload_name_read(struct bytes name, struct grey_name *task, uint64_t *token) {
    const uint8_t *slash = name.size == 0 ? NULL : memchr(name.data, '/', name.size);
    size_t size = slash == NULL ? 0 : (size_t)(slash - name.data);
    *token = 0;
    if (slash == NULL || !grey_name_valid((const char *)name.data, size) || name.size - size - 1 > 19 || name.size == size + 1) {
        return false;
    }
    for (size_t i = size + 1; i < name.size; i++) {
        if (name.data[i] < '0' || name.data[i] > '9') {
            return false;
        }
        *token = *token * 10 + (name.data[i] - (unsigned)'0');
    }
    *task = (struct grey_name){0};
    memcpy(task->text, name.data, size);
    return *token > 0;
}

bool offload_reserved(struct bytes type) {
    size_t size = sizeof OFFLOAD_TYPES - 1;
    return type.size >= size && memcmp(type.data, OFFLOAD_TYPES, size) == 0;
}

void offload_put_result(struct builder *out, const struct offload_result *r) {
    codec_put_array(out, RESULT_FIELDS);
    codec_put_uint(out, MESSAGE_DOWN_RESULT);
    codec_put_uint(out, r->incarnation);
    codec_put_uint(out, r->epoch);
    codec_put_text(out, r->task);
    codec_put_uint(out, r->token);
    codec_put_uint(out, r->end);
    codec_put_int(out, r->exit_status);
    codec_put_bytes(out, r->output_hash);
    codec_put_uint(out, r->output_bytes);
    codec_put_bytes(out, r->output);
}

enum grey_error offload_get_result(struct bytes content, struct offload_result *r) {
    struct codec_reader c;
    codec_reader_init(&c, content);
    bool well = codec_array(&c, RESULT_FIELDS) == RESULT_FIELDS;
    well = codec_uint(&c, UINT16_MAX) == MESSAGE_DOWN_RESULT && well;
    *r = (struct offload_result){.incarnation = codec_uint(&c, INT64_MAX)};
    r->epoch = codec_uint(&c, INT64_MAX);
    r->task = codec_text(&c, LIMIT_NAME_BYTES);
    r->token = codec_uint(&c, INT64_MAX);
    r->end = (enum offload_end)codec_uint(&c, OFFLOAD_ENDS - 1);
    int64_t status = codec_int(&c);
    r->exit_status = (int32_t)status;
    r->output_hash = codec_bytes(&c, DIGEST_SHA256_BYTES);
    r->output_bytes = codec_uint(&c, INT64_MAX);
    r->output = codec_bytes(&c, OFFLOAD_OUTPUT_BYTES_MAX);
    enum grey_error err = codec_end(&c);
    well = well && r->incarnation > 0 && r->token > 0 && grey_name_valid((const char *)r->task.data, r->task.size) &&
           status >= INT32_MIN && status <= INT32_MAX &&
           (r->output_hash.size == DIGEST_SHA256_BYTES || (r->output_hash.size == 0 && r->output.size == 0));
    return err != E_OK ? err : well ? E_OK : E_BAD_MESSAGE;
}
