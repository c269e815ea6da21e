"""slow_disks.py: a site whose gateways have disks that take as long for a sync as the test says (slow_sync.c)."""
from harness import *


class SlowSite(Site):
    def __init__(self, **options):
        super().__init__(**options)
        self.library = self.path("slow_sync.so")
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", self.library,
                        os.path.join(ROOT, "tests/system/slow_sync.c"), "-ldl"], check=True)

    def start_node(self, n, bootstrap=None, under=()):
        super().start_node(n, bootstrap, ["env", "LD_PRELOAD=" + self.library, "SLOW_SYNC=" + self.path("slow%d" % n)] + list(under))

    def slow(self, n, ms):
        with open(self.path("slow%d.new" % n), "w") as f:
            f.write("%d" % ms)
        os.rename(self.path("slow%d.new" % n), self.path("slow%d" % n))

    def well(self, *nodes):
        """The disks of these gateways, or of all."""
        for n in nodes or self.nodes:
            if os.path.exists(self.path("slow%d" % n)):
                os.unlink(self.path("slow%d" % n))
