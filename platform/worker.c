#include "platform/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/bytes.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES (2048u * 1024u)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STACK_BYTES (2048u * 1024u)
#endif
#endif
#ifndef STACK_BYTES
#define STACK_BYTES (256u * 1024u) /* SQLite and a handshake need less than half */
#endif

struct worker {
    struct loop *loop;
    struct worker_job *(*batch)(void *context, struct worker_job *list);
    void *context;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    struct worker_job *first, *last;           /* waiting */
    struct worker_job *done_first, *done_last; /* worked, `done` not called yet */
    bool stopping, note_posted;
    bool sleeps;       /* the thread waits for jobs and nobody has woken it yet */
    bool reporting;    /* on the loop's thread only, as the next */
    uint64_t since_ms; /* jobs were reported then, or the first that waits was given */
    uint32_t queue_max;
    _Atomic uint32_t queued; /* waiting, running or not reported yet */
    struct loop_note note;
};

static void append(struct worker_job **first, struct worker_job **last, struct worker_job *job) {
    *(*last == NULL ? first : &(*last)->next) = job;
    *last = job;
}

static void report(struct worker *w) {
    (void)pthread_mutex_lock(&w->lock);
    struct worker_job *job = w->done_first;
    w->done_first = w->done_last = NULL;
    w->note_posted = false;
    (void)pthread_mutex_unlock(&w->lock);
    w->reporting = true;
    w->since_ms = loop_now_ms(w->loop);
    while (job != NULL) {
        struct worker_job *next = job->next;
        atomic_fetch_sub(&w->queued, 1);
        job->done(job);
        job = next;
    }
    w->reporting = false;
}

static void on_note(struct loop_note *note) {
    report((struct worker *)(void *)((char *)note - offsetof(struct worker, note)));
}

static void finished(struct worker *w, struct worker_job *list) {
    (void)pthread_mutex_lock(&w->lock);
    while (list != NULL) {
        struct worker_job *next = list->next;
        list->next = NULL;
        append(&w->done_first, &w->done_last, list);
        list = next;
    }
    bool post = !w->note_posted;
    w->note_posted = true;
    (void)pthread_mutex_unlock(&w->lock);
    if (post) {
        loop_post(w->loop, &w->note);
    }
}

/* Jobs that a batch left: back to the head of the queue. */
static void put_back(struct worker *w, struct worker_job *rest) {
    struct worker_job *last = rest;
    while (last->next != NULL) {
        last = last->next;
    }
    (void)pthread_mutex_lock(&w->lock);
    last->next = w->first;
    w->last = w->first == NULL ? last : w->last;
    w->first = rest;
    (void)pthread_mutex_unlock(&w->lock);
}

static void *run(void *context) {
    struct worker *w = context;
    for (;;) {
        (void)pthread_mutex_lock(&w->lock);
        while (w->first == NULL && !w->stopping) {
            w->sleeps = true;
            (void)pthread_cond_wait(&w->wake, &w->lock);
        }
        w->sleeps = false;
        struct worker_job *list = w->first;
        if (list == NULL) {
            (void)pthread_mutex_unlock(&w->lock);
            return NULL;
        }
        if (w->batch != NULL) {
            w->first = w->last = NULL;
        } else {
            w->first = list->next;
            w->last = w->first == NULL ? NULL : w->last;
            list->next = NULL;
        }
        (void)pthread_mutex_unlock(&w->lock);
        if (w->batch != NULL) {
            struct worker_job *rest = w->batch(w->context, list);
            if (rest != NULL) {
                struct worker_job *last = list;
                must(rest != list);
                while (last->next != rest) {
                    last = last->next;
                }
                last->next = NULL;
                put_back(w, rest);
            }
        } else {
            list->work(list);
        }
        finished(w, list);
    }
}

struct worker *worker_new(struct loop *l, const char *name, uint32_t queue_max,
                          struct worker_job *(*batch)(void *context, struct worker_job *list), void *context, struct fault *f) {
    struct worker *w = mem_new(1, sizeof *w);
    if (w == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "thread %s", name);
        return NULL;
    }
    *w = (struct worker){.loop = l, .batch = batch, .context = context, .queue_max = queue_max, .note = {.run = on_note}};
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->wake, NULL);
    pthread_attr_t attributes;
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigset_t all, old; /* signals are the loop's */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int number = pthread_create(&w->thread, &attributes, run, w);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attributes);
    if (number != 0) {
        (void)fault_set(f, E_SYSTEM, "thread %s: %s", name, strerror(number));
        mem_free(w);
        return NULL;
    }
    (void)pthread_setname_np(w->thread, name);
    return w;
}

enum grey_error worker_queue(struct worker *w, struct worker_job *job) {
    if (atomic_load(&w->queued) >= w->queue_max) {
        return E_BUSY;
    }
    if (w->stopping) { /* written on this very thread only */
        return E_STOPPING;
    }
    must(job->done != NULL);
    job->next = NULL;
    if (atomic_fetch_add(&w->queued, 1) == 0) {
        w->since_ms = loop_now_ms(w->loop);
    }
    (void)pthread_mutex_lock(&w->lock);
    append(&w->first, &w->last, job);
    (void)pthread_mutex_unlock(&w->lock);
    return E_OK;
}

void worker_wake(struct worker *w) {
    (void)pthread_mutex_lock(&w->lock);
    bool sleeps = w->sleeps && w->first != NULL;
    w->sleeps = w->sleeps && !sleeps;
    (void)pthread_mutex_unlock(&w->lock);
    if (sleeps) { /* after the unlock: a thread woken before it would only run into the lock */
        (void)pthread_cond_signal(&w->wake);
    }
}

enum grey_error worker_submit(struct worker *w, struct worker_job *job) {
    enum grey_error err = worker_queue(w, job);
    if (err == E_OK) {
        worker_wake(w);
    }
    return err;
}

uint32_t worker_queued(const struct worker *w) {
    return atomic_load(&w->queued);
}

uint64_t worker_waits_ms(const struct worker *w) {
    return atomic_load(&w->queued) == 0 ? 0 : loop_now_ms(w->loop) - w->since_ms;
}

void worker_stop(struct worker *w) {
    if (w == NULL) {
        return;
    }
    must(!w->reporting); /* the jobs behind this one would be lost */
    (void)pthread_mutex_lock(&w->lock);
    w->stopping = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->thread, NULL);
    while (atomic_load(&w->queued) > 0) {
        report(w);
    }
    loop_unpost(w->loop, &w->note);
    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_mutex_destroy(&w->lock);
    mem_free(w);
}
