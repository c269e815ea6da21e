#include "platform/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <postgresql/libpq-fe.h>

#include "include/grey/must.h"
#include "platform/log.h"

/* Statements whose results were not read yet: bounds what the server must keep for us. */
#define PENDING_MAX 128u
#define CONNECT_TIMEOUT_S "5"
#define LOST_TIMEOUT_MS "15000" /* sent bytes that nobody confirms: the server's machine is gone */

struct pg {
    PGconn *conn;
    char *uri;
    const char *session;
    const char *const *statements;
    uint32_t statement_count;
    uint32_t pending;
    bool in_transaction, piped;
    char name[300];
};

struct pg_rows {
    PGresult *result;
    int at, count;
};

/* --- errors --------------------------------------------------------------------------------------------------------------------------------------- */

/* SQLSTATE, appendix A of the manual: by class, and single ones before. */
static enum grey_error error_of(const char *state) {
    static const struct {
        const char *prefix;
        enum grey_error err;
    } table[] = {
        {"40", E_CONFLICT},                                               /* serialization failure, deadlock */
        {"55P03", E_CONFLICT},                                            /* lock not available: lock_timeout */
        {"57014", E_CONFLICT},                                            /* query cancelled: statement_timeout */
        {"57P", E_CLOSED},                                                /* shut down, crashed, not yet up */
        {"25P03", E_CLOSED},                                              /* idle in transaction for too long */
        {"25006", E_CLOSED},                                              /* read only: no longer the primary */
        {"08", E_CLOSED},                                                 /* connection */
        {"53100", E_DISK_FULL}, {"53200", E_NO_MEMORY}, {"53", E_CLOSED}, /* too many connections */
        {"58030", E_IO},        {"XX001", E_CORRUPT},   {"XX002", E_CORRUPT}, {"28", E_DENIED}, {"42501", E_DENIED}, {"42", E_BUG},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strncmp(state, table[i].prefix, strlen(table[i].prefix)) == 0) {
            return table[i].err;
        }
    }
    return E_SYSTEM;
}

static enum grey_error fail(struct fault *f, enum grey_error err, const char *message) {
    return fault_set(f, err, "PostgreSQL: %.*s", (int)strcspn(message, "\n"), message);
}

static enum grey_error lost(struct pg *p, enum grey_error err, struct fault *f) {
    enum grey_error result = fail(f, err, p->conn == NULL ? "no connection" : PQerrorMessage(p->conn));
    PQfinish(p->conn);
    p->conn = NULL;
    p->pending = 0;
    return result;
}

static enum grey_error check(struct pg *p, const PGresult *r, struct fault *f) {
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY || status == PGRES_PIPELINE_SYNC) {
        return E_OK;
    }
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    if (status == PGRES_PIPELINE_ABORTED || state == NULL || PQstatus(p->conn) != CONNECTION_OK) {
        return fail(f, E_CLOSED, status == PGRES_PIPELINE_ABORTED ? "given up after an error" : PQresultErrorMessage(r));
    }
    return fail(f, error_of(state), PQresultErrorMessage(r));
}

static void on_notice(void *context, const char *message) {
    (void)context;
    log_debug("pg", "notice", "%.*s", (int)strcspn(message, "\n"), message);
}

