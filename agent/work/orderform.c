#include "agent/work/orderform.h"

#include <string.h>

static void put_texts(struct json_writer *w, const char *name, const struct task_texts *t) {
    json_member_open(w, name, '[');
    for (uint32_t i = 0; i < t->count; i++) {
        json_text(w, t->at[i]);
    }
    json_close(w);
}

static void put_pairs(struct json_writer *w, const char *name, const struct task_texts *t) {
    json_member_open(w, name, '{');
    for (uint32_t i = 0; i < t->count; i++) {
        const uint8_t *equals = memchr(t->at[i].data, '=', t->at[i].size);
        char key[TASK_TEXT_BYTES_MAX + 1] = "";
        size_t size = equals == NULL ? 0 : (size_t)(equals - t->at[i].data);
        if (size > 0 && size < sizeof key) {
            memcpy(key, t->at[i].data, size);
            json_member_text(w, key, bytes_of(equals + 1, t->at[i].size - size - 1));
        }
    }
    json_close(w);
}

static void put_health(struct json_writer *w, const struct task_health *h) {
    if (h->probe == PROBE_NONE) {
        return;
    }
    json_member_open(w, "health", '{');
    if (h->probe == PROBE_EXEC) {
        put_texts(w, "exec", &h->command);
    } else if (h->probe == PROBE_TCP) {
        json_member_uint(w, "tcp", h->port);
    } else {
        json_member_open(w, "http", '{');
        json_member_uint(w, "port", h->port);
        json_member_text(w, "path", h->path);
        json_close(w);
    }
    json_member_uint(w, "delay_seconds", h->delay_s);
    json_member_uint(w, "interval_seconds", h->interval_s);
    json_member_uint(w, "timeout_seconds", h->timeout_s);
    json_member_uint(w, "failures", h->failures);
    json_close(w);
}

static void put_file(struct json_writer *w, const struct task_file *file) {
    static const char *const sources[FILE_SOURCE_COUNT] = {"text", "path", "object"};
    json_open(w, '{');
    json_member_text(w, "name", file->name);
    json_member_text(w, sources[file->source], file->text);
    if (file->hash.size == TASK_HASH_BYTES) {
        json_member_hex(w, "sha256", file->hash);
    }
    char mode[] = {'0', (char)('0' + (file->mode >> 6 & 7)), (char)('0' + (file->mode >> 3 & 7)), (char)('0' + (file->mode & 7))};
    json_member_text(w, "mode", bytes_of(mode, sizeof mode));
    json_close(w);
}

static void put_files(struct json_writer *w, const char *field, const struct task_order *o, bool artifacts) {
    bool open = false;
    for (uint32_t i = 0; i < o->file_count; i++) {
        if ((o->files[i].source != FILE_TEXT) != artifacts) {
            continue;
        }
        if (!open) {
            json_member_open(w, field, '[');
            open = true;
        }
        put_file(w, &o->files[i]);
    }
    if (open) {
        json_close(w);
    }
}

/* What it is given on its gateway. */
static void put_given(struct json_writer *w, const struct task_order *o) {
    if (o->oci.size > 0) {
        json_member_open(w, "oci", '{');
        json_member_text(w, o->bundle ? "bundle" : "image", o->oci);
        json_close(w);
    }
    put_files(w, "files", o, false);
    put_files(w, "artifacts", o, true);
    if (o->isolate != 0) {
        json_member_open(w, "isolate", '{');
        json_member_str(w, "network", (o->isolate & TASK_ISOLATE_NETWORK) != 0 ? "none" : "host");
        json_member_bool(w, "mount", (o->isolate & TASK_ISOLATE_MOUNT) != 0);
        json_member_bool(w, "pid", (o->isolate & TASK_ISOLATE_PID) != 0);
        json_close(w);
    }
    const struct {
        const char *name;
        uint64_t value;
    } bounds[] = {{"disk_bytes", o->disk_bytes}, {"io_read_bps", o->io_read_bps}, {"io_write_bps", o->io_write_bps}};
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        if (bounds[i].value > 0) {
            json_member_uint(w, bounds[i].name, bounds[i].value);
        }
    }
}

void orderform_write(struct json_writer *w, const struct task_order *o) {
    put_texts(w, "command", &o->command);
    put_given(w, o);
    put_pairs(w, "env", &o->env);
    put_texts(w, "depends_on", &o->depends_on);
    json_member_uint(w, "timeout_seconds", o->timeout_s);
    json_member_uint(w, "max_retries", o->max_retries);
    put_pairs(w, "node_selector", &o->selectors);
    json_member_str(w, "on_reconnect", task_name(NAMES_RECONNECT, o->reconnect));
    if (o->affinity.size > 0) {
        json_member_text(w, "affinity", o->affinity);
    }
    put_health(w, &o->health);
    if (o->offload != OFFLOAD_NEVER) {
        json_member_str(w, "offload", task_name(NAMES_OFFLOAD, o->offload));
        json_member_uint(w, "offload_patience_seconds", o->offload_patience_s);
    }
    json_member_uint(w, "stop_grace_ms", o->stop_grace_ms > 0 ? o->stop_grace_ms : TASK_GRACE_MS_DEFAULT);
    json_member_str(w, "stop_signal", task_name(NAMES_SIGNAL, o->stop_signal));
    if (o->schedule.size > 0) {
        json_member_text(w, "schedule", o->schedule);
        json_member_str(w, "missed_runs", task_name(NAMES_MISSED, o->missed));
        json_member_uint(w, "missed_runs_max", o->missed_max);
        if (o->zone.size > 0) {
            json_member_text(w, "time_zone", o->zone);
            json_member_text(w, "time_zone_rule", o->zone_rule);
        }
    }
}

void orderform_errand(struct json_writer *w, const struct task_order *o) {
    json_open(w, '{');
    put_texts(w, "command", &o->command);
    put_pairs(w, "env", &o->env);
    if (o->standard_input.size > 0) {
        json_member_text(w, "stdin", o->standard_input);
    }
    json_member_open(w, "resources", '{');
    json_member_uint(w, "cpu_millicores", o->cpu_millicores);
    json_member_uint(w, "memory_bytes", o->memory_bytes);
    if (o->disk_bytes > 0) {
        json_member_uint(w, "disk_bytes", o->disk_bytes);
    }
    json_close(w);
    json_member_str(w, "lane", task_name(NAMES_LANE, o->lane));
    json_member_str(w, "delivery", task_name(NAMES_DELIVERY, o->delivery));
    json_member_uint(w, "timeout_seconds", o->timeout_s);
    json_close(w);
}
