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

listing_cell listing_size, listing_yes; /* bytes as people read them; "yes" or "no" */

#endif
