/* swtpm_rig.h: software TPMs for tests: made with an endorsement certificate by an authority of their own, run in a scratch folder, ended
 * with the test.  The including test calls swtpm_start and swtpm_stop. */
#ifndef TESTS_SWTPM_RIG_H
#define TESTS_SWTPM_RIG_H

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct swtpm {
    char folder[32], way[128]; /* way: for tpm_open */
    pid_t pid;
};

static char swtpm_authority[32]; /* folder of the authority that all of a test's TPMs come from */

/* The text is the caller's to free. */
__attribute__((format(printf, 1, 2))) static inline char *swtpm_text(const char *format, ...) {
    char *out = NULL;
    va_list list;
    va_start(list, format);
    assert_true(vasprintf(&out, format, list) >= 0);
    va_end(list);
    return out;
}

static inline void swtpm_write(const char *name, char *text) {
    char *path = swtpm_text("%s/%s", swtpm_authority, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
    free(path);
    free(text);
}

static inline int swtpm_run(char *command) {
    int status = system(command); // NOLINT(cert-env33-c)
    free(command);
    return status;
}

static inline void swtpm_make_authority(void) {
    if (swtpm_authority[0] != 0) {
        return;
    }
    memcpy(swtpm_authority, "/tmp/grey-tpmca-XXXXXX", sizeof "/tmp/grey-tpmca-XXXXXX");
    assert_non_null(mkdtemp(swtpm_authority));
    const char *d = swtpm_authority;
    swtpm_write("setup.conf", swtpm_text("create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = %s/ca.conf\n"
                                         "create_certs_tool_options = %s/options\nactive_pcr_banks = sha256\n",
                                         d, d));
    swtpm_write(
        "ca.conf",
        swtpm_text("statedir = %s\nsigningkey = %s/signkey.pem\nissuercert = %s/issuer.pem\ncertserial = %s/serial\n", d, d, d, d));
    swtpm_write("options", swtpm_text("--platform-manufacturer Grey\n--platform-version 1\n--platform-model test\n"));
}

/* Its socket is there a moment before it listens. */
static inline bool swtpm_listens(const char *path) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    bool listens = connect(fd, (const struct sockaddr *)&at, sizeof at) == 0;
    (void)close(fd);
    return listens;
}

/* Power on: again after swtpm_end, the same TPM starts anew. */
static inline void swtpm_boot(struct swtpm *t) {
    char *server = swtpm_text("type=unixio,path=%s/tpm.sock", t->folder);
    char *control = swtpm_text("type=unixio,path=%s/tpm.sock.ctrl", t->folder);
    char *state = swtpm_text("dir=%s", t->folder);
    const char *path = strchr(server, '/');
    (void)snprintf(t->way, sizeof t->way, "swtpm:path=%.60s/tpm.sock", t->folder);
    (void)unlink(path);
    t->pid = fork();
    if (t->pid == 0) {
        /* It tells of each connection, and would hold the pipe of a test that died. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || freopen("/dev/null", "w", stdout) == NULL ||
            freopen("/dev/null", "w", stderr) == NULL) {
            _exit(127);
        }
        execlp("swtpm", "swtpm", "socket", "--tpm2", "--tpmstate", state, "--server", server, "--ctrl", control, "--flags",
               "not-need-init,startup-clear", (char *)NULL);
        _exit(127);
    }
    assert_true(t->pid > 0);
    for (int tries = 0; !swtpm_listens(path); tries++) {
        assert_true(tries < 1000 && waitpid(t->pid, NULL, WNOHANG) == 0);
        (void)usleep(10000);
    }
    free(state);
    free(control);
    free(server);
}

static inline void swtpm_end(struct swtpm *t) {
    if (t->pid > 0) {
        (void)kill(t->pid, SIGTERM);
        (void)waitpid(t->pid, NULL, 0);
        t->pid = 0;
    }
}

static inline void swtpm_start(struct swtpm *t) {
    swtpm_make_authority();
    memcpy(t->folder, "/tmp/grey-tpm-XXXXXX", sizeof "/tmp/grey-tpm-XXXXXX");
    assert_non_null(mkdtemp(t->folder));
    assert_int_equal(
        swtpm_run(swtpm_text("swtpm_setup --tpm2 --tpmstate dir://%s --config %s/setup.conf --create-ek-cert --lock-nvram "
                             "--overwrite >/dev/null 2>&1",
                             t->folder, swtpm_authority)),
        0);
    swtpm_boot(t);
}

static inline void swtpm_stop(struct swtpm *t) {
    swtpm_end(t);
    if (t->folder[0] != 0) {
        (void)swtpm_run(swtpm_text("rm -rf %s", t->folder));
    }
}

static inline void swtpm_remove_authority(void) {
    (void)swtpm_run(swtpm_text("rm -rf %s", swtpm_authority));
}

/* The certificates of the authority as one text; the caller frees it. */
static inline char *swtpm_roots(void) {
    static const char *const names[] = {"issuer.pem", "swtpm-localca-rootca-cert.pem"};
    char *all = calloc(1, 65536);
    size_t used = 0;
    assert_non_null(all);
    for (size_t i = 0; i < 2; i++) {
        char *path = swtpm_text("%s/%s", swtpm_authority, names[i]);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        used += fread(all + used, 1, 32000, file);
        assert_int_equal(fclose(file), 0);
        free(path);
    }
    return all;
}

#endif
