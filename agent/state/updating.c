/* Rows: TABLE_UPDATE name -> array [issue, turn, issue of the turn, its end ms, array of [node, phase, why, since ms]]; pinned. */
#include "agent/state/updating.h"

#include <inttypes.h>
#include <string.h>

#include "agent/state/holding.h"
#include "federation/origin.h"
#include "platform/codec.h"

enum { OP_REPORT = 0, OP_TURN = 1, REPORT_FIELDS = 6, TURN_FIELDS = 5, ROW_FIELDS = 5, ONE_FIELDS = 4 };
enum { ROW_BYTES_MAX = 64 + LIMIT_MEMBERS * 48 };

struct request {
    uint64_t op, issue;
    struct bytes name;
    struct updating_report report; /* node: of both */
    int64_t until_ms;
};

const char *updating_phase_name(enum updating_phase p) {
    static const char *const names[] = {"unknown", "wants", "current", "failed", "other"};
    return names[p];
}

/* --- Payloads and rows -------------------------------------------------------------------------------------------------------------- */

void payload_update_report(struct builder *out, struct bytes name, uint64_t issue, const struct updating_report *r) {
    codec_put_array(out, REPORT_FIELDS);
    codec_put_uint(out, OP_REPORT);
    codec_put_text(out, name);
    codec_put_uint(out, issue);
    codec_put_uint(out, r->node);
    codec_put_uint(out, (uint64_t)r->phase);
    codec_put_uint(out, r->why);
}

void payload_update_turn(struct builder *out, struct bytes name, uint64_t issue, raft_id node, int64_t until_ms) {
    codec_put_array(out, TURN_FIELDS);
    codec_put_uint(out, OP_TURN);
    codec_put_text(out, name);
    codec_put_uint(out, issue);
    codec_put_uint(out, node);
    codec_put_int(out, until_ms);
}

static enum grey_error request_read(struct bytes payload, struct request *q) {
    struct codec_reader r;
    *q = (struct request){0};
    codec_reader_init(&r, origin_skip(payload, NULL));
    uint64_t count = codec_array(&r, REPORT_FIELDS);
    q->op = codec_uint(&r, OP_TURN);
    q->name = codec_text(&r, LIMIT_NAME_BYTES);
    q->issue = codec_uint(&r, INT64_MAX);
    q->report.node = codec_uint(&r, UINT64_MAX);
    if (q->op == OP_TURN) {
        q->until_ms = codec_int(&r);
    } else {
        q->report.phase = (enum updating_phase)codec_uint(&r, UPDATING_OTHER);
        q->report.why = (uint32_t)codec_uint(&r, UINT32_MAX);
    }
    enum grey_error err = codec_end(&r);
    bool good = count == (q->op == OP_TURN ? TURN_FIELDS : REPORT_FIELDS) && q->issue > 0 && q->report.node != 0 &&
                grey_name_valid((const char *)q->name.data, q->name.size) &&
                (q->op == OP_TURN || q->report.phase != UPDATING_UNKNOWN);
    return err == E_OK && !good ? E_BAD_MESSAGE : err;
}

static enum grey_error row_read(struct bytes value, struct updating *u) {
    struct codec_reader r;
    *u = (struct updating){0};
    codec_reader_init(&r, value);
    uint64_t fields = codec_array(&r, ROW_FIELDS);
    u->issue = codec_uint(&r, INT64_MAX);
    u->turn = codec_uint(&r, UINT64_MAX);
    u->turn_issue = codec_uint(&r, INT64_MAX);
    u->until_ms = codec_int(&r);
    u->count = (uint32_t)codec_array(&r, LIMIT_MEMBERS);
    for (uint32_t i = 0; i < u->count; i++) {
        struct updating_report *one = &u->at[i];
        fields = codec_array(&r, ONE_FIELDS) == ONE_FIELDS ? fields : 0;
        one->node = codec_uint(&r, UINT64_MAX);
        one->phase = (enum updating_phase)codec_uint(&r, UPDATING_OTHER);
        one->why = (uint32_t)codec_uint(&r, UINT32_MAX);
        one->since_ms = codec_int(&r);
    }
    return codec_end(&r) == E_OK && fields == ROW_FIELDS ? E_OK : E_CORRUPT;
}

