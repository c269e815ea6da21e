#!/usr/bin/env python3
"""When a gateway shows itself again: if it did so by its period alone, a new policy would count a day late, and after a week without the core an old
result would be all that anybody knows; if it did so at every contact, a link that flaps would cost what an idle day may."""
import datetime
import glob
import tpms
from tpms import *

tpms.PERIOD = 3600  # seconds: nothing here comes by the period
PRELOAD = (glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + ["libfaketimeMT.so.1 (package faketime)"])[0]
AGED = 2000  # and a result that is older than half of it is not young
PATIENCE_S = 150  # a word that was lost is said again after a minute


def judged(site):
    """When the core judged the gateway last, by the core's clock."""
    text = request(site.core_port, "GET", "/v1/attestations/%s/1" % SITE).json()["judged"]
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def contacts(site):
    with open(site.path("core.log")) as f:
        return f.read().count("ingest hello")


def flap(site):
    """The link goes and comes back."""
    heard = contacts(site)
    site.restart("broker")
    wait_until("the site's hello", lambda: contacts(site) > heard, 60)


def test(site):
    site.wait_words({1: "trusted"})
    first = judged(site)
    flap(site)
    time.sleep(1)
    site.ok(judged(site) == first, "a result that is young is not made again because the core is heard again")
    site.ok(site.learn(False).status == 200, "a new version of the policy is given")
    wait_until("another judgement", lambda: judged(site) > first, PATIENCE_S)
    site.ok(True, "the gateway shows itself by it at once, with a period of an hour")
    time.sleep(1)
    second = judged(site)
    r = site.ctl("attest", "now")
    wait_until("another judgement", lambda: judged(site) > second, PATIENCE_S)
    site.ok(r.returncode == 0, "and when an operator asks for it")

    # A core whose clock is behind gives a gateway that has none yet a result that is old already.
    site.kill("core", signal.SIGTERM)
    site.kill("node1", signal.SIGTERM)
    os.unlink(site.path("node1", "data", "attestation"))
    site.core_under = ["env", "LD_PRELOAD=" + PRELOAD, "FAKETIME=-%ds" % AGED, "FAKETIME_DONT_FAKE_MONOTONIC=1"]
    site.start_core()
    site.start_node(1)
    wait_until("a judgement by that clock", lambda: judged(site) < time.time() - AGED + 600, PATIENCE_S)
    wait_until("it to be kept", lambda: os.path.exists(site.path("node1", "data", "attestation")))
    third = judged(site)
    time.sleep(8)
    site.ok(judged(site) == third, "the age of a result is no reason to make it again by itself")
    flap(site)
    wait_until("another judgement", lambda: judged(site) > third, PATIENCE_S)
    site.ok(True, "one that is older than half a period is made again when the core is heard again")


run_test(test, TpmSite, nodes=1)
