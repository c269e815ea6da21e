/* greyctl: the command line for people.  One table of verbs; from it come dispatch, help and completion. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/ctl/render.h"
#include "include/grey/limits.h"
#include "platform/fault.h"
#include "platform/http_fetch.h"

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_NO_QUORUM };

#define ANSWER_BYTES_MAX (64u * 1024u * 1024u)
#define TIMEOUT_MS 15000u
#define WATCH_TIMEOUT_MS 70000u
#define PATH_BYTES 4096u

struct ctl {
    const char *address, *core;
    enum render_form form;
    int argc;
    char **argv; /* words behind the verb */
    const char *program;
};

/* --- talking to node and core ------------------------------------------------------------------------------------------------------------ */

struct talk {
    struct http_answer answer;
    json_t *json; /* NULL when the answer is not JSON */
};

static void talk_free(struct talk *t) {
    builder_free(&t->answer.body);
    json_decref(t->json);
}

/* Says what went wrong, where and what to do; returns the exit code. */
static int refuse(const struct ctl *c, const char *where, const struct talk *t) {
    const char *title = json_string_value(json_object_get(t->json, "title")),
               *detail = json_string_value(json_object_get(t->json, "detail"));
    const char *remedy = json_string_value(json_object_get(t->json, "remedy")),
               *type = json_string_value(json_object_get(t->json, "type"));
    const char *id = type == NULL ? NULL : strrchr(type, '/');
    (void)fprintf(stderr, "%s: %s answers %d: %s%s%s%s%s\n", c->program, where, t->answer.status,
                  title == NULL ? "(no reason given)" : title, detail != NULL && detail[0] != 0 ? ": " : "",
                  detail == NULL ? "" : detail, id == NULL ? "" : "  ", id == NULL ? "" : id + 1);
    if (remedy != NULL && remedy[0] != 0) {
        (void)fprintf(stderr, "  -> %s\n", remedy);
    }
    return t->answer.status == 503 || t->answer.status == 504 ? EXIT_NO_QUORUM : EXIT_REFUSED;
}

static int talk_to(const struct ctl *c, const char *where, const struct http_fetch *q, struct talk *t) {
    struct fault f = {0}, ignored;
    memset(t, 0, sizeof *t);
    enum grey_error err = http_fetch(q, &t->answer, &f);
    if (err != E_OK) {
        (void)fprintf(stderr, "%s: %s (GREY-%d): %s\n  -> %s\n", c->program, error_sentence(err), error_id(err), f.text,
                      err == E_CONNECT ? "is it running there? say --addr or --core for another address" : error_remedy(err));
        talk_free(t);
        return err == E_USAGE ? EXIT_USAGE : EXIT_FAILED;
    }
    if (strstr(t->answer.content_type, "json") != NULL) {
        t->json = json_read(builder_bytes(&t->answer.body), &ignored);
    }
    if (t->answer.status >= 400) {
        int code = refuse(c, where, t);
        talk_free(t);
        return code;
    }
    return EXIT_OK;
}

static int ask(const struct ctl *c, const char *address, const char *method, const char *path, struct bytes body, const char *type,
               struct talk *t) {
    struct http_fetch q = {.address = address,
                           .method = method,
                           .path = path,
                           .body = body,
                           .body_type = type,
                           .timeout_ms = TIMEOUT_MS,
                           .answer_bytes_max = ANSWER_BYTES_MAX};
    return talk_to(c, address, &q, t);
}

static int get(const struct ctl *c, const char *path, struct talk *t) {
    return ask(c, c->address, "GET", path, bytes_of(NULL, 0), NULL, t);
}

static void print_body(const struct talk *t) {
    (void)fwrite(t->answer.body.data, 1, t->answer.body.size, stdout);
    if (t->answer.body.size > 0 && t->answer.body.data[t->answer.body.size - 1] != '\n' && isatty(STDOUT_FILENO) == 1) {
        (void)putchar('\n');
    }
}

/* prefix + name, percent-encoded but for what may stand in a path. */
static void put_path(char out[PATH_BYTES], const char *prefix, const char *name, const char *suffix) {
    size_t at = (size_t)snprintf(out, PATH_BYTES, "%s", prefix);
    for (; *name != 0 && at + 4 < PATH_BYTES; name++) {
        if (isalnum((unsigned char)*name) || strchr("-._~/:@", *name) != NULL) {
            out[at++] = *name;
        } else {
            at += (size_t)snprintf(out + at, PATH_BYTES - at, "%%%02X", (unsigned)(unsigned char)*name);
        }
    }
    (void)snprintf(out + at, PATH_BYTES - at, "%s", suffix);
}

/* The value of --name among the words, taken out; NULL: not there. */
static const char *option(struct ctl *c, const char *name) {
    for (int i = 0; i < c->argc; i++) {
        size_t size = strlen(name);
        if (strncmp(c->argv[i], name, size) != 0 || (c->argv[i][size] != 0 && c->argv[i][size] != '=')) {
            continue;
        }
        bool joined = c->argv[i][size] == '=';
        int used = joined ? 1 : 2;
        if (i + used > c->argc) {
            return NULL;
        }
        const char *value = joined ? c->argv[i] + size + 1 : c->argv[i + 1];
        memmove(&c->argv[i], &c->argv[i + used], (size_t)(c->argc - i - used) * sizeof *c->argv);
        c->argc -= used;
        return value;
    }
    return NULL;
}

