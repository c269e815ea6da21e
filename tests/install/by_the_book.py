#!/usr/bin/env python3
"""If this fails, a site engineer who does what docs/INSTALL.md and docs/UPDATES.md say is left with a site that does not work, or our units do not do under a real systemd what they promise.

A core and three gateways, each an emulated machine with a plain Debian 12, are brought from nothing to a running site by the commands of the manual, looked at, upgraded, updated from the core, and a
gateway is removed and one replaced.  In between it is seen what only systemd can show: sandbox, watchdog, restarts, groups of tasks, reboots, cut power.  As root.  Arguments: DEBS NEWER VERSION NEWER-VERSION,
folders of our packages; see `make check-install`."""
import json, os, re, subprocess, sys, time

import machines
from machines import PATIENCE_S, Field, Machine, Refused, together, wait_until

machines.network_of_its_own()
import harness
from manual import Manual

SITE_NODES = {"gw1": 11, "gw2": 12, "gw3": 13}
CORE = 10
HOSTS = "10.20.0.%d core core.example.com\n" % CORE
PACKAGES = ("grey-agent", "grey-ctl")


def packages_of(gateway):
    return PACKAGES + (("grey-tpm",) if gateway.tpm else ())


class Book:
    """The site of the manual, and the manual."""

    def __init__(self, field, debs, newer, version, newer_version):
        self.field, self.debs, self.newer, self.version, self.newer_version = field, debs, newer, version, newer_version
        self.install, self.updates = (Manual(os.path.join(harness.ROOT, "docs", page)) for page in ("INSTALL.md", "UPDATES.md"))
        self.core = Machine(field, "core", CORE, HOSTS, 384)
        self.gateways = {name: self.box(name) for name in SITE_NODES}

    def ok(self, condition, text):
        self.field.ok(condition, text)

    def box(self, name):
        """As it comes from the shelf."""
        return Machine(self.field, name, SITE_NODES[name], HOSTS)

    def all(self):
        return list(self.gateways.values())

    def packages(self, machine, names, folder=None, version=None):
        machine.do("mkdir -p before && mv ./*.deb before/ 2>/dev/null; true")
        for name in names:
            file = "%s_%s_amd64.deb" % (name, version or self.version)
            with open(os.path.join(folder or self.debs, file), "rb") as f:
                machine.put("/root/" + file, f.read())

    def said_of(self, gateway):
        """The words of the manual that are other ones on this gateway."""
        others = [m for m in SITE_NODES if m != gateway.name]
        return {"gw1": gateway.name, "10.20.0.11": gateway.address, "10.20.0.12:9090,10.20.0.13:9090": ",".join("10.20.0.%d:9090" % SITE_NODES[m] for m in others)}

    def follow(self, machine, section, begins, manual=None, **said):
        """Types a block of the manual."""
        return machine.do(*(manual or self.install).commands(section, begins, **said))

    def install_line(self, gateway, section, begins):
        """The command of the page that installs packages; on a gateway with a TPM with what is said behind it."""
        line = [l for l in self.install.block(section, begins) if "apt-get install" in l][0]
        command, remark = (re.split(r" {4,}", line) + [""])[:2]
        return command + (" " + re.search(r"and (\S+\.deb) where there is a TPM", remark).group(1) if gateway.tpm else "")

    # --- how it is --------------------------------------------------------------------------------------------------------------------------
    def verdict(self, gateway, wanted=None, seconds=PATIENCE_S):
        """Waits for greyctl's first line."""
        return gateway.wait("the verdict", "greyctl", lambda said: re.match(wanted or self.whole(), said.splitlines()[0] if said else ""), seconds).splitlines()[0]

    def whole(self):
        line = self.install.block("6.", "OK: ")[0]
        return re.escape(line).replace("gw1", r"gw[0-9]+").replace(r"0\ events", r"[0-9]+\ events?") + "$"

    def leader(self, gateway):
        said = gateway.wait("a leader", "greyctl cluster leader", lambda said: said.split()[0] in self.gateways)
        return self.gateways[said.split()[0]]

    def show(self, machine, unit, name):
        return machine.do("systemctl show -P %s %s" % (name, unit)).strip()

    def journal(self, machine, unit, words, since=""):
        return machine.ask("journalctl --no-pager -o cat -u %s %s | grep -m 1 -- '%s'" % (unit, since, words))[0] == 0


