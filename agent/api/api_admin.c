#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "platform/address.h"
#include "platform/now.h"

static void put_snapshot(struct json_writer *w, const struct sitelog_snapshot_info *i) {
    char text[2 * DIGEST_BYTES + 1];
    json_open(w, '{');
    json_member_str(w, "name", i->name);
    json_member_uint(w, "index", i->point.index);
    json_member_uint(w, "term", i->point.term);
    json_member_uint(w, "bytes", i->file_bytes);
    json_member_bool(w, "self_contained", i->self_contained);
    now_format(i->made_unix_ms, text);
    json_member_str(w, "made", text);
    bytes_hex(i->checksum, DIGEST_BYTES, text);
    json_member_str(w, "sha256", text);
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
    api_note(c);
    node_snapshot(c->api->o.node, true, snapshot_made, c);
}

void api_admin_snapshots(struct api_call *c) {
    struct sitelog_snapshot_info infos[SITELOG_SNAPSHOTS_MAX];
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

/* --- members and leadership --------------------------------------------------------------------------------------------------------------- */

static void ordered(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
        return;
    }
    struct api_answer out;
    api_answer_begin(&out);
    json_open(&out.w, '{');
    json_member_bool(&out.w, "accepted", true);
    if (a->index > 0) {
        json_member_uint(&out.w, "index", a->index);
    }
    json_close(&out.w);
    api_answer_send(&out, c, a->index > 0 ? 200 : 202, NULL, 0);
}

static bool take_name(const char *text, struct grey_name *out) {
    memset(out, 0, sizeof *out);
    if (text == NULL || !grey_name_valid(text, strlen(text))) {
        return false;
    }
    memcpy(out->text, text, strlen(text));
    return true;
}

/* wrong: why it is no order; NULL: it is one. */
static void order(struct api_call *c, const struct node_order *o, const char *wrong) {
    if (wrong != NULL) {
        api_call_error(c, E_BAD_REQUEST, wrong);
        return;
    }
    api_note(c);
    node_order(c->api->o.node, o, ordered, c);
}

static bool is_forced(struct api_call *c) {
    char text[8];
    return http_query(c->q, "force", text, sizeof text) && strcmp(text, "true") == 0;
}

void api_admin_transfer(struct api_call *c) {
    struct node_order o = {.transfer = true};
    struct fault f = {0};
    char to[LIMIT_NAME_BYTES + 1];
    const char *wrong = NULL;
    if (http_query(c->q, "to", to, sizeof to) && !take_name(to, &o.to)) {
        wrong = "to: a node id";
    }
    if (http_body(c->q).size > 0) {
        json_t *body = json_read(http_body(c->q), &f);
        if (body == NULL || !take_name(json_string_value(json_object_get(body, "to")), &o.to)) {
            wrong = body == NULL ? f.text : "wanted: {\"to\":\"node id\"}";
        }
        json_decref(body);
    }
    order(c, &o, wrong);
}

static bool take_invitation(const json_t *member, struct node_order *o) {
    const char *address = json_string_value(json_object_get(member, "addr"));
    char host[ADDRESS_HOST_BYTES], port[ADDRESS_PORT_BYTES];
    if (o->invite_count == LIMIT_MEMBERS || address == NULL || strlen(address) > LIMIT_ADDRESS_BYTES ||
        address_split(address, host, port, NULL) != E_OK || host[0] == 0 ||
        !take_name(json_string_value(json_object_get(member, "id")), &o->invite[o->invite_count].name)) {
        return false;
    }
    memcpy(o->invite[o->invite_count++].address, address, strlen(address) + 1);
    return true;
}

/* {"id","addr"}, or {"add":[{"id","addr"} ...],"remove":["id" ...],"force":false}. */
static const char *take_change(const json_t *body, struct node_order *o) {
    const json_t *add = json_object_get(body, "add"), *remove = json_object_get(body, "remove");
    if (json_object_get(body, "id") != NULL && !take_invitation(body, o)) {
        return "wanted: {\"id\":\"node id\",\"addr\":\"host:port\"}";
    }
    for (size_t i = 0; i < json_array_size(add); i++) {
        if (!take_invitation(json_array_get(add, i), o)) {
            return "add: wanted is an array of {\"id\":\"node id\",\"addr\":\"host:port\"}";
        }
    }
    for (size_t i = 0; i < json_array_size(remove); i++) {
        if (o->remove_count == LIMIT_MEMBERS ||
            !take_name(json_string_value(json_array_get(remove, i)), &o->remove[o->remove_count++])) {
            return "remove: wanted is an array of node ids";
        }
    }
    o->force = json_is_true(json_object_get(body, "force"));
    return o->invite_count + o->remove_count > 0 ? NULL : "nobody is named to be added or removed";
}

void api_admin_members(struct api_call *c) {
    struct node_order o = {0};
    struct fault f = {0};
    json_t *body = json_read(http_body(c->q), &f);
    const char *wrong = body == NULL ? f.text : take_change(body, &o);
    json_decref(body);
    order(c, &o, wrong);
}

void api_admin_member_remove(struct api_call *c) {
    struct node_order o = {.remove_count = 1, .force = is_forced(c)};
    c->arg[c->arg_size] = 0;
    if (!take_name(c->arg, &o.remove[0])) {
        api_call_error(c, E_NOT_FOUND, "no member of that name");
        return;
    }
    order(c, &o, NULL);
}

void api_admin_leave(struct api_call *c) {
    struct node_order o = {.remove_count = 1, .force = is_forced(c)};
    (void)take_name(node_name(c->api->o.node), &o.remove[0]);
    order(c, &o, NULL);
}
