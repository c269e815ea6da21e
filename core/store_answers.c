#include "core/store_answers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/store_backend.h"
#include "federation/record.h"
#include "platform/now.h"

#define ANSWER_BYTES (4u * 1024u * 1024u) /* a page of events ends when it is larger */

/* Columns of STORE_SITES and STORE_SITE. */
enum {
    SITE_ID,
    SITE_FIRST_MS,
    SITE_CONTACT_MS,
    SITE_NODE,
    SITE_NO,
    SITE_INCARNATION,
    SITE_EPOCH,
    SITE_POSITIONS,
    SITE_GAPS = SITE_POSITIONS + 2 * CHANNEL_COUNT,
    SITE_GAP_EVENTS,
    SITE_ATTESTED, /* gateways that ever were, those of them that failed, that are not judged yet, when the first result ends */
    SITE_ATTEST_FAILED,
    SITE_ATTEST_PENDING,
    SITE_ATTEST_UNTIL_MS
};

/* --- sites ------------------------------------------------------------------------------------------------------------------------------------- */

/* The worst that is known of a gateway of the site, and of how many it is. */
static void put_attestation(struct store *s, const struct store_rows *rows, struct json_writer *w) {
    const struct store_ops *o = s->ops;
    int64_t all = o->number(rows, SITE_ATTESTED), failed = o->number(rows, SITE_ATTEST_FAILED);
    int64_t pending = o->number(rows, SITE_ATTEST_PENDING), until_ms = o->number(rows, SITE_ATTEST_UNTIL_MS);
    bool expired = until_ms > 0 && until_ms <= now_wall_ms();
    const char *worst = all == 0 ? "none" : failed > 0 ? "failed" : expired ? "expired" : pending > 0 ? "pending" : "trusted";
    json_member_str(w, "attestation", worst);
    json_member_int(w, "attested_nodes", all);
    json_member_int(w, "failed_nodes", failed);
}

static void put_facts(struct store *s, const struct store_rows *rows, struct json_writer *w) {
    const struct store_ops *o = s->ops;
    json_member_text(w, "id", o->bytes(rows, SITE_ID));
    store_put_time(w, "first_seen", o->number(rows, SITE_FIRST_MS));
    store_put_time(w, "last_contact", o->number(rows, SITE_CONTACT_MS));
    json_member_milli(w, "last_contact_seconds", now_wall_ms() - o->number(rows, SITE_CONTACT_MS));
    json_member_text(w, "node", o->bytes(rows, SITE_NODE));
    put_attestation(s, rows, w);
    if (!o->null(rows, SITE_INCARNATION)) {
        json_member_id(w, "incarnation", (uint64_t)o->number(rows, SITE_INCARNATION));
        json_member_int(w, "epoch", o->number(rows, SITE_EPOCH));
    }
    json_member_open(w, "channels", '{');
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        int at = SITE_POSITIONS + 2 * c;
        int64_t seq = o->number(rows, at), known = o->number(rows, at + 1);
        if (!o->null(rows, at)) {
            json_member_open(w, event_channel_name((enum event_channel)c), '{');
            json_member_int(w, "acked_seq", seq);
            json_member_int(w, "behind", known > seq ? known - seq : 0);
            json_close(w);
        }
    }
    json_close(w);
    json_member_int(w, "gaps", o->number(rows, SITE_GAPS));
    json_member_int(w, "gap_events", o->number(rows, SITE_GAP_EVENTS));
}

static enum grey_error put_nodes(struct store *s, struct json_writer *w, int64_t site_no, struct fault *f) {
    struct store_value in = store_number(site_no);
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_NODES, &in, 1, &rows, f);
    if (rows == NULL) {
        return err;
    }
    json_member_open(w, "nodes", '[');
    while ((err = s->ops->next(rows, &row, f)) == E_OK && row) {
        json_open(w, '{');
        json_member_text(w, "id", s->ops->bytes(rows, 0));
        store_put_time(w, "first_seen", s->ops->number(rows, 1));
        store_put_time(w, "last_spoke", s->ops->number(rows, 2));
        json_close(w);
    }
    json_close(w);
    s->ops->end(rows);
    return err;
}