def power_on(b):
    boxes = [b.core] + b.all()
    for m in boxes:
        m.power_on()
    took = together(boxes, lambda m: m.wait_up())
    b.field.note("a Debian 12 with systemd gives a shell %s s after power-on (core, three gateways, at once)" % ", ".join("%.0f" % t for t in took.values()))
    b.ok(True, "four machines with Debian 12 are up")


def section_2(b):
    """The core."""
    b.packages(b.core, ("grey-core", "grey-ctl"))
    b.follow(b.core, "2.", "apt-get install ./grey-core")
    b.follow(b.core, "2.", "install -d")
    b.core.put("/etc/mosquitto/conf.d/grey.conf", b.install.file("2.", "listener"))
    b.core.do("sed -i 's/^#\\([a-z_]*:\\)/\\1/' /etc/grey-core/grey-core.yaml")
    b.follow(b.core, "2.", "systemctl restart mosquitto")
    b.ok(b.core.do("systemctl is-active grey-core mosquitto").split() == ["active"] * 2, "section 2: a core is up, beside its broker")


def token(b, nodes=3):
    said = b.core.do(*[re.sub(r"--nodes 3", "--nodes %d" % nodes, c) for c in b.install.commands("2.", "greyctl --core")])
    return max(said.split(), key=len)


def configure(b, gateway, bootstrap):
    """Section 5."""
    said = b.said_of(gateway)
    for command in b.install.commands("5.", "cp /usr/share/doc/grey-agent", raspberrypi4="generic-amd64"):
        if command.startswith("editor "):
            command = "sed -i 's/id: gw1 /id: %s /; s/10.20.0.11/%s/' %s" % (gateway.name, gateway.address, command.split()[1])
        gateway.do(command)
    gateway.do("cat >>/etc/default/greyd <<'END'\n%sEND" % (b.install.file("5.", "GREY_CLUSTER_PEERS", **said) + (b.install.file("5.", "GREY_RAFT_BOOTSTRAP") if bootstrap else "")))


def section_3(b, gateway):
    b.packages(gateway, packages_of(gateway))
    gateway.do(b.install_line(gateway, "3.", "apt-get install ./grey-agent"))


def section_4(b, gateway, token):
    b.follow(gateway, "4.", "runuser -u grey -- greyd enroll --core", TOKEN=token, **b.said_of(gateway))


def sections_3_to_5(b):
    began = time.monotonic()
    together(b.all(), lambda m: section_3(b, m))
    b.field.note("the packages are installed %.0f s later" % (time.monotonic() - began))
    states = [m.ask("systemctl is-active greyd; systemctl is-enabled greyd")[1].split() for m in b.all()]
    b.ok(states == [["inactive", "disabled"]] * 3, "section 3: packages are installed, and nothing is started: %s" % states)
    given = token(b)
    together([b.gateways["gw1"], b.gateways["gw2"]], lambda m: section_4(b, m, given))
    b.ok(True, "section 4: gateways enrol with a token")
    by_hand(b, b.gateways["gw3"])
    b.ok(True, "section 4: and one by files that are carried to the core and back")
    together(b.all(), lambda m: configure(b, m, m.name == "gw1"))
    b.ok(True, "section 5: greyd --check-config takes the configuration")


