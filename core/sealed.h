/* sealed.h: the core's ends of what is sealed end to end between sites and core (federation/handshake.h, federation/envelope.h).
 *
 * A site's hello is opened and its gateway's certificate and signature are judged on the crypto worker; then it goes on as any hello, and its
 * welcome goes out sealed.  The former session holds until a frame of the new one has come, so that an old hello, played again, breaks
 * nothing.  Keys are in memory only: after a start, sites say hello again.  Thread: the loop's. */
#ifndef CORE_SEALED_H
#define CORE_SEALED_H

#include "federation/envelope.h"
#include "include/grey/ids.h"
#include "platform/cert.h"
#include "platform/conn.h"

#define SEALED_SITES_MAX 65536u /* 64 MiB at the most */
#define SEALED_IDLE_MS 600000u  /* then a session makes room for another site's */

struct sealed;

/* Who says hello: the certificate holds, is of this site and of a gateway, and its key has signed.  It may have been revoked: a site learns of
 * that by this very link, and then shuts its gateway out; until then the gateway may lead it. */
struct sealed_speaker {
    char node[LIMIT_NAME_BYTES + 1];
};
/* A hello that holds, to be treated as one that came plain. */
typedef void sealed_heard(void *context, const struct grey_name *site, enum event_channel c, struct bytes hello,
                          const struct sealed_speaker *who);

/* secret_key: KEYS_ED25519_SECRET_BYTES, copied.  ca_path: certificates that may have issued those of gateways, read at each hello; NULL: none can be
 * judged, and so no sealed hello is taken; copied.  NULL: out of memory. */
struct sealed *sealed_new(const struct conn_context *x, const uint8_t *secret_key, const char *ca_path, sealed_heard *heard,
                          void *context);
void sealed_free(
    struct sealed *s); /* heard is not called any more; what the crypto worker still has comes to nothing.  NULL is allowed */
void sealed_register(void);

/* The content of UP_SEALED_HELLO.  Judged later. */
void sealed_hello(struct sealed *s, const struct grey_name *site, enum event_channel c, struct bytes content);
/* The welcome to the last hello that was heard: what to say instead of it, until sealed_welcomed says that it went.  E_NOT_FOUND: no hello waits
 * for one. */
enum grey_error sealed_welcome(struct sealed *s, const char *site, struct bytes welcome, struct builder *out);
void sealed_welcomed(struct sealed *s, const char *site);
bool sealed_awaits(struct sealed *s, const char *site);

/* As envelope_open and envelope_seal.  E_NOT_FOUND: this site has no session here. */
enum grey_error sealed_open(struct sealed *s, const char *site, enum event_channel c, const struct frame *f,
                            struct builder *scratch, struct frame *plain);
enum grey_error sealed_seal(struct sealed *s, const char *site, enum event_channel c, struct bytes frame, struct builder *out);

/* What this process knows of a site: it may say hello in either way; all else must come as its last hello did. */
enum sealed_manner { SEALED_UNKNOWN, SEALED_PLAIN, SEALED_SEALED };
enum sealed_manner sealed_manner(struct sealed *s, const char *site);
void sealed_greeted_plain(struct sealed *s, const char *site);

#endif
