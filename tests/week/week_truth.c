/* What every number was and what became of it, found from entries and answers and, where the state says that something was lost, from
 * the rows that are left; and the laws that this must keep. */
#include <string.h>

#include "federation/record.h"
#include "tests/week/week.h"

const char *const week_types[] = {"reading", "debug.trace", "video.frame"};

/* By the head of the pattern, for the week's patterns are of that form; 0: no pattern names the type. */
static uint32_t lives_of(const struct queue_limits *l, uint8_t type) {
    for (uint32_t i = 0; i < l->ttl_count; i++) {
        size_t head = strcspn(l->ttls[i].type, "*");
        if (strncmp(l->ttls[i].type, week_types[type], head) == 0) {
            return l->ttls[i].time_s;
        }
    }
    return 0;
}

static uint64_t bytes_waiting(const struct gateway *g) {
    uint64_t bytes = 0;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(g->state, (enum event_channel)c, &f);
        bytes += f.pending_bytes;
    }
    return bytes;
}

static uint64_t truth_waiting(const struct truth *t, enum event_priority p) {
    enum event_channel c = event_channel_of(p);
    uint64_t bytes = 0;
    for (grey_seq n = t->acked[c] + 1; n < t->next[c]; n++) {
        const struct truth_number *x = &t->numbers[c][n];
        bytes += x->fate == FATE_WAITS && x->priority == p ? x->bytes : 0;
    }
    return bytes;
}

/* --- what was lost ---------------------------------------------------------------------------------------------------------------------- */

/* Marks the rows that are in memory or on disk; what the truth holds to be waiting and has none was lost by this entry. */
static void find_lost(struct week *w, struct gateway *g, enum event_channel c, const struct log_entry *e, enum fate fate) {
    struct truth *t = &w->truth;
    grey_seq low = t->acked[c] + 1;
    uint8_t *here = calloc(t->next[c] - low + 1, 1);
    uint64_t lost_bytes = 0;
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        if (state_list_channel(list) != c) {
            continue;
        }
        for (int where = 0; where < 2; where++) {
            uint8_t key_bytes[9];
            struct bytes key, value;
            raft_index ref;
            struct table *rows = where == 0 ? g->rows : g->disk;
            state_outbox_key(list, low, key_bytes);
            while (table_next(rows, TABLE_OUTBOX, bytes_of(key_bytes, 9), &key, &value, &ref) && key.data[0] == list) {
                grey_seq seq = bytes_get_be64(key.data + 1);
                if (seq < t->next[c] && (where == 0 || !table_deleted(g->rows, TABLE_OUTBOX, key))) {
                    here[seq - low] = (uint8_t)(list + 1);
                }
                state_outbox_key(list, seq + 1, key_bytes);
            }
        }
    }
    for (grey_seq n = low; n < t->next[c]; n++) {
        struct truth_number *x = &t->numbers[c][n];
        if (x->fate != FATE_WAITS && here[n - low] != 0) {
            week_fail(w, "%s %" PRIu64 " was given up, and waits again", event_channel_name(c), n);
        }
        if (x->fate != FATE_WAITS || here[n - low] != 0) {
            continue;
        }
        x->fate = (uint8_t)fate;
        lost_bytes += x->bytes;
        w->counts[fate == FATE_EVICTED ? WEEK_EVICTED : WEEK_EXPIRED]++;
        if (x->priority == PRIORITY_CRITICAL) {
            week_fail(w, "critical event %" PRIu64 " was given up", n);
        }
        if (fate == FATE_EXPIRED) {
            uint32_t lives_s = x->lives_s != 0 ? x->lives_s : state_limits(g->state)->age_s;
            if (lives_s == 0 || e->time_ms - x->time_ms < (int64_t)lives_s * 1000) {
                week_fail(w, "%s %" PRIu64 " expired after %" PRId64 " s of %u", event_channel_name(c), n,
                          (e->time_ms - x->time_ms) / 1000, lives_s);
            }
        }
    }
    t->lost_bytes[c] += lost_bytes;
    free(here);
}

