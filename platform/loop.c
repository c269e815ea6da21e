#include "platform/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "include/grey/must.h"
#include "platform/bytes.h"
#include "platform/now.h"

#define HOOKS_MAX 8u
#define EVENTS_PER_TURN 64
#define SIGNALS_MAX 8u

/* Descriptors are named towards the kernel by slot and generation, so that an event that was already fetched for a descriptor
 * removed in the same turn is recognised as stale. */
struct slot {
    struct loop_fd *watch;
    uint32_t generation;
};

struct loop {
    int epoll_fd, wake_fd, signal_fd;
    struct loop_fd wake, signals;
    struct slot *slots;
    uint32_t slot_count;
    struct loop_timer **heap; /* [1 .. timer_count]; place 0 means not set */
    uint32_t timer_count, heap_room;
    uint64_t next_order, now_ms;
    struct {
        void (*hook)(void *context);
        void *context;
    } hooks[HOOKS_MAX];
    uint32_t hook_count, hook_at; /* hook_at: the one that runs */
    struct {
        int number;
        void (*caught)(void *context, int number);
        void *context;
    } caught[SIGNALS_MAX];
    uint32_t caught_count;
    sigset_t signal_set;
    pthread_mutex_t lock; /* guards the notes */
    struct loop_note *first_note, *last_note;
    bool woken;
    struct loop_note *taken; /* notes of this turn that did not run yet; the loop's thread only */
    bool again;
    _Atomic bool stopping;
};

/* --- timers: a binary heap by (deadline, order of setting) -------------------------------------------------------------------------- */

static bool before(const struct loop_timer *a, const struct loop_timer *b) {
    return a->deadline_ms != b->deadline_ms ? a->deadline_ms < b->deadline_ms : a->order < b->order;
}

static void heap_place(struct loop *l, uint32_t at, struct loop_timer *t) {
    l->heap[at] = t;
    t->place = at;
}

static void heap_up(struct loop *l, uint32_t at) {
    struct loop_timer *t = l->heap[at];
    while (at > 1 && before(t, l->heap[at / 2])) {
        heap_place(l, at, l->heap[at / 2]);
        at /= 2;
    }
    heap_place(l, at, t);
}

static void heap_down(struct loop *l, uint32_t at) {
    struct loop_timer *t = l->heap[at];
    for (;;) {
        uint32_t child = 2 * at;
        if (child > l->timer_count) {
            break;
        }
        if (child < l->timer_count && before(l->heap[child + 1], l->heap[child])) {
            child++;
        }
        if (!before(l->heap[child], t)) {
            break;
        }
        heap_place(l, at, l->heap[child]);
        at = child;
    }
    heap_place(l, at, t);
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t) {
    if (t->place == 0) {
        return;
    }
    uint32_t at = t->place;
    must(at <= l->timer_count && l->heap[at] == t);
    struct loop_timer *last = l->heap[l->timer_count--];
    t->place = 0;
    if (last != t) {
        heap_place(l, at, last);
        heap_up(l, at);
        heap_down(l, last->place);
    }
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline_ms) {
    must(t->fire != NULL);
    loop_timer_cancel(l, t);
    if (l->timer_count + 1 >= l->heap_room) {
        uint32_t room = l->heap_room * 2;
        struct loop_timer **heap = mem_grow(l->heap, room, sizeof *heap);
        must(heap != NULL); /* a few hundred pointers: without them nothing can go on */
        l->heap = heap;
        l->heap_room = room;
    }
    t->deadline_ms = deadline_ms;
    t->order = l->next_order++;
    l->timer_count++;
    heap_place(l, l->timer_count, t);
    heap_up(l, l->timer_count);
}

void loop_timer_after(struct loop *l, struct loop_timer *t, uint64_t delay_ms) {
    loop_timer_set(l, t, l->now_ms + delay_ms);
}

static void run_timers(struct loop *l) {
    uint64_t order_end = l->next_order; /* timers set by these callbacks wait for the next turn */
    while (l->timer_count > 0 && l->heap[1]->deadline_ms <= l->now_ms && l->heap[1]->order < order_end) {
        struct loop_timer *t = l->heap[1];
        loop_timer_cancel(l, t);
        t->fire(t->context);
    }
}

/* --- descriptors ---------------------------------------------------------------------------------------------------------------------- */

