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

static int set_up_postgres(void **state) {
    (void)state;
    postgres_database(where, sizeof where);
    return 0;
}

static struct store *open_store(void) {
    struct fault f = {0};
    struct store *s = store_open(where, &(struct store_options){.shared = shared}, &f);
    if (s == NULL) {
        fail_msg("%s", f.text);
    }
    return s;
}

#endif
