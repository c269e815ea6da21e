/* New versions of the programs roll through the site while its gateways crash and change leaders: the state machine and the leader's decision are greyd's own
 * (agent/state/updating.h); what greyd, grey-update and the core do around them (agent/run/updater.c, captain.c) is simulated.
 *
 * What must hold:
 *   R1  no two gateways are away for an update at once
 *   R2  a gateway goes away for one only when the others were all well when it got its turn, and nobody's failed since: by what itself has applied
 *   R3  a version that a gateway left again is not tried there again
 *   R4  when all is calm the site has come to an end: all have the newest version, or nobody tries it any more and the core was told
 * Draws from a stream of its own. */
#include <string.h>

#include "agent/state/holding.h"
#include "agent/state/updating.h"
#include "tests/week/week.h"

#define NAME bytes_str("agent")
#define TURN_MS (30 * WEEK_MINUTE_MS)
#define TRIAL_MS (10 * WEEK_MINUTE_MS)
#define SOAK_MS 30000
#define BUSY_MS 2000
#define IDLE_MS 60000
#define BAD_IN 4u /* one version in so many does not get well; one more is refused by the gateway that looks at it first */

static uint64_t draw(struct week *w, uint64_t below) {
    uint64_t others = w->random;
    w->random = w->roll.random;
    uint64_t v = week_draw(w, below);
    w->roll.random = w->random;
    w->random = others;
    return v;
}

static raft_id id_of(unsigned gateway) {
    return gateway + 1;
}

static bool is_bad(uint64_t issue) {
    return week_hash(bytes_of(&issue, sizeof issue)) % BAD_IN == 0;
}

static struct table *rows_of(const struct gateway *g) {
    return state_table(g->state);
}

static void propose(struct week *w, enum entry_kind kind, struct builder *b) {
    if (b->err != E_OK) {
        abort();
    }
    if (!w->calm && draw(w, 100) < 10) {
        w->counts[WEEK_LOST_PROPOSALS]++;
    } else {
        (void)site_propose(w, kind, builder_bytes(b));
    }
    builder_free(b);
}

static struct builder payload(void) {
    struct builder b;
    builder_init(&b, 1 << 16);
    return b;
}

/* --- the core ------------------------------------------------------------------------------------------------------------------------- */

static void offer(struct week *w) {
    static const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES] = {1}; /* the state takes what the log says */
    char content[32];
    struct builder hashes = payload(), manifest = payload(), b = payload();
    uint64_t issue = ++w->roll.issue;
    (void)snprintf(content, sizeof content, "version %" PRIu64, issue);
    object_cut(bytes_str(content), OBJECT_CHUNK_BYTES_MIN, &hashes);
    struct object_manifest m = {.kind = OBJECT_UPDATE,
                                .name = NAME,
                                .site = bytes_str("week"),
                                .version = issue,
                                .issue = issue,
                                .size = strlen(content),
                                .chunk_bytes = OBJECT_CHUNK_BYTES_MIN,
                                .hashes = builder_bytes(&hashes)};
    object_sign(&m, secret_key, &manifest);
    payload_offer(&b, builder_bytes(&manifest), bytes_str(content));
    week_note(w, "version %" PRIu64 " is offered%s", issue, is_bad(issue) ? ", which does not get well" : "");
    w->counts[WEEK_VERSIONS]++;
    (void)site_propose(w, ENTRY_OBJECT, builder_bytes(&b)); /* where it is lost, the core says it again with the next one */
    builder_free(&hashes);
    builder_free(&manifest);
    builder_free(&b);
    w->roll.offer_ms = w->now_ms + WEEK_MINUTE_MS + (int64_t)draw(w, 8 * WEEK_HOUR_MS);
}

/* --- a gateway ------------------------------------------------------------------------------------------------------------------------ */

static void go_away(struct week *w, unsigned i, uint64_t next_runs) {
    struct roll_gateway *r = &w->roll.at[i];
    for (unsigned k = 0; k < WEEK_GATEWAYS; k++) {
        if (k != i && w->roll.at[k].away) {
            week_fail(w, "R1: gateways %u and %u are away for an update at once", i, k);
        }
    }
    week_note(w, "gateway %u starts version %" PRIu64 " instead of %" PRIu64, i, next_runs, r->runs);
    r->runs = next_runs;
    r->installing = 0;
    r->away = true;
    site_stop(w, i, 2000 + (int64_t)draw(w, 8000));
}

static void leave(struct week *w, unsigned i) {
    struct roll_gateway *r = &w->roll.at[i];
    r->failed = r->trial;
    r->trial = 0;
    w->counts[WEEK_LEFT]++;
    go_away(w, i, r->kept);
}

