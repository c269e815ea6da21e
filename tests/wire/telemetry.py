#!/usr/bin/env python3
"""Writes telemetry.jsonl, the corpus that bytes per event are measured with: events as a device posts them, 256 bytes each on average.

Counter ids, a constant source, times by the millisecond of a clock that is a little late now and then, four readings that walk at random
with three decimals, and a state word.  The same on every machine: the numbers come from a generator of its own, not from a library."""
import datetime, json

EVENTS, START_MS, PERIOD_MS, LATE_MS = 4000, 1767225600000, 1000, 50


class Random:  # xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators"
    def __init__(self, seed):
        self.x = seed

    def below(self, n):
        self.x ^= self.x >> 12
        self.x = (self.x ^ self.x << 25) & 0xFFFFFFFFFFFFFFFF
        self.x ^= self.x >> 27
        return (self.x * 0x2545F4914F6CDD1D & 0xFFFFFFFFFFFFFFFF) * n >> 64

    def bell(self, width):  # -4 * width .. 4 * width, most near 0
        return sum(self.below(2 * width + 1) - width for _ in range(4))


def events():
    r = Random(20260101)
    walks = {"temperature": 21500, "pressure": 1013250, "humidity": 45000, "vibration": 2750}  # thousandths
    widths = {"temperature": 50, "pressure": 300, "humidity": 150, "vibration": 100}
    state = "running"
    for i in range(EVENTS):
        for name in walks:
            walks[name] = abs(walks[name] + r.bell(widths[name]))
        if r.below(40) == 0:
            state = ("running", "idle", "starting", "fault")[r.below(4)]
        reading = lambda name: "%d.%03d" % divmod(walks[name], 1000)
        ms = START_MS + i * PERIOD_MS + r.below(LATE_MS)
        at = datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        yield ('{"id":"press-4-%08d","source":"plant/hall-2/press-4","type":"telemetry","time":"%s.%03dZ","data":{"temperature":%s,"pressure":%s,'
               '"humidity":%s,"vibration":%s,"state":"%s","firmware":"4.2.1-rel2","schema":"press/3"}}'
               % (i + 1, at, ms % 1000, reading("temperature"), reading("pressure"), reading("humidity"), reading("vibration"), state))


if __name__ == "__main__":
    lines = list(events())
    assert all(json.loads(l) for l in lines)
    with open(__file__.replace(".py", ".jsonl"), "w") as f:
        f.write("\n".join(lines) + "\n")
    print("%d events of %.1f bytes" % (len(lines), sum(map(len, lines)) / len(lines)))
