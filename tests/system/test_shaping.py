#!/usr/bin/env python3
"""A limit of 64 kbit/s, seen from outside by a packet capture.  If this fails, a site on a metered or shared modem sends more than its
owner allowed, learns of a fire behind a backlog, or cannot say who spent the bytes."""
import hashlib
from capture import Capture
from harness import *

LIMIT = 8000  # bytes a second
DOWN_LIMIT = 2000
WAIT_S, WAIT_S_MAX = 3, 10  # of an alarm: half of them, and any, for the machine may stand still for a moment; behind the backlog it would be 20
MTU = 1500


class Wire(Capture):
    """Every packet between the site and its broker."""

    def __init__(self, broker_port):
        super().__init__("lo", broker_port)
        self.port, self.others = broker_port, set()

    def leave_out(self, pid):
        """The core speaks to the same broker: its connections are not the site's."""
        with open("/proc/net/tcp") as f, open("/proc/net/tcp6") as g:
            ports = {line.split()[9]: int(line.split()[1].rsplit(":", 1)[1], 16) for line in f.readlines()[1:] + g.readlines()[1:]}
        held = [os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)]
        self.others = {ports[h[8:-1]] for h in held if h.startswith("socket:") and h[8:-1] in ports}

    def both(self):
        """(time, size) of what went up and what came down."""
        packets = [p for p in self.so_far() if p[2] not in self.others and p[3] not in self.others]
        return [(t, z) for t, z, s, d in packets if d == self.port], [(t, z) for t, z, s, d in packets if s == self.port]


def most_in(packets, span):
    most, total, first = 0, 0, 0
    for t, size in packets:
        total += size
        while packets[first][0] + span < t:
            total -= packets[first][1]
            first += 1
        most = max(most, total)
    return most


