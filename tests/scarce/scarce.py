#!/usr/bin/env python3
"""scarce.py BUILD SAMPLES [TEST...]: each unit test runs again and again, each time without one of its allocations (SAMPLES of them, spread evenly; 0:
all), whichever library makes it, and without that one and all the next hundred.  The test may fail: a test asks for what it needs.  A module
must not: if it crashed, hung or broke an invariant for want of memory, a small gateway would go down at the moment when it has most to do.  TAP."""
import os, re, signal, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
PERHAPS = "to be looked at: "
LEFT_OUT = {"test_apart", "test_cage", "test_runs"}  # they start tasks in sessions of their own, which would outlive a test that ends early
MEANT = {"platform/loop.c:115"}  # no room for the place of a timer: docs/STORAGE.md
LONGEST = 6  # seconds; a test that takes longer is left out where not all is asked for


def place(program, text):
    """Where it crashed: the frames of ours, innermost first."""
    frames = []
    for line in text[text.rindex("scarce: signal"):].splitlines()[1:]:
        m = re.match(r"^(.*)\((.*)\+?(0x[0-9a-f]*)?\)\[(0x[0-9a-f]+)\]$", line)
        if m and os.path.basename(m.group(1)) == os.path.basename(program):
            at = re.search(r"\(\+?([^)]*)\)", line).group(1)
            frames.append(at)
    if not frames:
        return []
    told = subprocess.run(["addr2line", "-f", "-e", program] + [hex(int(f, 16) - 1) if f.startswith("0x") else f for f in frames], stdout=subprocess.PIPE, text=True).stdout.splitlines()
    pairs = ["%s %s" % (os.path.normpath(told[i + 1]), told[i]) for i in range(0, len(told) - 1, 2)]
    return [p for p in pairs if not p.startswith("??")]


def run_alone(program, environment, seconds):
    """What it said; None: it did not end in time.  In a session of its own: without memory a test may send signals to whom it did not mean."""
    with tempfile.TemporaryFile() as said:
        p = subprocess.Popen([program], env=environment, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            p.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        late = p.poll() is None
        try:
            os.killpg(p.pid, signal.SIGKILL)  # and what it left behind
        except ProcessLookupError:
            pass
        p.wait()
        said.seek(0)
        return None if late else said.read().decode(errors="replace")


def one(program, library, folder, seconds, at, run):
    """None, or what went wrong in a module."""
    environment = dict(os.environ, LD_PRELOAD=library, SCARCE_AT=str(at), SCARCE_RUN=str(run), CMOCKA_MESSAGE_OUTPUT="TAP", TMPDIR=folder)
    text = run_alone(program, environment, seconds)
    if text is None or "scarce: signal" not in text:
        return None  # hangs of the whole are looked for in test_scarce_memory.py: a test may wait for an answer that it made impossible
    frames = place(program, text)
    own = [f for f in frames if not re.search(r" (must_failed|crashed)$", f)]
    broken = re.search(r"broken invariant at (\S+)", text)
    where = broken.group(1) if broken else own[0] if own else "unknown"
    if os.path.normpath(where).startswith("tests/") or where in MEANT:
        return None  # the test's own
    direct = not broken and any(f.startswith("tests/") for f in own[1:3])  # it was handed what the test did not get, more often than not
    return (PERHAPS if direct else "") + "%s  allocation %d (%d): %s  < %s" % (os.path.basename(program), at, run, where, " < ".join(own[:5]))


def main(build, samples, *names):
    names = names or sorted(n for n in os.listdir(os.path.join(build, "tests")) if n.startswith("test_"))
    with tempfile.TemporaryDirectory(prefix="grey-scarce-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        library = os.path.join(folder, "scarce_unit.so")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, os.path.join(HERE, "scarce_unit.c")], check=True)
        number = 0
        for name in names:
            if name in LEFT_OUT:
                continue
            number += 1
            program, count = os.path.abspath(os.path.join(build, "tests", name)), os.path.join(folder, "count")
            began = time.monotonic()
            if os.path.exists(count):
                os.unlink(count)
            said = run_alone(program, dict(os.environ, LD_PRELOAD=library, SCARCE_COUNT=count), LONGEST if samples else 600)
            if said is None or not os.path.exists(count):
                print("ok %d - %s # SKIP it takes too long, or fails" % (number, name), flush=True)
                continue
            with open(count) as f:
                total = int(f.read())
            seconds = 3 * (time.monotonic() - began) + 3
            step = max(1, total // samples) if samples else 1
            tries = [(at, run) for at in range(1, total + 1, step) for run in (1, 100)]
            with ThreadPoolExecutor(2) as pool:
                faults = sorted({f for f in pool.map(lambda t: one(program, library, folder, seconds, *t), tries) if f})
            print("%s %d - %s: %d of %d allocations" % ("not ok" if any(not f.startswith(PERHAPS) for f in faults) else "ok", number, name, len(tries) // 2, total), flush=True)
            for fault in faults[:8]:
                print("# " + fault, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
