#include "agent/ctl/listing.h"

#include <inttypes.h>
#include <string.h>

static void put_cell(struct render_table *t, const json_t *row, const struct listing_column *c, bool wide) {
    if (c->put != NULL) {
        c->put(t, row, c->name, wide);
    } else if (c->title[strlen(c->title) - 1] == '>') {
        render_cellf(t, "%" PRIu64, verbs_uint(row, c->name));
    } else {
        render_cell(t, verbs_text(row, c->name));
    }
}

static void put_rows(struct builder *out, const json_t *rows, const struct listing *l, bool wide) {
    const char *titles[RENDER_COLUMNS_MAX];
    struct render_table t;
    unsigned count = 0;
    size_t i;
    const json_t *row;
    while (count < l->count && (wide || !l->columns[count].wide)) {
        titles[count] = l->columns[count].title;
        count++;
    }
    render_table_begin(&t, titles, count);
    json_array_foreach(rows, i, row) {
        for (unsigned k = 0; k < count; k++) {
            put_cell(&t, row, &l->columns[k], wide);
        }
    }
    render_table_end(&t, out);
}

int listing_get(struct call *c, enum client_side side, const char *path, const struct listing *l) {
    json_t *doc;
    struct builder out;
    int code;
    if (verbs_get(c, side, path, &doc, &code)) {
        return code;
    }
    const json_t *rows = l->rows == NULL ? doc : json_object_get(doc, l->rows);
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    if (l->none != NULL && json_array_size(rows) == 0) {
        builder_add_str(&out, l->none);
    } else {
        put_rows(&out, rows, l, c->output == OUTPUT_WIDE);
    }
    json_decref(doc);
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
