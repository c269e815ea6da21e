/* A gateway whose log is damaged in its middle: what it asks, what others answer, and the log that it makes of that.
 *
 * agent/store/mendplan.c and agent/store/mendask.c decide, as they do in greyd.  Simulated are the disk below (agent/store/salvage.c) and the letters.  A row
 * that cannot be read has term 0; one whose payload cannot be read has a payload that its digest does not vouch for.  What is mended is a
 * copy: a crash before it is whole leaves the damaged log. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/store/mendask.h"
#include "agent/store/mendplan.h"
#include "federation/message.h"
#include "include/grey/must.h"
#include "platform/digest.h"
#include "tests/sim/world.h"

#define TICK_US UINT64_C(50000)
#define CHAIN_STEP 64u /* rows whose index is a multiple of it hold the chain hash */

struct patient {
    struct mendplan plan;
    struct mendask ask;
    struct disk copy, below; /* below: what it does without, as far as it can be read */
    bool together;           /* another one was mended at the same time */
};

struct letter {
    raft_id from;
    bool answer;
    struct message_mend_fetch fetch;
    struct message_mend_rows rows; /* with entries of its own */
};

uint32_t patient_count(const struct world *w) {
    uint32_t count = 0;
    for (uint32_t i = 0; w->damages && i < w->node_count; i++) {
        count += w->nodes[i].ill && !w->nodes[i].wiped;
    }
    return count;
}

void patient_free(struct node *n) {
    if (n->patient != NULL) {
        mendplan_end(&n->patient->plan);
        disk_clear(&n->patient->copy);
        disk_clear(&n->patient->below);
        free(n->patient);
        n->patient = NULL;
    }
}

/* --- Damage ------------------------------------------------------------------------------------------------------------------------ */

static bool row_holds(const struct entry *e) {
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(blob_bytes(e->payload), digest);
    return e->term > 0 && e->stripped_bytes == 0 && memcmp(digest, e->digest, DIGEST_BYTES) == 0;
}

static bool row_damaged(const struct entry *e) {
    return e->term == 0 || (e->payload == NULL && !row_holds(e));
}

/* That gateway has the entry that n lost, and what shows that it is the same one. */
static bool row_provable(const struct node *n, const struct node *other, raft_index index) {
    const struct entry *was = disk_entry(&n->sound, index), *theirs = disk_entry(&other->disk, index);
    if (other == n || other->wiped || other->witness || theirs == NULL || theirs->term != was->term || !row_holds(theirs)) {
        return false;
    }
    const struct entry *anchor = disk_entry(&n->disk, index);
    while (anchor->term == 0) { /* the last one is readable */
        anchor++;
    }
    const struct entry *there = disk_entry(&other->disk, anchor->index);
    return (there != NULL && there->term == anchor->term) || (index <= n->disk.applied && index <= other->disk.applied);
}

/* Each lost entry is whole at somebody who will be asked, or nobody needs it any more, and nobody is gone who would be waited for.  What
 * is lost in more places than that is for a person to decide: the gateways wait. */
static bool all_mendable(const struct world *w) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct node *n = &w->nodes[i];
        struct raft_members members = {0}; /* those that it would ask */
        raft_index members_index;
        if (n->ill && !n->wiped) {
            disk_members(&n->sound, n->disk.applied, &members, &members_index);
        }
        for (uint32_t k = 0; n->ill && !n->wiped && k < n->disk.count; k++) {
            bool everywhere = true, elsewhere = false;
            raft_index index = n->disk.base.index + 1 + k;
            for (uint32_t j = 0; row_damaged(&n->disk.entries[k]) && j < w->node_count; j++) {
                const struct node *other = &w->nodes[j];
                everywhere = everywhere && (other->witness || (!other->wiped && index <= other->disk.applied));
                elsewhere = elsewhere || (raft_members_find(&members, other->id) != NULL && row_provable(n, other, index));
            }
            if (!everywhere && !elsewhere) {
                return false;
            }
        }
    }
    return true;
}

