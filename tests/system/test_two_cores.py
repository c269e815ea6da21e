#!/usr/bin/env python3
"""Two cores share one broker and one PostgreSQL; one is killed and comes back while 10,000 events arrive, and the database crashes once.
If this fails, running a second core for more load or for safety loses events or shows them twice."""
from harness import *


def metric(site, number, name):
    for line in request(site.core_ports[number - 1], "GET", "/metrics").body.decode().splitlines():
        if line.startswith(name) and not line.startswith("#"):
            yield line, float(line.split()[-1])


def total(site, number, name):
    return sum(value for _, value in metric(site, number, name))


def serving(site):
    """The core that takes the site's events just now, and how many it took."""
    taken = {n: total(site, n, "grey_core_events_total") for n in (1, 2) if site.alive("core" if n == 1 else "core2")}
    time.sleep(0.5)
    grown = {n: total(site, n, "grey_core_events_total") - taken[n] for n in taken}
    best = max(grown, key=grown.get)
    return best if grown[best] > 0 else None


def test(site):
    ledger = Ledger(site, 10000, threads=4, batch=5).start()
    first = wait_until("a core to take events", lambda: serving(site))
    other = 3 - first
    before = sum(total(site, other, name) for name in ("grey_core_events_total", "grey_core_events_repeated_total"))
    site.kill("core" if first == 1 else "core2")
    site.core_port = site.core_ports[other - 1]
    begin = time.monotonic()
    wait_until("the other core to take over", lambda: total(site, other, "grey_core_events_total") > before, 60)
    took = time.monotonic() - begin
    site.ok(took < 15, "the other core takes over in %.1f s, sooner than the site would ask by itself" % took)
    site.restart("core" if first == 1 else "core2")
    wait_until("the first core", lambda: request(site.core_ports[first - 1], "GET", "/health/ready").status == 200)
    site.database("crash")
    time.sleep(1)
    site.database("resume")
    ledger.join()
    ledger.judge()
    stands = [request(port, "GET", "/v1/sites/%s" % SITE).json() for port in site.core_ports]
    site.ok(stands[0]["channels"] == stands[1]["channels"] and stands[0]["gaps"] == 0, "either core tells the same, and no gap")
    hellos = [total(site, n, "grey_core_hellos_total") for n in (1, 2)]
    site.ok(sum(hellos) < 20, "the site is not asked over and over where it stands (%d hellos)" % sum(hellos))


run_test(test, cores=2, postgres=True)
