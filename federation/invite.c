#include "federation/invite.h"

#include <string.h>

#define PREFIX "grey1:"

/* Appends at *at and goes behind it. */
static void append(char **at, const char *text) {
    size_t size = strlen(text);
    memcpy(*at, text, size + 1);
    *at += size;
}

void invite_write(const struct invite *i, char out[INVITE_TEXT_BYTES]) {
    char secret[2 * INVITE_SECRET_BYTES + 1], fingerprint[2 * DIGEST_SHA256_BYTES + 1];
    bytes_hex(i->secret, sizeof i->secret, secret);
    bytes_hex(i->fingerprint, sizeof i->fingerprint, fingerprint);
    append(&out, PREFIX);
    append(&out, i->site.text);
    append(&out, ":");
    append(&out, secret);
    append(&out, ":");
    append(&out, fingerprint);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t size_until(const char *text, char end) {
    size_t size = 0;
    while (text[size] != 0 && text[size] != end) {
        size++;
    }
    return size;
}

enum grey_error invite_read(const char *text, struct invite *out, struct fault *f) {
    size_t size = 0, prefix = strlen(PREFIX);
    memset(out, 0, sizeof *out);
    while (is_blank(*text)) {
        text++;
    }
    while (text[size] != 0 && !is_blank(text[size])) {
        size++;
    }
    const char *behind = text + size;
    while (is_blank(*behind)) {
        behind++;
    }
    if (*behind != 0 || size < prefix || memcmp(text, PREFIX, prefix) != 0) {
        return fault_set(f, E_TOKEN_UNKNOWN, "a token is one line that begins with " PREFIX);
    }
    const char *site = text + prefix;
    size_t site_size = size_until(site, ':'), hex_size = 2 * INVITE_SECRET_BYTES + 1 + 2 * DIGEST_SHA256_BYTES;
    const char *secret = site + site_size + 1, *fingerprint = secret + (size_t)2 * INVITE_SECRET_BYTES + 1;
    if (!grey_name_valid(site, site_size)) {
        return fault_set(f, E_TOKEN_UNKNOWN, "the token names no site");
    }
    if (size != prefix + site_size + 1 + hex_size) {
        return fault_set(f, E_TOKEN_UNKNOWN, "the token has %zu characters where it should have %zu: was it cut?", size,
                         prefix + site_size + 1 + hex_size);
    }
    if (!bytes_unhex(secret, sizeof out->secret, out->secret) || fingerprint[-1] != ':' ||
        !bytes_unhex(fingerprint, sizeof out->fingerprint, out->fingerprint)) {
        return fault_set(f, E_TOKEN_UNKNOWN, "the token holds something else than hexadecimal digits");
    }
    memcpy(out->site.text, site, site_size);
    return E_OK;
}

/* The first half of SHA-256 of "grey-enrol-by-tpm-1" with its NUL, and the challenge's secret. */
void invite_of_challenge(const uint8_t challenge[DIGEST_SHA256_BYTES], uint8_t secret[INVITE_SECRET_BYTES]) {
    static const char label[] = "grey-enrol-by-tpm-1";
    uint8_t all[sizeof label + DIGEST_SHA256_BYTES], hash[DIGEST_SHA256_BYTES];
    memcpy(all, label, sizeof label);
    memcpy(all + sizeof label, challenge, DIGEST_SHA256_BYTES);
    digest_sha256(bytes_of(all, sizeof all), hash);
    memcpy(secret, hash, INVITE_SECRET_BYTES);
}