/* False: it cannot be damaged without more than the others can mend. */
static bool row_damage(struct world *w, struct node *n, struct entry *e, bool head) {
    struct entry before = *e;
    if (head) {
        *e = (struct entry){.index = e->index};
    }
    e->payload = NULL;
    if (!all_mendable(w)) {
        *e = before;
        return false;
    }
    world_trace(w, "entry %" PRIu64 " on the disk of %" PRIu64 " is damaged%s", e->index, n->id, head ? "" : ", its payload only");
    w->counts[head ? COUNT_ROW_LOST : COUNT_PAYLOAD_DAMAGED]++;
    blob_unref(before.payload);
    return true;
}

static bool knows_others(const struct node *n) { /* from its state; a learner that has none yet waits for an operator */
    struct raft_members members;
    raft_index index;
    disk_members(world_disk(n), n->disk.applied, &members, &index);
    return members.count > 1 && raft_members_find(&members, n->id) != NULL;
}

bool patient_damage(struct world *w, struct node *n, uint32_t places) {
    struct disk *d = &n->disk;
    if (n->up || n->patient != NULL || n->wiped || n->witness || d->count < 2 || n->below.count > 0 || !knows_others(n)) {
        return false;
    }
    bool was_ill = n->ill, any = false;
    if (!was_ill) {
        disk_copy(&n->sound, d);
        n->ill = true;
    }
    for (uint32_t k = 0; k < places; k++) {
        uint32_t from = (uint32_t)world_draw(w, d->count), rows = world_chance(w, 700) ? 1 : (uint32_t)world_between(w, 2, 20);
        for (uint32_t i = from; i < d->count && i < from + rows; i++) { /* of the last one the head stays */
            bool hollow = i + 1 == d->count || world_chance(w, 300);
            struct entry *e = &d->entries[i];
            if (row_holds(e) && !(hollow && (blob_bytes(e->payload).size == 0 || e->kind == ENTRY_CONFIG))) {
                any = row_damage(w, n, e, !hollow) || any;
            }
        }
    }
    if (!was_ill && !any) {
        disk_clear(&n->sound);
        n->ill = false;
    }
    return n->ill;
}

/* --- Letters ------------------------------------------------------------------------------------------------------------------------ */

void letter_free(struct letter *l) {
    if (l != NULL) {
        for (uint32_t i = 0; i < l->rows.entry_count; i++) {
            blob_unref(l->rows.entries[i].payload);
        }
        free(l->rows.entries);
        free(l);
    }
}

static struct letter *letter_copy(const struct letter *l) {
    struct letter *copy = world_alloc(1, sizeof *copy);
    *copy = *l;
    copy->rows.entries = world_alloc(l->rows.entry_count, sizeof *copy->rows.entries);
    for (uint32_t i = 0; i < l->rows.entry_count; i++) { /* the wire carries neither digest nor hash */
        copy->rows.entries[i] = l->rows.entries[i];
        memset(copy->rows.entries[i].digest, 0, DIGEST_BYTES);
        memset(copy->rows.entries[i].hash, 0, DIGEST_BYTES);
        blob_ref(copy->rows.entries[i].payload);
    }
    return copy;
}

static bool linked(const struct world *w, const struct node *a, const struct node *b) {
    uint32_t i = (uint32_t)(a - w->nodes), j = (uint32_t)(b - w->nodes);
    return (b->up || b->patient != NULL) && !w->cut[i][j] && !w->cut[j][i];
}

static void letter_fate(struct world *w, struct node *to, const struct letter *l) {
    uint32_t copies = 1 + world_chance(w, w->duplicate_permille);
    if (world_chance(w, w->loss_permille)) {
        w->counts[COUNT_LOST]++;
        return;
    }
    for (uint32_t i = 0; i < copies; i++) {
        uint64_t delay_us = world_between(w, w->delay_us_min, w->delay_us_max) + w->lag_us[to - w->nodes];
        delay_us += world_chance(w, w->late_permille) ? world_draw(w, 2000000) : 0;
        event_push(w, (struct event){.at_us = w->now_us + delay_us,
                                     .kind = EVENT_LETTER,
                                     .node = (uint32_t)(to - w->nodes),
                                     .letter = letter_copy(l)});
    }
}

