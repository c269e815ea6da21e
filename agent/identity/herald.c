#include "agent/identity/herald.h"

#include <inttypes.h>
#include <string.h>

#include "agent/node/signer.h"
#include "agent/state/holding.h"
#include "agent/state/standing.h"
#include "federation/attest/reference.h"
#include "include/grey/limits.h"
#include "platform/cert.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"
#include "platform/wholefile.h"

#define PEM_BYTES_MAX (64u * 1024u)
#define FRESH_S 3600 /* a result younger than this, or than half a period, need not be renewed because the core is heard again */
#define RENEWAL_SHARE                                                                                                              \
    8 /* a result that says what the last one said makes an entry when it is good for so much (an eighth) longer */
#define REFUSALS_ENOUGH 2u /* in a row, of those that can come from bad luck */

static const char *const words[] = {"trusted", "refused"};
enum { WORD_TRUSTED, WORD_REFUSED };
static struct metric heard =
    METRIC_COUNTER_LABELS("grey_attestation_results_total",
                          "What the verifier said of gateways of this site, as this gateway heard it.", "result", words);

void herald_register(void) {
    metrics_register(&heard);
}

struct herald {
    struct herald_options o;
    struct attestor *attestor; /* NULL: off */
    bool proposing, stopping;
    uint64_t policy_issue; /* of the policy that the last question was asked under, as far as the site has heard of it */
    struct {
        raft_id id;
        uint32_t count;
    } refusals[LIMIT_MEMBERS]; /* in a row */
    struct {
        raft_id id;
        struct blob *body;
    } waiting[LIMIT_MEMBERS]; /* results that came while another was written, the last of each gateway */
};

/* --- words ------------------------------------------------------------------------------------------------------------------------------------ */

static raft_id leader_of(const struct herald *a) {
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    return s.leader;
}

static raft_id self_of(const struct herald *a) {
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    return s.self;
}

static bool send_to(struct herald *a, raft_id to, struct bytes node, uint32_t word, struct bytes body) {
    struct message m = {.kind = MESSAGE_ATTEST, .u.attest = {.node = node, .word = word, .body = body}};
    return node_peers(a->o.node) != NULL && peers_send(node_peers(a->o.node), to, &m);
}

static bool say(void *context, enum exchange_word word, struct bytes body) {
    struct herald *a = context;
    struct bytes node = bytes_str(node_name(a->o.node));
    raft_id leader = leader_of(a);
    if (leader == self_of(a)) {
        return a->o.uplink != NULL && uplink_attest(a->o.uplink, node, word, body);
    }
    return leader != 0 && send_to(a, leader, node, (uint32_t)word, body);
}

/* The core is heard again, or it is the wish of an operator.  A result that did not get into the log, for its leader fell, is asked for again. */
static void ask_self(struct herald *a, bool wished) {
    struct attestor_facts f;
    const struct standing_of *s = standing_find(node_standings(a->o.node), self_of(a));
    bool in_log = !a->o.has_verifier_key || (s != NULL && s->standing == STANDING_TRUSTED);
    if (a->attestor == NULL) {
        return;
    }
    attestor_facts(a->attestor, &f);
    int64_t fresh_s = (int64_t)a->o.period_s / 2 < FRESH_S ? (int64_t)a->o.period_s / 2 : FRESH_S;
    if (wished || !in_log || f.state != ATTESTOR_TRUSTED || now_wall_ms() / 1000 - f.from_s >= fresh_s) {
        attestor_ask(a->attestor);
    }
}

static void tell_others(struct herald *a, bool wished) {
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    for (uint32_t i = 0; i < s.members->count; i++) {
        const struct raft_member *m = &s.members->at[i];
        if (m->id != s.self) {
            (void)send_to(a, m->id, bytes_str(m->node.text), 0, wished ? bytes_str("now") : bytes_of(NULL, 0));
        }
    }
}

void herald_now(struct herald *a) {
    tell_others(a, true);
    ask_self(a, true);
}

static void core_ready(void *context) {
    struct herald *a = context;
    tell_others(a, false);
    ask_self(a, false);
}

/* --- what the verifier says becomes an entry, where this gateway leads ------------------------------------------------------------------------ */

static void keep_waiting(struct herald *a);

