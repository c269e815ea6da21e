/* What a gateway makes of the site's decisions.  The site's state is a real one; the node around it and the launcher at the other end of
 * the socket are this test's, so that they may say what real ones say once in a year.  If this failed, a task could run twice under one
 * token, be stopped because greyd was restarted, or be reported as done when nothing ran. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/launch/launchlink.h"
#include "agent/run/executor.h"
#include "agent/state/holding.h"
#include "tests/unit/work_rig.h"

#define INCARNATION 9u
#define ENTRIES_MAX 64u
#define HEARD_MAX 128u
#define PATIENCE_MS 20000u

struct heard { /* an order to the launcher */
    struct launch_message m;
    char command[32], file[32];
    struct blob *data;
};

static struct {
    char dir[64], socket[96];
    struct loop *loop;
    struct rig *site;
    struct blob *payloads[ENTRIES_MAX];
    struct executor *executor;
    uint32_t lease_ms;
    uint32_t asked; /* of the node, and not answered */
    bool stopping;
    bool reachable, can_work; /* reachable: barriers are answered */
    int door;
    struct launchlink link;
    struct heard heard[HEARD_MAX];
    unsigned heard_count, starts;
    struct launch_message listed; /* what LIST tells; kind STATE, or no run at all */
    bool has_listed;
} t;

/* --- The node ------------------------------------------------------------------------------------------------------------------------------ */

struct later {
    struct loop_timer timer;
    node_done *done;
    void *context;
    struct node_answer answer;
};

static void answer_now(void *context) {
    struct later *l = context;
    t.asked--;
    l->done(l->context, &l->answer);
    free(l);
}

static void answer_later(node_done *done, void *context, enum grey_error err) {
    struct later *l = calloc(1, sizeof *l);
    assert_non_null(l);
    *l = (struct later){.done = done, .context = context, .answer = {.err = t.stopping ? E_STOPPING : err, .detail = ""}};
    t.asked++;
    l->timer = (struct loop_timer){.fire = answer_now, .context = l};
    loop_timer_after(t.loop, &l->timer, 0);
}

static enum grey_error commit(enum entry_kind kind) {
    raft_index index = state_applied(t.site->g.state) + 1;
    assert_in_range(index, 1, ENTRIES_MAX - 1);
    t.payloads[index] = builder_blob(&t.site->payload);
    enum grey_error err = rig_entry(t.site, kind);
    struct entry e = {.kind = (uint16_t)kind, .index = index};
    if (t.executor != NULL) {
        executor_applied(t.executor, &e);
    }
    return err;
}

void node_propose(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, node_done *done, void *context) {
    (void)n, (void)urgent;
    builder_reset(&t.site->payload);
    builder_add(&t.site->payload, blob_bytes(payload));
    answer_later(done, context, t.reachable ? commit(kind) : E_NO_QUORUM);
}

void node_read_barrier(struct node *n, node_done *done, void *context) {
    (void)n;
    answer_later(done, context, t.reachable ? E_OK : E_NO_QUORUM);
}

void node_payload(struct node *n, raft_index index, node_payload_done *done, void *context) {
    (void)n;
    struct blob *b = index < ENTRIES_MAX ? t.payloads[index] : NULL;
    done(context, b == NULL ? E_NOT_FOUND : E_OK, "", b);
}

void node_prove(struct node *n, const struct proof *facts, node_proved *done, void *context) {
    (void)n, (void)facts;
    done(context, NULL);
}

void node_raft_status(const struct node *n, struct raft_status *s) {
    (void)n;
    *s = (struct raft_status){.self = 1};
}

struct state *node_state(struct node *n) {
    (void)n;
    return t.site->g.state;
}

uint32_t node_work_lease_ms(const struct node *n) {
    (void)n;
    return t.lease_ms;
}

void node_can_work(struct node *n, bool can) {
    (void)n;
    t.can_work = can;
}

void node_measured(struct node *n, const struct node_use *use) {
    (void)n, (void)use;
}

/* --- The launcher -------------------------------------------------------------------------------------------------------------------------- */

static void say(const struct launch_message *m) {
    struct builder b;
    builder_init(&b, LAUNCHWIRE_BYTES_MAX);
    launchwire_encode(&b, m);
    assert_int_equal(b.err, E_OK);
    launchlink_send(&t.link, builder_bytes(&b));
    builder_free(&b);
}

