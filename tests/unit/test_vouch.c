/* Certificates that a site gives its members: if this failed, one gateway that was taken over could let strangers in, prolong itself, or take the place of
 * the core or of another site. */
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
#include "platform/vouch.h"

#define DAY_S INT64_C(86400)

static char dir[64];
static struct authority ca;

struct member {
    struct builder key, given, own, delegation; /* PEM with a NUL; given: as the core gives it */
    struct csr_facts asked;
};

static void finish(struct builder *b) {
    builder_add_byte(b, 0);
    assert_int_equal(b->err, E_OK);
}

static const char *text(const struct builder *b) {
    return (const char *)b->data;
}

/* A gateway to which the core gave a certificate and a delegation so many days ago, for 30 days. */
static struct member join(const char *site, const char *node, int64_t days_ago) {
    struct member m = {0};
    struct builder request;
    struct keysign signer;
    int64_t then_s = now_wall_ms() / 1000 - days_ago * DAY_S;
    builder_init(&m.key, 4096);
    builder_init(&m.given, 16384);
    builder_init(&m.own, 16384);
    builder_init(&m.delegation, 16384);
    builder_init(&request, 4096);
    assert_int_equal(keys_new_p256(&m.key, NULL), E_OK);
    finish(&m.key);
    assert_int_equal(keysign_open_pem(text(&m.key), &signer, NULL), E_OK);
    assert_int_equal(csr_make(site, node, &signer, &request, NULL), E_OK);
    assert_int_equal(csr_read(builder_bytes(&request), &m.asked, NULL), E_OK);
    keysign_close(&signer);
    builder_free(&request);
    assert_int_equal(authority_sign(&ca, &m.asked, then_s, 30 * DAY_S, &m.given, NULL), E_OK);
    assert_int_equal(authority_delegate(&ca, &m.asked, then_s, 30 * DAY_S, &m.given, NULL), E_OK);
    finish(&m.given);
    assert_int_equal(vouch_split(text(&m.given), &m.own, &m.delegation, NULL), E_OK);
    finish(&m.own);
    finish(&m.delegation);
    return m;
}

static void leave(struct member *m) {
    builder_free(&m->key);
    builder_free(&m->given);
    builder_free(&m->own);
    builder_free(&m->delegation);
}

