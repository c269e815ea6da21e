/* The core: what core/store.c promises, in memory; it takes frames as they come from the broker, and judges each number by the truth. */
#include <string.h>

#include "federation/credit.h"
#include "federation/frame.h"
#include "platform/compress.h"
#include "tests/week/week.h"

static struct core_number *number(struct core_channel *c, grey_seq seq) {
    if (seq >= c->room) {
        size_t room = c->room == 0 ? 4096 : c->room;
        while (room <= seq) {
            room *= 2;
        }
        c->numbers = realloc(c->numbers, room * sizeof *c->numbers);
        memset(c->numbers + c->room, 0, (room - c->room) * sizeof *c->numbers);
        c->room = room;
    }
    return &c->numbers[seq];
}

void core_free(struct core_store *s) {
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        free(s->channels[c].numbers);
    }
    *s = (struct core_store){0};
}

static void copy(struct core_store *to, const struct core_store *from) {
    core_free(to);
    *to = *from;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        size_t size = from->channels[c].room * sizeof *from->channels[c].numbers;
        to->channels[c].numbers = size == 0 ? NULL : malloc(size);
        if (size > 0) {
            memcpy(to->channels[c].numbers, from->channels[c].numbers, size);
        }
    }
}

/* --- judging ------------------------------------------------------------------------------------------------------------------------------ */

static void put_event(struct week *w, enum event_channel c, const struct sync_item *item) {
    struct core_number *at = number(&w->core.channels[c], item->seq);
    if (at->kind != 0) {
        week_fail(w, "%s %" PRIu64 " comes to the core a second time", event_channel_name(c), item->seq);
        return;
    }
    if (item->seq >= w->truth.next[c]) {
        week_fail(w, "%s %" PRIu64 " was never given", event_channel_name(c), item->seq);
        return;
    }
    const struct truth_number *was = &w->truth.numbers[c][item->seq];
    *at = (struct core_number){.record_hash = week_hash(item->record), .kind = 1};
    if (at->record_hash != was->record_hash || item->time_ms != was->time_ms) {
        week_fail(w, "%s %" PRIu64 " is another event at the core", event_channel_name(c), item->seq);
    }
}

static void put_gap(struct week *w, enum event_channel c, const struct sync_gap *gap, grey_seq above) {
    uint64_t truly = 0;
    for (grey_seq n = gap->from_seq; n <= gap->to_seq && !w->failed; n++) {
        if (n >= w->truth.next[c]) {
            week_fail(w, "%s %" PRIu64 " of a gap was never given", event_channel_name(c), n);
            return;
        }
        const struct truth_number *was = &w->truth.numbers[c][n];
        truly += was->bytes;
        if (n <= above) {
            continue;
        }
        struct core_number *at = number(&w->core.channels[c], n);
        if (at->kind != 0) {
            week_fail(w, "%s %" PRIu64 " is at the core and comes as a gap", event_channel_name(c), n);
        }
        *at = (struct core_number){.kind = 2, .reason = (uint8_t)gap->reason};
        enum sync_gap_reason reason = was->fate == FATE_EVICTED ? SYNC_GAP_EVICTED : SYNC_GAP_EXPIRED;
        if (was->fate == FATE_WAITS || gap->reason != reason) {
            week_fail(w, "%s %" PRIu64 " comes as a gap (%s), and %s", event_channel_name(c), n, sync_gap_reason_name(gap->reason),
                      was->fate == FATE_WAITS ? "was not given up" : "was given up for another reason");
        }
    }
    w->counts[WEEK_GAPS]++;
    if (w->truth.one_size ? gap->bytes != truly : gap->bytes > truly * 100 + 300000) {
        week_fail(w, "a gap of %s from %" PRIu64 " to %" PRIu64 " held %" PRIu64 " bytes, and says %" PRIu64, event_channel_name(c),
                  gap->from_seq, gap->to_seq, truly, gap->bytes);
    }
}

/* --- messages ------------------------------------------------------------------------------------------------------------------------------ */

static void reply_positions(struct week *w, enum message_kind kind, uint32_t codings) {
    struct builder b;
    struct sync_welcome s = {.incarnation = WEEK_INCARNATION, .epoch = w->core.epoch, .time_ms = w->now_ms, .codings = codings};
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        s.position[c] = w->core.channels[c].position;
    }
    builder_init(&b, 1024);
    if (kind == MESSAGE_DOWN_WELCOME) {
        sync_put_welcome(&b, &s);
    } else {
        sync_put_resync(&b, &s);
    }
    link_down_send(w, CHANNEL_CONTROL, builder_bytes(&b));
    builder_free(&b);
}