static void kept(void *context, const struct node_answer *answer) {
    struct herald *a = context;
    a->proposing = false;
    if (answer->err != E_OK && answer->err != E_STOPPING) {
        log_limited(LOG_WARN, "attest", "keep", "error=GREY-%d %s: %s", error_id(answer->err), error_sentence(answer->err),
                    answer->detail);
    }
    if (!a->stopping) {
        keep_waiting(a);
    }
}

/* One at a time. */
static void propose(struct herald *a, struct builder *payload) {
    struct site_facts site;
    struct blob *blob = builder_blob(payload);
    builder_free(payload);
    if (blob != NULL && state_site(node_state(a->o.node), &site) && site.feature_level >= FEATURE_LEVEL_VERDICTS && !a->stopping) {
        a->proposing = true;
        node_propose(a->o.node, ENTRY_VERDICT, blob, true, kept, a);
    }
    blob_unref(blob);
}

static uint32_t *refusals_of(struct herald *a, raft_id id) {
    uint32_t free_place = 0;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (a->refusals[i].id == id) {
            return &a->refusals[i].count;
        }
        bool is_member = a->refusals[i].id != 0 && node_member(a->o.node, a->refusals[i].id) != NULL;
        free_place = is_member ? free_place : i;
    }
    a->refusals[free_place].id = id;
    a->refusals[free_place].count = 0;
    return &a->refusals[free_place].count;
}

/* A result that says what the log says already makes no entry, until it is good for much longer (DECISIONS 8, 26). */
static bool is_news(const struct verdict *v, const struct standing_of *s) {
    return s == NULL || s->standing != STANDING_TRUSTED || s->type != v->type || s->status != v->status ||
           s->policy_serial != v->policy_serial || v->until_s - s->until_s >= (v->until_s - v->from_s) / RENEWAL_SHARE;
}

static void put_off(struct herald *a, raft_id id, struct bytes body) {
    uint32_t place = LIMIT_MEMBERS;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (a->waiting[i].body != NULL && a->waiting[i].id == id) {
            place = i;
            break;
        }
        place = a->waiting[i].body == NULL ? i : place;
    }
    if (place < LIMIT_MEMBERS) { /* else it is asked for again */
        blob_unref(a->waiting[place].body);
        a->waiting[place].id = id;
        a->waiting[place].body = blob_copy(body);
    }
}

/* The result counts for that member. */
static enum grey_error open_result(const struct herald *a, const struct raft_member *m, struct bytes body, struct verdict *v,
                                   struct fault *f) {
    uint8_t keys[1][KEYS_ED25519_PUBLIC_BYTES];
    memcpy(keys[0], a->o.verifier_key, sizeof keys[0]);
    enum grey_error err = verdict_open(body, (const uint8_t(*)[KEYS_ED25519_PUBLIC_BYTES])keys, 1, now_wall_ms() / 1000, v, f);
    if (err == E_OK && (v->who.raft_id != m->id || !bytes_equal_str(v->who.node, m->node.text) ||
                        !bytes_equal_str(v->who.site, node_site(a->o.node)) ||
                        memcmp(v->who.signing_key, m->sign_key, sizeof v->who.signing_key) != 0)) {
        err = fault_set(f, E_ATTEST_RESULT, "it is of another gateway than the member of this name");
    }
    const struct standing_of *s = standing_find(node_standings(a->o.node), m->id);
    if (err == E_OK && s != NULL && s->standing == STANDING_FAILED && v->from_s <= s->refused_ms / 1000) {
        err = fault_set(f, E_ATTEST_RESULT,
                        "it is of %" PRId64 " and the refusal in the log of %" PRId64
                        " (Unix seconds): only a later one lifts it; are the clocks of site and core right?",
                        v->from_s, s->refused_ms / 1000);
    }
    return err;
}

static void keep_result(struct herald *a, const struct raft_member *m, struct bytes body) {
    struct verdict v;
    struct fault f = {.text = ""};
    struct builder b;
    enum grey_error err = open_result(a, m, body, &v, &f);
    if (err != E_OK) {
        log_limited(LOG_WARN, "attest", "refuse", "node=%s error=GREY-%d %s: %s", m->node.text, error_id(err), error_sentence(err),
                    f.text);
    } else if (is_news(&v, standing_find(node_standings(a->o.node), m->id))) {
        builder_init(&b, VERDICT_BYTES_MAX + 256u);
        payload_verdict(&b, m->node.text, m->id, body);
        propose(a, &b);
    }
}

