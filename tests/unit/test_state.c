#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/rows_on_disk.h"

#define DAY_MS (24ll * 3600 * 1000)

static uint64_t seed;

/* One draw in each full expression: in which order arguments and initializers are evaluated is the compiler's choice, on ARM another, and the
 * histories must be the same everywhere (tests/cross/same.sh). */
static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static struct site_facts facts_of(const char *site, uint64_t cluster_id, uint64_t incarnation, uint32_t level) {
    struct site_facts f = {.cluster_id = cluster_id, .incarnation = incarnation, .feature_level = level};
    (void)snprintf(f.site.text, sizeof f.site.text, "%s", site);
    return f;
}

/* If a site that was rebuilt from a backup went on under its old incarnation, the core would take its new events for repeats. */
static void a_rebuilt_site_is_another_incarnation(void **context) {
    (void)context;
    struct gateway g = gateway_new(1 << 20);
    struct builder p;
    struct outcome o;
    struct site_facts site = facts_of("s-1", 7, 9, 1), out;
    builder_init(&p, 1024);
    payload_site(&p, &site);
    assert_int_equal(gateway_entry(&g, ENTRY_SITE, 0, &p, &o, NULL), E_OK);
    assert_int_equal(state_begin_incarnation(g.state, 70, 90), E_OK);
    gateway_flush(&g);
    gateway_stop(&g);
    gateway_start(&g);
    assert_true(state_site(g.state, &out));
    assert_true(out.cluster_id == 70 && out.incarnation == 90 && out.former == 9 && out.feature_level == 1);
    assert_true(out.former_next[0] == 1 && out.former_next[1] == 1 && out.former_next[2] == 1);
    site = facts_of("s-1", 70, 90, 2); /* raising the level keeps the rest */
    builder_reset(&p);
    payload_site(&p, &site);
    assert_int_equal(gateway_entry(&g, ENTRY_SITE, 0, &p, &o, NULL), E_OK);
    assert_true(state_site(g.state, &out) && out.former == 9 && out.former_next[2] == 1 && out.feature_level == 2);
    builder_free(&p);
    gateway_free(&g);
}

/* A node that joined the wrong site, or was downgraded, must not rename the site. */
static void a_site_is_made_once(void **context) {
    (void)context;
    struct gateway g = gateway_new(1 << 20);
    struct builder p;
    struct outcome o;
    struct site_facts site, out;
    builder_init(&p, 1024);
    assert_false(state_site(g.state, &out));
    struct {
        struct site_facts f;
        enum grey_error wanted;
    } steps[] = {
        {facts_of("s-1", 7, 9, 1), E_OK},         {facts_of("s-1", 7, 9, 1), E_OK},
        {facts_of("s-2", 7, 9, 1), E_WRONG_SITE}, {facts_of("s-1", 8, 9, 1), E_WRONG_SITE},
        {facts_of("s-1", 7, 8, 1), E_WRONG_SITE}, {facts_of("s-1", 7, 9, 2), E_OK},
        {facts_of("s-1", 7, 9, 1), E_WRONG_SITE}, {facts_of("s 1", 7, 9, 2), E_BAD_MESSAGE},
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        site = steps[i].f;
        payload_site(&p, &site);
        assert_int_equal(gateway_entry(&g, ENTRY_SITE, 0, &p, &o, NULL), steps[i].wanted);
    }
    gateway_flush(&g);
    gateway_stop(&g);
    gateway_start(&g);
    assert_true(state_site(g.state, &out));
    assert_string_equal(out.site.text, "s-1");
    assert_int_equal(out.cluster_id, 7);
    assert_int_equal(out.incarnation, 9);
    assert_int_equal(out.feature_level, 2);
    builder_free(&p);
    gateway_free(&g);
}

/* A node that does not understand an entry must stop, not guess: its state would part from the others'. */
static void an_unknown_entry_changes_nothing(void **context) {
    (void)context;
    struct gateway g = gateway_new(1 << 20);
    struct outcome o;
    uint8_t before[DIGEST_BYTES], after[DIGEST_BYTES];
    state_hash(g.state, before);
    struct entry e = {.index = 1, .kind = ENTRY_KIND_COUNT, .schema = ENTRY_SCHEMA};
    assert_int_equal(state_apply(g.state, &e, &o, NULL), E_UNKNOWN_ENTRY);
    assert_int_equal(o.err, E_UNKNOWN_ENTRY);
    e = (struct entry){.index = 1, .kind = ENTRY_NOOP, .schema = ENTRY_SCHEMA + 1};
    assert_int_equal(state_apply(g.state, &e, &o, NULL), E_UNKNOWN_ENTRY);
    state_hash(g.state, after);
    assert_memory_equal(before, after, DIGEST_BYTES);
    assert_int_equal(state_applied(g.state), 0);
    e.schema = ENTRY_SCHEMA;
    assert_int_equal(state_apply(g.state, &e, &o, NULL), E_OK);
    state_hash(g.state, after);
    assert_memory_not_equal(before, after, DIGEST_BYTES);
    gateway_free(&g);
}

