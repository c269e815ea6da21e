#include "agent/work/workrow.h"

#include <string.h>

#include "include/grey/must.h"
#include "platform/codec.h"

enum {
    TASK_ROW_FIELDS = 33,
    TASK_ROW_FIELDS_LEAST = 31,
    NODE_ROW_FIELDS = 7,
    TENANT_ROW_FIELDS = 9,
    META_FIELDS = 9,
    META_FIELDS_PROOFS = 8,
    META_FIELDS_LEAST = 7
};
enum { ROW_MAY_LEAVE = 2 };
enum { ROW_BYTES_MAX = 8192, TENANT_KEY_BYTES = 2 * LIMIT_NAME_BYTES + 1 };

struct bytes workrow_meta_key(void) {
    return bytes_str("work");
}

/* --- Writing ------------------------------------------------------------------------------------------------------------------------------------ */

static void put_if_changed(struct table *t, struct builder *changes, enum table_id id, struct bytes key, const struct builder *row,
                           raft_index ref) {
    struct bytes old;
    if (row->err != E_OK) {
        changes->err = changes->err == E_OK ? row->err : changes->err;
    } else if (table_get(t, id, key, &old) != TABLE_FOUND || !bytes_equal(old, builder_bytes(row))) {
        table_change_put(changes, id, key, builder_bytes(row), ref);
    }
}

static raft_id node_id(const struct placement_node *n) {
    return n == NULL ? 0 : n->id;
}

static void task_row(struct builder *b, const struct task *t) {
    bool noted = !t->is_schedule && t->assigned_index > 0; /* else as gateways below FEATURE_LEVEL_PROOFS write it */
    codec_put_array(b, noted ? TASK_ROW_FIELDS : TASK_ROW_FIELDS_LEAST);
    codec_put_uint(b, t->order_index);
    codec_put_bytes(b, bytes_of(t->order_hash, sizeof t->order_hash));
    codec_put_uint(b, t->item.ticket);
    codec_put_text(b, bytes_str(t->tenant->name.text));
    codec_put_text(b, bytes_str(task_space(t)->name.text));
    codec_put_uint(b, t->lane);
    codec_put_uint(b, t->state);
    codec_put_uint(b, t->reason);
    codec_put_uint(b, t->stop);
    codec_put_uint(b, t->restart);
    codec_put_uint(b, t->delivery);
    codec_put_uint(b, (t->is_kept ? ISOLATION_KEEP : ISOLATION_STOP) | (t->may_leave ? ROW_MAY_LEAVE : 0));
    codec_put_bool(b, t->is_schedule);
    codec_put_int(b, t->is_schedule ? t->firing_ms : -1);
    codec_put_uint(b, t->cpu_millicores);
    codec_put_uint(b, t->memory_bytes);
    codec_put_uint(b, t->timeout_s);
    codec_put_uint(b, t->max_retries);
    codec_put_uint(b, t->failures);
    codec_put_uint(b, t->preemptions);
    codec_put_int(b, t->exit_status);
    codec_put_uint(b, t->token);
    codec_put_uint(b, t->last_node);
    codec_put_bool(b, t->node != NULL);
    codec_put_uint(b, t->taken_from);
    codec_put_uint(b, node_id(t->kept));
    codec_put_array(b, 5);
    codec_put_int(b, t->submitted_ms);
    codec_put_int(b, t->ready_ms);
    codec_put_int(b, t->started_ms);
    codec_put_int(b, t->ended_ms);
    codec_put_int(b, t->due.place == 0 ? 0 : t->due.at_ms);
    codec_put_bytes(b, bytes_of(t->text, t->text_bytes));
    codec_put_array(b, t->vertex->unmet);
    for (uint32_t i = 0; i < t->vertex->unmet; i++) {
        codec_put_text(b, bytes_str(dag_waits_for(t->vertex, i)));
    }
    if (noted) {
        codec_put_uint(b, t->assigned_index);
        codec_put_uint(b, t->running_after);
    }
}

static struct task *merge(struct task *a, struct task *b) {
    struct task *first = NULL, **last = &first;
    while (a != NULL && b != NULL) {
        struct task **less = a->item.ticket < b->item.ticket ? &a : &b;
        *last = *less;
        last = &(*less)->next_dirty;
        *less = (*less)->next_dirty;
    }
    *last = a != NULL ? a : b;
    return first;
}

