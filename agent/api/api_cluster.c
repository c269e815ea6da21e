/* GET /v1/cluster/..., /v1/raft/status and /v1/debug/...: the site as this gateway sees it, its consensus and its links to the others. */
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/work/phi.h"
#include "platform/now.h"

const char *api_own_role(const struct raft_status *s) {
    return s->role == RAFT_LEADER ? "leader" : s->role == RAFT_FOLLOWER ? "follower" : "candidate";
}

static const char *role_name(const struct raft_status *s, raft_id id) {
    if (id == s->leader && id != 0) {
        return "leader";
    }
    return id == s->self && (s->role == RAFT_CANDIDATE || s->role == RAFT_PRE_CANDIDATE) ? "candidate" : "follower";
}

/* The leader hears from all of them, and goes by how they used to speak once it has heard enough.  A link that broke is told at once:
 * heartbeats are missed only later, and a new leader begins with everybody taken for well. */
static const char *member_state(struct api *a, const struct raft_status *s, const struct raft_member *m) {
    if (m->id == s->self) {
        return "healthy";
    }
    if (node_fenced(a->o.node) == m->id) {
        return "fenced";
    }
    uint32_t milli = 0;
    bool counted = node_phi_milli(a->o.node, m->id, &milli);
    for (uint32_t i = 0; !counted && i < s->peer_count; i++) {
        if (s->role == RAFT_LEADER && s->peers[i].id == m->id && !s->peers[i].active) {
            return "dead";
        }
    }
    struct peers *p = node_peers(a->o.node);
    bool up = p != NULL && peers_up(p, m->id);
    return milli >= PHI_DEAD_MILLI ? "dead" : up && milli < PHI_SUSPECT_MILLI ? "healthy" : "suspect";
}

static void put_members(struct api *a, struct json_writer *w) {
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    json_open(w, '[');
    for (uint32_t i = 0; i < s.members->count; i++) {
        const struct raft_member *m = &s.members->at[i];
        json_open(w, '{');
        json_member_str(w, "id", m->node.text);
        json_member_str(w, "addr", m->peer_address);
        json_member_str(w, "http_addr", m->http_address);
        json_member_str(w, "role", role_name(&s, m->id));
        json_member_str(w, "kind", m->witness ? "witness" : m->voter || m->voter_old ? "voter" : "learner");
        const char *state = member_state(a, &s, m);
        json_member_str(w, "state", strcmp(state, "healthy") == 0 && api_attest_quarantined(a, m->id) ? "quarantined" : state);
        uint32_t phi = 0; /* the leader hears from all of them */
        bool judged = node_phi_milli(a->o.node, m->id, &phi) || (m->id == s.self && s.role == RAFT_LEADER);
        json_member_milli_if(w, "phi", judged, phi);
        json_key(w, "match_index");
        bool known = false;
        for (uint32_t k = 0; k < s.peer_count && s.role == RAFT_LEADER; k++) {
            if (s.peers[k].id == m->id) {
                json_uint(w, s.peers[k].match_index);
                known = true;
            }
        }
        if (!known && m->id == s.self) {
            json_uint(w, s.stored_index);
        } else if (!known) {
            json_none(w);
        }
        json_member_id(w, "raft_id", m->id);
        json_member_str(w, "attestation", api_attest_word(a, m->id));
        json_close(w);
    }
    json_close(w);
}