static void row_put(struct builder *changes, struct bytes name, const struct updating *u) {
    struct builder row;
    builder_init(&row, ROW_BYTES_MAX);
    codec_put_array(&row, ROW_FIELDS);
    codec_put_uint(&row, u->issue);
    codec_put_uint(&row, u->turn);
    codec_put_uint(&row, u->turn_issue);
    codec_put_int(&row, u->until_ms);
    codec_put_array(&row, u->count);
    for (uint32_t i = 0; i < u->count; i++) {
        codec_put_array(&row, ONE_FIELDS);
        codec_put_uint(&row, u->at[i].node);
        codec_put_uint(&row, (uint64_t)u->at[i].phase);
        codec_put_uint(&row, u->at[i].why);
        codec_put_int(&row, u->at[i].since_ms);
    }
    if (row.err == E_OK) {
        table_change_put(changes, TABLE_UPDATE, name, builder_bytes(&row), 0);
    } else {
        changes->err = changes->err == E_OK ? row.err : changes->err;
    }
    builder_free(&row);
}

bool updating_find(struct table *t, struct bytes name, struct updating *out) {
    struct bytes value;
    *out = (struct updating){0};
    return name.size <= LIMIT_NAME_BYTES && table_get(t, TABLE_UPDATE, name, &value) == TABLE_FOUND && row_read(value, out) == E_OK;
}

const struct updating_report *updating_of(const struct updating *u, raft_id node) {
    for (uint32_t i = 0; i < u->count; i++) {
        if (u->at[i].node == node) {
            return &u->at[i];
        }
    }
    return NULL;
}

bool updating_may_begin(const struct updating *u, raft_id node, uint64_t issue, int64_t turn_ms, int64_t now_ms) {
    return u->turn == node && u->turn_issue == issue && u->until_ms - now_ms >= turn_ms / 2;
}

/* --- Applying ------------------------------------------------------------------------------------------------------------------------ */

/* Another object for which a turn has not ended. */
static bool other_turn(struct table *t, struct bytes name, int64_t now_ms) {
    struct bytes key = {0}, value;
    raft_index ref;
    while (table_after(t, TABLE_UPDATE, key, &key, &value, &ref) && key.size <= LIMIT_NAME_BYTES) {
        struct updating u;
        if (!bytes_equal(key, name) && row_read(value, &u) == E_OK && u.turn != 0 && now_ms < u.until_ms) {
            return true;
        }
    }
    return false;
}

static enum grey_error turn(struct table *t, struct updating *u, const struct request *q, int64_t now_ms, struct fault *f) {
    const struct updating_report *own = updating_of(u, q->report.node);
    bool taken = u->turn != 0 && u->turn != q->report.node && now_ms < u->until_ms;
    if (taken || other_turn(t, q->name, now_ms)) {
        return fault_set(f, E_UPDATE_BUSY, "another gateway has its turn");
    }
    for (uint32_t i = 0; i < u->count; i++) {
        if (u->at[i].phase == UPDATING_FAILED) {
            return fault_set(f, E_CONDITION, "it failed at a gateway");
        }
    }
    if (own == NULL || own->phase != UPDATING_WANTS || q->until_ms <= now_ms || q->until_ms - now_ms > UPDATING_TURN_MS_MAX) {
        return fault_set(f, E_CONDITION, "that gateway does not want it, or the time is none");
    }
    u->turn = q->report.node;
    u->turn_issue = q->issue;
    u->until_ms = q->until_ms;
    return E_OK;
}

static enum grey_error report(struct updating *u, const struct request *q, int64_t now_ms, struct fault *f) {
    uint32_t at = 0;
    while (at < u->count && u->at[at].node != q->report.node) {
        at++;
    }
    if (at < u->count && u->at[at].phase == UPDATING_FAILED && q->report.phase == UPDATING_WANTS) {
        return fault_set(f, E_CONDITION, "it failed there already");
    }
    if (at == LIMIT_MEMBERS) { /* who is no member any more says nothing: the one that was silent longest leaves */
        at = 0;
        for (uint32_t i = 1; i < u->count; i++) {
            at = u->at[i].since_ms < u->at[at].since_ms ? i : at;
        }
    } else if (at == u->count) {
        u->count++;
    }
    u->at[at] = q->report;
    u->at[at].since_ms = now_ms;
    if (u->turn == q->report.node && (q->report.phase != UPDATING_WANTS || u->turn_issue != q->issue)) {
        u->turn = 0;
        u->turn_issue = 0;
        u->until_ms = 0;
    }
    return E_OK;
}

enum grey_error updating_apply(struct table *t, const struct entry *e, int64_t now_ms, struct builder *changes, struct fault *f) {
    struct request q;
    struct holding h;
    struct updating u = {0};
    struct bytes value;
    enum grey_error err = request_read(blob_bytes(e->payload), &q);
    if (err != E_OK) {
        return fault_set(f, err, "the payload says nothing of an update");
    }
    if (!holding_find(t, OBJECT_UPDATE, q.name, &h) || h.force.version == 0 || h.force.issue != q.issue) {
        return fault_set(f, E_CONDITION, "issue %" PRIu64 " is not in force", q.issue);
    }
    if (table_get(t, TABLE_UPDATE, q.name, &value) == TABLE_FOUND && row_read(value, &u) != E_OK) {
        return fault_set(f, E_CORRUPT, "the row of an update is damaged");
    }
    if (u.issue != q.issue) { /* said anew of each issue; whoever has its turn keeps it until it says something */
        u.issue = q.issue;
        u.count = 0;
    }
    err = q.op == OP_TURN ? turn(t, &u, &q, now_ms, f) : report(&u, &q, now_ms, f);
    if (err == E_OK) {
        row_put(changes, q.name, &u);
    }
    return err;
}

