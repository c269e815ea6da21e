#!/usr/bin/env python3
"""A real core judges gateways with real (software) TPMs over a real broker, and somebody tries everything: if one of these passed, a stolen, copied or changed gateway would be
trusted; if a genuine one were refused, a site would stand in quarantine for nothing."""
import re
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from harness import *
from stub_site import *

FORMAT, TYPE, NONCE, IDENTITY, ENDORSEMENT, UNPROVEN, BINDING, BOOT_LOG, REFERENCE = 3201, 3202, 3203, 3204, 3205, 3207, 3210, 3215, 3217
BODY_BYTES_MAX = 256 * 1024 + 64 * 1024 + 4096 + 2048 + 512 + 128


class Attacked(Bench):
    def __init__(self, **options):
        super().__init__(**options)
        self.makers.append(Authority())  # of virtual TPMs, beside those of chips and a stranger

    def start(self):
        first = self.tpm()
        self.makers[0].roots(self.path("makers.pem"))
        self.virtual = self.tpm(2)
        self.makers[2].roots(self.path("virtual.pem"))
        self.core_extra = ["--attest-roots", self.path("makers.pem"), "--attest-vtpm-roots", self.path("virtual.pem"), "--attest", "learn", "--ca-dir", self.ca]
        self.start_broker()
        for number in range(1, len(self.core_ports) + 1):
            self.start_core(number)
        for port in self.core_ports:
            wait_until("the core", lambda: request(port, "GET", "/health/ready").status == 200, 60)
        prefix = self.path("node1", "node")
        self.link = Link(self.broker_port, SITE, self.ca + "/ca.crt", prefix + ".crt", prefix + ".key")
        self.gateway = Gateway(self.link, "1", first)

    def metric(self, name, label=""):
        return sum(float(line.split()[-1]) for port in self.core_ports for line in request(port, "GET", "/metrics").body.decode().splitlines()
                   if line.startswith(name) and label in line)

    def refused(self, answer, number, label, text):
        """The answer was this error, and it was counted."""
        got, count = refusal(answer), self.metric("grey_core_attest_refused_total", '"%s"' % label)
        before, self.counted[label] = self.counted.get(label, 0), count
        self.ok(got == number and count == before + 1, "%s: GREY-%s, counted as %s (%d)" % (text, got, label, count))

    counted = {}


def result_holds(site, body):
    """The signature of a result, by the key that sites know as federation.upstream.core_key."""
    with open(site.ca + "/core-sign.pub") as f:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(re.search(r"[0-9a-f]{64}", f.read()).group(0)))
    header, _, payload, signature = get(body)[0]
    try:
        key.verify(signature, put(["Signature1", header, b"", payload]))
        return b"grey/attestation-result" in header
    except Exception:
        return False


def shown(site, node="1"):
    return request(site.core_port, "GET", "/v1/attestations/%s/%s" % (SITE, node)).json()


def genuine(site):
    g = site.gateway
    codings = site.link.hello()
    site.ok(codings is not None and codings & CODING_ATTEST, "the welcome says that this core judges gateways (codings %s)" % codings)
    word, body = g.attest()
    site.ok(word == RESULT and result_holds(site, body), "a gateway with a genuine TPM gets a result, signed with the key that sites know")
    state = shown(site)
    site.ok(state["state"] == "trusted" and state["type"] == "tpm2" and len(state["program"]) == 64, "and the core shows it: %s" % state["state"])
    listed = request(site.core_port, "GET", "/v1/sites").json()[0]
    site.ok(listed["attestation"] == "trusted" and listed["attested_nodes"] == 1, "the list of sites too")
    word, body = g.say(ASK, g.order())
    site.ok(word == INQUIRY and g.say(EVIDENCE, g.evidence(body))[0] == RESULT, "the second time it need not introduce itself")
    site.ok("trusted" in site.ctl("attest", "list").stdout and "register 7" in site.ctl("attest", "show", SITE, "1").stdout, "greyctl shows it")


