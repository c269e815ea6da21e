#!/usr/bin/env python3
"""A gateway's disk is lost: started again with an empty one it comes back by itself as a new member, from a snapshot, and takes its
former self's place; a snapshot file makes a new site."""
from harness import *


def test(site):
    ledger = Ledger(site, 2000, batch=1).start()
    ledger.join()
    for i in range(50):
        wait_until("key %d" % i, lambda: request(site.http[1], "PUT", "/v1/kv/key%d" % i, "value %d" % i).status in (200, 201), 60)
    wait_until("compaction", lambda: all(request(site.http[n], "GET", "/v1/raft/status").json()["log"]["first_index"] > 500 for n in site.nodes), 60)
    wiped = next(n for n in site.nodes if n != site.leader())
    before = {m["id"]: m["raft_id"] for m in site.status(site.leader())["members"]}
    site.kill("node%d" % wiped)
    shutil.rmtree(site.path("node%d" % wiped, "data"))
    site.start_node(wiped, bootstrap=True)  # as a compose file would: --bootstrap stays set for ever
    wait_until("its former self to be replaced", lambda: before[str(wiped)] not in [m["raft_id"] for m in site.status(site.leader())["members"]], 60)
    site.wait_whole()
    after = {m["id"]: m["raft_id"] for m in site.status(site.leader())["members"]}
    site.ok(set(before) == set(after) and before[str(wiped)] != after[str(wiped)], "it is a voter again, under a new raft id")
    site.wait_same_state()
    site.ok(True, "and holds the same state as the others")
    installed = request(site.http[wiped], "GET", "/metrics").body.decode()
    site.ok("\ngrey_consensus_snapshots_installed_total 1" in installed, "it was caught up by a snapshot")
    wait_until("a write by it", lambda: request(site.http[wiped], "PUT", "/v1/kv/last", "x").status in (200, 201), 60)
    values = [request(site.http[wiped], "GET", "/v1/kv/key%d?consistency=stale" % i).body for i in range(50)]
    site.ok(values == [b"value %d" % i for i in range(50)], "values written before the snapshot are read from its own disk")
    others = [n for n in site.nodes if n != wiped]
    site.kill("node%d" % others[0])
    site.leader(among=[wiped, others[1]])
    wait_until("a write without another", lambda: request(site.http[wiped], "PUT", "/v1/kv/last", "y", timeout=30).status == 200, 60)
    site.ok(True, "with it, the site can lose another")
    site.restart("node%d" % others[0])
    site.wait_whole()
    ledger.judge()

    # Once more, and the others stand still for longer than it takes to begin a site where nobody has one.
    before = {m["id"]: m["raft_id"] for m in site.status(site.leader())["members"]}
    begun = lambda: open(site.path("node%d.log" % wiped)).read().count("node bootstrap ")
    sites = begun()
    site.kill("node%d" % wiped)
    shutil.rmtree(site.path("node%d" % wiped, "data"))
    for n in others:
        site.kill("node%d" % n, signal.SIGSTOP)
    site.start_node(wiped, bootstrap=True)
    time.sleep(7)
    for n in others:
        site.kill("node%d" % n, signal.SIGCONT)
    wait_until("its former self to be replaced once more", lambda: before[str(wiped)] not in [m["raft_id"] for m in site.status(site.leader(among=others))["members"]], 60)
    site.wait_whole()
    site.ok(begun() == sites, "one with an empty disk whose neighbours say nothing for a while waits for their word, and begins no site of its own")

    site.wait_same_state()  # the snapshot is of what this gateway has applied
    made = wait_until("no other snapshot to be written", lambda: (lambda r: "a snapshot is being written" not in r.stderr and r)(site.ctl("-o", "json", "snapshot", "create", node=wiped)), 60)
    site.ok(made.returncode == 0, "greyctl snapshot create %s" % made.stderr)
    name = json.loads(made.stdout)["name"]
    new = site.path("restored")
    r = subprocess.run([os.path.join(BUILD, "greyd"), "restore", "--snapshot", site.path("node%d" % wiped, "data", "snapshots", name), "--data-dir", new],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    site.ok(r.returncode == 0, "greyd restore: %s" % r.stdout.strip())
    port = free_ports(1)[0]
    site.spawn("restored", [os.path.join(BUILD, "greyd"), "--mode", "single", "--site-id", SITE, "--node-id", "r", "--data-dir", new, "--http-addr", "127.0.0.1:%d" % port])
    wait_until("the restored node", lambda: request(port, "GET", "/health/ready").status == 200, 30)
    values = [request(port, "GET", "/v1/kv/key%d" % i).body for i in range(50)]
    site.ok(values == [b"value %d" % i for i in range(50)] and request(port, "GET", "/v1/kv/last").body == b"y", "the new node has every key")
    again = subprocess.run([os.path.join(BUILD, "greyd"), "restore", "--snapshot", site.path("node%d" % wiped, "data", "snapshots", name), "--data-dir", new],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    site.ok(again.returncode != 0, "restoring over data is refused: %s" % again.stdout.splitlines()[0][:120])


run_test(test, extra="consensus: {snapshot_threshold: 200}\n")
