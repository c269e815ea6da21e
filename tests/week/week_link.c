/* The leader's end of the uplink in virtual time, over the objects of federation/; the link with its rate, delay, losses and cuts; and a
 * broker that confirms what it has, and hands on what it got even when the site is gone. */
#include <string.h>

#include "agent/state/stretch.h"
#include "federation/frame.h"
#include "federation/record.h"
#include "platform/compress.h"
#include "tests/week/week.h"

#define ON_WAY_MAX 20u
#define SCAN_ROWS 64u
#define CORE_DELAY_MS 20

/* --- messages on their way -------------------------------------------------------------------------------------------------------------- */

static struct message *new_message(struct week *w) {
    for (size_t i = 0; i < WEEK_MESSAGES; i++) {
        if (!w->messages[i].in_use) {
            w->messages[i] = (struct message){.in_use = true};
            return &w->messages[i];
        }
    }
    week_fail(w, "the simulator has no room for a message");
    return &w->messages[0];
}

static void drop_message(struct message *m) {
    blob_unref(m->bytes);
    *m = (struct message){0};
}

/* TCP sends again what was lost: later, and in order. */
static int64_t trip_ms(struct week *w) {
    int64_t ms = w->delay_ms;
    while (week_draw(w, 100) < w->loss_percent) {
        ms += 200 + (int64_t)week_draw(w, 1500);
    }
    return ms;
}

static struct speaker *speaker_of(struct week *w, const struct message *m) {
    struct speaker *s = &w->speakers[m->speaker];
    return s->active && s->connected && s->connection == m->connection ? s : NULL;
}

void link_down_send(struct week *w, enum event_channel c, struct bytes content) {
    struct builder frame;
    builder_init(&frame, 4096);
    frame_write(&frame, FRAME_FLAG_PRIORITY, 1, 0, content);
    for (unsigned i = 0; i < WEEK_SPEAKERS; i++) {
        struct speaker *s = &w->speakers[i];
        if (!s->active || !s->connected || !w->link_up) {
            w->counts[WEEK_LOST_DOWN] += s->active;
            continue;
        }
        struct message *m = new_message(w);
        m->bytes = blob_copy(builder_bytes(&frame));
        m->speaker = i;
        m->channel = (unsigned)c;
        m->connection = s->connection;
        m->due_ms = w->now_ms + CORE_DELAY_MS + trip_ms(w);
        for (size_t k = 0; k < WEEK_MESSAGES; k++) { /* in order */
            const struct message *o = &w->messages[k];
            if (o->in_use && o != m && !o->up && !o->confirmation && o->connection == m->connection && o->due_ms > m->due_ms) {
                m->due_ms = o->due_ms;
            }
        }
    }
    builder_free(&frame);
}

static void end_session(struct speaker *s) {
    s->welcomed = false;
}

static void disconnect(struct week *w, unsigned i) {
    struct speaker *s = &w->speakers[i];
    if (s->leaving != NULL) {
        w->counts[WEEK_MID_FRAME] += s->left_bytes > 0;
        w->counts[WEEK_LOST_UP]++;
        blob_unref(s->leaving);
        s->leaving = NULL;
        s->left_bytes = 0;
    }
    for (size_t k = 0; k < WEEK_MESSAGES; k++) {
        struct message *m = &w->messages[k];
        if (m->in_use && m->connection == s->connection && !m->at_broker) {
            w->counts[m->up ? WEEK_LOST_UP : WEEK_LOST_DOWN] += !m->confirmation;
            w->counts[WEEK_MID_FRAME] += m->up && m->sent_ms < w->now_ms;
            drop_message(m);
        }
    }
    s->connected = false;
    s->on_way = 0;
    end_session(s);
    s->connect_ms = w->now_ms + 1000 + (int64_t)week_draw(w, 20000);
}

void link_cut(struct week *w) {
    w->link_up = false;
    w->counts[WEEK_LINK_CUTS]++;
    for (unsigned i = 0; i < WEEK_SPEAKERS; i++) {
        if (w->speakers[i].active && w->speakers[i].connected) {
            disconnect(w, i);
        }
    }
}

void link_forget(struct week *w) {
    for (unsigned i = 0; i < WEEK_SPEAKERS; i++) {
        if (w->speakers[i].active && w->speakers[i].connected) {
            disconnect(w, i);
        }
        blob_unref(w->speakers[i].leaving);
        w->speakers[i] = (struct speaker){0};
    }
}

