/* Verbs by which operators take gateways in at the core, and shut them out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ctl/listing.h"
#include "platform/cert.h"
#include "platform/digest.h"
#include "platform/ekcert.h"

int admit_token(struct call *c) {
    const char *site = verbs_option(c, "site");
    uint64_t nodes, seconds = 3600;
    struct builder body;
    json_t *doc;
    int code;
    if (site == NULL) {
        (void)fputs("greyctl: --site says whose gateways the token is for\n", stderr);
        return CTL_USAGE;
    }
    if (!verbs_named("site", site) || !verbs_number(c, "nodes", 1, 64, 1, &nodes) || !verbs_seconds(c, "ttl", 30, &seconds)) {
        return CTL_USAGE;
    }
    builder_init(&body, 1024);
    builder_addf(&body, "{\"site\":\"%s\",\"nodes\":%" PRIu64 ",\"ttl_seconds\":%" PRIu64 "}", site, nodes, seconds);
    if (verbs_send_json(c, CLIENT_CORE, "POST", "/v1/enroll/tokens", &body, &doc, &code)) {
        return code;
    }
    /* the token alone on stdout, so that scripts can take it */
    (void)printf("%s\n", verbs_text(doc, "token"));
    (void)fprintf(stderr,
                  "for %" PRIu64 " gateway%s of site %s, until %s; on each of them:\n"
                  "  greyd enroll --core https://THIS-CORE:PORT --token TOKEN --node NAME\n"
                  "It is shown this once.  Whoever has it can enrol until then: 'greyctl enroll end %s' ends it.\n",
                  nodes, nodes == 1 ? "" : "s", site, verbs_text(doc, "expires"), verbs_text(doc, "id"));
    json_decref(doc);
    return CTL_OK;
}

int admit_list(struct call *c) {
    static const struct listing_column columns[] = {LISTING("TOKEN", "id"), LISTING("SITE", "site"), LISTING("GATEWAYS>", "nodes"),
                                                    LISTING("USED>", "used"), LISTING("EXPIRES", "expires")};
    static const struct listing l = {.columns = columns, .count = sizeof columns / sizeof columns[0]};
    return listing_get(c, CLIENT_CORE, "/v1/enroll/tokens", &l);
}

