/* A gateway gets itself attested by a verifier: agent, grey-tpm, software TPM and core's judgement, message by message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/identity/attestor.h"
#include "core/verifier.h"
#include "platform/now.h"
#include "platform/tpm.h"
#include "tests/unit/swtpm_rig.h"

static struct swtpm machines[2];
static char *roots, *grey_tpm, *start_log, *data_dir, *doors[2];
static pid_t keepers[2];
static struct loop *loop;
static struct attestor *attestor;
static struct verifier verifier;
static struct reference policy;
static struct builder kept, queued;
static enum exchange_word queued_word;
static bool is_queued, link_is_down;
static uint32_t evidence_count, refusal_count;
static struct loop_timer carrier, watchdog;
static bool (*goal)(void);

static struct attest_identity who(void) {
    struct attest_identity out = {.site = bytes_str("plant-7"), .node = bytes_str("node1"), .raft_id = 77};
    memset(out.signing_key, 0x11, sizeof out.signing_key);
    memset(out.tls_key, 0x22, sizeof out.tls_key);
    return out;
}

/* The way to the core: one word at a time, on a later turn. */
static bool say(void *context, enum exchange_word word, struct bytes body) {
    (void)context;
    if (link_is_down) {
        return false;
    }
    builder_reset(&queued);
    builder_add(&queued, body);
    queued_word = word;
    is_queued = true;
    evidence_count += word == EXCHANGE_EVIDENCE;
    loop_timer_after(loop, &carrier, 1);
    return true;
}

static void carry(void *context) {
    struct builder next, reply;
    struct fault f;
    (void)context;
    if (!is_queued) {
        return;
    }
    is_queued = false;
    builder_init(&next, VERIFIER_KEPT_BYTES_MAX);
    builder_init(&reply, VERIFIER_REPLY_BYTES_MAX);
    const struct verifier_message m = {
        .site = bytes_str("plant-7"), .node = bytes_str("node1"), .word = queued_word, .body = builder_bytes(&queued)};
    enum exchange_word word;
    enum grey_error err = verifier_hear(&verifier, &m, builder_bytes(&kept), now_wall_ms(), &next, &word, &reply, &f);
    assert_true((err == E_OK) == (word != EXCHANGE_REFUSAL));
    refusal_count += word == EXCHANGE_REFUSAL;
    if (next.size > 0) {
        builder_reset(&kept);
        builder_add(&kept, builder_bytes(&next));
    }
    attestor_hear(attestor, word, builder_bytes(&reply));
    builder_free(&reply);
    builder_free(&next);
    if (goal()) {
        loop_stop(loop);
    }
}

static void too_late(void *context) {
    (void)context;
    loop_stop(loop);
}

static bool run_until(bool (*wanted)(void)) {
    goal = wanted;
    loop_timer_after(loop, &watchdog, 60000);
    if (!goal()) {
        loop_run(loop);
    }
    return goal();
}

static struct attestor_facts facts(void) {
    struct attestor_facts f;
    attestor_facts(attestor, &f);
    return f;
}

static bool is_trusted(void) {
    return facts().state == ATTESTOR_TRUSTED;
}

static bool is_failed(void) {
    return facts().state == ATTESTOR_FAILED;
}

static bool is_of_another(void) {
    return facts().why == E_ATTEST_IDENTITY;
}

static bool is_unproven(void) {
    return facts().why == E_ATTEST_UNPROVEN;
}

static bool has_proven_once(void) {
    return evidence_count >= 1 && !is_queued;
}

static bool has_proven_twice(void) {
    return evidence_count >= 2 && is_trusted();
}

static void start_attestor(const struct swtpm *machine, enum attest_type type) {
    struct attestor_options o = {
        .type = type, .socket = doors[machine - machines], .data_dir = data_dir, .who = who(), .period_s = 3600};
    struct fault f;
    memcpy(o.verifier_key, verifier.public_key, sizeof o.verifier_key);
    attestor = attestor_new(loop, &o, say, NULL, &f);
    assert_non_null(attestor);
}

static void stop_attestor(void) {
    attestor_free(attestor);
    attestor = NULL;
    is_queued = false;
}

