#include "platform/fault.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

static const struct {
    const char *name, *sentence, *remedy;
    int id, http_status;
} table[GREY_ERROR_COUNT] = {[E_OK] = {"E_OK", "all is well", "nothing to do", 0, 200},
#define X(name, id, status, sentence, remedy) [name] = {#name, sentence, remedy, id, status},
                             GREY_ERRORS(X)
#undef X
};

static bool known(enum grey_error code) {
    return (unsigned)code < GREY_ERROR_COUNT;
}

const char *error_name(enum grey_error code) {
    return known(code) ? table[code].name : "E_?";
}

const char *error_sentence(enum grey_error code) {
    return known(code) ? table[code].sentence : "unknown error";
}

const char *error_remedy(enum grey_error code) {
    return known(code) ? table[code].remedy : "";
}

int error_id(enum grey_error code) {
    return known(code) ? table[code].id : 0;
}

int error_http_status(enum grey_error code) {
    return known(code) && table[code].http_status != 0 ? table[code].http_status : 500;
}

enum grey_error error_by_id(int id) {
    for (int i = 1; i < GREY_ERROR_COUNT; i++) {
        if (table[i].id == id) {
            return (enum grey_error)i;
        }
    }
    return E_OK;
}

enum grey_error fault_set(struct fault *f, enum grey_error code, const char *format, ...) {
    if (f != NULL) {
        va_list args;
        va_start(args, format);
        f->code = code;
        (void)vsnprintf(f->text, sizeof f->text, format, args);
        va_end(args);
    }
    return code;
}

enum grey_error fault_errno(struct fault *f, enum grey_error code, const char *format, ...) {
    int number = errno;
    if (number == ENOSPC || number == EDQUOT) {
        code = E_DISK_FULL;
    } else if (number == ENOMEM) {
        code = E_NO_MEMORY;
    }
    if (f != NULL) {
        va_list args;
        va_start(args, format);
        f->code = code;
        int used = vsnprintf(f->text, sizeof f->text, format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof f->text) {
            char reason[96];
            (void)snprintf(f->text + used, sizeof f->text - (size_t)used, ": %s",
                           strerror_r(number, reason, sizeof reason)); /* the GNU form, which returns the text */
        }
    }
    errno = number;
    return code;
}

_Noreturn void must_failed(const char *file, int line, const char *text) {
    (void)fprintf(stderr, "greyd: broken invariant at %s:%d: %s\n", file, line, text);
    abort();
}
