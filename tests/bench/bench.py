#!/usr/bin/env python3
"""bench.py: the figures of docs/BENCHMARKS.md, measured now: Grey Edge, etcd 3.4, libraft 0.15 and the limits of this machine on the same
work, in one run.  Prints a table and writes build/bench.json.  Everything is on loopback, bounded in time and stopped at the end."""
import http.client, json, os, re, shutil, signal, statistics, subprocess, sys, tempfile, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from harness import BUILD, ROOT, SITE, Site, free_ports, request, wait_until
from flash import bench_flash, report as report_flash
from history import bench_history, ready
from ingest import EVENTS, SITES, bench_ingest
from link import report as report_link
from measure import *
from starting import bench_starting, report as report_starting

VALUE = 256
ONE, MANY, COUNTED = 2000, 40000, 10000  # requests with 1 client, with 64, and with 64 under perf
FLIGHTS = ((1, 4000), (64, 40000), (512, 100000))  # in flight inside the leader, and how many in all
ROUNDS = 21  # of kill -9
PACED_PER_SECOND, PACED_SECONDS, PACED_VALUE = 100, 20, 200
rows, figures = [], {}


def put(name, value, unit, peer="", against=None, aim=None, aim_at_least=None):
    """One figure; against: the limit or the peer's figure of the same run; aim: a bound from the design, at most (or at least)."""
    ratio = value / against if against else None
    figures[name] = {"value": value, "unit": unit, "peer": peer, "against": against, "ratio": ratio, "aim_at_most": aim, "aim_at_least": aim_at_least}
    goal = "" if aim is None else "%g%s" % (aim, "" if value <= aim else " !")
    goal = goal if aim_at_least is None else "least %g%s" % (aim_at_least, "" if value >= aim_at_least else " !")
    rows.append((name, "%.4g" % value, unit, goal,
                 "" if against is None else "%s %.4g" % (peer, against), "" if ratio is None else "%.2f" % ratio))


def load_command(kind, port, clients, requests, value=VALUE, *more):
    return [os.path.join(BUILD, "load"), kind, "127.0.0.1:%d" % port, str(clients), str(requests), str(value)] + [str(m) for m in more]


def load(*arguments):
    return answer(subprocess.run(load_command(*arguments), stdout=subprocess.PIPE, text=True, timeout=200).stdout)


def measure(kind, port, pids, leader_pid, peer_ports):
    """The same work for either system: idle, one client, 64 clients, 64 clients counted."""
    result = {}
    time.sleep(3)
    span = Span(pids, leader_pid, peer_ports)
    time.sleep(5)
    idle = span.end()
    result["idle"] = {"wire": idle["wire"] / 5, "cpu": idle["cpu"] / 5 * 100, "rss": idle["rss"], "pss": idle["pss"]}
    load(kind, port, 8, 500)
    for name, clients, requests in (("one", 1, ONE), ("many", 64, MANY)):
        span = Span(pids, leader_pid, peer_ports)
        result[name] = load(kind, port, clients, requests)
        cost = span.end()
        result[name].update(cpu_per_1000=cost["cpu"] / requests * 1000, wire=cost["wire"] / (requests * VALUE), disk=cost["disk"] / (requests * VALUE),
                            wchar=cost["wchar"] / (requests * VALUE), rss=cost["rss"], pss=cost["pss"])
    counts, _ = counted(leader_pid, load_command(kind, port, 64, COUNTED))
    result["counts"] = {k: v / COUNTED for k, v in counts.items()}
    return result


def leaderless(kill_leader, write, bring_back):
    """Seconds from kill -9 of the leader to the first write that one of the others answers; several rounds.  A new write starts every
    10 ms whatever became of those before it: one that was passed on to the dead leader only waits for its time-out."""
    gaps = []
    for _ in range(ROUNDS):
        port, answered, first = kill_leader(), threading.Event(), []
        begin = time.monotonic()

        def one():
            if write(port):
                first.append(time.monotonic() - begin)
                answered.set()
        while not answered.wait(0.01):
            if time.monotonic() - begin > 30:
                raise RuntimeError("no leader 30 s after a kill")
            threading.Thread(target=one, daemon=True).start()
        gaps.append(min(first))
        time.sleep(0.5)  # the writes that still wait
        bring_back()
    return gaps


