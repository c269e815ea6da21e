/* Attestation by a TPM, the whole way: a software TPM proves its key, quotes, and the verifier's code judges it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/identity/prove.h"
#include "federation/attest/inquiry.h"
#include "federation/attest/verdict.h"
#include "platform/ecdsa.h"
#include "tests/unit/swtpm_rig.h"

#define NOW_S INT64_C(1900000000)
#define MASK 0x40ffu /* 0 to 7, and the log of starts in 14 */

static struct swtpm machines[2];
static struct tpm *tpms[2];
static char *roots;
static struct attested proven;
static struct reference policy;
static uint8_t start_log_room[256];
static struct bytes start_log;

static struct attest_identity who(void) {
    struct attest_identity out = {.site = bytes_str("plant-7"), .node = bytes_str("node1"), .raft_id = 77};
    memset(out.signing_key, 0x11, sizeof out.signing_key);
    memset(out.tls_key, 0x22, sizeof out.tls_key);
    return out;
}

static enum grey_error introduce_from(struct tpm *introducer, struct tpm *answerer, struct attested *out) {
    struct builder message;
    struct introduction i;
    struct introduce_pending pending;
    struct credential challenge;
    struct attest_identity expected = who();
    uint8_t random[INTRODUCE_RANDOM_BYTES], secret[CREDENTIAL_SECRET_BYTES];
    const char *const makers[ATTEST_TYPES] = {[ATTEST_TPM2] = roots};
    struct fault f;
    keys_random(random, sizeof random);
    builder_init(&message, INTRODUCE_BYTES_MAX);
    assert_int_equal(prove_introduce(introducer, TPM_KEY_HANDLE, ATTEST_TPM2, &expected, &message, &f), E_OK);
    assert_int_equal(introduce_get(builder_bytes(&message), &i), E_OK);
    assert_int_equal(introduce_judge(&i, &expected, makers, NOW_S, random, &pending, &challenge, &f), E_OK);
    builder_free(&message);
    enum grey_error err = tpm_activate(answerer, TPM_KEY_HANDLE, &challenge, secret, &f);
    return err != E_OK ? err : introduce_accept(&pending, bytes_of(secret, sizeof secret), out, &f);
}

/* The first start of the agent on the first machine, measured as the launcher does it. */
static void start_agent(void) {
    struct startlog_start start = {.version = bytes_str("0.1.0")};
    uint8_t digest[DIGEST_SHA256_BYTES];
    struct builder log;
    struct fault f;
    memset(start.program, 0x33, sizeof start.program);
    memset(start.config, 0x44, sizeof start.config);
    builder_init(&log, sizeof start_log_room);
    assert_int_equal(startlog_add(bytes_of(NULL, 0), &start, &log), E_OK);
    memcpy(start_log_room, log.data, log.size);
    start_log = bytes_of(start_log_room, log.size);
    builder_free(&log);
    startlog_measure(&start, digest);
    assert_int_equal(tpm_extend(tpms[0], STARTLOG_PCR, digest, &f), E_OK);
    policy = (struct reference){
        .name = bytes_str("lab"), .serial = 1, .learn = true, .types = 1u << ATTEST_TPM2, .pcr_mask = MASK, .validity_s = 3600};
}

static int set_up(void **state) {
    struct fault f;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        swtpm_start(&machines[i]);
        tpms[i] = tpm_open(machines[i].way, &f);
        if (tpms[i] == NULL) {
            print_error("%s\n", f.text);
            return -1;
        }
    }
    roots = swtpm_roots();
    start_agent();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        tpm_close(tpms[i]);
        swtpm_stop(&machines[i]);
    }
    swtpm_remove_authority();
    free(roots);
    return 0;
}

static struct appraise_question question(uint8_t nonce) {
    struct appraise_question q = {.who = who(), .policy = &policy, .known = &proven, .now_ms = NOW_S * 1000};
    memset(q.nonce, nonce, sizeof q.nonce);
    return q;
}

