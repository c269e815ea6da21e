/* policytext.h: the attestation policy as people write it, YAML or JSON (docs/ATTESTATION.md, "The policy"), and back.
 *
 * Name and serial do not stand in the text: it is given to sites as the policy POLICYTEXT_NAME, and its issue there, which only rises, is the
 * serial.  Computes only.  Thread: any. */
#ifndef CORE_POLICYTEXT_H
#define CORE_POLICYTEXT_H

#include "federation/attest/reference.h"
#include "platform/fault.h"

#define POLICYTEXT_NAME REFERENCE_OBJECT_NAME
#define POLICYTEXT_BYTES_MAX (256u * 1024u)

/* Fills *out but for its serial; the name is POLICYTEXT_NAME, and constant.  E_ATTEST_POLICY, with line, column and what was expected. */
enum grey_error policytext_read(struct bytes text, struct reference *out, struct fault *f);
/* Appends p as text that policytext_read reads as the same; errors are the builder's. */
void policytext_write(struct builder *out, const struct reference *p);

/* What is in force where nobody has given a policy, and the core was told to learn: every type, what gateways show is taken and remembered. */
void policytext_learn(struct reference *out);

#endif
