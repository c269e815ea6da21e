/* The leader computes when schedules are due, and proposes their runs.  A firing names the instant at which the schedule was due, so two
 * leaders cannot both make it. */
#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "agent/work/cron.h"
#include "agent/work/work.h"
#include "platform/log.h"

struct firing {
    struct node *node;
    struct grey_name id;
    int64_t due_ms;
};

/* The schedule that is due first; NULL: there is none. */
static const struct task *next_schedule(const struct scheduler *s) {
    const struct task *first = NULL;
    for (const struct task *t = s->schedules > 0 ? scheduler_next(s, NULL) : NULL; t != NULL; t = scheduler_next(s, t)) {
        if (t->is_schedule && t->state == TASK_PENDING && t->firing_ms >= 0 && (first == NULL || t->firing_ms < first->firing_ms)) {
            first = t;
        }
    }
    return first;
}

/* The next, by ticket, of those that are to be looked at again. */
static const struct task *next_doubtful(const struct node *n, const struct scheduler *s) {
    const struct task *first = NULL;
    bool any = n->foreman.reconsidered < s->saved.tickets;
    for (const struct task *t = any && s->schedules > 0 ? scheduler_next(s, NULL) : NULL; t != NULL; t = scheduler_next(s, t)) {
        if (t->is_schedule && t->state == TASK_PENDING && t->item.ticket > n->foreman.reconsidered &&
            (first == NULL || t->item.ticket < first->item.ticket)) {
            first = t;
        }
    }
    return first;
}

int64_t firings_due_ms(const struct node *n, const struct scheduler *s) {
    const struct task *t = next_schedule(s);
    return next_doubtful(n, s) != NULL ? 0 : t == NULL ? INT64_MAX : t->firing_ms;
}

void firings_reconsider(struct node *n) {
    n->foreman.reconsidered = 0;
}

/* A clock that was set back leaves a schedule due after a hole that is not there; one that is due too early or has passed is for the rule
 * of missed runs. */
static void propose(struct node *n, const struct firing *x, const struct task_order *order, const struct cron *c) {
    int64_t firings[TASK_MISSED_MAX], next_ms, now_ms = node_site_time_ms(n);
    size_t count = 0;
    if (x->due_ms >= 0 && x->due_ms <= now_ms) {
        count = cron_due(c, x->due_ms, now_ms, order->missed, order->missed_max, firings, &next_ms);
    } else {
        next_ms = cron_next(c, now_ms);
        if (next_ms == x->due_ms) {
            return;
        }
    }
    struct builder b;
    builder_init(&b, 4096);
    payload_task_fire(&b, bytes_str(x->id.text), x->due_ms, firings, count, next_ms);
    log_info("firings", "fire", "task=%s runs=%zu", x->id.text, count);
    foreman_propose(n, ENTRY_TASK, &b);
}

static void fire(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct firing *x = context;
    struct node *n = x->node;
    struct site_facts site;
    struct task_order order;
    struct cron c;
    n->foreman.reading = false;
    if (payload == NULL || payload_task_order(blob_bytes(payload), &order, NULL) != E_OK || cron_of(&order, &c, NULL) != E_OK) {
        log_limited(LOG_WARN, "firings", "fire", "task=%s: its order cannot be read: error=%s %s", x->id.text, error_name(err),
                    detail);
    } else if (n->leading && foreman_ready(n, &site)) {
        propose(n, x, &order, &c);
    }
    foreman_arm(n);
    mem_free(x);
}

void firings_make(struct node *n, const struct scheduler *s, int64_t now_ms) {
    if (n->foreman.reading) {
        return;
    }
    const struct task *t = next_doubtful(n, s);
    if (t != NULL) {
        n->foreman.reconsidered = t->item.ticket;
    } else {
        n->foreman.reconsidered = s->saved.tickets; /* those that come now are computed by the clock as it is */
        t = next_schedule(s);
        if (t == NULL || t->firing_ms > now_ms) {
            return;
        }
    }
    struct firing *x = mem_new(1, sizeof *x);
    if (x != NULL) {
        x->node = n;
        x->due_ms = t->firing_ms;
        memcpy(x->id.text, t->vertex->id, t->vertex->id_bytes);
        n->foreman.reading = true;
        node_payload(n, t->order_index, fire, x);
    }
}
