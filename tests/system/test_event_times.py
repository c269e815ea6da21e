#!/usr/bin/env python3
"""Devices with wrong clocks send events of next year, of 1969 and out of order (FAULTS C6), and some send what is no time.  If this failed,
one bad clock would reorder, drop or rewrite what others rely on: the order is that of the log, a time is passed on as it was given, and
what is none (RFC 3339, as CloudEvents has it) is refused by name instead of reaching programs that cannot read it."""
from harness import *

TIMES = ["2026-07-30T10:00:02Z", "2026-07-30T10:00:01Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59.5Z", "2026-07-30T10:00:00+14:00",
         "0000-01-01T00:00:00z", "", "2026-07-30T10:00:03Z"]
NONE = ["-1", "yesterday", "0000-00-00T00:00:00Z", "2026-07-30 10:00:02Z", "2026-02-29T10:00:02Z", "1785405602", -1]


def test(site):
    now = request(site.http[1], "GET", "/v1/cluster/status").json()["site_time"]
    numbers = []
    for i, text in enumerate(TIMES):
        event = {"id": "t%d" % i, "source": "plc-7", "type": "time", "priority": "high", "data": i}
        a = request(site.http[1], "POST", "/v1/events", json.dumps(dict(event, time=text) if text else event), {"Content-Type": "application/json"})
        numbers.append(a.json()["accepted"][0]["seq"] if a.status in (200, 201) else a.status)
    site.ok(numbers == list(range(numbers[0], numbers[0] + len(TIMES))), "all are taken, in the order of the log: %s" % numbers)
    site.wait_drained()
    events = [e for e in site.core_events() if e["source"] == "plc-7"]
    site.ok([e["id"] for e in events] == ["t%d" % i for i in range(len(TIMES))], "the core has them in that order")
    site.ok([e["time"] or "" for e in events] == TIMES, "with the times as they were given: %s" % [e["time"] for e in events])
    later = request(site.http[1], "GET", "/v1/cluster/status").json()["site_time"]
    site.ok(now[:4] == later[:4] and now <= later, "the site's time is not moved by them: %s, %s" % (now, later))
    for i, text in enumerate(NONE):
        event = {"id": "n%d" % i, "source": "plc-7", "type": "time", "time": text, "data": 1}
        a = request(site.http[1], "POST", "/v1/events", json.dumps([dict(event, id="before%d" % i, time=TIMES[0]), event]), {"Content-Type": "application/json"})
        site.ok(a.status == 400 and "event 1: \"time\" " in a.json()["detail"] and "GREY-" in a.json()["type"], "%r is refused by name: %s" % (text, a.json()["detail"]))
    said = site.ctl("event", "send", "-", stdin=json.dumps(event))
    site.ok(said.returncode == 3 and "\"time\"" in said.stderr, "by greyctl too: %s" % said.stderr.strip()[:120])
    found = request(site.http[1], "GET", "/v1/events/before0?source=plc-7")
    site.ok(found.status == 404, "and nothing of its batch is taken")


run_test(test, nodes=1)
