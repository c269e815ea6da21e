/* Verbs for tasks and tenants. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/ctl/input.h"
#include "agent/ctl/listing.h"
#include "include/grey/limits.h"

#define LOGS_TIMEOUT_MS 40000u /* above the time that a question waits for more */
#define ORDER_BYTES_MAX (1024u * 1024u)

static bool one_path(const char *prefix, const char *name, const char *more, struct builder *path) {
    builder_init(path, 8192);
    builder_add_str(path, prefix);
    client_encode(path, bytes_str(name), true);
    builder_add_str(path, more);
    builder_add_byte(path, 0);
    if (name[0] == 0 || path->err != E_OK) {
        (void)fprintf(stderr, "greyctl: a name has 1 to %u characters\n", LIMIT_NAME_BYTES);
        builder_free(path);
        return false;
    }
    return true;
}

/* A call that changes something: the answer as it is, or one line made of it. */
static int change(struct call *c, const char *method, const char *path, struct bytes body,
                  void (*say)(struct builder *out, const json_t *doc)) {
    struct client_request q = {
        .method = method, .path = path, .body = body, .body_type = body.size > 0 ? "application/json" : NULL};
    struct builder out;
    json_t *doc;
    int code;
    if (verbs_send(c, &q, &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    say(&out, doc);
    json_decref(doc);
    return verbs_print(&out);
}

/* --- tasks ------------------------------------------------------------------------------------------------------------------------------- */

static void say_task(struct builder *out, const json_t *doc) {
    render_text(out, bytes_str(verbs_text(doc, "id")));
    builder_addf(out, "  %s%s\n", verbs_text(doc, "state"),
                 json_is_true(json_object_get(doc, "duplicate")) ? "  (it was submitted before)" : "");
}

/* From the options and what stands behind the verb: the command. */
static bool put_order(struct call *c, struct builder *out) {
    static const char *const texts[] = {"id",       "tenant",  "namespace", "lane",     "schedule",
                                        "delivery", "restart", "offload",   "time-zone"};
    static const char zone[] = "time-zone";
    static const char *const images[] = {"image", "bundle"};
    struct json_writer w;
    json_writer_init(&w, out);
    json_open(&w, '{');
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (verbs_option(c, texts[i]) != NULL) {
            json_key(&w, strcmp(texts[i], zone) == 0 ? "time_zone" : texts[i]);
            json_str(&w, verbs_option(c, texts[i]));
        }
    }
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        if (verbs_option(c, images[i]) != NULL) {
            json_member_open(&w, "oci", '{');
            json_member_str(&w, images[i], verbs_option(c, images[i]));
            json_close(&w);
        }
    }
    if (c->arg_count > 0) {
        json_member_open(&w, "command", '[');
        for (unsigned i = 0; i < c->arg_count; i++) {
            json_str(&w, c->args[i]);
        }
        json_close(&w);
    }
    json_close(&w);
    return out->err == E_OK;
}

int jobs_submit(struct call *c) {
    const char *file = verbs_option(c, "file");
    struct builder body;
    builder_init(&body, ORDER_BYTES_MAX);
    bool well;
    bool image = verbs_option(c, "image") != NULL, bundle = verbs_option(c, "bundle") != NULL;
    if ((file == NULL) == (c->arg_count == 0 && !image && !bundle) || (image && bundle)) {
        (void)fputs(
            "greyctl: give the task once: as COMMAND with its arguments, --image or --bundle PATH with or without a COMMAND, or "
            "--file FILE ('-' reads stdin)\n",
            stderr);
        well = false;
    } else if (file == NULL) {
        well = put_order(c, &body);
    } else {
        well = input_read(file, "a task", &body);
    }
    int code = well ? change(c, "POST", "/v1/tasks", builder_bytes(&body), say_task) : CTL_USAGE;
    builder_free(&body);
    return code;
}

int jobs_cancel(struct call *c) {
    struct builder path;
    if (!one_path("/v1/tasks/", c->args[0], "", &path)) {
        return CTL_USAGE;
    }
    int code = change(c, "DELETE", (const char *)path.data, bytes_of(NULL, 0), say_task);
    builder_free(&path);
    return code;
}