void api_cluster_members(struct api_call *c) {
    struct api_answer a;
    api_answer_begin(&a);
    put_members(c->api, &a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_cluster_status(struct api_call *c) {
    struct api *api = c->api;
    struct raft_status s;
    node_raft_status(api->o.node, &s);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "site_id", node_site(api->o.node));
    json_member_str(&a.w, "node_id", node_name(api->o.node));
    json_member_str(&a.w, "mode", api->o.mode);
    json_member_str(&a.w, "version", GREY_VERSION);
    json_member_str(&a.w, "role", api_own_role(&s));
    json_member_str(&a.w, "leader_id", node_leader_name(api->o.node));
    json_member_uint(&a.w, "term", s.term);
    json_member_uint(&a.w, "commit_index", s.commit_index);
    json_member_uint(&a.w, "applied_index", node_applied(api->o.node));
    json_member_bool(&a.w, "quorum", node_has_quorum(api->o.node));
    json_key(&a.w, "one_disk");
    if (s.role == RAFT_LEADER) {
        json_bool(&a.w, node_on_one_disk(api->o.node));
    } else {
        json_none(&a.w);
    }
    json_member_milli(&a.w, "uptime_seconds", (int64_t)(loop_now_ms(api->o.loop) - api->started_ms));
    char time_text[32];
    now_format(node_site_time_ms(api->o.node), time_text);
    json_member_str(&a.w, "site_time", time_text);
    json_member_bool(&a.w, "removed", node_removed(api->o.node));
    json_key(&a.w, "members");
    put_members(api, &a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_cluster_leader(struct api_call *c) {
    struct raft_status s;
    node_raft_status(c->api->o.node, &s);
    const struct raft_member *m = node_member(c->api->o.node, s.leader);
    if (m == NULL) {
        api_call_error(c, E_NO_QUORUM, "no leader is known");
        return;
    }
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "leader_id", m->node.text);
    json_member_str(&a.w, "addr", m->peer_address);
    json_member_str(&a.w, "http_addr", m->http_address);
    json_member_uint(&a.w, "term", s.term);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_raft_details(struct api_call *c) {
    struct node *n = c->api->o.node;
    struct raft_status s;
    node_raft_status(n, &s);
    uint8_t hash[DIGEST_BYTES];
    state_hash(node_state(n), hash);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "state", s.role == RAFT_LEADER ? "Leader" : s.role == RAFT_FOLLOWER ? "Follower" : "Candidate");
    json_member_str(&a.w, "role", api_own_role(&s));
    json_member_id(&a.w, "raft_id", s.self);
    json_member_uint(&a.w, "term", s.term);
    json_member_id(&a.w, "voted_for", s.vote);
    json_member_str(&a.w, "leader_id", node_leader_name(n));
    json_member_uint(&a.w, "epoch", s.term);
    json_member_open(&a.w, "log", '{');
    json_member_uint(&a.w, "first_index", s.base_index + 1);
    json_member_uint(&a.w, "last_index", s.last_index);
    json_member_uint(&a.w, "stored_index", s.stored_index);
    json_member_hex(&a.w, "chain_head", bytes_of(s.last_hash, DIGEST_BYTES));
    json_member_int(&a.w, "last_time_ms", s.last_time_ms);
    json_close(&a.w);
    struct seal seal;
    struct sealdb_signer signer;
    sealing_status(n, &seal, &signer);
    json_key(&a.w, "seal");
    if (seal.index == 0) {
        json_none(&a.w);
    } else {
        api_put_seal(&a.w, &seal, signer.node.text);
    }
    json_member_uint(&a.w, "commit_index", s.commit_index);
    json_member_uint(&a.w, "applied_index", node_applied(n));
    json_member_hex(&a.w, "state_hash", bytes_of(hash, DIGEST_BYTES));
    json_member_uint(&a.w, "members_index", s.members_index);
    json_member_uint(&a.w, "requests_waiting", node_requests_waiting(n));
    json_member_open(&a.w, "peers", '[');
    for (uint32_t i = 0; i < s.peer_count && s.role == RAFT_LEADER; i++) {
        static const char *const modes[] = {"probe", "replicate", "snapshot"};
        const struct raft_member *m = raft_members_find(s.members, s.peers[i].id);
        json_open(&a.w, '{');
        json_member_str(&a.w, "id", m == NULL ? "?" : m->node.text);
        json_member_uint(&a.w, "match_index", s.peers[i].match_index);
        json_member_uint(&a.w, "next_index", s.peers[i].next_index);
        json_member_bool(&a.w, "active", s.peers[i].active);
        json_member_str(&a.w, "mode", s.peers[i].mode < 3 ? modes[s.peers[i].mode] : "?");
        json_close(&a.w);
    }
    json_close(&a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_debug_network(struct api_call *c) {
    struct peers *p = node_peers(c->api->o.node);
    struct peers_link links[LIMIT_MEMBERS];
    size_t count = p == NULL ? 0 : peers_links(p, links, LIMIT_MEMBERS);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_open(&a.w, "links", '[');
    for (size_t i = 0; i < count; i++) {
        const struct peers_link *k = &links[i];
        json_open(&a.w, '{');
        json_member_str(&a.w, "peer_id", k->node.text);
        json_member_id(&a.w, "raft_id", k->id);
        json_member_str(&a.w, "addr", k->address);
        json_member_str(&a.w, "state", k->up ? "connected" : "disconnected");
        json_member_bool(&a.w, "tls", k->tls);
        json_member_milli_if(&a.w, "last_seen_seconds", k->last_heard_ms != 0,
                             (int64_t)(loop_now_ms(c->api->o.loop) - k->last_heard_ms));
        uint32_t phi = 0;
        bool judged = node_phi_milli(c->api->o.node, k->id, &phi); /* the leader hears from all of them */
        json_member_milli_if(&a.w, "phi", judged, phi);
        json_member_uint(&a.w, "received_bytes", k->in_bytes);
        json_member_uint(&a.w, "sent_bytes", k->out_bytes);
        json_member_uint(&a.w, "queued_bytes", k->output_bytes);
        json_member_str(&a.w, "last_error", k->last_error);
        json_close(&a.w);
    }
    json_close(&a.w);
    json_member_uint(&a.w, "dropped_messages", p == NULL ? 0 : peers_dropped(p));
    if (c->api->o.uplink != NULL) {
        struct uplink_facts facts;
        uplink_facts(c->api->o.uplink, &facts);
        json_member_open(&a.w, "core", '{');
        api_link_put(&a.w, &facts);
        json_close(&a.w);
    }
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}
