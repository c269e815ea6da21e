#include "federation/budget.h"

uint32_t budget_month(uint32_t year, uint32_t month, uint32_t day, uint32_t begins_day) {
    uint32_t number = year * 12 + month;
    return day < begins_day ? number - 1 : number;
}

void budget_date(struct budget_used *u, uint32_t day, uint32_t month) {
    if (day > u->day) {
        u->day_bytes = 0;
    }
    if (month > u->month) {
        u->month_bytes = 0;
    }
    u->day = day;
    u->month = month;
}

static uint64_t sum(uint64_t a, uint64_t b) {
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

void budget_spend(struct budget_used *u, uint64_t bytes) {
    u->day_bytes = sum(u->day_bytes, bytes);
    u->month_bytes = sum(u->month_bytes, bytes);
}

static void learn(uint32_t *when, uint64_t *bytes, uint32_t known_when, uint64_t known_bytes) {
    if (known_when > *when || (known_when == *when && known_bytes > *bytes)) {
        *when = known_when;
        *bytes = known_bytes;
    }
}

void budget_learn(struct budget_used *u, const struct budget_used *known) {
    learn(&u->day, &u->day_bytes, known->day, known->day_bytes);
    learn(&u->month, &u->month_bytes, known->month, known->month_bytes);
}

bool budget_limited(const struct budget_rules *r) {
    return r->day_bytes > 0 || r->month_bytes > 0;
}

static uint64_t left_of(uint64_t budget, uint64_t used, uint32_t kept_percent) {
    uint64_t kept = budget / 100 * kept_percent + budget % 100 * kept_percent / 100;
    uint64_t most = budget - kept;
    return budget == 0 ? UINT64_MAX : used < most ? most - used : 0;
}

uint64_t budget_left(const struct budget_rules *r, const struct budget_used *u, bool critical) {
    uint32_t kept_percent = critical ? 0 : r->reserve_percent > 100 ? 100 : r->reserve_percent;
    uint64_t day = left_of(r->day_bytes, u->day_bytes, kept_percent), month = left_of(r->month_bytes, u->month_bytes, kept_percent);
    return day < month ? day : month;
}

bool budget_allows(const struct budget_rules *r, const struct budget_used *u, bool critical) {
    return critical || budget_left(r, u, false) > 0;
}

static bool crossed(uint64_t budget, uint64_t used, uint64_t told) {
    uint64_t step = budget / BUDGET_STEPS > 0 ? budget / BUDGET_STEPS : 1;
    return budget > 0 && used / step > told / step;
}

bool budget_tell(const struct budget_rules *r, const struct budget_used *u, const struct budget_used *told) {
    return crossed(r->day_bytes, u->day_bytes, told->day == u->day ? told->day_bytes : 0) ||
           crossed(r->month_bytes, u->month_bytes, told->month == u->month ? told->month_bytes : 0);
}
