#include "agent/config.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "federation/shaper.h"
#include "include/grey/must.h"
#include "platform/yaml.h"

enum kind {
    KIND_TEXT,  /* size: room in the struct */
    KIND_NAME,  /* [A-Za-z0-9._-]{1,64} */
    KIND_WORD,  /* one of `words` */
    KIND_INT,   /* min..max */
    KIND_MILLI, /* a number times 1000, stored as int64 */
    KIND_BOOL,
    KIND_LIST,    /* list of addresses: endpoints */
    KIND_TIMES,   /* list of types with the hours that their events live */
    KIND_RANKS,   /* list of numbers: their priorities */
    KIND_CLASSES, /* list of classes of traffic */
    KIND_WINDOWS, /* list of lines of federation/window.h */
    KIND_INERT,   /* known, without effect in this version: any value */
};

enum origin { FROM_DEFAULT, FROM_FILE, FROM_ENVIRONMENT, FROM_FLAG };

struct key {
    const char *path; /* "" for what only a flag or variable sets */
    enum kind kind;
    size_t at, size;
    int64_t min, max;
    const char *words, *environment, *flag, *fallback, *meaning;
};

#define AT(member) offsetof(struct config, member), sizeof(((struct config *)0)->member)
#define TEXT(path, member, env, flag, fallback, meaning)                                                                           \
    { path, KIND_TEXT, AT(member), 0, 0, NULL, env, flag, fallback, meaning }
#define NAME(path, member, env, flag, fallback, meaning)                                                                           \
    { path, KIND_NAME, AT(member), 0, 0, NULL, env, flag, fallback, meaning }
#define WORD(path, member, words, env, flag, fallback, meaning)                                                                    \
    { path, KIND_WORD, AT(member), 0, 0, words, env, flag, fallback, meaning }
#define INT(path, member, min, max, fallback, meaning)                                                                             \
    { path, KIND_INT, AT(member), min, max, NULL, NULL, NULL, fallback, meaning }
#define BOOL(path, member, env, flag, fallback, meaning)                                                                           \
    { path, KIND_BOOL, AT(member), 0, 0, NULL, env, flag, fallback, meaning }
#define INERT(path, meaning)                                                                                                       \
    { path, KIND_INERT, 0, 0, 0, 0, NULL, NULL, NULL, NULL, meaning }

