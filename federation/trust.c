#include "federation/trust.h"

#include <string.h>

bool trust_split(struct bytes text, struct trust_parts *out) {
    static const char certificate[] = "-----BEGIN CERTIFICATE-----", list[] = "-----BEGIN X509 CRL-----",
                      end[] = "-----END X509 CRL-----\n";
    size_t size = strlen(list), at = 0;
    if (text.size < size + strlen(end) || memcmp(text.data, certificate, strlen(certificate)) != 0 ||
        memcmp(text.data + text.size - strlen(end), end, strlen(end)) != 0) {
        return false;
    }
    while (at + size <= text.size && memcmp(text.data + at, list, size) != 0) {
        at++;
    }
    out->authorities = bytes_of(text.data, at);
    out->list = bytes_of(text.data + at, text.size - at);
    return at + size <= text.size;
}
