#include "core/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "federation/channel.h"
#include "federation/record.h"
#include "include/grey/must.h"
#include "platform/db.h"
#include "platform/now.h"

#define FORMAT 1
#define PAGE_BYTES 4096u
#define CACHE_BYTES (8u * 1024u * 1024u)
#define CHECKPOINT_BYTES (16u * 1024u * 1024u)
#define ANSWER_BYTES (4u * 1024u * 1024u) /* a page of events ends when it is larger */

static const char schema[] =
    "CREATE TABLE meta(format INTEGER NOT NULL);"
    "CREATE TABLE site(no INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, first_ms INTEGER, contact_ms INTEGER, node TEXT);"
    "CREATE TABLE incarnation(no INTEGER PRIMARY KEY, site INTEGER NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    " first_ms INTEGER, UNIQUE(site, number));"
    "CREATE TABLE position(inc INTEGER, channel INTEGER, seq INTEGER NOT NULL, known INTEGER NOT NULL, PRIMARY KEY(inc, channel)) "
    "WITHOUT ROWID;"
    "CREATE TABLE event(inc INTEGER, channel INTEGER, seq INTEGER, idx INTEGER, time_ms INTEGER, received_ms INTEGER, record BLOB "
    "NOT NULL,"
    " PRIMARY KEY(inc, channel, seq)) WITHOUT ROWID;"
    "CREATE TABLE gap(inc INTEGER, channel INTEGER, from_seq INTEGER, to_seq INTEGER, reason INTEGER, received_ms INTEGER,"
    " PRIMARY KEY(inc, channel, from_seq)) WITHOUT ROWID;"
    "INSERT INTO meta VALUES(1);";
static const char schema_added[] = /* what a core.db of format 1 may lack */
    "CREATE TABLE IF NOT EXISTS node(site INTEGER, name TEXT, first_ms INTEGER, contact_ms INTEGER,"
    " PRIMARY KEY(site, name)) WITHOUT ROWID;";

enum statement {
    SITE_FIND,
    SITE_ADD,
    SITE_TOUCH,
    INC_FIND,
    INC_ADD,
    INC_EPOCH,
    INC_LAST,
    POSITION_GET,
    POSITION_SET,
    POSITION_KNOWN,
    EVENT_ADD,
    GAP_ADD,
    SITES,
    POSITIONS,
    EVENTS,
    GAPS,
    GAP_SUM,
    INCS,
    NODE_TOUCH,
    NODES,
    STATEMENT_COUNT
};

#define EVENTS_SQL                                                                                                                 \
    "SELECT inc, channel, seq, idx, time_ms, received_ms, record FROM event WHERE inc = ?1 AND channel = ?2 AND seq > ?3"          \
    " ORDER BY seq LIMIT ?4"

#define GAPS_SQL                                                                                                                   \
    "SELECT inc, channel, from_seq, to_seq, reason, received_ms, bytes FROM gap WHERE inc = ?1 AND channel = ?2 AND from_seq > ?3" \
    " ORDER BY from_seq LIMIT ?4"

#define SITES_SQL                                                                                                                  \
    "SELECT no, id, first_ms, contact_ms, node FROM site WHERE (length(?1) = 0 OR id = ?1) AND id > ?2"                            \
    " ORDER BY id LIMIT ?3"

#define GAP_SUM_SQL                                                                                                                \
    "SELECT count(*), coalesce(sum(to_seq - from_seq + 1), 0) FROM gap"                                                            \
    " WHERE inc IN (SELECT no FROM incarnation WHERE site = ?1)"

