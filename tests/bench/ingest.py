"""ingest.py: how many events a second the core takes from a fleet that comes back, on SQLite and on PostgreSQL, beside the same events
written one by one into SQLite by a subscriber as anybody would write it in an afternoon.  Broker without TLS, everything on loopback."""
import os, re, shutil, subprocess, sys, tempfile, time

from harness import BUILD, ROOT, free_ports, request, wait_until
from measure import answer, proc

SITES, EVENTS, PER_FRAME, SPREAD_MS = 1000, 200, 50, 2000
PLAIN_SITES, PLAIN_EVENTS = 100, 100  # the subscriber needs long for each

ONE_BY_ONE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("pragma synchronous=full")
db.execute("create table if not exists event(no integer primary key, record blob)")
for line in sys.stdin:
    db.execute("insert into event(record) values(?)", (bytes.fromhex(line),))
"""


class Broker:
    def __init__(self, folder):
        self.port = free_ports(1)[0]
        user = subprocess.run(["id", "-un"], stdout=subprocess.PIPE, text=True).stdout.strip()
        path = os.path.join(folder, "plain.conf")
        with open(path, "w") as f:
            f.write("listener %d 127.0.0.1\nallow_anonymous true\nuser %s\npersistence false\nmax_inflight_messages 100\nmax_queued_messages 10000\n"
                    "max_packet_size 1052672\nlog_type error\n" % (self.port, user))
        binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        self.process = subprocess.Popen([binary, "-c", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        self.process.kill()
        self.process.wait()


def swarm(kind, port, sites, events, timeout=150):
    command = [os.path.join(BUILD, "swarm"), kind, "127.0.0.1:%d" % port] + [str(n) for n in (sites, events, PER_FRAME, SPREAD_MS)]
    return answer(subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout).stdout)


def peak_kib(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))


def bench_core(folder, store, cores):
    broker, processes, ports = Broker(folder), [], free_ports(cores)
    try:
        for i in range(cores):
            command = [os.path.join(BUILD, "grey-core"), "--data-dir", os.path.join(folder, "core%d" % i), "--http-addr", "127.0.0.1:%d" % ports[i],
                       "--broker", "mqtt://127.0.0.1:%d" % broker.port, "--log-level", "error"] + (["--store", store] if store else [])
            processes.append(subprocess.Popen(command))
        for port in ports:
            wait_until("the core", lambda: request(port, "GET", "/health/ready").status == 200, 30)
        result = swarm("core", broker.port, SITES, EVENTS)
        sites = request(ports[0], "GET", "/v1/sites").json()
        if sum(s["channels"]["data"]["acked_seq"] for s in sites) != SITES * EVENTS or any(s["gaps"] for s in sites):
            raise RuntimeError("the core has not what the sites sent")
        result["rss"] = max(peak_kib(p.pid) for p in processes)
        result["cpu"] = sum(proc(p.pid)["cpu"] for p in processes)
        return result
    finally:
        for p in processes:
            p.kill()
            p.wait()
        broker.stop()


def bench_one_by_one(folder):
    broker, path = Broker(folder), os.path.join(folder, "plain.db")
    time.sleep(0.5)
    script = os.path.join(folder, "one_by_one.py")
    with open(script, "w") as f:
        f.write(ONE_BY_ONE)
    subscriber = subprocess.Popen(["mosquitto_sub", "-p", str(broker.port), "-V", "5", "-q", "1", "-t", "grey/v2/+/up/#", "-F", "%x"], stdout=subprocess.PIPE)
    writer = subprocess.Popen([sys.executable, script, path], stdin=subprocess.PIPE if subscriber.stdout is None else subscriber.stdout)
    try:
        import sqlite3
        wait_until("the table", lambda: os.path.exists(path), 10)
        time.sleep(0.5)
        total, begin = PLAIN_SITES * PLAIN_EVENTS, time.monotonic()
        sender = subprocess.Popen([os.path.join(BUILD, "swarm"), "plain", "127.0.0.1:%d" % broker.port, str(PLAIN_SITES), str(PLAIN_EVENTS), "1", "1"],
                                  stdout=subprocess.DEVNULL)
        reader = sqlite3.connect("file:%s?mode=ro" % path, uri=True)
        wait_until("%d rows" % total, lambda: reader.execute("select count(*) from event").fetchone()[0] >= total, 120)
        seconds = time.monotonic() - begin
        sender.wait(30)
        return total / seconds
    finally:
        for p in (subscriber, writer):
            p.kill()
            p.wait()
        broker.stop()


def bench_ingest():
    """Rates and the core's memory; the figures of PostgreSQL are None where there is none."""
    folder = tempfile.mkdtemp(prefix="grey-ingest-", dir=os.environ.get("TMPDIR"))
    server, result = os.path.join(ROOT, "tests/script/postgres.sh"), {}
    try:
        result["one_by_one"] = bench_one_by_one(folder)
        result["sqlite"] = bench_core(folder, None, 1)
        for cores in (1, 2):
            place = os.path.join(folder, "pg%d" % cores)
            os.makedirs(place)
            os.chmod(folder, 0o711)
            uri = subprocess.run([server, "start", place], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            try:
                result["postgres%d" % cores] = bench_core(place, uri, cores)
            finally:
                subprocess.run([server, "crash", place], check=True)
        return result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    import json
    print(json.dumps(bench_ingest(), indent=1))