def by_hand(b, gateway):
    """Section 4, no way to the core from here."""
    request, sign = b.install.commands("4.", "runuser -u grey -- greyd enroll --request", **b.said_of(gateway))
    gateway.do(request)
    identity = "/var/lib/grey/identity/"
    b.core.put("/root/node.csr", gateway.do("cat %snode.csr" % identity))
    b.core.do(sign)
    place, files = re.search(r"Carry back to `([^`]+)`: (.*)", b.install.text[b.install.section("4.")]).groups()
    for carried in re.findall(r"`([^`]+)`", files):
        gateway.put(place + os.path.basename(carried), b.core.do("cat " + carried))


def start(b, gateways):
    for m in gateways:
        m.do(b.install.commands("6.", "systemctl enable --now greyd")[0])


def section_6(b):
    began = time.monotonic()
    start(b, b.all())
    line = together(b.all(), lambda m: b.verdict(m))["gw3"]
    b.field.note("'%s' %.0f s after the first systemctl enable --now greyd" % (line, time.monotonic() - began))
    b.ok(True, "section 6: the first line of each is the manual's")
    leader = b.leader(b.gateways["gw2"])
    said = {c: leader.wait("'%s' to say that all is well" % c, c) for c in b.install.commands("6.", "greyctl event send")}
    b.ok(True, "section 6: event, queue, link test and doctor say that all is well")
    b.field.note("doctor: " + " / ".join(said["greyctl doctor"].splitlines()))
    events = b.core.do("greyctl --core http://127.0.0.1:8080 site events plant-7 -o json")
    b.ok("install.test" in events, "section 6: the event of the engineer is at the core")
    memory = [m.do("grep VmRSS /proc/$(systemctl show -P MainPID greyd)/status").split()[1] for m in b.all()]
    b.field.note("greyd holds %s KiB" % ", ".join(memory))


def sandbox(b):
    """Section 10: what greyd may."""
    m = b.gateways["gw2"]
    pid = b.show(m, "greyd", "MainPID")
    of = dict(line.split(":", 1) for line in m.do("cat /proc/%s/status" % pid).splitlines())
    of = {k: v.split() for k, v in of.items()}
    grey = m.do("id -u grey").strip()
    b.ok(of["Uid"] == [grey] * 4 and of["NoNewPrivs"] == ["1"] and of["Seccomp"] == ["2"] and int(of["CapBnd"][0], 16) == 0,
         "greyd runs as grey, without capabilities, new privileges and most system calls: %s" % [of[k] for k in ("Uid", "NoNewPrivs", "Seccomp", "CapBnd")])
    refused = [path for path in ("/etc/grey/x", "/usr/bin/x", "/var/log/x", "/var/lib/x", "/root/x") if m.ask("nsenter -t %s -m -- touch %s" % (pid, path))[0] != 0]
    b.ok(len(refused) == 5 and m.ask("nsenter -t %s -m -- touch /var/lib/grey/x && rm /var/lib/grey/x" % pid)[0] == 0, "not even root could write outside of /var/lib/grey from where it is: %s" % refused)
    said = re.search(r"systemd-analyze security greyd`: ([0-9.]+) of 10", b.install.text[b.install.section("10.")]).group(1)
    score = re.search(r"exposure level for greyd.service: ([0-9.]+)", m.ask("systemd-analyze --no-pager security greyd")[1])
    b.ok(score and score.group(1) == said, "systemd-analyze security gives greyd the manual's %s: %s" % (said, score and score.group(1)))


