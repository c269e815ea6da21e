/* Messages between gateways and with the core: what one side writes the other must read back, and nothing else may pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/message.h"
#include "federation/raft/entries.h"
#include "federation/sync.h"

static void raft_append_comes_back(void **state) {
    (void)state;
    struct entry entries[3] = {{.index = 8, .term = 3, .epoch = 3, .time_ms = 1000, .kind = 4, .schema = 1},
                               {.index = 9, .term = 3, .epoch = 3, .time_ms = 1001, .kind = 5, .schema = 1},
                               {.index = 10, .term = 4, .epoch = 4, .time_ms = 1001, .kind = 0, .schema = 1}};
    entries[0].payload = blob_copy(bytes_str("one"));
    entries[1].payload = blob_copy(bytes_str("two"));
    struct message m = {.kind = MESSAGE_RAFT,
                        .u.raft = {.kind = RAFT_APPEND,
                                   .from = 11,
                                   .to = UINT64_MAX,
                                   .term = 4,
                                   .index = 7,
                                   .log_term = 3,
                                   .commit_index = 6,
                                   .round = 9,
                                   .entries = entries,
                                   .entry_count = 3}};
    memset(m.u.raft.hash, 0xaa, DIGEST_BYTES);
    memset(m.u.raft.last_hash, 0xbb, DIGEST_BYTES);
    struct builder b;
    builder_init(&b, 10000);
    message_encode(&m, &b);
    assert_int_equal(b.err, E_OK);
    struct message back;
    assert_int_equal(message_decode(builder_bytes(&b), &back), E_OK);
    const struct raft_message *r = &back.u.raft;
    assert_true(r->kind == RAFT_APPEND && r->from == 11 && r->to == UINT64_MAX && r->term == 4 && r->index == 7 &&
                r->entry_count == 3);
    assert_memory_equal(r->last_hash, m.u.raft.last_hash, DIGEST_BYTES);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(r->entries[i].index == 8 + i && r->entries[i].term == entries[i].term &&
                    r->entries[i].time_ms == entries[i].time_ms);
        assert_true(bytes_equal(blob_bytes(r->entries[i].payload), blob_bytes(entries[i].payload)));
    }
    message_release(&back);
    for (size_t size = 0; size < b.size; size++) { /* no prefix passes, and none leaks (ASan) */
        assert_int_not_equal(message_decode(bytes_of(b.data, size), &back), E_OK);
    }
    builder_free(&b);
    blob_unref(entries[0].payload);
    blob_unref(entries[1].payload);
}

/* What a witness gets: no payload but memberships, digests in their place; else its board fills up, or its chain breaks. */
static void headers_come_back(void **state) {
    (void)state;
    struct entry entries[3] = {
        {.index = 8, .term = 3, .epoch = 3, .time_ms = 5, .kind = ENTRY_KV, .schema = 1, .payload = blob_copy(bytes_str("secret"))},
        {.index = 9, .term = 3, .epoch = 3, .time_ms = 5, .kind = ENTRY_NOOP, .schema = 1},
        {.index = 10,
         .term = 3,
         .epoch = 3,
         .time_ms = 6,
         .kind = ENTRY_CONFIG,
         .schema = 1,
         .payload = blob_copy(bytes_str("who"))}};
    uint8_t none[DIGEST_BYTES] = {0};
    for (int i = 0; i < 3; i++) {
        entry_seal(&entries[i], i == 0 ? none : entries[i - 1].hash);
    }
    struct message m = {.kind = MESSAGE_RAFT,
                        .u.raft = {.kind = RAFT_APPEND,
                                   .from = 1,
                                   .to = 3,
                                   .term = 4,
                                   .index = 7,
                                   .log_term = 3,
                                   .headers = true,
                                   .entries = entries,
                                   .entry_count = 3}};
    struct builder b;
    struct message back;
    builder_init(&b, 10000);
    message_encode(&m, &b);
    for (size_t at = 0; at + 6 <= b.size; at++) {
        assert_memory_not_equal(b.data + at, "secret", 6);
    }
    assert_int_equal(message_decode(builder_bytes(&b), &back), E_OK);
    assert_true(back.u.raft.headers && back.u.raft.entry_count == 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct entry e = back.u.raft.entries[i];
        assert_int_equal(e.stripped_bytes, i == 0 ? 6 : 0);
        entry_seal(&e, i == 0 ? none : entries[i - 1].hash);
        assert_memory_equal(e.hash, entries[i].hash, DIGEST_BYTES);
    }
    message_release(&back);
    for (size_t size = 0; size < b.size; size++) {
        assert_int_not_equal(message_decode(bytes_of(b.data, size), &back), E_OK);
    }
    builder_reset(&b);
    struct raft_members members = {.count = 1, .at = {{.id = 4, .voter = true, .node = {"n"}}}};
    m.u.raft = (struct raft_message){.kind = RAFT_SNAPSHOT,
                                     .from = 1,
                                     .to = 3,
                                     .term = 4,
                                     .point = {.index = 6, .term = 2, .time_ms = 1, .hash = {7}},
                                     .members = &members,
                                     .members_index = 5};
    message_encode(&m, &b);
    assert_int_equal(message_decode(builder_bytes(&b), &back), E_OK);
    assert_int_equal(back.u.raft.members_index, 5);
    assert_int_equal(back.u.raft.members->at[0].id, 4);
    message_release(&back);
    for (size_t size = 0; size < b.size; size++) {
        assert_int_not_equal(message_decode(bytes_of(b.data, size), &back), E_OK);
    }
    builder_free(&b);
    blob_unref(entries[0].payload);
    blob_unref(entries[2].payload);
}

