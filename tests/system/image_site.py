#!/usr/bin/env python3
"""If this fails, a gateway that boots our image does not come up, does not join its site, or does not survive a power cut or a spoiled slot.

Three emulated gateways (qemu-system, no KVM) boot the image of a board, join each other over a network of their own, and bring an event to a core on
this machine.  Then the power of the leader is cut, and one of its slots is spoiled.  Arguments: BOARD ARCH DEBS WORK; see `make check-image`."""
import os, shutil, subprocess, sys, time

import harness
from harness import ROOT, SITE, request, wait_until

BOARD, ARCH, DEBS, WORK = sys.argv[1:5]
MACHINE = {"arm64": ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53"], "armhf": ["qemu-system-arm", "-M", "virt", "-cpu", "cortex-a15"]}[ARCH]
PATIENCE_S = 300  # bounds a hang on a loaded machine


class EmulatedSite(harness.Site):
    def address(self, n):
        return "10.20.0.%d" % (10 + n)

    def write_config(self, n):
        """What stands on the data partition: an address in the site's network, the way to this machine, the configuration."""
        etc, identity = self.path("seed%d" % n, "etc"), self.path("seed%d" % n, "grey", "identity")
        os.makedirs(etc)
        os.makedirs(identity)
        files = {"addresses": "eth1 %s/24\n" % self.address(n), "hosts": "127.0.0.1 gateway\n10.0.2.2 localhost\n"}
        files["default"] = "GREY_CLUSTER_PEERS=%s\nGREYD_OPTIONS=--insecure-i-know\n%s" % (
            ",".join(self.address(m) + ":9090" for m in self.nodes if m != n), "GREY_RAFT_BOOTSTRAP=true\n" if n == 1 else "")
        files["greyd.yaml"] = """mode: edge
node:
  id: "%d"
site: {id: %s}
networking: {http_addr: "10.0.2.15:8080", peer_addr: "%s:9090"}
federation:
  enabled: true
  upstream:
    endpoints: ["localhost:%d"]
    tls: {ca_cert: /var/lib/grey/identity/ca.crt, client_cert: /var/lib/grey/identity/node.crt, client_key: /var/lib/grey/identity/node.key}
""" % (n, SITE, self.address(n), self.broker_port)
        for name, text in files.items():
            with open(os.path.join(etc, name), "w") as f:
                f.write(text)
        shutil.copy(os.path.join(self.ca, "ca.crt"), identity)
        for name in ("node.crt", "node.key"):
            shutil.copy(self.path("node%d" % n, name), identity)

    def start(self):
        """All disks first: a build writes the kernel anew, which the next machine loads."""
        self.start_broker()
        self.start_core()
        for n in self.nodes:
            subprocess.run([os.path.join(ROOT, "deploy/image/build.sh"), BOARD, ARCH, DEBS, WORK, self.path("seed%d" % n)], check=True, cwd=ROOT,
                           stdout=subprocess.DEVNULL)
            os.rename(os.path.join(WORK, "disk.img"), os.path.join(WORK, "disk%d.img" % n))
        for n in self.nodes:
            self.start_node(n)
        return self

    def start_node(self, n, bootstrap=None, under=()):
        disk = os.path.join(WORK, "disk%d.img" % n)
        with open(os.path.join(WORK, "extlinux.conf")) as f:
            arguments = [line.split("append ")[1].strip() for line in f if "append " in line][0]
        cards = ["user,id=up,restrict=off,hostfwd=tcp:127.0.0.1:%d-:8080" % self.http[n], "socket,id=site,mcast=230.0.0.1:%d,localaddr=127.0.0.1" % self.peer[1]]
        self.spawn("node%d" % n, MACHINE + [
            "-m", "192", "-nographic", "-no-reboot", "-kernel", os.path.join(WORK, "kernel"), "-initrd", os.path.join(WORK, "initramfs"),
            "-append", arguments, "-drive", "if=none,id=disk,format=raw,cache=none,file=" + disk, "-device", "virtio-blk-device,drive=disk",
            # The last device is the first of the bus: eth0 is the way up, eth1 the site.
            "-netdev", cards[1], "-device", "virtio-net-device,netdev=site,mac=52:54:00:14:00:%02x" % (10 + n),
            "-netdev", cards[0], "-device", "virtio-net-device,netdev=up,mac=52:54:00:0a:00:%02x" % (10 + n)])

    def console(self, n):
        with open(self.path("node%d.log" % n), errors="replace") as f:
            return f.read()


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
        wait_until("an answer of gateway %d" % n, lambda: request(site.http[n], "GET", "/health").status == 200, PATIENCE_S)
        print("# gateway %d answers %.1f s after the last was switched on" % (n, time.monotonic() - begin))
    site.ok(True, "three %s gateways boot and answer /health" % BOARD)
    site.wait_whole(PATIENCE_S)
    site.ok(True, "they are one site, %.1f s after power-on" % (time.monotonic() - begin))
    sent = request(site.http[2], "POST", "/v1/events", '{"type":"t","priority":"critical","data":1}', timeout=60)
    wait_until("the event at the core", lambda: len(site.core_events()) == 1, PATIENCE_S)
    site.ok(sent.status == 201, "an event reaches the core")
    wait_until("the slot is confirmed", lambda: "slot confirmed: keeps a" in site.console(1), PATIENCE_S)
    site.ok(True, "a slot whose agent answers is kept")

    first = site.leader(PATIENCE_S)
    site.kill("node%d" % first)
    others = [n for n in site.nodes if n != first]
    site.leader(PATIENCE_S, among=others)
    put = request(site.http[others[0]], "PUT", "/v1/kv/colour", "blue", timeout=60)
    site.ok(put.status in (200, 201, 204), "the site goes on when the leader's power is cut")
    disk = os.path.join(WORK, "disk%d.img" % first)
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


harness.run_test(scenes, EmulatedSite, tls=False)
