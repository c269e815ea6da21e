#!/usr/bin/env python3
"""The broker belongs to somebody else, who reads, keeps, changes and makes up messages.  If this fails, they read what a customer's machines
do, or the core believes what no gateway has said."""
import struct, zlib
from harness import *

SECRET = "the-recipe-is-42-parts-of-salt"


class Mine(Site):
    """The broker has a second door, without TLS and without rights: its owner's."""

    def start_broker(self):
        super().start_broker()
        self.kill("broker")
        self.door = free_ports(1)[0]
        with open(self.path("mosquitto.conf")) as f:
            text = "".join(l for l in f if not l.startswith("acl_file"))
        with open(self.path("mosquitto.conf"), "w") as f:
            f.write(text.replace("per_listener_settings false", "per_listener_settings true") + "listener %d 127.0.0.1\nallow_anonymous true\n" % self.door)
        binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        self.spawn("broker", [binary, "-c", self.path("mosquitto.conf")])

    def tap(self):
        self.seen, command = [], ["mosquitto_sub", "-V", "5", "-h", "127.0.0.1", "-p", str(self.door), "-t", "grey/v2/#", "-F", "%t %x"]
        self.ear = self.processes["ear"] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self.listen, daemon=True).start()
        wait_until("the ear to hear", lambda: self.say("grey/v2/ear", b"x") or self.seen, 30)

    def listen(self):
        for line in self.ear.stdout:
            topic, data = line.split()
            self.seen.append((topic, bytes.fromhex(data)))

    def say(self, topic, data):
        subprocess.run(["mosquitto_pub", "-V", "5", "-h", "127.0.0.1", "-p", str(self.door), "-q", "1", "-t", topic, "-s"], input=data, check=True, timeout=30)

    def refused(self, reason):
        text = request(self.core_port, "GET", "/metrics").body.decode()
        return sum(int(l.split()[-1]) for l in text.splitlines() if l.startswith('grey_core_refused_messages_total{reason="%s"}' % reason))

    def attack(self, what, reason, topic, data):
        before = self.refused(reason)
        self.say(topic, data)
        wait_until("%s to be refused" % what, lambda: self.refused(reason) > before, 20)
        self.ok(True, "%s is refused, and counted as \"%s\"" % (what, reason))


def frame(data, **changes):
    """A whole Grey frame with other fields, and its checksum made good."""
    f = {"flags": data[6:8], "id": data[8:16], "time": data[16:24], "payload": data[28:-4]}
    f.update(changes)
    head = data[:6] + f["flags"] + f["id"] + f["time"] + struct.pack(">I", len(f["payload"])) + f["payload"]
    return head + struct.pack(">I", zlib.crc32(head))


def sealed(data):
    return data[7] & 2 != 0


