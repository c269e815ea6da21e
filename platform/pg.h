/* pg.h: a PostgreSQL database over one connection (libpq), and the only door to libpq.
 *
 * Statements are prepared once for each connection.  Inside a transaction they are pipelined: pg_send only queues (its failure comes with
 * a later call, at the latest with pg_commit), pg_ask waits for its own rows and so costs one round trip, whatever was queued before.  A
 * connection that was lost is made anew by the next pg_begin or question.
 *
 * Errors: E_CONNECT (cannot be reached), E_CLOSED (lost on the way; of a commit the outcome is unknown), E_CONFLICT (deadlock,
 * serialization, a lock that did not come): do the whole transaction again.  E_DISK_FULL, E_NO_MEMORY, E_IO, E_CORRUPT, E_DENIED, and
 * E_SYSTEM for the rest; E_BUG for wrong SQL.  After an error inside a transaction call pg_rollback.  Thread: an object belongs to one
 * thread at a time; calls wait for the server. */
#ifndef PLATFORM_PG_H
#define PLATFORM_PG_H

#include "platform/bytes.h"
#include "platform/fault.h"

struct pg;
struct pg_rows;

/* uri: postgresql://...; what it leaves out comes from libpq's environment (PGPASSFILE, PGSSLMODE, ...).  session: statements for each new
 * connection; lent until pg_close. */
struct pg *pg_open(const char *uri, const char *session, struct fault *f);
void pg_close(struct pg *p);       /* NULL is allowed */
const char *pg_name(struct pg *p); /* "host:port/database", without user and password; lends until the next call */

/* Before pg_prepare: any number of statements, results ignored; and a single number (E_NOT_FOUND: no row). */
enum grey_error pg_exec(struct pg *p, const char *sql, struct fault *f);
enum grey_error pg_ask_number(struct pg *p, const char *sql, int64_t *out, struct fault *f);
/* statements: lent until pg_close; parameters are $1, $2, ...; NULL: none of this number. */
enum grey_error pg_prepare(struct pg *p, const char *const *statements, uint32_t count, struct fault *f);

enum grey_error pg_begin(struct pg *p, struct fault *f);
enum grey_error pg_commit(struct pg *p, struct fault *f);
void pg_rollback(struct pg *p); /* harmless without a transaction */

#define PG_VALUES_MAX 8
struct pg_value {
    enum { PG_NULL, PG_NUMBER, PG_BYTES } kind; /* bigint; text, bytea or an array as pg_array_begin builds it */
    int64_t number;
    struct bytes bytes; /* borrowed */
};
enum grey_error pg_send(struct pg *p, uint32_t statement, const struct pg_value *in, int count, struct fault *f);
/* All rows at once, so the statement bounds them.  *rows: the caller's until pg_end; NULL on error. */
enum grey_error pg_ask(struct pg *p, uint32_t statement, const struct pg_value *in, int count, struct pg_rows **rows,
                       struct fault *f);
bool pg_next(struct pg_rows *r);
int64_t pg_int(const struct pg_rows *r, int column); /* a bigint; 0 for NULL */
struct bytes pg_bytes(const struct pg_rows *r, int column);
bool pg_null(const struct pg_rows *r, int column);
void pg_end(struct pg_rows *r);

/* An array as a parameter: begin, then its count elements. */
enum pg_type { PG_BIGINT = 20, PG_TEXT = 25, PG_BYTEA = 17 };
void pg_array_begin(struct builder *b, enum pg_type type, uint32_t count);
void pg_array_add(struct builder *b, struct bytes element);
void pg_array_add_int(struct builder *b, int64_t v);

#endif
