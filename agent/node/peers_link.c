#include "agent/node/peers_core.h"

#include <inttypes.h>
#include <stdio.h>

#include "federation/frame.h"
#include "include/grey/must.h"
#include "platform/cert.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define HELLO_TIMEOUT_MS 5000u
#define PATIENCE_MS 15000u /* with who gives no sign of life: gateways that do not lead say little to each other */
#define SILENT_MS 500u     /* who is not there says so sooner */
#define PART_BYTES (512u * 1024u)
#define KEEP_BUFFER_BYTES (64u * 1024u)

static const char *const refusal_reasons[] = {"frame", "message", "identity", "site", "certificate", "revoked", "tls", "own-key"};
static struct metric refused =
    METRIC_COUNTER_LABELS("grey_network_peer_refusals_total", "Peer links closed, by what was wrong.", "reason", refusal_reasons);
static struct metric links_up = METRIC_GAUGE("grey_network_peers_connected", "Links to other gateways that are up.");
static struct metric rpc_errors =
    METRIC_COUNTER("grey_network_rpc_errors_total", "Peer messages that could not be sent or read, and links lost.");
static struct metric bytes_out =
    METRIC_COUNTER("grey_network_peer_sent_bytes_total", "Bytes sent on closed and open peer links, TLS included.");
enum {
    REFUSED_FRAME,
    REFUSED_MESSAGE,
    REFUSED_IDENTITY,
    REFUSED_SITE,
    REFUSED_CERTIFICATE, /* expired, by another CA, or none */
    REFUSED_REVOKED,
    REFUSED_TLS,     /* too old, or none */
    REFUSED_OWN_KEY, /* this gateway could not sign */
    REFUSED_COUNT
};

void peers_link_register(void) {
    metrics_register(&refused);
    metrics_register(&links_up);
    metrics_register(&rpc_errors);
    metrics_register(&bytes_out);
}

struct link *peers_link_find(const struct peers *p, raft_id id) {
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        const struct link *k = &p->links[i];
        if (k->conn != NULL && k->up && k->id == id) {
            return (struct link *)(uintptr_t)k;
        }
    }
    return NULL;
}

static void count_up(struct peers *p) {
    int64_t up = 0;
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        up += p->links[i].conn != NULL && p->links[i].up;
    }
    metrics_set(&links_up, 0, up);
}

void peers_link_drop(struct link *k) {
    struct peers *p = k->owner;
    bool was_up = k->up;
    raft_id id = k->id;
    if (k->conn != NULL) {
        metrics_add(&bytes_out, 0, (int64_t)conn_counted(k->conn).out_bytes);
    }
    if (k->dialled && k->id == 0 && loop_now_ms(p->x.loop) >= k->opened_ms + SILENT_MS) {
        p->silent_ms = loop_now_ms(p->x.loop);
    }
    builder_free(&k->out);
    builder_free(&k->part);
    *k = (struct link){.owner = p};
    count_up(p);
    if (was_up) {
        metrics_add(&rpc_errors, 0, 1);
        p->events->down(p->context, id);
    }
}

static void remember_error(struct link *k, const char *text) {
    struct target *t = peers_target(k->owner, k);
    if (t != NULL) {
        (void)snprintf(t->last_error, sizeof t->last_error, "%s", text);
    }
}

static void tell_refusal(const char *address, unsigned reason, enum grey_error err, const char *detail) {
    static struct log_limit limits[REFUSED_COUNT]; /* noise of one kind hides no other */
    uint32_t left_out = 0;
    metrics_add(&refused, reason, 1);
    if (log_limit_pass(&limits[reason], &left_out)) {
        log_warn("peers", "refuse", "address=%s error=GREY-%d %s: %s left_out=%" PRIu32, address, error_id(err),
                 error_sentence(err), detail, left_out);
    }
}

