#include "core/authority.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "federation/access.h"
#include "include/grey/ids.h"
#include "platform/keyfile.h"
#include "platform/keys.h"
#include "platform/now.h"
#include "platform/vouch.h"
#include "platform/wholefile.h"

#define DAY_S INT64_C(86400)
#define ROOT_DAYS 7300
#define ISSUING_DAYS 1825
#define SERVER_DAYS 365
#define GATEWAY_DAYS 365 /* signed by hand: nobody renews it by itself */
#define GATEWAY_DAYS_MAX 3650
#define DELEGATION_S_MAX (60 * DAY_S)
#define PEM_BYTES_MAX 65536u
#define PATH_BYTES (LIMIT_PATH_BYTES + 32)

static const char *path_in(char out[PATH_BYTES], const char *dir, const char *name) {
    (void)snprintf(out, PATH_BYTES, "%.1000s/%.24s", dir, name);
    return out;
}

static void wipe(struct builder *b) {
    if (b->data != NULL) {
        explicit_bzero(b->data, b->size);
    }
    builder_free(b);
}

static enum grey_error read_pem(const char *dir, const char *name, struct builder *out, struct fault *f) {
    char path[PATH_BYTES];
    builder_init(out, PEM_BYTES_MAX);
    return wholefile_read(path_in(path, dir, name), out, f);
}

/* A key and its certificate, into PREFIX.key and PREFIX.crt; the key first, so that no certificate is ever without it. */
static enum grey_error make_pair(struct cert_request *q, const char *prefix, struct fault *f) {
    char path[PATH_BYTES];
    struct builder key, cert;
    builder_init(&key, PEM_BYTES_MAX);
    builder_init(&cert, PEM_BYTES_MAX);
    enum grey_error err = keys_new_p256(&key, f);
    if (err == E_OK) {
        (void)snprintf(path, sizeof path, "%.1000s.key", prefix);
        err = wholefile_write(path, builder_bytes(&key), 0600, f);
    }
    if (err == E_OK) {
        builder_add_byte(&key, 0);
        q->key_pem = (const char *)key.data;
        err = cert_issue(q, &cert, f);
    }
    if (err == E_OK) {
        (void)snprintf(path, sizeof path, "%.1000s.crt", prefix);
        err = wholefile_write(path, builder_bytes(&cert), 0644, f);
    }
    wipe(&key);
    builder_free(&cert);
    return err;
}

/* --- the directory ------------------------------------------------------------------------------------------------------------------------ */

static enum grey_error make_root(const char *dir, struct fault *f) {
    char path[PATH_BYTES], prefix[PATH_BYTES];
    if (wholefile_exists(path_in(path, dir, "root.crt"))) {
        return E_OK;
    }
    int64_t now_s = now_wall_ms() / 1000;
    struct cert_request q = {
        .subject = "CN=Grey Edge root CA", .depth = 2, .not_before_s = now_s - DAY_S, .not_after_s = now_s + ROOT_DAYS * DAY_S};
    return make_pair(&q, path_in(prefix, dir, "root"), f);
}

/* Subjects differ, so that a list of revoked certificates is one issuer's. */
static enum grey_error make_issuing(const char *dir, const char *name, struct fault *f) {
    char subject[64], prefix[PATH_BYTES];
    struct builder root, root_key;
    uint32_t number;
    keys_random(&number, sizeof number);
    (void)snprintf(subject, sizeof subject, "CN=Grey Edge issuing CA %08x", number);
    builder_init(&root_key, PEM_BYTES_MAX);
    enum grey_error err = read_pem(dir, "root.crt", &root, f);
    err = err != E_OK ? err : read_pem(dir, "root.key", &root_key, f);
    if (err == E_OK) {
        int64_t now_s = now_wall_ms() / 1000;
        struct cert_request q = {.subject = subject,
                                 .issuer_pem = (const char *)root.data,
                                 .issuer_key_pem = (const char *)root_key.data,
                                 .authority = true,
                                 .depth = 1, /* gateways vouch for their neighbours */
                                 .not_before_s = now_s - DAY_S,
                                 .not_after_s = now_s + ISSUING_DAYS * DAY_S};
        err = make_pair(&q, path_in(prefix, dir, name), f);
    } else if (err == E_NOT_FOUND) {
        (void)fault_set(f, E_KEY, "%.100s/root.key is not here: bring the root's key for this step, and take it away again", dir);
        err = E_KEY;
    }
    builder_free(&root);
    wipe(&root_key);
    return err;
}

