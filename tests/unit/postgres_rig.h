/* postgres_rig.h: a PostgreSQL server for one test program, in a directory of its own, and a fresh database for each test. */
#ifndef TESTS_UNIT_POSTGRES_RIG_H
#define TESTS_UNIT_POSTGRES_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/pg.h"

static char postgres_dir[] = "/tmp/grey-pg-XXXXXX", postgres_uri[200];
static unsigned postgres_databases;

static inline int postgres_start(void **state) {
    (void)state;
    char command[120];
    (void)strcpy(postgres_dir, "/tmp/grey-pg-XXXXXX");
    if (mkdtemp(postgres_dir) == NULL) {
        return -1;
    }
    (void)snprintf(command, sizeof command, "FSYNC=off tests/script/postgres.sh start %s", postgres_dir);
    FILE *out = popen(command, "r");
    bool told = out != NULL && fgets(postgres_uri, sizeof postgres_uri, out) != NULL;
    postgres_uri[strcspn(postgres_uri, "\n")] = 0;
    return out != NULL && pclose(out) == 0 && told ? 0 : -1;
}

static inline int postgres_stop(void **state) {
    (void)state;
    char command[120];
    (void)snprintf(command, sizeof command, "tests/script/postgres.sh crash %s; rm -rf %s", postgres_dir, postgres_dir);
    return system(command);
}

static inline void postgres_run(const char *sql) {
    struct fault f = {0};
    struct pg *p = pg_open(postgres_uri, "", &f);
    if (p == NULL || pg_exec(p, sql, &f) != E_OK) {
        fail_msg("%s: %s", sql, f.text);
    }
    pg_close(p);
}

/* out: the URI of an empty database. */
static inline void postgres_database(char *out, size_t size) {
    char sql[64];
    unsigned number = ++postgres_databases;
    (void)snprintf(sql, sizeof sql, "CREATE DATABASE t%u", number);
    postgres_run(sql);
    (void)snprintf(out, size, "postgresql:///t%u%s", number, strchr(postgres_uri, '?'));
}

/* Cuts the connections of all others to all databases, as an administrator or a crash of the server does. */
static inline void postgres_cut(void) {
    postgres_run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'");
}

#endif
