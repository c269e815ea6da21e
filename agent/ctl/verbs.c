#include "agent/ctl/verbs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/ids.h"

const struct verb_option verbs_global[] = {
    {"output", "table|json|wide", "form of the answer; json is the API's own; short: -o"},
    {"addr", "URL|unix:PATH", "the node to ask; else $GREY_ADDR, unix:/run/grey/greyd.sock, unix:./run/node1/greyd.sock"},
    {"core", "URL", "the core to ask; else $GREY_CORE, http://127.0.0.1:8080"},
    {"cacert", "FILE", "CA that the other side's certificate is checked with (https://); else what the profile says"},
    {"profile", "NAME", "addresses, token and certificates of ~/.config/greyctl/NAME.yaml; else $GREY_PROFILE, default"},
    {"timeout", "SECONDS", "how long to wait for an answer; else 15"},
    {"help", NULL, "what a verb does and takes; short: -h"},
};
const size_t verbs_global_count = sizeof verbs_global / sizeof verbs_global[0];

#define LATER(name, args, help)                                                                                                    \
    {                                                                                                                              \
        name, args, 0, 0, help, NULL, {                                                                                            \
            { NULL, NULL, NULL }                                                                                                   \
        }                                                                                                                          \
    }
#define NONE                                                                                                                       \
    {                                                                                                                              \
        { NULL, NULL, NULL }                                                                                                       \
    }

