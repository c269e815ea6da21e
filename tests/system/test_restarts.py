#!/usr/bin/env python3
"""Every process is killed and started again under load, one after the other; a restart by hand at 3 a.m. must lose nothing."""
from harness import *


def test(site):
    ledger = Ledger(site, 6000, threads=4, batch=5, pause=0.02).start()
    for i, name in enumerate(["node1", "broker", "node2", "core", "node3", "broker"]):
        wait_until("some events", lambda: ledger.done() >= (i + 1) * 700 or ledger.errors, 180)
        site.kill(name)
        if name == "node3":  # its data went to another disk, and a link stands where they were
            os.rename(site.path(name, "data"), site.path(name, "moved"))
            os.symlink("moved", site.path(name, "data"))
        time.sleep(0.5)
        site.restart(name)
    ledger.join()
    ledger.judge()
    site.wait_whole()
    site.wait_same_state()
    site.ok(True, "the three gateways are whole again and hold the same state")
    name = "node%d" % site.leader()
    started = time.monotonic()
    site.kill(name, signal.SIGTERM)
    site.ok(site.processes[name].returncode == 0 and time.monotonic() - started < 25, "SIGTERM stops a leader cleanly, with exit code 0")
    rest = [n for n in site.nodes if "node%d" % n != name]
    site.leader(among=rest)
    a = request(site.http[rest[0]], "PUT", "/v1/kv/after", "1")
    site.ok(a.status in (200, 201), "the others go on")
    site.restart(name)
    site.wait_whole()
    back = site.http[int(name[4:])]
    wait_until("its API", lambda: request(back, "GET", "/health/ready").status == 200)
    site.ok(request(back, "GET", "/v1/kv/after").body == b"1", "what was written meanwhile is read from the one that returned")


run_test(test)
