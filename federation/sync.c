#include "federation/sync.h"

#include <string.h>

#include "federation/credit.h"
#include "include/grey/limits.h"

#define PART_TOTAL_BYTES_MAX (LIMIT_FRAME_PAYLOAD_BYTES + FRAME_OVERHEAD_BYTES)
#define RECORD_BYTES_MAX (LIMIT_EVENT_BYTES + 8u * LIMIT_EVENT_FIELD_BYTES + 64u)

const char *sync_gap_reason_name(enum sync_gap_reason r) {
    switch (r) {
    case SYNC_GAP_EVICTED:
        return "evicted";
    case SYNC_GAP_CORE_RESTORED:
        return "core-restored";
    case SYNC_GAP_UNREADABLE:
        return "unreadable";
    case SYNC_GAP_EXPIRED:
        return "expired";
    }
    return "?";
}

static void head(struct builder *out, enum message_kind kind, unsigned fields) {
    codec_put_array(out, 1u + fields);
    codec_put_uint(out, (uint64_t)kind);
}

void sync_put_hello(struct builder *out, const struct sync_hello *h) {
    head(out, MESSAGE_UP_HELLO, h->down_bytes_per_s != 0 ? 8 : h->former != 0 ? 7 : 6);
    codec_put_uint(out, h->incarnation);
    codec_put_uint(out, h->epoch);
    codec_put_uint(out, h->feature_level);
    codec_put_text(out, h->node);
    codec_put_int(out, h->time_ms);
    codec_put_array(out, CHANNEL_COUNT);
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        codec_put_array(out, 2);
        codec_put_uint(out, h->channels[i].next_seq);
        codec_put_uint(out, h->channels[i].acked_seq);
    }
    if (h->former != 0) {
        codec_put_array(out, 1 + CHANNEL_COUNT);
        codec_put_uint(out, h->former);
        for (int i = 0; i < CHANNEL_COUNT; i++) {
            codec_put_uint(out, h->channels[i].former_next);
        }
    } else if (h->down_bytes_per_s != 0) {
        codec_put_array(out, 0);
    }
    if (h->down_bytes_per_s != 0) {
        codec_put_uint(out, h->down_bytes_per_s);
    }
}

/* [kind, incarnation, epoch, channel, from, to, [[seq - from, index, time, record] ...], [[from, to, reason, bytes] ...]] */
void sync_put_events(struct builder *out, const struct sync_events *e) {
    head(out, MESSAGE_UP_EVENTS, 7);
    codec_put_uint(out, e->incarnation);
    codec_put_uint(out, e->epoch);
    codec_put_uint(out, (uint64_t)e->channel);
    codec_put_uint(out, e->from_seq);
    codec_put_uint(out, e->to_seq);
    codec_put_array(out, e->item_count);
    for (uint32_t i = 0; i < e->item_count; i++) {
        const struct sync_item *item = &e->items[i];
        codec_put_array(out, 4);
        codec_put_uint(out, item->seq - e->from_seq);
        codec_put_uint(out, item->index);
        codec_put_int(out, item->time_ms);
        codec_put_bytes(out, item->record);
    }
    codec_put_array(out, e->gap_count);
    for (uint32_t i = 0; i < e->gap_count; i++) {
        enum sync_gap_reason reason = e->gaps[i].reason;
        codec_put_array(out, e->sized_gaps ? 4 : 3);
        codec_put_uint(out, e->gaps[i].from_seq);
        codec_put_uint(out, e->gaps[i].to_seq);
        codec_put_uint(out, (uint64_t)(!e->sized_gaps && reason == SYNC_GAP_EXPIRED ? SYNC_GAP_EVICTED : reason));
        if (e->sized_gaps) {
            codec_put_uint(out, e->gaps[i].bytes);
        }
    }
}

void sync_put_squeezed(struct builder *out, const struct sync_squeezed *q) {
    head(out, MESSAGE_UP_SQUEEZED, 9);
    codec_put_uint(out, q->incarnation);
    codec_put_uint(out, q->epoch);
    codec_put_uint(out, (uint64_t)q->channel);
    codec_put_uint(out, q->from_seq);
    codec_put_uint(out, q->to_seq);
    codec_put_uint(out, q->session);
    codec_put_uint(out, q->serial);
    codec_put_uint(out, q->sum);
    codec_put_bytes(out, q->packed);
}

