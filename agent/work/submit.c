/* Orders come in, by hand and by schedule.  Everything that can be refused is refused before anything is changed. */
#include <inttypes.h>
#include <string.h>

#include "agent/work/scheduler.h"
#include "include/grey/must.h"
#include "platform/codec.h"

static enum grey_error room_check(const struct scheduler *s, const struct quota_tenant *t, const struct quota_namespace *n,
                                  const struct task_order *o, struct fault *f) {
    struct quota_amount need = {o->cpu_millicores, o->memory_bytes};
    bool some = false, suits = false;
    for (uint32_t i = 0; i < s->placement.count; i++) {
        some = some || s->placement.nodes[i]->condition != NODE_LOST;
        suits =
            suits || (s->placement.nodes[i]->condition != NODE_LOST && quota_within(need, placement_usable(s->placement.nodes[i])));
    }
    if (!some) {
        return E_OK; /* nothing is known of the nodes yet */
    }
    if (!suits) {
        return fault_set(f, E_TOO_LARGE, "no node has %u millicores and %" PRIu64 " bytes for tasks", o->cpu_millicores,
                         o->memory_bytes);
    }
    struct quota_amount limit = n == &t->namespaces[0] ? quota_limit(&s->quota, t) : quota_namespace_limit(&s->quota, t, n);
    uint64_t factor = n == &t->namespaces[0] && o->delivery == DELIVERY_AT_LEAST_ONCE ? QUOTA_BURST_FACTOR : 1;
    limit.cpu_millicores *= factor;
    limit.memory_bytes *= factor;
    if (!quota_within(need, limit)) {
        return fault_set(f, E_QUOTA, "the share of %s%s%s is %" PRIu64 " millicores and %" PRIu64 " bytes%s", t->name.text,
                         n->name.text[0] == 0 ? "" : "/", n->name.text, limit.cpu_millicores, limit.memory_bytes,
                         factor > 1 ? " with its burst" : "");
    }
    return E_OK;
}

static enum grey_error submit_check(struct scheduler *s, const struct task_order *o, struct quota_tenant **tenant,
                                    struct quota_namespace **name_space, struct fault *f) {
    *tenant = quota_find(&s->quota, o->tenant);
    *name_space = *tenant == NULL ? NULL : quota_namespace_find(*tenant, o->name_space);
    if (*name_space == NULL) {
        return fault_set(f, E_NOT_FOUND, "there is no tenant %.*s%s%.*s", (int)o->tenant.size, (const char *)o->tenant.data,
                         o->name_space.size > 0 ? " with namespace " : "", (int)o->name_space.size,
                         (const char *)o->name_space.data);
    }
    if (o->schedule.size > 0 && o->id.size > SCHEDULER_SCHEDULE_ID_BYTES) {
        return fault_set(f, E_BAD_REQUEST, "the id of a scheduled task has at most %u characters", SCHEDULER_SCHEDULE_ID_BYTES);
    }
    if (s->live >= SCHEDULER_TASKS_MAX) {
        return fault_set(f, E_BUSY, "the site has %u tasks, which is the most it keeps", s->live);
    }
    enum grey_error err = room_check(s, *tenant, *name_space, o, f);
    if (err != E_OK) {
        return err;
    }
    uint32_t usage = dispatch_usage(s, o->lane), waiting = lanes_waiting(&s->lanes);
    if (quota_zone(usage) >= ZONE_RED && waiting >= s->saved.queue_max) {
        return fault_set(f, E_THROTTLED, "usage is %u.%u%% and %u tasks wait", usage / 10, usage % 10, waiting);
    }
    for (uint32_t i = 0; i < o->depends_on.count; i++) {
        const struct task *on = scheduler_find(s, o->depends_on.at[i]);
        if (on != NULL && task_ended((enum task_state)on->state) && on->state != TASK_COMPLETED) {
            return fault_set(f, E_CONDITION, "task %s, which it depends on, has %s", on->vertex->id,
                             task_name(NAMES_STATE, on->state));
        }
    }
    return dag_check(s->dag, o->id, o->depends_on.at, o->depends_on.count, f);
}

/* The text that placement reads: what the order says of nodes. */
static enum grey_error text_make(struct task *t, const struct task_order *o) {
    if (o->affinity.size == 0 && o->selectors.count == 0) {
        return E_OK;
    }
    struct builder b;
    builder_init(&b, TASK_SELECTORS_MAX * (PLACEMENT_LABEL_BYTES + 4) + LIMIT_NAME_BYTES + 8);
    codec_put_array(&b, o->selectors.count + 1);
    codec_put_text(&b, o->affinity);
    for (uint32_t i = 0; i < o->selectors.count; i++) {
        codec_put_text(&b, o->selectors.at[i]);
    }
    t->text = b.err == E_OK ? mem_new(1, b.size) : NULL;
    if (t->text != NULL) {
        memcpy(t->text, b.data, b.size);
        t->text_bytes = (uint16_t)b.size;
    }
    builder_free(&b);
    return t->text == NULL ? E_NO_MEMORY : E_OK;
}

