#!/usr/bin/env python3
"""A gateway whose disk or loop hangs must be restarted by its watchdog, and one that is well must not be: the service manager hears that
it is ready, beats while it works, silence while it does not, and that it stops."""
from slow_disks import *

WATCHDOG_S = 2.0


class Supervised(SlowSite):
    def __init__(self, **options):
        super().__init__(**options)
        self.words, self.socket = [], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path("notify"))
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            self.words += self.socket.recv(4096).decode().split("\n")

    def start_node(self, n, bootstrap=None, under=()):
        super().start_node(n, bootstrap, ["env", "NOTIFY_SOCKET=" + self.path("notify"), "WATCHDOG_USEC=%d" % (WATCHDOG_S * 1e6)] + list(under))

    def beats(self):
        return self.words.count("WATCHDOG=1")

    def wait_silence(self):
        """No beat for two watchdog times: the manager would have acted."""
        last = [self.beats(), time.monotonic()]

        def silent():
            if self.beats() != last[0]:
                last[:] = [self.beats(), time.monotonic()]
            return time.monotonic() - last[1] > 2 * WATCHDOG_S
        wait_until("the beats to end", silent)

    def wait_beats(self):
        before = self.beats()
        wait_until("beats", lambda: self.beats() > before + 1)


site = Supervised(nodes=1, core=False, extra="hardware: {watchdog: {storage_stall_secs: 5}}\n")
try:
    site.start()
    wait_until("the word that it is ready", lambda: "READY=1" in site.words)
    site.ok(any(w.startswith("EXTEND_TIMEOUT_USEC=") for w in site.words[:site.words.index("READY=1")]), "a start asks for patience")
    site.wait_beats()
    site.ok(True, "a gateway at rest feeds its watchdog")

    site.slow(1, 600000)
    try:
        request(site.http[1], "POST", "/v1/events", json.dumps({"type": "t", "data": 1}), timeout=1)
    except OSError:
        pass  # no answer: its disk does not end a store
    wait_until("the reason", lambda: any("watchdog not fed" in w for w in site.words))
    site.wait_silence()
    site.ok(True, "a disk that hangs starves it, and the manager is told why")
    site.ok(request(site.http[1], "GET", "/v1/cluster/status").status == 200, "although the loop still answers")
    site.ok(request(site.http[1], "GET", "/health/live").status == 503 and site.ctl("alive").returncode != 0, "and whoever asks instead of a manager, as an image does, hears it too")
    site.well(1)
    site.wait_beats()
    site.ok(request(site.http[1], "GET", "/health/live").status == 200 and site.ctl("alive").returncode == 0, "a disk that goes on feeds it again")

    site.kill("node1", signal.SIGSTOP)
    site.wait_silence()
    site.ok(True, "a process that hangs feeds nothing")
    site.kill("node1", signal.SIGCONT)
    site.wait_beats()
    site.kill("node1", signal.SIGHUP)
    wait_until("a reload", lambda: "RELOADING=1" in site.words and "READY=1" in site.words[site.words.index("RELOADING=1"):])
    site.kill("node1", signal.SIGTERM)
    wait_until("the word that it stops", lambda: "STOPPING=1" in site.words)
    site.ok(True, "it says when it reloads and when it stops")
except Exception as e:
    import traceback
    site.ok(False, "%s: %s" % (type(e).__name__, e))
    for line in traceback.format_exc().splitlines()[-6:]:
        print("# " + line)
site.finish()
