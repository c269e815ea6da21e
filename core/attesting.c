#include "core/attesting.h"

#include <stdio.h>
#include <string.h>

#include "core/policytext.h"
#include "core/store_attest.h"
#include "core/store_enroll.h"
#include "federation/throttle.h"
#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define HEARINGS_MAX 256u /* words that are being judged; answers that wait for their links are bounded by their sites */
#define HEARING_BYTES_MAX (8u * 1024u * 1024u) /* of them */
/* Of one site, answers that wait included, so that none shuts out the others: */
#define SITE_HEARINGS_MAX 16u
#define SITE_HEARING_BYTES_MAX (1024u * 1024u)
#define PER_MINUTE 60u /* words of one gateway: an exchange is 2, the first one 4 */
#define BURST 60u
#define SITE_PER_MINUTE 600u /* of all that speak for a site, whatever they call themselves */
#define SITE_BURST 300u
#define TRIES 4u /* when other cores hear the same gateway */
#define ANSWER_RETRY_MS 50u
#define ANSWER_PATIENCE_MS 60000u /* then the gateway has asked again */
#define OFFER_MS 10000u           /* how often is looked for a policy that another core was given */

/* Labels are in the order of numbers from E_ATTEST_FORMAT on: 3201 to 3218; then what is left. */
static const char *const errors[] = {"format",    "type",      "nonce",     "identity",  "endorsement", "key",      "unproven",
                                     "signature", "quote",     "binding",   "selection", "pcr",         "counters", "firmware",
                                     "boot-log",  "start-log", "reference", "document",  "policy",      "other"};
enum { ERROR_POLICY = 18, ERROR_OTHER = 19 };
static const char *const results[] = {"trusted", "refused"};
enum { RESULT_TRUSTED, RESULT_REFUSED };
static const char *const reasons[] = {"rate", "busy", "memory", "store", "message", "raced", "slow-link", "no-policy"};
enum { DROPPED_RATE, DROPPED_BUSY, DROPPED_MEMORY, DROPPED_STORE, DROPPED_MESSAGE, DROPPED_RACED, DROPPED_SLOW, DROPPED_UNJUDGED };
static struct metric judged =
    METRIC_COUNTER_LABELS("grey_core_attestations_total", "Gateways judged by their evidence.", "result", results);
static struct metric refused =
    METRIC_COUNTER_LABELS("grey_core_attest_refused_total", "Words of gateways that were refused, by error.", "error", errors);
static struct metric dropped = METRIC_COUNTER_LABELS(
    "grey_core_attest_dropped_total", "Words of gateways that were not judged; they say them again.", "reason", reasons);
static struct metric seconds = METRIC_HISTOGRAM("grey_core_attest_seconds", "Time that judging one word took.");
static struct metric offered = METRIC_GAUGE("grey_core_attest_offered", "1 while sites are told that this core judges gateways.");

void attesting_register(void) {
    struct metric *const all[] = {&judged, &refused, &dropped, &seconds, &offered};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
}

struct hearing {
    struct hearing *next; /* of those under way */
    struct attesting *a;
    struct storage_job storage;
    struct worker_job work;
    struct grey_name site, node;
    enum exchange_word said, word; /* word, reply: the answer */
    struct blob *body;
    struct blob *policy;                 /* its text; NULL: the fallback */
    struct makers *makers;               /* by whom it is judged; NULL while it is not */
    struct builder kept, changed, reply; /* changed: what is to be kept; empty: as it is */
    uint64_t serial;                     /* of the policy */
    int64_t revision;
    uint8_t registered[DIGEST_SHA256_BYTES]; /* the TPM that was, with is_registered */
    bool is_registered, is_revoked;
    enum store_attest_put put;
    bool was_trusted;
    enum grey_error err; /* why it was refused */
    struct fault fault;
    uint32_t tries;
    uint64_t answered_ms; /* when the answer was there */
};

