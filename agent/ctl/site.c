/* Verbs that ask a node how its site is, and those that change who belongs to it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ctl/leading.h"
#include "agent/ctl/listing.h"
#include "include/grey/limits.h"

#define SILENT_NAME_BYTES 68u /* ", " and a node id */

static const char *const channels[] = {"control", "events", "data"};

/* --- the answers of one node, gathered ---------------------------------------------------------------------------------------------- */

struct picture {
    json_t *cluster, *queue, *federation, *health;
    struct builder raw[4];
    json_t *members; /* the leader's view where it could be had: it hears from all of them */
    bool link_known; /* federation tells of the leader's link */
    char silent[160], distrusted[160];
    struct render_facts facts;
};

static void picture_free(struct picture *p) {
    json_decref(p->cluster);
    json_decref(p->queue);
    json_decref(p->federation);
    json_decref(p->health);
    json_decref(p->members);
    for (int i = 0; i < 4; i++) {
        builder_free(&p->raw[i]);
    }
}

/* Adds a name to a list of them; what has no room is left out. */
static void add_name(char *list, size_t size, const char *name) {
    size_t used = strlen(list);
    if (used + SILENT_NAME_BYTES < size) {
        (void)snprintf(list + used, size - used, "%s%.64s", used > 0 ? ", " : "", name);
    }
}

static void count_members(struct picture *p) {
    size_t i;
    const json_t *m;
    json_array_foreach(p->members, i, m) {
        const char *state = verbs_text(m, "state");
        bool distrusted = strcmp(state, "quarantined") == 0, alive = distrusted || strcmp(state, "healthy") == 0;
        if (distrusted) {
            add_name(p->distrusted, sizeof p->distrusted, verbs_text(m, "id"));
        }
        if (strcmp(verbs_text(m, "kind"), "learner") == 0) {
            p->facts.learners += !distrusted;
            continue;
        }
        p->facts.voters++;
        p->facts.voters_alive += alive;
        if (!alive) {
            add_name(p->silent, sizeof p->silent, verbs_text(m, "id"));
        }
    }
}

static void sum_queue(struct picture *p) {
    for (int i = 0; i < 3; i++) {
        const json_t *c = json_object_get(json_object_get(p->queue, "channels"), channels[i]);
        double oldest_s = verbs_real(c, "oldest_seconds", 0);
        p->facts.waiting_events += verbs_uint(c, "pending");
        p->facts.waiting_bytes += verbs_uint(c, "bytes");
        p->facts.oldest_s = oldest_s > p->facts.oldest_s ? oldest_s : p->facts.oldest_s;
    }
    p->facts.queue_limit_bytes = verbs_uint(p->queue, "limit_bytes");
}

/* Only the leader hears from every member. */
static void ask_leader(struct picture *p) {
    struct leading there;
    if (!leading_find(p->cluster, &there)) {
        return;
    }
    p->facts.one_disk = json_is_true(json_object_get(there.cluster, "one_disk"));
    json_decref(p->members);
    p->members = json_incref(json_object_get(there.cluster, "members"));
    json_decref(there.cluster);
}

static void judge_link(struct picture *p) {
    const json_t *link = json_object_get(p->federation, "link");
    if (!json_is_true(json_object_get(p->federation, "enabled"))) {
        p->facts.link = LINK_NONE;
    } else if (!p->link_known) {
        p->facts.link = LINK_ELSEWHERE;
    } else {
        p->facts.link = json_is_true(json_object_get(link, "up")) ? LINK_UP : LINK_DOWN;
    }
    p->facts.offline_s = verbs_real(link, "last_contact_seconds", -1);
}

