#include "agent/launch/cage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PERIOD_US 100000u
#define QUOTA_US_MIN 1000u /* less the kernel refuses */
#define FILE_BYTES_MAX 65536u
#define PATH_BYTES (CAGE_PATH_BYTES + 160u)
#define DISKS "/sys/block"

static const char *const controllers[CAGE_CONTROLLERS] = {"cpu", "memory", "pids", "blkio"};

static bool read_text(const char *path, char *out, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t have = 0;
    ssize_t got = 0;
    while (have + 1 < size && (got = read(fd, out + have, size - 1 - have)) > 0) {
        have += (size_t)got;
    }
    out[have] = 0;
    (void)close(fd);
    return got >= 0;
}

static bool write_text(const char *folder, const char *file, const char *text) {
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t size = strlen(text);
    bool well = write(fd, text, size) == (ssize_t)size;
    (void)close(fd);
    return well;
}

/* Is `word` an item of the comma or blank separated list? */
static bool lists(const char *list, const char *word) {
    size_t size = strlen(word);
    for (const char *at = strstr(list, word); at != NULL; at = strstr(at + 1, word)) {
        bool begins = at == list || at[-1] == ',' || at[-1] == ' ';
        if (begins && (at[size] == 0 || strchr(", \n", at[size]) != NULL)) {
            return true;
        }
    }
    return false;
}

/* --- Where our groups may be ---------------------------------------------------------------------------------------------------------- */

/* This process's group in the hierarchy with that controller; "" names the one of v2. */
static bool own_group(const char *controller, char *out, size_t size) {
    char text[FILE_BYTES_MAX], *rest = text;
    if (!read_text("/proc/self/cgroup", text, sizeof text)) {
        return false;
    }
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        char *names = strchr(line, ':'), *path = names == NULL ? NULL : strchr(names + 1, ':');
        if (path == NULL) {
            continue;
        }
        *path++ = 0;
        if (controller[0] == 0 ? names[1] == 0 : lists(names + 1, controller)) {
            (void)snprintf(out, size, "%s", path);
            return true;
        }
    }
    return false;
}

/* Mount point of that hierarchy, and which group is at its top. */
static bool mount_of(const char *controller, char *point, char *top, size_t size) {
    char text[FILE_BYTES_MAX], *rest = text;
    if (!read_text("/proc/self/mountinfo", text, sizeof text)) {
        return false;
    }
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        char *tail = strstr(line, " - "), root[CAGE_PATH_BYTES / 2], at[CAGE_PATH_BYTES / 2], type[16], options[256];
        if (tail == NULL || sscanf(line, "%*s %*s %*s %255s %255s", root, at) != 2 ||
            sscanf(tail, " - %15s %*s %255s", type, options) != 2) {
            continue;
        }
        if (controller[0] == 0 ? strcmp(type, "cgroup2") == 0 : strcmp(type, "cgroup") == 0 && lists(options, controller)) {
            (void)snprintf(point, size, "%s", at);
            (void)snprintf(top, size, "%s", strcmp(root, "/") == 0 ? "" : root);
            return true;
        }
    }
    return false;
}

static bool folder_of(const char *controller, char *out) {
    char group[CAGE_PATH_BYTES / 2], point[CAGE_PATH_BYTES / 2], top[CAGE_PATH_BYTES / 2];
    if (!own_group(controller, group, sizeof group) || !mount_of(controller, point, top, sizeof point)) {
        return false;
    }
    bool below = strncmp(group, top, strlen(top)) == 0;
    const char *rest = below ? group + strlen(top) : "";
    (void)snprintf(out, CAGE_PATH_BYTES, "%s%s", point, strcmp(rest, "/") == 0 ? "" : rest);
    return access(out, W_OK) == 0;
}

/* v2 gives its controllers to groups of a group without processes of its own, so the launcher moves into one beside them. */
static bool delegate(const char *base) {
    static const char *const wanted = "+cpu +memory +pids";
    char own[PATH_BYTES];
    bool given = write_text(base, "cgroup.subtree_control", wanted);
    if (!given) {
        (void)snprintf(own, sizeof own, "%s/launcher", base);
        given = (mkdir(own, 0755) == 0 || errno == EEXIST) && write_text(own, "cgroup.procs", "0") &&
                write_text(base, "cgroup.subtree_control", wanted);
    }
    if (given) {
        (void)write_text(base, "cgroup.subtree_control", "+io"); /* told by cage_find when it is not there */
    }
    return given;
}

