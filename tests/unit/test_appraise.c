/* The appraiser: what is genuine passes, whatever was changed does not, and each way to fail has its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "federation/attest/document.h"
#include "tests/unit/attest_rig.h"

static struct rig rig;
static struct builder evidence;

static int set_up(void **state) {
    (void)state;
    rig_init(&rig);
    builder_init(&evidence, ATTEST_EVIDENCE_BYTES_MAX + 16);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    builder_free(&evidence);
    rig_free(&rig);
    return 0;
}

static enum grey_error judge_evidence(const struct appraise_question *q) {
    struct appraisal a;
    return rig_judge(q, builder_bytes(&evidence), &a);
}

static enum grey_error judge_statement(const struct evidence_statement *s) {
    struct appraise_question q = rig_question(&rig);
    rig_attest(&rig, s, &evidence);
    return judge_evidence(&q);
}

/* If this failed, gateways in good order would be shut out now and then. */
static void genuine_evidence_is_accepted_a_thousand_times(void **state) {
    struct appraise_question q = rig_question(&rig);
    struct attested known = rig.proven;
    struct appraisal a;
    (void)state;
    q.known = &known;
    for (uint32_t i = 0; i < 1000; i++) {
        struct evidence_statement s = rig.statement;
        memcpy(s.nonce, &i, sizeof i);
        memcpy(q.nonce, s.nonce, sizeof q.nonce);
        s.made_ms = (int64_t)i - 500;
        s.boot_log_known = i > 0 && i % 3 != 0;
        s.boot_log = s.boot_log_known ? bytes_of(NULL, 0) : rig.statement.boot_log;
        rig.quote.clock_ms += i % 2;
        rig_attest(&rig, &s, &evidence);
        assert_int_equal(rig_judge(&q, builder_bytes(&evidence), &a), E_OK);
        assert_int_equal(a.status, APPRAISE_AFFIRMING);
        assert_int_equal(a.executables, APPRAISE_BOOT_APPROVED);
        known = a.next;
    }
    assert_int_equal(known.clock_ms, rig.quote.clock_ms);
}

/* If this failed, somebody between gateway and verifier could change what is reported. */
static void no_changed_byte_is_accepted(void **state) {
    struct appraise_question q = rig_question(&rig);
    uint32_t count = 0;
    (void)state;
    rig_attest(&rig, &rig.statement, &evidence);
    assert_int_equal(judge_evidence(&q), E_OK);
    size_t size = evidence.size;
    for (size_t at = 0; at < size; at++) {
        uint8_t before = evidence.data[at];
        for (uint32_t bit = 0; bit < 8; bit++, count++) {
            evidence.data[at] = (uint8_t)(before ^ 1u << bit);
            assert_int_not_equal(judge_evidence(&q), E_OK);
        }
        evidence.data[at] = before;
    }
    for (evidence.size = 0; evidence.size < size; evidence.size++, count++) {
        assert_int_not_equal(judge_evidence(&q), E_OK);
    }
    for (uint32_t extra = 0; extra < 256; extra++, count++) {
        evidence.size = size;
        builder_add_byte(&evidence, (uint8_t)extra);
        assert_int_not_equal(judge_evidence(&q), E_OK);
    }
    evidence.size = size;
    assert_int_equal(judge_evidence(&q), E_OK);
    print_message("%u changed, none accepted\n", count);
    assert_true(count >= 10000);
}

/* If this failed, the second form of a signature would pass as other evidence. */
static void the_other_form_of_a_signature_is_refused(void **state) {
    static const uint8_t order[32] = {0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff,
                                      0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
                                      0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};
    struct appraise_question q = rig_question(&rig);
    uint8_t other[64];
    (void)state;
    rig_attest(&rig, &rig.statement, &evidence);
    uint8_t *signature = evidence.data + evidence.size - 64;
    memcpy(other, signature, sizeof other);
    int borrow = 0;
    for (size_t i = 32; i-- > 0;) {
        int digit = order[i] - signature[32 + i] - borrow;
        borrow = digit < 0;
        other[32 + i] = (uint8_t)digit;
    }
    memcpy(signature, other, sizeof other);
    assert_int_equal(judge_evidence(&q), E_ATTEST_SIGNATURE);
    ecdsa_lower(signature);
    assert_int_equal(judge_evidence(&q), E_OK);
}