enum grey_error submit_task(struct scheduler *s, const struct task_order *o, raft_index order_index, const uint8_t order_hash[8],
                            int64_t firing_ms, enum submit_answer *answer, struct fault *f) {
    const struct task *old = scheduler_find(s, o->id);
    *answer = old != NULL ? SUBMIT_DUPLICATE : SUBMIT_TAKEN;
    if (old != NULL) {
        return memcmp(old->order_hash, order_hash, sizeof old->order_hash) == 0
                   ? E_OK
                   : fault_set(f, E_ID_REUSED, "there is another task %.*s", (int)o->id.size, (const char *)o->id.data);
    }
    struct quota_tenant *tenant;
    struct quota_namespace *name_space;
    enum grey_error err = submit_check(s, o, &tenant, &name_space, f);
    if (err != E_OK) {
        s->refused += err == E_QUOTA || err == E_THROTTLED;
        return err;
    }
    struct task *t = mem_new(1, sizeof *t);
    if (t == NULL || text_make(t, o) != E_OK) {
        mem_free(t); /* without its text */
        return fault_set(f, E_NO_MEMORY, "making a task");
    }
    t->tenant = tenant;
    t->space = (uint8_t)(name_space - tenant->namespaces);
    t->order_index = order_index;
    memcpy(t->order_hash, order_hash, sizeof t->order_hash);
    t->memory_bytes = o->memory_bytes;
    t->cpu_millicores = o->cpu_millicores;
    t->timeout_s = o->timeout_s;
    t->max_retries = (uint16_t)o->max_retries;
    t->lane = (uint8_t)o->lane;
    t->restart = (uint8_t)o->restart;
    t->delivery = (uint8_t)o->delivery;
    t->is_kept = o->isolation == ISOLATION_KEEP;
    t->may_leave = o->offload != OFFLOAD_NEVER;
    t->is_schedule = o->schedule.size > 0;
    if (t->is_schedule) {
        t->firing_ms = firing_ms;
    }
    return scheduler_add(s, t, o->id, o->depends_on.at, o->depends_on.count);
}

/* --- Schedules ------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error run_add(struct scheduler *s, const struct task *schedule, int64_t firing_ms) {
    char minute[24];
    uint64_t left = (uint64_t)(firing_ms < 0 ? 0 : firing_ms) / 60000u;
    size_t at = sizeof minute;
    do {
        minute[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    minute[--at] = '.';
    char id[LIMIT_NAME_BYTES + 1];
    size_t size = schedule->vertex->id_bytes, more = sizeof minute - at;
    must(size + more <= LIMIT_NAME_BYTES);
    memcpy(id, schedule->vertex->id, size);
    memcpy(id + size, minute + at, more);
    if (scheduler_find(s, bytes_of(id, size + more)) != NULL || s->live >= SCHEDULER_TASKS_MAX) {
        return E_OK; /* it was made, or somebody has taken its name, or the site is full: the next firing is not in danger */
    }
    struct task *t = mem_new(1, sizeof *t);
    if (t == NULL) {
        return E_NO_MEMORY;
    }
    *t = (struct task){.tenant = schedule->tenant,
                       .space = schedule->space,
                       .order_index = schedule->order_index,
                       .memory_bytes = schedule->memory_bytes,
                       .cpu_millicores = schedule->cpu_millicores,
                       .timeout_s = schedule->timeout_s,
                       .max_retries = schedule->max_retries,
                       .lane = schedule->lane,
                       .restart = schedule->restart,
                       .delivery = schedule->delivery,
                       .is_kept = schedule->is_kept,
                       .text_bytes = schedule->text_bytes};
    memcpy(t->order_hash, schedule->order_hash, sizeof t->order_hash);
    if (schedule->text != NULL) {
        t->text = mem_new(1, schedule->text_bytes);
        if (t->text == NULL) {
            mem_free(t);
            return E_NO_MEMORY;
        }
        memcpy(t->text, schedule->text, schedule->text_bytes);
    }
    return scheduler_add(s, t, bytes_of(id, size + more), NULL, 0);
}

enum grey_error submit_firing(struct scheduler *s, struct bytes id, int64_t due_ms, const int64_t *firings, size_t count,
                              int64_t next_ms, struct fault *f) {
    struct task *t = scheduler_find(s, id);
    if (t == NULL) {
        return fault_set(f, E_NOT_FOUND, "there is no task %.*s", (int)id.size, (const char *)id.data);
    }
    if (!t->is_schedule || t->state != TASK_PENDING || t->firing_ms != due_ms) {
        return fault_set(f, E_CONDITION, "task %s is not due at this time", t->vertex->id);
    }
    for (size_t i = 0; i < count; i++) {
        enum grey_error err = run_add(s, t, firings[i]);
        if (err != E_OK) {
            return fault_set(f, err, "making a run of %s", t->vertex->id);
        }
    }
    t->firing_ms = next_ms;
    scheduler_changed(s, t);
    return E_OK;
}
