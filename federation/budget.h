/* budget.h: what a metered link may cost in a day and in a month, and what of it is kept for critical events.
 *
 * Counted is what the ledger counts: both directions, headers included.  When all but the reserve is spent, only the channel control
 * (what is critical) and the session itself go on; they are never stopped, so the reserve is what keeps them within the budget too.
 * Which day and month it is (in the zone of the contract) is given.  Pure. */
#ifndef FEDERATION_BUDGET_H
#define FEDERATION_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_STEPS 20u /* the log hears of each step of 5% (DECISIONS 8) */

struct budget_rules {
    uint64_t day_bytes, month_bytes; /* 0: none */
    uint32_t reserve_percent;        /* 0 to 100, of each */
};

struct budget_used {
    uint32_t day;   /* since 1970-01-01, where the contract is */
    uint32_t month; /* year * 12 + month, of the first day of the month of the contract */
    uint64_t day_bytes, month_bytes;
};

/* The month that a day belongs to when each begins on begins_day (1 to 28); month: 1 to 12. */
uint32_t budget_month(uint32_t year, uint32_t month, uint32_t day, uint32_t begins_day);

/* A later day or month begins at 0.  An earlier one, after a clock was corrected, takes over what was counted: nothing is spent twice. */
void budget_date(struct budget_used *u, uint32_t day, uint32_t month);
void budget_spend(struct budget_used *u, uint64_t bytes);
/* What another leader counted (from the log): of the same day and month the larger figure holds, else the later day's. */
void budget_learn(struct budget_used *u, const struct budget_used *known);

bool budget_limited(const struct budget_rules *r);
bool budget_allows(const struct budget_rules *r, const struct budget_used *u, bool critical);
/* Until only what is critical may go (critical: until all is spent); UINT64_MAX without budgets. */
uint64_t budget_left(const struct budget_rules *r, const struct budget_used *u, bool critical);
/* told: what the log knows.  True when another step of a budget was crossed since. */
bool budget_tell(const struct budget_rules *r, const struct budget_used *u, const struct budget_used *told);

#endif