static bool has_io(const char *base) {
    char path[PATH_BYTES], text[1024];
    (void)snprintf(path, sizeof path, "%s/cgroup.subtree_control", base);
    return read_text(path, text, sizeof text) && lists(text, "io");
}

static bool has_controllers(const char *base) {
    char path[PATH_BYTES], text[1024];
    (void)snprintf(path, sizeof path, "%s/cgroup.controllers", base);
    bool all = read_text(path, text, sizeof text);
    for (unsigned i = 0; i < CAGE_IO; i++) {
        all = all && lists(text, controllers[i]);
    }
    return all;
}

void cage_find(struct cages *c, const char *name, char *missing, size_t missing_size) {
    *c = (struct cages){.kind = LAUNCH_LIMITS_RLIMITS};
    (void)snprintf(c->prefix, sizeof c->prefix, "grey-%.16s-", name);
    if (missing != NULL) {
        missing[0] = 0;
    }
    if (folder_of("", c->base[0]) && has_controllers(c->base[0]) && delegate(c->base[0])) {
        c->kind = LAUNCH_LIMITS_CGROUP2;
        if (missing != NULL && !has_io(c->base[0])) {
            (void)snprintf(missing, missing_size, "io");
        }
        return;
    }
    for (unsigned i = 0; i < CAGE_CONTROLLERS; i++) {
        if (folder_of(controllers[i], c->base[i])) {
            c->kind = i < CAGE_IO ? LAUNCH_LIMITS_CGROUP1 : c->kind; /* it alone makes no cage */
        } else {
            c->base[i][0] = 0;
            if (missing != NULL) {
                size_t used = strlen(missing);
                (void)snprintf(missing + used, missing_size - used, "%s%s", used > 0 ? ", " : "", controllers[i]);
            }
        }
    }
}

/* --- Groups ------------------------------------------------------------------------------------------------------------------------------ */

static unsigned folders(const struct cages *c) {
    return c->kind == LAUNCH_LIMITS_CGROUP2 ? 1 : c->kind == LAUNCH_LIMITS_CGROUP1 ? CAGE_CONTROLLERS : 0;
}

/* The group's folder of one controller; false: there is none. */
static bool path_of(const struct cages *c, const char *name, unsigned i, char *out) {
    const char *base = c->base[c->kind == LAUNCH_LIMITS_CGROUP2 ? 0 : i];
    (void)snprintf(out, PATH_BYTES, "%s/%s", base, name);
    return base[0] != 0;
}

static bool set(const struct cage *g, unsigned controller, const char *file, uint64_t a, uint64_t b) {
    char path[PATH_BYTES], text[64];
    (void)snprintf(text, sizeof text, b > 0 ? "%" PRIu64 " %" PRIu64 : "%" PRIu64, a, b);
    return !path_of(g->all, g->name, controller, path) || write_text(path, file, text);
}

static bool bound(const struct cage *g, uint32_t cpu_millicores, uint64_t memory_bytes) {
    bool v2 = g->all->kind == LAUNCH_LIMITS_CGROUP2, well = true;
    uint64_t quota_us = (uint64_t)cpu_millicores * (PERIOD_US / 1000u);
    quota_us = quota_us < QUOTA_US_MIN ? QUOTA_US_MIN : quota_us;
    if (cpu_millicores > 0) {
        well = v2 ? set(g, CAGE_CPU, "cpu.max", quota_us, PERIOD_US)
                  : set(g, CAGE_CPU, "cpu.cfs_period_us", PERIOD_US, 0) && set(g, CAGE_CPU, "cpu.cfs_quota_us", quota_us, 0);
    }
    if (memory_bytes > 0) {
        well = well && set(g, CAGE_MEMORY, v2 ? "memory.max" : "memory.limit_in_bytes", memory_bytes, 0);
        if (v2) {
            (void)set(g, CAGE_MEMORY, "memory.swap.max", 0, 0); /* absent without swap accounting */
        }
    }
    return well && set(g, CAGE_PIDS, "pids.max", CAGE_PIDS_MAX, 0);
}

