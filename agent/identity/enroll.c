#include "agent/identity/enroll.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/identity/sitecert.h"
#include "agent/identity/zerotouch.h"
#include "agent/store/datadir.h"
#include "federation/invite.h"
#include "include/grey/limits.h"
#include "platform/cert.h"
#include "platform/conn.h"
#include "platform/csr.h"
#include "platform/http_fetch.h"
#include "platform/json.h"
#include "platform/keyring.h"
#include "platform/keys.h"
#include "platform/vault.h"
#include "platform/vouch.h"
#include "platform/wholefile.h"

#define DIR_DEFAULT "/var/lib/grey/identity"
#define PEM_BYTES_MAX 65536u
#define TIMEOUT_MS 30000u
#define NOTE "grey-enrolled 1 " /* fingerprint and URL behind it */
#define BROKER_PORT "8883"
#define KEY_NOTE "key-name" /* a file with it */

struct enrolling {
    const char *core, *token, *token_file, *node, *site, *dir, *config, *broker;
    const char *tpm, *vtpm, *root, *grey_tpm; /* who comes in by his TPM */
    const char *key_place, *socket;
    bool request;
    struct invite invite;
    char node_name[LIMIT_NAME_BYTES + 1], url[LIMIT_PATH_BYTES + 1];
    struct keysign key;
    char key_name[LIMIT_PATH_BYTES + 1]; /* as platform/keyring.h has it */
    struct builder csr;
    uint8_t key_hash[32];
    bool key_made;
    uint32_t timeout_ms;
};

static const char usage[] =
    "usage: greyd enroll --core https://HOST:PORT --token TOKEN|--token-file FILE [--node NODE]\n"
    "                    [--dir DIR] [--broker HOST:PORT] [--config FILE] [--key file|tpm|sealed] [--tpm-socket PATH]\n"
    "       greyd enroll --core https://HOST:PORT --root FINGERPRINT --tpm WAY|--vtpm WAY [--dir DIR] ...\n"
    "                                                                     by the TPM, which was registered at the core\n"
    "       greyd enroll [--dir DIR]                                      renew what was enrolled there\n"
    "       greyd enroll --request --site SITE --node NODE [--dir DIR]    only a key and a request, to be signed by hand\n";

static const char *path_in(const struct enrolling *e, const char *name, char out[LIMIT_PATH_BYTES + 32]) {
    (void)snprintf(out, LIMIT_PATH_BYTES + 32, "%.1000s/%s", e->dir, name);
    return out;
}

static int complain(const struct fault *f) {
    (void)fprintf(stderr, "greyd: %s (GREY-%d): %s\n  -> %s\n", error_sentence(f->code), error_id(f->code), f->text,
                  error_remedy(f->code));
    return f->code == E_USAGE ? 2 : 1;
}

/* --- key and request ----------------------------------------------------------------------------------------------------------------------- */

/* --key: a word, or a name as platform/keyring.h has it.  Without it, as it was the last time, or a file. */
static enum grey_error name_key(struct enrolling *e, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 32];
    struct builder former;
    const char *key = e->key_place;
    if (key != NULL && strcmp(key, "tpm") == 0 && !conn_tls_signs_elsewhere()) {
        key = "sealed"; /* mbedTLS 3.6 takes keys from files only */
    }
    builder_init(&former, sizeof e->key_name);
    bool known = key == NULL && wholefile_read(path_in(e, KEY_NOTE, path), &former, f) == E_OK;
    int size = 0;
    if (known) {
        size = snprintf(e->key_name, sizeof e->key_name, "%.*s", (int)strcspn((const char *)former.data, "\n"),
                        (const char *)former.data);
    } else if (key == NULL || strcmp(key, "file") == 0) {
        size = snprintf(e->key_name, sizeof e->key_name, "%s/node.key", e->dir);
    } else if (strcmp(key, "tpm") == 0) {
        size = snprintf(e->key_name, sizeof e->key_name, "tpm:0x%08x%s%s", VAULT_HANDLE_TLS, e->socket == NULL ? "" : "@",
                        e->socket == NULL ? "" : e->socket);
    } else if (strcmp(key, "sealed") == 0) {
        size = snprintf(e->key_name, sizeof e->key_name, "tpm:%s/node.key%s%s", e->dir, e->socket == NULL ? "" : "@",
                        e->socket == NULL ? "" : e->socket);
    } else {
        size = snprintf(e->key_name, sizeof e->key_name, "%s", key);
    }
    builder_free(&former);
    return size > 0 && (size_t)size < sizeof e->key_name ? E_OK
                                                         : fault_set(f, E_KEY, "--key %.80s: too long", key == NULL ? "" : key);
}

