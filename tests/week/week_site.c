/* Three gateways apply one log.  Each has rows in memory and on disk; a kill keeps the disk, a wipe takes another one's. */
#include <string.h>

#include "federation/record.h"
#include "tests/week/week.h"

#define CLEAN_BYTES (64u * 1024u)

/* --- disks --------------------------------------------------------------------------------------------------------------------------- */

static void copy_row(struct table *to, enum table_id id, struct bytes key, struct bytes value, raft_index ref) {
    if (table_put(to, id, key, value, ref) != E_OK) {
        abort();
    }
}

static void each_row(struct table *t, enum table_id id, struct table *to, bool load) {
    uint8_t after[LIMIT_KEY_BYTES + 1];
    struct bytes from = bytes_of(NULL, 0), key, value;
    raft_index ref;
    while (table_next(t, id, from, &key, &value, &ref)) {
        if (load && table_load(to, id, key, true, value, ref) != E_OK) {
            abort();
        } else if (!load) {
            copy_row(to, id, key, value, ref);
        }
        memcpy(after, key.data, key.size);
        after[key.size] = 0;
        from = bytes_of(after, key.size + 1);
    }
}

static void start(struct week *w, struct gateway *g) {
    struct fault f = {0};
    g->rows = table_new(CLEAN_BYTES);
    each_row(g->disk, TABLE_META, g->rows, true);
    each_row(g->disk, TABLE_SEGMENT, g->rows, true);
    each_row(g->disk, TABLE_OBJECT, g->rows, true);
    each_row(g->disk, TABLE_CHUNK, g->rows, true);
    each_row(g->disk, TABLE_UPDATE, g->rows, true);
    g->state = state_new(g->rows, &f);
    g->up = g->state != NULL;
    g->flushing = g->disk_fails = false;
    g->next_flush_ms = w->now_ms + 1000;
    roll_started(w, (unsigned)(g - w->gateways));
    if (!g->up) {
        week_fail(w, "a gateway does not start from its disk: %s", f.text);
        abort();
    }
}

static void stop(struct gateway *g) {
    state_free(g->state);
    table_free(g->rows);
    g->state = NULL;
    g->rows = NULL;
    g->up = g->flushing = false;
}

static void write_flush(struct gateway *g, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct table_op *op = &g->flush.ops[i];
        enum grey_error err = op->kind == TABLE_OP_PUT      ? table_put(g->disk, op->id, op->key, op->value, op->ref)
                              : op->kind == TABLE_OP_DELETE ? table_delete(g->disk, op->id, op->key)
                                                            : table_delete_range(g->disk, op->id, op->key, op->high);
        if (err != E_OK) {
            abort();
        }
    }
}

/* Begins a flush, or ends the one under way: entries are applied in between. */
static void flush(struct week *w, struct gateway *g) {
    if (!g->flushing) {
        if (table_flush_begin(g->rows, &g->flush) != E_OK) {
            abort();
        }
        g->flushing = g->flush.count > 0;
    } else {
        w->counts[g->disk_fails ? WEEK_FLUSH_FAILURES : WEEK_FLUSHES]++;
        if (!g->disk_fails) {
            write_flush(g, g->flush.count);
        }
        table_flush_done(g->rows, !g->disk_fails);
        g->flushing = false;
    }
    g->next_flush_ms = w->now_ms + 500 + (int64_t)week_draw(w, w->calm ? 1000 : 120000);
}

static void fall(struct week *w, unsigned i, int64_t restart_ms) {
    struct gateway *g = &w->gateways[i];
    if (g->flushing && !g->disk_fails && week_chance(w, 50)) { /* the transaction was through already */
        write_flush(g, g->flush.count);
    }
    stop(g);
    g->restart_ms = restart_ms;
    if (w->leader == i) {
        w->leader = WEEK_GATEWAYS;
        w->elect_ms = w->now_ms + 1000 + (int64_t)week_draw(w, 5000);
    }
    for (unsigned s = 0; s < WEEK_SPEAKERS; s++) {
        if (w->speakers[s].active && w->speakers[s].gateway == i) {
            blob_unref(w->speakers[s].leaving);
            w->speakers[s] = (struct speaker){0};
        }
    }
}

void site_kill(struct week *w, unsigned i) {
    if (w->gateways[i].up) {
        w->counts[WEEK_CRASHES]++;
        week_note(w, "gateway %u is killed", i);
        fall(w, i, w->now_ms + 1000 + (int64_t)week_draw(w, week_chance(w, 10) ? 6 * WEEK_HOUR_MS : 60000));
    }
}

