#!/usr/bin/env python3
"""One gateway is cut off: it must not answer as if it knew, and must not disturb the others when it returns."""
from concurrent.futures import ThreadPoolExecutor
from harness import *


def at_once(*calls):
    """Each is refused after seconds of hope: side by side."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [f.result() for f in [pool.submit(c) for c in calls]]


def test(site):
    a = request(site.http[1], "PUT", "/v1/kv/colour", "red")
    site.ok(a.status == 201, "a key is written")
    for role in ("follower", "leader"):
        leader = site.leader()
        alone = leader if role == "leader" else next(n for n in site.nodes if n != leader)
        others = [n for n in site.nodes if n != alone]
        site.isolate(alone)
        wait_until("the lonely %s to know it" % role, lambda: request(site.http[alone], "GET", "/health/ready").status == 503, 30)
        site.leader(among=others)
        wait_until("a write", lambda: request(site.http[others[0]], "PUT", "/v1/kv/colour", "blue-" + role, timeout=30).status == 200)
        site.ok(True, "%s cut off: two of three go on" % role)
        r, w = at_once(lambda: request(site.http[alone], "GET", "/v1/kv/colour", timeout=30),
                       lambda: request(site.http[alone], "PUT", "/v1/kv/colour", "wrong", timeout=30))
        site.ok(r.status == 503, "the lonely one refuses a read that must be right (%d)" % r.status)
        site.ok(w.status in (503, 504), "and a write (%d)" % w.status)
        time.sleep(2)
        alone_term, term = site.status(alone)["term"], site.status(site.leader(among=others))["term"]
        site.heal()
        wait_until("the lonely one to catch up", lambda: request(site.http[alone], "GET", "/v1/kv/colour").body == b"blue-" + role.encode(), 60)
        site.ok(True, "it returns and reads what was written meanwhile")
        rise = site.status(site.leader())["term"] - term  # a machine that is busy may cost one
        site.ok(alone_term <= term and rise <= 1, "it asked for no term while it was alone, and disturbs nobody: terms rose by %d" % rise)

    # Two are gone: the third has no majority.
    lone = site.leader()
    for n in site.nodes:
        if n != lone:
            site.kill("node%d" % n)
    wait_until("readiness to end", lambda: request(site.http[lone], "GET", "/health/ready").status == 503, 30)
    r, w, c = at_once(lambda: request(site.http[lone], "GET", "/v1/kv/colour", timeout=30),
                      lambda: request(site.http[lone], "PUT", "/v1/kv/colour", "green", timeout=30),
                      lambda: site.ctl("kv", "put", "colour", "green", node=lone))
    site.ok(r.status == 503 and r.headers.get("retry-after"), "a read that must be right is refused with 503 (%d)" % r.status)
    r = request(site.http[lone], "GET", "/v1/kv/colour?consistency=stale")
    site.ok(r.status == 200 and r.headers.get("x-grey-stale") == "true" and r.body == b"blue-leader", "a stale read is answered and says so")
    site.ok(w.status == 503 and w.json()["type"].startswith("/errors/GREY-"), "a write is refused with 503: certainly not proposed (%d)" % w.status)
    site.ok(request(site.http[lone], "GET", "/health/live").status == 200, "it says that it lives")
    site.ok(c.returncode == 4 and "GREY-1001" in c.stderr, "greyctl ends with 4 for no quorum")
    for n in site.nodes:
        if n != lone:
            site.start_node(n)
    site.wait_whole()
    r = request(site.http[lone], "GET", "/v1/kv/colour")
    site.ok(r.body == b"blue-leader", "after their return the key is as it was promised (%s)" % r.body)
    site.wait_same_state()


run_test(test, links=True, core=False, extra="consensus: {election_timeout_ms: 1500}\n")  # terms are counted: a busy machine makes none then