static const struct verb table[] = {
    {"status", "", 0, 0, "how the site is, in one screen; the first line is the verdict (also without any verb)", site_status,
     NONE},
    {"alive", "", 0, 0, "whether this node's loop turns and its disk gets on: exit code 0", site_alive, NONE},
    {"cluster status", "", 0, 0, "the site as this node sees it", site_cluster, NONE},
    {"cluster members", "", 0, 0, "the site's nodes", site_members, NONE},
    {"cluster leader", "", 0, 0, "who leads", site_leader, NONE},
    {"cluster transfer", "[NODE]", 0, 1, "hand leadership to a node; else to the best follower", members_transfer, NONE},
    {"cluster leave",
     "",
     0,
     0,
     "take the node that is asked out of its site for good",
     members_leave,
     {{"force", NULL, "although too few of those who stay answer"}}},
    {"member list", "", 0, 0, "the site's nodes", site_members, NONE},
    {"member add", "NODE PEER-ADDRESS", 2, 2, "invite a node: the leader dials it, and it joins when it answers", members_add,
     NONE},
    {"member remove",
     "NODE...",
     1,
     8,
     "take nodes out of the site for good, in one change",
     members_remove,
     {{"force", NULL, "although too few of those who stay answer"}}},
    {"kv get",
     "KEY",
     1,
     1,
     "write a key's value to stdout; -o wide tells version and type on stderr",
     pairs_get,
     {{"stale", NULL, "read what this node has, without asking the others"}}},
    {"kv put",
     "KEY [VALUE|-]",
     1,
     2,
     "set a key; '-' reads the value from stdin",
     pairs_put,
     {{"file", "FILE", "the value is this file's content"},
      {"type", "TYPE", "content type kept with the value"},
      {"if-version", "N", "only if the key's version is N"},
      {"if-absent", NULL, "only if there is no such key"}}},
    {"kv del", "KEY", 1, 1, "delete a key", pairs_del, {{"if-version", "N", "only if the key's version is N"}}},
    {"kv list",
     "[PREFIX]",
     0,
     1,
     "keys, their versions and sizes",
     pairs_list,
     {{"limit", "N", "at most so many; else all"}, {"stale", NULL, "list what this node has, without asking the others"}}},
    {"kv watch",
     "KEY",
     1,
     1,
     "write each new value of a key, one per line, until interrupted",
     pairs_watch,
     {{"count", "N", "end after N changes"}}},
    {"event send",
     "[JSON|-]",
     0,
     1,
     "keep an event on the site and send it to the core",
     events_send,
     {{"type", "TYPE", "what happened, for example door.opened"},
      {"priority", "P", "critical, high, normal or low"},
      {"data", "JSON", "the event's data; '-' reads stdin"},
      {"source", "URI", "who says it; else this node"},
      {"id", "ID", "the event's id; the same source and id again is taken once"},
      {"subject", "TEXT", "what it is about"}}},
    {"event tail",
     "",
     0,
     0,
     "events as they reach the core, until interrupted",
     events_tail,
     {{"site", "SITE", "whose; else the site of the node"},
      {"channel", "C", "only control, events or data"},
      {"lines", "N", "begin with the last N of each channel; else 10"},
      {"count", "N", "end after N events"}}},
    {"task submit",
     "[COMMAND...]",
     0,
     VERB_ARGS_MAX,
     "have the site run a command on one of its nodes; options before the command",
     jobs_submit,
     {{"file", "FILE", "the whole task as JSON instead; '-' reads stdin; see docs/openapi.yaml"},
      {"id", "ID", "the task's id; the same task again is taken once"},
      {"tenant", "T", "whose; else default"},
      {"namespace", "N", "of the tenant"},
      {"lane", "L", "critical, high, normal, low or preempt"},
      {"schedule", "CRON", "when, for example '0 2 * * *'; else once, now"},
      {"time-zone", "ZONE", "of the schedule, for example Europe/Berlin; else UTC"},
      {"offload", "HOW", "it may run beside the core: local (back here when the link is away) or wait"},
      {"delivery", "D", "at-least-once or at-most-once"},
      {"restart", "R", "never, on-failure or always"},
      {"image", "PATH", "run this OCI image of the gateway; a command comes in place of its own"},
      {"bundle", "PATH", "likewise an OCI bundle"}}},
    {"task list",
     "",
     0,
     0,
     "tasks, where they are and how far",
     jobs_list,
     {{"tenant", "T", "only of this tenant"}, {"state", "S", "only pending, queued, assigned, running, completed, ..."}}},
    {"task show", "TASK", 1, 1, "one task with its order", jobs_show, NONE},
    {"task logs",
     "TASK",
     1,
     1,
     "what the last run of a task wrote, from whichever node ran it",
     jobs_logs,
     {{"stream", "S", "stdout or stderr; else stdout"}, {"follow", NULL, "go on until the task has ended"}}},
    {"task proof",
     "[TASK]",
     0,
     1,
     "the signed record of a task's last run, or check one",
     proofs_show,
     {{"verify", NULL, "check it here: is it what its node signed?"},
      {"file", "FILE", "check one that was kept, without any of the site; '-' reads stdin"},
      {"key", "HEX", "the node's public key, from elsewhere; else the one that the site knew"}}},
    {"task cancel", "TASK", 1, 1, "end a task, or a schedule", jobs_cancel, NONE},
    {"tenant list", "", 0, 0, "tenants, their shares and what they use", jobs_tenants, NONE},
    {"tenant show", "TENANT", 1, 1, "one tenant with its namespaces", jobs_tenant, NONE},
    {"tenant set",
     "[TENANT]",
     0,
     1,
     "give a tenant, or one of its namespaces, a share, or many from a file",
     jobs_tenant_set,
     {{"cpu", "PERCENT", "of the site's processors; of a namespace: of its tenant's"},
      {"memory", "PERCENT", "the same for memory"},
      {"namespace", "N", "this namespace of the tenant"},
      {"file", "FILE", "a tree of tenants and namespaces in YAML, all of it or nothing; '-' reads stdin; short: -f"}}},
    {"tenant remove",
     "TENANT",
     1,
     1,
     "take a tenant or a namespace away; its tasks must have ended",
     jobs_tenant_remove,
     {{"namespace", "N", "this namespace of the tenant"}}},
    {"queue", "", 0, 0, "what waits for the core, by channel", site_queue, NONE},
    {"federation status", "", 0, 0, "the link to the core", site_federation, NONE},
    {"link status", "", 0, 0, "brokers with their circuit breakers, what is tried when, keep-alive and TLS session", link_status,
     NONE},
    {"link try", "", 0, 0, "the line was mended: try the core now instead of later", link_try, NONE},
    {"link test",
     "",
     0,
     0,
     "send a critical event and wait until the core has acknowledged it",
     cost_probe,
     {{"seconds", "N", "wait so long at the most; else 60"}}},
    {"link budget", "", 0, 0, "who spent the bytes of the link, and what is left of its budgets", cost_budget, NONE},
    {"audit",
     "",
     0,
     0,
     "the log of the site: what was decided, when, by whom",
     trail_list,
     {{"from", "INDEX", "from this entry on; else the last 20"},
      {"to", "INDEX", "up to this entry"},
      {"type", "T", "only noop, members, site, clock, kv, events, ack, limits, task, quota, node, token or note"},
      {"limit", "N", "at most so many; else 100"}}},
    {"audit verify",
     "",
     0,
     0,
     "verify hashes and seals of the node's log, here and not there; exit code 3 when something does not hold",
     trail_verify,
     {{"from", "INDEX", "from this entry on; else the first the node has"}}},
    {"token create",
     "",
     0,
     0,
     "make a token of the site's API and print it, this once",
     tokens_create,
     {{"role", "ROLE", "viewer reads, operator works, admin changes members, tenants and tokens"},
      {"ttl", "TIME", "how long it is good: 30m, 12h, 90d; else 90d"},
      {"name", "TEXT", "whom or what it is for"}}},
    {"token list", "", 0, 0, "the tokens of the site, without their secrets", tokens_list, NONE},
    {"token revoke", "ID", 1, 1, "from now on no gateway takes this token", tokens_revoke, NONE},
    {"snapshot create", "", 0, 0, "write a self-contained snapshot on the node", site_snapshot_create, NONE},
    {"snapshot list", "", 0, 0, "snapshots on the node", site_snapshot_list, NONE},
    {"snapshot restore", "FILE", 0, 1, "says how: greyd itself restores, while it is stopped", site_snapshot_restore, NONE},
    {"site list", "", 0, 0, "all sites the core knows", fleet_list, NONE},
    {"site show", "SITE", 1, 1, "one site, as the core knows it", fleet_show, NONE},
    {"site events",
     "SITE",
     1,
     1,
     "a site's events at the core, oldest first",
     fleet_events,
     {{"channel", "C", "only control, events or data"},
      {"after", "SEQ|CURSOR", "those behind this one"},
      {"limit", "N", "at most so many; else 100"}}},
    {"site label", "SITE [KEY=VALUE ... | none]", 1, 8, "all labels of a site at the core; without any: those it has", given_label,
     NONE},
    {"config set",
     "NAME FILE",
     2,
     2,
     "give sites a new version of a config, from a file ('-': stdin)",
     given_config_set,
     {{"type", "T", "its content type"}}},
    {"config get", "NAME", 1, 1, "a config as the core gives it", given_config_get, {{"version", "N", "else the newest"}}},
    {"config rollout",
     "NAME [KEY=VALUE:SECONDS ... | none]",
     1,
     8,
     "stages of new versions: sites with this label, and the time to soak; without any: how it goes",
     given_rollout,
     {{"kind", "K", "policy, data or update; else config"}}},
    {"policy set",
     "NAME FILE",
     2,
     2,
     "give sites a new version of a policy, from a file ('-': stdin)",
     given_policy_set,
     {{"type", "T", "its content type"}}},
    {"policy get", "NAME", 1, 1, "a policy as the core gives it", given_policy_get, {{"version", "N", "else the newest"}}},
    {"attest status", "", 0, 0, "whom of the site's gateways to trust, until when, and why not", proven_status, NONE},
    {"attest now", "", 0, 0, "all gateways of the site get themselves attested now", proven_now, NONE},
    {"update push", "NAME FILE", 2, 2, "give sites a new version of the programs: a bundle of 'grey-update pack'",
     given_update_push, NONE},
    {"update status", "", 0, 0, "new versions of the programs, and how each gateway stands to them", updates_status, NONE},
    {"enroll token",
     "",
     0,
     0,
     "make a token with which new gateways of a site enrol; it goes to stdout, once",
     admit_token,
     {{"site", "SITE", "whose gateways"},
      {"nodes", "N", "how many; else 1"},
      {"ttl", "TIME", "how long it holds: 90s, 30m, 1h, 7d; else 1h"}}},
    {"enroll list", "", 0, 0, "tokens that hold, or ended within a day", admit_list, NONE},
    {"enroll end", "TOKEN-ID", 1, 1, "end a token before its time", admit_end, NONE},
    {"enroll register",
     "",
     0,
     0,
     "a board may come in by its TPM, without a token",
     admit_register,
     {{"ek", "FILE|SHA-256", "endorsement certificate of its TPM"},
      {"site", "SITE", "of which site"},
      {"node", "NODE", "as which gateway"}}},
    {"enroll registered", "", 0, 0, "boards that may come in by their TPM", admit_registered, NONE},
    {"enroll unregister", "FILE|SHA-256", 1, 1, "from now on that board may not", admit_unregister, NONE},
    {"enroll certificates",
     "",
     0,
     0,
     "the newest certificate of each gateway",
     admit_certificates,
     {{"site", "SITE", "only of this site"}}},
    {"enroll revoke",
     "SITE [NODE]",
     1,
     2,
     "shut a gateway out for good: stolen, sold, or not to be trusted",
     admit_revoke,
     {{"whole-site", NULL, "all gateways of the site"}}},
    {"attest list",
     "",
     0,
     0,
     "what the core knows of gateways: trusted, failed and why",
     appraised_list,
     {{"site", "SITE", "only of this site"}}},
    {"attest show", "SITE NODE", 2, 2, "one gateway: how it was judged, and what was measured there", appraised_show, NONE},
    {"attest forget", "SITE NODE", 2, 2, "a gateway's TPM was replaced: the core lets it introduce another one", appraised_forget,
     NONE},
    {"attest policy", "show | set FILE | learn | enforce", 1, 2,
     "the attestation policy: as it is; a new one; take what gateways show; accept that and nothing else", appraised_policy, NONE},
    {"store status", "", 0, 0, "was the core's store put back to an older copy of itself, and who remembers more", kept_status,
     NONE},
    {"store accept", "", 0, 0, "go on with that older copy: you have looked at what it forgot (docs/SECURITY.md)", kept_accept,
     NONE},
    {"doctor",
     "",
     0,
     0,
     "look for what is wrong and name the remedy; exit code 0 fine, 1 look at it, 2 broken",
     doctor_run,
     {{"config", "FILE", "configuration to look at; else /etc/grey/greyd.yaml, run/node1/greyd.yaml"}}},
    {"explain", "[GREY-NUMBER]", 0, 1, "what an error means and what to do; without a number: all errors", local_explain, NONE},
    {"config show",
     "",
     0,
     0,
     "effective configuration of a file; with --origin where each value comes from",
     local_config_show,
     {{"config", "FILE", "else /etc/grey/greyd.yaml, where there is one"}, {"origin", NULL, "show where each value comes from"}}},
    {"config check", "[FILE]", 0, 1, "whether greyd would accept a file; else /etc/grey/greyd.yaml", local_config_check, NONE},
    {"completion", "bash|zsh|fish", 1, 1, "a completion script for the shell", local_completion, NONE},
    {"help", "[VERB]", 0, 2, "this list, or one verb", local_help, NONE},
    {"version", "", 0, 0, "the version of greyctl and its maturity", local_version, NONE},
    LATER("replay", "FILE", "run a recorded log again"),
    LATER("site recover", "--force-single", "go on with one node after the others are lost"),
    LATER("federation agree", "", "agreements among sites"),
    LATER("federation revoke", "", "agreements among sites"),
    LATER("support-bundle", "", "what to send with a question"),
    LATER("top", "", "a live screen"),
};

