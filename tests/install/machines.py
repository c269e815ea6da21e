"""machines.py: emulated machines with a Debian each, on a network of their own, and a shell in each as root.

A machine is a copy of build/install/debian.img (base.sh) in qemu-system, one card on a bridge of this process's network namespace, and ssh over it: nothing that a
machine in the field has not.  Power is cut by killing qemu."""
import atexit, os, shlex, shutil, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "system"))
import harness
from harness import wait_until

BASE = os.path.join(harness.ROOT, "build", "install")
BRIDGE = "site"
HOST = "10.20.0.1"
PATIENCE_S = 600  # bounds a hang on a loaded machine; never what is measured


class Refused(AssertionError):
    """A command that ended with an exit status that nobody expected."""


def network_of_its_own():
    """Starts this program again in one: no bridge of this machine is in the way, and all of it goes when the program ends."""
    if not os.environ.get("GREY_INSTALL_NET"):
        os.execvpe("unshare", ["unshare", "--net", sys.executable] + sys.argv, dict(os.environ, GREY_INSTALL_NET="1"))


def ip(*words):
    subprocess.run(["ip"] + list(words), check=True)


class Field(harness.Site):
    """The machines, and how tests tell of them (ok, spawn, kill, cleanup: as of a site of processes)."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="grey-install-")
        self.processes, self.results, self.failed, self.finished, self.store, self.machines = {}, [], False, False, None, {}
        atexit.register(self.cleanup)

    def start(self):
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("address", "add", HOST + "/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        return self

    def cleanup(self):
        """The disks go in any case: what is wanted of a failed run is what was typed (*.typed), and what the consoles showed."""
        folder = self.dir
        if folder is None:
            return
        for machine in self.machines.values():
            machine.hang_up()
        super().cleanup()
        for machine in self.machines.values():
            if os.path.exists(machine.disk):
                os.unlink(machine.disk)

    def note(self, text):
        print("# " + text, flush=True)


def together(machines, errand):
    """errand(machine) on all of them at once; what came of each."""
    came, went_wrong = {}, []

    def one(machine):
        try:
            came[machine.name] = errand(machine)
        except Exception as e:
            went_wrong.append(e)
    threads = [threading.Thread(target=one, args=(m,)) for m in machines]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if went_wrong:
        raise went_wrong[0]
    return came


class Machine:
    """name, number: it is 10.20.0.NUMBER and knows the others by `hosts`, lines of /etc/hosts.  tpm: it has a software TPM."""

    def __init__(self, field, name, number, hosts, memory_mib=256, tpm=False):
        self.field, self.name, self.number, self.memory_mib, self.tpm = field, name, number, memory_mib, tpm
        self.address, self.disk, self.tap = "10.20.0.%d" % number, field.path(name + ".img"), "tap%d" % number
        wired = name in field.machines  # another takes its place, at its port of the bridge
        field.machines[name] = self
        self.powered_s = 0.0
        subprocess.run(["cp", "--sparse=always", os.path.join(BASE, "debian.img"), self.disk], check=True)
        self.write("/etc/hostname", name + "\n")
        self.write("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 %s\n%s" % (name, hosts))
        self.write("/etc/network/interfaces.d/site", "auto eth0\niface eth0 inet static\n  address %s/24\n" % self.address)
        with open(os.path.join(BASE, "key.pub")) as f:
            self.write("/root/.ssh/authorized_keys", f.read(), "mkdir /root/.ssh")
        if not wired:
            ip("tuntap", "add", self.tap, "mode", "tap")
            ip("link", "set", self.tap, "master", BRIDGE, "up")

    def write(self, path, text, before=""):
        """Into its disk, while it is off."""
        source = self.field.path("file")
        with open(source, "w") as f:
            f.write(text)
        orders = "%s\nrm %s\nwrite %s %s\nset_inode_field %s mode 0100644\nset_inode_field %s uid 0\nset_inode_field %s gid 0\n" % (before, path, source, path, path, path, path)
        subprocess.run(["/usr/sbin/debugfs", "-w", "-f", "-", self.disk], input=orders, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, check=True)

    def power_on(self):
        self.powered_s = time.monotonic()
        self.field.spawn(self.name, [
            "qemu-system-x86_64", "-M", "q35", "-accel", os.environ.get("VM_ACCEL", "tcg"), "-cpu", "max", "-smp", "1", "-m", str(self.memory_mib), "-nodefaults", "-nographic", "-serial", "stdio",
            "-kernel", os.path.join(BASE, "kernel"), "-initrd", os.path.join(BASE, "initrd"),
            # no_timer_check: on a loaded machine the kernel finds the emulated timer too slow, and stops.
            "-append", "console=ttyS0 quiet no_timer_check net.ifnames=0 panic=5",
            "-drive", "if=virtio,format=raw,cache=unsafe,file=" + self.disk, "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
            "-netdev", "tap,id=site,ifname=%s,script=no,downscript=no" % self.tap, "-device", "virtio-net-pci,romfile=,netdev=site,mac=52:54:00:14:00:%02x" % self.number] + self.chip())
        return self

    def chip(self):
        """A TPM that is powered on with its machine, and leaves when that does."""
        if not self.tpm:
            return []
        way, name = self.field.path(self.name + ".tpm"), self.name + "-tpm"
        wait_until("the former one to leave", lambda: not self.field.alive(name), 30)
        os.makedirs(way, exist_ok=True)
        if os.path.exists(way + "/ctrl"):
            os.unlink(way + "/ctrl")
        swtpm = shutil.which("swtpm", path=os.environ.get("PATH", "") + ":/usr/sbin")
        self.field.spawn(name, [swtpm, "socket", "--tpm2", "--terminate", "--tpmstate", "dir=" + way, "--ctrl", "type=unixio,path=" + way + "/ctrl"])
        wait_until("the TPM", lambda: os.path.exists(way + "/ctrl"), 30)
        return ["-chardev", "socket,id=way,path=" + way + "/ctrl", "-tpmdev", "emulator,id=tpm,chardev=way", "-device", "tpm-tis,tpmdev=tpm"]

    def power_off(self):
        """The plug is pulled."""
        self.hang_up()
        self.field.kill(self.name)

    def hang_up(self):
        subprocess.run(self.ssh("-O", "exit"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # --- its shell ------------------------------------------------------------------------------------------------------------------------
    def ssh(self, *words):
        return ["ssh", "-F", "none", "-i", os.path.join(BASE, "key"), "-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-o", "ControlPath=" + self.field.path(self.name + ".ssh"),
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60",
                "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=6", *words, "root@" + self.address]

    def ask(self, script, timeout=PATIENCE_S):
        """What a login shell of root makes of it: exit status, and all that was said."""
        try:
            done = subprocess.run(self.ssh() + ["bash -lc " + shlex.quote(script)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout)
        except subprocess.TimeoutExpired:
            self.hang_up()
            return 255, "no answer within %d s" % timeout
        with open(self.field.path(self.name + ".typed"), "a") as f:
            f.write("# %s\n%s\n%s[%d]\n" % (self.name, script, done.stdout, done.returncode))
        return done.returncode, done.stdout

    def do(self, *commands, timeout=PATIENCE_S):
        """Each as it is typed; the first that fails ends it.  What the last one said."""
        said = ""
        for command in commands:
            status, said = self.ask(command, timeout)
            if status != 0:
                raise Refused("%s: '%s' ended with %d: %s" % (self.name, command.strip(), status, said.strip()[-2000:]))
        return said

    def put(self, path, data):
        """A file, as scp brings it."""
        subprocess.run(self.ssh() + ["cat >'%s'" % path], input=data if isinstance(data, bytes) else data.encode(), check=True, timeout=PATIENCE_S)

    def wait(self, what, script, holds=lambda said: True, seconds=PATIENCE_S):
        """Until the script ends well and says what is wanted; what it said."""
        last = [(None, "")]

        def asked():
            last[0] = self.ask(script, 120)
            return (last[0][1] or " ") if last[0][0] == 0 and holds(last[0][1]) else None
        try:
            return wait_until(what, asked, seconds)
        except AssertionError as e:
            raise AssertionError("%s: %s; last: [%s] %s" % (self.name, e, last[0][0], last[0][1].strip()[-1500:]))

    def wait_up(self):
        """Seconds from power-on to a shell."""
        self.wait("a shell", "true")
        return time.monotonic() - self.powered_s

    def since_power_on(self):
        return time.monotonic() - self.powered_s

    def boot_id(self):
        return self.do("cat /proc/sys/kernel/random/boot_id").strip()

    def reboot(self):
        """By its own command, and until it has come up again."""
        before = self.boot_id()
        self.powered_s = time.monotonic()
        self.ask("systemctl reboot", 30)
        self.hang_up()
        self.wait("it to come back", "cat /proc/sys/kernel/random/boot_id", lambda said: said.strip() != before)
