#!/usr/bin/env python3
"""Images and artifacts: what a task is to run in, and with which files.  If this failed, a gateway would run something else than what was
ordered, an image could write over the gateway's own files, or a task that only needs a small program would need a computer that has it."""
from launchers import *
from oci_image import *
import shutil

MIB = 1024 * 1024
BUSYBOX = next((p for p in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(p)), None)


def why_not():
    """Why images cannot be run here, by the word of other tools: a sandbox may not let users make namespaces."""
    if shutil.which("crun") is None or BUSYBOX is None:
        return "crun or busybox-static is not installed"
    if subprocess.run(["ldd", BUSYBOX], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).returncode == 0:
        return BUSYBOX + " is not static"
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    tried = subprocess.run(nobody + ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if tried.returncode == 0 else "users may not make namespaces here: " + tried.stdout.strip()


def test(site):
    def call(method, path, body=None):
        return request(site.http[1], method, path, None if body is None else json.dumps(body), timeout=20)

    def task(name):
        return call("GET", "/v1/tasks/" + name).json()

    def submit(name, expect=201, **more):
        order = {"id": name, "resources": {"cpu_millicores": 200, "memory_bytes": 64 * MIB}}
        a = call("POST", "/v1/tasks", dict(order, **more))
        assert a.status == expect, (a.status, a.body)
        return a.json()

    def wait_state(name, *states, seconds=60):
        return wait_until("%s to be %s" % (name, states), lambda: (lambda t: t["state"] in states and t)(task(name)), seconds)

    def logs(name, stream="stdout"):
        return site.ctl("task", "logs", name, "--stream", stream).stdout

    def run(name, **more):
        submit(name, **more)
        t = wait_state(name, "completed", "failed")
        return t, logs(name), logs(name, "stderr")

    # Submitting needs a task form of feature level 6, which a site has when all its gateways do.
    wait_until("the gateway to take tasks", lambda: [n["condition"] for n in call("GET", "/v1/quotas").json()["nodes"]] == ["ready"], 60)
    os.chmod(site.path(), 0o711)
    shelf = site.path("shelf")
    os.mkdir(shelf)

    # Files and artifacts.
    with open(shelf + "/tool", "wb") as f:
        f.write(b"#!/bin/sh\necho tool $(cat settings)\n")
    os.chmod(shelf + "/tool", 0o644)
    hash_of = lambda content: hashlib.sha256(content).hexdigest()
    tool = {"path": shelf + "/tool", "sha256": hash_of(open(shelf + "/tool", "rb").read()), "mode": "0755"}
    settings = {"name": "settings", "text": "as ordered"}
    t, out, err = run("given", command=["./tool"], files=[settings], artifacts=[tool])
    site.ok(t["state"] == "completed" and out == "tool as ordered\n", "a task has the files that it was given: %r %r" % (out, err))
    site.ok(t["artifacts"] == [dict(tool, name="tool")] and t["files"][0]["text"] == "as ordered", "and says which")
    t, out, err = run("differs", command=["./tool"], artifacts=[dict(tool, sha256="00" * 32)])
    site.ok((t["state"], t["reason"]) == ("failed", "artifact") and "tool: differs" in err, "one that differs is refused: %r" % err.strip())

    # Data of the core, by hash, from what the site holds.
    model = bytes(range(256)) * 1024
    a = request(site.core_port, "PUT", "/v1/data/model", model, {"Content-Type": "application/octet-stream"})
    assert a.status in (200, 201), (a.status, a.body)
    wait_until("the data to be here", lambda: call("GET", "/v1/data/model").status == 200, 60)
    named = {"object": "model", "sha256": hash_of(model)}
    t, out, err = run("learned", command=["/bin/sh", "-c", "sha256sum model; stat -c %a model"], artifacts=[named])
    site.ok(t["state"] == "completed" and out == "%s  model\n644\n" % named["sha256"], "data that the core gave is an artifact: %r %r" % (out, err))
    run("again", command=["/bin/cksum", "other"], artifacts=[dict(named, name="other")])
    said = open(site.path("launch1.log")).read()
    site.ok(said.count("launch artifact sha256=%s" % named["sha256"][:16]) == 1, "it came to the launcher once, for both")
    t, out, err = run("wrong", command=["/bin/true"], artifacts=[dict(named, sha256="11" * 32)])
    site.ok((t["state"], t["reason"]) == ("failed", "artifact"), "data with another hash is refused")
    t, out, err = run("absent", command=["/bin/true"], artifacts=[{"object": "nothing", "sha256": "11" * 32}])
    site.ok((t["state"], t["reason"]) == ("failed", "artifact"), "so is data that the core has not given")

    # The submitter's choices that do not go together are said at once.
    refused = submit("bad", expect=400, command=["/bin/true"], delivery="at-most-once", on_isolation="keep")
    site.ok("most once" in json.dumps(refused), "at most once implies that it stops with the contact")

    # A task is asked to stop in its own way, and has its own time for it.
    submit("polite", command=["/bin/sh", "-c", "trap 'echo saved; exit 0' USR1; echo ready; while :; do sleep 0.1; done"], stop_signal="USR1", stop_grace_ms=30000)
    wait_until("it to be ready", lambda: logs("polite") == "ready\n", 30)
    call("DELETE", "/v1/tasks/polite")
    wait_until("it to put things in order", lambda: logs("polite") == "ready\nsaved\n", 30)
    site.ok(True, "a task is stopped by the signal that it asked for, and puts its work in order")

    # Images.
    reason = why_not()
    if reason:
        site.ok(True, "images: # SKIP %s" % reason)
        return
    with open(BUSYBOX, "rb") as f:
        busybox = f.read()
    base = [("bin/", None), ("bin/busybox", busybox), ("etc/", None), ("old/", None), ("old/a", b"a"), ("old/b", b"b"), ("gone", b"gone"), ("usr/", None), ("lib", ("symlink", "usr")), ("var/tmp/", None)]
    base += [("bin/" + n, ("link", "bin/busybox")) for n in ("sh", "cat", "ls", "id", "sleep", "echo", "touch", "ps", "wc")]
    over = [(".wh.gone", b""), ("old/.wh..wh..opq", b""), ("old/c", b"c"), ("lib/through", b"through a link"), ("etc/motd", b"welcome"), ("abs", ("symlink", "/etc/motd"))]
    config = {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["cat /etc/motd; echo; ls /old; ls /gone; cat /usr/through; cat /abs; echo; id -u; pwd; echo $FROM_IMAGE $FROM_TASK $GREY_TASK"], "Env": ["FROM_IMAGE=image", "PATH=/bin"], "WorkingDir": "/etc"}
    image = Image([layer(base), layer(over)], config)
    folder, packed = image.directory(shelf + "/image"), image.archive(shelf + "/image.tar")
    plain = Image([layer(base), layer(over)], config, packed=False).archive(shelf + "/plain.tar")
    wanted = "welcome\nc\nthrough a linkwelcome\n0\n/etc\nimage task %s\n"
    t, out, err = run("image", oci={"image": folder}, env={"FROM_TASK": "task"})
    site.ok(t["state"] == "completed" and out == wanted % "image", "an image is unpacked, its layers one over the other, and run by crun: %r %r" % (out, err))
    site.ok("/gone" in err and "a" not in out.split("\n")[1], "what an upper layer took away is not there")
    for name, path in (("archive", packed), ("plain", plain)):
        t, out, err = run(name, oci={"image": path}, env={"FROM_TASK": "task"})
        site.ok(t["state"] == "completed" and out == wanted % name, "so is one in %s: %r" % (path.rsplit("/")[-1], err))

    # Inside, a task has its files, is bounded, and sees nothing of the gateway.
    t, out, err = run("inside", oci=folder, command=["/bin/sh", "-c", "cd /grey; cat settings; echo; busybox test $(ls -d /proc/[0-9]* | wc -l) -lt 9 && echo few; ls -d %s; busybox grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; busybox mount -t tmpfs x /tmp; touch mine; busybox grep -c : /proc/net/dev" % shelf],
                      files=[settings], isolate={"network": "none"})
    site.ok(sorted(out.split("\n")) == sorted("as ordered\nfew\nNoNewPrivs:\t1\nSeccomp:\t2\nCapEff:\t0000000000000000\n1\n".split("\n")),
            "inside it has its files, no rights, no other processes, no network: %r %r" % (out, err))
    site.ok("No such file" in err and "denied" in err, "and sees nothing of the gateway")
    t, out, err = run("status", oci=folder, command=["/bin/sh", "-c", "exit 7"])
    site.ok((t["state"], t["reason"], t["exit_status"]) == ("failed", "exit", 7), "it ends as its program does")

    t, out, err = run("unable", oci=folder, command=["/no/such/program"])
    site.ok((t["state"], t["reason"]) == ("failed", "image") and "/no/such/program" in err, "what the image has not cannot be run: %r" % err.strip())

    # Probes ask where it is: on a loopback that only it has.
    served = {"oci": folder, "command": ["/bin/busybox", "httpd", "-f", "-vv", "-p", "127.0.0.1:8099", "-h", "/etc"], "isolate": {"network": "none"}}
    submit("well", health={"http": {"port": 8099, "path": "/motd"}, "delay_seconds": 1, "interval_seconds": 1, "failures": 60}, **served)
    submit("sick", health={"http": {"port": 8099, "path": "/absent"}, "delay_seconds": 1, "interval_seconds": 1, "failures": 2}, **served)
    t = wait_state("sick", "failed")
    wait_until("a probe to be answered", lambda: "response:200" in logs("well", "stderr"), 60)
    site.ok(t["reason"] == "probe" and task("well")["state"] == "running", "health probes reach into a network that only the task has")
    call("DELETE", "/v1/tasks/well")

    # Stop: the word reaches the program; its processes go with it.
    submit("stays", oci=folder, command=["/bin/sh", "-c", "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.1; done", "mark-image"])
    wait_until("it to be ready", lambda: logs("stays") == "ready\n", 30)
    marked = lambda: subprocess.run(["pgrep", "-f", "mark-image"], stdout=subprocess.PIPE).stdout.split()
    token = task("stays")["token"]
    # greyd goes and comes back: the image runs on and is adopted.
    before = set(marked())  # with what it forks just now, which looks like it until it is something else
    site.kill("node1")
    site.start_node(1)
    wait_until("greyd to have its launcher again", lambda: open(site.path("launch1.log")).read().count("launch greyd ") >= 2, 60)
    wait_until("the site to answer", lambda: call("GET", "/v1/tasks/stays").status == 200, 60)
    time.sleep(2)
    t = task("stays")
    now = wait_until("a moment without a fork", lambda: (lambda m: m <= before and m)(set(marked())), 30)
    site.ok(now and (t["state"], t["token"]) == ("running", token), "an image outlives greyd and is adopted")
    call("DELETE", "/v1/tasks/stays")
    wait_until("it to put things in order", lambda: logs("stays") == "ready\nsaved\n", 30)
    wait_until("it to be gone", lambda: not marked(), 30)
    site.ok(True, "an image is stopped by word, then gone")
    submit("deaf", oci=folder, command=["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done", "mark-image"], stop_grace_ms=500)
    wait_until("it to be ready", lambda: logs("deaf") == "ready\n", 30)
    call("DELETE", "/v1/tasks/deaf")
    wait_until("it to be gone", lambda: not marked(), 30)
    site.ok(True, "one that does not listen is killed")

    # Its launcher is killed: nothing of it goes on unwatched, and it runs again under another token.
    submit("orphan", oci=folder, command=["/bin/sh", "-c", "echo ready; while :; do sleep 0.1; done", "mark-image"])
    wait_until("it to be ready", lambda: logs("orphan") == "ready\n", 30)
    first, token = set(marked()), task("orphan")["token"]
    site.kill("launch1")
    wait_until("it to be gone with its launcher", lambda: not first & set(marked()), 30)
    start_launcher(site, 1)
    wait_until("another run", lambda: (lambda t: t["state"] == "running" and t["token"] > token and t)(task("orphan")), 60)
    site.ok(True, "an image dies with its launcher and runs again")
    call("DELETE", "/v1/tasks/orphan")
    wait_until("it to be gone", lambda: not marked(), 30)

    # As whom it sees itself: a number or a name of its own files, mapped to the task's user; no right comes with it.
    people = [("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"), ("etc/group", b"root:x:0:\nwheel:x:70:app\n")]

    def as_user(name):
        return Image([layer(base), layer(people)], dict(config, User=name, Cmd=["id -u; id -g; echo mine >/made && cat /made; busybox stat -c %u /bin/sh /grey; busybox grep CapEff /proc/self/status"]))
    for name, user, uid, gid in (("by-number", "1000", 1000, 1001), ("by-name", "app:wheel", 1000, 70), ("unlisted", "65000:3", 65000, 3), ("as-root", "root", 0, 0)):
        t, out, err = run(name, oci={"image": as_user(user).directory(shelf + "/" + name)})
        site.ok(t["state"] == "completed" and out == "%d\n%d\nmine\n%d\n%d\nCapEff:\t0000000000000000\n" % (uid, gid, uid, uid), "User %s: %r %r" % (user, out, err))
    submit("named", oci={"image": as_user("app").directory(shelf + "/named")}, command=["/bin/sh", "-c", "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.1; done", "mark-image"])
    wait_until("it to be ready", lambda: logs("named") == "ready\n", 30)
    call("DELETE", "/v1/tasks/named")
    wait_until("it to put things in order", lambda: logs("named") == "ready\nsaved\n" and not marked(), 30)
    site.ok(True, "one that is not root inside is stopped by word as well")

    # A bundle, whose root is not changed.
    bundle = shelf + "/bundle"
    os.makedirs(bundle + "/rootfs/bin")
    for name in ("proc", "dev", "tmp"):
        os.mkdir(bundle + "/rootfs/" + name)
    for name in ("busybox", "sh", "id"):
        shutil.copy(BUSYBOX, bundle + "/rootfs/bin/" + name)
    with open(bundle + "/config.json", "w") as f:
        json.dump({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["/bin/sh", "-c", "echo bundle; echo x >/new"], "cwd": "/", "capabilities": {"effective": ["CAP_SYS_ADMIN"]}},
                   "mounts": [{"destination": "/tmp", "type": "none", "source": "/", "options": ["rbind"]}]}, f)
    t, out, err = run("bundle", oci={"bundle": bundle})
    site.ok(out == "bundle\n" and "Read-only" in err and not os.path.exists(bundle + "/rootfs/new"), "a bundle is run, and its root not changed: %r %r" % (out, err))

    # What is not what it says, or would reach outside, is refused with a word.
    def refuse(name, made, word, **more):
        t, out, err = run(name, oci={"image": made.directory(shelf + "/" + name)}, **more)
        site.ok((t["state"], t["reason"]) == ("failed", "image") and word in err and out == "", "%s: refused: %r" % (name, err.strip()))

    refuse("nobody-there", as_user("nemo"), "no nemo in its /etc/passwd")
    damaged = Image([layer(base)], config)
    damaged.blobs[damaged.layers[0]["digest"][7:]] = b"x" + damaged.blobs[damaged.layers[0]["digest"][7:]][1:]
    refuse("damaged", damaged, "")
    swapped = Image([layer(base), layer(over)], config)
    swapped.blobs[swapped.layers[1]["digest"][7:]] = swapped.blobs[swapped.layers[0]["digest"][7:]]
    refuse("swapped", swapped, "differs")
    victim = "/var/tmp/grey-victim-%d" % os.getpid()
    refuse("dots", Image([layer([("../" * 12 + victim.lstrip("/"), b"!")])], config), "leads out")
    refuse("large", Image([layer([("large", bytes(3 * MIB))])], config), "does not fit", resources={"cpu_millicores": 200, "memory_bytes": 64 * MIB, "disk_bytes": 2 * MIB})
    absent = Image([layer(base)], config)
    del absent.blobs[absent.layers[0]["digest"][7:]]
    refuse("lacking", absent, "there is none")
    links = [("out", ("symlink", os.path.dirname(victim))), ("out/" + os.path.basename(victim), b"!"), ("up", ("symlink", "../../../../../../../.." + os.path.dirname(victim))), ("up/" + os.path.basename(victim), b"!")]
    t, out, err = run("links", oci={"image": Image([layer(base), layer(links)], config).directory(shelf + "/links")}, command=["/bin/ls", os.path.dirname(victim)])
    site.ok(not os.path.exists(victim) and out == os.path.basename(victim) + "\n", "a link that leads outside leads to the image's own root: %r %r" % (out, err))

    # Where the gateway's owner wants none as root, not even as a root that is none outside.
    site.kill("launch1")
    start_launcher(site, 1, "--image-root", "refuse")
    refuse("no-user", Image([layer(base)], config), "GREY-1027")
    refuse("zero", as_user("0:70"), "GREY-1027")
    t, out, err = run("no-root", oci={"image": as_user("app").directory(shelf + "/no-root")})
    site.ok(t["state"] == "completed" and out.startswith("1000\n"), "one with a User of its own is run: %r %r" % (out, err))
    wait_until("what was unpacked to be gone", lambda: not any(os.path.exists(site.path("launch1", "runs", r, "image")) for r in os.listdir(site.path("launch1", "runs"))), 30)
    site.ok(True, "nothing that was unpacked stays")


run_test(test, site_class=WithLaunchers, nodes=1)