static void say_state(uint64_t token, enum launch_state state, enum launch_end end, int32_t status) {
    say(&(struct launch_message){
        .kind = LAUNCH_STATE, .scope = INCARNATION, .token = token, .state = state, .end = end, .status = status});
}

static void copy_text(char *out, size_t size, struct bytes text) {
    (void)snprintf(out, size, "%.*s", (int)text.size, text.size > 0 ? (const char *)text.data : "");
}

static void on_order(void *context, struct bytes message) {
    (void)context;
    assert_in_range(t.heard_count, 0, HEARD_MAX - 1);
    struct heard *h = &t.heard[t.heard_count];
    assert_int_equal(launchwire_decode(message, &h->m), E_OK);
    assert_true(launchwire_is_order(h->m.kind));
    if (h->m.kind == LAUNCH_LIST) {
        if (t.has_listed) {
            say(&t.listed);
        }
        say(&(struct launch_message){.kind = LAUNCH_LISTED, .limits = LAUNCH_LIMITS_CGROUP2});
        return;
    }
    if (h->m.kind == LAUNCH_MEASURE || h->m.kind == LAUNCH_LEASE) {
        t.heard_count += h->m.kind == LAUNCH_LEASE && (t.heard_count == 0 || t.heard[t.heard_count - 1].m.kind != LAUNCH_LEASE);
        return;
    }
    t.starts += h->m.kind == LAUNCH_START;
    copy_text(h->command, sizeof h->command, h->m.kind == LAUNCH_START ? h->m.command.at[0] : bytes_of(NULL, 0));
    copy_text(h->file, sizeof h->file,
              h->m.kind == LAUNCH_START && h->m.files.count > 0 ? h->m.files.at[0].name : bytes_of(NULL, 0));
    h->data = h->m.kind == LAUNCH_STORE ? blob_copy(h->m.data) : NULL;
    t.heard_count++;
}

static void on_gone(void *context) {
    (void)context;
}

static void open_door(void) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, t.socket, strlen(t.socket) + 1);
    (void)unlink(t.socket);
    t.door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(t.door >= 0 && bind(t.door, (struct sockaddr *)&at, sizeof at) == 0 && listen(t.door, 1) == 0);
}

static void stop_turn(void *context) {
    (void)context;
    loop_stop(t.loop);
}

