#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/state/arrivals.h"
#include "agent/state/loss.h"
#include "agent/state/stretch.h"
#include "tests/unit/rows_on_disk.h"

#define HOUR_MS (3600ll * 1000)
#define DAY_MS (24 * HOUR_MS)
#define INCARNATION 42u

static uint64_t seed;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

struct site {
    struct gateway g;
    struct builder payload, answer;
    struct outcome o;
    int64_t time_ms;
    struct answer_event events[LIMIT_BATCH_EVENTS];
    size_t event_count;
};

static struct site *site_new(uint64_t queue_bytes_max) {
    struct site *s = calloc(1, sizeof *s);
    s->g = gateway_new(1 << 20);
    s->time_ms = 1000 * DAY_MS;
    builder_init(&s->payload, LIMIT_PAYLOAD_BYTES);
    builder_init(&s->answer, 1 << 16);
    struct site_facts f = {.site = {"s"}, .incarnation = INCARNATION};
    payload_site(&s->payload, &f);
    assert_int_equal(gateway_entry(&s->g, ENTRY_SITE, s->time_ms, &s->payload, &s->o, NULL), E_OK);
    gateway_limits(&s->payload, queue_bytes_max);
    assert_int_equal(gateway_entry(&s->g, ENTRY_LIMITS, s->time_ms, &s->payload, &s->o, NULL), E_OK);
    return s;
}

static void site_free(struct site *s) {
    gateway_free(&s->g);
    builder_free(&s->payload);
    builder_free(&s->answer);
    free(s);
}

static const uint8_t zeros[LIMIT_EVENT_BYTES];

/* id NULL: the agent's own, without de-duplication. */
static void add_event(struct site *s, enum event_priority p, const char *id, const char *type, size_t data_bytes) {
    struct event e = {.id = bytes_str(id == NULL ? "none" : id),
                      .source = bytes_str("src"),
                      .type = bytes_str(type),
                      .data = bytes_of(zeros, data_bytes),
                      .priority = p,
                      .has_id = id != NULL};
    record_encode(&e, &s->payload);
}

static enum grey_error apply_events(struct site *s) {
    builder_reset(&s->answer);
    enum grey_error err = gateway_entry(&s->g, ENTRY_EVENTS, s->time_ms, &s->payload, &s->o, &s->answer);
    s->event_count = answer_events(builder_bytes(&s->answer), s->events, LIMIT_BATCH_EVENTS);
    assert_int_equal(err == E_OK, s->event_count > 0);
    return err;
}

static enum grey_error send(struct site *s, enum event_priority p, const char *id, const char *type, size_t data_bytes) {
    codec_put_array(&s->payload, 1);
    add_event(s, p, id, type, data_bytes);
    return apply_events(s);
}

static enum grey_error ack(struct site *s, uint64_t incarnation, enum event_channel c, grey_seq seq) {
    payload_ack(&s->payload, incarnation, c, seq);
    return gateway_entry(&s->g, ENTRY_ACK, s->time_ms, &s->payload, &s->o, NULL);
}

static struct channel_facts facts(struct site *s, enum event_channel c) {
    struct channel_facts f;
    state_channel(s->g.state, c, &f);
    return f;
}

static bool row_at(struct site *s, enum event_priority p, grey_seq seq, struct outbox_row *row) {
    uint8_t key[9];
    struct bytes value;
    state_outbox_key(p, seq, key);
    return table_get(s->g.rows, TABLE_OUTBOX, bytes_of(key, 9), &value) == TABLE_FOUND &&
           state_outbox_row(bytes_of(key, 9), value, row) == E_OK;
}

/* --- numbers ----------------------------------------------------------------------------------------------------------------------- */

/* The client is told which number its event has at the core; the uplink finds the event by it. */
static void each_channel_counts_for_itself(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    struct outbox_row row;
    codec_put_array(&s->payload, 5);
    add_event(s, PRIORITY_LOW, "1", "t", 10);
    add_event(s, PRIORITY_CRITICAL, "2", "t", 20);
    add_event(s, PRIORITY_NORMAL, NULL, "t", 30);
    add_event(s, PRIORITY_HIGH, "4", "t", 40);
    add_event(s, PRIORITY_LOW, "5", "t", 50);
    size_t batch_bytes = s->payload.size;
    assert_int_equal(apply_events(s), E_OK);
    static const struct answer_event wanted[] = {{CHANNEL_DATA, 1, 3, false},
                                                 {CHANNEL_CONTROL, 1, 3, false},
                                                 {CHANNEL_DATA, 2, 3, false},
                                                 {CHANNEL_EVENTS, 1, 3, false},
                                                 {CHANNEL_DATA, 3, 3, false}};
    assert_int_equal(s->event_count, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(s->events[i].channel, wanted[i].channel);
        assert_int_equal(s->events[i].seq, wanted[i].seq);
        assert_int_equal(s->events[i].index, wanted[i].index);
        assert_false(s->events[i].duplicate);
    }
    assert_true(row_at(s, PRIORITY_LOW, 3, &row));
    assert_int_equal(row.index, 3);
    assert_int_equal(row.slot, 4);
    assert_int_equal(row.time_ms, s->time_ms);
    assert_int_equal(row.priority, PRIORITY_LOW);
    assert_int_equal(row.seq, 3);
    struct channel_facts f = facts(s, CHANNEL_DATA);
    assert_int_equal(f.next_seq, 4);
    assert_int_equal(f.pending_count, 3);
    assert_int_equal(f.oldest_time_ms, s->time_ms);
    uint64_t bytes = 0;
    for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
        bytes += facts(s, (enum event_channel)c).pending_bytes;
    }
    assert_int_equal(bytes, batch_bytes - 1); /* the records without the head of the array */
    site_free(s);
}

/* An acknowledgement repeated, late, of another life of the site or of what was never sent must free nothing it should not. */
static void acknowledgements_only_move_forward(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    struct outbox_row row;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(send(s, i % 3 == 0 ? PRIORITY_LOW : PRIORITY_NORMAL, NULL, "t", 50), E_OK);
        s->time_ms += 1000;
    }
    gateway_flush(&s->g);
    assert_int_equal(ack(s, INCARNATION + 1, CHANNEL_DATA, 5), E_WRONG_SITE);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_DATA, 11), E_BAD_REQUEST);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_CONTROL, 1), E_BAD_REQUEST);
    assert_int_equal(facts(s, CHANNEL_DATA).pending_count, 10);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_DATA, 4), E_OK);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_DATA, 4), E_OK);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_DATA, 2), E_OK);
    struct channel_facts f = facts(s, CHANNEL_DATA);
    assert_int_equal(f.acked_seq, 4);
    assert_int_equal(f.pending_count, 6);
    assert_in_range(f.oldest_time_ms, s->time_ms - 7000, s->time_ms - 5000);
    assert_false(row_at(s, PRIORITY_NORMAL, 3, &row));
    assert_false(row_at(s, PRIORITY_LOW, 4, &row));
    assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "t", 50), E_OK);
    assert_true(row_at(s, PRIORITY_NORMAL, 11, &row)); /* of the numbers 1 to 10 rows may be on disk only */
    assert_int_equal(ack(s, INCARNATION, CHANNEL_DATA, 11), E_OK);
    f = facts(s, CHANNEL_DATA);
    assert_int_equal(f.pending_count, 0);
    assert_int_equal(f.pending_bytes, 0);
    assert_int_equal(f.oldest_time_ms, 0);
    assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "t", 50), E_OK);
    assert_int_equal(s->events[0].seq, 12);
    payload_ack(&s->payload, INCARNATION, CHANNEL_COUNT, 1);
    assert_int_equal(gateway_entry(&s->g, ENTRY_ACK, s->time_ms, &s->payload, &s->o, NULL), E_BAD_MESSAGE);
    site_free(s);
}

