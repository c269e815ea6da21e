/* client.h: greyctl's calls to a node or to the core, and what to tell a person when one fails.
 * Addresses (docs/ARCHITECTURE.md): the option, the environment, then the sockets where an agent is usually found. */
#ifndef AGENT_CTL_CLIENT_H
#define AGENT_CTL_CLIENT_H

#include "agent/ctl/profile.h"
#include "platform/http_fetch.h"
#include "platform/json.h"

#define CLIENT_ANSWER_BYTES_MAX (32u * 1024u * 1024u)
#define CLIENT_TIMEOUT_MS 15000u /* a node without a leader answers after 5 s; leave it the time to say so */

/* Exit codes of greyctl.  CTL_USAGE also means "not in this version". */
enum client_exit { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2, CTL_REFUSED = 3, CTL_NO_QUORUM = 4 };

enum client_side { CLIENT_NODE, CLIENT_CORE };

struct client {
    const char *address[2]; /* by side; NULL: not looked for yet */
    uint32_t timeout_ms;
    const char *profile_name; /* NULL: not said */
    const char *ca_path;      /* --cacert; NULL: what the profile says */
    struct profile profile;
    bool profile_read;
};

/* Why a call failed, in words: title and detail from the server where it spoke, else ours. */
struct client_problem {
    int code;
    int http_status; /* 0: nothing was answered */
    char id[16];     /* "GREY-1001"; "" when the server named none */
    char title[160], detail[400], remedy[400];
};

struct client_request {
    enum client_side side;
    const char *address; /* NULL: the client's */
    const char *method, *path;
    const char *const *headers;
    struct bytes body;
    const char *body_type;
    uint32_t timeout_ms; /* 0: the client's */
};

/* The address of a side; looks for it the first time.  NULL with *p set when there is none. */
const char *client_address(struct client *c, enum client_side side, struct client_problem *p);

/* One request.  CTL_OK for any status below 400; else *p says why.  The caller frees a->body in every case. */
int client_call(struct client *c, const struct client_request *q, struct http_answer *a, struct client_problem *p);
/* GET of a JSON document, parsed; the caller owns *out (NULL on failure).  raw: NULL or where the text goes (caller frees). */
int client_get(struct client *c, enum client_side side, const char *path, json_t **out, struct builder *raw,
               struct client_problem *p);

/* Writes the problem to stderr: what, why, what to do next.  Returns its exit code. */
int client_complain(const struct client_problem *p);
/* A problem of greyctl's own.  Returns `code`. */
int client_problem_set(struct client_problem *p, int code, const char *title, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Appends text percent-encoded for a path ('/' stays) or, with whole set, for one segment or query value. */
void client_encode(struct builder *out, struct bytes text, bool whole);

#endif