/* If this failed, a gateway whose TPM is genuine could pass for another, answer an old question, or report what was not measured. */
static void what_a_genuine_tpm_vouches_for_is_judged(void **state) {
    struct evidence_statement s;
    (void)state;
#define CHANGED(change, wanted)                                                                                                    \
    s = rig.statement;                                                                                                             \
    change;                                                                                                                        \
    assert_int_equal(judge_statement(&s), wanted)
    CHANGED((void)0, E_OK);
    CHANGED(s.nonce[31] ^= 1, E_ATTEST_NONCE);
    CHANGED(s.who.site = bytes_str("plant-8"), E_ATTEST_IDENTITY);
    CHANGED(s.who.node = bytes_str("node2"), E_ATTEST_IDENTITY);
    CHANGED(s.who.raft_id++, E_ATTEST_IDENTITY);
    CHANGED(s.who.signing_key[0] ^= 1, E_ATTEST_IDENTITY);
    CHANGED(s.who.tls_key[31] ^= 1, E_ATTEST_IDENTITY);
    CHANGED(s.type = ATTEST_VTPM, E_ATTEST_TYPE);
    CHANGED(s.key_name[5] ^= 1, E_ATTEST_UNPROVEN);
    CHANGED(s.pcr_mask |= 1u << 8, E_ATTEST_SELECTION);
    CHANGED(s.pcr_mask &= ~1u, E_ATTEST_SELECTION);
    CHANGED(s.pcr[4][0] ^= 1, E_ATTEST_BOOT_LOG);
    CHANGED(s.pcr[14][0] ^= 1, E_ATTEST_START_LOG);
    CHANGED(s.boot_log.size--, E_ATTEST_BOOT_LOG);
    CHANGED(s.boot_log.size -= 75, E_ATTEST_BOOT_LOG); /* its last event */
    CHANGED(s.boot_log.size = 0, E_ATTEST_BOOT_LOG);
    CHANGED((s.boot_log.size = 0, s.boot_log_known = true), E_ATTEST_BOOT_LOG);
    CHANGED(s.start_log.size = 0, E_ATTEST_START_LOG);
    CHANGED(s.start_log.size--, E_ATTEST_START_LOG);
    CHANGED(s.made_ms = INT64_MAX, E_OK); /* for people */
#undef CHANGED
}

/* If this failed, a register that the log does not account for, or an event that nobody knows, would go unseen. */
static void a_log_must_lead_to_the_registers(void **state) {
    struct evidence_statement s = rig.statement;
    struct builder log;
    (void)state;
    builder_init(&log, BOOTLOG_BYTES_MAX);
    builder_add(&log, rig.statement.boot_log);
    uint32_t refused = 0;
    for (size_t at = 0; at < log.size; at++) {
        log.data[at] ^= 0x10;
        s.boot_log = builder_bytes(&log);
        enum grey_error err = judge_statement(&s);
        assert_true(err == E_OK || err == E_ATTEST_BOOT_LOG); /* names of events and their data are not measured */
        refused += err == E_ATTEST_BOOT_LOG;
        log.data[at] ^= 0x10;
    }
    assert_true(refused > 17 * 32); /* at least every byte of every digest */
    rig_boot_event(&log, 4, 4, 0x66, "unknown loader");
    s.boot_log = builder_bytes(&log);
    assert_int_equal(judge_statement(&s), E_ATTEST_BOOT_LOG); /* a longer tail */
    uint8_t digest[32];
    memset(digest, 0x66, sizeof digest);
    bootlog_extend(s.pcr[4], digest);
    assert_int_equal(judge_statement(&s), E_ATTEST_REFERENCE); /* it was measured, and is not known */
    builder_free(&log);
}

