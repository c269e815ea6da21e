/* File: head, blocks, end (all numbers big-endian)
 *
 *   head    "GREYSNAP", version u16, flags u16 (1: self-contained), size u32, CBOR of that size, CRC-32 of all before
 *   block   kind u8 (1 rows, 2 payloads, 3 end), coding u8 (0 plain, 1 LZ4), u16 zero, size u32, stored size u32,
 *           CRC-32 of these twelve bytes and of the stored ones, stored bytes
 *   end     a block of kind 3 with rows u64, payloads u64; then the digest of the whole, 32 bytes
 *
 * The digest is a chain: SHA-256 of the head, then SHA-256 of (digest so far, block) for each block, so that both sides need one block
 * in memory.  Rows are CBOR [table, key, value, ref], payloads [index, term, epoch, time, kind, schema, payload]. */
#include "agent/store/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/store/datadir.h"
#include "include/grey/must.h"
#include "platform/codec.h"
#include "platform/compress.h"
#include "platform/digest.h"
#include "platform/log.h"
#include "platform/now.h"

#define MAGIC "GREYSNAP"
#define VERSION 2u
#define FLAG_SELF_CONTAINED 1u
#define PREFIX_BYTES 16u
#define HEAD_BYTES_MAX 65536u /* 64 KiB */
#define BLOCK_HEAD_BYTES 16u
#define BLOCK_BYTES 262144u /* 256 KiB: a block is closed when it holds as much */
#define BLOCK_BYTES_MAX (LIMIT_PAYLOAD_BYTES + BLOCK_BYTES + 4096u)
#define SYNC_EVERY_BYTES 4194304u /* 4 MiB: so that the last sync does not hold up commits for long */

enum block_kind { BLOCK_ROWS = 1, BLOCK_PAYLOADS = 2, BLOCK_END = 3 };

static int file_name(char *out, size_t size, const struct raft_point *point, const char *sort, const char *suffix) {
    return snprintf(out, size, "%s-%020" PRIu64 "-%08" PRIx32 "%s", sort, point->index, bytes_get_be32(point->hash), suffix);
}

/* --- writing ------------------------------------------------------------------------------------------------------------------------- */
struct snapshot_writer {
    int fd;
    char dir[LIMIT_PATH_BYTES + 16], path[LIMIT_PATH_BYTES + 96];
    struct sitelog_snapshot_info info;
    struct builder block, packed;
    enum block_kind kind; /* of the open block */
    uint64_t rows, payloads, unsynced_bytes;
    uint8_t digest[DIGEST_BYTES];
};

static enum grey_error put(struct snapshot_writer *w, struct bytes b, struct fault *f) {
    while (b.size > 0) {
        ssize_t n = write(w->fd, b.data, b.size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return fault_errno(f, E_IO, "writing %s", w->path);
        }
        b = bytes_of(b.data + n, b.size - (size_t)n);
        w->info.file_bytes += (uint64_t)n;
        w->unsynced_bytes += (uint64_t)n;
    }
    if (w->unsynced_bytes >= SYNC_EVERY_BYTES) {
        w->unsynced_bytes = 0;
        return fdatasync(w->fd) == 0 ? E_OK : fault_errno(f, E_IO, "syncing %s", w->path);
    }
    return E_OK;
}

static enum grey_error block_close(struct snapshot_writer *w, struct fault *f) {
    if (w->block.err != E_OK) {
        return fault_set(f, w->block.err == E_TOO_LARGE ? E_BUG : w->block.err, "%s: a block does not fit", w->path);
    }
    if (w->block.size == 0) {
        return E_OK;
    }
    /* The packed form stands behind room for the block's head, so that one digest and one write take both. */
    uint8_t *head = NULL;
    builder_reset(&w->packed);
    (void)builder_room(&w->packed, BLOCK_HEAD_BYTES);
    bool small = w->packed.err == E_OK && compress_lz4(builder_bytes(&w->block), &w->packed) == E_OK && w->packed.err == E_OK &&
                 w->packed.size < BLOCK_HEAD_BYTES + w->block.size;
    if (!small) {
        builder_reset(&w->packed);
        (void)builder_room(&w->packed, BLOCK_HEAD_BYTES);
        builder_add(&w->packed, builder_bytes(&w->block));
    }
    if (w->packed.err != E_OK) {
        return fault_set(f, E_NO_MEMORY, "%s: packing a block", w->path);
    }
    head = w->packed.data;
    memset(head, 0, BLOCK_HEAD_BYTES);
    head[0] = (uint8_t)w->kind;
    head[1] = small;
    bytes_put_be32(head + 4, (uint32_t)w->block.size);
    bytes_put_be32(head + 8, (uint32_t)(w->packed.size - BLOCK_HEAD_BYTES));
    uint32_t crc = digest_crc32(0, bytes_of(head, 12));
    bytes_put_be32(head + 12, digest_crc32(crc, bytes_of(head + BLOCK_HEAD_BYTES, w->packed.size - BLOCK_HEAD_BYTES)));
    digest_sha256_two(bytes_of(w->digest, DIGEST_BYTES), builder_bytes(&w->packed), w->digest);
    builder_reset(&w->block);
    return put(w, builder_bytes(&w->packed), f);
}