/* What stands beside the agent on each machine. */
static void open_door(size_t i) {
    doors[i] = swtpm_text("%s/door", machines[i].folder);
    keepers[i] = fork();
    if (keepers[i] == 0) {
        execl(grey_tpm, grey_tpm, "--tpm", machines[i].way, "--boot-log", "none", "--start-log", start_log, "--socket", doors[i],
              "serve", NULL);
        _exit(127);
    }
    assert_true(keepers[i] > 0);
    for (int tries = 0; access(doors[i], F_OK) != 0; tries++) {
        assert_true(tries < 1000);
        (void)usleep(10000);
    }
}

static int set_up(void **state) {
    struct fault f;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        swtpm_start(&machines[i]);
    }
    roots = swtpm_roots();
    char *path = realpath("/proc/self/exe", NULL);
    assert_non_null(path);
    *strstr(path, "/tests/test_attestor") = 0;
    grey_tpm = swtpm_text("%s/grey-tpm", path);
    free(path);
    data_dir = swtpm_text("%s", machines[0].folder);
    start_log = swtpm_text("%s/starts", machines[0].folder);
    for (size_t i = 0; i < 2; i++) {
        open_door(i);
    }
    loop = loop_new(&f);
    assert_non_null(loop);
    carrier = (struct loop_timer){.fire = carry};
    watchdog = (struct loop_timer){.fire = too_late};
    policy = (struct reference){
        .name = bytes_str("lab"), .serial = 1, .learn = true, .types = 1u << ATTEST_TPM2, .pcr_mask = 0x40ff, .validity_s = 3600};
    verifier = (struct verifier){.name = "core-1", .policy = &policy};
    verifier.roots_pem[ATTEST_TPM2] = roots;
    keys_new_ed25519(verifier.public_key, verifier.secret_key);
    builder_init(&kept, VERIFIER_KEPT_BYTES_MAX);
    builder_init(&queued, ATTEST_EVIDENCE_BYTES_MAX);
    return swtpm_run(
        swtpm_text("'%s' --tpm %s --boot-log none --start-log %s --program /bin/true --measured-config /etc/passwd measure",
                   grey_tpm, machines[0].way, start_log));
}

static int tear_down(void **state) {
    (void)state;
    stop_attestor();
    loop_timer_cancel(loop, &carrier);
    loop_timer_cancel(loop, &watchdog);
    loop_free(loop);
    for (size_t i = 0; i < 2; i++) {
        (void)kill(keepers[i], SIGTERM);
        (void)waitpid(keepers[i], NULL, 0);
        swtpm_stop(&machines[i]);
        free(doors[i]);
    }
    swtpm_remove_authority();
    builder_free(&kept);
    builder_free(&queued);
    free(roots);
    free(grey_tpm);
    free(start_log);
    free(data_dir);
    return 0;
}

/* If this failed, a new gateway with a genuine TPM would never be trusted, or would be asked to prove itself from the start each time. */
static void a_gateway_becomes_trusted_by_itself(void **state) {
    struct verifier_facts known;
    (void)state;
    start_attestor(&machines[0], ATTEST_TPM2);
    assert_true(run_until(is_trusted));
    assert_int_equal(refusal_count, 0);
    assert_int_equal(facts().status, APPRAISE_WARNING);
    assert_int_equal(verifier_look(builder_bytes(&kept), now_wall_ms(), &known), E_OK);
    assert_int_equal(known.state, VERIFIER_TRUSTED);
    assert_int_equal(known.type, ATTEST_TPM2);
    attestor_ask(attestor); /* the period is over */
    assert_true(run_until(has_proven_twice));
    assert_int_equal(refusal_count, 0);
}

/* If this failed, a restart of the agent, or a core that is away, would take a gateway's trust. */
static void a_result_outlives_a_restart(void **state) {
    (void)state;
    stop_attestor();
    link_is_down = true;
    start_attestor(&machines[0], ATTEST_TPM2);
    assert_true(is_trusted());
    stop_attestor();
    link_is_down = false;
}

/* If this failed, a stolen disk in another machine would go on as the gateway it was taken from. */
static void the_same_disk_in_another_machine_is_refused(void **state) {
    struct verifier_facts known;
    (void)state;
    evidence_count = 0;
    start_attestor(&machines[1], ATTEST_TPM2);
    assert_true(run_until(is_failed));
    assert_int_equal(facts().why, E_ATTEST_UNPROVEN);
    assert_int_equal(verifier_look(builder_bytes(&kept), now_wall_ms(), &known), E_OK);
    assert_int_equal(known.state, VERIFIER_FAILED);
    attestor_ask(attestor); /* and it cannot prove the other TPM for this gateway */
    assert_true(run_until(is_of_another));
    stop_attestor();
}

