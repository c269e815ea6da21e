#include "agent/store/keepdb.h"

#include "platform/db.h"

#define PAGE_BYTES 4096u
#define CACHE_BYTES 65536u
#define FORMAT 1

struct keepdb {
    struct db *db;
    uint64_t events, bytes;
    struct db_statement *add, *add_id, *next, *size, *remove, *remove_ids, *find;
};

/* What is there already comes from an earlier version, which made the tables one by one and was cut off: it holds no batch. */
static const char schema[] =
    "CREATE TABLE IF NOT EXISTS batch(receipt INTEGER PRIMARY KEY AUTOINCREMENT, events INT, data BLOB);"
    "CREATE TABLE IF NOT EXISTS id(hash BLOB, receipt INT, element INT, PRIMARY KEY(hash, receipt, element)) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS id_of ON id(receipt);"
    "CREATE TABLE IF NOT EXISTS meta(id INTEGER PRIMARY KEY, format INT);"
    "INSERT OR IGNORE INTO meta VALUES(1, 1)";

static enum grey_error prepare(struct keepdb *k, struct fault *f) {
    const struct {
        struct db_statement **st;
        const char *sql;
    } all[] = {{&k->add, "INSERT INTO batch(events, data) VALUES(?1, ?2) RETURNING receipt"},
               {&k->add_id, "INSERT INTO id VALUES(?1, ?2, ?3)"},
               {&k->next, "SELECT receipt, data FROM batch WHERE receipt > ?1 ORDER BY receipt LIMIT 1"},
               {&k->size, "SELECT events, length(data) FROM batch WHERE receipt = ?1"},
               {&k->remove, "DELETE FROM batch WHERE receipt = ?1"},
               {&k->remove_ids, "DELETE FROM id WHERE receipt = ?1"},
               {&k->find, "SELECT receipt, element FROM id WHERE hash = ?1 ORDER BY receipt LIMIT 1"}};
    enum grey_error err = E_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && err == E_OK; i++) {
        err = db_prepare(k->db, all[i].sql, all[i].st, f);
    }
    return err;
}

struct keepdb *keepdb_open(const char *path, struct fault *f) {
    static const struct db_options options = {.page_bytes = PAGE_BYTES, .cache_bytes = CACHE_BYTES};
    struct keepdb *k = mem_new(1, sizeof *k);
    bool created = false;
    if (k == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "opening intake.db");
        return NULL;
    }
    k->db = db_open(path, &options, &created, f);
    enum grey_error err = k->db == NULL ? f->code : E_OK;
    if (err == E_OK && (created || db_number(k->db, "SELECT format FROM meta", 0) == 0)) {
        err = db_exec_whole(k->db, schema, f);
    }
    int64_t format = 0, events = 0, bytes = 0;
    err = err != E_OK ? err : db_ask(k->db, "SELECT format FROM meta", &format, f);
    if (err == E_OK && format != FORMAT) {
        err = fault_set(f, E_DISK_VERSION, "intake.db is of format %lld", (long long)format);
    }
    err = err != E_OK ? err : prepare(k, f);
    err = err != E_OK ? err : db_ask(k->db, "SELECT sum(events) FROM batch", &events, f);
    err = err != E_OK ? err : db_ask(k->db, "SELECT sum(length(data)) FROM batch", &bytes, f);
    if (err != E_OK) {
        keepdb_close(k);
        return NULL;
    }
    k->events = (uint64_t)events;
    k->bytes = (uint64_t)bytes;
    return k;
}

void keepdb_close(struct keepdb *k) {
    if (k != NULL) {
        db_close(k->db);
        mem_free(k);
    }
}

uint64_t keepdb_events(const struct keepdb *k) {
    return k->events;
}

uint64_t keepdb_bytes(const struct keepdb *k) {
    return k->bytes;
}