static void letter_post(struct world *w, struct node *from, struct node *to, const struct letter *l) {
    world_mix(w, from->id << 56 ^ to->id << 48 ^ (uint64_t)l->answer << 40 ^ l->fetch.from ^ l->rows.to);
    if (l->answer) {
        world_trace(w, "%" PRIu64 " -> %" PRIu64 " MEND_ROWS %" PRIu64 "..%" PRIu64 " certain=%" PRIu64 " same=%d whole=%d n=%u",
                    from->id, to->id, l->rows.from, l->rows.to, l->rows.certain, l->rows.same, l->rows.whole, l->rows.entry_count);
    } else {
        world_trace(w, "%" PRIu64 " -> %" PRIu64 " MEND_FETCH %" PRIu64 "..%" PRIu64 " anchor=%" PRIu64 " of term %" PRIu64,
                    from->id, to->id, l->fetch.from, l->fetch.to, l->fetch.anchor, l->fetch.anchor_term);
    }
    if (!linked(w, from, to)) {
        return;
    }
    uint64_t random;
    if (world_deed_begin(w, DEED_FATE, &random)) {
        letter_fate(w, to, l);
    } else {
        event_push(w, (struct event){.at_us = w->now_us + w->delay_us_min,
                                     .kind = EVENT_LETTER,
                                     .node = (uint32_t)(to - w->nodes),
                                     .letter = letter_copy(l)});
    }
    world_deed_end(w, random);
}

static void answer(struct world *w, struct node *n, const struct letter *l, const struct disk *d, const struct disk *below,
                   raft_index certain, bool whole) {
    const struct message_mend_fetch *f = &l->fetch;
    const struct entry *anchor = disk_entry(d, f->anchor) != NULL ? disk_entry(d, f->anchor) : disk_entry(below, f->anchor);
    struct entry rows[MENDPLAN_ASK_MAX];
    struct letter a = {
        .from = n->id,
        .answer = true,
        .rows = {.from = f->from, .to = f->from - 1, .anchor = f->anchor, .certain = certain, .whole = whole, .entries = rows}};
    a.rows.same = f->anchor > 0 && ((anchor != NULL && anchor->term == f->anchor_term) ||
                                    (d->base.index == f->anchor && d->base.term == f->anchor_term));
    uint64_t bytes = 0;
    while (a.rows.to < f->to && (a.rows.entry_count == 0 || bytes < f->bytes_max)) {
        const struct entry *e = disk_entry(d, ++a.rows.to);
        e = e != NULL ? e : disk_entry(below, a.rows.to);
        if (e != NULL && row_holds(e)) {
            bytes += blob_bytes(e->payload).size;
            rows[a.rows.entry_count++] = *e;
        }
    }
    struct node *to = world_node(w, l->from);
    if (to != NULL) {
        letter_post(w, n, to, &a);
    }
}

/* --- Mending ------------------------------------------------------------------------------------------------------------------------ */

static struct entry *row_of(struct disk *d, raft_index index) {
    return index > d->base.index && index <= disk_last(d) ? &d->entries[index - d->base.index - 1] : NULL;
}

static bool term_of(void *context, raft_index index, raft_term *term) {
    const struct entry *e = row_of(context, index);
    *term = e == NULL ? 0 : e->term;
    return *term > 0;
}

/* What cannot be mended is put away: its id has gone for good. */
static void set_aside(struct world *w, struct node *n) {
    world_trace(w, "the log of %" PRIu64 " cannot be mended", n->id);
    w->counts[COUNT_MEND_SET_ASIDE]++;
    patient_free(n);
    n->wiped = true;
}

