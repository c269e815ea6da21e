/* Tables: object, a version of one: how it is cut; chunk, by hash, shared by all; aim, the version that sites are to have; holding, what
 * they have; supplied, the sites that take objects. */
#include "core/store_objects.h"

#include <string.h>

#include "core/store_backend.h"
#include "core/store_restored.h"
#include "platform/now.h"

#define FUTURE_MS (24 * 3600 * 1000) /* an issue that a site holds from further ahead is not believed */
enum { CUT_FIELDS = 4 };

/* --- how a version is cut -------------------------------------------------------------------------------------------------------------- */

static void put_cut(struct builder *out, const struct object_manifest *m) {
    codec_put_array(out, CUT_FIELDS);
    codec_put_text(out, m->content_type);
    codec_put_uint(out, m->size);
    codec_put_uint(out, m->chunk_bytes);
    codec_put_bytes(out, m->hashes);
}

/* m borrows from cut. */
static enum grey_error get_cut(struct bytes cut, struct object_manifest *m, struct fault *f) {
    struct codec_reader r;
    codec_reader_init(&r, cut);
    uint64_t fields = codec_array(&r, CUT_FIELDS);
    m->content_type = codec_text(&r, OBJECT_TYPE_BYTES_MAX);
    m->size = codec_uint(&r, OBJECT_BYTES_MAX);
    m->chunk_bytes = (uint32_t)codec_uint(&r, OBJECT_CHUNK_BYTES_MAX);
    m->hashes = codec_bytes(&r, OBJECT_CHUNKS_MAX * OBJECT_HASH_BYTES);
    return codec_end(&r) == E_OK && fields == CUT_FIELDS ? E_OK : fault_set(f, E_CORRUPT, "a version of an object cannot be read");
}

static enum grey_error find(struct store *s, enum object_kind kind, const char *name, uint64_t version, struct builder *cut,
                            struct store_object *out, struct object_manifest *m, struct fault *f) {
    const struct store_value in[] = {store_number(kind), store_bytes(bytes_str(name)), store_number((int64_t)version)};
    struct store_rows *rows = NULL;
    bool row = false;
    *out = (struct store_object){0};
    *m = (struct object_manifest){.kind = kind, .name = bytes_str(name)};
    enum grey_error err = s->ops->ask(s, STORE_OBJECT, in, 3, &rows, f);
    if (rows == NULL) {
        return err;
    }
    err = s->ops->next(rows, &row, f);
    if (err == E_OK && row) {
        out->version = m->version = (uint64_t)s->ops->number(rows, 0);
        out->issue = m->issue = (uint64_t)s->ops->number(rows, 1);
        out->created_ms = s->ops->number(rows, 2);
        builder_add(cut, s->ops->bytes(rows, 3));
        err = cut->err != E_OK ? cut->err : get_cut(builder_bytes(cut), m, f);
        out->size = m->size;
        if (m->content_type.size > 0) {
            memcpy(out->content_type, m->content_type.data, m->content_type.size);
        }
    }
    s->ops->end(rows);
    return err == E_OK && !row ? E_NOT_FOUND : err;
}

/* --- versions ----------------------------------------------------------------------------------------------------------------------------- */

/* Above all that was ever said, also by a store that was lost since. */
enum grey_error store_next_issue(struct store *s, int64_t now_ms, int64_t *issue, struct fault *f) {
    bool found;
    enum grey_error err = store_row(s, STORE_ISSUE_LAST, NULL, 0, issue, 1, &found, f);
    *issue = *issue >= now_ms ? *issue + 1 : now_ms;
    return err;
}

/* With stages it is rolled out, else all are to have it. */
static enum grey_error aim(struct store *s, const struct store_value of[3], int64_t now_ms, struct fault *f) {
    struct store_rows *rows = NULL;
    bool staged = false;
    enum grey_error err = s->ops->ask(s, STORE_STAGES, of, 2, &rows, f);
    if (rows != NULL) {
        err = s->ops->next(rows, &staged, f);
        s->ops->end(rows);
    }
    const struct store_value in[] = {of[0], of[1], of[2], store_number(staged ? ROLLOUT_RUNNING : ROLLOUT_DONE),
                                     store_number(now_ms)};
    return err != E_OK ? err : s->ops->run(s, STORE_AIM_SET, in, 5, f);
}

static enum grey_error add_chunks(struct store *s, struct bytes content, const struct object_manifest *m, struct fault *f) {
    enum grey_error err = E_OK;
    for (uint32_t i = 0; i < object_chunk_count(m) && err == E_OK; i++) {
        struct bytes chunk = bytes_of(content.data + (size_t)i * m->chunk_bytes, object_size_of(m, i));
        const struct store_value in[] = {store_bytes(object_hash(m, i)), store_bytes(chunk)};
        err = s->ops->run(s, STORE_CHUNK_ADD, in, 2, f);
    }
    return err;
}

