#include "agent/outbox.h"

#include <inttypes.h>
#include <string.h>

#include "federation/record.h"
#include "include/grey/must.h"

enum {
    ROW_KEY_BYTES = 9,
    ROW_BYTES = 22,          /* index u64, slot u16, bytes u32, time i64 */
    SEGMENT_HEAD_BYTES = 32, /* last u64, count u32, bytes u32, first time i64, last time i64; then the bit map unless it is full */
    SEGMENT_BITS_BYTES = OUTBOX_SEGMENT_SPAN / 8,
    CHANNEL_META_BYTES = 32,
    ANSWER_FIELDS = 4,
};

struct segment {
    grey_seq first, last;
    uint32_t count, bytes;
    int64_t first_ms, last_ms;
    uint8_t bits[SEGMENT_BITS_BYTES]; /* bit i: number first + i is in it */
};

/* --- Keys and rows ----------------------------------------------------------------------------------------------------------------- */

void state_outbox_key(enum event_priority p, grey_seq seq, uint8_t out[9]) {
    out[0] = (uint8_t)p;
    bytes_put_be64(out + 1, seq);
}

enum grey_error state_outbox_row(struct bytes key, struct bytes value, struct outbox_row *out) {
    *out = (struct outbox_row){0};
    if (key.size != ROW_KEY_BYTES || value.size != ROW_BYTES || key.data[0] >= PRIORITY_COUNT) {
        return E_CORRUPT;
    }
    out->priority = (enum event_priority)key.data[0];
    out->seq = bytes_get_be64(key.data + 1);
    out->index = bytes_get_be64(value.data);
    out->slot = bytes_get_be16(value.data + 8);
    out->bytes = bytes_get_be32(value.data + 10);
    out->time_ms = (int64_t)bytes_get_be64(value.data + 14);
    return E_OK;
}

static void row_put(struct builder *changes, const struct outbox_row *row) {
    uint8_t key[ROW_KEY_BYTES], value[ROW_BYTES];
    state_outbox_key(row->priority, row->seq, key);
    bytes_put_be64(value, row->index);
    bytes_put_be16(value + 8, (uint16_t)row->slot);
    bytes_put_be32(value + 10, row->bytes);
    bytes_put_be64(value + 14, (uint64_t)row->time_ms);
    table_change_put(changes, TABLE_OUTBOX, bytes_of(key, sizeof key), bytes_of(value, sizeof value), row->index);
}

static void delete_below(struct builder *changes, enum table_id id, enum event_priority p, grey_seq end) {
    uint8_t low[ROW_KEY_BYTES], high[ROW_KEY_BYTES];
    state_outbox_key(p, 0, low);
    state_outbox_key(p, end, high);
    table_change_delete_range(changes, id, bytes_of(low, sizeof low), bytes_of(high, sizeof high));
}

static struct bytes meta_key(uint8_t out[2], char what, unsigned number) {
    out[0] = (uint8_t)what;
    out[1] = (uint8_t)('0' + number);
    return bytes_of(out, 2);
}

static void channel_save(const struct outbox *b, enum event_channel c, struct builder *changes) {
    const struct outbox_channel *channel = &b->channels[c];
    uint8_t key[2], value[CHANNEL_META_BYTES];
    bytes_put_be64(value, channel->next_seq);
    bytes_put_be64(value + 8, channel->acked_seq);
    bytes_put_be64(value + 16, channel->gap_ranges);
    bytes_put_be64(value + 24, channel->gap_events);
    table_change_put(changes, TABLE_META, meta_key(key, 'c', c), bytes_of(value, sizeof value), 0);
}

static void evicted_save(const struct outbox *b, enum event_priority p, struct builder *changes) {
    uint8_t key[2], value[8];
    bytes_put_be64(value, b->lists[p].evicted_below);
    table_change_put(changes, TABLE_META, meta_key(key, 'e', p), bytes_of(value, sizeof value), 0);
}

/* --- Segments ---------------------------------------------------------------------------------------------------------------------- */

static bool segment_has(const struct segment *s, uint32_t i) {
    return (s->bits[i / 8] & 1u << i % 8) != 0;
}

static uint32_t segment_span(const struct segment *s) {
    return (uint32_t)(s->last - s->first + 1);
}

