#!/usr/bin/env python3
"""The core's store is replaced with an older copy while gateways hold newer facts.  If this failed, an enrolment token that was used would let a
stranger in a second time, a stolen gateway that was shut out would come back, and sites would be given an older word on whom to trust and how
gateways are judged, all without anybody being told."""
import glob
from harness import *

POLICY = "types: [%s]\nregisters: [14]\nlearn: true\n"


def metric(site, line):
    for text in request(site.core_port, "GET", "/metrics").body.decode().splitlines():
        if text.startswith(line + " "):
            return int(text.split()[-1])
    return 0


def ready(site):
    wait_until("the core", lambda: request(site.core_port, "GET", "/health/ready").status == 200, 60)


def post(site, ids):
    a = request(site.http[1], "POST", "/v1/events", json.dumps([{"id": i, "source": "machine", "type": "t", "data": {}} for i in ids]))
    assert a.status == 201, (a.status, a.body)


def ids_at_core(site):
    return sorted(e["id"] for e in site.core_events() if e["source"] == "machine")


def held(site, name):
    """What the gateway has in force: its content."""
    return request(site.http[1], "GET", "/v1/policies/" + name).body


def issue(site, name):
    return ([p["issue"] for p in request(site.core_port, "GET", "/v1/policies").json() if p["name"] == name] + [0])[0]


def issue_held(site, name):
    return ([o["issue"] for o in request(site.core_port, "GET", "/v1/sites/%s/objects" % SITE).json() if o["name"] == name] + [0])[0]


def hellos(site):
    with open(site.path("core.log")) as f:
        return f.read().count("ingest hello")


def copy(site, folders, back):
    """With the core stopped: a backup of folders, or the backup in their place.  Of the core's folder only the store goes back."""
    heard = hellos(site)
    site.kill("broker", signal.SIGTERM)  # so that the site says hello when all is there again
    site.kill("core", signal.SIGTERM)
    for folder in folders:
        kept = site.path("kept-" + folder)
        if not back:
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(site.path(folder), kept)
            continue
        for path in glob.glob(site.path(folder, "core.db*")) + (glob.glob(site.path(folder, "*")) if folder == "ca" else []):
            os.unlink(path)
        for path in glob.glob(kept + "/core.db*") + (glob.glob(kept + "/*") if folder == "ca" else []):
            shutil.copy2(path, site.path(folder))
    site.start_broker()
    site.start_core()
    ready(site)
    site.try_link()
    wait_until("the site's hello", lambda: hellos(site) > heard, 60)


def refused(site, what, node, token):
    before = metric(site, 'grey_core_enroll_refused_total{reason="restored"}')
    r = site.enrol(node, token, site.path("try-" + node))
    site.ok(r.returncode == 1 and "GREY-3019" in r.stderr and "->" in r.stderr, "%s is refused with GREY-3019 and a remedy" % what)
    site.ok(metric(site, 'grey_core_enroll_refused_total{reason="restored"}') == before + 1, "and counted")


