#!/usr/bin/env python3
"""greyd is killed at every moment of its first start, of a start with a log behind it, and of a stop (FAULTS P15).  If this failed, a gateway
whose power flickers would need somebody to drive there: it must start by itself each time, with all that it answered."""
from harness import *

STEPS = int(os.environ.get("GREY_STEPS") or 30)  # moments in each phase


class Gateway:
    """A site of one, and what it answered."""

    def __init__(self, site):
        self.site, self.kept, self.starts, self.refused = site, {}, 0, []

    def start(self):
        self.starts += 1
        self.site.start_node(1)
        return time.monotonic()

    def ready(self):
        """Answers a write; its end is an error of this test's subject, told with what it said."""
        def written():
            if not self.site.alive("node1"):
                self.refused.append(self.site.processes["node1"].returncode)
                self.start()
            key = "k%d" % len(self.kept)
            try:
                a = request(self.site.http[1], "PUT", "/v1/kv/" + key, key, timeout=5)
            except (OSError, http.client.HTTPException):
                return False
            if a.status in (200, 201):
                self.kept[key] = key.encode()
            return a.status in (200, 201)
        wait_until("a write to be answered", written, 60)

    def judge(self, what):
        self.ready()
        read = lambda k: wait_until("an answer", lambda: (lambda a: a.status in (200, 404) and a)(request(self.site.http[1], "GET", "/v1/kv/" + k)), 60).body
        lost = [k for k, v in self.kept.items() if read(k) != v]
        self.site.ok(not lost and not self.refused, "killed %s, it came back by itself with all of %d writes: %s %s"
                     % (what, len(self.kept), lost[:3], self.refused[:3]))


def test(site):
    g = Gateway(site)
    site.kill("node1")
    began = g.start()
    g.ready()
    whole_s = min(max(time.monotonic() - began, 0.05), 1.0)  # a start with a little log behind it takes so long here

    for i in range(STEPS):
        site.kill("node1")
        shutil.rmtree(site.path("node1", "data"), ignore_errors=True)  # the last kill may have come before it was made
        g.kept = {}
        began = g.start()
        time.sleep(max(0, began + whole_s * 1.2 * i / STEPS - time.monotonic()))
        site.kill("node1")
        g.start()
        if i % 5 == 4:
            g.ready()
    g.judge("at %d moments of its first start" % STEPS)

    for i in range(STEPS):
        site.kill("node1")
        began = g.start()
        time.sleep(max(0, began + whole_s * 1.2 * i / STEPS - time.monotonic()))
        if i % 5 == 4:
            site.kill("node1")
            g.start()
            g.ready()
    g.judge("at %d moments of a start" % STEPS)

    stopped_s = None
    for i in range(STEPS // 2):
        g.ready()
        process, began = site.processes["node1"], time.monotonic()
        process.send_signal(signal.SIGTERM)
        if stopped_s is None:
            process.wait(30)
            stopped_s = min(time.monotonic() - began, 1.0)
        else:
            time.sleep(max(0, began + stopped_s * 1.1 * i / (STEPS // 2) - time.monotonic()))
            if process.poll() is None:
                site.kill("node1")
        g.start()
    g.judge("at %d moments of a stop" % (STEPS // 2))
    print("# %d starts, each of %.0f ms" % (g.starts, whole_s * 1000))


run_test(test, nodes=1, core=False)
