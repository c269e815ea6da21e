#include "agent/node/peers.h"

#include <stdio.h>

#include "agent/node/peers_core.h"
#include "platform/log.h"

#define DIAL_EVERY_MS_MAX 2000u
#define YIELD_MS 600u /* when a link is lost, the side with the smaller raft id leaves the first try to the other */

struct target *peers_target(struct peers *p, const struct link *k) {
    for (uint32_t i = 0; i < p->member_count; i++) {
        if ((k->id != 0 && p->members[i].id == k->id) || (k->dialled && strcmp(p->members[i].address, k->address) == 0)) {
            return &p->members[i];
        }
    }
    for (uint32_t i = 0; i < p->seed_count; i++) {
        if (k->dialled && strcmp(p->seeds[i].address, k->address) == 0) {
            return &p->seeds[i];
        }
    }
    return NULL;
}

static bool dialling(const struct peers *p, const struct target *t) {
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        const struct link *k = &p->links[i];
        if (k->conn == NULL) {
            continue;
        }
        bool replaced = t->id != 0 && k->up && strcmp(k->node.text, t->node.text) == 0; /* its successor answers under its name */
        if (replaced || (t->id != 0 && k->id == t->id) || (k->dialled && strcmp(k->address, t->address) == 0)) {
            return true;
        }
    }
    return false;
}

static void dial(struct peers *p, struct target *t) {
    struct link *k = peers_link_new(p);
    if (k == NULL) {
        return;
    }
    k->dialled = true;
    peers_copy_text(k->address, sizeof k->address, bytes_str(t->address));
    struct conn_options o = peers_link_options(k);
    struct fault f = {0};
    k->conn = conn_dial(&p->x, t->address, &o, &f);
    if (k->conn == NULL) {
        (void)snprintf(t->last_error, sizeof t->last_error, "%.119s", f.text);
        log_limited(LOG_WARN, "peers", "dial", "address=%s error=GREY-%d %s: %s", t->address, error_id(f.code),
                    error_sentence(f.code), f.text);
        peers_link_drop(k);
    }
}

/* A seed that turned out to be a member is dialled as one. */
static bool known_member(const struct peers *p, const struct target *t) {
    for (uint32_t i = 0; i < p->member_count && t->id == 0; i++) {
        if (strcmp(p->members[i].address, t->address) == 0) {
            return true;
        }
    }
    return false;
}

static void tend(struct peers *p, struct target *targets, uint32_t count, uint64_t now_ms, uint64_t *wake_ms) {
    for (uint32_t i = 0; i < count; i++) {
        struct target *t = &targets[i];
        if (known_member(p, t)) {
            continue;
        }
        if (dialling(p, t)) {
            t->next_dial_ms = now_ms + (t->id != 0 && t->id > p->options.self ? YIELD_MS : 0);
            continue;
        }
        if (now_ms >= t->next_dial_ms) {
            t->next_dial_ms = now_ms + t->dial_every_ms;
            t->dial_every_ms = t->dial_every_ms * 2 > DIAL_EVERY_MS_MAX ? DIAL_EVERY_MS_MAX : t->dial_every_ms * 2;
            dial(p, t);
        }
        *wake_ms = t->next_dial_ms < *wake_ms ? t->next_dial_ms : *wake_ms;
    }
}

static void on_timer(void *context) {
    struct peers *p = context;
    uint64_t now_ms = loop_now_ms(p->x.loop);
    uint64_t wake_ms = now_ms + 1000;
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        peers_link_expire(&p->links[i], now_ms);
    }
    tend(p, p->members, p->member_count, now_ms, &wake_ms);
    tend(p, p->seeds, p->seed_count, now_ms, &wake_ms);
    loop_timer_set(p->x.loop, &p->timer, wake_ms > now_ms ? wake_ms : now_ms + 1);
}

struct peers *peers_new(const struct conn_context *x, const struct peers_options *o, const struct peers_events *events,
                        void *context, struct fault *f) {
    peers_link_register();
    struct peers *p = mem_new(1, sizeof *p);
    if (p == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "peers");
        return NULL;
    }
    p->x = *x;
    p->options = *o;
    p->events = events;
    p->context = context;
    peers_copy_text(p->site, sizeof p->site, bytes_str(o->site));
    peers_copy_text(p->node, sizeof p->node, bytes_str(o->node));
    peers_copy_text(p->advertise, sizeof p->advertise, bytes_str(o->advertise_address));
    peers_copy_text(p->http_address, sizeof p->http_address, bytes_str(o->http_address));
    builder_init(&p->scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&p->content, MESSAGE_BYTES_MAX);
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        p->links[i].owner = p;
    }
    p->timer = (struct loop_timer){.fire = on_timer, .context = p};
    if (o->listen_address != NULL) {
        p->listener = conn_listen(x, o->listen_address, peers_link_accept, p, f);
        if (p->listener == NULL) {
            peers_free(p);
            return NULL;
        }
    }
    loop_timer_after(x->loop, &p->timer, 0);
    return p;
}

void peers_free(struct peers *p) {
    if (p == NULL) {
        return;
    }
    loop_timer_cancel(p->x.loop, &p->timer);
    conn_listener_close(p->listener);
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        struct link *k = &p->links[i];
        conn_close(k->conn);
        builder_free(&k->out);
        builder_free(&k->part);
    }
    builder_free(&p->scratch);
    builder_free(&p->content);
    mem_free(p);
}