static void refuse(struct link *k, unsigned reason, enum grey_error err, const char *detail) {
    tell_refusal(k->address, reason, err, detail);
    remember_error(k, detail[0] != 0 ? detail : error_sentence(err));
    struct conn *c = k->conn;
    peers_link_drop(k);
    conn_close(c);
}

void peers_link_queue(struct link *k, const struct message *m) {
    struct peers *p = k->owner;
    builder_reset(&p->content);
    message_encode(m, &p->content);
    struct bytes content = builder_bytes(&p->content);
    uint64_t time_ns = (uint64_t)now_wall_ms() * 1000000u;
    uint16_t flags = m->kind == MESSAGE_RAFT ? FRAME_FLAG_PRIORITY | FRAME_FLAG_IDEMPOTENT : 0;
    size_t before = k->out.size;
    if (p->content.err != E_OK) {
        k->out.err = p->content.err;
    } else if (content.size <= LIMIT_FRAME_PAYLOAD_BYTES) {
        frame_write(&k->out, flags, ++k->next_message_id, time_ns, content);
    } else {
        for (size_t offset = 0; offset < content.size; offset += PART_BYTES) {
            size_t size = content.size - offset < PART_BYTES ? content.size - offset : PART_BYTES;
            builder_reset(&p->scratch);
            codec_put_array(&p->scratch, 4);
            codec_put_uint(&p->scratch, MESSAGE_PART);
            codec_put_uint(&p->scratch, content.size);
            codec_put_uint(&p->scratch, offset);
            codec_put_bytes(&p->scratch, bytes_of(content.data + offset, size));
            frame_write(&k->out, flags, ++k->next_message_id, time_ns, builder_bytes(&p->scratch));
        }
    }
    if (k->out.err != E_OK) { /* what was queued before stays whole */
        k->out.err = E_OK;
        k->out.size = before;
        p->dropped++;
        metrics_add(&rpc_errors, 0, 1);
    }
    if (p->content.capacity > KEEP_BUFFER_BYTES) {
        builder_free(&p->content);
        builder_free(&p->scratch);
    }
}

void peers_link_flush(struct link *k) {
    if (k->conn == NULL || k->out.size == 0) {
        return;
    }
    if (conn_write(k->conn, builder_bytes(&k->out)) != E_OK) {
        k->owner->dropped++;
        metrics_add(&rpc_errors, 0, 1);
    }
    if (k->out.capacity > KEEP_BUFFER_BYTES) {
        builder_free(&k->out);
    } else {
        builder_reset(&k->out);
    }
}

void peers_link_hello(struct link *k) {
    struct peers *p = k->owner;
    struct message m = {.kind = MESSAGE_HELLO,
                        .u.hello = {.feature_level = FEATURE_LEVEL,
                                    .cluster_id = p->options.cluster_id,
                                    .id = p->options.self,
                                    .start_count = p->options.start_count,
                                    .site = bytes_str(p->site),
                                    .node = bytes_str(p->node),
                                    .peer_address = bytes_str(p->advertise),
                                    .http_address = bytes_str(p->http_address)}};
    k->hello_sent = true;
    peers_link_queue(k, &m);
    peers_link_flush(k);
}

/* Of two links to one gateway, is it the earlier one that stays?  A power cut or a firewall ends a link at one side only: who dials has none. */
static bool earlier_stays(const struct link *earlier, const struct link *k, const struct message_hello *h) {
    struct peers *p = k->owner;
    if (h->start_count != earlier->start_count) {
        return h->start_count < earlier->start_count;
    }
    if (loop_now_ms(p->x.loop) > earlier->up_ms + 2 * HELLO_TIMEOUT_MS) {
        return false;
    }
    bool mine_wins = p->options.self > h->id; /* both dialled at once: the link that the larger id dialled stays */
    return earlier->dialled != k->dialled && earlier->dialled == mine_wins;
}

