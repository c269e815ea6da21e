/* trust.h: the policy "grey-trust" that the core gives to all sites: PEM text with the CA certificates to trust and, behind them, the list of
 * revoked certificates, signed by its CA.  Pure. */
#ifndef FEDERATION_TRUST_H
#define FEDERATION_TRUST_H

#include "platform/bytes.h"

#define TRUST_NAME "grey-trust"

struct trust_parts {
    struct bytes authorities, list; /* borrowed from the text */
};
/* False: not certificates followed by one list. */
bool trust_split(struct bytes text, struct trust_parts *out);

#endif
