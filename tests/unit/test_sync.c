/* Messages between a site and the core: if one end could misread the other, events would be lost, doubled or given a wrong number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/credit.h"
#include "federation/sync.h"
#include "include/grey/limits.h"

static struct sync_item items[SYNC_ITEMS_MAX + 1], items_back[SYNC_ITEMS_MAX];
static struct sync_gap gaps[SYNC_GAPS_MAX + 1], gaps_back[SYNC_GAPS_MAX];

static enum grey_error round_trip(const struct sync_events *e, struct sync_events *back) {
    static struct builder b;
    builder_free(&b);
    builder_init(&b, 10000000);
    sync_put_events(&b, e);
    assert_int_equal(b.err, E_OK);
    return sync_get_events(builder_bytes(&b), back, items_back, gaps_back);
}

static void golden_bytes(void **state) {
    (void)state;
    static const uint8_t hello[] = {0x87, 0x18, 64, 7, 3, 1, 0x61, '2', 0x19, 0x03, 0xe8, 0x83, 0x82, 5, 4, 0x82, 1, 0, 0x82, 9, 0};
    static const uint8_t events[] = {0x88, 0x18, 65,  7,    3, 2,    5,   8,    0x82, 0x84, 0,    0x18, 100, 0x19, 0x03,
                                     0xe8, 0x41, 'r', 0x84, 3, 0x18, 101, 0x20, 0x41, 's',  0x81, 0x83, 6,   7,    1};
    static const uint8_t welcome[] = {0x85, 0x18, 80, 7, 3, 0x83, 4, 0, 8, 1}, resync[] = {0x85, 0x18, 82, 7, 3, 0x83, 4, 0, 8, 1};
    static const uint8_t welcome_codings[] = {0x86, 0x18, 80, 7, 3, 0x83, 4, 0, 8, 1, 1};
    static const uint8_t squeezed[] = {0x8a, 0x18, 67, 7, 3, 2, 5, 8, 0x1a, 0xff, 0xff, 0xff, 0xff, 0, 0x18, 200, 0x42, 'p', 'q'};
    static const uint8_t ack[] = {0x85, 0x18, 81, 7, 3, 1, 0x18, 99};
    struct sync_hello h = {.incarnation = 7, .epoch = 3, .feature_level = 1, .node = bytes_str("2"), .time_ms = 1000};
    h.channels[0].next_seq = 5, h.channels[0].acked_seq = 4, h.channels[1].next_seq = 1, h.channels[2].next_seq = 9;
    struct sync_item two[] = {{.seq = 5, .index = 100, .time_ms = 1000, .record = bytes_str("r")},
                              {.seq = 8, .index = 101, .time_ms = -1, .record = bytes_str("s")}};
    struct sync_gap one = {.from_seq = 6, .to_seq = 7, .reason = SYNC_GAP_EVICTED};
    struct sync_events e = {.incarnation = 7,
                            .epoch = 3,
                            .channel = CHANNEL_DATA,
                            .from_seq = 5,
                            .to_seq = 8,
                            .items = two,
                            .item_count = 2,
                            .gaps = &one,
                            .gap_count = 1};
    struct sync_welcome w = {.incarnation = 7, .epoch = 3, .position = {4, 0, 8}, .time_ms = 1};
    struct sync_ack a = {
        .incarnation = 7, .epoch = 3, .channel = CHANNEL_EVENTS, .acked_seq = 99, .credit_bytes = CREDIT_BYTES_FULL};
    struct builder b;
    builder_init(&b, 1000);
#define EXPECT(put, expected)                                                                                                      \
    builder_reset(&b);                                                                                                             \
    put;                                                                                                                           \
    assert_int_equal(b.size, sizeof expected);                                                                                     \
    assert_memory_equal(b.data, expected, sizeof expected)
    EXPECT(sync_put_hello(&b, &h), hello);
    EXPECT(sync_put_events(&b, &e), events);
    EXPECT(sync_put_welcome(&b, &w), welcome);
    struct sync_squeezed q = {.incarnation = 7,
                              .epoch = 3,
                              .channel = CHANNEL_DATA,
                              .from_seq = 5,
                              .to_seq = 8,
                              .session = UINT32_MAX,
                              .sum = 200,
                              .packed = bytes_str("pq")};
    EXPECT(sync_put_squeezed(&b, &q), squeezed);
    w.codings = CODING_SQUEEZE;
    EXPECT(sync_put_welcome(&b, &w), welcome_codings);
    EXPECT(sync_put_resync(&b, &w), resync);
    EXPECT(sync_put_ack(&b, &a), ack);
    static const uint8_t part[] = {0x86, 0x18, 68, 3, 9, 0x19, 0x08, 0x00, 0x19, 0x20, 0x00, 0x42, 'x', 'y'};
    struct sync_part p = {.epoch = 3, .number = 9, .offset = 2048, .total_bytes = 8192, .bytes = bytes_str("xy")}, p2;
    EXPECT(sync_put_part(&b, &p), part);
    assert_int_equal(sync_get_part(bytes_of(part, sizeof part), &p2), E_OK);
    assert_true(p2.epoch == 3 && p2.number == 9 && p2.offset == 2048 && p2.total_bytes == 8192 && bytes_equal_str(p2.bytes, "xy"));
    for (size_t cut = 0; cut < sizeof part; cut++) {
        assert_int_not_equal(sync_get_part(bytes_of(part, cut), &p2), E_OK);
    }
    static const struct sync_part bad[] = {{.total_bytes = 1, .bytes = {(const uint8_t *)"xy", 2}},
                                           {.offset = 9, .total_bytes = 10, .bytes = {(const uint8_t *)"xy", 2}},
                                           {.total_bytes = 10},
                                           {.total_bytes = UINT32_MAX, .bytes = {(const uint8_t *)"xy", 2}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        builder_reset(&b);
        sync_put_part(&b, &bad[i]);
        assert_int_not_equal(sync_get_part(builder_bytes(&b), &p2), E_OK);
    }
    struct sync_ack less = a, less2;
    less.credit_bytes = CREDIT_BYTES_LEAST;
    builder_reset(&b);
    sync_put_ack(&b, &less);
    assert_int_equal(sync_get_ack(builder_bytes(&b), &less2), E_OK);
    assert_true(less2.acked_seq == 99 && less2.credit_bytes == CREDIT_BYTES_LEAST);
    struct sync_hello rebuilt = h, r2;
    rebuilt.former = 6;
    rebuilt.channels[0].former_next = 5, rebuilt.channels[1].former_next = 1, rebuilt.channels[2].former_next = 4;
    builder_reset(&b);
    sync_put_hello(&b, &rebuilt);
    assert_int_equal(sync_get_hello(builder_bytes(&b), &r2), E_OK);
    assert_true(r2.former == 6 && r2.channels[2].former_next == 4);
    for (int is_rebuilt = 0; is_rebuilt < 2; is_rebuilt++) { /* with the rate that the core shall keep to */
        struct sync_hello paced = is_rebuilt ? rebuilt : h;
        paced.down_bytes_per_s = 2000;
        builder_reset(&b);
        sync_put_hello(&b, &paced);
        assert_int_equal(sync_get_hello(builder_bytes(&b), &r2), E_OK);
        assert_true(r2.down_bytes_per_s == 2000 && r2.former == paced.former && r2.time_ms == 1000);
        for (size_t cut = 0; cut < b.size; cut++) {
            assert_int_not_equal(sync_get_hello(bytes_of(b.data, cut), &r2), E_OK);
        }
    }
    rebuilt.channels[2].former_next = 10; /* beyond what the site gave */
    builder_reset(&b);
    sync_put_hello(&b, &rebuilt);
    assert_int_equal(sync_get_hello(builder_bytes(&b), &r2), E_BAD_MESSAGE);
    builder_free(&b);

    struct sync_hello h2;
    struct sync_welcome w2;
    struct sync_ack a2;
    struct sync_events e2;
    assert_int_equal(sync_get_hello(bytes_of(hello, sizeof hello), &h2), E_OK);
    assert_true(h2.incarnation == 7 && h2.epoch == 3 && bytes_equal_str(h2.node, "2") && h2.channels[0].acked_seq == 4 &&
                h2.channels[2].next_seq == 9);
    assert_int_equal(sync_get_events(bytes_of(events, sizeof events), &e2, items_back, gaps_back), E_OK);
    assert_true(e2.item_count == 2 && e2.items[1].seq == 8 && e2.items[1].time_ms == -1 && e2.gap_count == 1 &&
                e2.gaps[0].to_seq == 7);
    assert_int_equal(sync_get_welcome(bytes_of(welcome, sizeof welcome), &w2), E_OK);
    assert_true(w2.position[2] == 8);
    assert_int_equal(sync_get_resync(bytes_of(welcome, sizeof welcome), &w2), E_BAD_MESSAGE);
    assert_int_equal(sync_get_resync(bytes_of(resync, sizeof resync), &w2), E_OK);
    assert_int_equal(sync_get_ack(bytes_of(ack, sizeof ack), &a2), E_OK);
    assert_true(a2.acked_seq == 99 && a2.channel == CHANNEL_EVENTS && a2.credit_bytes == CREDIT_BYTES_FULL);

    static const struct bytes all[] = {
        {hello, sizeof hello}, {events, sizeof events}, {welcome, sizeof welcome}, {resync, sizeof resync}, {ack, sizeof ack}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        for (size_t size = 0; size <= all[i].size + 1; size++) { /* every prefix, and a byte too many */
            uint8_t cut[64] = {0};
            memcpy(cut, all[i].data, size < all[i].size ? size : all[i].size);
            struct bytes in = bytes_of(cut, size);
            if (size != all[i].size) {
                assert_int_not_equal(sync_get_hello(in, &h2), E_OK);
                assert_int_not_equal(sync_get_events(in, &e2, items_back, gaps_back), E_OK);
                assert_int_not_equal(sync_get_welcome(in, &w2), E_OK);
                assert_int_not_equal(sync_get_resync(in, &w2), E_OK);
                assert_int_not_equal(sync_get_ack(in, &a2), E_OK);
            }
        }
    }
}

