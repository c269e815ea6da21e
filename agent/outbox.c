#include "agent/outbox.h"

#include <inttypes.h>
#include <string.h>

#include "agent/segment.h"
#include "platform/codec.h"

enum { CHANNEL_META_BYTES = 32 };

/* --- Rows of META ------------------------------------------------------------------------------------------------------------------ */

static struct bytes meta_key(uint8_t out[2], char what, unsigned number) {
    out[0] = (uint8_t)what;
    out[1] = (uint8_t)('0' + number);
    return bytes_of(out, 2);
}

void outbox_channel_save(const struct outbox *b, enum event_channel c, struct builder *changes) {
    const struct outbox_channel *channel = &b->channels[c];
    uint8_t key[2], value[CHANNEL_META_BYTES];
    bytes_put_be64(value, channel->next_seq);
    bytes_put_be64(value + 8, channel->acked_seq);
    bytes_put_be64(value + 16, channel->gap_ranges);
    bytes_put_be64(value + 24, channel->gap_events);
    table_change_put(changes, TABLE_META, meta_key(key, 'c', c), bytes_of(value, sizeof value), 0);
}

void outbox_evicted_save(const struct outbox *b, enum event_priority p, struct builder *changes) {
    uint8_t key[2], value[8];
    bytes_put_be64(value, b->lists[p].evicted_below);
    table_change_put(changes, TABLE_META, meta_key(key, 'e', p), bytes_of(value, sizeof value), 0);
}

/* --- Loading ----------------------------------------------------------------------------------------------------------------------- */

static enum grey_error list_load(struct outbox *b, struct table *t, enum event_priority p, struct fault *f) {
    const struct outbox_channel *channel = &b->channels[event_channel_of(p)];
    struct outbox_list *list = &b->lists[p];
    struct bytes value, key;
    uint8_t name[2], low[SEGMENT_KEY_BYTES];
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

enum grey_error outbox_load(struct outbox *b, struct table *t, struct fault *f) {
    *b = (struct outbox){.bytes_max = OUTBOX_BYTES_MAX_DEFAULT, .segment_span = SEGMENT_SPAN, .segment_bytes = SEGMENT_BYTES};
    struct bytes value;
    uint8_t name[2];
    if (table_get(t, TABLE_META, bytes_str("limits"), &value) == TABLE_FOUND) {
        if (value.size != 8) {
            return fault_set(f, E_CORRUPT, "row \"limits\" of the state is not one");
        }
        b->bytes_max = bytes_get_be64(value.data);
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

/* --- Acknowledgements and limits --------------------------------------------------------------------------------------------------- */

void payload_ack(struct builder *out, uint64_t incarnation, enum event_channel c, grey_seq acked_seq) {
    codec_put_array(out, 3);
    codec_put_uint(out, incarnation);
    codec_put_uint(out, c);
    codec_put_uint(out, acked_seq);
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
    segment_delete_below(changes, TABLE_OUTBOX, p, acked_seq + 1);
    segment_delete_below(changes, TABLE_SEGMENT, p, acked_seq + 1); /* of a segment that was cut, the key is below too */
    if (cut) {
        segment_put(changes, p, &s);
    }
}

enum grey_error outbox_ack(struct outbox *b, struct table *t, uint64_t incarnation, struct bytes payload, struct builder *changes,
                           struct fault *f) {
    struct codec_reader r;
    codec_reader_init(&r, payload);
    uint64_t fields = codec_array(&r, 3), of = codec_uint(&r, UINT64_MAX);
    enum event_channel c = (enum event_channel)codec_uint(&r, CHANNEL_COUNT - 1);
    grey_seq acked_seq = codec_uint(&r, UINT64_MAX);
    enum grey_error err = codec_end(&r);
    if (err != E_OK || fields != 3) {
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
    if (acked_seq <= channel->acked_seq) {
        return E_OK;
    }
    channel->acked_seq = acked_seq;
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        if (event_channel_of((enum event_priority)p) == c) {
            list_ack(b, t, (enum event_priority)p, acked_seq, changes);
        }
    }
    outbox_channel_save(b, c, changes);
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
