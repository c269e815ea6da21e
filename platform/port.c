#include "platform/port.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* /proc/net/tcp: "sl local_address rem_address st ... inode"; state 0A listens. */
static uint64_t listening_inode(const char *file, uint16_t port) {
    FILE *f = fopen(file, "re");
    char line[512];
    uint64_t found = 0;
    while (f != NULL && found == 0 && fgets(line, sizeof line, f) != NULL) {
        unsigned local_port, state;
        uint64_t inode;
        if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %" SCNu64, &local_port, &state, &inode) ==
                3 &&
            local_port == port && state == 0x0a) {
            found = inode;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return found;
}

static bool holds(const char *pid, const char *wanted) {
    char path[64], link[300], target[64];
    (void)snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
    DIR *fds = opendir(path);
    bool found = false;
    struct dirent *fd;
    while (fds != NULL && !found && (fd = readdir(fds)) != NULL) {
        (void)snprintf(link, sizeof link, "%s/%.200s", path, fd->d_name);
        ssize_t size = readlink(link, target, sizeof target - 1);
        if (size > 0) {
            target[size] = 0;
            found = strcmp(target, wanted) == 0;
        }
    }
    if (fds != NULL) {
        (void)closedir(fds);
    }
    return found;
}

void port_owner(uint16_t port, char *out, size_t out_size) {
    char wanted[40], path[64], name[32] = "";
    out[0] = 0;
    uint64_t inode = listening_inode("/proc/net/tcp", port);
    inode = inode != 0 ? inode : listening_inode("/proc/net/tcp6", port);
    DIR *processes = inode == 0 ? NULL : opendir("/proc");
    (void)snprintf(wanted, sizeof wanted, "socket:[%" PRIu64 "]", inode);
    struct dirent *p;
    while (processes != NULL && out[0] == 0 && (p = readdir(processes)) != NULL) {
        if (!isdigit((unsigned char)p->d_name[0]) || !holds(p->d_name, wanted)) {
            continue;
        }
        (void)snprintf(path, sizeof path, "/proc/%.20s/comm", p->d_name);
        FILE *f = fopen(path, "re");
        if (f != NULL) {
            if (fgets(name, sizeof name, f) != NULL) {
                name[strcspn(name, "\n")] = 0;
            }
            (void)fclose(f);
        }
        (void)snprintf(out, out_size, "%s (pid %.20s)", name[0] != 0 ? name : "a process", p->d_name);
    }
    if (processes != NULL) {
        (void)closedir(processes);
    }
}