static void answer(struct tpm *t, const struct appraise_question *q, struct builder *out) {
    struct prove_question p = {
        .type = ATTEST_TPM2, .who = q->who, .pcr_mask = q->policy->pcr_mask, .start_log = start_log, .now_ms = q->now_ms};
    struct fault f = {.text = ""};
    memcpy(p.nonce, q->nonce, sizeof p.nonce);
    builder_reset(out);
    if (prove_evidence(t, TPM_KEY_HANDLE, &p, out, &f) != E_OK) {
        fail_msg("%s: %s", error_name(f.code), f.text);
    }
}

/* If this failed, a gateway with a genuine TPM could not enrol, or one whose key lives elsewhere could. */
static void a_key_is_proven_by_its_own_tpm_only(void **state) {
    struct attested other;
    (void)state;
    assert_int_equal(introduce_from(tpms[0], tpms[0], &proven), E_OK);
    assert_int_equal(proven.type, ATTEST_TPM2);
    assert_int_equal(introduce_from(tpms[0], tpms[1], &other), E_NOT_FOUND);
    assert_int_equal(introduce_from(tpms[1], tpms[1], &other), E_OK);
    assert_int_equal(introduce_from(tpms[0], tpms[1], &other), E_ATTEST_UNPROVEN);
    assert_memory_not_equal(other.endorsement, proven.endorsement, sizeof other.endorsement);
}

