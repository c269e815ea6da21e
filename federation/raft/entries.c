/* The window is a ring of entries with a parallel ring of notes.  Because every entry remembers the storage unit that holds it,
 * "what is durable" needs no list of writes under way: an entry that was truncated and written anew carries a later id, so a late
 * acknowledgement of the former write cannot count for it. */
#include "federation/raft/entries.h"

#include <string.h>

#include "include/grey/must.h"
#include "platform/digest.h"

#define ENTRIES_CAPACITY_MIN 64u
#define ENTRIES_CAPACITY_MAX (1u << 30)

void entry_seal(struct entry *e, const uint8_t prev_hash[DIGEST_BYTES]) {
    uint8_t header[ENTRY_HEADER_BYTES];
    struct bytes payload = blob_bytes(e->payload);
    uint32_t size = e->stripped_bytes > 0 ? e->stripped_bytes : (uint32_t)payload.size;
    if (e->stripped_bytes == 0) {
        digest_sha256(payload, e->digest);
    }
    bytes_put_be64(header, e->index);
    bytes_put_be64(header + 8, e->term);
    bytes_put_be64(header + 16, e->epoch);
    bytes_put_be64(header + 24, (uint64_t)e->time_ms);
    bytes_put_be16(header + 32, e->kind);
    bytes_put_be16(header + 34, e->schema);
    bytes_put_be32(header + 36, size);
    memcpy(header + 40, prev_hash, DIGEST_BYTES);
    memcpy(header + 72, e->digest, DIGEST_BYTES);
    digest_sha256(bytes_of(header, sizeof header), e->hash);
}

void entry_strip(struct entry *e) {
    size_t size = blob_bytes(e->payload).size;
    if (e->kind != ENTRY_CONFIG && size > 0) {
        e->stripped_bytes = (uint32_t)size;
        e->payload = NULL;
    }
}

bool entry_time_follows(const struct entry *e, int64_t previous_ms) {
    return e->time_ms >= (e->kind == ENTRY_CLOCK ? 0 : previous_ms) && e->time_ms <= RAFT_TIME_MS_MAX;
}

void entries_init(struct entries *log, const struct raft_point *base) {
    *log = (struct entries){.base = *base, .stored_index = base->index};
}

static uint32_t entries_slot(const struct entries *log, raft_index index) {
    return (log->start + (uint32_t)(index - log->base.index - 1)) & (log->capacity - 1);
}

static bool entries_holds(const struct entries *log, raft_index index) {
    return index > log->base.index && index - log->base.index <= log->count;
}

void entries_free(struct entries *log) {
    entries_truncate(log, log->base.index + 1);
    mem_free(log->ring);
    mem_free(log->notes);
    log->ring = NULL;
    log->notes = NULL;
    log->capacity = 0;
}

raft_index entries_last(const struct entries *log) {
    return log->base.index + log->count;
}

const struct entry *entries_at(const struct entries *log, raft_index index) {
    return entries_holds(log, index) ? &log->ring[entries_slot(log, index)] : NULL;
}

bool entries_point(const struct entries *log, raft_index index, struct raft_point *point) {
    if (index == log->base.index) {
        *point = log->base;
        return true;
    }
    const struct entry *e = entries_at(log, index);
    if (e == NULL) {
        return false;
    }
    *point = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
    memcpy(point->hash, e->hash, DIGEST_BYTES);
    return true;
}

raft_term entries_term(const struct entries *log, raft_index index) {
    if (index == log->base.index) {
        return log->base.term;
    }
    const struct entry *e = entries_at(log, index);
    must(e != NULL);
    return e->term;
}

uint64_t entries_store_id(const struct entries *log, raft_index index) {
    return entries_holds(log, index) ? log->notes[entries_slot(log, index)].store_id : 0;
}

static uint64_t entries_bytes_end(const struct entries *log, raft_index index) {
    return entries_holds(log, index) ? log->notes[entries_slot(log, index)].bytes_end : log->base_bytes_end;
}

uint64_t entries_bytes(const struct entries *log, raft_index above) {
    return entries_bytes_end(log, entries_last(log)) -
           (above > entries_last(log) ? entries_bytes_end(log, entries_last(log)) : entries_bytes_end(log, above));
}