struct attesting {
    struct conn_context x;
    struct worker *storage, *judging;
    struct ingest *ingest;
    struct verifier verifier; /* after the start the judging thread's, with policy */
    char name[LIMIT_NAME_BYTES + 1];
    struct makers_watch *makers;
    bool learn, shared, offers, looking, stopping;
    struct reference fallback;
    struct reference policy; /* the judging thread's: of policy_serial, as read last */
    uint64_t policy_serial;
    struct blob *text; /* the storage thread's: of text_serial, as fetched last; hearings share it */
    uint64_t text_serial;
    struct throttle gateways, sites;
    struct hearing *hearings;
    uint32_t count, jobs; /* of those that have no answer yet; jobs: that a thread has */
    size_t bytes;         /* of what those said */
    struct loop_timer answer_timer, offer_timer;
};

static void read_again(struct hearing *h);

/* It counts no more among those that are being judged. */
static void discharge(struct hearing *h) {
    h->a->count--;
    h->a->bytes -= h->body->size;
}

static void end(struct hearing *h) {
    struct attesting *a = h->a;
    struct hearing **at = &a->hearings;
    while (*at != h) {
        at = &(*at)->next;
    }
    *at = h->next;
    if (h->answered_ms == 0) {
        discharge(h);
    }
    blob_unref(h->body);
    blob_unref(h->policy);
    makers_release(h->makers);
    builder_free(&h->kept);
    builder_free(&h->changed);
    builder_free(&h->reply);
    mem_free(h);
}

static void drop(struct hearing *h, unsigned reason) {
    metrics_add(&dropped, reason, 1);
    end(h);
}

/* --- judging, on its own thread ----------------------------------------------------------------------------------------------------------- */

/* The policy is text, of which the same is read again and again. */
static enum grey_error take_policy(struct hearing *h, const struct reference **out) {
    struct attesting *a = h->a;
    *out = &a->fallback;
    if (h->serial == 0) {
        return E_OK;
    }
    *out = &a->policy;
    if (h->serial == a->policy_serial) {
        return E_OK;
    }
    a->policy_serial = 0;
    enum grey_error err = policytext_read(blob_bytes(h->policy), &a->policy, &h->fault);
    a->policy.serial = h->serial;
    a->policy_serial = err == E_OK ? h->serial : 0;
    return err;
}

static void judge(struct worker_job *job) {
    struct hearing *h = (struct hearing *)(void *)((char *)job - offsetof(struct hearing, work));
    struct verifier *v = &h->a->verifier;
    struct verifier_facts before;
    uint64_t began_us = now_monotonic_us();
    int64_t now_ms = now_wall_ms();
    const struct verifier_message m = {.site = bytes_str(h->site.text),
                                       .node = bytes_str(h->node.text),
                                       .word = h->said,
                                       .body = blob_bytes(h->body),
                                       .revoked = h->is_revoked,
                                       .registered = h->is_registered ? h->registered : NULL};
    h->fault = (struct fault){0};
    memcpy(v->roots_pem, h->makers->roots_pem, sizeof v->roots_pem);
    v->document_keys = (const uint8_t(*)[KEYS_ED25519_PUBLIC_BYTES])h->makers->document_keys;
    v->document_key_count = h->makers->document_key_count;
    h->was_trusted = verifier_look(builder_bytes(&h->kept), now_ms, &before) == E_OK && before.state == VERIFIER_TRUSTED;
    h->err = take_policy(h, &v->policy);
    if (h->err == E_OK) {
        h->err = verifier_hear(v, &m, builder_bytes(&h->kept), now_ms, &h->changed, &h->word, &h->reply, &h->fault);
    } else {
        h->word = EXCHANGE_REFUSAL;
        exchange_put_refusal(&h->reply, h->err, bytes_str(h->fault.text));
    }
    metrics_observe_us(&seconds, now_monotonic_us() - began_us);
}

/* --- answering ---------------------------------------------------------------------------------------------------------------------------- */

static void count_refusal(enum grey_error err) {
    int at = error_id(err) - error_id(E_ATTEST_FORMAT);
    metrics_add(&refused, err == E_ATTEST_POLICY ? ERROR_POLICY : at < 0 || at >= ERROR_POLICY ? ERROR_OTHER : (unsigned)at, 1);
}

