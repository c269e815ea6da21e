#!/usr/bin/env python3
"""10,000 events while the leader is killed twice and the core once: what the site said it kept must be at the core, once, in sequence."""
from harness import *


def test(site):
    ledger = Ledger(site, 10000, threads=6, batch=10, pause=0.02).start()
    for share, what in ((0.15, "leader"), (0.4, "core"), (0.65, "leader")):
        wait_until("%d%% of the events" % (100 * share), lambda: ledger.done() >= share * ledger.count or ledger.errors, 180)
        name = "core" if what == "core" else "node%d" % site.leader()
        site.kill(name)
        time.sleep(1.5)
        site.restart(name)
    ledger.join()
    ledger.judge()
    site.wait_whole()
    site.wait_same_state()
    site.ok(True, "the three gateways are whole again and hold the same state")


run_test(test)