static enum grey_error block_for(struct snapshot_writer *w, enum block_kind kind, struct fault *f) {
    enum grey_error err = w->kind != kind || w->block.size >= BLOCK_BYTES ? block_close(w, f) : E_OK;
    w->kind = kind;
    return err;
}

static enum grey_error put_head(struct snapshot_writer *w, const struct snapshot_head *h, struct fault *f) {
    struct builder *b = &w->block;
    (void)builder_room(b, PREFIX_BYTES);
    codec_put_array(b, 8);
    codec_put_uint(b, h->point.index);
    codec_put_uint(b, h->point.term);
    codec_put_int(b, h->point.time_ms);
    codec_put_bytes(b, bytes_of(h->point.hash, DIGEST_BYTES));
    codec_put_uint(b, h->members_index);
    codec_put_bytes(b, blob_bytes(h->members));
    codec_put_bytes(b, bytes_of(h->state_hash, DIGEST_BYTES));
    codec_put_int(b, h->made_unix_ms);
    uint8_t *sum = builder_room(b, 4);
    if (sum == NULL) {
        return fault_set(f, E_NO_MEMORY, "%s: its head", w->path);
    }
    uint8_t *prefix = b->data;
    for (size_t i = 0; i < 8; i++) {
        prefix[i] = (uint8_t)MAGIC[i];
    }
    bytes_put_be16(prefix + 8, VERSION);
    bytes_put_be16(prefix + 10, h->self_contained ? FLAG_SELF_CONTAINED : 0);
    bytes_put_be32(prefix + 12, (uint32_t)(b->size - PREFIX_BYTES - 4));
    bytes_put_be32(sum, digest_crc32(0, bytes_of(b->data, b->size - 4)));
    digest_sha256(builder_bytes(b), w->digest);
    enum grey_error err = put(w, builder_bytes(b), f);
    builder_reset(b);
    return err;
}

struct snapshot_writer *snapshot_create(const char *dir, const struct snapshot_head *head, struct fault *f) {
    struct snapshot_writer *w = mem_new(1, sizeof *w);
    if (w == NULL) {
        fault_set(f, E_NO_MEMORY, "writing a snapshot");
        return NULL;
    }
    w->kind = BLOCK_ROWS;
    builder_init(&w->block, BLOCK_BYTES_MAX);
    builder_init(&w->packed, BLOCK_BYTES_MAX + BLOCK_HEAD_BYTES);
    w->info = (struct sitelog_snapshot_info){.point = head->point,
                                             .members_index = head->members_index,
                                             .made_unix_ms = head->made_unix_ms,
                                             .self_contained = head->self_contained};
    (void)file_name(w->info.name, sizeof w->info.name, &head->point, head->self_contained ? "full" : "state", ".snap");
    (void)snprintf(w->dir, sizeof w->dir, "%s", dir);
    (void)snprintf(w->path, sizeof w->path, "%s/%s.tmp", dir, w->info.name);
    w->fd = open(w->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->fd < 0) {
        fault_errno(f, E_IO, "opening %s", w->path);
        mem_free(w);
        return NULL;
    }
    if (put_head(w, head, f) != E_OK) {
        snapshot_abandon(w);
        return NULL;
    }
    return w;
}

static void writer_free(struct snapshot_writer *w) {
    if (w->fd >= 0) {
        close(w->fd);
    }
    builder_free(&w->block);
    builder_free(&w->packed);
    mem_free(w);
}

void snapshot_abandon(struct snapshot_writer *w) {
    if (w != NULL) {
        (void)unlink(w->path);
        writer_free(w);
    }
}

enum grey_error snapshot_put_row(struct snapshot_writer *w, const struct sitelog_row *row, struct fault *f) {
    enum grey_error err = block_for(w, BLOCK_ROWS, f);
    codec_put_array(&w->block, 4);
    codec_put_uint(&w->block, row->id);
    codec_put_bytes(&w->block, row->key);
    codec_put_bytes(&w->block, row->value);
    codec_put_uint(&w->block, row->ref);
    w->rows++;
    return err;
}