def restarts(b):
    """Section 10: a service that fails is started again."""
    m = b.gateways["gw3"]

    def again(before):
        def running(said):
            pid, active = said.split()
            return active == "active" and pid not in ("0", before)
        began = time.monotonic()
        pid = m.wait("greyd to be started again", "systemctl show -P MainPID greyd; systemctl is-active greyd", running).split()[0]
        return pid, time.monotonic() - began
    pid = b.show(m, "greyd", "MainPID")
    m.do("kill -STOP " + pid)
    pid, took = again(pid)
    b.ok(b.journal(m, "greyd", "Watchdog timeout"), "a greyd that stands still is killed by its watchdog and started again, after %.0f s" % took)
    waits = []
    for _ in range(3):
        m.do("kill -9 " + pid)
        pid, took = again(pid)
        waits.append("%.0f" % took)
    b.ok(b.journal(m, "greyd", "waiting 2 s before the next start"), "one that is killed is started again, each time later: after %s s" % ", ".join(waits))
    m.do("systemctl kill -s KILL greyd")
    waited = "journalctl --no-pager -o cat -u greyd | grep -c 'failed lately'"
    before = int(m.ask(waited)[1])
    m.wait("it to wait once more", waited, lambda said: int(said) > before)
    m.do("systemctl restart greyd")
    b.ok(int(m.ask(waited)[1]) == before + 1, "after a repair systemctl restart does not wait")
    b.verdict(m)
    began = time.monotonic()
    m.do("systemctl stop greyd")
    took = time.monotonic() - began
    end = {k: b.show(m, "greyd", k) for k in ("Result", "ExecMainStatus", "ActiveState")}
    b.ok(end == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}, "systemctl stop ends it well, in %.1f s: %s" % (took, end))
    m.do("systemctl start greyd")
    b.verdict(m)


