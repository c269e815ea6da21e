#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/api/quotaform.h"
#include "agent/work/work.h"
#include "include/grey/protocol.h"

/* --- Metrics ------------------------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *help;
} figures[] = {
    {"grey_governance_tenant_cpu_millicores", "Processors that tasks of a tenant, or of its namespace, hold."},
    {"grey_governance_tenant_cpu_limit_millicores", "Its share of them, without bursts."},
    {"grey_governance_tenant_memory_bytes", "Memory that its tasks hold."},
    {"grey_governance_tenant_memory_limit_bytes", "Its share of that."},
    {"grey_governance_tenant_waiting_tasks", "Tasks of a tenant that could run and wait for a place."},
    {"grey_governance_tenant_burst_left_seconds", "Time that a tenant may still be above its share."},
};
#define FIGURES (sizeof figures / sizeof figures[0])
#define FIGURES_OF_BOTH 4u /* the rest are of tenants only */

static uint64_t waiting_of(const struct quota_tenant *t) {
    const struct lane_flow *f = t->owner;
    uint64_t waiting = 0;
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        waiting += f->counts[lane];
    }
    return waiting;
}

static uint64_t figure_of(size_t which, const struct quota_tenant *t, struct quota_amount used, struct quota_amount limit) {
    const uint64_t values[FIGURES] = {used.cpu_millicores, limit.cpu_millicores, used.memory_bytes,
                                      limit.memory_bytes,  waiting_of(t),        t->burst_left_ms / 1000};
    return values[which];
}

void api_quotas_metrics(const struct scheduler *s, struct builder *out) {
    builder_addf(out,
                 "# HELP grey_governance_zone 0 green, 1 yellow, 2 red, 3 emergency.\n# TYPE grey_governance_zone gauge\n"
                 "grey_governance_zone %d\n",
                 (int)quota_zone(dispatch_usage(s, LANE_NORMAL)));
    for (size_t i = 0; i < FIGURES; i++) {
        builder_addf(out, "# HELP %s %s\n# TYPE %s gauge\n", figures[i].name, figures[i].help, figures[i].name);
        for (uint32_t k = 0; k < s->quota.count; k++) {
            const struct quota_tenant *t = s->quota.tenants[k];
            builder_addf(out, "%s{tenant=\"%s\"} %" PRIu64 "\n", figures[i].name, t->name.text,
                         figure_of(i, t, t->used, quota_limit(&s->quota, t)));
            for (uint32_t n = 1; n < t->namespace_count && i < FIGURES_OF_BOTH; n++) {
                const struct quota_namespace *space = &t->namespaces[n];
                if (space->name.text[0] != 0) {
                    builder_addf(out, "%s{tenant=\"%s\",namespace=\"%s\"} %" PRIu64 "\n", figures[i].name, t->name.text,
                                 space->name.text, figure_of(i, t, space->used, quota_namespace_limit(&s->quota, t, space)));
                }
            }
        }
    }
}

/* --- Writing ------------------------------------------------------------------------------------------------------------------------------- */

static void put_percent(struct json_writer *w, const char *name, uint32_t permille) {
    json_member_milli(w, name, (int64_t)permille * 100);
}

static void put_share(struct json_writer *w, struct quota_share share) {
    put_percent(w, "cpu_percent", share.cpu_permille);
    put_percent(w, "memory_percent", share.memory_permille);
}

static void put_amount(struct json_writer *w, const char *name, struct quota_amount a) {
    json_member_open(w, name, '{');
    json_member_uint(w, "cpu_millicores", a.cpu_millicores);
    json_member_uint(w, "memory_bytes", a.memory_bytes);
    json_close(w);
}

static void put_namespace(struct json_writer *w, const struct quota *q, const struct quota_tenant *t,
                          const struct quota_namespace *n) {
    json_open(w, '{');
    json_member_str(w, "name", n->name.text);
    put_share(w, n->share);
    put_amount(w, "limit", quota_namespace_limit(q, t, n));
    put_amount(w, "used", n->used);
    json_member_uint(w, "tasks", n->tasks);
    json_close(w);
}

static void put_tenant(struct json_writer *w, const struct scheduler *s, const struct quota_tenant *t) {
    json_open(w, '{');
    json_member_str(w, "name", t->name.text);
    put_share(w, quota_share_of(&s->quota, t));
    put_amount(w, "limit", quota_limit(&s->quota, t));
    put_amount(w, "used", t->used);
    json_member_milli(w, "burst_left_seconds", (int64_t)t->burst_left_ms);
    json_member_uint(w, "tasks", t->tasks);
    json_member_uint(w, "waiting", waiting_of(t));
    json_member_open(w, "namespaces", '[');
    for (uint32_t i = 1; i < t->namespace_count; i++) {
        if (t->namespaces[i].name.text[0] != 0) {
            put_namespace(w, &s->quota, t, &t->namespaces[i]);
        }
    }
    json_close(w);
    json_close(w);
}

