/* Requests and revocation lists: a gateway that asks must be the one it says it is, and what is revoked must stay outside. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/crl.h"
#include "platform/csr.h"
#include "platform/keys.h"

#define NOW_S INT64_C(1767225600) /* 2026-01-01 */
#define DAY_S INT64_C(86400)

static char dir[] = "/tmp/grey-csr-XXXXXX";
static bool have_openssl;
static struct builder ca, ca_key, key, request;
static struct keysign signer, ca_signer;

static const char *text_of(const struct builder *b) {
    return (const char *)b->data;
}

static void new_key(struct builder *pem, struct keysign *out) {
    builder_init(pem, 4096);
    assert_int_equal(keys_new_p256(pem, NULL), E_OK);
    builder_add_byte(pem, 0);
    assert_int_equal(keysign_open_pem(text_of(pem), out, NULL), E_OK);
}

static int set_up(void **state) {
    (void)state;
    new_key(&ca_key, &ca_signer);
    new_key(&key, &signer);
    struct cert_request q = {.subject = "CN=test CA",
                             .key_pem = text_of(&ca_key),
                             .not_before_s = NOW_S,
                             .not_after_s = NOW_S + 3650 * DAY_S,
                             .depth = 1};
    builder_init(&ca, 8192);
    builder_init(&request, 8192);
    assert_int_equal(cert_issue(&q, &ca, NULL), E_OK);
    builder_add_byte(&ca, 0);
    assert_int_equal(csr_make("factory-1", "n1", &signer, &request, NULL), E_OK);
    assert_non_null(mkdtemp(dir));
    have_openssl = system("command -v openssl >/dev/null") == 0;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[100];
    keysign_close(&signer);
    keysign_close(&ca_signer);
    builder_free(&ca);
    builder_free(&ca_key);
    builder_free(&key);
    builder_free(&request);
    (void)snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) == 0 ? 0 : -1;
}

static void save(const char *name, struct bytes text) {
    char path[100];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text.data, 1, text.size, file), text.size);
    assert_int_equal(fclose(file), 0);
}

static int shell(const char *command) {
    char all[600];
    (void)snprintf(all, sizeof all, "cd %s && { %s; } >/dev/null 2>&1", dir, command);
    return system(all);
}

/* If a request did not say who asks with which key, the wrong gateway would get the certificate. */
static void a_request_names_site_node_and_key(void **state) {
    (void)state;
    struct csr_facts facts;
    struct builder public_key;
    assert_int_equal(csr_read(builder_bytes(&request), &facts, NULL), E_OK);
    assert_string_equal(facts.site, "factory-1");
    assert_string_equal(facts.node, "n1");
    builder_init(&public_key, KEYSIGN_PUBLIC_BYTES_MAX);
    assert_int_equal(signer.public_key(signer.key, &public_key, NULL), E_OK);
    assert_int_equal(public_key.size, facts.public_key_size);
    assert_memory_equal(public_key.data, facts.public_key, public_key.size);
    builder_free(&public_key);
    if (have_openssl) {
        save("request.pem", builder_bytes(&request));
        assert_int_equal(shell("openssl req -in request.pem -noout -verify"), 0);
    }
}

/* If one flipped bit went through, a request would not prove that its sender holds the key. */
static void an_altered_request_is_refused(void **state) {
    (void)state;
    struct csr_facts facts;
    struct builder copy;
    unsigned refused = 0, tried = 0;
    for (size_t i = 36; i + 36 < request.size; i++) {
        builder_init(&copy, 8192);
        builder_add(&copy, builder_bytes(&request));
        copy.data[i] = copy.data[i] == 'A' ? 'B' : 'A';
        tried += copy.data[i] != request.data[i];
        if (csr_read(builder_bytes(&copy), &facts, NULL) != E_OK) {
            refused++;
        } else { /* the same bytes in other letters: bits that padding does not use */
            assert_string_equal(facts.site, "factory-1");
            assert_string_equal(facts.node, "n1");
        }
        builder_free(&copy);
    }
    assert_in_range(tried - refused, 0, 2);
    assert_true(tried > 200);
}

/* If names went through that are no names, a certificate could speak for the core or end a text early. */
static void names_that_are_none_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"", "a/b", "a,OU=c", "a b", "+", "a\n"};
    struct builder out;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        builder_init(&out, 8192);
        assert_int_equal(csr_make(bad[i], "n1", &signer, &out, NULL), E_CERT);
        assert_int_equal(csr_make("s", bad[i], &signer, &out, NULL), E_CERT);
        builder_free(&out);
    }
}

