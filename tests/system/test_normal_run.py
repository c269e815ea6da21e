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


run_test(test)
