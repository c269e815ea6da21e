/* message.h: what the gateways of a site say to each other, as CBOR arrays [kind, ...] inside Grey frames.  docs/PROTOCOL.md has
 * the fields.  Everything read here was sent by an authenticated peer and is still checked for every bound. */
#ifndef FEDERATION_MESSAGE_H
#define FEDERATION_MESSAGE_H

#include "federation/attest/exchange.h"
#include "federation/raft/raft.h"
#include "federation/seal.h"
#include "include/grey/protocol.h"
#include "platform/codec.h"

/* First on every link, from both sides. */
struct message_hello {
    uint32_t feature_level;
    uint64_t cluster_id; /* 0: belongs to none yet */
    raft_id id;
    uint64_t start_count;
    struct bytes site, node, peer_address, http_address;
};

/* A follower hands a proposal to the leader. */
struct message_forward {
    uint64_t request;
    uint16_t kind, schema;
    bool urgent;
    struct bytes payload;
};
struct message_forward_reply {
    uint64_t request;
    enum grey_error err;
    struct bytes detail, answer;
    raft_index index;
    grey_epoch epoch;
};

/* A node with an empty disk asks to be added. */
struct message_join {
    raft_id id;
    bool witness;
    struct bytes node, peer_address, http_address;
    struct bytes sign_key; /* public, RAFT_SIGN_KEY_BYTES */
};
struct message_join_reply {
    enum grey_error err; /* E_NOT_LEADER: leader_address says whom to ask */
    grey_epoch epoch;    /* of the one who speaks, as leader: E_STALE_MEMBER and E_STATE_DIFFERS are orders; 0: it does not lead */
    struct bytes detail, leader_address;
};

/* To the leader: the hash of the state that this node has after entry `index`. */
struct message_state_hash {
    raft_index index;
    uint8_t hash[DIGEST_BYTES];
};

/* What does your wall clock say? */
struct message_clock {
    bool is_answer;
    int64_t time_ms; /* answer: Unix milliseconds */
};

struct message_snapshot_fetch {
    raft_index index;
    uint64_t offset;
    uint32_t bytes_max;
};
struct message_snapshot_chunk {
    raft_index index;
    uint64_t offset, total_bytes;
    enum grey_error err;
    struct bytes chunk;
};
struct message_payload_fetch {
    raft_index from, to;
    uint32_t bytes_max;
};
/* Entries with index and payload only. */
struct message_payloads {
    raft_index from;
    bool more;
    enum grey_error err;
    struct entry *entries;
    uint32_t entry_count;
};

/* What did that run of a task write?  stream: 0 its standard output, 1 its standard error. */
struct message_output_fetch {
    uint64_t request, token, offset;
    uint32_t stream, bytes_max;
};
struct message_output {
    uint64_t request, offset, end_offset; /* where data begins, and how much was written so far */
    enum grey_error err;
    struct bytes data;
};

/* A word of an exchange between the gateway `node` and the verifier (federation/attest/exchange.h): from the gateway to the leader, or from
 * there to the gateway.  Without a word: the one who hears it gets itself attested anew. */
struct message_attest {
    struct bytes node;
    uint32_t word; /* enum exchange_word; 0: none */
    struct bytes body;
};

/* A gateway whose log is damaged asks for entries and payloads that it lost.  anchor: it has an entry of that term there, which tells whether
 * its log and the other's are the same up to there; 0: what it asks for is committed for sure. */
struct message_mend_fetch {
    raft_index from, to, anchor;
    raft_term anchor_term;
    uint32_t bytes_max;
};
/* What is there, header fields and payload.  from .. to were looked at. */
struct message_mend_rows {
    raft_index from, to, anchor;
    raft_index certain; /* committed for sure */
    bool same;          /* the entry at anchor has that term here */
    bool whole;         /* this log is not damaged */
    struct entry *entries;
    uint32_t entry_count;
};

/* Do you reach a broker of the core?  And the answer, under the same number (federation/handover.h). */
struct message_reach {
    uint64_t number;
    bool reaches; /* of the answer */
};

/* How is the link to the core, which you keep?  And the answer, under the same number, as GET /v1/federation/status has it: an object with
 * its members that are the leader's own.  Empty: this one does not lead. */
#define MESSAGE_LINK_BYTES_MAX 65536u
struct message_link {
    uint64_t number;
    struct bytes json; /* of the answer */
};

struct message {
    enum message_kind kind;
    union {
        struct message_hello hello;
        struct raft_message raft;
        struct message_forward forward;
        struct message_forward_reply forward_reply;
        struct message_join join;
        struct message_join_reply join_reply;
        struct message_clock clock;
        struct message_state_hash state_hash;
        struct seal seal; /* by the leader, of what is committed */
        struct message_snapshot_fetch snapshot_fetch;
        struct message_snapshot_chunk snapshot_chunk;
        struct message_payload_fetch payload_fetch;
        struct message_payloads payloads;
        struct message_output_fetch output_fetch;
        struct message_output output;
        struct message_attest attest;
        struct message_mend_fetch mend_fetch;
        struct message_mend_rows mend_rows;
        struct message_reach reach;
        struct message_link link;
    } u;
    struct raft_members *members; /* made by message_decode, as are owned; freed by message_release */
    struct entry *owned;
    uint32_t owned_count;
};

void message_encode(const struct message *m, struct builder *out);
/* Slices borrow from in.  E_BAD_CBOR, E_BAD_MESSAGE, E_NO_MEMORY; on error nothing is owned. */
enum grey_error message_decode(struct bytes in, struct message *m);
void message_release(struct message *m);

#endif
