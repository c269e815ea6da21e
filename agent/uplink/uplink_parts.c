#include <string.h>

#include "agent/uplink/uplink_core.h"
#include "federation/frame.h"
#include "platform/now.h"

/* A frame that would keep the link busy for long goes in parts: between any two of them an alarm can go.  One frame of each channel at a
 * time; it counts as sent with its last part.  While there is one, others are not squeezed: the core unpacks those in their order, and
 * the frame in parts may be one of them. */

#define PART_BYTES_MIN 2048u /* below that, headers would cost too much: a quarter of a second at 64 kbit/s */
#define PART_AROUND_BYTES 64u

static uint32_t part_bytes(const struct uplink *u) {
    uint32_t bytes = channel_pace_frame_bytes(&u->pace);
    size_t most = uplink_send_bytes_max(u);
    bytes = bytes < PART_BYTES_MIN ? PART_BYTES_MIN : bytes;
    most =
        most > 2 * PART_AROUND_BYTES + FRAME_OVERHEAD_BYTES ? most - PART_AROUND_BYTES - FRAME_OVERHEAD_BYTES : PART_AROUND_BYTES;
    return bytes < most ? bytes : (uint32_t)most;
}

bool uplink_parts_wait(const struct uplink *u, enum event_channel c) {
    return u->parcels[c].frame.size > 0;
}

bool uplink_parts_any(const struct uplink *u) {
    bool any = false;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        any = any || uplink_parts_wait(u, (enum event_channel)c);
    }
    return any;
}

bool uplink_parts_take(struct uplink *u) {
    struct uplink_parcel *p = &u->parcels[u->frame_channel];
    if (!u->takes_parts || p->frame.size > 0 || u->frame.size <= 2 * (size_t)part_bytes(u)) {
        return false;
    }
    *p = (struct uplink_parcel){.frame = u->frame, .number = ++u->message_id, .to = u->frame_to};
    builder_init(&u->frame, 0);
    return true;
}

bool uplink_parts_send(struct uplink *u, enum event_channel c) {
    struct uplink_parcel *p = &u->parcels[c];
    size_t left = p->frame.size - p->sent, size = left < part_bytes(u) ? left : part_bytes(u);
    struct sync_part part = {.epoch = u->epoch,
                             .number = p->number,
                             .offset = (uint32_t)p->sent,
                             .total_bytes = (uint32_t)p->frame.size,
                             .bytes = bytes_of(p->frame.data + p->sent, size)};
    struct builder content, frame;
    builder_init(&content, size + PART_AROUND_BYTES);
    builder_init(&frame, size + PART_AROUND_BYTES + FRAME_OVERHEAD_BYTES);
    sync_put_part(&content, &part);
    frame_write(&frame, FRAME_FLAG_IDEMPOTENT, ++u->message_id, (uint64_t)now_wall_ms() * 1000000u, builder_bytes(&content));
    bool good = content.err == E_OK && frame.err == E_OK && uplink_send_publish(u, c, p->to, builder_bytes(&frame)) == E_OK;
    builder_free(&content);
    builder_free(&frame);
    p->sent += good ? size : 0;
    if (p->sent == p->frame.size) {
        uplink_send_done(u, c, p->to, p->frame.size);
        builder_free(&p->frame);
    }
    return good;
}

void uplink_parts_end(struct uplink *u) {
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        builder_free(&u->parcels[c].frame);
    }
}