static const struct key keys[] = {
    WORD("mode", mode, "single|site|edge|witness|dev", "GREY_MODE", "mode", "site",
         "single (dev): one node, no TLS; site: a gateway of a site; edge: a site with a core; witness: only votes, for a site of "
         "two"),
    NAME("node.id", node_id, "GREY_NODE_ID", "node-id", "", "name of this gateway within its site"),
    NAME("site.id", site_id, "GREY_SITE_ID", "site-id", "", "name of the site; without it the node.id of the file"),
    INERT("node.name", "a name for people"),
    INERT("node.location", "latitude and longitude, for maps"),
    TEXT("networking.http_addr", http_addr, "GREY_HTTP_ADDR", "http-addr", "127.0.0.1:8080", "address of the HTTP API"),
    TEXT("networking.peer_addr", peer_addr, "GREY_PEER_ADDR", "peer-addr", "127.0.0.1:9090",
         "address for the other gateways of the site"),
    TEXT("networking.grpc_addr", peer_addr, "GREY_GRPC_ADDR", "grpc-addr", NULL, "another word for networking.peer_addr"),
    TEXT("networking.peer_advertise", peer_advertise, NULL, "peer-advertise", "",
         "address that the others dial; without it networking.peer_addr"),
    TEXT("networking.socket", socket_path, NULL, "socket", "",
         "local socket of greyctl; without it greyd.sock in the data directory"),
    BOOL("", bootstrap, "GREY_RAFT_BOOTSTRAP", "bootstrap", "false", "start a new site; acts on an empty data directory only"),
    TEXT("", join, "GREY_CLUSTER_PEERS", "join", "", "addresses of gateways to join, comma separated"),
    BOOL("", insecure, NULL, "insecure-i-know", "false", "allow plain links on addresses that others can reach"),
    TEXT("storage.data_dir", data_dir, "GREY_DATA_DIR", "data-dir", "/var/lib/grey", "where this gateway keeps its data"),
    TEXT("storage.wal_dir", wal_dir, NULL, NULL, "", "where the log lies; without it log/ in the data directory"),
    INERT("storage.max_size_gb", "bound on all that lies on disk"),
    INERT("storage.hot_tier", "fast device"),
    INERT("storage.warm_tier", "large device"),
    INERT("storage.replication_factor", "copies in the site store"),
    INERT("storage.read_quorum", "reads of the site store"),
    INERT("storage.write_quorum", "writes of the site store"),
    INERT("storage.compaction_interval_secs", "compaction of the site store"),
    INERT("consensus.enabled", "consensus always runs, in a group of one as well"),
    INT("consensus.election_timeout_ms", election_timeout_ms, 50, 60000, "300", "x means a random time-out between x and 5x/3"),
    INT("consensus.heartbeat_interval_ms", heartbeat_interval_ms, 0, 20000, "0",
        "0: 150 ms, or a third of a time-out that was set"),
    BOOL("consensus.lease_reads", lease_reads, NULL, NULL, "true",
         "a leader answers reads without asking the others while they have promised to follow it"),
    INT("consensus.clock_drift_percent", clock_drift_percent, 0, 50, "1",
        "reads by lease are right while no two clocks of the site run apart by more"),
    INT("consensus.seal_interval_ms", seal_interval_ms, 0, 60000, "1000",
        "a leader signs what is committed this often, when there is anything new; 0: each commit"),
    INT("consensus.snapshot_threshold", snapshot_threshold, 10, 10000000, "10000", "entries between two snapshots"),
    INT("consensus.snapshot_interval_secs", snapshot_interval_s, 1, 604800, "3600",
        "time between two snapshots, when there is anything new"),
    INT("consensus.snapshots_kept", snapshots_kept, 2, 100, "3", "snapshots kept on disk"),
    INT("intake.commit_delay_ms", commit_delay_ms, 0, 1000, "50", "events below critical may wait so long to share a commit"),
    INT("intake.provisional_after_ms", provisional_after_ms, 100, 600000, "5000", "without a leader requests wait so long"),
    INT("scheduler.default_priority", default_priority, 0, 100, "50", "90+ critical, 70+ high, 30+ normal, else low"),
    BOOL("scheduler.enabled", scheduler, NULL, NULL, "false", "tasks may be placed on this gateway"),
    INT("scheduler.cpu_limit_millicores", cpu_limit_millicores, 0, 1000000, "0",
        "what it has for tasks and itself; 0: the machine's"),
    INT("scheduler.memory_limit_bytes", memory_limit_bytes, 0, 1099511627776, "0", "the same for memory; 0: the machine's"),
    INERT("scheduler.local_affinity", "where tasks prefer to run"),
    INERT("scheduler.cloud_offload", "tasks for the core"),
    INT("scheduler.max_concurrent_tasks", tasks_max, 1, 20000, "1000",
        "tasks of the site that have a gateway at a time; the leader's counts"),
    INERT("scheduler.priority_lanes", "lanes of the scheduler"),
    INERT("governance", "quotas"),
    INERT("observability.tracing", "traces"),
    BOOL("observability.metrics.enabled", metrics_enabled, NULL, NULL, "true", "serve metrics"),
    INT("observability.metrics.port", metrics_port, 0, 65535, "0", "a port of their own on 127.0.0.1; 0: only /metrics of the API"),
    INERT("observability.metrics.interval_secs", "how often metrics are gathered"),
    WORD("observability.logging.level", log_level, "trace|debug|info|warn|error", "GREY_LOG_LEVEL", "log-level", "info",
         "least level that is logged"),
    WORD("observability.logging.format", log_format, "pretty|json", "GREY_LOG_FORMAT", "log-format", "pretty",
         "form of log lines on stderr"),
    BOOL("security.tls.enabled", peer_tls, NULL, "tls", "false",
         "mutual TLS between the gateways and on an API that others can reach"),
    TEXT("security.tls.ca_cert", tls_ca, NULL, "tls-ca", "", "CA certificate"),
    TEXT("security.tls.cert", tls_cert, NULL, "tls-cert", "", "certificate of this gateway"),
    TEXT("security.tls.key", tls_key, NULL, "tls-key", "", "its key"),
    WORD("security.tls.min_version", tls_min_version, "1.2|1.3", NULL, NULL, "1.2", "least TLS version"),
    INERT("security.tls.cert_secret", "name of a secret in an orchestrator"),
    BOOL("security.auth.enabled", auth, NULL, NULL, "false",
         "ask API clients for tokens; true is refused at the start until there are any"),
    INERT("security.auth.method", "how they say it"),
    BOOL("federation.enabled", federation, NULL, NULL, "false", "sync with a core"),
    INERT("federation.role", "leaf, intermediate or core"),
    {"federation.upstream.endpoints", KIND_LIST, 0, 0, 0, 0, NULL, NULL, NULL, "", "addresses of the brokers, best first"},
    {"federation.upstream.priorities", KIND_RANKS, 0, 0, 1, 1000, NULL, NULL, NULL, "",
     "a number for each endpoint: lower is better, equal ones share the sites; without it their order"},
    INT("federation.upstream.failback_secs", failback_s, 1, 86400, "300",
        "the link returns to a better endpoint that has been good for so long"),
    BOOL("federation.upstream.alpn", upstream_alpn, NULL, NULL, "true", "say \"mqtt\" by ALPN to endpoints on port 443"),
    TEXT("federation.proxy.address", proxy, NULL, NULL, "", "host:port of an HTTP proxy that takes CONNECT"),
    TEXT("federation.proxy.auth_file", proxy_auth, NULL, NULL, "", "file with one line user:password for it, read at each try"),
    BOOL("federation.upstream.tls.enabled", upstream_tls, NULL, NULL, "true", "mutual TLS to the broker"),
    TEXT("federation.upstream.tls.ca_cert", upstream_ca, NULL, NULL, "", "CA certificate for the broker"),
    TEXT("federation.upstream.tls.client_cert", upstream_cert, NULL, NULL, "", "certificate shown to the broker"),
    TEXT("federation.upstream.tls.client_key", upstream_key, NULL, NULL, "", "its key"),
    TEXT("federation.upstream.core_key", core_key, NULL, NULL, "",
         "file with the core's public signing key (core-sign.pub); without it no configs, policies or data of the core are taken"),
    INT("federation.upstream.keepalive_secs", keepalive_s, 5, 65535, "900",
        "MQTT keep-alive, at most: it is shortened where the path forgets idle connections"),
    INERT("federation.sync", "what is pushed and pulled"),
    INERT("federation.offline.enabled", "the queue is always kept"),
    INT("federation.offline.max_offline_duration_hours", offline_hours_max, 1, 87600, "168",
        "an alarm when something has waited so long for the core; nothing leaves for it"),
    INERT("federation.offline.local_persistence", "the queue is always kept on disk"),
    INT("federation.offline.queue_size_mb", queue_size_mb, 1, 1048576, "1024", "MiB of events kept until the core has them"),
    INT("federation.offline.floor_percent.high", floor_percent[PRIORITY_HIGH], 0, 90, "0",
        "share of the queue below which high events make room for nobody but critical ones"),
    INT("federation.offline.floor_percent.normal", floor_percent[PRIORITY_NORMAL], 0, 90, "0", "the same for normal events"),
    INT("federation.offline.floor_percent.low", floor_percent[PRIORITY_LOW], 0, 90, "0",
        "the same for low ones; the three together at most 90"),
    INT("federation.offline.max_age_hours", age_hours_max, 0, 87600, "0",
        "events below critical that waited so long leave, as a gap; 0: they wait until the core has them"),
    {"federation.offline.time_to_live", KIND_TIMES, 0, 0, 0, 0, NULL, NULL, NULL, "",
     "list of {type, hours}: events below critical whose type fits ('*' stands for anything) leave after so long; the first "
     "counts"},
    {"federation.bandwidth.limit_mbps", KIND_MILLI, AT(limit_kbps), 0, 100000000, NULL, NULL, NULL, "0",
     "10^6 bit/s towards the core with all headers, 0.016 or more; 0: no limit"},
    {"federation.bandwidth.down_limit_mbps", KIND_MILLI, AT(down_limit_kbps), 0, 100000000, NULL, NULL, NULL, "0",
     "the same from the core, which paces itself by it"},
    {"federation.bandwidth.priority_traffic", KIND_CLASSES, 0, 0, 0, 0, NULL, NULL, NULL, "",
     "goes on when a window or a spent budget holds the rest: control-plane and critical-events always do; events, data"},
    {"federation.bandwidth.windows", KIND_WINDOWS, 0, 0, 0, 0, NULL, NULL, NULL, "",
     "hours with another limit, as in a crontab: \"* 8-17 * * mon-fri limit_mbps=0.5 forbid=data\""},
    TEXT("federation.bandwidth.time_zone", time_zone, NULL, NULL, "",
         "of windows and budgets, for example Europe/Berlin; without it the machine's"),
    {"federation.bandwidth.budget.day_mb", KIND_MILLI, AT(budget_day_kb), 0, 1000000000000, NULL, NULL, NULL, "0",
     "10^6 bytes a day, both directions with all headers; then only what is critical goes on; 0: no budget"},
    {"federation.bandwidth.budget.month_mb", KIND_MILLI, AT(budget_month_kb), 0, 1000000000000, NULL, NULL, NULL, "0",
     "the same for a month"},
    INT("federation.bandwidth.budget.reserve_percent", budget_reserve_percent, 0, 100, "10",
        "of a budget, kept for what is critical"),
    INT("federation.bandwidth.budget.month_begins_day", budget_month_begins_day, 1, 28, "1",
        "day on which the month of the contract begins"),
    INERT("federation.mode", "async"),
    INERT("federation.regions", "other cores"),
    INERT("federation.replication", "lag and batches"),
    INERT("federation.conflict_resolution", "for keys shared among sites"),
    INERT("federation.failover", "between cores"),
    INERT("protocol", "version and channels; version 2 is spoken"),
};
#define KEY_COUNT (sizeof keys / sizeof keys[0])