/* If this failed, no gateway would ever be trusted, or its result would not convince the others. */
static void genuine_evidence_becomes_a_result(void **state) {
    struct appraise_question q = question(1);
    struct appraisal a;
    struct builder b, result;
    struct fault f = {.text = ""};
    struct verdict v, read;
    uint8_t public_key[1][KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
    (void)state;
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    builder_init(&result, VERDICT_BYTES_MAX);
    answer(tpms[0], &q, &b);
    if (appraise(&q, builder_bytes(&b), &a, &f) != E_OK) {
        fail_msg("%s: %s", error_name(f.code), f.text);
    }
    assert_int_equal(a.status, APPRAISE_WARNING); /* the policy learns */
    assert_true(a.next.seen);
    proven = a.next;
    keys_new_ed25519(public_key[0], secret_key);
    v = verdict_of(bytes_str("core-1"), &q, &a);
    assert_int_equal(verdict_sign(&result, &v, public_key[0], secret_key), E_OK);
    assert_int_equal(verdict_open(builder_bytes(&result), public_key, 1, NOW_S + 3599, &read, &f), E_OK);
    assert_true(attest_identity_equal(&read.who, &v.who));
    print_message("evidence of %zu bytes, result of %zu\n", b.size, result.size);
    assert_int_equal(verdict_open(builder_bytes(&result), public_key, 1, NOW_S + 3600, &read, &f), E_ATTEST_EXPIRED);
    builder_free(&result);
    builder_free(&b);
}

static enum grey_error judge(const struct appraise_question *q, struct bytes evidence) {
    struct appraisal a;
    struct fault f = {.text = ""};
    return appraise(q, evidence, &a, &f);
}

/* If this failed, gateways would lose their TPM to leaked objects within days, or be refused although nothing is wrong. */
static void a_thousand_quotes_leave_nothing_behind(void **state) {
    uint32_t objects, sessions;
    struct builder b;
    struct fault f;
    (void)state;
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    for (uint32_t i = 0; i < 1000; i++) {
        struct appraise_question q = question((uint8_t)i);
        struct appraisal a;
        answer(tpms[0], &q, &b);
        assert_int_equal(appraise(&q, builder_bytes(&b), &a, &f), E_OK);
        proven = a.next;
    }
    assert_int_equal(introduce_from(tpms[0], tpms[1], &proven), E_ATTEST_UNPROVEN); /* failures leave nothing either */
    assert_int_equal(introduce_from(tpms[0], tpms[0], &proven), E_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(tpm_count_left(tpms[i], &objects, &sessions, &f), E_OK);
        assert_int_equal(objects, 0);
        assert_int_equal(sessions, 0);
    }
    builder_free(&b);
}

/* If this failed, a recorded answer, or one to another question, would pass. */
static void an_old_answer_is_refused(void **state) {
    struct appraise_question q = question(9);
    struct builder b;
    (void)state;
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    answer(tpms[0], &q, &b);
    assert_int_equal(judge(&q, builder_bytes(&b)), E_OK);
    q.nonce[0] ^= 1;
    assert_int_equal(judge(&q, builder_bytes(&b)), E_ATTEST_NONCE);
    builder_free(&b);
}

/* If this failed, another gateway's TPM could answer for this one. */
static void another_tpm_is_refused(void **state) {
    struct appraise_question q = question(10);
    struct builder b;
    (void)state;
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    answer(tpms[1], &q, &b);
    assert_int_equal(judge(&q, builder_bytes(&b)), E_ATTEST_UNPROVEN);
    builder_free(&b);
}

static void run_tools(char *script) {
    char *command =
        swtpm_text("cd %s && export TPM2TOOLS_TCTI=%s && (%s) >tools.log 2>&1", machines[0].folder, machines[0].way, script);
    int status = swtpm_run(command);
    if (status != 0) {
        (void)swtpm_run(swtpm_text("cat %s/tools.log", machines[0].folder));
        fail_msg("tpm2-tools: status %d in: %s", status, script);
    }
    free(script);
}

static struct bytes read_file(const char *name, uint8_t *room, size_t size) {
    char *path = swtpm_text("%s/%s", machines[0].folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t got = fread(room, 1, size, file);
    assert_int_equal(fclose(file), 0);
    free(path);
    return bytes_of(room, got);
}

static void write_file(const char *name, struct bytes b) {
    char *path = swtpm_text("%s/%s", machines[0].folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fwrite(b.data, 1, b.size, file) == b.size && fclose(file) == 0);
    free(path);
}

/* Evidence around a statement of the first machine, with quote and signature as tpm2-tools left them in files. */
static void wrap_tools(struct bytes statement, const char *quote, const char *signature, struct builder *out) {
    uint8_t quote_room[TPMWIRE_QUOTE_BYTES_MAX], signature_room[256];
    struct evidence e = {.statement = statement, .quote = read_file(quote, quote_room, sizeof quote_room)};
    assert_int_equal(tpmwire_signature(read_file(signature, signature_room, sizeof signature_room), e.signature), E_OK);
    ecdsa_lower(e.signature);
    builder_reset(out);
    evidence_put(out, &e);
}

/* If this failed, our verifier would take only our own gateways' word for what a quote is; or a forged one that the genuine key signed, as
 * Debian 12's tpm2_checkquote does (CVE-2024-29038). */
static void quotes_by_tpm2_tools_are_judged_alike(void **state) {
    struct appraise_question q = question(11);
    struct evidence ours;
    struct builder b, forged;
    uint8_t qualify[DIGEST_SHA256_BYTES], quote[TPMWIRE_QUOTE_BYTES_MAX];
    char hex[2 * DIGEST_SHA256_BYTES + 1];
    (void)state;
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    builder_init(&forged, ATTEST_EVIDENCE_BYTES_MAX);
    answer(tpms[0], &q, &b);
    assert_int_equal(evidence_get(builder_bytes(&b), &ours), E_OK);
    evidence_qualify(ours.statement, qualify);
    for (size_t i = 0; i < sizeof qualify; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", qualify[i]);
    }
    run_tools(swtpm_text("tpm2_quote -Q -c 0x%x -l sha256:0,1,2,3,4,5,6,7,14 -q %s -m q.msg -s q.sig -f tss", TPM_KEY_HANDLE, hex));
    wrap_tools(ours.statement, "q.msg", "q.sig", &forged);
    assert_int_equal(judge(&q, builder_bytes(&forged)), E_OK);
    /* fewer registers, another bank, none */
    run_tools(swtpm_text("tpm2_quote -Q -c 0x%x -l sha256:0,1,2,3,4,5,6,7 -q %s -m q.msg -s q.sig -f tss", TPM_KEY_HANDLE, hex));
    wrap_tools(ours.statement, "q.msg", "q.sig", &forged);
    assert_int_equal(judge(&q, builder_bytes(&forged)), E_ATTEST_SELECTION);
    run_tools(swtpm_text("tpm2_quote -Q -c 0x%x -l sha256:0,1,2,3,4,5,6,7,14+sha1:0 -q %s -m q.msg -s q.sig -f tss", TPM_KEY_HANDLE,
                         hex));
    wrap_tools(ours.statement, "q.msg", "q.sig", &forged);
    assert_int_equal(judge(&q, builder_bytes(&forged)), E_ATTEST_SELECTION);
    /* the genuine restricted key signs what somebody wrote, as long as it does not begin with the TPM's mark */
    memcpy(quote, ours.quote.data, ours.quote.size);
    quote[3] ^= 1;
    write_file("f.msg", bytes_of(quote, ours.quote.size));
    run_tools(
        swtpm_text("tpm2_hash -C e -g sha256 -t f.ticket -o f.hash f.msg && tpm2_sign -Q -c 0x%x -g sha256 -s ecdsa -d -t f.ticket "
                   "-o f.sig f.hash",
                   TPM_KEY_HANDLE));
    wrap_tools(ours.statement, "f.msg", "f.sig", &forged);
    assert_int_equal(judge(&q, builder_bytes(&forged)), E_ATTEST_QUOTE);
    builder_free(&forged);
    builder_free(&b);
}

/* If this failed, a key that signs anything could be enrolled as one that signs only what its TPM measured. */
static void keys_that_sign_anything_cannot_be_proven(void **state) {
    struct attest_identity expected = who();
    struct introduction i;
    struct introduce_pending pending;
    struct credential challenge;
    struct builder message;
    uint8_t area[TPM_PUBLIC_BYTES_MAX], random[INTRODUCE_RANDOM_BYTES] = {1};
    const char *const makers[ATTEST_TYPES] = {[ATTEST_TPM2] = roots};
    struct fault f;
    (void)state;
    builder_init(&message, INTRODUCE_BYTES_MAX);
    assert_int_equal(prove_introduce(tpms[0], TPM_KEY_HANDLE, ATTEST_TPM2, &expected, &message, &f), E_OK);
    assert_int_equal(introduce_get(builder_bytes(&message), &i), E_OK);
    static const char *const attributes[] = {"fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign",
                                             "sensitivedataorigin|userwithauth|restricted|sign"};
    for (size_t which = 0; which < 2; which++) {
        run_tools(swtpm_text(
            "tpm2_createprimary -Q -C o -c p.ctx && tpm2_create -Q -C p.ctx -G ecc256:ecdsa-sha256:null -a '%s' -u k.pub "
            "-r k.priv && tpm2_flushcontext -t",
            attributes[which]));
        struct bytes all = read_file("k.pub", area, sizeof area); /* TPM2B_PUBLIC */
        i.key = bytes_of(all.data + 2, all.size - 2);
        assert_int_equal(introduce_judge(&i, &expected, makers, NOW_S, random, &pending, &challenge, &f), E_ATTEST_KEY);
    }
    expected.raft_id++;
    assert_int_equal(introduce_judge(&i, &expected, makers, NOW_S, random, &pending, &challenge, &f), E_ATTEST_IDENTITY);
    builder_free(&message);
}

/* If this failed, somebody who changed what runs on a gateway would not be noticed. */
static void a_changed_register_is_found(void **state) {
    struct appraise_question q = question(12);
    struct appraisal a;
    struct builder b;
    struct fault f;
    uint8_t digest[DIGEST_SHA256_BYTES] = {7};
    (void)state;
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    answer(tpms[0], &q, &b);
    assert_int_equal(appraise(&q, builder_bytes(&b), &a, &f), E_OK);
    proven = a.next;
    policy.learn = false;
    policy.serial++;
    assert_int_equal(judge(&q, builder_bytes(&b)), E_OK); /* as it was learnt */
    assert_int_equal(tpm_extend(tpms[0], 4, digest, &f), E_OK);
    answer(tpms[0], &q, &b);
    assert_int_equal(judge(&q, builder_bytes(&b)), E_ATTEST_REFERENCE);
    assert_int_equal(tpm_extend(tpms[0], STARTLOG_PCR, digest, &f), E_OK); /* a start that is not in the log */
    answer(tpms[0], &q, &b);
    assert_int_equal(judge(&q, builder_bytes(&b)), E_ATTEST_REFERENCE);
    policy.learn = true;
    assert_int_equal(judge(&q, builder_bytes(&b)), E_ATTEST_START_LOG);
    builder_free(&b);
}

/* If this failed, a gateway would not be trusted any more after a power cut, or its key would be gone. */
static void a_restart_is_survived_and_an_old_state_is_not(void **state) {
    struct appraise_question q = question(13);
    struct appraisal a;
    struct builder b;
    struct fault f;
    (void)state;
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    tpm_close(tpms[0]);
    swtpm_end(&machines[0]);
    assert_int_equal(swtpm_run(swtpm_text("cp %s/tpm2-00.permall %s/kept", machines[0].folder, machines[0].folder)), 0);
    for (uint32_t boot = 0; boot < 3; boot++) {
        swtpm_boot(&machines[0]);
        tpms[0] = tpm_open(machines[0].way, &f);
        assert_non_null(tpms[0]);
        start_log = bytes_of(start_log_room, 0);
        start_agent();
        answer(tpms[0], &q, &b);
        if (boot < 2) {
            assert_int_equal(appraise(&q, builder_bytes(&b), &a, &f), E_OK);
            assert_true(a.next.reset_count > proven.reset_count);
            proven = a.next;
            tpm_close(tpms[0]);
            swtpm_end(&machines[0]);
        } else {
            assert_int_equal(judge(&q, builder_bytes(&b)), E_ATTEST_COUNTERS);
        }
        if (boot == 1) { /* the TPM of two starts ago: whoever copies a virtual one's state does this */
            assert_int_equal(swtpm_run(swtpm_text("cp %s/kept %s/tpm2-00.permall", machines[0].folder, machines[0].folder)), 0);
        }
    }
    builder_free(&b);
}

/* If this failed, a key sealed to the TPM would be lost, or given out on a machine that was tampered with or is another one. */
static void what_is_sealed_opens_here_and_now_only(void **state) {
    struct builder blob, secret;
    uint32_t objects, sessions;
    uint8_t digest[DIGEST_SHA256_BYTES] = {9};
    struct fault f;
    (void)state;
    builder_init(&blob, 2048);
    builder_init(&secret, 256);
    assert_int_equal(tpm_seal(tpms[1], 1u << 7 | 1u << 11, bytes_str("the signing key of a gateway, 64 bytes"), &blob, &f), E_OK);
    assert_int_equal(tpm_unseal(tpms[1], builder_bytes(&blob), &secret, &f), E_OK);
    assert_true(bytes_equal_str(builder_bytes(&secret), "the signing key of a gateway, 64 bytes"));
    assert_int_equal(tpm_unseal(tpms[0], builder_bytes(&blob), &secret, &f), E_CORRUPT);
    assert_int_equal(tpm_unseal(tpms[1], bytes_of(blob.data, blob.size - 1), &secret, &f), E_CORRUPT);
    blob.data[blob.size - 1] ^= 1;
    assert_int_equal(tpm_unseal(tpms[1], builder_bytes(&blob), &secret, &f), E_CORRUPT);
    blob.data[blob.size - 1] ^= 1;
    blob.data[2] ^= 8; /* fewer registers: another policy than it was sealed with */
    assert_int_equal(tpm_unseal(tpms[1], builder_bytes(&blob), &secret, &f), E_SEAL);
    blob.data[2] ^= 8;
    assert_int_equal(tpm_extend(tpms[1], 11, digest, &f), E_OK);
    assert_int_equal(tpm_unseal(tpms[1], builder_bytes(&blob), &secret, &f), E_SEAL);
    assert_int_equal(tpm_seal(tpms[1], 0, bytes_str("x"), &blob, &f), E_TOO_LARGE);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(tpm_count_left(tpms[i], &objects, &sessions, &f), E_OK);
        assert_int_equal(objects + sessions, 0);
    }
    builder_free(&secret);
    builder_free(&blob);
}

/* --- the program -------------------------------------------------------------------------------------------------------------------------- */

static const char *grey_tpm; /* its path */

static int run_program(const char *arguments) {
    return swtpm_run(
        swtpm_text("cd %s && %s --tpm %s %s 2>>program.log", machines[1].folder, grey_tpm, machines[1].way, arguments));
}

static enum grey_error judge_program(const struct appraise_question *q, struct appraisal *a) {
    struct inquiry ask = {.pcr_mask = q->policy->pcr_mask};
    struct inquiry_order order = {.type = ATTEST_TPM2, .who = q->who};
    struct builder inside, b;
    struct fault f = {.text = ""};
    char *path = swtpm_text("%s/order", machines[1].folder);
    memcpy(ask.nonce, q->nonce, sizeof ask.nonce);
    builder_init(&inside, INQUIRY_BYTES_MAX);
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    inquiry_put(&inside, &ask);
    order.inquiry = builder_bytes(&inside);
    inquiry_put_order(&b, &order);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fwrite(b.data, 1, b.size, file) == b.size && fclose(file) == 0);
    free(path);
    assert_int_equal(run_program("--boot-log none --start-log starts quote <order >evidence"), 0);
    path = swtpm_text("%s/evidence", machines[1].folder);
    file = fopen(path, "r");
    assert_non_null(file);
    builder_reset(&b);
    uint8_t *room = builder_room(&b, 4096);
    size_t size = fread(room, 1, 4096, file);
    assert_int_equal(fclose(file), 0);
    free(path);
    enum grey_error err = appraise(q, bytes_of(room, size), a, &f);
    builder_free(&inside);
    builder_free(&b);
    return err;
}

