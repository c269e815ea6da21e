/* grey-launch: starts, bounds and stops the processes of tasks, and keeps what they write.  The only part that may run as root; it does
 * what typed messages on one unix socket say, and outlives the greyd that sends them. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/launch/checkup.h"
#include "agent/launch/launchlink.h"
#include "agent/launch/runs.h"
#include "agent/launch/shelf.h"
#include "platform/digest.h"
#include "platform/log.h"

#define LEAVE_GRACE_MS 5000u
#define LEAVE_LOOK_MS 50u
#define MIB (1024u * 1024u)
#define ARTIFACT_MIB_MOST (1024u * 1024u)

static const char usage[] = "usage: grey-launch --dir DIR [--socket PATH] [--user NAME] [--allow USER] [--idle-exit SECONDS]\n"
                            "  --dir DIR            runs, their working directories and what they write\n"
                            "  --socket PATH        where greyd finds it (default DIR/launch.sock)\n"
                            "  --user NAME          tasks run as this user, when started as root (default nobody)\n"
                            "  --allow USER         greyd's user, besides root and the launcher's own\n"
                            "  --idle-exit SECONDS  end when nobody is connected and nothing runs for so long (default 0: never)\n"
                            "  --artifacts-mb N     keep artifacts of up to N MiB in all (default 256)\n"
                            "  --image-root WORD    allow (default) or refuse images that ask to be root inside\n"
                            "  --version            print the version\n";

struct launcher_process {
    const char *dir, *socket_path, *user, *allow;
    uint64_t idle_exit_s, artifact_bytes_max;
    uid_t allowed_uid;
    struct loop *loop;
    struct cages cages;
    struct runs *runs;
    struct loop_fd door;
    struct launchlink link; /* one greyd at a time: the newest */
    struct loop_timer leave_timer, idle_timer;
    bool leaving, no_image_root;
};

/* --- Messages ------------------------------------------------------------------------------------------------------------------------- */

static void say(struct launcher_process *p, const struct launch_message *m) {
    struct builder b;
    builder_init(&b, LAUNCHWIRE_BYTES_MAX);
    launchwire_encode(&b, m);
    if (b.err == E_OK) {
        launchlink_send(&p->link, builder_bytes(&b));
    }
    builder_free(&b);
}

static void note_stored(const struct launch_message *m) {
    static const char *const words[LAUNCH_STORED_COUNT] = {"is here",
                                                           "does not fit: see --artifacts-mb",
                                                           "differs: it has not the SHA-256 under which it came",
                                                           "cannot be kept: is the disk full?",
                                                           "waits: the disk does not keep up",
                                                           "goes on"};
    enum log_level level = m->stored == LAUNCH_STORED_HOLD || m->stored == LAUNCH_STORED_GO_ON ? LOG_DEBUG
                           : m->stored == LAUNCH_STORED_WELL                                   ? LOG_INFO
                                                                                               : LOG_WARN;
    char name[17];
    bytes_hex(m->hash.data, 8, name);
    log_at(level, "launch", "artifact", "sha256=%s bytes=%" PRIu64 " %s", name, m->end_offset, words[m->stored]);
}

static void changed(void *context, const struct launch_message *m) {
    if (m->kind == LAUNCH_STORED) {
        note_stored(m);
    }
    say(context, m);
}

static void read_run(struct launcher_process *p, const struct launch_message *m) {
    struct builder data;
    struct launch_message part = {
        .kind = LAUNCH_PART, .scope = m->scope, .token = m->token, .number = m->number, .stream = m->stream};
    builder_init(&data, LAUNCHWIRE_PART_BYTES_MAX);
    enum grey_error err = runs_read(p->runs, m, &data, &part.offset, &part.end_offset);
    if (err != E_OK && err != E_NOT_FOUND) {
        log_limited(LOG_WARN, "launch", "read", "token=%" PRIu64 " error=GREY-%d", m->token, error_id(err));
    }
    part.data = builder_bytes(&data);
    say(p, &part);
    builder_free(&data);
}

static void on_message(void *context, struct bytes message) {
    struct launcher_process *p = context;
    struct launch_message m;
    enum grey_error err = launchwire_decode(message, &m);
    if (err != E_OK || !launchwire_is_order(m.kind)) {
        log_error("launch", "message", "refused, and the connection with it: GREY-%d", error_id(err != E_OK ? err : E_BAD_MESSAGE));
        launchlink_close(&p->link);
        return;
    }
    switch (m.kind) {
    case LAUNCH_START:
        if (!p->leaving) {
            runs_start(p->runs, &m);
        }
        break;
    case LAUNCH_STOP:
        runs_stop(p->runs, m.scope, m.token, m.time_ms);
        break;
    case LAUNCH_FORGET:
        runs_forget(p->runs, m.scope, m.token);
        break;
    case LAUNCH_LEASE:
        runs_lease(p->runs, m.until_ms);
        break;
    case LAUNCH_READ:
        read_run(p, &m);
        break;
    case LAUNCH_STORE:
        runs_store(p->runs, &m);
        break;
    case LAUNCH_MEASURE:
        runs_measure(p->runs);
        break;
    default:
        runs_tell(p->runs);
        say(p, &(struct launch_message){.kind = LAUNCH_LISTED, .limits = p->cages.kind});
        break;
    }
}

