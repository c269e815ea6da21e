/* peers_core.h: the inside of the links to other gateways, for the two sources that share it and for nobody else:
 *   peers.c       whom to have a link to: members, seeds, when to dial; what others ask and send
 *   peers_link.c  one link: its slot, the hello, messages in frames and pieces, refusal and end
 * Thread: the loop's. */
#ifndef AGENT_PEERS_CORE_H
#define AGENT_PEERS_CORE_H

#include <string.h>

#include "agent/node/peers.h"

/* A stranger may hold a slot while it asks to join, and a pair may have two links for a moment. */
#define LINKS_MAX (3u * LIMIT_MEMBERS)
#define SEEDS_MAX 8u
#define DIAL_EVERY_MS 200u /* first try; doubles up to */
#define MESSAGE_BYTES_MAX                                                                                                          \
    (LIMIT_PAYLOAD_BYTES + 2u * LIMIT_FRAME_PAYLOAD_BYTES) /* an append with one full batch, or a window of small ones */

struct link {
    struct peers *owner;
    struct conn *conn; /* NULL: the slot is free */
    raft_id id;        /* 0 before the hello */
    struct grey_name node;
    bool dialled, up, hello_sent;
    uint32_t feature_level;                /* as its hello said */
    uint64_t start_count;                  /* likewise */
    char address[LIMIT_ADDRESS_BYTES + 1]; /* that we dialled, or where it comes from */
    struct builder out, part;
    uint64_t part_total, next_message_id, opened_ms, up_ms, last_heard_ms;
};

struct target { /* whom we dial */
    char address[LIMIT_ADDRESS_BYTES + 1];
    raft_id id; /* 0: a seed */
    struct grey_name node;
    uint64_t next_dial_ms;
    uint32_t dial_every_ms;
    char last_error[120];
};

struct peers {
    struct conn_context x;
    struct peers_options options;
    char site[LIMIT_NAME_BYTES + 1], node[LIMIT_NAME_BYTES + 1];
    char advertise[LIMIT_ADDRESS_BYTES + 1], http_address[LIMIT_ADDRESS_BYTES + 1];
    const struct peers_events *events;
    void *context;
    struct conn_listener *listener;
    struct loop_timer timer;
    struct link links[LINKS_MAX];
    struct target members[LIMIT_MEMBERS], seeds[SEEDS_MAX];
    uint32_t member_count, seed_count;
    uint64_t dropped;
    uint64_t silent_ms; /* when the last of our calls ended without a word from there, nor a quick no; 0: none did */
    struct builder scratch, content;
};

/* Registers the metrics of all links. */
void peers_link_register(void);

/* A free slot, to be filled by the caller; NULL: all are taken. */
struct link *peers_link_new(struct peers *p);
/* Options for a conn that belongs to k: its bytes go to the link at once. */
struct conn_options peers_link_options(struct link *k);
/* For conn_listen: each accepted conn gets a slot when it is open. */
bool peers_link_accept(void *context, struct conn_options *o);
/* Forgets the link; the conn itself is closed by the caller or has closed by itself.  Calls down() when it was up. */
void peers_link_drop(struct link *k);
/* Closes a link that has not said hello within twice the time for it. */
void peers_link_revoked(struct link *k); /* its certificate is: the link ends */
void peers_link_expire(struct link *k, uint64_t now_ms);
/* The link to id that is up, or NULL. */
struct link *peers_link_find(const struct peers *p, raft_id id);

void peers_link_hello(struct link *k);
/* Queues m; when there is no room, p->dropped counts it and what was queued before stays whole. */
void peers_link_queue(struct link *k, const struct message *m);
/* Gives the conn what is queued, in one write. */
void peers_link_flush(struct link *k);

/* In peers.c: the member or seed that k is a link to, by id or by the address that was dialled; NULL: a stranger. */
struct target *peers_target(struct peers *p, const struct link *k);

/* Cuts what is too long. */
static inline void peers_copy_text(char *out, size_t out_size, struct bytes text) {
    size_t size = text.size < out_size - 1 ? text.size : out_size - 1;
    if (size > 0) {
        memcpy(out, text.data, size);
    }
    out[size] = 0;
}

#endif
