/* credit.h: how many bytes a site may have on the way that the core has not acknowledged, so that a slow core fills the sites' disks,
 * which are made for it, and not its own memory or the broker's.
 *
 * A session begins with CREDIT_BYTES_FIRST.  Each acknowledgement says how many it may be from then on; one that says nothing means
 * CREDIT_BYTES_FULL.  The core shares what it can hold among the sites that sent something lately, and never grants less than
 * CREDIT_BYTES_LEAST: one frame may always go, and its acknowledgement brings the next word, so nobody waits for a word that no event
 * causes.  Pure; time is given. */
#ifndef FEDERATION_CREDIT_H
#define FEDERATION_CREDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CREDIT_BYTES_FIRST (64u * 1024u)
#define CREDIT_BYTES_LEAST (16u * 1024u)
#define CREDIT_BYTES_FULL (4u * 1024u * 1024u)

/* --- the site's end ----------------------------------------------------------------------------------------------------------------- */
/* May a frame go?  on_way_bytes: of all channels.  first_critical: of the control channel, which has none on the way: an alarm does not
 * wait for what lies before it. */
bool credit_allows(uint32_t credit_bytes, uint64_t on_way_bytes, bool first_critical);

/* --- the core's end ----------------------------------------------------------------------------------------------------------------- */
#define CREDIT_SKETCH_BYTES 1024u

/* bytes waiting here are those of frames unpacked, which may be many times what was on the way: how many, is learned.
 * Counts sites by a bit each (collisions make it count a few too little: 940 for 1,000), over the last 10 to 20 s.  All zero to begin. */
struct credit {
    uint8_t seen[2][CREDIT_SKETCH_BYTES];
    uint32_t counts[2];
    uint32_t swell_16; /* bytes unpacked for each byte of a frame, lately, in sixteenths; 0: none came yet */
    uint64_t turned_ms;
};
/* A frame of the site came, and was so large when it was unpacked. */
void credit_seen(struct credit *c, const char *site, uint64_t now_ms, size_t frame_bytes, size_t plain_bytes);
uint32_t credit_sites(const struct credit *c); /* at least 1 */
/* For each site: waiting_bytes are at the core, unpacked and not stored yet; room_bytes is what it wants to hold at most. */
uint32_t credit_grant(const struct credit *c, size_t waiting_bytes, size_t room_bytes);

#endif
