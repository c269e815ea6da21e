/* One member at a time, message by message.  Whole clusters under faults: tests/sim. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/raft/entries.h"
#include "federation/raft/raft.h"

#define WALL_MS INT64_C(1800000000000)

struct fixture {
    struct raft *raft;
    struct raft_output out;
    uint64_t now_ms, store_id; /* the last id that was handed out */
    struct raft_config config;
};

static struct raft_members voters(uint32_t count) {
    struct raft_members m = {0};
    for (uint32_t i = 1; i <= count; i++) {
        struct raft_member member = {.id = i, .voter = true};
        (void)snprintf(member.node.text, sizeof member.node.text, "node%u", i);
        assert_int_equal(raft_members_put(&m, &member), E_OK);
    }
    return m;
}

static struct raft_config config(void) {
    return (struct raft_config){.self = 1,
                                .heartbeat_ms = 150,
                                .election_timeout_ms_min = 300,
                                .election_timeout_ms_max = 500,
                                .window_entries = 8,
                                .window_bytes = 1 << 20,
                                .proposed_entries_max = 8,
                                .proposed_bytes_max = 1 << 20,
                                .message_bytes_max = 1000,
                                .inflight_messages_max = 4,
                                .snapshot_retry_ms = 1000,
                                .seed = 7};
}

static void begin(struct fixture *f, uint32_t voter_count) {
    struct raft_members m = voters(voter_count);
    struct raft_start start = {.members = voter_count > 0 ? &m : NULL};
    *f = (struct fixture){.now_ms = 1000, .config = config()};
    f->raft = raft_new(&f->config, &start, f->now_ms);
    assert_non_null(f->raft);
}

static void end(struct fixture *f) {
    raft_free(f->raft);
}

static enum grey_error step(struct fixture *f, struct raft_input in) {
    in.now_ms = f->now_ms;
    in.wall_ms = WALL_MS;
    enum grey_error err = raft_step(f->raft, &in, &f->out);
    f->store_id = f->out.store_id > 0 ? f->out.store_id : f->store_id;
    return err;
}

static void tick_after(struct fixture *f, uint64_t ms) {
    f->now_ms += ms;
    (void)step(f, (struct raft_input){.kind = RAFT_IN_TICK});
}

static void stored(struct fixture *f) {
    (void)step(f, (struct raft_input){.kind = RAFT_IN_STORED, .store_id = f->store_id});
}

static void receive(struct fixture *f, struct raft_message m) {
    m.to = f->config.self;
    (void)step(f, (struct raft_input){.kind = RAFT_IN_MESSAGE, .message = &m});
}

/* The first send of a kind in the last step; NULL: none. */
static const struct raft_send *sent(const struct fixture *f, enum raft_message_kind kind, raft_id to) {
    for (uint32_t i = 0; i < f->out.send_count; i++) {
        if (f->out.sends[i].message.kind == kind && (to == 0 || f->out.sends[i].message.to == to)) {
            return &f->out.sends[i];
        }
    }
    return NULL;
}

static bool noted(const struct fixture *f, enum raft_note_kind kind) {
    for (uint32_t i = 0; i < f->out.note_count; i++) {
        if (f->out.notes[i].kind == kind) {
            return true;
        }
    }
    return false;
}

static struct raft_status status(const struct fixture *f) {
    struct raft_status s;
    raft_status(f->raft, &s);
    return s;
}

static enum grey_error propose(struct fixture *f, const char *text) {
    struct blob *payload = blob_copy(bytes_str(text));
    struct raft_proposal p = {.kind = ENTRY_KV, .schema = ENTRY_SCHEMA, .payload = payload};
    enum grey_error err = step(f, (struct raft_input){.kind = RAFT_IN_PROPOSE, .proposals = &p, .proposal_count = 1});
    blob_unref(payload);
    return err;
}

/* A leader's log, made by hand: entries i + 1 ... of the given terms behind a log that ends at base. */
struct line {
    struct raft_point base;
    struct entry e[16];
    uint32_t count;
};

static void line_add(struct line *l, raft_term term) {
    struct entry *e = &l->e[l->count];
    const uint8_t *prev = l->count == 0 ? l->base.hash : l->e[l->count - 1].hash;
    *e = (struct entry){.index = l->base.index + l->count + 1,
                        .term = term,
                        .epoch = term,
                        .time_ms = WALL_MS,
                        .kind = ENTRY_NOOP,
                        .schema = ENTRY_SCHEMA};
    entry_seal(e, prev);
    l->count++;
}

static struct line line_of(uint32_t count, const raft_term *terms) {
    struct line l = {0};
    for (uint32_t i = 0; i < count; i++) {
        line_add(&l, terms[i]);
    }
    return l;
}

/* An append of n entries behind index `prev`. */
static struct raft_message append_of(const struct line *l, raft_id from, raft_term term, raft_index prev, uint32_t n,
                                     raft_index commit) {
    struct raft_message m = {.kind = RAFT_APPEND,
                             .from = from,
                             .term = term,
                             .index = prev,
                             .commit_index = commit,
                             .entry_count = n,
                             .entries = &l->e[prev - l->base.index]};
    if (prev > l->base.index) {
        m.log_term = l->e[prev - l->base.index - 1].term;
        memcpy(m.hash, l->e[prev - l->base.index - 1].hash, DIGEST_BYTES);
    } else {
        m.log_term = l->base.term;
        memcpy(m.hash, l->base.hash, DIGEST_BYTES);
    }
    if (n > 0) {
        memcpy(m.last_hash, l->e[prev - l->base.index + n - 1].hash, DIGEST_BYTES);
    }
    return m;
}

/* Node 1 of three becomes leader of the next term with the vote of node 2.  Nothing of its term is acknowledged yet. */
static void lead(struct fixture *f) {
    tick_after(f, 600);
    assert_int_equal(status(f).role, RAFT_PRE_CANDIDATE);
    raft_term term = status(f).term + 1;
    receive(f, (struct raft_message){.kind = RAFT_PRE_VOTE_REPLY, .from = 2, .term = term});
    assert_int_equal(status(f).role, RAFT_CANDIDATE);
    stored(f);
    receive(f, (struct raft_message){.kind = RAFT_VOTE_REPLY, .from = 2, .term = term});
    assert_int_equal(status(f).role, RAFT_LEADER);
    assert_int_equal(status(f).term, term);
}

static void acknowledge(struct fixture *f, raft_id from, raft_index match) {
    receive(f, (struct raft_message){.kind = RAFT_APPEND_REPLY, .from = from, .term = status(f).term, .index = match});
}

/* Leader with its first entry committed. */
static void lead_and_commit(struct fixture *f) {
    lead(f);
    stored(f);
    acknowledge(f, 2, status(f).last_index);
    assert_int_equal(status(f).commit_index, status(f).last_index);
    (void)step(f, (struct raft_input){.kind = RAFT_IN_APPLIED, .index = status(f).commit_index});
}

/* --- Votes ----------------------------------------------------------------------------------------------------------------------- */

/* R1: a vote that leaves before it is on disk is given twice after a power cut: two leaders. */
static void test_a_vote_waits_for_the_disk(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 2, .term = 1});
    assert_true(f.out.store_vote && f.out.term == 1 && f.out.vote == 2 && f.out.store_id > 0);
    assert_false(sent(&f, RAFT_VOTE_REPLY, 2)->message.refused);
    assert_int_equal(sent(&f, RAFT_VOTE_REPLY, 2)->after_store_id, f.out.store_id);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 1});
    assert_true(sent(&f, RAFT_VOTE_REPLY, 3)->message.refused);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 2, .term = 1}); /* asked again while the disk still writes */
    assert_int_equal(sent(&f, RAFT_VOTE_REPLY, 2)->after_store_id, f.store_id);
    stored(&f);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 2, .term = 1});
    assert_int_equal(sent(&f, RAFT_VOTE_REPLY, 2)->after_store_id, 0);
    end(&f);

    struct raft_members m = voters(3);
    struct raft_start start = {.members = &m, .term = 1, .vote = 2};
    f.raft = raft_new(&f.config, &start, f.now_ms);
    f.now_ms += 300;
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 1});
    assert_true(sent(&f, RAFT_VOTE_REPLY, 3)->message.refused);
    end(&f);
}

/* Its own vote promises as much: the request may not leave, and no leader may be made of it, before it is on disk. */
static void test_a_candidates_own_vote_waits_for_the_disk(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    tick_after(&f, 600);
    assert_int_equal(sent(&f, RAFT_PRE_VOTE, 2)->message.term, 1);
    receive(&f, (struct raft_message){.kind = RAFT_PRE_VOTE_REPLY, .from = 2, .term = 1});
    assert_int_equal(sent(&f, RAFT_VOTE, 2)->after_store_id, f.out.store_id);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE_REPLY, .from = 2, .term = 1});
    receive(&f, (struct raft_message){.kind = RAFT_VOTE_REPLY, .from = 3, .term = 1});
    assert_int_equal(status(&f).role, RAFT_CANDIDATE);
    stored(&f);
    assert_int_equal(status(&f).role, RAFT_LEADER);
    end(&f);
}

/* R11: a pre-vote that was remembered as a vote, or raised a term, would disturb a site for every gateway that reboots. */
static void test_a_pre_vote_changes_nothing(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    receive(&f, (struct raft_message){.kind = RAFT_PRE_VOTE, .from = 2, .term = 9});
    assert_int_equal(f.out.store_id, 0);
    assert_int_equal(status(&f).term, 0);
    assert_false(sent(&f, RAFT_PRE_VOTE_REPLY, 2)->message.refused);
    assert_int_equal(sent(&f, RAFT_PRE_VOTE_REPLY, 2)->message.term, 9);
    end(&f);
}