const struct verb *verbs(size_t *count) {
    *count = sizeof table / sizeof table[0];
    return table;
}

const struct verb *verbs_find(const char *const *words, unsigned count, unsigned *used) {
    const struct verb *best = NULL;
    *used = 0;
    for (size_t i = 0; i < sizeof table / sizeof table[0] && count > 0; i++) {
        size_t first = strcspn(table[i].name, " ");
        if (strlen(words[0]) != first || memcmp(words[0], table[i].name, first) != 0) {
            continue;
        }
        if (table[i].name[first] == 0 && *used < 1) {
            best = &table[i];
            *used = 1;
        } else if (table[i].name[first] == ' ' && count > 1 && strcmp(words[1], table[i].name + first + 1) == 0) {
            best = &table[i];
            *used = 2;
        }
    }
    return best;
}

static unsigned distance(const char *a, const char *b) { /* Levenshtein, on short texts */
    unsigned row[64];
    size_t size = strlen(b) < 63 ? strlen(b) : 63;
    for (size_t j = 0; j <= size; j++) {
        row[j] = (unsigned)j;
    }
    for (size_t i = 0; i < 64 && a[i] != 0; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < size; j++) {
            unsigned up = row[j + 1], least = (up < row[j] ? up : row[j]) + 1, cost = diagonal + (a[i] != b[j]);
            row[j + 1] = cost < least ? cost : least;
            diagonal = up;
        }
    }
    return row[size];
}

