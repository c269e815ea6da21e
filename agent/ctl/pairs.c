/* Verbs for keys and their values. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/ctl/input.h"
#include "agent/ctl/listing.h"
#include "include/grey/limits.h"

#define WATCH_TIMEOUT_MS 70000u /* a node ends a long poll after 55 s */

/* "/v1/kv/<key>" with a NUL; false: too long, and the user told. */
static bool key_path(const char *key, struct builder *path) {
    builder_init(path, 8192);
    builder_add_str(path, "/v1/kv/");
    client_encode(path, bytes_str(key), false);
    if (key[0] == 0 || strlen(key) > LIMIT_KEY_BYTES || path->err != E_OK) {
        (void)fprintf(stderr, "greyctl: a key has 1 to %u bytes\n", LIMIT_KEY_BYTES);
        builder_free(path);
        return false;
    }
    return true;
}

static bool write_out(struct bytes value) {
    return fwrite(value.data, 1, value.size, stdout) == value.size;
}

int pairs_get(struct call *c) {
    struct builder path;
    if (!key_path(c->args[0], &path)) {
        return CTL_USAGE;
    }
    builder_add_str(&path, verbs_option(c, "stale") != NULL ? "?consistency=stale" : "");
    builder_add_byte(&path, 0);
    struct client_request q = {.method = "GET", .path = (const char *)path.data};
    struct http_answer a;
    int code = client_call(&c->client, &q, &a, &c->problem);
    builder_free(&path);
    if (code != CTL_OK) {
        (void)client_complain(&c->problem);
    } else {
        struct bytes value = builder_bytes(&a.body);
        bool newline = isatty(STDOUT_FILENO) && (value.size == 0 || value.data[value.size - 1] != '\n');
        code = write_out(value) && (!newline || fputc('\n', stdout) != EOF) && fflush(stdout) == 0 ? CTL_OK : CTL_FAILED;
        if (c->output == OUTPUT_WIDE) {
            (void)fprintf(stderr, "%sversion %s  type %s\n",
                          value.size > 0 && !newline && value.data[value.size - 1] != '\n' ? "\n" : "", a.etag, a.content_type);
        }
    }
    builder_free(&a.body);
    return code;
}

/* --- put and del ---------------------------------------------------------------------------------------------------------------------- */

static bool read_value(struct call *c, struct builder *value) {
    const char *file = verbs_option(c, "file"), *text = c->arg_count > 1 ? c->args[1] : NULL;
    if ((file == NULL) == (text == NULL)) {
        (void)fputs("greyctl: give the value once: as VALUE, as - for stdin, or with --file\n", stderr);
        return false;
    }
    if (file == NULL && strcmp(text, "-") != 0) {
        builder_add_str(value, text);
        return true;
    }
    return input_read(file == NULL ? "-" : file, "a value", value);
}

/* Fills `header` from --if-version and --if-absent; "" for none. */
static bool condition(struct call *c, char header[64]) {
    uint64_t version;
    header[0] = 0;
    if (!verbs_number(c, "if-version", 1, UINT64_MAX - 1, 0, &version)) {
        return false;
    }
    if (verbs_option(c, "if-absent") != NULL) {
        (void)snprintf(header, 64, "If-None-Match: *");
    } else if (version > 0) {
        (void)snprintf(header, 64, "If-Match: \"%" PRIu64 "\"", version);
    }
    return true;
}

static int change(struct call *c, const char *method, struct bytes value, const char *type) {
    char header[64];
    struct builder path, out;
    json_t *doc;
    int code;
    if (!condition(c, header) || !key_path(c->args[0], &path)) {
        return CTL_USAGE;
    }
    builder_add_byte(&path, 0);
    const char *headers[] = {header[0] != 0 ? header : NULL, NULL};
    struct client_request q = {
        .method = method, .path = (const char *)path.data, .headers = headers, .body = value, .body_type = type};
    bool done = verbs_send(c, &q, &doc, &code);
    builder_free(&path);
    if (done) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    bool existed = json_is_true(json_object_get(doc, "existed"));
    if (method[0] == 'P') {
        builder_addf(&out, "%s, version %" PRIu64 "\n", existed ? "changed" : "created", verbs_uint(doc, "version"));
    } else {
        builder_add_str(&out, "deleted\n"); /* a key that is not there is an error */
    }
    json_decref(doc);
    return verbs_print(&out);
}

