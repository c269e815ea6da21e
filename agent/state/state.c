/* An entry is applied to a copy of the facts in memory and to a list of row changes; when all went well the list is committed to the
 * table, which either works whole or not at all, and the copy becomes the facts.  A refusal throws both away.
 *
 * The state hash is SHA-256 over the last hash, the entry's index (u64) and the list of changes as table.h encodes it.  The row
 * "applied" (index, log time, hash) is written with each entry and is not part of it. */
#include "agent/state/state.h"

#include <inttypes.h>
#include <string.h>

#include "agent/state/arrivals.h"
#include "agent/state/dedup.h"
#include "agent/state/grants.h"
#include "agent/state/holding.h"
#include "agent/state/kv.h"
#include "agent/state/loss.h"
#include "agent/state/outbox.h"
#include "agent/state/updating.h"
#include "agent/state/verdicts.h"
#include "agent/work/work.h"
#include "include/grey/must.h"
#include "platform/codec.h"
#include "platform/digest.h"

enum { APPLIED_META_BYTES = 16 + DIGEST_BYTES, SITE_FIELDS = 4, REBUILT_SITE_FIELDS = 5 + CHANNEL_COUNT };

#define CHANGES_BYTES_MAX (4u * 1024 * 1024) /* a batch of 1,000 events takes 130 KiB */
#define CHANGES_BYTES_KEPT (16u * 1024)      /* what is kept for the next entry */

struct facts {
    struct kv kv;
    struct outbox outbox;
    struct dedup dedup;
    struct site_facts site;
    bool has_site;
};

struct state {
    struct table *table;
    raft_index applied;
    int64_t time_ms;
    uint8_t hash[DIGEST_BYTES];
    struct facts facts;
    struct work *work; /* changed in place: spoiled when what it did is not committed */
    struct builder changes;
};

/* --- Life -------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error site_decode(struct bytes in, struct site_facts *out) {
    struct codec_reader r;
    *out = (struct site_facts){0};
    codec_reader_init(&r, in);
    uint64_t fields = codec_array(&r, REBUILT_SITE_FIELDS);
    struct bytes site = codec_text(&r, LIMIT_NAME_BYTES);
    out->cluster_id = codec_uint(&r, UINT64_MAX);
    out->incarnation = codec_uint(&r, UINT64_MAX);
    out->feature_level = (uint32_t)codec_uint(&r, UINT32_MAX);
    if (fields == REBUILT_SITE_FIELDS) {
        out->former = codec_uint(&r, UINT64_MAX);
        for (int c = 0; c < CHANNEL_COUNT; c++) {
            out->former_next[c] = codec_uint(&r, INT64_MAX);
        }
    } else if (fields != SITE_FIELDS) {
        return E_BAD_MESSAGE;
    }
    enum grey_error err = codec_end(&r);
    if (err == E_OK && !grey_name_valid((const char *)site.data, site.size)) {
        err = E_BAD_MESSAGE;
    }
    if (err == E_OK) {
        memcpy(out->site.text, site.data, site.size);
    }
    return err;
}

void payload_site(struct builder *out, const struct site_facts *f) {
    codec_put_array(out, f->former != 0 ? REBUILT_SITE_FIELDS : SITE_FIELDS);
    codec_put_text(out, bytes_str(f->site.text));
    codec_put_uint(out, f->cluster_id);
    codec_put_uint(out, f->incarnation);
    codec_put_uint(out, f->feature_level);
    if (f->former != 0) {
        codec_put_uint(out, f->former);
        for (int c = 0; c < CHANNEL_COUNT; c++) {
            codec_put_uint(out, f->former_next[c]);
        }
    }
}

enum grey_error state_reload(struct state *s, struct fault *f) {
    struct bytes value;
    s->applied = 0;
    s->time_ms = 0;
    memset(s->hash, 0, sizeof s->hash);
    memset(&s->facts, 0, sizeof s->facts);
    if (table_get(s->table, TABLE_META, bytes_str("applied"), &value) == TABLE_FOUND) {
        if (value.size != APPLIED_META_BYTES) {
            return fault_set(f, E_CORRUPT, "row \"applied\" of the state is not one");
        }
        s->applied = bytes_get_be64(value.data);
        s->time_ms = (int64_t)bytes_get_be64(value.data + 8);
        memcpy(s->hash, value.data + 16, DIGEST_BYTES);
    }
    if (table_get(s->table, TABLE_META, bytes_str("site"), &value) == TABLE_FOUND) {
        if (site_decode(value, &s->facts.site) != E_OK) {
            return fault_set(f, E_CORRUPT, "row \"site\" of the state is not one");
        }
        s->facts.has_site = true;
    }
    enum grey_error err = kv_load(&s->facts.kv, s->table, f);
    if (err == E_OK) {
        err = dedup_load(&s->facts.dedup, s->table, f);
    }
    err = err == E_OK ? outbox_load(&s->facts.outbox, s->table, f) : err;
    return err == E_OK ? work_load(s->work, f) : err;
}

struct state *state_new(struct table *t, struct fault *f) {
    struct state *s = mem_new(1, sizeof *s);
    struct work *w = s == NULL ? NULL : work_new(t);
    if (w == NULL) {
        mem_free(s);
        (void)fault_set(f, E_NO_MEMORY, "making the state");
        return NULL;
    }
    s->table = t;
    s->work = w;
    builder_init(&s->changes, CHANGES_BYTES_MAX);
    if (state_reload(s, f) != E_OK) {
        state_free(s);
        return NULL;
    }
    return s;
}

void state_free(struct state *s) {
    if (s != NULL) {
        work_free(s->work);
        builder_free(&s->changes);
        mem_free(s);
    }
}

/* --- Applying ---------------------------------------------------------------------------------------------------------------------- */

