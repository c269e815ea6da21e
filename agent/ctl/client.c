#include "agent/ctl/client.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOCKET_INSTALLED "unix:/run/grey/greyd.sock"
#define SOCKET_LOCAL "unix:./run/node1/greyd.sock"
#define HEADERS_MAX 16u
#define CORE_DEFAULT "http://127.0.0.1:8080"

int client_problem_set(struct client_problem *p, int code, const char *title, const char *remedy, const char *format, ...) {
    va_list args;
    va_start(args, format);
    p->code = code;
    p->http_status = 0;
    p->id[0] = 0;
    (void)snprintf(p->title, sizeof p->title, "%s", title);
    (void)snprintf(p->remedy, sizeof p->remedy, "%s", remedy);
    (void)vsnprintf(p->detail, sizeof p->detail, format, args);
    va_end(args);
    return code;
}

/* --- who we are ------------------------------------------------------------------------------------------------------------------- */

/* Read when it is first needed: help and local verbs go without. */
static bool read_profile(struct client *c, struct client_problem *p) {
    struct fault f = {0};
    if (!c->profile_read && profile_read(&c->profile, c->profile_name, &f) != E_OK) {
        (void)client_problem_set(p, CTL_USAGE, "the profile is not taken", "correct that and try again", "%s", f.text);
        return false;
    }
    c->profile_read = true;
    return true;
}