/* R8: a gateway that was removed, or cannot hear the leader, must not unseat it; an ordered transfer must. */
static void test_a_member_that_hears_its_leader_is_not_moved(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 1});
    f.now_ms += 299;
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 7});
    assert_int_equal(f.out.send_count, 0);
    assert_int_equal(status(&f).term, 1);
    receive(&f, (struct raft_message){.kind = RAFT_PRE_VOTE, .from = 3, .term = 7});
    assert_int_equal(f.out.send_count, 0);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 2, .transfer = true});
    assert_false(sent(&f, RAFT_VOTE_REPLY, 3)->message.refused);
    end(&f);
}

/* A gateway that is not trusted would lead its site although others can, or leave the site without a leader when nobody else can. */
static void test_a_reluctant_member_leads_only_when_nobody_else_does(void **context) {
    struct fixture f;
    (void)context;
    begin(&f, 3);
    raft_set_reluctant(f.raft, true);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 1});
    assert_int_equal(status(&f).leader, 2);
    receive(&f, (struct raft_message){.kind = RAFT_TIMEOUT_NOW, .from = 2, .term = 1});
    assert_int_equal(status(&f).role, RAFT_FOLLOWER);
    tick_after(&f, f.config.election_timeout_ms_max * RAFT_RELUCTANT_TIMEOUTS);
    assert_null(sent(&f, RAFT_PRE_VOTE, 0));
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 2}); /* others get its vote as before */
    stored(&f);
    assert_int_equal(status(&f).vote, 3);
    tick_after(&f, f.config.election_timeout_ms_max * (RAFT_RELUCTANT_TIMEOUTS + 1));
    assert_non_null(sent(&f, RAFT_PRE_VOTE, 2));
    raft_set_reluctant(f.raft, false);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 3});
    receive(&f, (struct raft_message){.kind = RAFT_TIMEOUT_NOW, .from = 2, .term = 3});
    assert_int_equal(status(&f).role, RAFT_CANDIDATE);
    end(&f);
}

/* A site whose gateways are trusted again would wait seconds for a leader. */
static void test_a_member_that_is_trusted_again_waits_no_longer_than_others(void **context) {
    struct fixture f;
    (void)context;
    begin(&f, 3);
    raft_set_reluctant(f.raft, true);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 1});
    raft_set_reluctant(f.raft, false);
    tick_after(&f, f.config.election_timeout_ms_max);
    assert_non_null(sent(&f, RAFT_PRE_VOTE, 2));
    end(&f);
}

/* A candidate with a shorter log would win and lose acknowledged events. */
static void test_only_a_log_as_good_gets_a_vote(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    struct line l = line_of(3, (raft_term[]){1, 1, 2});
    receive(&f, append_of(&l, 2, 2, 0, 3, 0));
    f.now_ms += 1000;
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 3, .index = 9, .log_term = 1});
    assert_true(sent(&f, RAFT_VOTE_REPLY, 3)->message.refused);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 4, .index = 2, .log_term = 2});
    assert_true(sent(&f, RAFT_VOTE_REPLY, 3)->message.refused);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 5, .index = 3, .log_term = 2});
    assert_false(sent(&f, RAFT_VOTE_REPLY, 3)->message.refused);
    end(&f);
}

/* Two gateways that miss the leader at the same moment split the votes; a whole time-out more would double the time without a leader. */
static void test_a_split_vote_is_tried_again_soon(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    tick_after(&f, 500);
    receive(&f, (struct raft_message){.kind = RAFT_PRE_VOTE_REPLY, .from = 2, .term = 1});
    stored(&f);
    assert_int_equal(status(&f).role, RAFT_CANDIDATE);
    tick_after(&f, 150);
    assert_int_equal(status(&f).role, RAFT_CANDIDATE); /* silence: the other's disk may be slow */
    receive(&f, (struct raft_message){.kind = RAFT_VOTE_REPLY, .from = 2, .term = 1, .refused = true});
    tick_after(&f, 150);
    assert_int_equal(status(&f).role, RAFT_PRE_CANDIDATE);
    assert_int_equal(sent(&f, RAFT_PRE_VOTE, 2)->message.term, 2);
    end(&f);
}

/* R7: a learner was made a voter, does not know, and its vote is needed: without it the site has no leader for ever. */
static void test_a_learner_votes_when_asked(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 0); /* knows no membership at all */
    tick_after(&f, 5000);
    assert_int_equal(f.out.send_count, 0); /* and does not campaign */
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 2, .term = 3, .index = 5, .log_term = 2});
    assert_false(sent(&f, RAFT_VOTE_REPLY, 2)->message.refused);
    end(&f);
}

/* A member of a later term that a leader cannot hear must make it step down, else its site has a gateway that never rejoins. */
static void test_a_former_leader_learns_the_term(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 5});
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 3, .term = 4});
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 3)->message.term, 5);
    receive(&f, (struct raft_message){.kind = RAFT_PRE_VOTE, .from = 3, .term = 5});
    end(&f);
    begin(&f, 3);
    lead(&f);
    receive(&f, (struct raft_message){.kind = RAFT_APPEND_REPLY, .from = 3, .term = 5, .refused = true});
    assert_int_equal(status(&f).role, RAFT_FOLLOWER);
    assert_int_equal(status(&f).term, 5);
    end(&f);
}

/* --- Commit ---------------------------------------------------------------------------------------------------------------------- */

/* R20: the answer of a single gateway must not come before its own disk has the event. */
static void test_a_single_voter_commits_after_its_own_store(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 1);
    tick_after(&f, 1);
    assert_int_equal(status(&f).role, RAFT_CANDIDATE);
    stored(&f);
    assert_int_equal(status(&f).role, RAFT_LEADER);
    assert_int_equal(f.out.commit_index, 0);
    stored(&f);
    assert_int_equal(f.out.commit_index, 1);
    assert_int_equal(propose(&f, "x"), E_OK);
    assert_int_equal(f.out.proposed_index, 2);
    assert_int_equal(f.out.commit_index, 1);
    assert_int_equal(f.out.store_first, 2);
    assert_int_equal(f.out.store_last, 2);
    stored(&f);
    assert_int_equal(f.out.commit_index, 2);
    end(&f);
}

/* R2, figure 8: an entry of a former term on a majority may still be replaced; taken for committed, it would be lost. */
static void test_entries_of_former_terms_are_not_committed_by_counting(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    struct line l = line_of(2, (raft_term[]){1, 2});
    receive(&f, append_of(&l, 2, 2, 0, 2, 0));
    stored(&f);
    f.now_ms += 600;
    lead(&f);
    stored(&f);
    acknowledge(&f, 2, 2); /* both entries of former terms are on a majority */
    assert_int_equal(f.out.commit_index, 0);
    acknowledge(&f, 2, 3);
    assert_int_equal(f.out.commit_index, 3);
    end(&f);
}

/* FAULTS 2b 22: the report of a write that was overtaken must not vouch for what was written over it. */
static void test_a_late_store_report_does_not_count_for_rewritten_entries(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead(&f); /* term 1 with entry 1 */
    stored(&f);
    assert_int_equal(propose(&f, "never committed"), E_OK); /* entry 2 of term 1 */
    uint64_t old_id = f.store_id;
    struct line l = {.base = {.index = 1, .term = 1}};
    memcpy(l.base.hash, raft_entry(f.raft, 1)->hash, DIGEST_BYTES);
    l.base.time_ms = raft_entry(f.raft, 1)->time_ms;
    line_add(&l, 2);
    l.e[0].time_ms = WALL_MS + 60000;
    entry_seal(&l.e[0], l.base.hash);
    receive(&f, append_of(&l, 2, 2, 1, 1, 0));
    assert_int_equal(f.out.truncate_from, 2);
    assert_true(noted(&f, RAFT_NOTE_TRUNCATED));
    uint64_t new_id = f.store_id;
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->after_store_id, new_id);
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_STORED, .store_id = old_id});
    assert_int_equal(status(&f).stored_index, 1);
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_STORED, .store_id = new_id});
    assert_int_equal(status(&f).stored_index, 2);
    end(&f);
}

/* R15: a late or repeated append must not cut off what came after it, and is acknowledged only as far as it is durable. */
static void test_a_repeated_append_cuts_nothing(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    struct line l = line_of(5, (raft_term[]){1, 1, 1, 1, 1});
    receive(&f, append_of(&l, 2, 1, 0, 5, 0));
    uint64_t id = f.store_id;
    receive(&f, append_of(&l, 2, 1, 1, 2, 2));
    assert_int_equal(status(&f).last_index, 5);
    assert_int_equal(f.out.store_id, 0);
    assert_int_equal(f.out.commit_index, 2);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->message.index, 3);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->after_store_id, id);
    end(&f);
}

