/* Squeezed events: whatever goes in comes out byte for byte, or a site's history is falsified; and a batch that a stranger made or the
 * link has damaged is refused, or it takes the core down. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/state/intake.h"
#include "federation/record.h"
#include "federation/squeeze.h"
#include "platform/digest.h"

#define CORPUS "tests/wire/telemetry.jsonl"
#define CORPUS_EVENTS 4000u
#define MIB (1024u * 1024u)
#define GOLDEN_SIZE 8421u /* of the first 1,000 events */
#define GOLDEN_CRC 0xb3e72b44u

static struct sync_item items_back[SYNC_ITEMS_MAX];
static struct sync_gap gaps_back[SYNC_GAPS_MAX];

/* --- both ends of a session -------------------------------------------------------------------------------------------------------------- */

struct ends {
    struct squeeze *site, *core;
    struct builder packed, records;
    uint32_t sum;
};

static void ends_begin(struct ends *x) {
    *x = (struct ends){.site = squeeze_new(), .core = squeeze_new()};
    assert_true(x->site != NULL && x->core != NULL);
    builder_init(&x->packed, 2 * MIB);
    builder_init(&x->records, MIB);
}

static void ends_free(struct ends *x) {
    squeeze_free(x->site);
    squeeze_free(x->core);
    builder_free(&x->packed);
    builder_free(&x->records);
}

static void assert_same(const struct sync_events *a, const struct sync_events *b) {
    assert_int_equal(a->item_count, b->item_count);
    assert_int_equal(a->gap_count, b->gap_count);
    assert_int_equal(a->to_seq, b->to_seq);
    for (uint32_t i = 0; i < a->item_count; i++) {
        assert_int_equal(a->items[i].seq, b->items[i].seq);
        assert_int_equal(a->items[i].index, b->items[i].index);
        assert_int_equal(a->items[i].time_ms, b->items[i].time_ms);
        assert_true(bytes_equal(a->items[i].record, b->items[i].record));
    }
    for (uint32_t i = 0; i < a->gap_count; i++) {
        assert_int_equal(a->gaps[i].from_seq, b->gaps[i].from_seq);
        assert_int_equal(a->gaps[i].to_seq, b->gaps[i].to_seq);
        assert_int_equal(a->gaps[i].reason, b->gaps[i].reason);
        assert_int_equal(a->gaps[i].bytes, b->gaps[i].bytes);
    }
}

/* Cuts e to what went; the size of that. */
static size_t over(struct ends *x, struct sync_events *e, size_t packed_bytes_max) {
    struct sync_events back = {.from_seq = e->from_seq};
    builder_reset(&x->packed);
    assert_int_equal(squeeze_pack(x->site, e, packed_bytes_max, &x->packed, &x->sum), E_OK);
    assert_int_equal(squeeze_unpack(x->core, builder_bytes(&x->packed), x->sum, &back, items_back, gaps_back, &x->records), E_OK);
    assert_same(e, &back);
    return x->packed.size;
}

/* --- the corpus -------------------------------------------------------------------------------------------------------------------------- */

static struct sync_item corpus[CORPUS_EVENTS];

static struct bytes record_of(struct bytes json) {
    struct intake_options o = {.default_source = "grey://site/1", .default_priority = PRIORITY_NORMAL};
    struct intake_result r = {0};
    struct fault f = {0};
    struct builder b;
    struct bytes record;
    builder_init(&b, MIB);
    assert_int_equal(intake_json(json, bytes_str("application/json"), &o, &b, &r, &f), E_OK);
    assert_int_equal(record_slot(builder_bytes(&b), 0, &record), E_OK);
    struct blob *kept = blob_copy(record);
    intake_result_free(&r);
    builder_free(&b);
    return blob_bytes(kept);
}