def noise(number, size):  # what does not compress
    return "".join(hashlib.sha256(b"%d %d" % (number, i)).hexdigest() for i in range(size // 64))


def federation(site):
    return request(site.http[1], "GET", "/v1/federation/status").json()


def configure(site, bandwidth):
    site.extra = "  bandwidth:\n" + "".join("    %s\n" % line for line in bandwidth)
    site.write_config(1)
    if site.alive("node1"):
        site.processes["node1"].send_signal(signal.SIGHUP)


def send(site, priority, data):
    return request(site.http[1], "POST", "/v1/events", json.dumps({"type": "t", "priority": priority, "data": data})).json()["accepted"][0]["seq"]


def acked(site, channel):
    return site.queue(1)[channel]["acked_seq"]


def alarms(site, count, what):
    waits = []
    for i in range(count):
        time.sleep(1.2)
        began = time.monotonic()
        seq = send(site, "critical", i)
        wait_until(what, lambda: request(site.core_port, "GET", "/v1/sites/%s" % SITE).json()["channels"].get("control", {}).get("acked_seq", 0) >= seq, 60)
        waits.append(time.monotonic() - began)
    return sorted(waits)


def test(site, capture):
    # A backlog of half a minute; alarms overtake it.
    for i in range(6):
        body = json.dumps([{"type": "bulk", "priority": "normal", "data": noise(10 * i + k, 6400)} for k in range(10)])
        request(site.http[1], "POST", "/v1/events", body, {"Content-Type": "application/json"})
    wait_until("the backlog to move", lambda: acked(site, "data") > 2, 60)
    busy_from = time.time()
    waits = alarms(site, 8, "the alarm at the core")
    busy_to = time.time()
    site.ok(acked(site, "data") < 60, "the backlog was still on its way")
    site.ok(waits[4] < WAIT_S and waits[-1] < WAIT_S_MAX, "alarms overtake it: %s s at the core" % " ".join("%.2f" % w for w in waits))
    capture.leave_out(site.processes["core"].pid)
    up, down = capture.both()
    worst = most_in(up, 1)
    site.ok(0 < worst <= LIMIT + MTU, "no second carried more than the limit and a packet: %d bytes of %d" % (worst, LIMIT))
    slots = [sum(z for t, z in up if at <= t < at + 2) for at in range(int(busy_from) + 1, int(busy_to) - 2, 2)]
    used = sorted(slots)[len(slots) // 2] / 2 / LIMIT  # the middle one: a moment in which the machine stood still does not count
    site.ok(used > 0.85, "and the limit was used: %.0f%%" % (100 * used))

    # A single event that takes a quarter of a minute does not stand in the way either.
    site.wait_drained(120)
    large = noise(7, 200000)
    seq = send(site, "normal", large)
    time.sleep(2)
    waits = alarms(site, 5, "the alarm at the core")
    site.ok(acked(site, "data") < seq, "a large event was still on its way")
    site.ok(waits[2] < WAIT_S and waits[-1] < WAIT_S_MAX, "alarms go between its parts: %s s at the core" % " ".join("%.2f" % w for w in waits))
    site.wait_drained(120)
    worst = most_in(capture.both()[0], 1)
    site.ok(worst <= LIMIT + MTU, "within the limit: %d bytes of %d" % (worst, LIMIT))
    site.ok(any(e["data"] == large for e in site.core_events() if e["channel"] == "data"), "and it arrives whole")

    # The ledger is what the capture saw.
    site.wait_drained(120)
    time.sleep(2)
    up, down = capture.both()
    ledger = federation(site)["ledger"]
    for way, packets in (("up", up), ("down", down)):
        seen, said = sum(z for _, z in packets), ledger[way]["total"]
        site.ok(abs(said - seen) <= 0.02 * seen, "the ledger says what the wire carried %s: %d of %d bytes" % (way, said, seen))
        site.ok(sum(v for k, v in ledger[way].items() if k != "total") == said, "each of them has an owner")
    site.ok(ledger["up"]["data"] > 0.85 * ledger["up"]["total"] and ledger["up"]["control"] > 8 * 200, "bulk spent the most of it")
    shown = json.loads(site.ctl("link", "budget", "-o", "json").stdout)
    table = site.ctl("link", "budget").stdout
    site.ok(shown["ledger"]["up"]["data"] == ledger["up"]["data"] and "handshakes" in table and "no budget" in table, "greyctl link budget shows it")
    metrics = request(site.http[1], "GET", "/metrics").body.decode()
    site.ok('grey_federation_up_bytes_total{feature="data"} %d\n' % ledger["up"]["data"] in metrics, "and so do the metrics")
    tested = site.ctl("link", "test", "--seconds", "30")
    site.ok(tested.returncode == 0 and "acknowledged by the core" in tested.stdout, "greyctl link test: %s" % tested.stdout.strip())

    # Another limit, at run time.
    configure(site, ["limit_mbps: 0.256"])
    wait_until("the new limit", lambda: federation(site)["bandwidth"]["limit_bytes_per_second"] == 4 * LIMIT, 30)
    changed = time.time()
    for i in range(3):
        body = json.dumps([{"type": "bulk", "priority": "normal", "data": noise(1000 + 10 * i + k, 6400)} for k in range(10)])
        request(site.http[1], "POST", "/v1/events", body, {"Content-Type": "application/json"})
    site.wait_drained(60)
    up, _ = capture.both()
    fast = most_in([p for p in up if p[0] > changed], 1)
    site.ok(2 * LIMIT < fast <= 4 * LIMIT + MTU, "another limit holds without a restart: %d bytes in a second of %d" % (fast, 4 * LIMIT))

    # A window holds bulk back; what is critical goes on.  Then the budget does.
    for name, lines in (("window", ["windows: [\"* * * * * forbid=data\"]"]), ("budget", ["budget: {day_mb: 0.02}"])):
        configure(site, lines)
        wait_until("the " + name, lambda: federation(site)["bandwidth"]["held"] == (["data"] if name == "window" else ["events", "data"]), 30)
        before = acked(site, "data")
        send(site, "normal", name)
        seq = send(site, "critical", name)
        wait_until("the critical one", lambda: acked(site, "control") >= seq, 30)
        time.sleep(2)
        site.ok(acked(site, "data") == before and site.queue(1)["data"]["pending"] == 1, "a %s holds bulk back, and critical events pass" % name)
        site.ok("held back" in site.ctl("link", "status").stdout, "which greyctl link status says")
        configure(site, ["limit_mbps: 0"])
        site.wait_drained(60)

    # What comes down is limited as well: the core paces itself, and the site asks for fewer answers.
    configure(site, ["down_limit_mbps: %.3f" % (DOWN_LIMIT * 8 / 1e6)])
    wait_until("the limit", lambda: federation(site)["bandwidth"]["down_limit_bytes_per_second"] == DOWN_LIMIT and federation(site)["link"]["up"], 30)
    time.sleep(3)
    changed = time.time()
    for i in range(100):
        send(site, "high" if i % 2 else "critical", i)
    site.wait_drained(120)
    _, down = capture.both()
    slow, whole = most_in([p for p in down if p[0] > changed], 1), sum(z for t, z in down if t > changed)
    site.ok(whole > 2 * DOWN_LIMIT and slow <= DOWN_LIMIT + MTU, "what comes down keeps to its limit: %d bytes in a second of %d, %d in all" % (slow, DOWN_LIMIT, whole))

    # What was spent today is remembered.
    configure(site, ["budget: {day_mb: 100}"])
    wait_until("the budget", lambda: federation(site)["budget"]["day"]["bytes"] == 100000000, 30)
    seq = send(site, "high", "note the cost")
    wait_until("its acknowledgement", lambda: acked(site, "events") >= seq, 30)
    used = federation(site)["budget"]["day"]["used_bytes"]
    site.restart("node1")
    site.leader()
    wait_until("the link", lambda: federation(site)["link"]["up"], 60)
    after = federation(site)["budget"]["day"]["used_bytes"]
    site.ok(used - 2000 <= after <= used + 60000, "a restart does not forget what was spent: %d, then %d bytes" % (used, after))
    events = site.core_events()
    site.ok(len({(e["channel"], e["seq"]) for e in events}) == len(events) == 60 + 8 + 1 + 5 + 1 + 30 + 4 + 100 + 1, "everything is at the core once")


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("ok 1 - # SKIP to see packets takes root")
        sys.exit(0)
    s = Site(nodes=1)
    try:
        configure(s, ["limit_mbps: %.3f" % (LIMIT * 8 / 1e6)])
        watch = Wire(s.broker_port)
        s.start()
        test(s, watch)
    except Exception as e:
        s.ok(False, "%s: %s" % (type(e).__name__, e))
    s.finish()
