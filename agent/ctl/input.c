#include "agent/ctl/input.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool input_read(const char *name, const char *what, struct builder *out) {
    uint8_t room[16384];
    ssize_t got = -1;
    bool from_stdin = strcmp(name, "-") == 0;
    int fd = from_stdin ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && out->err == E_OK && (got = read(fd, room, sizeof room)) > 0) {
        builder_add(out, bytes_of(room, (size_t)got));
    }
    if (got < 0 && what != NULL) {
        perror(from_stdin ? "stdin" : name);
    } else if (out->err != E_OK && what != NULL) {
        (void)fprintf(stderr, "greyctl: %s is at most %zu bytes\n", what, out->limit_bytes);
    }
    if (fd >= 0 && !from_stdin) {
        (void)close(fd);
    }
    return got == 0 && out->err == E_OK;
}
