/* Tokens, trust lists and requests on their way: what was cut, altered or put together by somebody else must not pass for what it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "federation/certify.h"
#include "federation/invite.h"
#include "federation/trust.h"

static struct invite sample(const char *site) {
    struct invite i = {0};
    (void)snprintf(i.site.text, sizeof i.site.text, "%s", site);
    for (unsigned k = 0; k < sizeof i.secret; k++) {
        i.secret[k] = (uint8_t)(k * 17);
    }
    for (unsigned k = 0; k < sizeof i.fingerprint; k++) {
        i.fingerprint[k] = (uint8_t)(255 - k);
    }
    return i;
}

static void a_token_survives_being_carried(void **state) {
    (void)state;
    static const char *const sites[] = {"s", "edge-factory-001", "a.b_c-d",
                                        "0123456789012345678901234567890123456789012345678901234567890123"};
    for (size_t n = 0; n < sizeof sites / sizeof sites[0]; n++) {
        struct invite in = sample(sites[n]), out;
        char text[INVITE_TEXT_BYTES], carried[INVITE_TEXT_BYTES + 16];
        invite_write(&in, text);
        (void)snprintf(carried, sizeof carried, " \t%s\r\n", text);
        assert_int_equal(invite_read(carried, &out, NULL), E_OK);
        assert_string_equal(out.site.text, sites[n]);
        assert_memory_equal(&in, &out, sizeof in);
    }
}

static void what_was_cut_or_altered_is_no_token(void **state) {
    (void)state;
    struct invite in = sample("site"), out;
    char text[INVITE_TEXT_BYTES], bad[INVITE_TEXT_BYTES + 16];
    struct fault f = {0};
    invite_write(&in, text);
    for (size_t size = 0; size < strlen(text); size++) {
        (void)snprintf(bad, sizeof bad, "%.*s", (int)size, text);
        assert_int_equal(invite_read(bad, &out, &f), E_TOKEN_UNKNOWN);
    }
    for (size_t at = 0; at < strlen(text);
         at++) { /* a letter that stands nowhere in a token, in each place but those of the site */
        (void)snprintf(bad, sizeof bad, "%s", text);
        bad[at] = '!';
        assert_int_equal(invite_read(bad, &out, &f), E_TOKEN_UNKNOWN);
    }
    (void)snprintf(bad, sizeof bad, "%s1", text);
    assert_int_equal(invite_read(bad, &out, &f), E_TOKEN_UNKNOWN);
    (void)snprintf(bad, sizeof bad, "%s x", text);
    assert_int_equal(invite_read(bad, &out, &f), E_TOKEN_UNKNOWN);
}

static void a_trust_list_is_certificates_and_a_list(void **state) {
    (void)state;
    static const char ca[] = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n";
    static const char crl[] = "-----BEGIN X509 CRL-----\nAA\n-----END X509 CRL-----\n";
    char text[400];
    struct trust_parts parts;
    (void)snprintf(text, sizeof text, "%s%s%s%s", ca, ca, crl, crl);
    assert_true(trust_split(bytes_str(text), &parts));
    assert_int_equal(parts.authorities.size, 2 * strlen(ca));
    assert_int_equal(parts.list.size, 2 * strlen(crl));
    assert_false(trust_split(bytes_str(ca), &parts));
    assert_false(trust_split(bytes_str(crl), &parts));
    assert_false(trust_split(bytes_str(""), &parts));
    assert_false(trust_split(bytes_of((const uint8_t *)text, strlen(text) - 1), &parts));
}

static void requests_and_certificates_come_as_they_went(void **state) {
    (void)state;
    struct certify in = {.incarnation = 5, .epoch = 6, .node = bytes_str("n1"), .pem = bytes_str("text")}, out;
    struct builder b;
    builder_init(&b, 4096);
    certify_put_certificate(&b, &in);
    assert_int_equal(certify_get_certificate(builder_bytes(&b), &out), E_OK);
    assert_true(out.incarnation == 5 && out.epoch == 6 && bytes_equal(out.node, in.node) && bytes_equal(out.pem, in.pem));
    assert_int_not_equal(certify_get_request(builder_bytes(&b), &out), E_OK);
    for (size_t size = 0; size < b.size; size++) {
        assert_int_not_equal(certify_get_certificate(bytes_of(b.data, size), &out), E_OK);
    }
    b.size = 0;
    certify_put_request(&b, &in);
    assert_int_equal(certify_get_request(builder_bytes(&b), &out), E_OK);
    assert_true(bytes_equal(out.pem, in.pem));
    b.size = 0;
    in.node = bytes_str("a/b");
    certify_put_certificate(&b, &in);
    assert_int_equal(certify_get_certificate(builder_bytes(&b), &out), E_BAD_MESSAGE);
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_survives_being_carried), cmocka_unit_test(what_was_cut_or_altered_is_no_token),
        cmocka_unit_test(a_trust_list_is_certificates_and_a_list), cmocka_unit_test(requests_and_certificates_come_as_they_went)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
