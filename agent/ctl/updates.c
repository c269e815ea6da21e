/* Verbs about new versions of our own programs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl/verbs.h"

static void put_update(const json_t *u, struct builder *out) {
    char size[RENDER_SHORT];
    const json_t *coming = json_object_get(u, "coming");
    builder_add_byte(out, '\n');
    render_text(out, bytes_str(verbs_text(u, "name")));
    if (json_object_get(u, "version") != NULL) {
        builder_addf(out, ", version %" PRIu64 " (%s), %s", verbs_uint(u, "version"), render_size(verbs_uint(u, "bytes"), size),
                     verbs_text(u, "health"));
    }
    if (coming != NULL) {
        builder_addf(out, "; version %" PRIu64 " is coming, %" PRIu64 " of %" PRIu64 " chunks are missing",
                     verbs_uint(coming, "version"), verbs_uint(coming, "missing"), verbs_uint(coming, "chunks"));
    }
    if (verbs_text(u, "turn")[0] != 0) {
        builder_add_str(out, "; the turn is of gateway ");
        render_text(out, bytes_str(verbs_text(u, "turn")));
    }
    builder_add_byte(out, '\n');
}

static void put_gateways(const json_t *u, struct builder *out) {
    static const char *const titles[] = {"GATEWAY", "PHASE", "SINCE", "ERROR", "WHY"};
    struct render_table t;
    size_t i;
    const json_t *g;
    render_table_begin(&t, titles, sizeof titles / sizeof titles[0]);
    json_array_foreach(json_object_get(u, "gateways"), i, g) {
        unsigned id = 0;
        enum grey_error e = sscanf(verbs_text(g, "error"), "GREY-%u", &id) == 1 ? error_by_id((int)id) : E_OK;
        render_cell(&t, verbs_text(g, "node"));
        render_cell(&t, verbs_text(g, "phase"));
        render_cell(&t, verbs_text(g, "since"));
        render_cell(&t, id > 0 ? verbs_text(g, "error") : NULL);
        render_cell(&t, e != E_OK ? error_sentence(e) : NULL);
    }
    render_table_end(&t, out);
}

int updates_status(struct call *c) {
    json_t *doc;
    struct builder out;
    int code;
    size_t i;
    const json_t *u;
    if (verbs_get(c, CLIENT_NODE, "/v1/updates", &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    builder_add_str(&out, "this gateway runs ");
    render_text(&out, bytes_str(verbs_text(doc, "program")));
    if (strcmp(verbs_text(doc, "slot"), "-") == 0) {
        builder_add_str(&out, " and has no slots for updates (update.slots)\n");
    } else {
        builder_add_str(&out, " from slot ");
        render_text(&out, bytes_str(verbs_text(doc, "slot")));
        builder_addf(&out, "%s; floor %" PRIu64 "%s\n", json_is_true(json_object_get(doc, "on_trial")) ? ", on trial" : "",
                     verbs_uint(doc, "floor"),
                     json_is_true(json_object_get(doc, "damaged")) ? "; what the slots remember is damaged (GREY-3307)" : "");
    }
    json_array_foreach(json_object_get(doc, "updates"), i, u) {
        put_update(u, &out);
        put_gateways(u, &out);
    }
    json_decref(doc);
    return verbs_print(&out);
}
