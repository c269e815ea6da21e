#include "agent/launch/checkup.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define REQUEST_BYTES_MAX 4352u

static bool answers(int fd, const char *path) {
    char text[REQUEST_BYTES_MAX];
    int size = snprintf(text, sizeof text, "GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", path), status = 0;
    if (size >= (int)sizeof text || send(fd, text, (size_t)size, MSG_NOSIGNAL) != size) {
        return false;
    }
    size_t have = 0;
    ssize_t got = 0;
    while (have < 16 && (got = recv(fd, text + have, 63 - have, 0)) > 0) { /* the first line says all */
        have += (size_t)got;
    }
    text[have] = 0;
    return sscanf(text, "HTTP/1.%*1[01] %d", &status) == 1 && status >= 200 && status < 400;
}

bool checkup(uint16_t port, unsigned timeout_s, const char *path) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval limit = {.tv_sec = (time_t)timeout_s};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool well = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 && /* bounds connect as well */
                setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
                connect(fd, (const struct sockaddr *)&at, sizeof at) == 0 && (path[0] == 0 || answers(fd, path));
    if (fd >= 0) {
        (void)close(fd);
    }
    return well;
}
