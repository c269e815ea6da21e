#!/usr/bin/env python3
"""The link that sites complain of: 64 kbit/s, 600 ms there and back, one packet of twenty lost, down now and then, and in the middle of the
backlog the leading gateway dies.  If this fails, an alarm is lost or comes twice, bulk vanishes without a word, or the owner of the link
pays for more than the limit (FAULTS N and Q)."""
import hashlib
from badlink import *
from capture import Capture
from harness import *

LIMIT = 8000  # bytes a second: the link's, and that of the configuration
QUEUE_MB, BULK, BULK_BYTES = 1, 60, 3200
SCHEDULE = ((10, True), (5, False), (16, True), (8, False), (0, True))  # seconds, and whether anything passes; at last it does
KILL_S, RETURN_S = 20, 26  # the leader, in the middle of the second time that the link is up
ALARM_EVERY_S, ALARMS = 2.0, 22
ALARM_DEADLINE_S = 30  # at the core, once the link is up for good after it was sent, or a new leader there
BETTER = {"rate": 4 * LIMIT, "delay": 0.05}  # a link that carries more than the configuration allows, and still loses packets
OPTIONS = """  offline: {queue_size_mb: %d}
  bandwidth: {limit_mbps: %.3f}
""" % (QUEUE_MB, LIMIT * 8 / 1e6)


class Sender:
    """Sends until it is taken, to whichever gateway answers; remembers under which number each event is.  A batch whose answer was lost
    goes again under the same ids, and is told the same numbers."""

    def __init__(self, site):
        self.site, self.kept, self.count = site, {}, 0

    def send(self, kind, priority, texts):
        events = []
        for text in texts:
            self.count += 1
            events.append({"id": "%s%d" % (kind, self.count), "source": "bad-link", "type": kind, "priority": priority, "data": text})
        body = json.dumps(events)

        def taken():
            for n in self.site.nodes:
                try:
                    a = request(self.site.http[n], "POST", "/v1/events", body, {"Content-Type": "application/json"}, 10)
                except (OSError, http.client.HTTPException):
                    continue
                if a.status in (200, 201):
                    return a.json()["accepted"]
            return None
        answer = wait_until("a batch to be taken", taken, 60)
        self.kept.update({e["id"]: (k["channel"], k["seq"]) for e, k in zip(events, answer)})
        return answer[-1]["seq"]