/* If this failed, our reading of a boot's log would be another than that of the rest of the world. */
static void another_program_replays_the_log_alike(void **state) {
    char path[] = "/tmp/grey-bootlog-XXXXXX", command[256], hex[2 * 32 + 1];
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, rig.statement.boot_log.data, rig.statement.boot_log.size), rig.statement.boot_log.size);
    assert_int_equal(close(fd), 0);
    for (uint32_t pcr = 1; pcr < 8; pcr++) { /* in 0 it goes wrong over events that extend nothing */
        for (size_t i = 0; i < 32; i++) {
            (void)snprintf(hex + 2 * i, 3, "%02x", rig.statement.pcr[pcr][i]);
        }
        (void)snprintf(command, sizeof command, "tpm2_eventlog %s 2>/dev/null | sed -n '/^pcrs:/,$p' | grep -Eq '^ +%u *: *0x%s$'",
                       path, pcr, hex);
        assert_int_equal(system(command), 0); // NOLINT(cert-env33-c)
    }
    assert_int_equal(unlink(path), 0);
}

static enum grey_error judge_quote(struct builder *statement, struct builder *quote) {
    struct appraise_question q = rig_question(&rig);
    struct evidence e = {.statement = builder_bytes(statement), .quote = builder_bytes(quote)};
    rig_sign(&rig, e.quote, e.signature);
    builder_reset(&evidence);
    evidence_put(&evidence, &e);
    return judge_evidence(&q);
}

/* If this failed, bytes that the key signed but the TPM did not make, or a quote over less, would pass (CVE-2024-29038, -29039). */
static void each_field_of_the_quote_counts(void **state) {
    struct builder statement, quote;
    (void)state;
    builder_init(&statement, ATTEST_STATEMENT_BYTES_MAX);
    builder_init(&quote, TPMWIRE_QUOTE_BYTES_MAX);
    evidence_put_statement(&statement, &rig.statement);
    rig_put_quote(&rig, &rig.statement, builder_bytes(&statement), &quote);
    assert_int_equal(quote.size, 145);
    rig.proven.seen = true, rig.proven.clock_ms = rig.quote.clock_ms, rig.proven.firmware = RIG_FIRMWARE;
    rig.proven.reset_count = rig.quote.reset_count, rig.proven.restart_count = rig.quote.restart_count;
    assert_int_equal(judge_quote(&statement, &quote), E_OK);
    for (size_t at = 0; at < quote.size; at++) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            quote.data[at] ^= (uint8_t)(1u << bit);
            enum grey_error err = judge_quote(&statement, &quote), wanted;
            uint8_t now = quote.data[at];
            bool went_up = ((uint32_t)now >> bit & 1u) != 0;
            switch (at) { /* offsets: see TPMS_ATTEST; each names the first byte of a field */
            case 0 ... 5: /* magic, type */
            case 6 ... 7: /* sizes: the rest does not fit any more */
            case 42 ... 43:
                wanted = E_ATTEST_QUOTE;
                break;
            case 8 ... 41: /* the key's qualified name */
                wanted = E_ATTEST_UNPROVEN;
                break;
            case 44 ... 75: /* extraData */
                wanted = E_ATTEST_BINDING;
                break;
            case 76 ... 83: /* clock */
            case 84 ... 87: /* resets */
            case 88 ... 91: /* restarts */
                wanted = went_up ? E_OK : E_ATTEST_COUNTERS;
                break;
            case 92: /* safe: a yes or no that says how well the clock is kept */
                wanted = now <= 1 ? E_OK : E_ATTEST_QUOTE;
                break;
            case 93 ... 100:
                wanted = E_ATTEST_FIRMWARE;
                break;
            case 101 ... 104: /* number of banks */
                wanted = E_ATTEST_QUOTE;
                break;
            case 105 ... 106: /* bank */
                wanted = E_ATTEST_SELECTION;
                break;
            case 107: /* size of the selection */
                wanted = E_ATTEST_QUOTE;
                break;
            case 108 ... 110: /* selection */
                wanted = E_ATTEST_SELECTION;
                break;
            case 111 ... 112:
                wanted = E_ATTEST_QUOTE;
                break;
            default:
                wanted = E_ATTEST_PCR;
            }
            if (err != wanted) {
                fail_msg("byte %zu, bit %u: %s instead of %s", at, bit, err == E_OK ? "accepted" : error_name(err),
                         wanted == E_OK ? "accepted" : error_name(wanted));
            }
            quote.data[at] ^= (uint8_t)(1u << bit);
        }
    }
    rig.proven.seen = false;
    builder_free(&quote);
    builder_free(&statement);
}

