#include "core/store.h"

#include <inttypes.h>
#include <string.h>

#include "core/store_backend.h"
#include "federation/channel.h"
#include "federation/record.h"
#include "platform/now.h"

struct store *store_open(const char *where, struct fault *f) {
    static const char sqlite[] = "sqlite:";
    if (strncmp(where, sqlite, strlen(sqlite)) == 0) {
        return store_sqlite_open(where + strlen(sqlite), f);
    }
    (void)fault_set(f, E_USAGE, "--store %.100s: this version keeps its data in sqlite:PATH", where);
    return NULL;
}

void store_close(struct store *s) {
    if (s != NULL) {
        s->ops->close(s);
    }
}

enum grey_error store_begin(struct store *s, struct fault *f) {
    return s->ops->begin(s, f);
}

enum grey_error store_commit(struct store *s, struct fault *f) {
    return s->ops->commit(s, f);
}

void store_rollback(struct store *s) {
    s->ops->rollback(s);
}

/* --- small reads and writes ----------------------------------------------------------------------------------------------------------------- */

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

enum grey_error store_hello(struct store *s, const char *site, const struct sync_hello *h, int64_t now_ms,
                            grey_seq positions[CHANNEL_COUNT], bool *rolled_back, struct fault *f) {
    int64_t site_no = 0, inc[2] = {0, 0};
    bool found = false;
    *rolled_back = false;
    enum grey_error err = find_site(s, site, &site_no, f);
    if (err == E_NOT_FOUND) {
        const struct store_value in[] = {store_bytes(bytes_str(site)), store_number(now_ms)};
        err = s->ops->run(s, STORE_SITE_ADD, in, 2, f);
        err = err != E_OK ? err : find_site(s, site, &site_no, f);
    }
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
    err = err != E_OK ? err : touch(s, site_no, now_ms, h->node, f);
    for (int i = 0; i < CHANNEL_COUNT && err == E_OK; i++) {
        enum event_channel c = (enum event_channel)i;
        grey_seq acked = h->channels[i].acked_seq;
        err = position(s, inc[0], c, &positions[i], f);
        *rolled_back = *rolled_back || positions[i] >= h->channels[i].next_seq;
        if (err == E_OK && acked > positions[i]) {
            err = run(s, STORE_GAP_ADD,
                      (int64_t[]){inc[0], i, (int64_t)positions[i] + 1, (int64_t)acked, SYNC_GAP_CORE_RESTORED, now_ms}, 6, f);
            err = err != E_OK ? err : set_position(s, inc[0], c, acked, f);
            positions[i] = acked;
        }
        err = err != E_OK ? err : run(s, STORE_POSITION_KNOWN, (int64_t[]){inc[0], i, (int64_t)h->channels[i].next_seq - 1}, 3, f);
    }
    return err;
}

enum grey_error store_events(struct store *s, const char *site, const struct sync_events *e, int64_t now_ms,
                             struct store_taken *taken, struct fault *f) {
    int64_t site_no = 0, inc[2] = {0, 0};
    bool found = false;
    memset(taken, 0, sizeof *taken);
    enum grey_error err = find_site(s, site, &site_no, f);
    err = err != E_OK ? err : one_row(s, STORE_INC_FIND, (int64_t[]){site_no, (int64_t)e->incarnation}, 2, inc, 2, &found, f);
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
    uint32_t there = 0; /* of the items, how many are in the store already */
    while (there < e->item_count && e->items[there].seq <= taken->position) {
        there++;
    }
    taken->repeated = there;
    taken->fresh = e->item_count - there;
    for (uint32_t i = there; i < e->item_count; i++) {
        struct codec_reader r;
        struct event event;
        codec_reader_init(&r, e->items[i].record);
        taken->unreadable += record_decode(&r, &event) != E_OK || codec_end(&r) != E_OK;
    }
    err = err != E_OK ? err : s->ops->add_events(s, inc[0], e->channel, e->items + there, taken->fresh, now_ms, f);
    for (uint32_t i = 0; i < e->gap_count && err == E_OK; i++) {
        grey_seq from = e->gaps[i].from_seq > taken->position ? e->gaps[i].from_seq : taken->position + 1;
        if (from <= e->gaps[i].to_seq) {
            err = run(s, STORE_GAP_ADD,
                      (int64_t[]){inc[0], e->channel, (int64_t)from, (int64_t)e->gaps[i].to_seq, e->gaps[i].reason, now_ms}, 6, f);
        }
    }
    if (err == E_OK && e->to_seq > taken->position) {
        taken->position = e->to_seq;
        err = set_position(s, inc[0], e->channel, e->to_seq, f);
    }
    return err != E_OK ? err : touch(s, site_no, now_ms, bytes_of(NULL, 0), f);
}

enum grey_error store_stands(struct store *s, const char *after, struct store_stand *out, size_t max, size_t *count,
                             struct fault *f) {
    const struct store_value in[] = {store_bytes(bytes_str(after)), store_number((int64_t)max)};
    struct store_rows *rows = NULL;
    bool row = false;
    *count = 0;
    enum grey_error err = s->ops->ask(s, STORE_STANDS, in, 2, &rows, f);
    while (rows != NULL && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        struct store_stand *stand = &out[(*count)++];
        struct bytes id = s->ops->bytes(rows, 0);
        *stand = (struct store_stand){.at.time_ms = now_wall_ms()};
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
    return err;
}