static bool segment_decode(struct bytes key, struct bytes value, struct segment *s) {
    memset(s, 0, sizeof *s);
    if (key.size != ROW_KEY_BYTES || value.size < SEGMENT_HEAD_BYTES) {
        return false;
    }
    s->first = bytes_get_be64(key.data + 1);
    s->last = bytes_get_be64(value.data);
    s->count = bytes_get_be32(value.data + 8);
    s->bytes = bytes_get_be32(value.data + 12);
    s->first_ms = (int64_t)bytes_get_be64(value.data + 16);
    s->last_ms = (int64_t)bytes_get_be64(value.data + 24);
    if (s->first == 0 || s->last < s->first || s->last - s->first >= OUTBOX_SEGMENT_SPAN || s->count == 0) {
        return false;
    }
    uint32_t span = segment_span(s), found = 0;
    struct bytes bits = bytes_of(value.data + SEGMENT_HEAD_BYTES, value.size - SEGMENT_HEAD_BYTES);
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

static void segment_put(struct builder *changes, enum event_priority p, const struct segment *s) {
    uint8_t key[ROW_KEY_BYTES], value[SEGMENT_HEAD_BYTES + SEGMENT_BITS_BYTES];
    state_outbox_key(p, s->first, key);
    bytes_put_be64(value, s->last);
    bytes_put_be32(value + 8, s->count);
    bytes_put_be32(value + 12, s->bytes);
    bytes_put_be64(value + 16, (uint64_t)s->first_ms);
    bytes_put_be64(value + 24, (uint64_t)s->last_ms);
    uint32_t span = segment_span(s), bits_bytes = s->count == span ? 0 : (span + 7) / 8;
    memcpy(value + SEGMENT_HEAD_BYTES, s->bits, bits_bytes);
    table_change_put(changes, TABLE_SEGMENT, bytes_of(key, sizeof key), bytes_of(value, SEGMENT_HEAD_BYTES + bits_bytes), 0);
}

/* The first segment of the list that begins at `from` or behind. */
static bool segment_next(struct table *t, enum event_priority p, grey_seq from, struct segment *s) {
    uint8_t low[ROW_KEY_BYTES];
    struct bytes key, value;
    raft_index ref;
    state_outbox_key(p, from, low);
    return table_next(t, TABLE_SEGMENT, bytes_of(low, sizeof low), &key, &value, &ref) && key.data[0] == p &&
           segment_decode(key, value, s);
}

static bool segment_takes(const struct outbox *b, const struct segment *s, grey_seq seq, uint32_t bytes) {
    return seq - s->first < b->segment_span && s->bytes + bytes <= b->segment_bytes;
}

static void segment_add(struct segment *s, grey_seq seq, uint32_t bytes, int64_t time_ms) {
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
static void segment_cut(struct segment *s, grey_seq seq) {
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
static uint32_t segment_runs(const struct segment *s) {
    uint32_t runs = 0;
    for (uint32_t i = 0; i < segment_span(s); i++) {
        runs += segment_has(s, i) && (i == 0 || !segment_has(s, i - 1));
    }
    return runs;
}

/* --- Loading ----------------------------------------------------------------------------------------------------------------------- */

static enum grey_error list_load(struct outbox *b, struct table *t, enum event_priority p, struct fault *f) {
    const struct outbox_channel *channel = &b->channels[event_channel_of(p)];
    struct outbox_list *list = &b->lists[p];
    struct bytes value, key;
    uint8_t name[2], low[ROW_KEY_BYTES];
    if (table_get(t, TABLE_META, meta_key(name, 'e', p), &value) == TABLE_FOUND) {
        if (value.size != 8 || bytes_get_be64(value.data) > channel->next_seq) {
            return fault_set(f, E_CORRUPT, "row \"e%u\" of the state is not one", (unsigned)p);
        }
        list->evicted_below = bytes_get_be64(value.data);
    }
    grey_seq above = channel->acked_seq < list->evicted_below ? list->evicted_below : channel->acked_seq + 1;
    raft_index ref;
    state_outbox_key(p, 0, low);
    while (table_next(t, TABLE_SEGMENT, bytes_of(low, sizeof low), &key, &value, &ref) && key.data[0] == p) {
        struct segment s;
        if (!segment_decode(key, value, &s) || s.first < above || s.last >= channel->next_seq) {
            return fault_set(f, E_CORRUPT, "a segment of the %s events of the state is not one", event_priority_name(p));
        }
        list->count += s.count;
        list->bytes += s.bytes;
        list->tail_first = s.first;
        above = s.last + 1;
        state_outbox_key(p, above, low);
    }
    return E_OK;
}

enum { ACK_FIELDS = 3, ACK_USAGE_FIELDS = 4, USAGE_FIELDS = 4, USAGE_BYTES_MAX = 64 };

static void put_ack(struct builder *out, unsigned fields, uint64_t incarnation, enum event_channel c, grey_seq acked_seq) {
    codec_put_array(out, fields);
    codec_put_uint(out, incarnation);
    codec_put_uint(out, c);
    codec_put_uint(out, acked_seq);
}

void payload_ack(struct builder *out, uint64_t incarnation, enum event_channel c, grey_seq acked_seq) {
    put_ack(out, ACK_FIELDS, incarnation, c, acked_seq);
}

static void put_usage(struct builder *out, const struct budget_used *used) {
    codec_put_array(out, USAGE_FIELDS);
    codec_put_uint(out, used->day);
    codec_put_uint(out, used->day_bytes);
    codec_put_uint(out, used->month);
    codec_put_uint(out, used->month_bytes);
}

static bool get_usage(struct codec_reader *r, struct budget_used *used) {
    uint64_t fields = codec_array(r, USAGE_FIELDS);
    used->day = (uint32_t)codec_uint(r, UINT32_MAX);
    used->day_bytes = codec_uint(r, UINT64_MAX);
    used->month = (uint32_t)codec_uint(r, UINT32_MAX);
    used->month_bytes = codec_uint(r, UINT64_MAX);
    return fields == USAGE_FIELDS && r->err == E_OK;
}

enum grey_error outbox_load(struct outbox *b, struct table *t, struct fault *f) {
    *b = (struct outbox){
        .bytes_max = OUTBOX_BYTES_MAX_DEFAULT, .segment_span = OUTBOX_SEGMENT_SPAN, .segment_bytes = OUTBOX_SEGMENT_BYTES};
    struct bytes value;
    uint8_t name[2];
    if (table_get(t, TABLE_META, bytes_str("limits"), &value) == TABLE_FOUND) {
        if (value.size != 8) {
            return fault_set(f, E_CORRUPT, "row \"limits\" of the state is not one");
        }
        b->bytes_max = bytes_get_be64(value.data);
    }
    if (table_get(t, TABLE_META, bytes_str("usage"), &value) == TABLE_FOUND) {
        struct codec_reader r;
        codec_reader_init(&r, value);
        if (!get_usage(&r, &b->usage) || codec_end(&r) != E_OK) {
            return fault_set(f, E_CORRUPT, "row \"usage\" of the state is not one");
        }
    }
    for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
        struct outbox_channel *channel = &b->channels[c];
        *channel = (struct outbox_channel){.next_seq = 1};
        if (table_get(t, TABLE_META, meta_key(name, 'c', c), &value) != TABLE_FOUND) {
            continue;
        }
        if (value.size == CHANNEL_META_BYTES) {
            channel->next_seq = bytes_get_be64(value.data);
            channel->acked_seq = bytes_get_be64(value.data + 8);
            channel->gap_ranges = bytes_get_be64(value.data + 16);
            channel->gap_events = bytes_get_be64(value.data + 24);
        }
        if (value.size != CHANNEL_META_BYTES || channel->acked_seq >= channel->next_seq) {
            return fault_set(f, E_CORRUPT, "row \"c%u\" of the state is not one", c);
        }
    }
    enum grey_error err = E_OK;
    for (unsigned p = 0; p < PRIORITY_COUNT && err == E_OK; p++) {
        err = list_load(b, t, (enum event_priority)p, f);
    }
    return err;
}

/* --- Room -------------------------------------------------------------------------------------------------------------------------- */

static uint64_t bytes_held(const struct outbox *b) {
    uint64_t bytes = 0;
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        bytes += b->lists[p].bytes;
    }
    return bytes;
}

struct eviction {
    grey_seq next[PRIORITY_COUNT]; /* where the list begins after what was evicted; 0: nothing was */
};

/* Takes the oldest segment out of the list; its rows are deleted later, in one range. */
static void evict_segment(struct outbox *b, struct table *t, enum event_priority p, struct eviction *gone) {
    struct outbox_list *list = &b->lists[p];
    struct outbox_channel *channel = &b->channels[event_channel_of(p)];
    struct segment s;
    must(p != PRIORITY_CRITICAL && segment_next(t, p, gone->next[p], &s));
    channel->gap_ranges += segment_runs(&s) - (s.first == list->evicted_below ? 1 : 0);
    channel->gap_events += s.count;
    list->evicted_below = s.last + 1;
    list->count -= s.count;
    list->bytes -= s.bytes;
    if (s.first == list->tail_first) {
        must(list->count == 0 && list->bytes == 0);
        list->tail_first = 0;
    }
    gone->next[p] = s.last + 1;
}

/* Makes room for an event: lower priorities leave first, the oldest segment first, down to the event's own and never critical ones.
 * held: bytes in all lists and of the events of this batch so far. */
static bool make_room(struct outbox *b, struct table *t, enum event_priority p, uint32_t bytes, uint64_t *held,
                      struct eviction *gone) {
    unsigned lowest_rank = PRIORITY_COUNT, stop = p > PRIORITY_HIGH ? p : PRIORITY_HIGH;
    while (*held + bytes > b->bytes_max) {
        while (lowest_rank > stop && b->lists[lowest_rank - 1].count == 0) {
            lowest_rank--;
        }
        if (lowest_rank <= stop) {
            return false;
        }
        enum event_priority victim = (enum event_priority)(lowest_rank - 1);
        uint64_t before = b->lists[victim].bytes;
        evict_segment(b, t, victim, gone);
        *held -= before - b->lists[victim].bytes;
    }
    *held += bytes;
    return true;
}

/* --- Batches of events ------------------------------------------------------------------------------------------------------------- */

struct arrival {
    struct dedup_id id;
    enum event_priority priority;
    uint32_t bytes;
    bool has_id, duplicate;
    grey_seq seq;
    raft_index index;
};

/* Ids of one batch: open addressing over the places in it. */
struct batch_ids {
    uint16_t places[2048]; /* place + 1; 0: empty */
};
static_assert(LIMIT_BATCH_EVENTS < 2048 * 3 / 4, "the ids of a batch have room");

/* The place of an earlier event with this id, or of this one. */
static uint32_t batch_place(struct batch_ids *ids, const struct arrival *arrivals, uint32_t place) {
    const struct dedup_id *id = &arrivals[place].id;
    for (uint32_t i = bytes_get_be16(id->hash) % 2048u;; i = (i + 1) % 2048u) {
        if (ids->places[i] == 0) {
            ids->places[i] = (uint16_t)(place + 1);
            return place;
        }
        uint32_t other = ids->places[i] - 1u;
        if (memcmp(arrivals[other].id.hash, id->hash, sizeof id->hash) == 0) {
            return other;
        }
    }
}

static enum grey_error id_reused(struct fault *f, uint32_t place, raft_index index) {
    return fault_set(f, E_ID_REUSED, "event %u has the id of another one, of entry %" PRIu64 ", with another body", place, index);
}

/* Reads the batch: sizes, ids and what of it was here before.  arrivals: room for count. */
static enum grey_error batch_read(const struct dedup *d, struct table *t, struct codec_reader *r, uint32_t count, raft_index index,
                                  int64_t now_ms, struct arrival *arrivals, struct batch_ids *ids, struct fault *f) {
    for (uint32_t i = 0; i < count; i++) {
        struct arrival *a = &arrivals[i];
        size_t before = r->rest.size;
        struct event event;
        enum grey_error err = record_decode(r, &event);
        if (err != E_OK) {
            return fault_set(f, err, "event %u of the batch is no record", i);
        }
        *a = (struct arrival){.priority = event.priority, .bytes = (uint32_t)(before - r->rest.size), .has_id = event.has_id};
        if (!a->has_id) {
            continue;
        }
        dedup_hash(event.source, event.id, a->id.hash);
        dedup_body(&event, a->id.body);
        uint32_t first = batch_place(ids, arrivals, i);
        if (first != i) {
            if (memcmp(arrivals[first].id.body, a->id.body, sizeof a->id.body) != 0) {
                return id_reused(f, i, index);
            }
            a->duplicate = true;
            a->seq = first; /* its numbers are not known yet: batch_number */
            a->index = 0;
            continue;
        }
        struct dedup_row row;
        err = dedup_find(d, t, a->id.hash, now_ms, &row);
        if (err == E_OK && memcmp(row.body, a->id.body, sizeof row.body) != 0) {
            return id_reused(f, i, row.index);
        }
        if (err == E_OK) {
            a->duplicate = true;
            a->seq = row.seq;
            a->index = row.index;
        } else if (err != E_NOT_FOUND) {
            return fault_set(f, err, "the row of event %u was not loaded, or is damaged", i);
        }
    }
    return codec_end(r) == E_OK ? E_OK : fault_set(f, r->err, "bytes follow the batch");
}

static enum grey_error batch_make_room(struct outbox *b, struct table *t, const struct arrival *arrivals, uint32_t count,
                                       struct builder *changes, struct fault *f) {
    struct eviction gone = {{0}};
    uint64_t held_before = bytes_held(b), held = held_before;
    for (uint32_t i = 0; i < count; i++) {
        const struct arrival *a = &arrivals[i];
        if (!a->duplicate && !make_room(b, t, a->priority, a->bytes, &held, &gone)) {
            return fault_set(f, E_QUEUE_FULL, "%" PRIu64 " of %" PRIu64 " bytes are taken; too little of it may give way to %s",
                             held_before, b->bytes_max, event_priority_name(a->priority));
        }
    }
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        if (gone.next[p] > 0) {
            delete_below(changes, TABLE_OUTBOX, (enum event_priority)p, gone.next[p]);
            delete_below(changes, TABLE_SEGMENT, (enum event_priority)p, gone.next[p]);
            evicted_save(b, (enum event_priority)p, changes);
            channel_save(b, event_channel_of((enum event_priority)p), changes);
        }
    }
    return E_OK;
}

