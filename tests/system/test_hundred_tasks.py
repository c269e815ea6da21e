#!/usr/bin/env python3
"""A hundred tasks run at a site that has not seen its core for a week.  If this failed, all that a plant does would begin anew on the day that its
link, its clocks or its agents come back, or would not come back with the gateways that are left."""
import glob
from launchers import *

COUNT = 102
PRELOAD = (glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + ["libfaketimeMT.so.1 (package faketime)"])[0]
A_WEEK_LATER = ["env", "LD_PRELOAD=" + PRELOAD, "FAKETIME=+7d", "FAKETIME_DONT_FAKE_MONOTONIC=1"]


def alive():
    """Of each task the processes that it is: by the last word of its command."""
    found = {}
    for pid in processes("mark-hundred"):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                found.setdefault(f.read().split(b"\0")[-2].decode(), []).append(pid)
        except OSError:
            pass
    return found


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=30)

    def tasks(node=1):
        found, cursor = {}, ""
        while True:
            page = call("GET", "/v1/tasks?limit=100" + ("&after=" + cursor if cursor else ""), node=node).json()
            found.update({t["id"]: t for t in page["tasks"]})
            cursor = page.get("next", "")
            if not page["tasks"] or not cursor:
                return found

    def all_run(node=1):
        now = tasks(node)
        return len(now) == COUNT and all(t["state"] == "running" for t in now.values()) and now

    def ready(node=1):
        return lambda: [n["condition"] for n in call("GET", "/v1/quotas", node=node).json()["nodes"]] == ["ready"] * 3

    wait_until("all gateways to take tasks", ready(), 60)
    for i in range(COUNT):
        a = call("POST", "/v1/tasks", {"id": "t%d" % i, "command": ["/bin/sh", "-c", "mkfifo p; read x <p", "mark-hundred", "t%d" % i], "resources": {"cpu_millicores": 25, "memory_bytes": 8 * 2**20},
                                       "restart": "always", "max_retries": 0, "on_isolation": "keep"})
        assert a.status == 201, a.body
    before = wait_until("all to run", all_run, 120)
    pids = alive()
    spread = [sum(t["node"] == str(n) for t in before.values()) for n in site.nodes]
    site.ok(len(pids) == COUNT and all(len(p) == 1 for p in pids.values()) and min(spread) > 0, "%d tasks run on three gateways: %s" % (COUNT, spread))

    # The link goes; a week later (by all clocks of the site) every agent has been started anew, and the link is back.
    site.kill("broker")
    site.kill("core")
    for n in site.nodes:
        site.kill("node%d" % n)
        site.start_node(n, under=A_WEEK_LATER)
        site.wait_voters()
    site.start_broker()
    site.start_core()
    a = call("POST", "/v1/events", {"type": "test.back", "data": 1, "priority": "high"})
    assert a.status in (200, 201, 202), a.body
    wait_until("the core to hear of the site", lambda: [e for e in site.core_events() if e["type"] == "test.back"], 120)
    wait_until("all gateways to take tasks", ready(), 120)
    after = wait_until("all to run", all_run, 120)
    moved = [n for n in before if after[n]["token"] != before[n]["token"]]
    site.ok(not moved, "after a week without the core, and every agent anew, none has another token: %s" % moved)
    site.ok(alive() == pids, "and each is the process that it was")

    # A gateway dies under them, with all that ran there.
    victim = 2
    lost = {n for n in after if after[n]["node"] == str(victim)}
    site.kill("node%d" % victim)
    site.kill("launch%d" % victim)
    now = wait_until("all to run elsewhere", lambda: (lambda t: t and all(x["node"] != str(victim) for x in t.values()) and t)(all_run()), 180)
    site.ok(all(now[n]["token"] > after[n]["token"] for n in lost), "a gateway died under %d of them: all run elsewhere, under new tokens" % len(lost))
    site.ok(all(now[n]["token"] == after[n]["token"] for n in now if n not in lost), "the others were left alone")
    last = wait_until("one process of each", lambda: (lambda a: len(a) == COUNT and all(len(p) == 1 for p in a.values()) and a)(alive()), 60)
    site.ok(all(last[n] == pids[n] for n in last if n not in lost), "each of the %d runs once" % COUNT)


run_test(test, site_class=WithLaunchers)
