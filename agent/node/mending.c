#include "agent/node/mending.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/node/peers.h"
#include "agent/store/datadir.h"
#include "agent/store/mendask.h"
#include "agent/store/salvage.h"
#include "agent/store/setaside.h"
#include "include/grey/limits.h"
#include "platform/log.h"

#define TICK_MS 50u
#define TELL_MS 10000u      /* how often it says what it waits for */
#define FETCH_BYTES 262144u /* 256 KiB in one answer */

struct mending {
    const struct conn_context *x;
    struct salvage *salvage;
    struct peers *peers;
    struct loop_timer timer;
    struct raft_members members;
    struct mendask asked;
    uint64_t told_ms;
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
static void tell(struct mending *m, const struct mendplan_need *need) {
    uint64_t now_ms = loop_now_ms(m->x->loop);
    if (now_ms - m->told_ms < TELL_MS) {
        return;
    }
    m->told_ms = now_ms;
    log_warn("mending", "waits",
             "missing=%" PRIu32 " first=%" PRIu64 " links=%" PRIu32 " whole=%" PRIu32
             "; this gateway takes no part until it has them",
             salvage_missing(m->salvage), need->from, mendask_links(&m->asked), mendask_whole(&m->asked));
}

static bool forgo(struct mending *m) {
    enum grey_error err = salvage_forgo(m->salvage, m->fault);
    if (err != E_OK) {
        end(m, err);
    }
    mendask_forgone(&m->asked);
    return err == E_OK;
}

static void fetch_from(struct mending *m, raft_id to, const struct mendplan_need *need) {
    struct message message = {.kind = MESSAGE_MEND_FETCH,
                              .u.mend_fetch = {.from = need->from,
                                               .to = need->to,
                                               .anchor = need->anchor,
                                               .anchor_term = need->anchor_term,
                                               .bytes_max = FETCH_BYTES}};
    if (to != 0 && peers_send(m->peers, to, &message)) {
        mendask_sent(&m->asked, to, loop_now_ms(m->x->loop));
    }
}

static void ask(struct mending *m) {
    struct mendplan_need need;
    while (!m->done) {
        if (!salvage_need(m->salvage, &need)) {
            enum grey_error err = salvage_finish(m->salvage, m->fault);
            m->hopeless = err == E_CORRUPT && mendask_others_whole(&m->asked);
            end(m, err);
            return;
        }
        switch (mendask_next(&m->asked, salvage_may_forgo(m->salvage), loop_now_ms(m->x->loop))) {
        case MENDASK_FORGO:
            if (!forgo(m)) {
                return;
            }
            break;
        case MENDASK_HOPELESS:
            m->hopeless = true;
            end(m, fault_set(m->fault, E_CORRUPT, "entry %" PRIu64 " is damaged, and no other gateway has it any more", need.from));
            return;
        case MENDASK_ASK:
            fetch_from(m, mendask_whom(&m->asked), &need);
            tell(m, &need);
            return;
        case MENDASK_WAIT:
            return;
        }
    }
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
    struct mendplan_offer offer = {.from = rows->from,
                                   .to = rows->to,
                                   .certain = rows->certain,
                                   .anchor = rows->anchor,
                                   .same = rows->same,
                                   .whole = rows->whole,
                                   .entries = rows->entries,
                                   .entry_count = rows->entry_count};
    uint32_t taken = 0;
    bool to_this = false;
    enum grey_error err = salvage_take(m->salvage, &offer, &taken, &to_this, m->fault);
    if (err != E_OK) {
        end(m, err);
        return;
    }
    m->fetched += taken;
    mendask_answered(&m->asked, from, rows->whole, to_this, taken);
    if (taken > 0) {
        ask(m);
    }
}

static void answer(struct mending *m, raft_id to, const struct message_mend_fetch *f) {
    if (f->from == 0 || f->to < f->from || f->to - f->from >= MENDPLAN_ASK_MAX) {
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
    (void)start_count;
    mendask_link(&m->asked, id, true);
    loop_timer_after(m->x->loop, &m->timer, 0);
}

static void on_down(void *context, raft_id id) {
    struct mending *m = context;
    mendask_link(&m->asked, id, false);
}

static void on_cluster(void *context, uint64_t cluster_id) {
    (void)context, (void)cluster_id;
}

/* --- life -------------------------------------------------------------------------------------------------------------------------- */
/* Others that are members.  False: there are none. */
static bool know_others(struct mending *m, const char *node) {
    const struct statedb_facts *state = salvage_state(m->salvage);
    return state->members != NULL && raft_members_decode(blob_bytes(state->members), &m->members) == E_OK &&
           mendask_begin(&m->asked, &m->members, salvage_facts(m->salvage)->self, node, loop_now_ms(m->x->loop));
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
    m->told_ms = loop_now_ms(m->x->loop);
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
    struct mendplan_need need;
    char detail[200];
    if (bytes_equal(http_path(q), bytes_str("/health/live"))) {
        http_reply(q, 200, "application/json", bytes_str("{\"status\":\"alive\"}"), NULL, 0);
        return;
    }
    if (m->peers == NULL || !salvage_need(m->salvage, &need)) {
        (void)snprintf(detail, sizeof detail, "this gateway's log was damaged and is being mended");
    } else {
        (void)snprintf(detail, sizeof detail,
                       "this gateway's log was damaged: %" PRIu32 " entries are missing, entry %" PRIu64 " first; %" PRIu32
                       " of %" PRIu32 " other members are linked and asked for them",
                       salvage_missing(m->salvage), need.from, mendask_links(&m->asked), m->asked.count);
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