void link_lead(struct week *w, unsigned gateway, grey_epoch epoch) {
    unsigned at = 0;
    for (unsigned i = 0; i < WEEK_SPEAKERS; i++) {
        if (w->speakers[i].active && w->speakers[i].epoch + 1 == epoch && week_chance(w, 40)) {
            w->speakers[i].until_ms = w->now_ms + (int64_t)week_draw(w, 20000); /* it does not know yet */
            w->counts[WEEK_DEPOSED]++;
            at = 1 - i;
        } else if (w->speakers[i].active) {
            if (w->speakers[i].connected) {
                disconnect(w, i);
            }
            blob_unref(w->speakers[i].leaving);
            w->speakers[i] = (struct speaker){0};
        }
    }
    struct speaker *s = &w->speakers[at];
    *s = (struct speaker){.active = true, .gateway = gateway, .epoch = epoch, .connect_ms = w->now_ms + 500, .until_ms = INT64_MAX};
    shaper_init(&s->shaper, w->limit_bytes_per_s, (uint64_t)w->now_ms * 1000);
}

/* --- frames ------------------------------------------------------------------------------------------------------------------------------ */

static struct gateway *own(struct week *w, const struct speaker *s) {
    return &w->gateways[s->gateway];
}

static bool push(struct week *w, struct speaker *s, unsigned channel, struct bytes content, uint16_t flags) {
    struct builder frame, packed;
    builder_init(&packed, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&frame, LIMIT_FRAME_PAYLOAD_BYTES + FRAME_OVERHEAD_BYTES);
    if (content.size >= 256) {
        uint8_t size[4];
        bytes_put_be32(size, (uint32_t)content.size);
        builder_add(&packed, bytes_of(size, sizeof size));
        if (compress_lz4(content, &packed) == E_OK && packed.size < content.size) {
            flags |= FRAME_FLAG_COMPRESSED;
            content = builder_bytes(&packed);
        }
    }
    frame_write(&frame, flags, ++s->message_id, 0, content);
    bool ok = frame.err == E_OK && s->leaving == NULL && s->on_way < ON_WAY_MAX;
    if (ok) {
        s->leaving = builder_blob(&frame);
        s->left_bytes = 0;
        s->leaving_channel = channel;
        s->on_way++;
        channel_pace_sent(&s->pace, (uint32_t)frame.size);
    }
    (void)w;
    builder_free(&frame);
    builder_free(&packed);
    return ok;
}

static uint64_t incarnation(struct week *w, const struct speaker *s) {
    struct site_facts f;
    (void)state_site(own(w, s)->state, &f);
    return f.incarnation;
}

static void say_hello(struct week *w, struct speaker *s) {
    struct site_facts site;
    if (!state_site(own(w, s)->state, &site)) {
        return;
    }
    struct sync_hello h = {.incarnation = site.incarnation,
                           .former = site.former,
                           .epoch = s->epoch,
                           .feature_level = UP_LEVEL,
                           .node = bytes_str("gateway"),
                           .time_ms = w->now_ms};
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(own(w, s)->state, (enum event_channel)c, &f);
        h.channels[c].next_seq = f.next_seq;
        h.channels[c].acked_seq = f.acked_seq;
        h.channels[c].former_next = site.former_next[c];
    }
    struct builder b;
    builder_init(&b, 1024);
    sync_put_hello(&b, &h);
    if (push(w, s, CHANNEL_CONTROL, builder_bytes(&b), FRAME_FLAG_PRIORITY)) {
        s->hello_due = false;
        s->hello_ms = w->now_ms;
        s->hello_wait_ms = s->hello_wait_ms * 2 > 300000 ? 300000 : s->hello_wait_ms * 2;
    }
    builder_free(&b);
}

struct source {
    struct week *week;
    const struct outbox_row *rows;
};

static bool record_of(void *context, uint32_t row, struct bytes *record) {
    const struct source *s = context;
    const struct outbox_row *r = &s->rows[row];
    return record_slot(blob_bytes(s->week->log[r->index].payload), r->slot, record) == E_OK;
}

