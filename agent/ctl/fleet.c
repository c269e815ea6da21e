/* Verbs that ask the core about its sites. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ctl/listing.h"

static const char *const channels[] = {"control", "events", "data"};

static void put_behind(struct render_table *t, const json_t *site, const char *name, bool wide) {
    uint64_t sum = 0;
    (void)wide;
    for (int i = 0; i < 3; i++) {
        sum += verbs_uint(json_object_get(json_object_get(site, name), channels[i]), "behind");
    }
    render_cellf(t, "%" PRIu64, sum);
}

static void put_ago(struct render_table *t, const json_t *site, const char *name, bool wide) {
    char span[RENDER_SHORT];
    (void)wide;
    render_cellf(t, "%s ago", render_span(verbs_real(site, name, 0), span));
}

int fleet_list(struct call *c) {
    static const struct listing_column columns[] = {LISTING("SITE", "id"),
                                                    LISTING_BY("LAST CONTACT", "last_contact_seconds", put_ago),
                                                    LISTING("NODE", "node"),
                                                    LISTING_BY("BEHIND>", "channels", put_behind),
                                                    LISTING("LOST>", "gap_events"),
                                                    LISTING("ATTESTATION", "attestation"),
                                                    LISTING_WIDE("FIRST SEEN", "first_seen"),
                                                    LISTING_WIDE("INCARNATION", "incarnation")};
    static const struct listing l = {.columns = columns,
                                     .count = sizeof columns / sizeof columns[0],
                                     .none = "no site has been in contact with this core yet\n"};
    return listing_get(c, CLIENT_CORE, "/v1/sites", &l);
}

int fleet_show(struct call *c) {
    static const char *const titles[] = {"CHANNEL", "RECEIVED TO>", "BEHIND>"};
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    char path[128], span[RENDER_SHORT];
    if (!verbs_named("site", c->args[0])) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/sites/%s", c->args[0]);
    if (verbs_get(c, CLIENT_CORE, path, &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    builder_addf(&out, "%-14s%s\n", "site", c->args[0]);
    builder_addf(&out, "%-14s%s ago, through node ", "last contact", render_span(verbs_real(doc, "last_contact_seconds", 0), span));
    render_text(&out, bytes_str(verbs_text(doc, "node")));
    builder_addf(&out, "\n%-14s", "first seen");
    render_text(&out, bytes_str(verbs_text(doc, "first_seen")));
    builder_addf(&out, "\n%-14s", "incarnation");
    render_text(&out, bytes_str(verbs_text(doc, "incarnation")));
    builder_addf(&out, "\n%-14s%" PRIu64 " events in %" PRIu64 " gaps\n", "lost", verbs_uint(doc, "gap_events"),
                 verbs_uint(doc, "gaps"));
    builder_addf(&out, "%-14s", "attestation");
    render_text(&out, bytes_str(verbs_text(doc, "attestation")));
    builder_add_str(&out, "\n\n");
    render_table_begin(&t, titles, 3);
    for (int i = 0; i < 3; i++) {
        const json_t *channel = json_object_get(json_object_get(doc, "channels"), channels[i]);
        render_cell(&t, channels[i]);
        render_cellf(&t, "%" PRIu64, verbs_uint(channel, "acked_seq"));
        render_cellf(&t, "%" PRIu64, verbs_uint(channel, "behind"));
    }
    render_table_end(&t, &out);
    json_decref(doc);
    return verbs_print(&out);
}

static void put_data(struct render_table *t, const json_t *e, bool wide) {
    const json_t *data = json_object_get(e, "data");
    char *text = data == NULL ? NULL : json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    if (text == NULL) {
        render_cellf(t, "(%.60s)", verbs_text(e, "datacontenttype"));
    } else if (!wide && strlen(text) > 60) {
        size_t size = 57;
        while (size > 0 && ((unsigned char)text[size] & 0xc0) == 0x80) { /* not inside a character */
            size--;
        }
        render_cellf(t, "%.*s...", (int)size, text);
    } else {
        render_cell(t, text);
    }
    free(text);
}

int fleet_events(struct call *c) {
    static const char *const titles[] = {"CHANNEL", "SEQ>", "TIME", "PRIORITY", "TYPE", "DATA", "SOURCE", "ID"};
    json_t *doc;
    int code;
    struct builder out, path;
    struct render_table t;
    uint64_t limit;
    size_t i;
    const json_t *e;
    const char *channel = verbs_option(c, "channel"), *after = verbs_option(c, "after");
    if (!verbs_named("site", c->args[0]) || !verbs_number(c, "limit", 1, 1000, 100, &limit)) {
        return CTL_USAGE;
    }
    builder_init(&path, 4096);
    builder_addf(&path, "/v1/sites/%s/events?limit=%" PRIu64, c->args[0], limit);
    if (channel != NULL) {
        builder_add_str(&path, "&channel=");
        client_encode(&path, bytes_str(channel), true);
    }
    if (after != NULL) {
        builder_add_str(&path, "&after=");
        client_encode(&path, bytes_str(after), true);
    }
    builder_add_byte(&path, 0);
    bool done = verbs_get(c, CLIENT_CORE, (const char *)path.data, &doc, &code);
    builder_free(&path);
    if (done) {
        return code;
    }
    bool wide = c->output == OUTPUT_WIDE;
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, wide ? 8 : 6);
    json_array_foreach(json_object_get(doc, "events"), i, e) {
        const char *time = verbs_text(e, "time");
        render_cell(&t, verbs_text(e, "channel"));
        render_cellf(&t, "%" PRIu64, verbs_uint(e, "seq"));
        render_cell(&t, time[0] != 0 ? time : verbs_text(e, "log_time"));
        render_cellf(&t, "%s%s", verbs_text(e, "priority"),
                     json_is_true(json_object_get(e, "provisional")) ? " (provisional)" : "");
        render_cell(&t, verbs_text(e, "type"));
        put_data(&t, e, wide);
        if (wide) {
            render_cell(&t, verbs_text(e, "source"));
            render_cell(&t, verbs_text(e, "id"));
        }
    }
    size_t count = json_array_size(json_object_get(doc, "events"));
    render_table_end(&t, &out);
    if (count == limit) {
        builder_add_str(&out, "\nmore may follow: --after ");
        render_text(&out, bytes_str(verbs_text(doc, "next")));
        builder_add_byte(&out, '\n');
    }
    json_decref(doc);
    return verbs_print(&out);
}
