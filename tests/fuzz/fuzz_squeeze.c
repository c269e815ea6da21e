/* Squeezed events from a stranger: whatever is taken packs again to what unpacks the same, and the tables stay in their bounds.  And any
 * bytes as a record or as the data of one, packed: they come back.
 *
 * First byte: 0 frames (size u16, sum taken from what comes out where it can be), 1 raw records, 2 data of records. */
#include <string.h>

#include "federation/record.h"
#include "federation/squeeze.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sync_item items[SYNC_ITEMS_MAX], items_back[SYNC_ITEMS_MAX];
static struct sync_gap gaps[SYNC_GAPS_MAX], gaps_back[SYNC_GAPS_MAX];

static void goes_over(struct squeeze *site, struct squeeze *core, struct sync_events e) {
    struct builder packed, records;
    struct sync_events back = {.from_seq = e.from_seq};
    uint32_t sum;
    builder_init(&packed, 4u << 20);
    builder_init(&records, 1u << 20);
    must(squeeze_pack(site, &e, SIZE_MAX, &packed, &sum) == E_OK);
    must(squeeze_unpack(core, builder_bytes(&packed), sum, &back, items_back, gaps_back, &records) == E_OK);
    must(back.item_count == e.item_count && back.gap_count == e.gap_count && back.to_seq == e.to_seq);
    for (uint32_t i = 0; i < e.item_count; i++) {
        must(e.items[i].seq == items_back[i].seq && e.items[i].index == items_back[i].index &&
             e.items[i].time_ms == items_back[i].time_ms && bytes_equal(e.items[i].record, items_back[i].record));
    }
    for (uint32_t i = 0; i < e.gap_count; i++) {
        must(e.gaps[i].from_seq == gaps_back[i].from_seq && e.gaps[i].to_seq == gaps_back[i].to_seq);
    }
    builder_free(&packed);
    builder_free(&records);
}

/* Frames as they come; without the sum's help all of them are taken apart to the end. */
static void strange_frames(struct squeeze *core, const uint8_t *data, size_t size) {
    struct builder records;
    builder_init(&records, 1u << 20);
    while (size >= 6) {
        size_t want = bytes_get_be16(data);
        uint32_t sum = bytes_get_be32(data + 2);
        struct bytes in = bytes_of(data + 6, want < size - 6 ? want : size - 6);
        data += 6 + in.size, size -= 6 + in.size;
        struct sync_events e = {.from_seq = 1};
        enum grey_error err = squeeze_unpack(core, in, sum, &e, items, gaps, &records);
        must(err == E_OK || err == E_CORRUPT || err == E_TOO_LARGE);
        must(records.size <= 1u << 20 && e.item_count <= SYNC_ITEMS_MAX && e.gap_count <= SYNC_GAPS_MAX);
        must(err == E_OK || e.item_count + e.gap_count == 0);
    }
    builder_free(&records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct squeeze *site = squeeze_new(), *core = squeeze_new();
    must(site != NULL && core != NULL);
    uint8_t kind = size > 0 ? data[0] : 0;
    if (size > 0 && kind == 0) {
        strange_frames(core, data + 1, size - 1);
    } else if (size > 1) {
        struct builder b;
        uint32_t count = 0;
        const uint8_t *at = data + 1, *end = data + size;
        builder_init(&b, 4u << 20);
        size_t starts[64];
        while (at < end && count < 64) { /* lines */
            const uint8_t *line = memchr(at, '\n', (size_t)(end - at));
            line = line != NULL ? line : end;
            starts[count] = b.size;
            struct bytes text = bytes_of(at, (size_t)(line - at));
            if (kind == 1) {
                builder_add(&b, text);
            } else {
                struct event e = {
                    .id = bytes_str("i"), .source = bytes_str("s"), .type = bytes_str("t"), .data = text, .priority = PRIORITY_LOW};
                record_encode(&e, &b);
            }
            must(b.err == E_OK);
            items[count] = (struct sync_item){.seq = 1 + count, .index = text.size, .time_ms = -(int64_t)count};
            items[count].record.size = b.size - starts[count];
            count++;
            at = line < end ? line + 1 : end;
        }
        for (uint32_t i = 0; i < count; i++) {
            items[i].record.data = b.data + starts[i];
        }
        struct sync_events e = {.from_seq = 1, .to_seq = count, .items = items, .item_count = count};
        struct sync_events half = e;
        half.item_count = count / 2 + 1;
        goes_over(site, core, half);
        goes_over(site, core, e); /* and again, now that they are known */
        builder_free(&b);
    }
    squeeze_free(site);
    squeeze_free(core);
    return 0;
}
