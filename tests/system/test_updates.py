#!/usr/bin/env python3
"""New versions of our programs come from the core.  If this failed, an update would stop a site, a version that does not work would stay on its gateways, an old one with known
holes could be brought back, or a cut link would make it begin anew."""
from harness import *

CONFIRM_S, HOPELESS_S = 120, 10  # of a version that is well on a machine that is busy with other things, and of one that cannot be


class Supervisor(threading.Thread):
    """What the service manager does on a gateway: starts greyd from the slot that grey-update chose, again when it ends, and grey-update when there is work for it."""

    def __init__(self, site, n):
        super().__init__(daemon=True)
        self.site, self.n, self.over, self.on_restart, self.held, self.confirm_s = site, n, False, None, False, CONFIRM_S
        self.slots, self.inbox = site.path("node%d" % n, "slots"), site.path("node%d" % n, "data", "updates")
        self.restart_mark, self.name = site.path("node%d" % n, "restart"), "node%d" % n
        self.cut, self.update, self.log = False, None, open(site.path("update%d.log" % n), "ab")

    def run_update(self):
        command = program("grey-update") + ["run", "--slots", self.slots, "--base", BUILD, "--inbox", self.inbox, "--key", self.site.path("maker", "update-sign.pub"),
                                            "--confirm-s", str(self.confirm_s), "--", "touch", self.restart_mark]
        self.update = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)

    def start_greyd(self):
        subprocess.run(program("grey-update") + ["boot", "--slots", self.slots, "--base", BUILD], check=True, stdout=self.log, stderr=self.log)
        seeds = ",".join("127.0.0.1:%d" % self.site.peer[m] for m in self.site.nodes if m != self.n)
        command = [os.path.join(self.slots, "current", "greyd"), "--config", self.site.path(self.name, "greyd.yaml"), "--join", seeds]
        self.site.spawn(self.name, command + (["--bootstrap"] if self.n == 1 else []))

    def tries(self):
        return "try        -" not in self.show()

    def show(self):
        return subprocess.run(program("grey-update") + ["show", "--slots", self.slots], check=True, stdout=subprocess.PIPE, text=True).stdout

    def run(self):
        if self.tries():
            self.run_update()
        while not self.over:
            time.sleep(0.1)
            if self.cut:  # both are gone at once, and both are started at the next boot
                self.cut = False
                self.site.kill(self.name)
                if self.update and self.update.poll() is None:
                    self.update.kill()
                    self.update.wait()
                self.start_greyd()
                self.run_update()
            elif os.path.exists(self.restart_mark):
                os.unlink(self.restart_mark)
                if self.on_restart:
                    self.on_restart(self.n)
                if self.site.alive(self.name):
                    self.site.kill(self.name, signal.SIGTERM)
                self.start_greyd()
            elif not self.site.alive(self.name):
                time.sleep(0.5)
                self.start_greyd()
            if (self.update is None or self.update.poll() is not None) and self.has_bundle() and not self.held:
                self.run_update()

    def has_bundle(self):
        return os.path.exists(os.path.join(self.inbox, "bundle"))

    def stop(self):
        self.over = True
        self.join()
        if self.update and self.update.poll() is None:
            self.update.kill()
            self.update.wait()


def pack(site, version, counter, content):
    folder = site.path("made-" + version)
    os.makedirs(folder)
    with open(os.path.join(folder, "greyd"), "wb") as f:
        f.write(content)
    out = site.path(version + ".bundle")
    subprocess.run(program("grey-update") + ["pack", "--sign", site.path("maker"), "--version", version, "--counter", str(counter), "--out", out, os.path.join(folder, "greyd")],
                   check=True, stdout=subprocess.DEVNULL)
    with open(out, "rb") as f:
        return f.read()


def push(site, bundle):
    a = request(site.core_port, "PUT", "/v1/updates/agent", bundle)
    assert a.status in (200, 201), (a.status, a.body)
    return a.json()["version"]


