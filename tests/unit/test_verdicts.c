/* If this failed, gateways of a site would differ in whom they trust, trust what nobody signed, or shut each other out until none is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/state/standing.h"
#include "platform/codec.h"
#include "tests/unit/rows_on_disk.h"

#define NOW_S INT64_C(1900000000)
#define SITE "plant-7"

static struct gateway g;
static struct builder payload;
static struct outcome outcome;
static struct raft_members members;
static struct standings s;
static uint8_t key[KEYS_ED25519_PUBLIC_BYTES], secret[KEYS_ED25519_SECRET_BYTES];

static struct verdict result_of(uint32_t member, int64_t from_s) {
    const struct raft_member *m = &members.at[member];
    struct verdict v = {.verifier = bytes_str("core-1"),
                        .who = {.site = bytes_str(SITE), .node = bytes_str(m->node.text), .raft_id = m->id},
                        .from_s = from_s,
                        .until_s = from_s + 24 * 3600,
                        .type = ATTEST_TPM2,
                        .status = 2,
                        .identity = 2,
                        .configuration = 2,
                        .executables = 2,
                        .hardware = 2,
                        .policy = bytes_str("lab"),
                        .policy_serial = 9};
    memcpy(v.who.signing_key, m->sign_key, sizeof v.who.signing_key);
    return v;
}

/* What a leader writes into the log; log time goes on and never back. */
static enum grey_error say(int64_t at_s) {
    return gateway_entry(&g, ENTRY_VERDICT, at_s * 1000, &payload, &outcome, NULL);
}

static enum grey_error tell(uint32_t member, const struct verdict *v, const uint8_t *with) {
    struct builder result;
    builder_init(&result, VERDICT_BYTES_MAX);
    assert_int_equal(verdict_sign(&result, v, key, with), E_OK);
    payload_verdict(&payload, members.at[member].node.text, members.at[member].id, builder_bytes(&result));
    builder_free(&result);
    return say(NOW_S);
}

static enum grey_error trust(uint32_t member, int64_t from_s) {
    struct verdict v = result_of(member, from_s);
    return tell(member, &v, secret);
}

static enum grey_error refuse_at(uint32_t member, enum grey_error why, int64_t at_s) {
    payload_verdict_refused(&payload, members.at[member].node.text, members.at[member].id, why, bytes_str("register 4"));
    return say(at_s);
}

static enum grey_error refuse(uint32_t member, enum grey_error why) {
    return refuse_at(member, why, NOW_S);
}

static enum standing standing_at(uint32_t member, int64_t now_s) {
    standing_judge(g.rows, SITE, &members, key, now_s, &s);
    assert_int_equal(s.count, members.count);
    return s.at[member].standing;
}

static uint32_t quarantined(void) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < s.count; i++) {
        count += s.at[i].quarantined;
    }
    return count;
}

static void make_members(uint32_t count) {
    members = (struct raft_members){0};
    for (uint32_t i = 1; i <= count; i++) {
        struct raft_member m = {.id = i, .voter = true};
        (void)snprintf(m.node.text, sizeof m.node.text, "node%u", i);
        memset(m.sign_key, (int)i, sizeof m.sign_key);
        assert_int_equal(raft_members_put(&members, &m), E_OK);
    }
}

static int begin(void **state) {
    (void)state;
    g = gateway_new(1 << 20);
    builder_init(&payload, LIMIT_PAYLOAD_BYTES);
    make_members(3);
    keys_new_ed25519(key, secret);
    return 0;
}

static int end(void **state) {
    (void)state;
    gateway_free(&g);
    builder_free(&payload);
    return 0;
}

static void a_result_is_trusted_as_long_as_it_holds(void **state) {
    struct verdicts_row row;
    (void)state;
    assert_int_equal(standing_at(0, NOW_S), STANDING_NONE);
    assert_int_equal(trust(0, NOW_S), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_TRUSTED);
    assert_int_equal(s.at[0].until_s, NOW_S + 24 * 3600);
    assert_int_equal(s.change_s, NOW_S + 24 * 3600);
    assert_int_equal(s.at[0].policy_serial, 9);
    assert_int_equal(standing_at(1, NOW_S), STANDING_NONE);
    assert_int_equal(standing_at(0, NOW_S + 24 * 3600), STANDING_EXPIRED);
    assert_int_equal(s.at[0].why, E_ATTEST_EXPIRED);
    assert_true(s.at[0].quarantined);
    assert_true(verdicts_find(g.rows, "node1", &row));
    assert_true(row.id == 1 && !row.failed && row.result.size > 0);
}

