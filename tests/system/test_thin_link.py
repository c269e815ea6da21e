#!/usr/bin/env python3
"""A link of 64 kbit/s with a round trip of 0.6 s: a backlog gets through, and an alarm overtakes it.  If this fails, a site on a
satellite or an old modem never empties its queue, or learns at the core of a fire when the week's temperatures have arrived."""
import collections, hashlib
from harness import *

RATE, DELAY = 8000, 0.3  # bytes a second each way, seconds each way


class ThinLink(Relay):
    """Carries RATE bytes a second each way, each DELAY late, and counts them."""

    def __init__(self, target_port):
        self.carried, self.silent = [0, 0], False
        super().__init__(target_port)

    def listen(self):
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        return server

    def carry(self, a, b, way, pair):
        line = collections.deque()
        giver = threading.Thread(target=self.give, args=(b, line), daemon=True)
        giver.start()
        data = b"x"
        while data:
            try:
                data = a.recv(400)
            except OSError:
                data = b""
            time.sleep(len(data) / RATE)
            while self.silent:
                time.sleep(0.05)
            self.carried[way] += len(data)
            line.append((time.monotonic() + DELAY, data))
        giver.join()

    def give(self, b, line):
        while True:
            while not line or line[0][0] > time.monotonic():
                time.sleep(0.01)
            data = line.popleft()[1]
            try:
                b.sendall(data) if data else b.shutdown(socket.SHUT_WR)
            except OSError:
                return
            if not data:
                return


def noise(number, size):  # what does not compress
    return "".join(hashlib.sha256(b"%d %d" % (number, i)).hexdigest() for i in range(size // 64))


def at_core(site, channel):
    return request(site.core_port, "GET", "/v1/sites/%s" % SITE).json()["channels"].get(channel, {}).get("acked_seq", 0)


def metric(site, name):
    text = request(site.http[1], "GET", "/metrics").body.decode()
    return float([l for l in text.splitlines() if l.startswith(name + " ")][0].split()[1])


def test(site):
    port = site.http[1]
    backlog = 60  # half a minute
    for i in range(0, backlog, 10):
        body = json.dumps([{"type": "bulk", "priority": "normal", "data": noise(i + k, 6400)} for k in range(10)])
        site.ok(request(port, "POST", "/v1/events", body, {"Content-Type": "application/json"}).status == 201, "a backlog of large events is taken") if i == 0 else request(port, "POST", "/v1/events", body)
    wait_until("the backlog to move", lambda: at_core(site, "data") > 3, 90)
    waits = []
    for i in range(5):
        time.sleep(1.5)
        began = time.monotonic()
        a = request(port, "POST", "/v1/events", json.dumps({"type": "alarm", "priority": "critical", "data": i})).json()
        seq = a["accepted"][0]["seq"]
        wait_until("the alarm at the core", lambda: at_core(site, "control") >= seq, 120)
        waits.append(time.monotonic() - began)
    busy = at_core(site, "data") < backlog
    site.ok(busy, "the backlog was still on its way (%d of %d)" % (at_core(site, "data"), backlog))
    waits.sort()
    # Wide, for the machine may stand still for a moment; behind the backlog the first would be 20 s late.
    site.ok(waits[len(waits) // 2] < 5 and waits[-1] < 12, "alarms overtake it: %s s at the core" % " ".join("%.1f" % w for w in waits))
    site.wait_drained(300)
    size = backlog * 6400 // 2  # hexadecimal digits carry half
    site.ok(site.line.carried[0] < 2.6 * size + 30000, "the backlog crosses once: %d bytes for %d of records" % (site.line.carried[0], 2 * size))
    site.ok(metric(site, "grey_federation_connects_total") == 1, "over one connection")
    events = site.core_events()
    site.ok(len(events) == backlog + 5 and len({(e["channel"], e["seq"]) for e in events}) == backlog + 5, "everything is at the core once")

    # The path dies without a word (a router that has forgotten us), in the middle of traffic.
    site.line.silent = True
    for i in range(3):
        request(port, "POST", "/v1/events", json.dumps({"type": "bulk", "priority": "high", "data": noise(i, 640)}))
    time.sleep(1)
    began = time.monotonic()
    wait_until("the loss to be seen", lambda: metric(site, "grey_federation_link_up") == 0, 120)
    site.ok(True, "a dead path is noticed after %.0f s" % (time.monotonic() - began))
    site.line.silent = False
    site.wait_drained(120)
    site.ok(len(site.core_events()) == backlog + 8, "and all is delivered once over the next one")


if __name__ == "__main__":
    s = Site(line=ThinLink, nodes=1)
    try:
        s.start()
        test(s)
    except Exception as e:
        s.ok(False, "%s: %s" % (type(e).__name__, e))
    s.finish()
