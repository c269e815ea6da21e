#!/usr/bin/env python3
"""Allocations of greyd fail, one or many in a row: each in turn of a start, and each in turn while it takes keys and events (FAULTS P7).  If this failed, a
board short of memory would crash, hang or lose what it answered, where a sentence and an error were owed."""
import mmap, struct
from harness import *

START_STEPS = int(os.environ.get("GREY_STEPS") or 40)  # of the allocations of a start, so many are tried
RUN_STEPS = int(os.environ.get("GREY_STEPS") or 200)
WITH_CORE = os.environ.get("GREY_WITH_CORE") == "1"  # the uplink too, with its TLS and MQTT


class Scarce:
    """The number that the library counts down (scarce_memory.c)."""

    def __init__(self, site):
        self.site, self.library, self.path = site, site.path("scarce_memory.so"), site.path("scarce")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", self.library, os.path.join(ROOT, "tests/system/scarce_memory.c")], check=True)
        with open(self.path, "wb") as f:
            f.write(bytes(16))
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 16)

    def set(self, n, more=0):
        """The n-th from now on fails, and so many behind it."""
        self.map[8:] = struct.pack("=q", more)
        self.map[:8] = struct.pack("=q", n)

    def get(self):
        return struct.unpack("=q", self.map[:8])[0]

    def start(self):
        self.site.start_node(1, under=["env", "LD_PRELOAD=" + self.library, "SCARCE_FILE=" + self.path])


def answers(site):
    try:
        return request(site.http[1], "PUT", "/v1/kv/up", "1", timeout=5).status in (200, 201)
    except (OSError, http.client.HTTPException):
        return False


def try_starts(site, scarce):
    site.kill("node1")
    scarce.set(1 << 40)
    scarce.start()
    wait_until("a start under the library", lambda: answers(site))
    total, sentences, wrong = (1 << 40) - scarce.get(), 0, []
    for i in range(START_STEPS):
        site.kill("node1")
        said = os.path.getsize(site.path("node1.log"))
        scarce.set(1 + i * total // START_STEPS, 0 if i % 3 else 1 << 30)
        scarce.start()
        process = site.processes["node1"]
        wait_until("it to run or to end", lambda: process.poll() is not None or answers(site), 30)
        if process.poll() is not None:
            with open(site.path("node1.log"), errors="replace") as f:
                f.seek(said)
                text = f.read()
            sentences += 1
            if process.returncode not in (1, 2, 3) or "greyd: " not in text:
                wrong.append((i * total // START_STEPS, process.returncode, text[-200:]))
            scarce.set(0)
            scarce.start()
            wait_until("the next start", lambda: answers(site), 30)
    site.ok(not wrong and sentences > 0, "of %d starts without one of %d allocations %d ended, each with a sentence, and the next one worked: %s"
            % (START_STEPS, total, sentences, wrong[:2]))


def try_running(site, scarce):
    kept, refused, ends, odd, undone, events = {}, 0, [], [], [], {}
    for n in range(1, RUN_STEPS + 1):
        scarce.set(1 + n % 60, (0, 0, 7, 300)[n % 4])
        for method, path, body in (("PUT", "/v1/kv/n%d" % n, str(n)), ("POST", "/v1/events", json.dumps({"id": "e%d" % n, "source": "s", "type": "t", "data": n})),
                                   ("GET", "/v1/cluster/status", None), ("GET", "/v1/kv/n%d" % n, None)):
            try:
                a = request(site.http[1], method, path, body, {"Content-Type": "application/json"} if method == "POST" else {}, 15)
            except ConnectionRefusedError:  # it is ending
                site.processes["node1"].wait(30)
                break
            except (OSError, http.client.HTTPException):
                refused += 1  # the connection was given up
                continue
            refused += a.status >= 500
            if a.status >= 500 and a.status not in (503, 504, 507):
                odd.append((n, method, a.status))
            if method == "PUT" and a.status == 503:  # certainly not done, it says
                undone.append(path)
            if method == "PUT" and a.status in (200, 201):
                kept[path] = body.encode()
            if method == "POST" and a.status == 201:
                events["e%d" % n] = a.json()["accepted"][0]
        if not site.alive("node1"):
            ends.append((n, site.processes["node1"].returncode))
            scarce.set(0)
            scarce.start()
            wait_until("the next start", lambda: answers(site), 30)
    scarce.set(0)

    def goes_on():
        if not site.alive("node1"):  # it ended a moment ago
            ends.append((RUN_STEPS, site.processes["node1"].returncode))
            scarce.start()
        return answers(site)
    wait_until("it to go on", goes_on, 30)
    lost = [k for k, v in kept.items() if request(site.http[1], "GET", k).body != v]
    lies = [k for k in undone if request(site.http[1], "GET", k).status != 404]
    crashed = [e for e in ends if e[1] < 0]
    site.ok(not crashed and not odd, "%d allocations failed while it ran: %d requests refused, %d orderly ends, crashes: %s %s"
            % (RUN_STEPS, refused, len(ends), crashed[:5], odd[:5]))
    site.ok(not lies, "%d keys were refused as not written, and none of them was: %s" % (len(undone), lies[:3]))
    site.ok(len(kept) > RUN_STEPS // 5 and not lost, "nothing that was answered is lost: %d keys %s" % (len(kept), lost[:3]))
    if WITH_CORE:
        site.wait_drained()
        there = {}
        for e in site.core_events():
            there.setdefault(e["id"], []).append((e["channel"], e["seq"]))
        wrong = [i for i, k in events.items() if there.get(i) != [(k["channel"], k["seq"])]]
        site.ok(events and not wrong, "all %d events that were taken are at the core, once each: %s" % (len(events), wrong[:3]))


def test(site):
    scarce = Scarce(site)
    try_starts(site, scarce)
    try_running(site, scarce)


if "address" in BUILD or "thread" in BUILD:
    print("ok 1 - # SKIP a sanitizer has an allocator of its own")
    sys.exit(0)
run_test(test, nodes=1, core=WITH_CORE)
