/* Sealed frames: a mistake here lets a broker change, repeat or read what a site tells its core, or loses frames that only came late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/envelope.h"
#include "include/grey/limits.h"

#define FRAMES 4000u

static const uint8_t KEY[CIPHER_KEY_BYTES] = {9, 8, 7};

static void plain_frame(struct builder *out, struct bytes payload) {
    builder_reset(out);
    frame_write(out, FRAME_FLAG_PRIORITY, 77, 123456789, payload);
}

static void read_back(struct builder *b, struct frame *f) {
    size_t used, need;
    enum grey_error why;
    assert_int_equal(frame_read(builder_bytes(b), f, &used, &need, &why), FRAME_READY);
    assert_int_equal(used, b->size);
}

struct pair {
    struct envelope_sender s;
    struct envelope_receiver r;
    struct builder plain, sealed, scratch;
};

static struct pair *begin(void) {
    struct pair *p = calloc(1, sizeof *p);
    assert_non_null(p);
    envelope_sender_init(&p->s, ENVELOPE_UP, KEY, 0);
    envelope_receiver_init(&p->r, ENVELOPE_UP, KEY);
    builder_init(&p->plain, 2 * LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&p->sealed, 2 * LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&p->scratch, 2 * LIMIT_FRAME_PAYLOAD_BYTES);
    return p;
}

static void end(struct pair *p) {
    builder_free(&p->plain);
    builder_free(&p->sealed);
    builder_free(&p->scratch);
    free(p);
}

static void seal(struct pair *p, enum event_channel c, struct bytes payload, uint64_t now_ms, struct frame *sealed) {
    plain_frame(&p->plain, payload);
    builder_reset(&p->sealed);
    assert_int_equal(envelope_seal(&p->s, c, builder_bytes(&p->plain), now_ms, &p->sealed), E_OK);
    read_back(&p->sealed, sealed);
}

static void what_is_sealed_opens(void **state) {
    (void)state;
    struct pair *p = begin();
    uint8_t *text = malloc(LIMIT_FRAME_PAYLOAD_BYTES);
    assert_non_null(text);
    static const size_t sizes[] = {0, 1, 15, 16, 17, 4000, LIMIT_FRAME_PAYLOAD_BYTES - CIPHER_TAG_BYTES};
    memset(text, 'x', LIMIT_FRAME_PAYLOAD_BYTES);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct frame sealed, plain;
        seal(p, (enum event_channel)(i % CHANNEL_COUNT), bytes_of(text, sizes[i]), 5, &sealed);
        assert_int_equal(p->sealed.size, p->plain.size + ENVELOPE_OVERHEAD_BYTES);
        assert_int_equal(sealed.flags, FRAME_FLAG_PRIORITY | FRAME_FLAG_ENCRYPTED);
        if (sizes[i] >= 15) {
            assert_null(memmem(p->sealed.data, p->sealed.size, "xxxxxxxxxxxxxxx", 15));
        }
        assert_int_equal(envelope_open(&p->r, (enum event_channel)(i % CHANNEL_COUNT), &sealed, &p->scratch, &plain), E_OK);
        assert_int_equal(plain.flags, FRAME_FLAG_PRIORITY);
        assert_int_equal(plain.time_ns, 123456789);
        assert_int_equal(plain.payload.size, sizes[i]);
        assert_true(sizes[i] == 0 || memcmp(plain.payload.data, text, sizes[i]) == 0);
    }
    plain_frame(&p->plain, bytes_of(text, LIMIT_FRAME_PAYLOAD_BYTES));
    assert_int_equal(envelope_seal(&p->s, CHANNEL_DATA, builder_bytes(&p->plain), 5, &p->sealed), E_TOO_LARGE);
    assert_int_equal(envelope_seal(&p->s, CHANNEL_DATA, bytes_str("no frame"), 5, &p->sealed), E_BAD_FRAME);
    free(text);
    end(p);
}

/* Every bit of a sealed frame, with its checksum made good again; and the places where a whole one could be put. */
static void nothing_else_opens(void **state) {
    (void)state;
    struct pair *p = begin();
    struct frame sealed, plain;
    seal(p, CHANNEL_EVENTS, bytes_str("the door is open"), 0, &sealed);
    uint8_t copy[256];
    size_t size = p->sealed.size, tried = 0;
    assert_in_range(size, 32, sizeof copy);
    for (size_t bit = 0; bit < 8 * (size - 4); bit++) {
        struct frame f;
        size_t used, need;
        enum grey_error why;
        struct builder again;
        memcpy(copy, p->sealed.data, size);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        builder_init(&again, 4096);
        f = (struct frame){
            .flags = bytes_get_be16(copy + 6), .message_id = bytes_get_be64(copy + 8), .time_ns = bytes_get_be64(copy + 16)};
        f.payload = bytes_of(copy + FRAME_HEAD_BYTES, size - FRAME_OVERHEAD_BYTES);
        frame_write(&again, f.flags, f.message_id, f.time_ns, f.payload);
        assert_int_equal(frame_read(builder_bytes(&again), &f, &used, &need, &why), FRAME_READY);
        if (memcmp(again.data, p->sealed.data, size) != 0) {
            enum grey_error err = envelope_open(&p->r, CHANNEL_EVENTS, &f, &p->scratch, &plain);
            assert_true(err == E_SEALED || err == E_BAD_FRAME || err == E_REPEATED);
            tried++;
        }
        builder_free(&again);
    }
    assert_in_range(tried, 8 * (2 + 8 + 8 + 16 + 16), SIZE_MAX);
    assert_int_equal(envelope_open(&p->r, CHANNEL_DATA, &sealed, &p->scratch, &plain), E_SEALED);
    struct envelope_receiver down;
    envelope_receiver_init(&down, ENVELOPE_DOWN, KEY);
    assert_int_equal(envelope_open(&down, CHANNEL_EVENTS, &sealed, &p->scratch, &plain), E_SEALED);
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &sealed, &p->scratch, &plain), E_OK); /* all that left no mark */
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &sealed, &p->scratch, &plain), E_REPEATED);
    end(p);
}

