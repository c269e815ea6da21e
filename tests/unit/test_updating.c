/* Whose turn it is to change its programs.  If this failed, two gateways of a site could be away at once and the site would stop, or a version that fails at one would go on
 * to the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/state/holding.h"
#include "agent/state/updating.h"
#include "tests/unit/work_rig.h"

#define SITE "plant-7"
#define NAME bytes_str("agent")
#define TURN_MS 60000

static uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];

static void offer(struct rig *r, const char *name, uint64_t issue) {
    struct builder hashes, manifest;
    struct bytes content = bytes_str(name);
    builder_init(&hashes, 1 << 20);
    builder_init(&manifest, 1 << 20);
    object_cut(content, OBJECT_CHUNK_BYTES_MIN, &hashes);
    struct object_manifest m = {.kind = OBJECT_UPDATE,
                                .name = bytes_str(name),
                                .site = bytes_str(SITE),
                                .version = issue,
                                .issue = issue,
                                .size = content.size,
                                .chunk_bytes = OBJECT_CHUNK_BYTES_MIN,
                                .hashes = builder_bytes(&hashes)};
    object_sign(&m, secret_key, &manifest);
    payload_offer(&r->payload, builder_bytes(&manifest), content);
    builder_free(&hashes);
    builder_free(&manifest);
    assert_int_equal(rig_entry(r, ENTRY_OBJECT), E_OK);
}

static struct rig *site_new(void) {
    struct rig *r = rig_new();
    struct site_facts f = {.cluster_id = 5, .incarnation = 9, .feature_level = FEATURE_LEVEL};
    memcpy(f.site.text, SITE, sizeof SITE);
    payload_site(&r->payload, &f);
    assert_int_equal(rig_entry(r, ENTRY_SITE), E_OK);
    offer(r, "agent", 1);
    return r;
}

static enum grey_error say(struct rig *r, raft_id node, uint64_t issue, enum updating_phase phase) {
    struct updating_report report = {.node = node, .phase = phase, .why = phase == UPDATING_FAILED ? 3308 : 0};
    payload_update_report(&r->payload, NAME, issue, &report);
    return rig_entry(r, ENTRY_UPDATE);
}

static enum grey_error turn(struct rig *r, raft_id node, uint64_t issue) {
    payload_update_turn(&r->payload, NAME, issue, node, r->now_ms + TURN_MS);
    return rig_entry(r, ENTRY_UPDATE);
}

static struct updating look(struct rig *r) {
    struct updating u;
    assert_true(updating_find(state_table(r->g.state), NAME, &u));
    return u;
}

static void one_at_a_time(void **state) {
    (void)state;
    struct rig *r = site_new();
    assert_int_equal(turn(r, 1, 1), E_CONDITION); /* nobody wants it */
    for (raft_id node = 1; node <= 3; node++) {
        assert_int_equal(say(r, node, 1, UPDATING_WANTS), E_OK);
    }
    assert_int_equal(turn(r, 1, 1), E_OK);
    assert_int_equal(turn(r, 2, 1), E_UPDATE_BUSY);
    offer(r, "other", 2);
    payload_update_turn(&r->payload, bytes_str("other"), 2, 2, r->now_ms + TURN_MS);
    assert_int_equal(rig_entry(r, ENTRY_UPDATE), E_UPDATE_BUSY); /* of another object neither */
    assert_int_equal(say(r, 1, 1, UPDATING_WANTS), E_OK);        /* it was restarted meanwhile */
    assert_int_equal(look(r).turn, 1);
    assert_int_equal(say(r, 1, 1, UPDATING_CURRENT), E_OK);
    assert_int_equal(look(r).turn, 0);
    assert_int_equal(turn(r, 2, 1), E_OK);
    r->now_ms += TURN_MS;
    assert_int_equal(turn(r, 3, 1), E_OK); /* its time is over */
    rig_free(r);
}

static void nobody_begins_late(void **state) {
    (void)state;
    struct updating u = {.issue = 3, .turn = 2, .turn_issue = 3, .until_ms = 100000};
    assert_true(updating_may_begin(&u, 2, 3, TURN_MS, 100000 - TURN_MS));
    assert_true(updating_may_begin(&u, 2, 3, TURN_MS, 100000 - TURN_MS / 2));
    assert_false(updating_may_begin(&u, 2, 3, TURN_MS, 100000 - TURN_MS / 2 + 1)); /* it could be away when another has its turn */
    assert_false(updating_may_begin(&u, 2, 3, TURN_MS, 200000));                   /* it was asleep */
    assert_false(updating_may_begin(&u, 1, 3, TURN_MS, 100000 - TURN_MS));
    assert_false(updating_may_begin(&u, 2, 4, TURN_MS, 100000 - TURN_MS));
}

