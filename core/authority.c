#include "core/authority.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "federation/access.h"
#include "include/grey/ids.h"
#include "include/grey/limits.h"
#include "platform/cert.h"
#include "platform/keyfile.h"
#include "platform/keys.h"
#include "platform/now.h"

#define DAY_S 86400
#define CA_DAYS 3650
#define CERT_DAYS 365
#define PEM_BYTES_MAX 16384u

static enum grey_error write_file(const char *path, struct bytes text, mode_t mode, struct fault *f) {
    char temporary[LIMIT_PATH_BYTES + 8];
    (void)snprintf(temporary, sizeof temporary, "%.1000s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0) {
        return fault_errno(f, E_SYSTEM, "%s", temporary);
    }
    bool ok = write(fd, text.data, text.size) == (ssize_t)text.size && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    ok = close(fd) == 0 && ok && rename(temporary, path) == 0;
    return ok ? E_OK : fault_errno(f, E_SYSTEM, "%s", path);
}

/* Appends the file and a NUL, so that the builder holds a C string. */
static enum grey_error read_file(const char *path, struct builder *out, struct fault *f) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fault_errno(f, E_CERT, "%s", path);
    }
    uint8_t room[2048];
    ssize_t got;
    while ((got = read(fd, room, sizeof room)) > 0) {
        builder_add(out, bytes_of(room, (size_t)got));
    }
    enum grey_error err = got < 0 ? fault_errno(f, E_CERT, "%s", path) : E_OK;
    (void)close(fd);
    builder_add_byte(out, 0);
    return err != E_OK ? err : out->err;
}

/* A key and its certificate, into PREFIX.key and PREFIX.crt; the key first, so that no certificate is ever without it. */
static enum grey_error make_pair(struct cert_request *q, const char *prefix, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 8];
    struct builder key, cert;
    builder_init(&key, PEM_BYTES_MAX);
    builder_init(&cert, PEM_BYTES_MAX);
    enum grey_error err = keys_new_p256(&key, f);
    if (err == E_OK) {
        struct bytes text = builder_bytes(&key);
        (void)snprintf(path, sizeof path, "%.1000s.key", prefix);
        err = write_file(path, text, 0600, f);
    }
    if (err == E_OK) {
        builder_add_byte(&key, 0);
        q->key_pem = (const char *)key.data;
        err = cert_issue(q, &cert, f);
    }
    if (err == E_OK) {
        (void)snprintf(path, sizeof path, "%.1000s.crt", prefix);
        err = write_file(path, builder_bytes(&cert), 0644, f);
    }
    if (key.data != NULL) {
        memset(key.data, 0, key.size);
    }
    builder_free(&key);
    builder_free(&cert);
    return err;
}

enum grey_error authority_init(const char *dir, struct fault *f) {
    char prefix[LIMIT_PATH_BYTES + 8], path[LIMIT_PATH_BYTES + 16];
    if (mkdir(dir, 0755) != 0 && errno != EEXIST) {
        return fault_errno(f, E_SYSTEM, "%s", dir);
    }
    struct keyfile sign; /* with it cores sign what they give; gateways are told its public half */
    enum grey_error err = keyfile_open(dir, KEYFILE_CORE_SECRET, &sign, f);
    err = err == E_OK ? keyfile_put_public(dir, KEYFILE_CORE_PUBLIC, &sign, f) : err;
    memset(&sign, 0, sizeof sign);
    if (err != E_OK) {
        return err;
    }
    (void)snprintf(prefix, sizeof prefix, "%.1000s/ca", dir);
    (void)snprintf(path, sizeof path, "%s.crt", prefix);
    if (access(path, F_OK) == 0) {
        return E_OK;
    }
    int64_t now_s = now_wall_ms() / 1000;
    struct cert_request q = {
        .subject = "CN=Grey Edge development CA", .not_before_s = now_s - DAY_S, .not_after_s = now_s + (int64_t)CA_DAYS * DAY_S};
    return make_pair(&q, prefix, f);
}

