#include "federation/access.h"

#include <string.h>

static const char *const names[ACCESS_ROLE_COUNT] = {"none", "viewer", "operator", "admin"};

const char *access_role_name(enum access_role role) {
    return (unsigned)role < ACCESS_ROLE_COUNT ? names[role] : "none";
}

bool access_role_parse(struct bytes text, enum access_role *out) {
    for (unsigned i = ROLE_VIEWER; i < ACCESS_ROLE_COUNT; i++) {
        if (bytes_equal_str(text, names[i])) {
            *out = (enum access_role)i;
            return true;
        }
    }
    *out = ROLE_NONE;
    return false;
}

long access_path_match(const char *route, struct bytes path, size_t *argument_size) {
    size_t size = strlen(route), head = 0, tail = 0;
    *argument_size = 0;
    while (head < size && route[head] != '*') {
        head++;
    }
    tail = head < size ? size - head - 1 : 0;
    if (head == size && (size < 2 || route[size - 1] != '/')) {
        return bytes_equal_str(path, route) ? 0 : -1;
    }
    if (path.size <= head + tail || memcmp(path.data, route, head) != 0 ||
        (tail > 0 && memcmp(path.data + path.size - tail, route + head + 1, tail) != 0)) {
        return -1;
    }
    *argument_size = path.size - head - tail;
    return (long)head;
}

/* Texts one behind the other, as far as there is room. */
static void put(char *out, size_t room, const char *a, const char *b, const char *c) {
    const char *const parts[] = {a, b, c};
    size_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t size = strlen(parts[i]);
        size = size < room - 1 - used ? size : room - 1 - used;
        memcpy(out + used, parts[i], size);
        used += size;
    }
    out[used] = 0;
}

static void know(struct access_verdict *v, enum access_role role, const char *kind, const char *id, const char *name) {
    v->role = role;
    put(v->who, sizeof v->who, kind, id, name);
}

static void refuse(struct access_verdict *v, enum grey_error err, bool guessed, const char *why, const char *what) {
    v->err = err;
    v->guessed = guessed;
    put(v->detail, sizeof v->detail, why, what, "");
}

/* "grey://site/node" of this site. */
static bool is_gateway(const struct access_call *c) {
    static const char scheme[] = "grey://";
    size_t size = c->site == NULL ? 0 : strlen(c->site);
    const char *at = c->uri + sizeof scheme - 1;
    return size > 0 && strncmp(c->uri, scheme, sizeof scheme - 1) == 0 && strncmp(at, c->site, size) == 0 && at[size] == '/' &&
           at[size + 1] != 0;
}

static void judge_certificate(const struct access_call *c, struct access_verdict *v) {
    enum access_role role;
    if (c->role[0] != 0 && access_role_parse(bytes_str(c->role), &role)) {
        know(v, role, "certificate ", c->name, "");
    } else if (c->role[0] == 0 && is_gateway(c)) { /* a gateway may do all that way that it may do as a peer */
        know(v, ROLE_ADMIN, "certificate ", c->uri, "");
    } else {
        know(v, ROLE_NONE, "certificate ", c->uri[0] != 0 ? c->uri : c->name, "");
        refuse(v, E_DENIED, true, "this certificate gives no role here: ", v->who);
    }
}

static void judge_token(const struct access_call *c, struct access_verdict *v) {
    struct bytes token = bearer_of(c->authorization);
    char id[BEARER_ID_BYTES + 1];
    if (token.size == 0) {
        refuse(v, E_UNKNOWN_CALLER, true, "Authorization: wanted is 'Bearer' and a token", "");
    } else if (!bearer_id(token, id)) {
        refuse(v, E_UNKNOWN_CALLER, true, "this is no token of Grey Edge", "");
    } else if (c->bearer == NULL || !bearer_fits(c->bearer, token)) { /* which of both is not told */
        refuse(v, E_UNKNOWN_CALLER, true, "no such token: it was revoked, has expired or never was", "");
    } else if (c->bearer->expires_ms <= c->now_ms) {
        refuse(v, E_UNKNOWN_CALLER, false, "this token has expired: ", id);
    } else {
        char name[BEARER_NAME_BYTES + 2] = "";
        put(name, sizeof name, c->bearer->name[0] != 0 ? " " : "", c->bearer->name, "");
        know(v, (enum access_role)c->bearer->role, "token ", id, name);
    }
}

/* A page from elsewhere, in a browser on this machine, could reach an open door with the user knowing nothing of it.  Its own page may. */
static bool is_foreign_page(const struct access_call *c) {
    static const char *const own[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};
    size_t scheme = strlen("http://");
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        size_t size = strlen(own[i]);
        if (c->origin.size >= size && memcmp(c->origin.data, own[i], size) == 0 &&
            (c->origin.size == size || c->origin.data[size] == ':') &&
            bytes_equal(c->host, bytes_of(c->origin.data + scheme, c->origin.size - scheme))) {
            return false;
        }
    }
    return c->origin.size > 0;
}

void access_judge(const struct access_call *c, enum access_role least, struct access_verdict *v) {
    bool certified = c->uri[0] != 0 || c->name[0] != 0 || c->role[0] != 0;
    *v = (struct access_verdict){.err = E_OK};
    know(v, ROLE_NONE, "anyone", "", "");
    if (least == ROLE_NONE) {
        return;
    }
    if (c->authorization.size > 0) { /* said on purpose, so it counts before what is merely there */
        judge_token(c, v);
    } else if (c->door == DOOR_SOCKET) {
        know(v, c->is_owner ? ROLE_ADMIN : c->in_group ? ROLE_OPERATOR : ROLE_NONE, "socket", "", "");
        if (v->role == ROLE_NONE) {
            refuse(v, E_DENIED, false,
                   "this socket is for root, for the user of the daemon and for the group of security.auth.socket_group", "");
        }
    } else if (certified) {
        judge_certificate(c, v);
    } else if (c->door == DOOR_OPEN && least > ROLE_VIEWER && is_foreign_page(c)) {
        refuse(v, E_DENIED, false, "a web page from elsewhere may not do that through a browser on this machine", "");
    } else if (c->door == DOOR_OPEN) {
        know(v, ROLE_ADMIN, "anyone", "", "");
    } else {
        refuse(v, E_UNKNOWN_CALLER, false, "say who you are: a client certificate, or 'Authorization: Bearer' and a token", "");
    }
    if (v->err == E_OK && v->role < least) {
        refuse(v, E_DENIED, false, "this takes the role ", access_role_name(least));
    }
}
