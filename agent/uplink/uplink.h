/* uplink.h: the leader's link to the core: publishes the outbox by priority, hands the core's acknowledgements to the log.
 *
 * Only the site's leader has one running (uplink_lead); it goes on from the last acknowledged number of each channel, so a change of
 * leadership repeats at most what was not acknowledged, and the core drops that.  Thread: the loop's. */
#ifndef AGENT_UPLINK_H
#define AGENT_UPLINK_H

#include "agent/node/node.h"
#include "federation/attest/exchange.h"
#include "federation/budget.h"
#include "federation/ledger.h"
#include "federation/window.h"
#include "platform/conn.h"
#include "platform/keys.h"

struct uplink;

/* What the link may carry and cost. */
struct uplink_bandwidth {
    uint64_t up_bytes_per_s, down_bytes_per_s; /* 0: no limit */
    struct window windows[WINDOWS_MAX];        /* in the time zone of the process */
    uint32_t window_count;
    struct budget_rules budget;
    uint32_t month_begins_day;      /* of the budget: 1 to 28 */
    bool privileged[CHANNEL_COUNT]; /* go on in windows that forbid them and when the budget is spent; control always does */
};
#define UPLINK_ENDPOINTS_MAX 8u

struct uplink_options {
    const char *const *endpoints;   /* "host:port"; copied */
    const uint32_t *priorities;     /* of each; lower is better; copied */
    uint32_t endpoint_count;        /* at most UPLINK_ENDPOINTS_MAX */
    uint32_t failback_s;            /* a better endpoint must have been good for so long; above 0 */
    uint32_t handover_s;            /* leadership goes to a neighbour with a link when this one has none for so long; 0: never */
    const char *proxy, *proxy_auth; /* "host:port" and a file with user:password; NULL or "": none; copied */
    bool offer;                     /* ALPN on port 443 */
    const struct conn_tls *tls;     /* NULL: plain MQTT, loopback only */
    const char *node, *data_dir;
    const char *root;       /* partition of the root that runs; "": none.  Read, for what comes of another one */
    uint32_t keepalive_s;   /* at most; shorter where the path forgets idle links */
    uint32_t window_frames; /* frames not acknowledged by the core */
    struct uplink_bandwidth bandwidth;
    bool
        seal; /* end to end, where there is a core_key; with cert_path and key_path: PEM of this gateway, read at each hello, copied */
    const char *cert_path, *key_path;
    bool has_core_key; /* else nothing that the core gives is taken */
    uint8_t core_key[KEYS_ED25519_PUBLIC_BYTES];
};

/* node: borrowed for the life of the uplink.  Starts idle. */
struct uplink *uplink_new(const struct conn_context *x, const struct uplink_options *o, struct node *node, struct fault *f);
void uplink_free(struct uplink *u);
void uplink_lead(struct uplink *u, grey_epoch epoch);                          /* this node leads: connect and publish */
void uplink_follow(struct uplink *u);                                          /* no more: disconnect */
void uplink_wake(struct uplink *u);                                            /* the outbox or an acknowledged position changed */
void uplink_set_bandwidth(struct uplink *u, const struct uplink_bandwidth *b); /* from now on */

#define UPLINK_ERROR_BYTES 280u

struct uplink_endpoint_facts {
    const char *address, *breaker; /* breaker: closed, open or half-open */
    uint32_t priority, failures;
    uint32_t keepalive_s; /* that the next connection will ask for */
    int64_t open_ms;      /* the breaker opens the way in so long */
    bool in_use;
};

struct uplink_facts {
    bool up; /* connected, and the core welcomed this session */
    const char *endpoint;
    int64_t last_contact_unix_ms;        /* last word of the core; 0: never since start */
    uint64_t sent_bytes, received_bytes; /* on the wire: TLS and MQTT included */
    const char *stage;                   /* off, waiting, dialling, tls, mqtt, hello, up */
    int64_t stage_ms;                    /* in it for so long */
    int64_t next_try_ms;                 /* from now; -1: none is planned */
    uint32_t keepalive_s;                /* in force; 0: not connected */
    bool sealed;                         /* this session is, end to end */
    bool resumed;                        /* the TLS session of this connection went on with one before */
    uint32_t handshake_bytes;
    const char *proxy; /* "": none */
    struct uplink_endpoint_facts endpoints[UPLINK_ENDPOINTS_MAX];
    uint32_t endpoint_count;
    uint32_t credit_bytes; /* what the core lets this site have on the way; 0: not up */
    uint64_t on_way_bytes; /* and what is */
    char last_error[UPLINK_ERROR_BYTES];
    uint64_t handover_questions; /* to neighbours, since start */
    int64_t handover_ms;         /* until the next one may be asked; -1: the link is good, or this node does not lead */
    const char *handed_to;       /* last since start; "": nobody */
    int64_t handed_unix_ms;
    /* Of the time that this node has led since its start, on the wire with all headers; lent until the next turn. */
    const struct ledger *ledger;
    const struct uplink_bandwidth *bandwidth; /* as configured */
    const struct window_rule *rule;           /* as it holds now */
    const struct budget_used *used;
    bool held[CHANNEL_COUNT]; /* by a window or a spent budget */
};
void uplink_facts(const struct uplink *u, struct uplink_facts *out);

/* A gateway's request for a certificate, which stands in the log, goes to the core; its answer becomes an entry (federation/certify.h).
 * Nothing happens unless this node leads and a core that certifies has welcomed it: who needs one asks again. */
void uplink_certify(struct uplink *u, struct bytes request);

/* MESSAGE_REACH_ASK or MESSAGE_REACH of a member (federation/handover.h). */
void uplink_heard(struct uplink *u, raft_id from, const struct message *m);
/* Words between gateways of this site and the core's verifier (federation/attest/exchange.h).  ready: a core that judges has welcomed this
 * session; heard: what it says to a gateway.  Both in the middle of the uplink's work: a word may be said in them, the uplink not freed. */
struct uplink_attest_events {
    void (*ready)(void *context);
    void (*heard)(void *context, struct bytes node, enum exchange_word word, struct bytes body);
};
void uplink_on_attest(struct uplink *u, const struct uplink_attest_events *events, void *context);
/* False: not now.  Nobody says it again. */
bool uplink_attest(struct uplink *u, struct bytes node, enum exchange_word word, struct bytes body);

/* An operator has reason to hope (the line was mended): tries now instead of at the next time planned.  False: this node does not
 * lead. */
bool uplink_hurry(struct uplink *u);

#endif
