"""measure.py: reads what a run cost, the same way for every system: /proc for processor, memory and disk, ss for bytes between given
ports, perf for system calls.  Nothing here knows whom it measures."""
import json, os, re, shutil, subprocess

HEADER_BYTES = 52  # IPv4 and TCP with time stamps; loopback has no Ethernet header, so none is counted


def proc(pid):
    """CPU seconds, resident and proportional KiB, bytes written to storage and by write calls, of one process since its start."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    with open("/proc/%d/smaps_rollup" % pid) as f:
        memory = {l.split(":")[0]: int(l.split()[1]) for l in f if l.startswith(("Rss:", "Pss:"))}
    with open("/proc/%d/io" % pid) as f:
        io = {k: int(v) for k, v in (l.strip().split(": ") for l in f)}
    return {"cpu": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), "rss": memory["Rss"], "pss": memory["Pss"],
            "disk": io["write_bytes"], "wchar": io["wchar"]}


def wire(ports, pid=None):
    """Bytes so far, both ways, on living connections to these ports, headers included: of all processes (each end of a connection is a
    socket here, so what they sent is counted), or of one."""
    if not ports:
        return 0
    wanted = " or ".join("sport = :%d or dport = :%d" % (p, p) for p in ports)
    text = subprocess.run(["ss", "-HOtinp", "state", "established", "( %s )" % wanted], stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = [l for l in text.splitlines() if pid is None or "pid=%d," % pid in l]
    total = lambda field: sum(int(v) for l in lines for v in re.findall(r"\b%s:(\d+)" % field, l))
    sent = total("bytes_sent") + HEADER_BYTES * total("segs_out")
    return sent if pid is None else sent + total("bytes_received") + HEADER_BYTES * total("segs_in")


class Span:
    """What a group of processes and its links cost between begin and end."""

    def __init__(self, pids, leader_pid, ports):
        self.pids, self.leader_pid, self.ports = pids, leader_pid, ports
        self.before, self.wire_before = {p: proc(p) for p in pids}, wire(ports)

    def end(self):
        after, wire_after = {p: proc(p) for p in self.pids}, wire(self.ports)
        cost = lambda what, pids: sum(after[p][what] - self.before[p][what] for p in pids)
        return {"cpu": cost("cpu", self.pids), "disk": cost("disk", [self.leader_pid]), "wchar": cost("wchar", [self.leader_pid]),
                "wire": wire_after - self.wire_before, "rss": max(a["rss"] for a in after.values()), "pss": max(a["pss"] for a in after.values())}


def counted(pid, command, seconds=120):
    """Runs command and counts what the process pid did meanwhile: system calls, syncs, instructions; a count that this machine
    cannot make is absent.  Returns (counts, the command's output).  Counting slows the process: take rates from another run."""
    events = {"raw_syscalls:sys_enter": "calls", "syscalls:sys_enter_fsync": "syncs", "syscalls:sys_enter_fdatasync": "syncs", "instructions": "instructions"}
    if shutil.which("perf") is None:
        return {}, subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds).stdout
    r = subprocess.run(["perf", "stat", "-x,", "-e", ",".join(events), "-p", str(pid), "--"] + command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds)
    counts = {}
    for line in r.stderr.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[0].isdigit():
            name = events.get(fields[2].split(":u")[0])
            if name:
                counts[name] = counts.get(name, 0) + int(fields[0])
    return counts, r.stdout


def answer(text):
    """The JSON that a measuring program printed; what it said instead, when it failed, stood on stderr."""
    try:
        return json.loads(text)
    except ValueError:
        raise RuntimeError("a measuring program failed; see above")
