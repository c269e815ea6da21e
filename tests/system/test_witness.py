#!/usr/bin/env python3
"""Two gateways and a witness are a full site: any one of the three may be lost and writes go on.  The witness, on the smallest of boards,
keeps headers only; with one gateway left the site says that its answers rest on one disk."""
from harness import *
import glob

WITNESS = 3


class WitnessSite(Site):
    def write_config(self, n):
        super().write_config(n)
        if n == WITNESS:
            path = self.path("node%d" % n, "greyd.yaml")
            with open(path) as f:
                text = f.read()
            with open(path, "w") as f:
                f.write(text.replace("mode: site", "mode: witness", 1))

    def wait_whole(self, seconds=90):
        def whole():
            s = self.status(self.leader(seconds))
            kinds = sorted(m["kind"] for m in s["members"] if m["state"] == "healthy")
            return kinds == ["voter", "voter", "witness"] and len(s["members"]) == 3
        wait_until("two healthy voters and a witness", whole, seconds)


def put(site, n, key, value="v", timeout=15):
    return request(site.http[n], "PUT", "/v1/kv/" + key, value, timeout=timeout).status


def get(site, n, key):
    return request(site.http[n], "GET", "/v1/kv/" + key).body


def data_bytes(site, n):
    return sum(os.stat(os.path.join(d, name)).st_blocks * 512 for d, _, names in os.walk(site.path("node%d" % n, "data")) for name in names)


def resident_bytes(site, n):
    with open("/proc/%d/smaps_rollup" % site.processes["node%d" % n].pid) as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Pss:"))


