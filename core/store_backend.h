/* store_backend.h: what a database does for the store.  For core/store*.c only.
 *
 * What is kept, and when, is decided once for all databases (store.c); so are the answers (store_answers.c).  Both speak in numbered
 * statements (store_sql.c), which a backend prepares in its own dialect.  Parameters are numbers, bytes or nothing, columns likewise.
 *
 * A backend may send a statement of run later than it was asked to: the failure then comes with a later call, at the latest with commit,
 * and the transaction is lost in any case.  So no decision may hang on a failed statement: what could collide is looked up before. */
#ifndef CORE_STORE_BACKEND_H
#define CORE_STORE_BACKEND_H

#include "core/store.h"
#include "platform/json.h"

enum store_statement {
    STORE_SITE_FIND,
    STORE_SITE_ADD,
    STORE_SITE_LOCK, /* waits until no other transaction has the site; NULL where there is no other */
    STORE_SITE_TOUCH,
    STORE_SITE_ASKED,
    STORE_SEALED_ADD,
    STORE_SEALED_IS,
    STORE_NODE_TOUCH,
    STORE_INC_FIND,
    STORE_INC_ADD,
    STORE_INC_EPOCH,
    STORE_INC_LAST,
    STORE_STAND,
    STORE_POSITION_GET,
    STORE_POSITION_SET,
    STORE_POSITION_KNOWN,
    STORE_GAP_ADD,
    STORE_AHEAD_ADD,
    STORE_AHEAD_SPANS,
    STORE_AHEAD_GET,
    STORE_AHEAD_DROP,
    STORE_AHEAD_CLEAR,
    STORE_STANDS,
    /* questions */
    STORE_SITES,
    STORE_SITE,
    STORE_NODES,
    STORE_INCS,
    STORE_EVENTS,
    STORE_GAPS,
    /* what is given to sites: store_objects.c */
    STORE_OBJECT,
    STORE_OBJECT_ADD,
    STORE_ISSUE_LAST,
    STORE_ISSUE_RAISE,
    STORE_AIM_SET,
    STORE_CHUNK,
    STORE_CHUNK_ADD,
    STORE_SESSION,
    STORE_SUPPLIED_SET,
    STORE_HOLDING_SET,
    STORE_OFFERS,
    STORE_SUPPLIED,
    STORE_OBJECTS,
    STORE_SITE_OBJECTS,
    /* and in which stages: store_rollouts.c */
    STORE_STAGES_CLEAR,
    STORE_STAGE_ADD,
    STORE_STAGES,
    STORE_AIM,
    STORE_AIMS_RUNNING,
    STORE_AIM_STEP,
    STORE_AIM_TALLY,
    STORE_REISSUE,
    STORE_LABELS_CLEAR,
    STORE_LABEL_ADD,
    STORE_LABELS,
    /* who may be a gateway: store_enroll.c */
    STORE_TOKEN_ADD,
    STORE_TOKENS,
    STORE_TOKEN_LOCK, /* waits until no other transaction has it; NULL where there is no other */
    STORE_TOKEN,
    STORE_TOKEN_DROP,
    STORE_TOKEN_USE,
    STORE_TOKEN_END,
    STORE_CERTIFICATE_OF_KEY,
    STORE_CERTIFICATE_ADD,
    STORE_CERTIFICATES_REPLACED,
    STORE_CERTIFICATES_COUNT,
    STORE_CERTIFICATES_REVOKE,
    STORE_CERTIFICATES,
    STORE_REVOKED,
    /* tasks for the worker: store_offloads.c */
    STORE_OFFLOAD_ADD,
    STORE_OFFLOAD_SETTLE,
    STORE_OFFLOADS_DUE,
    STORE_OFFLOAD_SEEN,
    STORE_OFFLOAD_ACCEPT,
    STORE_OFFLOAD_END,
    STORE_OFFLOAD_DROP,
    STORE_REVOKED_IS,
    STORE_TPM,
    STORE_TPM_OF,
    STORE_TPM_CLEAR,
    STORE_TPM_ADD,
    STORE_TPM_REMOVE,
    STORE_TPMS,
    /* what gateways have shown of themselves: store_attest.c */
    STORE_ATTEST,
    STORE_ATTEST_PUT,
    STORE_ATTEST_FORGET,
    STORE_ATTEST_COUNT,
    STORE_ATTEST_POLICY,
    STORE_ATTESTS,
    STORE_HOLDING_FAILED,
    /* what the store may have forgotten: store_restored.c */
    STORE_MARK,
    STORE_MARK_ADD,
    STORE_MARK_RAISE,
    STORE_MARK_SET,
    STORE_RESTORED_SET,
    STORE_RESTORED_OPEN,
    STORE_RESTORED_ACCEPT,
    STORE_RESTORED_LIST,
    STORE_ISSUE_RAISE_ALL,
    STORE_OBJECT_ISSUE,
    STORE_SERIAL,
    STORE_SERIAL_REVOKE,
    STORE_STATEMENTS
};

