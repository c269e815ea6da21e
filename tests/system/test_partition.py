#!/usr/bin/env python3
"""One gateway is cut off: it must not answer as if it knew, and must not disturb the others when it returns."""
from harness import *


def test(site):
    a = request(site.http[1], "PUT", "/v1/kv/colour", "red")
    site.ok(a.status == 201, "a key is written")
    term = site.status(site.leader())["term"]
    alone = next(n for n in site.nodes if n != site.leader())
    # Its own link for those who dial it, and the others' links are cut for what it dials: all links of that one gateway.
    site.links[alone].cut()
    for n in site.nodes:
        if n != alone:
            site.links[n].cut()
            site.links[n].mend()
    others = [n for n in site.nodes if n != alone]
    # Connections that the lonely node dials go through the others' proxies: refuse only those by stopping its process' network, which
    # the proxy cannot tell apart; so it is stopped instead while the others go on, and then cut from inside by a wrong seed.
    site.kill("node%d" % alone, signal.SIGSTOP)
    site.leader(among=others)
    b = request(site.http[others[0]], "PUT", "/v1/kv/colour", "blue", timeout=30)
    site.ok(b.status == 200, "two of three go on")
    site.kill("node%d" % alone, signal.SIGCONT)
    site.links[alone].mend()
    wait_until("the lonely one to catch up", lambda: request(site.http[alone], "GET", "/v1/kv/colour").body == b"blue", 60)
    site.ok(True, "it returns and reads what was written meanwhile")

    # Two are gone: the third has no majority.
    lone = site.leader()
    for n in site.nodes:
        if n != lone:
            site.kill("node%d" % n)
    wait_until("readiness to end", lambda: request(site.http[lone], "GET", "/health/ready").status == 503, 30)
    r = request(site.http[lone], "GET", "/v1/kv/colour", timeout=30)
    site.ok(r.status == 503 and r.headers.get("retry-after"), "a read that must be right is refused with 503 (%d)" % r.status)
    r = request(site.http[lone], "GET", "/v1/kv/colour?consistency=stale")
    site.ok(r.status == 200 and r.headers.get("x-grey-stale") == "true" and r.body == b"blue", "a stale read is answered and says so")
    w = request(site.http[lone], "PUT", "/v1/kv/colour", "green", timeout=30)
    site.ok(w.status == 503 and w.json()["type"].startswith("/errors/GREY-"), "a write is refused with 503: certainly not proposed (%d)" % w.status)
    site.ok(request(site.http[lone], "GET", "/health/live").status == 200, "it says that it lives")
    c = site.ctl("kv", "put", "colour", "green", node=lone)
    site.ok(c.returncode == 4 and "GREY-1001" in c.stderr, "greyctl ends with 4 for no quorum")
    for n in site.nodes:
        if n != lone:
            site.start_node(n)
    site.wait_whole()
    r = request(site.http[lone], "GET", "/v1/kv/colour")
    site.ok(r.body == b"blue", "after their return the key is as it was promised (%s)" % r.body)
    site.wait_same_state()
    site.ok(site.status(lone)["term"] <= term + 4, "terms rose only by the elections that were needed")


run_test(test, links=True, core=False)
