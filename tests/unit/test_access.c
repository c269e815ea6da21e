/* If this failed, a stranger could command a site, or its operator could not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "federation/access.h"
#include "federation/origin.h"
#include "federation/throttle.h"
#include "platform/address.h"
#include "platform/codec.h"

#define NOW_MS 1700000000000

static struct bearer token;
static char text[BEARER_BYTES + 1], header[BEARER_BYTES + 16];

static void make_token(enum access_role role) {
    uint8_t seed[BEARER_SEED_BYTES];
    for (size_t i = 0; i < sizeof seed; i++) {
        seed[i] = (uint8_t)(i * 7 + 1);
    }
    token = (struct bearer){.role = role, .created_ms = NOW_MS - 1000, .expires_ms = NOW_MS + 1000, .name = "maria"};
    bearer_make(seed, text, &token);
    (void)snprintf(header, sizeof header, "Bearer %s", text);
}

static struct access_call nobody(enum access_door door) {
    return (struct access_call){.door = door, .site = "edge-1", .uri = "", .name = "", .role = "", .now_ms = NOW_MS};
}

static enum grey_error judge(const struct access_call *c, enum access_role least) {
    struct access_verdict v;
    access_judge(c, least, &v);
    if (v.err != E_OK) {
        assert_true(v.detail[0] != 0);
    }
    return v.err;
}

static void test_roles_include_those_below(void **state) {
    (void)state;
    for (unsigned has = ROLE_VIEWER; has <= ROLE_ADMIN; has++) {
        make_token((enum access_role)has);
        struct access_call c = nobody(DOOR_GUARDED);
        c.authorization = bytes_str(header);
        c.bearer = &token;
        for (unsigned wants = ROLE_NONE; wants <= ROLE_ADMIN; wants++) {
            assert_int_equal(judge(&c, (enum access_role)wants), wants <= has ? E_OK : E_DENIED);
        }
    }
}

static void test_who_is_let_in(void **state) {
    (void)state;
    struct access_call c = nobody(DOOR_GUARDED);
    assert_int_equal(judge(&c, ROLE_VIEWER), E_UNKNOWN_CALLER);
    assert_int_equal(judge(&c, ROLE_NONE), E_OK); /* health */
    c.door = DOOR_OPEN;
    assert_int_equal(judge(&c, ROLE_ADMIN), E_OK);
    c.door = DOOR_SOCKET;
    assert_int_equal(judge(&c, ROLE_VIEWER), E_DENIED);
    c.in_group = true;
    assert_int_equal(judge(&c, ROLE_OPERATOR), E_OK);
    assert_int_equal(judge(&c, ROLE_ADMIN), E_DENIED);
    c.is_owner = true;
    assert_int_equal(judge(&c, ROLE_ADMIN), E_OK);
}