def tasks(b):
    """Section 5: tasks on these gateways."""
    for m in b.all():
        m.do("sed -i 's/^#\\(scheduler:\\| *enabled\\| *launcher\\)/\\1/' /etc/grey/greyd.yaml", "greyd --check-config", b.install.words("5.", "systemctl enable --now grey-launch"), "systemctl restart greyd")
        b.verdict(m)
    order = {"id": "bounded", "command": ["/bin/sh", "-c", "id -un; sleep 600"], "resources": {"cpu_millicores": 200, "memory_bytes": 48 << 20}}
    asks = b.gateways["gw1"]
    asks.put("/root/bounded.json", json.dumps(order))
    asks.wait("a task to be taken", "greyctl task submit --file bounded.json")
    asks.wait("it to run as grey-task", "greyctl task logs bounded", lambda said: said.split() == ["grey-task"])
    node = json.loads(asks.do("greyctl task show bounded -o json"))["node"]
    m = b.gateways[node]
    group = m.do("cut -d : -f 3 /proc/$(pgrep -u grey-task -x sleep)/cgroup").strip()
    limits = {name: m.do("cat /sys/fs/cgroup%s/%s" % (group, name)).strip() for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max")}
    b.ok(group.startswith("/system.slice/grey-launch.service/") and limits == {"memory.max": str(48 << 20), "memory.swap.max": "0", "cpu.max": "20000 100000", "pids.max": "1024"},
         "a task has a control group below its service, with its limits: %s %s" % (group, limits))
    asks.put("/root/greedy.json", json.dumps(dict(order, id="greedy", restart="never", command=["/bin/sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}"])))
    asks.do("greyctl task submit --file greedy.json")
    t = json.loads(asks.wait("the greedy one to end", "greyctl task show greedy -o json", lambda said: json.loads(said)["state"] in ("failed", "completed")))
    b.ok(t["state"] == "failed" and t.get("reason") == "memory", "one that takes more memory is ended, and the site says why: %s %s" % (t["state"], t.get("reason")))
    m.do("systemctl kill -s KILL grey-launch")
    m.wait("the launcher to be back", "systemctl is-active grey-launch")
    asks.do("greyctl task cancel bounded")
    m.wait("no task to be left", "! pgrep -u grey-task")
    b.ok(m.ask("systemctl --failed --no-legend | grep .")[0] != 0, "a launcher that was killed comes back, and leaves nothing behind")


def logs(b):
    """Section 10: all logs are in the journal."""
    ours, silent = [], []
    for m in [b.core] + b.all():
        said = m.ask("find /var/log -iname '*grey*'; grep -rl --exclude-dir=journal --exclude-dir=mosquitto -e greyd -e grey-core /var/log | grep -vE '/(dpkg|apt/(history|term|eipp))\\.log|alternatives|wtmp'")[1]
        ours += [m.name + ":" + path for path in said.split()]
        silent += [m.name] if len(m.do("journalctl --no-pager -u %s | tail -n 9" % ("grey-core" if m is b.core else "greyd")).splitlines()) < 9 else []
    b.ok(ours == silent == [], "all logs are in the journal, and no file below /var/log is ours: %s %s" % (ours, silent))


def events_arrive(b, gateway, subject):
    gateway.wait("an event to be taken", "greyctl event send --type install.test --priority critical --subject %s --data 1" % subject)
    b.core.wait("event %s at the core" % subject, "greyctl --core http://127.0.0.1:8080 site events plant-7 --channel control -o json | grep -q %s" % subject)


def reboots(b):
    m = b.gateways["gw1"]
    m.reboot()
    b.verdict(m)
    b.ok(True, "a gateway that is rebooted is part of its site again %.0f s later, without hands" % m.since_power_on())
    leader = b.leader(m)
    others = [o for o in b.all() if o is not leader]
    leader.power_off()
    line = b.verdict(others[0], "DEGRADED: 2 of 3 nodes")
    b.ok("2 of 3 nodes" in b.install.text[b.install.section("6.")], "the power of the leader is cut: '%s'" % line)
    events_arrive(b, others[1], "dark")
    leader.power_on()
    leader.wait_up()
    b.verdict(leader)
    b.ok(True, "it comes back by itself, %.0f s after power-on" % leader.since_power_on())
    for o in [b.core] + b.all():
        o.power_off()
    for o in [b.core] + b.all():
        o.power_on()
    together([b.core] + b.all(), lambda o: o.wait_up())
    b.verdict(m)
    b.ok(True, "the power of all of it is cut: site and core are back %.0f s after power-on" % m.since_power_on())
    events_arrive(b, m, "light")
    b.ok(True, "and events reach the core again")


def section_7(b):
    """Upgrade, one gateway at a time."""
    def change(m, folder, version, downgrade=False):
        command = b.install_line(m, "7.", "greyctl")
        if downgrade:
            command = command.replace("apt-get", b.install.words("7.", "apt-get --allow-downgrades"), 1)
        m.do("sha256sum /etc/grey/greyd.yaml /etc/default/greyd >sums")
        pid = b.show(m, "greyd", "MainPID")
        b.verdict(m)
        b.packages(m, packages_of(m), folder, version)
        m.do(command)
        m.do("sha256sum --quiet -c sums")
        b.verdict(m)
        had = m.do("dpkg-query -W -f '${Version}\\n' " + " ".join(packages_of(m))).split()
        if set(had) != {version} or pid == b.show(m, "greyd", "MainPID"):
            raise Refused("%s has %s" % (m.name, had))
    b.packages(b.core, ("grey-core", "grey-ctl"), b.newer, b.newer_version)
    b.core.do(b.install.words("7.", "apt-get install ./grey-core"))
    b.ok(b.core.do("systemctl is-active grey-core; dpkg-query -W -f '${Version}' grey-core").split() == ["active", b.newer_version], "section 7: the core is upgraded")
    leader = b.leader(b.gateways["gw1"])
    order = [m for m in b.all() if m is not leader] + [leader]
    change(order[0], b.newer, b.newer_version)
    change(order[0], b.debs, b.version, downgrade=True)
    b.ok(True, "section 7: one gateway is upgraded, and goes back")
    for m in order:
        change(m, b.newer, b.newer_version)
    b.ok(True, "section 7: all are upgraded, the site whole before each, configuration as it was")
    events_arrive(b, order[0], "upgraded")


AGENT = "cat /proc/$(systemctl show -P MainPID greyd)/comm >/dev/null && readlink /proc/$(systemctl show -P MainPID greyd)/exe"


def pack(b, version, program):
    """What is done where the programs are made, by the page; the bundle."""
    place = b.field.path("maker")
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, "greyd"), "wb") as f:
        f.write(program)
    command = b.updates.commands("A new version", "strip greyd", **{"0.2.0": version})[0]
    if not program.startswith(b"\x7fELF"):
        command = command.replace("strip greyd && ", "")
    tools = dict(os.environ, PATH=os.path.abspath(harness.BUILD) + ":" + os.environ["PATH"])
    orders = ([] if os.path.exists(os.path.join(place, "made")) else b.updates.commands("Setting it up", "grey-update keygen")) + [command]
    for order in orders:
        subprocess.run(order, shell=True, check=True, cwd=place, env=tools, stdout=subprocess.DEVNULL)
    with open(os.path.join(place, "agent.bundle"), "rb") as f:
        return f.read()


