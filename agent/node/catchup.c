#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "agent/store/salvage.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"

/* Catching up by snapshot, pulled by the one who lacks it: first the image in chunks (a partial file is gone on with), then the
 * live payloads that its rows refer to, then both are installed as one.  The other side only answers questions, from its disk. */

#define STALL_MS 10000u /* no piece came for so long: given up, the leader offers again */

static struct metric installed =
    METRIC_COUNTER("grey_consensus_snapshots_installed_total", "Snapshots of the leader installed here.");
static struct metric served_bytes =
    METRIC_COUNTER("grey_consensus_snapshot_served_bytes_total", "Snapshot and payload bytes given to peers.");

/* --- the side that lacks it ----------------------------------------------------------------------------------------------------- */

static void finish(struct node *n, bool done) {
    n->catchup.phase = CATCHUP_IDLE;
    n->installing = false;
    loop_timer_cancel(n->x.loop, &n->catchup.timer);
    if (!done) {
        struct raft_input in = {.kind = RAFT_IN_SNAPSHOT_FAILED, .point = &n->catchup.point};
        (void)node_step(n, &in, NULL);
    }
}

static void give_up(struct node *n, const char *why) {
    log_warn("catchup", "give-up", "index=%" PRIu64 " %s", n->catchup.point.index, why);
    finish(n, false);
}

static void ask_image(struct node *n, uint64_t offset) {
    struct message m = {.kind = MESSAGE_SNAPSHOT_FETCH,
                        .u.snapshot_fetch = {.index = n->catchup.point.index, .offset = offset, .bytes_max = FETCH_BYTES}};
    (void)peers_send(n->peers, n->catchup.from, &m);
}

static void ask_payloads(struct node *n) {
    struct message m = {
        .kind = MESSAGE_PAYLOAD_FETCH,
        .u.payload_fetch = {.from = n->catchup.payload_from, .to = n->catchup.point.index, .bytes_max = FETCH_BYTES}};
    (void)peers_send(n->peers, n->catchup.from, &m);
}

static void on_stall(void *context) {
    struct node *n = context;
    struct catchup *c = &n->catchup;
    uint64_t now_ms = loop_now_ms(n->x.loop);
    if (c->phase == CATCHUP_IDLE) {
        return;
    }
    if (c->phase != CATCHUP_INSTALL && !c->storing && now_ms >= c->progress_ms + STALL_MS) {
        give_up(n, "the leader sends nothing");
        return;
    }
    loop_timer_after(n->x.loop, &c->timer, STALL_MS / 4);
}

static void submit(struct node *n, enum sitelog_snapshot_kind kind, void (*done)(void *context, struct sitelog_snapshot *job)) {
    struct catchup *c = &n->catchup;
    c->job.kind = kind;
    c->job.point = c->point;
    c->job.done = done;
    c->job.context = n;
    c->storing = true;
    if (sitelog_snapshot(n->log, &c->job) != E_OK) {
        c->storing = false;
        give_up(n, "the storage thread takes no more jobs");
    }
}

static void probed(void *context, struct sitelog_snapshot *job) {
    struct node *n = context;
    n->catchup.storing = false;
    if (n->catchup.phase != CATCHUP_IMAGE) {
        return;
    }
    if (job->err != E_OK) {
        give_up(n, job->fault.text);
        return;
    }
    ask_image(n, job->resume_offset);
}

void catchup_start(struct node *n, raft_id from, const struct raft_point *point) {
    struct catchup *c = &n->catchup;
    metrics_register(&installed);
    if (c->phase != CATCHUP_IDLE || c->storing) {
        return; /* the leader offers again when this one has come to its end */
    }
    log_info("catchup", "start", "index=%" PRIu64 " from=%016" PRIx64, point->index, from);
    c->phase = CATCHUP_IMAGE;
    c->from = from;
    c->point = *point;
    c->payload_from = 1;
    c->progress_ms = loop_now_ms(n->x.loop);
    c->timer = (struct loop_timer){.fire = on_stall, .context = n};
    loop_timer_after(n->x.loop, &c->timer, STALL_MS / 4);
    memset(&c->job, 0, sizeof c->job); /* an empty piece: how much of this image is here already? */
    submit(n, SITELOG_SNAPSHOT_RECEIVE, probed);
}