static_assert(KEY_COUNT <= 128, "struct config remembers the origin of each key");

static const char *origin_name(const struct config *c, size_t i, char text[LIMIT_PATH_BYTES + 32]) {
    switch ((enum origin)c->origin[i]) {
    case FROM_FILE:
        (void)snprintf(text, LIMIT_PATH_BYTES + 32, "%s:%u", c->file, c->origin_line[i]);
        return text;
    case FROM_ENVIRONMENT:
        return keys[i].environment;
    case FROM_FLAG:
        (void)snprintf(text, LIMIT_PATH_BYTES + 32, "--%s", keys[i].flag);
        return text;
    default:
        return "default";
    }
}

static const char *key_name(const struct key *k) {
    return k->path[0] != 0 ? k->path : k->flag;
}

/* --- setting one value ------------------------------------------------------------------------------------------------------------------- */

static const char *const mode_words[] = {"single", "site", "edge", "witness", "dev"};

static enum grey_error set_text(struct config *c, const struct key *k, struct bytes text, struct fault *f) {
    uint8_t *at = (uint8_t *)c + k->at;
    if (k->kind == KIND_NAME && !grey_name_valid((const char *)text.data, text.size)) {
        return fault_set(f, E_CONFIG, "'%.*s' is no name: 1 to 64 letters, digits, '.', '_' or '-'",
                         (int)(text.size > 80 ? 80 : text.size), (const char *)text.data);
    }
    if (text.size >= k->size || (text.size > 0 && memchr(text.data, 0, text.size) != NULL)) {
        return fault_set(f, E_CONFIG, "longer than %zu bytes", k->size - 1);
    }
    memset(at, 0, k->size);
    if (text.size > 0) {
        memcpy(at, text.data, text.size);
    }
    return E_OK;
}

