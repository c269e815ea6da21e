#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

/* Is what this disk holds still what was written to it?  Damage in what nobody asks for shows only when another gateway's copy is gone as
 * well; so both databases are read through, slowly, once in check_interval_s.  Whatever read meets damage, it ends in node_damaged. */

#define SLICE_BYTES (16u * 1024u)      /* that are worth waking the disk for */
#define BYTES_PER_S_MAX (256u * 1024u) /* at most, however large the databases are */

static struct metric checked = METRIC_COUNTER("grey_storage_checked_bytes_total", "Bytes of the databases read to verify them.");
static struct metric rounds = METRIC_COUNTER("grey_storage_check_rounds_total", "Times that all of the databases was verified.");
static struct metric damages = METRIC_COUNTER("grey_storage_damage_total", "Times that damage was met on this disk.");
static struct metric is_damaged = METRIC_GAUGE("grey_storage_damaged", "1 while something on this disk waits to be mended.");

void diskcheck_start(void) {
    metrics_register(&checked);
    metrics_register(&rounds);
    metrics_register(&damages);
    metrics_register(&is_damaged);
}

/* --- damage ----------------------------------------------------------------------------------------------------------------------- */

static bool spared(const struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    uint32_t voters = 0, active = 0;
    for (uint32_t i = 0; i < s.members->count; i++) {
        voters += s.members->at[i].voter && s.members->at[i].id != n->self;
    }
    for (uint32_t i = 0; i < s.peer_count; i++) {
        const struct raft_member *m = raft_members_find(s.members, s.peers[i].id);
        active += m != NULL && m->voter && s.peers[i].id != n->self && s.peers[i].active;
    }
    bool others_do = s.role == RAFT_LEADER ? active == voters : n->leader != 0;
    return n->peers != NULL && voters >= 2 && others_do;
}

static void stop_to_mend(struct node *n) {
    struct diskcheck *c = &n->diskcheck;
    struct fault f = {0};
    if (sitelog_mark(n->log, c->what, c->detail, &f) == E_OK) {
        node_fail(n, E_CORRUPT, c->detail);
    } else { /* unmarked it would start as it is, and stop again */
        log_limited(LOG_ERROR, "diskcheck", "mark", "error=GREY-%d %s", error_id(f.code), f.text);
    }
}

void node_damaged(struct node *n, enum sitelog_damage what, const char *detail) {
    struct diskcheck *c = &n->diskcheck;
    if (n->has_failed) {
        return;
    }
    metrics_add(&damages, 0, 1);
    metrics_set(&is_damaged, 0, 1);
    if (!c->damaged || what == SITELOG_DAMAGE_HISTORY) { /* which takes anew whatever else is damaged */
        c->damaged = true;
        c->what = what;
        (void)snprintf(c->detail, sizeof c->detail, "%s", detail);
    }
    if (spared(n)) {
        stop_to_mend(n);
    } else {
        log_limited(LOG_ERROR, "diskcheck", "damage",
                    "error=GREY-%d %s; the site cannot spare this node now: it goes on, and stops to be mended as soon as it can",
                    error_id(E_CORRUPT), detail);
    }
}

void diskcheck_met(void *node, enum sitelog_damage what, const char *detail) {
    node_damaged(node, what, detail);
}

/* --- reading through ---------------------------------------------------------------------------------------------------------------- */

static void checked_slice(void *context, struct sitelog_read *read) {
    struct node *n = context;
    struct diskcheck *c = &n->diskcheck;
    c->reading = false;
    c->allowance -= (int64_t)read->checked_bytes;
    c->round_bytes += read->checked_bytes;
    metrics_add(&checked, 0, (int64_t)read->checked_bytes);
    if (read->err == E_OK && !read->more) {
        metrics_add(&rounds, 0, 1);
        log_info("diskcheck", "round", "bytes=%" PRIu64, c->round_bytes);
        c->rounds++;
        c->round_ended_unix_ms = now_wall_ms();
        c->round_bytes = 0;
        c->rests_until_ms = c->round_began_ms + 1000ull * n->o.check_interval_s;
        c->round_began_ms = 0;
        c->allowance = c->allowance < 0 ? c->allowance : 0;
    }
}

/* A round is as long as the interval when the files hold what their size says; where they hold little it ends sooner, and what was not used
 * would be read again at once. */
void diskcheck_duty(struct node *n) {
    struct diskcheck *c = &n->diskcheck;
    struct sitelog_usage usage;
    uint64_t now_ms = loop_now_ms(n->x.loop);
    if (c->damaged && !n->has_failed && spared(n)) {
        stop_to_mend(n);
    }
    if (c->damaged || n->o.check_interval_s == 0 || n->installing || now_ms < c->rests_until_ms) {
        return;
    }
    c->round_began_ms = c->round_began_ms == 0 ? now_ms : c->round_began_ms;
    sitelog_usage(n->log, &usage);
    c->all_bytes = usage.log_bytes + usage.state_bytes;
    uint64_t each_s = c->all_bytes / n->o.check_interval_s + 1;
    c->allowance += (int64_t)(each_s < BYTES_PER_S_MAX ? each_s : BYTES_PER_S_MAX);
    if (c->reading || c->allowance < (int64_t)SLICE_BYTES) {
        return;
    }
    uint64_t slice = (uint64_t)c->allowance < BYTES_PER_S_MAX ? (uint64_t)c->allowance : BYTES_PER_S_MAX;
    c->allowance = (int64_t)slice; /* what was not used while the disk was slow is not made up for */
    c->read = (struct sitelog_read){.kind = SITELOG_CHECK, .bytes_max = (uint32_t)slice, .done = checked_slice, .context = n};
    c->reading = sitelog_read(n->log, &c->read) == E_OK;
}

void node_disk_facts(const struct node *n, struct disk_facts *out) {
    const struct diskcheck *c = &n->diskcheck;
    uint64_t percent = c->all_bytes == 0 ? 0 : c->round_bytes * 100 / c->all_bytes;
    *out = (struct disk_facts){.damage = c->damaged ? c->detail : NULL,
                               .checked_percent = percent < 100 ? (uint32_t)percent : 100,
                               .rounds = c->rounds,
                               .round_ended_unix_ms = c->round_ended_unix_ms};
}
