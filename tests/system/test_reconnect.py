#!/usr/bin/env python3
"""Two brokers: the first dies under load, and comes back.  If this fails, one dead broker keeps a site from its core, or a site runs
to and fro between two, or what was on the way at that moment is lost or told twice."""
from harness import *

EDGE = """
connection up
address 127.0.0.1:%d
bridge_protocol_version mqttv50
topic grey/v2/+/up/# out 1
topic grey/v2/+/down/# in 1
notifications false
restart_timeout 1
"""


class TwoBrokers(Site):
    """Sites speak to brokers first and second; both hand on to the core's own."""

    def __init__(self):
        self.first, self.second = free_ports(2)
        super().__init__(nodes=1, upstream="failback_secs: 4")

    def endpoints(self):
        return [self.first, self.second]

    def start_broker(self):
        with open(self.path("mosquitto.conf"), "w") as f:
            f.write("listener %d 127.0.0.1\nallow_anonymous true\nuser %s\nmax_queued_messages 10000\n" % (self.broker_port, self.user()))
        self.spawn("broker", [self.mosquitto(), "-c", self.path("mosquitto.conf")])
        self.start_edge("first")
        self.start_edge("second")

    def start_core(self, number=1):
        self.spawn("core", [os.path.join(BUILD, "grey-core"), "--data-dir", self.path("core"), "--http-addr", "127.0.0.1:%d" % self.core_port,
                            "--broker", "mqtt://127.0.0.1:%d" % self.broker_port, "--tls-ca", self.ca + "/ca.crt", "--sign-dir", self.ca])

    def user(self):
        return subprocess.run(["id", "-un"], stdout=subprocess.PIPE, text=True).stdout.strip()

    def mosquitto(self):
        return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")

    def start_edge(self, name):
        with open(os.path.join(ROOT, "deploy/local/mosquitto.conf.in")) as f:
            text = f.read()
        os.makedirs(self.path(name), exist_ok=True)
        for key, value in (("PORT", str(getattr(self, name))), ("CA", self.ca), ("RUN", self.path(name)), ("USER", self.user())):
            text = text.replace("@%s@" % key, value)
        with open(self.path(name, "mosquitto.conf"), "w") as f:
            f.write(text + EDGE % self.broker_port)
        shutil.copy(os.path.join(ROOT, "deploy/local/broker.acl"), self.path(name, "broker.acl"))
        os.chmod(self.path(name, "broker.acl"), 0o600)
        self.spawn(name, [self.mosquitto(), "-c", self.path(name, "mosquitto.conf")])

    def wait_up(self, port, seconds):
        began = time.monotonic()
        wait_until("a link through port %d" % port, lambda: (lambda l: l["up"] and l["endpoint"] == "localhost:%d" % port)(self.link()), seconds)
        return time.monotonic() - began


def test(site):
    site.wait_up(site.first, 90)  # if it did not listen yet, the second is used until this one has been good
    site.ok(True, "the first of two brokers is used")
    ledger = Ledger(site, 3000, pause=0.5).start()  # for half a minute
    time.sleep(1)
    site.kill("first")
    took = site.wait_up(site.second, 60)
    site.ok(took < 30, "it dies under load, and the second is used %.1f s later" % took)
    link = site.link()
    first = link["endpoints"][0]
    site.ok(first["failures"] > 0 and not first["in_use"] and link["endpoints"][1]["in_use"], "the API says so")
    site.ok(link["stage"] == "up" and link["keepalive_seconds"] > 0 and link["next_try_seconds"] is None, "and that the link is up")
    said = site.ctl("link", "status").stdout
    site.ok("localhost:%d" % site.first in said and "BREAKER" in said and "keep-alive 900 s" in said, "greyctl link status says: %s" % said.splitlines()[0])
    began = time.monotonic()
    site.start_edge("first")
    site.wait_up(site.first, 90)
    took = time.monotonic() - began
    site.ok(took > 3, "the first comes back, and is used again when it has been good (%.0f s later)" % took)
    log = open(site.path("node1.log")).read()
    site.ok("has been good for" in log, "the log tells of the return")

    # The broker restarts while events flow.
    for i in range(2):
        site.kill("first", signal.SIGTERM)
        site.start_edge("first")
        time.sleep(4)
    ledger.join()
    ledger.judge()

    # Both are away: what is tried is ever rarer, and an operator can ask for a try at once.
    site.kill("first")
    site.kill("second")
    waits = lambda l: all(e["breaker"] == "open" for e in l["endpoints"]) and l["stage"] == "waiting" and l["next_try_seconds"] > 1 and l
    down = wait_until("the breakers to open", lambda: waits(site.link()), 300)  # each wait before a try is drawn, up to a minute
    site.ok(not down["up"] and down["stage"] == "waiting" and down["next_try_seconds"] > 1, "with both away the breakers open; next try in %.0f s" % down["next_try_seconds"])
    said = wait_until("no try to be under way", lambda: (lambda s: s.startswith("down: waiting") and s)(site.ctl("link", "status").stdout))
    site.ok(said.startswith("down: waiting") and "last failure: " in said and "open" in said, "greyctl link status: %s" % " | ".join(said.splitlines()[:2]))
    site.start_edge("second")
    wait_until("the second broker to listen", lambda: socket.create_connection(("127.0.0.1", site.second), 1), 30)
    time.sleep(1.5)  # its way to the core
    site.ok(site.ctl("link", "try").returncode == 0, "greyctl link try")
    took = site.wait_up(site.second, 60)  # a hello that came before this broker had its way to the core is said again
    site.ok(True, "leads to the broker that is back after %.1f s" % took)


if __name__ == "__main__":
    s = TwoBrokers()
    try:
        s.start()
        test(s)
    except Exception as e:
        s.ok(False, "%s: %s" % (type(e).__name__, e))
    s.finish()
