/* Tokens of the API: made, listed, revoked.  Any gateway of the site takes them, because they are part of its state. */
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/state/grants.h"
#include "include/grey/protocol.h"
#include "platform/keys.h"
#include "platform/now.h"

#define TTL_S_USUAL (90ll * 86400)
#define TTL_S_MAX (GRANTS_TTL_MS_MAX / 1000)

struct granting {
    struct api_call *c;
    struct bearer bearer;
    char text[BEARER_BYTES + 1];
};

static void put_bearer(struct json_writer *w, const struct bearer *b, int64_t now_ms) {
    char time_text[32];
    json_member_str(w, "id", b->id);
    json_member_str(w, "role", access_role_name((enum access_role)b->role));
    json_member_str(w, "name", b->name);
    now_format(b->created_ms, time_text);
    json_member_str(w, "created", time_text);
    now_format(b->expires_ms, time_text);
    json_member_str(w, "expires", time_text);
    json_member_bool(w, "expired", b->expires_ms <= now_ms);
}

static bool level_reached(struct api_call *c) {
    if (api_level(c, FEATURE_LEVEL_ORIGIN)) {
        return true;
    }
    api_call_error(c, E_NOT_HERE_YET, "a gateway of the site runs a version without tokens, or did not answer yet; upgrade all");
    return false;
}

static void propose(struct api_call *c, struct builder *payload, node_done *done, void *context) {
    struct blob *blob = builder_blob(payload);
    builder_free(payload);
    if (blob == NULL) {
        struct node_answer a = {.err = E_NO_MEMORY, .detail = ""};
        done(context, &a);
        return;
    }
    node_propose(c->api->o.node, ENTRY_TOKEN, blob, true, done, context);
    blob_unref(blob);
}

/* --- Make ------------------------------------------------------------------------------------------------------------------------- */

static void granted(void *context, const struct node_answer *answer) {
    struct granting *g = context;
    if (answer->err != E_OK) {
        api_call_error(g->c, answer->err, answer->detail);
    } else {
        struct api_answer a;
        static const struct http_extra extra[] = {{"Cache-Control", "no-store"}};
        api_answer_begin(&a);
        json_open(&a.w, '{');
        put_bearer(&a.w, &g->bearer, g->bearer.created_ms);
        json_key(&a.w, "token"); /* the only time that it is shown */
        json_str(&a.w, g->text);
        json_close(&a.w);
        api_answer_send(&a, g->c, 201, extra, 1);
    }
    keys_wipe(g, sizeof *g);
    mem_free(g);
}

/* {"role","ttl_seconds","name"} */
static const char *take_wish(const json_t *body, struct bearer *b, int64_t *ttl_s) {
    const char *role = json_string_value(json_object_get(body, "role")), *name = json_string_value(json_object_get(body, "name"));
    const json_t *ttl = json_object_get(body, "ttl_seconds");
    enum access_role found;
    if (!access_role_parse(bytes_str(role), &found)) {
        return "role: viewer, operator or admin";
    }
    b->role = found;
    *ttl_s = ttl == NULL ? TTL_S_USUAL : json_integer_value(ttl);
    if (*ttl_s < 1 || *ttl_s > TTL_S_MAX) {
        return "ttl_seconds: a number from 1 to 315619200 (ten years)";
    }
    if (name != NULL && !bearer_name_valid(bytes_str(name))) {
        return "name: up to 64 printable characters of ASCII";
    }
    if (name != NULL) {
        memcpy(b->name, name, strlen(name) + 1);
    }
    return NULL;
}

void api_token_post(struct api_call *c) {
    struct fault f = {0};
    struct bearer b = {0};
    int64_t ttl_s = 0;
    if (!level_reached(c)) {
        return;
    }
    json_t *body = json_read(http_body(c->q), &f);
    const char *wrong = body == NULL ? f.text : take_wish(body, &b, &ttl_s);
    struct granting *g = wrong != NULL ? NULL : mem_new(1, sizeof *g);
    if (g == NULL) {
        api_call_error(c, wrong != NULL ? E_BAD_REQUEST : E_NO_MEMORY, wrong);
        json_decref(body);
        return;
    }
    json_decref(body);
    uint8_t seed[BEARER_SEED_BYTES];
    keys_random(seed, sizeof seed);
    g->c = c;
    g->bearer = b;
    bearer_make(seed, g->text, &g->bearer);
    keys_wipe(seed, sizeof seed);
    g->bearer.created_ms = node_site_time_ms(c->api->o.node) > now_wall_ms() ? node_site_time_ms(c->api->o.node) : now_wall_ms();
    g->bearer.expires_ms = g->bearer.created_ms + ttl_s * 1000;
    struct builder payload;
    builder_init(&payload, 4096);
    api_origin_put(c, &payload);
    payload_grant(&payload, &g->bearer);
    propose(c, &payload, granted, g);
}

/* --- List and revoke -------------------------------------------------------------------------------------------------------------- */

static void list(void *context, const struct node_answer *answer) {
    struct api_call *c = context;
    if (answer->err != E_OK) {
        api_call_error(c, answer->err, answer->detail);
        return;
    }
    struct api_answer a;
    struct bearer b;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_open(&a.w, "tokens", '[');
    for (const char *after = ""; grants_next(node_table(c->api->o.node), after, &b); after = b.id) {
        json_open(&a.w, '{');
        put_bearer(&a.w, &b, now_wall_ms());
        json_close(&a.w);
    }
    json_close(&a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_token_list(struct api_call *c) {
    node_read_barrier(c->api->o.node, list, c);
}

void api_token_delete(struct api_call *c) {
    struct builder payload;
    if (!level_reached(c)) {
        return;
    }
    if (c->arg_size != BEARER_ID_BYTES || !grey_name_valid(c->arg, c->arg_size)) {
        api_call_error(c, E_NOT_FOUND, "the name of a token has 8 characters: 'greyctl token list' shows them");
        return;
    }
    builder_init(&payload, 1024);
    api_origin_put(c, &payload);
    payload_revoke(&payload, bytes_of(c->arg, c->arg_size));
    propose(c, &payload, api_done, c);
}
