#!/usr/bin/env python3
"""The core is away for longer than certificates live: the gateways of the site vouch for each other, a neighbour that was switched off meanwhile comes in
again, a revoked or unknown one does not, and when the core is back it renews them all.  If it failed, a site would fall apart on a day that
nobody has in his calendar."""
import glob
from harness import *

PRELOAD = (glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + ["libfaketimeMT.so.1 (package faketime)"])[0]


def at(days):
    return ["env", "LD_PRELOAD=" + PRELOAD, "FAKETIME=%+dd" % days, "FAKETIME_DONT_FAKE_MONOTONIC=1"]


class Alone(Site):
    """Enrolled 22 days ago for 30 days; since then the core is away, and today the site starts without it."""
    tool_under = ("faketime", "-f", "-25d")

    def start(self):
        self.core_under = at(-22)
        self.start_broker()
        self.start_core()
        token = self.token("--nodes", "4")
        for n in self.nodes:
            done = self.enrol(n, token)
            assert done.returncode == 0, done.stderr
        done = self.enrol("4", token, self.path("node4"))
        assert done.returncode == 0, done.stderr
        self.kill("core", signal.SIGTERM)
        self.kill("broker", signal.SIGTERM)
        for n in self.nodes:
            self.start_node(n)
        self.wait_voters()
        return self

    def given(self, n, name="site.crt"):
        """Whole days until the end of what neighbours gave gateway n, by today's clock."""
        path = self.path("node%d" % n, "data", name)
        r = subprocess.run(["openssl", "x509", "-noout", "-enddate", "-in", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return (time.mktime(time.strptime(r.stdout.split("=")[1].strip(), "%b %d %H:%M:%S %Y %Z")) - time.time()) / 86400 if r.returncode == 0 else None

    def metric(self, n, name):
        lines = request(self.http[n], "GET", "/metrics").body.decode().splitlines()
        return float([line for line in lines if line.startswith(name + " ")][0].split()[1])


def shown(site, n, under=()):
    """The certificates that gateway n shows to its neighbours, and whether OpenSSL takes them."""
    r = subprocess.run(list(under) + ["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.peer[n], "-tls1_2", "-showcerts", "-CAfile", site.ca + "/ca.crt", "-cert", site.path("node1", "node.crt"),
                                      "-key", site.path("node1", "node.key")], input="", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=30)
    return r.stdout.count("BEGIN CERTIFICATE"), "Verification: OK" in r.stdout


def write(site, n, key):
    return request(site.http[n], "PUT", "/v1/kv/" + key, "x").status in (200, 201)


def test(site):
    wait_until("all three to be vouched for", lambda: all(site.given(n) for n in site.nodes), 200)  # a look of 6 s after a start, and one a minute later
    site.ok(all(10 < site.given(n) < 15 for n in site.nodes), "eight days before the end neighbours vouch for each of the three, for two weeks")
    wait_until("three to be counted", lambda: sum(site.metric(n, "grey_identity_vouched_total") for n in site.nodes) >= 3)
    site.ok(True, "which is counted")
    wait_until("them to be shown", lambda: all(shown(site, n) == (3, True) for n in site.nodes))
    site.ok(True, "each shows what neighbours gave it, and OpenSSL takes it too, by the CA that all trust")
    core_given = {n: open(site.path("node%d" % n, "node.crt")).read() for n in site.nodes}
    site.ok(all(text.count("BEGIN") == 1 for text in core_given.values()), "what the core gave stays where it is, for the link to the core")
    site.ok("site" not in open(site.path("node1", "delegation.crt")).read(), "with the delegation beside it")
    text = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", site.path("node1", "delegation.crt")], stdout=subprocess.PIPE, text=True).stdout
    site.ok("pathlen:0" in text and "Permitted" in text and "CN = " + SITE in text, "which OpenSSL reads as bounded to this site, with nobody below")

    # Gateway 3 is switched off before the others' clocks go on; and it forgets what neighbours gave it.
    site.kill("node3", signal.SIGTERM)
    os.unlink(site.path("node3", "data", "site.crt"))
    for n in (1, 2):
        site.kill("node%d" % n, signal.SIGTERM)
    for n in (1, 2):  # nine days on: what the core gave ended a day ago
        site.start_node(n, under=at(9))
    wait_until("two of them to go on", lambda: write(site, 1, "late"), 60)
    site.ok(True, "a day after all certificates of the core have ended the site goes on, also from a cold start")
    wait_until("new ones in time", lambda: all(site.given(n) > 20 for n in (1, 2)), 60)
    site.ok(True, "and its gateways have vouched for each other anew")

    site.start_node(3, under=at(9))
    wait_until("gateway 3 to be in", lambda: request(site.http[3], "GET", "/v1/kv/late").status == 200, 60)
    site.ok(True, "one that was switched off when its certificate ended is let in, for its site knows it")
    wait_until("gateway 3 to have one", lambda: (site.given(3) or 0) > 15, 60)
    site.ok(True, "and is vouched for")

    # Who holds an ended certificate and is no member gets no further.
    r = subprocess.run(at(9) + ["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.peer[1], "-tls1_2", "-cert", site.path("node4", "node.crt"), "-key", site.path("node4", "node.key")],
                       input="", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    site.ok("alert" in r.stdout, "a certificate that has ended, of a gateway that the site never saw, is refused")

    # The core comes back, nine days on.
    site.core_under = at(9)
    site.start_core()
    broker = site.start_broker
    spawn = site.spawn
    site.spawn = lambda name, command: spawn(name, at(9) + command)
    broker()
    site.spawn = spawn
    wait_until("the core to renew all three", lambda: all(open(site.path("node%d" % n, "node.crt")).read() != core_given[n] for n in site.nodes), 150)
    site.ok(True, "when the core is back it renews all three where gateways enrol, without anybody's help")
    wait_until("the link", lambda: any(site.link(n)["stage"] == "up" for n in site.nodes), 150)
    site.ok(True, "and the broker lets the site in")
    wait_until("the core's to be shown", lambda: all(shown(site, n, at(9))[0] == 1 for n in site.nodes), 60)
    wait_until("a write", lambda: write(site, 2, "after"))  # links are dialled anew with new certificates
    site.ok(True, "from then on all show what the core gave, and the site goes on")


run_test(test, site_class=Alone, enroll=True)