/* A metered link would be paid for twice if the next leader did not know what the last one spent. */
static void what_the_link_cost_rides_along(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    struct budget_used used = {.day = 20513, .day_bytes = 123456, .month = 24315, .month_bytes = 9876543210}, known;
    state_usage(s->g.state, &known);
    assert_true(known.day == 0 && known.month_bytes == 0);
    assert_int_equal(send(s, PRIORITY_HIGH, NULL, "t", 10), E_OK);
    payload_ack_usage(&s->payload, INCARNATION, CHANNEL_EVENTS, 1, &used);
    assert_int_equal(gateway_entry(&s->g, ENTRY_ACK, s->time_ms, &s->payload, &s->o, NULL), E_OK);
    state_usage(s->g.state, &known);
    assert_true(known.day == used.day && known.day_bytes == used.day_bytes && known.month == used.month &&
                known.month_bytes == used.month_bytes);
    assert_int_equal(facts(s, CHANNEL_EVENTS).acked_seq, 1);
    used.day_bytes = 5; /* the clock was corrected: the leader's word holds, also with an acknowledgement that is no news */
    payload_ack_usage(&s->payload, INCARNATION, CHANNEL_EVENTS, 0, &used);
    assert_int_equal(gateway_entry(&s->g, ENTRY_ACK, s->time_ms, &s->payload, &s->o, NULL), E_OK);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_EVENTS, 1), E_OK); /* says nothing about it */
    struct fault f;
    assert_int_equal(state_reload(s->g.state, &f), E_OK); /* from the rows, as after a restart */
    state_usage(s->g.state, &known);
    assert_true(known.day_bytes == 5 && known.month_bytes == used.month_bytes);
    payload_ack_usage(&s->payload, INCARNATION + 1, CHANNEL_EVENTS, 1, &(struct budget_used){.day = 1});
    assert_int_equal(gateway_entry(&s->g, ENTRY_ACK, s->time_ms, &s->payload, &s->o, NULL), E_WRONG_SITE);
    state_usage(s->g.state, &known);
    assert_int_equal(known.day, used.day);
    site_free(s);
}

/* --- repeats ----------------------------------------------------------------------------------------------------------------------- */

/* A device that hears no answer sends again: the event must not stand twice at the core, and must get its first numbers. */
static void a_repeat_gets_the_old_numbers(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    assert_int_equal(send(s, PRIORITY_HIGH, "a", "t", 10), E_OK);
    raft_index first = s->events[0].index;
    assert_int_equal(ack(s, INCARNATION, CHANNEL_EVENTS, 1), E_OK); /* remembered beyond that */
    s->time_ms += 7 * DAY_MS;
    codec_put_array(&s->payload, 4);
    add_event(s, PRIORITY_HIGH, "b", "t", 10);
    add_event(s, PRIORITY_HIGH, "a", "t", 10);
    add_event(s, PRIORITY_HIGH, "b", "t", 10); /* of the first in this batch */
    add_event(s, PRIORITY_HIGH, "a", "t", 10);
    assert_int_equal(apply_events(s), E_OK);
    static const struct {
        grey_seq seq;
        bool duplicate, old;
    } wanted[] = {{2, false, false}, {1, true, true}, {2, true, false}, {1, true, true}};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(s->events[i].seq, wanted[i].seq);
        assert_int_equal(s->events[i].duplicate, wanted[i].duplicate);
        assert_int_equal(s->events[i].index, wanted[i].old ? first : state_applied(s->g.state));
    }
    assert_int_equal(facts(s, CHANNEL_EVENTS).pending_count, 1);
    struct answer_event found;
    state_dedup_wants(bytes_str("src"), bytes_str("a"), gateway_load, &s->g);
    assert_int_equal(state_dedup(s->g.state, bytes_str("src"), bytes_str("a"), &found), TABLE_FOUND);
    assert_int_equal(found.seq, 1);
    assert_int_equal(found.channel, CHANNEL_EVENTS);
    state_dedup_wants(bytes_str("other"), bytes_str("a"), gateway_load, &s->g);
    assert_int_equal(state_dedup(s->g.state, bytes_str("other"), bytes_str("a"), &found), TABLE_ABSENT);
    assert_int_equal(state_dedup_count(s->g.state), 2);
    site_free(s);
}

/* Two events under one id: one of them would be lost in silence, so the sender must hear of it. */
static void an_id_with_another_body_is_refused_with_its_whole_batch(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    assert_int_equal(send(s, PRIORITY_NORMAL, "a", "t", 10), E_OK);
    uint8_t before[DIGEST_BYTES];
    for (int in_batch = 0; in_batch < 2; in_batch++) {
        codec_put_array(&s->payload, 3);
        add_event(s, PRIORITY_CRITICAL, "b", "t", 10);
        add_event(s, PRIORITY_NORMAL, in_batch ? "b" : "a", "t", 11);
        add_event(s, PRIORITY_LOW, NULL, "t", 10);
        state_hash(s->g.state, before);
        assert_int_equal(apply_events(s), E_ID_REUSED);
        assert_int_equal(s->answer.size, 0);
        assert_non_null(strstr(s->o.detail, "event 1 has the id of another one"));
        assert_int_equal(facts(s, CHANNEL_CONTROL).next_seq, 1);
        assert_int_equal(facts(s, CHANNEL_DATA).next_seq, 2);
    }
    assert_int_equal(send(s, PRIORITY_NORMAL, "a", "u", 10), E_ID_REUSED);
    assert_int_equal(send(s, PRIORITY_LOW, "a", "t", 10), E_ID_REUSED);
    assert_int_equal(send(s, PRIORITY_NORMAL, "a", "t", 10), E_OK);
    assert_true(s->events[0].duplicate);
    struct event e = {.id = bytes_str("a"), .source = bytes_str("src"), .type = bytes_str("t"), .data = bytes_of(zeros, 10)};
    e.priority = PRIORITY_NORMAL;
    e.has_id = e.provisional = true;
    e.traceparent = bytes_str("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"); /* of another attempt */
    codec_put_array(&s->payload, 1);
    record_encode(&e, &s->payload);
    assert_int_equal(apply_events(s), E_OK);
    assert_true(s->events[0].duplicate);
    site_free(s);
}

