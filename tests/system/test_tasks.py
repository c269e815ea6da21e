#!/usr/bin/env python3
"""Tasks, tenants and schedules of a site without a core: any gateway takes them, all agree on who runs what, and a lost gateway's tasks
move under new tokens.  If this failed, a site would stop deciding when its link or one of its gateways does."""
from launchers import *

MIB = 1024 * 1024


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=20)

    def task(name, node=1):
        return call("GET", "/v1/tasks/" + name, node=node).json()

    def submit(name, node=1, **more):
        order = {"id": name, "command": ["/bin/sleep", "1000"], "resources": {"cpu_millicores": 1000, "memory_bytes": 64 * MIB}}
        return call("POST", "/v1/tasks", dict(order, **more), node=node)

    def all_ready():
        wait_until("all gateways to take tasks", lambda: [n["condition"] for n in call("GET", "/v1/quotas").json()["nodes"]] == ["ready"] * 3, 60)

    all_ready()
    q = call("GET", "/v1/quotas", node=2).json()
    site.ok(q["zone"] == "green" and q["capacity"]["cpu_millicores"] == 12000 and q["usable"]["cpu_millicores"] == 10800,
            "a tenth of what the gateways have is the system's")

    leader = site.leader()
    follower = next(n for n in site.nodes if n != leader)
    a = submit("t1", node=follower)
    site.ok(a.status == 201 and a.json()["state"] == "assigned", "a follower takes a task, and it has a place at once: %s" % a.body.decode().strip())
    site.ok(a.headers["x-grey-index"] == str(a.json()["index"]), "the answer names its entry")
    seen = [(t["node"], t["token"]) for t in (task("t1", node=n) for n in site.nodes)]
    site.ok(len(set(seen)) == 1, "all three agree where it is: %s" % (seen[0],))
    site.ok(submit("t1").status == 200 and submit("t1", lane="low").status == 409, "the same again is taken once, another under its id is refused")
    shown = task("t1")
    site.ok(shown["command"] == ["/bin/sleep", "1000"] and shown["lane"] == "normal" and shown["tenant"] == "default", "its order is shown")

    bad = [({"command": []}, 400), ({"command": ["x"], "colour": "red"}, 400), ({"command": ["x"], "lane": "fast"}, 400), ({"command": ["x"], "tenant": "nobody"}, 404),
           ({"command": ["x"], "schedule": "61 * * * *"}, 400), ({"command": ["x"], "schedule": "0 0 30 2 *"}, 400), ([], 400),
           ({"command": ["x"], "resources": {"cpu_millicores": 100000}}, 413), ({"command": ["x"], "delivery": "at-most-once", "max_retries": 1}, 400)]
    answers = [(call("POST", "/v1/tasks", body).status, wanted) for body, wanted in bad]
    site.ok(all(got == wanted for got, wanted in answers), "what is no task is refused: %s" % answers)

    site.ok(submit("b", depends_on=["a"]).json()["state"] == "pending", "a task waits for one that is not here yet")
    c = submit("a", depends_on=["b"])
    site.ok(c.status == 409 and "a waits for b waits for a" in c.body.decode(), "a cycle is refused and named: %s" % c.json().get("detail"))

    put = [("acme", 30, 25), ("acme/namespaces/production", 80, 80), ("acme/namespaces/staging", 20, 20), ("beta", 25, 30)]
    site.ok(all(call("PUT", "/v1/tenants/" + n, {"cpu_percent": c, "memory_percent": m}).status == 200 for n, c, m in put), "a tree of quotas is loaded")
    over = call("PUT", "/v1/tenants/gamma", {"cpu_percent": 35.1, "memory_percent": 10})
    site.ok(over.status == 409 and "90.1%" in over.body.decode(), "more than 90%% together is refused: %s" % over.json().get("detail"))
    s = call("GET", "/v1/tenants/acme/namespaces/staging", node=3).json()
    site.ok(s["limit"]["cpu_millicores"] == 720, "staging has 6% of 12 cores")
    site.ok(submit("s1", tenant="acme", namespace="staging").status == 409, "a task above it is refused")
    site.ok(call("DELETE", "/v1/tenants/beta").status == 204 and call("GET", "/v1/tenants/beta").status == 404, "a tenant without tasks is removed")

    r = site.ctl("task", "submit", "--id", "from-ctl", "--lane", "high", "--", "/bin/sh", "-c", "exec sleep 1000")
    site.ok(r.returncode == 0 and "from-ctl  assigned" in r.stdout, "greyctl task submit: %s%s" % (r.stdout.strip(), r.stderr.strip()))
    r = site.ctl("task", "list")
    site.ok("from-ctl" in r.stdout and "high" in r.stdout, "greyctl task list")
    r = site.ctl("task", "show", "from-ctl")
    site.ok('["/bin/sh","-c","exec sleep 1000"]' in r.stdout, "greyctl task show")
    r = site.ctl("tenant", "list")
    site.ok("acme/staging" in r.stdout and "zone green" in r.stdout, "greyctl tenant list")
    r = site.ctl("tenant", "set", "acme", "--cpu", "28.5", "--memory", "25")
    site.ok(r.returncode == 0 and "28.5%" in r.stdout, "greyctl tenant set: %s%s" % (r.stdout.strip(), r.stderr.strip()))
    r = site.ctl("task", "cancel", "from-ctl")
    site.ok(r.returncode == 0 and task("from-ctl")["state"] == "cancelled", "greyctl task cancel")
    site.ok(site.ctl("task", "cancel", "from-ctl").returncode == 3, "cancelling it again is refused")

    site.ok(submit("each-minute", schedule="* * * * *").json()["state"] == "pending", "a schedule is taken")
    before = time.time()
    runs = wait_until("a run of it", lambda: [t for t in call("GET", "/v1/tasks").json()["tasks"] if t["id"].startswith("each-minute.")], 75)
    site.ok(len(runs) == 1 and runs[0]["state"] in ("assigned", "running") and abs(int(runs[0]["id"].split(".")[1]) * 60 - time.time()) < 25,  # a busy machine
            "it runs on the minute, %.1f s after it was submitted" % (time.time() - before))
    call("DELETE", "/v1/tasks/each-minute")

    victim = next(n for n in site.nodes if n != site.leader())
    all_ready()
    submit("once", affinity=str(victim), delivery="at-most-once")
    submit("moves", affinity=str(victim), on_isolation="keep")
    wait_until("both to run", lambda: all(task(t)["state"] == "running" for t in ("once", "moves")), 60)
    token = task("moves")["token"]
    site.ok([task(t)["node"] for t in ("once", "moves")] == [str(victim)] * 2, "a task goes where it prefers")
    others = [n for n in site.nodes if n != victim]
    site.kill("node%d" % victim)
    moved = wait_until("the lost gateway's task elsewhere", lambda: (lambda t: t.get("node") not in (None, str(victim)) and t)(task("moves", node=others[0])), 40)
    site.ok(moved["state"] in ("assigned", "running") and moved["token"] > token, "the tasks of a lost gateway move, under a new token")
    once = wait_until("the other one to end", lambda: (lambda t: t["state"] == "failed" and t)(task("once", node=others[0])), 40)
    site.ok((once["state"], once["reason"]) == ("failed", "node-lost"), "but not those that may run at most once")
    site.start_node(victim)
    wait_until("it to take tasks again", lambda: all(n["condition"] == "ready" for n in call("GET", "/v1/quotas", node=others[0]).json()["nodes"]), 40)

    def settled():  # reports are written, and no idle gateway takes anything over any more
        index = [call("GET", "/v1/raft/status", node=others[0]).json()["commit_index"] for _ in range(2) if not time.sleep(2.5)]
        return index[0] == index[1]

    wait_until("nothing more to be due", settled, 90)
    moved = task("moves", node=victim)

    for n in site.nodes:
        site.kill("node%d" % n)
    for n in site.nodes:
        site.start_node(n)
    site.wait_whole()
    site.ok(task("moves")["token"] == moved["token"], "a restart of all three moves nothing")
    site.wait_same_state()
    site.ok(True, "and all three hold the same state")
    wait_until("nothing more to be due", settled, 90)
    wiped = next(n for n in site.nodes if n != site.leader())
    before = {t["id"]: (t["state"], t["token"] if "token" in t else 0) for t in call("GET", "/v1/tasks").json()["tasks"] if t["node"] != str(wiped)}
    for i in range(60):  # so that the log alone does not go back to the first task
        call("PUT", "/v1/kv/%d" % i, i)
    def member():
        m = [m for m in site.status(site.leader())["members"] if m["id"] == str(wiped)]
        return len(m) == 1 and m[0]["kind"] == "voter" and m[0]["raft_id"]

    former = member()
    site.kill("node%d" % wiped)
    shutil.rmtree(site.path("node%d" % wiped, "data"))
    site.start_node(wiped, bootstrap=False)
    wait_until("it to be a voter as somebody new", lambda: member() not in (False, former), 60)
    site.wait_whole()
    wait_until("it to take tasks", lambda: [n["condition"] for n in call("GET", "/v1/quotas", node=site.leader()).json()["nodes"]] == ["ready"] * 3, 40)
    after = {t["id"]: (t["state"], t["token"] if "token" in t else 0) for t in call("GET", "/v1/tasks", node=wiped).json()["tasks"]}
    site.ok(before and all(after[t] == before[t] for t in before), "a gateway that was wiped has the tasks from an image: %d, others: %s" % (len(after), [(t, before[t], after[t]) for t in before if after[t] != before[t]]))
    site.wait_same_state()
    site.ok(True, "and the same state")
    wait_until("nothing more to be due", settled, 90)

    def at_rest():
        both = [call("GET", "/v1/raft/status").json() for _ in range(2) if not time.sleep(4)]
        return both[0]["term"] == both[1]["term"] and [s["commit_index"] for s in both]  # an election writes an entry
    index = wait_until("four seconds without an election", at_rest)
    site.ok(index[0] == index[1], "with nothing due nothing is written: entry %s" % index)
    m = call("GET", "/metrics").body.decode()
    site.ok("\ngrey_scheduler_queue_depth 0" in m and "grey_governance_usage_ratio" in m, "metrics of tasks")


run_test(test, site_class=WithLaunchers, core=False, extra="consensus: {snapshot_threshold: 20}\n")
