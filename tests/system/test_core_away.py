#!/usr/bin/env python3
"""The core is away and comes back: the site goes on, keeps everything, says so, and delivers it all."""
from harness import *


def test(site):
    site.kill("core")
    ledger = Ledger(site, 2000).start()
    ledger.join()
    site.ok(not ledger.errors and ledger.done() == ledger.count, "the site takes events while the core is away")
    pending = wait_until("them at the leader", lambda: [p for p in [sum(c["pending"] for c in site.queue(site.leader()).values())] if p >= ledger.count])[0]
    site.ok(pending == ledger.count, "all of them wait in the queue (%d)" % pending)
    site.kill("broker")
    status = wait_until("the link to be seen down", lambda: [s for s in [site.ctl("status", node=site.leader())] if s.stdout.startswith("OFFLINE")])[0]
    site.ok("OFFLINE" in status.stdout and "2000 events" in status.stdout, "greyctl status says so: %s" % status.stdout.splitlines()[0])
    follower = next(n for n in site.nodes if n != site.leader())
    doctor = wait_until("what greyctl doctor hears of the link", lambda: [d for d in [site.ctl("doctor", node=follower)] if "LOOK    link" in d.stdout])[0]
    link = site.ctl("link", "status", node=follower)
    site.ok(doctor.returncode == 1 and "LOOK    link" in doctor.stdout, "greyctl doctor finds it at any gateway of this machine: it asks the one that leads")
    site.ok("down: " in link.stdout and "BREAKER" in link.stdout, "so does greyctl link status")
    def told_of_leader():
        """What the gateways tell, once each knows who leads and has asked it."""
        told, leader = {n: request(site.http[n], "GET", "/v1/federation/status").json() for n in site.nodes}, str(site.leader())
        same = {t["link_of"] for t in told.values()} == {leader} == {t["owner"] for t in told.values()}
        return same and all(t["link"]["last_error"] for t in told.values()) and told
    told = wait_until("every gateway to tell of the leader's link", told_of_leader, 30)
    site.ok(all(t["link"]["stage"] != "off" and not t["link"]["up"] and t["link"]["last_error"] for t in told.values()),
            "every gateway tells of the leader's link: %s" % {n: t["link"]["stage"] for n, t in told.items()})
    site.ok(all(("here" in t) == (str(n) != t["owner"]) for n, t in told.items()), "and the others of their own as well: %s" % {n: t["here"]["stage"] for n, t in told.items() if "here" in t})
    wait_until("greyctl link try", lambda: site.ctl("link", "try", node=follower).returncode == 0)
    site.ok(True, "and greyctl link try has the leader try now")
    site.restart("broker")
    site.restart("core")
    ledger.judge()
    wait_until("the link at every gateway", lambda: all(site.link(n)["up"] and site.link(n)["sent_bytes"] > 0 for n in site.nodes), 60)
    said = site.ctl("federation", "status", node=follower)
    site.ok("link" in said.stdout and "up to localhost:" in said.stdout and site.ctl("link", "status", node=follower).stdout.startswith("up"),
            "when it is up, every gateway says so: %s" % said.stdout.splitlines()[0])

    # Cores that die soon after they asked the site where it is: whoever comes next must be heard by a site that has nothing to say.
    for version in (1, 2):
        for _ in range(2):
            site.restart("core")
            wait_until("the core to be connected", lambda: request(site.core_port, "GET", "/health").status == 200)
        put = request(site.core_port, "PUT", "/v1/configs/app", b"rate: %d" % version)
        assert put.status in (200, 201), put.body
        wait_until("version %d at an idle site" % version, lambda: request(site.http[1], "GET", "/v1/configs/app").body == b"rate: %d" % version)
    site.ok(True, "a core that came back twice within seconds reaches an idle site")


run_test(test)
