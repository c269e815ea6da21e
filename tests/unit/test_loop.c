/* The event loop: every promise of time and order above rests on it. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/bytes.h"
#include "platform/loop.h"

#define TIMERS 200u
#define POSTERS 4u
#define NOTES 500u

static struct loop *loop;

static int setup(void **state) {
    (void)state;
    struct fault f = {0};
    loop = loop_new(&f);
    return loop == NULL;
}

static int teardown(void **state) {
    (void)state;
    loop_free(loop);
    return 0;
}

static void stop(void *context) {
    loop_stop(context);
}

/* --- timers ----------------------------------------------------------------------------------------------------------------------------- */

struct ticker {
    struct loop_timer timer;
    uint64_t deadline_ms, order;
    bool set;
};
static struct ticker tickers[TIMERS];
static uint64_t orders;
static uint32_t fired;

static void on_tick(void *context) {
    struct ticker *t = context;
    assert_true(t->set);
    assert_true(loop_now_ms(loop) >= t->deadline_ms);
    for (uint32_t i = 0; i < TIMERS; i++) { /* nobody was due before it */
        const struct ticker *other = &tickers[i];
        if (other->set && other != t) {
            assert_true(other->deadline_ms > t->deadline_ms || (other->deadline_ms == t->deadline_ms && other->order > t->order));
        }
    }
    t->set = false;
    fired++;
}

/* If timers fired early, late behind others, or after their cancelling, elections and leases would go wrong at random. */
static void timers_fire_by_deadline_then_order(void **state) {
    (void)state;
    srand(1);
    uint64_t now_ms = loop_now_ms(loop);
    memset(tickers, 0, sizeof tickers);
    fired = 0;
    for (uint32_t i = 0; i < 5000; i++) {
        struct ticker *t = &tickers[(uint32_t)rand() % TIMERS];
        t->timer.fire = on_tick;
        t->timer.context = t;
        if (rand() % 3 == 0) {
            loop_timer_cancel(loop, &t->timer);
            t->set = false;
        } else {
            t->deadline_ms = now_ms + (uint64_t)(rand() % 12);
            t->order = orders++;
            t->set = true;
            loop_timer_set(loop, &t->timer, t->deadline_ms);
        }
    }
    uint32_t expected = 0;
    for (uint32_t i = 0; i < TIMERS; i++) {
        assert_int_equal(tickers[i].timer.place != 0, tickers[i].set);
        expected += tickers[i].set;
    }
    struct loop_timer end = {.fire = stop, .context = loop};
    loop_timer_set(loop, &end, now_ms + 13);
    loop_run(loop);
    assert_int_equal(fired, expected);
}

static struct loop_timer first, second, third;
static int runs;

static void cancel_second(void *context) {
    (void)context;
    loop_timer_cancel(loop, &second);
}

static void count_run(void *context) {
    (void)context;
    runs++;
}

/* If a timer that another timer's callback cancels still fired, it would run on an owner that is already freed. */
static void a_timer_cancelled_in_its_turn_stays_silent(void **state) {
    (void)state;
    runs = 0;
    first = (struct loop_timer){.fire = cancel_second};
    second = (struct loop_timer){.fire = count_run};
    third = (struct loop_timer){.fire = stop, .context = loop};
    loop_timer_after(loop, &first, 0);
    loop_timer_after(loop, &second, 0);
    loop_timer_after(loop, &third, 0);
    loop_run(loop);
    assert_int_equal(runs, 0);
    assert_int_equal(second.place, 0);
}

static void again_at_once(void *context) {
    (void)context;
    if (++runs < 1000) {
        loop_timer_after(loop, &first, 0);
    }
}

/* If a timer that sets itself anew ran again within the turn, sockets would starve. */
static void a_timer_set_in_its_callback_waits_for_the_next_turn(void **state) {
    (void)state;
    runs = 0;
    first = (struct loop_timer){.fire = again_at_once};
    second = (struct loop_timer){.fire = stop, .context = loop};
    loop_timer_after(loop, &first, 0);
    loop_timer_after(loop, &second, 0);
    loop_run(loop);
    assert_int_equal(runs, 1);
    loop_timer_cancel(loop, &first);
}

