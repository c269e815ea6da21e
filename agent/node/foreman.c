#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "agent/work/work.h"
#include "include/grey/protocol.h"
#include "platform/log.h"
#include "platform/metrics.h"

/* What the scheduler cannot do by itself, because it has no clock and no eyes: every gateway says what it has for tasks; the leader
 * proposes the step that is due and the firings of schedules, says which gateways are lost, and raises the site's feature level once
 * all members speak it.  A proposal that is lost is made again by the next look. */

#define STEP_MS_MIN 100u   /* between two steps that are proposed */
#define LOST_MS_MIN 5000u  /* a gateway is lost when it did not answer for so long ... */
#define WELL_MS 10000u     /* in quarantine: so long in contact without a break before it takes tasks again */
#define HOT_TELL_MS 30000u /* a hot spot says so again, and one more task leaves */
#define USE_STEP 50u       /* permille: smaller changes of what is measured are not told */
#define LOST_TIMEOUTS 10u  /* ... and for so many election time-outs */

static struct metric doubt_gauge = METRIC_GAUGE_MILLI(
    "grey_fault_phi",
    "How sure this leader is that another gateway is gone (phi: 1 suspect, 8 presumed dead), the highest of all; 0 elsewhere.");

/* When the leader has to do something next for its tasks: sets the timer. */
static void arm(struct node *n, struct scheduler *s) {
    int64_t due_ms = dispatch_due_ms(s), firing_ms = firings_due_ms(n, s);
    due_ms = firing_ms < due_ms ? firing_ms : due_ms;
    if (due_ms == INT64_MAX || n->foreman.proposing) {
        loop_timer_cancel(n->x.loop, &n->foreman.timer);
        return;
    }
    int64_t wait_ms = due_ms - node_site_time_ms(n);
    uint64_t soon_ms = n->foreman.stepped_ms + STEP_MS_MIN, now_ms = loop_now_ms(n->x.loop);
    uint64_t at_ms = now_ms + (wait_ms > 0 ? (uint64_t)wait_ms : 0);
    loop_timer_set(n->x.loop, &n->foreman.timer, at_ms > soon_ms ? at_ms : soon_ms);
}

