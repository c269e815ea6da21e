#!/usr/bin/env python3
"""replay.py BUILD FOLDER [CUTS]: a power cut at the boundaries of the writes that recorder.py saw, as the disk saw them.  If this failed, a
gateway in a plant would lose alarms when the power goes, or wait for somebody with a keyboard.

For each boundary: what a disk may hold then - all, nothing, or any part, torn at sectors, of what was written since the last sync - is mounted without
fsck, a gateway is started on it, and everything that was acknowledged before must be there.  CUTS: that many boundaries, spread evenly; without it
all.  TAP.  The record: see recorder.py."""
import os, random, shutil, struct, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import Gateway, free_port

HEADING, SECTOR = struct.Struct("<cQI"), 512


class Step:
    def __init__(self, kind, at, size, source):
        self.kind, self.at, self.size, self.source = kind, at, size, source  # source: where its bytes stand in the record


def read_record(record):
    steps, at, end = [], 0, os.fstat(record).st_size
    while at < end:
        kind, offset, size = HEADING.unpack(os.pread(record, HEADING.size, at))
        steps.append(Step(kind, offset, size, at + HEADING.size))
        at += HEADING.size + size
    return steps


def apply(image, record, w, size=None):
    """The write, or its first bytes."""
    os.pwrite(image, os.pread(record, w.size if size is None else size, w.source), w.at)


def judge(build, image, folder, promise, what):
    """None, or what is wrong with this disk."""
    at = os.path.join(folder, "mnt")
    os.makedirs(at, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "ext4", "-o", "loop,noatime", image, at], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if mounted.returncode != 0:
        return "%s: it cannot be mounted: %s" % (what, mounted.stdout.strip())
    g, log = None, os.path.join(folder, "greyd.log")
    try:
        g = Gateway(build, at, free_port(), log)
        if not g.start():
            with open(log, errors="replace") as f:
                return "%s: the gateway does not start: %s" % (what, f.read()[-1500:])
        missing = g.lacks(*promise)
        return missing and "%s: %s" % (what, missing)
    finally:
        if g and g.process:
            g.stop()
        subprocess.run(["umount", at], check=True)


def variants(pending, seed):
    """What of the writes since the last sync the disk has: (name, [bytes of each])."""
    rng = random.Random(seed)
    yield "all", [w.size for w in pending]
    if pending:
        yield "none", [0] * len(pending)
    if len(pending) > 1:
        yield "some", [rng.choice((0, w.size, rng.randrange(0, w.size + 1, SECTOR))) for w in pending]


def main(build, folder, cuts):
    record = os.open(os.path.join(folder, "record"), os.O_RDONLY)
    steps = read_record(record)
    boundaries = [i for i, s in enumerate(steps) if s.kind != b"P"]
    chosen = set(boundaries[:: max(1, len(boundaries) // cuts)] if cuts else boundaries)
    print("# %d writes, %d syncs, %d promises recorded; %d boundaries are tried"
          % (*(sum(s.kind == kind for s in steps) for kind in (b"W", b"S", b"P")), len(chosen)), flush=True)
    work = tempfile.mkdtemp(prefix="replay-", dir=folder)
    durable = os.path.join(work, "durable")
    shutil.copyfile(os.path.join(folder, "fresh"), durable)
    disk, pending, promise, faults, tried = os.open(durable, os.O_RDWR), [], (0, 0), [], 0

    def one(number, what, sizes, promise):
        own = os.path.join(work, "cut%d" % number)
        os.makedirs(own)
        subprocess.run(["cp", "--sparse=always", durable, os.path.join(own, "disk")], check=True)
        image = os.open(os.path.join(own, "disk"), os.O_RDWR)
        for w, size in zip(pending, sizes):
            apply(image, record, w, size)
        os.close(image)
        fault = judge(build, os.path.join(own, "disk"), own, promise, what)
        if fault is None:
            shutil.rmtree(own)
        return fault

    try:
        with ThreadPoolExecutor(2) as pool:
            for index, step in enumerate(steps):
                if step.kind == b"P":
                    promise = struct.unpack("<QQ", os.pread(record, 16, step.source))
                elif step.kind == b"W":
                    pending.append(step)
                else:
                    for w in pending:
                        apply(disk, record, w)
                    pending = []
                if index not in chosen:
                    continue
                running = []
                for name, sizes in variants(pending, index):
                    tried += 1
                    what = "cut behind step %d of %d with %s of %d writes since the last sync, after %d keys and %d batches" % (index, len(steps), name, len(pending), *promise)
                    running.append(pool.submit(one, tried, what, sizes, promise))
                faults += [fault for fault in (r.result() for r in running) if fault]
        print("%s 2 - %d cuts at %d boundaries: no file system needs help, each gateway comes up with all that it promised" % ("not ok" if faults else "ok", tried, len(chosen)))
        for fault in faults[:5]:
            print("# " + fault.replace("\n", "\n# "))
        early = promise[0] >= 100 and promise[1] >= 50
        print("%s 3 - the record is worth it: %d keys and %d batches of events were acknowledged" % ("ok" if early else "not ok", *promise))
        return 1 if faults or not early else 0
    finally:
        os.close(disk)
        shutil.rmtree(work)


sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
