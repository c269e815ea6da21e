#!/usr/bin/env python3
"""Who may use how much of a site, and when work moves.  If this failed, a tenant could take what another was promised, a mistake in a file of
quotas would be in force or not be found, a gateway that cannot keep up would keep its work, or a nightly job would run at another hour."""
from launchers import *

MIB = 2**20
TREE = """cluster: {cpu_percent: 100, memory_percent: 100}
system_reserve: {cpu_percent: 10, memory_percent: 10}
tenants:
  acme:
    cpu_percent: 30
    memory_percent: 25
    namespaces:
      production: {cpu_percent: 80, memory_percent: 80}
      staging: {cpu_percent: 20, memory_percent: 20}
  beta: {cpu_percent: 25, memory_percent: 30}
"""
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=20)

    def task(name):
        return call("GET", "/v1/tasks/" + name).json()

    def submit(name, command, cpu=100, wanted=201, node=1, **more):
        a = call("POST", "/v1/tasks", dict({"id": name, "command": command, "resources": {"cpu_millicores": cpu, "memory_bytes": 32 * MIB}}, **more), node=node)
        assert a.status == wanted, a.body
        return a.json()

    def quotas():
        return call("GET", "/v1/quotas").json()

    def conditions():
        return [n["condition"] for n in quotas()["nodes"]]

    wait_until("all gateways to take tasks", lambda: conditions() == ["ready"] * 3, 60)

    # A tree from a file: all of it, or nothing and the line.
    def load(text):
        with open(site.path("quotas.yaml"), "w") as f:
            f.write(text)
        return site.ctl("tenant", "set", "-f", site.path("quotas.yaml"))

    wrong = load(TREE + "  gamma: {cpu_percent: 35.1, memory_percent: 10}\n")
    site.ok(wrong.returncode != 0 and "line 11" in wrong.stderr and "90.1%" in wrong.stderr, "a tree above 90%% is refused with its line: %s" % wrong.stderr.split("\n")[0])
    site.ok([t["name"] for t in quotas()["tenants"]] == ["default"], "nothing of it is in force")
    done = load(TREE)
    site.ok(done.returncode == 0, "the tree of the architecture document is loaded: %s" % (done.stdout + done.stderr).strip().replace("\n", "; "))
    acme = [t for t in quotas()["tenants"] if t["name"] == "acme"][0]
    staging = [n for n in acme["namespaces"] if n["name"] == "staging"][0]
    site.ok(staging["limit"]["cpu_millicores"] == 12000 * 6 // 100, "staging has 6%% of the processors: %s" % staging["limit"])
    submit("half", sleeper("half"), cpu=400, tenant="acme", namespace="staging")
    submit("over", sleeper("over"), cpu=400, tenant="acme", namespace="staging")
    wait_until("the first to run", lambda: task("half")["state"] == "running", 30)
    time.sleep(1)
    site.ok(task("over")["state"] == "queued", "staging cannot pass it: the second task waits, though the site is idle")
    too_large = submit("wall", ["/bin/true"], cpu=721, wanted=409, tenant="acme", namespace="staging")
    site.ok("720" in too_large["detail"], "what can never fit is refused at once: %s" % too_large["detail"])
    wanted = ('grey_governance_tenant_cpu_limit_millicores{tenant="acme",namespace="staging"} 720', 'grey_governance_tenant_waiting_tasks{tenant="acme"} 1')
    wait_until("gateway 2 to show both", lambda: (lambda metrics: all(w in metrics for w in wanted))(request(site.http[2], "GET", "/metrics").body.decode()), 30)
    site.ok(True, "metrics show shares, use and who waits")
    call("DELETE", "/v1/tasks/half")
    wait_until("the second to get its turn", lambda: task("over")["state"] == "running", 30)
    call("DELETE", "/v1/tasks/over")

    # What a gateway takes runs there while it has room, and lane preempt can be switched off.
    wait_until("all gateways to take tasks", lambda: conditions() == ["ready"] * 3, 60)  # who did not run for 2 s is suspect for a while
    submit("near", sleeper("mark-near"), node=3, lane="preempt")
    t = wait_until("it to run", lambda: (lambda t: t["state"] == "running" and t)(task("near")), 30)
    site.ok((t["node"], t["lane"]) == ("3", "low"), "with local_affinity a task runs at the gateway that took it, and with four lanes the last is another: %s, %s" % (t["node"], t["lane"]))
    again = submit("near", sleeper("mark-near"), node=2, wanted=200, lane="low")
    site.ok(again["duplicate"], "and it is the same task when it is sent to another gateway")
    call("DELETE", "/v1/tasks/near")

    # A schedule goes by the clock on the wall of its zone.
    submit("nightly", ["/bin/true"], schedule="30 12 * * *", time_zone=BERLIN)
    os.environ["TZ"] = BERLIN
    time.tzset()
    local = time.localtime()
    wanted = time.mktime((local.tm_year, local.tm_mon, local.tm_mday + ((local.tm_hour, local.tm_min) >= (12, 30)), 12, 30, 0, 0, 0, -1))
    os.environ["TZ"] = "UTC"
    time.tzset()
    site.ok(task("nightly")["next_run"].startswith(time.strftime("%Y-%m-%dT%H:%M", time.gmtime(wanted))), "a schedule at 12:30 in a zone is due then: %s" % task("nightly")["next_run"])
    nowhere = submit("nowhere", ["/bin/true"], wanted=400, schedule="@daily", time_zone="Europe/Atlantis")
    site.ok("Atlantis" in nowhere["detail"], "a zone that is not there is refused: %s" % nowhere["detail"])

    # A gateway that is a hot spot gives work away: not what may run once only, and not all at once.
    burner = ["/bin/sh", "-c", "while :; do :; done & while :; do :; done", "mark-burner"]
    wait_until("all gateways to take tasks", lambda: conditions() == ["ready"] * 3, 60)
    submit("burner", burner, cpu=2000, affinity="1")
    submit("once", sleeper("mark-once"), affinity="1", delivery="at-most-once")
    wait_until("both to run on gateway 1", lambda: all((t["state"], t["node"]) == ("running", "1") for t in map(task, ("burner", "once"))), 30)
    with open(site.path("node1", "greyd.yaml"), "a") as f:
        f.write("governance: {hotspot_cpu_percent: 5, hotspot_window_secs: 1}\n")
    site.kill("node1")
    site.start_node(1)
    site.wait_whole()
    t = wait_until("the busy task to leave", lambda: (lambda t: t["state"] == "running" and t["node"] != "1" and t)(task("burner")), 90)
    site.ok(t["preemptions"] == 1, "a task left the hot spot for gateway %s" % t["node"])
    wait_until("the hot spot to be shown", lambda: "hot" in conditions(), 60)
    site.ok((task("once")["state"], task("once")["node"]) == ("running", "1"), "what may run only once stays")
    submit("new", sleeper("mark-new"), affinity="1")
    site.ok(wait_until("a new task to run", lambda: (lambda t: t["state"] == "running" and t)(task("new")), 30)["node"] != "1", "and the hot spot takes no more, though the task prefers it")
    for name in ("burner", "once", "new"):
        call("DELETE", "/v1/tasks/" + name)
    site.wait_same_state()
    site.ok(True, "all gateways hold the same state")


class Local(WithLaunchers):
    scheduler_more = ", local_affinity: prefer, priority_lanes: 4"


run_test(test, site_class=Local, core=False, extra="consensus: {election_timeout_ms: 1500}\n")  # ten of the longest and a gateway is lost: not one that starts slowly
