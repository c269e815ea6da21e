/* zonefile.h: the rule of a named time zone, out of the tables of this machine (package tzdata).  Reads one small file, and blocks. */
#ifndef PLATFORM_ZONEFILE_H
#define PLATFORM_ZONEFILE_H

#include "platform/bytes.h"
#include "platform/fault.h"

#define ZONEFILE_FOLDER "/usr/share/zoneinfo" /* where the FHS has it */

/* Appends the TZ string at the end of the file of zone `name`, for example "Europe/Berlin" (RFC 8536, 3.3): what holds from its last listed
 * change on.  E_BAD_REQUEST: no name of a zone; E_NOT_FOUND: this machine knows no such zone; E_BAD_MESSAGE: the file is none of version 2 or later. */
enum grey_error zonefile_rule(const char *folder, struct bytes name, struct builder *out, struct fault *f);

#endif