static void tell(const struct hearing *h) {
    if (h->word == EXCHANGE_RESULT) {
        metrics_add(&judged, RESULT_TRUSTED, 1);
        if (h->was_trusted) {
            log_debug("attest", "trusted", "site=%s node=%s", h->site.text, h->node.text);
        } else {
            log_info("attest", "trusted", "site=%s node=%s", h->site.text, h->node.text);
        }
    } else if (h->word == EXCHANGE_REFUSAL) {
        metrics_add(&judged, RESULT_REFUSED, h->said == EXCHANGE_EVIDENCE);
        count_refusal(h->err);
        log_limited(LOG_WARN, "attest", "refuse", "site=%s node=%s error=GREY-%d %s: %s", h->site.text, h->node.text,
                    error_id(h->err), error_sentence(h->err), h->fault.text);
    }
}

/* False: not now. */
static bool answer(struct hearing *h) {
    struct attesting *a = h->a;
    struct builder content;
    builder_init(&content, VERIFIER_REPLY_BYTES_MAX + 256u);
    sync_put_attest(&content, &(struct sync_attest){bytes_str(h->node.text), h->word, builder_bytes(&h->reply)});
    must(content.err != E_TOO_LARGE);
    bool now = content.err == E_OK && ingest_pace_us(a->ingest, h->site.text, content.size) == 0;
    enum grey_error err = content.err != E_OK ? content.err
                          : now               ? ingest_tell(a->ingest, &h->site, builder_bytes(&content))
                                              : E_BUSY;
    builder_free(&content);
    return err != E_BUSY; /* else the connection is gone: the gateway asks again */
}

static void answer_later(struct attesting *a) {
    if (!a->stopping && a->answer_timer.place == 0) {
        loop_timer_after(a->x.loop, &a->answer_timer, ANSWER_RETRY_MS);
    }
}

static void answer_all(void *context) {
    struct attesting *a = context;
    uint64_t now_ms = loop_now_ms(a->x.loop);
    bool wait = false;
    for (struct hearing *next, *h = a->hearings; h != NULL; h = next) {
        next = h->next;
        if (h->answered_ms == 0) {
            continue;
        }
        if (now_ms - h->answered_ms > ANSWER_PATIENCE_MS) {
            drop(h, DROPPED_SLOW);
        } else if (answer(h)) {
            end(h);
        } else {
            wait = true;
        }
    }
    if (wait) {
        answer_later(a);
    }
}

static void conclude(struct hearing *h) {
    struct attesting *a = h->a;
    tell(h);
    h->answered_ms = loop_now_ms(a->x.loop);
    h->answered_ms += h->answered_ms == 0;
    discharge(h);
    blob_unref(h->body); /* what waits for its link is the answer */
    blob_unref(h->policy);
    h->body = h->policy = NULL;
    builder_free(&h->kept);
    builder_free(&h->changed);
    if (answer(h)) {
        end(h);
    } else {
        answer_later(a);
    }
}

/* --- what is kept, on the storage thread -------------------------------------------------------------------------------------------------- */

static struct hearing *of_storage(struct storage_job *s) {
    return (struct hearing *)(void *)((char *)s - offsetof(struct hearing, storage));
}

static void run_keep(struct storage_job *storage, struct store *store) {
    struct hearing *h = of_storage(storage);
    const struct store_gateway g = {h->site.text, h->node.text};
    storage->err = store_attest_put(store, &g, h->revision, builder_bytes(&h->changed), now_wall_ms(), &h->put, &storage->fault);
    bool by_policy =
        h->err == E_ATTEST_REFERENCE || h->err == E_ATTEST_FIRMWARE || h->err == E_ATTEST_BOOT_LOG || h->err == E_ATTEST_TYPE;
    if (storage->err == E_OK && h->put == STORE_ATTEST_DONE && h->was_trusted && by_policy && h->serial != 0) {
        storage->err = store_attest_policy_failed(store, h->site.text, h->serial, &storage->fault);
    }
}

