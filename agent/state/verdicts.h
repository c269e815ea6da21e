/* verdicts.h: what the core's verifier said of the site's gateways, as part of the site's state, so that each of them knows it, also offline.
 * Internal to the state, but for the payloads and the questions.  Pure.
 *
 * A result is kept as the verifier signed it: who wants to rely on it checks that himself (agent/state/standing.h), with the key that he
 * trusts.  A refusal is the leader's word. */
#ifndef AGENT_VERDICTS_H
#define AGENT_VERDICTS_H

#include "agent/table/table.h"
#include "federation/attest/exchange.h"
#include "federation/attest/verdict.h"
#include "include/grey/entry.h"
#include "platform/fault.h"

#define VERDICTS_MAX (2u * LIMIT_MEMBERS) /* of a site: its gateways, and their former selves */

struct verdicts_row {
    struct grey_name node;
    raft_id id;         /* the gateway's, when it was said */
    bool failed;        /* the last word was a refusal */
    raft_index since;   /* entry of the first refusal in the last row of them; 0: that id was never refused */
    raft_index index;   /* of the last word */
    int64_t refused_ms; /* log time of the last refusal: only a later result lifts it (agent/state/standing.h) */
    uint32_t number;    /*   its error, as it was written; verdicts_why() */
    char detail[EXCHANGE_DETAIL_BYTES + 1];
    struct bytes result; /* the last one of that id, as signed; lent until the next change; empty: there is none */
};

/* Applies an ENTRY_VERDICT; now_ms: log time.  E_BAD_MESSAGE; E_NOT_FOUND: nothing to forget; E_QUOTA: there are VERDICTS_MAX of them. */
enum grey_error verdicts_apply(struct table *t, const struct entry *e, int64_t now_ms, struct builder *changes, struct fault *f);

/* --- questions -------------------------------------------------------------------------------------------------------------------- */
bool verdicts_find(struct table *t, const char *node, struct verdicts_row *out);
/* The one behind `after` ("": the first), by name; false: there is none. */
bool verdicts_next(struct table *t, const char *after, struct verdicts_row *out);

/* What an entry says; slices borrow from its payload.  False: it is none. */
struct verdicts_word {
    struct bytes node, detail, result;
    raft_id id;
    bool refused, forgets;
    uint32_t number; /* of the refusal's error, as it was written */
};
bool verdicts_read(struct bytes payload, struct verdicts_word *out);

/* The error of a number, for people: one that this version does not know counts as one of form.  The state keeps numbers, so that gateways of
 * different versions, which know different ones, keep the same. */
enum grey_error verdicts_why(uint32_t number);

/* --- payloads (docs/FORMATS.md) ----------------------------------------------------------------------------------------------------- */
void payload_verdict(struct builder *out, const char *node, raft_id id, struct bytes result);
void payload_verdict_refused(struct builder *out, const char *node, raft_id id, enum grey_error why, struct bytes detail);
void payload_verdict_forget(struct builder *out, const char *node);

#endif