static void test_pages_from_elsewhere(void **state) {
    (void)state;
    static const struct {
        const char *origin, *host;
        enum grey_error err;
    } cases[] = {
        {"", "127.0.0.1:8081", E_OK}, /* no browser */
        {"http://127.0.0.1:8081", "127.0.0.1:8081", E_OK},
        {"http://localhost:8081", "localhost:8081", E_OK},
        {"http://[::1]:8081", "[::1]:8081", E_OK},
        {"https://evil.example", "127.0.0.1:8081", E_DENIED},
        {"http://127.0.0.1:9999", "127.0.0.1:8081", E_DENIED},
        {"http://evil.example:8081", "evil.example:8081", E_DENIED}, /* a name that was made to lead here */
        {"http://127.0.0.1.evil.example:8081", "127.0.0.1.evil.example:8081", E_DENIED},
        {"null", "127.0.0.1:8081", E_DENIED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access_call c = nobody(DOOR_OPEN);
        c.origin = bytes_str(cases[i].origin);
        c.host = bytes_str(cases[i].host);
        assert_int_equal(judge(&c, ROLE_OPERATOR), cases[i].err);
        assert_int_equal(judge(&c, ROLE_VIEWER), E_OK);
    }
}

static void test_certificates(void **state) {
    (void)state;
    static const struct {
        const char *uri, *name, *role;
        enum access_role wants;
        enum grey_error err;
    } cases[] = {
        {"grey://edge-1/2", "edge-1", "", ROLE_ADMIN, E_OK},        /* a gateway of this site */
        {"grey://edge-10/2", "edge-10", "", ROLE_VIEWER, E_DENIED}, /* of another one, whose name begins alike */
        {"grey://edge-1", "edge-1", "", ROLE_VIEWER, E_DENIED},
        {"grey://edge-1/", "edge-1", "", ROLE_VIEWER, E_DENIED},
        {"http://edge-1/2", "edge-1", "", ROLE_VIEWER, E_DENIED},
        {"", "grey-core", "", ROLE_VIEWER, E_DENIED},
        {"", "user:maria", "operator", ROLE_OPERATOR, E_OK},
        {"", "user:maria", "operator", ROLE_ADMIN, E_DENIED},
        {"", "user:maria", "Operator", ROLE_VIEWER, E_DENIED},
        {"", "user:maria", "root", ROLE_VIEWER, E_DENIED},
        {"grey://edge-1/2", "edge-1", "viewer", ROLE_OPERATOR, E_DENIED}, /* a role that is said is the one that counts */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access_call c = nobody(DOOR_GUARDED);
        c.uri = cases[i].uri;
        c.name = cases[i].name;
        c.role = cases[i].role;
        assert_int_equal(judge(&c, cases[i].wants), cases[i].err);
    }
}

static void test_bad_tokens(void **state) {
    (void)state;
    struct access_verdict v;
    make_token(ROLE_ADMIN);
    struct access_call c = nobody(DOOR_GUARDED);
    c.bearer = &token;
    for (size_t i = 0; i < strlen(header); i++) { /* one character is another one */
        char changed[sizeof header];
        memcpy(changed, header, sizeof header);
        changed[i] = changed[i] == '1' ? '2' : '1';
        c.authorization = bytes_str(changed);
        access_judge(&c, ROLE_VIEWER, &v);
        assert_int_equal(v.err, E_UNKNOWN_CALLER);
        assert_true(v.guessed);
        assert_null(strstr(v.detail, text + 20)); /* nothing of it is repeated */
    }
    for (size_t size = 1; size < strlen(header); size++) {
        c.authorization = bytes_of(header, size);
        assert_int_equal(judge(&c, ROLE_VIEWER), E_UNKNOWN_CALLER);
    }
    c.authorization = bytes_str(header);
    assert_int_equal(judge(&c, ROLE_ADMIN), E_OK);
    c.now_ms = token.expires_ms;
    assert_int_equal(judge(&c, ROLE_VIEWER), E_UNKNOWN_CALLER);
    c.now_ms = NOW_MS;
    c.bearer = NULL; /* revoked */
    assert_int_equal(judge(&c, ROLE_VIEWER), E_UNKNOWN_CALLER);
    c.door = DOOR_OPEN; /* a credential that is not good is never "nobody in particular" */
    assert_int_equal(judge(&c, ROLE_VIEWER), E_UNKNOWN_CALLER);
    c.uri = "grey://edge-1/2";
    c.door = DOOR_GUARDED;
    assert_int_equal(judge(&c, ROLE_VIEWER), E_UNKNOWN_CALLER);
}

static void test_paths(void **state) {
    (void)state;
    size_t size;
    assert_int_equal(access_path_match("/v1/kv", bytes_str("/v1/kv"), &size), 0);
    assert_int_equal(access_path_match("/v1/kv", bytes_str("/v1/kv/"), &size), -1);
    assert_int_equal(access_path_match("/v1/kv/", bytes_str("/v1/kv/"), &size), -1);
    assert_int_equal(access_path_match("/v1/kv/", bytes_str("/v1/kv/a/b"), &size), 7);
    assert_int_equal(size, 3);
    assert_int_equal(access_path_match("/v1/tasks/*/logs", bytes_str("/v1/tasks/t1/logs"), &size), 10);
    assert_int_equal(size, 2);
    assert_int_equal(access_path_match("/v1/tasks/*/logs", bytes_str("/v1/tasks//logs"), &size), -1);
    assert_int_equal(access_path_match("/", bytes_str("/"), &size), 0);
    assert_int_equal(access_path_match("/", bytes_str("/x"), &size), -1);
}

static void test_throttle(void **state) {
    (void)state;
    static struct throttle t;
    struct bytes a = bytes_str("10.0.0.1"), b = bytes_str("10.0.0.2");
    throttle_init(&t, 7, 60, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(throttle_take(&t, a, 1000), 0);
    }
    assert_int_equal(throttle_take(&t, a, 1000), 1000);
    assert_int_equal(throttle_wait_ms(&t, a, 1000), 1000);
    assert_int_equal(throttle_take(&t, a, 1999), 1);
    assert_int_equal(throttle_take(&t, a, 2000), 0);   /* to the millisecond */
    assert_int_equal(throttle_take(&t, b, 1000), 0);   /* others do not notice */
    assert_int_equal(throttle_take(&t, a, 500), 1000); /* a clock that went back gives nothing away */
    assert_int_equal(throttle_take(&t, a, UINT64_MAX / 2), 0);
    throttle_init(&t, 7, 0, 1);
    assert_int_equal(throttle_take(&t, a, 0), 0);
    assert_int_equal(throttle_take(&t, a, 0), 0);
}

/* Many who call once do not make one forgotten who has used all he has. */
static void test_throttle_under_a_flood(void **state) {
    (void)state;
    static struct throttle t;
    char name[24];
    throttle_init(&t, 99, 60, 10);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(throttle_take(&t, bytes_str("guesser"), 1000), 0);
    }
    for (int i = 0; i < 100000; i++) {
        (void)snprintf(name, sizeof name, "flood %d", i);
        assert_int_equal(throttle_take(&t, bytes_str(name), 1000), 0);
    }
    assert_true(throttle_wait_ms(&t, bytes_str("guesser"), 1000) > 0);
}