/* R14: an append from the very beginning, after the beginning was compacted away. */
static void test_an_append_from_before_the_snapshot_is_harmless(void **context) {
    (void)context;
    struct fixture f;
    struct line l = line_of(6, (raft_term[]){1, 1, 1, 1, 1, 1});
    struct raft_members m = voters(3);
    struct raft_point base = {.index = 4, .term = 1, .time_ms = WALL_MS};
    memcpy(base.hash, l.e[3].hash, DIGEST_BYTES);
    struct raft_start start = {.term = 1, .base = base, .window_base = base, .applied_index = 4, .members = &m, .members_index = 1};
    f = (struct fixture){.now_ms = 1000, .config = config()};
    f.raft = raft_new(&f.config, &start, f.now_ms);
    receive(&f, append_of(&l, 2, 1, 0, 3, 3)); /* all of it compacted here */
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->message.index, 4);
    receive(&f, append_of(&l, 2, 1, 0, 6, 5));
    assert_int_equal(status(&f).last_index, 6);
    assert_int_equal(f.out.commit_index, 5);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->message.index, 6);
    end(&f);
}

/* A follower that takes an unverified tail for committed applies what never was agreed on. */
static void test_commit_stays_below_what_is_verified(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    struct line l = line_of(3, (raft_term[]){1, 1, 1});
    receive(&f, append_of(&l, 2, 1, 0, 3, 1));
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 3, .term = 2, .commit_index = 3, .round = 6});
    assert_int_equal(f.out.commit_index, 1);
    assert_true(sent(&f, RAFT_HEARTBEAT_REPLY, 3)->message.refused); /* asks for an append */
    assert_int_equal(sent(&f, RAFT_HEARTBEAT_REPLY, 3)->message.round, 6);
    receive(&f, append_of(&l, 3, 2, 2, 0, 3)); /* equal up to 2 only, as far as it says */
    assert_int_equal(f.out.commit_index, 2);
    end(&f);
}

/* Damage on this node's disk must be noticed and fence it, not be built upon; a garbled message must change nothing. */
static void test_another_hash_is_noticed(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    struct line l = line_of(3, (raft_term[]){1, 1, 1});
    receive(&f, append_of(&l, 2, 1, 0, 2, 0));
    struct raft_message m = append_of(&l, 2, 1, 2, 1, 0);
    m.hash[5] ^= 1;
    receive(&f, m);
    assert_true(noted(&f, RAFT_NOTE_DIVERGED));
    assert_null(sent(&f, RAFT_APPEND_REPLY, 0));
    m = append_of(&l, 2, 1, 2, 1, 0);
    m.last_hash[5] ^= 1;
    receive(&f, m);
    assert_true(noted(&f, RAFT_NOTE_REFUSED));
    assert_null(sent(&f, RAFT_APPEND_REPLY, 0));
    assert_int_equal(status(&f).last_index, 2);
    assert_int_equal(f.out.store_id, 0);
    struct line other = line_of(1, (raft_term[]){1});
    other.e[0].time_ms -= 1;
    entry_seal(&other.e[0], other.base.hash);
    line_add(&other, 1);
    receive(&f, append_of(&other, 2, 1, 0, 2, 0)); /* equal terms, other content */
    assert_true(noted(&f, RAFT_NOTE_DIVERGED));
    assert_null(sent(&f, RAFT_APPEND_REPLY, 0));
    end(&f);
}

/* R15: answers that come late, twice or out of order must not take anything back. */
static void test_late_answers_take_nothing_back(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead_and_commit(&f);
    assert_int_equal(propose(&f, "a"), E_OK);
    stored(&f);
    acknowledge(&f, 2, 2);
    raft_index commit = f.out.commit_index;
    acknowledge(&f, 2, 1);
    receive(&f, (struct raft_message){.kind = RAFT_APPEND_REPLY, .from = 2, .term = 1, .index = 1, .refused = true});
    assert_int_equal(status(&f).peers[0].match_index, 2);
    assert_int_equal(status(&f).peers[0].next_index, 3);
    assert_int_equal(f.out.commit_index, commit);
    acknowledge(&f, 2, 77); /* never sent */
    assert_true(noted(&f, RAFT_NOTE_REFUSED));
    end(&f);
}

/* Lost appends on a quiet site would leave a follower behind until somebody writes again. */
static void test_a_lost_append_is_sent_again(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead_and_commit(&f);
    assert_int_equal(propose(&f, "a"), E_OK);
    assert_int_equal(sent(&f, RAFT_APPEND, 2)->message.entry_count, 1);
    tick_after(&f, 160);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 2, .term = 1});
    assert_int_equal(sent(&f, RAFT_APPEND, 2)->message.index, 2); /* "do you have 2?" */
    receive(&f, (struct raft_message){
                    .kind = RAFT_APPEND_REPLY, .from = 2, .term = 1, .index = 2, .refused = true, .hint_index = 1, .log_term = 1});
    assert_int_equal(sent(&f, RAFT_APPEND, 2)->message.index, 1);
    assert_int_equal(sent(&f, RAFT_APPEND, 2)->message.entry_count, 1);
    end(&f);
}

/* A leader that nobody answers must say so within the time-out, else its clients wait for a site that has another leader. */
static void test_a_leader_without_majority_steps_down(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead_and_commit(&f);
    tick_after(&f, 499);
    assert_int_equal(status(&f).role, RAFT_LEADER);
    tick_after(&f, 2);
    assert_int_equal(status(&f).role, RAFT_FOLLOWER);
    assert_true(noted(&f, RAFT_NOTE_QUORUM_LOST));
    assert_int_equal(propose(&f, "x"), E_NOT_LEADER);
    end(&f);
}

/* Memory must stay bounded when clients are faster than the disks. */
static void test_proposals_are_bounded(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead_and_commit(&f);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(propose(&f, "x"), E_OK);
    }
    raft_index last = status(&f).last_index;
    assert_int_equal(propose(&f, "x"), E_LOG_FULL);
    assert_int_equal(status(&f).last_index, last);
    assert_int_equal(f.out.store_id, 0);
    end(&f);
}

/* --- Reads ----------------------------------------------------------------------------------------------------------------------- */

static void read_at(struct fixture *f, uint64_t context) {
    assert_int_equal(step(f, (struct raft_input){.kind = RAFT_IN_READ, .context = context}), E_OK);
}

/* R3: a client would read an old value at a new leader, or at one that was replaced. */
static void test_a_read_waits_for_commit_and_round(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead(&f);
    stored(&f);
    read_at(&f, 11);
    assert_null(sent(&f, RAFT_HEARTBEAT, 2)); /* nothing of this term is committed: no round yet */
    acknowledge(&f, 2, 1);
    assert_int_equal(f.out.read_count, 0);
    uint64_t round = sent(&f, RAFT_HEARTBEAT, 3)->message.round;
    assert_int_equal(round, 1);
    read_at(&f, 12); /* came after the round began */
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 2, .term = 1, .round = 0});
    assert_int_equal(f.out.read_count, 0);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 2, .term = 1, .round = round});
    assert_int_equal(f.out.read_count, 1);
    assert_int_equal(f.out.reads[0].context, 11);
    assert_int_equal(f.out.reads[0].index, 1);
    assert_int_equal(sent(&f, RAFT_HEARTBEAT, 2)->message.round, round + 1);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 3, .term = 1, .round = round});
    assert_int_equal(f.out.read_count, 0);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 3, .term = 1, .round = round + 1});
    assert_int_equal(f.out.reads[0].context, 12);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 3, .term = 1, .round = UINT64_MAX});
    assert_true(noted(&f, RAFT_NOTE_REFUSED));
    end(&f);
}

/* FAULTS 2b 4: an answer to an earlier question must not serve a read that began after it. */
static void test_a_follower_takes_only_the_answer_to_its_question(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 1});
    read_at(&f, 21);
    uint64_t number = sent(&f, RAFT_READ_REQUEST, 2)->message.round;
    read_at(&f, 22);
    assert_null(sent(&f, RAFT_READ_REQUEST, 2)); /* not added to the question that is out */
    tick_after(&f, 160);
    assert_int_equal(sent(&f, RAFT_READ_REQUEST, 2)->message.round, number); /* asked again */
    receive(&f, (struct raft_message){.kind = RAFT_READ_REPLY, .from = 2, .term = 1, .round = number, .index = 5});
    assert_int_equal(f.out.read_count, 1);
    assert_int_equal(f.out.reads[0].context, 21);
    assert_int_equal(f.out.reads[0].index, 5);
    assert_int_equal(sent(&f, RAFT_READ_REQUEST, 2)->message.round, number + 1);
    receive(&f, (struct raft_message){.kind = RAFT_READ_REPLY, .from = 2, .term = 1, .round = number, .index = 5});
    assert_int_equal(f.out.read_count, 0);
    tick_after(&f, 2000);
    assert_int_equal(f.out.read_count, 1); /* nobody answers: told, not left waiting */
    assert_int_not_equal(f.out.reads[0].err, E_OK);
    end(&f);
}

/* If a lone commit were never told, followers would stay behind until the next heartbeat; if it were told at once, each commit would
 * cost two messages to each of them; if a follower's read did not hasten it, that read would wait for nothing. */
