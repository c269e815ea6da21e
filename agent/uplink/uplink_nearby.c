/* What the root that runs has in common with the one that comes need not come over the link: its blocks become chunks for the log, as if the core had sent them, and so reach
 * the other gateways of the site as well.
 *
 * A chunk of an image's bundle is a run of blocks that hold something (federation/imagemap.h).  The root is read once, and at each block it is asked whether the
 * window of blocks that begins there is one that is missing: a file that grew has moved what lies behind it by whole blocks.  Where one
 * was found, the next begins behind it most of the time, so mostly each byte is hashed once.  All of it is done by a worker, a piece at a time,
 * since handshakes wait for the same one; nothing that is found is believed before its hash was reckoned again from what is handed on. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/state/holding.h"
#include "agent/uplink/uplink_core.h"
#include "federation/imagemap.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define BLOCK IMAGEMAP_BLOCK_BYTES
#define WINDOW_BLOCKS_MAX (OBJECT_CHUNK_BYTES_MAX / BLOCK)
#define PIECE_BLOCKS 256u /* read by one job */
#define PROPOSALS_MAX 4u  /* chunks in the log at once */

static struct metric found_bytes =
    METRIC_COUNTER("grey_federation_supply_found_bytes_total",
                   "Bytes of chunks that were found in the root that runs, and did not come from the core.");

struct sought {
    uint8_t hash[OBJECT_HASH_BYTES];
    uint32_t chunk;
    uint32_t block; /* where it begins in the root, and one; 0: not found */
};

enum stage { NEARBY_SEARCHING, NEARBY_TAKING };

struct uplink_nearby {
    struct uplink *owner; /* NULL: it is gone */
    struct worker_job job;
    bool working; /* the worker has this */
    enum stage stage;
    char name[LIMIT_NAME_BYTES + 1]; /* of the object, and its issue */
    uint64_t issue;
    uint32_t chunk_bytes, window; /* blocks of a chunk */
    struct sought *sought;        /* ascending by hash while it is searched, by chunk then */
    uint32_t count, next;         /* next: to be taken */
    int fd;
    uint32_t block;                    /* of the root, to be read next */
    uint32_t first[WINDOW_BLOCKS_MAX]; /* blocks of the window */
    uint8_t bytes[WINDOW_BLOCKS_MAX][BLOCK];
    uint32_t filled, found;
    bool at_end;
    uint8_t chunk[OBJECT_CHUNK_BYTES_MAX]; /* taken */
    bool good;
};

void uplink_nearby_register(void) {
    metrics_register(&found_bytes);
}

/* --- on the worker ------------------------------------------------------------------------------------------------------------------- */

static struct uplink_nearby *of_job(struct worker_job *job) {
    return (struct uplink_nearby *)(void *)((char *)job - offsetof(struct uplink_nearby, job));
}

static bool is_empty(const uint8_t block[BLOCK]) {
    static const uint8_t nothing[BLOCK];
    return memcmp(block, nothing, BLOCK) == 0;
}

static int by_hash(const void *a, const void *b) {
    return memcmp(((const struct sought *)a)->hash, ((const struct sought *)b)->hash, OBJECT_HASH_BYTES);
}

static int by_chunk(const void *a, const void *b) {
    uint32_t x = ((const struct sought *)a)->chunk, y = ((const struct sought *)b)->chunk;
    return x < y ? -1 : x > y;
}

/* True: the window was one of those that are missing. */
static bool look_at_window(struct uplink_nearby *n) {
    struct sought key, *hit;
    digest_sha256(bytes_of(n->bytes[0], (size_t)n->window * BLOCK), key.hash);
    hit = bsearch(&key, n->sought, n->count, sizeof key, by_hash);
    if (hit == NULL) {
        return false;
    }
    n->found += hit->block == 0;
    hit->block = n->first[0] + 1;
    return true;
}