static enum grey_error set_word(struct config *c, const struct key *k, struct bytes text, struct fault *f) {
    const char *words = k->words;
    while (*words != 0) {
        size_t size = strcspn(words, "|");
        if (text.size == size && memcmp(words, text.data, size) == 0) {
            if (k->at != offsetof(struct config, mode)) {
                return set_text(c, k, text, f);
            }
            for (int m = 0; m < 5; m++) {
                if (bytes_equal_str(text, mode_words[m])) {
                    c->mode = m == 4 ? CONFIG_MODE_SINGLE : (enum config_mode)m;
                }
            }
            return E_OK;
        }
        words += size + (words[size] == '|');
    }
    return fault_set(f, E_CONFIG, "'%.*s' is not one of %s", (int)(text.size > 80 ? 80 : text.size), (const char *)text.data,
                     k->words);
}

static void set_int(struct config *c, const struct key *k, int64_t v) {
    memcpy((uint8_t *)c + k->at, &v, sizeof v);
}

static void set_bool(struct config *c, const struct key *k, bool v) {
    memcpy((uint8_t *)c + k->at, &v, sizeof v);
}

static enum grey_error set_endpoints(struct config *c, const struct yaml_node *n, struct fault *f) {
    c->endpoint_count = 0;
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        struct bytes text;
        enum grey_error err = yaml_text(e, &text, f);
        if (err != E_OK) {
            return err;
        }
        if (c->endpoint_count == CONFIG_ENDPOINTS_MAX || text.size > LIMIT_ADDRESS_BYTES || text.size == 0 ||
            memchr(text.data, ':', text.size) == NULL) {
            return yaml_fault(e, f, "expected at most %u addresses as host:port", CONFIG_ENDPOINTS_MAX);
        }
        memset(c->endpoints[c->endpoint_count], 0, sizeof c->endpoints[0]);
        memcpy(c->endpoints[c->endpoint_count++], text.data, text.size);
    }
    return E_OK;
}

static enum grey_error set_times(struct config *c, const struct yaml_node *n, struct fault *f) {
    c->time_count = 0;
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        const struct yaml_node *type = yaml_get(e, "type"), *hours = yaml_get(e, "hours");
        struct bytes text;
        double number;
        if (type == NULL || hours == NULL || e->count != 2) {
            return yaml_fault(e, f, "expected type and hours");
        }
        enum grey_error err = yaml_text(type, &text, f);
        err = err != E_OK ? err : yaml_number(hours, 1.0 / 60, 87600, &number, f);
        if (err != E_OK) {
            return err;
        }
        if (c->time_count == LIMIT_QUEUE_TTLS || text.size == 0 || text.size > LIMIT_TYPE_PATTERN_BYTES ||
            memchr(text.data, 0, text.size) != NULL) {
            return yaml_fault(e, f, "expected at most %u types of 1 to %u bytes", LIMIT_QUEUE_TTLS, LIMIT_TYPE_PATTERN_BYTES);
        }
        memset(&c->times[c->time_count], 0, sizeof c->times[0]);
        memcpy(c->times[c->time_count].type, text.data, text.size);
        c->times[c->time_count++].seconds = (uint32_t)(number * 3600 + 0.5);
    }
    return E_OK;
}

static enum grey_error set_ranks(struct config *c, const struct key *k, const struct yaml_node *n, struct fault *f) {
    c->priority_count = 0;
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        int64_t rank;
        enum grey_error err = yaml_int(e, k->min, k->max, &rank, f);
        if (err != E_OK) {
            return err;
        }
        if (c->priority_count == CONFIG_ENDPOINTS_MAX) {
            return yaml_fault(e, f, "expected at most %u numbers", CONFIG_ENDPOINTS_MAX);
        }
        c->priorities[c->priority_count++] = (uint32_t)rank;
    }
    return E_OK;
}

