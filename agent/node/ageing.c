/* What waits for the core grows old: events with a time to live leave by an entry of the log, so that all gateways agree which; and what
 * has waited longer than a site may be offline is an alarm. */
#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define PROPOSE_MS 10000u /* between two entries: each costs a commit on every disk */
#define HOUR_MS (3600 * 1000)

static struct metric overdue_gauge =
    METRIC_GAUGE("grey_federation_offline_alarm",
                 "1 while something has waited for the core longer than federation.offline.max_offline_duration_hours.");

void ageing_start(void) {
    metrics_register(&overdue_gauge);
}

static void proposed(void *context, const struct node_answer *a) {
    struct node *n = context;
    n->ageing.proposed = false;
    if (a->err != E_OK && a->err != E_NOT_LEADER) {
        log_limited(LOG_WARN, "queue", "proposal", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
}

static void propose(struct node *n, enum entry_kind kind, struct bytes content) {
    struct blob *payload = blob_copy(content);
    if (payload != NULL) {
        n->ageing.proposed = true;
        n->ageing.proposed_ms = loop_now_ms(n->x.loop);
        requests_decide(n, kind, payload, true, proposed, n);
        blob_unref(payload);
    }
}

/* Limits count for the whole site: the leader's configuration is what all gateways go by. */
static bool limits_differ(struct node *n, struct builder *wanted) {
    struct builder in_force;
    builder_init(&in_force, 4096);
    payload_limits(wanted, &n->o.queue);
    payload_limits(&in_force, state_limits(n->state));
    bool differ = wanted->err == E_OK && in_force.err == E_OK && !bytes_equal(builder_bytes(wanted), builder_bytes(&in_force));
    builder_free(&in_force);
    return differ;
}

static void see_to_limits(struct node *n) {
    struct builder wanted;
    builder_init(&wanted, 4096);
    if (!n->ageing.proposed && limits_differ(n, &wanted)) {
        propose(n, ENTRY_LIMITS, builder_bytes(&wanted));
    }
    builder_free(&wanted);
}

void ageing_leading(struct node *n) {
    see_to_limits(n);
}

static void watch(struct node *n) {
    int64_t oldest_ms = INT64_MAX;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(n->state, (enum event_channel)c, &f);
        oldest_ms = f.oldest_time_ms != 0 && f.oldest_time_ms < oldest_ms ? f.oldest_time_ms : oldest_ms;
    }
    int64_t age_ms = oldest_ms == INT64_MAX ? 0 : node_site_time_ms(n) - oldest_ms;
    bool overdue = n->o.offline_hours_max > 0 && age_ms > (int64_t)n->o.offline_hours_max * HOUR_MS;
    if (overdue && !n->ageing.overdue) {
        log_error("queue", "overdue",
                  "events have waited for the core for %" PRId64
                  " h, longer than federation.offline.max_offline_duration_hours (%" PRIu32
                  "): nothing leaves for that; bring the link back before the queue is full",
                  age_ms / HOUR_MS, n->o.offline_hours_max);
    } else if (!overdue && n->ageing.overdue) {
        log_info("queue", "overdue-ends", "the core has what had waited too long");
    }
    n->ageing.overdue = overdue;
    metrics_set(&overdue_gauge, 0, overdue);
}

void ageing_duty(struct node *n) {
    if (n->o.witness || n->installing) {
        return;
    }
    watch(n);
    if (!n->leading || n->ageing.proposed || loop_now_ms(n->x.loop) < n->ageing.proposed_ms + PROPOSE_MS) {
        return;
    }
    see_to_limits(n);
    if (!n->ageing.proposed && state_expiry_ms(n->state) <= node_site_time_ms(n)) {
        propose(n, ENTRY_EXPIRE, bytes_of(NULL, 0));
    }
}

void ageing_entry(struct node *n) {
    if (!n->ageing.proposed && loop_now_ms(n->x.loop) >= n->ageing.proposed_ms + PROPOSE_MS) {
        propose(n, ENTRY_EXPIRE, bytes_of(NULL, 0));
    }
}

bool node_overdue(const struct node *n) {
    return n->ageing.overdue;
}
