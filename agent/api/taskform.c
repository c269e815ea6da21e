#include "agent/api/taskform.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/taskgiven.h"
#include "agent/work/cron.h"
#include "agent/work/orderform.h"
#include "include/grey/must.h"
#include "platform/now.h"

#define CPU_MILLICORES_DEFAULT 100u
#define MEMORY_BYTES_DEFAULT (64u * 1024u * 1024u)

/* --- Reading -------------------------------------------------------------------------------------------------------------------------------- */

struct reading {
    struct taskform *form;
    struct fault *f;
    /* where in form->texts each made text begins: it may still move */
    size_t env_at[TASK_ARGUMENTS_MAX], selector_at[TASK_SELECTORS_MAX];
    bool has_isolation, has_lane;
};

static enum grey_error wrong(const struct reading *r, const char *field, const char *wanted) {
    return fault_set(r->f, E_BAD_REQUEST, "\"%s\" must be %s", field, wanted);
}

static struct bytes text_of(const json_t *value) {
    return bytes_of(json_string_value(value), json_string_length(value));
}

static enum grey_error take_text(const struct reading *r, const char *field, const json_t *value, struct bytes *out) {
    if (!json_is_string(value)) {
        return wrong(r, field, "a string");
    }
    *out = text_of(value);
    return E_OK;
}

static enum grey_error take_number(const struct reading *r, const char *field, const json_t *value, uint64_t max, uint64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max) {
        char wanted[48];
        (void)snprintf(wanted, sizeof wanted, "a number from 0 to %" PRIu64, max);
        return wrong(r, field, wanted);
    }
    *out = (uint64_t)json_integer_value(value);
    return E_OK;
}

static enum grey_error take_choice(const struct reading *r, const char *field, const json_t *value, enum task_names which,
                                   unsigned *out) {
    if (json_is_string(value) && task_number(which, text_of(value), out)) {
        return E_OK;
    }
    char wanted[160] = "one of";
    for (unsigned i = 0; task_name(which, i) != NULL; i++) {
        size_t size = strlen(wanted);
        (void)snprintf(wanted + size, sizeof wanted - size, "%s %s", i > 0 ? "," : "", task_name(which, i));
    }
    return wrong(r, field, wanted);
}

static enum grey_error take_texts(const struct reading *r, const char *field, const json_t *value, uint32_t max,
                                  struct task_texts *out) {
    if (!json_is_array(value) || json_array_size(value) > max) {
        char wanted[48];
        (void)snprintf(wanted, sizeof wanted, "an array of up to %" PRIu32 " strings", max);
        return wrong(r, field, wanted);
    }
    out->count = (uint32_t)json_array_size(value);
    for (uint32_t i = 0; i < out->count; i++) {
        enum grey_error err = take_text(r, field, json_array_get(value, i), &out->at[i]);
        if (err != E_OK) {
            return err;
        }
    }
    return E_OK;
}

/* An object of strings as texts "name=value"; where they begin goes to `at` until all are made. */
static enum grey_error take_pairs(const struct reading *r, const char *field, json_t *value, uint32_t max, struct task_texts *out,
                                  size_t *at) {
    if (!json_is_object(value) || json_object_size(value) > max) {
        char wanted[64];
        (void)snprintf(wanted, sizeof wanted, "an object of up to %" PRIu32 " strings", max);
        return wrong(r, field, wanted);
    }
    const char *name;
    json_t *member;
    out->count = 0;
    json_object_foreach(value, name, member) {
        if (!json_is_string(member)) {
            return wrong(r, field, "an object of strings");
        }
        if (name[0] == 0 || strchr(name, '=') != NULL) { /* "A=B": "1" would set A to "B=1" */
            return wrong(r, field, "an object whose names are not empty and hold no \"=\"");
        }
        struct builder *b = &r->form->texts;
        at[out->count] = b->size;
        builder_add_str(b, name);
        builder_add_byte(b, '=');
        builder_add(b, text_of(member));
        out->at[out->count].size = b->size - at[out->count];
        out->count++;
    }
    return r->form->texts.err == E_OK ? E_OK : fault_set(r->f, r->form->texts.err, "\"%s\"", field);
}

