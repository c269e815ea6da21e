#include "agent/identity/zerotouch.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "federation/attest/inquiry.h"
#include "federation/attest/introduce.h"
#include "include/grey/limits.h"
#include "platform/http_fetch.h"
#include "platform/json.h"

#define TIMEOUT_MS 30000u
#define UNNAMED "unnamed" /* the core says who this gateway is */

extern char **environ;

/* --- grey-tpm ----------------------------------------------------------------------------------------------------------------------------- */

static void find_program(const struct zerotouch *z, char out[LIMIT_PATH_BYTES + 16]) {
    ssize_t size = z->program != NULL ? -1 : readlink("/proc/self/exe", out, LIMIT_PATH_BYTES);
    char *slash = NULL;
    if (size > 0) {
        out[size] = 0;
        slash = strrchr(out, '/');
    }
    if (slash != NULL) {
        (void)snprintf(slash, 16, "/grey-tpm");
    } else {
        (void)snprintf(out, LIMIT_PATH_BYTES + 16, "%.1000s", z->program != NULL ? z->program : "grey-tpm");
    }
}

static enum grey_error read_output(int fd, struct builder *out, struct fault *f) {
    uint8_t room[4096];
    ssize_t got;
    while ((got = read(fd, room, sizeof room)) != 0) {
        if (got < 0 && errno != EINTR) {
            return fault_errno(f, E_SYSTEM, "grey-tpm");
        }
        builder_add(out, bytes_of(room, got > 0 ? (size_t)got : 0));
    }
    return out->err == E_OK ? E_OK : fault_set(f, out->err, "what grey-tpm says");
}

