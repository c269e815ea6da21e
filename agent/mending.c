#include "agent/mending.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/datadir.h"
#include "agent/peers.h"
#include "agent/salvage.h"
#include "agent/setaside.h"
#include "include/grey/limits.h"
#include "platform/log.h"

#define TICK_MS 50u
#define ANSWER_MS 3000u     /* then another gateway is asked */
#define FORGO_MS 60000u     /* then it does without what its state stands for */
#define TELL_MS 10000u      /* how often it says what it waits for */
#define FETCH_BYTES 262144u /* 256 KiB in one answer */

struct asked { /* another member, and whether it could help with what is missing now */
    raft_id id;
    bool gateway, fruitless, whole;
};

struct mending {
    const struct conn_context *x;
    struct salvage *salvage;
    struct peers *peers;
    struct loop_timer timer;
    struct raft_members members;
    struct asked asked[LIMIT_MEMBERS];
    uint32_t asked_count, next, needed; /* needed: whole ones among the others for a majority */
    raft_id waiting_for;                /* 0: nobody */
    uint64_t asked_ms, told_ms, begun_ms;
    uint32_t fetched;
    enum grey_error err;
    struct fault *fault;
    bool done, hopeless;
};

static void end(struct mending *m, enum grey_error err) {
    m->err = err;
    m->done = true;
    loop_stop(m->x->loop);
}

/* --- asking ------------------------------------------------------------------------------------------------------------------------ */
static void tell(struct mending *m, const struct salvage_need *need) {
    uint64_t now_ms = loop_now_ms(m->x->loop);
    uint32_t up = 0, whole = 0;
    if (now_ms - m->told_ms < TELL_MS) {
        return;
    }
    m->told_ms = now_ms;
    for (uint32_t i = 0; i < m->asked_count; i++) {
        up += peers_up(m->peers, m->asked[i].id);
        whole += m->asked[i].whole;
    }
    log_warn("mending", "waits",
             "missing=%" PRIu32 " first=%" PRIu64 " links=%" PRIu32 " whole=%" PRIu32
             "; this gateway takes no part until it has them",
             salvage_missing(m->salvage), need->from, up, whole);
}

/* The others are a majority that is well without this node. */
static bool others_whole(const struct mending *m) {
    uint32_t whole = 0;
    for (uint32_t i = 0; i < m->asked_count; i++) {
        whole += m->asked[i].gateway ? m->asked[i].whole : peers_up(m->peers, m->asked[i].id);
    }
    return whole >= m->needed;
}

static bool all_fruitless(const struct mending *m) {
    bool fruitless = true;
    for (uint32_t i = 0; i < m->asked_count; i++) {
        fruitless = fruitless && (m->asked[i].fruitless || !m->asked[i].gateway);
    }
    return fruitless;
}

/* Nobody has what is missing: then what is not needed is given up; true: something else may be asked for. */
static bool forgo(struct mending *m) {
    bool late = loop_now_ms(m->x->loop) - m->begun_ms >= FORGO_MS;
    if (!salvage_may_forgo(m->salvage) || !(late || all_fruitless(m))) {
        return false;
    }
    enum grey_error err = salvage_forgo(m->salvage, m->fault);
    if (err != E_OK) {
        end(m, err);
    }
    for (uint32_t i = 0; i < m->asked_count; i++) {
        m->asked[i].fruitless = false;
    }
    return err == E_OK;
}

static void ask(struct mending *m) {
    struct salvage_need need;
    uint64_t now_ms = loop_now_ms(m->x->loop);
    if (!salvage_need(m->salvage, &need)) {
        enum grey_error err = salvage_finish(m->salvage, m->fault);
        m->hopeless = err == E_CORRUPT && others_whole(m);
        end(m, err);
        return;
    }
    if (m->waiting_for != 0 && now_ms - m->asked_ms < ANSWER_MS) {
        return;
    }
    m->waiting_for = 0;
    if (forgo(m)) {
        ask(m);
        return;
    }
    if (m->done) {
        return;
    }
    if (all_fruitless(m) && others_whole(m)) {
        m->hopeless = true;
        end(m, fault_set(m->fault, E_CORRUPT, "entry %" PRIu64 " is damaged, and no other gateway has it any more", need.from));
        return;
    }
    struct message message = {
        .kind = MESSAGE_MEND_FETCH,
        .u.mend_fetch = {
            .from = need.from, .to = need.to, .anchor = need.anchor, .anchor_term = need.anchor_term, .bytes_max = FETCH_BYTES}};
    for (uint32_t i = 0; i < m->asked_count && m->waiting_for == 0; i++) {
        const struct asked *a = &m->asked[m->next++ % m->asked_count];
        if (a->gateway && peers_send(m->peers, a->id, &message)) {
            m->waiting_for = a->id;
            m->asked_ms = now_ms;
        }
    }
    tell(m, &need);
}