bool verbs_is_group(const char *word) {
    size_t size = strlen(word);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strncmp(table[i].name, word, size) == 0 && table[i].name[size] == ' ') {
            return true;
        }
    }
    return false;
}

const char *verbs_nearest(const char *text) {
    const char *best = "status";
    unsigned least = 1000;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        unsigned d = distance(text, table[i].name);
        if (d < least) {
            least = d;
            best = table[i].name;
        }
    }
    return best;
}

const char *verbs_option(const struct call *c, const char *name) {
    for (size_t i = 0; i < VERB_OPTIONS_MAX && c->verb->options[i].name != NULL; i++) {
        if (strcmp(c->verb->options[i].name, name) == 0) {
            return c->options[i];
        }
    }
    return NULL;
}

bool verbs_number(struct call *c, const char *name, uint64_t min, uint64_t max, uint64_t fallback, uint64_t *out) {
    const char *text = verbs_option(c, name);
    *out = fallback;
    if (text == NULL) {
        return true;
    }
    char *end;
    *out = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != 0 || *out < min || *out > max) {
        (void)fprintf(stderr, "greyctl: --%s '%.60s': expected a number from %" PRIu64 " to %" PRIu64 "\n", name, text, min, max);
        return false;
    }
    return true;
}

int verbs_print(struct builder *b) {
    bool written = b->err == E_OK && fwrite(b->data, 1, b->size, stdout) == b->size && fflush(stdout) == 0;
    if (b->err != E_OK) {
        (void)fputs("greyctl: the answer is too large; ask for less\n", stderr);
    }
    builder_free(b);
    return written ? CTL_OK : CTL_FAILED;
}

