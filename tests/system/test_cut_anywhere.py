#!/usr/bin/env python3
"""The connection is cut after every so many bytes of a session: in the TLS handshake, full or resumed, in CONNECT, in the hello, amid events
and acknowledgements.  If this fails, a line that breaks at the wrong byte loses events, tells them twice, or stops the uplink for good."""
from harness import *

FULL, RESUMED = range(60, 3400, 140), range(40, 4000, 95)  # bytes both ways after which it is cut


class Cutter(Relay):
    """Ends each connection after so many bytes, both ways together; None: never."""

    def __init__(self, target_port):
        self.after, self.cuts = None, 0
        super().__init__(target_port)

    def admit(self, pair, source):
        pair.left, pair.lock = self.after, threading.Lock()
        return True

    def carry(self, a, b, way, pair):
        while True:
            data = a.recv(512)
            with pair.lock:
                if pair.left is not None:
                    data = data[:pair.left]
                    pair.left -= len(data)
                    self.cuts += 1 if pair.left == 0 and data else 0
                if data:
                    b.sendall(data)
                if not data or pair.left == 0:
                    end(a, b)
                    return


class CutSite(Site):
    def cut_after(self, size):
        """One more connection, which ends after so many bytes."""
        before = self.line.cuts
        self.line.after = size
        self.line.end_all()
        wait_until("the end after %d bytes" % size, lambda: self.ctl("link", "try") and self.line.cuts > before, 30)


def test(site):
    wait_until("the link", lambda: site.link()["up"], 30)
    ledger = Ledger(site, 6000, threads=3, pause=0.2).start()
    for size in reversed(RESUMED):  # the shortest last: a session with which nothing succeeds any more is given up
        site.cut_after(size)
    site.ok(True, "cut after %d to %d bytes, in %d steps" % (RESUMED.start, RESUMED[-1], len(RESUMED)))
    resumed = request(site.http[1], "GET", "/metrics").body.decode()
    count = [int(l.split()[1]) for l in resumed.splitlines() if l.startswith("grey_federation_resumed_handshakes_total ")][0]
    site.ok(count >= 5, "%d of the connections resumed their TLS session" % count)
    for size in FULL:
        site.restart("broker")  # which forgets sessions
        wait_until("the broker to listen", lambda: socket.create_connection(("127.0.0.1", site.broker_port), 1), 30)
        site.cut_after(size)
    site.ok(True, "and with full handshakes after %d to %d bytes, in %d steps" % (FULL.start, FULL[-1], len(FULL)))
    site.line.after = None
    site.line.end_all()
    wait_until("the link for good", lambda: site.link()["up"] or not site.ctl("link", "try"), 60)
    ledger.join()
    ledger.judge()


run = CutSite(nodes=1, line=Cutter)
try:
    run.start()
    test(run)
except Exception as e:
    run.ok(False, "%s: %s" % (type(e).__name__, e))
run.finish()
