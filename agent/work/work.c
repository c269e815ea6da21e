#include "agent/work/work.h"

#include <inttypes.h>
#include <string.h>

#include "agent/work/workrow.h"
#include "federation/origin.h"
#include "federation/proof.h"
#include "include/grey/must.h"
#include "platform/codec.h"
#include "platform/digest.h"

enum { OP_SUBMIT = 0, OP_CANCEL = 1, OP_REPORT = 2, OP_FIRE = 3, OP_EPOCH = 4, OP_RETURN = 5, OP_TASK_LAST = OP_RETURN };
enum { OP_SET = 0, OP_REMOVE = 1, OP_LIMITS = 2, OP_TREE = 3, OP_QUOTA_LAST = OP_TREE };
enum {
    NODE_FIELDS = 9,
    REPORT_FIELDS = 6,
    REPORT_FIELDS_MAX = 7,
    RETURN_FIELDS = 8,
    SUBMIT_FIELDS = 3,
    SUBMIT_FIELDS_MAX = 4,
    OUTPUT_ROW_FIELDS = 3,
    LIMITS_FIELDS = 4,
    LIMITS_FIELDS_PROOFS = 5,
    LIMITS_FIELDS_MAX = 6,
    SHARE_FIELDS = 4,
    PROOF_ROW_FIELDS = 3
};
#define PROOFS_DROPPED 4u
#define PROOF_KEY_BYTES 8u

struct work {
    struct table *table;
    struct scheduler *scheduler; /* NULL: to be made from the rows */
    uint32_t proofs;             /* rows, as long as there is a scheduler */
};

/* --- Payloads ---------------------------------------------------------------------------------------------------------------------------------- */

void payload_task_submit_near(struct builder *out, const struct task_order *o, int64_t firing_ms, struct bytes near) {
    struct builder order;
    builder_init(&order, TASK_ORDER_BYTES_MAX);
    task_encode(&order, o);
    codec_put_array(out, near.size > 0 ? SUBMIT_FIELDS_MAX : SUBMIT_FIELDS);
    codec_put_uint(out, OP_SUBMIT);
    codec_put_bytes(out, builder_bytes(&order));
    codec_put_int(out, firing_ms);
    if (near.size > 0) {
        codec_put_text(out, near);
    }
    out->err = out->err == E_OK ? order.err : out->err;
    builder_free(&order);
}

void payload_task_submit(struct builder *out, const struct task_order *o, int64_t firing_ms) {
    payload_task_submit_near(out, o, firing_ms, bytes_of(NULL, 0));
}

void payload_task_cancel(struct builder *out, struct bytes id) {
    codec_put_array(out, 2);
    codec_put_uint(out, OP_CANCEL);
    codec_put_text(out, id);
}

struct bytes payload_task_cancelled(struct bytes payload) {
    struct codec_reader r;
    codec_reader_init(&r, origin_skip(payload, NULL));
    bool cancels = codec_array(&r, RETURN_FIELDS) == 2 && codec_uint(&r, OP_TASK_LAST) == OP_CANCEL;
    struct bytes id = codec_text(&r, LIMIT_NAME_BYTES);
    return cancels && codec_end(&r) == E_OK ? id : bytes_of(NULL, 0);
}

void payload_task_report(struct builder *out, struct bytes id, uint64_t token, enum task_report report, enum task_reason reason,
                         int32_t exit_status, struct bytes proof) {
    codec_put_array(out, proof.size > 0 ? REPORT_FIELDS_MAX : REPORT_FIELDS);
    codec_put_uint(out, OP_REPORT);
    codec_put_text(out, id);
    codec_put_uint(out, token);
    codec_put_uint(out, report);
    codec_put_uint(out, reason);
    codec_put_int(out, exit_status);
    if (proof.size > 0) {
        codec_put_bytes(out, proof);
    }
}

