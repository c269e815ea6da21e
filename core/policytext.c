#include "core/policytext.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "platform/now.h"
#include "platform/yaml.h"

#define VALIDITY_S_DEFAULT REFERENCE_VALIDITY_S_MAX /* DECISIONS 26: a site is without its core for a week */
#define REGISTERS_DEFAULT 0x40ffu                   /* 0 to 7: firmware and boot; 14: the log of starts */

static const char *const kind_names[REFERENCE_KINDS] = {"register", "event", "program", "config"};

/* --- reading ------------------------------------------------------------------------------------------------------------------------------ */

static enum grey_error read_digest(const struct yaml_node *n, uint8_t digest[DIGEST_SHA256_BYTES], struct fault *f) {
    struct bytes text;
    enum grey_error err = yaml_text(n, &text, f);
    if (err != E_OK) {
        return err;
    }
    bool good = text.size == 2 * (size_t)DIGEST_SHA256_BYTES && bytes_unhex((const char *)text.data, DIGEST_SHA256_BYTES, digest);
    return good ? E_OK : yaml_fault(n, f, "expected SHA-256 as 64 hexadecimal digits");
}

/* "2026-01-31T08:00:00Z" or "2026-01-31", which is its midnight. */
static enum grey_error read_time(const struct yaml_node *n, int64_t *unix_ms, struct fault *f) {
    static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
    struct bytes text;
    struct tm t = {0}, back;
    int at[6] = {0}; /* year, month, day, hour, minute, second */
    enum grey_error err = yaml_text(n, &text, f);
    if (err != E_OK) {
        return err;
    }
    bool good = text.size == sizeof form - 1 || text.size == strlen("dddd-dd-dd");
    for (size_t i = 0, part = 0; i < text.size && good; i++) {
        good = form[i] == 'd' ? isdigit(text.data[i]) != 0 : text.data[i] == (uint8_t)form[i];
        part += form[i] != 'd';
        at[part < 6 ? part : 5] = form[i] == 'd' ? at[part] * 10 + (text.data[i] - '0') : at[part < 6 ? part : 5];
    }
    t.tm_year = at[0] - 1900, t.tm_mon = at[1] - 1, t.tm_mday = at[2];
    t.tm_hour = at[3], t.tm_min = at[4], t.tm_sec = at[5];
    back = t;
    int64_t seconds = good ? (int64_t)timegm(&back) : 0;
    good = good && at[0] >= 1970 && back.tm_mon == t.tm_mon && back.tm_mday == t.tm_mday && back.tm_hour == t.tm_hour &&
           back.tm_min == t.tm_min && back.tm_sec == t.tm_sec; /* there is no 31 February */
    *unix_ms = seconds * 1000;
    return good ? E_OK : yaml_fault(n, f, "expected a time such as 2026-01-31T08:00:00Z, or a day");
}

/* "90s", "30m", "24h", "7d". */
static enum grey_error read_validity(const struct yaml_node *n, uint32_t *seconds, struct fault *f) {
    static const char units[] = "smhd";
    static const uint64_t sizes[] = {1, 60, 3600, 86400};
    struct bytes text;
    char *end = NULL;
    enum grey_error err = yaml_text(n, &text, f);
    if (err != E_OK) {
        return err;
    }
    bool digits = text.size >= 2 && text.size <= 8 && isdigit(text.data[0]);
    unsigned long long count = digits ? strtoull((const char *)text.data, &end, 10) : 0;
    const char *unit = digits && *end != 0 && end[1] == 0 ? strchr(units, *end) : NULL;
    uint64_t all = unit == NULL ? 0 : count * sizes[unit - units];
    if (all < REFERENCE_VALIDITY_S_MIN || all > REFERENCE_VALIDITY_S_MAX) {
        return yaml_fault(n, f, "expected a time from 60s to 192h, such as 24h");
    }
    *seconds = (uint32_t)all;
    return E_OK;
}

static enum grey_error read_types(const struct yaml_node *n, uint32_t *types, struct fault *f) {
    *types = 0;
    if (n->kind != YAML_SEQUENCE || n->count == 0) {
        return yaml_fault(n, f, "expected a list such as [tpm2, vtpm]");
    }
    for (const struct yaml_node *one = n->first; one != NULL; one = one->next) {
        struct bytes text;
        uint32_t before = *types;
        enum grey_error err = yaml_text(one, &text, f);
        for (enum attest_type t = ATTEST_NONE; t < ATTEST_TYPES && err == E_OK; t++) {
            *types |= bytes_equal_str(text, attest_type_name(t)) ? 1u << t : 0;
        }
        if (err != E_OK || *types == before) {
            return err != E_OK ? err : yaml_fault(one, f, "expected tpm2, vtpm, instance-identity or none, each once");
        }
    }
    return E_OK;
}