static void kept(struct worker_job *job) {
    struct hearing *h = of_storage((struct storage_job *)(void *)job);
    h->a->jobs--;
    if (h->a->stopping) {
        end(h);
    } else if (h->storage.err != E_OK || h->put == STORE_ATTEST_FULL) {
        log_limited(LOG_WARN, "attest", "keep", "site=%s node=%s %s", h->site.text, h->node.text,
                    h->storage.err != E_OK ? h->storage.fault.text : "a site has no more than 64 gateways; forget old ones");
        drop(h, DROPPED_STORE);
    } else if (h->put == STORE_ATTEST_STALE) { /* another core heard the same gateway meanwhile, or an operator forgot it */
        if (++h->tries < TRIES) {
            read_again(h);
        } else {
            drop(h, DROPPED_RACED);
        }
    } else {
        conclude(h);
    }
}

static void submit_storage(struct hearing *h, bool is_write, void (*run)(struct storage_job *, struct store *),
                           void (*done)(struct worker_job *)) {
    h->storage = (struct storage_job){.job = {.done = done}, .is_write = is_write, .run = run};
    h->storage.site = h->site.text;
    if (worker_submit(h->a->storage, &h->storage.job) != E_OK) {
        drop(h, DROPPED_STORE);
        return;
    }
    h->a->jobs++;
}

static void was_judged(struct worker_job *job) {
    struct hearing *h = (struct hearing *)(void *)((char *)job - offsetof(struct hearing, work));
    h->a->jobs--;
    bool same = h->changed.size == 0 || bytes_equal(builder_bytes(&h->changed), builder_bytes(&h->kept));
    if (h->a->stopping) {
        end(h);
    } else if (h->changed.err != E_OK || h->reply.err != E_OK || h->err == E_NO_MEMORY) {
        drop(h, DROPPED_MEMORY);
    } else if (same) {
        conclude(h);
    } else {
        submit_storage(h, true, run_keep, kept);
    }
}

/* The same text serves many: it is fetched when there is another one. */
static enum grey_error fetch_policy(struct hearing *h, struct store *store) {
    struct attesting *a = h->a;
    struct builder text;
    enum grey_error err = store_attest_policy(store, h->site.text, &h->serial, NULL, &h->storage.fault);
    if (err != E_OK) {
        return err == E_NOT_FOUND && a->learn ? E_OK : err;
    }
    if (h->serial != a->text_serial) {
        builder_init(&text, POLICYTEXT_BYTES_MAX);
        err = store_attest_policy(store, h->site.text, &h->serial, &text, &h->storage.fault);
        blob_unref(a->text);
        a->text = err == E_OK ? builder_blob(&text) : NULL;
        a->text_serial = a->text == NULL ? 0 : h->serial;
        err = err == E_OK && a->text == NULL ? E_NO_MEMORY : err;
        builder_free(&text);
    }
    h->policy = blob_ref(a->text);
    return err;
}

static void run_read(struct storage_job *storage, struct store *store) {
    struct hearing *h = of_storage(storage);
    const struct store_gateway g = {h->site.text, h->node.text};
    storage->err = store_attest_get(store, &g, &h->kept, &h->revision, &storage->fault);
    if (storage->err == E_OK) {
        enum grey_error err = store_tpm_of(store, h->site.text, h->node.text, h->registered, &storage->fault);
        h->is_registered = err == E_OK;
        storage->err = err == E_NOT_FOUND ? E_OK : err;
    }
    if (storage->err == E_OK) {
        storage->err = store_is_revoked(store, h->site.text, h->node.text, &h->is_revoked, &storage->fault);
    }
    if (storage->err == E_OK) {
        storage->err = fetch_policy(h, store);
    }
}

