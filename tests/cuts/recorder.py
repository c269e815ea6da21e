#!/usr/bin/python3
"""recorder.py IMAGE RECORD MOUNTPOINT: a file system in user space with two files.  `disk` is IMAGE; each write and sync of it is put down in RECORD in
the order in which it came.  `promises` takes what was acknowledged, into the same record.  So the record says which promise came when.

RECORD: for each a heading {kind char, offset u64, size u32}, little endian, and the bytes: W a write, S a sync (no bytes), P a promise."""
import errno, os, stat, struct, sys, threading

import fusepy

HEADING = struct.Struct("<cQI")


class Recorder(fusepy.Operations):
    def __init__(self, image, record):
        self.image, self.record, self.guard = os.open(image, os.O_RDWR), open(record, "wb", buffering=1 << 20), threading.Lock()

    def put(self, kind, offset=0, data=b""):
        with self.guard:
            if kind == b"W":
                os.pwrite(self.image, data, offset)
            self.record.write(HEADING.pack(kind, offset, len(data)) + data)

    def getattr(self, path, fh=None):
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path == "/disk":
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": os.fstat(self.image).st_size}
        if path == "/promises":
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": 0}
        raise fusepy.FuseOSError(errno.ENOENT)

    def readdir(self, path, fh):
        return [".", "..", "disk", "promises"]

    def open(self, path, flags):
        return 0

    def read(self, path, size, offset, fh):
        return os.pread(self.image, size, offset) if path == "/disk" else b""

    def write(self, path, data, offset, fh):
        self.put(b"W" if path == "/disk" else b"P", offset, data)
        return len(data)

    def truncate(self, path, length, fh=None):
        if path == "/disk":
            raise fusepy.FuseOSError(errno.EPERM)

    def fsync(self, path, datasync, fh):
        if path == "/disk":
            self.put(b"S")
        return 0

    def destroy(self, path):
        self.record.close()


if __name__ == "__main__":
    fusepy.FUSE(Recorder(sys.argv[1], sys.argv[2]), sys.argv[3], foreground=True, nothreads=True, raw_fi=False, max_write=131072, big_writes=True)