def flood(site, n, count, size=200):
    """So many entries, each with a payload of its own, from several clients; they are all answered."""
    failed, deadline = [], time.monotonic() + 240

    def run(worker):
        c = http.client.HTTPConnection("127.0.0.1", site.http[n], timeout=30)
        for i in range(worker, count, 32):
            status = 504
            while status in (503, 504) and time.monotonic() < deadline:  # while an election goes on
                c.request("PUT", "/v1/kv/flood-%d" % (i % 500), b"secret-payload-%d-" % i + b"x" * size)
                r = c.getresponse()
                r.read()
                status = r.status
            if status not in (200, 201):
                failed.append(status)
                return
    threads = [threading.Thread(target=run, args=(w,), daemon=True) for w in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    return not failed and not any(t.is_alive() for t in threads)


def secrets_on_disk(site, n):
    found = 0
    for d, _, names in os.walk(site.path("node%d" % n, "data")):
        for name in names:
            path = os.path.join(d, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    found += b"secret-payload" in f.read()
    return found


def others(n):
    return [m for m in (1, 2) if m != n]


def test(site):
    leader = site.leader()
    w = site.status(WITNESS)
    site.ok(w["mode"] == "witness" and leader != WITNESS, "a witness joins as a member and does not lead")

    def told():
        a = request(site.http[WITNESS], "GET", "/v1/kv/x")
        return a if a.status != 421 or ("leader is %d" % site.leader()) in a.body.decode() else None
    site.ok(wait_until("the witness to know who leads", told).status == 421, "asked for data it says that it is a witness, and who leads")
    site.ok(request(site.http[WITNESS], "GET", "/health").status == 200 and
            "grey_consensus_term" in request(site.http[WITNESS], "GET", "/metrics").body.decode(), "it answers health and metrics")
    site.ok(site.status(leader)["one_disk"] is False, "with both gateways answers rest on two disks")

    def phis():
        return {m["id"]: m["phi"] for m in request(site.http[site.leader()], "GET", "/v1/cluster/members").json()}
    known = wait_until("the leader to know how each of them speaks", lambda: [p for p in [phis()] if None not in p.values() and max(p.values()) < 8])[0]
    site.ok(set(known) == {"1", "2", str(WITNESS)} and known[str(WITNESS)] < 8, "the leader says how sure it is that a witness is there, too: %s" % known)

    def of_links():
        n = site.leader()
        phi = {k["peer_id"]: k["phi"] for k in request(site.http[n], "GET", "/v1/debug/network").json()["links"]}
        return phi if set(phi) == {"1", "2", str(WITNESS)} - {str(n)} and None not in phi.values() else None
    links = wait_until("it to say so of each link", of_links)
    site.ok(True, "of each link as well: %s" % links)

    site.ok(flood(site, leader, 20000), "20,000 entries are written")
    wait_until("the witness to have it all", lambda: site.status(WITNESS)["commit_index"] >= 20000, 60)
    wait_until("it to clear away what it does not keep", lambda: data_bytes(site, WITNESS) < 2 * 1024 * 1024)
    size, memory = data_bytes(site, WITNESS), resident_bytes(site, WITNESS)
    site.ok(size < 2 * 1024 * 1024, "after that the witness's disk holds %d KiB" % (size // 1024))
    site.ok(memory < 12 * 1024 * 1024 or "address" in BUILD, "and its memory %d KiB" % (memory // 1024))
    site.ok(secrets_on_disk(site, WITNESS) == 0 and secrets_on_disk(site, others(leader)[0]) > 0, "no payload is on its disk")

    leader = site.leader()
    other = others(leader)[0]
    site.kill("node%d" % other)
    site.ok(put(site, leader, "one-gateway", "1") in (200, 201), "a gateway is lost: writes go on")
    wait_until("the site to say that answers rest on one disk", lambda: site.status(leader)["one_disk"] is True, 20)
    said = site.ctl("status", node=leader).stdout
    site.ok("one disk" in said, "and the site says that answers rest on one disk: %s" % said.splitlines()[0])
    site.restart("node%d" % other)
    site.wait_whole()
    wait_until("two disks again", lambda: site.status(site.leader())["one_disk"] is False, 60)

    site.kill("node%d" % WITNESS)
    leader = site.leader(among=[1, 2])
    site.ok(put(site, leader, "no-witness", "2") in (200, 201), "the witness is lost: writes go on")

    # Both the witness and a gateway: no majority.  What was not confirmed may not be lost either way, and nothing is confirmed.
    other = others(leader)[0]
    site.kill("node%d" % other)
    wait_until("the leader to step down", lambda: not site.status(leader)["quorum"], 30)
    site.ok(put(site, leader, "alone", "3", timeout=30) == 503, "the witness and a gateway are lost: writes are refused")
    site.restart("node%d" % WITNESS)
    leader = site.leader(among=[leader])
    site.ok(put(site, leader, "witnessed", "4") in (200, 201), "the witness returns: writes go on")

    # Now the gateway that lacks the last writes must not lead, whatever the witness would like.
    site.kill("node%d" % leader)
    site.restart("node%d" % other)
    wait_until("it to answer", lambda: site.status(other))
    time.sleep(4)
    site.ok(site.status(other)["role"] != "leader", "a gateway that lacks what was confirmed with the witness cannot lead")
    site.restart("node%d" % leader)
    site.wait_whole()
    leader = site.leader()
    other = others(leader)[0]
    site.ok(get(site, leader, "witnessed") == b"4" and get(site, other, "witnessed") == b"4", "the whole site has all that was confirmed")

    # A leader killed outright: the other gateway takes over with the witness's vote.
    site.kill("node%d" % leader)
    site.leader(among=[other])
    site.ok(get(site, other, "one-gateway") == b"1" and put(site, other, "after", "5") in (200, 201), "the leader is lost: the other takes over")

    # Its disk is damaged: it must not vote on the ground of what it cannot read, and comes back as a new witness.
    site.restart("node%d" % leader)
    site.wait_whole()
    before = {m["id"]: m["raft_id"] for m in site.status(site.leader())["members"]}
    site.kill("node%d" % WITNESS, signal.SIGTERM)
    log = glob.glob(site.path("node%d" % WITNESS, "data", "**", "log.db"), recursive=True)[0]
    with open(log, "r+b") as f:
        for page in range(2, os.path.getsize(log) // 1024, 3):
            f.seek(page * 1024 + 300)
            f.write(b"damage")
    site.restart("node%d" % WITNESS)

    def anew():
        members = site.status(site.leader())["members"]
        return len(members) == 3 and all(m["raft_id"] != before[m["id"]] for m in members if m["id"] == str(WITNESS))
    wait_until("a new witness", anew, 60)
    site.wait_whole()
    site.ok(put(site, site.leader(), "after-damage", "6") in (200, 201), "a witness with a damaged disk comes back as a new one")
    site.restart("node%d" % leader)
    site.wait_whole()

    # Away for long: the leader's log no longer goes back so far.
    site.kill("node%d" % WITNESS)
    leader = site.leader(among=[1, 2])
    for i in range(3):
        flood(site, leader, 3000, size=20)
        site.ctl("snapshot", "create", node=leader)
    site.restart("node%d" % WITNESS)
    site.wait_whole()
    wait_until("the witness to catch up", lambda: site.status(WITNESS)["commit_index"] >= site.status(leader)["commit_index"] - 5, 60)
    with open(site.path("node%d.log" % WITNESS)) as f:
        site.ok(True, "a witness that was away catches up (%s)" % ("by a point" if " rebase " in f.read() else "from the log"))
    wait_until("it to clear away what it does not keep", lambda: data_bytes(site, WITNESS) < 2 * 1024 * 1024)
    site.ok(secrets_on_disk(site, WITNESS) == 0, "with a disk as small as before")
    site.kill("node%d" % WITNESS)
    with open(site.path("node%d" % WITNESS, "greyd.yaml")) as f:
        text = f.read()
    with open(site.path("node%d" % WITNESS, "greyd.yaml"), "w") as f:
        f.write(text.replace("mode: witness", "mode: site", 1))
    refused = subprocess.run([os.path.join(BUILD, "greyd"), "--config", site.path("node%d" % WITNESS, "greyd.yaml")], stderr=subprocess.PIPE, text=True, timeout=60)
    site.ok(refused.returncode != 0 and "belongs to a witness" in refused.stderr, "a witness's directory does not become a gateway's")


def main():
    site = WitnessSite(core=False)
    try:
        site.start()
        test(site)
    except Exception as e:
        import traceback
        site.ok(False, "%s: %s" % (type(e).__name__, e))
        for line in traceback.format_exc().splitlines()[-6:]:
            print("# " + line)
    site.finish()


main()
