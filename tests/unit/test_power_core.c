/* A power cut at any file call of the core's store: while it is made, brought up to date, written, checkpointed and closed.  If one of these
 * failed, the core would lose what it told a site to free, or not start again.  GREY_CUTS=all: at each call, not at some. */
#include "tests/unit/power_rig.h"

#include "core/store_answers.h"
#include "core/store_enroll.h"
#include "core/store_restored.h"
#include "platform/db.h"
#include "platform/json.h"
#include "tests/unit/store_rig.h"

struct promise {
    grey_seq position;
    uint64_t tokens;
};

static void say(const struct power_tally *t, const char *what) {
    print_message("%s: %zu file calls, %zu of them syncs; %zu cuts at %zu boundaries\n", what, t->calls, t->syncs, t->cuts,
                  t->boundaries);
}

static struct store *open_at(const char *folder, struct fault *f) {
    char path[200];
    (void)snprintf(path, sizeof path, "sqlite:%s/core.db", folder);
    struct store *s = store_open(path, &(struct store_options){.mark_dir = folder}, f);
    if (s == NULL) {
        return NULL;
    }
    enum grey_error err = store_mark_check(s, 1000, f);
    if (err != E_OK) {
        store_close(s);
        return NULL;
    }
    return s;
}

static grey_seq site_stands(struct store *s, enum grey_error *err, struct fault *f) {
    struct sync_hello h = {.incarnation = 7, .epoch = 3, .feature_level = 2, .node = bytes_str("a"), .time_ms = 5};
    grey_seq positions[CHANNEL_COUNT] = {0};
    bool rolled_back;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        h.channels[i].next_seq = 1000000;
    }
    *err = store_begin(s, f);
    *err = *err != E_OK ? *err : store_hello(s, "plant", &h, 1000, positions, &rolled_back, f);
    *err = *err != E_OK ? *err : store_commit(s, f);
    return positions[CHANNEL_DATA];
}