static void on_timer(void *context) {
    struct mending *m = context;
    ask(m);
    peers_flush(m->peers);
    if (!m->done) {
        loop_timer_after(m->x->loop, &m->timer, TICK_MS);
    }
}

static void take(struct mending *m, raft_id from, const struct message_mend_rows *rows) {
    struct salvage_offer offer = {.from = rows->from,
                                  .to = rows->to,
                                  .certain = rows->certain,
                                  .anchor = rows->anchor,
                                  .same = rows->same,
                                  .whole = rows->whole,
                                  .entries = rows->entries,
                                  .entry_count = rows->entry_count};
    uint32_t taken = 0;
    enum grey_error err = salvage_take(m->salvage, &offer, &taken, m->fault);
    if (err != E_OK) {
        end(m, err);
        return;
    }
    m->fetched += taken;
    for (uint32_t i = 0; i < m->asked_count; i++) {
        struct asked *a = &m->asked[i];
        a->fruitless = taken == 0 && (a->fruitless || a->id == from);
        a->whole = a->id == from ? rows->whole : a->whole;
    }
    if (m->waiting_for == from) {
        m->waiting_for = 0;
        m->next = taken > 0 ? m->next + m->asked_count - 1 : m->next; /* who could help is asked again */
    }
    if (taken > 0) {
        ask(m);
    }
}

static void answer(struct mending *m, raft_id to, const struct message_mend_fetch *f) {
    if (f->from == 0 || f->to < f->from || f->to - f->from >= SALVAGE_ASK_MAX) {
        return;
    }
    struct message_mend_rows rows = {.from = f->from,
                                     .anchor = f->anchor,
                                     .certain = salvage_state(m->salvage)->applied.index,
                                     .same = f->anchor > 0 && salvage_same(m->salvage, f->anchor, f->anchor_term)};
    uint32_t bytes_max = f->bytes_max < FETCH_BYTES ? f->bytes_max : FETCH_BYTES;
    if (salvage_read(m->salvage, f->from, f->to, bytes_max, &rows.entries, &rows.entry_count, &rows.to, m->fault) != E_OK) {
        return;
    }
    struct message message = {.kind = MESSAGE_MEND_ROWS, .u.mend_rows = rows};
    (void)peers_send(m->peers, to, &message);
    logdb_entries_free(rows.entries, rows.entry_count);
}

static void on_message(void *context, raft_id from, const struct message *message) {
    struct mending *m = context;
    if (!m->done && message->kind == MESSAGE_MEND_ROWS) {
        take(m, from, &message->u.mend_rows);
    } else if (!m->done && message->kind == MESSAGE_MEND_FETCH) {
        answer(m, from, &message->u.mend_fetch);
    }
    peers_flush(m->peers); /* what a running member wants of a voter is not answered */
}

static void on_up(void *context, raft_id id, uint64_t start_count) {
    struct mending *m = context;
    (void)id, (void)start_count;
    loop_timer_after(m->x->loop, &m->timer, 0);
}

static void on_down(void *context, raft_id id) {
    struct mending *m = context;
    m->waiting_for = m->waiting_for == id ? 0 : m->waiting_for;
    for (uint32_t i = 0; i < m->asked_count; i++) {
        if (m->asked[i].id == id) {
            m->asked[i].fruitless = m->asked[i].whole = false;
        }
    }
}

static void on_cluster(void *context, uint64_t cluster_id) {
    (void)context, (void)cluster_id;
}

/* --- life -------------------------------------------------------------------------------------------------------------------------- */
/* Others that are members.  False: there are none. */
static bool know_others(struct mending *m, const char *node) {
    const struct statedb_facts *state = salvage_state(m->salvage);
    raft_id self = salvage_facts(m->salvage)->self;
    uint32_t voters = 0;
    if (state->members == NULL || raft_members_decode(blob_bytes(state->members), &m->members) != E_OK) {
        return false;
    }
    for (uint32_t i = 0; i < m->members.count; i++) {
        const struct raft_member *member = &m->members.at[i];
        voters += member->voter;
        if (member->id != self && strcmp(member->node.text, node) != 0) {
            m->asked[m->asked_count++] = (struct asked){.id = member->id, .gateway = !member->witness};
        }
    }
    m->needed = voters / 2 + 1;
    return m->asked_count > 0;
}