def forged(site):
    g, other = site.gateway, site.tpm()
    inquiry = g.inquiry()[1]
    old = g.evidence(inquiry)
    site.ok(g.say(EVIDENCE, old)[0] == RESULT, "one more genuine quote, to be misused")
    site.refused(g.say(EVIDENCE, old), NONCE, "nonce", "a quote replayed when nothing is asked")
    inquiry = g.inquiry()[1]
    site.refused(g.say(EVIDENCE, old), NONCE, "nonce", "a quote replayed for another question")
    site.refused(g.say(EVIDENCE, g.evidence(inquiry)), NONCE, "nonce", "the right answer after a wrong one")
    version, nonce, registers, known = get(g.inquiry()[1])[0]
    site.refused(g.say(EVIDENCE, g.evidence(put([version, bytes(32), registers, known]))), NONCE, "nonce", "a quote over a nonce of one's own")
    inquiry = g.inquiry()[1]
    version, statement, quote, signature = get(g.evidence(inquiry))[0]
    changed = bytearray(statement)
    changed[statement.index(b"\x58\x20", statement.index(b"\x58\x22")) + 5] ^= 1  # the first register, behind the name of the key
    site.refused(g.say(EVIDENCE, put([version, bytes(changed), quote, signature])), BINDING, "binding", "a register's value changed beside the quote")
    inquiry = g.inquiry()[1]
    version, statement, quote, signature = get(g.evidence(inquiry))[0]
    site.refused(g.say(EVIDENCE, put([version, statement, quote, signature[:-1] + bytes([signature[-1] ^ 1])])), 3208, "signature", "a bit of the signature flipped")
    other.run(g.order(), "introduce")
    site.refused(g.say(EVIDENCE, g.evidence(g.inquiry()[1], other)), UNPROVEN, "unproven", "a quote by the key of another TPM: the disk was put into another machine")
    site.ok(shown(site)["state"] == "failed" and shown(site)["why"] == "GREY-3207", "the core shows the gateway as failed, and why")
    mine = get(g.tpm.run(g.order(), "introduce"))[0]
    theirs = get(other.run(g.order(), "introduce"))[0]
    word, challenge = g.say(INTRODUCTION, put(mine[:8] + [theirs[8]]))
    stolen = g.tpm.run  # this TPM does not open what was made for the other's key
    try:
        secret = stolen(challenge, "activate")
    except RuntimeError:
        secret = bytes(32)
    site.refused(g.say(SECRET, secret), UNPROVEN, "unproven", "one TPM's certificate with another one's key: the challenge is not met")
    thief = Gateway(site.link, "1", other)
    site.refused(thief.introduce(), IDENTITY, "identity", "another genuine TPM under the same name")
    stranger = Gateway(site.link, "2", site.tpm(1), 78)
    site.refused(stranger.introduce(), ENDORSEMENT, "endorsement", "a TPM by a maker that nobody trusts")
    site.refused(g.say(ASK, g.order(node="3")), IDENTITY, "identity", "a word for another gateway")
    site.refused(g.say(ASK, g.order(kind=0)), TYPE, "type", "a gateway with a TPM that says it has none")
    site.ok(g.attest()[0] == RESULT and shown(site)["state"] == "trusted", "after all that the genuine one is trusted again")


def malformed(site):
    g = site.gateway
    for name, body in (("no bytes", b""), ("noise", os.urandom(500)), ("300 KiB of noise", os.urandom(300 * 1024)), ("half a quote", g.evidence(put([1, bytes(32), 0x40ff, False]))[:400])):
        g.inquiry()
        site.refused(g.say(EVIDENCE, body), FORMAT, "format", "%s as evidence" % name)
    site.refused(g.say(ASK, b"\x9f\x01"), FORMAT, "format", "a wish that is no CBOR")
    dropped = site.metric("grey_core_attest_dropped_total", "message")
    site.ok(g.say(EVIDENCE, bytes(BODY_BYTES_MAX * 2), 2) is None and g.say(RESULT, b"x", 2) is None, "what is too large, or what only the core says, is not answered")
    wait_until("both to be dropped", lambda: site.metric("grey_core_attest_dropped_total", "message") >= dropped + 2)
    site.ok(site.metric("grey_core_attest_dropped_total", "message") == dropped + 2, "but counted")
    for word in list(range(10)) * 10:
        site.link.say([UP_ATTEST, "9", word, bytes(2000)])
    wait_until("words to be dropped", lambda: site.metric("grey_core_attest_dropped_total") > 40, 60)
    site.ok(len(request(site.core_port, "GET", "/v1/attestations").json()) <= 2, "a flood of words leaves nothing of a gateway that was never there")
    site.ok(site.gateway.attest()[0] == RESULT, "and others are heard")


