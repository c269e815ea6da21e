#!/usr/bin/env python3
"""A path that accepts and goes silent: at TCP, in the TLS handshake, after MQTT's CONNECT, at our hello.  If this fails, a site hangs for
ever on a half-dead broker although another one is there, or its engineer is not told what hangs."""
from harness import *

STAGES = {  # what the relay lets through, how long finding it may take, and a word of the explanation
    "tcp": (12, "TCP"),
    "tls": (25, "TLS"),
    "mqtt": (20, "MQTT"),
    "hello": (30, "core"),
}
SLACK_S = 12  # chance before the next try, and a machine that has other things to do


class Silent(Relay):
    """Stops at a stage: it keeps the connection, and hands on no byte any more."""

    def __init__(self, target_port, stage):
        self.stage, self.kept = stage, []
        super().__init__(target_port)

    def listen(self):
        if self.stage != "tcp":
            return super().listen()
        server = socket.create_server(("127.0.0.1", 0), backlog=0)
        for i in range(4):  # a full queue of connections swallows what else comes
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(server.getsockname())
            self.kept.append(s)
        return server

    def accept(self):
        if self.stage != "tcp":
            super().accept()

    def admit(self, pair, source):
        pair.silent = self.stage == "tls"
        return True

    def carry(self, a, b, way, pair):
        """Records of TLS: kind, version, length.  Kind 23 carries MQTT; the first of them is CONNECT."""
        buffer, carried, most = b"", 0, 1 if self.stage == "hello" else 0
        while True:
            data = a.recv(65536)
            if not data:
                threading.Event().wait()  # nobody hears of it
            buffer += data
            while len(buffer) >= 5 and len(buffer) >= 5 + int.from_bytes(buffer[3:5], "big"):
                size = 5 + int.from_bytes(buffer[3:5], "big")
                record, buffer = buffer[:size], buffer[size:]
                if way == 0 and record[0] == 23:
                    carried += 1
                    pair.silent = carried > most
                if not pair.silent:
                    b.sendall(record)


class SilentSite(Site):
    """Its first endpoint goes silent, its second is the broker itself."""

    def __init__(self, stage):
        super().__init__(nodes=1, line=lambda port: Silent(port, stage))

    def endpoints(self):
        return [self.line.port, self.broker_port]


def complaint(site):
    """Why there is no link.  The API tells a connection that was given up only until the next one is up, which may be a moment later; so the log goes first."""
    with open(site.path("node1.log")) as f:
        closed = [line.strip() for line in f if " uplink closed " in line]
    link = site.link()
    return closed[0] if closed else not link["up"] and link["last_error"]


def run(site, found):
    site.start_broker()
    site.start_core()
    wait_until("the broker to listen", lambda: socket.create_connection(("127.0.0.1", site.broker_port), 1).close() is None)
    wait_until("the core", lambda: request(site.core_port, "GET", "/health/ready").status == 200)
    began = time.monotonic()
    site.start_node(1)
    why = wait_until("the silence to be found", lambda: complaint(site), 90)
    found["found"], found["why"] = time.monotonic() - began, why
    wait_until("the link by the other endpoint", lambda: site.link()["up"], 60)
    found["up"] = time.monotonic() - began
    found["failures"] = site.link()["endpoints"][0]["failures"]


def main():
    sites = {stage: SilentSite(stage) for stage in STAGES}
    results = {stage: {} for stage in STAGES}
    threads = [threading.Thread(target=run, args=(sites[stage], results[stage]), daemon=True) for stage in STAGES]
    for t in threads:
        t.start()
    for t in threads:
        t.join(150)
    judge = next(iter(sites.values()))
    for stage, (limit, word) in STAGES.items():
        r = results[stage]
        judge.ok("up" in r and r["found"] <= limit + SLACK_S and word in r["why"],
                 "silent at %s: found after %.0f s: %s" % (stage, r.get("found", -1), r.get("why", "not found")))
        judge.ok("up" in r and r["up"] <= limit + SLACK_S + 5 and r["failures"] == 1, "and the other endpoint is used after %.0f s" % r.get("up", -1))
    for site in sites.values():
        site.failed, site.finished = judge.failed, True
        site.cleanup()
    sys.exit(1 if judge.failed else 0)


if __name__ == "__main__":
    main()
