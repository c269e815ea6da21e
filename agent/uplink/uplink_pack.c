#include <inttypes.h>

#include "agent/uplink/uplink_core.h"
#include "federation/frame.h"
#include "platform/compress.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/now.h"

#define COMPRESS_FROM_BYTES 256u
#define MARGIN_BYTES 4096u                /* what stands around the records of a frame ... */
#define ITEM_BYTES 24u                    /* ... and around each record */
#define SQUEEZE_FROM_BYTES (256u * 1024u) /* of records, at most: in more of them a frame's own bytes would not weigh less */
#define RATIO_START_16 (4u * 16u)
#define RATIO_FADES 2u
#define GROWTH_BYTES 32u /* a squeezed frame may be so much larger than a plain one: what was learnt is worth more */
/* Of so many bytes more than one in so many is left: worth trying whether LZ4, which knows long repeats, does better. */
#define POOR_FROM_BYTES 4096u
#define POOR_PART 4u

/* --- the session ---------------------------------------------------------------------------------------------------------------------- */

static void afresh(struct uplink_packing *p) {
    squeeze_forget(p->squeeze);
    p->session++; /* so that the first frame of this one is not taken for a repeat of another's */
    p->serial = 0;
}

void uplink_pack_begin(struct uplink *u, uint32_t codings) {
    struct uplink_packing *p = &u->packing;
    p->ratio_16 = 16;
    if ((codings & CODING_SQUEEZE) == 0) {
        return;
    }
    p->squeeze = p->squeeze != NULL ? p->squeeze : squeeze_new(); /* without memory for it: LZ4 */
    if (p->squeeze != NULL) {
        keys_random(&p->session, sizeof p->session);
        p->ratio_16 = RATIO_START_16;
        afresh(p);
    }
}

void uplink_pack_end(struct uplink *u) {
    squeeze_free(u->packing.squeeze);
    u->packing = (struct uplink_packing){0};
}

void uplink_pack_lost(struct uplink *u) {
    if (u->packing.squeeze != NULL) {
        afresh(&u->packing);
    }
}

uint32_t uplink_pack_wish(struct uplink *u, uint32_t wished_bytes, size_t most_bytes) {
    struct uplink_packing *p = &u->packing;
    size_t most = most_bytes > 2 * MARGIN_BYTES ? most_bytes - MARGIN_BYTES : MARGIN_BYTES;
    size_t plain_most = p->squeeze != NULL ? SQUEEZE_FROM_BYTES : most;
    uint64_t plain = (uint64_t)wished_bytes * p->ratio_16 / 16;
    p->wished_bytes = wished_bytes < most ? wished_bytes : (uint32_t)most;
    p->most_bytes = (uint32_t)most;
    return plain < plain_most ? (uint32_t)plain : (uint32_t)plain_most;
}

/* --- frames --------------------------------------------------------------------------------------------------------------------------- */

static size_t plain_size(const struct sync_events *e) {
    size_t size = 0;
    for (uint32_t i = 0; i < e->item_count; i++) {
        size += e->items[i].record.size + ITEM_BYTES;
    }
    return size + (size_t)e->gap_count * ITEM_BYTES;
}

static void put_plain(const struct sync_events *e, struct builder *content, struct builder *packed, uint16_t *flags) {
    builder_reset(content);
    sync_put_events(content, e);
    struct bytes plain = builder_bytes(content);
    if (plain.size >= COMPRESS_FROM_BYTES) {
        uint8_t size[4];
        bytes_put_be32(size, (uint32_t)plain.size);
        builder_add(packed, bytes_of(size, sizeof size));
        if (compress_lz4(plain, packed) == E_OK && packed->err == E_OK && packed->size < plain.size) {
            *flags |= FRAME_FLAG_COMPRESSED;
            return;
        }
    }
    builder_reset(packed);
    builder_add(packed, plain);
}

