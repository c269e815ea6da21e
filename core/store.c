#include "core/store.h"

#include <inttypes.h>
#include <string.h>

#include "core/store_backend.h"
#include "core/store_offloads.h"
#include "core/store_restored.h"
#include "federation/channel.h"
#include "federation/record.h"
#include "platform/now.h"

#define CONTACT_MS 1000 /* last_contact is as fresh as that */

struct store *store_open(const char *where, const struct store_options *o, struct fault *f) {
    static const char sqlite[] = "sqlite:";
    struct store *s = NULL;
    if (strncmp(where, sqlite, strlen(sqlite)) == 0) {
        s = store_sqlite_open(where + strlen(sqlite), f);
    } else if (store_is_postgres(where)) {
        s = store_postgres_open(where, f);
    } else {
        (void)fault_set(f, E_USAGE, "--store %.*s...: expected sqlite:PATH or postgresql://...", (int)strcspn(where, ":"), where);
    }
    if (s != NULL) {
        s->options = *o;
    }
    return s;
}

bool store_is_postgres(const char *where) {
    return strncmp(where, "postgresql://", 13) == 0 || strncmp(where, "postgres://", 11) == 0;
}

const char *store_name(struct store *s) {
    return s->ops->name(s);
}

void store_close(struct store *s) {
    if (s != NULL) {
        s->ops->close(s);
    }
}

enum grey_error store_begin(struct store *s, struct fault *f) {
    s->marked = 0;
    return s->ops->begin(s, f);
}

enum grey_error store_commit(struct store *s, struct fault *f) {
    enum grey_error err = s->ops->commit(s, f);
    if (err == E_OK && s->marked > 0) {
        store_mark_keep(s);
    }
    return err;
}

void store_rollback(struct store *s) {
    s->ops->rollback(s);
}

bool store_again(enum grey_error err) {
    return err == E_CONFLICT || err == E_CLOSED || err == E_CONNECT;
}

enum grey_error store_lock(struct store *s, const char *const *sites, size_t count, struct fault *f) {
    return s->ops->lock(s, sites, count, f);
}

/* --- small reads and writes ----------------------------------------------------------------------------------------------------------------- */

void store_put_time(struct json_writer *w, const char *name, int64_t unix_ms) {
    char text[32];
    json_key(w, name);
    now_format(unix_ms, text);
    json_str(w, text);
}

void store_put_time_if(struct json_writer *w, const char *name, int64_t unix_ms) {
    if (unix_ms != 0) {
        store_put_time(w, name, unix_ms);
    } else {
        json_key(w, name);
        json_none(w);
    }
}

enum grey_error store_row(struct store *s, enum store_statement which, const struct store_value *in, int count, int64_t *out,
                          int columns, bool *found, struct fault *f) {
    struct store_rows *rows = NULL;
    *found = false;
    enum grey_error err = s->ops->ask(s, which, in, count, &rows, f);
    if (rows == NULL) {
        return err;
    }
    err = s->ops->next(rows, found, f);
    for (int i = 0; i < columns && err == E_OK && *found; i++) {
        out[i] = s->ops->number(rows, i);
    }
    s->ops->end(rows);
    return err;
}

static enum grey_error run(struct store *s, enum store_statement which, const int64_t *numbers, int count, struct fault *f) {
    struct store_value in[STORE_VALUES_MAX];
    for (int i = 0; i < count; i++) {
        in[i] = store_number(numbers[i]);
    }
    return s->ops->run(s, which, in, count, f);
}

static enum grey_error one_row(struct store *s, enum store_statement which, const int64_t *numbers, int count, int64_t *out,
                               int columns, bool *found, struct fault *f) {
    struct store_value in[STORE_VALUES_MAX];
    for (int i = 0; i < count; i++) {
        in[i] = store_number(numbers[i]);
    }
    return store_row(s, which, in, count, out, columns, found, f);
}

static enum grey_error find_site(struct store *s, const char *site, int64_t *no, struct fault *f) {
    struct store_value id = store_bytes(bytes_str(site));
    bool found = false;
    enum grey_error err = store_row(s, STORE_SITE_FIND, &id, 1, no, 1, &found, f);
    return err != E_OK ? err : found ? E_OK : E_NOT_FOUND;
}

static enum grey_error position(struct store *s, int64_t inc, enum event_channel c, grey_seq *seq, struct fault *f) {
    int64_t at = 0;
    bool found = false;
    enum grey_error err = one_row(s, STORE_POSITION_GET, (int64_t[]){inc, c}, 2, &at, 1, &found, f);
    *seq = found ? (grey_seq)at : 0;
    return err;
}