/* The bundle is in the other slot: what ran goes on trial. */
static void installed(struct week *w, unsigned i) {
    struct roll_gateway *r = &w->roll.at[i];
    if (r->failed == r->installing) {
        week_fail(w, "R3: gateway %u tries version %" PRIu64 " again, which it had left", i, r->installing);
    }
    r->trial = r->installing;
    r->trial_until_ms = w->now_ms + TRIAL_MS;
    w->counts[WEEK_TRIED]++;
    go_away(w, i, r->installing);
}

static bool is_well(struct week *w, unsigned i) {
    const struct gateway *g = &w->gateways[i];
    bool well = w->leader < WEEK_GATEWAYS && site_ups(w) >= 2 && state_applied(g->state) + 1000 >= w->log_count &&
                !is_bad(w->roll.at[i].runs);
    struct roll_gateway *r = &w->roll.at[i];
    r->well_since_ms = !well ? 0 : r->well_since_ms == 0 ? w->now_ms : r->well_since_ms;
    return well && w->now_ms - r->well_since_ms >= SOAK_MS;
}

static struct updating_report stand(const struct roll_gateway *r, unsigned i, uint64_t issue) {
    struct updating_report out = {.node = id_of(i), .phase = UPDATING_WANTS};
    if (r->runs == issue) {
        out.phase = UPDATING_CURRENT;
    } else if (r->failed == issue) {
        out.phase = UPDATING_FAILED;
        out.why = (uint32_t)error_id(E_UPDATE_UNHEALTHY);
    }
    return out;
}

static bool somebody_failed(const struct updating *u) {
    for (uint32_t k = 0; k < u->count; k++) {
        if (u->at[k].phase == UPDATING_FAILED) {
            return true;
        }
    }
    return false;
}

/* As agent/run/updater.c has it.  True: there is something to do. */
static bool own_part(struct week *w, unsigned i) {
    struct gateway *g = &w->gateways[i];
    struct roll_gateway *r = &w->roll.at[i];
    struct holding h;
    struct updating row;
    if (r->trial != 0 && w->now_ms >= r->trial_until_ms) {
        leave(w, i);
        return true;
    }
    bool well = is_well(w, i);
    if (r->installing != 0) {
        if (w->now_ms >= r->installed_ms) {
            installed(w, i);
        }
        return true;
    }
    if (!holding_find(rows_of(g), OBJECT_UPDATE, NAME, &h) || h.force.version == 0) {
        return false;
    }
    if (r->trial != 0 && !well) {
        return true;
    }
    uint64_t issue = h.force.issue;
    struct updating_report now = stand(r, i, issue);
    bool any = updating_find(rows_of(g), NAME, &row) && row.issue == issue;
    const struct updating_report *said = any ? updating_of(&row, now.node) : NULL;
    bool in_turn = any && updating_may_begin(&row, now.node, issue, TURN_MS, w->now_ms);
    bool differs = said == NULL || said->phase != now.phase || said->why != now.why;
    if (differs && !(said != NULL && said->phase == UPDATING_FAILED && now.phase == UPDATING_WANTS)) {
        struct builder b = payload();
        payload_update_report(&b, NAME, issue, &now);
        propose(w, ENTRY_UPDATE, &b);
        return true;
    }
    if (r->trial != 0) { /* what it says is in the log: it is kept */
        r->kept = r->runs;
        r->trial = 0;
        w->counts[WEEK_KEPT]++;
    }
    if (in_turn && now.phase == UPDATING_WANTS) {
        if (somebody_failed(&row)) {
            week_fail(w, "R2: gateway %u begins with version %" PRIu64 " although it failed at another", i, issue);
        }
        r->installing = issue;
        r->installed_ms = w->now_ms + 5000 + (int64_t)draw(w, 2 * WEEK_MINUTE_MS);
    }
    return now.phase == UPDATING_WANTS || in_turn;
}

/* --- the leader, as agent/run/captain.c has it ----------------------------------------------------------------------------------------- */

static bool looks_well(struct week *w, unsigned i) {
    const struct gateway *g = &w->gateways[i];
    return i == w->leader ? site_ups(w) >= 2 : g->up && state_applied(g->state) + 1000 >= w->log_count;
}