/* What the leader writes into the log is not believed because it stands there. */
static void what_the_verifier_did_not_sign_for_this_member_counts_for_nothing(void **state) {
    uint8_t other_key[KEYS_ED25519_PUBLIC_BYTES], other_secret[KEYS_ED25519_SECRET_BYTES];
    (void)state;
    keys_new_ed25519(other_key, other_secret);
    struct verdict v = result_of(0, NOW_S);
    assert_int_equal(tell(0, &v, other_secret), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_PENDING);
    assert_int_equal(s.at[0].why, E_ATTEST_RESULT);
    assert_int_equal(quarantined(), 0);
    v = result_of(1, NOW_S); /* another's result under its name */
    assert_int_equal(tell(0, &v, secret), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_PENDING);
    v = result_of(0, NOW_S);
    v.who.signing_key[0] ^= 1;
    assert_int_equal(tell(0, &v, secret), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_PENDING);
    v = result_of(0, NOW_S);
    v.who.site = bytes_str("plant-8");
    assert_int_equal(tell(0, &v, secret), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_PENDING);
    assert_int_equal(trust(0, NOW_S), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_TRUSTED);
    members.at[0].id = 77; /* a wiped gateway that came back under its name */
    assert_int_equal(standing_at(0, NOW_S), STANDING_PENDING);
    members.at[0].id = 1;
    standing_judge(g.rows, SITE, &members, NULL, NOW_S, &s); /* whoever has no key trusts nobody, and shuts out nobody */
    assert_int_equal(s.at[0].standing, STANDING_PENDING);
    assert_int_equal(quarantined(), 0);
}

static void a_refusal_takes_trust_and_a_result_gives_it_back(void **state) {
    struct verdicts_row row;
    (void)state;
    assert_int_equal(trust(0, NOW_S), E_OK);
    assert_int_equal(refuse(0, E_ATTEST_REFERENCE), E_OK);
    assert_true(verdicts_find(g.rows, "node1", &row));
    raft_index since = row.since;
    assert_int_equal(standing_at(0, NOW_S), STANDING_FAILED);
    assert_true(s.at[0].quarantined && quarantined() == 1);
    assert_int_equal(s.at[0].why, E_ATTEST_REFERENCE);
    assert_string_equal(s.at[0].detail, "register 4");
    assert_int_equal(refuse(0, E_ATTEST_COUNTERS), E_OK); /* another reason: it failed since the first */
    assert_true(verdicts_find(g.rows, "node1", &row));
    assert_true(row.since == since && row.index > since && row.number == (uint32_t)error_id(E_ATTEST_COUNTERS) &&
                row.result.size > 0);
    assert_int_equal(trust(0, NOW_S + 1), E_OK);
    assert_int_equal(standing_at(0, NOW_S + 1), STANDING_TRUSTED);
    assert_int_equal(quarantined(), 0);
}

/* Whoever took over a leader keeps its results of better days. */
static void a_result_that_a_leader_kept_lifts_no_refusal(void **state) {
    struct verdicts_row row;
    (void)state;
    for (int forgotten = 0; forgotten <= 1; forgotten++) { /* also when the site has another result, or none */
        int64_t at_s = NOW_S + 10 * forgotten;
        assert_int_equal(trust(0, at_s - 3600), E_OK);
        if (forgotten == 1) {
            payload_verdict_forget(&payload, "node1");
            assert_int_equal(say(at_s), E_OK);
        }
        assert_int_equal(refuse_at(0, E_ATTEST_REFERENCE, at_s), E_OK);
        assert_true(verdicts_find(g.rows, "node1", &row));
        raft_index since = row.since;
        for (int64_t from_s = at_s - 3600; from_s <= at_s; from_s += 1800) { /* one of that second may be of before */
            assert_int_equal(trust(0, from_s), E_OK);
            assert_int_equal(standing_at(0, at_s + 5), STANDING_FAILED);
            assert_true(s.at[0].quarantined && s.at[0].why == E_ATTEST_REFERENCE && s.at[0].since == since);
            assert_int_equal(s.at[0].refused_ms, at_s * 1000);
            assert_string_equal(s.at[0].detail, "register 4");
        }
        assert_int_equal(standing_at(0, at_s + 48 * 3600), STANDING_FAILED); /* nor when it is over */
        assert_int_equal(trust(0, at_s + 1), E_OK);
        assert_int_equal(standing_at(0, at_s + 5), STANDING_TRUSTED);
        assert_int_equal(s.at[0].refused_ms, 0);
        payload_verdict_forget(&payload, "node1");
        assert_int_equal(say(at_s), E_OK);
    }
    assert_int_equal(refuse(0, E_ATTEST_REFERENCE), E_OK);
    members.at[0].id = 77; /* its new self was never refused */
    assert_int_equal(trust(0, NOW_S - 60), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_TRUSTED);
    assert_int_equal(trust(0, NOW_S + 200), E_OK); /* a verifier whose clock is ahead */
    assert_int_equal(refuse(0, E_ATTEST_REFERENCE), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_FAILED);
}