static void test_a_lone_commit_is_told_a_moment_later(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead_and_commit(&f);
    raft_index commit = status(&f).commit_index;
    assert_null(sent(&f, RAFT_HEARTBEAT, 2));
    assert_true(raft_deadline_ms(f.raft) <= f.now_ms + 20);
    tick_after(&f, raft_deadline_ms(f.raft) - f.now_ms);
    assert_int_equal(sent(&f, RAFT_HEARTBEAT, 2)->message.commit_index, commit);
    assert_null(sent(&f, RAFT_HEARTBEAT, 3)); /* has acknowledged nothing */
    assert_true(raft_deadline_ms(f.raft) > f.now_ms + 20);

    assert_int_equal(propose(&f, "one"), E_OK);
    stored(&f);
    acknowledge(&f, 2, ++commit);
    assert_int_equal(status(&f).commit_index, commit);
    assert_null(sent(&f, RAFT_HEARTBEAT, 2));
    assert_int_equal(propose(&f, "two"), E_OK); /* says it */
    assert_int_equal(sent(&f, RAFT_APPEND, 2)->message.commit_index, commit);
    assert_true(raft_deadline_ms(f.raft) > f.now_ms + 20);

    stored(&f);
    acknowledge(&f, 2, ++commit);
    assert_null(sent(&f, RAFT_HEARTBEAT, 2));
    receive(&f, (struct raft_message){.kind = RAFT_READ_REQUEST, .from = 2, .term = status(&f).term, .round = 5});
    assert_int_equal(sent(&f, RAFT_HEARTBEAT, 2)->message.commit_index, commit);
    end(&f);
}

/* A task that was given to a follower must not wait for the next append: it begins there when the commit is known there. */
static void test_who_has_work_by_a_commit_is_told_at_once(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead_and_commit(&f);
    raft_index commit = status(&f).commit_index;
    acknowledge(&f, 3, commit);
    tick_after(&f, raft_deadline_ms(f.raft) - f.now_ms); /* all is told */
    assert_int_equal(propose(&f, "one"), E_OK);
    stored(&f);
    acknowledge(&f, 2, ++commit);
    assert_null(sent(&f, RAFT_HEARTBEAT, 2));
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_HURRY, .peer = 3});
    assert_null(sent(&f, RAFT_HEARTBEAT, 3)); /* has not got the entry yet */
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_HURRY, .peer = 2});
    assert_int_equal(sent(&f, RAFT_HEARTBEAT, 2)->message.commit_index, commit);
    assert_null(sent(&f, RAFT_HEARTBEAT, 3));
    acknowledge(&f, 3, commit);
    assert_int_equal(sent(&f, RAFT_HEARTBEAT, 3)->message.commit_index, commit);
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_HURRY, .peer = 2}); /* knows it: nothing to say, and nothing stays */
    assert_null(sent(&f, RAFT_HEARTBEAT, 2));
    assert_int_equal(propose(&f, "two"), E_OK);
    stored(&f);
    acknowledge(&f, 2, ++commit);
    assert_null(sent(&f, RAFT_HEARTBEAT, 2));
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_HURRY, .peer = 9}); /* nobody */
    end(&f);
}

/* --- Lease ----------------------------------------------------------------------------------------------------------------------- */

static void begin_leased(struct fixture *f, uint32_t drift_percent) {
    struct raft_members m = voters(3);
    struct raft_start start = {.members = &m};
    *f = (struct fixture){.now_ms = 1000, .config = config()};
    f->config.lease_reads = true;
    f->config.clock_drift_percent = drift_percent;
    f->raft = raft_new(&f->config, &start, f->now_ms);
    assert_non_null(f->raft);
}

/* Heartbeats to all go out now; node 2 answers them after `ms`. */
static void heartbeat_answered_after(struct fixture *f, uint64_t ms) {
    tick_after(f, 150);
    assert_non_null(sent(f, RAFT_HEARTBEAT, 2));
    uint64_t round = sent(f, RAFT_HEARTBEAT, 2)->message.round;
    f->now_ms += ms;
    receive(f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 2, .term = status(f).term, .round = round});
}

/* The number of reads that were answered at once; all are from the lease. */
static uint32_t read_at_once(struct fixture *f) {
    read_at(f, 77);
    uint32_t count = f->out.read_count;
    assert_true(count == 0 || (count == 1 && f->out.reads[0].lease && f->out.reads[0].context == 77));
    return count;
}

/* R4: a leader that was paused, or is cut off, must not answer from a lease that ran out: another one may lead.  The lease is counted
 * from the sending of a round that a majority answered, and is shorter than the time-out by the drift of clocks and a margin. */
static void test_a_lease_is_counted_from_the_sending(void **context) {
    (void)context;
    struct fixture f;
    begin_leased(&f, 1);
    lead_and_commit(&f);
    assert_int_equal(read_at_once(&f), 0); /* nobody has answered a round yet: this read makes one */
    heartbeat_answered_after(&f, 100);
    assert_int_equal(f.out.read_count, 1);
    uint64_t sent_ms = f.now_ms - 100;
    assert_int_equal(status(&f).lease_until_ms, sent_ms + 297 - RAFT_LEASE_MARGIN_MS);
    f.now_ms = sent_ms + 297 - RAFT_LEASE_MARGIN_MS - 1;
    assert_int_equal(read_at_once(&f), 1);
    assert_int_equal(f.out.reads[0].index, status(&f).commit_index);
    assert_null(sent(&f, RAFT_HEARTBEAT, 0)); /* it cost no message */
    f.now_ms++;
    assert_int_equal(read_at_once(&f), 0);
    assert_int_equal(status(&f).lease_until_ms, 0);
    assert_non_null(sent(&f, RAFT_HEARTBEAT, 2)); /* asks, as without leases */
    /* The answer to an old round renews nothing. */
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 3, .term = 1, .round = 1});
    assert_int_equal(f.out.read_count, 0);
    end(&f);

    begin_leased(&f, 50); /* a greater bound on drift, a shorter lease */
    lead_and_commit(&f);
    heartbeat_answered_after(&f, 0);
    assert_int_equal(status(&f).lease_until_ms, f.now_ms + 150 - RAFT_LEASE_MARGIN_MS);
    end(&f);
    begin_leased(&f, 100);
    lead_and_commit(&f);
    heartbeat_answered_after(&f, 0);
    assert_int_equal(status(&f).lease_until_ms, 0);
    end(&f);
}

/* A new leader may not know yet what the one before it told clients: no lease before an entry of its own is committed. */
static void test_no_lease_before_the_first_commit(void **context) {
    (void)context;
    struct fixture f;
    begin_leased(&f, 1);
    lead(&f);
    stored(&f);
    heartbeat_answered_after(&f, 10);
    assert_int_equal(read_at_once(&f), 0);
    acknowledge(&f, 2, 1);
    assert_int_equal(f.out.read_count, 1);
    assert_true(f.out.reads[0].lease);
    end(&f);
}

/* An order to take over overrides the promise of the others: reads here would be old while the new leader commits. */
static void test_a_transfer_ends_the_lease_for_the_term(void **context) {
    (void)context;
    struct fixture f;
    begin_leased(&f, 1);
    lead_and_commit(&f);
    heartbeat_answered_after(&f, 10);
    assert_int_equal(read_at_once(&f), 1);
    assert_int_equal(step(&f, (struct raft_input){.kind = RAFT_IN_TRANSFER, .peer = 2}), E_OK);
    assert_non_null(sent(&f, RAFT_TIMEOUT_NOW, 2));
    assert_int_equal(read_at_once(&f), 0);
    for (int i = 0; i < 10; i++) { /* it did not take over in time; the order may still be on its way */
        heartbeat_answered_after(&f, 10);
    }
    assert_int_equal(propose(&f, "x"), E_OK);
    assert_int_equal(status(&f).lease_until_ms, 0);
    end(&f);
}

/* A machine that slept, or a clock that jumped: nothing is known about how much time the others counted. */
static void test_a_clock_that_misbehaves_ends_the_lease(void **context) {
    (void)context;
    struct fixture f;
    begin_leased(&f, 1);
    lead_and_commit(&f);
    heartbeat_answered_after(&f, 10);
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_CLOCK_UNSURE});
    uint64_t until_ms = f.now_ms + RAFT_LEASE_PAUSE_MS;
    assert_int_equal(read_at_once(&f), 0);
    while (f.now_ms + 160 < until_ms) {
        heartbeat_answered_after(&f, 10);
        assert_int_equal(status(&f).lease_until_ms, 0);
    }
    heartbeat_answered_after(&f, 10);
    assert_int_not_equal(status(&f).lease_until_ms, 0);
    end(&f);
    begin(&f, 3); /* and it gives no vote before a time-out has passed */
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_CLOCK_UNSURE});
    f.now_ms += 299;
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 1});
    assert_int_equal(f.out.send_count, 0);
    f.now_ms++;
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 1});
    assert_non_null(sent(&f, RAFT_VOTE_REPLY, 3));
    end(&f);
}

/* A gateway whose clock leapt would stand for election at once, its time-out having passed in the leap, while its leader still reads
 * under a lease: clients of that leader would be shown old values. */
static void test_a_leap_of_the_clock_is_no_election_time_out(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    f.now_ms += 20000;
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_CLOCK_UNSURE});
    tick_after(&f, 0);
    assert_null(sent(&f, RAFT_PRE_VOTE, 0));
    tick_after(&f, 299);
    assert_null(sent(&f, RAFT_PRE_VOTE, 0));
    tick_after(&f, 202); /* past the longest time-out: with no leader to be heard it stands */
    assert_non_null(sent(&f, RAFT_PRE_VOTE, 0));
    end(&f);
}

/* A leader that is on its way out of the group is not heard by those who decide: the one that stays may lead at once. */
static void test_a_leader_that_leaves_has_no_lease(void **context) {
    (void)context;
    struct fixture f;
    begin_leased(&f, 1);
    lead_and_commit(&f);
    heartbeat_answered_after(&f, 10);
    assert_int_not_equal(status(&f).lease_until_ms, 0);
    struct raft_members want = voters(3);
    raft_members_remove(&want, 1);
    assert_int_equal(step(&f, (struct raft_input){.kind = RAFT_IN_MEMBERS, .members = &want}), E_OK);
    assert_int_equal(read_at_once(&f), 0);
    assert_int_equal(status(&f).lease_until_ms, 0);
    end(&f);
}

