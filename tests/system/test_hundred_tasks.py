#!/usr/bin/env python3
"""A hundred tasks run at a site that has not seen its core for a week.  If this failed, all that a plant does would begin anew on the day that its
link, its clocks or its agents come back, or would not come back with the gateways that are left; what tasks are given would come over a thin
link for each gateway anew."""
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

    def submit(name, **order):
        wait_until("task %s to be taken" % name, lambda: call("POST", "/v1/tasks", dict(order, id=name)).status in (200, 201), 60)

    def tasks(node=1):
        found, cursor = {}, ""
        while True:
            page = call("GET", "/v1/tasks?limit=100" + ("&after=" + cursor if cursor else ""), node=node).json()
            found.update({t["id"]: t for t in page["tasks"]})
            cursor = page.get("next", "")
            if not page["tasks"] or not cursor:
                return found

    def all_run(node=1):
        now = {n: t for n, t in tasks(node).items() if n.startswith("t")}
        return len(now) == COUNT and all(t["state"] == "running" for t in now.values()) and now

    def ready(node=1):
        return lambda: [n["condition"] for n in call("GET", "/v1/quotas", node=node).json()["nodes"]] == ["ready"] * 3

    wait_until("all gateways to take tasks", ready(), 60)

    # What the core gives comes over the link once for the site; each gateway has it from the site's log.
    model = os.urandom(300000)
    a = request(site.core_port, "PUT", "/v1/data/model", model, {"Content-Type": "application/octet-stream"})
    assert a.status in (200, 201), (a.status, a.body)
    wait_until("the data to be here", lambda: all(call("GET", "/v1/data/model", node=n).status == 200 for n in site.nodes), 90)
    wait_until("all gateways to take tasks", ready(), 60)  # who did not run for 2 s is suspect for a while
    for n in site.nodes:
        submit("given%d" % n, command=["/usr/bin/sha256sum", "model"], affinity=str(n), resources={"cpu_millicores": 25, "memory_bytes": 16 * 2**20},
               artifacts=[{"object": "model", "sha256": hashlib.sha256(model).hexdigest()}])
    given = ["given%d" % n for n in site.nodes]
    done = wait_until("all three to have it", lambda: (lambda t: all(t[g]["state"] == "completed" for g in given) and t)(tasks()), 60)

    def came(port, name):
        lines = request(port, "GET", "/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))
    over_link = sum(came(site.http[n], "grey_federation_supply_bytes_total") for n in site.nodes)
    chunks = came(site.core_port, 'grey_core_given_total{kind="chunk"}')
    site.ok({done[g]["node"] for g in given} == {"1", "2", "3"} and len(model) <= over_link < 1.5 * len(model), "three gateways ran what needs it, and it came to the site once: %d of %d bytes, %d chunks" % (over_link, len(model), chunks))
    for i in range(COUNT):
        submit("t%d" % i, command=["/bin/sh", "-c", "mkfifo p; read x <p", "mark-hundred", "t%d" % i], resources={"cpu_millicores": 25, "memory_bytes": 8 * 2**20},
               restart="always", max_retries=0, on_isolation="keep")
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
    wait_until("the event to be taken", lambda: call("POST", "/v1/events", {"type": "test.back", "data": 1, "priority": "high"}).status in (200, 201, 202), 60)
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


run_test(test, site_class=WithLaunchers, extra="consensus: {election_timeout_ms: 1500}\n")  # ten of the longest and a gateway is lost: not one that starts slowly
