#!/usr/bin/env python3
"""One gateway's uplink breaks and it leads: leadership goes to a neighbour that reaches the broker, and nothing is lost.  When all are cut off it stays where
it is.  If it failed, a site with one broken modem would be silent though two others work, or its leadership would wander."""
from harness import *
from relay import Relay


class Modem(Relay):
    """A gateway's own way to the broker: while it is broken, who dials hears nothing, or is refused."""
    broken = False

    def admit(self, pair, source):
        while self.broken == "silent":
            time.sleep(0.2)
        return not self.broken

    def cut(self, how):
        self.broken = how
        for pair in self.pairs:
            end(pair.near, pair.far)


class Modems(Site):
    def endpoints(self):
        return [self.modems[self.writing].port]

    def write_config(self, n):
        if not hasattr(self, "modems"):
            self.modems = {m: Modem(self.broker_port) for m in self.nodes}
        self.writing = n
        super().write_config(n)


def metric(site, n, name):
    return sum(float(line.split()[1]) for line in request(site.http[n], "GET", "/metrics").body.decode().splitlines() if line.startswith(name + " "))


def send(site, name):
    body = json.dumps({"id": name, "source": "test", "type": "t", "priority": "critical", "data": name})
    wait_until("event " + name, lambda: request(site.http[1], "POST", "/v1/events", body, {"Content-Type": "application/json"}).status in (200, 201))


def at_core(site):
    return {e["id"] for e in request(site.core_port, "GET", "/v1/sites/%s/events?channel=control&limit=1000" % SITE).json()["events"]}


def test(site):
    first = site.leader()
    wait_until("the link", lambda: site.link(first)["stage"] == "up")
    before = site.link(first)["handover"]
    site.ok(before["to"] == "" and before["next_question_seconds"] is None, "while the leader has its link there is nothing to ask")
    site.modems[first].cut("silent")
    send(site, "meanwhile")
    second = wait_until("another leader", lambda: [n for n in [site.leader()] if n != first], 120)[0]
    wait_until("its link", lambda: site.link(second)["stage"] == "up")
    wait_until("the event at the core", lambda: "meanwhile" in at_core(site))
    site.ok(True, "a leader whose line is broken hands leadership to a gateway that reaches the broker, and what waited arrives")
    shown = wait_until("the old leader to tell of the new one's link", lambda: request(site.http[first], "GET", "/v1/federation/status").json()["here"])["handover"]
    site.ok(shown["to"] == str(second) and shown["questions"] >= 1, "status says to whom and when: %s" % shown)
    site.ok(metric(site, first, "grey_federation_handovers_total") == 1 and metric(site, second, "grey_federation_handover_looks_total") == 1, "both count it")
    notes = lambda: request(site.http[second], "GET", "/v1/audit?type=note&limit=1000").json()["entries"]
    wait_until("the note", lambda: [e for e in notes() if e["method"] == "HANDOVER" and "leadership to %s" % second in e["path"] and e["by"]["gateway"] == str(first)])
    site.ok(True, "and so does the audit trail")

    # Everybody is cut off: nobody is better, and leadership stays.
    terms = site.status(second)["term"]
    for n in site.nodes:
        site.modems[n].cut("refused")
    wait_until("a question", lambda: metric(site, second, "grey_federation_handover_questions_total") >= 1, 120)
    wait_until("their looks to end", lambda: all("good=no" in open(site.path("node%d.log" % n)).read() for n in site.nodes if n != second))
    time.sleep(1)  # for their answers, and what might be done about them
    site.ok(site.leader() == second and site.status(second)["term"] == terms, "when nobody reaches the broker leadership stays where it is")
    site.ok(site.link(second)["handover"]["next_question_seconds"] > 15, "and the next question waits for longer")
    for n in site.nodes:
        site.modems[n].broken = False
    send(site, "after")
    wait_until("the event at the core", lambda: site.ctl("link", "try", node=site.leader()) and "after" in at_core(site), 120)
    site.ok(True, "when the lines are back the site is at the core again")


run_test(test, site_class=Modems, upstream="handover_secs: 6", extra="consensus: {election_timeout_ms: 3000}\n")  # leadership moves by order only, also on a busy machine
