/* greyctl doctor: checks that work without link and, where they can, without a running agent; each finding names its remedy.
 * Exit code 0: fine; 1: something to look at; 2: something is broken. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/ctl/input.h"
#include "agent/ctl/verbs.h"
#include "platform/cert.h"
#include "platform/keyring.h"
#include "platform/yaml.h"

#define DISK_LOOK 0.85
#define DOCUMENT_BYTES_MAX (256u * 1024u) /* a certificate, a configuration */
#define DISK_BROKEN 0.95
#define QUEUE_LOOK 0.8
#define DAY_S 86400
#define CERT_LOOK_S (14 * DAY_S)
#define FIRST_DAY_S 1767225600 /* 2026-01-01: this program is younger */

enum finding { FINE, LOOK, BROKEN };

struct doctor {
    struct call *call;
    struct builder out;
    struct json_writer w;
    unsigned count[3];
};

static void say(struct doctor *d, enum finding f, const char *check, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static void say(struct doctor *d, enum finding f, const char *check, const char *remedy, const char *format, ...) {
    static const char *const words[] = {"ok", "LOOK", "BROKEN"}, *const json_words[] = {"ok", "look", "broken"};
    static const char *const paint[] = {"\033[32m", "\033[33m", "\033[31m"};
    char text[600];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    d->count[f]++;
    if (d->call->output == OUTPUT_JSON) {
        json_open(&d->w, '{');
        json_member_str(&d->w, "check", check);
        json_member_str(&d->w, "result", json_words[f]);
        json_member_str(&d->w, "detail", text);
        json_member_str(&d->w, "remedy", f == FINE ? "" : remedy);
        json_close(&d->w);
        return;
    }
    bool colour = d->call->colour;
    builder_addf(&d->out, "%s%-7s%s %-13s ", colour ? paint[f] : "", words[f], colour ? "\033[0m" : "", check);
    render_text(&d->out, bytes_str(text));
    builder_add_byte(&d->out, '\n');
    if (f != FINE && remedy[0] != 0) {
        builder_addf(&d->out, "%21s -> %s\n", "", remedy);
    }
}

/* --- the node ------------------------------------------------------------------------------------------------------------------------------ */

static void check_members(struct doctor *d, const json_t *cluster) {
    size_t i;
    const json_t *m;
    unsigned voters = 0, alive = 0;
    json_array_foreach(json_object_get(cluster, "members"), i, m) {
        bool healthy = strcmp(verbs_text(m, "state"), "healthy") == 0 || strcmp(verbs_text(m, "state"), "quarantined") == 0,
             voter = strcmp(verbs_text(m, "kind"), "learner") != 0;
        voters += voter;
        alive += voter && healthy;
        if (!healthy) {
            say(d, LOOK, "member", "is it powered, is its cable in, does greyd run there? its log: journalctl -u greyd",
                "node %s at %s is %s", verbs_text(m, "id"), verbs_text(m, "addr"), verbs_text(m, "state"));
        }
    }
    bool quorum = json_is_true(json_object_get(cluster, "quorum"));
    say(d, quorum ? FINE : BROKEN, "quorum", error_remedy(E_NO_QUORUM), "%u of %u voters answer%s%s", alive, voters,
        quorum ? ", leader " : "", quorum ? verbs_text(cluster, "leader_id") : "");
    if (quorum && voters > 1 && json_is_true(json_object_get(cluster, "one_disk"))) {
        say(d, LOOK, "disks",
            "bring the other gateway back; until then guard this one's storage: what is answered now is lost with it",
            "answers rest on the disk of %s alone", verbs_text(cluster, "leader_id"));
    }
    if (quorum && voters == 2) {
        say(d, LOOK, "quorum", "add a third node or a witness", "with two voters the loss of either stops all writes");
    }
}

static void check_queue(struct doctor *d, const json_t *queue) {
    char used[RENDER_SHORT], limit[RENDER_SHORT];
    uint64_t bytes = verbs_uint(queue, "bytes"), bound = verbs_uint(queue, "limit_bytes"), lost = 0, expired = 0;
    const char *name;
    json_t *channel;
    json_object_foreach(json_object_get(queue, "channels"), name, channel) {
        lost += verbs_uint(channel, "gap_events");
        expired += verbs_uint(channel, "expired_events");
    }
    bool full = bound > 0 && (double)bytes > QUEUE_LOOK * (double)bound;
    say(d, full ? LOOK : FINE, "queue",
        "bring the link back, or raise federation.offline.queue_size_mb; when it is full, low priority leaves first",
        "%s of %s used", render_size(bytes, used), render_size(bound, limit));
    if (json_is_true(json_object_get(queue, "overdue"))) {
        say(d, LOOK, "queue", "bring the link back before the queue is full; nothing leaves for that",
            "events have waited longer than federation.offline.max_offline_duration_hours");
    }
    if (lost > 0) {
        say(d, LOOK, "queue", "the ranges are at the core: /v1/sites/SITE/gaps",
            "%" PRIu64 " events were given up unsent, %" PRIu64 " of them for their age", lost, expired);
    }
}

static void judge_link(struct doctor *d, const json_t *link) {
    char span[RENDER_SHORT];
    double contact_s = verbs_real(link, "last_contact_seconds", -1);
    if (json_is_true(json_object_get(link, "up"))) {
        say(d, FINE, "link", "", "up to %s", verbs_text(link, "endpoint"));
        return;
    }
    const char *error = verbs_text(link, "last_error");
    say(d, LOOK, "link", "the site goes on without it; check modem, name service and federation.upstream.endpoints",
        "down%s%s; last contact %s%s", error[0] != 0 ? ": " : "", error, contact_s < 0 ? "never" : render_span(contact_s, span),
        contact_s < 0 ? " since the leader leads" : " ago");
}

static void check_link(struct doctor *d, const json_t *cluster, const json_t *federation) {
    const char *leader = verbs_text(cluster, "leader_id");
    if (!json_is_true(json_object_get(federation, "enabled"))) {
        say(d, FINE, "link", "", "no core configured");
    } else if (leader[0] == 0) {
        say(d, LOOK, "link", "bring the other gateways back first; each keeps what it takes until then",
            "down while the site has no leader");
    } else if (strcmp(leader, verbs_text(federation, "link_of")) == 0) {
        judge_link(d, json_object_get(federation, "link"));
    } else {
        say(d, LOOK, "link", "ask there", "kept by the leader, node %s, which did not answer this node in time", leader);
    }
}

/* Silent where nobody is attested. */
static void check_attestation(struct doctor *d, const json_t *attestation) {
    size_t i, trusted = 0, said = 0;
    const json_t *m, *why;
    json_array_foreach(json_object_get(attestation, "members"), i, m) {
        const char *word = verbs_text(m, "attestation"), *name = verbs_text(m, "id");
        bool shut = json_is_true(json_object_get(m, "quarantined"));
        why = json_object_get(m, "why");
        trusted += strcmp(word, "trusted") == 0;
        said += strcmp(word, "none") != 0;
        if (strcmp(word, "failed") == 0) {
            say(d, shut ? BROKEN : LOOK, "attestation", verbs_text(why, "remedy"), "node %s is not trusted%s: %s: %s", name,
                shut ? " and in quarantine" : "", verbs_text(why, "sentence"), verbs_text(why, "detail"));
        } else if (strcmp(word, "pending") == 0) {
            say(d, LOOK, "attestation", "does its attestation run (attestation.enabled, grey-tpm), and does the core judge?",
                "node %s was not attested yet", name);
        }
    }
    why = json_object_get(json_object_get(attestation, "self"), "why");
    if (json_is_object(why)) {
        say(d, LOOK, "attestation", verbs_text(why, "remedy"), "this gateway, last: %s: %s", verbs_text(why, "sentence"),
            verbs_text(why, "detail"));
    }
    if (said > 0 && trusted == said) {
        say(d, FINE, "attestation", "", "%zu gateways are trusted", trusted);
    }
}

static void check_clock(struct doctor *d, const json_t *health) {
    const json_t *clock = json_object_get(json_object_get(health, "checks"), "clock");
    double off_s = verbs_real(clock, "offset_from_site_seconds", 0);
    bool healthy = strcmp(verbs_text(clock, "status"), "healthy") == 0;
    say(d, healthy ? FINE : LOOK, "clock", "set this node's clock (timedatectl, or its battery); elections do not depend on it",
        "%.1f s from the site's time", off_s);
}

/* What is on the disk, as its slow reading through finds it. */
static void check_data(struct doctor *d, const json_t *health) {
    const json_t *storage = json_object_get(json_object_get(health, "checks"), "storage");
    const char *damage = verbs_text(storage, "damage");
    double ago_s = verbs_real(storage, "checked_seconds_ago", -1);
    char span[RENDER_SHORT];
    if (damage[0] != 0) {
        say(d, LOOK, "data", error_remedy(E_CORRUPT), "damaged: %.200s", damage);
    } else {
        say(d, FINE, "data", "", "no damage known; read through %s%s, and %" PRIu64 "%% of it since",
            ago_s < 0 ? "never" : render_span(ago_s, span), ago_s < 0 ? " since its start" : " ago",
            verbs_uint(storage, "checked_percent"));
    }
}

/* Nothing is said of what the board does not tell. */
static void check_board(struct doctor *d, const json_t *health) {
    const json_t *board = json_object_get(json_object_get(health, "checks"), "board"),
                 *temperature = json_object_get(board, "temperature_celsius"), *low = json_object_get(board, "under_voltage");
    bool fine = strcmp(verbs_text(board, "status"), "healthy") == 0;
    if (json_is_true(low)) {
        say(d, LOOK, "supply", "a better adapter, a shorter cable: a board that browns out loses writes", "the voltage is too low");
    }
    if (json_is_number(temperature)) {
        say(d, fine || json_is_true(low) ? FINE : LOOK, "heat", "see to air around it; it slows down and then switches off",
            "%.0f degrees", json_number_value(temperature));
    }
}

/* The value of an unlabelled metric; negative when it is not there. */
static double metric(struct bytes text, const char *name) {
    size_t size = strlen(name);
    for (size_t i = 0; i + size + 1 < text.size; i++) {
        if ((i == 0 || text.data[i - 1] == '\n') && memcmp(text.data + i, name, size) == 0 && text.data[i + size] == ' ') {
            char number[40] = "";
            size_t left = text.size - i - size - 1;
            memcpy(number, text.data + i + size + 1, left < sizeof number - 1 ? left : sizeof number - 1);
            return strtod(number, NULL);
        }
    }
    return -1;
}

static void check_disk(struct doctor *d) {
    struct client_request q = {.side = CLIENT_NODE, .method = "GET", .path = "/metrics"};
    struct http_answer a;
    if (client_call(&d->call->client, &q, &a, &d->call->problem) == CTL_OK) {
        double ratio = metric(builder_bytes(&a.body), "grey_storage_disk_usage_ratio");
        enum finding f = ratio > DISK_BROKEN ? BROKEN : ratio > DISK_LOOK ? LOOK : FINE;
        if (ratio >= 0) {
            say(d, f, "disk", error_remedy(E_DISK_FULL), "%.0f%% of the node's storage device is used", 100 * ratio);
        }
    }
    builder_free(&a.body);
}

static void check_node(struct doctor *d) {
    struct client *client = &d->call->client;
    struct client_problem *p = &d->call->problem;
    json_t *cluster = NULL, *queue = NULL, *federation = NULL;
    if (client_get(client, CLIENT_NODE, "/v1/cluster/status", &cluster, NULL, p) != CTL_OK) {
        say(d, BROKEN, "agent", p->remedy, "%s: %s", p->title, p->detail);
        return;
    }
    say(d, FINE, "agent", "", "node %s of site %s answers, version %s", verbs_text(cluster, "node_id"),
        verbs_text(cluster, "site_id"), verbs_text(cluster, "version"));
    check_members(d, cluster);
    check_disk(d);
    struct client_request q = {.side = CLIENT_NODE, .method = "GET", .path = "/health/detailed"};
    struct http_answer a;
    (void)client_call(client, &q, &a, p); /* 503 carries the document too */
    json_t *health = json_read(builder_bytes(&a.body), NULL);
    builder_free(&a.body);
    if (health != NULL) {
        check_data(d, health);
        check_clock(d, health);
        check_board(d, health);
    }
    if (client_get(client, CLIENT_NODE, "/v1/queue", &queue, NULL, p) == CTL_OK) {
        check_queue(d, queue);
    }
    if (client_get(client, CLIENT_NODE, "/v1/federation/status", &federation, NULL, p) == CTL_OK) {
        check_link(d, cluster, federation);
        check_attestation(d, json_object_get(federation, "attestation"));
    }
    json_decref(cluster);
    json_decref(queue);
    json_decref(federation);
    json_decref(health);
}

/* --- this machine --------------------------------------------------------------------------------------------------------------------------- */

static void check_certificate(struct doctor *d, const char *key, const char *path) {
    struct builder pem;
    struct cert_facts facts;
    struct fault f = {0};
    char span[RENDER_SHORT];
    builder_init(&pem, DOCUMENT_BYTES_MAX);
    if (!input_read(path, NULL, &pem)) {
        say(d, BROKEN, "certificate", "put it there, or correct the key; greyd will not start without it", "%s: %s cannot be read",
            key, path);
    } else {
        builder_add_byte(&pem, 0);
        double left_s = 0, early_s = 0;
        if (cert_read((const char *)pem.data, &facts, &f) != E_OK) {
            say(d, BROKEN, "certificate", error_remedy(E_CERT), "%s: %s: %s", key, path, f.text);
        } else {
            int64_t now_s = (int64_t)time(NULL);
            left_s = (double)(facts.not_after_s - now_s);
            early_s = (double)(facts.not_before_s - now_s);
            if (left_s <= 0) {
                say(d, BROKEN, "certificate", "issue a new one", "%s: %s ran out %s ago", key, path, render_span(-left_s, span));
            } else if (early_s > 0) {
                say(d, LOOK, "certificate", "is this machine's clock right?", "%s: %s is valid only in %s", key, path,
                    render_span(early_s, span));
            } else {
                say(d, left_s < CERT_LOOK_S ? LOOK : FINE, "certificate", "issue a new one soon", "%s: %s, valid for %s more", key,
                    facts.uri[0] != 0 ? facts.uri : facts.subject_cn, render_span(left_s, span));
            }
        }
    }
    builder_free(&pem);
}

/* A key that this machine's TPM keeps; door: where its service is asked, NULL: the usual place. */
static void check_tpm_key(struct doctor *d, const char *key, const char *name, const char *door) {
    char where[2 * LIMIT_PATH_BYTES + 2];
    struct keysign k;
    struct fault f = {0};
    bool told = keyring_socket(name)[0] != 0 || door == NULL;
    (void)snprintf(where, sizeof where, "%.1024s%s%.1024s", name, told ? "" : "@", told ? "" : door);
    enum grey_error err = keyring_open(where, &k, &f);
    if (err == E_OK) {
        keysign_close(&k);
        say(d, FINE, "key", "", "%s: %s, which this machine's TPM keeps", key, name);
    } else {
        say(d, BROKEN, "key", error_remedy(err), "%s: %s (GREY-%d): %s", key, error_sentence(err), error_id(err), f.text);
    }
}

static void check_key(struct doctor *d, const char *key, const char *path) {
    struct stat s;
    if (stat(path, &s) != 0) {
        say(d, BROKEN, "key", error_remedy(E_KEY), "%s: %s is not there", key, path);
    } else if ((s.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)) != 0) {
        say(d, BROKEN, "key", "chmod 600, and consider it known to others", "%s: %s can be read or changed by others", key, path);
    } else {
        say(d, FINE, "key", "", "%s: only its owner%s can read it", key, (s.st_mode & S_IRGRP) != 0 ? " and group" : "");
    }
}