static enum grey_error open_key(struct enrolling *e, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 32];
    struct stat st;
    enum grey_error err = name_key(e, f);
    if (err == E_OK && !keyring_with_tpm(e->key_name) && stat(e->key_name, &st) == 0 && (st.st_mode & 077) != 0) {
        err =
            fault_set(f, E_KEY, "%s may be read by others: they could speak in this gateway's name.  Remove it; a new one is made",
                      e->key_name);
    }
    err = err != E_OK ? err : keyring_make(e->key_name, &e->key_made, f);
    err = err != E_OK ? err : keyring_open(e->key_name, &e->key, f);
    return err != E_OK ? err : wholefile_write(path_in(e, KEY_NOTE, path), bytes_str(e->key_name), 0644, f);
}

static enum grey_error make_request(struct enrolling *e, const char *site, struct fault *f) {
    struct csr_facts facts;
    enum grey_error err = datadir_make(e->dir, f);
    err = err != E_OK ? err : open_key(e, f);
    err = err != E_OK ? err : csr_make(site, e->node_name, &e->key, &e->csr, f);
    err = err != E_OK ? err : csr_read(builder_bytes(&e->csr), &facts, f);
    memcpy(e->key_hash, facts.key_hash, sizeof e->key_hash);
    return err;
}

/* --- who, where --------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error read_token(struct enrolling *e, struct fault *f) {
    struct builder text;
    enum grey_error err = E_OK;
    builder_init(&text, 4096);
    if (e->token_file != NULL) {
        err = wholefile_read(strcmp(e->token_file, "-") == 0 ? "/dev/stdin" : e->token_file, &text, f);
    } else {
        builder_add_str(&text, e->token);
        builder_add_byte(&text, 0);
    }
    if (err == E_OK) {
        err = text.err != E_OK || text.data == NULL ? fault_set(f, E_TOKEN_UNKNOWN, "a token is one short line")
                                                    : invite_read((const char *)text.data, &e->invite, f);
    }
    if (text.data != NULL) {
        explicit_bzero(text.data, text.size);
    }
    builder_free(&text);
    if (err == E_OK && e->site != NULL && strcmp(e->site, e->invite.site.text) != 0) {
        err = fault_set(f, E_TOKEN_SITE, "it enrols gateways of site '%s', not of '%.64s'", e->invite.site.text, e->site);
    }
    return err;
}

/* What an enrolment before wrote down, and the names in its certificate. */
static enum grey_error read_former(struct enrolling *e, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 32];
    struct builder note, crt;
    struct cert_facts facts;
    builder_init(&note, LIMIT_PATH_BYTES + 256);
    builder_init(&crt, PEM_BYTES_MAX);
    enum grey_error err = wholefile_read(path_in(e, ENROLL_NOTE_FILE, path), &note, f);
    const char *hex = err == E_OK ? (const char *)note.data + strlen(NOTE) : "";
    if (err == E_OK && (note.size < strlen(NOTE) + (size_t)2 * sizeof e->invite.fingerprint + 3 ||
                        strncmp((const char *)note.data, NOTE, strlen(NOTE)) != 0 ||
                        !bytes_unhex(hex, sizeof e->invite.fingerprint, e->invite.fingerprint))) {
        err = fault_set(f, E_CERT, "%s is not what 'greyd enroll' writes: enrol again with a token", path);
    }
    if (err == E_OK) {
        const char *url = hex + (size_t)2 * sizeof e->invite.fingerprint + 1;
        (void)snprintf(e->url, sizeof e->url, "%.*s", (int)strcspn(url, "\n"), url);
        e->core = e->core == NULL ? e->url : e->core;
        err = wholefile_read(path_in(e, "node.crt", path), &crt, f);
        err = err != E_OK ? err : cert_read((const char *)crt.data, &facts, f);
    } else if (err == E_NOT_FOUND) {
        err = fault_set(f, E_USAGE, "nothing was enrolled in %s yet: say --core and --token", e->dir);
    }
    if (err == E_OK) {
        const char *slash = strncmp(facts.uri, "grey://", 7) == 0 ? strchr(facts.uri + 7, '/') : NULL;
        if (slash == NULL || strlen(facts.subject_cn) > LIMIT_NAME_BYTES || strlen(slash + 1) > LIMIT_NAME_BYTES) {
            err = fault_set(f, E_CERT, "%s is not a gateway's certificate", path);
        } else {
            (void)snprintf(e->invite.site.text, sizeof e->invite.site.text, "%.*s", (int)(slash - facts.uri - 7), facts.uri + 7);
            (void)snprintf(e->node_name, sizeof e->node_name, "%.64s", slash + 1);
        }
    }
    builder_free(&note);
    builder_free(&crt);
    return err;
}

