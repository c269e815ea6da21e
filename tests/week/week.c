/* week: runs simulated weeks from seeds and says what was lost, doubled or counted wrong.
 *
 *     week --seed N --count K --hours H      K seeds from N on, H virtual hours each (default 168), then a calm end
 *     week --seed N --trace                  one seed, with what happens
 *     week --recheck                         runs 1 seed in 10 twice and compares
 *     week --first                           stops at the first violation
 *     week --cover                           it is a failure, too, when something of the table at the end never happened */
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/week/week.h"

#define CALM_HOURS 72

uint64_t week_draw(struct week *w, uint64_t below) {
    w->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t v = w->random;
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    v ^= v >> 31;
    return below == 0 ? 0 : v % below;
}

bool week_chance(struct week *w, unsigned percent) {
    return week_draw(w, 100) < percent;
}

uint64_t week_hash(struct bytes b) {
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < b.size; i++) {
        h = (h ^ b.data[i]) * 0x100000001b3u;
    }
    return h;
}

static void say(const struct week *w, const char *text) {
    printf("%4" PRId64 " h %02" PRId64 ":%02" PRId64 ".%03" PRId64 "  %s\n", w->now_ms / WEEK_HOUR_MS,
           w->now_ms / WEEK_MINUTE_MS % 60, w->now_ms / 1000 % 60, w->now_ms % 1000, text);
}

void week_note(struct week *w, const char *format, ...) {
    char text[300];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    w->hash = week_hash(bytes_str(text)) ^ (w->hash * 31) ^ (uint64_t)w->now_ms;
    if (w->trace) {
        say(w, text);
    }
}

void week_fail(struct week *w, const char *format, ...) {
    if (w->failed) {
        return;
    }
    w->failed = true;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(w->violation, sizeof w->violation, format, args);
    va_end(args);
    if (w->trace) {
        say(w, w->violation);
    }
}

/* --- one week ------------------------------------------------------------------------------------------------------------------------------ */

static void draw_limits(struct week *w) {
    struct queue_limits l = {.bytes_max = 20000 + week_draw(w, 300000)};
    if (week_chance(w, 40)) {
        for (unsigned p = PRIORITY_HIGH; p < PRIORITY_COUNT; p++) {
            l.floor_percent[p] = (uint32_t)week_draw(w, 31);
        }
    }
    if (week_chance(w, 40)) {
        l.ttl_count = 1 + (uint32_t)week_draw(w, 2);
        (void)snprintf(l.ttls[0].type, sizeof l.ttls[0].type, "debug.*");
        l.ttls[0].time_s = 600 + (uint32_t)week_draw(w, 20000);
        (void)snprintf(l.ttls[1].type, sizeof l.ttls[1].type, "video*");
        l.ttls[1].time_s = 3600 + (uint32_t)week_draw(w, 200000);
    }
    if (week_chance(w, 20)) {
        l.age_s = 3600 + (uint32_t)week_draw(w, week_chance(w, 50) ? 20000 : 500000);
    }
    if (l.ttl_count < 2) {
        memset(&l.ttls[1], 0, sizeof l.ttls[1]);
    }
    w->limits = l;
}

static void draw_link(struct week *w) {
    static const uint64_t rates[] = {2000, 8000, 8000, 8000, 32000, 125000};
    w->link_bytes_per_s = rates[week_draw(w, sizeof rates / sizeof rates[0])];
    w->limit_bytes_per_s = week_chance(w, 50) ? rates[week_draw(w, 5)] : 0;
    w->delay_ms = (uint32_t)week_draw(w, 1000);
    w->loss_percent = (uint32_t)week_draw(w, 12);
}

