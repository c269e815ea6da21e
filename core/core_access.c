#include "core/core_access.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/address.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define GUESSES_PER_MINUTE 10u
#define BURST_SECONDS 2u
#define LOOK_MS 1000u
#define LINE_BYTES 256u
#define TTL_S_USUAL (90ll * 86400)
#define TTL_S_MAX (3653ll * 86400)

static struct metric refused =
    METRIC_COUNTER("grey_http_refused_total", "Calls of the API that were refused for who the caller is.");

/* --- the file: a line each: id role expires (Unix seconds) SHA-256 name ---------------------------------------------------------------- */

static bool read_line(char *line, struct bearer *b) {
    char *at = line, *words[4];
    *b = (struct bearer){.role = ROLE_NONE};
    for (size_t i = 0; i < 4; i++) {
        words[i] = strsep(&at, " \n");
        if (words[i] == NULL) {
            return false;
        }
    }
    enum access_role role;
    char *end;
    int64_t expires_s = strtoll(words[2], &end, 10);
    size_t name_size = at == NULL ? 0 : strcspn(at, "\n");
    if (strlen(words[0]) != BEARER_ID_BYTES || !access_role_parse(bytes_str(words[1]), &role) || *end != 0 || words[2][0] == 0 ||
        expires_s < 0 || expires_s > INT64_MAX / 1000 || strlen(words[3]) != 2 * sizeof b->hash ||
        !bytes_unhex(words[3], sizeof b->hash, b->hash) || !bearer_name_valid(bytes_of(at, name_size))) {
        return false;
    }
    memcpy(b->id, words[0], BEARER_ID_BYTES);
    b->role = role;
    b->expires_ms = expires_s * 1000;
    if (name_size > 0) {
        memcpy(b->name, at, name_size);
    }
    return true;
}

/* *count of them; a file that is not there is an empty one. */
static enum grey_error read_tokens(const char *path, struct bearer *out, uint32_t *count, struct fault *f) {
    char line[LINE_BYTES];
    struct stat s;
    *count = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return errno == ENOENT ? E_OK : fault_errno(f, E_CONFIG, "%.200s", path);
    }
    enum grey_error err = E_OK;
    if (fstat(fileno(file), &s) != 0 || (s.st_mode & 022) != 0) {
        err = fault_set(f, E_CONFIG, "%.100s may be written by others: chmod 600 %.100s", path, path);
    }
    while (err == E_OK && fgets(line, sizeof line, file) != NULL) {
        if (*count == CORE_TOKENS_MAX || !read_line(line, &out[*count])) {
            err = fault_set(f, E_CONFIG, "%.160s: line %u is no token, or there are too many", path, *count + 1);
        } else {
            ++*count;
        }
    }
    (void)fclose(file);
    return err;
}

static enum grey_error write_tokens(const char *path, const struct bearer *tokens, uint32_t count, struct fault *f) {
    char fresh[LIMIT_PATH_BYTES + 8];
    (void)snprintf(fresh, sizeof fresh, "%.1000s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        return fault_errno(f, E_SYSTEM, "%.200s", fresh);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct bearer *b = &tokens[i];
        char hash[2 * sizeof b->hash + 1];
        bytes_hex(b->hash, sizeof b->hash, hash);
        (void)fprintf(file, "%s %s %" PRId64 " %s %s\n", b->id, access_role_name((enum access_role)b->role), b->expires_ms / 1000,
                      hash, b->name);
    }
    bool written = fflush(file) == 0 && fsync(fd) == 0;
    written = fclose(file) == 0 && written;
    return written && rename(fresh, path) == 0 ? E_OK : fault_errno(f, E_SYSTEM, "%.200s", fresh);
}

/* --- calls ----------------------------------------------------------------------------------------------------------------------------- */

enum grey_error core_access_init(struct core_access *a, struct loop *loop, const char *path, uint32_t calls_per_second,
                                 struct fault *f) {
    uint64_t seeds[2];
    metrics_register(&refused);
    keys_random(seeds, sizeof seeds);
    memset(a, 0, sizeof *a);
    a->loop = loop;
    a->path = path[0] == 0 ? NULL : path;
    throttle_init(&a->guesses, seeds[0], GUESSES_PER_MINUTE, GUESSES_PER_MINUTE);
    throttle_init(&a->calls, seeds[1], calls_per_second * 60u, calls_per_second * BURST_SECONDS);
    return a->path == NULL ? E_OK : read_tokens(a->path, a->tokens, &a->token_count, f);
}