static enum grey_error set_classes(struct config *c, const struct yaml_node *n, struct fault *f) {
    static const char *const words[] = {"control-plane", "critical-events", "events", "data"};
    static const enum event_channel meant[] = {CHANNEL_CONTROL, CHANNEL_CONTROL, CHANNEL_EVENTS, CHANNEL_DATA};
    memset(c->privileged, 0, sizeof c->privileged);
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        struct bytes text;
        size_t i = 0;
        enum grey_error err = yaml_text(e, &text, f);
        if (err != E_OK) {
            return err;
        }
        while (i < sizeof words / sizeof words[0] && !bytes_equal_str(text, words[i])) {
            i++;
        }
        if (i == sizeof words / sizeof words[0]) {
            return yaml_fault(e, f, "expected control-plane, critical-events, events or data");
        }
        c->privileged[meant[i]] = true;
    }
    return E_OK;
}

static enum grey_error set_windows(struct config *c, const struct yaml_node *n, struct fault *f) {
    c->window_count = 0;
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        struct bytes text;
        struct fault inner = {0};
        enum grey_error err = yaml_text(e, &text, f);
        if (err != E_OK) {
            return err;
        }
        if (c->window_count == WINDOWS_MAX || text.size > WINDOW_TEXT_BYTES || memchr(text.data, 0, text.size) != NULL) {
            return yaml_fault(e, f, "expected at most %u windows of %u characters", WINDOWS_MAX, WINDOW_TEXT_BYTES);
        }
        if (window_parse(&c->windows[c->window_count], text, &inner) != E_OK) {
            return yaml_fault(e, f, "%.180s", inner.text);
        }
        memset(c->window_texts[c->window_count], 0, sizeof c->window_texts[0]);
        memcpy(c->window_texts[c->window_count++], text.data, text.size);
    }
    return E_OK;
}

static enum grey_error set_list(struct config *c, const struct key *k, const struct yaml_node *n, struct fault *f) {
    static const char *const of[] = {"addresses", "types and hours", "numbers", "classes of traffic", "windows"};
    if (n->kind != YAML_SEQUENCE) {
        return yaml_fault(n, f, "expected a list of %s", of[k->kind - KIND_LIST]);
    }
    return k->kind == KIND_LIST      ? set_endpoints(c, n, f)
           : k->kind == KIND_TIMES   ? set_times(c, n, f)
           : k->kind == KIND_RANKS   ? set_ranks(c, k, n, f)
           : k->kind == KIND_CLASSES ? set_classes(c, n, f)
                                     : set_windows(c, n, f);
}

static bool is_list(const struct key *k) {
    return k->kind >= KIND_LIST && k->kind <= KIND_WINDOWS;
}

static enum grey_error set_from_yaml(struct config *c, const struct key *k, const struct yaml_node *n, struct fault *f) {
    struct bytes text;
    int64_t integer;
    double number;
    bool truth;
    enum grey_error err = E_OK;
    if (k->kind == KIND_INERT) {
        return E_OK;
    }
    if (is_list(k)) {
        return set_list(c, k, n, f);
    }
    if (n->kind != YAML_SCALAR) {
        return yaml_fault(n, f, "%s: expected one value", k->path);
    }
    switch (k->kind) {
    case KIND_INT:
        err = yaml_int(n, k->min, k->max, &integer, f);
        if (err == E_OK) {
            set_int(c, k, integer);
        }
        return err;
    case KIND_MILLI:
        err = yaml_number(n, (double)k->min / 1000, (double)k->max / 1000, &number, f);
        if (err == E_OK) {
            set_int(c, k, (int64_t)(number * 1000 + 0.5));
        }
        return err;
    case KIND_BOOL:
        err = yaml_bool(n, &truth, f);
        if (err == E_OK) {
            set_bool(c, k, truth);
        }
        return err;
    default: {
        struct fault inner = {0};
        err = yaml_text(n, &text, f);
        if (err == E_OK) {
            err = k->kind == KIND_WORD ? set_word(c, k, text, &inner) : set_text(c, k, text, &inner);
            if (err != E_OK) {
                return yaml_fault(n, f, "%s: %.180s", k->path, inner.text);
            }
        }
        return err;
    }
    }
}

static enum grey_error set_from_string(struct config *c, const struct key *k, const char *text, const char *what, struct fault *f) {
    struct fault inner = {0};
    enum grey_error err = E_OK;
    char *end;
    switch (k->kind) {
    case KIND_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
            return fault_set(f, E_USAGE, "%s: '%.80s' is neither true nor false", what, text);
        }
        set_bool(c, k, text[0] == 't');
        return E_OK;
    case KIND_INT: {
        long long v = strtoll(text, &end, 10);
        if (text[0] == 0 || *end != 0 || v < k->min || v > k->max) {
            return fault_set(f, E_USAGE, "%s: '%.80s' is no number from %" PRId64 " to %" PRId64, what, text, k->min, k->max);
        }
        set_int(c, k, v);
        return E_OK;
    }
    case KIND_WORD:
        err = set_word(c, k, bytes_str(text), &inner);
        break;
    default:
        err = set_text(c, k, bytes_str(text), &inner);
        break;
    }
    return err == E_OK ? E_OK : fault_set(f, E_USAGE, "%s: %.200s", what, inner.text);
}

static void mark(struct config *c, size_t i, enum origin origin, uint32_t line) {
    c->origin[i] = (uint16_t)origin;
    c->origin_line[i] = line;
}

