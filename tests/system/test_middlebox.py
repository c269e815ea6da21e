#!/usr/bin/env python3
"""A carrier's NAT that forgets idle connections without a word.  If this fails, a site behind one is out of its core's reach most of the
time: each ping after a long silence finds a dead path, and the next connection waits as long again."""
from harness import *

FORGETS_S, KEEPALIVE_S = 32, 40  # far enough from half the keep-alive for a ping that comes late on a busy machine


class Nat(Relay):
    """Swallows whatever comes after a silence that was too long."""

    def __init__(self, target_port):
        self.forgotten = 0
        super().__init__(target_port)

    def admit(self, pair, source):
        pair.moved, pair.dead = time.monotonic(), False
        return True

    def carry(self, a, b, way, pair):
        while True:
            data = a.recv(65536)
            now = time.monotonic()
            if not pair.dead and now - pair.moved > FORGETS_S:
                pair.dead = True
                self.forgotten += 1
            pair.moved = now
            if pair.dead:
                while a.recv(65536):  # what is sent goes nowhere, and the other end hears of no end
                    pass
                threading.Event().wait()
            if not data:
                return
            b.sendall(data)


def test(site):
    wait_until("the link", lambda: site.link()["up"], 30)
    site.ok(site.link()["keepalive_seconds"] == KEEPALIVE_S, "the keep-alive begins with the %d s of the file" % KEEPALIVE_S)
    began = time.monotonic()
    wait_until("the forgotten connection to be left", lambda: not site.link()["up"], KEEPALIVE_S + 40)
    took = time.monotonic() - began
    site.ok(site.line.forgotten == 1 and took < KEEPALIVE_S + 35, "the first ping finds the path dead, after %.0f s" % took)
    link = wait_until("the next connection", lambda: site.link()["up"] and site.link(), 30)
    site.ok(link["keepalive_seconds"] == KEEPALIVE_S // 2, "the next connection pings every %d s" % link["keepalive_seconds"])
    time.sleep(70)
    site.ok(site.link()["up"] and site.line.forgotten == 1 and site.link()["stage_seconds"] > 65, "and is not forgotten any more")
    site.restart("node1")
    link = wait_until("the link after a restart", lambda: site.link()["up"] and site.link(), 60)
    site.ok(link["keepalive_seconds"] == KEEPALIVE_S // 2, "and a restart forgets nothing of that")
    site.ok("keep-alive %d s" % (KEEPALIVE_S // 2) in site.ctl("link", "status").stdout, "greyctl link status tells what is in force")


run = Site(nodes=1, line=Nat, upstream="keepalive_secs: %d" % KEEPALIVE_S)
try:
    run.start()
    test(run)
except Exception as e:
    run.ok(False, "%s: %s" % (type(e).__name__, e))
run.finish()