enum grey_error store_object_put(struct store *s, enum object_kind kind, const char *name, const char *content_type,
                                 struct bytes content, int64_t now_ms, struct store_object *out, struct fault *f) {
    struct builder hashes, cut, old_cut;
    struct object_manifest old;
    int64_t issue = 0;
    builder_init(&hashes, OBJECT_SIGNED_BYTES_MAX);
    builder_init(&cut, OBJECT_SIGNED_BYTES_MAX);
    builder_init(&old_cut, OBJECT_SIGNED_BYTES_MAX);
    struct object_manifest m = {
        .content_type = bytes_str(content_type), .size = content.size, .chunk_bytes = object_chunk_bytes(content.size)};
    object_cut(content, m.chunk_bytes, &hashes);
    m.hashes = builder_bytes(&hashes);
    put_cut(&cut, &m);
    enum grey_error err = hashes.err != E_OK ? hashes.err : cut.err;
    err = err != E_OK ? err : find(s, kind, name, 0, &old_cut, out, &old, f);
    bool same = err == E_OK && bytes_equal(builder_bytes(&cut), builder_bytes(&old_cut));
    err = err == E_NOT_FOUND ? E_OK : err;
    if (err == E_OK && !same) {
        err = add_chunks(s, content, &m, f);
        err = err != E_OK ? err : store_next_issue(s, now_ms, &issue, f);
        *out = (struct store_object){
            .version = out->version + 1, .issue = (uint64_t)issue, .created_ms = now_ms, .size = content.size};
        const struct store_value in[] = {store_number(kind),  store_bytes(bytes_str(name)), store_number((int64_t)out->version),
                                         store_number(issue), store_number(now_ms),         store_bytes(builder_bytes(&cut))};
        err = err != E_OK ? err : s->ops->run(s, STORE_OBJECT_ADD, in, 6, f);
        err = err != E_OK ? err : aim(s, in, now_ms, f);
        err = err != E_OK || kind != OBJECT_POLICY ? err : store_mark(s, f);
    }
    builder_free(&hashes);
    builder_free(&cut);
    builder_free(&old_cut);
    return err;
}

enum grey_error store_chunk(struct store *s, struct bytes hash, struct builder *out, struct fault *f) {
    const struct store_value in = store_bytes(hash);
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_CHUNK, &in, 1, &rows, f);
    if (rows == NULL) {
        return err;
    }
    err = s->ops->next(rows, &row, f);
    if (err == E_OK && row) {
        builder_add(out, s->ops->bytes(rows, 0));
        err = out->err;
    }
    s->ops->end(rows);
    return err == E_OK && !row ? E_NOT_FOUND : err;
}

enum grey_error store_object_get(struct store *s, enum object_kind kind, const char *name, uint64_t version,
                                 struct store_object *out, struct builder *content, struct fault *f) {
    struct builder cut;
    struct object_manifest m;
    builder_init(&cut, OBJECT_SIGNED_BYTES_MAX);
    enum grey_error err = find(s, kind, name, version, &cut, out, &m, f);
    for (uint32_t i = 0; err == E_OK && content != NULL && i < object_chunk_count(&m); i++) {
        err = store_chunk(s, object_hash(&m, i), content, f);
        err = err == E_NOT_FOUND ? fault_set(f, E_CORRUPT, "a chunk of %s is missing", name) : err;
    }
    builder_free(&cut);
    return err;
}

/* --- what sites have ---------------------------------------------------------------------------------------------------------------------- */

enum grey_error store_holdings_outdo(struct store *s, int64_t now_ms, struct fault *f) {
    const struct store_value in[] = {store_number(now_ms + FUTURE_MS)};
    return s->ops->run(s, STORE_ISSUE_RAISE_ALL, in, 1, f);
}

static enum grey_error site_of_session(struct store *s, const char *site, const struct supply_holdings *h, int64_t *no,
                                       struct fault *f) {
    const struct store_value in[] = {store_bytes(bytes_str(site)), store_number((int64_t)h->incarnation)};
    int64_t row[2];
    bool found = false;
    enum grey_error err = store_row(s, STORE_SESSION, in, 2, row, 2, &found, f);
    *no = found ? row[0] : 0;
    return err != E_OK ? err : !found ? E_NOT_FOUND : row[1] != (int64_t)h->epoch ? E_STALE_MEMBER : E_OK;
}

/* A store that was restored from a backup knows of less than the site: what it wants must be newer.  An older policy (whom to trust, who is
 * revoked, how gateways are judged) takes the place of a newer one only when an operator has said so. */
static enum grey_error raise_over(struct store *s, const char *site, const struct supply_holding *one, int64_t now_ms,
                                  struct fault *f) {
    const struct store_value in[] = {store_number(one->kind), store_bytes(one->name), store_number((int64_t)one->issue)};
    int64_t issue = 0;
    bool found = false, doubted = false;
    enum grey_error err = store_row(s, STORE_OBJECT_ISSUE, in, 2, &issue, 1, &found, f);
    if (err == E_OK && (int64_t)one->issue > issue) {
        const struct restored_evidence newer = {RESTORED_BY_ISSUE, issue, (int64_t)one->issue};
        err = store_restored_found(s, site, &newer, now_ms, f);
        err = err != E_OK || one->kind != OBJECT_POLICY ? err : store_restored_doubted(s, site, &doubted, f);
    }
    return err != E_OK || doubted ? err : s->ops->run(s, STORE_ISSUE_RAISE, in, 3, f);
}