static void captain(struct week *w) {
    struct gateway *g = site_leader(w);
    struct holding h;
    struct updating row = {0};
    if (g == NULL || !g->up || !holding_find(rows_of(g), OBJECT_UPDATE, NAME, &h) || h.force.version == 0) {
        return;
    }
    (void)updating_find(rows_of(g), NAME, &row);
    struct updating_view v = {.u = &row,
                              .issue = h.force.issue,
                              .said = h.health,
                              .leader = id_of(w->leader),
                              .steady = true,
                              .now_ms = w->now_ms,
                              .peer_count = WEEK_GATEWAYS};
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        v.peers[i] = (struct updating_peer){.id = id_of(i), .voter = true, .healthy = looks_well(w, i)};
    }
    struct updating_decision d = updating_next(&v);
    struct updating_report silent = {
        .node = d.node, .phase = UPDATING_FAILED, .why = (uint32_t)error_id(E_UPDATE_SILENT), .since_ms = w->now_ms};
    struct builder b = payload();
    switch (d.step) {
    case UPDATING_WAIT:
    case UPDATING_FORGET: /* nobody is removed here */
        builder_free(&b);
        break;
    case UPDATING_TURN:
        for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
            if (!w->gateways[i].up) {
                week_fail(w, "R2: gateway %u gets its turn while %u is down", (unsigned)d.node - 1, i);
            }
        }
        payload_update_turn(&b, NAME, h.force.issue, d.node, w->now_ms + TURN_MS);
        propose(w, ENTRY_UPDATE, &b);
        w->counts[WEEK_TURNS]++;
        break;
    case UPDATING_EXPIRE:
        payload_update_report(&b, NAME, h.force.issue, &silent);
        propose(w, ENTRY_UPDATE, &b);
        w->counts[WEEK_EXPIRED_TURNS]++;
        break;
    case UPDATING_HAND_OVER:
        builder_free(&b);
        site_hand_over(w, (unsigned)d.node - 1);
        w->counts[WEEK_HANDED]++;
        break;
    case UPDATING_SAY_HEALTHY:
    case UPDATING_SAY_FAILED:
        payload_health(&b, OBJECT_UPDATE, NAME, h.force.issue, d.step == UPDATING_SAY_HEALTHY ? SUPPLY_HEALTHY : SUPPLY_FAILED);
        propose(w, ENTRY_OBJECT, &b);
        break;
    }
}

/* --- time ------------------------------------------------------------------------------------------------------------------------------- */

/* A start: the bundle that was being installed is void (agent/slots/grey_update.c, boot). */
void roll_started(struct week *w, unsigned i) {
    w->roll.at[i].away = false;
    w->roll.at[i].installing = 0;
    w->roll.at[i].well_since_ms = 0;
}

void roll_begin(struct week *w) {
    w->roll.random = w->seed ^ 0x726f6c6cu;
    w->roll.offer_ms = w->now_ms + (int64_t)draw(w, WEEK_HOUR_MS);
    w->roll.next_ms = w->now_ms;
}

int64_t roll_due(const struct week *w) {
    return w->roll.next_ms;
}

void roll_act(struct week *w) {
    bool busy = false;
    if (w->now_ms < w->roll.next_ms) {
        return;
    }
    if (!w->calm && w->now_ms >= w->roll.offer_ms && w->leader < WEEK_GATEWAYS) {
        offer(w);
    }
    for (unsigned i = 0; i < WEEK_GATEWAYS && !w->failed; i++) {
        busy = (w->gateways[i].up && own_part(w, i)) || busy;
    }
    captain(w);
    w->roll.next_ms = w->now_ms + (busy ? BUSY_MS : IDLE_MS);
}

bool roll_rests(struct week *w) {
    struct gateway *g = site_leader(w);
    struct holding h;
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        if (!w->gateways[i].up || w->roll.at[i].trial != 0 || w->roll.at[i].installing != 0) {
            return false;
        }
    }
    return g != NULL && (!holding_find(rows_of(g), OBJECT_UPDATE, NAME, &h) || h.force.version == 0 || h.health != SUPPLY_UNKNOWN);
}

void roll_end(struct week *w) {
    struct holding h;
    struct updating row;
    if (!holding_find(rows_of(&w->gateways[0]), OBJECT_UPDATE, NAME, &h) || h.force.version == 0) {
        return;
    }
    bool known = updating_find(rows_of(&w->gateways[0]), NAME, &row);
    for (unsigned i = 0; i < WEEK_GATEWAYS; i++) {
        const struct roll_gateway *r = &w->roll.at[i];
        if (h.health == SUPPLY_UNKNOWN || r->trial != 0 || !known || row.turn != 0) {
            week_fail(w, "R4: version %" PRIu64 " does not come to an end, health %d, turn of %" PRIu64, h.force.issue,
                      (int)h.health, row.turn);
        } else if (h.health == SUPPLY_HEALTHY && r->runs != h.force.issue) {
            week_fail(w, "R4: gateway %u runs version %" PRIu64 " of %" PRIu64, i, r->runs, h.force.issue);
        } else if (is_bad(r->runs)) {
            week_fail(w, "R4: gateway %u runs version %" PRIu64 ", which does not get well", i, r->runs);
        }
    }
}