/* If this failed, software could stand in for a TPM, or one gateway's evidence for another's. */
static void keys_that_were_not_proven_are_refused(void **state) {
    struct appraise_question q = rig_question(&rig);
    struct attested other = rig.proven;
    struct rig stranger;
    (void)state;
    rig_attest(&rig, &rig.statement, &evidence);
    q.known = NULL;
    assert_int_equal(judge_evidence(&q), E_ATTEST_UNPROVEN);
    q.known = &other;
    other.key.name[33] ^= 1;
    assert_int_equal(judge_evidence(&q), E_ATTEST_UNPROVEN);
    other = rig.proven;
    other.type = ATTEST_VTPM; /* what was proven as a virtual TPM does not become a chip */
    assert_int_equal(judge_evidence(&q), E_ATTEST_TYPE);
    rig_init(&stranger);
    rig_attest(&stranger, &stranger.statement, &evidence); /* the right name, another key */
    q = rig_question(&rig);
    assert_int_equal(judge_evidence(&q), E_ATTEST_SIGNATURE);
    rig_free(&stranger);
}

/* If this failed, a TPM that was set back to an old state, or whose firmware was exchanged, would pass. */
static void the_tpm_does_not_go_back(void **state) {
    struct appraise_question q = rig_question(&rig);
    struct attested known = rig.proven;
    struct tpmwire_quote before = rig.quote;
    (void)state;
    q.known = &known;
    known.seen = true, known.policy_serial = 5, known.clock_ms = before.clock_ms, known.firmware = RIG_FIRMWARE;
    known.reset_count = before.reset_count, known.restart_count = before.restart_count;
#define QUOTED(change, wanted)                                                                                                     \
    rig.quote = before;                                                                                                            \
    change;                                                                                                                        \
    rig_attest(&rig, &rig.statement, &evidence);                                                                                   \
    assert_int_equal(judge_evidence(&q), wanted)
    QUOTED((void)0, E_OK);
    QUOTED(rig.quote.clock_ms--, E_ATTEST_COUNTERS);
    QUOTED(rig.quote.restart_count--, E_ATTEST_COUNTERS);
    QUOTED((rig.quote.restart_count--, rig.quote.clock_ms++), E_ATTEST_COUNTERS);
    QUOTED((rig.quote.reset_count--, rig.quote.restart_count++, rig.quote.clock_ms++), E_ATTEST_COUNTERS);
    QUOTED((rig.quote.reset_count++, rig.quote.restart_count = 0, rig.quote.clock_ms -= 5), E_OK);
    QUOTED(rig.quote.firmware++, E_ATTEST_FIRMWARE);
    QUOTED((rig.quote.firmware++, rig.quote.reset_count++), E_ATTEST_FIRMWARE);
    rig.policy.firmware_count = 0; /* any, but not without a start */
    QUOTED(rig.quote.firmware++, E_ATTEST_FIRMWARE);
    QUOTED((rig.quote.firmware++, rig.quote.reset_count++), E_OK);
    rig.policy.firmware_count = 1;
    known.policy_serial = 6; /* an older policy than was in force */
    QUOTED((void)0, E_ATTEST_POLICY);
#undef QUOTED
    rig.quote = before;
}