static enum grey_error set_position(struct store *s, int64_t inc, enum event_channel c, grey_seq seq, struct fault *f) {
    return run(s, STORE_POSITION_SET, (int64_t[]){inc, c, (int64_t)seq}, 3, f);
}

/* node: empty when only the site is known to be there. */
static enum grey_error touch(struct store *s, int64_t site_no, int64_t now_ms, struct bytes node, struct fault *f) {
    struct store_value in[3] = {store_number(site_no), store_number(now_ms)};
    if (node.size > 0) {
        in[2] = store_bytes(node);
    }
    enum grey_error err = s->ops->run(s, STORE_SITE_TOUCH, in, 3, f);
    return err != E_OK || node.size == 0 ? err : s->ops->run(s, STORE_NODE_TOUCH, in, 3, f);
}

/* --- taking what sites send ------------------------------------------------------------------------------------------------------------------ */

/* A site that was rebuilt from a backup goes on with the numbers of its former self.  Of those that the backup knew, the ones that are
 * here are not sent again; those behind it were given by a past that the site forgot, and are given anew. */
static enum grey_error continue_former(struct store *s, int64_t site_no, int64_t inc, const struct sync_hello *h, struct fault *f) {
    int64_t former[2] = {0, 0};
    bool found = false;
    enum grey_error err = one_row(s, STORE_INC_FIND, (int64_t[]){site_no, (int64_t)h->former}, 2, former, 2, &found, f);
    for (int i = 0; i < CHANNEL_COUNT && err == E_OK && found; i++) {
        grey_seq here = 0, known = h->channels[i].former_next - 1;
        err = position(s, former[0], (enum event_channel)i, &here, f);
        err = err != E_OK ? err : set_position(s, inc, (enum event_channel)i, here < known ? here : known, f);
    }
    return err;
}

enum grey_error store_manner(struct store *s, const char *site, enum store_manner m, int64_t now_ms, struct fault *f) {
    const struct store_value in[] = {store_bytes(bytes_str(site)), store_number(now_ms)};
    int64_t since_ms = 0;
    bool found = false;
    if (m == STORE_HELLO_SEALED) {
        return s->ops->run(s, STORE_SEALED_ADD, in, 2, f);
    }
    enum grey_error err = m == STORE_PLAIN ? store_row(s, STORE_SEALED_IS, in, 1, &since_ms, 1, &found, f) : E_OK;
    return err == E_OK && found ? fault_set(f, E_DENIED, "plain, of a site that seals what it says") : err;
}

enum grey_error store_hello(struct store *s, const char *site, const struct sync_hello *h, int64_t now_ms,
                            grey_seq positions[CHANNEL_COUNT], bool *rolled_back, struct fault *f) {
    int64_t site_no = 0, inc[2] = {0, 0};
    bool found = false, known = true;
    *rolled_back = false;
    enum grey_error err = find_site(s, site, &site_no, f);
    if (err == E_NOT_FOUND) {
        const struct store_value in[] = {store_bytes(bytes_str(site)), store_number(now_ms)};
        known = false;
        err = s->ops->run(s, STORE_SITE_ADD, in, 2, f);
        err = err != E_OK ? err : find_site(s, site, &site_no, f);
    }
    const struct store_value id = store_bytes(bytes_str(site));
    err = err != E_OK ? err : s->ops->run(s, STORE_SITE_LOCK, &id, 1, f);
    if (err != E_OK) {
        return err;
    }
    err = one_row(s, STORE_INC_FIND, (int64_t[]){site_no, (int64_t)h->incarnation}, 2, inc, 2, &found, f);
    if (err == E_OK && !found) {
        err = run(s, STORE_INC_ADD, (int64_t[]){site_no, (int64_t)h->incarnation, (int64_t)h->epoch, now_ms}, 4, f);
        err = err != E_OK ? err : one_row(s, STORE_INC_FIND, (int64_t[]){site_no, (int64_t)h->incarnation}, 2, inc, 2, &found, f);
        err = err != E_OK || h->former == 0 ? err : continue_former(s, site_no, inc[0], h, f);
    }
    if (err == E_OK && (int64_t)h->epoch < inc[1]) {
        return fault_set(f, E_STALE_MEMBER, "hello of epoch %" PRIu64 ", the site is at %" PRId64, h->epoch, inc[1]);
    }
    err = err != E_OK ? err : run(s, STORE_INC_EPOCH, (int64_t[]){inc[0], (int64_t)h->epoch}, 2, f);
    err = err != E_OK ? err : run(s, STORE_AHEAD_CLEAR, inc, 1, f); /* the site sends all behind the positions again */
    err = err != E_OK ? err : touch(s, site_no, now_ms, h->node, f);
    for (int i = 0; i < CHANNEL_COUNT && err == E_OK; i++) {
        enum event_channel c = (enum event_channel)i;
        grey_seq acked = h->channels[i].acked_seq;
        err = position(s, inc[0], c, &positions[i], f);
        *rolled_back = *rolled_back || positions[i] >= h->channels[i].next_seq;
        if (err == E_OK && acked > positions[i]) {
            err = run(s, STORE_GAP_ADD,
                      (int64_t[]){inc[0], i, (int64_t)positions[i] + 1, (int64_t)acked, SYNC_GAP_CORE_RESTORED, now_ms, 0}, 7, f);
            err = err != E_OK ? err : set_position(s, inc[0], c, acked, f);
            const struct restored_evidence lost = {RESTORED_BY_EVENTS, (int64_t)positions[i], (int64_t)acked};
            err = err != E_OK || !known ? err : store_restored_found(s, site, &lost, now_ms, f);
            positions[i] = acked;
        }
        err = err != E_OK ? err : run(s, STORE_POSITION_KNOWN, (int64_t[]){inc[0], i, (int64_t)h->channels[i].next_seq - 1}, 3, f);
    }
    return err;
}

