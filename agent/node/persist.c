#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/log.h"

#define STALL_MS 500u /* a full disk is tried again after this */

static void send_message(struct node *n, const struct raft_message *r) {
    if (n->peers != NULL && r->to != n->self) {
        struct message m = {.kind = MESSAGE_RAFT, .u.raft = *r};
        (void)peers_send(n->peers, r->to, &m); /* what is lost, Raft sends again */
    }
}

static void hold(struct node *n, const struct raft_send *s) {
    must(s->message.entry_count == 0);
    if (n->held_count == HELD_SENDS_MAX) {
        return; /* as if lost on the way */
    }
    n->held[(n->held_first + n->held_count++) % HELD_SENDS_MAX] = (struct held_send){s->after_store_id, s->message};
}

void persist_send(struct node *n, const struct raft_send *s) {
    if (s->after_store_id <= n->stored_id) {
        send_message(n, &s->message);
    } else {
        hold(n, s);
    }
}

static void release_sends(struct node *n) {
    while (n->held_count > 0 && n->held[n->held_first].after_store_id <= n->stored_id) {
        send_message(n, &n->held[n->held_first].message);
        n->held_first = (n->held_first + 1) % HELD_SENDS_MAX;
        n->held_count--;
    }
}

/* A full disk: nothing of the job is stored, and it is given again, with all that came after it, until there is room.  Nothing was
 * promised meanwhile. */
static void stall(struct node *n, struct sitelog_store *job) {
    job->job.next = NULL;
    *(n->stalled_last == NULL ? &n->stalled_first : (struct sitelog_store **)(void *)&n->stalled_last->job.next) = job;
    n->stalled_last = job;
    if (n->stalled_timer.place == 0) {
        loop_timer_after(n->x.loop, &n->stalled_timer, STALL_MS);
    }
}

void persist_again(void *context) {
    struct node *n = context;
    struct sitelog_store *job = n->stalled_first;
    n->stalled_first = n->stalled_last = NULL;
    while (job != NULL) {
        struct sitelog_store *next = (struct sitelog_store *)(void *)job->job.next;
        if (n->stalled_first != NULL || sitelog_store(n->log, job) != E_OK) {
            stall(n, job);
        }
        job = next;
    }
    sitelog_wake(n->log);
}

static void store_done(void *context, struct sitelog_store *job) {
    struct node *n = context;
    if (job->err == E_DISK_FULL && !n->has_failed) {
        log_limited(LOG_ERROR, "node", "disk-full", "error=GREY-%d %s: %s", error_id(job->err), error_remedy(job->err),
                    job->fault.text);
        stall(n, job);
        return;
    }
    if (job->err != E_OK) {
        node_fail(n, job->err, job->fault.text);
    } else {
        size_t rows = job->rows == NULL ? 0 : sitelog_row_count(job->rows);
        for (size_t i = 0; i < rows; i++) {
            struct sitelog_row row;
            sitelog_row_get(job->rows, i, &row);
            (void)table_load(n->table, row.id, row.key, row.found, row.value,
                             row.ref); /* without room it is fetched when applied */
        }
        n->stored_id = job->store_id;
        release_sends(n);
        struct raft_input in = {.kind = RAFT_IN_STORED, .store_id = job->store_id};
        (void)node_step(n, &in, NULL);
    }
    mem_free(job);
}

struct wants {
    struct table *table;
    struct builder *out;
};

/* What is in memory is not read from disk; should it leave memory meanwhile, it is fetched when the entry is applied. */
static void want_row(void *context, enum table_id id, struct bytes key) {
    const struct wants *w = context;
    struct bytes value;
    if (table_get(w->table, id, key, &value) == TABLE_UNKNOWN) {
        sitelog_want(w->out, id, key);
    }
}

void persist_store(struct node *n, const struct raft_output *out) {
    struct sitelog_store *job = mem_new(1, sizeof *job);
    uint32_t count =
        out->store_last >= out->store_first && out->store_first > 0 ? (uint32_t)(out->store_last - out->store_first + 1) : 0;
    struct entry *entries = count == 0 ? NULL : mem_new(count, sizeof *entries);
    if (job == NULL || (count > 0 && entries == NULL)) {
        mem_free(job);
        mem_free(entries);
        node_fail(n, E_NO_MEMORY, "storing entries");
        return;
    }
    if (out->rebase != NULL) {
        witness_rebased(n, out);
        job->rebase = true;
        job->point = *out->rebase;
        job->members = blob_ref(n->members_blob);
        job->members_index = n->members_index;
    }
    builder_init(&job->wants, 1024u * 1024u); /* what does not fit is fetched when the entry is applied */
    struct wants wants = {.table = n->table, .out = &job->wants};
    for (uint32_t i = 0; i < count; i++) {
        const struct entry *e = raft_entry(n->raft, out->store_first + i);
        must(e != NULL && e->index == out->store_first + i);
        entries[i] = *e;
        (void)blob_ref(entries[i].payload);
        if (!n->o.witness) {
            state_wants(e, want_row, &wants);
        }
    }
    if (job->wants.err != E_OK) {
        builder_reset(&job->wants);
    }
    job->store_id = out->store_id;
    job->vote_given = out->store_vote;
    job->term = out->term;
    job->vote = out->vote;
    job->truncate_from = out->truncate_from;
    job->entries = entries;
    job->entry_count = count;
    job->held = true;
    job->done = store_done;
    job->context = n;
    if (n->stalled_first != NULL) {
        stall(n, job);
        return;
    }
    enum grey_error err = sitelog_store(n->log, job);
    if (err != E_OK) {
        node_fail(n, err, "the storage thread takes no more jobs");
    }
}

void persist_begin(struct node *n) {
    if (n->role == RAFT_LEADER && n->peers != NULL) {
        peers_flush(n->peers);
    }
    sitelog_wake(n->log);
}

struct load_job {
    struct sitelog_read read;
    struct node *node;
    raft_id peer;
};

static void load_done(void *context, struct sitelog_read *read) {
    struct load_job *job = context;
    struct node *n = job->node;
    if (read->err != E_OK) {
        log_limited(LOG_ERROR, "node", "load", "from=%" PRIu64 " error=GREY-%d %s: %s", read->from, error_id(read->err),
                    error_sentence(read->err), read->fault.text);
    }
    struct raft_input in = {.kind = RAFT_IN_LOADED,
                            .peer = job->peer,
                            .load_index = read->from,
                            .entries = read->entries,
                            .entry_count = read->err == E_OK ? read->entry_count : 0};
    (void)node_step(n, &in, NULL);
    mem_free(job);
}

void persist_load(struct node *n, const struct raft_load *l) {
    struct load_job *job = mem_new(1, sizeof *job);
    if (job == NULL) {
        return; /* the peer will ask again */
    }
    job->node = n;
    job->peer = l->peer;
    job->read = (struct sitelog_read){
        .kind = SITELOG_ENTRIES, .from = l->from, .to = UINT64_MAX, .bytes_max = l->bytes_max, .done = load_done, .context = job};
    if (sitelog_read(n->log, &job->read) != E_OK) {
        struct raft_input in = {.kind = RAFT_IN_LOADED, .peer = l->peer, .load_index = l->from};
        mem_free(job);
        (void)node_step(n, &in, NULL);
    }
}
