"""thief.py: what somebody can do who has a gateway's disk in his hands: change a database and mend the sums of its pages (docs/FORMATS.md,
"Pages"), so that nothing below the contents tells."""
import sqlite3, struct, zlib


def change(path, deed):
    """Runs deed(connection) on a database of a stopped gateway; its result is returned."""
    db = sqlite3.connect(path)
    result = deed(db)
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with open(path, "r+b") as f:
        pages = f.read()
        size = struct.unpack(">H", pages[16:18])[0]
        for i in range(len(pages) // size):
            page = pages[i * size:(i + 1) * size - 8]
            f.seek((i + 1) * size - 8)
            f.write(struct.pack(">II", zlib.crc32(page + struct.pack(">I", i + 1)), 0))
    return result
