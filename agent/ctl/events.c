/* Verbs for events: sending one to the site, and watching them arrive at the core. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "agent/ctl/input.h"
#include "agent/ctl/verbs.h"
#include "include/grey/event.h"

#define TAIL_PAUSE_S 2

/* --- send -------------------------------------------------------------------------------------------------------------------------------- */

/* What the user did not give is no member. */
static void put_given(struct json_writer *w, const char *name, const char *text) {
    if (text != NULL) {
        json_member_str(w, name, text);
    }
}

/* An id makes a repeat harmless; so greyctl draws one where the user gave none. */
static void draw_id(char id[40]) {
    uint8_t bytes[12];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        id[0] = 0; /* the node then gives one, and a repeat is a second event */
        return;
    }
    int used = snprintf(id, 40, "greyctl-");
    for (size_t i = 0; i < sizeof bytes; i++) {
        used += snprintf(id + used, 40 - (size_t)used, "%02x", bytes[i]);
    }
}

/* The body from --type, --data and so on. */
static bool compose(struct call *c, char id[40], struct builder *body) {
    const char *type = verbs_option(c, "type"), *given_id = verbs_option(c, "id"), *data = verbs_option(c, "data");
    struct builder text;
    struct fault f = {0};
    struct json_writer w;
    if (type == NULL) {
        (void)fputs("greyctl: an event needs --type, for example --type door.opened; or give the whole event as JSON\n", stderr);
        return false;
    }
    builder_init(&text, LIMIT_BATCH_BYTES);
    bool good = true;
    if (data != NULL && strcmp(data, "-") == 0) {
        good = input_read("-", "what is sent", &text);
    } else if (data != NULL) {
        builder_add_str(&text, data);
    }
    if (good && text.size > 0) {
        /* A document may be any JSON value; json_read takes objects and arrays, so a value is tried inside an array. */
        struct builder wrapped;
        builder_init(&wrapped, LIMIT_BATCH_BYTES + 2);
        builder_add_byte(&wrapped, '[');
        builder_add(&wrapped, builder_bytes(&text));
        builder_add_byte(&wrapped, ']');
        json_t *doc = json_read(builder_bytes(&wrapped), &f);
        good = json_array_size(doc) == 1;
        json_decref(doc);
        builder_free(&wrapped);
        if (!good) {
            (void)fprintf(stderr, "greyctl: --data is not JSON (%s)\n  -> plain text goes in double quotes: --data '\"text\"'\n",
                          f.text);
        }
    }
    if (good) {
        if (given_id != NULL) {
            (void)snprintf(id, 40, "%s", "");
        } else {
            draw_id(id);
        }
        json_writer_init(&w, body);
        json_open(&w, '{');
        put_given(&w, "type", type);
        put_given(&w, "priority", verbs_option(c, "priority"));
        put_given(&w, "source", verbs_option(c, "source"));
        put_given(&w, "subject", verbs_option(c, "subject"));
        put_given(&w, "id", given_id != NULL ? given_id : id[0] != 0 ? id : NULL);
        if (text.size > 0) {
            json_key(&w, "data");
            json_raw(&w, builder_bytes(&text));
        }
        json_close(&w);
    }
    builder_free(&text);
    return good;
}

static void put_accepted(const json_t *doc, struct builder *out) {
    size_t i;
    const json_t *e;
    bool provisional = json_is_true(json_object_get(doc, "provisional"));
    json_array_foreach(json_object_get(doc, "accepted"), i, e) {
        if (provisional) {
            builder_add_str(out, "kept on this node alone until the others are back; receipt ");
            render_text(out, bytes_str(verbs_text(e, "receipt")));
        } else {
            builder_addf(out, "%s %s %" PRIu64 ", entry %" PRIu64,
                         json_is_true(json_object_get(e, "duplicate")) ? "was here already:" : "kept:", verbs_text(e, "channel"),
                         verbs_uint(e, "seq"), verbs_uint(e, "index"));
        }
        builder_add_str(out, ", id ");
        render_text(out, bytes_str(verbs_text(e, "id")));
        builder_add_byte(out, '\n');
    }
}

