#!/usr/bin/env python3
"""A gateway that was tampered with would go on leading its site and speaking for it to the core, or a good one would be shut out: three gateways
with a TPM each become trusted; one is changed, and is found, left and let in again, while the site goes on, also without its core."""
from tpms import *

ALL_TRUSTED = {1: "trusted", 2: "trusted", 3: "trusted"}


def entries(site, n):
    """What the trail of the site says of verdicts."""
    return [e for e in request(site.http[n], "GET", "/v1/audit?limit=1000&type=verdict").json()["entries"]]


def test(site):
    site.wait_words(ALL_TRUSTED)
    site.ok(True, "three gateways become trusted by themselves, and each of them knows it")
    made = [(e["node"], e["verdict"]) for e in entries(site, 1)]
    site.ok(sorted(made) == [("1", "trusted"), ("2", "trusted"), ("3", "trusted")], "the trail has one verdict for each: %s" % made)
    judged = wait_until("results beyond the first", lambda: [m for m in [request(site.http[site.leader()], "GET", "/metrics").body.decode()]
                        if sum(float(l.split()[1]) for l in m.splitlines() if l.startswith('grey_attestation_results_total{result="trusted"}')) >= 6])
    site.ok(len(entries(site, 1)) == 3, "more attestations with the same result make no entries")
    site.ok([l for l in judged[0].splitlines() if l.startswith("grey_attestation_expiry_seconds ") and float(l.split()[1]) > 0], "metrics tell how long the result holds")

    a = site.learn(False)
    site.ok(a.status == 200 and a.json()["values"] > 0, "what was learnt is the policy from now on: %s" % a.body.decode())
    site.wait_words(ALL_TRUSTED)

    # Somebody tampers with the gateway that leads.
    bad = site.leader()
    good = [n for n in site.nodes if n != bad]
    began = time.monotonic()
    site.extend(bad, 4)
    wait_until("the quarantine", lambda: all(site.members(n)[bad]["state"] == "quarantined" for n in good), 60)
    took = time.monotonic() - began
    wait_until("all to know it", lambda: all(site.words(n)[bad] == "failed" for n in site.nodes))
    site.ok(True, "the changed gateway is found (%.1f s, period %d s), and all gateways know it" % (took, PERIOD))
    new = site.leader(among=good)
    site.ok(new != bad, "it does not lead any more: gateway %d does" % new)
    wait_until("its vote to be gone", lambda: site.members(new)[bad]["kind"] == "learner", 60)
    a = request(site.http[new], "PUT", "/v1/kv/during", "x")
    site.ok(a.status in (200, 201), "the site goes on without its vote")
    status = site.ctl("status", node=new).stdout.splitlines()[0]
    site.ok(status.startswith("DEGRADED") and "in quarantine: %d" % bad in status, "greyctl status says so: " + status)
    shown = site.ctl("attest", "status", node=new).stdout
    site.ok("GREY-3217" in shown and "->" in shown, "greyctl attest status says why, and what to do")
    doctor = site.ctl("doctor", node=new)
    site.ok("in quarantine" in doctor.stdout and doctor.returncode == 2, "so does greyctl doctor")
    site.kill("node%d" % new, signal.SIGKILL)
    site.restart("node%d" % new)
    wait_until("the others to lead again", lambda: site.leader(among=good), 60)
    site.ok(site.status(bad)["role"] != "leader", "it does not lead when the leader falls")
    site.wait_words({n: "failed" if n == bad else "trusted" for n in site.nodes})

    # The way back: the operator looks, and takes it as it is.
    a = site.learn(True)
    site.ok(a.status == 200, "the policy learns again")
    site.wait_words(ALL_TRUSTED)
    site.wait_voters()
    wait_until("it to be well", lambda: site.members(site.leader())[bad]["state"] == "healthy")
    site.ok(True, "the gateway is trusted, votes and works again")

    # Another program in the place of the agent; the way back is a restart of the machine with the right one.
    site.learn(False)
    swapped = [n for n in good if n != site.leader()][0]
    other = site.path("another")
    with open(program("greyd")[-1], "rb") as of, open(other, "wb") as to:
        to.write(of.read() + b"x")
    os.chmod(other, 0o755)
    site.kill("node%d" % swapped, signal.SIGTERM)
    site.start_node(swapped, other=other)
    wait_until("the other program to be found", lambda: site.members(site.leader())[swapped]["state"] == "quarantined", 60)
    site.ok(True, "a gateway that was started with another program is in quarantine")
    site.power_off(swapped)
    site.power_on(swapped)
    site.start_node(swapped)
    site.wait_words(ALL_TRUSTED)
    site.wait_voters()
    site.ok(True, "with the right one, after a restart of the machine, it is trusted and votes again")

    # Without the core, and after a restart, peers still know whom to trust.
    site.kill("core")
    site.kill("broker")
    for n in site.nodes:
        site.kill("node%d" % n)
    for n in site.nodes:
        site.start_node(n)
    site.wait_voters()
    site.wait_words(ALL_TRUSTED)
    site.ok(True, "verdicts outlive a restart of all gateways while the core is away")


run_test(test, TpmSite)
