/* Verbs by which operators take gateways in at the core, and shut them out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ctl/verbs.h"
#include "include/grey/ids.h"
#include "platform/cert.h"
#include "platform/digest.h"
#include "platform/ekcert.h"

static bool named(const char *what, const char *name) {
    if (name == NULL || !grey_name_valid(name, strlen(name))) {
        (void)fprintf(stderr, "greyctl: '%.80s' is no name of a %s\n", name == NULL ? "" : name, what);
        return false;
    }
    return true;
}

/* "90s", "30m", "1h", "7d"; seconds without a letter. */
static bool read_ttl(const char *text, uint64_t *seconds) {
    char *end;
    uint64_t unit = 1;
    *seconds = strtoull(text, &end, 10);
    switch (*end) {
    case 'd':
        unit = 86400;
        break;
    case 'h':
        unit = 3600;
        break;
    case 'm':
        unit = 60;
        break;
    default:
        break;
    }
    bool letter = *end != 0 && strchr("dhms", *end) != NULL;
    if (text[0] < '0' || text[0] > '9' || end[letter ? 1 : 0] != 0 || *seconds == 0 || *seconds > 2592000 / unit) {
        (void)fprintf(stderr, "greyctl: --ttl '%.40s': expected a time such as 90s, 30m, 1h or 7d, at most 30d\n", text);
        return false;
    }
    *seconds *= unit;
    return true;
}

/* Sends a JSON body; with -o json prints the answer as it is.  *doc: the answer, NULL when there is nothing more to do. */
static int send(struct call *c, const char *method, const char *path, struct builder *body, json_t **doc) {
    struct client_request q = {.side = CLIENT_CORE,
                               .method = method,
                               .path = path,
                               .body = builder_bytes(body),
                               .body_type = body->size > 0 ? "application/json" : NULL};
    struct http_answer a;
    struct fault f = {0};
    *doc = NULL;
    int code = client_call(&c->client, &q, &a, &c->problem);
    if (code != CTL_OK) {
        code = client_complain(&c->problem);
    } else if (c->output == OUTPUT_JSON) {
        struct builder out;
        builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
        builder_add(&out, builder_bytes(&a.body));
        code = verbs_print(&out);
    } else {
        *doc = json_read(builder_bytes(&a.body), &f);
    }
    builder_free(&a.body);
    builder_free(body);
    return code;
}

int admit_token(struct call *c) {
    const char *site = verbs_option(c, "site"), *ttl = verbs_option(c, "ttl");
    uint64_t nodes, seconds = 3600;
    struct builder body;
    json_t *doc;
    if (site == NULL) {
        (void)fputs("greyctl: --site says whose gateways the token is for\n", stderr);
        return CTL_USAGE;
    }
    if (!named("site", site) || !verbs_number(c, "nodes", 1, 64, 1, &nodes) || (ttl != NULL && !read_ttl(ttl, &seconds))) {
        return CTL_USAGE;
    }
    builder_init(&body, 1024);
    builder_addf(&body, "{\"site\":\"%s\",\"nodes\":%" PRIu64 ",\"ttl_seconds\":%" PRIu64 "}", site, nodes, seconds);
    int code = send(c, "POST", "/v1/enroll/tokens", &body, &doc);
    if (doc != NULL) { /* the token alone on stdout, so that scripts can take it */
        (void)printf("%s\n", verbs_text(doc, "token"));
        (void)fprintf(stderr,
                      "for %" PRIu64 " gateway%s of site %s, until %s; on each of them:\n"
                      "  greyd enroll --core https://THIS-CORE:PORT --token TOKEN --node NAME\n"
                      "It is shown this once.  Whoever has it can enrol until then: 'greyctl enroll end %s' ends it.\n",
                      nodes, nodes == 1 ? "" : "s", site, verbs_text(doc, "expires"), verbs_text(doc, "id"));
        json_decref(doc);
    }
    return code;
}

