/* yaml.h: a configuration text as a tree of nodes that know where they stand (libyaml).
 *
 * The YAML that people write: mappings, sequences, scalars.  Anchors, aliases, tags, directives, keys given twice, keys that
 * are not plain or quoted text, several documents, a NUL character, and more than YAML_TEXT_BYTES_MAX, YAML_DEPTH_MAX or
 * YAML_NODES_MAX are refused.  All faults say E_CONFIG and begin "line 3, column 5: "; the caller puts the file's name before it.
 * Scalars are typed by who reads them, by the core schema of YAML 1.2 (so `no` is text, and only true and false are boolean).
 * Nothing here reads a file.  Thread: any, one at a time for each document.
 *
 * All members of a mapping:
 *     for (const struct yaml_node *n = map->first; n != NULL; n = n->next) { ... n->key, n->key_line ... }  */
#ifndef PLATFORM_YAML_H
#define PLATFORM_YAML_H

#include "platform/bytes.h"
#include "platform/fault.h"

#define YAML_TEXT_BYTES_MAX (256u * 1024u)
#define YAML_DEPTH_MAX 16u
#define YAML_NODES_MAX 4096u

enum yaml_kind { YAML_SCALAR, YAML_MAPPING, YAML_SEQUENCE };

struct yaml_node {
    enum yaml_kind kind;
    bool quoted;           /* a scalar in quotes, or a block of text: never a number, boolean or null */
    uint32_t line, column; /* of the value, from 1 */
    struct bytes text;     /* scalar: what it says, quotes and escapes resolved; a NUL follows, so text.data is a C string too */
    struct bytes key;      /* in a mapping: this member's key, followed by a NUL as well; empty elsewhere */
    uint32_t key_line, key_column;
    struct yaml_node *first; /* mapping: first member, in the order of the text; sequence: first element */
    struct yaml_node *next;  /* the next one beside this one */
    uint32_t count;          /* of members or elements */
};

struct yaml_doc;

/* Copies what it needs of text.  NULL with *f set (f may be NULL): E_CONFIG or E_NO_MEMORY.  The caller owns the result. */
struct yaml_doc *yaml_read(struct bytes text, struct fault *f);
void yaml_doc_free(struct yaml_doc *doc); /* NULL is allowed (libyaml exports a yaml_free of its own) */

/* Lends the root, and with it all nodes, until yaml_doc_free.  NULL when the text is empty or holds only comments. */
const struct yaml_node *yaml_root(const struct yaml_doc *doc);

/* The member `key` of a mapping; NULL when node is NULL, no mapping, or has no such member. */
const struct yaml_node *yaml_get(const struct yaml_node *node, const char *key);

/* True for a scalar that is empty, ~ or null, and not quoted: the key is there but nothing is said. */
bool yaml_is_null(const struct yaml_node *node);

/* Read a scalar.  E_CONFIG, with the place and what was found in *f, when it is of another form or out of range; *out is then
 * unchanged.  yaml_text takes any scalar as it is written (`id: 007` is "007"); a null gives an empty slice. */
enum grey_error yaml_text(const struct yaml_node *node, struct bytes *out, struct fault *f);
enum grey_error yaml_int(const struct yaml_node *node, int64_t min, int64_t max, int64_t *out, struct fault *f);
enum grey_error yaml_number(const struct yaml_node *node, double min, double max, double *out, struct fault *f);
enum grey_error yaml_bool(const struct yaml_node *node, bool *out, struct fault *f);

/* A fault at the place of node: "line 3, column 5: " and the formatted text.  Returns E_CONFIG. */
enum grey_error yaml_fault(const struct yaml_node *node, struct fault *f, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
