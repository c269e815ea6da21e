#!/usr/bin/env python3
"""Who may do what: without a token or certificate a stranger gets nothing, a viewer cannot write, a revoked token opens no gateway, guessing is
stopped, and the log says who changed what and from where."""
import grp
import pwd
import ssl

from harness import *


class Guarded(Site):
    """Gateway 1 is open to its machine, 2 asks its machine for tokens, 3 is reached by others, with TLS."""

    def write_config(self, n):
        super().write_config(n)
        name = self.path("node%d" % n, "greyd.yaml")
        with open(name) as f:
            text = f.read()
        auth = "socket_group: nogroup, requests_per_second: 200" + (", enabled: true" if n == 2 else "")
        text = text.replace("security:", "security:\n  auth: {%s}" % auth)
        if n == 3:
            text = text.replace("http_addr: \"127.0.0.1:", "http_addr: \"0.0.0.0:")
        with open(name, "w") as f:
            f.write(text)

    def on_socket(self, n, method, path, body=None):
        return talk(UnixConnection(self.path("node%d" % n, "greyd.sock")), method, path, body)

    def status(self, n):
        return self.on_socket(n, "GET", "/v1/cluster/status").json()

    def call(self, n, method, path, body=None, token=None, certificate=None):
        if n != 3:
            return talk(http.client.HTTPConnection("127.0.0.1", self.http[n], timeout=15), method, path, body, token)
        context = ssl.create_default_context(cafile=self.ca + "/ca.crt")
        context.check_hostname = False  # a gateway is known by the URI of its certificate
        if certificate:
            context.load_cert_chain(self.path(certificate + ".crt"), self.path(certificate + ".key"))
        return talk(http.client.HTTPSConnection("localhost", self.http[3], timeout=15, context=context), method, path, body, token)

    def token(self, role, **more):
        return json.loads(self.on_socket(1, "POST", "/v1/tokens", json.dumps(dict(more, role=role))).body)


def problem(answer, status, number):
    return answer.status == status and answer.headers["content-type"] == "application/problem+json" and answer.json()["type"] == "/errors/GREY-%d" % number