/* Ids are kept for 8 days of log time: long enough for a week offline, and not for ever. */
static void ids_are_forgotten_after_eight_days(void **context) {
    (void)context;
    struct site *s = site_new(1 << 30);
    int64_t start = s->time_ms;
    assert_int_equal(send(s, PRIORITY_NORMAL, "a", "t", 10), E_OK);
    for (int hour = 1; hour < 8 * 24; hour++) {
        char id[16];
        (void)snprintf(id, sizeof id, "h%d", hour);
        s->time_ms = start + hour * HOUR_MS;
        assert_int_equal(send(s, PRIORITY_NORMAL, id, "t", 10), E_OK);
        assert_int_equal(send(s, PRIORITY_NORMAL, "a", "t", 10), E_OK);
        assert_true(s->events[0].duplicate);
        if (hour % 7 == 0) {
            gateway_flush(&s->g);
        }
    }
    s->time_ms = start + 8 * DAY_MS - 1;
    assert_int_equal(send(s, PRIORITY_NORMAL, "a", "t", 10), E_OK);
    assert_true(s->events[0].duplicate);
    s->time_ms++;
    assert_int_equal(send(s, PRIORITY_NORMAL, "a", "u", 10), E_OK); /* even with another body */
    assert_false(s->events[0].duplicate);
    assert_int_equal(send(s, PRIORITY_NORMAL, "a", "u", 10), E_OK);
    assert_true(s->events[0].duplicate);
    uint64_t most = 0;
    for (int hour = 8 * 24; hour < 60 * 24; hour++) {
        char id[16];
        (void)snprintf(id, sizeof id, "h%d", hour);
        s->time_ms = start + hour * HOUR_MS;
        assert_int_equal(send(s, PRIORITY_NORMAL, id, "t", 10), E_OK);
        if (hour > 20 * 24) {
            (void)snprintf(id, sizeof id, "h%d", hour - 8 * 24 + 1);
            assert_int_equal(send(s, PRIORITY_NORMAL, id, "t", 10), E_OK);
            assert_true(s->events[0].duplicate);
        }
        most = most < state_dedup_count(s->g.state) ? state_dedup_count(s->g.state) : most;
    }
    assert_in_range(most, 8 * 24, 12 * 24 + 2); /* 8 to 12 days' worth of rows */
    site_free(s);
}

/* A flood of ids must neither fill the disk nor drive out the last ids_max of them. */
static void the_number_of_ids_is_bounded(void **context) {
    (void)context;
    for (uint64_t rhythm = 0; rhythm < 3; rhythm++) {
        struct table *t = table_new(SIZE_MAX / 8);
        struct dedup d;
        struct dedup_row row;
        struct builder changes;
        builder_init(&changes, 1 << 20);
        assert_int_equal(dedup_load(&d, t, NULL), E_OK);
        d.ids_max = 100;
        int64_t now = 0;
        seed = 77 + rhythm;
        uint64_t most = 0;
        int64_t times[3000];
        for (uint32_t i = 0; i < 3000; i++) {
            uint8_t hash[16] = {0};
            now += rhythm == 0 ? 1 : rhythm == 1 ? (int64_t)draw(2 * DAY_MS) : draw(300) == 0 ? 5 * DAY_MS : 1000;
            times[i] = now;
            (void)dedup_turn(&d, now, &changes);
            for (uint32_t back = 0; back <= i && back < 250; back++) {
                bytes_put_be32(hash, i - back);
                for (unsigned slot = 0; slot < DEDUP_SLOTS; slot++) {
                    uint8_t key[DEDUP_KEY_BYTES];
                    dedup_key(hash, slot, key);
                    assert_int_equal(table_load(t, TABLE_DEDUP, bytes_of(key, sizeof key), false, bytes_of(NULL, 0), 0), E_OK);
                }
                enum grey_error found = back == 0 ? E_NOT_FOUND : dedup_find(&d, t, hash, now, &row);
                if (back > 0 && back < 100 && now - times[i - back] < (int64_t)DEDUP_AGE_MS) {
                    assert_int_equal(found, E_OK);
                    assert_int_equal(row.seq, i - back);
                }
                if (back > 0 && now - times[i - back] >= (int64_t)DEDUP_AGE_MS) {
                    assert_int_equal(found, E_NOT_FOUND);
                }
            }
            bytes_put_be32(hash, i);
            row = (struct dedup_row){.seq = i, .index = i, .time_ms = now};
            dedup_put(&d, t, hash, &row, &changes);
            assert_int_equal(table_commit(t, builder_bytes(&changes)), E_OK);
            builder_reset(&changes);
            uint64_t held = d.slots[0].count + d.slots[1].count + d.slots[2].count;
            most = held > most ? held : most;
        }
        assert_true(most <= 300);
        builder_free(&changes);
        table_free(t);
    }
}

/* --- a full queue ------------------------------------------------------------------------------------------------------------------ */

static size_t fill(struct site *s, enum event_priority p) {
    size_t count = 0;
    struct channel_facts f;
    uint64_t gaps;
    for (;;) {
        f = facts(s, CHANNEL_DATA);
        gaps = f.gap_events + facts(s, CHANNEL_EVENTS).gap_events;
        struct channel_facts before[3] = {facts(s, CHANNEL_CONTROL), facts(s, CHANNEL_EVENTS), f};
        uint64_t held = before[0].pending_bytes + before[1].pending_bytes + before[2].pending_bytes;
        if (held + 100100 > state_limits(s->g.state)->bytes_max) {
            return count;
        }
        assert_int_equal(send(s, p, NULL, "t", 100000), E_OK);
        assert_int_equal(gaps, facts(s, CHANNEL_DATA).gap_events + facts(s, CHANNEL_EVENTS).gap_events);
        count++;
    }
}

/* After days offline the alarms must still get in, and what made room for them must be reported, number by number. */
static void a_full_queue_gives_way_by_priority(void **context) {
    (void)context;
    struct site *s = site_new(2 << 20);
    struct outbox_row row;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(send(s, PRIORITY_LOW, NULL, "t", 100000), E_OK);
        assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "t", 100000), E_OK);
    }
    size_t normal = fill(s, PRIORITY_NORMAL) + 4;
    gateway_flush(&s->g);
    assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "t", 100000), E_OK); /* the oldest low segment leaves: 1 and 3 */
    normal++;
    struct channel_facts f = facts(s, CHANNEL_DATA);
    assert_int_equal(f.gap_events, 2);
    assert_int_equal(f.gap_ranges, 2); /* 2 is a normal one */
    assert_int_equal(state_lost_below(s->g.state, PRIORITY_LOW), 4);
    assert_int_equal(state_lost_below(s->g.state, PRIORITY_NORMAL), 0);
    assert_false(row_at(s, PRIORITY_LOW, 1, &row));
    while (f.gap_events == 2) {
        assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", 100000), E_OK);
        f = facts(s, CHANNEL_DATA);
    }
    assert_int_equal(f.gap_events, 4);
    assert_int_equal(state_lost_below(s->g.state, PRIORITY_LOW), 8);
    (void)fill(s, PRIORITY_LOW);
    assert_int_equal(send(s, PRIORITY_LOW, NULL, "t", 100000), E_OK); /* a low one in place of low ones */
    while (state_lost_below(s->g.state, PRIORITY_NORMAL) == 0) {
        assert_int_equal(send(s, PRIORITY_HIGH, NULL, "t", 100000), E_OK);
    }
    assert_int_equal(fill(s, PRIORITY_HIGH), 1);
    assert_int_equal(send(s, PRIORITY_LOW, NULL, "t", 100000), E_QUEUE_FULL); /* it ranks below all */
    while (facts(s, CHANNEL_DATA).pending_count > 0) {
        assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", 100000), E_OK);
    }
    (void)fill(s, PRIORITY_CRITICAL);
    assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "t", 100000), E_QUEUE_FULL);
    assert_int_equal(facts(s, CHANNEL_EVENTS).gap_events, 0);
    while (facts(s, CHANNEL_EVENTS).pending_count > 0) {
        assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", 100000), E_OK);
        (void)fill(s, PRIORITY_CRITICAL);
    }
    uint64_t critical = facts(s, CHANNEL_CONTROL).pending_count;
    assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", 100000), E_QUEUE_FULL);
    assert_non_null(strstr(s->o.detail, "may give way to critical"));
    assert_int_equal(send(s, PRIORITY_LOW, NULL, "t", 100000), E_QUEUE_FULL);
    f = facts(s, CHANNEL_CONTROL);
    assert_int_equal(f.pending_count, critical); /* never evicted */
    assert_int_equal(f.gap_events, 0);
    assert_int_equal(f.next_seq, critical + 1);
    assert_int_equal(facts(s, CHANNEL_EVENTS).gap_ranges, 1);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_CONTROL, 1), E_OK);
    assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", 90000), E_OK);
    site_free(s);
}

