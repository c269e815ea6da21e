/* scarce_rig.h: the n-th allocation fails, whichever library makes it, and what is not given back is counted.  The allocator of the C library is
 * taken over here, so one program, one such rig.  A thread that says so gets its memory all the same: the test itself. */
#ifndef TESTS_SCARCE_RIG_H
#define TESTS_SCARCE_RIG_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void __libc_free(void *p);
/* Of a sanitizer, which must see what is given and taken. */
extern void *__interceptor_malloc(size_t size) __attribute__((weak));
extern void *__interceptor_calloc(size_t count, size_t size) __attribute__((weak));
extern void *__interceptor_realloc(void *p, size_t size) __attribute__((weak));
extern void __interceptor_free(void *p) __attribute__((weak));

static _Atomic long scarce_left, scarce_run; /* left: 0: none fails */
static _Atomic long scarce_live;             /* given and not given back */
static _Atomic bool scarce_hit;
static _Thread_local unsigned scarce_exempt;

static inline bool scarce_refuses(void) {
    if (scarce_exempt > 0 || atomic_load(&scarce_left) == 0) {
        return false;
    }
    if (atomic_load(&scarce_left) > 1) {
        (void)atomic_fetch_sub(&scarce_left, 1);
        return false;
    }
    if (atomic_fetch_sub(&scarce_run, 1) <= 0) {
        return false;
    }
    atomic_store(&scarce_hit, true);
    errno = ENOMEM;
    return true;
}

static inline void *scarce_given(void *p) {
    scarce_live += p != NULL;
    return p;
}

void *scarce_malloc(size_t size) __asm__("malloc");
void *scarce_malloc(size_t size) {
    return scarce_refuses() ? NULL : scarce_given(__interceptor_malloc != NULL ? __interceptor_malloc(size) : __libc_malloc(size));
}

void *scarce_calloc(size_t count, size_t size) __asm__("calloc");
void *scarce_calloc(size_t count, size_t size) {
    return scarce_refuses()
               ? NULL
               : scarce_given(__interceptor_calloc != NULL ? __interceptor_calloc(count, size) : __libc_calloc(count, size));
}

void *scarce_realloc(void *p, size_t size) __asm__("realloc");
void *scarce_realloc(void *p, size_t size) {
    if (size > 0 && scarce_refuses()) {
        return NULL;
    }
    void *q = __interceptor_realloc != NULL ? __interceptor_realloc(p, size) : __libc_realloc(p, size);
    scarce_live += (p == NULL && q != NULL) - (p != NULL && size == 0 && q == NULL);
    return q;
}

void *scarce_array(void *p, size_t count, size_t size) __asm__("reallocarray");
void *scarce_array(void *p, size_t count, size_t size) {
    size_t whole;
    if (__builtin_mul_overflow(count, size, &whole)) {
        errno = ENOMEM;
        return NULL;
    }
    return scarce_realloc(p, whole);
}

void scarce_free(void *p) __asm__("free");
void scarce_free(void *p) {
    scarce_live -= p != NULL;
    if (__interceptor_free != NULL) {
        __interceptor_free(p);
    } else {
        __libc_free(p);
    }
}

/* From now on the n-th allocation fails, and run - 1 behind it. */
static inline void scarce_begin(long n, long run) {
    atomic_store(&scarce_hit, false);
    atomic_store(&scarce_run, run);
    atomic_store(&scarce_left, n);
}

/* No more; was there one that failed? */
static inline bool scarce_end(void) {
    atomic_store(&scarce_left, 0);
    return atomic_load(&scarce_hit);
}

#endif
