#include "agent/loss.h"

#include "agent/segment.h"
#include "include/grey/must.h"

void loss_begin(struct loss *l, const struct outbox *b) {
    *l = (struct loss){0};
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        l->held_bytes += b->lists[p].bytes;
    }
}

/* Takes the oldest segment out of the list; its rows are deleted later, in one range. */
static void evict_segment(struct outbox *b, struct table *t, enum event_priority p, struct loss *l) {
    struct outbox_list *list = &b->lists[p];
    struct outbox_channel *channel = &b->channels[event_channel_of(p)];
    struct segment s;
    must(p != PRIORITY_CRITICAL && segment_next(t, p, l->next[p], &s));
    channel->gap_ranges += segment_runs(&s) - (s.first == list->evicted_below ? 1 : 0);
    channel->gap_events += s.count;
    list->evicted_below = s.last + 1;
    list->count -= s.count;
    list->bytes -= s.bytes;
    if (s.first == list->tail_first) {
        must(list->count == 0 && list->bytes == 0);
        list->tail_first = 0;
    }
    l->next[p] = s.last + 1;
}

bool loss_make_room(struct loss *l, struct outbox *b, struct table *t, enum event_priority p, uint32_t bytes) {
    unsigned lowest_rank = PRIORITY_COUNT, stop = p > PRIORITY_HIGH ? p : PRIORITY_HIGH;
    while (l->held_bytes + bytes > b->bytes_max) {
        while (lowest_rank > stop && b->lists[lowest_rank - 1].count == 0) {
            lowest_rank--;
        }
        if (lowest_rank <= stop) {
            return false;
        }
        enum event_priority victim = (enum event_priority)(lowest_rank - 1);
        uint64_t before = b->lists[victim].bytes;
        evict_segment(b, t, victim, l);
        l->held_bytes -= before - b->lists[victim].bytes;
    }
    l->held_bytes += bytes;
    return true;
}

void loss_end(const struct loss *l, const struct outbox *b, struct builder *changes) {
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        if (l->next[p] > 0) {
            segment_delete_below(changes, TABLE_OUTBOX, (enum event_priority)p, l->next[p]);
            segment_delete_below(changes, TABLE_SEGMENT, (enum event_priority)p, l->next[p]);
            outbox_evicted_save(b, (enum event_priority)p, changes);
            outbox_channel_save(b, event_channel_of((enum event_priority)p), changes);
        }
    }
}