/* Gives numbers and writes rows.  List after list, so that one segment is in hand at a time. */
static void batch_write(struct outbox *b, struct dedup *d, struct table *t, struct arrival *arrivals, uint32_t count,
                        raft_index index, int64_t now_ms, bool *id_added, struct builder *changes) {
    bool numbered[CHANNEL_COUNT] = {false};
    for (uint32_t i = 0; i < count; i++) {
        struct arrival *a = &arrivals[i];
        if (a->duplicate) {
            if (a->index == 0) {
                a->index = arrivals[a->seq].index;
                a->seq = arrivals[a->seq].seq;
            }
            continue;
        }
        enum event_channel c = event_channel_of(a->priority);
        a->seq = b->channels[c].next_seq++;
        a->index = index;
        numbered[c] = true;
        if (a->has_id) {
            struct dedup_row row = {.priority = a->priority, .seq = a->seq, .index = index, .time_ms = now_ms};
            memcpy(row.body, a->id.body, sizeof row.body);
            dedup_put(d, t, a->id.hash, &row, changes);
            *id_added = true;
        }
    }
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        struct outbox_list *list = &b->lists[p];
        struct segment s = {0};
        bool changed = false;
        for (uint32_t i = 0; i < count; i++) {
            const struct arrival *a = &arrivals[i];
            if (a->duplicate || a->priority != p) {
                continue;
            }
            if (!changed && list->tail_first > 0) {
                must(segment_next(t, a->priority, list->tail_first, &s));
            }
            if (s.count > 0 && !segment_takes(b, &s, a->seq, a->bytes)) {
                if (changed) {
                    segment_put(changes, a->priority, &s);
                }
                s.count = 0;
            }
            segment_add(&s, a->seq, a->bytes, now_ms);
            changed = true;
            list->tail_first = s.first;
            list->count++;
            list->bytes += a->bytes;
            row_put(changes,
                    &(struct outbox_row){
                        .seq = a->seq, .index = index, .slot = i, .bytes = a->bytes, .time_ms = now_ms, .priority = a->priority});
        }
        if (changed) {
            segment_put(changes, (enum event_priority)p, &s);
        }
    }
    for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
        if (numbered[c]) {
            channel_save(b, (enum event_channel)c, changes);
        }
    }
}

