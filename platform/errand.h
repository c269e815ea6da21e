/* errand.h: a program that is given bytes, gives bytes and ends; without waiting for it.  Thread: the loop's. */
#ifndef PLATFORM_ERRAND_H
#define PLATFORM_ERRAND_H

#include "platform/bytes.h"
#include "platform/loop.h"

#define ERRAND_INPUT_BYTES_MAX 4096u /* a pipe holds as much for sure */
#define ERRAND_WORDS_BYTES 1024u     /* of what it says on standard error, the first that are kept */

struct errand { /* embedded in its owner; zeros at first */
    struct loop *loop;
    struct loop_fd out, words, end;
    struct loop_timer limit;
    int pid;
    bool busy, output_over, ended, late;
    int status; /* as waitpid has it */
    struct builder output;
    char text[ERRAND_WORDS_BYTES];
    size_t text_size;
    /* err: E_OK: it ended with 0 and output is what it wrote; E_TIMEOUT, E_TOO_LARGE, E_SYSTEM: words is what it said on standard error.
     * Lent during the call; a new errand may be started in it. */
    void (*done)(void *context, enum grey_error err, struct bytes output, const char *words);
    void *context;
};

/* errand_start: arguments: the program's path first, NULL last.  input: up to ERRAND_INPUT_BYTES_MAX.  E_BUSY while one runs; E_SYSTEM. */
enum grey_error errand_start(struct errand *e, struct loop *l, char *const arguments[], struct bytes input, size_t output_max,
                             uint32_t limit_ms,
                             void (*done)(void *context, enum grey_error err, struct bytes output, const char *words),
                             void *context, struct fault *f);
void errand_stop(struct errand *e); /* ends it without calling done; harmless when none runs */

#endif
