#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "platform/address.h"
#include "platform/conn_core.h"

#define IP4_BYTES 20u
#define IP6_BYTES 40u
#define TCP_BYTES 20u
#define TIMESTAMPS_BYTES 12u /* RFC 7323, padded */
#define RENO "reno"          /* each Linux has it */
#define SYN_MORE_BYTES 8u    /* options of the first segment that the others lack */

static uint32_t ip_bytes(int fd) {
    struct sockaddr_in6 a = {0};
    socklen_t size = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &size) != 0 || a.sin6_family != AF_INET6) {
        return IP4_BYTES;
    }
    return IN6_IS_ADDR_V4MAPPED(&a.sin6_addr) ? IP4_BYTES : IP6_BYTES;
}

bool conn_wired(const struct conn *c, struct conn_wire *out) {
    struct tcp_info t = {0};
    socklen_t size = sizeof t;
    *out = c->tried;
    if (c->fd < 0 || getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &t, &size) != 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_retrans) + sizeof t.tcpi_bytes_retrans) { /* Linux 4.19 */
        return c->tried.out_bytes > 0;
    }
    uint32_t header = ip_bytes(c->fd) + TCP_BYTES + ((t.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0 ? TIMESTAMPS_BYTES : 0);
    out->segment_bytes = t.tcpi_snd_mss;
    out->header_bytes = header;
    out->out_bytes += t.tcpi_bytes_sent + (uint64_t)t.tcpi_segs_out * header + (t.tcpi_segs_out > 0 ? SYN_MORE_BYTES : 0);
    out->in_bytes += t.tcpi_bytes_received + (uint64_t)t.tcpi_segs_in * header + (t.tcpi_segs_in > 0 ? SYN_MORE_BYTES : 0);
    out->resent_bytes += t.tcpi_bytes_retrans + (uint64_t)t.tcpi_total_retrans * header;
    out->unsent_bytes = t.tcpi_notsent_bytes;
    return true;
}

void conn_wire_add(struct conn_wire *sum, const struct conn *c) {
    struct conn_wire w;
    if (conn_wired(c, &w)) {
        w.in_bytes += sum->in_bytes;
        w.out_bytes += sum->out_bytes;
        w.resent_bytes += sum->resent_bytes;
        *sum = w;
    }
}

void conn_set_unsent_max(struct conn *c, uint32_t bytes) {
    int most = bytes == 0 || bytes > INT32_MAX ? -1 : (int)bytes; /* as unsigned, -1 is no bound */
    if (c->fd >= 0) {
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof most);
    }
}

void conn_set_calm(struct conn *c, bool calm) {
    socklen_t size = sizeof c->congestion - 1;
    if (c->fd < 0 || (c->congestion[0] == 0 && getsockopt(c->fd, IPPROTO_TCP, TCP_CONGESTION, c->congestion, &size) != 0)) {
        return;
    }
    const char *name = calm ? RENO : c->congestion;
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name));
}

void conn_set_patience(struct conn *c, uint32_t patience_ms) {
    int patience = (int)patience_ms, first_s = patience / 2000, every_s = patience / 6000;
    if (c->fd >= 0) {
        address_keep_alive(c->fd, first_s > 0 ? first_s : 1, every_s > 0 ? every_s : 1);
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
    }
}
