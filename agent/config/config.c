#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config/config_core.h"
#include "federation/shaper.h"
#include "platform/conn.h"
#include "platform/keyring.h"

#define FILE_OPTIONS 2u /* of config_options: they name files; the others are switches */

static void mark(struct config *c, size_t i, enum config_origin origin, uint32_t line) {
    c->origin[i] = (uint16_t)origin;
    c->origin_line[i] = line;
}

/* --- the file ------------------------------------------------------------------------------------------------------------------------------- */

static unsigned distance(const char *a, const char *b) { /* Levenshtein, on short texts */
    unsigned row[128];
    size_t b_size = strlen(b) < 127 ? strlen(b) : 127;
    for (size_t j = 0; j <= b_size; j++) {
        row[j] = (unsigned)j;
    }
    for (size_t i = 0; a[i] != 0; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < b_size; j++) {
            unsigned up = row[j + 1], cost = diagonal + (a[i] != b[j]);
            unsigned least = up < row[j] ? up + 1 : row[j] + 1;
            row[j + 1] = cost < least ? cost : least;
            diagonal = up;
        }
    }
    return row[b_size];
}

static const char *nearest(const char *path) {
    const char *best = NULL;
    unsigned best_distance = 128;
    for (size_t i = 0; i < config_key_count; i++) {
        unsigned d = config_keys[i].path[0] == 0 ? 128 : distance(path, config_keys[i].path);
        const char *dot = strrchr(path, '.'), *last = dot == NULL ? path : dot + 1, *known = strrchr(config_keys[i].path, '.');
        if (known != NULL && strcmp(last, known + 1) == 0 && d > 2) {
            d = 2; /* the right name in the wrong place */
        }
        if (d < best_distance) {
            best_distance = d;
            best = config_keys[i].path;
        }
    }
    return best;
}

static long find_key(const char *path) {
    for (size_t i = 0; i < config_key_count; i++) {
        if (strcmp(config_keys[i].path, path) == 0) {
            return (long)i;
        }
    }
    return -1;
}

static bool is_group(const char *path) { /* some known key lies below it */
    size_t size = strlen(path);
    for (size_t i = 0; i < config_key_count; i++) {
        if (strncmp(config_keys[i].path, path, size) == 0 && config_keys[i].path[size] == '.') {
            return true;
        }
    }
    return false;
}

static enum grey_error read_mapping(struct config *c, const struct yaml_node *map, const char *prefix, enum config_origin origin,
                                    struct fault *f) {
    for (const struct yaml_node *n = map->first; n != NULL; n = n->next) {
        char path[160];
        int size =
            snprintf(path, sizeof path, "%s%s%.*s", prefix, prefix[0] != 0 ? "." : "", (int)n->key.size, (const char *)n->key.data);
        struct yaml_node place = *n;
        place.line = n->key_line;
        place.column = n->key_column;
        if (size < 0 || (size_t)size >= sizeof path) {
            return yaml_fault(&place, f, "a key of this length is not known");
        }
        long i = find_key(path);
        if (i < 0 && is_group(path)) {
            if (n->kind == YAML_MAPPING) {
                enum grey_error err = read_mapping(c, n, path, origin, f);
                if (err != E_OK) {
                    return err;
                }
            } else if (!yaml_is_null(n)) {
                return yaml_fault(n, f, "%s: expected more keys below it", path);
            }
            continue;
        }
        if (i < 0) {
            return yaml_fault(&place, f, "unknown key '%.100s'; the nearest known one is '%s'", path, nearest(path));
        }
        enum grey_error err = yaml_is_null(n) ? E_OK : config_set_from_yaml(c, &config_keys[i], n, f);
        if (err != E_OK) {
            return err;
        }
        mark(c, (size_t)i, origin, n->key_line);
    }
    return E_OK;
}

static enum grey_error read_text(struct config *c, struct bytes text, const char *name, enum config_origin origin,
                                 struct fault *f) {
    struct fault inner = {0};
    struct yaml_doc *doc = yaml_read(text, &inner);
    enum grey_error err = doc == NULL ? inner.code : E_OK;
    const struct yaml_node *root = doc == NULL ? NULL : yaml_root(doc);
    if (root != NULL && root->kind != YAML_MAPPING) {
        err = yaml_fault(root, &inner, "expected keys and values");
    } else if (root != NULL) {
        err = read_mapping(c, root, "", origin, &inner);
    }
    yaml_doc_free(doc);
    if (err != E_OK && f != NULL) {
        (void)fault_set(f, err, "%.90s: %.140s", name, inner.text);
    }
    return err;
}