void sync_put_part(struct builder *out, const struct sync_part *p) {
    head(out, MESSAGE_UP_PART, 5);
    codec_put_uint(out, p->epoch);
    codec_put_uint(out, p->number);
    codec_put_uint(out, p->offset);
    codec_put_uint(out, p->total_bytes);
    codec_put_bytes(out, p->bytes);
}

/* A site that did not ask for codings is not told of them: the last field is there only with some. */
static void put_positions(struct builder *out, enum message_kind kind, const struct sync_welcome *w, uint32_t codings) {
    head(out, kind, codings != 0 ? 5 : 4);
    codec_put_uint(out, w->incarnation);
    codec_put_uint(out, w->epoch);
    codec_put_array(out, CHANNEL_COUNT);
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        codec_put_uint(out, w->position[i]);
    }
    codec_put_int(out, w->time_ms);
    if (codings != 0) {
        codec_put_uint(out, codings);
    }
}

void sync_put_welcome(struct builder *out, const struct sync_welcome *w) {
    put_positions(out, MESSAGE_DOWN_WELCOME, w, w->codings);
}

void sync_put_resync(struct builder *out, const struct sync_welcome *w) {
    put_positions(out, MESSAGE_DOWN_RESYNC, w, 0);
}

void sync_put_ack(struct builder *out, const struct sync_ack *a) {
    bool full = a->credit_bytes == CREDIT_BYTES_FULL;
    head(out, MESSAGE_DOWN_ACK, full ? 4 : 5);
    codec_put_uint(out, a->incarnation);
    codec_put_uint(out, a->epoch);
    codec_put_uint(out, (uint64_t)a->channel);
    codec_put_uint(out, a->acked_seq);
    if (!full) {
        codec_put_uint(out, a->credit_bytes);
    }
}

void sync_put_route(struct builder *out, const struct sync_route *r) {
    head(out, MESSAGE_DOWN_ROUTE, 3);
    codec_put_uint(out, r->incarnation);
    codec_put_uint(out, r->epoch);
    codec_put_text(out, bytes_str(r->route));
}

static enum message_kind attest_kind(enum exchange_word w) {
    return exchange_goes_up(w) ? MESSAGE_UP_ATTEST : MESSAGE_DOWN_ATTEST;
}

void sync_put_attest(struct builder *out, const struct sync_attest *a) {
    head(out, attest_kind(a->word), 3);
    codec_put_text(out, a->node);
    codec_put_uint(out, (uint64_t)a->word);
    codec_put_bytes(out, a->body);
}

/* --- reading ------------------------------------------------------------------------------------------------------------------------------ */

