#!/usr/bin/env python3
"""Clients read and write few keys over all three gateways while these are killed, stopped and cut off at random; what the clients saw
must be what one register, changed by one operation at a time, could have shown.  SECONDS and SEED may be given in the environment."""
from harness import *
import linearize

SECONDS = int(os.environ.get("SECONDS_OF_CHAOS", "45"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
KEYS = ["a", "b", "c", "d"]


class Client(threading.Thread):
    def __init__(self, site, number):
        super().__init__(daemon=True)
        self.site, self.number, self.history, self.stop = site, number, [], False
        self.chance = random.Random(SEED * 100 + number)
        self.seen = {}

    def one(self, i):
        chance, key = self.chance, self.chance.choice(KEYS)
        kind = chance.choices(["read", "write", "swap", "create", "delete"], [45, 25, 18, 7, 5])[0]
        if kind == "swap" and key not in self.seen:
            kind = "read"
        op = {"key": key, "kind": kind, "begin": time.monotonic()}
        headers, value = {}, "%d.%d" % (self.number, i)
        if kind in ("write", "swap", "create"):
            op["value"] = value
        if kind == "swap":
            op["match"] = self.seen[key]
            headers["If-Match"] = '"%d"' % op["match"]
        elif kind == "create":
            headers["If-None-Match"] = "*"
        port = self.site.http[chance.choice(self.site.nodes)]
        method = {"read": "GET", "delete": "DELETE"}.get(kind, "PUT")
        try:
            a = request(port, method, "/v1/kv/lin-" + key, op.get("value"), headers, timeout=8)
        except ConnectionRefusedError:
            return  # certainly nothing
        except (OSError, http.client.HTTPException):
            a = None
        op["end"] = time.monotonic()
        etag = a.headers.get("etag") if a else None
        version = int(etag.strip('"')) if etag else None
        if a is None or a.status == 504:
            if kind == "read":
                return
            op["outcome"] = "unknown"
        elif a.status in (503, 429):
            return
        elif kind == "read" and a.status in (200, 404):
            op.update(outcome="ok", value=a.body.decode() if a.status == 200 else None, version=version if a.status == 200 else None)
            if a.status == 200:
                self.seen[key] = version
        elif a.status in (200, 201, 204):
            op["outcome"] = "ok"
            if kind != "delete":
                op["version"] = version
                self.seen[key] = version
        elif a.status == 412 or (kind == "delete" and a.status == 404):
            op["outcome"] = "unmet"
        else:
            raise AssertionError("%s %s: %d %s" % (method, key, a.status, a.body))
        self.history.append(op)

    def run(self):
        i = 0
        while not self.stop:
            i += 1
            self.one(i)
            time.sleep(self.chance.random() * 0.02)


def nemesis(site, until):
    chance, counts = random.Random(SEED), {}
    while time.time() < until:
        deed = chance.choice(["kill", "kill", "pause", "pause", "isolate", "isolate", "rest"])
        counts[deed] = counts.get(deed, 0) + 1
        victim = chance.choice(site.nodes)
        name = "node%d" % victim
        if deed == "kill":
            site.kill(name)
            time.sleep(chance.random() * 1.5)
            site.restart(name)
        elif deed == "pause":
            site.processes[name].send_signal(signal.SIGSTOP)
            time.sleep(0.1 + chance.random() * 2.9)
            site.processes[name].send_signal(signal.SIGCONT)
        elif deed == "isolate":
            site.isolate(victim)
            time.sleep(0.5 + chance.random() * 2.5)
            site.heal()
        time.sleep(chance.random() * 1.5)
    return counts


def test(site):
    print("# SEED=%d" % SEED, flush=True)
    clients = [Client(site, i) for i in range(8)]
    for c in clients:
        c.start()
    counts = nemesis(site, time.time() + SECONDS)
    site.wait_whole()
    time.sleep(2)
    for c in clients:
        c.stop = True
    for c in clients:
        c.join(30)
    history = sorted((op for c in clients for op in c.history), key=lambda op: op["begin"])
    unknown = sum(op["outcome"] == "unknown" for op in history)
    site.ok(len(history) > 20 * SECONDS, "%d operations, %d of unknown outcome, while: %s" % (len(history), unknown, counts))
    with open(site.path("history.jsonl"), "w") as f:
        f.writelines(json.dumps(op) + "\n" for op in history)
    good, why = linearize.history_is_linearizable(history)
    site.ok(good is True, "the history is linearizable %s" % why)
    stale = [dict(op) for op in history]  # the last read of a key says what was there long before: the checker must see it
    reads = [op for op in stale if op["kind"] == "read" and op["outcome"] == "ok" and op["version"]]
    first, last = reads[0], [r for r in reads if r["key"] == reads[0]["key"]][-1]
    last["value"], last["version"] = first["value"], first["version"]
    site.ok(linearize.history_is_linearizable(stale)[0] is False, "and with one stale read put in it is refused")
    site.wait_same_state()


run_test(test, core=False, links=True)