/* A site's row and channel, under its lock. */
struct stand {
    int64_t site, contact_ms, asked_ms, inc, epoch;
    grey_seq position;
    int64_t ahead; /* frames */
};

static enum grey_error find_stand(struct store *s, const char *site, const struct sync_events *e, struct stand *at,
                                  struct fault *f) {
    const struct store_value in[] = {store_bytes(bytes_str(site)), store_number((int64_t)e->incarnation), store_number(e->channel)};
    int64_t out[7] = {0};
    bool found = false;
    enum grey_error err = s->ops->run(s, STORE_SITE_LOCK, in, 1, f);
    err = err != E_OK ? err : store_row(s, STORE_STAND, in, 3, out, 7, &found, f);
    *at = (struct stand){.site = out[0],
                         .contact_ms = out[1],
                         .asked_ms = out[2],
                         .inc = out[3],
                         .epoch = out[4],
                         .position = (grey_seq)out[5],
                         .ahead = out[6]};
    if (err == E_OK && (!found || at->inc == 0)) {
        return fault_set(f, E_NOT_FOUND, "site %s has not said hello", site);
    }
    if (err == E_OK && (int64_t)e->epoch < at->epoch) {
        return fault_set(f, E_STALE_MEMBER, "events of epoch %" PRIu64 ", the site is at %" PRId64, e->epoch, at->epoch);
    }
    return err;
}

/* A frame that goes on behind the position, which follows. */
static enum grey_error take(struct store *s, struct stand *at, const struct sync_events *e, int64_t now_ms,
                            struct store_taken *taken, struct fault *f) {
    uint32_t there = 0; /* of the items, how many are in the store already */
    while (there < e->item_count && e->items[there].seq <= at->position) {
        there++;
    }
    taken->repeated += there;
    taken->fresh += e->item_count - there;
    for (uint32_t i = there; i < e->item_count; i++) {
        struct codec_reader r;
        struct event event;
        codec_reader_init(&r, e->items[i].record);
        bool well = record_decode(&r, &event) == E_OK && codec_end(&r) == E_OK;
        taken->unreadable += !well;
        enum grey_error err = well && offload_reserved(event.type) ? store_offload_event(s, at->inc, &event, now_ms, f) : E_OK;
        if (err != E_OK) {
            return err;
        }
    }
    enum grey_error err = s->ops->add_events(s, at->inc, e->channel, e->items + there, e->item_count - there, now_ms, f);
    for (uint32_t i = 0; i < e->gap_count && err == E_OK; i++) {
        const struct sync_gap *gap = &e->gaps[i];
        grey_seq from = gap->from_seq > at->position ? gap->from_seq : at->position + 1;
        if (from <= gap->to_seq) { /* what stood before the position has its share of the bytes there */
            uint64_t all = gap->to_seq - gap->from_seq + 1, here = gap->to_seq - from + 1;
            uint64_t bytes = gap->bytes / all * here + gap->bytes % all * here / all;
            err = run(s, STORE_GAP_ADD,
                      (int64_t[]){at->inc, e->channel, (int64_t)from, (int64_t)gap->to_seq, gap->reason, now_ms, (int64_t)bytes}, 7,
                      f);
        }
    }
    at->position = e->to_seq > at->position ? e->to_seq : at->position;
    return err;
}

