#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"
#include "platform/wholefile.h"

#define TIME_MS_MAX (INT64_C(1) << 52)
#define FAR_MS 60000      /* nearer than that, the next leader's step is enough */
#define AGREE_MS 10000    /* clocks so close mean the same time */
#define COMPARE_MS 30000u /* ... while this leader's own clock agrees with the site: it may be the one that is wrong */
#define ASK_MS 10000u     /* between two rounds of questions */
#define CORE_HOLDS_MS (24u * 3600u * 1000u) /* so long after the core's word the gateways' own clocks do not overrule it */

static struct metric corrections = METRIC_COUNTER("grey_clock_corrections_total", "Corrections of the site's time above 60 s.");

static bool is_time(int64_t time_ms) {
    return time_ms >= 0 && time_ms <= TIME_MS_MAX;
}

/* What this machine has to say: its clock, which cannot show a time before the program was made. */
static int64_t own_time_ms(void) {
    int64_t own_ms = now_machine_ms();
    return own_ms > now_build_ms() ? own_ms : now_build_ms();
}

static bool is_far(const struct node *n, int64_t time_ms) {
    int64_t off_ms = time_ms - node_site_time_ms(n);
    return off_ms > FAR_MS || off_ms < -FAR_MS;
}

static void set(struct node *n, int64_t time_ms, const char *by) {
    struct builder b;
    builder_init(&b, 64);
    payload_clock(&b, time_ms);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload == NULL) {
        return;
    }
    int64_t before_ms = node_site_time_ms(n);
    struct raft_proposal p = {.kind = ENTRY_CLOCK, .schema = ENTRY_SCHEMA, .payload = payload};
    struct raft_input in = {.kind = RAFT_IN_CLOCK, .proposals = &p, .proposal_count = 1, .clock_ms = time_ms};
    if (node_step(n, &in, NULL) == E_OK) {
        metrics_add(&corrections, 0, 1);
        log_warn("clock", "set", "by=%s the site's time moves by %.1f s", by, (double)(time_ms - before_ms) / 1000.0);
    }
    blob_unref(payload);
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* The time that a majority of the voters has, this node among the asked; false: they do not agree, or not enough have answered. */
static bool majority(const struct node *n, const struct raft_members *members, int64_t *time_ms) {
    int64_t times[LIMIT_MEMBERS];
    uint32_t voters = 0, count = 0;
    uint64_t now_ms = loop_now_ms(n->x.loop);
    for (uint32_t i = 0; i < members->count; i++) {
        voters += members->at[i].voter;
        for (uint32_t k = 0; k < n->clockset.answer_count && members->at[i].voter; k++) {
            const struct clock_answer *a = &n->clockset.answers[k];
            if (a->from == members->at[i].id) {
                times[count++] = a->time_ms + (int64_t)(now_ms - a->at_ms);
            }
        }
    }
    qsort(times, count, sizeof *times, by_value);
    uint32_t enough = voters / 2 + 1;
    for (uint32_t i = 0; enough > 0 && i + enough <= count; i++) {
        if (times[i + enough - 1] - times[i] <= AGREE_MS) {
            *time_ms = times[i + enough / 2];
            return true;
        }
    }
    return false;
}

static void take_answer(struct node *n, raft_id from, int64_t time_ms) {
    struct clockset *c = &n->clockset;
    if (c->answer_count < LIMIT_MEMBERS) {
        c->answers[c->answer_count++] = (struct clock_answer){.from = from, .time_ms = time_ms, .at_ms = loop_now_ms(n->x.loop)};
    }
}

/* --- what time it is at least, across restarts --------------------------------------------------------------------------------------------- */

#define KEEP_MS 3600000u /* one small write an hour; after a power cut the log's last entry may say more */
#define FILE_NAME "clock"

static bool path_of(const struct node *n, char path[LIMIT_PATH_BYTES + 1]) {
    int size = snprintf(path, LIMIT_PATH_BYTES + 1, "%s/" FILE_NAME, n->o.data_dir);
    return size > 0 && size <= (int)LIMIT_PATH_BYTES;
}

/* What is lost is an hour, and what is torn is not read. */
static void keep_time(struct node *n) {
    char path[LIMIT_PATH_BYTES + 1], line[48];
    struct fault f = {0};
    n->clockset.kept_ms = loop_now_ms(n->x.loop);
    (void)snprintf(line, sizeof line, "grey-clock 1 %" PRId64 "\n", now_floor_ms());
    if (path_of(n, path) && wholefile_leave(path, bytes_str(line), 0644, &f) != E_OK) {
        log_limited(LOG_WARN, "clock", "keep", "%s", f.text);
    }
}

