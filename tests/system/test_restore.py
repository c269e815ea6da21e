#!/usr/bin/env python3
"""All three disks are lost and the site is rebuilt from a backup.  What the core had from the time after the backup stays there, what
the backup still held is not delivered twice, and what the site gives anew under numbers that were used before is not taken for repeats."""
from harness import *


def post(site, n, ids):
    a = request(site.http[n], "POST", "/v1/events", json.dumps([{"id": i, "source": "machine", "type": "t", "data": {"id": i}} for i in ids]))
    assert a.status == 201, (a.status, a.body)


def ids_at_core(site):
    return [e["id"] for e in site.core_events() if e["source"] == "machine"]


def test(site):
    post(site, 1, ["before-%d" % i for i in range(40)])
    wait_until("40 events at the core", lambda: len(ids_at_core(site)) == 40)
    site.kill("core")
    post(site, 2, ["waiting-%d" % i for i in range(20)])
    request(site.http[1], "PUT", "/v1/kv/recipe", "seven")
    wait_until("gateway 1 to have applied all of it", lambda: request(site.http[1], "GET", "/v1/kv/recipe").body == b"seven")
    made = site.ctl("-o", "json", "snapshot", "create", node=1)
    site.ok(made.returncode == 0, "a backup is made while 20 events wait for the core %s" % made.stderr)
    backup = site.path("backup")
    shutil.copy(site.path("node1", "data", "snapshots", json.loads(made.stdout)["name"]), backup)
    site.start_core()
    post(site, 3, ["after-%d" % i for i in range(30)])
    wait_until("90 events at the core", lambda: len(ids_at_core(site)) == 90)
    old = request(site.http[1], "GET", "/v1/federation/status").json()["incarnation"]

    for n in site.nodes:
        site.kill("node%d" % n)
        shutil.rmtree(site.path("node%d" % n, "data"))
    r = subprocess.run([os.path.join(BUILD, "greyd"), "restore", "--snapshot", backup, "--data-dir", site.path("node1", "data")],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    site.ok(r.returncode == 0, "greyd restore: %s" % r.stdout.strip())
    for n in site.nodes:
        site.start_node(n)
    site.wait_whole()
    site.ok(request(site.http[3], "GET", "/v1/kv/recipe").body == b"seven", "all three gateways hold the state of the backup")
    post(site, 2, ["anew-%d" % i for i in range(50)])
    site.wait_drained()
    new = request(site.http[1], "GET", "/v1/federation/status").json()["incarnation"]
    site.ok(new != old, "the site has begun a new incarnation")
    want = sorted(["before-%d" % i for i in range(40)] + ["waiting-%d" % i for i in range(20)] + ["after-%d" % i for i in range(30)] + ["anew-%d" % i for i in range(50)])
    wait_until("140 events at the core", lambda: len(ids_at_core(site)) >= 140)
    got = sorted(ids_at_core(site))
    site.ok(got == want, "every event ever kept is at the core, each once (%d)" % len(got))
    site.wait_same_state()
    leader = site.leader()
    site.kill("node%d" % leader)
    site.restart("node%d" % leader)
    site.wait_whole()
    told = wait_until("gateway 2 to tell", lambda: request(site.http[2], "GET", "/v1/federation/status").json()["incarnation"])
    site.ok(told == new, "restarts do not change it")


run_test(test)
