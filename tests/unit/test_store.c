/* The core's store: each number of a site once, in order, whatever is repeated, lost or killed on the way.  If this fails, the core
 * shows events twice, loses some in silence, or tells a site to free what it does not have. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/store_answers.h"
#include "federation/record.h"
#include "platform/db.h"
#include "platform/json.h"
#include "tests/unit/store_rig.h"

#define INCARNATION 0x1234567890abcdefull

static int share(void **state) {
    (void)state;
    shared = true;
    return 0;
}

static int share_postgres(void **state) {
    shared = true;
    return postgres_start(state);
}

static void hello(struct store *s, grey_epoch epoch, grey_seq next, grey_seq acked, grey_seq positions[CHANNEL_COUNT],
                  enum grey_error expected) {
    struct sync_hello h = {.incarnation = INCARNATION, .epoch = epoch, .feature_level = 1, .node = bytes_str("2"), .time_ms = 5};
    struct fault f = {0};
    bool rolled_back;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        h.channels[i].next_seq = next;
        h.channels[i].acked_seq = acked;
    }
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_hello(s, "plant", &h, 1000, positions, &rolled_back, &f), expected);
    if (expected == E_OK) {
        assert_int_equal(rolled_back, positions[0] >= next);
    }
    assert_int_equal(store_commit(s, &f), E_OK);
}

/* Events from..to of the data channel, each with its number as data; gap: of these, those that were evicted (0: none). */
static int64_t send_ms = 2000;

static struct store_taken send(struct store *s, grey_epoch epoch, grey_seq from, grey_seq to, grey_seq gap_from, grey_seq gap_to,
                               enum grey_error expected) {
    static struct sync_item items[SYNC_ITEMS_MAX];
    struct sync_gap gap = {
        .from_seq = gap_from, .to_seq = gap_to, .reason = SYNC_GAP_EVICTED, .bytes = 100 * (gap_to - gap_from + 1)};
    struct sync_events e = {.incarnation = INCARNATION,
                            .epoch = epoch,
                            .channel = CHANNEL_DATA,
                            .from_seq = from,
                            .to_seq = to,
                            .items = items,
                            .gaps = &gap,
                            .gap_count = gap_from > 0};
    struct builder b;
    struct fault f = {0};
    size_t ends[SYNC_ITEMS_MAX];
    builder_init(&b, 10000000);
    for (grey_seq seq = from; seq <= to; seq++) {
        if (gap_from == 0 || seq < gap_from || seq > gap_to) {
            char data[32], id[32];
            (void)snprintf(data, sizeof data, "%u", (unsigned)seq);
            (void)snprintf(id, sizeof id, "e%u", (unsigned)seq);
            struct event event = {.id = bytes_str(id),
                                  .source = bytes_str("pump"),
                                  .type = bytes_str("t"),
                                  .data = bytes_str(data),
                                  .priority = PRIORITY_NORMAL};
            record_encode(&event, &b);
            items[e.item_count] = (struct sync_item){.seq = seq, .index = seq + 100, .time_ms = 1700000000000};
            ends[e.item_count++] = b.size;
        }
    }
    for (uint32_t i = 0; i < e.item_count; i++) {
        size_t begin = i == 0 ? 0 : ends[i - 1];
        items[i].record = bytes_of(b.data + begin, ends[i] - begin);
    }
    struct store_taken taken;
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_events(s, "plant", &e, send_ms, &taken, &f), expected);
    assert_int_equal(store_commit(s, &f), E_OK);
    builder_free(&b);
    return taken;
}

static json_t *ask(struct store *s, bool gaps, int channel, const char *after, uint32_t limit, enum grey_error expected) {
    struct builder b;
    struct json_writer w;
    struct fault f = {0};
    struct store_query q = {.channel = channel, .after = after, .limit = limit};
    builder_init(&b, 100000000);
    json_writer_init(&w, &b);
    assert_int_equal(gaps ? store_answers_gaps(s, "plant", &q, &w, &f) : store_answers_events(s, "plant", &q, &w, &f), expected);
    json_t *answer = expected == E_OK ? json_read(builder_bytes(&b), &f) : NULL;
    if (expected == E_OK && answer == NULL) {
        fail_msg("%s: %.*s", f.text, (int)(b.size < 200 ? b.size : 200), b.data);
    }
    builder_free(&b);
    return answer;
}

static json_int_t seq_of(const json_t *answer, const char *list, size_t i) {
    const json_t *one = json_array_get(json_object_get(answer, list), i);
    return json_integer_value(json_object_get(one, strcmp(list, "gaps") == 0 ? "from_seq" : "seq"));
}

