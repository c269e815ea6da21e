#!/usr/bin/env python3
"""Configs, policies and data come down from the core.  If this failed, a site would not get what it is to run by, would fetch a large table from the
beginning after each cut, or would stand without its config when the core is away."""
import hashlib
import random
from harness import *

random.seed(7)


class Slowed(Relay):
    """While `slow`, what comes down takes its time, so that it is seen on its way."""
    slow = False

    def passing(self, data, way):
        if self.slow and way == 1:
            time.sleep(len(data) / 200e3)


def at_node(site, n, path):
    return request(site.http[n], "GET", path)


def in_force(site, path, version, seconds=60):
    def everywhere():
        answers = [at_node(site, n, path) for n in site.nodes if site.alive("node%d" % n)]
        return all(a.status == 200 and a.headers.get("etag") == '"%d"' % version for a in answers) and answers
    return wait_until("%s version %d on all gateways" % (path, version), everywhere, seconds)


def put(site, path, body):
    a = request(site.core_port, "PUT", path, body, {"Content-Type": "text/plain"})
    assert a.status in (200, 201), (a.status, a.body)
    return a.json()


def taken_bytes(site):
    total = 0
    for n in site.nodes:
        if site.alive("node%d" % n):
            for line in request(site.http[n], "GET", "/metrics").body.decode().splitlines():
                if line.startswith("grey_federation_supply_bytes_total"):
                    total += int(float(line.split()[1]))
    return total


def test(site):
    site.ok(put(site, "/v1/configs/app", b"rate: 5\n")["version"] == 1, "the core takes a config")
    answers = in_force(site, "/v1/configs/app", 1)
    site.ok(all(a.body == b"rate: 5\n" and a.headers.get("content-type") == "text/plain" for a in answers), "all gateways have it as it was given")
    put(site, "/v1/configs/app", b"rate: 6\n")
    in_force(site, "/v1/configs/app", 2)
    with open(site.path("access"), "wb") as f:
        f.write(b"deny")
    set_, got = site.ctl("policy", "set", "access", site.path("access")), site.ctl("policy", "get", "access")
    site.ok(set_.returncode == 0 and got.stdout == "deny", "greyctl gives a policy and reads it back: %s%s" % (set_.stderr, got.stderr))
    in_force(site, "/v1/policies/access", 1)
    wait_until("the core to know", lambda: {(o["name"], o["version"]) for o in request(site.core_port, "GET", "/v1/sites/%s/objects" % SITE).json()} == {("app", 2), ("access", 1)})
    site.ok(True, "the core knows what the site has in force")

    # In stages: this site is the first, and says that it fails.
    def rollout():
        return request(site.core_port, "GET", "/v1/rollouts/app").json()

    def stages(none, canary):
        wanted = [{"label": "ring=none", "soak_seconds": none}, {"label": "ring=canary", "soak_seconds": canary}]
        a = request(site.core_port, "PUT", "/v1/rollouts/app", json.dumps({"stages": wanted}))
        assert a.status == 204, a.body
    a = request(site.core_port, "PUT", "/v1/sites/%s/labels" % SITE, json.dumps(["ring=canary"]))
    assert a.status == 204, a.body
    stages(15, 60)  # what is looked for within a stage is seen within it on a slow machine, too
    put(site, "/v1/configs/app", b"rate: 99\n")
    site.ok(rollout()["state"] == "running" and at_node(site, 1, "/v1/configs/app").body == b"rate: 6\n", "a version waits for the stage of its sites")
    in_force(site, "/v1/configs/app", 3)
    issue = int(at_node(site, 2, "/v1/configs/app").headers["x-grey-issue"])
    site.ok(rollout()["stage"] == 1, "and comes with it")
    assert request(site.http[2], "POST", "/v1/configs/app", json.dumps({"health": "failed", "issue": issue})).status == 204
    answers = in_force(site, "/v1/configs/app", 2)
    site.ok(all(a.body == b"rate: 6\n" for a in answers) and rollout()["state"] == "rolled-back", "a version that fails is taken back by itself")
    stages(3, 5)
    put(site, "/v1/configs/app", b"rate: 7\n")
    in_force(site, "/v1/configs/app", 4)
    wait_until("the rollout to be done", lambda: rollout()["state"] == "done", 30)
    site.ok(True, "one that does not goes to all")

    # A large one; meanwhile the link and the leader go away.
    table = bytearray(random.getrandbits(8) for _ in range(3 << 20))
    site.line.slow = True
    put(site, "/v1/data/map", bytes(table))

    def missing():
        coming = [o.get("coming") for o in at_node(site, 2, "/v1/data").json()]
        return coming[0]["missing"] if coming and coming[0] else None
    wait_until("a part of the table to be here", lambda: (missing() or 0) in range(1, 700), 60)
    site.kill("core")
    left = missing()
    leader = site.leader()
    if left is not None:
        site.kill("node%d" % leader)
        alive = [n for n in site.nodes if n != leader]
        site.leader(among=alive)
        wait_until("what had come at gateway %d" % alive[0], lambda: at_node(site, alive[0], "/v1/data").json()[0]["coming"]["missing"] <= left)
        site.ok(True, "what had come outlives the leader (%d of 768 chunks missing)" % left)
        site.ok(at_node(site, alive[0], "/v1/data/map").status == 404, "half a table is not in force")
    site.ok(at_node(site, 1 if leader != 1 else 2, "/v1/configs/app").body == b"rate: 7\n", "the config stays in force while the core is away")
    site.line.slow = False
    site.start_core()
    if left is not None:
        site.start_node(leader, bootstrap=False)
    answers = in_force(site, "/v1/data/map", 1, 120)
    site.ok(all(hashlib.sha256(a.body).digest() == hashlib.sha256(table).digest() for a in answers), "the table is whole on all gateways")

    # A change of it costs what differs.
    before = taken_bytes(site)
    table[1000000] ^= 1
    put(site, "/v1/data/map", bytes(table))
    answers = in_force(site, "/v1/data/map", 2)
    cost = taken_bytes(site) - before
    site.ok(all(a.body == bytes(table) for a in answers) and cost == 4096, "of a change of one byte in 3 MiB one chunk comes down (%d bytes)" % cost)

    for n in site.nodes:
        site.kill("node%d" % n)
    site.kill("core")
    for n in site.nodes:
        site.start_node(n, bootstrap=False)
    answers = in_force(site, "/v1/data/map", 2)
    site.ok(all(a.body == bytes(table) for a in answers) and at_node(site, 1, "/v1/configs/app").body == b"rate: 7\n", "after a power cut without a core everything is in force")


run_test(test, line=Slowed)