/* --- The leader's next step ---------------------------------------------------------------------------------------------------------- */

static enum updating_phase phase_of(const struct updating_view *v, raft_id node) {
    const struct updating_report *r = v->u->issue == v->issue ? updating_of(v->u, node) : NULL;
    return r == NULL ? UPDATING_UNKNOWN : r->phase;
}

/* All others are well, and without this one they are a quorum; where they cannot be, in a group of one or two, all must be well. */
static bool can_spare(const struct updating_view *v, raft_id node) {
    uint32_t voters = 0, others = 0;
    for (uint32_t i = 0; i < v->peer_count; i++) {
        const struct updating_peer *p = &v->peers[i];
        voters += p->voter;
        others += p->voter && p->id != node;
        if (p->voter && !p->healthy) {
            return false;
        }
    }
    return v->steady && (others >= voters / 2 + 1 || voters <= 2);
}

static raft_id successor(const struct updating_view *v) {
    for (uint32_t i = 0; i < v->peer_count; i++) {
        const struct updating_peer *p = &v->peers[i];
        if (p->id != v->leader && p->voter && !p->witness && p->healthy) {
            return p->id;
        }
    }
    return 0;
}

static struct updating_decision give_turn(const struct updating_view *v, raft_id node) {
    raft_id next = node == v->leader ? successor(v) : 0;
    if (!can_spare(v, node)) {
        return (struct updating_decision){UPDATING_WAIT, 0};
    }
    return next != 0 ? (struct updating_decision){UPDATING_HAND_OVER, next} : (struct updating_decision){UPDATING_TURN, node};
}

static bool is_member(const struct updating_view *v, raft_id node) {
    for (uint32_t i = 0; i < v->peer_count; i++) {
        if (v->peers[i].id == node) {
            return true;
        }
    }
    return false;
}

/* Who was removed in its turn, or when it had failed: no turn would be given because of it.  0: nobody. */
static raft_id gone(const struct updating_view *v) {
    if (v->u->turn != 0 && !is_member(v, v->u->turn)) {
        return v->u->turn;
    }
    for (uint32_t i = 0; v->u->issue == v->issue && v->said != SUPPLY_FAILED && i < v->u->count; i++) {
        if (v->u->at[i].phase == UPDATING_FAILED && !is_member(v, v->u->at[i].node)) {
            return v->u->at[i].node;
        }
    }
    return 0;
}

struct updating_decision updating_next(const struct updating_view *v) {
    struct updating_decision wait = {UPDATING_WAIT, 0};
    raft_id wanting = 0, failed = 0, left = gone(v);
    uint32_t open = 0, current = 0, holders = 0;
    if (left != 0) {
        return v->steady ? (struct updating_decision){UPDATING_FORGET, left} : wait;
    }
    if (v->u->turn != 0) {
        bool over = v->now_ms >= v->u->until_ms;
        return over ? (struct updating_decision){UPDATING_EXPIRE, v->u->turn} : wait;
    }
    for (uint32_t i = 0; i < v->peer_count; i++) {
        const struct updating_peer *p = &v->peers[i];
        if (p->witness) { /* it holds no objects, and is updated by hand */
            continue;
        }
        enum updating_phase phase = phase_of(v, p->id);
        holders++;
        current += phase == UPDATING_CURRENT;
        open += phase == UPDATING_UNKNOWN || phase == UPDATING_WANTS;
        if (phase == UPDATING_WANTS && (wanting == 0 || wanting == v->leader)) {
            wanting = p->id;
        }
    }
    for (uint32_t i = 0; v->u->issue == v->issue && i < v->u->count; i++) {
        failed = v->u->at[i].phase == UPDATING_FAILED ? v->u->at[i].node : failed;
    }
    if (failed != 0 || (holders > 0 && open == 0 && current == 0)) { /* or it fits nobody here */
        return v->said == SUPPLY_FAILED ? wait : (struct updating_decision){UPDATING_SAY_FAILED, failed};
    }
    if (holders > 0 && open == 0) {
        return v->said == SUPPLY_HEALTHY ? wait : (struct updating_decision){UPDATING_SAY_HEALTHY, 0};
    }
    return wanting == 0 || v->other_turn ? wait : give_turn(v, wanting);
}
