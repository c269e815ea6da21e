/* rowset.h: rows that were read from state.db or from a state image, packed. */
#ifndef AGENT_ROWSET_H
#define AGENT_ROWSET_H

#include "agent/store/sitelog.h"

struct sitelog_row_set *rowset_new(void);
void rowset_free(struct sitelog_row_set *set);                                          /* NULL is allowed */
enum grey_error rowset_add(struct sitelog_row_set *set, const struct sitelog_row *row); /* copies */

/* The names of wanted rows, as sitelog_want packs them: id u8, key size u16 big-endian, key.  False at the end or when malformed. */
bool rowset_want_next(struct bytes *wants, enum table_id *id, struct bytes *key);

#endif
