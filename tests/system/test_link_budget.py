#!/usr/bin/env python3
"""A metered link and a leader that dies.  If this fails, each change of leadership spends the day's budget a second time, and the bill
arrives at the end of the month."""
import hashlib
from harness import *


def noise(number, size):  # what does not compress
    return "".join(hashlib.sha256(b"%d %d" % (number, i)).hexdigest() for i in range(size // 64))


def used(site, n):
    return request(site.http[n], "GET", "/v1/federation/status").json()["budget"]["day"]["used_bytes"]


def bulk(site, n, first, count):
    body = json.dumps([{"id": "bulk%d" % (first + i), "type": "bulk", "priority": "normal", "data": noise(first + i, 20000)} for i in range(count)])
    return wait_until("bulk to be taken", lambda: request(site.http[n], "POST", "/v1/events", body, {"Content-Type": "application/json"}).status in (200, 201))


def test(site):
    old = site.leader()
    for n in [n for n in site.nodes if n != old][0], old:
        wait_until("the link", lambda: site.link(site.leader())["up"])
        wait_until("leadership to go to %d" % n, lambda: site.leader() == n or site.ctl("cluster", "transfer", str(n), node=site.leader()).returncode == 0 and site.leader() == n)
    wait_until("its link", lambda: site.link(old)["up"])
    site.ok(used(site, old) < 100000, "who lays down his link and takes it up again has spent what both carried: %d bytes" % used(site, old))
    site.ok(bulk(site, old, 0, 20), "some bulk is sent")
    site.wait_drained(60)
    wait_until("the cost to be in the log", lambda: all(used(site, n) > 200000 for n in [old]), 30)
    spent = used(site, old)
    site.ok(200000 < spent < 700000, "which cost %d bytes of 1,000,000" % spent)
    site.kill("node%d" % old)
    new = site.leader(among=[n for n in site.nodes if n != old])
    wait_until("the link of the new leader", lambda: request(site.http[new], "GET", "/v1/federation/status").json()["link"]["up"], 60)
    inherited = used(site, new)
    site.ok(inherited > spent - 60000, "the next leader goes on counting: %d bytes" % inherited)
    for i in range(4):
        bulk(site, new, 100 + 20 * i, 20)
    wait_until("the budget to be spent", lambda: request(site.http[new], "GET", "/v1/federation/status").json()["bandwidth"]["held"] == ["events", "data"], 60)
    alarm = json.dumps({"id": "alarm", "type": "alarm", "priority": "critical", "data": 1})
    a = wait_until("the alarm to be taken", lambda: request(site.http[new], "POST", "/v1/events", alarm).json()["accepted"])
    wait_until("the alarm", lambda: site.queue(new)["control"]["acked_seq"] >= a[0]["seq"], 30)
    site.ok(site.queue(new)["data"]["pending"] > 0, "when it is spent bulk waits, and an alarm still reaches the core")
    total = used(site, new)
    site.ok(900000 <= total < 1000000, "and the day stays within its budget: %d bytes" % total)
    table = site.ctl("link", "budget", node=new).stdout
    site.ok("SPENT" in table, "greyctl link budget says so")


if __name__ == "__main__":
    s = Site(extra="  bandwidth: {budget: {day_mb: 1}, limit_mbps: 2}\n")
    try:
        s.start()
        test(s)
    except Exception as e:
        s.ok(False, "%s: %s" % (type(e).__name__, e))
    s.finish()