/* If a CA half obeyed a request, somebody's extensions or second name could slip into a certificate. */
static void what_asks_for_more_is_refused(void **state) {
    (void)state;
    static const char *const asked[] = {"-subj /CN=s/OU=n -addext subjectAltName=DNS:core.example",
                                        "-subj /CN=s/OU=n -addext basicConstraints=CA:TRUE",
                                        "-subj /CN=s",
                                        "-subj /OU=n",
                                        "-subj /CN=s/CN=grey-core/OU=n",
                                        "-subj /CN=s/OU=n/O=more",
                                        "-subj /CN=s+OU=n -multivalue-rdn",
                                        "-subj /CN=s/OU=n -sha512",
                                        "-subj /CN=s/OU=n -newkey rsa:2048"};
    if (!have_openssl) {
        skip();
    }
    for (int i = -1; i < (int)(sizeof asked / sizeof asked[0]); i++) {
        char command[400], path[100], text[8192];
        struct csr_facts facts;
        (void)snprintf(command, sizeof command,
                       "openssl req -new -nodes -keyout k.pem -out r.pem -newkey ec -pkeyopt ec_paramgen_curve:P-256 %s",
                       i < 0 ? "-subj /CN=s/OU=n" : asked[i]);
        if (i >= 0 && strstr(asked[i], "rsa") != NULL) {
            (void)snprintf(command, sizeof command, "openssl req -new -nodes -keyout k.pem -out r.pem %s", asked[i]);
        }
        assert_int_equal(shell(command), 0);
        (void)snprintf(path, sizeof path, "%s/r.pem", dir);
        FILE *file = fopen(path, "re");
        assert_non_null(file);
        size_t size = fread(text, 1, sizeof text, file);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(csr_read(bytes_of((const uint8_t *)text, size), &facts, NULL) == E_OK, i < 0);
    }
}

static struct builder listed(uint32_t count, uint64_t number) {
    struct crl_entry *entries = mem_new(count + 1, sizeof *entries);
    struct builder out;
    assert_non_null(entries);
    for (uint32_t i = 0; i < count; i++) {
        entries[i].revoked_s = NOW_S + i;
        entries[i].serial[0] = 0x40;
        entries[i].serial[15] = (uint8_t)i;
        entries[i].serial[14] = (uint8_t)(i >> 8);
    }
    struct crl_request q = {.issuer_pem = text_of(&ca),
                            .issuer = &ca_signer,
                            .number = number,
                            .this_s = NOW_S,
                            .next_s = NOW_S + 30 * DAY_S,
                            .entries = entries,
                            .entry_count = count};
    builder_init(&out, CRL_PEM_BYTES_MAX);
    assert_int_equal(crl_make(&q, &out, NULL), E_OK);
    mem_free(entries);
    return out;
}

/* If a list were not what other programs read, the broker would let a revoked gateway in. */
static void a_list_says_what_was_put_in(void **state) {
    (void)state;
    static const uint32_t counts[] = {0, 1, 3, 300, 1500};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct crl_facts facts;
        struct builder list = listed(counts[i], UINT64_C(0x8000000000000000) + i);
        assert_int_equal(crl_read(builder_bytes(&list), text_of(&ca), &facts, NULL), E_OK);
        assert_int_equal(facts.entry_count, counts[i]);
        assert_true(facts.number == UINT64_C(0x8000000000000000) + i);
        assert_int_equal(facts.this_s, NOW_S);
        assert_int_equal(facts.next_s, NOW_S + 30 * DAY_S);
        if (have_openssl) {
            char command[300];
            save("ca.pem", bytes_of(ca.data, ca.size - 1));
            save("list.pem", builder_bytes(&list));
            (void)snprintf(command, sizeof command,
                           "openssl crl -in list.pem -CAfile ca.pem -noout && test \"$(openssl crl -in list.pem -noout -text | "
                           "grep -c 'Serial "
                           "Number:')\" = %" PRIu32,
                           counts[i]);
            assert_int_equal(shell(command), 0);
        }
        builder_free(&list);
    }
}