static enum grey_error insert(struct keepdb *k, struct bytes batch, struct bytes ids, uint64_t *receipt, struct fault *f) {
    bool row = false;
    uint32_t count = (uint32_t)(ids.size / KEEPDB_ID_BYTES);
    db_bind_int(k->add, 1, count);
    db_bind_bytes(k->add, 2, batch);
    enum grey_error err = db_step(k->add, &row, f);
    *receipt = err == E_OK && row ? (uint64_t)db_int(k->add, 0) : 0;
    db_reset(k->add);
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
        db_bind_bytes(k->add_id, 1, bytes_of(ids.data + (size_t)i * KEEPDB_ID_BYTES, KEEPDB_ID_BYTES));
        db_bind_int(k->add_id, 2, (int64_t)*receipt);
        db_bind_int(k->add_id, 3, i);
        err = db_run(k->add_id, f);
        db_reset(k->add_id);
    }
    return err;
}

enum grey_error keepdb_add(struct keepdb *k, struct bytes batch, struct bytes ids, uint64_t *receipt, struct fault *f) {
    enum grey_error err = db_begin(k->db, f);
    err = err != E_OK ? err : insert(k, batch, ids, receipt, f);
    err = err != E_OK ? err : db_commit(k->db, f);
    if (err != E_OK) {
        db_rollback(k->db);
        return err;
    }
    k->events += ids.size / KEEPDB_ID_BYTES;
    k->bytes += batch.size;
    return E_OK;
}

enum grey_error keepdb_next(struct keepdb *k, uint64_t after, uint64_t *receipt, struct blob **batch, struct fault *f) {
    bool row = false;
    *batch = NULL;
    db_bind_int(k->next, 1, (int64_t)after);
    enum grey_error err = db_step(k->next, &row, f);
    if (err == E_OK && row) {
        *receipt = (uint64_t)db_int(k->next, 0);
        *batch = blob_copy(db_bytes(k->next, 1));
        err = *batch == NULL ? fault_set(f, E_NO_MEMORY, "reading intake.db") : E_OK;
    } else if (err == E_OK) {
        err = E_NOT_FOUND;
    }
    db_reset(k->next);
    return err;
}

static enum grey_error drop(struct keepdb *k, struct db_statement *st, uint64_t receipt, struct fault *f) {
    db_bind_int(st, 1, (int64_t)receipt);
    enum grey_error err = db_run(st, f);
    db_reset(st);
    (void)k;
    return err;
}

enum grey_error keepdb_remove(struct keepdb *k, uint64_t receipt, struct fault *f) {
    bool row = false;
    uint64_t events = 0, bytes = 0;
    db_bind_int(k->size, 1, (int64_t)receipt);
    enum grey_error err = db_step(k->size, &row, f);
    if (err == E_OK && row) {
        events = (uint64_t)db_int(k->size, 0);
        bytes = (uint64_t)db_int(k->size, 1);
    }
    db_reset(k->size);
    err = err != E_OK ? err : db_begin(k->db, f);
    err = err != E_OK ? err : drop(k, k->remove, receipt, f);
    err = err != E_OK ? err : drop(k, k->remove_ids, receipt, f);
    err = err != E_OK ? err : db_commit(k->db, f);
    if (err != E_OK) {
        db_rollback(k->db);
        return err;
    }
    k->events -= events < k->events ? events : k->events;
    k->bytes -= bytes < k->bytes ? bytes : k->bytes;
    return k->events == 0 ? db_checkpoint(k->db, f) : E_OK;
}

enum grey_error keepdb_find(struct keepdb *k, const uint8_t id[KEEPDB_ID_BYTES], uint64_t *receipt, uint32_t *element,
                            struct fault *f) {
    bool row = false;
    db_bind_bytes(k->find, 1, bytes_of(id, KEEPDB_ID_BYTES));
    enum grey_error err = db_step(k->find, &row, f);
    if (err == E_OK && row) {
        *receipt = (uint64_t)db_int(k->find, 0);
        *element = (uint32_t)db_int(k->find, 1);
    }
    db_reset(k->find);
    return err == E_OK && !row ? E_NOT_FOUND : err;
}
