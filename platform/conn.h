/* conn.h: byte streams over TCP or unix sockets, plain or mutual TLS 1.2+ (mbedTLS), with bounded buffers and every byte counted.
 *
 * Name resolution and all public-key work of a handshake run on the crypto worker of the context; the loop never waits
 * for them.  A conn is freed by conn_close (any time, also inside its callbacks; no callback follows) or after on_closed returns. */
#ifndef PLATFORM_CONN_H
#define PLATFORM_CONN_H

#include "platform/bytes.h"
#include "platform/fault.h"
#include "platform/loop.h"
#include "platform/worker.h"

struct conn;
struct conn_tls; /* certificates and key of this side; shared by many conns */
struct conn_listener;

struct conn_session;

struct conn_context {
    struct loop *loop;
    struct worker *crypto;
};

/* Reads PEM files.  Both sides always show a certificate and check the other's against ca_path and the validity times.
 * E_CERT, E_KEY with file and reason.  AEAD suites with forward secrecy only, curves X25519 and P-256. */
struct conn_tls *conn_tls_new(const char *ca_path, const char *cert_path, const char *key_path, struct fault *f);

/* The same with more to say. */
struct conn_tls_files {
    const char *ca_path, *cert_path; /* PEM; certificates of a chain follow the own one */
    /* As platform/keyring.h has it.  A key that a TPM keeps is looked up once, when this is opened; handshakes then wait for its signature on the
     * crypto worker, and fail with E_VAULT_AWAY when none comes. */
    const char *key_path;
    /* PEM with further CA certificates and lists of revoked certificates, which are obeyed when they are signed by a CA that is trusted;
     * NULL or not there: none.  A list that is older than it should be still counts: nobody could renew it while the core is away. */
    const char *trust_path;
    /* PEM, NULL or not there: none.  site_path: a chain for the same key that counts instead of cert_path's when it holds for longer (platform/vouch.h).
     * known_path: certificates; who shows one for the same key that has lapsed is let in for as long as the one here holds. */
    const char *site_path, *known_path;
    bool anybody; /* server: the other side shows no certificate, and ca_path is not read */
    bool from_13; /* TLS 1.3 is the least; E_TLS_VERSION where mbedTLS has none */
};
struct conn_tls *conn_tls_open(const struct conn_tls_files *files, struct fault *f);
bool conn_tls_knows_13(void);        /* with this mbedTLS */
bool conn_tls_signs_elsewhere(void); /* a key may lie in a TPM, with this mbedTLS */
/* Reads the files again.  Conns that are open stay; those that begin from now on use what was read.  On failure all is as before. */
enum grey_error conn_tls_reload(struct conn_tls *t, struct fault *f);
void conn_tls_free(struct conn_tls *t); /* NULL is allowed; after the conns that use it */

/* Client: this side offers the name by ALPN (RFC 7301) on the conns that ask for it (conn_options.offer).  protocol: kept by reference.
 * Before the first dial. */
enum grey_error conn_tls_offer(struct conn_tls *t, const char *protocol, struct fault *f);

/* Where a TLS client keeps what it needs to come back to one server without a full handshake (RFC 5077), in memory, for a day at most.
 * The server's certificate was checked when the session began and is not checked again meanwhile.  One conn at a time. */
struct conn_session *conn_session_new(void);
void conn_session_free(struct conn_session *s);          /* NULL is allowed; after the conn that uses it */
bool conn_session_resumed(const struct conn_session *s); /* the last handshake was a short one */

/* An HTTP proxy to dial through (CONNECT, RFC 9110, 9.3.6).  It resolves the name of the other side. */
struct conn_proxy {
    const char *address;   /* "host:port" */
    const char *auth_path; /* a file with one line "user:password", read at each dial; NULL or "": none */
};

struct conn_events {
    void (*on_reached)(void *context, struct conn *c); /* client with TLS: the other side took the connection; may be NULL */
    void (*on_open)(void *context, struct conn *c);    /* connected, and the handshake is done where there is TLS */
    /* Bytes arrived: `in` is all that is not consumed yet (borrowed).  Returns how many bytes are used up; the rest is kept and shown
     * again with what follows.  More than input_limit_bytes unconsumed closes with E_TOO_LARGE. */
    size_t (*on_bytes)(void *context, struct conn *c, struct bytes in);
    void (*on_drained)(void *context, struct conn *c); /* the output buffer became empty; may be NULL */
    /* The last callback.  why: E_CLOSED (by the other side, in order), E_CONNECT, E_TLS, E_CERT, E_TOO_LARGE, ... with detail. */
    void (*on_closed)(void *context, struct conn *c, enum grey_error why, const char *detail);
};

struct conn_options {
    const struct conn_tls *tls; /* NULL: plain */
    const char *expected_host;  /* TLS client: the DNS name the certificate must hold; NULL: the caller judges conn_peer_uri */
    size_t input_limit_bytes;
    size_t output_limit_bytes;
    uint32_t open_timeout_ms;       /* connect, proxy and handshake; 0: 10 s */
    uint32_t handshake_timeout_ms;  /* client: the handshake has so long for itself; 0: what is left of the other */
    const struct conn_proxy *proxy; /* NULL: none; borrowed until the conn is open */
    struct conn_session *session;   /* TLS client; NULL: each handshake is a full one; borrowed until the conn is closed */
    bool offer;                     /* TLS client: ALPN, see conn_tls_offer */
    bool guests;                    /* TLS server: who shows no certificate is let in, without names; a bad one is still refused */
    const struct conn_events *events;
    void *context;
};