static int read_corpus(void **state) {
    (void)state;
    char line[1024];
    FILE *f = fopen(CORPUS, "r");
    assert_non_null(f);
    for (uint32_t i = 0; i < CORPUS_EVENTS; i++) {
        assert_non_null(fgets(line, sizeof line, f));
        corpus[i] =
            (struct sync_item){.seq = i + 1, .index = 100 + i / 10, .time_ms = 1767225600000 + 1000 * (int64_t)i + i * 7919 % 20};
        corpus[i].record = record_of(bytes_str(line));
    }
    (void)fclose(f);
    return 0;
}

static int free_corpus(void **state) {
    (void)state;
    for (uint32_t i = 0; i < CORPUS_EVENTS; i++) {
        blob_unref((struct blob *)(void *)(uintptr_t)(corpus[i].record.data - offsetof(struct blob, data)));
    }
    return 0;
}

static struct sync_events next_events(const struct sync_events *before, uint32_t count_max) {
    uint32_t at = (uint32_t)before->to_seq, left = CORPUS_EVENTS - at;
    uint32_t count = left < count_max ? left : count_max;
    return (struct sync_events){.from_seq = at + 1, .to_seq = at + count, .items = corpus + at, .item_count = count};
}

/* What the thrift of the product is measured by.  Each bound leaves a tenth above what is reached. */
static void telemetry_costs_little(void **state) {
    (void)state;
    static const struct {
        uint32_t events;
        size_t packed_bytes_max;
        double most;
    } batches[] = {{16, MIB, 9.5}, {64, MIB, 9.4}, {SYNC_ITEMS_MAX, MIB, 9.4}, {SYNC_ITEMS_MAX, 4096, 9.4}, {1, MIB, 10.5}};
    for (size_t k = 0; k < sizeof batches / sizeof batches[0]; k++) {
        struct ends x;
        struct sync_events e = {0};
        size_t bytes = 0, frames = 0;
        ends_begin(&x);
        while (e.to_seq < CORPUS_EVENTS) {
            e = next_events(&e, batches[k].events);
            size_t size = over(&x, &e, batches[k].packed_bytes_max);
            assert_true(size < batches[k].packed_bytes_max + 512);
            bytes += size;
            frames++;
        }
        double each = (double)bytes / CORPUS_EVENTS;
        print_message("# %zu frames of up to %u events and %zu bytes: %.2f bytes an event\n", frames, batches[k].events,
                      batches[k].packed_bytes_max, each);
        assert_true(each < batches[k].most);
        ends_free(&x);
    }
}

/* A site and a core of different versions speak with each other: what the same events are squeezed to must never change (a new coding
 * would be another bit of the welcome). */
static void the_format_is_fixed(void **state) {
    (void)state;
    struct ends x;
    struct sync_events e = {0};
    uint32_t crc = 0;
    size_t size = 0;
    ends_begin(&x);
    for (unsigned i = 0; i < 40; i++) {
        e = next_events(&e, 25);
        size += over(&x, &e, MIB);
        crc = digest_crc32(crc, builder_bytes(&x.packed));
    }
    assert_int_equal(size, GOLDEN_SIZE);
    assert_int_equal(crc, GOLDEN_CRC);
    ends_free(&x);
}

/* --- anything ---------------------------------------------------------------------------------------------------------------------------- */

static void put_random_json(struct builder *b, unsigned depth) {
    static const char *const keys[] = {"a", "temp", "temp", "very long key of some object here", "k\\\"q", "12", "x-1"};
    unsigned kind = (unsigned)rand() % (depth > 3 ? 5 : 7);
    if (kind < 2) {
        builder_addf(b, "%s%d.%0*d", rand() % 5 == 0 ? "-" : "", rand() % 1000, 1 + rand() % 6, rand() % 10);
    } else if (kind == 2) {
        builder_addf(b, "\"2026-0%d-1%dT0%d:00:00.%03dZ\"", 1 + rand() % 9, rand() % 10, rand() % 10, rand() % 1000);
    } else if (kind == 3) {
        builder_addf(b, "\"%08x-%04x word%d of text\"", (unsigned)rand(), (unsigned)rand() & 0xffff, rand() % 10);
    } else if (kind == 4) {
        builder_add_str(b, rand() % 2 ? "true" : "null");
    } else {
        unsigned count = (unsigned)rand() % 6;
        builder_add_byte(b, kind == 5 ? '{' : '[');
        for (unsigned i = 0; i < count; i++) {
            builder_add_str(b, i > 0 ? rand() % 8 == 0 ? ",\n  " : "," : "");
            if (kind == 5) {
                builder_addf(b, "\"%s\"%s", keys[(unsigned)rand() % 7], rand() % 8 == 0 ? ": " : ":");
            }
            put_random_json(b, depth + 1);
        }
        builder_add_byte(b, kind == 5 ? '}' : ']');
    }
}

