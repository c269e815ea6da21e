/* peers.h: links to the other gateways of the site: Grey frames over (mutual TLS on) TCP, one duplex link per pair.
 *
 * Both sides say hello first; a link is up when site, cluster and certificate agree.  Either side dials a member it has no link to; when both
 * did at once, the link dialled by the larger raft id stays; otherwise the later one, for whoever dialled it has lost the earlier.  What is sent
 * in one turn of the loop leaves in one write.
 * Thread: the loop's. */
#ifndef AGENT_PEERS_H
#define AGENT_PEERS_H

#include "federation/message.h"
#include "platform/conn.h"

struct peers;

struct peers_options {
    const char *listen_address;    /* NULL: none (a site of one) */
    const char *advertise_address; /* what others dial */
    const char *http_address;
    const struct conn_tls *tls; /* NULL: plain */
    raft_id self;
    uint64_t cluster_id, start_count;
    const char *site, *node;
    size_t output_limit_bytes; /* per link; above it messages are dropped: Raft sends again */
};

struct peers_events {
    void (*up)(void *context, raft_id id, uint64_t start_count); /* may be a stranger that wants to join */
    void (*down)(void *context, raft_id id);
    void (*message)(void *context, raft_id from, const struct message *m); /* m lent; never HELLO */
    /* A peer showed its cluster while we belong to none: remember it if we are to join it. */
    void (*cluster_seen)(void *context, uint64_t cluster_id);
};

struct peers *peers_new(const struct conn_context *x, const struct peers_options *o, const struct peers_events *events,
                        void *context, struct fault *f);
void peers_free(struct peers *p);
void peers_set_cluster(struct peers *p, uint64_t cluster_id);
/* Whom to keep links to, and what each is called. */
void peers_set_members(struct peers *p, const struct raft_members *members);
/* Dials these addresses too, until peers_no_seeds: nobody knows yet who lives there. */
void peers_set_seeds(struct peers *p, const char *addresses_comma_separated);
void peers_add_seed(struct peers *p, struct bytes address);
void peers_no_seeds(struct peers *p);

/* Queues m for the link to `to`; false when there is none or its buffer is full.  peers_flush writes what this turn queued. */
bool peers_send(struct peers *p, raft_id to, const struct message *m);
void peers_flush(struct peers *p);
bool peers_up(const struct peers *p, raft_id to);
uint32_t peers_feature_level(const struct peers *p, raft_id id);      /* what it said in its hello; 0: no link is up */
size_t peers_up_ids(const struct peers *p, raft_id *out, size_t max); /* all links that are up, also to strangers */
/* Somebody is being called who has not said hello, nor that he is not there: he may be slow, off, or behind a firewall. */
bool peers_unheard(const struct peers *p);

void peers_check_certificates(struct peers *p); /* revoked ones became known: ends the links of those who have them */

struct peers_link {
    raft_id id;
    struct grey_name node;
    char address[LIMIT_ADDRESS_BYTES + 1];
    bool up, tls;
    uint64_t in_bytes, out_bytes, last_heard_ms;
    uint32_t output_bytes;
    char last_error[120];
};
size_t peers_links(const struct peers *p, struct peers_link *out, size_t max);
uint64_t peers_dropped(const struct peers *p); /* messages dropped because a buffer was full */

#endif