static int set_up(void **state) {
    (void)state;
    (void)strcpy(dir, "/tmp/grey-vouch-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(authority_init(dir, NULL), E_OK);
    assert_int_equal(authority_open(dir, &ca, NULL), E_OK);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[128];
    authority_close(&ca);
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static enum grey_error make(const struct member *by, const char *member, struct builder *out, struct fault *f) {
    struct keysign key;
    assert_int_equal(keysign_open_pem(text(&by->key), &key, NULL), E_OK);
    enum grey_error err = vouch_make(text(&by->delegation), &key, member, now_wall_ms() / 1000, out, f);
    keysign_close(&key);
    return err;
}

static struct builder vouch(const struct member *by, const char *member) {
    struct builder out;
    struct fault f = {0};
    builder_init(&out, 32768);
    if (make(by, member, &out, &f) != E_OK) {
        fail_msg("%s", f.text);
    }
    finish(&out);
    return out;
}

static const char *trust(void) {
    return (const char *)ca.bundle.data;
}

static void a_neighbour_vouches_for_a_member_that_has_lapsed(void **state) {
    (void)state;
    struct member a = join("plant", "a", 20), b = join("plant", "b", 35);
    struct vouch_facts v;
    struct fault f = {0};
    int64_t now_s = now_wall_ms() / 1000;
    assert_int_equal(vouch_read(text(&b.given), trust(), &v, &f), E_OK);
    assert_false(v.by_site);
    assert_true(v.shown.not_after_s < now_s);
    struct builder chain = vouch(&a, text(&b.given));
    assert_int_equal(vouch_read(text(&chain), trust(), &v, &f), E_OK);
    assert_true(v.by_site && vouch_text_is_by_site(text(&chain)));
    assert_string_equal(v.shown.uri, "grey://plant/b");
    assert_string_equal(v.shown.subject_cn, "plant");
    assert_int_equal(v.shown.roles, CERT_ROLE_GATEWAY);
    assert_memory_equal(v.shown.key_hash, v.by_core.key_hash, 32);
    assert_true(v.shown.not_after_s > now_s && v.shown.not_after_s <= now_s + VOUCH_LIFE_S);
    assert_int_equal(cert_verify(text(&chain), trust(), &f), E_OK);
    /* And again, from what the site gave. */
    struct builder next = vouch(&a, text(&chain));
    assert_int_equal(vouch_read(text(&next), trust(), &v, &f), E_OK);
    assert_true(v.by_core.not_after_s < now_s);
    builder_free(&next);
    builder_free(&chain);
    leave(&a);
    leave(&b);
}

static void openssl_agrees(void **state) {
    (void)state;
    struct member a = join("plant", "a", 20), b = join("plant", "b", 25);
    struct builder chain = vouch(&a, text(&b.given));
    char path[128], command[400];
    (void)snprintf(path, sizeof path, "%s/chain.pem", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fputs(text(&chain), file) >= 0 && fclose(file) == 0, 1);
    (void)snprintf(command, sizeof command, "cd %s && openssl verify -CAfile ca.crt -untrusted chain.pem chain.pem >/dev/null",
                   dir);
    assert_int_equal(system(command), 0);
    builder_free(&chain);
    leave(&a);
    leave(&b);
}

static void nobody_vouches_for_himself_or_for_another_site(void **state) {
    (void)state;
    struct member a = join("plant", "a", 20), other = join("harbour", "b", 20);
    struct builder out;
    builder_init(&out, 32768);
    assert_int_equal(make(&a, text(&a.given), &out, NULL), E_CERT);
    assert_int_equal(make(&a, text(&other.given), &out, NULL), E_CERT);
    assert_int_equal(out.size, 0);
    leave(&a);
    leave(&other);
}

static void it_ends_with_the_delegation(void **state) {
    (void)state;
    struct member a = join("plant", "a", 55), b = join("plant", "b", 55), late = join("plant", "c", 61);
    struct builder chain = vouch(&a, text(&b.given)), out;
    struct vouch_facts v;
    int64_t now_s = now_wall_ms() / 1000;
    assert_int_equal(vouch_read(text(&chain), trust(), &v, NULL), E_OK);
    assert_true(v.shown.not_after_s <= now_s + 5 * DAY_S);
    builder_init(&out, 32768);
    assert_int_equal(make(&late, text(&b.given), &out, NULL), E_CERT);
    builder_free(&chain);
    builder_free(&out);
    leave(&a);
    leave(&b);
    leave(&late);
}

/* --- what a gateway that was taken over would try: its key signs anything ------------------------------------------------------------------- */

struct forgery {
    const char *what, *subject, *uri;
    uint32_t roles;
    bool dns, user, authority, no_evidence, strangers_key, other_evidence, long_life, own_key;
};

static void it_gives_nothing_else(void **state) {
    (void)state;
    static const struct forgery all[] = {
        {.what = NULL, .subject = "CN=plant", .uri = "grey://plant/b", .roles = CERT_ROLE_GATEWAY}, /* which holds */
        {.what = "a core", .subject = "CN=plant", .uri = "grey://plant/b", .roles = CERT_ROLE_CORE},
        {.what = "a core beside a gateway",
         .subject = "CN=plant",
         .uri = "grey://plant/b",
         .roles = CERT_ROLE_CORE | CERT_ROLE_GATEWAY},
        {.what = "a broker", .subject = "CN=grey-broker", .uri = "grey://plant/b", .roles = CERT_ROLE_BROKER, .dns = true},
        {.what = "a server's name", .subject = "CN=plant", .uri = "grey://plant/b", .roles = CERT_ROLE_GATEWAY, .dns = true},
        {.what = "a user", .subject = "CN=plant", .uri = "grey-role:admin", .roles = 0},
        {.what = "a user's role beside a gateway",
         .subject = "CN=plant",
         .uri = "grey://plant/b",
         .roles = CERT_ROLE_GATEWAY,
         .user = true},
        {.what = "another site", .subject = "CN=harbour", .uri = "grey://harbour/b", .roles = CERT_ROLE_GATEWAY},
        {.what = "the topics of another site", .subject = "CN=harbour", .uri = "grey://plant/b", .roles = CERT_ROLE_GATEWAY},
        {.what = "a member nobody knows", .subject = "CN=plant", .uri = "grey://plant/x", .roles = CERT_ROLE_GATEWAY},
        {.what = "a stranger's key",
         .subject = "CN=plant",
         .uri = "grey://plant/b",
         .roles = CERT_ROLE_GATEWAY,
         .strangers_key = true},
        {.what = "no evidence", .subject = "CN=plant", .uri = "grey://plant/b", .roles = CERT_ROLE_GATEWAY, .no_evidence = true},
        {.what = "evidence of another",
         .subject = "CN=plant",
         .uri = "grey://plant/b",
         .roles = CERT_ROLE_GATEWAY,
         .other_evidence = true},
        {.what = "a long life", .subject = "CN=plant", .uri = "grey://plant/b", .roles = CERT_ROLE_GATEWAY, .long_life = true},
        {.what = "itself", .subject = "CN=plant", .uri = "grey://plant/a", .roles = CERT_ROLE_GATEWAY, .own_key = true},
        {.what = "its key under another's name",
         .subject = "CN=plant",
         .uri = "grey://plant/b",
         .roles = CERT_ROLE_GATEWAY,
         .own_key = true},
        {.what = "another issuer", .subject = "CN=plant", .uri = "grey://plant/b", .roles = CERT_ROLE_GATEWAY, .authority = true},
    };
    struct member a = join("plant", "a", 20), b = join("plant", "b", 20), c = join("plant", "c", 20);
    int64_t now_s = now_wall_ms() / 1000;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const struct forgery *g = &all[i];
        const struct member *whose = g->own_key ? &a : g->strangers_key ? &c : &b;
        struct cert_request q = {.subject = g->subject,
                                 .key_pem = text(&whose->key),
                                 .issuer_pem = text(&a.delegation),
                                 .issuer_key_pem = text(&a.key),
                                 .names = {{CERT_NAME_URI, g->uri}},
                                 .name_count = 1,
                                 .roles = g->roles,
                                 .client = !g->authority,
                                 .server = !g->authority,
                                 .authority = g->authority,
                                 .not_before_s = now_s - DAY_S,
                                 .not_after_s = now_s + (g->long_life ? 30 : 10) * DAY_S};
        if (g->dns) {
            q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, "localhost"};
        }
        if (g->user) {
            q.names[q.name_count++] = (struct cert_name){CERT_NAME_URI, "grey-role:admin"};
        }
        struct builder chain;
        struct vouch_facts v;
        builder_init(&chain, 32768);
        assert_int_equal(cert_issue(&q, &chain, NULL), E_OK);
        builder_add_str(&chain, text(&a.delegation));
        if (!g->no_evidence) {
            builder_add_str(&chain, text(g->other_evidence ? &c.own : whose == &a ? &a.own : &b.own));
        }
        finish(&chain);
        bool taken = vouch_read(text(&chain), trust(), &v, NULL) == E_OK || cert_verify(text(&chain), trust(), NULL) == E_OK;
        if (taken != (g->what == NULL)) {
            fail_msg("a gateway could make %s", g->what == NULL ? "nothing at all" : g->what);
        }
        builder_free(&chain);
    }
    leave(&a);
    leave(&b);
    leave(&c);
}