/* The promise behind a lease: a member that answered its leader gives nobody a vote for a time-out, whatever else it hears, and
 * also when it was started anew meanwhile. */
static void test_the_promise_outlives_terms_and_restarts(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 1});
    f.now_ms += 10;
    receive(&f, (struct raft_message){.kind = RAFT_APPEND_REPLY, .from = 3, .term = 5, .refused = true});
    assert_int_equal(status(&f).term, 5);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 6});
    assert_int_equal(f.out.send_count, 0);
    f.now_ms += 290;
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 6});
    assert_false(sent(&f, RAFT_VOTE_REPLY, 3)->message.refused);
    end(&f);

    struct raft_members m = voters(3);
    struct raft_start start = {.members = &m, .term = 1};
    f.raft = raft_new(&f.config, &start, f.now_ms);
    assert_non_null(f.raft);
    f.now_ms += 299;
    receive(&f, (struct raft_message){.kind = RAFT_PRE_VOTE, .from = 3, .term = 2});
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 2});
    assert_int_equal(f.out.send_count, 0);
    f.now_ms++;
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .term = 2});
    assert_false(sent(&f, RAFT_VOTE_REPLY, 3)->message.refused);
    end(&f);
}

/* Reads must not grow memory without bound while there is no quorum. */
static void test_waiting_reads_are_bounded(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    for (uint32_t i = 0; i < RAFT_READS_MAX; i++) {
        read_at(&f, i);
    }
    assert_int_equal(step(&f, (struct raft_input){.kind = RAFT_IN_READ}), E_BUSY);
    tick_after(&f, 2000);
    assert_int_equal(f.out.read_count, RAFT_READS_MAX);
    assert_int_equal(f.out.reads[0].err, E_NOT_LEADER);
    end(&f);
}

/* --- Witness --------------------------------------------------------------------------------------------------------------------- */

/* Node 3 of three is a witness. */
static struct raft_members voters_and_witness(void) {
    struct raft_members m = voters(3);
    m.at[2].witness = true;
    return m;
}

static void begin_as(struct fixture *f, raft_id self) {
    struct raft_members m = voters_and_witness();
    struct raft_start start = {.members = &m};
    *f = (struct fixture){.now_ms = 1000, .config = config()};
    f->config.self = self;
    f->config.witness = self == 3;
    f->raft = raft_new(&f->config, &start, f->now_ms);
    assert_non_null(f->raft);
}

static void line_add_text(struct line *l, raft_term term, const char *text) {
    line_add(l, term);
    struct entry *e = &l->e[l->count - 1];
    e->kind = ENTRY_KV;
    e->payload = blob_copy(bytes_str(text));
    entry_seal(e, l->count == 1 ? l->base.hash : l->e[l->count - 2].hash);
}

static void line_free(struct line *l) {
    for (uint32_t i = 0; i < l->count; i++) {
        blob_unref(l->e[i].payload);
    }
}

/* A witness that took leadership would have nothing to give to the others, nor to clients. */
static void test_a_witness_votes_and_never_leads(void **context) {
    (void)context;
    struct fixture f;
    begin_as(&f, 3);
    tick_after(&f, 5000);
    assert_int_equal(f.out.send_count, 0);
    assert_int_equal(status(&f).role, RAFT_FOLLOWER);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 1, .term = 1});
    assert_false(sent(&f, RAFT_VOTE_REPLY, 1)->message.refused);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 1, .term = 1});
    receive(&f, (struct raft_message){.kind = RAFT_TIMEOUT_NOW, .from = 1, .term = 1});
    assert_int_equal(status(&f).role, RAFT_FOLLOWER);
    end(&f);

    begin_as(&f, 1); /* and no leader hands over to it */
    lead_and_commit(&f);
    assert_int_equal(step(&f, (struct raft_input){.kind = RAFT_IN_TRANSFER, .peer = 3}), E_NO_QUORUM);
    receive(&f, (struct raft_message){.kind = RAFT_APPEND_REPLY, .from = 3, .term = 1, .index = 1});
    assert_int_equal(step(&f, (struct raft_input){.kind = RAFT_IN_TRANSFER}), E_OK);
    assert_non_null(sent(&f, RAFT_TIMEOUT_NOW, 2));
    end(&f);
}

/* A gateway that was away while the other one and the witness took writes must not lead without them: they would be lost. */
static void test_a_witness_keeps_out_whoever_lacks_what_it_acknowledged(void **context) {
    (void)context;
    struct fixture f;
    begin_as(&f, 3);
    struct line l = {0};
    line_add_text(&l, 1, "first");
    line_add_text(&l, 1, "second");
    receive(&f, append_of(&l, 1, 1, 0, 2, 0));
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 1)->message.index, 2);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 1)->after_store_id, f.store_id); /* a promise like any other */
    stored(&f);
    f.now_ms += 400;
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 2, .term = 2, .index = 1, .log_term = 1});
    assert_true(sent(&f, RAFT_VOTE_REPLY, 2)->message.refused);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE, .from = 1, .term = 3, .index = 2, .log_term = 1});
    assert_false(sent(&f, RAFT_VOTE_REPLY, 1)->message.refused);
    line_free(&l);
    end(&f);
}

/* The witness runs on a board with no room for data; and what it does keep must chain to the same hashes as the data. */
static void test_a_witness_holds_headers_only(void **context) {
    (void)context;
    struct fixture f;
    begin_as(&f, 3);
    struct line l = {0};
    line_add_text(&l, 1, "one");
    line_add_text(&l, 1, "two");
    struct raft_members members = voters_and_witness();
    struct builder b;
    builder_init(&b, 65536);
    raft_members_encode(&members, &b);
    line_add(&l, 1);
    l.e[2].kind = ENTRY_CONFIG;
    l.e[2].payload = builder_blob(&b);
    entry_seal(&l.e[2], l.e[1].hash);
    builder_free(&b);
    struct line headers = l;
    for (uint32_t i = 0; i < 3; i++) {
        entry_strip(&headers.e[i]);
        memset(headers.e[i].hash, 0, DIGEST_BYTES);
    }
    assert_int_equal(headers.e[0].stripped_bytes, 3);
    assert_null(headers.e[0].payload);
    assert_ptr_equal(headers.e[2].payload, l.e[2].payload); /* memberships count for a witness too */
    struct raft_message m = append_of(&l, 1, 1, 0, 1, 0);
    receive(&f, m); /* with payloads, or without: the same is kept */
    m = append_of(&l, 1, 1, 1, 2, 0);
    m.entries = &headers.e[1];
    receive(&f, m);
    for (raft_index i = 1; i <= 2; i++) {
        assert_null(raft_entry(f.raft, i)->payload);
        assert_int_equal(raft_entry(f.raft, i)->stripped_bytes, 3);
        assert_memory_equal(raft_entry(f.raft, i)->hash, l.e[i - 1].hash, DIGEST_BYTES);
    }
    assert_non_null(raft_entry(f.raft, 3)->payload);
    assert_int_equal(status(&f).members_index, 3);
    /* A digest that does not belong there breaks the chain. */
    line_add_text(&l, 1, "three");
    headers = l;
    entry_strip(&headers.e[3]);
    headers.e[3].digest[0] ^= 1;
    m = append_of(&l, 1, 1, 3, 1, 0);
    m.entries = &headers.e[3];
    receive(&f, m);
    assert_true(noted(&f, RAFT_NOTE_REFUSED));
    assert_int_equal(status(&f).last_index, 3);
    end(&f);

    begin_as(&f, 2); /* a gateway that holds data takes no entry without it */
    m = append_of(&l, 1, 1, 0, 1, 0);
    headers = l;
    entry_strip(&headers.e[0]);
    m.entries = &headers.e[0];
    receive(&f, m);
    assert_true(noted(&f, RAFT_NOTE_REFUSED));
    assert_int_equal(status(&f).last_index, 0);
    end(&f);
    line_free(&l);
}

/* One gateway away: the other and the witness are a majority, and the leader sends the witness no payloads. */
static void test_a_leader_commits_with_its_witness(void **context) {
    (void)context;
    struct fixture f;
    begin_as(&f, 1);
    lead_and_commit(&f);
    acknowledge(&f, 3, 1);
    assert_int_equal(propose(&f, "x"), E_OK);
    assert_non_null(sent(&f, RAFT_APPEND, 2));
    assert_null(sent(&f, RAFT_APPEND, 3));
    stored(&f);
    assert_true(sent(&f, RAFT_APPEND, 3)->message.headers);
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.entry_count, 1);
    acknowledge(&f, 3, 2);
    assert_int_equal(status(&f).commit_index, 2);
    end(&f);
    begin_as(&f, 1);
    lead(&f);
    assert_false(sent(&f, RAFT_APPEND, 2)->message.headers);
    end(&f);
}

static enum grey_error change(struct fixture *f, const struct raft_members *want) {
    return step(f, (struct raft_input){.kind = RAFT_IN_MEMBERS, .members = want});
}