/* --- the core's answer ---------------------------------------------------------------------------------------------------------------------- */

static enum grey_error refused(const json_t *body, int status, struct fault *f) {
    const char *type = json_string_value(json_object_get(body, "type")),
               *detail = json_string_value(json_object_get(body, "detail"));
    const char *id = type == NULL ? NULL : strstr(type, "GREY-");
    enum grey_error err = id == NULL ? E_OK : error_by_id((int)strtol(id + 5, NULL, 10));
    if (err == E_OK) {
        return fault_set(f, E_BAD_HTTP, "the core answered with status %d", status);
    }
    return fault_set(f, err, "%.200s", detail == NULL ? "" : detail);
}

static enum grey_error ask(struct enrolling *e, bool renew, json_t **answer, struct fault *f) {
    char secret[2 * INVITE_SECRET_BYTES + 1];
    struct builder body;
    struct json_writer w;
    struct http_answer a;
    builder_init(&body, 16384);
    json_writer_init(&w, &body);
    json_open(&w, '{');
    json_member_text(&w, "csr", builder_bytes(&e->csr));
    if (!renew) {
        bytes_hex(e->invite.secret, sizeof e->invite.secret, secret);
        json_member_str(&w, "token", secret);
        explicit_bzero(secret, sizeof secret);
    }
    json_close(&w);
    struct http_fetch q = {.address = e->core,
                           .pin = e->invite.fingerprint,
                           .method = "POST",
                           .path = "/v1/enroll",
                           .body = builder_bytes(&body),
                           .body_type = "application/json",
                           .timeout_ms = e->timeout_ms,
                           .answer_bytes_max = 1024u * 1024u};
    enum grey_error err = http_fetch(&q, &a, f);
    *answer = err == E_OK ? json_read(builder_bytes(&a.body), f) : NULL;
    if (err == E_OK && a.status >= 400) {
        err = refused(*answer, a.status, f);
    } else if (err == E_OK && !json_is_object(*answer)) {
        err = fault_set(f, E_BAD_HTTP, "the answer of %.100s is not a core's", e->core);
    }
    if (body.data != NULL) {
        explicit_bzero(body.data, body.size);
    }
    builder_free(&body);
    builder_free(&a.body);
    return err;
}