static enum grey_error take_resources(const struct reading *r, json_t *value, struct task_order *o) {
    const char *name;
    json_t *member;
    uint64_t number = 0;
    if (!json_is_object(value)) {
        return wrong(r, "resources", "an object");
    }
    json_object_foreach(value, name, member) {
        enum grey_error err = take_number(r, name, member, INT64_MAX, &number);
        if (err == E_OK && strcmp(name, "cpu_millicores") == 0) {
            o->cpu_millicores = number > UINT32_MAX ? UINT32_MAX : (uint32_t)number;
        } else if (err == E_OK && strcmp(name, "memory_bytes") == 0) {
            o->memory_bytes = number;
        } else if (err == E_OK && strcmp(name, "disk_bytes") == 0) {
            o->disk_bytes = number < TASK_MEMORY_BYTES_MAX ? number : TASK_MEMORY_BYTES_MAX;
        } else if (err == E_OK && strcmp(name, "io_read_bps") == 0) {
            o->io_read_bps = number;
        } else if (err == E_OK && strcmp(name, "io_write_bps") == 0) {
            o->io_write_bps = number;
        } else {
            return err != E_OK
                       ? err
                       : fault_set(
                             r->f, E_BAD_REQUEST,
                             "resources has cpu_millicores, memory_bytes, disk_bytes, io_read_bps and io_write_bps, not \"%s\"",
                             name);
        }
    }
    return E_OK;
}

static enum grey_error take_http(const struct reading *r, json_t *value, struct task_health *h) {
    uint64_t port = 0;
    const char *name;
    json_t *member;
    enum grey_error err = json_is_object(value) ? E_OK : wrong(r, "health.http", "an object of port and path");
    h->path = bytes_str("/");
    json_object_foreach(value, name, member) {
        if (err == E_OK && strcmp(name, "path") == 0) {
            err = take_text(r, "health.http.path", member, &h->path);
        } else if (err == E_OK) {
            err = strcmp(name, "port") == 0 ? take_number(r, "health.http.port", member, UINT16_MAX, &port)
                                            : wrong(r, "health.http", "an object of port and path");
        }
    }
    h->port = (uint32_t)port;
    return err;
}

static enum grey_error take_health(const struct reading *r, json_t *value, struct task_health *h) {
    const char *name;
    json_t *member;
    uint64_t number = 0;
    unsigned probes = 0;
    enum grey_error err = json_is_object(value) ? E_OK : wrong(r, "health", "an object");
    *h = (struct task_health){.interval_s = 10, .timeout_s = 5, .failures = 3};
    const struct {
        const char *name;
        uint32_t *out;
    } figures[] = {{"delay_seconds", &h->delay_s},
                   {"interval_seconds", &h->interval_s},
                   {"timeout_seconds", &h->timeout_s},
                   {"failures", &h->failures}};
    json_object_foreach(value, name, member) {
        bool known = false;
        for (size_t i = 0; err == E_OK && i < sizeof figures / sizeof figures[0]; i++) {
            if (strcmp(name, figures[i].name) == 0) {
                known = true;
                err = take_number(r, name, member, i == 3 ? TASK_PROBE_FAILURES_MAX : TASK_PROBE_S_MAX, &number);
                *figures[i].out = (uint32_t)number;
            }
        }
        if (err != E_OK || known) {
            continue;
        }
        probes++;
        if (strcmp(name, "exec") == 0) {
            h->probe = PROBE_EXEC;
            err = take_texts(r, "health.exec", member, TASK_ARGUMENTS_MAX, &h->command);
        } else if (strcmp(name, "http") == 0) {
            h->probe = PROBE_HTTP;
            err = take_http(r, member, h);
        } else if (strcmp(name, "tcp") == 0) {
            h->probe = PROBE_TCP;
            err = take_number(r, "health.tcp", member, UINT16_MAX, &number);
            h->port = (uint32_t)number;
        } else {
            err = fault_set(r->f, E_BAD_REQUEST, "health has no field \"%s\"; see docs/openapi.yaml", name);
        }
    }
    return err == E_OK && probes != 1 ? fault_set(r->f, E_BAD_REQUEST, "health is one of exec, http and tcp") : err;
}

static enum grey_error take_lane(struct reading *r, const char *field, const json_t *value) {
    struct task_order *o = &r->form->order;
    unsigned choice = 0;
    uint64_t priority = 0;
    if (r->has_lane) {
        return fault_set(r->f, E_BAD_REQUEST, "lane and priority do not go together");
    }
    r->has_lane = true;
    bool by_name = strcmp(field, "lane") == 0;
    enum grey_error err =
        by_name ? take_choice(r, field, value, NAMES_LANE, &choice) : take_number(r, field, value, 100, &priority);
    o->lane = by_name ? (enum task_lane)choice : task_lane_of((uint32_t)priority);
    return err;
}

static enum grey_error take_word(struct reading *r, const char *field, const json_t *value, bool *known) {
    struct task_order *o = &r->form->order;
    const struct {
        const char *field;
        struct bytes *out;
    } words[] = {{"id", &o->id},
                 {"tenant", &o->tenant},
                 {"namespace", &o->name_space},
                 {"stdin", &o->standard_input},
                 {"schedule", &o->schedule},
                 {"time_zone", &o->zone},
                 {"affinity", &o->affinity}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(field, words[i].field) == 0) {
            return take_text(r, field, value, words[i].out);
        }
    }
    *known = false;
    return E_OK;
}