/* --- descriptors ---------------------------------------------------------------------------------------------------------------------- */

struct reader {
    struct loop_fd watch;
    int pipe[2];
    int calls;
};
static struct reader readers[3];

static void on_other(void *context, uint32_t events) {
    struct reader *r = context;
    (void)events;
    r->calls++;
}

/* Whichever of the two is told first removes the other, and puts a third in its slot. */
static void on_one(void *context, uint32_t events) {
    struct reader *r = context, *other = &readers[r == &readers[0]];
    char c;
    assert_true((events & EPOLLIN) != 0);
    r->calls++;
    assert_int_equal(read(r->pipe[0], &c, 1), 1);
    loop_fd_remove(loop, &other->watch);
    assert_int_equal(loop_fd_add(loop, &readers[2].watch, readers[2].pipe[0], EPOLLIN, NULL), E_OK);
    loop_stop(loop);
}

/* If an event that was fetched for a removed descriptor went to its successor, one client's bytes would be taken for another's. */
static void a_removed_descriptor_gets_no_event(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pipe(readers[i].pipe), 0);
        readers[i].calls = 0;
        readers[i].watch = (struct loop_fd){.ready = i < 2 ? on_one : on_other, .context = &readers[i], .fd = -1};
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(loop_fd_add(loop, &readers[i].watch, readers[i].pipe[0], EPOLLIN, NULL), E_OK);
        assert_int_equal(write(readers[i].pipe[1], "x", 1), 1);
    }
    loop_run(loop);
    assert_int_equal(readers[0].calls + readers[1].calls, 1);
    assert_int_equal(readers[2].calls, 0);
    for (int i = 0; i < 3; i++) {
        loop_fd_remove(loop, &readers[i].watch);
        loop_fd_remove(loop, &readers[i].watch); /* twice is harmless */
        (void)close(readers[i].pipe[0]), (void)close(readers[i].pipe[1]);
    }
}

/* If a bad descriptor were taken in silence, its owner would wait for ever. */
static void a_bad_descriptor_is_refused(void **state) {
    (void)state;
    struct loop_fd w = {.ready = on_other, .fd = -1};
    struct fault f = {0};
    assert_int_equal(loop_fd_add(loop, &w, 999999, EPOLLIN, &f), E_SYSTEM);
    assert_true(strlen(f.text) > 0);
    loop_fd_remove(loop, &w);
}

/* --- notes ------------------------------------------------------------------------------------------------------------------------------ */

struct numbered {
    struct loop_note note;
    uint32_t poster, number;
};
static struct numbered numbered[POSTERS][NOTES];
static uint32_t next_number[POSTERS], notes_run;

static void run_note(struct loop_note *note) {
    struct numbered *n = (struct numbered *)(void *)note;
    assert_int_equal(n->number, next_number[n->poster]);
    next_number[n->poster]++;
    if (++notes_run == POSTERS * NOTES) {
        loop_stop(loop);
    }
}

static void *post_all(void *context) {
    uint32_t poster = *(const uint32_t *)context;
    for (uint32_t i = 0; i < NOTES; i++) {
        numbered[poster][i] = (struct numbered){.note = {.run = run_note}, .poster = poster, .number = i};
        loop_post(loop, &numbered[poster][i].note);
    }
    return NULL;
}

/* If a note of another thread were lost or overtaken, a finished write would never be answered, or in the wrong order. */
static void notes_of_threads_arrive_all_and_in_order(void **state) {
    (void)state;
    pthread_t threads[POSTERS];
    uint32_t names[POSTERS];
    memset(next_number, 0, sizeof next_number);
    notes_run = 0;
    for (uint32_t i = 0; i < POSTERS; i++) {
        names[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, post_all, &names[i]), 0);
    }
    loop_run(loop);
    for (uint32_t i = 0; i < POSTERS; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(next_number[i], NOTES);
    }
}

static struct loop_note *posted[3];
static int ran[3];

static void run_and_forget_next(struct loop_note *note) {
    for (int i = 0; i < 3; i++) {
        if (posted[i] == note) {
            ran[i]++;
            if (i == 0) { /* its owner goes away in the same turn */
                loop_unpost(loop, posted[1]);
                mem_free(posted[1]);
                posted[1] = NULL;
            }
        }
    }
    mem_free(note);
}

