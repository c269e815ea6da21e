#include "agent/ctl/render.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "include/grey/must.h"

#define TABLE_BYTES_MAX (64u * 1024u * 1024u)

const char *render_span(double seconds, char out[RENDER_SHORT]) {
    static const struct {
        uint64_t seconds;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    uint64_t s = seconds <= 0 ? 0 : seconds > 1e12 ? 1000000000000u : (uint64_t)seconds;
    size_t big = 0;
    while (big < 3 && s < units[big].seconds) {
        big++;
    }
    uint64_t count = s / units[big].seconds, rest = big == 3 ? 0 : s % units[big].seconds / units[big + 1].seconds;
    bool both = rest > 0 && !(big == 0 && count >= 100); /* nobody needs the hours of a hundred days */
    if (both) {
        (void)snprintf(out, RENDER_SHORT, "%" PRIu64 " %s %" PRIu64 " %s", count, units[big].name, rest, units[big + 1].name);
    } else {
        (void)snprintf(out, RENDER_SHORT, "%" PRIu64 " %s", count, units[big].name);
    }
    return out;
}

const char *render_size(uint64_t bytes, char out[RENDER_SHORT]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit < 6) {
        value /= 1000;
        unit++;
    }
    (void)snprintf(out, RENDER_SHORT, unit > 0 && value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

void render_text(struct builder *out, struct bytes text) {
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == 0xc2 && i + 1 < text.size && text.data[i + 1] < 0xa0) { /* U+0080 to U+009F */
            builder_add_byte(out, '?');
            i++;
        } else {
            builder_add_byte(out, c < 0x20 || c == 0x7f ? '?' : c);
        }
    }
}

/* --- tables ------------------------------------------------------------------------------------------------------------------------ */

void render_table_begin(struct render_table *t, const char *const *titles, unsigned columns) {
    must(columns >= 1 && columns <= RENDER_COLUMNS_MAX);
    memset(t, 0, sizeof *t);
    builder_init(&t->cells, TABLE_BYTES_MAX);
    t->columns = columns;
    memcpy(t->titles, titles, columns * sizeof titles[0]);
}

void render_cell(struct render_table *t, const char *text) {
    render_text(&t->cells, bytes_str(text == NULL || text[0] == 0 ? "-" : text));
    builder_add_byte(&t->cells, 0);
    t->cell_count++;
}

void render_cellf(struct render_table *t, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    render_cell(t, text);
}

