/* greyd: the agent on a gateway.  Reads the configuration, starts the parts in their order, runs the loop, stops cleanly. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/greyd_core.h"
#include "agent/identity/enroll.h"
#include "agent/jail.h"
#include "agent/store/sitelog.h"
#include "platform/log.h"
#include "platform/now.h"

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define CRYPTO_QUEUE 64u
#define LEAVE_MS 3000u /* for handing leadership on */
#define LARGE_BLOCK_BYTES (64 * 1024)

static const char *environment(const char *name) {
    return getenv(name);
}

static enum grey_error read_file(const char *path, struct builder *out, struct fault *f) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fault_errno(f, errno == ENOENT ? E_NOT_FOUND : E_CONFIG, "%s", path);
    }
    uint8_t room[4096];
    ssize_t got;
    while ((got = read(fd, room, sizeof room)) > 0) {
        builder_add(out, bytes_of(room, (size_t)got));
    }
    enum grey_error err = got < 0 ? fault_errno(f, E_CONFIG, "%s", path) : E_OK;
    (void)close(fd);
    return err;
}

static void print_text(struct builder *b) {
    (void)fwrite(b->data, 1, b->size, stdout);
    builder_free(b);
}

static int complain(const struct fault *f) {
    (void)fprintf(stderr, "greyd: %s (GREY-%d): %s\n  -> %s\n", error_sentence(f->code), error_id(f->code), f->text,
                  error_remedy(f->code));
    return f->code == E_USAGE || f->code == E_CONFIG || f->code == E_TLS_VERSION ? EXIT_USAGE : EXIT_FAILED;
}

/* --- restore ---------------------------------------------------------------------------------------------------------------------------- */

static int restore(int argc, char **argv) {
    const char *snapshot = NULL, *data_dir = NULL;
    struct fault f = {0};
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--snapshot") == 0) {
            snapshot = argv[i + 1];
        } else if (strcmp(argv[i], "--data-dir") == 0) {
            data_dir = argv[i + 1];
        }
    }
    bool asked = argc == 3 && strcmp(argv[2], "--help") == 0;
    if (snapshot == NULL || data_dir == NULL || argc != 6) {
        (void)fputs("usage: greyd restore --snapshot FILE --data-dir DIR\n", asked ? stdout : stderr);
        return asked ? 0 : EXIT_USAGE;
    }
    char wal_dir[LIMIT_PATH_BYTES + 8];
    (void)snprintf(wal_dir, sizeof wal_dir, "%.1000s/log", data_dir);
    if (sitelog_restore(snapshot, data_dir, wal_dir, &f) != E_OK) {
        return complain(&f);
    }
    (void)printf("restored %s into %s; start greyd with --data-dir %s\n", snapshot, data_dir, data_dir);
    return 0;
}

/* --- signals -------------------------------------------------------------------------------------------------------------------------------- */

static void leave_now(void *context) {
    struct greyd *g = context;
    loop_stop(g->x.loop);
}

static void look_for_successor(void *context) {
    struct greyd *g = context;
    struct raft_status s;
    node_raft_status(g->node, &s);
    if (s.role != RAFT_LEADER || s.peer_count == 0 || loop_now_ms(g->x.loop) >= g->leave_deadline_ms) {
        leave_now(g);
        return;
    }
    loop_timer_after(g->x.loop, &g->leave_timer, 20);
}

static void on_terminate(void *context, int signal_number) {
    struct greyd *g = context;
    if (g->stopping) {
        leave_now(g);
        return;
    }
    g->stopping = true;
    log_info("greyd", "stop", "signal=%d", signal_number);
    supervise_stopping(&g->supervise);
    if (g->node == NULL) { /* still mending its log */
        leave_now(g);
        return;
    }
    node_leave_leadership(g->node);
    g->leave_deadline_ms = loop_now_ms(g->x.loop) + LEAVE_MS;
    g->leave_timer = (struct loop_timer){.fire = look_for_successor, .context = g};
    look_for_successor(g);
}

