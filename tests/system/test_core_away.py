#!/usr/bin/env python3
"""The core is away and comes back: the site goes on, keeps everything, says so, and delivers it all."""
from harness import *


def test(site):
    site.kill("core")
    ledger = Ledger(site, 2000).start()
    ledger.join()
    site.ok(not ledger.errors and ledger.done() == ledger.count, "the site takes events while the core is away")
    pending = sum(c["pending"] for c in site.queue(site.leader()).values())
    site.ok(pending == ledger.count, "all of them wait in the queue (%d)" % pending)
    site.kill("broker")
    status = wait_until("the link to be seen down", lambda: site.ctl("status", node=site.leader()).stdout.startswith("OFFLINE") and site.ctl("status", node=site.leader()), 30)
    site.ok("OFFLINE" in status.stdout and "2000 events" in status.stdout, "greyctl status says so: %s" % status.stdout.splitlines()[0])
    site.restart("broker")
    site.restart("core")
    ledger.judge()


run_test(test)
