#!/usr/bin/env python3
"""The root of an image comes from the core over the thin link, and files stand in for its partitions.  If this failed, a site would fetch all of a root of which it has nearly
everything, or once for each gateway; a root that does not work would stay; or a power cut would leave a gateway that starts nothing."""
from harness import *

BOARD = "emulated-board"
SLOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "image", "slot")
BLOCK, IMAGE_BYTES = 4096, 16 << 20


def make_image(files):
    """A root as far as this test's gateways need one: names and places in the first block, then the files, each at a block of its own, with empty ones between."""
    at, places, body = BLOCK, {}, []
    for name, content in files:
        places[name] = [at, len(content)]
        body.append((at, content))
        at += (len(content) + BLOCK - 1) // BLOCK * BLOCK + BLOCK
    image = bytearray(IMAGE_BYTES)
    head = json.dumps(places).encode()
    image[:len(head)] = head
    for at, content in body:
        image[at:at + len(content)] = content
    return bytes(image)


def mount(slot, folder):
    with open(slot, "rb") as f:
        places = json.loads(f.read(BLOCK).rstrip(b"\0"))
        for name, (at, size) in places.items():
            f.seek(at)
            path = os.path.join(folder, name)
            if os.path.exists(path):
                os.unlink(path)
            with open(path, "wb") as out:
                out.write(f.read(size))
            os.chmod(path, 0o755)


