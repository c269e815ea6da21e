#!/usr/bin/env python3
"""One tenant does what it can to be in the way: processors, disk, output, orders.  If this failed, a tenant that paid for its share would get less
of it because of its neighbour, would lose what it wrote or wait behind a flood of orders, and the site would stop taking commits."""
from launchers import *

MIB = 2**20
PUTS = 150
JOBS = 8
BACKLOG = 150
WORK = "while :; do i=$((i + 1)); [ $i -lt 1000 ] || { i=0; printf . >&2; }; done"  # a dot for so much of a processor
# Many processes that spin, write to the disk with a sync each, and talk without end.
NOISE = "for i in 1 2 3 4 5 6; do (%s) & done; yes 'all work and no play' & while :; do dd if=/dev/zero of=f bs=64k count=16 conv=fsync 2>/dev/null; done" % WORK


def test(site):
    def call(method, path, body=None, node=1):
        return request(site.http[node], method, path, None if body is None else json.dumps(body), timeout=60)

    def task(name):
        return call("GET", "/v1/tasks/" + name).json()

    def submit(name, tenant, script, cpu=200, **more):
        order = dict({"id": name, "tenant": tenant, "command": ["/bin/sh", "-c", script], "resources": {"cpu_millicores": cpu, "memory_bytes": 32 * MIB}}, **more)
        wait_until("task %s to be taken" % name, lambda: call("POST", "/v1/tasks", order).status in (200, 201), 120)

    def wait_state(name, state, seconds=120):
        return wait_until("%s to be %s" % (name, state), lambda: (lambda t: t["state"] == state and t)(task(name)), seconds)

    def state_of(names):
        return [wait_until("the state of " + n, lambda: task(n)["state"]) for n in names]

    wait_until("all gateways to take tasks", lambda: [n["condition"] for n in call("GET", "/v1/quotas").json()["nodes"]] == ["ready"] * 3, 60)
    for tenant in ("loud", "quiet"):
        wait_until("tenant %s" % tenant, lambda: site.ctl("tenant", "set", tenant, "--cpu", "30", "--memory", "30").returncode == 0)

    # Side by side on one gateway, with the same share: one process here, a crowd there.
    submit("calm", "quiet", WORK, affinity="1")
    submit("noise", "loud", NOISE, affinity="1", resources={"cpu_millicores": 200, "memory_bytes": 64 * MIB, "disk_bytes": 16 * MIB})
    wait_state("calm", "running")
    wait_state("noise", "running")
    # ... and a flood of orders, more than its share lets in.
    for i in range(BACKLOG):
        submit("flood-%d" % i, "loud", "sleep 1000", cpu=400)

    done = 0
    for i in range(PUTS):
        # Again where leadership has just moved: then an answer is 503 or 504.
        done += wait_until("commit %d" % i, lambda: call("PUT", "/v1/kv/quiet-%d" % i, i, node=1 + i % 3).status in (200, 201))
    site.ok(done == PUTS, "of %d commits %d were taken" % (PUTS, done))
    names = ["job-%d" % i for i in range(JOBS)]
    for name in names:
        submit(name, "quiet", "i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); echo line $i; done")
    for name in names:
        wait_state(name, "completed")
    waiting = sum(s == "queued" for s in state_of("flood-%d" % i for i in range(BACKLOG)))
    site.ok(waiting > BACKLOG // 2, "%d orders of the quiet tenant ran while %d of the flood wait" % (JOBS, waiting))
    lines = "".join("line %d\n" % (i + 1) for i in range(2000))
    whole = sum(wait_until("the output of " + name, lambda: (lambda r: r.returncode == 0 and r)(site.ctl("task", "logs", name))).stdout == lines for name in names)
    site.ok(whole == JOBS, "all that it wrote is there, of %d of %d" % (whole, JOBS))

    # On a fast machine all of this took a moment: until it has said much more than is kept.
    wait_until("the noise to be long", lambda: int(call("GET", "/v1/tasks/noise/logs").headers["x-grey-end"]) > 5 * MIB, 180)
    # What both had: by the work that they did, for not every kernel keeps an account of a whole group.
    for name in ("calm", "noise"):
        call("DELETE", "/v1/tasks/" + name)
    proofs = {name: wait_until("the proof of " + name, lambda: (lambda r: r.returncode == 0 and json.loads(r.stdout))(site.ctl("task", "proof", name)), 60) for name in ("calm", "noise")}
    work = {name: proofs[name]["output"]["stderr"]["bytes"] for name in proofs}
    wrote = proofs["noise"]["output"]["stdout"]["bytes"]
    with open(site.path("launch1.log")) as f:
        groups = "limits=cgroup" in f.read()
    if groups:
        site.ok(work["calm"] * 2 >= work["noise"] > 0, "with the same share the quiet one did at least half as much: %s" % work)
    else:
        site.ok(True, "shares # SKIP no control groups can be written here")
    kept = sum(os.path.getsize(os.path.join(folder, f)) for folder, _, files in os.walk(site.path("launch1", "runs")) for f in files if f.startswith(("out", "err")))
    site.ok(wrote > 4 * MIB > kept, "of %d bytes that the other said %d are kept" % (wrote, kept))
    read = lambda i: wait_until("an answer", lambda: (lambda a: a.status in (200, 404) and a)(call("GET", "/v1/kv/quiet-%d" % i))).body.decode()
    there = sum(read(i) == str(i) for i in range(PUTS))
    site.ok(there == PUTS, "of %d commits %d are read back" % (PUTS, there))


run_test(test, site_class=WithLaunchers, extra="consensus: {election_timeout_ms: 1500}\n")  # ten of the longest and a gateway is lost, and its work goes elsewhere