static void fault(struct week *w) {
    uint64_t kind = week_draw(w, 100);
    unsigned gateway = (unsigned)week_draw(w, WEEK_GATEWAYS);
    if (kind < 25) {
        site_kill(w, week_chance(w, 50) && w->leader < WEEK_GATEWAYS ? w->leader : gateway);
    } else if (kind < 45) {
        if (w->leader < WEEK_GATEWAYS) { /* handed on, or a partition */
            w->leader = WEEK_GATEWAYS;
            w->elect_ms = w->now_ms + (int64_t)week_draw(w, 2000);
        }
    } else if (kind < 65) {
        if (w->link_up) {
            link_cut(w);
            w->link_change_ms = w->now_ms + 1 + (int64_t)week_draw(w, week_chance(w, 30) ? 600000 : 3000);
        }
    } else if (kind < 77) {
        core_crash(w);
    } else if (kind < 79) {
        core_restore(w);
    } else if (kind < 80) {
        site_rebuild(w);
    } else if (kind < 88) {
        w->gateways[gateway].disk_fails = true;
    } else if (kind < 92) {
        w->gateways[0].disk_fails = w->gateways[1].disk_fails = w->gateways[2].disk_fails = true;
    } else if (kind < 95) {
        draw_limits(w);
    } else { /* a power cut */
        for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
            site_kill(w, i);
        }
    }
    if (week_chance(w, 30)) {
        w->gateways[0].disk_fails = w->gateways[1].disk_fails = w->gateways[2].disk_fails = false;
    }
    w->next_fault_ms = w->now_ms + 1 + (int64_t)week_draw(w, week_chance(w, 30) ? 20000 : 2 * WEEK_HOUR_MS);
}

/* Hours and days without a link, and short ones with it. */
static void change_link(struct week *w) {
    if (w->link_up) {
        link_cut(w);
        w->link_change_ms =
            w->now_ms + WEEK_MINUTE_MS + (int64_t)week_draw(w, week_chance(w, 30) ? 60 * WEEK_HOUR_MS : 3 * WEEK_HOUR_MS);
    } else {
        w->link_up = true;
        w->link_change_ms = w->now_ms + 5000 + (int64_t)week_draw(w, week_chance(w, 50) ? 90000 : 5 * WEEK_HOUR_MS);
    }
    week_note(w, "the link is %s", w->link_up ? "up" : "down");
}

static bool drained(struct week *w) {
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        if (w->truth.acked[c] + 1 != w->truth.next[c]) {
            return false;
        }
    }
    return site_leader(w) != NULL && state_applied(site_leader(w)->state) == w->log_count && roll_rests(w);
}

static void run_until(struct week *w, int64_t end_ms) {
    while (!w->failed && w->now_ms < end_ms && !(w->calm && drained(w))) {
        int64_t due_ms = site_due(w), link_ms = link_due(w);
        due_ms = link_ms < due_ms ? link_ms : due_ms;
        due_ms = !w->calm && w->next_fault_ms < due_ms ? w->next_fault_ms : due_ms;
        due_ms = !w->calm && w->link_change_ms < due_ms ? w->link_change_ms : due_ms;
        due_ms = roll_due(w) < due_ms ? roll_due(w) : due_ms;
        due_ms = w->core_backup_ms < due_ms ? w->core_backup_ms : due_ms;
        due_ms = !w->core_up && w->core_up_ms < due_ms ? w->core_up_ms : due_ms;
        w->now_ms = due_ms > w->now_ms ? due_ms : w->now_ms + 1;
        if (!w->calm && w->now_ms >= w->next_fault_ms) {
            fault(w);
        }
        if (!w->calm && w->now_ms >= w->link_change_ms) {
            change_link(w);
        }
        core_act(w);
        site_act(w);
        roll_act(w);
        link_act(w);
    }
}

static void run_calm(struct week *w) {
    w->calm = true;
    w->link_up = true;
    w->core_up_ms = w->now_ms;
    w->link_bytes_per_s = w->link_bytes_per_s < 8000 ? 8000 : w->link_bytes_per_s;
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        w->gateways[i].disk_fails = false;
        w->gateways[i].restart_ms = w->now_ms;
    }
    run_until(w, w->now_ms + CALM_HOURS * WEEK_HOUR_MS);
    if (!w->failed) {
        site_settle(w);
    }
    if (!w->failed) {
        truth_end(w);
        roll_end(w);
    }
}

static struct week *week_run(uint64_t seed, int64_t hours, bool trace) {
    struct week *w = calloc(1, sizeof *w);
    w->seed = w->random = seed;
    w->trace = trace;
    w->now_ms = 1000 * WEEK_HOUR_MS;
    w->truth.one_size = week_chance(w, 60);
    w->type_count = week_chance(w, 70) ? 3 : 1;
    w->critical_percent = week_chance(w, 80) ? 6 : 60;
    w->load_pause_ms = 20000 + (int64_t)week_draw(w, 400000);
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        w->truth.next[c] = 1;
    }
    draw_limits(w);
    draw_link(w);
    w->link_up = w->core_up = true;
    w->link_change_ms = w->now_ms + (int64_t)week_draw(w, WEEK_HOUR_MS);
    w->next_fault_ms = w->now_ms + (int64_t)week_draw(w, WEEK_HOUR_MS);
    w->next_load_ms = w->next_duty_ms = w->core_backup_ms = w->now_ms;
    w->incarnation = WEEK_INCARNATION;
    w->site_backup_ms = w->now_ms + WEEK_HOUR_MS;
    site_begin(w);
    run_until(w, w->now_ms + hours * WEEK_HOUR_MS);
    if (!w->failed) {
        run_calm(w);
    }
    for (uint32_t k = 0; k < WEEK_COUNT_KINDS; k++) {
        w->hash = w->hash * 1000003 + w->counts[k];
    }
    return w;
}