static json_int_t bytes_of_gap(struct store *s, size_t i) {
    json_t *gaps = ask(s, true, CHANNEL_DATA, "", 100, E_OK);
    const json_t *gap = json_array_get(json_object_get(gaps, "gaps"), i);
    assert_string_equal(json_string_value(json_object_get(gap, "reason")), "evicted");
    json_int_t bytes = json_integer_value(json_object_get(gap, "bytes"));
    json_decref(gaps);
    return bytes;
}

/* Whoever adds up what was lost must not count the part of a gap that the core had as events. */
static void a_gap_has_its_bytes(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 100, 0, at, E_OK);
    (void)send(s, 1, 1, 10, 3, 6, E_OK);
    assert_int_equal(bytes_of_gap(s, 0), 400);
    struct store_taken t = send(s, 1, 9, 20, 9, 16, E_OK); /* 9 and 10 came before */
    assert_int_equal(t.position, 20);
    assert_int_equal(bytes_of_gap(s, 1), 600);
    store_close(s);
}

/* A core that was updated keeps its gaps, of which it never knew the bytes. */
static void gaps_of_an_earlier_version_stay(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 100, 0, at, E_OK);
    (void)send(s, 1, 1, 20, 3, 16, E_OK);
    store_close(s);
    struct fault f = {0};
    struct db_options o = {.page_bytes = 4096, .cache_bytes = 1 << 20};
    bool created;
    struct db *old = db_open(where + 7, &o, &created, &f); /* as an earlier version made it */
    assert_non_null(old);
    assert_int_equal(db_exec(old, "ALTER TABLE gap DROP COLUMN bytes;", &f), E_OK);
    db_close(old);
    s = open_store();
    assert_int_equal(bytes_of_gap(s, 0), 0);
    (void)send(s, 1, 21, 25, 22, 23, E_OK);
    assert_int_equal(bytes_of_gap(s, 1), 200);
    store_close(s);
}

static void each_number_once(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    (void)send(s, 1, 1, 5, 0, 0, E_NOT_FOUND); /* before any hello */
    hello(s, 1, 100, 0, at, E_OK);
    assert_int_equal(at[CHANNEL_DATA], 0);
    struct store_taken t = send(s, 1, 1, 5, 0, 0, E_OK);
    assert_true(t.position == 5 && t.fresh == 5 && t.repeated == 0);
    t = send(s, 1, 1, 5, 0, 0, E_OK);
    assert_true(t.position == 5 && t.fresh == 0 && t.repeated == 5);
    t = send(s, 1, 4, 8, 0, 0, E_OK); /* other batches than before */
    assert_true(t.position == 8 && t.fresh == 3 && t.repeated == 2);
    t = send(s, 1, 10, 12, 0, 0, E_OK);
    assert_true(t.beyond_hole && t.position == 8 && t.fresh == 0);
    t = send(s, 1, 9, 20, 12, 15, E_OK); /* 12..15 were evicted */
    assert_true(t.position == 20 && t.fresh == 8);
    t = send(s, 1, 15, 30, 15, 18, E_OK); /* the site, without an acknowledgement, has evicted more meanwhile */
    assert_true(t.position == 30 && t.fresh == 10);
    json_t *events = ask(s, false, CHANNEL_DATA, "", 1000, E_OK), *gaps = ask(s, true, -1, "", 10, E_OK);
    assert_int_equal(json_array_size(json_object_get(events, "events")), 26);
    for (size_t i = 0; i < 26; i++) {
        json_int_t seq = seq_of(events, "events", i);
        const json_t *e = json_array_get(json_object_get(events, "events"), i);
        assert_int_equal(seq, i < 11 ? i + 1 : i + 5);
        assert_int_equal(json_integer_value(json_object_get(e, "data")), seq);
        assert_int_equal(json_integer_value(json_object_get(e, "index")), seq + 100);
    }
    assert_int_equal(json_array_size(json_object_get(gaps, "gaps")), 1);
    assert_int_equal(seq_of(gaps, "gaps", 0), 12);
    assert_null(json_object_get(gaps, "next"));
    json_decref(events);
    json_decref(gaps);
    store_close(s);
}

static void a_former_leader_is_not_heard(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 3, 100, 0, at, E_OK);
    (void)send(s, 3, 1, 10, 0, 0, E_OK);
    hello(s, 5, 100, 0, at, E_OK);
    assert_int_equal(at[CHANNEL_DATA], 10);
    (void)send(s, 3, 11, 12, 0, 0, E_STALE_MEMBER);
    hello(s, 4, 100, 0, at, E_STALE_MEMBER);
    assert_int_equal(send(s, 5, 11, 12, 0, 0, E_OK).position, 12);
    store_close(s);
}