bool verbs_get(struct call *c, enum client_side side, const char *path, json_t **out, int *code) {
    struct builder raw;
    builder_init(&raw, CLIENT_ANSWER_BYTES_MAX);
    int got = client_get(&c->client, side, path, out, &raw, &c->problem);
    if (got != CTL_OK) {
        *code = client_complain(&c->problem);
    } else if (c->output == OUTPUT_JSON) {
        json_decref(*out);
        *out = NULL;
        *code = verbs_print(&raw);
        return true;
    }
    builder_free(&raw);
    return got != CTL_OK;
}

bool verbs_send(struct call *c, const struct client_request *q, json_t **out, int *code) {
    struct http_answer a;
    *out = NULL;
    *code = client_call(&c->client, q, &a, &c->problem);
    bool done = *code != CTL_OK;
    if (done) {
        *code = client_complain(&c->problem);
    } else if (c->output != OUTPUT_JSON && a.body.size > 0) {
        *out = json_read(builder_bytes(&a.body), NULL);
    }
    if (!done && (c->output == OUTPUT_JSON || (a.body.size > 0 && *out == NULL))) {
        *code = verbs_print(&a.body);
        return true;
    }
    builder_free(&a.body);
    return done;
}

bool verbs_send_json(struct call *c, enum client_side side, const char *method, const char *path, struct builder *body,
                     json_t **out, int *code) {
    struct client_request q = {.side = side,
                               .method = method,
                               .path = path,
                               .body = builder_bytes(body),
                               .body_type = body->size > 0 ? "application/json" : NULL};
    bool done = verbs_send(c, &q, out, code);
    builder_free(body);
    return done;
}