/* In any order within the window each frame is taken once; what is older is never taken. */
static void each_is_taken_once_in_any_order(void **state) {
    (void)state;
    static struct frame frames[FRAMES];
    static uint8_t bytes[FRAMES][64];
    static uint8_t times[FRAMES];
    srand(5);
    for (unsigned round = 0; round < 30; round++) {
        struct pair *p = begin();
        uint64_t now_ms = 0;
        for (unsigned i = 0; i < FRAMES; i++) {
            struct frame f;
            now_ms += rand() % 3000 == 0 ? ENVELOPE_KEY_MS_MAX : 1; /* the key turns now and then */
            seal(p, CHANNEL_DATA, bytes_of(&i, sizeof i), now_ms, &f);
            memcpy(bytes[i], f.payload.data, f.payload.size);
            frames[i] = f;
            frames[i].payload.data = bytes[i];
        }
        memset(times, 0, sizeof times);
        unsigned spread = round % 3 == 0 ? 1 : round % 3 == 1 ? 60 : 800, taken = 0;
        for (unsigned k = 0; k < 3 * FRAMES; k++) {
            unsigned at = k / 3, i = at < spread ? (unsigned)rand() % (at + 1) : at - (unsigned)rand() % spread;
            struct frame plain;
            enum grey_error err = envelope_open(&p->r, CHANNEL_DATA, &frames[i], &p->scratch, &plain);
            unsigned number;
            if (err == E_OK) {
                memcpy(&number, plain.payload.data, sizeof number);
                assert_int_equal(number, i);
                assert_int_equal(times[i]++, 0);
                taken++;
            } else {
                assert_int_equal(err, E_REPEATED);
                assert_true(times[i] == 1 || frames[i].message_id >> 48 < p->r.age);
            }
        }
        assert_in_range(taken, FRAMES / 2, FRAMES);
        for (unsigned i = 0; i < FRAMES; i++) { /* a broker that kept them all */
            struct frame plain;
            enum grey_error err = envelope_open(&p->r, CHANNEL_DATA, &frames[i], &p->scratch, &plain);
            assert_true(err == E_REPEATED || times[i] == 0);
        }
        end(p);
    }
}

