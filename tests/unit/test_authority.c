/* The CA's directory: if it failed, certificates would not hold after a change of the issuing key, or a power cut in the middle of one would leave
 * a CA that can do nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/authority.h"
#include "platform/keys.h"
#include "platform/now.h"
#include "platform/wholefile.h"

static char dir[64];

static int set_up(void **state) {
    (void)state;
    (void)strcpy(dir, "/tmp/grey-authority-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(authority_init(dir, NULL), E_OK);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void shell(const char *command) {
    char all[400];
    (void)snprintf(all, sizeof all, "cd %s && %s", dir, command);
    assert_int_equal(system(all), 0);
}

static struct authority open_it(void) {
    struct authority a;
    struct fault f = {0};
    if (authority_open(dir, &a, &f) != E_OK) {
        fail_msg("%s", f.text);
    }
    return a;
}

/* A gateway's certificate for a key of its own, with a NUL behind it. */
static enum grey_error certify(const struct authority *a, const char *site, struct builder *crt) {
    struct builder key, request;
    struct keysign signer;
    struct csr_facts asked;
    builder_init(&key, 4096);
    builder_init(&request, 4096);
    builder_init(crt, 8192);
    assert_int_equal(keys_new_p256(&key, NULL), E_OK);
    builder_add_byte(&key, 0);
    assert_int_equal(keysign_open_pem((const char *)key.data, &signer, NULL), E_OK);
    assert_int_equal(csr_make(site, "n", &signer, &request, NULL), E_OK);
    assert_int_equal(csr_read(builder_bytes(&request), &asked, NULL), E_OK);
    enum grey_error err = authority_sign(a, &asked, now_wall_ms() / 1000, 3600, crt, NULL);
    builder_add_byte(crt, 0);
    keysign_close(&signer);
    builder_free(&key);
    builder_free(&request);
    return err;
}

static bool holds(const struct authority *a, const struct builder *crt) {
    return cert_verify((const char *)crt->data, (const char *)a->bundle.data, NULL) == E_OK;
}

static unsigned lists(const struct authority *a) {
    static const char begin[] = "-----BEGIN X509 CRL-----";
    struct builder list;
    unsigned count = 0;
    builder_init(&list, CRL_PEM_BYTES_MAX);
    assert_int_equal(authority_list(a, NULL, 0, now_wall_ms(), &list, NULL), E_OK);
    builder_add_byte(&list, 0);
    for (const char *at = (const char *)list.data; (at = strstr(at, begin)) != NULL; at++) {
        count++;
    }
    builder_free(&list);
    return count;
}

static void it_certifies_gateways_and_nobody_as_the_core(void **state) {
    (void)state;
    static const char *const reserved[] = {"grey-core", "grey-core-2", "grey-broker"};
    struct authority a = open_it();
    struct builder crt;
    assert_int_equal(certify(&a, "factory", &crt), E_OK);
    assert_true(holds(&a, &crt));
    builder_free(&crt);
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        assert_int_equal(certify(&a, reserved[i], &crt), E_CERT);
        builder_free(&crt);
    }
    assert_int_equal(lists(&a), 1);
    authority_close(&a);
    shell("test \"$(stat -c %a root.key issuing.key | sort -u)\" = 600");
    assert_int_equal(authority_init(dir, NULL), E_OK); /* once more changes nothing */
    struct authority again = open_it();
    a = open_it();
    assert_memory_equal(a.fingerprint, again.fingerprint, sizeof a.fingerprint);
    authority_close(&a);
    authority_close(&again);
}

static void certificates_hold_through_a_change_of_the_issuer(void **state) {
    (void)state;
    struct authority before = open_it();
    struct builder old, fresh;
    assert_int_equal(certify(&before, "factory", &old), E_OK);
    assert_int_equal(authority_promote(dir, NULL), E_CONDITION); /* nothing is to come */
    assert_int_equal(authority_rotate(dir, NULL), E_OK);
    assert_int_equal(authority_rotate(dir, NULL), E_CONDITION); /* the last one is not used yet */
    struct authority between = open_it();
    assert_int_equal(authority_promote(dir, NULL), E_OK);
    struct authority after = open_it();
    assert_int_equal(certify(&after, "factory", &fresh), E_OK);
    assert_false(bytes_equal(builder_bytes(&before.issuing), builder_bytes(&after.issuing)));
    assert_true(holds(&between, &fresh)); /* who was told of the coming one takes what it signs */
    assert_true(holds(&after, &old) && holds(&after, &fresh));
    assert_false(holds(&before, &fresh));
    assert_int_equal(lists(&after), 2);
    assert_memory_equal(before.fingerprint, after.fingerprint, sizeof after.fingerprint); /* tokens go on */
    authority_close(&before);
    authority_close(&between);
    authority_close(&after);
    builder_free(&old);
    builder_free(&fresh);
}