static bool flag(struct ctl *c, const char *name) {
    for (int i = 0; i < c->argc; i++) {
        if (strcmp(c->argv[i], name) == 0) {
            memmove(&c->argv[i], &c->argv[i + 1], (size_t)(c->argc - i - 1) * sizeof *c->argv);
            c->argc--;
            return true;
        }
    }
    return false;
}

static int usage(const struct ctl *c, const char *text) {
    (void)fprintf(stderr, "usage: %s %s\n", c->program, text);
    return EXIT_USAGE;
}

static double number(const json_t *object, const char *name) {
    return json_number_value(json_object_get(object, name));
}

/* --- status -------------------------------------------------------------------------------------------------------------------------------- */

static const struct render_column member_columns[] = {
    {"NODE", "id", false},     {"ROLE", "role", false},         {"KIND", "kind", false},
    {"STATE", "state", false}, {"MATCH", "match_index", false}, {"API", "http_addr", false},
    {"PEER", "addr", true},    {"RAFT ID", "raft_id", true},    {"ATTESTATION", "attestation", false}};

static void verdict(const json_t *cluster, const json_t *federation, const json_t *queue) {
    char text[400], waiting[16], away[24] = "";
    size_t voters = 0, healthy = 0;
    const json_t *members = json_object_get(cluster, "members");
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *m = json_array_get(members, i);
        if (strcmp(json_string_value(json_object_get(m, "kind")), "voter") == 0) {
            voters++;
            healthy += strcmp(json_string_value(json_object_get(m, "state")), "healthy") == 0;
        }
    }
    double pending = 0;
    const char *name;
    json_t *channel;
    json_object_foreach(json_object_get(queue, "channels"), name, channel) {
        pending += number(channel, "pending");
    }
    double bytes = number(queue, "bytes"), limit = number(queue, "limit_bytes");
    render_bytes(bytes, waiting);
    const json_t *link = json_object_get(federation, "link");
    bool enabled = json_is_true(json_object_get(federation, "enabled")), up = json_is_true(json_object_get(link, "up"));
    bool owner = strcmp(json_string_value(json_object_get(cluster, "node_id")),
                        json_string_value(json_object_get(cluster, "leader_id"))) == 0;
    bool quorum = json_is_true(json_object_get(cluster, "quorum"));
    size_t majority = voters / 2 + 1, can_lose = quorum && healthy >= majority ? healthy - majority : 0;
    const json_t *contact = json_object_get(link, "last_contact_seconds");
    if (json_is_number(contact)) {
        render_duration(json_number_value(contact), away);
    }
    enum render_tone tone = !quorum ? TONE_BAD : healthy < voters || (enabled && owner && !up) ? TONE_WARN : TONE_GOOD;
    int at = snprintf(text, sizeof text, "%s: %zu of %zu nodes, %s%s, can lose %zu node%s",
                      !quorum             ? "NO QUORUM"
                      : tone == TONE_WARN ? "DEGRADED"
                                          : "OK",
                      healthy, voters, quorum ? "leader " : "no leader",
                      quorum ? json_string_value(json_object_get(cluster, "leader_id")) : "", can_lose, can_lose == 1 ? "" : "s");
    if (!enabled) {
        (void)snprintf(text + at, sizeof text - (size_t)at, "; no core configured, %.0f events (%s) kept", pending, waiting);
    } else if (!owner || up) {
        (void)snprintf(text + at, sizeof text - (size_t)at, "; %s, %.0f events (%s) waiting",
                       owner ? "link to the core up" : "link held by the leader", pending, waiting);
    } else {
        (void)snprintf(text + at, sizeof text - (size_t)at, "; OFFLINE%s%s, %.0f events (%s) waiting, queue %.0f%% full",
                       away[0] != 0 ? " for " : "", away, pending, waiting, limit > 0 ? 100 * bytes / limit : 0);
    }
    render_verdict(tone, text);
}

static int do_status(struct ctl *c) {
    struct talk cluster, federation, queue;
    int code = get(c, "/v1/cluster/status", &cluster);
    if (code != EXIT_OK) {
        return code;
    }
    /* The leader holds the link: its view is the one that counts. */
    struct ctl leader = *c;
    char address[LIMIT_ADDRESS_BYTES + 16];
    const json_t *members = json_object_get(cluster.json, "members");
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *m = json_array_get(members, i);
        const char *http = json_string_value(json_object_get(m, "http_addr"));
        if (strcmp(json_string_value(json_object_get(m, "role")), "leader") == 0 && http != NULL && strncmp(http, "127.", 4) == 0) {
            (void)snprintf(address, sizeof address, "http://%s", http);
            leader.address = address;
        }
    }
    struct talk view;
    if (leader.address != c->address && get(&leader, "/v1/cluster/status", &view) == EXIT_OK) {
        talk_free(&cluster);
        cluster = view;
    } else {
        leader.address = c->address;
    }
    code = get(&leader, "/v1/federation/status", &federation);
    if (code == EXIT_OK && (code = get(&leader, "/v1/queue", &queue)) == EXIT_OK) {
        if (c->form == RENDER_JSON) {
            json_t *all = json_pack("{s:O, s:O, s:O}", "cluster", cluster.json, "federation", federation.json, "queue", queue.json);
            (void)json_dumpf(all, stdout, JSON_INDENT(2));
            (void)putchar('\n');
            json_decref(all);
        } else {
            verdict(cluster.json, federation.json, queue.json);
            (void)putchar('\n');
            render_table(json_object_get(cluster.json, "members"), member_columns, sizeof member_columns / sizeof member_columns[0],
                         c->form == RENDER_WIDE);
        }
        talk_free(&queue);
    }
    if (code == EXIT_OK) {
        talk_free(&federation);
    }
    talk_free(&cluster);
    return code;
}

