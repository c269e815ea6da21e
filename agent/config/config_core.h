/* config_core.h: the inside of the configuration, for its sources and nobody else:
 *   config.c        files, variables, flags, and what belongs together
 *   config_keys.c   the table of keys: name, kind, place, bounds, default, meaning
 *   config_value.c  one value, from a file, a word or the default, checked and put in its place
 *   config_show.c   the configuration, its reference and the flags as text */
#ifndef AGENT_CONFIG_CORE_H
#define AGENT_CONFIG_CORE_H

#include <stddef.h>

#include "agent/config/config.h"
#include "platform/yaml.h"

enum config_kind {
    KIND_TEXT,      /* size: room in the struct */
    KIND_ADDRESS,   /* host:port, :port or unix:/path */
    KIND_ADDRESSES, /* some, comma separated */
    KIND_NAME,      /* [A-Za-z0-9._-]{1,64} */
    KIND_WORD,      /* one of `words` */
    KIND_INT,       /* min..max */
    KIND_MILLI,     /* a number times 1000, stored as int64 */
    KIND_BOOL,
    KIND_LIST,    /* list of addresses: endpoints */
    KIND_TIMES,   /* list of types with the hours that their events live */
    KIND_RANKS,   /* list of numbers: their priorities */
    KIND_CLASSES, /* list of classes of traffic */
    KIND_WINDOWS, /* list of lines of federation/window.h */
    KIND_INERT,   /* known, without effect in this version: any value */
};

enum config_origin { FROM_DEFAULT, FROM_PROFILE, FROM_FILE, FROM_ENVIRONMENT, FROM_FLAG };

struct config_key {
    const char *path; /* "" for what only a flag or variable sets */
    enum config_kind kind;
    size_t at, size;
    int64_t min, max;
    const char *words, *environment, *flag, *fallback, *meaning;
};

extern const struct config_key config_keys[];
extern const size_t config_key_count;

struct config_option { /* a flag that has no key */
    const char *name, *argument, *meaning;
};
extern const struct config_option config_options[];
extern const size_t config_option_count;

extern const char *const config_mode_words[5]; /* by enum config_mode, then "dev" */

static inline bool config_is_list(const struct config_key *k) {
    return k->kind >= KIND_LIST && k->kind <= KIND_WINDOWS;
}

/* Each checks against the key.  E_CONFIG with file, line and column; E_USAGE: what names the flag or variable. */
enum grey_error config_set_from_yaml(struct config *c, const struct config_key *k, const struct yaml_node *n, struct fault *f);
enum grey_error config_set_from_string(struct config *c, const struct config_key *k, const char *text, const char *what,
                                       struct fault *f);

#endif
