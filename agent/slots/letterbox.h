/* letterbox.h: the folder over which greyd, which has no rights, and grey-update, which has, understand each other:
 *     bundle     to be installed; comes by rename, so it is whole
 *     confirm    one line, the id of the version that is well, in hexadecimal digits
 * All calls block. */
#ifndef AGENT_LETTERBOX_H
#define AGENT_LETTERBOX_H

#include "federation/update.h"
#include "platform/fault.h"

#define LETTERBOX_BUNDLE "bundle"
#define LETTERBOX_CONFIRM "confirm"
#define LETTERBOX_COMING "coming" /* a bundle that is being written */

void letterbox_path(const char *inbox, const char *name, char *path); /* path: LIMIT_PATH_BYTES + 1 */
bool letterbox_has_bundle(const char *inbox);
enum grey_error letterbox_confirm(const char *inbox, const uint8_t id[UPDATE_ID_BYTES], struct fault *f);
/* Leaves it there, for it must not be lost before what it says was done.  False: there is none, or it is none. */
bool letterbox_confirmation(const char *inbox, uint8_t id[UPDATE_ID_BYTES]);
/* Takes the confirmation away: it was followed, or is of a version that was on trial before.  None there: E_OK. */
enum grey_error letterbox_forget(const char *inbox, struct fault *f);

#endif
