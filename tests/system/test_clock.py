#!/usr/bin/env python3
"""The gateways booted 40 days in the past (that is today: no clock is believed that is behind the build; what is right is in 40 days).  When their clocks are right again, the site's time follows: by a majority of the gateways
where no core is, and not while only one of them says so."""
import glob
from datetime import datetime, timezone
from harness import *


# A core that is never there: what the site takes waits for it.
NOBODY = "federation: {enabled: true, offline: {time_to_live: [{type: \"debug.*\", hours: 1}]}, upstream: {endpoints: [\"127.0.0.1:1\"], tls: {enabled: false}}}\n"


def off(site):
    """Seconds by which the site's time is behind this machine's."""
    text = request(site.http[site.leader()], "GET", "/v1/cluster/status").json()["site_time"]
    return time.time() + 40 * 86400 - datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()


PRELOAD = (glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + ["libfaketimeMT.so.1 (package faketime)"])[0]
RIGHT = ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME=+40d", "LD_PRELOAD=" + PRELOAD]


def start(site, wrong):
    for n in site.nodes:
        site.start_node(n, under=[] if n in wrong else RIGHT)
    site.wait_whole()


def stop(site):
    for n in site.nodes:
        site.kill("node%d" % n)


def test(site):
    stop(site)
    for n in site.nodes:
        shutil.rmtree(site.path("node%d" % n, "data"), ignore_errors=True)
    # Their certificates may have expired in 40 days, so the links of this test are plain.
    start(site, wrong=[1, 2, 3])
    site.ok(off(site) > 39 * 86400, "a site that boots in the past has its time there")
    request(site.http[1], "PUT", "/v1/kv/a", "b")
    for kind, priority in (("reading", "low"), ("debug.trace", "high"), ("debug.trace", "critical")):
        request(site.http[1], "POST", "/v1/events", json.dumps({"type": kind, "priority": priority, "data": 1}), {"Content-Type": "application/json"})
    site.ok(not request(site.http[1], "GET", "/v1/queue").json()["overdue"], "an event waits for a core, not for long yet")
    stop(site)
    start(site, wrong=[1, 2])
    time.sleep(15)
    site.ok(off(site) > 39 * 86400, "one right clock of three does not move it")
    stop(site)
    start(site, wrong=[1])
    wait_until("the site's time to be right", lambda: abs(off(site)) < 15, 60)
    site.ok(True, "two of three do")
    wait_until("what was written before", lambda: request(site.http[2], "GET", "/v1/kv/a").body == b"b")
    site.ok(True, "and nothing else is changed")
    site.wait_same_state()
    # The event waits for 40 days now, more than max_offline_duration_hours: an alarm, and nothing leaves for that.
    wait_until("the alarm of hour 169", lambda: all(request(site.http[n], "GET", "/v1/queue").json()["overdue"] for n in site.nodes), 30)
    q = request(site.http[1], "GET", "/v1/queue").json()["channels"]["data"]
    # What had an hour to live has left, unless it is critical.
    wait_until("one to expire", lambda: all(site.queue(n)["events"]["expired_events"] == 1 for n in site.nodes), 30)
    site.ok(site.queue(1)["events"]["pending"] == 0 and site.queue(1)["control"]["pending"] == 1, "what has lived for its time has left on every gateway, an alarm of that type has not")
    metrics = request(site.http[2], "GET", "/metrics").body.decode()
    site.ok(q["pending"] == 1 and q["gap_events"] == 0 and "grey_federation_offline_alarm 1" in metrics,
            "what waits longer than the site may be offline is an alarm on every gateway, and stays")
    stop(site)


if "sanitize" in BUILD or "address" in BUILD:
    print("1..0 # skipped: the sanitizer's runtime must be loaded first, so no library can stand before it")
else:
    run_test(test, tls=False, core=False, extra=NOBODY)
