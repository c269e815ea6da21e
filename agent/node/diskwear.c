#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"
#include "platform/wholefile.h"

/* Flash wears out by what is written to it.  What this gateway writes is counted and kept over restarts; above the bound of a day, the node
 * spares the disk where nobody loses by it: DISKWEAR_COMMIT_MS in requests.c, DISKWEAR_FLUSH_MS and tidying in upkeep.c.  Critical events, keys and votes
 * are written as ever. */

#define FILE_NAME "wear"
#define KEEP_MS 3600000u /* one small write an hour; a power cut forgets no more than that */

static struct metric day = METRIC_GAUGE("grey_storage_day_written_bytes", "Bytes written to the databases in the last 24 hours.");
static struct metric level =
    METRIC_GAUGE("grey_storage_wear_level", "0: below the bound of a day; 1: from 80% of it on; 2: above it, writes are shared.");

static bool path_of(const struct node *n, char path[LIMIT_PATH_BYTES + 1]) {
    int size = snprintf(path, LIMIT_PATH_BYTES + 1, "%s/" FILE_NAME, n->o.data_dir);
    return size > 0 && size <= (int)LIMIT_PATH_BYTES;
}

/* What is lost is an hour, and what is torn is not read. */
static void keep(struct node *n) {
    char path[LIMIT_PATH_BYTES + 1];
    struct builder b;
    struct fault f = {0};
    n->diskwear.kept_ms = loop_now_ms(n->x.loop);
    builder_init(&b, WEAR_FILE_BYTES_MAX);
    wear_put(&n->diskwear.wear, &b);
    if (b.err == E_OK && path_of(n, path) && wholefile_leave(path, builder_bytes(&b), 0644, &f) != E_OK) {
        log_limited(LOG_WARN, "diskwear", "keep", "%s", f.text);
    }
    builder_free(&b);
}

static void tell(const struct wear *w, enum wear_level before) {
    if (w->level == WEAR_OVER && before != WEAR_OVER) {
        log_warn("diskwear", "over",
                 "written_bytes=%" PRIu64 " limit_bytes=%" PRIu64 " in 24 h, more than storage.max_write_mb_per_day: events below "
                 "critical share their writes, and are answered up to %u ms later",
                 w->day_bytes, w->limit_bytes, DISKWEAR_COMMIT_MS);
    } else if (w->level == WEAR_HIGH && before == WEAR_LOW) {
        log_warn("diskwear", "high",
                 "written_bytes=%" PRIu64 " limit_bytes=%" PRIu64 " in 24 h: most of storage.max_write_mb_per_day", w->day_bytes,
                 w->limit_bytes);
    } else if (w->level != before) {
        log_info("diskwear", "less", "written_bytes=%" PRIu64 " limit_bytes=%" PRIu64 " in 24 h: %s", w->day_bytes, w->limit_bytes,
                 wear_level_name(w->level));
    }
}

void diskwear_duty(struct node *n) {
    struct diskwear *d = &n->diskwear;
    struct sitelog_usage usage;
    sitelog_usage(n->log, &usage);
    enum wear_level before = d->wear.level;
    uint64_t more = usage.written_bytes - d->seen_bytes;
    d->seen_bytes = usage.written_bytes;
    wear_add(&d->wear, now_floor_ms(), more);
    tell(&d->wear, before);
    metrics_set(&day, 0, d->wear.day_bytes > INT64_MAX ? INT64_MAX : (int64_t)d->wear.day_bytes);
    metrics_set(&level, 0, (int64_t)d->wear.level);
    if (loop_now_ms(n->x.loop) >= d->kept_ms + KEEP_MS || d->wear.level > before) {
        keep(n);
    }
}

void diskwear_start(struct node *n) {
    struct diskwear *d = &n->diskwear;
    char path[LIMIT_PATH_BYTES + 1];
    struct builder text;
    struct fault f = {0};
    metrics_register(&day);
    metrics_register(&level);
    wear_init(&d->wear, n->o.write_bytes_per_day_max);
    builder_init(&text, WEAR_FILE_BYTES_MAX + 1);
    bool there = path_of(n, path) && wholefile_read(path, &text, &f) == E_OK; /* with a NUL behind it */
    if (there && !wear_get(&d->wear, bytes_of(builder_bytes(&text).data, builder_bytes(&text).size - 1))) {
        log_warn("diskwear", "read", "%s is not of this form; what was written to the disk before is not counted", path);
    }
    builder_free(&text);
    d->kept_ms = loop_now_ms(n->x.loop);
}

void diskwear_stop(struct node *n) {
    keep(n);
}

const struct wear *node_wear(const struct node *n) {
    return &n->diskwear.wear;
}
