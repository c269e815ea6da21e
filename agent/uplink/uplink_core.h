/* uplink_core.h: the inside of the uplink, for the sources that share it and for nobody else:
 *   uplink.c          life, time, facts
 *   uplink_link.c     which broker, when: dials, leaves, probes; keep-alive, proxy
 *   uplink_session.c  hello and welcome: who speaks, and the core's word
 *   uplink_seal.c     end-to-end encryption: the keys of a session, frames under them
 *   uplink_send.c     what goes next, as which frame, and what the broker has confirmed
 *   uplink_pack.c     events become a frame: squeezed where the core takes that
 *   uplink_parts.c    large frames go in parts, so that what is urgent can go between
 *   uplink_ack.c      the core's acknowledgements become entries of the log
 *   uplink_supply.c   configs, policies and data of the core become entries of the log
 *   uplink_nearby.c   what of them lies on this machine already, in the root that runs
 *   uplink_attest.c   words of attestation
 *   uplink_gate.c     how many bytes may leave now
 *   uplink_meter.c    what they cost: ledger, windows, budgets
 *   uplink_learned.c  what was learned of keep-alives, over restarts
 *   uplink_handover.c leadership goes to a neighbour that reaches a broker when this gateway does not */
#ifndef AGENT_UPLINK_CORE_H
#define AGENT_UPLINK_CORE_H

#include "agent/uplink/gather.h"
#include "agent/uplink/uplink.h"
#include "federation/channel.h"
#include "federation/credit.h"
#include "federation/envelope.h"
#include "federation/handover.h"
#include "federation/handshake.h"
#include "federation/keepalive.h"
#include "federation/reconnect.h"
#include "federation/shaper.h"
#include "federation/squeeze.h"
#include "federation/supply.h"
#include "platform/mqtt.h"
#include "platform/netwatch.h"
#include "platform/probe.h"

#define UPLINK_RETRY_MS 1000u
#define UPLINK_NEARBY_DONE_MAX 8u
#define UPLINK_ON_WAY_MAX 20u         /* publishes that the broker has not confirmed */
#define UPLINK_PATIENCE_MS_MIN 15000u /* the broker has it and the core is silent: ask; doubled each time up to the maximum */

struct uplink_stream {
    struct channel_out out;
    struct uplink *owner;
    grey_seq sent_max;         /* ever, as leader: what is sent below it is sent again */
    bool proposed;             /* an acknowledgement is on its way through the log */
    uint64_t gather_until_ms;  /* nothing is sent before; 0: all was sent */
    uint64_t waiting_since_ms; /* the broker has frames that the core has not acknowledged; 0: none known */
};

/* A publish that the broker has not confirmed. */
struct uplink_on_way {
    int id;
    uint32_t bytes;
    uint64_t sent_ms;
    enum event_channel channel;
};

struct uplink_gate {
    struct shaper shaper, down; /* down: debited with what came; what we send makes the broker and the core answer */
    struct shaper_path path;
    uint64_t charged_bytes; /* on the wire, by grants; each settling sets it to what the wire carried */
    size_t granted;         /* not settled yet */
    uint64_t granted_at_bytes;
    uint64_t answers_bytes; /* that are still to come down for frames on the way */
    bool full;              /* a frame waits for room behind the gate */
    bool calm;              /* as the connection was told */
    struct loop_timer open_timer;
};

struct uplink_meter {
    struct ledger ledger;
    struct conn_wire seen, probed; /* settled so far: all connections, all probes that are over */
    bool connected;                /* the broker has taken this one: what is before is its handshake */
    struct budget_used used, told;
    struct window_rule rule;
    bool held[CHANNEL_COUNT];
};

struct uplink_endpoint {
    char address[LIMIT_ADDRESS_BYTES + 1];
    struct conn_session *session; /* NULL: plain */
    struct keepalive keepalive;
};

/* How events become frames in this session. */
struct uplink_packing {
    struct squeeze *squeeze;           /* NULL: the core does not take it */
    uint32_t session, serial;          /* of the next squeezed frame */
    uint32_t ratio_16;                 /* bytes of records for each byte of a frame, lately, in sixteenths */
    uint32_t wished_bytes, most_bytes; /* of the frame that is being gathered */
};

/* A frame that goes in parts. */
struct uplink_parcel {
    struct builder frame; /* empty: none */
    size_t sent;
    uint64_t number;
    grey_seq to;
};

/* What the core gives in this session. */
struct uplink_supply {
    bool takes;         /* the core has something, and this site would take it */
    uint64_t said;      /* number of the last UP_HOLDINGS; 0: none yet */
    uint32_t proposals; /* of offers and chunks that the node has not answered */
    uint64_t asked_ms, wait_ms;
    uint32_t asked_count, asked_bytes;
    struct {
        uint8_t hash[OBJECT_HASH_BYTES];
        uint32_t bytes;
        bool in_log; /* it came */
    } asked[SUPPLY_PULLS_MAX];
};