static int picture_take(struct call *c, struct picture *p) {
    static const char *const paths[] = {"/v1/cluster/status", "/v1/queue", "/v1/federation/status", "/health/detailed"};
    json_t **const docs[] = {&p->cluster, &p->queue, &p->federation, &p->health};
    memset(p, 0, sizeof *p);
    for (int i = 0; i < 4; i++) {
        builder_init(&p->raw[i], CLIENT_ANSWER_BYTES_MAX);
    }
    for (int i = 0; i < 3; i++) {
        if (i > 0 && strcmp(verbs_text(p->cluster, "mode"), "witness") == 0) {
            builder_add_str(&p->raw[i], "null"); /* it holds none of that */
            continue;
        }
        int code = client_get(&c->client, CLIENT_NODE, paths[i], docs[i], &p->raw[i], &c->problem);
        if (code != CTL_OK) {
            return code;
        }
    }
    /* Health says 503 when it is bad, with the same document. */
    struct client_request q = {.side = CLIENT_NODE, .method = "GET", .path = paths[3]};
    struct http_answer a;
    (void)client_call(&c->client, &q, &a, &c->problem);
    p->facts.one_disk = json_is_true(json_object_get(p->cluster, "one_disk"));
    p->health = json_read(builder_bytes(&a.body), NULL);
    builder_add(&p->raw[3], builder_bytes(&a.body));
    builder_free(&a.body);
    const char *leader = verbs_text(p->cluster, "leader_id");
    p->members = json_incref(json_object_get(p->cluster, "members"));
    p->link_known = leader[0] != 0 && strcmp(leader, verbs_text(p->federation, "link_of")) == 0;
    p->facts.quorum = json_is_true(json_object_get(p->cluster, "quorum"));
    if (strcmp(leader, verbs_text(p->cluster, "node_id")) != 0 && leader[0] != 0 && p->facts.quorum) {
        ask_leader(p);
    }
    count_members(p);
    sum_queue(p);
    judge_link(p);
    p->facts.leader = leader;
    p->facts.silent = p->silent;
    p->facts.distrusted = p->distrusted;
    return CTL_OK;
}

/* --- parts of the screen ------------------------------------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b) {
    return strcmp(verbs_text(*(const json_t *const *)a, "id"), verbs_text(*(const json_t *const *)b, "id"));
}

/* In the order of their names; the API has them in the order of their raft ids.  Returns how many there are. */
static size_t sort_members(const json_t *members, const json_t *sorted[LIMIT_MEMBERS]) {
    size_t count = 0, i;
    const json_t *m;
    json_array_foreach(members, i, m) {
        if (count < LIMIT_MEMBERS) {
            sorted[count++] = m;
        }
    }
    qsort(sorted, count, sizeof sorted[0], by_id);
    return count;
}

static void put_members(const json_t *members, uint64_t last_index, bool wide, struct builder *out) {
    static const char *const titles[] = {"NODE",    "ROLE", "KIND",        "STATE", "PHI>",
                                         "BEHIND>", "HTTP", "ATTESTATION", "PEERS", "RAFT ID"};
    struct render_table t;
    const json_t *sorted[LIMIT_MEMBERS];
    size_t count = sort_members(members, sorted);
    render_table_begin(&t, titles, wide ? 10 : 8);
    for (size_t i = 0; i < count; i++) {
        const json_t *m = sorted[i], *match = json_object_get(m, "match_index");
        render_cell(&t, verbs_text(m, "id"));
        render_cell(&t, verbs_text(m, "role"));
        render_cell(&t, verbs_text(m, "kind"));
        render_cell(&t, verbs_text(m, "state"));
        if (json_is_number(json_object_get(m, "phi"))) {
            render_cellf(&t, "%.1f", verbs_real(m, "phi", 0));
        } else {
            render_cell(&t, NULL);
        }
        if (json_is_integer(match) && last_index > 0) {
            uint64_t index = verbs_uint(m, "match_index");
            render_cellf(&t, "%" PRIu64, last_index > index ? last_index - index : 0);
        } else {
            render_cell(&t, NULL);
        }
        render_cell(&t, verbs_text(m, "http_addr"));
        render_cell(&t, verbs_text(m, "attestation"));
        if (wide) {
            render_cell(&t, verbs_text(m, "addr"));
            render_cell(&t, verbs_text(m, "raft_id"));
        }
    }
    render_table_end(&t, out);
}

static void put_named(struct builder *out, const char *name, const char *value) {
    builder_addf(out, "%-12s", name);
    render_text(out, bytes_str(value));
    builder_add_byte(out, '\n');
}

static void put_head(const json_t *cluster, struct builder *out) {
    char text[400], span[RENDER_SHORT];
    (void)snprintf(text, sizeof text,
                   "%.64s  node %.64s (asked)  mode %.16s  term %" PRIu64 "  applied %" PRIu64 "  up %s  version %.32s",
                   verbs_text(cluster, "site_id"), verbs_text(cluster, "node_id"), verbs_text(cluster, "mode"),
                   verbs_uint(cluster, "term"), verbs_uint(cluster, "applied_index"),
                   render_span(verbs_real(cluster, "uptime_seconds", 0), span), verbs_text(cluster, "version"));
    put_named(out, "site", text);
}

