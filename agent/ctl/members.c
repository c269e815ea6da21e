#include "agent/ctl/verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Members and leadership of the site. */

/* Sends a change; prints the answer as JSON, or `done` for people. */
static int command(struct call *c, const struct client_request *q, const char *done) {
    json_t *doc;
    int code;
    if (verbs_send(c, q, &doc, &code)) {
        return code;
    }
    json_decref(doc);
    (void)printf("%s\n", done);
    return CTL_OK;
}

int members_add(struct call *c) {
    struct builder body;
    struct json_writer w;
    builder_init(&body, 4096);
    json_writer_init(&w, &body);
    json_open(&w, '{');
    json_member_str(&w, "id", c->args[0]);
    json_member_str(&w, "addr", c->args[1]);
    json_close(&w);
    struct client_request q = {
        .method = "POST", .path = "/v1/admin/members", .body = builder_bytes(&body), .body_type = "application/json"};
    int code = command(c, &q, "invited; greyctl cluster members shows it join");
    builder_free(&body);
    return code;
}

int members_remove(struct call *c) {
    struct builder body;
    struct json_writer w;
    builder_init(&body, 8192);
    json_writer_init(&w, &body);
    json_open(&w, '{');
    json_member_open(&w, "remove", '[');
    for (unsigned i = 0; i < c->arg_count; i++) {
        json_str(&w, c->args[i]);
    }
    json_close(&w);
    json_member_bool(&w, "force", verbs_option(c, "force") != NULL);
    json_close(&w);
    struct client_request q = {
        .method = "POST", .path = "/v1/admin/members", .body = builder_bytes(&body), .body_type = "application/json"};
    int code = command(c, &q, "removed; its data directory may be wiped");
    builder_free(&body);
    return code;
}

int members_leave(struct call *c) {
    struct client_request q = {.method = "POST",
                               .path = verbs_option(c, "force") != NULL ? "/v1/admin/leave?force=true" : "/v1/admin/leave"};
    return command(c, &q, "this gateway has left its site; its data directory may be wiped");
}

int members_transfer(struct call *c) {
    struct builder path;
    builder_init(&path, 4096);
    builder_add_str(&path, "/v1/admin/transfer-leader");
    if (c->arg_count > 0) {
        builder_add_str(&path, "?to=");
        client_encode(&path, bytes_str(c->args[0]), true);
    }
    builder_add_byte(&path, 0);
    struct client_request q = {.method = "POST", .path = (const char *)path.data};
    int code = path.err == E_OK ? command(c, &q, "leadership is being handed on; greyctl cluster leader shows to whom") : CTL_USAGE;
    builder_free(&path);
    return code;
}
