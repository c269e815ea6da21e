#include "core/store_offloads.h"

#include <string.h>

#include "core/store_backend.h"

enum grey_error store_offload_event(struct store *s, int64_t inc, const struct event *e, int64_t now_ms, struct fault *f) {
    struct grey_name task;
    uint64_t token;
    bool given = bytes_equal_str(e->type, OFFLOAD_GIVEN);
    if ((!given && !bytes_equal_str(e->type, OFFLOAD_SETTLED)) || !offload_name_read(e->subject, &task, &token)) {
        return E_OK;
    }
    const struct store_value in[] = {store_number(inc), store_bytes(bytes_str(task.text)), store_number((int64_t)token),
                                     store_number(now_ms), store_bytes(e->data)};
    return given ? s->ops->run(s, STORE_OFFLOAD_ADD, in, 5, f) : s->ops->run(s, STORE_OFFLOAD_SETTLE, in, 3, f);
}

static void copy_name(struct grey_name *to, struct bytes from) {
    *to = (struct grey_name){0};
    memcpy(to->text, from.data, from.size < LIMIT_NAME_BYTES ? from.size : LIMIT_NAME_BYTES);
}

enum grey_error store_offloads_due(struct store *s, int64_t now_ms, int64_t pause_ms, struct store_offload *out, size_t max,
                                   size_t *count, struct fault *f) {
    const struct store_value in[] = {store_number(now_ms - pause_ms), store_number((int64_t)max), store_number(now_ms)};
    struct store_rows *rows = NULL;
    bool row = false;
    *count = 0;
    enum grey_error err = s->ops->ask(s, STORE_OFFLOADS_DUE, in, 3, &rows, f);
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        struct store_offload *o = &out[(*count)++];
        *o = (struct store_offload){.inc = s->ops->number(rows, 3), .epoch = (grey_epoch)s->ops->number(rows, 2)};
        copy_name(&o->site, s->ops->bytes(rows, 0));
        o->incarnation = (uint64_t)s->ops->number(rows, 1);
        copy_name(&o->task, s->ops->bytes(rows, 4));
        o->token = (uint64_t)s->ops->number(rows, 5);
        o->state = (enum store_offload_state)s->ops->number(rows, 6);
        o->end = (enum offload_end)s->ops->number(rows, 7);
        o->exit_status = (int32_t)s->ops->number(rows, 8);
        struct bytes hash = s->ops->bytes(rows, 9);
        bool ran = hash.size == sizeof o->output_hash;
        if (ran) {
            memcpy(o->output_hash, hash.data, hash.size);
        }
        o->output_bytes = (uint64_t)s->ops->number(rows, 10);
        o->output = ran ? blob_copy(s->ops->bytes(rows, 11)) : NULL;
        o->errand = blob_copy(s->ops->bytes(rows, 12));
        err = o->errand == NULL || (ran && o->output == NULL) ? E_NO_MEMORY : E_OK;
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    for (size_t i = 0; i < *count && err == E_OK; i++) {
        const struct store_value seen[] = {store_number(out[i].inc), store_bytes(bytes_str(out[i].task.text)),
                                           store_number((int64_t)out[i].token), store_number(now_ms)};
        err = s->ops->run(s, STORE_OFFLOAD_SEEN, seen, 4, f);
    }
    return err;
}

enum grey_error store_offload_put(struct store *s, const struct store_offload *o, struct fault *f) {
    struct bytes output = o->output == NULL ? bytes_of(NULL, 0) : blob_bytes(o->output);
    const struct store_value in[] = {store_number(o->inc),
                                     store_bytes(bytes_str(o->task.text)),
                                     store_number((int64_t)o->token),
                                     store_number(o->end),
                                     store_number(o->exit_status),
                                     store_bytes(bytes_of(o->output_hash, o->output == NULL ? 0 : sizeof o->output_hash)),
                                     store_number((int64_t)o->output_bytes),
                                     store_bytes(output)};
    switch (o->state) {
    case STORE_OFFLOAD_ACCEPTED:
        return s->ops->run(s, STORE_OFFLOAD_ACCEPT, in, 3, f);
    case STORE_OFFLOAD_SETTLED:
        return s->ops->run(s, STORE_OFFLOAD_DROP, in, 3, f);
    default:
        return s->ops->run(s, STORE_OFFLOAD_END, in, 8, f);
    }
}
