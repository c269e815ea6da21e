#include "agent/state/segment.h"

#include <string.h>

#include "include/grey/must.h"

enum {
    ROW_BYTES = 22,          /* index u64, slot u16, bytes u32, time i64 */
    GAP_HEAD_BYTES = 17,     /* first u64, count u32, bytes u32, reason u8; then the bit map as of a segment */
    SEGMENT_HEAD_BYTES = 32, /* last u64, count u32, bytes u32, first time i64, last time i64; then the bit map unless it is full */
};

/* --- Keys and rows ----------------------------------------------------------------------------------------------------------------- */

void state_outbox_key(unsigned list, grey_seq seq, uint8_t out[9]) {
    out[0] = (uint8_t)list;
    bytes_put_be64(out + 1, seq);
}

enum grey_error state_outbox_row(struct bytes key, struct bytes value, struct outbox_row *out) {
    *out = (struct outbox_row){0};
    if (key.size != SEGMENT_KEY_BYTES || value.size != ROW_BYTES || key.data[0] >= STATE_LISTS) {
        return E_CORRUPT;
    }
    out->list = key.data[0];
    out->priority = (enum event_priority)(key.data[0] % PRIORITY_COUNT);
    out->seq = bytes_get_be64(key.data + 1);
    out->index = bytes_get_be64(value.data);
    out->slot = bytes_get_be16(value.data + 8);
    out->bytes = bytes_get_be32(value.data + 10);
    out->time_ms = (int64_t)bytes_get_be64(value.data + 14);
    return E_OK;
}

void segment_row_put(struct builder *changes, const struct outbox_row *row) {
    uint8_t key[SEGMENT_KEY_BYTES], value[ROW_BYTES];
    state_outbox_key(row->list, row->seq, key);
    bytes_put_be64(value, row->index);
    bytes_put_be16(value + 8, (uint16_t)row->slot);
    bytes_put_be32(value + 10, row->bytes);
    bytes_put_be64(value + 14, (uint64_t)row->time_ms);
    table_change_put(changes, TABLE_OUTBOX, bytes_of(key, sizeof key), bytes_of(value, sizeof value), row->index);
}

void segment_delete_below(struct builder *changes, enum table_id id, unsigned list, grey_seq end) {
    uint8_t low[SEGMENT_KEY_BYTES], high[SEGMENT_KEY_BYTES];
    state_outbox_key(list, 0, low);
    state_outbox_key(list, end, high);
    table_change_delete_range(changes, id, bytes_of(low, sizeof low), bytes_of(high, sizeof high));
}

/* --- Segments ---------------------------------------------------------------------------------------------------------------------- */

static bool segment_has(const struct segment *s, uint32_t i) {
    return (s->bits[i / 8] & 1u << i % 8) != 0;
}

static uint32_t segment_span(const struct segment *s) {
    return (uint32_t)(s->last - s->first + 1);
}

/* s->first, last and count are known and checked. */
static bool bits_decode(struct segment *s, struct bytes bits) {
    uint32_t span = segment_span(s), found = 0;
    if (s->count == span) {
        memset(s->bits, 0xff, span / 8);
        s->bits[span / 8 % SEGMENT_BITS_BYTES] |= (uint8_t)((1u << span % 8) - 1);
        return bits.size == 0;
    }
    if (bits.size != (span + 7) / 8) {
        return false;
    }
    memcpy(s->bits, bits.data, bits.size);
    for (uint32_t i = 0; i < bits.size * 8; i++) {
        found += segment_has(s, i);
        if (i >= span && segment_has(s, i)) {
            return false;
        }
    }
    return found == s->count && segment_has(s, 0) && segment_has(s, span - 1);
}

static bool head_sound(const struct segment *s) {
    return s->first > 0 && s->last >= s->first && s->last - s->first < SEGMENT_SPAN && s->count > 0;
}

static size_t bits_bytes(const struct segment *s) {
    return s->count == segment_span(s) ? 0 : (segment_span(s) + 7) / 8;
}

bool segment_decode(struct bytes key, struct bytes value, struct segment *s) {
    memset(s, 0, sizeof *s);
    if (key.size != SEGMENT_KEY_BYTES || value.size < SEGMENT_HEAD_BYTES) {
        return false;
    }
    s->first = bytes_get_be64(key.data + 1);
    s->last = bytes_get_be64(value.data);
    s->count = bytes_get_be32(value.data + 8);
    s->bytes = bytes_get_be32(value.data + 12);
    s->first_ms = (int64_t)bytes_get_be64(value.data + 16);
    s->last_ms = (int64_t)bytes_get_be64(value.data + 24);
    return head_sound(s) && bits_decode(s, bytes_of(value.data + SEGMENT_HEAD_BYTES, value.size - SEGMENT_HEAD_BYTES));
}

void segment_put(struct builder *changes, unsigned list, const struct segment *s) {
    uint8_t key[SEGMENT_KEY_BYTES], value[SEGMENT_HEAD_BYTES + SEGMENT_BITS_BYTES];
    state_outbox_key(list, s->first, key);
    bytes_put_be64(value, s->last);
    bytes_put_be32(value + 8, s->count);
    bytes_put_be32(value + 12, s->bytes);
    bytes_put_be64(value + 16, (uint64_t)s->first_ms);
    bytes_put_be64(value + 24, (uint64_t)s->last_ms);
    size_t bits = bits_bytes(s);
    memcpy(value + SEGMENT_HEAD_BYTES, s->bits, bits);
    table_change_put(changes, TABLE_SEGMENT, bytes_of(key, sizeof key), bytes_of(value, SEGMENT_HEAD_BYTES + bits), 0);
}

