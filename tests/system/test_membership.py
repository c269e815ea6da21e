#!/usr/bin/env python3
"""A site grows from one gateway to three and shrinks to one again while it takes writes; who was removed cannot disturb it."""
from harness import *


class Writer:
    """One key after the other, over whoever is up; what was answered must be there at the end."""
    def __init__(self, site):
        self.site, self.kept, self.stop, self.ports = site, [], False, []
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        i = 0
        while not self.stop:
            i += 1
            ports = self.ports  # which may be others soon
            try:
                a = request(ports[i % len(ports)], "PUT", "/v1/kv/w%d" % i, str(i), timeout=20)
                if a.status in (200, 201):
                    self.kept.append(i)
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)

    def start(self, ports):
        self.ports = ports
        self.thread.start()
        return self

    def judge(self, port):
        self.stop = True
        self.thread.join(30)
        read = lambda i: wait_until("an answer", lambda: (lambda a: a.status in (200, 404) and a)(request(port, "GET", "/v1/kv/w%d" % i))).body
        lost = [i for i in self.kept if read(i) != str(i).encode()]
        self.site.ok(len(self.kept) > 50 and not lost, "nothing that was answered is lost: %d writes %s" % (len(self.kept), lost[:3]))


def names(site, n):
    return sorted(m["id"] + ("" if m["kind"] == "voter" else "?") for m in site.status(n)["members"])


def start_alone(site, n):
    """A gateway that knows nobody: it waits to be invited."""
    site.spawn("node%d" % n, [os.path.join(BUILD, "greyd"), "--config", site.path("node%d" % n, "greyd.yaml")])


def test(site):
    for n in site.nodes:
        site.kill("node%d" % n)
        shutil.rmtree(site.path("node%d" % n, "data"), ignore_errors=True)
    site.spawn("node1", [os.path.join(BUILD, "greyd"), "--config", site.path("node1", "greyd.yaml"), "--bootstrap"])
    wait_until("a site of one", lambda: site.status(1)["quorum"])
    w = Writer(site).start([site.http[1]])
    for n in (2, 3):
        start_alone(site, n)
        wait_until("its API", lambda: request(site.http[n], "GET", "/health/live").status == 200)
        r = site.ctl("member", "add", str(n), "127.0.0.1:%d" % site.peer[n])
        site.ok(r.returncode == 0, "member add %d: %s%s" % (n, r.stdout.strip(), r.stderr.strip()))
    wait_until("three voters", lambda: names(site, 1) == ["1", "2", "3"])
    site.wait_whole()
    site.ok(True, "the site has grown from one gateway to three")
    w.ports = [site.http[n] for n in site.nodes]

    r = site.ctl("member", "remove", "9")
    site.ok(r.returncode != 0 and "no member of that name" in r.stderr, "a name that is unknown is refused: %s" % r.stderr.strip().splitlines()[0])
    a = request(site.http[2], "POST", "/v1/admin/members", '{"add":[{"id":"x y","addr":"b:1"}]}')
    site.ok(a.status == 400, "a name that is none is refused")
    for body in ("[]", "{}", '{"id":"4"}', '{"id":"4","addr":"127.0.0.1:99999"}', '{"remove":[7]}', "{", ""):
        site.ok(request(site.http[2], "POST", "/v1/admin/members", body).status == 400, "refused: %r" % body)

    leader = site.leader()
    other = next(n for n in site.nodes if n != leader)
    third = next(n for n in site.nodes if n not in (leader, other))  # a transfer that takes too long is given up
    r = wait_until("the new leader", lambda: (lambda r: site.status(1)["leader_id"] == str(other) and r)(site.ctl("cluster", "transfer", str(other), node=third)))
    site.ok(r.returncode == 0, "leadership goes where it is told to, asked at a follower: %s" % r.stdout.strip())

    leader = other
    rest = [n for n in site.nodes if n != leader]
    victim = rest[0]
    site.kill("node%d" % victim)
    wait_until("it to be missed", lambda: [m for m in site.status(leader)["members"] if m["id"] == str(victim) and m["state"] != "healthy"])
    r = site.ctl("member", "remove", str(rest[1]), node=leader)
    site.ok(r.returncode == 3 and "too few" in r.stderr, "removing a living gateway while another is down is refused: %s" % r.stderr.strip().splitlines()[0])
    w.ports = [site.http[leader], site.http[rest[1]]]
    a = request(site.http[rest[1]], "DELETE", "/v1/admin/members/%d" % victim)
    site.ok(a.status == 200, "a dead gateway is removed, asked at a follower (%d %s)" % (a.status, a.body[:80]))
    wait_until("two members", lambda: names(site, leader) == sorted([str(leader), str(rest[1])]))
    term = site.status(leader)["term"]
    start_alone(site, victim)
    wait_until("it to know", lambda: site.status(victim)["removed"], 30)
    time.sleep(3)
    site.ok(names(site, leader) == sorted([str(leader), str(rest[1])]) and site.status(leader)["term"] == term,
            "the removed gateway comes back, learns of it, does not come in again and starts no elections")

    site.kill("node%d" % victim)
    shutil.rmtree(site.path("node%d" % victim, "data"))
    site.start_node(victim, bootstrap=True)
    wait_until("three voters again", lambda: names(site, leader) == ["1", "2", "3"])
    site.ok(True, "with an empty directory it is taken in again")

    leader = site.leader()
    r = site.ctl("cluster", "leave", node=leader)
    site.ok(r.returncode == 0, "the leader itself leaves: %s%s" % (r.stdout.strip(), r.stderr.strip()))
    left = [n for n in site.nodes if n != leader]
    w.ports = [site.http[n] for n in left]
    wait_until("another leader", lambda: names(site, left[0]) == [str(n) for n in left] and site.status(left[0])["leader_id"] in [str(n) for n in left])
    site.ok(True, "and another one leads")
    wait_until("it to know", lambda: site.status(leader)["removed"], 30)
    site.kill("node%d" % leader)
    last = int(site.status(left[0])["leader_id"])
    gone = next(n for n in left if n != last)
    w.ports = [site.http[last]]
    a = request(site.http[last], "POST", "/v1/admin/members", json.dumps({"remove": [str(gone)]}))
    site.ok(a.status == 200, "the site shrinks to one again")
    site.kill("node%d" % gone)
    wait_until("one member", lambda: names(site, last) == [str(last)])
    a = request(site.http[last], "PUT", "/v1/kv/alone", "yes")
    site.ok(a.status in (200, 201), "which goes on alone")
    a = request(site.http[last], "POST", "/v1/admin/leave?force=true")
    site.ok(a.status == 409, "the last voter cannot leave, even by force (%d)" % a.status)
    w.judge(site.http[last])


run_test(test, core=False, extra="consensus: {election_timeout_ms: 2000}\n")  # elections only where the test makes them, also on a busy machine