static void list_path(struct call *c, const char *after, uint64_t limit, struct builder *path) {
    static const char *const filters[] = {"tenant", "state"};
    builder_addf(path, "/v1/tasks?limit=%" PRIu64, limit);
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        if (verbs_option(c, filters[i]) != NULL) {
            builder_addf(path, "&%s=", filters[i]);
            client_encode(path, bytes_str(verbs_option(c, filters[i])), true);
        }
    }
    if (after[0] != 0) {
        builder_add_str(path, "&after=");
        client_encode(path, bytes_str(after), true);
    }
    builder_add_byte(path, 0);
}

static void put_tenant_of(struct render_table *t, const json_t *task, const char *name, bool wide) {
    const char *space = verbs_text(task, "namespace");
    (void)wide;
    render_cellf(t, "%s%s%s", verbs_text(task, name), space[0] != 0 ? "/" : "", space);
}

int jobs_list(struct call *c) {
    static const struct listing_column columns[] = {LISTING("TASK", "id"),
                                                    LISTING_BY("TENANT", "tenant", put_tenant_of),
                                                    LISTING("LANE", "lane"),
                                                    LISTING("STATE", "state"),
                                                    LISTING_BY("REASON", "reason", listing_dash),
                                                    LISTING_BY("NODE", "node", listing_dash),
                                                    LISTING("SUBMITTED", "submitted")};
    static const struct listing l = {.columns = columns, .count = sizeof columns / sizeof columns[0], .rows = "tasks"};
    return listing_pages(c, list_path, UINT64_MAX, &l);
}

/* Every field that has a value, one line each. */
int jobs_show(struct call *c) {
    struct builder path, out;
    json_t *doc, *value;
    const char *name;
    int code = CTL_OK;
    if (!one_path("/v1/tasks/", c->args[0], "", &path)) {
        return CTL_USAGE;
    }
    bool done = verbs_get(c, CLIENT_NODE, (const char *)path.data, &doc, &code);
    builder_free(&path);
    if (done) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    json_object_foreach(doc, name, value) {
        bool empty = json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0) ||
                     (json_is_array(value) && json_array_size(value) == 0) ||
                     (json_is_object(value) && json_object_size(value) == 0);
        char *text = empty || json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        if (!empty) {
            builder_addf(&out, "%-16s ", name);
            render_text(&out, bytes_str(text != NULL ? text : json_string_value(value)));
            builder_add_byte(&out, '\n');
        }
        free(text);
    }
    json_decref(doc);
    return verbs_print(&out);
}

/* One answer, printed; *offset goes behind it, *token becomes the run's. */
static int logs_round(struct call *c, const char *more, uint64_t *offset, uint64_t *token) {
    struct builder path;
    struct http_answer a;
    if (!one_path("/v1/tasks/", c->args[0], more, &path)) {
        return CTL_USAGE;
    }
    struct client_request q = {.method = "GET", .path = (const char *)path.data, .timeout_ms = LOGS_TIMEOUT_MS};
    int code = client_call(&c->client, &q, &a, &c->problem);
    builder_free(&path);
    if (code != CTL_OK) {
        builder_free(&a.body);
        return code;
    }
    uint64_t of = strtoull(a.token, NULL, 10);
    *offset = of == *token || *token == 0 ? strtoull(a.end, NULL, 10) : 0; /* another run begins at its own beginning */
    bool other = *token != 0 && of != *token;
    *token = of;
    if (other) {
        builder_free(&a.body);
        return CTL_OK;
    }
    code = verbs_print(&a.body);
    (void)fflush(stdout);
    return code;
}

static bool task_goes_on(struct call *c) {
    struct builder path;
    json_t *doc = NULL;
    bool on = false;
    if (one_path("/v1/tasks/", c->args[0], "", &path)) {
        if (client_get(&c->client, CLIENT_NODE, (const char *)path.data, &doc, NULL, &c->problem) == CTL_OK) {
            const char *state = verbs_text(doc, "state");
            on = strcmp(state, "completed") != 0 && strcmp(state, "failed") != 0 && strcmp(state, "cancelled") != 0;
        }
        json_decref(doc);
        builder_free(&path);
    }
    return on;
}

