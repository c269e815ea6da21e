#!/usr/bin/env python3
"""Disks that lie: bits flip in a gateway's log or state, a log loses its end, an old copy of a disk is put back.  The site goes on, the
gateway finds it, and becomes whole again by itself; nothing that was answered is lost (FAULTS P5, P7, P10)."""
from harness import *
import glob

LOG_PAGE, STATE_PAGE = 1024, 1024


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        b = f.read(1)[0]
        f.seek(at)
        f.write(bytes([b ^ 0x10]))


def data(site, n, *parts):
    return site.path("node%d" % n, "data", *parts)


def log_of(site, n):
    found = glob.glob(data(site, n, "**", "log.db"), recursive=True)
    return found[0]


def raft_ids(site):
    return {m["id"]: m["raft_id"] for m in site.status(site.leader())["members"]}


def write(site, n, label, count=40):
    for i in range(count):
        wait_until("a write", lambda: request(site.http[n], "PUT", "/v1/kv/%s%d" % (label, i), "value %s %d " % (label, i) * 20, timeout=30).status in (200, 201))


def keep_alive(site, n):
    """What a supervisor does: a node that stopped by itself is started again."""
    if not site.alive("node%d" % n):
        site.restart("node%d" % n)


def whole_again(site, n, what, before, expect_new):
    def mended():
        keep_alive(site, n)
        try:
            ids = raft_ids(site)
            return set(ids) == set(before) and (not expect_new or ids[str(n)] != before[str(n)])
        except (OSError, http.client.HTTPException, ValueError):
            return False
    wait_until("%s: its return" % what, mended, 120)

    def settled():
        keep_alive(site, n)  # damage may be met later, by a read
        try:
            site.wait_whole(10)
            site.wait_same_state(10)
        except AssertionError:
            return False
        return True
    wait_until("%s: all three whole, with one state" % what, settled, 150)
    site.ok(True, "%s: the gateway became whole again by itself%s" % (what, ", as a new member" if expect_new else ""))


def full_disk(site, victim, name):
    """A follower's disk is full: the site goes on, it answers reads, and goes on by itself when there is room."""
    before = raft_ids(site)
    site.kill(name, signal.SIGTERM)
    place = data(site, victim)
    shutil.rmtree(place)
    os.makedirs(place)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m,mode=0700", "tmpfs", place], stderr=subprocess.DEVNULL).returncode != 0:
        site.ok(True, "a full disk is not tried: no right to mount")
        site.restart(name)
        whole_again(site, victim, "an empty disk", before, True)
        return
    try:
        site.restart(name)
        whole_again(site, victim, "a small empty disk", before, True)
        before = raft_ids(site)
        big = os.urandom(400000).hex()
        for i in range(40):
            wait_until("a write", lambda: request(site.http[site.leader()], "PUT", "/v1/kv/big%d" % i, big, timeout=30).status in (200, 201))
        wait_until("the disk to be full", lambda: "disk-full" in open(site.path(name + ".log")).read(), 30)
        a = request(site.http[victim], "GET", "/v1/kv/first7?consistency=stale")
        site.ok(a.status == 200 and site.alive(name), "with a full disk it still answers reads")
        write(site, site.leader(), "full", 5)
        site.ok(True, "and the site goes on")
        subprocess.run(["mount", "-o", "remount,size=300m", place], check=True)
        whole_again(site, victim, "room again", before, False)
        site.kill(name, signal.SIGTERM)
        shutil.copytree(place, place + ".kept", symlinks=True)
    finally:
        if site.alive(name):
            site.kill(name)
        subprocess.run(["umount", "-l", place])
    os.rmdir(place)
    os.rename(place + ".kept", place)
    site.restart(name)
    whole_again(site, victim, "moved to another disk", before, False)


def test(site):
    write(site, site.leader(), "first")
    victim = next(n for n in site.nodes if n != site.leader())
    name = "node%d" % victim
    log = log_of(site, victim)

    pages = lambda: os.path.getsize(log) // LOG_PAGE
    cases = [("the first page of log.db", lambda: flip(log, 40)),
             ("a page in the middle of log.db", lambda: [flip(log, p * LOG_PAGE + 500) for p in range(pages() // 2, pages() // 2 + 6)]),
             ("the end of log.db cut off", lambda: os.truncate(log, os.path.getsize(log) // 2 // LOG_PAGE * LOG_PAGE)),
             ("log.db gone", lambda: [os.unlink(f) for f in glob.glob(log + "*") if "damaged" not in f])]
    for what, harm in cases:
        mended = what == "a page in the middle of log.db"
        before = raft_ids(site)
        site.kill(name, signal.SIGTERM)
        harm()
        write(site, site.leader(), "while" + str(cases.index((what, harm))), 10)
        site.restart(name)
        whole_again(site, victim, what, before, not mended)
        site.ok(not mended or raft_ids(site) == before, "%s: who it is now follows from what it lost" % what)
        write(site, site.leader(), "after" + str(cases.index((what, harm))), 30)
    kept = glob.glob(os.path.join(os.path.dirname(log), "log.db.damaged-*"))
    site.ok(1 <= len(kept) <= 2, "what was damaged is kept, and bounded: %d" % len(kept))
    text = open(site.path(name + ".log")).read()
    site.ok("GREY-4003" in text and "setaside moved" in text and "mending done" in text, "and the log names it")

    before = raft_ids(site)
    site.kill(name, signal.SIGTERM)
    state = data(site, victim, "state.db")
    for p in range(os.path.getsize(state) // STATE_PAGE):
        flip(state, p * STATE_PAGE + 500)
    site.restart(name)
    whole_again(site, victim, "all of state.db damaged", before, False)

    # An older copy put back: taken while it stood still, then it acknowledged more.
    copy = site.path("copy")
    for what, restarts in (("an older copy that the leader remembers more of", 1), ("an older copy with fewer starts", 3)):
        before = raft_ids(site)
        site.kill(name, signal.SIGTERM)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(data(site, victim), copy, symlinks=True)
        for _ in range(restarts):
            site.restart(name)
            site.wait_whole()
            write(site, site.leader(), "gone%d" % restarts, 30)
            site.wait_same_state()
            site.kill(name, signal.SIGTERM)
        shutil.rmtree(data(site, victim))
        shutil.copytree(copy, data(site, victim), symlinks=True)
        site.restart(name)
        whole_again(site, victim, what, before, True)
    site.ok("GREY-4010" in open(site.path(name + ".log")).read(), "and it said what it was told")

    full_disk(site, victim, name)

    for n in site.nodes:
        last = request(site.http[n], "GET", "/v1/kv/first7?consistency=stale")
        site.ok(last.status == 200 and last.body == b"value first 7 " * 20, "node %d still has what was written first" % n)
    other = next(n for n in site.nodes if n not in (victim, site.leader()))
    site.kill("node%d" % other)
    site.leader(among=[n for n in site.nodes if n != other])
    write(site, victim, "last", 5)
    site.ok(True, "with it, the site can lose another")
    site.restart("node%d" % other)
    site.wait_whole()
    site.wait_same_state()


run_test(test, core=False, extra="consensus: {snapshot_threshold: 100}\n")