static const char *const sql[STATEMENT_COUNT] = {
    [SITE_FIND] = "SELECT no FROM site WHERE id = ?1",
    [SITE_ADD] = "INSERT INTO site(id, first_ms, contact_ms) VALUES(?1, ?2, ?2)",
    [SITE_TOUCH] = "UPDATE site SET contact_ms = ?2, node = coalesce(?3, node) WHERE no = ?1",
    [INC_FIND] = "SELECT no, epoch FROM incarnation WHERE site = ?1 AND number = ?2",
    [INC_ADD] = "INSERT INTO incarnation(site, number, epoch, first_ms) VALUES(?1, ?2, ?3, ?4)",
    [INC_EPOCH] = "UPDATE incarnation SET epoch = ?2 WHERE no = ?1",
    [INC_LAST] = "SELECT no, number, epoch FROM incarnation WHERE site = ?1 ORDER BY no DESC LIMIT 1",
    [POSITION_GET] = "SELECT seq, known FROM position WHERE inc = ?1 AND channel = ?2",
    [POSITION_SET] = "INSERT INTO position VALUES(?1, ?2, ?3, ?3) ON CONFLICT DO UPDATE SET seq = ?3, known = max(known, ?3)",
    [POSITION_KNOWN] = "INSERT INTO position VALUES(?1, ?2, 0, ?3) ON CONFLICT DO UPDATE SET known = max(known, ?3)",
    [EVENT_ADD] = "INSERT OR IGNORE INTO event VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [GAP_ADD] =
        "INSERT OR IGNORE INTO gap(inc, channel, from_seq, to_seq, reason, received_ms, bytes) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [SITES] = SITES_SQL,
    [POSITIONS] = "SELECT channel, seq, known FROM position WHERE inc = ?1 ORDER BY channel",
    [EVENTS] = EVENTS_SQL,
    [GAPS] = GAPS_SQL,
    [GAP_SUM] = GAP_SUM_SQL,
    [INCS] = "SELECT no FROM incarnation WHERE site = ?1 AND no >= ?2 ORDER BY no",
    [NODE_TOUCH] = "INSERT INTO node VALUES(?1, ?3, ?2, ?2) ON CONFLICT DO UPDATE SET contact_ms = ?2",
    [NODES] = "SELECT name, first_ms, contact_ms FROM node WHERE site = ?1 ORDER BY name",
};

struct store {
    struct db *db;
    struct db_statement *statements[STATEMENT_COUNT];
};

struct store *store_open(const char *where, struct fault *f) {
    if (strncmp(where, "sqlite:", 7) != 0) {
        (void)fault_set(f, E_USAGE, "--store %.100s: this version keeps its data in sqlite:PATH", where);
        return NULL;
    }
    struct db_options o = {.page_bytes = PAGE_BYTES, .cache_bytes = CACHE_BYTES};
    bool created = false;
    struct store *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "store");
        return NULL;
    }
    s->db = db_open(where + 7, &o, &created, f);
    bool ok = s->db != NULL && (!created || db_exec(s->db, schema, f) == E_OK);
    if (ok && db_number(s->db, "SELECT format FROM meta", -1) != FORMAT) {
        (void)fault_set(f, E_DISK_VERSION, "%s", where + 7);
        ok = false;
    }
    ok = ok && db_exec(s->db, schema_added, f) == E_OK;
    if (ok && db_number(s->db, "SELECT count(*) FROM pragma_table_info('gap') WHERE name = 'bytes'", 0) == 0) {
        ok = db_exec(s->db, "ALTER TABLE gap ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;", f) == E_OK;
    }
    for (int i = 0; i < STATEMENT_COUNT && ok; i++) {
        ok = db_prepare(s->db, sql[i], &s->statements[i], f) == E_OK;
    }
    if (!ok) {
        store_close(s);
        return NULL;
    }
    return s;
}

void store_close(struct store *s) {
    if (s != NULL) {
        db_close(s->db);
        mem_free(s);
    }
}

enum grey_error store_begin(struct store *s, struct fault *f) {
    return db_begin(s->db, f);
}

enum grey_error store_commit(struct store *s, struct fault *f) {
    enum grey_error err = db_commit(s->db, f);
    if (err == E_OK && db_wal_bytes(s->db) > CHECKPOINT_BYTES) {
        err = db_checkpoint(s->db, f);
    }
    return err;
}

