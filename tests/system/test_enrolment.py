#!/usr/bin/env python3
"""Enrolment: a gateway with a token gets in with a key that never left it; who has none, an old one, a used one or another site's does not,
and nobody between gateway and core can take the core's place.  If it failed, strangers would be in the site, or gateways outside."""
import re
from harness import *


def metric(site, line):
    body = request(site.core_port, "GET", "/metrics").body.decode()
    return int(re.search(re.escape(line) + r" (\d+)", body).group(1))


def refused(site, reason):
    return metric(site, 'grey_core_enroll_refused_total{reason="%s"}' % reason)


def attempt(site, what, id, reason, *args):
    """One enrolment that must be refused, with its name and counted."""
    before = refused(site, reason) if reason else None
    r = site.enrol(*args)
    site.ok(r.returncode == 1 and id in r.stderr and "->" in r.stderr, "%s: refused with %s and a remedy" % (what, id))
    if reason:
        site.ok(refused(site, reason) == before + 1, "%s: counted as '%s'" % (what, reason))
    elif r.returncode != 1 or id not in r.stderr:
        print("# " + r.stderr)


def openssl(*words):
    return subprocess.run(["openssl"] + list(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, input="", text=True, timeout=30).stdout


def held_by_core(site):
    held = open(site.path("core.log"), "rb").read()
    paths = [os.path.join(d, f) for top in (site.path("core"), site.ca) for d, _, files in os.walk(top) for f in files]
    for path in [p for p in paths if os.path.isfile(p)]:
        try:
            with open(path, "rb") as f:
                held += f.read()
        except FileNotFoundError:  # a file that was only there until it took its place
            pass
    return held


def fresh(site):
    site.count = getattr(site, "count", 0) + 1
    return site.path("try%d" % site.count)


def test(site):
    # The site that runs came in by one token for three; what it has is its own.
    for n in site.nodes:
        site.ok(os.stat(site.path("node%d" % n, "node.key")).st_mode & 0o777 == 0o600, "gateway %d: its key is 0600" % n)
    keys = {open(site.path("node%d" % n, "node.key")).read() for n in site.nodes}
    everything = held_by_core(site)
    site.ok(len(keys) == 3 and all(k.splitlines()[1].encode() not in everything for k in keys), "each made its own key, and the core has none of them")
    text = openssl("x509", "-in", site.path("node1", "node.crt"), "-noout", "-text")
    site.ok("URI:grey://%s/1, URI:urn:grey:role:gateway" % SITE in text and "CN = %s" % SITE in text, "the certificate says site, node and role")
    listed = site.ctl("enroll", "certificates", "--site", SITE).stdout
    site.ok(all("\n%s  %d " % (SITE, n) in listed for n in site.nodes), "'greyctl enroll certificates' lists the three")

    token = site.token("--nodes", "1", "--ttl", "10m")
    stored = held_by_core(site)
    site.ok(token.split(":")[2].encode() not in stored and bytes.fromhex(token.split(":")[2]) not in stored, "the core keeps no token, only its hash")
    one = fresh(site)
    first = site.enrol("4", token, one)
    site.ok(first.returncode == 0, "a token lets a gateway in")
    crt = open(one + "/node.crt").read()
    again = site.enrol("4", token, one)
    site.ok(again.returncode == 0 and open(one + "/node.crt").read() == crt, "the same gateway may ask again, as after a lost answer, and gets the same")
    os.unlink(one + "/node.crt")
    site.ok(subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--dir", one], stdout=subprocess.PIPE, stderr=subprocess.PIPE).returncode == 1, "without its certificate it cannot renew")
    site.ok(site.enrol("4", token, one).returncode == 0 and open(one + "/node.crt").read() == crt, "but asks with the token again")
    renewed = subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--dir", one], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    site.ok(renewed.returncode == 0 and open(one + "/node.crt").read() == crt, "renewal too early gives what is there")

    attempt(site, "a token used twice", "GREY-3012", "used", "5", token, fresh(site))
    attempt(site, "an invented token", "GREY-3011", "unknown", "5", token.replace(token.split(":")[2], "0" * 32), fresh(site))
    attempt(site, "a token that was cut", "GREY-3011", None, "5", token[:-9], fresh(site))
    attempt(site, "a token of another site", "GREY-3014", "site", "5", site.token(site="other-site").replace("grey1:other-site:", "grey1:%s:" % SITE), fresh(site))
    short = site.token("--ttl", "1s")
    time.sleep(1.5)
    attempt(site, "a token that has expired", "GREY-3013", "expired", "5", short, fresh(site))
    ended = site.token("--nodes", "2")
    number = [l.split()[0] for l in site.ctl("enroll", "list").stdout.splitlines() if l.split()[1:4] == [SITE, "2", "0"]][0]
    site.ok(site.ctl("enroll", "end", number).returncode == 0, "an operator ends a token")
    attempt(site, "a token that was ended", "GREY-3013", "expired", "5", ended, fresh(site))
    two = site.token("--nodes", "2")
    site.ok(site.enrol("6", two, fresh(site)).returncode == 0, "a token for two lets one in")
    attempt(site, "a second gateway of the same name", "GREY-3015", "name", "6", two, fresh(site))
    site.ok(site.ctl("enroll", "token", "--site", "grey-core").returncode != 0, "no token for a site that would speak as the core")

    # Somebody else answers at the core's address.
    wrong = token[:-64] + "ab" * 32
    attempt(site, "a core of another CA", "GREY-3017", None, "5", wrong, fresh(site))
    site.tool("ca", "init", "--dir", site.path("ca2"))
    site.tool("ca", "core", "--dir", site.path("ca2"), "--out", site.path("evil"))
    port = free_ports(1)[0]
    for what, key, chain in (("a server of another CA", site.path("evil"), site.path("ca2") + "/ca.crt"),
                             ("a gateway that plays the core", site.path("node1", "node"), site.ca + "/ca.crt")):
        server = subprocess.Popen(["openssl", "s_server", "-accept", str(port), "-cert", key + ".crt", "-key", key + ".key", "-cert_chain", chain, "-quiet", "-tls1_2"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until("the false core", lambda: socket.create_connection(("127.0.0.1", port), 2).close() is None, 20)
            r = subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--core", "https://127.0.0.1:%d" % port, "--token", two, "--node", "7", "--config", "", "--dir", fresh(site)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
            site.ok(r.returncode == 1 and "GREY-3017" in r.stderr, "%s is found out: GREY-3017" % what)
        finally:
            server.kill()
            server.wait()
    for version in ("-tls1", "-tls1_1"):
        r = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.enroll_port, version, "-cipher", "DEFAULT:@SECLEVEL=0"], input="", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
        site.ok("alert" in r.stdout or r.returncode != 0, "downgraded to %s: refused where gateways enrol" % version[1:])

    # A request that asks for more than a gateway may have.
    def post(body):
        p = subprocess.run(["curl", "-sk", "-o", "-", "-w", "\n%{http_code}", "-d", json.dumps(body), "https://127.0.0.1:%d/v1/enroll" % site.enroll_port], stdout=subprocess.PIPE, text=True, timeout=30)
        return p.stdout.rsplit("\n", 1)
    subprocess.run(["openssl", "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", site.path("k.pem"), "-out", site.path("r.pem"), "-subj",
                    "/CN=%s/OU=8" % SITE, "-addext", "subjectAltName=URI:grey://%s/1" % SITE], check=True, stderr=subprocess.DEVNULL)
    before = refused(site, "request")
    text, status = post({"token": two.split(":")[2], "csr": open(site.path("r.pem")).read()})
    site.ok(status == "400" and "GREY-3016" in text, "a request with names of its own: GREY-3016")
    text, status = post({"token": two.split(":")[2], "csr": "x"})
    site.ok(status == "400" and refused(site, "request") == before + 2, "and no request at all; both counted")
    text, status = post({"csr": open(site.path("r.pem")).read().replace("MI", "MJ", 1)})
    site.ok(status == "400", "a damaged request likewise")
    p = subprocess.run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "https://127.0.0.1:%d/v1/enroll/tokens" % site.enroll_port], stdout=subprocess.PIPE, text=True)
    site.ok(p.stdout == "404", "tokens cannot be made or seen at the address that is open to all")

    # A gateway that lost its disk comes back with a new key and a new token; the old key is shut out.
    old = openssl("x509", "-in", one + "/node.crt", "-noout", "-serial").split("=")[1].strip()
    site.ok(site.enrol("4", site.token(), fresh(site)).returncode == 0, "a replaced gateway enrols with a new token")
    wait_until("the list", lambda: old in openssl("crl", "-in", site.ca + "/crl.pem", "-noout", "-text"))
    site.ok(True, "and what its former key had is in the list of revoked ones")
    r = subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--dir", one], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    site.ok("GREY-3018" in r.stderr, "the former key renews nothing: GREY-3018")
    site.ok(request(site.http[2], "PUT", "/v1/kv/a", "1").status == 201, "those who belong go on")


run_test(test, enroll=True)
