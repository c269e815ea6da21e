#include "platform/db_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/db.h"
#include "platform/digest.h"

#define CACHE_PAGE_BYTES 4096u

/* SQLite writes a log frame in two calls, and a checkpoint page by page.  Writes that follow each other are passed on as one, at the
 * latest with the sync that makes them count; nobody else reads the file before. */
struct gather {
    sqlite3_int64 offset;
    uint32_t size;
    uint32_t ahead_size;    /* a log: while nothing waits to be passed on, data holds so much of the file from offset on */
    sqlite3_int64 last_end; /* a log: where the last read ended */
    uint8_t data[16 * 1024];
};

/* A file of ours; the system's file lies directly behind it in the memory that SQLite provides. */
struct disk_file {
    sqlite3_file base;
    sqlite3_file *real;
    const char *path;      /* lent by SQLite while open; NULL for nameless files */
    bool summed;           /* a main database: its pages carry sums */
    struct gather *gather; /* databases and their logs: what was written and not passed on yet */
    uint32_t page_bytes;   /* 0: not known yet */
};

static sqlite3_vfs disk_vfs; /* a copy of the system's with our xOpen and xDelete */
static sqlite3_vfs *system_vfs;
static _Atomic uint64_t count_writes, count_written_bytes, count_syncs, count_reads;
static struct db_faults faults;
static _Thread_local uint64_t bad_page;

uint64_t db_disk_bad_page(void) {
    return bad_page;
}

void db_inject(const struct db_faults *f) {
    static const struct db_faults none;
    faults = f == NULL ? none : *f;
}

void db_count(struct db_counts *c) {
    c->writes = atomic_load_explicit(&count_writes, memory_order_relaxed);
    c->written_bytes = atomic_load_explicit(&count_written_bytes, memory_order_relaxed);
    c->syncs = atomic_load_explicit(&count_syncs, memory_order_relaxed);
    c->reads = atomic_load_explicit(&count_reads, memory_order_relaxed);
}