def push(b, version, program):
    """As the page says, but for the days that it gives a stage, and the core is asked from its own machine."""
    b.core.put("/root/agent.bundle", pack(b, version, program))
    commands = b.updates.commands("A new version", "strip greyd")[1:-1]
    b.core.do(*[re.sub(r"(ring=\w+):\d+", r"\1:5", c.replace("https://core.example.com", "http://127.0.0.1:8080")) for c in commands])


def updating(b, gateway, phase, count):
    """What the page shows of the site, once so many of its gateways stand to the update as wanted."""
    show = b.updates.commands("A new version", "strip greyd")[-1]
    return gateway.wait("%d gateways to be %s" % (count, phase), show, lambda said: len(re.findall(r"\b%s\b" % phase, said)) >= count, 1200)


def updates(b):
    """docs/UPDATES.md, over the core."""
    with open(os.path.join(harness.BUILD, "greyd"), "rb") as f:
        program = f.read()
    pack(b, "0.2.0", program)
    with open(b.field.path("maker", "made", "update-sign.pub"), "rb") as f:
        public = f.read()
    for m in b.all():
        m.put("/root/update-sign.pub", public)
        b.follow(m, "Setting it up", "install -m 0644 update-sign.pub", b.updates)
        b.verdict(m)
    b.core.do("greyctl --core http://127.0.0.1:8080 site label plant-7 ring=canary")
    began = time.monotonic()
    push(b, "0.2.0", program)
    said = updating(b, b.gateways["gw2"], "current", 3)
    for m in b.all():
        m.wait("it to be kept", "grey-update show", lambda said: re.search(r"^try +-", said, re.M))
    runs = {m.do(AGENT).strip() for m in b.all()}
    b.ok(len(runs) == 1 and runs.pop().startswith("/var/lib/grey-slots/"), "docs/UPDATES.md: a new version from the core is tried at one gateway after the other and kept, in %.0f s: %s" % (time.monotonic() - began, said.splitlines()[0]))
    b.verdict(b.gateways["gw1"])
    began = time.monotonic()
    push(b, "0.3.0", b"#!/bin/sh\nexit 1\n")
    b.core.wait("it to be taken back", "greyctl --core http://127.0.0.1:8080 config rollout agent --kind update", lambda said: "rolled-back" in said or "rolled back" in said, 1200)
    b.verdict(b.gateways["gw1"])
    left = [m.name for m in b.all() if "3308" in m.do("grey-update show")]
    b.ok(len(left) == 1, "one that does not get well is left after %.0f s, was tried at %s only, and the core takes it back" % (time.monotonic() - began, left))
    failed = [m.ask("systemctl --failed --no-legend")[1].strip() for m in b.all()]
    b.ok(failed == [""] * 3, "and no unit has failed for good: %s" % failed)
    b.verdict(b.gateways["gw2"])