enum grey_error config_read(struct config *c, struct bytes text, const char *name, struct fault *f) {
    (void)snprintf(c->file, sizeof c->file, "%s", name);
    return read_text(c, text, name, FROM_FILE, f);
}

enum grey_error config_read_profile(struct config *c, struct bytes text, const char *name, struct fault *f) {
    (void)snprintf(c->profile, sizeof c->profile, "%s", name);
    return read_text(c, text, name, FROM_PROFILE, f);
}

/* --- the whole way -------------------------------------------------------------------------------------------------------------------------- */

/* Splits argv[*i] into name and value ("--name value" or "--name=value"); a flag without value gives NULL. */
static enum grey_error next_flag(int argc, char **argv, int *i, char name[40], const char **value, bool takes_value,
                                 struct fault *f) {
    const char *equals = strchr(argv[*i], '=');
    (void)name;
    *value = equals == NULL ? NULL : equals + 1;
    if (takes_value && *value == NULL) {
        if (*i + 1 >= argc) {
            return fault_set(f, E_USAGE, "%s wants a value", argv[*i]);
        }
        *value = argv[++*i];
    }
    return E_OK;
}

static bool flag_name(const char *argument, char name[40]) {
    if (strcmp(argument, "-c") == 0) {
        argument = "--config";
    } else if (strcmp(argument, "-h") == 0) {
        argument = "--help";
    }
    size_t size = strncmp(argument, "--", 2) == 0 ? strcspn(argument + 2, "=") : 0;
    if (size == 0 || size >= 40) {
        return false;
    }
    memcpy(name, argument + 2, size);
    name[size] = 0;
    return true;
}

static enum grey_error read_flags(struct config *c, int argc, char **argv, bool only_config, struct fault *f) {
    for (int i = 1; i < argc; i++) {
        char name[40];
        const char *value;
        if (!flag_name(argv[i], name)) {
            return fault_set(f, E_USAGE, "'%.100s' is no flag; see greyd --help", argv[i]);
        }
        bool profile = strcmp(name, "profile") == 0;
        if (profile || strcmp(name, "config") == 0) {
            if (next_flag(argc, argv, &i, name, &value, true, f) != E_OK) {
                return E_USAGE;
            }
            (void)snprintf(profile ? c->profile : c->file, sizeof c->file, "%s", value);
            continue;
        }
        bool *const switches[] = {&c->check, &c->print, &c->show_version, &c->show_help};
        size_t o = FILE_OPTIONS;
        while (o < config_option_count && strcmp(config_options[o].name, name) != 0) {
            o++;
        }
        if (o < config_option_count) {
            *switches[o - FILE_OPTIONS] = true;
            continue;
        }
        size_t k = 0;
        while (k < config_key_count && (config_keys[k].flag == NULL || strcmp(config_keys[k].flag, name) != 0)) {
            k++;
        }
        if (k == config_key_count) {
            return fault_set(f, E_USAGE, "unknown flag --%s; see greyd --help", name);
        }
        if (next_flag(argc, argv, &i, name, &value, config_keys[k].kind != KIND_BOOL, f) != E_OK) {
            return E_USAGE;
        }
        if (only_config) {
            continue;
        }
        char what[48];
        (void)snprintf(what, sizeof what, "--%s", name);
        if (config_set_from_string(c, &config_keys[k], value == NULL ? "true" : value, what, f) != E_OK) {
            return E_USAGE;
        }
        mark(c, k, FROM_FLAG, 0);
    }
    return E_OK;
}

bool config_loopback(const char *address) {
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "localhost:", 10) == 0 || strncmp(address, "[::1]:", 6) == 0 ||
           strncmp(address, "unix:", 5) == 0;
}

static void say(struct fault *f, const char *text) {
    (void)fault_set(f, E_CONFIG, "%s", text);
}