/* Items and gaps must cover the range, each number once: so that a position can never jump over an event. */
static void a_range_is_covered_completely(void **state) {
    (void)state;
    struct sync_events back;
    for (unsigned shape = 0; shape < 3 * 3 * 3 * 3 * 3; shape++) { /* each of five numbers: an item, a gap of its own, nothing */
        struct sync_events e = {.incarnation = 1, .epoch = 1, .from_seq = 10, .to_seq = 14, .items = items, .gaps = gaps};
        bool whole = true;
        for (unsigned i = 0, rest = shape; i < 5; i++, rest /= 3) {
            if (rest % 3 == 0) {
                items[e.item_count++] = (struct sync_item){.seq = 10 + i, .record = bytes_str("r")};
            } else if (rest % 3 == 1) {
                gaps[e.gap_count++] = (struct sync_gap){.from_seq = 10 + i, .to_seq = 10 + i, .reason = SYNC_GAP_EVICTED};
            } else {
                whole = false;
            }
        }
        assert_int_equal(round_trip(&e, &back), whole ? E_OK : E_BAD_MESSAGE);
        assert_int_equal(back.item_count, whole ? e.item_count : 0);
    }
    items[0] = items[1] = (struct sync_item){.seq = 10, .record = bytes_str("r")};
    struct sync_events twice = {.incarnation = 1, .from_seq = 10, .to_seq = 10, .items = items, .item_count = 2, .gaps = gaps};
    assert_int_equal(round_trip(&twice, &back), E_BAD_MESSAGE);
    gaps[0] = (struct sync_gap){.from_seq = 10, .to_seq = 12, .reason = SYNC_GAP_EVICTED};
    twice.item_count = 1, twice.gap_count = 1, twice.to_seq = 12; /* an item within a gap */
    assert_int_equal(round_trip(&twice, &back), E_BAD_MESSAGE);
    gaps[0] = (struct sync_gap){.from_seq = 1, .to_seq = INT64_MAX - 1, .reason = SYNC_GAP_EVICTED};
    struct sync_events wide = {.incarnation = 1, .from_seq = 1, .to_seq = INT64_MAX - 1, .gaps = gaps, .gap_count = 1};
    assert_int_equal(round_trip(&wide, &back), E_OK);
    gaps[0].reason = (enum sync_gap_reason)0;
    assert_int_equal(round_trip(&wide, &back), E_BAD_MESSAGE);
    gaps[0].reason = (enum sync_gap_reason)5;
    assert_int_equal(round_trip(&wide, &back), E_BAD_MESSAGE);
}

