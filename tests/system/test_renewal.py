#!/usr/bin/env python3
"""Renewal: certificates that are two thirds over are replaced over the link, while all goes on; one that has lapsed comes back with its key.
The CA's issuing key is changed without anybody noticing.  If it failed, a site would stand still on the day its certificates end."""
import glob, re
from harness import *

PRELOAD = (glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + ["libfaketimeMT.so.1 (package faketime)"])[0]
AGED = ["env", "LD_PRELOAD=" + PRELOAD, "FAKETIME=-20d", "FAKETIME_DONT_FAKE_MONOTONIC=1"]


class AgedSite(Site):
    """Enrolled 20 days ago by a CA of 25 days ago: certificates hold for 30."""
    tool_under = ("faketime", "-f", "-25d")

    def start(self):
        self.core_under = AGED
        self.start_broker()
        self.start_core()
        token = self.token("--nodes", "3")
        for n in self.nodes:
            done = self.enrol(n, token)
            assert done.returncode == 0, done.stderr
        self.kill("core", signal.SIGTERM)
        self.core_under = []
        self.start_core()
        for n in self.nodes:
            self.start_node(n)
        self.wait_whole()
        return self


def serial(text):
    return subprocess.run(["openssl", "x509", "-noout", "-serial"], input=text, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def of_file(path):
    with open(path) as f:
        return serial(f.read())


def issuer(path):
    return subprocess.run(["openssl", "x509", "-noout", "-issuer", "-in", path], stdout=subprocess.PIPE, text=True, check=True).stdout


def shown(site, n):
    """What gateway n shows to its neighbours."""
    r = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.peer[n], "-tls1_2", "-cert", site.path("node1", "node.crt"), "-key", site.path("node1", "node.key")], input="",
                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=30)
    return serial(r.stdout)


def renew(site, folder):
    return subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--dir", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def test(site):
    path = {n: site.path("node%d" % n, "node.crt") for n in site.nodes}
    wait_until("all three renewed", lambda: all(re.search(rb"\ngrey_identity_renewals_total [1-9]", request(site.http[n], "GET", "/metrics").body) for n in site.nodes), 90)
    end = [subprocess.run(["openssl", "x509", "-noout", "-checkend", str(25 * 86400), "-in", path[n]], stdout=subprocess.DEVNULL).returncode for n in site.nodes]
    site.ok(end == [0, 0, 0], "all three have new certificates for nearly 30 days, those of followers too")
    site.ok(all(shown(site, n) == of_file(path[n]) for n in site.nodes), "and show them, without a restart")
    site.ok(all(site.alive("node%d" % n) for n in site.nodes) and request(site.http[1], "PUT", "/v1/kv/a", "1").status in (200, 201), "the site went on")
    revoked = subprocess.run(["openssl", "crl", "-noout", "-text", "-in", site.ca + "/crl.pem"], stdout=subprocess.PIPE, text=True).stdout
    site.ok("No Revoked Certificates" in revoked, "renewal revokes nothing")

    # A gateway that stood in a cupboard until its certificate ended.
    site.kill("core", signal.SIGTERM)
    site.core_under, site.core_extra = AGED, ["--cert-hours", "1"]
    site.start_core()
    lapsed = site.path("lapsed")
    r = subprocess.run(AGED + [os.path.join(BUILD, "greyd"), "enroll", "--core", "https://localhost:%d" % site.enroll_port, "--token", site.token(), "--node", "4", "--config", "", "--dir", lapsed],
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    site.ok(r.returncode == 0, "a gateway is enrolled for one hour, 20 days ago" + r.stderr)
    site.kill("core", signal.SIGTERM)
    site.core_under, site.core_extra = [], []
    site.start_core()
    key = open(lapsed + "/node.key").read()
    r = wait_until("the core", lambda: [x for x in [renew(site, lapsed)] if "GREY-4005" not in x.stderr], 30)[0]
    site.ok(r.returncode == 0 and open(lapsed + "/node.key").read() == key, "its lapsed certificate is renewed for the key that is known, without a token" + r.stderr)

    # The issuing key changes: made known, then used.  Nobody is shut out meanwhile.
    old = issuer(path[1])
    site.tool("ca", "rotate", "--dir", site.ca)
    os.kill(site.processes["core"].pid, signal.SIGHUP)
    with open(site.ca + "/next.crt") as f:
        coming = f.read()
    wait_until("the coming CA at all gateways", lambda: all(coming in open(site.path("node%d" % n, "data", "trust.pem")).read() for n in site.nodes), 90)
    site.ok(True, "all gateways trust the coming issuer before it is used")
    site.tool("ca", "promote", "--dir", site.ca)
    os.kill(site.processes["core"].pid, signal.SIGHUP)
    late = site.path("late")

    def by_new():
        shutil.rmtree(late, ignore_errors=True)
        return site.enrol("5", site.token(), late).returncode == 0 and issuer(late + "/node.crt") != old
    wait_until("certificates of the new issuer", by_new, 30)

    def let_in():  # the file with the coming issuer is there a moment before it is read
        r = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.peer[1], "-tls1_2", "-cert", late + "/node.crt", "-key", late + "/node.key"], input="", stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=30)
        return r.returncode == 0 and "alert" not in r.stdout
    wait_until("the gateway to be let in", let_in, 30)
    site.ok(True, "a gateway with a certificate of the new issuer is let in by those who were there")
    site.kill("node2")
    site.start_node(2)
    site.wait_voters()
    site.ok(True, "and those with certificates of the former one go on, also after a restart")


run_test(test, site_class=AgedSite, enroll=True)