/* If an entry were applied without its rows, this node alone would accept a repeat or a stale key. */
static void an_entry_waits_for_its_rows(void **context) {
    (void)context;
    struct gateway g = gateway_new(1 << 20);
    struct outcome o;
    struct builder p;
    uint8_t before[DIGEST_BYTES], after[DIGEST_BYTES];
    builder_init(&p, 1024);
    payload_kv(&p, false, bytes_str("a"), KV_ALWAYS, 0, bytes_str(""), bytes_str("x"));
    struct entry e = {.index = 1, .kind = ENTRY_KV, .schema = ENTRY_SCHEMA, .payload = builder_blob(&p)};
    state_hash(g.state, before);
    assert_int_equal(state_apply(g.state, &e, &o, NULL), E_BUG);
    state_hash(g.state, after);
    assert_memory_equal(before, after, DIGEST_BYTES);
    assert_int_equal(table_dirty_bytes(g.rows), 0);
    assert_int_equal(gateway_apply(&g, &e, &o, NULL), E_OK);
    blob_unref(e.payload);
    builder_free(&p);
    gateway_free(&g);
}

/* Log time never goes back but by a decision of its own; ages of ids and events are counted in it. */
static void log_time_goes_back_only_by_a_clock_entry(void **context) {
    (void)context;
    struct gateway g = gateway_new(1 << 20);
    struct outcome o;
    struct builder p;
    builder_init(&p, 1024);
    (void)gateway_entry(&g, ENTRY_NOOP, 5000, NULL, &o, NULL);
    (void)gateway_entry(&g, ENTRY_NOOP, 4000, NULL, &o, NULL);
    assert_int_equal(state_time_ms(g.state), 5000);
    payload_clock(&p, 3000);
    assert_int_equal(gateway_entry(&g, ENTRY_CLOCK, 3000, &p, &o, NULL), E_OK);
    assert_int_equal(state_time_ms(g.state), 3000);
    gateway_limits(&p, 4096);
    assert_int_equal(gateway_entry(&g, ENTRY_LIMITS, 3000, &p, &o, NULL), E_OK);
    assert_int_equal(state_limits(g.state)->bytes_max, 4096);
    gateway_limits(&p, 0);
    assert_int_equal(gateway_entry(&g, ENTRY_LIMITS, 3000, &p, &o, NULL), E_BAD_MESSAGE);
    gateway_flush(&g);
    gateway_stop(&g);
    gateway_start(&g);
    assert_int_equal(state_limits(g.state)->bytes_max, 4096);
    assert_int_equal(state_time_ms(g.state), 3000);
    assert_int_equal(state_applied(g.state), 5);
    builder_free(&p);
    gateway_free(&g);
}

/* A damaged row is this node's alone: going on with it would part its state from the others'. */
static void a_damaged_row_stops_the_node(void **context) {
    (void)context;
    struct gateway g = gateway_new(1 << 20);
    struct outcome o;
    struct builder p;
    builder_init(&p, 1024);
    payload_kv(&p, false, bytes_str("a"), KV_ALWAYS, 0, bytes_str(""), bytes_str("x"));
    struct entry put = {.index = 1, .kind = ENTRY_KV, .schema = ENTRY_SCHEMA, .payload = builder_blob(&p)};
    assert_int_equal(table_put(g.disk, TABLE_KV, bytes_str("a"), bytes_str("short"), 1), E_OK);
    assert_int_equal(gateway_apply(&g, &put, &o, NULL), E_CORRUPT);
    builder_reset(&p);
    struct event event = {.id = bytes_str("i"), .source = bytes_str("s"), .type = bytes_str("t"), .has_id = true};
    codec_put_array(&p, 1);
    record_encode(&event, &p);
    struct entry events = {.index = 1, .kind = ENTRY_EVENTS, .schema = ENTRY_SCHEMA, .payload = builder_blob(&p)};
    assert_int_equal(state_apply(g.state, &events, &o, NULL), E_BUG); /* its rows were not loaded */
    state_wants(&events, gateway_load, &g);
    uint8_t key[17] = {0};
    assert_int_equal(state_apply(g.state, &events, &o, NULL), E_OK);
    gateway_flush(&g);
    struct bytes found, value;
    raft_index ref;
    assert_true(table_next(g.disk, TABLE_DEDUP, bytes_of(NULL, 0), &found, &value, &ref) && found.size == sizeof key);
    memcpy(key, found.data, sizeof key);
    assert_int_equal(table_put(g.disk, TABLE_DEDUP, bytes_of(key, sizeof key), bytes_str("short"), 0), E_OK);
    gateway_stop(&g);
    gateway_start(&g);
    events.index = 2;
    assert_int_equal(gateway_apply(&g, &events, &o, NULL), E_CORRUPT);
    assert_int_equal(state_applied(g.state), 1);
    blob_unref(put.payload);
    blob_unref(events.payload);
    builder_free(&p);
    gateway_free(&g);
}