static enum grey_error read_registers(const struct yaml_node *n, uint32_t *mask, struct fault *f) {
    *mask = 0;
    if (n->kind != YAML_SEQUENCE || n->count == 0) {
        return yaml_fault(n, f, "expected a list such as [0, 1, 2, 3, 4, 5, 6, 7, 14]");
    }
    for (const struct yaml_node *one = n->first; one != NULL; one = one->next) {
        int64_t pcr;
        enum grey_error err = yaml_int(one, 0, TPMWIRE_PCR_COUNT - 1, &pcr, f);
        if (err != E_OK) {
            return err;
        }
        *mask |= 1u << pcr;
    }
    return E_OK;
}

static enum grey_error read_firmware(const struct yaml_node *n, struct reference *p, struct fault *f) {
    if (n->kind != YAML_SEQUENCE || n->count > REFERENCE_FIRMWARES_MAX) {
        return yaml_fault(n, f, "expected a list of at most %u versions", REFERENCE_FIRMWARES_MAX);
    }
    for (const struct yaml_node *one = n->first; one != NULL; one = one->next) {
        struct bytes text;
        uint8_t version[8];
        enum grey_error err = yaml_text(one, &text, f);
        if (err != E_OK) {
            return err;
        }
        if (text.size != 2 * sizeof version || !bytes_unhex((const char *)text.data, sizeof version, version)) {
            return yaml_fault(one, f, "expected a TPM's firmware version as 16 hexadecimal digits, in quotes");
        }
        p->firmwares[p->firmware_count++] = bytes_get_be64(version);
    }
    return E_OK;
}

/* One member of a value; *named counts what says which value it is. */
static enum grey_error read_member(const struct yaml_node *n, struct reference_value *v, unsigned *named, bool *has_digest,
                                   struct fault *f) {
    int64_t pcr;
    for (enum reference_kind k = REFERENCE_REGISTER; k < REFERENCE_KINDS; k++) {
        if (!bytes_equal_str(n->key, kind_names[k])) {
            continue;
        }
        v->kind = k;
        ++*named;
        if (k == REFERENCE_PROGRAM || k == REFERENCE_CONFIG) {
            v->pcr = STARTLOG_PCR;
            *has_digest = true;
            return read_digest(n, v->digest, f);
        }
        enum grey_error err = yaml_int(n, 0, TPMWIRE_PCR_COUNT - 1, &pcr, f);
        v->pcr = (uint32_t)pcr;
        return err != E_OK              ? err
               : v->pcr == STARTLOG_PCR ? yaml_fault(n, f, "register %u is judged by program and config", STARTLOG_PCR)
                                        : E_OK;
    }
    if (bytes_equal_str(n->key, "sha256")) {
        *has_digest = true;
        return read_digest(n, v->digest, f);
    }
    if (bytes_equal_str(n->key, "from")) {
        return read_time(n, &v->from_ms, f);
    }
    if (bytes_equal_str(n->key, "until")) {
        return read_time(n, &v->until_ms, f);
    }
    if (bytes_equal_str(n->key, "note")) { /* for people */
        return E_OK;
    }
    return yaml_fault(n, f, "unknown key '%.40s'", (const char *)n->key.data);
}

static enum grey_error read_values(const struct yaml_node *n, struct reference *p, struct fault *f) {
    if (n->kind != YAML_SEQUENCE || n->count > REFERENCE_VALUES_MAX) {
        return yaml_fault(n, f, "expected a list of at most %u values", REFERENCE_VALUES_MAX);
    }
    for (const struct yaml_node *one = n->first; one != NULL; one = one->next) {
        struct reference_value *v = &p->values[p->value_count++];
        unsigned named = 0;
        bool has_digest = false;
        *v = (struct reference_value){.until_ms = -1};
        if (one->kind != YAML_MAPPING) {
            return yaml_fault(one, f, "expected {register: 7, sha256: ...}, or event, program or config");
        }
        for (const struct yaml_node *m = one->first; m != NULL; m = m->next) {
            enum grey_error err = read_member(m, v, &named, &has_digest, f);
            if (err != E_OK) {
                return err;
            }
        }
        bool of_start = v->kind == REFERENCE_PROGRAM || v->kind == REFERENCE_CONFIG;
        if (named != 1 || !has_digest || (of_start && yaml_get(one, "sha256") != NULL)) {
            return yaml_fault(one, f, "expected one of register or event with its sha256, program, config");
        }
        if (v->until_ms != -1 && v->until_ms <= v->from_ms) {
            return yaml_fault(one, f, "until is not behind from");
        }
    }
    return E_OK;
}

