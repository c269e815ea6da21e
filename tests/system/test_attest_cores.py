#!/usr/bin/env python3
"""Two cores on one PostgreSQL hear the words of one gateway by turns: if one did not know what the other asked, the gateway would never be trusted; if both took one answer, a question
could be answered twice."""
from harness import *
from stub_site import *
from test_attest_attacks import Attacked, refusal


def routes(site):
    """Both cores have heard a hello of this site: the routes to them."""
    found = []

    def both():
        site.link.hello()
        if site.link.route and site.link.route not in found:  # none: it did not come within a moment
            found.append(site.link.route)
        return len(found) == len(site.core_ports)
    wait_until("a welcome by each core", both, 60)
    return found


def test(site):
    g, link, words = site.gateway, site.link, []
    ways = routes(site)

    def say(word, body, real=g.say):
        link.route = ways[len(words) % 2]
        words.append(word)
        return real(word, body)
    g.say = say
    word, body = g.attest()
    site.ok(word == RESULT and words == [ASK, INTRODUCTION, SECRET, EVIDENCE], "an exchange whose words go to the two cores by turns ends with a result")
    shown = [request(port, "GET", "/v1/attestations").json() for port in site.core_ports]
    site.ok(shown[0] == shown[1] and shown[0][0]["state"] == "trusted", "and both show it")
    inquiry = g.inquiry()[1]
    evidence = g.evidence(inquiry)
    answers = []
    link.heard = []
    for way in ways:
        link.route = way
        link.say([UP_ATTEST, g.node, EVIDENCE, evidence])
    for _ in ways:
        m = link.wait_kind(DOWN_ATTEST, 30, g.node)
        answers.append((m[2], m[3]) if m else None)
    site.ok(sorted(a[0] for a in answers if a) == [RESULT, REFUSAL] and 3203 in [refusal(a) for a in answers],
            "one answer said to both at once is taken once, and refused once as NONCE")
    site.ok(g.attest()[0] == RESULT, "and the gateway goes on")
    site.ok(site.ctl("attest", "forget", SITE, "1").returncode == 0, "one core forgets the gateway")
    word, _ = g.say(ASK, g.order())
    site.ok(word == INTRODUCE and g.say(ASK, g.order())[0] == INTRODUCE, "and both want it to introduce itself")


run_test(test, Attacked, cores=2, postgres=True)