int admit_end(struct call *c) {
    char path[64];
    struct builder none;
    json_t *doc;
    int code;
    if (strlen(c->args[0]) != 8 || strspn(c->args[0], "0123456789abcdef") != 8) {
        (void)fprintf(stderr, "greyctl: '%.40s' is no token's id; 'greyctl enroll list' shows them\n", c->args[0]);
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/enroll/tokens/%s", c->args[0]);
    builder_init(&none, 16);
    if (verbs_send_json(c, CLIENT_CORE, "DELETE", path, &none, &doc, &code)) {
        return code;
    }
    (void)printf("token %s enrols nobody any more\n", c->args[0]);
    json_decref(doc);
    return CTL_OK;
}

#define EK_HEX_BYTES ((size_t)2 * DIGEST_SHA256_BYTES)

static bool is_digest(const char *text) {
    return strlen(text) == EK_HEX_BYTES && strspn(text, "0123456789abcdefABCDEF") == EK_HEX_BYTES;
}

/* A certificate's file, PEM or DER, or SHA-256 of it as grey-tpm status shows it. */
static bool read_ek(const char *text, char hex[EK_HEX_BYTES + 1]) {
    struct builder der;
    struct fault f = {0};
    uint8_t digest[DIGEST_SHA256_BYTES], room[EKCERT_BYTES_MAX];
    if (is_digest(text)) {
        memcpy(hex, text, EK_HEX_BYTES + 1);
        return true;
    }
    FILE *file = fopen(text, "re");
    size_t size = file == NULL ? 0 : fread(room, 1, sizeof room - 1, file);
    if (file != NULL) {
        (void)fclose(file);
    }
    room[size] = 0;
    builder_init(&der, EKCERT_BYTES_MAX);
    if (size > 0 && memcmp(room, "-----", 5) != 0) {
        builder_add(&der, bytes_of(room, size));
    } else if (size == 0 || cert_to_der((const char *)room, &der, &f) != E_OK) {
        (void)fprintf(stderr, "greyctl: '%.80s' is neither a certificate's file nor its SHA-256, as 'grey-tpm status' shows it\n",
                      text);
        builder_free(&der);
        return false;
    }
    digest_sha256(builder_bytes(&der), digest);
    bytes_hex(digest, sizeof digest, hex);
    builder_free(&der);
    return true;
}

int admit_register(struct call *c) {
    const char *ek = verbs_option(c, "ek"), *site = verbs_option(c, "site"), *node = verbs_option(c, "node");
    char hex[EK_HEX_BYTES + 1];
    struct builder body;
    json_t *doc;
    int code;
    if (ek == NULL || site == NULL || node == NULL) {
        (void)fputs("greyctl: --ek, --site and --node say whose TPM comes in as which gateway\n", stderr);
        return CTL_USAGE;
    }
    if (!verbs_named("site", site) || !verbs_named("gateway", node) || !read_ek(ek, hex)) {
        return CTL_USAGE;
    }
    builder_init(&body, 1024);
    builder_addf(&body, "{\"ek\":\"%s\",\"site\":\"%s\",\"node\":\"%s\"}", hex, site, node);
    if (verbs_send_json(c, CLIENT_CORE, "POST", "/v1/enroll/tpms", &body, &doc, &code)) {
        return code;
    }
    (void)printf("the board with the endorsement certificate %.16s... comes in as %s of site %s; on it:\n"
                 "  greyd enroll --core https://THIS-CORE:PORT --root FINGERPRINT-OF-THE-ROOT --tpm device:/dev/tpmrm0\n",
                 hex, node, site);
    json_decref(doc);
    return CTL_OK;
}

int admit_registered(struct call *c) {
    static const struct listing_column columns[] = {LISTING("SITE", "site"), LISTING("NODE", "node"),
                                                    LISTING("REGISTERED", "registered"), LISTING("CERTIFICATE", "ek")};
    static const struct listing l = {.columns = columns, .count = sizeof columns / sizeof columns[0]};
    return listing_get(c, CLIENT_CORE, "/v1/enroll/tpms", &l);
}

int admit_unregister(struct call *c) {
    char path[128], hex[EK_HEX_BYTES + 1];
    struct builder none;
    json_t *doc;
    int code;
    if (!read_ek(c->args[0], hex)) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/enroll/tpms/%s", hex);
    builder_init(&none, 16);
    if (verbs_send_json(c, CLIENT_CORE, "DELETE", path, &none, &doc, &code)) {
        return code;
    }
    (void)printf("that TPM enrols nobody any more; what it has already holds until 'greyctl enroll revoke'\n");
    json_decref(doc);
    return CTL_OK;
}

int admit_certificates(struct call *c) {
    static const struct listing_column columns[] = {LISTING("SITE", "site"),       LISTING("NODE", "node"),
                                                    LISTING("ISSUED", "issued"),   LISTING("EXPIRES", "expires"),
                                                    LISTING("REVOKED", "revoked"), LISTING_WIDE("SERIAL", "serial")};
    static const struct listing l = {.columns = columns, .count = sizeof columns / sizeof columns[0]};
    const char *site = verbs_option(c, "site");
    char path[128];
    if (site != NULL && !verbs_named("site", site)) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/certificates%s%s", site != NULL ? "?site=" : "", site != NULL ? site : "");
    return listing_get(c, CLIENT_CORE, path, &l);
}

int admit_revoke(struct call *c) {
    struct builder body;
    json_t *doc;
    int code;
    if (!verbs_named("site", c->args[0]) || (c->arg_count > 1 && !verbs_named("gateway", c->args[1]))) {
        return CTL_USAGE;
    }
    if (c->arg_count < 2 && verbs_option(c, "whole-site") == NULL) {
        (void)fprintf(stderr, "greyctl: name the gateway, or say --whole-site to shut out all of '%s'\n", c->args[0]);
        return CTL_USAGE;
    }
    builder_init(&body, 1024);
    builder_addf(&body, "{\"site\":\"%s\"", c->args[0]);
    if (c->arg_count > 1) {
        builder_addf(&body, ",\"node\":\"%s\"", c->args[1]);
    }
    builder_add_str(&body, "}");
    if (verbs_send_json(c, CLIENT_CORE, "POST", "/v1/certificates/revoke", &body, &doc, &code)) {
        return code;
    }
    (void)printf("revoked %" PRIu64 " certificate(s); sites learn it with their next contact, and keep it offline\n",
                 verbs_uint(doc, "revoked"));
    json_decref(doc);
    return CTL_OK;
}