/* One row at or behind a key as a reader of memory and disk sees it. */
static bool next_row(struct gateway *g, enum table_id id, const uint8_t from[9], struct bytes *key, struct bytes *value) {
    struct bytes keys[2], values[2];
    uint8_t at[9];
    raft_index ref;
    memcpy(at, from, sizeof at);
    bool memory = table_next(g->rows, id, bytes_of(from, 9), &keys[0], &values[0], &ref);
    bool disk;
    while ((disk = table_next(g->disk, id, bytes_of(at, 9), &keys[1], &values[1], &ref)) && table_deleted(g->rows, id, keys[1])) {
        memcpy(at, keys[1].data, sizeof at);
        bytes_put_be64(at + 1, bytes_get_be64(at + 1) + 1);
    }
    int take = !memory || (disk && bytes_compare(keys[1], keys[0]) < 0) ? 1 : 0;
    *key = keys[take];
    *value = values[take];
    return memory || disk;
}

static int by_seq(const void *a, const void *b) {
    grey_seq x = ((const struct outbox_row *)a)->seq, y = ((const struct outbox_row *)b)->seq;
    return x < y ? -1 : x > y;
}

static void scan_rows(struct week *w, struct gateway *g, enum event_channel c, grey_seq from, grey_seq *known,
                      struct outbox_row *rows, uint32_t *count) {
    bool hide = !w->calm && week_chance(w, 3);
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        uint8_t at[9];
        struct bytes key, value;
        uint32_t found = 0;
        if (state_list_channel(list) != c || !state_list_waits(g->state, list)) {
            continue;
        }
        state_outbox_key(list, from, at);
        while (next_row(g, TABLE_OUTBOX, at, &key, &value) && key.data[0] == list) {
            struct outbox_row row;
            if (state_outbox_row(key, value, &row) != E_OK) {
                week_fail(w, "a row of the outbox cannot be read");
                return;
            }
            if (found == SCAN_ROWS) {
                *known = row.seq - 1 < *known ? row.seq - 1 : *known;
                break;
            }
            found++;
            if (hide && week_chance(w, 20)) {
                w->counts[WEEK_HIDDEN]++; /* it moves from memory to disk just now: the frame has to end before it */
                hide = false;
            } else if (row.seq <= *known) {
                rows[(*count)++] = row;
            }
            state_outbox_key(list, row.seq + 1, at);
        }
    }
    qsort(rows, *count, sizeof *rows, by_seq);
    while (*count > 0 && rows[*count - 1].seq > *known) {
        --*count;
    }
}

static void cut_to_size(struct outbox_row *rows, uint32_t *count, grey_seq *known, uint32_t bytes_max) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < *count; i++) {
        bytes += rows[i].bytes;
        if ((bytes > bytes_max && i > 0) || i == 512) {
            *known = rows[i].seq - 1;
            *count = i;
        }
    }
}

static void send_frame(struct week *w, struct speaker *s, enum event_channel c, const bool waiting[CHANNEL_COUNT]) {
    static struct outbox_row rows[STATE_LISTS * SCAN_ROWS];
    static struct sync_item items[SYNC_ITEMS_MAX];
    static struct sync_gap gaps[SYNC_GAPS_MAX];
    struct gateway *g = own(w, s);
    struct channel_facts f;
    uint32_t count = 0;
    state_channel(g->state, c, &f);
    grey_seq from = channel_next(&s->out[c], f.acked_seq, f.next_seq), known = f.next_seq - 1;
    scan_rows(w, g, c, from, &known, rows, &count);
    cut_to_size(rows, &count, &known, channel_pace_frame_bytes(&s->pace));
    struct stretch stretch;
    uint8_t at[9];
    struct bytes key, value;
    stretch_begin(&stretch, from);
    state_gap_key(c, from, at);
    while (next_row(g, TABLE_GAP, at, &key, &value) && key.data[0] == (uint8_t)c && !stretch_enough(&stretch, known)) {
        if (stretch_add(&stretch, key, value) != E_OK) {
            week_fail(w, "a gap row cannot be read");
            stretch_free(&stretch);
            return;
        }
        state_gap_key(c, stretch.seen + 1, at);
    }
    struct source source = {.week = w, .rows = rows};
    struct sync_events e = {.channel = c};
    stretch_events(&stretch, rows, count, known, record_of, &source, items, gaps, &e);
    stretch_free(&stretch);
    if (e.to_seq < e.from_seq) {
        s->wait_until_ms = w->now_ms + 250;
        return;
    }
    e.incarnation = incarnation(w, s);
    e.epoch = s->epoch;
    e.sized_gaps = s->sized_gaps;
    struct builder content;
    builder_init(&content, LIMIT_FRAME_PAYLOAD_BYTES);
    sync_put_events(&content, &e);
    if (content.err != E_OK) {
        week_fail(w, "a frame does not fit");
    } else if (push(w, s, c, builder_bytes(&content), FRAME_FLAG_IDEMPOTENT)) {
        channel_turn_took(&s->turns, waiting, c, (uint32_t)content.size);
        channel_sent(&s->out[c], e.to_seq, (uint32_t)content.size);
        week_note(w, "speaker of epoch %" PRIu64 " sends %s %" PRIu64 "..%" PRIu64, s->epoch, event_channel_name(c), e.from_seq,
                  e.to_seq);
    }
    builder_free(&content);
}