static void a_failure_stops_the_others(void **state) {
    (void)state;
    struct rig *r = site_new();
    assert_int_equal(say(r, 1, 1, UPDATING_WANTS), E_OK);
    assert_int_equal(say(r, 2, 1, UPDATING_WANTS), E_OK);
    assert_int_equal(turn(r, 1, 1), E_OK);
    assert_int_equal(say(r, 1, 1, UPDATING_FAILED), E_OK);
    struct updating u = look(r);
    assert_int_equal(updating_of(&u, 1)->why, 3308);
    assert_int_equal(turn(r, 2, 1), E_CONDITION);
    assert_int_equal(say(r, 1, 1, UPDATING_WANTS), E_CONDITION); /* not again the same */
    offer(r, "agent", 2);
    assert_int_equal(say(r, 1, 1, UPDATING_WANTS), E_CONDITION); /* about what is not in force any more */
    assert_int_equal(say(r, 1, 2, UPDATING_WANTS), E_OK);        /* another issue is another matter */
    assert_int_equal(turn(r, 1, 2), E_OK);
    rig_free(r);
}

static void a_turn_outlives_what_it_was_for(void **state) {
    (void)state;
    struct rig *r = site_new();
    assert_int_equal(say(r, 1, 1, UPDATING_WANTS), E_OK);
    assert_int_equal(turn(r, 1, 1), E_OK);
    offer(r, "agent", 2); /* gateway 1 may be away at this moment */
    assert_int_equal(say(r, 2, 2, UPDATING_WANTS), E_OK);
    assert_int_equal(turn(r, 2, 2), E_UPDATE_BUSY);
    assert_int_equal(say(r, 1, 2, UPDATING_WANTS), E_OK); /* it is back */
    assert_int_equal(turn(r, 2, 2), E_OK);
    rig_free(r);
}

static void what_is_no_word_of_an_update_is_refused(void **state) {
    (void)state;
    struct rig *r = site_new();
    struct updating_report bad = {.node = 0, .phase = UPDATING_WANTS}, none = {.node = 1};
    payload_update_report(&r->payload, NAME, 1, &bad);
    assert_int_equal(rig_entry(r, ENTRY_UPDATE), E_BAD_MESSAGE);
    payload_update_report(&r->payload, NAME, 1, &none);
    assert_int_equal(rig_entry(r, ENTRY_UPDATE), E_BAD_MESSAGE);
    builder_add_str(&r->payload, "nonsense");
    assert_int_equal(rig_entry(r, ENTRY_UPDATE), E_BAD_CBOR);
    for (raft_id node = 1; node <= LIMIT_MEMBERS + 3; node++) { /* gateways come and go */
        r->now_ms += 1;
        assert_int_equal(say(r, node, 1, UPDATING_WANTS), E_OK);
    }
    struct updating u = look(r);
    assert_int_equal(u.count, LIMIT_MEMBERS);
    assert_null(updating_of(&u, 1));
    assert_non_null(updating_of(&u, LIMIT_MEMBERS + 3));
    rig_free(r);
}

/* --- the leader ----------------------------------------------------------------------------------------------------------------------------- */

static struct updating_view view_of(struct updating *u, uint32_t voters) {
    struct updating_view v = {.u = u, .issue = 1, .leader = 1, .steady = true, .peer_count = voters};
    *u = (struct updating){.issue = 1, .count = voters};
    for (uint32_t i = 0; i < voters; i++) {
        v.peers[i] = (struct updating_peer){.id = i + 1, .voter = true, .healthy = true};
        u->at[i] = (struct updating_report){.node = i + 1, .phase = UPDATING_WANTS};
    }
    return v;
}

static void expect(const struct updating_view *v, enum updating_step step, raft_id node) {
    struct updating_decision d = updating_next(v);
    assert_int_equal(d.step, step);
    assert_int_equal(d.node, node);
}

static void the_leader_goes_last(void **state) {
    (void)state;
    struct updating u;
    struct updating_view v = view_of(&u, 3);
    expect(&v, UPDATING_TURN, 2);
    v.peers[2].healthy = false;
    expect(&v, UPDATING_WAIT, 0); /* without 2 and 3 there is no quorum */
    v.peers[2].healthy = true;
    v.steady = false;
    expect(&v, UPDATING_WAIT, 0);
    v.steady = true;
    v.other_turn = true;
    expect(&v, UPDATING_WAIT, 0);
    v.other_turn = false;
    u.at[1].phase = UPDATING_CURRENT;
    expect(&v, UPDATING_TURN, 3);
    u.at[2].phase = UPDATING_CURRENT;
    expect(&v, UPDATING_HAND_OVER, 2);
    v.leader = 2;
    expect(&v, UPDATING_TURN, 1);
    u.at[0].phase = UPDATING_CURRENT;
    expect(&v, UPDATING_SAY_HEALTHY, 0);
    v.said = SUPPLY_HEALTHY;
    expect(&v, UPDATING_WAIT, 0);
    u.at[0].phase = UPDATING_FAILED;
    expect(&v, UPDATING_SAY_FAILED, 1);
    v.said = SUPPLY_FAILED;
    expect(&v, UPDATING_WAIT, 0);
}

