#!/usr/bin/env python3
"""link.py: what the link to the core carries and costs, and what a full queue costs at both ends.  A program of its own, because it moves to
a network namespace: it prints JSON.  Without root it measures only the queue.

The link is the relay of tests/system/badlink.py, without losses, which sees each packet: IP and TCP headers are counted as they are."""
import json, os, signal, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import badlink
from harness import ROOT, SITE, Site, request, wait_until
from ingest import peak_kib
from measure import proc

FAST = 1 << 27  # bytes a second of a relay that does not hold back
ROUND_TRIPS_S = (0.0, 0.6)
LIMITS = ((8000, 50), (125000, 400))  # bytes a second, 64 kbit/s and 1 Mbit/s; events of NOISE_BYTES that take some seconds at them
NOISE_BYTES = 12000  # hexadecimal digits, of which half cross
PING_S, IDLE_S, KEEPALIVE_S, DAY_S = 15, 120, 900, 86400
QUEUE_MB, BATCH = int(os.environ.get("BENCH_QUEUE_MB", "256")), 100  # of small events
FULL_BYTES, FULL_BATCH, CLIENTS = 8000, 16, 8  # of events that fill the queue; who sends them
DRAIN_S_MAX, SHRINK_S_MAX = 300, 180
LARGE_PACKET = 500  # bytes of one that carries events


def telemetry():
    with open(os.path.join(ROOT, "tests/wire/telemetry.jsonl")) as f:
        return f.read().splitlines()


