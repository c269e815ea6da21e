#include "federation/channel.h"

#include <string.h>

#include "include/grey/must.h"

void channel_begin(struct channel_out *c, grey_seq acked) {
    *c = (struct channel_out){.acked = acked, .sent = acked};
}

grey_seq channel_next(struct channel_out *c, grey_seq freed, grey_seq next_seq) {
    must(c->acked <= c->sent);
    grey_seq done = freed > c->sent ? freed : c->sent;
    c->sent = done;
    return done + 1 < next_seq ? done + 1 : 0;
}

bool channel_room(const struct channel_out *c) {
    return c->frames < CHANNEL_FRAMES_MAX;
}

void channel_sent(struct channel_out *c, grey_seq to_seq, uint32_t bytes) {
    must(channel_room(c) && to_seq > c->sent);
    uint32_t at = (c->first + c->frames++) % CHANNEL_FRAMES_MAX;
    c->ends[at] = to_seq;
    c->sizes[at] = bytes;
    c->bytes_on_way += bytes;
    c->sent = to_seq;
}

bool channel_acked(struct channel_out *c, grey_seq seq) {
    if (seq <= c->acked) {
        return false;
    }
    c->acked = seq;
    c->sent = seq > c->sent ? seq : c->sent;
    while (c->frames > 0 && c->ends[c->first] <= seq) {
        c->bytes_on_way -= c->sizes[c->first];
        c->first = (c->first + 1) % CHANNEL_FRAMES_MAX;
        c->frames--;
    }
    return true;
}

enum channel_verdict channel_judge(grey_seq position, grey_seq from_seq, grey_seq to_seq) {
    return to_seq <= position ? CHANNEL_REPEAT : from_seq > position + 1 ? CHANNEL_HOLE : CHANNEL_FITS;
}

enum event_channel channel_turn(const struct channel_turns *t, const bool waiting[CHANNEL_COUNT]) {
    for (int i = CHANNEL_COUNT - 1; i > 0; i--) {
        if (waiting[i] && t->credit_bytes[i] > 0) {
            return (enum event_channel)i;
        }
    }
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        if (waiting[i]) {
            return (enum event_channel)i;
        }
    }
    return CHANNEL_COUNT;
}

/* A turn of the channel's own is paid from what it saved, down to the size of one frame, so that over any longer time a starved
 * channel gets its floor and no more.  What is not waiting saves nothing. */
void channel_turn_took(struct channel_turns *t, const bool waiting[CHANNEL_COUNT], enum event_channel c, uint32_t bytes) {
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        if (i == (int)c) {
            t->credit_bytes[i] -= bytes;
        } else if (waiting[i] && i > (int)c) {
            t->credit_bytes[i] += ((int64_t)bytes * CHANNEL_FLOOR_PERCENT + 99) / 100;
        }
        if (!waiting[i] || t->credit_bytes[i] < -(int64_t)CHANNEL_PACE_BYTES_MAX) {
            t->credit_bytes[i] = 0;
        }
    }
    /* It had its turn because nothing above it waited: that is not paid for. */
    bool above = false;
    for (int i = 0; i < (int)c; i++) {
        above = above || waiting[i];
    }
    if (!above && t->credit_bytes[c] < 0) {
        t->credit_bytes[c] = 0;
    }
}

/* --- pace ----------------------------------------------------------------------------------------------------------------------------------- */

#define PACE_BYTES_START (16u * 1024u)
#define FRAME_BYTES_MIN 1024u /* below that, what stands around the records would be most of it */
#define PACE_LATE_MS 750u     /* confirmed so much later than the quickest: too much is on the way */
#define PACE_QUICK_MS 350u    /* so little later: more may be on the way */

static uint32_t clamp(uint64_t bytes) {
    return bytes < CHANNEL_PACE_BYTES_MIN   ? CHANNEL_PACE_BYTES_MIN
           : bytes > CHANNEL_PACE_BYTES_MAX ? CHANNEL_PACE_BYTES_MAX
                                            : (uint32_t)bytes;
}

void channel_pace_begin(struct channel_pace *p, uint64_t limit_bytes_per_s) {
    uint64_t start = limit_bytes_per_s > 0 && limit_bytes_per_s < PACE_BYTES_START ? limit_bytes_per_s : PACE_BYTES_START;
    *p = (struct channel_pace){.bytes_max = clamp(start), .round_trip_ms_min = UINT32_MAX};
}

bool channel_pace_room(struct channel_pace *p) {
    bool room = p->bytes_on_way == 0 || p->bytes_on_way + channel_pace_frame_bytes(p) <= p->bytes_max;
    p->was_full = p->was_full || !room;
    return room;
}

uint32_t channel_pace_frame_bytes(const struct channel_pace *p) {
    uint32_t part = p->bytes_max / 8;
    return part < FRAME_BYTES_MIN ? FRAME_BYTES_MIN : part;
}

void channel_pace_sent(struct channel_pace *p, uint32_t bytes) {
    p->bytes_on_way += bytes;
}

void channel_pace_confirmed(struct channel_pace *p, uint32_t bytes, uint32_t took_ms, uint64_t now_ms) {
    p->bytes_on_way -= bytes < p->bytes_on_way ? bytes : p->bytes_on_way;
    p->round_trip_ms_min = took_ms < p->round_trip_ms_min ? took_ms : p->round_trip_ms_min;
    uint32_t waited_ms = took_ms - p->round_trip_ms_min;
    if (waited_ms > PACE_LATE_MS) {
        /* once for everything that was on the way at that time: what comes next was sent before the last shrinking */
        if (now_ms - took_ms >= p->shrunk_ms) {
            p->bytes_max = clamp((uint64_t)p->bytes_max * PACE_LATE_MS / waited_ms * 3 / 4);
            p->shrunk_ms = now_ms;
        }
        p->was_full = false;
    } else if (waited_ms < PACE_QUICK_MS && p->was_full) {
        p->bytes_max = clamp((uint64_t)p->bytes_max + bytes);
        p->was_full = false;
    }
}
