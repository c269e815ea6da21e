/* Tasks that may leave the site: when they do, how the core hears of them, and how they come back.  The log says which tasks are with the
 * core and under which token; all else is told again until it is known: a task to the core by an event whose id the site remembers, an end
 * by the core until the site's event says that it is settled. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/node/node_core.h"
#include "agent/work/cron.h"
#include "agent/work/orderform.h"
#include "agent/work/work.h"
#include "federation/offload.h"
#include "federation/record.h"
#include "include/grey/protocol.h"
#include "platform/log.h"

#define AWAY_MS 5000u /* a link that is gone for so long is away: what waits is run here */
#define LOAD_ON 700u  /* permille: where the yellow zone begins */
#define LOAD_OFF 600u /* ... and well below it */
#define ERRAND_BYTES_MAX LIMIT_EVENT_BYTES

/* --- When ------------------------------------------------------------------------------------------------------------------------------------- */

/* In one of the hours of the configuration, by the clock on the wall here. */
static bool in_hours(const struct node *n, int64_t now_ms) {
    struct cron hours;
    struct fault ignored;
    struct tm t;
    time_t now_s = (time_t)(now_ms / 1000);
    if (cron_parse(bytes_str(n->o.offload_hours), &hours, &ignored) != E_OK || localtime_r(&now_s, &t) == NULL) {
        return false;
    }
    int64_t local_ms = now_ms + (int64_t)t.tm_gmtoff * 1000, at_ms = cron_next(&hours, local_ms - CRON_ON_TIME_MS);
    return at_ms >= 0 && at_ms <= local_ms;
}

bool offloading_wanted(const struct node *n, const struct scheduler *s) {
    bool away = !n->offloading.there && (!s->saved.offloads || loop_now_ms(n->x.loop) - n->offloading.away_ms >= AWAY_MS);
    uint32_t usage = dispatch_usage(s, LANE_NORMAL);
    if (away) {
        return false;
    }
    switch (n->o.offload_when) {
    case OFFLOAD_WHEN_ALWAYS:
        return true;
    case OFFLOAD_WHEN_HIGH_LOAD:
        return usage >= (s->saved.offloads ? LOAD_OFF : LOAD_ON);
    case OFFLOAD_WHEN_SCHEDULED:
        return in_hours(n, node_site_time_ms(n));
    default:
        return false;
    }
}

/* --- Telling ---------------------------------------------------------------------------------------------------------------------------------- */

static void step(struct node *n);

