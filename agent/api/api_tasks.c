#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/api/taskform.h"
#include "agent/work/cron.h"
#include "agent/work/work.h"
#include "include/grey/protocol.h"
#include "platform/keys.h"
#include "platform/zonefile.h"

#define LIST_DEFAULT 1000u
#define LIST_MAX 10000u

static struct scheduler *scheduler_of(const struct api_call *c) {
    return state_scheduler(node_state(c->api->o.node));
}

/* An older gateway would stop at such an entry.  Answers the call when it is too early. */
static bool level_reached(struct api_call *c) {
    struct site_facts site;
    if (state_site(node_state(c->api->o.node), &site) && site.feature_level >= FEATURE_LEVEL_TASKS) {
        return true;
    }
    api_call_error(c, E_NOT_HERE_YET, "a gateway of the site runs a version without tasks, or did not answer yet; upgrade all");
    return false;
}

static void propose(struct api_call *c, enum entry_kind kind, struct builder *payload, node_done *done) {
    struct blob *blob = builder_blob(payload);
    enum grey_error err = payload->err;
    builder_free(payload);
    if (blob == NULL) {
        api_call_error(c, err != E_OK ? err : E_NO_MEMORY, "");
        return;
    }
    node_propose(c->api->o.node, kind, blob, true, done, c);
    blob_unref(blob);
}

static struct bytes call_name(const struct api_call *c) {
    return bytes_of(c->arg, c->arg_size);
}

/* --- One task --------------------------------------------------------------------------------------------------------------------------------- */

struct one {
    struct api_call *c;
    raft_index order_index;
};

static void send_one(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct one *o = context;
    struct api_call *c = o->c;
    const struct scheduler *s = scheduler_of(c);
    const struct task *t = s == NULL ? NULL : scheduler_find(s, call_name(c));
    struct task_order order;
    mem_free(o);
    if (t == NULL) {
        api_call_error(c, s == NULL ? E_NO_MEMORY : E_NOT_FOUND, "the task was forgotten while it was read");
        return;
    }
    if (err != E_OK && err != E_NOT_FOUND) {
        api_call_error(c, err, detail);
        return;
    }
    bool has_order = payload != NULL && payload_task_order(blob_bytes(payload), &order, NULL) == E_OK;
    struct api_answer a;
    api_answer_begin(&a);
    struct work_output output;
    bool has_output = work_output(state_table(node_state(c->api->o.node)), call_name(c), &output);
    taskform_write(&a.w, s, t, has_order ? &order : NULL, has_output ? &output : NULL);
    api_answer_send(&a, c, 200, NULL, 0);
}

static void get_one(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
        return;
    }
    const struct scheduler *s = scheduler_of(c);
    const struct task *t = s == NULL ? NULL : scheduler_find(s, call_name(c));
    struct one *o = t == NULL ? NULL : mem_new(1, sizeof *o);
    if (o == NULL) {
        api_call_error(c, s != NULL && t == NULL ? E_NOT_FOUND : E_NO_MEMORY, s != NULL && t == NULL ? "no such task" : "");
        return;
    }
    *o = (struct one){c, t->order_index};
    node_payload(c->api->o.node, o->order_index, send_one, o);
}

void api_task_get(struct api_call *c) {
    node_read_barrier(c->api->o.node, get_one, c);
}

/* --- Submit and cancel ------------------------------------------------------------------------------------------------------------------------ */

static void answered(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    bool duplicate = false;
    enum task_state state = TASK_PENDING;
    if (a->err != E_OK || !answer_task(a->answer, &duplicate, &state)) {
        api_call_error(c, a->err != E_OK ? a->err : E_OUTCOME_UNKNOWN,
                       a->err != E_OK ? a->detail : "it is done; the leader's answer cannot be read");
        return;
    }
    bool posted = http_method(c->q)[0] == 'P';
    char index[24], epoch[24];
    (void)snprintf(index, sizeof index, "%" PRIu64, a->index);
    (void)snprintf(epoch, sizeof epoch, "%" PRIu64, a->epoch);
    struct http_extra extra[] = {{"X-Grey-Index", index}, {"X-Grey-Epoch", epoch}};
    struct api_answer out;
    api_answer_begin(&out);
    json_open(&out.w, '{');
    json_member_text(&out.w, "id", call_name(c));
    json_member_str(&out.w, "state", task_name(NAMES_STATE, state));
    json_member_uint(&out.w, "index", a->index);
    if (posted) {
        json_member_bool(&out.w, "duplicate", duplicate);
    }
    json_close(&out.w);
    api_answer_send(&out, c, posted && !duplicate ? 201 : 200, extra, 2);
}

