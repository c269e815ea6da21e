#include "platform/keyring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/limits.h"
#include "platform/ecdsa.h"
#include "platform/keys.h"
#include "platform/vault.h"
#include "platform/wholefile.h"

#define SCHEME "tpm:"

struct place {
    char path[LIMIT_PATH_BYTES + 1], socket[LIMIT_PATH_BYTES + 1]; /* of the service; "": the usual one */
    uint32_t handle;                                               /* 0: it is in a file */
    bool sealed;
};

bool keyring_with_tpm(const char *where) {
    return strncmp(where, SCHEME, sizeof SCHEME - 1) == 0;
}

bool keyring_in_tpm(const char *where) {
    return keyring_with_tpm(where) && where[sizeof SCHEME - 1] != '/';
}

const char *keyring_socket(const char *where) {
    const char *at = keyring_with_tpm(where) ? strchr(where, '@') : NULL;
    return at == NULL ? "" : at + 1;
}

static enum grey_error find(const char *where, struct place *p, struct fault *f) {
    *p = (struct place){.handle = 0};
    const char *name = keyring_with_tpm(where) ? where + sizeof SCHEME - 1 : where;
    size_t size = keyring_with_tpm(where) ? strcspn(name, "@") : strlen(name);
    if (size > LIMIT_PATH_BYTES || strlen(keyring_socket(where)) > LIMIT_PATH_BYTES) {
        return fault_set(f, E_KEY, "%.80s...: too long a name for a key", where);
    }
    memcpy(p->path, name, size);
    memcpy(p->socket, keyring_socket(where), strlen(keyring_socket(where)) + 1);
    p->sealed = keyring_with_tpm(where) && name[0] == '/';
    if (keyring_in_tpm(where)) {
        char *end = NULL;
        unsigned long handle = strtoul(p->path, &end, 0);
        if (*end != 0 || handle < VAULT_HANDLE_FIRST || handle > VAULT_HANDLE_LAST) {
            return fault_set(f, E_KEY, "%.80s: neither a file nor a handle from 0x%08x to 0x%08x", where, VAULT_HANDLE_FIRST,
                             VAULT_HANDLE_LAST);
        }
        p->handle = (uint32_t)handle;
    }
    return E_OK;
}

static void wipe(struct builder *b) {
    if (b->data != NULL) {
        keys_wipe(b->data, b->size);
    }
    builder_free(b);
}

/* --- a key at a handle ---------------------------------------------------------------------------------------------------------------------- */

struct lodger {
    char socket[LIMIT_PATH_BYTES + 1];
    uint32_t handle;
    uint8_t point[VAULT_PAIR_BYTES];
};

static enum grey_error lodger_public(void *key, struct builder *der, struct fault *f) {
    ecdsa_put_public(((const struct lodger *)key)->point, der);
    return der->err == E_OK ? E_OK : fault_set(f, der->err, "public half of a key");
}

static enum grey_error lodger_sign(void *key, const uint8_t hash[DIGEST_SHA256_BYTES], struct builder *der, struct fault *f) {
    const struct lodger *l = key;
    uint8_t signature[VAULT_PAIR_BYTES];
    enum grey_error err = vault_sign(l->socket, l->handle, hash, signature, f);
    if (err == E_OK) {
        ecdsa_put_signature(signature, der);
        err = der->err == E_OK ? E_OK : fault_set(f, der->err, "signing");
    }
    return err;
}

static enum grey_error open_lodger(const struct place *p, struct keysign *out, struct fault *f) {
    struct lodger *l = mem_new(1, sizeof *l);
    if (l == NULL) {
        return fault_set(f, E_NO_MEMORY, "key");
    }
    memcpy(l->socket, p->socket, sizeof l->socket);
    l->handle = p->handle;
    enum grey_error err = vault_public(l->socket, l->handle, l->point, f);
    if (err != E_OK) {
        mem_free(l);
        return err;
    }
    *out = (struct keysign){.public_key = lodger_public, .sign = lodger_sign, .release = mem_free, .key = l};
    return E_OK;
}

/* --- by name -------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error read_place(const struct place *p, struct builder *key, struct fault *f) {
    struct builder text;
    if (p->handle != 0) {
        return fault_set(f, E_KEY, "a key in a TPM cannot be read");
    }
    builder_init(&text, KEYRING_TEXT_BYTES_MAX);
    enum grey_error err = wholefile_read(p->path, &text, f); /* with a NUL */
    if (err == E_OK && p->sealed) {
        err = vault_is_sealed(builder_bytes(&text)) ? vault_unseal(p->socket, builder_bytes(&text), key, f)
                                                    : fault_set(f, E_KEY, "%s is not what a TPM sealed", p->path);
    } else if (err == E_OK) {
        builder_add(key, builder_bytes(&text));
        err = key->err == E_OK ? E_OK : fault_set(f, key->err, "%s", p->path);
    }
    wipe(&text);
    return err;
}

enum grey_error keyring_read(const char *where, struct builder *key, struct fault *f) {
    struct place p;
    enum grey_error err = find(where, &p, f);
    return err != E_OK ? err : read_place(&p, key, f);
}

enum grey_error keyring_open(const char *where, struct keysign *out, struct fault *f) {
    struct place p;
    struct builder key;
    *out = (struct keysign){0};
    enum grey_error err = find(where, &p, f);
    if (err != E_OK || p.handle != 0) {
        return err != E_OK ? err : open_lodger(&p, out, f);
    }
    builder_init(&key, KEYRING_TEXT_BYTES_MAX);
    err = read_place(&p, &key, f);
    err = err != E_OK ? err : keysign_open(builder_bytes(&key), out, f);
    wipe(&key);
    return err;
}

enum grey_error keyring_make(const char *where, bool *made, struct fault *f) {
    struct place p;
    struct builder key, line;
    uint8_t point[VAULT_PAIR_BYTES];
    *made = false;
    enum grey_error err = find(where, &p, f);
    if (err != E_OK) {
        return err;
    }
    if (p.handle != 0) {
        err = vault_public(p.socket, p.handle, point, f);
        *made = err == E_VAULT_OTHER;
        return *made ? vault_make(p.socket, p.handle, point, f) : err;
    }
    if (wholefile_exists(p.path)) {
        return E_OK;
    }
    builder_init(&key, 1024);
    builder_init(&line, KEYRING_TEXT_BYTES_MAX);
    err = p.sealed ? keys_new_p256_der(&key, f) : keys_new_p256(&key, f);
    err = err != E_OK || !p.sealed ? err : vault_seal(p.socket, builder_bytes(&key), &line, f);
    err = err != E_OK ? err : wholefile_write(p.path, builder_bytes(p.sealed ? &line : &key), 0600, f);
    *made = err == E_OK;
    wipe(&key);
    builder_free(&line);
    return err;
}
