#!/usr/bin/env python3
"""Days offline fill the queue: the cheapest and oldest leave, and the core hears of each loss exactly what the site counted; no alarm is
among them.  Gateways are killed and hand over, and a disk is full meanwhile (FAULTS Q3, Q4, P5).  What grows too old: test_expiry."""
from harness import *

QUEUE_MB = 4
OFFLINE = """  offline:
    queue_size_mb: %d
    floor_percent: {low: 10}
""" % QUEUE_MB


class Sender:
    """Sends batches until they are taken; remembers under which number each event is."""

    def __init__(self, site):
        self.site, self.kept, self.critical, self.refused, self.count = site, {}, set(), 0, 0

    def send(self, priority, count=10, size=8000):
        events = []
        for _ in range(count):
            self.count += 1
            events.append({"id": "e%d" % self.count, "source": "full", "type": "test.reading", "priority": priority, "data": {"n": self.count, "text": "x" * size}})
        body = json.dumps(events)

        def taken():
            for n in self.site.nodes:
                try:
                    a = request(self.site.http[n], "POST", "/v1/events", body, {"Content-Type": "application/json"}, 20)
                except (OSError, http.client.HTTPException):
                    continue
                if a.status in (200, 201, 507):
                    return a
            return None
        a = wait_until("a batch to be taken", taken, 90)
        if a.status == 507:
            self.refused += 1
            return False
        for e, k in zip(events, a.json()["accepted"]):
            self.kept[e["id"]] = (k["channel"], k["seq"])
            if priority == "critical":
                self.critical.add(e["id"])
        return True


def queue(site):
    return request(site.http[site.leader()], "GET", "/v1/queue").json()


def files_bytes(site, n):
    total = 0
    for folder, _, names in os.walk(site.path("node%d" % n, "data")):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(folder, name)) if ".db" in name else 0
            except OSError:  # a journal, just removed
                pass
    return total


def full_disk(site, sender):
    """A follower's disk is full to the last byte: the site takes events, and the gateway goes on by itself when there is room."""
    n = next(n for n in site.nodes if n != site.leader())
    name, place = "node%d" % n, site.path("node%d" % n, "data")
    site.kill(name, signal.SIGTERM)
    kept = site.path("kept%d" % n)
    shutil.move(place, kept)
    os.makedirs(place)
    room_mb = 24 + (sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(kept) for f in files) >> 20)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm,mode=0700" % room_mb, "tmpfs", place], stderr=subprocess.DEVNULL).returncode != 0:
        shutil.rmtree(place)
        shutil.move(kept, place)
        site.restart(name)
        whole(site)
        site.ok(True, "a full disk is not tried: no right to mount")
        return None
    for entry in os.listdir(kept):
        shutil.move(os.path.join(kept, entry), os.path.join(place, entry))
    site.restart(name)
    whole(site)
    with open(os.path.join(place, "ballast"), "wb", buffering=0) as f:  # what a buffer still held would fail when it is closed
        try:
            while True:
                f.write(b"x" * 65536)
        except OSError:
            pass
    for _ in range(10):
        sender.send("normal")
    site.ok(site.alive(name), "with a full disk at one gateway the site takes events")
    os.unlink(os.path.join(place, "ballast"))
    whole(site)
    site.wait_same_state()
    site.ok(True, "when there is room again, the gateway goes on by itself")
    return place


def whole(site):
    wait_until("three healthy voters", lambda: len([m for m in site.status(site.leader())["members"] if m["state"] == "healthy"]) == 3, 90)


