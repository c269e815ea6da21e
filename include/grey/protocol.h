/* protocol.h: constants of Grey Protocol v2 that gateways and core share (docs/PROTOCOL.md). */
#ifndef GREY_PROTOCOL_H
#define GREY_PROTOCOL_H

#define FRAME_MAGIC "GREY"
#define FRAME_VERSION 2u
#define FRAME_HEADER_BYTES                                                                                                         \
    32u /* magic 4, version 2, flags 2, message id 8, time stamp ns 8, payload length 4, [payload], CRC-32 4 */
#define FRAME_OVERHEAD_BYTES FRAME_HEADER_BYTES
#define FRAME_FLAG_COMPRESSED 0x0001u /* payload: u32 size of the content, then an LZ4 block */
#define FRAME_FLAG_ENCRYPTED 0x0002u  /* between site and core: federation/envelope.h */
#define FRAME_FLAG_PRIORITY 0x0004u
#define FRAME_FLAG_IDEMPOTENT 0x0008u
#define FRAME_FLAGS_KNOWN 0x000fu

#define FEATURE_LEVEL 6u         /* said in the hello; raised in the log only when all members have it */
#define FEATURE_LEVEL_TASKS 2u   /* from here on the log may hold entries of tasks, quotas and nodes */
#define FEATURE_LEVEL_OBJECTS 3u /* from here on it may hold objects of the core */
#define FEATURE_LEVEL_PROOFS                                                                                                       \
    4u /* from here on reports of tasks may hold proofs, orders health probes, and their rows more fields */
#define FEATURE_LEVEL_ORIGIN                                                                                                       \
    5u /* from here on it may hold tokens and notes, and say who asked for an entry (federation/origin.h) */
#define FEATURE_LEVEL_IMAGES 6u /* from here on orders of tasks may name images, files, bounds of I/O, namespaces and how to stop */
#define FEATURE_LEVEL_UPDATES 6u  /* from here on it may hold updates of programs, and what is said of them */
#define FEATURE_LEVEL_OFFLOAD 6u  /* from here on orders may have zones, and tasks may be with the core */
#define FEATURE_LEVEL_VOUCH 6u    /* from here on gateways give each other certificates while the core is away (platform/vouch.h) */
#define FEATURE_LEVEL_HANDOVER 6u /* from here on gateways ask each other whether they reach the core */
#define FEATURE_LEVEL_LINK 6u     /* from here on they ask their leader how the link to the core is */
#define FEATURE_LEVEL_VERDICTS 6u /* from here on it may hold verdicts on gateways (agent/state/verdicts.h) */
#define FEATURE_LEVEL_BRIEF_ORIGIN 6u /* from here on what says who asked for an entry may leave out what is usual */
#define UP_LEVEL 2u                   /* said in UP_HELLO; from 2 on a site reads the codings in DOWN_WELCOME, and DOWN_ROUTE */
#define UP_LEVEL_CODINGS 2u
#define UP_LEVEL_ROUTES 2u
#define CODING_SQUEEZE 1u   /* codings of DOWN_WELCOME, bits: the core takes UP_SQUEEZED */
#define CODING_GAP_BYTES 2u /* ... and gaps with their bytes */
#define CODING_PARTS 4u     /* ... and UP_PART: large frames in parts, so that what is urgent can go between */
#define CODING_OBJECTS 8u   /* ... and UP_HOLDINGS, UP_PULL: it has configs, policies and data to give */
#define CODING_CERTIFY 16u  /* ... and UP_CERTIFY: it renews certificates */
#define CODING_OFFLOAD 32u  /* ... and tasks (federation/offload.h): it has a worker */
#define CODING_ATTEST 64u   /* ... and UP_ATTEST: it judges gateways */

/* Topics: grey/v2/{site}/up/{channel} and grey/v2/{site}/down/{channel}, channel as event_channel_name. */
#define TOPIC_PREFIX "grey/v2/"
#define TOPIC_BYTES_MAX 128u
/* Where several cores share the work, what follows a hello goes to the one that answered it: grey/v2/{site}/up/{channel}/{route}. */
#define ROUTE_BYTES_MAX 16u

/* The first item of a frame's payload, a CBOR array, is its kind.  Numbers are never reused. */
enum message_kind {
    /* between gateways of a site: federation/message.h */
    MESSAGE_HELLO = 1,
    MESSAGE_RAFT = 2,
    MESSAGE_FORWARD = 3,
    MESSAGE_FORWARD_REPLY = 4,
    MESSAGE_JOIN = 5,
    MESSAGE_JOIN_REPLY = 6,
    MESSAGE_SNAPSHOT_FETCH = 7,
    MESSAGE_SNAPSHOT_CHUNK = 8,
    MESSAGE_PAYLOAD_FETCH = 9,
    MESSAGE_PAYLOADS = 10,
    MESSAGE_PART = 11, /* a piece of a message above LIMIT_FRAME_PAYLOAD_BYTES */
    MESSAGE_CLOCK = 12,
    MESSAGE_STATE_HASH = 14,
    MESSAGE_SEAL = 15,
    MESSAGE_MEND_FETCH = 16,
    MESSAGE_MEND_ROWS = 17,
    MESSAGE_OUTPUT_FETCH = 18,
    MESSAGE_OUTPUT = 19,
    MESSAGE_ATTEST = 20,
    MESSAGE_REACH_ASK = 21, /* this and the next: federation/handover.h */
    MESSAGE_REACH = 22,
    MESSAGE_LINK_ASK = 23,
    MESSAGE_LINK = 24,
    /* between site and core: federation/sync.h */
    MESSAGE_UP_HELLO = 64,
    MESSAGE_UP_EVENTS = 65,
    MESSAGE_UP_BYE = 66,
    MESSAGE_UP_SQUEEZED = 67,
    MESSAGE_UP_PART = 68,
    MESSAGE_UP_HOLDINGS = 69, /* this and the next: federation/supply.h */
    MESSAGE_UP_PULL = 70,
    MESSAGE_UP_CERTIFY = 71,      /* federation/certify.h */
    MESSAGE_UP_ATTEST = 72,       /* federation/attest/exchange.h, as 87 */
    MESSAGE_UP_SEALED_HELLO = 79, /* federation/handshake.h, as 95 */
    MESSAGE_DOWN_WELCOME = 80,
    MESSAGE_DOWN_ACK = 81,
    MESSAGE_DOWN_RESYNC = 82,
    MESSAGE_DOWN_ROUTE = 83,
    MESSAGE_DOWN_OFFER = 84, /* this and the next: federation/supply.h */
    MESSAGE_DOWN_CHUNK = 85,
    MESSAGE_DOWN_CERTIFIED = 86, /* federation/certify.h */
    MESSAGE_DOWN_ATTEST = 87,
    MESSAGE_DOWN_RESULT = 88, /* federation/offload.h */
    MESSAGE_DOWN_SEALED_WELCOME = 95,
};

#endif
