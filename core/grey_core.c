/* grey-core: the central service that sites sync to.  Reads the command line, wires the parts together, runs the loop. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/authority.h"
#include "core/core_access.h"
#include "core/core_api.h"
#include "core/core_door.h"
#include "core/giver.h"
#include "core/ingest.h"
#include "core/offloads.h"
#include "core/store_restored.h"
#include "federation/object.h"
#include "include/grey/limits.h"
#include "platform/address.h"
#include "platform/keyfile.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/now.h"
#include "platform/supervise.h"
#include "platform/yaml.h"

#define CALLS_PER_SECOND 1000u /* of one caller with a token */
#define ENDPOINTS_MAX 8u
#define STORAGE_STALL_MS 60000u /* a disk that has finished nothing for so long starves the watchdog */

struct settings {
    char data_dir[LIMIT_PATH_BYTES + 1], http_addr[LIMIT_ADDRESS_BYTES + 1], broker[1024], store[LIMIT_PATH_BYTES + 16];
    char sign_dir[LIMIT_PATH_BYTES + 1], ca_dir[LIMIT_PATH_BYTES + 1], enroll_addr[LIMIT_ADDRESS_BYTES + 1], cert_hours[8];
    char broker_pid[LIMIT_PATH_BYTES + 1], worker[LIMIT_ADDRESS_BYTES + 8];
    char attest[8], attest_roots[LIMIT_PATH_BYTES + 1], attest_vtpm_roots[LIMIT_PATH_BYTES + 1],
        attest_signers[LIMIT_PATH_BYTES + 1];
    char tls_ca[LIMIT_PATH_BYTES + 1], tls_cert[LIMIT_PATH_BYTES + 1], tls_key[LIMIT_PATH_BYTES + 1];
    char http_tls_cert[LIMIT_PATH_BYTES + 1], http_tls_key[LIMIT_PATH_BYTES + 1], http_tls_ca[LIMIT_PATH_BYTES + 1], http_host[256];
    char tls_min_version[8], insecure[8], log_level[16], log_format[16], client_id[LIMIT_NAME_BYTES + 1],
        tokens[LIMIT_PATH_BYTES + 1], config[LIMIT_PATH_BYTES + 1];
};