/* The text at a path of keys such as "security.tls.cert"; NULL when it is not there or empty. */
static const char *setting(const struct yaml_node *root, const char *path) {
    char part[64];
    const struct yaml_node *n = root;
    while (n != NULL && *path != 0) {
        size_t size = strcspn(path, ".");
        (void)snprintf(part, sizeof part, "%.*s", (int)size, path);
        n = yaml_get(n, part);
        path += size + (path[size] == '.');
    }
    return n != NULL && n->kind == YAML_SCALAR && n->text.size > 0 ? (const char *)n->text.data : NULL;
}

static void check_files(struct doctor *d, const struct yaml_node *root) {
    static const char *const certificates[] = {"security.tls.ca_cert", "security.tls.cert", "federation.upstream.tls.ca_cert",
                                               "federation.upstream.tls.client_cert"};
    static const char *const keys[] = {"security.tls.key", "federation.upstream.tls.client_key"};
    for (size_t i = 0; i < sizeof certificates / sizeof certificates[0]; i++) {
        const char *path = setting(root, certificates[i]);
        if (path != NULL) {
            check_certificate(d, certificates[i], path);
        }
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *path = setting(root, keys[i]);
        if (path != NULL && keyring_with_tpm(path)) {
            check_tpm_key(d, keys[i], path, setting(root, "attestation.socket"));
        } else if (path != NULL) {
            check_key(d, keys[i], path);
        }
    }
}