void store_rollback(struct store *s) {
    db_rollback(s->db);
}

/* --- small reads and writes ----------------------------------------------------------------------------------------------------------------- */

static struct db_statement *bound(struct store *s, enum statement which, const int64_t *numbers, int count) {
    struct db_statement *st = s->statements[which];
    for (int i = 0; i < count; i++) {
        db_bind_int(st, i + 1, numbers[i]);
    }
    return st;
}

static enum grey_error run(struct store *s, enum statement which, const int64_t *numbers, int count, struct fault *f) {
    struct db_statement *st = bound(s, which, numbers, count);
    enum grey_error err = db_run(st, f);
    db_reset(st);
    return err;
}

/* Up to three numbers of one row; false in *found when there is none. */
static enum grey_error one_row(struct store *s, enum statement which, const int64_t *numbers, int count, int64_t *out, int columns,
                               bool *found, struct fault *f) {
    struct db_statement *st = bound(s, which, numbers, count);
    enum grey_error err = db_step(st, found, f);
    for (int i = 0; i < columns && err == E_OK && *found; i++) {
        out[i] = db_int(st, i);
    }
    db_reset(st);
    return err;
}

static enum grey_error find_site(struct store *s, const char *site, int64_t *no, struct fault *f) {
    struct db_statement *st = s->statements[SITE_FIND];
    bool found = false;
    db_bind_bytes(st, 1, bytes_str(site));
    enum grey_error err = db_step(st, &found, f);
    if (err == E_OK && found) {
        *no = db_int(st, 0);
    }
    db_reset(st);
    return err != E_OK ? err : found ? E_OK : E_NOT_FOUND;
}

static enum grey_error position(struct store *s, int64_t inc, enum event_channel c, grey_seq *seq, struct fault *f) {
    int64_t row[2] = {0, 0};
    bool found = false;
    enum grey_error err = one_row(s, POSITION_GET, (int64_t[]){inc, c}, 2, row, 2, &found, f);
    *seq = found ? (grey_seq)row[0] : 0;
    return err;
}

static enum grey_error set_position(struct store *s, int64_t inc, enum event_channel c, grey_seq seq, struct fault *f) {
    return run(s, POSITION_SET, (int64_t[]){inc, c, (int64_t)seq}, 3, f);
}

/* node: empty when only the site is known to be there. */
static enum grey_error touch(struct store *s, int64_t site_no, int64_t now_ms, struct bytes node, struct fault *f) {
    struct db_statement *st = bound(s, SITE_TOUCH, (int64_t[]){site_no, now_ms}, 2);
    if (node.size > 0) {
        db_bind_bytes(st, 3, node);
    } else {
        db_bind_null(st, 3);
    }
    enum grey_error err = db_run(st, f);
    db_reset(st);
    if (err == E_OK && node.size > 0) {
        st = bound(s, NODE_TOUCH, (int64_t[]){site_no, now_ms}, 2);
        db_bind_bytes(st, 3, node);
        err = db_run(st, f);
        db_reset(st);
    }
    return err;
}

/* --- taking what sites send ------------------------------------------------------------------------------------------------------------------ */

/* A site that was rebuilt from a backup goes on with the numbers of its former self.  Of those that the backup knew, the ones that are
 * here are not sent again; those behind it were given by a past that the site forgot, and are given anew. */
static enum grey_error continue_former(struct store *s, int64_t site_no, int64_t inc, const struct sync_hello *h, struct fault *f) {
    int64_t former[2] = {0, 0};
    bool found = false;
    enum grey_error err = one_row(s, INC_FIND, (int64_t[]){site_no, (int64_t)h->former}, 2, former, 2, &found, f);
    for (int i = 0; i < CHANNEL_COUNT && err == E_OK && found; i++) {
        grey_seq here = 0, known = h->channels[i].former_next - 1;
        err = position(s, former[0], (enum event_channel)i, &here, f);
        err = err != E_OK ? err : set_position(s, inc, (enum event_channel)i, here < known ? here : known, f);
    }
    return err;
}

