/* What a TPM keeps for its machine: secrets that only it opens, and a key that it signs with.  Both lie below a storage key that is the same
 * whenever it is made, so that none has to be kept. */
#include <string.h>
#include <tss2/tss2_mu.h>

#include "platform/tpm_core.h"

#define SEALED_BYTES_MAX 128u

/* --- sealing ------------------------------------------------------------------------------------------------------------------------------ */

/* A storage key that is the same whenever it is made, so that none has to be kept (TCG provisioning guidance, SRK template H-2 in small). */
static TSS2_RC make_storage_key(struct tpm *t, ESYS_TR *key) {
    static const TPM2B_PUBLIC template = {
        .publicArea = {
            .type = TPM2_ALG_ECC,
            .nameAlg = TPM2_ALG_SHA256,
            .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                                TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT,
            .parameters.eccDetail = {.symmetric = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB},
                                     .scheme.scheme = TPM2_ALG_NULL,
                                     .curveID = TPM2_ECC_NIST_P256,
                                     .kdf.scheme = TPM2_ALG_NULL}}};
    const TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
    const TPM2B_DATA outside = {.size = 0};
    const TPML_PCR_SELECTION no_pcrs = {.count = 0};
    *key = ESYS_TR_NONE;
    TSS2_RC rc = Esys_CreatePrimary(t->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &template,
                                    &outside, &no_pcrs, key, NULL, NULL, NULL, NULL);
    if (rc != TSS2_RC_SUCCESS) {
        *key = ESYS_TR_NONE;
    }
    return rc;
}

/* A session salted to the storage key, so that secrets do not go over the chip's bus in clear. */
static TSS2_RC start_hidden_session(struct tpm *t, ESYS_TR storage, TPM2_SE type, TPMA_SESSION hides, ESYS_TR *session) {
    const TPMT_SYM_DEF aes = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB};
    TSS2_RC rc = Esys_StartAuthSession(t->esys, storage, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, type, &aes,
                                       TPM2_ALG_SHA256, session);
    if (rc != TSS2_RC_SUCCESS) {
        *session = ESYS_TR_NONE;
        return rc;
    }
    const TPMA_SESSION wanted = hides | TPMA_SESSION_CONTINUESESSION;
    return Esys_TRSess_SetAttributes(t->esys, *session, wanted, wanted);
}

/* What the registers say now, as a policy. */
static TSS2_RC read_policy(struct tpm *t, uint32_t mask, TPM2B_DIGEST *policy) {
    ESYS_TR trial = ESYS_TR_NONE;
    const TPML_PCR_SELECTION select = tpm_select_pcrs(mask);
    TPM2B_DIGEST *digest = NULL;
    TSS2_RC rc = tpm_start_session(t, TPM2_SE_TRIAL, &trial);
    rc = rc != TSS2_RC_SUCCESS ? rc : Esys_PolicyPCR(t->esys, trial, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, &select);
    rc = rc != TSS2_RC_SUCCESS ? rc : Esys_PolicyGetDigest(t->esys, trial, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &digest);
    if (rc == TSS2_RC_SUCCESS) {
        *policy = *digest;
    }
    Esys_Free(digest);
    tpm_drop(t, &trial);
    return rc;
}

/* The blob: mask u32, TPM2B_PUBLIC, TPM2B_PRIVATE. */
static TSS2_RC put_blob(uint32_t mask, const TPM2B_PUBLIC *public_part, const TPM2B_PRIVATE *private_part, struct builder *blob) {
    uint8_t room[sizeof *public_part + sizeof *private_part];
    size_t size = 0;
    bytes_put_be32(room, mask);
    size = 4;
    TSS2_RC rc = Tss2_MU_TPM2B_PUBLIC_Marshal(public_part, room, sizeof room, &size);
    rc = rc != TSS2_RC_SUCCESS ? rc : Tss2_MU_TPM2B_PRIVATE_Marshal(private_part, room, sizeof room, &size);
    builder_add(blob, bytes_of(room, size));
    return rc;
}

