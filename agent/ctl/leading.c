#include "agent/ctl/leading.h"

#include <stdio.h>
#include <string.h>

#define LEADING_TIMEOUT_MS 2000u

bool leading_find(const json_t *cluster, struct leading *out) {
    const char *leader = verbs_text(cluster, "leader_id"), *http = "";
    size_t i;
    const json_t *m;
    *out = (struct leading){0};
    json_array_foreach(json_object_get(cluster, "members"), i, m) {
        if (strcmp(verbs_text(m, "id"), leader) == 0) {
            http = verbs_text(m, "http_addr");
        }
    }
    if (strncmp(http, "127.", 4) != 0 && strncmp(http, "localhost:", 10) != 0) {
        return false;
    }
    (void)snprintf(out->address, sizeof out->address, "http://%.280s", http);
    out->client = (struct client){.address = {out->address, NULL}, .timeout_ms = LEADING_TIMEOUT_MS};
    struct client_problem ignored;
    if (client_get(&out->client, CLIENT_NODE, "/v1/cluster/status", &out->cluster, NULL, &ignored) == CTL_OK &&
        strcmp(verbs_text(out->cluster, "node_id"), leader) == 0 &&
        strcmp(verbs_text(out->cluster, "site_id"), verbs_text(cluster, "site_id")) == 0) {
        return true;
    }
    json_decref(out->cluster);
    out->cluster = NULL;
    return false;
}

void leading_redirect(struct call *c, struct leading *place) {
    struct client_problem ignored;
    json_t *cluster;
    if (client_get(&c->client, CLIENT_NODE, "/v1/cluster/status", &cluster, NULL, &ignored) == CTL_OK &&
        strcmp(verbs_text(cluster, "leader_id"), verbs_text(cluster, "node_id")) != 0 && leading_find(cluster, place)) {
        json_decref(place->cluster);
        place->cluster = NULL;
        c->client.address[CLIENT_NODE] = place->address;
    }
    json_decref(cluster);
}
