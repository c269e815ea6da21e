#include "agent/state/arrivals.h"

#include <inttypes.h>
#include <string.h>

#include "agent/state/loss.h"
#include "agent/state/segment.h"
#include "federation/record.h"
#include "include/grey/must.h"

enum { ANSWER_FIELDS = 4, AGE_PARTS = 8 };

struct arrival {
    struct dedup_id id;
    enum event_priority priority;
    uint32_t bytes;
    unsigned list;
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
static enum grey_error batch_read(const struct outbox *b, const struct dedup *d, struct table *t, struct codec_reader *r,
                                  uint32_t count, raft_index index, int64_t now_ms, struct arrival *arrivals, struct batch_ids *ids,
                                  struct fault *f) {
    for (uint32_t i = 0; i < count; i++) {
        struct arrival *a = &arrivals[i];
        size_t before = r->rest.size;
        struct event event;
        enum grey_error err = record_decode(r, &event);
        if (err != E_OK) {
            return fault_set(f, err, "event %u of the batch is no record", i);
        }
        *a = (struct arrival){.priority = event.priority,
                              .list = outbox_list_of(event.priority, bounds_class_of(&b->bounds, event.priority, event.type)),
                              .bytes = (uint32_t)(before - r->rest.size),
                              .has_id = event.has_id};
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
    struct loss loss;
    loss_begin(&loss, b);
    uint64_t held_before = loss.held_bytes;
    for (uint32_t i = 0; i < count; i++) {
        const struct arrival *a = &arrivals[i];
        /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Branch): the first `count` were filled as the batch was read */
        if (!a->duplicate && !loss_make_room(&loss, b, t, a->priority, a->bytes, changes)) {
            return fault_set(f, E_QUEUE_FULL, "%" PRIu64 " of %" PRIu64 " bytes are taken; too little of it may give way to %s",
                             held_before, b->bounds.limits.bytes_max, event_priority_name(a->priority));
        }
    }
    loss_end(&loss, b, changes);
    return E_OK;
}

/* Events that leave for their age leave by segments: one must not span much of their time. */
static bool takes(const struct outbox *b, const struct segment *s, const struct arrival *a, int64_t now_ms) {
    int64_t lives_ms = outbox_time_to_live_ms(b, a->list);
    return a->seq - s->first < b->segment_span && s->bytes + a->bytes <= b->segment_bytes &&
           (lives_ms == 0 || now_ms - s->first_ms <= lives_ms / AGE_PARTS);
}

/* Gives numbers and writes rows.  List after list, so that one segment is in hand at a time. */
static void batch_write(struct outbox *b, struct dedup *d, struct table *t, struct arrival *arrivals, uint32_t count,
                        raft_index index, int64_t now_ms, bool *id_added, struct builder *changes) {
    bool numbered[CHANNEL_COUNT] = {false};
    uint64_t lists = 0; /* bit by bit */
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
        lists |= 1ull << a->list;
        if (a->has_id) {
            struct dedup_row row = {.priority = a->priority, .seq = a->seq, .index = index, .time_ms = now_ms};
            memcpy(row.body, a->id.body, sizeof row.body);
            dedup_put(d, t, a->id.hash, &row, changes);
            *id_added = true;
        }
    }
    for (unsigned id = 0; id < STATE_LISTS; id++) {
        if ((lists & 1ull << id) == 0) {
            continue;
        }
        struct outbox_list *list = &b->lists[id];
        struct segment s = {0};
        bool changed = false;
        for (uint32_t i = 0; i < count; i++) {
            const struct arrival *a = &arrivals[i];
            if (a->duplicate || a->list != id) {
                continue;
            }
            if (!changed && list->tail_first > 0) {
                must(segment_next(t, id, list->tail_first, &s));
            }
            if (s.count > 0 && !takes(b, &s, a, now_ms)) {
                if (changed) {
                    segment_put(changes, id, &s);
                }
                s.count = 0;
            }
            segment_add(&s, a->seq, a->bytes, now_ms);
            changed = true;
            list->tail_first = s.first;
            list->count++;
            list->bytes += a->bytes;
            segment_row_put(changes, &(struct outbox_row){.list = id,
                                                          .seq = a->seq,
                                                          .index = index,
                                                          .slot = i,
                                                          .bytes = a->bytes,
                                                          .time_ms = now_ms,
                                                          .priority = a->priority});
        }
        if (changed) {
            segment_put(changes, id, &s);
        }
    }
    for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
        if (numbered[c]) {
            outbox_channel_save(b, (enum event_channel)c, changes);
        }
    }
}

static uint32_t batch_open(struct codec_reader *r, struct bytes payload) {
    codec_reader_init(r, payload);
    return (uint32_t)codec_array(r, LIMIT_BATCH_EVENTS);
}

enum grey_error arrivals_apply(struct outbox *b, struct dedup *d, struct table *t, const struct entry *e, int64_t now_ms,
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
    enum grey_error err = batch_read(b, d, t, &r, count, e->index, now_ms, arrivals, &ids, f);
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

void arrivals_wants(struct bytes payload, void (*want)(void *context, enum table_id id, struct bytes key), void *context) {
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
