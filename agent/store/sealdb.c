#include "agent/store/sealdb.h"

#include <inttypes.h>
#include <string.h>

#include "platform/db.h"

struct sealdb {
    struct logdb *log;
    struct seal waiting; /* index 0: none */
    struct sealdb_signer waiting_signer;
    struct db_statement *put, *put_signer, *cut, *newest, *list, *signers, *signer;
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS seal(idx INTEGER PRIMARY KEY, epoch INT, signer INT, hash BLOB, signature BLOB);"
    "CREATE TABLE IF NOT EXISTS signer(id INTEGER PRIMARY KEY, node BLOB, key BLOB)";

struct sealdb *sealdb_open(struct logdb *log, struct fault *f) {
    struct sealdb *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "opening the seals");
        return NULL;
    }
    s->log = log;
    const struct {
        struct db_statement **st;
        const char *sql;
    } all[] = {{&s->put, "INSERT OR IGNORE INTO seal VALUES(?1, ?2, ?3, ?4, ?5)"},
               {&s->put_signer, "INSERT OR IGNORE INTO signer VALUES(?1, ?2, ?3)"},
               {&s->cut, "DELETE FROM seal WHERE idx < (SELECT max(idx) FROM seal WHERE idx <= ?1)"},
               {&s->newest, "SELECT idx, epoch, signer, hash, signature FROM seal ORDER BY idx DESC LIMIT 1"},
               {&s->list, "SELECT idx, epoch, signer, hash, signature FROM seal WHERE idx >= ?1 ORDER BY idx LIMIT ?2"},
               {&s->signers, "SELECT id, node, key FROM signer ORDER BY id LIMIT ?1"},
               {&s->signer, "SELECT id, node, key FROM signer WHERE id = ?1"}};
    enum grey_error err = db_exec(logdb_db(log), schema, f);
    for (size_t i = 0; i < sizeof all / sizeof all[0] && err == E_OK; i++) {
        err = db_prepare(logdb_db(log), all[i].sql, all[i].st, f);
    }
    if (err != E_OK) {
        sealdb_close(s);
        return NULL;
    }
    return s;
}

void sealdb_close(struct sealdb *s) {
    mem_free(s);
}

static enum grey_error run(struct db_statement *st, struct fault *f) {
    enum grey_error err = db_run(st, f);
    db_reset(st);
    return err;
}

void sealdb_put(struct sealdb *s, const struct seal *seal, const struct sealdb_signer *signer) {
    s->waiting = *seal;
    s->waiting_signer = *signer;
}

static enum grey_error write_waiting(struct sealdb *s, struct fault *f) {
    const struct seal *seal = &s->waiting;
    const struct sealdb_signer *signer = &s->waiting_signer;
    db_bind_int(s->put_signer, 1, (int64_t)signer->id);
    db_bind_bytes(s->put_signer, 2, bytes_str(signer->node.text));
    db_bind_bytes(s->put_signer, 3, bytes_of(signer->public_key, sizeof signer->public_key));
    enum grey_error err = run(s->put_signer, f);
    if (err != E_OK) {
        return err;
    }
    db_bind_int(s->put, 1, (int64_t)seal->index);
    db_bind_int(s->put, 2, (int64_t)seal->epoch);
    db_bind_int(s->put, 3, (int64_t)seal->signer);
    db_bind_bytes(s->put, 4, bytes_of(seal->hash, sizeof seal->hash));
    db_bind_bytes(s->put, 5, bytes_of(seal->signature, sizeof seal->signature));
    if ((err = run(s->put, f)) != E_OK) {
        return err;
    }
    db_bind_int(s->cut, 1, (int64_t)logdb_facts(s->log)->base.index);
    return run(s->cut, f);
}

enum grey_error sealdb_write(struct sealdb *s, struct fault *f) {
    if (s->waiting.index == 0 || s->waiting.index > logdb_facts(s->log)->last) { /* a seal must never outrun its entries */
        return E_OK;
    }
    enum grey_error err = write_waiting(s, f);
    s->waiting.index = err == E_OK ? 0 : s->waiting.index;
    return err;
}

enum grey_error sealdb_save(struct sealdb *s, struct fault *f) {
    if (s->waiting.index == 0) {
        return E_OK;
    }
    enum grey_error err = logdb_begin(s->log, f);
    if (err != E_OK) {
        return err;
    }
    if ((err = sealdb_write(s, f)) != E_OK) {
        logdb_rollback(s->log);
        return err;
    }
    return logdb_commit(s->log, f);
}

