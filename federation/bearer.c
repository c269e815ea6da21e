#include "federation/bearer.h"

#include <string.h>

#define PREFIX "grey_"
#define PREFIX_BYTES 5u
#define ID_SEED_BYTES (BEARER_ID_BYTES / 2)

void bearer_make(const uint8_t seed[BEARER_SEED_BYTES], char text[BEARER_BYTES + 1], struct bearer *b) {
    char *at = text + PREFIX_BYTES;
    memcpy(text, PREFIX, PREFIX_BYTES);
    bytes_hex(seed, ID_SEED_BYTES, at);
    memcpy(b->id, at, BEARER_ID_BYTES);
    b->id[BEARER_ID_BYTES] = 0;
    at[BEARER_ID_BYTES] = '_';
    bytes_hex(seed + ID_SEED_BYTES, BEARER_SEED_BYTES - ID_SEED_BYTES, at + BEARER_ID_BYTES + 1);
    text[BEARER_BYTES] = 0;
    digest_sha256(bytes_of(text, BEARER_BYTES), b->hash);
}

struct bytes bearer_of(struct bytes authorization) {
    static const char scheme[] = "bearer ";
    size_t size = sizeof scheme - 1;
    if (authorization.size <= size) {
        return bytes_of(NULL, 0);
    }
    for (size_t i = 0; i < size; i++) { /* schemes are case-insensitive (RFC 9110, 11.1) */
        uint8_t c = authorization.data[i];
        if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != scheme[i]) {
            return bytes_of(NULL, 0);
        }
    }
    while (size < authorization.size && authorization.data[size] == ' ') {
        size++;
    }
    return bytes_of(authorization.data + size, authorization.size - size);
}

bool bearer_id(struct bytes token, char id[BEARER_ID_BYTES + 1]) {
    memset(id, 0, BEARER_ID_BYTES + 1);
    if (token.size != BEARER_BYTES || memcmp(token.data, PREFIX, PREFIX_BYTES) != 0) {
        return false;
    }
    for (size_t i = PREFIX_BYTES; i < BEARER_BYTES; i++) {
        uint8_t c = token.data[i];
        bool well = i == PREFIX_BYTES + BEARER_ID_BYTES ? c == '_' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (!well) {
            return false;
        }
    }
    memcpy(id, token.data + PREFIX_BYTES, BEARER_ID_BYTES);
    return true;
}

bool bearer_fits(const struct bearer *b, struct bytes token) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    volatile uint8_t difference = 0; /* read to its end, whatever was found before */
    digest_sha256(token, hash);
    for (size_t i = 0; i < sizeof hash; i++) {
        difference = (uint8_t)(difference | (hash[i] ^ b->hash[i]));
    }
    return difference == 0;
}

bool bearer_name_valid(struct bytes name) {
    bool well = name.size <= BEARER_NAME_BYTES;
    for (size_t i = 0; i < name.size && well; i++) {
        well = name.data[i] >= 0x20 && name.data[i] <= 0x7e;
    }
    return well;
}
