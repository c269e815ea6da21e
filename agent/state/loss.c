#include "agent/state/loss.h"

#include "agent/state/segment.h"
#include "include/grey/must.h"

void loss_begin(struct loss *l, const struct outbox *b) {
    *l = (struct loss){0};
    for (unsigned i = 0; i < STATE_LISTS; i++) {
        l->held_bytes += b->lists[i].bytes;
    }
}

/* s: the first segment of the list; its rows are deleted by loss_end, in one range. */
static void give_up(struct loss *l, struct outbox *b, unsigned list, const struct segment *s, enum gap_reason reason,
                    struct builder *changes) {
    struct outbox_list *from = &b->lists[list];
    struct outbox_channel *channel = &b->channels[state_list_channel(list)];
    must(outbox_priority_of(list) != PRIORITY_CRITICAL && from->count >= s->count && from->bytes >= s->bytes);
    channel->gap_ranges += segment_runs(s) - (s->first == from->lost_below ? 1 : 0);
    channel->gap_events += s->count;
    channel->gap_bytes += s->bytes;
    if (reason == GAP_EXPIRED) {
        channel->expired_events += s->count;
        channel->expired_bytes += s->bytes;
    }
    from->lost_below = s->last + 1;
    from->count -= s->count;
    from->bytes -= s->bytes;
    if (s->first == from->tail_first) {
        must(from->count == 0 && from->bytes == 0);
        from->tail_first = 0;
    }
    l->next[list] = s->last + 1;
    l->held_bytes -= s->bytes;
    l->segments++;
    segment_gap_put(changes, state_list_channel(list), reason, s);
}

/* The oldest segment of all lists of a priority.  Returns the list; STATE_LISTS: there is none. */
static unsigned oldest(const struct loss *l, const struct outbox *b, struct table *t, enum event_priority p, struct segment *out) {
    unsigned found = STATE_LISTS;
    struct segment s;
    for (unsigned list = p; list < STATE_LISTS; list += PRIORITY_COUNT) {
        if (b->lists[list].count > 0 && segment_next(t, list, l->next[list], &s) &&
            (found == STATE_LISTS || s.first < out->first)) {
            found = list;
            *out = s;
        }
    }
    return found;
}

static uint64_t priority_bytes(const struct outbox *b, enum event_priority p) {
    uint64_t bytes = 0;
    for (unsigned list = p; list < STATE_LISTS; list += PRIORITY_COUNT) {
        bytes += b->lists[list].bytes;
    }
    return bytes;
}

/* Who gives way to an event of priority p, and what of it. */
static unsigned victim(const struct loss *l, const struct outbox *b, struct table *t, enum event_priority p, struct segment *out) {
    enum event_priority highest = p > PRIORITY_HIGH ? p : PRIORITY_HIGH;
    for (unsigned below = PRIORITY_COUNT; below > (unsigned)highest; below--) {
        enum event_priority of = (enum event_priority)(below - 1);
        unsigned list = oldest(l, b, t, of, out);
        bool guarded = p != PRIORITY_CRITICAL && of != p && list < STATE_LISTS &&
                       priority_bytes(b, of) - out->bytes < bounds_floor_bytes(&b->bounds, of);
        if (list < STATE_LISTS && !guarded) {
            return list;
        }
    }
    return STATE_LISTS;
}

bool loss_make_room(struct loss *l, struct outbox *b, struct table *t, enum event_priority p, uint32_t bytes,
                    struct builder *changes) {
    struct segment s;
    while (l->held_bytes + bytes > b->bounds.limits.bytes_max) {
        unsigned list = l->segments < LOSS_SEGMENTS_MAX ? victim(l, b, t, p, &s) : STATE_LISTS;
        if (list == STATE_LISTS) {
            return false;
        }
        give_up(l, b, list, &s, GAP_EVICTED, changes);
    }
    l->held_bytes += bytes;
    return true;
}

void loss_expire(struct loss *l, struct outbox *b, struct table *t, int64_t now_ms, struct builder *changes) {
    struct segment s;
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        int64_t lives_ms = outbox_time_to_live_ms(b, list);
        while (lives_ms > 0 && l->segments < LOSS_SEGMENTS_MAX && b->lists[list].count > 0 &&
               segment_next(t, list, l->next[list], &s) && s.last_ms <= now_ms - lives_ms) {
            give_up(l, b, list, &s, GAP_EXPIRED, changes);
        }
    }
}

void loss_end(const struct loss *l, const struct outbox *b, struct builder *changes) {
    bool touched[CHANNEL_COUNT] = {false};
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        if (l->next[list] > 0) {
            segment_delete_below(changes, TABLE_OUTBOX, list, l->next[list]);
            segment_delete_below(changes, TABLE_SEGMENT, list, l->next[list]);
            outbox_lost_save(b, list, changes);
            touched[state_list_channel(list)] = true;
        }
    }
    for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
        if (touched[c]) {
            outbox_channel_save(b, (enum event_channel)c, changes);
        }
    }
}