static const struct setting {
    const char *name, *environment, *fallback, *meaning;
    size_t at, size;
} table[] = {
#define SETTING(member, name, environment, fallback, meaning)                                                                      \
    { name, environment, fallback, meaning, offsetof(struct settings, member), sizeof(((struct settings *)0)->member) }
    SETTING(config, "config", "GREY_CORE_CONFIG", "", "YAML file with these names as keys (underscores for dashes)"),
    SETTING(data_dir, "data-dir", "GREY_CORE_DATA_DIR", "/var/lib/grey-core", "where the core keeps its data"),
    SETTING(http_addr, "http-addr", "GREY_CORE_HTTP_ADDR", "127.0.0.1:8080", "address of API and page"),
    SETTING(http_tls_cert, "http-tls-cert", "GREY_CORE_HTTP_TLS_CERT", "",
            "certificate of API and page; without it one of the CA of --ca-dir, or plain HTTP on an address of this machine"),
    SETTING(http_tls_key, "http-tls-key", "GREY_CORE_HTTP_TLS_KEY", "", "its key"),
    SETTING(http_tls_ca, "http-tls-ca", "GREY_CORE_HTTP_TLS_CA", "",
            "CA of clients' certificates; without it that of --ca-dir, or tokens only"),
    SETTING(http_host, "http-host", "GREY_CORE_HTTP_HOST", "",
            "DNS name in the certificate that is made for the API; without it this machine's"),
    SETTING(insecure, "insecure-i-know", "GREY_CORE_INSECURE_I_KNOW", "false",
            "true: plain HTTP on an address that others can reach"),
    SETTING(broker, "broker", "GREY_CORE_BROKER", "mqtts://localhost:8883",
            "MQTT 5 broker: mqtts://host:port[,host:port] or mqtt://"),
    SETTING(store, "store", "GREY_CORE_STORE", "", "sqlite:PATH or postgresql://...; without it core.db in the data directory"),
    SETTING(tls_ca, "tls-ca", "GREY_CORE_TLS_CA", "", "CA certificate for the broker"),
    SETTING(tls_min_version, "tls-min-version", "GREY_CORE_TLS_MIN_VERSION", "1.2",
            "1.2 or 1.3: the least TLS that API, enrolment and the link to the broker take"),
    SETTING(tls_cert, "tls-cert", "GREY_CORE_TLS_CERT", "", "certificate shown to the broker"),
    SETTING(tls_key, "tls-key", "GREY_CORE_TLS_KEY", "", "its key"),
    SETTING(sign_dir, "sign-dir", "GREY_CORE_SIGN_DIR", "",
            "where core-sign.key and core-sign.pub are, with which it signs what it gives; without it the data directory"),
    SETTING(tokens, "tokens", "GREY_CORE_TOKENS", "",
            "file of `grey-core token create`: then API and page want a bearer token; without it they are open"),
    SETTING(ca_dir, "ca-dir", "GREY_CORE_CA_DIR", "",
            "the CA ('grey-core ca init'), with which it takes gateways in; without it none"),
    SETTING(enroll_addr, "enroll-addr", "GREY_CORE_ENROLL_ADDR", "",
            "address with TLS where gateways enrol, for example 0.0.0.0:8443; without it none"),
    SETTING(cert_hours, "cert-hours", "GREY_CORE_CERT_HOURS", "720", "hours for which a gateway's certificate holds, 1 to 8760"),
    SETTING(broker_pid, "broker-pid", "GREY_CORE_BROKER_PID", "",
            "pid file of a broker of this machine, which is told (SIGHUP) when certificates were revoked"),
    SETTING(
        worker, "worker", "GREY_CORE_WORKER", "",
        "API of a greyd in mode single beside it, which runs tasks of sites: http://127.0.0.1:8090 or unix:/path; without it none"),
    SETTING(attest, "attest", "GREY_CORE_ATTEST", "policy",
            "policy: gateways are judged when there is an attestation policy; learn: before that what they show is taken; off"),
    SETTING(attest_roots, "attest-roots", "GREY_CORE_ATTEST_ROOTS", "",
            "PEM file of the makers of TPMs that are trusted: roots and issuing certificates"),
    SETTING(attest_vtpm_roots, "attest-vtpm-roots", "GREY_CORE_ATTEST_VTPM_ROOTS", "", "the same for virtual TPMs"),
    SETTING(attest_signers, "attest-signers", "GREY_CORE_ATTEST_SIGNERS", "",
            "file of public keys (64 hexadecimal digits a line) that may sign identity documents of instances"),
    SETTING(client_id, "client-id", "GREY_CORE_CLIENT_ID", "",
            "MQTT client id; without it grey-core, and with PostgreSQL a number behind it"),
    SETTING(log_level, "log-level", "GREY_LOG_LEVEL", "info", "trace, debug, info, warn or error"),
    SETTING(log_format, "log-format", "GREY_LOG_FORMAT", "pretty", "pretty or json"),
};
#define SETTING_COUNT (sizeof table / sizeof table[0])

struct grey_core {
    struct settings s;
    struct conn_context x;
    struct conn_tls *tls;
    struct store *store;
    struct worker *storage;
    struct ingest *ingest;
    struct giver *giver;
    struct enroller *enroller;
    struct offloads *offloads;
    struct attesting *attesting;
    struct registrar *registrar;
    struct keyfile sign;
    struct core_api api;
    struct http_server *http;
    struct core_door *door;
    struct supervise supervise;
};