/* in: a few hundred bytes, which a pipe holds.  What grey-tpm has to complain of goes to standard error. */
static enum grey_error run(const struct zerotouch *z, const char *verb, struct bytes in, struct builder *out, struct fault *f) {
    char program[LIMIT_PATH_BYTES + 16];
    posix_spawn_file_actions_t actions;
    int to[2] = {-1, -1}, from[2] = {-1, -1}, status = -1;
    pid_t pid;
    find_program(z, program);
    char *const arguments[] = {program, (char *)(uintptr_t) "--tpm", (char *)(uintptr_t)z->tpm, (char *)(uintptr_t)verb, NULL};
    if (pipe2(to, O_CLOEXEC) != 0) {
        return fault_errno(f, E_SYSTEM, "pipe");
    }
    if (pipe2(from, O_CLOEXEC) != 0) {
        (void)close(to[0]);
        (void)close(to[1]);
        return fault_errno(f, E_SYSTEM, "pipe");
    }
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    int refused = posix_spawnp(&pid, program, &actions, NULL, arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(to[0]);
    (void)close(from[1]);
    bool told = refused == 0 && write(to[1], in.data, in.size) == (ssize_t)in.size;
    (void)close(to[1]);
    enum grey_error err =
        refused == 0 ? read_output(from[0], out, f) : fault_set(f, E_SYSTEM, "%.200s: %s", program, strerror(refused));
    (void)close(from[0]);
    while (refused == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (err == E_OK && (!told || status != 0)) {
        err = fault_set(f, E_TPM, "'%.100s %s' failed: see above", program, verb);
    }
    return err;
}

/* --- the core ----------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error refused(const json_t *body, int status, struct fault *f) {
    const char *type = json_string_value(json_object_get(body, "type")),
               *detail = json_string_value(json_object_get(body, "detail"));
    const char *id = type == NULL ? NULL : strstr(type, "GREY-");
    enum grey_error err = id == NULL ? E_OK : error_by_id((int)strtol(id + 5, NULL, 10));
    return err == E_OK ? fault_set(f, E_BAD_HTTP, "the core answered with status %d", status)
                       : fault_set(f, err, "%.200s", detail == NULL ? "" : detail);
}

static enum grey_error ask_core(const struct zerotouch *z, const struct invite *i, struct bytes introduction, json_t **answer,
                                struct fault *f) {
    struct builder hex, body;
    struct json_writer w;
    struct http_answer a = {0};
    builder_init(&hex, 2 * INTRODUCE_BYTES_MAX + 1);
    builder_init(&body, 2 * INTRODUCE_BYTES_MAX + 64);
    char *room = (char *)builder_room(&hex, 2 * introduction.size + 1);
    if (room != NULL) {
        bytes_hex(introduction.data, introduction.size, room);
        json_writer_init(&w, &body);
        json_open(&w, '{');
        json_member_str(&w, "introduction", room);
        json_close(&w);
    }
    struct http_fetch q = {.address = z->core,
                           .pin = i->fingerprint,
                           .method = "POST",
                           .path = "/v1/enroll/tpm",
                           .body = builder_bytes(&body),
                           .body_type = "application/json",
                           .timeout_ms = TIMEOUT_MS,
                           .answer_bytes_max = 65536u};
    enum grey_error err = hex.err != E_OK ? hex.err : body.err;
    err = err != E_OK ? err : http_fetch(&q, &a, f);
    *answer = err == E_OK ? json_read(builder_bytes(&a.body), f) : NULL;
    if (err == E_OK && a.status >= 400) {
        err = refused(*answer, a.status, f);
    }
    builder_free(&a.body);
    builder_free(&body);
    builder_free(&hex);
    return err;
}

static enum grey_error open_challenge(const struct zerotouch *z, const char *hex, struct invite *i, struct fault *f) {
    uint8_t challenge[INTRODUCE_CHALLENGE_BYTES_MAX];
    size_t size = hex == NULL ? 0 : strlen(hex);
    struct builder secret;
    if (size == 0 || size % 2 != 0 || size / 2 > sizeof challenge || !bytes_unhex(hex, size / 2, challenge)) {
        return fault_set(f, E_BAD_HTTP, "the core's answer holds no challenge");
    }
    builder_init(&secret, CREDENTIAL_SECRET_BYTES);
    enum grey_error err = run(z, "activate", bytes_of(challenge, size / 2), &secret, f);
    if (err == E_OK && secret.size != CREDENTIAL_SECRET_BYTES) {
        err = fault_set(f, E_TPM, "the TPM's answer has %zu bytes", secret.size);
    }
    if (err == E_OK) {
        invite_of_challenge(secret.data, i->secret);
    }
    if (secret.data != NULL) {
        explicit_bzero(secret.data, secret.size);
    }
    builder_free(&secret);
    return err;
}

enum grey_error zerotouch_ask(const struct zerotouch *z, struct invite *i, char node[LIMIT_NAME_BYTES + 1], struct fault *f) {
    const struct inquiry_order order = {.type = z->type, .who = {.site = bytes_str(UNNAMED), .node = bytes_str(UNNAMED)}};
    struct builder in, introduction;
    json_t *answer = NULL;
    builder_init(&in, INQUIRY_ORDER_BYTES_MAX);
    builder_init(&introduction, INTRODUCE_BYTES_MAX);
    inquiry_put_order(&in, &order);
    enum grey_error err = in.err != E_OK ? in.err : run(z, "introduce", builder_bytes(&in), &introduction, f);
    err = err != E_OK ? err : ask_core(z, i, builder_bytes(&introduction), &answer, f);
    const char *site = json_string_value(json_object_get(answer, "site")),
               *name = json_string_value(json_object_get(answer, "node"));
    if (err == E_OK &&
        (site == NULL || name == NULL || !grey_name_valid(site, strlen(site)) || !grey_name_valid(name, strlen(name)))) {
        err = fault_set(f, E_BAD_HTTP, "the core's answer does not say who this gateway is");
    }
    if (err == E_OK) {
        (void)snprintf(i->site.text, sizeof i->site.text, "%s", site);
        (void)snprintf(node, LIMIT_NAME_BYTES + 1, "%s", name);
        err = open_challenge(z, json_string_value(json_object_get(answer, "challenge")), i, f);
    }
    json_decref(answer);
    builder_free(&introduction);
    builder_free(&in);
    return err;
}