static void add_block(struct uplink_nearby *n, uint32_t number, const uint8_t block[BLOCK]) {
    if (n->filled == n->window) {
        memmove(n->bytes[0], n->bytes[1], (size_t)(n->window - 1) * BLOCK);
        memmove(n->first, n->first + 1, (size_t)(n->window - 1) * sizeof n->first[0]);
        n->filled--;
    }
    memcpy(n->bytes[n->filled], block, BLOCK);
    n->first[n->filled++] = number;
    if (n->filled == n->window && look_at_window(n)) {
        n->filled = 0;
    }
}

static void search_work(struct worker_job *job) {
    struct uplink_nearby *n = of_job(job);
    uint8_t block[BLOCK];
    for (uint32_t i = 0; i < PIECE_BLOCKS && !n->at_end; i++, n->block++) {
        if (pread(n->fd, block, BLOCK, (off_t)n->block * BLOCK) != (ssize_t)BLOCK) {
            n->at_end = true;
        } else if (!is_empty(block)) {
            add_block(n, n->block, block);
        }
    }
}

static void take_work(struct worker_job *job) {
    struct uplink_nearby *n = of_job(job);
    const struct sought *s = &n->sought[n->next];
    uint8_t hash[OBJECT_HASH_BYTES];
    uint32_t have = 0;
    for (uint32_t at = s->block - 1; have < n->window; at++) {
        if (pread(n->fd, n->chunk + (size_t)have * BLOCK, BLOCK, (off_t)at * BLOCK) != (ssize_t)BLOCK) {
            break;
        }
        have += !is_empty(n->chunk + (size_t)have * BLOCK);
    }
    digest_sha256(bytes_of(n->chunk, n->chunk_bytes), hash);
    n->good = have == n->window && memcmp(hash, s->hash, sizeof hash) == 0;
}

/* --- on the loop ----------------------------------------------------------------------------------------------------------------------- */

static void let_go(struct uplink_nearby *n) {
    if (n->fd >= 0) {
        (void)close(n->fd);
    }
    mem_free(n->sought);
    mem_free(n);
}

void uplink_nearby_forget(struct uplink *u) {
    struct uplink_nearby *n = u->nearby;
    u->nearby = NULL;
    u->nearby_done_count = 0;
    if (n != NULL && n->working) {
        n->owner = NULL; /* the job lets it go */
    } else if (n != NULL) {
        let_go(n);
    }
}

/* From now on the core is asked for what was not found. */
static void remember(struct uplink *u, struct bytes name, uint64_t issue) {
    uint32_t at = u->nearby_done_count++ % UPLINK_NEARBY_DONE_MAX;
    memset(u->nearby_done[at].name, 0, sizeof u->nearby_done[at].name);
    memcpy(u->nearby_done[at].name, name.data, name.size);
    u->nearby_done[at].issue = issue;
}

static void take_on(struct uplink_nearby *n);

static void submit(struct uplink_nearby *n, void (*work)(struct worker_job *), void (*done)(struct worker_job *)) {
    n->job = (struct worker_job){.work = work, .done = done};
    n->working = worker_submit(n->owner->x.crypto, &n->job) == E_OK; /* busy: the next look goes on */
}

static void search_done(struct worker_job *job) {
    struct uplink_nearby *n = of_job(job);
    n->working = false;
    if (n->owner == NULL) {
        let_go(n);
        return;
    }
    if (!n->at_end) {
        submit(n, search_work, search_done);
        return;
    }
    log_info("uplink", "nearby", "name=%s issue=%" PRIu64 " missing=%" PRIu32 " found=%" PRIu32, n->name, n->issue, n->count,
             n->found);
    qsort(n->sought, n->count, sizeof *n->sought, by_chunk);
    n->stage = NEARBY_TAKING;
    take_on(n);
}

