/* What sites and core say to each other, as a stranger would: what is accepted has one encoding, and a stream of accepted messages moves
 * a position without hole or repeat. */
#include "federation/channel.h"
#include "federation/offload.h"
#include "federation/sync.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(struct builder *b, struct bytes in) {
    must(b->err == E_OK && bytes_equal(builder_bytes(b), in));
    builder_reset(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct sync_item items[SYNC_ITEMS_MAX];
    static struct sync_gap gaps[SYNC_GAPS_MAX];
    struct builder b;
    grey_seq position = 0;
    uint64_t counted = 0;
    builder_init(&b, 4u << 20);
    while (size >= 2) { /* messages: size u16, bytes */
        size_t want = bytes_get_be16(data);
        struct bytes in = bytes_of(data + 2, want < size - 2 ? want : size - 2);
        data += 2 + in.size, size -= 2 + in.size;
        struct sync_hello h;
        struct sync_events e;
        struct sync_welcome w;
        struct sync_ack a;
        struct sync_squeezed q;
        struct sync_route route;
        unsigned accepted = 0;
        if (sync_get_hello(in, &h) == E_OK) {
            accepted++;
            must(sync_kind(in) == MESSAGE_UP_HELLO);
            sync_put_hello(&b, &h);
            same(&b, in);
        }
        if (sync_get_welcome(in, &w) == E_OK) {
            accepted++;
            sync_put_welcome(&b, &w);
            same(&b, in);
        }
        if (sync_get_resync(in, &w) == E_OK) {
            accepted++;
            sync_put_resync(&b, &w);
            same(&b, in);
        }
        if (sync_get_squeezed(in, &q) == E_OK) {
            accepted++;
            sync_put_squeezed(&b, &q);
            same(&b, in);
        }
        if (sync_get_route(in, &route) == E_OK) {
            accepted++;
            sync_put_route(&b, &route);
            same(&b, in);
        }
        if (sync_get_ack(in, &a) == E_OK) {
            accepted++;
            sync_put_ack(&b, &a);
            same(&b, in);
        }
        struct sync_part p;
        if (sync_get_part(in, &p) == E_OK) {
            accepted++;
            sync_put_part(&b, &p);
            same(&b, in);
        }
        struct offload_result result;
        if (offload_get_result(in, &result) == E_OK) {
            accepted++;
            offload_put_result(&b, &result);
            same(&b, in);
        }
        if (sync_get_events(in, &e, items, gaps) == E_OK) {
            accepted++;
            sync_put_events(&b, &e);
            same(&b, in);
            if (channel_judge(position, e.from_seq, e.to_seq) == CHANNEL_FITS) { /* as the core's store does it */
                for (uint32_t i = 0; i < e.item_count; i++) {
                    counted += e.items[i].seq > position;
                }
                for (uint32_t i = 0; i < e.gap_count; i++) {
                    grey_seq from = e.gaps[i].from_seq > position ? e.gaps[i].from_seq : position + 1;
                    counted += from <= e.gaps[i].to_seq ? e.gaps[i].to_seq - from + 1 : 0;
                }
                position = e.to_seq;
                must(counted == position);
            }
        } else {
            must(e.item_count == 0 && e.gap_count == 0);
        }
        must(accepted <= 1);
    }
    builder_free(&b);
    return 0;
}
