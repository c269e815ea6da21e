#include "agent/run/boardwatch.h"

#include <inttypes.h>
#include <stddef.h>
#include <unistd.h>

#include "platform/bytes.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define LOOK_MS 10000u
#define RELIEF_AGAIN_MS 10000u
#define COOLER_MILLI_C 3000 /* below the limit by so much ends the warning */

static struct metric temperature = METRIC_GAUGE_MILLI("grey_board_temperature_celsius", "Hottest zone of the board.");
static struct metric under_voltage = METRIC_GAUGE("grey_board_under_voltage", "1 while the supply is below what the board needs.");
static struct metric budget = METRIC_GAUGE("grey_process_memory_budget_bytes", "Above it caches are given back; 0: none.");
static struct metric reliefs = METRIC_COUNTER("grey_memory_reliefs_total", "Times that caches were given back.");

struct boardwatch {
    struct conn_context x;
    struct sitelog *log;
    struct boardwatch_options o;
    struct boardwatch_facts facts;
    struct worker_job look; /* on the crypto worker */
    struct hardware_facts looked;
    bool looking, stopped;
    struct loop_timer timer;
    struct loop_fd pressure;
    int pressure_fd; /* -1: none */
    uint64_t relieved_ms;
};

/* --- memory ---------------------------------------------------------------------------------------------------------------------------- */
static void relieve(struct boardwatch *b, const char *why) {
    uint64_t now_ms = loop_now_ms(b->x.loop);
    if (b->relieved_ms != 0 && now_ms < b->relieved_ms + RELIEF_AGAIN_MS) {
        return;
    }
    if (sitelog_relieve(b->log) != E_OK) { /* one is under way, or it stops */
        return;
    }
    b->relieved_ms = now_ms;
    b->facts.reliefs++;
    metrics_add(&reliefs, 0, 1);
    log_info("boardwatch", "relief", "%s: caches are given back; resident_bytes=%" PRIu64 " budget_bytes=%" PRIu64, why,
             b->facts.hardware.resident_bytes, b->facts.budget_bytes);
}

static void on_pressure(void *context, uint32_t events) {
    struct boardwatch *b = context;
    if ((events & EPOLLERR) != 0) { /* the control group is gone */
        loop_fd_remove(b->x.loop, &b->pressure);
        b->facts.pressure_known = false;
        return;
    }
    relieve(b, "the kernel says that memory is short");
}

static void watch_pressure(struct boardwatch *b) {
    struct fault f = {0};
    b->pressure_fd = hardware_pressure_open("");
    if (b->pressure_fd >= 0) {
        b->facts.pressure_known = loop_fd_add(b->x.loop, &b->pressure, b->pressure_fd, EPOLLPRI, &f) == E_OK;
    }
    if (!b->facts.pressure_known) {
        log_debug("boardwatch", "no_pressure", "this kernel does not tell us when memory is short; the budget remains");
    }
}

/* --- the look -------------------------------------------------------------------------------------------------------------------------- */
static void look_work(struct worker_job *job) {
    struct boardwatch *b = (struct boardwatch *)(void *)((char *)job - offsetof(struct boardwatch, look));
    hardware_look("", &b->looked);
}

static void judge(struct boardwatch *b, const struct hardware_facts *before) {
    const struct hardware_facts *h = &b->facts.hardware;
    int32_t limit = b->o.temperature_max_c * 1000;
    bool was_hot = b->facts.hot;
    if (h->has_temperature && limit > 0) {
        b->facts.hot = h->temperature_milli_c > limit - (was_hot ? COOLER_MILLI_C : 0);
    }
    if (b->facts.hot && !was_hot) {
        log_warn("boardwatch", "hot", "the board has %" PRId32 " degrees, more than %" PRId32 ": it may slow down, or switch off",
                 h->temperature_milli_c / 1000, b->o.temperature_max_c);
    } else if (was_hot && !b->facts.hot) {
        log_info("boardwatch", "cool", "the board has %" PRId32 " degrees again", h->temperature_milli_c / 1000);
    }
    if (h->under_voltage && !before->under_voltage) {
        log_warn("boardwatch", "under-voltage",
                 "the supply is below what the board needs: writes may be lost, look at its cable and adapter");
    } else if (!h->under_voltage && before->under_voltage) {
        log_info("boardwatch", "voltage", "the supply is sufficient again");
    }
}

static void look_done(struct worker_job *job) {
    struct boardwatch *b = (struct boardwatch *)(void *)((char *)job - offsetof(struct boardwatch, look));
    struct hardware_facts before = b->facts.hardware;
    b->looking = false;
    if (b->stopped) {
        return;
    }
    b->facts.hardware = b->looked;
    b->facts.budget_bytes = b->o.budget_bytes > 0 ? b->o.budget_bytes : b->looked.limit_bytes / 4 * 3;
    judge(b, &before);
    if (b->looked.has_temperature) { /* what a board does not tell has no series: 0 degrees would be a lie */
        metrics_register(&temperature);
        metrics_set(&temperature, 0, b->looked.temperature_milli_c);
    }
    if (b->looked.has_voltage) {
        metrics_register(&under_voltage);
        metrics_set(&under_voltage, 0, b->looked.under_voltage);
    }
    metrics_set(&budget, 0, (int64_t)b->facts.budget_bytes);
    if (b->facts.budget_bytes > 0 && b->looked.resident_bytes > b->facts.budget_bytes) {
        relieve(b, "more memory is held than the budget allows");
    }
}

static void look(void *context) {
    struct boardwatch *b = context;
    b->look = (struct worker_job){.work = look_work, .done = look_done};
    if (!b->looking && worker_submit(b->x.crypto, &b->look) == E_OK) {
        b->looking = true;
    }
    loop_timer_after(b->x.loop, &b->timer, LOOK_MS);
}

/* --- life ------------------------------------------------------------------------------------------------------------------------------ */
struct boardwatch *boardwatch_new(const struct conn_context *x, struct sitelog *log, const struct boardwatch_options *o,
                                  struct fault *f) {
    struct boardwatch *b = mem_new(1, sizeof *b);
    if (b == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "boardwatch");
        return NULL;
    }
    *b = (struct boardwatch){.x = *x, .log = log, .o = *o, .pressure_fd = -1};
    b->timer = (struct loop_timer){.fire = look, .context = b};
    b->pressure = (struct loop_fd){.ready = on_pressure, .context = b, .fd = -1};
    metrics_register(&budget);
    metrics_register(&reliefs);
    watch_pressure(b);
    look(b);
    return b;
}

void boardwatch_stop(struct boardwatch *b) {
    if (b == NULL || b->stopped) {
        return;
    }
    b->stopped = true;
    loop_timer_cancel(b->x.loop, &b->timer);
    loop_fd_remove(b->x.loop, &b->pressure);
    if (b->pressure_fd >= 0) {
        (void)close(b->pressure_fd);
    }
}

void boardwatch_free(struct boardwatch *b) {
    boardwatch_stop(b);
    mem_free(b);
}

void boardwatch_facts(const struct boardwatch *b, struct boardwatch_facts *out) {
    *out = b->facts;
}