static int complain(const struct fault *f) {
    (void)fprintf(stderr, "grey-core: %s (GREY-%d): %s\n  -> %s\n", error_sentence(f->code), error_id(f->code), f->text,
                  error_remedy(f->code));
    return f->code == E_USAGE || f->code == E_CONFIG ? 2 : 1;
}

static enum grey_error set(struct settings *s, const struct setting *t, const char *value, struct fault *f) {
    if (strlen(value) >= t->size) {
        return fault_set(f, E_USAGE, "--%s is longer than %zu bytes", t->name, t->size - 1);
    }
    memcpy((char *)s + t->at, value, strlen(value) + 1);
    return E_OK;
}

static const struct setting *find(const char *name, size_t size, char dash) {
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const char *n = table[i].name;
        size_t k = 0;
        while (k < size && n[k] != 0 && (n[k] == name[k] || (n[k] == '-' && name[k] == dash))) {
            k++;
        }
        if (k == size && n[k] == 0) {
            return &table[i];
        }
    }
    return NULL;
}

static enum grey_error read_config(struct settings *s, const char *path, struct fault *f) {
    struct builder text;
    struct fault inner = {0};
    FILE *file = fopen(path, "re");
    uint8_t room[4096];
    size_t got;
    if (file == NULL) {
        return fault_errno(f, E_CONFIG, "%s", path);
    }
    builder_init(&text, YAML_TEXT_BYTES_MAX);
    while ((got = fread(room, 1, sizeof room, file)) > 0) {
        builder_add(&text, bytes_of(room, got));
    }
    (void)fclose(file);
    struct yaml_doc *doc = yaml_read(builder_bytes(&text), &inner);
    const struct yaml_node *root = doc == NULL ? NULL : yaml_root(doc);
    enum grey_error err = doc == NULL ? E_CONFIG : E_OK;
    for (const struct yaml_node *n = root == NULL ? NULL : root->first; n != NULL && err == E_OK; n = n->next) {
        struct bytes value;
        const struct setting *t = find((const char *)n->key.data, n->key.size, '_');
        if (t == NULL) {
            err = yaml_fault(n, &inner, "unknown key '%.80s'; see grey-core --help", (const char *)n->key.data);
        } else {
            err = yaml_text(n, &value, &inner);
            err = err != E_OK ? err : set(s, t, (const char *)value.data, &inner);
        }
    }
    yaml_doc_free(doc);
    builder_free(&text);
    return err == E_OK ? E_OK : fault_set(f, E_CONFIG, "%.90s: %.140s", path, inner.text);
}

static enum grey_error read_flags(struct settings *s, int argc, char **argv, bool only_config, struct fault *f) {
    for (int i = 1; i < argc; i++) {
        size_t size = strncmp(argv[i], "--", 2) == 0 ? strcspn(argv[i] + 2, "=") : 0;
        const struct setting *t = size == 0 ? NULL : find(argv[i] + 2, size, '-');
        if (t == NULL) {
            return fault_set(f, E_USAGE, "unknown flag '%.80s'; see grey-core --help", argv[i]);
        }
        const char *value = argv[i][2 + size] == '=' ? argv[i] + 3 + size : i + 1 < argc ? argv[++i] : NULL;
        if (value == NULL) {
            return fault_set(f, E_USAGE, "--%s wants a value", t->name);
        }
        if (only_config == (strcmp(t->name, "config") == 0) && set(s, t, value, f) != E_OK) {
            return E_USAGE;
        }
    }
    return E_OK;
}

static enum grey_error load(struct settings *s, int argc, char **argv, struct fault *f) {
    enum grey_error err = E_OK;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        (void)set(s, &table[i], table[i].fallback, NULL);
    }
    err = read_flags(s, argc, argv, true, f);
    if (err == E_OK && s->config[0] != 0) {
        err = read_config(s, s->config, f);
    }
    for (size_t i = 0; i < SETTING_COUNT && err == E_OK; i++) {
        const char *value = getenv(table[i].environment);
        err = value == NULL ? E_OK : set(s, &table[i], value, f);
    }
    err = err != E_OK ? err : read_flags(s, argc, argv, false, f);
    if (err == E_OK && s->store[0] == 0) {
        (void)snprintf(s->store, sizeof s->store, "sqlite:%.1000s/core.db", s->data_dir);
    }
    return err;
}