int verbs_relay(struct call *c, const char *method, const char *path, struct bytes body, const char *type) {
    struct client_request q = {.side = CLIENT_CORE, .method = method, .path = path, .body = body, .body_type = type};
    struct http_answer a;
    if (client_call(&c->client, &q, &a, &c->problem) != CTL_OK) {
        builder_free(&a.body);
        return client_complain(&c->problem);
    }
    return verbs_print(&a.body);
}

bool verbs_named(const char *what, const char *name) {
    if (!grey_name_valid(name, strlen(name))) {
        (void)fprintf(stderr, "greyctl: '%.80s' is no name of a %s: 1 to 64 letters, digits, '.', '_' or '-'\n", name, what);
        return false;
    }
    return true;
}

bool verbs_seconds(const struct call *c, const char *name, uint64_t days_max, uint64_t *seconds) {
    static const struct {
        char letter;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    const char *text = verbs_option(c, name);
    char *end;
    if (text == NULL) {
        return true;
    }
    uint64_t number = strtoull(text, &end, 10), unit = *end == 0 ? 1 : 0;
    for (size_t i = 0; i < sizeof units / sizeof units[0] && *end != 0; i++) {
        unit = end[0] == units[i].letter && end[1] == 0 ? units[i].seconds : unit;
    }
    if (text[0] < '0' || text[0] > '9' || unit == 0 || number == 0 || number > days_max * 86400 / unit) {
        (void)fprintf(stderr, "greyctl: --%s '%.40s': expected a time such as 90s, 30m, 12h or 7d, at most %" PRIu64 "d\n", name,
                      text, days_max);
        return false;
    }
    *seconds = number * unit;
    return true;
}

const char *verbs_text(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

bool verbs_hex(const json_t *object, const char *name, uint8_t *out, size_t size) {
    const char *text = verbs_text(object, name);
    if (strlen(text) != 2 * size) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        char digits[3] = {text[2 * i], text[2 * i + 1], 0}, *end;
        out[i] = (uint8_t)strtoul(digits, &end, 16);
        if (*end != 0 || digits[0] == ' ' || digits[0] == '+' || digits[0] == '-') {
            return false;
        }
    }
    return true;
}

uint64_t verbs_uint(const json_t *object, const char *name) {
    json_int_t v = json_integer_value(json_object_get(object, name));
    return v < 0 ? 0 : (uint64_t)v;
}

double verbs_real(const json_t *object, const char *name, double fallback) {
    const json_t *v = json_object_get(object, name);
    return json_is_number(v) ? json_number_value(v) : fallback;
}
