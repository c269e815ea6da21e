#!/usr/bin/env python3
"""If this fails, a gateway that boots our image does not come up, does not join its site, or does not survive a power cut or a spoiled slot.

Three emulated gateways (qemu-system, no KVM) boot the same plain image of a board, each with an enroll.conf on its boot partition as an engineer
lays it there; they enrol at a core on this machine, join each other over a bridge, and bring an event to the core.  Then the power of the leader is
cut, and one of its slots is spoiled.  At last two new roots come from the core: one that the power cuts while it is written, and one that does not start.  Where the kernel of the
board knows the emulated TPM, each gateway has one (swtpm) and is attested by it.  As root.  Arguments: BOARD ARCH IMAGE, a folder of build/image/; see `make check-image`."""
import http.client, json, os, re, shutil, ssl, subprocess, sys, time

if not os.environ.get("GREY_IMAGE_NET"):  # a network of its own, where no bridge of this machine is in the way
    os.execvpe("unshare", ["unshare", "--net", sys.executable] + sys.argv, dict(os.environ, GREY_IMAGE_NET="1"))

import harness
from harness import SITE, wait_until

BOARD, ARCH, WORK = sys.argv[1:4]
MACHINE = {"amd64": ["qemu-system-x86_64", "-M", "q35"], "arm64": ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53"],
           "armhf": ["qemu-system-arm", "-M", "virt", "-cpu", "cortex-a15"]}[ARCH]
FIRMWARE = "/usr/share/ovmf/OVMF.fd" if ARCH == "amd64" else os.path.join(WORK, "u-boot.bin")
BUS = "pci" if ARCH == "amd64" else "device"  # how devices of virtio are reached
MEMORY_MIB = 320 if ARCH == "amd64" else 192  # the firmware of a PC takes more
BOOT = "@@1M"  # where the boot partition begins, for mtools
RESIDENT_KIB_MAX = {"amd64": 10240, "arm64": 9216, "armhf": 7168}  # of a follower: the leader opens libmosquitto and its OpenSSL beside
HAS_TPM = ARCH != "armhf"  # Debian's kernel for armhf is built without tpm_tis
PATIENCE_S = 300  # bounds a hang on a loaded machine
ask_plainly = harness.request


