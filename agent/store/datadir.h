/* datadir.h: the directories of a gateway's data: made, locked against a second process, with a reserve for a full disk. */
#ifndef AGENT_DATADIR_H
#define AGENT_DATADIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/fault.h"

enum grey_error datadir_make(const char *path, struct fault *f); /* with parents, 0700; harmless when there */
/* datadir_lock: takes path/lock for the life of *fd; E_LOCKED names the process that has it. */
enum grey_error datadir_lock(const char *path, int *fd, struct fault *f);
enum grey_error datadir_sync(const char *path, struct fault *f); /* makes creations, renames and deletions in it durable */
bool datadir_same_device(const char *a, const char *b);

/* A small file with a sentence in it, durable before datadir_note_write returns.  datadir_note_read: is it there?  text may be NULL. */
enum grey_error datadir_note_write(const char *dir, const char *name, const char *text, struct fault *f);
bool datadir_note_read(const char *dir, const char *name, char *text, size_t text_size);

/* The reserve: a file of real blocks.  datadir_reserve_make leaves at least as much free beside it, else E_DISK_FULL. */
enum grey_error datadir_reserve_make(const char *path, uint32_t bytes, struct fault *f);
bool datadir_reserve_drop(const char *path); /* false: there was none */

#endif
