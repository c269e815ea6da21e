/* libyaml gives events; the tree, its bounds and what we refuse are here.  Every node and every text is one allocation of the
 * document's list, so there is one way to free it, whatever went wrong before. */
#include "platform/yaml.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "include/grey/must.h"

#define SHOWN_BYTES 40u /* of an offending text in a fault */

struct piece {
    struct piece *next;
    _Alignas(max_align_t) uint8_t content[];
};

struct yaml_doc {
    struct piece *pieces;
    struct yaml_node *root;
    size_t node_count;
};

/* --- Faults with a place -------------------------------------------------------------------------------------------------------- */

/* Copies the head of text, what is not printable as '?', for people to recognise. */
static const char *shown(struct bytes text, char out[SHOWN_BYTES + 4]) {
    size_t size = 0;
    while (text.size > 0) {
        size_t step = bytes_utf8_size(text);
        if (size + (step == 0 ? 1 : step) > SHOWN_BYTES) {
            memcpy(out + size, "...", 3);
            size += 3;
            break;
        }
        if (step == 0 || text.data[0] < 0x20 || text.data[0] == 0x7f) {
            out[size++] = '?';
            step = 1;
        } else {
            memcpy(out + size, text.data, step);
            size += step;
        }
        text.data += step, text.size -= step;
    }
    out[size] = '\0';
    return out;
}

__attribute__((format(printf, 4, 0))) static enum grey_error fault_at(struct fault *f, size_t line, size_t column,
                                                                      const char *format, va_list args) {
    char text[sizeof f->text];
    (void)vsnprintf(text, sizeof text, format, args);
    return fault_set(f, E_CONFIG, "line %zu, column %zu: %s", line, column, text);
}

enum grey_error yaml_fault(const struct yaml_node *node, struct fault *f, const char *format, ...) {
    va_list args;
    va_start(args, format);
    enum grey_error err = fault_at(f, node->line, node->column, format, args);
    va_end(args);
    return err;
}

__attribute__((format(printf, 3, 4))) static enum grey_error fault_mark(yaml_mark_t mark, struct fault *f, const char *format,
                                                                        ...) {
    va_list args;
    va_start(args, format);
    enum grey_error err = fault_at(f, mark.line + 1, mark.column + 1, format, args);
    va_end(args);
    return err;
}

/* --- The tree ------------------------------------------------------------------------------------------------------------------- */

static void *doc_new(struct yaml_doc *doc, size_t size) {
    struct piece *piece = mem_new(1, sizeof *piece + size);
    if (piece == NULL) {
        return NULL;
    }
    piece->next = doc->pieces;
    doc->pieces = piece;
    return piece->content;
}

void yaml_doc_free(struct yaml_doc *doc) {
    if (doc == NULL) {
        return;
    }
    while (doc->pieces != NULL) {
        struct piece *piece = doc->pieces;
        doc->pieces = piece->next;
        mem_free(piece);
    }
    mem_free(doc);
}

/* One open mapping or sequence while the events come in. */
struct level {
    struct yaml_node *node;
    struct yaml_node *last;    /* its latest member or element */
    struct yaml_node *awaited; /* the member whose key was read and whose value comes next */
};

struct reader {
    yaml_parser_t parser;
    struct yaml_doc *doc;
    struct fault *fault;
    struct level levels[YAML_DEPTH_MAX];
    size_t depth;
    bool document_seen;
};

static enum grey_error no_memory(struct reader *r) {
    return fault_set(r->fault, E_NO_MEMORY, "no memory for the configuration's text");
}

static enum grey_error copy_text(struct reader *r, const yaml_event_t *event, struct bytes *out) {
    size_t size = event->data.scalar.length;
    if (size > 0 && memchr(event->data.scalar.value, '\0', size) != NULL) {
        return fault_mark(event->start_mark, r->fault, "a NUL character in a text");
    }
    uint8_t *copy = doc_new(r->doc, size + 1); /* zeroed, so the NUL is there */
    if (copy == NULL) {
        return no_memory(r);
    }
    if (size > 0) {
        memcpy(copy, event->data.scalar.value, size);
    }
    *out = bytes_of(copy, size);
    return E_OK;
}

