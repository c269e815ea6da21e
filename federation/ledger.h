/* ledger.h: who spent the bytes of the link to the core: each byte on the wire belongs to one feature, and the sum is the whole.
 *
 * What a feature asked to be carried is noted when it is handed over; what the wire really carried, with MQTT, TLS, headers and
 * acknowledgements, is counted later (platform/conn.h) and given to the features in proportion to what they had under way.  Bytes that
 * move while nobody has anything under way, nor had a moment ago, keep the session alive: they are the session's.  Pure; time is
 * given. */
#ifndef FEDERATION_LEDGER_H
#define FEDERATION_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "include/grey/event.h"

enum ledger_feature {
    LEDGER_CONTROL, /* by channel: events, with the core's word about them */
    LEDGER_EVENTS,
    LEDGER_DATA,
    LEDGER_ATTESTATION,
    LEDGER_TRACES,
    LEDGER_LOGS,
    LEDGER_HANDSHAKES, /* until the broker has taken the connection: TCP, TLS, MQTT */
    LEDGER_RESENDS,    /* events that were sent before, packets that were lost */
    LEDGER_SESSION,    /* hello, welcome, keep-alive */
    LEDGER_FEATURES,
};
#define LEDGER_TRAIL_MS 3000u /* acknowledgements of the network come so late at the most */
enum ledger_way { LEDGER_UP, LEDGER_DOWN, LEDGER_WAYS };

struct ledger {
    uint64_t bytes[LEDGER_WAYS][LEDGER_FEATURES];     /* on the wire, since the start */
    uint64_t under_way[LEDGER_WAYS][LEDGER_FEATURES]; /* handed over, not seen on the wire yet */
    uint64_t last[LEDGER_WAYS][LEDGER_FEATURES];      /* shares of the last that was seen: what trails behind it is theirs */
    uint64_t last_ms[LEDGER_WAYS];
};

static inline enum ledger_feature ledger_of_channel(enum event_channel c) {
    return (enum ledger_feature)(LEDGER_CONTROL + (int)c);
}
const char *ledger_feature_name(enum ledger_feature f); /* "control" */

/* f has handed over so many bytes (up), or they have arrived (down). */
void ledger_note(struct ledger *l, enum ledger_way w, enum ledger_feature f, uint64_t bytes);
/* So many bytes moved on the wire since the last call. */
void ledger_wire(struct ledger *l, enum ledger_way w, uint64_t bytes, uint64_t now_ms);
/* Bytes on the wire of which it is known whose they are. */
void ledger_direct(struct ledger *l, enum ledger_way w, enum ledger_feature f, uint64_t bytes);
/* The connection is gone: what was under way will not be seen any more. */
void ledger_cut(struct ledger *l);
uint64_t ledger_total(const struct ledger *l, enum ledger_way w);

#endif
