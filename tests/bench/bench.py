#!/usr/bin/env python3
"""bench.py: the figures of docs/BENCHMARKS.md, measured now: Grey Edge, etcd 3.4 and the limits of this machine on the same work, in one run.
Prints a table and writes build/bench.json.  Everything is on loopback, bounded in time and stopped at the end."""
import json, os, shutil, signal, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from harness import BUILD, ROOT, Site, free_ports, request, wait_until

VALUE = 256
ONE, MANY = 2000, 40000  # requests with 1 and with 64 clients
rows, figures = [], {}


def put(name, value, unit, against="", ratio=None):
    figures[name] = {"value": value, "unit": unit, "against": against, "ratio": ratio}
    rows.append((name, "%.4g" % value, unit, against, "" if ratio is None else "%.2f" % ratio))


def load(kind, port, clients, requests):
    out = subprocess.run([os.path.join(BUILD, "load"), kind, "127.0.0.1:%d" % port, str(clients), str(requests), str(VALUE)], stdout=subprocess.PIPE, text=True, timeout=300)
    assert out.returncode == 0, "the load generator failed"
    return json.loads(out.stdout)


def proc(pid):
    """CPU seconds, resident and proportional KiB, bytes written to storage and by write calls."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    with open("/proc/%d/smaps_rollup" % pid) as f:
        memory = {l.split(":")[0]: int(l.split()[1]) for l in f if l.startswith(("Rss:", "Pss:"))}
    with open("/proc/%d/io" % pid) as f:
        io = {k: int(v) for k, v in (l.strip().split(": ") for l in f)}
    return {"cpu": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), "rss": memory["Rss"], "pss": memory["Pss"], "disk": io["write_bytes"], "wchar": io["wchar"]}


def loopback_bytes():
    with open("/proc/net/dev") as f:
        for line in f:
            if line.strip().startswith("lo:"):
                return int(line.split(":")[1].split()[8])


def measure(kind, port, pids, leader_pid):
    """The same work for either system."""
    result = {}
    time.sleep(3)
    before, wire = [proc(p) for p in pids], loopback_bytes()
    time.sleep(5)
    after = [proc(p) for p in pids]
    result["idle_wire"] = (loopback_bytes() - wire) / 5
    result["idle_cpu"] = sum(a["cpu"] - b["cpu"] for a, b in zip(after, before)) / 5 * 100
    result["idle_rss"], result["idle_pss"] = max(a["rss"] for a in after), max(a["pss"] for a in after)
    load(kind, port, 8, 500)
    for name, clients, requests in (("one", 1, ONE), ("many", 64, MANY)):
        before, wire, disk = [proc(p) for p in pids], loopback_bytes(), proc(leader_pid)
        result[name] = load(kind, port, clients, requests)
        end, after = proc(leader_pid), [proc(p) for p in pids]
        result[name]["cpu_per_1000"] = sum(a["cpu"] - b["cpu"] for a, b in zip(after, before)) / requests * 1000
        result[name]["wire"] = (loopback_bytes() - wire) / (requests * VALUE)
        result[name]["disk"] = (end["disk"] - disk["disk"]) / (requests * VALUE)
        result[name]["wchar"] = (end["wchar"] - disk["wchar"]) / (requests * VALUE)
    after = [proc(p) for p in pids]
    result["load_rss"], result["load_pss"] = max(a["rss"] for a in after), max(a["pss"] for a in after)
    return result


def bench_etcd(scratch):
    binary = shutil.which("etcd")
    if binary is None:
        print("etcd is not installed: no comparison with it")
        return None
    ports, processes = free_ports(6), []
    cluster = ",".join("n%d=http://127.0.0.1:%d" % (i, ports[3 + i]) for i in range(3))
    try:
        for i in range(3):
            peer, client = "http://127.0.0.1:%d" % ports[3 + i], "http://127.0.0.1:%d" % ports[i]
            processes.append(subprocess.Popen(
                [binary, "--name", "n%d" % i, "--data-dir", os.path.join(scratch, "etcd%d" % i), "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--listen-client-urls", client, "--advertise-client-urls", client, "--initial-cluster", cluster, "--heartbeat-interval", "150", "--election-timeout", "1500"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        def status(i):
            return request(ports[i], "POST", "/v3/maintenance/status", "{}").json()
        wait_until("etcd", lambda: all(status(i).get("leader", "0") != "0" for i in range(3)), 60)
        leader = next(i for i in range(3) if status(i)["header"]["member_id"] == status(i)["leader"])
        return measure("etcd", ports[leader], [p.pid for p in processes], processes[leader].pid)
    finally:
        for p in processes:
            p.kill()
            p.wait()


def bench_grey():
    site = Site(core=False, tls=True)
    try:
        site.start()
        leader = site.leader()
        pids = [site.processes["node%d" % n].pid for n in site.nodes]
        result = measure("grey", site.http[leader], pids, site.processes["node%d" % leader].pid)
        gaps = []
        for _ in range(5):
            leader = site.leader()
            others = [n for n in site.nodes if n != leader]
            site.kill("node%d" % leader, signal.SIGKILL)
            begin = time.monotonic()
            while True:
                try:
                    if request(site.http[others[0]], "PUT", "/v1/kv/alive", "1", timeout=10).status in (200, 201):
                        break
                except OSError:
                    pass
                time.sleep(0.005)
            gaps.append(time.monotonic() - begin)
            site.start_node(leader)
            site.wait_whole()
        result["failover"] = gaps
        return result
    finally:
        site.finished = True
        site.cleanup()


def main():
    scratch = tempfile.mkdtemp(prefix="grey-bench-")
    try:
        limits = json.loads(subprocess.run([os.path.join(BUILD, "machine"), scratch], stdout=subprocess.PIPE, text=True, check=True).stdout)
        flights = {}
        for count, proposals in ((1, 2000), (64, 40000), (512, 100000)):
            folder = os.path.join(scratch, "flight%d" % count)
            os.makedirs(folder)
            out = subprocess.run([os.path.join(BUILD, "inflight"), folder, str(count), str(proposals)], stdout=subprocess.PIPE, text=True, check=True, timeout=180)
            flights[count] = json.loads(out.stdout)
        etcd = bench_etcd(scratch)
        grey = bench_grey()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    floor_us = limits["sqlite_commit_us"] + 2 * limits["round_trip_us"]
    put("limit: fdatasync", limits["fdatasync_us"], "us")
    put("limit: one SQLite commit", limits["sqlite_commit_us"], "us")
    put("limit: loopback round trip", limits["round_trip_us"], "us")
    for count, flight in flights.items():
        label = "%d in flight inside the leader" % count
        put("commits/s, %s" % label, flight["rate"], "1/s", "SQLite commits/s %.0f" % (1e6 / limits["sqlite_commit_us"]), flight["rate"] * limits["sqlite_commit_us"] / 1e6)
        put("p50, %s" % label, flight["p50_us"], "us", "one SQLite commit %d" % limits["sqlite_commit_us"], flight["p50_us"] / limits["sqlite_commit_us"])
        put("p99, %s" % label, flight["p99_us"], "us")
    for name, label in (("one", "1 client"), ("many", "64 clients")):
        g, e = grey[name], etcd[name] if etcd else None
        put("commits/s, %s" % label, g["rate"], "1/s", "etcd %.0f" % e["rate"] if e else "", g["rate"] / e["rate"] if e else None)
        if name == "one":
            put("p50, 1 client", g["p50_us"], "us", "commit + 2 round trips %d" % floor_us, g["p50_us"] / floor_us)
        else:
            put("p50, 64 clients", g["p50_us"], "us", "etcd %d" % e["p50_us"] if e else "", g["p50_us"] / e["p50_us"] if e else None)
        put("p99, %s" % label, g["p99_us"], "us", "etcd %d" % e["p99_us"] if e else "", g["p99_us"] / e["p99_us"] if e else None)
        put("CPU s per 1000 commits, %s, 3 nodes" % label, g["cpu_per_1000"], "s", "etcd %.3f" % e["cpu_per_1000"] if e else "", g["cpu_per_1000"] / e["cpu_per_1000"] if e else None)
        put("disk bytes per payload byte, %s, leader" % label, g["disk"], "", "etcd %.1f" % e["disk"] if e else "", g["disk"] / e["disk"] if e and e["disk"] else None)
        put("written (wchar) per payload byte, %s" % label, g["wchar"], "", "etcd %.1f" % e["wchar"] if e else "", g["wchar"] / e["wchar"] if e and e["wchar"] else None)
        put("wire bytes per payload byte, %s, clients included" % label, g["wire"], "", "etcd %.1f" % e["wire"] if e else "", g["wire"] / e["wire"] if e else None)
    for name, label in (("idle_rss", "RSS idle"), ("idle_pss", "PSS idle"), ("load_rss", "RSS under load"), ("load_pss", "PSS under load")):
        put("%s, largest node" % label, grey[name] / 1024, "MiB", "etcd %.0f" % (etcd[name] / 1024) if etcd else "", grey[name] / etcd[name] if etcd else None)
    put("idle wire, 3 nodes together", grey["idle_wire"], "B/s", "etcd %.0f" % etcd["idle_wire"] if etcd else "", grey["idle_wire"] / etcd["idle_wire"] if etcd else None)
    put("idle CPU, 3 nodes together", grey["idle_cpu"], "%", "etcd %.2f" % etcd["idle_cpu"] if etcd else "")
    put("without a leader after kill -9, median of 5", statistics.median(grey["failover"]) * 1000, "ms")
    put("without a leader after kill -9, worst of 5", max(grey["failover"]) * 1000, "ms")
    width = [max(len(r[i]) for r in rows + [("figure", "value", "unit", "against", "ratio")]) for i in range(5)]
    for r in [("figure", "value", "unit", "against", "ratio")] + rows:
        print("  ".join(c.ljust(w) for c, w in zip(r, width)).rstrip())
    with open(os.path.join(ROOT, "build", "bench.json"), "w") as f:
        json.dump(figures, f, indent=1)


main()
