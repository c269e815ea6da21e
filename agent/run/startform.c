#include "agent/run/startform.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static_assert(LAUNCHWIRE_FILES_MAX == TASK_FILES_MAX, "room for all files of an order");
static_assert(LAUNCH_ISOLATE_NETWORK == TASK_ISOLATE_NETWORK && LAUNCH_ISOLATE_MOUNT == TASK_ISOLATE_MOUNT &&
                  LAUNCH_ISOLATE_PID == TASK_ISOLATE_PID && LAUNCH_ISOLATE_ALL == TASK_ISOLATE_ALL,
              "the same bits");

static void copy_texts(struct launch_texts *out, const struct task_texts *in) {
    out->count = in->count;
    memcpy(out->at, in->at, in->count * sizeof in->at[0]);
}

/* HTTP and TCP are asked by the launcher's own program, in the task's group. */
static void fill_probe(struct startform *s, const struct task_health *h) {
    struct launch_probe *p = &s->start.probe;
    if (h->probe == PROBE_NONE) {
        return;
    }
    *p = (struct launch_probe){.delay_ms = h->delay_s * 1000u,
                               .interval_ms = h->interval_s * 1000u,
                               .timeout_ms = h->timeout_s * 1000u,
                               .failures = h->failures};
    if (h->probe == PROBE_EXEC) {
        copy_texts(&p->command, &h->command);
        return;
    }
    (void)snprintf(s->texts[0], sizeof s->texts[0], "%" PRIu32, h->port);
    (void)snprintf(s->texts[1], sizeof s->texts[1], "%" PRIu32, h->timeout_s);
    p->command = (struct launch_texts){.count = 5,
                                       .at = {bytes_str(LAUNCHWIRE_SELF), bytes_str("--probe"), bytes_str(s->texts[0]),
                                              bytes_str(s->texts[1]), h->probe == PROBE_HTTP ? h->path : bytes_str("")}};
}

static void fill_files(struct launch_files *files, const struct task_order *o) {
    static const enum launch_source sources[FILE_SOURCE_COUNT] = {LAUNCH_FILE_TEXT, LAUNCH_FILE_PATH, LAUNCH_FILE_STORED};
    files->count = o->file_count;
    for (uint32_t i = 0; i < o->file_count; i++) {
        const struct task_file *file = &o->files[i];
        files->at[i] = (struct launch_file){.name = file->name,
                                            .source = sources[file->source],
                                            .text = file->source == FILE_OBJECT ? bytes_of(NULL, 0) : file->text,
                                            .hash = file->hash,
                                            .mode = file->mode};
    }
}

enum task_reason startform_refuses(const struct task_order *o) {
    if (o->oci.size > 0 && o->oci.data[0] != '/') {
        return REASON_IMAGE;
    }
    return o->command.count > 0 && o->command.at[0].size == 0 ? REASON_START : REASON_NONE;
}

void startform_fill(struct startform *s, const struct task_order *o) {
    static const uint32_t signals[STOP_SIGNAL_COUNT] = {[STOP_TERM] = SIGTERM, [STOP_INT] = SIGINT,   [STOP_HUP] = SIGHUP,
                                                        [STOP_QUIT] = SIGQUIT, [STOP_USR1] = SIGUSR1, [STOP_USR2] = SIGUSR2};
    struct launch_message *m = &s->start;
    *m = (struct launch_message){.kind = LAUNCH_START,
                                 .standard_input = o->standard_input,
                                 .disk_bytes = o->disk_bytes,
                                 .io_read_bps = o->io_read_bps,
                                 .io_write_bps = o->io_write_bps,
                                 .isolate = o->isolate,
                                 .stop_signal = signals[o->stop_signal],
                                 .grace_ms = o->stop_grace_ms > 0 ? o->stop_grace_ms : TASK_GRACE_MS_DEFAULT,
                                 .image = o->oci,
                                 .bundle = o->bundle};
    copy_texts(&m->command, &o->command);
    copy_texts(&m->env, &o->env);
    fill_probe(s, &o->health);
    fill_files(&m->files, o);
}