/* With --follow until the task has ended: what it writes meanwhile, and what its next run does if it is tried again. */
int jobs_logs(struct call *c) {
    const char *stream = verbs_option(c, "stream");
    static const struct timespec pause = {.tv_nsec = 300000000};
    bool follow = verbs_option(c, "follow") != NULL, on;
    uint64_t offset = 0, token = 0, before;
    int code;
    do {
        char more[96];
        on = follow && task_goes_on(c); /* asked first: what was written before it ended is read after */
        (void)snprintf(more, sizeof more, "/logs?stream=%.16s&offset=%" PRIu64 "%s", stream == NULL ? "stdout" : stream, offset,
                       on ? "&follow=true" : "");
        before = offset;
        c->problem.http_status = 0;
        code = logs_round(c, more, &offset, &token);
        if (code != CTL_OK && on && c->problem.http_status == 404) { /* it has not begun yet */
            (void)nanosleep(&pause, NULL);
            code = CTL_OK;
        }
    } while (code == CTL_OK && follow && (on || offset != before));
    return code != CTL_OK && c->problem.title[0] != 0 ? (int)client_complain(&c->problem) : code;
}

/* --- tenants ------------------------------------------------------------------------------------------------------------------------------ */

static void put_share(struct render_table *t, const char *name, const char *space, const json_t *share) {
    const json_t *used = json_object_get(share, "used"), *limit = json_object_get(share, "limit");
    char a[RENDER_SHORT], b[RENDER_SHORT];
    render_cellf(t, "%s%s%s", name, space[0] != 0 ? "/" : "", space);
    render_cellf(t, "%.1f%%", verbs_real(share, "cpu_percent", 0));
    render_cellf(t, "%.1f%%", verbs_real(share, "memory_percent", 0));
    render_cellf(t, "%.2f of %.2f", (double)verbs_uint(used, "cpu_millicores") / 1000,
                 (double)verbs_uint(limit, "cpu_millicores") / 1000);
    render_cellf(t, "%s of %s", render_size(verbs_uint(used, "memory_bytes"), a),
                 render_size(verbs_uint(limit, "memory_bytes"), b));
    render_cellf(t, "%" PRIu64, verbs_uint(share, "tasks"));
    if (space[0] == 0) {
        render_cellf(t, "%" PRIu64, verbs_uint(share, "waiting"));
    } else {
        render_cell(t, NULL);
    }
}

static void put_tenant(struct render_table *t, const json_t *tenant) {
    size_t i;
    const json_t *space;
    put_share(t, verbs_text(tenant, "name"), "", tenant);
    json_array_foreach(json_object_get(tenant, "namespaces"), i, space) {
        put_share(t, verbs_text(tenant, "name"), verbs_text(space, "name"), space);
    }
}

static const char *const tenant_titles[] = {"TENANT", "CPU>", "MEMORY>", "CORES>", "MEMORY USED>", "TASKS>", "WAITING>"};