static void take_done(struct worker_job *job) {
    struct uplink_nearby *n = of_job(job);
    n->working = false;
    if (n->owner == NULL) {
        let_go(n);
        return;
    }
    struct sought *s = &n->sought[n->next++];
    if (!n->good) {
        s->block = 0; /* the core has it */
    } else {
        metrics_add(&found_bytes, 0, n->chunk_bytes);
        uplink_supply_found(n->owner, bytes_of(n->chunk, n->chunk_bytes));
    }
    take_on(n);
}

/* The next one that was found and did not come into the log otherwise. */
static void take_on(struct uplink_nearby *n) {
    struct uplink *u = n->owner;
    while (n->next < n->count && n->sought[n->next].block == 0) {
        n->next++;
    }
    if (n->next == n->count) {
        remember(u, bytes_str(n->name), n->issue);
        u->nearby = NULL;
        let_go(n);
        uplink_supply_pump(u);
    } else if (!n->working && u->supply.proposals < PROPOSALS_MAX) {
        submit(n, take_work, take_done);
    }
}

static bool was_sought(const struct uplink *u, const struct object_manifest *m) {
    for (uint32_t i = 0; i < u->nearby_done_count && i < UPLINK_NEARBY_DONE_MAX; i++) {
        if (u->nearby_done[i].issue == m->issue && bytes_equal_str(m->name, u->nearby_done[i].name)) {
            return true;
        }
    }
    return false;
}

/* NULL: nothing can be looked for. */
static struct uplink_nearby *begin(struct uplink *u, const struct object_manifest *m) {
    uint32_t count = object_chunk_count(m);
    bool fits = m->chunk_bytes % BLOCK == 0 && m->chunk_bytes > 0 && m->chunk_bytes <= sizeof((struct uplink_nearby *)0)->chunk;
    struct uplink_nearby *n = fits ? mem_new(1, sizeof *n) : NULL;
    struct sought *sought = n != NULL ? mem_new(count, sizeof *sought) : NULL;
    int fd = sought != NULL ? open(u->o.root, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) {
        log_limited(LOG_WARN, "uplink", "nearby", "%s: %s; all of it comes from the core", u->o.root,
                    sought != NULL ? strerror(errno) : "no memory, or chunks that are not of blocks");
        mem_free(sought);
        mem_free(n);
        return NULL;
    }
    n->owner = u;
    n->issue = m->issue;
    n->chunk_bytes = m->chunk_bytes;
    n->window = m->chunk_bytes / BLOCK;
    n->fd = fd;
    n->sought = sought;
    memcpy(n->name, m->name.data, m->name.size);
    for (uint32_t i = 0; i < count; i++) {
        if (holding_missing(state_table(uplink_state(u)), m, i) == i && object_size_of(m, i) == m->chunk_bytes) {
            struct sought *s = &n->sought[n->count++];
            memcpy(s->hash, object_hash(m, i).data, OBJECT_HASH_BYTES);
            s->chunk = i;
        }
    }
    qsort(n->sought, n->count, sizeof *n->sought, by_hash);
    submit(n, search_work, search_done);
    return n;
}

bool uplink_nearby_awaits(struct uplink *u, const struct holding *h) {
    if (u->o.root[0] == 0 || h->coming.kind != OBJECT_UPDATE || h->coming.version == 0 || was_sought(u, &h->coming)) {
        return false;
    }
    if (u->nearby == NULL) { /* else one after the other */
        u->nearby = begin(u, &h->coming);
        if (u->nearby == NULL) {
            remember(u, h->coming.name, h->coming.issue);
        }
    }
    return u->nearby != NULL;
}

void uplink_nearby_look(struct uplink *u) {
    struct uplink_nearby *n = u->nearby;
    if (n == NULL || n->working) {
        return;
    }
    if (n->stage == NEARBY_SEARCHING) {
        submit(n, search_work, search_done);
    } else if (n->stage == NEARBY_TAKING) {
        take_on(n);
    }
}