static void a_restored_core_reports_what_it_misses(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 100, 0, at, E_OK);
    (void)send(s, 1, 1, 10, 0, 0, E_OK);
    hello(s, 2, 100, 50, at, E_OK); /* the site has freed up to 50: this core said so before it was restored from a backup */
    assert_int_equal(at[CHANNEL_DATA], 50);
    hello(s, 2, 100, 50, at, E_OK);
    assert_int_equal(send(s, 2, 51, 60, 0, 0, E_OK).position, 60);
    json_t *gaps = ask(s, true, CHANNEL_DATA, "", 10, E_OK);
    const json_t *gap = json_array_get(json_object_get(gaps, "gaps"), 0);
    assert_int_equal(json_array_size(json_object_get(gaps, "gaps")), 1);
    assert_int_equal(json_integer_value(json_object_get(gap, "from_seq")), 11);
    assert_int_equal(json_integer_value(json_object_get(gap, "to_seq")), 50);
    assert_string_equal(json_string_value(json_object_get(gap, "reason")), "core-restored");
    json_decref(gaps);
    hello(s, 3, 40, 0, at, E_OK); /* the other way round: the site has forgotten 40..60; set_up's hello() checks that it is said */
    assert_int_equal(at[CHANNEL_DATA], 60);
    store_close(s);
}

static void a_rebuilt_site_goes_on_with_its_numbers(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    bool rolled_back;
    struct fault f = {0};
    hello(s, 5, 100, 0, at, E_OK);
    (void)send(s, 5, 1, 60, 0, 0, E_OK);
    /* the backup knew 80 numbers of data, of which 60 are here; and 49 of events, of which none is */
    struct sync_hello h = {
        .incarnation = INCARNATION + 1, .epoch = 1, .feature_level = 1, .node = bytes_str("1"), .former = INCARNATION};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        h.channels[i].next_seq = 120;
        h.channels[i].former_next = i == CHANNEL_DATA ? 81 : 50;
    }
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_hello(s, "plant", &h, 1000, at, &rolled_back, &f), E_OK);
    assert_true(at[CHANNEL_DATA] == 60 && at[CHANNEL_EVENTS] == 0 && !rolled_back);
    /* the backup knew 40: 41..60 were lost with the disks and are given anew */
    h.incarnation++;
    h.former = INCARNATION;
    h.channels[CHANNEL_DATA].former_next = 41;
    assert_int_equal(store_hello(s, "plant", &h, 1000, at, &rolled_back, &f), E_OK);
    assert_true(at[CHANNEL_DATA] == 40 && !rolled_back);
    assert_int_equal(store_commit(s, &f), E_OK);
    store_close(s);
}

static void lists_are_walked_by_cursor(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 5000, 0, at, E_OK);
    for (grey_seq from = 1; from <= 2000; from += 100) {
        (void)send(s, 1, from, from + 99, from + 10, from + 10, E_OK);
    }
    char after[80] = "";
    json_int_t expected = 1;
    size_t seen = 0;
    for (int page = 0; page < 100; page++) {
        json_t *answer = ask(s, false, -1, after, 77, E_OK);
        size_t count = json_array_size(json_object_get(answer, "events"));
        for (size_t i = 0; i < count; i++, seen++) {
            expected += expected % 100 == 11;
            assert_int_equal(seq_of(answer, "events", i), expected++);
        }
        (void)snprintf(after, sizeof after, "%s", json_string_value(json_object_get(answer, "next")));
        json_decref(answer);
        if (count == 0) {
            break;
        }
    }
    assert_int_equal(seen, 1980);
    json_t *answer = ask(s, false, CHANNEL_DATA, "1990", 100, E_OK); /* a bare number */
    assert_int_equal(json_array_size(json_object_get(answer, "events")), 10);
    json_decref(answer);
    answer = ask(s, false, CHANNEL_EVENTS, "", 100, E_OK);
    assert_int_equal(json_array_size(json_object_get(answer, "events")), 0);
    json_decref(answer);
    size_t gaps = 0;
    after[0] = 0;
    for (;;) {
        answer = ask(s, true, -1, after, 7, E_OK);
        gaps += json_array_size(json_object_get(answer, "gaps"));
        const char *next = json_string_value(json_object_get(answer, "next"));
        (void)snprintf(after, sizeof after, "%s", next == NULL ? "" : next);
        json_decref(answer);
        if (after[0] == 0) {
            break;
        }
    }
    assert_int_equal(gaps, 20);
    static const char *const wrong[] = {"x", "1:2", "1:2:3:4", "-1", "1:2:3x", "99999999999999999999999999x"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)ask(s, false, -1, wrong[i], 10, E_BAD_REQUEST);
    }
    store_close(s);
}

