#!/usr/bin/env python3
"""Whoever sets TLS 1.3 as the least must not get less in silence: a build that has none refuses to start; one that has it forms its site with it,
reaches the core, and lets nobody in who speaks 1.2."""
import re
from harness import *


def refused(site):
    found = re.search(r'grey_network_peer_refusals_total\{reason="tls"\} (\d+)', request(site.http[1], "GET", "/metrics").body.decode())
    return int(found.group(1)) if found else 0


def shake_hands(site, version):
    r = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.peer[1], version, "-cert", site.path("node2", "node.crt"), "-key", site.path("node2", "node.key")], input="",
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return "Cipher is (NONE)" not in r.stdout and "Verify return code" in r.stdout, r.stdout


class Strict(Site):
    """min_version 1.3 at all gateways, if this build has it."""

    def write_config(self, n):
        super().write_config(n)
        path = self.path("node%d" % n, "greyd.yaml")
        plain = open(path).read()
        with open(path, "w") as f:
            f.write(plain.replace("tls: {enabled: true,", "tls: {enabled: true, min_version: '1.3',"))
        self.check = subprocess.run(program("greyd") + ["--check-config", "--config", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.start_refused = None
        if self.check.returncode != 0:
            self.start_refused = subprocess.run(program("greyd") + ["--config", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
            with open(path, "w") as f:
                f.write(plain)


def test(site):
    if site.start_refused is not None:
        site.ok("GREY-3240" in site.check.stdout and site.check.returncode == 2, "this build has no TLS 1.3, and says so when the configuration is checked")
        site.ok(site.start_refused.returncode == 2 and "GREY-3240" in site.start_refused.stdout and "->" in site.start_refused.stdout, "and does not start: GREY-3240, with a remedy")
        good, said = shake_hands(site, "-tls1_2")
        site.ok(good and "Cipher is ECDHE-ECDSA-" in said and ("GCM" in said or "CHACHA20" in said), "what it speaks is TLS 1.2 with an AEAD suite")
    else:
        good, said = shake_hands(site, "-tls1_3")
        site.ok(good and "TLSv1.3, Cipher is TLS_" in said, "the ports for other gateways speak TLS 1.3")
        before = refused(site)
        good, said = shake_hands(site, "-tls1_2")
        site.ok(not good and "protocol version" in said, "who speaks 1.2 at most is refused")
        wait_until("it to be counted", lambda: refused(site) > before, 20)
        site.ok("GREY-3241" in open(site.path("node1.log")).read(), "counted, and named in the log: GREY-3241")
    a = request(site.http[site.leader()], "POST", "/v1/events", json.dumps({"type": "reading", "data": {"c": 21}}), {"Content-Type": "application/json"})
    site.ok(a.status == 201, "the site takes an event")
    site.wait_drained()
    site.ok(True, "and it reaches the core")
    site.kill("broker")
    site.start_broker()
    wait_until("the link", lambda: site.link(site.leader())["up"], 90)
    site.ok(True, "the link comes back after the broker was gone")


    core(site)


def handshake(port, version):
    r = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, version], input="", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return "Cipher is (NONE)" not in r.stdout and "Verify return code" in r.stdout


def core(site):
    """The same word at the core: API and where gateways enrol."""
    api, enrol = free_ports(2)
    words = ["--data-dir", site.path("strict-core"), "--ca-dir", site.ca, "--http-addr", "127.0.0.1:%d" % api, "--http-tls-cert", site.ca + "/core.crt", "--http-tls-key", site.ca + "/core.key",
             "--enroll-addr", "127.0.0.1:%d" % enrol, "--broker", "mqtts://localhost:%d" % site.broker_port, "--tls-ca", site.ca + "/ca.crt", "--tls-cert", site.ca + "/core.crt",
             "--tls-key", site.ca + "/core.key", "--client-id", "strict", "--tls-min-version"]
    wrong = subprocess.run(program("grey-core") + words + ["1.1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    site.ok(wrong.returncode == 2 and "1.2 or 1.3" in wrong.stdout, "a core that is told to take TLS 1.1 does not start")
    if site.start_refused is not None:
        strict = subprocess.run(program("grey-core") + words + ["1.3"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
        site.ok(strict.returncode == 1 and "GREY-3240" in strict.stdout and "->" in strict.stdout, "nor one of this build that is to take 1.3 only: GREY-3240, with a remedy")
        return
    site.spawn("strict", program("grey-core") + words + ["1.3"])
    wait_until("the core", lambda: handshake(api, "-tls1_3") and handshake(enrol, "-tls1_3"), 30)
    site.ok(not handshake(api, "-tls1_2") and not handshake(enrol, "-tls1_2"), "a core that takes 1.3 only refuses 1.2, at its API and where gateways enrol")


run_test(test, Strict)
