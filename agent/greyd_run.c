/* What runs on this machine: tasks, updates, the eye on the board. */
#include <unistd.h>

#include "agent/greyd_core.h"

/* A bound from the configuration, or count * unit of the machine. */
static uint64_t machine_part(int64_t configured, long count, long unit) {
    return configured > 0 ? (uint64_t)configured : count > 0 && unit > 0 ? (uint64_t)count * (uint64_t)unit : 0;
}

struct quota_amount greyd_run_capacity(const struct config *c) {
    return (struct quota_amount){machine_part(c->cpu_limit_millicores, sysconf(_SC_NPROCESSORS_ONLN), 1000),
                                 machine_part(c->memory_limit_bytes, sysconf(_SC_PHYS_PAGES), sysconf(_SC_PAGESIZE))};
}

bool greyd_run_start_executor(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    if (!c->scheduler || c->mode == CONFIG_MODE_WITNESS) {
        return true;
    }
    struct placement_node self = {.capacity = greyd_run_capacity(c)};
    struct executor_options o = {.loop = g->x.loop,
                                 .node = g->node,
                                 .launcher_socket = c->launcher,
                                 .data_dir = c->data_dir,
                                 .usable = placement_usable(&self),
                                 .hot_permille = (uint32_t)c->hotspot_cpu_percent * 10,
                                 .hot_ms = (uint64_t)c->hotspot_window_s * 1000};
    g->executor = executor_new(&o, f);
    return g->executor != NULL;
}

bool greyd_run_start_boardwatch(struct greyd *g, struct fault *f) {
    struct boardwatch_options o = {.budget_bytes = (uint64_t)g->config.memory_budget_mb * 1024u * 1024u,
                                   .temperature_max_c = (int32_t)g->config.temperature_max_c};
    g->board = boardwatch_new(&g->x, node_log(g->node), &o, f);
    return g->board != NULL;
}

bool greyd_run_start_updater(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    struct updater_options o = {.slots = c->update_slots,
                                .product = c->update_product,
                                .data_dir = c->data_dir,
                                .soak_s = (uint32_t)c->update_soak_s,
                                .turn_s = (uint32_t)c->update_turn_s};
    if (c->mode == CONFIG_MODE_WITNESS) {
        return true;
    }
    updater_register();
    g->updater = updater_new(&g->x, &o, g->node, f);
    return g->updater != NULL;
}