class Board(threading.Thread):
    """What a gateway's image does: initramfs, init, and greyd again when it ends."""

    def __init__(self, site, n, image):
        super().__init__(daemon=True)
        self.site, self.n, self.name, self.over, self.cut, self.on_restart, self.update = site, n, "node%d" % n, False, False, None, None
        self.confirm_s = 60
        self.at = lambda *words: site.path(self.name, *words)
        self.log = open(site.path("update%d.log" % n), "ab")
        for folder in ("slots", "root"):
            os.makedirs(self.at(folder))
        for name, content in (("slot-a", image), ("slot-b", bytes(IMAGE_BYTES)), ("state", bytes(1 << 20))):
            with open(self.at(name), "wb") as f:
                f.write(content)
        for slot in ("a", "b"):
            os.symlink(self.at("slot-" + slot), self.at("slots", slot))
        self.env = dict(os.environ, SLOT_RUNNING=self.at("running"))
        self.places = ["--slots", self.at("slots"), "--base", BUILD, "--inbox", self.at("data", "updates"), "--key", site.path("maker", "update-sign.pub"), "--roots", self.at("state"),
                       "--chooser", SLOT, "--product", BOARD]

    def slot(self, *words):
        return subprocess.run([SLOT, words[0], self.at("state")] + list(words[1:]), env=self.env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def running(self):
        with open(self.at("running")) as f:
            return f.read().strip()[-1]

    def boot(self):
        slot = self.slot("boot")
        with open(self.at("running"), "w") as f:
            f.write("grey.slot=%s\n" % slot)
        mount(self.at("slot-" + slot), self.at("root"))
        link = self.at("slot-running")
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(self.at("slot-" + slot), link)
        subprocess.run(program("grey-update") + ["boot", "--running", slot] + self.places, env=self.env, check=True, stdout=self.log, stderr=self.log)
        self.start_greyd()
        self.update = None

    def start_greyd(self):
        seeds = ",".join("127.0.0.1:%d" % self.site.peer[m] for m in self.site.nodes if m != self.n)
        self.site.spawn(self.name, [self.at("root", "greyd"), "--config", self.at("greyd.yaml"), "--join", seeds] + (["--bootstrap"] if self.n == 1 else []))

    def power_off(self):
        if self.site.alive(self.name):
            self.site.kill(self.name)
        if self.update and self.update.poll() is None:
            self.update.kill()
            self.update.wait()

    def tries(self):
        return "tries -" not in self.slot("show")

    def show(self):
        return subprocess.run(program("grey-update") + ["show", "--slots", self.at("slots")], check=True, stdout=subprocess.PIPE, text=True).stdout

    def run(self):
        while not self.over:
            time.sleep(0.1)
            if self.cut or os.path.exists(self.at("restart")):
                if not self.cut:
                    os.unlink(self.at("restart"))
                    if self.on_restart:
                        self.on_restart(self.n)
                self.cut = False
                self.power_off()
                self.boot()
            elif not self.site.alive(self.name):
                time.sleep(0.5)
                self.start_greyd()
            if (self.update is None or self.update.poll() is not None) and ("try        -" not in self.show() or os.path.exists(self.at("data", "updates", "bundle"))):
                self.update = subprocess.Popen(program("grey-update") + ["run", "--confirm-s", str(self.confirm_s)] + self.places + ["--", "touch", self.at("restart")],
                                               env=self.env, stdout=self.log, stderr=self.log, start_new_session=True)

    def stop(self):
        self.over = True
        self.join()
        if self.update and self.update.poll() is None:
            self.update.kill()
            self.update.wait()


def pack(site, version, counter, image):
    path, out = site.path(version + ".img"), site.path(version + ".bundle")
    with open(path, "wb") as f:
        f.write(image)
    subprocess.run(program("grey-update") + ["pack", "--sign", site.path("maker"), "--version", version, "--counter", str(counter), "--out", out, "--product", BOARD, "--image", path],
                   check=True, stdout=subprocess.DEVNULL)
    with open(out, "rb") as f:
        return f.read()


def push(site, bundle):
    a = request(site.core_port, "PUT", "/v1/updates/root", bundle)
    assert a.status in (200, 201), (a.status, a.body)


def root(site):
    for n in site.nodes:
        try:
            a = request(site.http[n], "GET", "/v1/updates")
            if a.status == 200:
                return {u["name"]: u for u in a.json()["updates"]}["root"]
        except (OSError, KeyError, ValueError, http.client.HTTPException):
            pass
    raise OSError("nobody answers")


def counted(site, name):
    total = 0
    for n in site.nodes:
        try:
            for line in request(site.http[n], "GET", "/metrics").body.decode().splitlines():
                total += int(float(line.split()[1])) if line.startswith(name) else 0
        except (OSError, http.client.HTTPException):
            pass
    return total


def rollout(site):
    return request(site.core_port, "GET", "/v1/rollouts/root?kind=update").json()["state"]


def test(site):
    bad_moments = []

    def on_restart(n):
        """The others must be able to go on without this one."""
        began = time.monotonic()
        for m in site.nodes:
            if m != n and site.alive("node%d" % m):  # one that is slow to answer has not ended for that; one that has just begun had
                s = wait_until("gateway %d to answer" % m, lambda: (lambda s: s["quorum"] and s)(site.status(m)), 30)
                bad_moments.extend([(n, m)] if s["uptime_seconds"] < time.monotonic() - began + 1 else [])
            elif m != n:
                bad_moments.append((n, m))
    for b in site.boards.values():
        b.on_restart = on_restart
    a = request(site.core_port, "PUT", "/v1/sites/%s/labels" % SITE, json.dumps(["ring=canary"]))
    b = request(site.core_port, "PUT", "/v1/rollouts/root?kind=update", json.dumps({"stages": [{"label": "ring=canary", "soak_seconds": 1}]}))
    assert a.status == 204 and b.status == 204, (a.body, b.body)

    # A new file before the others moves all of them; the program has grown.
    image = make_image([("motd", b"a new file" * 600), ("greyd", site.greyd + b"second"), ("library", site.library)])
    second = pack(site, "2", 2, image)
    push(site, second)
    came, found = [0], [0]

    def watched():
        came[0], found[0] = max(came[0], counted(site, "grey_federation_supply_bytes_total")), max(found[0], counted(site, "grey_federation_supply_found_bytes_total"))
        return root(site)["version"] == 1
    wait_until("the second root to be in force", watched, 120)
    watched()
    first = wait_until("the first gateway to try it", lambda: [n for n, b in site.boards.items() if b.tries()], 120)[0]
    site.boards[first].cut = True
    wait_until("it on all gateways", lambda: root(site).get("health") == "healthy", 180)
    wait_until("all to keep it", lambda: not any(b.tries() or "floor      2" not in b.show() for b in site.boards.values()), 60)
    site.ok(len(second) < IMAGE_BYTES / 2 and 0 < came[0] < len(second) / 10 and came[0] + found[0] >= len(second) * 0.95,
            "of a root of %d bytes, %d in its bundle, %d came over the link, once for three gateways; %d were in the root that runs" % (IMAGE_BYTES, len(second), came[0], found[0]))
    site.ok(all(b.running() == "b" and b.slot("show").startswith("keeps b, tries -") and "floor      2" in b.show() for b in site.boards.values()) and not bad_moments,
            "all gateways run it, one after the other, although the power went during the first trial: %s" % bad_moments)
    with open(site.boards[first].at("slot-b"), "rb") as f:
        site.ok(f.read() == image, "what lies in the slot is the image that was packed")

    # One that does not get well.
    wait_until("the rollout to be done", lambda: rollout(site) == "done", 60)
    for b in site.boards.values():
        b.confirm_s = 4
    push(site, pack(site, "3", 3, make_image([("greyd", b"#!/bin/sh\nexec sleep 1000\n"), ("library", site.library)])))
    wait_until("it to be taken back", lambda: rollout(site) == "rolled-back", 180)
    wait_until("the root before to be in force again, and well", lambda: root(site)["version"] == 1 and root(site)["health"] == "healthy", 120)
    tried = [n for n, b in site.boards.items() if "failed-why 3308" in b.show()]
    site.ok(len(tried) == 1 and {b.running() for b in site.boards.values()} == {"b"} and not bad_moments, "one that does not get well is tried at one gateway, and left: %s %s" % (tried, bad_moments))


class Imaged(Site):
    def __init__(self):
        self.boards = {}
        super().__init__()
        subprocess.run(program("grey-update") + ["keygen", self.path("maker")], check=True)
        stripped = self.path("greyd.stripped")
        subprocess.run(["strip", "-o", stripped, os.path.join(BUILD, "greyd")], check=True)
        with open(stripped, "rb") as f:
            self.greyd = f.read()
        self.library = os.urandom(3 << 20)
        for n in self.nodes:
            with open(self.path("node%d" % n, "greyd.yaml"), "a") as f:
                f.write("update: {slots: \"%s\", product: %s, root: \"%s\", soak_secs: 2, turn_secs: 300}\n" % (self.path("node%d" % n, "slots"), BOARD, self.path("node%d" % n, "slot-running")))

    def start(self):
        self.start_broker()
        self.start_core()
        image = make_image([("greyd", self.greyd), ("library", self.library)])
        for n in self.nodes:
            os.makedirs(self.path("node%d" % n), exist_ok=True)
            self.boards[n] = Board(self, n, image)
            self.boards[n].boot()
            self.boards[n].start()
        self.wait_whole()
        return self

    def cleanup(self):
        for b in self.boards.values():
            b.stop()
        self.boards = {}
        super().cleanup()


run_test(test, Imaged)