/* ca.crt: the certificates of these files, then what it held before and they do not. */
static enum grey_error write_bundle(const char *dir, const char *const *names, size_t count, struct fault *f) {
    char path[PATH_BYTES];
    struct builder all, former, one;
    builder_init(&all, PEM_BYTES_MAX);
    builder_init(&former, PEM_BYTES_MAX);
    enum grey_error err = E_OK;
    for (size_t i = 0; i < count && err == E_OK; i++) {
        err = read_pem(dir, names[i], &one, f);
        builder_add(&all, err == E_OK ? bytes_of(one.data, one.size - 1) : bytes_of(NULL, 0));
        builder_free(&one);
    }
    if (err == E_OK && wholefile_exists(path_in(path, dir, "ca.crt"))) {
        static const char end[] = "-----END CERTIFICATE-----\n";
        err = wholefile_read(path, &former, f);
        builder_add_byte(&all, 0);
        const char *at = err == E_OK ? (const char *)former.data : "", *next;
        for (; err == E_OK && (next = strstr(at, end)) != NULL; at = next + strlen(end)) {
            char text[8192];
            size_t size = (size_t)(next - at) + strlen(end);
            if (size >= sizeof text) {
                err = fault_set(f, E_CERT, "%s holds a certificate of more than %zu bytes", path, sizeof text);
                break;
            }
            memcpy(text, at, size);
            text[size] = 0;
            if (strstr((const char *)all.data, text) == NULL) {
                all.size--;
                builder_add_str(&all, text);
                builder_add_byte(&all, 0);
            }
        }
        all.size--;
    }
    err = err != E_OK ? err : all.err;
    err = err != E_OK ? err : wholefile_write(path_in(path, dir, "ca.crt"), builder_bytes(&all), 0644, f);
    builder_free(&all);
    builder_free(&former);
    return err;
}

/* A broker that is told of a list does not start without one. */
static enum grey_error write_empty_list(const char *dir, struct fault *f) {
    char path[PATH_BYTES];
    struct authority a;
    struct builder list;
    builder_init(&list, PEM_BYTES_MAX);
    enum grey_error err = authority_open(dir, &a, f);
    err = err != E_OK ? err : authority_list(&a, NULL, 0, now_wall_ms(), &list, f);
    err = err != E_OK ? err : wholefile_write(path_in(path, dir, "crl.pem"), builder_bytes(&list), 0644, f);
    builder_free(&list);
    authority_close(&a);
    return err;
}

enum grey_error authority_init(const char *dir, struct fault *f) {
    static const char *const trusted[] = {"issuing.crt", "root.crt"};
    char path[PATH_BYTES];
    struct keyfile sign; /* with it cores sign what they give; gateways are told its public half */
    if (mkdir(dir, 0755) != 0 && errno != EEXIST) {
        return fault_errno(f, E_SYSTEM, "%s", dir);
    }
    enum grey_error err = keyfile_open(dir, KEYFILE_CORE_SECRET, &sign, f);
    err = err == E_OK ? keyfile_put_public(dir, KEYFILE_CORE_PUBLIC, &sign, f) : err;
    explicit_bzero(&sign, sizeof sign);
    if (err != E_OK || wholefile_exists(path_in(path, dir, "issuing.crt"))) {
        return err;
    }
    err = make_root(dir, f);
    err = err != E_OK ? err : make_issuing(dir, "issuing", f);
    err = err != E_OK ? err : write_bundle(dir, trusted, sizeof trusted / sizeof trusted[0], f);
    return err != E_OK ? err : write_empty_list(dir, f);
}