enum grey_error snapshot_put_payload(struct snapshot_writer *w, const struct entry *e, struct fault *f) {
    enum grey_error err = block_for(w, BLOCK_PAYLOADS, f);
    codec_put_array(&w->block, 7);
    codec_put_uint(&w->block, e->index);
    codec_put_uint(&w->block, e->term);
    codec_put_uint(&w->block, e->epoch);
    codec_put_int(&w->block, e->time_ms);
    codec_put_uint(&w->block, e->kind);
    codec_put_uint(&w->block, e->schema);
    codec_put_bytes(&w->block, blob_bytes(e->payload));
    w->payloads++;
    return err;
}

static enum grey_error finish(struct snapshot_writer *w, struct fault *f) {
    uint8_t counts[16];
    char path[sizeof w->dir + 72];
    enum grey_error err = block_for(w, BLOCK_END, f);
    bytes_put_be64(counts, w->rows);
    bytes_put_be64(counts + 8, w->payloads);
    builder_add(&w->block, bytes_of(counts, sizeof counts));
    if (err != E_OK || (err = block_close(w, f)) != E_OK || (err = put(w, bytes_of(w->digest, DIGEST_BYTES), f)) != E_OK) {
        return err;
    }
    memcpy(w->info.checksum, w->digest, DIGEST_BYTES);
    (void)snprintf(path, sizeof path, "%s/%s", w->dir, w->info.name);
    if (fsync(w->fd) != 0) {
        return fault_errno(f, E_IO, "syncing %s", w->path);
    }
    if (rename(w->path, path) != 0) {
        return fault_errno(f, E_IO, "naming %s", path);
    }
    return datadir_sync(w->dir, f);
}

enum grey_error snapshot_finish(struct snapshot_writer *w, struct sitelog_snapshot_info *info, struct fault *f) {
    enum grey_error err = finish(w, f);
    *info = w->info;
    if (err != E_OK) {
        snapshot_abandon(w);
    } else {
        writer_free(w);
    }
    return err;
}

/* --- reading ------------------------------------------------------------------------------------------------------------------------- */
struct snapshot_reader {
    int fd;
    char path[LIMIT_PATH_BYTES + 96];
    struct snapshot_head head;
    struct builder block, plain;
    uint64_t rows, payloads, size_bytes, offset;
    uint8_t digest[DIGEST_BYTES];
};

static enum grey_error get(struct snapshot_reader *r, void *out, size_t size, struct fault *f) {
    uint8_t *p = out;
    while (size > 0) {
        ssize_t n = read(r->fd, p, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fault_errno(f, E_IO, "reading %s", r->path);
        }
        if (n == 0) {
            return fault_set(f, E_CORRUPT, "%s ends too early", r->path);
        }
        p += n;
        size -= (size_t)n;
        r->offset += (uint64_t)n;
    }
    return E_OK;
}

static enum grey_error head_decode(struct snapshot_reader *r, struct bytes in) {
    struct codec_reader c;
    struct snapshot_head *h = &r->head;
    codec_reader_init(&c, in);
    bool shape = codec_array(&c, 8) == 8;
    h->point.index = codec_uint(&c, INT64_MAX);
    h->point.term = codec_uint(&c, UINT64_MAX);
    h->point.time_ms = codec_int(&c);
    codec_fixed(&c, h->point.hash, DIGEST_BYTES);
    h->members_index = codec_uint(&c, INT64_MAX);
    struct bytes members = codec_bytes(&c, HEAD_BYTES_MAX);
    codec_fixed(&c, h->state_hash, DIGEST_BYTES);
    h->made_unix_ms = codec_int(&c);
    if (codec_end(&c) != E_OK || !shape || h->point.index == 0) {
        return E_CORRUPT;
    }
    if (members.size > 0 && (h->members = blob_copy(members)) == NULL) {
        return E_NO_MEMORY;
    }
    return E_OK;
}

