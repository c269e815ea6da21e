/* errand.h: an order for a service of this machine, which takes bytes at a unix socket, gives bytes and hangs up; without waiting for it.
 *
 * What is sent: the order's name, a line feed, its input, then the end.  What comes back: a byte, 0 for well and 1 for not, then the output, or
 * what went wrong in words.  Thread: the loop's. */
#ifndef PLATFORM_ERRAND_H
#define PLATFORM_ERRAND_H

#include "platform/bytes.h"
#include "platform/loop.h"

#define ERRAND_INPUT_BYTES_MAX 4096u /* with the name; a socket's buffer holds as much for sure */
#define ERRAND_WORDS_BYTES 1024u     /* of its words, the first that are kept */
#define ERRAND_WELL 0u
#define ERRAND_FAILED 1u

struct errand { /* embedded in its owner; zeros at first */
    struct loop *loop;
    struct loop_fd link;
    struct loop_timer limit;
    bool busy;
    struct builder answer;
    /* err: E_OK: output is what came; E_TIMEOUT, E_TOO_LARGE, E_SYSTEM: words is what it said.  Lent during the call; a new errand may be
     * started in it. */
    void (*done)(void *context, enum grey_error err, struct bytes output, const char *words);
    void *context;
};

/* errand_start: path: of the socket.  E_BUSY while one runs; E_TOO_LARGE; E_SYSTEM: nobody listens there, or he does not let us in. */
enum grey_error errand_start(struct errand *e, struct loop *l, const char *path, const char *name, struct bytes input,
                             size_t output_max, uint32_t limit_ms,
                             void (*done)(void *context, enum grey_error err, struct bytes output, const char *words),
                             void *context, struct fault *f);
void errand_stop(struct errand *e); /* ends it without calling done; harmless when none runs */

#endif
