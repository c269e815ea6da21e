#include "agent/state/dedup.h"

#include <string.h>

#include "include/grey/must.h"
#include "platform/digest.h"

#define META_BYTES (2u + DEDUP_SLOTS * 16u)
#define ROW_BYTES 33u

static struct bytes meta_key(void) {
    return bytes_str("dedup");
}

static uint64_t elapsed_ms(int64_t from, int64_t to) {
    return to > from ? (uint64_t)to - (uint64_t)from : 0;
}

void dedup_hash(struct bytes source, struct bytes id, uint8_t out[16]) {
    uint8_t text[LIMIT_EVENT_FIELD_BYTES + 1];
    must(source.size <= LIMIT_EVENT_FIELD_BYTES);
    if (source.size > 0) {
        memcpy(text, source.data, source.size);
    }
    text[source.size] = 0; /* intake takes no NUL in a text, so each (source, id) has a form of its own */
    uint8_t hash[DIGEST_SHA256_BYTES];
    digest_sha256_two(bytes_of(text, source.size + 1), id, hash);
    memcpy(out, hash, 16);
}

void dedup_body(const struct event *e, uint8_t out[8]) {
    const struct bytes texts[] = {e->type, e->subject, e->time, e->content_type};
    uint8_t head[4 * (2 + LIMIT_EVENT_FIELD_BYTES) + 1], *p = head;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        must(texts[i].size <= LIMIT_EVENT_FIELD_BYTES);
        bytes_put_be16(p, (uint16_t)texts[i].size);
        p += 2;
        if (texts[i].size > 0) {
            memcpy(p, texts[i].data, texts[i].size);
            p += texts[i].size;
        }
    }
    *p++ = (uint8_t)e->priority;
    uint8_t hash[DIGEST_SHA256_BYTES];
    digest_sha256_two(bytes_of(head, (size_t)(p - head)), e->data, hash);
    memcpy(out, hash, 8);
}

void dedup_key(const uint8_t hash[16], unsigned slot, uint8_t out[DEDUP_KEY_BYTES]) {
    out[0] = (uint8_t)slot;
    memcpy(out + 1, hash, 16);
}

static bool row_decode(struct bytes value, struct dedup_row *out) {
    if (value.size != ROW_BYTES || value.data[0] >= PRIORITY_COUNT) {
        return false;
    }
    out->priority = (enum event_priority)value.data[0];
    out->seq = bytes_get_be64(value.data + 1);
    out->index = bytes_get_be64(value.data + 9);
    out->time_ms = (int64_t)bytes_get_be64(value.data + 17);
    memcpy(out->body, value.data + 25, 8);
    return true;
}

enum grey_error dedup_load(struct dedup *d, struct table *t, struct fault *f) {
    *d = (struct dedup){.ids_max = DEDUP_IDS};
    struct bytes value;
    if (table_get(t, TABLE_META, meta_key(), &value) != TABLE_FOUND) {
        return E_OK;
    }
    if (value.size != META_BYTES || value.data[0] >= DEDUP_SLOTS || value.data[1] > DEDUP_SLOTS) {
        return fault_set(f, E_CORRUPT, "row \"dedup\" of the state is not one");
    }
    d->current = value.data[0];
    d->live = value.data[1];
    for (size_t i = 0; i < DEDUP_SLOTS; i++) {
        d->slots[i].opened_ms = (int64_t)bytes_get_be64(value.data + 2 + i * 16);
        d->slots[i].count = bytes_get_be64(value.data + 10 + i * 16);
    }
    return E_OK;
}

void dedup_save(const struct dedup *d, struct builder *changes) {
    uint8_t value[META_BYTES] = {d->current, d->live};
    for (size_t i = 0; i < DEDUP_SLOTS; i++) {
        bytes_put_be64(value + 2 + i * 16, (uint64_t)d->slots[i].opened_ms);
        bytes_put_be64(value + 10 + i * 16, d->slots[i].count);
    }
    table_change_put(changes, TABLE_META, meta_key(), bytes_of(value, sizeof value), 0);
}

bool dedup_turn(struct dedup *d, int64_t now_ms, struct builder *changes) {
    d->turned = false;
    if (d->live == 0) {
        d->live = 1;
        d->slots[d->current].opened_ms = now_ms;
        return true;
    }
    unsigned previous = (d->current + DEDUP_SLOTS - 1) % DEDUP_SLOTS;
    uint64_t count = d->slots[d->current].count;
    if (elapsed_ms(d->slots[d->current].opened_ms, now_ms) < DEDUP_AGE_MS / 2 && count < d->ids_max / 2) {
        return false;
    }
    if (d->live > 1 && elapsed_ms(d->slots[previous].opened_ms, now_ms) < DEDUP_AGE_MS &&
        count + d->slots[previous].count < d->ids_max) {
        return false;
    }
    d->current = (uint8_t)((d->current + 1u) % DEDUP_SLOTS);
    d->slots[d->current].opened_ms = now_ms;
    d->slots[d->current].count = 0;
    d->turned = true;
    if (d->live < DEDUP_SLOTS) {
        d->live++;
        return true;
    }
    uint8_t low[1] = {d->current}, high[1] = {(uint8_t)(d->current + 1u)};
    table_change_delete_range(changes, TABLE_DEDUP, bytes_of(low, 1), bytes_of(high, 1));
    return true;
}

enum grey_error dedup_find(const struct dedup *d, struct table *t, const uint8_t hash[16], int64_t now_ms, struct dedup_row *out) {
    enum grey_error result = E_NOT_FOUND;
    for (unsigned back = 0; back < DEDUP_SLOTS; back++) { /* the youngest first; all are read, so that none stays as not read */
        unsigned slot = (d->current + DEDUP_SLOTS - back) % DEDUP_SLOTS;
        uint8_t key[DEDUP_KEY_BYTES];
        struct bytes value;
        dedup_key(hash, slot, key);
        enum table_found found = table_get(t, TABLE_DEDUP, bytes_of(key, sizeof key), &value);
        struct dedup_row row;
        if (found == TABLE_UNKNOWN) {
            return E_BUG;
        }
        if (found == TABLE_ABSENT || (back == 0 && d->turned)) {
            continue;
        }
        if (!row_decode(value, &row)) {
            return E_CORRUPT;
        }
        if (result == E_NOT_FOUND && elapsed_ms(row.time_ms, now_ms) < DEDUP_AGE_MS) {
            *out = row;
            result = E_OK;
        }
    }
    return result;
}

void dedup_put(struct dedup *d, struct table *t, const uint8_t hash[16], const struct dedup_row *row, struct builder *changes) {
    uint8_t key[DEDUP_KEY_BYTES], value[ROW_BYTES];
    struct bytes old;
    dedup_key(hash, d->current, key);
    if (d->turned || table_get(t, TABLE_DEDUP, bytes_of(key, sizeof key), &old) != TABLE_FOUND) {
        d->slots[d->current].count++;
    }
    value[0] = (uint8_t)row->priority;
    bytes_put_be64(value + 1, row->seq);
    bytes_put_be64(value + 9, row->index);
    bytes_put_be64(value + 17, (uint64_t)row->time_ms);
    memcpy(value + 25, row->body, 8);
    table_change_put(changes, TABLE_DEDUP, bytes_of(key, sizeof key), bytes_of(value, sizeof value), 0);
}