/* Keys in the TPM are asked for where attestation asks. */
static void add_socket(const struct config *c, char *key, size_t size) {
    size_t used = strlen(key);
    if (keyring_with_tpm(key) && keyring_socket(key)[0] == 0 && used + strlen(c->attest_socket) + 2 <= size) {
        (void)snprintf(key + used, size - used, "@%s", c->attest_socket);
    }
}

/* ":8081" means this machine only, as all defaults do; "0.0.0.0:8081" must be said. */
static void add_host(char address[LIMIT_ADDRESS_BYTES + 1]) {
    char whole[LIMIT_ADDRESS_BYTES + 1];
    if (address[0] == ':' && snprintf(whole, sizeof whole, "127.0.0.1%s", address) < (int)sizeof whole) {
        memcpy(address, whole, sizeof whole);
    }
}

/* What nobody said, and follows from what was said. */
static void fill_in(struct config *c) {
    if (c->heartbeat_interval_ms == 0) {
        bool default_timeout = c->origin[find_key("consensus.election_timeout_ms")] == FROM_DEFAULT;
        c->heartbeat_interval_ms = default_timeout ? 150 : c->election_timeout_ms / 3;
    }
    if (c->site_id[0] == 0) { /* no file named a site or a node */
        (void)snprintf(c->site_id, sizeof c->site_id, "%s", "site");
    }
    if (c->node_id[0] == 0) {
        (void)snprintf(c->node_id, sizeof c->node_id, "1");
    }
    if (c->wal_dir[0] == 0) {
        (void)snprintf(c->wal_dir, sizeof c->wal_dir, "%.1000s/log", c->data_dir);
    }
    if (c->socket_path[0] == 0) {
        (void)snprintf(c->socket_path, sizeof c->socket_path, "%.1000s/greyd.sock", c->data_dir);
    }
    add_host(c->http_addr);
    add_host(c->peer_addr);
    if (c->peer_advertise[0] == 0) {
        memcpy(c->peer_advertise, c->peer_addr, sizeof c->peer_addr);
    }
    add_socket(c, c->tls_key, sizeof c->tls_key);
    add_socket(c, c->upstream_key, sizeof c->upstream_key);
}

static enum grey_error check_site(const struct config *c, struct fault *f) {
    if (c->heartbeat_interval_ms * 2 > c->election_timeout_ms) {
        return fault_set(f, E_CONFIG,
                         "consensus.heartbeat_interval_ms (%" PRId64
                         ") must be at most half of consensus.election_timeout_ms (%" PRId64 ")",
                         c->heartbeat_interval_ms, c->election_timeout_ms);
    }
    bool tls = c->peer_tls && c->mode != CONFIG_MODE_SINGLE;
    if (tls && (c->tls_ca[0] == 0 || c->tls_cert[0] == 0 || c->tls_key[0] == 0)) {
        say(f, "security.tls.enabled wants security.tls.ca_cert, security.tls.cert and security.tls.key");
        return E_CONFIG;
    }
    if (!tls && !c->insecure && !config_loopback(c->http_addr)) {
        return fault_set(f, E_CONFIG,
                         "networking.http_addr %.60s can be reached by others: set security.tls.enabled, or use 127.0.0.1, or say "
                         "--insecure-i-know",
                         c->http_addr);
    }
    if (!tls && !c->insecure && c->mode != CONFIG_MODE_SINGLE && !config_loopback(c->peer_addr)) {
        return fault_set(f, E_CONFIG,
                         "networking.peer_addr %.60s can be reached by others: set security.tls.enabled, or use 127.0.0.1, or say "
                         "--insecure-i-know",
                         c->peer_addr);
    }
    if (strcmp(c->tls_min_version, "1.3") == 0 && !conn_tls_knows_13()) {
        return fault_set(f, E_TLS_VERSION,
                         "security.tls.min_version is 1.3, and the mbedTLS of this build is 2.28, which speaks 1.2");
    }
    return E_OK;
}

