/* Attestation results: a stranger's bytes never pass, and signed claims of any content are read strictly: what is accepted has one encoding. */
#include <string.h>

#include "federation/attest/cose.h"
#include "federation/attest/document.h"
#include "federation/attest/verdict.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t public_key[1][KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
    static bool made;
    struct bytes in = bytes_of(data, size);
    struct builder signed_one, again;
    struct verdict v;
    if (!made) {
        keys_new_ed25519(public_key[0], secret_key);
        made = true;
    }
    const struct attest_identity who = {.site = bytes_str("s"), .node = bytes_str("n")};
    must(verdict_open(in, public_key, 1, 0, &v, NULL) != E_OK);
    must(document_judge(in, &who, public_key, 1, 0, NULL) != E_OK);
    builder_init(&signed_one, size + 4096);
    builder_init(&again, size + 4096);
    must(cose_sign(&signed_one, "grey/attestation-result", in, public_key[0], secret_key) == E_OK);
    enum grey_error err = verdict_open(builder_bytes(&signed_one), public_key, 1, 1000000, &v, NULL);
    if (err == E_OK || err == E_ATTEST_EXPIRED) {
        must(verdict_sign(&again, &v, public_key[0], secret_key) == E_OK);
        must(bytes_equal(builder_bytes(&again), builder_bytes(&signed_one)));
    }
    must(document_judge(builder_bytes(&signed_one), &who, public_key, 1, 0, NULL) != E_OK);
    builder_free(&again);
    builder_free(&signed_one);
    return 0;
}
