#include "core/answers.h"

#include <string.h>

#include "platform/now.h"

#define WAITING_MAX 4096u
#define FRAME_BYTES 100u /* of an answer, about */

struct answers {
    struct loop *loop;
    struct downpace *downpace;
    answers_say *say;
    void *context;
    struct answer *waiting; /* for the broker */
    struct answer *paced;   /* for their sites' links */
    uint32_t waiting_count, paced_count;
    struct loop_timer timer;
};

static bool same(const struct answer *a, const struct answer *b) {
    return a->channel == b->channel && a->kind == b->kind && strcmp(a->site.text, b->site.text) == 0;
}

void answers_give_now(struct answers *a, const struct answer *one) {
    if (a->waiting_count == 0 && a->say(a->context, one) != E_BUSY) {
        return;
    }
    for (uint32_t i = 0; i < a->waiting_count; i++) {
        if (same(&a->waiting[i], one)) {
            a->waiting[i] = *one;
            return;
        }
    }
    if (a->waiting_count < WAITING_MAX) {
        a->waiting[a->waiting_count++] = *one;
    }
}

void answers_give(struct answers *a, const struct answer *one) {
    for (uint32_t i = 0; i < a->paced_count; i++) {
        if (same(&a->paced[i], one)) {
            a->paced[i] = *one;
            return;
        }
    }
    uint64_t wait_us = downpace_wait_us(a->downpace, one->site.text, FRAME_BYTES, now_monotonic_us());
    if (wait_us == 0 || a->paced_count == WAITING_MAX) {
        answers_give_now(a, one);
        return;
    }
    a->paced[a->paced_count++] = *one;
    uint64_t at_ms = loop_now_ms(a->loop) + wait_us / 1000 + 1;
    if (a->timer.place == 0 || a->timer.deadline_ms > at_ms) {
        loop_timer_set(a->loop, &a->timer, at_ms);
    }
}

static void on_timer(void *context) {
    struct answers *a = context;
    uint32_t kept = 0;
    uint64_t next_us = UINT64_MAX;
    for (uint32_t i = 0; i < a->paced_count; i++) {
        uint64_t wait_us = downpace_wait_us(a->downpace, a->paced[i].site.text, FRAME_BYTES, now_monotonic_us());
        if (wait_us == 0) {
            answers_give_now(a, &a->paced[i]);
        } else {
            next_us = wait_us < next_us ? wait_us : next_us;
            a->paced[kept++] = a->paced[i];
        }
    }
    a->paced_count = kept;
    if (kept > 0) {
        loop_timer_after(a->loop, &a->timer, next_us / 1000 + 1);
    }
}

bool answers_wait(const struct answers *a) {
    return a->waiting_count > 0;
}

bool answers_go_on(struct answers *a) {
    uint32_t sent = 0;
    while (sent < a->waiting_count && a->say(a->context, &a->waiting[sent]) == E_OK) {
        sent++;
    }
    a->waiting_count -= sent;
    memmove(a->waiting, a->waiting + sent, a->waiting_count * sizeof *a->waiting);
    return a->waiting_count == 0;
}

void answers_drop(struct answers *a) {
    a->waiting_count = a->paced_count = 0;
}

struct answers *answers_new(struct loop *loop, struct downpace *pace, answers_say *say, void *context) {
    struct answers *a = mem_new(1, sizeof *a);
    if (a != NULL) {
        *a = (struct answers){.loop = loop, .downpace = pace, .say = say, .context = context};
        a->timer = (struct loop_timer){.fire = on_timer, .context = a};
        a->waiting = mem_new(WAITING_MAX, sizeof *a->waiting);
        a->paced = mem_new(WAITING_MAX, sizeof *a->paced);
    }
    if (a != NULL && (a->waiting == NULL || a->paced == NULL)) {
        answers_free(a);
        return NULL;
    }
    return a;
}

void answers_free(struct answers *a) {
    if (a != NULL) {
        loop_timer_cancel(a->loop, &a->timer);
        mem_free(a->waiting);
        mem_free(a->paced);
        mem_free(a);
    }
}
