#!/usr/bin/env python3
"""Gateways whose clocks say 1970 or twenty years from now: the site forms over TLS, says that it is unsure of the time, and takes
certificates that are good by the site's."""
import glob
import ssl

from harness import *

PRELOAD = (glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + ["libfaketimeMT.so.1 (package faketime)"])[0]


def at(when):
    return ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME=" + when, "LD_PRELOAD=" + PRELOAD]


class Clocks(Site):
    """Gateway 1 has lost its clock, 2 is right, 3 is twenty years ahead; the API of 3 is reached with TLS."""
    clocks = {1: at("@1970-01-02 00:00:00"), 3: at("+7300d")}

    def start_node(self, n, bootstrap=None, under=()):
        super().start_node(n, bootstrap, self.clocks.get(n, []) if not under else under)

    def write_config(self, n):
        super().write_config(n)
        if n == 3:
            with open(self.path("node3", "greyd.yaml")) as f:
                text = f.read()
            with open(self.path("node3", "greyd.yaml"), "w") as f:
                f.write(text.replace("http_addr: \"127.0.0.1:", "http_addr: \"0.0.0.0:"))

    def ask(self, n, path):
        return talk(UnixConnection(self.path("node%d" % n, "greyd.sock")), "GET", path).json()

    def status(self, n):
        return self.ask(n, "/v1/cluster/status")

    def clock(self, n):
        return self.ask(n, "/health/detailed")["checks"]["clock"]

    def user(self, name, under=()):
        """A certificate for a user; under: as of another time."""
        subprocess.run(list(under) + [os.path.join(BUILD, "grey-core"), "ca", "user", "--dir", self.ca, "--name", name, "--role", "viewer", "--out",
                                      self.path(name)], check=True)

    def as_user(self, name):
        """The status that the gateway twenty years ahead answers with; None: refused in the handshake."""
        context = ssl.create_default_context(cafile=self.ca + "/ca.crt")
        context.check_hostname = False  # a gateway is known by the URI of its certificate
        context.load_cert_chain(self.path(name + ".crt"), self.path(name + ".key"))
        try:
            return talk(http.client.HTTPSConnection("localhost", self.http[3], timeout=15, context=context), "GET", "/v1/queue").status
        except OSError:
            return None


def test(site):
    site.ok(True, "three gateways of which two have wrong clocks form a site over TLS")
    with open(site.path("node1.log")) as f:
        log = f.read()
    site.ok("clock behind" in log and "is not believed" in log, "the one that thinks it is 1970 says so")
    site.ok(" 1970-" not in log and not any(line.startswith("1970") for line in log.splitlines()), "and stamps nothing with that")
    wait_until("a write", lambda: talk(UnixConnection(site.path("node2", "greyd.sock")), "PUT", "/v1/kv/a", "b").status in (200, 201))
    site.ok(True, "the site decides")
    site.user("now")
    site.ok(site.as_user("now") == 200, "a certificate that is good today is good where the clock is twenty years ahead")
    wait_until("wrong clocks to be shown", lambda: site.clock(1)["source"] == "unsure" and site.clock(3)["source"] == "unsure")
    site.ok(True, "the status says which gateways are unsure of the time")
    kept = site.path("node1", "data", "clock")
    site.kill("node1", signal.SIGTERM)
    with open(kept) as f:
        words = f.read().split()
    site.ok(words[:2] == ["grey-clock", "1"] and abs(int(words[2]) / 1000 - time.time()) < 86400 * 366, "what time it is at least is kept on disk: %s" % words)
    site.restart("node1")
    site.wait_whole()
    with open(kept, "w") as f:
        f.write("grey-clock 1 99999999999999999\n")  # not a time: not believed
    site.restart("node1")
    site.wait_whole()
    site.ok(True, "a file that is not one of ours does not stop it")


if "sanitize" in BUILD or "address" in BUILD:
    print("1..0 # skipped: the sanitizer's runtime must be loaded first, so no library can stand before it")
else:
    run_test(test, site_class=Clocks, core=False)
