#include "core/core_door.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/authority.h"
#include "include/grey/limits.h"
#include "platform/address.h"
#include "platform/log.h"
#include "platform/now.h"

#define LOOK_MS 60000u
#define RENEW_MS (30 * INT64_C(86400000)) /* the certificate that is made holds for a year */
#define PATH_BYTES (LIMIT_PATH_BYTES + 16)

enum watched { WATCHED_CERT, WATCHED_CA, WATCHED_LIST, WATCHED_COUNT };

struct core_door {
    struct loop *loop;
    struct conn_tls *tls; /* NULL: plain */
    struct loop_timer timer;
    bool makes; /* the certificate is ours to make */
    int64_t made_ms;
    char ca_dir[LIMIT_PATH_BYTES + 1], prefix[PATH_BYTES], host[256];
    char paths[WATCHED_COUNT][PATH_BYTES], key[PATH_BYTES]; /* "": none */
    struct timespec changed[WATCHED_COUNT];
};

bool core_door_is_loopback(const char *address) {
    char host[ADDRESS_HOST_BYTES], port[ADDRESS_PORT_BYTES];
    return address_split(address, host, port, NULL) == E_OK &&
           (strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0);
}

static bool make(struct core_door *d, struct fault *f) {
    d->made_ms = now_wall_ms();
    return authority_serve(d->ca_dir, d->host, d->prefix, f) == E_OK;
}

/* Whether one of the files is another than when this was asked last. */
static bool changed(struct core_door *d) {
    bool any = false;
    for (size_t i = 0; i < WATCHED_COUNT; i++) {
        struct stat s = {0};
        if (d->paths[i][0] != 0 && stat(d->paths[i], &s) == 0 &&
            (s.st_mtim.tv_sec != d->changed[i].tv_sec || s.st_mtim.tv_nsec != d->changed[i].tv_nsec)) {
            d->changed[i] = s.st_mtim;
            any = true;
        }
    }
    return any;
}

static void look(void *context) {
    struct core_door *d = context;
    struct fault f = {0};
    loop_timer_after(d->loop, &d->timer, LOOK_MS);
    bool good = !d->makes || now_wall_ms() - d->made_ms < RENEW_MS || make(d, &f);
    if (good && changed(d)) {
        good = conn_tls_reload(d->tls, &f) == E_OK;
        log_info("core-api", "certificates", "%s", good ? "read again, for some are new" : f.text);
    }
    if (!good) {
        log_error("core-api", "certificates", "the ones in memory go on: %s", f.text);
    }
}

static bool choose(struct core_door *d, const struct core_door_options *o, struct fault *f) {
    if (o->cert[0] != 0) {
        (void)snprintf(d->paths[WATCHED_CERT], PATH_BYTES, "%.1000s", o->cert);
        (void)snprintf(d->key, PATH_BYTES, "%.1000s", o->key);
    } else {
        d->makes = true;
        (void)snprintf(d->prefix, sizeof d->prefix, "%.1000s/api", o->data_dir);
        (void)snprintf(d->paths[WATCHED_CERT], PATH_BYTES, "%.1000s/api.crt", o->data_dir);
        (void)snprintf(d->key, PATH_BYTES, "%.1000s/api.key", o->data_dir);
    }
    if (o->ca_dir[0] != 0) {
        (void)snprintf(d->paths[WATCHED_LIST], PATH_BYTES, "%.1000s/crl.pem", o->ca_dir);
        (void)snprintf(d->paths[WATCHED_CA], PATH_BYTES, "%.1000s/ca.crt", o->ca_dir);
    }
    if (o->ca[0] != 0) {
        (void)snprintf(d->paths[WATCHED_CA], PATH_BYTES, "%.1000s", o->ca);
    }
    if (d->paths[WATCHED_CA][0] == 0 && !o->tokens) {
        (void)fault_set(f, E_USAGE, "nobody could come in at %s: name --http-tls-ca for certificates of clients, or --tokens",
                        o->address);
        return false;
    }
    (void)snprintf(d->ca_dir, sizeof d->ca_dir, "%s", o->ca_dir);
    (void)snprintf(d->host, sizeof d->host, "%.200s", o->host);
    if (d->host[0] == 0 && gethostname(d->host, sizeof d->host - 1) != 0) {
        d->host[0] = 0;
    }
    return !d->makes || make(d, f);
}

static bool secure(struct core_door *d, struct http_server *http, const struct core_door_options *o, struct fault *f) {
    if (!choose(d, o, f)) {
        return false;
    }
    struct conn_tls_files files = {.ca_path = d->paths[WATCHED_CA],
                                   .cert_path = d->paths[WATCHED_CERT],
                                   .key_path = d->key,
                                   .trust_path = d->paths[WATCHED_LIST][0] != 0 ? d->paths[WATCHED_LIST] : NULL,
                                   .anybody = d->paths[WATCHED_CA][0] == 0,
                                   .from_13 = o->from_13};
    (void)changed(d);
    d->tls = conn_tls_open(&files, f);
    if (d->tls == NULL) {
        return false;
    }
    if (!files.anybody) {
        http_server_admit_guests(http); /* who shows no certificate may show a token */
    }
    d->timer = (struct loop_timer){.fire = look, .context = d};
    loop_timer_after(d->loop, &d->timer, LOOK_MS);
    return true;
}

struct core_door *core_door_open(const struct conn_context *x, struct http_server *http, const struct core_door_options *o,
                                 struct fault *f) {
    bool own = core_door_is_loopback(o->address), named = o->cert[0] != 0, insecure = strcmp(o->insecure, "true") == 0;
    struct core_door *d = mem_new(1, sizeof *d);
    bool good = d != NULL;
    if (d == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "the API's address");
        return NULL;
    }
    d->loop = x->loop;
    if (!insecure && strcmp(o->insecure, "false") != 0) {
        (void)fault_set(f, E_USAGE, "--insecure-i-know %.20s: expected true or false", o->insecure);
        good = false;
    } else if (named != (o->key[0] != 0)) {
        (void)fault_set(f, E_USAGE, "--http-tls-cert and --http-tls-key belong together");
        good = false;
    } else if (named || (!own && !insecure && o->ca_dir[0] != 0)) {
        good = secure(d, http, o, f);
    } else if (!own && !insecure) {
        (void)fault_set(f, E_USAGE,
                        "others can reach --http-addr %.80s: name --http-tls-cert and --http-tls-key, or --ca-dir with a CA that "
                        "makes them, or say --insecure-i-know true",
                        o->address);
        good = false;
    }
    if (good && http_server_listen(http, o->address, d->tls, f) == E_OK) {
        return d;
    }
    core_door_free(d);
    return NULL;
}

bool core_door_is_tls(const struct core_door *d) {
    return d->tls != NULL;
}

void core_door_free(struct core_door *d) {
    if (d != NULL) {
        loop_timer_cancel(d->loop, &d->timer);
        conn_tls_free(d->tls);
        mem_free(d);
    }
}
