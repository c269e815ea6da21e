#include "agent/run/executor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/run/artifact.h"
#include "agent/run/gauge.h"
#include "agent/run/outputs.h"
#include "agent/run/startform.h"
#include "agent/work/work.h"
#include "include/grey/protocol.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define RETRY_MS 300u           /* a report or a start that did not get through is made again */
#define LEASE_MS 250u           /* between two words on the lease */
#define BRINGS_MAX 64u          /* artifacts for one run: each of its files, and again what left the shelf meanwhile */
#define ABSENT_MS 10000u        /* a launcher that was away for so long is; one that is restarted is not */
#define ALONE_MS 4000u          /* without a word of the site for so long, what may outlive the contact is begun */
#define UNWANTED_GRACE_MS 1000u /* it may run elsewhere already */

static struct metric started = METRIC_COUNTER("grey_executor_started_total", "Runs of tasks that were begun on this gateway.");

enum run_phase {
    RUN_WANTED,
    RUN_READING,  /* its order is read */
    RUN_BRINGING, /* an artifact that it needs is on its way */
    RUN_ASKED,    /* START is sent */
    RUN_KNOWN     /* the launcher said how it is */
};

struct run { /* one assignment to this gateway, or one process that is here for a former one */
    struct run *next;
    uint64_t scope, token;
    enum run_phase phase;
    struct launch_message state; /* KNOWN; no slices */
    bool wanted, stop_sent, running_told, end_told, telling;
    bool again; /* begun without the site, after the machine was off */
    bool lacks; /* the launcher has not what file number lacking of its order names */
    uint32_t lacking, brought;
    enum task_reason refused; /* why it cannot be begun here */
    bool proving, proved;
    struct blob *proof; /* proved: NULL when none could be made */
};

struct executor {
    struct executor_options o;
    struct launcher *launcher;
    struct gauge *gauge;
    struct artifact *artifact;
    struct run *runs;
    struct outputs outputs;
    uint64_t listed_ms;             /* when the launcher told what runs */
    uint64_t scope, generation;     /* generation: of the connection, so that late answers are known as such */
    bool listed, caught_up, asking; /* asking: whether all is applied */
    struct loop_timer look_timer, lease_timer, absent_timer;
};

/* What is asked of the node outlives runs: it names them by token. */
struct errand {
    struct executor *executor;
    uint64_t token, generation;
    enum task_report report;
};

static struct run *find(const struct executor *x, uint64_t scope, uint64_t token) {
    struct run *r = x->runs;
    while (r != NULL && (r->token != token || r->scope != scope)) {
        r = r->next;
    }
    return r;
}

static struct run *add(struct executor *x, uint64_t scope, uint64_t token) {
    struct run *r = mem_new(1, sizeof *r);
    if (r != NULL) {
        *r = (struct run){.next = x->runs, .scope = scope, .token = token};
        x->runs = r;
    }
    return r;
}

static void run_free(struct run *r) {
    blob_unref(r->proof);
    mem_free(r);
}

static void look_soon(struct executor *x, uint64_t delay_ms) {
    uint64_t at_ms = loop_now_ms(x->o.loop) + delay_ms;
    if (x->look_timer.place == 0 || x->look_timer.deadline_ms > at_ms) {
        loop_timer_set(x->o.loop, &x->look_timer, at_ms);
    }
}

static const struct task *first_task(struct executor *x) {
    struct raft_status s;
    node_raft_status(x->o.node, &s);
    const struct scheduler *all = state_scheduler(node_state(x->o.node));
    const struct placement_node *self = all == NULL ? NULL : placement_find(&all->placement, s.self);
    return self == NULL ? NULL : self->tasks;
}

static const struct task *task_of(struct executor *x, uint64_t token) {
    const struct task *t = first_task(x);
    while (t != NULL && t->token != token) {
        t = t->next_on_node;
    }
    return t;
}

static struct bytes id_of(const struct task *t) {
    return bytes_of(t->vertex->id, t->vertex->id_bytes);
}

/* --- The lease ---------------------------------------------------------------------------------------------------------------------------- */

static bool is_leased(const struct task *t) {
    return !t->is_kept || t->delivery == DELIVERY_AT_MOST_ONCE;
}

