#!/usr/bin/env python3
"""Strangers: who has no certificate, another site's, or another cluster's must not get in, and must not stop those who belong."""
from harness import *


def publish(site, prefix, topic, *more):
    command = ["mosquitto_pub", "-V", "5", "-h", "127.0.0.1", "-p", str(site.broker_port), "--cafile", site.ca + "/ca.crt", "--cert", prefix + ".crt", "--key",
               prefix + ".key", "-q", "1", "-t", topic, "-m", "x"] + list(more)
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)


def test(site):
    own = site.path("node1", "node")
    other = site.path("other")
    site.identity(site.ca, "other-site", 1, other)
    site.tool("ca", "init", "--dir", site.path("ca2"))
    site.identity(site.path("ca2"), SITE, 9, site.path("forged"))
    site.ok("not authorized" in publish(site, other, "grey/v2/%s/up/control" % SITE).stdout.lower(), "another site's certificate cannot publish on this site's topics")
    site.ok("not authorized" in publish(site, own, "grey/v2/%s/down/control" % SITE).stdout.lower(), "a gateway cannot speak for the core")
    site.ok("not authorized" in publish(site, other, "grey/v2/other-site/down/data").stdout.lower(), "not even to itself")
    site.ok(publish(site, site.path("forged"), "grey/v2/%s/up/control" % SITE).returncode != 0, "a certificate of another CA is not let in")
    plain = subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(site.broker_port), "-t", "a", "-m", "x"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    site.ok(plain.returncode != 0, "nor one without TLS")
    before = request(site.core_port, "GET", "/metrics").body.decode()
    publish(site, other, "grey/v2/other-site/up/data")
    wait_until("the core to count it", lambda: 'grey_core_refused_messages_total{reason="frame"} 1' in request(site.core_port, "GET", "/metrics").body.decode(), 20)
    site.ok("grey_core_refused_messages_total" in before, "what is no frame is counted by the core, and changes nothing")

    for what, arguments in (("no certificate", []), ("a certificate of another CA", ["-cert", site.path("forged.crt"), "-key", site.path("forged.key")])):
        r = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.peer[1], "-tls1_2"] + arguments, input=b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        site.ok(b"alert" in r.stdout or r.returncode != 0, "%s: refused at the peer port" % what)
    for data in (b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n"):
        subprocess.run(["openssl", "s_client", "-quiet", "-connect", "127.0.0.1:%d" % site.peer[1], "-tls1_2", "-cert", other + ".crt", "-key", other + ".key"], input=data,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    wait_until("both to be counted", lambda: 'grey_network_peer_refusals_total{reason="frame"} 2' in request(site.http[1], "GET", "/metrics").body.decode(), 30)
    site.ok(True, "what is no frame closes the link and is counted")

    # A gateway of another site with a good certificate asks to join.
    config = site.path("other.yaml")
    ports = free_ports(2)
    with open(config, "w") as f:
        f.write("node: {id: '1'}\nsite: {id: other-site}\nnetworking: {http_addr: '127.0.0.1:%d', peer_addr: '127.0.0.1:%d'}\nstorage: {data_dir: %s}\n" % (ports[0], ports[1], site.path("other-data")))
        f.write("security: {tls: {enabled: true, ca_cert: %s/ca.crt, cert: %s.crt, key: %s.key}}\n" % (site.ca, other, other))
    site.spawn("other", [os.path.join(BUILD, "greyd"), "--config", config, "--join", "127.0.0.1:%d" % site.peer[1]])
    wait_until("the refusal", lambda: 'grey_network_peer_refusals_total{reason="site"}' in request(site.http[1], "GET", "/metrics").body.decode()
               and ' 0' not in [l[-2:] for l in request(site.http[1], "GET", "/metrics").body.decode().splitlines() if 'refusals_total{reason="site"}' in l], 60)
    site.ok(len(site.status(1)["members"]) == 3, "a gateway of another site is refused and named: GREY-2009")
    wait_until("the reason in the log", lambda: "GREY-2009" in open(site.path("node1.log")).read(), 20)
    site.ok(True, "with the reason in the log")
    site.ok(request(site.http[2], "PUT", "/v1/kv/a", "1").status == 201, "those who belong go on")


run_test(test)