static void put_noise(struct builder *b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        builder_add_byte(b, (uint8_t)rand());
    }
}

static void put_random_event(struct builder *record) {
    struct builder data;
    char id[64], source[64];
    builder_init(&data, MIB);
    if (rand() % 4 == 0) {
        put_noise(&data, (size_t)rand() % 300);
    } else {
        put_random_json(&data, 0);
    }
    (void)snprintf(id, sizeof id, "%s-%d", rand() % 2 ? "a" : "00", rand());
    (void)snprintf(source, sizeof source, "source-%d", rand() % 40);
    struct event e = {.id = bytes_str(id),
                      .source = bytes_str(source),
                      .type = bytes_str(rand() % 2 ? "t" : "\x01type"),
                      .subject = bytes_str(rand() % 2 ? "" : "\xc3\xbc"),
                      .time = bytes_str(rand() % 2 ? "" : "2026-13-01T00:00:00"),
                      .priority = (enum event_priority)(rand() % PRIORITY_COUNT),
                      .provisional = rand() % 9 == 0,
                      .has_id = rand() % 9 != 0,
                      .data = builder_bytes(&data)};
    record_encode(&e, record);
    builder_free(&data);
}

/* Items of all kinds, records and what is none, with gaps between them. */
static void any_events_survive(void **state) {
    (void)state;
    static struct sync_item items[64];
    static struct sync_gap gaps[64];
    struct ends x;
    grey_seq seq = 0;
    ends_begin(&x);
    for (unsigned round = 0; round < 400; round++) {
        struct sync_events e = {.from_seq = seq + 1, .items = items, .gaps = gaps};
        struct builder record;
        size_t plain = 0;
        srand(round);
        for (unsigned i = (unsigned)rand() % 60; i > 0 || seq + 1 == e.from_seq; i -= i > 0) {
            if (rand() % 20 == 0 && e.gap_count < 60) {
                grey_seq from = seq + 1;
                seq += 1 + (grey_seq)(rand() % 1000);
                gaps[e.gap_count++] =
                    (struct sync_gap){.from_seq = from, .to_seq = seq, .reason = SYNC_GAP_EVICTED, .bytes = (uint64_t)rand()};
            } else if (e.item_count < 60) {
                builder_init(&record, MIB);
                if (rand() % 10 == 0) {
                    put_noise(&record, (size_t)rand() % 50);
                } else {
                    put_random_event(&record);
                }
                assert_int_equal(record.err, E_OK);
                items[e.item_count++] = (struct sync_item){.seq = ++seq,
                                                           .index = (raft_index)rand(),
                                                           .time_ms = rand() - rand(),
                                                           .record = blob_bytes(builder_blob(&record))};
                plain += record.size;
                builder_free(&record);
            }
        }
        e.to_seq = seq;
        struct sync_item whole[64];
        uint32_t count = e.item_count;
        memcpy(whole, items, sizeof whole);
        assert_true(over(&x, &e, MIB) < plain + plain / 16 + 64 * count + 64); /* noise grows by little */
        assert_int_equal(e.to_seq, seq);
        for (uint32_t i = 0; i < count; i++) {
            if (whole[i].record.data != NULL) {
                blob_unref((struct blob *)(void *)(uintptr_t)(whole[i].record.data - offsetof(struct blob, data)));
            }
        }
    }
    ends_free(&x);
}