static void was_read(struct worker_job *job) {
    struct hearing *h = of_storage((struct storage_job *)(void *)job);
    struct attesting *a = h->a;
    a->jobs--;
    if (a->stopping) {
        end(h);
        return;
    }
    if (h->storage.err != E_OK) { /* E_NOT_FOUND: a site that never said hello, or no policy for it yet */
        log_limited(LOG_WARN, "attest", "read", "site=%s node=%s error=GREY-%d %s: %s", h->site.text, h->node.text,
                    error_id(h->storage.err), error_sentence(h->storage.err), h->storage.fault.text);
        drop(h, h->storage.err == E_NOT_FOUND ? DROPPED_UNJUDGED : DROPPED_STORE);
        return;
    }
    makers_release(h->makers);
    h->makers = makers_hold(a->makers);
    h->work = (struct worker_job){.work = judge, .done = was_judged};
    if (worker_submit(a->judging, &h->work) != E_OK) {
        drop(h, DROPPED_BUSY);
        return;
    }
    a->jobs++;
}

static void read_again(struct hearing *h) {
    blob_unref(h->policy);
    h->policy = NULL;
    builder_reset(&h->kept);
    builder_reset(&h->changed);
    builder_reset(&h->reply);
    submit_storage(h, false, run_read, was_read);
}

/* --- from the sites ----------------------------------------------------------------------------------------------------------------------- */

/* So many bytes more are too much now: for the core, for the site, or the gateway's last word is not answered yet. */
static bool too_much(const struct attesting *a, const struct grey_name *site, struct bytes node, size_t more) {
    uint32_t count = 0;
    size_t bytes = more;
    for (const struct hearing *h = a->hearings; h != NULL; h = h->next) {
        if (strcmp(h->site.text, site->text) == 0) {
            if (bytes_equal_str(node, h->node.text)) {
                return true;
            }
            count++;
            bytes += h->body != NULL ? h->body->size : 0;
        }
    }
    return count >= SITE_HEARINGS_MAX || bytes > SITE_HEARING_BYTES_MAX || a->count >= HEARINGS_MAX ||
           a->bytes + more > HEARING_BYTES_MAX;
}

static bool too_often(struct attesting *a, const struct grey_name *site, struct bytes node) {
    char name[2 * LIMIT_NAME_BYTES + 2];
    int size = snprintf(name, sizeof name, "%s/%.*s", site->text, (int)node.size, (const char *)node.data);
    uint64_t now_ms = loop_now_ms(a->x.loop);
    return throttle_take(&a->sites, bytes_str(site->text), now_ms) > 0 ||
           throttle_take(&a->gateways, bytes_of(name, (size_t)size), now_ms) > 0;
}

static void heard(void *context, const struct grey_name *site, struct bytes content) {
    struct attesting *a = context;
    struct sync_attest said;
    enum grey_error err = sync_get_attest(content, &said);
    unsigned reason = err != E_OK || !exchange_goes_up(said.word)    ? DROPPED_MESSAGE
                      : too_often(a, site, said.node)                ? DROPPED_RATE
                      : too_much(a, site, said.node, said.body.size) ? DROPPED_BUSY
                                                                     : DROPPED_MEMORY;
    struct hearing *h = reason == DROPPED_MEMORY ? mem_new(1, sizeof *h) : NULL;
    struct blob *body = h == NULL ? NULL : blob_copy(said.body);
    if (body == NULL) {
        mem_free(h);
        metrics_add(&dropped, reason, 1);
        log_limited(LOG_WARN, "attest", "drop", "site=%s reason=%s", site->text, reasons[reason]);
        return;
    }
    h->a = a;
    h->site = *site;
    memcpy(h->node.text, said.node.data, said.node.size);
    h->said = said.word;
    h->body = body;
    builder_init(&h->kept, VERIFIER_KEPT_BYTES_MAX);
    builder_init(&h->changed, VERIFIER_KEPT_BYTES_MAX);
    builder_init(&h->reply, VERIFIER_REPLY_BYTES_MAX);
    h->next = a->hearings;
    a->hearings = h;
    a->count++;
    a->bytes += body->size;
    submit_storage(h, false, run_read, was_read);
}

/* --- whether sites are told ---------------------------------------------------------------------------------------------------------------- */

struct looking {
    struct storage_job storage;
    struct attesting *a;
};

static void run_look(struct storage_job *storage, struct store *store) {
    storage->err = store_attest_has_policy(store, &storage->fault);
}

