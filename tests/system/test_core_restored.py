#!/usr/bin/env python3
"""The core's database is lost and an older backup of it takes its place, on either store.  If this fails, the site waits for ever for a core
that does not know where it was, or what the site had freed by then is missing without a word."""
from harness import *


def post(site, ids):
    a = request(site.http[1], "POST", "/v1/events", json.dumps([{"id": i, "source": "machine", "type": "t", "data": {}} for i in ids]))
    assert a.status == 201, (a.status, a.body)


def ids_at_core(site):
    return [e["id"] for e in site.core_events() if e["source"] == "machine"]


def stop_database(site):
    if site.postgres:
        site.database("stop")
    else:
        site.kill("core", signal.SIGTERM)


def start_database(site):
    if site.postgres:
        site.database("resume")
    else:
        site.start_core()


def test(site):
    files = site.path("pg", "data") if site.postgres else site.path("core")
    first, freed, later, last = (["%s-%d" % (word, i) for i in range(50)] for word in ("first", "freed", "later", "last"))
    post(site, first)
    wait_until("the first events at the core", lambda: len(ids_at_core(site)) == 50)
    stop_database(site)
    subprocess.run(["cp", "-a", files, files + ".backup"], check=True)
    start_database(site)
    post(site, freed)
    wait_until("100 events at the core", lambda: len(ids_at_core(site)) == 100)
    site.wait_drained()
    stop_database(site)
    post(site, later)
    shutil.rmtree(files)
    os.rename(files + ".backup", files)
    start_database(site)
    post(site, last)
    wait_until("the site and the core to agree", lambda: len(ids_at_core(site)) == 150, 120)
    site.wait_drained()
    got = ids_at_core(site)
    site.ok(sorted(got) == sorted(first + later + last), "what the site still had is there, each once")
    gaps = request(site.core_port, "GET", "/v1/sites/%s/gaps" % SITE).json()["gaps"]
    lost = sum(g["to_seq"] - g["from_seq"] + 1 for g in gaps)
    site.ok(lost == 50 and all(g["reason"] == "core-restored" for g in gaps), "what the site had freed is a gap that says why: %s" % gaps)
    numbers = sorted((e["channel"], e["seq"]) for e in site.core_events()) + [(g["channel"], n) for g in gaps for n in range(g["from_seq"], g["to_seq"] + 1)]
    site.ok(all(sorted(n for c, n in numbers if c == channel) == list(range(1, 1 + sum(c == channel for c, n in numbers))) for channel in ("control", "events", "data")),
            "every number is an event or in a gap, each once")


for postgres in (False, True):
    print("# on %s" % ("PostgreSQL" if postgres else "SQLite"))
    child = os.fork()
    if child == 0:
        run_test(test, nodes=1, postgres=postgres)
    status = os.waitpid(child, 0)[1]
    if status != 0:
        sys.exit(1)