enum grey_error store_hello(struct store *s, const char *site, const struct sync_hello *h, int64_t now_ms,
                            grey_seq positions[CHANNEL_COUNT], bool *rolled_back, struct fault *f) {
    int64_t site_no = 0, inc[2] = {0, 0};
    bool found = false;
    *rolled_back = false;
    enum grey_error err = find_site(s, site, &site_no, f);
    if (err == E_NOT_FOUND) {
        struct db_statement *st = s->statements[SITE_ADD];
        db_bind_bytes(st, 1, bytes_str(site));
        db_bind_int(st, 2, now_ms);
        err = db_run(st, f);
        db_reset(st);
        err = err != E_OK ? err : find_site(s, site, &site_no, f);
    }
    if (err != E_OK) {
        return err;
    }
    err = one_row(s, INC_FIND, (int64_t[]){site_no, (int64_t)h->incarnation}, 2, inc, 2, &found, f);
    if (err == E_OK && !found) {
        err = run(s, INC_ADD, (int64_t[]){site_no, (int64_t)h->incarnation, (int64_t)h->epoch, now_ms}, 4, f);
        err = err != E_OK ? err : one_row(s, INC_FIND, (int64_t[]){site_no, (int64_t)h->incarnation}, 2, inc, 2, &found, f);
        err = err != E_OK || h->former == 0 ? err : continue_former(s, site_no, inc[0], h, f);
    }
    if (err == E_OK && (int64_t)h->epoch < inc[1]) {
        return fault_set(f, E_STALE_MEMBER, "hello of epoch %" PRIu64 ", the site is at %" PRId64, h->epoch, inc[1]);
    }
    err = err != E_OK ? err : run(s, INC_EPOCH, (int64_t[]){inc[0], (int64_t)h->epoch}, 2, f);
    err = err != E_OK ? err : touch(s, site_no, now_ms, h->node, f);
    for (int i = 0; i < CHANNEL_COUNT && err == E_OK; i++) {
        enum event_channel c = (enum event_channel)i;
        grey_seq acked = h->channels[i].acked_seq;
        err = position(s, inc[0], c, &positions[i], f);
        *rolled_back = *rolled_back || positions[i] >= h->channels[i].next_seq;
        if (err == E_OK && acked > positions[i]) {
            err = run(s, GAP_ADD,
                      (int64_t[]){inc[0], i, (int64_t)positions[i] + 1, (int64_t)acked, SYNC_GAP_CORE_RESTORED, now_ms, 0}, 7, f);
            err = err != E_OK ? err : set_position(s, inc[0], c, acked, f);
            positions[i] = acked;
        }
        err = err != E_OK ? err : run(s, POSITION_KNOWN, (int64_t[]){inc[0], i, (int64_t)h->channels[i].next_seq - 1}, 3, f);
    }
    return err;
}