static void take_hello(struct week *w, struct bytes content) {
    struct sync_hello h;
    if (sync_get_hello(content, &h) != E_OK || h.incarnation != WEEK_INCARNATION) {
        week_fail(w, "a hello cannot be read");
        return;
    }
    if (h.epoch < w->core.epoch) {
        w->counts[WEEK_STALE]++;
        return;
    }
    w->core.epoch = h.epoch;
    w->core.known = true;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct core_channel *core = &w->core.channels[c];
        grey_seq acked = h.channels[c].acked_seq;
        w->counts[WEEK_OLD_HELLOS] += core->position >= h.channels[c].next_seq; /* it was long on its way, or comes twice */
        for (grey_seq n = core->position + 1; n <= acked; n++) { /* freed at the site, and lost with the core's disk */
            *number(core, n) = (struct core_number){.kind = 2, .reason = SYNC_GAP_CORE_RESTORED};
            w->counts[WEEK_CORE_LOST]++;
            if (w->counts[WEEK_CORE_RESTORES] == 0) {
                week_fail(w, "the site freed %s %" PRIu64 ", which the core never had", event_channel_name((enum event_channel)c),
                          n);
            }
        }
        core->position = acked > core->position ? acked : core->position;
    }
    reply_positions(w, MESSAGE_DOWN_WELCOME, h.feature_level >= UP_LEVEL_CODINGS ? CODING_GAP_BYTES : 0);
}

static void take_events(struct week *w, struct bytes content) {
    static struct sync_item items[SYNC_ITEMS_MAX];
    static struct sync_gap gaps[SYNC_GAPS_MAX];
    struct sync_events e;
    enum grey_error err = sync_get_events(content, &e, items, gaps);
    if (err != E_OK) {
        week_fail(w, "a frame cannot be read: %s", error_sentence(err));
        return;
    }
    if (!w->core.known || e.epoch < w->core.epoch) {
        w->counts[WEEK_STALE]++;
        return;
    }
    struct core_channel *core = &w->core.channels[e.channel];
    enum channel_verdict verdict = channel_judge(core->position, e.from_seq, e.to_seq);
    if (verdict == CHANNEL_HOLE) {
        w->counts[WEEK_HOLES]++;
        reply_positions(w, MESSAGE_DOWN_RESYNC, 0);
        return;
    }
    if (verdict == CHANNEL_FITS) {
        for (uint32_t i = 0; i < e.item_count && !w->failed; i++) {
            if (items[i].seq > core->position) {
                put_event(w, e.channel, &items[i]);
            }
        }
        for (uint32_t i = 0; i < e.gap_count && !w->failed; i++) {
            if (gaps[i].to_seq > core->position) {
                put_gap(w, e.channel, &gaps[i], core->position);
            }
        }
        core->position = e.to_seq;
        w->counts[WEEK_FRAMES]++;
    }
    if (!w->calm && week_chance(w, 1)) { /* killed between the commit and the answer */
        w->counts[WEEK_CORE_UNACKED]++;
        core_crash(w);
        return;
    }
    struct builder b;
    struct sync_ack a = {.incarnation = WEEK_INCARNATION,
                         .epoch = e.epoch,
                         .channel = e.channel,
                         .acked_seq = core->position,
                         .credit_bytes = CREDIT_BYTES_FULL};
    builder_init(&b, 256);
    sync_put_ack(&b, &a);
    link_down_send(w, e.channel, builder_bytes(&b));
    builder_free(&b);
}

void core_take(struct week *w, struct bytes bytes, unsigned topic_channel) {
    struct frame f;
    size_t used, need;
    enum grey_error why;
    struct builder scratch;
    struct bytes content;
    (void)topic_channel;
    builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    if (frame_read(bytes, &f, &used, &need, &why) != FRAME_READY || used != bytes.size ||
        frame_content(&f, &scratch, &content) != E_OK) {
        week_fail(w, "a frame arrives damaged");
    } else if (sync_kind(content) == MESSAGE_UP_HELLO) {
        take_hello(w, content);
    } else {
        take_events(w, content);
    }
    builder_free(&scratch);
}

/* --- life ----------------------------------------------------------------------------------------------------------------------------------- */

void core_crash(struct week *w) {
    if (w->core_up) {
        w->core_up = false;
        w->core_up_ms = w->now_ms + 1000 + (int64_t)week_draw(w, week_chance(w, 10) ? 2 * WEEK_HOUR_MS : 30000);
        w->counts[WEEK_CORE_CRASHES]++;
        week_note(w, "the core is killed");
    }
}

void core_restore(struct week *w) {
    if (w->has_backup) {
        copy(&w->core, &w->backup);
        w->counts[WEEK_CORE_RESTORES]++;
        week_note(w, "the core is restored from a backup");
        core_crash(w);
    }
}

void core_act(struct week *w) {
    if (!w->core_up && w->now_ms >= w->core_up_ms) {
        w->core_up = true;
        reply_positions(w, MESSAGE_DOWN_RESYNC, 0);
    }
    if (w->now_ms >= w->core_backup_ms) {
        copy(&w->backup, &w->core);
        w->has_backup = true;
        w->core_backup_ms = w->now_ms + WEEK_HOUR_MS + (int64_t)week_draw(w, 24 * WEEK_HOUR_MS);
    }
}
