/* Little-endian.  The first event has the old form and names the algorithms; the others hold one digest for each of them:
 *
 *   first:  pcr u32 = 0, type u32 = 3, 20 bytes 0, size u32, "Spec ID Event03\0", class u32, minor, major, errata, uintn size u8,
 *           count u32, count * (algorithm u16, digest size u16), vendor size u8, vendor
 *   others: pcr u32, type u32, count u32, count * (algorithm u16, digest), size u32, data */
#include "federation/attest/bootlog.h"

#include <string.h>

#define EV_NO_ACTION 3u
#define ALG_SHA256 0x000bu
#define ALGORITHMS_MAX 8u
#define SIGNATURE "Spec ID Event03" /* with its NUL */
#define LOCALITY "StartupLocality"  /* with its NUL */

static struct bytes take(struct bytes *rest, size_t size, bool *bad) {
    if (*bad || size > rest->size) {
        *bad = true;
        return bytes_of(NULL, 0);
    }
    struct bytes out = bytes_of(rest->data, size);
    *rest = bytes_of(rest->data + size, rest->size - size);
    return out;
}

static uint32_t number(struct bytes *rest, size_t size, bool *bad) {
    struct bytes b = take(rest, size, bad);
    uint32_t out = 0;
    for (size_t i = b.size; i-- > 0;) {
        out = out << 8 | b.data[i];
    }
    return out;
}

static bool is_known_size(uint32_t algorithm, uint32_t size) {
    switch (algorithm) {
    case 0x0004: /* SHA-1 */
        return size == 20;
    case ALG_SHA256:
    case 0x0012: /* SM3 */
    case 0x0027: /* SHA3-256 */
        return size == 32;
    case 0x000c: /* SHA-384 */
    case 0x0028:
        return size == 48;
    case 0x000d: /* SHA-512 */
    case 0x0029:
        return size == 64;
    default:
        return size > 0 && size <= 64;
    }
}

enum grey_error bootlog_open(struct bootlog_reader *r, struct bytes log) {
    bool bad = log.size > BOOTLOG_BYTES_MAX, has_sha256 = false;
    memset(r, 0, sizeof *r);
    r->rest = log;
    uint32_t pcr = number(&r->rest, 4, &bad), type = number(&r->rest, 4, &bad);
    (void)take(&r->rest, 20, &bad);
    struct bytes head = take(&r->rest, number(&r->rest, 4, &bad), &bad);
    struct bytes signature = take(&head, sizeof SIGNATURE, &bad);
    (void)take(&head, 8, &bad);
    uint32_t count = number(&head, 4, &bad);
    if (bad || pcr != 0 || type != EV_NO_ACTION || !bytes_equal(signature, bytes_of(SIGNATURE, sizeof SIGNATURE)) || count == 0 ||
        count > ALGORITHMS_MAX) {
        return E_ATTEST_BOOT_LOG;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t algorithm = number(&head, 2, &bad), size = number(&head, 2, &bad);
        bad = bad || !is_known_size(algorithm, size);
        for (uint32_t before = 0; before < i; before++) {
            bad = bad || r->algorithms[before] == algorithm;
        }
        r->algorithms[i] = (uint16_t)algorithm, r->digest_sizes[i] = (uint16_t)size;
        has_sha256 = has_sha256 || algorithm == ALG_SHA256;
    }
    (void)take(&head, number(&head, 1, &bad), &bad);
    r->algorithm_count = count;
    return bad || head.size > 0 || !has_sha256 ? E_ATTEST_BOOT_LOG : E_OK;
}

/* The digests of one event, one of each algorithm in any order; the SHA-256 one to out. */
static void read_digests(struct bootlog_reader *r, struct bootlog_event *out, bool *bad) {
    uint32_t count = number(&r->rest, 4, bad), seen = 0;
    *bad = *bad || count != r->algorithm_count;
    for (uint32_t i = 0; i < count && !*bad; i++) {
        uint32_t algorithm = number(&r->rest, 2, bad), which = 0;
        while (which < r->algorithm_count && r->algorithms[which] != algorithm) {
            which++;
        }
        if (*bad || which == r->algorithm_count || (seen >> which & 1u) != 0) {
            *bad = true;
            return;
        }
        seen |= 1u << which;
        struct bytes digest = take(&r->rest, r->digest_sizes[which], bad);
        if (algorithm == ALG_SHA256 && !*bad) {
            memcpy(out->digest, digest.data, DIGEST_SHA256_BYTES);
        }
    }
}

bool bootlog_next(struct bootlog_reader *r, struct bootlog_event *out, enum grey_error *err) {
    *err = E_OK;
    while (r->rest.size > 0) {
        bool bad = ++r->event_count > BOOTLOG_EVENTS_MAX;
        memset(out, 0, sizeof *out);
        out->pcr = number(&r->rest, 4, &bad);
        out->type = number(&r->rest, 4, &bad);
        read_digests(r, out, &bad);
        out->data = take(&r->rest, number(&r->rest, 4, &bad), &bad);
        if (bad || (out->type != EV_NO_ACTION && out->pcr >= TPMWIRE_PCR_COUNT)) {
            *err = E_ATTEST_BOOT_LOG;
            return false;
        }
        if (out->type != EV_NO_ACTION) {
            return true;
        }
        if (out->data.size == sizeof LOCALITY + 1 && memcmp(out->data.data, LOCALITY, sizeof LOCALITY) == 0) {
            r->locality = out->data.data[sizeof LOCALITY];
        }
    }
    return false;
}

void bootlog_extend(uint8_t value[DIGEST_SHA256_BYTES], const uint8_t digest[DIGEST_SHA256_BYTES]) {
    uint8_t out[DIGEST_SHA256_BYTES];
    digest_sha256_two(bytes_of(value, DIGEST_SHA256_BYTES), bytes_of(digest, DIGEST_SHA256_BYTES), out);
    memcpy(value, out, sizeof out);
}

enum grey_error bootlog_replay(struct bytes log, uint8_t values[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES], uint32_t *touched) {
    struct bootlog_reader r;
    struct bootlog_event event;
    enum grey_error err = bootlog_open(&r, log);
    *touched = 0;
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        memset(values[pcr], pcr >= 17 && pcr <= 22 ? 0xff : 0, DIGEST_SHA256_BYTES);
    }
    while (err == E_OK && bootlog_next(&r, &event, &err)) {
        if (event.pcr == 0 && (*touched & 1u) == 0) {
            values[0][DIGEST_SHA256_BYTES - 1] = r.locality; /* the event about it stands before the first measurement */
        }
        *touched |= 1u << event.pcr;
        bootlog_extend(values[event.pcr], event.digest);
    }
    return err;
}
