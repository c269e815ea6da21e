#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/keys.h"
#include "platform/log.h"

#define DUTY_MS 1000u
#define INVITATION_MS (600u * 1000u)
#define BOOTSTRAP_WAIT_MS 3000u     /* for word from the seeds that a cluster exists already, and */
#define BOOTSTRAP_UNHEARD_MS 12000u /* so much longer for those who are called and say nothing */
#define PROMOTE_LAG_ENTRIES 256u    /* a learner this close behind becomes a voter */

static void self_member(const struct node *n, struct raft_member *m) {
    *m = (struct raft_member){.id = n->self, .voter = true, .node = n->name};
    memcpy(m->peer_address, n->peer_address, sizeof m->peer_address);
    memcpy(m->http_address, n->http_address, sizeof m->http_address);
    memcpy(m->sign_key, n->sealing.signer.public_key, sizeof m->sign_key);
}

static void bootstrap_flushed(void *context, struct sitelog_flush *job) {
    struct node *n = context;
    if (job->changes.count > 0) {
        table_flush_done(n->table, job->err == E_OK);
    }
    if (job->err != E_OK) {
        node_fail(n, job->err, job->fault.text);
    } else {
        /* A fresh core that knows its group; the one before it had heard nothing, and promised nothing to others. */
        struct raft_status s;
        raft_status(n->raft, &s);
        struct raft_start start = {.term = s.term,
                                   .vote = s.vote,
                                   .base = n->restored,
                                   .window_base = n->restored,
                                   .applied_index = n->restored.index,
                                   .members = &n->members,
                                   .members_index = n->restored.index};
        struct raft *raft = raft_new(&n->raft_config, &start, loop_now_ms(n->x.loop));
        if (raft == NULL) {
            node_fail(n, E_NO_MEMORY, "bootstrap");
        } else {
            raft_free(n->raft);
            n->raft = raft;
            n->upkeep.snapshot_due =
                n->restored.index > 0; /* the file that it came from is not here, and others will ask for one */
            log_info("node", "bootstrap", "cluster=%016" PRIx64 " site=%s node=%s", n->cluster_id, n->site.text, n->name.text);
        }
    }
    mem_free(job);
    loop_again(n->x.loop);
}

static void begin(struct node *n);

/* Others are told what this node could not forget any more: who hears of a cluster joins it, and no other. */
static void cluster_stored(void *context, struct sitelog_store *job) {
    struct node *n = context;
    if (job->err != E_OK) {
        node_fail(n, job->err, job->fault.text);
    } else {
        if (n->peers != NULL) {
            peers_set_cluster(n->peers, n->cluster_id);
        }
        if (job->vote_given) {
            begin(n);
        }
    }
    mem_free(job);
}

/* begins: the cluster is this node's own, which votes for itself in its first term: so its next start knows that it is. */
static void remember_cluster(struct node *n, uint64_t cluster_id, bool begins) {
    struct sitelog_store *job = mem_new(1, sizeof *job);
    if (job == NULL) {
        node_fail(n, E_NO_MEMORY, "cluster id");
        return;
    }
    struct raft_status s;
    raft_status(n->raft, &s);
    builder_init(&job->wants, 0);
    job->cluster_id = cluster_id;
    job->vote_given = begins;
    job->term = s.term + 1;
    job->vote = n->self;
    job->done = cluster_stored;
    job->context = n;
    n->cluster_id = cluster_id;
    if (sitelog_store(n->log, job) != E_OK) {
        node_fail(n, E_BUSY, "cluster id");
    }
}

