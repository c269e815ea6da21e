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
    follower = next(n for n in site.nodes if n != site.leader())
    doctor, link = site.ctl("doctor", node=follower), site.ctl("link", "status", node=follower)
    site.ok(doctor.returncode == 1 and "LOOK    link" in doctor.stdout, "greyctl doctor finds it at any gateway of this machine: it asks the one that leads")
    site.ok("down: " in link.stdout and "BREAKER" in link.stdout, "so does greyctl link status")
    site.ok(site.ctl("link", "try", node=follower).returncode == 0, "and greyctl link try has the leader try now")
    site.restart("broker")
    site.restart("core")
    ledger.judge()


run_test(test)
