#!/usr/bin/env python3
"""Clients of all three gateways must never see a site that no single register could be: a stale read or a lost update is wrong control.

Gateways are killed, paused and cut off at random meanwhile.  GREY_SEED repeats the choices (not the timing), GREY_SECONDS sets the length."""
from harness import *
from linearize import history_is_linearizable

SEED = int(os.environ.get("GREY_SEED") or random.randrange(1 << 32))
SECONDS = float(os.environ.get("GREY_SECONDS") or 60)
CLIENTS, KEYS, KEYS_LIVE_S = 6, 3, 4  # new keys every few seconds: a write of unknown fate burdens the judge to the end of its key
OUTCOME = {200: "ok", 201: "ok", 204: "ok", 404: "unmet", 412: "unmet"}


class Clients:
    """Threads that use few keys through any gateway and write down what they were told."""

    def __init__(self, site):
        self.site, self.begin, self.stop, self.lock = site, time.monotonic(), threading.Event(), threading.Lock()
        self.history, self.odd, self.stale, self.unmarked, self.refused = [], [], 0, 0, 0
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(CLIENTS)]
        for t in self.threads:
            t.start()

    def run(self, worker):
        chance, count, seen = random.Random("%d client %d" % (SEED, worker)), 0, {}
        while not self.stop.is_set():
            count += 1
            key = "reg-%d-%d" % ((time.monotonic() - self.begin) / KEYS_LIVE_S, chance.randrange(KEYS))
            kind, node = chance.choice(["read", "read", "write", "create", "swap", "swap", "delete", "stale"]), chance.choice(self.site.nodes)
            if kind == "swap" and key not in seen:
                kind = "read"
            try:
                self.one(kind, node, key, "%d-%d" % (worker, count), seen)
            except Exception as e:  # a client that dies silently would make the run look better than it is
                self.odd.append("%s: %s" % (type(e).__name__, e))
            time.sleep(chance.random() * 0.03)

    def one(self, kind, node, key, value, seen):
        port, path, headers = self.site.http[node], "/v1/kv/" + key, {}
        if kind == "stale":
            try:
                a = request(port, "GET", path + "?consistency=stale", timeout=3)
            except (OSError, http.client.HTTPException):
                return
            with self.lock:
                self.stale += a.status == 200
                self.unmarked += a.status == 200 and a.headers.get("x-grey-stale") != "true"
            return
        op = {"key": key, "kind": kind, "node": node, "begin": time.monotonic()}
        if kind in ("write", "create", "swap"):
            op["value"] = value
        if kind == "swap":
            op["match"] = seen[key]
            headers["If-Match"] = '"%d"' % op["match"]
        elif kind == "create":
            headers["If-None-Match"] = "*"
        try:
            a = request(port, {"read": "GET", "delete": "DELETE"}.get(kind, "PUT"), path, op.get("value"), headers, 5)
        except ConnectionRefusedError:
            with self.lock:
                self.refused += 1
            return  # nothing was sent
        except (OSError, http.client.HTTPException):
            a = None
        op["end"] = time.monotonic()
        status = a.status if a else None
        if status in (429, 503) or (kind == "read" and status in (None, 504)):
            with self.lock:
                self.refused += 1
            return  # certainly without effect
        if kind == "read" and status == 404:
            op.update(outcome="ok", value=None, version=None)
        elif status in (None, 504):
            op["outcome"] = "unknown"
        elif status in OUTCOME and not (status == 404 and kind != "delete"):
            op["outcome"] = OUTCOME[status]
            if op["outcome"] == "ok" and kind != "delete":
                op["version"] = seen[key] = int(a.headers["etag"].strip('"'))
            if kind == "read":
                op["value"] = a.body.decode()
        else:
            op["outcome"] = "unknown"
            self.odd.append("%s: %d %s" % (kind, status, a.body[:120]))
        with self.lock:
            self.history.append(op)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(20)
        return sorted(self.history, key=lambda o: o["begin"])


def torment(site, seconds, enough):
    """One fault after the other, of each kind and until there is enough; at most one gateway is away at a time, so that the site goes on."""
    chance, deadline, counts = random.Random("%d nemesis" % SEED), time.monotonic() + seconds, {"kill": 0, "pause": 0, "cut": 0}
    while time.monotonic() < deadline or (not (all(counts.values()) and enough()) and time.monotonic() < deadline + 2 * seconds):
        what, node = chance.choice(sorted(counts)), chance.choice(site.nodes)
        name, away = "node%d" % node, 0.1 + 2.9 * chance.random()
        counts[what] += 1
        if what == "kill":
            site.kill(name)
            time.sleep(away)
            site.start_node(node)
        elif what == "pause":
            site.kill(name, signal.SIGSTOP)
            time.sleep(away)
            site.kill(name, signal.SIGCONT)
        else:
            site.isolate(node)
            time.sleep(away)
            site.heal()
        time.sleep(0.5 + chance.random())
    return counts


def forge(site, history):
    """The judge must refuse this run's own history once one answer in it is made wrong."""
    unsure = {o["key"] for o in history if o["outcome"] == "unknown"}
    history, writes = [o for o in history if o["key"] not in unsure], {}
    for o in history:
        if o["kind"] in ("write", "create", "swap") and o["outcome"] == "ok":
            writes.setdefault(o["key"], []).append(o)
    a, b = next((a, b) for w in writes.values() for a in w for b in w if a["end"] < b["begin"])
    late = max(o["end"] for o in history) + 1
    read = dict(key=a["key"], kind="read", begin=late, end=late + 1, outcome="ok", value=a["value"], version=a["version"])
    site.ok(history_is_linearizable([o for o in history if o["key"] == a["key"]] + [read])[0] is False, "a forged stale read is refused")
    swap = next(o for o in history if o["kind"] == "swap" and o["outcome"] == "ok")
    twice = dict(swap, begin=swap["end"] + 1e-6, end=late, value="lost update", version=1 << 62)
    site.ok(history_is_linearizable([o for o in history if o["key"] == swap["key"]] + [twice])[0] is False, "a forged lost update, two swaps of one version, is refused")


def test(site):
    print("# GREY_SEED=%d" % SEED, flush=True)
    clients = Clients(site)
    counts = torment(site, SECONDS, lambda: len(clients.history) > 20 * SECONDS)
    site.wait_whole()
    time.sleep(1)
    history = clients.end()
    unknown = sum(o["outcome"] == "unknown" for o in history)
    print("# %d operations (%d of unknown outcome, %d reads), %d refused, %d stale reads; %s"
          % (len(history), unknown, sum(o["kind"] == "read" for o in history), clients.refused, clients.stale, counts), flush=True)
    good, why = history_is_linearizable(history)
    if good is not True:
        path = os.path.join(tempfile.gettempdir(), "grey-history-%d.jsonl" % SEED)
        with open(path, "w") as f:
            f.writelines(json.dumps(o) + "\n" for o in history)
        print("# the history is kept in %s: tests/system/linearize.py judges it again" % path)
        for sentence in why:
            print("# " + sentence)
    site.ok(good is True, "%d operations under %d faults, seed %d: linearizable" % (len(history), sum(counts.values()), SEED))
    site.ok(not clients.odd, "every answer was one that the API promises %s" % clients.odd[:3])
    site.ok(len(history) > 20 * SECONDS and all(counts.values() or [0]) or SECONDS < 30, "there was enough to judge")
    site.ok(clients.stale > 0 and clients.unmarked == 0, "all %d stale reads said so" % clients.stale)
    forge(site, history)
    site.wait_same_state()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a time-out of the runner: leave no gateway behind
    run_test(test, links=True, core=False)