static void check_config(struct doctor *d) {
    static const char *const places[] = {"/etc/grey/greyd.yaml", "run/node1/greyd.yaml"};
    const char *file = verbs_option(d->call, "config");
    for (size_t i = 0; file == NULL && i < sizeof places / sizeof places[0]; i++) {
        file = access(places[i], F_OK) == 0 ? places[i] : NULL;
    }
    if (file == NULL) {
        say(d, FINE, "configuration", "", "no file on this machine; the node runs on flags and defaults");
        return;
    }
    struct builder text;
    struct fault f = {0};
    builder_init(&text, DOCUMENT_BYTES_MAX);
    if (!input_read(file, NULL, &text)) {
        say(d, BROKEN, "configuration", "check its owner and mode; use sudo", "%s cannot be read", file);
    } else {
        struct yaml_doc *doc = yaml_read(builder_bytes(&text), &f);
        if (doc == NULL) {
            say(d, BROKEN, "configuration", "correct that line; greyctl config check says more", "%s: %s", file, f.text);
        } else {
            say(d, FINE, "configuration", "", "%s can be read; greyctl config check judges its keys", file);
            check_files(d, yaml_root(doc));
        }
        yaml_doc_free(doc);
    }
    builder_free(&text);
}

static void check_wall_clock(struct doctor *d) {
    char text[40];
    time_t now = time(NULL);
    struct tm utc;
    (void)gmtime_r(&now, &utc);
    (void)strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &utc);
    say(d, now < FIRST_DAY_S ? LOOK : FINE, "wall clock", "set it, or wait for the network's time; certificates are judged by it",
        "%s UTC here", text);
}

