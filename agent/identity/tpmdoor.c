#include "agent/identity/tpmdoor.h"

#include <errno.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAITING_MAX 8 /* at the door; one gateway has one agent */
#define PAUSE_US 100000u

static int listen_at(const char *path, struct fault *f) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        (void)fault_set(f, E_USAGE, "--socket %s: too long for a socket", path);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    (void)unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Who may connect is asked of the caller's credentials; its folder may be closed besides. */
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || chmod(path, 0666) != 0 ||
        listen(fd, WAITING_MAX) != 0) {
        (void)fault_errno(f, E_SYSTEM, "%s", path);
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    return fd;
}

static bool may_enter(int caller, bool has_allowed, uid_t allowed) {
    struct ucred who = {.uid = (uid_t)-1};
    socklen_t size = sizeof who;
    if (getsockopt(caller, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) {
        return false;
    }
    return who.uid == 0 || who.uid == geteuid() || (has_allowed && who.uid == allowed);
}

static void serve_one(int caller, void (*answer)(void *context, int caller), void *context) {
    pid_t child = fork();
    if (child == 0) {
        (void)alarm(TPMDOOR_LIMIT_S);
        answer(context, caller);
        _exit(0);
    }
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
}

enum grey_error tpmdoor_serve(const char *path, const char *allow, void (*answer)(void *context, int caller), void *context,
                              struct fault *f) {
    const struct passwd *user = allow == NULL ? NULL : getpwnam(allow);
    if (allow != NULL && user == NULL) {
        return fault_set(f, E_USAGE, "--allow %s: there is no such user", allow);
    }
    uid_t allowed = user == NULL ? 0 : user->pw_uid;
    int door = listen_at(path, f);
    if (door < 0) {
        return f->code;
    }
    for (;;) {
        int caller = accept4(door, NULL, NULL, SOCK_CLOEXEC);
        if (caller < 0) {
            (void)usleep(errno == EINTR ? 0 : PAUSE_US); /* no descriptor is free: soon one is */
            continue;
        }
        if (may_enter(caller, user != NULL, allowed)) {
            serve_one(caller, answer, context);
        } else {
            (void)fprintf(stderr, "grey-tpm: a caller of another user was sent away\n");
        }
        (void)close(caller);
    }
}
