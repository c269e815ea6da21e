"""capture.py: packets that leave through an interface, with the kernel's time and their size at the IP layer.  Takes root."""
import ctypes, select, socket, struct, threading, time

ETH_P_ALL, PACKET_OUTGOING, SO_ATTACH_FILTER, SO_TIMESTAMPNS = 3, 4, 26, 35


def of_port(port):
    """A program (BPF) by which the kernel passes TCP packets of this port alone: what else passes a busy loopback would keep a reader from being in time."""
    orders = ((0x30, 0, 0, 0), (0x74, 0, 0, 4), (0x15, 5, 0, 6), (0x15, 0, 11, 4),  # the version of IP: 6 goes to (a), another than 4 to (n)
              (0x30, 0, 0, 9), (0x15, 0, 9, 6), (0xb1, 0, 0, 0), (0x05, 0, 0, 3),  # 4: not TCP: (n); X: where TCP begins; (b)
              (0x30, 0, 0, 6), (0x15, 0, 5, 6), (0x01, 0, 0, 40),  # (a) 6: not TCP: (n); X: where TCP begins
              (0x48, 0, 0, 0), (0x15, 3, 0, port), (0x48, 0, 0, 2), (0x15, 1, 0, port),  # (b) its ports
              (0x06, 0, 0, 0), (0x06, 0, 0, 0xffff))  # (n) no; yes
    return b"".join(struct.pack("HBBI", *order) for order in orders), len(orders)


class Capture:
    """port: only TCP of this port; 0: all of IP."""

    def __init__(self, interface, port=0):
        self.packets = []  # (time, size, source port, target port)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if port:
            program, count = of_port(port)
            held = ctypes.create_string_buffer(program)
            self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", count, ctypes.addressof(held)))
        self.socket.bind((interface, ETH_P_ALL))
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        while True:
            data, extra, _, address = self.socket.recvmsg(128, 256)
            if address[2] != PACKET_OUTGOING or not extra:  # on lo each packet is seen going and coming
                continue
            s, ns = struct.unpack("qq", extra[0][2][:16])
            size, tcp = (struct.unpack("!H", data[2:4])[0], (data[0] & 15) * 4) if data[0] >> 4 == 4 else (struct.unpack("!H", data[4:6])[0] + 40, 40)
            source, target = struct.unpack("!HH", data[tcp:tcp + 4])
            self.packets.append((s + ns / 1e9, size, source, target))

    def so_far(self):
        """All that left until now."""
        while select.select([self.socket], [], [], 0)[0]:
            time.sleep(0.01)
        time.sleep(0.05)  # the last one is being looked at
        return list(self.packets)
