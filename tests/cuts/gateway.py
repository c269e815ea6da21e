"""One gateway without others, whose data lies where the caller says; what the recorder has it promise, the judge of the replays asks of it."""
import http.client, json, os, signal, socket, subprocess, time

BATCH = 5  # events in one request


def value(number):
    """Of key number `number`: short ones, and now and then one that takes many pages."""
    return ("%d:" % number) * (1 + number % 40 + (3000 if number % 97 == 0 else 0))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Gateway:
    def __init__(self, build, folder, port, log):
        self.folder, self.port, self.log = folder, port, log
        self.config = os.path.join(folder, "greyd.yaml")
        with open(self.config, "w") as f:
            f.write("mode: single\nnode: {id: n1}\nsite: {id: cut-site}\n"
                    "networking: {http_addr: \"127.0.0.1:%d\", socket: \"%s\"}\n"
                    "storage: {data_dir: \"%s\", check_interval_secs: 0}\nconsensus: {snapshot_threshold: 300, snapshots_kept: 2}\n"
                    "security: {tls: {enabled: false}}\nscheduler: {enabled: false}\n"
                    % (port, os.path.join(folder, "greyd.sock"), os.path.join(folder, "data")))
        self.program, self.process = os.path.join(build, "greyd"), None

    def start(self, seconds=60):
        """False: it ended, or is not ready after so long."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([self.program, "--config", self.config, "--bootstrap"], stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.ask("GET", "/health/ready")[0] == 200:
                    return True
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)
        return False

    def stop(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait()

    def ask(self, method, path, body=None, connection=None):
        c = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            c.request(method, path, body)
            answer = c.getresponse()
            return answer.status, answer.read()
        finally:
            if connection is None:
                c.close()

    def lacks(self, keys, events):
        """What of the first `keys` keys and `events` batches of events is not there; None: nothing."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        chosen = set(range(max(1, keys - 25), keys + 1)) | set(range(1, keys + 1, max(1, keys // 25)))
        for number in sorted(chosen):
            status, body = self.ask("GET", "/v1/kv/k%d" % number, connection=c)
            if status != 200 or body.decode() != value(number):
                return "key %d of %d: %d %s" % (number, keys, status, body[:200])
        queue = json.loads(self.ask("GET", "/v1/queue", connection=c)[1])
        taken = sum(channel["next_seq"] - 1 for channel in queue["channels"].values())
        c.close()
        return None if taken >= events * BATCH else "events: %d of %d" % (taken, events * BATCH)