/* A task that nobody would ever run is not taken. */
static bool work_offered(struct api_call *c) {
    const struct scheduler *s = state_scheduler(node_state(c->api->o.node));
    if (s != NULL && s->placement.count > 0) {
        return true;
    }
    api_call_error(c, E_NOT_HERE_YET,
                   "no gateway of this site takes tasks: no launcher answers any of them, or scheduler.enabled is off");
    return false;
}

/* What the order does not say itself: the rule of its zone, out of this gateway's tables or given as such, and its first firing. */
static enum grey_error schedule_read(struct api_call *c, struct task_order *o, struct builder *rule, int64_t *firing_ms,
                                     struct fault *f) {
    struct cron schedule;
    struct zone given;
    struct fault why = {0};
    enum grey_error err = E_OK;
    if (o->zone.size > 0 && zone_parse(o->zone, &given, &why) == E_OK) {
        builder_add(rule, o->zone);
    } else if (o->zone.size > 0 && zonefile_rule(ZONEFILE_FOLDER, o->zone, rule, &why) != E_OK) {
        return fault_set(f, E_BAD_REQUEST, "time_zone: %.200s", why.text); /* of this machine, not of the site */
    }
    o->zone_rule = builder_bytes(rule);
    err = cron_of(o, &schedule, f);
    *firing_ms = err == E_OK ? cron_next(&schedule, node_site_time_ms(c->api->o.node)) : -1;
    return err == E_OK && *firing_ms < 0 ? fault_set(f, E_BAD_REQUEST, "\"schedule\": no such day exists") : err;
}

/* What gateways that run older versions do not know. */
static const char *unknown_to_some(struct api_call *c, const struct task_order *o) {
    struct site_facts site;
    uint32_t level = state_site(node_state(c->api->o.node), &site) ? site.feature_level : 0;
    return level < task_level(o)
               ? "a gateway of the site runs a version that does not know all that this task asks for; upgrade all"
               : NULL;
}

void api_task_post(struct api_call *c) {
    struct taskform form;
    struct builder rule;
    struct fault f = {0};
    uint64_t random;
    int64_t firing_ms = -1;
    if (!level_reached(c) || !work_offered(c)) {
        return;
    }
    keys_random(&random, sizeof random);
    enum grey_error err = taskform_read(&form, http_body(c->q), task_lane_of(c->api->o.task_priority), random, &f);
    builder_init(&rule, 256);
    if (err == E_OK && form.order.lane == LANE_PREEMPT && c->api->o.lanes < LANE_COUNT) {
        form.order.lane = LANE_LOW; /* lane preempt is off here */
    }
    if (err == E_OK && form.order.schedule.size > 0) {
        err = schedule_read(c, &form.order, &rule, &firing_ms, &f);
    }
    const char *why = err == E_OK ? unknown_to_some(c, &form.order) : f.text;
    if (why != NULL) {
        taskform_free(&form);
        builder_free(&rule);
        api_call_error(c, err != E_OK ? err : E_NOT_HERE_YET, why);
        return;
    }
    struct builder payload;
    builder_init(&payload, TASK_ORDER_BYTES_MAX + 64 + API_ORIGIN_BYTES_MAX);
    api_origin_put(c, &payload);
    bool near = c->api->o.local_affinity && api_level(c, FEATURE_LEVEL_OFFLOAD);
    payload_task_submit_near(&payload, &form.order, firing_ms, bytes_str(near ? node_name(c->api->o.node) : ""));
    c->arg_size = form.order.id.size; /* a name, so it has room */
    memcpy(c->arg, form.order.id.data, c->arg_size);
    taskform_free(&form);
    builder_free(&rule);
    propose(c, ENTRY_TASK, &payload, answered);
}

