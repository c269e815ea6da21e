#!/usr/bin/env python3
"""Whoever watches a key learns of its newest value, never of an older one than before, and is not told the same twice (FAULTS 2b, 39)."""
from harness import *


def test(site):
    port = site.http[1]

    def put(value):
        return int(request(port, "PUT", "/v1/kv/a", value).headers["etag"].strip('"'))

    def watch(version, seconds=20):
        a = request(port, "GET", "/v1/kv/a?watch=%d" % version, timeout=seconds)
        return int(a.headers["etag"].strip('"')) if a.status == 200 else None, a

    first = put("0")
    second = put("1")
    site.ok(watch(first, 15)[0] == second, "a change before the watch began is told at once")

    seen = []

    def follow():
        version = second
        while not seen or seen[-1][1] < 302:
            version, a = watch(version)
            seen.append((version, int(a.body)))

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    for i in range(2, 302):
        put(str(i))
    wait_until("a change to be met before the last one", lambda: seen, 30)
    last = put("302")
    reader.join(60)
    versions = [v for v, _ in seen]
    site.ok(len(versions) > 1 and versions[-1] == last, "the last change is told: %d of 301 were met" % len(versions))
    site.ok(all(a < b for a, b in zip(versions, versions[1:])), "versions only rise")
    site.ok(all(a < b for a, b in zip([n for _, n in seen], [n for _, n in seen][1:])), "and values with them")

    gone = threading.Thread(target=lambda: seen.append(watch(last)[1].status))
    gone.start()
    time.sleep(0.3)
    request(port, "PUT", "/v1/kv/b", "another key")
    request(port, "DELETE", "/v1/kv/a")
    gone.join(20)
    site.ok(seen[-1] == 404, "a deletion is told, a change of another key is not")


run_test(test, nodes=1, core=False, tls=False)