static bool seal_read(const struct db_statement *st, struct seal *seal) {
    struct bytes hash = db_bytes(st, 3), signature = db_bytes(st, 4);
    *seal = (struct seal){.index = (raft_index)db_int(st, 0), .epoch = (grey_epoch)db_int(st, 1), .signer = (raft_id)db_int(st, 2)};
    bool ok = hash.size == sizeof seal->hash && signature.size == sizeof seal->signature;
    if (ok) {
        memcpy(seal->hash, hash.data, hash.size);
        memcpy(seal->signature, signature.data, signature.size);
    }
    return ok;
}

static enum grey_error damaged(struct fault *f) {
    return fault_set(f, E_SEAL, "log.db: a stored seal is damaged");
}

enum grey_error sealdb_newest(struct sealdb *s, struct seal *seal, struct fault *f) {
    bool row = false;
    *seal = (struct seal){0};
    enum grey_error err = db_step(s->newest, &row, f);
    if (err == E_OK && row && !seal_read(s->newest, seal)) {
        err = damaged(f);
    }
    db_reset(s->newest);
    return err;
}

enum grey_error sealdb_list(struct sealdb *s, raft_index from, raft_index to, struct seal *out, uint32_t *count, struct fault *f) {
    bool row = true;
    enum grey_error err = E_OK;
    *count = 0;
    db_bind_int(s->list, 1, (int64_t)from);
    db_bind_int(s->list, 2, SEALDB_LIST_MAX);
    while (*count < SEALDB_LIST_MAX && (err = db_step(s->list, &row, f)) == E_OK && row) {
        if (!seal_read(s->list, &out[*count])) {
            err = damaged(f);
            break;
        }
        if (out[(*count)++].index > to) {
            break;
        }
    }
    db_reset(s->list);
    return err;
}

static bool signer_read(const struct db_statement *st, struct sealdb_signer *signer) {
    struct bytes node = db_bytes(st, 1), key = db_bytes(st, 2);
    *signer = (struct sealdb_signer){.id = (raft_id)db_int(st, 0)};
    bool ok = node.size < sizeof signer->node.text && key.size == sizeof signer->public_key &&
              grey_name_valid((const char *)node.data, node.size);
    if (ok) {
        memcpy(signer->node.text, node.data, node.size);
        memcpy(signer->public_key, key.data, key.size);
    }
    return ok;
}

enum grey_error sealdb_signers(struct sealdb *s, struct sealdb_signer *out, uint32_t max, uint32_t *count, struct fault *f) {
    bool row = true;
    enum grey_error err = E_OK;
    *count = 0;
    db_bind_int(s->signers, 1, max);
    while (*count < max && (err = db_step(s->signers, &row, f)) == E_OK && row) {
        if (!signer_read(s->signers, &out[*count])) {
            err = damaged(f);
            break;
        }
        ++*count;
    }
    db_reset(s->signers);
    return err;
}

static enum grey_error signer_find(struct sealdb *s, raft_id id, struct sealdb_signer *signer, struct fault *f) {
    bool row = false;
    db_bind_int(s->signer, 1, (int64_t)id);
    enum grey_error err = db_step(s->signer, &row, f);
    if (err == E_OK && (!row || !signer_read(s->signer, signer))) {
        err = fault_set(f, E_SEAL, "log.db: the key of seal signer %016" PRIx64 " is missing", id);
    }
    db_reset(s->signer);
    return err;
}

enum grey_error sealdb_check(struct sealdb *s, struct fault *f) {
    const struct logdb_facts *log = logdb_facts(s->log);
    struct seal seal;
    struct sealdb_signer signer;
    struct raft_point point;
    enum grey_error err = sealdb_newest(s, &seal, f);
    if (err != E_OK || seal.index == 0) {
        return err;
    }
    if ((err = signer_find(s, seal.signer, &signer, f)) != E_OK) {
        return err;
    }
    if (!seal_verify(&seal, log->cluster_id, signer.public_key)) {
        return fault_set(f, E_SEAL, "log.db: the seal of entry %" PRIu64 " was not made with the key of %s", seal.index,
                         signer.node.text);
    }
    if (seal.index > log->last) {
        return fault_set(f, E_SEAL, "log.db ends at entry %" PRIu64 ", but %s sealed entry %" PRIu64 ": the log lost its end",
                         log->last, signer.node.text, seal.index);
    }
    if (seal.index < log->base.index) {
        return E_OK; /* a received state took the place of what it vouches for */
    }
    err = logdb_point(s->log, seal.index, &point, f);
    if (err == E_OK && memcmp(point.hash, seal.hash, DIGEST_BYTES) != 0) {
        err = fault_set(f, E_SEAL, "log.db: entry %" PRIu64 " or one before it is not what %s sealed in epoch %" PRIu64, seal.index,
                        signer.node.text, seal.epoch);
    }
    return err;
}
