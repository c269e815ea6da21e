#!/usr/bin/env python3
"""The connection is cut after every so many bytes of a session: in the TLS handshake, full or resumed, in CONNECT, in the hello, amid events
and acknowledgements.  If this fails, a line that breaks at the wrong byte loses events, tells them twice, or stops the uplink for good."""
from harness import *

FULL, RESUMED = range(60, 3400, 140), range(40, 4000, 95)  # bytes both ways after which it is cut


class Cutter:
    """A TCP proxy in front of the broker that ends each connection after so many bytes; None: never."""

    def __init__(self, target_port):
        self.target_port, self.after, self.cuts, self.pairs = target_port, None, 0, []
        self.server = socket.socket()
        self.server.bind(("127.0.0.1", 0))
        self.server.listen(8)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.server.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                near.close()
                continue
            state = {"left": self.after, "lock": threading.Lock()}
            self.pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.copy, args=(a, b, state), daemon=True).start()

    def copy(self, a, b, state):
        while True:
            try:
                data = a.recv(512)
            except OSError:
                data = b""
            with state["lock"]:
                if state["left"] is not None:
                    data = data[:state["left"]]
                    state["left"] -= len(data)
                    if state["left"] == 0 and data:
                        self.cuts += 1
                try:
                    if data:
                        b.sendall(data)
                except OSError:
                    data = b""
                if not data or state["left"] == 0:
                    self.end(a, b)
                    return

    def end(self, *sockets):
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def end_all(self):
        for near, far in self.pairs:
            self.end(near, far)
        self.pairs = []


class CutSite(Site):
    def write_config(self, n):
        super().write_config(n)
        self.cutter = Cutter(self.broker_port)
        path = self.path("node%d" % n, "greyd.yaml")
        with open(path) as f:
            text = f.read()
        with open(path, "w") as f:
            f.write(text.replace("localhost:%d" % self.broker_port, "localhost:%d" % self.cutter.port))

    def link(self):
        return request(self.http[1], "GET", "/v1/federation/status").json()["link"]

    def cut_after(self, size):
        """One more connection, which ends after so many bytes."""
        before = self.cutter.cuts
        self.cutter.after = size
        self.cutter.end_all()
        wait_until("the end after %d bytes" % size, lambda: self.ctl("link", "try") and self.cutter.cuts > before, 30)


def test(site):
    wait_until("the link", lambda: site.link()["up"], 30)
    ledger = Ledger(site, 6000, threads=3, pause=0.2).start()
    for size in RESUMED:
        site.cut_after(size)
    site.ok(True, "cut after %d to %d bytes, in %d steps" % (RESUMED.start, RESUMED[-1], len(RESUMED)))
    resumed = request(site.http[1], "GET", "/metrics").body.decode()
    count = [int(l.split()[1]) for l in resumed.splitlines() if l.startswith("grey_federation_resumed_handshakes_total ")][0]
    site.ok(count >= 8, "%d of the connections resumed their TLS session" % count)
    for size in FULL:
        site.restart("broker")  # which forgets sessions
        wait_until("the broker to listen", lambda: socket.create_connection(("127.0.0.1", site.broker_port), 1), 10)
        site.cut_after(size)
    site.ok(True, "and with full handshakes after %d to %d bytes, in %d steps" % (FULL.start, FULL[-1], len(FULL)))
    site.cutter.after = None
    site.cutter.end_all()
    site.ctl("link", "try")
    wait_until("the link for good", lambda: site.link()["up"], 60)
    ledger.join()
    ledger.judge()


run = CutSite(nodes=1)
try:
    run.start()
    test(run)
except Exception as e:
    run.ok(False, "%s: %s" % (type(e).__name__, e))
run.finish()