/* The certificate is for this key and this name, by the CA that the token names, and holds now. */
static enum grey_error check(const struct enrolling *e, const char *crt, const char *ca, struct fault *f) {
    struct cert_facts facts;
    struct builder root;
    char uri[2 * LIMIT_NAME_BYTES + 16];
    builder_init(&root, PEM_BYTES_MAX);
    (void)snprintf(uri, sizeof uri, "grey://%s/%s", e->invite.site.text, e->node_name);
    enum grey_error err = cert_find_root(ca, e->invite.fingerprint, &root, f);
    err = err != E_OK ? err : cert_verify(crt, ca, f);
    err = err != E_OK ? err : cert_read(crt, &facts, f);
    if (err == E_OK && (strcmp(facts.uri, uri) != 0 || strcmp(facts.subject_cn, e->invite.site.text) != 0 ||
                        (facts.roles & CERT_ROLE_GATEWAY) == 0 || memcmp(facts.key_hash, e->key_hash, sizeof e->key_hash) != 0)) {
        err = fault_set(f, E_CERT, "the certificate is for '%.80s' or another key; asked for was %s", facts.uri, uri);
    }
    builder_free(&root);
    return err;
}

/* The certificate last: who finds it finds all it needs. */
static enum grey_error keep(const struct enrolling *e, const json_t *answer, struct fault *f) {
    const char *crt = json_string_value(json_object_get(answer, "certificate")),
               *ca = json_string_value(json_object_get(answer, "ca"));
    const char *key = json_string_value(json_object_get(answer, "core_key"));
    char path[LIMIT_PATH_BYTES + 32], hex[2 * DIGEST_SHA256_BYTES + 1], text[LIMIT_PATH_BYTES + 256];
    uint8_t core_key[KEYS_ED25519_PUBLIC_BYTES];
    if (crt == NULL || ca == NULL || key == NULL || strlen(key) != 2 * sizeof core_key ||
        !bytes_unhex(key, sizeof core_key, core_key)) {
        return fault_set(f, E_BAD_HTTP, "the core's answer lacks certificate, ca or core_key");
    }
    struct builder own, delegation;
    builder_init(&own, PEM_BYTES_MAX);
    builder_init(&delegation, PEM_BYTES_MAX);
    enum grey_error err = check(e, crt, ca, f);
    err = err != E_OK ? err : vouch_split(crt, &own, &delegation, f);
    if (err == E_OK && delegation.size > 0) {
        err = wholefile_write(path_in(e, SITECERT_DELEGATION_FILE, path), builder_bytes(&delegation), 0644, f);
    }
    err = err != E_OK ? err : wholefile_write(path_in(e, "ca.crt", path), bytes_str(ca), 0644, f);
    (void)snprintf(text, sizeof text, "grey-ed25519-public 1 %s\n", key);
    err = err != E_OK ? err : wholefile_write(path_in(e, "core-sign.pub", path), bytes_str(text), 0644, f);
    bytes_hex(e->invite.fingerprint, sizeof e->invite.fingerprint, hex);
    (void)snprintf(text, sizeof text, NOTE "%s %.1000s\n", hex, e->core);
    err = err != E_OK ? err : wholefile_write(path_in(e, ENROLL_NOTE_FILE, path), bytes_str(text), 0600, f);
    err = err != E_OK ? err : wholefile_write(path_in(e, "node.crt", path), builder_bytes(&own), 0644, f);
    builder_free(&own);
    builder_free(&delegation);
    return err;
}