/* A site speaks to a core that is a version behind, and the other way round: what it lost must come through all the same. */
static void sizes_of_gaps_are_said_to_who_knows_them(void **state) {
    (void)state;
    struct sync_events back;
    struct sync_events e = {.incarnation = 1, .from_seq = 1, .to_seq = 7, .gaps = gaps, .gap_count = 2};
    gaps[0] = (struct sync_gap){.from_seq = 1, .to_seq = 4, .reason = SYNC_GAP_EXPIRED, .bytes = 900};
    gaps[1] = (struct sync_gap){.from_seq = 5, .to_seq = 7, .reason = SYNC_GAP_EVICTED, .bytes = INT64_MAX};
    assert_int_equal(round_trip(&e, &back), E_OK);
    assert_false(back.sized_gaps);
    assert_int_equal(back.gaps[0].reason, SYNC_GAP_EVICTED);
    assert_int_equal(back.gaps[0].bytes, 0);
    e.sized_gaps = true;
    assert_int_equal(round_trip(&e, &back), E_OK);
    assert_true(back.sized_gaps);
    assert_int_equal(back.gaps[0].reason, SYNC_GAP_EXPIRED);
    assert_int_equal(back.gaps[0].bytes, 900);
    assert_int_equal(back.gaps[1].bytes, INT64_MAX);

    struct builder b; /* one gap with its bytes and one without: no core could tell again what it was told */
    builder_init(&b, 1000);
    codec_put_array(&b, 8);
    codec_put_uint(&b, MESSAGE_UP_EVENTS);
    for (uint64_t number = 1; number <= 5; number++) { /* incarnation, epoch, channel, from, to */
        codec_put_uint(&b, number < 3 ? 1 : number == 3 ? 0 : number == 4 ? 1 : 7);
    }
    codec_put_array(&b, 0);
    codec_put_array(&b, 2);
    for (uint64_t fields = 4; fields >= 3; fields--) {
        const uint64_t gap[] = {fields == 4 ? 1 : 5, fields == 4 ? 4 : 7, SYNC_GAP_EVICTED, 900};
        codec_put_array(&b, fields);
        for (uint64_t i = 0; i < fields; i++) {
            codec_put_uint(&b, gap[i]);
        }
    }
    assert_int_equal(sync_get_events(builder_bytes(&b), &back, items, gaps), E_BAD_MESSAGE);
    builder_free(&b);
}

