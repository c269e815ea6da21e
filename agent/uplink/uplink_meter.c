#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "agent/uplink/uplink_core.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

/* What the link costs and what it may cost: each byte of the wire goes into the ledger and, where there are budgets, is spent from
 * them.  Once a second (ten when idle) the windows and the date are looked at.  The time is the site's, so that all leaders agree. */

#define DAY_S 86400
#define PUBLISH_BYTES 48u /* MQTT and TLS around a frame, about: only shares depend on it */

static const char *const features[] = {"control", "events",     "data",    "attestation", "traces",
                                       "logs",    "handshakes", "resends", "session"};
static_assert(sizeof features / sizeof features[0] == LEDGER_FEATURES, "a label for each feature");
static const char *const channels[] = {"control", "events", "data"};
static struct metric up_bytes = METRIC_COUNTER_LABELS(
    "grey_federation_up_bytes_total", "Bytes towards the core on the wire, IP and TCP headers included, by what they were for.",
    "feature", features);
static struct metric down_bytes = METRIC_COUNTER_LABELS(
    "grey_federation_down_bytes_total", "Bytes from the core on the wire, IP and TCP headers included, by what they were for.",
    "feature", features);
static struct metric limit =
    METRIC_GAUGE("grey_federation_limit_bytes_per_second", "What the link may carry towards the core just now; 0: no limit.");
static struct metric held =
    METRIC_GAUGE_LABELS("grey_federation_held", "1 while a window or a spent budget holds the channel back.", "channel", channels);
static struct metric day_used = METRIC_GAUGE("grey_federation_budget_day_used_bytes", "Of the day's budget, both directions.");
static struct metric month_used =
    METRIC_GAUGE("grey_federation_budget_month_used_bytes", "Of the month's budget, both directions.");

void uplink_meter_register(void) {
    struct metric *const all[] = {&up_bytes, &down_bytes, &limit, &held, &day_used, &month_used};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
}

/* --- counting ------------------------------------------------------------------------------------------------------------------------- */

static void settle_probes(struct uplink *u) {
    struct uplink_meter *m = &u->meter;
    uint64_t up = u->probe.wire.out_bytes - m->probed.out_bytes, down = u->probe.wire.in_bytes - m->probed.in_bytes;
    m->probed = u->probe.wire;
    if (up + down > 0) {
        budget_spend(&m->used, up + down);
        ledger_direct(&m->ledger, LEDGER_UP, LEDGER_HANDSHAKES, up);
        ledger_direct(&m->ledger, LEDGER_DOWN, LEDGER_HANDSHAKES, down);
        shaper_debit(&u->gate.shaper, now_monotonic_us(), up);
    }
}

void uplink_meter_settle(struct uplink *u) {
    struct uplink_meter *m = &u->meter;
    struct conn_wire w;
    mqtt_wired(u->mqtt, &w);
    uint64_t up = w.out_bytes - m->seen.out_bytes, down = w.in_bytes - m->seen.in_bytes, now_ms = loop_now_ms(u->x.loop);
    uint64_t resent = w.resent_bytes - m->seen.resent_bytes;
    uplink_gate_settle(u, &w); /* compares with what was seen before */
    m->seen = w;
    settle_probes(u);
    if (up == 0 && down == 0) {
        return;
    }
    budget_spend(&m->used, up + down);
    uplink_gate_heard(u, down);
    if (!m->connected) {
        ledger_direct(&m->ledger, LEDGER_UP, LEDGER_HANDSHAKES, up);
        ledger_direct(&m->ledger, LEDGER_DOWN, LEDGER_HANDSHAKES, down);
        return;
    }
    resent = resent < up ? resent : up;
    ledger_direct(&m->ledger, LEDGER_UP, LEDGER_RESENDS, resent);
    ledger_wire(&m->ledger, LEDGER_UP, up - resent, now_ms);
    ledger_wire(&m->ledger, LEDGER_DOWN, down, now_ms);
}

void uplink_meter_sent(struct uplink *u, enum ledger_feature f, size_t frame_bytes) {
    ledger_note(&u->meter.ledger, LEDGER_UP, f, shaper_wire_bytes(&u->gate.path, frame_bytes + PUBLISH_BYTES));
}

void uplink_meter_received(struct uplink *u, enum ledger_feature f, size_t frame_bytes) {
    ledger_note(&u->meter.ledger, LEDGER_DOWN, f, shaper_wire_bytes(&u->gate.path, frame_bytes + PUBLISH_BYTES));
}

void uplink_meter_connected(struct uplink *u) {
    uplink_meter_settle(u);
    u->meter.connected = true;
    uplink_gate_connected(u);
}

void uplink_meter_closed(struct uplink *u) {
    uplink_meter_settle(u);
    u->meter.connected = false;
    ledger_cut(&u->meter.ledger);
}

/* --- what holds now --------------------------------------------------------------------------------------------------------------------- */

