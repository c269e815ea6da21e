/* The connection to PostgreSQL.  If this fails, the core takes a statement for done that the server refused, hangs or dies when the server
 * is restarted, or prints its password. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/postgres_rig.h"

enum { ADD, LIST, TYPES, STATEMENTS };
static const char *const statements[STATEMENTS] = {
    [ADD] = "INSERT INTO t VALUES($1, $2, $3)",
    [LIST] = "SELECT n, s, b FROM t WHERE n >= $1 ORDER BY n",
    [TYPES] =
        ("SELECT sum(i)::bigint, count(DISTINCT s), sum(length(b))::bigint FROM unnest($1::bigint[], $2::text[], $3::bytea[]) "
         "AS u(i, s, b)"),
};

static struct pg *open_pg(void) {
    char uri[300];
    struct fault f = {0};
    postgres_database(uri, sizeof uri);
    struct pg *p = pg_open(uri, "SET client_min_messages = warning", &f);
    assert_non_null(p);
    assert_int_equal(pg_exec(p, "CREATE TABLE t(n bigint PRIMARY KEY, s text, b bytea); CREATE TABLE IF NOT EXISTS t()", &f), E_OK);
    int64_t n = 0;
    assert_int_equal(pg_ask_number(p, "SELECT 42", &n, &f), E_OK);
    assert_int_equal(n, 42);
    assert_int_equal(pg_ask_number(p, "SELECT n FROM t", &n, &f), E_NOT_FOUND);
    assert_int_equal(pg_exec(p, "SELECT nothing FROM nowhere", &f), E_BUG);
    assert_non_null(strstr(f.text, "nowhere"));
    if (pg_prepare(p, statements, STATEMENTS, &f) != E_OK) {
        fail_msg("%s", f.text);
    }
    return p;
}

static enum grey_error add(struct pg *p, int64_t n, struct bytes s, struct bytes b, struct fault *f) {
    const struct pg_value in[] = {{.kind = PG_NUMBER, .number = n},
                                  {.kind = PG_BYTES, .bytes = s},
                                  {.kind = b.data == NULL ? PG_NULL : PG_BYTES, .bytes = b}};
    return pg_send(p, ADD, in, 3, f);
}

static int64_t rows_from(struct pg *p, int64_t from) {
    const struct pg_value in = {.kind = PG_NUMBER, .number = from};
    struct pg_rows *rows = NULL;
    struct fault f = {0};
    int64_t count = 0;
    if (pg_ask(p, LIST, &in, 1, &rows, &f) != E_OK) {
        fail_msg("%s", f.text);
    }
    while (pg_next(rows)) {
        count++;
    }
    pg_end(rows);
    return count;
}

static void values_come_back_as_they_went(void **state) {
    (void)state;
    struct pg *p = open_pg();
    struct fault f = {0};
    struct pg_rows *rows = NULL;
    const struct pg_value from = {.kind = PG_NUMBER, .number = INT64_MIN};
    assert_int_equal(pg_begin(p, &f), E_OK);
    assert_int_equal(add(p, INT64_MIN, bytes_str("'; DROP TABLE t; --"), bytes_of("\0\xff\n", 3), &f), E_OK);
    assert_int_equal(add(p, INT64_MAX, bytes_str(""), bytes_of("", 0), &f), E_OK);
    assert_int_equal(add(p, 0, bytes_str("\xc3\xa4"), bytes_of(NULL, 0), &f), E_OK);
    assert_int_equal(pg_ask(p, LIST, &from, 1, &rows, &f), E_OK);
    assert_true(pg_next(rows) && pg_int(rows, 0) == INT64_MIN && bytes_equal_str(pg_bytes(rows, 1), "'; DROP TABLE t; --"));
    assert_true(bytes_equal(pg_bytes(rows, 2), bytes_of("\0\xff\n", 3)));
    assert_true(pg_next(rows) && pg_int(rows, 0) == 0 && bytes_equal_str(pg_bytes(rows, 1), "\xc3\xa4") && pg_null(rows, 2));
    assert_true(pg_next(rows) && pg_int(rows, 0) == INT64_MAX && !pg_null(rows, 1) && pg_bytes(rows, 1).size == 0 &&
                !pg_null(rows, 2));
    assert_false(pg_next(rows));
    pg_end(rows);
    assert_int_equal(pg_commit(p, &f), E_OK);
    struct builder arrays[3];
    struct pg_value in[3];
    for (uint32_t count = 0; count <= 3; count += 3) {
        static const enum pg_type types[] = {PG_BIGINT, PG_TEXT, PG_BYTEA};
        for (int a = 0; a < 3; a++) {
            builder_init(&arrays[a], 1000);
            pg_array_begin(&arrays[a], types[a], count);
            for (uint32_t i = 0; i < count; i++) {
                if (a == 0) {
                    pg_array_add_int(&arrays[a], (int64_t)i + 1);
                } else {
                    pg_array_add(&arrays[a], bytes_of("xxxx", i));
                }
            }
            in[a] = (struct pg_value){.kind = PG_BYTES, .bytes = builder_bytes(&arrays[a])};
        }
        assert_int_equal(pg_ask(p, TYPES, in, 3, &rows, &f), E_OK);
        assert_true(pg_next(rows) && pg_int(rows, 0) == 2 * count && pg_int(rows, 1) == count && pg_int(rows, 2) == count);
        pg_end(rows);
        for (int a = 0; a < 3; a++) {
            builder_free(&arrays[a]);
        }
    }
    pg_close(p);
}

/* A queued statement that fails is told with the next question or the commit, and nothing of its transaction stays. */
static void a_queued_failure_is_not_lost(void **state) {
    (void)state;
    struct pg *p = open_pg();
    struct fault f = {0};
    struct pg_rows *rows = NULL;
    const struct pg_value from = {.kind = PG_NUMBER, .number = 0};
    for (int how = 0; how < 3; how++) {
        assert_int_equal(pg_begin(p, &f), E_OK);
        assert_int_equal(add(p, 1, bytes_str("a"), bytes_str("b"), &f), E_OK);
        assert_int_equal(add(p, 1, bytes_str("a"), bytes_str("b"), &f), E_OK); /* the same key: refused by the server, later */
        f.text[0] = 0;
        if (how == 0) {
            assert_int_equal(pg_commit(p, &f), E_SYSTEM);
        } else if (how == 1) {
            assert_int_equal(pg_ask(p, LIST, &from, 1, &rows, &f), E_SYSTEM);
            assert_null(rows);
        } else {
            enum grey_error err = E_OK;
            for (int64_t i = 2; i < 1000 && err == E_OK; i++) {
                err = add(p, i, bytes_str("a"), bytes_str("b"), &f);
            }
            assert_int_equal(err, E_SYSTEM);
        }
        assert_non_null(strstr(f.text, "duplicate key"));
        pg_rollback(p);
        assert_int_equal(rows_from(p, 0), 0);
    }
    assert_int_equal(pg_begin(p, &f), E_OK);
    for (int64_t i = 0; i < 1000; i++) {
        assert_int_equal(add(p, i, bytes_str("a"), bytes_str("b"), &f), E_OK);
    }
    pg_rollback(p);
    assert_int_equal(rows_from(p, 0), 0);
    assert_int_equal(pg_begin(p, &f), E_OK);
    for (int64_t i = 0; i < 1000; i++) {
        assert_int_equal(add(p, i, bytes_str("a"), bytes_str("b"), &f), E_OK);
    }
    assert_int_equal(pg_commit(p, &f), E_OK);
    assert_int_equal(rows_from(p, 0), 1000);
    pg_close(p);
}