static void pump(struct week *w, struct speaker *s) {
    if (!s->connected || s->leaving != NULL || w->now_ms < s->wait_until_ms || s->on_way >= ON_WAY_MAX) {
        return;
    }
    if (s->hello_due) {
        say_hello(w, s);
        return;
    }
    if (!s->welcomed || !channel_pace_room(&s->pace)) {
        return;
    }
    bool waiting[CHANNEL_COUNT];
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(own(w, s)->state, (enum event_channel)c, &f);
        waiting[c] = channel_next(&s->out[c], f.acked_seq, f.next_seq) != 0 && channel_room(&s->out[c]) && s->out[c].frames < 16;
    }
    enum event_channel c = channel_turn(&s->turns, waiting);
    if (c != CHANNEL_COUNT) {
        send_frame(w, s, c, waiting);
    }
}

/* --- acknowledgements ---------------------------------------------------------------------------------------------------------------------- */

static void propose_acks(struct week *w, struct speaker *s) {
    if (s->epoch != w->epoch || own(w, s) != site_leader(w) || w->now_ms < s->proposed_ms + 500) {
        return; /* a deposed leader's proposals come to nothing */
    }
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(own(w, s)->state, (enum event_channel)c, &f);
        if (s->out[c].acked <= f.acked_seq) {
            continue;
        }
        struct builder b;
        builder_init(&b, 256);
        payload_ack(&b, incarnation(w, s), (enum event_channel)c, s->out[c].acked);
        if (site_propose(w, ENTRY_ACK, builder_bytes(&b))) {
            s->proposed_ms = w->now_ms;
        }
        builder_free(&b);
    }
}

static void begin_again(struct speaker *s) {
    end_session(s);
    s->hello_due = true;
}

static void take_welcome(struct week *w, struct speaker *s, const struct sync_welcome *m) {
    if (s->welcomed || m->epoch != s->epoch || m->incarnation != incarnation(w, s)) {
        return;
    }
    s->welcomed = true;
    s->sized_gaps = (m->codings & CODING_GAP_BYTES) != 0;
    s->hello_due = false;
    s->hello_wait_ms = 1500;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(own(w, s)->state, (enum event_channel)c, &f);
        if (m->position[c] >= f.next_seq) {
            begin_again(s); /* a deposed leader, which has not applied what the next one gave */
            return;
        }
        channel_begin(&s->out[c], f.acked_seq);
        (void)channel_acked(&s->out[c], m->position[c]);
    }
    s->waiting_since_ms = 0;
}