static uint32_t batch_open(struct codec_reader *r, struct bytes payload) {
    codec_reader_init(r, payload);
    return (uint32_t)codec_array(r, LIMIT_BATCH_EVENTS);
}

enum grey_error outbox_events(struct outbox *b, struct dedup *d, struct table *t, const struct entry *e, int64_t now_ms,
                              struct builder *changes, struct builder *answer, struct fault *f) {
    struct codec_reader r;
    uint32_t count = batch_open(&r, blob_bytes(e->payload));
    if (r.err != E_OK || count == 0) {
        return fault_set(f, r.err != E_OK ? r.err : E_BAD_MESSAGE, "the payload is no batch of 1 to %u events", LIMIT_BATCH_EVENTS);
    }
    struct arrival one, *arrivals = count == 1 ? &one : mem_new(count, sizeof *arrivals);
    if (arrivals == NULL) {
        return fault_set(f, E_NO_MEMORY, "applying a batch of %u events", count);
    }
    struct batch_ids ids;
    memset(&ids, 0, sizeof ids);
    bool dedup_changed = dedup_turn(d, now_ms, changes);
    enum grey_error err = batch_read(d, t, &r, count, e->index, now_ms, arrivals, &ids, f);
    if (err == E_OK) {
        err = batch_make_room(b, t, arrivals, count, changes, f);
    }
    if (err == E_OK) {
        batch_write(b, d, t, arrivals, count, e->index, now_ms, &dedup_changed, changes);
        if (dedup_changed) {
            dedup_save(d, changes);
        }
        if (answer != NULL) {
            codec_put_array(answer, count);
            for (uint32_t i = 0; i < count; i++) {
                codec_put_array(answer, ANSWER_FIELDS);
                codec_put_uint(answer, event_channel_of(arrivals[i].priority));
                codec_put_uint(answer, arrivals[i].seq);
                codec_put_uint(answer, arrivals[i].index);
                codec_put_bool(answer, arrivals[i].duplicate);
            }
        }
    }
    if (arrivals != &one) {
        mem_free(arrivals);
    }
    return err;
}