/* What a site sends must come out as it is, and must never make the answer something else than JSON. */
static void data_cannot_break_the_answer(void **state) {
    (void)state;
    static const struct {
        const char *type, *data, *member;
    } cases[] = {{"", "{\"a\": 1.50}", "data"},
                 {"application/json; charset=utf-8", "[1]", "data"},
                 {"application/vnd.x+json", "\"x\"", "data"},
                 {"", "}, \"site\": \"other\"", "data_base64"},
                 {"application/json", "[1", "data_base64"},
                 {"text/plain", "hello", "data_base64"},
                 {"", "", "data"}};
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    size_t count = sizeof cases / sizeof cases[0];
    hello(s, 1, 100, 0, at, E_OK);
    for (size_t i = 0; i <= count; i++) {
        struct builder b;
        struct fault f = {0};
        struct store_taken taken;
        builder_init(&b, 10000);
        if (i < count) {
            struct event event = {.id = bytes_str("i"),
                                  .source = bytes_str("s"),
                                  .type = bytes_str("t"),
                                  .content_type = bytes_str(cases[i].type),
                                  .data = bytes_str(cases[i].data)};
            record_encode(&event, &b);
        } else {
            builder_add_str(&b, "no record at all");
        }
        struct sync_item item = {.seq = i + 1, .index = 1, .record = builder_bytes(&b)};
        struct sync_events e = {.incarnation = INCARNATION,
                                .epoch = 1,
                                .channel = 0,
                                .from_seq = i + 1,
                                .to_seq = i + 1,
                                .items = &item,
                                .item_count = 1};
        assert_int_equal(store_begin(s, &f), E_OK);
        assert_int_equal(store_events(s, "plant", &e, 1, &taken, &f), E_OK);
        assert_int_equal(store_commit(s, &f), E_OK);
        assert_int_equal(taken.unreadable, i == count);
        builder_free(&b);
    }
    json_t *answer = ask(s, false, -1, "", 100, E_OK);
    const json_t *events = json_object_get(answer, "events");
    assert_int_equal(json_array_size(events), count + 1);
    for (size_t i = 0; i < count; i++) {
        const json_t *e = json_array_get(events, i);
        assert_non_null(json_object_get(e, cases[i].member));
        assert_string_equal(json_string_value(json_object_get(e, "site")), "plant");
    }
    assert_non_null(json_object_get(json_array_get(events, count), "record_base64"));
    json_decref(answer);
    store_close(s);
}

static void large_events_make_short_pages(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 100, 0, at, E_OK);
    struct builder b;
    builder_init(&b, 1000000);
    char *data = mem_new(1, LIMIT_EVENT_BYTES);
    memset(data, 'x', LIMIT_EVENT_BYTES);
    struct event event = {.id = bytes_str("i"),
                          .source = bytes_str("s"),
                          .type = bytes_str("t"),
                          .content_type = bytes_str("text/plain"),
                          .data = bytes_of(data, LIMIT_EVENT_BYTES)};
    record_encode(&event, &b);
    mem_free(data);
    for (grey_seq seq = 1; seq <= 40; seq++) {
        struct fault f = {0};
        struct store_taken taken;
        struct sync_item item = {.seq = seq, .index = 1, .record = builder_bytes(&b)};
        struct sync_events e = {
            .incarnation = INCARNATION, .epoch = 1, .channel = 1, .from_seq = seq, .to_seq = seq, .items = &item, .item_count = 1};
        assert_int_equal(store_begin(s, &f), E_OK);
        assert_int_equal(store_events(s, "plant", &e, 1, &taken, &f), E_OK);
        assert_int_equal(store_commit(s, &f), E_OK);
    }
    builder_free(&b);
    char after[80] = "";
    size_t seen = 0, pages = 0;
    for (size_t count = 1; count > 0; pages++) {
        json_t *answer = ask(s, false, -1, after, 1000, E_OK);
        count = json_array_size(json_object_get(answer, "events"));
        seen += count;
        (void)snprintf(after, sizeof after, "%s", json_string_value(json_object_get(answer, "next")));
        json_decref(answer);
    }
    assert_int_equal(seen, 40);
    assert_in_range(pages, 3, 6);
    store_close(s);
}