static enum grey_error get_head(struct snapshot_reader *r, struct fault *f) {
    uint8_t *prefix = builder_room(&r->block, PREFIX_BYTES);
    if (prefix == NULL) {
        return fault_set(f, E_NO_MEMORY, "reading %s", r->path);
    }
    enum grey_error err = get(r, prefix, PREFIX_BYTES, f);
    if (err != E_OK) {
        return err;
    }
    if (memcmp(prefix, MAGIC, 8) != 0) {
        return fault_set(f, E_CORRUPT, "%s is not a snapshot", r->path);
    }
    unsigned version = bytes_get_be16(prefix + 8);
    r->head.self_contained = (bytes_get_be16(prefix + 10) & FLAG_SELF_CONTAINED) != 0;
    uint32_t size = bytes_get_be32(prefix + 12);
    if (size > HEAD_BYTES_MAX) {
        return fault_set(f, E_CORRUPT, "%s: its head is damaged", r->path);
    }
    uint8_t *rest = builder_room(&r->block, size + 4);
    if (rest == NULL) {
        return fault_set(f, E_NO_MEMORY, "reading %s", r->path);
    }
    if ((err = get(r, rest, size + 4, f)) != E_OK) {
        return err;
    }
    if (bytes_get_be32(rest + size) != digest_crc32(0, bytes_of(r->block.data, PREFIX_BYTES + size))) {
        return fault_set(f, E_CORRUPT, "%s: its head is damaged", r->path);
    }
    if (version != VERSION) {
        return fault_set(f, E_DISK_VERSION, "%s: format %u, this version knows %u", r->path, version, VERSION);
    }
    digest_sha256(builder_bytes(&r->block), r->digest);
    err = head_decode(r, bytes_of(rest, size));
    return err == E_OK ? E_OK : fault_set(f, err, "%s: its head is damaged", r->path);
}

struct snapshot_reader *snapshot_open(const char *path, struct fault *f) {
    struct snapshot_reader *r = mem_new(1, sizeof *r);
    struct stat st;
    if (r == NULL) {
        fault_set(f, E_NO_MEMORY, "reading %s", path);
        return NULL;
    }
    (void)snprintf(r->path, sizeof r->path, "%s", path);
    builder_init(&r->block, BLOCK_BYTES_MAX + BLOCK_HEAD_BYTES);
    builder_init(&r->plain, BLOCK_BYTES_MAX);
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &st) != 0) {
        fault_errno(f, errno == ENOENT ? E_NOT_FOUND : E_IO, "opening %s", path);
        snapshot_close(r);
        return NULL;
    }
    r->size_bytes = (uint64_t)st.st_size;
    if (get_head(r, f) != E_OK) {
        snapshot_close(r);
        return NULL;
    }
    return r;
}

void snapshot_close(struct snapshot_reader *r) {
    if (r != NULL) {
        if (r->fd >= 0) {
            close(r->fd);
        }
        blob_unref(r->head.members);
        builder_free(&r->block);
        builder_free(&r->plain);
        mem_free(r);
    }
}

const struct snapshot_head *snapshot_head(const struct snapshot_reader *r) {
    return &r->head;
}

void snapshot_info(const struct snapshot_reader *r, struct sitelog_snapshot_info *info) {
    *info = (struct sitelog_snapshot_info){.point = r->head.point,
                                           .members_index = r->head.members_index,
                                           .made_unix_ms = r->head.made_unix_ms,
                                           .self_contained = r->head.self_contained,
                                           .file_bytes = r->size_bytes};
    memcpy(info->checksum, r->digest, DIGEST_BYTES);
    (void)file_name(info->name, sizeof info->name, &r->head.point, r->head.self_contained ? "full" : "state", ".snap");
}

static enum grey_error rows_decode(struct snapshot_reader *r, struct bytes in, struct sitelog_row_set **out) {
    struct codec_reader c;
    struct sitelog_row_set *set = rowset_new();
    enum grey_error err = set == NULL ? E_NO_MEMORY : E_OK;
    codec_reader_init(&c, in);
    while (err == E_OK && c.rest.size > 0) {
        bool shape = codec_array(&c, 4) == 4;
        struct sitelog_row row = {.found = true};
        row.id = (enum table_id)codec_uint(&c, UINT8_MAX);
        row.key = codec_bytes(&c, UINT16_MAX);
        row.value = codec_bytes(&c, BLOCK_BYTES_MAX);
        row.ref = codec_uint(&c, r->head.point.index);
        err = c.err != E_OK || !shape ? E_CORRUPT : rowset_add(set, &row);
        r->rows++;
    }
    if (err != E_OK) {
        rowset_free(set);
        return err;
    }
    *out = set;
    return E_OK;
}

static enum grey_error payload_decode(struct codec_reader *c, const struct snapshot_reader *r, struct entry *e) {
    bool shape = codec_array(c, 7) == 7;
    *e = (struct entry){.index = codec_uint(c, r->head.point.index)};
    e->term = codec_uint(c, UINT64_MAX);
    e->epoch = codec_uint(c, UINT64_MAX);
    e->time_ms = codec_int(c);
    e->kind = (uint16_t)codec_uint(c, UINT16_MAX);
    e->schema = (uint16_t)codec_uint(c, UINT16_MAX);
    struct bytes payload = codec_bytes(c, LIMIT_PAYLOAD_BYTES);
    if (c->err != E_OK || !shape || e->index == 0) {
        return E_CORRUPT;
    }
    digest_sha256(payload, e->digest);
    e->payload = payload.size == 0 ? NULL : blob_copy(payload);
    return payload.size > 0 && e->payload == NULL ? E_NO_MEMORY : E_OK;
}

