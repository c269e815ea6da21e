/* What a TPM and a firmware write, as somebody else would: quotes, keys, signatures and both logs are read within their bounds, and a log of
 * starts stays readable when one more is added. */
#include <string.h>

#include "federation/attest/bootlog.h"
#include "federation/attest/startlog.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes in = bytes_of(data, size);
    struct tpmwire_quote quote;
    struct tpmwire_key key;
    uint8_t signature[TPMWIRE_SIGNATURE_BYTES], values[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES], value[DIGEST_SHA256_BYTES] = {0};
    uint32_t touched;
    if (tpmwire_quote(in, &quote) == E_OK) {
        must(quote.pcr_digest.size == DIGEST_SHA256_BYTES && quote.pcr_mask <= TPMWIRE_PCR_MASK);
        must(quote.extra.size <= size && quote.signer.size <= size);
    }
    if (tpmwire_key(in, &key) == E_OK) {
        must(key.name[0] == 0 && key.name[1] == 0x0b);
    }
    (void)tpmwire_signature(in, signature);
    (void)bootlog_replay(in, values, &touched);
    if (startlog_replay(in, value) == E_OK) {
        struct startlog_start start = {.version = bytes_str("fuzz")};
        struct builder longer;
        uint8_t digest[DIGEST_SHA256_BYTES], again[DIGEST_SHA256_BYTES] = {0};
        builder_init(&longer, 2 * STARTLOG_BYTES_MAX);
        if (startlog_add(in, &start, &longer) == E_OK && longer.size <= STARTLOG_BYTES_MAX) {
            startlog_measure(&start, digest);
            bootlog_extend(value, digest);
            must(startlog_replay(builder_bytes(&longer), again) == E_OK && memcmp(value, again, sizeof value) == 0);
        }
        builder_free(&longer);
    }
    return 0;
}