bool payload_task_proof(struct bytes payload, struct bytes *proof) {
    struct codec_reader r;
    codec_reader_init(&r, origin_skip(payload, NULL));
    uint64_t fields = codec_array(&r, REPORT_FIELDS_MAX), op = codec_uint(&r, OP_TASK_LAST);
    (void)codec_text(&r, LIMIT_NAME_BYTES);
    for (unsigned i = 0; i < 3; i++) {
        (void)codec_uint(&r, UINT64_MAX);
    }
    (void)codec_int(&r);
    *proof = codec_bytes(&r, 2 * PROOF_BYTES_MAX);
    return codec_end(&r) == E_OK && fields == REPORT_FIELDS_MAX && op == OP_REPORT;
}

void payload_task_fire(struct builder *out, struct bytes id, int64_t due_ms, const int64_t *firings, size_t count,
                       int64_t next_ms) {
    codec_put_array(out, 5);
    codec_put_uint(out, OP_FIRE);
    codec_put_text(out, id);
    codec_put_int(out, due_ms);
    codec_put_int(out, next_ms);
    codec_put_array(out, count);
    for (size_t i = 0; i < count; i++) {
        codec_put_int(out, firings[i]);
    }
}

void payload_task_epoch(struct builder *out) {
    codec_put_array(out, 1);
    codec_put_uint(out, OP_EPOCH);
}

void payload_task_return(struct builder *out, const struct work_return *w) {
    codec_put_array(out, RETURN_FIELDS);
    codec_put_uint(out, OP_RETURN);
    codec_put_text(out, w->id);
    codec_put_uint(out, w->token);
    codec_put_uint(out, w->report);
    codec_put_int(out, w->exit_status);
    codec_put_bytes(out, w->output_hash);
    codec_put_uint(out, w->output_bytes);
    codec_put_bytes(out, w->output);
}

static bool return_read(struct codec_reader *r, struct work_return *w) {
    w->id = codec_text(r, LIMIT_NAME_BYTES);
    w->token = codec_uint(r, UINT64_MAX);
    w->report = (enum task_report)codec_uint(r, REPORT_COUNT - 1);
    int64_t status = codec_int(r);
    w->exit_status = (int32_t)status;
    w->output_hash = codec_bytes(r, DIGEST_BYTES);
    w->output_bytes = codec_uint(r, INT64_MAX);
    w->output = codec_bytes(r, WORK_OUTPUT_BYTES_MAX);
    return codec_end(r) == E_OK && status >= INT32_MIN && status <= INT32_MAX &&
           (w->output_hash.size == DIGEST_BYTES || (w->output_hash.size == 0 && w->output.size == 0));
}

struct bytes payload_task_output(struct bytes payload) {
    struct codec_reader r;
    struct work_return w;
    codec_reader_init(&r, origin_skip(payload, NULL));
    bool well = codec_array(&r, RETURN_FIELDS) == RETURN_FIELDS && codec_uint(&r, OP_TASK_LAST) == OP_RETURN && return_read(&r, &w);
    return well ? w.output : bytes_of(NULL, 0);
}

void payload_quota_set(struct builder *out, struct bytes tenant, struct bytes name_space, struct quota_share share) {
    codec_put_array(out, 5);
    codec_put_uint(out, OP_SET);
    codec_put_text(out, tenant);
    codec_put_text(out, name_space);
    codec_put_uint(out, share.cpu_permille);
    codec_put_uint(out, share.memory_permille);
}

void payload_quota_remove(struct builder *out, struct bytes tenant, struct bytes name_space) {
    codec_put_array(out, 3);
    codec_put_uint(out, OP_REMOVE);
    codec_put_text(out, tenant);
    codec_put_text(out, name_space);
}

void payload_quota_tree(struct builder *out, const struct quotatree_share *shares, uint32_t count) {
    codec_put_array(out, 2);
    codec_put_uint(out, OP_TREE);
    codec_put_array(out, count);
    for (uint32_t i = 0; i < count; i++) {
        codec_put_array(out, SHARE_FIELDS);
        codec_put_text(out, shares[i].tenant);
        codec_put_text(out, shares[i].name_space);
        codec_put_uint(out, shares[i].share.cpu_permille);
        codec_put_uint(out, shares[i].share.memory_permille);
    }
}

