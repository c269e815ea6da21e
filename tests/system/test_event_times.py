#!/usr/bin/env python3
"""Devices with wrong clocks send events of next year, of 1969, out of order and without sense (FAULTS C6).  If this failed, one bad clock
would reorder, drop or rewrite what others rely on: the order is that of the log, and a time is passed on as it was given."""
from harness import *

TIMES = ["2026-07-30T10:00:02Z", "2026-07-30T10:00:01Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59.5Z", "-1", "0000-00-00T00:00:00Z",
         "2026-07-30T10:00:00+14:00", "yesterday", "", "2026-07-30T10:00:03Z"]


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
    a = request(site.http[1], "POST", "/v1/events", json.dumps({"id": "n", "source": "plc-7", "type": "time", "time": -1, "data": 1}), {"Content-Type": "application/json"})
    site.ok(a.status == 400 and "time" in a.body.decode(), "a time that is no text is refused by name: %d %s" % (a.status, a.body[:120]))


run_test(test, nodes=1)