enum grey_error tpm_seal(struct tpm *t, uint32_t mask, struct bytes secret, struct builder *blob, struct fault *f) {
    ESYS_TR storage = ESYS_TR_NONE, session = ESYS_TR_NONE;
    TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
    TPM2B_PUBLIC template = {.publicArea = {.type = TPM2_ALG_KEYEDHASH,
                                            .nameAlg = TPM2_ALG_SHA256,
                                            .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_NODA,
                                            .parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL}};
    const TPM2B_DATA outside = {.size = 0};
    const TPML_PCR_SELECTION no_pcrs = {.count = 0};
    TPM2B_PRIVATE *private_part = NULL;
    TPM2B_PUBLIC *public_part = NULL;
    if (secret.size == 0 || secret.size > SEALED_BYTES_MAX) {
        return fault_set(f, E_TOO_LARGE, "sealing takes 1 to %u bytes", SEALED_BYTES_MAX);
    }
    sensitive.sensitive.data.size = (UINT16)secret.size;
    memcpy(sensitive.sensitive.data.buffer, secret.data, secret.size);
    TSS2_RC rc = read_policy(t, mask, &template.publicArea.authPolicy);
    rc = rc != TSS2_RC_SUCCESS ? rc : make_storage_key(t, &storage);
    rc = rc != TSS2_RC_SUCCESS ? rc : start_hidden_session(t, storage, TPM2_SE_HMAC, TPMA_SESSION_DECRYPT, &session);
    rc = rc != TSS2_RC_SUCCESS ? rc
                               : Esys_Create(t->esys, storage, session, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &template, &outside,
                                             &no_pcrs, &private_part, &public_part, NULL, NULL, NULL);
    rc = rc != TSS2_RC_SUCCESS ? rc : put_blob(mask, public_part, private_part, blob);
    explicit_bzero(&sensitive, sizeof sensitive);
    tpm_drop(t, &session);
    tpm_drop(t, &storage);
    Esys_Free(private_part);
    Esys_Free(public_part);
    return rc != TSS2_RC_SUCCESS ? tpm_refuse(f, "sealing", rc)
           : blob->err == E_OK   ? E_OK
                                 : fault_set(f, blob->err, "sealing: no room");
}

enum grey_error tpm_unseal(struct tpm *t, struct bytes blob, struct builder *secret, struct fault *f) {
    ESYS_TR storage = ESYS_TR_NONE, session = ESYS_TR_NONE, object = ESYS_TR_NONE;
    TPM2B_PUBLIC public_part = {.size = 0};
    TPM2B_PRIVATE private_part = {.size = 0};
    TPM2B_SENSITIVE_DATA *inside = NULL;
    size_t at = 4;
    if (blob.size < at || blob.data[0] != 0 ||
        Tss2_MU_TPM2B_PUBLIC_Unmarshal(blob.data, blob.size, &at, &public_part) != TSS2_RC_SUCCESS ||
        Tss2_MU_TPM2B_PRIVATE_Unmarshal(blob.data, blob.size, &at, &private_part) != TSS2_RC_SUCCESS || at != blob.size) {
        return fault_set(f, E_CORRUPT, "what is sealed cannot be read");
    }
    const TPML_PCR_SELECTION select = tpm_select_pcrs(bytes_get_be32(blob.data));
    enum grey_error err = E_OK;
    TSS2_RC rc = make_storage_key(t, &storage);
    rc = rc != TSS2_RC_SUCCESS ? rc : start_hidden_session(t, storage, TPM2_SE_POLICY, TPMA_SESSION_ENCRYPT, &session);
    rc = rc != TSS2_RC_SUCCESS ? rc : Esys_PolicyPCR(t->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, &select);
    if (rc != TSS2_RC_SUCCESS) {
        err = tpm_refuse(f, "unsealing", rc);
        goto end;
    }
    rc = Esys_Load(t->esys, storage, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &private_part, &public_part, &object);
    if (rc != TSS2_RC_SUCCESS) {
        object = ESYS_TR_NONE;
        err = (rc & TSS2_RC_LAYER_MASK) == TSS2_TPM_RC_LAYER
                  ? fault_set(f, E_CORRUPT, "it was sealed by another TPM, or is damaged")
                  : tpm_refuse(f, "unsealing", rc);
        goto end;
    }
    rc = Esys_Unseal(t->esys, object, session, ESYS_TR_NONE, ESYS_TR_NONE, &inside);
    if (rc != TSS2_RC_SUCCESS) {
        err = (rc & TSS2_RC_LAYER_MASK) == TSS2_TPM_RC_LAYER
                  ? fault_set(f, E_SEAL, "the registers are others than when it was sealed")
                  : tpm_refuse(f, "unsealing", rc);
        goto end;
    }
    builder_add(secret, bytes_of(inside->buffer, inside->size));
    explicit_bzero(inside->buffer, inside->size);
    err = secret->err == E_OK ? E_OK : fault_set(f, secret->err, "unsealing: no room");
end:
    tpm_drop(t, &object);
    tpm_drop(t, &session);
    tpm_drop(t, &storage);
    Esys_Free(inside);
    return err;
}

/* --- a key that signs ---------------------------------------------------------------------------------------------------------------------- */

/* Any hash of 32 bytes, with ECDSA and SHA-256, and nothing else: not restricted, for TLS signs what a TPM has not hashed. */
static const TPM2B_PUBLIC signing_template = {
    .publicArea = {.type = TPM2_ALG_ECC,
                   .nameAlg = TPM2_ALG_SHA256,
                   .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                                       TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT,
                   .parameters.eccDetail = {.symmetric.algorithm = TPM2_ALG_NULL,
                                            .scheme = {.scheme = TPM2_ALG_ECDSA, .details.ecdsa.hashAlg = TPM2_ALG_SHA256},
                                            .curveID = TPM2_ECC_NIST_P256,
                                            .kdf.scheme = TPM2_ALG_NULL}}};

