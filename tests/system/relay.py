"""relay.py: a TCP proxy for the tests; what it does to what it carries is for those that inherit from it."""
import os, socket, threading, time, types


def owner_of_port(port):
    """The process that holds this end of a loopback connection; None when it is gone."""
    inode = None
    with open("/proc/net/tcp") as f:
        for line in f:
            fields = line.split()
            if fields[1].endswith(":%04X" % port) and fields[3] == "01":
                inode = "socket:[%s]" % fields[9]
    for process in os.listdir("/proc") if inode else []:
        try:
            fds = os.listdir("/proc/%s/fd" % process) if process.isdigit() else []
        except OSError:
            continue
        for fd in fds:
            try:
                if os.readlink("/proc/%s/fd/%s" % (process, fd)) == inode:
                    return int(process)
            except OSError:  # this one was just closed
                pass
    return None


def end(*sockets):
    for s in sockets:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Relay:
    """Listens at `port` and leads to `target_port`.  Each connection is a pair: near (who dialled), far, and what else carry() wants to know
    of it; the two ways are 0 (from near to far) and 1."""

    def __init__(self, target_port, server=None):
        self.target_port, self.pairs = target_port, []
        self.server = server or self.listen()
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def listen(self):
        return socket.create_server(("127.0.0.1", 0), backlog=32)

    def admit(self, pair, source):
        """May it be carried?  `source` is the address it comes from."""
        return True

    def accept(self):
        while True:
            try:
                near, source = self.server.accept()
            except OSError:
                return
            pair = types.SimpleNamespace(near=near, far=None, silent=False)
            if not self.admit(pair, source):
                near.close()
                continue
            try:
                pair.far = socket.create_connection(("127.0.0.1", self.target_port), 2)
                pair.far.settimeout(None)
            except OSError:
                near.close()
                continue
            self.pairs.append(pair)
            for way, (a, b) in enumerate(((pair.near, pair.far), (pair.far, pair.near))):
                threading.Thread(target=self.run, args=(a, b, way, pair), daemon=True).start()

    def run(self, a, b, way, pair):
        try:
            self.carry(a, b, way, pair)
        except OSError:
            pass
        if not pair.silent:
            end(a, b)

    def carry(self, a, b, way, pair):
        """One way, until it ends; then both ends are closed."""
        while True:
            data = a.recv(65536)
            if not data:
                return
            self.passing(data, way)
            b.sendall(data)

    def passing(self, data, way):
        """These bytes go that way now."""

    def end_all(self):
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            end(pair.near, pair.far)


class Link(Relay):
    """It can be cut for all, or for one process that dials through it; and it can hold back what goes one way, without a word, as a link does
    that lost one direction."""

    def __init__(self, target_port):
        self.up, self.blocked, self.held = True, set(), set()
        super().__init__(target_port)

    def admit(self, pair, source):
        pair.owner = owner_of_port(source[1])
        return self.up and pair.owner not in self.blocked and not (pair.owner is None and self.blocked)

    def carry(self, a, b, way, pair):
        word = ("in", "out")[way]
        while True:
            data = a.recv(65536)
            if not data:
                return
            while (pair.owner, word) in self.held or (None, word) in self.held:
                time.sleep(0.02)
            b.sendall(data)

    def cut(self, owner=None):
        """Ends and refuses the connections of one process, or of all."""
        if owner is None:
            self.up = False
        else:
            self.blocked.add(owner)
        for pair in list(self.pairs):
            if owner is None or pair.owner == owner:
                end(pair.near, pair.far)

    def silence(self, owner=None):
        """From now on the end of one side of the connections of one process, or of all, is not told to the other side: it lost its power, or a firewall forgot them."""
        silenced = [pair for pair in self.pairs if owner is None or pair.owner == owner]
        for pair in silenced:
            pair.silent = True
        return silenced

    def hold(self, way, owner=None):
        """Keeps what goes "in" to the gateway or "out" of it, on the connections of one process or on all, until the link is mended."""
        self.held.add((owner, way))

    def mend(self):
        self.up, self.blocked, self.held = True, set(), set()
