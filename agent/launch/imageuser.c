#include "agent/launch/imageuser.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/bytes.h"

#define FILE_BYTES_MAX (1024u * 1024u)
#define NAME_BYTES_MAX 256u
#define NUMBER_MAX (UINT32_MAX - 1u) /* the one above means "none" to the kernel */

/* False: it is no number; one that is too large is refused by whoever looks for it as a name. */
static bool number_of(const char *text, uint32_t *out) {
    char *end = NULL;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 10 || text[digits] != 0) {
        return false;
    }
    unsigned long long value = strtoull(text, &end, 10);
    *out = (uint32_t)value;
    return value <= NUMBER_MAX;
}

/* The whole file, with a 0 behind it; empty when there is none. */
static void read_inside(const char *root, const char *path, struct builder *out) {
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = folder < 0 ? -1 : (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
    struct stat st;
    uint8_t room[4096];
    ssize_t got;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        while ((got = read(fd, room, sizeof room)) > 0) {
            builder_add(out, bytes_of(room, (size_t)got));
        }
    }
    builder_add(out, bytes_of((const uint8_t *)"", 1));
    if (fd >= 0) {
        (void)close(fd);
    }
    if (folder >= 0) {
        (void)close(folder);
    }
}

/* The line NAME:x:NUMBER:NUMBER... (passwd(5), group(5)) of that name, or of that first number; false: there is none. */
static bool line_of(char *text, const char *name, const uint32_t *number, uint32_t found[2]) {
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        const char *is = strsep(&line, ":");
        (void)strsep(&line, ":"); /* the password's place */
        const char *first = strsep(&line, ":"), *second = strsep(&line, ":");
        if (first == NULL || !number_of(first, &found[0]) || (number == NULL ? strcmp(is, name) != 0 : found[0] != *number)) {
            continue;
        }
        found[1] = 0;
        (void)(second != NULL && number_of(second, &found[1])); /* a group has members there, and nobody asks */
        return true;
    }
    return false;
}

static bool look_up(const char *root, const char *path, const char *name, const uint32_t *number, uint32_t found[2]) {
    struct builder text;
    builder_init(&text, FILE_BYTES_MAX);
    read_inside(root, path, &text);
    bool is = text.err == E_OK && line_of((char *)text.data, name, number, found);
    builder_free(&text);
    return is;
}

bool imageuser_find(const char *text, const char *root, struct imageuser *u, struct fault *f) {
    char user[NAME_BYTES_MAX];
    uint32_t found[2] = {0, 0};
    *u = (struct imageuser){0, 0};
    if (text == NULL || text[0] == 0) {
        return true;
    }
    if ((size_t)snprintf(user, sizeof user, "%s", text) >= sizeof user) {
        (void)fault_set(f, E_TOO_LARGE, "the image's User has more than %u bytes", NAME_BYTES_MAX - 1);
        return false;
    }
    char *group = strchr(user, ':');
    if (group != NULL) {
        *group++ = 0;
    }
    bool numbered = number_of(user, &u->uid);
    bool listed = look_up(root, "etc/passwd", user, numbered ? &u->uid : NULL, found);
    if (!numbered && !listed && strcmp(user, "root") != 0) {
        (void)fault_set(f, E_NOT_FOUND, "the image's User: there is no %s in its /etc/passwd", user);
        return false;
    }
    if (listed) {
        u->uid = found[0];
        u->gid = found[1];
    }
    if (group == NULL || group[0] == 0 || number_of(group, &u->gid)) {
        return true;
    }
    if (!look_up(root, "etc/group", group, NULL, found)) {
        (void)fault_set(f, E_NOT_FOUND, "the image's User: there is no group %s in its /etc/group", group);
        return false;
    }
    u->gid = found[0];
    return true;
}