enum grey_error loop_fd_add(struct loop *l, struct loop_fd *w, int fd, uint32_t events, struct fault *f) {
    uint32_t at = 0;
    while (at < l->slot_count && l->slots[at].watch != NULL) {
        at++;
    }
    if (at == l->slot_count) {
        struct slot *slots = mem_grow(l->slots, l->slot_count + 16, sizeof *slots);
        if (slots == NULL) {
            return fault_set(f, E_NO_MEMORY, "watching a descriptor");
        }
        memset(slots + l->slot_count, 0, 16 * sizeof *slots);
        l->slots = slots;
        l->slot_count += 16;
    }
    struct slot *s = &l->slots[at];
    s->generation++;
    struct epoll_event e = {.events = events, .data.u64 = (uint64_t)s->generation << 32 | at};
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0) {
        return fault_errno(f, E_SYSTEM, "watching a descriptor");
    }
    s->watch = w;
    w->fd = fd;
    w->events = events;
    w->generation = at + 1;
    return E_OK;
}

static bool added(const struct loop *l, const struct loop_fd *w) {
    return w->generation > 0 && w->generation <= l->slot_count && l->slots[w->generation - 1].watch == w;
}

void loop_fd_events(struct loop *l, struct loop_fd *w, uint32_t events) {
    must(added(l, w));
    if (w->events != events) {
        uint32_t at = w->generation - 1;
        struct epoll_event e = {.events = events, .data.u64 = (uint64_t)l->slots[at].generation << 32 | at};
        must(epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &e) == 0);
        w->events = events;
    }
}