def replace(b):
    """Section 8: a new box for a dead one; it has a TPM."""
    b.gateways["gw3"].power_off()
    b.verdict(b.gateways["gw1"], "DEGRADED: 2 of 3 nodes")
    new = Machine(b.field, "gw3", SITE_NODES["gw3"], HOSTS, tpm=True)
    b.gateways["gw3"] = new
    new.power_on().wait_up()
    section_3(b, new)
    new.do(b.install.words("4.", "systemctl start grey-tpm"))
    enroll = b.install.commands("4.", "runuser -u grey -- greyd enroll --core", TOKEN=token(b, 1), **b.said_of(new))[0]
    new.do(enroll + " " + b.install.words("4.", "--key tpm"))
    configure(b, new, False)
    key = new.do("cat " + b.install.words("4.", "/var/lib/grey/identity/key-name")).strip()
    signing = b.install.words("4.", "security.signing_key").split(".")[1]
    new.do("sed -i 's|/var/lib/grey/identity/node.key|%s|; s|^security:|security:\\n  %s|' /etc/grey/greyd.yaml" % (key, signing), "greyd --check-config")
    start(b, [new])
    b.verdict(b.gateways["gw1"])
    b.ok(key.startswith("tpm:"), "section 8: a new box takes the place and name of a dead one; its key is in a TPM (%s)" % key)
    new.reboot()
    b.verdict(new)
    b.ok(new.do("systemctl is-active grey-tpm").strip() == "active" and len(new.do("cat /var/lib/grey-tpm/starts")) > 0, "which is rebooted, measured and started without hands")


def section_8(b):
    """What is left of it: a disk beyond help, and an end for good."""
    mended, asked, gone = (b.gateways[name] for name in ("gw2", "gw1", "gw3"))
    b.follow(mended, "8.", "systemctl stop greyd")
    b.verdict(mended)
    b.ok(True, "section 8: a gateway without its data gets it from the others")
    if b.leader(asked) is gone:
        asked.do("greyctl cluster transfer gw1")
    remove, revoke = b.install.commands("8.", "greyctl member remove")
    asked.do(remove)
    b.core.do(revoke)
    b.verdict(asked, "(OK|DEGRADED): 2 of 2 nodes")
    gone.do(b.install.words("8.", "apt-get remove grey-agent"))
    kept = gone.do("ls /etc/grey/greyd.yaml /var/lib/grey/identity/node.crt; systemctl is-active greyd || true")
    gone.do(b.install.words("8.", "apt-get purge grey-agent") + " grey-ctl grey-tpm")
    by_hand = "/etc/systemd/system/greyd.service.d"  # as docs/UPDATES.md has it
    left = gone.do("find /etc /var/lib /run /usr -xdev -path /var/lib/dpkg -prune -o -name '*grey*' ! -path '/etc/grey*' ! -path %s -print" % by_hand).split()
    b.ok("inactive" in kept and not left, "section 8: one is removed for good, its package with all that it had: %s" % left)


def nothing_left_out(b):
    """Each block of these sections was followed, but for what needs another machine."""
    elsewhere = ("systemctl edit greyd", "grey-update install")  # a data directory elsewhere; an update by hand
    unread = [u for u in b.install.unread("2.", "3.", "4.", "5.", "6.", "7.", "8.") + b.updates.unread("Setting it up", "A new version") if not any(": " + e in u for e in elsewhere)]
    b.ok(not unread, "each command of these sections was typed: %s" % unread)


SCENES = [power_on, section_2, sections_3_to_5, section_6, sandbox, restarts, tasks, logs, reboots, replace, section_7, updates, section_8, nothing_left_out]


def test(field):
    b = Book(field, *sys.argv[1:5])
    for scene in SCENES:
        began = time.monotonic()
        scene(b)
        field.note("%s took %.0f s" % (scene.__name__, time.monotonic() - began))


if __name__ == "__main__":
    harness.run_test(test, Field)