enum grey_error authority_rotate(const char *dir, struct fault *f) {
    static const char *const trusted[] = {"next.crt", "issuing.crt", "root.crt"};
    char path[PATH_BYTES];
    if (wholefile_exists(path_in(path, dir, "next.crt"))) {
        return fault_set(f, E_CONDITION, "%.100s/next.crt is there already: say 'promote' when all sites know it", dir);
    }
    enum grey_error err = make_issuing(dir, "next", f);
    return err != E_OK ? err : write_bundle(dir, trusted, sizeof trusted / sizeof trusted[0], f);
}

static enum grey_error copy_file(const char *dir, const char *from, const char *to, mode_t mode, struct fault *f) {
    char path[PATH_BYTES];
    struct builder text;
    enum grey_error err = read_pem(dir, from, &text, f);
    err = err != E_OK ? err : wholefile_write(path_in(path, dir, to), bytes_of(text.data, text.size - 1), mode, f);
    wipe(&text);
    return err;
}

static bool same_file(const char *dir, const char *a, const char *b) {
    struct builder x, y;
    builder_init(&y, PEM_BYTES_MAX);
    bool same = read_pem(dir, a, &x, NULL) == E_OK && read_pem(dir, b, &y, NULL) == E_OK &&
                bytes_equal(builder_bytes(&x), builder_bytes(&y));
    wipe(&x);
    wipe(&y);
    return same;
}

/* Certificates of the former issuer hold until they end, for it stays in ca.crt, and its key signs their list.  Done again after a power
 * cut it goes on where it was. */
enum grey_error authority_promote(const char *dir, struct fault *f) {
    char crt[PATH_BYTES], key[PATH_BYTES];
    enum grey_error err = E_OK;
    if (!wholefile_exists(path_in(crt, dir, "next.crt"))) {
        return fault_set(f, E_CONDITION, "there is no %s: say 'rotate' first, and wait until all sites know it", crt);
    }
    if (!same_file(dir, "next.key", "issuing.key")) {
        err = copy_file(dir, "issuing.crt", "former.crt", 0644, f);
        err = err != E_OK ? err : copy_file(dir, "issuing.key", "former.key", 0600, f);
        err = err != E_OK ? err : copy_file(dir, "next.key", "issuing.key", 0600, f);
    }
    err = err != E_OK ? err : copy_file(dir, "next.crt", "issuing.crt", 0644, f);
    if (err == E_OK && (unlink(crt) != 0 || unlink(path_in(key, dir, "next.key")) != 0)) {
        err = fault_errno(f, E_SYSTEM, "removing %s", crt);
    }
    return err;
}

/* --- the issuing half --------------------------------------------------------------------------------------------------------------------- */

enum grey_error authority_open(const char *dir, struct authority *a, struct fault *f) {
    struct cert_facts root;
    char path[PATH_BYTES];
    *a = (struct authority){0};
    enum grey_error err = read_pem(dir, "issuing.crt", &a->issuing, f);
    err = err != E_OK ? err : read_pem(dir, "issuing.key", &a->issuing_key, f);
    err = err != E_OK ? err : read_pem(dir, "ca.crt", &a->bundle, f);
    err = err != E_OK ? err : read_pem(dir, "root.crt", &a->root, f);
    err = err != E_OK ? err : keysign_open_pem((const char *)a->issuing_key.data, &a->signer, f);
    err = err != E_OK ? err : cert_read((const char *)a->root.data, &root, f);
    err = err != E_OK ? err : cert_verify((const char *)a->issuing.data, (const char *)a->root.data, f);
    if (err == E_OK && wholefile_exists(path_in(path, dir, "former.key"))) {
        err = read_pem(dir, "former.crt", &a->former, f);
        err = err != E_OK ? err : read_pem(dir, "former.key", &a->former_key, f);
        err = err != E_OK ? err : keysign_open_pem((const char *)a->former_key.data, &a->former_signer, f);
    }
    if (err != E_OK) {
        authority_close(a);
        return err;
    }
    memcpy(a->fingerprint, root.fingerprint, sizeof a->fingerprint);
    return E_OK;
}