/* By ticket: runs of 1, 2, 4, ... tasks, merged as they fill. */
static struct task *sort(struct task *list) {
    struct task *runs[33] = {0};
    while (list != NULL) {
        struct task *run = list;
        list = list->next_dirty;
        run->next_dirty = NULL;
        unsigned i = 0;
        for (; i < 32 && runs[i] != NULL; i++) {
            run = merge(runs[i], run);
            runs[i] = NULL;
        }
        runs[i] = run;
    }
    struct task *all = NULL;
    for (unsigned i = 0; i < 33; i++) {
        all = merge(runs[i], all);
    }
    return all;
}

static void put_tasks(struct scheduler *s, struct table *t, struct builder *row, struct builder *changes) {
    struct task *next, *first = sort(s->dirty_first);
    s->dirty_first = s->dirty_last = NULL;
    for (struct task *task = first; task != NULL; task = next) {
        next = task->next_dirty;
        task->is_dirty = false;
        struct bytes key = bytes_of(task->vertex->id, task->vertex->id_bytes), old;
        if (task->is_gone) {
            if (table_get(t, TABLE_TASK, key, &old) == TABLE_FOUND) {
                table_change_delete(changes, TABLE_TASK, key);
            }
            if (table_get(t, TABLE_OUTPUT, key, &old) == TABLE_FOUND) {
                table_change_delete(changes, TABLE_OUTPUT, key);
            }
            scheduler_drop(s, task);
            continue;
        }
        builder_reset(row);
        task_row(row, task);
        put_if_changed(t, changes, TABLE_TASK, key, row, task->order_index);
    }
}

static struct bytes tenant_key(uint8_t out[TENANT_KEY_BYTES], const char *tenant, const char *name_space) {
    size_t size = strlen(tenant), more = strlen(name_space);
    memcpy(out, tenant, size); /* NOLINT(bugprone-not-null-terminated-result): a key is no C string */
    if (more > 0) {
        out[size++] = '/';
        memcpy(out + size, name_space, more); /* NOLINT(bugprone-not-null-terminated-result) */
    }
    return bytes_of(out, size + more);
}

static void tenant_row(struct builder *b, const struct quota_tenant *t) {
    const struct lane_flow *f = t->owner;
    codec_put_array(b, TENANT_ROW_FIELDS);
    codec_put_bool(b, t->set);
    codec_put_uint(b, t->share.cpu_permille);
    codec_put_uint(b, t->share.memory_permille);
    codec_put_uint(b, t->burst_left_ms);
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        codec_put_uint(b, f == NULL ? 0 : f->deficits[lane]);
    }
}

static void put_tenants(struct scheduler *s, struct table *t, struct builder *row, struct builder *changes) {
    uint8_t key[TENANT_KEY_BYTES];
    for (uint32_t i = 0; i < s->quota.count; i++) {
        struct quota_tenant *q = s->quota.tenants[i];
        struct lane_flow *f = q->owner;
        if (!q->dirty && (f == NULL || !f->dirty)) {
            continue;
        }
        bool shares_too = q->dirty;
        q->dirty = false;
        if (f != NULL) {
            f->dirty = false;
        }
        builder_reset(row);
        tenant_row(row, q);
        put_if_changed(t, changes, TABLE_TENANT, tenant_key(key, q->name.text, ""), row, 0);
        for (uint32_t k = 1; shares_too && k < q->namespace_count; k++) {
            if (q->namespaces[k].name.text[0] != 0) {
                builder_reset(row);
                codec_put_array(row, 2);
                codec_put_uint(row, q->namespaces[k].share.cpu_permille);
                codec_put_uint(row, q->namespaces[k].share.memory_permille);
                put_if_changed(t, changes, TABLE_TENANT, tenant_key(key, q->name.text, q->namespaces[k].name.text), row, 0);
            }
        }
    }
}

