/* Traps of the TPM and of ESYS that shape this file:
 * - Without a resource manager there is room for three transient objects: each call flushes what it loaded, on every way out.
 * - Use of the endorsement key needs PolicySecret(endorsement), in a fresh session for each command.
 * - PCR_Read returns at most eight values: it is called until all are there. */
#include "platform/tpm_core.h"

#include <stdlib.h>
#include <string.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_tctildr.h>

#define EK_HANDLE 0x81010001u /* RSA-2048 (TCG EK profile, 2.2.2) */
#define EK_NV_INDEX 0x01c00002u
#define NV_CHUNK_BYTES 512u /* every TPM reads as much at once */

enum grey_error tpm_refuse(struct fault *f, const char *what, TSS2_RC rc) {
    return fault_set(f, E_TPM, "%s: response code 0x%08x ('tpm2_rc_decode' explains it)", what, (unsigned)rc);
}

struct tpm *tpm_open(const char *way, struct fault *f) {
    (void)setenv("TSS2_LOG", "all+NONE", 0); /* it would write lines of its own for what we answer with an error value */
    struct tpm *t = mem_new(1, sizeof *t);
    if (t == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "TPM %s", way);
        return NULL;
    }
    TSS2_RC rc = Tss2_TctiLdr_Initialize(way, &t->tcti);
    rc = rc != TSS2_RC_SUCCESS ? rc : Esys_Initialize(&t->esys, t->tcti, NULL);
    if (rc != TSS2_RC_SUCCESS) {
        (void)fault_set(f, E_TPM, "%s: it cannot be reached (response code 0x%08x)", way, (unsigned)rc);
        tpm_close(t);
        return NULL;
    }
    return t;
}

void tpm_close(struct tpm *t) {
    if (t != NULL) {
        Esys_Finalize(&t->esys);
        Tss2_TctiLdr_Finalize(&t->tcti);
        mem_free(t);
    }
}

void tpm_drop(struct tpm *t, ESYS_TR *what) {
    if (*what != ESYS_TR_NONE) {
        (void)Esys_FlushContext(t->esys, *what);
        *what = ESYS_TR_NONE;
    }
}

/* --- the endorsement key ------------------------------------------------------------------------------------------------------------------ */

/* Template L-1 of the TCG EK profile; its policy is PolicySecret(endorsement). */
static const TPM2B_PUBLIC endorsement_template = {
    .publicArea = {.type = TPM2_ALG_RSA,
                   .nameAlg = TPM2_ALG_SHA256,
                   .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                                       TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT,
                   .authPolicy = {.size = 32, .buffer = {0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc,
                                                         0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52,
                                                         0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa}},
                   .parameters.rsaDetail = {.symmetric = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB},
                                            .scheme.scheme = TPM2_ALG_NULL,
                                            .keyBits = 2048,
                                            .exponent = 0},
                   .unique.rsa = {.size = 256}}};

struct endorsement {
    ESYS_TR key;
    bool transient; /* made for this call, since none is kept */
};

static TSS2_RC find_endorsement(struct tpm *t, struct endorsement *e) {
    *e = (struct endorsement){.key = ESYS_TR_NONE};
    TSS2_RC rc = Esys_TR_FromTPMPublic(t->esys, EK_HANDLE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &e->key);
    if (rc == TSS2_RC_SUCCESS) {
        return rc;
    }
    const TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
    const TPM2B_DATA outside = {.size = 0};
    const TPML_PCR_SELECTION no_pcrs = {.count = 0};
    TPM2B_PUBLIC *made = NULL;
    rc = Esys_CreatePrimary(t->esys, ESYS_TR_RH_ENDORSEMENT, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                            &endorsement_template, &outside, &no_pcrs, &e->key, &made, NULL, NULL, NULL);
    Esys_Free(made);
    e->transient = rc == TSS2_RC_SUCCESS;
    if (rc != TSS2_RC_SUCCESS) {
        e->key = ESYS_TR_NONE;
    }
    return rc;
}

static void leave_endorsement(struct tpm *t, struct endorsement *e) {
    if (e->transient) {
        tpm_drop(t, &e->key);
    } else if (e->key != ESYS_TR_NONE) {
        (void)Esys_TR_Close(t->esys, &e->key);
    }
}