static void say_lease(struct executor *x) {
    uint64_t until_ms = loop_now_ms(x->o.loop) + node_work_lease_ms(x->o.node);
    launcher_send(x->launcher, &(struct launch_message){.kind = LAUNCH_LEASE, .until_ms = until_ms});
}

/* As long as anything here depends on it, or may. */
static void on_lease(void *context) {
    struct executor *x = context;
    bool needed = !x->caught_up && x->runs != NULL;
    for (const struct task *t = first_task(x); t != NULL && !needed; t = t->next_on_node) {
        needed = is_leased(t);
    }
    if (needed && launcher_up(x->launcher)) {
        say_lease(x);
        loop_timer_after(x->o.loop, &x->lease_timer, LEASE_MS);
    }
}

/* --- Reports ------------------------------------------------------------------------------------------------------------------------------- */

static void told(void *context, const struct node_answer *a) {
    struct errand *e = context;
    struct executor *x = e->executor;
    struct run *r = find(x, x->scope, e->token);
    if (r != NULL && r->telling) {
        r->telling = false;
        r->running_told = r->running_told || (a->err == E_OK && e->report == REPORT_RUNNING);
        r->end_told = r->end_told || (a->err == E_OK && e->report != REPORT_RUNNING);
    }
    if (a->err != E_OK && a->err != E_STOPPING) {
        log_limited(LOG_INFO, "executor", "report", "token=%" PRIu64 " error=GREY-%d %s", e->token, error_id(a->err), a->detail);
    }
    if (a->err != E_STOPPING) {
        look_soon(x, a->err == E_OK ? 0 : RETRY_MS);
    }
    mem_free(e);
}

static void tell(struct executor *x, struct run *r, const struct task *t, enum task_report report, enum task_reason reason,
                 int32_t status) {
    struct bytes proof = report == REPORT_RUNNING || r->proof == NULL ? bytes_of(NULL, 0) : blob_bytes(r->proof);
    if (r->telling || (report == REPORT_RUNNING ? r->running_told : r->end_told)) {
        return;
    }
    struct errand *e = mem_new(1, sizeof *e);
    struct builder b;
    builder_init(&b, 512 + 2 * PROOF_BYTES_MAX);
    payload_task_report(&b, id_of(t), t->token, report, reason, status, proof);
    struct blob *blob = e == NULL ? NULL : builder_blob(&b);
    builder_free(&b);
    if (blob == NULL) {
        mem_free(e);
        look_soon(x, RETRY_MS);
        return;
    }
    *e = (struct errand){.executor = x, .token = t->token, .generation = x->generation, .report = report};
    r->telling = true;
    node_propose(x->o.node, ENTRY_TASK, blob, true, told, e);
    blob_unref(blob);
}

static enum task_report report_of(const struct launch_message *s, enum task_reason *reason) {
    static const enum task_reason reasons[LAUNCH_END_COUNT] = {
        [LAUNCH_END_NONE] = REASON_STOPPED,  [LAUNCH_END_EXIT] = REASON_EXIT,   [LAUNCH_END_SIGNAL] = REASON_SIGNAL,
        [LAUNCH_END_MEMORY] = REASON_MEMORY, [LAUNCH_END_START] = REASON_START, [LAUNCH_END_STOPPED] = REASON_STOPPED,
        [LAUNCH_END_PROBE] = REASON_PROBE,   [LAUNCH_END_DISK] = REASON_DISK,   [LAUNCH_END_ARTIFACT] = REASON_ARTIFACT,
        [LAUNCH_END_IMAGE] = REASON_IMAGE};
    bool stopped = s->state == LAUNCH_USED || s->end == LAUNCH_END_STOPPED;
    bool well = s->end == LAUNCH_END_EXIT && s->status == 0;
    *reason = stopped ? REASON_STOPPED : well ? REASON_NONE : reasons[s->end];
    return stopped ? REPORT_STOPPED : well ? REPORT_COMPLETED : REPORT_FAILED;
}

static void proof_made(void *context, struct blob *proof) {
    struct errand *e = context;
    struct run *r = e->generation == e->executor->generation ? find(e->executor, e->executor->scope, e->token) : NULL;
    if (r != NULL && r->proving) {
        r->proving = false;
        r->proved = true;
        r->proof = proof == NULL ? NULL : blob_ref(proof);
        look_soon(e->executor, 0);
    }
    mem_free(e);
}