def renew(folder):
    return subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--dir", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def revoked_serials(path):
    lists = subprocess.run(["openssl", "crl", "-in", path, "-noout", "-text"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {line.split()[-1] for line in lists.splitlines() if "Serial Number" in line}


def serial(folder):
    return subprocess.run(["openssl", "x509", "-in", folder + "/node.crt", "-noout", "-serial"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip().split("=")[1]


def accepted(site):
    r = site.ctl("store", "accept")
    health = request(site.core_port, "GET", "/health").json()
    site.ok(r.returncode == 0 and "restored" not in health and metric(site, "grey_core_store_restored") == 0, "an operator accepts it: the core says so no more")


def store_alone(site):
    """The CA's directory is what it was."""
    used, unused, stolen = site.token(), site.token(), site.path("stolen")
    site.ok(site.enrol("5", site.token(), stolen).returncode == 0, "a gateway is enrolled that will be stolen")
    post(site, ["before-%d" % i for i in range(20)])
    wait_until("events at the core", lambda: len(ids_at_core(site)) == 20)
    site.wait_drained()
    copy(site, ["core"], False)
    site.ok(site.enrol("4", used, site.path("fourth")).returncode == 0, "after the backup a token is used")
    site.ok(site.ctl("enroll", "revoke", SITE, "5").returncode == 0, "and the stolen one shut out")
    post(site, ["freed-%d" % i for i in range(20)])
    wait_until("events at the core", lambda: len(ids_at_core(site)) == 40)
    site.wait_drained()
    wait_until("the list at the site", lambda: issue_held(site, "grey-trust") == issue(site, "grey-trust") > 0, 60)
    copy(site, ["core"], True)
    site.ok("GREY-3019" in open(site.path("core.log")).read(), "the older copy is found before a door opens: GREY-3019 in the log")
    health = request(site.core_port, "GET", "/health").json()
    site.ok(health["status"] == "degraded" and "GREY-3019" in health["restored"], "in its health: %s" % health["restored"])
    site.ok(metric(site, 'grey_core_store_restored_total{evidence="mark"}') == 1 and metric(site, "grey_core_store_restored") == 1, "and counted")
    site.ok("(all)" in site.ctl("store", "status").stdout and "older copy" in request(site.core_port, "GET", "/").body.decode(), "greyctl and the page say it")
    refused(site, "a stranger with the token that was used", "6", used)
    refused(site, "one with a token of before that was not", "7", unused)
    site.ok(site.enrol("6", site.token(), site.path("try-6")).returncode == 0, "a new token lets a gateway in")
    r = renew(stolen)
    site.ok(r.returncode == 1 and "GREY-3018" in r.stderr, "the stolen one gets no new certificate: GREY-3018")
    site.ok(serial(stolen) in revoked_serials(site.ca + "/crl.pem"), "and stays in the list of revoked ones")
    post(site, ["after-%d" % i for i in range(20)])
    wait_until("what the site still has", lambda: len(ids_at_core(site)) == 40, 90)
    site.ok(metric(site, 'grey_core_store_restored_total{evidence="events"}') == 1, "the site's own word on it is counted too")
    site.wait_drained()
    gaps = request(site.core_port, "GET", "/v1/sites/%s/gaps" % SITE).json()["gaps"]
    lost = sum(g["to_seq"] - g["from_seq"] + 1 for g in gaps if g["reason"] == "core-restored")
    site.ok(ids_at_core(site) == sorted("%s-%d" % (word, i) for word in ("before", "after") for i in range(20)) and lost >= 20,
            "events: each once; the %d that the site had freed are a gap that says why" % lost)
    accepted(site)
    refused(site, "the used token is so for good: a stranger with it", "8", used)


def everything(site):
    """The CA's directory was put back too: only the site remembers."""
    token = site.token()
    site.ok(site.ctl("attest", "policy", "set", "-", stdin=POLICY % "none").returncode == 0, "an attestation policy is given")
    wait_until("it at the site", lambda: b"none" in held(site, "grey-attestation"), 60)
    copy(site, ["core", "ca"], False)
    site.ok(site.ctl("attest", "policy", "set", "-", stdin=POLICY % "tpm2").returncode == 0, "after the backup a stricter one")
    wait_until("it at the site", lambda: b"tpm2" in held(site, "grey-attestation") and issue_held(site, "grey-attestation") == issue(site, "grey-attestation"), 60)
    newest = issue(site, "grey-attestation")
    copy(site, ["core", "ca"], True)
    evidence = wait_until("the site's word to count", lambda: [r for r in request(site.core_port, "GET", "/v1/store").json()["restored"] if r["site"] == SITE and r["accepted"] is None], 90)[0]
    site.ok(evidence["evidence"] in ("issue", "events"), "the site knows more than the core: %s" % evidence)
    wait_until("what the site holds at the core", lambda: issue_held(site, "grey-attestation") == newest, 60)
    site.ok(issue(site, "grey-attestation") < newest and b"tpm2" in held(site, "grey-attestation"), "the older policy does not go above the newer one: the site keeps issue %d" % newest)
    refused(site, "a token of before", "9", token)
    accepted(site)
    wait_until("the policy of the older copy", lambda: b"none" in held(site, "grey-attestation"), 90)
    site.ok(issue(site, "grey-attestation") > newest, "then it goes out again, as a later issue")


for part in (store_alone, everything):
    child = os.fork()
    if child == 0:
        run_test(part, nodes=1, enroll=True)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)