static const char measure[] =
    "--boot-log none --start-log starts --program /bin/true --measured-config config --program-version 1.2.3 "
    "measure -- sh -c 'echo started >>started'";

/* If this failed, the agent would not start on a machine with a TPM, or its starts would not be accounted for, also after a power cut in the
 * middle of one. */
static void the_program_measures_starts_and_proves_them(void **state) {
    struct appraise_question q = question(14);
    struct attested known;
    struct appraisal a;
    uint8_t log[256];
    char *path = swtpm_text("%s/starts", machines[1].folder);
    (void)state;
    policy.learn = true;
    assert_int_equal(introduce_from(tpms[1], tpms[1], &known), E_OK);
    q.known = &known;
    assert_int_equal(run_program("status >status && grep -q '^register 23 ' status && printf 'site: {}' >config"), 0);
    assert_int_equal(run_program(measure), 0);
    assert_int_equal(judge_program(&q, &a), E_OK);
    assert_int_equal(run_program(measure), 0);
    assert_int_equal(judge_program(&q, &a), E_OK);
    assert_int_equal(swtpm_run(swtpm_text("cd %s && test $(wc -l <started) = 2 && cp starts kept", machines[1].folder)), 0);
    /* the power goes after the log was written and before the register is extended */
    struct startlog_start start = {.version = bytes_str("1.2.3")};
    struct builder longer;
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    struct bytes before = bytes_of(log, fread(log, 1, sizeof log, file));
    builder_init(&longer, STARTLOG_BYTES_MAX);
    assert_int_equal(startlog_add(before, &start, &longer), E_OK);
    rewind(file);
    assert_true(fwrite(longer.data, 1, longer.size, file) == longer.size && fclose(file) == 0);
    builder_free(&longer);
    assert_int_equal(judge_program(&q, &a), E_ATTEST_START_LOG);
    assert_int_equal(run_program(measure), 0);
    assert_int_equal(judge_program(&q, &a), E_OK);
    /* somebody takes a start off the log: it stays found out */
    assert_int_equal(swtpm_run(swtpm_text("cd %s && cp kept starts", machines[1].folder)), 0);
    assert_int_equal(judge_program(&q, &a), E_ATTEST_START_LOG);
    assert_int_equal(run_program(measure), 0);
    assert_int_equal(judge_program(&q, &a), E_ATTEST_START_LOG);
    assert_int_equal(swtpm_run(swtpm_text("cd %s && test $(wc -l <started) = 4", machines[1].folder)), 0);
    free(path);
}

