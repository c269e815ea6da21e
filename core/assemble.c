#include "core/assemble.h"

#include <string.h>

#include "platform/digest.h"

struct parcel {
    struct grey_name site;
    uint32_t hash; /* of the site's name */
    enum event_channel channel;
    grey_epoch epoch;
    uint64_t number, heard; /* heard: the count of parts when its last one came */
    struct builder frame;
};

struct assembler {
    struct parcel *parcels; /* in no order: there are as many as sites send something large just now */
    size_t count, room, bytes, bytes_max;
    uint64_t parts;
};

struct assembler *assemble_new(size_t bytes_max) {
    struct assembler *a = mem_new(1, sizeof *a);
    if (a != NULL) {
        a->bytes_max = bytes_max;
    }
    return a;
}

void assemble_free(struct assembler *a) {
    for (size_t i = 0; a != NULL && i < a->count; i++) {
        builder_free(&a->parcels[i].frame);
    }
    if (a != NULL) {
        mem_free(a->parcels);
        mem_free(a);
    }
}

size_t assemble_bytes(const struct assembler *a) {
    return a->bytes;
}

static void drop(struct assembler *a, struct parcel *p) {
    a->bytes -= p->frame.limit_bytes;
    builder_free(&p->frame);
    *p = a->parcels[--a->count];
}

static struct parcel *find(struct assembler *a, const char *site, enum event_channel c) {
    uint32_t hash = digest_crc32(0, bytes_str(site));
    for (size_t i = 0; i < a->count; i++) {
        struct parcel *p = &a->parcels[i];
        if (p->hash == hash && p->channel == c && strcmp(p->site.text, site) == 0) {
            return p;
        }
    }
    return NULL;
}

void assemble_done(struct assembler *a, const char *site, enum event_channel c) {
    struct parcel *p = find(a, site, c);
    if (p != NULL) {
        drop(a, p);
    }
}

void assemble_forget(struct assembler *a, const char *site) {
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        assemble_done(a, site, (enum event_channel)c);
    }
}

/* The whole frame's room is taken at once, so that what was begun can be ended. */
static struct parcel *begin(struct assembler *a, const char *site, enum event_channel c, const struct sync_part *part) {
    if (part->total_bytes > a->bytes_max || strlen(site) > LIMIT_NAME_BYTES) {
        return NULL;
    }
    while (a->bytes + part->total_bytes > a->bytes_max) {
        struct parcel *longest = &a->parcels[0];
        for (size_t i = 1; i < a->count; i++) {
            longest = a->parcels[i].heard < longest->heard ? &a->parcels[i] : longest;
        }
        drop(a, longest);
    }
    if (a->count == a->room) {
        struct parcel *bigger = mem_grow(a->parcels, a->room * 2 + 8, sizeof *bigger);
        if (bigger == NULL) {
            return NULL;
        }
        a->parcels = bigger;
        a->room = a->room * 2 + 8;
    }
    struct parcel *p = &a->parcels[a->count++];
    *p = (struct parcel){.hash = digest_crc32(0, bytes_str(site)), .channel = c, .epoch = part->epoch, .number = part->number};
    memcpy(p->site.text, site, strlen(site) + 1);
    builder_init(&p->frame, part->total_bytes);
    a->bytes += part->total_bytes;
    return p;
}

enum assemble_verdict assemble_part(struct assembler *a, const char *site, enum event_channel c, const struct sync_part *part,
                                    struct bytes *whole) {
    struct parcel *p = find(a, site, c);
    a->parts++;
    if (p != NULL && part->epoch < p->epoch) {
        return ASSEMBLE_DROPPED; /* of a former leader */
    }
    bool same = p != NULL && part->epoch == p->epoch && part->number == p->number && part->total_bytes == p->frame.limit_bytes;
    if (same && (uint64_t)part->offset + part->bytes.size <= p->frame.size) {
        return ASSEMBLE_MORE; /* it came twice */
    }
    if (!same || part->offset != p->frame.size) {
        if (p != NULL) {
            drop(a, p);
        }
        p = part->offset == 0 ? begin(a, site, c, part) : NULL;
        if (p == NULL) {
            return ASSEMBLE_DROPPED;
        }
    }
    p->heard = a->parts;
    builder_add(&p->frame, part->bytes);
    if (p->frame.err != E_OK) {
        drop(a, p);
        return ASSEMBLE_DROPPED;
    }
    *whole = builder_bytes(&p->frame);
    return p->frame.size == part->total_bytes ? ASSEMBLE_WHOLE : ASSEMBLE_MORE;
}
