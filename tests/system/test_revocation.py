#!/usr/bin/env python3
"""Revocation and renewal: a gateway that was stolen is shut out by broker and neighbours, also while the core is away; certificates are
renewed over the link without a restart; expired, self-signed and foreign ones open nothing.  If it failed, a thief would stay inside, or
honest gateways would drop out when their certificates end."""
import re
from harness import *


def facts(path):
    text = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-serial", "-enddate"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def metric(port, line):
    found = re.search(re.escape(line) + r" (\d+)", request(port, "GET", "/metrics").body.decode())
    return int(found.group(1)) if found else 0


def publish(site, prefix, topic="up/control"):
    r = subprocess.run(["mosquitto_pub", "-V", "5", "-h", "localhost", "-p", str(site.broker_port), "--cafile", site.ca + "/ca.crt", "--cert", prefix + ".crt", "--key", prefix + ".key", "-q", "1",
                        "-i", "stranger", "-t", "grey/v2/%s/%s" % (SITE, topic), "-m", "x"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return r.returncode == 0 and "not auth" not in r.stdout.lower()


def refused_by_peer(site, prefix, *words):
    """Shows a certificate at a gateway's port for other gateways; who gets in may write, and is told nothing is wrong until he does."""
    r = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.peer[1], "-cert", prefix + ".crt", "-key", prefix + ".key"] + (list(words) or ["-tls1_2"]), input="", stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=30)
    return "alert" in r.stdout or r.returncode != 0


REFUSALS = 'grey_network_peer_refusals_total{reason="%s"}'


def attack(site, what, prefix, reason, error, *words):
    """It does not get in; it is counted, and the log has its name.  Lines of one kind are told once in a while, so the name may be of a former one."""
    before = metric(site.http[1], REFUSALS % reason)
    site.ok(refused_by_peer(site, prefix, *words), what + ": refused by a gateway")
    wait_until(what + " to be counted", lambda: metric(site.http[1], REFUSALS % reason) > before, 20)
    site.ok(error in open(site.path("node1.log")).read(), "%s: counted as '%s', and named in the log: %s" % (what, reason, error))


def test(site):
    before = {n: facts(site.path("node%d" % n, "node.crt"))["serial"] for n in site.nodes}
    wait_until("what the core says of trust at all gateways", lambda: all(os.path.exists(site.path("node%d" % n, "data", "trust.pem")) for n in site.nodes), 60)
    site.ok(True, "all gateways have the core's word on whom to trust")

    stolen, other = site.path("stolen"), site.path("other")
    site.ok(site.enrol("4", site.token(), stolen).returncode == 0, "a fourth gateway is enrolled")
    site.ok(publish(site, stolen + "/node"), "its certificate opens the site's topics")
    site.ok(not refused_by_peer(site, stolen + "/node"), "and the ports of its neighbours")
    site.ok(not publish(site, stolen + "/node", "down/control"), "but nothing that only the core may do")
    site.ok(site.enrol("1", site.token(site="other-site"), other).returncode == 0, "a gateway of another site is enrolled")
    site.ok(not publish(site, other + "/node"), "another site's certificate does not open this site's topics")

    r = site.ctl("enroll", "revoke", SITE, "4")
    site.ok(r.returncode == 0 and "revoked 1 " in r.stdout, "an operator revokes it")
    wait_until("the broker to refuse it", lambda: not publish(site, stolen + "/node"), 40)
    site.ok(True, "the broker refuses it")
    wait_until("its neighbours to refuse it", lambda: refused_by_peer(site, stolen + "/node"), 60)
    site.ok(True, "and so do its neighbours")
    wait_until("the reason in the log", lambda: "GREY-3018" in open(site.path("node1.log")).read(), 20)
    site.ok(metric(site.http[1], REFUSALS % "revoked") > 0, "counted, and named in the log: GREY-3018")
    site.ok(site.ctl("enroll", "revoke", SITE).returncode == 2, "a whole site is not revoked by a word too few")
    site.ok(site.ctl("enroll", "revoke", SITE, "99").returncode != 0, "what was never there cannot be revoked")

    # Without the core, and after a restart, it is still known.
    site.kill("core")
    site.kill("node1")
    site.start_node(1)
    site.wait_voters()
    wait_until("gateway 1 to answer", lambda: request(site.http[1], "GET", "/health/ready").status == 200)
    site.ok(refused_by_peer(site, stolen + "/node"), "without the core, after a restart, it is still refused")

    # Others that must not get in.
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", site.path("self.key"), "-out", site.path("self.crt"), "-subj",
                    "/CN=%s" % SITE, "-addext", "subjectAltName=URI:grey://%s/2,URI:urn:grey:role:gateway" % SITE], check=True, stderr=subprocess.DEVNULL)
    folder = site.path("old.d")
    subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--request", "--site", SITE, "--node", "5", "--dir", folder], check=True, stdout=subprocess.DEVNULL)
    site.tool("ca", "sign", "--dir", site.ca, "--csr", folder + "/node.csr", "--site", SITE, "--node", "5", "--days", "30", "--out", folder + "/node.crt")
    for what, prefix in (("a self-signed certificate", site.path("self")), ("an expired certificate", folder + "/node")):
        site.ok(os.path.exists(prefix + ".crt") and not publish(site, prefix), "%s: refused by the broker" % what)
        attack(site, what, prefix, "certificate", "GREY-3002")
    member = site.path("node2", "node")
    for version in ("-tls1", "-tls1_1"):
        attack(site, "a member, downgraded to " + version[1:], member, "tls", "GREY-3241", version, "-cipher", "DEFAULT:@SECLEVEL=0")
    for suite in ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "NULL"):
        attack(site, "a member, with suite " + suite, member, "tls", "GREY-3241", "-tls1_2", "-cipher", suite + ":@SECLEVEL=0")
    attack(site, "a member, with curve P-521 alone", member, "tls", "GREY-3241", "-tls1_2", "-groups", "P-521")
    site.ok(request(site.http[2], "PUT", "/v1/kv/a", "1").status in (200, 201), "those who belong go on")
    site.ok({n: facts(site.path("node%d" % n, "node.crt"))["serial"] for n in site.nodes} == before, "and nobody renewed what is young")


    # A member of the site is revoked while its links are open.
    site.start_core()
    wait_until("the core", lambda: site.ctl("enroll", "revoke", SITE, "3").returncode == 0, 30)
    wait_until("the others to end its links", lambda: [m["state"] for m in site.status(site.leader(among=[1, 2]))["members"] if m["id"] == "3"][0] != "healthy", 60)
    site.ok(True, "links that were open when their certificate was revoked are ended")
    site.ok(request(site.http[site.leader(among=[1, 2])], "PUT", "/v1/kv/b", "1").status in (200, 201), "and the two others go on")


class OldSite(Site):
    """With a CA of 60 days ago: its first list of revoked ones is over when the broker starts, which the core has to put right."""
    tool_under = ("faketime", "-f", "-60d")


run_test(test, site_class=OldSite, enroll=True)