static bool known(const struct scheduler *s, struct bytes key) {
    const uint8_t *slash = memchr(key.data, '/', key.size);
    size_t size = slash == NULL ? key.size : (size_t)(slash - key.data);
    struct quota_tenant *t = quota_find(&s->quota, bytes_of(key.data, size));
    return t != NULL && (slash == NULL || quota_namespace_find(t, bytes_of(slash + 1, key.size - size - 1)) != NULL);
}

static void delete_tenants(struct scheduler *s, struct table *t, struct builder *changes) {
    struct bytes from = bytes_of(NULL, 0), key, value;
    raft_index ref;
    uint8_t after[LIMIT_KEY_BYTES];
    while (table_next(t, TABLE_TENANT, from, &key, &value, &ref)) {
        if (!known(s, key)) {
            table_change_delete(changes, TABLE_TENANT, key);
        }
        memcpy(after, key.data, key.size);
        after[key.size] = 0;
        from = bytes_of(after, key.size + 1);
    }
}

static void node_row(struct builder *b, const struct placement_node *n) {
    codec_put_array(b, NODE_ROW_FIELDS);
    codec_put_text(b, bytes_str(n->name.text));
    codec_put_uint(b, n->condition);
    codec_put_uint(b, n->capacity.cpu_millicores);
    codec_put_uint(b, n->capacity.memory_bytes);
    codec_put_uint(b, n->measured_cpu_permille);
    codec_put_uint(b, n->measured_memory_permille);
    codec_put_array(b, n->label_count);
    for (uint32_t i = 0; i < n->label_count; i++) {
        codec_put_text(b, bytes_str(n->labels[i]));
    }
}

static void put_nodes(struct scheduler *s, struct table *t, struct builder *row, struct builder *changes) {
    uint32_t i = 0;
    while (i < s->placement.count) {
        struct placement_node *n = s->placement.nodes[i];
        uint8_t key[8];
        bytes_put_be64(key, n->id);
        if (n->gone) {
            table_change_delete(changes, TABLE_NODE, bytes_of(key, sizeof key));
            placement_remove(&s->placement, n);
            continue;
        }
        if (n->dirty) {
            n->dirty = false;
            builder_reset(row);
            node_row(row, n);
            put_if_changed(t, changes, TABLE_NODE, bytes_of(key, sizeof key), row, 0);
        }
        i++;
    }
}

void workrow_put_all(struct scheduler *s, struct table *t, struct builder *changes) {
    struct builder row;
    builder_init(&row, ROW_BYTES_MAX);
    put_tasks(s, t, &row, changes);
    put_tenants(s, t, &row, changes);
    if (s->tenants_removed) {
        s->tenants_removed = false;
        delete_tenants(s, t, changes);
    }
    put_nodes(s, t, &row, changes);
    builder_reset(&row);
    uint64_t flags = (s->quota.overcommit ? FLAG_OVERCOMMIT : 0u) | (s->saved.offloads ? FLAG_OFFLOADS : 0u);
    codec_put_array(&row, flags != 0 ? META_FIELDS : s->saved.proof_s > 0 ? META_FIELDS_PROOFS : META_FIELDS_LEAST);
    codec_put_uint(&row, s->saved.tokens);
    codec_put_uint(&row, s->saved.tickets);
    codec_put_int(&row, s->saved.skew_ms);
    codec_put_int(&row, s->quota.time_ms);
    codec_put_uint(&row, s->quota.burst_ms);
    codec_put_array(&row, 2);
    codec_put_uint(&row, s->saved.queue_max);
    codec_put_uint(&row, s->saved.concurrent_max);
    codec_put_array(&row, 2 * LANE_COUNT);
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        codec_put_text(&row, bytes_str(s->lanes.turns[lane].flow.text));
        codec_put_bool(&row, s->lanes.turns[lane].granted);
    }
    if (s->saved.proof_s > 0 || flags != 0) {
        codec_put_uint(&row, s->saved.proof_s);
    }
    if (flags != 0) {
        codec_put_uint(&row, flags);
    }
    put_if_changed(t, changes, TABLE_META, workrow_meta_key(), &row, 0);
    builder_free(&row);
}

/* --- Reading ------------------------------------------------------------------------------------------------------------------------------------ */

static enum grey_error damaged(struct fault *f, const char *what, struct bytes key) {
    return fault_set(f, E_CORRUPT, "a row of %s is damaged: %.*s", what, (int)key.size, (const char *)key.data);
}

