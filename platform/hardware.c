#include "platform/hardware.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ZONES_MAX 32u                          /* of either kind that are looked at */
#define NAME_BYTES 512u                        /* of names below root */
#define LEVELS_MAX 16u                         /* of control groups */
#define PRESSURE_TRIGGER "some 200000 2000000" /* microseconds of waiting, in a window that needs no privilege */

/* The first line of a file; false: there is none. */
static bool read_line(const char *path, char *out, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, out, size - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    if (got <= 0) {
        return false;
    }
    out[got] = 0;
    out[strcspn(out, "\n")] = 0;
    return true;
}

static bool read_number(const char *path, int64_t *out) {
    char text[32], *end;
    if (!read_line(path, text, sizeof text)) {
        return false;
    }
    *out = strtoll(text, &end, 10);
    return end != text && *end == 0;
}

static void look_at_zones(const char *root, struct hardware_facts *out) {
    char path[NAME_BYTES];
    for (unsigned i = 0; i < ZONES_MAX; i++) {
        int64_t milli_c;
        (void)snprintf(path, sizeof path, "%s/sys/class/thermal/thermal_zone%u/temp", root, i);
        /* A sensor that is switched off says nonsense, such as -274000. */
        if (read_number(path, &milli_c) && milli_c > -60000 && milli_c < 250000 &&
            (!out->has_temperature || milli_c > out->temperature_milli_c)) {
            out->has_temperature = true;
            out->temperature_milli_c = (int32_t)milli_c;
        }
    }
}

/* The Raspberry Pi tells under-voltage as an alarm of the driver rpi_volt. */
static void look_at_voltage(const char *root, struct hardware_facts *out) {
    char path[NAME_BYTES], name[32];
    for (unsigned i = 0; i < ZONES_MAX; i++) {
        int64_t alarm;
        (void)snprintf(path, sizeof path, "%s/sys/class/hwmon/hwmon%u/name", root, i);
        if (!read_line(path, name, sizeof name) || strcmp(name, "rpi_volt") != 0) {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s/sys/class/hwmon/hwmon%u/in0_lcrit_alarm", root, i);
        if (read_number(path, &alarm)) {
            out->has_voltage = true;
            out->under_voltage |= alarm != 0;
        }
    }
}

/* Where this process stands in the hierarchy of `controller` ("memory", or "" for version 2): a path that begins with '/'. */
static bool find_group(const char *root, const char *controller, char *out, size_t size) {
    char path[NAME_BYTES], line[NAME_BYTES];
    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        char *name = strchr(line, ':'), *group = name == NULL ? NULL : strchr(name + 1, ':');
        if (group == NULL) {
            continue;
        }
        *group++ = 0;
        group[strcspn(group, "\n")] = 0;
        found = strcmp(name + 1, controller) == 0 && group[0] == '/' && strlen(group) < size;
        if (found) {
            memcpy(out, group, strlen(group) + 1);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return found;
}

/* The least number in `file` of a group and of all above it; what has no bound says a word, or more than any machine has. */
static void look_at_limits(const char *root, const char *mount, char *group, const char *file, struct hardware_facts *out) {
    char path[2 * NAME_BYTES];
    for (unsigned level = 0; level < LEVELS_MAX; level++) {
        int64_t bytes;
        (void)snprintf(path, sizeof path, "%s%s%s/%s", root, mount, strcmp(group, "/") == 0 ? "" : group, file);
        if (read_number(path, &bytes) && bytes > 0 && bytes < INT64_MAX / 2 &&
            (out->limit_bytes == 0 || (uint64_t)bytes < out->limit_bytes)) {
            out->limit_bytes = (uint64_t)bytes;
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL || strcmp(group, "/") == 0) {
            return;
        }
        slash[slash == group ? 1 : 0] = 0;
    }
}

static void look_at_memory(const char *root, struct hardware_facts *out) {
    char path[NAME_BYTES], text[128], group[NAME_BYTES];
    unsigned long long size, resident;
    (void)snprintf(path, sizeof path, "%s/proc/self/statm", root);
    if (read_line(path, text, sizeof text) && sscanf(text, "%llu %llu", &size, &resident) == 2) {
        out->resident_bytes = (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
    }
    if (find_group(root, "memory", group, sizeof group)) {
        look_at_limits(root, "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", out);
    } else if (find_group(root, "", group, sizeof group)) {
        look_at_limits(root, "/sys/fs/cgroup", group, "memory.max", out);
    }
}

void hardware_look(const char *root, struct hardware_facts *out) {
    *out = (struct hardware_facts){0};
    look_at_zones(root, out);
    look_at_voltage(root, out);
    look_at_memory(root, out);
}

static int open_trigger(const char *path) {
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && write(fd, PRESSURE_TRIGGER, sizeof PRESSURE_TRIGGER) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

int hardware_pressure_open(const char *root) {
    char path[2 * NAME_BYTES], group[NAME_BYTES];
    int fd = -1;
    if (find_group(root, "", group, sizeof group)) {
        (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.pressure", root, strcmp(group, "/") == 0 ? "" : group);
        fd = open_trigger(path);
    }
    if (fd < 0) {
        (void)snprintf(path, sizeof path, "%s/proc/pressure/memory", root);
        fd = open_trigger(path);
    }
    return fd;
}
