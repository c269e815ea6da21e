/* loop.h: one thread that waits for descriptors, timers, signals and finished jobs (epoll).
 *
 * A turn: read the clock once; run due timers (equal deadlines in the order of their start); run descriptor callbacks; run the
 * turn hooks; sleep until the nearest timer.  Nothing in a callback waits.  Objects are embedded in their owners and must be
 * removed before they are freed; removing one inside any callback is safe.  Thread: the loop's own, but loop_post and loop_stop
 * may be called from any thread. */
#ifndef PLATFORM_LOOP_H
#define PLATFORM_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "platform/fault.h"

struct loop;

struct loop *loop_new(struct fault *f);
void loop_free(struct loop *l);
void loop_run(struct loop *l); /* returns after loop_stop, at the end of a turn */
void loop_stop(struct loop *l);
uint64_t loop_now_ms(const struct loop *l); /* monotonic, read once per turn */

struct loop_timer {
    void (*fire)(void *context);
    void *context;
    uint64_t deadline_ms, order; /* owned by the loop */
    uint32_t place;              /* owned by the loop; 0: not set */
};
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline_ms); /* sets or moves; fires once */
void loop_timer_after(struct loop *l, struct loop_timer *t, uint64_t delay_ms);
void loop_timer_cancel(struct loop *l, struct loop_timer *t); /* harmless when not set */

struct loop_fd {
    void (*ready)(void *context, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR */
    void *context;
    int fd;          /* owned by the loop while added */
    uint32_t events; /* owned by the loop; 0 and fd -1: not added */
    uint32_t generation;
};
enum grey_error loop_fd_add(struct loop *l, struct loop_fd *w, int fd, uint32_t events, struct fault *f);
void loop_fd_events(struct loop *l, struct loop_fd *w, uint32_t events);
void loop_fd_remove(struct loop *l, struct loop_fd *w); /* does not close; harmless when not added */

/* Called at the end of each turn in which anything ran; what a hook starts is handled in the next turn.  At most 8 hooks. */
void loop_hook(struct loop *l, void (*hook)(void *context), void *context);
void loop_hook_remove(struct loop *l, void (*hook)(void *context), void *context);
/* loop_again: the hooks run once more without a sleep before: at the end of this turn, or, when a hook asks, of the next. */
void loop_again(struct loop *l);

void loop_signal(struct loop *l, int signal_number, void (*caught)(void *context, int signal_number), void *context);

/* loop_post: any thread hands over a node; `run` is called on the loop's thread, in order of posting. */
struct loop_note {
    void (*run)(struct loop_note *note);
    struct loop_note *next; /* owned by the loop until run */
};
void loop_post(struct loop *l, struct loop_note *note);
/* loop_unpost: forgets a note that did not run; harmless otherwise.  The loop's thread only. */
void loop_unpost(struct loop *l, struct loop_note *note);

#endif
