#include "agent/store/setaside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/store/datadir.h"
#include "include/grey/limits.h"
#include "platform/log.h"
#include "platform/now.h"

#define MARK "log.damaged"
#define REJOIN "rejoin"
#define ENDING ".damaged-"
#define PATH_BYTES (LIMIT_PATH_BYTES + 128u)

static void join(char out[PATH_BYTES], const char *dir, const char *name) {
    (void)snprintf(out, PATH_BYTES, "%.*s/%s", (int)LIMIT_PATH_BYTES, dir, name);
}

enum grey_error setaside_mark(const char *wal_dir, const char *reason, struct fault *f) {
    return setaside_marked(wal_dir, NULL) ? E_OK : datadir_note_write(wal_dir, MARK, reason, f);
}

bool setaside_marked(const char *wal_dir, char reason[SETASIDE_REASON_BYTES]) {
    return datadir_note_read(wal_dir, MARK, reason, SETASIDE_REASON_BYTES);
}

bool setaside_rejoins(const char *wal_dir, char peers[SETASIDE_PEERS_BYTES]) {
    return datadir_note_read(wal_dir, REJOIN, peers, SETASIDE_PEERS_BYTES);
}

void setaside_done(const char *wal_dir) {
    char path[PATH_BYTES];
    join(path, wal_dir, REJOIN);
    if (unlink(path) == 0) {
        (void)datadir_sync(wal_dir, NULL);
    }
}

/* --- sets that are kept ---------------------------------------------------------------------------------------------------------- */
/* The time in a name of the form log.db.damaged-<time>; 0: another name. */
static uint64_t set_time(const char *name) {
    static const char head[] = "log.db" ENDING;
    if (strncmp(name, head, sizeof head - 1) != 0) {
        return 0;
    }
    char *end = NULL;
    uint64_t time_s = strtoull(name + sizeof head - 1, &end, 10);
    return *end == '\0' ? time_s : 0;
}

static uint32_t sets_count(const char *wal_dir, uint64_t *oldest_s, uint64_t *newest_s) {
    uint32_t count = 0;
    *oldest_s = UINT64_MAX;
    *newest_s = 0;
    DIR *dir = opendir(wal_dir);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        uint64_t time_s = set_time(entry->d_name);
        if (time_s > 0) {
            count++;
            *oldest_s = time_s < *oldest_s ? time_s : *oldest_s;
            *newest_s = time_s > *newest_s ? time_s : *newest_s;
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return count;
}

static void remove_flat_directory(const char *path) {
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        (void)unlinkat(dirfd(dir), entry->d_name, 0); /* "." and ".." refuse */
    }
    if (dir != NULL) {
        (void)closedir(dir);
        (void)rmdir(path);
    }
}

struct part {
    bool in_wal_dir;
    const char *name;
};
/* In the order of renaming: log.db last, so that its name with the ending stands for a whole set. */
static const struct part parts[] = {{true, "log.db-wal"}, {false, "state.db"},        {false, "state.db-wal"},
                                    {false, "snapshots"}, {false, "state.damaged"},   {false, "state-new.db"},
                                    {true, "log.db"},     {false, "state-new.db-wal"}};

static void set_remove(const char *data_dir, const char *wal_dir, uint64_t time_s) {
    char name[96], path[PATH_BYTES];
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        (void)snprintf(name, sizeof name, "%s" ENDING "%" PRIu64, parts[i].name, time_s);
        join(path, parts[i].in_wal_dir ? wal_dir : data_dir, name);
        if (unlink(path) != 0) {
            remove_flat_directory(path);
        }
    }
    log_info("setaside", "remove", "set=%" PRIu64, time_s);
}