static void keys_turn_and_are_forgotten(void **state) {
    (void)state;
    struct pair *p = begin();
    struct frame first, late, next, plain;
    uint8_t kept[2][64], old_key[CIPHER_KEY_BYTES];
    seal(p, CHANNEL_EVENTS, bytes_str("first"), 0, &first);
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &first, &p->scratch, &plain), E_OK);
    seal(p, CHANNEL_EVENTS, bytes_str("late"), 10, &late);
    memcpy(kept[0], late.payload.data, late.payload.size);
    late.payload.data = kept[0];
    memcpy(old_key, p->s.key, sizeof old_key);
    seal(p, CHANNEL_EVENTS, bytes_str("under another key"), ENVELOPE_KEY_MS_MAX, &next);
    assert_int_equal(next.message_id >> 48, 1);
    assert_memory_not_equal(p->s.key, old_key, sizeof old_key);
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &next, &p->scratch, &plain), E_OK);
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &late, &p->scratch, &plain), E_OK);
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &late, &p->scratch, &plain), E_REPEATED);
    /* many keys of which nothing arrived */
    for (unsigned i = 2; i <= 30; i++) {
        seal(p, CHANNEL_EVENTS, bytes_str("lost"), (uint64_t)i * ENVELOPE_KEY_MS_MAX, &next);
    }
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &next, &p->scratch, &plain), E_OK);
    assert_int_equal(p->r.age, 30);
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &late, &p->scratch, &plain), E_REPEATED);
    for (unsigned i = 31; i <= 31 + ENVELOPE_AGES_AHEAD_MAX; i++) { /* more than is believed */
        seal(p, CHANNEL_EVENTS, bytes_str("lost"), (uint64_t)i * ENVELOPE_KEY_MS_MAX, &next);
    }
    assert_int_equal(envelope_open(&p->r, CHANNEL_EVENTS, &next, &p->scratch, &plain), E_SEALED);
    assert_int_equal(p->r.age, 30);
    end(p);
}

static void keys_turn_by_bytes_and_end(void **state) {
    (void)state;
    struct pair *p = begin();
    struct frame f, plain;
    seal(p, CHANNEL_DATA, bytes_str("a"), 0, &f);
    p->s.bytes = ENVELOPE_KEY_BYTES_MAX - 1;
    seal(p, CHANNEL_DATA, bytes_str("bb"), 0, &f);
    assert_int_equal(f.message_id, 1ull << 48 | 1);
    assert_int_equal(envelope_open(&p->r, CHANNEL_DATA, &f, &p->scratch, &plain), E_OK);
    p->s.number = (1ull << 48) - 1; /* all numbers are used */
    seal(p, CHANNEL_DATA, bytes_str("c"), 0, &f);
    assert_int_equal(f.message_id, 2ull << 48 | 1);
    p->s.age = UINT16_MAX;
    p->s.number = (1ull << 48) - 1;
    plain_frame(&p->plain, bytes_str("d"));
    assert_int_equal(envelope_seal(&p->s, CHANNEL_DATA, builder_bytes(&p->plain), 0, &p->sealed), E_STOPPING);
    end(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_opens),
        cmocka_unit_test(nothing_else_opens),
        cmocka_unit_test(each_is_taken_once_in_any_order),
        cmocka_unit_test(keys_turn_and_are_forgotten),
        cmocka_unit_test(keys_turn_by_bytes_and_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
