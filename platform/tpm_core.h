/* tpm_core.h: what the sources of platform/tpm share. */
#ifndef PLATFORM_TPM_CORE_H
#define PLATFORM_TPM_CORE_H

#include <tss2/tss2_esys.h>

#include "platform/tpm.h"

struct tpm {
    TSS2_TCTI_CONTEXT *tcti;
    ESYS_CONTEXT *esys;
};

enum grey_error tpm_refuse(struct fault *f, const char *what, TSS2_RC rc); /* E_TPM */
void tpm_drop(struct tpm *t, ESYS_TR *what);                               /* flushes it; ESYS_TR_NONE: nothing */
TSS2_RC tpm_start_session(struct tpm *t, TPM2_SE type, ESYS_TR *session);  /* plain; it lives until tpm_drop */
TPML_PCR_SELECTION tpm_select_pcrs(uint32_t mask);                         /* of the SHA-256 bank */

#endif