static void want(struct codec_reader *r, uint64_t count) {
    if (codec_array(r, count) != count && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

static void begin(struct codec_reader *r, struct bytes content, enum message_kind kind, unsigned fields) {
    codec_reader_init(r, content);
    want(r, 1u + fields);
    if (codec_uint(r, UINT16_MAX) != (uint64_t)kind && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

enum message_kind sync_kind(struct bytes content) {
    struct codec_reader r;
    codec_reader_init(&r, content);
    (void)codec_array(&r, 32);
    uint64_t kind = codec_uint(&r, UINT16_MAX);
    return r.err == E_OK ? (enum message_kind)kind : (enum message_kind)0;
}

enum grey_error sync_get_hello(struct bytes content, struct sync_hello *h) {
    struct codec_reader r;
    memset(h, 0, sizeof *h);
    codec_reader_init(&r, content);
    uint64_t items = codec_array(&r, 9);
    bool paced = items == 9, rebuilt = items == 8;
    begin(&r, content, MESSAGE_UP_HELLO, paced ? 8 : rebuilt ? 7 : 6);
    h->incarnation = codec_uint(&r, INT64_MAX);
    h->epoch = codec_uint(&r, INT64_MAX);
    h->feature_level = (uint32_t)codec_uint(&r, UINT32_MAX);
    h->node = codec_text(&r, LIMIT_NAME_BYTES);
    h->time_ms = codec_int(&r);
    want(&r, CHANNEL_COUNT);
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        want(&r, 2);
        h->channels[i].next_seq = codec_uint(&r, INT64_MAX);
        h->channels[i].acked_seq = codec_uint(&r, INT64_MAX);
        if (r.err == E_OK && h->channels[i].acked_seq >= h->channels[i].next_seq) {
            r.err = E_BAD_MESSAGE;
        }
    }
    if (paced) { /* what was rebuilt is named in any case, perhaps as nothing */
        struct codec_reader ahead = r;
        rebuilt = codec_array(&ahead, 1 + CHANNEL_COUNT) != 0;
        if (!rebuilt) {
            r = ahead;
        }
    }
    if (rebuilt) {
        want(&r, 1 + CHANNEL_COUNT);
        h->former = codec_uint(&r, INT64_MAX);
        for (int i = 0; i < CHANNEL_COUNT; i++) {
            h->channels[i].former_next = codec_uint(&r, INT64_MAX);
            if (r.err == E_OK &&
                (h->channels[i].former_next == 0 || h->channels[i].former_next > h->channels[i].next_seq || h->former == 0)) {
                r.err = E_BAD_MESSAGE;
            }
        }
    }
    if (paced) {
        h->down_bytes_per_s = codec_uint(&r, INT64_MAX);
        r.err = r.err == E_OK && h->down_bytes_per_s == 0 ? E_BAD_MESSAGE : r.err;
    }
    if (r.err == E_OK && (h->incarnation == 0 || !grey_name_valid((const char *)h->node.data, h->node.size))) {
        r.err = E_BAD_MESSAGE;
    }
    return codec_end(&r);
}

/* Every number from from_seq to to_seq stands in exactly one item or gap. */
static bool covers(const struct sync_events *e) {
    grey_seq next = e->from_seq;
    uint32_t item = 0, gap = 0;
    while (item < e->item_count || gap < e->gap_count) {
        if (item < e->item_count && e->items[item].seq == next) {
            next = e->items[item++].seq + 1;
        } else if (gap < e->gap_count && e->gaps[gap].from_seq == next && e->gaps[gap].to_seq >= next) {
            next = e->gaps[gap++].to_seq + 1;
        } else {
            return false;
        }
    }
    return next == e->to_seq + 1;
}

enum grey_error sync_get_events(struct bytes content, struct sync_events *e, struct sync_item *items, struct sync_gap *gaps) {
    struct codec_reader r;
    memset(e, 0, sizeof *e);
    begin(&r, content, MESSAGE_UP_EVENTS, 7);
    e->incarnation = codec_uint(&r, INT64_MAX);
    e->epoch = codec_uint(&r, INT64_MAX);
    e->channel = (enum event_channel)codec_uint(&r, CHANNEL_COUNT - 1);
    e->from_seq = codec_uint(&r, INT64_MAX - 1);
    e->to_seq = codec_uint(&r, INT64_MAX - 1);
    e->item_count = (uint32_t)codec_array(&r, SYNC_ITEMS_MAX);
    for (uint32_t i = 0; i < e->item_count && r.err == E_OK; i++) {
        want(&r, 4);
        items[i].seq = e->from_seq + codec_uint(&r, INT64_MAX - 1); /* both below 2^63: no overflow */
        items[i].index = codec_uint(&r, INT64_MAX);
        items[i].time_ms = codec_int(&r);
        items[i].record = codec_bytes(&r, RECORD_BYTES_MAX);
    }
    e->gap_count = (uint32_t)codec_array(&r, SYNC_GAPS_MAX);
    for (uint32_t i = 0; i < e->gap_count && r.err == E_OK; i++) {
        uint64_t fields = codec_array(&r, 4);
        if (i > 0 && e->sized_gaps != (fields == 4) && r.err == E_OK) {
            r.err = E_BAD_MESSAGE; /* all of a frame are of one form */
        }
        e->sized_gaps = fields == 4;
        r.err = r.err == E_OK && fields < 3 ? E_BAD_MESSAGE : r.err;
        gaps[i].from_seq = codec_uint(&r, INT64_MAX - 1);
        gaps[i].to_seq = codec_uint(&r, INT64_MAX - 1);
        gaps[i].reason = (enum sync_gap_reason)codec_uint(&r, e->sized_gaps ? SYNC_GAP_EXPIRED : SYNC_GAP_UNREADABLE);
        gaps[i].bytes = e->sized_gaps ? codec_uint(&r, INT64_MAX) : 0;
        r.err = r.err == E_OK && gaps[i].reason < SYNC_GAP_EVICTED ? E_BAD_MESSAGE : r.err;
    }
    e->items = items;
    e->gaps = gaps;
    if (r.err == E_OK && (e->incarnation == 0 || e->from_seq == 0 || e->to_seq < e->from_seq || !covers(e))) {
        r.err = E_BAD_MESSAGE;
    }
    enum grey_error err = codec_end(&r);
    if (err != E_OK) {
        e->item_count = e->gap_count = 0;
    }
    return err;
}

static enum grey_error get_positions(struct bytes content, enum message_kind kind, struct sync_welcome *w) {
    struct codec_reader r;
    memset(w, 0, sizeof *w);
    codec_reader_init(&r, content);
    bool coded = kind == MESSAGE_DOWN_WELCOME && codec_array(&r, 6) == 6;
    begin(&r, content, kind, coded ? 5 : 4);
    w->incarnation = codec_uint(&r, INT64_MAX);
    w->epoch = codec_uint(&r, INT64_MAX);
    want(&r, CHANNEL_COUNT);
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        w->position[i] = codec_uint(&r, INT64_MAX);
    }
    w->time_ms = codec_int(&r);
    if (coded) {
        w->codings = (uint32_t)codec_uint(&r, UINT32_MAX);
        r.err = r.err == E_OK && w->codings == 0 ? E_BAD_MESSAGE : r.err;
    }
    return codec_end(&r);
}

enum grey_error sync_get_part(struct bytes content, struct sync_part *p) {
    struct codec_reader r;
    memset(p, 0, sizeof *p);
    begin(&r, content, MESSAGE_UP_PART, 5);
    p->epoch = codec_uint(&r, INT64_MAX);
    p->number = codec_uint(&r, INT64_MAX);
    p->offset = (uint32_t)codec_uint(&r, PART_TOTAL_BYTES_MAX);
    p->total_bytes = (uint32_t)codec_uint(&r, PART_TOTAL_BYTES_MAX);
    p->bytes = codec_bytes(&r, LIMIT_FRAME_PAYLOAD_BYTES);
    if (r.err == E_OK && (p->bytes.size == 0 || p->bytes.size > p->total_bytes || p->offset > p->total_bytes - p->bytes.size)) {
        r.err = E_BAD_MESSAGE;
    }
    return codec_end(&r);
}

enum grey_error sync_get_squeezed(struct bytes content, struct sync_squeezed *q) {
    struct codec_reader r;
    memset(q, 0, sizeof *q);
    begin(&r, content, MESSAGE_UP_SQUEEZED, 9);
    q->incarnation = codec_uint(&r, INT64_MAX);
    q->epoch = codec_uint(&r, INT64_MAX);
    q->channel = (enum event_channel)codec_uint(&r, CHANNEL_COUNT - 1);
    q->from_seq = codec_uint(&r, INT64_MAX - 1);
    q->to_seq = codec_uint(&r, INT64_MAX - 1);
    q->session = (uint32_t)codec_uint(&r, UINT32_MAX);
    q->serial = (uint32_t)codec_uint(&r, UINT32_MAX);
    q->sum = (uint32_t)codec_uint(&r, UINT32_MAX);
    q->packed = codec_bytes(&r, LIMIT_FRAME_PAYLOAD_BYTES);
    if (r.err == E_OK && (q->incarnation == 0 || q->from_seq == 0 || q->to_seq < q->from_seq)) {
        r.err = E_BAD_MESSAGE;
    }
    return codec_end(&r);
}

enum grey_error sync_get_welcome(struct bytes content, struct sync_welcome *w) {
    return get_positions(content, MESSAGE_DOWN_WELCOME, w);
}

enum grey_error sync_get_resync(struct bytes content, struct sync_welcome *w) {
    return get_positions(content, MESSAGE_DOWN_RESYNC, w);
}

enum grey_error sync_get_ack(struct bytes content, struct sync_ack *a) {
    struct codec_reader r;
    memset(a, 0, sizeof *a);
    codec_reader_init(&r, content);
    bool full = codec_array(&r, 6) != 6;
    begin(&r, content, MESSAGE_DOWN_ACK, full ? 4 : 5);
    a->incarnation = codec_uint(&r, INT64_MAX);
    a->epoch = codec_uint(&r, INT64_MAX);
    a->channel = (enum event_channel)codec_uint(&r, CHANNEL_COUNT - 1);
    a->acked_seq = codec_uint(&r, INT64_MAX);
    a->credit_bytes = full ? CREDIT_BYTES_FULL : (uint32_t)codec_uint(&r, UINT32_MAX);
    if (!full && a->credit_bytes == CREDIT_BYTES_FULL && r.err == E_OK) {
        r.err = E_BAD_MESSAGE; /* one form for one word */
    }
    return codec_end(&r);
}

/* It becomes part of a topic. */
static bool route_valid(struct bytes route) {
    bool good = route.size > 0 && route.size <= ROUTE_BYTES_MAX;
    for (size_t i = 0; i < route.size && good; i++) {
        good = (route.data[i] >= 'a' && route.data[i] <= 'z') || (route.data[i] >= '0' && route.data[i] <= '9');
    }
    return good;
}

enum grey_error sync_get_route(struct bytes content, struct sync_route *r) {
    struct codec_reader reader;
    memset(r, 0, sizeof *r);
    begin(&reader, content, MESSAGE_DOWN_ROUTE, 3);
    r->incarnation = codec_uint(&reader, INT64_MAX);
    r->epoch = codec_uint(&reader, INT64_MAX);
    struct bytes route = codec_text(&reader, ROUTE_BYTES_MAX);
    if (reader.err == E_OK && !route_valid(route)) {
        reader.err = E_BAD_MESSAGE;
    }
    if (reader.err == E_OK) {
        memcpy(r->route, route.data, route.size);
    }
    return codec_end(&reader);
}

enum grey_error sync_get_attest(struct bytes content, struct sync_attest *a) {
    struct codec_reader r;
    memset(a, 0, sizeof *a);
    enum message_kind kind = sync_kind(content) == MESSAGE_UP_ATTEST ? MESSAGE_UP_ATTEST : MESSAGE_DOWN_ATTEST;
    begin(&r, content, kind, 3);
    a->node = codec_text(&r, LIMIT_NAME_BYTES);
    a->word = (enum exchange_word)codec_uint(&r, EXCHANGE_WORDS - 1);
    a->body = codec_bytes(&r, SYNC_ATTEST_BODY_BYTES_MAX);
    if (r.err == E_OK &&
        (a->word < EXCHANGE_ASK || attest_kind(a->word) != kind || !grey_name_valid((const char *)a->node.data, a->node.size))) {
        r.err = E_BAD_MESSAGE;
    }
    return codec_end(&r);
}

/* --- topics ---------------------------------------------------------------------------------------------------------------------------------- */

static char *add(char *at, const char *text) {
    size_t size = strlen(text);
    memcpy(at, text, size + 1);
    return at + size;
}

void sync_topic(char out[TOPIC_BYTES_MAX], const char *site, bool up, enum event_channel c) {
    char *at = add(out, TOPIC_PREFIX);
    at = add(at, site);
    at = add(at, up ? "/up/" : "/down/");
    (void)add(at, event_channel_name(c));
}

void sync_topic_routed(char out[TOPIC_BYTES_MAX], const char *site, enum event_channel c, const char *route) {
    sync_topic(out, site, true, c);
    if (route[0] != 0) {
        char *at = add(out + strlen(out), "/");
        (void)add(at, route);
    }
}

bool sync_topic_parse(const char *topic, bool up, struct grey_name *site, enum event_channel *c) {
    size_t prefix = strlen(TOPIC_PREFIX);
    if (strncmp(topic, TOPIC_PREFIX, prefix) != 0) {
        return false;
    }
    topic += prefix;
    const char *slash = memchr(topic, '/', strlen(topic));
    size_t size = slash == NULL ? 0 : (size_t)(slash - topic);
    if (!grey_name_valid(topic, size)) {
        return false;
    }
    memcpy(site->text, topic, size);
    site->text[size] = 0;
    const char *way = up ? "/up/" : "/down/";
    if (strncmp(slash, way, strlen(way)) != 0) {
        return false;
    }
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        const char *name = event_channel_name((enum event_channel)i), *rest = slash + strlen(way);
        size_t length = strlen(name);
        if (strncmp(rest, name, length) != 0) {
            continue;
        }
        rest += length;
        if (*rest == 0 || (up && *rest == '/' && route_valid(bytes_str(rest + 1)))) {
            *c = (enum event_channel)i;
            return true;
        }
    }
    return false;
}

static_assert(sizeof TOPIC_PREFIX + LIMIT_NAME_BYTES + sizeof "/down/control/" + ROUTE_BYTES_MAX <= TOPIC_BYTES_MAX,
              "every topic fits");