static void check_core(struct doctor *d) {
    const char *address = getenv("GREY_CORE");
    if (d->call->client.address[CLIENT_CORE] == NULL && (address == NULL || address[0] == 0)) {
        return; /* gateways reach the core's broker, seldom its API */
    }
    json_t *health;
    if (client_get(&d->call->client, CLIENT_CORE, "/health", &health, NULL, &d->call->problem) != CTL_OK) {
        say(d, LOOK, "core", d->call->problem.remedy, "%s: %s", d->call->problem.title, d->call->problem.detail);
    } else {
        bool healthy = strcmp(verbs_text(health, "status"), "healthy") == 0;
        say(d, healthy ? FINE : LOOK, "core", "is the broker running?", "%s, broker %s", verbs_text(health, "status"),
            verbs_text(health, "broker"));
    }
    json_decref(health);
}

int doctor_run(struct call *c) {
    struct doctor d = {.call = c};
    builder_init(&d.out, CLIENT_ANSWER_BYTES_MAX);
    json_writer_init(&d.w, &d.out);
    bool json = c->output == OUTPUT_JSON;
    if (json) {
        json_open(&d.w, '[');
    }
    check_node(&d);
    check_config(&d);
    check_wall_clock(&d);
    check_core(&d);
    if (json) {
        json_close(&d.w);
        builder_add_byte(&d.out, '\n');
    } else if (d.count[BROKEN] + d.count[LOOK] == 0) {
        builder_addf(&d.out, "\nfine: %u checks\n", d.count[FINE]);
    } else {
        builder_addf(&d.out, "\n%u broken, %u to look at, %u fine\n", d.count[BROKEN], d.count[LOOK], d.count[FINE]);
    }
    int printed = verbs_print(&d.out);
    return printed != CTL_OK ? 2 : d.count[BROKEN] > 0 ? 2 : d.count[LOOK] > 0 ? 1 : 0;
}