def noise(number, size):  # what does not compress
    return "".join(hashlib.sha256(b"%d %d" % (number, i)).hexdigest() for i in range(size // 64))


def queue(site):
    return request(site.http[site.leader()], "GET", "/v1/queue").json()["channels"]


def at_core(site, channel):
    return request(site.core_port, "GET", "/v1/sites/%s" % SITE).json()["channels"].get(channel, {}).get("acked_seq", 0)


class Arrivals:
    """When the core first had which number of the control channel."""

    def __init__(self, site):
        self.site, self.seen = site, []
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while not self.site.finished:
            try:
                seq = at_core(self.site, "control")
                if not self.seen or seq > self.seen[-1][1]:
                    self.seen.append((time.monotonic(), seq))
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                pass
            time.sleep(0.1)

    def of(self, seq):
        return next((t for t, s in list(self.seen) if s >= seq), None)


def fill(site, sender):
    """Offline: bulk, and cheap events until the queue is full and the oldest of them leave."""
    site.line.up = False
    for i in range(0, BULK, 10):
        sender.send("bulk", "normal", [noise(i + k, BULK_BYTES) for k in range(10)])
    sender.send("alarm", "critical", ["offline"] * 3)
    while queue(site)["data"]["gap_events"] == 0:
        sender.send("filler", "low", ["x" * 12000] * 10)


def drain(site, sender):
    """The backlog over the link, by the schedule; what happens when stands in one list.  Returns the alarms (sent, number,
    events of bulk that waited), when the link came up, and when all of it began."""
    began, turn, due, ups, events = time.monotonic(), 0, 0, [], []
    for seconds, up in SCHEDULE:
        events.append((due, "up" if up else "down", None))
        due += seconds
    events += [(KILL_S, "kill", None), (RETURN_S, "return", None)]
    events += [(1 + i * ALARM_EVERY_S, "alarm", i) for i in range(ALARMS)]
    alarms, dead = [], None
    for at, what, number in sorted(events, key=lambda e: e[0]):
        time.sleep(max(0, began + at - time.monotonic()))
        if what in ("up", "down"):
            site.line.up = what == "up"
            ups += [time.monotonic()] if site.line.up else []
        elif what == "kill":
            dead = site.leader()
            site.ok(queue(site)["data"]["pending"] > 0, "the leader dies amid the backlog")
            site.kill("node%d" % dead)
        elif what == "return":
            ups.append(time.monotonic())  # by now another leads, and has to connect
            site.start_node(dead)
        else:
            sent = time.monotonic()
            seq = sender.send("alarm", "critical", [number])
            alarms.append((sent, seq, queue(site)["data"]["pending"]))
            if number % 5 == 0:  # the queue stays full: what leaves it leaves while it is being drained
                sender.send("filler", "low", ["x" * 12000] * 5)
    return alarms, ups, began


def judge_alarms(site, alarms, ups, arrivals):
    waits, late = [], []
    for sent, seq, _ in alarms:
        arrived = wait_until("alarm %d" % seq, lambda: arrivals.of(seq), 60)
        waits.append(arrived - sent)
        usable = max([sent] + [t for t in ups if t <= arrived])
        late.append(arrived - usable)
    site.ok(max(late) < ALARM_DEADLINE_S, "an alarm waits %.1f s at most for a link that is up (%d allowed)" % (max(late), ALARM_DEADLINE_S))
    waits.sort()
    print("# alarms at the core after %.1f s (median), %.1f s (longest), outages included" % (waits[len(waits) // 2], waits[-1]))


def judge_events(site, sender):
    c, events = queue(site), site.core_events()
    gaps = request(site.core_port, "GET", "/v1/sites/%s/gaps?limit=1000" % SITE).json()["gaps"]
    known = {e["id"]: (e["channel"], e["seq"]) for e in events}
    critical = [i for i in sender.kept if i.startswith("alarm")]
    site.ok(len(critical) == ALARMS + 3 and all(known.get(i) == sender.kept[i] for i in critical), "all %d alarms are at the core, under their numbers" % len(critical))
    for channel in c:
        mine = [g for g in gaps if g["channel"] == channel]
        numbers = sorted([e["seq"] for e in events if e["channel"] == channel] + [n for g in mine for n in range(g["from_seq"], g["to_seq"] + 1)])
        site.ok(numbers == list(range(1, c[channel]["next_seq"])), "%s: each of %d numbers is at the core once, as an event or in a gap" % (channel, len(numbers)))
        lost = sum(g["to_seq"] - g["from_seq"] + 1 for g in mine)
        site.ok(lost == c[channel]["gap_events"], "%s: the core knows of %d lost events, as the site" % (channel, lost))
    site.ok(not [g for g in gaps if g["channel"] == "control"] and c["data"]["gap_events"] > 0, "cheap events gave way, no alarm did")
    gone = {(g["channel"], n) for g in gaps for n in range(g["from_seq"], g["to_seq"] + 1)}
    site.ok(all((known.get(i) == place) != (place in gone) for i, place in sender.kept.items()), "each event that was taken is there, or in a gap")
    texts = {e["id"]: e["data"] for e in events}
    bulk = sorted((i for i in sender.kept if i.startswith("bulk")), key=lambda i: int(i[4:]))
    site.ok([texts.get(i) for i in bulk] == [noise(k, BULK_BYTES) for k in range(BULK)], "bulk arrives whole")


def test(site, leaving):
    sender, arrivals = Sender(site), Arrivals(site)
    fill(site, sender)
    alarms, ups, began = drain(site, sender)
    amid = len([1 for _, _, pending in alarms if pending > 0])
    site.ok(amid >= ALARMS // 2, "%d of %d alarms were sent while bulk was on its way" % (amid, ALARMS))
    site.wait_drained(120)
    took = time.monotonic() - began
    judge_alarms(site, alarms, ups, arrivals)
    judge_events(site, sender)
    line, (up, down) = site.line, site.line.sent
    print("# %d bytes up, %d down in %.0f s; packets lost %s, crowded out %s" %
          (sum(z for t, z in up if t >= began), sum(z for t, z in down if t >= began), took, line.lost, line.overflowed))
    site.ok(sum(line.lost) > 20, "packets were lost: %d up, %d down" % tuple(line.lost))
    within_limit(site, left(leaving), 0.3, "the bad link")
    better_link(site, sender, leaving)


def left(capture):
    return [(t, size) for t, size, _, _ in capture.so_far()]


def within_limit(site, packets, used, what):
    most = most_in(packets, 10)
    site.ok(used * 10 * LIMIT <= most <= 1.02 * 10 * LIMIT, "%s: no ten seconds carried more than the limit and 2%%: %d bytes of %d" % (what, most, 10 * LIMIT))


def better_link(site, sender, leaving):
    """Here the limit is what holds bytes back, and what is lost and sent again must not come on top of it."""
    site.line.rate, site.line.delay = BETTER["rate"], BETTER["delay"]
    before = len(left(leaving))
    for _ in range(6):  # until there were ten seconds in which no process stood still: else the limit is not what holds bytes back
        for i in range(0, BULK, 10):
            sender.send("bulk", "normal", [noise(i + k, BULK_BYTES) for k in range(10)])
        site.wait_drained(90)
        if most_in(left(leaving)[before:], 10) >= 0.9 * 10 * LIMIT:
            break
    within_limit(site, left(leaving)[before:], 0.9, "a better link")


if __name__ == "__main__":
    missing = enter()
    if missing:
        print("ok 1 - # SKIP %s" % missing)
        sys.exit(0)
    s = BadSite({"bytes_per_second": LIMIT, "delay_s": 0.3, "loss": 0.05, "seed": random.getrandbits(32)}, extra=OPTIONS)
    try:
        leaving = Capture("near")  # by the kernel's time: who carries the packets may come late, and take at once what left one after the other
        s.start()
        test(s, leaving)
    except Exception as e:
        s.ok(False, "%s: %s" % (type(e).__name__, e))
    s.finish()
