#include "core/store_rollouts.h"

#include <string.h>

#include "core/store_backend.h"
#include "platform/log.h"
#include "platform/now.h"

enum { AIM_TARGET, AIM_FORMER, AIM_STAGE, AIM_STATE, AIM_SINCE_MS, AIM_COLUMNS };

struct aim {
    struct store_value id[2]; /* kind, name */
    int64_t at[AIM_COLUMNS];
    struct rollout rollout;
    struct rollout_tally tally;
};

enum grey_error store_stages_put(struct store *s, enum object_kind kind, const char *name, const struct store_stage *stages,
                                 uint32_t count, struct fault *f) {
    const struct store_value id[] = {store_number(kind), store_bytes(bytes_str(name))};
    enum grey_error err = s->ops->run(s, STORE_STAGES_CLEAR, id, 2, f);
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
        const struct store_value in[] = {id[0], id[1], store_number(i), store_bytes(bytes_str(stages[i].label)),
                                         store_number(stages[i].soak_s)};
        err = s->ops->run(s, STORE_STAGE_ADD, in, 5, f);
    }
    return err;
}

/* w: NULL, or the stages are written to it. */
static enum grey_error read_stages(struct store *s, struct aim *a, struct json_writer *w, struct fault *f) {
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_STAGES, a->id, 2, &rows, f);
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        if (a->rollout.stage_count++ == a->rollout.stage) {
            a->rollout.soak_s = (uint32_t)s->ops->number(rows, 1);
        }
        if (w != NULL) {
            json_open(w, '{');
            json_member_text(w, "label", s->ops->bytes(rows, 0));
            json_member_int(w, "soak_seconds", s->ops->number(rows, 1));
            json_close(w);
        }
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

static enum grey_error read_aim(struct store *s, struct aim *a, bool *found, struct fault *f) {
    enum grey_error err = store_row(s, STORE_AIM, a->id, 2, a->at, AIM_COLUMNS, found, f);
    a->rollout = (struct rollout){
        .state = (enum rollout_state)a->at[AIM_STATE], .stage = (uint32_t)a->at[AIM_STAGE], .since_ms = a->at[AIM_SINCE_MS]};
    return err;
}

static enum grey_error tally(struct store *s, struct aim *a, int64_t now_ms, struct fault *f) {
    const struct store_value in[] = {a->id[0], a->id[1], store_number(now_ms - (int64_t)a->rollout.soak_s * 1000)};
    int64_t out[3] = {0};
    bool found;
    enum grey_error err = store_row(s, STORE_AIM_TALLY, in, 3, out, 3, &found, f);
    a->tally = (struct rollout_tally){(uint64_t)out[0], (uint64_t)out[1], (uint64_t)out[2]};
    return err;
}

enum grey_error store_rollout_get(struct store *s, enum object_kind kind, const char *name, int64_t now_ms, struct json_writer *w,
                                  struct fault *f) {
    struct aim a = {.id = {store_number(kind), store_bytes(bytes_str(name))}};
    bool found = false;
    char since[32];
    enum grey_error err = read_aim(s, &a, &found, f);
    json_open(w, '{');
    json_member_open(w, "stages", '[');
    err = err != E_OK ? err : read_stages(s, &a, w, f);
    json_close(w);
    if (err == E_OK && !found && a.rollout.stage_count == 0) {
        return E_NOT_FOUND;
    }
    if (err == E_OK && found) {
        err = tally(s, &a, now_ms, f);
        now_format(a.rollout.since_ms, since);
        json_member_str(w, "state", rollout_state_name(a.rollout.state));
        json_member_int(w, "version", a.at[AIM_TARGET]);
        json_member_int(w, "former", a.at[AIM_FORMER]);
        json_member_int(w, "stage", a.rollout.stage);
        json_member_str(w, "since", since);
        json_member_int(w, "reached", (int64_t)a.tally.reached);
        json_member_int(w, "settled", (int64_t)a.tally.settled);
        json_member_int(w, "failed", (int64_t)a.tally.failed);
    }
    json_close(w);
    return err;
}

