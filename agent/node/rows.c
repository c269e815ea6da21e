#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"

/* Reading rows and payloads that may be on disk only, for API handlers and for entries about to be applied. */

struct fetch {
    struct sitelog_read read;
    struct node *node;
    node_done *done;
    void *context;
};

static void fetched(void *context, struct sitelog_read *read) {
    struct fetch *f = context;
    struct node_answer a = {.err = read->err, .detail = read->fault.text};
    size_t count = read->err != E_OK || read->rows == NULL ? 0 : sitelog_row_count(read->rows);
    for (size_t i = 0; i < count && a.err == E_OK; i++) {
        struct sitelog_row row;
        sitelog_row_get(read->rows, i, &row);
        a.err = table_load(f->node->table, row.id, row.key, row.found, row.value, row.ref);
    }
    f->done(f->context, &a);
    mem_free(f);
}

void node_fetch_rows(struct node *n, struct builder *wants, node_done *done, void *context) {
    struct fetch *f = mem_new(1, sizeof *f);
    enum grey_error err = f == NULL ? E_NO_MEMORY : wants->err;
    if (err == E_OK) {
        f->node = n;
        f->done = done;
        f->context = context;
        f->read = (struct sitelog_read){.kind = SITELOG_ROWS, .wants = *wants, .done = fetched, .context = f};
        err = sitelog_read(n->log, &f->read);
    }
    if (err != E_OK) {
        builder_free(wants);
        mem_free(f);
        struct node_answer a = {.err = err, .detail = "rows cannot be read now"};
        done(context, &a);
    }
}

/* --- scans: rows on disk, with what is newer in memory laid over them --------------------------------------------------------------- */

struct scan {
    struct sitelog_read read;
    struct node *node;
    void (*done)(void *context, enum grey_error err, const struct node_row *rows, size_t count, bool more);
    void *context;
};

static void scanned(void *context, struct sitelog_read *read) {
    struct scan *s = context;
    struct node *n = s->node;
    struct node_row *rows = mem_new(read->rows_max, sizeof *rows);
    if (read->err != E_OK || rows == NULL) {
        s->done(s->context, rows == NULL ? E_NO_MEMORY : read->err, NULL, 0, false);
        mem_free(rows);
        mem_free(s);
        return;
    }
    size_t disk_count = read->rows == NULL ? 0 : sitelog_row_count(read->rows), disk_at = 0, count = 0;
    struct bytes high = bytes_of(read->high, read->high_size);
    struct bytes from = bytes_of(read->low, read->low_size);
    uint8_t after[LIMIT_KEY_BYTES + 1];
    bool more = false;
    /* When the disk has more than it gave, memory rows behind its last row would leave a hole between them. */
    struct sitelog_row last = {0};
    if (read->more && disk_count > 0) {
        sitelog_row_get(read->rows, disk_count - 1, &last);
    }
    for (;;) {
        struct bytes key, value;
        raft_index ref = 0;
        bool memory =
            table_next(n->table, read->table, from, &key, &value, &ref) && (high.size == 0 || bytes_compare(key, high) < 0);
        struct sitelog_row row = {0};
        while (disk_at < disk_count) {
            sitelog_row_get(read->rows, disk_at, &row);
            if (bytes_compare(row.key, from) >= 0 && !table_deleted(n->table, read->table, row.key)) {
                break;
            }
            disk_at++;
        }
        bool disk = disk_at < disk_count;
        if (!memory && !disk) {
            more = read->more;
            break;
        }
        bool take_memory = memory && (!disk || bytes_compare(key, row.key) <= 0);
        if (take_memory && last.key.size > 0 && bytes_compare(key, last.key) > 0) {
            more = true;
            break;
        }
        if (count == read->rows_max) {
            more = true;
            break;
        }
        rows[count] = take_memory ? (struct node_row){key, value, ref} : (struct node_row){row.key, row.value, row.ref};
        struct bytes taken = rows[count++].key;
        must(taken.size <= LIMIT_KEY_BYTES);
        memcpy(after, taken.data, taken.size);
        after[taken.size] = 0; /* the smallest key behind it */
        from = bytes_of(after, taken.size + 1);
    }
    s->done(s->context, E_OK, rows, count, more);
    mem_free(rows);
    mem_free(s);
}

void node_scan(struct node *n, enum table_id id, struct bytes low, struct bytes high, uint32_t rows_max,
               void (*done)(void *context, enum grey_error err, const struct node_row *rows, size_t count, bool more),
               void *context) {
    struct scan *s = mem_new(1, sizeof *s);
    if (s == NULL || low.size > LIMIT_KEY_BYTES || high.size > LIMIT_KEY_BYTES || rows_max == 0) {
        mem_free(s);
        done(context, s == NULL ? E_NO_MEMORY : E_TOO_LARGE, NULL, 0, false);
        return;
    }
    s->node = n;
    s->done = done;
    s->context = context;
    s->read = (struct sitelog_read){.kind = SITELOG_SCAN, .table = id, .rows_max = rows_max, .done = scanned, .context = s};
    s->read.low_size = low.size;
    s->read.high_size = high.size;
    if (low.size > 0) {
        memcpy(s->read.low, low.data, low.size);
    }
    if (high.size > 0) {
        memcpy(s->read.high, high.data, high.size);
    }
    enum grey_error err = sitelog_read(n->log, &s->read);
    if (err != E_OK) {
        mem_free(s);
        done(context, err, NULL, 0, false);
    }
}

/* --- payloads ------------------------------------------------------------------------------------------------------------------------ */

struct payload_job {
    struct sitelog_read read;
    node_payload_done *done;
    void *context;
};

static void payload_read(void *context, struct sitelog_read *read) {
    struct payload_job *j = context;
    struct blob *payload = read->err == E_OK && read->payloads != NULL ? read->payloads[0] : NULL;
    j->done(j->context, read->err == E_OK && payload == NULL ? E_NOT_FOUND : read->err, read->fault.text, payload);
    mem_free(j);
}

struct blob *node_payload_in_memory(struct node *n, raft_index index) {
    const struct entry *e = raft_entry(n->raft, index);
    return e == NULL ? NULL : e->payload;
}

void node_payload(struct node *n, raft_index index, node_payload_done *done, void *context) {
    struct blob *held = node_payload_in_memory(n, index);
    if (held != NULL) {
        done(context, E_OK, "", held);
        return;
    }
    struct payload_job *j = mem_new(1, sizeof *j);
    raft_index *indexes = mem_new(1, sizeof *indexes);
    enum grey_error err = j == NULL || indexes == NULL ? E_NO_MEMORY : E_OK;
    if (err == E_OK) {
        indexes[0] = index;
        j->done = done;
        j->context = context;
        j->read = (struct sitelog_read){
            .kind = SITELOG_PAYLOADS, .indexes = indexes, .index_count = 1, .done = payload_read, .context = j};
        err = sitelog_read(n->log, &j->read);
    }
    if (err != E_OK) {
        mem_free(j);
        mem_free(indexes);
        done(context, err, "the payload cannot be read now", NULL);
    }
}