static void said(struct node *n, const struct node_answer *a) {
    n->offloading.busy = false;
    if (a->err != E_OK && a->err != E_CONDITION && a->err != E_NOT_FOUND && a->err != E_NOT_LEADER) {
        log_limited(LOG_WARN, "offloading", "propose", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
}

static void propose(struct node *n, enum entry_kind kind, struct builder *payload, node_done *done) {
    struct blob *blob = builder_blob(payload);
    builder_free(payload);
    if (blob != NULL) {
        n->offloading.busy = true;
        requests_decide(n, kind, blob, true, done, n);
        blob_unref(blob);
    }
}

/* Priority normal: channel data.  The id is remembered by the site, so what is proposed twice goes up once. */
static void propose_event(struct node *n, const char *type, const char *name, struct bytes data, node_done *done) {
    char id[OFFLOAD_NAME_BYTES + 32], source[LIMIT_NAME_BYTES + 16];
    struct builder b;
    (void)snprintf(id, sizeof id, "%s:%s", type, name);
    (void)snprintf(source, sizeof source, "grey://%s", n->site.text);
    struct event e = {.id = bytes_str(id),
                      .source = bytes_str(source),
                      .type = bytes_str(type),
                      .subject = bytes_str(name),
                      .data = data,
                      .priority = PRIORITY_NORMAL,
                      .has_id = true};
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    codec_put_array(&b, 1);
    record_encode(&e, &b);
    propose(n, ENTRY_EVENTS, &b, done);
}

static void settled(void *context, const struct node_answer *a) {
    struct node *n = context;
    said(n, a);
    if (a->err == E_OK && n->offloading.settle_count > 0) {
        n->offloading.settle_count--;
        memmove(n->offloading.settles[0], n->offloading.settles[1], n->offloading.settle_count * sizeof n->offloading.settles[0]);
        step(n);
    }
}

static void settle(struct node *n, struct bytes task, uint64_t token) {
    char name[OFFLOAD_NAME_BYTES];
    offload_name(name, task, token);
    for (uint32_t i = 0; i < n->offloading.settle_count; i++) {
        if (strcmp(n->offloading.settles[i], name) == 0) {
            return;
        }
    }
    if (n->offloading.settle_count < HANDOVER_SETTLES) { /* else the core says it again */
        memcpy(n->offloading.settles[n->offloading.settle_count++], name, sizeof name);
    }
}

/* --- Orders ----------------------------------------------------------------------------------------------------------------------------------- */

/* The task with the core that has the least token above `above`. */
static const struct task *next_away(const struct scheduler *s, uint64_t above) {
    const struct task *first = NULL;
    for (const struct task *t = s->away > 0 ? scheduler_next(s, NULL) : NULL; t != NULL; t = scheduler_next(s, t)) {
        if (scheduler_is_away(t) && t->token > above && (first == NULL || t->token < first->token)) {
            first = t;
        }
    }
    return first;
}

static void announced(void *context, const struct node_answer *a) {
    struct node *n = context;
    said(n, a);
    if (a->err == E_OK) {
        n->offloading.announced = n->offloading.token;
        step(n);
    }
}

static void recalled(void *context, const struct node_answer *a) {
    struct node *n = context;
    said(n, a);
    if (a->err == E_OK) { /* what is still done there is for nothing */
        settle(n, bytes_str(n->offloading.task.text), n->offloading.token);
    }
    if (a->err == E_OK || a->err == E_CONDITION || a->err == E_NOT_FOUND) {
        n->offloading.judged = n->offloading.token;
        step(n);
    }
}

static void tell(struct node *n, const struct task_order *o) {
    char name[OFFLOAD_NAME_BYTES];
    struct builder text;
    struct json_writer w;
    builder_init(&text, ERRAND_BYTES_MAX);
    json_writer_init(&w, &text);
    orderform_errand(&w, o);
    offload_name(name, bytes_str(n->offloading.task.text), n->offloading.token);
    if (text.err == E_OK) {
        log_info("offloading", "offload", "task=%s token=%" PRIu64, n->offloading.task.text, n->offloading.token);
        propose_event(n, OFFLOAD_GIVEN, name, builder_bytes(&text), announced);
    } else {
        n->offloading.announced =
            n->offloading.token; /* larger than an event may be: comes back when its turn to be judged is there */
    }
    builder_free(&text);
}

static void take_back(struct node *n, enum task_report report, const struct offload_result *r, node_done *done) {
    struct builder b;
    struct work_return w = {.id = bytes_str(n->offloading.task.text), .token = n->offloading.token, .report = report};
    if (r != NULL) {
        w.exit_status = r->exit_status;
        w.output_hash = r->output_hash;
        w.output_bytes = r->output_bytes;
        w.output = r->output;
    }
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    payload_task_return(&b, &w);
    log_info("offloading", report == REPORT_STOPPED ? "recall" : "return", "task=%s token=%" PRIu64, n->offloading.task.text,
             n->offloading.token);
    propose(n, ENTRY_TASK, &b, done);
}

/* Has the link been away for longer than the task waits? */
static void judge(struct node *n, const struct task_order *o) {
    uint64_t away_ms = loop_now_ms(n->x.loop) - n->offloading.away_ms;
    if (!n->offloading.there && o->offload == OFFLOAD_LOCAL && away_ms >= (uint64_t)o->offload_patience_s * 1000) {
        take_back(n, REPORT_STOPPED, NULL, recalled);
    } else {
        n->offloading.judged = n->offloading.token;
        step(n);
    }
}

static void order_read(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct node *n = context;
    struct site_facts site;
    struct task_order order;
    n->offloading.busy = false;
    if (payload == NULL || payload_task_order(blob_bytes(payload), &order, NULL) != E_OK) {
        log_limited(LOG_WARN, "offloading", "order", "task=%s: its order cannot be read: error=%s %s", n->offloading.task.text,
                    error_name(err), detail);
    } else if (n->leading && foreman_ready(n, &site)) {
        if (n->offloading.token > n->offloading.announced) {
            tell(n, &order);
        } else {
            judge(n, &order);
        }
    }
}

/* One thing after the other: what is settled, what the core is to hear of, and, while the link is away, who waits no more. */
static void step(struct node *n) {
    struct offloading *h = &n->offloading;
    struct scheduler *s = n->leading && !n->stopping && !n->has_failed && !h->busy ? state_scheduler(n->state) : NULL;
    if (s == NULL) {
        return;
    }
    if (h->settle_count > 0) {
        propose_event(n, OFFLOAD_SETTLED, h->settles[0], bytes_of(NULL, 0), settled);
        return;
    }
    const struct task *t = next_away(s, h->announced);
    t = t == NULL && !h->there ? next_away(s, h->judged) : t;
    if (t != NULL) {
        h->busy = true;
        h->token = t->token;
        h->task = (struct grey_name){0};
        memcpy(h->task.text, t->vertex->id, t->vertex->id_bytes);
        node_payload(n, t->order_index, order_read, n);
    }
}

/* --- From elsewhere --------------------------------------------------------------------------------------------------------------------------- */

void offloading_duty(struct node *n) {
    if (!n->leading) {
        n->offloading.announced = n->offloading.judged = 0; /* another leader may have been lost while it told the core */
        n->offloading.settle_count = 0;
        return;
    }
    n->offloading.judged = 0;
    step(n);
}

/* One that is cancelled while it is with the core need not go on there. */
void offloading_applied(struct node *n, const struct scheduler *s, const struct entry *e) {
    struct bytes id = e->kind == ENTRY_TASK ? payload_task_cancelled(blob_bytes(e->payload)) : bytes_of(NULL, 0);
    const struct task *t = id.size == 0 ? NULL : scheduler_find(s, id);
    if (t != NULL && t->state == TASK_CANCELLED && t->may_leave && t->last_node == 0 && t->token > 0) {
        settle(n, id, t->token);
    }
    step(n);
}

void node_core_worker(struct node *n, bool there) {
    if (n->offloading.there && !there) {
        n->offloading.away_ms = loop_now_ms(n->x.loop);
    }
    n->offloading.there = there;
}

void node_task_result(struct node *n, const struct offload_result *r) {
    struct scheduler *s = n->leading && !n->stopping && !n->has_failed ? state_scheduler(n->state) : NULL;
    if (s == NULL || n->offloading.busy) {
        return; /* the core says it again */
    }
    const struct task *t = scheduler_find(s, r->task);
    if (t == NULL || !scheduler_is_away(t) || t->token != r->token) {
        settle(n, r->task, r->token); /* it has ended, or is not there any more */
        step(n);
        return;
    }
    n->offloading.token = r->token;
    n->offloading.task = (struct grey_name){0};
    memcpy(n->offloading.task.text, r->task.data, r->task.size);
    take_back(n,
              r->end == OFFLOAD_COMPLETED ? REPORT_COMPLETED
              : r->end == OFFLOAD_FAILED  ? REPORT_FAILED
                                          : REPORT_STOPPED,
              r, recalled);
}