enum grey_error store_events(struct store *s, const char *site, const struct sync_events *e, int64_t now_ms,
                             struct store_taken *taken, struct fault *f) {
    int64_t site_no = 0, inc[2] = {0, 0};
    bool found = false;
    memset(taken, 0, sizeof *taken);
    enum grey_error err = find_site(s, site, &site_no, f);
    err = err != E_OK ? err : one_row(s, INC_FIND, (int64_t[]){site_no, (int64_t)e->incarnation}, 2, inc, 2, &found, f);
    if (err == E_OK && !found) {
        return fault_set(f, E_NOT_FOUND, "site %s has not said hello", site);
    }
    if (err == E_OK && (int64_t)e->epoch < inc[1]) {
        return fault_set(f, E_STALE_MEMBER, "events of epoch %" PRIu64 ", the site is at %" PRId64, e->epoch, inc[1]);
    }
    err = err != E_OK ? err : position(s, inc[0], e->channel, &taken->position, f);
    enum channel_verdict verdict = channel_judge(taken->position, e->from_seq, e->to_seq);
    if (err == E_OK && verdict != CHANNEL_FITS) {
        taken->beyond_hole = verdict == CHANNEL_HOLE;
        taken->repeated = verdict == CHANNEL_REPEAT ? e->item_count : 0;
        return touch(s, site_no, now_ms, bytes_of(NULL, 0), f);
    }
    struct db_statement *st = s->statements[EVENT_ADD];
    for (uint32_t i = 0; i < e->item_count && err == E_OK; i++) {
        const struct sync_item *item = &e->items[i];
        if (item->seq <= taken->position) {
            taken->repeated++;
            continue;
        }
        (void)bound(s, EVENT_ADD, (int64_t[]){inc[0], e->channel, (int64_t)item->seq, (int64_t)item->index, item->time_ms, now_ms},
                    6);
        db_bind_bytes(st, 7, item->record);
        err = db_run(st, f);
        db_reset(st);
        taken->fresh++;
        struct codec_reader r;
        struct event event;
        codec_reader_init(&r, item->record);
        taken->unreadable += record_decode(&r, &event) != E_OK || codec_end(&r) != E_OK;
    }
    for (uint32_t i = 0; i < e->gap_count && err == E_OK; i++) {
        const struct sync_gap *gap = &e->gaps[i];
        grey_seq from = gap->from_seq > taken->position ? gap->from_seq : taken->position + 1;
        if (from <= gap->to_seq) { /* what stood before the position has its share of the bytes there */
            uint64_t all = gap->to_seq - gap->from_seq + 1, here = gap->to_seq - from + 1;
            uint64_t bytes = gap->bytes / all * here + gap->bytes % all * here / all;
            err = run(s, GAP_ADD,
                      (int64_t[]){inc[0], e->channel, (int64_t)from, (int64_t)gap->to_seq, gap->reason, now_ms, (int64_t)bytes}, 7,
                      f);
        }
    }
    if (err == E_OK && e->to_seq > taken->position) {
        taken->position = e->to_seq;
        err = set_position(s, inc[0], e->channel, e->to_seq, f);
    }
    return err != E_OK ? err : touch(s, site_no, now_ms, bytes_of(NULL, 0), f);
}

/* --- questions ---------------------------------------------------------------------------------------------------------------------------------- */

static void put_time(struct json_writer *w, const char *name, int64_t unix_ms) {
    char text[32];
    json_key(w, name);
    now_format(unix_ms, text);
    json_str(w, text);
}

static void put_text(struct json_writer *w, const char *name, struct bytes text) {
    json_key(w, name);
    json_text(w, text);
}

static enum grey_error put_site(struct store *s, struct json_writer *w, int64_t no, struct fault *f) {
    int64_t inc[3] = {0}, gaps[2] = {0};
    bool found = false;
    enum grey_error err = one_row(s, INC_LAST, &no, 1, inc, 3, &found, f);
    if (err == E_OK && found) {
        char text[24];
        (void)snprintf(text, sizeof text, "%016" PRIx64, (uint64_t)inc[1]);
        json_key(w, "incarnation");
        json_str(w, text);
        json_key(w, "epoch");
        json_int(w, inc[2]);
    }
    json_key(w, "channels");
    json_open(w, '{');
    struct db_statement *st = bound(s, POSITIONS, inc, 1);
    bool row = false;
    while (err == E_OK && (err = db_step(st, &row, f)) == E_OK && row) {
        json_key(w, event_channel_name((enum event_channel)db_int(st, 0)));
        json_open(w, '{');
        json_key(w, "acked_seq");
        json_int(w, db_int(st, 1));
        json_key(w, "behind");
        json_int(w, db_int(st, 2) > db_int(st, 1) ? db_int(st, 2) - db_int(st, 1) : 0);
        json_close(w);
    }
    db_reset(st);
    json_close(w);
    err = err != E_OK ? err : one_row(s, GAP_SUM, &no, 1, gaps, 2, &found, f);
    json_key(w, "gaps");
    json_int(w, gaps[0]);
    json_key(w, "gap_events");
    json_int(w, gaps[1]);
    return err;
}