enum grey_error store_holdings(struct store *s, const char *site, const struct supply_holdings *h, int64_t now_ms,
                               struct fault *f) {
    int64_t no = 0;
    enum grey_error err = site_of_session(s, site, h, &no, f);
    const struct store_value begin[] = {store_number(no), store_number(now_ms)};
    err = err != E_OK ? err : s->ops->run(s, STORE_SUPPLIED_SET, begin, 2, f);
    for (uint32_t i = 0; i < h->count && err == E_OK; i++) {
        const struct supply_holding *one = &h->at[i];
        const struct store_value in[] = {store_number(no),
                                         store_number(one->kind),
                                         store_bytes(one->name),
                                         store_number((int64_t)one->version),
                                         store_number((int64_t)one->issue),
                                         store_number(one->health),
                                         store_number(now_ms)};
        err = s->ops->run(s, STORE_HOLDING_SET, in, 7, f);
        if (err == E_OK && (int64_t)one->issue < now_ms + FUTURE_MS) {
            err = raise_over(s, site, one, now_ms, f);
        }
    }
    return err;
}

enum grey_error store_offers(struct store *s, const char *site, bool (*sign)(void *context, struct object_manifest *m),
                             void *context, struct fault *f) {
    const struct store_value id = store_bytes(bytes_str(site));
    struct store_rows *rows = NULL;
    bool row = false, more = true;
    enum grey_error err = s->ops->ask(s, STORE_OFFERS, &id, 1, &rows, f);
    while (rows != NULL && more && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        struct object_manifest m = {.kind = (enum object_kind)s->ops->number(rows, 0),
                                    .name = s->ops->bytes(rows, 1),
                                    .version = (uint64_t)s->ops->number(rows, 2),
                                    .issue = (uint64_t)s->ops->number(rows, 3)};
        err = get_cut(s->ops->bytes(rows, 4), &m, f);
        more = err == E_OK && sign(context, &m);
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

enum grey_error store_supplied(struct store *s, const char *after, struct store_stand *out, size_t max, size_t *count,
                               struct fault *f) {
    const struct store_value in[] = {store_bytes(bytes_str(after)), store_number((int64_t)max)};
    struct store_rows *rows = NULL;
    bool row = false;
    *count = 0;
    enum grey_error err = s->ops->ask(s, STORE_SUPPLIED, in, 2, &rows, f);
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        struct store_stand *stand = &out[(*count)++];
        struct bytes id = s->ops->bytes(rows, 0);
        *stand = (struct store_stand){.at.incarnation = (uint64_t)s->ops->number(rows, 1),
                                      .at.epoch = (grey_epoch)s->ops->number(rows, 2)};
        memcpy(stand->site.text, id.data, id.size < LIMIT_NAME_BYTES ? id.size : LIMIT_NAME_BYTES);
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

/* --- answers --------------------------------------------------------------------------------------------------------------------------------- */

enum grey_error store_object_list(struct store *s, enum object_kind kind, struct json_writer *w, struct fault *f) {
    const struct store_value in = store_number(kind);
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_OBJECTS, &in, 1, &rows, f);
    if (rows == NULL) {
        return err;
    }
    json_open(w, '[');
    while ((err = s->ops->next(rows, &row, f)) == E_OK && row) {
        json_open(w, '{');
        json_member_text(w, "name", s->ops->bytes(rows, 0));
        json_member_int(w, "version", s->ops->number(rows, 1));
        json_member_int(w, "issue", s->ops->number(rows, 2));
        store_put_time(w, "created", s->ops->number(rows, 3));
        json_member_int(w, "sites_in_force", s->ops->number(rows, 4));
        json_close(w);
    }
    json_close(w);
    s->ops->end(rows);
    return err;
}

enum grey_error store_site_objects(struct store *s, const char *site, struct json_writer *w, struct fault *f) {
    const struct store_value in = store_bytes(bytes_str(site));
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_SITE_OBJECTS, &in, 1, &rows, f);
    if (rows == NULL) {
        return err;
    }
    json_open(w, '[');
    while ((err = s->ops->next(rows, &row, f)) == E_OK && row) {
        json_open(w, '{');
        json_member_str(w, "kind", object_kind_name((enum object_kind)s->ops->number(rows, 0)));
        json_member_text(w, "name", s->ops->bytes(rows, 1));
        json_member_int(w, "version", s->ops->number(rows, 2));
        json_member_int(w, "issue", s->ops->number(rows, 3));
        json_member_str(w, "health", supply_health_name((enum supply_health)s->ops->number(rows, 4)));
        store_put_time(w, "since", s->ops->number(rows, 5));
        json_close(w);
    }
    json_close(w);
    s->ops->end(rows);
    return err;
}
