/* Any bytes: read or refused with a place, within bounds; the tree holds together; scalars are read by every type. */
#include <string.h>

#include "include/grey/must.h"
#include "platform/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned walk(const struct yaml_node *node, unsigned depth) {
    must(depth <= YAML_DEPTH_MAX && node->line >= 1 && node->column >= 1);
    if (node->kind == YAML_SCALAR) {
        must(node->first == NULL && node->count == 0);
        must(strlen((const char *)node->text.data) == node->text.size);
        struct fault f;
        struct bytes text;
        int64_t i = 0;
        double d = 0;
        bool b = false;
        must(yaml_text(node, &text, &f) == E_OK);
        bool null = yaml_is_null(node);
        bool is_int = yaml_int(node, INT64_MIN, INT64_MAX, &i, &f) == E_OK;
        bool is_number = yaml_number(node, -1e300, 1e300, &d, &f) == E_OK;
        bool is_bool = yaml_bool(node, &b, &f) == E_OK;
        must(null + (is_int || is_number) + is_bool <= 1 && (!node->quoted || !(null || is_int || is_number || is_bool)));
        return 1;
    }
    unsigned count = 0, below = 0;
    for (const struct yaml_node *n = node->first; n != NULL; n = n->next) {
        count++;
        below += walk(n, depth + 1);
        if (node->kind == YAML_MAPPING) {
            must(n->key_line >= 1 && strlen((const char *)n->key.data) == n->key.size);
            must(yaml_get(node, (const char *)n->key.data) == n);
        }
    }
    must(count == node->count);
    return below + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fault f = {0};
    struct yaml_doc *doc = yaml_read(bytes_of(data, size), &f);
    if (doc == NULL) {
        must(f.code == E_CONFIG && strncmp(f.text, "line ", 5) == 0);
        return 0;
    }
    if (yaml_root(doc) != NULL) {
        must(walk(yaml_root(doc), 0) <= YAML_NODES_MAX);
    }
    yaml_doc_free(doc);
    return 0;
}
