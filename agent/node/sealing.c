#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"

/* The leader seals what is committed and applied: at once when nothing was sealed for seal_interval_ms, else when that time is over.  So
 * an entry that comes alone is sealed alone, and under load one signature stands for thousands.  The followers compare each seal with
 * their own log and keep it.  A seal needs no majority and no entry: what it vouches for is committed already.
 *
 * A new leader seals the head of its log when it begins to lead, and with it what the former left unsealed. */

static struct metric seals_made = METRIC_COUNTER("grey_consensus_seals_made_total", "Seals that this node made as leader.");
static struct metric seals_verified = METRIC_COUNTER("grey_consensus_seals_verified_total", "Seals of leaders that hold here.");
static struct metric seals_refused =
    METRIC_COUNTER("grey_consensus_seals_refused_total", "Seals that were forged, old or of others.");
static struct metric sealed_index = METRIC_GAUGE("grey_consensus_sealed_index", "The log is sealed up to here.");

static void on_timer(void *context);

void sealing_start(struct node *n, const struct seal *newest) {
    metrics_register(&seals_made);
    metrics_register(&seals_verified);
    metrics_register(&seals_refused);
    metrics_register(&sealed_index);
    n->sealing.newest = *newest;
    n->sealing.timer = (struct loop_timer){.fire = on_timer, .context = n};
    metrics_set(&sealed_index, 0, (int64_t)newest->index);
}

/* --- keeping ----------------------------------------------------------------------------------------------------------------------- */
static void kept(void *context, struct sitelog_seal *job) {
    (void)context;
    if (job->err != E_OK && job->err != E_STOPPING) {
        log_limited(LOG_WARN, "seal", "keep", "index=%" PRIu64 " error=GREY-%d %s: %s", job->seal.index, error_id(job->err),
                    error_sentence(job->err), job->fault.text);
    }
    mem_free(job);
}

static void keep(struct node *n, const struct seal *s) {
    const struct raft_member *m = node_member(n, s->signer);
    n->sealing.newest = *s;
    metrics_set(&sealed_index, 0, (int64_t)s->index);
    struct sitelog_seal *job = m == NULL ? NULL : mem_new(1, sizeof *job);
    if (job == NULL) {
        return; /* the next one vouches for the same */
    }
    *job = (struct sitelog_seal){.kind = SITELOG_SEAL_PUT, .seal = *s, .signer = {.id = m->id, .node = m->node}, .done = kept};
    memcpy(job->signer.public_key, m->sign_key, sizeof job->signer.public_key);
    if (sitelog_seal(n->log, job) != E_OK) {
        mem_free(job);
    }
}

/* --- as leader ------------------------------------------------------------------------------------------------------------------------ */
static void send_seal(struct node *n, raft_id to, const struct seal *s) {
    struct message m = {.kind = MESSAGE_SEAL, .u.seal = *s};
    (void)peers_send(n->peers, to, &m);
}

static void make(struct node *n) {
    struct seal s = {.index = n->applied_point.index, .epoch = n->leading_term, .signer = n->self};
    struct raft_status status;
    memcpy(s.hash, n->applied_point.hash, DIGEST_BYTES);
    seal_sign(&s, n->cluster_id, n->sealing.signer.secret_key);
    n->sealing.made_ms = loop_now_ms(n->x.loop);
    metrics_add(&seals_made, 0, 1);
    keep(n, &s);
    raft_status(n->raft, &status);
    for (uint32_t i = 0; n->peers != NULL && i < status.members->count; i++) {
        if (status.members->at[i].id != n->self) {
            send_seal(n, status.members->at[i].id, &s);
        }
    }
}

static bool can_sign(const struct node *n) {
    const struct raft_member *self = node_member(n, n->self);
    return self != NULL && memcmp(self->sign_key, n->sealing.signer.public_key, sizeof self->sign_key) == 0;
}

static void lead(struct node *n) {
    struct sealing *g = &n->sealing;
    if (!n->leading || n->applied_point.index <= g->newest.index || !can_sign(n)) {
        return;
    }
    uint64_t due_ms = g->made_ms + n->o.seal_interval_ms;
    bool first = g->newest.epoch != n->leading_term;
    if (first || g->made_ms == 0 || loop_now_ms(n->x.loop) >= due_ms) {
        make(n);
    } else if (g->timer.place == 0) {
        loop_timer_set(n->x.loop, &g->timer, due_ms);
    }
}

static void on_timer(void *context) {
    lead(context);
}

void sealing_stop(struct node *n) {
    loop_timer_cancel(n->x.loop, &n->sealing.timer);
}

void sealing_link_up(struct node *n, raft_id id) {
    if (n->leading && n->sealing.newest.signer == n->self && n->sealing.newest.epoch == n->leading_term) {
        send_seal(n, id, &n->sealing.newest);
    }
}