static enum grey_error put_nodes(struct store *s, struct json_writer *w, int64_t no, struct fault *f) {
    struct db_statement *st = bound(s, NODES, &no, 1);
    bool row = false;
    enum grey_error err;
    json_key(w, "nodes");
    json_open(w, '[');
    while ((err = db_step(st, &row, f)) == E_OK && row) {
        json_open(w, '{');
        put_text(w, "id", db_bytes(st, 0));
        put_time(w, "first_seen", db_int(st, 1));
        put_time(w, "last_spoke", db_int(st, 2));
        json_close(w);
    }
    db_reset(st);
    json_close(w);
    return err;
}

static enum grey_error put_sites(struct store *s, const char *only, const struct store_query *q, struct json_writer *w,
                                 size_t *count, struct fault *f) {
    struct db_statement *st = s->statements[SITES];
    bool row = false;
    enum grey_error err;
    db_bind_bytes(st, 1, bytes_str(only));
    db_bind_bytes(st, 2, bytes_str(q->after));
    db_bind_int(st, 3, q->limit);
    while ((err = db_step(st, &row, f)) == E_OK && row) {
        ++*count;
        json_open(w, '{');
        put_text(w, "id", db_bytes(st, 1));
        put_time(w, "first_seen", db_int(st, 2));
        put_time(w, "last_contact", db_int(st, 3));
        json_key(w, "last_contact_seconds");
        json_milli(w, now_wall_ms() - db_int(st, 3));
        put_text(w, "node", db_bytes(st, 4));
        json_key(w, "attestation");
        json_str(w, "none");
        err = put_site(s, w, db_int(st, 0), f);
        if (err == E_OK && only[0] != 0) {
            err = put_nodes(s, w, db_int(st, 0), f);
        }
        json_close(w);
        if (err != E_OK) {
            break;
        }
    }
    db_reset(st);
    return err;
}

enum grey_error store_sites(struct store *s, const struct store_query *q, struct json_writer *w, struct fault *f) {
    size_t count = 0;
    json_open(w, '[');
    enum grey_error err = put_sites(s, "", q, w, &count, f);
    json_close(w);
    return err;
}

enum grey_error store_site(struct store *s, const char *site, struct json_writer *w, struct fault *f) {
    size_t count = 0;
    struct store_query one = {.after = "", .limit = 1};
    enum grey_error err = site[0] == 0 ? E_NOT_FOUND : put_sites(s, site, &one, w, &count, f);
    return err != E_OK ? err : count == 1 ? E_OK : E_NOT_FOUND;
}

enum grey_error store_stands(struct store *s, const char *after, struct store_stand *out, size_t max, size_t *count,
                             struct fault *f) {
    struct db_statement *st = s->statements[SITES];
    bool row = false, found = false;
    enum grey_error err;
    *count = 0;
    db_bind_bytes(st, 1, bytes_of(NULL, 0));
    db_bind_bytes(st, 2, bytes_str(after));
    db_bind_int(st, 3, (int64_t)max);
    while ((err = db_step(st, &row, f)) == E_OK && row) {
        struct store_stand *stand = &out[(*count)++];
        struct bytes id = db_bytes(st, 1);
        int64_t no = db_int(st, 0), inc[3] = {0};
        *stand = (struct store_stand){.at.time_ms = now_wall_ms()};
        memcpy(stand->site.text, id.data, id.size < LIMIT_NAME_BYTES ? id.size : LIMIT_NAME_BYTES);
        err = one_row(s, INC_LAST, &no, 1, inc, 3, &found, f);
        stand->at.incarnation = (uint64_t)inc[1];
        stand->at.epoch = (grey_epoch)inc[2];
        for (int i = 0; i < CHANNEL_COUNT && err == E_OK; i++) {
            err = position(s, inc[0], (enum event_channel)i, &stand->at.position[i], f);
        }
        if (err != E_OK) {
            break;
        }
    }
    db_reset(st);
    return err;
}

