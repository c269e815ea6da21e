#!/usr/bin/env python3
"""Tasks as real processes on three gateways, each with a launcher of its own.  If this failed, a site would say that its work is done while
nothing ran, would run it twice, or would lose it with a gateway or with a restart of its agent."""
from launchers import *

MIB = 1024 * 1024


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=20)

    def task(name, node=1):
        return call("GET", "/v1/tasks/" + name, node=node).json()

    def submit(name, command, node=1, **more):
        order = {"id": name, "command": command, "resources": {"cpu_millicores": 200, "memory_bytes": 64 * MIB}}
        a = call("POST", "/v1/tasks", dict(order, **more), node=node)
        assert a.status == 201, a.body
        return a.json()

    def wait_state(name, state, node=1, seconds=30):
        return wait_until("%s to be %s" % (name, state), lambda: (lambda t: t["state"] == state and t)(task(name, node)), seconds)

    def all_ready():
        wait_until("all gateways to take tasks", lambda: [n["condition"] for n in call("GET", "/v1/quotas").json()["nodes"]] == ["ready"] * 3, 60)

    all_ready()

    # Once, with what it was given, and what it wrote is kept.
    site.ok(submit("hello", ["/bin/sh", "-c", "cat; echo $GREETING; id -u; echo bad >&2"], stdin="from stdin\n", env={"GREETING": "from env"})["state"] == "assigned",
            "a task has a place at once")
    t = wait_state("hello", "completed")
    site.ok(t["exit_status"] == 0, "it ran and ended well on gateway %s" % t["node"])
    out = [site.ctl("task", "logs", "hello", node=n) for n in site.nodes]
    site.ok(all(r.returncode == 0 and r.stdout.startswith("from stdin\nfrom env\n") for r in out), "its output is read at every gateway: %s" % [r.stdout + r.stderr for r in out])
    site.ok(os.geteuid() != 0 or out[0].stdout.splitlines()[2] != "0", "it did not run as root")
    site.ok(site.ctl("task", "logs", "hello", "--stream", "stderr").stdout == "bad\n", "standard error is apart")
    site.ok(call("GET", "/v1/tasks/nothing/logs").status == 404, "there is no output of a task that is not there")

    # Its gateway signed what it did, and anybody can check that without the site.
    site.ok(all(site.ctl("task", "proof", "hello", "--verify", node=n).stdout.startswith("OK: hello") for n in site.nodes), "its proof holds, asked anywhere")
    bundle = json.loads(site.ctl("task", "proof", "hello").stdout)
    written = hashlib.sha256(out[0].stdout.encode()).hexdigest()
    site.ok(bundle["output"]["stdout"]["sha256"] == written and [s["state"] for s in bundle["transitions"]][:2] == ["submitted", "assigned"] and
            all(s["hash"] for s in bundle["transitions"]) and bundle["resources"]["wall_milliseconds"] >= 0, "it names the output, and the entries that moved the task: %s" % bundle["transitions"])
    entry = call("GET", "/v1/audit?from=%d&limit=1" % bundle["recorded"]["index"]).json()["entries"][0]
    site.ok(entry["hash"] == bundle["recorded"]["hash"], "the log has it where the bundle says")

    def checked(changed, *more):
        path = site.path("bundle.json")
        with open(path, "w") as f:
            json.dump(changed, f)
        return subprocess.run([os.path.join(BUILD, "greyctl"), "--addr", "http://127.0.0.1:1", "task", "proof", "--file", path] + list(more), stdout=subprocess.PIPE, text=True, timeout=20)

    site.ok(checked(bundle).returncode == 0, "a proof that was kept is checked without the site")
    forged = [checked(dict(bundle, exit_status=1)), checked(dict(bundle, input_sha256="00" * 32)), checked(dict(bundle, signature="00" * 64)), checked(bundle, "--key", "00" * 32)]
    named = ["exit_status", "input_sha256", "signature", "public_key"]
    site.ok(all(r.returncode == 3 and "BROKEN: " + word in r.stdout for r, word in zip(forged, named)), "a changed one fails and says where: %s" % [r.stdout.strip() for r in forged])

    # What it writes is read while it does.
    submit("talks", ["/bin/sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 2; done"])
    follower = subprocess.Popen([os.path.join(BUILD, "greyctl"), "--addr", "http://127.0.0.1:%d" % site.http[2], "task", "logs", "talks", "--follow"], stdout=subprocess.PIPE, text=True)
    heard = follower.stdout.readline()
    wait_state("talks", "running")
    site.ok(heard == "1\n", "what a task writes can be followed at another gateway while it runs")
    site.ok(follower.stdout.read() == "2\n3\n4\n" and follower.wait(60) == 0, "to its end, nothing twice and nothing lost")

    # A failure is tried again, and then is one.
    submit("fails", ["/bin/sh", "-c", "exit 3"], max_retries=1)
    t = wait_state("fails", "failed")
    site.ok((t["reason"], t["exit_status"], t["failures"]) == ("exit", 3, 2), "a task that fails is tried again, then has failed: %s" % [t["reason"], t["exit_status"], t["failures"]])
    submit("absent", ["/no/such/program"])
    site.ok(wait_state("absent", "failed")["reason"] == "start", "one that cannot be started says so")
    submit("hog", ["/bin/sh", "-c", "x=x; while :; do x=$x$x; done"])
    t = wait_state("hog", "failed", seconds=60)
    log = open(site.path("launch1.log")).read()
    bounded = "limits=cgroup" in log
    site.ok(t["reason"] == "memory" if bounded else t["reason"] in ("exit", "signal"), "one that takes too much memory is ended at its limit: %s" % t["reason"])

    # What is used is measured, not only asked for.
    submit("busy", ["/bin/sh", "-c", "while :; do :; done"], resources={"cpu_millicores": 1000, "memory_bytes": 64 * MIB})
    wait_until("its use to be measured", lambda: max(n["measured_cpu_percent"] for n in call("GET", "/v1/quotas").json()["nodes"]) > 5, 60)
    site.ok(call("DELETE", "/v1/tasks/busy").status == 200, "what tasks use is measured and shown")

    # The bound on processors holds: what the proof says was used, by the kernel's own account, over the time that it ran.
    submit("bound", ["/bin/sh", "-c", "timeout 4 sh -c 'while :; do :; done' & timeout 4 sh -c 'while :; do :; done'; wait"], resources={"cpu_millicores": 300, "memory_bytes": 64 * MIB})
    wait_state("bound", "completed", seconds=60)
    used = json.loads(site.ctl("task", "proof", "bound").stdout)["resources"]
    most = 0.3 * used["wall_milliseconds"]
    site.ok(not bounded or 0 < used["cpu_microseconds"] / 1000 <= most * 1.05 + 30, "300 millicores are not more: %s" % used)

    # One that does not answer any more is stopped as one that failed; one that does goes on.
    submit("sick", ["/bin/sleep", "600"], health={"tcp": free_ports(1)[0], "interval_seconds": 1, "failures": 2})
    submit("well", ["/bin/sleep", "600"], health={"http": {"port": site.http[1], "path": "/health"}, "interval_seconds": 1, "failures": 5})  # while there is no leader it says that it is not well
    submit("full", ["/bin/sh", "-c", "for i in 1 2 3 4 5 6; do head -c 200000 /dev/zero >f$i; done; sleep 600"], resources={"cpu_millicores": 100, "memory_bytes": 32 * MIB, "disk_bytes": 1000000})
    t = wait_state("sick", "failed")
    site.ok(t["reason"] == "probe" and t["health"]["failures"] == 2, "a task whose health probe fails has failed: %s" % t["reason"])
    site.ok(wait_state("full", "failed")["reason"] == "disk", "one that fills the disk is stopped")
    wait_state("well", "running")
    site.ok(True, "one that answers goes on")
    call("DELETE", "/v1/tasks/well")

    # Cancel and time-out stop the process.
    submit("long", sleeper("mark-long"))
    wait_state("long", "running")
    site.ok(len(processes("mark-long")) == 1, "a task that runs is one process")
    call("DELETE", "/v1/tasks/long", node=2)
    wait_until("it to be stopped", lambda: not processes("mark-long"), 20)
    site.ok(task("long")["state"] == "cancelled", "a cancelled one is stopped")
    submit("late", sleeper("mark-late"), timeout_seconds=2)
    site.ok(wait_state("late", "failed")["reason"] == "timeout" and not processes("mark-late"), "one that takes too long is stopped")

    # greyd dies and comes back: the process goes on, under the same token.
    submit("stays", sleeper("mark-stays"), affinity="2")
    submit("keeps", sleeper("mark-keeps"), affinity="2", on_isolation="keep")
    before = {n: wait_state(n, "running") for n in ("stays", "keeps")}
    pids = {n: processes("mark-" + n) for n in before}
    site.ok(all(t["node"] == "2" for t in before.values()), "two tasks run on gateway 2")
    site.kill("node2")
    site.start_node(2)
    site.wait_whole()
    wait_until("gateway 2 to have its launcher again", lambda: open(site.path("launch2.log")).read().count("launch greyd ") == 2)
    time.sleep(3)
    site.ok({n: processes("mark-" + n) for n in before} == pids, "both processes outlived greyd: %s" % pids)
    site.ok({n: (task(n)["state"], task(n)["token"]) for n in before} == {n: ("running", before[n]["token"]) for n in before}, "and are the same runs to the site")
    call("DELETE", "/v1/tasks/stays", node=3)
    wait_until("the adopted one to be stopped", lambda: not processes("mark-stays"), 20)
    site.ok(True, "an adopted one can be cancelled")

    # greyd dies for good: what may not outlive the contact stops before the others begin it.
    all_ready()  # gateway 2 rests a while if its start took long
    submit("moves", sleeper("mark-moves"), affinity="2")
    token = wait_state("moves", "running")["token"]
    pid, most = processes("mark-moves"), 0
    assert task("moves")["node"] == "2" and len(pid) == 1
    site.kill("node2")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = processes("mark-moves")
        most = max(most, len(now))
        if now and now != pid:
            break
        time.sleep(0.02)
    t = wait_until("it to run elsewhere", lambda: (lambda t: t["state"] == "running" and t["token"] > token and t)(task("moves")), 60)
    site.ok(t["node"] != "2" and t["token"] > token, "a task of a lost gateway runs on gateway %s" % t["node"])
    site.ok(most == 1, "and never in two places: %d" % most)
    site.ok(pids["keeps"][0] in processes("mark-keeps"), "one that may outlive the contact still runs there")
    site.start_node(2)
    all_ready()
    wait_until("one copy of it", lambda: len(processes("mark-keeps")) == 1, 40)
    site.ok(processes("mark-keeps") != pids["keeps"], "when it is back, the run whose token is not in force any more is stopped")

    # The launcher dies: nothing goes on that nobody watches, and the site begins it anew.
    node = int(task("moves")["node"])
    token = task("moves")["token"]
    site.kill("launch%d" % node)
    wait_until("its processes to end", lambda: not [p for p in processes("mark-moves") if p in now], 30)
    start_launcher(site, node)
    t = wait_until("another run", lambda: (lambda t: t["state"] == "running" and t["token"] > token and t)(task("moves")), 30)
    site.ok(len(processes("mark-moves")) == 1, "a task whose launcher died runs again, under a new token")

    for name in ("moves", "keeps"):
        call("DELETE", "/v1/tasks/" + name)
    wait_until("an empty site", lambda: not processes("mark-moves") and not processes("mark-keeps"), 30)
    site.wait_same_state()
    site.ok(True, "all three hold the same state")
    for n in site.nodes:
        site.kill("launch%d" % n, signal.SIGTERM)
    left = [g for base in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup") if os.path.isdir(base) for g in os.listdir(base) if g.startswith("grey-") and any(g.endswith(r) for r in runs(site))]
    site.ok(not left, "no control group is left: %s" % left)


run_test(test, site_class=WithLaunchers, core=False, extra="consensus: {election_timeout_ms: 600}\n")
