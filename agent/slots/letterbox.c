#include "agent/slots/letterbox.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "platform/wholefile.h"

void letterbox_path(const char *inbox, const char *name, char *path) {
    (void)snprintf(path, LIMIT_PATH_BYTES + 1, "%.900s/%s", inbox, name);
}

bool letterbox_has_bundle(const char *inbox) {
    char path[LIMIT_PATH_BYTES + 1];
    letterbox_path(inbox, LETTERBOX_BUNDLE, path);
    return wholefile_exists(path);
}

enum grey_error letterbox_confirm(const char *inbox, const uint8_t id[UPDATE_ID_BYTES], struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1], text[2 * UPDATE_ID_BYTES + 2];
    letterbox_path(inbox, LETTERBOX_CONFIRM, path);
    bytes_hex(id, UPDATE_ID_BYTES, text);
    text[2 * UPDATE_ID_BYTES] = '\n';
    return wholefile_write(path, bytes_of(text, 2 * UPDATE_ID_BYTES + 1), 0644, f);
}

/* Whoever can write in that folder may put anything there: no links are followed, nothing is waited for. */
bool letterbox_confirmation(const char *inbox, uint8_t id[UPDATE_ID_BYTES]) {
    char path[LIMIT_PATH_BYTES + 1], text[2 * UPDATE_ID_BYTES + 1];
    letterbox_path(inbox, LETTERBOX_CONFIRM, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return false;
    }
    ssize_t got = read(fd, text, sizeof text);
    (void)close(fd);
    return got == (ssize_t)sizeof text && text[sizeof text - 1] == '\n' && bytes_unhex(text, UPDATE_ID_BYTES, id);
}

enum grey_error letterbox_forget(const char *inbox, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1];
    letterbox_path(inbox, LETTERBOX_CONFIRM, path);
    return wholefile_remove(path, f);
}