/* A leader that loses power while it writes: were its witness ahead of every gateway then, nobody could ever win its vote again. */
static void test_a_witness_is_never_ahead_of_all_gateways(void **context) {
    (void)context;
    struct fixture f;
    begin_as(&f, 1);
    lead_and_commit(&f);
    acknowledge(&f, 3, 1);
    assert_int_equal(propose(&f, "x"), E_OK);
    assert_int_equal(propose(&f, "y"), E_OK);
    assert_null(sent(&f, RAFT_APPEND, 3));
    acknowledge(&f, 2, 2); /* on the other gateway's disk, not yet on this one's */
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.entry_count, 1);
    stored(&f);
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.entry_count, 1);
    acknowledge(&f, 2, 3);
    acknowledge(&f, 3, 3);
    /* On its way out its own disk is none of those that count. */
    struct raft_members want = voters_and_witness();
    raft_members_remove(&want, 1);
    assert_int_equal(change(&f, &want), E_OK);
    stored(&f);
    assert_null(sent(&f, RAFT_APPEND, 3));
    acknowledge(&f, 2, 4);
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.entry_count, 1);
    end(&f);
}

/* The same, where the gateway that has it was just made a voter and does not know: it does not ask for votes, and the leader lost it. */
static void test_a_witness_is_never_ahead_of_those_who_know_that_they_vote(void **context) {
    (void)context;
    struct fixture f;
    struct raft_members m = voters_and_witness();
    m.at[1].voter = false;
    struct raft_start start = {.members = &m};
    f = (struct fixture){.now_ms = 1000, .config = config()};
    f.raft = raft_new(&f.config, &start, f.now_ms);
    assert_non_null(f.raft);
    tick_after(&f, 500);
    receive(&f, (struct raft_message){.kind = RAFT_PRE_VOTE_REPLY, .from = 3, .term = 1});
    stored(&f);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE_REPLY, .from = 3, .term = 1});
    assert_int_equal(status(&f).role, RAFT_LEADER);
    stored(&f);
    acknowledge(&f, 2, 1);
    acknowledge(&f, 3, 1);
    assert_int_equal(propose(&f, "x"), E_OK); /* hangs on this gateway's disk */
    acknowledge(&f, 2, 2);
    assert_null(sent(&f, RAFT_APPEND, 3));
    m.at[1].voter = true;
    assert_int_equal(change(&f, &m), E_OK);
    acknowledge(&f, 2, 2); /* not yet the entry that says so */
    assert_null(sent(&f, RAFT_APPEND, 3));
    acknowledge(&f, 2, 3);
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.entry_count, 2);
    end(&f);
}

/* A witness that was away for a week gets no data to catch up: a point and the membership there. */
static void test_a_witness_far_behind_gets_a_point(void **context) {
    (void)context;
    struct fixture f;
    begin_as(&f, 3);
    struct line l = {0};
    line_add_text(&l, 1, "one");
    line_add_text(&l, 1, "never committed");
    receive(&f, append_of(&l, 1, 1, 0, 2, 1));
    stored(&f);
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_APPLIED, .index = 1});
    struct raft_members members = voters_and_witness();
    members.at[0].voter = false;
    struct raft_message m = {.kind = RAFT_SNAPSHOT,
                             .from = 2,
                             .term = 4,
                             .point = {.index = 900, .term = 3, .time_ms = WALL_MS, .hash = {9}},
                             .members = &members,
                             .members_index = 800};
    receive(&f, m);
    assert_false(f.out.install);
    assert_non_null(f.out.rebase);
    assert_int_equal(f.out.rebase->index, 900);
    assert_int_equal(f.out.rebase_members_index, 800);
    assert_false(raft_members_find(f.out.rebase_members, 1)->voter);
    assert_int_equal(f.out.commit_index, 900);
    assert_int_equal(status(&f).last_index, 900);
    uint64_t store_id = f.out.store_id;
    assert_true(store_id > 0);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->message.index, 900);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->after_store_id, store_id);
    receive(&f, m); /* said again before it is durable: the promise still waits */
    assert_null(f.out.rebase);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->after_store_id, store_id);
    stored(&f);
    /* The log goes on behind it. */
    struct line more = {.base = m.point};
    line_add_text(&more, 4, "next");
    receive(&f, append_of(&more, 2, 4, 900, 1, 900));
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->message.index, 901);
    m.point.index = 850; /* late: nothing goes back */
    receive(&f, m);
    assert_int_equal(status(&f).last_index, 901);
    m.point.index = 2000;
    m.members_index = 2001; /* nonsense */
    receive(&f, m);
    assert_true(noted(&f, RAFT_NOTE_REFUSED));
    m.members = NULL; /* what others get says nothing to a witness */
    receive(&f, m);
    assert_true(noted(&f, RAFT_NOTE_REFUSED));
    line_free(&l);
    line_free(&more);
    end(&f);

    begin_as(&f, 2); /* and a point without data is nothing for a gateway that holds data */
    m.members = &members;
    m.members_index = 1;
    m.from = 1;
    receive(&f, m);
    assert_true(noted(&f, RAFT_NOTE_REFUSED));
    assert_false(f.out.install);
    end(&f);
}

/* The leader gives the point: the newest that is committed, with the membership in force there. */
static void test_a_leader_gives_its_witness_a_point(void **context) {
    (void)context;
    struct fixture f = {.now_ms = 1000, .config = config()};
    f.config.window_entries = 0;
    struct raft_members m = voters_and_witness();
    struct raft_point base = {.index = 50, .term = 1, .time_ms = WALL_MS, .hash = {5}};
    struct raft_start start = {
        .term = 1, .base = base, .window_base = base, .applied_index = 50, .members = &m, .members_index = 40};
    f.raft = raft_new(&f.config, &start, f.now_ms);
    assert_non_null(f.raft);
    tick_after(&f, 600);
    receive(&f, (struct raft_message){.kind = RAFT_PRE_VOTE_REPLY, .from = 2, .term = 2});
    stored(&f);
    receive(&f, (struct raft_message){.kind = RAFT_VOTE_REPLY, .from = 2, .term = 2});
    stored(&f);
    acknowledge(&f, 2, 51);
    assert_int_equal(status(&f).commit_index, 51);
    receive(&f, (struct raft_message){.kind = RAFT_APPEND_REPLY, .from = 3, .term = 2, .index = 50, .refused = true});
    const struct raft_send *s = sent(&f, RAFT_SNAPSHOT, 3);
    assert_non_null(s);
    assert_int_equal(s->message.point.index, 51);
    assert_int_equal(s->message.members_index, 40);
    assert_int_equal(s->message.members->count, 3);
    acknowledge(&f, 3, 51);
    assert_int_equal(propose(&f, "y"), E_OK);
    stored(&f);
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.index, 51);
    end(&f);
}

/* --- Membership ------------------------------------------------------------------------------------------------------------------ */

/* R5, R6: overlapping changes split a site in two. */
static void test_one_change_at_a_time_and_not_before_the_first_commit(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    struct raft_members four = voters(4), three = voters(3);
    assert_int_equal(change(&f, &four), E_NOT_LEADER);
    lead(&f);
    assert_int_equal(change(&f, &four), E_MEMBER_CHANGE_PENDING);
    stored(&f);
    acknowledge(&f, 2, 1);
    assert_int_equal(change(&f, &four), E_OK);
    assert_int_equal(status(&f).members->count, 4);
    assert_false(status(&f).members_committed);
    assert_int_equal(change(&f, &three), E_MEMBER_CHANGE_PENDING);
    stored(&f);
    acknowledge(&f, 2, 2);
    assert_int_equal(f.out.commit_index, 1); /* two of four are no majority */
    acknowledge(&f, 3, 2);
    assert_int_equal(f.out.commit_index, 2);
    assert_int_equal(change(&f, &four), E_OK); /* it is so already */
    assert_int_equal(f.out.store_id, 0);
    end(&f);
}

/* R6: a leader that was removed must first commit that without counting itself, and then make room. */
static void test_a_removed_leader_commits_and_leaves(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead_and_commit(&f);
    struct raft_members want = voters(3);
    raft_members_remove(&want, 1);
    struct raft_member fresh = {.id = 4, .voter = true, .node.text = "node4"};
    assert_int_equal(raft_members_put(&want, &fresh), E_OK);
    assert_int_equal(change(&f, &want), E_OK); /* joint: {1 2 3} and {2 3 4} */
    stored(&f);
    acknowledge(&f, 2, 2);
    assert_int_equal(f.out.commit_index, 1);
    acknowledge(&f, 4, 2);
    assert_int_equal(f.out.commit_index, 2);
    assert_int_equal(status(&f).last_index, 3); /* it left the joint phase by itself, once */
    stored(&f);
    acknowledge(&f, 2, 3);
    assert_int_equal(f.out.commit_index, 2); /* itself does not count any more */
    assert_int_equal(status(&f).role, RAFT_LEADER);
    acknowledge(&f, 3, 3);
    assert_int_equal(f.out.commit_index, 3);
    assert_int_equal(status(&f).role, RAFT_FOLLOWER);
    assert_non_null(sent(&f, RAFT_TIMEOUT_NOW, 0));
    tick_after(&f, 5000);
    assert_int_equal(f.out.send_count, 0); /* and stays quiet */
    end(&f);
}

