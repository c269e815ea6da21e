#!/usr/bin/env python3
"""What greyd takes: file sizes for every board that was built, what it links, what its features weigh, and what it holds in memory when
idle.  Writes docs/FOOTPRINT.md (make footprint); with --check it only judges the sizes and prints TAP: a gateway's flash is small."""
import glob, os, re, shutil, subprocess, sys, tempfile, time, urllib.request

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
LIMIT = 3 * 512 * 1024  # bytes of a stripped greyd
PROGRAMS = ("greyd", "greyctl", "grey-core", "grey-launch", "grey-tpm")
# What a source belongs to: the first that fits its path.
FEATURES = (("consensus: Raft, log, links to the other gateways", r"federation/(raft/|message|frame|entry|seal)|agent/node/"),
            ("storage and its mending", r"agent/(store|table)/|platform/(db|digest|compress)"),
            ("events and keys: the state machine", r"agent/state/|federation/record"),
            ("tasks: scheduler and executor", r"agent/(work|run|launch)/"),
            ("attestation, enrolment", r"agent/identity/|federation/attest/|platform/(tpm|csr|ekcert|credential)"),
            ("link to the core", r"agent/uplink/|federation/|platform/(mqtt|probe|netwatch)"),
            ("API", r"agent/api/|platform/(http|json)"),
            ("configuration", r"agent/config/|platform/yaml"),
            ("connections and keys", r"platform/(conn|cert|key|address|port)"),
            ("the rest: loop, log, metrics, wiring", r""))


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def board(name):
    """The build file of a board, as make reads it."""
    with open(os.path.join(ROOT, "boards", name, "build.mk")) as f:
        values = dict(re.findall(r"^(\w+) :=[ ]*(.*)$", f.read(), re.M))
    values["build"] = os.path.join(ROOT, "build", values["ARCH"] + ("-" + name if values["CPU_FLAGS"] else ""))
    return values


def stripped_bytes(b, program):
    path = os.path.join(b["build"], program)
    if not os.path.exists(path):
        return None
    with tempfile.NamedTemporaryFile() as f:
        run(tool(b, "strip"), "-o", f.name, path)
        return os.path.getsize(f.name)


def tool(b, name):
    cross = b["TRIPLE"] + "-" + name
    return cross if shutil.which(cross) else name


def segments(b, path):
    """text (with constants), data, bss."""
    return [int(n) for n in run(tool(b, "size"), path).splitlines()[1].split()[:3]]


def libraries(b):
    """The shared libraries of greyd, with those that they need: (name, file bytes)."""
    sysroot = os.path.join(ROOT, "build", "sysroot", b["ARCH"])
    found, wanted = {}, [os.path.join(b["build"], "greyd")]
    while wanted:
        for name in re.findall(r"NEEDED.*\[(.*)\]", run(tool(b, "readelf"), "-d", wanted.pop())):
            if name in found:
                continue
            for directory in ("lib/" + b["TRIPLE"], "usr/lib/" + b["TRIPLE"], "lib", "lib64"):
                path = os.path.join(sysroot if os.path.isdir(sysroot) else "/", directory, name)
                if os.path.exists(path):
                    found[name] = os.path.getsize(os.path.realpath(path))
                    wanted.append(path)
                    break
    return sorted(found.items(), key=lambda kv: -kv[1])


def features(b):
    """Bytes of code and constants of greyd's sources by feature, before the linker."""
    sums = dict.fromkeys((name for name, _ in FEATURES), 0)
    linked = names(b, os.path.join(b["build"], "greyd"))
    for folder in ("agent", "federation", "platform"):
        for path in glob.glob(os.path.join(b["build"], "obj", folder, "**", "*.o"), recursive=True):
            source = os.path.relpath(path, os.path.join(b["build"], "obj"))
            if os.path.exists(os.path.join(ROOT, source[:-2] + ".c")) and names(b, path) & linked - {"main"}:  # some are of another program
                text, data, _ = segments(b, path)
                sums[next(name for name, pattern in FEATURES if re.match("(%s)" % pattern, source))] += text + data
    return sums


def names(b, path):
    """Of the functions and variables that it gives to others."""
    return {line.split()[-1] for line in run(tool(b, "nm"), "-g", "--defined-only", path).splitlines() if line.split()}


def emulated_memory(boards):
    """What check-image saw: for each board the lines ROLE, resident KiB, share of them."""
    found = {}
    for name in boards:
        path = os.path.join(ROOT, "build", "image", name, "memory")
        if os.path.exists(path):
            with open(path) as f:
                found[name] = [line.split() for line in f]
    return found