static enum grey_error fetch(struct mending *m, const struct mending_options *o) {
    static const struct peers_events events = {.up = on_up, .down = on_down, .message = on_message, .cluster_seen = on_cluster};
    const struct logdb_facts *log = salvage_facts(m->salvage);
    bool alone = o->listen_address == NULL || !know_others(m, o->node);
    if (alone && salvage_may_forgo(m->salvage) && salvage_forgo(m->salvage, m->fault) != E_OK) {
        return m->fault->code;
    }
    if (alone && salvage_missing(m->salvage) == 0) {
        return salvage_finish(m->salvage, m->fault);
    }
    if (alone) {
        return fault_set(m->fault, E_CORRUPT, "%" PRIu32 " entries of log.db are damaged", salvage_missing(m->salvage));
    }
    struct peers_options p = {.listen_address = o->listen_address,
                              .advertise_address = o->advertise_address,
                              .http_address = o->http_address,
                              .tls = o->tls,
                              .self = log->self,
                              .cluster_id = log->cluster_id,
                              .start_count = log->start_count,
                              .site = o->site,
                              .node = o->node,
                              .output_limit_bytes = 4u * 1024u * 1024u};
    m->peers = peers_new(m->x, &p, &events, m, m->fault);
    if (m->peers == NULL) {
        return m->fault->code;
    }
    peers_set_members(m->peers, &m->members);
    m->timer = (struct loop_timer){.fire = on_timer, .context = m};
    loop_timer_after(m->x->loop, &m->timer, 0);
    loop_run(m->x->loop);
    loop_timer_cancel(m->x->loop, &m->timer);
    peers_free(m->peers);
    m->peers = NULL;
    return m->done ? m->err : fault_set(m->fault, E_STOPPING, "stopped while its log was being mended");
}

static enum grey_error mend(struct mending *m, const struct mending_options *o) {
    m->salvage = salvage_open(o->data_dir, o->wal_dir, m->fault);
    if (m->salvage == NULL) {
        m->hopeless = m->fault->code == E_CORRUPT;
        return m->fault->code;
    }
    const struct logdb_facts *log = salvage_facts(m->salvage);
    uint32_t missing = salvage_missing(m->salvage);
    m->begun_ms = m->told_ms = loop_now_ms(m->x->loop);
    log_warn("mending", "start", "log=%" PRIu64 "..%" PRIu64 " state=%" PRIu64 " missing=%" PRIu32, log->base.index, log->last,
             salvage_state(m->salvage)->applied.index, missing);
    enum grey_error err = missing > 0 ? fetch(m, o) : salvage_finish(m->salvage, m->fault);
    m->hopeless |= missing == 0 && err == E_CORRUPT; /* others have the right history */
    if (err == E_OK) {
        log_warn("mending", "done", "missing=%" PRIu32 " fetched=%" PRIu32 "; this gateway stays who it was", missing, m->fetched);
    }
    salvage_close(m->salvage);
    m->salvage = NULL;
    return err;
}

void mending_answer(void *context, struct http_request *q) {
    const struct mending *m = context;
    struct salvage_need need;
    char detail[200];
    uint32_t up = 0;
    if (bytes_equal(http_path(q), bytes_str("/health/live"))) {
        http_reply(q, 200, "application/json", bytes_str("{\"status\":\"alive\"}"), NULL, 0);
        return;
    }
    if (m->peers == NULL || !salvage_need(m->salvage, &need)) {
        (void)snprintf(detail, sizeof detail, "this gateway's log was damaged and is being mended");
    } else {
        for (uint32_t i = 0; i < m->asked_count; i++) {
            up += peers_up(m->peers, m->asked[i].id);
        }
        (void)snprintf(detail, sizeof detail,
                       "this gateway's log was damaged: %" PRIu32 " entries are missing, entry %" PRIu64 " first; %" PRIu32
                       " of %" PRIu32 " other members are linked and asked for them",
                       salvage_missing(m->salvage), need.from, up, m->asked_count);
    }
    http_reply_error(q, E_CORRUPT, detail);
}

struct mending *mending_new(const struct conn_context *x, struct fault *f) {
    struct mending *m = mem_new(1, sizeof *m);
    if (m == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "mending the log");
        return NULL;
    }
    m->x = x;
    return m;
}

void mending_free(struct mending *m) {
    mem_free(m);
}

enum grey_error mending_run(struct mending *m, const struct mending_options *o, struct fault *f) {
    m->fault = f;
    int lock_fd = -1;
    enum grey_error err = datadir_lock(o->data_dir, &lock_fd, f);
    if (err == E_OK) {
        err = mend(m, o);
        if (m->hopeless && o->listen_address != NULL) { /* the others have it */
            err = setaside_mark(o->wal_dir, f->text, f);
        }
        if (err == E_OK) {
            salvage_unmark(o->wal_dir);
        }
        (void)close(lock_fd);
    }
    if (err == E_CORRUPT) {
        char why[160];
        (void)snprintf(why, sizeof why, "%.159s", f->text);
        (void)fault_set(f, E_CORRUPT,
                        "%s (in %s).  No other gateway has this log: make a new directory from an image with 'greyd restore "
                        "--snapshot %s/snapshots/... --data-dir DIR', or from a backup",
                        why, o->wal_dir, o->data_dir);
    }
    return err;
}
