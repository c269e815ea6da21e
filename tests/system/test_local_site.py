#!/usr/bin/env python3
"""Whoever tries Grey Edge would be left with processes that do not start, a site that nobody attests, or one in which tampering goes unseen: the scripts
of `make up` and `make down`, with ports and a folder of their own."""
from harness import *

PERIOD = 5  # seconds; `make up` has 20
FOLDER = tempfile.mkdtemp(prefix="grey-up-")
RESULTS = []


def ports_in_a_row(count):
    """base: base + 1 ... base + count are free, and locked as those of free_ports are."""
    while True:
        base = free_ports(1)[0]
        try:
            for n in range(1, count + 1):
                lock = open(os.path.join(tempfile.gettempdir(), "grey-port-%d" % (base + n)), "a")
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locks.append(lock)
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", base + n))
            return base
        except OSError:
            continue


HTTP, PEER, (BROKER, CORE, ENROLL) = ports_in_a_row(3), ports_in_a_row(3), free_ports(3)
ENVIRONMENT = dict(os.environ, RUN=FOLDER, BUILD=BUILD, GREY_HTTP_PORT=str(HTTP), GREY_PEER_PORT=str(PEER), GREY_BROKER_PORT=str(BROKER), GREY_CORE_PORT=str(CORE),
                   GREY_ENROLL_PORT=str(ENROLL), GREY_ATTEST_PERIOD=str(PERIOD))


def script(name):
    return subprocess.run([os.path.join(ROOT, "deploy/local", name)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)


def ok(condition, text):
    RESULTS.append(bool(condition))
    print("%sok %d - %s" % ("" if condition else "not ", len(RESULTS), text), flush=True)


def words(asked):
    return {m["id"]: m["attestation"] for m in request(HTTP + asked, "GET", "/v1/cluster/members").json()}


def left():
    """Processes whose recorded number is still somebody of this folder."""
    names = []
    for name in os.listdir(FOLDER):
        if name.endswith(".pid"):
            with open(os.path.join(FOLDER, name)) as f:
                try:
                    with open("/proc/%s/cmdline" % f.read().strip()) as c:
                        names += [name] if FOLDER in c.read() else []
                except OSError:
                    pass
    return names


def test():
    done = script("start-cluster.sh")
    ok(done.returncode == 0, "the site starts%s" % ("" if done.returncode == 0 else ": " + done.stdout[-500:]))
    trusted = lambda: (lambda w: set(w.values()) == {"trusted"} and w)(words(1))
    ok(True, "and its three gateways are trusted: %s" % wait_until("all to be trusted", trusted))
    done = script("first-steps.sh")
    ok(os.path.exists(os.path.join(FOLDER, "first-steps")), "first steps: %s" % done.stdout.splitlines()[:1])
    good = lambda done: done.returncode == 0 and done.stdout.startswith("OK: 3 of 3 nodes")
    ok(good(done) or wait_until("nobody to be suspect", lambda: good(script("first-steps.sh"))), "and all is well after them")
    again = script("start-cluster.sh")
    ok(again.returncode == 0 and "gateway" not in again.stdout.split("waiting")[0], "started again, it starts nothing")
    for _ in range(20):  # the TPM takes one caller at a time
        done = subprocess.run(["tpm2_pcrextend", "-T", "swtpm:path=%s/node2/swtpm.sock" % FOLDER, "4:sha256=%064x" % 7], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0:
            break
        time.sleep(0.2)
    ok(done.returncode == 0, "somebody tampers with gateway 2 %s" % done.stdout)
    status = [os.path.join(BUILD, "greyctl"), "--addr", "http://127.0.0.1:%d" % (HTTP + 1), "status"]
    shown = wait_until("the quarantine", lambda: [l for l in subprocess.run(status, stdout=subprocess.PIPE, text=True).stdout.splitlines()[:1] if "in quarantine: 2" in l])
    ok(words(1)["2"] == "failed", "greyctl status says so: %s" % shown[0])
    done = script("stop-cluster.sh")
    ok(done.returncode == 0 and not left(), "stopped, nothing is left running: %s" % left())
    done = script("start-cluster.sh")
    ok(done.returncode == 0 and wait_until("all to be trusted", trusted), "started as a whole, machines anew, all are trusted: %s" % done.stdout[-200:])


try:
    test()
except Exception as e:
    ok(False, "%s: %s" % (type(e).__name__, e))
finally:
    script("stop-cluster.sh")
print("1..%d" % len(RESULTS))
if all(RESULTS):
    shutil.rmtree(FOLDER, ignore_errors=True)
else:
    print("# what is there: " + FOLDER)
sys.exit(0 if all(RESULTS) else 1)