/* The end of a run is told with its proof, where the site keeps them. */
static void prove(struct executor *x, struct run *r, const struct task *t, enum task_report report, enum task_reason reason) {
    static const char *const ends[REPORT_COUNT] = {"running", "completed", "failed", "stopped"};
    const struct launch_use *u = &r->state.use;
    struct proof p = {.token = t->token,
                      .task = id_of(t),
                      .steps = {[PROOF_SUBMITTED] = {.index = t->order_index},
                                [PROOF_ASSIGNED] = {.index = t->assigned_index},
                                [PROOF_RUNNING] = {.index = t->running_after > 0 ? t->assigned_index + t->running_after : 0}},
                      .end = bytes_str(ends[report]),
                      .reason = bytes_str(task_name(NAMES_REASON, reason)),
                      .status = r->state.status,
                      .cpu_us = u->cpu_us,
                      .memory_peak_bytes = u->memory_peak_bytes,
                      .wall_ms = u->wall_ms};
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        p.output_bytes[s] = u->output_bytes[s];
        memcpy(p.output_hash[s], u->output_hash[s], sizeof p.output_hash[s]);
    }
    struct errand *e = mem_new(1, sizeof *e);
    r->proved = e == NULL; /* without memory there is none */
    if (e != NULL) {
        *e = (struct errand){.executor = x, .token = t->token, .generation = x->generation};
        r->proving = true;
        node_prove(x->o.node, &p, proof_made, e);
    }
}

static void tell_end(struct executor *x, struct run *r, const struct task *t) {
    enum task_reason reason;
    enum task_report report = report_of(&r->state, &reason);
    bool wanted = r->state.state == LAUNCH_ENDED && t->assigned_index > 0;
    if (wanted && !r->proved && !r->end_told && !r->telling) { /* telling: that it runs, which the proof names */
        if (!r->proving) {
            prove(x, r, t, report, reason);
        }
        return;
    }
    tell(x, r, t, report, reason, report == REPORT_COMPLETED ? 0 : r->state.status);
}

/* --- Starts --------------------------------------------------------------------------------------------------------------------------------- */

/* A file of the order must be brought first. */
static void bring(struct executor *x, struct run *r, const struct task *t, const struct task_file *file) {
    if (r->brought >= BRINGS_MAX) {
        log_warn("executor", "artifact", "task=%s artifact=%.*s: it leaves the launcher's shelf before the task can begin",
                 t->vertex->id, (int)file->name.size, (const char *)file->name.data);
        r->refused = REASON_ARTIFACT;
        look_soon(x, 0);
    } else if (artifact_bring(x->artifact, t->token, file->text, file->hash)) {
        r->brought++;
        r->phase = RUN_BRINGING;
    } else {
        look_soon(x, RETRY_MS);
    }
}

static void brought(void *context, uint64_t token, enum grey_error how) {
    struct executor *x = context;
    struct run *r = find(x, x->scope, token);
    if (r == NULL || r->phase != RUN_BRINGING) {
        return;
    }
    r->phase = RUN_WANTED;
    r->lacks = how != E_OK;
    r->refused = how != E_OK && how != E_BUSY ? REASON_ARTIFACT : REASON_NONE;
    if (r->refused != REASON_NONE) {
        log_warn("executor", "artifact", "token=%" PRIu64 " file=%" PRIu32 ": %s", token, r->lacking + 1,
                 how == E_NOT_FOUND   ? "the core has not given the object that it names"
                 : how == E_CORRUPT   ? "the object differs: it has not the SHA-256 that the task names"
                 : how == E_TOO_LARGE ? "it does not fit: see --artifacts-mb of grey-launch"
                                      : "the launcher could not keep it: is the disk full?");
    }
    look_soon(x, how == E_BUSY ? RETRY_MS : 0);
}