/* What is said to the core, and by it, so that nobody between can read or change it. */
struct uplink_seal {
    bool on;     /* this site says nothing to a core that it could not seal */
    bool awaits; /* a hello was said; its handshake waits for the welcome */
    bool ready;  /* the session has keys */
    struct handshake handshake;
    struct envelope_sender up;
    struct envelope_receiver down;
    struct uplink_seal_job *job; /* a hello is being signed */
    char cert_path[LIMIT_PATH_BYTES + 1], key_path[LIMIT_PATH_BYTES + 1];
};

struct uplink_learned {
    char dir[LIMIT_PATH_BYTES + 1];
    struct keepalive_learned kept[UPLINK_ENDPOINTS_MAX]; /* in the file */
};

struct uplink_handover {
    struct handover policy;
    struct loop_timer timer, look_timer;
    struct probe probe; /* for a neighbour */
    uint32_t endpoint;  /* that is looked at */
    raft_id asker;
    uint64_t number;
    char to[LIMIT_NAME_BYTES + 1]; /* who was given leadership last; "": nobody */
    int64_t handed_ms;             /* then, Unix */
};

struct uplink {
    struct conn_context x;
    struct uplink_options o;
    struct node *node;
    struct mqtt *mqtt;
    struct gather *gather;
    struct uplink_bandwidth bandwidth;
    struct uplink_gate gate;
    struct uplink_meter meter;
    char site[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    bool leads, welcomed, hello_due, pumping, stopped;
    bool sized_gaps;    /* the core that welcomed this session takes the bytes of gaps */
    uint32_t proposals; /* acknowledgements, offers, chunks that the node has not answered */
    grey_epoch epoch;
    uint64_t session, gather_session, message_id;
    uint64_t hello_ms, hello_wait_ms, patience_ms, acks_proposed_ms;
    struct uplink_stream streams[CHANNEL_COUNT];
    struct channel_turns turns;
    struct channel_pace pace;
    uint32_t credit_bytes; /* what the core takes beyond what it has acknowledged */
    struct uplink_on_way on_way[UPLINK_ON_WAY_MAX];
    uint32_t on_way_count;
    struct uplink_packing packing;
    bool takes_parts; /* the core does */
    bool certifies;   /* the core does */
    bool judges;      /* the core does */
    const struct uplink_attest_events *attest;
    void *attest_context;
    struct uplink_parcel parcels[CHANNEL_COUNT];
    struct builder frame; /* built and not yet taken by the MQTT client */
    enum event_channel frame_channel;
    grey_seq frame_to;
    struct uplink_supply supply;
    struct uplink_nearby *nearby; /* NULL: nothing is looked for */
    struct {
        char name[LIMIT_NAME_BYTES + 1];
        uint64_t issue;
    } nearby_done[UPLINK_NEARBY_DONE_MAX]; /* the last that were looked for, in this term */
    uint32_t nearby_done_count;
    struct uplink_seal seal;
    struct reconnect reconnect;
    struct uplink_endpoint endpoints[UPLINK_ENDPOINTS_MAX];
    char proxy_address[LIMIT_ADDRESS_BYTES + 1], proxy_auth[LIMIT_PATH_BYTES + 1];
    struct conn_proxy proxy; /* address NULL: none */
    struct probe probe;
    struct uplink_learned learned;
    struct uplink_handover handover;
    struct netwatch netwatch;
    uint64_t hurried_ms; /* because the network came up; 0: never */
    struct loop_timer timer, link_timer, ack_timer;
    int64_t last_contact_ms;
    char last_error[UPLINK_ERROR_BYTES];
    char route[ROUTE_BYTES_MAX + 1]; /* of the core that answered the hello, where several share the work; "": none */
    bool unheard;                    /* nobody listens there any more, or perhaps not: to be asked */
};

/* --- uplink.c ------------------------------------------------------------------------------------------------------------------------- */
struct state *uplink_state(const struct uplink *u);
void uplink_note_error(struct uplink *u, const char *text);

/* --- uplink_link.c -------------------------------------------------------------------------------------------------------------------- */
bool uplink_link_begin(struct uplink *u, struct fault *f);
void uplink_link_end(struct uplink *u);
void uplink_link_start(struct uplink *u);
void uplink_link_stop(struct uplink *u);
void uplink_link_plan(struct uplink *u); /* sets the timer anew, after anything that may change the policy's mind */
void uplink_link_connected(struct uplink *u);
void uplink_link_hello(struct uplink *u);    /* the core's welcome is awaited, from now on */
void uplink_link_answered(struct uplink *u); /* the core has answered */
void uplink_link_stage(void *uplink, enum mqtt_stage s);
void uplink_link_closed(void *uplink, const char *why);
void uplink_link_moved(void *uplink, bool heard);
const struct conn_proxy *uplink_link_proxy(const struct uplink *u); /* NULL: none */
bool uplink_link_offers(const struct uplink *u, const struct uplink_endpoint *e);
void uplink_link_facts(const struct uplink *u, struct uplink_facts *out);

/* --- uplink_session.c ----------------------------------------------------------------------------------------------------------------- */
extern const struct mqtt_events uplink_session_events;
void uplink_session_register(void); /* metrics */
void uplink_session_refused(void);  /* counts a message of the core's side that cannot be right */
void uplink_session_end(struct uplink *u);
/* Says who speaks.  Stays due while the client cannot take it, or while the log does not know the site yet. */
void uplink_session_hello(struct uplink *u);
void uplink_session_again(struct uplink *u, const char *why); /* the session is begun anew on the same connection */
void uplink_session_unheard(struct uplink *u); /* the core that took this session is gone; another one takes it over */
void uplink_session_look(struct uplink *u, uint64_t now_ms); /* is the welcome overdue, or the core gone? */

/* --- uplink_seal.c -------------------------------------------------------------------------------------------------------------------- */
void uplink_seal_begin(struct uplink *u);
void uplink_seal_end(struct uplink *u); /* of the session */
void uplink_seal_free(struct uplink *u);
/* A hello is signed, and goes when that is done.  False: not now. */
bool uplink_seal_hello(struct uplink *u, struct bytes hello);
/* The content of DOWN_SEALED_WELCOME; *welcome lies in scratch.  E_SEALED: not the answer to the last hello. */
enum grey_error uplink_seal_welcome(struct uplink *u, struct bytes content, struct builder *scratch, struct bytes *welcome);
enum grey_error uplink_seal_put(struct uplink *u, enum event_channel c, struct bytes frame, struct builder *out);
/* Opens *f in its place, its payload then in scratch, when it is sealed. */
enum grey_error uplink_seal_get(struct uplink *u, enum event_channel c, struct frame *f, struct builder *scratch);
bool uplink_seal_may_be_plain(const struct uplink *u, enum message_kind kind);

/* --- uplink_send.c -------------------------------------------------------------------------------------------------------------------- */
void uplink_send_register(void);
void uplink_send_pump(struct uplink *u); /* as much as may go now */
void uplink_send_gathered(void *uplink, struct sync_events *e);
void uplink_send_published(void *uplink, int id, const char *refusal);
/* flags: of frame.h.  False: not now. */
bool uplink_send_content(struct uplink *u, enum event_channel c, struct bytes content, uint16_t flags);
bool uplink_send_of(struct uplink *u, enum event_channel c, enum ledger_feature of, struct bytes content, uint16_t flags);
size_t uplink_send_bytes_max(const struct uplink *u); /* of a frame */

/* --- uplink_pack.c -------------------------------------------------------------------------------------------------------------------- */
void uplink_pack_begin(struct uplink *u, uint32_t codings); /* a session begins; codings: the core's */
void uplink_pack_end(struct uplink *u);
void uplink_pack_lost(struct uplink *u); /* the frame made last is not sent: what it taught does not count */
/* So many bytes of records are to be gathered for a frame of about wished_bytes and most_bytes at most. */
uint32_t uplink_pack_wish(struct uplink *u, uint32_t wished_bytes, size_t most_bytes);
/* u->frame holds the events of e, or of its first ones: e is cut to them.  It stays empty when they do not fit. */
void uplink_pack_frame(struct uplink *u, struct sync_events *e);

/* Of a frame with events up to to_seq, or a part of it: to the broker, counted as one of the channel's turns. */
enum grey_error uplink_send_publish(struct uplink *u, enum event_channel c, grey_seq to_seq, struct bytes frame);
void uplink_send_done(struct uplink *u, enum event_channel c, grey_seq to_seq, size_t bytes); /* all of it has gone */

/* --- uplink_parts.c ------------------------------------------------------------------------------------------------------------------- */
bool uplink_parts_take(struct uplink *u); /* u->frame, when it is so large; true: it is in parts now */
bool uplink_parts_wait(const struct uplink *u, enum event_channel c);
bool uplink_parts_any(const struct uplink *u);
bool uplink_parts_send(struct uplink *u, enum event_channel c); /* the next one; false: not now */
void uplink_parts_end(struct uplink *u);                        /* of the session */

/* --- uplink_ack.c --------------------------------------------------------------------------------------------------------------------- */
void uplink_ack_take(struct uplink *u, enum event_channel c, grey_seq seq);
void uplink_ack_propose(struct uplink *u); /* one on its way for each channel, the newest wins */
void uplink_ack_timer(void *uplink);
void uplink_ack_look(struct uplink *u, uint64_t now_ms); /* does the core acknowledge nothing? */
void uplink_ack_release(struct uplink *u);               /* frees u when it was stopped and the node holds nothing of it any more */

/* --- uplink_supply.c ------------------------------------------------------------------------------------------------------------------ */
void uplink_supply_register(void);
void uplink_supply_begin(struct uplink *u, uint32_t codings); /* the core has welcomed this session */
void uplink_supply_offer(struct uplink *u, const struct supply_offer *o);
void uplink_supply_chunk(struct uplink *u, struct bytes content);
void uplink_supply_pump(struct uplink *u); /* says what is in force when that changed, asks for what is missing */
void uplink_supply_look(struct uplink *u, uint64_t now_ms);
bool uplink_supply_busy(const struct uplink *u);
void uplink_supply_found(struct uplink *u, struct bytes content); /* a chunk that need not come from the core */

/* --- uplink_nearby.c ------------------------------------------------------------------------------------------------------------------ */
struct holding;
void uplink_nearby_register(void); /* metrics */
/* What is coming is being looked for in the root that runs, from now on: the core is asked for nothing of it before that is over.  False: it is over, or nothing
 * is to be looked for. */
bool uplink_nearby_awaits(struct uplink *u, const struct holding *h);
void uplink_nearby_look(struct uplink *u);   /* goes on with what had to wait */
void uplink_nearby_forget(struct uplink *u); /* this gateway leads no more */

/* --- uplink_attest.c ------------------------------------------------------------------------------------------------------------------ */
void uplink_attest_begin(struct uplink *u, uint32_t codings); /* the core has welcomed this session */
void uplink_attest_take(struct uplink *u, const struct sync_attest *a);

/* --- uplink_gate.c -------------------------------------------------------------------------------------------------------------------- */
void uplink_gate_begin(struct uplink *u);
void uplink_gate_end(struct uplink *u);
size_t uplink_gate_grant(void *uplink, size_t wanted_bytes); /* the gate of the connection */
void uplink_gate_settle(struct uplink *u, const struct conn_wire *w);
void uplink_gate_sent(struct uplink *u);                       /* a frame */
void uplink_gate_heard(struct uplink *u, uint64_t wire_bytes); /* so much came down */
void uplink_gate_limit(struct uplink *u, uint64_t limit_bytes_per_s);
void uplink_gate_connected(struct uplink *u);
/* False: enough waits behind the gate; the pump is called again when that changes. */
bool uplink_gate_room(struct uplink *u, uint32_t frame_bytes);
uint32_t uplink_gate_leaves_ms(const struct uplink *u, uint32_t frame_bytes); /* by the limit; 0: there is none */

/* --- uplink_learned.c ----------------------------------------------------------------------------------------------------------------- */
void uplink_learned_begin(struct uplink *u); /* reads it */
void uplink_learned_keep(struct uplink *u);  /* writes it, when something is new */

/* --- uplink_handover.c ---------------------------------------------------------------------------------------------------------------- */
void uplink_handover_register(void);
void uplink_handover_begin(struct uplink *u);
void uplink_handover_lead(struct uplink *u);
void uplink_handover_link(struct uplink *u); /* after anything that may have changed the link's stage */
void uplink_handover_follow(struct uplink *u);
void uplink_handover_end(struct uplink *u);

/* --- uplink_meter.c ------------------------------------------------------------------------------------------------------------------- */
void uplink_meter_register(void);
void uplink_meter_lead(struct uplink *u);
void uplink_meter_look(struct uplink *u);   /* now and then: the date, windows, what was spent */
void uplink_meter_settle(struct uplink *u); /* takes note of what the wire carried */
void uplink_meter_connected(struct uplink *u);
void uplink_meter_closed(struct uplink *u);
void uplink_meter_sent(struct uplink *u, enum ledger_feature f, size_t frame_bytes);
void uplink_meter_received(struct uplink *u, enum ledger_feature f, size_t frame_bytes);
bool uplink_meter_holds(struct uplink *u, enum event_channel c);
bool uplink_meter_tell(const struct uplink *u); /* the log should hear of what was spent */
/* What an acknowledgement on its way into the log takes along; NULL: nothing. */
const struct budget_used *uplink_meter_told(struct uplink *u);
void uplink_meter_facts(const struct uplink *u, struct uplink_facts *out);

#endif
