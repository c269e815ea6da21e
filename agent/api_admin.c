#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/api_core.h"
#include "platform/now.h"

static void put_snapshot(struct json_writer *w, const struct sitelog_snapshot_info *i) {
    char text[2 * DIGEST_BYTES + 1];
    json_open(w, '{');
    json_key(w, "name");
    json_str(w, i->name);
    json_key(w, "index");
    json_uint(w, i->point.index);
    json_key(w, "term");
    json_uint(w, i->point.term);
    json_key(w, "bytes");
    json_uint(w, i->file_bytes);
    json_key(w, "self_contained");
    json_bool(w, i->self_contained);
    now_format(i->made_unix_ms, text);
    json_key(w, "made");
    json_str(w, text);
    for (size_t k = 0; k < DIGEST_BYTES; k++) {
        (void)snprintf(text + 2 * k, 3, "%02x", i->checksum[k]);
    }
    json_key(w, "sha256");
    json_str(w, text);
    json_close(w);
}

static void snapshot_made(void *context, enum grey_error err, const struct sitelog_snapshot_info *info, const char *detail) {
    struct api_call *c = context;
    if (err != E_OK) {
        api_call_error(c, err, detail);
        return;
    }
    struct api_answer a;
    api_answer_begin(&a);
    put_snapshot(&a.w, info);
    api_answer_send(&a, c, 201, NULL, 0);
}

void api_admin_snapshot(struct api_call *c) {
    node_snapshot(c->api->o.node, true, snapshot_made, c);
}

void api_admin_snapshots(struct api_call *c) {
    struct sitelog_snapshot_info infos[16];
    size_t count = sitelog_snapshots(node_log(c->api->o.node), infos, sizeof infos / sizeof infos[0]);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '[');
    for (size_t i = 0; i < count; i++) {
        put_snapshot(&a.w, &infos[i]);
    }
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

static void done(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
        return;
    }
    http_reply(c->q, 202, "application/json", bytes_str("{\"accepted\":true}\n"), NULL, 0);
    mem_free(c);
}

void api_admin_transfer(struct api_call *c) {
    char to[LIMIT_NAME_BYTES + 1] = "";
    struct fault f = {0};
    (void)http_query(c->q, "to", to, sizeof to);
    if (http_body(c->q).size > 0) {
        json_t *body = json_read(http_body(c->q), &f);
        const char *text = body == NULL ? NULL : json_string_value(json_object_get(body, "to"));
        if (text == NULL || strlen(text) > LIMIT_NAME_BYTES) {
            json_decref(body);
            api_call_error(c, E_BAD_REQUEST, body == NULL ? f.text : "wanted: {\"to\":\"node id\"}");
            return;
        }
        memcpy(to, text, strlen(text) + 1);
        json_decref(body);
    }
    node_transfer_leadership(c->api->o.node, to, done, c);
}

void api_admin_member_remove(struct api_call *c) {
    struct raft_status s;
    node_raft_status(c->api->o.node, &s);
    c->arg[c->arg_size] = 0;
    const struct raft_member *m = raft_members_find_node(s.members, c->arg);
    if (m == NULL) {
        api_call_error(c, E_NOT_FOUND, "no member of that name");
        return;
    }
    struct raft_members wanted = *s.members;
    raft_members_remove(&wanted, m->id);
    node_change_members(c->api->o.node, &wanted, done, c);
}

void api_federation_status(struct api_call *c) {
    struct api *api = c->api;
    struct uplink_facts facts = {0};
    if (api->o.uplink != NULL) {
        uplink_facts(api->o.uplink, &facts);
    }
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_key(&a.w, "enabled");
    json_bool(&a.w, api->o.uplink != NULL);
    json_key(&a.w, "owner");
    json_str(&a.w, node_leader_name(api->o.node));
    json_key(&a.w, "link");
    json_open(&a.w, '{');
    json_key(&a.w, "up");
    json_bool(&a.w, facts.up);
    json_key(&a.w, "endpoint");
    json_str(&a.w, facts.endpoint == NULL ? "" : facts.endpoint);
    json_key(&a.w, "last_contact_seconds");
    if (facts.last_contact_unix_ms == 0) {
        json_none(&a.w);
    } else {
        json_milli(&a.w, now_wall_ms() - facts.last_contact_unix_ms);
    }
    json_key(&a.w, "sent_bytes");
    json_uint(&a.w, facts.sent_bytes);
    json_key(&a.w, "received_bytes");
    json_uint(&a.w, facts.received_bytes);
    json_key(&a.w, "last_error");
    json_str(&a.w, facts.last_error);
    json_close(&a.w);
    json_key(&a.w, "channels");
    json_open(&a.w, '{');
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(node_state(api->o.node), (enum event_channel)i, &f);
        json_key(&a.w, event_channel_name((enum event_channel)i));
        json_open(&a.w, '{');
        json_key(&a.w, "acked_seq");
        json_uint(&a.w, f.acked_seq);
        json_key(&a.w, "pending");
        json_uint(&a.w, f.pending_count);
        json_close(&a.w);
    }
    json_close(&a.w);
    json_key(&a.w, "incarnation");
    struct site_facts site;
    char text[24] = "";
    if (state_site(node_state(api->o.node), &site)) {
        (void)snprintf(text, sizeof text, "%016" PRIx64, site.incarnation);
    }
    json_str(&a.w, text);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}
