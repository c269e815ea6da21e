#include "agent/ctl/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/grey/ids.h"
#include "platform/keys.h"
#include "platform/yaml.h"

#define FILE_BYTES_MAX 16384u

static const struct {
    const char *name;
    size_t at, size;
    bool is_path;
} members[] = {
#define MEMBER(name, is_path)                                                                                                      \
    { #name, offsetof(struct profile, name), sizeof(((struct profile *)0)->name), is_path }
    MEMBER(addr, false),   MEMBER(core, false), MEMBER(token, false), MEMBER(core_token, false), MEMBER(ca, true),
    MEMBER(core_ca, true), MEMBER(cert, true),  MEMBER(key, true),    MEMBER(site, false),
};

static enum grey_error find_dir(char *out, size_t size, struct fault *f) {
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    bool said = config != NULL && config[0] == '/';
    int n = said ? snprintf(out, size, "%s/greyctl", config) : snprintf(out, size, "%s/.config/greyctl", home == NULL ? "" : home);
    return n > 0 && (size_t)n < size ? E_OK : fault_set(f, E_CONFIG, "$HOME is too long");
}

/* Looked at through the descriptor: what is checked is what is read. */
static enum grey_error check_owner(int fd, const char *path, struct fault *f) {
    struct stat s;
    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) {
        return fault_set(f, E_CONFIG, "%.200s is not a file", path);
    }
    if (s.st_uid != geteuid() && s.st_uid != 0) {
        return fault_set(f, E_CONFIG, "%.160s belongs to user %u, who could change it: make one of your own", path,
                         (unsigned)s.st_uid);
    }
    if ((s.st_mode & 077) != 0) {
        return fault_set(f, E_CONFIG, "%.100s may be read by others (mode %04o), and holds a token: chmod 600 %.100s", path,
                         (unsigned)(s.st_mode & 07777), path);
    }
    return E_OK;
}

static enum grey_error take(struct profile *p, const char *dir, const struct yaml_node *n, struct fault *f) {
    struct bytes value;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (!bytes_equal_str(n->key, members[i].name)) {
            continue;
        }
        enum grey_error err = yaml_text(n, &value, f);
        if (err != E_OK) {
            return err;
        }
        char *out = (char *)p + members[i].at;
        bool relative = members[i].is_path && value.size > 0 && value.data[0] != '/';
        int size = snprintf(out, members[i].size, "%s%s%.*s", relative ? dir : "", relative ? "/" : "", (int)value.size,
                            value.data == NULL ? "" : (const char *)value.data);
        bool whole = size >= 0 && (size_t)size < members[i].size && strpbrk(out, "\r\n") == NULL;
        return whole ? E_OK : yaml_fault(n, f, "%s is too long or of several lines", members[i].name);
    }
    return yaml_fault(n, f, "unknown key '%.40s'; addr, core, token, core_token, ca, core_ca, cert, key and site are known",
                      (const char *)n->key.data);
}

static enum grey_error read_file(struct profile *p, const char *dir, const char *path, bool must_exist, struct fault *f) {
    uint8_t room[FILE_BYTES_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT && !must_exist ? E_OK : fault_errno(f, E_CONFIG, "%.200s", path);
    }
    enum grey_error err = check_owner(fd, path, f);
    ssize_t got = err == E_OK ? read(fd, room, sizeof room) : 0;
    (void)close(fd);
    if (err == E_OK && (got < 0 || (size_t)got == sizeof room)) {
        err = fault_set(f, E_CONFIG, "%.200s cannot be read, or is too large", path);
    }
    if (err != E_OK) {
        return err;
    }
    struct fault inner = {0};
    struct yaml_doc *doc = yaml_read(bytes_of(room, (size_t)got), &inner);
    const struct yaml_node *root = doc == NULL ? NULL : yaml_root(doc);
    err = doc == NULL ? E_CONFIG : E_OK;
    for (const struct yaml_node *n = root == NULL ? NULL : root->first; n != NULL && err == E_OK; n = n->next) {
        err = take(p, dir, n, &inner);
    }
    yaml_doc_free(doc);
    keys_wipe(room, sizeof room);
    return err == E_OK ? E_OK : fault_set(f, E_CONFIG, "%.100s: %.140s", path, inner.text);
}

static void take_variable(const char *name, char *out, size_t size) {
    const char *value = getenv(name);
    if (value != NULL && value[0] != 0 && strlen(value) < size && strpbrk(value, "\r\n") == NULL) {
        memcpy(out, value, strlen(value) + 1);
    }
}

enum grey_error profile_read(struct profile *p, const char *name, struct fault *f) {
    char dir[LIMIT_PATH_BYTES - 80], path[LIMIT_PATH_BYTES + 1];
    memset(p, 0, sizeof *p);
    name = name != NULL ? name : getenv("GREY_PROFILE");
    bool said = name != NULL && name[0] != 0;
    if (said && !grey_name_valid(name, strlen(name))) {
        return fault_set(f, E_CONFIG, "the name of a profile has 1 to 64 letters, digits, '.', '_' or '-'");
    }
    enum grey_error err = find_dir(dir, sizeof dir, f);
    if (err == E_OK) {
        (void)snprintf(path, sizeof path, "%s/%s.yaml", dir, said ? name : "default");
        err = read_file(p, dir, path, said, f);
    }
    take_variable("GREY_TOKEN", p->token, sizeof p->token);
    take_variable("GREY_CORE_TOKEN", p->core_token, sizeof p->core_token);
    return err;
}