def updates(site):
    for n in site.nodes:
        try:
            a = request(site.http[n], "GET", "/v1/updates")
            if a.status == 200:
                return {u["name"]: u for u in a.json()["updates"]}["agent"]
        except (OSError, KeyError, ValueError, http.client.HTTPException):
            pass
    raise OSError("nobody answers")


def taken_bytes(site):
    total = 0
    for n in site.nodes:
        if not site.alive("node%d" % n):
            continue
        for line in request(site.http[n], "GET", "/metrics").body.decode().splitlines():
            if line.startswith("grey_federation_supply_bytes_total"):
                total += int(float(line.split()[1]))
    return total


def rollout(site):
    return request(site.core_port, "GET", "/v1/rollouts/agent?kind=update").json()["state"]


def runs(site, n):
    return os.path.basename(os.path.dirname(os.readlink("/proc/%d/exe" % site.processes["node%d" % n].pid)))


def test(site):
    whole = site.path("greyd.stripped")
    subprocess.run(["strip", "-o", whole, os.path.join(BUILD, "greyd")], check=True)
    with open(whole, "rb") as f:
        program_bytes = f.read()
    bad_moments = []

    def on_restart(n):
        """The others must be able to go on without this one."""
        for m in site.nodes:
            if m != n and not (site.alive("node%d" % m) and site.status(m)["quorum"]):
                bad_moments.append((n, m))
    for s in site.supervisors.values():
        s.on_restart = on_restart

    a = request(site.core_port, "PUT", "/v1/sites/%s/labels" % SITE, json.dumps(["ring=canary"]))
    b = request(site.core_port, "PUT", "/v1/rollouts/agent?kind=update", json.dumps({"stages": [{"label": "ring=canary", "soak_seconds": 1}]}))
    assert a.status == 204 and b.status == 204, (a.body, b.body)

    # To all, one after the other; the link goes away meanwhile.
    second = pack(site, "0.2.0", 2, program_bytes + b"second")
    push(site, second)
    came = [0]  # the counter of whoever led and took it, before he is restarted in his turn

    def count():  # from the beginning: whoever took a part of it may lead no more, and then be the first to restart
        came[0] = max(came[0], taken_bytes(site))
        return True

    def watched():
        count()
        u = updates(site)
        return u if u.get("health") == "healthy" else None
    wait_until("a part of it to be here", lambda: "coming" in updates(site), 60)
    site.kill("core")
    site.ok(updates(site)["coming"]["missing"] > 0, "the core goes away in the middle of it")
    time.sleep(3)
    site.start_core()
    first = wait_until("the first to try it", lambda: count() and [n for n, s in site.supervisors.items() if s.tries()], 90)[0]
    site.supervisors[first].cut = True
    wait_until("the second version on all gateways", watched, 180)
    wait_until("all to keep it", lambda: not any(s.tries() for s in site.supervisors.values()), 60)
    cost = came[0]
    site.ok({runs(site, n) for n in site.nodes} == {"a"} and not bad_moments, "all gateways run the new version, and none was stopped while another was away, although the power went during the first trial: %s" % bad_moments)
    site.ok(all("keep       a" in s.show() and "floor      2" in s.show() for s in site.supervisors.values()), "and keep it")
    site.ok(len(second) * 0.95 <= cost <= len(second) * 1.05, "over the link came %d bytes of %d, although it was cut" % (cost, len(second)))
    wait_until("the site to say so", lambda: {g["phase"] for g in updates(site)["gateways"]} == {"current"})
    site.ok(True, "the site says so of each")

    # One that does not get well.
    wait_until("the rollout to be done", lambda: rollout(site) == "done", 60)
    for s in site.supervisors.values():
        s.confirm_s = HOPELESS_S
    push(site, pack(site, "0.3.0", 3, b"#!/bin/sh\nexec sleep 1000\n"))
    wait_until("it to be taken back", lambda: rollout(site) == "rolled-back", 180)
    site.wait_voters()
    wait_until("the version before to be in force again, and well", lambda: updates(site)["version"] == 1 and updates(site)["health"] == "healthy", 90)
    tried = [n for n, s in site.supervisors.items() if "failed-why 3308" in s.show()]
    site.ok(len(tried) == 1 and {runs(site, n) for n in site.nodes} == {"a"} and not bad_moments, "one that does not get well is tried at one gateway, and left: %s %s" % (tried, bad_moments))

    for s in site.supervisors.values():
        s.confirm_s = CONFIRM_S

    # An older one, and one of somebody else.
    push(site, pack(site, "0.1.0", 1, program_bytes + b"first"))
    wait_until("the older one to be refused", lambda: any(g.get("error") == "GREY-3304" for g in updates(site)["gateways"]), 90)
    site.ok({runs(site, n) for n in site.nodes} == {"a"}, "an older version is refused, although it is signed")
    os.rename(site.path("maker"), site.path("right-maker"))
    subprocess.run(program("grey-update") + ["keygen", site.path("maker")], check=True)
    forged = pack(site, "0.4.0", 4, program_bytes + b"forged")
    shutil.rmtree(site.path("maker"))
    os.rename(site.path("right-maker"), site.path("maker"))
    push(site, forged)
    wait_until("the forged one to be refused", lambda: any(g.get("error") == "GREY-3302" for g in updates(site)["gateways"]), 90)
    site.ok({runs(site, n) for n in site.nodes} == {"a"}, "one that the core gives, but the maker did not sign, is refused")

    # An engineer allows the older one; while it is on its way into a slot, the core gives another.
    for s in site.supervisors.values():
        s.held = True
        subprocess.run(program("grey-update") + ["allow", "1", "--slots", s.slots], check=True, stdout=s.log, stderr=s.log)
    push(site, pack(site, "0.1.1", 1, program_bytes + b"first"))
    busy = wait_until("a gateway to begin with the older one", lambda: [n for n, s in site.supervisors.items() if s.has_bundle()], 90)
    site.ok(len(busy) == 1, "what an engineer allows is taken, and greyd was not restarted for that")
    newest = push(site, pack(site, "0.5.0", 5, program_bytes + b"fifth"))

    def phases():
        u = updates(site)
        return {g["node"]: g["phase"] for g in u["gateways"]} if u["version"] == newest else {}
    wait_until("the others to stand to the newest", lambda: len(phases()) >= 2, 60)
    time.sleep(4)
    begun = str(busy[0])
    site.ok(begun not in phases() and updates(site)["turn"] == begun, "who may be away in a moment says nothing that would end its turn: %s" % phases())
    for s in site.supervisors.values():
        s.held = False
    wait_until("the newest on all gateways", lambda: updates(site)["version"] == newest and updates(site)["health"] == "healthy", 180)
    site.ok(not bad_moments, "and in the end all have the newest, one after the other: %s" % bad_moments)


class Updated(Site):
    def __init__(self):
        self.supervisors = {}
        super().__init__()
        subprocess.run(program("grey-update") + ["keygen", self.path("maker")], check=True)
        for n in self.nodes:
            os.makedirs(self.path("node%d" % n, "slots"))
            with open(self.path("node%d" % n, "greyd.yaml"), "a") as f:
                f.write("update: {slots: \"%s\", soak_secs: 2, turn_secs: 300}\n" % self.path("node%d" % n, "slots"))

    def start(self):
        self.start_broker()
        self.start_core()
        for n in self.nodes:
            self.supervisors[n] = Supervisor(self, n)
            self.supervisors[n].start_greyd()
            self.supervisors[n].start()
        self.wait_whole()
        return self

    def cleanup(self):
        for s in self.supervisors.values():
            s.stop()
        self.supervisors = {}
        super().cleanup()


run_test(test, Updated)