static void small_groups_are_updated_too(void **state) {
    (void)state;
    struct updating u;
    struct updating_view v = view_of(&u, 1);
    expect(&v, UPDATING_TURN, 1);
    v = view_of(&u, 2); /* it stops for a moment: there is no other way */
    expect(&v, UPDATING_TURN, 2);
    v.peers[0].healthy = false;
    expect(&v, UPDATING_WAIT, 0);
    v = view_of(&u, 3); /* two and a witness */
    v.peers[2].witness = true;
    u.count = 2;
    expect(&v, UPDATING_TURN, 2);
    u.at[1].phase = UPDATING_CURRENT;
    expect(&v, UPDATING_HAND_OVER, 2); /* not to the witness */
    u.at[0].phase = UPDATING_CURRENT;
    expect(&v, UPDATING_SAY_HEALTHY, 0); /* the witness is not waited for */
    v = view_of(&u, 3);
    u.count = 0;
    expect(&v, UPDATING_WAIT, 0); /* nobody has said anything */
    v = view_of(&u, 3);
    for (uint32_t i = 0; i < 3; i++) {
        u.at[i].phase = UPDATING_OTHER;
    }
    expect(&v, UPDATING_SAY_FAILED, 0); /* it fits nobody here */
}

static void silence_counts_as_failure(void **state) {
    (void)state;
    struct updating u;
    struct updating_view v = view_of(&u, 3);
    u.turn = 2;
    u.turn_issue = 1;
    u.until_ms = 500;
    v.now_ms = 499;
    expect(&v, UPDATING_WAIT, 0);
    v.now_ms = 500;
    expect(&v, UPDATING_EXPIRE, 2);
}

static void who_was_removed_holds_nobody_up(void **state) {
    (void)state;
    struct rig *r = site_new();
    for (raft_id node = 1; node <= 4; node++) {
        assert_int_equal(say(r, node, 1, UPDATING_WANTS), E_OK);
    }
    assert_int_equal(turn(r, 4, 1), E_OK);
    struct updating u, of_view;
    struct updating_view v = view_of(&of_view, 3);
    v.u = &u;
    v.now_ms = r->now_ms;
    u = look(r);
    v.steady = false;
    expect(&v, UPDATING_WAIT, 0); /* it may still be one */
    v.steady = true;
    expect(&v, UPDATING_FORGET, 4); /* removed in its turn */
    assert_int_equal(say(r, 4, 1, UPDATING_FAILED), E_OK);
    u = look(r);
    assert_int_equal(turn(r, 2, 1), E_CONDITION);
    expect(&v, UPDATING_FORGET, 4); /* removed after it failed, before anybody was told */
    v.said = SUPPLY_FAILED;
    expect(&v, UPDATING_WAIT, 0); /* the core was told: it decides */
    v.said = SUPPLY_UNKNOWN;
    assert_int_equal(say(r, 4, 1, UPDATING_OTHER), E_OK);
    u = look(r);
    expect(&v, UPDATING_TURN, 2);
    assert_int_equal(turn(r, 2, 1), E_OK);
    rig_free(r);
}

/* --- many sites, by chance ------------------------------------------------------------------------------------------------------------------- */

static uint64_t chance_state;
static uint32_t chance(uint32_t below) { /* xorshift64* */
    chance_state ^= chance_state >> 12;
    chance_state ^= chance_state << 25;
    chance_state ^= chance_state >> 27;
    return (uint32_t)(chance_state * 2685821657736338717ull >> 33) % below;
}

struct box {
    uint64_t runs, wants; /* issues */
    bool away;            /* because of an update */
    bool broken;          /* for another reason */
    uint32_t steps_left;
};

