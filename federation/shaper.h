/* shaper.h: how many bytes may leave now: a token bucket over everything that goes over the wire (DECISIONS 25).
 *
 * What is counted is what the network carries: payload (TLS records and MQTT in it) and the IP and TCP headers around it.  Bytes that
 * ask are debited before they leave; what leaves without asking (acknowledgements, retransmissions, a handshake) is debited as soon as
 * it is known, and then others wait the longer.
 *
 * The promise: as long as debits without asking are at most shaper_reserve_bytes ahead of the tokens, what leaves in any second is at
 * most the limit and SHAPER_MTU_BYTES.  A fast link gets more than one packet at a time, or timers of a millisecond would hold it
 * back, and pays for it with a rate that is less by as much a second (3.1% at the most).
 *
 * A packet that the network lost goes a second time before anybody knows; on a network that loses some, one packet in ten seconds stays
 * free for the next.  Pure: time is given. */
#ifndef FEDERATION_SHAPER_H
#define FEDERATION_SHAPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHAPER_LIMIT_BYTES_PER_S_MIN 2000u /* 0.016 Mbit/s: below it, one packet would take more than a second */
#define SHAPER_MTU_BYTES 1500u

struct shaper_path {        /* how a connection makes packets out of bytes */
    uint32_t segment_bytes; /* payload of a full one */
    uint32_t header_bytes;  /* IP and TCP of each, options included */
};

struct shaper {
    uint64_t limit_bytes_per_s; /* 0: none */
    uint64_t rate_bytes_per_s, burst_bytes;
    int64_t tokens_us;                /* bytes * 1,000,000, so that slow rates lose nothing to rounding; negative: debts */
    uint64_t at_us, careful_until_us; /* the second: packets were lost lately */
    uint64_t calm_from_us;            /* none was lost for long then */
    uint64_t unlost_bytes;            /* were granted since one was */
};

/* payload_bytes that are written at once, on the wire. */
uint64_t shaper_wire_bytes(const struct shaper_path *path, uint64_t payload_bytes);

/* limit_bytes_per_s: 0 is no limit, less than SHAPER_LIMIT_BYTES_PER_S_MIN is taken as that.  Starts with a full bucket. */
void shaper_init(struct shaper *s, uint64_t limit_bytes_per_s, uint64_t now_us);
void shaper_set_limit(struct shaper *s, uint64_t limit_bytes_per_s, uint64_t now_us); /* from now on; debts stay */
uint64_t shaper_reserve_bytes(const struct shaper *s);

/* Grants up to wanted payload bytes, in full packets but for the last, and debits them with their headers.  0: shaper_wait_us. */
size_t shaper_grant(struct shaper *s, const struct shaper_path *path, uint64_t now_us, size_t wanted);
/* Of a grant, written bytes were taken by the socket: the rest is given back. */
void shaper_give_back(struct shaper *s, const struct shaper_path *path, size_t granted, size_t written);
/* Bytes on the wire that did not ask. */
void shaper_debit(struct shaper *s, uint64_t now_us, uint64_t wire_bytes);
/* The same of what was sent again. */
void shaper_debit_resent(struct shaper *s, uint64_t now_us, uint64_t wire_bytes);
/* There is a limit, and of the last 32 KiB, and in the last minute, no packet was lost: the network carries what is granted. */
bool shaper_calm(const struct shaper *s, uint64_t now_us);
/* More than shaper_unsent_bytes of what was granted waits in the socket still, and will leave later than it was debited: until then
 * nothing is saved up. */
uint64_t shaper_unsent_bytes(const struct shaper *s);
void shaper_stall(struct shaper *s, uint64_t now_us);
/* As of the last call with a time: until shaper_grant gives something to who wants so much. */
uint64_t shaper_wait_us(const struct shaper *s, const struct shaper_path *path, size_t wanted);

#endif