/* Adds an empty node to the innermost level, or as the root. */
static enum grey_error add_node(struct reader *r, const yaml_event_t *event, struct yaml_node **out) {
    if (r->doc->node_count == YAML_NODES_MAX) {
        return fault_mark(event->start_mark, r->fault, "more than %u values", YAML_NODES_MAX);
    }
    struct yaml_node *node = doc_new(r->doc, sizeof *node);
    if (node == NULL) {
        return no_memory(r);
    }
    r->doc->node_count++;
    if (r->depth == 0) {
        r->doc->root = node;
    } else {
        struct level *level = &r->levels[r->depth - 1];
        *(level->last == NULL ? &level->node->first : &level->last->next) = node;
        level->last = node;
        level->node->count++;
    }
    *out = node;
    return E_OK;
}

static enum grey_error read_key(struct reader *r, const yaml_event_t *event) {
    struct level *level = &r->levels[r->depth - 1];
    if (event->type != YAML_SCALAR_EVENT) {
        return fault_mark(event->start_mark, r->fault, "a key must be plain text");
    }
    struct bytes key = {0};
    enum grey_error err = copy_text(r, event, &key);
    if (err != E_OK) {
        return err;
    }
    for (const struct yaml_node *n = level->node->first; n != NULL; n = n->next) {
        if (bytes_equal(n->key, key)) {
            char name[SHOWN_BYTES + 4];
            return fault_mark(event->start_mark, r->fault, "key \"%s\" stands here and in line %" PRIu32, shown(key, name),
                              n->key_line);
        }
    }
    struct yaml_node *node = NULL;
    err = add_node(r, event, &node);
    if (err == E_OK) {
        node->key = key;
        node->key_line = (uint32_t)event->start_mark.line + 1;
        node->key_column = (uint32_t)event->start_mark.column + 1;
        level->awaited = node;
    }
    return err;
}

static enum grey_error read_value(struct reader *r, const yaml_event_t *event) {
    struct yaml_node *node = NULL;
    struct level *level = r->depth == 0 ? NULL : &r->levels[r->depth - 1];
    if (level != NULL && level->node->kind == YAML_MAPPING) {
        if (level->awaited == NULL) {
            return read_key(r, event);
        }
        node = level->awaited;
        level->awaited = NULL;
    } else {
        enum grey_error err = add_node(r, event, &node);
        if (err != E_OK) {
            return err;
        }
    }
    must(node != NULL); /* awaited, or just made */
    node->line = (uint32_t)event->start_mark.line + 1;
    node->column = (uint32_t)event->start_mark.column + 1;
    if (event->type == YAML_SCALAR_EVENT) {
        node->kind = YAML_SCALAR;
        node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        return copy_text(r, event, &node->text);
    }
    if (r->depth == YAML_DEPTH_MAX) {
        return fault_mark(event->start_mark, r->fault, "more than %u levels deep", YAML_DEPTH_MAX);
    }
    node->kind = event->type == YAML_MAPPING_START_EVENT ? YAML_MAPPING : YAML_SEQUENCE;
    r->levels[r->depth++] = (struct level){.node = node};
    return E_OK;
}

static enum grey_error refuse_extras(struct reader *r, const yaml_event_t *event, const yaml_char_t *anchor,
                                     const yaml_char_t *tag) {
    char name[SHOWN_BYTES + 4];
    if (anchor != NULL) {
        return fault_mark(event->start_mark, r->fault, "anchors (&%s) are not allowed",
                          shown(bytes_str((const char *)anchor), name));
    }
    if (tag != NULL) {
        return fault_mark(event->start_mark, r->fault, "tags (%s) are not allowed", shown(bytes_str((const char *)tag), name));
    }
    return E_OK;
}