static void help(void) {
    (void)printf("grey-core: the central service that Grey Edge sites sync to\n\nusage: grey-core [flags]\n       grey-core ca "
                 "init|rotate|promote|broker|core|sign ...\n\n");
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        char left[40];
        (void)snprintf(left, sizeof left, "--%s TEXT", table[i].name);
        (void)printf("  %-20s %s [$%s]%s%s\n", left, table[i].meaning, table[i].environment,
                     table[i].fallback[0] != 0 ? "; default " : "", table[i].fallback);
    }
    (void)printf("\nExit codes: 0; 1 failed while running; 2 usage or configuration.\n");
}

static void on_terminate(void *context, int signal_number) {
    struct grey_core *g = context;
    log_info("grey-core", "stop", "signal=%d", signal_number);
    supervise_stopping(&g->supervise);
    loop_stop(g->x.loop);
}

static void on_reload(void *context, int signal_number) {
    struct grey_core *g = context;
    (void)signal_number;
    log_info("grey-core", "reload", "the files of the CA, and of makers of TPMs; all else takes a restart");
    enroller_reload(g->enroller);
    makers_reload(attesting_makers(g->attesting));
}

static bool speaks_from_13(const struct settings *s) {
    return strcmp(s->tls_min_version, "1.3") == 0;
}

static bool open_enroller(struct grey_core *g, struct fault *f) {
    const struct settings *s = &g->s;
    char *end;
    unsigned long hours = strtoul(s->cert_hours, &end, 10);
    if (s->cert_hours[0] < '0' || s->cert_hours[0] > '9' || *end != 0 || hours < 1 || hours > 8760) {
        (void)fault_set(f, E_USAGE, "--cert-hours %s: expected 1 to 8760", s->cert_hours);
        return false;
    }
    if (s->ca_dir[0] == 0) {
        return true;
    }
    struct enroller_options o = {.ca_dir = s->ca_dir,
                                 .data_dir = s->data_dir,
                                 .address = s->enroll_addr,
                                 .broker_pid = s->broker_pid,
                                 .life_hours = (uint32_t)hours,
                                 .registrar = g->registrar,
                                 .from_13 = speaks_from_13(s),
                                 .core_key = g->sign.public_key};
    enroller_register();
    g->enroller = enroller_new(&g->x, &o, g->storage, g->ingest, g->giver, f);
    g->api.enroller = g->enroller;
    return g->enroller != NULL;
}

static bool open_attesting(struct grey_core *g, struct fault *f) {
    const struct settings *s = &g->s;
    bool learn = strcmp(s->attest, "learn") == 0;
    struct attesting_options o = {.name = s->client_id,
                                  .public_key = g->sign.public_key,
                                  .secret_key = g->sign.secret_key,
                                  .makers = {s->attest_roots, s->attest_vtpm_roots, s->attest_signers},
                                  .learn = learn,
                                  .shared = store_is_postgres(s->store)};
    if (strcmp(s->attest, "off") == 0) {
        return true;
    }
    if (!learn && strcmp(s->attest, "policy") != 0) {
        (void)fault_set(f, E_USAGE, "--attest '%s' is not policy, learn or off", s->attest);
        return false;
    }
    attesting_register();
    g->attesting = attesting_new(&g->x, &o, g->storage, g->ingest, f);
    g->api.attesting = g->attesting;
    if (g->attesting == NULL || s->ca_dir[0] == 0 || (s->attest_roots[0] == 0 && s->attest_vtpm_roots[0] == 0)) {
        return g->attesting != NULL;
    }
    registrar_register();
    g->registrar = registrar_new(&g->x, g->storage, attesting_makers(g->attesting));
    g->api.registrar = g->registrar;
    return g->registrar != NULL || fault_set(f, E_NO_MEMORY, "enrolment by TPM") == E_OK;
}

