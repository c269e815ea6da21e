#include "agent/work/orderform.h"

#include <string.h>

static void put_str(struct json_writer *w, const char *name, const char *value) {
    json_key(w, name);
    json_str(w, value);
}

static void put_uint(struct json_writer *w, const char *name, uint64_t value) {
    json_key(w, name);
    json_uint(w, value);
}

static void put_texts(struct json_writer *w, const char *name, const struct task_texts *t) {
    json_key(w, name);
    json_open(w, '[');
    for (uint32_t i = 0; i < t->count; i++) {
        json_text(w, t->at[i]);
    }
    json_close(w);
}

static void put_pairs(struct json_writer *w, const char *name, const struct task_texts *t) {
    json_key(w, name);
    json_open(w, '{');
    for (uint32_t i = 0; i < t->count; i++) {
        const uint8_t *equals = memchr(t->at[i].data, '=', t->at[i].size);
        char key[TASK_TEXT_BYTES_MAX + 1] = "";
        size_t size = equals == NULL ? 0 : (size_t)(equals - t->at[i].data);
        if (size > 0 && size < sizeof key) {
            memcpy(key, t->at[i].data, size);
            json_key(w, key);
            json_text(w, bytes_of(equals + 1, t->at[i].size - size - 1));
        }
    }
    json_close(w);
}

static void put_health(struct json_writer *w, const struct task_health *h) {
    if (h->probe == PROBE_NONE) {
        return;
    }
    json_key(w, "health");
    json_open(w, '{');
    if (h->probe == PROBE_EXEC) {
        put_texts(w, "exec", &h->command);
    } else if (h->probe == PROBE_TCP) {
        put_uint(w, "tcp", h->port);
    } else {
        json_key(w, "http");
        json_open(w, '{');
        put_uint(w, "port", h->port);
        json_key(w, "path");
        json_text(w, h->path);
        json_close(w);
    }
    put_uint(w, "delay_seconds", h->delay_s);
    put_uint(w, "interval_seconds", h->interval_s);
    put_uint(w, "timeout_seconds", h->timeout_s);
    put_uint(w, "failures", h->failures);
    json_close(w);
}

void orderform_write(struct json_writer *w, const struct task_order *o) {
    put_texts(w, "command", &o->command);
    if (o->oci.size > 0) {
        json_key(w, "oci");
        json_open(w, '{');
        json_key(w, "image");
        json_text(w, o->oci);
        json_close(w);
    }
    put_pairs(w, "env", &o->env);
    put_texts(w, "depends_on", &o->depends_on);
    put_uint(w, "timeout_seconds", o->timeout_s);
    put_uint(w, "max_retries", o->max_retries);
    put_pairs(w, "node_selector", &o->selectors);
    put_str(w, "on_reconnect", task_name(NAMES_RECONNECT, o->reconnect));
    if (o->affinity.size > 0) {
        json_key(w, "affinity");
        json_text(w, o->affinity);
    }
    put_health(w, &o->health);
    if (o->offload != OFFLOAD_NEVER) {
        put_str(w, "offload", task_name(NAMES_OFFLOAD, o->offload));
        put_uint(w, "offload_patience_seconds", o->offload_patience_s);
    }
    if (o->disk_bytes > 0) {
        put_uint(w, "disk_bytes", o->disk_bytes);
    }
    if (o->schedule.size > 0) {
        json_key(w, "schedule");
        json_text(w, o->schedule);
        put_str(w, "missed_runs", task_name(NAMES_MISSED, o->missed));
        put_uint(w, "missed_runs_max", o->missed_max);
        if (o->zone.size > 0) {
            json_key(w, "time_zone");
            json_text(w, o->zone);
            json_key(w, "time_zone_rule");
            json_text(w, o->zone_rule);
        }
    }
}

void orderform_errand(struct json_writer *w, const struct task_order *o) {
    json_open(w, '{');
    put_texts(w, "command", &o->command);
    if (o->oci.size > 0) {
        json_key(w, "oci");
        json_text(w, o->oci);
    }
    put_pairs(w, "env", &o->env);
    if (o->standard_input.size > 0) {
        json_key(w, "stdin");
        json_text(w, o->standard_input);
    }
    json_key(w, "resources");
    json_open(w, '{');
    put_uint(w, "cpu_millicores", o->cpu_millicores);
    put_uint(w, "memory_bytes", o->memory_bytes);
    if (o->disk_bytes > 0) {
        put_uint(w, "disk_bytes", o->disk_bytes);
    }
    json_close(w);
    put_str(w, "lane", task_name(NAMES_LANE, o->lane));
    put_str(w, "delivery", task_name(NAMES_DELIVERY, o->delivery));
    put_uint(w, "timeout_seconds", o->timeout_s);
    json_close(w);
}