/* A batch is all or nothing: when its last event finds no room, nothing may have been evicted for the first ones. */
static void a_batch_without_room_evicts_nothing(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    (void)fill(s, PRIORITY_NORMAL);
    struct channel_facts before = facts(s, CHANNEL_DATA);
    codec_put_array(&s->payload, 3);
    add_event(s, PRIORITY_CRITICAL, "a", "t", 200000);
    add_event(s, PRIORITY_LOW, "b", "t", 200000);
    add_event(s, PRIORITY_LOW, "c", "t", 200000);
    assert_int_equal(apply_events(s), E_QUEUE_FULL);
    struct channel_facts after = facts(s, CHANNEL_DATA);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(facts(s, CHANNEL_CONTROL).next_seq, 1);
    assert_int_equal(send(s, PRIORITY_NORMAL, "a", "t", 10), E_OK); /* nor were its ids taken */
    assert_false(s->events[0].duplicate);
    site_free(s);
}

/* A batch that does not keep the format or its bounds must not get in, not even in part. */
static void malformed_batches_are_refused(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    assert_int_equal(gateway_entry(&s->g, ENTRY_EVENTS, 0, NULL, &s->o, NULL), E_BAD_CBOR);
    codec_put_array(&s->payload, 0);
    assert_int_equal(apply_events(s), E_BAD_MESSAGE);
    codec_put_array(&s->payload, LIMIT_BATCH_EVENTS + 1);
    for (unsigned i = 0; i <= LIMIT_BATCH_EVENTS; i++) {
        add_event(s, PRIORITY_LOW, NULL, "t", 0);
    }
    assert_int_equal(apply_events(s), E_BAD_MESSAGE);
    codec_put_array(&s->payload, 1);
    add_event(s, PRIORITY_LOW, NULL, "t", 0);
    builder_add_byte(&s->payload, 0);
    assert_int_equal(apply_events(s), E_BAD_CBOR);
    codec_put_array(&s->payload, 2);
    add_event(s, PRIORITY_LOW, NULL, "t", 0);
    assert_int_equal(apply_events(s), E_BAD_CBOR);
    assert_int_equal(facts(s, CHANNEL_DATA).next_seq, 1);
    codec_put_array(&s->payload, LIMIT_BATCH_EVENTS);
    for (unsigned i = 0; i < LIMIT_BATCH_EVENTS; i++) {
        char id[8];
        (void)snprintf(id, sizeof id, "%u", i);
        add_event(s, PRIORITY_LOW, id, "t", 0);
    }
    assert_int_equal(apply_events(s), E_OK);
    assert_int_equal(s->event_count, LIMIT_BATCH_EVENTS);
    struct answer_event few[2];
    assert_int_equal(answer_events(builder_bytes(&s->answer), few, 2), 0);
    site_free(s);
}

/* --- floors, times to live, gap rows ----------------------------------------------------------------------------------------------- */

static enum grey_error limit(struct site *s, const struct queue_limits *l) {
    payload_limits(&s->payload, l);
    return gateway_entry(&s->g, ENTRY_LIMITS, s->time_ms, &s->payload, &s->o, NULL);
}

static void expire(struct site *s) {
    assert_int_equal(gateway_entry(&s->g, ENTRY_EXPIRE, s->time_ms, NULL, &s->o, NULL), E_OK);
}

/* What the core is told of numbers first..last of a channel, one line for each gap: "1-4 evicted 300\n". */
static const char *told(struct site *s, enum event_channel c, grey_seq first, grey_seq last) {
    static char text[2048];
    struct stretch stretch;
    size_t size = 0;
    uint8_t low[9];
    struct bytes key, value;
    raft_index ref;
    stretch_begin(&stretch, first);
    state_gap_key(c, first, low);
    gateway_flush(&s->g);
    while (table_next(s->g.disk, TABLE_GAP, bytes_of(low, 9), &key, &value, &ref) && key.data[0] == c) {
        assert_int_equal(stretch_add(&stretch, key, value), E_OK);
        state_gap_key(c, stretch.seen + 1, low);
    }
    text[0] = 0;
    for (grey_seq n = first; n <= last; n++) {
        struct sync_gap gap;
        if (stretch_gap(&stretch, n, last, &gap)) {
            size += (size_t)snprintf(text + size, sizeof text - size, "%" PRIu64 "-%" PRIu64 " %s %" PRIu64 "\n", gap.from_seq,
                                     gap.to_seq, sync_gap_reason_name(gap.reason), gap.bytes);
            n = gap.to_seq;
        }
    }
    stretch_free(&stretch);
    return text;
}

/* A site engineer wants some of the cheap history of a machine in spite of many alarms: what is guaranteed to it stays, until critical
 * events need the room. */
static void a_floor_holds_but_not_against_critical_events(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    struct queue_limits l = {.bytes_max = 1 << 20};
    l.floor_percent[PRIORITY_LOW] = 40;
    assert_int_equal(limit(s, &l), E_OK);
    (void)fill(s, PRIORITY_LOW);
    uint64_t floor = (1u << 20) / 100 * 40, low = 0;
    for (int i = 0; i < 30; i++) {
        assert_int_equal(send(s, PRIORITY_HIGH, NULL, "t", 100000), E_OK); /* in the end in place of high ones */
        low = facts(s, CHANNEL_DATA).pending_bytes;
        assert_true(low >= floor);
    }
    assert_true(low < floor + 262144 && facts(s, CHANNEL_EVENTS).gap_events > 0);
    assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "t", 100000), E_QUEUE_FULL); /* high ones do not give way, low ones need not */
    while (facts(s, CHANNEL_DATA).pending_count > 0) {
        assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", 100000), E_OK);
    }
    assert_true(facts(s, CHANNEL_EVENTS).pending_count > 0);
    assert_int_equal(facts(s, CHANNEL_CONTROL).gap_events, 0);
    l.floor_percent[PRIORITY_HIGH] = l.floor_percent[PRIORITY_NORMAL] = 40;
    assert_int_equal(limit(s, &l), E_BAD_MESSAGE); /* 120 percent */
    site_free(s);
}