/* DECISIONS 15, with floors: what gives way is the lowest; what a floor guards gives way to critical events and to its like alone. */
static void judge_order(struct week *w, const struct gateway *g, const struct log_entry *e, const uint64_t waited[PRIORITY_COUNT],
                        const uint64_t lost[PRIORITY_COUNT]) {
    const struct queue_limits *l = state_limits(g->state);
    struct codec_reader r;
    struct event event;
    bool came[PRIORITY_COUNT] = {false};
    codec_reader_init(&r, blob_bytes(e->payload));
    for (uint64_t i = codec_array(&r, LIMIT_BATCH_EVENTS); i > 0; i--) {
        if (record_decode(&r, &event) == E_OK) {
            came[event.priority] = true;
        }
    }
    for (unsigned p = PRIORITY_HIGH; p < PRIORITY_COUNT; p++) {
        bool for_higher = false, for_guarded_against = came[PRIORITY_HIGH] && p >= PRIORITY_HIGH;
        for (unsigned q = 0; q <= p; q++) {
            for_higher = for_higher || came[q];
            for_guarded_against = for_guarded_against || (q > PRIORITY_CRITICAL && came[q]);
        }
        const char *name = event_priority_name((enum event_priority)p);
        if (lost[p] == 0) {
            continue;
        }
        if (!for_higher) {
            week_fail(w, "%s events gave way to lower ones", name);
        }
        if (!came[PRIORITY_CRITICAL] && !came[p] && w->truth.one_size &&
            waited[p] - lost[p] < l->bytes_max / 100 * l->floor_percent[p]) {
            week_fail(w, "%s events fell below their floor", name);
        }
        for (unsigned lower = p + 1; lower < PRIORITY_COUNT; lower++) {
            uint64_t left = waited[lower] - lost[lower], guard = l->bytes_max / 100 * l->floor_percent[lower] + 256u * 1024u;
            bool guarded = for_guarded_against && l->floor_percent[lower] > 0 && left <= guard;
            if (left > 0 && !guarded) {
                week_fail(w, "%s events were given up while %" PRIu64 " bytes of %s ones wait", name, left,
                          event_priority_name((enum event_priority)lower));
            }
        }
    }
}

static void judge_losses(struct week *w, struct gateway *g, const struct log_entry *e, const struct channel_facts *before,
                         const uint64_t waited[PRIORITY_COUNT]) {
    uint64_t lost[PRIORITY_COUNT] = {0};
    bool any = false;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts now;
        state_channel(g->state, (enum event_channel)c, &now);
        uint64_t events = now.gap_events - before[c].gap_events, true_before = w->truth.lost_bytes[c];
        bool expired = now.expired_events > before[c].expired_events;
        uint64_t counted = w->counts[WEEK_EVICTED] + w->counts[WEEK_EXPIRED];
        if (events == 0) {
            continue;
        }
        any = true;
        find_lost(w, g, (enum event_channel)c, e, expired ? FATE_EXPIRED : FATE_EVICTED);
        counted = w->counts[WEEK_EVICTED] + w->counts[WEEK_EXPIRED] - counted;
        if (counted != events) {
            week_fail(w, "the state says that %" PRIu64 " %s events were given up; %" PRIu64 " have no row any more", events,
                      event_channel_name((enum event_channel)c), counted);
        }
        uint64_t bytes = now.gap_bytes - before[c].gap_bytes, truly = w->truth.lost_bytes[c] - true_before;
        if (w->truth.one_size && bytes != truly) {
            week_fail(w, "given up: %" PRIu64 " bytes of %s events, counted as %" PRIu64, truly,
                      event_channel_name((enum event_channel)c), bytes);
        }
        if (expired && e->kind != ENTRY_EXPIRE) {
            week_fail(w, "an entry of kind %u made events expire", e->kind);
        }
    }
    for (unsigned p = 0; p < PRIORITY_COUNT && any; p++) {
        lost[p] = waited[p] - truth_waiting(&w->truth, (enum event_priority)p);
    }
    if (any && e->kind == ENTRY_EVENTS) {
        judge_order(w, g, e, waited, lost);
    }
}

/* --- what came in ----------------------------------------------------------------------------------------------------------------------- */

