#include "federation/shaper.h"

#include "include/grey/must.h"

#define US_PER_S 1000000u
#define BURST_DIV 40u      /* of a second's bytes */
#define UNSENT_DIV 4u      /* of the burst */
#define RESERVE_DIV 8u     /* of the burst */
#define RESERVE_BYTES 160u /* two acknowledgements over IPv6 */
#define DEBT_S_MAX 60u     /* more cannot be meant */
#define CAREFUL_S 10u      /* after a loss, and what one packet is kept free for */
#define CALM_S 60u         /* after one */
#define CALM_BYTES 32768u  /* of which none was lost: where one packet of twenty is, rarely so many pass */

uint64_t shaper_wire_bytes(const struct shaper_path *path, uint64_t payload_bytes) {
    uint64_t segment = path->segment_bytes > 0 ? path->segment_bytes : 1;
    return payload_bytes + (payload_bytes + segment - 1) / segment * path->header_bytes;
}

/* Of the limit and one packet that a second may carry, the burst may go at once; what it is larger than a packet is missing in the
 * rate.  The reserve stays out of the bucket, for what does not ask. */
static uint64_t whole_burst_bytes(uint64_t limit_bytes_per_s) {
    uint64_t burst = limit_bytes_per_s / BURST_DIV;
    return burst > SHAPER_MTU_BYTES ? burst : SHAPER_MTU_BYTES;
}

/* On a fast link a few packets wait for a moment all the time. */
uint64_t shaper_unsent_bytes(const struct shaper *s) {
    uint64_t burst = whole_burst_bytes(s->limit_bytes_per_s);
    return burst > SHAPER_MTU_BYTES ? burst / UNSENT_DIV : 0;
}

uint64_t shaper_reserve_bytes(const struct shaper *s) {
    uint64_t reserve = whole_burst_bytes(s->limit_bytes_per_s) / RESERVE_DIV;
    return reserve > RESERVE_BYTES ? reserve : RESERVE_BYTES;
}

static int64_t full_us(const struct shaper *s) {
    return (int64_t)(s->burst_bytes * US_PER_S);
}

static uint64_t rate_now(const struct shaper *s) {
    return s->at_us < s->careful_until_us ? s->rate_bytes_per_s - SHAPER_MTU_BYTES / CAREFUL_S : s->rate_bytes_per_s;
}

static void refill(struct shaper *s, uint64_t now_us) {
    uint64_t passed_us = now_us > s->at_us ? now_us - s->at_us : 0;
    uint64_t room_us = (uint64_t)(full_us(s) - s->tokens_us), rate = rate_now(s);
    s->at_us = now_us > s->at_us ? now_us : s->at_us;
    /* rate * passed is bounded first: after a long silence the bucket is simply full */
    if (passed_us > room_us / rate) {
        s->tokens_us = full_us(s);
    } else {
        s->tokens_us += (int64_t)(rate * passed_us);
    }
}

static void set(struct shaper *s, uint64_t limit) {
    limit = limit > 0 && limit < SHAPER_LIMIT_BYTES_PER_S_MIN ? SHAPER_LIMIT_BYTES_PER_S_MIN : limit;
    s->limit_bytes_per_s = limit;
    if (limit > 0) {
        s->rate_bytes_per_s = limit - (whole_burst_bytes(limit) - SHAPER_MTU_BYTES) - shaper_unsent_bytes(s);
        s->burst_bytes = whole_burst_bytes(limit) - shaper_reserve_bytes(s);
    }
}

void shaper_init(struct shaper *s, uint64_t limit_bytes_per_s, uint64_t now_us) {
    *s = (struct shaper){.at_us = now_us};
    set(s, limit_bytes_per_s);
    s->tokens_us = full_us(s);
}

void shaper_set_limit(struct shaper *s, uint64_t limit_bytes_per_s, uint64_t now_us) {
    if (s->limit_bytes_per_s == 0) {
        shaper_init(s, limit_bytes_per_s, now_us);
        return;
    }
    refill(s, now_us);
    set(s, limit_bytes_per_s);
    s->tokens_us = s->tokens_us > full_us(s) ? full_us(s) : s->tokens_us;
}