/* The first segment of the list that begins at `from` or behind. */
bool segment_next(struct table *t, unsigned list, grey_seq from, struct segment *s) {
    uint8_t low[SEGMENT_KEY_BYTES];
    struct bytes key, value;
    raft_index ref;
    state_outbox_key(list, from, low);
    return table_next(t, TABLE_SEGMENT, bytes_of(low, sizeof low), &key, &value, &ref) && key.data[0] == list &&
           segment_decode(key, value, s);
}

void segment_add(struct segment *s, grey_seq seq, uint32_t bytes, int64_t time_ms) {
    if (s->count == 0) {
        *s = (struct segment){.first = seq, .first_ms = time_ms};
    }
    uint32_t i = (uint32_t)(seq - s->first);
    s->bits[i / 8] |= (uint8_t)(1u << i % 8);
    s->last = seq;
    s->last_ms = time_ms;
    s->bytes += bytes;
    s->count++;
}

/* Takes all numbers up to `seq` (below the last) out; bytes and first time become estimates. */
void segment_cut(struct segment *s, grey_seq seq) {
    must(seq >= s->first && seq < s->last);
    uint32_t cut = (uint32_t)(seq - s->first) + 1, span = segment_span(s), gone = 0;
    while (!segment_has(s, cut)) {
        cut++; /* the last one is there */
    }
    struct segment rest = {.first = s->first + cut, .last = s->last, .last_ms = s->last_ms};
    for (uint32_t i = 0; i < cut; i++) {
        gone += segment_has(s, i);
    }
    for (uint32_t i = cut; i < span; i++) {
        if (segment_has(s, i)) {
            rest.bits[(i - cut) / 8] |= (uint8_t)(1u << (i - cut) % 8);
        }
    }
    rest.count = s->count - gone;
    rest.bytes = (uint32_t)((uint64_t)s->bytes * rest.count / s->count);
    uint64_t lasted_ms = s->last_ms > s->first_ms ? (uint64_t)s->last_ms - (uint64_t)s->first_ms : 0;
    rest.first_ms = s->first_ms + (int64_t)(lasted_ms / s->count * gone);
    *s = rest;
}

/* How many runs of consecutive numbers it holds. */
uint32_t segment_runs(const struct segment *s) {
    uint32_t runs = 0;
    for (uint32_t i = 0; i < segment_span(s); i++) {
        runs += segment_has(s, i) && (i == 0 || !segment_has(s, i - 1));
    }
    return runs;
}

/* --- Gaps -------------------------------------------------------------------------------------------------------------------------- */

void state_gap_key(enum event_channel c, grey_seq last, uint8_t out[9]) {
    out[0] = (uint8_t)c;
    bytes_put_be64(out + 1, last);
}

void segment_gap_put(struct builder *changes, enum event_channel c, enum gap_reason reason, const struct segment *s) {
    uint8_t key[SEGMENT_KEY_BYTES], value[GAP_HEAD_BYTES + SEGMENT_BITS_BYTES];
    size_t bits = bits_bytes(s);
    state_gap_key(c, s->last, key);
    bytes_put_be64(value, s->first);
    bytes_put_be32(value + 8, s->count);
    bytes_put_be32(value + 12, s->bytes);
    value[16] = (uint8_t)reason;
    memcpy(value + GAP_HEAD_BYTES, s->bits, bits);
    table_change_put(changes, TABLE_GAP, bytes_of(key, sizeof key), bytes_of(value, GAP_HEAD_BYTES + bits), 0);
}

bool segment_gap_decode(struct bytes key, struct bytes value, struct segment *s, enum gap_reason *reason) {
    memset(s, 0, sizeof *s);
    if (key.size != SEGMENT_KEY_BYTES || key.data[0] >= CHANNEL_COUNT || value.size < GAP_HEAD_BYTES) {
        return false;
    }
    s->first = bytes_get_be64(value.data);
    s->last = bytes_get_be64(key.data + 1);
    s->count = bytes_get_be32(value.data + 8);
    s->bytes = bytes_get_be32(value.data + 12);
    *reason = (enum gap_reason)value.data[16];
    return (*reason == GAP_EVICTED || *reason == GAP_EXPIRED) && head_sound(s) &&
           bits_decode(s, bytes_of(value.data + GAP_HEAD_BYTES, value.size - GAP_HEAD_BYTES));
}

bool segment_holds(const struct segment *s, grey_seq seq) {
    return seq >= s->first && seq <= s->last && segment_has(s, (uint32_t)(seq - s->first));
}

/* How many of its events have a number below this one. */
static uint32_t rank(const struct segment *s, grey_seq seq) {
    uint32_t end = seq <= s->first ? 0 : seq > s->last ? segment_span(s) : (uint32_t)(seq - s->first), count = 0;
    for (uint32_t i = 0; i < end; i++) {
        count += segment_has(s, i);
    }
    return count;
}

uint64_t segment_share(const struct segment *s, grey_seq from, grey_seq to) {
    must(from <= to);
    return (uint64_t)s->bytes * rank(s, to + 1) / s->count - (uint64_t)s->bytes * rank(s, from) / s->count;
}
