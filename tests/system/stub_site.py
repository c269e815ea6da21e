"""A site of a few lines, to say to a real core what a real site would not: MQTT 5 over TLS, Grey frames, CBOR; and software TPMs that real grey-tpm speaks to."""
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import zlib

from harness import BUILD, Site, wait_until

ASK, INTRODUCTION, SECRET, EVIDENCE, INTRODUCE, CHALLENGE, INQUIRY, RESULT, REFUSAL = range(1, 10)
UP_HELLO, UP_ATTEST, DOWN_WELCOME, DOWN_ROUTE, DOWN_ATTEST = 64, 72, 80, 83, 87
CODING_ATTEST = 64


def put(value):
    """Deterministic CBOR."""
    def head(major, number):
        for size, low in ((1, 24), (2, 25), (4, 26), (8, 27)):
            if number < 24:
                return bytes([major << 5 | number])
            if number < 1 << 8 * size:
                return bytes([major << 5 | low]) + number.to_bytes(size, "big")
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    return head(4, len(value)) + b"".join(put(v) for v in value)


def get(data, at=0):
    """One item, and where the next begins."""
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return {20: False, 21: True, 22: None}[low], at
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(low, 0)
    number = int.from_bytes(data[at:at + size], "big") if size else low
    at += size
    if major < 2:
        return (number if major == 0 else -1 - number), at
    if major < 4:
        text = bytes(data[at:at + number])
        return (text.decode() if major == 3 else text), at + number
    out = []
    for _ in range(number * (2 if major == 5 else 1)):
        value, at = get(data, at)
        out.append(value)
    return out, at