static enum grey_error check_core(const struct config *c, struct fault *f) {
    const int64_t limits[] = {c->limit_kbps, c->down_limit_kbps};
    for (size_t i = 0; i < 2; i++) {
        if (limits[i] > 0 && (uint64_t)limits[i] * 125 < SHAPER_LIMIT_BYTES_PER_S_MIN) {
            return fault_set(f, E_CONFIG,
                             "federation.bandwidth.%slimit_mbps is below 0.016: one packet would take more than a second",
                             i == 0 ? "" : "down_");
        }
    }
    if (c->priority_count > 0 && c->priority_count != c->endpoint_count) {
        return fault_set(f, E_CONFIG, "federation.upstream.priorities has %u numbers for %u endpoints", c->priority_count,
                         c->endpoint_count);
    }
    if (c->federation && c->endpoint_count == 0) {
        say(f, "federation.enabled wants at least one federation.upstream.endpoints");
        return E_CONFIG;
    }
    if (c->attestation && (!c->federation || c->core_key[0] == 0)) {
        say(f, "attestation.enabled wants a core (federation.enabled) and its key (federation.upstream.core_key): it judges");
        return E_CONFIG;
    }
    if (c->attestation && strcmp(c->attest_type, "instance-identity") == 0 && c->attest_document[0] == 0) {
        say(f, "attestation.type instance-identity wants attestation.document");
        return E_CONFIG;
    }
    if (c->floor_percent[PRIORITY_HIGH] + c->floor_percent[PRIORITY_NORMAL] + c->floor_percent[PRIORITY_LOW] > 90) {
        say(f, "federation.offline.floor_percent: the shares together are more than 90");
        return E_CONFIG;
    }
    return E_OK;
}

/* What belongs together.  Files are looked at when greyd starts, not here. */
static enum grey_error settle(struct config *c, struct fault *f) {
    fill_in(c);
    enum grey_error err = check_site(c, f);
    return err == E_OK ? check_core(c, f) : err;
}

/* The file that was named, or the default one where there is one. */
static enum grey_error load_file(struct config *c, const char *named, const char *fallback,
                                 enum grey_error (*take)(struct config *c, struct bytes text, const char *name, struct fault *f),
                                 enum grey_error (*read_file)(const char *path, struct builder *out, struct fault *f),
                                 struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1];
    struct fault inner = {0};
    struct builder text;
    bool must_be = named[0] != 0;
    (void)snprintf(path, sizeof path, "%s", must_be ? named : fallback);
    builder_init(&text, YAML_TEXT_BYTES_MAX);
    enum grey_error err = read_file(path, &text, &inner);
    if (err == E_NOT_FOUND && !must_be) {
        err = E_OK;
    } else if (err != E_OK) {
        err = fault_set(f, E_CONFIG, "%.230s", inner.text);
    } else {
        err = text.err != E_OK ? fault_set(f, E_CONFIG, "%.100s is larger than 256 KiB", path)
                               : take(c, builder_bytes(&text), path, f);
    }
    builder_free(&text);
    return err;
}

enum grey_error config_load(struct config *c, int argc, char **argv, const char *(*environment)(const char *name),
                            enum grey_error (*read_file)(const char *path, struct builder *out, struct fault *f), struct fault *f) {
    config_defaults(c);
    enum grey_error err = read_flags(c, argc, argv, true, f);
    if (err != E_OK || c->show_help || c->show_version) {
        return err;
    }
    err = load_file(c, c->profile, CONFIG_PROFILE_DEFAULT, config_read_profile, read_file, f);
    err = err != E_OK ? err : load_file(c, c->file, CONFIG_FILE_DEFAULT, config_read, read_file, f);
    if (err != E_OK) {
        return err;
    }
    if (c->site_id[0] == 0 && c->node_id[0] != 0) {
        memcpy(c->site_id, c->node_id, sizeof c->site_id);
    }
    for (size_t i = 0; i < config_key_count; i++) {
        const char *value = config_keys[i].environment == NULL ? NULL : environment(config_keys[i].environment);
        if (value != NULL && value[0] != 0) { /* compose files set what they do not mean to "" */
            err = config_set_from_string(c, &config_keys[i], value, config_keys[i].environment, f);
            if (err != E_OK) {
                return err;
            }
            mark(c, i, FROM_ENVIRONMENT, 0);
        }
    }
    err = read_flags(c, argc, argv, false, f);
    return err != E_OK ? err : settle(c, f);
}