void payload_clock(struct builder *out, int64_t time_ms) {
    codec_put_array(out, 1);
    codec_put_int(out, time_ms);
}

static enum grey_error clock_apply(struct state *s, const struct entry *e, struct fault *f) {
    struct codec_reader r;
    codec_reader_init(&r, blob_bytes(e->payload));
    uint64_t fields = codec_array(&r, 1);
    (void)codec_int(&r); /* the header's time is what counts: the core of Raft vouches for its course */
    enum grey_error err = codec_end(&r);
    if (err != E_OK || fields != 1) {
        return fault_set(f, err != E_OK ? err : E_BAD_MESSAGE, "the payload holds no time");
    }
    return work_clock(s->work, s->time_ms, e->time_ms, &s->changes, f);
}

static enum grey_error site_put(struct facts *facts, const struct site_facts *site, struct builder *changes) {
    struct builder row;
    builder_init(&row, 512);
    payload_site(&row, site);
    enum grey_error err = row.err;
    if (err == E_OK) {
        table_change_put(changes, TABLE_META, bytes_str("site"), builder_bytes(&row), 0);
        facts->site = *site;
        facts->has_site = true;
    }
    builder_free(&row);
    return err;
}

/* The first one makes the site; later ones may only raise the feature level (a rebuilt site is begun by state_begin_incarnation). */
static enum grey_error site_apply(struct facts *facts, const struct entry *e, struct builder *changes, struct fault *f) {
    struct site_facts site;
    enum grey_error err = site_decode(blob_bytes(e->payload), &site);
    if (err != E_OK) {
        return fault_set(f, err, "the payload says nothing of a site");
    }
    const struct site_facts *old = &facts->site;
    if (facts->has_site && (strcmp(site.site.text, old->site.text) != 0 || site.cluster_id != old->cluster_id ||
                            site.incarnation != old->incarnation || site.feature_level < old->feature_level)) {
        return fault_set(f, E_WRONG_SITE, "this is site %s, incarnation %" PRIu64 ", feature level %" PRIu32, old->site.text,
                         old->incarnation, old->feature_level);
    }
    if (facts->has_site) {
        site.former = old->former;
        memcpy(site.former_next, old->former_next, sizeof site.former_next);
    }
    return site_put(facts, &site, changes);
}

enum grey_error state_begin_incarnation(struct state *s, uint64_t cluster_id, uint64_t incarnation) {
    must(s->facts.has_site);
    struct facts next = s->facts;
    struct site_facts site = s->facts.site;
    site.former = site.incarnation;
    site.incarnation = incarnation;
    site.cluster_id = cluster_id;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(s, (enum event_channel)c, &f);
        site.former_next[c] = f.next_seq;
    }
    builder_reset(&s->changes);
    enum grey_error err = site_put(&next, &site, &s->changes);
    err = err == E_OK ? s->changes.err : err;
    err = err == E_OK ? table_commit(s->table, builder_bytes(&s->changes)) : err;
    if (err == E_OK) {
        s->facts = next;
    }
    return err;
}

