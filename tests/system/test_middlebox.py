#!/usr/bin/env python3
"""A carrier's NAT that forgets idle connections without a word.  If this fails, a site behind one is out of its core's reach most of the
time: each ping after a long silence finds a dead path, and the next connection waits as long again."""
from harness import *

FORGETS_S, KEEPALIVE_S = 25, 40


class Nat:
    """A TCP proxy in front of the broker that swallows whatever comes after a silence that was too long."""

    def __init__(self, target_port):
        self.target_port, self.forgotten = target_port, 0
        self.server = socket.socket()
        self.server.bind(("127.0.0.1", 0))
        self.server.listen(8)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.server.accept()
            far = socket.create_connection(("127.0.0.1", self.target_port))
            state = {"moved": time.monotonic(), "dead": False}
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.copy, args=(a, b, state), daemon=True).start()

    def copy(self, a, b, state):
        while True:
            try:
                data = a.recv(65536)
            except OSError:
                data = b""
            now = time.monotonic()
            if not state["dead"] and now - state["moved"] > FORGETS_S:
                state["dead"] = True
                self.forgotten += 1
            state["moved"] = now
            if state["dead"]:
                if not data:
                    return
                continue
            try:
                b.sendall(data) if data else b.shutdown(socket.SHUT_RDWR)
            except OSError:
                return
            if not data:
                return


class NatSite(Site):
    def write_config(self, n):
        super().write_config(n)
        self.nat = Nat(self.broker_port)
        path = self.path("node%d" % n, "greyd.yaml")
        with open(path) as f:
            text = f.read()
        with open(path, "w") as f:
            f.write(text.replace('["localhost:%d"]' % self.broker_port, '["localhost:%d"]\n    keepalive_secs: %d' % (self.nat.port, KEEPALIVE_S)))

    def link(self):
        return request(self.http[1], "GET", "/v1/federation/status").json()["link"]


def test(site):
    wait_until("the link", lambda: site.link()["up"], 30)
    site.ok(site.link()["keepalive_seconds"] == KEEPALIVE_S, "the keep-alive begins with the %d s of the file" % KEEPALIVE_S)
    began = time.monotonic()
    wait_until("the forgotten connection to be left", lambda: not site.link()["up"], KEEPALIVE_S + 40)
    took = time.monotonic() - began
    site.ok(site.nat.forgotten == 1 and took < KEEPALIVE_S + 35, "the first ping finds the path dead, after %.0f s" % took)
    link = wait_until("the next connection", lambda: site.link()["up"] and site.link(), 30)
    site.ok(link["keepalive_seconds"] == KEEPALIVE_S // 2, "the next connection pings every %d s" % link["keepalive_seconds"])
    time.sleep(70)
    site.ok(site.link()["up"] and site.nat.forgotten == 1 and site.link()["stage_seconds"] > 65, "and is not forgotten any more")
    site.ok("keep-alive %d s" % (KEEPALIVE_S // 2) in site.ctl("link", "status").stdout, "greyctl link status tells what is in force")


run = NatSite(nodes=1)
try:
    run.start()
    test(run)
except Exception as e:
    run.ok(False, "%s: %s" % (type(e).__name__, e))
run.finish()
