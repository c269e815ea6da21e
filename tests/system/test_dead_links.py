#!/usr/bin/env python3
"""A gateway loses its power, or a firewall forgets its connections, and nobody tells the others.  If this failed, they would hold on to dead links and turn the gateway away that
dials anew, and the site would stand still when its leader fails next."""
import re

from harness import *


def identity(site, n):
    with open(site.path("node%d.log" % n)) as f:
        return int(re.search(r"node start .* id=([0-9a-f]{16})", f.read())[1], 16)


def links_up(site, n):
    for line in request(site.http[n], "GET", "/metrics").body.decode().splitlines():
        if line.startswith("grey_network_peers_connected "):
            return int(float(line.split()[1]))
    raise ValueError("no such metric")


def openings(site, n):
    with open(site.path("node%d.log" % n)) as f:
        return f.read().count("peers up ")


def silence(site, n):
    """From now on the others are not told when connections of gateway n end; the ends that are its own."""
    own = [pair.far for pair in site.links[n].silence()]
    for m in site.nodes:
        own += [pair.near for pair in site.links[m].silence(site.processes["node%d" % n].pid)] if m != n else []
    return own


def test(site):
    site.wait_whole()
    # The others dialled the smallest id, so they would keep what they have.
    victim = min(site.nodes, key=lambda n: identity(site, n))
    others = [n for n in site.nodes if n != victim]
    silence(site, victim)
    site.kill("node%d" % victim)
    site.leader(among=others)
    before = openings(site, victim)
    site.start_node(victim)
    wait_until("its links to both", lambda: links_up(site, victim) == 2, 60)
    time.sleep(3)
    wait_until("them to be there still", lambda: links_up(site, victim) == 2)
    opened = openings(site, victim) - before
    site.ok(opened <= 4, "after a power cut nobody was told of, a gateway has its links again, by %d that were opened" % opened)

    def led_by_another():
        """Not by the gateway whose links are looked at: it is to be there when the leader fails."""
        now = site.leader()
        if now == victim:
            request(site.http[now], "POST", "/v1/admin/transfer-leader", json.dumps({"to": str(others[0])}))
        return now != victim and now
    leader = wait_until("one of the others to lead", led_by_another)
    site.kill("node%d" % leader)
    rest = [n for n in site.nodes if n != leader]
    site.leader(among=rest)
    put = request(site.http[rest[0]], "PUT", "/v1/kv/colour", "blue", timeout=30)
    site.ok(put.status in (200, 201, 204), "and the site goes on when its leader fails next")
    site.start_node(leader)
    site.wait_whole()

    wait_until("its links to both again", lambda: links_up(site, victim) == 2)
    time.sleep(11)  # two links that were dialled at once are no older than ten seconds
    before = openings(site, victim)
    end(*silence(site, victim))
    wait_until("new links to both", lambda: openings(site, victim) >= before + 2 and links_up(site, victim) == 2, 60)
    time.sleep(3)
    wait_until("them to be there still", lambda: links_up(site, victim) == 2)
    opened = openings(site, victim) - before
    site.ok(opened <= 4, "links that a firewall forgot at one end are replaced, by %d that were opened" % opened)
    site.wait_same_state()
    site.ok(True, "and all three hold the same state")


run_test(test, links=True)