TSS2_RC tpm_start_session(struct tpm *t, TPM2_SE type, ESYS_TR *session) {
    const TPMT_SYM_DEF none = {.algorithm = TPM2_ALG_NULL};
    TSS2_RC rc = Esys_StartAuthSession(t->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, type,
                                       &none, TPM2_ALG_SHA256, session);
    if (rc != TSS2_RC_SUCCESS) {
        *session = ESYS_TR_NONE;
        return rc;
    }
    /* It stays when it was used, so that one place ends it whether the command worked or not. */
    rc = Esys_TRSess_SetAttributes(t->esys, *session, TPMA_SESSION_CONTINUESESSION, TPMA_SESSION_CONTINUESESSION);
    if (rc != TSS2_RC_SUCCESS) {
        tpm_drop(t, session);
    }
    return rc;
}

static TSS2_RC endorsement_session(struct tpm *t, ESYS_TR *session) {
    TSS2_RC rc = tpm_start_session(t, TPM2_SE_POLICY, session);
    if (rc == TSS2_RC_SUCCESS) {
        rc = Esys_PolicySecret(t->esys, ESYS_TR_RH_ENDORSEMENT, *session, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, NULL, NULL,
                               NULL, 0, NULL, NULL);
        if (rc != TSS2_RC_SUCCESS) {
            tpm_drop(t, session);
        }
    }
    return rc;
}

/* DER: SEQUENCE with a length of two bytes; NV indices are often longer than what is in them. */
static size_t der_size(struct bytes in) {
    return in.size >= 4 && in.data[0] == 0x30 && in.data[1] == 0x82 ? 4u + bytes_get_be16(in.data + 2) : in.size;
}

enum grey_error tpm_read_endorsement(struct tpm *t, struct builder *der, struct fault *f) {
    ESYS_TR index = ESYS_TR_NONE;
    TPM2B_NV_PUBLIC *about = NULL;
    TSS2_RC rc = Esys_TR_FromTPMPublic(t->esys, EK_NV_INDEX, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &index);
    if (rc != TSS2_RC_SUCCESS) {
        return fault_set(f, E_NOT_FOUND, "the TPM has no endorsement certificate at NV index 0x%08x", EK_NV_INDEX);
    }
    rc = Esys_NV_ReadPublic(t->esys, index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &about, NULL);
    uint16_t total = rc == TSS2_RC_SUCCESS ? about->nvPublic.dataSize : 0;
    Esys_Free(about);
    size_t before = der->size;
    for (uint16_t at = 0; rc == TSS2_RC_SUCCESS && at < total;) {
        uint16_t want = total - at < (int)NV_CHUNK_BYTES ? (uint16_t)(total - at) : (uint16_t)NV_CHUNK_BYTES;
        TPM2B_MAX_NV_BUFFER *part = NULL;
        rc = Esys_NV_Read(t->esys, index, index, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, want, at, &part);
        if (rc == TSS2_RC_SUCCESS) {
            builder_add(der, bytes_of(part->buffer, part->size));
            at = (uint16_t)(at + want);
        }
        Esys_Free(part);
    }
    (void)Esys_TR_Close(t->esys, &index);
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_refuse(f, "endorsement certificate", rc);
    }
    if (der->err != E_OK) {
        return fault_set(f, der->err, "endorsement certificate: no room");
    }
    struct bytes whole = bytes_of(der->data + before, der->size - before);
    size_t size = der_size(whole);
    der->size = before + (size < whole.size ? size : whole.size);
    return E_OK;
}

/* --- the attestation key ---------------------------------------------------------------------------------------------------------------- */

static const TPM2B_PUBLIC attestation_template = {
    .publicArea = {.type = TPM2_ALG_ECC,
                   .nameAlg = TPM2_ALG_SHA256,
                   .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                                       TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_RESTRICTED |
                                       TPMA_OBJECT_SIGN_ENCRYPT,
                   .parameters.eccDetail = {.symmetric.algorithm = TPM2_ALG_NULL,
                                            .scheme = {.scheme = TPM2_ALG_ECDSA, .details.ecdsa.hashAlg = TPM2_ALG_SHA256},
                                            .curveID = TPM2_ECC_NIST_P256,
                                            .kdf.scheme = TPM2_ALG_NULL}}};

