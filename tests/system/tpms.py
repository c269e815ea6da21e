"""tpms.py: a site whose gateways have a software TPM each, are measured when they start, and are judged by the core."""
from harness import *

PERIOD = 5  # seconds


class TpmSite(Site):
    """learn: the core takes what gateways show, until it is given a policy."""

    def __init__(self, **options):
        self.doors = {}
        super().__init__(**options)
        self.core_extra = ["--attest", "learn", "--attest-roots", self.path("maker", "roots.pem")]
        done = subprocess.run([os.path.join(ROOT, "deploy/local/make-tpm.sh"), self.path("maker")] + [self.path("tpm%d" % n) for n in self.nodes],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        for n in self.nodes:
            self.power_on(n)

    def write_config(self, n):
        super().write_config(n)
        with open(self.path("node%d" % n, "greyd.yaml"), "a") as f:
            f.write("attestation: {enabled: true, socket: \"%s\", period_secs: %d}\n" % (self.path("door%d" % n), PERIOD))

    def way(self, n):
        return "swtpm:path=" + self.path("tpm%d" % n, "s")

    def power_on(self, n):
        """The machine: its TPM, and beside it what talks to it."""
        swtpm = shutil.which("swtpm", path=os.environ.get("PATH", "") + ":/usr/sbin")
        socket_path = self.path("tpm%d" % n, "s")
        self.spawn("tpm%d" % n, [swtpm, "socket", "--tpm2", "--tpmstate", "dir=" + self.path("tpm%d" % n), "--server", "type=unixio,path=" + socket_path,
                                 "--ctrl", "type=unixio,path=%s.ctrl" % socket_path, "--flags", "not-need-init,startup-clear"])
        wait_until("the TPM", lambda: os.path.exists(socket_path), 30)
        self.open_door(n)

    def open_door(self, n):
        if os.path.exists(self.path("door%d" % n)):
            os.unlink(self.path("door%d" % n))
        self.spawn("door%d" % n, program("grey-tpm") + self.tpm_flags(n) + ["--socket", self.path("door%d" % n), "serve"])
        wait_until("its door", lambda: os.path.exists(self.path("door%d" % n)), 30)

    def tpm_flags(self, n):
        return ["--tpm", self.way(n), "--boot-log", self.path("none"), "--start-log", self.path("starts%d" % n)]

    def start_node(self, n, bootstrap=None, under=(), other=None):
        """other: the program that somebody put in the place of greyd."""
        measure = program("grey-tpm") + self.tpm_flags(n) + ["--program", other or program("greyd")[-1], "--measured-config", self.path("node%d" % n, "greyd.yaml"), "measure", "--"]
        instead = ["/bin/sh", "-c", "shift; exec '%s' \"$@\"" % other, "sh"] if other else []
        super().start_node(n, bootstrap, measure + list(under) + instead)

    def power_off(self, n):
        for name in ("node%d" % n, "door%d" % n, "tpm%d" % n):
            if self.alive(name):
                self.kill(name, signal.SIGTERM)
        for name in ("s", "s.ctrl"):
            if os.path.exists(self.path("tpm%d" % n, name)):
                os.unlink(self.path("tpm%d" % n, name))
        if os.path.exists(self.path("door%d" % n)):
            os.unlink(self.path("door%d" % n))

    def extend(self, n, register):
        """Somebody runs what does not belong there."""
        for _ in range(20):  # the TPM takes one caller at a time
            done = subprocess.run(["tpm2_pcrextend", "-T", self.way(n), "%d:sha256=%064x" % (register, 0xbad)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode == 0:
                return
            time.sleep(0.2)
        raise AssertionError(done.stdout)

    def learn(self, learn):
        """The policy takes what gateways show, or only what was learnt."""
        return request(self.core_port, "POST", "/v1/attestations/policy", json.dumps({"learn": learn}), {"Content-Type": "application/json"})

    def members(self, asked):
        return {int(m["id"]): m for m in request(self.http[asked], "GET", "/v1/cluster/members", timeout=5).json()}

    def words(self, asked):
        return {n: m["attestation"] for n, m in self.members(asked).items()}

    def wait_words(self, wanted, seconds=90):
        """All gateways that run say so of each."""
        asked = [n for n in self.nodes if self.alive("node%d" % n)]
        wait_until("attestation %s" % wanted, lambda: all(self.words(n) == wanted for n in asked), seconds)