/* A frame that was lost, repeated or damaged is never taken for another one. */
static void what_was_not_packed_is_refused(void **state) {
    (void)state;
    struct ends x;
    struct sync_events e = {0}, back = {0};
    unsigned kinds[2] = {0};
    ends_begin(&x);
    e = next_events(&e, 30);
    (void)over(&x, &e, MIB);
    e = next_events(&e, 30);
    builder_reset(&x.packed);
    assert_int_equal(squeeze_pack(x.site, &e, MIB, &x.packed, &x.sum), E_OK); /* lost */
    e = next_events(&e, 30);
    builder_reset(&x.packed);
    assert_int_equal(squeeze_pack(x.site, &e, MIB, &x.packed, &x.sum), E_OK);
    assert_int_equal(squeeze_unpack(x.core, builder_bytes(&x.packed), x.sum, &back, items_back, gaps_back, &x.records), E_CORRUPT);
    assert_int_equal(back.item_count + back.gap_count, 0);
    for (unsigned i = 0; i < 3000; i++) {
        struct sync_events first = {0};
        squeeze_forget(x.site);
        squeeze_forget(x.core);
        builder_reset(&x.packed);
        first = next_events(&first, 5 + i % 7);
        assert_int_equal(squeeze_pack(x.site, &first, MIB, &x.packed, &x.sum), E_OK);
        struct bytes packed = builder_bytes(&x.packed);
        srand(i);
        if (i % 3 == 0) {
            packed.size = (size_t)rand() % packed.size;
        } else if (i % 3 == 1) {
            x.packed.data[(size_t)rand() % packed.size] ^= (uint8_t)(1 + rand() % 255);
        } else {
            for (size_t k = 0; k < packed.size; k++) {
                x.packed.data[k] = (uint8_t)rand();
            }
        }
        enum grey_error err = squeeze_unpack(x.core, packed, x.sum, &back, items_back, gaps_back, &x.records);
        kinds[err == E_CORRUPT]++;
        if (err == E_OK) { /* the last bits of a frame may be any */
            assert_same(&first, &back);
        } else {
            assert_true(err == E_CORRUPT || err == E_TOO_LARGE);
            assert_int_equal(back.item_count + back.gap_count, 0);
        }
        assert_in_range(x.records.size, 0, MIB);
    }
    assert_true(kinds[1] > 2900);
    ends_free(&x);
}

/* The frame of a link that carries little ends where it should, and the next one goes on behind it. */
static void a_frame_is_cut_where_asked(void **state) {
    (void)state;
    struct ends x;
    struct sync_gap gaps[] = {{.from_seq = 3, .to_seq = 9, .reason = SYNC_GAP_EVICTED},
                              {.from_seq = 12, .to_seq = 12, .reason = SYNC_GAP_UNREADABLE}};
    struct sync_item items[4];
    grey_seq seqs[] = {1, 2, 10, 11};
    for (unsigned i = 0; i < 4; i++) {
        items[i] = corpus[i];
        items[i].seq = seqs[i];
    }
    static const grey_seq ends[] = {1, 2, 9, 10, 11, 12};
    ends_begin(&x);
    uint32_t item = 0, gap = 0;
    for (unsigned i = 0; i < 6; i++) {
        struct sync_events e = {.from_seq = i > 0 ? ends[i - 1] + 1 : 1,
                                .to_seq = 12,
                                .items = items + item,
                                .item_count = 4 - item,
                                .gaps = gaps + gap,
                                .gap_count = 2 - gap};
        (void)over(&x, &e, 1);
        assert_int_equal(e.to_seq, ends[i]);
        assert_int_equal(e.item_count + e.gap_count, 1);
        item += e.item_count;
        gap += e.gap_count;
    }
    ends_free(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(telemetry_costs_little),     cmocka_unit_test(the_format_is_fixed),
        cmocka_unit_test(any_events_survive),         cmocka_unit_test(what_was_not_packed_is_refused),
        cmocka_unit_test(a_frame_is_cut_where_asked),
    };
    return cmocka_run_group_tests(tests, read_corpus, free_corpus);
}
