/* listing.h: what a call answers as a list, shown as a table: one row an element, one column a member. */
#ifndef AGENT_CTL_LISTING_H
#define AGENT_CTL_LISTING_H

#include "agent/ctl/verbs.h"

/* Puts exactly one cell. */
typedef void listing_cell(struct render_table *t, const json_t *row, const char *name, bool wide);

struct listing_column {
    const char *title, *name; /* the member that is shown: as text, or as a number where the title ends with ">" */
    listing_cell *put;        /* another way of showing it; NULL: that one */
    bool wide;                /* with -o wide only; such columns stand last */
};
#define LISTING(title, name)                                                                                                       \
    { title, name, NULL, false }
#define LISTING_WIDE(title, name)                                                                                                  \
    { title, name, NULL, true }
#define LISTING_BY(title, name, put)                                                                                               \
    { title, name, put, false }

struct listing {
    const struct listing_column *columns;
    unsigned count;
    const char *rows; /* the member that is the list; NULL: the answer is it */
    const char *none; /* said when it is empty; NULL: the titles alone are shown */
};

/* The whole of a verb: asks and prints. */
int listing_get(struct call *c, enum client_side side, const char *path, const struct listing *l);

/* The same of a list that comes in pages, up to `most` rows; with -o json the first page as it is, whose "next" says how to go on.
 * put_path makes the path, and a NUL behind it, of the page of `limit` rows behind `after` ("": the first). */
typedef void listing_path(struct call *c, const char *after, uint64_t limit, struct builder *path);
int listing_pages(struct call *c, listing_path *put_path, uint64_t most, const struct listing *l);

/* Bytes as people read them; "yes" or "no"; a text, "-" when it is empty. */
listing_cell listing_size, listing_yes, listing_dash;

#endif