/* Old readings are worth nothing and must not keep a thin link busy; alarms are kept for as long as it takes. */
static void events_leave_when_their_time_is_over(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    struct queue_limits l = {.bytes_max = 1 << 20, .ttls = {{"debug.*", 3600}, {"*.raw", 7200}}, .ttl_count = 2};
    assert_int_equal(limit(s, &l), E_OK);
    assert_int_equal(state_expiry_ms(s->g.state), INT64_MAX);
    int64_t start = s->time_ms;
    assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "debug.a.raw", 10), E_OK); /* 1: an hour, the first pattern counts */
    uint64_t record = facts(s, CHANNEL_DATA).pending_bytes;
    assert_int_equal(send(s, PRIORITY_LOW, NULL, "reading", 10), E_OK);      /* 2: for ever */
    assert_int_equal(send(s, PRIORITY_LOW, NULL, "x.raw", 10), E_OK);        /* 3: two hours */
    assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "debug.x", 10), E_OK); /* critical: for ever */
    assert_int_equal(send(s, PRIORITY_HIGH, NULL, "debug.x", 10), E_OK);
    assert_int_equal(state_expiry_ms(s->g.state), start + HOUR_MS);
    s->time_ms = start + HOUR_MS - 1;
    expire(s);
    assert_int_equal(facts(s, CHANNEL_DATA).pending_count, 3);
    s->time_ms++;
    expire(s);
    assert_int_equal(facts(s, CHANNEL_DATA).pending_count, 2);
    assert_int_equal(facts(s, CHANNEL_EVENTS).expired_events, 1);
    assert_int_equal(facts(s, CHANNEL_DATA).expired_events, 1);
    assert_int_equal(facts(s, CHANNEL_DATA).expired_bytes, record);
    char wanted[64];
    (void)snprintf(wanted, sizeof wanted, "1-1 expired %" PRIu64 "\n", record);
    assert_string_equal(told(s, CHANNEL_DATA, 1, 9), wanted);
    assert_int_equal(state_expiry_ms(s->g.state), start + 2 * HOUR_MS);
    s->time_ms = start + 400 * HOUR_MS;
    expire(s);
    assert_int_equal(facts(s, CHANNEL_DATA).pending_count, 1);
    assert_int_equal(facts(s, CHANNEL_CONTROL).pending_count, 1);
    l.age_s = 24 * 3600; /* an age limit holds for what waits already, and for what no pattern names */
    assert_int_equal(limit(s, &l), E_OK);
    expire(s);
    assert_int_equal(facts(s, CHANNEL_DATA).pending_count, 0);
    assert_int_equal(facts(s, CHANNEL_CONTROL).pending_count, 1);
    assert_int_equal(facts(s, CHANNEL_DATA).gap_events, 3);
    uint8_t one = 1; /* an entry of a later version */
    builder_add(&s->payload, bytes_of(&one, 1));
    assert_int_equal(gateway_entry(&s->g, ENTRY_EXPIRE, s->time_ms, &s->payload, &s->o, NULL), E_BAD_MESSAGE);
    site_free(s);
}

/* Readings that come all the time must leave one after the other, not all when the last one is old enough. */
static void a_steady_stream_expires_as_it_ages(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    struct queue_limits l = {.bytes_max = 1 << 20, .age_s = 3600};
    assert_int_equal(limit(s, &l), E_OK);
    int64_t start = s->time_ms;
    for (int minute = 0; minute < 600; minute++) {
        s->time_ms = start + minute * 60000ll;
        assert_int_equal(send(s, PRIORITY_LOW, NULL, "t", 10), E_OK);
        expire(s);
        if (minute >= 75) {
            assert_in_range(facts(s, CHANNEL_DATA).pending_count, 60, 60 + 60 / 8 + 2);
        }
    }
    assert_int_equal(facts(s, CHANNEL_DATA).gap_ranges, 1);
    site_free(s);
}

/* A change of the configuration must not shorten the life of what was taken before, nor run out of classes for good. */
static void an_event_keeps_the_time_it_was_taken_with(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    int64_t start = s->time_ms;
    struct queue_limits l = {.bytes_max = 1 << 20, .ttl_count = 1};
    (void)snprintf(l.ttls[0].type, sizeof l.ttls[0].type, "*");
    for (unsigned i = 1; i < BOUNDS_CLASSES; i++) {
        l.ttls[0].time_s = i * 3600;
        assert_int_equal(limit(s, &l), E_OK);
        assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "t", 10), E_OK);
    }
    l.ttls[0].time_s = 1000 * 3600;
    assert_int_equal(limit(s, &l), E_BUSY);
    gateway_flush(&s->g);
    gateway_stop(&s->g);
    gateway_start(&s->g);
    for (unsigned i = 1; i < BOUNDS_CLASSES; i++) {
        s->time_ms = start + i * HOUR_MS - 1;
        expire(s);
        assert_int_equal(facts(s, CHANNEL_DATA).pending_count, BOUNDS_CLASSES - i);
        assert_int_equal(state_expiry_ms(s->g.state), start + i * HOUR_MS);
    }
    assert_int_equal(limit(s, &l), E_OK); /* those of the first hours are free again */
    s->time_ms++;
    expire(s);
    assert_int_equal(facts(s, CHANNEL_DATA).pending_count, 0);
    assert_int_equal(state_limits(s->g.state)->ttls[0].time_s, 1000 * 3600);
    site_free(s);
}