void payload_quota_limits(struct builder *out, const struct capacity_limits *l) {
    uint64_t flags = (l->overcommit ? FLAG_OVERCOMMIT : 0u) | (l->offloads ? FLAG_OFFLOADS : 0u);
    codec_put_array(out, flags != 0 ? LIMITS_FIELDS_MAX : l->proof_s > 0 ? LIMITS_FIELDS_PROOFS : LIMITS_FIELDS);
    codec_put_uint(out, OP_LIMITS);
    codec_put_uint(out, l->queue_max);
    codec_put_uint(out, l->concurrent_max);
    codec_put_uint(out, l->burst_ms);
    if (l->proof_s > 0 || flags != 0) {
        codec_put_uint(out, l->proof_s);
    }
    if (flags != 0) {
        codec_put_uint(out, flags);
    }
}

void payload_node(struct builder *out, const struct node_facts *facts) {
    codec_put_array(out, NODE_FIELDS);
    codec_put_uint(out, facts->id);
    codec_put_text(out, facts->name);
    codec_put_bool(out, facts->gone);
    codec_put_uint(out, facts->condition);
    codec_put_uint(out, facts->capacity.cpu_millicores);
    codec_put_uint(out, facts->capacity.memory_bytes);
    codec_put_uint(out, facts->measured_cpu_permille);
    codec_put_uint(out, facts->measured_memory_permille);
    codec_put_array(out, facts->labels.count);
    for (uint32_t i = 0; i < facts->labels.count; i++) {
        codec_put_text(out, facts->labels.at[i]);
    }
}

static void answer_add(struct builder *answer, bool duplicate, const struct task *t) {
    if (answer != NULL && t != NULL) {
        codec_put_array(answer, 2);
        codec_put_bool(answer, duplicate);
        codec_put_uint(answer, t->state);
    }
}

bool answer_task(struct bytes answer, bool *duplicate, enum task_state *state) {
    struct codec_reader r;
    codec_reader_init(&r, answer);
    uint64_t fields = codec_array(&r, 2);
    *duplicate = codec_bool(&r);
    *state = (enum task_state)codec_uint(&r, TASK_STATE_COUNT - 1);
    return codec_end(&r) == E_OK && fields == 2;
}

struct bytes payload_task_order_bytes(struct bytes payload) {
    struct codec_reader r;
    codec_reader_init(&r, origin_skip(payload, NULL));
    uint64_t fields = codec_array(&r, SUBMIT_FIELDS_MAX);
    (void)codec_uint(&r, OP_SUBMIT);
    struct bytes order = codec_bytes(&r, TASK_ORDER_BYTES_MAX);
    (void)codec_int(&r);
    if (fields == SUBMIT_FIELDS_MAX) {
        (void)codec_text(&r, LIMIT_NAME_BYTES);
    }
    return codec_end(&r) == E_OK && fields >= SUBMIT_FIELDS ? order : bytes_of(NULL, 0);
}

enum grey_error payload_task_order(struct bytes payload, struct task_order *o, struct fault *f) {
    struct bytes order = payload_task_order_bytes(payload);
    if (order.size == 0) {
        *o = (struct task_order){0};
        return fault_set(f, E_BAD_MESSAGE, "the payload submits no task");
    }
    return task_decode(order, o, f);
}

/* --- Entries ----------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error bad(struct fault *f) {
    return fault_set(f, E_BAD_MESSAGE, "the payload is not one of this kind of entry");
}

static enum grey_error submit_apply(struct scheduler *s, const struct entry *e, uint64_t fields, struct bytes *id,
                                    struct codec_reader *r, struct fault *f) {
    struct bytes encoded = codec_bytes(r, TASK_ORDER_BYTES_MAX);
    int64_t firing_ms = codec_int(r);
    struct bytes near = fields == SUBMIT_FIELDS_MAX ? codec_text(r, LIMIT_NAME_BYTES) : bytes_of(NULL, 0);
    if (codec_end(r) != E_OK || (fields == SUBMIT_FIELDS_MAX && !grey_name_valid((const char *)near.data, near.size))) {
        return bad(f);
    }
    struct task_order order;
    enum grey_error err = task_decode(encoded, &order, f);
    if (err != E_OK) {
        return err;
    }
    uint8_t hash[DIGEST_BYTES];
    enum submit_answer came_to;
    digest_sha256(encoded, hash);
    *id = order.id;
    if (order.affinity.size == 0 && order.offload == OFFLOAD_NEVER) {
        order.affinity = near; /* not in the hash: the same order from another gateway is the same */
    }
    return submit_task(s, &order, e->index, hash, firing_ms, &came_to, f);
}