static void others_come_back(void **state) {
    (void)state;
    struct entry lost[] = {{.index = 1, .term = 2, .epoch = 2, .time_ms = -3, .kind = ENTRY_NOOP, .schema = 1},
                           {.index = 2, .term = 2, .epoch = 2, .time_ms = 4, .kind = ENTRY_KV, .schema = 1}};
    struct message all[] = {
        {.kind = MESSAGE_HELLO,
         .u.hello = {.feature_level = 1,
                     .cluster_id = 2,
                     .id = 3,
                     .start_count = 4,
                     .site = bytes_str("s"),
                     .node = bytes_str("n"),
                     .peer_address = bytes_str("a:1"),
                     .http_address = bytes_str("b:2")}},
        {.kind = MESSAGE_FORWARD, .u.forward = {.request = 5, .kind = 4, .schema = 1, .urgent = true, .payload = bytes_str("p")}},
        {.kind = MESSAGE_FORWARD_REPLY,
         .u.forward_reply = {.request = 5, .err = E_CONDITION, .detail = bytes_str("d"), .answer = bytes_str("x"), .index = 6}},
        {.kind = MESSAGE_JOIN,
         .u.join = {.id = 7,
                    .witness = true,
                    .node = bytes_str("n"),
                    .peer_address = bytes_str("a:1"),
                    .http_address = bytes_str("b:2")}},
        {.kind = MESSAGE_JOIN_REPLY,
         .u.join_reply = {.err = E_NOT_LEADER, .epoch = 12, .detail = bytes_str("d"), .leader_address = bytes_str("l:1")}},
        {.kind = MESSAGE_SEAL, .u.seal = {.index = 9, .epoch = 3, .signer = UINT64_MAX, .hash = {1, 2}, .signature = {3, 4}}},
        {.kind = MESSAGE_STATE_HASH, .u.state_hash = {.index = 4000, .hash = {1, 2, 3}}},
        {.kind = MESSAGE_CLOCK, .u.clock = {.is_answer = true, .time_ms = -5}},
        {.kind = MESSAGE_SNAPSHOT_FETCH, .u.snapshot_fetch = {.index = 8, .offset = 9, .bytes_max = 10}},
        {.kind = MESSAGE_SNAPSHOT_CHUNK, .u.snapshot_chunk = {.index = 8, .offset = 9, .total_bytes = 10, .chunk = bytes_str("c")}},
        {.kind = MESSAGE_PAYLOAD_FETCH, .u.payload_fetch = {.from = 1, .to = 2, .bytes_max = 3}},
        {.kind = MESSAGE_PAYLOADS, .u.payloads = {.from = 1, .more = true}},
        {.kind = MESSAGE_OUTPUT_FETCH, .u.output_fetch = {.request = 1, .token = 2, .offset = 3, .stream = 1, .bytes_max = 4}},
        {.kind = MESSAGE_OUTPUT,
         .u.output = {.request = 1, .offset = 2, .end_offset = 3, .err = E_CONNECT, .data = bytes_str("o")}},
        {.kind = MESSAGE_ATTEST, .u.attest = {.node = bytes_str("2"), .word = EXCHANGE_EVIDENCE, .body = bytes_str("e")}},
        {.kind = MESSAGE_REACH_ASK, .u.reach = {.number = 7}},
        {.kind = MESSAGE_REACH, .u.reach = {.number = 8, .reaches = true}},
        {.kind = MESSAGE_LINK_ASK, .u.link = {.number = 9}},
        {.kind = MESSAGE_LINK, .u.link = {.number = 9, .json = bytes_str("{\"link\":{\"up\":true}}")}},
        {.kind = MESSAGE_MEND_FETCH, .u.mend_fetch = {.from = 1, .to = 2, .anchor = 3, .anchor_term = 4, .bytes_max = 5}},
        {.kind = MESSAGE_MEND_ROWS,
         .u.mend_rows = {.from = 1, .to = 2, .anchor = 3, .certain = 4, .same = true, .entries = lost, .entry_count = 2}},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct builder b, again;
        struct message back;
        builder_init(&b, 10000);
        builder_init(&again, 10000);
        message_encode(&all[i], &b);
        assert_int_equal(message_decode(builder_bytes(&b), &back), E_OK);
        assert_int_equal(back.kind, all[i].kind);
        message_encode(&back, &again);
        assert_true(bytes_equal(builder_bytes(&b), builder_bytes(&again)));
        message_release(&back);
        builder_add_byte(&b, 0);
        assert_int_not_equal(message_decode(builder_bytes(&b), &back), E_OK); /* bytes that follow */
        builder_free(&b);
        builder_free(&again);
    }
}

