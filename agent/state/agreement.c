#include "agent/state/agreement.h"

#include <string.h>

static struct agreement_point *point_of(struct agreement *a, raft_index index) {
    struct agreement_point *oldest = &a->points[0];
    for (uint32_t i = 0; i < AGREEMENT_POINTS; i++) {
        struct agreement_point *p = &a->points[i];
        if (p->index == index) {
            return p;
        }
        oldest = p->index < oldest->index ? p : oldest;
    }
    if (index < oldest->index) {
        return NULL;
    }
    memset(oldest, 0, sizeof *oldest);
    oldest->index = index;
    return oldest;
}

void agreement_note(struct agreement *a, raft_index index, raft_id id, const uint8_t hash[DIGEST_BYTES]) {
    struct agreement_point *p = index == 0 ? NULL : point_of(a, index);
    for (uint32_t i = 0; p != NULL && i < p->count; i++) {
        if (p->said[i].id == id) {
            return;
        }
    }
    if (p != NULL && p->count < LIMIT_MEMBERS) {
        p->said[p->count].id = id;
        memcpy(p->said[p->count++].hash, hash, DIGEST_BYTES);
    }
}

static uint32_t like(const struct agreement_point *p, uint32_t which) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        count += memcmp(p->said[i].hash, p->said[which].hash, DIGEST_BYTES) == 0;
    }
    return count;
}

enum agreement_verdict agreement_judge(const struct agreement *a, raft_index index, uint32_t holders, raft_id *odd,
                                       uint32_t *odd_count) {
    const struct agreement_point *p = NULL;
    *odd_count = 0;
    for (uint32_t i = 0; i < AGREEMENT_POINTS; i++) {
        p = a->points[i].index == index ? &a->points[i] : p;
    }
    if (p == NULL || index == 0) {
        return AGREEMENT_OPEN;
    }
    uint32_t most = 0, best = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        if (like(p, i) > most) {
            most = like(p, i);
            best = i;
        }
    }
    if (most < holders / 2 + 1) {
        uint32_t silent = holders > p->count ? holders - p->count : 0;
        return most < p->count && most + silent < holders / 2 + 1 ? AGREEMENT_SPLIT : AGREEMENT_OPEN;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        if (memcmp(p->said[i].hash, p->said[best].hash, DIGEST_BYTES) != 0) {
            odd[(*odd_count)++] = p->said[i].id;
        }
    }
    return *odd_count > 0 ? AGREEMENT_ODD : AGREEMENT_OPEN;
}