static enum grey_error take_policy(struct reading *r, const char *field, const json_t *value, bool *known) {
    struct task_order *o = &r->form->order;
    enum grey_error err;
    unsigned n = 0;
    if (strcmp(field, "restart") == 0) {
        err = take_choice(r, field, value, NAMES_RESTART, &n);
        o->restart = (enum task_restart)n;
    } else if (strcmp(field, "missed_runs") == 0) {
        err = take_choice(r, field, value, NAMES_MISSED, &n);
        o->missed = (enum task_missed)n;
    } else if (strcmp(field, "delivery") == 0) {
        err = take_choice(r, field, value, NAMES_DELIVERY, &n);
        o->delivery = (enum task_delivery)n;
    } else if (strcmp(field, "on_isolation") == 0) {
        err = take_choice(r, field, value, NAMES_ISOLATION, &n);
        o->isolation = (enum task_isolation)n;
        r->has_isolation = true;
    } else if (strcmp(field, "stop_signal") == 0) {
        err = take_choice(r, field, value, NAMES_SIGNAL, &n);
        o->stop_signal = (enum task_signal)n;
    } else if (strcmp(field, "on_reconnect") == 0) {
        err = take_choice(r, field, value, NAMES_RECONNECT, &n);
        o->reconnect = (enum task_reconnect)n;
    } else if (strcmp(field, "offload") == 0) {
        err = take_choice(r, field, value, NAMES_OFFLOAD, &n);
        o->offload = (enum task_offload)n;
    } else {
        *known = false;
        err = E_OK;
    }
    return err;
}

static enum grey_error take_figure(struct reading *r, const char *field, const json_t *value, bool *known) {
    struct task_order *o = &r->form->order;
    const struct {
        const char *field;
        uint32_t *out;
    } figures[] = {{"timeout_seconds", &o->timeout_s},
                   {"max_retries", &o->max_retries},
                   {"missed_runs_max", &o->missed_max},
                   {"offload_patience_seconds", &o->offload_patience_s},

                   {"stop_grace_ms", &o->stop_grace_ms}};
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        if (strcmp(field, figures[i].field) == 0) {
            uint64_t number = 0;
            enum grey_error err = take_number(r, field, value, UINT32_MAX, &number);
            *figures[i].out = (uint32_t)number;
            return err;
        }
    }
    *known = false;
    return E_OK;
}

static enum grey_error take_member(struct reading *r, const char *field, json_t *value) {
    struct task_order *o = &r->form->order;
    bool known = true;
    if (json_is_null(value)) {
        return E_OK;
    }
    enum grey_error err = take_word(r, field, value, &known);
    if (!known) {
        known = true;
        err = take_policy(r, field, value, &known);
    }
    if (!known) {
        known = true;
        err = take_figure(r, field, value, &known);
    }
    if (known) {
        return err;
    }
    if (strcmp(field, "lane") == 0 || strcmp(field, "priority") == 0) {
        return take_lane(r, field, value);
    }
    if (strcmp(field, "command") == 0) {
        return take_texts(r, field, value, TASK_ARGUMENTS_MAX, &o->command);
    }
    if (strcmp(field, "depends_on") == 0) {
        return take_texts(r, field, value, TASK_DEPENDENCIES_MAX, &o->depends_on);
    }
    if (strcmp(field, "env") == 0) {
        return take_pairs(r, field, value, TASK_ARGUMENTS_MAX, &o->env, r->env_at);
    }
    if (strcmp(field, "node_selector") == 0) {
        return take_pairs(r, field, value, TASK_SELECTORS_MAX, &o->selectors, r->selector_at);
    }
    if (strcmp(field, "resources") == 0) {
        return take_resources(r, value, o);
    }
    if (strcmp(field, "health") == 0) {
        return take_health(r, value, &o->health);
    }
    if (taskgiven_knows(field)) {
        return taskgiven_read(field, value, r->form->hashes, o, r->f);
    }
    return fault_set(r->f, E_BAD_REQUEST, "a task has no field \"%s\"; see docs/openapi.yaml", field);
}

