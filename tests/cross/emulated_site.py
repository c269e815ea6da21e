#!/usr/bin/env python3
"""What is built for an ARM gateway must do there what it does here: three gateways and a core of the cross-built programs, under emulation
(EMULATOR), lose their leader and no event.  Time-outs are those of slow disks; no task runs, since the emulator knows no seccomp filters."""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from harness import *


def test(site):
    print("# under %s; election time-outs of 2 to 3.3 s as for slow disks, tasks and their sandbox off" % (EMULATOR[0] if EMULATOR else "no emulator"))
    ledger = Ledger(site, 300, threads=2, pause=0.02).start()
    wait_until("events to be taken", lambda: ledger.done() > 30)
    leader = site.leader()
    site.kill("node%d" % leader)
    wait_until("another leader", lambda: site.leader(among=[n for n in site.nodes if n != leader]))
    site.start_node(leader)
    ledger.join()
    site.wait_whole(180)
    ledger.judge()
    site.wait_same_state(120)
    site.ok(True, "the three gateways hold the same state")
    status = site.ctl("status", "-o", "json")
    site.ok(status.returncode == 0 and len(json.loads(status.stdout)["cluster"]["members"]) == 3, "greyctl shows three members (%s)" % status.stderr.strip())


run_test(test, extra="consensus: {election_timeout_ms: 2000}\n")