class EmulatedSite(harness.Site):
    host = "core.test"  # how the gateways call this machine

    def __init__(self, **options):
        super().__init__(**options)
        if HAS_TPM:
            self.core_extra = ["--attest", "learn", "--attest-roots", self.path("maker", "roots.pem")]
            subprocess.run([os.path.join(harness.ROOT, "deploy/local/make-tpm.sh"), self.path("maker")] + [self.path("tpm%d" % n) for n in self.nodes], check=True, stdout=subprocess.DEVNULL)
        self.tool("ca", "broker", "--dir", self.ca, "--out", os.path.join(self.ca, "broker"), "--host", self.host)

    def address(self, n):
        return "10.20.0.%d" % (10 + n)

    def write_config(self, n):
        """Nothing: a gateway writes its own, from enroll.conf."""

    def enroll_conf(self, n, token):
        lines = ["# gateway %d" % n, "core = https://%s:%d" % (self.host, self.enroll_port), "token = " + token, "node = %d" % n, "broker = %s:%d" % (self.host, self.broker_port),
                 "host = 10.0.2.2 %s" % self.host, "address = eth1 %s/24" % self.address(n), "peer_addr = %s:9090" % self.address(n), "http_addr = 10.0.2.15:8080",
                 "peers = " + ",".join(self.address(m) + ":9090" for m in self.nodes if m != n)] + (["bootstrap = true"] if n == 1 else []) + (["attestation = true"] if HAS_TPM else [])
        return "".join(line + "\r\n" for line in lines)  # as the editors of Windows end them

    def disk(self, n):
        return os.path.join(WORK, "disk%d.img" % n)

    def user(self):
        """Who asks the gateways: their API is open to others, so it knows nobody without a certificate."""
        self.tool("ca", "user", "--dir", self.ca, "--name", "tester", "--role", "operator", "--out", self.path("tester"))
        context = ssl.create_default_context(cafile=self.ca + "/ca.crt")
        context.check_hostname = False  # a gateway is known by the URI of its certificate
        context.load_cert_chain(self.path("tester.crt"), self.path("tester.key"))

        def request(port, method, path, body=None, headers=None, timeout=15):
            if port not in self.http.values():
                return ask_plainly(port, method, path, body, headers, timeout)
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)
            try:
                connection.request(method, path, body, headers or {})
                r = connection.getresponse()
                return harness.Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
            finally:
                connection.close()
        harness.request = request

    def start(self):
        ip = lambda *words: subprocess.run(["ip"] + list(words), check=True)
        ip("link", "set", "lo", "up")
        ip("link", "add", "site", "type", "bridge")
        ip("link", "set", "site", "up")
        for n in self.nodes:
            ip("tuntap", "add", "gw%d" % n, "mode", "tap")
            ip("link", "set", "gw%d" % n, "master", "site", "up")
        self.user()
        self.start_broker()
        self.start_core()
        token = self.token("--nodes", str(len(self.nodes)))
        self.tool_update("keygen", self.path("maker-of-roots"))
        for n in self.nodes:
            subprocess.run(["cp", "--sparse=always", os.path.join(WORK, "disk.img"), self.disk(n)], check=True)
            debugfs("%s?offset=%d" % (self.disk(n), partition(self.disk(n), "data")[0]), "write %s /etc/update-sign.pub" % self.path("maker-of-roots", "update-sign.pub"))
            with open(self.path("enroll.conf"), "w") as f:
                f.write(self.enroll_conf(n, token))
            subprocess.run(["mcopy", "-i", self.disk(n) + BOOT, self.path("enroll.conf"), "::"], check=True)
        for n in self.nodes:
            self.start_node(n)
        return self

    def start_node(self, n, bootstrap=None, under=()):
        """By U-Boot, or the firmware of a PC, which finds kernel and initramfs on the disk."""
        site = ["-netdev", "tap,id=site,ifname=gw%d,script=no,downscript=no" % n, "-device", "virtio-net-%s,netdev=site,mac=52:54:00:14:00:%02x" % (BUS, 10 + n)]
        up = ["-netdev", "user,id=up,restrict=off,hostfwd=tcp:127.0.0.1:%d-:8080" % self.http[n], "-device", "virtio-net-%s,netdev=up,mac=52:54:00:0a:00:%02x" % (BUS, 10 + n)]
        # eth0 is the way up, eth1 the site; virt finds the last device first.
        self.spawn("node%d" % n, MACHINE + self.tpm(n) + [
            "-m", str(MEMORY_MIB), "-nographic", "-bios", FIRMWARE,
            "-drive", "if=none,id=disk,format=raw,cache=none,file=" + self.disk(n), "-device", "virtio-blk-%s,drive=disk" % BUS] + (up + site if BUS == "pci" else site + up))

    def tpm(self, n):
        """A TPM that is powered on with its machine, and leaves when that does."""
        if not HAS_TPM:
            return []
        wait_until("the former one to leave", lambda: not self.alive("tpm%d" % n), 30)
        way = self.path("tpm%d" % n, "ctrl")
        if os.path.exists(way):
            os.unlink(way)
        swtpm = shutil.which("swtpm", path=os.environ.get("PATH", "") + ":/usr/sbin")
        self.spawn("tpm%d" % n, [swtpm, "socket", "--tpm2", "--terminate", "--tpmstate", "dir=" + self.path("tpm%d" % n), "--ctrl", "type=unixio,path=" + way])
        wait_until("the TPM", lambda: os.path.exists(way), 30)
        return ["-chardev", "socket,id=tpm-way,path=" + way, "-tpmdev", "emulator,id=tpm,chardev=tpm-way", "-device", "tpm-tis%s,tpmdev=tpm" % ("" if BUS == "pci" else "-device")]

    def words(self, asked):
        """What the gateways are by the core's verdicts."""
        return [m["attestation"] for m in harness.request(self.http[asked], "GET", "/v1/cluster/members").json()]

    def console(self, n):
        with open(self.path("node%d.log" % n), errors="replace") as f:
            return f.read()

    def tool_update(self, *words):
        subprocess.run(harness.program("grey-update") + list(words), check=True, stdout=subprocess.DEVNULL)

    def kept(self, n):
        """The slot that gateway n keeps, by its disk, when it tries none: the newer of the two lines (deploy/image/slot)."""
        at = partition(self.disk(n), "state")[0]
        lines = []
        with open(self.disk(n), "rb") as f:
            for sector in (0, 8):
                f.seek(at + 512 * sector)
                words = f.read(512).split()
                lines += [(int(words[1]), words[2].decode(), words[3].decode())] if words[:1] == [b"grey-slot"] else []
        number, keep, tried = max(lines, default=(0, "a", "-"))  # nothing was ever chosen
        return keep if tried == "-" else None

    def memory(self, n):
        """KiB that greyd on gateway n holds when its slot is confirmed, and its share of them (PSS)."""
        found = re.findall(r"greyd holds (\d+) KiB, its share of them (\d+)", self.console(n))
        return (int(found[-1][0]), int(found[-1][1])) if found else None


