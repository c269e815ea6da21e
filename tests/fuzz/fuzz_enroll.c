/* What a stranger may send to where gateways enrol, and what comes down about trust: tokens, requests, lists, certificates.  Binary forms are
 * wrapped as PEM here, so that the fuzzer reaches what lies behind it.  What is accepted says who asks, by names that hold. */
#include <string.h>

#include "federation/certify.h"
#include "federation/invite.h"
#include "federation/trust.h"
#include "include/grey/must.h"
#include "platform/crl.h"
#include "platform/csr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The text of a PEM block with a NUL behind it. */
static void wrap(struct builder *out, const char *label, struct bytes der) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    builder_addf(out, "-----BEGIN %s-----\n", label);
    for (size_t i = 0; i < der.size; i += 3) {
        size_t left = der.size - i;
        uint32_t v =
            (uint32_t)der.data[i] << 16 | (left > 1 ? (uint32_t)der.data[i + 1] << 8 : 0) | (left > 2 ? der.data[i + 2] : 0);
        builder_add_byte(out, (uint8_t)digits[v >> 18]);
        builder_add_byte(out, (uint8_t)digits[v >> 12 & 63]);
        builder_add_byte(out, (uint8_t)(left > 1 ? digits[v >> 6 & 63] : '='));
        builder_add_byte(out, (uint8_t)(left > 2 ? digits[v & 63] : '='));
        if (i % 48 == 45) {
            builder_add_byte(out, '\n');
        }
    }
    builder_addf(out, "\n-----END %s-----\n", label);
    builder_add_byte(out, 0);
}

static void read_token(const char *text) {
    struct invite i, again;
    char written[INVITE_TEXT_BYTES];
    if (invite_read(text, &i, NULL) == E_OK) {
        must(grey_name_valid(i.site.text, strlen(i.site.text)));
        invite_write(&i, written);
        must(invite_read(written, &again, NULL) == E_OK && memcmp(&i, &again, sizeof i) == 0);
    }
}

static void read_request(struct bytes pem) {
    struct csr_facts facts;
    if (csr_read(pem, &facts, NULL) == E_OK) {
        must(grey_name_valid(facts.site, strlen(facts.site)) && grey_name_valid(facts.node, strlen(facts.node)));
        must(facts.public_key_size > 0 && facts.public_key_size <= sizeof facts.public_key);
    }
}

static void read_messages(struct bytes content) {
    struct certify c;
    struct builder b;
    builder_init(&b, 1u << 20);
    if (certify_get_request(content, &c) == E_OK) {
        certify_put_request(&b, &c);
        must(bytes_equal(builder_bytes(&b), content));
    } else if (certify_get_certificate(content, &c) == E_OK) {
        certify_put_certificate(&b, &c);
        must(bytes_equal(builder_bytes(&b), content));
    }
    builder_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct builder pem;
    struct cert_facts facts;
    struct crl_facts list;
    struct trust_parts parts;
    if (size < 1 || size > 4096) {
        return 0;
    }
    struct bytes in = bytes_of(data + 1, size - 1);
    builder_init(&pem, 1u << 16);
    switch (data[0] % 5) {
    case 0:
        builder_add(&pem, in);
        builder_add_byte(&pem, 0);
        read_token((const char *)pem.data);
        break;
    case 1:
        wrap(&pem, "CERTIFICATE REQUEST", in);
        read_request(bytes_of(pem.data, pem.size - 1));
        break;
    case 2:
        wrap(&pem, "CERTIFICATE", in);
        (void)cert_read((const char *)pem.data, &facts, NULL);
        (void)crl_read(in, (const char *)pem.data, &list, NULL);
        break;
    case 3:
        wrap(&pem, "X509 CRL", in);
        (void)trust_split(bytes_of(pem.data, pem.size - 1), &parts);
        (void)crl_read(bytes_of(pem.data, pem.size - 1), (const char *)pem.data, &list, NULL);
        break;
    default:
        read_messages(in);
        (void)trust_split(in, &parts);
    }
    builder_free(&pem);
    return 0;
}