void config_defaults(struct config *c) {
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct key *k = &keys[i];
        if (k->fallback == NULL || is_list(k) || k->kind == KIND_INERT || (k->kind == KIND_NAME && k->fallback[0] == 0)) {
            continue;
        }
        if (k->kind == KIND_MILLI) {
            set_int(c, k, strtoll(k->fallback, NULL, 10) * 1000);
        } else {
            must(set_from_string(c, k, k->fallback, "default", NULL) == E_OK);
        }
    }
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
    for (size_t i = 0; i < KEY_COUNT; i++) {
        unsigned d = keys[i].path[0] == 0 ? 128 : distance(path, keys[i].path);
        const char *dot = strrchr(path, '.'), *last = dot == NULL ? path : dot + 1, *known = strrchr(keys[i].path, '.');
        if (known != NULL && strcmp(last, known + 1) == 0 && d > 2) {
            d = 2; /* the right name in the wrong place */
        }
        if (d < best_distance) {
            best_distance = d;
            best = keys[i].path;
        }
    }
    return best;
}

static long find_key(const char *path) {
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (strcmp(keys[i].path, path) == 0) {
            return (long)i;
        }
    }
    return -1;
}

static bool is_group(const char *path) { /* some known key lies below it */
    size_t size = strlen(path);
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (strncmp(keys[i].path, path, size) == 0 && keys[i].path[size] == '.') {
            return true;
        }
    }
    return false;
}

static enum grey_error read_mapping(struct config *c, const struct yaml_node *map, const char *prefix, struct fault *f) {
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
                enum grey_error err = read_mapping(c, n, path, f);
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
        enum grey_error err = yaml_is_null(n) ? E_OK : set_from_yaml(c, &keys[i], n, f);
        if (err != E_OK) {
            return err;
        }
        mark(c, (size_t)i, FROM_FILE, n->key_line);
    }
    return E_OK;
}

enum grey_error config_read(struct config *c, struct bytes text, const char *name, struct fault *f) {
    struct fault inner = {0};
    struct yaml_doc *doc = yaml_read(text, &inner);
    enum grey_error err = doc == NULL ? inner.code : E_OK;
    const struct yaml_node *root = doc == NULL ? NULL : yaml_root(doc);
    (void)snprintf(c->file, sizeof c->file, "%s", name);
    if (root != NULL && root->kind != YAML_MAPPING) {
        err = yaml_fault(root, &inner, "expected keys and values");
    } else if (root != NULL) {
        err = read_mapping(c, root, "", &inner);
    }
    yaml_doc_free(doc);
    if (err != E_OK && f != NULL) {
        (void)fault_set(f, err, "%.90s: %.140s", name, inner.text);
    }
    return err;
}

/* --- the whole way -------------------------------------------------------------------------------------------------------------------------- */