static void order_read(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct errand *e = context;
    struct executor *x = e->executor;
    struct run *r = e->generation == x->generation ? find(x, x->scope, e->token) : NULL;
    const struct task *t = r == NULL ? NULL : task_of(x, e->token);
    struct task_order o;
    mem_free(e);
    if (r == NULL || r->phase != RUN_READING) {
        return;
    }
    r->phase = RUN_WANTED;
    if (t == NULL || t->stop != REASON_NONE || !launcher_up(x->launcher)) { /* it changed meanwhile */
        look_soon(x, 0);
        return;
    }
    if (payload == NULL || payload_task_order(blob_bytes(payload), &o, NULL) != E_OK) {
        log_limited(LOG_WARN, "executor", "order", "task=%s: its order cannot be read yet: error=%s %s", t->vertex->id,
                    error_name(err), detail);
        look_soon(x, RETRY_MS);
        return;
    }
    r->refused = startform_refuses(&o);
    if (r->refused != REASON_NONE) {
        log_warn("executor", "start", "task=%s: it names no program, or no absolute path of an image", t->vertex->id);
        look_soon(x, 0);
        return;
    }
    if (r->lacks && r->lacking < o.file_count && o.files[r->lacking].source == FILE_OBJECT) {
        bring(x, r, t, &o.files[r->lacking]);
        return;
    }
    struct startform form;
    struct launch_message *m = &form.start;
    startform_fill(&form, &o);
    m->scope = x->scope;
    m->token = t->token;
    m->id = id_of(t);
    m->cpu_millicores = t->cpu_millicores;
    m->memory_bytes = t->memory_bytes;
    m->leased = is_leased(t);
    m->again = r->again;
    if (m->leased) {
        say_lease(x);
        loop_timer_after(x->o.loop, &x->lease_timer, LEASE_MS);
    }
    r->phase = RUN_ASKED;
    metrics_add(&started, 0, 1);
    launcher_send(x->launcher, m);
}

static void begin(struct executor *x, struct run *r, const struct task *t) {
    if (is_leased(t) && node_work_lease_ms(x->o.node) == 0) {
        look_soon(x, RETRY_MS);
        return;
    }
    struct errand *e = mem_new(1, sizeof *e);
    if (e == NULL) {
        look_soon(x, RETRY_MS);
        return;
    }
    *e = (struct errand){.executor = x, .token = t->token, .generation = x->generation};
    r->phase = RUN_READING;
    node_payload(x->o.node, t->order_index, order_read, e);
}

/* --- Comparing ------------------------------------------------------------------------------------------------------------------------------- */

static void stop(struct executor *x, struct run *r, uint32_t grace_ms) {
    if (!r->stop_sent) {
        r->stop_sent = true;
        launcher_send(x->launcher,
                      &(struct launch_message){.kind = LAUNCH_STOP, .scope = r->scope, .token = r->token, .time_ms = grace_ms});
    }
}

static bool has_ended(const struct run *r) {
    return r->phase == RUN_KNOWN && (r->state.state == LAUNCH_ENDED || r->state.state == LAUNCH_USED);
}

static void compare(struct executor *x, struct run *r, const struct task *t) {
    r->wanted = true;
    if (has_ended(r)) {
        tell_end(x, r, t);
    } else if (r->phase == RUN_WANTED) {
        if (r->refused != REASON_NONE) {
            tell(x, r, t, REPORT_FAILED, r->refused, 0);
        } else if (t->stop != REASON_NONE ||
                   t->state != TASK_ASSIGNED) { /* it said that it ran, and runs no more: the machine was off */
            tell(x, r, t, REPORT_STOPPED, REASON_STOPPED, 0);
        } else {
            begin(x, r, t);
        }
    } else if ((r->phase == RUN_ASKED || r->phase == RUN_KNOWN) && t->stop != REASON_NONE) {
        stop(x, r, LAUNCHWIRE_GRACE_MS_MAX); /* its own grace is shorter */
    } else if (r->phase == RUN_KNOWN && r->state.state == LAUNCH_RUNNING && t->state == TASK_ASSIGNED) {
        tell(x, r, t, REPORT_RUNNING, REASON_NONE, 0);
    }
}

/* Of a former assignment, a former life of the site, or of nobody. */
static void clear_away(struct executor *x) {
    for (struct run **at = &x->runs; *at != NULL;) {
        struct run *r = *at;
        bool ended = has_ended(r), gone = !r->wanted && (ended || r->phase < RUN_ASKED);
        if (!r->wanted && !gone) {
            stop(x, r, UNWANTED_GRACE_MS);
        }
        if (gone) {
            if (ended || r->end_told) {
                launcher_send(x->launcher, &(struct launch_message){.kind = LAUNCH_FORGET, .scope = r->scope, .token = r->token});
            }
            *at = r->next;
            run_free(r);
        } else {
            at = &r->next;
        }
    }
}

