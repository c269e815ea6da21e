#!/usr/bin/env python3
"""record.py BUILD MOUNTPOINT PROMISES: a gateway works on the file system at MOUNTPOINT, below which the disk is recorded; what it acknowledged is
written to PROMISES, at once.  It is killed, stopped and started again meanwhile, and writes snapshots.  TAP."""
import os, signal, struct, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import BATCH, Gateway, free_port, value

SECONDS = 16


class Promises:
    """The numbers that were acknowledged."""

    def __init__(self, path):
        self.file, self.lock, self.keys, self.events = os.open(path, os.O_WRONLY), threading.Lock(), 0, 0

    def made(self, keys=0, events=0):
        with self.lock:
            self.keys, self.events = max(self.keys, keys), max(self.events, events)
            os.write(self.file, struct.pack("<QQ", self.keys, self.events))


def main(build, folder, promises):
    g, p = Gateway(build, folder, free_port(), os.path.join(os.path.dirname(folder), "greyd.log")), Promises(promises)
    end, up = time.monotonic() + SECONDS, threading.Event()

    def put_keys():
        number = 1
        while time.monotonic() < end:
            up.wait(1)
            try:
                if g.ask("PUT", "/v1/kv/k%d" % number, value(number))[0] in (200, 201):
                    p.made(keys=number)
                    number += 1
            except OSError:
                time.sleep(0.05)  # it is being started again

    def send_events():
        number = 1
        while time.monotonic() < end:
            up.wait(1)
            batch = "[%s]" % ",".join('{"source": "press", "type": "x", "id": "e%d-%d", "priority": "%s", "data": {"text": "%0300d"}}'
                                      % (number, i, ("critical", "high", "normal")[number % 3], number) for i in range(BATCH))
            try:
                if g.ask("POST", "/v1/events", batch)[0] in (200, 201, 202):
                    p.made(events=number)
                    number += 1
            except OSError:
                time.sleep(0.05)

    good = g.start()
    threads = [threading.Thread(target=work) for work in (put_keys, send_events)]
    for thread in threads:
        thread.start()
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):  # starts and stops are recorded too
        up.set()
        time.sleep(SECONDS / 4)
        g.ask("POST", "/v1/admin/snapshots")  # one more, unless one is being written right now
        up.clear()
        g.stop(how)
        good = g.start() and good
    up.set()
    for thread in threads:
        thread.join()
    missing = g.lacks(p.keys, p.events)
    print("%s 1 - recorded: %d keys, %d batches of events, %s" % ("ok" if good and not missing else "not ok", p.keys, p.events, missing or "all there"))
    if not good:
        print("# " + open(g.log).read()[-2000:].replace("\n", "\n# "))
    g.stop(signal.SIGTERM)
    return 0 if good and not missing else 1


sys.exit(main(*sys.argv[1:]))
