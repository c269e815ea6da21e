"""harness.py: a site of real processes for the end-to-end tests: gateways, broker, core, and a ledger of what they promised.

Each test file makes a Site, does things to it, and ends with finish(), which prints TAP and stops everything.  Times are generous: they
bound a hang, they are never what is tested.  The logs of a failed run are kept and named."""
import atexit, base64, fcntl, hashlib, http.client, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, threading, time

from relay import Link, Relay, end

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("BUILD") or os.path.join(ROOT, "build", "amd64")
EMULATOR = os.environ.get("EMULATOR", "").split()  # what runs programs that were built for another machine
SITE = "test-site"


def program(name):
    """How one of ours is started."""
    return EMULATOR + [os.path.join(BUILD, name)]


def free_ports(count):
    """Ports below those that the kernel gives to whoever dials, each locked for as long as this process lives: tests run side by side."""
    ports = []
    for port in random.SystemRandom().sample(range(11000, 32000), 4000):
        lock = open(os.path.join(tempfile.gettempdir(), "grey-port-%d" % port), "a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        locks.append(lock)
        ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError("no %d free ports" % count)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so to what is registered for the end: no process may stay
locks = []  # of ports; a file each, unlinked at the end


@atexit.register
def unlock():
    for lock in locks:
        os.unlink(lock.name)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def request(port, method, path, body=None, headers=None, timeout=15):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
    finally:
        c.close()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=15)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(15)
        self.sock.connect(self.path)


def talk(connection, method, path, body=None, token=None):
    headers = {"Authorization": "Bearer " + token} if token else {}
    try:
        connection.request(method, path, body, headers)
        r = connection.getresponse()
        return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
    finally:
        connection.close()


def wait_until(what, condition, seconds=60):
    """Until the condition holds; an answer that is not there yet, or lacks what is asked for, is asked for again."""
    deadline = time.monotonic() + seconds
    while True:
        why = ""
        try:
            value = condition()
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError, subprocess.TimeoutExpired) as e:
            value, why = None, " (%s: %s)" % (type(e).__name__, e)
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("waited %d s for: %s%s" % (seconds, what, why))
        time.sleep(0.1)


