#!/usr/bin/env python3
"""Events with a time to live leave the queue when that time is over, alarms never do, and the core hears which and why.  If it failed, a site would
come back from days offline and spend its thin link on readings that nobody wants any more, or an alarm would be gone."""
from harness import *

HOURS = 0.017  # a minute is the least
OFFLINE = """  offline:
    time_to_live:
      - {type: "debug.*", hours: %s}
""" % HOURS
COUNT = 7


def send(site, kind, priority):
    body = json.dumps([{"id": "%s-%s-%d" % (kind, priority, i), "source": "test", "type": kind, "priority": priority, "data": i} for i in range(COUNT)])
    a = wait_until("a batch to be taken", lambda: [a for a in [request(site.http[site.leader()], "POST", "/v1/events", body)] if a.status in (200, 201)])
    return sorted(k["seq"] for k in a[0].json()["accepted"])


def test(site):
    site.kill("core")
    site.kill("broker")
    debug, kept, alarms = send(site, "debug.trace", "high"), send(site, "reading", "high"), send(site, "debug.trace", "critical")
    low = send(site, "debug.trace", "low")
    old = site.leader()
    site.kill("node%d" % old)  # the clock of an event is the site's, not that of the gateway that took it
    site.restart("node%d" % old)
    wait_until("events to expire", lambda: all(site.queue(site.leader())[c]["expired_events"] for c in ("events", "data")), 180)
    site.wait_same_state()
    c = site.queue(site.leader())
    site.ok((c["events"]["expired_events"], c["data"]["expired_events"]) == (COUNT, COUNT), "what has lived for its time has left")
    site.ok(c["events"]["pending"] == COUNT and c["control"]["pending"] == COUNT and c["control"]["expired_events"] == 0, "other events have not, and no alarm, whatever its type")
    site.restart("broker")
    site.restart("core")
    site.try_link()
    site.wait_drained()
    told = lambda: request(site.core_port, "GET", "/v1/sites/%s/gaps?limit=1000" % SITE).json()["gaps"]
    wait_until("the core to hear of what left", lambda: {g["channel"] for g in told()} >= {"events", "data"})  # a queue is empty without that, too
    gaps = told()
    gone = {channel: sorted(n for g in gaps if g["channel"] == channel for n in range(g["from_seq"], g["to_seq"] + 1)) for channel in ("control", "events", "data")}
    site.ok(gone == {"control": [], "events": debug, "data": low} and all(g["reason"] == "expired" for g in gaps), "the core knows which, and why")
    there = sorted((e["channel"], e["seq"]) for e in site.core_events() if e["type"] in ("debug.trace", "reading"))
    site.ok(there == sorted([("events", n) for n in kept] + [("control", n) for n in alarms]), "the rest is there")


run_test(test, extra=OFFLINE)