/* FAULTS 2b 11: a membership whose entry gave way must give way too. */
static void test_a_membership_goes_with_its_entry(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead_and_commit(&f);
    struct raft_members four = voters(4);
    assert_int_equal(change(&f, &four), E_OK);
    struct line l = {.base = {.index = 1, .term = 1, .time_ms = raft_entry(f.raft, 1)->time_ms}};
    memcpy(l.base.hash, raft_entry(f.raft, 1)->hash, DIGEST_BYTES);
    line_add(&l, 2);
    receive(&f, append_of(&l, 2, 2, 1, 1, 1));
    assert_int_equal(status(&f).members->count, 3);
    assert_int_equal(status(&f).members_index, 1);
    assert_true(status(&f).members_committed);
    end(&f);
}

/* A new member could not make a snapshot if the log did not tell it who belongs to the group. */
static void test_the_first_entry_of_a_group_is_its_membership(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead(&f);
    assert_int_equal(raft_entry(f.raft, 1)->kind, ENTRY_CONFIG);
    assert_int_equal(status(&f).members_index, 1);
    end(&f);
}

/* --- Snapshots ------------------------------------------------------------------------------------------------------------------- */

/* R17: a snapshot is fetched once however often it is offered; meanwhile the node stays reachable and takes nothing else. */
static void test_a_snapshot_is_installed_once(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    struct line l = line_of(3, (raft_term[]){1, 1, 1});
    receive(&f, append_of(&l, 2, 1, 0, 3, 1));
    stored(&f);
    struct raft_point point = {.index = 20, .term = 2, .time_ms = WALL_MS, .hash = {9}};
    struct raft_message offer = {.kind = RAFT_SNAPSHOT, .from = 2, .term = 2, .point = point};
    receive(&f, offer);
    assert_true(f.out.install && f.out.install_from == 2 && f.out.install_point.index == 20);
    receive(&f, offer);
    assert_false(f.out.install);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 2});
    assert_non_null(sent(&f, RAFT_HEARTBEAT_REPLY, 2));
    receive(&f, append_of(&l, 2, 2, 3, 0, 3));
    assert_int_equal(f.out.commit_index, 1);
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_SNAPSHOT_FAILED});
    receive(&f, offer);
    assert_true(f.out.install);
    struct raft_members four = voters(4);
    struct raft_input done = {.kind = RAFT_IN_SNAPSHOT_DONE, .point = &point, .members = &four, .index = 15};
    assert_int_equal(step(&f, done), E_OK);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->message.index, 20);
    assert_int_equal(f.out.commit_index, 20);
    assert_int_equal(status(&f).members->count, 4);
    assert_int_equal(status(&f).members_index, 15);
    assert_int_equal(status(&f).base_index, 20);
    assert_int_equal(step(&f, done), E_BAD_MESSAGE);
    offer.point.index = 12;
    receive(&f, offer); /* an old one: answered, not installed */
    assert_false(f.out.install);
    assert_int_equal(sent(&f, RAFT_APPEND_REPLY, 2)->message.index, 20);
    end(&f);
}

/* R14: what a follower lacks was compacted: it is offered the snapshot; what is on disk only is read from there. */
static void test_a_leader_offers_a_snapshot_or_loads(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    f.config.window_entries = 0;
    f.config.message_bytes_max = 1 << 20;
    raft_free(f.raft);
    struct raft_members m = voters(3);
    struct raft_start start = {.members = &m};
    f.raft = raft_new(&f.config, &start, f.now_ms);
    lead_and_commit(&f);
    struct entry kept[8] = {0};
    for (uint32_t i = 2; i < 6; i++) {
        assert_int_equal(propose(&f, "x"), E_OK);
        kept[i] = *raft_entry(f.raft, i);
        blob_ref(kept[i].payload);
        stored(&f);
        acknowledge(&f, 2, i);
        (void)step(&f, (struct raft_input){.kind = RAFT_IN_APPLIED, .index = i});
    }
    assert_null(raft_entry(f.raft, 5)); /* window_entries 0 */
    struct raft_point point = {.index = 2, .term = 1, .time_ms = kept[2].time_ms};
    memcpy(point.hash, kept[2].hash, DIGEST_BYTES);
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_COMPACTED, .point = &point});
    (void)step(&f, (struct raft_input){.kind = RAFT_IN_LINK_DOWN, .peer = 3});
    assert_int_equal(sent(&f, RAFT_SNAPSHOT, 3)->message.point.index, 2);
    tick_after(&f, 150);
    assert_null(sent(&f, RAFT_SNAPSHOT, 3)); /* not again so soon */
    acknowledge(&f, 3, 2);
    assert_int_equal(f.out.load_count, 1);
    assert_int_equal(f.out.loads[0].from, 3);
    assert_int_equal(f.out.loads[0].bytes_max, RAFT_LOAD_BYTES_MAX); /* the leader's own stores wait behind it */
    struct raft_input loaded = {.kind = RAFT_IN_LOADED, .peer = 3, .load_index = 3, .entries = &kept[3], .entry_count = 1};
    (void)step(&f, loaded);
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.index, 2);
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.entry_count, 1);
    assert_int_equal(f.out.load_count, 1);
    assert_int_equal(f.out.loads[0].from, 4);
    loaded.load_index = 4;
    loaded.entries = &kept[4];
    (void)step(&f, loaded);
    assert_int_equal(sent(&f, RAFT_APPEND, 3)->message.index, 3);
    assert_int_equal(f.out.load_count, 0); /* enough is on its way: who is far behind takes no more than it can write */
    (void)step(&f, loaded);                /* not asked for any more */
    assert_null(sent(&f, RAFT_APPEND, 3));
    acknowledge(&f, 3, 3);
    assert_int_equal(f.out.load_count, 1);
    assert_int_equal(f.out.loads[0].from, 5);
    for (uint32_t i = 0; i < 8; i++) {
        blob_unref(kept[i].payload);
    }
    end(&f);
}

/* --- Transfer, time, start, strangers ------------------------------------------------------------------------------------------------ */

/* A gateway that is switched off for service hands over at once, and goes on when the other does not take over. */
static void test_transfer(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    assert_int_equal(step(&f, (struct raft_input){.kind = RAFT_IN_TRANSFER}), E_NOT_LEADER);
    lead_and_commit(&f);
    assert_int_equal(propose(&f, "x"), E_OK);
    assert_int_equal(step(&f, (struct raft_input){.kind = RAFT_IN_TRANSFER, .peer = 9}), E_BAD_MESSAGE);
    assert_int_equal(step(&f, (struct raft_input){.kind = RAFT_IN_TRANSFER}), E_OK);
    assert_null(sent(&f, RAFT_TIMEOUT_NOW, 0)); /* node 2 lacks an entry */
    assert_int_equal(propose(&f, "y"), E_NOT_LEADER);
    acknowledge(&f, 2, 2);
    assert_non_null(sent(&f, RAFT_TIMEOUT_NOW, 2));
    f.now_ms += 450;
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT_REPLY, .from = 2, .term = 1});
    tick_after(&f, 60);
    assert_int_equal(propose(&f, "y"), E_OK);
    end(&f);
    begin(&f, 3);
    receive(&f, (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 2, .term = 1});
    receive(&f, (struct raft_message){.kind = RAFT_TIMEOUT_NOW, .from = 2, .term = 1});
    assert_int_equal(status(&f).role, RAFT_CANDIDATE);
    assert_true(sent(&f, RAFT_VOTE, 3)->message.transfer);
    end(&f);
}

/* C3: wrong wall clocks must not move a site's time back, nor far ahead. */
static void test_log_time(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    struct line l = {0};
    line_add(&l, 1);
    l.e[0].time_ms = WALL_MS - 3600000;
    entry_seal(&l.e[0], l.base.hash);
    receive(&f, append_of(&l, 2, 1, 0, 1, 0));
    stored(&f);
    f.now_ms += 600;
    lead(&f);
    assert_int_equal(raft_entry(f.raft, 2)->time_ms, WALL_MS - 3600000 + 60000); /* at most 60 s towards the wall */
    f.now_ms += 250;
    assert_int_equal(propose(&f, "x"), E_OK);
    assert_int_equal(raft_entry(f.raft, 3)->time_ms, WALL_MS - 3600000 + 60250);
    assert_int_equal(raft_log_time_ms(f.raft, f.now_ms + 1000), WALL_MS - 3600000 + 61250);
    end(&f);
}

/* A gateway that booted in 1970 or 2070 must not hold its site there for ever; and a peer must not be able to turn the time back. */
static void test_the_clock_is_set_by_an_entry(void **context) {
    (void)context;
    struct fixture f;
    begin(&f, 3);
    lead(&f);
    int64_t at = raft_entry(f.raft, 1)->time_ms;
    struct blob *payload = blob_copy(bytes_str("t"));
    struct raft_proposal p = {.kind = ENTRY_CLOCK, .schema = 1, .payload = payload};
    struct raft_input in = {.kind = RAFT_IN_PROPOSE, .proposals = &p, .proposal_count = 1};
    assert_int_equal(step(&f, in), E_BAD_MESSAGE); /* not by the common door */
    for (int back = 0; back < 2; back++) {
        raft_index index = 2 + 2 * (raft_index)back;
        int64_t wanted = back ? at - 86400000 : at + INT64_C(864000000);
        in = (struct raft_input){.kind = RAFT_IN_CLOCK, .proposals = &p, .proposal_count = 1, .clock_ms = wanted};
        assert_int_equal(step(&f, in), E_OK);
        assert_int_equal(raft_entry(f.raft, index)->time_ms, wanted);
        f.now_ms += 70;
        assert_int_equal(propose(&f, "x"), E_OK);
        assert_int_equal(raft_entry(f.raft, index + 1)->time_ms, wanted + 70);
    }
    in.clock_ms = -1;
    assert_int_equal(step(&f, in), E_BAD_MESSAGE);
    blob_unref(payload);
    end(&f);

    begin(&f, 3);
    struct line l = {0};
    line_add(&l, 1);
    line_add(&l, 1);
    l.e[0].time_ms = 5000;
    entry_seal(&l.e[0], l.base.hash);
    l.e[1].time_ms = 4000;
    entry_seal(&l.e[1], l.e[0].hash);
    receive(&f, append_of(&l, 2, 1, 0, 2, 0));
    assert_null(raft_entry(f.raft, 1)); /* time goes back in an entry that sets no clock: the whole message is refused */
    l.e[1].kind = ENTRY_CLOCK;
    entry_seal(&l.e[1], l.e[0].hash);
    receive(&f, append_of(&l, 2, 1, 0, 2, 0));
    assert_non_null(raft_entry(f.raft, 2));
    end(&f);
}