/* --- simple questions ------------------------------------------------------------------------------------------------------------------------- */

static int show(struct ctl *c, const char *address, const char *path, const char *member, const struct render_column *columns,
                size_t count) {
    struct talk t;
    int code = ask(c, address, "GET", path, bytes_of(NULL, 0), NULL, &t);
    if (code != EXIT_OK) {
        return code;
    }
    const json_t *rows = member == NULL ? t.json : json_object_get(t.json, member);
    if (c->form == RENDER_JSON || columns == NULL) {
        if (c->form == RENDER_JSON) {
            print_body(&t);
        } else {
            (void)json_dumpf(t.json, stdout, JSON_INDENT(2));
            (void)putchar('\n');
        }
    } else {
        render_table(rows, columns, count, c->form == RENDER_WIDE);
    }
    talk_free(&t);
    return EXIT_OK;
}

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static int do_cluster_status(struct ctl *c) {
    return c->form == RENDER_JSON ? show(c, c->address, "/v1/cluster/status", NULL, NULL, 0) : do_status(c);
}

static int do_cluster_members(struct ctl *c) {
    return show(c, c->address, "/v1/cluster/members", NULL, member_columns, COUNT(member_columns));
}

static int do_cluster_leader(struct ctl *c) {
    struct talk t;
    int code = get(c, "/v1/cluster/leader", &t);
    if (code == EXIT_OK) {
        if (c->form == RENDER_JSON) {
            print_body(&t);
        } else {
            (void)printf("%s\n", json_string_value(json_object_get(t.json, "leader_id")));
        }
        talk_free(&t);
    }
    return code;
}

static int do_member_remove(struct ctl *c) {
    char path[PATH_BYTES];
    struct talk t;
    if (c->argc != 1) {
        return usage(c, "member remove NODE   (asked of the leader)");
    }
    put_path(path, "/v1/admin/members/", c->argv[0], "");
    int code = ask(c, c->address, "DELETE", path, bytes_of(NULL, 0), NULL, &t);
    if (code == EXIT_OK) {
        (void)printf("accepted; see '%s cluster members'\n", c->program);
        talk_free(&t);
    }
    return code;
}

static int do_queue(struct ctl *c) {
    struct talk t;
    int code = get(c, "/v1/queue", &t);
    if (code != EXIT_OK) {
        return code;
    }
    if (c->form == RENDER_JSON) {
        print_body(&t);
    } else {
        static const struct render_column columns[] = {{"CHANNEL", "channel", false}, {"NEXT", "next_seq", false},
                                                       {"ACKED", "acked_seq", false}, {"PENDING", "pending", false},
                                                       {"BYTES", "bytes", false},     {"OLDEST S", "oldest_seconds", false},
                                                       {"GAPS", "gaps", false},       {"LOST EVENTS", "gap_events", false}};
        json_t *rows = json_array(), *channel;
        const char *name;
        json_object_foreach(json_object_get(t.json, "channels"), name, channel) {
            (void)json_object_set_new(channel, "channel", json_string(name));
            (void)json_array_append(rows, channel);
        }
        render_table(rows, columns, COUNT(columns), false);
        json_decref(rows);
    }
    talk_free(&t);
    return EXIT_OK;
}

static int do_federation_status(struct ctl *c) {
    return show(c, c->address, "/v1/federation/status", NULL, NULL, 0);
}

/* --- keys ---------------------------------------------------------------------------------------------------------------------------------------- */

static int do_kv_get(struct ctl *c) {
    char path[PATH_BYTES];
    struct talk t;
    bool stale = flag(c, "--stale");
    if (c->argc != 1) {
        return usage(c, "kv get KEY [--stale]");
    }
    put_path(path, "/v1/kv/", c->argv[0], stale ? "?consistency=stale" : "");
    int code = get(c, path, &t);
    if (code == EXIT_OK) {
        print_body(&t);
        talk_free(&t);
    }
    return code;
}

static bool read_stdin(struct builder *out) {
    uint8_t room[65536];
    size_t got;
    while ((got = fread(room, 1, sizeof room, stdin)) > 0) {
        builder_add(out, bytes_of(room, got));
    }
    return out->err == E_OK;
}