enum grey_error authority_issue(const char *dir, const char *kind, const char *site, const char *node, const char *prefix,
                                struct fault *f) {
    char path[LIMIT_PATH_BYTES + 16], subject[LIMIT_NAME_BYTES + 8], uri[2 * LIMIT_NAME_BYTES + 16];
    bool gateway = strcmp(kind, "gateway") == 0;
    if (gateway && (!grey_name_valid(site, strlen(site)) || !grey_name_valid(node, strlen(node)))) {
        return fault_set(f, E_USAGE, "a gateway's certificate wants --site and --node: 1 to 64 letters, digits, '.', '_' or '-'");
    }
    bool user = strcmp(kind, "user") == 0;
    enum access_role role;
    if (user && (!grey_name_valid(site, strlen(site)) || !access_role_parse(bytes_str(node), &role))) {
        return fault_set(f, E_USAGE, "a user's certificate wants --name, and --role viewer, operator or admin");
    }
    if (!gateway && !user && strcmp(kind, "broker") != 0 && strcmp(kind, "core") != 0) {
        return fault_set(f, E_USAGE, "'%.40s' is not broker, core, gateway or user", kind);
    }
    struct builder ca_cert, ca_key;
    builder_init(&ca_cert, PEM_BYTES_MAX);
    builder_init(&ca_key, PEM_BYTES_MAX);
    (void)snprintf(path, sizeof path, "%.1000s/ca.crt", dir);
    enum grey_error err = read_file(path, &ca_cert, f);
    (void)snprintf(path, sizeof path, "%.1000s/ca.key", dir);
    err = err != E_OK ? err : read_file(path, &ca_key, f);
    if (err == E_OK) {
        int64_t now_s = now_wall_ms() / 1000;
        (void)snprintf(subject, sizeof subject, "CN=%s%s",
                       user ? "user:" : "", /* no site can be of that name: a broker gives a CN its topics */
                       gateway || user             ? site
                       : strcmp(kind, "core") == 0 ? "grey-core"
                                                   : "grey-broker");
        struct cert_request q = {.subject = subject,
                                 .issuer_pem = (const char *)ca_cert.data,
                                 .issuer_key_pem = (const char *)ca_key.data,
                                 .server = !user && strcmp(kind, "core") != 0,
                                 .client = strcmp(kind, "broker") != 0,
                                 .not_before_s = now_s - DAY_S,
                                 .not_after_s = now_s + (int64_t)CERT_DAYS * DAY_S};
        if (!user) {
            q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, "localhost"};
            q.names[q.name_count++] = (struct cert_name){CERT_NAME_IP, "127.0.0.1"};
        }
        if (gateway) {
            (void)snprintf(uri, sizeof uri, "grey://%s/%s", site, node);
            q.names[q.name_count++] = (struct cert_name){CERT_NAME_URI, uri};
        }
        if (user) { /* a person or a program that uses the API: federation/access.h */
            (void)snprintf(uri, sizeof uri, "grey-role:%s", node);
            q.names[q.name_count++] = (struct cert_name){CERT_NAME_URI, uri};
        }
        err = make_pair(&q, prefix, f);
    }
    if (ca_key.data != NULL) {
        memset(ca_key.data, 0, ca_key.size);
    }
    builder_free(&ca_cert);
    builder_free(&ca_key);
    return err;
}

int authority_command(int argc, char **argv) {
    static const char usage[] = "usage: grey-core ca init --dir DIR\n"
                                "       grey-core ca broker|core --dir DIR --out PREFIX\n"
                                "       grey-core ca gateway --dir DIR --site S --node N --out PREFIX\n"
                                "       grey-core ca user --dir DIR --name NAME --role viewer|operator|admin --out PREFIX\n";
    const char *dir = NULL, *site = "", *node = "", *out = NULL;
    struct fault f = {0};
    bool ok = argc >= 1;
    for (int i = 1; ok && i < argc; i += 2) {
        const struct {
            const char *name;
            const char **value;
        } flags[] = {{"--dir", &dir}, {"--site", &site}, {"--node", &node}, {"--name", &site}, {"--role", &node}, {"--out", &out}};
        ok = false;
        for (size_t k = 0; k < sizeof flags / sizeof flags[0] && i + 1 < argc; k++) {
            if (strcmp(argv[i], flags[k].name) == 0) {
                *flags[k].value = argv[i + 1];
                ok = true;
            }
        }
    }
    bool init = ok && strcmp(argv[0], "init") == 0;
    if (!ok || dir == NULL || (!init && out == NULL)) {
        (void)fputs(usage, stderr);
        return 2;
    }
    enum grey_error err = init ? authority_init(dir, &f) : authority_issue(dir, argv[0], site, node, out, &f);
    if (err != E_OK) {
        (void)fprintf(stderr, "grey-core: %s (GREY-%d): %s\n", error_sentence(err), error_id(err), f.text);
        return err == E_USAGE ? 2 : 1;
    }
    return 0;
}