/* True: the link is up.  False: it was refused or gave way, and k is gone. */
static bool accept_hello(struct link *k, const struct message_hello *h) {
    struct peers *p = k->owner;
    char detail[240];
    if (h->id == 0 || h->id == p->options.self || !grey_name_valid((const char *)h->node.data, h->node.size)) {
        refuse(k, REFUSED_IDENTITY, E_BAD_MESSAGE,
               h->id == p->options.self ? "this is the node itself" : "hello without a valid name or id");
        return false;
    }
    peers_copy_text(k->node.text, sizeof k->node.text, h->node);
    if (!bytes_equal_str(h->site, p->site)) {
        (void)snprintf(detail, sizeof detail, "node %s belongs to site %.*s, this is site %s", k->node.text, (int)h->site.size,
                       (const char *)h->site.data, p->site);
        refuse(k, REFUSED_SITE, E_WRONG_SITE, detail);
        return false;
    }
    if (h->cluster_id != 0 && p->options.cluster_id != 0 && h->cluster_id != p->options.cluster_id) {
        (void)snprintf(detail, sizeof detail, "node %s was bootstrapped as another cluster (%016" PRIx64 ", here %016" PRIx64 ")",
                       k->node.text, h->cluster_id, p->options.cluster_id);
        refuse(k, REFUSED_SITE, E_WRONG_SITE, detail);
        return false;
    }
    if (p->options.tls != NULL) {
        char uri[2 * LIMIT_NAME_BYTES + 16];
        (void)snprintf(uri, sizeof uri, "grey://%s/%s", p->site, k->node.text);
        if (strcmp(conn_peer_uri(k->conn), uri) != 0) {
            (void)snprintf(detail, sizeof detail, "certificate is for '%.80s', the node says it is '%.80s'", conn_peer_uri(k->conn),
                           uri);
            refuse(k, REFUSED_IDENTITY, E_CERT, detail);
            return false;
        }
        if ((conn_peer_roles(k->conn) & CERT_ROLE_GATEWAY) == 0) {
            refuse(k, REFUSED_IDENTITY, E_CERT, "its certificate does not have the role of a gateway");
            return false;
        }
    }
    k->id = h->id;
    k->feature_level = h->feature_level;
    struct link *other = peers_link_find(p, h->id);
    if (other != NULL && other != k) {
        struct link *loser = earlier_stays(other, k, h) ? k : other;
        struct conn *c = loser->conn;
        peers_link_drop(loser);
        conn_close(c);
        if (loser == k) {
            return false;
        }
    }
    k->up = true;
    k->up_ms = loop_now_ms(p->x.loop);
    k->start_count = h->start_count;
    count_up(p);
    struct target *t = peers_target(p, k);
    if (t != NULL) {
        t->dial_every_ms = DIAL_EVERY_MS;
        t->last_error[0] = 0;
    }
    log_info("peers", "up", "node=%s id=%016" PRIx64 " address=%s tls=%s", k->node.text, k->id, k->address,
             conn_is_tls(k->conn) ? "yes" : "no");
    if (h->cluster_id != 0 && p->options.cluster_id == 0) {
        p->events->cluster_seen(p->context, h->cluster_id);
    }
    p->events->up(p->context, k->id, h->start_count);
    return true;
}

/* A hello on a link that is up: the other side now knows its cluster.  False: refused. */
static bool accept_cluster(struct link *k, const struct message_hello *h) {
    struct peers *p = k->owner;
    if (h->id != k->id || h->cluster_id == 0 || (p->options.cluster_id != 0 && h->cluster_id != p->options.cluster_id)) {
        refuse(k, REFUSED_SITE, E_WRONG_SITE, "a second hello of another node or cluster");
        return false;
    }
    if (p->options.cluster_id == 0) {
        p->events->cluster_seen(p->context, h->cluster_id);
    }
    return true;
}