/* If this failed, a gateway whose TPM was cleared, or whose failed copy was found, could never come back. */
static void a_new_key_of_the_same_tpm_is_proven(void **state) {
    (void)state;
    assert_int_equal(swtpm_run(swtpm_text("'%s' --tpm %s forget", grey_tpm, machines[0].way)), 0);
    evidence_count = 0;
    start_attestor(&machines[0], ATTEST_TPM2);
    assert_true(run_until(is_unproven)); /* the old key was asked for */
    attestor_ask(attestor);
    assert_true(run_until(has_proven_twice));
    assert_int_equal(facts().why, E_OK);
    stop_attestor();
}

static enum grey_error hear(enum exchange_word word, struct bytes body, enum exchange_word *answer) {
    struct builder next, reply;
    const struct verifier_message m = {.site = bytes_str("plant-7"), .node = bytes_str("node1"), .word = word, .body = body};
    builder_init(&next, VERIFIER_KEPT_BYTES_MAX);
    builder_init(&reply, VERIFIER_REPLY_BYTES_MAX);
    enum grey_error err = verifier_hear(&verifier, &m, builder_bytes(&kept), now_wall_ms(), &next, answer, &reply, NULL);
    builder_free(&reply);
    builder_free(&next);
    return err;
}

/* If this failed, a verifier could be led to answers that nobody asked for, by words out of order or by another type. */
static void words_out_of_order_are_refused(void **state) {
    enum exchange_word answer;
    (void)state;
    static const uint8_t nothing[CREDENTIAL_SECRET_BYTES];
    assert_int_equal(hear(EXCHANGE_SECRET, bytes_of(nothing, sizeof nothing), &answer), E_ATTEST_NONCE);
    assert_int_equal(answer, EXCHANGE_REFUSAL);
    assert_int_equal(hear(EXCHANGE_RESULT, bytes_of(nothing, sizeof nothing), &answer), E_ATTEST_FORMAT);
    assert_int_equal(hear(EXCHANGE_ASK, bytes_of(nothing, sizeof nothing), &answer), E_ATTEST_FORMAT);
    policy.types |= 1u << ATTEST_NONE;
    start_attestor(&machines[0], ATTEST_NONE); /* a gateway with a TPM says that it has none */
    assert_true(run_until(is_failed));
    assert_int_equal(facts().why, E_ATTEST_TYPE);
    stop_attestor();
}

/* If this failed, somebody who changed what runs on a gateway would stay trusted; or the way back would be closed. */
static void a_changed_gateway_fails_and_comes_back(void **state) {
    struct verifier_facts known;
    (void)state;
    start_attestor(&machines[0], ATTEST_TPM2);
    evidence_count = 0;
    assert_true(run_until(has_proven_once));
    assert_int_equal(facts().why, E_OK);
    policy.learn = false;
    policy.serial++;
    assert_int_equal(swtpm_run(swtpm_text("tpm2_pcrextend -T %s 4:sha256=%064d", machines[0].way, 7)), 0);
    attestor_ask(attestor);
    assert_true(run_until(is_failed));
    assert_int_equal(facts().why, E_ATTEST_REFERENCE);
    assert_int_equal(verifier_look(builder_bytes(&kept), now_wall_ms(), &known), E_OK);
    assert_int_equal(known.state, VERIFIER_FAILED);
    assert_int_equal(known.why, E_ATTEST_REFERENCE);
    policy.learn = true; /* the operator looked, and takes it as it is */
    policy.serial++;
    attestor_ask(attestor);
    assert_true(run_until(is_trusted));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_gateway_becomes_trusted_by_itself),
                                       cmocka_unit_test(a_result_outlives_a_restart),
                                       cmocka_unit_test(the_same_disk_in_another_machine_is_refused),
                                       cmocka_unit_test(a_new_key_of_the_same_tpm_is_proven),
                                       cmocka_unit_test(words_out_of_order_are_refused),
                                       cmocka_unit_test(a_changed_gateway_fails_and_comes_back)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
