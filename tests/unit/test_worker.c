/* The worker thread: disk and handshakes run there, and each answer waits for its word. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/worker.h"

#define JOBS 1000u

struct numbered {
    struct worker_job job;
    uint32_t number;
    _Atomic bool worked;
};

static struct loop *loop;
static struct worker *other;
static struct numbered jobs[JOBS + 1];
static uint32_t work_count, done_count, batch_count, largest_batch, again_count;
static pthread_t loop_thread;
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

static struct numbered *numbered_of(struct worker_job *job) {
    return (struct numbered *)(void *)job;
}

static void work(struct worker_job *job) {
    struct numbered *n = numbered_of(job);
    assert_false(pthread_equal(pthread_self(), loop_thread));
    assert_int_equal(n->number, work_count++);
    n->worked = true;
}

static void done(struct worker_job *job) {
    struct numbered *n = numbered_of(job);
    assert_true(pthread_equal(pthread_self(), loop_thread));
    assert_true(n->worked);
    assert_int_equal(n->number, done_count++);
    if (done_count == JOBS) {
        loop_stop(loop);
    }
}

static struct worker_job *batch(void *context, struct worker_job *list) {
    uint32_t size = 0;
    assert_ptr_equal(context, &batch_count);
    (void)pthread_mutex_lock(&held); /* the test holds it while it fills the queue */
    (void)pthread_mutex_unlock(&held);
    for (struct worker_job *job = list; job != NULL; job = job->next) {
        work(job);
        size++;
    }
    batch_count++;
    largest_batch = size > largest_batch ? size : largest_batch;
    return NULL;
}

/* Two at a time; the rest comes again. */
static struct worker_job *small_batch(void *context, struct worker_job *list) {
    assert_ptr_equal(context, &batch_count);
    work(list);
    batch_count++;
    if (list->next == NULL) {
        return NULL;
    }
    work(list->next);
    return list->next->next;
}

static int setup(void **state) {
    (void)state;
    loop = loop_new(NULL);
    loop_thread = pthread_self();
    work_count = done_count = batch_count = largest_batch = again_count = 0;
    for (uint32_t i = 0; i <= JOBS; i++) {
        jobs[i] = (struct numbered){.job = {.work = work, .done = done}, .number = i};
    }
    return loop == NULL;
}

static int teardown(void **state) {
    (void)state;
    loop_free(loop);
    return 0;
}

/* If jobs were worked or reported out of order, a later write could be answered before an earlier one is on disk. */
static void jobs_keep_their_order(void **state) {
    (void)state;
    struct worker *w = worker_new(loop, "test", JOBS, NULL, NULL, NULL);
    for (uint32_t i = 0; i < JOBS; i++) {
        assert_int_equal(worker_submit(w, &jobs[i].job), E_OK);
    }
    loop_run(loop);
    assert_int_equal(done_count, JOBS);
    assert_int_equal(worker_queued(w), 0);
    worker_stop(w);
}

/* If waiting jobs did not go as one list, each event would cost its own fsync. */
static void waiting_jobs_become_one_batch(void **state) {
    (void)state;
    struct worker *w = worker_new(loop, "test", JOBS, batch, &batch_count, NULL);
    (void)pthread_mutex_lock(&held);
    for (uint32_t i = 0; i < JOBS; i++) {
        assert_int_equal(worker_submit(w, &jobs[i].job), E_OK);
    }
    (void)pthread_mutex_unlock(&held);
    loop_run(loop);
    assert_int_equal(done_count, JOBS);
    assert_in_range(batch_count, 1, 2); /* the first may have been taken alone */
    assert_true(largest_batch >= JOBS / 2);
    worker_stop(w);
}

/* If jobs that a batch leaves were lost, overtaken or never reported, writes would go unanswered behind a long flush. */
static void a_batch_may_leave_jobs(void **state) {
    (void)state;
    struct worker *w = worker_new(loop, "test", JOBS, small_batch, &batch_count, NULL);
    for (uint32_t i = 0; i < JOBS; i++) {
        assert_int_equal(worker_submit(w, &jobs[i].job), E_OK);
    }
    loop_run(loop);
    assert_int_equal(done_count, JOBS);
    assert_true(batch_count >= JOBS / 2);
    worker_stop(w);
}

