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


def test(site):
    ledger = Ledger(site, 10000, threads=4, batch=5).start()
    wait_until("both cores to take events", lambda: all(total(site, n, "grey_core_events_total") > 300 for n in (1, 2)))
    site.ok(True, "both cores take events of one site")
    site.kill("core2")
    done = ledger.done()
    wait_until("1,000 more events", lambda: ledger.done() > done + 1000 or ledger.done() == ledger.count)
    site.restart("core2")
    wait_until("core 2 to take events again", lambda: total(site, 2, "grey_core_events_total") > 0)
    site.ok(True, "a core that was killed takes its share again")
    site.database("crash")
    time.sleep(1)
    site.database("resume")
    ledger.join()
    ledger.judge()
    both = request(site.core_ports[1], "GET", "/v1/sites/%s" % SITE).json()
    site.ok(both["channels"] == request(site.core_port, "GET", "/v1/sites/%s" % SITE).json()["channels"] and both["gaps"] == 0, "either core tells the same, and no gap")
    ahead = [total(site, n, "grey_core_frames_ahead_total") for n in (1, 2)]
    hellos = [total(site, n, "grey_core_hellos_total") for n in (1, 2)]
    print("# frames that waited for the other core: %s; hellos: %s" % (ahead, hellos))
    site.ok(sum(ahead) > 0, "frames came out of order and were put in order")
    site.ok(sum(hellos) < 20, "the site is not asked over and over where it stands (%d hellos)" % sum(hellos))


run_test(test, cores=2, postgres=True)