int pairs_put(struct call *c) {
    struct builder value;
    builder_init(&value, LIMIT_VALUE_BYTES);
    const char *type = verbs_option(c, "type");
    int code = read_value(c, &value) ? change(c, "PUT", builder_bytes(&value), type) : CTL_USAGE;
    builder_free(&value);
    return code;
}

int pairs_del(struct call *c) {
    return change(c, "DELETE", bytes_of(NULL, 0), NULL);
}

/* --- list ------------------------------------------------------------------------------------------------------------------------------- */

static void list_path(struct call *c, const char *after, uint64_t limit, struct builder *path) {
    builder_addf(path, "/v1/kv?limit=%" PRIu64, limit);
    if (c->arg_count > 0) {
        builder_add_str(path, "&prefix=");
        client_encode(path, bytes_str(c->args[0]), true);
    }
    if (after[0] != 0) {
        builder_add_str(path, "&after=");
        client_encode(path, bytes_str(after), true);
    }
    builder_add_str(path, verbs_option(c, "stale") != NULL ? "&consistency=stale" : "");
    builder_add_byte(path, 0);
}

int pairs_list(struct call *c) {
    static const struct listing_column columns[] = {LISTING("KEY", "key"), LISTING("VERSION>", "version"),
                                                    LISTING_BY("SIZE>", "bytes", listing_size), LISTING("TYPE", "content_type")};
    static const struct listing l = {.columns = columns, .count = sizeof columns / sizeof columns[0], .rows = "keys"};
    uint64_t most;
    return verbs_number(c, "limit", 1, 100000000, 100000000, &most) ? listing_pages(c, list_path, most, &l) : CTL_USAGE;
}

/* --- watch ------------------------------------------------------------------------------------------------------------------------------ */

/* The version in an ETag such as "17"; 0 when there is none. */
static uint64_t version_of(const char *etag) {
    return strtoull(etag[0] == '"' ? etag + 1 : etag, NULL, 10);
}

static int watch_round(struct call *c, const char *path_text, uint64_t *version, uint64_t *left) {
    struct client_request q = {.method = "GET", .path = path_text, .timeout_ms = WATCH_TIMEOUT_MS};
    struct http_answer a;
    int code = client_call(&c->client, &q, &a, &c->problem);
    bool gone = c->problem.http_status == 404;
    if (code == CTL_OK && a.status == 200) {
        *version = version_of(a.etag);
        (void)printf("%" PRIu64 "\t", *version);
        code = write_out(builder_bytes(&a.body)) && fputc('\n', stdout) != EOF && fflush(stdout) == 0 ? CTL_OK : CTL_FAILED;
        --*left;
    } else if (code == CTL_REFUSED && gone) {
        if (*version != 0) {
            (void)printf("%" PRIu64 "\tdeleted\n", *version);
            (void)fflush(stdout);
            --*left;
        }
        *version = 0; /* wait until it appears */
        code = CTL_OK;
    }
    builder_free(&a.body);
    return code;
}

int pairs_watch(struct call *c) {
    uint64_t left, version = 0;
    struct builder path;
    int code = CTL_OK;
    if (!verbs_number(c, "count", 1, UINT64_MAX - 1, UINT64_MAX, &left) || !key_path(c->args[0], &path)) {
        return CTL_USAGE;
    }
    size_t base = path.size;
    while (code == CTL_OK && left > 0) {
        path.size = base;
        builder_addf(&path, "?watch=%" PRIu64, version);
        builder_add_byte(&path, 0);
        c->problem.http_status = 0;
        code = watch_round(c, (const char *)path.data, &version, &left);
    }
    builder_free(&path);
    return code != CTL_OK && c->problem.title[0] != 0 ? (int)client_complain(&c->problem) : code;
}