static bool says_json(struct bytes type) {
    static const char suffix[] = "+json";
    const uint8_t *end = type.size == 0 ? NULL : memchr(type.data, ';', type.size);
    size_t size = end == NULL ? type.size : (size_t)(end - type.data);
    struct bytes bare = bytes_of(type.data, size);
    return size == 0 || bytes_equal_str(bare, "application/json") ||
           (size > strlen(suffix) && memcmp(type.data + size - strlen(suffix), suffix, strlen(suffix)) == 0);
}

/* As it came when it is JSON, which is looked at: a site must not be able to break the answer. */
static void put_data(struct json_writer *w, const struct event *e) {
    json_t *json = says_json(e->content_type) && e->data.size > 0 ? json_read(e->data, NULL) : NULL;
    if (e->content_type.size > 0 && !bytes_equal_str(e->content_type, "application/json")) {
        put_text(w, "datacontenttype", e->content_type);
    }
    json_key(w, json != NULL || e->data.size == 0 ? "data" : "data_base64");
    if (json != NULL) {
        json_raw(w, e->data);
    } else if (e->data.size == 0) {
        json_none(w);
    } else {
        json_base64(w, e->data);
    }
    json_decref(json);
}

static void put_event(struct json_writer *w, const char *site, struct db_statement *st) {
    struct codec_reader r;
    struct event e;
    enum event_channel c = (enum event_channel)db_int(st, 1);
    codec_reader_init(&r, db_bytes(st, 6));
    bool readable = record_decode(&r, &e) == E_OK && codec_end(&r) == E_OK;
    json_open(w, '{');
    json_key(w, "site");
    json_str(w, site);
    json_key(w, "channel");
    json_str(w, event_channel_name(c));
    json_key(w, "seq");
    json_int(w, db_int(st, 2));
    json_key(w, "index");
    json_int(w, db_int(st, 3));
    put_time(w, "log_time", db_int(st, 4));
    put_time(w, "received", db_int(st, 5));
    if (readable) {
        put_text(w, "id", e.id);
        put_text(w, "source", e.source);
        put_text(w, "type", e.type);
        if (e.subject.size > 0) {
            put_text(w, "subject", e.subject);
        }
        json_key(w, "time");
        if (e.time.size > 0) {
            json_text(w, e.time);
        } else {
            json_none(w);
        }
        json_key(w, "priority");
        json_str(w, event_priority_name(e.priority));
        put_data(w, &e);
        json_key(w, "provisional");
        json_bool(w, e.provisional);
        json_key(w, "traceparent");
        if (e.traceparent.size > 0) {
            json_text(w, e.traceparent);
        } else {
            json_none(w);
        }
    } else {
        json_key(w, "record_base64"); /* no record, kept as it came */
        json_base64(w, db_bytes(st, 6));
    }
    json_close(w);
}

/* A cursor is "inc:channel:seq"; a bare number is a seq of the current incarnation. */
static bool parse_cursor(const struct store_query *q, int64_t current_inc, int64_t out[3]) {
    out[0] = out[1] = 0;
    out[2] = 0;
    if (q->after[0] == 0) {
        return true;
    }
    char *end;
    out[2] = strtoll(q->after, &end, 10);
    if (*end == 0) {
        out[0] = current_inc;
        out[1] = q->channel < 0 ? 0 : q->channel;
        return out[2] >= 0;
    }
    int used = 0;
    return sscanf(q->after, "%" SCNd64 ":%" SCNd64 ":%" SCNd64 "%n", &out[0], &out[1], &out[2], &used) == 3 && q->after[used] == 0;
}