static void take_down(struct week *w, struct speaker *s, struct bytes bytes) {
    struct frame f;
    size_t used, need;
    enum grey_error why;
    struct builder scratch;
    struct bytes content;
    struct sync_welcome m;
    struct sync_ack a;
    builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    if (frame_read(bytes, &f, &used, &need, &why) != FRAME_READY || frame_content(&f, &scratch, &content) != E_OK) {
        week_fail(w, "a message of the core arrives damaged");
    } else if (sync_kind(content) == MESSAGE_DOWN_WELCOME && sync_get_welcome(content, &m) == E_OK) {
        take_welcome(w, s, &m);
    } else if (sync_kind(content) == MESSAGE_DOWN_RESYNC && sync_get_resync(content, &m) == E_OK) {
        if (m.incarnation == incarnation(w, s) && m.epoch <= s->epoch && !s->hello_due && w->now_ms >= s->hello_ms + 2000) {
            s->hello_wait_ms = 1500;
            begin_again(s);
        }
    } else if (sync_kind(content) == MESSAGE_DOWN_ACK && sync_get_ack(content, &a) == E_OK) {
        struct channel_facts facts;
        state_channel(own(w, s)->state, a.channel, &facts);
        if (a.incarnation == incarnation(w, s) && a.epoch == s->epoch && s->welcomed && a.acked_seq < facts.next_seq &&
            channel_acked(&s->out[a.channel], a.acked_seq)) {
            s->waiting_since_ms = w->now_ms;
            s->patience_ms = 15000;
        }
    } else {
        week_fail(w, "a message of the core cannot be read");
    }
    builder_free(&scratch);
}

/* --- the link ---------------------------------------------------------------------------------------------------------------------------------- */

static void count_second(struct week *w, size_t bytes) {
    if (w->now_ms >= w->second_began_ms + 1000) {
        w->second_began_ms = w->now_ms;
        w->second_bytes = 0;
    }
    w->second_bytes += bytes;
    if (w->limit_bytes_per_s > 0 && w->second_bytes > w->limit_bytes_per_s + SHAPER_MTU_BYTES * WEEK_SPEAKERS) {
        week_fail(w, "%" PRIu64 " bytes left within a second, the limit is %" PRIu64, w->second_bytes, w->limit_bytes_per_s);
    }
}

static const struct shaper_path path = {.segment_bytes = 1448, .header_bytes = 52}; /* IPv4, TCP with time stamps, Ethernet's MTU */

/* What the shaper grants leaves; a whole frame is under way to the broker. */
static void leave(struct week *w, unsigned i) {
    struct speaker *s = &w->speakers[i];
    while (s->leaving != NULL && w->now_ms >= s->wait_until_ms) {
        size_t size = blob_bytes(s->leaving).size;
        size_t granted = shaper_grant(&s->shaper, &path, (uint64_t)w->now_ms * 1000, size - s->left_bytes);
        if (granted == 0) {
            s->wait_until_ms = w->now_ms + 1 + (int64_t)(shaper_wait_us(&s->shaper, &path, size - s->left_bytes) / 1000);
            return;
        }
        s->left_bytes += granted;
        uint64_t wire_bytes = shaper_wire_bytes(&path, granted);
        w->counts[WEEK_WIRE_BYTES] += wire_bytes;
        count_second(w, wire_bytes);
        if (s->left_bytes == size) {
            struct message *m = new_message(w);
            m->bytes = s->leaving;
            m->up = true;
            m->speaker = i;
            m->channel = s->leaving_channel;
            m->connection = s->connection;
            m->sent_ms = w->now_ms;
            int64_t begins_ms = s->wire_busy_ms > w->now_ms ? s->wire_busy_ms : w->now_ms;
            s->wire_busy_ms = begins_ms + (int64_t)(size * 1000 / w->link_bytes_per_s) + 1;
            m->due_ms = s->wire_busy_ms + trip_ms(w);
            s->wire_busy_ms = m->due_ms - w->delay_ms > s->wire_busy_ms ? m->due_ms - w->delay_ms : s->wire_busy_ms;
            s->leaving = NULL;
            s->left_bytes = 0;
        }
    }
}

static void deliver(struct week *w, struct message *m) {
    struct speaker *s = speaker_of(w, m);
    if (m->confirmation) {
        if (s != NULL) {
            s->on_way--;
            channel_pace_confirmed(&s->pace, (uint32_t)blob_bytes(m->bytes).size, (uint32_t)(w->now_ms - m->sent_ms),
                                   (uint64_t)w->now_ms);
            s->waiting_since_ms = s->waiting_since_ms == 0 ? w->now_ms : s->waiting_since_ms;
        }
    } else if (!m->up) {
        if (s != NULL) {
            take_down(w, s, blob_bytes(m->bytes));
        }
    } else if (!m->at_broker) { /* the broker confirms, and hands on */
        struct message *back = new_message(w);
        *back = *m;
        back->bytes = blob_ref(m->bytes);
        back->up = false;
        back->confirmation = true;
        back->due_ms = w->now_ms + trip_ms(w);
        m->at_broker = true;
        m->due_ms = w->now_ms + CORE_DELAY_MS + (!w->calm && week_chance(w, 1) ? (int64_t)week_draw(w, 60000) : 0);
        return;
    } else if (!w->core_up) {
        w->counts[WEEK_LOST_UP]++;
    } else {
        core_take(w, blob_bytes(m->bytes), m->channel);
        if (!w->calm && week_chance(w, 1)) { /* QoS 1: perhaps twice */
            w->counts[WEEK_TWICE]++;
            m->due_ms = w->now_ms + 1 + (int64_t)week_draw(w, 30000);
            return;
        }
    }
    drop_message(m);
}

