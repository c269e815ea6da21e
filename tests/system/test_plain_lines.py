#!/usr/bin/env python3
"""The deployment guide's three plain command lines, as typed: the first thing that many people try."""
from harness import *

LINES = ["--node-id 1 --http-addr 127.0.0.1:8081 --grpc-addr 127.0.0.1:9001 --data-dir ./data/node1 --bootstrap",
         "--node-id 2 --http-addr 127.0.0.1:8082 --grpc-addr 127.0.0.1:9002 --data-dir ./data/node2 --join 127.0.0.1:9001",
         "--node-id 3 --http-addr 127.0.0.1:8083 --grpc-addr 127.0.0.1:9003 --data-dir ./data/node3 --join 127.0.0.1:9001"]


def taken(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


scratch = tempfile.mkdtemp(prefix="grey-test-")
if any(taken(p) for p in (8081, 8082, 8083, 9001, 9002, 9003)):
    print("ok 1 - the guide's plain lines # SKIP their fixed ports are in use (is `make up` running?)")
    sys.exit(0)
processes, failed = [], 0


def ok(number, condition, text):
    global failed
    failed += not condition
    print("%sok %d - %s" % ("" if condition else "not ", number, text), flush=True)


try:
    for i, line in enumerate(LINES):
        log = open(os.path.join(scratch, "%d.log" % (i + 1)), "wb")
        processes.append(subprocess.Popen([os.path.join(BUILD, "greyd")] + line.split(), cwd=scratch, stdout=log, stderr=log))
    wait_until("three voters", lambda: [m["kind"] for m in request(8083, "GET", "/v1/cluster/members").json()] == ["voter"] * 3, 60)
    ok(1, True, "three voters on each other's word")
    wait_until("a write at one", lambda: request(8082, "PUT", "/v1/kv/a", "1").status in (200, 201), 60)
    ok(2, wait_until("an answer of another", lambda: (lambda a: a.status in (200, 404) and a)(request(8083, "GET", "/v1/kv/a")), 60).body == b"1", "written at one, read at another")
    ok(3, all(b"plain" in open(os.path.join(scratch, "%d.log" % n), "rb").read() for n in (1, 2, 3)), "each warns that its links are plain")
    r = subprocess.run([os.path.join(BUILD, "greyd")] + LINES[0].split(), cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    ok(4, r.returncode == 1 and "GREY-4008" in r.stdout, "a second one on the same data is refused: %s" % r.stdout.splitlines()[-2][-120:])
    other = LINES[0].replace("node1", "node9")
    r = subprocess.run([os.path.join(BUILD, "greyd")] + other.split(), cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    ok(5, r.returncode == 1 and "GREY-4004" in r.stdout and "greyd" in r.stdout, "a port in use is refused and its owner named")
    leader = wait_until("a leader", lambda: request(8081, "GET", "/v1/cluster/leader").json()["leader_id"], 30)
    processes[int(leader) - 1].kill()
    rest = [p for n, p in ((1, 8081), (2, 8082), (3, 8083)) if str(n) != leader]
    new = wait_until("a new leader", lambda: (lambda l: l["leader_id"] != leader and l)(request(rest[0], "GET", "/v1/cluster/leader").json()), 30)
    ok(6, new, "the leader is stopped: another leads")
    for bad, code in (("--nonsense", 2), ("--node-id", 2), ("--node-id a/b --data-dir x", 2), ("--config /nonexistent.yaml", 2), ("--http-addr 0.0.0.0:80", 2)):
        r = subprocess.run([os.path.join(BUILD, "greyd")] + bad.split(), cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
        ok(7, r.returncode == code and "->" in r.stdout, "greyd %s: exit code %d and a remedy" % (bad, r.returncode))
    for name in ("dev.yaml", "edge-config.yaml"):
        r = subprocess.run([os.path.join(BUILD, "greyd"), "--check-config", "--config", os.path.join(ROOT, "tests/unit/data", name)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        ok(8, r.returncode == 0 and "acceptable" in r.stdout, "%s is accepted as it is" % name)
except Exception as e:
    ok(9, False, "%s: %s" % (type(e).__name__, e))
    for n in (1, 2, 3):
        print("# " + open(os.path.join(scratch, "%d.log" % n), errors="replace").read()[-600:].replace("\n", "\n# "))
finally:
    for p in processes:
        p.kill()
        p.wait()
    shutil.rmtree(scratch, ignore_errors=True)
sys.exit(failed > 0)
