#!/usr/bin/env python3
"""Tasks that may leave the site run at the core's worker and come back with what they wrote.  If this failed, work that a site hands to the
cloud would be lost with a core, a leader or the link, would be done twice, or would leave the site although nobody allowed it."""
from launchers import *


class WithWorker(WithLaunchers):
    scheduler_more = ", cloud_offload: {enabled: true, when: always}"

    def start(self):
        self.worker_port, peer = free_ports(2)
        os.makedirs(self.path("worker"))
        with open(self.path("worker", "greyd.yaml"), "w") as f:
            f.write("mode: single\nnode: {id: worker}\nnetworking: {http_addr: \"127.0.0.1:%d\", peer_addr: \"127.0.0.1:%d\", socket: \"%s\"}\n" % (self.worker_port, peer, self.path("worker", "s")))
            f.write("storage: {data_dir: \"%s\"}\nscheduler: {cpu_limit_millicores: 2000, memory_limit_bytes: 4294967296, launcher: \"%s/launch.sock\"}\n" % (self.path("worker", "data"), self.path("launch-worker")))
        self.spawn("launch-worker", [os.path.join(BUILD, "grey-launch"), "--dir", self.path("launch-worker")])
        self.spawn("worker", program("greyd") + ["--config", self.path("worker", "greyd.yaml")])
        self.core_extra = ["--worker", "http://127.0.0.1:%d" % self.worker_port]
        return super().start()


