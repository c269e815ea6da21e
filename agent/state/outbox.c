#include "agent/state/outbox.h"

#include <inttypes.h>
#include <string.h>

#include "agent/state/segment.h"
#include "platform/codec.h"

enum { CHANNEL_META_BYTES = 56 };

static_assert(STATE_LISTS == BOUNDS_CLASSES * PRIORITY_COUNT, "a list for each class and priority");
static_assert(STATE_LISTS <= 256, "a list is a byte in keys");

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
    bytes_put_be64(value + 32, channel->gap_bytes);
    bytes_put_be64(value + 40, channel->expired_events);
    bytes_put_be64(value + 48, channel->expired_bytes);
    table_change_put(changes, TABLE_META, meta_key(key, 'c', c), bytes_of(value, sizeof value), 0);
}

void outbox_lost_save(const struct outbox *b, unsigned list, struct builder *changes) {
    uint8_t key[2], value[8];
    bytes_put_be64(value, b->lists[list].lost_below);
    table_change_put(changes, TABLE_META, meta_key(key, 'e', list), bytes_of(value, sizeof value), 0);
}

/* --- Loading ----------------------------------------------------------------------------------------------------------------------- */

static enum grey_error list_load(struct outbox *b, struct table *t, unsigned list_id, struct fault *f) {
    const struct outbox_channel *channel = &b->channels[state_list_channel(list_id)];
    struct outbox_list *list = &b->lists[list_id];
    struct bytes value, key;
    uint8_t name[2], low[SEGMENT_KEY_BYTES];
    if (table_get(t, TABLE_META, meta_key(name, 'e', list_id), &value) == TABLE_FOUND) {
        if (value.size != 8 || bytes_get_be64(value.data) > channel->next_seq) {
            return fault_set(f, E_CORRUPT, "row \"e%c\" of the state is not one", (char)('0' + list_id));
        }
        list->lost_below = bytes_get_be64(value.data);
    }
    grey_seq above = channel->acked_seq < list->lost_below ? list->lost_below : channel->acked_seq + 1;
    raft_index ref;
    state_outbox_key(list_id, 0, low);
    while (table_next(t, TABLE_SEGMENT, bytes_of(low, sizeof low), &key, &value, &ref) && key.data[0] == list_id) {
        struct segment s;
        if (!segment_decode(key, value, &s) || s.first < above || s.last >= channel->next_seq) {
            return fault_set(f, E_CORRUPT, "a segment of the %s events of the state is not one",
                             event_priority_name(outbox_priority_of(list_id)));
        }
        list->count += s.count;
        list->bytes += s.bytes;
        list->tail_first = s.first;
        above = s.last + 1;
        state_outbox_key(list_id, above, low);
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
    *b = (struct outbox){.segment_span = SEGMENT_SPAN, .segment_bytes = SEGMENT_BYTES};
    enum grey_error err = bounds_load(&b->bounds, t, f);
    if (err != E_OK) {
        return err;
    }
    struct bytes value;
    uint8_t name[2];
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
            channel->gap_bytes = bytes_get_be64(value.data + 32);
            channel->expired_events = bytes_get_be64(value.data + 40);
            channel->expired_bytes = bytes_get_be64(value.data + 48);
        }
        if (value.size != CHANNEL_META_BYTES || channel->acked_seq >= channel->next_seq) {
            return fault_set(f, E_CORRUPT, "row \"c%u\" of the state is not one", c);
        }
    }
    for (unsigned list = 0; list < STATE_LISTS && err == E_OK; list++) {
        err = list_load(b, t, list, f);
    }
    return err;
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

static void list_ack(struct outbox *b, struct table *t, unsigned list_id, grey_seq acked_seq, struct builder *changes) {
    struct outbox_list *list = &b->lists[list_id];
    struct segment s;
    grey_seq from = 0;
    bool cut = false;
    while (list->count > 0 && segment_next(t, list_id, from, &s) && s.first <= acked_seq) {
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
    segment_delete_below(changes, TABLE_OUTBOX, list_id, acked_seq + 1);
    segment_delete_below(changes, TABLE_SEGMENT, list_id, acked_seq + 1); /* of a segment that was cut, the key is below too */
    if (cut) {
        segment_put(changes, list_id, &s);
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
    bool gaps = false;
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        if (state_list_channel(list) == c) {
            gaps = gaps || b->lists[list].lost_below > channel->acked_seq + 1;
            list_ack(b, t, list, acked_seq, changes);
        }
    }
    if (gaps) { /* those that end behind stay whole */
        uint8_t low[SEGMENT_KEY_BYTES], high[SEGMENT_KEY_BYTES];
        state_gap_key(c, 0, low);
        state_gap_key(c, acked_seq + 1, high);
        table_change_delete_range(changes, TABLE_GAP, bytes_of(low, sizeof low), bytes_of(high, sizeof high));
    }
    channel->acked_seq = acked_seq;
    outbox_channel_save(b, c, changes);
    return E_OK;
}

enum grey_error outbox_limits(struct outbox *b, struct bytes payload, struct builder *changes, struct fault *f) {
    struct queue_limits limits;
    uint32_t used = 0;
    enum grey_error err = bounds_read(payload, &limits);
    if (err != E_OK) {
        return fault_set(f, err, "the payload holds no limits");
    }
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        used |= b->lists[list].count > 0 ? 1u << list / PRIORITY_COUNT : 0;
    }
    if (bounds_adopt(&b->bounds, &limits, used) != E_OK) {
        return fault_set(f, E_BUSY, "events of too many former times to live still wait");
    }
    bounds_save(&b->bounds, changes);
    return E_OK;
}

/* --- Questions --------------------------------------------------------------------------------------------------------------------- */

int64_t outbox_time_to_live_ms(const struct outbox *b, unsigned list) {
    return outbox_priority_of(list) == PRIORITY_CRITICAL ? 0 : (int64_t)b->bounds.class_s[list / PRIORITY_COUNT] * 1000;
}

int64_t outbox_expiry_ms(const struct outbox *b, struct table *t) {
    int64_t first_ms = INT64_MAX;
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        int64_t lives_ms = outbox_time_to_live_ms(b, list);
        struct segment s;
        if (lives_ms > 0 && b->lists[list].count > 0 && segment_next(t, list, 0, &s) && s.last_ms + lives_ms < first_ms) {
            first_ms = s.last_ms + lives_ms;
        }
    }
    return first_ms;
}

void outbox_channel_facts(const struct outbox *b, struct table *t, enum event_channel c, struct channel_facts *out) {
    const struct outbox_channel *channel = &b->channels[c];
    *out = (struct channel_facts){.next_seq = channel->next_seq,
                                  .acked_seq = channel->acked_seq,
                                  .gap_ranges = channel->gap_ranges,
                                  .gap_events = channel->gap_events,
                                  .gap_bytes = channel->gap_bytes,
                                  .expired_events = channel->expired_events,
                                  .expired_bytes = channel->expired_bytes};
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        struct segment s;
        if (b->lists[list].count == 0 || state_list_channel(list) != c) {
            continue;
        }
        out->pending_count += b->lists[list].count;
        out->pending_bytes += b->lists[list].bytes;
        if (segment_next(t, list, 0, &s) && (out->oldest_time_ms == 0 || s.first_ms < out->oldest_time_ms)) {
            out->oldest_time_ms = s.first_ms;
        }
    }
}