/* In SQL that all databases take; parameters are ?1, ?2, ...  A backend may have its own instead, with the same columns. */
extern const char *const store_sql[STORE_STATEMENTS];

#define STORE_LATEST_SQL " LEFT JOIN incarnation i ON i.no = (SELECT max(no) FROM incarnation WHERE site = s.no)"
#define STORE_POSITIONS_SQL                                                                                                        \
    " LEFT JOIN position p0 ON p0.inc = i.no AND p0.channel = 0"                                                                   \
    " LEFT JOIN position p1 ON p1.inc = i.no AND p1.channel = 1"                                                                   \
    " LEFT JOIN position p2 ON p2.inc = i.no AND p2.channel = 2"
/* Sites that may be asked where they are: ?3 is now, and they were neither asked since ?4 nor heard since ?5. */
#define STORE_STANDS_SQL                                                                                                           \
    "SELECT s.id, i.number, i.epoch, p0.seq, p1.seq, p2.seq, s.no FROM site s" STORE_LATEST_SQL STORE_POSITIONS_SQL                \
    " WHERE s.id > ?1 AND (s.asked_ms <= ?4 OR s.asked_ms > ?3) AND (s.contact_ms <= ?5 OR s.contact_ms > ?3)"                     \
    " ORDER BY s.id LIMIT ?2"

struct store_value {
    enum { STORE_NULL, STORE_NUMBER, STORE_BYTES } kind;
    int64_t number;
    struct bytes bytes; /* borrowed during the call */
};
static inline struct store_value store_number(int64_t v) {
    return (struct store_value){.kind = STORE_NUMBER, .number = v};
}
static inline struct store_value store_bytes(struct bytes v) {
    return (struct store_value){.kind = STORE_BYTES, .bytes = v};
}
#define STORE_VALUES_MAX 8

/* Rows of one question: a statement has one such reader at a time; different ones may be read side by side. */
struct store_rows;

struct store_ops {
    void (*close)(struct store *s); /* frees s */
    const char *(*name)(struct store *s);
    enum grey_error (*begin)(struct store *s, struct fault *f);
    enum grey_error (*commit)(struct store *s, struct fault *f);
    void (*rollback)(struct store *s);
    enum grey_error (*run)(struct store *s, enum store_statement which, const struct store_value *in, int count, struct fault *f);
    /* *rows is NULL on error; otherwise the caller gives it back with end. */
    enum grey_error (*ask)(struct store *s, enum store_statement which, const struct store_value *in, int count,
                           struct store_rows **rows, struct fault *f);
    enum grey_error (*next)(struct store_rows *rows, bool *row, struct fault *f);
    int64_t (*number)(const struct store_rows *rows, int column);     /* 0 for nothing */
    struct bytes (*bytes)(const struct store_rows *rows, int column); /* lends until the next row */
    bool (*null)(const struct store_rows *rows, int column);
    void (*end)(struct store_rows *rows);
    /* Takes the locks of STORE_SITE_LOCK for many sites, in an order that is the same everywhere. */
    enum grey_error (*lock)(struct store *s, const char *const *sites, size_t count, struct fault *f);
    /* Adds items (ascending, none of them there yet) to a channel of an incarnation; may wait as run. */
    enum grey_error (*add_events)(struct store *s, int64_t inc, enum event_channel c, const struct sync_item *items, uint32_t count,
                                  int64_t now_ms, struct fault *f);
};

struct store { /* first member of each backend's own */
    const struct store_ops *ops;
    struct store_options options;
    int64_t marked;  /* the mark that this transaction raised; 0: none */
    int64_t mark_of; /* by which number the store knows itself */
};

/* A time in an answer. */
void store_put_time(struct json_writer *w, const char *name, int64_t unix_ms);
void store_put_time_if(struct json_writer *w, const char *name, int64_t unix_ms); /* 0: it has not been so far, null */

/* One row of numbers, 0 for nothing; *found: whether there was one. */
enum grey_error store_row(struct store *s, enum store_statement which, const struct store_value *in, int count, int64_t *out,
                          int columns, bool *found, struct fault *f);

struct store *store_sqlite_open(const char *path, struct fault *f);
struct store *store_postgres_open(const char *uri, struct fault *f);

#endif