static enum grey_error meta_load(struct scheduler *s, struct bytes value, struct fault *f) {
    struct codec_reader r;
    codec_reader_init(&r, value);
    uint64_t fields = codec_array(&r, META_FIELDS);
    bool well = fields >= META_FIELDS_LEAST;
    s->saved.tokens = codec_uint(&r, UINT64_MAX);
    s->saved.tickets = codec_uint(&r, UINT64_MAX);
    s->saved.skew_ms = codec_int(&r);
    s->quota.time_ms = codec_int(&r);
    s->quota.burst_ms = codec_uint(&r, WORK_BURST_MS_MAX);
    well = codec_array(&r, 2) == 2 && well;
    s->saved.queue_max = (uint32_t)codec_uint(&r, SCHEDULER_TASKS_MAX);
    s->saved.concurrent_max = (uint32_t)codec_uint(&r, SCHEDULER_TASKS_MAX);
    well = codec_array(&r, (uint64_t)2 * LANE_COUNT) == (uint64_t)2 * LANE_COUNT && well;
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        struct bytes name = codec_text(&r, LIMIT_NAME_BYTES);
        if (name.size > 0) {
            memcpy(s->lanes.turns[lane].flow.text, name.data, name.size);
        }
        s->lanes.turns[lane].granted = codec_bool(&r);
    }
    s->saved.proof_s = fields >= META_FIELDS_PROOFS ? (uint32_t)codec_uint(&r, WORK_PROOF_S_MAX) : 0;
    uint64_t flags = fields == META_FIELDS ? codec_uint(&r, FLAGS_ALL) : 0;
    s->quota.overcommit = (flags & FLAG_OVERCOMMIT) != 0;
    s->saved.offloads = (flags & FLAG_OFFLOADS) != 0;
    s->now_ms = s->quota.time_ms;
    return codec_end(&r) == E_OK && well ? E_OK : damaged(f, "the state", workrow_meta_key());
}

static enum grey_error node_load(struct scheduler *s, struct bytes key, struct bytes value, struct fault *f) {
    struct codec_reader r;
    codec_reader_init(&r, value);
    uint64_t fields = codec_array(&r, NODE_ROW_FIELDS);
    struct bytes name = codec_text(&r, LIMIT_NAME_BYTES);
    if (r.err != E_OK || fields != NODE_ROW_FIELDS || key.size != 8 || name.size == 0 || s->placement.count >= LIMIT_MEMBERS) {
        return damaged(f, "the nodes", name);
    }
    struct placement_node *n = placement_add(&s->placement, bytes_get_be64(key.data), name);
    if (n == NULL) {
        return fault_set(f, E_NO_MEMORY, "loading a node");
    }
    n->condition = (enum node_condition)codec_uint(&r, NODE_CONDITION_COUNT - 1);
    n->capacity.cpu_millicores = codec_uint(&r, TASK_CPU_MILLICORES_MAX);
    n->capacity.memory_bytes = codec_uint(&r, TASK_MEMORY_BYTES_MAX);
    n->measured_cpu_permille = (uint32_t)codec_uint(&r, WORK_MEASURED_MAX);
    n->measured_memory_permille = (uint32_t)codec_uint(&r, WORK_MEASURED_MAX);
    uint64_t labels = codec_array(&r, PLACEMENT_LABELS_MAX);
    for (; r.err == E_OK && n->label_count < labels; n->label_count++) {
        struct bytes label = codec_text(&r, PLACEMENT_LABEL_BYTES);
        if (label.size > 0) {
            memcpy(n->labels[n->label_count], label.data, label.size);
        }
    }
    return codec_end(&r) == E_OK ? E_OK : damaged(f, "the nodes", name);
}

