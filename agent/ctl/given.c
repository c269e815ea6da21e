/* Verbs that ask the core about what it gives to sites, and give. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl/input.h"
#include "agent/ctl/verbs.h"
#include "federation/object.h"

static int set(struct call *c, const char *root) {
    char path[128];
    struct builder content;
    const char *type = verbs_option(c, "type");
    builder_init(&content, OBJECT_BYTES_MAX);
    int code = CTL_USAGE;
    if (verbs_named("object", c->args[0]) && input_read(c->args[1], "what is given", &content)) {
        (void)snprintf(path, sizeof path, "%s/%s", root, c->args[0]);
        code = verbs_relay(c, "PUT", path, builder_bytes(&content), type != NULL ? type : "application/octet-stream");
    }
    builder_free(&content);
    return code;
}

static int get(struct call *c, const char *root) {
    char path[160];
    uint64_t version;
    if (!verbs_named("object", c->args[0]) || !verbs_number(c, "version", 1, INT64_MAX, 0, &version)) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, version > 0 ? "%s/%s?version=%llu" : "%s/%s", root, c->args[0], (unsigned long long)version);
    return verbs_relay(c, "GET", path, bytes_of(NULL, 0), NULL);
}

int given_config_set(struct call *c) {
    return set(c, "/v1/configs");
}

int given_config_get(struct call *c) {
    return get(c, "/v1/configs");
}

int given_policy_set(struct call *c) {
    return set(c, "/v1/policies");
}

int given_policy_get(struct call *c) {
    return get(c, "/v1/policies");
}

int given_update_push(struct call *c) {
    return set(c, "/v1/updates");
}

/* "ring=canary:600" ... as stages; without any, how it goes. */
int given_rollout(struct call *c) {
    char path[160];
    struct builder body;
    const char *kind = verbs_option(c, "kind");
    if (!verbs_named("object", c->args[0]) || (kind != NULL && !verbs_named("kind", kind))) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/rollouts/%s?kind=%s", c->args[0], kind == NULL ? "config" : kind);
    if (c->arg_count == 1) {
        return verbs_relay(c, "GET", path, bytes_of(NULL, 0), NULL);
    }
    struct json_writer w;
    builder_init(&body, 65536);
    json_writer_init(&w, &body);
    json_open(&w, '{');
    json_member_open(&w, "stages", '[');
    for (unsigned i = 1; i < c->arg_count && strcmp(c->args[1], "none") != 0; i++) {
        const char *colon = strrchr(c->args[i], ':');
        size_t digits = colon == NULL ? 0 : strspn(colon + 1, "0123456789");
        if (digits == 0 || digits > 7 || colon[1 + digits] != 0) {
            (void)fprintf(stderr, "greyctl: '%.80s' is no stage: KEY=VALUE:SECONDS, for example ring=canary:600\n", c->args[i]);
            builder_free(&body);
            return CTL_USAGE;
        }
        json_open(&w, '{');
        json_member_text(&w, "label", bytes_of(c->args[i], (size_t)(colon - c->args[i])));
        json_key(&w, "soak_seconds");
        json_raw(&w, bytes_str(colon + 1));
        json_close(&w);
    }
    json_close(&w);
    json_close(&w);
    int code = verbs_relay(c, "PUT", path, builder_bytes(&body), "application/json");
    builder_free(&body);
    return code;
}

/* Without labels: those it has. */
int given_label(struct call *c) {
    char path[128];
    struct builder body;
    struct json_writer w;
    if (!verbs_named("site", c->args[0])) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/sites/%s/labels", c->args[0]);
    if (c->arg_count == 1) {
        return verbs_relay(c, "GET", path, bytes_of(NULL, 0), NULL);
    }
    builder_init(&body, 65536);
    json_writer_init(&w, &body);
    json_open(&w, '[');
    for (unsigned i = 1; i < c->arg_count && strcmp(c->args[1], "none") != 0; i++) {
        json_str(&w, c->args[i]);
    }
    json_close(&w);
    int code = verbs_relay(c, "PUT", path, builder_bytes(&body), "application/json");
    builder_free(&body);
    return code;
}
