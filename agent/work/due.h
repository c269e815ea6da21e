/* due.h: what is due when: a heap of instants, equal ones in the order of their tickets.  Pure. */
#ifndef AGENT_DUE_H
#define AGENT_DUE_H

#include "platform/bytes.h"

struct due_item { /* embedded */
    int64_t at_ms;
    uint64_t ticket;
    uint32_t place; /* 0: in no heap; else place + 1 */
};

struct due {
    struct due_item **items;
    uint32_t count, capacity;
};

/* Room for so many items, so that due_set cannot fail.  E_NO_MEMORY: as it was. */
enum grey_error due_reserve(struct due *d, uint32_t count);
void due_free(struct due *d);
void due_set(struct due *d, struct due_item *i, int64_t at_ms); /* puts it in or moves it; ticket must not change while in */
void due_clear(struct due *d, struct due_item *i);              /* takes it out if it is in */
struct due_item *due_first(const struct due *d);                /* NULL: none */

#endif
