#include "platform/supervise.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "platform/log.h"

#define PATIENCE_MS 10000u      /* how often it is asked for ... */
#define PATIENCE_US 600000000ll /* ... and how much, for what blocks: reading a log of a GiB from a slow card */
#define BEATS 3u                /* per watchdog time: one may get lost or be late */

static void say(struct supervise *s, const char *words) {
    if (s->address_size > 0 && sendto(s->fd, words, strlen(words), MSG_NOSIGNAL | MSG_DONTWAIT,
                                      (const struct sockaddr *)(const void *)&s->address, s->address_size) < 0) {
        log_debug("supervise", "unheard", "%s", strerror(errno));
    }
}

static void ask_patience(struct supervise *s) {
    char words[64];
    (void)snprintf(words, sizeof words, "EXTEND_TIMEOUT_USEC=%lld", PATIENCE_US);
    say(s, words);
    loop_timer_after(s->loop, &s->timer, PATIENCE_MS);
}

static void beat(struct supervise *s) {
    char why[160] = "", words[256];
    bool alive = s->o.alive == NULL || s->o.alive(s->o.context, why, sizeof why);
    if (alive) {
        say(s, s->starved ? "WATCHDOG=1\nSTATUS=goes on" : "WATCHDOG=1");
    } else if (!s->starved) {
        log_error("supervise", "starved", "the watchdog is not fed any more: %s", why);
        (void)snprintf(words, sizeof words, "STATUS=watchdog not fed: %s", why);
        say(s, words);
    }
    if (alive && s->starved) {
        log_info("supervise", "fed", "the watchdog is fed again");
    }
    s->starved = !alive;
    loop_timer_after(s->loop, &s->timer, s->beat_ms);
}

static void on_timer(void *context) {
    struct supervise *s = context;
    if (!s->ready) {
        ask_patience(s);
    } else if (s->beat_ms > 0) {
        beat(s);
    }
}

/* A number of the environment; false: it is none. */
static bool read_number(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0;
}

static enum grey_error set_address(struct supervise *s, const char *path, struct fault *f) {
    size_t size = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || size < 2 || size >= sizeof s->address.sun_path) {
        return fault_set(f, E_CONFIG, "NOTIFY_SOCKET: %.100s is neither a path nor an abstract name (@...) of a socket", path);
    }
    s->address.sun_family = AF_UNIX;
    memcpy(s->address.sun_path, path, size);
    s->address.sun_path[0] = path[0] == '@' ? 0 : path[0];
    s->address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (path[0] == '@' ? 0 : 1));
    return E_OK;
}

enum grey_error supervise_begin(struct supervise *s, struct loop *l, const struct supervise_options *o, struct fault *f) {
    *s = (struct supervise){.loop = l, .o = *o, .fd = -1, .timer = {.fire = on_timer, .context = s}};
    s->o.socket = s->o.watchdog_usec = s->o.watchdog_pid = NULL;
    if (o->socket == NULL || o->socket[0] == 0) {
        return E_OK;
    }
    uint64_t usec = 0, pid = (uint64_t)getpid();
    if ((o->watchdog_usec != NULL && !read_number(o->watchdog_usec, &usec)) ||
        (o->watchdog_pid != NULL && !read_number(o->watchdog_pid, &pid))) {
        return fault_set(f, E_CONFIG, "WATCHDOG_USEC and WATCHDOG_PID are numbers");
    }
    enum grey_error err = set_address(s, o->socket, f);
    if (err == E_OK && (s->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0) {
        err = fault_errno(f, E_SYSTEM, "a socket to the service manager");
    }
    if (err != E_OK) {
        s->address_size = 0;
        return err;
    }
    if (usec > 0 && pid == (uint64_t)getpid()) { /* otherwise it is meant for another process of the service */
        s->beat_ms = usec / 1000 / BEATS;
        s->beat_ms = s->beat_ms == 0 ? 1 : s->beat_ms;
    }
    ask_patience(s);
    return E_OK;
}

/* "WORD\nSTATUS=status"; status "": none. */
static void say_with_status(struct supervise *s, const char *word, const char *status) {
    char words[256];
    (void)snprintf(words, sizeof words, "%s%s%s%s", word, word[0] == 0 || status[0] == 0 ? "" : "\n",
                   status[0] == 0 ? "" : "STATUS=", status);
    say(s, words);
}

void supervise_ready(struct supervise *s, const char *status) {
    say_with_status(s, "READY=1", status);
    if (s->address_size > 0 && !s->ready) {
        s->ready = true;
        loop_timer_cancel(s->loop, &s->timer);
        if (s->beat_ms > 0) {
            beat(s);
        }
    }
}

void supervise_status(struct supervise *s, const char *status) {
    say_with_status(s, "", status);
}

void supervise_reloading(struct supervise *s) {
    struct timespec t; /* of the clock that stands still during suspend: so the manager wants it */
    char words[64];
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    (void)snprintf(words, sizeof words, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000);
    say(s, words);
}

void supervise_stopping(struct supervise *s) {
    say(s, "STOPPING=1");
}

void supervise_end(struct supervise *s) {
    if (s->loop == NULL) {
        return;
    }
    loop_timer_cancel(s->loop, &s->timer);
    if (s->fd >= 0) {
        (void)close(s->fd);
    }
    *s = (struct supervise){.fd = -1};
}
