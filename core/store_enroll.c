#include "core/store_enroll.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/store_backend.h"
#include "core/store_restored.h"
#include "federation/invite.h"

#define DAY_MS INT64_C(86400000)
#define LIST_MAX 10000

static struct store_value text(const char *t) {
    return store_bytes(bytes_str(t));
}

static struct store_value hash(const uint8_t *h) {
    return store_bytes(bytes_of(h, DIGEST_SHA256_BYTES));
}

/* --- tokens ------------------------------------------------------------------------------------------------------------------------------- */

enum grey_error store_token_add(struct store *s, const struct store_token *t, struct fault *f) {
    const struct store_value in[] = {hash(t->hash),
                                     text(t->site),
                                     store_number(t->nodes),
                                     store_number(t->created_ms),
                                     store_number(t->expires_ms),
                                     t->node == NULL ? (struct store_value){0} : text(t->node)};
    return s->ops->run(s, STORE_TOKEN_ADD, in, 6, f);
}

/* --- TPMs ---------------------------------------------------------------------------------------------------------------------------------- */

enum grey_error store_tpm_add(struct store *s, const uint8_t ek[DIGEST_SHA256_BYTES], const char *site, const char *node,
                              int64_t now_ms, struct fault *f) {
    const struct store_value in[] = {hash(ek), text(site), text(node), store_number(now_ms)};
    enum grey_error err = s->ops->run(s, STORE_TPM_CLEAR, in + 1, 2, f); /* the board was replaced */
    err = err != E_OK ? err : s->ops->run(s, STORE_TPM_ADD, in, 4, f);
    return err != E_OK ? err : store_mark(s, f);
}

/* doubted: it was registered before the store was put back.  E_NOT_FOUND. */
static enum grey_error find_tpm(struct store *s, const uint8_t *ek, char *site, char *node, bool *doubted, struct fault *f) {
    const struct store_value in[] = {hash(ek)};
    struct store_rows *rows = NULL;
    bool row = false;
    *doubted = false;
    enum grey_error err = s->ops->ask(s, STORE_TPM, in, 1, &rows, f);
    err = err != E_OK || rows == NULL ? err : s->ops->next(rows, &row, f);
    if (err == E_OK && row) {
        struct bytes names[] = {s->ops->bytes(rows, 0), s->ops->bytes(rows, 1)};
        (void)snprintf(site, LIMIT_NAME_BYTES + 1, "%.*s", (int)names[0].size, (const char *)names[0].data);
        (void)snprintf(node, LIMIT_NAME_BYTES + 1, "%.*s", (int)names[1].size, (const char *)names[1].data);
        *doubted = s->ops->number(rows, 2) != 0;
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err == E_OK && !row ? E_NOT_FOUND : err;
}

enum grey_error store_tpm_of(struct store *s, const char *site, const char *node, uint8_t ek[DIGEST_SHA256_BYTES],
                             struct fault *f) {
    const struct store_value in[] = {text(site), text(node)};
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_TPM_OF, in, 2, &rows, f);
    err = err != E_OK || rows == NULL ? err : s->ops->next(rows, &row, f);
    if (err == E_OK && row && s->ops->bytes(rows, 0).size == DIGEST_SHA256_BYTES) {
        memcpy(ek, s->ops->bytes(rows, 0).data, DIGEST_SHA256_BYTES);
    } else if (err == E_OK) {
        err = E_NOT_FOUND;
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

enum grey_error store_tpm_remove(struct store *s, const uint8_t ek[DIGEST_SHA256_BYTES], struct fault *f) {
    const struct store_value in[] = {hash(ek)};
    char site[LIMIT_NAME_BYTES + 1], node[LIMIT_NAME_BYTES + 1];
    bool doubted;
    enum grey_error err = find_tpm(s, ek, site, node, &doubted, f);
    err = err != E_OK ? err : s->ops->run(s, STORE_TPM_REMOVE, in, 1, f);
    return err != E_OK ? err : store_mark(s, f);
}

enum grey_error store_tpm_invite(struct store *s, const uint8_t ek[DIGEST_SHA256_BYTES], const uint8_t token[DIGEST_SHA256_BYTES],
                                 int64_t now_ms, int64_t life_ms, char *site, char *node, struct fault *f) {
    bool doubted;
    enum grey_error err = find_tpm(s, ek, site, node, &doubted, f);
    if (err == E_NOT_FOUND) {
        return fault_set(f, E_TOKEN_UNKNOWN, "the TPM with this certificate was not registered at this core");
    }
    if (err == E_OK && doubted) {
        return fault_set(f, E_STORE_RESTORED, "the registration of the TPM for gateway '%s' of site '%s'", node, site);
    }
    const struct store_value in[] = {text(site), text(node)};
    err = err != E_OK ? err
                      : s->ops->run(s, STORE_TOKEN_DROP, in, 2, f); /* one at a time, so who asks again and again fills nothing */
    struct store_token t = {.site = site, .node = node, .nodes = 1, .created_ms = now_ms, .expires_ms = now_ms + life_ms};
    memcpy(t.hash, token, sizeof t.hash);
    return err != E_OK ? err : store_token_add(s, &t, f);
}

enum grey_error store_tpm_list(struct store *s, struct json_writer *w, struct fault *f) {
    const struct store_value in[] = {store_number(LIST_MAX)};
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_TPMS, in, 1, &rows, f);
    json_open(w, '[');
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        char hex[2 * DIGEST_SHA256_BYTES + 1] = "";
        struct bytes ek = s->ops->bytes(rows, 0);
        if (ek.size == DIGEST_SHA256_BYTES) {
            bytes_hex(ek.data, ek.size, hex);
        }
        json_open(w, '{');
        json_member_str(w, "ek", hex);
        json_member_text(w, "site", s->ops->bytes(rows, 1));
        json_member_text(w, "node", s->ops->bytes(rows, 2));
        store_put_time(w, "registered", s->ops->number(rows, 3));
        json_close(w);
    }
    json_close(w);
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

/* --- lists and ends of tokens --------------------------------------------------------------------------------------------------------------- */

enum grey_error store_token_list(struct store *s, int64_t now_ms, struct json_writer *w, struct fault *f) {
    const struct store_value in[] = {store_number(now_ms - DAY_MS), store_number(LIST_MAX)};
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_TOKENS, in, 2, &rows, f);
    json_open(w, '[');
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        char id[9];
        bytes_hex(s->ops->bytes(rows, 0).data, 4, id);
        json_open(w, '{');
        json_member_str(w, "id", id);
        json_member_text(w, "site", s->ops->bytes(rows, 1));
        json_member_int(w, "nodes", s->ops->number(rows, 2));
        json_member_int(w, "used", s->ops->number(rows, 3));
        store_put_time(w, "created", s->ops->number(rows, 4));
        store_put_time(w, "expires", s->ops->number(rows, 5));
        json_close(w);
    }
    json_close(w);
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