void loop_fd_remove(struct loop *l, struct loop_fd *w) {
    if (!added(l, w)) {
        return;
    }
    (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    l->slots[w->generation - 1].watch = NULL;
    w->fd = -1;
    w->events = 0;
    w->generation = 0;
}

/* --- notes from other threads ----------------------------------------------------------------------------------------------------------- */

void loop_post(struct loop *l, struct loop_note *note) {
    note->next = NULL;
    (void)pthread_mutex_lock(&l->lock);
    *(l->last_note == NULL ? &l->first_note : &l->last_note->next) = note;
    l->last_note = note;
    bool wake = !l->woken;
    l->woken = true;
    (void)pthread_mutex_unlock(&l->lock);
    if (wake) {
        uint64_t one = 1;
        ssize_t written = write(l->wake_fd, &one, sizeof one);
        must(written == (ssize_t)sizeof one);
    }
}

static void on_wake(void *context, uint32_t events) {
    struct loop *l = context;
    (void)events; /* the counter is not read: each write is an edge of its own, and 2^64 of them are never reached */
    (void)pthread_mutex_lock(&l->lock);
    l->taken = l->first_note;
    l->first_note = l->last_note = NULL;
    l->woken = false;
    (void)pthread_mutex_unlock(&l->lock);
    while (l->taken != NULL) {
        struct loop_note *note = l->taken;
        l->taken = note->next;
        note->run(note);
    }
}

/* False: it is not in the list. */
static bool cut_out(struct loop_note **first, struct loop_note **last, const struct loop_note *note) {
    struct loop_note *previous = NULL;
    for (struct loop_note *at = *first; at != NULL; previous = at, at = at->next) {
        if (at == note) {
            *(previous == NULL ? first : &previous->next) = at->next;
            if (last != NULL && *last == at) {
                *last = previous;
            }
            return true;
        }
    }
    return false;
}

void loop_unpost(struct loop *l, struct loop_note *note) {
    if (cut_out(&l->taken, NULL, note)) { /* an earlier note of this very turn ends this one's owner */
        return;
    }
    (void)pthread_mutex_lock(&l->lock);
    (void)cut_out(&l->first_note, &l->last_note, note);
    (void)pthread_mutex_unlock(&l->lock);
}

/* --- signals ---------------------------------------------------------------------------------------------------------------------------- */

static void on_signal(void *context, uint32_t events) {
    struct loop *l = context;
    struct signalfd_siginfo info;
    (void)events;
    while (read(l->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        for (uint32_t i = 0; i < l->caught_count; i++) {
            if (l->caught[i].number == (int)info.ssi_signo) {
                l->caught[i].caught(l->caught[i].context, l->caught[i].number);
            }
        }
    }
}

void loop_signal(struct loop *l, int signal_number, void (*caught)(void *context, int signal_number), void *context) {
    must(l->caught_count < SIGNALS_MAX);
    l->caught[l->caught_count].number = signal_number;
    l->caught[l->caught_count].caught = caught;
    l->caught[l->caught_count++].context = context;
    (void)sigaddset(&l->signal_set, signal_number);
    must(pthread_sigmask(SIG_BLOCK, &l->signal_set, NULL) == 0);
    int fd = signalfd(l->signal_fd, &l->signal_set, SFD_CLOEXEC | SFD_NONBLOCK);
    must(fd >= 0);
    if (l->signal_fd < 0) {
        l->signal_fd = fd;
        l->signals = (struct loop_fd){.ready = on_signal, .context = l};
        must(loop_fd_add(l, &l->signals, fd, EPOLLIN, NULL) == E_OK);
    }
    atomic_store(&l->stopping, false); /* it may be run again */
}

/* --- life ------------------------------------------------------------------------------------------------------------------------------- */

struct loop *loop_new(struct fault *f) {
    struct loop *l = mem_new(1, sizeof *l);
    if (l == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "event loop");
        return NULL;
    }
    l->signal_fd = -1;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->heap_room = 32;
    l->heap = mem_new(l->heap_room, sizeof *l->heap);
    (void)sigemptyset(&l->signal_set);
    (void)pthread_mutex_init(&l->lock, NULL);
    l->now_ms = now_monotonic_ms();
    l->wake = (struct loop_fd){.ready = on_wake, .context = l};
    if (l->epoll_fd < 0 || l->wake_fd < 0 || l->heap == NULL ||
        loop_fd_add(l, &l->wake, l->wake_fd, EPOLLIN | EPOLLET, f) != E_OK) {
        (void)fault_errno(f, E_SYSTEM, "event loop");
        loop_free(l);
        return NULL;
    }
    return l;
}

void loop_free(struct loop *l) {
    if (l == NULL) {
        return;
    }
    const int fds[] = {l->signal_fd, l->wake_fd, l->epoll_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    (void)pthread_mutex_destroy(&l->lock);
    mem_free(l->heap);
    mem_free(l->slots);
    mem_free(l);
}

static int sleep_ms(const struct loop *l) {
    if (l->again || atomic_load(&l->stopping)) {
        return 0;
    }
    if (l->timer_count == 0) {
        return -1;
    }
    uint64_t now_ms = now_monotonic_ms();
    uint64_t deadline_ms = l->heap[1]->deadline_ms;
    uint64_t wait_ms = deadline_ms <= now_ms ? 0 : deadline_ms - now_ms;
    return wait_ms > 60000 ? 60000 : (int)wait_ms;
}

void loop_run(struct loop *l) {
    struct epoll_event events[EVENTS_PER_TURN];
    while (!atomic_load(&l->stopping)) {
        int count = epoll_wait(l->epoll_fd, events, EVENTS_PER_TURN, sleep_ms(l));
        must(count >= 0 || errno == EINTR);
        l->now_ms = now_monotonic_ms();
        run_timers(l);
        for (int i = 0; i < count; i++) {
            uint32_t at = (uint32_t)events[i].data.u64;
            struct loop_fd *w = at < l->slot_count ? l->slots[at].watch : NULL;
            if (w != NULL && l->slots[at].generation == (uint32_t)(events[i].data.u64 >> 32)) {
                w->ready(w->context, events[i].events);
            }
        }
        l->again = false; /* what was asked for up to here is for the hooks of this very turn */
        for (l->hook_at = 0; l->hook_at < l->hook_count; l->hook_at++) {
            l->hooks[l->hook_at].hook(l->hooks[l->hook_at].context);
        }
    }
    atomic_store(&l->stopping, false); /* may run again */
}

void loop_stop(struct loop *l) {
    atomic_store(&l->stopping, true);
    uint64_t one = 1;
    ssize_t written = write(l->wake_fd, &one, sizeof one);
    (void)written; /* a full counter wakes as well */
}

uint64_t loop_now_ms(const struct loop *l) {
    return l->now_ms;
}

void loop_hook(struct loop *l, void (*hook)(void *context), void *context) {
    must(l->hook_count < HOOKS_MAX);
    l->hooks[l->hook_count].hook = hook;
    l->hooks[l->hook_count++].context = context;
}

void loop_hook_remove(struct loop *l, void (*hook)(void *context), void *context) {
    for (uint32_t i = 0; i < l->hook_count; i++) {
        if (l->hooks[i].hook == hook && l->hooks[i].context == context) {
            memmove(&l->hooks[i], &l->hooks[i + 1], (l->hook_count - i - 1) * sizeof l->hooks[0]);
            l->hook_count--;
            if (i <= l->hook_at) { /* removed while the hooks run: what moved up is not left out (wraps below 0 and back) */
                l->hook_at--;
            }
            return;
        }
    }
}

void loop_again(struct loop *l) {
    l->again = true;
}