def as_user(name, site, n, method, path, body=None):
    """The status of a call on the socket by another user of this machine."""
    script = """
import os, sys, http.client, socket
os.setgroups([int(g) for g in sys.argv[3].split(",") if g]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[4])
s.sendall(("%s %s HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n%s" % (sys.argv[5], sys.argv[6], len(sys.argv[7]), sys.argv[7])).encode())
print(s.recv(4096).split()[1].decode())
"""
    user = pwd.getpwnam(name)
    groups = ",".join(str(g.gr_gid) for g in grp.getgrall() if name in g.gr_mem)
    r = subprocess.run([sys.executable, "-c", script, str(user.pw_uid), str(user.pw_gid), groups, site.path("node%d" % n, "greyd.sock"), method, path,
                        body or ""], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return int(r.stdout) if r.returncode == 0 else 0


def test(site):
    wait_until("all gateways to take tokens", lambda: site.on_socket(1, "POST", "/v1/tokens", json.dumps({"role": "viewer", "ttl_seconds": 1})).status == 201)
    viewer, operator, admin = (site.token(r, name="test " + r) for r in ("viewer", "operator", "admin"))
    site.ok(viewer["token"].startswith("grey_") and viewer["role"] == "viewer", "a token is made over the local socket")
    known = lambda n: {t["id"] for t in site.on_socket(n, "GET", "/v1/tokens").json()["tokens"]}  # on the socket: a token that is tried too early counts as a guess
    for n in (2, 3):
        wait_until("the tokens to be known to gateway %d" % n, lambda n=n: known(n) >= {t["id"] for t in (viewer, operator, admin)})

    for n in (2, 3):
        a = site.call(n, "GET", "/v1/cluster/status")
        site.ok(problem(a, 401, 1025) and a.headers["www-authenticate"].startswith("Bearer"), "gateway %d: without a token 401" % n)
        site.ok(site.call(n, "GET", "/health").status == 200, "gateway %d: health is for everybody" % n)
        site.ok(problem(site.call(n, "PUT", "/v1/kv/a", "x", token=viewer["token"]), 403, 1013), "gateway %d: a viewer does not write" % n)
        site.ok(site.call(n, "PUT", "/v1/kv/a", "by operator", token=operator["token"]).status in (200, 201), "gateway %d: an operator does" % n)
        site.ok(problem(site.call(n, "GET", "/v1/tokens", token=operator["token"]), 403, 1013), "gateway %d: an operator sees no tokens" % n)
        site.ok(problem(site.call(n, "GET", "/v1/nothing"), 401, 1025), "gateway %d: strangers are not told which paths there are" % n)
    listed = site.call(2, "GET", "/v1/tokens", token=admin["token"])
    site.ok({t["id"] for t in listed.json()["tokens"]} >= {viewer["id"], operator["id"], admin["id"]}, "an admin lists them")
    site.ok(not any(t["token"].encode() in listed.body or t["token"][14:].encode() in listed.body for t in (viewer, operator, admin)), "without their secrets")
    site.ok(site.call(1, "PUT", "/v1/kv/b", "open").status == 201, "gateway 1, plain and on loopback, is open as it was")

    # Certificates
    site.tool("ca", "user", "--dir", site.ca, "--name", "maria", "--role", "operator", "--out", site.path("maria"))
    site.identity(site.ca, "elsewhere", "1", site.path("elsewhere"))
    site.ok(site.call(3, "PUT", "/v1/kv/c", "x", certificate="maria").status == 201, "a user's certificate gives its role")
    site.ok(problem(site.call(3, "GET", "/v1/tokens", certificate="maria"), 403, 1013), "and no more")
    site.ok(site.call(3, "GET", "/v1/tokens", certificate="node1/node").status == 200, "a gateway of the site is let in")
    site.ok(problem(site.call(3, "GET", "/v1/queue", certificate="elsewhere"), 403, 1013), "a gateway of another site is not")
    other = site.path("otherca")
    site.tool("ca", "init", "--dir", other)
    site.tool("ca", "user", "--dir", other, "--name", "eve", "--role", "admin", "--out", site.path("eve"))
    try:
        site.call(3, "GET", "/v1/queue", certificate="eve")
        refused = False
    except OSError:
        refused = True
    site.ok(refused, "a certificate of another CA gets no further than the handshake")

    # The local socket, by users of this machine
    if os.geteuid() == 0:
        os.chmod(site.dir, 0o711)
        os.chmod(site.path("node1"), 0o711)
        site.ok(as_user("nobody", site, 1, "PUT", "/v1/kv/s", "v") == 201, "a member of the configured group works on the socket")
        site.ok(as_user("nobody", site, 1, "GET", "/v1/tokens") == 403, "but is no admin there")
        site.ok(as_user("daemon", site, 1, "GET", "/v1/queue") == 0, "other users do not reach it")

    # The trail
    def written():
        """The trail, and who wrote what; once gateway 1 has applied what went through the others."""
        trail = site.call(1, "GET", "/v1/audit?limit=1000").json()["entries"]
        by = {e["key"]: e["by"] for e in trail if e["type"] == "kv" and e["by"]}
        return {"a", "b", "c"} <= set(by) and (trail, by)
    trail, by = wait_until("the writes in the trail", written)
    site.ok(by["a"]["who"] == "token %s test operator" % operator["id"] and by["a"]["role"] == "operator" and by["a"]["address"] == "127.0.0.1"
            and by["a"]["gateway"] in ("2", "3"), "the log says which token wrote, from where and through which gateway")
    site.ok(by["b"]["who"] == "anyone" and by["c"]["who"] == "certificate user:maria", "as well as nobody in particular, and certificates")
    site.ok([e for e in trail if e["type"] == "token" and e["token"] == viewer["id"] and e["by"]["who"] == "user %d" % os.geteuid()], "and who made a token")
    site.on_socket(1, "POST", "/v1/admin/snapshot")
    wait_until("the order in the log", lambda: [e for e in site.call(1, "GET", "/v1/audit?type=note&limit=1000").json()["entries"]
                                                if (e["method"], e["path"]) == ("POST", "/v1/admin/snapshot")])
    site.ok("token %s test operator (operator) from 127.0.0.1" % operator["id"] in site.ctl("audit", "--from", "1", "--type", "kv").stdout, "greyctl audit shows it")

    # Revoked and expired
    site.ok(site.call(2, "DELETE", "/v1/tokens/" + viewer["id"], token=admin["token"]).status == 204, "an admin revokes a token")
    for n in (2, 3):  # each until it is so, and no more: these count as guesses
        wait_until("gateway %d not to take it" % n, lambda n=n: problem(site.call(n, "GET", "/v1/queue", token=viewer["token"]), 401, 1025))
    brief = site.token("viewer", ttl_seconds=1)
    time.sleep(1.5)
    site.ok(site.call(2, "GET", "/v1/queue", token=brief["token"]).status == 401, "a token that has expired opens nothing")
    site.restart("node2")
    site.wait_whole()
    wait_until("gateway 2 to be in its site after a restart", lambda: site.call(2, "GET", "/health").status == 200)  # its leader may not have missed it
    wait_until("it to know its tokens", lambda: site.call(2, "GET", "/v1/queue", token=operator["token"]).status == 200)

    # Guessing
    wrong = "grey_%s_%s" % (admin["id"], "0" * 64)
    statuses = [site.call(2, "GET", "/v1/queue", token=wrong) for _ in range(14)]
    late = [a for a in statuses if a.status == 429]
    site.ok(late and problem(late[-1], 429, 1026) and int(late[-1].headers["retry-after"]) >= 1, "who guesses must wait")
    alike = lambda: [b for a, b in [[site.call(2, "GET", "/v1/queue", token=t) for t in (wrong, admin["token"])]] if a.status == 429 == b.status]  # a guess is free each 6 s
    site.ok(problem(wait_until("a guess and the right one, one right after the other, to be refused", alike)[0], 429, 1026), "and is not told whether a guess was right")
    site.ok(site.on_socket(2, "GET", "/v1/queue").status == 200 and site.call(2, "GET", "/health").status == 200, "the socket and health go on")
    for n in site.nodes:
        with open(site.path("node%d.log" % n), "rb") as f:
            log = f.read()
        site.ok(not any(t["token"][14:].encode() in log for t in (viewer, operator, admin, brief)), "no secret stands in the log of gateway %d" % n)

    # greyctl's profiles
    home = site.path("home")
    os.makedirs(home + "/.config/greyctl")
    profile = home + "/.config/greyctl/plant.yaml"
    with open(profile, "w") as f:
        f.write("addr: \"https://localhost:%d\"\ntoken: \"%s\"\nca: \"%s/ca.crt\"\nsite: %s\n" % (site.http[3], operator["token"], site.ca, SITE))

    def ctl(*words, **variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GREY_") and k != "XDG_CONFIG_HOME"}
        return subprocess.run([os.path.join(BUILD, "greyctl"), "--profile", "plant"] + list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=dict(environment, HOME=home, **variables), timeout=60)
    os.chmod(profile, 0o644)
    r = ctl("kv", "get", "a")
    site.ok(r.returncode == 2 and "chmod 600" in r.stderr, "a profile that others may read is refused, with the remedy")
    os.chmod(profile, 0o600)
    r = ctl("kv", "get", "a")
    site.ok(r.returncode == 0 and r.stdout == "by operator", "with 0600 it works, over TLS: %s" % r.stderr.strip())
    r = ctl("token", "list")
    site.ok(r.returncode == 3 and "GREY-1013" in r.stderr, "a role that is too low is said: %s" % r.stderr.strip().replace("\n", " "))
    r = ctl("--addr", "http://192.0.2.1:80", "kv", "get", "a")
    site.ok(r.returncode == 2 and "in clear" in r.stderr, "a token is not sent in clear to another machine")


def test_core(site):
    """The core's API is open as it was, and with a file of tokens it is not."""
    tokens = site.path("core.tokens")

    def tool(*words):
        return subprocess.run([os.path.join(BUILD, "grey-core"), "token"] + list(words) + ["--tokens", tokens], stdout=subprocess.PIPE, text=True)
    viewer, admin = (tool("create", "--role", r, "--ttl", "1h", "--name", "a " + r).stdout.strip() for r in ("viewer", "admin"))
    listed = tool("list").stdout
    site.ok(viewer[5:13] in listed and "a viewer" in listed and viewer[14:] not in listed, "tokens of the core are made and listed")
    with open(tokens) as f:
        text = f.read()
    site.ok(viewer[14:] not in text and os.stat(tokens).st_mode & 0o777 == 0o600, "and kept as hashes, 0600")
    site.spawn("core", [os.path.join(BUILD, "grey-core"), "--data-dir", site.path("core"), "--http-addr", "127.0.0.1:%d" % site.core_port,
                        "--broker", "mqtt://localhost:%d" % site.broker_port, "--tokens", tokens])

    def call(method, path, token=None, body=None):
        return talk(http.client.HTTPConnection("127.0.0.1", site.core_port, timeout=15), method, path, body, token)
    wait_until("the core to answer", lambda: call("GET", "/health/live").status == 200)
    site.ok(problem(call("GET", "/v1/sites"), 401, 1025) and problem(call("GET", "/"), 401, 1025), "the core answers strangers with 401")
    site.ok(call("GET", "/v1/sites", viewer).status == 200, "a viewer reads")
    site.ok(problem(call("PUT", "/v1/configs/x", viewer, "a"), 403, 1013), "and gives the sites no configs")
    site.ok(call("PUT", "/v1/configs/x", admin, "a").status < 300, "an admin does")
    with open(site.path("core.log")) as f:
        site.ok(any("order" in line and "token %s a admin" % admin[5:13] in line and "127.0.0.1" in line for line in f), "which stands in its log, with who and from where")
    tool("revoke", viewer[5:13])
    wait_until("the core not to take it", lambda: call("GET", "/v1/sites", viewer).status == 401)
    os.chmod(tokens, 0o666)
    os.utime(tokens)
    wait_until("no token to be taken from a file that others may write", lambda: call("GET", "/v1/sites", admin).status == 401)
    with open("/dev/full", "w") as full:
        r = subprocess.run(program("greyctl") + ["--addr", "unix:" + site.path("node1", "greyd.sock"), "token", "create", "--role", "viewer"], stdout=full, stderr=subprocess.PIPE, text=True)
    site.ok(r.returncode == 1 and "not all of the answer could be written" in r.stderr, "a token that no disk takes is not passed over in silence: %s" % r.stderr)


def both(site):
    test(site)
    test_core(site)


run_test(both, site_class=Guarded, nodes=3, core=False)
