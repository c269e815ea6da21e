#include "agent/run/updater.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/run/updater_core.h"
#include "include/grey/must.h"
#include "include/grey/protocol.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define BUSY_MS 1000u
#define IDLE_MS 30000u

static struct metric on_trial = METRIC_GAUGE("grey_update_on_trial", "1 while this version of greyd is not confirmed yet.");
static struct metric floor_gauge = METRIC_GAUGE("grey_update_floor", "Counter below which this gateway takes no version.");
static struct metric turns = METRIC_COUNTER("grey_update_turns_total", "Times that this gateway was told to update itself.");

void updater_register(void) {
    metrics_register(&on_trial);
    metrics_register(&floor_gauge);
    metrics_register(&turns);
}

struct table *updater_rows(const struct updater *u) {
    return state_table(node_state(u->node));
}

raft_id updater_self(const struct updater *u) {
    struct raft_status s;
    node_raft_status(u->node, &s);
    return s.self;
}

/* --- what runs here ------------------------------------------------------------------------------------------------------------------ */

static void look_at_slots(struct updater *u) {
    struct slots s;
    struct fault f = {0};
    char path[LIMIT_PATH_BYTES + 1], to[LIMIT_PATH_BYTES + 1] = "";
    if (u->o.slots[0] == 0) {
        return;
    }
    enum grey_error err = slots_open(&s, u->o.slots, "", &f);
    if (err != E_OK && !u->damaged) {
        log_error("updater", "slots", "%s (GREY-%d): %s", error_sentence(err), error_id(err), f.text);
    }
    u->damaged = err != E_OK;
    u->state = s.state;
    if (u->place == SLOTS_NONE) { /* what this process was started from does not change */
        (void)snprintf(path, sizeof path, "%.900s/current", u->o.slots);
        ssize_t size = readlink(path, to, sizeof to - 1);
        u->place = size != 1 ? SLOTS_BASE : to[0] == 'a' ? SLOTS_A : to[0] == 'b' ? SLOTS_B : SLOTS_BASE;
    }
    u->trial = u->place != SLOTS_BASE && u->state.try == u->place;
    memset(u->running_id, 0, sizeof u->running_id);
    if (u->trial) {
        memcpy(u->running_id, u->state.try_id, sizeof u->running_id);
    } else if (u->place != SLOTS_BASE && u->state.keep == u->place) {
        memcpy(u->running_id, u->state.keep_id, sizeof u->running_id);
    }
    metrics_set(&on_trial, 0, u->trial);
    metrics_set(&floor_gauge, 0, (int64_t)u->state.floor);
}

/* --- what is in force: the header is in the first chunk ------------------------------------------------------------------------------- */

static struct updater_target *target_of(struct updater *u, struct bytes name, uint64_t issue) {
    for (uint32_t i = 0; i < u->target_count; i++) {
        if (bytes_equal_str(name, u->targets[i].name) && u->targets[i].issue == issue) {
            return &u->targets[i];
        }
    }
    return NULL;
}

static void header_read(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct updater *u = context;
    struct update_manifest m;
    struct bytes content = payload == NULL ? bytes_of(NULL, 0) : holding_content(blob_bytes(payload));
    u->pending--;
    u->asking = false;
    if (err != E_OK && err != E_NOT_FOUND) { /* the next look asks again */
        log_limited(LOG_WARN, "updater", "header", "error=GREY-%d %s", error_id(err), detail);
    } else if (!u->stopped && content.size > 0) {
        struct updater_target *t =
            &u->targets[u->target_count == UPDATER_TARGETS ? u->oldest++ % UPDATER_TARGETS : u->target_count++];
        *t = u->asked;
        t->fit = update_read(content, &m);
        if (t->fit == E_OK) {
            memcpy(t->id, m.id, sizeof t->id);
            t->counter = m.counter;
            t->replaces_max = m.replaces_max;
            t->fit = update_fits(&m, u->o.product, u->architecture, 0);
        }
    }
    if (!u->stopped) {
        updater_soon(u);
    }
    updater_release(u);
}

static void ask_header(struct updater *u, const struct object_manifest *m) {
    if (u->asking) {
        return;
    }
    raft_index at = holding_chunk(updater_rows(u), object_hash(m, 0));
    if (at == 0) {
        return;
    }
    u->asking = true;
    u->asked = (struct updater_target){.issue = m->issue};
    memcpy(u->asked.name, m->name.data, m->name.size);
    u->pending++;
    node_payload(u->node, at, header_read, u);
}

