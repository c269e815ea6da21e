#!/usr/bin/env python3
"""The power fails at a site without a core: what may outlive the contact runs again soon, even where only one gateway of three comes back.  If
this failed, a plant would stand still after a power cut although its machines are there."""
from launchers import *

MIB = 1024 * 1024


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=20)

    def ready(node):
        return lambda: [n["condition"] for n in call("GET", "/v1/quotas", node=node).json()["nodes"]] == ["ready"] * 3

    # The power fails for all three: nothing of them is left, and there is no core to ask.
    wait_until("all gateways to take tasks", ready(1), 60)
    names = ["power%d" % i for i in range(6)]
    for name in names:
        assert call("POST", "/v1/tasks", {"id": name, "command": sleeper("mark-" + name), "restart": "always", "max_retries": 0,
                                          "resources": {"cpu_millicores": 200, "memory_bytes": 32 * MIB}}).status == 201
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
    wait_until("reports", lambda: all(call("GET", "/v1/tasks/" + n).json()["state"] == "running" for n in names), 30)
    site.ok(all(call("GET", "/v1/tasks/" + n).json()["token"] > tokens[n] and len(processes("mark-" + n)) == 1 for n in names), "once each, under new tokens")

    # It fails again, and only one gateway comes back: without a quorum nobody can decide anything, and its tasks run all the same.
    time.sleep(6)  # what is assigned now is on its disk
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