size_t answer_events(struct bytes answer, struct answer_event *out, size_t max) {
    struct codec_reader r;
    codec_reader_init(&r, answer);
    size_t count = (size_t)codec_array(&r, max < LIMIT_BATCH_EVENTS ? max : LIMIT_BATCH_EVENTS);
    for (size_t i = 0; i < count; i++) {
        uint64_t fields = codec_array(&r, ANSWER_FIELDS);
        out[i].channel = (enum event_channel)codec_uint(&r, CHANNEL_COUNT - 1);
        out[i].seq = codec_uint(&r, UINT64_MAX);
        out[i].index = codec_uint(&r, UINT64_MAX);
        out[i].duplicate = codec_bool(&r);
        if (r.err != E_OK || fields != ANSWER_FIELDS) {
            return 0;
        }
    }
    return codec_end(&r) == E_OK ? count : 0;
}

void outbox_wants(struct bytes payload, void (*want)(void *context, enum table_id id, struct bytes key), void *context) {
    struct codec_reader r;
    uint32_t count = batch_open(&r, payload);
    for (uint32_t i = 0; i < count; i++) {
        struct event event;
        if (record_decode(&r, &event) != E_OK) {
            return;
        }
        uint8_t hash[16], key[DEDUP_KEY_BYTES];
        if (event.has_id) {
            dedup_hash(event.source, event.id, hash);
            for (unsigned slot = 0; slot < DEDUP_SLOTS; slot++) {
                dedup_key(hash, slot, key);
                want(context, TABLE_DEDUP, bytes_of(key, sizeof key));
            }
        }
    }
}