/* --- the connection ---------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error simple(struct pg *p, PGresult *r, struct fault *f) {
    enum grey_error err = r == NULL ? fail(f, E_NO_MEMORY, "no result") : check(p, r, f);
    PQclear(r);
    return err;
}

static void statement_name(char out[16], uint32_t statement) {
    (void)snprintf(out, 16, "s%u", (unsigned)statement);
}

static enum grey_error prepare_all(struct pg *p, struct fault *f) {
    enum grey_error err = E_OK;
    for (uint32_t i = 0; i < p->statement_count && err == E_OK; i++) {
        char name[16];
        statement_name(name, i);
        if (p->statements[i] != NULL) {
            err = simple(p, PQprepare(p->conn, name, p->statements[i], 0, NULL), f);
        }
    }
    if (err == E_OK) {
        p->piped = PQenterPipelineMode(p->conn) == 1;
        err = p->piped ? E_OK : fail(f, E_SYSTEM, PQerrorMessage(p->conn));
    }
    return err;
}

static enum grey_error dial(struct pg *p, struct fault *f) {
    static const char *const names[] = {"dbname",          "connect_timeout",           "tcp_user_timeout",
                                        "keepalives_idle", "fallback_application_name", NULL};
    const char *const values[] = {p->uri, CONNECT_TIMEOUT_S, LOST_TIMEOUT_MS, "10", "grey-core", NULL};
    p->pending = 0;
    p->in_transaction = p->piped = false;
    p->conn = PQconnectdbParams(names, values, 1); /* a later dbname is a connection string; the others are its defaults */
    if (p->conn == NULL || PQstatus(p->conn) != CONNECTION_OK) {
        return lost(p, E_CONNECT, f);
    }
    (void)PQsetNoticeProcessor(p->conn, on_notice, NULL);
    (void)snprintf(p->name, sizeof p->name, "%.120s:%.10s/%.120s", PQhost(p->conn), PQport(p->conn), PQdb(p->conn));
    enum grey_error err = simple(p, PQexec(p->conn, p->session), f);
    if (err == E_OK && p->statements != NULL) {
        err = prepare_all(p, f);
    }
    if (err != E_OK) {
        PQfinish(p->conn);
        p->conn = NULL;
    }
    return err;
}

static enum grey_error connected(struct pg *p, struct fault *f) {
    if (p->conn != NULL && PQstatus(p->conn) == CONNECTION_OK) {
        return E_OK;
    }
    PQfinish(p->conn);
    return dial(p, f);
}

struct pg *pg_open(const char *uri, const char *session, struct fault *f) {
    struct pg *p = mem_new(1, sizeof *p);
    size_t size = strlen(uri) + 1;
    if (p == NULL || (p->uri = mem_new(1, size)) == NULL) {
        mem_free(p);
        (void)fault_set(f, E_NO_MEMORY, "pg");
        return NULL;
    }
    memcpy(p->uri, uri, size);
    p->session = session;
    if (dial(p, f) != E_OK) {
        pg_close(p);
        return NULL;
    }
    return p;
}

void pg_close(struct pg *p) {
    if (p != NULL) {
        PQfinish(p->conn);
        mem_free(p->uri);
        mem_free(p);
    }
}

const char *pg_name(struct pg *p) {
    return p->name;
}

enum grey_error pg_exec(struct pg *p, const char *sql, struct fault *f) {
    must(!p->piped);
    return p->conn == NULL ? lost(p, E_CLOSED, f) : simple(p, PQexec(p->conn, sql), f);
}

enum grey_error pg_ask_number(struct pg *p, const char *sql, int64_t *out, struct fault *f) {
    must(!p->piped);
    PGresult *r = p->conn == NULL ? NULL : PQexec(p->conn, sql);
    enum grey_error err = r == NULL ? lost(p, E_CLOSED, f) : check(p, r, f);
    if (err == E_OK && (PQntuples(r) == 0 || PQgetisnull(r, 0, 0))) {
        err = fault_set(f, E_NOT_FOUND, "no row");
    } else if (err == E_OK) {
        *out = strtoll(PQgetvalue(r, 0, 0), NULL, 10);
    }
    PQclear(r);
    return err;
}

enum grey_error pg_prepare(struct pg *p, const char *const *statements, uint32_t count, struct fault *f) {
    must(!p->piped);
    p->statements = statements;
    p->statement_count = count;
    return p->conn == NULL ? lost(p, E_CLOSED, f) : prepare_all(p, f);
}