static void sites_are_listed(void **state) {
    (void)state;
    struct store *s = open_store();
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    for (int i = 0; i < 700; i++) {
        char name[32];
        grey_seq at[CHANNEL_COUNT];
        bool rolled_back;
        struct sync_hello h = {.incarnation = (uint64_t)i + 1, .epoch = 2, .node = bytes_str(i % 2 == 0 ? "a" : "b")};
        h.channels[0].next_seq = h.channels[1].next_seq = h.channels[2].next_seq = 10;
        (void)snprintf(name, sizeof name, "site-%03d", i);
        assert_int_equal(store_hello(s, name, &h, 1000, at, &rolled_back, &f), E_OK);
        h.node = bytes_str("c");
        assert_int_equal(store_hello(s, name, &h, 2000, at, &rolled_back, &f), E_OK);
    }
    assert_int_equal(store_commit(s, &f), E_OK);
    static struct store_stand stands[256];
    char after[80] = "";
    size_t count, all = 0;
    int64_t now_ms = 50000;
    assert_int_equal(store_begin(s, &f), E_OK);
    do {
        assert_int_equal(store_stands(s, after, now_ms, stands, 256, &count, &f), E_OK);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(stands[i].at.incarnation, all + i + 1);
            assert_int_equal(stands[i].at.epoch, 2);
        }
        all += count;
        (void)snprintf(after, sizeof after, "%s", count > 0 ? stands[count - 1].site.text : "");
    } while (count == 256);
    assert_int_equal(all, 700);
    assert_int_equal(store_commit(s, &f), E_OK);
    /* of cores that share a store one asks, and after a while again; a core that is alone asks whenever it comes back */
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_stands(s, "", now_ms + STORE_ASK_ALL_MS - 1, stands, 256, &count, &f), E_OK);
    assert_int_equal(count, shared ? 0 : 256);
    assert_int_equal(store_stands(s, "", now_ms + STORE_ASK_ALL_MS, stands, 256, &count, &f), E_OK);
    assert_int_equal(count, 256);
    assert_int_equal(store_stands(s, "", 10000, stands, 256, &count, &f), E_OK); /* the clock was set back since */
    assert_int_equal(count, shared ? 0 : 256);                                   /* heard 8 s ago */
    assert_int_equal(store_commit(s, &f), E_OK);
    struct builder b;
    struct json_writer w;
    builder_init(&b, 1000000);
    json_writer_init(&w, &b);
    assert_int_equal(store_answers_site(s, "site-007", &w, &f), E_OK);
    json_t *site = json_read(builder_bytes(&b), &f);
    assert_string_equal(json_string_value(json_object_get(site, "node")), "c");
    assert_int_equal(json_array_size(json_object_get(site, "nodes")), 2);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json_object_get(site, "channels"), "data"), "behind")), 9);
    json_decref(site);
    builder_reset(&b);
    json_writer_init(&w, &b);
    assert_int_equal(store_answers_site(s, "nobody", &w, &f), E_NOT_FOUND);
    builder_free(&b);
    store_close(s);
}

/* The process is killed anywhere in a stream of transactions: what was told as the position is there, complete and once. */
static void what_was_acknowledged_survives_a_kill(void **state) {
    (void)state;
    grey_seq told = 0;
    grey_seq at[CHANNEL_COUNT];
    struct store *s = open_store();
    hello(s, 1, 1000000, 0, at, E_OK);
    store_close(s);
    for (int round = 0; round < 12; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            s = open_store();
            hello(s, 1, 1000000, 0, at, E_OK);
            for (grey_seq from = at[CHANNEL_DATA] + 1;; from += 20) {
                grey_seq back = from > 30 ? from - 30 : 1; /* repeats, as after a lost acknowledgement */
                struct store_taken t = send(s, 1, back, from + 19, 0, 0, E_OK);
                if (write(pipes[1], &t.position, sizeof t.position) < 0) {
                    _exit(1);
                }
            }
        }
        (void)close(pipes[1]);
        grey_seq position;
        unsigned wanted = 1 + (unsigned)round * 3;
        while (wanted-- > 0 && read(pipes[0], &position, sizeof position) == (ssize_t)sizeof position) {
            told = position;
        }
        (void)usleep((unsigned)round * 700);
        (void)kill(child, SIGKILL);
        while (read(pipes[0], &position, sizeof position) == (ssize_t)sizeof position) {
            told = position;
        }
        (void)close(pipes[0]);
        (void)waitpid(child, NULL, 0);
    }
    s = open_store();
    hello(s, 1, 1000000, 0, at, E_OK);
    assert_true(at[CHANNEL_DATA] >= told && told > 100);
    char after[80] = "";
    json_int_t expected = 1;
    for (size_t count = 1; count > 0;) {
        json_t *answer = ask(s, false, -1, after, 1000, E_OK);
        count = json_array_size(json_object_get(answer, "events"));
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(seq_of(answer, "events", i), expected++);
        }
        (void)snprintf(after, sizeof after, "%s", json_string_value(json_object_get(answer, "next")));
        json_decref(answer);
    }
    assert_int_equal(expected, at[CHANNEL_DATA] + 1);
    store_close(s);
}

/* --- frames that come out of order -------------------------------------------------------------------------------------------------------------- */

static void all_there(struct store *s, json_int_t last) {
    char after[80] = "";
    json_int_t expected = 1;
    for (size_t count = 1; count > 0;) {
        json_t *answer = ask(s, false, CHANNEL_DATA, after, 1000, E_OK);
        count = json_array_size(json_object_get(answer, "events"));
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(seq_of(answer, "events", i), expected++);
        }
        (void)snprintf(after, sizeof after, "%s", json_string_value(json_object_get(answer, "next")));
        json_decref(answer);
    }
    assert_int_equal(expected, last + 1);
}

