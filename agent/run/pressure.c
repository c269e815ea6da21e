#include "agent/run/pressure.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_file(const char *path, char *out, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, out, size - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    out[got > 0 ? got : 0] = 0;
    return got > 0;
}

static uint64_t number_behind(const char *text, const char *key) {
    const char *at = strstr(text, key);
    return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10);
}

bool pressure_read(struct pressure_sample *s) {
    char text[4096];
    unsigned long long user, nice, system, idle, wait;
    *s = (struct pressure_sample){0};
    if (!read_file("/proc/stat", text, sizeof text) ||
        sscanf(text, "cpu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait) != 5) {
        return false;
    }
    s->busy_ticks = user + nice + system;
    s->all_ticks = s->busy_ticks + idle + wait;
    if (!read_file("/proc/meminfo", text, sizeof text)) {
        return false;
    }
    uint64_t all = number_behind(text, "MemTotal:"), available = number_behind(text, "MemAvailable:");
    s->memory_available_permille = all == 0 ? 1000 : (uint32_t)(available * 1000 / all);
    if (read_file("/proc/pressure/memory", text, sizeof text)) { /* "some avg10=1.23 ..." */
        const char *at = strstr(text, "some avg10=");
        char *rest = NULL;
        uint64_t percent = at == NULL ? 0 : strtoull(at + strlen("some avg10="), &rest, 10);
        s->stall_permille = (uint32_t)(percent * 10 + (rest != NULL && *rest == '.' ? (uint64_t)(rest[1] - '0') : 0));
    }
    return true;
}

static uint64_t fifth_ms(const struct pressure *p) {
    return p->cpu_ms / 5 > 0 ? p->cpu_ms / 5 : 1;
}

/* A sample counts for the part of the time that it stands for. */
static void smooth(struct pressure *p, const struct pressure_sample *s, uint64_t now_ms) {
    uint64_t all = s->all_ticks - p->last.all_ticks, busy = s->busy_ticks - p->last.busy_ticks, passed_ms = now_ms - p->last_ms;
    if (s->all_ticks <= p->last.all_ticks || s->busy_ticks < p->last.busy_ticks) {
        return; /* counters of another boot, or no time passed */
    }
    uint64_t over_ms = fifth_ms(p), weight = passed_ms < over_ms ? passed_ms : over_ms, now = busy * 1000 / all;
    p->cpu_permille = (uint32_t)((now * weight + (uint64_t)p->cpu_permille * (over_ms - weight) + over_ms / 2) / over_ms);
}

/* Since when `is` holds; false: not for so long yet. */
static bool lasts(bool is, uint64_t *since_ms, uint64_t now_ms, uint64_t long_ms) {
    *since_ms = !is ? 0 : *since_ms != 0 ? *since_ms : now_ms;
    return is && now_ms - *since_ms >= long_ms;
}

bool pressure_judge(struct pressure *p, const struct pressure_sample *s, uint64_t now_ms) {
    if (p->last_ms != 0) {
        smooth(p, s, now_ms);
    }
    p->last = *s;
    p->last_ms = now_ms;
    bool cpu = lasts(p->cpu_permille > p->cpu_hot_permille, &p->cpu_since_ms, now_ms, p->cpu_ms);
    bool tight = s->memory_available_permille < PRESSURE_MEMORY_LEAST || s->stall_permille > PRESSURE_STALL_HOT;
    bool memory = lasts(tight, &p->memory_since_ms, now_ms, PRESSURE_MEMORY_MS);
    bool cool = p->cpu_permille + PRESSURE_COOLER < p->cpu_hot_permille &&
                s->memory_available_permille >= PRESSURE_MEMORY_LEAST * 3 / 2 && s->stall_permille < PRESSURE_STALL_HOT / 2;
    bool rested = lasts(cool, &p->cool_ms, now_ms, fifth_ms(p));
    p->hot = cpu || memory || (p->hot && !rested);
    return p->hot;
}
