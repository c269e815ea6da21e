"""starting.py: how long from the order of a task to its first word, at an idle site of three gateways with a launcher each."""
import json, os, shutil, statistics, subprocess, time

from harness import request, wait_until
from launchers import WithLaunchers

TASKS = 100


def at(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def bench_starting():
    site = WithLaunchers(core=False, tls=True)
    try:
        site.start()
        leader = site.leader()
        port = site.http[leader]
        wait_until("all gateways to take tasks", lambda: [n["condition"] for n in request(port, "GET", "/v1/quotas").json()["nodes"]] == ["ready"] * 3, 60)
        commits, starts, peer, bare = [], [], [], []
        for i in range(TASKS):
            begin = time.monotonic()
            assert request(port, "PUT", "/v1/kv/alive", str(i)).status in (200, 201)
            commits.append((time.monotonic() - begin) * 1000)
            body = json.dumps({"id": "start-%d" % i, "command": ["/bin/date", "+%s%N"]})
            begin = time.time_ns()
            assert request(port, "POST", "/v1/tasks", body).status == 201
            wait_until("the task", lambda: request(port, "GET", "/v1/tasks/start-%d" % i).json()["state"] == "completed", 30)
            starts.append((int(request(port, "GET", "/v1/tasks/start-%d/logs" % i).body) - begin) / 1e6)
            begin = time.time_ns()
            bare.append((int(subprocess.run(["/bin/date", "+%s%N"], stdout=subprocess.PIPE, timeout=30).stdout) - begin) / 1e6)
            if os.path.isdir("/run/systemd/system") and shutil.which("systemd-run"):
                begin = time.time_ns()
                out = subprocess.run(["systemd-run", "--quiet", "--pipe", "--wait", "/bin/date", "+%s%N"], stdout=subprocess.PIPE, text=True, timeout=30)
                peer += [(int(out.stdout) - begin) / 1e6] if out.returncode == 0 else []
        return {"commit_ms": statistics.median(commits), "p50_ms": statistics.median(starts), "p99_ms": at(starts, 0.99),
                "bare_ms": statistics.median(bare), "systemd_run_ms": statistics.median(peer) if peer else None}
    finally:
        site.finished = True
        site.cleanup()


def report(put, s):
    put("order of a task to its first word, idle site, p50", s["p50_ms"], "ms", "systemd-run, one machine, no agreement" if s["systemd_run_ms"] else "limit: fork and exec", s["systemd_run_ms"] or s["bare_ms"], aim=s["commit_ms"] + 20)
    put("order of a task to its first word, idle site, p99", s["p99_ms"], "ms")
