#!/usr/bin/env python3
"""A gateway's keys lie in its TPM: if this failed, who takes the disk out of a gateway could be that gateway elsewhere; or one whose keys are safe
could not take part.  Three gateways with a TPM each are enrolled, form a site and reach the core with keys that no disk holds."""
from tpms import *


class KeySite(TpmSite):
    def enrol(self, n, token, folder=None, *words):
        done = super().enrol(n, token, folder, "--key", "tpm", "--tpm-socket", self.path("door%d" % n), *words)
        if done.returncode == 0 and folder is None:
            self.configure(n)
        return done

    def key_name(self, n):
        return open(self.path("node%d" % n, "key-name")).read()

    def configure(self, n, door=None):
        """With the key's name instead of a file's; door: of the machine that the disk is in."""
        self.write_config(n)
        path = self.path("node%d" % n, "greyd.yaml")
        text = open(path).read().replace(self.path("node%d" % n, "node.key"), self.key_name(n)).replace("security:", "security:\n  signing_key: tpm", 1)
        with open(path, "w") as f:
            f.write(text.replace(self.path("door%d" % n), self.path("door%d" % (door or n))))


def text_of(path):
    with open(path, "rb") as f:
        return f.read()


def on_disk(site, n):
    """All that lies on a gateway's disk."""
    paths = [os.path.join(d, name) for d, _, files in os.walk(site.path("node%d" % n)) for name in files]
    return b"".join(text_of(p) for p in paths if os.path.isfile(p))


def test(site):
    site.ok(all(site.key_name(n).startswith("tpm:") for n in site.nodes), "enrolled with keys of their TPMs: " + site.key_name(1))
    site.ok(not any(b"PRIVATE KEY" in on_disk(site, n) or b"ed25519-secret" in on_disk(site, n) for n in site.nodes), "no disk holds a private key")
    site.ok(all(text_of(site.path("node%d" % n, "data", "signer.key")).startswith(b"grey-sealed 1 ") for n in site.nodes), "the keys that sign entries are sealed")
    a = request(site.http[site.leader()], "POST", "/v1/events", json.dumps({"type": "reading", "data": {"c": 21}}), {"Content-Type": "application/json"})
    site.ok(a.status in (200, 201, 202), "the site takes an event (%d)" % a.status)
    site.wait_drained()
    site.ok(True, "and it reaches the core: links, uplink and sealed session are signed by TPMs")
    site.wait_words({n: "trusted" for n in site.nodes})

    looked = site.ctl("doctor", "--config", site.path("node1", "greyd.yaml")).stdout
    site.ok("which this machine's TPM keeps" in looked, "greyctl doctor tells where the key is")

    # Certificates are renewed with the key where it lies.
    renewed = subprocess.run(program("greyd") + ["enroll", "--dir", site.path("node1")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    site.ok(renewed.returncode == 0 and "renewed" in renewed.stdout, "the core takes a request for renewal that the TPM signs " + renewed.stderr)

    # The disk of gateway 3 in the machine of gateway 2.
    site.kill("node3", signal.SIGTERM)
    site.configure(3, door=2)
    stolen = subprocess.run(program("greyd") + ["--config", site.path("node3", "greyd.yaml")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    site.ok(stolen.returncode != 0 and "GREY-3243" in stolen.stdout and "->" in stolen.stdout, "a stolen disk in another gateway: refused with GREY-3243 and a remedy")
    site.configure(3)
    site.start_node(3)
    site.wait_voters()
    site.ok(True, "back in its own machine the gateway takes part again")

    # The chip of gateway 2 does not answer for a while.
    site.kill("door2")
    site.restart("node3")
    if not site.key_name(2).startswith("tpm:/"):  # a sealed one is in memory by now, and the TPM is not asked
        wait_until("gateway 2 to say what it misses", lambda: b"GREY-3242" in text_of(site.path("node2.log")), 60)
        site.ok(True, "a handshake without its TPM fails with GREY-3242 in its log")
    site.ok(site.leader() in site.nodes, "links that are there go on")
    site.open_door(2)
    site.wait_whole()
    site.ok(True, "when the TPM answers again, all links come back by themselves")


run_test(test, KeySite, enroll=True)
