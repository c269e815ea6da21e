#!/usr/bin/env python3
"""The telemetry of the named corpus over a link of 64 kbit/s, every byte counted.  If this fails, a site on a link that is paid by the
byte pays more than was promised, or what it pays for is not what its devices have sent."""
import hashlib, math
from harness import *

CORPUS = os.path.join(ROOT, "tests", "wire", "telemetry.jsonl")
SEGMENT_BYTES, HEADER_BYTES = 1448, 52  # of TCP over IPv4 with time stamps, on Ethernet
BYTES_AN_EVENT = 40  # the promise; all that is sent both ways while the events go


class Counter(Relay):
    """Reads the headers of TLS records as they pass."""

    def __init__(self, target_port):
        self.count = threading.Lock()
        self.begin()
        super().__init__(target_port)

    def begin(self):
        with self.count:
            self.bytes, self.records, self.segments = [0, 0], [0, 0], [0, 0]

    def carry(self, a, b, way, pair):
        held = b""
        while True:
            data = a.recv(65536)
            if not data:
                return
            b.sendall(data)
            held += data
            while len(held) >= 5 and len(held) >= 5 + int.from_bytes(held[3:5], "big"):
                size = 5 + int.from_bytes(held[3:5], "big")
                held = held[size:]
                with self.count:
                    self.bytes[way] += size
                    self.records[way] += 1
                    self.segments[way] += math.ceil(size / SEGMENT_BYTES)

    def cost(self):
        """Bytes each way, a TCP segment for each part of a record and a bare acknowledgement for each second segment of the other way."""
        with self.count:
            headers = [self.segments[w] + self.segments[1 - w] // 2 for w in (0, 1)]
            return [self.bytes[w] + HEADER_BYTES * headers[w] for w in (0, 1)]


def metric(port, name):
    text = request(port, "GET", "/metrics").body.decode()
    return sum(float(l.split()[-1]) for l in text.splitlines() if l.startswith((name + " ", name + "{")))


def counted(site):
    status = request(site.http[1], "GET", "/v1/federation/status").json()["link"]
    return status["sent_bytes"], status["received_bytes"]


def post(site, lines):
    for i in range(0, len(lines), 100):
        a = request(site.http[1], "POST", "/v1/events", "[" + ",".join(lines[i : i + 100]) + "]", {"Content-Type": "application/json"})
        assert a.status == 201, a.body


def processor_seconds(site, name):
    with open("/proc/%d/stat" % site.processes[name].pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(site, name):
    with open("/proc/%d/status" % site.processes[name].pid) as f:
        return [int(l.split()[1]) for l in f if l.startswith("VmRSS:")][0]


def without_core(site, lines):
    """A backlog: what was gathered while the core was away."""
    site.kill("core")
    post(site, lines)
    time.sleep(2.5)  # the site's last hello is too old then to answer the core's question


def drain(site, what, events):
    site.line.begin()
    before, processor = counted(site), processor_seconds(site, "node1")
    began = time.monotonic()
    site.restart("core")
    site.wait_drained(120)
    took = time.monotonic() - began
    since = lambda: [a - b for a, b in zip(counted(site), before)]
    wait_until("what was sent to have passed", lambda: all(abs(n - passed) < 64 for n, passed in zip(since(), site.line.bytes)), 30)
    sent, received = since()
    cost = site.line.cost()
    each = sum(cost) / events
    print("# %s: %.2f bytes an event, TCP/IP included (up %d, down %d bytes in %d and %d TLS records; the uplink counts %d and %d without TCP/IP), %.1f s, %.0f us of greyd an event, %d KiB"
          % (what, each, cost[0], cost[1], site.line.records[0], site.line.records[1], sent, received, took, (processor_seconds(site, "node1") - processor) * 1e6 / events, resident_kib(site, "node1")))
    site.ok(abs(sent - site.line.bytes[0]) < 64 and abs(received - site.line.bytes[1]) < 64, "%s: the uplink counts what passes" % what)
    site.ok(each <= BYTES_AN_EVENT, "%s: at most %d bytes an event on the wire, all included" % (what, BYTES_AN_EVENT))


def at_core_as_sent(site, lines, what):
    """Byte for byte: the text of the data stands in the core's answer as the device wrote it."""
    wanted = {json.loads(l)["id"]: l[l.index('"data":') : -1] for l in lines}
    found, seqs, cursor = 0, [], ""
    while True:
        a = request(site.core_port, "GET", "/v1/sites/%s/events?limit=1000&after=%s" % (SITE, cursor))
        page, text = a.json(), a.body.decode()
        if not page["events"]:
            break
        for e in page["events"]:
            seqs.append((e["channel"], e["seq"]))
            found += e["id"] in wanted and wanted[e["id"]] in text
        cursor = page["next"]
    site.ok(found == len(wanted) and len(seqs) == len(set(seqs)) == len(wanted), "%s: %d of %d events are at the core once, byte for byte" % (what, found, len(wanted)))


def test(site):
    print("# greyd before: %d KiB" % resident_kib(site, "node1"))
    with open(CORPUS) as f:
        lines = f.read().splitlines()
    without_core(site, lines[:2000])
    drain(site, "64 kbit/s", 2000)
    at_core_as_sent(site, lines[:2000], "64 kbit/s")
    site.ok(metric(site.core_port, "grey_core_squeezing_sites") == 1, "the core holds one squeezed session")

    # The core forgets the session in the middle, and then the connection goes.
    without_core(site, lines[2000:])
    site.restart("core")
    pending = lambda: sum(c["pending"] for c in site.queue(1).values())
    wait_until("the backlog to move", lambda: pending() < 1900, 60)
    site.restart("core")
    wait_until("the backlog to move again", lambda: pending() < 1200, 90)
    site.line.end_all()
    site.wait_drained(120)
    at_core_as_sent(site, lines, "core and connection restarted in the middle")
    # Long texts with long repeats are what squeezing knows nothing of: they go as LZ4, and the session goes on beside them.
    texts = ["".join(hashlib.sha256(b"%d %d" % (i, k)).hexdigest() for k in range(32)) * 8 for i in range(6)]
    long = ['{"id":"long-%d","type":"log","source":"plant","data":"%s"}' % (i, t) for i, t in enumerate(texts)]
    mixed = [l.replace('"press-4-', '"again-') for l in lines[:60]]
    site.line.begin()
    for i, l in enumerate(long):
        post(site, mixed[10 * i : 10 * i + 10] + [l])
    site.wait_drained(60)
    site.ok(site.line.bytes[0] < 0.4 * sum(map(len, long)), "repeats of long texts cost little: %d bytes for %d" % (site.line.bytes[0], sum(map(len, long))))
    at_core_as_sent(site, lines + mixed + long, "mixed")
    site.ok(resident_kib(site, "node1") < 12 * 1024, "greyd stays below 12 MiB (%d KiB)" % resident_kib(site, "node1"))


if __name__ == "__main__":
    s = Site(line=Counter, nodes=1, extra="  bandwidth: {limit_mbps: 0.064}\n")
    try:
        s.start()
        test(s)
    except Exception as e:
        s.ok(False, "%s: %s" % (type(e).__name__, e))
    s.finish()