static enum grey_error add_public(const TPMT_PUBLIC *area, struct builder *out, struct fault *f) {
    uint8_t room[TPM_PUBLIC_BYTES_MAX];
    size_t size = 0;
    TSS2_RC rc = Tss2_MU_TPMT_PUBLIC_Marshal(area, room, sizeof room, &size);
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_refuse(f, "public area", rc);
    }
    builder_add(out, bytes_of(room, size));
    return out->err == E_OK ? E_OK : fault_set(f, out->err, "public area: no room");
}

/* A new key under the endorsement key, loaded; two commands, each with a session of its own. */
static TSS2_RC make_key(struct tpm *t, ESYS_TR *key) {
    struct endorsement endorsement;
    ESYS_TR session = ESYS_TR_NONE;
    TPM2B_PRIVATE *private_part = NULL;
    TPM2B_PUBLIC *public_part = NULL;
    const TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
    const TPM2B_DATA outside = {.size = 0};
    const TPML_PCR_SELECTION no_pcrs = {.count = 0};
    *key = ESYS_TR_NONE;
    TSS2_RC rc = find_endorsement(t, &endorsement);
    rc = rc != TSS2_RC_SUCCESS ? rc : endorsement_session(t, &session);
    rc = rc != TSS2_RC_SUCCESS
             ? rc
             : Esys_Create(t->esys, endorsement.key, session, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &attestation_template,
                           &outside, &no_pcrs, &private_part, &public_part, NULL, NULL, NULL);
    tpm_drop(t, &session);
    rc = rc != TSS2_RC_SUCCESS ? rc : endorsement_session(t, &session);
    rc = rc != TSS2_RC_SUCCESS
             ? rc
             : Esys_Load(t->esys, endorsement.key, session, ESYS_TR_NONE, ESYS_TR_NONE, private_part, public_part, key);
    if (rc != TSS2_RC_SUCCESS) {
        *key = ESYS_TR_NONE;
    }
    tpm_drop(t, &session);
    leave_endorsement(t, &endorsement);
    Esys_Free(private_part);
    Esys_Free(public_part);
    return rc;
}

enum grey_error tpm_key(struct tpm *t, uint32_t handle, struct builder *public_area, bool *made, struct fault *f) {
    ESYS_TR key = ESYS_TR_NONE, kept = ESYS_TR_NONE;
    TPM2B_PUBLIC *area = NULL;
    *made = false;
    TSS2_RC rc = Esys_TR_FromTPMPublic(t->esys, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &kept);
    if (rc != TSS2_RC_SUCCESS) {
        rc = make_key(t, &key);
        if (rc != TSS2_RC_SUCCESS) {
            return tpm_refuse(f, "new attestation key", rc);
        }
        rc = Esys_EvictControl(t->esys, ESYS_TR_RH_OWNER, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, handle, &kept);
        tpm_drop(t, &key);
        if (rc != TSS2_RC_SUCCESS) {
            return tpm_refuse(f, "keeping the attestation key", rc);
        }
        *made = true;
    }
    rc = Esys_ReadPublic(t->esys, kept, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &area, NULL, NULL);
    (void)Esys_TR_Close(t->esys, &kept);
    enum grey_error err =
        rc == TSS2_RC_SUCCESS ? add_public(&area->publicArea, public_area, f) : tpm_refuse(f, "attestation key", rc);
    Esys_Free(area);
    return err;
}

enum grey_error tpm_forget_key(struct tpm *t, uint32_t handle, struct fault *f) {
    ESYS_TR key = ESYS_TR_NONE, none = ESYS_TR_NONE;
    if (Esys_TR_FromTPMPublic(t->esys, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &key) != TSS2_RC_SUCCESS) {
        return E_OK;
    }
    TSS2_RC rc = Esys_EvictControl(t->esys, ESYS_TR_RH_OWNER, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, handle, &none);
    return rc == TSS2_RC_SUCCESS ? E_OK : tpm_refuse(f, "forgetting the attestation key", rc);
}