static void week_free(struct week *w) {
    for (size_t i = 0; i < WEEK_MESSAGES; i++) {
        blob_unref(w->messages[i].bytes);
    }
    for (unsigned i = 0; i < WEEK_SPEAKERS; i++) {
        blob_unref(w->speakers[i].leaving);
    }
    core_free(&w->core);
    core_free(&w->backup);
    site_end(w);
    free(w);
}

/* --- many ------------------------------------------------------------------------------------------------------------------------------------ */

static uint64_t seed_now; /* for the handler below */

static void on_abort(int signal_number) {
    char text[64];
    int n = snprintf(text, sizeof text, "seed %" PRIu64 ": abort (signal %d)\n", seed_now, signal_number);
    (void)!write(STDOUT_FILENO, text, (size_t)n);
    _exit(1);
}

struct options {
    uint64_t seed, count, hours;
    bool trace, recheck, first, cover;
};

static bool options_read(struct options *o, int argc, char **argv) {
    const struct {
        const char *name;
        uint64_t *number;
        bool *flag;
    } known[] = {{"--seed", &o->seed, NULL},   {"--count", &o->count, NULL},     {"--hours", &o->hours, NULL},
                 {"--trace", NULL, &o->trace}, {"--recheck", NULL, &o->recheck}, {"--first", NULL, &o->first},
                 {"--cover", NULL, &o->cover}};
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        while (k < sizeof known / sizeof known[0] && strcmp(argv[i], known[k].name) != 0) {
            k++;
        }
        if (k == sizeof known / sizeof known[0] || (known[k].number != NULL && i + 1 == argc)) {
            return false;
        }
        if (known[k].number != NULL) {
            *known[k].number = strtoull(argv[++i], NULL, 10);
        } else {
            *known[k].flag = true;
        }
    }
    return true;
}

int main(int argc, char **argv) {
#define WEEK_COUNT_TEXT(name, text) text,
    static const char *const names[] = {WEEK_COUNTS(WEEK_COUNT_TEXT)};
    struct options o = {.seed = 1, .count = 1, .hours = 168};
    if (!options_read(&o, argc, argv)) {
        fprintf(stderr, "usage: week [--seed N] [--count K] [--hours H] [--trace] [--recheck] [--first] [--cover]\n");
        return 2;
    }
    uint64_t totals[WEEK_COUNT_KINDS] = {0}, violations = 0;
    struct timespec begin, end;
    (void)signal(SIGABRT, on_abort);
    (void)signal(SIGSEGV, on_abort);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t i = 0; i < o.count && !(o.first && violations > 0); i++) {
        seed_now = o.seed + i;
        struct week *w = week_run(seed_now, (int64_t)o.hours, o.trace);
        if (w->failed) {
            violations++;
            printf("seed %" PRIu64 ": %s\n", seed_now, w->violation);
        }
        if (o.recheck && i % 10 == 0) {
            struct week *again = week_run(seed_now, (int64_t)o.hours, false);
            if (again->hash != w->hash) {
                violations++;
                printf("seed %" PRIu64 ": the second run differs from the first\n", seed_now);
            }
            week_free(again);
        }
        for (uint32_t k = 0; k < WEEK_COUNT_KINDS; k++) {
            totals[k] += w->counts[k];
        }
        week_free(w);
        fflush(stdout);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    for (uint32_t k = 0; k < WEEK_COUNT_KINDS; k++) {
        bool missed = o.cover && totals[k] == 0;
        printf("  %-36s %12" PRIu64 "%s\n", names[k], totals[k], missed ? "  never happened" : "");
        violations += missed;
    }
    printf("  %.1f s\n", (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    printf("%" PRIu64 " seeds, %" PRIu64 " violations\n", o.count, violations);
    return violations > 0;
}