/* The loop lives when it asks this.  A PostgreSQL server that is away is waited for; no restart of the core would bring it back. */
static bool gets_on(void *context, char *why, size_t size) {
    const struct grey_core *g = context;
    uint64_t waits_ms = store_is_postgres(g->s.store) ? 0 : worker_waits_ms(g->storage);
    (void)snprintf(why, size, "the disk has finished nothing for %" PRIu64 " s", waits_ms / 1000);
    return waits_ms < STORAGE_STALL_MS;
}

static bool is_address(const char *text) {
    char host[ADDRESS_HOST_BYTES], port[ADDRESS_PORT_BYTES];
    return address_is_unix(text) || address_split(text, host, port, NULL) == E_OK;
}

/* What can be told to be wrong before anything is opened. */
static enum grey_error check(const struct settings *s, bool tls, struct fault *f) {
    if (!speaks_from_13(s) && strcmp(s->tls_min_version, "1.2") != 0) {
        return fault_set(f, E_USAGE, "--tls-min-version %s: expected 1.2 or 1.3", s->tls_min_version);
    }
    if (speaks_from_13(s) && !conn_tls_knows_13()) {
        return fault_set(f, E_TLS_VERSION, "--tls-min-version is 1.3, and the mbedTLS of this build is 2.28, which speaks 1.2");
    }
    if (!tls && strncmp(s->broker, "mqtt://", 7) != 0) {
        return fault_set(f, E_USAGE, "--broker %.80s: expected mqtts://host:port or mqtt://host:port", s->broker);
    }
    if (tls && (s->tls_ca[0] == 0 || s->tls_cert[0] == 0 || s->tls_key[0] == 0)) {
        return fault_set(f, E_USAGE, "--broker %.80s wants --tls-ca, --tls-cert and --tls-key ('grey-core ca core' makes them)",
                         s->broker);
    }
    if (s->data_dir[0] == 0) {
        return fault_set(f, E_USAGE, "--data-dir must not be empty");
    }
    if (!is_address(s->http_addr)) {
        return fault_set(f, E_USAGE, "--http-addr %.80s: expected host:port, such as 127.0.0.1:8080", s->http_addr);
    }
    return s->enroll_addr[0] == 0 || is_address(s->enroll_addr)
               ? E_OK
               : fault_set(f, E_USAGE, "--enroll-addr %.80s: expected host:port, such as 0.0.0.0:8443", s->enroll_addr);
}

/* The brokers of --broker, which is cut into them, and what the core is called there. */
static enum grey_error read_brokers(struct settings *s, bool tls, struct ingest_options *o, const char *endpoints[ENDPOINTS_MAX],
                                    struct fault *f) {
    for (char *at = strtok(s->broker + (tls ? 8 : 7), ","); at != NULL && o->endpoint_count < ENDPOINTS_MAX;
         at = strtok(NULL, ",")) {
        if (!is_address(at)) {
            return fault_set(f, E_USAGE, "--broker: '%.80s' is not host:port", at);
        }
        endpoints[o->endpoint_count++] = at;
    }
    if (o->endpoint_count == 0) {
        return fault_set(f, E_USAGE, "--broker names no host");
    }
    if (s->client_id[0] == 0) { /* cores beside each other need ids of their own */
        uint32_t number = 0;
        keys_random(&number, sizeof number);
        (void)snprintf(s->client_id, sizeof s->client_id, o->shared ? "grey-core-%08" PRIx32 : "grey-core", number);
    }
    return E_OK;
}

