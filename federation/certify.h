/* certify.h: renewal of certificates over the link to the core, as CBOR arrays [kind, ...] inside Grey frames over MQTT; beside sync.h.
 *
 * A gateway puts its request into the site's log, as the key KEY_REQUEST and its name; whichever gateway leads sends it up (UP_CERTIFY), to a core that
 * takes such (CODING_CERTIFY), and puts the answer (DOWN_CERTIFIED) into the log, as KEY_CERTIFICATE and the name.  All of it is public: a
 * certificate is of use to the holder of its key only.  docs/IDENTITY.md. */
#ifndef FEDERATION_CERTIFY_H
#define FEDERATION_CERTIFY_H

#include "include/grey/ids.h"
#include "include/grey/protocol.h"
#include "platform/codec.h"

#define CERTIFY_KEY_REQUEST "grey/identity/request/"
#define CERTIFY_KEY_CERTIFICATE "grey/identity/certificate/"
#define CERTIFY_REQUEST_BYTES_MAX 2048u
#define CERTIFY_CERTIFICATE_BYTES_MAX 16384u

struct certify {
    uint64_t incarnation;
    grey_epoch epoch;
    struct bytes node; /* of the certificate; of a request it stands in the request */
    struct bytes pem;  /* request or certificate */
};

void certify_put_request(struct builder *out, const struct certify *c);
void certify_put_certificate(struct builder *out, const struct certify *c);
/* Slices borrow from content.  E_BAD_CBOR, E_BAD_MESSAGE. */
enum grey_error certify_get_request(struct bytes content, struct certify *c);
enum grey_error certify_get_certificate(struct bytes content, struct certify *c);

#endif
