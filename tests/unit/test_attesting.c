/* If this failed, one site whose link is slow, or that says more than it should, would keep the core from judging the gateways of all others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/attesting.h"
#include "core/batch.h"
#include "platform/keys.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define SLOW_SITES 40u /* times SITE_SHARE: more than the core judges at a time */
#define SITE_SHARE 16u /* words of one site that may be under way */
#define PATIENCE_MS 20000u

/* --- the links: of core/ingest.h what attesting needs -------------------------------------------------------------------------------------- */

struct ingest {
    ingest_attest *hear;
    void *context;
    uint32_t told, asked; /* answers that left for site "quick"; and to sites whose links have no room */
};

static struct ingest links;

void ingest_on_attest(struct ingest *g, ingest_attest *hear, void *context) {
    g->hear = hear;
    g->context = context;
}

uint64_t ingest_pace_us(struct ingest *g, const char *site, size_t bytes) {
    bool slow = strcmp(site, "quick") != 0;
    (void)bytes;
    g->asked += slow;
    return slow ? 1000000 : 0;
}

enum grey_error ingest_tell(struct ingest *g, const struct grey_name *site, struct bytes content) {
    struct sync_attest said;
    assert_string_equal(site->text, "quick");
    assert_int_equal(sync_get_attest(content, &said), E_OK);
    g->told++;
    return E_OK;
}

/* --- a core ---------------------------------------------------------------------------------------------------------------------------------- */

struct bench {
    char dir[32];
    struct loop *loop;
    struct store *store;
    struct worker *storage;
    struct attesting *attesting;
    uint32_t wanted; /* the loop ends when so many words have been judged */
    uint64_t until_ms;
    struct loop_timer timer;
};

static struct bench b;

static void hello(const char *site) {
    struct sync_hello h = {.incarnation = 7, .epoch = 1, .feature_level = 2, .node = bytes_str("a"), .time_ms = 5};
    grey_seq positions[CHANNEL_COUNT];
    bool rolled_back;
    struct fault f = {0};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        h.channels[i].next_seq = 1;
    }
    assert_int_equal(store_begin(b.store, &f), E_OK);
    assert_int_equal(store_hello(b.store, site, &h, 1000, positions, &rolled_back, &f), E_OK);
    assert_int_equal(store_commit(b.store, &f), E_OK);
}

static int begin(void **state) {
    static uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
    const struct attesting_options o = {
        .name = "core", .public_key = public_key, .secret_key = secret_key, .makers = {"", "", ""}, .learn = true};
    struct fault f = {.text = ""};
    char site[16], where[64];
    (void)state;
    (void)strcpy(b.dir, "/tmp/grey-attesting-XXXXXX");
    assert_non_null(mkdtemp(b.dir));
    (void)snprintf(where, sizeof where, "sqlite:%s/core.db", b.dir);
    b.store = store_open(where, &(struct store_options){.shared = false}, &f);
    b.loop = loop_new(&f);
    assert_true(b.store != NULL && b.loop != NULL);
    links = (struct ingest){0};
    keys_new_ed25519(public_key, secret_key);
    hello("quick");
    for (uint32_t i = 0; i < SLOW_SITES; i++) {
        (void)snprintf(site, sizeof site, "slow%u", i);
        hello(site);
    }
    b.storage = worker_new(b.loop, "store", BATCH_JOBS_MAX, batch_run, b.store, &f);
    b.attesting = attesting_new(&(struct conn_context){.loop = b.loop}, &o, b.storage, &links, &f);
    assert_true(b.storage != NULL && b.attesting != NULL && links.hear != NULL);
    return 0;
}

static int end(void **state) {
    char command[64];
    (void)state;
    attesting_stop(b.attesting);
    worker_stop(b.storage);
    attesting_free(b.attesting);
    loop_free(b.loop);
    store_close(b.store);
    (void)snprintf(command, sizeof command, "rm -rf %s", b.dir);
    return system(command);
}

/* What a gateway says first; the verifier refuses it, for it is empty, which is an answer too. */
static void say(const char *site, uint32_t gateway) {
    struct grey_name name = {.text = ""};
    struct builder word;
    char node[16];
    (void)snprintf(name.text, sizeof name.text, "%s", site);
    (void)snprintf(node, sizeof node, "node%u", gateway);
    builder_init(&word, 256);
    sync_put_attest(&word, &(struct sync_attest){bytes_str(node), EXCHANGE_ASK, bytes_str("?")});
    assert_int_equal(word.err, E_OK);
    links.hear(links.context, &name, builder_bytes(&word));
    builder_free(&word);
}

static void look(void *context) {
    (void)context;
    if (links.told >= b.wanted || now_monotonic_ms() > b.until_ms) {
        loop_stop(b.loop);
    } else {
        loop_timer_after(b.loop, &b.timer, 5);
    }
}

/* Until site "quick" was answered so often. */
static void run_until_told(uint32_t wanted) {
    b.wanted = wanted;
    b.until_ms = now_monotonic_ms() + PATIENCE_MS;
    b.timer = (struct loop_timer){.fire = look};
    loop_timer_after(b.loop, &b.timer, 5);
    loop_run(b.loop);
    assert_int_equal(links.told, wanted);
}

static void a_site_that_says_too_much_shuts_out_no_other(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 290; i++) { /* what its rate lets through */
        say("slow0", i);
    }
    say("quick", 0);
    run_until_told(1);
    say("quick", 0); /* it was answered: it may speak again */
    run_until_told(2);
}

static void answers_that_wait_for_their_links_shut_out_nobody(void **state) {
    (void)state;
    for (uint32_t i = 0; i < SLOW_SITES; i++) {
        char site[16];
        (void)snprintf(site, sizeof site, "slow%u", i);
        for (uint32_t k = 0; k < SITE_SHARE; k++) {
            say(site, k);
        }
        say("quick", i); /* words are judged one after the other: when this one was, so were those before */
        run_until_told(i + 1);
    }
    assert_true(links.asked >= SLOW_SITES * SITE_SHARE); /* all of them got as far as their links */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_site_that_says_too_much_shuts_out_no_other, begin, end),
        cmocka_unit_test_setup_teardown(answers_that_wait_for_their_links_shut_out_nobody, begin, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