static enum grey_error step(struct store *s, struct aim *a, enum rollout_step step, int64_t now_ms, struct fault *f) {
    static const char *const words[] = {[ROLLOUT_ON] = "next-stage", [ROLLOUT_ALL] = "all-sites", [ROLLOUT_REVERT] = "rolled-back"};
    int64_t stage = a->rollout.stage + (step == ROLLOUT_ON), issue = 0;
    enum rollout_state state = step == ROLLOUT_ON ? ROLLOUT_RUNNING : step == ROLLOUT_ALL ? ROLLOUT_DONE : ROLLOUT_BACK;
    const struct store_value in[] = {
        a->id[0], a->id[1], store_number(a->rollout.stage), store_number(stage), store_number(state), store_number(now_ms)};
    enum grey_error err = s->ops->run(s, STORE_AIM_STEP, in, 6, f);
    if (err == E_OK && step == ROLLOUT_REVERT) { /* the older version must be newer than what failed */
        err = store_next_issue(s, now_ms, &issue, f);
        const struct store_value former[] = {a->id[0], a->id[1], store_number(a->at[AIM_FORMER]), store_number(issue)};
        err = err != E_OK ? err : s->ops->run(s, STORE_REISSUE, former, 4, f);
    }
    log_info("rollout", words[step], "kind=%s name=%.*s version=%lld stage=%lld",
             object_kind_name((enum object_kind)a->id[0].number), (int)a->id[1].bytes.size, a->id[1].bytes.data,
             (long long)a->at[AIM_TARGET], (long long)stage);
    return err;
}

enum grey_error store_rollouts_step(struct store *s, int64_t now_ms, bool *changed, struct fault *f) {
    struct store_value after[] = {store_number(0), store_bytes(bytes_of(NULL, 0))};
    char name[LIMIT_NAME_BYTES + 1] = "";
    bool row = true;
    enum grey_error err = E_OK;
    *changed = false;
    while (err == E_OK && row) {
        struct store_rows *rows = NULL;
        struct aim a = {0};
        row = false;
        err = s->ops->ask(s, STORE_AIMS_RUNNING, after, 2, &rows, f);
        if (rows == NULL) {
            break;
        }
        err = s->ops->next(rows, &row, f);
        if (err == E_OK && row) {
            struct bytes text = s->ops->bytes(rows, 1);
            size_t size = text.size < LIMIT_NAME_BYTES ? text.size : LIMIT_NAME_BYTES;
            memcpy(name, text.data, size);
            name[size] = 0;
            after[0] = store_number(s->ops->number(rows, 0));
            after[1] = store_bytes(bytes_str(name));
        }
        s->ops->end(rows);
        if (err != E_OK || !row) {
            break;
        }
        bool found = false;
        a.id[0] = after[0], a.id[1] = after[1];
        err = read_aim(s, &a, &found, f);
        err = err != E_OK ? err : read_stages(s, &a, NULL, f);
        err = err != E_OK ? err : tally(s, &a, now_ms, f);
        enum rollout_step next = err == E_OK && found ? rollout_next(&a.rollout, &a.tally, now_ms) : ROLLOUT_WAIT;
        if (next != ROLLOUT_WAIT) {
            err = step(s, &a, next, now_ms, f);
            *changed = true;
        }
    }
    return err;
}

/* --- labels ------------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error find_site(struct store *s, const char *site, int64_t *no, struct fault *f) {
    const struct store_value id = store_bytes(bytes_str(site));
    bool found = false;
    enum grey_error err = store_row(s, STORE_SITE_FIND, &id, 1, no, 1, &found, f);
    return err != E_OK ? err : found ? E_OK : E_NOT_FOUND;
}

enum grey_error store_labels_put(struct store *s, const char *site, const char *const *labels, uint32_t count, struct fault *f) {
    int64_t no = 0;
    enum grey_error err = find_site(s, site, &no, f);
    const struct store_value id = store_number(no);
    err = err != E_OK ? err : s->ops->run(s, STORE_LABELS_CLEAR, &id, 1, f);
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
        const struct store_value in[] = {id, store_bytes(bytes_str(labels[i]))};
        err = s->ops->run(s, STORE_LABEL_ADD, in, 2, f);
    }
    return err;
}

enum grey_error store_labels_get(struct store *s, const char *site, struct json_writer *w, struct fault *f) {
    const struct store_value id = store_bytes(bytes_str(site));
    struct store_rows *rows = NULL;
    bool row = false;
    int64_t no;
    enum grey_error err = find_site(s, site, &no, f);
    err = err != E_OK ? err : s->ops->ask(s, STORE_LABELS, &id, 1, &rows, f);
    if (rows == NULL) {
        return err;
    }
    json_open(w, '[');
    while ((err = s->ops->next(rows, &row, f)) == E_OK && row) {
        json_text(w, s->ops->bytes(rows, 0));
    }
    json_close(w);
    s->ops->end(rows);
    return err;
}
