/* A log with any one page damaged: what it still holds and what others have make the very same log again (FAULTS P10, P12, G11). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/store/salvage.h"
#include "agent/table/table.h"
#include "federation/raft/entries.h"
#include "tests/unit/power_rig.h"

#define ENTRIES 300u
#define APPLIED 120u
#define PAGE 1024
#define WALL_MS INT64_C(1800000000000)

struct log {
    char dir[64];
    struct entry entries[ENTRIES];
};

/* A command of the shell; $D is the directory. */
static void run(const struct log *l, const char *command) {
    assert_int_equal(setenv("D", l->dir, 1), 0);
    assert_int_equal(system(command), 0);
}

static void make_entry(struct entry *e, raft_index index, const uint8_t *previous) {
    uint8_t payload[5000];
    size_t size = (size_t)(index % 17 == 0 ? 0 : index % 23 == 0 ? 4000 + index : 20 + index * 37 % 400);
    for (size_t i = 0; i < size; i++) {
        payload[i] = (uint8_t)(index * 31 + i);
    }
    *e = (struct entry){.index = index,
                        .term = 1 + index / 100,
                        .epoch = 1 + index / 100,
                        .time_ms = WALL_MS + (int64_t)index,
                        .kind = ENTRY_KV,
                        .schema = ENTRY_SCHEMA,
                        .payload = size == 0 ? NULL : blob_copy(bytes_of(payload, size))};
    entry_seal(e, previous);
}

/* Every third of the entries that are applied has a payload that rows refer to. */
static void make_state(const struct log *l) {
    char path[96];
    struct fault f = {0};
    static uint8_t keys[APPLIED][4];
    static struct table_op ops[APPLIED];
    uint32_t count = 0;
    for (uint32_t i = 1; i <= APPLIED; i += 3) {
        (void)snprintf((char *)keys[count], 4, "%03u", i);
        ops[count] = (struct table_op){
            .kind = TABLE_OP_PUT, .id = TABLE_KV, .key = bytes_of(keys[count], 3), .value = bytes_str("v"), .ref = i};
        count++;
    }
    (void)snprintf(path, sizeof path, "%s/state.db", l->dir);
    struct statedb *s = statedb_open(path, &f);
    assert_non_null(s);
    struct statedb_facts facts = {.applied = {.index = APPLIED, .term = l->entries[APPLIED - 1].term}};
    facts.applied.time_ms = l->entries[APPLIED - 1].time_ms;
    memcpy(facts.applied.hash, l->entries[APPLIED - 1].hash, DIGEST_BYTES);
    assert_int_equal(statedb_flush(s, &(struct table_flush){.ops = ops, .count = count}, &facts, 0, &f), E_OK);
    statedb_close(s);
}

static void make_log(struct log *l) {
    char path[96];
    struct fault f = {0};
    uint8_t previous[DIGEST_BYTES] = {0};
    (void)strcpy(l->dir, "/tmp/grey-salvage-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    (void)snprintf(path, sizeof path, "%s/log.db", l->dir);
    struct logdb *db = logdb_open(path, &f);
    assert_non_null(db);
    assert_int_equal(logdb_begin(db, &f), E_OK);
    struct grey_name node = {"gw-1"}, site = {"site"};
    assert_int_equal(logdb_claim(db, &node, &site, &f), E_OK);
    assert_int_equal(logdb_vote(db, 7, 42, &f), E_OK);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        make_entry(&l->entries[i], i + 1, previous);
        memcpy(previous, l->entries[i].hash, DIGEST_BYTES);
        assert_int_equal(logdb_append(db, &l->entries[i], &f), E_OK);
    }
    assert_int_equal(logdb_commit(db, &f), E_OK);
    logdb_close(db);
    make_state(l);
    run(l, "mkdir $D/sound && cp $D/*.db $D/sound");
}

static void free_log(struct log *l) {
    for (uint32_t i = 0; i < ENTRIES; i++) {
        blob_unref(l->entries[i].payload);
    }
    run(l, "rm -r $D");
}

static void put_back(const struct log *l) {
    run(l, "rm -f $D/log.* $D/log-* && cp $D/sound/*.db $D");
}

static off_t log_pages(const struct log *l) {
    char path[96];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/log.db", l->dir);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size / PAGE;
}

