/* Links to other gateways and to the core: certificates, the uplink, renewal, attestation. */
#include <stdio.h>
#include <string.h>

#include "agent/greyd_core.h"
#include "agent/identity/sitecert.h"
#include "platform/keyfile.h"
#include "platform/log.h"

/* With what the core said of trust, as far as it reached this gateway; site: and what its neighbours gave it. */
static struct conn_tls *read_certificates(const struct greyd *g, bool site, const char *ca, const char *cert, const char *key,
                                          struct fault *f) {
    char trust[LIMIT_PATH_BYTES + 32], own[LIMIT_PATH_BYTES + 32], known[LIMIT_PATH_BYTES + 32];
    (void)snprintf(own, sizeof own, "%.1000s/" SITECERT_OWN_FILE, g->config.data_dir);
    (void)snprintf(known, sizeof known, "%.1000s/" SITECERT_KNOWN_FILE, g->config.data_dir);
    (void)snprintf(trust, sizeof trust, "%.1000s/" IDENTITY_TRUST_FILE, g->config.data_dir);
    return conn_tls_open(&(struct conn_tls_files){.ca_path = ca,
                                                  .cert_path = cert,
                                                  .key_path = key,
                                                  .trust_path = trust,
                                                  .site_path = site ? own : NULL,
                                                  .known_path = site ? known : NULL,
                                                  .from_13 = strcmp(g->config.tls_min_version, "1.3") == 0},
                         f);
}

bool greyd_link_start_site(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    if (c->mode != CONFIG_MODE_SINGLE && c->peer_tls) {
        g->tls = read_certificates(g, true, c->tls_ca, c->tls_cert, c->tls_key, f);
        return g->tls != NULL;
    }
    if (c->mode != CONFIG_MODE_SINGLE) {
        log_warn("greyd", "plain",
                 "links to other gateways are plain: whoever reaches %s can read and change what this site agrees on; "
                 "set security.tls.enabled for anything but a trial",
                 c->peer_addr);
    }
    return true;
}

bool greyd_link_start_identity(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    struct identity_options o = {.site = c->site_id,
                                 .node = c->node_id,
                                 .data_dir = c->data_dir,
                                 .ca_path = g->tls != NULL ? c->tls_ca : c->upstream_ca,
                                 .cert_path = g->tls != NULL ? c->tls_cert : c->upstream_cert,
                                 .key_path = g->tls != NULL ? c->tls_key : c->upstream_key,
                                 .tls = g->tls,
                                 .upstream_tls = g->upstream_tls};
    if ((g->tls == NULL && g->upstream_tls == NULL) || c->mode == CONFIG_MODE_WITNESS) {
        return true;
    }
    identity_register();
    g->identity = identity_new(&g->x, &o, g->node, g->uplink, f);
    return g->identity != NULL;
}

static struct uplink_bandwidth bandwidth_of(const struct config *c) {
    struct uplink_bandwidth b = {.up_bytes_per_s = (uint64_t)c->limit_kbps * 125u,
                                 .down_bytes_per_s = (uint64_t)c->down_limit_kbps * 125u,
                                 .window_count = c->window_count,
                                 .budget = {.day_bytes = (uint64_t)c->budget_day_kb * 1000u,
                                            .month_bytes = (uint64_t)c->budget_month_kb * 1000u,
                                            .reserve_percent = (uint32_t)c->budget_reserve_percent},
                                 .month_begins_day = (uint32_t)c->budget_month_begins_day};
    memcpy(b.windows, c->windows, sizeof b.windows);
    memcpy(b.privileged, c->privileged, sizeof b.privileged);
    return b;
}

bool greyd_link_start_uplink(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    if (!c->federation || c->mode == CONFIG_MODE_WITNESS) {
        return true;
    }
    if (c->upstream_tls) {
        g->upstream_tls = read_certificates(g, false, c->upstream_ca, c->upstream_cert, c->upstream_key, f);
        if (g->upstream_tls == NULL || (c->upstream_alpn && conn_tls_offer(g->upstream_tls, "mqtt", f) != E_OK)) {
            return false;
        }
    }
    const char *endpoints[CONFIG_ENDPOINTS_MAX];
    uint32_t priorities[CONFIG_ENDPOINTS_MAX];
    for (uint32_t i = 0; i < c->endpoint_count; i++) {
        endpoints[i] = c->endpoints[i];
        priorities[i] = i < c->priority_count ? c->priorities[i] : i + 1;
    }
    struct uplink_options o = {.endpoints = endpoints,
                               .priorities = priorities,
                               .endpoint_count = c->endpoint_count,
                               .failback_s = (uint32_t)c->failback_s,
                               .handover_s = (uint32_t)c->handover_s,
                               .proxy = c->proxy,
                               .proxy_auth = c->proxy_auth,
                               .offer = c->upstream_alpn,
                               .tls = g->upstream_tls,
                               .node = c->node_id,
                               .data_dir = c->data_dir,
                               .root = c->update_root,
                               .keepalive_s = (uint32_t)c->keepalive_s,
                               .window_frames = 16,
                               .bandwidth = bandwidth_of(c)};
    o.seal = c->upstream_seal && c->upstream_tls;
    o.cert_path = c->upstream_cert;
    o.key_path = c->upstream_key;
    o.has_core_key = c->core_key[0] != 0;
    if (o.has_core_key && keyfile_get_public(c->core_key, o.core_key, f) != E_OK) {
        return false;
    }
    g->uplink = uplink_new(&g->x, &o, g->node, f);
    return g->uplink != NULL;
}

void greyd_link_retune(struct greyd *g, const struct config *fresh) {
    if (g->uplink != NULL) {
        struct uplink_bandwidth b = bandwidth_of(fresh);
        uplink_set_bandwidth(g->uplink, &b);
    }
}

static enum attest_type type_of(const char *name) {
    enum attest_type type = ATTEST_NONE;
    while (type + 1 < ATTEST_TYPES && strcmp(attest_type_name(type), name) != 0) {
        type++;
    }
    return type;
}

bool greyd_link_start_herald(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    if (c->mode == CONFIG_MODE_WITNESS) {
        return true;
    }
    struct herald_options o = {.loop = g->x.loop,
                               .node = g->node,
                               .uplink = g->uplink,
                               .enabled = c->attestation,
                               .type = type_of(c->attest_type),
                               .socket = c->attest_socket,
                               .document = c->attest_document[0] != 0 ? c->attest_document : NULL,
                               .data_dir = c->data_dir,
                               .cert_path = g->tls != NULL            ? c->tls_cert
                                            : g->upstream_tls != NULL ? c->upstream_cert
                                                                      : "",
                               .period_s = (uint32_t)c->attest_period_s,
                               .has_verifier_key = c->core_key[0] != 0};
    if (o.has_verifier_key && keyfile_get_public(c->core_key, o.verifier_key, f) != E_OK) {
        return false;
    }
    herald_register();
    g->herald = herald_new(&o, f);
    return g->herald != NULL;
}
