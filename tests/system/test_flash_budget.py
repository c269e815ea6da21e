#!/usr/bin/env python3
"""A bound on what is written to flash in a day.  If it failed, a gateway that takes many events would wear its flash out years early and
nobody would hear of it; or the spared disk would cost somebody a critical event, or an answer."""
from harness import *
import concurrent.futures

LIMIT_MB = 3


class FlashSite(Site):
    def write_config(self, n):
        super().write_config(n)
        path = self.path("node%d" % n, "greyd.yaml")
        with open(path) as f:
            text = f.read().replace("storage: {", "storage: {max_write_mb_per_day: %d, " % LIMIT_MB)
        with open(path, "w") as f:
            f.write(text)


def storage(site, n):
    return request(site.http[n], "GET", "/health/detailed").json()["checks"]["storage"]


def written(site, n):
    """Bytes, once nothing is written any more: what was written is looked at each second, and what came before goes on for a while."""
    before = [-1]

    def rest():
        time.sleep(2.5)
        now, last = storage(site, n)["written_day_bytes"], before[0]
        before[0] = now
        return now == last
    wait_until("the disk to be at rest", rest)
    return before[0]


def send(site, n, what, count, pause=0.1):
    """Events that come one by one, whether or not the one before is answered; the slowest answer in seconds, and bytes that the disk took."""
    def one(i):
        begun = time.monotonic()
        a = request(site.http[n], "POST", "/v1/events", json.dumps({"source": "press-1", "type": "x", "id": "%s-%d" % (what, i), "priority": "normal",
                                                                    "data": {"text": "%0200d" % i}}), timeout=60)
        assert a.status in (200, 201, 202), (a.status, a.body)
        return time.monotonic() - begun
    before, running = written(site, n), []
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for i in range(count):
            running.append(pool.submit(one, i))
            time.sleep(pause)
        slowest = max(r.result() for r in running)
    return slowest, written(site, n) - before


def test(site):
    leader = site.leader()
    first = storage(site, leader)
    site.ok(first["wear"] == "low" and first["written_day_limit_bytes"] == LIMIT_MB * 1000000, "a gateway says what it may write: %s" % first["wear"])
    _, free = send(site, leader, "free", 80)
    round, levels = 0, []  # it is looked at each second, and a checkpoint writes a third of the bound at once: `high` may be passed by
    while any(storage(site, n)["wear"] != "over" for n in site.nodes):  # whoever leads next spares its disk, too
        levels.append(storage(site, leader)["wear"])
        round += 1
        assert round < 200, storage(site, leader)
        a = request(site.http[leader], "POST", "/v1/events", json.dumps([{"source": "press-1", "type": "y", "id": "fill-%d-%d" % (round, i), "priority": "normal",
                    "data": {"text": os.urandom(500).hex()}} for i in range(100)]), timeout=60)
        assert a.status in (200, 201, 202), (a.status, a.body)
    over = storage(site, leader)
    site.ok(over["written_day_bytes"] >= LIMIT_MB * 1000000 and over["status"] == "degraded", "above the bound it says so: %d bytes" % over["written_day_bytes"])
    site.ok(request(site.http[leader], "GET", "/health").status == 200, "and works on")
    with open(site.path("node%d.log" % leader), errors="replace") as f:
        log = f.read()
    over_lines = [line for line in log.splitlines() if "diskwear over" in line]
    site.ok(len(over_lines) == 1 and "max_write_mb_per_day" in over_lines[0], "its log says so once, and names the bound: %s" % over_lines)
    site.ok("high" not in levels or "diskwear high" in log, "and warned before: %s" % sorted(set(levels)))
    said = site.ctl("status", node=leader)
    site.ok("written" in said.stdout, "greyctl status says it: %s" % [l for l in said.stdout.splitlines() if "storage" in l])

    for turn in range(3):  # a checkpoint, which writes a third of the bound at once, may fall into one of them
        slowest, spared = send(site, leader, "spared%d" % turn, 80)
        if spared < free / 2:
            break
    print("# 80 events, ten in a second, cost %d bytes before, %d above the bound; slowest answer %.1f s" % (free, spared, slowest))
    site.ok(spared < free / 2, "events below critical share their writes: %d bytes where it were %d" % (spared, free))
    before = request(site.http[leader], "GET", "/v1/cluster/status").json()["commit_index"]
    for i in range(20):
        a = request(site.http[leader], "POST", "/v1/events", json.dumps({"source": "press-1", "type": "alarm", "id": "urgent-%d" % i, "priority": "critical"}))
        assert a.status in (200, 201, 202), (a.status, a.body)
    later = lambda: request(site.http[leader], "GET", "/v1/cluster/status").json()["commit_index"] - before
    wait_until("20 entries", lambda: later() >= 20)
    entries = later()
    site.ok(entries >= 20, "a critical event waits for nobody: %d entries for 20" % entries)

    for n in site.nodes:
        site.kill("node%d" % n, signal.SIGTERM)
    for n in site.nodes:
        site.restart("node%d" % n)
    site.wait_whole()
    kept = wait_until("it to be looked at", lambda: [s for s in [storage(site, leader)] if s["wear"] == "over"])[0]
    site.ok(kept["written_day_bytes"] >= over["written_day_bytes"] and kept["wear"] == "over", "a restart forgets nothing of it")
    site.wait_same_state()


run_test(test, FlashSite, core=False)