static enum grey_error tenant_load(struct scheduler *s, struct bytes key, struct bytes value, struct fault *f) {
    const uint8_t *slash = key.size == 0 ? NULL : memchr(key.data, '/', key.size);
    size_t size = slash == NULL ? key.size : (size_t)(slash - key.data);
    struct bytes tenant = bytes_of(key.data, size);
    struct bytes name_space = slash == NULL ? bytes_of(NULL, 0) : bytes_of(slash + 1, key.size - size - 1);
    struct codec_reader r;
    codec_reader_init(&r, value);
    uint64_t wanted = slash == NULL ? TENANT_ROW_FIELDS : 2, fields = codec_array(&r, TENANT_ROW_FIELDS);
    bool set = slash != NULL || codec_bool(&r);
    struct quota_share share = {(uint32_t)codec_uint(&r, QUOTA_WHOLE), (uint32_t)codec_uint(&r, QUOTA_WHOLE)};
    uint64_t burst_left_ms = slash != NULL ? 0 : codec_uint(&r, WORK_BURST_MS_MAX), deficits[LANE_COUNT] = {0};
    for (unsigned lane = 0; slash == NULL && lane < LANE_COUNT; lane++) {
        deficits[lane] = codec_uint(&r, UINT64_MAX);
    }
    if (codec_end(&r) != E_OK || fields != wanted || (set && quota_may_set(&s->quota, tenant, name_space, share, f) != E_OK)) {
        return damaged(f, "the tenants", key);
    }
    if (set && quota_set(&s->quota, tenant, name_space, share, NULL) != E_OK) {
        return fault_set(f, E_NO_MEMORY, "loading a tenant");
    }
    struct quota_tenant *t = quota_find(&s->quota, tenant);
    if (t == NULL) {
        return damaged(f, "the tenants", key);
    }
    t->dirty = false;
    if (slash == NULL) {
        t->burst_left_ms = burst_left_ms;
        if (scheduler_weigh(s) != E_OK) {
            return fault_set(f, E_NO_MEMORY, "loading a tenant");
        }
        struct lane_flow *flow = t->owner;
        memcpy(flow->deficits, deficits, sizeof deficits);
    }
    return E_OK;
}

static bool text_well(struct bytes text) {
    struct codec_reader r;
    codec_reader_init(&r, text);
    uint64_t count = codec_array(&r, TASK_SELECTORS_MAX + 1);
    (void)codec_text(&r, LIMIT_NAME_BYTES);
    for (uint64_t i = 1; i < count; i++) {
        (void)codec_text(&r, PLACEMENT_LABEL_BYTES);
    }
    return codec_end(&r) == E_OK && count > 0;
}

