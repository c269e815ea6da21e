/* dag.h: which task waits for which, and the index of all tasks by id.
 *
 * Pure.  A vertex is a task or an id that a task waits for and nobody has submitted yet.  An edge that would close a cycle is found when
 * its task is added; the cycle is named.  Vertices are embedded in nothing: the owner holds a pointer, stable until dag_remove. */
#ifndef AGENT_DAG_H
#define AGENT_DAG_H

#include "include/grey/ids.h"
#include "platform/bytes.h"
#include "platform/fault.h"

struct dag;
struct dag_edge;

struct dag_vertex {
    struct dag_vertex *next_in_bucket;
    void *owner;                /* NULL: waited for, not here yet */
    struct dag_edge *waits_for; /* edges to what it waits for and has not ended */
    struct dag_edge *wanted_by;
    struct dag_vertex *via, *next_to_visit; /* of the search for cycles */
    uint32_t hash;
    uint32_t visit;
    uint16_t unmet; /* edges in waits_for */
    uint8_t id_bytes;
    char id[]; /* NUL terminated */
};

struct dag *dag_new(void);             /* NULL: no memory */
void dag_free(struct dag *d);          /* not the owners */
size_t dag_count(const struct dag *d); /* vertices with an owner */

struct dag_vertex *dag_next(const struct dag *d,
                            const struct dag_vertex *v);           /* all with an owner, in no order; after NULL the first */
struct dag_vertex *dag_find(const struct dag *d, struct bytes id); /* NULL, or one that may have no owner */

/* Would a task `id` that waits for `on` close a cycle?  E_CYCLE: f names it, as "a waits for b waits for a". */
enum grey_error dag_check(struct dag *d, struct bytes id, const struct bytes *on, size_t count, struct fault *f);
/* Adds a task whose cycles were checked.  met(context, id): has this one completed, so that nobody need wait for it?  Vertices of ids that
 * are not here yet are made.  E_NO_MEMORY: nothing is left behind.  owner must not be NULL. */
enum grey_error dag_add(struct dag *d, struct bytes id, const struct bytes *on, size_t count, void *owner,
                        bool (*met)(const struct dag_vertex *v), struct dag_vertex **out);
/* v has ended: ready(context, w) for each w that waited for it, in the order of their ids, after its edge is gone; w->unmet says whether
 * more are open.  ready may not add or remove vertices. */
void dag_finish(struct dag *d, struct dag_vertex *v, void (*ready)(void *context, struct dag_vertex *w), void *context);
const char *dag_waits_for(const struct dag_vertex *v, uint32_t n); /* the n-th id of the v->unmet that v waits for, in order */
void dag_remove(struct dag *d, struct dag_vertex *v);              /* forgets v; whoever still waits for its id goes on waiting */

#endif