/* --- what this gateway says ------------------------------------------------------------------------------------------------------------ */

static void proposed(void *context, const struct node_answer *a) {
    struct updater *u = context;
    u->pending--;
    u->proposing = false;
    if (a->err != E_OK) {
        log_limited(LOG_INFO, "updater", "proposal", "error=GREY-%d %s", error_id(a->err), a->detail);
    }
    if (!u->stopped && a->err == E_OK) {
        updater_soon(u);
    }
    updater_release(u);
}

void updater_propose(struct updater *u, enum entry_kind kind, struct builder *b) {
    struct blob *payload = builder_blob(b);
    builder_free(b);
    if (payload != NULL) {
        u->proposing = true;
        u->pending++;
        node_propose(u->node, kind, payload, false, proposed, u);
        blob_unref(payload);
    }
}

void updater_report(struct updater *u, struct bytes name, uint64_t issue, const struct updating_report *r) {
    struct builder b;
    if (u->proposing) {
        return;
    }
    builder_init(&b, 256);
    payload_update_report(&b, name, issue, r);
    updater_propose(u, ENTRY_UPDATE, &b);
}

/* On trial it must have been well for a while before it says that it is. */
static bool is_well(struct updater *u, uint64_t now_ms) {
    struct raft_status s;
    node_raft_status(u->node, &s);
    bool well = node_has_quorum(u->node) && s.applied_index + UPDATER_LAG >= s.commit_index;
    u->well_since_ms = !well ? 0 : u->well_since_ms == 0 ? now_ms : u->well_since_ms;
    return well && now_ms - u->well_since_ms >= (uint64_t)u->o.soak_s * 1000;
}

static struct updating_report stand(const struct updater *u, const struct updater_target *t) {
    struct updating_report r = {.node = updater_self(u), .phase = UPDATING_FAILED};
    bool older = t->counter < u->state.floor && t->replaces_max < u->state.floor; /* the floor may have been lowered meanwhile */
    if (t->fit == E_UPDATE_PRODUCT) {
        r.phase = UPDATING_OTHER;
    } else if (u->o.slots[0] == 0) {
        r.why = (uint32_t)error_id(E_UPDATE_SLOTS);
    } else if (u->damaged) {
        r.why = (uint32_t)error_id(E_UPDATE_STATE);
    } else if (t->fit != E_UPDATE_FORMAT && memcmp(t->id, u->running_id, sizeof t->id) == 0) {
        r.phase = UPDATING_CURRENT;
    } else if (t->fit != E_OK || older) {
        r.why = (uint32_t)error_id(older ? E_UPDATE_OLDER : t->fit);
    } else if (memcmp(t->id, u->state.failed_id, sizeof t->id) == 0) {
        r.why = u->state.failed_why;
    } else {
        r.phase = UPDATING_WANTS;
    }
    return r;
}

/* Maybe for an issue that was in force before. */
static bool has_turn(const struct updater *u, const struct holding *h) {
    struct updating row;
    return updating_find(updater_rows(u), h->force.name, &row) && row.turn == updater_self(u);
}

/* True: there is something to do or to wait for. */
static bool own_part(struct updater *u, const struct holding *h, const struct updater_target *t, bool well) {
    struct updating row;
    struct updating_report r = stand(u, t);
    bool any = updating_find(updater_rows(u), h->force.name, &row);
    const struct updating_report *said = any && row.issue == t->issue ? updating_of(&row, r.node) : NULL;
    bool in_turn = has_turn(u, h);
    bool may_begin = any && updating_may_begin(&row, r.node, t->issue, (int64_t)u->o.turn_s * 1000, node_site_time_ms(u->node));
    /* Any word would end the turn, and this gateway may be away in a moment: for what it tries, or for what was in force before. */
    if (u->trial ? !well : delivery_under_way(u)) {
        return true;
    }
    /* Whoever was told that its time was over and runs the old version may say nothing better. */
    bool differs = said == NULL || said->phase != r.phase || said->why != r.why;
    if (differs && !(said != NULL && said->phase == UPDATING_FAILED && r.phase == UPDATING_WANTS)) {
        updater_report(u, h->force.name, t->issue, &r);
        return true;
    }
    if (may_begin && r.phase == UPDATING_WANTS && u->state.try == SLOTS_NONE) {
        if (!u->was_in_turn) {
            metrics_add(&turns, 0, 1);
            log_info("updater", "turn", "name=%s issue=%" PRIu64, t->name, t->issue);
        }
        delivery_begin(u, h, t);
        return true;
    }
    return r.phase == UPDATING_WANTS || in_turn;
}