int admit_list(struct call *c) {
    static const char *const titles[] = {"TOKEN", "SITE", "GATEWAYS>", "USED>", "EXPIRES"};
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    size_t i;
    const json_t *k;
    if (verbs_get(c, CLIENT_CORE, "/v1/enroll/tokens", &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, 5);
    json_array_foreach(doc, i, k) {
        render_cell(&t, verbs_text(k, "id"));
        render_cell(&t, verbs_text(k, "site"));
        render_cellf(&t, "%" PRIu64, verbs_uint(k, "nodes"));
        render_cellf(&t, "%" PRIu64, verbs_uint(k, "used"));
        render_cell(&t, verbs_text(k, "expires"));
    }
    render_table_end(&t, &out);
    json_decref(doc);
    return verbs_print(&out);
}

int admit_end(struct call *c) {
    char path[64];
    struct builder none;
    json_t *doc;
    if (strlen(c->args[0]) != 8 || strspn(c->args[0], "0123456789abcdef") != 8) {
        (void)fprintf(stderr, "greyctl: '%.40s' is no token's id; 'greyctl enroll list' shows them\n", c->args[0]);
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/enroll/tokens/%s", c->args[0]);
    builder_init(&none, 16);
    int code = send(c, "DELETE", path, &none, &doc);
    if (doc != NULL) {
        (void)printf("token %s enrols nobody any more\n", c->args[0]);
        json_decref(doc);
    }
    return code;
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
    if (ek == NULL || site == NULL || node == NULL) {
        (void)fputs("greyctl: --ek, --site and --node say whose TPM comes in as which gateway\n", stderr);
        return CTL_USAGE;
    }
    if (!named("site", site) || !named("gateway", node) || !read_ek(ek, hex)) {
        return CTL_USAGE;
    }
    builder_init(&body, 1024);
    builder_addf(&body, "{\"ek\":\"%s\",\"site\":\"%s\",\"node\":\"%s\"}", hex, site, node);
    int code = send(c, "POST", "/v1/enroll/tpms", &body, &doc);
    if (doc != NULL) {
        (void)printf("the board with the endorsement certificate %.16s... comes in as %s of site %s; on it:\n"
                     "  greyd enroll --core https://THIS-CORE:PORT --root FINGERPRINT-OF-THE-ROOT --tpm device:/dev/tpmrm0\n",
                     hex, node, site);
        json_decref(doc);
    }
    return code;
}

int admit_registered(struct call *c) {
    static const char *const titles[] = {"SITE", "NODE", "REGISTERED", "CERTIFICATE"};
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    size_t i;
    const json_t *k;
    if (verbs_get(c, CLIENT_CORE, "/v1/enroll/tpms", &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, 4);
    json_array_foreach(doc, i, k) {
        render_cell(&t, verbs_text(k, "site"));
        render_cell(&t, verbs_text(k, "node"));
        render_cell(&t, verbs_text(k, "registered"));
        render_cell(&t, verbs_text(k, "ek"));
    }
    render_table_end(&t, &out);
    json_decref(doc);
    return verbs_print(&out);
}

int admit_unregister(struct call *c) {
    char path[128], hex[EK_HEX_BYTES + 1];
    struct builder none;
    json_t *doc;
    if (!read_ek(c->args[0], hex)) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/enroll/tpms/%s", hex);
    builder_init(&none, 16);
    int code = send(c, "DELETE", path, &none, &doc);
    if (doc != NULL) {
        (void)printf("that TPM enrols nobody any more; what it has already holds until 'greyctl enroll revoke'\n");
        json_decref(doc);
    }
    return code;
}

int admit_certificates(struct call *c) {
    static const char *const titles[] = {"SITE", "NODE", "ISSUED", "EXPIRES", "REVOKED", "SERIAL"};
    const char *site = verbs_option(c, "site");
    char path[128] = "/v1/certificates";
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    size_t i;
    const json_t *k;
    if (site != NULL && !named("site", site)) {
        return CTL_USAGE;
    }
    if (site != NULL) {
        (void)snprintf(path, sizeof path, "/v1/certificates?site=%s", site);
    }
    if (verbs_get(c, CLIENT_CORE, path, &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, c->output == OUTPUT_WIDE ? 6 : 5);
    json_array_foreach(doc, i, k) {
        render_cell(&t, verbs_text(k, "site"));
        render_cell(&t, verbs_text(k, "node"));
        render_cell(&t, verbs_text(k, "issued"));
        render_cell(&t, verbs_text(k, "expires"));
        render_cell(&t, verbs_text(k, "revoked"));
        if (c->output == OUTPUT_WIDE) {
            render_cell(&t, verbs_text(k, "serial"));
        }
    }
    render_table_end(&t, &out);
    json_decref(doc);
    return verbs_print(&out);
}

int admit_revoke(struct call *c) {
    struct builder body;
    json_t *doc;
    if (!named("site", c->args[0]) || (c->arg_count > 1 && !named("gateway", c->args[1]))) {
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
    int code = send(c, "POST", "/v1/certificates/revoke", &body, &doc);
    if (doc != NULL) {
        (void)printf("revoked %" PRIu64 " certificate(s); sites learn it with their next contact, and keep it offline\n",
                     verbs_uint(doc, "revoked"));
        json_decref(doc);
    }
    return code;
}