def noise(count):
    return [json.dumps({"type": "bulk", "data": os.urandom(NOISE_BYTES // 2).hex()}) for _ in range(count)]


def post(site, lines):
    for i in range(0, len(lines), BATCH):
        a = request(site.http[1], "POST", "/v1/events", "[" + ",".join(lines[i:i + BATCH]) + "]", {"Content-Type": "application/json"}, 60)
        if a.status not in (200, 201):
            raise RuntimeError("events were not taken: %d %s" % (a.status, a.body[:200]))


def queue(site):
    return request(site.http[1], "GET", "/v1/queue").json()


def ended(site):
    site.finished = True
    site.cleanup()
    site.line.close()


def use(packets, limit):
    """What share of the limit was used from the first large packet to the last, after the beginning; and the longest time in it that a
    modem of just that rate would have had nothing to send."""
    large = [t for t, size in packets if size >= LARGE_PACKET]
    begin, end = large[0] + 2, large[-1]  # after the first two round trips
    free, longest, total = large[0], 0.0, 0
    for t, size in packets:
        if begin <= t < end:
            longest, total = max(longest, t - max(free, begin)), total + size
        if t < end:  # what went before the beginning keeps the modem busy beyond it
            free = max(free, t) + size / limit
    return total / (end - begin) / limit, longest


def drain(limit, lines, round_trip_s):
    """A backlog that was gathered while the core was away."""
    site = badlink.BadSite({"bytes_per_second": FAST, "delay_s": round_trip_s / 2, "loss": 0, "seed": 1}, nodes=1,
                           extra="  bandwidth: {limit_mbps: %.3f}\n" % (limit * 8 / 1e6))
    try:
        site.start()
        site.kill("core")
        post(site, lines)
        time.sleep(2.5)  # the site's last hello is too old then to answer the core's question
        before = [len(way) for way in site.line.sent]
        site.restart("core")
        site.wait_drained(150)
        up, down = (way[n:] for way, n in zip(site.line.sent, before))
        used, pause = use(up, limit)
        return {"used": used, "pause_ms": pause * 1000, "most_10s": badlink.most_in(up, 10) / (10 * limit),
                "bytes_per_event": (sum(z for _, z in up) + sum(z for _, z in down)) / len(lines)}
    finally:
        ended(site)


def idle():
    """Bytes of an idle day: of pings that come more often than in life, each with all its packets, as many as the default makes in a day."""
    site = badlink.BadSite({"bytes_per_second": FAST, "delay_s": 0, "loss": 0, "seed": 1}, nodes=3, upstream="keepalive_secs: %d" % PING_S)
    try:
        site.start()
        site.wait_drained()
        time.sleep(10)
        count = lambda: sum(z for way in site.line.sent for _, z in way)
        before = count()
        time.sleep(IDLE_S)
        return (count() - before) / (IDLE_S / PING_S) * DAY_S / KEEPALIVE_S
    finally:
        ended(site)


def data_bytes(site):
    total = 0
    for folder, _, names in os.walk(site.path("node1", "data")):
        total += sum(os.path.getsize(os.path.join(folder, name)) for name in names if ".db" in name)
    return total


def full():
    """One gateway with a full queue: its memory as it was filled, started anew, and while it drains; the core's; its files full and after."""
    site = Site(nodes=1, extra="  offline: {queue_size_mb: %d}\n" % QUEUE_MB)
    try:
        site.start()
        site.wait_drained()
        text = "".join(telemetry())
        site.kill("core")
        body = json.dumps([{"type": "fill", "priority": "low", "data": text[i * FULL_BYTES:(i + 1) * FULL_BYTES]} for i in range(FULL_BATCH)])
        is_full, errors = threading.Event(), []

        def client():
            while not is_full.is_set() and not errors:
                a = request(site.http[1], "POST", "/v1/events", body, {"Content-Type": "application/json"}, 60)
                if a.status not in (201, 429):
                    errors.append("events were not taken: %d %s" % (a.status, a.body[:200]))
        begin, clients = time.monotonic(), [threading.Thread(target=client) for _ in range(CLIENTS)]
        for c in clients:
            c.start()
        while queue(site)["channels"]["data"]["gap_events"] == 0 and not errors:
            time.sleep(0.5)
        is_full.set()
        for c in clients:
            c.join()
        if errors:
            raise RuntimeError(errors[0])
        filled = time.monotonic() - begin
        time.sleep(2)
        queued, files, rss = queue(site)["bytes"], data_bytes(site), proc(site.processes["node1"].pid)["rss"]
        site.kill("node1", signal.SIGTERM)
        begin = time.monotonic()
        site.restart("node1")
        site.leader()
        restarted, pid = time.monotonic() - begin, site.processes["node1"].pid
        time.sleep(2)
        rss_restarted = proc(pid)["rss"]
        site.restart("core")
        data = lambda: queue(site)["channels"]["data"]
        first = data()["acked_seq"]
        wait_until("the queue to move", lambda: data()["acked_seq"] > first, 60)
        waiting, begin = data()["pending"], time.monotonic()
        while data()["pending"] > 0:
            if time.monotonic() - begin > DRAIN_S_MAX:
                raise RuntimeError("%d of %d events wait after %d s" % (data()["pending"], waiting, DRAIN_S_MAX))
            time.sleep(0.5)
        drained = time.monotonic() - begin
        core, peak = peak_kib(site.processes["core"].pid), peak_kib(pid)
        begin, after = time.monotonic(), data_bytes(site)
        while after > files / 10 and time.monotonic() - begin < SHRINK_S_MAX:
            time.sleep(1)
            after = data_bytes(site)
        return {"queue_mib": queued / 2**20, "filled_s": filled, "rss": rss, "restart_s": restarted, "rss_restarted": rss_restarted, "rss_peak": peak, "core_rss_peak": core, "events_per_s": waiting / drained,
                "mib_per_s": queued / 2**20 / drained, "files_full": files, "files_after": after, "shrink_s": time.monotonic() - begin}
    finally:
        site.finished = True
        site.cleanup()


def report(put, result):
    """The rows of bench.py."""
    for d in result.get("drain", []):
        label = "%.3g Mbit/s, %.0f ms there and back" % (d["limit"] * 8 / 1e6, d["round_trip_s"] * 1000)
        put("link: share of the limit in use, drain at %s" % label, d["used"], "", aim_at_least=0.95)
        put("link: longest pause, drain at %s" % label, d["pause_ms"], "ms", aim=50)
        put("link: the most of any 10 s, of the limit, %s" % label, d["most_10s"], "", aim=1.02)
    if "missing" in result:
        print("# no figures of the link: %s" % result["missing"])
    else:
        put("link: bytes per event of telemetry in bulk, both ways, all headers", result["telemetry"]["bytes_per_event"], "B", aim=40)
        put("link: bytes of an idle day, reckoned from %d s" % IDLE_S, result["idle_day"], "B", aim=32768)
    f, label = result["full"], "%.0f MiB queued" % result["full"]["queue_mib"]
    put("queue: RSS of greyd, %s by %d clients" % (label, CLIENTS), f["rss"] / 1024, "MiB", aim=12)
    put("queue: RSS of greyd, %s, started anew" % label, f["rss_restarted"] / 1024, "MiB", aim=12)
    put("queue: largest RSS of greyd, %s, until it is drained" % label, f["rss_peak"] / 1024, "MiB", aim=12)
    put("queue: largest RSS of the core meanwhile", f["core_rss_peak"] / 1024, "MiB")
    put("queue: from exec to leading, %s" % label, f["restart_s"], "s")
    put("queue: MiB/s into the core's database, events of %d bytes" % FULL_BYTES, f["mib_per_s"], "MiB/s")
    put("queue: files full, of what is queued", f["files_full"] / 2**20 / f["queue_mib"], "")
    put("queue: files %.0f s after the drain, of what they were" % f["shrink_s"], f["files_after"] / f["files_full"], "", aim=0.1)


def main():
    result = {"queue_mb": QUEUE_MB, "full": full()}
    missing = badlink.enter()
    if missing:
        result["missing"] = missing
    else:
        result["telemetry"] = drain(LIMITS[0][0], telemetry(), 0)
        result["drain"] = [dict(drain(limit, noise(count), s), limit=limit, round_trip_s=s) for limit, count in LIMITS for s in ROUND_TRIPS_S]
        result["idle_day"] = idle()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