void peers_set_cluster(struct peers *p, uint64_t cluster_id) {
    p->options.cluster_id = cluster_id;
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        if (p->links[i].up) {
            peers_link_hello(&p->links[i]); /* its first one named none */
        }
    }
}

static void set_target(struct target *t, const char *address, raft_id id, const char *node) {
    *t = (struct target){.id = id, .dial_every_ms = DIAL_EVERY_MS};
    peers_copy_text(t->address, sizeof t->address, bytes_str(address));
    peers_copy_text(t->node.text, sizeof t->node.text, bytes_str(node));
}

void peers_set_members(struct peers *p, const struct raft_members *members) {
    struct target old[LIMIT_MEMBERS];
    uint32_t old_count = p->member_count;
    memcpy(old, p->members, sizeof old);
    p->member_count = 0;
    uint64_t now_ms = loop_now_ms(p->x.loop);
    for (uint32_t i = 0; i < members->count; i++) {
        const struct raft_member *m = &members->at[i];
        if (m->id == p->options.self || strcmp(m->node.text, p->node) == 0) { /* this node, or its former self */
            continue;
        }
        struct target *t = &p->members[p->member_count++];
        set_target(t, m->peer_address, m->id, m->node.text);
        t->next_dial_ms = now_ms; /* not left to the larger id: it may be in the middle of a long pause between tries */
        for (uint32_t j = 0; j < old_count; j++) {
            if (old[j].id == t->id && strcmp(old[j].address, t->address) == 0) {
                *t = old[j];
            }
        }
    }
    loop_timer_after(p->x.loop, &p->timer, 0);
}

void peers_add_seed(struct peers *p, struct bytes address) {
    char text[LIMIT_ADDRESS_BYTES + 1];
    if (address.size == 0 || address.size > LIMIT_ADDRESS_BYTES) {
        return;
    }
    peers_copy_text(text, sizeof text, address);
    for (uint32_t i = 0; i < p->seed_count; i++) {
        if (strcmp(p->seeds[i].address, text) == 0) {
            return;
        }
    }
    if (p->seed_count < SEEDS_MAX && strcmp(text, p->advertise) != 0) {
        set_target(&p->seeds[p->seed_count++], text, 0, "");
        loop_timer_after(p->x.loop, &p->timer, 0);
    }
}

void peers_set_seeds(struct peers *p, const char *addresses) {
    p->seed_count = 0;
    while (addresses != NULL && *addresses != 0) {
        const char *comma = strchr(addresses, ',');
        size_t size = comma == NULL ? strlen(addresses) : (size_t)(comma - addresses);
        peers_add_seed(p, bytes_of(addresses, size));
        addresses += comma == NULL ? size : size + 1;
    }
}

void peers_no_seeds(struct peers *p) {
    p->seed_count = 0;
}

bool peers_send(struct peers *p, raft_id to, const struct message *m) {
    struct link *k = peers_link_find(p, to);
    if (k == NULL) {
        return false;
    }
    uint64_t dropped = p->dropped;
    peers_link_queue(k, m);
    return dropped == p->dropped;
}

void peers_flush(struct peers *p) {
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        peers_link_flush(&p->links[i]);
    }
}

uint32_t peers_feature_level(const struct peers *p, raft_id id) {
    const struct link *k = peers_link_find(p, id);
    return k == NULL ? 0 : k->feature_level;
}

bool peers_up(const struct peers *p, raft_id to) {
    return peers_link_find(p, to) != NULL;
}

size_t peers_up_ids(const struct peers *p, raft_id *out, size_t max) {
    size_t count = 0;
    for (uint32_t i = 0; i < LINKS_MAX && count < max; i++) {
        if (p->links[i].conn != NULL && p->links[i].up) {
            out[count++] = p->links[i].id;
        }
    }
    return count;
}

bool peers_unheard(const struct peers *p) {
    bool opening = p->silent_ms > 0 && loop_now_ms(p->x.loop) < p->silent_ms + 2 * DIAL_EVERY_MS_MAX; /* it is called again */
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        opening = opening || (p->links[i].conn != NULL && !p->links[i].up);
    }
    return opening;
}

uint64_t peers_dropped(const struct peers *p) {
    return p->dropped;
}

size_t peers_links(const struct peers *p, struct peers_link *out, size_t max) {
    size_t count = 0;
    for (uint32_t i = 0; i < p->member_count && count < max; i++) {
        const struct target *t = &p->members[i];
        struct peers_link *o = &out[count++];
        *o = (struct peers_link){.id = t->id, .node = t->node};
        peers_copy_text(o->address, sizeof o->address, bytes_str(t->address));
        peers_copy_text(o->last_error, sizeof o->last_error, bytes_str(t->last_error));
        const struct link *k = peers_link_find(p, t->id);
        if (k != NULL) {
            struct conn_count c = conn_counted(k->conn);
            o->up = true;
            o->tls = conn_is_tls(k->conn);
            o->in_bytes = c.in_bytes;
            o->out_bytes = c.out_bytes;
            o->last_heard_ms = k->last_heard_ms;
            o->output_bytes = (uint32_t)conn_output_bytes(k->conn);
        }
    }
    return count;
}

void peers_check_certificates(struct peers *p) {
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        struct link *k = &p->links[i];
        if (k->conn != NULL && conn_peer_revoked(k->conn)) {
            peers_link_revoked(k);
        }
    }
}
