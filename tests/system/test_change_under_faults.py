#!/usr/bin/env python3
"""Gateways are removed, wiped and taken in again, and leadership moves, while others are killed, paused and cut off (FAULTS R10).  If it
failed, a gateway that is exchanged on a bad day would take answers with it that clients already had.

Most of what others got wrong in consensus needed just this mixture.  GREY_SEED repeats the choices (not the timing), GREY_SECONDS sets the length."""
from harness import *
from linearize import history_is_linearizable
from test_linearizable import Clients, SEED

SECONDS = float(os.environ.get("GREY_SECONDS") or 20)


def voters(site, among):
    """Names of the voters and their raft ids, as the leader has them; None while nobody leads."""
    for n in among:
        try:
            s = site.status(n)
        except (OSError, http.client.HTTPException, ValueError):
            continue
        if s["role"] == "leader" and s["quorum"]:
            return {int(m["id"]): m["raft_id"] for m in s["members"] if m["kind"] == "voter"}
    return None


class Nemesis:
    """Short faults, of one gateway at a time, never of the one that is being exchanged: that one is away as it is."""

    def __init__(self, site):
        self.site, self.spared, self.stop, self.busy = site, None, threading.Event(), threading.Lock()
        self.counts = {"kill": 0, "pause": 0, "cut": 0}
        self.errors = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        chance = random.Random("%d nemesis" % SEED)
        while not self.stop.is_set():
            what, away = chance.choice(sorted(self.counts)), 0.1 + 1.4 * chance.random()
            with self.busy:
                node = chance.choice([n for n in self.site.nodes if n != self.spared])
                try:
                    self.strike(what, node, away)
                except Exception as e:
                    self.errors.append("%s: %s" % (type(e).__name__, e))
            time.sleep(0.3 + chance.random())

    def strike(self, what, node, away):
        name = "node%d" % node
        self.counts[what] += 1
        if what == "kill":
            self.site.kill(name)
            time.sleep(away)
            self.site.start_node(node)
        elif what == "pause":
            self.site.kill(name, signal.SIGSTOP)
            time.sleep(away)
            self.site.kill(name, signal.SIGCONT)
        else:
            self.site.isolate(node)
            time.sleep(away)
            self.site.heal()

    def spare(self, node):
        with self.busy:  # a fault that has begun ends first
            self.spared = node

    def end(self):
        self.stop.set()
        self.thread.join(30)


def take_in_again(site, nemesis, node, was):
    """With an empty directory; until it is a voter under another raft id."""
    shutil.rmtree(site.path("node%d" % node, "data"))
    site.start_node(node, bootstrap=True)
    nemesis.spare(None)

    def back():
        now = voters(site, site.nodes)
        return now is not None and len(now) == 3 and now[node] != was
    wait_until("gateway %d to be a voter again" % node, back, 90)


def remove(site, nemesis, node):
    others = [n for n in site.nodes if n != node]

    def removed():
        for n in others:  # refused while too few answer, and asked again
            try:
                request(site.http[n], "DELETE", "/v1/admin/members/%d" % node, timeout=5)
            except (OSError, http.client.HTTPException):
                pass
        now = voters(site, others)
        return now is not None and node not in now
    wait_until("gateway %d to be removed" % node, removed, 90)
    site.kill("node%d" % node)


def change(site, nemesis, what, node):
    if what == "transfer":
        for n in site.nodes:
            try:
                if request(site.http[n], "POST", "/v1/admin/transfer-leader", json.dumps({"to": str(node)}), timeout=5).status == 202:
                    return True
            except (OSError, http.client.HTTPException):
                pass
        return False
    nemesis.spare(node)
    was = wait_until("a leader that has gateway %d as a voter" % node, lambda: (voters(site, site.nodes) or {}).get(node), 60)
    if what == "remove":
        remove(site, nemesis, node)
    else:
        site.kill("node%d" % node)
    take_in_again(site, nemesis, node, was)
    return True


def test(site):
    print("# GREY_SEED=%d" % SEED, flush=True)
    chance, counts = random.Random("%d operator" % SEED), {"remove": 0, "wipe": 0, "transfer": 0}
    clients, nemesis, deadline = Clients(site), Nemesis(site), time.monotonic() + SECONDS
    while time.monotonic() < deadline or not all(counts.values()):
        missing = [w for w in sorted(counts) if not counts[w]]
        what = chance.choice(missing if missing and chance.random() < 0.7 else sorted(counts))
        counts[what] += change(site, nemesis, what, chance.choice(site.nodes))
        time.sleep(0.5 * chance.random())
    nemesis.end()
    site.wait_whole()
    history = clients.end()
    faults = dict(counts, **nemesis.counts)
    good, why = history_is_linearizable(history)
    for sentence in [] if good is True else why:
        print("# " + sentence)
    site.ok(good is True, "%d operations, %s, seed %d: linearizable" % (len(history), faults, SEED))
    site.ok(not clients.odd and not nemesis.errors, "every answer was one that the API promises %s %s" % (clients.odd[:3], nemesis.errors[:3]))
    site.ok(len(history) > 5 * SECONDS and sum(nemesis.counts.values()) > 3, "there was enough to judge")
    site.wait_same_state()
    site.ok(True, "all three hold the same state")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a time-out of the runner: leave no gateway behind
    run_test(test, links=True, core=False)