static void numbers_have_bounds(void **state) {
    (void)state;
    struct sync_events back;
    for (uint32_t i = 0; i <= SYNC_ITEMS_MAX; i++) {
        items[i] = (struct sync_item){.seq = i + 1, .record = bytes_str("r")};
    }
    struct sync_events e = {
        .incarnation = 1, .from_seq = 1, .to_seq = SYNC_ITEMS_MAX, .items = items, .item_count = SYNC_ITEMS_MAX, .gaps = gaps};
    assert_int_equal(round_trip(&e, &back), E_OK);
    e.to_seq = e.item_count = SYNC_ITEMS_MAX + 1;
    assert_int_equal(round_trip(&e, &back), E_BAD_MESSAGE);
    e.to_seq = e.item_count = 1;
    e.incarnation = 0;
    assert_int_equal(round_trip(&e, &back), E_BAD_MESSAGE);
    e.incarnation = 1;
    e.from_seq = e.to_seq = items[0].seq = 0;
    assert_int_equal(round_trip(&e, &back), E_BAD_MESSAGE);
    e.from_seq = 5, e.to_seq = 4, e.item_count = 0;
    assert_int_equal(round_trip(&e, &back), E_BAD_MESSAGE);

    struct sync_hello h = {.incarnation = 1, .node = bytes_str("a/b")}, h2; /* no name of a gateway */
    struct builder b;
    builder_init(&b, 1000);
    h.channels[0].next_seq = h.channels[1].next_seq = h.channels[2].next_seq = 1;
    sync_put_hello(&b, &h);
    assert_int_equal(sync_get_hello(builder_bytes(&b), &h2), E_BAD_MESSAGE);
    builder_reset(&b);
    h.node = bytes_str("a");
    h.channels[1].acked_seq = 1; /* acknowledged what was never given */
    sync_put_hello(&b, &h);
    assert_int_equal(sync_get_hello(builder_bytes(&b), &h2), E_BAD_MESSAGE);
    builder_free(&b);
}