/* --- as follower ---------------------------------------------------------------------------------------------------------------------- */
static void judge(struct node *n, const struct seal *s, const uint8_t hash[DIGEST_BYTES]) {
    const struct raft_member *m = node_member(n, s->signer);
    if (memcmp(hash, s->hash, DIGEST_BYTES) == 0) {
        metrics_add(&seals_verified, 0, 1);
        if (s->index > n->sealing.newest.index) {
            keep(n, s);
        }
        return;
    }
    char why[160];
    metrics_add(&seals_refused, 0, 1);
    (void)snprintf(why, sizeof why, "entry %" PRIu64 " or one before it is not what %s sealed in epoch %" PRIu64, s->index,
                   m == NULL ? "?" : m->node.text, s->epoch);
    log_error("seal", "differs", "error=GREY-%d %s", error_id(E_SEAL), why);
    node_damaged(n, SITELOG_DAMAGE_HISTORY, why);
}

struct look_up {
    struct sitelog_read read;
    struct node *node;
    struct seal seal;
};

static void looked_up(void *context, struct sitelog_read *read) {
    struct look_up *job = context;
    struct node *n = job->node;
    n->sealing.looking = false;
    if (read->err == E_OK && read->entry_count > 0 && read->entries[0].index == job->seal.index) {
        judge(n, &job->seal, read->entries[0].hash);
    }
    mem_free(job);
}

/* The entry has left memory. */
static void look_up(struct node *n, const struct seal *s) {
    struct look_up *job = n->sealing.looking ? NULL : mem_new(1, sizeof *job);
    if (job == NULL) {
        return;
    }
    *job = (struct look_up){
        .node = n,
        .seal = *s,
        .read = {.kind = SITELOG_ENTRIES, .from = s->index, .to = s->index, .bytes_max = 1, .done = looked_up, .context = job}};
    n->sealing.looking = sitelog_read(n->log, &job->read) == E_OK;
    if (!n->sealing.looking) {
        mem_free(job);
    }
}

static void compare(struct node *n, const struct seal *s) {
    const struct entry *e = raft_entry(n->raft, s->index);
    if (n->applied_point.index == s->index) {
        judge(n, s, n->applied_point.hash);
    } else if (e != NULL) {
        judge(n, s, e->hash);
    } else {
        look_up(n, s);
    }
}

void sealing_applied(struct node *n) {
    struct seal *waits = &n->sealing.waiting;
    if (waits->index != 0 && waits->index <= node_applied(n)) {
        struct seal s = *waits;
        waits->index = 0;
        compare(n, &s);
    }
    lead(n);
}

static void refuse(raft_id from, const struct raft_member *m, const struct seal *s, const char *why) {
    metrics_add(&seals_refused, 0, 1);
    log_limited(LOG_ERROR, "seal", "refuse", "error=GREY-%d node=%s id=%016" PRIx64 " index=%" PRIu64 " epoch=%" PRIu64 " %s",
                error_id(E_SEAL), m == NULL ? "?" : m->node.text, from, s->index, s->epoch, why);
}

void sealing_message(struct node *n, raft_id from, const struct seal *s) {
    const struct raft_member *m = node_member(n, from);
    const struct seal *newest = &n->sealing.newest;
    if (node_member(n, n->self) == NULL) {
        return; /* it does not know the members yet */
    }
    if (m == NULL || m->witness || s->signer != from) {
        refuse(from, m, s, "it is not the seal of a member that may lead");
    } else if (!seal_verify(s, n->cluster_id, m->sign_key)) {
        refuse(from, m, s, "the signature is not that of the member's key: forged, or of another cluster");
    } else if (s->epoch < newest->epoch) {
        refuse(from, m, s, "a later leader has sealed already: replayed, or of one that was replaced");
    } else if (s->index <= newest->index) {
        if (s->index == newest->index && memcmp(s->hash, newest->hash, DIGEST_BYTES) != 0) {
            refuse(from, m, s, "it contradicts the seal of that entry that is here");
        }
    } else if (s->index <= node_applied(n)) {
        compare(n, s);
    } else {
        n->sealing.waiting = *s; /* the newest is enough: it vouches for what those before it did */
    }
}

void sealing_status(const struct node *n, struct seal *newest, struct sealdb_signer *signer) {
    const struct raft_member *m = node_member(n, n->sealing.newest.signer);
    *newest = n->sealing.newest;
    *signer = (struct sealdb_signer){.id = newest->signer};
    if (m != NULL) {
        signer->node = m->node;
        memcpy(signer->public_key, m->sign_key, sizeof signer->public_key);
    }
}