static int do_kv_put(struct ctl *c) {
    char path[PATH_BYTES], header[80];
    const char *if_version = option(c, "--if-version"), *type = option(c, "--content-type"), *headers[] = {header, NULL};
    bool create = flag(c, "--create");
    struct builder value;
    struct talk t;
    if (c->argc != 2 || (create && if_version != NULL)) {
        return usage(c, "kv put KEY VALUE|- [--if-version N | --create] [--content-type TYPE]");
    }
    builder_init(&value, LIMIT_VALUE_BYTES + 1);
    if (strcmp(c->argv[1], "-") != 0) {
        builder_add_str(&value, c->argv[1]);
    } else if (!read_stdin(&value)) {
        (void)fprintf(stderr, "%s: a value is at most 1 MiB\n", c->program);
        builder_free(&value);
        return EXIT_USAGE;
    }
    (void)snprintf(header, sizeof header, create ? "If-None-Match: *" : "If-Match: \"%.40s\"",
                   if_version == NULL ? "" : if_version);
    put_path(path, "/v1/kv/", c->argv[0], "");
    struct http_fetch q = {.address = c->address,
                           .method = "PUT",
                           .path = path,
                           .headers = create || if_version != NULL ? headers : NULL,
                           .body = builder_bytes(&value),
                           .body_type = type == NULL ? "text/plain" : type,
                           .timeout_ms = TIMEOUT_MS,
                           .answer_bytes_max = ANSWER_BYTES_MAX};
    int code = talk_to(c, c->address, &q, &t);
    if (code == EXIT_OK) {
        if (c->form == RENDER_JSON) {
            print_body(&t);
        } else {
            (void)printf("version %.0f\n", number(t.json, "version"));
        }
        talk_free(&t);
    }
    builder_free(&value);
    return code;
}

static int do_kv_del(struct ctl *c) {
    char path[PATH_BYTES];
    struct talk t;
    if (c->argc != 1) {
        return usage(c, "kv del KEY");
    }
    put_path(path, "/v1/kv/", c->argv[0], "");
    int code = ask(c, c->address, "DELETE", path, bytes_of(NULL, 0), NULL, &t);
    if (code == EXIT_OK) {
        (void)printf("deleted\n");
        talk_free(&t);
    }
    return code;
}

static int do_kv_list(struct ctl *c) {
    static const struct render_column columns[] = {
        {"KEY", "key", false}, {"VERSION", "version", false}, {"BYTES", "bytes", false}, {"TYPE", "content_type", true}};
    char path[PATH_BYTES];
    put_path(path, "/v1/kv?prefix=", c->argc > 0 ? c->argv[0] : "", "");
    return c->argc > 1 ? usage(c, "kv list [PREFIX]") : show(c, c->address, path, "keys", columns, COUNT(columns));
}

static int do_kv_watch(struct ctl *c) {
    char path[PATH_BYTES], suffix[64];
    const char *from = option(c, "--from");
    if (c->argc != 1) {
        return usage(c, "kv watch KEY [--from VERSION]");
    }
    unsigned long long version = from == NULL ? 0 : strtoull(from, NULL, 10);
    for (;;) {
        struct talk t;
        (void)snprintf(suffix, sizeof suffix, "?watch=%llu", version);
        put_path(path, "/v1/kv/", c->argv[0], suffix);
        struct http_fetch q = {.address = c->address,
                               .method = "GET",
                               .path = path,
                               .timeout_ms = WATCH_TIMEOUT_MS,
                               .answer_bytes_max = ANSWER_BYTES_MAX};
        int code = talk_to(c, c->address, &q, &t);
        if (code != EXIT_OK) {
            return code;
        }
        if (t.answer.status == 200) {
            version = strtoull(t.answer.etag + (t.answer.etag[0] == '"'), NULL, 10);
            (void)printf("%llu\t", version);
            print_body(&t);
            (void)putchar('\n');
            (void)fflush(stdout);
        }
        talk_free(&t);
    }
}

/* --- events -------------------------------------------------------------------------------------------------------------------------------------- */

static int do_event_send(struct ctl *c) {
    const char *type = option(c, "--type"), *priority = option(c, "--priority"), *data = option(c, "--data"),
               *id = option(c, "--id");
    const char *source = option(c, "--source");
    struct builder body, input;
    struct json_writer w;
    struct talk t;
    struct fault f = {0};
    if (type == NULL || c->argc != 0) {
        return usage(c, "event send --type TYPE [--priority critical|high|normal|low] [--data JSON|-] [--id ID] [--source SOURCE]");
    }
    builder_init(&body, LIMIT_BATCH_BYTES);
    builder_init(&input, LIMIT_BATCH_BYTES);
    if (data != NULL && strcmp(data, "-") == 0) {
        (void)read_stdin(&input);
        builder_add_byte(&input, 0);
        data = (const char *)input.data;
    }
    json_t *parsed = data == NULL ? json_null() : json_read(bytes_str(data), &f);
    json_writer_init(&w, &body);
    json_open(&w, '{');
    const struct {
        const char *name, *value;
    } fields[] = {{"type", type}, {"priority", priority == NULL ? "normal" : priority}, {"id", id}, {"source", source}};
    for (size_t i = 0; i < COUNT(fields); i++) {
        if (fields[i].value != NULL) {
            json_key(&w, fields[i].name);
            json_str(&w, fields[i].value);
        }
    }
    json_key(&w, "data");
    if (data == NULL) {
        json_none(&w);
    } else if (parsed != NULL) {
        json_raw(&w, bytes_str(data));
    } else {
        json_str(&w, data); /* not JSON: sent as text */
    }
    json_close(&w);
    int code = ask(c, c->address, "POST", "/v1/events", builder_bytes(&body), "application/json", &t);
    if (code == EXIT_OK) {
        const json_t *e = json_array_get(json_object_get(t.json, "accepted"), 0);
        if (c->form == RENDER_JSON) {
            print_body(&t);
        } else {
            (void)printf("kept: %s %.0f%s\n", json_string_value(json_object_get(e, "channel")), number(e, "seq"),
                         json_is_true(json_object_get(e, "duplicate")) ? " (was there already)" : "");
        }
        talk_free(&t);
    }
    json_decref(parsed);
    builder_free(&body);
    builder_free(&input);
    return code;
}