static void put_nodes(struct json_writer *w, const struct placement *p) {
    static const char *const conditions[NODE_CONDITION_COUNT] = {"ready", "draining", "lost", "hot", "suspect"};
    json_member_open(w, "nodes", '[');
    for (uint32_t i = 0; i < p->count; i++) {
        const struct placement_node *n = p->nodes[i];
        json_open(w, '{');
        json_member_str(w, "id", n->name.text);
        json_member_str(w, "condition", conditions[n->condition]);
        put_amount(w, "capacity", n->capacity);
        put_amount(w, "usable", placement_usable(n));
        put_amount(w, "used", n->held);
        put_percent(w, "measured_cpu_percent", n->measured_cpu_permille);
        put_percent(w, "measured_memory_percent", n->measured_memory_permille);
        json_member_uint(w, "tasks", n->task_count);
        json_member_open(w, "labels", '[');
        for (uint32_t k = 0; k < n->label_count; k++) {
            json_str(w, n->labels[k]);
        }
        json_close(w);
        json_close(w);
    }
    json_close(w);
}

/* --- Reading ------------------------------------------------------------------------------------------------------------------------------- */

static struct scheduler *scheduler_or_error(struct api_call *c, const struct node_answer *a) {
    struct scheduler *s = a->err == E_OK ? state_scheduler(node_state(c->api->o.node)) : NULL;
    if (s == NULL) {
        api_call_error(c, a->err != E_OK ? a->err : E_NO_MEMORY, a->detail);
    }
    return s;
}

static void send_quotas(void *context, const struct node_answer *answer) {
    struct api_call *c = context;
    const struct scheduler *s = scheduler_or_error(c, answer);
    if (s == NULL) {
        return;
    }
    uint32_t usage = dispatch_usage(s, LANE_NORMAL);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "zone", quota_zone_name(quota_zone(usage)));
    put_percent(&a.w, "usage_percent", usage);
    json_member_uint(&a.w, "delay_milliseconds", quota_delay_ms(usage));
    put_percent(&a.w, "system_reserve_percent", QUOTA_SYSTEM_PERMILLE);
    json_member_bool(&a.w, "offloads", s->saved.offloads);
    json_member_bool(&a.w, "overcommit", s->quota.overcommit);
    put_amount(&a.w, "capacity", s->quota.capacity);
    put_amount(&a.w, "usable", s->usable);
    put_amount(&a.w, "used", s->held);
    json_member_uint(&a.w, "waiting", lanes_waiting(&s->lanes));
    json_member_uint(&a.w, "waiting_max", s->saved.queue_max);
    json_member_uint(&a.w, "concurrent", s->held_count);
    json_member_uint(&a.w, "concurrent_max", s->saved.concurrent_max);
    json_member_milli(&a.w, "burst_seconds", (int64_t)s->quota.burst_ms);
    json_member_open(&a.w, "tenants", '[');
    for (uint32_t i = 0; i < s->quota.count; i++) {
        put_tenant(&a.w, s, s->quota.tenants[i]);
    }
    json_close(&a.w);
    put_nodes(&a.w, &s->placement);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_quotas_get(struct api_call *c) {
    node_read_barrier(c->api->o.node, send_quotas, c);
}

/* "acme" or "acme/namespaces/staging".  False: neither. */
static bool path_names(const struct api_call *c, struct bytes *tenant, struct bytes *name_space) {
    static const char middle[] = "/namespaces/";
    const uint8_t *text = (const uint8_t *)c->arg, *slash = memchr(c->arg, '/', c->arg_size);
    *tenant = bytes_of(text, slash == NULL ? c->arg_size : (size_t)(slash - text));
    *name_space = bytes_of(NULL, 0);
    if (slash != NULL) {
        size_t left = c->arg_size - tenant->size;
        if (left < sizeof middle || memcmp(slash, middle, sizeof middle - 1) != 0) {
            return false;
        }
        *name_space = bytes_of(slash + sizeof middle - 1, left - (sizeof middle - 1));
    }
    return grey_name_valid((const char *)tenant->data, tenant->size) &&
           (slash == NULL || grey_name_valid((const char *)name_space->data, name_space->size));
}

static void send_tenant(void *context, const struct node_answer *answer) {
    struct api_call *c = context;
    const struct scheduler *s = scheduler_or_error(c, answer);
    struct bytes tenant, name_space;
    if (s == NULL) {
        return;
    }
    struct quota_tenant *t = path_names(c, &tenant, &name_space) ? quota_find(&s->quota, tenant) : NULL;
    const struct quota_namespace *n = t == NULL ? NULL : quota_namespace_find(t, name_space);
    if (n == NULL) {
        api_call_error(c, E_NOT_FOUND, "no such tenant or namespace");
        return;
    }
    struct api_answer a;
    api_answer_begin(&a);
    if (name_space.size > 0) {
        put_namespace(&a.w, &s->quota, t, n);
    } else {
        put_tenant(&a.w, s, t);
    }
    api_answer_send(&a, c, 200, NULL, 0);
}

