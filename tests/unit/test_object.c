/* Manifests: if one that was altered, or signed by somebody else, passed, whoever sits on the way could put a site under another config. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/object.h"

static uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
static uint8_t content[3 * OBJECT_CHUNK_BYTES_MIN - 5];

static struct object_manifest example(struct builder *hashes) {
    for (size_t i = 0; i < sizeof content; i++) {
        content[i] = (uint8_t)(i * 7 + i / 251);
    }
    struct object_manifest m = {.kind = OBJECT_POLICY,
                                .name = bytes_str("limits"),
                                .site = bytes_str("plant-7"),
                                .content_type = bytes_str("application/json"),
                                .version = 3,
                                .issue = 1770000000001u,
                                .size = sizeof content,
                                .chunk_bytes = object_chunk_bytes(sizeof content)};
    builder_init(hashes, 4096);
    object_cut(bytes_of(content, sizeof content), m.chunk_bytes, hashes);
    m.hashes = builder_bytes(hashes);
    return m;
}

static void what_was_signed_comes_back(void **state) {
    (void)state;
    struct builder hashes, out;
    struct object_manifest m = example(&hashes), back, unchecked;
    builder_init(&out, OBJECT_SIGNED_BYTES_MAX);
    object_sign(&m, secret_key, &out);
    assert_int_equal(out.err, E_OK);
    assert_true(object_verify(builder_bytes(&out), public_key, &back));
    assert_int_equal(object_read(builder_bytes(&out), &unchecked), E_OK);
    assert_int_equal(back.kind, OBJECT_POLICY);
    assert_true(bytes_equal_str(back.name, "limits") && bytes_equal_str(back.site, "plant-7"));
    assert_true(bytes_equal_str(back.content_type, "application/json"));
    assert_int_equal(back.version, 3);
    assert_int_equal(back.issue, 1770000000001u);
    assert_int_equal(object_chunk_count(&back), 3);
    assert_int_equal(object_size_of(&back, 1), OBJECT_CHUNK_BYTES_MIN);
    assert_int_equal(object_size_of(&back, 2), OBJECT_CHUNK_BYTES_MIN - 5);
    assert_true(bytes_equal(back.hashes, m.hashes) && bytes_equal(unchecked.hashes, m.hashes));
    builder_free(&out);
    builder_free(&hashes);
}

static void no_bit_can_be_changed(void **state) {
    (void)state;
    struct builder hashes, out;
    struct object_manifest m = example(&hashes), back;
    uint8_t other_public[KEYS_ED25519_PUBLIC_BYTES], other_secret[KEYS_ED25519_SECRET_BYTES];
    builder_init(&out, OBJECT_SIGNED_BYTES_MAX);
    object_sign(&m, secret_key, &out);
    for (size_t i = 0; i < out.size * 8; i++) {
        out.data[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_false(object_verify(builder_bytes(&out), public_key, &back));
        out.data[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t cut = 0; cut < out.size; cut++) {
        assert_false(object_verify(bytes_of(out.data, cut), public_key, &back));
    }
    keys_new_ed25519(other_public, other_secret);
    assert_false(object_verify(builder_bytes(&out), other_public, &back));
    assert_true(object_verify(builder_bytes(&out), public_key, &back));
    /* a signature over the same body, but without the label, was made for something else */
    struct codec_reader r;
    codec_reader_init(&r, builder_bytes(&out));
    (void)codec_array(&r, 2);
    struct bytes body = codec_bytes(&r, OBJECT_SIGNED_BYTES_MAX);
    keys_sign_ed25519(body, secret_key, out.data + out.size - KEYS_ED25519_SIGNATURE_BYTES);
    assert_false(object_verify(builder_bytes(&out), public_key, &back));
    builder_free(&out);
    builder_free(&hashes);
}

/* If this failed, a core at fault (its signature holds) could make a gateway read behind the end of a manifest. */
static void what_contradicts_itself_is_refused(void **state) {
    (void)state;
    struct builder hashes, out;
    struct object_manifest good = example(&hashes), back;
    builder_init(&out, OBJECT_SIGNED_BYTES_MAX);
    for (int i = 0; i < 11; i++) {
        struct object_manifest m = good;
        switch (i) {
        case 0:
            m.kind = (enum object_kind)0;
            break;
        case 1:
            m.name = bytes_str("a/b");
            break;
        case 2:
            m.site = bytes_str("");
            break;
        case 3:
            m.version = 0;
            break;
        case 4:
            m.issue = 0;
            break;
        case 5:
            m.size = 3 * OBJECT_CHUNK_BYTES_MIN + 1;
            break;
        case 6:
            m.size = 2 * OBJECT_CHUNK_BYTES_MIN;
            break;
        case 7:
            m.chunk_bytes = 3000;
            break;
        case 8:
            m.chunk_bytes = OBJECT_CHUNK_BYTES_MIN + 1;
            break;
        case 9:
            m.hashes.size -= 1;
            break;
        default: /* kind above the last */
            m.kind = (enum object_kind)(OBJECT_UPDATE + 1);
        }
        builder_reset(&out);
        object_sign(&m, secret_key, &out);
        assert_int_equal(out.err, E_OK);
        assert_int_equal(object_read(builder_bytes(&out), &back), E_BAD_MESSAGE);
        assert_false(object_verify(builder_bytes(&out), public_key, &back));
    }
    builder_free(&out);
    builder_free(&hashes);
}

static void everything_up_to_the_limit_can_be_cut(void **state) {
    (void)state;
    assert_int_equal(object_chunk_bytes(0), OBJECT_CHUNK_BYTES_MIN);
    for (uint64_t size = 1; size <= OBJECT_BYTES_MAX; size = size * 3 + 1) {
        uint32_t bytes = object_chunk_bytes(size);
        assert_true((size + bytes - 1) / bytes <= OBJECT_CHUNKS_MAX);
    }
    assert_int_equal(object_chunk_bytes(OBJECT_BYTES_MAX), OBJECT_CHUNK_BYTES_MAX);
    struct builder hashes;
    builder_init(&hashes, 4096);
    object_cut(bytes_of(NULL, 0), OBJECT_CHUNK_BYTES_MIN, &hashes);
    assert_int_equal(hashes.size, 0);
    struct object_manifest empty = {
        .kind = OBJECT_CONFIG, .name = bytes_str("e"), .site = bytes_str("s"), .version = 1, .issue = 1, .chunk_bytes = 4096};
    struct object_manifest back;
    object_sign(&empty, secret_key, &hashes);
    assert_true(object_verify(builder_bytes(&hashes), public_key, &back));
    assert_int_equal(object_chunk_count(&back), 0);
    builder_free(&hashes);
}

int main(void) {
    keys_new_ed25519(public_key, secret_key);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_signed_comes_back),
        cmocka_unit_test(no_bit_can_be_changed),
        cmocka_unit_test(what_contradicts_itself_is_refused),
        cmocka_unit_test(everything_up_to_the_limit_can_be_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