static enum grey_error fire_apply(struct scheduler *s, struct codec_reader *r, struct fault *f) {
    struct bytes id = codec_text(r, LIMIT_NAME_BYTES);
    int64_t due_ms = codec_int(r), next_ms = codec_int(r), firings[WORK_FIRINGS_MAX];
    size_t count = (size_t)codec_array(r, WORK_FIRINGS_MAX);
    for (size_t i = 0; i < count; i++) {
        firings[i] = codec_int(r);
    }
    return codec_end(r) == E_OK ? submit_firing(s, id, due_ms, firings, count, next_ms, f) : bad(f);
}

static enum grey_error task_apply(struct scheduler *s, const struct entry *e, struct bytes *id, struct codec_reader *r,
                                  struct bytes *proof, struct work_return *back, struct fault *f) {
    static const uint64_t field_counts[] = {SUBMIT_FIELDS, 2, REPORT_FIELDS, 5, 1, RETURN_FIELDS};
    uint64_t fields = codec_array(r, RETURN_FIELDS), op = codec_uint(r, OP_TASK_LAST);
    bool has_proof = op == OP_REPORT && fields == REPORT_FIELDS_MAX;
    bool has_near = op == OP_SUBMIT && fields == SUBMIT_FIELDS_MAX;
    if (r->err != E_OK || (fields != field_counts[op] && !has_proof && !has_near)) {
        return bad(f);
    }
    switch (op) {
    case OP_SUBMIT:
        return submit_apply(s, e, fields, id, r, f);
    case OP_CANCEL:
        *id = codec_text(r, LIMIT_NAME_BYTES);
        return codec_end(r) == E_OK ? scheduler_cancel(s, *id, f) : bad(f);
    case OP_REPORT: {
        *id = codec_text(r, LIMIT_NAME_BYTES);
        uint64_t token = codec_uint(r, UINT64_MAX);
        enum task_report report = (enum task_report)codec_uint(r, REPORT_COUNT - 1);
        enum task_reason reason = (enum task_reason)codec_uint(r, REASON_COUNT - 1);
        int64_t status = codec_int(r);
        *proof = has_proof ? codec_bytes(r, 2 * PROOF_BYTES_MAX) : bytes_of(NULL, 0);
        if (codec_end(r) != E_OK || status < INT32_MIN || status > INT32_MAX) {
            return bad(f);
        }
        return scheduler_report(s, *id, token, report, reason, (int32_t)status, f);
    }
    case OP_FIRE:
        return fire_apply(s, r, f);
    case OP_RETURN:
        return return_read(r, back) ? scheduler_returned(s, back->id, back->token, back->report, back->exit_status, f) : bad(f);
    default:
        return codec_end(r) == E_OK ? E_OK : bad(f);
    }
}

static enum grey_error limits_apply(struct scheduler *s, struct codec_reader *r, uint64_t fields, struct fault *f) {
    struct capacity_limits l = {.queue_max = (uint32_t)codec_uint(r, SCHEDULER_TASKS_MAX)};
    l.concurrent_max = (uint32_t)codec_uint(r, SCHEDULER_TASKS_MAX);
    l.burst_ms = codec_uint(r, WORK_BURST_MS_MAX);
    l.proof_s = fields >= LIMITS_FIELDS_PROOFS ? (uint32_t)codec_uint(r, WORK_PROOF_S_MAX) : 0;
    uint64_t flags = fields == LIMITS_FIELDS_MAX ? codec_uint(r, FLAGS_ALL) : 0;
    l.overcommit = (flags & FLAG_OVERCOMMIT) != 0;
    l.offloads = (flags & FLAG_OFFLOADS) != 0;
    if (codec_end(r) != E_OK || l.concurrent_max == 0) {
        return bad(f);
    }
    capacity_limits(s, &l);
    return E_OK;
}

