/* zerotouch.h: a gateway comes in by its TPM, which an operator registered at the core before: no token in anybody's hands.  Asks the core, with
 * grey-tpm's help; what comes of it is an invitation as a token holds it.  Blocks.  For `greyd enroll`.  docs/IDENTITY.md, "Zero touch". */
#ifndef AGENT_ZEROTOUCH_H
#define AGENT_ZEROTOUCH_H

#include "federation/attest/evidence.h"
#include "federation/invite.h"

struct zerotouch {         /* borrowed */
    const char *core;      /* https://host:port */
    const char *program;   /* grey-tpm; NULL: beside this program */
    const char *tpm;       /* its --tpm */
    enum attest_type type; /* ATTEST_TPM2 or ATTEST_VTPM */
};

/* i: its fingerprint says by which root the core is known; site and secret are filled in.  node: as the core has it.  E_TOKEN_UNKNOWN: this TPM was not
 * registered; E_ATTEST_EK, E_TPM, errors of http_fetch. */
enum grey_error zerotouch_ask(const struct zerotouch *z, struct invite *i, char node[LIMIT_NAME_BYTES + 1], struct fault *f);

#endif