static const struct render_column event_columns[] = {
    {"CHANNEL", "channel", false}, {"SEQ", "seq", false},       {"TIME", "log_time", false}, {"PRIORITY", "priority", false},
    {"TYPE", "type", false},       {"SOURCE", "source", false}, {"DATA", "data", false},     {"ID", "id", true}};

/* Pages through the core's events; with follow goes on waiting for new ones. */
static int list_events(struct ctl *c, const char *site, const char *channel, const char *after, unsigned long limit, bool follow) {
    char cursor[96], path[PATH_BYTES], query[256];
    unsigned long shown = 0;
    (void)snprintf(cursor, sizeof cursor, "%s", after == NULL ? "" : after);
    for (;;) {
        struct talk t;
        unsigned long page = limit - shown < 1000 ? limit - shown : 1000;
        (void)snprintf(query, sizeof query, "/events?limit=%lu&after=%s%s%s", page, cursor,
                       channel == NULL ? "" : "&channel=", channel == NULL ? "" : channel);
        put_path(path, "/v1/sites/", site, query);
        int code = ask(c, c->core, "GET", path, bytes_of(NULL, 0), NULL, &t);
        if (code != EXIT_OK) {
            return code;
        }
        const json_t *events = json_object_get(t.json, "events");
        size_t count = json_array_size(events);
        if (c->form == RENDER_JSON) {
            for (size_t i = 0; i < count; i++) {
                (void)json_dumpf(json_array_get(events, i), stdout, JSON_COMPACT);
                (void)putchar('\n');
            }
        } else if (count > 0) {
            render_table(events, event_columns, COUNT(event_columns), c->form == RENDER_WIDE);
        }
        (void)fflush(stdout);
        shown += count;
        (void)snprintf(cursor, sizeof cursor, "%s", json_string_value(json_object_get(t.json, "next")));
        talk_free(&t);
        if (count < page) {
            if (!follow) {
                return EXIT_OK;
            }
            (void)sleep(1);
        } else if (!follow && shown >= limit) {
            return EXIT_OK;
        }
    }
}

static int do_site_events(struct ctl *c) {
    const char *channel = option(c, "--channel"), *after = option(c, "--after"), *limit = option(c, "--limit");
    if (c->argc != 1) {
        return usage(c, "site events SITE [--channel control|events|data] [--after CURSOR] [--limit N]");
    }
    return list_events(c, c->argv[0], channel, after, limit == NULL ? 100 : strtoul(limit, NULL, 10), false);
}

/* As the core sees them, so that what is shown has arrived. */
static int do_event_tail(struct ctl *c) {
    const char *channel = option(c, "--channel"), *after = option(c, "--after");
    struct talk t;
    int code = get(c, "/v1/cluster/status", &t);
    if (code != EXIT_OK) {
        return code;
    }
    char site[LIMIT_NAME_BYTES + 1];
    (void)snprintf(site, sizeof site, "%s", json_string_value(json_object_get(t.json, "site_id")));
    talk_free(&t);
    return list_events(c, site, channel, after, (unsigned long)-1, true);
}

static int do_site_list(struct ctl *c) {
    static const struct render_column columns[] = {{"SITE", "id", false},
                                                   {"LAST CONTACT S", "last_contact_seconds", false},
                                                   {"NODE", "node", false},
                                                   {"CONTROL", "channels.control.acked_seq", false},
                                                   {"EVENTS", "channels.events.acked_seq", false},
                                                   {"DATA", "channels.data.acked_seq", false},
                                                   {"LOST", "gap_events", false},
                                                   {"EPOCH", "epoch", true},
                                                   {"INCARNATION", "incarnation", true}};
    return show(c, c->core, "/v1/sites", NULL, columns, COUNT(columns));
}

static int do_site_show(struct ctl *c) {
    char path[PATH_BYTES];
    if (c->argc != 1) {
        return usage(c, "site show SITE");
    }
    put_path(path, "/v1/sites/", c->argv[0], "");
    return show(c, c->core, path, NULL, NULL, 0);
}

/* --- the rest -------------------------------------------------------------------------------------------------------------------------------------- */

static const struct render_column snapshot_columns[] = {
    {"NAME", "name", false}, {"INDEX", "index", false},          {"BYTES", "bytes", false},
    {"MADE", "made", false}, {"WHOLE", "self_contained", false}, {"SHA-256", "sha256", true}};