static void patterns_match_whole_types(void **context) {
    (void)context;
    static const struct {
        const char *pattern, *type;
        bool matches;
    } cases[] = {{"a", "a", true},    {"a", "ab", false},    {"a", "", false},           {"*", "", true},
                 {"*", "x", true},    {"a*", "a", true},     {"a*", "abc", true},        {"a*", "ba", false},
                 {"*a", "bca", true}, {"*a", "bcab", false}, {"a*c*e", "abcde", true},   {"a*c*e", "abcdef", false},
                 {"**", "abc", true}, {"*ab", "aab", true},  {"*abc*", "ababcab", true}, {"a*b", "aXbXc", false},
                 {"", "", true},      {"", "a", false},      {"a.*.z", "a.z", false},    {"a.*.z", "a..z", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(bounds_matches(bytes_str(cases[i].pattern), bytes_str(cases[i].type)), cases[i].matches);
    }
}

/* The core must be able to add up what was lost, however the ranges are cut on the way to it. */
static void gaps_tell_numbers_and_bytes(void **context) {
    (void)context;
    struct site *s = site_new(1000000);
    char wanted[128];
    for (int i = 0; i < 3; i++) { /* low: 1 3 5, normal: 2 4 6 */
        assert_int_equal(send(s, PRIORITY_LOW, NULL, "t", 1000), E_OK);
        assert_int_equal(send(s, PRIORITY_NORMAL, NULL, "t", 100), E_OK);
    }
    uint64_t before = facts(s, CHANNEL_DATA).pending_bytes, room = 1000000 - before;
    while (room > 3000) { /* until some 2,000 bytes are left */
        assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", (size_t)(room > 202000 ? 200000 : room - 2000)), E_OK);
        room = 1000000 - before - facts(s, CHANNEL_CONTROL).pending_bytes;
    }
    assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", 3000), E_OK);
    assert_int_equal(facts(s, CHANNEL_DATA).gap_events, 3);
    uint64_t low = facts(s, CHANNEL_DATA).gap_bytes, normal = before - low;
    assert_true(low > 3000 && low < 3300);
    (void)snprintf(wanted, sizeof wanted, "1-1 evicted %" PRIu64 "\n3-3 evicted %" PRIu64 "\n5-5 evicted %" PRIu64 "\n", low / 3,
                   low * 2 / 3 - low / 3, low - low * 2 / 3);
    assert_string_equal(told(s, CHANNEL_DATA, 1, 6), wanted);
    assert_int_equal(facts(s, CHANNEL_DATA).gap_ranges, 3);
    while (facts(s, CHANNEL_DATA).gap_events < 6) {
        assert_int_equal(send(s, PRIORITY_CRITICAL, NULL, "t", 200), E_OK);
    }
    (void)snprintf(wanted, sizeof wanted, "1-6 evicted %" PRIu64 "\n", low + normal);
    assert_string_equal(told(s, CHANNEL_DATA, 1, 6), wanted);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_DATA, 3), E_OK);
    (void)snprintf(wanted, sizeof wanted, "4-6 evicted %" PRIu64 "\n", (low - low * 2 / 3) + (normal - normal / 3));
    assert_string_equal(told(s, CHANNEL_DATA, 4, 6), wanted);
    assert_int_equal(ack(s, INCARNATION, CHANNEL_DATA, 6), E_OK);
    assert_string_equal(told(s, CHANNEL_DATA, 1, 6), "");
    site_free(s);
}

/* --- against a naive second version ------------------------------------------------------------------------------------------------ */

#define SPAN 24u
#define BYTES 2000u
#define NUMBERS_MAX 60000u
#define CLASSES 3u
#define LISTS (CLASSES * PRIORITY_COUNT)

/* Each event by itself, with the number of its segment; nothing is summed up before it is asked for. */
struct model_event {
    unsigned list, segment;
    uint32_t bytes;
    int64_t time_ms;
    enum { WAITS, ACKED, EVICTED, EXPIRED } fate;
};

struct model {
    grey_seq next[CHANNEL_COUNT], acked[CHANNEL_COUNT];
    struct model_event events[CHANNEL_COUNT][NUMBERS_MAX];
    unsigned segments;
    uint64_t lost_events[CHANNEL_COUNT], expired_events[CHANNEL_COUNT];
    uint64_t bytes_max;
    uint32_t floor_percent[PRIORITY_COUNT];
    int64_t class_ms[CLASSES];
};

static uint64_t model_bytes(const struct model *m, enum event_priority p) {
    uint64_t bytes = 0;
    enum event_channel c = event_channel_of(p);
    for (grey_seq n = m->acked[c] + 1; n < m->next[c]; n++) {
        const struct model_event *e = &m->events[c][n];
        bytes += e->fate == WAITS && e->list % PRIORITY_COUNT == p ? e->bytes : 0;
    }
    return bytes;
}

static uint64_t model_all_bytes(const struct model *m) {
    uint64_t bytes = 0;
    for (unsigned p = 0; p < PRIORITY_COUNT; p++) {
        bytes += model_bytes(m, (enum event_priority)p);
    }
    return bytes;
}

static uint64_t model_segment_bytes(const struct model *m, enum event_channel c, unsigned segment) {
    uint64_t bytes = 0;
    for (grey_seq n = m->acked[c] + 1; n < m->next[c]; n++) {
        bytes += m->events[c][n].fate == WAITS && m->events[c][n].segment == segment ? m->events[c][n].bytes : 0;
    }
    return bytes;
}

static void model_lose(struct model *m, enum event_channel c, unsigned segment, int fate) {
    for (grey_seq n = m->acked[c] + 1; n < m->next[c]; n++) {
        struct model_event *e = &m->events[c][n];
        if (e->fate == WAITS && e->segment == segment) {
            e->fate = fate == EVICTED ? EVICTED : EXPIRED;
            m->lost_events[c]++;
            m->expired_events[c] += fate == EXPIRED;
        }
    }
}

static bool model_evict(struct model *m, enum event_priority p) {
    for (int q = PRIORITY_LOW; q >= PRIORITY_HIGH && q >= (int)p; q--) {
        enum event_channel c = event_channel_of((enum event_priority)q);
        for (grey_seq n = m->acked[c] + 1; n < m->next[c]; n++) {
            const struct model_event *e = &m->events[c][n];
            if (e->fate != WAITS || e->list % PRIORITY_COUNT != (unsigned)q) {
                continue;
            }
            uint64_t left = model_bytes(m, (enum event_priority)q) - model_segment_bytes(m, c, e->segment);
            if (p != PRIORITY_CRITICAL && q != (int)p && left * 100 < m->bytes_max * m->floor_percent[q] / 100 * 100) {
                break;
            }
            model_lose(m, c, e->segment, EVICTED);
            return true;
        }
    }
    return false;
}

static bool model_add(struct model *m, const unsigned *lists, const uint32_t *sizes, unsigned count, int64_t now_ms) {
    uint64_t added = 0;
    for (unsigned i = 0; i < count; i++) {
        while (model_all_bytes(m) + added + sizes[i] > m->bytes_max) {
            if (!model_evict(m, (enum event_priority)(lists[i] % PRIORITY_COUNT))) {
                return false;
            }
        }
        added += sizes[i];
    }
    for (unsigned i = 0; i < count; i++) {
        enum event_channel c = event_channel_of((enum event_priority)(lists[i] % PRIORITY_COUNT));
        grey_seq seq = m->next[c]++, first = 0;
        uint32_t held = 0;
        assert_true(seq < NUMBERS_MAX);
        struct model_event *e = &m->events[c][seq], *last = NULL;
        for (grey_seq n = seq - 1; n > m->acked[c] && last == NULL; n--) {
            last = m->events[c][n].list == lists[i] && m->events[c][n].fate == WAITS ? &m->events[c][n] : NULL;
        }
        for (grey_seq n = m->acked[c] + 1; last != NULL && n < seq; n++) {
            if (m->events[c][n].fate == WAITS && m->events[c][n].segment == last->segment) {
                first = first == 0 ? n : first;
                held += m->events[c][n].bytes;
            }
        }
        int64_t lives_ms = lists[i] % PRIORITY_COUNT == 0 ? 0 : m->class_ms[lists[i] / PRIORITY_COUNT];
        bool takes = last != NULL && seq - first < SPAN && held + sizes[i] <= BYTES &&
                     (lives_ms == 0 || now_ms - m->events[c][first].time_ms <= lives_ms / 8);
        *e = (struct model_event){
            .list = lists[i], .segment = takes ? last->segment : ++m->segments, .bytes = sizes[i], .time_ms = now_ms};
    }
    return true;
}