/* A configuration to begin with; one that is there is the operator's.  The name "": none. */
static enum grey_error write_config(const struct enrolling *e, bool *wrote, struct fault *f) {
    char host[LIMIT_ADDRESS_BYTES + 1] = "";
    struct builder b;
    *wrote = e->config[0] != 0 && !wholefile_exists(e->config);
    if (!*wrote) {
        return E_OK;
    }
    const char *name = strstr(e->core, "://") == NULL ? e->core : strstr(e->core, "://") + 3;
    const char *colon = strrchr(name, ':');
    (void)snprintf(host, sizeof host, "%.*s:" BROKER_PORT, (int)(colon == NULL ? strcspn(name, "/") : (size_t)(colon - name)),
                   name);
    builder_init(&b, 16384);
    builder_addf(&b, "# Written by 'greyd enroll'; it does not write over it.  docs/CONFIGURATION.md has all keys.\n");
    builder_addf(&b, "mode: edge\nnode:\n  id: \"%s\"\nsite:\n  id: \"%s\"\n", e->node_name, e->invite.site.text);
    builder_addf(&b,
                 "security:\n  signing_key: %s\n  tls:\n    enabled: true\n    ca_cert: \"%s/ca.crt\"\n    cert: \"%s/node.crt\"\n "
                 "   key: \"%s\"\n",
                 keyring_with_tpm(e->key_name) ? "tpm" : "file", e->dir, e->dir, e->key_name);
    if (keyring_socket(e->key_name)[0] != 0) {
        builder_addf(&b, "attestation:\n  socket: \"%s\"\n", keyring_socket(e->key_name));
    }
    builder_addf(&b, "federation:\n  enabled: true\n  upstream:\n    endpoints: [\"%s\"]\n    core_key: \"%s/core-sign.pub\"\n",
                 e->broker != NULL ? e->broker : host, e->dir);
    builder_addf(&b, "    tls:\n      ca_cert: \"%s/ca.crt\"\n      client_cert: \"%s/node.crt\"\n      client_key: \"%s\"\n",
                 e->dir, e->dir, e->key_name);
    enum grey_error err = b.err != E_OK ? b.err : wholefile_write(e->config, builder_bytes(&b), 0640, f);
    builder_free(&b);
    return err;
}

/* --- the command ---------------------------------------------------------------------------------------------------------------------------- */

static bool read_flags(struct enrolling *e, int argc, char **argv) {
    const struct {
        const char *name;
        const char **value;
    } flags[] = {{"--core", &e->core},     {"--token", &e->token},      {"--token-file", &e->token_file},
                 {"--node", &e->node},     {"--site", &e->site},        {"--dir", &e->dir},
                 {"--config", &e->config}, {"--broker", &e->broker},    {"--tpm", &e->tpm},
                 {"--vtpm", &e->vtpm},     {"--root", &e->root},        {"--grey-tpm", &e->grey_tpm},
                 {"--key", &e->key_place}, {"--tpm-socket", &e->socket}};
    for (int i = 0; i < argc; i++) {
        bool known = strcmp(argv[i], "--request") == 0;
        e->request = e->request || known;
        for (size_t k = 0; k < sizeof flags / sizeof flags[0] && !known && i + 1 < argc; k++) {
            if (strcmp(argv[i], flags[k].name) == 0) {
                *flags[k].value = argv[++i];
                known = true;
            }
        }
        if (!known) {
            return false;
        }
    }
    bool token = e->token != NULL || e->token_file != NULL, tpm = e->tpm != NULL || e->vtpm != NULL;
    if (tpm != (e->root != NULL) || (tpm && (token || e->request || e->core == NULL || (e->tpm != NULL && e->vtpm != NULL)))) {
        return false;
    }
    return !(e->token != NULL && e->token_file != NULL) && strlen(e->dir) < LIMIT_PATH_BYTES - 32 &&
           (e->request ? e->site != NULL && e->node != NULL && !token : !token || e->core != NULL);
}

static enum grey_error request_only(struct enrolling *e, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 32];
    (void)snprintf(e->node_name, sizeof e->node_name, "%.64s", e->node);
    enum grey_error err = make_request(e, e->site, f);
    err = err != E_OK ? err : wholefile_write(path_in(e, "node.csr", path), builder_bytes(&e->csr), 0644, f);
    if (err == E_OK) {
        (void)printf(
            "%s: have it signed at the CA with 'grey-core ca sign --csr', and bring the answer back as %s/node.crt, with ca.crt\n",
            path, e->dir);
    }
    return err;
}