static enum grey_error tree_apply(struct scheduler *s, struct codec_reader *r, struct fault *f) {
    uint32_t count = (uint32_t)codec_array(r, QUOTATREE_SHARES_MAX);
    struct quotatree_share *shares = r->err == E_OK && count > 0 ? mem_new(count, sizeof *shares) : NULL;
    if (shares == NULL) {
        return r->err == E_OK && count > 0 ? fault_set(f, E_NO_MEMORY, "reading %u shares", count) : bad(f);
    }
    bool well = true;
    for (uint32_t i = 0; i < count; i++) {
        well = codec_array(r, SHARE_FIELDS) == SHARE_FIELDS && well;
        shares[i].tenant = codec_text(r, LIMIT_NAME_BYTES);
        shares[i].name_space = codec_text(r, LIMIT_NAME_BYTES);
        shares[i].share.cpu_permille = (uint32_t)codec_uint(r, QUOTA_WHOLE);
        shares[i].share.memory_permille = (uint32_t)codec_uint(r, QUOTA_WHOLE);
    }
    enum grey_error err = codec_end(r) == E_OK && well ? capacity_tree(s, shares, count, f) : bad(f);
    mem_free(shares);
    return err;
}

static enum grey_error quota_apply(struct scheduler *s, struct codec_reader *r, struct fault *f) {
    static const uint64_t field_counts[] = {5, 3, LIMITS_FIELDS, 2};
    uint64_t fields = codec_array(r, LIMITS_FIELDS_MAX), op = codec_uint(r, OP_QUOTA_LAST);
    if (r->err != E_OK || (fields != field_counts[op] && (op != OP_LIMITS || fields < LIMITS_FIELDS))) {
        return bad(f);
    }
    if (op == OP_LIMITS) {
        return limits_apply(s, r, fields, f);
    }
    if (op == OP_TREE) {
        return tree_apply(s, r, f);
    }
    struct bytes tenant = codec_text(r, LIMIT_NAME_BYTES), name_space = codec_text(r, LIMIT_NAME_BYTES);
    struct quota_share share = {0, 0};
    if (op == OP_SET) {
        share.cpu_permille = (uint32_t)codec_uint(r, QUOTA_WHOLE);
        share.memory_permille = (uint32_t)codec_uint(r, QUOTA_WHOLE);
    }
    if (codec_end(r) != E_OK) {
        return bad(f);
    }
    return op == OP_SET ? capacity_tenant(s, tenant, name_space, share, f) : capacity_tenant_remove(s, tenant, name_space, f);
}

static enum grey_error node_apply(struct scheduler *s, struct codec_reader *r, struct fault *f) {
    struct node_facts facts = {0};
    uint64_t fields = codec_array(r, NODE_FIELDS);
    facts.id = codec_uint(r, UINT64_MAX);
    facts.name = codec_text(r, LIMIT_NAME_BYTES);
    facts.gone = codec_bool(r);
    facts.condition = (enum node_condition)codec_uint(r, NODE_CONDITION_COUNT - 1);
    facts.capacity.cpu_millicores = codec_uint(r, TASK_CPU_MILLICORES_MAX);
    facts.capacity.memory_bytes = codec_uint(r, TASK_MEMORY_BYTES_MAX);
    facts.measured_cpu_permille = (uint32_t)codec_uint(r, WORK_MEASURED_MAX);
    facts.measured_memory_permille = (uint32_t)codec_uint(r, WORK_MEASURED_MAX);
    uint64_t labels = codec_array(r, PLACEMENT_LABELS_MAX);
    for (; r->err == E_OK && facts.labels.count < labels; facts.labels.count++) {
        facts.labels.at[facts.labels.count] = codec_text(r, PLACEMENT_LABEL_BYTES);
    }
    if (codec_end(r) != E_OK || fields != NODE_FIELDS || facts.id == 0 ||
        !grey_name_valid((const char *)facts.name.data, facts.name.size)) {
        return bad(f);
    }
    return capacity_node(s, &facts, f);
}

