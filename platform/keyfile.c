#include "platform/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/grey/limits.h"
#include "platform/vault.h"
#include "platform/wholefile.h"

#define PREFIX "grey-ed25519-secret 1 "
#define SEALED_FILE_BYTES_MAX 4096u
#define PREFIX_BYTES (sizeof PREFIX - 1)
#define PUBLIC "grey-ed25519-public 1 "
#define PUBLIC_BYTES (sizeof PUBLIC - 1 + 2 * KEYS_ED25519_PUBLIC_BYTES + 1)
#define FILE_BYTES (PREFIX_BYTES + 2 * KEYS_ED25519_SECRET_BYTES + 1)

static bool parse(const char *text, size_t size, struct keyfile *s) {
    if (size != FILE_BYTES || memcmp(text, PREFIX, PREFIX_BYTES) != 0 || text[FILE_BYTES - 1] != '\n') {
        return false;
    }
    if (!bytes_unhex(text + PREFIX_BYTES, KEYS_ED25519_SECRET_BYTES, s->secret_key)) {
        return false;
    }
    memcpy(s->public_key, s->secret_key + KEYS_ED25519_SECRET_BYTES - KEYS_ED25519_PUBLIC_BYTES, KEYS_ED25519_PUBLIC_BYTES);
    /* a key whose halves do not belong together would sign what nobody can verify */
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    keys_sign_ed25519(bytes_str(PREFIX), s->secret_key, signature);
    return keys_verify_ed25519(bytes_str(PREFIX), s->public_key, signature);
}

static enum grey_error load(int fd, const char *path, struct keyfile *s, struct fault *f) {
    char text[FILE_BYTES + 1];
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return fault_errno(f, E_SYSTEM, "%s", path);
    }
    if ((st.st_mode & 077) != 0) {
        return fault_set(f, E_KEY,
                         "%s may be read by others: they could sign in its owner's name.  Delete it (a new one is made), or set "
                         "its mode to 0600",
                         path);
    }
    ssize_t size = read(fd, text, sizeof text);
    bool ok = size >= 0 && parse(text, (size_t)size, s);
    if (size > 0 && vault_is_sealed(bytes_of(text, (size_t)size))) {
        return fault_set(f, E_KEY, "%s is sealed to this machine's TPM: set security.signing_key to tpm", path);
    }
    memset(text, 0, sizeof text);
    return ok ? E_OK : fault_set(f, E_KEY, "%s holds no key; delete it, and a new one is made", path);
}

static enum grey_error make(const char *path, struct keyfile *s, struct fault *f) {
    char text[FILE_BYTES + 1];
    keys_new_ed25519(s->public_key, s->secret_key);
    memcpy(text, PREFIX, sizeof PREFIX);
    bytes_hex(s->secret_key, KEYS_ED25519_SECRET_BYTES, text + PREFIX_BYTES);
    text[FILE_BYTES - 1] = '\n';
    enum grey_error err =
        wholefile_make(path, bytes_of(text, FILE_BYTES), 0600, f); /* of two processes at once, both go on with the same key */
    memset(text, 0, sizeof text);
    return err;
}

enum grey_error keyfile_open(const char *dir, const char *name, struct keyfile *s, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 48];
    (void)snprintf(path, sizeof path, "%s/%.32s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    enum grey_error err = E_CONDITION;
    if (fd < 0 && errno == ENOENT && (err = make(path, s, f)) == E_CONDITION) { /* somebody else was first */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    }
    if (fd < 0) {
        return err != E_CONDITION ? err : fault_errno(f, E_KEY, "reading %s", path);
    }
    err = load(fd, path, s, f);
    close(fd);
    return err;
}

/* --- sealed -------------------------------------------------------------------------------------------------------------------------------- */

static bool take(struct bytes secret, struct keyfile *s) {
    char text[FILE_BYTES];
    if (secret.size != KEYS_ED25519_SECRET_BYTES) {
        return false;
    }
    memcpy(text, PREFIX, PREFIX_BYTES);
    bytes_hex(secret.data, KEYS_ED25519_SECRET_BYTES, text + PREFIX_BYTES);
    text[FILE_BYTES - 1] = '\n';
    bool good = parse(text, FILE_BYTES, s);
    keys_wipe(text, sizeof text);
    return good;
}

static enum grey_error open_sealed(const char *path, struct bytes line, const char *socket_path, struct keyfile *s,
                                   struct fault *f) {
    struct builder secret;
    builder_init(&secret, VAULT_SECRET_BYTES_MAX);
    enum grey_error err = vault_unseal(socket_path, line, &secret, f);
    if (err == E_OK && !take(builder_bytes(&secret), s)) {
        err = fault_set(f, E_KEY, "%s holds no key; delete it, and a new one is made", path);
    }
    if (secret.data != NULL) {
        keys_wipe(secret.data, secret.size);
    }
    builder_free(&secret);
    return err;
}

enum grey_error keyfile_open_sealed(const char *dir, const char *name, const char *socket_path, struct keyfile *s,
                                    struct fault *f) {
    char path[LIMIT_PATH_BYTES + 48];
    struct builder line;
    (void)snprintf(path, sizeof path, "%s/%.32s", dir, name);
    builder_init(&line, SEALED_FILE_BYTES_MAX);
    enum grey_error err = wholefile_read(path, &line, f);
    if (err == E_OK && vault_is_sealed(builder_bytes(&line))) {
        err = open_sealed(path, builder_bytes(&line), socket_path, s, f);
        builder_free(&line);
        return err;
    }
    if (err == E_OK) {
        keys_wipe(line.data, line.size);
    }
    builder_reset(&line);
    if (err == E_NOT_FOUND) { /* never plain on the disk, not for a moment */
        keys_new_ed25519(s->public_key, s->secret_key);
        err = E_OK;
    } else if (err == E_OK) {
        err = keyfile_open(dir, name, s, f);
    }
    err = err != E_OK ? err : vault_seal(socket_path, bytes_of(s->secret_key, sizeof s->secret_key), &line, f);
    err = err != E_OK ? err : wholefile_write(path, builder_bytes(&line), 0600, f);
    builder_free(&line);
    return err;
}

enum grey_error keyfile_put_public(const char *dir, const char *name, const struct keyfile *s, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 48], text[PUBLIC_BYTES + 1];
    (void)snprintf(path, sizeof path, "%s/%.32s", dir, name);
    memcpy(text, PUBLIC, sizeof PUBLIC);
    bytes_hex(s->public_key, KEYS_ED25519_PUBLIC_BYTES, text + sizeof PUBLIC - 1);
    text[PUBLIC_BYTES - 1] = '\n';
    return wholefile_write(path, bytes_of(text, PUBLIC_BYTES), 0644, f);
}

enum grey_error keyfile_get_public(const char *path, uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], struct fault *f) {
    char text[PUBLIC_BYTES + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fault_errno(f, E_KEY, "reading %s", path);
    }
    ssize_t size = read(fd, text, sizeof text);
    close(fd);
    bool good = size == (ssize_t)PUBLIC_BYTES && memcmp(text, PUBLIC, sizeof PUBLIC - 1) == 0 && text[PUBLIC_BYTES - 1] == '\n' &&
                bytes_unhex(text + sizeof PUBLIC - 1, KEYS_ED25519_PUBLIC_BYTES, public_key);
    return good ? E_OK : fault_set(f, E_KEY, "%s holds no public key (one line: " PUBLIC "and 64 hexadecimal digits)", path);
}