static enum grey_error take_event(struct reader *r, const yaml_event_t *event) {
    enum grey_error err = E_OK;
    char name[SHOWN_BYTES + 4];
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (r->document_seen) {
            return fault_mark(event->start_mark, r->fault, "a second document begins; one is allowed");
        }
        r->document_seen = true;
        return E_OK;
    case YAML_ALIAS_EVENT:
        return fault_mark(event->start_mark, r->fault, "aliases (*%s) are not allowed",
                          shown(bytes_str((const char *)event->data.alias.anchor), name));
    case YAML_SCALAR_EVENT:
        err = refuse_extras(r, event, event->data.scalar.anchor, event->data.scalar.tag);
        return err != E_OK ? err : read_value(r, event);
    case YAML_MAPPING_START_EVENT:
        err = refuse_extras(r, event, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        return err != E_OK ? err : read_value(r, event);
    case YAML_SEQUENCE_START_EVENT:
        err = refuse_extras(r, event, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        return err != E_OK ? err : read_value(r, event);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        must(r->depth > 0);
        r->depth--;
        return E_OK;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
    return E_OK;
}

/* The byte at a mark, 0 when the mark is at the end. */
static uint8_t byte_at(struct bytes text, yaml_mark_t mark) {
    size_t line = 0, column = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (line == mark.line && column == mark.column) {
            return text.data[i];
        }
        if (text.data[i] == '\n') {
            line++, column = 0;
        } else {
            column += (text.data[i] & 0xc0) != 0x80; /* columns count characters */
        }
    }
    return 0;
}

/* Tells what libyaml found wrong. */
static enum grey_error parser_fault(struct reader *r, struct bytes text) {
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR) {
        return no_memory(r);
    }
    yaml_mark_t mark = p->problem_mark;
    if (p->error == YAML_READER_ERROR) { /* gives an offset, no mark */
        mark = (yaml_mark_t){0};
        for (size_t i = 0; i < p->problem_offset && i < text.size; i++) {
            mark.column++;
            if (text.data[i] == '\n') {
                mark.line++, mark.column = 0;
            }
        }
    } else if (byte_at(text, mark) == '\t') {
        return fault_mark(mark, r->fault, "a tab; indent with spaces");
    }
    const char *problem = p->problem == NULL ? "not YAML" : p->problem;
    if (p->context == NULL) {
        return fault_mark(mark, r->fault, "%s", problem);
    }
    return fault_mark(mark, r->fault, "%s, %s", problem, p->context);
}

static enum grey_error read_events(struct reader *r, struct bytes text) {
    for (;;) {
        yaml_event_t event;
        if (yaml_parser_parse(&r->parser, &event) == 0) {
            return parser_fault(r, text);
        }
        bool at_end = event.type == YAML_STREAM_END_EVENT;
        enum grey_error err = take_event(r, &event);
        yaml_event_delete(&event);
        if (err != E_OK || at_end) {
            return err;
        }
    }
}

/* libyaml makes of an empty text no document, but of "---" alone or "# remark" after it one empty plain scalar. */
static void drop_empty_root(struct yaml_doc *doc) {
    if (doc->root != NULL && doc->root->kind == YAML_SCALAR && !doc->root->quoted && doc->root->text.size == 0) {
        doc->root = NULL;
    }
}

/* The number of the first line that begins with '%', 0 when there is none.  Directives set up tags, which we refuse, and libyaml takes
 * seconds for some thousands of them. */
static size_t directive_line(struct bytes text) {
    size_t line = 1;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '%' && (i == 0 || text.data[i - 1] == '\n')) {
            return line;
        }
        line += text.data[i] == '\n';
    }
    return 0;
}

struct yaml_doc *yaml_read(struct bytes text, struct fault *f) {
    if (text.size > YAML_TEXT_BYTES_MAX) {
        (void)fault_set(f, E_CONFIG, "line 1, column 1: %zu bytes, at most %u are read", text.size, YAML_TEXT_BYTES_MAX);
        return NULL;
    }
    size_t directive = directive_line(text);
    if (directive > 0) {
        (void)fault_set(f, E_CONFIG, "line %zu, column 1: directives and lines that begin with %% are not allowed", directive);
        return NULL;
    }
    struct reader r = {.fault = f, .doc = mem_new(1, sizeof *r.doc)};
    if (r.doc == NULL || yaml_parser_initialize(&r.parser) == 0) {
        (void)no_memory(&r);
        mem_free(r.doc);
        return NULL;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, text.size == 0 ? (const uint8_t *)"" : text.data, text.size);
    enum grey_error err = read_events(&r, text);
    yaml_parser_delete(&r.parser);
    if (err != E_OK) {
        yaml_doc_free(r.doc);
        return NULL;
    }
    must(r.depth == 0);
    drop_empty_root(r.doc);
    return r.doc;
}

const struct yaml_node *yaml_root(const struct yaml_doc *doc) {
    return doc->root;
}

const struct yaml_node *yaml_get(const struct yaml_node *node, const char *key) {
    if (node == NULL || node->kind != YAML_MAPPING) {
        return NULL;
    }
    for (const struct yaml_node *n = node->first; n != NULL; n = n->next) {
        if (bytes_equal_str(n->key, key)) {
            return n;
        }
    }
    return NULL;
}

/* --- Scalars -------------------------------------------------------------------------------------------------------------------- */

static bool is_one_of(struct bytes text, const char *a, const char *b, const char *c) {
    return bytes_equal_str(text, a) || bytes_equal_str(text, b) || bytes_equal_str(text, c);
}

bool yaml_is_null(const struct yaml_node *node) {
    return node->kind == YAML_SCALAR && !node->quoted &&
           (node->text.size == 0 || bytes_equal_str(node->text, "~") || is_one_of(node->text, "null", "Null", "NULL"));
}

