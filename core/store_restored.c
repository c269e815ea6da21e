#include "core/store_restored.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/store_backend.h"
#include "include/grey/limits.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/wholefile.h"

#define LIST_MAX 10000

static const char *const evidences[] = {"mark", "list", "issue", "events"};
static struct metric found_total =
    METRIC_COUNTER_LABELS("grey_core_store_restored_total",
                          "Times this core's store was found to be an older copy, by who remembers more.", "evidence", evidences);
static struct metric open_now =
    METRIC_GAUGE("grey_core_store_restored", "1 while the store is an older copy and no operator has accepted that.");

void store_restored_register(void) {
    metrics_register(&found_total);
    metrics_register(&open_now);
}

bool store_restored_open(void) {
    return metrics_value(&open_now, 0) != 0;
}

/* --- the mark ----------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error get_mark(struct store *s, int64_t *mark, struct fault *f) {
    int64_t row[2] = {0, 0};
    bool found = false;
    enum grey_error err = store_row(s, STORE_MARK, NULL, 0, row, 2, &found, f);
    *mark = row[0];
    s->mark_of = row[1];
    return err;
}

static const char *path_of(const struct store *s, char path[LIMIT_PATH_BYTES + 40]) {
    (void)snprintf(path, LIMIT_PATH_BYTES + 40, "%.1000s/store-%016" PRIx64 ".mark", s->options.mark_dir, (uint64_t)s->mark_of);
    return path;
}

enum grey_error store_mark(struct store *s, struct fault *f) {
    enum grey_error err = s->ops->run(s, STORE_MARK_RAISE, NULL, 0, f);
    return err != E_OK ? err : get_mark(s, &s->marked, f);
}

void store_mark_keep(struct store *s) {
    char path[LIMIT_PATH_BYTES + 40];
    struct builder text;
    struct fault f = {0};
    builder_init(&text, 64);
    builder_addf(&text, "%" PRId64 "\n", s->marked);
    if (s->options.mark_dir != NULL && s->mark_of != 0 &&
        wholefile_write(path_of(s, path), builder_bytes(&text), 0600, &f) != E_OK) {
        log_error("store", "mark", "%s cannot be written, so an older copy of the store may not be known as such: %s", path,
                  f.text);
    }
    builder_free(&text);
}

/* 0: there is none.  One that cannot be read is none, and says so: it must not keep the core from starting. */
static int64_t read_file(const struct store *s) {
    char path[LIMIT_PATH_BYTES + 40];
    struct builder text;
    struct fault f = {0};
    char *end = NULL;
    builder_init(&text, 64);
    enum grey_error err = s->options.mark_dir == NULL ? E_NOT_FOUND : wholefile_read(path_of(s, path), &text, &f);
    errno = 0;
    int64_t mark = err == E_OK ? strtoll((const char *)text.data, &end, 10) : 0;
    if (err == E_OK && (errno != 0 || end == (const char *)text.data || *end != '\n' || mark < 0)) {
        err = fault_set(&f, E_CORRUPT, "%s holds no number", path);
    }
    if (err != E_OK && err != E_NOT_FOUND) {
        log_error("store", "mark", "error=GREY-%d %s: %s", error_id(err), error_sentence(err), f.text);
    }
    builder_free(&text);
    return err == E_OK ? mark : 0;
}

static void complain(const char *site, const struct restored_evidence *e) {
    static const char *const says[] = {
        [RESTORED_BY_MARK] = "the mark beside the CA",
        [RESTORED_BY_LIST] = "the list of revoked certificates",
        [RESTORED_BY_ISSUE] = "the site holds a later issue",
        [RESTORED_BY_EVENTS] = "the site freed events that are not here",
    };
    log_error("store", "restored",
              "error=GREY-%d this core runs on an older copy of its store: site=%s known=%" PRId64 " held=%" PRId64
              " evidence=\"%s\"; 'greyctl store status', docs/SECURITY.md",
              error_id(E_STORE_RESTORED), site[0] != 0 ? site : "(all)", e->known, e->held, says[e->by]);
}

/* What is open from before this process. */
static enum grey_error recall(struct store *s, struct fault *f) {
    const struct store_value in[] = {store_number(LIST_MAX)};
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_RESTORED_LIST, in, 1, &rows, f);
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        struct bytes name = s->ops->bytes(rows, 0);
        int64_t by = s->ops->number(rows, 1);
        char site[LIMIT_NAME_BYTES + 1];
        (void)snprintf(site, sizeof site, "%.*s", (int)name.size, (const char *)name.data);
        if (s->ops->number(rows, 5) == 0 && by >= RESTORED_BY_MARK && by <= RESTORED_BY_EVENTS) {
            complain(site, &(struct restored_evidence){(enum restored_by)by, s->ops->number(rows, 2), s->ops->number(rows, 3)});
            metrics_set(&open_now, 0, 1);
        }
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

