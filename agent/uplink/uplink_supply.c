/* What the core gives: offers and chunks become entries of the log; chunks that are not here are asked for, a few at a time. */
#include <inttypes.h>
#include <string.h>

#include "agent/state/holding.h"
#include "agent/uplink/uplink_core.h"
#include "include/grey/protocol.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define ASKED_BYTES_MAX (2u * OBJECT_CHUNK_BYTES_MAX) /* on their way down */
#define WAIT_MS_MIN 30000u /* beside what the limit of the link makes of it; doubled while nothing comes */
#define WAIT_MS_MAX 480000u

static const char *const reasons[] = {"key", "message", "state"};
enum { REFUSED_KEY, REFUSED_MESSAGE, REFUSED_STATE };
static struct metric refused = METRIC_COUNTER_LABELS("grey_federation_supply_refused_total",
                                                     "Offers and chunks of the core that were not taken.", "reason", reasons);
static struct metric taken_bytes = METRIC_COUNTER("grey_federation_supply_bytes_total", "Bytes of chunks taken from the core.");

void uplink_supply_register(void) {
    metrics_register(&refused);
    metrics_register(&taken_bytes);
    uplink_nearby_register();
}

static struct table *rows(const struct uplink *u) {
    return state_table(uplink_state(u));
}

/* --- what this site has ---------------------------------------------------------------------------------------------------------------- */

/* A number that changes with what UP_HOLDINGS says. */
static uint64_t fill_holdings(struct uplink *u, struct supply_holding at[SUPPLY_HOLDINGS_MAX], uint32_t *count) {
    struct bytes key = {0};
    struct holding h;
    uint64_t sum = 1;
    *count = 0;
    while (holding_next(rows(u), key, &key, &h) && *count < SUPPLY_HOLDINGS_MAX) {
        if (h.force.version > 0) {
            at[(*count)++] = (struct supply_holding){h.force.kind, h.force.name, h.force.version, h.force.issue, h.health};
            sum += (h.force.issue << 2) + (uint64_t)h.health;
        }
    }
    return sum;
}

static void say_holdings(struct uplink *u) {
    struct uplink_supply *s = &u->supply;
    struct supply_holding at[SUPPLY_HOLDINGS_MAX];
    struct supply_holdings h = {.epoch = u->epoch, .at = at};
    struct site_facts site;
    uint64_t sum = fill_holdings(u, at, &h.count);
    if (sum == s->said || !state_site(uplink_state(u), &site)) {
        return;
    }
    h.incarnation = site.incarnation;
    struct builder b;
    builder_init(&b, 16384);
    supply_put_holdings(&b, &h);
    if (b.err == E_OK && uplink_send_content(u, CHANNEL_CONTROL, builder_bytes(&b), FRAME_FLAG_PRIORITY)) {
        s->said = sum;
    }
    builder_free(&b);
}

/* --- what it lacks ---------------------------------------------------------------------------------------------------------------------- */