/* One whole message.  False: the link is gone. */
static bool take_message(struct link *k, struct bytes content) {
    struct peers *p = k->owner;
    struct message m;
    enum grey_error err = message_decode(content, &m);
    if (err == E_NO_MEMORY) {
        return true; /* as if it was lost on the way */
    }
    if (err != E_OK) {
        refuse(k, REFUSED_MESSAGE, err, "a message cannot be read");
        return false;
    }
    bool alive = true;
    if (m.kind == MESSAGE_HELLO) {
        if (k->up) {
            alive = accept_cluster(k, &m.u.hello);
        } else {
            if (!k->hello_sent) {
                peers_link_hello(k);
            }
            alive = k->conn != NULL && accept_hello(k, &m.u.hello);
        }
    } else if (!k->up) {
        refuse(k, REFUSED_MESSAGE, E_BAD_MESSAGE, "a message before the hello");
        alive = false;
    } else if (m.kind == MESSAGE_RAFT && m.u.raft.from != k->id) {
        refuse(k, REFUSED_IDENTITY, E_BAD_MESSAGE, "a message in the name of another member");
        alive = false;
    } else {
        struct conn *c = k->conn;
        p->events->message(p->context, k->id, &m);
        alive = k->conn == c;
    }
    message_release(&m);
    return alive;
}

/* A piece of a large message: [kind, total, offset, bytes].  1: it was one and the link lives; 0: not a piece; -1: the link is gone. */
static int take_part(struct link *k, struct bytes content) {
    struct codec_reader r;
    codec_reader_init(&r, content);
    if (codec_array(&r, 16) != 4 || codec_uint(&r, UINT16_MAX) != MESSAGE_PART || r.err != E_OK) {
        return 0;
    }
    uint64_t total = codec_uint(&r, MESSAGE_BYTES_MAX);
    uint64_t offset = codec_uint(&r, MESSAGE_BYTES_MAX);
    struct bytes piece = codec_bytes(&r, PART_BYTES);
    if (codec_end(&r) != E_OK || !k->up || piece.size == 0 || offset != k->part.size || (offset > 0 && total != k->part_total) ||
        piece.size > total - offset) {
        refuse(k, REFUSED_MESSAGE, E_BAD_MESSAGE, "pieces of a large message do not fit together");
        return -1;
    }
    k->part_total = total;
    builder_add(&k->part, piece);
    if (k->part.err != E_OK) {
        refuse(k, REFUSED_MESSAGE, k->part.err, "no room for a large message");
        return -1;
    }
    if (k->part.size < total) {
        return 1;
    }
    struct builder whole = k->part;
    builder_init(&k->part, MESSAGE_BYTES_MAX);
    bool alive = take_message(k, builder_bytes(&whole));
    builder_free(&whole);
    return alive ? 1 : -1;
}

static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    struct link *k = context;
    size_t used = 0;
    k->last_heard_ms = loop_now_ms(k->owner->x.loop);
    while (used < in.size) {
        struct frame f;
        size_t frame_bytes = 0, need_bytes = 0;
        enum grey_error why = E_OK;
        enum frame_status status = frame_read(bytes_of(in.data + used, in.size - used), &f, &frame_bytes, &need_bytes, &why);
        if (status == FRAME_PARTIAL) {
            break;
        }
        if (status == FRAME_BAD) {
            refuse(k, REFUSED_FRAME, why, k->up ? "a damaged frame" : "the other side does not speak Grey Protocol v2");
            return used;
        }
        used += frame_bytes;
        struct builder scratch;
        builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
        struct bytes content;
        why = frame_content(&f, &scratch, &content);
        bool alive = true;
        if (why != E_OK) {
            refuse(k, REFUSED_FRAME, why, "a frame's content cannot be read");
            alive = false;
        } else {
            int part = take_part(k, content);
            alive = part > 0 || (part == 0 && take_message(k, content));
        }
        builder_free(&scratch);
        if (!alive || k->conn != c) {
            return used;
        }
    }
    return used;
}