/* If this failed, a boot would inherit the last one's log and be refused. */
static void a_boot_begins_its_own_log(void **state) {
    struct appraise_question q = question(15);
    struct attested known;
    struct appraisal a;
    struct fault f;
    (void)state;
    tpm_close(tpms[1]);
    swtpm_end(&machines[1]);
    swtpm_boot(&machines[1]);
    tpms[1] = tpm_open(machines[1].way, &f);
    assert_non_null(tpms[1]);
    assert_int_equal(introduce_from(tpms[1], tpms[1], &known), E_OK);
    q.known = &known;
    assert_int_equal(run_program(measure), 0);
    assert_int_equal(judge_program(&q, &a), E_OK);
    assert_int_equal(run_program("forget"), 0);
    assert_int_equal(introduce_from(tpms[1], tpms[1], &known), E_OK); /* a new key */
    assert_int_equal(judge_program(&q, &a), E_OK);
}

/* If this failed, TPMs whose maker keeps no endorsement key in them could not be used. */
static void the_endorsement_key_is_made_when_it_is_not_kept(void **state) {
    struct attested known;
    uint32_t objects, sessions;
    struct fault f;
    (void)state;
    run_tools(swtpm_text("tpm2_evictcontrol -C o -c 0x81010001 && tpm2_evictcontrol -C o -c 0x%x", TPM_KEY_HANDLE));
    assert_int_equal(introduce_from(tpms[0], tpms[0], &known), E_OK);
    assert_int_equal(tpm_count_left(tpms[0], &objects, &sessions, &f), E_OK);
    assert_int_equal(objects + sessions, 0);
}

