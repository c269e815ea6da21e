#include "platform/vault.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "platform/errand.h"
#include "platform/keys.h"
#include "platform/now.h"

#define ANSWER_BYTES_MAX 4096u
#define LINE "grey-sealed 1 "
#define BLOB_BYTES_MAX 2000u

/* --- the service -------------------------------------------------------------------------------------------------------------------------- */

static int call(const char *path, struct fault *f) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        (void)fault_set(f, E_CONFIG, "%.100s: too long for a socket", path);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        (void)fault_errno(f, E_VAULT_AWAY, "%s", path);
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    return fd;
}

/* Until the service hangs up. */
static enum grey_error hear(int fd, const char *path, uint64_t deadline_ms, struct builder *answer, struct fault *f) {
    uint8_t room[1024];
    for (;;) {
        ssize_t got = read(fd, room, sizeof room);
        if (got > 0) {
            builder_add(answer, bytes_of(room, (size_t)got));
            keys_wipe(room, (size_t)got);
            continue;
        }
        if (got == 0) {
            return E_OK;
        }
        uint64_t now_ms = now_monotonic_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (errno != EAGAIN && errno != EINTR) {
            return fault_errno(f, E_VAULT_AWAY, "%s", path);
        }
        if (now_ms >= deadline_ms || (poll(&p, 1, (int)(deadline_ms - now_ms)) == 0)) {
            return fault_set(f, E_VAULT_AWAY, "%s: no answer in time", path);
        }
    }
}

/* It failed: its words carry the number of what went wrong. */
static enum grey_error told(struct bytes words, struct fault *f) {
    char text[200];
    size_t size = words.size < sizeof text ? words.size : sizeof text - 1;
    memcpy(text, size > 0 ? words.data : (const uint8_t *)"", size);
    text[size] = 0;
    const char *id = strstr(text, "(GREY-");
    enum grey_error err = id == NULL ? E_OK : error_by_id((int)strtol(id + 6, NULL, 10));
    err = err == E_NOT_FOUND ? E_VAULT_OTHER : err == E_OK ? E_VAULT_AWAY : err;
    const char *detail = id == NULL ? NULL : strstr(id, "): ");
    return fault_set(f, err, "%s", size == 0 ? "it hung up without a word" : detail == NULL ? text : detail + 3);
}

static enum grey_error ask(const char *path, const char *order, struct bytes input, int wait_ms, struct builder *output,
                           struct fault *f) {
    struct builder said, answer;
    uint64_t deadline_ms = now_monotonic_ms() + (uint64_t)wait_ms;
    path = path == NULL || path[0] == 0 ? VAULT_SOCKET : path;
    int fd = call(path, f);
    if (fd < 0) {
        return f->code;
    }
    builder_init(&said, ERRAND_INPUT_BYTES_MAX);
    builder_init(&answer, ANSWER_BYTES_MAX);
    builder_addf(&said, "%s\n", order);
    builder_add(&said, input);
    enum grey_error err = said.err != E_OK ? fault_set(f, said.err, "order %s", order) : E_OK;
    /* A socket's buffer takes as much as an order is at once. */
    if (err == E_OK && (send(fd, said.data, said.size, MSG_NOSIGNAL) != (ssize_t)said.size || shutdown(fd, SHUT_WR) != 0)) {
        err = fault_errno(f, E_VAULT_AWAY, "%s", path);
    }
    err = err != E_OK ? err : hear(fd, path, deadline_ms, &answer, f);
    struct bytes got = builder_bytes(&answer);
    if (err == E_OK && (answer.err != E_OK || got.size == 0 || got.data[0] != ERRAND_WELL)) {
        err = answer.err != E_OK ? fault_set(f, answer.err, "order %s", order)
                                 : told(got.size == 0 ? got : bytes_of(got.data + 1, got.size - 1), f);
    } else if (err == E_OK) {
        builder_add(output, bytes_of(got.data + 1, got.size - 1));
        err = output->err == E_OK ? E_OK : fault_set(f, output->err, "order %s: no room for the answer", order);
    }
    (void)close(fd);
    struct builder *const both[] = {&said, &answer};
    for (size_t i = 0; i < 2; i++) { /* secrets may be in them */
        if (both[i]->data != NULL) {
            keys_wipe(both[i]->data, both[i]->size);
        }
        builder_free(both[i]);
    }
    return err;
}

