/* channel.h: who may go next on the way to the core: both ends of the numbered channels, whose turn it is, how much may be on the way.
 *
 * A channel is a sequence of numbers from 1 without hole.  The site's end remembers how far the core has acknowledged and how far it
 * has sent in this session; everything between is on the way and is sent again in the next session.  Pure; time is given. */
#ifndef FEDERATION_CHANNEL_H
#define FEDERATION_CHANNEL_H

#include "include/grey/event.h"

#define CHANNEL_FRAMES_MAX 64u /* frames of one channel that the core has not acknowledged */

/* --- the site's end: acked <= sent ------------------------------------------------------------------------------------------------------ */
struct channel_out {
    grey_seq acked, sent;
    grey_seq ends[CHANNEL_FRAMES_MAX];  /* last numbers of the frames on the way, a ring */
    uint32_t sizes[CHANNEL_FRAMES_MAX]; /* bytes of each */
    uint32_t first, frames;
    uint64_t bytes_on_way;
};

void channel_begin(struct channel_out *c, grey_seq acked); /* a session begins: nothing is on the way */
/* The next number to send, 0 when everything below next_seq was sent.  freed: what the site's log has acknowledged or given up meanwhile. */
grey_seq channel_next(struct channel_out *c, grey_seq freed, grey_seq next_seq);
bool channel_room(const struct channel_out *c);
void channel_sent(struct channel_out *c, grey_seq to_seq, uint32_t bytes); /* one frame up to to_seq has left; there must be room */
/* The core has everything up to seq.  True when that is news.  A number beyond what was sent is taken: a former session sent it. */
bool channel_acked(struct channel_out *c, grey_seq seq);

/* --- the core's end: position is the last number it has without hole ------------------------------------------------------------------ */
enum channel_verdict {
    CHANNEL_FITS,   /* goes on behind the position, perhaps with a part that is there already */
    CHANNEL_REPEAT, /* nothing new */
    CHANNEL_HOLE,   /* something between was lost on the way: not taken, the site sends from the position again */
};
enum channel_verdict channel_judge(grey_seq position, grey_seq from_seq, grey_seq to_seq);

/* --- turns: strictly by priority, but a channel that waits behind others gets its floor ------------------------------------------------ */
#define CHANNEL_FLOOR_PERCENT 5

struct channel_turns {
    int64_t credit_bytes[CHANNEL_COUNT]; /* what a waiting channel has saved up while others went first */
};
/* waiting: which channels have something to send.  CHANNEL_COUNT: none. */
enum event_channel channel_turn(const struct channel_turns *t, const bool waiting[CHANNEL_COUNT]);
void channel_turn_took(struct channel_turns *t, const bool waiting[CHANNEL_COUNT], enum event_channel c, uint32_t bytes);

/* --- pace: bytes given to the link and not confirmed by the broker yet ------------------------------------------------------------------ */
/* What a thin link cannot carry must wait in our queue, where an alarm can overtake it, and not in sockets and routers.  So the bytes on
 * the way are bounded such that they wait about half a second at most beyond the bare round trip: the bound grows while confirmations
 * come quickly and it is used, and shrinks when they come late (as LEDBAT does, RFC 6817). */
#define CHANNEL_PACE_BYTES_MIN 2048u
#define CHANNEL_PACE_BYTES_MAX (1024u * 1024u)

struct channel_pace {
    uint32_t bytes_max, bytes_on_way;
    uint32_t round_trip_ms_min;
    uint64_t shrunk_ms;
    bool was_full;
};
/* limit_bytes_per_s: of the configuration, to begin with; 0: none. */
void channel_pace_begin(struct channel_pace *p, uint64_t limit_bytes_per_s);
bool channel_pace_room(struct channel_pace *p);                  /* one more frame may go; a single one always may */
uint32_t channel_pace_frame_bytes(const struct channel_pace *p); /* a good size for the next frame */
void channel_pace_sent(struct channel_pace *p, uint32_t bytes);
/* took_ms: from the sending of these bytes to their confirmation, less the time that they need to leave by the limit: a large frame on a thin
 * link is not late for being large. */
void channel_pace_confirmed(struct channel_pace *p, uint32_t bytes, uint32_t took_ms, uint64_t now_ms);

#endif
