/* limits.h: every compile-time bound, what it bounds, and why this number.
 * Bounds that a user may move are configuration keys (docs/CONFIGURATION.md); these are the walls behind them. */
#ifndef GREY_LIMITS_H
#define GREY_LIMITS_H

#include <assert.h>

#define LIMIT_NAME_BYTES 64u     /* node and site ids: they stand in topics, file names and certificates */
#define LIMIT_ADDRESS_BYTES 263u /* "host:port": a DNS name is at most 253 bytes, ":65535" six more, brackets two */
#define LIMIT_PATH_BYTES 1023u   /* file paths from the configuration */

/* Requests of clients (DECISIONS 20) */
#define LIMIT_KEY_BYTES 512u
#define LIMIT_VALUE_BYTES (1024u * 1024u)
#define LIMIT_KEYS 1000000u                      /* of a site: rows of some 100 bytes on each gateway's disk */
#define LIMIT_KEYS_BYTES (1024ull * 1024 * 1024) /* keys and values together: as much as the queue's default */
#define LIMIT_EVENT_BYTES (256u * 1024u)
#define LIMIT_EVENT_FIELD_BYTES 256u /* id, source, type, content type */
#define LIMIT_BATCH_EVENTS 1000u
#define LIMIT_BATCH_BYTES (4u * 1024u * 1024u)

/* The queue for the core */
#define LIMIT_QUEUE_TTLS 8u /* patterns of types with a time to live: each event is matched against all */
#define LIMIT_TYPE_PATTERN_BYTES 64u

/* What the core gives: configs, policies, reference data (federation/object.h) */
#define LIMIT_OBJECTS 64u         /* of a site */
#define LIMIT_OBJECT_CHUNKS 4096u /* of all its objects, in force and coming: 100 bytes each in memory; the bytes are on disk */

/* The log */
#define LIMIT_PAYLOAD_BYTES (LIMIT_BATCH_BYTES + 512u * 1024u) /* a full batch and its framing */
#define LIMIT_MEMBERS 16u                                      /* voters, learners and witnesses of one site, old and new */
#define LIMIT_VOTERS 7u

/* Grey Protocol v2 */
#define LIMIT_FRAME_PAYLOAD_BYTES (1024u * 1024u) /* larger messages are cut into parts */
#define LIMIT_CBOR_DEPTH 16u                      /* our formats need 5 */

/* Connections */
#define LIMIT_HTTP_HEAD_BYTES (16u * 1024u)
#define LIMIT_HTTP_CONNECTIONS 256u

static_assert(LIMIT_EVENT_BYTES <= LIMIT_BATCH_BYTES, "one event fits a batch");
static_assert(LIMIT_VALUE_BYTES + LIMIT_KEY_BYTES + 64u <= LIMIT_PAYLOAD_BYTES, "a value fits an entry");

#endif