static void frames_of_several_cores_come_into_order(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 1000000, 0, at, E_OK);
    srand(7);
    grey_seq begin = 1;
    for (int round = 0; round < 20; round++) { /* windows of 20 frames of 1 to 9 events, in any order, some twice */
        grey_seq from[20], to[20], next = begin;
        for (int i = 0; i < 20; i++) {
            from[i] = next;
            to[i] = next + (grey_seq)(rand() % 9);
            next = to[i] + 1;
        }
        for (int i = 19; i > 0; i--) {
            int k = rand() % (i + 1);
            grey_seq f = from[i], l = to[i];
            from[i] = from[k], to[i] = to[k];
            from[k] = f, to[k] = l;
        }
        uint32_t fresh = 0;
        grey_seq position = 0;
        for (int i = 0; i < 20; i++) {
            struct store_taken t = send(s, 1, from[i], to[i], 0, 0, E_OK);
            assert_int_equal(t.kept_ahead, shared && t.beyond_hole);
            assert_true(t.position >= position);
            assert_true(t.beyond_hole || t.position >= to[i]);
            fresh += t.fresh;
            position = t.position;
            if (rand() % 4 == 0) {
                fresh += send(s, 1, from[i], to[i], 0, 0, E_OK).fresh;
            }
        }
        if (!shared) { /* one core: what lies beyond a hole is sent again */
            fresh += send(s, 1, position + 1, next - 1, 0, 0, E_OK).fresh;
        }
        assert_int_equal(fresh, next - begin);
        begin = next;
        all_there(s, (json_int_t)begin - 1);
    }
    store_close(s);
}

/* Two framings of the same numbers: each number is taken once, from whichever frame closes the hole first. */
static void overlapping_frames_do_not_count_twice(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 100, 0, at, E_OK);
    (void)send(s, 1, 11, 20, 0, 0, E_OK);
    (void)send(s, 1, 15, 30, 15, 18, E_OK); /* of another session: the site has evicted 15..18 meanwhile */
    (void)send(s, 1, 11, 13, 0, 0, E_OK);
    struct store_taken t = send(s, 1, 1, 10, 0, 0, E_OK);
    assert_int_equal(t.position, shared ? 30 : 10);
    if (shared) {
        assert_int_equal(t.fresh, 30);
        all_there(s, 30);
        json_t *gaps = ask(s, true, -1, "", 10, E_OK);
        assert_int_equal(json_array_size(json_object_get(gaps, "gaps")), 0);
        json_decref(gaps);
    }
    store_close(s);
}

static void a_hole_that_stays_is_asked_for_once(void **state) {
    (void)state;
    struct store *s = open_store();
    struct store *other = shared && strncmp(where, "sqlite:", 7) != 0 ? open_store() : s; /* two cores, where there can be */
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 100000, 0, at, E_OK);
    uint32_t asked = 0, kept = 0;
    send_ms = 100000;
    for (grey_seq i = 0; i < STORE_AHEAD_FRAMES + 20; i++) { /* the frame 1..10 is lost; the others arrive within a second */
        struct store_taken t = send(i % 2 == 0 ? s : other, 1, 11 + 10 * i, 20 + 10 * i, 0, 0, E_OK);
        assert_true(t.beyond_hole && t.position == 0 && t.fresh == 0);
        asked += t.ask_again;
        kept += t.kept_ahead;
        send_ms += 10;
    }
    assert_int_equal(kept, shared ? STORE_AHEAD_FRAMES : 0); /* the rest is more than is kept: dropped, and the site asked */
    assert_int_equal(asked, 1);
    send_ms += STORE_ASK_MS;
    assert_true(send(s, 1, 2001, 2010, 0, 0, E_OK).ask_again);
    assert_false(send(other, 1, 2001, 2010, 0, 0, E_OK).ask_again);
    hello(other, 1, 100000, 0, at, E_OK); /* the site begins anew from the position */
    assert_int_equal(at[CHANNEL_DATA], 0);
    struct store_taken t = send(s, 1, 1, 10, 0, 0, E_OK);
    assert_true(t.position == 10 && t.fresh == 10); /* nothing of what was kept is left */
    /* few frames, but none closes the hole: asked when it has been there for a while */
    asked = 0;
    send_ms += 100000;
    for (int64_t ms = 0; ms <= STORE_HOLE_MS; ms += 500, send_ms += 500) {
        asked += send(s, 1, 21 + (grey_seq)ms, 22 + (grey_seq)ms, 0, 0, E_OK).ask_again;
        assert_int_equal(asked, ms >= STORE_HOLE_MS || !shared);
    }
    send_ms = 2000;
    if (other != s) {
        store_close(other);
    }
    store_close(s);
}

