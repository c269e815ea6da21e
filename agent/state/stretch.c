#include "agent/state/stretch.h"

#include "include/grey/must.h"

static_assert((int)GAP_EVICTED == (int)SYNC_GAP_EVICTED && (int)GAP_EXPIRED == (int)SYNC_GAP_EXPIRED, "one numbering of reasons");

void stretch_begin(struct stretch *c, grey_seq from) {
    must(from > 0);
    *c = (struct stretch){.from = from};
}

void stretch_free(struct stretch *c) {
    mem_free(c->rows);
    *c = (struct stretch){0};
}

/* A place for one more row, if need be that of the one that begins last.  NULL: it begins last itself. */
static struct stretch_row *place(struct stretch *c, grey_seq first) {
    if (c->count < c->room) {
        return &c->rows[c->count++];
    }
    struct stretch_row *last = &c->rows[0];
    for (uint32_t i = 1; i < c->count; i++) {
        last = c->rows[i].segment.first > last->segment.first ? &c->rows[i] : last;
    }
    return first < last->segment.first ? last : NULL;
}

enum grey_error stretch_add(struct stretch *c, struct bytes key, struct bytes value) {
    struct stretch_row row;
    if (!segment_gap_decode(key, value, &row.segment, &row.reason)) {
        return E_CORRUPT;
    }
    c->seen = row.segment.last;
    if (row.segment.last < c->from) {
        return E_OK;
    }
    if (c->count == c->room && c->room < STRETCH_ROWS_MAX) {
        uint32_t room = c->room == 0 ? 8 : c->room * 4 < STRETCH_ROWS_MAX ? c->room * 4 : STRETCH_ROWS_MAX;
        struct stretch_row *rows = mem_grow(c->rows, room, sizeof *rows);
        if (rows == NULL) {
            return E_NO_MEMORY;
        }
        c->rows = rows;
        c->room = room;
    }
    struct stretch_row *at = place(c, row.segment.first);
    if (at != NULL) {
        *at = row;
    }
    return E_OK;
}

bool stretch_enough(const struct stretch *c, grey_seq to) {
    return c->seen >= to + SEGMENT_SPAN || (c->count == STRETCH_ROWS_MAX && c->seen >= c->from + SEGMENT_SPAN);
}

static const struct stretch_row *row_of(const struct stretch *c, grey_seq seq) {
    for (uint32_t i = 0; i < c->count; i++) {
        if (segment_holds(&c->rows[i].segment, seq)) {
            return &c->rows[i];
        }
    }
    return NULL;
}

bool stretch_gap(const struct stretch *c, grey_seq first, grey_seq last, struct sync_gap *out) {
    must(first >= c->from && first <= last);
    const struct stretch_row *row = row_of(c, first);
    if (row == NULL) {
        return false;
    }
    *out = (struct sync_gap){.from_seq = first, .to_seq = first, .reason = (enum sync_gap_reason)row->reason};
    while (row != NULL && (enum sync_gap_reason)row->reason == out->reason) {
        grey_seq begin = out->to_seq, end = begin;
        while (end < last && segment_holds(&row->segment, end + 1)) {
            end++;
        }
        out->bytes += segment_share(&row->segment, begin, end);
        out->to_seq = end;
        row = end < last ? row_of(c, end + 1) : NULL;
        if (row != NULL && (enum sync_gap_reason)row->reason == out->reason) {
            out->to_seq = end + 1;
        }
    }
    return true;
}

void stretch_events(const struct stretch *c, const struct outbox_row *rows, uint32_t row_count, grey_seq known,
                    stretch_record *record, void *context, struct sync_item *items, struct sync_gap *gaps, struct sync_events *e) {
    must(row_count <= SYNC_ITEMS_MAX && known + 1 >= c->from);
    *e = (struct sync_events){.channel = e->channel, .from_seq = c->from, .to_seq = c->from - 1, .items = items, .gaps = gaps};
    grey_seq next = c->from;
    for (uint32_t i = 0; i <= row_count; i++) {
        grey_seq upto = i < row_count ? rows[i].seq : known + 1;
        while (next < upto && e->gap_count < SYNC_GAPS_MAX && stretch_gap(c, next, upto - 1, &gaps[e->gap_count])) {
            next = gaps[e->gap_count++].to_seq + 1;
        }
        struct bytes bytes;
        if (i == row_count || next != upto || !record(context, i, &bytes)) {
            break; /* what stays of a hole, if anything, was on the move and is looked for again */
        }
        items[e->item_count++] =
            (struct sync_item){.seq = next, .index = rows[i].index, .time_ms = rows[i].time_ms, .record = bytes};
        next++;
    }
    e->to_seq = next - 1;
}