static enum grey_error dispatch(struct state *s, struct facts *next, const struct entry *e, int64_t now_ms, struct builder *answer,
                                struct fault *f) {
    struct bytes payload = blob_bytes(e->payload);
    switch ((enum entry_kind)e->kind) {
    case ENTRY_NOOP:
    case ENTRY_CONFIG: /* federation/raft/member.h */
        return E_OK;
    case ENTRY_SITE:
        return site_apply(next, e, &s->changes, f);
    case ENTRY_CLOCK:
        return clock_apply(s, e, f);
    case ENTRY_KV:
        return kv_apply(&next->kv, s->table, e, &s->changes, answer, f);
    case ENTRY_EVENTS:
        return arrivals_apply(&next->outbox, &next->dedup, s->table, e, now_ms, &s->changes, answer, f);
    case ENTRY_ACK:
        return outbox_ack(&next->outbox, s->table, next->site.incarnation, payload, &s->changes, f);
    case ENTRY_LIMITS:
        return outbox_limits(&next->outbox, payload, &s->changes, f);
    case ENTRY_EXPIRE: {
        struct loss loss;
        if (payload.size > 0) {
            return fault_set(f, E_BAD_MESSAGE, "there is a payload where none belongs");
        }
        loss_begin(&loss, &next->outbox);
        loss_expire(&loss, &next->outbox, s->table, now_ms, &s->changes);
        loss_end(&loss, &next->outbox, &s->changes);
        return E_OK;
    }
    case ENTRY_TASK:
    case ENTRY_QUOTA:
    case ENTRY_NODE:
        return work_apply(s->work, e, now_ms, &s->changes, answer, f);
    case ENTRY_TOKEN:
        return grants_apply(s->table, e, now_ms, &s->changes, f);
    case ENTRY_VERDICT:
        return verdicts_apply(s->table, e, now_ms, &s->changes, f);
    case ENTRY_NOTE: /* for those who read the log */
        return E_OK;
    case ENTRY_OBJECT:
        return holding_apply(s->table, next->site.site.text, e, now_ms, &s->changes, f);
    case ENTRY_UPDATE:
        return updating_apply(s->table, e, now_ms, &s->changes, f);
    case ENTRY_KIND_COUNT:
        break;
    }
    return fault_set(f, E_UNKNOWN_ENTRY, "entry %" PRIu64 " is of kind %u", e->index, e->kind);
}

static void outcome_set(struct outcome *o, enum grey_error err, const struct fault *f) {
    *o = (struct outcome){.err = err};
    if (err != E_OK) {
        size_t size = strlen(f->text) < sizeof o->detail ? strlen(f->text) : sizeof o->detail - 1;
        memcpy(o->detail, f->text, size);
    }
}

static void answer_cut(struct builder *answer, size_t size) {
    if (answer != NULL && answer->size > size) {
        answer->size = size;
    }
}

/* Ends the list of changes with the row that says how far the state has come. */
static void position_add(struct state *s, const struct entry *e, int64_t now_ms, uint8_t hash[DIGEST_BYTES]) {
    uint8_t head[DIGEST_BYTES + 8], row[APPLIED_META_BYTES];
    memcpy(head, s->hash, DIGEST_BYTES);
    bytes_put_be64(head + DIGEST_BYTES, e->index);
    digest_sha256_two(bytes_of(head, sizeof head), builder_bytes(&s->changes), hash);
    bytes_put_be64(row, e->index);
    bytes_put_be64(row + 8, (uint64_t)now_ms);
    memcpy(row + 16, hash, DIGEST_BYTES);
    table_change_put(&s->changes, TABLE_META, bytes_str("applied"), bytes_of(row, sizeof row), 0);
}

enum grey_error state_apply(struct state *s, const struct entry *e, struct outcome *o, struct builder *answer) {
    must(e->index == s->applied + 1);
    struct fault f = {0};
    if (e->schema != ENTRY_SCHEMA) {
        enum grey_error err = fault_set(&f, E_UNKNOWN_ENTRY, "entry %" PRIu64 " is of schema %u", e->index, e->schema);
        outcome_set(o, err, &f);
        return err;
    }
    size_t answer_size = answer == NULL ? 0 : answer->size;
    int64_t now_ms = e->kind == ENTRY_CLOCK || e->time_ms > s->time_ms ? e->time_ms : s->time_ms;
    struct facts next = s->facts;
    builder_reset(&s->changes);
    enum grey_error err = dispatch(s, &next, e, now_ms, answer, &f);
    enum grey_error stop = err == E_UNKNOWN_ENTRY || err == E_NO_MEMORY || err == E_BUG || err == E_CORRUPT ? err : s->changes.err;
    uint8_t hash[DIGEST_BYTES];
    if (stop == E_OK) {
        if (err != E_OK) { /* refused: nothing but the position changes */
            next = s->facts;
            builder_reset(&s->changes);
            answer_cut(answer, answer_size);
        }
        position_add(s, e, now_ms, hash);
        stop = s->changes.err == E_OK ? table_commit(s->table, builder_bytes(&s->changes)) : s->changes.err;
    }
    must(stop != E_TOO_LARGE); /* the bounds of payloads bound the changes */
    if (s->changes.capacity > CHANGES_BYTES_KEPT) {
        builder_free(&s->changes);
    }
    if (stop != E_OK) {
        work_spoil(s->work);
        answer_cut(answer, answer_size);
        outcome_set(o, stop, &f);
        return stop;
    }
    s->facts = next;
    s->applied = e->index;
    s->time_ms = now_ms;
    memcpy(s->hash, hash, DIGEST_BYTES);
    outcome_set(o, err, &f);
    return E_OK;
}

