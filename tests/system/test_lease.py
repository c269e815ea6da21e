#!/usr/bin/env python3
"""A leader answers reads without asking the others, and never from the past: a client that sees an old value after a newer one was
confirmed closes a valve twice.  A paused or cut-off leader has lost its lease; clocks beyond the stated drift would break it, which the
simulator notices."""
from harness import *


def read(site, n, query="", timeout=15):
    return request(site.http[n], "GET", "/v1/kv/valve" + query, timeout=timeout)


def write(site, n, value):
    wait_until("a write", lambda: request(site.http[n], "PUT", "/v1/kv/valve", value).status in (200, 201))


def leased(site):
    """The leader, once it answers from its lease: where it did not run for a moment, it does not for 10 s."""
    return wait_until("a lease", lambda: [n for n in [site.leader()] if read(site, n).headers["x-grey-read"] == "lease"])[0]


def later(function):
    """Runs it beside; the result, or what it died of, is in the list."""
    out = []

    def run():
        try:
            out.append(function())
        except (OSError, http.client.HTTPException) as e:
            out.append(e)
    t = threading.Thread(target=run, daemon=True)
    t.start()
    return t, out


def rounds(site, n, by):
    text = request(site.http[n], "GET", "/metrics").body.decode()
    return sum(float(l.split()[-1]) for l in text.splitlines() if l.startswith("grey_consensus_reads_total{by=\"%s\"" % by))


def ways(site):
    write(site, site.leader(), "shut")
    leader = leased(site)
    other = next(n for n in site.nodes if n != leader)
    site.ok(True, "the leader answers reads from its lease, and says so")
    a = wait_until("a follower's answer", lambda: (lambda a: a.status == 200 and a)(read(site, other, "?consistency=linearizable")))
    site.ok(a.headers["x-grey-read"] == "index" and a.body == b"shut", "a follower asks the leader, and says so")
    a = read(site, other, "?consistency=stale")
    site.ok(a.headers["x-grey-read"] == "stale" and a.headers.get("x-grey-stale") == "true", "a stale read says so")

    def cheap():
        n = leased(site)
        before = rounds(site, n, "lease"), rounds(site, n, "index")
        for _ in range(100):
            read(site, n)
        more = rounds(site, n, "lease") - before[0]
        return more >= 80 and (more, rounds(site, n, "index") - before[1])
    site.ok(True, "of 100 reads one after the other %d cost no message (%d did)" % wait_until("100 reads during which the leader is not stopped", cheap, 120))


def pauses(site):
    old_values = 0
    for i in range(4):
        write(site, site.leader(), "before-%d" % i)
        leader = leased(site)
        site.kill("node%d" % leader, signal.SIGSTOP)
        successor = site.leader(among=[n for n in site.nodes if n != leader])
        write(site, successor, "after-%d" % i)
        waiting = [later(lambda: read(site, leader)) for _ in range(20)]  # they lie in the sockets of the paused leader
        time.sleep(0.2)
        site.kill("node%d" % leader, signal.SIGCONT)
        waiting += [later(lambda: read(site, leader)) for _ in range(20)]
        for t, out in waiting:
            t.join(20)
            if out and isinstance(out[0], Answer) and out[0].status == 200 and out[0].body != b"after-%d" % i:
                old_values += 1
    site.ok(old_values == 0, "a leader that was stopped for longer than its lease, with reads waiting, tells nothing old (%d)" % old_values)


def partitions(site):
    old_values = answered = 0
    for i in range(12):
        if i >= 3 and answered > 0:  # on a busy machine a lease may be over before the first read is there
            break
        write(site, site.leader(), "old-%d" % i)
        leader = leased(site)
        site.isolate(leader)
        done, seen = [], []

        def ask():
            while not done:
                known = list(seen)  # what was confirmed before this read began
                try:
                    a = read(site, leader, timeout=2)
                except OSError:
                    continue
                if a.status == 200:
                    seen_bad = known and a.body != b"new-%d" % i
                    results.append(bool(seen_bad))
        results = []
        readers = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for t in readers:
            t.start()
        successor = site.leader(among=[n for n in site.nodes if n != leader])
        write(site, successor, "new-%d" % i)
        seen.append(True)
        time.sleep(1)
        done.append(True)
        site.heal()
        for t in readers:
            t.join(20)
        old_values += sum(results)
        answered += len(results)
        site.wait_whole()
    site.ok(old_values == 0 and answered > 0, "a leader that is cut off answers while its lease holds (%d reads), and never after another wrote" % answered)


def simulated():
    sim = os.path.join(BUILD, "sim")
    within = subprocess.run([sim, "--count", "20", "--minutes", "2"], stdout=subprocess.PIPE, text=True)
    beyond = subprocess.run([sim, "--count", "80", "--minutes", "2", "--drift-ppm", "600000"], stdout=subprocess.PIPE, text=True)
    leased = [l for l in within.stdout.splitlines() if l.split("  ")[0] == "" and "reads by lease" in l]
    return within.returncode == 0 and leased and int(leased[0].split()[-1]) > 1000, "holds the lease of" in beyond.stdout


def test(site):
    ways(site)
    pauses(site)
    partitions(site)
    good, found = simulated()
    site.ok(good, "simulated clusters whose clocks drift as far as is allowed never break a lease")
    site.ok(found, "clocks that drift further do, and the simulator notices")


run_test(test, core=False, links=True)
