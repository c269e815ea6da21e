#include "agent/uplink_core.h"
#include "platform/now.h"

#define BURST_SECONDS_DIV 4u /* a quarter of a second's bytes may leave at once */

static void on_gate_timer(void *context) {
    struct uplink *u = context;
    mqtt_gate_open(u->mqtt);
}

size_t uplink_gate_grant(void *context, size_t wanted) {
    struct uplink *u = context;
    size_t granted = shaper_grant(&u->shaper, now_monotonic_us(), wanted);
    if (granted == 0) {
        uint64_t want = u->shaper.burst_bytes / 2 < wanted ? u->shaper.burst_bytes / 2 : wanted;
        loop_timer_after(u->x.loop, &u->gate_timer, shaper_wait_us(&u->shaper, (size_t)want) / 1000 + 1);
    }
    return granted;
}

void uplink_gate_begin(struct uplink *u) {
    uint64_t burst = u->o.limit_bytes_per_s / BURST_SECONDS_DIV;
    u->gate_timer = (struct loop_timer){.fire = on_gate_timer, .context = u};
    shaper_init(&u->shaper, u->o.limit_bytes_per_s, burst < 4096 ? 4096 : burst, now_monotonic_us());
}

void uplink_gate_end(struct uplink *u) {
    loop_timer_cancel(u->x.loop, &u->gate_timer);
}