int events_send(struct call *c) {
    struct builder body, out;
    struct http_answer a;
    char id[40] = "";
    builder_init(&body, LIMIT_BATCH_BYTES + 4096);
    bool whole = c->arg_count > 0, good;
    if (whole && (verbs_option(c, "type") != NULL || verbs_option(c, "data") != NULL || verbs_option(c, "id") != NULL ||
                  verbs_option(c, "priority") != NULL || verbs_option(c, "source") != NULL || verbs_option(c, "subject") != NULL)) {
        (void)fputs("greyctl: give the whole event as JSON, or its parts as options, not both\n", stderr);
        good = false;
    } else if (whole && strcmp(c->args[0], "-") == 0) {
        good = input_read("-", "what is sent", &body);
    } else if (whole) {
        builder_add_str(&body, c->args[0]);
        good = true;
    } else {
        good = compose(c, id, &body);
    }
    if (!good) {
        builder_free(&body);
        return CTL_USAGE;
    }
    struct client_request q = {
        .method = "POST", .path = "/v1/events", .body = builder_bytes(&body), .body_type = "application/json"};
    int code = client_call(&c->client, &q, &a, &c->problem);
    builder_free(&body);
    if (code != CTL_OK) {
        (void)client_complain(&c->problem);
        if (id[0] != 0 && (c->problem.http_status == 504 || c->problem.http_status == 0)) {
            (void)fprintf(stderr, "  -> repeating it is safe with --id %s\n", id);
        }
        builder_free(&a.body);
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    json_t *doc = json_read(builder_bytes(&a.body), NULL);
    if (c->output == OUTPUT_JSON || doc == NULL) {
        builder_add(&out, builder_bytes(&a.body));
    } else {
        put_accepted(doc, &out);
    }
    json_decref(doc);
    builder_free(&a.body);
    return verbs_print(&out);
}

/* --- tail --------------------------------------------------------------------------------------------------------------------------------- */

struct tail {
    struct call *call;
    char site[LIMIT_NAME_BYTES + 1];
    char after[CHANNEL_COUNT][96]; /* a cursor per channel */
    uint64_t left;
};

static void put_event(struct builder *out, const json_t *e) {
    const char *time = verbs_text(e, "time");
    builder_addf(out, "%s  ", time[0] != 0 ? time : verbs_text(e, "log_time"));
    builder_addf(out, "%-7s %6" PRIu64 "  %-8s ", verbs_text(e, "channel"), verbs_uint(e, "seq"), verbs_text(e, "priority"));
    builder_add_str(out, verbs_text(e, "type"));
    builder_add_str(out, "  ");
    const json_t *data = json_object_get(e, "data");
    char *text = data == NULL ? NULL : json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    builder_add_str(out, text != NULL ? text : "(not JSON)");
    free(text);
}

static int print_events(struct tail *t, const json_t *doc, struct bytes raw) {
    size_t i;
    const json_t *e;
    struct builder line, plain;
    json_array_foreach(json_object_get(doc, "events"), i, e) {
        if (t->left == 0) {
            break;
        }
        t->left--;
        builder_init(&line, CLIENT_ANSWER_BYTES_MAX);
        builder_init(&plain, CLIENT_ANSWER_BYTES_MAX);
        if (t->call->output == OUTPUT_JSON) {
            builder_add(&plain, json_raw_element(raw, i));
        } else {
            put_event(&line, e);
            render_text(&plain, builder_bytes(&line));
        }
        builder_free(&line);
        builder_add_byte(&plain, '\n');
        if (verbs_print(&plain) != CTL_OK) {
            return CTL_FAILED;
        }
    }
    return CTL_OK;
}

/* All that is new on one channel. */
static int tail_channel(struct tail *t, enum event_channel channel) {
    struct builder path, raw;
    json_t *doc;
    size_t count;
    int code;
    do {
        builder_init(&raw, CLIENT_ANSWER_BYTES_MAX);
        builder_init(&path, 4096);
        builder_addf(&path, "/v1/sites/%s/events?channel=%s&limit=1000&after=", t->site, event_channel_name(channel));
        client_encode(&path, bytes_str(t->after[channel]), true);
        builder_add_byte(&path, 0);
        code = client_get(&t->call->client, CLIENT_CORE, (const char *)path.data, &doc, &raw, &t->call->problem);
        builder_free(&path);
        if (code != CTL_OK) {
            builder_free(&raw);
            return client_complain(&t->call->problem);
        }
        count = json_array_size(json_object_get(doc, "events"));
        code = print_events(t, doc, json_raw_member(builder_bytes(&raw), "events"));
        builder_free(&raw);
        (void)snprintf(t->after[channel], sizeof t->after[channel], "%s", verbs_text(doc, "next"));
        json_decref(doc);
    } while (code == CTL_OK && count == 1000 && t->left > 0);
    return code;
}

/* The site's name, and where each channel's last `lines` events begin. */
static int tail_start(struct tail *t, uint64_t lines) {
    const char *site = verbs_option(t->call, "site");
    json_t *doc;
    char path[128];
    int code = CTL_OK;
    if (site == NULL) {
        code = client_get(&t->call->client, CLIENT_NODE, "/v1/cluster/status", &doc, NULL, &t->call->problem);
        (void)snprintf(t->site, sizeof t->site, "%s", verbs_text(doc, "site_id"));
        json_decref(doc);
    } else {
        (void)snprintf(t->site, sizeof t->site, "%s", site);
    }
    if (code == CTL_OK && !grey_name_valid(t->site, strlen(t->site))) {
        (void)fprintf(stderr, "greyctl: '%s' is no name of a site\n", t->site);
        return CTL_USAGE;
    }
    if (code == CTL_OK) {
        (void)snprintf(path, sizeof path, "/v1/sites/%s", t->site);
        code = client_get(&t->call->client, CLIENT_CORE, path, &doc, NULL, &t->call->problem);
        for (int i = 0; i < CHANNEL_COUNT; i++) {
            const json_t *channel = json_object_get(json_object_get(doc, "channels"), event_channel_name((enum event_channel)i));
            uint64_t acked = verbs_uint(channel, "acked_seq");
            (void)snprintf(t->after[i], sizeof t->after[i], "%" PRIu64, acked > lines ? acked - lines : 0);
        }
        json_decref(doc);
    }
    return code == CTL_OK ? CTL_OK : (int)client_complain(&t->call->problem);
}

int events_tail(struct call *c) {
    struct tail t = {.call = c};
    uint64_t lines;
    const char *only = verbs_option(c, "channel");
    if (!verbs_number(c, "lines", 0, 100000, 10, &lines) || !verbs_number(c, "count", 1, UINT64_MAX - 1, UINT64_MAX, &t.left)) {
        return CTL_USAGE;
    }
    bool known = only == NULL;
    for (int i = 0; i < CHANNEL_COUNT && !known; i++) {
        known = strcmp(only, event_channel_name((enum event_channel)i)) == 0;
    }
    if (!known) {
        (void)fprintf(stderr, "greyctl: --channel is control, events or data\n");
        return CTL_USAGE;
    }
    int code = tail_start(&t, lines);
    while (code == CTL_OK && t.left > 0) {
        for (int i = 0; i < CHANNEL_COUNT && code == CTL_OK && t.left > 0; i++) {
            if (only == NULL || strcmp(only, event_channel_name((enum event_channel)i)) == 0) {
                code = tail_channel(&t, (enum event_channel)i);
            }
        }
        if (code == CTL_OK && t.left > 0) {
            (void)nanosleep(&(struct timespec){.tv_sec = TAIL_PAUSE_S}, NULL);
        }
    }
    return code;
}
