#include "core/downpace.h"

#include <string.h>

#include "federation/shaper.h"
#include "include/grey/ids.h"
#include "platform/bytes.h"

#define SITES_MAX 65536u
#define SLOTS_MIN 64u
#define AROUND_BYTES 100u /* topic, MQTT and TLS of a message as the broker hands it on */
#define PUBACK_BYTES 86u  /* the broker's word on a message of the site: MQTT, TLS, TCP and IP */
#define SEGMENT_BYTES 1400u
#define HEADER_BYTES 60u

static const struct shaper_path path = {.segment_bytes = SEGMENT_BYTES, .header_bytes = HEADER_BYTES};

struct slot {
    struct grey_name site; /* "": free */
    struct shaper shaper;  /* without limit: it had one once */
};

struct downpace {
    struct slot *slots; /* open addressing, a power of two, at most half full */
    size_t slot_count, used, limited;
};

static size_t hash(const char *site) { /* FNV-1a */
    uint64_t h = 14695981039346656037u;
    for (; *site != 0; site++) {
        h = (h ^ (uint8_t)*site) * 1099511628211u;
    }
    return (size_t)(h ^ h >> 32);
}

/* Its slot, or the free one where it would be; NULL: there are none at all. */
static struct slot *find(const struct downpace *d, const char *site) {
    if (d->slot_count == 0) {
        return NULL;
    }
    size_t i = hash(site) & (d->slot_count - 1);
    while (d->slots[i].site.text[0] != 0 && strcmp(d->slots[i].site.text, site) != 0) {
        i = (i + 1) & (d->slot_count - 1);
    }
    return &d->slots[i];
}

static struct slot *known(const struct downpace *d, const char *site) {
    struct slot *s = find(d, site);
    return s != NULL && s->site.text[0] != 0 && s->shaper.limit_bytes_per_s > 0 ? s : NULL;
}

static bool grow(struct downpace *d) {
    struct downpace bigger = {.slot_count = d->slot_count == 0 ? SLOTS_MIN : d->slot_count * 2};
    bigger.slots = d->used >= SITES_MAX ? NULL : mem_new(bigger.slot_count, sizeof *bigger.slots);
    if (bigger.slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < d->slot_count; i++) {
        if (d->slots[i].shaper.limit_bytes_per_s > 0) { /* those that gave it up are left behind */
            *find(&bigger, d->slots[i].site.text) = d->slots[i];
            bigger.used++;
        }
    }
    bigger.limited = bigger.used;
    mem_free(d->slots);
    *d = bigger;
    return true;
}

struct downpace *downpace_new(void) {
    return mem_new(1, sizeof(struct downpace));
}

void downpace_free(struct downpace *d) {
    if (d != NULL) {
        mem_free(d->slots);
        mem_free(d);
    }
}

bool downpace_set(struct downpace *d, const char *site, uint64_t bytes_per_s, uint64_t now_us) {
    struct slot *s = find(d, site);
    bool is_new = s == NULL || s->site.text[0] == 0;
    if (is_new && (bytes_per_s == 0 || strlen(site) >= sizeof s->site.text)) {
        return bytes_per_s == 0;
    }
    if (is_new) {
        if (d->used * 2 >= d->slot_count && !grow(d)) {
            return false;
        }
        s = find(d, site);
        memcpy(s->site.text, site, strlen(site) + 1);
        d->used++;
    }
    d->limited -= s->shaper.limit_bytes_per_s > 0;
    shaper_set_limit(&s->shaper, bytes_per_s, now_us);
    d->limited += bytes_per_s > 0;
    return true;
}

void downpace_heard(struct downpace *d, const char *site, size_t bytes, uint64_t now_us) {
    struct slot *s = known(d, site);
    if (s != NULL) { /* every second segment is acknowledged by itself */
        shaper_debit(&s->shaper, now_us, PUBACK_BYTES + (uint64_t)bytes / (2 * SEGMENT_BYTES) * HEADER_BYTES);
    }
}

uint64_t downpace_wait_us(struct downpace *d, const char *site, size_t bytes, uint64_t now_us) {
    struct slot *s = known(d, site);
    size_t all = bytes + AROUND_BYTES, first;
    if (s == NULL) {
        return 0;
    }
    first = shaper_grant(&s->shaper, &path, now_us, all);
    if (first == 0) {
        return shaper_wait_us(&s->shaper, &path, all);
    }
    /* The rest of a message that the bucket cannot hold goes with it; the next one waits for both. */
    shaper_debit(&s->shaper, now_us, shaper_wire_bytes(&path, all) - shaper_wire_bytes(&path, first) + HEADER_BYTES);
    return 0;
}

size_t downpace_count(const struct downpace *d) {
    return d->limited;
}
