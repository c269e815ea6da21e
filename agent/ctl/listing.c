#include "agent/ctl/listing.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "include/grey/limits.h"

#define PAGE_ROWS 1000u
#define PATH_BYTES_MAX 8192u

static void put_cell(struct render_table *t, const json_t *row, const struct listing_column *c, bool wide) {
    if (c->put != NULL) {
        c->put(t, row, c->name, wide);
    } else if (c->title[strlen(c->title) - 1] == '>') {
        render_cellf(t, "%" PRIu64, verbs_uint(row, c->name));
    } else {
        render_cell(t, verbs_text(row, c->name));
    }
}

static void begin(struct render_table *t, const struct listing *l, bool wide) {
    const char *titles[RENDER_COLUMNS_MAX];
    unsigned count = 0;
    while (count < l->count && (wide || !l->columns[count].wide)) {
        titles[count] = l->columns[count].title;
        count++;
    }
    render_table_begin(t, titles, count);
}

/* Puts up to `most` rows of the answer; returns how many. */
static uint64_t put_rows(struct render_table *t, const json_t *doc, const struct listing *l, bool wide, uint64_t most) {
    const json_t *rows = l->rows == NULL ? doc : json_object_get(doc, l->rows), *row;
    size_t i;
    uint64_t count = 0;
    json_array_foreach(rows, i, row) {
        if (count < most) {
            for (unsigned k = 0; k < t->columns; k++) {
                put_cell(t, row, &l->columns[k], wide);
            }
            count++;
        }
    }
    return count;
}

int listing_get(struct call *c, enum client_side side, const char *path, const struct listing *l) {
    bool wide = c->output == OUTPUT_WIDE;
    json_t *doc;
    struct render_table t;
    struct builder out;
    int code;
    if (verbs_get(c, side, path, &doc, &code)) {
        return code;
    }
    begin(&t, l, wide);
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    if (put_rows(&t, doc, l, wide, UINT64_MAX) == 0 && l->none != NULL) {
        builder_free(&t.cells);
        builder_add_str(&out, l->none);
    } else {
        render_table_end(&t, &out);
    }
    json_decref(doc);
    return verbs_print(&out);
}

int listing_pages(struct call *c, listing_path *put_path, uint64_t most, const struct listing *l) {
    bool wide = c->output == OUTPUT_WIDE, more = true;
    char after[LIMIT_KEY_BYTES + 1] = "";
    struct render_table t;
    struct builder path, out;
    json_t *doc;
    int code;
    builder_init(&path, PATH_BYTES_MAX);
    begin(&t, l, wide);
    while (more && most > 0) {
        builder_reset(&path);
        put_path(c, after, most < PAGE_ROWS ? most : PAGE_ROWS, &path);
        if (verbs_get(c, CLIENT_NODE, (const char *)path.data, &doc, &code)) {
            builder_free(&path);
            builder_free(&t.cells);
            return code;
        }
        most -= put_rows(&t, doc, l, wide, most);
        const char *next = verbs_text(doc, "next");
        more = next[0] != 0 && strcmp(next, after) != 0;
        (void)snprintf(after, sizeof after, "%s", next);
        json_decref(doc);
    }
    builder_free(&path);
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_end(&t, &out);
    return verbs_print(&out);
}

void listing_size(struct render_table *t, const json_t *row, const char *name, bool wide) {
    char text[RENDER_SHORT];
    (void)wide;
    render_cell(t, render_size(verbs_uint(row, name), text));
}

void listing_yes(struct render_table *t, const json_t *row, const char *name, bool wide) {
    (void)wide;
    render_cell(t, json_is_true(json_object_get(row, name)) ? "yes" : "no");
}

void listing_dash(struct render_table *t, const json_t *row, const char *name, bool wide) {
    const char *text = verbs_text(row, name);
    (void)wide;
    render_cell(t, text[0] != 0 ? text : NULL);
}