/* Doubles the ring, its content moved to the front. */
static enum grey_error entries_grow(struct entries *log) {
    uint32_t capacity = log->capacity == 0 ? ENTRIES_CAPACITY_MIN : log->capacity * 2;
    if (log->capacity >= ENTRIES_CAPACITY_MAX) {
        return E_NO_MEMORY;
    }
    struct entry *ring = mem_new(capacity, sizeof *ring);
    struct entries_note *notes = mem_new(capacity, sizeof *notes);
    if (ring == NULL || notes == NULL) {
        mem_free(ring);
        mem_free(notes);
        return E_NO_MEMORY;
    }
    if (log->count > 0) {
        uint32_t head = log->capacity - log->start < log->count ? log->capacity - log->start : log->count;
        memcpy(ring, log->ring + log->start, head * sizeof *ring);
        memcpy(ring + head, log->ring, (log->count - head) * sizeof *ring);
        memcpy(notes, log->notes + log->start, head * sizeof *notes);
        memcpy(notes + head, log->notes, (log->count - head) * sizeof *notes);
    }
    mem_free(log->ring);
    mem_free(log->notes);
    log->ring = ring;
    log->notes = notes;
    log->capacity = capacity;
    log->start = 0;
    return E_OK;
}

enum grey_error entries_append(struct entries *log, const struct entry *e, uint64_t store_id) {
    raft_index last = entries_last(log);
    must(e->index == last + 1 && e->term >= entries_term(log, last) && store_id >= entries_store_id(log, last));
    if (log->count == log->capacity) {
        enum grey_error err = entries_grow(log);
        if (err != E_OK) {
            return err;
        }
    }
    uint64_t bytes_end = entries_bytes_end(log, last) + blob_bytes(e->payload).size;
    log->count++;
    uint32_t slot = entries_slot(log, e->index);
    log->ring[slot] = *e;
    blob_ref(log->ring[slot].payload);
    log->notes[slot] = (struct entries_note){.store_id = store_id, .bytes_end = bytes_end};
    return E_OK;
}

void entries_truncate(struct entries *log, raft_index from) {
    must(from > log->base.index);
    while (log->count > 0 && entries_last(log) >= from) {
        struct entry *e = &log->ring[entries_slot(log, entries_last(log))];
        blob_unref(e->payload);
        e->payload = NULL;
        log->count--;
    }
    if (log->stored_index >= from) {
        log->stored_index = from - 1;
    }
}

void entries_reset(struct entries *log, const struct raft_point *base) {
    entries_truncate(log, log->base.index + 1);
    log->base = *base;
    log->start = 0;
    log->stored_index = base->index;
}

void entries_stored(struct entries *log, uint64_t store_id) {
    while (log->stored_index < entries_last(log) && entries_store_id(log, log->stored_index + 1) <= store_id) {
        log->stored_index++;
    }
}

void entries_evict(struct entries *log, raft_index until, uint32_t entries_max, uint64_t bytes_max) {
    if (until > log->stored_index) {
        until = log->stored_index;
    }
    while (log->count > 0 && log->base.index < until &&
           (log->count > entries_max || entries_bytes(log, log->base.index) > bytes_max)) {
        struct entry *e = &log->ring[log->start];
        log->base_bytes_end = log->notes[log->start].bytes_end;
        log->base = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
        memcpy(log->base.hash, e->hash, DIGEST_BYTES);
        blob_unref(e->payload);
        e->payload = NULL;
        log->start = (log->start + 1) & (log->capacity - 1);
        log->count--;
    }
}

const struct entry *entries_span(const struct entries *log, raft_index index, uint64_t bytes_max, uint32_t *count) {
    *count = 0;
    if (!entries_holds(log, index)) {
        return NULL;
    }
    uint32_t slot = entries_slot(log, index);
    uint32_t run = (uint32_t)(entries_last(log) - index + 1);
    if (run > log->capacity - slot) {
        run = log->capacity - slot;
    }
    uint64_t before = entries_bytes_end(log, index - 1);
    uint32_t n = 1;
    while (n < run && log->notes[slot + n].bytes_end - before <= bytes_max) {
        n++;
    }
    *count = n;
    return &log->ring[slot];
}
