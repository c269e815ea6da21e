#include "federation/ledger.h"

#include <string.h>

const char *ledger_feature_name(enum ledger_feature f) {
    static const char *const names[LEDGER_FEATURES] = {"control", "events",     "data",    "attestation", "traces",
                                                       "logs",    "handshakes", "resends", "session"};
    return (unsigned)f < LEDGER_FEATURES ? names[f] : "?";
}

void ledger_note(struct ledger *l, enum ledger_way w, enum ledger_feature f, uint64_t bytes) {
    l->under_way[w][f] += bytes;
}

void ledger_direct(struct ledger *l, enum ledger_way w, enum ledger_feature f, uint64_t bytes) {
    l->bytes[w][f] += bytes;
}

static uint64_t sum(const uint64_t of[LEDGER_FEATURES]) {
    uint64_t all = 0;
    for (int f = 0; f < LEDGER_FEATURES; f++) {
        all += of[f];
    }
    return all;
}

/* bytes * part / whole, without overflow for any that a link can carry. */
static uint64_t share(uint64_t bytes, uint64_t part, uint64_t whole) {
    while (whole > UINT32_MAX) {
        whole >>= 1;
        part >>= 1;
    }
    return bytes / whole * part + bytes % whole * part / whole;
}

/* Gives bytes to the features by their parts; what rounding leaves goes to the largest, so that the sum is exact. */
static void deal(uint64_t to[LEDGER_FEATURES], uint64_t bytes, const uint64_t parts[LEDGER_FEATURES]) {
    uint64_t whole = sum(parts), left = bytes;
    int largest = LEDGER_SESSION;
    for (int f = 0; f < LEDGER_FEATURES && whole > 0; f++) {
        uint64_t one = share(bytes, parts[f], whole);
        one = one < left ? one : left;
        to[f] += one;
        left -= one;
        largest = parts[f] > parts[largest] ? f : largest;
    }
    to[largest] += left;
}

void ledger_wire(struct ledger *l, enum ledger_way w, uint64_t bytes, uint64_t now_ms) {
    uint64_t *under_way = l->under_way[w], *last = l->last[w], all = sum(under_way);
    if (bytes == 0) {
        return;
    }
    if (all == 0 && (sum(last) == 0 || now_ms >= l->last_ms[w] + LEDGER_TRAIL_MS)) {
        l->bytes[w][LEDGER_SESSION] += bytes;
        return;
    }
    if (all == 0) {
        deal(l->bytes[w], bytes, last);
        return;
    }
    uint64_t taken[LEDGER_FEATURES] = {0};
    deal(l->bytes[w], bytes, under_way);
    deal(taken, bytes < all ? bytes : all, under_way);
    for (int f = 0; f < LEDGER_FEATURES; f++) {
        under_way[f] -= taken[f] < under_way[f] ? taken[f] : under_way[f];
    }
    memcpy(last, taken, sizeof taken);
    l->last_ms[w] = now_ms;
}

void ledger_cut(struct ledger *l) {
    memset(l->under_way, 0, sizeof l->under_way);
    memset(l->last, 0, sizeof l->last);
}

uint64_t ledger_total(const struct ledger *l, enum ledger_way w) {
    return sum(l->bytes[w]);
}