void site_stop(struct week *w, unsigned i, int64_t for_ms) {
    if (w->gateways[i].up) {
        fall(w, i, w->now_ms + for_ms);
    }
}

unsigned site_ups(const struct week *w) {
    unsigned count = 0;
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        count += w->gateways[i].up;
    }
    return count;
}

/* A disk is replaced: the state comes from another gateway, as a snapshot does. */
static void install(struct week *w, unsigned i) {
    struct gateway *g = &w->gateways[i];
    unsigned from = (i + 1 + (unsigned)week_draw(w, WEEK_GATEWAYS - 1)) % WEEK_GATEWAYS;
    if (!w->gateways[from].up) {
        return;
    }
    table_free(g->disk);
    g->disk = table_new(SIZE_MAX / 8);
    for (enum table_id id = 1; id <= TABLE_ID_MAX; id++) {
        each_row(w->gateways[from].disk, id, g->disk, false);
    }
    w->counts[WEEK_INSTALLS]++;
}

/* --- the log ---------------------------------------------------------------------------------------------------------------------------- */

struct gateway *site_leader(struct week *w) {
    return w->leader < WEEK_GATEWAYS ? &w->gateways[w->leader] : NULL;
}

bool site_propose(struct week *w, enum entry_kind kind, struct bytes payload) {
    if (w->leader == WEEK_GATEWAYS || site_ups(w) < 2) {
        return false;
    }
    if (w->log_count + 1 >= w->log_room) {
        w->log_room = w->log_room == 0 ? 1024 : w->log_room * 2;
        w->log = realloc(w->log, w->log_room * sizeof *w->log);
    }
    struct log_entry *e = &w->log[++w->log_count];
    int64_t before_ms = w->log_count > 1 ? w->log[w->log_count - 1].time_ms : 0;
    *e = (struct log_entry){.kind = (uint16_t)kind, .time_ms = w->now_ms > before_ms ? w->now_ms : before_ms};
    e->payload = payload.size > 0 ? blob_copy(payload) : NULL;
    return true;
}

static void load_row(void *context, enum table_id id, struct bytes key) {
    struct gateway *g = context;
    struct bytes value, found_key;
    raft_index ref;
    if (table_get(g->rows, id, key, &value) == TABLE_UNKNOWN) {
        bool found = table_next(g->disk, id, key, &found_key, &value, &ref) && bytes_equal(found_key, key);
        if (table_load(g->rows, id, key, found, value, ref) != E_OK) {
            abort();
        }
    }
}

static void apply(struct week *w, struct gateway *g, bool all) {
    struct builder answer;
    builder_init(&answer, 1 << 16);
    while (state_applied(g->state) < w->log_count && !w->failed && (all || week_draw(w, 8) > 0)) {
        raft_index index = state_applied(g->state) + 1;
        struct log_entry *l = &w->log[index];
        struct entry e = {
            .index = index, .kind = l->kind, .schema = ENTRY_SCHEMA, .time_ms = l->time_ms, .term = 1, .payload = l->payload};
        struct channel_facts before[CHANNEL_COUNT];
        struct outcome o;
        uint8_t hash[DIGEST_BYTES];
        for (int c = 0; c < CHANNEL_COUNT; c++) {
            state_channel(g->state, (enum event_channel)c, &before[c]);
        }
        builder_reset(&answer);
        state_wants(&e, load_row, g);
        enum grey_error err = state_apply(g->state, &e, &o, &answer);
        if (err != E_OK) {
            week_fail(w, "applying entry %" PRIu64 " stops a gateway: %s", index, o.detail);
            break;
        }
        state_hash(g->state, hash);
        if (!l->judged) {
            l->judged = true;
            memcpy(l->hash, hash, sizeof hash);
            truth_applied(w, g, l, &o, builder_bytes(&answer), before);
        } else if (memcmp(l->hash, hash, sizeof hash) != 0) {
            week_fail(w, "the state differs among gateways behind entry %" PRIu64 " of kind %u", index, l->kind);
        } else {
            w->counts[WEEK_REPLAYED]++;
        }
    }
    builder_free(&answer);
}