/* A leader acts on what the log says; leaders change, gateways break and come back, issues follow each other, some are bad. */
static void run_site(uint64_t seed) {
    struct rig *r = site_new();
    struct box boxes[6] = {0};
    uint32_t voters = 1 + chance(5), leader = 0;
    uint64_t issue = 1, bad_issue = seed % 3 == 0 ? 1 : 0;
    bool done = false;
    for (uint32_t step = 0; step < 4000 && !done; step++) {
        r->now_ms += 1000;
        struct updating u = {0};
        struct holding h;
        assert_true(holding_find(state_table(r->g.state), OBJECT_UPDATE, NAME, &h));
        uint32_t away = 0, broken = 0;
        for (uint32_t i = 0; i < voters; i++) {
            struct box *b = &boxes[i];
            if (!b->away && step < 2000 && chance(200) == 0) {
                b->broken = !b->broken;
            }
            b->broken = b->broken && step < 2000;
            if (b->away && --b->steps_left == 0) { /* it is started again: from the new slot, or left it */
                b->away = false;
                b->runs = b->wants == bad_issue ? b->runs : b->wants;
            }
            away += b->away;
            broken += b->broken;
        }
        assert_true(away <= 1);
        if (step < 1500 && chance(700) == 0) {
            offer(r, "agent", ++issue);
            bad_issue = chance(3) == 0 ? issue : 0;
            continue;
        }
        for (uint32_t i = 0; i < voters; i++) { /* what each says of itself */
            struct box *b = &boxes[i];
            const struct updating_report *said;
            enum updating_phase phase = b->runs == issue ? UPDATING_CURRENT : b->wants == issue ? UPDATING_FAILED : UPDATING_WANTS;
            (void)updating_find(state_table(r->g.state), NAME, &u);
            said = u.issue == issue ? updating_of(&u, i + 1) : NULL;
            if (!b->away && !b->broken && (said == NULL || said->phase != phase)) {
                (void)say(r, i + 1, issue, phase);
            }
        }
        if (boxes[leader].away || boxes[leader].broken || chance(50) == 0) {
            leader = chance(voters);
        }
        if (boxes[leader].away || boxes[leader].broken || away + broken >= voters / 2 + 1) {
            continue;
        }
        (void)updating_find(state_table(r->g.state), NAME, &u);
        struct updating_view v = {.u = &u,
                                  .issue = issue,
                                  .said = h.health,
                                  .leader = leader + 1,
                                  .steady = true,
                                  .now_ms = r->now_ms,
                                  .peer_count = voters};
        for (uint32_t i = 0; i < voters; i++) {
            v.peers[i] = (struct updating_peer){.id = i + 1, .voter = true, .healthy = !boxes[i].away && !boxes[i].broken};
        }
        struct updating_decision d = updating_next(&v);
        if (d.step == UPDATING_TURN) {
            assert_int_equal(away + broken, 0);
            assert_true(voters <= 2 || voters - 1 >= voters / 2 + 1);
            if (turn(r, (raft_id)d.node, issue) == E_OK) {
                struct box *b = &boxes[d.node - 1];
                b->away = true;
                b->wants = issue;
                b->steps_left = 1 + chance(100) / 90 * 200 + chance(20); /* now and then longer than its turn */
            }
        } else if (d.step == UPDATING_EXPIRE) {
            (void)say(r, d.node, issue, UPDATING_FAILED);
        } else if (d.step == UPDATING_HAND_OVER) {
            leader = (uint32_t)d.node - 1;
        } else if (d.step == UPDATING_SAY_HEALTHY || d.step == UPDATING_SAY_FAILED) {
            enum supply_health health = d.step == UPDATING_SAY_HEALTHY ? SUPPLY_HEALTHY : SUPPLY_FAILED;
            payload_health(&r->payload, OBJECT_UPDATE, NAME, issue, health);
            assert_int_equal(rig_entry(r, ENTRY_OBJECT), E_OK);
        }
        done = step > 2500 && h.health != SUPPLY_UNKNOWN && away == 0;
    }
    assert_true(done); /* it comes to an end, one way or the other */
    rig_free(r);
}

static void no_two_are_ever_away(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        chance_state = seed * 0x9e3779b97f4a7c15ull;
        run_site(seed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_at_a_time),
        cmocka_unit_test(nobody_begins_late),
        cmocka_unit_test(a_failure_stops_the_others),
        cmocka_unit_test(a_turn_outlives_what_it_was_for),
        cmocka_unit_test(what_is_no_word_of_an_update_is_refused),
        cmocka_unit_test(the_leader_goes_last),
        cmocka_unit_test(small_groups_are_updated_too),
        cmocka_unit_test(silence_counts_as_failure),
        cmocka_unit_test(who_was_removed_holds_nobody_up),
        cmocka_unit_test(no_two_are_ever_away),
    };
    keys_new_ed25519(public_key, secret_key);
    return cmocka_run_group_tests_name("updating", tests, NULL, NULL);
}