static void put_and_read(const struct origin *o, bool brief, size_t bytes_max) {
    struct builder b;
    struct origin found;
    builder_init(&b, 1024);
    origin_put(&b, o, brief);
    size_t head = b.size;
    assert_in_range(head, 1, bytes_max);
    codec_put_array(&b, 1);
    codec_put_uint(&b, 5);
    struct bytes rest = origin_skip(builder_bytes(&b), &found);
    assert_int_equal(rest.size, b.size - head);
    assert_true(bytes_equal(found.who, o->who) && bytes_equal(found.address, o->address) && bytes_equal(found.node, o->node));
    assert_int_equal(found.role, o->role);
    rest = origin_skip(rest, &found); /* there is none */
    assert_int_equal(rest.size, b.size - head);
    assert_int_equal(found.who.size, 0);
    for (size_t size = 0; size < head; size++) { /* cut short it is none, and stays in the way */
        rest = origin_skip(bytes_of(b.data, size), &found);
        assert_int_equal(rest.size, size);
        assert_int_equal(found.who.size, 0);
    }
    builder_free(&b);
}

/* If this failed, the audit trail would name the wrong one, or an entry would be taken for a broken one. */
static void test_origin(void **state) {
    (void)state;
    struct origin o = {
        .who = bytes_str("token 01020304 maria"), .role = ROLE_OPERATOR, .address = bytes_str("10.0.0.7"), .node = bytes_str("2")};
    put_and_read(&o, false, 64);
    put_and_read(&o, true, 64);
    o.address = bytes_str("127.0.0.1");
    put_and_read(&o, true, 64);
    o = (struct origin){.who = bytes_str("anyone"), .role = ROLE_ADMIN, .address = bytes_str("127.0.0.1"), .node = bytes_str("n1")};
    put_and_read(&o, false, 64);
    put_and_read(&o, true, 5); /* each write of a site without callers' names has one */
    static const uint8_t unknown[] = {0xa1, 0x02, 0x61, 'x', 0x80}, twice[] = {0xa2, 0x03, 0x61, 'x', 0x03, 0x61, 'y', 0x80};
    assert_int_equal(origin_skip(bytes_of(unknown, sizeof unknown), NULL).size, sizeof unknown); /* without a gateway */
    assert_int_equal(origin_skip(bytes_of(twice, sizeof twice), NULL).size, sizeof twice);
}

/* Who has a whole network of addresses must not have as many guesses. */
static void test_sources(void **state) {
    (void)state;
    static const struct {
        const char *described, *source;
    } cases[] = {
        {"10.0.0.7:4711", "10.0.0.7"},
        {"[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::/64"},
        {"[2001:db8:1:2:ffff::1]:81", "2001:db8:1:2::/64"},
        {"[::ffff:10.0.0.7]:80", "10.0.0.7"},
        {"[::1]:80", "::1"},
        {"local", "local"},
        {"?", "?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[ACCESS_ADDRESS_BYTES];
        address_source(cases[i].described, out, sizeof out);
        assert_string_equal(out, cases[i].source);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roles_include_those_below),
        cmocka_unit_test(test_who_is_let_in),
        cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_bad_tokens),
        cmocka_unit_test(test_pages_from_elsewhere),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_throttle),
        cmocka_unit_test(test_throttle_under_a_flood),
        cmocka_unit_test(test_origin),
        cmocka_unit_test(test_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