static void put_link(const struct picture *p, struct builder *out) {
    char text[700], span[RENDER_SHORT], sent[RENDER_SHORT], received[RENDER_SHORT];
    const json_t *link = json_object_get(p->federation, "link");
    double contact_s = verbs_real(link, "last_contact_seconds", -1);
    const char *error = verbs_text(link, "last_error");
    switch (p->facts.link) {
    case LINK_NONE:
        put_named(out, "link", "no core configured (federation.enabled)");
        return;
    case LINK_ELSEWHERE:
        if (p->facts.leader[0] == 0) {
            put_named(out, "link", "down while the site has no leader");
            return;
        }
        (void)snprintf(text, sizeof text, "kept by node %.64s, which leads; ask it: greyctl --addr ... federation status",
                       p->facts.leader);
        break;
    default:
        (void)snprintf(text, sizeof text, "%s %.200s, last contact %s%s, sent %s, received %s%s%.200s",
                       p->facts.link == LINK_UP ? "up to" : "down",
                       p->facts.link == LINK_UP ? verbs_text(link, "endpoint") : "and trying",
                       contact_s < 0 ? "never" : render_span(contact_s, span), contact_s < 0 ? "" : " ago",
                       render_size(verbs_uint(link, "sent_bytes"), sent), render_size(verbs_uint(link, "received_bytes"), received),
                       p->facts.link == LINK_DOWN && error[0] != 0 ? "; " : "", p->facts.link == LINK_DOWN ? error : "");
    }
    put_named(out, "link", text);
}

static void put_queue_line(const struct picture *p, struct builder *out) {
    char text[400], used[RENDER_SHORT], limit[RENDER_SHORT], span[RENDER_SHORT];
    uint64_t pending[3], lost = 0;
    for (int i = 0; i < 3; i++) {
        const json_t *c = json_object_get(json_object_get(p->queue, "channels"), channels[i]);
        pending[i] = verbs_uint(c, "pending");
        lost += verbs_uint(c, "gap_events");
    }
    (void)snprintf(text, sizeof text,
                   "control %" PRIu64 ", events %" PRIu64 ", data %" PRIu64 " waiting; %s of %s; oldest %s; lost %" PRIu64,
                   pending[0], pending[1], pending[2], render_size(p->facts.waiting_bytes, used),
                   render_size(p->facts.queue_limit_bytes, limit), render_span(p->facts.oldest_s, span), lost);
    put_named(out, "queue", text);
}

static void put_health(const struct picture *p, struct builder *out) {
    char text[300], size[RENDER_SHORT];
    const json_t *checks = json_object_get(p->health, "checks");
    const json_t *storage = json_object_get(checks, "storage"), *clock = json_object_get(checks, "clock");
    int used = snprintf(text, sizeof text, "%.32s, %s used", verbs_text(storage, "status"),
                        render_size(verbs_uint(storage, "used_bytes"), size));
    if (json_is_integer(json_object_get(storage, "written_day_limit_bytes")) && used > 0) {
        char limit[RENDER_SHORT];
        (void)snprintf(text + used, sizeof text - (size_t)used, ", %s written in 24 h of %s",
                       render_size(verbs_uint(storage, "written_day_bytes"), size),
                       render_size(verbs_uint(storage, "written_day_limit_bytes"), limit));
    }
    put_named(out, "storage", text);
    (void)snprintf(text, sizeof text, "%.32s, %.1f s from the site's time", verbs_text(clock, "status"),
                   verbs_real(clock, "offset_from_site_seconds", 0));
    put_named(out, "clock", text);
}

static void put_json_member(struct builder *out, const char *name, const struct builder *raw, bool comma) {
    struct bytes text = builder_bytes(raw);
    while (text.size > 0 && text.data[text.size - 1] == '\n') {
        text.size--;
    }
    builder_addf(out, "%s\"%s\":", comma ? "," : "", name);
    builder_add(out, text.size > 0 ? text : bytes_str("null"));
}

/* --- verbs --------------------------------------------------------------------------------------------------------------------------- */

