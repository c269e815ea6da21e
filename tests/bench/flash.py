#!/usr/bin/env python3
"""flash.py: what three gateways with a core write to their flash: at rest, and for each event of a slow trickle, where no other one shares its transaction.  By what greyd
itself counts for storage.max_write_mb_per_day (grey_storage_day_written_bytes), measured over minutes and reckoned for a day, and by /proc/PID/io beside it."""
import json, os, re, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from harness import BUILD, Site, request
from measure import proc

REST_S, TRICKLE, PER_SECOND, VALUE = 240, 120, 1, 200
BOUND_MB = 2190  # of a day: the example of docs/INSTALL.md, an eMMC of 8 GB for ten years
DAY_S = 86400


def counted(site):
    """By gateway: what it says that it wrote, and what the kernel wrote for it."""
    found = {}
    for n in site.nodes:
        text = request(site.http[n], "GET", "/metrics").body.decode()
        found[n] = (float(re.search(r"^grey_storage_day_written_bytes (\S+)", text, re.M).group(1)), proc(site.processes["node%d" % n].pid)["disk"])
    return found


def most(before, after):
    """Of the gateway that wrote most."""
    return [max(after[n][i] - before[n][i] for n in before) for i in range(2)]


def bench_flash():
    site = Site(core=True, tls=True)
    try:
        site.start()
        time.sleep(15)  # what a start writes
        before, begin = counted(site), time.monotonic()
        time.sleep(REST_S)
        rest, rest_s = most(before, counted(site)), time.monotonic() - begin
        port = site.http[site.leader()]
        before, begin = counted(site), time.monotonic()
        subprocess.run([os.path.join(BUILD, "load"), "normal", "127.0.0.1:%d" % port, "1", str(TRICKLE * PER_SECOND), str(VALUE), str(PER_SECOND)], stdout=subprocess.DEVNULL, check=True,
                       timeout=TRICKLE * 3)
        site.wait_drained()
        time.sleep(2)  # until it is counted
        trickle, trickle_s = most(before, counted(site)), time.monotonic() - begin
        share = [t - r / rest_s * trickle_s for t, r in zip(trickle, rest)]
        return {"rest": [v / rest_s * DAY_S for v in rest], "rest_s": rest_s, "event": [v / (TRICKLE * PER_SECOND) for v in share], "day": trickle[0] / trickle_s * DAY_S}
    finally:
        site.finished = True
        site.cleanup()


def report(put, f):
    bound = BOUND_MB * 1e6
    put("flash: bytes a gateway writes per day at rest, reckoned from %.0f s" % f["rest_s"], f["rest"][0], "B", "bound of INSTALL.md's example", bound, aim=bound)
    put("flash: the same by the kernel's count", f["rest"][1], "B", "bound of INSTALL.md's example", bound)
    put("flash: bytes a gateway writes per %d-byte event, %d/s, beyond rest" % (VALUE, PER_SECOND), f["event"][0], "B", "payload", VALUE)
    put("flash: the same by the kernel's count", f["event"][1], "B", "payload", VALUE)
    put("flash: bytes a gateway writes per day at %d events/s, reckoned from %d s" % (PER_SECOND, TRICKLE), f["day"], "B", "bound of INSTALL.md's example", bound)


if __name__ == "__main__":
    print(json.dumps(bench_flash()))