enum grey_error store_answers_sites(struct store *s, const struct store_query *q, struct json_writer *w, struct fault *f) {
    const struct store_value in[] = {store_bytes(bytes_str(q->after)), store_number(q->limit)};
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_SITES, in, 2, &rows, f);
    if (rows == NULL) {
        return err;
    }
    json_open(w, '[');
    while ((err = s->ops->next(rows, &row, f)) == E_OK && row) {
        json_open(w, '{');
        put_facts(s, rows, w);
        json_close(w);
    }
    json_close(w);
    s->ops->end(rows);
    return err;
}

enum grey_error store_answers_site(struct store *s, const char *site, struct json_writer *w, struct fault *f) {
    struct store_value in = store_bytes(bytes_str(site));
    struct store_rows *rows = NULL;
    bool found = false;
    enum grey_error err = s->ops->ask(s, STORE_SITE, &in, 1, &rows, f);
    if (rows == NULL) {
        return err;
    }
    err = s->ops->next(rows, &found, f);
    if (err == E_OK && found) {
        json_open(w, '{');
        put_facts(s, rows, w);
        err = put_nodes(s, w, s->ops->number(rows, SITE_NO), f);
        json_close(w);
    }
    s->ops->end(rows);
    return err != E_OK ? err : found ? E_OK : E_NOT_FOUND;
}

/* --- events and gaps ------------------------------------------------------------------------------------------------------------------------- */

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
        json_member_text(w, "datacontenttype", e->content_type);
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