static enum grey_error open_data(struct grey_core *g, struct fault *f) {
    const struct settings *s = &g->s;
    const char *sign_dir = s->sign_dir[0] != 0 ? s->sign_dir : s->data_dir;
    if (mkdir(s->data_dir, 0700) != 0 && errno != EEXIST) {
        return fault_errno(f, E_SYSTEM, "%s", s->data_dir);
    }
    enum grey_error err = keyfile_open(sign_dir, KEYFILE_CORE_SECRET, &g->sign, f);
    return err != E_OK ? err : keyfile_put_public(sign_dir, KEYFILE_CORE_PUBLIC, &g->sign, f);
}

/* The loop, whoever watches over it, and its workers. */
static bool open_machine(struct grey_core *g, struct fault *f) {
    struct supervise_options supervise = {.socket = getenv("NOTIFY_SOCKET"),
                                          .watchdog_usec = getenv("WATCHDOG_USEC"),
                                          .watchdog_pid = getenv("WATCHDOG_PID"),
                                          .alive = gets_on,
                                          .context = g};
    g->x.loop = loop_new(f);
    if (g->x.loop == NULL || supervise_begin(&g->supervise, g->x.loop, &supervise, f) != E_OK) {
        return false;
    }
    g->x.crypto = worker_new(g->x.loop, "crypto", 64, NULL, NULL, f);
    return g->x.crypto != NULL;
}

static bool open_store(struct grey_core *g, struct fault *f) {
    const struct settings *s = &g->s;
    struct store_options o = {.shared = store_is_postgres(s->store), .mark_dir = s->ca_dir[0] != 0 ? s->ca_dir : s->data_dir};
    store_restored_register();
    g->store = store_open(s->store, &o, f);
    bool good = g->store != NULL && store_mark_check(g->store, now_wall_ms(), f) == E_OK;
    g->storage = good ? worker_new(g->x.loop, "storage", BATCH_JOBS_MAX, batch_run, g->store, f) : NULL;
    return g->storage != NULL;
}

/* The API: how much of whom, and where. */
static bool open_door(struct grey_core *g, struct fault *f) {
    const struct settings *s = &g->s;
    struct http_limits limits = {.connections_max = LIMIT_HTTP_CONNECTIONS,
                                 .body_bytes_max = OBJECT_BYTES_MAX,
                                 .idle_timeout_ms = 120000,
                                 .request_timeout_ms = 15000};
    struct core_door_options door = {.address = s->http_addr,
                                     .cert = s->http_tls_cert,
                                     .key = s->http_tls_key,
                                     .ca = s->http_tls_ca,
                                     .ca_dir = s->ca_dir,
                                     .data_dir = s->data_dir,
                                     .host = s->http_host,
                                     .tokens = s->tokens[0] != 0,
                                     .from_13 = speaks_from_13(s),
                                     .insecure = s->insecure};
    core_api_register();
    if (core_access_init(&g->api.access, g->x.loop, s->tokens, CALLS_PER_SECOND, f) != E_OK) {
        return false;
    }
    g->http = http_server_new(&g->x, &limits, core_api_handle, &g->api);
    g->door = g->http == NULL ? NULL : core_door_open(&g->x, g->http, &door, f);
    return g->door != NULL;
}

/* What it shows brokers, and believes of them. */
static bool open_tls(struct grey_core *g, struct fault *f) {
    const struct settings *s = &g->s;
    struct conn_tls_files files = {
        .ca_path = s->tls_ca, .cert_path = s->tls_cert, .key_path = s->tls_key, .from_13 = speaks_from_13(s)};
    g->tls = conn_tls_open(&files, f);
    return g->tls != NULL;
}

/* What takes from sites, and what gives to them. */
static bool open_ways(struct grey_core *g, const struct ingest_options *o, struct fault *f) {
    const struct settings *s = &g->s;
    g->ingest = ingest_new(&g->x, o, g->storage, f);
    g->giver = g->ingest == NULL ? NULL : giver_new(g->x.loop, g->storage, g->ingest, g->sign.secret_key, f);
    if (g->giver != NULL && s->worker[0] != 0) {
        g->offloads = offloads_new(g->x.loop, g->storage, g->ingest, s->worker, f);
    }
    g->api.loop = g->x.loop;
    g->api.storage = g->storage;
    g->api.ingest = g->ingest;
    g->api.giver = g->giver;
    return g->giver != NULL && (s->worker[0] == 0 || g->offloads != NULL);
}