/* --- Proofs ------------------------------------------------------------------------------------------------------------------------------------ */

bool work_proof_row(struct bytes key, struct bytes value, struct work_proof *p) {
    struct codec_reader r;
    *p = (struct work_proof){.index = key.size == PROOF_KEY_BYTES ? bytes_get_be64(key.data) : 0};
    codec_reader_init(&r, value);
    uint64_t fields = codec_array(&r, PROOF_ROW_FIELDS);
    p->task = codec_text(&r, LIMIT_NAME_BYTES);
    p->time_ms = codec_int(&r);
    codec_fixed(&r, p->hash, sizeof p->hash);
    return codec_end(&r) == E_OK && fields == PROOF_ROW_FIELDS && p->index > 0;
}

/* The proof is the node's; the site keeps it with the place that it has in the log. */
static void keep_proof(struct work *w, const struct entry *e, struct bytes id, struct builder *changes) {
    uint8_t key[PROOF_KEY_BYTES];
    struct builder row;
    builder_init(&row, 256);
    bytes_put_be64(key, e->index);
    codec_put_array(&row, PROOF_ROW_FIELDS);
    codec_put_text(&row, id);
    codec_put_int(&row, e->time_ms);
    codec_put_bytes(&row, bytes_of(e->hash, sizeof e->hash));
    if (row.err == E_OK) {
        table_change_put(changes, TABLE_PROOF, bytes_of(key, sizeof key), builder_bytes(&row), e->index);
        w->proofs++;
    } else {
        changes->err = changes->err == E_OK ? row.err : changes->err;
    }
    builder_free(&row);
}

/* Those whose time is over leave, and the oldest when there are too many; a few at each entry, so that no entry does much. */
static void drop_proofs(struct work *w, int64_t now_ms, struct builder *changes) {
    struct bytes from = bytes_of(NULL, 0), key, value;
    raft_index ref;
    uint8_t after[PROOF_KEY_BYTES + 1] = {0};
    for (unsigned i = 0; i < PROOFS_DROPPED && table_next(w->table, TABLE_PROOF, from, &key, &value, &ref); i++) {
        struct work_proof p;
        bool well = work_proof_row(key, value, &p);
        if (well && w->proofs <= WORK_PROOFS_MAX && now_ms - p.time_ms <= (int64_t)w->scheduler->saved.proof_s * 1000) {
            return;
        }
        memcpy(after, key.data, PROOF_KEY_BYTES);
        from = bytes_of(after, sizeof after);
        table_change_delete(changes, TABLE_PROOF, bytes_of(after, PROOF_KEY_BYTES));
        w->proofs--;
    }
}

static void count_proofs(struct work *w) {
    struct bytes from = bytes_of(NULL, 0), key, value;
    raft_index ref;
    uint8_t after[PROOF_KEY_BYTES + 1] = {0};
    for (w->proofs = 0; table_next(w->table, TABLE_PROOF, from, &key, &value, &ref); w->proofs++) {
        memcpy(after, key.data, PROOF_KEY_BYTES);
        from = bytes_of(after, sizeof after);
    }
}

/* What it wrote beside the core is kept as long as the task is remembered. */
static void keep_output(const struct entry *e, const struct work_return *w, struct builder *changes) {
    struct builder row;
    builder_init(&row, 128);
    codec_put_array(&row, OUTPUT_ROW_FIELDS);
    codec_put_uint(&row, w->token);
    codec_put_bytes(&row, w->output_hash);
    codec_put_uint(&row, w->output_bytes);
    table_change_put(changes, TABLE_OUTPUT, w->id, builder_bytes(&row), e->index);
    changes->err = changes->err == E_OK ? row.err : changes->err;
    builder_free(&row);
}

