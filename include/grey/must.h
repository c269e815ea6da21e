/* must.h: assertions that stay in every build.
 *
 * must(x) guards an invariant: something that is true unless this program has a bug.  What comes from outside (wire, disk,
 * configuration, TPM) is never asserted, it is checked and answered with an error value. */
#ifndef GREY_MUST_H
#define GREY_MUST_H

/* Prints the place and the text to stderr and aborts.  Defined in platform/fault.c. */
_Noreturn void must_failed(const char *file, int line, const char *text);

#define must(x) ((x) ? (void)0 : must_failed(__FILE__, __LINE__, #x))

#endif
