#!/usr/bin/env python3
"""The core's API on an address that others can reach: nobody reads it on the way or takes the core's place, strangers and gateways command nothing, and
who forgets TLS is told before the core opens, not after."""
import datetime, ssl, warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from harness import *


class Away(Site):
    """The core listens on all addresses, with what its CA makes for it."""

    def core(self, method, path, body=None, token=None, certificate=None, ca=None):
        context = ssl.create_default_context(cafile=(ca or self.ca) + "/ca.crt")
        if certificate:
            context.load_cert_chain(self.path(certificate + ".crt"), self.path(certificate + ".key"))
        return talk(http.client.HTTPSConnection("localhost", self.core_port, timeout=15, context=context), method, path, body, token)

    def user(self, name, role, ca=None):
        self.tool("ca", "user", "--dir", ca or self.ca, "--name", name, "--role", role, "--out", self.path(name))


def problem(answer, status, number):
    return answer.status == status and answer.json()["type"] == "/errors/GREY-%d" % number


def former(site, name):
    """The same certificate by the same issuer, of last year."""
    warnings.simplefilter("ignore")  # later versions of the library would be asked in another way
    def read(path):
        with open(path, "rb") as f:
            return f.read()
    old = x509.load_pem_x509_certificate(read(site.path(name + ".crt")))
    key = serialization.load_pem_private_key(read(site.ca + "/issuing.key"), None)
    began = old.not_valid_before - datetime.timedelta(days=400)
    b = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), old.serial_number + 1, began, began + datetime.timedelta(days=366))
    for extension in old.extensions:
        b = b.add_extension(extension.value, extension.critical)
    with open(site.path(name + ".crt"), "wb") as f:
        f.write(b.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def refused(call):
    try:
        call()
    except OSError:
        return True
    return False


def test(site):
    tokens = site.path("tokens")
    token = subprocess.run(program("grey-core") + ["token", "create", "--tokens", tokens, "--role", "operator"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    # An address that others reach, without TLS: said before anything is open.
    def attempt(*words):
        return subprocess.run(program("grey-core") + ["--data-dir", site.path("try"), "--broker", "mqtt://localhost:%d" % site.broker_port] + list(words),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    port = free_ports(1)[0]
    r = attempt("--http-addr", "0.0.0.0:%d" % port)
    site.ok(r.returncode == 2 and "--http-tls-cert" in r.stderr and "--insecure-i-know" in r.stderr, "plain HTTP for others is refused, with what to do: %s" % r.stderr.strip()[:60])
    r = attempt("--http-addr", "127.0.0.1:%d" % port, "--http-tls-cert", site.ca + "/core.crt")
    site.ok(r.returncode == 2 and "belong together" in r.stderr, "a certificate without its key is refused")
    r = attempt("--http-addr", "127.0.0.1:%d" % port, "--http-tls-cert", site.ca + "/core.crt", "--http-tls-key", site.ca + "/core.key")
    site.ok(r.returncode == 2 and "nobody could come in" in r.stderr, "as is a door that nobody can open")
    for words, told in ((("--http-addr", "127.0.0.1:99999"), "host:port"), (("--http-addr", "127.0.0.1:%d" % port, "--broker", "mqtts://core.example.com:8883"), "--tls-ca"),
                        (("--http-addr", "127.0.0.1:%d" % port, "--broker", "mqtt://core.example.com"), "host:port"), (("--http-addr", "127.0.0.1:%d" % port, "--data-dir", ""), "--data-dir")):
        r = attempt(*words)
        site.ok(r.returncode == 2 and told in r.stderr, "refused before anything is opened: %s" % r.stderr.strip().splitlines()[0])
    site.spawn("loud", program("grey-core") + ["--data-dir", site.path("loud"), "--broker", "mqtt://localhost:%d" % site.broker_port, "--http-addr", "0.0.0.0:%d" % port,
                                               "--insecure-i-know", "true"])
    wait_until("the core that was told so", lambda: request(port, "GET", "/health/live").status == 200)
    with open(site.path("loud.log")) as f:
        site.ok("plain HTTP" in f.read(), "who says so gets plain HTTP, and a warning in the log")
    site.kill("loud", signal.SIGTERM)

    # All addresses, with the CA's own certificate.
    site.core_extra = ["--http-addr", "0.0.0.0:%d" % site.core_port, "--ca-dir", site.ca, "--tokens", tokens]
    site.restart("core")
    wait_until("the core to answer over TLS", lambda: site.core("GET", "/health/live").status == 200)
    site.ok(refused(lambda: request(site.core_port, "GET", "/health/live")), "plain HTTP gets no answer there")
    other = site.path("otherca")
    site.tool("ca", "init", "--dir", other)
    site.ok(refused(lambda: site.core("GET", "/health/live", ca=other)), "who trusts another CA does not take it for the core")
    site.ok(problem(site.core("GET", "/v1/sites"), 401, 1025), "without certificate and token: 401")
    site.ok(problem(site.core("GET", "/v1/sites", token=token[:-4] + "0000"), 401, 1025), "a token that is not good: 401")
    site.ok(site.core("GET", "/v1/sites", token=token).status == 200, "a token is taken")

    site.user("vera", "viewer")
    site.user("adam", "admin")
    site.ok(site.core("GET", "/v1/sites", certificate="vera").status == 200, "a user's certificate reads")
    site.ok(problem(site.core("PUT", "/v1/configs/x", "a", certificate="vera"), 403, 1013), "with its role and no more")
    site.ok(site.core("PUT", "/v1/configs/x", "a", certificate="adam").status < 300, "an admin's gives configs")
    site.ok(problem(site.core("GET", "/v1/sites", certificate="node1/node"), 403, 1013), "a gateway's certificate gives no role at the core")
    site.user("eve", "admin", ca=other)
    site.ok(refused(lambda: site.core("GET", "/v1/sites", certificate="eve")), "one of another CA ends in the handshake")
    site.user("olaf", "admin")
    former(site, "olaf")
    site.ok(refused(lambda: site.core("GET", "/v1/sites", certificate="olaf")), "and so does one that has expired")

    # greyctl
    core = "https://localhost:%d" % site.core_port

    def ctl(*words, **environment):
        return subprocess.run(program("greyctl") + list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                              env=dict({k: v for k, v in os.environ.items() if not k.startswith("GREY_") and k != "XDG_CONFIG_HOME"}, HOME=site.path("home"), **environment))
    r = ctl("--core", core, "site", "list", GREY_CORE_TOKEN=token)
    site.ok(r.returncode == 2 and "--cacert" in r.stderr, "greyctl wants to know which CA to believe")
    r = ctl("--core", core, "--cacert", site.ca + "/ca.crt", "site", "list", GREY_CORE_TOKEN=token)
    site.ok(r.returncode == 0, "with --cacert and a token it lists sites: %s" % r.stderr.strip())
    r = ctl("--core", core, "--cacert", other + "/ca.crt", "site", "list", GREY_CORE_TOKEN=token)
    site.ok(r.returncode == 1 and "certificate" in r.stderr, "another CA: it sends nothing")
    os.makedirs(site.path("home", ".config", "greyctl"))
    profile = site.path("home", ".config", "greyctl", "default.yaml")
    with open(profile, "w") as f:
        f.write("core: \"%s\"\ncore_ca: \"%s/ca.crt\"\nca: \"%s/ca.crt\"\ncert: \"%s\"\nkey: \"%s\"\n" % (core, site.ca, other, site.path("adam.crt"), site.path("adam.key")))
    os.chmod(profile, 0o600)
    r = ctl("site", "list")
    site.ok(r.returncode == 0, "as it does with core_ca and a certificate in the profile: %s" % r.stderr.strip())
    site.spawn("false", ["openssl", "s_server", "-accept", str(port), "-cert", site.path("node1", "node.crt"), "-key", site.path("node1", "node.key"), "-quiet", "-www"])
    wait_until("the false core", lambda: socket.create_connection(("127.0.0.1", port), 2).close() is None)
    r = ctl("--core", "https://localhost:%d" % port, "site", "list")
    site.ok(r.returncode == 1 and "not that of a core" in r.stderr, "a gateway that plays the core is found out: %s" % r.stderr.strip().split("\n")[0])

    # The site goes on through all of that.
    site.ok(site.enrol("9", wait_until("a token", lambda: ctl("enroll", "token", "--site", SITE).stdout.strip()), site.path("nine")).returncode == 0,
            "gateways enrol at their own address as before")


run_test(test, site_class=Away, nodes=1, enroll=True)
