#include "agent/signer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/datadir.h"
#include "include/grey/limits.h"

#define PREFIX "grey-ed25519-secret 1 "
#define PREFIX_BYTES (sizeof PREFIX - 1)
#define FILE_BYTES (PREFIX_BYTES + 2 * KEYS_ED25519_SECRET_BYTES + 1)

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse(const char *text, size_t size, struct signer *s) {
    if (size != FILE_BYTES || memcmp(text, PREFIX, PREFIX_BYTES) != 0 || text[FILE_BYTES - 1] != '\n') {
        return false;
    }
    for (size_t i = 0; i < KEYS_ED25519_SECRET_BYTES; i++) {
        int high = hex_digit(text[PREFIX_BYTES + 2 * i]), low = hex_digit(text[PREFIX_BYTES + 2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        s->secret_key[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(s->public_key, s->secret_key + KEYS_ED25519_SECRET_BYTES - KEYS_ED25519_PUBLIC_BYTES, KEYS_ED25519_PUBLIC_BYTES);
    /* a key whose halves do not belong together would sign what nobody can verify */
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    keys_sign_ed25519(bytes_str(PREFIX), s->secret_key, signature);
    return keys_verify_ed25519(bytes_str(PREFIX), s->public_key, signature);
}

static enum grey_error load(int fd, const char *path, struct signer *s, struct fault *f) {
    char text[FILE_BYTES + 1];
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return fault_errno(f, E_SYSTEM, "%s", path);
    }
    if ((st.st_mode & 077) != 0) {
        return fault_set(f, E_KEY,
                         "%s may be read by others: they could sign in this gateway's name.  Delete it (a new one is made), or set "
                         "its mode to 0600",
                         path);
    }
    ssize_t size = read(fd, text, sizeof text);
    bool ok = size >= 0 && parse(text, (size_t)size, s);
    memset(text, 0, sizeof text);
    return ok ? E_OK : fault_set(f, E_KEY, "%s holds no key; delete it, and a new one is made", path);
}

static enum grey_error make(const char *data_dir, const char *path, struct signer *s, struct fault *f) {
    char text[FILE_BYTES + 1], part[LIMIT_PATH_BYTES + 32];
    keys_new_ed25519(s->public_key, s->secret_key);
    memcpy(text, PREFIX, sizeof PREFIX);
    for (size_t i = 0; i < KEYS_ED25519_SECRET_BYTES; i++) {
        (void)snprintf(text + PREFIX_BYTES + 2 * i, 3, "%02x", s->secret_key[i]);
    }
    text[FILE_BYTES - 1] = '\n';
    (void)snprintf(part, sizeof part, "%s.part", path);
    (void)unlink(part);
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    enum grey_error err = fd < 0 ? fault_errno(f, E_SYSTEM, "making %s", part) : E_OK;
    if (err == E_OK && (write(fd, text, FILE_BYTES) != (ssize_t)FILE_BYTES || fsync(fd) != 0)) {
        err = fault_errno(f, errno == ENOSPC ? E_DISK_FULL : E_IO, "writing %s", part);
    }
    memset(text, 0, sizeof text);
    if (fd >= 0) {
        close(fd);
    }
    if (err == E_OK && rename(part, path) != 0) {
        err = fault_errno(f, E_SYSTEM, "making %s", path);
    }
    return err == E_OK ? datadir_sync(data_dir, f) : err;
}

enum grey_error signer_open(const char *data_dir, struct signer *s, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 24];
    (void)snprintf(path, sizeof path, "%s/signer.key", data_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? make(data_dir, path, s, f) : fault_errno(f, E_KEY, "reading %s", path);
    }
    enum grey_error err = load(fd, path, s, f);
    close(fd);
    return err;
}