/* Several cores: what follows a hello goes to the one that answered.  Its word becomes part of a topic, so nothing else may pass. */
static void a_route_leads_to_one_core(void **state) {
    (void)state;
    static const uint8_t bytes[] = {0x84, 0x18, 83, 7, 3, 0x63, '0', 'a', 'f'};
    struct sync_route r = {.incarnation = 7, .epoch = 3, .route = "0af"}, back;
    char topic[TOPIC_BYTES_MAX];
    struct grey_name site;
    enum event_channel c;
    struct builder b;
    builder_init(&b, 1000);
    sync_put_route(&b, &r);
    assert_int_equal(b.size, sizeof bytes);
    assert_memory_equal(b.data, bytes, sizeof bytes);
    assert_int_equal(sync_get_route(bytes_of(bytes, sizeof bytes), &back), E_OK);
    assert_true(back.incarnation == 7 && back.epoch == 3 && strcmp(back.route, "0af") == 0);
    for (size_t size = 0; size < sizeof bytes; size++) {
        assert_int_not_equal(sync_get_route(bytes_of(bytes, size), &back), E_OK);
    }
    static const char *const bad[] = {"", "+", "#", "a/b", "A", "a b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        builder_reset(&b);
        (void)snprintf(r.route, sizeof r.route, "%s", bad[i]);
        sync_put_route(&b, &r);
        assert_int_equal(sync_get_route(builder_bytes(&b), &back), E_BAD_MESSAGE);
    }
    builder_free(&b);
    sync_topic_routed(topic, "plant", CHANNEL_DATA, "");
    assert_string_equal(topic, "grey/v2/plant/up/data");
    sync_topic_routed(topic, "plant", CHANNEL_EVENTS, "0af");
    assert_string_equal(topic, "grey/v2/plant/up/events/0af");
    assert_true(sync_topic_parse(topic, true, &site, &c) && c == CHANNEL_EVENTS && strcmp(site.text, "plant") == 0);
    assert_false(sync_topic_parse("grey/v2/plant/down/events/0af", false, &site, &c));
}

static void topics_name_site_and_channel(void **state) {
    (void)state;
    char topic[TOPIC_BYTES_MAX], name[LIMIT_NAME_BYTES + 1];
    struct grey_name site;
    enum event_channel c;
    memset(name, 'n', LIMIT_NAME_BYTES);
    name[LIMIT_NAME_BYTES] = 0;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        sync_topic(topic, name, i % 2 == 0, (enum event_channel)i);
        assert_true(sync_topic_parse(topic, i % 2 == 0, &site, &c));
        assert_true(strcmp(site.text, name) == 0 && c == (enum event_channel)i);
        assert_false(sync_topic_parse(topic, i % 2 != 0, &site, &c));
    }
    static const char *const bad[] = {"",
                                      "grey/v2/",
                                      "grey/v2/a",
                                      "grey/v2//up/data",
                                      "grey/v2/a/up/",
                                      "grey/v2/a/up/data/",
                                      "grey/v2/a/up/data/x/y",
                                      "grey/v2/a/up/data/X",
                                      "grey/v2/a/up/data/#",
                                      "grey/v2/a/up/data/12345678901234567",
                                      "grey/v2/a/up/dataX",
                                      "grey/v2/a/up/Data",
                                      "grey/v2/a b/up/data",
                                      "grey/v3/a/up/data",
                                      "grey/v2/+/up/data",
                                      "grey/v2/nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn/up/data"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(sync_topic_parse(bad[i], true, &site, &c));
    }
}

/* Sites and cores of different age: a welcome without codings is the old one, and what is not there cannot be misread. */
static void codings_are_optional(void **state) {
    (void)state;
    static const uint8_t plain[] = {0x85, 0x18, 80, 7, 3, 0x83, 4, 0, 8, 1}, none[] = {0x86, 0x18, 80, 7, 3, 0x83, 4, 0, 8, 1, 0};
    static const uint8_t some[] = {0x86, 0x18, 80, 7, 3, 0x83, 4, 0, 8, 1, 3},
                         resync[] = {0x86, 0x18, 82, 7, 3, 0x83, 4, 0, 8, 1, 1};
    struct sync_welcome w;
    assert_int_equal(sync_get_welcome(bytes_of(plain, sizeof plain), &w), E_OK);
    assert_int_equal(w.codings, 0);
    assert_int_equal(sync_get_welcome(bytes_of(some, sizeof some), &w), E_OK);
    assert_int_equal(w.codings, 3); /* one of a later core too */
    assert_int_equal(sync_get_welcome(bytes_of(none, sizeof none), &w), E_BAD_MESSAGE);
    assert_int_equal(sync_get_resync(bytes_of(resync, sizeof resync), &w), E_BAD_MESSAGE);
}

