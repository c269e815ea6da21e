#include "platform/keysign.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <mbedtls/error.h>
#include <mbedtls/pk.h>
#include <string.h>

#include "platform/keys.h"

static enum grey_error refuse(struct fault *f, const char *what, int code) {
    char reason[128];
    mbedtls_strerror(code, reason, sizeof reason);
    return fault_set(f, E_KEY, "%s: %s", what, reason);
}

static enum grey_error public_key(void *key, struct builder *der, struct fault *f) {
    unsigned char room[KEYSIGN_PUBLIC_BYTES_MAX];
    int size = mbedtls_pk_write_pubkey_der(key, room, sizeof room); /* at the end of the room */
    if (size < 0) {
        return refuse(f, "public half of a key", size);
    }
    builder_add(der, bytes_of(room + sizeof room - size, (size_t)size));
    return der->err == E_OK ? E_OK : fault_set(f, der->err, "public half of a key");
}

static enum grey_error sign(void *key, const uint8_t hash[DIGEST_SHA256_BYTES], struct builder *der, struct fault *f) {
    unsigned char room[MBEDTLS_PK_SIGNATURE_MAX_SIZE];
    size_t size = 0;
    int code = mbed_sign(key, hash, room, sizeof room, &size);
    if (code != 0) {
        return refuse(f, "signing", code);
    }
    builder_add(der, bytes_of(room, size));
    return der->err == E_OK ? E_OK : fault_set(f, der->err, "signing");
}

static void release(void *key) {
    mbedtls_pk_free(key); /* wipes it */
    mem_free(key);
}

enum grey_error keysign_open(struct bytes text, struct keysign *out, struct fault *f) {
    mbedtls_pk_context *key = mem_new(1, sizeof *key);
    *out = (struct keysign){0};
    if (key == NULL) {
        return fault_set(f, E_NO_MEMORY, "key");
    }
    mbedtls_pk_init(key);
    int code = mbed_parse_key(key, text);
    enum grey_error err = code != 0 ? refuse(f, "key", code) : E_OK;
    if (err == E_OK && !mbed_is_p256(key)) {
        err = fault_set(f, E_KEY, "key: not a P-256 key");
    }
    if (err != E_OK) {
        release(key);
        return err;
    }
    *out = (struct keysign){.public_key = public_key, .sign = sign, .release = release, .key = key};
    return E_OK;
}

enum grey_error keysign_open_pem(const char *pem, struct keysign *out, struct fault *f) {
    return keysign_open(bytes_of(pem, strlen(pem) + 1), out, f);
}

void keysign_close(struct keysign *k) {
    if (k->release != NULL) {
        k->release(k->key);
    }
    *k = (struct keysign){0};
}