def test(site):
    site.tap()
    wait_until("the link", lambda: site.link()["up"], 60)
    site.restart("node1")  # so that the whole handshake is heard
    wait_until("the link", lambda: site.link()["up"], 60)
    site.ok(site.link()["end_to_end"], "the session is sealed end to end")
    site.ok("sealed end to end" in site.ctl("link", "status").stdout, "greyctl link status says so")
    for i in range(40):
        request(site.http[1], "POST", "/v1/events", json.dumps({"type": "recipe", "priority": ("critical", "normal", "low")[i % 3], "data": {"text": SECRET, "i": i}}))
    site.wait_drained()
    wait_until("40 events at the core", lambda: len([e for e in site.core_events() if e["type"] == "recipe"]) == 40, 30)
    wait_until("the ear to have heard of it", lambda: len([d for t, d in site.seen if "/up/" in t and sealed(d)]) > 6, 30)
    heard = b"".join(d for _, d in site.seen)
    site.ok(len(site.seen) > 6 and SECRET.encode() not in heard and b"recipe" not in heard, "of 40 events the broker's owner reads nothing in %d messages" % len(site.seen))
    ups = [(t, d) for t, d in site.seen if "/up/" in t]
    plain = [d for _, d in ups if not sealed(d)]
    site.ok(plain and all(d[28:].startswith(b"\x83\x18\x4f") for d in plain), "all that is not sealed of the site is the hello of a handshake (%d of %d)" % (len(plain), len(ups)))
    site.ok(b"CERTIFICATE" not in heard and SITE.encode() not in b"".join(plain), "and that does not show the certificate")

    # What the owner of the broker can do with messages.
    topic, last = [(t, d) for t, d in ups if sealed(d)][-1]
    hello = plain[-1]
    site.attack("a message that came before", "repeated", topic, last)
    later = frame(last, id=struct.pack(">Q", struct.unpack(">Q", last[8:16])[0] + 1000))
    site.attack("the same under a number to come", "sealed", topic, later)
    for place, what in ((28, "the first bit"), (len(last) - 10, "a bit of the tag")):
        flipped = bytearray(later)
        flipped[place] ^= 1
        site.attack("one with %s changed" % what, "sealed", topic, frame(bytes(flipped)))
    other = topic.replace("/events", "/data") if "/events" in topic else topic.rsplit("/", 1)[0] + "/events"
    site.attack("one in another channel's topic", "sealed", other, later)
    # A hello of their own, plain, as sites spoke before, of an epoch to come.
    plain_hello = frame(last, flags=b"\x00\x04", id=b"\x00" * 7 + b"\x01", payload=bytes([0x87, 0x18, 64, 1, 0x18, 200, 2, 0x61, 0x31, 0, 0x83] + [0x82, 1, 0] * 3))
    site.attack("a hello in plain words", "plain", "grey/v2/%s/up/control" % SITE, plain_hello)
    # The hello of before, once more: the core answers, but the session goes on.
    for _ in range(3):
        site.say("grey/v2/%s/up/control" % SITE, hello)
    time.sleep(1)
    epoch = site.link()["stage_seconds"]
    for i in range(10):
        request(site.http[1], "POST", "/v1/events", json.dumps({"type": "after", "data": {"i": i}}))
    wait_until("what is sent after that", lambda: len([e for e in site.core_events() if e["type"] == "after"]) == 10, 40)
    site.ok(site.link()["up"] and site.link()["stage_seconds"] >= epoch, "an old hello, played again, does not end the session")
    # Down: an acknowledgement that nobody gave would free the queue.
    site.kill("core", signal.SIGSTOP)
    for i in range(10):
        request(site.http[1], "POST", "/v1/events", json.dumps({"type": "held", "priority": "critical", "data": {"i": i}}))
    downs = [d for t, d in site.seen if "/down/control" in t and sealed(d)] or [d for t, d in site.seen if "/down/" in t and sealed(d)]
    refusals = lambda: sum(int(l.split()[-1]) for l in request(site.http[1], "GET", "/metrics").body.decode().splitlines() if l.startswith("grey_federation_refused_messages_total"))
    before = refusals()
    for d in (downs[-1], frame(downs[-1], id=struct.pack(">Q", struct.unpack(">Q", downs[-1][8:16])[0] + 9)),
              frame(downs[-1], flags=b"\x00\x00", payload=bytes([0x85, 0x18, 81, 1, 1, 0, 0x18, 99]))):
        site.say("grey/v2/%s/down/control" % SITE, d)
    wait_until("the site to refuse them", lambda: refusals() >= before + 3, 20)
    site.ok(site.queue(1)["control"]["pending"] == 10, "made-up acknowledgements free nothing")
    site.kill("core", signal.SIGCONT)
    wait_until("the held ones", lambda: len([e for e in site.core_events() if e["type"] == "held"]) == 10, 60)
    site.ok(True, "and all arrives when the core goes on")
    # A core that starts anew has no keys.
    site.restart("core")
    request(site.http[1], "POST", "/v1/events", json.dumps({"type": "anew", "data": {}}))
    wait_until("the next session", lambda: [e for e in site.core_events() if e["type"] == "anew"], 60)
    wait_until("its session to be there", lambda: site.link()["up"])
    site.ok(site.link()["end_to_end"], "after a restart of the core the next session is sealed too")
    site.attack("a hello in plain words, after the restart", "plain", "grey/v2/%s/up/control" % SITE, plain_hello)


run_test(test, Mine, nodes=1)