/* Lends an object for the persistent key, to be closed. */
static enum grey_error open_key(struct tpm *t, uint32_t handle, ESYS_TR *key, struct fault *f) {
    TSS2_RC rc = Esys_TR_FromTPMPublic(t->esys, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, key);
    return rc == TSS2_RC_SUCCESS ? E_OK : fault_set(f, E_NOT_FOUND, "the TPM has no key at 0x%08x", (unsigned)handle);
}

enum grey_error tpm_activate(struct tpm *t, uint32_t handle, const struct credential *c, uint8_t secret[CREDENTIAL_SECRET_BYTES],
                             struct fault *f) {
    struct endorsement endorsement;
    ESYS_TR key = ESYS_TR_NONE, session = ESYS_TR_NONE;
    TPM2B_ID_OBJECT blob = {.size = sizeof c->blob};
    TPM2B_ENCRYPTED_SECRET seed = {.size = sizeof c->seed};
    TPM2B_DIGEST *inside = NULL;
    memset(secret, 0, CREDENTIAL_SECRET_BYTES);
    memcpy(blob.credential, c->blob, sizeof c->blob);
    memcpy(seed.secret, c->seed, sizeof c->seed);
    enum grey_error err = open_key(t, handle, &key, f);
    if (err != E_OK) {
        return err;
    }
    TSS2_RC rc = find_endorsement(t, &endorsement);
    rc = rc != TSS2_RC_SUCCESS ? rc : endorsement_session(t, &session);
    if (rc != TSS2_RC_SUCCESS) {
        err = tpm_refuse(f, "endorsement key", rc);
    } else {
        rc = Esys_ActivateCredential(t->esys, key, endorsement.key, ESYS_TR_PASSWORD, session, ESYS_TR_NONE, &blob, &seed, &inside);
        if ((rc & TSS2_RC_LAYER_MASK) != TSS2_TPM_RC_LAYER) {
            err = tpm_refuse(f, "opening the credential", rc); /* the way to the TPM failed */
        } else if (rc != TSS2_RC_SUCCESS || inside->size != CREDENTIAL_SECRET_BYTES) {
            err = fault_set(f, E_ATTEST_UNPROVEN, "the credential is not for this TPM and this key (response code 0x%08x)",
                            (unsigned)rc);
        } else {
            memcpy(secret, inside->buffer, CREDENTIAL_SECRET_BYTES);
        }
    }
    tpm_drop(t, &session);
    leave_endorsement(t, &endorsement);
    (void)Esys_TR_Close(t->esys, &key);
    Esys_Free(inside);
    return err;
}

/* --- registers -------------------------------------------------------------------------------------------------------------------------- */

TPML_PCR_SELECTION tpm_select_pcrs(uint32_t mask) {
    TPML_PCR_SELECTION s = {.count = 1};
    s.pcrSelections[0].hash = TPM2_ALG_SHA256;
    s.pcrSelections[0].sizeofSelect = 3;
    for (uint32_t i = 0; i < 3; i++) {
        s.pcrSelections[0].pcrSelect[i] = (BYTE)(mask >> 8 * i);
    }
    return s;
}

static uint32_t mask_of(const TPML_PCR_SELECTION *s) {
    uint32_t mask = 0;
    for (uint32_t i = 0; s->count == 1 && i < s->pcrSelections[0].sizeofSelect && i < 3; i++) {
        mask |= (uint32_t)s->pcrSelections[0].pcrSelect[i] << 8 * i;
    }
    return mask;
}

enum grey_error tpm_read_pcrs(struct tpm *t, uint32_t mask, uint8_t values[TPM_PCR_COUNT][DIGEST_SHA256_BYTES], struct fault *f) {
    memset(values, 0, (size_t)TPM_PCR_COUNT * DIGEST_SHA256_BYTES);
    while (mask != 0) {
        TPML_PCR_SELECTION want = tpm_select_pcrs(mask), *got = NULL;
        TPML_DIGEST *digests = NULL;
        uint32_t used = 0, read = 0;
        TSS2_RC rc = Esys_PCR_Read(t->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &want, NULL, &got, &digests);
        if (rc == TSS2_RC_SUCCESS) {
            read = mask_of(got) & mask;
            for (uint32_t pcr = 0; pcr < TPM_PCR_COUNT; pcr++) {
                if ((read >> pcr & 1u) != 0 && used < digests->count && digests->digests[used].size == DIGEST_SHA256_BYTES) {
                    memcpy(values[pcr], digests->digests[used++].buffer, DIGEST_SHA256_BYTES);
                }
            }
        }
        bool whole = rc == TSS2_RC_SUCCESS && read != 0 && used == digests->count;
        Esys_Free(got);
        Esys_Free(digests);
        if (!whole) {
            return rc != TSS2_RC_SUCCESS ? tpm_refuse(f, "reading registers", rc)
                                         : fault_set(f, E_TPM, "reading registers: it has no SHA-256 bank for them");
        }
        mask &= ~read;
    }
    return E_OK;
}