int jobs_tenants(struct call *c) {
    struct render_table t;
    struct builder out;
    json_t *doc;
    size_t i;
    const json_t *tenant;
    int code = CTL_OK;
    if (verbs_get(c, CLIENT_NODE, "/v1/quotas", &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    builder_addf(&out, "zone %s, %.1f%% used, %" PRIu64 " tasks placed, %" PRIu64 " wait\n\n", verbs_text(doc, "zone"),
                 verbs_real(doc, "usage_percent", 0), verbs_uint(doc, "concurrent"), verbs_uint(doc, "waiting"));
    render_table_begin(&t, tenant_titles, 7);
    json_array_foreach(json_object_get(doc, "tenants"), i, tenant) {
        put_tenant(&t, tenant);
    }
    render_table_end(&t, &out);
    json_decref(doc);
    return verbs_print(&out);
}

int jobs_tenant(struct call *c) {
    struct render_table t;
    struct builder path, out;
    json_t *doc;
    int code = CTL_OK;
    if (!one_path("/v1/tenants/", c->args[0], "", &path)) {
        return CTL_USAGE;
    }
    bool done = verbs_get(c, CLIENT_NODE, (const char *)path.data, &doc, &code);
    builder_free(&path);
    if (done) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, tenant_titles, 7);
    put_tenant(&t, doc);
    render_table_end(&t, &out);
    builder_addf(&out, "burst time left: %.0f s\n", verbs_real(doc, "burst_left_seconds", 0));
    json_decref(doc);
    return verbs_print(&out);
}

static void say_set(struct builder *out, const json_t *doc) {
    render_text(out, bytes_str(verbs_text(doc, "name")));
    builder_addf(out, "  cpu %.1f%%  memory %.1f%%\n", verbs_real(doc, "cpu_percent", 0), verbs_real(doc, "memory_percent", 0));
}

static void say_removed(struct builder *out, const json_t *doc) {
    (void)doc;
    builder_add_str(out, "removed\n");
}

/* "/v1/tenants/acme", with --namespace "/v1/tenants/acme/namespaces/staging". */
static bool tenant_path(struct call *c, struct builder *path) {
    const char *space = verbs_option(c, "namespace");
    struct builder more;
    builder_init(&more, 1024);
    if (space != NULL) {
        builder_add_str(&more, "/namespaces/");
        client_encode(&more, bytes_str(space), true);
    }
    builder_add_byte(&more, 0);
    bool well = more.err == E_OK && one_path("/v1/tenants/", c->args[0], (const char *)more.data, path);
    builder_free(&more);
    return well;
}

static void say_tree(struct builder *out, const json_t *doc) {
    size_t i;
    const json_t *tenant;
    json_array_foreach(json_object_get(doc, "tenants"), i, tenant) {
        say_set(out, tenant);
    }
}

/* The gateway reads it: what it cannot set it names with its line. */
static int set_tree(struct call *c, const char *file) {
    struct builder text;
    builder_init(&text, ORDER_BYTES_MAX);
    bool well = input_read(file, "a tree of quotas", &text);
    int code = well ? change(c, "PUT", "/v1/quotas", builder_bytes(&text), say_tree) : CTL_USAGE;
    builder_free(&text);
    return code;
}

int jobs_tenant_set(struct call *c) {
    const char *file = verbs_option(c, "file");
    if (file != NULL && c->arg_count == 0 && verbs_option(c, "cpu") == NULL && verbs_option(c, "memory") == NULL) {
        return set_tree(c, file);
    }
    if (file != NULL || c->arg_count == 0) {
        (void)fputs("greyctl: name a tenant and its share, or a --file with all of them\n", stderr);
        return CTL_USAGE;
    }
    const char *cpu = verbs_option(c, "cpu"), *memory = verbs_option(c, "memory");
    char body[160], *end[2] = {NULL, NULL};
    double percent[2] = {cpu == NULL ? 0 : strtod(cpu, &end[0]), memory == NULL ? 0 : strtod(memory, &end[1])};
    struct builder path;
    if (cpu == NULL || memory == NULL || *end[0] != 0 || *end[1] != 0 || cpu[0] == 0 || memory[0] == 0) {
        (void)fputs("greyctl: say both --cpu PERCENT and --memory PERCENT, for example --cpu 30 --memory 25\n", stderr);
        return CTL_USAGE;
    }
    if (!tenant_path(c, &path)) {
        return CTL_USAGE;
    }
    int size = snprintf(body, sizeof body, "{\"cpu_percent\":%.9g,\"memory_percent\":%.9g}", percent[0], percent[1]);
    int code = change(c, "PUT", (const char *)path.data, bytes_of(body, (size_t)size), say_set);
    builder_free(&path);
    return code;
}

int jobs_tenant_remove(struct call *c) {
    struct builder path;
    if (!tenant_path(c, &path)) {
        return CTL_USAGE;
    }
    int code = change(c, "DELETE", (const char *)path.data, bytes_of(NULL, 0), say_removed);
    builder_free(&path);
    return code;
}