def virtual(site):
    """The same words and the same judge, other roots; and a maker that becomes trusted while the core runs."""
    v = Gateway(site.link, "7", site.virtual, 70, 2)
    site.ok(v.attest()[0] == RESULT and shown(site, "7")["type"] == "vtpm", "a virtual TPM is trusted by its own roots, and shown as what it is")
    site.refused(v.say(ASK, v.order(kind=1)), TYPE, "type", "it does not become a chip")
    site.refused(Gateway(site.link, "8", site.virtual, 71).introduce(), ENDORSEMENT, "endorsement", "nor does another gateway's that says it is one")
    late = Gateway(site.link, "9", site.tpm(1), 72)
    site.refused(late.introduce(), ENDORSEMENT, "endorsement", "a maker's TPM that nobody trusts yet")
    with open(site.path("makers.pem"), "a") as f:
        f.write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    site.kill("core", signal.SIGHUP)
    wait_until("the damaged file to be refused", lambda: site.metric("grey_core_attest_makers_read_total", '"refused"') >= 1, 30)  # the core looks each minute as well
    with open(site.path("core.log")) as f:
        site.ok("makers.pem" in f.read(), "a file of makers that was damaged is named, and those of before go on")
    site.ok(site.gateway.attest()[0] == RESULT, "so that others are judged as they were")
    for maker in (0, 1):
        site.makers[maker].roots(site.path("roots%d" % maker))
    with open(site.path("makers.pem"), "w") as f:
        f.write("".join(open(site.path("roots%d" % maker)).read() for maker in (0, 1)))
    site.kill("core", signal.SIGHUP)
    wait_until("the makers to be read", lambda: site.metric("grey_core_attest_makers_read_total", '"read"') >= 1, 30)
    site.ok(late.attest()[0] == RESULT, "a maker that is added is trusted without a restart of the core")
    for node in ("7", "9"):
        site.ctl("attest", "forget", SITE, node)


def changed(site):
    g = site.gateway
    learnt = site.ctl("attest", "policy", "enforce")
    site.ok(learnt.returncode == 0 and " values are accepted" in learnt.stdout, "the operator ends learning: %s" % learnt.stdout.strip())
    text = site.ctl("attest", "policy", "show").stdout
    site.ok("learn: false" in text and shown(site)["program"] in text, "the policy names what the gateway runs")
    site.ok(g.attest()[0] == RESULT, "which is trusted by that")
    g.tpm.extend(4)
    site.refused(g.attest(), BOOT_LOG, "boot-log", "a register that was changed after enrolment: no boot led to that")
    site.refused(g.attest(), REFERENCE, "reference", "and it stays refused, for the value is not the one that was learnt")
    site.ok(shown(site)["state"] == "failed" and request(site.core_port, "GET", "/v1/sites").json()[0]["attestation"] == "failed", "gateway and site are shown as failed")
    page = request(site.core_port, "GET", "/").body.decode()
    site.ok("failed (1 of 1)" in page, "on the page too")
    wrong = site.ctl("attest", "policy", "set", "-", stdin="types: [tpm2]\nregister: [4]\n")
    site.ok(wrong.returncode != 0 and "line 2" in wrong.stderr and "register" in wrong.stderr, "a policy with a fault is refused, with its place")
    site.ok(site.ctl("attest", "policy", "set", "-", stdin=text.replace("learn: false", "learn: true")).returncode == 0 and g.attest()[0] == RESULT,
            "the operator looks, takes it as it is, and the gateway is back")


