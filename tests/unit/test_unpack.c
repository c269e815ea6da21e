/* The core's ends of squeezed sessions: mixed up or taken out of order, one site's events would be read with another's words; and a fleet
 * must not eat the core's memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/unpack.h"
#include "federation/record.h"

#define INCARNATION 77u
#define MIB (1024u * 1024u)

/* A site that squeezes one event a frame. */
struct site {
    char name[16];
    struct squeeze *squeeze;
    uint32_t session, serial;
    grey_epoch epoch;
    grey_seq seq;
    struct builder packed, plain;
    struct sync_squeezed frame;
};

static void site_begin(struct site *s, const char *name) {
    *s = (struct site){.squeeze = squeeze_new(), .session = 40, .epoch = 1};
    assert_non_null(s->squeeze);
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    builder_init(&s->packed, MIB);
    builder_init(&s->plain, MIB);
}

static void site_free(struct site *s) {
    squeeze_free(s->squeeze);
    builder_free(&s->packed);
    builder_free(&s->plain);
}

static void site_new_session(struct site *s) {
    squeeze_forget(s->squeeze);
    s->session++;
    s->serial = 0;
}

static void site_next(struct site *s) {
    struct builder record;
    char id[32];
    (void)snprintf(id, sizeof id, "%s-%u", s->name, (unsigned)++s->seq);
    struct event event = {
        .id = bytes_str(id), .source = bytes_str(s->name), .type = bytes_str("t"), .data = bytes_str("{\"temperature\":21.5}")};
    builder_init(&record, MIB);
    record_encode(&event, &record);
    struct sync_item item = {.seq = s->seq, .index = 9, .time_ms = 1000, .record = builder_bytes(&record)};
    struct sync_events e = {.incarnation = INCARNATION,
                            .epoch = s->epoch,
                            .channel = CHANNEL_DATA,
                            .from_seq = s->seq,
                            .to_seq = s->seq,
                            .items = &item,
                            .item_count = 1};
    builder_reset(&s->plain);
    builder_reset(&s->packed);
    sync_put_events(&s->plain, &e);
    s->frame = (struct sync_squeezed){.incarnation = INCARNATION,
                                      .epoch = s->epoch,
                                      .channel = CHANNEL_DATA,
                                      .from_seq = s->seq,
                                      .to_seq = s->seq,
                                      .session = s->session,
                                      .serial = s->serial++};
    assert_int_equal(squeeze_pack(s->squeeze, &e, MIB, &s->packed, &s->frame.sum), E_OK);
    s->frame.packed = builder_bytes(&s->packed);
    builder_free(&record);
}

static uint64_t now_ms = 5;

/* The frame arrives; what is taken is what the site would have sent plainly. */
static void expect(struct unpack *p, const struct site *s, enum unpack_verdict verdict) {
    struct builder content;
    builder_init(&content, MIB);
    assert_int_equal(unpack_frame(p, s->name, &s->frame, now_ms, &content), verdict);
    if (verdict == UNPACK_TAKEN) {
        assert_true(bytes_equal(builder_bytes(&content), builder_bytes(&s->plain)));
    }
    builder_free(&content);
}

static void expect_next(struct unpack *p, struct site *s, enum unpack_verdict verdict) {
    site_next(s);
    expect(p, s, verdict);
}

static void sessions_are_kept_apart(void **state) {
    (void)state;
    struct unpack *p = unpack_new(4);
    struct site a, b;
    site_begin(&a, "a");
    site_begin(&b, "b");
    expect_next(p, &a, UNPACK_AGAIN); /* has not said hello */
    site_new_session(&a);
    assert_true(unpack_admit(p, "a", 0) && unpack_admit(p, "b", 0));
    assert_int_equal(unpack_sessions(p), 0);
    for (unsigned i = 0; i < 50; i++) {
        expect_next(p, &a, UNPACK_TAKEN);
        expect_next(p, &b, UNPACK_TAKEN);
        expect(p, &b, UNPACK_REPEAT);
    }
    assert_int_equal(unpack_sessions(p), 2);
    assert_in_range(b.packed.size, 1, 12); /* it has learnt */
    site_free(&a);
    site_free(&b);
    unpack_free(p);
}

static void what_does_not_follow_ends_a_session_until_a_new_one(void **state) {
    (void)state;
    struct unpack *p = unpack_new(4);
    struct site a;
    site_begin(&a, "a");
    assert_true(unpack_admit(p, "a", 0));
    expect_next(p, &a, UNPACK_TAKEN);
    site_next(&a); /* lost */
    expect_next(p, &a, UNPACK_AGAIN);
    now_ms += UNPACK_TELL_MS - 1;
    expect_next(p, &a, UNPACK_IGNORED);
    now_ms++;
    expect_next(p, &a, UNPACK_AGAIN); /* it may not have heard, or not have listened */
    expect_next(p, &a, UNPACK_IGNORED);
    site_new_session(&a);
    expect_next(p, &a, UNPACK_TAKEN);
    expect_next(p, &a, UNPACK_TAKEN);
    site_next(&a); /* damaged */
    a.frame.sum ^= 1;
    expect(p, &a, UNPACK_AGAIN);
    a.frame.sum ^= 1;
    expect(p, &a, UNPACK_IGNORED);
    site_new_session(&a);
    expect_next(p, &a, UNPACK_TAKEN);
    site_next(&a); /* the head says more than is in it */
    a.frame.to_seq++;
    expect(p, &a, UNPACK_AGAIN);
    site_new_session(&a);
    a.epoch = 3;
    expect_next(p, &a, UNPACK_TAKEN);
    struct site former;
    site_begin(&former, "a");
    former.epoch = 2;
    expect_next(p, &former, UNPACK_STALE); /* a former leader disturbs nobody */
    expect_next(p, &a, UNPACK_TAKEN);
    site_free(&former);
    site_free(&a);
    unpack_free(p);
}

static void only_so_many_sites_hold_memory(void **state) {
    (void)state;
    enum { SITES = 64 };
    struct unpack *p = unpack_new(SITES);
    char name[16];
    for (unsigned i = 0; i < SITES; i++) {
        (void)snprintf(name, sizeof name, "site%u", i);
        assert_true(unpack_admit(p, name, 100 + i));
        assert_true(unpack_admit(p, name, 100 + i));
    }
    assert_false(unpack_admit(p, "late", 100 + UNPACK_IDLE_MS - 1));
    for (unsigned i = 0; i < 10 * SITES; i++) { /* each takes the place of the one that was silent longest */
        (void)snprintf(name, sizeof name, "late%u", i);
        assert_true(unpack_admit(p, name, 100 + SITES + (i + 1) * (uint64_t)UNPACK_IDLE_MS));
    }
    struct site a;
    site_begin(&a, "late639");
    expect_next(p, &a, UNPACK_TAKEN);
    assert_int_equal(unpack_sessions(p), 1);
    (void)snprintf(a.name, sizeof a.name, "site3");
    site_new_session(&a);
    expect_next(p, &a, UNPACK_AGAIN);
    for (unsigned i = 0; i < SITES; i++) {
        (void)snprintf(name, sizeof name, "new%u", i);
        assert_true(unpack_admit(p, name, 10000ull * UNPACK_IDLE_MS));
    }
    assert_int_equal(unpack_sessions(p), 0);
    site_free(&a);
    unpack_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_are_kept_apart),
        cmocka_unit_test(what_does_not_follow_ends_a_session_until_a_new_one),
        cmocka_unit_test(only_so_many_sites_hold_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