static void installed_now(void *context, struct sitelog_snapshot *job) {
    struct node *n = context;
    struct catchup *c = &n->catchup;
    c->storing = false;
    if (job->err != E_OK) {
        give_up(n, job->fault.text);
        return;
    }
    struct fault f = {0};
    table_clear(n->table);
    size_t rows = sitelog_row_count(job->rows);
    enum grey_error err = E_OK;
    for (size_t i = 0; i < rows && err == E_OK; i++) {
        struct sitelog_row row;
        sitelog_row_get(job->rows, i, &row);
        err = table_load(n->table, row.id, row.key, row.found, row.value, row.ref);
    }
    err = err != E_OK ? err : state_reload(n->state, &f);
    if (err != E_OK) {
        node_fail(n, err, f.text);
        return;
    }
    metrics_add(&installed, 0, 1);
    n->upkeep.flushed_index = c->point.index;
    n->upkeep.dirty_since_ms = 0;
    node_set_members(n, &job->members, job->info.members_index);
    struct raft_point point = c->point;
    finish(n, true);
    if (n->commit_index < point.index) {
        n->commit_index = point.index;
    }
    log_info("catchup", "installed", "index=%" PRIu64 " bytes=%" PRIu64, point.index, job->info.file_bytes);
    struct raft_input in = {.kind = RAFT_IN_SNAPSHOT_DONE, .point = &point, .members = &n->members, .index = n->members_index};
    (void)node_step(n, &in, NULL);
    requests_skipped(n, point.index);
    loop_again(n->x.loop);
}

void catchup_continue(struct node *n) {
    struct catchup *c = &n->catchup;
    if (c->phase != CATCHUP_INSTALL || c->storing || !upkeep_idle(n) || n->fetching) {
        return;
    }
    n->installing = true;
    memset(&c->job, 0, sizeof c->job);
    submit(n, SITELOG_SNAPSHOT_INSTALL, installed_now);
}

static void received(void *context, struct sitelog_snapshot *job) {
    struct node *n = context;
    struct catchup *c = &n->catchup;
    c->storing = false;
    blob_unref(job->chunk);
    job->chunk = NULL;
    if (c->phase != CATCHUP_IMAGE) {
        return;
    }
    if (job->err != E_OK) {
        give_up(n, job->fault.text);
    } else if (job->resume_offset < job->total_bytes) {
        ask_image(n, job->resume_offset);
    } else {
        c->phase = CATCHUP_PAYLOADS;
        ask_payloads(n);
    }
}

void catchup_chunk(struct node *n, raft_id from, const struct message_snapshot_chunk *m) {
    struct catchup *c = &n->catchup;
    if (c->phase != CATCHUP_IMAGE || c->storing || from != c->from || m->index != c->point.index) {
        return;
    }
    c->progress_ms = loop_now_ms(n->x.loop);
    if (m->err != E_OK || m->chunk.size == 0 || m->offset > m->total_bytes || m->chunk.size > m->total_bytes - m->offset) {
        give_up(n, m->err != E_OK ? error_sentence(m->err) : "an impossible piece of the snapshot");
        return;
    }
    memset(&c->job, 0, sizeof c->job);
    c->job.offset = m->offset;
    c->job.total_bytes = m->total_bytes;
    c->job.chunk = blob_copy(m->chunk);
    if (c->job.chunk == NULL) {
        give_up(n, "no memory for a piece of the snapshot");
        return;
    }
    submit(n, SITELOG_SNAPSHOT_RECEIVE, received);
}

static void payloads_stored(void *context, struct sitelog_snapshot *job) {
    struct node *n = context;
    struct catchup *c = &n->catchup;
    c->storing = false;
    if (c->phase != CATCHUP_PAYLOADS && c->phase != CATCHUP_INSTALL) {
        return;
    }
    if (job->err != E_OK) {
        give_up(n, job->fault.text);
    } else if (c->phase == CATCHUP_PAYLOADS) {
        ask_payloads(n);
    } else {
        catchup_continue(n);
    }
}

void catchup_payloads(struct node *n, raft_id from, const struct message_payloads *m) {
    struct catchup *c = &n->catchup;
    if (c->phase != CATCHUP_PAYLOADS || c->storing || from != c->from || m->from != c->payload_from) {
        return;
    }
    c->progress_ms = loop_now_ms(n->x.loop);
    if (m->err != E_OK || (m->more && m->entry_count == 0)) {
        give_up(n, m->err != E_OK ? error_sentence(m->err) : "the leader's payloads come to no end");
        return;
    }
    raft_index last = c->payload_from - 1;
    for (uint32_t i = 0; i < m->entry_count; i++) {
        if (m->entries[i].index <= last || m->entries[i].index > c->point.index) {
            give_up(n, "payloads out of order");
            return;
        }
        last = m->entries[i].index;
    }
    c->payload_from = last + 1;
    if (!m->more) {
        c->phase = CATCHUP_INSTALL;
    }
    if (m->entry_count == 0) {
        catchup_continue(n);
        return;
    }
    memset(&c->job, 0, sizeof c->job);
    c->job.entries = mem_new(m->entry_count, sizeof *c->job.entries);
    if (c->job.entries == NULL) {
        give_up(n, "no memory for payloads");
        return;
    }
    for (uint32_t i = 0; i < m->entry_count; i++) {
        c->job.entries[i] = m->entries[i];
        (void)blob_ref(c->job.entries[i].payload);
    }
    c->job.entry_count = m->entry_count;
    submit(n, SITELOG_SNAPSHOT_PAYLOADS, payloads_stored);
}

