#include "platform/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/port.h"

#define BACKLOG 256
#define KEEPALIVE_IDLE_S 60 /* then three probes: a client that vanished is gone after 105 s */
#define KEEPALIVE_EVERY_S 15
#define KEEPALIVE_COUNT 3

bool address_is_unix(const char *text) {
    return strncmp(text, "unix:", 5) == 0;
}

enum grey_error address_unix(const char *text, struct sockaddr_un *out, struct fault *f) {
    const char *path = text + strlen("unix:");
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof out->sun_path) {
        return fault_set(f, E_CONNECT, "the socket path '%.100s' is empty or longer than %zu bytes", path,
                         sizeof out->sun_path - 1);
    }
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out->sun_path, path, size + 1);
    return E_OK;
}

enum grey_error address_split(const char *text, char host[ADDRESS_HOST_BYTES], char port[ADDRESS_PORT_BYTES], struct fault *f) {
    const char *colon = strrchr(text, ':');
    size_t host_size = colon == NULL ? 0 : (size_t)(colon - text);
    size_t port_size = colon == NULL ? 0 : strlen(colon + 1);
    if (port_size == 0 || port_size > 5 || strspn(colon + 1, "0123456789") != port_size || strtoul(colon + 1, NULL, 10) > 65535 ||
        host_size >= ADDRESS_HOST_BYTES) {
        return fault_set(f, E_CONNECT, "'%.100s' is not host:port", text);
    }
    memcpy(port, colon + 1, port_size + 1);
    if (host_size >= 2 && text[0] == '[' && text[host_size - 1] == ']') {
        text++;
        host_size -= 2;
    }
    memcpy(host, text, host_size);
    host[host_size] = 0;
    return E_OK;
}

/* True when somebody answers at the path. */
static bool is_served(const struct sockaddr_un *u) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool served = fd >= 0 && (connect(fd, (const struct sockaddr *)u, sizeof *u) == 0 || errno == EAGAIN);
    if (fd >= 0) {
        (void)close(fd);
    }
    return served;
}

static int listen_unix(const char *text, char unix_path[ADDRESS_UNIX_BYTES], struct fault *f) {
    struct sockaddr_un u;
    struct stat there;
    if (address_unix(text, &u, f) != E_OK) {
        return -1;
    }
    if (lstat(u.sun_path, &there) == 0) {
        if (!S_ISSOCK(there.st_mode)) { /* a slip in the configuration must not cost a file */
            (void)fault_set(f, E_ADDRESS_IN_USE, "%s is there and is not a socket", u.sun_path);
            return -1;
        }
        if (is_served(&u)) {
            (void)fault_set(f, E_ADDRESS_IN_USE, "another process serves %s", u.sun_path);
            return -1;
        }
        (void)unlink(u.sun_path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&u, sizeof u) != 0) {
        (void)fault_errno(f, errno == EADDRINUSE ? E_ADDRESS_IN_USE : E_SYSTEM, "%s", u.sun_path);
    } else if (chmod(u.sun_path, 0660) != 0 || listen(fd, BACKLOG) != 0) { /* nobody can connect before listen */
        (void)fault_errno(f, E_SYSTEM, "%s", u.sun_path);
        (void)unlink(u.sun_path);
    } else {
        memcpy(unix_path, u.sun_path, ADDRESS_UNIX_BYTES);
        return fd;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return -1;
}

void address_keep_alive(int fd, int idle_s, int every_s) {
    const struct {
        int level, name, value;
    } options[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                   {IPPROTO_TCP, TCP_KEEPIDLE, idle_s},
                   {IPPROTO_TCP, TCP_KEEPINTVL, every_s},
                   {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
    }
}

static void set_options(int fd) {
    static const struct { int level, name, value; } options[] = {{SOL_SOCKET, SO_REUSEADDR, 1}, {IPPROTO_TCP, TCP_NODELAY, 1}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
    }
    address_keep_alive(fd, KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S);
}

int address_resolve(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list) {
    int code = getaddrinfo(host, port, hints, list);
    if (code != 0 && (hints->ai_flags & AI_NUMERICHOST) == 0 && host != NULL && strcmp(host, "localhost") == 0) {
        code = getaddrinfo("127.0.0.1", port, hints, list);
    }
    return code;
}

static int listen_tcp(const char *text, struct fault *f) {
    char host[ADDRESS_HOST_BYTES] = "", port[ADDRESS_PORT_BYTES] = "";
    if (address_split(text, host, port, f) != E_OK) {
        return -1;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE}, *list = NULL;
    int code = address_resolve(host[0] == 0 ? NULL : host, port, &hints, &list);
    if (code != 0) {
        (void)fault_set(f, E_CONNECT, "%s: %s", text, gai_strerror(code));
        return -1;
    }
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        set_options(fd);
    }
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        if (errno == EADDRINUSE) {
            char owner[96];
            port_owner((uint16_t)strtoul(port, NULL, 10), owner, sizeof owner);
            (void)fault_set(f, E_ADDRESS_IN_USE, "%s is in use%s%s", text, owner[0] != 0 ? " by " : "", owner);
        } else {
            (void)fault_errno(f, E_SYSTEM, "%s", text);
        }
        if (fd >= 0) {
            (void)close(fd);
        }
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

int address_listen(const char *text, char unix_path[ADDRESS_UNIX_BYTES], struct fault *f) {
    unix_path[0] = 0;
    return address_is_unix(text) ? listen_unix(text, unix_path, f) : listen_tcp(text, f);
}

void address_describe(const struct sockaddr_storage *from, char *out, size_t out_size) {
    char host[INET6_ADDRSTRLEN];
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)from;
        (void)snprintf(out, out_size, "%s:%u", inet_ntop(AF_INET, &in->sin_addr, host, sizeof host), ntohs(in->sin_port));
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)from;
        (void)snprintf(out, out_size, "[%s]:%u", inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host), ntohs(in->sin6_port));
    } else {
        (void)snprintf(out, out_size, "local");
    }
}

void address_source(const char *described, char *out, size_t out_size) {
    char host[ADDRESS_HOST_BYTES], port[ADDRESS_PORT_BYTES], text[INET6_ADDRSTRLEN];
    struct in6_addr v6;
    struct fault ignored = {0};
    if (address_split(described, host, port, &ignored) != E_OK) {
        (void)snprintf(out, out_size, "%s", described);
    } else if (inet_pton(AF_INET6, host, &v6) != 1 || IN6_IS_ADDR_LOOPBACK(&v6)) {
        (void)snprintf(out, out_size, "%s", host);
    } else if (IN6_IS_ADDR_V4MAPPED(&v6)) {
        (void)snprintf(out, out_size, "%u.%u.%u.%u", v6.s6_addr[12], v6.s6_addr[13], v6.s6_addr[14], v6.s6_addr[15]);
    } else {
        memset(v6.s6_addr + 8, 0, 8);
        (void)snprintf(out, out_size, "%s/64", inet_ntop(AF_INET6, &v6, text, sizeof text));
    }
}
