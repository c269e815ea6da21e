#include "platform/errand.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void close_watch(struct errand *e, struct loop_fd *w) {
    int fd = w->fd;
    if (w->events != 0) {
        loop_fd_remove(e->loop, w);
        (void)close(fd);
    }
}

static void leave(struct errand *e) {
    loop_timer_cancel(e->loop, &e->limit);
    close_watch(e, &e->out);
    close_watch(e, &e->words);
    close_watch(e, &e->end);
    e->busy = false;
}

static void finish(struct errand *e) {
    if (!e->ended || !e->output_over) {
        return;
    }
    leave(e);
    bool well = WIFEXITED(e->status) && WEXITSTATUS(e->status) == 0;
    enum grey_error err = e->late ? E_TIMEOUT : e->output.err != E_OK ? e->output.err : well ? E_OK : E_SYSTEM;
    struct builder output = e->output; /* done may start another */
    builder_init(&e->output, 0);
    char words[ERRAND_WORDS_BYTES];
    memcpy(words, e->text, sizeof words);
    e->done(e->context, err, builder_bytes(&output), words);
    builder_free(&output);
}

static void on_output(void *context, uint32_t events) {
    struct errand *e = context;
    (void)events;
    uint8_t room[8192];
    ssize_t got = read(e->out.fd, room, sizeof room);
    if (got > 0) {
        builder_add(&e->output, bytes_of(room, (size_t)got));
    } else if (got == 0 || errno != EAGAIN) {
        close_watch(e, &e->out);
        e->output_over = true;
        finish(e);
    }
}

static void on_words(void *context, uint32_t events) {
    struct errand *e = context;
    (void)events;
    char room[512];
    ssize_t got = read(e->words.fd, room, sizeof room);
    size_t left = sizeof e->text - 1 - e->text_size;
    if (got > 0) {
        size_t size = (size_t)got < left ? (size_t)got : left;
        memcpy(e->text + e->text_size, room, size);
        e->text_size += size;
        e->text[e->text_size] = 0;
    } else if (got == 0 || errno != EAGAIN) {
        close_watch(e, &e->words);
    }
}

static void on_end(void *context, uint32_t events) {
    struct errand *e = context;
    (void)events;
    if (waitpid(e->pid, &e->status, WNOHANG) == 0) {
        return;
    }
    e->ended = true;
    close_watch(e, &e->end);
    if (e->words.events != 0) {
        on_words(e, 0); /* what it said last */
    }
    finish(e);
}

static void on_limit(void *context) {
    struct errand *e = context;
    e->late = true;
    (void)kill(e->pid, SIGKILL);
}

_Noreturn static void become(char *const arguments[], const int in[2], const int out[2], const int words[2]) {
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(in[0], STDIN_FILENO) >= 0 && dup2(out[1], STDOUT_FILENO) >= 0 && dup2(words[1], STDERR_FILENO) >= 0) {
        (void)execv(arguments[0], arguments);
        (void)dprintf(STDERR_FILENO, "%s: %s", arguments[0], strerror(errno));
    }
    _exit(127);
}

static bool make_pipes(int pipes[3][2]) {
    for (size_t i = 0; i < 3; i++) {
        if (pipe2(pipes[i], O_CLOEXEC) != 0) {
            return false;
        }
    }
    return fcntl(pipes[1][0], F_SETFL, O_NONBLOCK) == 0 && fcntl(pipes[2][0], F_SETFL, O_NONBLOCK) == 0;
}

static void close_all(int pipes[3][2]) {
    for (size_t i = 0; i < 6; i++) {
        if (pipes[i / 2][i % 2] >= 0) {
            (void)close(pipes[i / 2][i % 2]);
        }
    }
}

enum grey_error errand_start(struct errand *e, struct loop *l, char *const arguments[], struct bytes input, size_t output_max,
                             uint32_t limit_ms,
                             void (*done)(void *context, enum grey_error err, struct bytes output, const char *words),
                             void *context, struct fault *f) {
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    if (e->busy) {
        return fault_set(f, E_BUSY, "%s: one runs already", arguments[0]);
    }
    *e = (struct errand){.loop = l, .done = done, .context = context};
    e->limit = (struct loop_timer){.fire = on_limit, .context = e};
    e->out = (struct loop_fd){.ready = on_output, .context = e, .fd = -1};
    e->words = (struct loop_fd){.ready = on_words, .context = e, .fd = -1};
    e->end = (struct loop_fd){.ready = on_end, .context = e, .fd = -1};
    if (input.size > ERRAND_INPUT_BYTES_MAX || !make_pipes(pipes)) {
        close_all(pipes);
        return input.size > ERRAND_INPUT_BYTES_MAX ? fault_set(f, E_TOO_LARGE, "%s: its input", arguments[0])
                                                   : fault_errno(f, E_SYSTEM, "%s: pipes", arguments[0]);
    }
    if (input.size > 0 && write(pipes[0][1], input.data, input.size) != (ssize_t)input.size) {
        close_all(pipes);
        return fault_errno(f, E_SYSTEM, "%s: its input", arguments[0]);
    }
    e->pid = fork();
    if (e->pid == 0) {
        become(arguments, pipes[0], pipes[1], pipes[2]);
    }
    int end = e->pid > 0 ? (int)syscall(SYS_pidfd_open, e->pid, 0) : -1;
    enum grey_error err = end < 0 ? fault_errno(f, E_SYSTEM, "%s", arguments[0]) : loop_fd_add(l, &e->end, end, EPOLLIN, f);
    err = err != E_OK ? err : loop_fd_add(l, &e->out, pipes[1][0], EPOLLIN, f);
    if (err == E_OK) {
        pipes[1][0] = -1;
        err = loop_fd_add(l, &e->words, pipes[2][0], EPOLLIN, f);
        pipes[2][0] = err == E_OK ? -1 : pipes[2][0];
    }
    close_all(pipes);
    builder_init(&e->output, output_max);
    e->busy = true;
    if (err != E_OK) {
        if (end >= 0 && e->end.events == 0) {
            (void)close(end);
        }
        errand_stop(e);
        return err;
    }
    loop_timer_after(l, &e->limit, limit_ms);
    return E_OK;
}

void errand_stop(struct errand *e) {
    if (!e->busy) {
        return;
    }
    leave(e);
    if (e->pid > 0 && !e->ended) {
        (void)kill(e->pid, SIGKILL);
        (void)waitpid(e->pid, NULL, 0); /* it ends at once */
    }
    builder_free(&e->output);
}
