#!/usr/bin/env python3
"""Damage in the middle of a log, also of all three at once at different places: each gateway finds it when it starts or when it reads there,
gets what it lost from the others, stays who it is, and nothing that was answered is lost (FAULTS P10, P12).  If it failed, a site of old flash cards would lose what two disks still
hold, or throw away its only copy."""
from harness import *
import glob, random

PAGE = 1024


def log_of(site, n):
    return glob.glob(os.path.join(site.path("node%d" % n, "data"), "**", "log.db"), recursive=True)[0]


def tables(path):
    """Pages of the table `entry` that are not on the way to its last row, and those that are."""
    with open(path, "rb") as f:
        raw = f.read()
    page = lambda p: raw[(p - 1) * PAGE:p * PAGE]
    number = lambda b: int.from_bytes(b, "big")
    text = page(1)
    roots = {}
    for at in range(100 + 8, 100 + 8 + 2 * number(text[103:105]), 2):  # cells of the schema table
        cell = text[number(text[at:at + 2]):]
        if b"CREATE TABLE entry(" in cell[:200]:
            roots["entry"] = cell
    cell = roots["entry"]
    at = 0
    while cell[at] & 0x80:
        at += 1
    at += 1
    while cell[at] & 0x80:
        at += 1
    at += 1
    # record: header size, types of type, name, tbl_name, rootpage, sql; the texts are "table", "entry", "entry"
    root = number(cell[cell.index(b"tableentryentry") + 15:][:1]) if cell[cell.index(b"tableentryentry") + 15] > 1 else None
    middle, way, todo = [], [], [(root, True)]
    while todo:
        p, on_the_way = todo.pop()
        body = page(p)
        if body[0] == 5:
            cells = number(body[3:5])
            for i in range(cells):
                todo.append((number(body[number(body[12 + 2 * i:14 + 2 * i]):][:4]), False))
            todo.append((number(body[8:12]), on_the_way))
        (way if on_the_way else middle).append(p)
    return middle, way


def flip(path, pages, at=600):
    with open(path, "r+b") as f:
        for p in pages:
            f.seek((p - 1) * PAGE + at)
            b = f.read(1)[0]
            f.seek((p - 1) * PAGE + at)
            f.write(bytes([b ^ 0x40]))


def raft_ids(site):
    return {m["id"]: m["raft_id"] for m in site.status(site.leader())["members"]}


def put(site, key, value):
    wait_until("%s to be written" % key, lambda: request(site.http[site.leader()], "PUT", "/v1/kv/" + key, value, timeout=30).status in (200, 201))


def settle(site):
    """Whole and equal, with a supervisor: a gateway that meets damage when it is asked stops, to be mended at its next start."""
    deadline = time.monotonic() + 240
    while True:
        site.revive()
        try:
            site.wait_whole(30)
            site.wait_same_state(30)
            return
        except (AssertionError, OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise


def written(site, label, count):
    """Small values, and some that span pages."""
    values = {}
    for i in range(count):
        key, value = "%s%d" % (label, i), ("%s value %d " % (label, i)) * (1 + i % 7 + 300 * (i % 13 == 0))
        put(site, key, value)
        values[key] = value
    return values


def read_one(site, n, key):
    """As a client reads that is patient with a gateway that has met damage: it says so, or stops to be mended, and is started again."""
    deadline = time.monotonic() + 90
    while True:
        if site.revive():
            settle(site)
        try:
            a = request(site.http[n], "GET", "/v1/kv/%s?consistency=stale" % key, timeout=30)
            if a.status != 503 or b"GREY-4003" not in a.body or time.monotonic() > deadline:
                return a
            print("# node %d, %s: %s" % (n, key, a.body.decode()[:160].strip()), flush=True)
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline, "node %d did not answer" % n
        time.sleep(0.1)


def all_there(site, values):
    for n in site.nodes:
        for key, value in values.items():
            a = read_one(site, n, key)
            if a.status != 200 or a.body.decode() != value:
                print("# node %d, %s: %d %s" % (n, key, a.status, a.body[:200]))
                return False
    return True


def test(site):
    random.seed(7)
    values = written(site, "a", 150)
    before = raft_ids(site)
    for turn, (what, harmed) in enumerate((("one", 1), ("all", 3), ("rested", 3), ("killed", 3), ("killed", 3), ("rested", 1))):
        values.update(written(site, "b%d" % random.randrange(10 ** 9), 60))
        settle(site)
        big = {}
        if what == "killed":  # more than a log takes before it goes into its file, and less than 5 s, after which the state is on disk too
            big = {"big%d" % i: os.urandom(30000).hex() for i in range(40)}
            for key, value in big.items():
                put(site, key, value)
        values.update(big)
        if what == "rested":  # the state has been written: then the log below it is not needed, but for what rows refer to
            time.sleep(7)
        for n in site.nodes:
            site.kill("node%d" % n, signal.SIGKILL if big else signal.SIGTERM)
        share = {}
        for n in site.nodes[:harmed]:
            middle, way = tables(log_of(site, n))
            if big:
                last = os.path.getsize(log_of(site, n)) // PAGE
                middle = [p for p in range(last // 2, last - 20) if p not in way]
            if harmed > 1:  # each in another third: an entry of which no gateway has a copy any more is lost, and they would wait for it
                third = (n + turn) % 3
                middle = middle[len(middle) * third // 3 + len(middle) // 20:len(middle) * (third + 1) // 3 - len(middle) // 20]
            share[n] = random.sample(middle, min(4, len(middle)))
            flip(log_of(site, n), share[n])
        for n in site.nodes:
            site.restart("node%d" % n)
        settle(site)
        site.ok(all_there(site, values), "%s, pages %s damaged: all %d values are on all gateways" % (what, share, len(values)))
        site.ok(raft_ids(site) == before, "and every gateway is who it was")
    # With nobody to ask it waits, and says for what.
    time.sleep(7)
    one = site.nodes[0]
    for n in site.nodes:
        site.kill("node%d" % n, signal.SIGTERM)
    middle, way = tables(log_of(site, one))
    flip(log_of(site, one), middle)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(site.path("notify"))
    site.start_node(one, under=["env", "NOTIFY_SOCKET=" + site.path("notify"), "WATCHDOG_USEC=60000000"])
    a = wait_until("an answer", lambda: (lambda a: b"entries are missing" in a.body and a)(request(site.http[one], "GET", "/v1/cluster/status")), 60)
    site.ok(a.status == 503 and b"entries are missing" in a.body and b"GREY-4003" in a.body, "it says what it waits for: %s" % a.body.decode()[:300])
    site.ok(request(site.http[one], "GET", "/health/live").status == 200, "and that it is alive")
    os.kill(site.processes["node%d" % one].pid, signal.SIGHUP)
    wait_until("the configuration to be read again", lambda: "greyd reload" in open(site.path("node%d.log" % one)).read(), 20)
    time.sleep(0.5)
    site.ok(site.alive("node%d" % one) and request(site.http[one], "GET", "/health/live").status == 200, "a reload while it waits does it no harm")
    for n in site.nodes[1:]:
        site.restart("node%d" % n)
    settle(site)
    site.ok(raft_ids(site) == before and all_there(site, values), "with the others there it is whole again")
    text = "".join(open(site.path("node%d.log" % n)).read() for n in site.nodes)
    for line in text.splitlines():
        if "mending" in line:
            print("# " + line[11:200])
    site.ok("mending done" in text and "setaside moved" not in text, "logs were mended in place")


if __name__ == "__main__":
    run_test(test, core=False)