static void offer(struct attesting *a) {
    a->offers = true;
    metrics_set(&offered, 0, 1);
    ingest_on_attest(a->ingest, heard, a);
    log_info("attest", "offer", "sites are told that this core judges gateways");
}

static void was_looked(struct worker_job *job) {
    struct looking *l = (struct looking *)(void *)job;
    struct attesting *a = l->a;
    a->looking = false;
    a->jobs--;
    if (!a->stopping && !a->offers && l->storage.err == E_OK) {
        offer(a);
    } else if (!a->stopping && !a->offers && a->shared) { /* another core may be given a policy */
        loop_timer_after(a->x.loop, &a->offer_timer, OFFER_MS);
    }
    mem_free(l);
}

static void on_offer_timer(void *context) {
    struct attesting *a = context;
    struct looking *l = a->offers || a->looking || a->stopping ? NULL : mem_new(1, sizeof *l);
    if (l == NULL) {
        return;
    }
    l->a = a;
    l->storage = (struct storage_job){.job = {.done = was_looked}, .run = run_look};
    if (worker_submit(a->storage, &l->storage.job) != E_OK) {
        mem_free(l);
        loop_timer_after(a->x.loop, &a->offer_timer, OFFER_MS);
        return;
    }
    a->looking = true;
    a->jobs++;
}

void attesting_policy(struct attesting *a) {
    if (a != NULL) {
        on_offer_timer(a);
    }
}

struct makers_watch *attesting_makers(struct attesting *a) {
    return a == NULL ? NULL : a->makers;
}

const struct reference *attesting_fallback(const struct attesting *a) {
    return a != NULL && a->learn ? &a->fallback : NULL;
}

/* --- life --------------------------------------------------------------------------------------------------------------------------------- */

struct attesting *attesting_new(const struct conn_context *x, const struct attesting_options *o, struct worker *storage,
                                struct ingest *ingest, struct fault *f) {
    uint64_t seed;
    struct attesting *a = mem_new(1, sizeof *a);
    if (a == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "attesting");
        return NULL;
    }
    a->x = *x;
    a->storage = storage;
    a->ingest = ingest;
    a->learn = o->learn;
    a->shared = o->shared;
    (void)snprintf(a->name, sizeof a->name, "%s", o->name);
    a->verifier.name = a->name;
    memcpy(a->verifier.public_key, o->public_key, sizeof a->verifier.public_key);
    memcpy(a->verifier.secret_key, o->secret_key, sizeof a->verifier.secret_key);
    policytext_learn(&a->fallback);
    keys_random(&seed, sizeof seed);
    throttle_init(&a->gateways, seed, PER_MINUTE, BURST);
    throttle_init(&a->sites, seed, SITE_PER_MINUTE, SITE_BURST);
    a->answer_timer = (struct loop_timer){.fire = answer_all, .context = a};
    a->offer_timer = (struct loop_timer){.fire = on_offer_timer, .context = a};
    a->makers = makers_watch_new(x->loop, &o->makers, f);
    a->judging = a->makers == NULL ? NULL : worker_new(x->loop, "attest", HEARINGS_MAX, NULL, NULL, f);
    if (a->judging == NULL) {
        attesting_free(a);
        return NULL;
    }
    if (a->learn) {
        offer(a);
    } else {
        on_offer_timer(a);
    }
    return a;
}

void attesting_stop(struct attesting *a) {
    if (a == NULL) {
        return;
    }
    a->stopping = true;
    ingest_on_attest(a->ingest, NULL, NULL);
    loop_timer_cancel(a->x.loop, &a->answer_timer);
    loop_timer_cancel(a->x.loop, &a->offer_timer);
    worker_stop(a->judging);
    a->judging = NULL;
}

void attesting_free(struct attesting *a) {
    if (a == NULL) {
        return;
    }
    must(a->jobs == 0); /* the storage thread was stopped before */
    while (a->hearings != NULL) {
        end(a->hearings);
    }
    blob_unref(a->text);
    makers_watch_free(a->makers);
    keys_wipe(a->verifier.secret_key, sizeof a->verifier.secret_key);
    mem_free(a);
}
