#!/usr/bin/env python3
"""A site behind an HTTP proxy that lets nothing out but CONNECT to port 443.  If this fails, a site in a customer's network never
reaches its core, or its engineer sees "connection refused" where the proxy has said what is wrong."""
import select
from harness import *


class Proxy:
    """Takes CONNECT, as the manner of the moment says; every port leads to the broker."""

    def __init__(self, target_port):
        self.target_port, self.manner, self.asked, self.hellos, self.auth = target_port, "good", [], [], None
        self.server = socket.socket()
        self.server.bind(("127.0.0.1", 0))
        self.server.listen(16)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.server.accept()
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near):
        head = b""
        while b"\r\n\r\n" not in head:
            data = near.recv(4096)
            if not data:
                return
            head += data
        lines = head.decode().split("\r\n")
        self.asked.append(lines)
        if self.manner == "silent":
            time.sleep(60)
        elif self.manner == "closes":
            near.close()
        elif self.manner == "babbles":
            near.sendall(b"220 mail.example ESMTP\r\n\r\n")
        elif self.manner == "endless":
            near.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000)
        elif self.manner == "forbids":
            near.sendall(b"HTTP/1.1 403 Forbidden by policy 7\r\nContent-Length: 3\r\n\r\nno\n")
        elif self.auth is not None and "Proxy-Authorization: Basic " + base64.b64encode(self.auth).decode() not in lines:
            near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n")
        else:
            for byte in b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n":  # in the smallest pieces
                near.sendall(bytes([byte]))
            self.relay(near)
            return
        time.sleep(1)
        near.close()

    def relay(self, near):
        far = socket.create_connection(("127.0.0.1", self.target_port))
        first = True
        while True:
            for s in select.select([near, far], [], [])[0]:
                try:
                    data = s.recv(65536)
                except OSError:
                    data = b""
                if s is near and first and data:
                    self.hellos.append(data)
                    first = False
                if not data:
                    near.close()
                    far.close()
                    return
                (far if s is near else near).sendall(data)


class ProxiedSite(Site):
    def write_config(self, n):
        super().write_config(n)
        if not hasattr(self, "proxy"):
            self.proxy = Proxy(self.broker_port)
        with open(self.path("proxy.auth"), "w") as f:
            f.write("site-7:wrong\n")
        path = self.path("node%d" % n, "greyd.yaml")
        with open(path) as f:
            text = f.read()
        text = text.replace('["localhost:%d"]' % self.broker_port, '["localhost:443"]')
        text = text.replace("federation:\n", "federation:\n  proxy: {address: \"127.0.0.1:%d\", auth_file: \"%s\"}\n" % (self.proxy.port, self.path("proxy.auth")))
        with open(path, "w") as f:
            f.write(text)

    def refused(self, manner, words):
        """The proxy behaves so: the link says these words."""
        self.proxy.manner = manner
        before = len(self.proxy.asked)
        self.ctl("link", "try")
        error = wait_until("the proxy to be asked, and '%s' to be told" % words, lambda: len(self.proxy.asked) > before and words in self.link()["last_error"] and self.link()["last_error"], 40)
        self.ok(not self.link()["up"], "a proxy that %s: %s" % ("refuses the credentials" if manner == "good" else manner, error))


def test(site):
    site.ok("CONNECT localhost:443 HTTP/1.1" == site.proxy.asked[0][0] and "Host: localhost:443" in site.proxy.asked[0], "the proxy is asked for the broker by its name")
    site.ok(site.proxy.asked[0][2].startswith("Proxy-Authorization: Basic "), "with the credentials of the file")
    site.refused("good", "refused with status 407 Proxy Authentication Required: check federation.proxy.auth_file")
    site.refused("forbids", "refused with status 403 Forbidden by policy 7")
    site.refused("babbles", "does not speak HTTP")
    site.refused("closes", "the proxy closed the connection")
    site.refused("endless", "the proxy's answer is too long")
    site.refused("silent", "no answer to TCP, or to the proxy's CONNECT")
    with open(site.path("proxy.auth"), "w") as f:
        f.write("no colon here\n")
    site.proxy.manner = "good"
    site.ctl("link", "try")
    error = wait_until("the file to be named", lambda: "does not begin with a line user:password" in site.link()["last_error"] and site.link()["last_error"], 30)
    site.ok(True, "a file of another form is named: %s" % error)
    with open(site.path("proxy.auth"), "w") as f:
        f.write("site-7:s3cret: and more\n")
    site.ctl("link", "try")
    wait_until("the link through the proxy", lambda: site.link()["up"], 30)
    site.ok(True, "with the right file, read anew, the link comes up")
    hello = site.proxy.hellos[-1]
    site.ok(hello[0] == 22 and b"\x00\x10\x00\x07\x00\x05\x04mqtt" in hello, "port 443 is offered \"mqtt\" by ALPN")
    site.ok("through proxy 127.0.0.1:%d" % site.proxy.port in site.ctl("link", "status").stdout, "greyctl link status names the proxy")
    ledger = Ledger(site, 200).start()
    ledger.join()
    ledger.judge()


if __name__ == "__main__":
    s = ProxiedSite(nodes=1)
    try:
        s.proxy.auth = b"site-7:s3cret: and more"
        s.start_broker()
        s.start_core()
        s.start_node(1)
        wait_until("the proxy to be asked", lambda: s.proxy.asked, 30)
        test(s)
    except Exception as e:
        s.ok(False, "%s: %s" % (type(e).__name__, e))
    s.finish()
