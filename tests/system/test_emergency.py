#!/usr/bin/env python3
"""A gateway that is above what tasks may use stops the least important, and the core is told of each.  If this failed, an engineer would find
tasks stopped at night and nothing at the core that says why, or be told of the same stop by each leader anew."""
from launchers import *

SPIN = ["/bin/sh", "-c", "while :; do :; done"]  # a program that takes a whole processor, whatever it asked for


class Unbounded(WithLaunchers):
    """A launcher that may write no control groups: so tasks can take more than they asked for."""

    def start_node(self, n, **more):
        folder = self.path("launch%d" % n)
        if "launch%d" % n not in self.processes:
            os.makedirs(folder, exist_ok=True)
            os.chmod(self.dir, 0o755)
            command = [os.path.join(BUILD, "grey-launch"), "--dir", folder]
            if os.geteuid() == 0:
                own = self.path("grey-launch%d" % n)  # where that user may run it
                shutil.copy(command[0], own)
                os.chmod(own, 0o755)
                os.chown(folder, 65534, 65534)
                command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", own] + command[1:]
            self.spawn("launch%d" % n, command)
        super().start_node(n, **more)

    def write_config(self, n):
        super().write_config(n)
        path = self.path("node%d" % n, "greyd.yaml")
        with open(path) as f:
            text = f.read()
        with open(path, "w") as f:  # a twentieth of a processor: one that spins is far above, on the slowest machine too
            f.write(text.replace("cpu_limit_millicores: 4000", "cpu_limit_millicores: 50"))


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=20)

    def task(name, node=1):
        return call("GET", "/v1/tasks/" + name, node=node).json()

    def submit(name, command, priority):
        a = call("POST", "/v1/tasks", {"id": name, "command": command, "priority": priority, "resources": {"cpu_millicores": 10, "memory_bytes": 32 * 2**20}})
        assert a.status == 201, a.body

    def told():
        return [e for e in site.core_events() if e["type"] == "grey.task.emergency"]

    wait_until("all gateways to take tasks", lambda: [n["condition"] for n in call("GET", "/v1/quotas").json()["nodes"]] == ["ready"] * len(site.nodes), 60)
    with open(site.path("launch1.log")) as f:
        said = f.read()
    if "limits=rlimits" not in said:
        site.ok(True, "emergencies # SKIP this user may write control groups, so nothing takes more than it asked for")
        return
    submit("vital", SPIN, 95)
    submit("spare", SPIN, 5)
    first = wait_until("the core to hear of a stop", lambda: [e for e in told() if e["data"]["task"] == "spare"], 120)[0]
    data = first["data"]
    site.ok(first["subject"] == "spare/%d" % data["token"] and data["lane"] == "preempt" and data["cpu_permille"] > 1000,
            "each task that an emergency stops is an event at the core, with what its gateway measured: %s" % data)
    wait_until("the site's own record of it", lambda: "grey.task.emergency" in json.dumps(call("GET", "/v1/audit?from=1&limit=1000").json()))
    site.ok(True, "and the site's own record shows it")
    wait_until("the critical task to run", lambda: task("vital")["state"] == "running")  # another gateway may have begun it later
    site.ok(not [e for e in told() if e["data"]["task"] == "vital"], "a critical task goes on")
    refused = call("POST", "/v1/events", {"type": "grey.task.emergency", "data": {}})
    site.ok(refused.status == 400, "nobody but the site can say so: %d" % refused.status)
    call("DELETE", "/v1/tasks/vital")
    call("DELETE", "/v1/tasks/spare")
    # Whoever leads then tells what it knows of again; the site remembers what was told.
    before = site.leader()
    site.kill("node%d" % before)
    others = [n for n in site.nodes if n != before]
    site.leader(among=others)

    def said_by(n):
        with open(site.path("node%d.log" % n)) as f:
            return "emergency stop task=spare" in f.read()
    wait_until("another leader to tell of it", lambda: any(said_by(n) for n in others), 60)
    a = call("POST", "/v1/events", {"type": "test.marker", "data": 1, "priority": "high"}, node=others[0])
    assert a.status in (200, 201, 202), a.body
    wait_until("what was said behind it", lambda: [e for e in site.core_events() if e["type"] == "test.marker"], 60)
    subjects = [e["subject"] for e in told()]
    site.ok(len(subjects) == len(set(subjects)), "each stop is told once, whoever leads: %s" % subjects)


run_test(test, site_class=Unbounded)
