/* setaside.h: a gateway whose log cannot be trusted any more comes back the way a wiped one does (DECISIONS 9).
 *
 * What is damaged is renamed, never deleted at once: log.db, state.db and snapshots/ get the ending .damaged-<unix time>; two such sets
 * are kept, fewer when the disk has no room for another log.  Then the directory is as good as empty: the node draws a new raft id,
 * joins as a learner and takes its former self's place.  It never votes or acknowledges on the ground of a log that may be shorter than
 * what it promised.  intake.db stays: what was taken provisionally is in no log.
 *
 * Two small files in storage.wal_dir carry this over a crash: `log.damaged` (do it at the next start; holds the reason) and `rejoin` (it
 * is done: never bootstrap, dial these addresses; holds them, separated by commas).  Blocking; start of the program and storage thread. */
#ifndef AGENT_SETASIDE_H
#define AGENT_SETASIDE_H

#include <stdbool.h>

#include "platform/fault.h"

#define SETASIDE_KEPT 2u
#define SETASIDE_PEERS_BYTES 1024u /* with the final 0 */
#define SETASIDE_REASON_BYTES 256u /* with the final 0 */

enum grey_error setaside_mark(const char *wal_dir, const char *reason, struct fault *f); /* durable before it returns */
bool setaside_marked(const char *wal_dir, char reason[SETASIDE_REASON_BYTES]);           /* reason may be NULL */

/* Both databases are closed.  Marks, remembers `peers`, renames, unmarks; begun again after a crash it goes on.  E_IO, E_DISK_FULL. */
enum grey_error setaside_move(const char *data_dir, const char *wal_dir, const char *peers, const char *reason, struct fault *f);

/* The log alone: what is damaged is renamed, and wal_dir/mended, which is complete and has no log of its own, becomes log.db.  Begun again after a
 * crash, while wal_dir/mended is there, it goes on.  E_IO. */
enum grey_error setaside_replace_log(const char *data_dir, const char *wal_dir, const char *mended, struct fault *f);

bool setaside_rejoins(const char *wal_dir, char peers[SETASIDE_PEERS_BYTES]); /* set aside, and not a member again yet */
void setaside_done(const char *wal_dir);                                      /* it is a member again */

#endif
