#!/usr/bin/env python3
"""Who decided what: leaders seal the log, every gateway can show it, and whoever changes an entry on a disk - with digests, hash chain
and page sums mended - is found out and named; the gateway takes the log from the others anew (FAULTS S21)."""
from harness import *
import glob, hashlib, struct, thief


def verify(site, n):
    r = site.ctl("audit", "verify", "-o", "json", node=n)
    return r.returncode, json.loads(r.stdout or "{}")


def audit(site, n, query=""):
    a = request(site.http[n], "GET", "/v1/audit?limit=1000" + query)
    assert a.status == 200, a.body
    return a.json()


def sealed_everywhere(site, index):
    def there():
        seals = [request(site.http[n], "GET", "/v1/raft/status").json()["seal"] for n in site.nodes]
        return all(s is not None and s["index"] >= index for s in seals)
    wait_until("all to hold a seal of entry %d" % index, there)


def write(site, n, label, count):
    for i in range(count):
        a = request(site.http[n], "PUT", "/v1/kv/%s%d" % (label, i), "the value of %s %d" % (label, i), timeout=30)
        assert a.status in (200, 201), a.body
    return request(site.http[n], "GET", "/v1/raft/status").json()["commit_index"]


def led(site, label, count, among=None):
    """Writes again until one leader had all of it in one term, its seal included; who, and up to which entry."""
    while True:
        leader = site.leader(among=among)
        before = site.status(leader)
        last = write(site, leader, label, count)
        wait_until("a seal of it", lambda: (request(site.http[leader], "GET", "/v1/raft/status").json()["seal"] or {"index": 0})["index"] >= last)
        after = site.status(leader)
        if (before["role"], before["term"]) == (after["role"], after["term"]) == ("leader", after["term"]):
            return leader, last


def varint(b, at):
    v = shift = 0
    while True:
        v |= (b[at] & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if b[at - 1] < 0x80:
            return v, at


def header_hash(index, head, size, previous):
    term, at = varint(head, 0)
    epoch, at = varint(head, at)
    time_ms, at = varint(head, at)
    kind, at = varint(head, at)
    schema, at = varint(head, at)
    return hashlib.sha256(struct.pack(">QQQQHHI", index, term, epoch, time_ms, kind, schema, size) + previous + head[at:at + 32]).digest(), at


def forge(db):
    """Changes one value, and then every digest and hash that would tell.  Returns the entry's index."""
    base, previous = db.execute("SELECT base_index, base_hash FROM meta").fetchone()
    rows = db.execute("SELECT idx, head, chain, data FROM entry WHERE idx > ? ORDER BY idx", (base,)).fetchall()
    victim = next(i for i, r in enumerate(rows) if r[3] is not None and b"the value of first 3" in bytes(r[3]))
    for i, (index, head, chain, data) in enumerate(rows):
        head, data = bytes(head), b"" if data is None else bytes(data)
        if i == victim:
            data = data.replace(b"the value of first 3", b"the value of thief 3")
        _, at = header_hash(index, head, len(data), previous)
        head = head[:at] + hashlib.sha256(data).digest() + head[at + 32:]
        previous, _ = header_hash(index, head, len(data), previous)
        if i >= victim:
            db.execute("UPDATE entry SET head = ?, chain = ?, data = ? WHERE idx = ?",
                       (head, previous if chain is not None else None, data or None, index))
    return rows[victim][0]


def test(site):
    leader, last = led(site, "first", 30)
    sealed_everywhere(site, last)
    for n in site.nodes:
        code, v = verify(site, n)
        site.ok(code == 0 and v["ok"] and v["sealed_index"] >= last and v["seals"] > 0, "node %d: chain and %s seals hold" % (n, v.get("seals")))
    pages = [audit(site, n, "&to=%d" % last) for n in site.nodes]
    site.ok(all(p["entries"] == pages[0]["entries"] or [e["hash"] for e in p["entries"]] == [e["hash"] for e in pages[0]["entries"]] for p in pages),
            "all gateways show one history")
    entry = [e for e in pages[0]["entries"] if e.get("key") == "first7"][-1]
    site.ok(entry["proposer"] == str(leader) and entry["type"] == "kv", "an entry names the leader that proposed it")
    request(site.http[leader], "POST", "/v1/events", json.dumps({"id": "traced", "type": "t", "priority": "critical", "data": {},
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}), {"Content-Type": "application/json"})
    traced = wait_until("its entry", lambda: [e for e in audit(site, leader, "&type=events")["entries"] if "traced" in e["ids"]])
    site.ok(len(traced) == 1 and traced[0]["traces"] == ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], "an entry names its events and their traces")
    site.ok(request(site.http[leader], "GET", "/v1/audit?from=x").status == 400 and request(site.http[leader], "GET", "/v1/audit?type=x").status == 400 and
            request(site.http[leader], "GET", "/v1/audit?from=99999999").status == 404, "what cannot be asked is refused")

    # a new leader seals what the former left, and both are verified
    site.kill("node%d" % leader)
    second, last = led(site, "second", 10, [n for n in site.nodes if n != leader])
    site.restart("node%d" % leader)
    site.wait_whole()
    sealed_everywhere(site, last)
    for n in site.nodes:
        code, v = verify(site, n)
        site.ok(code == 0 and v["sealed_index"] >= last, "node %d: seals of both leaders hold" % n)
    signers = {s["node"] for s in audit(site, second)["signers"]}
    site.ok({str(leader), str(second)} <= signers, "both leaders have sealed")

    # a thief changes one entry of a disk, and everything on that disk that would tell
    victim = leader
    before = {m["id"]: m["raft_id"] for m in site.status(second)["members"]}
    site.kill("node%d" % victim, signal.SIGTERM)
    index = thief.change(glob.glob(site.path("node%d" % victim, "data", "**", "log.db"), recursive=True)[0], forge)
    site.restart("node%d" % victim)

    def back():
        ids = {m["id"]: m["raft_id"] for m in site.status(site.leader())["members"]}
        return set(ids) == set(before) and ids[str(victim)] != before[str(victim)]
    wait_until("the forged gateway to join anew", back, 60)
    site.wait_whole()
    log = open(site.path("node%d.log" % victim)).read()
    site.ok("sealed in epoch" in log and "or one before it is not what" in log, "entry %d was forged: the gateway names the seal that does not hold" % index)
    counted = "grey_storage_forged_logs_total 1" in request(site.http[victim], "GET", "/metrics").body.decode().splitlines()
    site.ok("GREY-3004" in log and counted, "by its number, GREY-3004, and counts it")
    a = request(site.http[victim], "GET", "/v1/kv/first3")
    site.ok(a.body == b"the value of first 3" or a.body == "the value of first 3", "and has the value that was agreed on again")
    sealed_everywhere(site, write(site, site.leader(), "third", 5))
    code, v = verify(site, victim)
    site.ok(code == 0, "and its log verifies")


run_test(test, core=False, extra="consensus: {seal_interval_ms: 200}\n")