class Authority:
    """Whoever makes TPMs: software ones with endorsement certificates of its own."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="grey-tpmca-")
        self.write("setup.conf", "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = %s/ca.conf\ncreate_certs_tool_options = %s/options\n"
                   "active_pcr_banks = sha256\n" % (self.folder, self.folder))
        self.write("ca.conf", "statedir = {0}\nsigningkey = {0}/signkey.pem\nissuercert = {0}/issuer.pem\ncertserial = {0}/serial\n".format(self.folder))
        self.write("options", "--platform-manufacturer Grey\n--platform-version 1\n--platform-model test\n")

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as f:
            f.write(text)

    def roots(self, path):
        with open(path, "w") as out:
            for name in ("issuer.pem", "swtpm-localca-rootca-cert.pem"):
                with open(os.path.join(self.folder, name)) as f:
                    out.write(f.read())

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Tpm:
    def __init__(self, authority):
        self.folder = tempfile.mkdtemp(prefix="grey-tpm-")
        self.way, self.start_log = "swtpm:path=%s/tpm.sock" % self.folder, os.path.join(self.folder, "starts")
        subprocess.run(["swtpm_setup", "--tpm2", "--tpmstate", "dir://" + self.folder, "--config", authority.folder + "/setup.conf", "--create-ek-cert", "--lock-nvram",
                        "--overwrite"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", "dir=" + self.folder, "--server", "type=unixio,path=%s/tpm.sock" % self.folder, "--ctrl",
                                         "type=unixio,path=%s/tpm.sock.ctrl" % self.folder, "--flags", "not-need-init,startup-clear"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("a software TPM", lambda: os.path.exists(self.folder + "/tpm.sock"), 30)
        self.run(b"", "--program", "/bin/true", "--measured-config", "/etc/passwd", "measure")

    def run(self, data, *words):
        command = [os.path.join(BUILD, "grey-tpm"), "--tpm", self.way, "--boot-log", "none", "--start-log", self.start_log] + list(words)
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        if done.returncode != 0:
            raise RuntimeError("grey-tpm %s: %s" % (words[-1], done.stderr.decode()))
        return done.stdout

    def extend(self, pcr):
        subprocess.run(["tpm2_pcrextend", "-T", self.way, "%d:sha256=%s" % (pcr, "07" * 32)], check=True)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


class Bench(Site):
    """A core, and TPMs of two makers for boards that come to it."""

    def __init__(self, **options):
        super().__init__(nodes=1, **options)
        self.makers, self.tpms = [Authority(), Authority()], []

    def tpm(self, maker=0):
        self.tpms.append(Tpm(self.makers[maker]))
        return self.tpms[-1]

    def cleanup(self):
        for tpm in self.tpms:
            tpm.stop()
        for maker in self.makers:
            maker.remove()
        self.tpms = []
        super().cleanup()


class Link:
    """What a site says to the core: one session at a time, plain frames."""

    def __init__(self, port, site, ca, cert, key):
        self.port, self.site, self.context = port, site, ssl.create_default_context(cafile=ca)
        self.context.load_cert_chain(cert, key)
        self.number, self.buffer, self.heard, self.route, self.words = 0, b"", [], "", {}
        self.connect()

    def connect(self):
        self.socket = self.context.wrap_socket(socket.create_connection(("localhost", self.port)), server_hostname="localhost")
        self.socket.settimeout(0.2)
        self.send(0x10, struct.pack(">H", 4) + b"MQTT\x05\x02\x00\x3c\x00" + struct.pack(">H", len(self.site)) + self.site.encode())
        self.wait_packet(0x20)
        topic = ("grey/v2/%s/down/+" % self.site).encode()
        self.send(0x82, struct.pack(">HBH", 1, 0, len(topic)) + topic + b"\x01")
        self.wait_packet(0x90)

    def send(self, head, body):
        size, length = len(body), b""
        while True:
            size, low = size >> 7, size & 127
            length += bytes([low | (128 if size else 0)])
            if not size:
                break
        self.socket.sendall(bytes([head]) + length + body)

    def packet(self):
        """The next packet, None: none came within a moment."""
        while True:
            size = shift = 0
            for i in range(1, 5):
                if len(self.buffer) <= i:
                    break
                size |= (self.buffer[i] & 127) << shift
                shift += 7
                if self.buffer[i] < 128:
                    if len(self.buffer) < i + 1 + size:
                        break
                    head, body, self.buffer = self.buffer[0], self.buffer[i + 1:i + 1 + size], self.buffer[i + 1 + size:]
                    return head, body
            try:
                more = self.socket.recv(65536)
            except socket.timeout:
                return None
            if not more:
                raise RuntimeError("the broker has closed the connection")
            self.buffer += more

    def wait_packet(self, head):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            p = self.packet()
            if p and p[0] == head:
                return p[1]
        raise RuntimeError("no answer of the broker")

    def listen(self):
        p = self.packet()
        if p is None or p[0] & 0xf0 != 0x30:
            return
        body = p[1]
        at = 2 + struct.unpack(">H", body[:2])[0]
        if p[0] & 6:
            self.send(0x40, body[at:at + 2])
            at += 2
        at += 1 + body[at]  # properties
        frame = body[at:]
        flags, length = struct.unpack(">H", frame[6:8])[0], struct.unpack(">I", frame[24:28])[0]
        if flags & 3 == 0:
            self.heard.append(get(frame[28:28 + length])[0])

    def say(self, message, channel="control"):
        """message: an array, or bytes as they are."""
        payload = message if isinstance(message, bytes) else put(message)
        self.number += 1
        frame = b"GREY" + struct.pack(">HHQQI", 2, 0, self.number, time.time_ns(), len(payload)) + payload
        frame += struct.pack(">I", zlib.crc32(frame))
        topic = ("grey/v2/%s/up/%s%s" % (self.site, channel, "/" + self.route if self.route else "")).encode()
        self.send(0x32, struct.pack(">H", len(topic)) + topic + struct.pack(">HB", self.number % 65535 + 1, 0) + frame)

    def wait_kind(self, kind, seconds=30, node=None):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for i, message in enumerate(self.heard):
                if message[0] == kind and node in (None, message[1]):
                    return self.heard.pop(i)
            self.listen()
        return None

    def hello(self, level=2, node="1"):
        """The codings that the core says."""
        self.route, self.heard = "", []
        self.say([UP_HELLO, 7, 1, level, node, int(time.time() * 1000), [[1, 0]] * 3])
        welcome = self.wait_kind(DOWN_WELCOME)
        route = self.wait_kind(DOWN_ROUTE, 0.5)
        self.route = route[3] if route else ""
        return (welcome[5] if len(welcome) > 5 else 0) if welcome else None

    def pace(self, node):
        """Keeps to what the core takes of one gateway: 60 words at once, then one a second."""
        began, count = self.words.get(node, (time.monotonic(), 0))
        self.words[node] = (began, count + 1)
        while count > 50 + (time.monotonic() - began) * 0.9:
            time.sleep(0.1)

    def close(self):
        self.socket.close()


class Gateway:
    """One of the site's, with a TPM, and all the wrong it may do."""

    def __init__(self, link, node, tpm, number=77, kind=1):
        self.link, self.node, self.tpm, self.number, self.kind = link, node, tpm, number, kind

    def order(self, inquiry=b"", node=None, kind=None):
        who = [self.link.site, node or self.node, self.number, bytes([self.number]) * 32, b"\x22" * 32]
        return put([1, self.kind if kind is None else kind] + who + [inquiry])

    def say(self, word, body, seconds=30):
        """The verifier's answer: its word and body; None: it does not answer."""
        self.link.pace(self.node)
        self.link.heard = [m for m in self.link.heard if m[0] != DOWN_ATTEST]
        self.link.say([UP_ATTEST, self.node, word, body])
        answer = self.link.wait_kind(DOWN_ATTEST, seconds, self.node)
        return (answer[2], answer[3]) if answer else None

    def introduce(self):
        return self.say(INTRODUCTION, self.tpm.run(self.order(), "introduce"))

    def evidence(self, inquiry, tpm=None):
        return (tpm or self.tpm).run(self.order(inquiry), "quote")

    def inquiry(self):
        """Asks; what is asked of it then, after an introduction where that is wanted."""
        word, body = self.say(ASK, self.order())
        if word == INTRODUCE:
            word, body = self.introduce()
            if word == CHALLENGE:
                word, body = self.say(SECRET, self.tpm.run(body, "activate"))
        return word, body

    def attest(self):
        word, body = self.inquiry()
        return self.say(EVIDENCE, self.evidence(body)) if word == INQUIRY else (word, body)


def refusal(answer):
    """The number of the error; None: it is no refusal."""
    return get(answer[1])[0][0] if answer and answer[0] == REFUSAL else None