def test(site):
    sender = Sender(site)
    for priority in ("critical", "high", "normal", "low"):
        sender.send(priority)
    site.wait_drained()
    small = files_bytes(site, site.leader())
    site.kill("core")
    site.kill("broker")
    sender.send("critical", count=20, size=1000)
    while queue(site)["channels"]["data"]["gap_events"] == 0:
        sender.send("low")
        sender.send("normal")
    old = site.leader()
    site.kill("node%d" % old)
    for _ in range(10):
        sender.send("normal")
    site.restart("node%d" % old)
    whole(site)
    to = next(n for n in site.nodes if n != site.leader())
    wait_until("leadership to go to %d" % to, lambda: site.leader() == to or request(site.http[site.leader()], "POST", "/v1/admin/transfer-leader?to=%d" % to) is None, 60)
    sender.send("critical", count=20, size=1000)
    mounted = full_disk(site, sender)
    try:
        while queue(site)["channels"]["events"]["gap_events"] < 30:
            sender.send("high")
        whole(site)
        site.wait_same_state()
        q = queue(site)
        c = q["channels"]
        site.ok(q["bytes"] <= q["limit_bytes"] == QUEUE_MB << 20, "the queue keeps its bound (%d of %d bytes)" % (q["bytes"], q["limit_bytes"]))
        low = c["data"]["bytes"]
        site.ok(low >= (QUEUE_MB << 20) // 10, "low events keep their share (%d bytes)" % low)
        site.ok(not sender.send("normal", count=70), "normal events, for which nobody gives way, are answered 507")
        full = max(files_bytes(site, n) for n in site.nodes)
        drain(site, sender, c, small, full)
    finally:
        for name in [n for n in site.processes if n.startswith("node")]:
            site.kill(name)
        if mounted:
            subprocess.run(["umount", mounted])


def drain(site, sender, c, small, full):
    site.restart("broker")
    site.restart("core")
    site.try_link()  # how long the site waits before it tries by itself: test_reconnect
    wait_until("the first events at the core", lambda: len(site.core_events()) > 60, 90)
    victim = site.leader()
    site.kill("node%d" % victim)
    site.restart("node%d" % victim)
    site.try_link()  # the next leader may have led while the broker was away
    site.wait_drained()
    events = site.core_events()
    gaps = request(site.core_port, "GET", "/v1/sites/%s/gaps?limit=1000" % SITE).json()["gaps"]
    for channel in ("control", "events", "data"):
        mine = [g for g in gaps if g["channel"] == channel]
        lost, lost_bytes = sum(g["to_seq"] - g["from_seq"] + 1 for g in mine), sum(g["bytes"] for g in mine)
        site.ok(lost == c[channel]["gap_events"] and lost_bytes == c[channel]["gap_bytes"],
                "%s: the core knows of %d lost events of %d bytes, the site counted %d of %d" %
                (channel, lost, lost_bytes, c[channel]["gap_events"], c[channel]["gap_bytes"]))
        site.ok(all(g["reason"] == "evicted" for g in mine), "%s: and why" % channel)
        numbers = sorted([e["seq"] for e in events if e["channel"] == channel] + [n for g in mine for n in range(g["from_seq"], g["to_seq"] + 1)])
        site.ok(numbers == list(range(1, c[channel]["next_seq"])), "%s: each of %d numbers is once at the core, as an event or in a gap" % (channel, len(numbers)))
    site.ok(not [g for g in gaps if g["channel"] == "control"], "no alarm was given up")
    at_core = {e["id"]: (e["channel"], e["seq"]) for e in events}
    site.ok(all(at_core.get(i) == sender.kept[i] for i in sender.critical), "all %d alarms are at the core" % len(sender.critical))
    site.ok(all(sender.kept[i] == numbers for i, numbers in at_core.items()), "each event is there under the number that its sender was told")
    whole(site)

    def shrunk():
        return all(files_bytes(site, n) < small + (full - small) // 4 for n in site.nodes)
    wait_until("files to shrink from %d to about %d bytes" % (full, small), shrunk, 120)
    site.ok(True, "files shrink again: %d bytes, full %d, now %d" % (small, full, max(files_bytes(site, n) for n in site.nodes)))


run_test(test, extra=OFFLINE)
