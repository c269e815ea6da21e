#!/usr/bin/env python3
"""Core and site know the same two brokers, which know nothing of each other.  If this fails, they sit on different ones after the first has
died and come back, and no event arrives although every process runs."""
from harness import *


class SharedBrokers(Site):
    def __init__(self):
        self.second = free_ports(1)[0]
        super().__init__(nodes=1, upstream="failback_secs: 90")
        self.first = self.broker_port

    def endpoints(self):
        return [self.broker_port, self.second]

    def start_other(self):
        """The second broker, as the first but for its port."""
        os.makedirs(self.path("second"), exist_ok=True)
        with open(self.path("mosquitto.conf")) as f:
            text = f.read().replace("listener %d " % self.first, "listener %d " % self.second).replace(self.path("mosquitto.pid"), self.path("second", "mosquitto.pid"))
        with open(self.path("second", "mosquitto.conf"), "w") as f:
            f.write(text)
        self.spawn("second", [shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin"), "-c", self.path("second", "mosquitto.conf")])

    def start_core(self, number=1):
        self.spawn("core", [os.path.join(BUILD, "grey-core"), "--data-dir", self.path("core"), "--http-addr", "127.0.0.1:%d" % self.core_port,
                            "--broker", "mqtts://localhost:%d,localhost:%d" % (self.first, self.second), "--tls-ca", self.ca + "/ca.crt",
                            "--tls-cert", self.ca + "/core.crt", "--tls-key", self.ca + "/core.key", "--sign-dir", self.ca])

    def core_at(self):
        with open(self.path("core.log")) as f:
            return [int(l.rsplit(":", 1)[1]) for l in f if " connected broker=" in l][-1]

    def wait_at(self, port, seconds):
        began = time.monotonic()
        wait_until("core and site at port %d" % port, lambda: self.core_at() == port and self.link()["up"] and self.link()["endpoint"] == "localhost:%d" % port, seconds)
        return time.monotonic() - began


def test(site):
    site.wait_at(site.first, 60)
    ledger = Ledger(site, 6000, threads=2, pause=0.7).start()
    time.sleep(2)
    site.kill("broker")
    site.ok(True, "the first broker dies; both are at the second %.0f s later" % site.wait_at(site.second, 90))
    site.start_broker()
    site.ok(True, "it comes back; both are there again %.0f s later" % site.wait_at(site.first, 400))
    time.sleep(5)
    site.ok(site.core_at() == site.first and site.link()["up"], "and stay")
    ledger.join()
    ledger.judge()


run = SharedBrokers()
try:
    run.start_broker()
    run.start_other()
    for port in (run.first, run.second):  # who dials before both listen sits on the one that came first
        wait_until("the broker at port %d to listen" % port, lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
    run.start_core()
    run.start_node(1)
    run.wait_whole()
    test(run)
except Exception as e:
    run.ok(False, "%s: %s" % (type(e).__name__, e))
run.finish()