static void begin(struct node *n) {
    uint64_t incarnation = 0;
    struct site_facts site;
    keys_random(&incarnation, sizeof incarnation);
    if (state_site(n->state, &site) && state_begin_incarnation(n->state, n->cluster_id, incarnation >> 1 | 1) != E_OK) {
        node_fail(n, E_NO_MEMORY, "bootstrap");
        return;
    }
    struct raft_member self;
    struct raft_members members = {0};
    self_member(n, &self);
    must(raft_members_put(&members, &self) == E_OK);
    node_set_members(n, &members, n->restored.index);
    struct sitelog_flush *job = mem_new(1, sizeof *job);
    if (job == NULL) {
        node_fail(n, E_NO_MEMORY, "bootstrap");
        return;
    }
    if (table_flush_begin(n->table, &job->changes) != E_OK) {
        mem_free(job);
        node_fail(n, E_NO_MEMORY, "bootstrap");
        return;
    }
    job->members = n->members_blob;
    job->members_index = n->restored.index;
    job->applied = n->restored;
    memcpy(job->state_hash, n->restored_hash, DIGEST_BYTES);
    job->done = bootstrap_flushed;
    job->context = n;
    if (sitelog_flush(n->log, job) != E_OK) {
        node_fail(n, E_BUSY, "bootstrap");
    }
}

/* Order on disk: cluster id and vote first, then the membership.  A crash in between leaves a directory that neither leads nor has
 * promised anything, and the next start goes on: under the same id, which others may have heard. */
static void bootstrap(struct node *n) {
    n->undecided_until_ms = 0;
    if (n->cluster_id != 0) {
        begin(n);
        return;
    }
    uint64_t chance = 0;
    keys_random(&chance, sizeof chance);
    remember_cluster(n, chance >> 1 | 1, true);
}

void membership_decide(struct node *n, const struct sitelog_start *start) {
    bool none = start->raft.members == NULL && start->raft.entry_count == 0 && !start->rejoining;
    /* Who knows of a cluster that it did not begin was about to join it when it stopped. */
    bool begun = start->cluster_id != 0 && start->raft.vote == start->self;
    if (none && begun) {
        bootstrap(n);
    } else if (none && n->o.bootstrap && start->cluster_id == 0 && !n->o.witness) {
        if (n->seeds[0] == 0) {
            bootstrap(n);
        } else {
            n->undecided_until_ms = loop_now_ms(n->x.loop) + BOOTSTRAP_WAIT_MS;
        }
    }
}

static bool is_member(struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    return raft_members_find(s.members, n->self) != NULL;
}

/* A node that was a member and is none any more was removed: it would come back under its old identity, with promises that nobody
 * remembers.  With an empty directory it is a new one, and may. */
static bool may_join(struct node *n) {
    return n->undecided_until_ms == 0 && !n->was_member && !is_member(n);
}

static void be_removed(struct node *n) {
    if (!n->removed) {
        n->removed = true;
        log_warn("node", "removed",
                 "this gateway was removed from its site; to take it in again, wipe its data directory and start it");
    }
}

raft_id node_fenced(const struct node *n) {
    return n->fenced;
}

bool node_removed(const struct node *n) {
    return n->removed;
}

void membership_applied(struct node *n) {
    if (raft_members_find(&n->members, n->self) != NULL) {
        n->was_member = true;
        n->removed = false;
    } else if (n->was_member) {
        be_removed(n);
    }
}

/* It was removed while it was away, and does not know. */
void membership_stranger(struct node *n, raft_id from) {
    uint64_t now_ms = loop_now_ms(n->x.loop);
    struct raft_status s;
    raft_status(n->raft, &s);
    if (!n->leading || !s.members_committed || raft_members_find(s.members, from) != NULL || now_ms < n->told_ms + DUTY_MS) {
        return;
    }
    n->told_ms = now_ms;
    struct message m = {.kind = MESSAGE_JOIN_REPLY, .u.join_reply = {.err = E_STALE_MEMBER, .epoch = n->leading_term}};
    (void)peers_send(n->peers, from, &m);
}

void membership_invite(struct node *n, const struct grey_name *name, const char *address) {
    struct invitation *i = NULL;
    for (uint32_t k = 0; k < n->invitation_count; k++) {
        i = strcmp(n->invitations[k].name.text, name->text) == 0 ? &n->invitations[k] : i;
    }
    if (i == NULL && n->invitation_count < LIMIT_MEMBERS) {
        i = &n->invitations[n->invitation_count++];
    }
    if (i != NULL) {
        i->name = *name;
        memcpy(i->address, address, sizeof i->address);
        i->until_ms = loop_now_ms(n->x.loop) + INVITATION_MS;
        log_info("node", "invite", "node=%s address=%s", name->text, i->address);
    }
}

