#include "core/core_api.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core_attest.h"
#include "core/core_objects.h"
#include "core/core_rollouts.h"
#include "core/core_store.h"
#include "core/store_answers.h"
#include "core/store_objects.h"
#include "core/store_restored.h"
#include "include/grey/limits.h"
#include "platform/metrics.h"

#define ANSWER_BYTES_MAX (16u * 1024u * 1024u)
#define SITES_DEFAULT 10000u
#define LIMIT_DEFAULT 100u
#define LIMIT_MAX 1000u

static struct metric requests = METRIC_COUNTER("grey_http_requests_total", "Requests of the HTTP API.");

void core_api_register(void) {
    metrics_register(&requests);
}

struct question {
    struct storage_job storage;
    struct http_request *q;
    char site[LIMIT_NAME_BYTES + 1], after[80];
    struct store_query query;
    struct builder out;
    struct json_writer w;
    enum { ASK_SITES, ASK_SITE, ASK_EVENTS, ASK_GAPS, ASK_OBJECTS, ASK_PAGE } what;
};

/* --- the page --------------------------------------------------------------------------------------------------------------------------------- */

static const char page_head[] =
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><meta http-equiv=refresh "
    "content=10>"
    "<title>Grey Edge</title><style>"
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#1d2429;background:#f7f8f8}"
    "h1{font-size:1.35em;margin:0 0 .2em}p{margin:.2em 0 1.2em;color:#56616a}.wrap{overflow-x:auto;background:#fff;border:1px "
    "solid #dde2e5;border-radius:6px}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.55em .8em;border-bottom:1px solid "
    "#eceff1;white-space:nowrap}"
    "th{font-weight:600;color:#56616a;font-size:.88em}tr:last-child "
    "td{border-bottom:0}td.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".ok{color:#1a7f4b}.late{color:#a15c00}.away{color:#b3261e}</style>"
    "<h1>Grey Edge</h1><p>Sites that sync to this core. The page renews itself every 10 s; the same as JSON: <a "
    "href=/v1/sites>/v1/sites</a></p>";

static void put_html(struct builder *b, const char *text) {
    for (; text != NULL && *text != 0; text++) {
        switch (*text) {
        case '<':
            builder_add_str(b, "&lt;");
            break;
        case '&':
            builder_add_str(b, "&amp;");
            break;
        case '"':
            builder_add_str(b, "&quot;");
            break;
        default:
            builder_add_byte(b, (uint8_t)*text);
        }
    }
}

static void put_age(struct builder *b, double seconds) {
    if (seconds < 120) {
        builder_addf(b, "%.0f s ago", seconds);
    } else if (seconds < 7200) {
        builder_addf(b, "%.0f min ago", seconds / 60);
    } else if (seconds < 172800) {
        builder_addf(b, "%.1f h ago", seconds / 3600);
    } else {
        builder_addf(b, "%.1f d ago", seconds / 86400);
    }
}

static void put_attestation(struct builder *b, const json_t *site) {
    const char *state = json_string_value(json_object_get(site, "attestation"));
    json_int_t all = json_integer_value(json_object_get(site, "attested_nodes"));
    json_int_t failed = json_integer_value(json_object_get(site, "failed_nodes"));
    bool good = state != NULL && strcmp(state, "trusted") == 0, plain = all == 0;
    builder_addf(b, "<td class=%s>%s", failed > 0 ? "away" : good ? "ok" : plain ? "n" : "late", state == NULL ? "none" : state);
    if (!plain) {
        builder_addf(b, " (%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT ")", failed > 0 ? failed : all, all);
    }
}

static void put_row(struct builder *b, const json_t *site) {
    static const char *const names[] = {"control", "events", "data"};
    double seconds = json_number_value(json_object_get(site, "last_contact_seconds"));
    const char *class = seconds < 1800 ? "ok" : seconds < 7200 ? "late" : "away";
    json_int_t behind = 0;
    builder_add_str(b, "<tr><td><b>");
    put_html(b, json_string_value(json_object_get(site, "id")));
    builder_addf(b, "</b><td class=%s>%s<td>", class, seconds < 1800 ? "in contact" : seconds < 7200 ? "quiet" : "away");
    put_age(b, seconds);
    builder_add_str(b, "<td>");
    put_html(b, json_string_value(json_object_get(site, "node")));
    const json_t *channels = json_object_get(site, "channels");
    for (size_t i = 0; i < 3; i++) {
        const json_t *c = json_object_get(channels, names[i]);
        builder_addf(b, "<td class=n>%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(c, "acked_seq")));
        behind += json_integer_value(json_object_get(c, "behind"));
    }
    builder_addf(b, "<td class=n>%" JSON_INTEGER_FORMAT "<td class=n>%" JSON_INTEGER_FORMAT, behind,
                 json_integer_value(json_object_get(site, "gap_events")));
    put_attestation(b, site);
}

static void send_page(struct question *a) {
    struct builder page;
    struct fault f = {0};
    builder_init(&page, ANSWER_BYTES_MAX);
    builder_add_str(&page, page_head);
    if (store_restored_open()) {
        builder_add_str(
            &page, "<p class=away>This core runs on an older copy of its store (GREY-3019): <a href=/v1/store>what is known of "
                   "it</a>, and <code>greyctl store status</code>.");
    }
    json_t *sites = json_read(builder_bytes(&a->out), &f);
    if (json_array_size(sites) == 0) {
        builder_add_str(&page, "<p>No site has been in contact yet.");
    } else {
        builder_add_str(
            &page, "<div class=wrap><table><tr><th>site<th>state<th>last contact<th>speaks through<th>control<th>events<th>data"
                   "<th>behind<th>lost<th>attestation");
        for (size_t i = 0; i < json_array_size(sites); i++) {
            put_row(&page, json_array_get(sites, i));
        }
        builder_add_str(&page, "</table></div>");
    }
    json_decref(sites);
    http_reply(a->q, 200, "text/html; charset=utf-8", builder_bytes(&page), NULL, 0);
    builder_free(&page);
}

/* --- questions --------------------------------------------------------------------------------------------------------------------------------- */

static void run_question(struct storage_job *storage, struct store *store) {
    struct question *a = (struct question *)(void *)storage;
    switch (a->what) {
    case ASK_SITES:
    case ASK_PAGE:
        storage->err = store_answers_sites(store, &a->query, &a->w, &storage->fault);
        return;
    case ASK_SITE:
        storage->err = store_answers_site(store, a->site, &a->w, &storage->fault);
        return;
    case ASK_EVENTS:
        storage->err = store_answers_events(store, a->site, &a->query, &a->w, &storage->fault);
        return;
    case ASK_OBJECTS:
        storage->err = store_site_objects(store, a->site, &a->w, &storage->fault);
        return;
    case ASK_GAPS:
        storage->err = store_answers_gaps(store, a->site, &a->query, &a->w, &storage->fault);
        return;
    }
}

static void question_done(struct worker_job *job) {
    struct question *a = (struct question *)(void *)job;
    enum grey_error err = a->storage.err != E_OK ? a->storage.err : a->what == ASK_PAGE ? a->out.err : E_OK;
    if (err != E_OK) {
        http_reply_error(a->q, err, err == E_NOT_FOUND ? "no site of this name has been in contact" : a->storage.fault.text);
    } else if (a->what == ASK_PAGE) {
        send_page(a);
    } else {
        http_reply_json(a->q, 200, &a->out, NULL, 0);
    }
    builder_free(&a->out);
    mem_free(a);
}

static bool read_query(struct question *a, const char **wrong) {
    char text[80];
    bool sites = a->what == ASK_SITES || a->what == ASK_PAGE;
    a->query = (struct store_query){.channel = -1, .after = a->after, .limit = sites ? SITES_DEFAULT : LIMIT_DEFAULT};
    if (http_query(a->q, "channel", text, sizeof text)) {
        for (int i = 0; i < CHANNEL_COUNT; i++) {
            if (strcmp(text, event_channel_name((enum event_channel)i)) == 0) {
                a->query.channel = i;
            }
        }
        if (a->query.channel < 0) {
            *wrong = "channel is control, events or data";
            return false;
        }
    }
    if (http_query(a->q, "limit", text, sizeof text)) {
        char *end;
        unsigned long limit = strtoul(text, &end, 10);
        if (text[0] == 0 || *end != 0 || limit < 1 || limit > LIMIT_MAX) {
            *wrong = "limit is a number from 1 to 1000";
            return false;
        }
        a->query.limit = (uint32_t)limit;
    }
    (void)http_query(a->q, "after", a->after, sizeof a->after);
    return true;
}

/* "/v1/sites/{id}[/events|/gaps|/objects]" -> a->site and a->what. */
static bool parse_site_path(struct question *a, struct bytes path) {
    const uint8_t *slash = memchr(path.data, '/', path.size);
    size_t size = slash == NULL ? path.size : (size_t)(slash - path.data);
    if (!grey_name_valid((const char *)path.data, size)) {
        return false;
    }
    memcpy(a->site, path.data, size);
    struct bytes rest = bytes_of(path.data + size, path.size - size);
    a->what = rest.size == 0                      ? ASK_SITE
              : bytes_equal_str(rest, "/events")  ? ASK_EVENTS
              : bytes_equal_str(rest, "/objects") ? ASK_OBJECTS
                                                  : ASK_GAPS;
    return rest.size == 0 || a->what != ASK_GAPS || bytes_equal_str(rest, "/gaps");
}

static void ask(struct core_api *api, struct http_request *q, struct bytes path) {
    static const char prefix[] = "/v1/sites/";
    struct question *a = mem_new(1, sizeof *a);
    const char *wrong = NULL;
    enum grey_error err = a == NULL ? E_NO_MEMORY : E_OK;
    if (err == E_OK) {
        a->q = q;
        a->storage = (struct storage_job){.job = {.done = question_done}, .run = run_question};
        builder_init(&a->out, ANSWER_BYTES_MAX);
        json_writer_init(&a->w, &a->out);
        if (bytes_equal_str(path, "/") || bytes_equal_str(path, "/v1/sites")) {
            a->what = path.size == 1 ? ASK_PAGE : ASK_SITES;
        } else if (path.size <= strlen(prefix) || memcmp(path.data, prefix, strlen(prefix)) != 0 ||
                   !parse_site_path(a, bytes_of(path.data + strlen(prefix), path.size - strlen(prefix)))) {
            err = E_NOT_FOUND;
            wrong = "no such path; docs/openapi.yaml lists them all";
        }
    }
    if (err == E_OK && !read_query(a, &wrong)) {
        err = E_BAD_REQUEST;
    }
    if (err == E_OK) {
        err = worker_submit(api->storage, &a->storage.job);
    }
    if (err != E_OK) {
        http_reply_error(q, err, wrong);
        mem_free(a);
    }
}

/* Healthy or degraded: 200.  Unhealthy, the store cannot be written: 503.  Ready: sites can be served. */
static void health(struct core_api *api, struct http_request *q, bool ready) {
    bool up = ingest_connected(api->ingest), stores = ingest_stores(api->ingest);
    struct builder out;
    struct json_writer w;
    builder_init(&out, 1024);
    json_writer_init(&w, &out);
    json_open(&w, '{');
    json_member_str(&w, "status", !stores ? "unhealthy" : up && !store_restored_open() ? "healthy" : "degraded");
    json_member_str(&w, "broker", up ? "connected" : "disconnected");
    json_member_str(&w, "store", stores ? "written" : "failing: see the log");
    if (store_restored_open()) {
        json_member_str(&w, "restored", "GREY-3019: the store is an older copy of itself; see GET /v1/store");
    }
    json_close(&w);
    builder_add_byte(&out, '\n');
    http_reply(q, stores && (up || !ready) ? 200 : 503, "application/json", builder_bytes(&out), NULL, 0);
    builder_free(&out);
}

/* Who may; docs/openapi.yaml says the same, and make docs-check compares.  "*" stands for a name. */
static const struct {
    const char *method, *path;
    enum access_role least;
} routes[] = {
    {"GET", "/health", ROLE_NONE},
    {"GET", "/health/live", ROLE_NONE},
    {"GET", "/health/ready", ROLE_NONE},
    {"GET", "/metrics", ROLE_VIEWER},
    {"GET", "/", ROLE_VIEWER},
    {"GET", "/v1/sites", ROLE_VIEWER},
    {"GET", "/v1/sites/*/events", ROLE_VIEWER},
    {"GET", "/v1/sites/*/gaps", ROLE_VIEWER},
    {"GET", "/v1/sites/*/objects", ROLE_VIEWER},
    {"GET", "/v1/sites/*/labels", ROLE_VIEWER},
    {"PUT", "/v1/sites/*/labels", ROLE_OPERATOR},
    {"GET", "/v1/sites/", ROLE_VIEWER},
    {"GET", "/v1/configs", ROLE_VIEWER},
    {"GET", "/v1/configs/", ROLE_VIEWER},
    {"PUT", "/v1/configs/", ROLE_ADMIN},
    {"GET", "/v1/policies", ROLE_VIEWER},
    {"GET", "/v1/policies/", ROLE_VIEWER},
    {"PUT", "/v1/policies/", ROLE_ADMIN},
    {"GET", "/v1/data", ROLE_VIEWER},
    {"GET", "/v1/updates", ROLE_VIEWER},
    {"GET", "/v1/updates/", ROLE_VIEWER},
    {"PUT", "/v1/updates/", ROLE_ADMIN},
    {"GET", "/v1/data/", ROLE_VIEWER},
    {"PUT", "/v1/data/", ROLE_ADMIN},
    {"GET", "/v1/rollouts/", ROLE_VIEWER},
    {"PUT", "/v1/rollouts/", ROLE_ADMIN},
    {"POST", "/v1/enroll", ROLE_NONE}, /* its own token or the key of the certificate says who asks */
    {"GET", "/v1/enroll/tokens", ROLE_ADMIN},
    {"POST", "/v1/enroll/tokens", ROLE_ADMIN},
    {"DELETE", "/v1/enroll/tokens/", ROLE_ADMIN},
    {"POST", "/v1/enroll/tpm", ROLE_NONE}, /* the TPM says who asks */
    {"GET", "/v1/enroll/tpms", ROLE_ADMIN},
    {"POST", "/v1/enroll/tpms", ROLE_ADMIN},
    {"DELETE", "/v1/enroll/tpms/", ROLE_ADMIN},
    {"GET", "/v1/certificates", ROLE_VIEWER},
    {"POST", "/v1/certificates/revoke", ROLE_ADMIN},
    {"GET", "/v1/attestations", ROLE_VIEWER},
    {"GET", "/v1/attestations/", ROLE_VIEWER},
    {"POST", "/v1/attestations/*/forget", ROLE_ADMIN},
    {"POST", "/v1/attestations/policy", ROLE_ADMIN},
    {"GET", "/v1/store", ROLE_VIEWER},
    {"POST", "/v1/store/accept", ROLE_ADMIN},
};

/* What is not named is for admins, so that a call that was forgotten here is shut and not open. */
static enum access_role least_role(struct http_request *q) {
    size_t ignored;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (access_path_match(routes[i].path, http_path(q), &ignored) >= 0) {
            if (strcmp(http_method(q), routes[i].method) == 0) {
                return routes[i].least;
            }
            http_allow(q, routes[i].method);
        }
    }
    return ROLE_ADMIN;
}

void core_api_handle(void *context, struct http_request *q) {
    struct core_api *api = context;
    struct bytes path = http_path(q);
    metrics_add(&requests, 0, 1);
    if (!core_access_check(&api->access, q, least_role(q))) {
        return;
    }
    if (core_store_handle(api, q) || core_objects_handle(api, q) || core_rollouts_handle(api, q) || core_attest_handle(api, q) ||
        registrar_handle(api->registrar, q) || enroller_handle(api->enroller, q)) {
        return;
    }
    if (strcmp(http_method(q), "GET") != 0) {
        http_reply_error(q, E_METHOD, "sites are asked with GET");
    } else if (bytes_equal_str(path, "/health/live")) {
        http_reply(q, 200, "application/json", bytes_str("{\"status\":\"live\"}\n"), NULL, 0);
    } else if (bytes_equal_str(path, "/health") || bytes_equal_str(path, "/health/ready")) {
        health(api, q, path.size > strlen("/health"));
    } else if (bytes_equal_str(path, "/metrics")) {
        struct builder out;
        builder_init(&out, ANSWER_BYTES_MAX);
        metrics_render(&out);
        http_reply(q, 200, "text/plain; version=0.0.4", builder_bytes(&out), NULL, 0);
        builder_free(&out);
    } else {
        ask(api, q, path);
    }
}