/* --- the pipeline -------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error queue(struct pg *p, uint32_t statement, const struct pg_value *in, int count, struct fault *f) {
    char name[16];
    const char *values[PG_VALUES_MAX];
    int sizes[PG_VALUES_MAX], binary[PG_VALUES_MAX];
    uint8_t numbers[PG_VALUES_MAX][8];
    must(count <= PG_VALUES_MAX && statement < p->statement_count && p->statements[statement] != NULL);
    for (int i = 0; i < count; i++) {
        binary[i] = 1;
        if (in[i].kind == PG_NUMBER) {
            bytes_put_be64(numbers[i], (uint64_t)in[i].number);
            values[i] = (const char *)numbers[i];
            sizes[i] = sizeof numbers[i];
        } else {
            values[i] = in[i].kind == PG_NULL ? NULL : in[i].bytes.size == 0 ? "" : (const char *)in[i].bytes.data;
            sizes[i] = (int)in[i].bytes.size;
        }
    }
    statement_name(name, statement);
    if (p->conn == NULL || PQsendQueryPrepared(p->conn, name, count, values, sizes, binary, 1) != 1) {
        return lost(p, E_CLOSED, f);
    }
    p->pending++;
    return E_OK;
}

static enum grey_error queue_plain(struct pg *p, const char *sql, struct fault *f) {
    if (p->conn == NULL || PQsendQueryParams(p->conn, sql, 0, NULL, NULL, NULL, NULL, 1) != 1) {
        return lost(p, E_CLOSED, f);
    }
    p->pending++;
    return E_OK;
}

/* Reads the result of the oldest queued statement.  *out, if wanted: the caller's, when it is good. */
static enum grey_error read_one(struct pg *p, PGresult **out, struct fault *f) {
    PGresult *r = p->conn == NULL ? NULL : PQgetResult(p->conn), *end;
    if (r == NULL) {
        return lost(p, E_CLOSED, f);
    }
    p->pending--;
    enum grey_error err = check(p, r, f);
    while ((end = PQgetResult(p->conn)) != NULL) { /* each result is followed by nothing */
        PQclear(end);
    }
    if (out != NULL && err == E_OK) {
        *out = r;
    } else {
        PQclear(r);
    }
    return err;
}

/* Everything queued.  The first failure is what is told: those behind it were only given up.  *last, if wanted: of the last statement. */
static enum grey_error read_all(struct pg *p, PGresult **last, struct fault *f) {
    enum grey_error err = E_OK;
    while (p->pending > 0) {
        struct fault one = {0};
        PGresult *r = NULL;
        enum grey_error got = read_one(p, &r, &one);
        if (got != E_OK && err == E_OK) {
            err = got;
            if (f != NULL) {
                *f = one;
            }
        }
        if (p->pending == 0 && last != NULL && err == E_OK) {
            *last = r;
        } else {
            PQclear(r);
        }
    }
    return err;
}

static enum grey_error read_sync(struct pg *p, struct fault *f) {
    PGresult *r = p->conn == NULL ? NULL : PQgetResult(p->conn);
    bool good = r != NULL && PQresultStatus(r) == PGRES_PIPELINE_SYNC;
    PQclear(r);
    return good ? E_OK : lost(p, E_CLOSED, f);
}

static enum grey_error sync_all(struct pg *p, PGresult **last, struct fault *f) {
    if (p->conn == NULL || PQpipelineSync(p->conn) != 1) {
        return lost(p, E_CLOSED, f);
    }
    struct fault ignored;
    enum grey_error err = read_all(p, last, f);
    enum grey_error synced = read_sync(p, err == E_OK ? f : &ignored);
    if (synced != E_OK && last != NULL) {
        PQclear(*last);
        *last = NULL;
    }
    return err != E_OK ? err : synced;
}

enum grey_error pg_begin(struct pg *p, struct fault *f) {
    must(!p->in_transaction);
    enum grey_error err = connected(p, f);
    err = err != E_OK ? err : queue_plain(p, "BEGIN", f);
    p->in_transaction = err == E_OK;
    return err;
}

enum grey_error pg_commit(struct pg *p, struct fault *f) {
    PGresult *r = NULL;
    must(p->in_transaction);
    enum grey_error err = queue_plain(p, "COMMIT", f);
    err = err != E_OK ? err : sync_all(p, &r, f);
    if (err == E_OK && strcmp(PQcmdStatus(r), "COMMIT") != 0) { /* a failed transaction is rolled back and that is no error */
        err = fail(f, E_BUG, "the transaction had failed before its commit");
    }
    PQclear(r);
    p->in_transaction = err != E_OK;
    return err;
}