static void count(_Atomic uint64_t *counter, uint64_t n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static int injected(enum db_io io, const char *path, uint64_t offset, struct bytes data) {
    if (faults.ask == NULL) {
        return SQLITE_OK;
    }
    switch (faults.ask(faults.context, io, path == NULL ? "" : path, offset, data)) {
    case E_OK:
        return SQLITE_OK;
    case E_DISK_FULL:
        return SQLITE_FULL;
    case E_CORRUPT:
        return SQLITE_IOERR_DATA;
    case E_NO_MEMORY:
        return SQLITE_IOERR_NOMEM;
    case E_LOCKED:
        return SQLITE_BUSY;
    default:
        return io == DB_IO_SYNC    ? SQLITE_IOERR_FSYNC
               : io == DB_IO_WRITE ? SQLITE_IOERR_WRITE
               : io == DB_IO_READ  ? SQLITE_IOERR_READ
                                   : SQLITE_IOERR;
    }
}

/* --- page sums -------------------------------------------------------------------------------------------------------------------- */
static uint32_t page_sum(const struct disk_file *d, const uint8_t *page, sqlite3_int64 offset) {
    uint8_t number[4];
    bytes_put_be32(number, (uint32_t)(offset / d->page_bytes + 1));
    return digest_crc32(digest_crc32(0, bytes_of(page, d->page_bytes - DB_DISK_TAIL_BYTES)), bytes_of(number, sizeof number));
}

/* The first bytes of a database tell its page size and how many bytes of each page are ours. */
static void learn(struct disk_file *d, const uint8_t *head, size_t size, sqlite3_int64 offset) {
    if (d->summed && offset == 0 && size >= 100 && memcmp(head, "SQLite format 3", 16) == 0) {
        uint32_t page_bytes = bytes_get_be16(head + 16);
        d->page_bytes =
            head[20] == DB_DISK_TAIL_BYTES && page_bytes >= 512 && page_bytes <= DB_DISK_PAGE_BYTES_MAX ? page_bytes : 0;
    }
}

static int real_write(struct disk_file *d, const void *in, int size, sqlite3_int64 offset) {
    count(&count_writes, 1);
    count(&count_written_bytes, (uint64_t)size);
    return d->real->pMethods->xWrite(d->real, in, size, offset);
}

/* On error what was gathered is lost, and with it the transaction: whoever asked fails. */
static int pass_on(struct disk_file *d) {
    struct gather *g = d->gather;
    if (g == NULL || g->size == 0) {
        return SQLITE_OK;
    }
    int code = SQLITE_OK;
    uint32_t size = g->size;
    g->size = 0;
    /* Page by page of the system's cache: a write across several makes them one unit there, which is then written whole each time
     * (measured on ext4: a fifth more bytes for small commits). */
    for (uint32_t at = 0, part; at < size && code == SQLITE_OK; at += part) {
        uint32_t room = CACHE_PAGE_BYTES - (uint32_t)((g->offset + at) % CACHE_PAGE_BYTES);
        part = size - at < room ? size - at : room;
        code = real_write(d, g->data + at, (int)part, g->offset + at);
    }
    return code;
}

static int gather_write(struct disk_file *d, const void *in, int size, sqlite3_int64 offset) {
    struct gather *g = d->gather;
    if (g->size > 0 && (offset != g->offset + g->size || (size_t)size > sizeof g->data - g->size)) {
        int code = pass_on(d);
        if (code != SQLITE_OK) {
            return code;
        }
    }
    g->ahead_size = 0;
    if ((size_t)size > sizeof g->data) {
        return real_write(d, in, size, offset);
    }
    g->offset = g->size == 0 ? offset : g->offset;
    memcpy(g->data + g->size, in, (size_t)size);
    g->size += (uint32_t)size;
    return SQLITE_OK;
}

static int real_read(struct disk_file *d, void *out, int size, sqlite3_int64 offset) {
    count(&count_reads, 1);
    return d->real->pMethods->xRead(d->real, out, size, offset);
}

/* A checkpoint reads the log mostly forward, frame by frame: one call then fetches the next frames too. */
static int log_read(struct disk_file *d, void *out, int size, sqlite3_int64 offset) {
    struct gather *g = d->gather;
    bool forward = offset >= g->last_end && offset - g->last_end < (sqlite3_int64)sizeof g->data;
    g->last_end = offset + size;
    if (g->ahead_size == 0 || offset < g->offset || offset + size > g->offset + g->ahead_size) {
        g->ahead_size = 0;
        if (!forward || (size_t)size > sizeof g->data || real_read(d, g->data, sizeof g->data, offset) != SQLITE_OK) {
            return real_read(d, out, size, offset); /* also near the end of the file */
        }
        g->offset = offset;
        g->ahead_size = sizeof g->data;
    }
    memcpy(out, g->data + (offset - g->offset), (size_t)size);
    return SQLITE_OK;
}

static int disk_read(sqlite3_file *file, void *out, int size, sqlite3_int64 offset) {
    struct disk_file *d = (struct disk_file *)file;
    int code = injected(DB_IO_READ, d->path, (uint64_t)offset, bytes_of(NULL, 0));
    if (code != SQLITE_OK) {
        return code;
    }
    if ((code = pass_on(d)) != SQLITE_OK) {
        return code;
    }
    code = d->gather != NULL && !d->summed ? log_read(d, out, size, offset) : real_read(d, out, size, offset);
    if (code == SQLITE_OK) {
        learn(d, out, (size_t)size, offset);
    }
    if (!d->summed || d->page_bytes == 0 || (uint32_t)size != d->page_bytes) {
        return code;
    }
    if (code == SQLITE_IOERR_SHORT_READ) {
        bad_page = (uint64_t)offset / d->page_bytes + 1;
        return SQLITE_IOERR_DATA; /* the file lost its end; SQLite would go on with zeros */
    }
    const uint8_t *page = out;
    if (code == SQLITE_OK && bytes_get_be32(page + d->page_bytes - DB_DISK_TAIL_BYTES) != page_sum(d, page, offset)) {
        bad_page = (uint64_t)offset / d->page_bytes + 1;
        return SQLITE_IOERR_DATA;
    }
    return code;
}

static int disk_write(sqlite3_file *file, const void *in, int size, sqlite3_int64 offset) {
    struct disk_file *d = (struct disk_file *)file;
    uint8_t page[DB_DISK_PAGE_BYTES_MAX];
    learn(d, in, (size_t)size, offset);
    if (d->summed && d->page_bytes != 0 && (uint32_t)size == d->page_bytes) {
        memcpy(page, in, (size_t)size);
        uint8_t *tail = page + d->page_bytes - DB_DISK_TAIL_BYTES;
        bytes_put_be32(tail, page_sum(d, page, offset));
        bytes_put_be32(tail + 4, 0);
        in = page;
    }
    int code = injected(DB_IO_WRITE, d->path, (uint64_t)offset, bytes_of(in, (size_t)size));
    if (code != SQLITE_OK) {
        return code;
    }
    return d->gather != NULL ? gather_write(d, in, size, offset) : real_write(d, in, size, offset);
}

/* --- the rest passes through -------------------------------------------------------------------------------------------------------- */
static int disk_close(sqlite3_file *file) {
    struct disk_file *d = (struct disk_file *)file;
    int code = pass_on(d), closed = d->real->pMethods->xClose(d->real);
    mem_free(d->gather);
    d->gather = NULL;
    return code != SQLITE_OK ? code : closed;
}

static int disk_truncate(sqlite3_file *file, sqlite3_int64 size) {
    struct disk_file *d = (struct disk_file *)file;
    int code = injected(DB_IO_TRUNCATE, d->path, (uint64_t)size, bytes_of(NULL, 0));
    code = code != SQLITE_OK ? code : pass_on(d);
    if (d->gather != NULL) {
        d->gather->ahead_size = 0;
    }
    return code != SQLITE_OK ? code : d->real->pMethods->xTruncate(d->real, size);
}

static int disk_sync(sqlite3_file *file, int flags) {
    struct disk_file *d = (struct disk_file *)file;
    int code = injected(DB_IO_SYNC, d->path, 0, bytes_of(NULL, 0));
    if (code != SQLITE_OK) {
        return code;
    }
    if ((code = pass_on(d)) != SQLITE_OK) {
        return code;
    }
    count(&count_syncs, 1);
    code = d->real->pMethods->xSync(d->real, flags);
    if (code == SQLITE_OK && faults.synced != NULL) {
        faults.synced(faults.context, d->path == NULL ? "" : d->path);
    }
    return code;
}

static int disk_size(sqlite3_file *file, sqlite3_int64 *size) {
    struct disk_file *d = (struct disk_file *)file;
    int code = pass_on(d);
    return code != SQLITE_OK ? code : d->real->pMethods->xFileSize(d->real, size);
}

static int disk_lock(sqlite3_file *file, int level) {
    struct disk_file *d = (struct disk_file *)file;
    int code = injected(DB_IO_LOCK, d->path, (uint64_t)level, bytes_of(NULL, 0));
    return code != SQLITE_OK ? code : d->real->pMethods->xLock(d->real, level);
}

static int disk_unlock(sqlite3_file *file, int level) {
    struct disk_file *d = (struct disk_file *)file;
    return d->real->pMethods->xUnlock(d->real, level);
}

static int disk_check_lock(sqlite3_file *file, int *out) {
    struct disk_file *d = (struct disk_file *)file;
    return d->real->pMethods->xCheckReservedLock(d->real, out);
}

static int disk_control(sqlite3_file *file, int op, void *argument) {
    struct disk_file *d = (struct disk_file *)file;
    return d->real->pMethods->xFileControl(d->real, op, argument);
}

static int disk_sector_size(sqlite3_file *file) {
    struct disk_file *d = (struct disk_file *)file;
    return d->real->pMethods->xSectorSize(d->real);
}

static int disk_traits(sqlite3_file *file) {
    struct disk_file *d = (struct disk_file *)file;
    return d->real->pMethods->xDeviceCharacteristics(d->real);
}

/* Version 1: without shared memory and without memory maps, so neither can ever be used by accident. */
static const sqlite3_io_methods disk_methods = {
    .iVersion = 1,
    .xClose = disk_close,
    .xRead = disk_read,
    .xWrite = disk_write,
    .xTruncate = disk_truncate,
    .xSync = disk_sync,
    .xFileSize = disk_size,
    .xLock = disk_lock,
    .xUnlock = disk_unlock,
    .xCheckReservedLock = disk_check_lock,
    .xFileControl = disk_control,
    .xSectorSize = disk_sector_size,
    .xDeviceCharacteristics = disk_traits,
};

static int disk_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *flags_out) {
    (void)vfs;
    struct disk_file *d = (struct disk_file *)file;
    memset(d, 0, sizeof *d);
    d->real = (sqlite3_file *)(d + 1);
    if ((flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_DB)) != 0 && (d->gather = mem_new(1, sizeof *d->gather)) == NULL) {
        return SQLITE_NOMEM;
    }
    int code = system_vfs->xOpen(system_vfs, path, d->real, flags, flags_out);
    if (code != SQLITE_OK) {
        mem_free(d->gather);
        return code; /* base.pMethods NULL: SQLite does not close it */
    }
    d->base.pMethods = &disk_methods;
    d->path = path;
    d->summed = (flags & SQLITE_OPEN_MAIN_DB) != 0;
    return SQLITE_OK;
}