/* A token must not cross a network in clear. */
static bool may_carry_token(const char *address) {
    static const char *const safe[] = {"https://", "http://127.", "http://localhost", "http://[::1]"};
    for (size_t i = 0; i < sizeof safe / sizeof safe[0]; i++) {
        if (strncmp(address, safe[i], strlen(safe[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* --- addresses -------------------------------------------------------------------------------------------------------------------- */

static const char *find_node(const struct client *c, struct client_problem *p) {
    static const char *const places[] = {SOCKET_INSTALLED, SOCKET_LOCAL};
    const char *address = getenv("GREY_ADDR");
    if (address != NULL && address[0] != 0) {
        return address;
    }
    if (c->profile.addr[0] != 0) {
        return c->profile.addr;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (access(places[i] + strlen("unix:"), F_OK) == 0) {
            return places[i];
        }
    }
    (void)client_problem_set(p, CTL_FAILED, "no agent was found",
                             "start one (make up, or systemctl start greyd), or say where it is: --addr http://127.0.0.1:8081 or "
                             "--addr unix:/path/greyd.sock",
                             "neither " SOCKET_INSTALLED " nor " SOCKET_LOCAL " exists");
    return NULL;
}

const char *client_address(struct client *c, enum client_side side, struct client_problem *p) {
    if (!read_profile(c, p)) {
        return NULL;
    }
    if (c->address[side] == NULL && side == CLIENT_NODE) {
        c->address[side] = find_node(c, p);
    } else if (c->address[side] == NULL) {
        const char *address = getenv("GREY_CORE");
        c->address[side] = address != NULL && address[0] != 0 ? address : c->profile.core[0] != 0 ? c->profile.core : CORE_DEFAULT;
    }
    return c->address[side];
}

/* --- failures --------------------------------------------------------------------------------------------------------------------- */

static void copy_member(const json_t *from, const char *name, char *to, size_t size) {
    const char *text = json_string_value(json_object_get(from, name));
    if (text != NULL) {
        (void)snprintf(to, size, "%s", text);
    }
}

/* The server spoke: an RFC 9457 problem, or at least a status. */
static int refused(const struct http_answer *a, struct client_problem *p) {
    json_t *body = json_read(builder_bytes(&a->body), NULL);
    const char *type = json_string_value(json_object_get(body, "type"));
    (void)client_problem_set(p, CTL_REFUSED, "the request was refused", "see the log of the other side", "HTTP status %d",
                             a->status);
    p->http_status = a->status;
    copy_member(body, "title", p->title, sizeof p->title);
    copy_member(body, "detail", p->detail, sizeof p->detail);
    copy_member(body, "remedy", p->remedy, sizeof p->remedy);
    const char *id = type == NULL ? NULL : strstr(type, "GREY-");
    if (id != NULL) {
        (void)snprintf(p->id, sizeof p->id, "%.*s", (int)strcspn(id, "#"), id); /* behind it stands what it means for the caller */
        enum grey_error err = error_by_id((int)strtol(id + 5, NULL, 10));
        if (err == E_NO_QUORUM || err == E_NOT_LEADER || err == E_OUTCOME_UNKNOWN) {
            p->code = CTL_NO_QUORUM;
        }
    }
    json_decref(body);
    return p->code;
}

static int unreachable(const char *address, enum client_side side, const struct fault *f, struct client_problem *p) {
    static const char *const who[] = {"the agent", "the core"};
    char title[120], remedy[240];
    (void)snprintf(title, sizeof title, "%s does not answer", who[side]);
    if (f->code == E_USAGE) {
        (void)client_problem_set(p, CTL_USAGE, "this is not an address", "write http://host:port or unix:/path", "%s", f->text);
        return CTL_USAGE;
    }
    if (side == CLIENT_NODE && strstr(address, "/node1/") != NULL) {
        (void)snprintf(remedy, sizeof remedy,
                       "is it running? see the log beside its socket; the site's other nodes: --addr unix:./run/node2/greyd.sock");
    } else if (side == CLIENT_NODE) {
        (void)snprintf(remedy, sizeof remedy, "is it running? systemctl status greyd, or ask another node of the site with --addr");
    } else {
        (void)snprintf(remedy, sizeof remedy, "is grey-core running there? its address is --core or $GREY_CORE");
    }
    return client_problem_set(p, CTL_FAILED, title, remedy, "%s%s%s", f->text, strstr(f->text, address) != NULL ? "" : " at ",
                              strstr(f->text, address) != NULL ? "" : address);
}

/* A terminal must not obey what a server says. */
static void put_plain(const char *text) {
    for (; *text != 0; text++) {
        (void)fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, stderr);
    }
}

int client_complain(const struct client_problem *p) {
    (void)fputs("greyctl: ", stderr);
    put_plain(p->title);
    if (p->id[0] != 0) {
        (void)fputs(" (", stderr);
        put_plain(p->id);
        (void)fputs(")", stderr);
    }
    if (p->detail[0] != 0) {
        (void)fputs(": ", stderr);
        put_plain(p->detail);
    }
    (void)fputs("\n", stderr);
    if (p->remedy[0] != 0) {
        (void)fputs("  -> ", stderr);
        put_plain(p->remedy);
        (void)fputs("\n", stderr);
    }
    return p->code;
}

/* --- calls ------------------------------------------------------------------------------------------------------------------------- */

int client_call(struct client *c, const struct client_request *q, struct http_answer *a, struct client_problem *p) {
    struct fault f = {0};
    const char *address = q->address != NULL ? q->address : client_address(c, q->side, p);
    memset(a, 0, sizeof *a);
    if (address == NULL || !read_profile(c, p)) {
        return p->code;
    }
    const char *token = q->side == CLIENT_NODE ? c->profile.token : c->profile.core_token;
    if (strncmp(address, "unix:", 5) == 0) {
        token = ""; /* there the kernel says who we are */
    }
    if (token[0] != 0 && !may_carry_token(address)) {
        return client_problem_set(p, CTL_USAGE, "the token is not sent in clear over a network",
                                  "use https:// with a ca in the profile, or a tunnel to an address of this machine", "%s",
                                  address);
    }
    char authorization[sizeof c->profile.token + 32];
    const char *headers[HEADERS_MAX + 2];
    size_t header_count = 0;
    for (; q->headers != NULL && q->headers[header_count] != NULL && header_count < HEADERS_MAX; header_count++) {
        headers[header_count] = q->headers[header_count];
    }
    if (token[0] != 0) {
        (void)snprintf(authorization, sizeof authorization, "Authorization: Bearer %s", token);
        headers[header_count++] = authorization;
    }
    headers[header_count] = NULL;
    const struct profile *who = &c->profile;
    bool core = q->side == CLIENT_CORE;
    const char *ca_path = c->ca_path != NULL ? c->ca_path : core && who->core_ca[0] != 0 ? who->core_ca : who->ca;
    if (strncmp(address, "https://", 8) == 0 && ca_path[0] == 0) {
        return client_problem_set(p, CTL_USAGE, "whose certificate is to be believed?",
                                  "say --cacert ca.crt, or write 'ca' (for the core 'core_ca') into the profile", "%s", address);
    }
    struct http_fetch_tls tls = {.ca_path = ca_path,
                                 .core = core,
                                 .cert_path = who->cert[0] != 0 ? who->cert : NULL,
                                 .key_path = who->key[0] != 0 ? who->key : NULL,
                                 .site = who->site[0] != 0 ? who->site : NULL};
    struct http_fetch h = {.address = address,
                           .method = q->method,
                           .path = q->path,
                           .headers = headers,
                           .tls = ca_path[0] != 0 ? &tls : NULL,
                           .body = q->body,
                           .body_type = q->body_type,
                           .timeout_ms = q->timeout_ms != 0 ? q->timeout_ms : c->timeout_ms,
                           .answer_bytes_max = CLIENT_ANSWER_BYTES_MAX};
    if (http_fetch(&h, a, &f) != E_OK) {
        return unreachable(address, q->side, &f, p);
    }
    return a->status < 400 ? CTL_OK : refused(a, p);
}

int client_get(struct client *c, enum client_side side, const char *path, json_t **out, struct builder *raw,
               struct client_problem *p) {
    struct client_request q = {.side = side, .method = "GET", .path = path};
    struct http_answer a;
    struct fault f = {0};
    *out = NULL;
    int code = client_call(c, &q, &a, p);
    if (code == CTL_OK) {
        *out = json_read(builder_bytes(&a.body), &f);
        if (*out == NULL) {
            code = client_problem_set(p, CTL_FAILED, "the answer is not JSON", "is this the address of a Grey Edge node or core?",
                                      "%s", f.text);
        } else if (raw != NULL) {
            builder_add(raw, builder_bytes(&a.body));
        }
    }
    builder_free(&a.body);
    return code;
}

void client_encode(struct builder *out, struct bytes text, bool whole) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        if ((byte != 0 && strchr(plain, byte) != NULL) || (byte == '/' && !whole)) {
            builder_add_byte(out, byte);
        } else {
            builder_addf(out, "%%%02X", byte);
        }
    }
}