static void take_number(struct week *w, const struct gateway *g, const struct log_entry *e, const struct event *event,
                        struct bytes record, const struct answer_event *a) {
    struct truth *t = &w->truth;
    uint32_t serial = (uint32_t)strtoul((const char *)event->id.data, NULL, 10);
    enum event_channel c = a->channel;
    if (c != event_channel_of(event->priority)) {
        week_fail(w, "a %s event went to channel %s", event_priority_name(event->priority), event_channel_name(c));
        return;
    }
    if (a->duplicate != (t->of_serial[serial] != 0) ||
        (a->duplicate && (t->of_serial[serial] != a->seq || t->channel_of_serial[serial] != c))) {
        week_fail(w, "event %u has number %" PRIu64 ", and is answered %" PRIu64 "%s", serial, t->of_serial[serial], a->seq,
                  a->duplicate ? " as a repeat" : "");
        return;
    }
    if (a->duplicate) {
        return;
    }
    if (a->seq != t->next[c]) {
        week_fail(w, "%s number %" PRIu64 " is given, %" PRIu64 " was next", event_channel_name(c), a->seq, t->next[c]);
        return;
    }
    if (t->next[c] + 1 >= t->room[c]) {
        t->room[c] = t->room[c] == 0 ? 4096 : t->room[c] * 2;
        t->numbers[c] = realloc(t->numbers[c], t->room[c] * sizeof *t->numbers[c]);
    }
    uint8_t type = 0;
    while (!bytes_equal_str(event->type, week_types[type])) {
        type++;
    }
    t->of_serial[serial] = a->seq;
    t->channel_of_serial[serial] = (uint8_t)c;
    t->numbers[c][t->next[c]++] =
        (struct truth_number){.record_hash = week_hash(record),
                              .bytes = (uint32_t)record.size,
                              .serial = serial,
                              .priority = (uint8_t)event->priority,
                              .type = type,
                              .lives_s = event->priority == PRIORITY_CRITICAL ? 0 : lives_of(state_limits(g->state), type),
                              .time_ms = e->time_ms};
    w->counts[WEEK_EVENTS]++;
    w->counts[WEEK_CRITICAL] += event->priority == PRIORITY_CRITICAL;
}

static void batch_accepted(struct week *w, const struct gateway *g, const struct log_entry *e, struct bytes answer) {
    static struct answer_event answers[LIMIT_BATCH_EVENTS];
    struct codec_reader r;
    codec_reader_init(&r, blob_bytes(e->payload));
    uint64_t count = codec_array(&r, LIMIT_BATCH_EVENTS);
    if (answer_events(answer, answers, LIMIT_BATCH_EVENTS) != count) {
        week_fail(w, "a batch of %" PRIu64 " has another number of answers", count);
    }
    for (uint64_t i = 0; i < count && !w->failed; i++) {
        struct bytes before = r.rest;
        struct event event;
        (void)record_decode(&r, &event);
        take_number(w, g, e, &event, bytes_of(before.data, before.size - r.rest.size), &answers[i]);
    }
}

/* 507: to a batch with a critical event only when nothing else is left to give way. */
static void batch_refused(struct week *w, const struct gateway *g, const struct log_entry *e) {
    struct codec_reader r;
    bool only_critical = true;
    codec_reader_init(&r, blob_bytes(e->payload));
    size_t size = blob_bytes(e->payload).size;
    for (uint64_t i = codec_array(&r, LIMIT_BATCH_EVENTS); i > 0; i--) {
        struct event event;
        (void)record_decode(&r, &event);
        only_critical = only_critical && event.priority == PRIORITY_CRITICAL;
    }
    w->counts[WEEK_REFUSED]++;
    if (only_critical) {
        uint64_t critical = truth_waiting(&w->truth, PRIORITY_CRITICAL);
        w->counts[WEEK_REFUSED_CRITICAL]++;
        if (w->truth.one_size && critical + size <= state_limits(g->state)->bytes_max) {
            week_fail(w, "critical events are refused while others could give way");
        }
    }
}

static void acknowledged(struct week *w, struct gateway *g) {
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(g->state, (enum event_channel)c, &f);
        if (f.acked_seq < w->truth.acked[c] || f.acked_seq >= w->truth.next[c]) {
            week_fail(w, "%s is acknowledged up to %" PRIu64, event_channel_name((enum event_channel)c), f.acked_seq);
        }
        w->truth.acked[c] = f.acked_seq;
    }
}

static void judge_counts(struct week *w, struct gateway *g) {
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        struct truth *t = &w->truth;
        uint64_t count = 0, bytes = 0;
        state_channel(g->state, (enum event_channel)c, &f);
        for (grey_seq n = t->acked[c] + 1; n < t->next[c]; n++) {
            count += t->numbers[c][n].fate == FATE_WAITS;
            bytes += t->numbers[c][n].fate == FATE_WAITS ? t->numbers[c][n].bytes : 0;
        }
        if (count != f.pending_count || t->next[c] != f.next_seq || (t->one_size && f.pending_bytes != bytes)) {
            week_fail(w, "%s: %" PRIu64 " events of %" PRIu64 " bytes wait, the state counts %" PRIu64 " of %" PRIu64,
                      event_channel_name((enum event_channel)c), count, bytes, f.pending_count, f.pending_bytes);
        }
    }
}