static int64_t kept_time_ms(const struct node *n) {
    char path[LIMIT_PATH_BYTES + 1], end = 0;
    int64_t time_ms = 0;
    FILE *f = path_of(n, path) ? fopen(path, "re") : NULL;
    if (f != NULL) {
        bool whole = fscanf(f, "grey-clock 1 %" SCNd64 "%c", &time_ms, &end) == 2 && end == '\n' && is_time(time_ms);
        time_ms = whole ? time_ms : 0;
        (void)fclose(f);
    }
    return time_ms;
}

void clockset_start(struct node *n) {
    struct raft_status s;
    char floor_text[32];
    metrics_register(&corrections);
    raft_status(n->raft, &s);
    int64_t own_ms = now_machine_ms();
    now_distrust();
    now_set_floor_ms(now_build_ms());
    now_set_floor_ms(kept_time_ms(n));
    now_set_floor_ms(s.last_time_ms);
    now_format(now_floor_ms(), floor_text);
    if (own_ms < now_floor_ms() - FAR_MS) {
        log_warn("clock", "behind",
                 "this machine's clock is not believed: it is later than %s; the time of the site or the core is waited for",
                 floor_text);
    } else {
        log_info("clock", "floor", "it is later than %s", floor_text);
    }
    n->clockset.kept_ms = loop_now_ms(n->x.loop);
    n->clockset.start_index = s.last_index; /* what was corrected before stands in the time of the last entry */
}

void clockset_keep(struct node *n) {
    if (loop_now_ms(n->x.loop) >= n->clockset.kept_ms + KEEP_MS) {
        keep_time(n);
    }
}

void clockset_stop(struct node *n) {
    keep_time(n);
}

/* Log time is what the site agrees on: the floor follows it up, and down where it was corrected. */
void clockset_applied(struct node *n, const struct entry *e) {
    if (e->kind == ENTRY_CLOCK && e->index > n->clockset.start_index) {
        now_reset_floor_ms(e->time_ms > now_build_ms() ? e->time_ms : now_build_ms());
        keep_time(n);
    } else {
        now_set_floor_ms(e->time_ms);
    }
}

const char *node_clock_source(const struct node *n) {
    uint64_t now_ms = loop_now_ms(n->x.loop);
    if (n->clockset.core_ms != 0 && now_ms < n->clockset.core_ms + CORE_HOLDS_MS) {
        return "core";
    }
    int64_t off_ms = now_machine_ms() - now_floor_ms();
    return node_has_quorum(n) && off_ms < FAR_MS && off_ms > -FAR_MS ? "site" : "unsure";
}

void clockset_duty(struct node *n) {
    struct clockset *c = &n->clockset;
    uint64_t now_ms = loop_now_ms(n->x.loop);
    uint64_t every_ms = is_far(n, own_time_ms()) ? ASK_MS : COMPARE_MS;
    if (!n->leading || now_ms < c->asked_ms + every_ms || (c->core_ms != 0 && now_ms < c->core_ms + CORE_HOLDS_MS)) {
        return;
    }
    struct raft_status s;
    raft_status(n->raft, &s);
    c->asked_ms = now_ms;
    c->answer_count = 0;
    take_answer(n, n->self, own_time_ms());
    for (uint32_t i = 0; i < s.members->count; i++) {
        if (s.members->at[i].voter && s.members->at[i].id != n->self) {
            struct message m = {.kind = MESSAGE_CLOCK};
            (void)peers_send(n->peers, s.members->at[i].id, &m);
        }
    }
    int64_t time_ms;
    if (majority(n, s.members, &time_ms) && is_far(n, time_ms)) { /* a site of one */
        set(n, time_ms, "majority");
    }
}

void clockset_message(struct node *n, raft_id from, const struct message_clock *m) {
    struct raft_status s;
    raft_status(n->raft, &s);
    if (!m->is_answer) {
        struct message answer = {.kind = MESSAGE_CLOCK, .u.clock = {.is_answer = true, .time_ms = own_time_ms()}};
        (void)peers_send(n->peers, from, &answer);
        return;
    }
    for (uint32_t i = 0; i < n->clockset.answer_count; i++) {
        if (n->clockset.answers[i].from == from) {
            return; /* one each round */
        }
    }
    int64_t time_ms;
    if (!is_time(m->time_ms)) {
        return;
    }
    take_answer(n, from, m->time_ms);
    if (n->leading && majority(n, s.members, &time_ms) && is_far(n, time_ms)) {
        n->clockset.answer_count = 0;
        set(n, time_ms, "majority");
    }
}

void node_core_time(struct node *n, int64_t time_ms) {
    if (!is_time(time_ms)) {
        return;
    }
    n->clockset.core_ms = loop_now_ms(n->x.loop);
    if (n->leading && is_far(n, time_ms)) {
        set(n, time_ms, "core");
    }
}