static void put_event(const struct store_ops *o, const struct store_rows *rows, const char *site, struct json_writer *w) {
    struct codec_reader r;
    struct event e;
    enum event_channel c = (enum event_channel)o->number(rows, 1);
    codec_reader_init(&r, o->bytes(rows, 6));
    bool readable = record_decode(&r, &e) == E_OK && codec_end(&r) == E_OK;
    json_open(w, '{');
    json_member_str(w, "site", site);
    json_member_str(w, "channel", event_channel_name(c));
    json_member_int(w, "seq", o->number(rows, 2));
    json_member_int(w, "index", o->number(rows, 3));
    store_put_time(w, "log_time", o->number(rows, 4));
    store_put_time(w, "received", o->number(rows, 5));
    if (readable) {
        json_member_text(w, "id", e.id);
        json_member_text(w, "source", e.source);
        json_member_text(w, "type", e.type);
        if (e.subject.size > 0) {
            json_member_text(w, "subject", e.subject);
        }
        json_key(w, "time");
        if (e.time.size > 0) {
            json_text(w, e.time);
        } else {
            json_none(w);
        }
        json_member_str(w, "priority", event_priority_name(e.priority));
        put_data(w, &e);
        json_member_bool(w, "provisional", e.provisional);
        json_key(w, "traceparent");
        if (e.traceparent.size > 0) {
            json_text(w, e.traceparent);
        } else {
            json_none(w);
        }
    } else {
        json_key(w, "record_base64"); /* no record, kept as it came */
        json_base64(w, o->bytes(rows, 6));
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

static void put_gap(const struct store_ops *o, const struct store_rows *rows, const char *site, struct json_writer *w) {
    (void)site;
    json_open(w, '{');
    json_member_str(w, "channel", event_channel_name((enum event_channel)o->number(rows, 1)));
    json_member_int(w, "from_seq", o->number(rows, 2));
    json_member_int(w, "to_seq", o->number(rows, 3));
    json_member_str(w, "reason", sync_gap_reason_name((enum sync_gap_reason)o->number(rows, 4)));
    json_member_int(w, "bytes", o->number(rows, 6));
    store_put_time(w, "received", o->number(rows, 5));
    json_close(w);
}

static enum grey_error ask_page(struct store *s, enum store_statement which, int64_t inc, int c, int64_t after, uint32_t limit,
                                struct store_rows **rows, struct fault *f) {
    const struct store_value in[] = {store_number(inc), store_number(c), store_number(after), store_number(limit)};
    return s->ops->ask(s, which, in, 4, rows, f);
}

/* Rows of `which` of one incarnation and channel behind cursor[2], which follows.  *count: how many there were; *more: the limit or the
 * size of the answer ended it. */
static enum grey_error put_page(struct store *s, enum store_statement which, const char *site, int64_t inc, int c, int64_t after,
                                uint32_t limit, int64_t cursor[3], struct json_writer *w, uint32_t *count, bool *more,
                                struct fault *f) {
    struct store_rows *rows = NULL;
    bool row = false;
    *count = 0;
    enum grey_error err = ask_page(s, which, inc, c, after, limit, &rows, f);
    while (rows != NULL && !*more && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        for (int i = 0; i < 3; i++) {
            cursor[i] = s->ops->number(rows, i);
        }
        (which == STORE_EVENTS ? put_event : put_gap)(s->ops, rows, site, w);
        ++*count;
        *more = *count == limit || w->out->size > ANSWER_BYTES;
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

/* One range of the primary key after the other, from the cursor on. */
static enum grey_error put_rows(struct store *s, enum store_statement which, const char *site, int64_t site_no,
                                const struct store_query *q, int64_t cursor[3], struct json_writer *w, bool *more,
                                struct fault *f) {
    const int64_t from[3] = {cursor[0], cursor[1], cursor[2]};
    const struct store_value in[] = {store_number(site_no), store_number(from[0])};
    struct store_rows *incs = NULL;
    bool row = false;
    uint32_t left = q->limit;
    enum grey_error err = s->ops->ask(s, STORE_INCS, in, 2, &incs, f);
    *more = left == 0;
    while (incs != NULL && !*more && err == E_OK && (err = s->ops->next(incs, &row, f)) == E_OK && row) {
        int64_t inc = s->ops->number(incs, 0);
        bool first = inc == from[0];
        for (int c = first ? (int)from[1] : 0; c < CHANNEL_COUNT && err == E_OK && !*more; c++) {
            int64_t after = first && c == from[1] ? from[2] : 0;
            uint32_t count = q->channel < 0 || q->channel == c ? 1 : 0;
            while (count > 0 && err == E_OK && !*more) { /* a backend may give fewer than there are, when they are large */
                err = put_page(s, which, site, inc, c, after, left, cursor, w, &count, more, f);
                left -= count;
                after = cursor[2];
            }
        }
    }
    if (incs != NULL) {
        s->ops->end(incs);
    }
    return err;
}

static enum grey_error put_list(struct store *s, enum store_statement which, const char *site, const struct store_query *q,
                                struct json_writer *w, struct fault *f) {
    struct store_value in = store_bytes(bytes_str(site));
    int64_t site_no = 0, inc = 0, cursor[3];
    bool found = false, more = false;
    char next[80];
    enum grey_error err = store_row(s, STORE_SITE_FIND, &in, 1, &site_no, 1, &found, f);
    if (err != E_OK || !found) {
        return err != E_OK ? err : E_NOT_FOUND;
    }
    in = store_number(site_no);
    err = store_row(s, STORE_INC_LAST, &in, 1, &inc, 1, &found, f);
    if (err != E_OK) {
        return err;
    }
    if (!parse_cursor(q, inc, cursor)) {
        return fault_set(f, E_BAD_REQUEST, "after: '%.60s' is neither a sequence number nor a cursor of an earlier answer",
                         q->after);
    }
    json_open(w, '{');
    json_key(w, which == STORE_EVENTS ? "events" : "gaps");
    json_open(w, '[');
    err = put_rows(s, which, site, site_no, q, cursor, w, &more, f);
    json_close(w);
    if (which == STORE_EVENTS || more) {
        json_key(w, "next");
        (void)snprintf(next, sizeof next, "%" PRId64 ":%" PRId64 ":%" PRId64, cursor[0], cursor[1], cursor[2]);
        json_str(w, next);
    }
    json_close(w);
    return err;
}

enum grey_error store_answers_events(struct store *s, const char *site, const struct store_query *q, struct json_writer *w,
                                     struct fault *f) {
    return put_list(s, STORE_EVENTS, site, q, w, f);
}

enum grey_error store_answers_gaps(struct store *s, const char *site, const struct store_query *q, struct json_writer *w,
                                   struct fault *f) {
    return put_list(s, STORE_GAPS, site, q, w, f);
}
