/* quotatree.h: many shares at once: all of them are set, or none is, so that what one tenant gives another can take.
 *
 * Pure.  Tenants and namespaces that are not named keep what they have. */
#ifndef AGENT_QUOTATREE_H
#define AGENT_QUOTATREE_H

#include "agent/work/quota.h"

#define QUOTATREE_SHARES_MAX 1024u

struct quotatree_share {
    struct bytes tenant, name_space; /* name_space empty: the tenant itself */
    struct quota_share share;
};

/* May all of them be set?  Errors as of quota_may_set, and E_BAD_REQUEST for one that is named twice; *which: the share at which it fails,
 * for a sum the one that passes what there is. */
enum grey_error quotatree_may_set(const struct quota *q, const struct quotatree_share *shares, uint32_t count, uint32_t *which,
                                  struct fault *f);
/* Sets what quotatree_may_set allowed.  E_NO_MEMORY: some are set. */
enum grey_error quotatree_set(struct quota *q, const struct quotatree_share *shares, uint32_t count);

#endif