/* If this failed, a policy could not be rolled out: updates would shut gateways out, or old versions would stay good. */
static void a_policy_announces_and_withdraws(void **state) {
    struct appraise_question q = rig_question(&rig);
    uint8_t next[32], base[32];
    struct appraisal a;
    (void)state;
    memset(next, 0x34, sizeof next);
    memcpy(base, rig.statement.pcr[STARTLOG_PCR], sizeof base);
    rig_start(&rig, "0.2.0", 0x34); /* updated, not started anew: both starts are in the log */
    rig_attest(&rig, &rig.statement, &evidence);
    assert_int_equal(rig_judge(&q, builder_bytes(&evidence), &a), E_ATTEST_REFERENCE);
    assert_int_equal(a.strange_count, 1);
    assert_int_equal(a.strange[0].kind, REFERENCE_PROGRAM);
    assert_memory_equal(a.strange[0].digest, next, sizeof next);
    rig_accept(&rig, REFERENCE_PROGRAM, STARTLOG_PCR, next);
    struct reference_value *announced = &rig.policy.values[rig.policy.value_count - 1], *old = announced - 2;
    announced->from_ms = RIG_NOW_MS + 1;
    assert_int_equal(judge_evidence(&q), E_ATTEST_REFERENCE); /* not yet */
    announced->from_ms = RIG_NOW_MS;
    assert_int_equal(judge_evidence(&q), E_OK);
    old->until_ms = RIG_NOW_MS - 5; /* withdrawn: it ran before, and does not run now */
    assert_int_equal(judge_evidence(&q), E_OK);
    announced->until_ms = RIG_NOW_MS + 1;
    assert_int_equal(judge_evidence(&q), E_OK);
    announced->from_ms = RIG_NOW_MS - 9, announced->until_ms = RIG_NOW_MS;
    assert_int_equal(judge_evidence(&q), E_ATTEST_REFERENCE);
}

/* If this failed, what was learnt in the lab would not hold in the field, or learning would pass for knowing. */
static void what_was_learnt_is_held_against_the_gateway(void **state) {
    struct appraise_question q = rig_question(&rig);
    struct attested known;
    struct appraisal a;
    (void)state;
    rig_attest(&rig, &rig.statement, &evidence);
    rig.policy.value_count = 0;
    rig.policy.learn = true;
    assert_int_equal(rig_judge(&q, builder_bytes(&evidence), &a), E_OK);
    assert_int_equal(a.status, APPRAISE_WARNING);
    assert_int_equal(a.strange_count, 8 + 2 * 2); /* registers, two starts */
    known = a.next;
    q.known = &known;
    assert_int_equal(rig_judge(&q, builder_bytes(&evidence), &a), E_OK);
    assert_int_equal(a.status, APPRAISE_WARNING);
    rig_free(&rig);
    rig_init(&rig);
    memcpy(known.key.point, rig.proven.key.point, sizeof known.key.point);
    rig.policy.value_count = 0;
    rig.policy.serial = 6;
    memset(known.program, 0x33, sizeof known.program);
    known.clock_ms = 0;
    rig_attest(&rig, &rig.statement, &evidence);
    assert_int_equal(rig_judge(&q, builder_bytes(&evidence), &a), E_OK);
    assert_int_equal(a.status, APPRAISE_AFFIRMING);
    known.pcr[7][0] ^= 1;
    assert_int_equal(rig_judge(&q, builder_bytes(&evidence), &a), E_ATTEST_REFERENCE);
    q.known = &rig.proven; /* nothing learnt, nothing named */
    assert_int_equal(rig_judge(&q, builder_bytes(&evidence), &a), E_ATTEST_REFERENCE);
}

/* If this failed, boards whose boot order changes could not be judged by what they started. */
static void events_may_be_named_instead_of_values(void **state) {
    struct appraise_question q;
    uint8_t digest[32];
    (void)state;
    rig_free(&rig);
    rig_init(&rig);
    rig.policy.values[4] = (struct reference_value){.kind = REFERENCE_EVENT, .pcr = 4, .until_ms = -1};
    memset(rig.policy.values[4].digest, 0x14, 32);
    q = rig_question(&rig);
    rig_attest(&rig, &rig.statement, &evidence);
    assert_int_equal(judge_evidence(&q), E_ATTEST_REFERENCE); /* the separator is not named */
    memset(digest, 0, sizeof digest);
    rig_accept(&rig, REFERENCE_EVENT, 4, digest);
    assert_int_equal(judge_evidence(&q), E_OK);
}

