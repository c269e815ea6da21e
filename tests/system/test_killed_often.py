#!/usr/bin/env python3
"""A site of three whose gateways are killed at random moments of start, work and stop, one or several at once, under load.  If this failed, a
plant whose power flickers would lose what it was answered, fill its flash with what kills leave behind, or need somebody to drive there."""
from harness import *

KILLS = int(os.environ.get("GREY_KILLS") or 30)
SEED = int(os.environ.get("GREY_SEED") or random.SystemRandom().getrandbits(31))
FOLDER_BYTES_MAX = 64 << 20


class Load:
    """One client: each key is written once; what was answered must stay.  An answer that did not come says nothing."""

    def __init__(self, site, worker):
        self.site, self.worker, self.kept, self.events, self.odd, self.running = site, worker, [], 0, [], True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        number, node = 0, random.Random(self.worker)
        while self.running:
            number += 1
            key, port = "w%d-%d" % (self.worker, number), self.site.http[node.choice(self.site.nodes)]
            try:
                if number % 3 == 0:
                    a = request(port, "POST", "/v1/events", json.dumps({"source": "killed", "type": "t", "id": key, "data": number}), timeout=10)
                    self.events += a.status in (200, 201)
                else:
                    a = request(port, "PUT", "/v1/kv/" + key, key, timeout=10)
                    if a.status in (200, 201):
                        self.kept.append(key)
                if a.status not in (200, 201, 202, 429, 503, 504):
                    self.odd.append((key, a.status, a.body[:120]))
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)


def folder(site, n):
    """Its files, and the bytes in them."""
    names, size = set(), 0
    for at, _, files in os.walk(site.path("node%d" % n, "data")):
        for name in files:
            try:
                size += os.lstat(os.path.join(at, name)).st_size
                names.add(name)
            except OSError:
                pass
    return names, size


def watch(site, ended):
    """A gateway that ended by itself, told and started again."""
    for n in site.nodes:
        p = site.processes["node%d" % n]
        if p.poll() is not None and p.returncode != -signal.SIGKILL:
            ended.append((n, p.returncode))
            site.start_node(n)


def test(site):
    dice, ended, phases, most, kills = random.Random(SEED), [], {"start": 0, "work": 0, "stop": 0}, 0, 0
    print("# seed %d" % SEED)
    site.kill("node3")
    began = time.monotonic()
    site.start_node(3)
    wait_until("a start", lambda: request(site.http[3], "GET", "/health/live").status == 200, 60)
    start_s = max(time.monotonic() - began, 0.05)
    loads = [Load(site, worker) for worker in range(3)]
    for i in range(KILLS):
        watch(site, ended)
        nodes = dice.sample(site.nodes, dice.choice((1, 1, 1, 2, 3)))
        phase = dice.choice(("start", "start", "work", "stop"))
        phases[phase] += 1
        kills += len(nodes) * (2 if phase == "start" else 1)
        for n in nodes:
            if phase == "stop":
                site.processes["node%d" % n].send_signal(signal.SIGTERM)
        time.sleep(dice.uniform(0, {"start": 0, "work": 0.3, "stop": 0.1}[phase]))
        for n in nodes:
            site.kill("node%d" % n)
            site.start_node(n)
        if phase == "start":
            time.sleep(dice.uniform(0, 1.2 * start_s))
            for n in nodes:
                watch(site, ended)
                site.kill("node%d" % n)
                site.start_node(n)
        if i % 15 == 14:
            before = sum(len(l.kept) for l in loads)
            wait_until("answers to go on after %d kills" % (i + 1), lambda: watch(site, ended) or sum(len(l.kept) for l in loads) > before, 120)
            most = max([most] + [folder(site, n)[1] for n in site.nodes])
    for l in loads:
        l.running = False
        l.thread.join(30)
    watch(site, ended)
    site.wait_whole(180)
    site.wait_same_state()
    ended = [e for e in ended if e[1] != 0]  # told to stop, it did
    site.ok(not ended, "killed %d times in %d rounds (%s), each came back by itself: %s" % (kills, KILLS, phases, ended[:5]))
    site.ok(not any(l.odd for l in loads), "no answer was strange: %s" % [l.odd[:2] for l in loads])
    c, lost = http.client.HTTPConnection("127.0.0.1", site.http[site.leader()], timeout=30), []

    def read(key):
        try:
            c.request("GET", "/v1/kv/" + key)
            r = c.getresponse()
            return r.status, r.read()
        except OSError:
            c.close()
            raise
    for key in sorted(key for l in loads for key in l.kept):
        if wait_until("an answer", lambda: (lambda a: a[0] in (200, 404) and a)(read(key)), 60) != (200, key.encode()):
            lost.append(key)
    kept, events = sum(len(l.kept) for l in loads), sum(l.events for l in loads)
    site.ok(not lost and kept >= KILLS / 15, "all %d writes that were answered are there: %s" % (kept, lost[:5]))
    numbered = sum(channel["next_seq"] - 1 for channel in site.queue(site.leader()).values())
    site.ok(numbered >= events, "and all %d events: %d" % (events, numbered))
    left = lambda found: sorted(x for x in found if "damaged" in x or ".new" in x or ".tmp" in x or "mend" in x)
    wait_until("snapshots that are being written to be done", lambda: not any(left(folder(site, n)[0]) for n in site.nodes), 60)
    names = [folder(site, n)[0] for n in site.nodes]
    strange = [left(found) for found in names]
    site.ok(most < FOLDER_BYTES_MAX and all(len(found) < 25 for found in names) and not any(strange),
            "a folder had %.1f MiB at most, and has %d files: %s" % (most / 1048576, max(len(found) for found in names), strange))


run_test(test, core=False, extra="consensus: {snapshot_threshold: 200, snapshots_kept: 2}\n")
