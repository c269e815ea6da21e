/* fault.h: an error value with its cause, carried up and reported once; and the sentences of include/grey/error.h. */
#ifndef PLATFORM_FAULT_H
#define PLATFORM_FAULT_H

#include "include/grey/error.h"

/* Where an error came from, in words: file, line, offending text, errno.  The caller gives it and may give NULL. */
struct fault {
    enum grey_error code;
    char text[240];
};

/* fault_set: f->code = code, f->text = the formatted detail (cut to fit).  Returns code, so `return fault_set(f, E_X, ...)` works
 * with f NULL as well. */
enum grey_error fault_set(struct fault *f, enum grey_error code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* fault_errno: as fault_set with ": strerror(errno)" added; ENOSPC and EDQUOT give E_DISK_FULL, ENOMEM E_NO_MEMORY. */
enum grey_error fault_errno(struct fault *f, enum grey_error code, const char *format, ...) __attribute__((format(printf, 3, 4)));

const char *error_name(enum grey_error code);     /* "E_NO_QUORUM" */
const char *error_sentence(enum grey_error code); /* "too few nodes of this site answer" */
const char *error_remedy(enum grey_error code);
int error_id(enum grey_error code);          /* 1001 of GREY-1001; 0 for E_OK */
int error_http_status(enum grey_error code); /* 200 for E_OK; 500 where the list says 0 */
enum grey_error error_by_id(int id);         /* E_OK when there is none */

#endif
