#!/usr/bin/env python3
"""What an idle link costs, and what coming back costs.  If this fails, a site on a metered line pays more than 32 KiB a day for nothing,
or a full TLS handshake each time its line flaps.

Measured over two minutes with a keep-alive of 15 s, and reckoned for a day with the 900 s of the default: bytes of the socket (TLS and
MQTT, as the API tells), and headers of IP and TCP for each segment that the kernel has counted.  Attestation is not in it."""
import re
from harness import *

DAY_S, BUDGET, HEADERS = 86400, 32 * 1024, 20 + 32  # IPv4; TCP with time stamps
PING_S, PINGS = 15, 8


class IdleSite(Site):
    def wait_up(self):
        return wait_until("the link", lambda: self.link()["up"] and self.link(), 30)

    def moved(self):
        """Bytes on the socket, and segments, both ways."""
        link = self.link()
        text = subprocess.run(["ss", "-tinH", "dport", "=", ":%d" % self.line.port], stdout=subprocess.PIPE, text=True).stdout
        segments = [int(re.search(r"segs_%s:(\d+)" % way, text).group(1)) for way in ("out", "in")]
        return link["sent_bytes"] + link["received_bytes"], sum(segments)

    def wait_quiet(self):
        def quiet():
            before = self.moved()
            time.sleep(3)
            return self.moved() == before
        wait_until("what came with the connection to be over", quiet, 60)


def test(site):
    link = site.wait_up()
    full = link["handshake_bytes"]
    site.ok(not link["tls_resumed"] and full > 1500, "the first TLS handshake is a full one: %d bytes" % full)

    # The line flaps: the session goes on.
    short = []
    for i in range(3):
        site.line.cut()
        wait_until("the loss to be seen", lambda: not site.link()["up"], 30)
        site.line.mend()
        site.ctl("link", "try")
        link = site.wait_up()
        short.append((link["tls_resumed"], link["handshake_bytes"]))
    site.ok(all(resumed and size < full * 0.6 for resumed, size in short), "coming back resumes it: %s bytes" % ", ".join(str(size) for _, size in short))
    site.ok("TLS session resumed" in site.ctl("link", "status").stdout, "greyctl link status says so")

    # The broker was replaced and does not know the session: a full handshake, and no failure.
    site.restart("broker")
    site.ctl("link", "try")
    link = wait_until("the link over a new session", lambda: site.link()["up"] and not site.link()["tls_resumed"] and site.link(), 60)
    site.ok(link["handshake_bytes"] > 0.9 * full, "a broker that was restarted gets a full one again: %d bytes" % link["handshake_bytes"])
    site.wait_drained()

    # Silence.
    site.wait_quiet()
    site.ok(link["keepalive_seconds"] == 900, "the keep-alive is 900 s by default")
    before = site.moved()
    time.sleep(40)
    after = site.moved()
    site.ok(after == before, "an idle link is silent between pings: %d bytes and %d segments in 40 s" % (after[0] - before[0], after[1] - before[1]))

    # Pings, more often than in life.
    site.upstream = "keepalive_secs: %d" % PING_S
    site.write_config(1)
    site.restart("node1")
    link = site.wait_up()
    site.wait_drained()
    site.ok(link["keepalive_seconds"] == PING_S, "a keep-alive of %d s is taken from the file" % PING_S)
    site.wait_quiet()
    before, began = site.moved(), time.monotonic()
    time.sleep(PING_S * PINGS)
    after, took = site.moved(), time.monotonic() - began
    pings = took / PING_S
    payload, segments = (after[0] - before[0]) / pings, (after[1] - before[1]) / pings
    each = payload + segments * HEADERS
    site.ok(payload > 0 and site.link()["up"], "%d pings in %.0f s cost %.0f bytes of TLS each, in %.1f segments" % (round(pings), took, payload, segments))
    day = each * DAY_S / 900
    site.ok(day < BUDGET, "an idle day costs %.1f KiB, IP and TCP included (at most %d KiB), reckoned from these minutes" % (day / 1024, BUDGET / 1024))


if __name__ == "__main__":
    s = IdleSite(nodes=1, line=Link)
    try:
        s.start()
        test(s)
    except Exception as e:
        s.ok(False, "%s: %s" % (type(e).__name__, e))
    s.finish()
