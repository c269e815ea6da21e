/* The keys of a session: a mistake here lets a broker in between sit at both ends, or a stranger speak for a site. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/handshake.h"
#include "include/grey/limits.h"

static uint8_t core_public[KEYS_ED25519_PUBLIC_BYTES], core_secret[KEYS_ED25519_SECRET_BYTES];

struct talk {
    struct handshake site, core;
    struct builder up, down, scratch_core, scratch_site;
    struct handshake_hello heard;
    struct handshake_keys site_keys, core_keys;
    struct bytes welcome;
    uint8_t proof[32];
};

static void draw(uint8_t out[KEYS_X25519_BYTES]) {
    keys_random(out, KEYS_X25519_BYTES);
}

static void talk_init(struct talk *t) {
    memset(t, 0, sizeof *t);
    builder_init(&t->up, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&t->down, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&t->scratch_core, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&t->scratch_site, LIMIT_FRAME_PAYLOAD_BYTES);
}

static void talk_free(struct talk *t) {
    builder_free(&t->up);
    builder_free(&t->down);
    builder_free(&t->scratch_core);
    builder_free(&t->scratch_site);
}

static void say_hello(struct talk *t) {
    uint8_t fresh[KEYS_X25519_BYTES];
    draw(fresh);
    assert_true(handshake_begin(&t->site, "factory", core_public, fresh));
    handshake_proof(&t->site, bytes_str("hello"), bytes_str("certificate"), t->proof);
    handshake_put_hello(&t->up, &t->site, bytes_str("hello"), bytes_str("certificate"), bytes_str("signature"));
    assert_int_equal(t->up.err, E_OK);
}

static enum grey_error hear_hello(struct talk *t) {
    return handshake_get_hello(&t->core, "factory", core_secret, builder_bytes(&t->up), &t->scratch_core, &t->heard);
}

static void say_welcome(struct talk *t) {
    uint8_t fresh[KEYS_X25519_BYTES];
    draw(fresh);
    assert_int_equal(handshake_put_welcome(&t->down, &t->core, fresh, bytes_str("welcome"), &t->core_keys), E_OK);
}

static enum grey_error hear_welcome(struct talk *t) {
    return handshake_get_welcome(&t->site, builder_bytes(&t->down), &t->scratch_site, &t->welcome, &t->site_keys);
}

static void both_ends_have_the_same_keys(void **state) {
    (void)state;
    struct talk t, other;
    talk_init(&t);
    say_hello(&t);
    assert_null(memmem(t.up.data, t.up.size, "hello", 5));
    assert_null(memmem(t.up.data, t.up.size, "cert", 4));
    assert_int_equal(t.up.size, 5 + 11 + 9 + 59); /* what it costs on a thin link */
    assert_int_equal(hear_hello(&t), E_OK);
    assert_true(bytes_equal_str(t.heard.hello, "hello") && bytes_equal_str(t.heard.cert, "certificate") &&
                bytes_equal_str(t.heard.signature, "signature"));
    assert_memory_equal(t.heard.proof, t.proof, sizeof t.proof);
    say_welcome(&t);
    assert_int_equal(hear_welcome(&t), E_OK);
    assert_true(bytes_equal_str(t.welcome, "welcome"));
    assert_memory_equal(&t.site_keys, &t.core_keys, sizeof t.site_keys);
    assert_memory_not_equal(t.site_keys.up, t.site_keys.down, CIPHER_KEY_BYTES);
    talk_init(&other);
    say_hello(&other);
    assert_int_equal(hear_hello(&other), E_OK);
    say_welcome(&other);
    assert_int_equal(hear_welcome(&other), E_OK);
    assert_memory_not_equal(other.site_keys.up, t.site_keys.up, CIPHER_KEY_BYTES); /* another session, other keys */
    talk_free(&other);
    talk_free(&t);
}