static int do_snapshot_create(struct ctl *c) {
    struct talk t;
    int code = ask(c, c->address, "POST", "/v1/admin/snapshot", bytes_of(NULL, 0), NULL, &t);
    if (code == EXIT_OK) {
        if (c->form == RENDER_JSON) {
            print_body(&t);
        } else {
            json_t *rows = json_pack("[O]", t.json);
            render_table(rows, snapshot_columns, COUNT(snapshot_columns), c->form == RENDER_WIDE);
            json_decref(rows);
        }
        talk_free(&t);
    }
    return code;
}

static int do_snapshot_list(struct ctl *c) {
    return show(c, c->address, "/v1/admin/snapshots", NULL, snapshot_columns, COUNT(snapshot_columns));
}

static int do_snapshot_restore(struct ctl *c) {
    (void)fprintf(stderr,
                  "%s: a snapshot is restored into an empty directory, on the gateway itself:\n  greyd restore --snapshot FILE "
                  "--data-dir DIR\n",
                  c->program);
    return EXIT_USAGE;
}

/* The configuration is greyd's: it is the one who knows. */
static int run_greyd(struct ctl *c, bool print) {
    char path[LIMIT_PATH_BYTES + 8], own[LIMIT_PATH_BYTES + 1];
    const char *file = option(c, "--config");
    ssize_t size = readlink("/proc/self/exe", own, sizeof own - 1);
    own[size > 0 ? size : 0] = 0;
    char *slash = strrchr(own, '/');
    (void)snprintf(path, sizeof path, "%.*s/greyd", slash == NULL ? 0 : (int)(slash - own), own);
    (void)flag(c, "--origin");
    file = file != NULL ? file : c->argc > 0 ? c->argv[0] : "/etc/grey/greyd.yaml";
    if (access(path, X_OK) == 0) {
        (void)execl(path, "greyd", "--check-config", "--config", file, print ? "--print" : NULL, (char *)NULL);
    }
    (void)execlp("greyd", "greyd", "--check-config", "--config", file, print ? "--print" : NULL, (char *)NULL);
    (void)fprintf(stderr, "%s: greyd is not installed here\n", c->program);
    return EXIT_FAILED;
}

static int do_config_show(struct ctl *c) {
    return run_greyd(c, true);
}

static int do_config_check(struct ctl *c) {
    return run_greyd(c, false);
}

static int do_explain(struct ctl *c) {
    if (c->argc == 1) {
        const char *digits = c->argv[0] + strcspn(c->argv[0], "0123456789");
        enum grey_error err = error_by_id(atoi(digits));
        if (err != E_OK) {
            (void)printf("GREY-%d  %s\n\n%s.\n\nWhat to do: %s.\n", error_id(err), error_name(err), error_sentence(err),
                         error_remedy(err));
            return EXIT_OK;
        }
        (void)fprintf(stderr, "%s: there is no error '%s'\n", c->program, c->argv[0]);
        return EXIT_FAILED;
    }
    for (int i = 1; i < GREY_ERROR_COUNT; i++) {
        (void)printf("GREY-%d  %s\n", error_id((enum grey_error)i), error_sentence((enum grey_error)i));
    }
    return EXIT_OK;
}

static void finding(enum render_tone tone, int *worst, int code, const char *format, ...) __attribute__((format(printf, 4, 5)));
static void finding(enum render_tone tone, int *worst, int code, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    render_verdict(tone, text);
    *worst = code > *worst ? code : *worst;
}

/* 0: all well; 1: something to look at; 2: something is broken. */
static int do_doctor(struct ctl *c) {
    struct talk t;
    int worst = 0;
    if (get(c, "/health/detailed", &t) == EXIT_FAILED) {
        finding(TONE_BAD, &worst, 2, "node     no answer at %s\n  -> systemctl status greyd; journalctl -u greyd", c->address);
        return worst;
    }
    if (t.json == NULL) { /* answered 503 and was shown */
        finding(TONE_BAD, &worst, 2,
                "quorum   too few gateways answer\n  -> check power and cabling of the other gateways; stale reads and logs go on");
        return worst;
    }
    const json_t *checks = json_object_get(t.json, "checks"), *check = json_object_get(checks, "consensus");
    const char *status = json_string_value(json_object_get(check, "status"));
    finding(strcmp(status, "healthy") == 0 ? TONE_GOOD : TONE_WARN, &worst, strcmp(status, "healthy") != 0,
            "quorum   %s, leader %s%s", status, json_string_value(json_object_get(check, "leader_id")),
            strcmp(status, "healthy") == 0 ? "" : "\n  -> greyctl cluster members shows who is missing");
    check = json_object_get(checks, "network");
    bool whole = number(check, "connected_peers") >= number(check, "known_peers");
    finding(whole ? TONE_GOOD : TONE_WARN, &worst, !whole, "peers    %.0f of %.0f connected%s", number(check, "connected_peers"),
            number(check, "known_peers"), whole ? "" : "\n  -> GET /v1/debug/network says why");
    check = json_object_get(checks, "clock");
    bool sure = strcmp(json_string_value(json_object_get(check, "status")), "healthy") == 0;
    finding(sure ? TONE_GOOD : TONE_WARN, &worst, !sure, "clock    %.1f s from the site's time%s",
            number(check, "offset_from_site_seconds"),
            sure ? "" : "\n  -> set the clock of this gateway (timedatectl), or check its battery");
    check = json_object_get(checks, "federation");
    status = json_string_value(json_object_get(check, "status"));
    bool fine = strcmp(status, "degraded") != 0;
    finding(fine ? TONE_GOOD : TONE_WARN, &worst, !fine, "core     %s, %.0f bytes waiting%s", status, number(check, "queue_bytes"),
            fine ? "" : "\n  -> greyctl federation status shows the last error of the link");
    check = json_object_get(checks, "storage");
    char used[16];
    render_bytes(number(check, "used_bytes"), used);
    finding(TONE_GOOD, &worst, 0, "storage  %s used, last commit took %.1f ms", used, number(check, "last_store_us") / 1000);
    talk_free(&t);
    return worst;
}