def partition(disk, name):
    """Begin and size in bytes."""
    for line in subprocess.run(["/usr/sbin/sfdisk", "--dump", disk], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        if 'name="%s"' % name in line:
            fields = dict(f.strip().split("=", 1) for f in line.split(":", 1)[1].split(",") if "=" in f)
            return int(fields["start"]) * 512, int(fields["size"]) * 512
    raise ValueError(name)


def debugfs(disk, *commands):
    for command in commands:
        said = subprocess.run(["/usr/sbin/debugfs", "-w", "-R", command, disk], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        assert not [line for line in said.splitlines() if line and not re.match("debugfs [0-9]|Allocated inode", line)], (command, said)  # it exits with 0


def read_root(site, path):
    """A file of the image's root."""
    subprocess.run(["/usr/sbin/debugfs", "-R", "dump %s %s" % (path, site.path("dumped")), os.path.join(WORK, "slot.img")], check=True, stderr=subprocess.DEVNULL)
    with open(site.path("dumped"), "rb") as f:
        return f.read()


def make_root(site, name, *commands):
    """The root of the image, changed."""
    path = site.path(name)
    subprocess.run(["cp", "--sparse=always", os.path.join(WORK, "slot.img"), path], check=True)
    debugfs(path, *commands)
    return path


def give(site, version, counter, image):
    """To the core, for all sites, as docs/UPDATES.md says; its size."""
    bundle = site.path(version + ".bundle")
    site.tool_update("pack", "--sign", site.path("maker-of-roots"), "--product", BOARD, "--architecture", ARCH, "--version", version, "--counter", str(counter), "--out", bundle, "--image", image)
    with open(bundle, "rb") as f:
        put = ask_plainly(site.core_port, "PUT", "/v1/updates/root-" + BOARD, f.read(), timeout=60)
    assert put.status in (200, 201), (put.status, put.body)
    return os.path.getsize(bundle)


def rollout(site):
    return ask_plainly(site.core_port, "GET", "/v1/rollouts/root-%s?kind=update" % BOARD).json()["state"]


def update_of(site, n):
    answer = harness.request(site.http[n], "GET", "/v1/updates")
    return {u["name"]: u for u in answer.json()["updates"]}["root-" + BOARD]


def first_difference(one, other):
    """Where two files begin to differ: a block."""
    with open(one, "rb") as a, open(other, "rb") as b:
        at = 0
        while True:
            left, right = a.read(4096), b.read(4096)
            assert left and right, "they are the same"
            if left != right:
                return at, right
            at += 4096


def changing(site, at, block):
    """The gateway whose other slot begins to hold the new root."""
    for n in site.nodes:
        with open(site.disk(n), "rb") as f:
            for name in ("slot-a", "slot-b"):
                f.seek(partition(site.disk(n), name)[0] + at)
                if f.read(len(block)) == block:
                    return n
    return None


def root_updates(site):
    with open(site.path("greyd"), "wb") as f:
        f.write(read_root(site, "/usr/bin/greyd") + b"the next one")
    with open(site.path("news"), "wb") as f:
        f.write(os.urandom(400000))
    second = make_root(site, "second", "rm /usr/bin/greyd", "write %s /usr/bin/greyd" % site.path("greyd"), "sif /usr/bin/greyd mode 0100755", "write %s /usr/lib/news" % site.path("news"))
    at, block = first_difference(os.path.join(WORK, "slot.img"), second)
    labelled = ask_plainly(site.core_port, "PUT", "/v1/sites/%s/labels" % SITE, json.dumps(["ring=canary"]))
    staged = ask_plainly(site.core_port, "PUT", "/v1/rollouts/root-%s?kind=update" % BOARD, json.dumps({"stages": [{"label": "ring=canary", "soak_seconds": 1}]}))
    assert labelled.status == 204 and staged.status == 204, (labelled.body, staged.body)
    was = {n: site.kept(n) for n in site.nodes}
    begin = time.monotonic()
    size = give(site, "2", 2, second)
    first = wait_until("the second root in a slot", lambda: changing(site, at, block), PATIENCE_S)
    site.kill("node%d" % first)
    print("# the power of gateway %d goes while the root is written, %.1f s after it was given to the core" % (first, time.monotonic() - begin))
    site.start_node(first)
    wait_until("it on all gateways", lambda: update_of(site, 1)["version"] == 1 and update_of(site, 1).get("health") == "healthy", 3 * PATIENCE_S)
    print("# %.1f s: all three run it" % (time.monotonic() - begin))
    wait_until("the other slot to be kept on all", lambda: all(site.kept(n) not in (None, was[n]) for n in site.nodes), PATIENCE_S)
    site.ok(True, "a root from the core runs on all three, in the other slot, although the power went while it was written")
    site.wait_whole(PATIENCE_S)
    found = re.findall(r"nearby.* missing=(\d+).* found=(\d+)", "".join(site.console(n) for n in site.nodes))
    print("# %d bytes in its bundle; at the gateway with the link: missing, found: %s" % (size, found))


def spoiled_root(site):
    was = {n: site.kept(n) for n in site.nodes}
    with open(site.path("init"), "w") as f:
        f.write("#!/bin/sh\nexit 1\n")
    begin = time.monotonic()
    wait_until("the rollout to be done", lambda: rollout(site) == "done", PATIENCE_S)
    give(site, "3", 3, make_root(site, "third", "rm /sbin/init", "write %s /sbin/init" % site.path("init"), "sif /sbin/init mode 0100755"))
    wait_until("it to be taken back", lambda: rollout(site) == "rolled-back", 3 * PATIENCE_S)
    site.wait_whole(PATIENCE_S)
    panics = [site.console(n).count("Attempted to kill init") for n in site.nodes]
    print("# %.1f s: the core has taken back the root that does not start; kernel panics of each gateway: %s" % (time.monotonic() - begin, panics))
    site.ok(sorted(panics) == [0, 0, 3], "a root whose init ends is tried three times at one gateway, and the core takes it back")
    site.ok({n: site.kept(n) for n in site.nodes} == was, "all three run the root before")


def scenes(site):
    begin = time.monotonic()
    for n in site.nodes:
        wait_until("gateway %d to enrol" % n, lambda: "enrolled: node '%d' of site '%s'" % (n, SITE) in site.console(n), PATIENCE_S)
        print("# gateway %d is enrolled %.1f s after power-on" % (n, time.monotonic() - begin))
    for n in site.nodes:
        wait_until("an answer of gateway %d" % n, lambda: harness.request(site.http[n], "GET", "/health").status == 200, PATIENCE_S)
        print("# gateway %d answers %.1f s after power-on" % (n, time.monotonic() - begin))
    site.ok(True, "three %s gateways boot the plain image, enrol and answer /health" % BOARD)
    for n in site.nodes:
        listed = subprocess.run(["mdir", "-b", "-i", site.disk(n) + BOOT, "::"], stdout=subprocess.PIPE, text=True).stdout
        site.ok(listed and "enroll" not in listed, "gateway %d has removed its token" % n)
    site.wait_whole(PATIENCE_S)
    site.ok(True, "they are one site, %.1f s after power-on" % (time.monotonic() - begin))
    if HAS_TPM:
        wait_until("all to be trusted", lambda: site.words(2) == ["trusted"] * len(site.nodes), PATIENCE_S)
        site.ok(True, "each is attested by its TPM, %.1f s after power-on" % (time.monotonic() - begin))
    sent = harness.request(site.http[2], "POST", "/v1/events", '{"type":"t","priority":"critical","data":1}', timeout=60)
    wait_until("the event at the core", lambda: len(site.core_events()) == 1, PATIENCE_S)
    site.ok(sent.status == 201, "an event reaches the core")
    for n in site.nodes:
        wait_until("slot and memory of gateway %d" % n, lambda: "slot confirmed: keeps a" in site.console(n) and site.memory(n), PATIENCE_S)
    site.ok(True, "a slot whose agent answers is kept")
    leader = site.leader(PATIENCE_S)
    with open(os.path.join(WORK, "memory"), "w") as f:  # for docs/FOOTPRINT.md
        for n in site.nodes:
            line = "%s %d %d" % (("leader" if n == leader else "follower",) + site.memory(n))
            f.write(line + "\n")
            print("# greyd of gateway %d, idle, resident KiB and its share of them: %s" % (n, line))
    most = max(site.memory(n)[0] for n in site.nodes if n != leader)
    site.ok(most <= RESIDENT_KIB_MAX[ARCH], "an idle greyd holds %d KiB, at most %d" % (most, RESIDENT_KIB_MAX[ARCH]))

    first = site.leader(PATIENCE_S)
    site.kill("node%d" % first)
    others = [n for n in site.nodes if n != first]
    site.leader(PATIENCE_S, among=others)
    put = harness.request(site.http[others[0]], "PUT", "/v1/kv/colour", "blue", timeout=60)
    site.ok(put.status in (200, 201, 204), "the site goes on when the leader's power is cut")
    disk = site.disk(first)
    at, size = partition(disk, "slot-a")
    with open(disk, "r+b") as f:
        f.seek(at)
        f.write(os.urandom(1 << 20))
    site.start_node(first)
    site.wait_whole(PATIENCE_S)
    wait_until("the other slot", lambda: "keeps b" in site.console(first), PATIENCE_S)
    site.ok(True, "with its slot spoiled it boots the other one, with its data")
    site.wait_same_state(PATIENCE_S)
    site.ok(True, "and all three hold the same state")
    root_updates(site)
    spoiled_root(site)
    site.wait_same_state(PATIENCE_S)
    site.ok(True, "all three hold the same state at the end")
    odd = re.findall(r".*(?:: not found|applet not found|unrecognized option|invalid option|[Uu]sage:|[Ss]yntax error).*", "".join(site.console(n) for n in site.nodes))
    site.ok(not odd, "no script of the image misses a command or an option%s" % "".join(": " + line for line in odd[:3]))


harness.run_test(scenes, EmulatedSite, enroll=True)
