/* wholefile.h: small files that are there whole or not at all: certificates, keys, lists.  All calls block.  Thread: any. */
#ifndef PLATFORM_WHOLEFILE_H
#define PLATFORM_WHOLEFILE_H

#include <sys/types.h>

#include "platform/bytes.h"
#include "platform/fault.h"

/* Appends the file and a NUL behind it, so that the builder holds a C string.  E_NOT_FOUND, E_SYSTEM, E_BAD_MESSAGE (a NUL inside), or the builder's error. */
enum grey_error wholefile_read(const char *path, struct builder *out, struct fault *f);
/* Replaces the file: a reader sees the old one or the new one, also after a power cut.  E_SYSTEM, E_DISK_FULL, E_IO. */
enum grey_error wholefile_write(const char *path, struct bytes text, mode_t mode, struct fault *f);
/* The same where there is no such file yet; E_CONDITION: somebody else was first. */
enum grey_error wholefile_make(const char *path, struct bytes text, mode_t mode, struct fault *f);
/* Replaces the file without waiting for the disk: for what may be lost in a power cut and is checked when it is read.  E_SYSTEM. */
enum grey_error wholefile_leave(const char *path, struct bytes text, mode_t mode, struct fault *f);
/* Takes it away, for good also after a power cut; none there: E_OK.  E_SYSTEM, E_IO. */
enum grey_error wholefile_remove(const char *path, struct fault *f);
bool wholefile_exists(const char *path);

#endif