int64_t link_due(const struct week *w) {
    int64_t due_ms = INT64_MAX;
    for (size_t i = 0; i < WEEK_MESSAGES; i++) {
        due_ms = w->messages[i].in_use && w->messages[i].due_ms < due_ms ? w->messages[i].due_ms : due_ms;
    }
    for (unsigned i = 0; i < WEEK_SPEAKERS; i++) {
        const struct speaker *s = &w->speakers[i];
        if (!s->active) {
            continue;
        }
        bool busy = s->leaving != NULL || !s->welcomed || s->on_way > 0;
        for (int c = 0; c < CHANNEL_COUNT; c++) {
            busy = busy || s->out[c].frames > 0 || s->out[c].acked > w->truth.acked[c];
        }
        int64_t own_ms = w->now_ms + (busy ? 1000 : 600000); /* what comes in wakes it as well */
        own_ms = s->connected ? own_ms : w->link_up ? s->connect_ms : INT64_MAX;
        own_ms = s->leaving != NULL ? s->wait_until_ms : own_ms;
        own_ms = s->wait_until_ms > w->now_ms && s->wait_until_ms < own_ms ? s->wait_until_ms : own_ms;
        own_ms = s->until_ms < own_ms ? s->until_ms : own_ms;
        due_ms = own_ms < due_ms ? own_ms : due_ms;
    }
    return due_ms <= w->now_ms ? w->now_ms + 1 : due_ms;
}

static void look_after(struct week *w, struct speaker *s) {
    if (!s->welcomed && !s->hello_due && w->now_ms >= s->hello_ms + s->hello_wait_ms) {
        s->hello_due = true;
    }
    bool frames = false;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        frames = frames || s->out[c].frames > 0;
    }
    if (s->welcomed && frames && s->waiting_since_ms > 0 && w->now_ms >= s->waiting_since_ms + s->patience_ms) {
        s->patience_ms = s->patience_ms * 2 > 240000 ? 240000 : s->patience_ms * 2;
        s->waiting_since_ms = 0;
        w->counts[WEEK_SILENCE]++;
        begin_again(s);
    }
}

void link_act(struct week *w) {
    for (size_t guard = 0; guard < WEEK_MESSAGES && !w->failed; guard++) { /* in the order of their time */
        struct message *first = NULL;
        for (size_t i = 0; i < WEEK_MESSAGES; i++) {
            struct message *m = &w->messages[i];
            first = m->in_use && m->due_ms <= w->now_ms && (first == NULL || m->due_ms < first->due_ms) ? m : first;
        }
        if (first == NULL) {
            break;
        }
        deliver(w, first);
    }
    for (unsigned i = 0; i < WEEK_SPEAKERS && !w->failed; i++) {
        struct speaker *s = &w->speakers[i];
        if (!s->active) {
            continue;
        }
        if (w->now_ms >= s->until_ms) {
            if (s->connected) {
                disconnect(w, i);
            }
            blob_unref(s->leaving);
            *s = (struct speaker){0};
            continue;
        }
        if (!s->connected && w->link_up && w->now_ms >= s->connect_ms) {
            s->connected = true;
            s->connection = ++w->connections;
            s->hello_due = true;
            s->hello_wait_ms = 1500;
            s->patience_ms = 15000;
            s->wire_busy_ms = w->now_ms;
            channel_pace_begin(&s->pace, w->limit_bytes_per_s);
        }
        if (s->connected) {
            look_after(w, s);
            leave(w, i);
            for (int k = 0; k < 8 && s->leaving == NULL; k++) {
                pump(w, s);
                leave(w, i);
            }
            propose_acks(w, s);
        }
    }
}