def idle_memory(b):
    """KiB that one idle greyd holds, by where they come from: {what: (resident, private)}."""
    directory = tempfile.mkdtemp(prefix="grey-footprint-")
    port = 11000 + os.getpid() % 20000
    p = subprocess.Popen([os.path.join(b["build"], "greyd"), "--mode", "single", "--data-dir", directory, "--bootstrap", "--http-addr", "127.0.0.1:%d" % port, "--config", "/dev/null"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen("http://127.0.0.1:%d/health/ready" % port, timeout=2).read()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        time.sleep(3)
        sums, what = {}, None
        with open("/proc/%d/smaps" % p.pid) as f:
            for line in f:
                head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line)
                if head:
                    name = head.group(1).strip()
                    what = os.path.basename(name) if name.startswith("/") else name if name in ("[heap]", "[stack]") else "[other: threads, their stacks]"
                else:
                    key, value = line.split(":")[0], line.split()[1]
                    resident, private = sums.get(what, (0, 0))
                    if key == "Rss":
                        sums[what] = (resident + int(value), private)
                    elif key == "Private_Dirty":
                        sums[what] = (resident, private + int(value))
        return sums
    finally:
        p.terminate()
        p.wait(30)
        subprocess.run(["rm", "-rf", directory], check=True)


def kib(n):
    return "%.0f" % (n / 1024)


def main():
    boards = {n: board(n) for n in sorted(os.listdir(os.path.join(ROOT, "boards"))) if os.path.isdir(os.path.join(ROOT, "boards", n))}
    built = {n: b for n, b in boards.items() if os.path.exists(os.path.join(b["build"], "greyd"))}
    if "--check" in sys.argv:
        for number, (name, b) in enumerate(built.items(), 1):
            size = stripped_bytes(b, "greyd")
            print("%s %d - %s: a stripped greyd of %s KiB, at most %s" % ("ok" if size <= LIMIT else "not ok", number, name, kib(size), kib(LIMIT)))
        print("1..%d" % len(built))
        return 0
    out = ["# Footprint", "", "What `greyd` takes on each board: written by `make footprint` (`tests/bench/footprint.py`), checked with `make check-cross`. A stripped `greyd` without its",
           "shared libraries is at most %s KiB." % kib(LIMIT), "", "## Programs, stripped, KiB", "",
           "| board | architecture, flags | " + " | ".join(PROGRAMS) + " | code and constants | data | zeroed data |", "|---|---|" + "---|" * (len(PROGRAMS) + 3)]
    for name, b in built.items():
        text, data, bss = segments(b, os.path.join(b["build"], "greyd"))
        sizes = [stripped_bytes(b, p) for p in PROGRAMS]
        out.append("| `%s` | %s %s | %s | %s | %s | %s |" % (name, b["ARCH"], b["CPU_FLAGS"], " | ".join("" if s is None else kib(s) for s in sizes), kib(text), kib(data), kib(bss)))
    out += ["", "The last three columns are greyd's: the first is shared with the page cache and can be dropped, the others are what it holds before it starts.", ""]
    arches = {}
    for b in built.values():
        arches.setdefault(b["ARCH"], b if not b["CPU_FLAGS"] else arches.get(b["ARCH"], b))
    tables = {a: dict(libraries(b)) for a, b in arches.items()}
    # Versions in names differ between machines only for the C library's loader.
    names = sorted({n for t in tables.values() for n in t}, key=lambda n: -max(t.get(n, 0) for t in tables.values()))
    out += ["## Shared libraries, file size in KiB", "", "With those that they need; libmosquitto and its OpenSSL come on top at the leader of a site with a core (`libmosquitto.so.1`, loaded when first needed).",
            "", "| library | " + " | ".join(tables) + " |", "|---|" + "---|" * len(tables)]
    out += ["| %s | %s |" % (n, " | ".join(kib(t[n]) if n in t else "" for t in tables.values())) for n in names]
    out += ["| together | %s |" % " | ".join(kib(sum(t.values())) for t in tables.values()), "", "## Features: code, constants and data of greyd's objects, KiB", ""]
    weights = {a: features(b) for a, b in arches.items()}
    out += ["| feature | " + " | ".join(weights) + " |", "|---|" + "---|" * len(weights)]
    out += ["| %s | %s |" % (name, " | ".join(kib(w[name]) for w in weights.values())) for name, _ in FEATURES]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "armhf")
    if machine in arches:
        memory = idle_memory(arches[machine])
        out += ["", "## Memory of one idle greyd (%s, single, default configuration), KiB" % machine, "", "Resident, and of that what is its own and written (not shared with other programs, cannot be dropped).",
                "", "| from | resident | own |", "|---|---|---|"]
        rows = sorted(memory.items(), key=lambda kv: (-kv[1][1], -kv[1][0]))
        out += ["| %s | %d | %d |" % (n, r, p) for n, (r, p) in rows if r >= 64]
        out += ["| others | %d | %d |" % (sum(r for _, (r, _) in rows if r < 64), sum(p for _, (r, p) in rows if r < 64)),
                "| together | %d | %d |" % (sum(r for r, _ in memory.values()), sum(p for _, p in memory.values()))]
    emulated = emulated_memory(boards)
    if emulated:
        out += ["", "## Memory of greyd on emulated boards, KiB", "", "Three gateways of a site over TLS that have a core, 192 MiB of memory each (a PC 320), idle for half a minute "
                "(`make check-image`). The leader holds libmosquitto and its OpenSSL beside, and who has led keeps them.", "", "| board | role | resident | its share (PSS) |", "|---|---|---|---|"]
        out += ["| `%s` | %s | %s | %s |" % (name, role, rss, pss) for name, lines in emulated.items() for role, rss, pss in sorted(lines)]
    with open(os.path.join(ROOT, "docs", "FOOTPRINT.md"), "w") as f:
        f.write("\n".join(out) + "\n")
    print("docs/FOOTPRINT.md: %d boards" % len(built))
    return 0


sys.exit(main())
