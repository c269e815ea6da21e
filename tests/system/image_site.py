#!/usr/bin/env python3
"""If this fails, a gateway that boots our image does not come up, does not join its site, or does not survive a power cut or a spoiled slot.

Three emulated gateways (qemu-system, no KVM) boot the same plain image of a board, each with an enroll.conf on its boot partition as an engineer
lays it there; they enrol at a core on this machine, join each other over a bridge, and bring an event to the core.  Then the power of the leader is
cut, and one of its slots is spoiled.  Where the kernel of the board knows the emulated TPM, each gateway has one (swtpm) and is attested by it.  As root.  Arguments: BOARD ARCH IMAGE, a folder of build/image/; see `make check-image`."""
import http.client, os, re, shutil, ssl, subprocess, sys, time

if not os.environ.get("GREY_IMAGE_NET"):  # a network of its own, where no bridge of this machine is in the way
    os.execvpe("unshare", ["unshare", "--net", sys.executable] + sys.argv, dict(os.environ, GREY_IMAGE_NET="1"))

import harness
from harness import SITE, wait_until

BOARD, ARCH, WORK = sys.argv[1:4]
MACHINE = {"arm64": ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53"], "armhf": ["qemu-system-arm", "-M", "virt", "-cpu", "cortex-a15"]}[ARCH]
MEMORY_MIB = 192
BOOT = "@@1M"  # where the boot partition begins, for mtools
RESIDENT_KIB_MAX = {"arm64": 9216, "armhf": 7168}  # of a follower: the leader opens libmosquitto and its OpenSSL beside
HAS_TPM = ARCH == "arm64"  # Debian's kernel for armhf is built without tpm_tis
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
        for n in self.nodes:
            subprocess.run(["cp", "--sparse=always", os.path.join(WORK, "disk.img"), self.disk(n)], check=True)
            with open(self.path("enroll.conf"), "w") as f:
                f.write(self.enroll_conf(n, token))
            subprocess.run(["mcopy", "-i", self.disk(n) + BOOT, self.path("enroll.conf"), "::"], check=True)
        for n in self.nodes:
            self.start_node(n)
        return self

    def start_node(self, n, bootstrap=None, under=()):
        """By U-Boot, which finds kernel and initramfs on the disk."""
        cards = ["user,id=up,restrict=off,hostfwd=tcp:127.0.0.1:%d-:8080" % self.http[n], "tap,id=site,ifname=gw%d,script=no,downscript=no" % n]
        self.spawn("node%d" % n, MACHINE + self.tpm(n) + [
            "-m", str(MEMORY_MIB), "-nographic", "-no-reboot", "-bios", os.path.join(WORK, "u-boot.bin"),
            "-drive", "if=none,id=disk,format=raw,cache=none,file=" + self.disk(n), "-device", "virtio-blk-device,drive=disk",
            # The last device is the first of the bus: eth0 is the way up, eth1 the site.
            "-netdev", cards[1], "-device", "virtio-net-device,netdev=site,mac=52:54:00:14:00:%02x" % (10 + n),
            "-netdev", cards[0], "-device", "virtio-net-device,netdev=up,mac=52:54:00:0a:00:%02x" % (10 + n)])

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
        return ["-chardev", "socket,id=tpm-way,path=" + way, "-tpmdev", "emulator,id=tpm,chardev=tpm-way", "-device", "tpm-tis-device,tpmdev=tpm"]

    def words(self, asked):
        """What the gateways are by the core's verdicts."""
        return [m["attestation"] for m in harness.request(self.http[asked], "GET", "/v1/cluster/members").json()]

    def console(self, n):
        with open(self.path("node%d.log" % n), errors="replace") as f:
            return f.read()

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


def scenes(site):
    begin = time.monotonic()
    for n in site.nodes:
        wait_until("gateway %d to enrol" % n, lambda: "enrolled: node '%d' of site '%s'" % (n, SITE) in site.console(n), PATIENCE_S)
        print("# gateway %d is enrolled %.1f s after power-on" % (n, time.monotonic() - begin))
    for n in site.nodes:
        wait_until("an answer of gateway %d" % n, lambda: harness.request(site.http[n], "GET", "/health").status == 200, PATIENCE_S)
        print("# gateway %d answers %.1f s after power-on" % (n, time.monotonic() - begin))
    site.ok(True, "three %s gateways boot the plain image by U-Boot, enrol and answer /health" % BOARD)
    for n in site.nodes:
        listed = subprocess.run(["mdir", "-b", "-i", site.disk(n) + BOOT, "::"], stdout=subprocess.PIPE, text=True).stdout
        site.ok("kernel" in listed and "enroll" not in listed, "gateway %d has removed its token" % n)
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


harness.run_test(scenes, EmulatedSite, enroll=True)