enum grey_error taskform_read(struct taskform *form, struct bytes text, enum task_lane lane, uint64_t random, struct fault *f) {
    struct reading r = {.form = form, .f = f};
    struct task_order *o = &form->order;
    *form = (struct taskform){.order = {.tenant = bytes_str(QUOTA_DEFAULT_TENANT),
                                        .lane = lane,
                                        .cpu_millicores = CPU_MILLICORES_DEFAULT,
                                        .memory_bytes = MEMORY_BYTES_DEFAULT,
                                        .missed_max = 1}};
    builder_init(&form->texts, TASK_ORDER_BYTES_MAX);
    (void)snprintf(form->id, sizeof form->id, "task-%016" PRIx64, random);
    o->id = bytes_str(form->id);
    form->document = json_read(text, f);
    if (form->document == NULL) {
        return f->code;
    }
    if (!json_is_object(form->document)) {
        return fault_set(f, E_BAD_REQUEST, "a task is an object");
    }
    const char *field;
    json_t *value;
    json_object_foreach(form->document, field, value) {
        enum grey_error err = take_member(&r, field, value);
        if (err != E_OK) {
            return err;
        }
    }
    for (uint32_t i = 0; i < o->env.count; i++) {
        o->env.at[i].data = form->texts.data + r.env_at[i];
    }
    for (uint32_t i = 0; i < o->selectors.count; i++) {
        o->selectors.at[i].data = form->texts.data + r.selector_at[i];
    }
    if (!r.has_isolation && o->restart == RESTART_ALWAYS) {
        o->isolation = ISOLATION_KEEP;
    }
    enum grey_error err = task_check(o, f);
    err = err == E_OK ? taskgiven_check(o, f) : err;
    struct cron c;
    return err == E_OK && o->schedule.size > 0 ? cron_parse(o->schedule, &c, f) : err;
}

void taskform_free(struct taskform *form) {
    json_decref(form->document);
    builder_free(&form->texts);
}

/* --- Writing -------------------------------------------------------------------------------------------------------------------------------- */

/* An instant in scheduler time, as the site's clock has it now. */
static void put_instant(struct json_writer *w, const struct scheduler *s, const char *name, int64_t at_ms) {
    if (at_ms > 0) {
        char text[32];
        now_format(at_ms - s->saved.skew_ms, text);
        json_member_str(w, name, text);
    }
}

static void put_place(struct json_writer *w, const struct scheduler *s, const struct task *t) {
    const struct placement_node *n = placement_find(&s->placement, t->last_node);
    json_key(w, "node");
    if (n == NULL) {
        json_none(w);
    } else {
        json_str(w, n->name.text);
    }
    if (scheduler_is_away(t)) {
        json_member_bool(w, "with_core", true);
    }
    if (t->token > 0) {
        json_member_uint(w, "token", t->token);
    }
    n = placement_find(&s->placement, t->taken_from);
    if (n != NULL) {
        json_member_str(w, "taken_from", n->name.text);
    }
    if (t->stop != REASON_NONE) {
        json_member_str(w, "stopping", task_name(NAMES_REASON, t->stop));
    }
}

void taskform_write(struct json_writer *w, const struct scheduler *s, const struct task *t, const struct task_order *order,
                    const struct work_output *output) {
    json_open(w, '{');
    json_member_str(w, "id", t->vertex->id);
    json_member_str(w, "tenant", t->tenant->name.text);
    json_member_str(w, "namespace", task_space(t)->name.text);
    json_member_str(w, "lane", task_name(NAMES_LANE, t->lane));
    json_member_str(w, "state", task_name(NAMES_STATE, t->state));
    if (t->reason != REASON_NONE) {
        json_member_str(w, "reason", task_name(NAMES_REASON, t->reason));
    }
    put_place(w, s, t);
    json_member_open(w, "resources", '{');
    json_member_uint(w, "cpu_millicores", t->cpu_millicores);
    json_member_uint(w, "memory_bytes", t->memory_bytes);
    json_close(w);
    json_member_str(w, "restart", task_name(NAMES_RESTART, t->restart));
    json_member_str(w, "delivery", task_name(NAMES_DELIVERY, t->delivery));
    json_member_str(w, "on_isolation", task_name(NAMES_ISOLATION, t->is_kept ? ISOLATION_KEEP : ISOLATION_STOP));
    json_member_uint(w, "failures", t->failures);
    json_member_uint(w, "preemptions", t->preemptions);
    if (task_ended((enum task_state)t->state)) {
        json_member_int(w, "exit_status", t->exit_status);
    }
    json_member_open(w, "waits_for", '[');
    for (uint32_t i = 0; i < t->vertex->unmet; i++) {
        json_str(w, dag_waits_for(t->vertex, i));
    }
    json_close(w);
    put_instant(w, s, "submitted", t->submitted_ms);
    put_instant(w, s, "queued", t->ready_ms);
    put_instant(w, s, "started", t->started_ms);
    put_instant(w, s, "ended", t->ended_ms);
    if (t->is_schedule && t->firing_ms >= 0) {
        put_instant(w, s, "next_run", t->firing_ms + s->saved.skew_ms);
    }
    json_member_uint(w, "submitted_index", t->order_index);
    if (output != NULL) {
        json_member_open(w, "output", '{');
        json_member_hex(w, "stdout_sha256", bytes_of(output->hash, DIGEST_BYTES));
        json_member_uint(w, "bytes", output->bytes);
        json_close(w);
    }
    if (order != NULL) {
        orderform_write(w, order);
    }
    json_close(w);
}
