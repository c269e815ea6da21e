#!/usr/bin/env python3
"""120 sites, half of them of an older version, come back at once with a backlog to two cores on one PostgreSQL; meanwhile the database stands still for some seconds and one core is
killed.  If this fails, the end of a long outage takes the core down, or costs events or the sites' links."""
import re
from harness import *

sys.path.insert(0, os.path.join(ROOT, "tests/bench"))
from ingest import Broker

SITES, EVENTS, PER_FRAME, SPREAD_MS, OLD_PERCENT = 120, 4800, 150, 1000, 50
RSS_MIB_MAX = 32 + 48  # what may wait for the storage thread, and everything else


def metric(port, name):
    text = request(port, "GET", "/metrics").body.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


class Fleet:
    """Broker, database and cores without TLS, and the sites of tests/bench/swarm.c."""

    def __init__(self, folder):
        self.folder, self.ports, self.cores, self.results = folder, free_ports(2), {}, []
        self.broker = Broker(folder)
        self.uri = subprocess.run([os.path.join(ROOT, "tests/script/postgres.sh"), "start", folder], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def start_core(self, number):
        self.cores[number] = subprocess.Popen([os.path.join(BUILD, "grey-core"), "--data-dir", os.path.join(self.folder, "core%d" % number), "--http-addr",
                                               "127.0.0.1:%d" % self.ports[number], "--broker", "mqtt://127.0.0.1:%d" % self.broker.port, "--log-level", "error", "--store", self.uri])
        wait_until("core %d" % number, lambda: request(self.ports[number], "GET", "/health/ready").status == 200, 90)  # the database is busy with all sites

    def taken(self):
        return sum(metric(self.ports[n], "grey_core_events_total") for n in self.cores)

    def peak_mib(self, number):
        with open("/proc/%d/status" % self.cores[number].pid) as f:
            return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1)) / 1024

    def ok(self, condition, text):
        self.results.append(bool(condition))
        print("%sok %d - %s" % ("" if condition else "not ", len(self.results), text), flush=True)

    def stop(self):
        for p in self.cores.values():
            p.kill()
            p.wait()
        self.broker.stop()
        subprocess.run([os.path.join(ROOT, "tests/script/postgres.sh"), "crash", self.folder])


def test(fleet):
    fleet.start_core(0)
    fleet.start_core(1)
    swarm = subprocess.Popen([os.path.join(BUILD, "swarm"), "core", "127.0.0.1:%d" % fleet.broker.port] + [str(n) for n in (SITES, EVENTS, PER_FRAME, SPREAD_MS, OLD_PERCENT)],
                             stdout=subprocess.PIPE, text=True)
    ahead = 0
    try:
        wait_until("many sites to be welcomed", lambda: sum(metric(port, "grey_core_hellos_total") for port in fleet.ports) > 0.5 * SITES)
        still = subprocess.Popen(["psql", "-q", "-d", fleet.uri], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        still.stdin.write("BEGIN; LOCK TABLE event IN EXCLUSIVE MODE;\n")
        still.stdin.flush()
        held = wait_until("a core that reads no more", lambda: any(metric(fleet.ports[n], "grey_core_held") == 1 for n in (0, 1)))
        fleet.ok(held, "while the database stands still, a core stops reading from the broker")
        still.communicate("COMMIT;\n", timeout=60)
        before = fleet.taken()
        wait_until("the cores to go on", lambda: fleet.taken() > before)
        peaks, ahead = [fleet.peak_mib(1)], metric(fleet.ports[1], "grey_core_frames_ahead_total")
        fleet.cores[1].kill()
        fleet.cores[1].wait()
        fleet.start_core(1)
        answer = swarm.communicate(timeout=300)[0]
        fleet.ok(swarm.returncode == 0, "every site was told that all it has is at the core: %s" % answer.strip())
    finally:
        swarm.kill()
    ahead += sum(metric(port, "grey_core_frames_ahead_total") for port in fleet.ports)
    fleet.ok(ahead > 0, "frames of older sites came out of order and were put in order (%d)" % ahead)
    sites = request(fleet.ports[0], "GET", "/v1/sites").json()
    fleet.ok(len(sites) == SITES and all(s["channels"]["data"]["acked_seq"] == EVENTS and s["gaps"] == 0 for s in sites), "no site lacks an event")
    out = subprocess.run(["psql", "-At", "-d", fleet.uri, "-c", "SELECT count(*), count(DISTINCT (inc, channel, seq)), max(seq) FROM event; SELECT count(*) FROM ahead"],
                         stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    fleet.ok(out == ["%d|%d|%d" % (SITES * EVENTS, SITES * EVENTS, EVENTS), "0"], "each event is in the database once, and nothing is left aside: %s" % out)
    peaks += [fleet.peak_mib(n) for n in (0, 1)]
    fleet.ok(max(peaks) < RSS_MIB_MAX, "no core needed more than %d MiB: %s" % (RSS_MIB_MAX, ["%.0f" % p for p in peaks]))


folder = tempfile.mkdtemp(prefix="grey-test-")
fleet = Fleet(folder)
try:
    test(fleet)
except Exception as e:
    fleet.ok(False, "%s: %s" % (type(e).__name__, e))
finally:
    fleet.stop()
    shutil.rmtree(folder, ignore_errors=True)
sys.exit(not all(fleet.results))