static void lead(struct week *w, unsigned i) {
    w->leader = i;
    w->epoch++;
    w->counts[WEEK_LEADERS]++;
    w->elect_ms = INT64_MAX;
    week_note(w, "gateway %u leads in epoch %" PRIu64, i, w->epoch);
    apply(w, &w->gateways[i], true); /* a leader has applied what was committed before its term */
    link_lead(w, i, w->epoch);
}

void site_hand_over(struct week *w, unsigned i) {
    if (w->gateways[i].up && site_ups(w) >= 2) {
        lead(w, i);
    }
}

void site_elect(struct week *w) {
    unsigned first = (unsigned)week_draw(w, WEEK_GATEWAYS), best = WEEK_GATEWAYS;
    for (unsigned k = 0; k < WEEK_GATEWAYS; k++) {
        unsigned i = (first + k) % WEEK_GATEWAYS;
        best = w->gateways[i].up && best == WEEK_GATEWAYS ? i : best;
    }
    if (site_ups(w) < 2 || best == WEEK_GATEWAYS) {
        w->leader = WEEK_GATEWAYS;
        w->elect_ms = w->now_ms + 3000;
        return;
    }
    lead(w, best);
}

/* --- backups of the site ------------------------------------------------------------------------------------------------------------------ */

static struct table *copy_disk(struct table *from) {
    struct table *to = table_new(SIZE_MAX / 8);
    for (enum table_id id = 1; id <= TABLE_ID_MAX; id++) {
        each_row(from, id, to, false);
    }
    return to;
}

static void forget_backup(struct site_backup *b) {
    table_free(b->disk);
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        free(b->numbers[c]);
    }
    *b = (struct site_backup){0};
}

static void back_up(struct week *w) {
    struct gateway *g = site_leader(w);
    struct site_backup *b = &w->site_backup;
    w->site_backup_ms = w->now_ms + WEEK_HOUR_MS + (int64_t)week_draw(w, 48 * WEEK_HOUR_MS);
    if (g == NULL || g->disk_fails || w->calm || w->core.incarnation != w->incarnation) {
        return; /* the core must have heard of this incarnation, or it cannot know the next one's former self */
    }
    apply(w, g, true);
    for (int k = 0; k < 4; k++) {
        flush(w, g);
    }
    if (g->flushing || table_dirty_bytes(g->rows) > 0 || w->failed) {
        return;
    }
    forget_backup(b);
    b->disk = copy_disk(g->disk);
    b->log_count = w->log_count;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        size_t size = w->truth.next[c] * sizeof *b->numbers[c];
        b->numbers[c] = malloc(size);
        if (w->truth.numbers[c] != NULL) {
            memcpy(b->numbers[c], w->truth.numbers[c], size);
        }
        b->next[c] = w->truth.next[c];
        b->acked[c] = w->truth.acked[c];
        b->lost_bytes[c] = w->truth.lost_bytes[c];
    }
}

/* What was given since the backup is lost, and its numbers are given anew; clients may send those events again. */
static void forget_since(struct week *w, const struct site_backup *b) {
    struct truth *t = &w->truth;
    for (size_t i = b->log_count + 1; i <= w->log_count; i++) {
        blob_unref(w->log[i].payload);
    }
    w->log_count = b->log_count;
    for (uint32_t serial = 1; serial <= t->serials; serial++) {
        if (t->of_serial[serial] >= b->next[t->channel_of_serial[serial]]) {
            t->of_serial[serial] = 0;
        }
    }
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        if (t->numbers[c] != NULL) {
            memcpy(t->numbers[c], b->numbers[c], b->next[c] * sizeof *t->numbers[c]);
        }
        t->next[c] = b->next[c];
        t->acked[c] = b->acked[c];
        t->lost_bytes[c] = b->lost_bytes[c];
    }
}

void site_rebuild(struct week *w) {
    const struct site_backup *b = &w->site_backup;
    if (b->disk == NULL || w->incarnation + 1 >= WEEK_INCARNATION + WEEK_REBUILDS_MAX) {
        return;
    }
    link_forget(w);
    forget_since(w, b);
    w->incarnation++;
    w->counts[WEEK_REBUILDS]++;
    week_note(w, "the site is rebuilt from a backup at entry %zu", b->log_count);
    for (unsigned i = 0; i < WEEK_GATEWAYS && !w->failed; i++) {
        struct gateway *g = &w->gateways[i];
        if (g->up) {
            stop(g);
        }
        table_free(g->disk);
        g->disk = copy_disk(b->disk);
        start(w, g);
        if (state_begin_incarnation(g->state, 5, w->incarnation) != E_OK) {
            abort();
        }
        for (int k = 0; k < 4; k++) {
            flush(w, g);
        }
    }
    w->leader = WEEK_GATEWAYS;
    w->elect_ms = w->now_ms + 5000;
}