/* Both files anew, the profile first. */
static enum grey_error reread(const struct config *running, struct config *fresh, struct fault *f) {
    struct builder profile, text;
    enum grey_error err = E_OK;
    builder_init(&profile, 256u * 1024u);
    builder_init(&text, 256u * 1024u);
    config_defaults(fresh);
    if (running->profile[0] != 0 && (err = read_file(running->profile, &profile, f)) == E_OK) {
        err = config_read_profile(fresh, builder_bytes(&profile), running->profile, f);
    }
    if (err == E_OK && running->file[0] != 0 && (err = read_file(running->file, &text, f)) == E_OK) {
        err = config_read(fresh, builder_bytes(&text), running->file, f);
    }
    builder_free(&profile);
    builder_free(&text);
    return err;
}

static void on_reload(void *context, int signal_number) {
    struct greyd *g = context;
    (void)signal_number;
    struct config fresh;
    struct fault f = {0};
    enum log_level level;
    if (g->config.file[0] == 0 && g->config.profile[0] == 0) {
        return;
    }
    bool ready = g->node != NULL; /* else it starts still, and mends its log with the others */
    if (ready) {
        supervise_reloading(&g->supervise);
    }
    if (reread(&g->config, &fresh, &f) != E_OK) {
        log_error("greyd", "reload", "refused, the running configuration stays: %s", f.text);
    } else if (log_level_parse(fresh.log_level, &level)) {
        log_configure(level, strcmp(fresh.log_format, "json") == 0 ? LOG_JSON : LOG_PRETTY);
        greyd_link_retune(g, &fresh);
        log_info("greyd", "reload", "log level %s, and the limits, windows and budgets of the link; all else takes a restart",
                 fresh.log_level);
    }
    if (ready) {
        supervise_ready(&g->supervise, "");
    }
}

/* --- start and stop --------------------------------------------------------------------------------------------------------------------- */

/* What starts grey-launch would take the jail along to the tasks. */
static void go_to_jail(const struct config *c) {
    struct fault f = {0};
    bool launches = c->scheduler && c->mode != CONFIG_MODE_WITNESS && strcmp(c->launcher, "own") == 0;
    if (!c->seccomp || launches) {
        log_info("greyd", "jail", "all system calls stay allowed: %s",
                 launches ? "scheduler.launcher is own" : "security.seccomp is off");
    } else if (jail_enter(&f) != E_OK) {
        log_warn("greyd", "jail", "all system calls stay allowed: %s", f.text);
    }
}

/* The loop lives when it asks this; the storage thread must have finished something of late, if it has anything to do. */
bool greyd_gets_on(void *context, char *why, size_t size) {
    const struct greyd *g = context;
    struct sitelog_usage usage;
    sitelog_usage(node_log(g->node), &usage);
    (void)snprintf(why, size, "the disk has finished nothing for %" PRIu64 " s", usage.waits_ms / 1000);
    return usage.waits_ms < (uint64_t)g->config.storage_stall_s * 1000;
}

static bool start(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    struct supervise_options supervise = {.socket = getenv("NOTIFY_SOCKET"),
                                          .watchdog_usec = getenv("WATCHDOG_USEC"),
                                          .watchdog_pid = getenv("WATCHDOG_PID"),
                                          .alive = greyd_gets_on,
                                          .context = g};
    go_to_jail(c);
    g->x.loop = loop_new(f);
    if (g->x.loop == NULL || supervise_begin(&g->supervise, g->x.loop, &supervise, f) != E_OK) {
        return false;
    }
    g->x.crypto = worker_new(g->x.loop, "crypto", CRYPTO_QUEUE, NULL, NULL, f);
    if (g->x.crypto == NULL) {
        return false;
    }
    loop_signal(g->x.loop, SIGTERM, on_terminate, g);
    loop_signal(g->x.loop, SIGINT, on_terminate, g);
    loop_signal(g->x.loop, SIGHUP, on_reload, g);
    return greyd_link_start_site(g, f) && greyd_node_start(g, f) && greyd_link_start_uplink(g, f) &&
           greyd_link_start_identity(g, f) && greyd_link_start_herald(g, f) && greyd_run_start_executor(g, f) &&
           greyd_run_start_boardwatch(g, f) && greyd_run_start_updater(g, f) && greyd_api_start(g, f);
}