/* Those who have come, or did not come in time, are dialled no more. */
static void dial_invited(struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    for (uint32_t k = 0; k < n->invitation_count;) {
        const struct invitation *i = &n->invitations[k];
        if (raft_members_find_node(s.members, i->name.text) != NULL || loop_now_ms(n->x.loop) >= i->until_ms || n->peers == NULL) {
            n->invitations[k] = n->invitations[--n->invitation_count];
            continue;
        }
        peers_add_seed(n->peers, bytes_str(i->address));
        k++;
    }
}

static void ask_to_join(struct node *n, raft_id whom) {
    struct message m = {.kind = MESSAGE_JOIN,
                        .u.join = {.id = n->self,
                                   .witness = n->o.witness,
                                   .node = bytes_str(n->name.text),
                                   .peer_address = bytes_str(n->peer_address),
                                   .http_address = bytes_str(n->http_address),
                                   .sign_key = bytes_of(n->sealing.signer.public_key, KEYS_ED25519_PUBLIC_BYTES)}};
    (void)peers_send(n->peers, whom, &m);
}

void membership_link_up(struct node *n, raft_id id) {
    if (may_join(n)) {
        ask_to_join(n, id);
    }
}

void membership_cluster_seen(struct node *n, uint64_t cluster_id) {
    n->undecided_until_ms = 0; /* there is a cluster: join it */
    if (n->cluster_id == 0) {
        remember_cluster(n, cluster_id, false);
    }
}

void membership_join_reply(struct node *n, const struct message_join_reply *r) {
    if (r->err == E_STALE_MEMBER) {
        if (n->was_member) {
            be_removed(n);
        }
    } else if (r->err == E_NOT_LEADER && !is_member(n)) {
        peers_add_seed(n->peers, r->leader_address);
    } else {
        log_info("node", "join-reply", "error=GREY-%d %.*s", error_id(r->err), (int)r->detail.size, (const char *)r->detail.data);
    }
}

static void reply_join(struct node *n, raft_id to, enum grey_error err, const char *detail) {
    const struct raft_member *leader = node_member(n, n->leader);
    struct message m = {.kind = MESSAGE_JOIN_REPLY,
                        .u.join_reply = {.err = err,
                                         .epoch = n->leading ? n->leading_term : 0,
                                         .detail = bytes_str(detail),
                                         .leader_address = bytes_str(leader == NULL ? "" : leader->peer_address)}};
    (void)peers_send(n->peers, to, &m);
}

void membership_join(struct node *n, raft_id from, const struct message_join *j) {
    struct raft_status s;
    raft_status(n->raft, &s);
    struct raft_members wanted = *s.members;
    struct raft_member m = {.id = from, .witness = j->witness};
    if (j->id != from || !grey_name_valid((const char *)j->node.data, j->node.size) || j->peer_address.size == 0 ||
        j->peer_address.size > LIMIT_ADDRESS_BYTES || j->http_address.size > LIMIT_ADDRESS_BYTES ||
        j->sign_key.size != RAFT_SIGN_KEY_BYTES) {
        reply_join(n, from, E_BAD_MESSAGE, "name, id, address or key is not valid");
        return;
    }
    if (raft_members_find(s.members, from) != NULL) {
        reply_join(n, from, E_OK, "is a member already");
        return;
    }
    if (s.role != RAFT_LEADER) {
        reply_join(n, from, E_NOT_LEADER, "ask the leader");
        return;
    }
    memcpy(m.node.text, j->node.data, j->node.size);
    memcpy(m.peer_address, j->peer_address.data, j->peer_address.size);
    memcpy(m.http_address, j->http_address.data, j->http_address.size);
    memcpy(m.sign_key, j->sign_key.data, sizeof m.sign_key);
    for (uint32_t i = 0; i < wanted.count; i++) { /* an earlier try of the same node that never became a voter gives way */
        const struct raft_member *w = &wanted.at[i];
        if (strcmp(w->node.text, m.node.text) == 0 && !w->voter && !w->voter_old) {
            raft_members_remove(&wanted, w->id);
            break;
        }
    }
    enum grey_error err = raft_members_put(&wanted, &m);
    if (err == E_OK) {
        struct raft_input in = {.kind = RAFT_IN_MEMBERS, .members = &wanted};
        err = node_step(n, &in, NULL);
    }
    log_info("node", "join", "node=%s id=%016" PRIx64 " address=%s result=%s", m.node.text, from, m.peer_address, error_name(err));
    reply_join(n, from, err, error_sentence(err));
}

