#!/usr/bin/env python3
"""A cable that carries one way only, without a word from TCP: the site goes on with the gateways that hear each other, answers nothing old,
does not elect leaders without end, and is whole again when the cable is (FAULTS N5, N9, R13)."""
from harness import *


def test(site):
    written = 0

    def put(among, what, seconds=60):
        """A new key through one of these gateways; the answer may come from the next try, and an earlier one may still take effect later."""
        nonlocal written

        def one():
            for n in among:
                a = request(site.http[n], "PUT", "/v1/kv/w%d" % (written + 1), "there", timeout=3)
                if a.status in (200, 201):
                    return True
        began = time.monotonic()
        wait_until(what, one, seconds)
        written += 1
        return time.monotonic() - began

    put(site.nodes, "the first write")
    for role, sends in (("leader", True), ("leader", False), ("follower", True), ("follower", False)):
        what = "a %s that %s" % (role, "nobody hears" if sends else "hears nobody")
        leader = site.leader()
        term = site.status(leader)["term"]
        one = leader if role == "leader" else next(n for n in site.nodes if n != leader)
        others = [n for n in site.nodes if n != one]
        site.hold(one, sends)
        waited = put(others, "a write beside " + what)
        site.ok(waited < 30, "%s: writes go on after %.1f s" % (what, waited))  # a try takes 3 s, and a busy machine may cost some
        for _ in range(20):
            put(others, "more writes beside " + what)
        stale = 0
        for _ in range(2):
            try:
                stale += request(site.http[one], "GET", "/v1/kv/w%d" % written, timeout=2).status == 404
            except OSError:  # no answer is a right one
                pass
        site.ok(stale == 0, "%s: it answers nothing old" % what)
        time.sleep(3)
        rise = site.status(site.leader(among=others))["term"] - term
        site.ok(rise <= 6, "%s: terms rise by %d" % (what, rise))  # a busy machine may cost some; elections without end are two a second
        site.heal()
        wait_until("the gateway to catch up", lambda: request(site.http[one], "GET", "/v1/kv/w%d" % written).status == 200, 30)
        again = site.status(site.leader())["term"] - term - rise
        site.ok(again <= 2, "%s: whole again, terms rose by %d more" % (what, again))
    site.wait_same_state()


run_test(test, links=True, core=False)