enum grey_error tpm_extend(struct tpm *t, uint32_t pcr, const uint8_t digest[DIGEST_SHA256_BYTES], struct fault *f) {
    TPML_DIGEST_VALUES values = {.count = 1};
    values.digests[0].hashAlg = TPM2_ALG_SHA256;
    memcpy(values.digests[0].digest.sha256, digest, DIGEST_SHA256_BYTES);
    TSS2_RC rc = pcr >= TPM_PCR_COUNT
                     ? TSS2_ESYS_RC_BAD_VALUE
                     : Esys_PCR_Extend(t->esys, ESYS_TR_PCR0 + pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &values);
    return rc == TSS2_RC_SUCCESS ? E_OK : tpm_refuse(f, "extending a register", rc);
}

enum grey_error tpm_quote(struct tpm *t, uint32_t handle, uint32_t mask, const uint8_t qualify[DIGEST_SHA256_BYTES],
                          struct builder *quote, struct builder *signature, struct fault *f) {
    ESYS_TR key = ESYS_TR_NONE;
    TPM2B_DATA extra = {.size = DIGEST_SHA256_BYTES};
    const TPMT_SIG_SCHEME own = {.scheme = TPM2_ALG_NULL};
    const TPML_PCR_SELECTION select = tpm_select_pcrs(mask);
    TPM2B_ATTEST *attest = NULL;
    TPMT_SIGNATURE *signed_by = NULL;
    memcpy(extra.buffer, qualify, DIGEST_SHA256_BYTES);
    enum grey_error err = open_key(t, handle, &key, f);
    if (err != E_OK) {
        return err;
    }
    TSS2_RC rc = Esys_Quote(t->esys, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &extra, &own, &select, &attest, &signed_by);
    (void)Esys_TR_Close(t->esys, &key);
    if (rc == TSS2_RC_SUCCESS) {
        uint8_t room[TPM_PUBLIC_BYTES_MAX];
        size_t size = 0;
        builder_add(quote, bytes_of(attest->attestationData, attest->size));
        rc = Tss2_MU_TPMT_SIGNATURE_Marshal(signed_by, room, sizeof room, &size);
        builder_add(signature, bytes_of(room, size));
    }
    Esys_Free(attest);
    Esys_Free(signed_by);
    err = quote->err != E_OK ? quote->err : signature->err;
    return rc != TSS2_RC_SUCCESS ? tpm_refuse(f, "quote", rc) : err != E_OK ? fault_set(f, err, "quote: no room") : E_OK;
}

/* --- counting ----------------------------------------------------------------------------------------------------------------------------- */

enum grey_error tpm_count_left(struct tpm *t, uint32_t *objects, uint32_t *sessions, struct fault *f) {
    static const uint32_t ranges[2] = {TPM2_TRANSIENT_FIRST, TPM2_LOADED_SESSION_FIRST};
    uint32_t *const counts[2] = {objects, sessions};
    for (size_t i = 0; i < 2; i++) {
        TPMS_CAPABILITY_DATA *data = NULL;
        TSS2_RC rc =
            Esys_GetCapability(t->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_HANDLES, ranges[i], 64, NULL, &data);
        *counts[i] = rc == TSS2_RC_SUCCESS ? data->data.handles.count : 0;
        Esys_Free(data);
        if (rc != TSS2_RC_SUCCESS) {
            return tpm_refuse(f, "counting handles", rc);
        }
    }
    return E_OK;
}
