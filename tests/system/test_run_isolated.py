#!/usr/bin/env python3
"""A gateway that is cut off, or whose agent hangs, stops what may not outlive the contact with the site before others begin it.  If this
failed, two gateways would drive the same machine at the same time."""
from launchers import *

MIB = 1024 * 1024


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=20)

    def ready(node):
        return lambda: [n["condition"] for n in call("GET", "/v1/quotas", node=node).json()["nodes"]] == ["ready"] * 3

    def lose(what, how, back):
        """Submits one task of each kind to a follower, loses it, and watches until the others have begun both."""
        wait_until("all gateways to take tasks", ready(site.leader()), 60)
        leader = site.leader()
        victim = next(n for n in site.nodes if n != leader)
        for kind in ("stop", "keep"):
            a = call("POST", "/v1/tasks", {"id": what + kind, "command": sleeper("mark-" + what + kind), "on_isolation": kind, "affinity": str(victim),
                                           "resources": {"cpu_millicores": 200, "memory_bytes": 32 * MIB}}, node=leader)
            assert a.status == 201, a.body
        state = lambda kind: call("GET", "/v1/tasks/" + what + kind, node=leader).json()
        for kind in ("stop", "keep"):
            wait_until("it to run", lambda: state(kind)["state"] == "running" and state(kind)["node"] == str(victim), 30)
        first = {kind: processes("mark-" + what + kind) for kind in ("stop", "keep")}
        how(victim)
        began, most, gap, stopped = time.monotonic(), 0, None, None
        while time.monotonic() - began < 60:
            now = processes("mark-" + what + "stop")
            most = max(most, len(now))
            stopped = time.monotonic() if not now and stopped is None else stopped
            if now and now != first["stop"]:
                gap = time.monotonic() - stopped if stopped else 0
                break
            time.sleep(0.02)
        site.ok(most == 1 and gap is not None, "%s: never two of a task that may not outlive the contact; %s s between the two" % (what, gap and round(gap, 1)))
        wait_until("the other one elsewhere", lambda: state("keep")["node"] != str(victim) and state("keep")["state"] == "running", 30)
        site.ok(len(processes("mark-" + what + "keep")) == 2, "%s: one that may goes on where it was as well" % what)
        back(victim)
        wait_until("one of each", lambda: [len(processes("mark-" + what + k)) for k in ("stop", "keep")] == [1, 1], 40)
        site.ok(processes("mark-" + what + "keep") != first["keep"], "%s: when it is back, the run whose token is not in force is stopped" % what)
        for kind in ("stop", "keep"):
            call("DELETE", "/v1/tasks/" + what + kind, node=leader)
        wait_until("none", lambda: not processes("mark-" + what + "stop") and not processes("mark-" + what + "keep"), 30)

    lose("cut", site.isolate, lambda n: site.heal())
    lose("hung", lambda n: site.processes["node%d" % n].send_signal(signal.SIGSTOP), lambda n: site.processes["node%d" % n].send_signal(signal.SIGCONT))

    site.ok(any("foreman suspect node=" in open(site.path("node%d.log" % n)).read() for n in site.nodes), "who falls silent is in quarantine before its tasks move")

    # Many at a time, and a gateway dies under them.
    many = ["many%d" % i for i in range(60)]
    before = time.monotonic()
    for name in many:
        assert call("POST", "/v1/tasks", {"id": name, "command": ["/bin/sh", "-c", "sleep 3; echo done"], "lane": "high",
                                          "resources": {"cpu_millicores": 100, "memory_bytes": 16 * MIB}}).status == 201
    leader = site.leader()
    victim = next(n for n in site.nodes if n != leader)
    site.kill("node%d" % victim)
    wait_until("all to end", lambda: sum(t["id"] in many and t["state"] == "completed" for t in call("GET", "/v1/tasks", node=leader).json()["tasks"]) == len(many), 180)
    done = [t for t in call("GET", "/v1/tasks", node=leader).json()["tasks"] if t["id"] in many]
    site.ok(len(done) == len(many), "%d tasks all ran although a gateway died under them, %.1f s" % (len(done), time.monotonic() - before))
    site.start_node(victim)
    site.wait_whole()
    site.wait_same_state()
    site.ok(True, "all three hold the same state")


# Others begin a task after twice the time after which it is stopped here; both are longer with this, so that a launcher that has to wait for the
# processor is still in time.
run_test(test, site_class=WithLaunchers, core=False, links=True, extra="consensus: {election_timeout_ms: 600}\n")
