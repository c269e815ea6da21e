/* inbox.h: the folder over which greyd, which has no rights, and grey-update, which has, understand each other:
 *     bundle     to be installed; comes by rename, so it is whole
 *     confirm    one line, the id of the version that is well, in hexadecimal digits
 * All calls block. */
#ifndef AGENT_INBOX_H
#define AGENT_INBOX_H

#include "federation/update.h"
#include "platform/fault.h"

#define INBOX_BUNDLE "bundle"
#define INBOX_CONFIRM "confirm"
#define INBOX_COMING "coming" /* a bundle that is being written */

void inbox_path(const char *inbox, const char *name, char *path); /* path: LIMIT_PATH_BYTES + 1 */
bool inbox_has_bundle(const char *inbox);
enum grey_error inbox_confirm(const char *inbox, const uint8_t id[UPDATE_ID_BYTES], struct fault *f);
/* Takes it away.  False: there is none, or it is none. */
bool inbox_take_confirmation(const char *inbox, uint8_t id[UPDATE_ID_BYTES]);

#endif