static enum grey_error read_key(const struct yaml_node *n, struct reference *p, struct fault *f) {
    if (bytes_equal_str(n->key, "learn")) {
        return yaml_bool(n, &p->learn, f);
    }
    if (bytes_equal_str(n->key, "boot_log_required")) {
        return yaml_bool(n, &p->needs_boot_log, f);
    }
    if (bytes_equal_str(n->key, "types")) {
        return read_types(n, &p->types, f);
    }
    if (bytes_equal_str(n->key, "registers")) {
        return read_registers(n, &p->pcr_mask, f);
    }
    if (bytes_equal_str(n->key, "valid_for")) {
        return read_validity(n, &p->validity_s, f);
    }
    if (bytes_equal_str(n->key, "firmware")) {
        return read_firmware(n, p, f);
    }
    if (bytes_equal_str(n->key, "values")) {
        return read_values(n, p, f);
    }
    return yaml_fault(n, f, "unknown key '%.40s': expected learn, boot_log_required, types, registers, valid_for, firmware, values",
                      (const char *)n->key.data);
}

static void reset(struct reference *p) {
    memset(p, 0, sizeof *p);
    p->name = bytes_str(POLICYTEXT_NAME);
    p->pcr_mask = REGISTERS_DEFAULT;
    p->validity_s = VALIDITY_S_DEFAULT;
}

static enum grey_error read_root(const struct yaml_node *root, struct reference *p, struct fault *f) {
    if (root == NULL || root->kind != YAML_MAPPING) {
        return fault_set(f, E_CONFIG, "expected keys and values; docs/ATTESTATION.md has an example");
    }
    for (const struct yaml_node *n = root->first; n != NULL; n = n->next) {
        enum grey_error err = read_key(n, p, f);
        if (err != E_OK) {
            return err;
        }
    }
    if (p->types == 0) {
        return fault_set(f, E_CONFIG, "types is missing: [tpm2], for example");
    }
    uint32_t seen = p->pcr_mask;
    for (uint32_t i = 0; i < p->value_count; i++) {
        if ((seen >> p->values[i].pcr & 1u) == 0) { /* it would be accepted, and never asked for */
            return fault_set(f, E_CONFIG, "value %" PRIu32 " is of register %" PRIu32 ", which is not among the registers", i + 1,
                             p->values[i].pcr);
        }
    }
    return E_OK;
}

enum grey_error policytext_read(struct bytes text, struct reference *out, struct fault *f) {
    struct fault inner = {0};
    reset(out);
    struct yaml_doc *doc = yaml_read(text, &inner);
    enum grey_error err = doc == NULL ? inner.code : read_root(yaml_root(doc), out, &inner);
    yaml_doc_free(doc);
    if (err != E_OK) {
        reset(out);
        err = err == E_NO_MEMORY ? err : E_ATTEST_POLICY;
        return fault_set(f, err, "%s", inner.text);
    }
    return E_OK;
}

void policytext_learn(struct reference *out) {
    reset(out);
    out->learn = true;
    out->types = (1u << ATTEST_TYPES) - 1;
}

/* --- writing ------------------------------------------------------------------------------------------------------------------------------ */

static void put_time(struct builder *out, const char *key, int64_t unix_ms) {
    char text[32];
    now_format(unix_ms, text);
    builder_addf(out, ", %s: \"%.19sZ\"", key, text);
}

static void put_value(struct builder *out, const struct reference_value *v) {
    char hex[2 * DIGEST_SHA256_BYTES + 1];
    bytes_hex(v->digest, sizeof v->digest, hex);
    if (v->kind == REFERENCE_PROGRAM || v->kind == REFERENCE_CONFIG) {
        builder_addf(out, "  - {%s: \"%s\"", kind_names[v->kind], hex);
    } else {
        builder_addf(out, "  - {%s: %" PRIu32 ", sha256: \"%s\"", kind_names[v->kind], v->pcr, hex);
    }
    if (v->from_ms != 0) {
        put_time(out, "from", v->from_ms);
    }
    if (v->until_ms != -1) {
        put_time(out, "until", v->until_ms);
    }
    builder_add_str(out, "}\n");
}

void policytext_write(struct builder *out, const struct reference *p) {
    const char *comma = "";
    builder_addf(out, "learn: %s\nboot_log_required: %s\ntypes: [", p->learn ? "true" : "false",
                 p->needs_boot_log ? "true" : "false");
    for (enum attest_type t = ATTEST_NONE; t < ATTEST_TYPES; t++) {
        if ((p->types >> t & 1u) != 0) {
            builder_addf(out, "%s%s", comma, attest_type_name(t));
            comma = ", ";
        }
    }
    builder_add_str(out, "]\nregisters: [");
    comma = "";
    for (unsigned pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        if ((p->pcr_mask >> pcr & 1u) != 0) {
            builder_addf(out, "%s%u", comma, pcr);
            comma = ", ";
        }
    }
    builder_addf(out, "]\nvalid_for: %" PRIu32 "s\n", p->validity_s);
    if (p->firmware_count > 0) {
        builder_add_str(out, "firmware:\n");
    }
    for (uint32_t i = 0; i < p->firmware_count; i++) {
        builder_addf(out, "  - \"%016" PRIx64 "\"\n", p->firmwares[i]);
    }
    if (p->value_count > 0) {
        builder_add_str(out, "values:\n");
    }
    for (uint32_t i = 0; i < p->value_count; i++) {
        put_value(out, &p->values[i]);
    }
}
