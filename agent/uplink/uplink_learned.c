/* What was learned of keep-alives survives a restart: data_dir/keepalive, one line for each endpoint.  A gateway that is restarted, or only leads again after an
 * update, would else lose its link to each middlebox once more.  Written by the crypto worker, when something was learned. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/uplink/uplink_core.h"
#include "platform/log.h"
#include "platform/now.h"
#include "platform/wholefile.h"

#define FILE_NAME "keepalive"
#define FILE_BYTES_MAX 4096u
#define HEAD "grey-keepalive 1\n"

struct uplink_learned_job {
    struct worker_job job;
    char path[LIMIT_PATH_BYTES + 16];
    struct builder text;
    enum grey_error err;
    struct fault fault;
};

static void path_of(const struct uplink *u, char out[LIMIT_PATH_BYTES + 16]) {
    (void)snprintf(out, LIMIT_PATH_BYTES + 16, "%.1000s/" FILE_NAME, u->learned.dir);
}

/* "broker.example:8883 450 0 600 1795274000": interval, good, fatal in seconds, and when that was, in Unix seconds. */
static bool read_line(char *line, const char **address, struct keepalive_learned *out, int64_t *fatal_s) {
    char *words[5], *end;
    uint64_t numbers[4];
    for (size_t i = 0; i < 5; i++) {
        words[i] = strsep(&line, " ");
        if (words[i] == NULL || words[i][0] == 0) {
            return false;
        }
    }
    for (size_t i = 0; i < 4; i++) {
        numbers[i] = strtoull(words[i + 1], &end, 10);
        if (words[i + 1][0] < '0' || words[i + 1][0] > '9' || *end != 0 || numbers[i] > (i < 3 ? UINT32_MAX : INT64_MAX / 1000)) {
            return false;
        }
    }
    *address = words[0];
    *out = (struct keepalive_learned){
        .interval_s = (uint32_t)numbers[0], .good_s = (uint32_t)numbers[1], .fatal_s = (uint32_t)numbers[2]};
    *fatal_s = (int64_t)numbers[3];
    return line == NULL;
}

static void take(struct uplink *u, char *line) {
    const char *address;
    struct keepalive_learned l;
    int64_t fatal_s, now_s = now_wall_ms() / 1000;
    if (!read_line(line, &address, &l, &fatal_s)) {
        log_warn("uplink", "learned", "a line of " FILE_NAME " is not one of ours, and is left out");
        return;
    }
    int64_t age_s = now_s > fatal_s ? now_s - fatal_s : 0;
    l.fatal_age_s = age_s < UINT32_MAX ? (uint32_t)age_s : UINT32_MAX;
    for (uint32_t i = 0; i < u->o.endpoint_count; i++) {
        if (strcmp(u->endpoints[i].address, address) == 0) {
            keepalive_restore(&u->endpoints[i].keepalive, &l, loop_now_ms(u->x.loop));
            keepalive_keep(&u->endpoints[i].keepalive, loop_now_ms(u->x.loop), &u->learned.kept[i]);
        }
    }
}

void uplink_learned_begin(struct uplink *u) {
    struct builder text;
    struct fault f = {0};
    char path[LIMIT_PATH_BYTES + 16];
    (void)snprintf(u->learned.dir, sizeof u->learned.dir, "%s", u->o.data_dir);
    for (uint32_t i = 0; i < u->o.endpoint_count; i++) {
        keepalive_keep(&u->endpoints[i].keepalive, loop_now_ms(u->x.loop), &u->learned.kept[i]);
    }
    path_of(u, path);
    builder_init(&text, FILE_BYTES_MAX);
    enum grey_error err = wholefile_exists(path) ? wholefile_read(path, &text, &f) : E_NOT_FOUND;
    if (err == E_OK && strncmp((const char *)text.data, HEAD, strlen(HEAD)) == 0) {
        char *rest = (char *)text.data + strlen(HEAD), *line;
        while ((line = strsep(&rest, "\n")) != NULL) {
            if (line[0] != 0) {
                take(u, line);
            }
        }
    } else if (err != E_NOT_FOUND) {
        log_warn("uplink", "learned", "%s is not taken: %s", path, err == E_OK ? "it is of another version" : f.text);
    }
    builder_free(&text);
}

static void write_it(struct worker_job *job) {
    struct uplink_learned_job *j = (struct uplink_learned_job *)(void *)job;
    j->err = wholefile_write(j->path, builder_bytes(&j->text), 0600, &j->fault);
}

static void written(struct worker_job *job) {
    struct uplink_learned_job *j = (struct uplink_learned_job *)(void *)job;
    if (j->err != E_OK) {
        log_limited(LOG_WARN, "uplink", "learned", "%s: %s", j->path, j->fault.text);
    }
    builder_free(&j->text);
    mem_free(j);
}

static bool same(const struct keepalive_learned *a, const struct keepalive_learned *b) {
    return a->interval_s == b->interval_s && a->good_s == b->good_s && a->fatal_s == b->fatal_s;
}

void uplink_learned_keep(struct uplink *u) {
    struct keepalive_learned now[UPLINK_ENDPOINTS_MAX];
    int64_t now_s = now_wall_ms() / 1000;
    bool news = false;
    for (uint32_t i = 0; i < u->o.endpoint_count; i++) {
        keepalive_keep(&u->endpoints[i].keepalive, loop_now_ms(u->x.loop), &now[i]);
        news = news || !same(&now[i], &u->learned.kept[i]);
    }
    struct uplink_learned_job *j = news ? mem_new(1, sizeof *j) : NULL;
    if (j == NULL) {
        return;
    }
    j->job = (struct worker_job){.work = write_it, .done = written};
    path_of(u, j->path);
    builder_init(&j->text, FILE_BYTES_MAX);
    builder_add_str(&j->text, HEAD);
    for (uint32_t i = 0; i < u->o.endpoint_count; i++) {
        builder_addf(&j->text, "%s %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRId64 "\n", u->endpoints[i].address, now[i].interval_s,
                     now[i].good_s, now[i].fatal_s, now_s - now[i].fatal_age_s);
    }
    if (j->text.err == E_OK && worker_submit(u->x.crypto, &j->job) == E_OK) {
        memcpy(u->learned.kept, now, sizeof now[0] * u->o.endpoint_count);
        return;
    }
    builder_free(&j->text); /* the next connection tries again */
    mem_free(j);
}