static void events_must_cover_their_range(void **state) {
    (void)state;
    struct sync_item items[] = {{.seq = 5, .index = 1, .record = bytes_str("r")}, {.seq = 8, .index = 2, .record = bytes_str("r")}};
    struct sync_gap gaps[] = {{.from_seq = 6, .to_seq = 7, .reason = SYNC_GAP_EVICTED}};
    struct sync_events e = {.incarnation = 1,
                            .epoch = 2,
                            .channel = CHANNEL_DATA,
                            .from_seq = 5,
                            .to_seq = 8,
                            .items = items,
                            .item_count = 2,
                            .gaps = gaps,
                            .gap_count = 1};
    static struct sync_item items_back[SYNC_ITEMS_MAX];
    static struct sync_gap gaps_back[SYNC_GAPS_MAX];
    struct sync_events back;
    struct builder b;
    builder_init(&b, 10000);
    sync_put_events(&b, &e);
    assert_int_equal(sync_kind(builder_bytes(&b)), MESSAGE_UP_EVENTS);
    assert_int_equal(sync_get_events(builder_bytes(&b), &back, items_back, gaps_back), E_OK);
    assert_true(back.item_count == 2 && back.gap_count == 1 && back.items[1].seq == 8 && back.gaps[0].to_seq == 7);
    const grey_seq wrong[][2] = {{4, 8}, {5, 9}, {6, 8}, {5, 7}};
    for (size_t i = 0; i < 4;
         i++) { /* a number that is missing or stands outside would be a hole at the core that nobody reports */
        e.from_seq = wrong[i][0], e.to_seq = wrong[i][1];
        items[0].seq = e.from_seq > 5 ? e.from_seq : 5;
        builder_reset(&b);
        sync_put_events(&b, &e);
        assert_int_equal(sync_get_events(builder_bytes(&b), &back, items_back, gaps_back), E_BAD_MESSAGE);
        items[0].seq = 5;
    }
    builder_free(&b);
}

static void topics(void **state) {
    (void)state;
    char topic[TOPIC_BYTES_MAX];
    struct grey_name site;
    enum event_channel c;
    sync_topic(topic, "edge-1", true, CHANNEL_EVENTS);
    assert_string_equal(topic, "grey/v2/edge-1/up/events");
    assert_true(sync_topic_parse(topic, true, &site, &c) && strcmp(site.text, "edge-1") == 0 && c == CHANNEL_EVENTS);
    const char *const bad[] = {"grey/v2/edge-1/down/events",
                               "grey/v2//up/events",
                               "grey/v2/a/b/up/events",
                               "grey/v2/+/up/events",
                               "grey/v1/a/up/events",
                               "grey/v2/a/up/other",
                               "grey/v2/a/up",
                               "",
                               "grey/v2/a"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(sync_topic_parse(bad[i], true, &site, &c));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(raft_append_comes_back), cmocka_unit_test(headers_come_back),
                                       cmocka_unit_test(others_come_back), cmocka_unit_test(events_must_cover_their_range),
                                       cmocka_unit_test(topics)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