/* --- a key that signs --------------------------------------------------------------------------------------------------------------------- */

static enum grey_error ask_pair(const char *path, const char *order, struct bytes input, int wait_ms,
                                uint8_t pair[VAULT_PAIR_BYTES], struct fault *f) {
    struct builder out;
    builder_init(&out, VAULT_PAIR_BYTES);
    enum grey_error err = ask(path, order, input, wait_ms, &out, f);
    if (err == E_OK && out.size != VAULT_PAIR_BYTES) {
        err = fault_set(f, E_VAULT_AWAY, "order %s: %zu bytes came back", order, out.size);
    }
    if (err == E_OK) {
        memcpy(pair, out.data, VAULT_PAIR_BYTES);
    }
    builder_free(&out);
    return err;
}

enum grey_error vault_public(const char *socket_path, uint32_t handle, uint8_t point[VAULT_PAIR_BYTES], struct fault *f) {
    uint8_t in[4];
    bytes_put_be32(in, handle);
    return ask_pair(socket_path, "public", bytes_of(in, sizeof in), VAULT_WAIT_MS, point, f);
}

enum grey_error vault_make(const char *socket_path, uint32_t handle, uint8_t point[VAULT_PAIR_BYTES], struct fault *f) {
    uint8_t in[4];
    bytes_put_be32(in, handle);
    return ask_pair(socket_path, "make", bytes_of(in, sizeof in), VAULT_MAKE_WAIT_MS, point, f);
}

enum grey_error vault_sign(const char *socket_path, uint32_t handle, const uint8_t hash[DIGEST_SHA256_BYTES],
                           uint8_t signature[VAULT_PAIR_BYTES], struct fault *f) {
    uint8_t in[4 + DIGEST_SHA256_BYTES];
    bytes_put_be32(in, handle);
    memcpy(in + 4, hash, DIGEST_SHA256_BYTES);
    return ask_pair(socket_path, "sign", bytes_of(in, sizeof in), VAULT_WAIT_MS, signature, f);
}

/* --- sealed files ------------------------------------------------------------------------------------------------------------------------- */

enum grey_error vault_seal(const char *socket_path, struct bytes secret, struct builder *line, struct fault *f) {
    struct builder blob;
    builder_init(&blob, BLOB_BYTES_MAX);
    enum grey_error err = ask(socket_path, "seal", secret, VAULT_MAKE_WAIT_MS, &blob, f);
    if (err == E_OK) {
        char hex[2 * BLOB_BYTES_MAX + 1];
        bytes_hex(blob.data, blob.size, hex);
        builder_addf(line, LINE "%s\n", hex);
        err = line->err == E_OK ? E_OK : fault_set(f, line->err, "sealing: no room");
    }
    builder_free(&blob);
    return err;
}

bool vault_is_sealed(struct bytes text) {
    return text.size > sizeof LINE - 1 && memcmp(text.data, LINE, sizeof LINE - 1) == 0;
}

enum grey_error vault_unseal(const char *socket_path, struct bytes text, struct builder *secret, struct fault *f) {
    uint8_t blob[BLOB_BYTES_MAX];
    struct bytes hex = bytes_of(text.data + sizeof LINE - 1, text.size - (sizeof LINE - 1));
    while (hex.size > 0 && (hex.data[hex.size - 1] == '\n' || hex.data[hex.size - 1] == 0)) {
        hex.size--;
    }
    if (!vault_is_sealed(text) || hex.size % 2 != 0 || hex.size / 2 > sizeof blob ||
        !bytes_unhex((const char *)hex.data, hex.size / 2, blob)) {
        return fault_set(f, E_KEY, "what is sealed cannot be read");
    }
    return ask(socket_path, "unseal", bytes_of(blob, hex.size / 2), VAULT_WAIT_MS, secret, f);
}