/* --- The door ---------------------------------------------------------------------------------------------------------------------------- */

static void watch_idle(struct launcher_process *p) {
    if (p->idle_exit_s > 0) {
        loop_timer_after(p->loop, &p->idle_timer, p->idle_exit_s * 1000u);
    }
}

static void idle(void *context) {
    struct launcher_process *p = context;
    if (!launchlink_is_open(&p->link) && runs_live(p->runs) == 0) {
        log_info("launch", "idle", "nobody is connected and nothing runs");
        loop_stop(p->loop);
    } else {
        watch_idle(p);
    }
}

static void on_closed(void *context) {
    struct launcher_process *p = context;
    log_info("launch", "greyd-gone", "runs=%" PRIu32, runs_live(p->runs));
    watch_idle(p);
}

static void on_door(void *context, uint32_t events) {
    struct launcher_process *p = context;
    struct ucred who = {0};
    socklen_t size = sizeof who;
    struct fault f = {0};
    (void)events;
    int fd = accept4(p->door.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
                 (who.uid == 0 || who.uid == geteuid() || who.uid == p->allowed_uid);
    if (!known) {
        log_limited(LOG_WARN, "launch", "stranger", "uid=%d may not give orders here; see --allow", (int)who.uid);
        (void)close(fd);
        return;
    }
    launchlink_close(&p->link);
    if (launchlink_open(&p->link, p->loop, fd, &f) != E_OK) {
        log_error("launch", "accept", "%s", f.text);
        return;
    }
    log_info("launch", "greyd", "pid=%d uid=%d", (int)who.pid, (int)who.uid);
}

static bool open_door(struct launcher_process *p, struct fault *f) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (strlen(p->socket_path) >= sizeof at.sun_path) {
        (void)fault_set(f, E_USAGE, "--socket: %s is longer than %zu bytes", p->socket_path, sizeof at.sun_path - 1);
        return false;
    }
    memcpy(at.sun_path, p->socket_path, strlen(p->socket_path) + 1);
    (void)unlink(p->socket_path); /* the lock is ours, so nobody listens there */
    mode_t mask = umask(0177);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool well = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 4) == 0;
    (void)umask(mask);
    well = well && (geteuid() != 0 || chown(p->socket_path, p->allowed_uid, (gid_t)-1) == 0);
    p->door = (struct loop_fd){.ready = on_door, .context = p, .fd = -1};
    if (!well || loop_fd_add(p->loop, &p->door, fd, EPOLLIN, f) != E_OK) {
        (void)fault_errno(f, E_SYSTEM, "%s", p->socket_path);
        if (fd >= 0) {
            (void)close(fd);
        }
        return false;
    }
    return true;
}

/* --- Life ---------------------------------------------------------------------------------------------------------------------------------- */

static void on_child(void *context, int signal_number) {
    struct launcher_process *p = context;
    (void)signal_number;
    runs_reap(p->runs);
}

static void look_empty(void *context) {
    struct launcher_process *p = context;
    if (runs_live(p->runs) == 0) {
        loop_stop(p->loop);
    } else {
        loop_timer_after(p->loop, &p->leave_timer, LEAVE_LOOK_MS);
    }
}

static void on_terminate(void *context, int signal_number) {
    struct launcher_process *p = context;
    log_info("launch", "stop", "signal=%d runs=%" PRIu32, signal_number, runs_live(p->runs));
    if (p->leaving) {
        loop_stop(p->loop);
        return;
    }
    p->leaving = true;
    runs_stop_all(p->runs, LEAVE_GRACE_MS);
    look_empty(p);
}

static bool read_options(struct launcher_process *p, int argc, char **argv) {
    p->user = "nobody";
    p->artifact_bytes_max = SHELF_BYTES_DEFAULT;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        char *end = NULL;
        if (value == NULL) {
            return false;
        }
        if (strcmp(argv[i], "--dir") == 0) {
            p->dir = value;
        } else if (strcmp(argv[i], "--socket") == 0) {
            p->socket_path = value;
        } else if (strcmp(argv[i], "--user") == 0) {
            p->user = value;
        } else if (strcmp(argv[i], "--allow") == 0) {
            p->allow = value;
        } else if (strcmp(argv[i], "--image-root") == 0) {
            p->no_image_root = strcmp(value, "refuse") == 0;
            if (!p->no_image_root && strcmp(value, "allow") != 0) {
                return false;
            }
        } else if (strcmp(argv[i], "--artifacts-mb") == 0) {
            unsigned long long mib = strtoull(value, &end, 10);
            if (*end != 0 || mib == 0 || mib > ARTIFACT_MIB_MOST) {
                return false;
            }
            p->artifact_bytes_max = (uint64_t)mib * MIB;
        } else if (strcmp(argv[i], "--idle-exit") == 0) {
            p->idle_exit_s = strtoull(value, &end, 10);
            if (*end != 0 || p->idle_exit_s > 86400) {
                return false;
            }
        } else {
            return false;
        }
    }
    return p->dir != NULL && p->dir[0] == '/' && strlen(p->dir) < CAGE_PATH_BYTES - 64;
}

