/* grants.h: the tokens of the site's API, as part of its state, so that every gateway knows them.  Internal to the state, but for the
 * payloads and the questions.  Pure.  What is kept of a token opens nothing (federation/bearer.h). */
#ifndef AGENT_GRANTS_H
#define AGENT_GRANTS_H

#include "agent/table/table.h"
#include "federation/access.h"
#include "include/grey/entry.h"
#include "platform/fault.h"

#define GRANTS_MAX 256u /* of a site: all are in memory, and listed in one answer */
#define GRANTS_TTL_MS_MAX (3653ll * 86400 * 1000)

/* Applies an ENTRY_TOKEN.  E_BAD_MESSAGE; E_NOT_FOUND: revoked before; E_ID_REUSED; E_QUOTA: there are GRANTS_MAX of them.  Tokens that had
 * expired at now_ms leave when one is added. */
enum grey_error grants_apply(struct table *t, const struct entry *e, int64_t now_ms, struct builder *changes, struct fault *f);

/* --- questions -------------------------------------------------------------------------------------------------------------------- */
bool grants_find(struct table *t, const char *id, struct bearer *out);
/* The one behind `after` ("": the first), by id; false: there is none. */
bool grants_next(struct table *t, const char *after, struct bearer *out);

/* --- payloads (docs/FORMATS.md) ----------------------------------------------------------------------------------------------------- */
void payload_grant(struct builder *out, const struct bearer *b);
void payload_revoke(struct builder *out, struct bytes id);

#endif