/* address: "host:port", "[v6]:port", ":port" (all addresses, to listen) or "unix:/path".  Copies options and strings, borrows the rest. */
struct conn *conn_dial(const struct conn_context *x, const char *address, const struct conn_options *o, struct fault *f);

/* accepted: called for each connection before its handshake; fills o for it (o->events must be set) and returns true, or false to
 * refuse.  At most 64 wait for their handshake; then the oldest gives way.
 * E_ADDRESS_IN_USE names the owner where it can be known.  unix sockets are made 0660 and an old one is replaced. */
struct conn_listener *conn_listen(const struct conn_context *x, const char *address,
                                  bool (*accepted)(void *context, struct conn_options *o), void *context, struct fault *f);
/* Accepted connections that are not open yet are closed, on_closed with E_STOPPING; open ones live on. */
void conn_listener_close(struct conn_listener *l);
uint16_t conn_listener_port(const struct conn_listener *l);

/* Copies; all or nothing; E_BUSY above output_limit_bytes, E_CLOSED after conn_finish.  Sent at once or when the socket allows. */
enum grey_error conn_write(struct conn *c, struct bytes out);
/* conn_pause: on_bytes is not called and nothing is read until conn_resume, which shows what was kept at once. */
void conn_pause(struct conn *c);
void conn_resume(struct conn *c);
size_t conn_output_bytes(const struct conn *c); /* not yet given to the kernel */
void conn_set_context(struct conn *c, const struct conn_events *events, void *context);
void *conn_get_context(const struct conn *c);
void conn_close(struct conn *c); /* NULL is allowed */
/* conn_finish: no on_bytes and no conn_write any more.  Writes what is left, says that this side has ended, and waits until the other
 * side has read it and closes too (2 s; 10 s without progress while there is output left).  on_closed follows on a later turn. */
void conn_finish(struct conn *c);

const char *conn_peer_uri(const struct conn *c);  /* "grey://site/node" from the certificate's SAN; "" when there is none */
const char *conn_peer_name(const struct conn *c); /* subject CN; "" when there is none */
const char *conn_peer_role(const struct conn *c); /* "operator" of a SAN URI "grey-role:operator"; "" when there is none */
uint32_t conn_peer_roles(const struct conn *c);   /* bits of cert_role (platform/cert.h) in its certificate; 0: plain, or none */
const char *conn_peer_address(const struct conn *c);
bool conn_peer_uid(const struct conn *c, uint32_t *uid); /* unix sockets: SO_PEERCRED */
bool conn_peer_in_group(const struct conn *c,
                        uint32_t gid); /* unix sockets: one of the groups the other side had when it connected */
bool conn_is_tls(const struct conn *c);
/* The other side's certificate stands in a list of revoked ones that its conn_tls has read since (conn_tls_reload). */
bool conn_peer_revoked(const struct conn *c);
struct conn_count {
    uint64_t in_bytes, out_bytes; /* on the socket: TLS records and handshakes included, TCP/IP headers not */
} conn_counted(const struct conn *c);

/* What the network carries of a TCP connection, in both directions, as its kernel tells: payload with TLS, IP and TCP headers of every
 * segment, acknowledgements and retransmissions.  (Where it was accepted, one segment more went out, which opened it.)  False, and
 * zeros: not TCP, or an old kernel. */
struct conn_wire {
    uint32_t segment_bytes, header_bytes; /* payload of a full segment; headers of each */
    uint64_t out_bytes, in_bytes;
    uint64_t resent_bytes; /* of out_bytes: what was sent again */
    uint64_t unsent_bytes; /* payload that waits in the socket */
};
bool conn_wired(const struct conn *c, struct conn_wire *out);
/* Adds what c carried so far to sum, whose segment and header become those of c. */
void conn_wire_add(struct conn_wire *sum, const struct conn *c);
/* The socket takes no more while so much of it waits there unsent; 0: as much as the system allows. */
void conn_set_unsent_max(struct conn *c, uint32_t bytes);
/* For an owner that sends below what the network carries.  calm: TCP by Reno (RFC 5681), which stops for nothing but a loss; else as the
 * system does it.  Where that is BBR (draft-ietf-ccwg-bbr, ProbeRTT), it has four packets on the way now and then to see the bare round
 * trip, and what an owner grants meanwhile waits; but it is the better one on a network that loses packets. */
void conn_set_calm(struct conn *c, bool calm);
/* From now on the other side is asked for a sign of life while nothing else passes, and the connection ends (E_CLOSED) when for patience_ms
 * there is none, or what was sent is not acknowledged (RFC 5482).  Without it one whose power failed is found out in a quarter of an hour. */
void conn_set_patience(struct conn *c, uint32_t patience_ms);

/* conn_set_gate: every write to the socket first asks gate(context, wanted) how many bytes may leave now; 0 parks the output until
 * conn_gate_open.  This is the one place where the uplink is shaped.  NULL removes it.  A handshake is not asked for, because it runs
 * on another thread: debit it afterwards (conn_counted in on_open). */
void conn_set_gate(struct conn *c, size_t (*gate)(void *context, size_t wanted_bytes), void *context);
void conn_gate_open(struct conn *c);

#endif