/* All bits of both messages; what is refused does no harm to the one that comes after it. */
static void changed_messages_are_refused(void **state) {
    (void)state;
    struct talk t;
    talk_init(&t);
    say_hello(&t);
    for (size_t bit = 0; bit < 8 * t.up.size; bit++) {
        t.up.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        /* the top bit of an X25519 key is not part of it (RFC 7748, 5): but of what is said, and so of what opens */
        assert_int_not_equal(hear_hello(&t), E_OK);
        t.up.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(hear_hello(&t), E_OK);
    say_welcome(&t);
    for (size_t bit = 0; bit < 8 * t.down.size; bit++) {
        t.down.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(hear_welcome(&t), E_OK);
        t.down.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size < t.down.size; size++) {
        assert_int_not_equal(handshake_get_welcome(&t.site, bytes_of(t.down.data, size), &t.scratch_site, &t.welcome, &t.site_keys),
                             E_OK);
    }
    assert_int_equal(hear_welcome(&t), E_OK);
    assert_memory_equal(&t.site_keys, &t.core_keys, sizeof t.site_keys);
    talk_free(&t);
}

static void strangers_are_refused(void **state) {
    (void)state;
    struct talk t, replayed;
    uint8_t fresh[KEYS_X25519_BYTES], evil_public[32], evil_secret[64], none[32] = {0};
    talk_init(&t);
    talk_init(&replayed);
    say_hello(&t);
    assert_int_equal(handshake_get_hello(&t.core, "ship", core_secret, builder_bytes(&t.up), &t.scratch_core, &t.heard), E_SEALED);
    keys_new_ed25519(evil_public, evil_secret); /* a core that is not ours cannot read the hello, nor answer it */
    assert_int_equal(handshake_get_hello(&t.core, "factory", evil_secret, builder_bytes(&t.up), &t.scratch_core, &t.heard),
                     E_SEALED);
    assert_int_equal(hear_hello(&t), E_OK);
    say_welcome(&t);
    assert_int_equal(hear_welcome(&t), E_OK);
    /* An old hello, played again: the core answers; who does not have the site's fresh secret has no keys. */
    builder_add(&replayed.up, builder_bytes(&t.up));
    assert_int_equal(hear_hello(&replayed), E_OK);
    say_welcome(&replayed);
    assert_memory_not_equal(replayed.core_keys.up, t.core_keys.up, CIPHER_KEY_BYTES);
    /* An old welcome, to a new hello. */
    struct talk next;
    talk_init(&next);
    say_hello(&next);
    builder_add(&next.down, builder_bytes(&t.down));
    assert_int_equal(hear_welcome(&next), E_SEALED);
    draw(fresh);
    assert_false(handshake_begin(&next.site, "factory", none, fresh));
    talk_free(&next);
    talk_free(&replayed);
    talk_free(&t);
}

/* Somebody in between who makes the site's message anew has other keys: no signature of the gateway fits. */
static void a_proof_is_for_one_handshake(void **state) {
    (void)state;
    struct handshake a, b;
    uint8_t fresh[KEYS_X25519_BYTES], one[32], other[32];
    draw(fresh);
    assert_true(handshake_begin(&a, "factory", core_public, fresh));
    handshake_proof(&a, bytes_str("hello"), bytes_str("cert"), one);
    handshake_proof(&a, bytes_str("hellp"), bytes_str("cert"), other);
    assert_memory_not_equal(one, other, 32);
    handshake_proof(&a, bytes_str("hello"), bytes_str("cerT"), other);
    assert_memory_not_equal(one, other, 32);
    handshake_proof(&a, bytes_str("helloc"), bytes_str("ert"), other);
    assert_memory_not_equal(one, other, 32);
    assert_true(handshake_begin(&b, "factory2", core_public, fresh));
    handshake_proof(&b, bytes_str("hello"), bytes_str("cert"), other);
    assert_memory_not_equal(one, other, 32);
    draw(fresh);
    assert_true(handshake_begin(&b, "factory", core_public, fresh));
    handshake_proof(&b, bytes_str("hello"), bytes_str("cert"), other);
    assert_memory_not_equal(one, other, 32);
}

static int set_up(void **state) {
    (void)state;
    keys_new_ed25519(core_public, core_secret);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_have_the_same_keys),
        cmocka_unit_test(changed_messages_are_refused),
        cmocka_unit_test(strangers_are_refused),
        cmocka_unit_test(a_proof_is_for_one_handshake),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