void catchup_stop(struct node *n) {
    n->catchup.phase = CATCHUP_IDLE;
    loop_timer_cancel(n->x.loop, &n->catchup.timer);
}

/* --- the side that has it ------------------------------------------------------------------------------------------------------- */

struct serve_image {
    struct sitelog_snapshot job;
    struct node *node;
    raft_id to;
};

static void image_read(void *context, struct sitelog_snapshot *job) {
    struct serve_image *s = context;
    struct bytes chunk = job->err == E_OK ? blob_bytes(job->chunk) : bytes_of(NULL, 0);
    struct message m = {
        .kind = MESSAGE_SNAPSHOT_CHUNK,
        .u.snapshot_chunk = {
            .index = job->point.index, .offset = job->offset, .total_bytes = job->total_bytes, .err = job->err, .chunk = chunk}};
    metrics_add(&served_bytes, 0, (int64_t)chunk.size);
    (void)peers_send(s->node->peers, s->to, &m);
    struct raft_status status;
    raft_status(s->node->raft, &status);
    bool offered = s->node->role == RAFT_LEADER && job->point.index == status.base_index; /* else a newer one is by now */
    if (job->err == E_NOT_FOUND && offered) { /* removed by hand, say; what is offered next is there */
        s->node->upkeep.snapshot_due = true;
    }
    loop_again(s->node->x.loop);
    mem_free(s);
}

void catchup_fetch(struct node *n, raft_id from, const struct message_snapshot_fetch *m) {
    metrics_register(&served_bytes);
    struct serve_image *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        return;
    }
    s->node = n;
    s->to = from;
    s->job = (struct sitelog_snapshot){.kind = SITELOG_SNAPSHOT_READ,
                                       .point = {.index = m->index},
                                       .offset = m->offset,
                                       .bytes_max = m->bytes_max < FETCH_BYTES ? m->bytes_max : FETCH_BYTES,
                                       .done = image_read,
                                       .context = s};
    if (sitelog_snapshot(n->log, &s->job) != E_OK) {
        mem_free(s); /* the asker notices the silence */
    }
}

struct serve_payloads {
    struct sitelog_read job;
    struct node *node;
    raft_id to;
};

static void payloads_read(void *context, struct sitelog_read *job) {
    struct serve_payloads *s = context;
    struct message m = {.kind = MESSAGE_PAYLOADS,
                        .u.payloads = {.from = job->from,
                                       .more = job->more,
                                       .err = job->err,
                                       .entries = job->entries,
                                       .entry_count = job->err == E_OK ? job->entry_count : 0}};
    (void)peers_send(s->node->peers, s->to, &m);
    loop_again(s->node->x.loop);
    mem_free(s);
}

void catchup_payload_fetch(struct node *n, raft_id from, const struct message_payload_fetch *m) {
    struct serve_payloads *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        return;
    }
    s->node = n;
    s->to = from;
    s->job = (struct sitelog_read){.kind = SITELOG_LIVE,
                                   .from = m->from,
                                   .to = m->to,
                                   .bytes_max = m->bytes_max < FETCH_BYTES ? m->bytes_max : FETCH_BYTES,
                                   .done = payloads_read,
                                   .context = s};
    if (sitelog_read(n->log, &s->job) != E_OK) {
        mem_free(s);
    }
}

struct serve_lost {
    struct sitelog_read job;
    struct node *node;
    raft_id to;
    raft_index certain;
};

static void lost_read(void *context, struct sitelog_read *job) {
    struct serve_lost *s = context;
    struct message m = {.kind = MESSAGE_MEND_ROWS,
                        .u.mend_rows = {.from = job->from,
                                        .to = job->looked_to,
                                        .anchor = job->anchor,
                                        .certain = s->certain,
                                        .same = job->same,
                                        .whole = true,
                                        .entries = job->entries,
                                        .entry_count = job->entry_count}};
    if (job->err == E_OK) {
        (void)peers_send(s->node->peers, s->to, &m);
    }
    loop_again(s->node->x.loop);
    mem_free(s);
}

void catchup_mend_fetch(struct node *n, raft_id from, const struct message_mend_fetch *m) {
    if (n->o.witness || m->from == 0 || m->to < m->from || m->to - m->from >= MENDPLAN_ASK_MAX) {
        return;
    }
    struct serve_lost *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        return;
    }
    *s = (struct serve_lost){.node = n, .to = from, .certain = n->applied_point.index};
    s->job = (struct sitelog_read){.kind = SITELOG_READABLE,
                                   .from = m->from,
                                   .to = m->to,
                                   .anchor = m->anchor,
                                   .anchor_term = m->anchor_term,
                                   .bytes_max = m->bytes_max < FETCH_BYTES ? m->bytes_max : FETCH_BYTES,
                                   .done = lost_read,
                                   .context = s};
    if (sitelog_read(n->log, &s->job) != E_OK) {
        mem_free(s);
    }
}