/* Whole disks: the kernel takes no others. */
bool cage_bound_io(const struct cage *g, uint64_t read_bps, uint64_t write_bps) {
    bool v2 = g->all->kind == LAUNCH_LIMITS_CGROUP2, any = false, well = true;
    char path[PATH_BYTES], text[64], line[160];
    DIR *disks = folders(g->all) == 0 || !path_of(g->all, g->name, CAGE_IO, path) ? NULL : opendir(DISKS);
    for (struct dirent *e = disks == NULL ? NULL : readdir(disks); e != NULL; e = readdir(disks)) {
        char name[PATH_BYTES];
        (void)snprintf(name, sizeof name, DISKS "/%.100s/size", e->d_name);
        if (e->d_name[0] == '.' || !read_text(name, text, sizeof text) || strtoull(text, NULL, 10) == 0) {
            continue; /* a drive without a medium, a loop device without a file */
        }
        (void)snprintf(name, sizeof name, DISKS "/%.100s/dev", e->d_name);
        if (!read_text(name, text, sizeof text)) {
            continue;
        }
        text[strcspn(text, "\n")] = 0;
        const struct {
            const char *key, *file;
            uint64_t bps;
        } ways[] = {{"rbps", "blkio.throttle.read_bps_device", read_bps}, {"wbps", "blkio.throttle.write_bps_device", write_bps}};
        for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
            if (ways[i].bps > 0) {
                (void)snprintf(line, sizeof line, "%s %s%s%" PRIu64, text, v2 ? ways[i].key : "", v2 ? "=" : "", ways[i].bps);
                bool set_here = write_text(path, v2 ? "io.max" : ways[i].file, line);
                well = well && set_here;
                any = any || set_here;
            }
        }
    }
    if (disks != NULL) {
        (void)closedir(disks);
    }
    return any && well;
}

enum grey_error cage_make(struct cage *g, const struct cages *c, uint64_t scope, uint64_t token, uint32_t cpu_millicores,
                          uint64_t memory_bytes, struct fault *f) {
    char path[PATH_BYTES];
    g->all = c;
    (void)snprintf(g->name, sizeof g->name, "%s%" PRIx64 "-%" PRIu64, c->prefix, scope, token);
    for (unsigned i = 0; i < folders(c); i++) {
        if (path_of(c, g->name, i, path) && mkdir(path, 0755) != 0 && errno != EEXIST) {
            (void)fault_errno(f, E_SYSTEM, "%s", path);
            (void)cage_remove(g);
            return E_SYSTEM;
        }
    }
    if (!bound(g, cpu_millicores, memory_bytes)) {
        (void)fault_errno(f, E_SYSTEM, "limits of control group %s", g->name);
        (void)cage_remove(g);
        return E_SYSTEM;
    }
    return E_OK;
}

/* The caller has one thread, so in v1 it moves as a thread (tasks): to move as a process the kernel waits for all processors to pass a
 * quiet moment (cgroup_procs_write_start of Linux), some 15 ms, before the task says its first word. */
bool cage_enter(const struct cage *g) {
    const char *file = g->all->kind == LAUNCH_LIMITS_CGROUP1 ? "tasks" : "cgroup.procs";
    char path[PATH_BYTES];
    bool well = true;
    for (unsigned i = 0; i < folders(g->all); i++) {
        well = well && (!path_of(g->all, g->name, i, path) || write_text(path, file, "0"));
    }
    return well;
}

int cage_open(const struct cage *g) {
    char path[PATH_BYTES];
    bool whole = g->all->kind == LAUNCH_LIMITS_CGROUP2 && path_of(g->all, g->name, 0, path);
    return whole ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
}