/* All learners that have caught up become voters in one change, and each takes the place of its former self. */
static void promote(struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    if (!n->leading || !s.members_committed || raft_members_joint(s.members)) {
        return;
    }
    struct raft_members wanted = *s.members;
    uint32_t count = 0;
    for (uint32_t i = 0; i < s.peer_count; i++) {
        const struct raft_member *m = raft_members_find(s.members, s.peers[i].id);
        if (m == NULL || m->voter || quarantine_holds(n, m->id) || !s.peers[i].active ||
            s.peers[i].match_index + PROMOTE_LAG_ENTRIES < s.last_index) {
            continue;
        }
        struct raft_members next = wanted;
        struct raft_member now_voter = *m;
        now_voter.voter = true;
        must(raft_members_put(&next, &now_voter) == E_OK);
        for (uint32_t k = 0; k < next.count; k++) {
            if (next.at[k].id != m->id && strcmp(next.at[k].node.text, m->node.text) == 0) {
                raft_members_remove(&next, next.at[k].id);
                break;
            }
        }
        if (raft_members_check(&next) != E_OK) {
            log_limited(LOG_WARN, "node", "promote", "node=%s stays a learner: so many %s are too many", now_voter.node.text,
                        now_voter.witness ? "witnesses" : "voters");
            continue;
        }
        wanted = next;
        log_info("node", "promote", "node=%s id=%016" PRIx64, now_voter.node.text, now_voter.id);
        count++;
    }
    if (count > 0) {
        struct raft_input in = {.kind = RAFT_IN_MEMBERS, .members = &wanted};
        enum grey_error err = node_step(n, &in, NULL);
        if (err != E_OK) {
            log_warn("node", "promote", "result=%s", error_name(err));
        }
    }
}

static void on_duty(void *context) {
    struct node *n = context;
    uint64_t now_ms = loop_now_ms(n->x.loop);
    loop_timer_set(n->x.loop, &n->duty, now_ms + DUTY_MS);
    if (n->undecided_until_ms != 0 && now_ms >= n->undecided_until_ms &&
        (n->peers == NULL || !peers_unheard(n->peers) || now_ms >= n->undecided_until_ms + BOOTSTRAP_UNHEARD_MS)) {
        bootstrap(n);
    }
    if (n->peers != NULL && may_join(n)) {
        raft_id up[LIMIT_MEMBERS];
        size_t count = peers_up_ids(n->peers, up, LIMIT_MEMBERS);
        for (size_t i = 0; i < count; i++) {
            ask_to_join(n, up[i]);
        }
    }
    diskwatch_duty(n);
    clockset_keep(n);
    diskcheck_duty(n);
    quarantine_duty(n);
    diskwear_duty(n);
    foreman_duty(n);
    if (n->role == RAFT_LEADER) {
        dial_invited(n);
        promote(n);
        clockset_duty(n);
    } else {
        n->invitation_count = 0;
    }
    ageing_duty(n);
    upkeep_duty(n);
}

void membership_start(struct node *n) {
    clockset_start(n);
    diskwear_start(n);
    ageing_start();
    statehash_start();
    n->duty = (struct loop_timer){.fire = on_duty, .context = n};
    loop_timer_after(n->x.loop, &n->duty, DUTY_MS);
}