enum grey_error store_token_end(struct store *s, const char *id, int64_t now_ms, struct fault *f) {
    const struct store_value all[] = {store_number(now_ms), store_number(LIST_MAX)};
    uint8_t found[DIGEST_SHA256_BYTES] = {0}, first[4];
    struct store_rows *rows = NULL;
    bool row = false, there = false;
    if (strlen(id) != 8 || !bytes_unhex(id, sizeof first, first)) {
        return E_NOT_FOUND;
    }
    enum grey_error err = s->ops->ask(s, STORE_TOKENS, all, 2, &rows, f);
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        struct bytes one = s->ops->bytes(rows, 0);
        if (one.size == sizeof found && memcmp(one.data, first, sizeof first) == 0) {
            memcpy(found, one.data, sizeof found);
            there = true;
        }
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    const struct store_value in[] = {hash(found), store_number(now_ms)};
    err = err != E_OK ? err : !there ? E_NOT_FOUND : s->ops->run(s, STORE_TOKEN_END, in, 2, f);
    return err != E_OK ? err : store_mark(s, f);
}

/* --- who may have a certificate ----------------------------------------------------------------------------------------------------------- */

/* The newest certificate of a key. */
struct known {
    bool there, by_token; /* by the token that is shown now */
    bool same_name, revoked;
    int64_t not_after_ms;
};