struct option { /* what has no key */
    const char *name, *argument, *meaning;
};
static const struct option options[] = {
    {"config", "FILE", "read this YAML file, else " CONFIG_FILE_DEFAULT " where there is one; short: -c"},
    {"check-config", NULL, "say whether the configuration is acceptable, and end"},
    {"print", NULL, "with --check-config: print every value and where it comes from"},
    {"version", NULL, "print the version, and end"},
    {"help", NULL, "print this, and end"},
};

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
        if (strcmp(name, "config") == 0) {
            if (next_flag(argc, argv, &i, name, &value, true, f) != E_OK) {
                return E_USAGE;
            }
            (void)snprintf(c->file, sizeof c->file, "%s", value);
            continue;
        }
        bool *const switches[] = {&c->check, &c->print, &c->show_version, &c->show_help};
        size_t o = 1;
        while (o < sizeof options / sizeof options[0] && strcmp(options[o].name, name) != 0) {
            o++;
        }
        if (o < sizeof options / sizeof options[0]) {
            *switches[o - 1] = true;
            continue;
        }
        size_t k = 0;
        while (k < KEY_COUNT && (keys[k].flag == NULL || strcmp(keys[k].flag, name) != 0)) {
            k++;
        }
        if (k == KEY_COUNT) {
            return fault_set(f, E_USAGE, "unknown flag --%s; see greyd --help", name);
        }
        if (next_flag(argc, argv, &i, name, &value, keys[k].kind != KIND_BOOL, f) != E_OK) {
            return E_USAGE;
        }
        if (only_config) {
            continue;
        }
        char what[48];
        (void)snprintf(what, sizeof what, "--%s", name);
        if (set_from_string(c, &keys[k], value == NULL ? "true" : value, what, f) != E_OK) {
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

/* ":8081" means this machine only, as all defaults do; "0.0.0.0:8081" must be said. */
static void add_host(char address[LIMIT_ADDRESS_BYTES + 1]) {
    char whole[LIMIT_ADDRESS_BYTES + 1];
    if (address[0] == ':' && snprintf(whole, sizeof whole, "127.0.0.1%s", address) < (int)sizeof whole) {
        memcpy(address, whole, sizeof whole);
    }
}

/* What belongs together.  Files are looked at when greyd starts, not here. */
static enum grey_error settle(struct config *c, struct fault *f) {
    if (c->heartbeat_interval_ms == 0) {
        bool default_timeout = c->origin[find_key("consensus.election_timeout_ms")] == FROM_DEFAULT;
        c->heartbeat_interval_ms = default_timeout ? 150 : c->election_timeout_ms / 3;
    }
    if (c->heartbeat_interval_ms * 2 > c->election_timeout_ms) {
        return fault_set(f, E_CONFIG,
                         "consensus.heartbeat_interval_ms (%" PRId64
                         ") must be at most half of consensus.election_timeout_ms (%" PRId64 ")",
                         c->heartbeat_interval_ms, c->election_timeout_ms);
    }
    if (c->site_id[0] == 0) { /* no file named a site or a node */
        (void)snprintf(c->site_id, sizeof c->site_id, "%s", "site");
    }
    if (c->node_id[0] == 0) {
        (void)snprintf(c->node_id, sizeof c->node_id, "1");
    }
    if (c->wal_dir[0] == 0 && snprintf(c->wal_dir, sizeof c->wal_dir, "%.1000s/log", c->data_dir) < 0) {
        return E_BUG;
    }
    if (c->socket_path[0] == 0) {
        (void)snprintf(c->socket_path, sizeof c->socket_path, "%.1000s/greyd.sock", c->data_dir);
    }
    add_host(c->http_addr);
    add_host(c->peer_addr);
    if (c->peer_advertise[0] == 0) {
        memcpy(c->peer_advertise, c->peer_addr, sizeof c->peer_addr);
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
    if (strcmp(c->tls_min_version, "1.3") == 0) {
        say(f, "security.tls.min_version 1.3 needs a build with mbedTLS 3.6; this one speaks TLS 1.2");
        return E_CONFIG;
    }
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
    if (c->proxy[0] != 0 && strchr(c->proxy, ':') == NULL) {
        return fault_set(f, E_CONFIG, "federation.proxy.address wants host:port, not '%.80s'", c->proxy);
    }
    if (c->federation && c->endpoint_count == 0) {
        say(f, "federation.enabled wants at least one federation.upstream.endpoints");
        return E_CONFIG;
    }
    if (c->floor_percent[PRIORITY_HIGH] + c->floor_percent[PRIORITY_NORMAL] + c->floor_percent[PRIORITY_LOW] > 90) {
        say(f, "federation.offline.floor_percent: the shares together are more than 90");
        return E_CONFIG;
    }
    return E_OK;
}

/* The file of --config, or CONFIG_FILE_DEFAULT where there is one. */
static enum grey_error
load_file(struct config *c, enum grey_error (*read_file)(const char *path, struct builder *out, struct fault *f), struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1];
    struct fault inner = {0};
    struct builder text;
    bool named = c->file[0] != 0;
    (void)snprintf(path, sizeof path, "%s", named ? c->file : CONFIG_FILE_DEFAULT);
    builder_init(&text, YAML_TEXT_BYTES_MAX);
    enum grey_error err = read_file(path, &text, &inner);
    if (err == E_NOT_FOUND && !named) {
        err = E_OK;
    } else if (err != E_OK) {
        err = fault_set(f, E_CONFIG, "%.230s", inner.text);
    } else {
        err = text.err != E_OK ? fault_set(f, E_CONFIG, "%.100s is larger than 256 KiB", path)
                               : config_read(c, builder_bytes(&text), path, f);
        if (err == E_OK && c->site_id[0] == 0 && c->node_id[0] != 0) {
            memcpy(c->site_id, c->node_id, sizeof c->site_id);
        }
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
    err = load_file(c, read_file, f);
    if (err != E_OK) {
        return err;
    }
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const char *value = keys[i].environment == NULL ? NULL : environment(keys[i].environment);
        if (value != NULL && value[0] != 0) { /* compose files set what they do not mean to "" */
            err = set_from_string(c, &keys[i], value, keys[i].environment, f);
            if (err != E_OK) {
                return err;
            }
            mark(c, i, FROM_ENVIRONMENT, 0);
        }
    }
    err = read_flags(c, argc, argv, false, f);
    return err != E_OK ? err : settle(c, f);
}

/* --- showing it ------------------------------------------------------------------------------------------------------------------------------ */

static void put_value(const struct config *c, const struct key *k, struct builder *out) {
    const uint8_t *at = (const uint8_t *)c + k->at;
    int64_t integer;
    bool truth;
    switch (k->kind) {
    case KIND_INT:
        memcpy(&integer, at, sizeof integer);
        builder_addf(out, "%" PRId64, integer);
        return;
    case KIND_MILLI:
        memcpy(&integer, at, sizeof integer);
        builder_addf(out, "%" PRId64 ".%03" PRId64, integer / 1000, integer % 1000);
        return;
    case KIND_BOOL:
        memcpy(&truth, at, sizeof truth);
        builder_add_str(out, truth ? "true" : "false");
        return;
    case KIND_LIST:
        for (uint32_t i = 0; i < c->endpoint_count; i++) {
            builder_addf(out, "%s%s", i > 0 ? ", " : "", c->endpoints[i]);
        }
        return;
    case KIND_CLASSES:
        builder_addf(out, "control-plane, critical-events%s%s", c->privileged[CHANNEL_EVENTS] ? ", events" : "",
                     c->privileged[CHANNEL_DATA] ? ", data" : "");
        return;
    case KIND_WINDOWS:
        for (uint32_t i = 0; i < c->window_count; i++) {
            builder_addf(out, "%s\"%s\"", i > 0 ? ", " : "", c->window_texts[i]);
        }
        return;
    case KIND_TIMES:
        for (uint32_t i = 0; i < c->time_count; i++) {
            uint64_t milli = (uint64_t)c->times[i].seconds * 1000 / 3600;
            builder_addf(out, "%s%s: %" PRIu64 ".%03" PRIu64 " h", i > 0 ? ", " : "", c->times[i].type, milli / 1000, milli % 1000);
        }
        return;
    case KIND_RANKS:
        for (uint32_t i = 0; i < c->priority_count; i++) {
            builder_addf(out, "%s%u", i > 0 ? ", " : "", c->priorities[i]);
        }
        return;
    case KIND_WORD:
        builder_add_str(out, k->at == offsetof(struct config, mode) ? mode_words[c->mode] : (const char *)at);
        return;
    case KIND_INERT:
        return;
    default:
        builder_addf(out, "\"%s\"", (const char *)at);
    }
}

void config_print(const struct config *c, struct builder *out) {
    char text[LIMIT_PATH_BYTES + 32];
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (keys[i].kind != KIND_INERT && keys[i].fallback != NULL) {
            size_t before = out->size;
            builder_addf(out, "%s: ", key_name(&keys[i]));
            put_value(c, &keys[i], out);
            size_t used = out->size - before;
            builder_addf(out, "%*s # %s\n", used < 56 ? (int)(56 - used) : 1, "", origin_name(c, i, text));
        }
    }
}