static void caught_up(void *context, const struct node_answer *a) {
    struct executor *x = context;
    x->asking = false;
    x->caught_up = x->caught_up || a->err == E_OK;
    if (a->err != E_STOPPING) {
        look_soon(x, a->err == E_OK ? 0 : RETRY_MS);
    }
}

/* The site has not answered since this started: the power may have failed for all of it, and nobody may come for hours.  Tasks that were
 * here when it last did, and may outlive the contact, run on as they were (nothing of them is left: the launcher would have listed it). */
static void begin_alone(struct executor *x) {
    for (const struct task *t = first_task(x); t != NULL; t = t->next_on_node) {
        bool runs_on = !is_leased(t) && t->stop == REASON_NONE && (t->state == TASK_ASSIGNED || t->state == TASK_RUNNING);
        struct run *r = runs_on && find(x, x->scope, t->token) == NULL ? add(x, x->scope, t->token) : NULL;
        if (r != NULL) {
            log_warn("executor", "alone", "task=%s token=%" PRIu64 ": the site does not answer, so it goes on here", t->vertex->id,
                     t->token);
            r->again = true;
            begin(x, r, t);
        }
    }
}

static void ask(struct executor *x) {
    if (!x->asking) {
        x->asking = true;
        node_read_barrier(x->o.node, caught_up, x);
    }
}

static void look(void *context) {
    struct executor *x = context;
    struct site_facts site;
    if (!x->listed || !launcher_up(x->launcher)) {
        return;
    }
    if (!state_site(node_state(x->o.node), &site) || state_scheduler(node_state(x->o.node)) == NULL) {
        ask(x);
        look_soon(x, RETRY_MS);
        return;
    }
    x->scope = site.incarnation;
    if (!x->caught_up) {
        uint64_t alone_ms = loop_now_ms(x->o.loop) - x->listed_ms;
        ask(x);
        if (alone_ms >= ALONE_MS) {
            begin_alone(x);
        } else {
            look_soon(x, ALONE_MS - alone_ms);
        }
        return;
    }
    for (struct run *r = x->runs; r != NULL; r = r->next) {
        r->wanted = false;
    }
    for (const struct task *t = first_task(x), *next; t != NULL; t = next) {
        next = t->next_on_node;
        struct run *r = find(x, x->scope, t->token);
        r = r != NULL ? r : add(x, x->scope, t->token);
        if (r == NULL) {
            look_soon(x, RETRY_MS);
            continue;
        }
        compare(x, r, t);
    }
    clear_away(x);
}

void executor_applied(struct executor *x, const struct entry *e) {
    if (e->kind == ENTRY_TASK || e->kind == ENTRY_QUOTA || e->kind == ENTRY_NODE || e->kind == ENTRY_SITE ||
        e->kind == ENTRY_CLOCK) {
        look_soon(x, 0);
    }
}

/* --- The launcher ---------------------------------------------------------------------------------------------------------------------------- */

static void forget_all(struct executor *x, enum grey_error why) {
    artifact_reset(x->artifact);
    x->generation++;
    x->listed = false;
    while (x->runs != NULL) {
        struct run *r = x->runs;
        x->runs = r->next;
        run_free(r);
    }
    outputs_give_up(&x->outputs, why);
}

static void on_up(void *context) {
    struct executor *x = context;
    x->caught_up = false; /* what was committed while nobody looked must be known before anything is stopped */
    forget_all(x, E_CONNECT);
}

static void on_absent(void *context) {
    struct executor *x = context;
    node_can_work(x->o.node, false);
}

static void on_down(void *context) {
    struct executor *x = context;
    forget_all(x, E_CONNECT);
    loop_timer_after(x->o.loop, &x->absent_timer, ABSENT_MS);
}