void truth_applied(struct week *w, struct gateway *g, struct log_entry *e, const struct outcome *o, struct bytes answer,
                   const struct channel_facts before[CHANNEL_COUNT]) {
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        w->truth.next[c] = w->truth.next[c] == 0 ? 1 : w->truth.next[c];
    }
    uint64_t waited[PRIORITY_COUNT] = {0}, held = 0;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        held += before[c].pending_bytes;
    }
    bool lost = false;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts now;
        state_channel(g->state, (enum event_channel)c, &now);
        lost = lost || now.gap_events != before[c].gap_events;
    }
    for (unsigned p = 0; p < PRIORITY_COUNT && lost; p++) {
        waited[p] = truth_waiting(&w->truth, (enum event_priority)p);
    }
    if (lost) { /* of what waited before this entry */
        judge_losses(w, g, e, before, waited);
    }
    if (e->kind == ENTRY_EVENTS && o->err == E_OK) {
        batch_accepted(w, g, e, answer);
        uint64_t now = bytes_waiting(g);
        if (now > held && now > state_limits(g->state)->bytes_max) {
            week_fail(w, "%" PRIu64 " bytes wait, the bound is %" PRIu64, now, state_limits(g->state)->bytes_max);
        }
    } else if (e->kind == ENTRY_EVENTS && o->err == E_QUEUE_FULL) {
        batch_refused(w, g, e);
    } else if (e->kind == ENTRY_ACK && o->err == E_OK) {
        acknowledged(w, g);
    } else if (e->kind == ENTRY_LIMITS && o->err == E_OK) {
        w->counts[WEEK_LIMITS]++;
    } else if ((e->kind == ENTRY_UPDATE || e->kind == ENTRY_OBJECT) && (o->err == E_CONDITION || o->err == E_UPDATE_BUSY)) {
        /* said too late */
    } else if (o->err != E_OK && !(e->kind == ENTRY_LIMITS && o->err == E_BUSY)) { /* classes in use: it is asked for again */
        week_fail(w, "an entry of kind %u is refused: %s", e->kind, o->detail);
    }
    if (e->kind != ENTRY_EVENTS || week_draw(w, 8) == 0) {
        judge_counts(w, g);
    }
}

/* --- after a calm end ------------------------------------------------------------------------------------------------------------------ */

static void judge_empty(struct week *w) {
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        static const enum table_id tables[] = {TABLE_OUTBOX, TABLE_SEGMENT, TABLE_GAP};
        for (size_t k = 0; k < sizeof tables / sizeof tables[0]; k++) {
            struct bytes key, value;
            raft_index ref;
            if (table_next(w->gateways[i].disk, tables[k], bytes_of(NULL, 0), &key, &value, &ref)) {
                week_fail(w, "everything is acknowledged, and a row of table %d stays on the disk of gateway %u", (int)tables[k],
                          i);
            }
        }
    }
}

void truth_end(struct week *w) {
    struct truth *t = &w->truth;
    for (int c = 0; c < CHANNEL_COUNT && !w->failed; c++) {
        const struct core_channel *core = &w->core.channels[c];
        if (core->position + 1 != t->next[c]) {
            week_fail(w, "at the end the core has %s up to %" PRIu64 ", the site gave %" PRIu64,
                      event_channel_name((enum event_channel)c), core->position, t->next[c] - 1);
            return;
        }
        if (t->acked[c] != core->position) {
            week_fail(w, "at the end %s is acknowledged up to %" PRIu64 " of %" PRIu64, event_channel_name((enum event_channel)c),
                      t->acked[c], core->position);
        }
        for (grey_seq n = 1; n < t->next[c] && !w->failed; n++) {
            const struct core_number *x = &core->numbers[n];
            const struct truth_number *was = &t->numbers[c][n];
            if (x->kind == 1) {
                if (++w->core_seen[was->serial] > 1) {
                    week_fail(w, "event %u stands twice at the core", was->serial);
                }
            } else if (x->kind != 2) {
                week_fail(w, "%s %" PRIu64 " is neither event nor gap at the core", event_channel_name((enum event_channel)c), n);
            } else if (x->reason != SYNC_GAP_CORE_RESTORED && was->priority == PRIORITY_CRITICAL) {
                week_fail(w, "critical event %" PRIu64 " is a gap at the core", n);
            }
        }
    }
    if (!w->failed) {
        judge_empty(w);
    }
}