static enum grey_error find_key(struct store *s, const struct store_enroll *q, struct known *k, struct builder *pem,
                                struct fault *f) {
    const struct store_value in[] = {hash(q->key)};
    struct store_rows *rows = NULL;
    bool row = false;
    *k = (struct known){0};
    enum grey_error err = s->ops->ask(s, STORE_CERTIFICATE_OF_KEY, in, 1, &rows, f);
    err = err != E_OK || rows == NULL ? err : s->ops->next(rows, &row, f);
    if (err == E_OK && row) {
        struct bytes token = s->ops->bytes(rows, 2);
        k->there = true;
        k->same_name = bytes_equal_str(s->ops->bytes(rows, 0), q->site) && bytes_equal_str(s->ops->bytes(rows, 1), q->node);
        k->by_token = q->token != NULL && token.size == DIGEST_SHA256_BYTES && memcmp(token.data, q->token, token.size) == 0;
        k->not_after_ms = s->ops->number(rows, 3);
        k->revoked = s->ops->number(rows, 4) != 0;
        builder_add(pem, s->ops->bytes(rows, 5));
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

/* Gateways ask when a third of it is over; who asks earlier has lost the answer. */
static bool is_young(const struct known *k, const struct store_enroll *q) {
    return k->not_after_ms - q->now_ms > q->life_ms / 4 * 3;
}

static enum grey_error renew(const struct store_enroll *q, const struct known *k, struct builder *again, struct fault *f) {
    if (!k->same_name) {
        return fault_set(f, E_TOKEN_NODE, "this key was enrolled under another name than '%s' of site '%s'", q->node, q->site);
    }
    if (k->revoked) {
        return fault_set(f, E_REVOKED, "node '%s' of site '%s'", q->node, q->site);
    }
    if (q->now_ms - k->not_after_ms > STORE_ENROLL_LAPSED_DAYS * DAY_MS) {
        return fault_set(f, E_TOKEN_EXPIRED, "the last certificate of this key ended more than %d days ago: enrol with a token",
                         STORE_ENROLL_LAPSED_DAYS);
    }
    if (!is_young(k, q)) {
        again->size = 0; /* it is due for a new one */
    }
    return E_OK;
}

static enum grey_error use_token(struct store *s, const struct store_enroll *q, struct fault *f) {
    const struct store_value in[] = {hash(q->token), text(q->site), text(q->node), hash(q->key)};
    enum { NODES, USED, EXPIRES_MS, SITE_FITS, NAME_TAKEN, DOUBTED, COLUMNS };
    int64_t t[COLUMNS] = {0};
    bool found = false;
    enum grey_error err = s->ops->run(s, STORE_TOKEN_LOCK, in, 1, f);
    err = err != E_OK ? err : store_row(s, STORE_TOKEN, in, 4, t, COLUMNS, &found, f);
    if (err != E_OK) {
        return err;
    }
    if (!found) {
        return fault_set(f, E_TOKEN_UNKNOWN, "no token with this secret was made at this core");
    }
    if (t[SITE_FITS] == 0) {
        return fault_set(f, E_TOKEN_SITE, "it does not enrol gateway '%s' of site '%s'", q->node, q->site);
    }
    if (q->now_ms >= t[EXPIRES_MS]) {
        return fault_set(f, E_TOKEN_EXPIRED, "%" PRId64 " min ago", (q->now_ms - t[EXPIRES_MS]) / 60000);
    }
    if (t[DOUBTED] != 0) { /* it may have been used in what was lost */
        return fault_set(f, E_STORE_RESTORED, "a token of site '%s'", q->site);
    }
    if (t[NAME_TAKEN] != 0) {
        return fault_set(f, E_TOKEN_NODE, "this token has enrolled a gateway as node '%s' of site '%s' already", q->node, q->site);
    }
    if (t[USED] >= t[NODES]) {
        return fault_set(f, E_TOKEN_USED, "it was for %" PRId64 " gateways, and so many have used it", t[NODES]);
    }
    err = s->ops->run(s, STORE_TOKEN_USE, in, 1, f);
    return err != E_OK ? err : store_mark(s, f);
}

enum grey_error store_enroll(struct store *s, const struct store_enroll *q, struct builder *again, struct fault *f) {
    struct known k;
    size_t before = again->size;
    enum grey_error err = find_key(s, q, &k, again, f);
    if (err != E_OK || (k.there && (k.by_token || q->token == NULL))) {
        return err != E_OK ? err : renew(q, &k, again, f);
    }
    again->size = before;
    if (q->token == NULL) {
        return fault_set(f, E_TOKEN_UNKNOWN, "this key has never been enrolled here: show a token");
    }
    if (k.there && k.revoked) {
        return fault_set(f, E_REVOKED, "a revoked key does not come back: enrol with a new one");
    }
    return use_token(s, q, f);
}

enum grey_error store_certificate_add(struct store *s, const struct store_enroll *q, const struct store_certificate *c,
                                      struct fault *f) {
    const struct store_value former[] = {text(q->site), text(q->node), hash(q->key), store_number(q->now_ms)};
    const struct store_value in[] = {store_bytes(bytes_of(c->serial, sizeof c->serial)),
                                     hash(q->key),
                                     text(q->site),
                                     text(q->node),
                                     q->token == NULL ? store_bytes(bytes_of(q->key, 0)) : hash(q->token),
                                     store_number(q->now_ms),
                                     store_number(c->not_after_ms),
                                     store_bytes(c->pem)};
    enum grey_error err = s->ops->run(s, STORE_CERTIFICATES_REPLACED, former, 4, f);
    err = err != E_OK ? err : s->ops->run(s, STORE_CERTIFICATE_ADD, in, 8, f);
    return err != E_OK ? err : store_mark(s, f);
}

/* --- revocation --------------------------------------------------------------------------------------------------------------------------- */

enum grey_error store_revoke(struct store *s, const char *site, const char *node, int64_t now_ms, uint32_t *count,
                             struct fault *f) {
    const struct store_value in[] = {text(site), text(node), store_number(now_ms), store_number(node[0] == 0)};
    int64_t counts[2] = {0, 0}; /* that hold, of all */
    bool found = false;
    enum grey_error err = store_row(s, STORE_CERTIFICATES_COUNT, in, 4, counts, 2, &found, f);
    *count = (uint32_t)counts[0];
    if (err == E_OK && counts[1] == 0) {
        return E_NOT_FOUND;
    }
    err = err != E_OK ? err : s->ops->run(s, STORE_CERTIFICATES_REVOKE, in, 4, f);
    return err != E_OK ? err : store_mark(s, f);
}

enum grey_error store_serial_find(struct store *s, const uint8_t serial[CERT_SERIAL_BYTES], bool *found, int64_t *revoked_ms,
                                  struct fault *f) {
    const struct store_value in[] = {store_bytes(bytes_of(serial, CERT_SERIAL_BYTES))};
    *revoked_ms = 0;
    return store_row(s, STORE_SERIAL, in, 1, revoked_ms, 1, found, f);
}

enum grey_error store_serial_revoke(struct store *s, const uint8_t serial[CERT_SERIAL_BYTES], int64_t now_ms, struct fault *f) {
    const struct store_value in[] = {store_bytes(bytes_of(serial, CERT_SERIAL_BYTES)), store_number(now_ms)};
    return s->ops->run(s, STORE_SERIAL_REVOKE, in, 2, f);
}

enum grey_error store_is_revoked(struct store *s, const char *site, const char *node, bool *revoked, struct fault *f) {
    const struct store_value in[] = {text(site), text(node)};
    int64_t at_ms = 0;
    bool found = false;
    enum grey_error err = store_row(s, STORE_REVOKED_IS, in, 2, &at_ms, 1, &found, f);
    *revoked = found && at_ms > 0;
    return err;
}

enum grey_error store_revoked(struct store *s, int64_t now_ms, struct crl_entry *out, size_t max, size_t *count, struct fault *f) {
    const struct store_value in[] = {store_number(now_ms), store_number((int64_t)max)};
    struct store_rows *rows = NULL;
    bool row = false;
    *count = 0;
    enum grey_error err = s->ops->ask(s, STORE_REVOKED, in, 2, &rows, f);
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row && *count < max) {
        struct bytes serial = s->ops->bytes(rows, 0);
        if (serial.size == CERT_SERIAL_BYTES) {
            memcpy(out[*count].serial, serial.data, serial.size);
            out[(*count)++].revoked_s = s->ops->number(rows, 1) / 1000;
        }
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

enum grey_error store_certificate_list(struct store *s, const char *site, struct json_writer *w, struct fault *f) {
    const struct store_value in[] = {text(site), store_number(LIST_MAX), store_number(site[0] == 0)};
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_CERTIFICATES, in, 3, &rows, f);
    json_open(w, '[');
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        char serial[2 * CERT_SERIAL_BYTES + 1] = "";
        struct bytes bytes = s->ops->bytes(rows, 2);
        if (bytes.size == CERT_SERIAL_BYTES) {
            bytes_hex(bytes.data, bytes.size, serial);
        }
        json_open(w, '{');
        json_member_text(w, "site", s->ops->bytes(rows, 0));
        json_member_text(w, "node", s->ops->bytes(rows, 1));
        json_member_str(w, "serial", serial);
        store_put_time(w, "issued", s->ops->number(rows, 3));
        store_put_time(w, "expires", s->ops->number(rows, 4));
        store_put_time_if(w, "revoked", s->ops->number(rows, 5));
        json_close(w);
    }
    json_close(w);
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}
