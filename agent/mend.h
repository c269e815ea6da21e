/* mend.h: a gateway whose log cannot be trusted any more comes back the way a wiped one does (DECISIONS 9).
 *
 * What is damaged is renamed, never deleted at once: log.db, state.db and snapshots/ get the ending .damaged-<unix time>; two such sets
 * are kept, fewer when the disk has no room for another log.  Then the directory is as good as empty: the node draws a new raft id,
 * joins as a learner and takes its former self's place.  It never votes or acknowledges on the ground of a log that may be shorter than
 * what it promised.  intake.db stays: what was taken provisionally is in no log.
 *
 * Two small files in storage.wal_dir carry this over a crash: `log.damaged` (do it at the next start; holds the reason) and `rejoin` (it
 * is done: never bootstrap, dial these addresses; holds them, separated by commas).  Blocking; start of the program and storage thread. */
#ifndef AGENT_MEND_H
#define AGENT_MEND_H

#include <stdbool.h>

#include "platform/fault.h"

#define MEND_KEPT 2u
#define MEND_PEERS_BYTES 1024u /* with the final 0 */
#define MEND_REASON_BYTES 256u /* with the final 0 */

enum grey_error mend_mark(const char *wal_dir, const char *reason, struct fault *f); /* durable before it returns */
bool mend_marked(const char *wal_dir, char reason[MEND_REASON_BYTES]);               /* reason may be NULL */

/* Both databases are closed.  Marks, remembers `peers`, renames, unmarks; begun again after a crash it goes on.  E_IO, E_DISK_FULL. */
enum grey_error mend_set_aside(const char *data_dir, const char *wal_dir, const char *peers, const char *reason, struct fault *f);

bool mend_rejoins(const char *wal_dir, char peers[MEND_PEERS_BYTES]); /* set aside, and not a member again yet */
void mend_done(const char *wal_dir);                                  /* it is a member again */

#endif