/* The date and the hour where the contract is (TZ). */
static bool wall_clock(struct uplink *u, struct window_time *t, uint32_t *day, uint32_t *month) {
    int64_t site_ms = node_site_time_ms(u->node);
    time_t seconds = (time_t)(site_ms / 1000);
    struct tm local;
    if (site_ms < 0 || localtime_r(&seconds, &local) == NULL) {
        return false;
    }
    *t = (struct window_time){.minute = (uint8_t)local.tm_min,
                              .hour = (uint8_t)local.tm_hour,
                              .day = (uint8_t)local.tm_mday,
                              .month = (uint8_t)(local.tm_mon + 1),
                              .weekday = (uint8_t)local.tm_wday};
    *day = (uint32_t)((site_ms / 1000 + local.tm_gmtoff) / DAY_S);
    *month = budget_month((uint32_t)local.tm_year + 1900, t->month, t->day, u->bandwidth.month_begins_day);
    return true;
}

static void hold_channels(struct uplink *u) {
    struct uplink_meter *m = &u->meter;
    bool spent = !budget_allows(&u->bandwidth.budget, &m->used, false);
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        bool hold = c != CHANNEL_CONTROL && !u->bandwidth.privileged[c] && (m->rule.forbids[c] || spent);
        if (hold != m->held[c]) {
            log_info("uplink", hold ? "hold" : "release", "channel=%s reason=%s", channels[c],
                     !hold                ? "over"
                     : m->rule.forbids[c] ? "window"
                                          : "budget");
        }
        m->held[c] = hold;
        metrics_set(&held, (unsigned)c, hold);
    }
}

void uplink_meter_look(struct uplink *u) {
    struct uplink_meter *m = &u->meter;
    struct window_time t;
    uint32_t day, month;
    struct window_rule rule = {.up_bytes_per_s = u->bandwidth.up_bytes_per_s, .down_bytes_per_s = u->bandwidth.down_bytes_per_s};
    uplink_meter_settle(u);
    if (wall_clock(u, &t, &day, &month)) {
        budget_date(&m->used, day, month);
        window_apply(u->bandwidth.windows, u->bandwidth.window_count, &t, &rule);
    }
    bool down_changed = rule.down_bytes_per_s != m->rule.down_bytes_per_s;
    m->rule = rule;
    if (rule.up_bytes_per_s != u->gate.shaper.limit_bytes_per_s) {
        log_info("uplink", "limit", "bytes_per_s=%" PRIu64, rule.up_bytes_per_s);
        uplink_gate_limit(u, rule.up_bytes_per_s);
    }
    if (down_changed) {
        shaper_set_limit(&u->gate.down, rule.down_bytes_per_s, now_monotonic_us());
        if (u->welcomed) {
            uplink_session_again(u, "the limit of what comes down has changed"); /* the core paces by what the hello says */
        }
    }
    hold_channels(u);
    metrics_set(&limit, 0, (int64_t)rule.up_bytes_per_s);
    metrics_set(&day_used, 0, (int64_t)m->used.day_bytes);
    metrics_set(&month_used, 0, (int64_t)m->used.month_bytes);
}

bool uplink_meter_holds(struct uplink *u, enum event_channel c) {
    if (u->meter.held[c] != (c != CHANNEL_CONTROL && !u->bandwidth.privileged[c] &&
                             (u->meter.rule.forbids[c] || !budget_allows(&u->bandwidth.budget, &u->meter.used, false)))) {
        hold_channels(u); /* the last byte of the budget has just gone */
    }
    return u->meter.held[c];
}

/* --- what the log knows ----------------------------------------------------------------------------------------------------------------- */

void uplink_meter_lead(struct uplink *u) {
    struct uplink_meter *m = &u->meter;
    struct budget_used mine = m->used;
    state_usage(uplink_state(u), &m->used);
    m->told = m->used;
    budget_learn(&m->used, &mine); /* this node may have led before, and know of more */
    uplink_meter_look(u);
}

bool uplink_meter_tell(const struct uplink *u) {
    return budget_limited(&u->bandwidth.budget) && budget_tell(&u->bandwidth.budget, &u->meter.used, &u->meter.told);
}

const struct budget_used *uplink_meter_told(struct uplink *u) {
    if (!budget_limited(&u->bandwidth.budget)) {
        return NULL;
    }
    u->meter.told = u->meter.used;
    return &u->meter.told;
}

void uplink_meter_facts(const struct uplink *u, struct uplink_facts *out) {
    const struct uplink_meter *m = &u->meter;
    out->ledger = &m->ledger;
    out->bandwidth = &u->bandwidth;
    out->rule = &m->rule;
    out->used = &m->used;
    memcpy(out->held, m->held, sizeof out->held);
    for (unsigned f = 0; f < LEDGER_FEATURES; f++) {
        metrics_set(&up_bytes, f, (int64_t)m->ledger.bytes[LEDGER_UP][f]);
        metrics_set(&down_bytes, f, (int64_t)m->ledger.bytes[LEDGER_DOWN][f]);
    }
}