static void kill_named(const struct cages *c, const char *name) {
    char path[PATH_BYTES], file[PATH_BYTES + 16], text[FILE_BYTES_MAX], *rest = text;
    for (unsigned i = 0; i < folders(c); i++) {
        if (!path_of(c, name, i, path) || write_text(path, "cgroup.kill", "1")) {
            continue;
        }
        (void)snprintf(file, sizeof file, "%s/cgroup.procs", path);
        rest = text;
        if (!read_text(file, text, sizeof text)) {
            continue;
        }
        for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
            long pid = strtol(line, NULL, 10);
            if (pid > 1) {
                (void)kill((pid_t)pid, SIGKILL);
            }
        }
    }
}

static bool remove_named(const struct cages *c, const char *name) {
    char path[PATH_BYTES];
    bool all = true;
    for (unsigned i = 0; i < folders(c); i++) {
        all = (!path_of(c, name, i, path) || rmdir(path) == 0 || errno == ENOENT) && all;
    }
    return all;
}

void cage_kill(const struct cage *g) {
    kill_named(g->all, g->name);
}

bool cage_remove(const struct cage *g) {
    return remove_named(g->all, g->name);
}

void cage_sweep(const struct cages *c) {
    for (unsigned i = 0; i < folders(c); i++) {
        DIR *d = c->base[i][0] == 0 ? NULL : opendir(c->base[i]);
        for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
            if (strncmp(e->d_name, c->prefix, strlen(c->prefix)) == 0) {
                for (unsigned tries = 0; tries < 100 && !remove_named(c, e->d_name); tries++) {
                    kill_named(c, e->d_name);
                    (void)usleep(10000);
                }
            }
        }
        if (d != NULL) {
            (void)closedir(d);
        }
    }
}

bool cage_hit_memory(const struct cage *g) {
    char path[PATH_BYTES], file[PATH_BYTES + 24], text[4096];
    if (folders(g->all) == 0 || !path_of(g->all, g->name, CAGE_MEMORY, path)) {
        return false;
    }
    bool v2 = g->all->kind == LAUNCH_LIMITS_CGROUP2;
    (void)snprintf(file, sizeof file, "%s/%s", path, v2 ? "memory.events" : "memory.oom_control");
    const char *count = read_text(file, text, sizeof text) ? strstr(text, "oom_kill ") : NULL;
    return count != NULL && strtoul(count + strlen("oom_kill "), NULL, 10) > 0;
}

/* The number behind `key` in a file of the group, or the first one of all; false: there is none. */
static bool number_in(const struct cage *g, unsigned controller, const char *file, const char *key, uint64_t *out) {
    char path[PATH_BYTES], name[PATH_BYTES + 40], text[4096];
    if (!path_of(g->all, g->name, controller, path)) {
        return false;
    }
    (void)snprintf(name, sizeof name, "%s/%s", path, file);
    const char *at = read_text(name, text, sizeof text) ? strstr(text, key) : NULL;
    if (at == NULL || at[strlen(key)] < '0' || at[strlen(key)] > '9') {
        return false;
    }
    *out = strtoull(at + strlen(key), NULL, 10);
    return true;
}

bool cage_use(const struct cage *g, uint64_t *cpu_us, uint64_t *memory_bytes, uint64_t *memory_peak_bytes) {
    *cpu_us = *memory_bytes = *memory_peak_bytes = 0;
    if (g->all->kind == LAUNCH_LIMITS_CGROUP2) {
        (void)number_in(g, CAGE_MEMORY, "memory.current", "", memory_bytes);
        (void)number_in(g, CAGE_MEMORY, "memory.peak", "", memory_peak_bytes); /* since Linux 5.19 */
        return number_in(g, CAGE_CPU, "cpu.stat", "usage_usec ", cpu_us);
    }
    uint64_t cpu_ns = 0;
    (void)number_in(g, CAGE_MEMORY, "memory.usage_in_bytes", "", memory_bytes);
    (void)number_in(g, CAGE_MEMORY, "memory.max_usage_in_bytes", "", memory_peak_bytes);
    bool told = g->all->kind == LAUNCH_LIMITS_CGROUP1 && number_in(g, CAGE_CPU, "cpuacct.usage", "", &cpu_ns); /* cpu,cpuacct */
    *cpu_us = cpu_ns / 1000u;
    return told;
}
