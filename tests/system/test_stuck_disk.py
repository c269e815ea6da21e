#!/usr/bin/env python3
"""Disks whose every sync takes 2 s, 10 s, and a minute.  If this failed, a worn card would be taken for a dead gateway, or a leader that cannot
write would keep a site waiting; or something that was answered would be gone when the disk is well again.  It waits for minutes."""
from slow_disks import *


def put(site, n, key, timeout=120):
    try:
        return request(site.http[n], "PUT", "/v1/kv/" + key, key, timeout=timeout).status
    except OSError:
        return 0


def write(site, label, count, kept, among=None):
    """Writes to whoever leads, until each is answered."""
    for i in range(count):
        key = "%s-%d" % (label, i)
        wait_until("an answer to " + key, lambda: put(site, site.leader(among=among), key) in (200, 201), 300)
        kept.append(key)


def everywhere(site, kept, what):
    site.well()
    site.wait_whole(180)
    site.wait_same_state(120)
    alive = [n for n in site.nodes if site.alive("node%d" % n)]
    lost = [(n, k) for n in site.nodes for k in kept if request(site.http[n], "GET", "/v1/kv/" + k).body != k.encode()]
    site.ok(alive == site.nodes and not lost, "%s: every process lived on, and all %d writes are on all disks: %s" % (what, len(kept), lost[:3]))


def test(site):
    kept, own = [], {n: site.processes["node%d" % n].pid for n in site.nodes}
    for n in site.nodes:
        site.slow(n, 2000)
    write(site, "all-slow", 4, kept)
    everywhere(site, kept, "2 s at all three")

    leader = site.leader()
    follower = next(n for n in site.nodes if n != leader)
    site.slow(follower, 10000)
    term = site.status(leader)["term"]
    begin = time.monotonic()
    while time.monotonic() - begin < 25:
        write(site, "follower-%d" % len(kept), 5, kept)
        time.sleep(0.5)
    site.ok(site.status(leader)["term"] == term, "a follower whose syncs take 10 s is carried along: %d writes, no election" % len(kept))
    everywhere(site, kept, "10 s at a follower")

    leader = site.leader()
    rest = [n for n in site.nodes if n != leader]
    site.slow(leader, 60000)
    threading.Thread(target=put, args=(site, leader, "hang", 200), daemon=True).start()
    begin = time.monotonic()
    wait_until("another leader", lambda: any(site.status(n)["role"] == "leader" for n in rest), 60)
    site.ok(True, "a leader whose disk is stuck gives leadership away after %.1f s" % (time.monotonic() - begin))
    while time.monotonic() - begin < 70:  # the whole of it
        write(site, "stuck-%d" % len(kept), 5, kept, among=rest)
        time.sleep(0.5)
    wait_until("a sync of it to end", lambda: request(site.http[leader], "GET", "/health/live").status == 200, 120)  # one of more than a minute is told there
    site.ok(site.alive("node%d" % leader), "the one with the stuck disk lives and answers after a minute")
    everywhere(site, kept, "60 s at the leader")
    site.ok(own == {n: site.processes["node%d" % n].pid for n in site.nodes}, "nobody had to be started again")


# A sync of a follower takes longer than that; a machine that stands still for a moment makes no election.
run_test(test, site_class=SlowSite, core=False, extra="consensus: {election_timeout_ms: 3000}\n")
