#!/usr/bin/env python3
"""A disk that takes seconds for a sync (a worn card, a controller that stalls) must not hold up the site: as a follower's it is carried
along, as the leader's it costs the leadership within seconds; nothing answered is lost (FAULTS P8).  And damage where there is nobody to
mend from is refused with a word that helps."""
from slow_disks import *
import glob


def put(site, n, key, timeout=30):
    try:
        return request(site.http[n], "PUT", "/v1/kv/" + key, "v", timeout=timeout).status
    except OSError:
        return 0


def test(site):
    leader = site.leader()
    slow, other = [n for n in site.nodes if n != leader]
    site.slow(slow, 5000)
    begin = time.monotonic()
    done = [put(site, leader, "f%d" % i) for i in range(100)]
    site.ok(all(s in (200, 201) for s in done) and site.leader() == leader, "a slow follower holds nobody up: 100 writes in %.1f s" % (time.monotonic() - begin))
    site.well(slow)
    site.wait_same_state()
    site.ok(True, "and it is up to date again when its disk is well")

    site.slow(leader, 30000)
    begin = time.monotonic()
    threading.Thread(target=put, args=(site, leader, "hang"), daemon=True).start()
    def another():
        for n in (slow, other):
            if site.status(n)["role"] == "leader":
                return n
        return None
    second = wait_until("another leader", another, 60)
    site.ok(True, "a leader whose disk hangs gives leadership away after %.1f s" % (time.monotonic() - begin))
    done = [put(site, second, "s%d" % i) for i in range(50)]
    site.ok(all(s in (200, 201) for s in done), "the site goes on beside it")
    site.ok(site.alive("node%d" % leader) and request(site.http[leader], "GET", "/health/live").status == 200, "its process lives and answers")
    site.well(leader)
    site.wait_whole()
    site.wait_same_state()
    keys = ["f%d" % i for i in range(100)] + ["s%d" % i for i in range(50)]
    site.ok(all(request(site.http[leader], "GET", "/v1/kv/" + k).status == 200 for k in keys), "nothing that was answered is lost, on its own disk as well")

    # damage where nobody else has the log
    n = 1
    for m in site.nodes:
        site.kill("node%d" % m, signal.SIGTERM)
    alone = site.path("alone")
    log = glob.glob(site.path("node%d" % n, "data", "**", "log.db"), recursive=True)[0]
    shutil.copytree(site.path("node%d" % n, "data"), alone)
    copy = log.replace(site.path("node%d" % n, "data"), alone)
    size = os.path.getsize(copy)
    for page in range(2, size // 1024, 2):
        with open(copy, "r+b") as f:
            f.seek(page * 1024 + 500)
            b = f.read(1)[0]
            f.seek(page * 1024 + 500)
            f.write(bytes([b ^ 0x10]))
    r = subprocess.run([os.path.join(BUILD, "greyd"), "--mode", "single", "--node-id", str(n), "--site-id", SITE, "--data-dir", alone, "--http-addr", "127.0.0.1:0"],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    site.ok(r.returncode != 0 and "GREY-4003" in r.stdout and "greyd restore" in r.stdout,
            "a damaged log without others is refused, with what to do: %s" % r.stdout.strip().splitlines()[-2][:160])
    site.ok(os.path.exists(copy) and not glob.glob(alone + "/**/*.damaged*", recursive=True), "and nothing of it is moved or deleted")


run = SlowSite(core=False, extra="consensus: {election_timeout_ms: 2000}\n")  # a sync takes longer; a machine that stands still for a moment makes no election
try:
    run.start()
    test(run)
except Exception as e:
    import traceback
    run.ok(False, "%s: %s" % (type(e).__name__, e))
    for line in traceback.format_exc().splitlines()[-6:]:
        print("# " + line)
run.finish()
