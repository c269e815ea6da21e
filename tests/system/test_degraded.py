#!/usr/bin/env python3
"""One of three gateways is left: it answers stale reads, keeps events under receipts through a kill, and when the others are back every
event is in the log and at the core exactly once, in the order in which it came."""
from harness import *


def post(site, n, ids, **fields):
    events = [dict({"id": i, "source": "pump", "type": "t", "data": {"id": i}}, **fields) for i in ids]
    return request(site.http[n], "POST", "/v1/events", json.dumps(events), timeout=30)


def test(site):
    a = post(site, 1, ["before-%d" % i for i in range(10)])
    site.ok(a.status == 201, "ten events before")
    request(site.http[1], "PUT", "/v1/kv/recipe", "seven")
    site.wait_same_state()
    leader = site.leader()
    third, lone = [n for n in site.nodes if n != leader]
    others = [third, leader]  # in this order the one that is left does not lead, not for a moment: what it had proposed then would be answered 504
    began = time.time()
    for n in others:
        site.kill("node%d" % n)
    a = post(site, lone, ["first-%d" % i for i in range(5)])
    site.ok(a.status == 202 and time.time() - began > 3, "events wait for a leader, then are kept here: %d after %.1f s" % (a.status, time.time() - began))
    body = a.json()
    site.ok(body["provisional"] is True and len({e["receipt"] for e in body["accepted"]}) == 5 and body["accepted"][0]["seq"] is None and body["accepted"][0]["id"] == "first-0",
            "with receipts instead of numbers")
    began = time.time()
    receipts = [post(site, lone, ["kept-%d" % i]).json()["accepted"][0]["receipt"] for i in range(30)]
    site.ok(len(set(receipts)) == 30 and time.time() - began < 60, "from then on at once (%.1f s for 30)" % (time.time() - began))  # 150 s if each waited for a leader
    a = request(site.http[lone], "POST", "/v1/events", json.dumps({"type": "no.id", "data": 1}))
    drawn = a.json()["accepted"][0]["id"]
    site.ok(a.status == 202, "also one without an id of its own")
    a = request(site.http[lone], "GET", "/v1/kv/recipe?consistency=stale")
    site.ok(a.status == 200 and a.body == b"seven" and dict((k.lower(), v) for k, v in dict(a.headers).items()).get("x-grey-stale") == "true", "stale reads go on and say so")
    site.ok(request(site.http[lone], "GET", "/v1/kv/recipe", timeout=30).status == 503, "others are refused")
    site.ok(request(site.http[lone], "PUT", "/v1/kv/recipe", "eight", timeout=30).status == 503, "and so are keys")
    a = request(site.http[lone], "GET", "/v1/events/kept-3?source=pump")
    site.ok(a.status == 200 and a.json()["provisional"] is True and a.json()["receipt"] == receipts[3], "an event is found by its id, provisional")
    site.ok(request(site.http[lone], "GET", "/v1/queue").json()["provisional"]["pending"] == 36, "the queue counts them")
    site.kill("node%d" % lone)
    site.restart("node%d" % lone)
    wait_until("its API", lambda: request(site.http[lone], "GET", "/health/live").status == 200)
    wait_until("its count", lambda: request(site.http[lone], "GET", "/v1/queue").json()["provisional"]["pending"] == 36, 20)
    site.ok(True, "kill -9 loses none of them")
    a = post(site, lone, ["kept-3", "later-0"])
    site.ok(a.status == 202, "a repeat is taken as well; which is the first is told apart later")
    for n in others:
        site.restart("node%d" % n)
    site.wait_whole()
    wait_until("an empty intake", lambda: request(site.http[lone], "GET", "/v1/queue").json()["provisional"]["pending"] == 0)
    a = wait_until("it at another", lambda: [a for a in [request(site.http[others[0]], "GET", "/v1/events/kept-3?source=pump")] if a.status == 200])[0].json()
    site.ok(a["provisional"] is False and a["seq"] > 10, "afterwards any gateway tells its number: %s" % a)
    again = post(site, others[0], ["kept-3"])
    site.ok(again.status == 200 and again.json()["accepted"][0]["seq"] == a["seq"], "and a repeat gets the same")
    site.wait_drained()
    events = site.core_events()
    want = ["before-%d" % i for i in range(10)] + ["first-%d" % i for i in range(5)] + ["kept-%d" % i for i in range(30)] + ["later-0"]
    got = [e["id"] for e in events if e["source"] == "pump"]
    site.ok(got == want, "all are at the core, once, in the order in which they came (%d)" % len(got))
    flags = {e["id"]: e["provisional"] for e in events}
    site.ok(all(flags[i] == (not i.startswith("before")) for i in want) and flags[drawn], "with the flag that says how they were taken")
    site.wait_same_state()


run_test(test)
