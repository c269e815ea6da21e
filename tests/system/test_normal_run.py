#!/usr/bin/env python3
"""A quiet day: events to all three gateways reach the core once each.  If this fails, the product does not do its main job."""
from harness import *


def test(site):
    ledger = Ledger(site, 3000, pause=0.0).start()
    ledger.join()
    ledger.judge()
    site.wait_same_state()
    site.ok(True, "the three gateways hold the same state")
    q = site.queue(site.leader())
    site.ok(all(c["pending"] == 0 and c["gaps"] == 0 for c in q.values()), "nothing waits, nothing is lost")
    s = site.status(site.leader())
    site.ok(s["term"] == 1, "no second election was held (term %d)" % s["term"])
    page = request(site.core_port, "GET", "/")
    site.ok(page.status == 200 and SITE.encode() in page.body, "the core's page shows the site")
    gaps = request(site.core_port, "GET", "/v1/sites/%s/gaps" % SITE).json()
    site.ok(gaps == {"gaps": []}, "the core knows of no gap")
    for port, path in ((site.http[1], "/health"), (site.core_port, "/v1/sites/" + SITE)):
        head, wrong = request(port, "HEAD", path), request(port, "PUT", path)
        site.ok(head.status == 200 and head.body == b"", "HEAD %s is answered as balancers ask it" % path)
        site.ok(wrong.status == 405 and wrong.headers.get("allow") == "GET, HEAD", "and a wrong method is told the right ones")
    killed = site.leader()
    site.kill("node%d" % killed)
    after = site.leader(among=[n for n in site.nodes if n != killed])
    states = {m["id"]: m["state"] for m in site.status(after)["members"]}
    site.ok(states[str(killed)] in ("suspect", "dead"), "a new leader does not begin with taking the killed one for healthy (%s)" % states[str(killed)])


run_test(test, extra="consensus: {election_timeout_ms: 4000}\n")  # no leader is missed because the machine is busy
