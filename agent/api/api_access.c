/* Who calls, whether he may, and what the log will say of him. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/api/api_core.h"
#include "agent/state/grants.h"
#include "federation/origin.h"
#include "include/grey/protocol.h"
#include "platform/address.h"
#include "platform/codec.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define GUESSES_PER_MINUTE 10u /* of one address, that are not good; then it waits */
#define GUESSES_AT_ONCE 10u
#define BURST_SECONDS 2u

static const char *const verdicts[] = {"unknown", "denied", "throttled"};
static struct metric refused =
    METRIC_COUNTER_LABELS("grey_http_refused_total", "Calls of the API that were refused for who the caller is.", "why", verdicts);

void api_access_start(struct api *a) {
    uint64_t seeds[2];
    metrics_register(&refused);
    keys_random(seeds, sizeof seeds);
    throttle_init(&a->guesses, seeds[0], GUESSES_PER_MINUTE, GUESSES_AT_ONCE);
    throttle_init(&a->calls, seeds[1], a->o.calls_per_second * 60u, a->o.calls_per_second * BURST_SECONDS);
}

/* The site's time where this gateway knows it; a follower of an idle site knows only when it last changed. */
static int64_t time_now_ms(const struct node *n) {
    struct raft_status s;
    int64_t site_ms = node_site_time_ms(n), own_ms = now_wall_ms();
    node_raft_status(n, &s);
    return s.role == RAFT_LEADER || site_ms > own_ms ? site_ms : own_ms;
}

static bool token_of(const struct api *a, struct bytes authorization, struct bearer *out) {
    char id[BEARER_ID_BYTES + 1];
    return bearer_id(bearer_of(authorization), id) && grants_find(node_table(a->o.node), id, out);
}

static void refuse(struct http_request *q, int which, enum grey_error err, const char *detail, uint64_t wait_ms) {
    metrics_add(&refused, (unsigned)which, 1);
    http_reply_wait(q, err, detail, wait_ms);
}

bool api_access(struct api *a, struct http_request *q, enum access_role least, struct api_caller *out) {
    struct http_peer peer;
    struct bearer bearer;
    uint32_t uid = 0;
    bool local = http_peer_uid(q, &uid);
    http_peer(q, &peer);
    struct bytes authorization = http_header(q, "Authorization");
    struct access_call call = {
        .door = local                   ? DOOR_SOCKET
                : peer.tls || a->o.auth ? DOOR_GUARDED
                                        : DOOR_OPEN,
        .is_owner = local && (uid == 0 || uid == geteuid()),
        .in_group = local && a->o.has_socket_group && http_peer_in_group(q, a->o.socket_group),
        .site = node_site(a->o.node),
        .uri = peer.uri,
        .name = peer.name,
        .role = peer.role,
        .origin = http_header(q, "Origin"),
        .host = http_header(q, "Host"),
        .authorization = authorization,
        .bearer = authorization.size > 0 && token_of(a, authorization, &bearer) ? &bearer : NULL,
        .now_ms = time_now_ms(a->o.node),
    };
    address_source(peer.address, out->address, sizeof out->address);
    struct bytes source = bytes_str(out->address);
    uint64_t now_ms = loop_now_ms(a->o.loop);
    uint64_t wait_ms = least == ROLE_NONE || local ? 0 : throttle_wait_ms(&a->guesses, source, now_ms);
    if (wait_ms > 0 && (call.door == DOOR_GUARDED || authorization.size > 0)) {
        refuse(q, 2, E_TOO_OFTEN, "too many credentials that were not good came from this address", wait_ms);
        return false;
    }
    access_judge(&call, least, &out->verdict);
    if (local && out->verdict.err == E_OK && authorization.size == 0) {
        (void)snprintf(out->verdict.who, sizeof out->verdict.who, "user %u", uid);
    }
    if (out->verdict.guessed) {
        (void)throttle_take(&a->guesses, source, now_ms);
        log_limited(LOG_WARN, "api", "refused", "from=%s error=GREY-%d %s", out->address, error_id(out->verdict.err),
                    error_sentence(out->verdict.err)); /* what was shown is not said */
    }
    if (out->verdict.err != E_OK) {
        refuse(q, out->verdict.err == E_DENIED, out->verdict.err, out->verdict.detail, 0);
        return false;
    }
    struct bytes caller = call.bearer != NULL ? bytes_str(call.bearer->id) : source;
    wait_ms = least == ROLE_NONE || call.door != DOOR_GUARDED ? 0 : throttle_take(&a->calls, caller, now_ms);
    if (wait_ms > 0) {
        refuse(q, 2, E_TOO_OFTEN, "this caller has used up its calls", wait_ms);
    }
    return wait_ms == 0;
}

bool api_level(const struct api_call *c, uint32_t level) {
    struct site_facts site;
    return state_site(node_state(c->api->o.node), &site) && site.feature_level >= level;
}

void api_origin_put(const struct api_call *c, struct builder *payload) {
    if (api_level(c, FEATURE_LEVEL_ORIGIN)) { /* an older gateway would take the entry for a broken one */
        struct origin o = {.who = bytes_str(c->caller.verdict.who),
                           .role = c->caller.verdict.role,
                           .address = bytes_str(c->caller.address),
                           .node = bytes_str(node_name(c->api->o.node))};
        origin_put(payload, &o, api_level(c, FEATURE_LEVEL_BRIEF_ORIGIN));
    }
}

static void noted(void *context, const struct node_answer *a) {
    (void)context;
    if (a->err != E_OK) { /* what was ordered may be the way out of just that */
        log_limited(LOG_WARN, "api", "unnoted", "error=GREY-%d %s: an order could not be written to the audit trail",
                    error_id(a->err), error_sentence(a->err));
    }
}

void api_note(const struct api_call *c) {
    struct bytes path = http_path(c->q);
    log_info("api", "order", "by=\"%s\" from=%s %s %.*s", c->caller.verdict.who, c->caller.address, http_method(c->q),
             (int)(path.size < 120 ? path.size : 120), (const char *)path.data);
    if (!api_level(c, FEATURE_LEVEL_ORIGIN)) {
        return;
    }
    struct builder b;
    builder_init(&b, 4096);
    api_origin_put(c, &b);
    codec_put_array(&b, 2);
    codec_put_text(&b, bytes_str(http_method(c->q)));
    codec_put_text(&b, path);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload != NULL) {
        node_propose(c->api->o.node, ENTRY_NOTE, payload, true, noted, NULL);
        blob_unref(payload);
    }
}