static TSS2_RC make_signing_key(struct tpm *t, uint32_t handle, ESYS_TR *kept) {
    ESYS_TR storage = ESYS_TR_NONE, key = ESYS_TR_NONE;
    TPM2B_PRIVATE *private_part = NULL;
    TPM2B_PUBLIC *public_part = NULL;
    const TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
    const TPM2B_DATA outside = {.size = 0};
    const TPML_PCR_SELECTION no_pcrs = {.count = 0};
    TSS2_RC rc = make_storage_key(t, &storage);
    rc = rc != TSS2_RC_SUCCESS ? rc
                               : Esys_Create(t->esys, storage, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                                             &signing_template, &outside, &no_pcrs, &private_part, &public_part, NULL, NULL, NULL);
    rc = rc != TSS2_RC_SUCCESS
             ? rc
             : Esys_Load(t->esys, storage, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, private_part, public_part, &key);
    if (rc == TSS2_RC_SUCCESS) {
        rc = Esys_EvictControl(t->esys, ESYS_TR_RH_OWNER, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, handle, kept);
    } else {
        key = ESYS_TR_NONE;
    }
    tpm_drop(t, &key);
    tpm_drop(t, &storage);
    Esys_Free(private_part);
    Esys_Free(public_part);
    return rc;
}

/* Numbers of P-256 come without the zeros before them. */
static bool put_number(uint8_t out[32], const TPM2B_ECC_PARAMETER *from) {
    if (from->size > 32) {
        return false;
    }
    memset(out, 0, 32);
    memcpy(out + 32 - from->size, from->buffer, from->size);
    return true;
}

enum grey_error tpm_signing_key(struct tpm *t, uint32_t handle, bool make, uint8_t point[TPM_POINT_BYTES], struct fault *f) {
    ESYS_TR key = ESYS_TR_NONE;
    TPM2B_PUBLIC *area = NULL;
    TSS2_RC rc = Esys_TR_FromTPMPublic(t->esys, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &key);
    if (rc != TSS2_RC_SUCCESS) {
        if (!make) {
            return fault_set(f, E_NOT_FOUND, "the TPM has no key at 0x%08x", (unsigned)handle);
        }
        rc = make_signing_key(t, handle, &key);
        if (rc != TSS2_RC_SUCCESS) {
            return tpm_refuse(f, "new key for TLS", rc);
        }
    }
    rc = Esys_ReadPublic(t->esys, key, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &area, NULL, NULL);
    (void)Esys_TR_Close(t->esys, &key);
    bool good =
        rc == TSS2_RC_SUCCESS && area->publicArea.type == TPM2_ALG_ECC &&
        area->publicArea.parameters.eccDetail.curveID == TPM2_ECC_NIST_P256 &&
        (area->publicArea.objectAttributes & (TPMA_OBJECT_SIGN_ENCRYPT | TPMA_OBJECT_RESTRICTED)) == TPMA_OBJECT_SIGN_ENCRYPT &&
        put_number(point, &area->publicArea.unique.ecc.x) && put_number(point + 32, &area->publicArea.unique.ecc.y);
    Esys_Free(area);
    return good                    ? E_OK
           : rc != TSS2_RC_SUCCESS ? tpm_refuse(f, "key for TLS", rc)
                                   : fault_set(f, E_KEY, "what the TPM has at 0x%08x is no P-256 key that signs", (unsigned)handle);
}

enum grey_error tpm_sign(struct tpm *t, uint32_t handle, const uint8_t hash[DIGEST_SHA256_BYTES],
                         uint8_t signature[TPM_POINT_BYTES], struct fault *f) {
    ESYS_TR key = ESYS_TR_NONE;
    TPM2B_DIGEST digest = {.size = DIGEST_SHA256_BYTES};
    const TPMT_SIG_SCHEME own = {.scheme = TPM2_ALG_NULL};
    const TPMT_TK_HASHCHECK not_hashed_inside = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
    TPMT_SIGNATURE *made = NULL;
    memcpy(digest.buffer, hash, DIGEST_SHA256_BYTES);
    TSS2_RC rc = Esys_TR_FromTPMPublic(t->esys, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &key);
    if (rc != TSS2_RC_SUCCESS) {
        return fault_set(f, E_NOT_FOUND, "the TPM has no key at 0x%08x", (unsigned)handle);
    }
    rc = Esys_Sign(t->esys, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &digest, &own, &not_hashed_inside, &made);
    (void)Esys_TR_Close(t->esys, &key);
    bool good = rc == TSS2_RC_SUCCESS && made->sigAlg == TPM2_ALG_ECDSA &&
                put_number(signature, &made->signature.ecdsa.signatureR) &&
                put_number(signature + 32, &made->signature.ecdsa.signatureS);
    Esys_Free(made);
    return good ? E_OK
           : rc != TSS2_RC_SUCCESS
               ? tpm_refuse(f, "signing", rc)
               : fault_set(f, E_KEY, "what the TPM has at 0x%08x signs otherwise than with ECDSA", (unsigned)handle);
}