void authority_close(struct authority *a) {
    keysign_close(&a->signer);
    keysign_close(&a->former_signer);
    builder_free(&a->former);
    wipe(&a->former_key);
    builder_free(&a->issuing);
    wipe(&a->issuing_key);
    builder_free(&a->bundle);
    builder_free(&a->root);
    *a = (struct authority){0};
}

bool authority_name(char out[LIMIT_NAME_BYTES + 1], const char *text) {
    if (text == NULL || !grey_name_valid(text, strlen(text))) {
        return false;
    }
    memcpy(out, text, strlen(text) + 1);
    return true;
}

bool authority_site_reserved(const char *site) {
    return strncmp(site, "grey-core", 9) == 0 || strncmp(site, "grey-broker", 11) == 0;
}

/* Of the issuing CA, over the key that asks; subject and uri: lent to it. */
static struct cert_request request(const struct authority *a, const struct csr_facts *asked, const char *subject, const char *uri,
                                   int64_t now_s, int64_t life_s) {
    return (struct cert_request){.subject = subject,
                                 .public_key = bytes_of(asked->public_key, asked->public_key_size),
                                 .issuer_pem = (const char *)a->issuing.data,
                                 .issuer_key_pem = (const char *)a->issuing_key.data,
                                 .names = {{CERT_NAME_URI, uri}},
                                 .name_count = 1,
                                 .not_before_s = now_s - (life_s / 10 < DAY_S ? life_s / 10 : DAY_S), /* for clocks that are slow */
                                 .not_after_s = now_s + life_s};
}

enum grey_error authority_sign(const struct authority *a, const struct csr_facts *asked, int64_t now_s, int64_t life_s,
                               struct builder *pem, struct fault *f) {
    char subject[LIMIT_NAME_BYTES + 8], uri[2 * LIMIT_NAME_BYTES + 16];
    if (authority_site_reserved(asked->site)) {
        return fault_set(f, E_CERT, "no site may be called '%s': the broker knows the core by such names", asked->site);
    }
    (void)snprintf(subject, sizeof subject, "CN=%s", asked->site);
    (void)snprintf(uri, sizeof uri, "grey://%s/%s", asked->site, asked->node);
    struct cert_request q = request(a, asked, subject, uri, now_s, life_s);
    q.roles = CERT_ROLE_GATEWAY;
    q.server = q.client = true;
    return cert_issue(&q, pem, f);
}

enum grey_error authority_delegate(const struct authority *a, const struct csr_facts *asked, int64_t now_s, int64_t life_s,
                                   struct builder *pem, struct fault *f) {
    struct cert_facts issuing;
    char subject[64], uri[2 * LIMIT_NAME_BYTES + 32];
    uint64_t number;
    enum grey_error err = cert_read((const char *)a->issuing.data, &issuing, f);
    if (err != E_OK || issuing.depth == 0) {
        return err;
    }
    keys_random(&number, sizeof number);
    (void)snprintf(subject, sizeof subject, "CN=Grey Edge delegation %016" PRIx64, number);
    (void)snprintf(uri, sizeof uri, VOUCH_ISSUER "%s/%s", asked->site, asked->node);
    int64_t end_s = now_s + (2 * life_s < DELEGATION_S_MAX ? 2 * life_s : DELEGATION_S_MAX);
    struct cert_request q = request(a, asked, subject, uri, now_s, life_s);
    q.authority = true;
    q.within = asked->site;
    q.not_after_s = end_s < issuing.not_after_s ? end_s : issuing.not_after_s;
    return cert_issue(&q, pem, f);
}

enum grey_error authority_list(const struct authority *a, const struct crl_entry *entries, size_t count, int64_t now_ms,
                               struct builder *pem, struct fault *f) {
    int64_t now_s = now_ms / 1000;
    struct crl_request q = {.issuer_pem = (const char *)a->issuing.data,
                            .issuer = &a->signer,
                            .number = (uint64_t)now_ms,
                            .this_s = now_s - 3600,
                            .next_s = now_s + AUTHORITY_LIST_DAYS * DAY_S,
                            .entries = entries,
                            .entry_count = count};
    enum grey_error err = crl_make(&q, pem, f);
    if (err == E_OK && a->former_signer.key != NULL) { /* who checks lists refuses those whose issuer has none */
        q.issuer_pem = (const char *)a->former.data;
        q.issuer = &a->former_signer;
        err = crl_make(&q, pem, f);
    }
    return err;
}