def written(port, method, path, body):
    try:
        return request(port, method, path, body, timeout=10).status in (200, 201)
    except (OSError, http.client.HTTPException):
        return False


def bench_etcd(scratch):
    binary = shutil.which("etcd")
    if binary is None:
        print("etcd is not installed: no comparison with it")
        return None
    ports, processes = free_ports(6), {}
    clients, peers = ports[:3], ports[3:]
    cluster = ",".join("n%d=http://127.0.0.1:%d" % (i, peers[i]) for i in range(3))

    def start(i):
        peer, client = "http://127.0.0.1:%d" % peers[i], "http://127.0.0.1:%d" % clients[i]
        processes[i] = subprocess.Popen(
            [binary, "--name", "n%d" % i, "--data-dir", os.path.join(scratch, "etcd%d" % i), "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--listen-client-urls", client, "--advertise-client-urls", client, "--initial-cluster", cluster, "--heartbeat-interval", "150", "--election-timeout", "1500"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def status(i):
        return request(clients[i], "POST", "/v3/maintenance/status", "{}", timeout=5).json()

    def whole():
        return wait_until("etcd", lambda: all(status(i).get("leader", "0") != "0" for i in range(3)), 60)

    def leader():
        return next(i for i in range(3) if status(i)["header"]["member_id"] == status(i)["leader"])

    def kill_leader():
        dead = leader()
        processes[dead].kill()
        processes[dead].wait()
        kill_leader.dead = dead
        return clients[(dead + 1) % 3]

    try:
        for i in range(3):
            start(i)
        whole()
        first = leader()
        result = measure("etcd", clients[first], [p.pid for p in processes.values()], processes[first].pid, peers)
        result["leaderless"] = leaderless(kill_leader, lambda port: written(port, "POST", "/v3/kv/put", '{"key":"YQ==","value":"YQ=="}'),
                                          lambda: (start(kill_leader.dead), whole()))
        return result
    finally:
        for p in processes.values():
            p.kill()
            p.wait()


def bench_grey():
    site = Site(core=False, tls=True)

    def kill_leader():
        kill_leader.dead = site.leader()
        site.kill("node%d" % kill_leader.dead, signal.SIGKILL)
        return site.http[next(n for n in site.nodes if n != kill_leader.dead)]

    def bring_back():
        """Until it follows: what is killed next must not be one of only two that know each other."""
        site.start_node(kill_leader.dead)
        wait_until("it to follow", lambda: ready(site.http[kill_leader.dead]), 60)
        site.wait_whole()

    try:
        site.start()
        leader = site.leader()
        pids = [site.processes["node%d" % n].pid for n in site.nodes]
        result = measure("grey", site.http[leader], pids, site.processes["node%d" % leader].pid, list(site.peer.values()))
        result["leaderless"] = leaderless(kill_leader, lambda port: written(port, "PUT", "/v1/kv/alive", "1"),
                                          bring_back)
        return result
    finally:
        site.finished = True
        site.cleanup()


def bench_whole():
    """Gateways, broker and core: events from a gateway's door to the core's database."""
    site = Site(core=True, tls=True)
    try:
        site.start()
        leader = site.leader()
        port, result = site.http[leader], {}
        pids = {name: p.pid for name, p in site.processes.items()}
        nodes, leader_pid = [pids["node%d" % n] for n in site.nodes], pids["node%d" % leader]
        time.sleep(3)
        result["idle"] = {name: proc(pid) for name, pid in pids.items()}
        for name, kind, clients, requests, more in (("paced", "normal", 16, PACED_PER_SECOND * PACED_SECONDS, [PACED_VALUE, PACED_PER_SECOND]), ("critical", "critical", 64, 10000, [])):
            span, uplink, begin = Span(nodes, leader_pid, list(site.peer.values())), wire([site.broker_port], leader_pid), time.monotonic()
            result[name] = load(kind, port, clients, requests, *more)
            site.wait_drained()
            result[name]["drained"] = time.monotonic() - begin
            result[name]["uplink"] = (wire([site.broker_port], leader_pid) - uplink) / requests
            cost = span.end()
            result[name].update(disk=cost["disk"] / requests, wchar=cost["wchar"] / requests, cpu_per_1000=cost["cpu"] / requests * 1000)
        result["load"] = {name: proc(pid) for name, pid in pids.items()}
        return result
    finally:
        site.finished = True
        site.cleanup()


def bench_inflight(scratch, count, proposals):
    """Ours inside the leader, three nodes on one loop in one process; the processor and the disk are those of all three."""
    folder = tempfile.mkdtemp(dir=scratch)
    result = answer(subprocess.run([os.path.join(BUILD, "inflight"), folder, str(count), str(proposals)], stdout=subprocess.PIPE, text=True, timeout=180).stdout)
    shutil.rmtree(folder)
    result.update(cpu_per_1000=result["cpu_s"] / proposals * 1000, disk=result["disk_bytes"] / 3 / proposals / VALUE)
    return result


def bench_libraft(scratch, mode, count, proposals):
    """The same by libraft; None where it is not installed."""
    binary = os.path.join(BUILD, "raft_peer")
    if not os.path.exists(binary):
        return None
    folder = tempfile.mkdtemp(dir=scratch)
    p = subprocess.Popen([binary, folder, mode, str(count), str(proposals)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        who = answer(p.stdout.readline())
        span = Span(who["pids"], who["leader"], [])
        p.stdin.write("begin\n")
        p.stdin.flush()
        result = answer(p.stdout.readline())
        cost = span.end()
        nodes = 3 / len(who["pids"])  # in the process that is asked for its disk
        result.update(cpu_per_1000=cost["cpu"] / proposals * 1000, disk=cost["disk"] / nodes / proposals / VALUE, rss=cost["rss"], pss=cost["pss"])
        return result
    finally:
        p.stdin.close()
        try:
            p.wait(10)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
        shutil.rmtree(folder, ignore_errors=True)


def bench_simulator():
    """Virtual seconds in one real one: a quiet site of three, and groups with all kinds of faults."""
    speed = {}
    for name, more in (("quiet", ["--quiet", "--count", "60"]), ("faults", ["--count", "20"])):
        out = subprocess.run([os.path.join(BUILD, "sim"), "--seed", "1", "--minutes", "10"] + more, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout
        speed[name] = float(re.search(r"seconds in [0-9.]+ s: ([0-9]+) times", out).group(1))
    return speed


def bench_link():
    """A program of its own: it moves to a network namespace."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "link.py")
    return answer(subprocess.run([program], stdout=subprocess.PIPE, text=True, timeout=1200).stdout)


def bench_placing():
    """The scheduler by itself: 10,000 waiting tasks of 100 tenants, three nodes."""
    runs = [answer(subprocess.run([os.path.join(BUILD, "placing")], stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout) for _ in range(3)]
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


def of(peer, *path):
    """A peer's figure, or None when the peer or the figure is absent."""
    for step in path:
        if peer is None or (isinstance(peer, dict) and step not in peer):
            return None
        peer = peer[step]
    return peer


def report(limits, flights, rafts, raft_processes, etcd, grey, whole, history, simulator, ingest, placing):
    commit_us, trip_us = limits["sqlite_commit_us"], limits["round_trip_us"]
    for name, label in (("fdatasync", "fdatasync of an overwritten block"), ("append", "fdatasync of an appended block"), ("sqlite_commit", "one SQLite commit"),
                        ("majority", "two of three SQLite commits begun at once")):
        put("limit: %s" % label, limits[name + "_us"], "us")
        put("  its median while other work went on", limits[name + "_median_us"], "us") if limits[name + "_median_us"] > 2 * limits[name + "_us"] else None
    put("limit: loopback round trip", trip_us, "us")
    for count, _ in FLIGHTS:
        ours, theirs, label = flights[count], rafts[count], "%d in flight inside the leader" % count
        put("commits/s, %s" % label, ours["rate"], "1/s", "libraft", of(theirs, "rate"))
        put("p50, %s" % label, ours["p50_us"], "us", "libraft", of(theirs, "p50_us"))
        put("p99, %s" % label, ours["p99_us"], "us", "libraft", of(theirs, "p99_us"))
        put("CPU s per 1000, %s, 3 nodes" % label, ours["cpu_per_1000"], "s", "libraft", of(theirs, "cpu_per_1000"))
        put("disk bytes per payload byte, %s, mean node" % label, ours["disk"], "", "libraft", of(theirs, "disk"), {1: 28, 64: 5, 512: 3.5}[count])
    for name, label, bounds in (("one", "1 client", (28, 12)), ("many", "64 clients", (5, 4))):
        g, e = grey[name], of(etcd, name)
        put("commits/s, %s" % label, g["rate"], "1/s", "etcd", of(e, "rate"))
        if name == "one":
            put("p50, 1 client", g["p50_us"], "us", "limit: commit + 2 round trips", commit_us + 2 * trip_us)
            put("p50, 1 client, all on one disk", g["p50_us"], "us", "limit: two of three commits + 2 round trips", limits["majority_us"] + 2 * trip_us)
        put("p50, %s, beside etcd" % label, g["p50_us"], "us", "etcd", of(e, "p50_us"))
        put("p99, %s" % label, g["p99_us"], "us", "etcd", of(e, "p99_us"))
        put("CPU s per 1000 commits, %s, 3 nodes" % label, g["cpu_per_1000"], "s", "etcd", of(e, "cpu_per_1000"))
        put("disk bytes per payload byte, %s, leader" % label, g["disk"], "", "etcd", of(e, "disk"), bounds[0])
        put("written (wchar) per payload byte, %s" % label, g["wchar"], "", "etcd", of(e, "wchar"), bounds[1])
        put("wire bytes per payload byte, %s, between nodes" % label, g["wire"], "", "etcd", of(e, "wire"))
    for what, label, aim in (("calls", "system calls", 4.3), ("syncs", "syncs", None), ("instructions", "instructions", 55000)):
        if what in grey["counts"]:
            put("%s per commit at the leader, 64 clients" % label, grey["counts"][what], "", "etcd", of(etcd, "counts", what), aim)
        else:
            print("# %s per commit: this machine cannot count them" % label)
    for state, label, aim in (("idle", "idle", 10), ("many", "under load", 12)):
        put("RSS %s, largest node" % label, grey[state]["rss"] / 1024, "MiB", "etcd", etcd and etcd[state]["rss"] / 1024, aim)
        put("PSS %s, largest node" % label, grey[state]["pss"] / 1024, "MiB", "etcd", etcd and etcd[state]["pss"] / 1024, 7 if state == "idle" else None)
    if raft_processes:
        put("libraft alone, RSS after 64 in flight, a library without API, TLS, store", raft_processes["rss"] / 1024, "MiB")
    put("idle wire, between 3 nodes", grey["idle"]["wire"], "B/s", "etcd", of(etcd, "idle", "wire"))
    put("idle CPU, 3 nodes together", grey["idle"]["cpu"], "%", "etcd", of(etcd, "idle", "cpu"))
    put("without a leader after kill -9, median of %d" % ROUNDS, statistics.median(grey["leaderless"]) * 1000, "ms", "etcd (election time-out 1.5 s)", etcd and statistics.median(etcd["leaderless"]) * 1000, 450)
    put("without a leader after kill -9, p95 of %d" % ROUNDS, sorted(grey["leaderless"])[ROUNDS * 95 // 100] * 1000, "ms", aim=600)
    put("without a leader after kill -9, worst of %d" % ROUNDS, max(grey["leaderless"]) * 1000, "ms", "etcd (election time-out 1.5 s)", etcd and max(etcd["leaderless"]) * 1000, 3000)
    for how, label in (("stop", "a stop"), ("kill", "kill -9")):
        put("ready again after %s, %d entries in the log" % (label, history["log_entries"]), history["restart_ms"][how], "ms", aim=1000)
    put("a follower %d entries behind has caught up" % 100000, history["catch_up_s"], "s")
    for what in ("p50_us", "p99_us"):
        put("%s of one client meanwhile" % what[:3], history["during"][what], "us", "with one follower absent", history["alone"][what])
    put("scheduling decisions/s, 10000 waiting tasks of 100 tenants", placing["decisions_per_s"], "1/s", aim_at_least=100000)
    put("entries of tasks/s, applied whole, 10000 tasks placed", placing["entries_per_s"], "1/s")
    put("memory per waiting task, with its row", placing["bytes_per_task"], "B", aim=512)
    put("the simulator, a quiet site", simulator["quiet"], "x real time", aim_at_least=20000)
    put("the simulator, with faults", simulator["faults"], "x real time")
    paced, critical = whole["paced"], whole["critical"]
    put("whole site: disk bytes per %d-byte event at %d/s, leader" % (PACED_VALUE, PACED_PER_SECOND), paced["disk"], "B", aim=2048)
    put("whole site: p50 of an event below critical, %d/s" % PACED_PER_SECOND, paced["p50_us"], "us")
    put("whole site: uplink bytes per event, both ways, %d/s" % PACED_PER_SECOND, paced["uplink"], "B", "payload", PACED_VALUE)
    put("whole site: critical events/s taken, 64 clients", critical["rate"], "1/s")
    put("whole site: critical events/s, door to core's database", critical["requests"] / critical["drained"], "1/s")
    put("whole site: uplink bytes per critical event, both ways", critical["uplink"], "B", "payload", VALUE)
    for state in ("idle", "load"):
        put("whole site: RSS of the leading gateway, %s" % state, max(v["rss"] for k, v in whole[state].items() if k.startswith("node")) / 1024, "MiB", aim={"idle": 10, "load": 12}[state])
        put("whole site: RSS of the core, %s" % state, whole[state]["core"]["rss"] / 1024, "MiB")
    for kind, label in (("sqlite", "SQLite"), ("postgres1", "PostgreSQL, 1 core"), ("postgres2", "PostgreSQL, 2 cores")):
        put("core: events/s of %d sites that come back with %d events each, %s" % (SITES, EVENTS, label), ingest[kind]["rate"], "1/s",
            "mosquitto_sub, one by one into SQLite", ingest["one_by_one"])
        put("core: largest RSS of a process meanwhile, %s" % label, ingest[kind]["rss"] / 1024, "MiB")
        put("core: CPU s per 1000 events, %s" % label, ingest[kind]["cpu"] / ingest[kind]["events"] * 1000, "s")
        put("core: p99 from hello to welcome, %s" % label, ingest[kind]["welcome_p99_ms"], "ms")


def main():
    begin, load_before, scratch = time.monotonic(), os.getloadavg()[0], tempfile.mkdtemp(prefix="grey-bench-", dir=os.environ.get("TMPDIR"))
    try:
        limits = answer(subprocess.run([os.path.join(BUILD, "machine"), scratch], stdout=subprocess.PIPE, text=True, timeout=60).stdout)
        flights = {count: bench_inflight(scratch, count, proposals) for count, proposals in FLIGHTS}
        rafts = {count: bench_libraft(scratch, "together", count, proposals) for count, proposals in FLIGHTS}
        raft_processes = bench_libraft(scratch, "processes", *FLIGHTS[1])
        etcd = bench_etcd(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(limits, flights, rafts, raft_processes, etcd, bench_grey(), bench_whole(), bench_history(), bench_simulator(), bench_ingest(), bench_placing())
    report_starting(put, bench_starting())
    report_flash(put, bench_flash())
    report_link(put, bench_link())
    head = ("figure", "value", "unit", "aim (at most)", "beside", "ratio")
    width = [max(len(r[i]) for r in rows + [head]) for i in range(6)]
    for r in [head] + rows:
        print("  ".join(c.ljust(w) for c, w in zip(r, width)).rstrip())
    print("# %d processors, load %.1f at the start and %.1f at the end, %.0f s; an aim with ! was missed in this run"
          % (os.cpu_count(), load_before, os.getloadavg()[0], time.monotonic() - begin))
    with open(os.path.join(ROOT, "build", "bench.json"), "w") as f:
        json.dump({"processors": os.cpu_count(), "load_before": load_before, "kernel": os.uname().release, "figures": figures}, f, indent=1)


if __name__ == "__main__":
    main()