/* While a site is brought up to a new version, its gateways know different errors. */
static void an_error_of_a_later_version_makes_the_same_row(void **state) {
    enum { NEWER = 3999 };
    struct verdicts_row row;
    struct verdicts_word word;
    (void)state;
    assert_int_equal(error_by_id(NEWER), E_OK);
    codec_put_array(&payload, 5);
    codec_put_uint(&payload, 1);
    codec_put_text(&payload, bytes_str("node1"));
    codec_put_uint(&payload, 1);
    codec_put_uint(&payload, NEWER);
    codec_put_text(&payload, bytes_str("a new reason"));
    assert_true(verdicts_read(builder_bytes(&payload), &word));
    assert_int_equal(word.number, NEWER);
    assert_int_equal(say(NOW_S), E_OK);
    assert_true(verdicts_find(g.rows, "node1", &row));
    assert_int_equal(row.number, NEWER);
    assert_int_equal(standing_at(0, NOW_S), STANDING_FAILED);
    assert_int_equal(s.at[0].why, E_ATTEST_FORMAT); /* for people */
    assert_string_equal(s.at[0].detail, "a new reason");
}

/* DECISIONS 29: a wrong policy must not stop a site. */
static void a_minority_at_most_is_in_quarantine(void **state) {
    (void)state;
    for (uint32_t count = 1; count <= 7; count++) {
        make_members(count);
        for (uint32_t i = count; i > 0; i--) { /* the last one failed first */
            assert_int_equal(refuse(i - 1, E_ATTEST_REFERENCE), E_OK);
        }
        assert_int_equal(standing_at(0, NOW_S), STANDING_FAILED);
        assert_int_equal(quarantined(), (count - 1) / 2);
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(s.at[i].quarantined, i >= count - (count - 1) / 2);
            payload_verdict_forget(&payload, members.at[i].node.text);
            assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), E_OK);
        }
        assert_int_equal(standing_at(0, NOW_S), STANDING_NONE);
    }
    make_members(3); /* who was refused comes before those whose results are over, whenever that was */
    assert_int_equal(trust(0, NOW_S - 48 * 3600), E_OK);
    assert_int_equal(trust(1, NOW_S - 72 * 3600), E_OK);
    assert_int_equal(refuse(2, E_ATTEST_REFERENCE), E_OK);
    assert_int_equal(standing_at(0, NOW_S), STANDING_EXPIRED);
    assert_true(s.at[2].quarantined && quarantined() == 1);
    assert_int_equal(trust(2, NOW_S + 1), E_OK);
    assert_int_equal(standing_at(0, NOW_S + 1), STANDING_EXPIRED);
    assert_true(s.at[1].quarantined && quarantined() == 1); /* the one that has been over for longer */
}

static void what_is_no_verdict_changes_nothing(void **state) {
    struct verdicts_row row;
    uint8_t large[VERDICT_BYTES_MAX + 1] = {0};
    char name[LIMIT_NAME_BYTES + 1];
    (void)state;
    payload_verdict(&payload, "node1", 1, bytes_of(NULL, 0));
    assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), E_BAD_MESSAGE);
    payload_verdict(&payload, "node1", 1, bytes_of(large, sizeof large));
    assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), E_BAD_MESSAGE);
    payload_verdict(&payload, "no name", 1, bytes_str("x"));
    assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), E_BAD_MESSAGE);
    payload_verdict_refused(&payload, "node1", 1, E_ATTEST_REFERENCE, bytes_of("a\0b", 3));
    assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), E_BAD_MESSAGE);
    payload_verdict_forget(&payload, "node1");
    builder_add_byte(&payload, 0);
    assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), E_BAD_MESSAGE);
    payload_verdict_forget(&payload, "node1");
    assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), E_NOT_FOUND);
    assert_false(verdicts_next(g.rows, "", &row));
    for (uint32_t i = 0; i <= VERDICTS_MAX; i++) {
        (void)snprintf(name, sizeof name, "n%u", i);
        payload_verdict(&payload, name, i, bytes_str("x"));
        assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), i < VERDICTS_MAX ? E_OK : E_QUOTA);
    }
    payload_verdict(&payload, "n0", 7, bytes_str("y")); /* those that are there may change */
    assert_int_equal(gateway_entry(&g, ENTRY_VERDICT, 1000, &payload, &outcome, NULL), E_OK);
    assert_true(verdicts_find(g.rows, "n0", &row) && row.id == 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_result_is_trusted_as_long_as_it_holds, begin, end),
        cmocka_unit_test_setup_teardown(what_the_verifier_did_not_sign_for_this_member_counts_for_nothing, begin, end),
        cmocka_unit_test_setup_teardown(a_refusal_takes_trust_and_a_result_gives_it_back, begin, end),
        cmocka_unit_test_setup_teardown(a_result_that_a_leader_kept_lifts_no_refusal, begin, end),
        cmocka_unit_test_setup_teardown(an_error_of_a_later_version_makes_the_same_row, begin, end),
        cmocka_unit_test_setup_teardown(a_minority_at_most_is_in_quarantine, begin, end),
        cmocka_unit_test_setup_teardown(what_is_no_verdict_changes_nothing, begin, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
