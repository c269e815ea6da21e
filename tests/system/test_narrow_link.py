#!/usr/bin/env python3
"""Somewhere on the way to the core packets over 576 bytes do not pass: a router says so, or (a firewall eats its word) nobody does (FAULTS N7).
If this fails, a site behind such a line never gets through and its log does not say where it hangs."""
import struct
from badlink import *
from harness import *

MTU = 576


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class NarrowLink(BadLink):
    """widest: the largest packet that passes; told: its sender hears of it (ICMP, "fragmentation needed")."""
    widest, told, dropped, largest = 1500, True, 0, 0

    def passes(self, end, packet):
        if len(packet) <= self.widest:
            self.largest = max(self.largest, len(packet))
            return True
        self.dropped += 1
        if self.told:
            quoted = packet[:(packet[0] & 15) * 4 + 8]
            icmp = struct.pack("!BBHHH", 3, 4, 0, 0, self.widest) + quoted
            icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
            header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0, packet[16:20], packet[12:16])
            os.write(end, header[:10] + struct.pack("!H", checksum(header)) + header[12:] + icmp)
        return False


class NarrowSite(BadSite):
    def __init__(self, **options):
        Site.__init__(self, line=lambda port: NarrowLink(port, 1e6, 0.01, 0.0, 1), **options)
        with open(self.path("hosts"), "w") as f:
            f.write("%s localhost\n" % FAR)


def send(site, tag, count):
    batch = [{"id": "%s%d" % (tag, i), "source": "narrow", "type": "t", "priority": "normal", "data": os.urandom(300).hex()} for i in range(count)]
    a = request(site.http[site.leader()], "POST", "/v1/events", json.dumps(batch), {"Content-Type": "application/json"})
    assert a.status in (200, 201), a.body


def connect_anew(site):
    for n in site.nodes:
        site.restart("node%d" % n)
    site.leader()


def widen(site, widest, told):
    site.line.widest, site.line.told, site.line.dropped, site.line.largest = widest, told, 0, 0


def test(site):
    send(site, "wide", 20)
    site.wait_drained()
    widen(site, MTU, False)
    connect_anew(site)
    send(site, "lost", 40)

    def judged():
        if all(c["pending"] == 0 for c in site.queue(site.leader()).values()):
            return "they arrived"
        link = site.link(site.leader())
        return not link["up"] and site.line.dropped > 0 and link["last_error"]
    said = wait_until("the events at the core, or a reason", judged, 90)
    site.ok(site.line.dropped > 0, "where large packets vanish without a word (%d did), the status says what became of it: %s" % (site.line.dropped, said))
    a = request(site.http[1], "PUT", "/v1/kv/local", "1")
    site.ok(a.status in (200, 201), "and the site goes on meanwhile")

    widen(site, MTU, True)
    send(site, "told", 40)
    site.ctl("link", "try")
    site.wait_drained()
    site.ok(site.line.dropped > 0 and site.line.largest <= MTU, "where a router says that %d bytes is all, events arrive (%d packets were too large)"
            % (MTU, site.line.dropped))
    ids = [e["id"] for e in site.core_events()]
    want = ["wide%d" % i for i in range(20)] + ["lost%d" % i for i in range(40)] + ["told%d" % i for i in range(40)]
    site.ok(ids == want, "all are there, once and in order: %d of %d" % (len(ids), len(want)))


missing = enter()
if missing:
    print("ok 1 - # SKIP %s" % missing)
    sys.exit(0)
s = NarrowSite(nodes=1)
try:
    s.start()
    test(s)
except Exception as e:
    s.ok(False, "%s: %s" % (type(e).__name__, e))
s.finish()