static void on_open(void *context, struct conn *c) {
    struct link *k = context;
    conn_set_patience(c, PATIENCE_MS);
    if (k->dialled) {
        peers_link_hello(k);
    }
}

static void on_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct link *k = context;
    must(k->conn == c);
    log_at(k->up ? LOG_INFO : LOG_DEBUG, "peers", "down", "node=%s address=%s error=GREY-%d %s: %s", k->node.text, k->address,
           error_id(why), error_sentence(why), detail);
    remember_error(k, detail != NULL && detail[0] != 0 ? detail : error_sentence(why));
    peers_link_drop(k);
}

static const struct conn_events conn_events = {.on_open = on_open, .on_bytes = on_bytes, .on_closed = on_closed};

struct link *peers_link_new(struct peers *p) {
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        struct link *k = &p->links[i];
        if (k->conn == NULL && k->opened_ms == 0) {
            *k = (struct link){.owner = p, .opened_ms = loop_now_ms(p->x.loop) + 1};
            builder_init(&k->out, p->options.output_limit_bytes);
            builder_init(&k->part, MESSAGE_BYTES_MAX);
            return k;
        }
    }
    return NULL;
}

struct conn_options peers_link_options(struct link *k) {
    return (struct conn_options){.tls = k->owner->options.tls,
                                 .input_limit_bytes = FRAME_OVERHEAD_BYTES + LIMIT_FRAME_PAYLOAD_BYTES,
                                 .output_limit_bytes = k->owner->options.output_limit_bytes,
                                 .open_timeout_ms = HELLO_TIMEOUT_MS,
                                 .events = &conn_events,
                                 .context = k};
}

/* An accepted connection gets its slot at its first callback, because only then it is known. */
static void accepted_open(void *context, struct conn *c) {
    struct peers *p = context;
    struct link *k = peers_link_new(p);
    if (k == NULL) {
        log_limited(LOG_WARN, "peers", "refuse", "address=%s too many links", conn_peer_address(c));
        conn_close(c);
        return;
    }
    k->conn = c;
    peers_copy_text(k->address, sizeof k->address, bytes_str(conn_peer_address(c)));
    conn_set_context(c, &conn_events, k);
    conn_set_patience(c, PATIENCE_MS);
}

static size_t accepted_bytes(void *context, struct conn *c, struct bytes in) {
    (void)context, (void)c, (void)in;
    return 0; /* not reached: bytes come after on_open */
}

static void accepted_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    (void)context;
    unsigned reason = why == E_CERT                      ? REFUSED_CERTIFICATE
                      : why == E_REVOKED                 ? REFUSED_REVOKED
                      : why == E_TLS || why == E_TLS_OLD ? REFUSED_TLS
                      : why == E_VAULT_AWAY              ? REFUSED_OWN_KEY
                                                         : REFUSED_IDENTITY;
    tell_refusal(conn_peer_address(c), reason, why, detail);
}

static const struct conn_events waiting_events = {
    .on_open = accepted_open, .on_bytes = accepted_bytes, .on_closed = accepted_closed};

bool peers_link_accept(void *context, struct conn_options *o) {
    struct peers *p = context;
    o->tls = p->options.tls;
    o->input_limit_bytes = FRAME_OVERHEAD_BYTES + LIMIT_FRAME_PAYLOAD_BYTES;
    o->output_limit_bytes = p->options.output_limit_bytes;
    o->open_timeout_ms = HELLO_TIMEOUT_MS;
    o->events = &waiting_events;
    o->context = p;
    return true;
}

void peers_link_expire(struct link *k, uint64_t now_ms) {
    if (k->conn != NULL && !k->up && now_ms > k->opened_ms + 2 * HELLO_TIMEOUT_MS) {
        refuse(k, REFUSED_IDENTITY, E_TIMEOUT, "no hello came");
    }
}

void peers_link_revoked(struct link *k) {
    refuse(k, REFUSED_REVOKED, E_REVOKED, "its certificate was revoked by the core");
}