static bool start(struct grey_core *g, struct fault *f) {
    struct settings *s = &g->s;
    const char *endpoints[ENDPOINTS_MAX];
    struct ingest_options o = {.endpoints = endpoints,
                               .client_id = s->client_id,
                               .socket_dir = s->data_dir,
                               .secret_key = g->sign.secret_key,
                               .ca_path = s->tls_ca,
                               .shared = store_is_postgres(s->store)};
    bool tls = strncmp(s->broker, "mqtts://", 8) == 0;
    if (check(s, tls, f) != E_OK || read_brokers(s, tls, &o, endpoints, f) != E_OK || open_data(g, f) != E_OK ||
        !open_machine(g, f) || !open_store(g, f) || (tls && !open_tls(g, f))) {
        return false;
    }
    o.tls = g->tls;
    loop_signal(g->x.loop, SIGTERM, on_terminate, g);
    loop_signal(g->x.loop, SIGINT, on_terminate, g);
    loop_signal(g->x.loop, SIGHUP, on_reload, g);
    return open_door(g, f) && open_ways(g, &o, f) && open_attesting(g, f) && open_enroller(g, f);
}

static void stop(struct grey_core *g) {
    supervise_end(&g->supervise);
    http_server_free(g->http);
    registrar_stop(g->registrar);
    attesting_stop(g->attesting);
    enroller_stop(g->enroller);
    giver_stop(g->giver);
    offloads_stop(g->offloads);
    ingest_stop(g->ingest);
    worker_stop(g->storage);
    enroller_free(g->enroller);
    giver_free(g->giver);
    offloads_free(g->offloads);
    ingest_free(g->ingest);
    store_close(g->store);
    worker_stop(g->x.crypto);
    core_door_free(g->door);
    registrar_free(g->registrar);
    attesting_free(g->attesting);
    conn_tls_free(g->tls);
    loop_free(g->x.loop);
}

int main(int argc, char **argv) {
    static struct grey_core g;
    struct fault f = {0};
    enum log_level level;
    if (argc > 1 && strcmp(argv[1], "ca") == 0) {
        return authority_command(argc - 2, argv + 2);
    }
    if (argc > 1 && strcmp(argv[1], "token") == 0) {
        return core_access_command(argc - 2, argv + 2);
    }
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        help();
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        (void)printf("grey-core " GREY_VERSION " (experimental: formats may change; store format 1, Grey Protocol v2)\n");
        return 0;
    }
    if (load(&g.s, argc, argv, &f) != E_OK) {
        return complain(&f);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(027);
    if (!log_level_parse(g.s.log_level, &level)) {
        (void)fault_set(&f, E_USAGE, "--log-level '%.20s' is not trace, debug, info, warn or error", g.s.log_level);
        return complain(&f);
    }
    log_configure(level, strcmp(g.s.log_format, "json") == 0 ? LOG_JSON : LOG_PRETTY);
    if (!start(&g, &f)) {
        stop(&g);
        return complain(&f);
    }
    if (!core_door_is_tls(g.door) && !core_door_is_loopback(g.s.http_addr)) {
        log_warn("grey-core", "open", "the API at %s is plain HTTP: everybody on the way reads it, tokens too", g.s.http_addr);
    }
    log_info("grey-core", "ready", "version=%s %s=%s store=%s", GREY_VERSION, core_door_is_tls(g.door) ? "https" : "http",
             g.s.http_addr, store_name(g.store));
    supervise_ready(&g.supervise, "takes what sites send");
    loop_run(g.x.loop);
    stop(&g);
    log_info("grey-core", "stopped", "version=%s", GREY_VERSION);
    return 0;
}