static int disk_delete(sqlite3_vfs *vfs, const char *path, int sync_directory) {
    (void)vfs;
    int code = injected(DB_IO_DELETE, path, 0, bytes_of(NULL, 0));
    return code != SQLITE_OK ? code : system_vfs->xDelete(system_vfs, path, sync_directory);
}

int db_disk_register(void) {
    if (system_vfs != NULL) {
        return SQLITE_OK;
    }
    int code = sqlite3_initialize();
    if (code != SQLITE_OK) {
        return code;
    }
    system_vfs = sqlite3_vfs_find(NULL);
    must(system_vfs != NULL);
    disk_vfs = *system_vfs;
    disk_vfs.pNext = NULL;
    disk_vfs.zName = DB_DISK_NAME;
    disk_vfs.szOsFile = (int)sizeof(struct disk_file) + system_vfs->szOsFile;
    disk_vfs.xOpen = disk_open;
    disk_vfs.xDelete = disk_delete;
    return sqlite3_vfs_register(&disk_vfs, 0);
}

/* --- the log after a crash ------------------------------------------------------------------------------------------------------------
 * SQLite's log: a header of 32 bytes (magic, version, page size, checkpoint number, salt 8 bytes, sum 8 bytes), then frames: page
 * number, size of the database in pages after a commit (0: no commit), salt, sum (24 bytes) and the page.  Each sum covers all
 * frames before.  See https://sqlite.org/fileformat2.html, "The Write-Ahead Log". */
