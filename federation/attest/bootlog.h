/* bootlog.h: the event log of a measured boot (TCG PC Client Platform Firmware Profile, section 10, "crypto agile"), replayed.  Pure.
 *
 * Firmware and boot loader extend a register with the digest of each thing that they start, and write what they did to this log.  The
 * log is worth nothing by itself; when its digests, extended in order, give the values that the TPM signed, it is the list of what was
 * measured. */
#ifndef FEDERATION_ATTEST_BOOTLOG_H
#define FEDERATION_ATTEST_BOOTLOG_H

#include "federation/attest/tpmwire.h"

#define BOOTLOG_BYTES_MAX (256u * 1024u) /* logs of real boards are of 20 to 90 KiB */
#define BOOTLOG_EVENTS_MAX 4096u

struct bootlog_event {
    uint32_t pcr, type;
    uint8_t digest[DIGEST_SHA256_BYTES];
    struct bytes data; /* what was measured, or a word about it; not vouched for by itself.  Borrows from the log */
};

struct bootlog_reader {
    struct bytes rest;
    uint32_t event_count;
    uint32_t algorithm_count;
    uint16_t algorithms[8], digest_sizes[8];
    uint8_t locality; /* from which the boot was started: the value that register 0 begins with */
};

/* bootlog_open: reads the head.  E_ATTEST_BOOT_LOG: not such a log, too large, or without SHA-256. */
enum grey_error bootlog_open(struct bootlog_reader *r, struct bytes log);

/* bootlog_next: false at the end, and on a damaged or endless log (then *err is E_ATTEST_BOOT_LOG).  Events that extend nothing
 * (EV_NO_ACTION) are passed over. */
bool bootlog_next(struct bootlog_reader *r, struct bootlog_event *out, enum grey_error *err);

/* bootlog_replay: the values that the log leads to, of all registers (those without an event keep what they have after a start: zeros,
 * and 17 to 22 ones).  *touched: mask of the registers with an event. */
enum grey_error bootlog_replay(struct bytes log, uint8_t values[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES], uint32_t *touched);

/* bootlog_extend: value = SHA-256(value ‖ digest), as the TPM does it. */
void bootlog_extend(uint8_t value[DIGEST_SHA256_BYTES], const uint8_t digest[DIGEST_SHA256_BYTES]);

#endif
