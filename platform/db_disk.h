/* db_disk.h: the file layer below SQLite (a VFS over the system's own): counts, checks page sums, injects faults for tests.
 *
 * Only db.c includes this.  Pages of a main database end in DB_DISK_TAIL_BYTES: CRC-32 (IEEE, big-endian) of the page before them and
 * of the page number (u32 big-endian), then four zero bytes.  The sum is put in when SQLite writes a page of the file and verified
 * when it reads one; pages inside SQLite's log have the log's own sums. */
#ifndef PLATFORM_DB_DISK_H
#define PLATFORM_DB_DISK_H

#include <stdint.h>

#include "platform/fault.h"

#define DB_DISK_NAME "grey"
#define DB_DISK_TAIL_BYTES 8
#define DB_DISK_PAGE_BYTES_MAX 4096u

uint64_t db_disk_bad_page(void); /* number of the page that was last found damaged on this thread; 0: none yet */
int db_disk_register(void);      /* SQLITE_OK; may be called again */

/* SQLite takes the first frame with a wrong sum for the end of its log.  That is right for the last, unfinished commit after a power
 * cut; anywhere before, it is damage, and what follows had been promised.  E_CORRUPT when frames of the same log go on behind a
 * later commit.  E_OK when there is no log. */
enum grey_error db_disk_wal_check(const char *database_path, struct fault *f);

#endif