/* The least that is worth a packet: all that is wanted, or a full packet, or most of what the bucket can hold: not all of it, or each
 * timer that is late would spill what flows in meanwhile. */
static size_t piece(const struct shaper *s, const struct shaper_path *path, size_t wanted) {
    uint64_t room = s->burst_bytes - s->burst_bytes / 8;
    uint64_t most = room - (path->header_bytes < room / 2 ? path->header_bytes : room / 2);
    most = path->segment_bytes > 0 && path->segment_bytes < most ? path->segment_bytes : most;
    return wanted < most ? wanted : (size_t)most;
}

size_t shaper_grant(struct shaper *s, const struct shaper_path *path, uint64_t now_us, size_t wanted) {
    if (s->limit_bytes_per_s == 0 || wanted == 0) {
        return wanted;
    }
    refill(s, now_us);
    uint64_t whole = s->tokens_us > 0 ? (uint64_t)s->tokens_us / US_PER_S : 0;
    size_t one = piece(s, path, wanted), granted = wanted;
    uint64_t cost = shaper_wire_bytes(path, one);
    must(cost > 0);
    if (cost > whole) {
        return 0;
    }
    if (shaper_wire_bytes(path, wanted) > whole) {
        granted = (size_t)(whole / cost) * one; /* full packets: a short one in the middle costs a header for little */
        granted = granted < wanted ? granted : wanted;
    }
    s->tokens_us -= (int64_t)(shaper_wire_bytes(path, granted) * US_PER_S);
    s->unlost_bytes += granted;
    return granted;
}

void shaper_give_back(struct shaper *s, const struct shaper_path *path, size_t granted, size_t written) {
    if (s->limit_bytes_per_s == 0 || written >= granted) {
        return;
    }
    s->tokens_us += (int64_t)((shaper_wire_bytes(path, granted) - shaper_wire_bytes(path, written)) * US_PER_S);
    s->tokens_us = s->tokens_us > full_us(s) ? full_us(s) : s->tokens_us;
}

void shaper_debit(struct shaper *s, uint64_t now_us, uint64_t wire_bytes) {
    if (s->limit_bytes_per_s == 0) {
        return;
    }
    refill(s, now_us);
    uint64_t most = s->limit_bytes_per_s * DEBT_S_MAX;
    int64_t debt_us = -(int64_t)(most * US_PER_S);
    s->tokens_us -= (int64_t)((wire_bytes < most ? wire_bytes : most) * US_PER_S);
    s->tokens_us = s->tokens_us < debt_us ? debt_us : s->tokens_us;
}

void shaper_debit_resent(struct shaper *s, uint64_t now_us, uint64_t wire_bytes) {
    shaper_debit(s, now_us, wire_bytes);
    if (wire_bytes > 0) {
        s->careful_until_us = now_us + CAREFUL_S * US_PER_S;
        s->calm_from_us = now_us + CALM_S * US_PER_S;
        s->unlost_bytes = 0;
    }
}

bool shaper_calm(const struct shaper *s, uint64_t now_us) {
    return s->limit_bytes_per_s > 0 && now_us >= s->calm_from_us && s->unlost_bytes >= CALM_BYTES;
}

void shaper_stall(struct shaper *s, uint64_t now_us) {
    if (s->limit_bytes_per_s > 0) {
        refill(s, now_us);
        s->tokens_us = s->tokens_us > 0 ? 0 : s->tokens_us;
    }
}

uint64_t shaper_wait_us(const struct shaper *s, const struct shaper_path *path, size_t wanted) {
    if (s->limit_bytes_per_s == 0 || wanted == 0) {
        return 0;
    }
    int64_t need_us = (int64_t)(shaper_wire_bytes(path, piece(s, path, wanted)) * US_PER_S);
    if (need_us <= s->tokens_us) {
        return 0;
    }
    return (uint64_t)(need_us - s->tokens_us) / rate_now(s) + 1;
}