/* Fields of a row into t and l; false: the row is damaged. */
static bool task_fields(struct scheduler *s, struct codec_reader *r, struct task *t, struct task_loading *l, struct bytes *text) {
    uint64_t fields = codec_array(r, TASK_ROW_FIELDS);
    bool well = fields == TASK_ROW_FIELDS || fields == TASK_ROW_FIELDS_LEAST;
    t->order_index = codec_uint(r, UINT64_MAX);
    codec_fixed(r, t->order_hash, sizeof t->order_hash);
    t->item.ticket = codec_uint(r, s->saved.tickets);
    struct bytes tenant = codec_text(r, LIMIT_NAME_BYTES), name_space = codec_text(r, LIMIT_NAME_BYTES);
    t->lane = (uint8_t)codec_uint(r, LANE_COUNT - 1);
    t->state = (uint8_t)codec_uint(r, TASK_STATE_COUNT - 1);
    t->reason = (uint8_t)codec_uint(r, REASON_COUNT - 1);
    t->stop = (uint8_t)codec_uint(r, REASON_COUNT - 1);
    t->restart = (uint8_t)codec_uint(r, RESTART_COUNT - 1);
    t->delivery = (uint8_t)codec_uint(r, DELIVERY_COUNT - 1);
    uint64_t manner = codec_uint(r, ROW_MAY_LEAVE | ISOLATION_KEEP);
    t->is_kept = (manner & ISOLATION_KEEP) != 0;
    t->may_leave = (manner & ROW_MAY_LEAVE) != 0;
    t->is_schedule = codec_bool(r);
    int64_t firing_ms = codec_int(r);
    t->cpu_millicores = (uint32_t)codec_uint(r, TASK_CPU_MILLICORES_MAX);
    t->memory_bytes = codec_uint(r, TASK_MEMORY_BYTES_MAX);
    t->timeout_s = (uint32_t)codec_uint(r, TASK_TIMEOUT_S_MAX);
    t->max_retries = (uint16_t)codec_uint(r, TASK_RETRIES_MAX);
    t->failures = (uint16_t)codec_uint(r, UINT16_MAX);
    t->preemptions = (uint16_t)codec_uint(r, UINT16_MAX);
    t->exit_status = (int32_t)codec_int(r);
    t->token = codec_uint(r, s->saved.tokens);
    t->last_node = codec_uint(r, UINT64_MAX);
    l->node = codec_bool(r) ? t->last_node : 0;
    t->taken_from = codec_uint(r, UINT64_MAX);
    l->kept = codec_uint(r, UINT64_MAX);
    well = codec_array(r, 5) == 5 && well;
    t->submitted_ms = codec_int(r);
    t->ready_ms = codec_int(r);
    t->started_ms = codec_int(r);
    t->ended_ms = codec_int(r);
    t->due.at_ms = codec_int(r);
    *text = codec_bytes(r, ROW_BYTES_MAX);
    uint64_t unmet = codec_array(r, TASK_DEPENDENCIES_MAX);
    for (; r->err == E_OK && l->unmet.count < unmet; l->unmet.count++) {
        l->unmet.at[l->unmet.count] = codec_text(r, LIMIT_NAME_BYTES);
        well = well && l->unmet.at[l->unmet.count].size > 0;
    }
    if (fields == TASK_ROW_FIELDS) {
        t->assigned_index = codec_uint(r, UINT64_MAX);
        t->running_after = (uint32_t)codec_uint(r, UINT32_MAX);
        well = well && t->assigned_index > 0 && !t->is_schedule;
    }
    if (t->is_schedule) {
        t->firing_ms = firing_ms;
    }
    t->tenant = quota_find(&s->quota, tenant);
    const struct quota_namespace *n = t->tenant == NULL ? NULL : quota_namespace_find(t->tenant, name_space);
    well = codec_end(r) == E_OK && well && n != NULL && t->item.ticket > 0 && t->cpu_millicores > 0 &&
           (text->size == 0 || text_well(*text));
    if (well) {
        l->name_space = (unsigned)(n - t->tenant->namespaces);
        bool holds = t->state == TASK_ASSIGNED || t->state == TASK_RUNNING || t->state == TASK_PREEMPTED;
        bool timed = t->state == TASK_PENDING || t->state == TASK_ASSIGNED || t->state == TASK_RUNNING;
        bool away = t->state == TASK_ASSIGNED && l->node == 0; /* with the core */
        well = (!holds || l->node != 0 || (away && t->may_leave && t->due.at_ms == 0)) &&
               (l->node == 0 || ((holds || t->state == TASK_CANCELLED) && placement_find(&s->placement, l->node) != NULL)) &&
               (t->due.at_ms == 0 || timed) && (l->unmet.count == 0 || t->state == TASK_PENDING);
    }
    return well;
}

static enum grey_error task_load(struct scheduler *s, struct bytes key, struct bytes value, struct fault *f) {
    struct task *t = mem_new(1, sizeof *t);
    struct task_loading l = {.id = key};
    struct codec_reader r;
    struct bytes text;
    if (t == NULL) {
        return fault_set(f, E_NO_MEMORY, "loading a task");
    }
    codec_reader_init(&r, value);
    if (key.size == 0 || key.size > LIMIT_NAME_BYTES || !task_fields(s, &r, t, &l, &text)) {
        mem_free(t);
        return damaged(f, "the tasks", key);
    }
    if (text.size > 0) {
        t->text = mem_new(1, text.size);
        if (t->text == NULL) {
            mem_free(t);
            return fault_set(f, E_NO_MEMORY, "loading a task");
        }
        memcpy(t->text, text.data, text.size);
        t->text_bytes = (uint16_t)text.size;
    }
    return scheduler_load(s, t, &l) == E_OK ? E_OK : fault_set(f, E_NO_MEMORY, "loading a task");
}

