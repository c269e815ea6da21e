/* store_rig.h: an empty store for each test, in a file of its own or in the PostgreSQL of tests/unit/postgres_rig.h.  For one test program. */
#ifndef TESTS_UNIT_STORE_RIG_H
#define TESTS_UNIT_STORE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/store.h"
#include "federation/record.h"
#include "tests/unit/postgres_rig.h"

static char dir[32], where[300];
static bool shared;

static int set_up(void **state) {
    (void)state;
    (void)strcpy(dir, "/tmp/grey-store-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(where, sizeof where, "sqlite:%s/core.db", dir);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[100];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static inline int set_up_postgres(void **state) {
    (void)state;
    postgres_database(where, sizeof where);
    return 0;
}

static inline struct store *open_store(void) {
    struct fault f = {0};
    struct store *s = store_open(where, &(struct store_options){.shared = shared}, &f);
    if (s == NULL) {
        fail_msg("%s", f.text);
    }
    return s;
}

static inline void site_hello(struct store *s, const char *site) {
    struct sync_hello h = {.incarnation = 7, .epoch = 3, .feature_level = 2, .node = bytes_str("a"), .time_ms = 5};
    grey_seq positions[CHANNEL_COUNT];
    bool rolled_back;
    struct fault f = {0};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        h.channels[i].next_seq = 1;
    }
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_hello(s, site, &h, 1000, positions, &rolled_back, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

/* As it comes with a frame. */
static inline void site_says(struct store *s, const char *site, grey_seq seq, const char *type, const char *subject,
                             const char *data) {
    struct event e = {.id = bytes_str("x"),
                      .source = bytes_str("grey://plant"),
                      .type = bytes_str(type),
                      .subject = bytes_str(subject),
                      .data = bytes_str(data),
                      .priority = PRIORITY_NORMAL};
    struct builder record;
    struct fault f = {0};
    struct store_taken taken;
    builder_init(&record, 4096);
    record_encode(&e, &record);
    struct sync_item item = {.seq = seq, .index = seq, .time_ms = 5, .record = builder_bytes(&record)};
    struct sync_events frame = {
        .incarnation = 7, .epoch = 3, .channel = CHANNEL_DATA, .from_seq = seq, .to_seq = seq, .items = &item, .item_count = 1};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_events(s, site, &frame, 1000, &taken, &f), E_OK);
    builder_free(&record);
    assert_int_equal(store_commit(s, &f), E_OK);
}

#endif