bool work_output(struct table *t, struct bytes id, struct work_output *out) {
    struct bytes key, value;
    struct codec_reader r;
    if (!table_next(t, TABLE_OUTPUT, id, &key, &value, &out->index) || !bytes_equal(key, id)) {
        return false;
    }
    codec_reader_init(&r, value);
    uint64_t fields = codec_array(&r, OUTPUT_ROW_FIELDS);
    out->token = codec_uint(&r, UINT64_MAX);
    codec_fixed(&r, out->hash, sizeof out->hash);
    out->bytes = codec_uint(&r, INT64_MAX);
    return codec_end(&r) == E_OK && fields == OUTPUT_ROW_FIELDS;
}

/* --- One entry --------------------------------------------------------------------------------------------------------------------------------- */

enum grey_error work_apply(struct work *w, const struct entry *e, int64_t now_ms, struct builder *changes, struct builder *answer,
                           struct fault *f) {
    enum grey_error err = w->scheduler == NULL ? work_load(w, f) : E_OK;
    if (err != E_OK) {
        return err;
    }
    struct scheduler *s = w->scheduler;
    struct codec_reader r;
    struct bytes id = bytes_of(NULL, 0), proof = bytes_of(NULL, 0);
    struct work_return back = {0};
    codec_reader_init(&r, origin_skip(blob_bytes(e->payload), NULL));
    scheduler_begin(s, e->index, now_ms);
    uint64_t tickets = s->saved.tickets;
    switch ((enum entry_kind)e->kind) {
    case ENTRY_TASK:
        err = task_apply(s, e, &id, &r, &proof, &back, f);
        break;
    case ENTRY_QUOTA:
        err = quota_apply(s, &r, f);
        break;
    default:
        must(e->kind == ENTRY_NODE);
        err = node_apply(s, &r, f);
        break;
    }
    if (err != E_OK) {
        return err;
    }
    bool duplicate = s->saved.tickets == tickets;
    dispatch_step(s);
    if (id.size > 0) {
        answer_add(answer, duplicate, scheduler_find(s, id));
    }
    workrow_put_all(s, w->table, changes);
    if (back.output_hash.size > 0) {
        keep_output(e, &back, changes);
    }
    if (proof.size > 0 && s->saved.proof_s > 0) {
        keep_proof(w, e, id, changes);
    }
    drop_proofs(w, now_ms, changes);
    return changes->err;
}

enum grey_error work_clock(struct work *w, int64_t before_ms, int64_t after_ms, struct builder *changes, struct fault *f) {
    struct bytes value;
    if (table_get(w->table, TABLE_META, workrow_meta_key(), &value) != TABLE_FOUND) {
        return E_OK; /* there is no work yet, so nothing has a time */
    }
    enum grey_error err = w->scheduler == NULL ? work_load(w, f) : E_OK;
    if (err == E_OK) {
        scheduler_begin(w->scheduler, 0, before_ms); /* what ran on during entries that were refused is in no row yet */
        scheduler_clock(w->scheduler, after_ms - before_ms);
        workrow_put_all(w->scheduler, w->table, changes);
        err = changes->err;
    }
    return err;
}

/* --- Life ---------------------------------------------------------------------------------------------------------------------------------------- */

struct work *work_new(struct table *t) {
    struct work *w = mem_new(1, sizeof *w);
    if (w != NULL) {
        w->table = t;
    }
    return w;
}

void work_free(struct work *w) {
    if (w != NULL) {
        scheduler_free(w->scheduler);
        mem_free(w);
    }
}

void work_spoil(struct work *w) {
    scheduler_free(w->scheduler);
    w->scheduler = NULL;
}

enum grey_error work_load(struct work *w, struct fault *f) {
    work_spoil(w);
    struct scheduler *s = scheduler_new();
    enum grey_error err = s == NULL ? fault_set(f, E_NO_MEMORY, "making the scheduler") : workrow_load_all(s, w->table, f);
    if (err != E_OK) {
        scheduler_free(s);
        return err;
    }
    w->scheduler = s;
    count_proofs(w);
    return E_OK;
}

struct scheduler *work_scheduler(struct work *w) {
    struct fault ignored;
    return w->scheduler != NULL || work_load(w, &ignored) == E_OK ? w->scheduler : NULL;
}