void api_tenant_get(struct api_call *c) {
    node_read_barrier(c->api->o.node, send_tenant, c);
}

/* --- Changing ------------------------------------------------------------------------------------------------------------------------------ */

static void changed(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    if (a->err == E_OK && http_method(c->q)[0] == 'P') {
        node_read_barrier(c->api->o.node, send_tenant, c); /* another gateway may have applied it, and not this one yet */
    } else {
        api_done(c, a);
    }
}

static void propose(struct api_call *c, struct builder *payload) {
    struct blob *blob = builder_blob(payload);
    builder_free(payload);
    if (blob == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    node_propose(c->api->o.node, ENTRY_QUOTA, blob, true, changed, c);
    blob_unref(blob);
}

/* Percent with at most one place behind the point, as permille. */
static bool take_percent(const json_t *body, const char *name, uint32_t *permille) {
    const json_t *value = json_object_get(body, name);
    double percent = json_is_number(value) ? json_number_value(value) : -1;
    if (percent < 0.1 || percent > 100) {
        return false;
    }
    *permille = (uint32_t)(percent * 10 + 0.5);
    double back = (double)*permille / 10 - percent;
    return back < 1e-9 && back > -1e-9;
}

static bool ready(struct api_call *c, struct bytes *tenant, struct bytes *name_space) {
    struct site_facts site;
    if (!path_names(c, tenant, name_space)) {
        api_call_error(c, E_BAD_REQUEST, "the path is /v1/tenants/NAME or /v1/tenants/NAME/namespaces/NAME");
        return false;
    }
    if (!state_site(node_state(c->api->o.node), &site) || site.feature_level < FEATURE_LEVEL_TASKS) {
        api_call_error(c, E_NOT_HERE_YET,
                       "a gateway of the site runs a version without tenants, or did not answer yet; upgrade all");
        return false;
    }
    return true;
}

static void tree_set(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
    } else {
        node_read_barrier(c->api->o.node, send_quotas, c);
    }
}

/* The whole tree: checked here first, for the line; the log has the last word. */
void api_quotas_put(struct api_call *c) {
    struct fault f = {0};
    struct builder payload;
    const struct scheduler *s = state_scheduler(node_state(c->api->o.node));
    struct quotaform *form = s == NULL ? NULL : mem_new(1, sizeof *form);
    builder_init(&payload, LIMIT_PAYLOAD_BYTES);
    enum grey_error err = form == NULL ? E_NO_MEMORY : E_OK;
    if (err == E_OK && !api_level(c, FEATURE_LEVEL_OFFLOAD)) {
        err = fault_set(&f, E_NOT_HERE_YET, "a gateway of the site runs a version that takes one tenant at a time; upgrade all");
    }
    err = err == E_OK ? quotaform_read(form, http_body(c->q), &f) : err;
    err = err == E_OK ? quotaform_check(form, &s->quota, &f) : err;
    if (err == E_OK) {
        api_origin_put(c, &payload);
        payload_quota_tree(&payload, form->shares, form->count);
    }
    struct blob *blob = err == E_OK ? builder_blob(&payload) : NULL;
    builder_free(&payload);
    if (form != NULL) {
        quotaform_free(form);
        mem_free(form);
    }
    if (blob == NULL) {
        api_call_error(c, err != E_OK ? err : E_NO_MEMORY, f.text);
        return;
    }
    node_propose(c->api->o.node, ENTRY_QUOTA, blob, true, tree_set, c);
    blob_unref(blob);
}

void api_tenant_put(struct api_call *c) {
    struct bytes tenant, name_space;
    struct fault f = {0};
    struct quota_share share = {0, 0};
    if (!ready(c, &tenant, &name_space)) {
        return;
    }
    json_t *body = json_read(http_body(c->q), &f);
    bool well = body != NULL && json_object_size(body) == 2 && take_percent(body, "cpu_percent", &share.cpu_permille) &&
                take_percent(body, "memory_percent", &share.memory_permille);
    if (!well) {
        api_call_error(c, body == NULL ? f.code : E_BAD_REQUEST,
                       body == NULL ? f.text
                                    : "wanted: {\"cpu_percent\": 30, \"memory_percent\": 25}, each 0.1 to 100 in steps of 0.1");
        json_decref(body);
        return;
    }
    json_decref(body);
    struct builder payload;
    builder_init(&payload, 512 + API_ORIGIN_BYTES_MAX);
    api_origin_put(c, &payload);
    payload_quota_set(&payload, tenant, name_space, share);
    propose(c, &payload);
}

void api_tenant_delete(struct api_call *c) {
    struct bytes tenant, name_space;
    if (!ready(c, &tenant, &name_space)) {
        return;
    }
    struct builder payload;
    builder_init(&payload, 512 + API_ORIGIN_BYTES_MAX);
    api_origin_put(c, &payload);
    payload_quota_remove(&payload, tenant, name_space);
    propose(c, &payload);
}
