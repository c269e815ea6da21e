"""badlink.py: a link of IP packets that is thin, late, lossy and down at times, for tests of a whole site.  The reference kernel has no netem;
so two TUN devices in network namespaces of the test's own are joined by a relay in this process, which sees, counts and delays each packet.
TCP at both ends is the kernel's: it retransmits, backs off and gives up as on a real modem.

enter() moves this process and its children to a namespace where only loopback exists; the far end of the link lies in a second one, where
just a listening socket stands, and what comes to it is passed on to the broker over the loopback of the first.  Nothing of the machine's own
network is touched, and all of it ends with the process."""
import collections, ctypes, fcntl, heapq, os, random, select, socket, struct, subprocess, tempfile, threading, time

from harness import Relay, Site

NEAR, FAR = "10.99.0.1", "10.99.0.2"
CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 1, 0x1000
BUFFER_S = 1.0  # what waits in the modem for its turn is worth at most so much time; what does not fit is lost
libc = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter():
    """A namespace of its own for this process, before it has other threads; what is missing for that, or None."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    try:
        checked(libc.unshare(CLONE_NEWNET))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["unshare", "-m", "true"], check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        return "no network namespace: %s" % e
    return None


def tun(name, address):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    for command in (["addr", "add", address + "/30", "dev", name], ["link", "set", name, "mtu", "1500", "up"]):
        subprocess.run(["ip"] + command, check=True)
    return fd


class BadLink(Relay):
    """bytes_per_second each way, delay_s each way, share `loss` of the packets lost; `up` is False while nothing passes at all."""

    def __init__(self, target_port, bytes_per_second, delay_s, loss, seed):
        self.rate, self.delay, self.loss, self.random, self.up = bytes_per_second, delay_s, loss, random.Random(seed), True
        self.sent = ([], [])  # (time, bytes) of each packet that went up and down, lost or not
        self.lost, self.overflowed, self.closed = [0, 0], [0, 0], False
        super().__init__(target_port)

    def listen(self):
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        near = tun("near", NEAR)
        checked(libc.unshare(CLONE_NEWNET))
        try:
            far = tun("far", FAR)
            server = socket.create_server((FAR, 0))
        finally:
            checked(libc.setns(home, CLONE_NEWNET))
            os.close(home)
        self.ends = near, far
        self.thread = threading.Thread(target=self.ferry, daemon=True)
        self.thread.start()
        return server

    def ferry(self):
        free, flying, number = [0.0, 0.0], [], 0  # when each way's modem is free; (arrival, number, way, packet)
        while not self.closed:
            wait = max(0, flying[0][0] - time.monotonic()) if flying else 1
            ready, _, _ = select.select(self.ends, [], [], wait)
            now = time.monotonic()
            for end in ready:
                way, packet = self.ends.index(end), os.read(end, 2048)
                if packet[0] >> 4 != 4:  # router solicitations of IPv6
                    continue
                self.sent[way].append((now, len(packet)))
                if not self.up or self.random.random() < self.loss or not self.passes(end, packet):
                    self.lost[way] += 1
                elif free[way] - now > BUFFER_S:
                    self.overflowed[way] += 1
                else:
                    free[way] = max(free[way], now) + len(packet) / self.rate
                    number += 1
                    heapq.heappush(flying, (free[way] + self.delay, number, way, packet))
            while flying and flying[0][0] <= now:
                _, _, way, packet = heapq.heappop(flying)
                if self.up:
                    os.write(self.ends[1 - way], packet)

    def passes(self, end, packet):
        """For links with a mind of their own; end: the device that the packet came from."""
        return True

    def close(self):
        """The devices are gone: another link may be made in this process."""
        self.closed = True
        self.thread.join()
        for fd in self.ends:
            os.close(fd)

    def carry(self, a, b, way, pair):
        # as the broker does, by set_tcp_nodelay: its answers must not wait for one another's round trip
        b.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().carry(a, b, way, pair)


def most_in(packets, span_s):
    """The most bytes that any time of span_s saw."""
    most, total, window = 0, 0, collections.deque()
    for t, size in packets:
        window.append((t, size))
        total += size
        while window[0][0] + span_s <= t:
            total -= window.popleft()[1]
        most = max(most, total)
    return most


class BadSite(Site):
    """A site whose gateways reach the broker over the link only: to them, by /etc/hosts in a mount namespace of their own, "localhost" is
    its far end, which the broker's certificate names."""

    def __init__(self, link_options, **options):
        super().__init__(line=lambda port: BadLink(port, **link_options), **options)
        with open(self.path("hosts"), "w") as f:
            f.write("%s localhost\n" % FAR)

    def start_node(self, n, bootstrap=None, under=()):
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        super().start_node(n, bootstrap, ["unshare", "-m", "sh", "-c", script, self.path("hosts")] + list(under))