void config_list_inert(const struct config *c, struct builder *out) {
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (c->origin[i] == FROM_FILE && (keys[i].kind == KIND_INERT || (c->auth && keys[i].at == offsetof(struct config, auth)))) {
            builder_addf(out, "%s:%u: %s is known, and without effect in this version\n", c->file, c->origin_line[i], keys[i].path);
        }
    }
}

void config_document(struct builder *out) {
    builder_add_str(out, "| key | flag | environment | default | range | meaning |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct key *k = &keys[i];
        builder_addf(out, "| %s%s%s |", k->path[0] != 0 ? "`" : "", k->path, k->path[0] != 0 ? "`" : "");
        builder_addf(out, " %s%s%s |", k->flag != NULL ? "`--" : "", k->flag != NULL ? k->flag : "", k->flag != NULL ? "`" : "");
        builder_addf(out, " %s%s%s |", k->environment != NULL ? "`" : "", k->environment != NULL ? k->environment : "",
                     k->environment != NULL ? "`" : "");
        builder_addf(out, " %s |", k->fallback == NULL ? "" : k->fallback);
        if (k->kind == KIND_INT) {
            builder_addf(out, " %" PRId64 " to %" PRId64 " |", k->min, k->max);
        } else if (k->kind == KIND_MILLI) {
            builder_addf(out, " %" PRId64 " to %" PRId64 " |", k->min / 1000, k->max / 1000);
        } else if (k->kind == KIND_WORD) {
            builder_add_byte(out, ' ');
            for (const char *w = k->words; *w != 0; w++) {
                builder_add_str(out, *w == '|' ? ", " : (char[]){*w, 0});
            }
            builder_add_str(out, " |");
        } else {
            builder_add_str(out, k->kind == KIND_BOOL ? " true, false |" : k->kind == KIND_INERT ? " (no effect yet) |" : " |");
        }
        builder_addf(out, " %s |\n", k->meaning);
    }
}

void config_help(struct builder *out) {
    builder_add_str(out, "greyd: the agent on a gateway of a Grey Edge site\n\n"
                         "usage: greyd [--config FILE] [flags]\n"
                         "       greyd --check-config [--print] [--config FILE] [flags]\n"
                         "       greyd restore --snapshot FILE --data-dir DIR\n\n"
                         "Flags win over environment variables, these over the file, the file over defaults.\n\n");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        char left[48];
        (void)snprintf(left, sizeof left, "--%s%s%s", options[i].name, options[i].argument != NULL ? " " : "",
                       options[i].argument != NULL ? options[i].argument : "");
        builder_addf(out, "  %-24s %s\n", left, options[i].meaning);
    }
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct key *k = &keys[i];
        if (k->flag == NULL) {
            continue;
        }
        char left[64];
        (void)snprintf(left, sizeof left, "--%s%s", k->flag, k->kind == KIND_BOOL ? "" : k->kind == KIND_INT ? " N" : " TEXT");
        builder_addf(out, "  %-24s %s", left, k->meaning);
        if (k->environment != NULL) {
            builder_addf(out, " [$%s]", k->environment);
        }
        builder_add_byte(out, '\n');
    }
    builder_add_str(out, "\nAll keys of the file: docs/CONFIGURATION.md, man 5 greyd.yaml.\nExit codes: 0; 1 failed while running; "
                         "2 usage or configuration.\n");
}
