"""history.py: what a long history costs: the restart of a gateway that stands behind a million entries, and the return of one that missed a
hundred thousand while the others go on serving."""
import os, signal, subprocess, threading, time

from harness import BUILD, Site, request, wait_until
from measure import answer

ENTRIES, MISSED, PROBE = 1000000, 100000, 3000
CLIENTS, VALUE = 64, 16


def load(port, clients, requests):
    command = [os.path.join(BUILD, "load"), "grey", "127.0.0.1:%d" % port, str(clients), str(requests), str(VALUE)]
    return answer(subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300).stdout)


def ready(port):
    try:
        return request(port, "GET", "/health/ready", timeout=2).status == 200
    except OSError:
        return False


def raft(port):
    return request(port, "GET", "/v1/raft/status", timeout=10).json()


def started(site, n):
    """Milliseconds from exec to the first answer that says ready."""
    begin = time.monotonic()
    site.start_node(n)
    while not ready(site.http[n]):
        if time.monotonic() - begin > 60:
            raise RuntimeError("gateway %d is not ready 60 s after its start" % n)
        time.sleep(0.002)
    return (time.monotonic() - begin) * 1000


def bench_history():
    """The log is not compacted by count here, so that the entries are really there."""
    site = Site(core=False, extra="consensus: {snapshot_threshold: 10000000}\n")
    result = {}
    try:
        site.start()
        leader = site.leader()
        absent, other = [n for n in site.nodes if n != leader]
        port = site.http[leader]
        load(port, CLIENTS, ENTRIES - MISSED)
        result["before"] = load(port, 1, PROBE)
        site.kill("node%d" % absent)
        load(port, CLIENTS, MISSED)
        result["alone"] = load(port, 1, PROBE)  # two of three: what the probe below is to be compared with
        target, begin, during = raft(port)["commit_index"], time.monotonic(), {}
        site.start_node(absent)
        probe = threading.Thread(target=lambda: during.update(load(port, 1, PROBE)))
        probe.start()

        def caught_up():
            try:
                return raft(site.http[absent])["applied_index"] >= target
            except OSError:
                return False
        while not caught_up():
            if time.monotonic() - begin > 120:
                raise RuntimeError("the follower did not catch up within 120 s")
            time.sleep(0.01)
        result["catch_up_s"] = time.monotonic() - begin
        probe.join()
        result["during"] = during
        site.wait_whole()
        status = raft(site.http[other])
        result["entries"], result["log_entries"] = status["commit_index"], status["log"]["last_index"] - status["log"]["first_index"] + 1
        result["restart_ms"] = {}
        for how, name in ((signal.SIGTERM, "stop"), (signal.SIGKILL, "kill")):
            site.kill("node%d" % other, how)
            result["restart_ms"][name] = started(site, other)
            site.wait_whole()
        return result
    finally:
        site.finished = True
        site.cleanup()
