#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"

/* An order goes the way of a proposal (requests.c): held until a leader is known, forwarded to it, carried out there.  It is no entry
 * itself; a change of membership is answered when its entry is applied.  Order, CBOR: [verb, force, [names to remove],
 * [[name, address] to invite], name to lead]. */

enum { ORDER_CHANGE, ORDER_TRANSFER, ORDER_FIELDS = 5 };

static void put(struct builder *b, const struct node_order *o) {
    codec_put_array(b, ORDER_FIELDS);
    codec_put_uint(b, o->transfer ? ORDER_TRANSFER : ORDER_CHANGE);
    codec_put_bool(b, o->force);
    codec_put_array(b, o->remove_count);
    for (uint32_t i = 0; i < o->remove_count; i++) {
        codec_put_text(b, bytes_str(o->remove[i].text));
    }
    codec_put_array(b, o->invite_count);
    for (uint32_t i = 0; i < o->invite_count; i++) {
        codec_put_array(b, 2);
        codec_put_text(b, bytes_str(o->invite[i].name.text));
        codec_put_text(b, bytes_str(o->invite[i].address));
    }
    codec_put_text(b, bytes_str(o->to.text));
}

static void get_name(struct codec_reader *r, struct grey_name *name, bool may_be_empty) {
    struct bytes text = codec_text(r, LIMIT_NAME_BYTES);
    memset(name, 0, sizeof *name);
    if (r->err == E_OK && !(may_be_empty && text.size == 0) && !grey_name_valid((const char *)text.data, text.size)) {
        r->err = E_BAD_MESSAGE;
    }
    if (r->err == E_OK && text.size > 0) {
        memcpy(name->text, text.data, text.size);
    }
}

static enum grey_error get(struct bytes in, struct node_order *o) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    memset(o, 0, sizeof *o);
    uint64_t fields = codec_array(&r, ORDER_FIELDS);
    o->transfer = codec_uint(&r, ORDER_TRANSFER) == ORDER_TRANSFER;
    o->force = codec_bool(&r);
    o->remove_count = (uint32_t)codec_array(&r, LIMIT_MEMBERS);
    for (uint32_t i = 0; i < o->remove_count && r.err == E_OK; i++) {
        get_name(&r, &o->remove[i], false);
    }
    o->invite_count = (uint32_t)codec_array(&r, LIMIT_MEMBERS);
    for (uint32_t i = 0; i < o->invite_count && r.err == E_OK; i++) {
        if (codec_array(&r, 2) != 2 && r.err == E_OK) {
            r.err = E_BAD_MESSAGE;
        }
        get_name(&r, &o->invite[i].name, false);
        struct bytes address = codec_text(&r, LIMIT_ADDRESS_BYTES);
        if (r.err == E_OK) {
            memcpy(o->invite[i].address, address.data, address.size);
        }
    }
    get_name(&r, &o->to, true);
    enum grey_error err = codec_end(&r);
    return err == E_OK && fields != ORDER_FIELDS ? E_BAD_MESSAGE : err;
}

void node_order(struct node *n, const struct node_order *o, node_done *done, void *context) {
    struct builder b;
    builder_init(&b, 64u * 1024u);
    put(&b, o);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload == NULL) {
        struct node_answer a = {.err = E_NO_MEMORY, .detail = ""};
        done(context, &a);
        return;
    }
    node_propose(n, ENTRY_CONFIG, payload, true, done, context);
    blob_unref(payload);
}

/* --- at the leader ---------------------------------------------------------------------------------------------------------------------- */

/* Heard within an election time-out, and its link has not broken since. */
static bool is_active(const struct node *n, const struct raft_status *s, raft_id id) {
    raft_id up[LIMIT_MEMBERS];
    size_t up_count = n->peers == NULL ? 0 : peers_up_ids(n->peers, up, LIMIT_MEMBERS);
    bool linked = false, active = false;
    for (size_t i = 0; i < up_count; i++) {
        linked = linked || up[i] == id;
    }
    for (uint32_t i = 0; i < s->peer_count; i++) {
        active = active || (s->peers[i].id == id && s->peers[i].active);
    }
    return id == n->self || (linked && active);
}

static enum grey_error change(struct node *n, const struct node_order *o, raft_index *index, const char **detail) {
    struct raft_status s;
    raft_status(n->raft, &s);
    struct raft_members wanted = *s.members;
    for (uint32_t i = 0; i < o->remove_count; i++) {
        const struct raft_member *m = raft_members_find_node(&wanted, o->remove[i].text);
        if (m == NULL) {
            *detail = "no member of that name";
            return E_NOT_FOUND;
        }
        while (m != NULL) { /* a wiped node and its former self share a name */
            raft_members_remove(&wanted, m->id);
            m = raft_members_find_node(&wanted, o->remove[i].text);
        }
    }
    uint32_t voters = 0, active = 0;
    for (uint32_t i = 0; i < wanted.count; i++) {
        voters += wanted.at[i].voter;
        active += wanted.at[i].voter && is_active(n, &s, wanted.at[i].id);
    }
    if (voters == 0) {
        *detail = "the last voter of a site cannot be removed; to give the site up, stop it";
        return E_MEMBERSHIP;
    }
    if (raft_members_check(&wanted) != E_OK) { /* its only other cause */
        *detail = "a witness would be left with too few gateways that hold data; remove the witness too";
        return E_MEMBERSHIP;
    }
    if (o->remove_count > 0 && active < voters / 2 + 1 && !o->force) {
        *detail = "too few of the gateways that stay answer";
        return E_MEMBERSHIP;
    }
    for (uint32_t i = 0; i < o->invite_count; i++) {
        membership_invite(n, &o->invite[i].name, o->invite[i].address);
    }
    if (o->remove_count == 0) {
        return E_OK;
    }
    struct raft_input in = {.kind = RAFT_IN_MEMBERS, .members = &wanted};
    enum grey_error err = node_step(n, &in, index);
    for (uint32_t i = 0; i < o->remove_count; i++) {
        log_info("node", "remove", "node=%s index=%" PRIu64 " result=%s", o->remove[i].text, *index, error_name(err));
    }
    *detail = err == E_OK ? "" : error_sentence(err);
    return err;
}

enum grey_error orders_run(struct node *n, struct bytes payload, raft_index *index, const char **detail) {
    struct node_order o;
    *index = 0;
    *detail = "";
    enum grey_error err = get(payload, &o);
    if (err != E_OK || !o.transfer) {
        return err != E_OK ? err : change(n, &o, index, detail);
    }
    struct raft_status s;
    raft_status(n->raft, &s);
    const struct raft_member *m = o.to.text[0] == 0 ? NULL : raft_members_find_node(s.members, o.to.text);
    if (o.to.text[0] != 0 && m == NULL) {
        *detail = "no member of that name";
        return E_NOT_FOUND;
    }
    if (m != NULL && (!m->voter || m->witness)) {
        *detail = "only a voter that holds data can lead";
        return E_MEMBERSHIP;
    }
    if (m != NULL && m->id != n->self && !is_active(n, &s, m->id)) {
        *detail = "that gateway does not answer";
        return E_MEMBERSHIP;
    }
    if (m != NULL && m->id == n->self) {
        return E_OK; /* it leads */
    }
    struct raft_input in = {.kind = RAFT_IN_TRANSFER, .peer = m == NULL ? 0 : m->id};
    return node_step(n, &in, NULL);
}
