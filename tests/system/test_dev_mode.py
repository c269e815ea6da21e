#!/usr/bin/env python3
"""One node without TLS: every call of the API does what it says, and wrong input is refused with a clear word and changes nothing."""
from harness import *


def raw(port, data, wait=15):
    s = socket.create_connection(("127.0.0.1", port), 5)
    s.settimeout(wait)
    s.sendall(data)
    got = b""
    try:
        while True:
            more = s.recv(65536)
            if not more:
                break
            got += more
    except (socket.timeout, ConnectionResetError):
        pass
    s.close()
    return got


def test(site):
    port = site.http[1]

    def call(method, path, body=None, **headers):
        return request(port, method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    wait_until("health", lambda: call("GET", "/health").json()["status"] == "healthy")
    site.ok(True, "health")
    site.ok(set(call("GET", "/health/detailed").json()["checks"]) >= {"consensus", "storage", "scheduler", "network", "federation", "clock", "attestation"}, "detailed health")
    wait_until("the site to know tasks", lambda: call("GET", "/v1/quotas").status == 200)
    t = wait_until("the gateway to know what it can do", lambda: [a for a in [call("POST", "/v1/tasks", json.dumps({"command": ["/bin/true"]}))]
                                                                  if "did not answer yet" not in a.body.decode()])[0]
    site.ok(t.status == 501 and "no launcher answers" in t.body.decode(), "where no launcher answers, tasks are refused: %s" % t.body.decode().strip())
    site.ok("this gateway takes no tasks" in open(site.path("node1.log")).read(), "and the log says why")
    m = call("GET", "/metrics").body.decode()
    site.ok(all("\n%s" % n in m for n in ("grey_consensus_leader_changes_total", "grey_consensus_commits_total", "grey_storage_disk_usage_ratio",
                                          "grey_federation_queue_bytes", "grey_process_resident_memory_bytes", "grey_consensus_commit_latency_seconds_bucket")), "metrics")
    a = call("PUT", "/v1/kv/a", "one", Content_Type="text/plain")
    site.ok(a.status == 201 and a.headers["etag"] == '"%d"' % a.json()["version"], "a key is made: 201 and its ETag")
    g = call("GET", "/v1/kv/a")
    site.ok((g.status, g.body, g.headers["content-type"], g.headers["etag"]) == (200, b"one", "text/plain", a.headers["etag"]), "and read with its type and version")
    site.ok(call("PUT", "/v1/kv/a", "two", If_None_Match="*").status == 412, "If-None-Match: * on a key that exists: 412")
    b = call("PUT", "/v1/kv/a", "two", If_Match=a.headers["etag"])
    site.ok(b.status == 200 and int(b.headers["etag"].strip('"')) > int(a.headers["etag"].strip('"')), "If-Match with its version: 200 and a higher one")
    site.ok(call("PUT", "/v1/kv/a", "three", If_Match=a.headers["etag"]).status == 412, "If-Match with an old version: 412")
    site.ok(call("GET", "/v1/kv/a").body == b"two", "which changed nothing")
    call("PUT", "/v1/kv/dir/x%2Fy%20z", "deep")
    site.ok([k["key"] for k in call("GET", "/v1/kv?prefix=dir/").json()["keys"]] == ["dir/x/y z"], "keys are listed by prefix")
    s = call("GET", "/v1/kv/a?consistency=stale")
    site.ok(s.headers.get("x-grey-stale") == "true", "stale reads say so")
    seen = []
    t = threading.Thread(target=lambda: seen.append(request(port, "GET", "/v1/kv/a?watch=%s" % b.headers["etag"].strip('"'), timeout=30)))
    t.start()
    time.sleep(0.5)
    call("PUT", "/v1/kv/a", "four")
    t.join(20)
    site.ok(seen and seen[0].body == b"four", "a watch answers with the next value")
    site.ok(call("DELETE", "/v1/kv/a").status == 200 and call("GET", "/v1/kv/a").status == 404, "a key is deleted")
    site.ok(call("DELETE", "/v1/kv/a").status == 404, "deleting it again: 404")
    c = call("PUT", "/v1/kv/a", "five")
    site.ok(c.status == 201 and int(c.headers["etag"].strip('"')) > int(b.headers["etag"].strip('"')), "versions rise across a delete")

    one = {"specversion": "1.0", "id": "x1", "source": "s", "type": "t", "data": {"price": 1.10}}
    e = call("POST", "/v1/events", json.dumps(one), Content_Type="application/cloudevents+json")
    site.ok(e.status == 201 and e.json()["accepted"][0]["seq"] == 1 and e.json()["provisional"] is False, "a CloudEvent is kept: 201")
    d = call("POST", "/v1/events", json.dumps(one), Content_Type="application/cloudevents+json")
    site.ok(d.status == 200 and d.json()["accepted"][0] == dict(e.json()["accepted"][0], duplicate=True), "sent again: 200, duplicate, the same numbers")
    site.ok(call("POST", "/v1/events", json.dumps(dict(one, data=2)), Content_Type="application/cloudevents+json").status == 409, "the same id with another body: 409")
    site.ok(call("GET", "/v1/events/x1?source=s").json()["seq"] == 1, "an event is found by source and id")
    shown = site.ctl("config", "show", "--origin")
    site.ok(shown.returncode == 0 and "storage.data_dir" in shown.stdout and "# default" in shown.stdout, "greyctl config show needs no file, as greyd does not")
    hidden = call("GET", "/v1/events/x1")
    site.ok(hidden.status == 404 and "?source=SOURCE" in hidden.json()["detail"], "without its source it is not, and the answer says what to ask: %s" % hidden.json()["detail"])
    strange = call("GET", "/v1/events/x1?source=other")
    site.ok(strange.status == 404 and "of this source and id" in strange.json()["detail"], "nor by another's: %s" % strange.json()["detail"])
    long = call("GET", "/v1/events/x1?source=" + "%41" * 257)
    site.ok(long.status == 400 and call("GET", "/v1/events/x1?source=" + "%41" * 256).status == 404, "a source longer than any event has is refused: %s" % long.body)
    site.ok(call("GET", "/v1/queue").json()["channels"]["data"]["pending"] == 1, "the queue counts it once")

    for what, status, answer in (
            ("not JSON", 400, call("POST", "/v1/events", "{")),
            ("JSON of another shape", 400, call("POST", "/v1/events", "[1]")),
            ("an unknown priority", 400, call("POST", "/v1/events", json.dumps({"type": "t", "priority": "urgent", "data": 1}))),
            ("an id of 257 bytes", 400, call("POST", "/v1/events", json.dumps({"type": "t", "id": "i" * 257, "data": 1}))),
            ("an event above 256 KiB", 413, call("POST", "/v1/events", json.dumps({"type": "t", "data": "x" * 300000}))),
            ("a value above 1 MiB", 413, call("PUT", "/v1/kv/big", b"x" * (1 << 20 | 1))),
            ("a key above 512 bytes", 413, call("PUT", "/v1/kv/" + "k" * 513, "v")),
            ("an unknown path", 404, call("GET", "/v1/nothing")),
            ("a wrong method", 405, call("PATCH", "/v1/kv/a", "v")),
            ("If-Match that is no version", 400, call("PUT", "/v1/kv/a", "v", If_Match="abc")),
    ):
        problem = answer.json() if answer.body else {}
        site.ok(answer.status == status and problem.get("type", "").startswith("/errors/GREY-") and problem.get("status") == status, "%s: %d with a problem (%d)" % (what, status, answer.status))
    for what, status, data in (
            ("garbage", b"400", b"\x16\x03\x01\x00\xa5\x01\x00\x00"),
            ("both lengths", b"400", b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            ("two lengths", b"400", b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
            ("an endless head", b"431", b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 500) for i in range(60))),
            ("a NUL in the path", b"400", b"GET /v1/kv/a%00b HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a body that is announced too large", b"413", b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"),
            ("HTTP/2", b"505", b"GET / HTTP/2.0\r\n\r\n"),
    ):
        got = raw(port, data)
        site.ok(got[9:12] in (status, b"400"), "%s is refused (%s)" % (what, got[:16]))
    two = raw(port, b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\nGET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    site.ok(two.count(b"HTTP/1.1 200") == 2, "pipelined requests are answered in order")
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(280)]
    for s in slow:
        try:
            s.sendall(b"GET /health HTTP/1.1\r\nX: ")
        except OSError:
            pass
    h = wait_until("an answer beside 280 slow senders", lambda: call("GET", "/health/live").status == 200, 40)
    site.ok(h, "slow senders are cut off, health still answers")
    for s in slow:
        s.close()
    site.ok(call("GET", "/v1/kv/a").body == b"five" and site.alive("node1"), "nothing of all that changed the state")
    site.kill("node1")
    site.start_node(1)
    site.wait_whole()
    site.ok(call("GET", "/v1/kv/a").body == b"five" and call("GET", "/v1/kv/dir/x/y%20z").body == b"deep", "after kill -9 all that was answered is there")
    site.ok(call("POST", "/v1/events", json.dumps(one), Content_Type="application/cloudevents+json").status == 200, "and a repeat is still known as one")


site_options = dict(nodes=1, core=False, tls=False)
run_test(test, **site_options)