static void flip(const struct log *l, off_t page) {
    char path[96];
    uint8_t byte;
    off_t at = page * PAGE + page * 331 % (PAGE - 8);
    (void)snprintf(path, sizeof path, "%s/log.db", l->dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x20;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    (void)close(fd);
}

/* What a gateway with all of it says. */
static struct mendplan_offer offer_of(const struct log *l, const struct mendplan_need *n, raft_index certain) {
    return (struct mendplan_offer){.from = n->from,
                                   .to = n->to,
                                   .certain = certain,
                                   .anchor = n->anchor,
                                   .same = n->anchor > 0 && l->entries[n->anchor - 1].term == n->anchor_term,
                                   .entries = &l->entries[n->from - 1],
                                   .entry_count = (uint32_t)(n->to - n->from + 1)};
}

/* Everything that matters is in log.db: who it is, every entry above the base, every payload that rows refer to. */
static void assert_whole(const struct log *l, bool forgone) {
    char path[96];
    struct fault f = {0};
    struct entry *entries;
    uint32_t count;
    (void)snprintf(path, sizeof path, "%s/log.db", l->dir);
    struct logdb *db = logdb_open(path, &f);
    assert_non_null(db);
    const struct logdb_facts *facts = logdb_facts(db);
    assert_true(facts->last == ENTRIES && facts->term == 7 && facts->vote == 42 && facts->base.index == (forgone ? APPLIED : 0));
    assert_string_equal(facts->node.text, "gw-1");
    assert_int_equal(logdb_entries(db, facts->base.index + 1, ENTRIES, UINT64_MAX, &entries, &count, &f), E_OK);
    assert_int_equal(count, ENTRIES - facts->base.index);
    for (uint32_t i = 0; i < count; i++) {
        const struct entry *e = &l->entries[entries[i].index - 1];
        assert_memory_equal(entries[i].hash, e->hash, DIGEST_BYTES);
        assert_true(bytes_equal(blob_bytes(entries[i].payload), blob_bytes(e->payload)));
    }
    logdb_entries_free(entries, count);
    for (raft_index i = 1; i <= APPLIED; i += 3) {
        struct entry e;
        assert_int_equal(logdb_payload(db, i, &e, &f), E_OK);
        assert_true(bytes_equal(blob_bytes(e.payload), blob_bytes(l->entries[i - 1].payload)));
        blob_unref(e.payload);
    }
    logdb_close(db);
}

/* If this failed, a gateway with one bad spot on its card would lose entries that it acknowledged, or take others for them. */
static void any_page_is_mended_or_refused(void **state) {
    (void)state;
    struct log l;
    unsigned mended = 0, fetched = 0, refused = 0;
    make_log(&l);
    off_t pages = log_pages(&l);
    for (off_t page = 0; page < pages; page++) {
        struct fault f = {0};
        struct mendplan_need need;
        flip(&l, page);
        struct salvage *s = salvage_open(l.dir, l.dir, &f);
        if (s == NULL) { /* the description or the end of the log; or a page that holds nothing which is read */
            assert_true(f.code == E_CORRUPT || f.code == E_DISK_VERSION);
            refused++;
            put_back(&l);
            continue;
        }
        bool forgone = page % 2 == 0 && salvage_may_forgo(s);
        if (forgone) {
            assert_int_equal(salvage_forgo(s, &f), E_OK);
        }
        while (salvage_need(s, &need)) {
            uint32_t taken = 0;
            bool to_this;
            struct mendplan_offer o = offer_of(&l, &need, APPLIED);
            assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
            assert_int_equal(taken, need.to - need.from + 1);
            fetched += taken;
        }
        assert_int_equal(salvage_finish(s, &f), E_OK);
        salvage_close(s);
        assert_whole(&l, forgone);
        mended++;
        put_back(&l);
    }
    print_message("%u damaged pages mended with %u entries of others, %u refused\n", mended, fetched, refused);
    assert_true(mended > (unsigned)pages * 9 / 10 && fetched > ENTRIES / 2);
    free_log(&l);
}

/* Several damaged places, with entries lost on either side of what is applied. */
static struct salvage *damaged_twice(struct log *l, struct fault *f) {
    make_log(l);
    for (off_t page = 20; page < log_pages(l) - 3; page += 9) {
        flip(l, page);
    }
    struct salvage *s = salvage_open(l->dir, l->dir, f);
    assert_non_null(s);
    assert_int_equal(salvage_forgo(s, f), E_OK);
    assert_true(salvage_missing(s) > 10 && salvage_facts(s)->base.index == APPLIED);
    return s;
}

/* If this failed, entries of a term that was given up would come back as committed ones. */
static void only_what_was_here_is_taken(void **state) {
    (void)state;
    struct log l;
    struct fault f = {0};
    struct mendplan_need need;
    uint32_t taken;
    bool to_this;
    struct salvage *s = damaged_twice(&l, &f);
    assert_true(salvage_need(s, &need) && need.anchor == 0 && need.to <= APPLIED);
    struct mendplan_offer o = offer_of(&l, &need, need.from - 1); /* not certain there */
    assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
    assert_int_equal(taken, 0);
    o.certain = APPLIED;
    while (salvage_need(s, &need) && need.anchor == 0) {
        o = offer_of(&l, &need, APPLIED);
        assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
        assert_true(taken > 0);
    }
    assert_true(salvage_need(s, &need) && need.anchor >= need.from && need.from > APPLIED);
    struct entry later = l.entries[need.from - 1];
    later.term++; /* of another term, and nothing shows that it is the same */
    o = offer_of(&l, &need, ENTRIES);
    o.same = false;
    o.entries = &later;
    o.entry_count = 1;
    assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
    assert_int_equal(taken, 0);
    bool forged = false;
    while (salvage_need(s, &need)) { /* same term, another payload: caught by the head that is left, or by the chain */
        struct entry other = l.entries[need.from - 1];
        other.payload = blob_copy(bytes_str("forged"));
        o = offer_of(&l, &need, ENTRIES);
        o.entries = &other;
        o.entry_count = 1;
        taken = 0;
        if (!forged) {
            assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
            forged = taken > 0;
        }
        blob_unref(other.payload);
        if (taken == 0) {
            o = offer_of(&l, &need, ENTRIES);
            assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
            assert_true(taken > 0);
        }
    }
    assert_true(forged);
    assert_int_equal(salvage_finish(s, &f), E_CORRUPT);
    salvage_close(s);
    free_log(&l);
}

/* If this failed, a payload that the others freed long ago would keep a gateway from starting for ever. */
static void what_nothing_refers_to_is_let_go(void **state) {
    (void)state;
    struct log l;
    struct fault f = {0};
    struct mendplan_need need;
    uint32_t taken;
    bool to_this;
    struct salvage *s = damaged_twice(&l, &f);
    uint32_t missing = salvage_missing(s);
    assert_true(salvage_need(s, &need));
    struct mendplan_offer o = {.from = need.from, .to = need.to, .certain = ENTRIES};
    assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
    assert_int_equal(taken, 0); /* its log is damaged as well */
    o.whole = true;
    assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
    assert_int_equal(taken, need.to - need.from + 1);
    assert_int_equal(salvage_missing(s), missing - taken);
    salvage_close(s);
    free_log(&l);
}

/* If this failed, a power cut while the log is mended would leave neither log. */
static void a_crash_leaves_the_old_or_the_new(void **state) {
    (void)state;
    struct log l;
    struct fault f = {0};
    char to[96];
    struct salvage *s = damaged_twice(&l, &f);
    salvage_close(s); /* given up: the damaged log is as it was */
    assert_non_null(s = salvage_open(l.dir, l.dir, &f));
    salvage_close(s);
    (void)snprintf(to, sizeof to, "%s/log-mended.db", l.dir);
    for (int stage = 0; stage < 3; stage++) {
        run(&l, "cp $D/sound/log.db $D/log-mended.db");
        run(&l, stage > 0 ? "rm -f $D/log.db-wal" : "true");
        run(&l, stage > 1 ? "rm -f $D/log.db" : "true");
        assert_int_equal(salvage_mark(l.dir, "a test", &f), E_OK);
        assert_int_equal(salvage_resume(l.dir, l.dir, &f), E_OK);
        assert_false(salvage_marked(l.dir));
        assert_int_equal(access(to, F_OK), -1);
        assert_whole(&l, false);
    }
    free_log(&l);
}

/* The log as it was, damaged and known as such, or the one that was made whole. */
static void is_old_or_whole(const struct power_cut *cut, void *context) {
    const struct log *l = context;
    struct log found = *l;
    struct fault f = {0};
    (void)snprintf(found.dir, sizeof found.dir, "%s", cut->dir);
    if (salvage_resume(found.dir, found.dir, &f) != E_OK) {
        fail_msg("%s: %s", cut->what, f.text);
    }
    if (!salvage_marked(found.dir)) {
        assert_whole(&found, true);
        return;
    }
    struct salvage *s = salvage_open(found.dir, found.dir, &f); /* once more from the beginning */
    if (s == NULL || cut->promise != NULL) {
        fail_msg("%s: %s", cut->what, s == NULL ? f.text : "it was mended, and is not any more");
    }
    salvage_close(s);
}

/* If this failed, a power cut while a damaged log is mended would leave neither log. */
static void a_power_cut_while_it_is_mended_costs_nothing(void **state) {
    (void)state;
    struct log l;
    struct fault f = {0};
    struct mendplan_need need;
    uint32_t taken;
    bool to_this;
    salvage_close(damaged_twice(&l, &f));
    assert_int_equal(salvage_mark(l.dir, "a test", &f), E_OK);
    run(&l, "rm -rf $D/sound");
    power_watch(l.dir);
    struct salvage *s = salvage_open(l.dir, l.dir, &f);
    assert_non_null(s);
    assert_int_equal(salvage_forgo(s, &f), E_OK);
    while (salvage_need(s, &need)) {
        struct mendplan_offer o = offer_of(&l, &need, ENTRIES);
        assert_int_equal(salvage_take(s, &o, &taken, &to_this, &f), E_OK);
        assert_true(taken > 0);
    }
    if (salvage_finish(s, &f) != E_OK) {
        fail_msg("%s", f.text);
    }
    salvage_close(s);
    power_promise("mended", 7);
    struct power_tally t = power_cuts(power_boundaries(30), is_old_or_whole, &l);
    print_message("%zu file calls, %zu cuts at %zu boundaries\n", t.calls, t.cuts, t.boundaries);
    assert_true(t.calls > 100);
    free_log(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_page_is_mended_or_refused),
        cmocka_unit_test(only_what_was_here_is_taken),
        cmocka_unit_test(what_nothing_refers_to_is_let_go),
        cmocka_unit_test(a_crash_leaves_the_old_or_the_new),
        cmocka_unit_test(a_power_cut_while_it_is_mended_costs_nothing),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