static void stop(struct greyd *g) {
    http_server_free(g->http);
    g->http = NULL;
    identity_stop(g->identity);
    herald_stop(g->herald);
    uplink_free(g->uplink);
    g->uplink = NULL;
    supervise_end(&g->supervise);
    boardwatch_stop(g->board);
    updater_stop(g->updater);
    node_free(g->node); /* answers what the executor asked */
    executor_free(g->executor);
    tasklog_free(g->tasklog);
    api_free(g->api);
    worker_stop(g->x.crypto);
    identity_free(g->identity);
    herald_free(g->herald);
    boardwatch_free(g->board);
    updater_free(g->updater);
    loop_free(g->x.loop);
    conn_tls_free(g->tls);
    conn_tls_free(g->upstream_tls);
}

static int check(const struct config *c) {
    struct builder b;
    builder_init(&b, 256u * 1024u);
    if (c->print) {
        config_print(c, &b);
    }
    config_list_inert(c, &b);
    builder_addf(&b, "%s%s%s: acceptable\n", c->profile, c->profile[0] != 0 && c->file[0] != 0 ? " and " : "",
                 c->file[0] != 0      ? c->file
                 : c->profile[0] != 0 ? ""
                                      : "configuration");
    print_text(&b);
    return 0;
}

int main(int argc, char **argv) {
    static struct greyd g;
    struct fault f = {0};
    struct builder b;
    enum log_level level;
    if (argc > 1 && strcmp(argv[1], "restore") == 0) {
        return restore(argc, argv);
    }
    if (argc > 1 && strcmp(argv[1], "enroll") == 0) {
        (void)umask(077);
        return enroll_command(argc - 2, argv + 2);
    }
    if (argc > 1 && strcmp(argv[1], "--config-keys") == 0) { /* for docs/CONFIGURATION.md */
        builder_init(&b, 256u * 1024u);
        config_document(&b);
        print_text(&b);
        return 0;
    }
    enum grey_error err = config_load(&g.config, argc, argv, environment, read_file, &f);
    if (err != E_OK) {
        return complain(&f);
    }
    if (g.config.show_help || g.config.show_version) {
        builder_init(&b, 64u * 1024u);
        if (g.config.show_help) {
            config_help(&b);
        } else {
            builder_add_str(&b, "greyd " GREY_VERSION " (experimental: formats may change; disk format 1, Grey Protocol v2)\n");
        }
        print_text(&b);
        return 0;
    }
    if (g.config.check) {
        return check(&g.config);
    }
    (void)mallopt(M_ARENA_MAX, 1); /* three threads share one arena: an arena each costs memory that is never given back */
    /* What is large, bodies and batches, goes back when it is freed.  By itself the library raises this bound with each large block that is
     * freed, up to 32 MiB, and between small blocks that live on they leave holes that stay. */
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, 2 * LARGE_BLOCK_BYTES);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(027);
    if (!now_set_zone(g.config.time_zone)) {
        (void)fault_set(
            &f, E_CONFIG,
            "federation.bandwidth.time_zone: there is no zone '%.60s' on this machine (package tzdata; a POSIX rule such as "
            "CET-1CEST,M3.5.0,M10.5.0/3 needs none)",
            g.config.time_zone);
        return complain(&f);
    }
    if (log_level_parse(g.config.log_level, &level)) {
        log_configure(level, strcmp(g.config.log_format, "json") == 0 ? LOG_JSON : LOG_PRETTY);
    }
    if (!start(&g, &f)) {
        stop(&g);
        return g.stopping ? 0 : complain(&f);
    }
    supervise_ready(&g.supervise, "takes part in its site");
    log_info("greyd", "ready", "version=%s http=%s site=%s node=%s", GREY_VERSION, g.config.http_addr, g.config.site_id,
             g.config.node_id);
    loop_run(g.x.loop);
    stop(&g);
    log_info("greyd", "stopped", "failed=%s", g.failed ? "yes" : "no");
    return g.failed ? EXIT_FAILED : 0;
}