/* --- clients ---------------------------------------------------------------------------------------------------------------------------- */

static void new_serial(struct week *w) {
    struct truth *t = &w->truth;
    if (t->serials + 1 >= t->serial_room) {
        t->serial_room = t->serial_room == 0 ? 1024 : t->serial_room * 2;
        t->of_serial = realloc(t->of_serial, t->serial_room * sizeof *t->of_serial);
        t->channel_of_serial = realloc(t->channel_of_serial, t->serial_room);
        w->core_seen = realloc(w->core_seen, t->serial_room * sizeof *w->core_seen);
    }
    t->serials++;
    t->of_serial[t->serials] = 0;
    t->channel_of_serial[t->serials] = 0;
    w->core_seen[t->serials] = 0;
}

static void add_event(struct week *w, struct builder *b) {
    static const uint8_t data[8192] = {1};
    char id[24];
    new_serial(w);
    unsigned type = (unsigned)week_draw(w, w->type_count), r = (unsigned)week_draw(w, 100);
    enum event_priority p = r < w->critical_percent ? PRIORITY_CRITICAL
                            : r < 20                ? PRIORITY_HIGH
                            : r < 60                ? PRIORITY_NORMAL
                                                    : PRIORITY_LOW;
    size_t size = w->truth.one_size   ? 80 + 40 * (size_t)p - strlen(week_types[type])
                  : week_chance(w, 3) ? week_draw(w, 8000)
                                      : week_draw(w, 400);
    (void)snprintf(id, sizeof id, "%08u", w->truth.serials);
    struct event e = {.id = bytes_str(id),
                      .source = bytes_str("pump"),
                      .type = bytes_str(week_types[type]),
                      .data = bytes_of(data, size),
                      .priority = p,
                      .has_id = true};
    record_encode(&e, b);
}

static void send_batch(struct week *w, struct bytes payload, uint32_t first, uint32_t count) {
    struct gateway *g = site_leader(w);
    if (g != NULL && g->disk_fails && !w->calm) {
        w->counts[WEEK_DISK_FULL]++; /* new writes are refused; acknowledgements are not */
        return;
    }
    bool lost = !w->calm && week_chance(w, 2);
    if (lost) {
        w->counts[WEEK_LOST_PROPOSALS]++;
    } else if (!site_propose(w, ENTRY_EVENTS, payload)) {
        return;
    }
    if (lost || week_chance(w, 10)) { /* no answer is heard: the client sends the same again */
        for (size_t i = 0; i < sizeof w->repeats / sizeof w->repeats[0]; i++) {
            if (w->repeats[i].payload == NULL) {
                w->repeats[i] = (struct batch_repeat){.payload = blob_copy(payload), .first_serial = first, .count = count};
                w->repeats[i].due_ms = w->now_ms + 1000 + (int64_t)week_draw(w, week_chance(w, 20) ? 24 * WEEK_HOUR_MS : 60000);
                break;
            }
        }
    }
}

static void load(struct week *w) {
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    uint32_t count = 1 + (uint32_t)week_draw(w, week_chance(w, 5) ? 60 : 6), first = w->truth.serials + 1;
    codec_put_array(&b, count);
    for (uint32_t i = 0; i < count; i++) {
        add_event(w, &b);
    }
    send_batch(w, builder_bytes(&b), first, count);
    builder_free(&b);
    w->next_load_ms = w->now_ms + 1 + (int64_t)week_draw(w, (uint64_t)w->load_pause_ms * 2);
}

static void repeat_due(struct week *w) {
    for (size_t i = 0; i < sizeof w->repeats / sizeof w->repeats[0]; i++) {
        struct batch_repeat r = w->repeats[i];
        if (r.payload != NULL && w->now_ms >= r.due_ms) {
            w->repeats[i].payload = NULL;
            w->counts[WEEK_REPEATS]++;
            send_batch(w, blob_bytes(r.payload), r.first_serial, r.count);
            blob_unref(r.payload);
        }
    }
}

/* --- time ------------------------------------------------------------------------------------------------------------------------------- */