static void a_lost_connection_is_made_anew(void **state) {
    (void)state;
    struct pg *p = open_pg();
    struct fault f = {0};
    assert_int_equal(pg_begin(p, &f), E_OK);
    assert_int_equal(add(p, 1, bytes_str("a"), bytes_str("b"), &f), E_OK);
    postgres_cut();
    assert_int_equal(pg_commit(p, &f), E_CLOSED);
    pg_rollback(p);
    assert_int_equal(rows_from(p, 0), 0);
    postgres_cut(); /* between transactions: a question finds out by itself, a transaction is told once */
    assert_int_equal(rows_from(p, 0), 0);
    postgres_cut();
    enum grey_error err = pg_begin(p, &f);
    err = err != E_OK ? err : add(p, 2, bytes_str("a"), bytes_str("b"), &f);
    err = err != E_OK ? err : pg_commit(p, &f);
    assert_int_equal(err, E_CLOSED);
    pg_rollback(p);
    assert_int_equal(pg_begin(p, &f), E_OK);
    assert_int_equal(add(p, 3, bytes_str("a"), bytes_str("b"), &f), E_OK);
    assert_int_equal(pg_commit(p, &f), E_OK);
    assert_int_equal(rows_from(p, 0), 1);
    pg_close(p);
}

static void a_server_that_is_away_is_named(void **state) {
    (void)state;
    struct fault f = {0};
    assert_null(pg_open("postgresql://grey:secret@127.0.0.1:1/grey", "", &f));
    assert_int_equal(f.code, E_CONNECT);
    assert_non_null(strstr(f.text, "127.0.0.1"));
    assert_null(strstr(f.text, "secret"));
    char uri[300];
    postgres_database(uri, sizeof uri);
    (void)strcat(uri, "&password=secret");
    struct pg *p = pg_open(uri, "", &f);
    assert_non_null(p);
    assert_null(strstr(pg_name(p), "secret"));
    assert_non_null(strstr(pg_name(p), postgres_dir));
    pg_close(p);
    pg_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_as_they_went),
        cmocka_unit_test(a_queued_failure_is_not_lost),
        cmocka_unit_test(a_lost_connection_is_made_anew),
        cmocka_unit_test(a_server_that_is_away_is_named),
    };
    return cmocka_run_group_tests(tests, postgres_start, postgres_stop);
}