def staged(site):
    """A policy that good gateways do not meet stops at the first site that it reaches."""
    def rollout():
        return request(site.core_port, "GET", "/v1/rollouts/grey-attestation?kind=policy").json()

    def hold(link, version):
        link.say([69, 7, 1, [[2, "grey-attestation", version, held["issue"], 1]]])
    prefix = site.path("other")
    site.identity(site.ca, "other-site", 1, prefix)
    other = Link(site.broker_port, "other-site", site.ca + "/ca.crt", prefix + ".crt", prefix + ".key")
    other.hello()
    second = Gateway(other, "1", site.tpms[2], 90)
    site.ok(second.attest()[0] == RESULT and site.gateway.attest()[0] == RESULT, "gateways of two sites are trusted")
    site.ok(site.ctl("attest", "policy", "enforce").returncode == 0, "learning ends")
    good = site.ctl("attest", "policy", "show").stdout
    held = [p for p in request(site.core_port, "GET", "/v1/policies").json() if p["name"] == "grey-attestation"][0]
    for link in (site.link, other):
        hold(link, held["version"])
    site.ok(second.attest()[0] == RESULT and site.gateway.attest()[0] == RESULT, "they are by what was learnt, too")
    site.ok(site.ctl("site", "label", SITE, "ring=canary").returncode == 0 and
            site.ctl("config", "rollout", "grey-attestation", "ring=canary:3600", "--kind", "policy").returncode == 0, "one site is to have new policies first")
    strict = good.replace("values:", "values:\n  - {register: 7, sha256: \"%s\"}" % ("77" * 32))
    site.ok(site.ctl("attest", "policy", "set", "-", stdin=strict).returncode == 0 and rollout()["state"] == "running", "a policy with a wrong value is given")
    held = [p for p in request(site.core_port, "GET", "/v1/policies").json() if p["name"] == "grey-attestation"][0]
    hold(site.link, held["version"])
    site.ok(second.attest()[0] == RESULT, "the other site is judged by the one before")
    site.refused(site.gateway.attest(), REFERENCE, "reference", "a good gateway of the first fails by it")
    wait_until("the rollout to go back", lambda: rollout()["state"] == "rolled-back", 30)
    site.ok(site.gateway.attest()[0] == RESULT and second.attest()[0] == RESULT, "which takes the policy back: both are trusted")
    other.close()
    site.ok(site.ctl("config", "rollout", "grey-attestation", "none", "--kind", "policy").returncode == 0 and site.ctl("attest", "policy", "learn").returncode == 0,
            "the operator begins anew")
    site.ok(site.gateway.attest()[0] == RESULT, "and the gateway goes on")


def replaced(site):
    g, new = site.gateway, Gateway(site.link, "1", site.tpms[2])
    site.refused(new.introduce(), IDENTITY, "identity", "a board with another TPM")
    site.ok(site.ctl("enroll", "register", "--ek", "00" * 32, "--site", SITE, "--node", "3").returncode == 0, "for another gateway an operator registers a board")
    site.refused(Gateway(site.link, "3", new.tpm, 79).introduce(), IDENTITY, "identity", "whose place no other TPM takes")
    site.ok(site.ctl("attest", "forget", SITE, "1").returncode == 0 and site.ctl("attest", "forget", SITE, "1").returncode != 0, "until an operator forgets the old one")
    site.ok(new.attest()[0] == RESULT and shown(site)["state"] == "trusted", "then it may come in")
    site.refused(g.say(INTRODUCTION, g.tpm.run(g.order(), "introduce")), IDENTITY, "identity", "and the old one may not come back")
    site.gateway = new


def revoked(site):
    g, folder = Gateway(site.link, "5", site.tpms[0], 80), site.path("five")
    subprocess.run([os.path.join(BUILD, "greyd"), "enroll", "--request", "--site", SITE, "--node", "5", "--dir", folder], check=True, stdout=subprocess.DEVNULL)
    with open(folder + "/node.csr") as f:
        wish = {"csr": f.read(), "token": site.token().split(":")[2]}
    site.ok(request(site.core_port, "POST", "/v1/enroll", json.dumps(wish).encode()).status == 201 and g.attest()[0] == RESULT, "a gateway that enrolled here is trusted")
    site.ok(site.ctl("enroll", "revoke", SITE, "5").returncode == 0, "an operator shuts it out")
    site.refused(g.say(ASK, g.order()), 3018, "other", "whatever it says from then on")
    site.ok(shown(site, "5")["why"] == "GREY-3018", "and the core shows why")


def restarted(site):
    """What is known of gateways is in the store alone."""
    word, inquiry = site.gateway.inquiry()
    site.kill("core", signal.SIGKILL)
    site.start_core()
    wait_until("the core", lambda: request(site.core_port, "GET", "/health/ready").status == 200, 60)
    wait_until("a welcome", lambda: site.link.hello(), 60)
    site.ok(word == INQUIRY and site.gateway.say(EVIDENCE, site.gateway.evidence(inquiry))[0] == RESULT, "a question that was out before the core was killed may be answered after")
    inquiry = site.gateway.inquiry()[1]
    site.link.say([UP_ATTEST, "1", EVIDENCE, site.gateway.evidence(inquiry)])
    site.kill("core", signal.SIGTERM)
    site.ok(site.processes["core"].returncode == 0, "and a core that is stopped while it judges ends in order")


def test(site):
    for part in (genuine, forged, malformed, virtual, changed, staged, replaced, revoked, restarted):
        part(site)


if __name__ == "__main__":
    run_test(test, Attacked)
