#!/usr/bin/env python3
"""Disks that lie: bits that flip in the log and in the state, a log that lost its end.  The gateway finds it,
sets its data aside, and is whole again from the others, without a hand; nothing that was answered is lost."""
from harness import *


def whole_again(site, n, old_id, what):
    def ids():
        return [m["raft_id"] for m in site.status(site.leader())["members"]]
    wait_until("its former self to be replaced", lambda: len(ids()) == 3 and old_id not in ids(), 60)
    site.wait_whole(60)
    aside = [d for d in os.listdir(site.path("node%d" % n, "data")) if d.startswith("damaged-")]
    site.wait_same_state()
    site.ok(aside, "%s: set aside, and whole again as a new member" % what)


def flip(path, at, bits=0x40):
    with open(path, "r+b") as f:
        f.seek(at)
        b = f.read(1)
        f.seek(at)
        f.write(bytes([b[0] ^ bits]))


def raft_id(site, n):
    return next(m["raft_id"] for m in site.status(site.leader())["members"] if m["id"] == str(n))


def log_of(site, n):
    for d in ("data/log", "data"):
        p = site.path("node%d" % n, d, "log.db")
        if os.path.exists(p):
            return p


def put(site, n, base, count):
    for i in range(count):
        a = request(site.http[n], "PUT", "/v1/kv/k%d" % (base + i), "value %d " % (base + i) * 20)
        assert a.status in (200, 201), a.status


def test(site):
    random.seed(7)
    put(site, 1, 0, 300)
    follower = next(n for n in site.nodes if n != site.leader())
    name = "node%d" % follower
    # What is checkpointed lies in log.db itself: SIGTERM does that.
    site.kill(name, signal.SIGTERM)
    size = os.path.getsize(log_of(site, follower))
    pages = size // 1024
    old_id = raft_id(site, follower)
    for p in range(2, pages):
        flip(log_of(site, follower), p * 1024 + random.randrange(1024))
    site.start_node(follower)
    whole_again(site, follower, old_id, "a bit in each of %d pages of log.db" % (pages - 2))

    site.kill(name, signal.SIGTERM)
    old_id = raft_id(site, follower)
    with open(log_of(site, follower), "r+b") as f:
        f.truncate(os.path.getsize(log_of(site, follower)) // 2 // 1024 * 1024)
    site.start_node(follower)
    whole_again(site, follower, old_id, "log.db cut in half")

    put(site, 1, 300, 50)
    site.wait_same_state()
    site.kill(name, signal.SIGTERM)
    state = site.path(name, "data", "state.db")
    for p in range(1, os.path.getsize(state) // 1024):
        flip(state, p * 1024 + random.randrange(1016))
    old_id = raft_id(site, follower)
    site.start_node(follower)
    site.wait_whole(60)
    site.wait_same_state()
    site.ok(True, "a bit in each page of state.db: whole again (%s)" % ("anew" if raft_id(site, follower) != old_id else "under its old name"))

    # A bit in one page that nobody reads at start: it is found when somebody wants it.
    put(site, 1, 350, 50)
    site.kill("node%d" % follower, signal.SIGKILL)
    site.start_node(follower)
    site.wait_whole(60)
    site.ok(all(request(site.http[follower], "GET", "/v1/kv/k%d" % i).body.decode() == "value %d " % i * 20 for i in range(400)), "every value that was answered is there")
    site.ok(site.alive(name), "and it runs")


run_test(test, core=False)
