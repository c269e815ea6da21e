"""launchers.py: a site whose gateways run tasks, each with a grey-launch of its own."""
from harness import *


def processes(mark):
    """First processes of tasks that have this word among their arguments.  Each leads a session; what it forks looks like it until it is
    something else."""
    found = []
    for p in os.listdir("/proc"):
        try:
            with open("/proc/%s/cmdline" % p, "rb") as f:
                words = f.read().split(b"\0")
            if p.isdigit() and mark.encode() in words and os.getsid(int(p)) == int(p):
                found.append(int(p))
        except OSError:
            pass
    return found


def sleeper(mark):
    return ["/bin/sh", "-c", "while :; do sleep 0.2; done", mark]


def runs(site):
    """Of all launchers, as their groups are named."""
    folders = [p.split("-") for n in site.nodes for p in os.listdir(site.path("launch%d" % n, "runs"))]
    return ["-%x-%s" % (int(scope, 16), token) for scope, token in folders]


def start_launcher(site, n, *options):
    site.spawn("launch%d" % n, [os.path.join(BUILD, "grey-launch"), "--dir", site.path("launch%d" % n), *options])


class WithLaunchers(Site):
    scheduler_more = ""  # more keys of scheduler

    def write_config(self, n):
        super().write_config(n)
        with open(self.path("node%d" % n, "greyd.yaml"), "a") as f:
            f.write("scheduler: {enabled: true, cpu_limit_millicores: 4000, memory_limit_bytes: 4294967296, launcher: \"%s/launch.sock\"%s}\n" % (self.path("launch%d" % n), self.scheduler_more))

    def start_node(self, n, **more):
        if "launch%d" % n not in self.processes:
            start_launcher(self, n)
        super().start_node(n, **more)