/* A person or a program that uses the APIs (federation/access.h).  No site can be of that subject: a broker gives a CN its topics. */
static enum grey_error issue_user(const char *dir, const char *name, const char *role_text, const char *prefix, struct fault *f) {
    struct authority a;
    enum access_role role;
    char subject[LIMIT_NAME_BYTES + 16], uri[32];
    if (name == NULL || role_text == NULL || !grey_name_valid(name, strlen(name)) ||
        !access_role_parse(bytes_str(role_text), &role)) {
        return fault_set(f, E_USAGE, "a user's certificate wants --name, and --role viewer, operator or admin");
    }
    (void)snprintf(subject, sizeof subject, "CN=user:%s", name);
    (void)snprintf(uri, sizeof uri, "grey-role:%s", access_role_name(role));
    enum grey_error err = authority_open(dir, &a, f);
    if (err == E_OK) {
        int64_t now_s = now_wall_ms() / 1000;
        struct cert_request q = {.subject = subject,
                                 .issuer_pem = (const char *)a.issuing.data,
                                 .issuer_key_pem = (const char *)a.issuing_key.data,
                                 .names = {{CERT_NAME_URI, uri}},
                                 .name_count = 1,
                                 .client = true,
                                 .not_before_s = now_s - DAY_S,
                                 .not_after_s = now_s + SERVER_DAYS * DAY_S};
        err = make_pair(&q, prefix, f);
    }
    authority_close(&a);
    return err;
}

/* kind "broker" or "core": writes PREFIX.key and PREFIX.crt for a server of this machine, with names localhost and 127.0.0.1 and, unless it is "",
 * the host's. */
static enum grey_error issue_server(const char *dir, const char *kind, const char *host, const char *prefix, struct fault *f) {
    struct authority a;
    bool core = strcmp(kind, "core") == 0;
    if (!core && strcmp(kind, "broker") != 0) {
        return fault_set(f, E_USAGE, "'%.40s' is not broker or core", kind);
    }
    enum grey_error err = authority_open(dir, &a, f);
    if (err == E_OK) {
        int64_t now_s = now_wall_ms() / 1000;
        struct cert_request q = {.subject = core ? "CN=grey-core" : "CN=grey-broker",
                                 .issuer_pem = (const char *)a.issuing.data,
                                 .issuer_key_pem = (const char *)a.issuing_key.data,
                                 .roles = core ? CERT_ROLE_CORE : CERT_ROLE_BROKER,
                                 .server = true,
                                 .client = core,
                                 .not_before_s = now_s - DAY_S,
                                 .not_after_s = now_s + SERVER_DAYS * DAY_S};
        q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, "localhost"};
        q.names[q.name_count++] = (struct cert_name){CERT_NAME_IP, "127.0.0.1"};
        if (host[0] != 0) {
            q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, host};
        }
        err = make_pair(&q, prefix, f);
    }
    authority_close(&a);
    return err;
}

enum grey_error authority_serve(const char *dir, const char *host, const char *prefix, struct fault *f) {
    char path[PATH_BYTES];
    struct builder all;
    builder_init(&all, 2u * PEM_BYTES_MAX);
    enum grey_error err = issue_server(dir, "core", host, prefix, f);
    (void)snprintf(path, sizeof path, "%.1000s.crt", prefix);
    err = err != E_OK ? err : wholefile_read(path, &all, f);
    if (err == E_OK) {
        char bundle[PATH_BYTES];
        all.size--;
        err = wholefile_read(path_in(bundle, dir, "ca.crt"), &all, f);
    }
    err = err != E_OK ? err : wholefile_write(path, bytes_of(all.data, all.size - 1), 0644, f);
    builder_free(&all);
    return err;
}

