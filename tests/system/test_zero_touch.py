#!/usr/bin/env python3
"""A board comes in by its TPM, which was registered before, and nobody else by that registration: if this failed, boards shipped without a token would stay outside, or whoever copies a
certificate, which is no secret, would be in the site."""
import hashlib
from harness import *
from stub_site import Bench


class Factory(Bench):
    def __init__(self, **options):
        super().__init__(enroll=True, **options)

    def start(self):
        self.boards = [self.tpm(), self.tpm(), self.tpm(1)]
        self.makers[0].roots(self.path("makers.pem"))
        self.core_extra = ["--attest-roots", self.path("makers.pem")]
        self.start_broker()
        self.start_core()
        wait_until("the core", lambda: request(self.core_port, "GET", "/health/ready").status == 200, 60)


def ek(tpm):
    """SHA-256 of its endorsement certificate, as grey-tpm shows it."""
    out = tpm.run(b"", "status").decode()
    return next(word for word in out.replace("\n", " ").split() if len(word) == 64 and all(c in "0123456789abcdef" for c in word))


def come_in(site, tpm, folder, *words):
    command = [os.path.join(BUILD, "greyd"), "enroll", "--core", "https://localhost:%d" % site.enroll_port, "--root", site.root, "--tpm", tpm.way, "--config", "", "--dir",
               site.path(folder)] + list(words)
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def count(site, reason):
    return [float(l.split()[-1]) for l in request(site.core_port, "GET", "/metrics").body.decode().splitlines() if l.startswith("grey_core_tpm_enroll_refused_total") and reason in l][0]


def refused(site, done, number, reason, text):
    site.ok(done.returncode == 1 and number in done.stderr and (not reason or count(site, reason) >= 1), "%s: %s%s" % (text, number, ", counted as " + reason if reason else ""))
    if number not in done.stderr:
        print("# " + done.stderr)


def test(site):
    first, second, foreign = site.boards
    site.root = subprocess.run("openssl x509 -in %s/root.crt -outform DER | sha256sum | cut -c1-64" % site.ca, shell=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    refused(site, come_in(site, first, "a"), "GREY-3011", "unregistered", "a board that nobody registered")
    der = subprocess.run(["tpm2_nvread", "-T", first.way, "0x1c00002"], stdout=subprocess.PIPE, check=True).stdout
    with open(site.path("ek.der"), "wb") as f:
        f.write(der)
    site.ok(hashlib.sha256(der).hexdigest() == ek(first), "the certificate in the TPM is the one that grey-tpm names")
    site.ok(site.ctl("enroll", "register", "--ek", site.path("ek.der"), "--site", SITE, "--node", "7").returncode == 0, "an operator registers a board by its certificate")
    site.ok(site.ctl("enroll", "register", "--ek", ek(foreign), "--site", SITE, "--node", "8").returncode == 0, "and one by SHA-256")
    listed = site.ctl("enroll", "registered").stdout
    site.ok(ek(first) in listed and ek(foreign) in listed, "both are listed")
    done = come_in(site, first, "a")
    site.ok(done.returncode == 0 and "node '7' of site '%s'" % SITE in done.stdout, "the board comes in under the name that was registered")
    text = subprocess.run(["openssl", "x509", "-in", site.path("a", "node.crt"), "-noout", "-text"], stdout=subprocess.PIPE, text=True).stdout
    site.ok("URI:grey://%s/7" % SITE in text and all(os.path.exists(site.path("a", f)) for f in ("ca.crt", "core-sign.pub")), "with a certificate that says so")
    site.ok(come_in(site, first, "a").returncode == 0, "asking again does no harm")
    site.ok(subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--dir", site.path("a")], stdout=subprocess.PIPE, stderr=subprocess.PIPE).returncode == 0, "and it renews as others do")
    refused(site, come_in(site, second, "b"), "GREY-3011", "unregistered", "another board of the same maker")
    refused(site, come_in(site, foreign, "c"), "GREY-3205", "endorsement", "a registered board of a maker that nobody trusts")
    refused(site, come_in(site, first, "d", "--node", "9"), "GREY-3014", "", "a board that wants another name")

    # Who has the certificate only, and another TPM, cannot open the challenge.
    order = b"\x88\x01\x01\x61s\x61n\x00\x58\x20" + bytes(32) + b"\x58\x20" + bytes(32) + b"\x40"
    stolen = json.dumps({"introduction": first.run(order, "introduce").hex()})
    answer = subprocess.run(["curl", "-sk", "-d", stolen, "https://127.0.0.1:%d/v1/enroll/tpm" % site.enroll_port], stdout=subprocess.PIPE, text=True, timeout=30).stdout
    challenge = bytes.fromhex(json.loads(answer)["challenge"])
    try:
        opened = second.run(challenge, "activate")
    except RuntimeError:
        opened = None
    site.ok(opened is None, "another TPM does not open what was made for this one")
    tokens = [t for t in json.loads(request(site.core_port, "GET", "/v1/enroll/tokens").body) if t["used"] == 0]
    site.ok(len(tokens) == 1, "and one unused token at most is left of any number of questions")
    for body in ('{"introduction":"zz"}', '{"introduction":""}', "[]", '{"introduction":"%s"}' % ("00" * 7000), "x" * 40000):
        status = subprocess.run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-d", body, "https://127.0.0.1:%d/v1/enroll/tpm" % site.enroll_port], stdout=subprocess.PIPE, text=True, timeout=30).stdout
        site.ok(status in ("400", "413"), "%.20s...: refused (%s)" % (body, status))
    # The secret is for the registered name alone, whatever the request says.
    folder = site.path("e")
    subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--request", "--site", SITE, "--node", "9", "--dir", folder], check=True, stdout=subprocess.DEVNULL)
    secret = hashlib.sha256(b"grey-enrol-by-tpm-1\0" + first.run(challenge, "activate")).hexdigest()[:32]
    wish = json.dumps({"token": secret, "csr": open(folder + "/node.csr").read()})
    answer = subprocess.run(["curl", "-sk", "-d", wish, "https://127.0.0.1:%d/v1/enroll" % site.enroll_port], stdout=subprocess.PIPE, text=True, timeout=30).stdout
    site.ok("GREY-3014" in answer, "the token of a TPM is for the gateway that was registered alone: GREY-3014")

    site.ok(site.ctl("enroll", "unregister", ek(first)).returncode == 0 and site.ctl("enroll", "unregister", ek(first)).returncode != 0, "an operator takes the registration back")
    refused(site, come_in(site, first, "f"), "GREY-3011", "unregistered", "then the board stays outside")
    site.kill("core", signal.SIGTERM)
    site.ok(site.processes["core"].returncode == 0, "the core ends in order")


run_test(test, Factory)