/* If the queue had no bound, a slow disk would end in a process without memory instead of an answer. */
static void a_full_queue_is_an_answer(void **state) {
    (void)state;
    struct worker *w = worker_new(loop, "test", JOBS, batch, &batch_count, NULL);
    (void)pthread_mutex_lock(&held);
    for (uint32_t i = 0; i < JOBS; i++) {
        assert_int_equal(worker_submit(w, &jobs[i].job), E_OK);
    }
    assert_int_equal(worker_queued(w), JOBS);
    assert_int_equal(worker_submit(w, &jobs[JOBS].job), E_BUSY);
    (void)pthread_mutex_unlock(&held);
    loop_run(loop);
    worker_stop(w);
}

static void submit_again(struct worker_job *job) {
    (void)job;
    again_count++;
    assert_int_equal(worker_submit(other, &jobs[1].job), E_STOPPING);
}

/* If stopping lost jobs, what was told to be written would not be; if a job could come after it, it would never be reported. */
static void stopping_finishes_everything(void **state) {
    (void)state;
    struct worker *w = worker_new(loop, "test", JOBS, NULL, NULL, NULL);
    for (uint32_t i = 0; i < JOBS - 1; i++) { /* one short of the number that stops the loop */
        assert_int_equal(worker_submit(w, &jobs[i].job), E_OK);
    }
    worker_stop(w);
    assert_int_equal(work_count, JOBS - 1);
    assert_int_equal(done_count, JOBS - 1);
    other = worker_new(loop, "test", JOBS, NULL, NULL, NULL);
    work_count = 0;
    jobs[0] = (struct numbered){.job = {.work = work, .done = submit_again}};
    assert_int_equal(worker_submit(other, &jobs[0].job), E_OK);
    worker_stop(other);
    assert_int_equal(again_count, 1);
    worker_stop(NULL);
}

static void stop_other(struct worker_job *job) {
    (void)job;
    worker_stop(other);
    loop_stop(loop);
}

/* If one worker's word could not end another worker, a failed disk at the wrong moment would crash the stop. */
static void one_worker_may_stop_another(void **state) {
    (void)state;
    struct worker *w = worker_new(loop, "test", JOBS, NULL, NULL, NULL);
    other = worker_new(loop, "other", JOBS, NULL, NULL, NULL);
    jobs[0].job.done = stop_other;
    assert_int_equal(worker_submit(w, &jobs[0].job), E_OK);
    while (!jobs[0].worked) {
        (void)usleep(1000);
    }
    assert_int_equal(worker_submit(other, &jobs[1].job), E_OK);
    while (!jobs[1].worked) {
        (void)usleep(1000);
    }
    done_count = 1;
    (void)usleep(20000); /* both notes are posted: the second belongs to what the first one stops */
    loop_run(loop);
    assert_int_equal(done_count, 2);
    worker_stop(w);
}

static bool masked;

static void look_at_mask(struct worker_job *job) {
    sigset_t now;
    (void)job;
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &now), 0);
    masked = sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGCHLD) == 1;
}

static void end_run(struct worker_job *job) {
    (void)job;
    loop_stop(loop);
}

/* If the worker took signals, SIGTERM could be caught where nobody waits for it. */
static void signals_stay_away(void **state) {
    (void)state;
    struct worker *w = worker_new(loop, "test", 1, NULL, NULL, NULL);
    jobs[0].job = (struct worker_job){.work = look_at_mask, .done = end_run};
    assert_int_equal(worker_submit(w, &jobs[0].job), E_OK);
    loop_run(loop);
    assert_true(masked);
    worker_stop(w);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(jobs_keep_their_order),     TEST(waiting_jobs_become_one_batch), TEST(a_batch_may_leave_jobs),
        TEST(a_full_queue_is_an_answer), TEST(stopping_finishes_everything),  TEST(one_worker_may_stop_another),
        TEST(signals_stay_away)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