static void put_gap(struct json_writer *w, const char *site, struct db_statement *st) {
    (void)site;
    json_open(w, '{');
    json_key(w, "channel");
    json_str(w, event_channel_name((enum event_channel)db_int(st, 1)));
    json_key(w, "from_seq");
    json_int(w, db_int(st, 2));
    json_key(w, "to_seq");
    json_int(w, db_int(st, 3));
    json_key(w, "reason");
    json_str(w, sync_gap_reason_name((enum sync_gap_reason)db_int(st, 4)));
    json_key(w, "bytes");
    json_int(w, db_int(st, 6));
    put_time(w, "received", db_int(st, 5));
    json_close(w);
}

/* Rows of `which` (its first columns are inc, channel, seq) behind the cursor: one range of its primary key after the other.  *more:
 * the limit ended it. */
static enum grey_error put_rows(struct store *s, enum statement which, const char *site, int64_t site_no,
                                const struct store_query *q, int64_t cursor[3], struct json_writer *w,
                                void (*put)(struct json_writer *w, const char *site, struct db_statement *st), bool *more,
                                struct fault *f) {
    struct db_statement *incs = bound(s, INCS, (int64_t[]){site_no, cursor[0]}, 2);
    bool inc_row = false;
    uint32_t left = q->limit;
    enum grey_error err;
    *more = false;
    while (!*more && (err = db_step(incs, &inc_row, f)) == E_OK && inc_row) {
        int64_t inc = db_int(incs, 0);
        for (int c = inc == cursor[0] ? (int)cursor[1] : 0; c < CHANNEL_COUNT && err == E_OK && !*more; c++) {
            if (q->channel >= 0 && c != q->channel) {
                continue;
            }
            int64_t after = inc == cursor[0] && c == cursor[1] ? cursor[2] : 0;
            struct db_statement *st = bound(s, which, (int64_t[]){inc, c, after, left}, 4);
            bool row = false;
            while ((err = db_step(st, &row, f)) == E_OK && row) {
                for (int i = 0; i < 3; i++) {
                    cursor[i] = db_int(st, i);
                }
                put(w, site, st);
                left--;
                *more = left == 0 || w->out->size > ANSWER_BYTES;
                if (*more) {
                    break;
                }
            }
            db_reset(st);
        }
        if (err != E_OK) {
            break;
        }
    }
    db_reset(incs);
    return err;
}

static enum grey_error put_list(struct store *s, enum statement which, const char *site, const struct store_query *q,
                                struct json_writer *w, struct fault *f) {
    int64_t site_no = 0, inc[3] = {0}, cursor[3];
    bool found = false, more = false;
    char next[80];
    enum grey_error err = find_site(s, site, &site_no, f);
    err = err != E_OK ? err : one_row(s, INC_LAST, &site_no, 1, inc, 3, &found, f);
    if (err != E_OK) {
        return err;
    }
    if (!parse_cursor(q, inc[0], cursor)) {
        return fault_set(f, E_BAD_REQUEST, "after: '%.60s' is neither a sequence number nor a cursor of an earlier answer",
                         q->after);
    }
    json_open(w, '{');
    json_key(w, which == EVENTS ? "events" : "gaps");
    json_open(w, '[');
    err = put_rows(s, which, site, site_no, q, cursor, w, which == EVENTS ? put_event : put_gap, &more, f);
    json_close(w);
    if (which == EVENTS || more) {
        json_key(w, "next");
        (void)snprintf(next, sizeof next, "%" PRId64 ":%" PRId64 ":%" PRId64, cursor[0], cursor[1], cursor[2]);
        json_str(w, next);
    }
    json_close(w);
    return err;
}

enum grey_error store_list_events(struct store *s, const char *site, const struct store_query *q, struct json_writer *w,
                                  struct fault *f) {
    return put_list(s, EVENTS, site, q, w, f);
}

enum grey_error store_list_gaps(struct store *s, const char *site, const struct store_query *q, struct json_writer *w,
                                struct fault *f) {
    return put_list(s, GAPS, site, q, w, f);
}