static void take_token(struct store *s, struct promise *p) {
    struct fault f = {0};
    struct store_token t = {
        .hash = {(uint8_t)(p->tokens + 1)}, .site = "plant", .nodes = 3, .created_ms = 1000, .expires_ms = 1 << 30};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_token_add(s, &t, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    p->tokens++;
    power_promise(p, sizeof *p);
}

/* Frames of up to 40 events, each of which repeats some that came before. */
static void take_events(struct store *s, struct promise *p, unsigned round) {
    static struct sync_item items[SYNC_ITEMS_MAX];
    grey_seq back = p->position > 9 ? p->position - 8 : 1;
    struct sync_events frame = {.incarnation = 7,
                                .epoch = 3,
                                .channel = CHANNEL_DATA,
                                .from_seq = back,
                                .to_seq = p->position + 1 + round * 7 % 40,
                                .items = items};
    struct builder records;
    struct fault f = {0};
    struct store_taken taken;
    size_t ends[64];
    builder_init(&records, 1 << 20);
    for (grey_seq seq = frame.from_seq; seq <= frame.to_seq; seq++) {
        char text[400];
        (void)snprintf(text, sizeof text, "%0*u", round % 5 == 0 ? 390 : 40, (unsigned)seq);
        struct event e = {.id = bytes_str("x"), .source = bytes_str("pump"), .type = bytes_str("t"), .data = bytes_str(text)};
        record_encode(&e, &records);
        ends[frame.item_count] = records.size;
        items[frame.item_count++] = (struct sync_item){.seq = seq, .index = seq, .time_ms = 5};
    }
    for (uint32_t i = 0; i < frame.item_count; i++) {
        size_t begin = i == 0 ? 0 : ends[i - 1];
        items[i].record = bytes_of(records.data + begin, ends[i] - begin);
    }
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_events(s, "plant", &frame, 1000, &taken, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    builder_free(&records);
    p->position = taken.position;
    power_promise(p, sizeof *p);
}

static void work(struct promise *p) {
    struct fault f = {0};
    enum grey_error err;
    for (unsigned life = 0; life < 3; life++) {
        struct store *s = open_at(dir, &f);
        assert_non_null(s);
        (void)site_stands(s, &err, &f);
        assert_int_equal(err, E_OK);
        for (unsigned round = 1; round <= 12; round++) {
            take_events(s, p, life * 12 + round);
            if (round % 4 == 0) {
                take_token(s, p);
            }
        }
        store_close(s);
    }
}

static json_t *answer_of(struct builder *text) {
    struct fault f = {0};
    json_t *answer = json_read(builder_bytes(text), &f);
    assert_non_null(answer);
    builder_free(text);
    return answer;
}

static void keeps_what_it_acknowledged(const struct power_cut *cut, void *context) {
    (void)context;
    static const struct promise none;
    const struct promise *p = cut->promise == NULL ? &none : cut->promise;
    struct fault f = {0};
    struct json_writer w;
    struct builder text;
    enum grey_error err;
    struct store *s = open_at(cut->dir, &f);
    if (s == NULL) {
        fail_msg("%s: %s", cut->what, f.text);
    }
    if (store_restored_open()) {
        fail_msg("%s: taken for an older copy", cut->what);
    }
    grey_seq stands = site_stands(s, &err, &f);
    if (err != E_OK || stands < p->position) {
        fail_msg("%s: stands at %u, acknowledged was %u: %s", cut->what, (unsigned)stands, (unsigned)p->position, f.text);
    }
    json_int_t expected = 1;
    char after[80] = "";
    for (size_t count = 1; count > 0;) {
        struct store_query q = {.channel = CHANNEL_DATA, .after = after, .limit = 1000};
        builder_init(&text, 10000000);
        json_writer_init(&w, &text);
        assert_int_equal(store_answers_events(s, "plant", &q, &w, &f), E_OK);
        json_t *answer = answer_of(&text);
        const json_t *events = json_object_get(answer, "events");
        count = json_array_size(events);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(json_integer_value(json_object_get(json_array_get(events, i), "seq")), expected++);
        }
        (void)snprintf(after, sizeof after, "%s", json_string_value(json_object_get(answer, "next")));
        json_decref(answer);
    }
    assert_int_equal(expected, stands + 1);
    builder_init(&text, 100000);
    json_writer_init(&w, &text);
    assert_int_equal(store_token_list(s, 1000, &w, &f), E_OK);
    json_t *tokens = answer_of(&text);
    assert_true(json_array_size(tokens) >= p->tokens);
    json_decref(tokens);
    store_close(s);
}

static void a_core_keeps_what_it_acknowledged(void **state) {
    (void)state;
    struct promise p = {0};
    power_watch(dir);
    work(&p);
    struct power_tally t = power_cuts(power_boundaries(50), keeps_what_it_acknowledged, NULL);
    say(&t, "a core's store");
    assert_true(t.calls > 300 && p.position > 300);
}

/* A store of before: some columns and tables are not there yet. */
static void a_core_that_is_updated_keeps_it_too(void **state) {
    (void)state;
    struct promise p = {0};
    struct fault f = {0};
    struct db_options o = {.page_bytes = 4096, .cache_bytes = 1 << 20};
    char path[200];
    bool created;
    power_watch(dir);
    work(&p);
    (void)power_cuts(1, keeps_what_it_acknowledged, NULL);
    (void)snprintf(path, sizeof path, "%s/core.db", dir);
    struct db *old = db_open(path, &o, &created, &f);
    assert_non_null(old);
    assert_int_equal(
        db_exec(old,
                "ALTER TABLE gap DROP COLUMN bytes; ALTER TABLE site DROP COLUMN asked_ms; DROP TABLE ahead; DROP TABLE chunk;",
                &f),
        E_OK);
    db_close(old);
    power_watch(dir);
    power_promise(&p, sizeof p);
    struct store *s = open_at(dir, &f);
    assert_non_null(s);
    store_close(s);
    struct power_tally t = power_cuts(power_boundaries(25), keeps_what_it_acknowledged, NULL);
    say(&t, "a core's store that is brought up to date");
    assert_true(t.calls > 20);
}

/* As an earlier version left it, which made its tables one by one. */
static void a_store_that_was_half_made_is_made(void **state) {
    (void)state;
    struct fault f = {0};
    struct db_options o = {.page_bytes = 4096, .cache_bytes = 1 << 20};
    char path[200];
    bool created;
    (void)snprintf(path, sizeof path, "%s/core.db", dir);
    struct db *old = db_open(path, &o, &created, &f);
    assert_non_null(old);
    assert_int_equal(db_exec(old, "CREATE TABLE meta(format INTEGER NOT NULL)", &f), E_OK);
    db_close(old);
    keeps_what_it_acknowledged(&(struct power_cut){.dir = dir, .what = "half made"}, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_core_keeps_what_it_acknowledged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_core_that_is_updated_keeps_it_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_store_that_was_half_made_is_made, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