static void proposed(void *context, const struct node_answer *a) {
    struct node *n = context;
    n->foreman.proposing = false;
    if (a->err != E_OK && a->err != E_CONDITION && a->err != E_NOT_LEADER) { /* another leader was first, or will see to it */
        log_limited(LOG_WARN, "foreman", "propose", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
    foreman_arm(n);
}

void foreman_propose(struct node *n, enum entry_kind kind, struct builder *payload) {
    struct blob *blob = builder_blob(payload);
    builder_free(payload);
    if (blob != NULL) {
        n->foreman.proposing = true;
        requests_decide(n, kind, blob, true, proposed, n);
        blob_unref(blob);
    }
}

bool foreman_ready(const struct node *n, struct site_facts *site) {
    return !n->foreman.proposing && !n->stopping && !n->has_failed && !n->installing && state_site(n->state, site);
}

/* --- Every gateway ------------------------------------------------------------------------------------------------------------------------- */

static bool far(uint32_t told, uint32_t now) {
    uint32_t apart = told > now ? told - now : now - told;
    return apart >= USE_STEP || (apart > 0 && quota_zone(told) != quota_zone(now)) || (now == 0 && told > 0);
}

static bool use_told(struct node *n, const struct placement_node *known, bool hot) {
    bool again = hot && loop_now_ms(n->x.loop) - n->foreman.hot_told_ms >= HOT_TELL_MS;
    return !again && !far(known->measured_cpu_permille, n->foreman.use.cpu_permille) &&
           !far(known->measured_memory_permille, n->foreman.use.memory_permille);
}

static uint64_t lost_after_ms(const struct node *n) {
    uint64_t ms = (uint64_t)LOST_TIMEOUTS * n->o.election_timeout_ms_max;
    return ms > LOST_MS_MIN ? ms : LOST_MS_MIN;
}

/* Its leader had not heard this gateway.  It knows best whether it is well: its launcher answers, and it has been in contact for a while. */
static bool rests(struct node *n, const struct placement_node *known) {
    uint64_t now_ms = loop_now_ms(n->x.loop);
    bool contact = node_work_lease_ms(n) > lost_after_ms(n) / 4;
    if (known == NULL || known->condition != NODE_SUSPECT || !contact) {
        n->foreman.well_since_ms = 0;
        return known != NULL && known->condition == NODE_SUSPECT;
    }
    n->foreman.well_since_ms = n->foreman.well_since_ms != 0 ? n->foreman.well_since_ms : now_ms;
    return now_ms - n->foreman.well_since_ms < WELL_MS;
}

static void offer_self(struct node *n, const struct scheduler *s, uint32_t feature_level) {
    const struct placement_node *known = placement_find(&s->placement, n->self);
    bool hot = n->foreman.use.hot && n->foreman.can_work && feature_level >= FEATURE_LEVEL_PROOFS;
    struct node_facts facts = {.id = n->self,
                               .name = bytes_str(n->name.text),
                               .capacity = {n->o.task_cpu_millicores, n->o.task_memory_bytes},
                               .condition = !n->foreman.can_work || quarantine_holds(n, n->self) ? NODE_DRAINING
                                            : hot                                                ? NODE_HOT
                                                                                                 : NODE_READY,
                               .measured_cpu_permille = n->foreman.use.cpu_permille,
                               .measured_memory_permille = n->foreman.use.memory_permille,
                               .gone = !n->o.offers_work};
    bool told = known != NULL && known->condition == facts.condition && strcmp(known->name.text, n->name.text) == 0 &&
                known->capacity.cpu_millicores == facts.capacity.cpu_millicores &&
                known->capacity.memory_bytes == facts.capacity.memory_bytes && use_told(n, known, hot);
    bool silent = known == NULL && facts.condition != NODE_READY; /* it never took any, or wants no more */
    if (n->o.offers_work ? told || silent || rests(n, known) : known == NULL) {
        return;
    }
    n->foreman.hot_told_ms = hot ? loop_now_ms(n->x.loop) : n->foreman.hot_told_ms;
    struct builder b;
    builder_init(&b, 4096);
    payload_node(&b, &facts);
    foreman_propose(n, ENTRY_NODE, &b);
}

/* --- The leader ------------------------------------------------------------------------------------------------------------------------------ */

static void raise_level(struct node *n, struct site_facts *site) {
    struct raft_status s;
    raft_status(n->raft, &s);
    for (uint32_t i = 0; i < s.members->count; i++) {
        raft_id id = s.members->at[i].id;
        if (id != n->self && (n->peers == NULL || peers_feature_level(n->peers, id) < FEATURE_LEVEL)) {
            return;
        }
    }
    log_info("foreman", "feature-level", "from=%" PRIu32 " to=%u", site->feature_level, FEATURE_LEVEL);
    site->feature_level = FEATURE_LEVEL;
    struct builder b;
    builder_init(&b, 512);
    payload_site(&b, site);
    foreman_propose(n, ENTRY_SITE, &b);
}

uint32_t node_work_lease_ms(const struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    uint64_t now_ms = loop_now_ms(n->x.loop), most_ms = lost_after_ms(n) / 2;
    if (s.role == RAFT_LEADER && s.peer_count == 0) {
        return (uint32_t)most_ms; /* nobody else could begin them */
    }
    uint64_t silent_ms = now_ms > s.quorum_contact_ms ? now_ms - s.quorum_contact_ms : 0;
    return s.leader == 0 || s.quorum_contact_ms == 0 || silent_ms >= most_ms ? 0 : (uint32_t)(most_ms - silent_ms);
}

/* How long the member has been silent, as this leader saw it. */
static uint64_t silent_ms(struct node *n, uint32_t place, raft_id id, bool active) {
    uint64_t now_ms = loop_now_ms(n->x.loop);
    if (active || n->foreman.silent[place].id != id) {
        n->foreman.silent[place].id = id;
        n->foreman.silent[place].since_ms = now_ms;
    }
    return now_ms - n->foreman.silent[place].since_ms;
}

static void keep_limits(struct node *n, const struct scheduler *s, uint32_t feature_level) {
    struct capacity_limits l = {.queue_max = s->saved.queue_max,
                                .concurrent_max = n->o.tasks_max,
                                .burst_ms = (uint64_t)n->o.burst_s * 1000,
                                .proof_s = feature_level < FEATURE_LEVEL_PROOFS ? s->saved.proof_s : n->o.proof_s,
                                .overcommit = feature_level >= FEATURE_LEVEL_OFFLOAD && n->o.overcommit,
                                .offloads = feature_level >= FEATURE_LEVEL_OFFLOAD && offloading_wanted(n, s)};
    if (s->saved.concurrent_max != l.concurrent_max || s->saved.proof_s != l.proof_s || s->quota.burst_ms != l.burst_ms ||
        s->quota.overcommit != l.overcommit || s->saved.offloads != l.offloads) {
        struct builder b;
        builder_init(&b, 64);
        payload_quota_limits(&b, &l);
        foreman_propose(n, ENTRY_QUOTA, &b);
    }
}

/* A member that speaks for the first time takes a place that is free, or that of one that has left. */
void foreman_heard(struct node *n, raft_id from) {
    struct voice *v = NULL, *unused = NULL;
    for (uint32_t i = 0; n->leading && v == NULL && i < LIMIT_MEMBERS; i++) {
        struct voice *at = &n->foreman.voices[i];
        v = at->id == from ? at : NULL;
        unused = unused == NULL && node_member(n, at->id) == NULL ? at : unused;
    }
    if (v == NULL && unused != NULL && node_member(n, from) != NULL) {
        v = unused;
        *v = (struct voice){.id = from};
    }
    if (v != NULL) {
        phi_heard(&v->phi, loop_now_ms(n->x.loop));
    }
}

static const struct phi *phi_of(const struct node *n, raft_id id) {
    for (uint32_t i = 0; n->leading && id != 0 && i < LIMIT_MEMBERS; i++) {
        if (n->foreman.voices[i].id == id) {
            return &n->foreman.voices[i].phi;
        }
    }
    return NULL;
}

bool node_phi_milli(const struct node *n, raft_id id, uint32_t *milli) {
    const struct phi *p = phi_of(n, id);
    if (p == NULL || p->samples < PHI_SAMPLES_MIN) {
        return false;
    }
    *milli = phi_milli(p, loop_now_ms(n->x.loop));
    return true;
}

static bool is_doubtful(const struct node *n, raft_id id) {
    const struct phi *p = phi_of(n, id);
    return p != NULL && phi_level(p, loop_now_ms(n->x.loop)) == PHI_GONE;
}

static void show_doubt(const struct node *n) {
    uint32_t most_milli = 0;
    for (uint32_t i = 0; n->leading && i < LIMIT_MEMBERS; i++) {
        uint32_t milli = phi_milli(&n->foreman.voices[i].phi, loop_now_ms(n->x.loop));
        if (milli > most_milli && node_member(n, n->foreman.voices[i].id) != NULL) {
            most_milli = milli;
        }
    }
    metrics_set(&doubt_gauge, 0, most_milli);
}

/* Who falls silent is put in quarantine first: nobody is sure, so nothing is moved.  At most one change at a time: it is looked at again
 * each second. */
static void watch_nodes(struct node *n, const struct scheduler *s) {
    struct raft_status status;
    raft_status(n->raft, &status);
    for (uint32_t i = 0; i < s->placement.count; i++) {
        const struct placement_node *p = s->placement.nodes[i];
        bool active = p->id == n->self;
        for (uint32_t k = 0; k < status.peer_count; k++) {
            active = active || (status.peers[k].id == p->id && status.peers[k].active);
        }
        bool gone = raft_members_find(status.members, p->id) == NULL;
        bool lost = silent_ms(n, i, p->id, active) >= lost_after_ms(n) && p->condition != NODE_LOST;
        bool doubtful = n->foreman.quarantines && p->id != n->self && (p->condition == NODE_READY || p->condition == NODE_HOT) &&
                        is_doubtful(n, p->id);
        bool distrusted = quarantine_holds(n, p->id) && (p->condition == NODE_READY || p->condition == NODE_HOT);
        if (gone || lost || doubtful || distrusted) {
            struct node_facts facts = {.id = p->id,
                                       .name = bytes_str(p->name.text),
                                       .gone = gone,
                                       .condition = lost         ? NODE_LOST
                                                    : distrusted ? NODE_DRAINING
                                                                 : NODE_SUSPECT,
                                       .capacity = p->capacity};
            for (uint32_t k = 0; k < p->label_count; k++) {
                facts.labels.at[facts.labels.count++] = bytes_str(p->labels[k]);
            }
            log_warn("foreman",
                     gone         ? "gone"
                     : lost       ? "lost"
                     : distrusted ? "distrusted"
                                  : "suspect",
                     "node=%s tasks=%" PRIu32, p->name.text, p->task_count);
            struct builder b;
            builder_init(&b, 8192);
            payload_node(&b, &facts);
            foreman_propose(n, ENTRY_NODE, &b);
            return;
        }
    }
}

static void on_timer(void *context) {
    struct node *n = context;
    struct site_facts site;
    struct scheduler *s = n->leading && foreman_ready(n, &site) ? state_scheduler(n->state) : NULL;
    if (s == NULL) {
        return;
    }
    int64_t now_ms = node_site_time_ms(n);
    n->foreman.stepped_ms = loop_now_ms(n->x.loop);
    firings_make(n, s, now_ms);
    if (!n->foreman.proposing && dispatch_due_ms(s) <= now_ms) {
        struct builder b;
        builder_init(&b, 16);
        payload_task_epoch(&b);
        foreman_propose(n, ENTRY_TASK, &b);
    }
    arm(n, s);
}

void foreman_arm(struct node *n) {
    struct scheduler *s = n->leading && !n->stopping && !n->has_failed ? state_scheduler(n->state) : NULL;
    if (s != NULL) {
        arm(n, s);
    }
}

/* --- When to look --------------------------------------------------------------------------------------------------------------------------- */

void node_can_work(struct node *n, bool can) {
    if (n->foreman.can_work != can && n->o.offers_work) {
        log_info("foreman", "work", "can=%d", can);
    }
    n->foreman.can_work = can; /* the duty of the next second says so */
}

void node_measured(struct node *n, const struct node_use *use) {
    n->foreman.use = *use;
}

void foreman_start(struct node *n) {
    metrics_register(&doubt_gauge);
    n->foreman.timer = (struct loop_timer){.fire = on_timer, .context = n};
}

void foreman_stop(struct node *n) {
    loop_timer_cancel(n->x.loop, &n->foreman.timer);
}

/* A gateway that was given something begins when it knows that it is committed. */
void foreman_turn(struct node *n) {
    const struct scheduler *s = n->leading && !n->has_failed ? state_scheduler(n->state) : NULL;
    if (s == NULL || s->saved.tokens == n->foreman.tokens) {
        return;
    }
    for (uint32_t i = 0; i < s->placement.count; i++) {
        const struct placement_node *p = s->placement.nodes[i];
        const struct task *newest = p->tasks;
        if (p->id != n->self && newest != NULL && newest->token > n->foreman.tokens) {
            struct raft_input in = {.kind = RAFT_IN_HURRY, .peer = p->id};
            (void)node_step(n, &in, NULL);
        }
    }
    n->foreman.tokens = s->saved.tokens;
}

void foreman_applied(struct node *n, const struct entry *e) {
    bool ours = e->kind == ENTRY_TASK || e->kind == ENTRY_QUOTA || e->kind == ENTRY_NODE || e->kind == ENTRY_CLOCK;
    struct scheduler *s = ours && n->leading ? state_scheduler(n->state) : NULL;
    if (e->kind == ENTRY_CLOCK) {
        firings_reconsider(n);
    }
    if (s != NULL) {
        arm(n, s);
        offloading_applied(n, s, e);
        emergency_look(n, s);
    }
}

void foreman_duty(struct node *n) {
    struct site_facts site;
    if (!n->leading) { /* words and silence of an earlier term say nothing about now */
        memset(n->foreman.silent, 0, sizeof n->foreman.silent);
        memset(n->foreman.voices, 0, sizeof n->foreman.voices);
    }
    show_doubt(n);
    if (n->o.witness || !foreman_ready(n, &site)) {
        return;
    }
    if (site.feature_level < FEATURE_LEVEL && n->leading && !n->foreman.proposing) {
        raise_level(n, &site);
    }
    if (site.feature_level < FEATURE_LEVEL_TASKS) {
        return;
    }
    struct scheduler *s = state_scheduler(n->state);
    if (s == NULL) {
        return;
    }
    offloading_duty(n);
    emergency_look(n, s);
    if (n->leading && !n->foreman.proposing) { /* before anybody may have tasks */
        keep_limits(n, s, site.feature_level);
    }
    if (n->leader != 0 && !n->foreman.proposing) {
        offer_self(n, s, site.feature_level);
    }
    if (!n->leading) {
        firings_reconsider(n); /* another leader may have been lost while it did so */
    }
    if (n->leading && !n->foreman.proposing) {
        n->foreman.quarantines = site.feature_level >= FEATURE_LEVEL_PROOFS;
        watch_nodes(n, s);
        arm(n, s);
    }
}