static void squeezed_frames_name_what_they_cover(void **state) {
    (void)state;
    struct sync_squeezed q = {.incarnation = 7, .epoch = 3, .channel = CHANNEL_DATA, .from_seq = 5, .to_seq = 8, .session = 1},
                         back;
    for (unsigned i = 0; i < 5; i++) {
        struct sync_squeezed bad = q;
        struct builder b;
        bad.incarnation = i == 1 ? 0 : bad.incarnation;
        bad.from_seq = i == 2 ? 0 : bad.from_seq;
        bad.to_seq = i == 3 ? 4 : bad.to_seq;
        bad.channel = i == 4 ? CHANNEL_COUNT : bad.channel;
        builder_init(&b, 1000);
        sync_put_squeezed(&b, &bad);
        assert_int_equal(sync_get_squeezed(builder_bytes(&b), &back), i == 0 ? E_OK : E_BAD_MESSAGE);
        assert_true(i != 0 || (back.session == 1 && back.to_seq == 8 && back.packed.size == 0));
        builder_free(&b);
    }
}

/* A word of attestation that came to the wrong gateway, or was read as another word, would shut out a good gateway or let in a bad one. */
static void words_of_attestation(void **state) {
    (void)state;
    static const uint8_t up[] = {0x84, 0x18, 72, 0x61, '2', 4, 0x42, 'x', 'y'}, down[] = {0x84, 0x18, 87, 0x61, '2', 9, 0x40};
    struct sync_attest said = {.node = bytes_str("2"), .word = EXCHANGE_EVIDENCE, .body = bytes_str("xy")}, a;
    struct builder b;
    builder_init(&b, 1000000);
    EXPECT(sync_put_attest(&b, &said), up);
    said = (struct sync_attest){.node = bytes_str("2"), .word = EXCHANGE_REFUSAL};
    EXPECT(sync_put_attest(&b, &said), down);
    assert_int_equal(sync_get_attest(bytes_of(up, sizeof up), &a), E_OK);
    assert_true(bytes_equal_str(a.node, "2") && a.word == EXCHANGE_EVIDENCE && bytes_equal_str(a.body, "xy"));
    assert_int_equal(sync_get_attest(bytes_of(down, sizeof down), &a), E_OK);
    assert_true(a.word == EXCHANGE_REFUSAL && a.body.size == 0);
    for (size_t cut = 0; cut < sizeof up; cut++) {
        assert_int_not_equal(sync_get_attest(bytes_of(up, cut), &a), E_OK);
    }
    for (unsigned word = 0; word < 24; word++) { /* what one end says the other does not */
        uint8_t changed[sizeof up];
        memcpy(changed, up, sizeof up);
        changed[5] = (uint8_t)word;
        bool goes_up = word >= EXCHANGE_ASK && word <= EXCHANGE_EVIDENCE;
        assert_int_equal(sync_get_attest(bytes_of(changed, sizeof changed), &a) == E_OK, goes_up);
        changed[2] = 87;
        bool goes_down = word >= EXCHANGE_INTRODUCE && word < EXCHANGE_WORDS;
        assert_int_equal(sync_get_attest(bytes_of(changed, sizeof changed), &a) == E_OK, goes_down);
    }
    static uint8_t much[SYNC_ATTEST_BODY_BYTES_MAX + 1];
    for (size_t extra = 0; extra < 2; extra++) {
        said = (struct sync_attest){
            .node = bytes_str("2"), .word = EXCHANGE_EVIDENCE, .body = bytes_of(much, SYNC_ATTEST_BODY_BYTES_MAX + extra)};
        builder_reset(&b);
        sync_put_attest(&b, &said);
        assert_int_equal(sync_get_attest(builder_bytes(&b), &a) == E_OK, extra == 0);
    }
    static const char *const names[] = {"", "a/b", "+"}; /* it may become part of a path */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        said = (struct sync_attest){.node = bytes_str(names[i]), .word = EXCHANGE_ASK};
        builder_reset(&b);
        sync_put_attest(&b, &said);
        assert_int_equal(sync_get_attest(builder_bytes(&b), &a), E_BAD_MESSAGE);
    }
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_bytes),
        cmocka_unit_test(codings_are_optional),
        cmocka_unit_test(squeezed_frames_name_what_they_cover),
        cmocka_unit_test(a_range_is_covered_completely),
        cmocka_unit_test(sizes_of_gaps_are_said_to_who_knows_them),
        cmocka_unit_test(numbers_have_bounds),
        cmocka_unit_test(a_route_leads_to_one_core),
        cmocka_unit_test(words_of_attestation),
        cmocka_unit_test(topics_name_site_and_channel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
