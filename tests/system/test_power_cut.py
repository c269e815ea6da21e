#!/usr/bin/env python3
"""The power fails at a site without a core: what may outlive the contact runs again soon, even where only one gateway of three comes back.  If
this failed, a plant would stand still after a power cut although its machines are there."""
from launchers import *

MIB = 1024 * 1024


def written(site):
    """All that is applied now is in the files of each gateway: its second transaction from now on has begun with it."""
    def flushes(n):
        text = request(site.http[n], "GET", "/metrics").body.decode()
        return sum(float(l.split()[1]) for l in text.splitlines() if l.startswith("grey_storage_flushes_total "))
    site.wait_same_state()
    for i in range(2):
        before = {n: flushes(n) for n in site.nodes}
        wait_until("a write", lambda: request(site.http[1], "PUT", "/v1/kv/written", str(i)).status in (200, 201))
        wait_until("it to be on all disks", lambda: all(flushes(n) > before[n] for n in site.nodes))


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=20)

    def ready(node):
        return lambda: [n["condition"] for n in call("GET", "/v1/quotas", node=node).json()["nodes"]] == ["ready"] * 3

    # The power fails for all three: nothing of them is left, and there is no core to ask.
    wait_until("all gateways to take tasks", ready(1), 60)
    names = ["power%d" % i for i in range(6)]
    for name in names:
        order = {"id": name, "command": sleeper("mark-" + name), "restart": "always", "max_retries": 0, "resources": {"cpu_millicores": 200, "memory_bytes": 32 * MIB}}
        wait_until("task %s to be taken" % name, lambda: call("POST", "/v1/tasks", order).status in (200, 201), 60)
    tokens = {n: wait_until("it to run", lambda: (lambda t: t["state"] == "running" and t)(call("GET", "/v1/tasks/" + n).json()), 30)["token"] for n in names}
    for n in site.nodes:
        site.kill("node%d" % n)
        site.kill("launch%d" % n)
    wait_until("nothing to run", lambda: not any(processes("mark-" + n) for n in names), 10)
    for n in site.nodes:
        start_launcher(site, n)
        site.start_node(n)
    began, first = time.monotonic(), None
    while time.monotonic() - began < 60:
        up = sum(len(processes("mark-" + n)) for n in names)
        first = time.monotonic() - began if up and first is None else first
        if up == len(names):
            break
        time.sleep(0.1)
    whole = time.monotonic() - began
    site.ok(first is not None and first < 10 and whole < 30, "after a power cut of all three the first runs after %.1f s, all after %.1f s" % (first or -1, whole))
    site.wait_whole()
    # "Running" stands in the log from before as well.
    wait_until("reports", lambda: all(t["state"] == "running" and t["token"] > tokens[n] for n in names for t in [call("GET", "/v1/tasks/" + n).json()]), 60)
    wait_until("all to run once", lambda: all(len(processes("mark-" + n)) == 1 for n in names), 60)
    site.ok(True, "once each, under new tokens")

    # It fails again, and only one gateway comes back: without a quorum nobody can decide anything, and its tasks run all the same.
    written(site)  # what is assigned now is on its disk
    mine = {n: call("GET", "/v1/tasks/" + n).json() for n in names}
    alone = int(mine[names[0]]["node"])
    here = [n for n in names if mine[n]["node"] == str(alone)]
    for n in site.nodes:
        site.kill("node%d" % n)
        site.kill("launch%d" % n)
    wait_until("nothing to run", lambda: not any(processes("mark-" + n) for n in names), 10)
    start_launcher(site, alone)
    site.start_node(alone)
    began = time.monotonic()
    wait_until("the tasks of that gateway", lambda: all(len(processes("mark-" + n)) == 1 for n in here), 60)
    site.ok(not any(processes("mark-" + n) for n in names if n not in here), "one gateway of three runs its %d tasks %.1f s after its start, and no others" % (len(here), time.monotonic() - began))
    for n in site.nodes:
        if n != alone:
            start_launcher(site, n)
            site.start_node(n)
    site.wait_whole()
    wait_until("all to run once", lambda: all(len(processes("mark-" + n)) == 1 and call("GET", "/v1/tasks/" + n).json()["state"] == "running" for n in names), 60)
    same = [n for n in here if call("GET", "/v1/tasks/" + n).json()["token"] == mine[n]["token"]]
    site.ok(True, "when the others are back, each runs once; %d of them went on" % len(same))
    for name in names:
        call("DELETE", "/v1/tasks/" + name)
    site.wait_same_state()
    site.ok(True, "all three hold the same state")


run_test(test, site_class=WithLaunchers, core=False)
