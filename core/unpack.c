#include "core/unpack.h"

#include <stdio.h>
#include <string.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/digest.h"

/* Sites stand in a table by the hash of their name, each at the first free place from there on. */

struct session {
    char site[LIMIT_NAME_BYTES + 1]; /* "": free */
    struct squeeze *squeeze;         /* from its first frame on */
    grey_epoch epoch;
    uint32_t number, next_serial;
    bool broken; /* what comes does not follow */
    uint64_t heard_ms, told_ms;
};

struct unpack {
    struct session *sessions;
    uint32_t places, sites, sites_max, open;
    struct sync_item items[SYNC_ITEMS_MAX];
    struct sync_gap gaps[SYNC_GAPS_MAX];
    struct builder records;
};

struct unpack *unpack_new(uint32_t sites_max) {
    must(sites_max > 0);
    struct unpack *p = mem_new(1, sizeof *p);
    if (p != NULL && (p->sessions = mem_new(2 * (size_t)sites_max, sizeof *p->sessions)) == NULL) {
        mem_free(p);
        return NULL;
    }
    if (p != NULL) {
        p->sites_max = sites_max;
        p->places = 2 * sites_max; /* half of them stay free, so that searches are short */
        builder_init(&p->records, LIMIT_FRAME_PAYLOAD_BYTES);
    }
    return p;
}

void unpack_free(struct unpack *p) {
    for (uint32_t i = 0; p != NULL && i < p->places; i++) {
        squeeze_free(p->sessions[i].squeeze);
    }
    if (p != NULL) {
        builder_free(&p->records);
        mem_free(p->sessions);
        mem_free(p);
    }
}

uint32_t unpack_sessions(const struct unpack *p) {
    return p->open;
}

static uint32_t home_of(const struct unpack *p, const char *site) {
    return digest_crc32(0, bytes_str(site)) % p->places;
}

/* Its place, or the free one where it would stand. */
static struct session *find(struct unpack *p, const char *site) {
    uint32_t at = home_of(p, site);
    while (p->sessions[at].site[0] != 0 && strcmp(p->sessions[at].site, site) != 0) {
        at = (at + 1) % p->places;
    }
    return &p->sessions[at];
}

/* Those behind it move up where that brings them nearer to where their search begins. */
static void leave(struct unpack *p, uint32_t at) {
    must(at < p->places);
    p->open -= p->sessions[at].squeeze != NULL;
    p->sites--;
    squeeze_free(p->sessions[at].squeeze);
    for (uint32_t next = (at + 1) % p->places; p->sessions[next].site[0] != 0; next = (next + 1) % p->places) {
        uint32_t home = home_of(p, p->sessions[next].site);
        if ((next + p->places - home) % p->places >= (next + p->places - at) % p->places) {
            p->sessions[at] = p->sessions[next];
            at = next;
        }
    }
    p->sessions[at] = (struct session){0};
}

static bool make_room(struct unpack *p, uint64_t now_ms) {
    uint32_t longest = 0;
    for (uint32_t i = 0; i < p->places; i++) {
        const struct session *s = &p->sessions[i];
        bool older = s->site[0] != 0 && (p->sessions[longest].site[0] == 0 || s->heard_ms < p->sessions[longest].heard_ms);
        longest = older ? i : longest;
    }
    if (p->sessions[longest].heard_ms + UNPACK_IDLE_MS > now_ms) {
        return false;
    }
    leave(p, longest);
    return true;
}

bool unpack_admit(struct unpack *p, const char *site, uint64_t now_ms) {
    struct session *s = find(p, site);
    if (s->site[0] == 0) {
        if (p->sites == p->sites_max && !make_room(p, now_ms)) {
            return false;
        }
        s = find(p, site);
        (void)snprintf(s->site, sizeof s->site, "%s", site);
        p->sites++;
    }
    s->heard_ms = now_ms;
    return true;
}

/* The first frame of a session. */
static bool begin(struct unpack *p, struct session *s, const struct sync_squeezed *q) {
    if (s->squeeze == NULL) {
        s->squeeze = squeeze_new();
        if (s->squeeze == NULL) {
            return false;
        }
        p->open++;
    } else {
        squeeze_forget(s->squeeze);
    }
    s->epoch = q->epoch;
    s->number = q->session;
    s->next_serial = 0;
    s->broken = false;
    return true;
}

static enum unpack_verdict broken(struct session *s, uint64_t now_ms) {
    if (s->broken && now_ms < s->told_ms + UNPACK_TELL_MS) {
        return UNPACK_IGNORED;
    }
    s->broken = true;
    s->told_ms = now_ms;
    return UNPACK_AGAIN;
}

enum unpack_verdict unpack_frame(struct unpack *p, const char *site, const struct sync_squeezed *q, uint64_t now_ms,
                                 struct builder *content) {
    struct session *s = find(p, site);
    if (s->site[0] == 0) {
        return UNPACK_AGAIN;
    }
    s->heard_ms = now_ms;
    if (q->epoch < s->epoch) {
        return UNPACK_STALE;
    }
    bool same = s->squeeze != NULL && q->session == s->number;
    if (same && q->serial < s->next_serial) {
        return UNPACK_REPEAT;
    }
    if (!same && q->serial == 0 && !begin(p, s, q)) {
        return broken(s, now_ms);
    }
    if (s->squeeze == NULL || s->broken || q->session != s->number || q->serial != s->next_serial) {
        return broken(s, now_ms);
    }
    struct sync_events e = {.incarnation = q->incarnation,
                            .epoch = q->epoch,
                            .channel = q->channel,
                            .from_seq = q->from_seq,
                            .to_seq = q->to_seq,
                            .sized_gaps = true};
    enum grey_error err = squeeze_unpack(s->squeeze, q->packed, q->sum, &e, p->items, p->gaps, &p->records);
    if (err != E_OK || e.to_seq != q->to_seq) {
        return broken(s, now_ms);
    }
    s->next_serial++;
    sync_put_events(content, &e);
    return content->err == E_OK ? UNPACK_TAKEN : broken(s, now_ms);
}