/* --- Acknowledgements and limits --------------------------------------------------------------------------------------------------- */

void payload_ack_usage(struct builder *out, uint64_t incarnation, enum event_channel c, grey_seq acked_seq,
                       const struct budget_used *used) {
    put_ack(out, ACK_USAGE_FIELDS, incarnation, c, acked_seq);
    put_usage(out, used);
}

/* The leader's word replaces what was known: it began with that.  The row "usage" holds what the payload held. */
static void usage_set(struct outbox *b, const struct budget_used *used, struct builder *changes) {
    struct builder row;
    builder_init(&row, USAGE_BYTES_MAX);
    put_usage(&row, used);
    if (row.err == E_OK) {
        table_change_put(changes, TABLE_META, bytes_str("usage"), builder_bytes(&row), 0);
        b->usage = *used;
    } else {
        changes->err = row.err;
    }
    builder_free(&row);
}

static void list_ack(struct outbox *b, struct table *t, enum event_priority p, grey_seq acked_seq, struct builder *changes) {
    struct outbox_list *list = &b->lists[p];
    struct segment s;
    grey_seq from = 0;
    bool cut = false;
    while (list->count > 0 && segment_next(t, p, from, &s) && s.first <= acked_seq) {
        list->count -= s.count;
        list->bytes -= s.bytes;
        from = s.last + 1;
        if (s.last > acked_seq) {
            if (s.first == list->tail_first) {
                list->tail_first = 0;
            }
            segment_cut(&s, acked_seq);
            list->count += s.count;
            list->bytes += s.bytes;
            list->tail_first = list->tail_first == 0 ? s.first : list->tail_first;
            cut = true;
            break;
        }
    }
    if (from == 0) {
        return;
    }
    if (list->count == 0) {
        list->tail_first = 0;
    }
    delete_below(changes, TABLE_OUTBOX, p, acked_seq + 1);
    delete_below(changes, TABLE_SEGMENT, p, acked_seq + 1); /* of a segment that was cut, the key is below too */
    if (cut) {
        segment_put(changes, p, &s);
    }
}