static bool is_asked(const struct uplink_supply *s, struct bytes hash) {
    for (uint32_t i = 0; i < s->asked_count; i++) {
        if (memcmp(s->asked[i].hash, hash.data, OBJECT_HASH_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static void ask_for(struct uplink *u, struct supply_pull *p, uint32_t bytes, struct bytes hash) {
    struct uplink_supply *s = &u->supply;
    memcpy(p->hashes[p->count++], hash.data, OBJECT_HASH_BYTES);
    memcpy(s->asked[s->asked_count].hash, hash.data, OBJECT_HASH_BYTES);
    s->asked[s->asked_count].bytes = bytes;
    s->asked[s->asked_count++].in_log = false;
    s->asked_bytes += bytes;
}

/* Configs first, then policies, then data: a large table of data does not hold up a config. */
static void pull(struct uplink *u) {
    struct uplink_supply *s = &u->supply;
    struct supply_pull p = {.epoch = u->epoch};
    struct site_facts site;
    struct bytes key = {0};
    struct holding h;
    if (s->asked_count > SUPPLY_PULLS_MAX / 2 || s->asked_bytes >= ASKED_BYTES_MAX || !state_site(uplink_state(u), &site)) {
        return;
    }
    uint32_t before_count = s->asked_count, before_bytes = s->asked_bytes;
    while (holding_next(rows(u), key, &key, &h)) {
        uint32_t count = uplink_nearby_awaits(u, &h) ? 0 : object_chunk_count(&h.coming);
        for (uint32_t i = holding_missing(rows(u), &h.coming, 0);
             i < count && s->asked_count < SUPPLY_PULLS_MAX && s->asked_bytes < ASKED_BYTES_MAX;
             i = holding_missing(rows(u), &h.coming, i + 1)) {
            struct bytes hash = object_hash(&h.coming, i);
            if (!is_asked(s, hash)) {
                ask_for(u, &p, object_size_of(&h.coming, i), hash);
            }
        }
    }
    if (p.count == 0) {
        return;
    }
    p.incarnation = site.incarnation;
    struct builder b;
    builder_init(&b, 1024);
    supply_put_pull(&b, &p);
    if (b.err == E_OK && uplink_send_content(u, CHANNEL_CONTROL, builder_bytes(&b), FRAME_FLAG_PRIORITY)) {
        s->asked_ms = loop_now_ms(u->x.loop);
    } else { /* not now */
        s->asked_count = before_count;
        s->asked_bytes = before_bytes;
    }
    builder_free(&b);
}

static void forget_asked(struct uplink_supply *s, uint32_t i) {
    s->asked_bytes -= s->asked[i].bytes;
    s->asked[i] = s->asked[--s->asked_count];
}

void uplink_supply_pump(struct uplink *u) {
    if (u->welcomed && u->supply.takes && !node_quarantined(u->node)) {
        say_holdings(u);
        pull(u);
    }
}

/* --- what comes ---------------------------------------------------------------------------------------------------------------------------- */

static void applied(void *context, const struct node_answer *a) {
    struct uplink *u = context;
    u->proposals--;
    u->supply.proposals--;
    if (u->stopped) {
        uplink_ack_release(u);
        return;
    }
    if (a->err != E_OK && a->err != E_CONDITION && a->err != E_NOT_FOUND) { /* these: it came twice */
        metrics_add(&refused, REFUSED_STATE, 1);
        log_limited(LOG_WARN, "uplink", "supply", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
    struct uplink_supply *s = &u->supply;
    for (uint32_t i = s->asked_count; i-- > 0 && s->proposals == 0;) {
        if (s->asked[i].in_log) {
            forget_asked(s, i);
        }
    }
    if (u->leads) {
        uplink_nearby_look(u);
        uplink_supply_pump(u);
    }
}

/* Takes b. */
static void propose(struct uplink *u, struct builder *b) {
    struct blob *payload = builder_blob(b);
    builder_free(b);
    if (payload != NULL) {
        u->proposals++;
        u->supply.proposals++;
        node_propose(u->node, ENTRY_OBJECT, payload, false, applied, u);
        blob_unref(payload);
    }
}

static void refuse(unsigned reason, const char *why) {
    metrics_add(&refused, reason, 1);
    log_limited(LOG_ERROR, "uplink", "supply", "what the core gives is refused: %s", why);
}

void uplink_supply_offer(struct uplink *u, const struct supply_offer *o) {
    struct object_manifest m;
    struct holding h = {0};
    if (!u->supply.takes) {
        return;
    }
    if (!object_verify(o->manifest, u->o.core_key, &m)) {
        refuse(REFUSED_KEY, "it is not signed with the key of federation.upstream.core_key");
        return;
    }
    if (!bytes_equal_str(m.site, u->site)) {
        refuse(REFUSED_MESSAGE, "it was given to another site");
        return;
    }
    if (holding_find(rows(u), m.kind, m.name, &h) && (m.issue <= h.force.issue || m.issue <= h.coming.issue)) {
        return; /* told twice, or late */
    }
    struct site_facts site;
    if (m.kind == OBJECT_UPDATE && (!state_site(uplink_state(u), &site) || site.feature_level < FEATURE_LEVEL_UPDATES)) {
        return; /* a gateway here would not know it; the core offers it again with the next session */
    }
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    payload_offer(&b, o->manifest, o->content);
    log_info("uplink", "offer", "kind=%s name=%.*s version=%" PRIu64 " bytes=%" PRIu64, object_kind_name(m.kind), (int)m.name.size,
             m.name.data, m.version, m.size);
    propose(u, &b);
}

void uplink_supply_found(struct uplink *u, struct bytes content) {
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    payload_chunk(&b, content);
    propose(u, &b);
}

void uplink_supply_chunk(struct uplink *u, struct bytes content) {
    struct uplink_supply *s = &u->supply;
    uint8_t hash[OBJECT_HASH_BYTES];
    digest_sha256(content, hash);
    for (uint32_t i = 0; i < s->asked_count; i++) {
        if (memcmp(s->asked[i].hash, hash, sizeof hash) == 0 && !s->asked[i].in_log) {
            struct builder b;
            builder_init(&b, LIMIT_PAYLOAD_BYTES);
            payload_chunk(&b, content);
            s->asked[i].in_log = true;
            s->asked_ms = loop_now_ms(u->x.loop);
            s->wait_ms = WAIT_MS_MIN;
            metrics_add(&taken_bytes, 0, (int64_t)content.size);
            propose(u, &b);
            return;
        }
    } /* else it was asked for twice and came twice */
}

/* --- the session, and time ---------------------------------------------------------------------------------------------------------------- */

void uplink_supply_begin(struct uplink *u, uint32_t codings) {
    struct uplink_supply *s = &u->supply;
    struct site_facts site;
    s->takes = (codings & CODING_OBJECTS) != 0 && u->o.has_core_key && state_site(uplink_state(u), &site) &&
               site.feature_level >= FEATURE_LEVEL_OBJECTS;
    s->said = 0;
    s->asked_count = s->asked_bytes = 0;
    s->wait_ms = s->wait_ms < WAIT_MS_MIN ? WAIT_MS_MIN : s->wait_ms; /* what comes brings it down again */
    uplink_supply_pump(u);
}

void uplink_supply_look(struct uplink *u, uint64_t now_ms) {
    struct uplink_supply *s = &u->supply;
    uint64_t rate = u->meter.rule.down_bytes_per_s;
    uint64_t wait_ms = s->wait_ms + (rate > 0 ? 2000u * (uint64_t)s->asked_bytes / rate : 0);
    if (s->asked_count > 0 && s->proposals == 0 && now_ms >= s->asked_ms + wait_ms) {
        /* Lost: ask again, more and more slowly, and in a new session, for a core that was started anew while this one was fresh does not know it. */
        s->asked_count = s->asked_bytes = 0;
        s->wait_ms = s->wait_ms * 2 > WAIT_MS_MAX ? WAIT_MS_MAX : s->wait_ms * 2;
        uplink_session_again(u, "what was asked for does not come");
    }
    uplink_nearby_look(u);
    uplink_supply_pump(u);
}

bool uplink_supply_busy(const struct uplink *u) {
    return u->supply.asked_count > 0;
}