/* At most SETASIDE_KEPT, and none at the price of the log that is to come. */
static void sets_bound(const char *data_dir, const char *wal_dir) {
    uint64_t oldest_s, newest_s;
    for (uint32_t count; (count = sets_count(wal_dir, &oldest_s, &newest_s)) > 0;) {
        char name[96], path[PATH_BYTES];
        struct stat st;
        struct statvfs fs;
        (void)snprintf(name, sizeof name, "log.db" ENDING "%" PRIu64, newest_s);
        join(path, wal_dir, name);
        bool tight =
            stat(path, &st) == 0 && statvfs(wal_dir, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < (uint64_t)st.st_size;
        if (count <= SETASIDE_KEPT && !tight) {
            return;
        }
        set_remove(data_dir, wal_dir, oldest_s);
        if (sets_count(wal_dir, &oldest_s, &newest_s) == count) {
            return; /* it cannot be removed */
        }
    }
}

/* Later than every set there is: the clock of a gateway may be wrong after a start. */
static uint64_t new_time(const char *wal_dir) {
    uint64_t oldest_s, newest_s, time_s = (uint64_t)now_wall_ms() / 1000u;
    (void)sets_count(wal_dir, &oldest_s, &newest_s);
    return time_s > newest_s ? time_s : newest_s + 1;
}

/* --- setting aside --------------------------------------------------------------------------------------------------------------- */
/* only_log: of the log alone. */
static enum grey_error set_rename(const char *data_dir, const char *wal_dir, uint64_t time_s, bool only_log, struct fault *f) {
    char name[96], from[PATH_BYTES], to[PATH_BYTES];
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (only_log && !parts[i].in_wal_dir) {
            continue;
        }
        const char *dir = parts[i].in_wal_dir ? wal_dir : data_dir;
        (void)snprintf(name, sizeof name, "%s" ENDING "%" PRIu64, parts[i].name, time_s);
        join(from, dir, parts[i].name);
        join(to, dir, name);
        if (rename(from, to) != 0 && errno != ENOENT) {
            return fault_errno(f, E_IO, "renaming %s", from);
        }
    }
    enum grey_error err = datadir_sync(data_dir, f);
    return err == E_OK ? datadir_sync(wal_dir, f) : err;
}

enum grey_error setaside_move(const char *data_dir, const char *wal_dir, const char *peers, const char *reason, struct fault *f) {
    char path[PATH_BYTES], before[SETASIDE_PEERS_BYTES];
    uint64_t time_s = new_time(wal_dir);
    enum grey_error err = setaside_mark(wal_dir, reason, f);
    if (err == E_OK &&
        (peers[0] != '\0' || !setaside_rejoins(wal_dir, before))) { /* what is known is not forgotten by a second try */
        err = datadir_note_write(wal_dir, REJOIN, peers, f);
    }
    if (err == E_OK) {
        err = set_rename(data_dir, wal_dir, time_s, false, f);
    }
    if (err != E_OK) {
        return err;
    }
    log_error("setaside", "moved",
              "error=GREY-%d %s; kept as %s/log.db" ENDING "%" PRIu64 "; this gateway joins its site anew under another raft id",
              error_id(E_CORRUPT), reason, wal_dir, time_s);
    join(path, wal_dir, MARK);
    if (unlink(path) != 0 && errno != ENOENT) {
        return fault_errno(f, E_IO, "removing %s", path);
    }
    sets_bound(data_dir, wal_dir);
    return datadir_sync(wal_dir, f);
}

enum grey_error setaside_replace_log(const char *data_dir, const char *wal_dir, const char *mended, struct fault *f) {
    char path[PATH_BYTES], to[PATH_BYTES];
    enum grey_error err = set_rename(data_dir, wal_dir, new_time(wal_dir), true, f);
    if (err != E_OK) {
        return err;
    }
    join(path, wal_dir, mended);
    join(to, wal_dir, "log.db");
    if (rename(path, to) != 0) {
        return fault_errno(f, E_IO, "renaming %s", path);
    }
    sets_bound(data_dir, wal_dir);
    return datadir_sync(wal_dir, f);
}