static bool find_users(struct launcher_process *p, struct child_user *u, struct fault *f) {
    p->allowed_uid = geteuid();
    if (p->allow != NULL) {
        const struct passwd *w = getpwnam(p->allow);
        if (w == NULL) {
            (void)fault_set(f, E_USAGE, "--allow: there is no user %s", p->allow);
            return false;
        }
        p->allowed_uid = w->pw_uid;
    }
    *u = (struct child_user){.change = geteuid() == 0, .no_image_root = p->no_image_root};
    const struct passwd *w = u->change ? getpwnam(p->user) : NULL;
    if (u->change && (w == NULL || w->pw_uid == 0)) {
        (void)fault_set(f, E_USAGE, "--user: %s", w == NULL ? "there is no such user" : "tasks do not run as root");
        return false;
    }
    if (w != NULL) {
        u->uid = w->pw_uid;
        u->gid = w->pw_gid;
    }
    return true;
}

/* One launcher for a directory. */
static bool lock_dir(const struct launcher_process *p, struct fault *f) {
    char path[CAGE_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/launch.lock", p->dir);
    if (mkdir(p->dir, 0711) != 0 && errno != EEXIST) {
        (void)fault_errno(f, E_IO, "%s", p->dir);
        return false;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); /* kept open to the end */
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0) {
        (void)fault_errno(f, E_LOCKED, "%s", path);
        return false;
    }
    return true;
}

static void find_cages(struct launcher_process *p) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    char name[17], missing[64];
    digest_sha256(bytes_str(p->dir), hash);
    bytes_hex(hash, 8, name);
    cage_find(&p->cages, name, missing, sizeof missing);
    if (p->cages.kind == LAUNCH_LIMITS_RLIMITS) {
        log_warn("launch", "limits",
                 "no control groups can be written here%s: tasks are bounded by rlimits alone (memory per process; no bound on "
                 "processors), and what leaves its process group is not stopped",
                 geteuid() != 0 ? ", for this is not root" : "");
    } else if (missing[0] != 0) {
        log_warn("launch", "limits", "tasks have no bound on: %s", missing);
    }
}

static bool start(struct launcher_process *p, struct fault *f) {
    struct child_user user;
    if (!lock_dir(p, f) || !find_users(p, &user, f)) {
        return false;
    }
    find_cages(p);
    p->loop = loop_new(f);
    if (p->loop == NULL) {
        return false;
    }
    struct runs_options o = {.loop = p->loop,
                             .dir = p->dir,
                             .cages = &p->cages,
                             .user = user,
                             .artifact_bytes_max = p->artifact_bytes_max,
                             .changed = changed,
                             .context = p};
    p->runs = runs_new(&o, f);
    if (p->runs == NULL || !open_door(p, f)) {
        return false;
    }
    p->link = (struct launchlink){.message = on_message, .closed = on_closed, .context = p};
    p->leave_timer = (struct loop_timer){.fire = look_empty, .context = p};
    p->idle_timer = (struct loop_timer){.fire = idle, .context = p};
    loop_signal(p->loop, SIGCHLD, on_child, p);
    loop_signal(p->loop, SIGTERM, on_terminate, p);
    loop_signal(p->loop, SIGINT, on_terminate, p);
    watch_idle(p);
    return true;
}

int main(int argc, char **argv) {
    static struct launcher_process p;
    struct fault f = {0};
    char path[CAGE_PATH_BYTES];
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)puts("grey-launch " GREY_VERSION);
        return 0;
    }
    if (argc == 5 && strcmp(argv[1], "--probe") == 0) { /* PORT SECONDS PATH: what a health probe runs, not for people */
        return checkup((uint16_t)strtoul(argv[2], NULL, 10), (unsigned)strtoul(argv[3], NULL, 10), argv[4]) ? 0 : 1;
    }
    if (!read_options(&p, argc, argv)) {
        (void)fputs(usage, argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    if (p.socket_path == NULL) {
        (void)snprintf(path, sizeof path, "%s/launch.sock", p.dir);
        p.socket_path = path;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(022);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    static const char *const limits[] = {"rlimits", "cgroup v1", "cgroup v2"};
    bool well = start(&p, &f);
    if (well) {
        log_info("launch", "ready", "socket=%s limits=%s user=%s", p.socket_path, limits[p.cages.kind],
                 geteuid() == 0 ? p.user : "its own");
        loop_run(p.loop);
        (void)unlink(p.socket_path);
    } else {
        (void)fprintf(stderr, "grey-launch: %s (GREY-%d): %s\n", error_sentence(f.code), error_id(f.code), f.text);
    }
    launchlink_close(&p.link);
    runs_free(p.runs);
    if (p.loop != NULL) {
        loop_fd_remove(p.loop, &p.door);
        loop_free(p.loop);
    }
    return well ? 0 : 1;
}
