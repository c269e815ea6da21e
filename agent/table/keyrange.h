/* keyrange.h: ranges of keys that are deleted, until the disk has heard of it; of a table (agent/table/table.h). */
#ifndef AGENT_TABLE_KEYRANGE_H
#define AGENT_TABLE_KEYRANGE_H

#include "agent/table/table.h"

struct keyrange {
    struct keyrange *next;
    enum table_id id;
    uint16_t low_bytes, high_bytes;
    uint8_t bytes[]; /* low, high */
};

struct keyrange_list { /* zeroed: empty */
    struct keyrange *first;
    size_t bytes; /* of memory */
};

struct keyrange *keyrange_new(enum table_id id, struct bytes low,
                              struct bytes high);     /* copies; NULL: no memory; mem_free frees it */
struct bytes keyrange_low(const struct keyrange *g);  /* lent, as long as g lives */
struct bytes keyrange_high(const struct keyrange *g); /* the first key behind it */
/* Takes g.  Ranges that lie within another fall together; the outbox deletes from the bottom up, so that few are left. */
void keyrange_add(struct keyrange_list *l, struct keyrange *g);
bool keyrange_covers(const struct keyrange_list *l, enum table_id id, struct bytes key);
void keyrange_move(struct keyrange_list *to, struct keyrange_list *from); /* all of them; from is empty then */
void keyrange_clear(struct keyrange_list *l);

#endif
