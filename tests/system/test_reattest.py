#!/usr/bin/env python3
"""When a gateway shows itself again: if it did so by its period alone, a new policy would count a day late, and after a week without the core an old
result would be all that anybody knows; if it did so at every contact, a link that flaps would cost what an idle day may."""
import datetime
import tpms
from tpms import *

LONG, SHORT = 3600, 16  # seconds: one in which nothing comes by the period, one in which a link is up again before half of it is over
tpms.PERIOD = LONG


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
    wait_until("another judgement", lambda: judged(site) > first, 60)
    site.ok(True, "the gateway shows itself by it at once, with a period of an hour")
    time.sleep(1)
    second = judged(site)
    r = site.ctl("attest", "now")
    wait_until("another judgement", lambda: judged(site) > second, 60)
    site.ok(r.returncode == 0, "and when an operator asks for it")

    site.ok(site.learn(True).status == 200, "(the configuration may change)")
    site.kill("node1", signal.SIGTERM)
    tpms.PERIOD = SHORT
    site.write_config(1)
    site.start_node(1)
    wait_until("the result of its start", lambda: judged(site) > second + 1, 60)
    site.wait_words({1: "trusted"})
    came = None
    for _ in range(6):  # a machine under load may be late; without a reason none comes before the period
        last = judged(site)
        time.sleep(SHORT / 2 + 0.5)
        if judged(site) != last:
            continue
        flap(site)
        wait_until("another judgement", lambda: judged(site) > last, 3 * SHORT)
        came = judged(site) - last
        if came < SHORT * 0.8:
            break
    site.ok(came is not None and came < SHORT * 0.8, "a result that is half a period old is made again when the core is heard again (after %s of %d s)" % (came, SHORT))


run_test(test, TpmSite, nodes=1)
