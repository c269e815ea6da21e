#!/usr/bin/env python3
"""A gateway with 64 MiB of memory must do its work and give its caches back when memory is short, rather than be killed at night by the
kernel: three of them, each in a control group of 64 MiB, take events, lose their leader and catch up."""
from harness import *

LIMIT = 64 * 1024 * 1024
V1 = "/sys/fs/cgroup/memory"


class SmallSite(Site):
    def group(self, n):
        """A control group for gateway n, None where this machine gives us none."""
        path = os.path.join(V1 if os.path.exists(V1 + "/cgroup.procs") else "/sys/fs/cgroup", "grey-test-%d-%d" % (os.getpid(), n))
        try:
            os.makedirs(path, exist_ok=True)
            with open(os.path.join(path, "memory.limit_in_bytes" if path.startswith(V1) else "memory.max"), "w") as f:
                f.write(str(LIMIT))
            return path
        except OSError:
            if os.path.isdir(path):
                os.rmdir(path)
            return None

    def start_node(self, n, bootstrap=None, under=()):
        path = self.group(n)
        if path:
            small = ["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec "$@"', path]
        else:
            small = ["prlimit", "--data=%d" % LIMIT, "--"]
        super().start_node(n, bootstrap, small + list(under))

    def judge_peaks(self):
        for n in self.nodes:
            path = self.group(n)
            if path and path.startswith(V1):
                with open(path + "/memory.max_usage_in_bytes") as f, open(path + "/memory.failcnt") as g:
                    print("# node %d: with the page cache %.1f of 64 MiB at most, at the limit %d times" % (n, int(f.read()) / 1048576, int(g.read())))

    def cleanup(self):
        super().cleanup()
        for n in self.nodes:
            path = self.group(n)
            if path:
                wait_until("an empty control group", lambda: os.rmdir(path) is None)


def board(site, n):
    return request(site.http[n], "GET", "/health/detailed").json()["checks"]["board"]


def test(site):
    if site.group(1) is None:
        print("# NO CONTROL GROUPS HERE: RLIMIT_DATA of 64 MiB instead; the kernel's page cache is not counted, the budget is the file's")
    ledger = Ledger(site, 3000, pause=0.01).start()
    wait_until("events to be taken", lambda: ledger.done() > 500)
    leader = site.leader()
    site.kill("node%d" % leader)
    wait_until("another leader", lambda: site.leader(among=[n for n in site.nodes if n != leader]))
    site.start_node(leader)
    ledger.join()
    site.wait_whole()
    ledger.judge()
    site.wait_same_state()
    site.ok(all(site.alive("node%d" % n) for n in site.nodes), "all three gateways live within 64 MiB")
    budget = 4 * 1024 * 1024
    wait_until("a look at the board", lambda: all(board(site, n)["memory_budget_bytes"] == budget for n in site.nodes))
    wait_until("caches to be given back", lambda: all(board(site, n)["memory_reliefs"] > 0 for n in site.nodes))
    site.ok(True, "above their budget they give caches back")
    site.ok(request(site.http[1], "GET", "/health").status == 200, "and go on")
    metrics = request(site.http[1], "GET", "/metrics").body.decode()
    site.ok("grey_memory_reliefs_total" in metrics and "grey_process_memory_budget_bytes %d" % budget in metrics, "metrics tell so")
    told = [(series + " " in metrics) == (board(site, 1)[key] is not None) for series, key in
            (("grey_board_temperature_celsius", "temperature_celsius"), ("grey_board_under_voltage", "under_voltage"))]
    site.ok(all(told), "a sensor that a board does not have has no series: zero degrees would be a lie")
    site.kill("node1", signal.SIGTERM)
    with open(site.path("node1", "greyd.yaml")) as f:
        text = f.read()
    with open(site.path("node1", "greyd.yaml"), "w") as f:
        f.write(text.replace("memory_budget_mb: 4", "memory_budget_mb: 0"))
    site.start_node(1)
    site.wait_whole()
    if site.group(1) is None:
        return  # as said above
    derived = wait_until("a look at the board", lambda: board(site, 1)["resident_bytes"] > 0 and board(site, 1))["memory_budget_bytes"]
    site.ok(derived == LIMIT // 4 * 3, "without a budget it is three quarters of the control group (%d)" % derived)
    site.judge_peaks()


run_test(test, SmallSite, extra="hardware: {memory_budget_mb: 4}\n")
