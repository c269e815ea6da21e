#!/usr/bin/env python3
"""Three gateways are switched on at once and become trusted within one write of their slow disks.  If this failed, one whose result came while another was written would stand there as
unknown until it asks again, days later; so would one whose leader fell while it was written."""
import tpms
from slow_disks import *
from tpms import *

tpms.PERIOD = 86400


class Slow(SlowSite, TpmSite):
    def start(self):
        """Without the core, which comes when the disks are slow."""
        self.start_broker()
        for n in self.nodes:
            self.start_node(n)
        self.wait_voters()
        return self


def test(site):
    for n in site.nodes:
        site.slow(n, 1500)
    site.start_core()
    site.wait_words({n: "trusted" for n in site.nodes})
    site.ok(True, "all three become trusted while each write takes a second and a half")


run_test(test, Slow, extra="consensus: {election_timeout_ms: 6000}\n")