static enum grey_error payloads_decode(struct snapshot_reader *r, struct bytes in, struct entry **out, uint32_t *count) {
    struct codec_reader c;
    uint32_t capacity = 0;
    enum grey_error err = E_OK;
    codec_reader_init(&c, in);
    while (err == E_OK && c.rest.size > 0) {
        if (*count == capacity) {
            capacity = capacity == 0 ? 16 : capacity * 2;
            struct entry *grown = mem_grow(*out, capacity, sizeof *grown);
            if (grown == NULL) {
                return E_NO_MEMORY;
            }
            *out = grown;
        }
        if ((err = payload_decode(&c, r, &(*out)[*count])) == E_OK) {
            (*count)++;
            r->payloads++;
        }
    }
    return err;
}

static enum grey_error end_check(struct snapshot_reader *r, struct bytes counts, struct fault *f) {
    uint8_t said[DIGEST_BYTES];
    if (counts.size != 16 || bytes_get_be64(counts.data) != r->rows || bytes_get_be64(counts.data + 8) != r->payloads) {
        return fault_set(f, E_CORRUPT, "%s: rows are missing", r->path);
    }
    enum grey_error err = get(r, said, sizeof said, f);
    if (err == E_OK && (memcmp(said, r->digest, DIGEST_BYTES) != 0 || r->offset != r->size_bytes)) {
        err = fault_set(f, E_CORRUPT, "%s: the digest of the whole is wrong", r->path);
    }
    return err;
}

enum grey_error snapshot_next(struct snapshot_reader *r, struct sitelog_row_set **rows, struct entry **entries, uint32_t *count,
                              bool *end, struct fault *f) {
    *rows = NULL;
    *entries = NULL;
    *count = 0;
    *end = false;
    uint64_t at = r->offset;
    builder_reset(&r->block);
    builder_reset(&r->plain);
    uint8_t *head = builder_room(&r->block, BLOCK_HEAD_BYTES);
    if (head == NULL) {
        return fault_set(f, E_NO_MEMORY, "reading %s", r->path);
    }
    enum grey_error err = get(r, head, BLOCK_HEAD_BYTES, f);
    if (err != E_OK) {
        return err;
    }
    uint32_t size = bytes_get_be32(head + 4), stored = bytes_get_be32(head + 8), sum = bytes_get_be32(head + 12);
    uint8_t kind = head[0], coding = head[1];
    uint32_t crc = digest_crc32(0, bytes_of(head, 12));
    if (size > BLOCK_BYTES_MAX || stored > size || coding > 1 || (coding == 0 && stored != size)) {
        return fault_set(f, E_CORRUPT, "%s: the block at %" PRIu64 " is damaged", r->path, at);
    }
    uint8_t *data = builder_room(&r->block, stored);
    if (data == NULL) {
        return fault_set(f, E_NO_MEMORY, "reading %s", r->path);
    }
    if ((err = get(r, data, stored, f)) != E_OK) {
        return err;
    }
    struct bytes plain = bytes_of(data, stored);
    if (digest_crc32(crc, plain) != sum) {
        return fault_set(f, E_CORRUPT, "%s: the block at %" PRIu64 " is damaged", r->path, at);
    }
    digest_sha256_two(bytes_of(r->digest, DIGEST_BYTES), builder_bytes(&r->block), r->digest);
    if (coding == 1) {
        err = compress_unlz4(plain, size, &r->plain);
        plain = builder_bytes(&r->plain);
    }
    if (err == E_OK && kind == BLOCK_ROWS) {
        err = rows_decode(r, plain, rows);
    } else if (err == E_OK && kind == BLOCK_PAYLOADS) {
        err = payloads_decode(r, plain, entries, count);
    } else if (err == E_OK && kind == BLOCK_END) {
        *end = true;
        return end_check(r, plain, f);
    } else if (err == E_OK) {
        err = E_CORRUPT;
    }
    if (err != E_OK) {
        for (uint32_t i = 0; i < *count; i++) {
            blob_unref((*entries)[i].payload);
        }
        mem_free(*entries);
        *entries = NULL;
        *count = 0;
        return fault_set(f, err, "%s: the block at %" PRIu64 " cannot be read", r->path, at);
    }
    return E_OK;
}