/* --- frames beyond a hole: kept as they would be sent, for only what follows the position is ever looked into ------------------------- */

struct ahead { /* of one channel */
    uint32_t frames;
    int64_t bytes, since_ms; /* since_ms: of the oldest */
    grey_seq reach;          /* what they would make of the position now */
};

static enum grey_error look_ahead(struct store *s, const struct stand *at, enum event_channel c, int64_t now_ms, struct ahead *a,
                                  struct fault *f) {
    const struct store_value in[] = {store_number(at->inc), store_number(c)};
    struct store_rows *rows = NULL;
    bool row = false;
    *a = (struct ahead){.since_ms = now_ms, .reach = at->position};
    enum grey_error err = at->ahead == 0 ? E_OK : s->ops->ask(s, STORE_AHEAD_SPANS, in, 2, &rows, f);
    while (rows != NULL && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        grey_seq from = (grey_seq)s->ops->number(rows, 0), to = (grey_seq)s->ops->number(rows, 1);
        int64_t since_ms = s->ops->number(rows, 2);
        a->frames++;
        a->bytes += s->ops->number(rows, 3);
        a->since_ms = since_ms < a->since_ms ? since_ms : a->since_ms;
        a->reach = channel_judge(a->reach, from, to) == CHANNEL_FITS ? to : a->reach;
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

/* Takes what now follows the position. */
static enum grey_error take_ahead(struct store *s, struct stand *at, enum event_channel c, int64_t now_ms,
                                  struct store_taken *taken, struct fault *f) {
    static struct sync_item items[SYNC_ITEMS_MAX]; /* the storage thread only */
    static struct sync_gap gaps[SYNC_GAPS_MAX];
    struct ahead a;
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = look_ahead(s, at, c, now_ms, &a, f);
    if (err != E_OK || a.frames == 0) {
        return err;
    }
    const struct store_value in[] = {store_number(at->inc), store_number(c), store_number((int64_t)a.reach)};
    if (a.reach > at->position) {
        err = s->ops->ask(s, STORE_AHEAD_GET, in, 3, &rows, f);
    }
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        struct sync_events e;
        if (sync_get_events(s->ops->bytes(rows, 0), &e, items, gaps) != E_OK) {
            break; /* damaged: as if it had not come */
        }
        if (channel_judge(at->position, e.from_seq, e.to_seq) == CHANNEL_FITS) {
            err = take(s, at, &e, now_ms, taken, f);
        }
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err != E_OK ? err : s->ops->run(s, STORE_AHEAD_DROP, in, 3, f); /* repeats of what is here as well */
}

/* Unless a core has, just now. */
static enum grey_error ask_again(struct store *s, const struct stand *at, int64_t now_ms, struct store_taken *taken,
                                 struct fault *f) {
    taken->ask_again = now_ms < at->asked_ms || now_ms - at->asked_ms >= STORE_ASK_MS;
    return taken->ask_again ? run(s, STORE_SITE_ASKED, (int64_t[]){at->site, now_ms}, 2, f) : E_OK;
}

static enum grey_error keep_ahead(struct store *s, const struct stand *at, const struct sync_events *e, int64_t now_ms,
                                  struct store_taken *taken, struct fault *f) {
    struct ahead a = {.since_ms = now_ms};
    struct builder content;
    enum grey_error err = s->options.shared ? look_ahead(s, at, e->channel, now_ms, &a, f) : E_OK;
    builder_init(&content, STORE_AHEAD_BYTES);
    if (s->options.shared) {
        struct sync_events sized = *e;
        sized.sized_gaps = true;
        sync_put_events(&content, &sized);
    }
    taken->beyond_hole = true;
    taken->kept_ahead = s->options.shared && content.err == E_OK && a.frames < STORE_AHEAD_FRAMES &&
                        a.bytes + (int64_t)content.size <= STORE_AHEAD_BYTES;
    if (err == E_OK && taken->kept_ahead) {
        const struct store_value in[] = {store_number(at->inc),
                                         store_number(e->channel),
                                         store_number((int64_t)e->from_seq),
                                         store_number((int64_t)e->to_seq),
                                         store_number(now_ms),
                                         store_number((int64_t)content.size),
                                         store_bytes(builder_bytes(&content))};
        err = s->ops->run(s, STORE_AHEAD_ADD, in, 7, f);
    }
    builder_free(&content);
    taken->first_ahead = taken->kept_ahead && a.frames == 0;
    bool waited = now_ms - a.since_ms >= STORE_HOLE_MS;
    return err != E_OK || (!waited && taken->kept_ahead) ? err : ask_again(s, at, now_ms, taken, f);
}

enum grey_error store_events(struct store *s, const char *site, const struct sync_events *e, int64_t now_ms,
                             struct store_taken *taken, struct fault *f) {
    struct stand at;
    memset(taken, 0, sizeof *taken);
    enum grey_error err = find_stand(s, site, e, &at, f);
    if (err != E_OK) {
        return err;
    }
    grey_seq before = at.position;
    switch (channel_judge(at.position, e->from_seq, e->to_seq)) {
    case CHANNEL_REPEAT:
        taken->repeated = e->item_count;
        break;
    case CHANNEL_HOLE:
        err = keep_ahead(s, &at, e, now_ms, taken, f);
        break;
    case CHANNEL_FITS:
        err = take(s, &at, e, now_ms, taken, f);
        err = err != E_OK || at.ahead == 0 ? err : take_ahead(s, &at, e->channel, now_ms, taken, f);
        break;
    }
    if (err == E_OK && at.position > before) {
        err = set_position(s, at.inc, e->channel, at.position, f);
    }
    taken->position = at.position;
    bool known = now_ms >= at.contact_ms && now_ms - at.contact_ms < CONTACT_MS;
    return err != E_OK || known ? err : touch(s, at.site, now_ms, bytes_of(NULL, 0), f);
}

enum grey_error store_hole(struct store *s, const struct store_hole *hole, int64_t now_ms, struct store_taken *taken,
                           uint32_t *wait_ms, struct fault *f) {
    const struct sync_events e = {.incarnation = hole->incarnation, .epoch = hole->epoch, .channel = hole->channel};
    struct stand at;
    struct ahead a = {0};
    memset(taken, 0, sizeof *taken);
    *wait_ms = 0;
    enum grey_error err = find_stand(s, hole->site, &e, &at, f);
    err = err != E_OK ? err : look_ahead(s, &at, hole->channel, now_ms, &a, f);
    taken->position = at.position;
    if (err != E_OK || a.frames == 0) {
        return err;
    }
    int64_t left_ms = a.since_ms + STORE_HOLE_MS - now_ms;
    *wait_ms = left_ms > 0 ? (uint32_t)left_ms : STORE_ASK_MS; /* the site may not hear it the first time */
    return left_ms > 0 ? E_OK : ask_again(s, &at, now_ms, taken, f);
}

/* --- asking all sites ------------------------------------------------------------------------------------------------------------------------- */

enum grey_error store_stands(struct store *s, const char *after, int64_t now_ms, struct store_stand *out, size_t max, size_t *count,
                             struct fault *f) {
    const int64_t before_ms = s->options.shared ? now_ms - STORE_ASK_ALL_MS : INT64_MAX;
    const struct store_value in[] = {store_bytes(bytes_str(after)), store_number((int64_t)max), store_number(now_ms),
                                     store_number(before_ms), store_number(before_ms)};
    struct store_rows *rows = NULL;
    bool row = false;
    *count = 0;
    enum grey_error err = s->ops->ask(s, STORE_STANDS, in, 5, &rows, f);
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        struct store_stand *stand = &out[(*count)++];
        struct bytes id = s->ops->bytes(rows, 0);
        *stand = (struct store_stand){.at.time_ms = now_ms, .no = s->ops->number(rows, 6)};
        memcpy(stand->site.text, id.data, id.size < LIMIT_NAME_BYTES ? id.size : LIMIT_NAME_BYTES);
        stand->at.incarnation = (uint64_t)s->ops->number(rows, 1);
        stand->at.epoch = (grey_epoch)s->ops->number(rows, 2);
        for (int i = 0; i < CHANNEL_COUNT; i++) {
            stand->at.position[i] = (grey_seq)s->ops->number(rows, 3 + i);
        }
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    for (size_t i = 0; i < *count && err == E_OK; i++) {
        err = run(s, STORE_SITE_ASKED, (int64_t[]){out[i].no, now_ms}, 2, f);
    }
    return err;
}