def test(site):
    marks = site.path("marks")
    os.makedirs(marks)
    os.chmod(site.dir, 0o755)
    os.chmod(marks, 0o777)

    def call(method, path, body=None, node=None):
        for n in [node] if node else site.nodes:
            try:
                return request(site.http[n], method, path, None if body is None else json.dumps(body), timeout=20)
            except OSError:
                pass

    def task(name):
        return call("GET", "/v1/tasks/" + name).json()

    def submit(name, words, cpu=200, **more):
        """What it does, it says in a file as well: a line for each run."""
        order = {"id": name, "command": ["/bin/sh", "-c", "echo x >>%s/%s; %s" % (marks, name, words)], "resources": {"cpu_millicores": cpu, "memory_bytes": 64 * 2**20}}
        return wait_until("task %s to be taken" % name, lambda: (lambda a: a.status in (200, 201) and a.json())(call("POST", "/v1/tasks", dict(order, **more))), 60)

    def wait_state(name, state, seconds=60):
        return wait_until("%s to be %s" % (name, state), lambda: (lambda t: t["state"] == state and t)(task(name)), seconds)

    def count(name):
        try:
            return len(open(os.path.join(marks, name)).readlines())
        except OSError:
            return 0

    def worker_tasks():
        return request(site.worker_port, "GET", "/v1/tasks").json()["tasks"]

    wait_until("all gateways to take tasks", lambda: [n["condition"] for n in call("GET", "/v1/quotas").json()["nodes"]] == ["ready"] * 3, 60)
    wait_until("the worker to take tasks", lambda: [n["condition"] for n in request(site.worker_port, "GET", "/v1/quotas").json()["nodes"]] == ["ready"], 60)
    wait_until("what may leave to leave", lambda: call("GET", "/v1/quotas").json()["offloads"], 60)

    submit("stays", "echo here")
    submit("leaves", "echo there; echo bad >&2", offload="local", offload_patience_seconds=60)
    here, there = wait_state("stays", "completed"), wait_state("leaves", "completed")
    site.ok(here["node"] and not there["node"] and len(worker_tasks()) == 1, "a task that may leave runs beside the core, another does not")
    site.ok(there["output"] == {"stdout_sha256": hashlib.sha256(b"there\n").hexdigest(), "bytes": 6} and count("leaves") == 1, "it ran once, and the site's log has the hash of what it wrote: %s" % there["output"])
    logs = [site.ctl("task", "logs", "leaves", node=n) for n in site.nodes]
    site.ok(all(r.stdout == "there\n" for r in logs), "what it wrote can be read at every gateway: %s" % [r.stdout + r.stderr for r in logs])
    submit("fails", "exit 3", offload="wait")
    t = wait_state("fails", "failed")
    site.ok((t["reason"], t["exit_status"]) == ("exit", 3), "one that fails there has failed, and says how")
    submit("large", "true", cpu=2500, offload="wait", delivery="at-most-once")
    t = wait_state("large", "completed")
    site.ok(t["node"] and count("large") == 1, "one that the worker cannot take comes back and runs here")
    share = request(site.worker_port, "PUT", "/v1/tenants/" + SITE, json.dumps({"cpu_percent": 50, "memory_percent": 50}))
    assert share.status == 200, share.body
    submit("bounded", "true", offload="wait")
    wait_state("bounded", "completed")
    site.ok(sorted(t["tenant"] for t in worker_tasks()) == sorted(["default", "default", SITE]), "the worker counts tasks of a site for the tenant of its name, when it has one")
    forged = call("POST", "/v1/events", {"type": "grey.task.offload", "subject": "x/1", "data": {"command": ["true"]}})
    site.ok(forged.status == 400 and "grey.task." in forged.body.decode(), "nobody but the site itself can hand tasks to the core")

    submit("unwanted", "sleep 600", offload="wait")
    wait_until("it to run at the worker", lambda: count("unwanted") == 1)
    call("DELETE", "/v1/tasks/unwanted")
    wait_until("the worker to stop it", lambda: [t for t in worker_tasks() if t["state"] == "cancelled"], 60)
    wait_state("unwanted", "cancelled")
    site.ok(True, "one that is cancelled is stopped there")

    # Core and leader die while it runs.
    submit("slow", "sleep 6; echo done", offload="wait", delivery="at-most-once")
    wait_until("it to run at the worker", lambda: count("slow") == 1)
    site.restart("core")
    leader = site.leader()
    site.kill("node%d" % leader)
    t = wait_state("slow", "completed", 90)
    site.ok(count("slow") == 1 and t["output"]["stdout_sha256"] == hashlib.sha256(b"done\n").hexdigest(), "it ran once and came back, over another core and another leader")
    site.restart("node%d" % leader)
    site.wait_whole()
    wait_until("the core to have nothing left to say", lambda: call("GET", "/v1/quotas").json()["offloads"])

    # The worker stands still.
    site.processes["worker"].send_signal(signal.SIGSTOP)
    still = ["still%d" % i for i in range(6)]
    for name in still:
        submit(name, "true", offload="wait", delivery="at-most-once")
    site.wait_drained()
    time.sleep(2)  # the core has begun to ask
    site.kill("core", signal.SIGTERM)  # fails when it does not end within 30 s
    site.restart("core")
    site.processes["worker"].send_signal(signal.SIGCONT)
    for name in still:
        wait_state(name, "completed")
    site.ok([count(name) for name in still] == [1] * len(still), "a core stops while its worker stands still, and what it had for it is done once, later")
    wait_until("the core to have nothing left to say", lambda: call("GET", "/v1/quotas").json()["offloads"])

    # The link is away for longer than a task waits.
    site.processes["core"].send_signal(signal.SIGSTOP)
    submit("returns", "echo back", offload="local", offload_patience_seconds=1)
    submit("waits", "echo waited", offload="wait")
    wait_until("both to be given away", lambda: task("returns").get("with_core") and task("waits").get("with_core"), 30)
    site.ok(True, "two tasks are on their way to a core that stands still")
    site.kill("broker")
    t = wait_state("returns", "completed", 90)
    site.ok(t["node"] and count("returns") == 1, "the one that waits a second is taken back and runs here")
    site.ok(task("waits").get("with_core") and count("waits") == 0, "the one that waits for the link still does")
    wait_until("the site to see that the link is away", lambda: not call("GET", "/v1/quotas").json()["offloads"], 60)
    site.ok(submit("later", "true", offload="wait") and wait_state("later", "completed")["node"], "while the link is away what may leave runs here")
    site.processes["core"].send_signal(signal.SIGCONT)
    site.start_broker()
    site.try_link()  # not later, as its breaker would
    t = wait_state("waits", "completed", 90)
    site.ok(not t["node"] and count("waits") == 1, "when the link is back, it is done there")
    site.wait_drained()
    time.sleep(3)
    site.ok(count("returns") == 1, "what was taken back was not done there as well")
    site.wait_same_state()
    site.ok(True, "all gateways hold the same state")


run_test(test, site_class=WithWorker, extra="consensus: {election_timeout_ms: 600}\n")