/* Calls visit for each row of a table, in order of keys, until one fails. */
static enum grey_error each_row(struct table *t, enum table_id id,
                                enum grey_error (*visit)(void *context, struct bytes key, struct bytes value), void *context) {
    struct bytes from = bytes_of(NULL, 0), key, value;
    raft_index ref;
    uint8_t after[LIMIT_KEY_BYTES + 1];
    enum grey_error err = E_OK;
    while (err == E_OK && table_next(t, id, from, &key, &value, &ref)) {
        err = visit(context, key, value);
        memcpy(after, key.data, key.size);
        after[key.size] = 0;
        from = bytes_of(after, key.size + 1);
    }
    return err;
}

struct place { /* of a task in the order of submission: queues are filled in that order */
    uint64_t ticket;
    struct bytes key, value; /* lent by the table, which does not change meanwhile */
};

struct loading {
    struct scheduler *s;
    struct fault *f;
    struct place *places;
    size_t count, capacity;
};

static enum grey_error node_row_visit(void *context, struct bytes key, struct bytes value) {
    struct loading *l = context;
    return node_load(l->s, key, value, l->f);
}

static enum grey_error tenant_row_visit(void *context, struct bytes key, struct bytes value) {
    struct loading *l = context;
    return tenant_load(l->s, key, value, l->f);
}

static enum grey_error task_row_visit(void *context, struct bytes key, struct bytes value) {
    struct loading *l = context;
    struct codec_reader r;
    uint8_t hash[8];
    if (l->count == l->capacity) {
        size_t capacity = l->capacity == 0 ? 64 : 2 * l->capacity;
        struct place *places = mem_grow(l->places, capacity, sizeof *places);
        if (places == NULL) {
            return fault_set(l->f, E_NO_MEMORY, "loading tasks");
        }
        l->places = places;
        l->capacity = capacity;
    }
    codec_reader_init(&r, value);
    (void)codec_array(&r, TASK_ROW_FIELDS);
    (void)codec_uint(&r, UINT64_MAX);
    codec_fixed(&r, hash, sizeof hash);
    l->places[l->count++] = (struct place){codec_uint(&r, UINT64_MAX), key, value};
    return E_OK;
}

/* Heap order below `at`: the youngest on top. */
static void sift(struct place *p, size_t at, size_t count) {
    for (size_t child = 2 * at + 1; child < count; at = child, child = 2 * at + 1) {
        child += child + 1 < count && p[child + 1].ticket > p[child].ticket;
        if (p[child].ticket <= p[at].ticket) {
            return;
        }
        struct place other = p[at];
        p[at] = p[child];
        p[child] = other;
    }
}

static enum grey_error tasks_load(struct loading *l, struct table *t) {
    enum grey_error err = each_row(t, TABLE_TASK, task_row_visit, l);
    for (size_t i = l->count / 2; i-- > 0;) {
        sift(l->places, i, l->count);
    }
    for (size_t left = l->count; left > 1;) {
        struct place youngest = l->places[0];
        l->places[0] = l->places[--left];
        l->places[left] = youngest;
        sift(l->places, 0, left);
    }
    for (size_t i = 0; err == E_OK && i < l->count; i++) {
        bool twice = i > 0 && l->places[i].ticket == l->places[i - 1].ticket;
        err = twice ? damaged(l->f, "the tasks", l->places[i].key) : task_load(l->s, l->places[i].key, l->places[i].value, l->f);
    }
    mem_free(l->places);
    return err;
}

enum grey_error workrow_load_all(struct scheduler *s, struct table *t, struct fault *f) {
    struct bytes value;
    if (table_get(t, TABLE_META, workrow_meta_key(), &value) != TABLE_FOUND) {
        return E_OK;
    }
    struct loading l = {.s = s, .f = f};
    enum grey_error err = meta_load(s, value, f);
    err = err == E_OK ? each_row(t, TABLE_NODE, node_row_visit, &l) : err;
    capacity_measure(s);
    bool overcommit = s->quota.overcommit; /* shares that were given while it was allowed stay when it is not any more */
    s->quota.overcommit = true;
    err = err == E_OK ? each_row(t, TABLE_TENANT, tenant_row_visit, &l) : err;
    s->quota.overcommit = overcommit;
    err = err == E_OK && scheduler_weigh(s) != E_OK ? fault_set(f, E_NO_MEMORY, "loading tenants") : err;
    return err == E_OK ? tasks_load(&l, t) : err;
}