/* If anybody's list were taken, anybody could shut a site's gateways out, or let a revoked one in. */
static void a_list_of_another_signer_is_refused(void **state) {
    (void)state;
    struct crl_facts facts;
    struct builder list = listed(2, 7), other;
    struct builder other_key;
    struct keysign other_signer;
    new_key(&other_key, &other_signer);
    struct cert_request q = {
        .subject = "CN=test CA", .key_pem = text_of(&other_key), .not_before_s = NOW_S, .not_after_s = NOW_S + DAY_S};
    builder_init(&other, 8192);
    assert_int_equal(cert_issue(&q, &other, NULL), E_OK);
    builder_add_byte(&other, 0);
    assert_int_equal(crl_read(builder_bytes(&list), text_of(&other), &facts, NULL), E_CERT);
    for (size_t i = 26; i + 30 < list.size; i += 3) {
        uint8_t was = list.data[i];
        list.data[i] = was == 'A' ? 'B' : 'A';
        assert_true(list.data[i] == was || crl_read(builder_bytes(&list), text_of(&ca), &facts, NULL) == E_CERT);
        list.data[i] = was;
    }
    assert_int_equal(crl_read(builder_bytes(&list), text_of(&ca), &facts, NULL), E_OK);
    keysign_close(&other_signer);
    builder_free(&other_key);
    builder_free(&other);
    builder_free(&list);
}

/* If roles were lost on the way, a gateway would take anybody with a certificate for a gateway. */
static void roles_and_chain_of_an_issued_certificate(void **state) {
    (void)state;
    struct csr_facts asked;
    struct cert_facts facts;
    struct builder crt, issuing, issuing_key, chain, root;
    struct keysign issuing_signer;
    new_key(&issuing_key, &issuing_signer);
    struct cert_request q = {.subject = "CN=test issuing",
                             .key_pem = text_of(&issuing_key),
                             .issuer_pem = text_of(&ca),
                             .issuer_key_pem = text_of(&ca_key),
                             .authority = true,
                             .not_before_s = NOW_S,
                             .not_after_s = NOW_S + 1000 * DAY_S};
    builder_init(&issuing, 8192);
    assert_int_equal(cert_issue(&q, &issuing, NULL), E_OK);
    builder_add_byte(&issuing, 0);
    assert_int_equal(csr_read(builder_bytes(&request), &asked, NULL), E_OK);
    struct cert_request leaf = {.subject = "CN=factory-1",
                                .public_key = bytes_of(asked.public_key, asked.public_key_size),
                                .issuer_pem = text_of(&issuing),
                                .issuer_key_pem = text_of(&issuing_key),
                                .names = {{CERT_NAME_URI, "grey://factory-1/n1"}},
                                .name_count = 1,
                                .roles = CERT_ROLE_GATEWAY | CERT_ROLE_BROKER,
                                .client = true,
                                .server = true,
                                .not_before_s = NOW_S,
                                .not_after_s = NOW_S + 30 * DAY_S};
    builder_init(&crt, 8192);
    assert_int_equal(cert_issue(&leaf, &crt, NULL), E_OK);
    builder_add_byte(&crt, 0);
    assert_int_equal(cert_read(text_of(&crt), &facts, NULL), E_OK);
    assert_int_equal(facts.roles, CERT_ROLE_GATEWAY | CERT_ROLE_BROKER);
    assert_string_equal(facts.uri, "grey://factory-1/n1");
    assert_memory_equal(facts.key_hash, asked.key_hash, sizeof facts.key_hash);
    assert_false(facts.authority);
    if (have_openssl) {
        save("root.pem", bytes_of(ca.data, ca.size - 1));
        save("issuing.pem", bytes_of(issuing.data, issuing.size - 1));
        save("leaf.pem", bytes_of(crt.data, crt.size - 1));
        assert_int_equal(shell("openssl verify -attime 1767312000 -CAfile root.pem -untrusted issuing.pem leaf.pem"), 0);
    }
    builder_init(&chain, 32768);
    builder_addf(&chain, "%s%s", text_of(&issuing), text_of(&ca));
    builder_add_byte(&chain, 0);
    builder_init(&root, 8192);
    assert_int_equal(cert_read(text_of(&ca), &facts, NULL), E_OK);
    assert_int_equal(cert_find_root(text_of(&chain), facts.fingerprint, &root, NULL), E_OK);
    assert_int_equal(root.size + 1, ca.size);
    assert_memory_equal(root.data, ca.data, root.size);
    facts.fingerprint[5] ^= 1;
    assert_int_equal(cert_find_root(text_of(&chain), facts.fingerprint, &root, NULL), E_CERT);
    keysign_close(&issuing_signer);
    builder_free(&crt);
    builder_free(&issuing);
    builder_free(&issuing_key);
    builder_free(&chain);
    builder_free(&root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_names_site_node_and_key),
        cmocka_unit_test(an_altered_request_is_refused),
        cmocka_unit_test(names_that_are_none_are_refused),
        cmocka_unit_test(what_asks_for_more_is_refused),
        cmocka_unit_test(a_list_says_what_was_put_in),
        cmocka_unit_test(a_list_of_another_signer_is_refused),
        cmocka_unit_test(roles_and_chain_of_an_issued_certificate),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