/* The leader's duties, as agent/node/ageing.c has them. */
static void duty(struct week *w) {
    struct gateway *g = site_leader(w);
    w->next_duty_ms = w->now_ms + 10000;
    if (g == NULL || site_ups(w) < 2) {
        return;
    }
    apply(w, g, true);
    if (state_expiry_ms(g->state) <= w->now_ms) {
        (void)site_propose(w, ENTRY_EXPIRE, bytes_of(NULL, 0));
    }
    struct builder wanted, in_force;
    builder_init(&wanted, 4096);
    builder_init(&in_force, 4096);
    payload_limits(&wanted, &w->limits);
    payload_limits(&in_force, state_limits(g->state));
    if (!bytes_equal(builder_bytes(&wanted), builder_bytes(&in_force))) {
        (void)site_propose(w, ENTRY_LIMITS, builder_bytes(&wanted));
    }
    builder_free(&wanted);
    builder_free(&in_force);
}

int64_t site_due(const struct week *w) {
    int64_t due_ms = w->next_duty_ms < w->elect_ms ? w->next_duty_ms : w->elect_ms;
    due_ms = w->calm || due_ms < w->next_load_ms ? due_ms : w->next_load_ms;
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        const struct gateway *g = &w->gateways[i];
        int64_t own_ms = g->up ? g->next_flush_ms : g->restart_ms;
        due_ms = own_ms < due_ms ? own_ms : due_ms;
    }
    for (size_t i = 0; i < sizeof w->repeats / sizeof w->repeats[0]; i++) {
        due_ms = w->repeats[i].payload != NULL && w->repeats[i].due_ms < due_ms ? w->repeats[i].due_ms : due_ms;
    }
    return due_ms;
}

void site_act(struct week *w) {
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        struct gateway *g = &w->gateways[i];
        if (!g->up && w->now_ms >= g->restart_ms) {
            if (!w->calm && week_chance(w, 10)) {
                install(w, i);
            }
            start(w, g);
            week_note(w, "gateway %u starts at %" PRIu64 " of %zu", i, state_applied(g->state), w->log_count);
        }
    }
    if (w->now_ms >= w->elect_ms) {
        site_elect(w);
    }
    if (w->now_ms >= w->next_duty_ms) {
        duty(w);
    }
    if (w->now_ms >= w->site_backup_ms) {
        back_up(w);
    }
    repeat_due(w);
    if (w->now_ms >= w->next_load_ms && !w->calm) {
        load(w);
    }
    for (unsigned i = 0; i < WEEK_GATEWAYS && !w->failed; i++) {
        struct gateway *g = &w->gateways[i];
        if (g->up) {
            apply(w, g, i == w->leader);
            if (w->now_ms >= g->next_flush_ms) {
                flush(w, g);
            }
        }
    }
}

void site_settle(struct week *w) {
    for (unsigned i = 0; i < WEEK_GATEWAYS && !w->failed; i++) {
        struct gateway *g = &w->gateways[i];
        if (!g->up) {
            start(w, g);
        }
        g->disk_fails = false;
        apply(w, g, true);
        for (int k = 0; k < 4; k++) {
            flush(w, g);
        }
    }
}

void site_begin(struct week *w) {
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        w->gateways[i].disk = table_new(SIZE_MAX / 8);
        start(w, &w->gateways[i]);
    }
    w->leader = WEEK_GATEWAYS;
    roll_begin(w);
    site_elect(w);
    struct builder b;
    builder_init(&b, 4096);
    struct site_facts f = {
        .site = {"week"}, .cluster_id = 5, .incarnation = w->incarnation, .feature_level = FEATURE_LEVEL_UPDATES};
    payload_site(&b, &f);
    (void)site_propose(w, ENTRY_SITE, builder_bytes(&b));
    builder_reset(&b);
    payload_limits(&b, &w->limits);
    (void)site_propose(w, ENTRY_LIMITS, builder_bytes(&b));
    builder_free(&b);
    apply(w, site_leader(w), true);
}

void site_end(struct week *w) {
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        stop(&w->gateways[i]);
        table_free(w->gateways[i].disk);
    }
    for (size_t i = 1; i <= w->log_count; i++) {
        blob_unref(w->log[i].payload);
    }
    for (size_t i = 0; i < sizeof w->repeats / sizeof w->repeats[0]; i++) {
        blob_unref(w->repeats[i].payload);
    }
    forget_backup(&w->site_backup);
    free(w->log);
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        free(w->truth.numbers[c]);
    }
    free(w->truth.of_serial);
    free(w->truth.channel_of_serial);
    free(w->core_seen);
}