static void keep_waiting(struct herald *a) {
    for (uint32_t i = 0; i < LIMIT_MEMBERS && !a->proposing; i++) {
        struct blob *body = a->waiting[i].body;
        const struct raft_member *m = body == NULL ? NULL : node_member(a->o.node, a->waiting[i].id);
        a->waiting[i].body = NULL;
        if (m != NULL) {
            keep_result(a, m, blob_bytes(body));
        }
        blob_unref(body);
    }
}

static void note_result(struct herald *a, const struct raft_member *m, struct bytes body) {
    struct verdict v;
    struct fault f = {.text = ""};
    if (open_result(a, m, body, &v, &f) == E_OK) {
        metrics_add(&heard, WORD_TRUSTED, 1);
        *refusals_of(a, m->id) = 0;
    }
    if (a->proposing) {
        put_off(a, m->id, body);
    } else {
        keep_result(a, m, body);
    }
}

/* How many in a row say something of the gateway: measured values are what its TPM signed; words can be lost, and a key be proven anew. */
static uint32_t enough(enum grey_error why) {
    switch (why) {
    case E_ATTEST_PCR:
    case E_ATTEST_COUNTERS:
    case E_ATTEST_FIRMWARE:
    case E_ATTEST_START_LOG:
    case E_ATTEST_REFERENCE:
        return 1;
    case E_ATTEST_BOOT_LOG: /* or it was left out, and the verifier wants to see it now */
    case E_ATTEST_TYPE:
    case E_ATTEST_IDENTITY:
    case E_ATTEST_EK:
    case E_ATTEST_KEY:
    case E_ATTEST_UNPROVEN:
    case E_ATTEST_SIGNATURE:
    case E_ATTEST_QUOTE:
    case E_ATTEST_BINDING:
    case E_ATTEST_SELECTION:
    case E_ATTEST_DOCUMENT:
        return REFUSALS_ENOUGH;
    default:
        return UINT32_MAX; /* says nothing of the gateway */
    }
}

static void note_refusal(struct herald *a, const struct raft_member *m, struct bytes body) {
    enum grey_error why;
    struct bytes detail;
    struct builder b;
    uint32_t *count = refusals_of(a, m->id);
    if (exchange_get_refusal(body, &why, &detail) != E_OK || enough(why) == UINT32_MAX) {
        return;
    }
    metrics_add(&heard, WORD_REFUSED, 1);
    *count += *count < UINT32_MAX - 1;
    const struct standing_of *s = standing_find(node_standings(a->o.node), m->id);
    bool known = s != NULL && s->standing == STANDING_FAILED && s->why == why;
    if (*count >= enough(why) && !known && !a->proposing) {
        builder_init(&b, EXCHANGE_DETAIL_BYTES + 256u);
        payload_verdict_refused(&b, m->node.text, m->id, why, detail);
        propose(a, &b);
    }
}

static void core_said(void *context, struct bytes node, enum exchange_word word, struct bytes body) {
    struct herald *a = context;
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    const struct raft_member *m = NULL;
    for (uint32_t i = 0; i < s.members->count; i++) {
        m = bytes_equal_str(node, s.members->at[i].node.text) ? &s.members->at[i] : m;
    }
    if (m == NULL || a->stopping || exchange_goes_up(word)) {
        return;
    }
    if (word == EXCHANGE_RESULT && a->o.has_verifier_key) {
        note_result(a, m, body);
    } else if (word == EXCHANGE_REFUSAL) {
        note_refusal(a, m, body);
    }
    if (m->id != s.self) {
        (void)send_to(a, m->id, node, (uint32_t)word, body);
    } else if (a->attestor != NULL) {
        attestor_hear(a->attestor, word, body);
    }
}

static const struct uplink_attest_events uplink_events = {.ready = core_ready, .heard = core_said};

/* --- other gateways ----------------------------------------------------------------------------------------------------------------------------- */

