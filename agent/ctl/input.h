/* input.h: what a person hands to greyctl as a file, or on stdin. */
#ifndef AGENT_CTL_INPUT_H
#define AGENT_CTL_INPUT_H

#include "platform/bytes.h"

/* Appends all of the file `name`, or of stdin where it is "-", to `out`, whose limit bounds it.  what: how to call it when it is too large
 * ("a task"), in the words of the complaint on stderr; NULL: say nothing.  False: it could not be read, or is larger. */
bool input_read(const char *name, const char *what, struct builder *out);

#endif