/* Turns until it is so. */
static void turns(unsigned ms) {
    struct loop_timer timer = {.fire = stop_turn};
    loop_timer_after(t.loop, &timer, ms);
    loop_run(t.loop);
    loop_timer_cancel(t.loop, &timer);
    if (!launchlink_is_open(&t.link)) {
        struct fault f = {0};
        int fd = t.door < 0 ? -1 : accept4(t.door, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        assert_true(fd < 0 || launchlink_open(&t.link, t.loop, fd, &f) == E_OK);
    }
}

#define UNTIL(condition)                                                                                                           \
    for (unsigned waited_ms = 0; !(condition); waited_ms += 10) {                                                                  \
        if (waited_ms > PATIENCE_MS) {                                                                                             \
            fail_msg("not so after %u s: %s", PATIENCE_MS / 1000, #condition);                                                     \
        }                                                                                                                          \
        turns(10);                                                                                                                 \
    }

static struct heard *last(enum launch_kind kind) {
    for (unsigned i = t.heard_count; i > 0; i--) {
        if (t.heard[i - 1].m.kind == kind) {
            return &t.heard[i - 1];
        }
    }
    return NULL;
}

/* The launcher goes, with or without what it ran, and comes back. */
static void launcher_again(const struct launch_message *listed) {
    t.has_listed = listed != NULL;
    t.listed = listed != NULL ? *listed : (struct launch_message){0};
    t.heard_count = t.starts = 0;
    launchlink_close(&t.link);
    UNTIL(launchlink_is_open(&t.link));
}

/* --- The site -------------------------------------------------------------------------------------------------------------------------------- */

static enum task_state state_of(const char *id) {
    return rig_state(t.site, id);
}

static uint64_t token_of(const char *id) {
    return rig_task(t.site, id)->token;
}

static enum task_reason reason_of(const char *id) {
    return (enum task_reason)rig_task(t.site, id)->reason;
}

static struct task_order order_of(const char *id) {
    struct task_order o = rig_order(id, "default", LANE_NORMAL);
    o.command.at[0] = bytes_str(id);
    return o;
}

static void submit(const struct task_order *o) {
    payload_task_submit(&t.site->payload, o, -1);
    assert_int_equal(commit(ENTRY_TASK), E_OK);
}

static void cancel(const char *id) {
    payload_task_cancel(&t.site->payload, bytes_str(id));
    assert_int_equal(commit(ENTRY_TASK), E_OK);
}

static void start_executor(void) {
    struct fault f = {0};
    static int node; /* nobody looks into it */
    struct executor_options o = {
        .loop = t.loop, .node = (struct node *)&node, .launcher_socket = t.socket, .data_dir = t.dir, .usable = {1000, GIB}};
    t.executor = executor_new(&o, &f);
    assert_non_null(t.executor);
}

static int setup(void **state) {
    struct fault f = {0};
    (void)state;
    memset(&t, 0, sizeof t);
    (void)snprintf(t.dir, sizeof t.dir, "/tmp/grey-executor-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    (void)snprintf(t.socket, sizeof t.socket, "%s/launch.sock", t.dir);
    t.loop = loop_new(&f);
    assert_non_null(t.loop);
    t.site = rig_new();
    t.reachable = true;
    t.lease_ms = 2500;
    struct site_facts site = {.cluster_id = 5, .incarnation = INCARNATION, .feature_level = FEATURE_LEVEL};
    memcpy(site.site.text, "s", 2);
    payload_site(&t.site->payload, &site);
    assert_int_equal(commit(ENTRY_SITE), E_OK);
    struct node_facts node = rig_node_facts(1, "n1", 8, 8);
    payload_node(&t.site->payload, &node);
    assert_int_equal(commit(ENTRY_NODE), E_OK);
    t.link = (struct launchlink){.message = on_order, .closed = on_gone};
    open_door();
    start_executor();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    t.stopping = true;
    while (t.asked > 0) { /* the node goes first, and answers what it was asked */
        turns(1);
    }
    executor_free(t.executor);
    t.executor = NULL;
    turns(50); /* what was on its way */
    launchlink_close(&t.link);
    if (t.door >= 0) {
        (void)close(t.door);
    }
    rig_free(t.site);
    for (unsigned i = 0; i < ENTRIES_MAX; i++) {
        blob_unref(t.payloads[i]);
    }
    for (unsigned i = 0; i < HEARD_MAX; i++) {
        blob_unref(t.heard[i].data);
    }
    loop_free(t.loop);
    (void)unlink(t.socket);
    return rmdir(t.dir);
}

/* --- Tests ----------------------------------------------------------------------------------------------------------------------------------- */

static void a_task_runs_and_its_end_is_told(void **state) {
    (void)state;
    UNTIL(t.can_work);
    struct task_order o = order_of("a");
    o.stop_signal = STOP_USR1;
    o.stop_grace_ms = 1234;
    o.cpu_millicores = 250;
    o.file_count = 1;
    o.files[0] = (struct task_file){.name = bytes_str("conf"), .text = bytes_str("x"), .mode = 0600};
    submit(&o);
    UNTIL(t.starts == 1);
    struct heard *h = last(LAUNCH_START);
    assert_true(h->m.scope == INCARNATION && h->m.token == token_of("a") && h->m.leased && !h->m.again);
    assert_true(strcmp(h->command, "a") == 0 && strcmp(h->file, "conf") == 0 && h->m.cpu_millicores == 250);
    assert_true(h->m.stop_signal == SIGUSR1 && h->m.grace_ms == 1234);
    assert_int_equal(state_of("a"), TASK_ASSIGNED); /* nobody says that it runs before the launcher does */
    say_state(token_of("a"), LAUNCH_RUNNING, LAUNCH_END_NONE, 0);
    UNTIL(state_of("a") == TASK_RUNNING);
    assert_null(last(LAUNCH_FORGET));
    say_state(token_of("a"), LAUNCH_ENDED, LAUNCH_END_EXIT, 0);
    UNTIL(state_of("a") == TASK_COMPLETED);
    UNTIL(last(LAUNCH_FORGET) != NULL); /* only then may the launcher forget it */
    assert_int_equal(t.starts, 1);
}

static void each_end_has_its_reason(void **state) {
    static const struct {
        enum launch_end end;
        enum task_reason reason;
    } rows[] = {{LAUNCH_END_EXIT, REASON_EXIT},         {LAUNCH_END_SIGNAL, REASON_SIGNAL}, {LAUNCH_END_MEMORY, REASON_MEMORY},
                {LAUNCH_END_START, REASON_START},       {LAUNCH_END_PROBE, REASON_PROBE},   {LAUNCH_END_DISK, REASON_DISK},
                {LAUNCH_END_ARTIFACT, REASON_ARTIFACT}, {LAUNCH_END_IMAGE, REASON_IMAGE}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char id[8];
        (void)snprintf(id, sizeof id, "t%zu", i);
        struct task_order o = order_of(id);
        submit(&o);
        UNTIL(t.starts == i + 1);
        say_state(token_of(id), LAUNCH_ENDED, rows[i].end, 3);
        UNTIL(state_of(id) == TASK_FAILED);
        assert_int_equal(reason_of(id), rows[i].reason);
    }
}

/* greyd, or its link, is new; the process is the old one. */
static void what_runs_is_adopted_not_begun_again(void **state) {
    (void)state;
    struct task_order o = order_of("a");
    submit(&o);
    UNTIL(t.starts == 1);
    uint64_t token = token_of("a");
    say_state(token, LAUNCH_RUNNING, LAUNCH_END_NONE, 0);
    UNTIL(state_of("a") == TASK_RUNNING);
    struct launch_message listed = {.kind = LAUNCH_STATE, .scope = INCARNATION, .token = token, .state = LAUNCH_RUNNING};
    launcher_again(&listed);
    turns(700);
    assert_int_equal(t.starts, 0);
    assert_null(last(LAUNCH_STOP));
    assert_true(state_of("a") == TASK_RUNNING && token_of("a") == token);
    executor_free(t.executor); /* and so when greyd is */
    t.executor = NULL;
    launchlink_close(&t.link);
    start_executor();
    t.can_work = false;
    UNTIL(t.can_work);
    turns(700);
    assert_true(t.starts == 0 && last(LAUNCH_STOP) == NULL && token_of("a") == token);
    say_state(token, LAUNCH_ENDED, LAUNCH_END_EXIT, 0);
    UNTIL(state_of("a") == TASK_COMPLETED);
}

/* The launcher died, and with it the run: nobody knows how far it came. */
static void a_token_is_used_once(void **state) {
    (void)state;
    struct task_order once = order_of("once"), more = order_of("more");
    once.delivery = DELIVERY_AT_MOST_ONCE;
    submit(&once);
    UNTIL(t.starts == 1);
    uint64_t token = token_of("once");
    launcher_again(NULL); /* it had not said that it runs, so START comes again, under the same token */
    UNTIL(t.starts == 1);
    assert_true(last(LAUNCH_START)->m.token == token && !last(LAUNCH_START)->m.again);
    say_state(token, LAUNCH_USED, LAUNCH_END_NONE, 0); /* its mark says that it was begun */
    UNTIL(state_of("once") == TASK_FAILED);
    assert_int_equal(t.starts, 1);
    submit(&more); /* this one may run again, but not under that token */
    UNTIL(t.starts == 2);
    token = token_of("more");
    say_state(token, LAUNCH_USED, LAUNCH_END_NONE, 0);
    UNTIL(t.starts == 3);
    assert_true(last(LAUNCH_START)->m.token > token && last(LAUNCH_START)->m.token == token_of("more"));
    say_state(token_of("more"), LAUNCH_RUNNING, LAUNCH_END_NONE, 0);
    UNTIL(state_of("more") == TASK_RUNNING);
    token = token_of("more");
    launcher_again(NULL); /* it ran, and runs no more: told as stopped, not begun again under its token */
    UNTIL(t.starts == 1);
    assert_true(last(LAUNCH_START)->m.token > token);
}

/* What was decided while nobody looked must be known before anything is begun or stopped. */
static void nothing_is_done_before_all_is_known(void **state) {
    (void)state;
    UNTIL(t.can_work);
    t.reachable = false;
    struct launch_message stray = {.kind = LAUNCH_STATE, .scope = INCARNATION, .token = 77, .state = LAUNCH_RUNNING};
    launcher_again(&stray);
    struct task_order o = order_of("a");
    submit(&o);
    turns(700);
    assert_true(t.starts == 0 && last(LAUNCH_STOP) == NULL);
    t.reachable = true;
    UNTIL(t.starts == 1);
    UNTIL(last(LAUNCH_STOP) != NULL);
    assert_true(last(LAUNCH_STOP)->m.token == 77 && last(LAUNCH_STOP)->m.time_ms <= 1000); /* it may run elsewhere already */
    say_state(77, LAUNCH_ENDED, LAUNCH_END_STOPPED, 0);
    UNTIL(last(LAUNCH_FORGET) != NULL && last(LAUNCH_FORGET)->m.token == 77);
}

/* Cut off from the site for good: what may outlive the contact goes on, what may not does not. */
static void alone_only_what_may_outlive_the_contact_is_begun(void **state) {
    (void)state;
    struct task_order stop = order_of("stop"), keep = order_of("keep");
    keep.isolation = ISOLATION_KEEP;
    t.reachable = false;
    submit(&stop);
    submit(&keep);
    launcher_again(NULL);
    UNTIL(t.starts == 1);
    turns(500);
    assert_int_equal(t.starts, 1);
    assert_true(strcmp(last(LAUNCH_START)->command, "keep") == 0 && last(LAUNCH_START)->m.again && !last(LAUNCH_START)->m.leased);
}

static void a_lease_comes_before_its_run(void **state) {
    (void)state;
    t.lease_ms = 0;
    struct task_order o = order_of("a");
    submit(&o);
    turns(700);
    assert_int_equal(t.starts, 0);
    t.lease_ms = 2500;
    UNTIL(t.starts == 1);
    assert_true(t.heard_count >= 2 && t.heard[t.heard_count - 2].m.kind == LAUNCH_LEASE);
    say_state(token_of("a"), LAUNCH_LATER, LAUNCH_END_NONE, 0); /* the launcher had no room */
    UNTIL(t.starts == 2);
    assert_int_equal(last(LAUNCH_START)->m.token, token_of("a"));
}

static void a_cancelled_task_has_the_time_that_it_asked_for(void **state) {
    (void)state;
    struct task_order o = order_of("a");
    submit(&o);
    UNTIL(t.starts == 1);
    say_state(token_of("a"), LAUNCH_RUNNING, LAUNCH_END_NONE, 0);
    UNTIL(state_of("a") == TASK_RUNNING);
    assert_int_equal(last(LAUNCH_START)->m.grace_ms, TASK_GRACE_MS_DEFAULT);
    uint64_t token = token_of("a");
    cancel("a");
    UNTIL(last(LAUNCH_STOP) != NULL);
    assert_true(last(LAUNCH_STOP)->m.token == token && last(LAUNCH_STOP)->m.time_ms >= TASK_GRACE_MS_DEFAULT);
    say_state(token, LAUNCH_ENDED, LAUNCH_END_STOPPED, 15);
    UNTIL(last(LAUNCH_FORGET) != NULL);
    assert_int_equal(state_of("a"), TASK_CANCELLED);
}

/* --- Artifacts ------------------------------------------------------------------------------------------------------------------------------- */

static void give(const char *name, struct bytes content) {
    static const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES] = {1};
    struct builder hashes, manifest;
    builder_init(&hashes, 1 << 16);
    builder_init(&manifest, 1 << 16);
    object_cut(content, OBJECT_CHUNK_BYTES_MIN, &hashes);
    struct object_manifest m = {.kind = OBJECT_DATA,
                                .name = bytes_str(name),
                                .site = bytes_str("s"),
                                .version = 1,
                                .issue = 1,
                                .size = content.size,
                                .chunk_bytes = OBJECT_CHUNK_BYTES_MIN,
                                .hashes = builder_bytes(&hashes)};
    object_sign(&m, secret_key, &manifest);
    payload_offer(&t.site->payload, builder_bytes(&manifest), bytes_of(NULL, 0));
    assert_int_equal(commit(ENTRY_OBJECT), E_OK);
    for (size_t at = 0; at < content.size; at += OBJECT_CHUNK_BYTES_MIN) {
        size_t left = content.size - at;
        payload_chunk(&t.site->payload, bytes_of(content.data + at, left < OBJECT_CHUNK_BYTES_MIN ? left : OBJECT_CHUNK_BYTES_MIN));
        assert_int_equal(commit(ENTRY_OBJECT), E_OK);
    }
    builder_free(&hashes);
    builder_free(&manifest);
}

static void submit_with(const char *id, const char *object, const uint8_t hash[DIGEST_SHA256_BYTES]) {
    struct task_order o = order_of(id);
    o.file_count = 1;
    o.files[0] = (struct task_file){.name = bytes_str("model"),
                                    .source = FILE_OBJECT,
                                    .text = bytes_str(object),
                                    .hash = bytes_of(hash, DIGEST_SHA256_BYTES),
                                    .mode = 0644};
    submit(&o);
}

static void what_the_launcher_lacks_is_brought(void **state) {
    static uint8_t content[10000];
    uint8_t hash[DIGEST_SHA256_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof content; i++) {
        content[i] = (uint8_t)(i * 7 + i / 256);
    }
    digest_sha256(bytes_of(content, sizeof content), hash);
    give("model", bytes_of(content, sizeof content));
    submit_with("a", "model", hash);
    UNTIL(t.starts == 1);
    say_state(token_of("a"), LAUNCH_LACKS, LAUNCH_END_NONE, 0);
    UNTIL(last(LAUNCH_STORE) != NULL && last(LAUNCH_STORE)->m.offset + blob_bytes(last(LAUNCH_STORE)->data).size == sizeof content);
    for (unsigned i = 0, at = 0; i < t.heard_count; i++) {
        if (t.heard[i].m.kind == LAUNCH_STORE) {
            struct bytes part = blob_bytes(t.heard[i].data);
            assert_true(t.heard[i].m.offset == at && t.heard[i].m.end_offset == sizeof content);
            assert_memory_equal(part.data, content + at, part.size);
            at += (unsigned)part.size;
        }
    }
    turns(400);
    assert_int_equal(t.starts, 1); /* not before the launcher has it */
    say(&(struct launch_message){.kind = LAUNCH_STORED, .hash = bytes_of(hash, sizeof hash)});
    UNTIL(t.starts == 2);
    assert_int_equal(last(LAUNCH_START)->m.token, token_of("a")); /* LACKS used nothing up */
    say_state(token_of("a"), LAUNCH_ENDED, LAUNCH_END_EXIT, 0);
    UNTIL(state_of("a") == TASK_COMPLETED);
}

static void what_cannot_be_brought_fails_its_task(void **state) {
    uint8_t hash[DIGEST_SHA256_BYTES] = {1};
    (void)state;
    give("model", bytes_str("something"));
    submit_with("absent", "nothing", hash);
    UNTIL(t.starts == 1);
    say_state(token_of("absent"), LAUNCH_LACKS, LAUNCH_END_NONE, 0);
    UNTIL(state_of("absent") == TASK_FAILED);
    assert_int_equal(reason_of("absent"), REASON_ARTIFACT);
    submit_with("differs", "model", hash);
    UNTIL(t.starts == 2);
    say_state(token_of("differs"), LAUNCH_LACKS, LAUNCH_END_NONE, 0);
    UNTIL(state_of("differs") == TASK_FAILED);
    assert_null(last(LAUNCH_STORE)); /* not even begun to be sent */
    digest_sha256(bytes_str("something"), hash);
    submit_with("large", "model", hash);
    UNTIL(t.starts == 3);
    say_state(token_of("large"), LAUNCH_LACKS, LAUNCH_END_NONE, 0);
    UNTIL(last(LAUNCH_STORE) != NULL);
    say(&(struct launch_message){.kind = LAUNCH_STORED, .hash = bytes_of(hash, sizeof hash), .stored = LAUNCH_STORED_TOO_LARGE});
    UNTIL(state_of("large") == TASK_FAILED);
    assert_true(reason_of("differs") == REASON_ARTIFACT && reason_of("large") == REASON_ARTIFACT);
}

/* Orders of former versions, which nobody checked for what a launcher takes. */
static void an_order_that_no_launcher_takes_fails(void **state) {
    (void)state;
    struct task_order image = order_of("image"), nothing = order_of("nothing");
    image.oci = bytes_str("press:1");
    nothing.command.at[0] = bytes_str("");
    submit(&image);
    submit(&nothing);
    UNTIL(state_of("image") == TASK_FAILED && state_of("nothing") == TASK_FAILED);
    assert_true(reason_of("image") == REASON_IMAGE && reason_of("nothing") == REASON_START && t.starts == 0);
    assert_true(launchlink_is_open(&t.link)); /* the launcher would have closed it */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_task_runs_and_its_end_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(each_end_has_its_reason, setup, teardown),
        cmocka_unit_test_setup_teardown(what_runs_is_adopted_not_begun_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_token_is_used_once, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_done_before_all_is_known, setup, teardown),
        cmocka_unit_test_setup_teardown(alone_only_what_may_outlive_the_contact_is_begun, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lease_comes_before_its_run, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_task_has_the_time_that_it_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_launcher_lacks_is_brought, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_brought_fails_its_task, setup, teardown),
        cmocka_unit_test_setup_teardown(an_order_that_no_launcher_takes_fails, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