void state_wants(const struct entry *e, void (*want)(void *context, enum table_id id, struct bytes key), void *context) {
    if (e->schema != ENTRY_SCHEMA) {
        return;
    }
    if (e->kind == ENTRY_KV) {
        kv_wants(blob_bytes(e->payload), want, context);
    } else if (e->kind == ENTRY_EVENTS) {
        arrivals_wants(blob_bytes(e->payload), want, context);
    }
}

/* --- Questions --------------------------------------------------------------------------------------------------------------------- */

raft_index state_applied(const struct state *s) {
    return s->applied;
}

int64_t state_time_ms(const struct state *s) {
    return s->time_ms;
}

void state_hash(const struct state *s, uint8_t out[DIGEST_BYTES]) {
    memcpy(out, s->hash, DIGEST_BYTES);
}

bool state_site(const struct state *s, struct site_facts *out) {
    *out = s->facts.site;
    return s->facts.has_site;
}

void state_usage(const struct state *s, struct budget_used *out) {
    *out = s->facts.outbox.usage;
}

const struct queue_limits *state_limits(const struct state *s) {
    return &s->facts.outbox.bounds.limits;
}

int64_t state_expiry_ms(const struct state *s) {
    return outbox_expiry_ms(&s->facts.outbox, s->table);
}

struct table *state_table(struct state *s) {
    return s->table;
}

struct scheduler *state_scheduler(struct state *s) {
    return work_scheduler(s->work);
}

enum table_found state_kv(struct state *s, struct bytes key, struct kv_row *out) {
    struct bytes value;
    *out = (struct kv_row){0};
    enum table_found found = table_get(s->table, TABLE_KV, key, &value);
    return found == TABLE_FOUND && state_kv_row(value, out) != E_OK ? TABLE_UNKNOWN : found;
}

void state_channel(const struct state *s, enum event_channel c, struct channel_facts *out) {
    must((unsigned)c < CHANNEL_COUNT);
    outbox_channel_facts(&s->facts.outbox, s->table, c, out);
}

enum event_channel state_list_channel(unsigned list) {
    return event_channel_of(outbox_priority_of(list));
}

bool state_list_waits(const struct state *s, unsigned list) {
    must(list < STATE_LISTS);
    return s->facts.outbox.lists[list].count > 0;
}

grey_seq state_lost_below(const struct state *s, unsigned list) {
    must(list < STATE_LISTS);
    return s->facts.outbox.lists[list].lost_below;
}

void state_dedup_wants(struct bytes source, struct bytes id, void (*want)(void *context, enum table_id id, struct bytes key),
                       void *context) {
    if (source.size > LIMIT_EVENT_FIELD_BYTES || id.size > LIMIT_EVENT_FIELD_BYTES) {
        return;
    }
    uint8_t hash[16], key[DEDUP_KEY_BYTES];
    dedup_hash(source, id, hash);
    for (unsigned slot = 0; slot < DEDUP_SLOTS; slot++) {
        dedup_key(hash, slot, key);
        want(context, TABLE_DEDUP, bytes_of(key, sizeof key));
    }
}

enum table_found state_dedup(struct state *s, struct bytes source, struct bytes id, struct answer_event *out) {
    *out = (struct answer_event){0};
    if (source.size > LIMIT_EVENT_FIELD_BYTES || id.size > LIMIT_EVENT_FIELD_BYTES) {
        return TABLE_ABSENT;
    }
    uint8_t hash[16];
    struct dedup_row row;
    dedup_hash(source, id, hash);
    struct dedup d = s->facts.dedup;
    d.turned = false; /* that was while its entry was applied */
    enum grey_error err = dedup_find(&d, s->table, hash, s->time_ms, &row);
    if (err == E_OK) {
        *out =
            (struct answer_event){.channel = event_channel_of(row.priority), .seq = row.seq, .index = row.index, .duplicate = true};
    }
    return err == E_OK ? TABLE_FOUND : err == E_NOT_FOUND ? TABLE_ABSENT : TABLE_UNKNOWN;
}

uint64_t state_dedup_count(const struct state *s) {
    uint64_t count = 0;
    for (unsigned slot = 0; slot < s->facts.dedup.live; slot++) {
        count += s->facts.dedup.slots[slot].count;
    }
    return count;
}