static int do_later(struct ctl *c) {
    (void)fprintf(stderr, "%s: not in this version\n", c->program);
    return EXIT_USAGE;
}

static int do_completion(struct ctl *c);
static int do_help(struct ctl *c);
static int do_version(struct ctl *c) {
    (void)printf("%s " GREY_VERSION " (experimental)\n", c->program);
    return EXIT_OK;
}

static const struct verb {
    const char *group, *name, *arguments, *help;
    int (*run)(struct ctl *c);
} verbs[] = {
    {"status", NULL, "", "one screen: a verdict in words, then the members", do_status},
    {"cluster", "status", "", "as status", do_cluster_status},
    {"cluster", "members", "", "who belongs to the site", do_cluster_members},
    {"cluster", "leader", "", "who leads", do_cluster_leader},
    {"member", "add", "", "", do_later},
    {"member", "remove", "NODE", "take a gateway out of the site", do_member_remove},
    {"kv", "get", "KEY [--stale]", "print a value", do_kv_get},
    {"kv", "put", "KEY VALUE|- [--if-version N | --create]", "write a value", do_kv_put},
    {"kv", "del", "KEY", "delete a key", do_kv_del},
    {"kv", "list", "[PREFIX]", "list keys", do_kv_list},
    {"kv", "watch", "KEY [--from VERSION]", "print each new value", do_kv_watch},
    {"event", "send", "--type T [--priority P] [--data JSON|-] [--id ID]", "hand an event to the site", do_event_send},
    {"event", "tail", "[--channel C] [--after CURSOR]", "show events as they arrive at the core", do_event_tail},
    {"queue", NULL, "", "what waits for the core", do_queue},
    {"federation", "status", "", "the link to the core", do_federation_status},
    {"snapshot", "create", "", "write a snapshot that 'greyd restore' can use", do_snapshot_create},
    {"snapshot", "list", "", "snapshots on this node", do_snapshot_list},
    {"snapshot", "restore", "", "says how", do_snapshot_restore},
    {"site", "list", "", "sites at the core", do_site_list},
    {"site", "show", "SITE", "one site at the core", do_site_show},
    {"site", "events", "SITE [--channel C] [--after CURSOR] [--limit N]", "its events at the core", do_site_events},
    {"site", "label", "", "", do_later},
    {"site", "recover", "", "", do_later},
    {"config", "show", "[FILE]", "every value of a configuration and where it comes from", do_config_show},
    {"config", "check", "[FILE]", "say whether a configuration is acceptable", do_config_check},
    {"doctor", NULL, "", "checks, each failure with its remedy; exit 0, 1 or 2", do_doctor},
    {"explain", NULL, "[ERROR-ID]", "what an error means and what to do", do_explain},
    {"completion", NULL, "bash|zsh|fish", "a completion script for your shell", do_completion},
    {"version", NULL, "", "print the version", do_version},
    {"help", NULL, "", "this list", do_help},
    {"task", NULL, "", "", do_later},
    {"tenant", NULL, "", "", do_later},
    {"audit", NULL, "", "", do_later},
    {"replay", NULL, "", "", do_later},
    {"attest", NULL, "", "", do_later},
    {"support-bundle", NULL, "", "", do_later},
    {"link", NULL, "", "", do_later},
    {"top", NULL, "", "", do_later},
    {"enroll", NULL, "", "", do_later},
    {"policy", NULL, "", "", do_later},
};

static int do_help(struct ctl *c) {
    (void)printf("%s: the command line of a Grey Edge site\n\nusage: %s [-o table|json|wide] [--addr URL|unix:PATH] [--core URL] "
                 "VERB ...\n\n",
                 c->program, c->program);
    for (size_t i = 0; i < COUNT(verbs); i++) {
        const struct verb *v = &verbs[i];
        char left[96];
        if (v->run != do_later) {
            (void)snprintf(left, sizeof left, "%s%s%s %s", v->group, v->name != NULL ? " " : "", v->name != NULL ? v->name : "",
                           v->arguments);
            (void)printf("  %-58s %s\n", left, v->help);
        }
    }
    (void)printf("\nWithout a verb: status.  Node: --addr, $GREY_ADDR, unix:/run/grey/greyd.sock, unix:./run/node1/greyd.sock.\n"
                 "Core: --core, $GREY_CORE, http://127.0.0.1:8080.\n"
                 "Exit codes: 0; 1 failed; 2 usage; 3 reached, but refused; 4 no quorum.\n");
    return EXIT_OK;
}