int main(void) {
    char *path = realpath("/proc/self/exe", NULL);
    assert_non_null(path);
    char *folder_end = strstr(path, "/tests/test_tpm");
    assert_non_null(folder_end);
    *folder_end = 0;
    const char *runner = getenv("RUNNER"); /* what runs programs of another machine, and this one */
    char *program = swtpm_text("%s %s/grey-tpm", runner == NULL ? "" : runner, path);
    grey_tpm = program;
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_key_is_proven_by_its_own_tpm_only),
                                       cmocka_unit_test(genuine_evidence_becomes_a_result),
                                       cmocka_unit_test(a_thousand_quotes_leave_nothing_behind),
                                       cmocka_unit_test(an_old_answer_is_refused),
                                       cmocka_unit_test(another_tpm_is_refused),
                                       cmocka_unit_test(quotes_by_tpm2_tools_are_judged_alike),
                                       cmocka_unit_test(keys_that_sign_anything_cannot_be_proven),
                                       cmocka_unit_test(a_changed_register_is_found),
                                       cmocka_unit_test(a_restart_is_survived_and_an_old_state_is_not),
                                       cmocka_unit_test(the_program_measures_starts_and_proves_them),
                                       cmocka_unit_test(a_boot_begins_its_own_log),
                                       cmocka_unit_test(what_is_sealed_opens_here_and_now_only),
                                       cmocka_unit_test(the_endorsement_key_is_made_when_it_is_not_kept)};
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    free(program);
    free(path);
    return failed;
}