static enum grey_error not_a(const struct yaml_node *node, const char *wanted, struct fault *f) {
    char text[SHOWN_BYTES + 4];
    switch (node->kind) {
    case YAML_MAPPING:
        return yaml_fault(node, f, "%s is expected, not a group of keys", wanted);
    case YAML_SEQUENCE:
        return yaml_fault(node, f, "%s is expected, not a list", wanted);
    case YAML_SCALAR:
        break;
    }
    if (yaml_is_null(node)) {
        return yaml_fault(node, f, "%s is expected, and nothing is given", wanted);
    }
    return yaml_fault(node, f, "%s is expected, not %s\"%s\"", wanted, node->quoted ? "the quoted text " : "",
                      shown(node->text, text));
}

enum grey_error yaml_text(const struct yaml_node *node, struct bytes *out, struct fault *f) {
    if (node->kind != YAML_SCALAR) {
        return not_a(node, "a text", f);
    }
    *out = yaml_is_null(node) ? bytes_of("", 0) : node->text;
    return E_OK;
}

enum grey_error yaml_bool(const struct yaml_node *node, bool *out, struct fault *f) {
    if (node->kind == YAML_SCALAR && !node->quoted) {
        if (is_one_of(node->text, "true", "True", "TRUE")) {
            *out = true;
            return E_OK;
        }
        if (is_one_of(node->text, "false", "False", "FALSE")) {
            *out = false;
            return E_OK;
        }
    }
    return not_a(node, "true or false", f);
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Where the digits at p end. */
static const char *digits_end(const char *p) {
    while (is_digit(*p)) {
        p++;
    }
    return p;
}

/* [-+]? ( 0 | [1-9][0-9]* ) | 0o [0-7]+ | 0x [0-9a-fA-F]+.  A leading zero is no number here: YAML 1.1 took 010 for 8, 1.2 for 10. */
static bool parse_int(const char *text, int64_t *out, bool *too_large) {
    int base = 10;
    const char *digits = text;
    if (text[0] == '0' && (text[1] == 'o' || text[1] == 'x')) {
        base = text[1] == 'o' ? 8 : 16;
        digits = text + 2;
        if (digits[strspn(digits, base == 8 ? "01234567" : "0123456789abcdefABCDEF")] != '\0') {
            return false;
        }
    } else {
        digits += *digits == '-' || *digits == '+';
        if (*digits_end(digits) != '\0' || (digits[0] == '0' && digits[1] != '\0')) {
            return false;
        }
    }
    if (*digits == '\0') {
        return false;
    }
    errno = 0;
    *out = strtoll(base == 10 ? text : digits, NULL, base);
    *too_large = errno == ERANGE;
    return true;
}

enum grey_error yaml_int(const struct yaml_node *node, int64_t min, int64_t max, int64_t *out, struct fault *f) {
    int64_t v = 0;
    bool too_large = false;
    if (node->kind != YAML_SCALAR || node->quoted || !parse_int((const char *)node->text.data, &v, &too_large)) {
        return not_a(node, "a whole number", f);
    }
    if (too_large || v < min || v > max) {
        char text[SHOWN_BYTES + 4];
        return yaml_fault(node, f, "%s is out of range: %" PRId64 " to %" PRId64, shown(node->text, text), min, max);
    }
    *out = v;
    return E_OK;
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?  Infinities and not-a-number mean nothing in a setting. */
static bool parse_number(const char *text, double *out) {
    const char *p = text + (*text == '-' || *text == '+');
    const char *whole = p;
    p = digits_end(p);
    bool any = p > whole;
    if (*p == '.') {
        const char *fraction = ++p;
        p = digits_end(p);
        any = any || p > fraction;
    }
    if (!any) {
        return false;
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '-' || *p == '+';
        if (!is_digit(*p)) {
            return false;
        }
        p = digits_end(p);
    }
    if (*p != '\0') {
        return false;
    }
    *out = strtod(text, NULL); /* of the C locale: no program of ours calls setlocale */
    return true;
}

enum grey_error yaml_number(const struct yaml_node *node, double min, double max, double *out, struct fault *f) {
    double v = 0;
    if (node->kind != YAML_SCALAR || node->quoted || !parse_number((const char *)node->text.data, &v)) {
        return not_a(node, "a number", f);
    }
    if (!(v >= min && v <= max)) {
        char text[SHOWN_BYTES + 4];
        return yaml_fault(node, f, "%s is out of range: %g to %g", shown(node->text, text), min, max);
    }
    *out = v;
    return E_OK;
}
