/* What a verdict takes from a gateway (DECISIONS 29): a member in quarantine (agent/state/standing.h) hands leadership on and is slow to take
 * it; the leader gives it no new work, and takes its vote as soon as the others are a majority without it.  A new good verdict
 * gives all of it back.  Each gateway judges for itself, so a leader that does not want to know is left by nobody but the core. */
#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define JUDGE_S 60 /* at the latest anew, beside each verdict and each end of one */
#define HAND_OVER_MS 2000u
#define ORDER_MS 10000u /* between two changes of votes, and two rows that are forgotten */

static struct metric in_quarantine =
    METRIC_GAUGE("grey_attestation_quarantined", "1 while this gateway is in quarantine, by the verdicts that it knows.");

static void log_changes(struct node *n, const struct standings *before) {
    const struct standings *now = &n->quarantine.standings;
    for (uint32_t i = 0; i < now->count; i++) {
        const struct standing_of *s = &now->at[i], *was = standing_find(before, s->id);
        const struct raft_member *m = raft_members_find(&n->members, s->id);
        const char *name = m == NULL ? "?" : m->node.text;
        enum standing former = was == NULL ? STANDING_NONE : was->standing;
        if (s->standing != former) {
            log_at(s->standing == STANDING_FAILED || s->standing == STANDING_EXPIRED ? LOG_WARN : LOG_INFO, "attest",
                   standing_name(s->standing), "node=%s%s%s", name, s->detail[0] != 0 ? " " : "", s->detail);
        }
        if (s->quarantined != (was != NULL && was->quarantined)) {
            log_warn("attest", s->quarantined ? "quarantine" : "released",
                     s->quarantined ? "node=%s does not lead and gets no new work until the verifier trusts it again" : "node=%s",
                     name);
        }
    }
}

static void judge(struct node *n) {
    struct quarantine *q = &n->quarantine;
    struct standings before = q->standings;
    int64_t now_s = now_wall_ms() / 1000;
    standing_judge(n->table, n->site.text, &n->members, n->o.has_verifier_key ? n->o.verifier_key : NULL, now_s, &q->standings);
    q->stale = false;
    q->judge_s = now_s + JUDGE_S < q->standings.change_s ? now_s + JUDGE_S : q->standings.change_s;
    log_changes(n, &before);
    bool self = quarantine_holds(n, n->self);
    metrics_set(&in_quarantine, 0, self);
    raft_set_reluctant(n->raft, self);
}

bool quarantine_holds(const struct node *n, raft_id id) {
    const struct standing_of *s = standing_find(&n->quarantine.standings, id);
    return s != NULL && s->quarantined;
}

raft_id quarantine_successor(const struct node *n) {
    struct raft_status s;
    raft_id best = 0;
    raft_index match = 0;
    raft_status(n->raft, &s);
    for (uint32_t i = 0; i < s.peer_count; i++) {
        const struct raft_member *m = raft_members_find(s.members, s.peers[i].id);
        if (m != NULL && m->voter && !m->witness && s.peers[i].active && !quarantine_holds(n, m->id) &&
            (best == 0 || s.peers[i].match_index > match)) {
            best = m->id;
            match = s.peers[i].match_index;
        }
    }
    return best;
}

static void hand_over(struct node *n, uint64_t now_ms) {
    struct raft_input in = {.kind = RAFT_IN_TRANSFER, .peer = quarantine_successor(n)};
    if (in.peer == 0 || now_ms < n->quarantine.handed_ms) {
        return;
    }
    n->quarantine.handed_ms = now_ms + HAND_OVER_MS;
    log_warn("attest", "hand-over", "this gateway is in quarantine: leadership is given away");
    (void)node_step(n, &in, NULL);
}

/* The others decide without it: so many of them answer that they are a majority of all voters. */
static bool can_spare(const struct raft_status *s, raft_id id) {
    uint32_t voters = 0, active = 0;
    for (uint32_t i = 0; i < s->members->count; i++) {
        const struct raft_member *m = &s->members->at[i];
        bool answers = m->id == s->self;
        for (uint32_t k = 0; k < s->peer_count; k++) {
            answers = answers || (s->peers[k].id == m->id && s->peers[k].active);
        }
        voters += m->voter;
        active += m->voter && m->id != id && answers;
    }
    return active >= voters / 2 + 1;
}

static bool take_vote(struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    if (!s.members_committed || raft_members_joint(s.members)) {
        return false;
    }
    for (uint32_t i = 0; i < s.members->count; i++) {
        const struct standing_of *one = standing_find(&n->quarantine.standings, s.members->at[i].id);
        struct raft_member m = s.members->at[i];
        struct raft_members wanted = *s.members;
        if (!m.voter || m.id == n->self || one == NULL || !one->quarantined || one->standing != STANDING_FAILED ||
            !can_spare(&s, m.id)) {
            continue;
        }
        m.voter = false;
        must(raft_members_put(&wanted, &m) == E_OK);
        struct raft_input in = {.kind = RAFT_IN_MEMBERS, .members = &wanted};
        if (raft_members_check(&wanted) == E_OK && node_step(n, &in, NULL) == E_OK) {
            log_warn("attest", "vote", "node=%s loses its vote while it is in quarantine", m.node.text);
            return true;
        }
    }
    return false;
}

static void forgotten(void *context, const struct node_answer *a) {
    (void)context, (void)a; /* tried again with the next look */
}

/* What was said of gateways that are no members any more. */
static void forget_one(struct node *n) {
    struct verdicts_row v;
    char after[LIMIT_NAME_BYTES + 1] = "";
    while (verdicts_next(n->table, after, &v)) {
        memcpy(after, v.node.text, sizeof after);
        if (raft_members_find_node(&n->members, v.node.text) == NULL) {
            struct builder b;
            builder_init(&b, 256);
            payload_verdict_forget(&b, v.node.text);
            struct blob *payload = builder_blob(&b);
            builder_free(&b);
            if (payload != NULL) {
                requests_decide(n, ENTRY_VERDICT, payload, false, forgotten, n);
                blob_unref(payload);
            }
            return;
        }
    }
}

void quarantine_start(struct node *n) {
    metrics_register(&in_quarantine);
    n->quarantine.stale = true;
    if (!n->o.witness && n->members.count > 0) { /* before it may campaign */
        judge(n);
    }
}

void quarantine_applied(struct node *n, const struct entry *e) {
    n->quarantine.stale = n->quarantine.stale || e->kind == ENTRY_VERDICT || e->kind == ENTRY_CONFIG;
}

void quarantine_duty(struct node *n) {
    struct quarantine *q = &n->quarantine;
    uint64_t now_ms = loop_now_ms(n->x.loop);
    if (n->o.witness || n->installing || n->has_failed) {
        return;
    }
    if (q->stale || now_wall_ms() / 1000 >= q->judge_s) {
        judge(n);
    }
    if (!n->leading || n->stopping) {
        return;
    }
    if (quarantine_holds(n, n->self)) {
        hand_over(n, now_ms);
    } else if (now_ms >= q->ordered_ms) {
        q->ordered_ms = now_ms + ORDER_MS;
        if (!take_vote(n)) {
            forget_one(n);
        }
    }
}

const struct standings *node_standings(const struct node *n) {
    return &n->quarantine.standings;
}

bool node_quarantined(const struct node *n) {
    return quarantine_holds(n, n->self);
}

const struct signer *node_signer(const struct node *n) {
    return &n->sealing.signer;
}