/* If this failed, machines without a TPM could not take part where that is allowed, or would where it is not. */
static void other_types_are_judged_by_their_own_rules(void **state) {
    uint8_t node_public[32], node_secret[64], signer[1][32], signer_secret[64];
    struct builder document, statement;
    struct appraisal a;
    (void)state;
    keys_new_ed25519(node_public, node_secret);
    keys_new_ed25519(signer[0], signer_secret);
    struct appraise_question q = rig_question(&rig);
    q.known = NULL;
    memcpy(q.who.signing_key, node_public, 32);
    struct evidence_statement s = {.type = ATTEST_NONE, .who = q.who};
    memcpy(s.nonce, q.nonce, sizeof s.nonce);
    builder_init(&statement, ATTEST_STATEMENT_BYTES_MAX);
    builder_init(&document, ATTEST_DOCUMENT_BYTES_MAX);
#define SIGNED(wanted)                                                                                                             \
    do {                                                                                                                           \
        struct evidence e;                                                                                                         \
        builder_reset(&statement);                                                                                                 \
        evidence_put_statement(&statement, &s);                                                                                    \
        e.statement = builder_bytes(&statement);                                                                                   \
        e.quote = bytes_of(NULL, 0);                                                                                               \
        evidence_sign(e.statement, node_secret, e.signature);                                                                      \
        builder_reset(&evidence);                                                                                                  \
        evidence_put(&evidence, &e);                                                                                               \
        assert_int_equal(appraise(&q, builder_bytes(&evidence), &a, NULL), wanted);                                                \
    } while (0)
    SIGNED(E_ATTEST_TYPE);
    rig.policy.types |= 1u << ATTEST_NONE | 1u << ATTEST_INSTANCE;
    SIGNED(E_OK);
    assert_int_equal(a.status, APPRAISE_NO_CLAIM);
    evidence.data[evidence.size - 1] ^= 1;
    assert_int_equal(appraise(&q, builder_bytes(&evidence), &a, NULL), E_ATTEST_SIGNATURE);
    q.known = &rig.proven; /* a gateway with a TPM does not get away without it */
    SIGNED(E_ATTEST_TYPE);
    q.known = NULL;
    s.type = ATTEST_INSTANCE;
    SIGNED(E_ATTEST_DOCUMENT);
    struct document d = {.instance = bytes_str("i-0abc"),
                         .site = q.who.site,
                         .node = q.who.node,
                         .from_s = RIG_NOW_MS / 1000 - 10,
                         .until_s = RIG_NOW_MS / 1000 + 1};
    memcpy(d.signing_key, node_public, 32);
    assert_int_equal(document_sign(&document, &d, signer[0], signer_secret), E_OK);
    s.document = builder_bytes(&document);
    SIGNED(E_ATTEST_DOCUMENT); /* nobody may sign documents yet */
    q.document_keys = (const uint8_t(*)[32])signer, q.document_key_count = 1;
    SIGNED(E_OK);
    assert_int_equal(a.status, APPRAISE_AFFIRMING);
    assert_int_equal(a.hardware, APPRAISE_NO_CLAIM);
    q.now_ms += 1000;
    SIGNED(E_ATTEST_DOCUMENT);
    q.now_ms -= 1000;
    document.data[document.size / 2] ^= 1;
    SIGNED(E_ATTEST_DOCUMENT);
    builder_reset(&document);
    d.node = bytes_str("node2");
    assert_int_equal(document_sign(&document, &d, signer[0], signer_secret), E_OK);
    s.document = builder_bytes(&document);
    SIGNED(E_ATTEST_DOCUMENT);
#undef SIGNED
    builder_free(&document);
    builder_free(&statement);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(genuine_evidence_is_accepted_a_thousand_times),
                                       cmocka_unit_test(no_changed_byte_is_accepted),
                                       cmocka_unit_test(the_other_form_of_a_signature_is_refused),
                                       cmocka_unit_test(what_a_genuine_tpm_vouches_for_is_judged),
                                       cmocka_unit_test(a_log_must_lead_to_the_registers),
                                       cmocka_unit_test(another_program_replays_the_log_alike),
                                       cmocka_unit_test(each_field_of_the_quote_counts),
                                       cmocka_unit_test(keys_that_were_not_proven_are_refused),
                                       cmocka_unit_test(the_tpm_does_not_go_back),
                                       cmocka_unit_test(a_policy_announces_and_withdraws),
                                       cmocka_unit_test(what_was_learnt_is_held_against_the_gateway),
                                       cmocka_unit_test(events_may_be_named_instead_of_values),
                                       cmocka_unit_test(other_types_are_judged_by_their_own_rules)};
    rig_open_cases(argc, argv);
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    return rig_cases != NULL && fclose(rig_cases) != 0 ? 1 : failed;
}