static void forgo(struct world *w, struct node *n) {
    struct patient *p = n->patient;
    struct disk *d = &p->copy;
    const struct entry *at = disk_entry(&n->sound, d->applied); /* what state.db says of it */
    struct raft_point point = {.index = d->applied, .term = at->term, .time_ms = at->time_ms};
    memcpy(point.hash, at->hash, DIGEST_BYTES);
    mendplan_forgo(&p->plan);
    mendask_forgone(&p->ask);
    disk_members(&n->sound, d->applied, &d->base_members, &d->base_members_index);
    disk_clear(&p->below);
    disk_copy(&p->below, d);
    disk_drop(d, d->applied);
    d->base = point;
    d->base_sum = d->sum;
    w->counts[COUNT_MEND_FORGONE]++;
    world_trace(w, "%" PRIu64 " does without entries up to %" PRIu64, n->id, point.index);
}

/* Every entry bound to the one before; stored hashes must agree. */
static bool verify(struct disk *d) {
    uint8_t hash[DIGEST_BYTES];
    raft_term term = d->base.term;
    memcpy(hash, d->base.hash, DIGEST_BYTES);
    for (uint32_t i = 0; i < d->count; i++) {
        struct entry *e = &d->entries[i], before = *e;
        bool stored = e->index % CHAIN_STEP == 0 && memcmp(e->hash, (uint8_t[DIGEST_BYTES]){0}, DIGEST_BYTES) != 0;
        entry_seal(e, hash);
        if (e->term < term || (stored && memcmp(e->hash, before.hash, DIGEST_BYTES) != 0)) {
            return false;
        }
        memcpy(hash, e->hash, DIGEST_BYTES);
        term = e->term;
    }
    return true;
}

static void finish(struct world *w, struct node *n) {
    struct patient *p = n->patient;
    if (!verify(&p->copy)) { /* others gave what was not here: no honest gateway does */
        world_fail(w, "L3: what node %" PRIu64 " was given for its log does not fit it", n->id);
        return;
    }
    disk_clear(&n->disk);
    n->disk = p->copy;
    p->copy = (struct disk){0};
    n->below = p->below;
    p->below = (struct disk){0};
    w->counts[COUNT_MENDED]++;
    w->counts[COUNT_MENDED_TOGETHER] += p->together;
    world_trace(w, "the log of %" PRIu64 " is mended: %" PRIu64 "..%" PRIu64, n->id, n->disk.base.index, disk_last(&n->disk));
    check_mended(w, n);
    patient_free(n);
    disk_clear(&n->sound);
    n->ill = false;
    if (w->violation == NULL) {
        node_start(w, n);
    }
}

static void see_links(struct world *w, struct node *n) {
    for (uint32_t i = 0; i < n->patient->ask.count; i++) {
        struct mendask_other *o = &n->patient->ask.at[i];
        const struct node *other = world_node(w, o->id);
        bool up = other != NULL && linked(w, n, other);
        if (up != o->up) {
            mendask_link(&n->patient->ask, o->id, up);
        }
        n->patient->together = n->patient->together || (up && other->patient != NULL);
    }
}

/* True: it goes on; false: it is mended, put away, or something is wrong. */
static bool go_on(struct world *w, struct node *n) {
    struct patient *p = n->patient;
    struct mendplan_need need;
    while (mendplan_need(&p->plan, &need)) {
        enum mendask_step step = mendask_next(&p->ask, mendplan_may_forgo(&p->plan), world_clock_ms(w, n));
        if (step == MENDASK_FORGO) {
            forgo(w, n);
            continue;
        }
        if (step == MENDASK_HOPELESS) {
            set_aside(w, n);
            return false;
        }
        struct node *to = step == MENDASK_ASK ? world_node(w, mendask_whom(&p->ask)) : NULL;
        if (to != NULL) {
            struct letter l = {.from = n->id,
                               .fetch = {.from = need.from,
                                         .to = need.to,
                                         .anchor = need.anchor,
                                         .anchor_term = need.anchor_term,
                                         .bytes_max = (uint32_t)world_between(w, 64, 8192)}};
            mendask_sent(&p->ask, to->id, world_clock_ms(w, n));
            letter_post(w, n, to, &l);
        }
        return true;
    }
    finish(w, n);
    return false;
}

