#!/usr/bin/env python3
"""Epochs: every write is answered with the epoch of the leader that proposed it; epochs rise with leaders and never go back along the log,
also when a leader is stopped and wakes up believing that it leads; what it sent meanwhile neither counts at the site nor at the core."""
from harness import *


class Writer:
    """Sends events through all gateways and notes the index and epoch of each answer."""

    def __init__(self, site):
        self.site, self.answers, self.stopped, self.lock = site, [], False, threading.Lock()
        self.sent = 0
        self.threads = [threading.Thread(target=self.run, args=(w,), daemon=True) for w in range(4)]
        for t in self.threads:
            t.start()

    def run(self, worker):
        number = 0
        while not self.stopped:
            body = json.dumps({"id": "w%d-%d" % (worker, number), "source": "fencing", "type": "t", "priority": "critical", "data": number})
            n = self.site.nodes[(worker + number) % len(self.site.nodes)]
            while not self.stopped:
                try:
                    a = request(self.site.http[n], "POST", "/v1/events", body, {"Content-Type": "application/json"}, timeout=6)
                    if a.status in (200, 201):
                        first = a.json()["accepted"][0]
                        with self.lock:
                            self.answers.append((first["index"], int(a.headers["x-grey-epoch"]), first.get("duplicate", False), first["id"]))
                        break
                except (OSError, http.client.HTTPException, ValueError):
                    pass
                n = n % len(self.site.nodes) + 1
                time.sleep(0.05)
            number += 1

    def stop(self):
        self.stopped = True
        for t in self.threads:
            t.join()


def test(site):
    def answered():
        """The epoch of a write, where its leader leads still."""
        epoch = int(request(site.http[site.leader()], "PUT", "/v1/kv/before", "x").headers["x-grey-epoch"])
        return epoch if epoch == site.status(site.leader())["term"] else None
    first = wait_until("a write that is answered with the leader's epoch", answered, 30)
    site.ok(True, "a write is answered with the leader's epoch (%d)" % first)
    w = Writer(site)
    epochs = [first]
    for pause in (0.6, 1.5, 3.0, 0.8):
        time.sleep(1)
        old = site.leader()
        others = [n for n in site.nodes if n != old]
        site.kill("node%d" % old, signal.SIGSTOP)
        def higher():
            try:
                return request(site.http[others[0]], "PUT", "/v1/kv/during", "x", timeout=6)
            except OSError:
                return None
        a = wait_until("a write beside the stopped leader", lambda: (lambda r: r if r is not None and r.status in (200, 201) else None)(higher()), 30)
        epochs.append(int(a.headers["x-grey-epoch"]))
        time.sleep(pause)
        site.kill("node%d" % old, signal.SIGCONT)
        wait_until("the old leader to follow", lambda: site.status(old)["role"] == "follower" and site.status(old)["leader_id"] != "", 30)
        a = wait_until("a write through it", lambda: [a for a in [request(site.http[old], "PUT", "/v1/kv/after", "x")] if a.status in (200, 201)])[0]
        epochs.append(int(a.headers["x-grey-epoch"]))
    w.stop()
    site.ok(epochs == sorted(epochs) and len(set(epochs)) >= 4, "epochs rise with leaders: %s" % epochs)
    noted = sorted((index, epoch) for index, epoch, again, _ in w.answers if not again)
    site.ok(len(noted) > 100 and all(x[1] <= y[1] for x, y in zip(noted, noted[1:])),
            "along the log no answer's epoch goes back (%d answers)" % len(noted))
    site.wait_same_state()  # gateway 1 has all that was answered
    entries, at = [], 1
    while at:
        page = request(site.http[1], "GET", "/v1/audit?limit=1000&from=%d" % at).json()
        entries += page["entries"]
        at = page["next"]
    site.ok(all(x["epoch"] <= y["epoch"] for x, y in zip(entries, entries[1:])), "nor does that of any of the %d entries" % len(entries))
    by_index = {e["index"]: e["epoch"] for e in entries}
    site.ok(all(by_index[i] == e for i, e in noted), "what clients were told is what stands in the log")
    r = site.ctl("audit", "verify")
    site.ok(r.returncode == 0, r.stdout.strip())
    site.wait_drained()
    at_core = [e["id"] for e in site.core_events() if e["source"] == "fencing"]
    told = {i for _, _, _, i in w.answers}
    site.ok(len(at_core) == len(set(at_core)) and told <= set(at_core), "every answered event is at the core once (%d)" % len(told))


run_test(test, extra="intake: {commit_delay_ms: 0}\n")