void pg_rollback(struct pg *p) {
    struct fault ignored;
    if (p->in_transaction && p->conn != NULL) {
        (void)sync_all(p, NULL, &ignored); /* after an error the server passes over everything up to here */
    }
    if (p->in_transaction && p->conn != NULL &&
        (queue_plain(p, "ROLLBACK", &ignored) != E_OK || sync_all(p, NULL, &ignored) != E_OK)) {
        (void)lost(p, E_CLOSED, &ignored);
    }
    p->in_transaction = false;
}

enum grey_error pg_send(struct pg *p, uint32_t statement, const struct pg_value *in, int count, struct fault *f) {
    must(p->in_transaction);
    enum grey_error err = queue(p, statement, in, count, f);
    if (err == E_OK && p->pending >= PENDING_MAX) {
        err = PQsendFlushRequest(p->conn) == 1 ? read_all(p, NULL, f) : lost(p, E_CLOSED, f);
    }
    return err;
}

static enum grey_error ask_once(struct pg *p, uint32_t statement, const struct pg_value *in, int count, PGresult **r,
                                struct fault *f) {
    enum grey_error err = p->in_transaction ? E_OK : connected(p, f);
    err = err != E_OK ? err : queue(p, statement, in, count, f);
    if (err != E_OK) {
        return err;
    }
    if (!p->in_transaction) {
        return sync_all(p, r, f);
    }
    return PQsendFlushRequest(p->conn) == 1 ? read_all(p, r, f) : lost(p, E_CLOSED, f);
}

enum grey_error pg_ask(struct pg *p, uint32_t statement, const struct pg_value *in, int count, struct pg_rows **rows,
                       struct fault *f) {
    PGresult *r = NULL;
    *rows = NULL;
    enum grey_error err = ask_once(p, statement, in, count, &r, f);
    if (err == E_CLOSED && !p->in_transaction) { /* lost since the last one */
        err = ask_once(p, statement, in, count, &r, f);
    }
    if (err != E_OK) {
        return err;
    }
    if ((*rows = mem_new(1, sizeof **rows)) == NULL) {
        PQclear(r);
        return fault_set(f, E_NO_MEMORY, "pg");
    }
    **rows = (struct pg_rows){.result = r, .at = -1, .count = PQntuples(r)};
    return E_OK;
}

/* --- rows ---------------------------------------------------------------------------------------------------------------------------------------- */

bool pg_next(struct pg_rows *r) {
    return ++r->at < r->count;
}

struct bytes pg_bytes(const struct pg_rows *r, int column) {
    return bytes_of(PQgetvalue(r->result, r->at, column), (size_t)PQgetlength(r->result, r->at, column));
}

int64_t pg_int(const struct pg_rows *r, int column) {
    struct bytes v = pg_bytes(r, column);
    must(v.size == 8 || pg_null(r, column)); /* our own statements give bigint only */
    return v.size == 8 ? (int64_t)bytes_get_be64(v.data) : 0;
}

bool pg_null(const struct pg_rows *r, int column) {
    return PQgetisnull(r->result, r->at, column) == 1;
}

void pg_end(struct pg_rows *r) {
    PQclear(r->result);
    mem_free(r);
}

/* --- arrays: src/backend/utils/adt/arrayfuncs.c, array_recv --------------------------------------------------------------------------- */

static void put_u32(struct builder *b, uint32_t v) {
    uint8_t bytes[4];
    bytes_put_be32(bytes, v);
    builder_add(b, bytes_of(bytes, sizeof bytes));
}

void pg_array_begin(struct builder *b, enum pg_type type, uint32_t count) {
    put_u32(b, count > 0); /* dimensions */
    put_u32(b, 0);         /* holds no NULL */
    put_u32(b, (uint32_t)type);
    if (count > 0) {
        put_u32(b, count);
        put_u32(b, 1); /* the first is number 1 */
    }
}

void pg_array_add(struct builder *b, struct bytes element) {
    put_u32(b, (uint32_t)element.size);
    builder_add(b, element);
}

void pg_array_add_int(struct builder *b, int64_t v) {
    uint8_t bytes[8];
    bytes_put_be64(bytes, (uint64_t)v);
    pg_array_add(b, bytes_of(bytes, sizeof bytes));
}