static void a_delegation_of_another_ca_counts_for_nothing(void **state) {
    (void)state;
    struct member a = join("plant", "a", 20), b = join("plant", "b", 20);
    struct builder chain = vouch(&a, text(&b.given));
    struct authority mine = ca;
    char own[64];
    (void)strcpy(own, dir);
    (void)strcpy(dir, "/tmp/grey-vouch-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(authority_init(dir, NULL), E_OK);
    assert_int_equal(authority_open(dir, &ca, NULL), E_OK);
    struct vouch_facts v;
    assert_int_equal(vouch_read(text(&chain), trust(), &v, NULL), E_CERT);
    assert_int_equal(tear_down(NULL), 0);
    (void)strcpy(dir, own);
    ca = mine;
    builder_free(&chain);
    leave(&a);
    leave(&b);
}

static void who_was_revoked_is_not_vouched_for(void **state) {
    (void)state;
    struct member a = join("plant", "a", 20), b = join("plant", "b", 20);
    struct builder chain = vouch(&a, text(&b.given)), all;
    struct vouch_facts v;
    struct crl_entry entry = {.revoked_s = now_wall_ms() / 1000 - DAY_S};
    assert_int_equal(vouch_read(text(&b.given), trust(), &v, NULL), E_OK);
    memcpy(entry.serial, v.shown.serial, sizeof entry.serial);
    builder_init(&all, 65536);
    builder_add_str(&all, trust());
    assert_int_equal(authority_list(&ca, &entry, 1, now_wall_ms(), &all, NULL), E_OK);
    finish(&all);
    assert_int_equal(vouch_read(text(&b.given), text(&all), &v, NULL), E_REVOKED);
    assert_int_equal(vouch_read(text(&chain), text(&all), &v, NULL), E_REVOKED);
    struct builder others =
        vouch(&b, text(&a.given)); /* its delegation is of use for others only who are known: nothing is won by it */
    assert_int_equal(vouch_read(text(&others), text(&all), &v, NULL), E_OK);
    builder_free(&others);
    builder_free(&chain);
    builder_free(&all);
    leave(&a);
    leave(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_neighbour_vouches_for_a_member_that_has_lapsed),
        cmocka_unit_test(openssl_agrees),
        cmocka_unit_test(nobody_vouches_for_himself_or_for_another_site),
        cmocka_unit_test(it_ends_with_the_delegation),
        cmocka_unit_test(it_gives_nothing_else),
        cmocka_unit_test(a_delegation_of_another_ca_counts_for_nothing),
        cmocka_unit_test(who_was_revoked_is_not_vouched_for),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