struct wal_sum {
    bool big_endian; /* of the numbers that are summed */
    uint32_t a, b;
};

static void wal_sum_add(struct wal_sum *s, const uint8_t *p, size_t size) {
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint32_t x[2];
        for (int k = 0; k < 2; k++) {
            const uint8_t *q = p + i + (size_t)4 * (size_t)k;
            x[k] = s->big_endian ? bytes_get_be32(q) : (uint32_t)q[3] << 24 | (uint32_t)q[2] << 16 | (uint32_t)q[1] << 8 | q[0];
        }
        s->a += x[0] + s->b;
        s->b += x[1] + s->a;
    }
}

static enum grey_error wal_scan(int fd, const char *path, struct fault *f) {
    uint8_t header[32], frame[24 + DB_DISK_PAGE_BYTES_MAX];
    ssize_t got = pread(fd, header, sizeof header, 0);
    uint32_t magic = got == (ssize_t)sizeof header ? bytes_get_be32(header) : 0;
    uint32_t page_bytes = bytes_get_be32(header + 8);
    if (got < 0) {
        return fault_errno(f, E_IO, "reading %s", path);
    }
    if ((magic & ~1u) != 0x377f0682 || page_bytes < 512 || page_bytes > DB_DISK_PAGE_BYTES_MAX) {
        return E_OK; /* never finished its first commit, or not ours: SQLite judges */
    }
    struct wal_sum sum = {.big_endian = (magic & 1) != 0};
    wal_sum_add(&sum, header, 24);
    if (sum.a != bytes_get_be32(header + 24) || sum.b != bytes_get_be32(header + 28)) {
        return E_OK;
    }
    bool sound = true, committed_since = false;
    uint64_t bad_frame = 0;
    for (uint64_t i = 1;; i++) {
        size_t size = 24 + page_bytes;
        got = pread(fd, frame, size, (off_t)(32 + (i - 1) * size));
        if (got < 0) {
            return fault_errno(f, E_IO, "reading %s", path);
        }
        if (got < (ssize_t)size) {
            return E_OK;
        }
        bool same_log = memcmp(frame + 8, header + 16, 8) == 0;
        if (sound) {
            wal_sum_add(&sum, frame, 8);
            wal_sum_add(&sum, frame + 24, page_bytes);
            if (same_log && sum.a == bytes_get_be32(frame + 16) && sum.b == bytes_get_be32(frame + 20)) {
                continue;
            }
            sound = false;
            bad_frame = i;
        } else if (committed_since && same_log) {
            return fault_set(f, E_CORRUPT, "%s is damaged at frame %" PRIu64 ": commits behind it would be lost", path, bad_frame);
        }
        if (same_log && bytes_get_be32(frame + 4) != 0) {
            committed_since = true;
        }
        if (!same_log && i > bad_frame) {
            return E_OK; /* frames of an older log: the rest was written before this log began */
        }
    }
}

enum grey_error db_disk_wal_check(const char *database_path, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 8];
    if (snprintf(path, sizeof path, "%s-wal", database_path) >= (int)sizeof path) {
        return fault_set(f, E_IO, "the path %s is too long", database_path);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? E_OK : fault_errno(f, E_IO, "opening %s", path);
    }
    enum grey_error err = wal_scan(fd, path, f);
    close(fd);
    return err;
}
