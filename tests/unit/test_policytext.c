/* The attestation policy as an operator writes it: if it were read as something else, tampered gateways would pass, or all good ones fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/policytext.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define DAY_MS INT64_C(86400000)

static struct reference policy, again;

static const char whole[] = "# of the plant\n"
                            "learn: false\n"
                            "boot_log_required: true\n"
                            "types: [tpm2, vtpm]\n"
                            "registers: [4, 7, 14]\n"
                            "valid_for: 36h\n"
                            "firmware: [\"2019102300163636\"]\n"
                            "values:\n"
                            "  - {register: 7, sha256: " HEX_A "}\n"
                            "  - {event: 4, sha256: " HEX_B ", until: 2030-01-02}\n"
                            "  - program: " HEX_B "\n"
                            "    from: 2030-01-01T12:00:00Z\n"
                            "    note: greyd 0.2.0\n"
                            "  - {config: " HEX_A "}\n";

static void all_that_can_be_said_is_read(void **state) {
    (void)state;
    struct fault f = {.text = ""};
    uint8_t a[32], b[32];
    memset(a, 0xaa, sizeof a);
    memset(b, 0xbb, sizeof b);
    assert_int_equal(policytext_read(bytes_str(whole), &policy, &f), E_OK);
    assert_true(bytes_equal_str(policy.name, POLICYTEXT_NAME) && policy.serial == 0);
    assert_true(!policy.learn && policy.needs_boot_log && policy.types == (1u << ATTEST_TPM2 | 1u << ATTEST_VTPM));
    assert_int_equal(policy.pcr_mask, 1u << 4 | 1u << 7 | 1u << 14);
    assert_int_equal(policy.validity_s, 36 * 3600);
    assert_true(policy.firmware_count == 1 && policy.firmwares[0] == 0x2019102300163636u);
    assert_int_equal(policy.value_count, 4);
    int64_t new_year = INT64_C(1893456000000);
    assert_true(reference_accepts(&policy, REFERENCE_REGISTER, 7, a, 0, false));
    assert_true(reference_accepts(&policy, REFERENCE_EVENT, 4, b, new_year + DAY_MS - 1, false));
    assert_false(reference_accepts(&policy, REFERENCE_EVENT, 4, b, new_year + DAY_MS, false));
    assert_false(reference_accepts(&policy, REFERENCE_PROGRAM, STARTLOG_PCR, b, new_year + DAY_MS / 2 - 1, false));
    assert_true(reference_accepts(&policy, REFERENCE_PROGRAM, STARTLOG_PCR, b, new_year + DAY_MS / 2, false));
    assert_true(reference_accepts(&policy, REFERENCE_CONFIG, STARTLOG_PCR, a, 0, false));
    static const char json[] =
        "{\"learn\": true, \"types\": [\"none\", \"instance-identity\"], \"values\": [{\"register\": 0, \"sha256\": "
        "\"" HEX_A "\"}]}";
    assert_int_equal(policytext_read(bytes_str(json), &policy, &f), E_OK);
    assert_true(policy.learn && policy.types == (1u << ATTEST_NONE | 1u << ATTEST_INSTANCE) && policy.value_count == 1);
    assert_int_equal(policy.pcr_mask, 0x40ff);       /* when nothing is said */
    assert_int_equal(policy.validity_s, 192 * 3600); /* a week without the core, and a day */
}

/* What the core writes when learning ends is what it reads then. */
static void what_is_written_is_read_again(void **state) {
    (void)state;
    struct fault f = {.text = ""};
    struct builder text, first, second;
    builder_init(&text, POLICYTEXT_BYTES_MAX);
    builder_init(&first, REFERENCE_BYTES_MAX);
    builder_init(&second, REFERENCE_BYTES_MAX);
    for (int full = 0; full < 2; full++) {
        assert_int_equal(policytext_read(bytes_str(whole), &policy, &f), E_OK);
        for (uint32_t i = policy.value_count; full && i < REFERENCE_VALUES_MAX; i++) { /* as many as there may be */
            policy.values[i] = policy.values[i % 4];
            policy.values[i].digest[3] = (uint8_t)i;
            policy.value_count++;
        }
        builder_reset(&text);
        builder_reset(&first);
        builder_reset(&second);
        policytext_write(&text, &policy);
        assert_int_equal(text.err, E_OK);
        assert_int_equal(policytext_read(builder_bytes(&text), &again, &f), E_OK);
        reference_put(&first, &policy);
        reference_put(&second, &again);
        assert_true(first.err == E_OK && bytes_equal(builder_bytes(&first), builder_bytes(&second)));
        assert_int_equal(reference_get(builder_bytes(&first), &again), E_OK); /* and judges take it */
    }
    policytext_learn(&policy);
    policy.name = bytes_str(POLICYTEXT_NAME);
    builder_reset(&first);
    reference_put(&first, &policy);
    assert_int_equal(reference_get(builder_bytes(&first), &again), E_OK);
    builder_free(&second);
    builder_free(&first);
    builder_free(&text);
}