/* Who this gateway is, and its right to come in, from the core that the root's fingerprint names. */
static enum grey_error ask_by_tpm(struct enrolling *e, struct fault *f) {
    const struct zerotouch z = {.core = e->core,
                                .program = e->grey_tpm,
                                .tpm = e->tpm != NULL ? e->tpm : e->vtpm,
                                .type = e->tpm != NULL ? ATTEST_TPM2 : ATTEST_VTPM};
    char node[LIMIT_NAME_BYTES + 1];
    if (strlen(e->root) != 2 * sizeof e->invite.fingerprint ||
        !bytes_unhex(e->root, sizeof e->invite.fingerprint, e->invite.fingerprint)) {
        return fault_set(f, E_USAGE, "--root is SHA-256 of the root certificate of the core's CA, 64 hexadecimal digits");
    }
    enum grey_error err = zerotouch_ask(&z, &e->invite, node, f);
    if (err == E_OK &&
        ((e->site != NULL && strcmp(e->site, e->invite.site.text) != 0) || (e->node != NULL && strcmp(e->node, node) != 0))) {
        err = fault_set(f, E_TOKEN_SITE, "this TPM was registered for node '%s' of site '%s'", node, e->invite.site.text);
    }
    (void)snprintf(e->node_name, sizeof e->node_name, "%s", err == E_OK ? node : "");
    return err;
}

static enum grey_error enroll(struct enrolling *e, bool renew, struct fault *f) {
    char config[LIMIT_PATH_BYTES + 32];
    json_t *answer = NULL;
    bool wrote = false;
    bool by_tpm = e->root != NULL;
    if (!renew && !by_tpm) {
        char host[LIMIT_NAME_BYTES + 1] = "";
        (void)gethostname(host, sizeof host - 1);
        (void)snprintf(e->node_name, sizeof e->node_name, "%.64s", e->node != NULL ? e->node : host);
    }
    enum grey_error err = renew ? read_former(e, f) : by_tpm ? ask_by_tpm(e, f) : read_token(e, f);
    err = err != E_OK ? err : make_request(e, e->invite.site.text, f);
    err = err != E_OK ? err : ask(e, renew, &answer, f);
    err = err != E_OK ? err : keep(e, answer, f);
    if (err == E_OK && !renew) {
        e->config = e->config != NULL ? e->config : path_in(e, "greyd.yaml", config);
        err = write_config(e, &wrote, f);
    }
    if (err == E_OK) {
        (void)printf("%s: node '%s' of site '%s'; key, certificate and CA are in %s\n", renew ? "renewed" : "enrolled",
                     e->node_name, e->invite.site.text, e->dir);
        if (!renew && e->config[0] != 0) {
            (void)printf("  -> greyd --config %s%s\n", e->config, wrote ? "" : "   (it was there and stays as it is)");
        }
    }
    json_decref(answer);
    return err;
}

enum grey_error enroll_renew(const char *dir, uint32_t timeout_ms, struct fault *f) {
    struct enrolling e = {.dir = dir, .timeout_ms = timeout_ms};
    json_t *answer = NULL;
    builder_init(&e.csr, CSR_PEM_BYTES_MAX);
    enum grey_error err = read_former(&e, f);
    err = err != E_OK ? err : make_request(&e, e.invite.site.text, f);
    err = err != E_OK ? err : ask(&e, true, &answer, f);
    err = err != E_OK ? err : keep(&e, answer, f);
    json_decref(answer);
    keysign_close(&e.key);
    builder_free(&e.csr);
    return err;
}

int enroll_command(int argc, char **argv) {
    static struct enrolling e;
    struct fault f = {0};
    e.dir = DIR_DEFAULT;
    e.timeout_ms = TIMEOUT_MS;
    bool asked = argc > 0 && strcmp(argv[0], "--help") == 0;
    if (asked || !read_flags(&e, argc, argv)) {
        (void)fputs(usage, asked ? stdout : stderr);
        return asked ? 0 : 2;
    }
    builder_init(&e.csr, CSR_PEM_BYTES_MAX);
    enum grey_error err =
        e.request ? request_only(&e, &f) : enroll(&e, e.token == NULL && e.token_file == NULL && e.root == NULL, &f);
    keysign_close(&e.key);
    builder_free(&e.csr);
    explicit_bzero(&e.invite, sizeof e.invite);
    return err == E_OK ? 0 : complain(&f);
}