void herald_message(struct herald *a, raft_id from, const struct message *message) {
    const struct message_attest *m = &message->u.attest;
    const struct raft_member *member = node_member(a->o.node, from);
    enum exchange_word word = (enum exchange_word)m->word;
    if (a->stopping || member == NULL) {
        return;
    }
    if (m->word == 0) {
        if (bytes_equal_str(m->node, node_name(a->o.node))) {
            ask_self(a, m->body.size > 0);
        }
    } else if (exchange_goes_up(word)) { /* each speaks for itself */
        if (a->o.uplink != NULL && bytes_equal_str(m->node, member->node.text)) {
            (void)uplink_attest(a->o.uplink, m->node, word, m->body);
        }
    } else if (a->attestor != NULL && from == leader_of(a) && bytes_equal_str(m->node, node_name(a->o.node))) {
        attestor_hear(a->attestor, word, m->body);
    }
}

/* By a new policy another result may come out. */
void herald_applied(struct herald *a, const struct entry *e) {
    struct holding h;
    if (e->kind != ENTRY_OBJECT || a->stopping ||
        !holding_find(node_table(a->o.node), OBJECT_POLICY, bytes_str(REFERENCE_OBJECT_NAME), &h) || h.force.version == 0 ||
        h.force.issue == a->policy_issue) {
        return;
    }
    a->policy_issue = h.force.issue;
    ask_self(a, true);
}

/* --- life --------------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error read_key(const char *path, uint8_t out[DIGEST_SHA256_BYTES], struct fault *f) {
    struct builder pem;
    struct cert_facts facts;
    memset(out, 0, DIGEST_SHA256_BYTES);
    if (path[0] == 0) {
        return E_OK;
    }
    builder_init(&pem, PEM_BYTES_MAX);
    enum grey_error err = wholefile_read(path, &pem, f);
    err = err != E_OK ? err : cert_read((const char *)pem.data, &facts, f);
    if (err == E_OK) {
        memcpy(out, facts.key_hash, DIGEST_SHA256_BYTES);
    }
    builder_free(&pem);
    return err;
}

static enum grey_error begin(struct herald *a, struct fault *f) {
    const struct signer *signer = node_signer(a->o.node);
    struct attestor_options o = {
        .type = a->o.type,
        .socket = a->o.socket,
        .document = a->o.document,
        .data_dir = a->o.data_dir,
        .who = {.site = bytes_str(node_site(a->o.node)), .node = bytes_str(node_name(a->o.node)), .raft_id = self_of(a)},
        .period_s = a->o.period_s};
    memcpy(o.who.signing_key, signer->public_key, sizeof o.who.signing_key);
    memcpy(o.secret_key, signer->secret_key, sizeof o.secret_key);
    memcpy(o.verifier_key, a->o.verifier_key, sizeof o.verifier_key);
    enum grey_error err = read_key(a->o.cert_path, o.who.tls_key, f);
    if (err == E_OK) {
        a->attestor = attestor_new(a->o.loop, &o, say, a, f);
        err = a->attestor == NULL ? f->code : E_OK;
    }
    explicit_bzero(&o, sizeof o);
    return err;
}

struct herald *herald_new(const struct herald_options *o, struct fault *f) {
    struct herald *a = mem_new(1, sizeof *a);
    if (a == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "attestation");
        return NULL;
    }
    a->o = *o;
    if (o->enabled && begin(a, f) != E_OK) {
        mem_free(a);
        return NULL;
    }
    if (o->uplink != NULL) {
        uplink_on_attest(o->uplink, &uplink_events, a);
    }
    return a;
}

bool herald_facts(const struct herald *a, struct attestor_facts *out) {
    *out = (struct attestor_facts){.type = ATTEST_NONE};
    if (a->attestor != NULL) {
        attestor_facts(a->attestor, out);
    }
    return a->attestor != NULL;
}

void herald_stop(struct herald *a) {
    if (a != NULL && !a->stopping) {
        a->stopping = true;
        if (a->o.uplink != NULL) {
            uplink_on_attest(a->o.uplink, NULL, NULL);
        }
        attestor_free(a->attestor);
        a->attestor = NULL;
    }
}

void herald_free(struct herald *a) {
    herald_stop(a);
    for (uint32_t i = 0; a != NULL && i < LIMIT_MEMBERS; i++) {
        blob_unref(a->waiting[i].body);
    }
    mem_free(a);
}