static void model_expire(struct model *m, int64_t now_ms) {
    for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
        for (grey_seq n = m->next[c] - 1; n > m->acked[c]; n--) { /* from the end: the last one of a segment decides */
            struct model_event *e = &m->events[c][n];
            int64_t lives_ms = e->list % PRIORITY_COUNT == 0 ? 0 : m->class_ms[e->list / PRIORITY_COUNT];
            bool is_last = e->fate == WAITS;
            for (grey_seq k = n + 1; is_last && k < m->next[c]; k++) {
                is_last = m->events[c][k].fate != WAITS || m->events[c][k].segment != e->segment;
            }
            if (is_last && lives_ms > 0 && e->time_ms + lives_ms <= now_ms) {
                model_lose(m, (enum event_channel)c, e->segment, EXPIRED);
            }
        }
    }
}

/* Bytes of a segment that is acknowledged in part are an estimate: here acknowledgements end at segments, or all is of one size. */
static grey_seq model_ack_at(const struct model *m, enum event_channel c, grey_seq seq, bool one_size) {
    while (!one_size && seq > m->acked[c]) {
        bool cuts = false;
        for (grey_seq n = m->acked[c] + 1; n <= seq && !cuts; n++) {
            for (grey_seq k = seq + 1; k < m->next[c] && !cuts; k++) {
                const struct model_event *a = &m->events[c][n], *b = &m->events[c][k];
                cuts = a->segment == b->segment && a->fate == WAITS;
            }
        }
        if (!cuts) {
            break;
        }
        seq--;
    }
    return seq;
}

static void model_compare(const struct model *m, const struct outbox *b, struct table *t, bool one_size) {
    for (unsigned ch = 0; ch < CHANNEL_COUNT; ch++) {
        enum event_channel c = (enum event_channel)ch;
        struct channel_facts f;
        outbox_channel_facts(b, t, c, &f);
        uint64_t waits = 0, bytes = 0;
        assert_int_equal(f.next_seq, m->next[c]);
        assert_int_equal(f.acked_seq, m->acked[c]);
        assert_int_equal(f.gap_events, m->lost_events[c]);
        assert_int_equal(f.expired_events, m->expired_events[c]);
        struct stretch stretch;
        uint8_t key_bytes[9];
        struct bytes key, value;
        raft_index ref;
        stretch_begin(&stretch, m->acked[c] + 1);
        state_gap_key(c, m->acked[c] + 1, key_bytes);
        while (table_next(t, TABLE_GAP, bytes_of(key_bytes, 9), &key, &value, &ref) && key.data[0] == c &&
               !stretch_enough(&stretch, m->acked[c] + 1)) {
            assert_int_equal(stretch_add(&stretch, key, value), E_OK);
            state_gap_key(c, stretch.seen + 1, key_bytes);
        }
        state_gap_key(c, 0, key_bytes);
        assert_false(table_next(t, TABLE_GAP, bytes_of(key_bytes, 9), &key, &value, &ref) && key.data[0] == c &&
                     bytes_get_be64(key.data + 1) <= m->acked[c]); /* none is left behind */
        for (grey_seq n = m->acked[c] + 1; n < m->next[c]; n++) {
            const struct model_event *e = &m->events[c][n];
            struct sync_gap gap;
            bool lost = e->fate == EVICTED || e->fate == EXPIRED;
            waits += e->fate == WAITS;
            bytes += e->fate == WAITS ? e->bytes : 0;
            state_outbox_key(e->list, n, key_bytes);
            assert_int_equal(table_get(t, TABLE_OUTBOX, bytes_of(key_bytes, 9), &value) == TABLE_FOUND, !lost);
            if (stretch.count == STRETCH_ROWS_MAX && n > m->acked[c] + SPAN) {
                continue; /* the rest comes with the next frame */
            }
            assert_int_equal(stretch_gap(&stretch, n, n, &gap), lost);
            if (lost) {
                assert_int_equal(gap.reason, e->fate == EVICTED ? SYNC_GAP_EVICTED : SYNC_GAP_EXPIRED);
                assert_true(!one_size || gap.bytes == e->bytes);
                grey_seq end = n;
                while (end + 1 < m->next[c] && m->events[c][end + 1].fate == e->fate) {
                    end++;
                }
                assert_true(stretch_gap(&stretch, n, m->next[c], &gap));
                assert_true(gap.to_seq == end || stretch.count == STRETCH_ROWS_MAX);
            }
        }
        stretch_free(&stretch);
        assert_int_equal(f.pending_count, waits);
        assert_true(!one_size || f.pending_bytes == bytes);
        assert_int_equal(f.pending_bytes, bytes);
    }
}

static const char *const model_types[CLASSES] = {"plain", "short.t", "long.t"};