static void a_change_that_was_cut_off_is_ended_the_next_time(void **state) {
    (void)state;
    static const char *const done[] = {"true",
                                       "cp issuing.crt former.crt",
                                       "cp issuing.key former.key",
                                       "cp next.key issuing.key",
                                       "cp next.crt issuing.crt",
                                       "rm next.crt"};
    for (size_t cut = 0; cut < sizeof done / sizeof done[0]; cut++) {
        struct builder crt;
        shell("rm -rf * ");
        assert_int_equal(authority_init(dir, NULL), E_OK);
        assert_int_equal(authority_rotate(dir, NULL), E_OK);
        for (size_t i = 0; i <= cut; i++) {
            shell(done[i]);
        }
        assert_int_equal(authority_promote(dir, NULL), cut < 5 ? E_OK : E_CONDITION); /* all was done but taking the key away */
        struct authority a = open_it();
        assert_int_equal(certify(&a, "factory", &crt), E_OK);
        assert_true(holds(&a, &crt));
        assert_int_equal(lists(&a), 2);
        authority_close(&a);
        builder_free(&crt);
    }
}

static void the_root_may_be_away(void **state) {
    (void)state;
    struct builder crt;
    shell("mv root.key away.key");
    struct authority a = open_it();
    assert_int_equal(certify(&a, "factory", &crt), E_OK);
    builder_free(&crt);
    authority_close(&a);
    assert_int_equal(authority_rotate(dir, NULL), E_KEY);
    shell("mv away.key root.key");
    assert_int_equal(authority_rotate(dir, NULL), E_OK);
}

static void what_was_trusted_before_stays_so(void **state) {
    (void)state;
    struct authority former = open_it();
    struct builder crt;
    assert_int_equal(certify(&former, "factory", &crt), E_OK);
    shell("mkdir new && cp ca.crt new/ && cd new && cp ../ca.crt ../former-ca.crt");
    (void)strcat(dir, "/new");
    assert_int_equal(authority_init(dir, NULL), E_OK); /* another root */
    struct authority a = open_it();
    dir[strlen(dir) - strlen("/new")] = 0;
    assert_memory_not_equal(a.fingerprint, former.fingerprint, sizeof a.fingerprint);
    assert_true(holds(&a, &crt));
    authority_close(&a);
    authority_close(&former);
    builder_free(&crt);
}

static void read_text(const char *name, struct builder *out) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    builder_init(out, 65536);
    assert_int_equal(wholefile_read(path, out, NULL), E_OK);
}

/* A CA of before delegations: gateways still come in, and get none that nobody could believe; the next issuing key gives them. */
static void a_ca_without_room_delegates_nothing(void **state) {
    (void)state;
    struct builder root, root_key, key, crt, given, request;
    struct csr_facts asked;
    struct keysign signer;
    char path[128];
    int64_t now_s = now_wall_ms() / 1000;
    read_text("root.crt", &root);
    read_text("root.key", &root_key);
    read_text("issuing.key", &key);
    builder_init(&crt, 8192);
    struct cert_request q = {.subject = "CN=Grey Edge issuing CA old",
                             .key_pem = (const char *)key.data,
                             .issuer_pem = (const char *)root.data,
                             .issuer_key_pem = (const char *)root_key.data,
                             .authority = true,
                             .depth = 0,
                             .not_before_s = now_s - 3600,
                             .not_after_s = now_s + 86400};
    assert_int_equal(cert_issue(&q, &crt, NULL), E_OK);
    (void)snprintf(path, sizeof path, "%s/issuing.crt", dir);
    assert_int_equal(wholefile_write(path, builder_bytes(&crt), 0644, NULL), E_OK);
    builder_init(&given, 8192);
    builder_init(&request, 4096);
    assert_int_equal(keysign_open_pem((const char *)key.data, &signer, NULL), E_OK);
    assert_int_equal(csr_make("factory", "n", &signer, &request, NULL), E_OK);
    assert_int_equal(csr_read(builder_bytes(&request), &asked, NULL), E_OK);
    keysign_close(&signer);
    struct authority a = open_it();
    assert_int_equal(authority_delegate(&a, &asked, now_s, 3600, &given, NULL), E_OK);
    assert_int_equal(given.size, 0);
    authority_close(&a);
    assert_int_equal(authority_rotate(dir, NULL), E_OK);
    assert_int_equal(authority_promote(dir, NULL), E_OK);
    a = open_it();
    assert_int_equal(authority_delegate(&a, &asked, now_s, 3600, &given, NULL), E_OK);
    assert_true(given.size > 0);
    authority_close(&a);
    struct builder *const all[] = {&root, &root_key, &key, &crt, &given, &request};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        builder_free(all[i]);
    }
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(it_certifies_gateways_and_nobody_as_the_core),
        TEST(certificates_hold_through_a_change_of_the_issuer),
        TEST(a_change_that_was_cut_off_is_ended_the_next_time),
        TEST(the_root_may_be_away),
        TEST(what_was_trusted_before_stays_so),
        TEST(a_ca_without_room_delegates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
