#!/usr/bin/env python3
"""Damage in an old value that nobody asks for: the slow check of the databases finds it while the gateway runs, the gateway stops because the
site can spare it, and the next start mends it from the others.  If it failed, flash that forgets would be noticed when the last good
copy is gone; or a client would be told to try again for a value that cannot be read."""
from harness import *
from test_mending import flip, log_of, raft_ids, read_one, tables, written


def log_text(site, n):
    with open(site.path("node%d.log" % n), errors="replace") as f:
        return f.read()


def checks(site, n):
    return request(site.http[n], "GET", "/health/detailed").json()["checks"]["storage"]


def test(site):
    values = written(site, "old", 200)
    for i in range(60):  # more than a start takes into memory
        value = os.urandom(15000).hex()
        wait_until("a write", lambda: request(site.http[site.leader()], "PUT", "/v1/kv/new%d" % i, value, timeout=30).status in (200, 201))
    site.wait_same_state()
    before = raft_ids(site)
    time.sleep(7)  # the state is written: a start reads little of the log
    for n in site.nodes:
        site.kill("node%d" % n, signal.SIGTERM)
    for n in site.nodes:
        site.restart("node%d" % n)
    site.wait_whole()
    site.wait_same_state()
    site.ok(raft_ids(site) == before and all(checks(site, n)["damage"] is None for n in site.nodes), "all is well, and says so")

    # Met by a reader.
    one, other = [n for n in site.nodes if n != site.leader()]
    middle, way = tables(log_of(site, one))
    flip(log_of(site, one), middle)
    answers = {}
    for key in values:
        if not site.alive("node%d" % one):
            break
        try:
            a = request(site.http[one], "GET", "/v1/kv/%s?consistency=stale" % key, timeout=30)
        except (OSError, http.client.HTTPException):
            break
        answers.setdefault(a.status, a.body)
    wait_until("the damaged gateway to stop", lambda: not site.alive("node%d" % one))
    site.ok(set(answers) <= {200, 503} and b"GREY-4003" in answers.get(503, b"GREY-4003"), "a client hears of damage as 503 GREY-4003: %s" % answers)
    site.ok("node fail error=GREY-4003" in log_text(site, one), "the gateway stops to be mended")
    site.revive()
    site.wait_whole()
    site.wait_same_state()
    site.ok(all(read_one(site, one, key).body.decode() == value for key, value in values.items()), "all %d values are there again" % len(values))

    # Met by nobody but the check.
    site.extra = "storage: {data_dir: \"%s\", check_interval_secs: 1}\n" % site.path("node%d" % other, "data")
    path = site.path("node%d" % other, "greyd.yaml")
    with open(path) as f:
        text = f.read()
    with open(path, "w") as f:
        f.write("".join(line for line in text.splitlines(True) if not line.startswith("storage:")) + site.extra)
    site.restart("node%d" % other)
    site.wait_whole()
    site.wait_same_state()
    wait_until("a round of the check", lambda: checks(site, other)["checked_seconds_ago"] is not None, 60)
    site.ok(checks(site, other)["damage"] is None, "a sound disk passes the check")
    middle, way = tables(log_of(site, other))
    old = len(middle) * 2 // 3  # the last come first; what is younger may stand in SQLite's own log still
    flip(log_of(site, other), middle[old:old + 3])
    wait_until("the check to find damage", lambda: not site.alive("node%d" % other), 60)
    site.ok("node fail error=GREY-4003" in log_text(site, other), "damage that nobody asked for is found, and the gateway stops to be mended")
    site.revive()
    site.wait_whole()
    site.wait_same_state()
    wait_until("another round", lambda: checks(site, other)["checked_seconds_ago"] is not None, 60)
    site.ok(checks(site, other)["damage"] is None and site.alive("node%d" % other), "then it passes the check again")
    site.ok(all(read_one(site, other, key).body.decode() == value for key, value in values.items()), "all %d values are there again" % len(values))
    site.ok(raft_ids(site) == before, "every gateway is who it was")


if __name__ == "__main__":
    run_test(test, core=False)
