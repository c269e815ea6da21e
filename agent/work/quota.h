/* quota.h: who may use how much of the site: cluster -> tenant -> namespace, zones, bursts.
 *
 * Pure.  Shares are in permille: of a tenant, of the site's capacity; of a namespace, of its tenant's.  The system keeps
 * QUOTA_SYSTEM_PERMILLE of every node, so tenants may have 900 together.  Tenant `default` always exists: until it is set, its share is
 * what the others leave, which may be nothing where over-commit is allowed.  A tenant that has rested may go to twice its share for QUOTA_BURST_MS: the time runs while it is above its share
 * and comes back while it is not, and until all of it is back no new burst begins (else tasks would be started to be stopped at once).  A namespace's share is a wall. */
#ifndef AGENT_QUOTA_H
#define AGENT_QUOTA_H

#include "include/grey/ids.h"
#include "platform/bytes.h"
#include "platform/fault.h"

#define QUOTA_WHOLE 1000u
#define QUOTA_SYSTEM_PERMILLE 100u
#define QUOTA_TENANTS_MAX 256u   /* of a site: a customer, a line, a vendor each */
#define QUOTA_NAMESPACES_MAX 16u /* of a tenant, beside the one without a name */
#define QUOTA_BURST_FACTOR 2u
#define QUOTA_DEFAULT_TENANT "default"

struct quota_amount {
    uint64_t cpu_millicores, memory_bytes;
};
struct quota_share {
    uint32_t cpu_permille, memory_permille;
};

static inline struct quota_amount quota_sum(struct quota_amount a, struct quota_amount b) {
    return (struct quota_amount){a.cpu_millicores + b.cpu_millicores, a.memory_bytes + b.memory_bytes};
}
static inline bool quota_within(struct quota_amount a, struct quota_amount limit) {
    return a.cpu_millicores <= limit.cpu_millicores && a.memory_bytes <= limit.memory_bytes;
}
struct quota_amount quota_of(struct quota_amount whole, struct quota_share share); /* rounded down */

/* --- zones ----------------------------------------------------------------------------------------------------------------------------- */

/* Usage is in permille of what tasks may use, the larger of processor and memory. */
enum quota_zone { ZONE_GREEN, ZONE_YELLOW, ZONE_RED, ZONE_EMERGENCY, ZONE_COUNT };
#define QUOTA_YELLOW_FROM 700u /* at 70% yellow begins, with a delay of 0 */
#define QUOTA_RED_ABOVE 900u   /* 90% itself is yellow */
#define QUOTA_EMERGENCY_ABOVE 1000u
#define QUOTA_RED_QUEUE_MAX 1000u /* in red, so many wait; the next one is refused */

enum quota_zone quota_zone(uint32_t usage_permille);
uint32_t quota_delay_ms(uint32_t usage_permille); /* yellow: 100 ms for each percentage point above 70%; red and above as at 90% */
uint32_t quota_usage(struct quota_amount used,
                     struct quota_amount of); /* permille, rounded up; of nothing: 1000 when anything is used */
const char *quota_zone_name(enum quota_zone z);

/* --- the tree ---------------------------------------------------------------------------------------------------------------------------- */

struct quota_namespace {
    struct grey_name name; /* the first of a tenant has none: what names no namespace */
    struct quota_share share;
    struct quota_amount used;
    uint64_t tasks; /* that refer to it */
};

struct quota_tenant {
    struct grey_name name;
    struct quota_share share;
    bool set;       /* false: `default` with what the others leave */
    bool dirty;     /* changed since whoever keeps rows of it looked */
    uint64_t tasks; /* that refer to it */
    struct quota_amount used;
    uint64_t burst_left_ms;   /* at quota.time_ms */
    uint32_t namespace_count; /* places in use, free ones among them included */
    struct quota_namespace
        namespaces[QUOTA_NAMESPACES_MAX + 1]; /* a place that has no name is free, but the first; they never move */
    void *owner;                              /* the scheduler's */
};

struct quota {
    uint32_t count;
    struct quota_tenant *tenants[QUOTA_TENANTS_MAX]; /* by name */
    struct quota_amount capacity;                    /* of the site: all nodes that take work, the system's part included */
    uint64_t burst_ms;                               /* the most burst time a tenant has */
    int64_t time_ms;                                 /* of the last quota_run */
    bool overcommit;                                 /* shares may add up to more than there is */
};

#define QUOTA_BURST_MS 60000u

enum grey_error quota_init(struct quota *q); /* with the default tenant.  E_NO_MEMORY */
void quota_clear(struct quota *q);           /* frees the tenants; owners are the scheduler's */

struct quota_tenant *quota_find(const struct quota *q, struct bytes name); /* NULL: none */
struct quota_namespace *quota_namespace_find(struct quota_tenant *t, struct bytes name);

/* May this share be set?  E_QUOTA with the sum that would pass 900 (of a tenant) or 1000 (of namespaces), E_BAD_REQUEST, E_BUSY when
 * there are too many, E_NOT_FOUND for a namespace of no tenant.  name_space empty: the tenant itself. */
enum grey_error quota_may_set(const struct quota *q, struct bytes tenant, struct bytes name_space, struct quota_share share,
                              struct fault *f);
/* Parts of it, for quotatree.c: is it well-formed; and do others and more pass `most` together? */
enum grey_error quota_names_check(struct bytes tenant, struct bytes name_space, struct quota_share share, struct fault *f);
enum grey_error quota_sum_check(const struct quota *q, struct quota_share others, struct quota_share more, uint32_t most,
                                const char *whose, struct fault *f);
/* Sets what quota_may_set allowed.  *out (may be NULL): the tenant.  E_NO_MEMORY: nothing changed. */
enum grey_error quota_set(struct quota *q, struct bytes tenant, struct bytes name_space, struct quota_share share,
                          struct quota_tenant **out);
/* E_NOT_FOUND, E_CONDITION while tasks refer to it; the default tenant goes back to what the others leave. */
enum grey_error quota_may_remove(const struct quota *q, struct bytes tenant, struct bytes name_space, struct fault *f);
void quota_remove(struct quota *q, struct bytes tenant, struct bytes name_space);

struct quota_share quota_share_of(const struct quota *q, const struct quota_tenant *t);
struct quota_amount quota_limit(const struct quota *q, const struct quota_tenant *t); /* without burst */
struct quota_amount quota_namespace_limit(const struct quota *q, const struct quota_tenant *t, const struct quota_namespace *n);

enum quota_answer { QUOTA_YES, QUOTA_TENANT_FULL, QUOTA_NAMESPACE_FULL };
/* May t use `more`?  burst: up to twice the share, if it bursts and has time left or has all of it (quota_run before). */
enum quota_answer quota_admits(const struct quota *q, const struct quota_tenant *t, const struct quota_namespace *n,
                               struct quota_amount more, bool burst);
/* Lets the burst times of all tenants run to now_ms; before uses, shares, or the capacity change. */
void quota_run(struct quota *q, int64_t now_ms);
bool quota_above(const struct quota *q, const struct quota_tenant *t); /* above its share */
int64_t quota_rested_ms(const struct quota *q,
                        const struct quota_tenant *t); /* when all its burst time is back; INT64_MAX: it is, or never */
int64_t quota_due_ms(const struct quota *q);           /* when the first burst ends; INT64_MAX: none runs */
void quota_charge(struct quota_tenant *t, struct quota_namespace *n, struct quota_amount a);
void quota_release(struct quota_tenant *t, struct quota_namespace *n, struct quota_amount a);

#endif
