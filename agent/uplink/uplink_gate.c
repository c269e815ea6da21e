#include "agent/uplink/uplink_core.h"
#include "platform/now.h"

/* The bucket is asked before bytes leave, with the headers they will get; what the wire really carried (TCP_INFO) is compared with that
 * each time before it is asked again, and what is more, acknowledgements, retransmissions, a handshake, is debited then. */

#define UNSENT_DIV 40u            /* of a second's bytes may wait in the socket: what left the bucket shall leave the machine */
#define AHEAD_DIV 4u              /* of a second's bytes may wait behind the gate: the rest waits where an alarm can overtake it */
#define STALL_MS 5u               /* a socket that holds bytes back is looked at again */
#define ANSWER_BYTES 300u         /* to a frame: by the broker, the network and the core, about */
#define SEGMENT_BYTES_GUESS 1400u /* until the connection tells */
#define HEADER_BYTES_GUESS 72u

static void on_open_timer(void *context) {
    struct uplink *u = context;
    mqtt_gate_open(u->mqtt);
}

/* What the socket did not take of the last grant. */
static void give_back(struct uplink_gate *g, uint64_t written_bytes) {
    uint64_t written = written_bytes - g->granted_at_bytes;
    if (written < g->granted) {
        shaper_give_back(&g->shaper, &g->path, g->granted, (size_t)written);
        uint64_t less = shaper_wire_bytes(&g->path, g->granted) - shaper_wire_bytes(&g->path, written);
        g->charged_bytes -= less < g->charged_bytes ? less : g->charged_bytes;
    }
    g->granted = 0;
}

/* What a link loses is what TCP must find its rate by; while it loses nothing, the bucket is what holds bytes back. */
static void see_calm(struct uplink *u) {
    bool calm = shaper_calm(&u->gate.shaper, now_monotonic_us());
    if (calm != u->gate.calm) {
        u->gate.calm = calm;
        mqtt_set_calm(u->mqtt, calm);
    }
}

void uplink_gate_settle(struct uplink *u, const struct conn_wire *w) {
    struct uplink_gate *g = &u->gate;
    give_back(g, mqtt_counted(u->mqtt).out_bytes);
    g->path.segment_bytes = w->segment_bytes > 0 ? w->segment_bytes : SEGMENT_BYTES_GUESS;
    g->path.header_bytes = w->header_bytes > 0 ? w->header_bytes : HEADER_BYTES_GUESS;
    uint64_t really = w->out_bytes + shaper_wire_bytes(&g->path, w->unsent_bytes);
    if (really > g->charged_bytes) {
        uint64_t more = really - g->charged_bytes, again = w->resent_bytes - u->meter.seen.resent_bytes;
        again = again < more ? again : more;
        shaper_debit(&g->shaper, now_monotonic_us(), more - again);
        shaper_debit_resent(&g->shaper, now_monotonic_us(), again);
    }
    g->charged_bytes = really;
    see_calm(u);
}

size_t uplink_gate_grant(void *context, size_t wanted) {
    struct uplink *u = context;
    struct uplink_gate *g = &u->gate;
    if (g->shaper.limit_bytes_per_s == 0) {
        return wanted;
    }
    uplink_meter_settle(u);
    if (u->meter.seen.unsent_bytes >
        shaper_unsent_bytes(&g->shaper)) { /* the network is slower just now; what waits would come on top of what is granted */
        shaper_stall(&g->shaper, now_monotonic_us());
        loop_timer_after(u->x.loop, &g->open_timer, STALL_MS);
        return 0;
    }
    size_t granted = shaper_grant(&g->shaper, &g->path, now_monotonic_us(), wanted);
    if (granted == 0) {
        loop_timer_after(u->x.loop, &g->open_timer, shaper_wait_us(&g->shaper, &g->path, wanted) / 1000 + 1);
        return 0;
    }
    g->granted = granted;
    g->granted_at_bytes = mqtt_counted(u->mqtt).out_bytes;
    g->charged_bytes += shaper_wire_bytes(&g->path, granted);
    if (g->full && (u->timer.place == 0 || u->timer.deadline_ms > loop_now_ms(u->x.loop))) {
        loop_timer_after(u->x.loop, &u->timer, 0); /* there may be room for a frame now */
    }
    return granted;
}

/* Each frame is answered by the broker, the network and the core: what comes down is bounded by what goes up.  Answers are debited when
 * they are asked for, and what comes beyond them when it comes. */