/* The frames of a window were sent, one of them is lost, and no other will come: the core asks all the same. */
static void a_hole_is_looked_for_again(void **state) {
    (void)state;
    struct store *s = open_store();
    struct fault f = {0};
    struct store_taken taken, t;
    uint32_t wait_ms = 0;
    grey_seq at[CHANNEL_COUNT];
    struct store_hole hole = {.site = "plant", .incarnation = INCARNATION, .epoch = 1, .channel = CHANNEL_DATA};
    struct step {
        int64_t after_ms;
        uint32_t wait_ms;
        bool asks;
    } steps[] = {{1500, 500, false}, {STORE_HOLE_MS, STORE_ASK_MS, true}, {STORE_HOLE_MS + 100, STORE_ASK_MS, false}};
    hello(s, 1, 1000, 0, at, E_OK);
    send_ms = 500000;
    t = send(s, 1, 11, 20, 0, 0, E_OK);
    assert_int_equal(t.first_ahead, shared);
    t = send(s, 1, 31, 40, 0, 0, E_OK);
    assert_false(t.first_ahead);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && shared; i++) {
        assert_int_equal(store_begin(s, &f), E_OK);
        assert_int_equal(store_hole(s, &hole, send_ms + steps[i].after_ms, &taken, &wait_ms, &f), E_OK);
        assert_int_equal(store_commit(s, &f), E_OK);
        assert_int_equal(wait_ms, steps[i].wait_ms);
        assert_int_equal(taken.ask_again, steps[i].asks);
        assert_int_equal(taken.position, 0);
    }
    (void)send(s, 1, 1, 10, 0, 0, E_OK);
    (void)send(s, 1, 21, 30, 0, 0, E_OK); /* closed */
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_hole(s, &hole, send_ms + 10000, &taken, &wait_ms, &f), E_OK);
    assert_true(wait_ms == 0 && !taken.ask_again);
    hole.epoch = 0;
    assert_int_equal(store_hole(s, &hole, send_ms + 10000, &taken, &wait_ms, &f), E_STALE_MEMBER);
    assert_int_equal(store_commit(s, &f), E_OK);
    send_ms = 2000;
    store_close(s);
}

static void large_frames_ahead_are_bounded(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    hello(s, 1, 100, 0, at, E_OK);
    char *data = mem_new(1, LIMIT_EVENT_BYTES);
    memset(data, 'x', LIMIT_EVENT_BYTES);
    uint64_t kept = 0;
    for (grey_seq seq = 2; seq <= STORE_AHEAD_FRAMES / 2; seq++) {
        struct fault f = {0};
        struct store_taken taken;
        struct sync_item item = {.seq = seq, .index = 1, .record = bytes_of(data, LIMIT_EVENT_BYTES)};
        struct sync_events e = {
            .incarnation = INCARNATION, .epoch = 1, .channel = 1, .from_seq = seq, .to_seq = seq, .items = &item, .item_count = 1};
        assert_int_equal(store_begin(s, &f), E_OK);
        assert_int_equal(store_events(s, "plant", &e, 1, &taken, &f), E_OK);
        assert_int_equal(store_commit(s, &f), E_OK);
        kept += taken.kept_ahead ? LIMIT_EVENT_BYTES : 0;
    }
    mem_free(data);
    assert_true(kept <= STORE_AHEAD_BYTES && (!shared || kept > STORE_AHEAD_BYTES - 2 * LIMIT_EVENT_BYTES));
    store_close(s);
}

/* The answer to a commit is lost with the connection: the same is done again, and changes nothing. */
static void done_again_changes_nothing(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    for (int times = 0; times < 2; times++) {
        hello(s, 3, 100, 5, at, E_OK);
        assert_int_equal(at[CHANNEL_DATA], times == 0 ? 5 : 40);
        struct store_taken t = send(s, 3, 6, 40, 10, 12, E_OK);
        assert_true(t.position == 40 && t.fresh == (times == 0 ? 32 : 0));
    }
    json_t *gaps = ask(s, true, CHANNEL_DATA, "", 10, E_OK), *events = ask(s, false, CHANNEL_DATA, "", 100, E_OK);
    assert_int_equal(json_array_size(json_object_get(gaps, "gaps")), 2); /* core-restored 1..5, evicted 10..12 */
    assert_int_equal(json_array_size(json_object_get(events, "events")), 32);
    json_decref(gaps);
    json_decref(events);
    store_close(s);
}