void patient_ask(struct world *w, struct node *n) {
    see_links(w, n);
    if (go_on(w, n)) {
        world_later(w, TICK_US, EVENT_ASK, n);
    }
}

void patient_start(struct world *w, struct node *n) {
    struct patient *p = world_alloc(1, sizeof *p);
    struct raft_members *members = world_alloc(1, sizeof *members);
    struct disk *d = &n->disk;
    raft_index members_index;
    enum grey_error err = E_OK;
    n->patient = p;
    n->generation++;
    disk_copy(&p->copy, d);
    const struct entry *at = disk_entry(&n->sound, d->applied);
    struct raft_point applied = {.index = d->applied, .term = at != NULL ? at->term : d->base.term};
    mendplan_begin(&p->plan, (struct mendplan_log){term_of, &p->copy}, d->base, disk_last(d), applied);
    for (uint32_t i = 0; i < d->count && err == E_OK; i++) {
        err = d->entries[i].term > 0 ? mendplan_row(&p->plan, d->entries[i].index, row_holds(&d->entries[i]), NULL) : E_OK;
    }
    must(err == E_OK && mendplan_looked(&p->plan, NULL) == E_OK);
    disk_members(&n->sound, d->applied, members, &members_index); /* as state.db has them */
    (void)mendask_begin(&p->ask, members, n->id, "", world_clock_ms(w, n));
    free(members);
    world_trace(w, "node %" PRIu64 " mends its log: %u entries are missing", n->id, mendplan_missing(&p->plan));
    patient_ask(w, n);
}

void patient_crash(struct world *w, struct node *n) {
    world_trace(w, "crash of %" PRIu64 " while its log is mended", n->id);
    w->counts[COUNT_MEND_CRASH]++;
    patient_free(n);
    n->generation++;
}

static void take(struct world *w, struct node *n, const struct letter *l) {
    struct patient *p = n->patient;
    const struct message_mend_rows *r = &l->rows;
    const struct mendplan_offer offer = {.from = r->from,
                                         .to = r->to,
                                         .certain = r->certain,
                                         .anchor = r->anchor,
                                         .same = r->same,
                                         .whole = r->whole,
                                         .entries = r->entries,
                                         .entry_count = r->entry_count};
    uint32_t taken = 0;
    for (uint32_t i = 0; i < r->entry_count; i++) {
        struct entry e = r->entries[i], *here = row_of(&p->copy, e.index);
        digest_sha256(blob_bytes(e.payload), e.digest);
        if (mendplan_take(&p->plan, &offer, &e, here != NULL && here->term > 0 ? here : NULL)) {
            must(here != NULL);
            memcpy(e.hash, here->hash, DIGEST_BYTES);
            blob_unref(here->payload);
            *here = e;
            blob_ref(e.payload);
            taken++;
        }
    }
    taken += mendplan_freed(&p->plan, &offer);
    mendask_answered(&p->ask, l->from, r->whole, mendplan_answered(&p->plan, &offer, taken), taken);
    if (taken > 0) {
        (void)go_on(w, n);
    }
}

void letter_deliver(struct world *w, struct node *n, struct letter *l) {
    if (n->patient != NULL && l->answer) {
        take(w, n, l);
    } else if (n->patient != NULL) {
        answer(w, n, l, &n->patient->copy, &n->patient->below, n->patient->plan.applied.index, false);
    } else if (n->up && !l->answer && !n->witness) {
        uint64_t generation = n->generation;
        raft_index certain = n->applied;
        node_stored(w, n, true); /* the storage works in order */
        if (n->up && n->generation == generation && w->violation == NULL) {
            answer(w, n, l, &n->disk, &n->below, certain, true);
        }
    }
}