class Site:
    """links: every gateway is reached through a proxy of its own, which can be cut for a partition.  line: makes what the gateways reach the
    broker through, from the broker's port.  upstream: more lines of federation.upstream."""

    tool_under = ()  # what the CA's commands run under, for example faketime

    def __init__(self, nodes=3, core=True, tls=True, links=False, extra="", cores=1, postgres=False, enroll=False, line=None, upstream=""):
        self.dir = tempfile.mkdtemp(prefix="grey-test-")
        self.nodes, self.with_core, self.tls, self.extra = list(range(1, nodes + 1)), core, tls, extra
        ports = free_ports(2 * nodes + 2 + cores)
        self.http = {n: ports[2 * n - 2] for n in self.nodes}
        self.peer = {n: ports[2 * n - 1] for n in self.nodes}
        self.broker_port, self.enroll_port, self.core_ports = ports[2 * nodes], ports[2 * nodes + 1], ports[2 * nodes + 2:]
        self.enroll, self.core_extra, self.core_under = enroll, [], []  # enroll: gateways come in by token, as in the field
        self.core_port = self.core_ports[0]  # who is asked
        self.postgres, self.store = postgres, None
        self.line, self.upstream = line(self.broker_port) if line else None, upstream
        self.links = {n: Link(self.peer[n]) for n in self.nodes} if links else {}
        self.processes, self.results, self.failed, self.finished = {}, [], False, False
        atexit.register(self.cleanup)
        self.ca = os.path.join(self.dir, "ca")
        self.tool("ca", "init", "--dir", self.ca)
        for kind in ("broker", "core"):
            self.tool("ca", kind, "--dir", self.ca, "--out", os.path.join(self.ca, kind))
        for n in self.nodes:
            os.makedirs(self.path("node%d" % n))
            if not enroll:
                self.identity(self.ca, SITE, n, self.path("node%d" % n, "node"))
            self.write_config(n)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def identity(self, ca, site, node, prefix):
        """A key made as a gateway makes it, and its certificate, signed by hand at the CA: PREFIX.key and PREFIX.crt."""
        folder = prefix + ".d"
        subprocess.run(program("greyd") + ["enroll", "--request", "--site", site, "--node", str(node), "--dir", folder], check=True, stdout=subprocess.DEVNULL)
        self.tool("ca", "sign", "--dir", ca, "--csr", folder + "/node.csr", "--site", site, "--node", str(node), "--out", prefix + ".crt")
        os.replace(folder + "/node.key", prefix + ".key")

    def token(self, *words, site=SITE):
        answer = wait_until("the core to give a token", lambda: [a for a in [self.ctl("enroll", "token", "--site", site, *words)] if a.returncode == 0], 30)
        return answer[0].stdout.strip()

    def enrol(self, n, token, folder=None, *words):
        command = program("greyd") + ["enroll", "--core", "https://localhost:%d" % self.enroll_port, "--token", token, "--node", str(n), "--config", "", "--dir",
                   folder or self.path("node%d" % n)] + list(words)
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)

    def tool(self, *words):
        subprocess.run(list(self.tool_under) + program("grey-core") + list(words), check=True)

    def ctl(self, *words, node=1, stdin=None):
        command = program("greyctl") + ["--addr", "http://127.0.0.1:%d" % self.http[node], "--core",
                   "http://127.0.0.1:%d" % self.core_port] + list(words)
        return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)

    def endpoints(self):
        """The ports at which the gateways look for the broker, in their order."""
        return [self.line.port if self.line else self.broker_port]

    def write_config(self, n):
        ca = self.path("node%d" % n) if self.enroll else self.ca
        tls = """
  tls: {enabled: true, ca_cert: "%s/ca.crt", cert: "%s.crt", key: "%s.key"}""" % (ca, self.path("node%d" % n, "node"), self.path("node%d" % n, "node"))
        with open(self.path("node%d" % n, "greyd.yaml"), "w") as f:
            f.write("mode: %s\nnode: {id: \"%d\"}\nsite: {id: %s}\n" % ("edge" if self.with_core else "site", n, SITE))
            f.write("networking: {http_addr: \"127.0.0.1:%d\", peer_addr: \"127.0.0.1:%d\", peer_advertise: \"127.0.0.1:%d\", socket: \"%s\"}\n"
                    % (self.http[n], self.peer[n], self.links[n].port if self.links else self.peer[n], self.path("node%d" % n, "greyd.sock")))
            f.write("storage: {data_dir: \"%s\"}\n" % self.path("node%d" % n, "data"))
            f.write("security:%s\n" % (tls if self.tls else " {tls: {enabled: false}}"))
            if self.with_core:
                f.write("federation:\n  enabled: true\n  upstream:\n    endpoints: [%s]\n    core_key: \"%s/core-sign.pub\"\n    tls: {ca_cert: \"%s/ca.crt\", client_cert: \"%s.crt\", client_key: \"%s.key\"}\n"
                        % (", ".join('"localhost:%d"' % port for port in self.endpoints()), ca, ca, self.path("node%d" % n, "node"), self.path("node%d" % n, "node")))
                f.write("".join("    %s\n" % line for line in self.upstream.splitlines()))
            f.write(self.extra)

    # --- processes ------------------------------------------------------------------------------------------------------------------
    def spawn(self, name, command):
        log = open(self.path(name + ".log"), "ab")
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        log.close()

    def start_broker(self):
        with open(os.path.join(ROOT, "deploy/local/mosquitto.conf.in")) as f:
            text = f.read()
        user = subprocess.run(["id", "-un"], stdout=subprocess.PIPE, text=True).stdout.strip()
        for key, value in (("PORT", str(self.broker_port)), ("CA", self.ca), ("RUN", self.dir), ("USER", user)):
            text = text.replace("@%s@" % key, value)
        with open(self.path("mosquitto.conf"), "w") as f:
            f.write(text)
        shutil.copy(os.path.join(ROOT, "deploy/local/broker.acl"), self.path("broker.acl"))
        os.chmod(self.path("broker.acl"), 0o600)
        binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        assert binary, "mosquitto is not installed"
        self.spawn("broker", [binary, "-c", self.path("mosquitto.conf")])

    def database(self, action):
        """A PostgreSQL server for the cores: start, crash, resume, stop."""
        return subprocess.run([os.path.join(ROOT, "tests/script/postgres.sh"), action, self.dir], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def start_core(self, number=1):
        name = "core" if number == 1 else "core%d" % number
        if self.postgres and self.store is None:
            self.store = self.database("start")
        self.spawn(name, self.core_under + program("grey-core") + ["--data-dir", self.path(name), "--http-addr", "127.0.0.1:%d" % self.core_ports[number - 1],
                          "--broker", "mqtts://localhost:%d" % self.broker_port, "--tls-ca", self.ca + "/ca.crt", "--tls-cert",
                          self.ca + "/core.crt", "--tls-key", self.ca + "/core.key", "--sign-dir", self.ca] + (["--store", self.store] if self.store else [])
                   + (["--ca-dir", self.ca, "--enroll-addr", "127.0.0.1:%d" % self.enroll_port, "--broker-pid", self.path("mosquitto.pid")] if self.enroll and number == 1 else [])
                   + self.core_extra)

    def start_node(self, n, bootstrap=None, under=()):
        seeds = ",".join("127.0.0.1:%d" % (self.links[m].port if self.links else self.peer[m]) for m in self.nodes if m != n)
        command = list(under) + program("greyd") + ["--config", self.path("node%d" % n, "greyd.yaml")]
        command += ["--join", seeds] if seeds else []
        if bootstrap if bootstrap is not None else n == 1:
            command.append("--bootstrap")
        self.spawn("node%d" % n, command)

    def start(self):
        if self.with_core:
            self.start_broker()
            for number in range(1, len(self.core_ports) + 1):
                self.start_core(number)
        if self.enroll:
            token = self.token("--nodes", str(len(self.nodes)))
            for n in self.nodes:
                done = self.enrol(n, token)
                assert done.returncode == 0, done.stderr
        for n in self.nodes:
            self.start_node(n)
        self.wait_whole()
        return self

    def kill(self, name, how=signal.SIGKILL):
        p = self.processes[name]
        p.send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            p.wait(30)

    def alive(self, name):
        return name in self.processes and self.processes[name].poll() is None

    def restart(self, name):
        if self.alive(name):
            self.kill(name)
        if name.startswith("core"):
            self.start_core(int(name[4:] or 1))
        else:
            {"broker": self.start_broker}.get(name, lambda: self.start_node(int(name[4:])))()

    def revive(self):
        """Starts gateways that ended by themselves, as a supervisor would; which."""
        gone = [n for n in self.nodes if not self.alive("node%d" % n)]
        for n in gone:
            self.restart("node%d" % n)
        return gone

    def isolate(self, n):
        """Cuts gateway n off from the others, both ways; it and its API go on."""
        self.links[n].cut()
        for m in self.nodes:
            if m != n:
                self.links[m].cut(self.processes["node%d" % n].pid)

    def hold(self, n, sends):
        """What gateway n sends to the others (or, sends=False, what they send to it) is held back; the connections stay."""
        self.links[n].hold("out" if sends else "in")
        for m in self.nodes:
            if m != n:
                self.links[m].hold("in" if sends else "out", self.processes["node%d" % n].pid)

    def heal(self):
        for link in self.links.values():
            link.mend()

    # --- questions ------------------------------------------------------------------------------------------------------------------
    def status(self, n):
        return request(self.http[n], "GET", "/v1/cluster/status", timeout=5).json()

    def leader(self, seconds=60, among=None):
        """The node that says it leads, and that a majority hears it."""
        def one():
            for n in among or self.nodes:
                if self.alive("node%d" % n):
                    try:
                        s = self.status(n)
                    except (OSError, http.client.HTTPException, ValueError):
                        continue
                    if s["role"] == "leader" and s["quorum"]:
                        return n
            return None
        return wait_until("a leader", one, seconds)

    def wait_voters(self, seconds=90):
        def whole():
            leader = self.leader(seconds)
            s = self.status(leader)
            led = all(self.status(n)["leader_id"] == s["leader_id"] != "" for n in self.nodes)  # each knows it: one that came back hears of it by a heartbeat
            return led and len([m for m in s["members"] if m["kind"] == "voter" and m["state"] == "healthy"]) == len(self.nodes) == len(s["members"])
        wait_until("%d healthy voters" % len(self.nodes), whole, seconds)

    def wait_whole(self, seconds=90):
        self.wait_voters(seconds)
        if self.with_core:
            wait_until("the core to know the site", lambda: any(s["id"] == SITE for s in request(self.core_port, "GET", "/v1/sites").json()), seconds)

    def link(self, n=1):
        """The link to the core as gateway n tells it."""
        return request(self.http[n], "GET", "/v1/federation/status").json()["link"]

    def try_link(self):
        """The broker is back: the gateway that leads tries at once, and not when its turn comes."""
        wait_until("the broker to listen", lambda: socket.create_connection(("127.0.0.1", self.broker_port), 1).close() is None, 30)
        wait_until("greyctl link try", lambda: self.ctl("link", "try", node=self.leader()).returncode == 0, 30)

    def queue(self, n):
        return request(self.http[n], "GET", "/v1/queue").json()["channels"]

    def wait_drained(self, seconds=120):
        wait_until("an empty queue", lambda: all(c["pending"] == 0 for c in self.queue(self.leader()).values()), seconds)

    def wait_same_state(self, seconds=60):
        """All gateways have applied the same entries, up to now at least, and hold the same state, bit for bit."""
        def applied():
            """By the leader, which answers when it has applied all that was promised before."""
            leader = self.leader(seconds)
            return request(self.http[leader], "GET", "/v1/kv/none").status < 500 and request(self.http[leader], "GET", "/v1/raft/status").json()["applied_index"]
        least = wait_until("the leader to answer", applied, seconds)

        def same():
            states = [request(self.http[n], "GET", "/v1/raft/status").json() for n in self.nodes]
            return len({(s["applied_index"], s["state_hash"]) for s in states}) == 1 and states[0]["applied_index"] >= least
        wait_until("equal state hashes", same, seconds)

    def core_events(self):
        events, cursor = [], ""
        while True:
            page = request(self.core_port, "GET", "/v1/sites/%s/events?limit=1000&after=%s" % (SITE, cursor)).json()
            events += page["events"]
            if not page["events"]:
                return events
            cursor = page["next"]

    # --- results --------------------------------------------------------------------------------------------------------------------
    def ok(self, condition, text):
        self.results.append(bool(condition))
        print("%sok %d - %s" % ("" if condition else "not ", len(self.results), text), flush=True)
        self.failed = self.failed or not condition
        return condition

    def finish(self):
        self.finished = True
        self.cleanup()
        sys.exit(1 if self.failed else 0)

    def cleanup(self):
        if self.dir is None:
            return
        for name, p in self.processes.items():
            if p.poll() is None:
                p.send_signal(signal.SIGCONT)
                if name.startswith("launch"):  # it takes its control groups with it
                    p.terminate()
                    try:
                        p.wait(10)
                    except subprocess.TimeoutExpired:
                        pass
                p.kill()
                p.wait()
        if self.store is not None:
            self.database("crash")
        if self.failed or not self.finished:
            print("# logs of this run are kept in %s" % self.dir)
            for name in sorted(self.processes):
                try:
                    with open(self.path(name + ".log"), errors="replace") as f:
                        for line in f.readlines()[-8:]:
                            print("# %s: %s" % (name, line.rstrip()))
                except OSError:
                    pass
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        self.dir = None


class Ledger:
    """Clients that send events with ids of their own to all gateways, and repeat with the same id until an answer says they are kept."""

    def __init__(self, site, count, threads=6, batch=10, pause=0.0):
        self.site, self.count, self.batch, self.pause = site, count, batch, pause
        self.lock, self.next, self.kept, self.errors = threading.Lock(), 0, {}, []
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(threads)]
        self.name = "ledger-%08x" % random.getrandbits(32)

    def start(self):
        for t in self.threads:
            t.start()
        return self

    def done(self):
        return len(self.kept)

    def run(self, worker):
        random_source = random.Random(worker)
        nodes = list(self.site.nodes)
        while True:
            with self.lock:
                first, self.next = self.next, self.next + self.batch
            if first >= self.count:
                return
            numbers = range(first, min(first + self.batch, self.count))
            events = [{"id": "e%d" % i, "source": self.name, "type": "test.count", "priority": ("critical", "high", "normal", "low")[i % 4],
                       "data": {"number": i, "text": "x" * (i % 50)}} for i in numbers]
            deadline = time.monotonic() + 180
            while True:
                node = random_source.choice(nodes)
                try:
                    a = request(self.site.http[node], "POST", "/v1/events", json.dumps(events), {"Content-Type": "application/json"}, 20)
                    if a.status in (200, 201):
                        with self.lock:
                            for e, k in zip(events, a.json()["accepted"]):
                                self.kept[e["id"]] = (k["channel"], k["seq"])
                        break
                    if a.status not in (503, 504, 429):
                        self.errors.append("%d %s" % (a.status, a.body[:200]))
                        return
                except (OSError, http.client.HTTPException):
                    pass
                if time.monotonic() > deadline:
                    self.errors.append("events %d.. were not taken within 180 s" % first)
                    return
                time.sleep(0.05)
            if self.pause:
                time.sleep(self.pause)

    def join(self, seconds=240):
        for t in self.threads:
            t.join(seconds)

    def judge(self):
        """Every promise is at the core once, under the number that was promised; no number is missing or there twice."""
        site = self.site
        site.ok(not self.errors and len(self.kept) == self.count, "all %d events were taken by the site%s" % (self.count, " " + str(self.errors[:3]) if self.errors else ""))
        site.wait_drained()
        events = site.core_events()
        mine = [e for e in events if e["source"] == self.name]
        numbers = {}
        for e in events:
            numbers.setdefault(e["channel"], []).append(e["seq"])
        site.ok(len(mine) == len({e["id"] for e in mine}) == self.count, "each event is at the core exactly once (%d of %d)" % (len(mine), self.count))
        site.ok(all(s == list(range(1, len(s) + 1)) for s in numbers.values()), "sequence numbers of every channel are without hole and repeat")
        site.ok({e["id"]: (e["channel"], e["seq"]) for e in mine} == self.kept, "each under the number that its sender was told")
        site.ok(all(e["data"]["number"] == int(e["id"][1:]) for e in mine), "each with its own data")


def run_test(function, site_class=Site, **options):
    """Builds a site, runs function(site), prints TAP, stops everything; an exception is one failed test."""
    site = site_class(**options)
    try:
        site.start()
        function(site)
    except Exception as e:  # a failed wait, a refused connection: say which, and go on to clean up
        import traceback
        site.ok(False, "%s: %s" % (type(e).__name__, e))
        for line in traceback.format_exc().splitlines()[-6:]:
            print("# " + line)
    site.finish()