void uplink_gate_sent(struct uplink *u) {
    u->gate.answers_bytes = u->on_way_count <= 1 ? ANSWER_BYTES : u->gate.answers_bytes + ANSWER_BYTES;
    shaper_debit(&u->gate.down, now_monotonic_us(), ANSWER_BYTES);
}

void uplink_gate_heard(struct uplink *u, uint64_t wire_bytes) {
    struct uplink_gate *g = &u->gate;
    uint64_t awaited = wire_bytes < g->answers_bytes ? wire_bytes : g->answers_bytes;
    g->answers_bytes -= awaited;
    shaper_debit(&g->down, now_monotonic_us(), wire_bytes - awaited);
}

/* A frame takes this long to leave even when nothing is before it. */
uint32_t uplink_gate_leaves_ms(const struct uplink *u, uint32_t frame_bytes) {
    const struct uplink_gate *g = &u->gate;
    uint64_t limit = g->shaper.limit_bytes_per_s;
    return limit == 0 ? 0 : (uint32_t)(shaper_wire_bytes(&g->path, frame_bytes) * 1000 / limit);
}

static bool answers_fit(struct uplink *u) {
    struct shaper *down = &u->gate.down;
    if (down->limit_bytes_per_s == 0) {
        return true;
    }
    shaper_debit(down, now_monotonic_us(), 0); /* time has passed */
    uint64_t wait_ms = shaper_wait_us(down, &u->gate.path, ANSWER_BYTES) / 1000;
    if (wait_ms == 0) {
        return true;
    }
    uint64_t at_ms = loop_now_ms(u->x.loop) + wait_ms + 1;
    if (u->timer.place == 0 || u->timer.deadline_ms > at_ms) {
        loop_timer_set(u->x.loop, &u->timer, at_ms);
    }
    return false;
}

bool uplink_gate_room(struct uplink *u, uint32_t frame_bytes) {
    struct uplink_gate *g = &u->gate;
    if (!answers_fit(u)) {
        return false;
    }
    uint64_t limit = g->shaper.limit_bytes_per_s, unsent = limit > 0 ? mqtt_unsent_bytes(u->mqtt) : 0;
    g->full = limit > 0 && unsent > 0 && unsent + frame_bytes > limit / AHEAD_DIV;
    return !g->full;
}

static void bound_socket(struct uplink *u) {
    u->gate.calm = shaper_calm(&u->gate.shaper, now_monotonic_us());
    mqtt_set_calm(u->mqtt, u->gate.calm);
    uint64_t bytes = u->gate.shaper.limit_bytes_per_s / UNSENT_DIV;
    bytes = bytes < SHAPER_MTU_BYTES ? SHAPER_MTU_BYTES : bytes > UINT32_MAX / 2 ? UINT32_MAX / 2 : bytes;
    mqtt_set_unsent_max(u->mqtt, u->gate.shaper.limit_bytes_per_s > 0 ? (uint32_t)bytes : 0);
}

void uplink_gate_limit(struct uplink *u, uint64_t limit_bytes_per_s) {
    struct uplink_gate *g = &u->gate;
    if (g->shaper.limit_bytes_per_s == limit_bytes_per_s) {
        return;
    }
    struct conn_wire w;
    mqtt_wired(u->mqtt, &w);
    g->granted = 0;
    g->charged_bytes = w.out_bytes;
    shaper_set_limit(&g->shaper, limit_bytes_per_s, now_monotonic_us());
    bound_socket(u);
    mqtt_gate_open(u->mqtt); /* by the new limit it may be */
}

void uplink_gate_connected(struct uplink *u) {
    bound_socket(u);
}

void uplink_gate_begin(struct uplink *u) {
    u->gate = (struct uplink_gate){.open_timer = {.fire = on_open_timer, .context = u},
                                   .path = {.segment_bytes = SEGMENT_BYTES_GUESS, .header_bytes = HEADER_BYTES_GUESS}};
    shaper_init(&u->gate.shaper, u->bandwidth.up_bytes_per_s, now_monotonic_us());
    shaper_init(&u->gate.down, u->bandwidth.down_bytes_per_s, now_monotonic_us());
}

void uplink_gate_end(struct uplink *u) {
    loop_timer_cancel(u->x.loop, &u->gate.open_timer);
}