static void what_was_not_committed_is_gone(void **state) {
    (void)state;
    struct store *s = open_store();
    grey_seq at[CHANNEL_COUNT];
    bool rolled_back;
    struct fault f = {0};
    struct sync_hello h = {.incarnation = INCARNATION, .epoch = 9, .feature_level = 1, .node = bytes_str("2")};
    h.channels[0].next_seq = h.channels[1].next_seq = h.channels[2].next_seq = 100;
    hello(s, 1, 100, 0, at, E_OK);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_hello(s, "plant", &h, 1000, at, &rolled_back, &f), E_OK);
    store_rollback(s);
    assert_int_equal(send(s, 1, 1, 10, 0, 0, E_OK).position, 10); /* of epoch 9 nobody has heard */
    store_rollback(s);                                            /* harmless */
    store_close(s);
}

static void other_stores_are_refused_with_a_sentence(void **state) {
    (void)state;
    struct fault f = {0};
    struct store_options alone = {0};
    assert_null(store_open("oracle://db/grey", &alone, &f));
    assert_true(f.code == E_USAGE && strstr(f.text, "sqlite:PATH") != NULL);
    assert_null(store_open("sqlite:/nowhere/at/all.db", &alone, &f));
    assert_null(store_open("postgresql://127.0.0.1:1/grey?password=secret", &alone, &f));
    assert_true(f.code == E_CONNECT && strstr(f.text, "secret") == NULL);
    assert_true(store_is_postgres("postgres://db/grey") && !store_is_postgres("sqlite:postgres://"));
}

static void a_store_of_another_version_is_refused(void **state) {
    (void)state;
    struct fault f = {0};
    store_close(open_store());
    struct pg *p = pg_open(where, "", &f);
    assert_non_null(p);
    assert_int_equal(pg_exec(p, "UPDATE meta SET format = 99", &f), E_OK);
    pg_close(p);
    assert_null(store_open(where, &(struct store_options){.shared = true}, &f));
    assert_true(f.code == E_DISK_VERSION && strstr(f.text, "99") != NULL);
}

/* Cores that start together on an empty database make its tables once. */
static void cores_may_start_together(void **state) {
    (void)state;
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            struct fault f = {0};
            struct store *s = store_open(where, &(struct store_options){.shared = true}, &f);
            store_close(s);
            _exit(s == NULL);
        }
    }
    for (int i = 0; i < 4; i++) {
        int status = -1;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
}

int main(void) {
#define SAME_ON(up, down)                                                                                                          \
    cmocka_unit_test_setup_teardown(each_number_once, up, down), cmocka_unit_test_setup_teardown(a_gap_has_its_bytes, up, down),   \
        cmocka_unit_test_setup_teardown(a_former_leader_is_not_heard, up, down),                                                   \
        cmocka_unit_test_setup_teardown(a_restored_core_reports_what_it_misses, up, down),                                         \
        cmocka_unit_test_setup_teardown(a_rebuilt_site_goes_on_with_its_numbers, up, down),                                        \
        cmocka_unit_test_setup_teardown(lists_are_walked_by_cursor, up, down),                                                     \
        cmocka_unit_test_setup_teardown(data_cannot_break_the_answer, up, down),                                                   \
        cmocka_unit_test_setup_teardown(large_events_make_short_pages, up, down),                                                  \
        cmocka_unit_test_setup_teardown(sites_are_listed, up, down),                                                               \
        cmocka_unit_test_setup_teardown(frames_of_several_cores_come_into_order, up, down),                                        \
        cmocka_unit_test_setup_teardown(overlapping_frames_do_not_count_twice, up, down),                                          \
        cmocka_unit_test_setup_teardown(a_hole_that_stays_is_asked_for_once, up, down),                                            \
        cmocka_unit_test_setup_teardown(a_hole_is_looked_for_again, up, down),                                                     \
        cmocka_unit_test_setup_teardown(large_frames_ahead_are_bounded, up, down),                                                 \
        cmocka_unit_test_setup_teardown(done_again_changes_nothing, up, down),                                                     \
        cmocka_unit_test_setup_teardown(what_was_not_committed_is_gone, up, down),                                                 \
        cmocka_unit_test_setup_teardown(what_was_acknowledged_survives_a_kill, up, down)
    const struct CMUnitTest on_sqlite[] = {SAME_ON(set_up, tear_down),
                                           cmocka_unit_test_setup_teardown(gaps_of_an_earlier_version_stay, set_up, tear_down),
                                           cmocka_unit_test(other_stores_are_refused_with_a_sentence)};
    const struct CMUnitTest on_postgres[] = {
        SAME_ON(set_up_postgres, NULL),
        cmocka_unit_test_setup(a_store_of_another_version_is_refused, set_up_postgres),
        cmocka_unit_test_setup(cores_may_start_together, set_up_postgres),
    };
    int failed = cmocka_run_group_tests_name("sqlite", on_sqlite, NULL, NULL);
    failed += cmocka_run_group_tests_name("sqlite, frames out of order", on_sqlite, share, NULL);
    failed += cmocka_run_group_tests_name("postgresql", on_postgres, share_postgres, postgres_stop);
    return failed;
}