static size_t width_of(const char *text) { /* in characters of UTF-8 */
    size_t width = 0;
    for (; *text != 0; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return width;
}

static void put_cell(struct builder *out, const char *text, size_t width, bool right, bool last) {
    size_t own = width_of(text);
    for (size_t i = own; right && i < width; i++) {
        builder_add_byte(out, ' ');
    }
    builder_add_str(out, text);
    for (size_t i = own; !right && !last && i < width; i++) {
        builder_add_byte(out, ' ');
    }
    builder_add_str(out, last ? "\n" : "  ");
}

void render_table_end(struct render_table *t, struct builder *out) {
    size_t widths[RENDER_COLUMNS_MAX] = {0};
    bool right[RENDER_COLUMNS_MAX] = {false};
    char titles[RENDER_COLUMNS_MAX][32];
    must(t->cell_count % t->columns == 0);
    for (unsigned c = 0; c < t->columns; c++) {
        size_t size = strlen(t->titles[c]);
        right[c] = size > 0 && t->titles[c][size - 1] == '>';
        (void)snprintf(titles[c], sizeof titles[c], "%.*s", (int)(right[c] ? size - 1 : size), t->titles[c]);
        widths[c] = width_of(titles[c]);
    }
    const char *cells = (const char *)t->cells.data;
    if (t->cells.err == E_OK) {
        const char *at = cells;
        for (unsigned i = 0; i < t->cell_count; i++, at += strlen(at) + 1) {
            size_t width = width_of(at);
            widths[i % t->columns] = width > widths[i % t->columns] ? width : widths[i % t->columns];
        }
        for (unsigned c = 0; c < t->columns; c++) {
            put_cell(out, titles[c], widths[c], right[c], c + 1 == t->columns);
        }
        at = cells;
        for (unsigned i = 0; i < t->cell_count; i++, at += strlen(at) + 1) {
            unsigned c = i % t->columns;
            put_cell(out, at, widths[c], right[c], c + 1 == t->columns);
        }
    }
    builder_free(&t->cells);
}

/* --- the verdict ------------------------------------------------------------------------------------------------------------------- */

double render_room_s(const struct render_facts *f) {
    double filled_over_s = f->oldest_s > f->offline_s ? f->oldest_s : f->offline_s;
    if (filled_over_s < 60 || f->waiting_bytes < 1000 || f->queue_limit_bytes == 0) {
        return -1;
    }
    if (f->waiting_bytes >= f->queue_limit_bytes) {
        return 0;
    }
    return (double)(f->queue_limit_bytes - f->waiting_bytes) / ((double)f->waiting_bytes / filled_over_s);
}

static void put_waiting(const struct render_facts *f, struct builder *out) {
    char text[RENDER_SHORT];
    builder_addf(out, "%" PRIu64 " event%s", f->waiting_events, f->waiting_events == 1 ? "" : "s");
    if (f->waiting_bytes > 0) {
        builder_addf(out, " (%s)", render_size(f->waiting_bytes, text));
    }
    builder_add_str(out, " waiting");
}

static void put_room(const struct render_facts *f, struct builder *out) {
    char text[RENDER_SHORT];
    double room_s = render_room_s(f);
    if (room_s > 365.0 * 86400) {
        builder_add_str(out, ", room for more than a year");
    } else if (room_s >= 0) {
        builder_addf(out, ", room for %s more", render_span(room_s, text));
    } else if (f->queue_limit_bytes > f->waiting_bytes) {
        builder_addf(out, ", room for %s", render_size(f->queue_limit_bytes - f->waiting_bytes, text));
    }
}

static void put_offline(const struct render_facts *f, struct builder *out) {
    char text[RENDER_SHORT];
    if (f->offline_s >= 0) {
        builder_addf(out, " for %s, ", render_span(f->offline_s, text));
    } else {
        builder_add_str(out, ", no contact since the leader started, ");
    }
    put_waiting(f, out);
    put_room(f, out);
}

static void put_nodes(const struct render_facts *f, struct builder *out) {
    unsigned majority = f->voters / 2 + 1, spare = f->voters_alive > majority ? f->voters_alive - majority : 0;
    if (f->voters == 1) {
        builder_add_str(out, "one node alone, no second copy of its data");
    } else {
        builder_addf(out, "%u of %u nodes, leader %s, can lose %u node%s", f->voters_alive, f->voters,
                     f->leader[0] != 0 ? f->leader : "unknown", spare, spare == 1 ? "" : "s");
    }
    if (f->silent[0] != 0) {
        builder_addf(out, ", silent: %s", f->silent);
    }
    if (f->one_disk && f->voters > 1) {
        builder_add_str(out, ", answers rest on one disk");
    }
    if (f->distrusted != NULL && f->distrusted[0] != 0) {
        builder_addf(out, ", in quarantine: %s", f->distrusted);
    }
    if (f->learners > 0) {
        builder_addf(out, ", %u joining", f->learners);
    }
}

static void put_link(const struct render_facts *f, struct builder *out) {
    switch (f->link) {
    case LINK_NONE:
        builder_add_str(out, "; no core configured, ");
        break;
    case LINK_UP:
        builder_add_str(out, "; link up, ");
        break;
    case LINK_ELSEWHERE:
        builder_addf(out, "; link kept by node %s, ", f->leader);
        break;
    case LINK_DOWN:
        return; /* said first */
    }
    put_waiting(f, out);
}

enum render_verdict render_verdict(const struct render_facts *f, bool colour, struct builder *out) {
    static const char *const words[] = {"OK", "OFFLINE", "DEGRADED", "NO QUORUM"};
    static const char *const paint[] = {"\033[32m", "\033[33m", "\033[33m", "\033[31m"};
    bool whole = f->voters_alive >= f->voters && (f->distrusted == NULL || f->distrusted[0] == 0);
    enum render_verdict v = !f->quorum             ? VERDICT_NO_QUORUM
                            : !whole               ? VERDICT_DEGRADED
                            : f->link == LINK_DOWN ? VERDICT_OFFLINE
                                                   : VERDICT_OK;
    builder_addf(out, "%s%s%s", colour ? paint[v] : "", words[v], colour ? "\033[0m" : "");
    switch (v) {
    case VERDICT_NO_QUORUM:
        builder_addf(out, ": %u of %u nodes answer%s%s", f->voters_alive, f->voters, f->voters_alive == 1 ? "s" : "",
                     f->voters_alive > f->voters / 2 ? ", none leads yet" : "");
        if (f->silent[0] != 0) {
            builder_addf(out, ", silent: %s", f->silent);
        }
        builder_add_str(out, "; nothing can be decided, stale reads go on; ");
        put_waiting(f, out);
        return v;
    case VERDICT_OFFLINE:
        put_offline(f, out);
        builder_add_str(out, "; ");
        break;
    default:
        builder_add_str(out, ": ");
    }
    put_nodes(f, out);
    if (v == VERDICT_DEGRADED && f->link == LINK_DOWN) {
        builder_add_str(out, "; OFFLINE");
        put_offline(f, out);
    } else {
        put_link(f, out);
    }
    return v;
}