enum grey_error outbox_ack(struct outbox *b, struct table *t, uint64_t incarnation, struct bytes payload, struct builder *changes,
                           struct fault *f) {
    struct codec_reader r;
    codec_reader_init(&r, payload);
    struct budget_used used = {0};
    uint64_t fields = codec_array(&r, ACK_USAGE_FIELDS), of = codec_uint(&r, UINT64_MAX);
    enum event_channel c = (enum event_channel)codec_uint(&r, CHANNEL_COUNT - 1);
    grey_seq acked_seq = codec_uint(&r, UINT64_MAX);
    bool good = fields == ACK_USAGE_FIELDS ? get_usage(&r, &used) : fields == ACK_FIELDS;
    enum grey_error err = codec_end(&r);
    if (err != E_OK || !good) {
        return fault_set(f, err != E_OK ? err : E_BAD_MESSAGE, "the payload is no acknowledgement");
    }
    struct outbox_channel *channel = &b->channels[c];
    if (of != incarnation) {
        return fault_set(f, E_WRONG_SITE, "the acknowledgement is for incarnation %" PRIu64 ", this is %" PRIu64, of, incarnation);
    }
    if (acked_seq >= channel->next_seq) {
        return fault_set(f, E_BAD_REQUEST, "%" PRIu64 " of channel %s is acknowledged, its last number is %" PRIu64, acked_seq,
                         event_channel_name(c), channel->next_seq - 1);
    }
    if (fields == ACK_USAGE_FIELDS) {
        usage_set(b, &used, changes);
    }
    if (acked_seq <= channel->acked_seq) {
        return E_OK;
    }
    channel->acked_seq = acked_seq;
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        if (event_channel_of((enum event_priority)p) == c) {
            list_ack(b, t, (enum event_priority)p, acked_seq, changes);
        }
    }
    channel_save(b, c, changes);
    return E_OK;
}

void payload_limits(struct builder *out, uint64_t queue_bytes_max) {
    codec_put_array(out, 1);
    codec_put_uint(out, queue_bytes_max);
}

enum grey_error outbox_limits(struct outbox *b, struct bytes payload, struct builder *changes, struct fault *f) {
    struct codec_reader r;
    codec_reader_init(&r, payload);
    uint64_t fields = codec_array(&r, 1), bytes_max = codec_uint(&r, UINT64_MAX / 4);
    enum grey_error err = codec_end(&r);
    if (err != E_OK || fields != 1 || bytes_max == 0) {
        return fault_set(f, err != E_OK ? err : E_BAD_MESSAGE, "the payload holds no limits");
    }
    b->bytes_max = bytes_max;
    uint8_t value[8];
    bytes_put_be64(value, bytes_max);
    table_change_put(changes, TABLE_META, bytes_str("limits"), bytes_of(value, sizeof value), 0);
    return E_OK;
}

/* --- Questions --------------------------------------------------------------------------------------------------------------------- */

void outbox_channel_facts(const struct outbox *b, struct table *t, enum event_channel c, struct channel_facts *out) {
    const struct outbox_channel *channel = &b->channels[c];
    *out = (struct channel_facts){.next_seq = channel->next_seq,
                                  .acked_seq = channel->acked_seq,
                                  .gap_ranges = channel->gap_ranges,
                                  .gap_events = channel->gap_events};
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        struct segment s;
        if (event_channel_of((enum event_priority)p) != c || b->lists[p].count == 0) {
            continue;
        }
        out->pending_count += b->lists[p].count;
        out->pending_bytes += b->lists[p].bytes;
        if (segment_next(t, (enum event_priority)p, 0, &s) && (out->oldest_time_ms == 0 || s.first_ms < out->oldest_time_ms)) {
            out->oldest_time_ms = s.first_ms;
        }
    }
}