/* e is cut to what went in. */
static void put_squeezed(struct uplink *u, struct sync_events *e, struct builder *content) {
    struct uplink_packing *p = &u->packing;
    struct builder packed;
    struct sync_squeezed q = {.incarnation = e->incarnation,
                              .epoch = e->epoch,
                              .channel = e->channel,
                              .from_seq = e->from_seq,
                              .session = p->session,
                              .serial = p->serial++};
    builder_init(&packed, LIMIT_FRAME_PAYLOAD_BYTES);
    size_t largest = 0;
    for (uint32_t i = 0; i < e->item_count; i++) {
        largest = e->items[i].record.size > largest ? e->items[i].record.size : largest;
    }
    largest += largest / 8; /* noise does not grow more */
    size_t room = p->most_bytes > largest ? p->most_bytes - largest : 1;
    if (squeeze_pack(p->squeeze, e, p->wished_bytes < room ? p->wished_bytes : room, &packed, &q.sum) != E_OK) {
        content->err = packed.err;
    }
    q.to_seq = e->to_seq;
    q.packed = builder_bytes(&packed);
    sync_put_squeezed(content, &q);
    builder_free(&packed);
}

/* Noise, or a long text with long repeats: what makes it small is not what squeezing knows. */
static bool plain_is_better(const struct sync_events *e, size_t squeezed, struct builder *content, struct builder *packed,
                            uint16_t *flags) {
    size_t plain = plain_size(e);
    bool larger = squeezed > plain + GROWTH_BYTES;
    if (!larger && (plain < POOR_FROM_BYTES || squeezed < plain / POOR_PART)) {
        return false;
    }
    put_plain(e, content, packed, flags);
    return content->err == E_OK && packed->err == E_OK && packed->size < (larger ? squeezed : squeezed / 5 * 4);
}

static void write_frame(struct uplink *u, uint16_t flags, struct bytes payload) {
    builder_init(&u->frame, LIMIT_FRAME_PAYLOAD_BYTES + FRAME_OVERHEAD_BYTES);
    frame_write(&u->frame, flags, ++u->message_id, (uint64_t)now_wall_ms() * 1000000u, payload);
}

void uplink_pack_frame(struct uplink *u, struct sync_events *e) {
    struct uplink_packing *p = &u->packing;
    struct builder content, packed, squeezed;
    uint16_t flags = (uint16_t)(FRAME_FLAG_IDEMPOTENT | (e->channel != CHANNEL_DATA ? FRAME_FLAG_PRIORITY : 0u));
    builder_init(&content, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&packed, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&squeezed, LIMIT_FRAME_PAYLOAD_BYTES);
    bool squeeze = p->squeeze != NULL && !uplink_parts_any(u);
    if (squeeze) {
        put_squeezed(u, e, &squeezed);
        squeeze = squeezed.err == E_OK && !plain_is_better(e, squeezed.size, &content, &packed, &flags);
        if (!squeeze) {
            uplink_pack_lost(u);
        }
    }
    if (squeeze) {
        flags &= (uint16_t)~FRAME_FLAG_COMPRESSED;
        write_frame(u, flags, builder_bytes(&squeezed));
    } else {
        if (packed.size == 0) {
            put_plain(e, &content, &packed, &flags);
        }
        if (content.err == E_OK && packed.err == E_OK) {
            write_frame(u, flags, builder_bytes(&packed));
        }
    }
    if (u->frame.size == 0 || u->frame.err != E_OK) {
        builder_free(&u->frame);
        log_limited(LOG_ERROR, "uplink", "frame", "channel=%s from_seq=%" PRIu64 " does not fit a frame",
                    event_channel_name(e->channel), e->from_seq);
    }
    if (p->squeeze != NULL && u->frame.size > 0) {
        uint64_t ratio_16 = plain_size(e) * 16 / u->frame.size + 1;
        p->ratio_16 = (uint32_t)((p->ratio_16 * (RATIO_FADES - 1) + ratio_16) / RATIO_FADES);
        p->ratio_16 = p->ratio_16 > 16 ? p->ratio_16 : 16;
    }
    builder_free(&content);
    builder_free(&packed);
    builder_free(&squeezed);
}
