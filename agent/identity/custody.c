#include "agent/identity/custody.h"

#include "platform/vault.h"

static enum grey_error take_handle(struct bytes in, size_t more, uint32_t *handle, struct fault *f) {
    *handle = in.size == 4 + more ? bytes_get_be32(in.data) : 0;
    return *handle >= VAULT_HANDLE_FIRST && *handle <= VAULT_HANDLE_LAST
               ? E_OK
               : fault_set(f, E_BAD_MESSAGE, "keys of gateways lie from 0x%08x to 0x%08x", VAULT_HANDLE_FIRST, VAULT_HANDLE_LAST);
}

static enum grey_error give(struct builder *out, const uint8_t pair[TPM_POINT_BYTES], enum grey_error err) {
    if (err == E_OK) {
        builder_add(out, bytes_of(pair, TPM_POINT_BYTES));
    }
    return err;
}

static enum grey_error key(struct tpm *t, struct bytes in, bool make, struct builder *out, struct fault *f) {
    uint32_t handle;
    uint8_t point[TPM_POINT_BYTES];
    enum grey_error err = take_handle(in, 0, &handle, f);
    err = err != E_OK ? err : tpm_signing_key(t, handle, make, point, f);
    return give(out, point, err);
}

enum grey_error custody_public(struct tpm *t, struct bytes in, struct builder *out, struct fault *f) {
    return key(t, in, false, out, f);
}

enum grey_error custody_make(struct tpm *t, struct bytes in, struct builder *out, struct fault *f) {
    return key(t, in, true, out, f);
}

enum grey_error custody_sign(struct tpm *t, struct bytes in, struct builder *out, struct fault *f) {
    uint32_t handle;
    uint8_t signature[TPM_POINT_BYTES];
    enum grey_error err = take_handle(in, DIGEST_SHA256_BYTES, &handle, f);
    err = err != E_OK ? err : tpm_sign(t, handle, in.data + 4, signature, f);
    return give(out, signature, err);
}

enum grey_error custody_seal(struct tpm *t, struct bytes in, struct builder *out, struct fault *f) {
    return tpm_seal(t, 0, in, out, f);
}

enum grey_error custody_unseal(struct tpm *t, struct bytes in, struct builder *out, struct fault *f) {
    enum grey_error err = tpm_unseal(t, in, out, f);
    if (err == E_CORRUPT) {
        f->code = err = E_VAULT_OTHER;
    }
    return err;
}