/* A revoked token is no good a second later.  While the file cannot be read, nobody is let in. */
static void look_again(struct core_access *a) {
    struct stat s = {0};
    struct fault f = {0};
    uint64_t now_ms = loop_now_ms(a->loop);
    if (a->path == NULL || now_ms < a->looked_ms + LOOK_MS) {
        return;
    }
    a->looked_ms = now_ms;
    bool there = stat(a->path, &s) == 0;
    int64_t changed_ns = (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
    if (there && changed_ns == a->changed_ns && s.st_size == a->size) {
        return;
    }
    a->changed_ns = changed_ns;
    a->size = s.st_size;
    if (read_tokens(a->path, a->tokens, &a->token_count, &f) != E_OK) {
        a->token_count = 0;
        a->size = -1;
        log_error("core-api", "tokens", "no token is taken: %s", f.text);
    }
}

static const struct bearer *token_of(const struct core_access *a, struct bytes authorization) {
    char id[BEARER_ID_BYTES + 1];
    bool named = bearer_id(bearer_of(authorization), id);
    for (uint32_t i = 0; i < a->token_count && named; i++) {
        if (strcmp(a->tokens[i].id, id) == 0) {
            return &a->tokens[i];
        }
    }
    return NULL;
}

static bool refuse(struct http_request *q, enum grey_error err, const char *detail, uint64_t wait_ms) {
    metrics_add(&refused, 0, 1);
    http_reply_wait(q, err, detail, wait_ms);
    return false;
}

bool core_access_check(struct core_access *a, struct http_request *q, enum access_role least) {
    char address[ACCESS_ADDRESS_BYTES];
    struct access_verdict v;
    struct http_peer peer;
    http_peer(q, &peer);
    look_again(a);
    bool open = a->path == NULL && !peer.tls;
    struct access_call call = {.door = open ? DOOR_OPEN : DOOR_GUARDED,
                               .uri = peer.uri,
                               .name = peer.name,
                               .role = peer.role,
                               .origin = http_header(q, "Origin"),
                               .host = http_header(q, "Host"),
                               .authorization = open ? bytes_of(NULL, 0) : http_header(q, "Authorization"),
                               .now_ms = now_wall_ms()};
    call.bearer = token_of(a, call.authorization);
    address_source(peer.address, address, sizeof address);
    struct bytes source = bytes_str(address);
    uint64_t now_ms = loop_now_ms(a->loop);
    bool counts = least != ROLE_NONE && call.door == DOOR_GUARDED;
    uint64_t wait_ms = counts ? throttle_wait_ms(&a->guesses, source, now_ms) : 0;
    if (wait_ms > 0) {
        return refuse(q, E_TOO_OFTEN, "too many credentials that were not good came from this address", wait_ms);
    }
    access_judge(&call, least, &v);
    if (v.guessed) {
        (void)throttle_take(&a->guesses, source, now_ms);
        log_limited(LOG_WARN, "core-api", "refused", "from=%s error=GREY-%d %s", address, error_id(v.err), error_sentence(v.err));
    }
    if (v.err != E_OK) {
        return refuse(q, v.err, v.detail, 0);
    }
    wait_ms = counts ? throttle_take(&a->calls, call.bearer == NULL ? source : bytes_str(call.bearer->id), now_ms) : 0;
    if (wait_ms > 0) {
        return refuse(q, E_TOO_OFTEN, "this caller has used up its calls", wait_ms);
    }
    if (least > ROLE_VIEWER) {
        struct bytes path = http_path(q);
        log_info("core-api", "order", "by=\"%s\" from=%s %s %.*s", v.who, address, http_method(q),
                 (int)(path.size < 120 ? path.size : 120), (const char *)path.data);
    }
    return true;
}

/* --- the command line -------------------------------------------------------------------------------------------------------------------- */

struct words {
    const char *path, *role, *name, *ttl, *id;
};

static enum grey_error create(const struct words *w, struct bearer *tokens, uint32_t *count, char text[BEARER_BYTES + 1],
                              struct fault *f) {
    struct bearer b = {0};
    enum access_role role;
    char *end = NULL;
    int64_t now_s = now_wall_ms() / 1000, ttl_s = w->ttl == NULL ? TTL_S_USUAL : strtoll(w->ttl, &end, 10);
    int64_t unit_s = end == NULL || *end == 0 || *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 0;
    uint32_t kept = 0;
    uint8_t seed[BEARER_SEED_BYTES];
    if (w->role == NULL || !access_role_parse(bytes_str(w->role), &role)) {
        return fault_set(f, E_USAGE, "--role viewer, operator or admin is wanted");
    }
    if (unit_s == 0 || ttl_s < 1 || ttl_s > TTL_S_MAX / unit_s || (end != NULL && end[0] != 0 && end[1] != 0)) {
        return fault_set(f, E_USAGE, "--ttl: a time such as 30m, 12h or 90d, up to ten years");
    }
    if (!bearer_name_valid(bytes_str(w->name))) {
        return fault_set(f, E_USAGE, "--name: up to 64 printable characters of ASCII");
    }
    for (uint32_t i = 0; i < *count; i++) { /* what has expired leaves */
        if (tokens[i].expires_ms > now_s * 1000) {
            tokens[kept++] = tokens[i];
        }
    }
    *count = kept;
    if (*count == CORE_TOKENS_MAX) {
        return fault_set(f, E_QUOTA, "there are %u tokens, which is the most: revoke some", *count);
    }
    keys_random(seed, sizeof seed);
    bearer_make(seed, text, &b);
    keys_wipe(seed, sizeof seed);
    b.role = role;
    b.expires_ms = (now_s + ttl_s * unit_s) * 1000;
    if (w->name != NULL) {
        memcpy(b.name, w->name, strlen(w->name) + 1);
    }
    tokens[(*count)++] = b;
    return E_OK;
}

static enum grey_error take_back(const char *id, struct bearer *tokens, uint32_t *count, struct fault *f) {
    for (uint32_t i = 0; i < *count; i++) {
        if (strcmp(tokens[i].id, id) == 0) {
            tokens[i] = tokens[--*count];
            return E_OK;
        }
    }
    return fault_set(f, E_NOT_FOUND, "there is no token '%.20s'", id);
}

static bool read_words(int argc, char **argv, struct words *w) {
    for (int i = 1; i < argc; i++) {
        const struct {
            const char *name;
            const char **value;
        } flags[] = {{"--tokens", &w->path}, {"--role", &w->role}, {"--name", &w->name}, {"--ttl", &w->ttl}};
        bool known = false;
        for (size_t k = 0; k < sizeof flags / sizeof flags[0] && !known; k++) {
            known = strcmp(argv[i], flags[k].name) == 0 && i + 1 < argc;
            if (known) {
                *flags[k].value = argv[++i];
            }
        }
        if (!known && (argv[i][0] == '-' || w->id != NULL)) {
            return false;
        }
        w->id = known ? w->id : argv[i];
    }
    return w->path != NULL;
}

int core_access_command(int argc, char **argv) {
    static const char usage[] =
        "usage: grey-core token create --tokens FILE --role viewer|operator|admin [--ttl 90d] [--name TEXT]\n"
        "       grey-core token list --tokens FILE\n"
        "       grey-core token revoke ID --tokens FILE\n";
    static struct bearer tokens[CORE_TOKENS_MAX];
    struct words w = {0};
    struct fault f = {0};
    uint32_t count = 0;
    char text[BEARER_BYTES + 1] = "";
    const char *verb = argc >= 1 ? argv[0] : "";
    bool creates = strcmp(verb, "create") == 0, lists = strcmp(verb, "list") == 0, revokes = strcmp(verb, "revoke") == 0;
    if ((!creates && !lists && !revokes) || !read_words(argc, argv, &w) || (revokes == (w.id == NULL))) {
        (void)fputs(usage, stderr);
        return 2;
    }
    enum grey_error err = read_tokens(w.path, tokens, &count, &f);
    err = err != E_OK ? err : creates ? create(&w, tokens, &count, text, &f) : revokes ? take_back(w.id, tokens, &count, &f) : E_OK;
    err = err != E_OK || lists ? err : write_tokens(w.path, tokens, count, &f);
    if (err != E_OK) {
        (void)fprintf(stderr, "grey-core: %s (GREY-%d): %s\n", error_sentence(err), error_id(err), f.text);
        return err == E_USAGE ? 2 : 1;
    }
    for (uint32_t i = 0; i < count && lists; i++) {
        char expires[32];
        now_format(tokens[i].expires_ms, expires);
        (void)printf("%s  %-8s  %s  %s\n", tokens[i].id, access_role_name((enum access_role)tokens[i].role), expires,
                     tokens[i].name);
    }
    if (creates) {
        (void)printf("%s\n", text);
    }
    keys_wipe(text, sizeof text);
    return 0;
}
