/* quotaform.h: a tree of shares as people write it, in YAML (of which JSON is a part); every error names its line.
 *
 *     cluster: {cpu_percent: 100, memory_percent: 100}        # may be left out, as the next; they cannot be changed
 *     system_reserve: {cpu_percent: 10, memory_percent: 10}
 *     tenants:
 *       acme:
 *         cpu_percent: 30
 *         memory_percent: 25
 *         namespaces:                                         # of the tenant's share
 *           staging: {cpu_percent: 20, memory_percent: 20}  */
#ifndef AGENT_QUOTAFORM_H
#define AGENT_QUOTAFORM_H

#include "agent/work/quotatree.h"
#include "platform/yaml.h"

struct quotaform {
    struct yaml_doc *document; /* lends the names */
    uint32_t count;
    struct quotatree_share shares[QUOTATREE_SHARES_MAX];
    uint32_t lines[QUOTATREE_SHARES_MAX];
};

/* E_BAD_REQUEST with line and column; quotaform_free also after an error. */
enum grey_error quotaform_read(struct quotaform *form, struct bytes text, struct fault *f);
/* May all of it be set?  Errors of quotatree_may_set, with the line at which it fails. */
enum grey_error quotaform_check(const struct quotaform *form, const struct quota *q, struct fault *f);
void quotaform_free(struct quotaform *form);

#endif