/* --- the same log on gateways whose disks have another rhythm ---------------------------------------------------------------------- */

static void random_batch(struct builder *p) {
    static const char filler[400] = "{\"temperature\": 21.5, \"unit\": \"C\"}";
    uint64_t count = 1 + draw(8);
    codec_put_array(p, count);
    for (uint64_t i = 0; i < count; i++) {
        char id[24], type[8];
        (void)snprintf(id, sizeof id, "id-%u", (unsigned)draw(draw(2) == 0 ? 30 : 100000));
        (void)snprintf(type, sizeof type, "t%u", draw(30) == 0 ? 1u : 0u); /* now and then another body */
        struct event e = {.id = bytes_str(id),
                          .source = bytes_str("grey://s/n"),
                          .type = bytes_str(type),
                          .data = bytes_of(filler, id[3] % 4 == 0 ? 10 : 200), /* the same for the same id */
                          .priority = draw(3) == 0 ? (enum event_priority)draw(PRIORITY_COUNT) : PRIORITY_NORMAL};
        e.has_id = draw(4) != 0;
        record_encode(&e, p);
    }
}

static enum entry_kind random_payload(const struct gateway *g, struct builder *p) {
    char key[8];
    struct channel_facts f;
    bool is_delete;
    enum kv_condition condition;
    uint64_t revision;
    switch (draw(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        (void)snprintf(key, sizeof key, "k%u", (unsigned)draw(60));
        is_delete = draw(4) == 0;
        condition = (enum kv_condition)draw(3);
        revision = state_applied(g->state) - draw(20);
        payload_kv(p, is_delete, bytes_str(key), condition, revision, bytes_str("a/b"), bytes_of("0123456789", (size_t)draw(10)));
        return ENTRY_KV;
    case 5:
    case 6: {
        enum event_channel c = (enum event_channel)draw(CHANNEL_COUNT);
        state_channel(g->state, c, &f);
        uint64_t incarnation = draw(20) == 0 ? 1 : 9;
        payload_ack(p, incarnation, c, f.next_seq - draw(draw(2) == 0 ? 5 : f.next_seq + 1));
        return ENTRY_ACK;
    }
    case 7:
        if (draw(10) == 0) {
            gateway_limits(p, 3000 + draw(60000));
            return ENTRY_LIMITS;
        }
        if (draw(4) == 0) {
            payload_clock(p, 1);
            return ENTRY_CLOCK;
        }
        return ENTRY_NOOP;
    default:
        random_batch(p);
        return ENTRY_EVENTS;
    }
}

/* Ten nodes, ten disks, one truth: a hash that differs would fence a healthy gateway, one that agrees over different rows would hide
 * a lost event. */
static void the_rhythm_of_the_disk_does_not_show_in_the_state(void **context) {
    (void)context;
    const char *fewer = getenv("ROUNDS"); /* an emulator takes 8 s for one */
    uint64_t rounds = fewer == NULL ? 6 : strtoull(fewer, NULL, 10);
    assert_in_range(rounds, 1, 6);
    for (uint64_t round = 1; round <= rounds; round++) {
        seed = round * 0x9e3779b97f4a7c15u;
        print_message("seed %" PRIu64 "\n", seed);
        struct gateway calm = gateway_new(SIZE_MAX / 8), busy = gateway_new(6000);
        struct builder p, dumps[2], answers[2];
        builder_init(&p, LIMIT_PAYLOAD_BYTES);
        for (size_t i = 0; i < 2; i++) {
            builder_init(&dumps[i], 1u << 26);
            builder_init(&answers[i], 1 << 16);
        }
        struct site_facts site = facts_of("s", 1, 9, 1);
        payload_site(&p, &site);
        int64_t time_ms = 1;
        enum entry_kind kind = ENTRY_SITE;
        struct table_flush flush = {0};
        bool written = false;
        for (unsigned step = 0; step < 5000; step++) {
            if (step == 1) {
                gateway_limits(&p, 20000);
                kind = ENTRY_LIMITS;
            } else if (step > 1) {
                kind = random_payload(&calm, &p);
            }
            if (p.size > 0 && draw(50) == 0) { /* a faulty peer */
                size_t at = (size_t)draw(p.size);
                p.data[at] ^= (uint8_t)(1u << draw(8));
            }
            time_ms += (int64_t)draw(draw(100) == 0 ? 2 * DAY_MS : 1000);
            struct entry e = {.index = step + 1, .kind = (uint16_t)kind, .schema = ENTRY_SCHEMA, .time_ms = time_ms};
            e.payload = kind == ENTRY_NOOP ? NULL : builder_blob(&p);
            builder_reset(&p);
            struct outcome o[2];
            builder_reset(&answers[0]);
            builder_reset(&answers[1]);
            if (draw(2) == 0) { /* rows come early, as the storage thread reads them while the entry is stored */
                state_wants(&e, gateway_load, &busy);
            }
            if (gateway_apply(&calm, &e, &o[0], &answers[0]) != E_OK) {
                fail_msg("entry %u of kind %u: %s", step + 1, e.kind, o[0].detail);
            }
            assert_int_equal(gateway_apply(&busy, &e, &o[1], draw(2) == 0 ? &answers[1] : NULL), E_OK);
            blob_unref(e.payload);
            assert_memory_equal(&o[0], &o[1], sizeof o[0]);
            assert_true(answers[1].size == 0 || bytes_equal(builder_bytes(&answers[0]), builder_bytes(&answers[1])));
            uint8_t hashes[2][DIGEST_BYTES];
            state_hash(calm.state, hashes[0]);
            state_hash(busy.state, hashes[1]);
            assert_memory_equal(hashes[0], hashes[1], DIGEST_BYTES);

            if (!table_flushing(busy.rows)) {
                if (draw(8) == 0) {
                    assert_int_equal(table_flush_begin(busy.rows, &flush), E_OK);
                    written = false;
                }
            } else if (!written && draw(2) == 0) {
                gateway_flush_write(&busy, &flush);
                written = true;
            } else if (draw(3) == 0) {
                table_flush_done(busy.rows, written);
            }
            if (draw(400) == 0 && !table_flushing(busy.rows)) {
                gateway_flush(&busy);
                gateway_stop(&busy);
                gateway_start(&busy); /* totals are counted anew from segments */
            }
            if (step % 250 == 249) {
                gateway_dump(&calm, &dumps[0]);
                gateway_dump(&busy, &dumps[1]);
                assert_true(bytes_equal(builder_bytes(&dumps[0]), builder_bytes(&dumps[1])));
                for (unsigned c = 0; c < CHANNEL_COUNT; c++) {
                    struct channel_facts f[2];
                    state_channel(calm.state, (enum event_channel)c, &f[0]);
                    state_channel(busy.state, (enum event_channel)c, &f[1]);
                    assert_memory_equal(&f[0], &f[1], sizeof f[0]);
                }
            }
        }
        if (table_flushing(busy.rows)) {
            table_flush_done(busy.rows, written);
        }
        uint8_t hash[DIGEST_BYTES];
        state_hash(calm.state, hash);
        print_message("state hash %02x%02x%02x%02x%02x%02x%02x%02x\n", hash[0], hash[1], hash[2], hash[3], hash[4], hash[5],
                      hash[6], hash[7]); /* tests/cross/same.sh compares them */
        builder_free(&p);
        for (size_t i = 0; i < 2; i++) {
            builder_free(&dumps[i]);
            builder_free(&answers[i]);
        }
        gateway_free(&calm);
        gateway_free(&busy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_is_made_once),
        cmocka_unit_test(a_rebuilt_site_is_another_incarnation),
        cmocka_unit_test(an_unknown_entry_changes_nothing),
        cmocka_unit_test(an_entry_waits_for_its_rows),
        cmocka_unit_test(log_time_goes_back_only_by_a_clock_entry),
        cmocka_unit_test(a_damaged_row_stops_the_node),
        cmocka_unit_test(the_rhythm_of_the_disk_does_not_show_in_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
