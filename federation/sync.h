/* sync.h: what a site and the core say to each other, as CBOR arrays [kind, ...] inside Grey frames over MQTT.  docs/PROTOCOL.md.
 *
 * The site says UP_HELLO after each connect; the core answers DOWN_WELCOME with the position it has of each channel; the site then
 * streams UP_EVENTS, each of which covers from_seq..to_seq of a channel completely (events and gaps); the core answers DOWN_ACK with
 * the contiguous prefix in its database.  Only that acknowledgement frees the site's queue.  DOWN_RESYNC, which the core says when it
 * comes back and when a frame does not go on behind its position, asks for a new hello. */
#ifndef FEDERATION_SYNC_H
#define FEDERATION_SYNC_H

#include "federation/attest/exchange.h"
#include "include/grey/event.h"
#include "include/grey/protocol.h"
#include "platform/codec.h"

#define SYNC_ITEMS_MAX 1024u
#define SYNC_GAPS_MAX 256u

struct sync_hello {
    uint64_t incarnation;
    grey_epoch epoch;
    uint32_t feature_level;
    struct bytes node;         /* name of the gateway that speaks */
    int64_t time_ms;           /* site time */
    uint64_t down_bytes_per_s; /* what the core may send at most, on the wire; 0: no limit */
    uint64_t former;           /* rebuilt from a backup: the incarnation whose numbers go on in this one; 0: none */
    struct {
        grey_seq next_seq, acked_seq;
        grey_seq former_next; /* with former: what the backup did not know begins here */
    } channels[CHANNEL_COUNT];
};

struct sync_item {
    grey_seq seq;
    raft_index index;
    int64_t time_ms;     /* log time of its entry */
    struct bytes record; /* federation/record.h */
};

enum sync_gap_reason { SYNC_GAP_EVICTED = 1, SYNC_GAP_CORE_RESTORED = 2, SYNC_GAP_UNREADABLE = 3, SYNC_GAP_EXPIRED = 4 };

struct sync_gap {
    grey_seq from_seq, to_seq;
    enum sync_gap_reason reason;
    uint64_t bytes; /* of the records lost; 0: not known */
};

struct sync_events {
    uint64_t incarnation;
    grey_epoch epoch;
    enum event_channel channel;
    grey_seq from_seq, to_seq;
    const struct sync_item *items; /* ascending; with the gaps they cover from_seq..to_seq, each number once */
    uint32_t item_count;
    const struct sync_gap *gaps;
    uint32_t gap_count;
    bool sized_gaps; /* with bytes: from feature level 2 on; without them SYNC_GAP_EXPIRED is said as SYNC_GAP_EVICTED */
};

/* Events as federation/squeeze.h has them. */
struct sync_squeezed {
    uint64_t incarnation;
    grey_epoch epoch;
    enum event_channel channel;
    grey_seq from_seq, to_seq;
    uint32_t session, serial; /* frames of a session: 0, 1, 2 ...; 0 begins one in which nothing is learnt yet */
    uint32_t sum;
    struct bytes packed;
};

/* A piece of a frame that is too large to go at once on this link. */
struct sync_part {
    grey_epoch epoch;
    uint64_t number; /* of the frame, in this session */
    uint32_t offset, total_bytes;
    struct bytes bytes;
};

struct sync_welcome { /* and resync */
    uint64_t incarnation;
    grey_epoch epoch;
    grey_seq position[CHANNEL_COUNT]; /* the core has everything up to here */
    int64_t time_ms;                  /* the core's wall time */
    uint32_t codings;                 /* welcome to a site of UP_LEVEL_CODINGS: what the core takes beside UP_EVENTS */
};

struct sync_ack {
    uint64_t incarnation;
    grey_epoch epoch;
    enum event_channel channel;
    grey_seq acked_seq;
    uint32_t credit_bytes; /* federation/credit.h; the full credit is not written */
};

/* Said before the welcome by a core that shares the work with others: this session's frames go to it, by its own topics. */
struct sync_route {
    uint64_t incarnation;
    grey_epoch epoch;
    char route[ROUTE_BYTES_MAX + 1]; /* lower-case letters and digits, at least one */
};

/* A word between one of the site's gateways and the verifier of the core, by way of whichever gateway leads.  Belongs to no session: a word
 * that was lost is asked for again. */
#define SYNC_ATTEST_BODY_BYTES_MAX ATTEST_EVIDENCE_BYTES_MAX
struct sync_attest {
    struct bytes node; /* the gateway that says it, or is told it */
    enum exchange_word word;
    struct bytes body;
};

const char *sync_gap_reason_name(enum sync_gap_reason r);

void sync_put_hello(struct builder *out, const struct sync_hello *h);
void sync_put_events(struct builder *out, const struct sync_events *e);
void sync_put_squeezed(struct builder *out, const struct sync_squeezed *q);
void sync_put_part(struct builder *out, const struct sync_part *p);
void sync_put_welcome(struct builder *out, const struct sync_welcome *w);
void sync_put_resync(struct builder *out, const struct sync_welcome *w);
void sync_put_route(struct builder *out, const struct sync_route *r);
void sync_put_ack(struct builder *out, const struct sync_ack *a);
void sync_put_attest(struct builder *out, const struct sync_attest *a); /* UP_ATTEST or DOWN_ATTEST, by the word */

enum message_kind sync_kind(struct bytes content); /* 0 when it cannot be read */
/* Slices borrow from content.  E_BAD_CBOR, E_BAD_MESSAGE. */
enum grey_error sync_get_hello(struct bytes content, struct sync_hello *h);
/* items and gaps: room for SYNC_ITEMS_MAX and SYNC_GAPS_MAX, filled and pointed to by e.  Checks order and complete cover. */
enum grey_error sync_get_events(struct bytes content, struct sync_events *e, struct sync_item *items, struct sync_gap *gaps);
enum grey_error sync_get_part(struct bytes content, struct sync_part *p);
enum grey_error sync_get_squeezed(struct bytes content, struct sync_squeezed *q);
enum grey_error sync_get_welcome(struct bytes content, struct sync_welcome *w);
enum grey_error sync_get_resync(struct bytes content, struct sync_welcome *w);
enum grey_error sync_get_route(struct bytes content, struct sync_route *r);
enum grey_error sync_get_ack(struct bytes content, struct sync_ack *a);
enum grey_error sync_get_attest(struct bytes content, struct sync_attest *a); /* the word goes the way that the kind says */

/* Topics.  out: TOPIC_BYTES_MAX. */
void sync_topic(char out[TOPIC_BYTES_MAX], const char *site, bool up, enum event_channel c);
void sync_topic_routed(char out[TOPIC_BYTES_MAX], const char *site, enum event_channel c,
                       const char *route); /* up; route "": none */
/* "grey/v2/{site}/up/{channel}", up also with "/{route}" behind it; false when it is not of that form. */
bool sync_topic_parse(const char *topic, bool up, struct grey_name *site, enum event_channel *c);

#endif