/* One wrong count in a queue of millions, and a site refuses events with an empty disk, or reports a gap that is none. */
static void a_naive_outbox_counts_the_same(void **context) {
    (void)context;
    struct model *m = calloc(1, sizeof *m), *copy = calloc(1, sizeof *m);
    struct builder p, changes;
    builder_init(&p, LIMIT_PAYLOAD_BYTES);
    builder_init(&changes, 4 << 20);
    uint64_t all_expired = 0, all_evicted = 0, all_refused = 0;
    for (uint64_t round = 1; round <= 4; round++) {
        seed = round * 0x9e3779b97f4a7c15u;
        print_message("seed %" PRIu64 "\n", seed);
        memset(m, 0, sizeof *m);
        bool one_size =
            round % 2 == 0; /* and no time to live: the age of what an acknowledgement leaves of a segment is an estimate too */
        struct table *t = table_new(SIZE_MAX / 8);
        struct outbox b;
        struct dedup d;
        assert_int_equal(outbox_load(&b, t, NULL), E_OK);
        assert_int_equal(dedup_load(&d, t, NULL), E_OK);
        struct queue_limits l = {.bytes_max = 3000 + draw(9000),
                                 .age_s = round > 1 ? 400 : 0,
                                 .ttls = {{"short.*", 100}, {"long.*", 1000}},
                                 .ttl_count = 2};
        if (one_size) {
            l.age_s = l.ttl_count = 0;
        }
        l.floor_percent[PRIORITY_LOW] = (uint32_t)draw(40);
        l.floor_percent[PRIORITY_NORMAL] = (uint32_t)draw(40);
        builder_reset(&p);
        builder_reset(&changes);
        payload_limits(&p, &l);
        assert_int_equal(outbox_limits(&b, builder_bytes(&p), &changes, NULL), E_OK);
        assert_int_equal(table_commit(t, builder_bytes(&changes)), E_OK);
        m->bytes_max = l.bytes_max;
        memcpy(m->floor_percent, l.floor_percent, sizeof m->floor_percent);
        m->class_ms[0] = l.age_s * 1000;
        m->class_ms[1] = one_size ? 0 : 100000;
        m->class_ms[2] = one_size ? 0 : 1000000;
        for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
            m->next[c] = 1;
        }
        unsigned mood = 0, refused = 0;
        int64_t now_ms = 1000000;
        for (unsigned step = 0; step < 3000; step++) {
            struct outbox next = b;
            next.segment_bytes = BYTES;
            next.segment_span = SPAN;
            builder_reset(&p);
            builder_reset(&changes);
            mood = draw(60) == 0 ? (unsigned)draw(4) : mood; /* offline, link back, alarms, calm */
            now_ms += (int64_t)draw(mood == 3 ? 30000 : 4000);
            if (draw(10) < (mood == 1 ? 5 : mood == 3 ? 3 : 0)) {
                enum event_channel c = (enum event_channel)draw(CHANNEL_COUNT);
                grey_seq last = m->next[c] - 1;
                grey_seq seq = draw(8) == 0 ? last : m->acked[c] + draw(last - m->acked[c] + 1) / (1 + draw(20));
                seq = model_ack_at(m, c, seq, one_size);
                payload_ack(&p, INCARNATION, c, seq);
                assert_int_equal(outbox_ack(&next, t, INCARNATION, builder_bytes(&p), &changes, NULL), E_OK);
                m->acked[c] = seq > m->acked[c] ? seq : m->acked[c];
                b = next;
            } else if (draw(20) == 0) {
                struct loss loss;
                loss_begin(&loss, &next);
                loss_expire(&loss, &next, t, now_ms, &changes);
                loss_end(&loss, &next, &changes);
                model_expire(m, now_ms);
                b = next;
            } else {
                unsigned lists[6];
                uint32_t sizes[6];
                unsigned count = 1 + (unsigned)draw(6);
                codec_put_array(&p, count);
                for (unsigned i = 0; i < count; i++) {
                    enum event_priority of = mood == 2 ? (enum event_priority)draw(2) : (enum event_priority)draw(PRIORITY_COUNT);
                    of = of == PRIORITY_CRITICAL && draw(3) > 0 ? PRIORITY_NORMAL : of;
                    unsigned class = (unsigned)draw(CLASSES);
                    lists[i] = outbox_list_of(of, of == PRIORITY_CRITICAL || one_size ? 0 : class);
                    struct event e = {
                        .id = bytes_str("i"), .source = bytes_str("s"), .type = bytes_str(model_types[class]), .priority = of};
                    e.data =
                        bytes_of(zeros, one_size ? 100 - strlen(model_types[class]) : (size_t)draw(draw(40) == 0 ? 3000 : 300));
                    size_t before = p.size;
                    record_encode(&e, &p);
                    sizes[i] = (uint32_t)(p.size - before);
                }
                struct entry e = {.index = step + 1, .kind = ENTRY_EVENTS, .payload = builder_blob(&p)};
                enum grey_error err = arrivals_apply(&next, &d, t, &e, now_ms, &changes, NULL, NULL);
                blob_unref(e.payload);
                memcpy(copy, m, sizeof *m);
                assert_int_equal(err, model_add(m, lists, sizes, count, now_ms) ? E_OK : E_QUEUE_FULL);
                if (err == E_OK) {
                    b = next;
                } else {
                    memcpy(m, copy, sizeof *m);
                    builder_reset(&changes);
                    refused++;
                }
            }
            assert_int_equal(changes.err, E_OK);
            assert_int_equal(table_commit(t, builder_bytes(&changes)), E_OK);
            if (step % 20 == 0) {
                model_compare(m, &b, t, one_size);
            }
            if (step % 500 == 0) {
                struct outbox loaded;
                assert_int_equal(outbox_load(&loaded, t, NULL), E_OK);
                assert_memory_equal(loaded.lists, b.lists, sizeof b.lists);
                assert_memory_equal(loaded.channels, b.channels, sizeof b.channels);
                assert_memory_equal(&loaded.bounds, &b.bounds, sizeof b.bounds);
            }
        }
        for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
            all_evicted += m->lost_events[c] - m->expired_events[c];
            all_expired += m->expired_events[c];
        }
        all_refused += refused;
        assert_int_equal(m->lost_events[CHANNEL_CONTROL], 0);
        table_free(t);
    }
    print_message("%" PRIu64 " refused, %" PRIu64 " evicted, %" PRIu64 " expired\n", all_refused, all_evicted, all_expired);
    assert_true(all_refused > 0 && all_evicted > 0 && all_expired > 0);
    builder_free(&p);
    builder_free(&changes);
    free(m);
    free(copy);
}

/* Rows of a damaged disk must be found at the start, not believed. */
static void damaged_rows_are_found_at_load(void **context) {
    (void)context;
    struct site *s = site_new(1 << 20);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(send(s, i % 2 == 0 ? PRIORITY_LOW : PRIORITY_NORMAL, i == 0 ? "x" : NULL, "t", 10), E_OK);
    }
    gateway_flush(&s->g);
    struct fault f;
    for (enum table_id id = TABLE_META; id <= TABLE_SEGMENT; id = (enum table_id)(id + TABLE_SEGMENT - TABLE_META)) {
        uint8_t after[LIMIT_KEY_BYTES + 1];
        struct bytes from = bytes_of(NULL, 0), key, value;
        raft_index ref;
        while (table_next(s->g.disk, id, from, &key, &value, &ref)) {
            struct table *t = table_new(1 << 20);
            memcpy(after, key.data, key.size);
            after[key.size] = 0;
            from = bytes_of(after, key.size + 1);
            struct gateway damaged = {.rows = t, .disk = s->g.disk};
            assert_int_equal(table_put(t, id, bytes_of(after, key.size), bytes_of(value.data, value.size - 1), 0), E_OK);
            gateway_load_pinned(&damaged); /* does not overwrite */
            assert_null(state_new(t, &f));
            assert_int_equal(f.code, E_CORRUPT);
            table_free(t);
        }
    }
    site_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_channel_counts_for_itself),
        cmocka_unit_test(acknowledgements_only_move_forward),
        cmocka_unit_test(what_the_link_cost_rides_along),
        cmocka_unit_test(a_repeat_gets_the_old_numbers),
        cmocka_unit_test(an_id_with_another_body_is_refused_with_its_whole_batch),
        cmocka_unit_test(ids_are_forgotten_after_eight_days),
        cmocka_unit_test(the_number_of_ids_is_bounded),
        cmocka_unit_test(a_full_queue_gives_way_by_priority),
        cmocka_unit_test(a_batch_without_room_evicts_nothing),
        cmocka_unit_test(malformed_batches_are_refused),
        cmocka_unit_test(damaged_rows_are_found_at_load),
        cmocka_unit_test(a_floor_holds_but_not_against_critical_events),
        cmocka_unit_test(events_leave_when_their_time_is_over),
        cmocka_unit_test(a_steady_stream_expires_as_it_ages),
        cmocka_unit_test(an_event_keeps_the_time_it_was_taken_with),
        cmocka_unit_test(patterns_match_whole_types),
        cmocka_unit_test(gaps_tell_numbers_and_bytes),
        cmocka_unit_test(a_naive_outbox_counts_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