/* --- command line ------------------------------------------------------------------------------------------------------------------------- */

/* A request that came by hand: who brings it here may read the issuing key, so names are what he says. */
static enum grey_error sign_file(const char *dir, const char *csr, const char *site, const char *node, int64_t days,
                                 const char *out, struct fault *f) {
    struct authority a;
    struct builder request, cert;
    struct csr_facts asked;
    builder_init(&request, CSR_PEM_BYTES_MAX + 1);
    builder_init(&cert, PEM_BYTES_MAX);
    enum grey_error err = authority_open(dir, &a, f);
    err = err != E_OK ? err : wholefile_read(csr, &request, f);
    err = err != E_OK ? err : csr_read(bytes_of(request.data, request.size - 1), &asked, f);
    if (err == E_OK && (strcmp(asked.site, site) != 0 || strcmp(asked.node, node) != 0)) {
        err = fault_set(f, E_CERT, "%.100s asks for node '%s' of site '%s'", csr, asked.node, asked.site);
    }
    err = err != E_OK ? err : authority_sign(&a, &asked, now_wall_ms() / 1000, days * DAY_S, &cert, f);
    err = err != E_OK ? err : wholefile_write(out, builder_bytes(&cert), 0644, f);
    builder_free(&request);
    builder_free(&cert);
    authority_close(&a);
    return err;
}

static const char usage[] = "usage: grey-core ca init|rotate|promote --dir DIR\n"
                            "       grey-core ca broker|core --dir DIR --out PREFIX [--host NAME]\n"
                            "       grey-core ca sign --dir DIR --csr FILE --site S --node N --out FILE [--days N]\n"
                            "       grey-core ca user --dir DIR --name NAME --role viewer|operator|admin --out PREFIX\n";

int authority_command(int argc, char **argv) {
    const char *dir = NULL, *site = NULL, *node = NULL, *out = NULL, *host = "", *csr = NULL, *days_text = NULL, *name = NULL,
               *role = NULL;
    struct fault f = {0};
    const struct {
        const char *name;
        const char **value;
    } flags[] = {{"--dir", &dir}, {"--site", &site},      {"--node", &node}, {"--out", &out},  {"--host", &host},
                 {"--csr", &csr}, {"--days", &days_text}, {"--name", &name}, {"--role", &role}};
    bool ok = argc >= 1;
    for (int i = 1; ok && i < argc; i += 2) {
        ok = false;
        for (size_t k = 0; k < sizeof flags / sizeof flags[0] && i + 1 < argc; k++) {
            if (strcmp(argv[i], flags[k].name) == 0) {
                *flags[k].value = argv[i + 1];
                ok = true;
            }
        }
    }
    int64_t days = days_text == NULL ? GATEWAY_DAYS : strtoll(days_text, NULL, 10);
    const char *verb = ok && dir != NULL && days >= 1 && days <= GATEWAY_DAYS_MAX ? argv[0] : "";
    enum grey_error err = E_USAGE;
    if (strcmp(verb, "init") == 0) {
        err = authority_init(dir, &f);
    } else if (strcmp(verb, "rotate") == 0) {
        err = authority_rotate(dir, &f);
    } else if (strcmp(verb, "promote") == 0) {
        err = authority_promote(dir, &f);
    } else if (strcmp(verb, "sign") == 0 && csr != NULL && site != NULL && node != NULL && out != NULL) {
        err = sign_file(dir, csr, site, node, days, out, &f);
    } else if ((strcmp(verb, "broker") == 0 || strcmp(verb, "core") == 0) && out != NULL) {
        err = issue_server(dir, verb, host, out, &f);
    } else if (strcmp(verb, "user") == 0 && out != NULL) {
        err = issue_user(dir, name, role, out, &f);
    } else {
        ok = false;
    }
    if (!ok) {
        (void)fputs(usage, stderr);
        return 2;
    }
    if (err != E_OK) {
        (void)fprintf(stderr, "grey-core: %s (GREY-%d): %s\n  -> %s\n", error_sentence(err), error_id(err), f.text,
                      error_remedy(err));
        return 1;
    }
    return 0;
}