static void a_fault_is_told_with_its_place(void **state) {
    (void)state;
    static const struct {
        const char *text, *told;
    } bad[] = {
        {"", "docs/ATTESTATION.md"},
        {"- tpm2\n", "docs/ATTESTATION.md"},
        {"learn: true\n", "types is missing"},
        {"types: tpm2\n", "line 1, column 8"},
        {"types: []\n", "line 1"},
        {"types: [tpm2, tpm2]\n", "each once"},
        {"types: [tpm]\n", "expected tpm2"},
        {"types: [tpm2]\nlearn: maybe\n", "line 2"},
        {"types: [tpm2]\nlearns: true\n", "unknown key 'learns'"},
        {"types: [tpm2]\nregisters: []\n", "line 2"},
        {"types: [tpm2]\nregisters: [24]\n", "line 2"},
        {"types: [tpm2]\nvalid_for: 193h\n", "192h"},
        {"types: [tpm2]\nvalid_for: 59s\n", "60s"},
        {"types: [tpm2]\nvalid_for: 24\n", "24h"},
        {"types: [tpm2]\nvalid_for: 99999999999d\n", "24h"},
        {"types: [tpm2]\nfirmware: [20191023]\n", "16 hexadecimal digits"},
        {"types: [tpm2]\nvalues: {register: 7}\n", "a list"},
        {"types: [tpm2]\nvalues: [7]\n", "line 2"},
        {"types: [tpm2]\nvalues:\n  - {register: 7}\n", "line 3"},
        {"types: [tpm2]\nvalues:\n  - {sha256: " HEX_A "}\n", "line 3"},
        {"types: [tpm2]\nvalues:\n  - {register: 7, event: 7, sha256: " HEX_A "}\n", "line 3"},
        {"types: [tpm2]\nvalues:\n  - {program: " HEX_A ", sha256: " HEX_A "}\n", "line 3"},
        {"types: [tpm2]\nvalues:\n  - {register: 7, sha256: abc}\n", "64 hexadecimal digits"},
        {"types: [tpm2]\nvalues:\n  - {register: 14, sha256: " HEX_A "}\n", "program and config"},
        {"types: [tpm2]\nvalues:\n  - {register: 9, sha256: " HEX_A "}\n", "not among the registers"},
        {"types: [tpm2]\nvalues:\n  - {config: " HEX_A ", from: tomorrow}\n", "a time"},
        {"types: [tpm2]\nvalues:\n  - {config: " HEX_A ", from: 2026-02-30}\n", "a time"},
        {"types: [tpm2]\nvalues:\n  - {config: " HEX_A ", from: 2026-02-01T25:00:00Z}\n", "a time"},
        {"types: [tpm2]\nvalues:\n  - {config: " HEX_A ", from: 2026-02-01T05:00:00}\n", "a time"},
        {"types: [tpm2]\nvalues:\n  - {config: " HEX_A ", from: 2026-02-02, until: 2026-02-02}\n", "until"},
        {"types: [tpm2]\nvalues:\n  - {config: " HEX_A ", color: red}\n", "'color'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fault f = {.text = ""};
        assert_int_equal(policytext_read(bytes_str(bad[i].text), &policy, &f), E_ATTEST_POLICY);
        if (strstr(f.text, bad[i].told) == NULL) {
            fail_msg("%s: %s", bad[i].text, f.text);
        }
        assert_int_equal(policy.types, 0); /* nothing of it is left */
    }
    for (size_t cut = 0; cut < sizeof whole - 1; cut++) { /* a file cut short is refused, or is one without the rest */
        struct fault f = {.text = ""};
        enum grey_error err = policytext_read(bytes_of(whole, cut), &policy, &f);
        assert_true(err == E_ATTEST_POLICY ? f.text[0] != 0 : err == E_OK && policy.types != 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_that_can_be_said_is_read),
                                       cmocka_unit_test(what_is_written_is_read_again),
                                       cmocka_unit_test(a_fault_is_told_with_its_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
