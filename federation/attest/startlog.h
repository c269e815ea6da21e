/* startlog.h: what was started as the agent since the machine came up (DECISIONS 30).  Pure.
 *
 * Before each start the launcher hashes program and configuration, extends register 14 with SHA-256 of the event's encoding, and adds the
 * event to this log.  Equal starts in a row are one row with a count, so a service that restarts all day stays small.
 * docs/FORMATS.md, "Log of starts". */
#ifndef FEDERATION_ATTEST_STARTLOG_H
#define FEDERATION_ATTEST_STARTLOG_H

#include "federation/attest/tpmwire.h"

#define STARTLOG_PCR 14u
#define STARTLOG_BYTES_MAX (64u * 1024u)
#define STARTLOG_STARTS_MAX 4096u /* of one boot */
#define STARTLOG_VERSION_BYTES 64u

struct startlog_start {
    struct bytes version; /* what the program says of itself: a word for people, the digest counts.  Borrows */
    uint8_t program[DIGEST_SHA256_BYTES];
    uint8_t config[DIGEST_SHA256_BYTES];
};

struct startlog_reader {
    struct bytes rest;
    uint32_t start_count;
};

/* startlog_measure: what register 14 is extended with for this start. */
void startlog_measure(const struct startlog_start *s, uint8_t out[DIGEST_SHA256_BYTES]);

/* startlog_add: log: the log so far, empty at first; out gets the log with one more start.  E_ATTEST_START_LOG: log is damaged or full. */
enum grey_error startlog_add(struct bytes log, const struct startlog_start *s, struct builder *out);

/* startlog_drop_last: out gets the log without its last start.  E_ATTEST_START_LOG: log is damaged or empty. */
enum grey_error startlog_drop_last(struct bytes log, struct builder *out);

void startlog_open(struct startlog_reader *r, struct bytes log);
/* startlog_next: false at the end, and when the log is damaged or too long (then *err is E_ATTEST_START_LOG).  *count: how often in a row. */
bool startlog_next(struct startlog_reader *r, struct startlog_start *out, uint32_t *count, enum grey_error *err);

/* startlog_replay: value: of register 14 before the first start (zeros, or where the boot left it); becomes what the log leads to. */
enum grey_error startlog_replay(struct bytes log, uint8_t value[DIGEST_SHA256_BYTES]);

#endif