/* If stopping one worker did not take back the note that it has posted in the same turn, its freed memory would be run. */
static void a_note_of_this_turn_can_be_forgotten(void **state) {
    (void)state;
    memset(ran, 0, sizeof ran);
    for (int i = 0; i < 3; i++) {
        posted[i] = mem_new(1, sizeof *posted[i]);
        posted[i]->run = run_and_forget_next;
        loop_post(loop, posted[i]);
    }
    struct loop_note *late = mem_new(1, sizeof *late);
    late->run = run_and_forget_next;
    loop_post(loop, late);
    loop_unpost(loop, late); /* not taken yet, and the last of the queue */
    mem_free(late);
    struct loop_timer end = {.fire = stop, .context = loop};
    loop_timer_after(loop, &end, 5);
    loop_run(loop);
    assert_true(ran[0] == 1 && ran[1] == 0 && ran[2] == 1);
}

/* --- hooks, signals, stopping ----------------------------------------------------------------------------------------------------------- */

static int hook_runs[3];

static void hook(void *context) {
    int *count = context;
    (*count)++;
    if (count == &hook_runs[0]) {
        loop_hook_remove(loop, hook, &hook_runs[0]);
    }
    if (count == &hook_runs[2]) {
        if (*count == 1) {
            loop_again(loop); /* without it the loop would sleep for ever: nothing else is due */
        } else {
            loop_stop(loop);
        }
    }
}

/* If a hook that leaves made the next one miss its turn, or loop_again did not wake, a proposal would lie until the next timer. */
static void hooks_run_each_turn_even_when_one_leaves(void **state) {
    (void)state;
    memset(hook_runs, 0, sizeof hook_runs);
    for (int i = 0; i < 3; i++) {
        loop_hook(loop, hook, &hook_runs[i]);
    }
    loop_again(loop);
    loop_run(loop);
    assert_true(hook_runs[0] == 1 && hook_runs[1] == 2 && hook_runs[2] == 2);
    loop_hook_remove(loop, hook, &hook_runs[1]);
    loop_hook_remove(loop, hook, &hook_runs[2]);
    loop_hook_remove(loop, hook, &hook_runs[2]);
}

static int caught[2];

static void on_caught(void *context, int number) {
    assert_ptr_equal(context, caught);
    caught[number == SIGUSR2]++;
    if (caught[0] > 0 && caught[1] > 0) {
        loop_stop(loop);
    }
}

/* If signals were lost, `systemctl stop` would end in a kill, and the next start in a replay. */
static void signals_are_caught(void **state) {
    (void)state;
    memset(caught, 0, sizeof caught);
    loop_signal(loop, SIGUSR1, on_caught, caught);
    loop_signal(loop, SIGUSR2, on_caught, caught);
    assert_int_equal(kill(getpid(), SIGUSR1), 0);
    assert_int_equal(kill(getpid(), SIGUSR2), 0);
    loop_run(loop);
    assert_true(caught[0] == 1 && caught[1] == 1);
}

static void *stop_from_thread(void *context) {
    (void)usleep(20000);
    loop_stop(context);
    return NULL;
}

/* If a stop from another thread did not wake a sleeping loop, the program could not be ended. */
static void a_sleeping_loop_can_be_stopped(void **state) {
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_from_thread, loop), 0);
    loop_run(loop);
    (void)pthread_join(thread, NULL);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(timers_fire_by_deadline_then_order),
                                       TEST(a_timer_cancelled_in_its_turn_stays_silent),
                                       TEST(a_timer_set_in_its_callback_waits_for_the_next_turn),
                                       TEST(a_removed_descriptor_gets_no_event),
                                       TEST(a_bad_descriptor_is_refused),
                                       TEST(notes_of_threads_arrive_all_and_in_order),
                                       TEST(a_note_of_this_turn_can_be_forgotten),
                                       TEST(hooks_run_each_turn_even_when_one_leaves),
                                       TEST(signals_are_caught),
                                       TEST(a_sleeping_loop_can_be_stopped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