/* Only when all that can be said of it is in the log: then it is kept. */
static void keep_trial(struct updater *u) {
    struct bytes key = {0};
    struct holding h;
    while (holding_next(updater_rows(u), key, &key, &h)) {
        struct updater_target *t = h.force.kind == OBJECT_UPDATE ? target_of(u, h.force.name, h.force.issue) : NULL;
        struct updating row;
        if (h.force.kind == OBJECT_UPDATE && h.force.version > 0 && t == NULL) {
            return; /* not read yet */
        }
        if (t != NULL && memcmp(t->id, u->running_id, sizeof t->id) == 0) {
            const struct updating_report *said = updating_find(updater_rows(u), h.force.name, &row) && row.issue == t->issue
                                                     ? updating_of(&row, updater_self(u))
                                                     : NULL;
            if (said == NULL || said->phase != UPDATING_CURRENT) {
                return;
            }
        }
    }
    delivery_confirm(u);
}

static void look(void *context) {
    struct updater *u = context;
    struct site_facts site;
    struct bytes key = {0};
    struct holding h;
    uint64_t now_ms = loop_now_ms(u->x.loop);
    bool busy = false, ready = state_site(node_state(u->node), &site) && site.feature_level >= FEATURE_LEVEL_UPDATES;
    look_at_slots(u);
    u->was_in_turn = u->in_turn;
    u->in_turn = false;
    bool well = u->trial && is_well(u, now_ms);
    while (ready && holding_next(updater_rows(u), key, &key, &h)) {
        if (h.force.kind != OBJECT_UPDATE || h.force.version == 0) {
            continue;
        }
        u->in_turn = u->in_turn || has_turn(u, &h);
        struct updater_target *t = target_of(u, h.force.name, h.force.issue);
        if (t == NULL) {
            ask_header(u, &h.force);
            busy = true;
            continue;
        }
        busy = own_part(u, &h, t, well) || busy;
        busy = captain_look(u, &h) || busy;
    }
    if (well && !u->proposing) {
        keep_trial(u);
    }
    if (ready && !u->in_turn) {
        delivery_withdraw(u);
    }
    loop_timer_after(u->x.loop, &u->timer, busy || u->trial ? BUSY_MS : IDLE_MS);
}

/* --- life ------------------------------------------------------------------------------------------------------------------------------- */

void updater_soon(struct updater *u) {
    loop_timer_after(u->x.loop, &u->timer, 0);
}

void updater_applied(struct updater *u, const struct entry *e) {
    if (e->kind == ENTRY_OBJECT || e->kind == ENTRY_UPDATE || e->kind == ENTRY_SITE) {
        updater_soon(u);
    }
}

struct updater *updater_new(const struct conn_context *x, const struct updater_options *o, struct node *node, struct fault *f) {
    struct updater *u = mem_new(1, sizeof *u);
    if (u == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "updates");
        return NULL;
    }
    u->x = *x;
    u->o = *o;
    u->node = node;
    u->architecture = UPDATE_ARCHITECTURE;
    u->file = -1;
    u->timer = (struct loop_timer){.fire = look, .context = u};
    delivery_prepare(u);
    look_at_slots(u);
    if (u->trial) {
        log_info("updater", "trial", "slot=%s starts_left=%" PRIu32, slots_name(u->place), u->state.left);
    }
    loop_timer_after(u->x.loop, &u->timer, BUSY_MS);
    return u;
}

void updater_release(struct updater *u) {
    if (u->stopped && u->freed && u->pending == 0) {
        mem_free(u);
    }
}

void updater_stop(struct updater *u) {
    if (u != NULL) {
        u->stopped = true;
        loop_timer_cancel(u->x.loop, &u->timer);
    }
}

void updater_free(struct updater *u) {
    if (u != NULL) {
        delivery_drop(u);
        u->freed = true;
        updater_release(u);
    }
}

void updater_facts(const struct updater *u, struct updater_facts *out) {
    *out = (struct updater_facts){.slot = u->o.slots[0] == 0 ? "-" : slots_name(u->place),
                                  .on_trial = u->trial,
                                  .floor = u->state.floor,
                                  .damaged = u->damaged};
    memcpy(out->running_id, u->running_id, sizeof out->running_id);
}