enum grey_error store_mark_check(struct store *s, int64_t now_ms, struct fault *f) {
    int64_t mark = 0, file = 0, number = 0;
    keys_random(&number, sizeof number);
    const struct store_value name = store_number(number & INT64_MAX);
    enum grey_error err = store_begin(s, f);
    err = err != E_OK ? err : recall(s, f);
    err = err != E_OK ? err : s->ops->run(s, STORE_MARK_ADD, &name, 1, f);
    err = err != E_OK ? err : get_mark(s, &mark, f);
    file = err == E_OK ? read_file(s) : 0;
    if (err == E_OK && file > mark) {
        const struct store_value next[] = {store_number(file + 1)};
        const struct restored_evidence e = {RESTORED_BY_MARK, mark, file};
        err = store_restored_found(s, "", &e, now_ms, f);
        err = err != E_OK ? err : s->ops->run(s, STORE_MARK_SET, next, 1, f);
        s->marked = file + 1;
    } else if (err == E_OK && file < mark) {
        s->marked = mark;
    }
    err = err != E_OK ? err : store_commit(s, f);
    if (err != E_OK) {
        store_rollback(s);
    }
    return err;
}

/* --- what was found ----------------------------------------------------------------------------------------------------------------------- */

enum grey_error store_restored_found(struct store *s, const char *site, const struct restored_evidence *e, int64_t now_ms,
                                     struct fault *f) {
    enum { FOUND_MS, ACCEPTED_MS, HELD, EVIDENCE, COLUMNS };
    const struct store_value in[] = {store_bytes(bytes_str(site)), store_number(e->by), store_number(e->known),
                                     store_number(e->held), store_number(now_ms)};
    int64_t row[COLUMNS] = {0};
    bool found = false;
    enum grey_error err = store_row(s, STORE_RESTORED_OPEN, in, 1, row, COLUMNS, &found, f);
    bool again = found && (row[ACCEPTED_MS] == 0 || (row[EVIDENCE] == (int64_t)e->by && row[HELD] >= e->held));
    if (err != E_OK || again) {
        return err;
    }
    err = s->ops->run(s, STORE_RESTORED_SET, in, 5, f);
    if (err == E_OK) {
        complain(site, e);
        metrics_add(&found_total, e->by, 1);
        metrics_set(&open_now, 0, 1);
    }
    return err;
}

enum grey_error store_restored_doubted(struct store *s, const char *site, bool *doubted, struct fault *f) {
    const char *const names[] = {"", site};
    enum grey_error err = E_OK;
    *doubted = false;
    for (size_t i = 0; i < 2 && err == E_OK && !*doubted; i++) {
        const struct store_value in[] = {store_bytes(bytes_str(names[i]))};
        int64_t row[2] = {0, 0};
        bool found = false;
        err = store_row(s, STORE_RESTORED_OPEN, in, 1, row, 2, &found, f);
        *doubted = found && row[1] == 0;
    }
    return err;
}

enum grey_error store_restored_accept(struct store *s, int64_t now_ms, struct fault *f) {
    const struct store_value in[] = {store_number(now_ms)};
    enum grey_error err = s->ops->run(s, STORE_RESTORED_ACCEPT, in, 1, f);
    if (err == E_OK) {
        metrics_set(&open_now, 0, 0);
    }
    return err;
}

enum grey_error store_restored_list(struct store *s, struct json_writer *w, struct fault *f) {
    const struct store_value in[] = {store_number(LIST_MAX)};
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_RESTORED_LIST, in, 1, &rows, f);
    json_open(w, '[');
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        int64_t by = s->ops->number(rows, 1);
        json_open(w, '{');
        json_member_text(w, "site", s->ops->bytes(rows, 0));
        json_member_str(w, "evidence", by >= 0 && by <= RESTORED_BY_EVENTS ? evidences[by] : "");
        json_member_int(w, "known", s->ops->number(rows, 2));
        json_member_int(w, "held", s->ops->number(rows, 3));
        store_put_time(w, "found", s->ops->number(rows, 4));
        store_put_time_if(w, "accepted", s->ops->number(rows, 5));
        json_close(w);
    }
    json_close(w);
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}