void api_task_delete(struct api_call *c) {
    struct builder payload;
    if (!level_reached(c)) {
        return;
    }
    if (!grey_name_valid(c->arg, c->arg_size)) {
        api_call_error(c, E_NOT_FOUND, "no such task");
        return;
    }
    builder_init(&payload, 256 + API_ORIGIN_BYTES_MAX);
    api_origin_put(c, &payload);
    payload_task_cancel(&payload, call_name(c));
    propose(c, ENTRY_TASK, &payload, answered);
}

/* --- Lists ---------------------------------------------------------------------------------------------------------------------------------------- */

struct filter {
    char after[LIMIT_NAME_BYTES + 1], tenant[LIMIT_NAME_BYTES + 1], state[16];
    uint32_t limit;
};

static bool wanted(const struct filter *f, const struct task *t) {
    return (f->tenant[0] == 0 || strcmp(f->tenant, t->tenant->name.text) == 0) &&
           (f->state[0] == 0 || strcmp(f->state, task_name(NAMES_STATE, t->state)) == 0);
}

static bool read_filter(struct api_call *c, struct filter *f, const char **why) {
    char text[16];
    unsigned ignored;
    *f = (struct filter){.limit = LIST_DEFAULT};
    (void)http_query(c->q, "after", f->after, sizeof f->after);
    (void)http_query(c->q, "tenant", f->tenant, sizeof f->tenant);
    if (http_query(c->q, "state", f->state, sizeof f->state) && !task_number(NAMES_STATE, bytes_str(f->state), &ignored)) {
        *why = "state: pending, queued, assigned, running, completed, failed, cancelled or preempted";
        return false;
    }
    if (http_query(c->q, "limit", text, sizeof text)) {
        char *end;
        unsigned long limit = strtoul(text, &end, 10);
        if (*end != 0 || text[0] == 0 || limit < 1 || limit > LIST_MAX) {
            *why = "limit is a number from 1 to 10000";
            return false;
        }
        f->limit = (uint32_t)limit;
    }
    return true;
}

/* By id, which is the order of rows. */
static void list(void *context, const struct node_answer *answer) {
    struct api_call *c = context;
    const struct scheduler *s = answer->err == E_OK ? scheduler_of(c) : NULL;
    struct filter f;
    const char *why = "";
    if (s == NULL || !read_filter(c, &f, &why)) {
        api_call_error(c,
                       answer->err != E_OK ? answer->err
                       : s == NULL         ? E_NO_MEMORY
                                           : E_BAD_REQUEST,
                       s == NULL ? answer->detail : why);
        return;
    }
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_open(&a.w, "tasks", '[');
    uint8_t after[LIMIT_NAME_BYTES + 2];
    size_t size = strlen(f.after);
    memcpy(after, f.after, size + 1);
    struct bytes from = bytes_of(after, size == 0 ? 0 : size + 1), key, value;
    raft_index ref;
    uint32_t count = 0;
    bool more = false;
    char last[LIMIT_NAME_BYTES + 1] = "";
    while (!more && table_next(node_table(c->api->o.node), TABLE_TASK, from, &key, &value, &ref)) {
        const struct task *t = scheduler_find(s, key);
        if (t != NULL && wanted(&f, t)) {
            more = count == f.limit;
            if (!more) {
                taskform_write(&a.w, s, t, NULL, NULL);
                count++;
                (void)snprintf(last, sizeof last, "%s", t->vertex->id);
            }
        }
        memcpy(after, key.data, key.size);
        after[key.size] = 0;
        from = bytes_of(after, key.size + 1);
    }
    json_close(&a.w);
    json_key(&a.w, "next");
    if (more) {
        json_str(&a.w, last);
    } else {
        json_none(&a.w);
    }
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_task_list(struct api_call *c) {
    struct filter f;
    const char *why = "";
    if (!read_filter(c, &f, &why)) {
        api_call_error(c, E_BAD_REQUEST, why);
        return;
    }
    node_read_barrier(c->api->o.node, list, c);
}