static int do_completion(struct ctl *c) {
    const char *shell = c->argc == 1 ? c->argv[0] : "";
    bool bash = strcmp(shell, "bash") == 0, zsh = strcmp(shell, "zsh") == 0, fish = strcmp(shell, "fish") == 0;
    if (!bash && !zsh && !fish) {
        return usage(c, "completion bash|zsh|fish");
    }
    if (fish) {
        for (size_t i = 0; i < COUNT(verbs); i++) {
            if (verbs[i].run == do_later) {
                continue;
            }
            if (verbs[i].name == NULL) {
                (void)printf("complete -c greyctl -f -n __fish_use_subcommand -a %s -d '%s'\n", verbs[i].group, verbs[i].help);
            } else {
                (void)printf("complete -c greyctl -f -n __fish_use_subcommand -a %s\ncomplete -c greyctl -f -n "
                             "'__fish_seen_subcommand_from %s' -a %s -d '%s'\n",
                             verbs[i].group, verbs[i].group, verbs[i].name, verbs[i].help);
            }
        }
        return EXIT_OK;
    }
    (void)printf("%s_greyctl() {\n    local words\n    case ${COMP_WORDS[1]} in\n",
                 zsh ? "autoload -U +X bashcompinit && bashcompinit\n" : "");
    for (size_t i = 0; i < COUNT(verbs); i++) {
        if (verbs[i].name != NULL && verbs[i].run != do_later) {
            bool first = i == 0 || strcmp(verbs[i - 1].group, verbs[i].group) != 0 || verbs[i - 1].run == do_later;
            bool last = i + 1 == COUNT(verbs) || strcmp(verbs[i + 1].group, verbs[i].group) != 0 || verbs[i + 1].run == do_later;
            if (first) {
                (void)printf("    %s) words=\"", verbs[i].group);
            }
            (void)printf("%s%s", first ? "" : " ", verbs[i].name);
            if (last) {
                (void)printf("\" ;;\n");
            }
        }
    }
    (void)printf("    *) words= ;;\n    esac\n    [ \"$COMP_CWORD\" -eq 1 ] && words=\"");
    for (size_t i = 0; i < COUNT(verbs); i++) {
        if (verbs[i].run != do_later && (i == 0 || strcmp(verbs[i - 1].group, verbs[i].group) != 0)) {
            (void)printf("%s%s", i == 0 ? "" : " ", verbs[i].group);
        }
    }
    (void)printf(
        "\"\n    COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -F _greyctl greyctl\n");
    return EXIT_OK;
}

/* --- start ------------------------------------------------------------------------------------------------------------------------------------------ */

static const char *find_address(void) {
    const char *given = getenv("GREY_ADDR");
    if (given != NULL && given[0] != 0) {
        return given;
    }
    if (access("/run/grey/greyd.sock", F_OK) == 0) {
        return "unix:/run/grey/greyd.sock";
    }
    return access("run/node1/greyd.sock", F_OK) == 0 ? "unix:run/node1/greyd.sock" : "http://127.0.0.1:8081";
}

static int dispatch(struct ctl *c) {
    const char *group = c->argc > 0 ? c->argv[0] : "status", *name = c->argc > 1 ? c->argv[1] : "";
    bool group_known = false;
    for (size_t i = 0; i < COUNT(verbs); i++) {
        const struct verb *v = &verbs[i];
        if (strcmp(v->group, group) != 0) {
            continue;
        }
        group_known = true;
        if (v->name == NULL || strcmp(v->name, name) == 0) {
            int used = c->argc == 0 ? 0 : v->name == NULL ? 1 : 2;
            c->argv += used;
            c->argc -= used;
            return v->run(c);
        }
    }
    (void)fprintf(stderr, "%s: there is no '%s%s%s'; it knows:", c->program, group, group_known ? " " : "",
                  group_known ? name : "");
    for (size_t i = 0; i < COUNT(verbs); i++) {
        const struct verb *v = &verbs[i];
        if (v->run != do_later &&
            (group_known ? strcmp(v->group, group) == 0 : i == 0 || strcmp(verbs[i - 1].group, v->group) != 0)) {
            (void)fprintf(stderr, " %s", group_known ? v->name : v->group);
        }
    }
    (void)fputc('\n', stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    struct ctl c = {.program = "greyctl", .argc = argc - 1, .argv = argv + 1, .form = RENDER_TABLE};
    const char *core = getenv("GREY_CORE");
    if (flag(&c, "--help") || flag(&c, "-h")) {
        return do_help(&c);
    }
    if (flag(&c, "--version")) {
        return do_version(&c);
    }
    const char *form = option(&c, "-o"), *address = option(&c, "--addr"), *given_core = option(&c, "--core");
    c.address = address != NULL ? address : find_address();
    c.core = given_core != NULL ? given_core : core != NULL && core[0] != 0 ? core : "http://127.0.0.1:8080";
    if (form != NULL) {
        c.form = strcmp(form, "json") == 0 ? RENDER_JSON : strcmp(form, "wide") == 0 ? RENDER_WIDE : RENDER_TABLE;
        if (c.form == RENDER_TABLE && strcmp(form, "table") != 0) {
            (void)fprintf(stderr, "greyctl: -o %s: expected table, json or wide\n", form);
            return EXIT_USAGE;
        }
    }
    return dispatch(&c);
}
