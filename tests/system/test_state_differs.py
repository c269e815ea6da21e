#!/usr/bin/env python3
"""A gateway whose state is another one than that of its site (a fault of memory, of the program, of somebody's hand) is found by the hashes
that the gateways compare every 1,000 entries, stops, says so, and is given the state anew; the others go on (issue 3, line 10)."""
from harness import *
import thief


def differ(db):
    hash, = db.execute("SELECT state_hash FROM meta").fetchone()
    other = bytes([hash[0] ^ 1]) + bytes(hash[1:])
    # the hash runs on from where it stood, in the state itself and in the note beside it
    rows = db.execute("SELECT tbl, key, value FROM row WHERE instr(value, ?) > 0", (hash,)).fetchall()
    for tbl, key, value in rows:
        db.execute("UPDATE row SET value = ? WHERE tbl = ? AND key = ?", (bytes(value).replace(hash, other), tbl, key))
    db.execute("UPDATE meta SET state_hash = ?", (other,))
    return len(rows)


def write(site, count, odd):
    for i in range(count):
        if odd is not None and not site.alive(odd):
            return i
        a = request(site.http[site.leader(among=[n for n in site.nodes if "node%d" % n != odd])], "PUT", "/v1/kv/x%d" % (i % 50), "value %d" % i, timeout=30)
        assert a.status in (200, 201), a.body
    return count


def answers(site, n):
    try:
        return request(site.http[n], "GET", "/health/ready").status == 200
    except (OSError, http.client.HTTPException):
        return False


def test(site):
    write(site, 50, None)
    site.wait_same_state()
    time.sleep(6)  # a flush, so that state.db stands for all of it
    leader = site.leader()
    odd = next(n for n in site.nodes if n != leader)
    name, before = "node%d" % odd, {m["id"]: m["raft_id"] for m in site.status(leader)["members"]}
    site.kill(name, signal.SIGTERM)
    changed = thief.change(site.path(name, "data", "state.db"), differ)
    site.ok(changed == 1, "the state of gateway %d is made another one" % odd)
    site.restart(name)
    wait_until("it to answer", lambda: answers(site, odd), 30)
    site.wait_whole()

    def hashes():
        """Of all three at one entry."""
        states = [request(site.http[n], "GET", "/v1/raft/status").json() for n in site.nodes]
        return {s["state_hash"] for s in states} if len({s["applied_index"] for s in states}) == 1 else None
    site.ok(len(wait_until("all to have applied the same", hashes)) == 2, "nothing told it at its start")
    count = write(site, 2500, name)
    wait_until("it to stop", lambda: not site.alive(name))
    site.ok(site.processes[name].returncode >= 0, "after %d more entries it is found and stops" % count)
    log = open(site.path(name + ".log")).read()
    site.ok("GREY-4011" in log and "state at index" in log, "and its log says why")
    states = lambda: [m["state"] for n in site.nodes if n != odd for m in site.status(n)["members"] if m["id"] == str(odd)]
    site.ok("fenced" in states(), "the site shows it as fenced")
    a = request(site.http[leader], "PUT", "/v1/kv/on", "yes", timeout=30)
    site.ok(a.status in (200, 201), "the others go on")
    site.restart(name)
    def anew():
        ids = {m["id"]: m["raft_id"] for m in site.status(site.leader())["members"]}
        return set(ids) == set(before) and ids[str(odd)] != before[str(odd)]
    wait_until("its return", anew, 60)
    site.wait_whole()
    site.wait_same_state()
    site.ok(True, "started again it is given the state anew, the same as all others'")


run_test(test, core=False)
