#include "platform/errand.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void leave(struct errand *e) {
    loop_timer_cancel(e->loop, &e->limit);
    if (e->link.events != 0) {
        int fd = e->link.fd;
        loop_fd_remove(e->loop, &e->link);
        (void)close(fd);
    }
    e->busy = false;
}

static void finish(struct errand *e, enum grey_error err) {
    leave(e);
    struct builder answer = e->answer; /* done may start another */
    builder_init(&e->answer, 0);
    struct bytes output = builder_bytes(&answer);
    char words[ERRAND_WORDS_BYTES] = "";
    bool told = output.size > 0;
    uint8_t status = told ? output.data[0] : ERRAND_FAILED;
    output = told ? bytes_of(output.data + 1, output.size - 1) : output;
    err = err != E_OK ? err : answer.err != E_OK ? answer.err : status == ERRAND_WELL ? E_OK : E_SYSTEM;
    if (err == E_SYSTEM) {
        size_t size = output.size < sizeof words ? output.size : sizeof words - 1;
        memcpy(words, size > 0 ? output.data : (const uint8_t *)"", size);
        words[size] = 0;
        if (!told) {
            (void)snprintf(words, sizeof words, "it hung up without a word");
        }
    }
    e->done(e->context, err, err == E_OK ? output : bytes_of(NULL, 0), words);
    builder_free(&answer);
}

static void on_output(void *context, uint32_t events) {
    struct errand *e = context;
    (void)events;
    uint8_t room[8192];
    ssize_t got = read(e->link.fd, room, sizeof room);
    if (got > 0) {
        builder_add(&e->answer, bytes_of(room, (size_t)got));
        if (e->answer.err != E_OK) {
            finish(e, e->answer.err);
        }
    } else if (got == 0 || errno != EAGAIN) {
        finish(e, got == 0 ? E_OK : E_SYSTEM);
    }
}

static void on_limit(void *context) {
    finish(context, E_TIMEOUT);
}

static int dial(const char *path, struct fault *f) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        (void)fault_set(f, E_SYSTEM, "%s: too long for a socket", path);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        (void)fault_errno(f, E_SYSTEM, "%s", path);
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    return fd;
}

static enum grey_error tell(int fd, const char *path, const char *name, struct bytes input, struct fault *f) {
    uint8_t order[ERRAND_INPUT_BYTES_MAX];
    struct bytes head = bytes_str(name);
    size_t size = head.size;
    memcpy(order, head.data, size);
    order[size++] = '\n';
    if (input.size > 0) {
        memcpy(order + size, input.data, input.size);
    }
    size += input.size;
    return send(fd, order, size, MSG_NOSIGNAL) == (ssize_t)size && shutdown(fd, SHUT_WR) == 0
               ? E_OK
               : fault_errno(f, E_SYSTEM, "%s: its input", path);
}

enum grey_error errand_start(struct errand *e, struct loop *l, const char *path, const char *name, struct bytes input,
                             size_t output_max, uint32_t limit_ms,
                             void (*done)(void *context, enum grey_error err, struct bytes output, const char *words),
                             void *context, struct fault *f) {
    if (e->busy) {
        return fault_set(f, E_BUSY, "%s: one is under way already", path);
    }
    if (strlen(name) + 1 + input.size > ERRAND_INPUT_BYTES_MAX) {
        return fault_set(f, E_TOO_LARGE, "%s: its input", path);
    }
    *e = (struct errand){.loop = l, .done = done, .context = context};
    e->limit = (struct loop_timer){.fire = on_limit, .context = e};
    e->link = (struct loop_fd){.ready = on_output, .context = e, .fd = -1};
    int fd = dial(path, f);
    enum grey_error err = fd < 0 ? E_SYSTEM : tell(fd, path, name, input, f);
    err = err != E_OK ? err : loop_fd_add(l, &e->link, fd, EPOLLIN, f);
    if (err != E_OK) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return err;
    }
    builder_init(&e->answer, output_max + 1);
    e->busy = true;
    loop_timer_after(l, &e->limit, limit_ms);
    return E_OK;
}

void errand_stop(struct errand *e) {
    if (e->busy) {
        leave(e);
        builder_free(&e->answer);
    }
}