int site_status(struct call *c) {
    struct picture p;
    struct builder out;
    int code = picture_take(c, &p);
    if (code != CTL_OK) {
        picture_free(&p);
        return client_complain(&c->problem);
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    if (c->output == OUTPUT_JSON) {
        struct builder words;
        struct json_writer w;
        builder_init(&words, 4096);
        enum render_verdict v = render_verdict(&p.facts, false, &words);
        json_writer_init(&w, &out);
        builder_add_str(&out, "{\"verdict\":");
        json_text(&w, builder_bytes(&words));
        builder_free(&words);
        put_json_member(&out, "cluster", &p.raw[0], true);
        put_json_member(&out, "queue", &p.raw[1], true);
        put_json_member(&out, "federation", &p.raw[2], true);
        put_json_member(&out, "health", &p.raw[3], true);
        builder_add_str(&out, "}\n");
        code = v == VERDICT_NO_QUORUM ? CTL_NO_QUORUM : CTL_OK;
    } else {
        enum render_verdict v = render_verdict(&p.facts, c->colour, &out);
        builder_add_str(&out, "\n\n");
        put_members(p.members, verbs_uint(p.cluster, "commit_index"), c->output == OUTPUT_WIDE, &out);
        builder_add_byte(&out, '\n');
        put_head(p.cluster, &out);
        put_queue_line(&p, &out);
        put_link(&p, &out);
        put_health(&p, &out);
        if (v == VERDICT_NO_QUORUM) {
            builder_addf(&out, "  -> %s\n",
                         p.facts.voters_alive > p.facts.voters / 2 ? "the nodes are choosing a leader; ask again in a few seconds"
                                                                   : error_remedy(E_NO_QUORUM));
            code = CTL_NO_QUORUM;
        } else if (v != VERDICT_OK) {
            builder_add_str(&out, "  -> greyctl doctor looks for the cause\n");
        }
    }
    picture_free(&p);
    int printed = verbs_print(&out);
    return printed != CTL_OK ? printed : (int)code;
}

int site_alive(struct call *c) {
    json_t *doc;
    int code;
    if (verbs_get(c, CLIENT_NODE, "/health/live", &doc, &code)) {
        return code;
    }
    json_decref(doc);
    (void)puts("alive: its loop turns, and its disk finishes what it was given");
    return CTL_OK;
}

int site_cluster(struct call *c) {
    json_t *doc;
    int code;
    struct builder out;
    if (verbs_get(c, CLIENT_NODE, "/v1/cluster/status", &doc, &code)) {
        return code;
    }
    struct picture p = {
        .cluster = doc, .members = json_object_get(doc, "members"), .facts = {.leader = verbs_text(doc, "leader_id")}};
    p.facts.quorum = json_is_true(json_object_get(doc, "quorum"));
    count_members(&p);
    unsigned majority = p.facts.voters / 2 + 1;
    unsigned spare = p.facts.voters_alive > majority && p.facts.quorum ? p.facts.voters_alive - majority : 0;
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    put_head(doc, &out);
    builder_addf(&out, "%-12s%s; %u of %u voters answer; can lose %u\n\n", "quorum", p.facts.quorum ? "yes" : "NO",
                 p.facts.voters_alive, p.facts.voters, spare);
    put_members(json_object_get(doc, "members"), verbs_uint(doc, "commit_index"), c->output == OUTPUT_WIDE, &out);
    json_decref(doc);
    return verbs_print(&out);
}

int site_members(struct call *c) {
    json_t *doc;
    int code;
    struct builder out;
    if (verbs_get(c, CLIENT_NODE, "/v1/cluster/members", &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    uint64_t last_index = 0;
    size_t i;
    const json_t *m;
    json_array_foreach(doc, i, m) {
        last_index = verbs_uint(m, "match_index") > last_index ? verbs_uint(m, "match_index") : last_index;
    }
    put_members(doc, last_index, c->output == OUTPUT_WIDE, &out);
    json_decref(doc);
    return verbs_print(&out);
}

int site_leader(struct call *c) {
    json_t *doc;
    int code;
    struct builder out;
    if (verbs_get(c, CLIENT_NODE, "/v1/cluster/leader", &doc, &code)) {
        return code;
    }
    builder_init(&out, 4096);
    render_text(&out, bytes_str(verbs_text(doc, "leader_id")));
    if (c->output == OUTPUT_WIDE) {
        builder_addf(&out, "  %.100s  %.100s  term %" PRIu64, verbs_text(doc, "http_addr"), verbs_text(doc, "addr"),
                     verbs_uint(doc, "term"));
    }
    builder_add_byte(&out, '\n');
    json_decref(doc);
    return verbs_print(&out);
}

int site_queue(struct call *c) {
    static const char *const titles[] = {"CHANNEL", "WAITING>", "SIZE>", "OLDEST>", "NEXT SEQ>", "ACKED SEQ>", "LOST>", "GAPS>"};
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    char text[RENDER_SHORT], limit[RENDER_SHORT];
    if (verbs_get(c, CLIENT_NODE, "/v1/queue", &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, 8);
    for (int i = 0; i < 3; i++) {
        const json_t *channel = json_object_get(json_object_get(doc, "channels"), channels[i]);
        render_cell(&t, channels[i]);
        render_cellf(&t, "%" PRIu64, verbs_uint(channel, "pending"));
        render_cell(&t, render_size(verbs_uint(channel, "bytes"), text));
        render_cell(&t, render_span(verbs_real(channel, "oldest_seconds", 0), text));
        render_cellf(&t, "%" PRIu64, verbs_uint(channel, "next_seq"));
        render_cellf(&t, "%" PRIu64, verbs_uint(channel, "acked_seq"));
        render_cellf(&t, "%" PRIu64, verbs_uint(channel, "gap_events"));
        render_cellf(&t, "%" PRIu64, verbs_uint(channel, "gaps"));
    }
    render_table_end(&t, &out);
    builder_addf(&out, "\n%s of %s used\n", render_size(verbs_uint(doc, "bytes"), text),
                 render_size(verbs_uint(doc, "limit_bytes"), limit));
    json_decref(doc);
    return verbs_print(&out);
}

int site_federation(struct call *c) {
    struct picture p;
    struct builder out;
    int code = picture_take(c, &p);
    if (code != CTL_OK) {
        picture_free(&p);
        return client_complain(&c->problem);
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    if (c->output == OUTPUT_JSON) {
        builder_add(&out, builder_bytes(&p.raw[2]));
    } else {
        put_link(&p, &out);
        put_queue_line(&p, &out);
        put_named(&out, "owner", verbs_text(p.federation, "owner"));
        put_named(&out, "incarnation", verbs_text(p.federation, "incarnation"));
    }
    picture_free(&p);
    return verbs_print(&out);
}

/* --- snapshots ------------------------------------------------------------------------------------------------------------------------ */

int site_snapshot_create(struct call *c) {
    struct client_request q = {.method = "POST", .path = "/v1/admin/snapshot", .timeout_ms = 600000};
    struct builder out;
    char size[RENDER_SHORT];
    json_t *doc;
    int code;
    if (verbs_send(c, &q, &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    builder_add_str(&out, "wrote ");
    render_text(&out, bytes_str(verbs_text(doc, "name")));
    builder_addf(&out, " (%s, to entry %" PRIu64 ")\n", render_size(verbs_uint(doc, "bytes"), size), verbs_uint(doc, "index"));
    json_decref(doc);
    return verbs_print(&out);
}

static void put_digest(struct render_table *t, const json_t *row, const char *name, bool wide) {
    render_cellf(t, wide ? "%.64s" : "%.12s", verbs_text(row, name));
}

int site_snapshot_list(struct call *c) {
    static const struct listing_column columns[] = {LISTING("NAME", "name"),
                                                    LISTING("INDEX>", "index"),
                                                    LISTING_BY("SIZE>", "bytes", listing_size),
                                                    LISTING("MADE", "made"),
                                                    LISTING_BY("COMPLETE", "self_contained", listing_yes),
                                                    LISTING_BY("SHA-256", "sha256", put_digest)};
    static const struct listing l = {.columns = columns, .count = sizeof columns / sizeof columns[0]};
    return listing_get(c, CLIENT_NODE, "/v1/admin/snapshots", &l);
}

int site_snapshot_restore(struct call *c) {
    (void)fprintf(
        stderr,
        "greyctl: a running agent is not restored under its feet\n  -> stop greyd on this node, then: greyd restore --snapshot "
        "%s --data-dir EMPTY-DIRECTORY\n",
        c->arg_count > 0 ? c->args[0] : "FILE");
    return CTL_USAGE;
}