/* R16: a disk whose parts do not fit together must not be started from. */
static void test_a_start_that_does_not_fit_is_refused(void **context) {
    (void)context;
    struct raft_config c = config();
    struct raft_members m = voters(3);
    struct line l = line_of(4, (raft_term[]){1, 1, 2, 2});
    struct raft_start good = {.term = 2, .members = &m, .entries = l.e, .entry_count = 4, .applied_index = 3};
    struct raft *r = raft_new(&c, &good, 0);
    assert_non_null(r);
    raft_free(r);
    struct raft_start s = good;
    s.applied_index = 5; /* beyond the log */
    assert_null(raft_new(&c, &s, 0));
    s = good;
    s.term = 1; /* the log is of a later term */
    assert_null(raft_new(&c, &s, 0));
    s = good;
    s.entries = &l.e[1]; /* a gap */
    s.entry_count = 3;
    assert_null(raft_new(&c, &s, 0));
    s = good;
    s.base.index = 2; /* the log begins before its snapshot ends */
    assert_null(raft_new(&c, &s, 0));
    s = good;
    m.at[0].id = 2;
    assert_null(raft_new(&c, &s, 0));
    c.heartbeat_ms = 300;
    m = voters(3);
    assert_null(raft_new(&c, &good, 0));
}

static uint64_t seed = 88172645463325252u;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static uint64_t number(void) {
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     3,
                                     4,
                                     5,
                                     8,
                                     UINT64_MAX,
                                     UINT64_MAX - 1,
                                     INT64_MAX,
                                     (uint64_t)INT64_MAX + 1,
                                     UINT64_C(1) << 62,
                                     (UINT64_C(1) << 62) + 1,
                                     UINT32_MAX};
    return draw(3) == 0 ? edges[draw(sizeof edges / sizeof edges[0])] : draw(8);
}

/* L11: whatever an authenticated member sends, on purpose or by a fault, no gateway may stop. */
static void test_no_message_stops_a_member(void **context) {
    (void)context;
    struct fixture f;
    for (int life = 0; life < 300; life++) {
        begin(&f, (uint32_t)draw(6));
        struct line l = line_of(8, (raft_term[]){1, 1, 1, 2, 2, 3, 3, 3});
        for (int i = 0; i < 400; i++) {
            struct raft_message m = {.kind = (enum raft_message_kind)draw(RAFT_MESSAGE_KIND_COUNT + 2), .from = draw(5)};
            if (draw(3) == 0) {
                raft_index prev = draw(8);
                m = append_of(&l, 1 + draw(4), 1 + draw(4), prev, (uint32_t)draw(8 - prev + 1), number());
            }
            m.term = draw(2) ? 1 + draw(4) : number();
            m.index = draw(2) ? m.index : number();
            m.log_term = draw(2) ? m.log_term : number();
            m.hint_index = number();
            m.commit_index = draw(2) ? m.commit_index : number();
            m.round = number();
            m.refused = draw(2);
            m.transfer = draw(2);
            m.point = (struct raft_point){.index = number(), .term = number(), .time_ms = (int64_t)number()};
            struct entry copy[8];
            if (m.entry_count > 0 && draw(4) == 0) {
                memcpy(copy, m.entries, m.entry_count * sizeof copy[0]);
                struct entry *e = &copy[draw(m.entry_count)];
                e->index = number();
                e->term = draw(2) ? number() : e->term;
                e->time_ms = draw(2) ? (int64_t)number() : e->time_ms;
                e->kind = (uint16_t)draw(3);
                m.entries = copy;
            }
            receive(&f, m);
            if (f.out.install && draw(2)) {
                struct raft_members three = voters(3);
                struct raft_point point = f.out.install_point;
                (void)step(
                    &f, (struct raft_input){.kind = RAFT_IN_SNAPSHOT_DONE, .point = &point, .members = &three, .index = number()});
            }
            if (draw(4) == 0) {
                stored(&f);
            }
            if (draw(6) == 0) {
                tick_after(&f, draw(400));
            }
            if (draw(8) == 0) {
                (void)step(&f, (struct raft_input){.kind = RAFT_IN_APPLIED, .index = status(&f).commit_index});
            }
            if (draw(10) == 0) {
                (void)propose(&f, "x");
                read_at(&f, draw(100));
            }
            if (draw(20) == 0) {
                struct raft_members want = voters(1 + (uint32_t)draw(5));
                (void)change(&f, &want);
                (void)step(&f, (struct raft_input){.kind = RAFT_IN_TRANSFER, .peer = number()});
            }
        }
        end(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_vote_waits_for_the_disk),
        cmocka_unit_test(test_a_candidates_own_vote_waits_for_the_disk),
        cmocka_unit_test(test_a_pre_vote_changes_nothing),
        cmocka_unit_test(test_a_member_that_hears_its_leader_is_not_moved),
        cmocka_unit_test(test_a_reluctant_member_leads_only_when_nobody_else_does),
        cmocka_unit_test(test_a_member_that_is_trusted_again_waits_no_longer_than_others),
        cmocka_unit_test(test_only_a_log_as_good_gets_a_vote),
        cmocka_unit_test(test_a_split_vote_is_tried_again_soon),
        cmocka_unit_test(test_a_learner_votes_when_asked),
        cmocka_unit_test(test_a_former_leader_learns_the_term),
        cmocka_unit_test(test_a_single_voter_commits_after_its_own_store),
        cmocka_unit_test(test_entries_of_former_terms_are_not_committed_by_counting),
        cmocka_unit_test(test_a_late_store_report_does_not_count_for_rewritten_entries),
        cmocka_unit_test(test_a_repeated_append_cuts_nothing),
        cmocka_unit_test(test_an_append_from_before_the_snapshot_is_harmless),
        cmocka_unit_test(test_commit_stays_below_what_is_verified),
        cmocka_unit_test(test_another_hash_is_noticed),
        cmocka_unit_test(test_late_answers_take_nothing_back),
        cmocka_unit_test(test_a_lost_append_is_sent_again),
        cmocka_unit_test(test_a_leader_without_majority_steps_down),
        cmocka_unit_test(test_a_lone_commit_is_told_a_moment_later),
        cmocka_unit_test(test_who_has_work_by_a_commit_is_told_at_once),
        cmocka_unit_test(test_proposals_are_bounded),
        cmocka_unit_test(test_a_read_waits_for_commit_and_round),
        cmocka_unit_test(test_a_follower_takes_only_the_answer_to_its_question),
        cmocka_unit_test(test_a_lease_is_counted_from_the_sending),
        cmocka_unit_test(test_no_lease_before_the_first_commit),
        cmocka_unit_test(test_a_transfer_ends_the_lease_for_the_term),
        cmocka_unit_test(test_a_clock_that_misbehaves_ends_the_lease),
        cmocka_unit_test(test_a_leap_of_the_clock_is_no_election_time_out),
        cmocka_unit_test(test_a_leader_that_leaves_has_no_lease),
        cmocka_unit_test(test_the_promise_outlives_terms_and_restarts),
        cmocka_unit_test(test_waiting_reads_are_bounded),
        cmocka_unit_test(test_a_witness_votes_and_never_leads),
        cmocka_unit_test(test_a_witness_keeps_out_whoever_lacks_what_it_acknowledged),
        cmocka_unit_test(test_a_witness_holds_headers_only),
        cmocka_unit_test(test_a_leader_commits_with_its_witness),
        cmocka_unit_test(test_a_witness_is_never_ahead_of_all_gateways),
        cmocka_unit_test(test_a_witness_is_never_ahead_of_those_who_know_that_they_vote),
        cmocka_unit_test(test_a_witness_far_behind_gets_a_point),
        cmocka_unit_test(test_a_leader_gives_its_witness_a_point),
        cmocka_unit_test(test_one_change_at_a_time_and_not_before_the_first_commit),
        cmocka_unit_test(test_a_removed_leader_commits_and_leaves),
        cmocka_unit_test(test_a_membership_goes_with_its_entry),
        cmocka_unit_test(test_the_first_entry_of_a_group_is_its_membership),
        cmocka_unit_test(test_a_snapshot_is_installed_once),
        cmocka_unit_test(test_a_leader_offers_a_snapshot_or_loads),
        cmocka_unit_test(test_transfer),
        cmocka_unit_test(test_log_time),
        cmocka_unit_test(test_the_clock_is_set_by_an_entry),
        cmocka_unit_test(test_a_start_that_does_not_fit_is_refused),
        cmocka_unit_test(test_no_message_stops_a_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