static void run_state(struct executor *x, const struct launch_message *m) {
    struct run *r = find(x, m->scope, m->token);
    r = r != NULL ? r : add(x, m->scope, m->token);
    if (r == NULL) {
        return; /* no memory: the next list names it again */
    }
    if (m->state == LAUNCH_LATER) {
        r->phase = RUN_WANTED;
        look_soon(x, RETRY_MS);
        return;
    }
    if (m->state == LAUNCH_LACKS) {
        r->phase = RUN_WANTED;
        r->lacks = true;
        r->lacking = (uint32_t)m->status;
        look_soon(x, 0);
        return;
    }
    r->phase = RUN_KNOWN;
    r->state = *m;
    look_soon(x, 0);
}

static void on_message(void *context, const struct launch_message *m) {
    static const char *const names[LAUNCH_LIMITS_COUNT] = {"rlimits", "cgroup v1", "cgroup v2"};
    struct executor *x = context;
    if (m->kind == LAUNCH_STATE) {
        run_state(x, m);
    } else if (m->kind == LAUNCH_PART) {
        outputs_part(&x->outputs, m);
    } else if (m->kind == LAUNCH_STORED) {
        artifact_stored(x->artifact, m);
    } else if (m->kind == LAUNCH_USE) {
        gauge_take(x->gauge, m);
    } else {
        uint32_t count = 0;
        for (const struct run *r = x->runs; r != NULL; r = r->next) {
            count++;
        }
        x->listed = true;
        x->listed_ms = loop_now_ms(x->o.loop);
        loop_timer_cancel(x->o.loop, &x->absent_timer);
        node_can_work(x->o.node, true);
        log_at(m->limits == LAUNCH_LIMITS_RLIMITS ? LOG_WARN : LOG_INFO, "executor", "launcher", "limits=%s adopted=%" PRIu32 "%s",
               names[m->limits], count,
               m->limits == LAUNCH_LIMITS_RLIMITS ? ": no control groups there, so processors are not bounded" : "");
        on_lease(x);
        look_soon(x, 0);
    }
}

static const struct launcher_events launcher_events = {.up = on_up, .down = on_down, .message = on_message};

/* --- Life and questions ------------------------------------------------------------------------------------------------------------------------- */

void executor_read(struct executor *x, uint64_t token, enum launch_stream stream, uint64_t offset, uint32_t size,
                   executor_output *done, void *context) {
    struct site_facts site;
    if (!state_site(node_state(x->o.node), &site)) {
        done(context, E_CONNECT, bytes_of(NULL, 0), 0, 0);
        return;
    }
    struct launch_message read = {.scope = site.incarnation, .token = token, .stream = stream, .offset = offset, .size = size};
    outputs_ask(&x->outputs, &read, done, context);
}

struct executor *executor_new(const struct executor_options *o, struct fault *f) {
    struct executor *x = mem_new(1, sizeof *x);
    if (x == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "executor");
        return NULL;
    }
    metrics_register(&started);
    x->o = *o;
    x->look_timer = (struct loop_timer){.fire = look, .context = x};
    x->lease_timer = (struct loop_timer){.fire = on_lease, .context = x};
    x->absent_timer = (struct loop_timer){.fire = on_absent, .context = x};
    struct launcher_options l = {.loop = o->loop, .socket_path = o->launcher_socket, .data_dir = o->data_dir};
    x->launcher = launcher_new(&l, &launcher_events, x, f);
    x->outputs.launcher = x->launcher;
    struct gauge_options g = {.loop = o->loop,
                              .node = o->node,
                              .launcher = x->launcher,
                              .usable = o->usable,
                              .hot_permille = o->hot_permille,
                              .hot_ms = o->hot_ms};
    x->gauge = x->launcher == NULL ? NULL : gauge_new(&g);
    x->artifact = x->launcher == NULL ? NULL : artifact_new(o->loop, o->node, x->launcher, brought, x);
    if (x->gauge == NULL || x->artifact == NULL) {
        gauge_free(x->gauge);
        artifact_free(x->artifact);
        launcher_free(x->launcher);
        mem_free(x);
        return NULL;
    }
    return x;
}

void executor_free(struct executor *x) {
    if (x == NULL) {
        return;
    }
    loop_timer_cancel(x->o.loop, &x->look_timer);
    loop_timer_cancel(x->o.loop, &x->lease_timer);
    loop_timer_cancel(x->o.loop, &x->absent_timer);
    forget_all(x, E_STOPPING);
    artifact_free(x->artifact);
    gauge_free(x->gauge);
    launcher_free(x->launcher);
    mem_free(x);
}
