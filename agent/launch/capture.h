/* capture.h: what a run writes, in files of bounded size, the oldest of which leave: NAME.0, NAME.1, ... each CAPTURE_FILE_BYTES long but
 * the last, so that a place in the stream says which file has it, after a restart too. */
#ifndef AGENT_LAUNCH_CAPTURE_H
#define AGENT_LAUNCH_CAPTURE_H

#include "platform/bytes.h"
#include "platform/fault.h"

#define CAPTURE_FILE_BYTES (512u * 1024u)
#define CAPTURE_FILES 2u /* of each stream of each run */

struct capture {
    char name[8];
    int folder; /* borrowed */
    int fd;     /* of the newest file; -1: none */
    uint64_t written;
    bool failed; /* the disk is full or broken: what comes is dropped, the run goes on */
};

void capture_init(struct capture *c, int folder, const char *name);
void capture_write(struct capture *c, struct bytes data);
void capture_close(struct capture *c);
/* Up to out->limit_bytes from offset on, or from the oldest kept byte.  *from: where that begins; *end: how much was written. */
enum grey_error capture_read(int folder, const char *name, uint64_t offset, size_t size, struct builder *out, uint64_t *from,
                             uint64_t *end);

#endif
