/* Certificates: what we issue, other programs must accept; what others issue, we must read without being fooled. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <mbedtls/asn1write.h>
#include <mbedtls/ecp.h>
#include <mbedtls/oid.h>
#include <mbedtls/x509_crt.h>

#include "platform/cert.h"
#include "platform/keys.h"

#define PEM_BYTES_MAX 8192u
#define DAY_S INT64_C(86400)
#define FROM_S INT64_C(1767225600) /* 2026-01-01 */
#define TO_S (FROM_S + 3650 * DAY_S)
#define AT_S (FROM_S + DAY_S) /* when openssl is to judge */

static char dir[] = "/tmp/grey-cert-XXXXXX";
static bool have_openssl;
static struct builder ca, ca_key, key;

static const char *text_of(const struct builder *b) {
    return (const char *)b->data;
}

static void new_key(struct builder *out) {
    builder_init(out, PEM_BYTES_MAX);
    assert_int_equal(keys_new_p256(out, NULL), E_OK);
    builder_add_byte(out, 0);
}

static enum grey_error issue(const struct cert_request *q, struct builder *out, struct fault *f) {
    builder_init(out, PEM_BYTES_MAX);
    enum grey_error err = cert_issue(q, out, f);
    builder_add_byte(out, 0);
    return err;
}

static struct cert_request request(const char *subject) {
    return (struct cert_request){.subject = subject,
                                 .key_pem = text_of(&key),
                                 .issuer_pem = text_of(&ca),
                                 .issuer_key_pem = text_of(&ca_key),
                                 .server = true,
                                 .client = true,
                                 .not_before_s = FROM_S,
                                 .not_after_s = TO_S};
}

static void save(const char *name, const struct builder *b) {
    char path[100];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->size - 1, f), b->size - 1);
    (void)fclose(f);
}

/* The exit status of a shell command that runs in the scratch directory and says what it has to say into "said". */
static int shell(const char *command) {
    char all[1200];
    (void)snprintf(all, sizeof all, "cd %s && { %s; } >said 2>&1", dir, command);
    return system(all);
}

static void assert_shell(const char *command) {
    if (shell(command) != 0) {
        char path[100], room[1000];
        (void)snprintf(path, sizeof path, "%s/said", dir);
        FILE *f = fopen(path, "r");
        size_t size = f == NULL ? 0 : fread(room, 1, sizeof room - 1, f);
        room[size] = 0;
        if (f != NULL) {
            (void)fclose(f);
        }
        fail_msg("%s: %s", command, room);
    }
}

static int set_up(void **state) {
    (void)state;
    have_openssl = system("command -v openssl >/dev/null 2>&1") == 0;
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    new_key(&ca_key);
    new_key(&key);
    struct cert_request q = {
        .subject = "CN=Grey Edge development CA", .key_pem = text_of(&ca_key), .not_before_s = FROM_S, .not_after_s = TO_S};
    if (issue(&q, &ca, NULL) != E_OK) {
        return -1;
    }
    save("ca.crt", &ca);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[100];
    builder_free(&ca), builder_free(&ca_key), builder_free(&key);
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void need_openssl(void) {
    if (!have_openssl) {
        print_message("# SKIP there is no openssl on this machine\n");
        skip();
    }
}

/* --- issuing ------------------------------------------------------------------------------------------------------------------------- */

/* If OpenSSL refused the chain, neither a broker nor a core that is not ours would let a gateway in. */
static void openssl_accepts_the_chain(void **state) {
    (void)state;
    need_openssl();
    struct builder crt;
    struct cert_request q = request("CN=edge-factory-001");
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_URI, "grey://factory/edge-factory-001"};
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, "edge.example"};
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_IP, "192.0.2.7"};
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_IP, "2001:db8::7"};
    assert_int_equal(issue(&q, &crt, NULL), E_OK);
    save("node.crt", &crt);
    char command[200];
    static const char *const wishes[] = {"sslserver -verify_hostname edge.example", "sslclient", "sslserver -verify_ip 192.0.2.7",
                                         "sslserver -verify_ip 2001:db8::7"};
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        (void)snprintf(command, sizeof command,
                       "openssl verify -x509_strict -attime %" PRId64 " -CAfile ca.crt -purpose %s node.crt", AT_S, wishes[i]);
        assert_shell(command);
    }
    /* That it refuses what it should shows that it looked. */
    (void)snprintf(command, sizeof command,
                   "openssl verify -attime %" PRId64 " -CAfile ca.crt -purpose sslserver -verify_hostname other.example node.crt",
                   AT_S);
    assert_int_not_equal(shell(command), 0);
    (void)snprintf(command, sizeof command, "openssl verify -attime %" PRId64 " -CAfile ca.crt node.crt", TO_S + 1);
    assert_int_not_equal(shell(command), 0);
    assert_shell("openssl x509 -in node.crt -noout -text >text && grep -q 'URI:grey://factory/edge-factory-001, DNS:edge.example, "
                 "IP Address:192.0.2.7, IP Address:2001:DB8' text && grep -q 'ecdsa-with-SHA256' text");
    builder_free(&crt);
}

/* If the CA lacked a mark, or a node carried the CA's, strict verifiers would refuse the chain or a node could issue certificates. */
static void marks_of_ca_and_node_are_right(void **state) {
    (void)state;
    need_openssl();
    struct builder crt;
    struct cert_request q = request("CN=core");
    q.server = false;
    assert_int_equal(issue(&q, &crt, NULL), E_OK);
    save("core.crt", &crt);
    assert_shell(
        "openssl x509 -in ca.crt -noout -text >text && grep -q 'CA:TRUE, pathlen:0' text &&"
        "grep -A1 'Basic Constraints: critical' text && grep -A1 'Key Usage: critical' text | grep -q 'Certificate Sign' &&"
        "! grep -q 'Extended Key Usage' text");
    assert_shell("openssl x509 -in core.crt -noout -text >text && grep -q 'CA:FALSE' text &&"
                 "grep -A1 'X509v3 Key Usage' text | grep -qx ' *Digital Signature' &&"
                 "grep -A1 'Extended Key Usage' text | grep -qx ' *TLS Web Client Authentication'");
    assert_shell("ski=$(openssl x509 -in ca.crt -noout -ext subjectKeyIdentifier | sed -n '2s/ //gp') && test ${#ski} -eq 59 &&"
                 "openssl x509 -in core.crt -noout -ext authorityKeyIdentifier | grep -q \"$ski\"");
    char command[200];
    (void)snprintf(command, sizeof command, "openssl verify -attime %" PRId64 " -CAfile ca.crt -purpose sslserver core.crt", AT_S);
    assert_int_not_equal(shell(command), 0);
    builder_free(&crt);
}

/* If the CA's name were written in another form than it has, no chain of a customer's own CA would verify. */
static void a_ca_made_by_openssl_can_issue(void **state) {
    (void)state;
    need_openssl();
    struct builder own, own_key, crt;
    assert_shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -out own.crt -days 3000 "
        "-subj '/C=AT/O=M\xc3\xbcller, S\xc3\xb6hne \\+ Co/OU=Werk 1/CN=Plant CA' -utf8 -addext keyUsage=critical,keyCertSign");
    struct {
        const char *name;
        struct builder *out;
    } files[] = {{"own.crt", &own}, {"own.key", &own_key}};
    for (size_t i = 0; i < 2; i++) {
        char path[100], room[4096];
        (void)snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        builder_init(files[i].out, PEM_BYTES_MAX);
        builder_add(files[i].out, bytes_of(room, fread(room, 1, sizeof room, f)));
        builder_add_byte(files[i].out, 0);
        (void)fclose(f);
    }
    struct cert_request q = request("CN=node");
    q.issuer_pem = text_of(&own), q.issuer_key_pem = text_of(&own_key);
    q.not_before_s = (int64_t)time(NULL) - DAY_S, q.not_after_s = q.not_before_s + 10 * DAY_S;
    struct fault f = {0};
    if (issue(&q, &crt, &f) != E_OK) {
        fail_msg("%s", f.text);
    }
    save("of_own.crt", &crt);
    assert_shell(
        "openssl verify -x509_strict -CAfile own.crt of_own.crt && test \"$(openssl x509 -in own.crt -noout -subject_hash)\" = "
        "\"$(openssl x509 -in of_own.crt -noout -issuer_hash)\"");
    builder_free(&own), builder_free(&own_key), builder_free(&crt);
}

/* If two certificates shared a serial number, revoking one would revoke the other. */
static void serial_numbers_differ(void **state) {
    (void)state;
    struct cert_request q = request("CN=node");
    uint8_t seen[20][16];
    for (size_t i = 0; i < 20; i++) {
        struct builder crt;
        mbedtls_x509_crt parsed;
        assert_int_equal(issue(&q, &crt, NULL), E_OK);
        mbedtls_x509_crt_init(&parsed);
        assert_int_equal(mbedtls_x509_crt_parse(&parsed, crt.data, crt.size), 0);
        assert_int_equal(parsed.serial.len, sizeof seen[0]);
        assert_true(parsed.serial.p[0] < 0x80);
        memcpy(seen[i], parsed.serial.p, sizeof seen[0]);
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(seen[i], seen[j], sizeof seen[0]);
        }
        mbedtls_x509_crt_free(&parsed);
        builder_free(&crt);
    }
}

static void assert_refused(const struct cert_request *q, enum grey_error wanted, const char *words) {
    struct builder crt;
    struct fault f = {0};
    assert_int_equal(issue(q, &crt, &f), wanted);
    assert_int_equal(f.code, wanted);
    if (strstr(f.text, words) == NULL) {
        fail_msg("'%s' does not say '%s'", f.text, words);
    }
    assert_int_equal(crt.size, 1); /* the NUL only */
    builder_free(&crt);
}

/* If a key that belongs to another CA were used, the certificate would look well and fail at its first handshake, on site. */
static void an_issuer_that_cannot_issue_is_refused(void **state) {
    (void)state;
    struct builder crt;
    struct cert_request q = request("CN=node");
    q.issuer_key_pem = text_of(&key);
    assert_refused(&q, E_KEY, "does not belong");
    q = request("CN=node");
    assert_int_equal(issue(&q, &crt, NULL), E_OK);
    q.issuer_pem = text_of(&crt), q.issuer_key_pem = text_of(&key);
    assert_refused(&q, E_CERT, "may not sign");
    builder_free(&crt);
    q = request("CN=node");
    q.issuer_pem = "no certificate";
    assert_refused(&q, E_CERT, "certificate of the issuer");
    q = request("CN=node");
    q.issuer_key_pem = "no key";
    assert_refused(&q, E_KEY, "key of the issuer");
    q = request("CN=node");
    q.key_pem = "";
    assert_refused(&q, E_KEY, "key of the subject");
}

/* If this failed, gateways whose keys lie in their TPMs could vouch for no neighbour; or would issue what nobody takes. */
static void a_key_that_lies_elsewhere_issues(void **state) {
    (void)state;
    struct keysign issuer;
    struct builder crt, here;
    struct cert_request q = request("CN=node");
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_URI, "grey://site/node"};
    assert_int_equal(issue(&q, &here, NULL), E_OK);
    assert_int_equal(keysign_open_pem(text_of(&ca_key), &issuer, NULL), E_OK);
    q.issuer_key_pem = NULL, q.issuer_key = &issuer;
    for (size_t i = 0; i < 30; i++) { /* numbers of a signature are now and then shorter */
        assert_int_equal(issue(&q, &crt, NULL), E_OK);
        mbedtls_x509_crt by_mbed, by_key, root;
        uint32_t flags = 0;
        mbedtls_x509_crt_init(&by_mbed), mbedtls_x509_crt_init(&by_key), mbedtls_x509_crt_init(&root);
        assert_int_equal(mbedtls_x509_crt_parse(&by_mbed, here.data, here.size), 0);
        assert_int_equal(mbedtls_x509_crt_parse(&by_key, crt.data, crt.size), 0);
        assert_int_equal(mbedtls_x509_crt_parse(&root, ca.data, ca.size), 0);
        (void)mbedtls_x509_crt_verify(&by_key, &root, NULL, NULL, &flags, NULL, NULL);
        assert_int_equal(flags & ~(uint32_t)(MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE), 0); /* at any clock */
        assert_int_equal(by_key.tbs.len,
                         by_mbed.tbs.len); /* the serial number differs, and nothing else: also the issuer's key is named */
        assert_memory_equal(by_key.serial.p + by_key.serial.len, by_mbed.serial.p + by_mbed.serial.len,
                            by_key.tbs.len - (size_t)(by_key.serial.p + by_key.serial.len - by_key.tbs.p));
        mbedtls_x509_crt_free(&by_mbed), mbedtls_x509_crt_free(&by_key), mbedtls_x509_crt_free(&root);
        if (i == 0 && have_openssl) {
            save("node.crt", &crt);
            assert_shell("openssl verify -CAfile ca.crt node.crt");
        }
        builder_free(&crt);
    }
    keysign_close(&issuer);
    builder_free(&here);
}

static enum grey_error sign_in_vain(void *at, const uint8_t hash[DIGEST_SHA256_BYTES], struct builder *der, struct fault *f) {
    (void)at, (void)hash, (void)der;
    return fault_set(f, E_VAULT_AWAY, "nobody is at home");
}

static void a_key_elsewhere_that_is_another_or_away_issues_nothing(void **state) {
    (void)state;
    struct keysign issuer;
    struct cert_request q = request("CN=node");
    q.issuer_key_pem = NULL, q.issuer_key = &issuer;
    assert_int_equal(keysign_open_pem(text_of(&key), &issuer, NULL), E_OK);
    assert_refused(&q, E_KEY, "does not belong");
    keysign_close(&issuer);
    assert_int_equal(keysign_open_pem(text_of(&ca_key), &issuer, NULL), E_OK);
    issuer.sign = sign_in_vain;
    assert_refused(&q, E_VAULT_AWAY, "nobody is at home");
    keysign_close(&issuer);
}

/* If a key of another curve were taken, every handshake of ours would fail: conn offers P-256 and X25519 only. */
static void a_key_of_another_curve_is_refused(void **state) {
    (void)state;
    mbedtls_pk_context other;
    unsigned char pem[1024];
    mbedtls_pk_init(&other);
    assert_int_equal(mbedtls_pk_setup(&other, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)), 0);
    assert_int_equal(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP384R1, mbedtls_pk_ec(other), keys_rng, NULL), 0);
    assert_int_equal(mbedtls_pk_write_key_pem(&other, pem, sizeof pem), 0);
    mbedtls_pk_free(&other);
    struct cert_request q = request("CN=node");
    q.key_pem = (const char *)pem;
    assert_refused(&q, E_KEY, "not a P-256 key");
}

/* If a name could bring a comma or a line end, it could bring a second name, which nobody asked the CA for. */
static void names_that_are_none_are_refused(void **state) {
    (void)state;
    static const char *const subjects[] = {
        "node",    "CN=",         "CN=a,CN=b",
        "CN=a\nb", "CN=\xc3\xa4", "O=x",
        "",        "CN=a\\,CN=b", "CN=0123456789012345678901234567890123456789012345678901234567890123x"};
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
        struct cert_request q = request(subjects[i]);
        assert_refused(&q, E_CERT, "CN=");
    }
    static const struct cert_name names[] = {{CERT_NAME_IP, "300.1.1.1"},      {CERT_NAME_IP, "localhost"}, {CERT_NAME_IP, ""},
                                             {CERT_NAME_IP, "10.0.0.1/8"},     {CERT_NAME_DNS, ""},         {CERT_NAME_DNS, "a b"},
                                             {CERT_NAME_URI, "grey://a/\x01"}, {CERT_NAME_DNS, "\xc3\xa4"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct cert_request q = request("CN=node");
        q.names[q.name_count++] = names[i];
        assert_refused(&q, E_CERT, "cannot stand in a certificate");
    }
    char longest[600];
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = 0;
    struct cert_request q = request("CN=node");
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, longest};
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, longest};
    assert_refused(&q, E_CERT, "longer than");
}

/* If a gateway without a clock could be issued for 1970, it would be refused by everybody and nobody would see why. */
static void odd_times_are_refused(void **state) {
    (void)state;
    static const int64_t spans[][2] = {
        {0, TO_S}, {-1, TO_S}, {946684799, TO_S}, {FROM_S, INT64_C(253402300800)}, {TO_S, FROM_S}, {INT64_MIN, INT64_MAX}};
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        struct cert_request q = request("CN=node");
        q.not_before_s = spans[i][0], q.not_after_s = spans[i][1];
        assert_refused(&q, E_CERT, "clock");
    }
}

/* --- reading ------------------------------------------------------------------------------------------------------------------------- */

/* If a date were off by a day around a leap day or the change of form in 2050, certificates would run out unseen. */
static void times_survive_writing_and_reading(void **state) {
    (void)state;
    static const char *const dates[] = {"2000-01-01 00:00:00", "2000-02-28 23:59:59", "2000-02-29 12:00:00", "2000-12-31 23:59:59",
                                        "2024-02-29 23:59:59", "2026-02-28 23:59:59", "2026-03-01 00:00:00", "2049-12-31 23:59:59",
                                        "2050-01-01 00:00:00", "2100-02-28 23:59:59", "2100-03-01 00:00:00", "9999-12-31 23:59:59"};
    for (size_t i = 0; i < sizeof dates / sizeof dates[0]; i++) {
        struct tm broken = {0};
        struct cert_facts facts;
        struct builder crt;
        assert_non_null(strptime(dates[i], "%Y-%m-%d %H:%M:%S", &broken));
        int64_t at_s = (int64_t)timegm(&broken);
        struct cert_request q = request("CN=node");
        q.not_before_s = q.not_after_s = at_s;
        assert_int_equal(issue(&q, &crt, NULL), E_OK);
        assert_int_equal(cert_read(text_of(&crt), &facts, NULL), E_OK);
        assert_int_equal(facts.not_before_s, at_s);
        assert_int_equal(facts.not_after_s, at_s);
        if (have_openssl) {
            char command[200];
            save("dated.crt", &crt);
            (void)snprintf(command, sizeof command,
                           "test \"$(date -ud \"$(openssl x509 -in dated.crt -noout -enddate | cut -d= -f2)\" +%%s)\" = %" PRId64,
                           at_s);
            assert_shell(command);
        }
        builder_free(&crt);
    }
}

/* If facts were another certificate's, `greyctl doctor` would send the engineer the wrong way. */
static void facts_are_those_of_the_certificate(void **state) {
    (void)state;
    struct builder crt;
    struct cert_facts facts;
    struct cert_request q = request("CN=edge-factory-001");
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, "localhost"};
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_URI, "grey://factory/1"};
    q.names[q.name_count++] = (struct cert_name){CERT_NAME_URI, "grey://factory/2"};
    assert_int_equal(issue(&q, &crt, NULL), E_OK);
    assert_int_equal(cert_read(text_of(&crt), &facts, NULL), E_OK);
    assert_string_equal(facts.subject_cn, "edge-factory-001");
    assert_string_equal(facts.uri, "grey://factory/1");
    assert_int_equal(facts.not_before_s, FROM_S);
    assert_int_equal(facts.not_after_s, TO_S);
    if (have_openssl) {
        char command[300], hex[3 * sizeof facts.fingerprint + 1];
        for (size_t i = 0; i < sizeof facts.fingerprint; i++) {
            (void)snprintf(hex + 3 * i, 4, "%02X:", facts.fingerprint[i]);
        }
        hex[3 * sizeof facts.fingerprint - 1] = 0;
        save("facts.crt", &crt);
        (void)snprintf(command, sizeof command, "openssl x509 -in facts.crt -noout -fingerprint -sha256 | grep -q '=%s$'", hex);
        assert_shell(command);
    }
    builder_free(&crt);
    assert_int_equal(cert_read(text_of(&ca), &facts, NULL), E_OK);
    assert_string_equal(facts.subject_cn, "Grey Edge development CA");
    assert_string_equal(facts.uri, "");
}

/* A certificate as a hostile CA would write it: any bytes in CN and URI. */
static void forge(struct bytes cn, struct bytes uri, struct builder *out) {
    mbedtls_x509write_cert crt;
    mbedtls_pk_context pair;
    mbedtls_mpi serial;
    unsigned char pem[4096], room[1024], *at = room + sizeof room;
    mbedtls_x509write_crt_init(&crt);
    mbedtls_pk_init(&pair);
    mbedtls_mpi_init(&serial);
    assert_int_equal(mbed_parse_key(&pair, builder_bytes(&key)), 0);
    assert_int_equal(mbedtls_mpi_lset(&serial, 7), 0);
    mbedtls_x509write_crt_set_md_alg(&crt, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&crt, &pair);
    mbedtls_x509write_crt_set_issuer_key(&crt, &pair);
    assert_int_equal(mbedtls_x509write_crt_set_serial(&crt, &serial), 0);
    assert_int_equal(mbedtls_x509write_crt_set_validity(&crt, "20260101000000", "20270101000000"), 0);
    assert_int_equal(mbedtls_x509write_crt_set_issuer_name(&crt, "CN=forger"), 0);
    mbedtls_asn1_named_data *name =
        mbedtls_asn1_store_named_data(&crt.subject, MBEDTLS_OID_AT_CN, MBEDTLS_OID_SIZE(MBEDTLS_OID_AT_CN), cn.data, cn.size);
    assert_non_null(name);
    name->val.tag = MBEDTLS_ASN1_UTF8_STRING;
    int size = mbedtls_asn1_write_raw_buffer(&at, room, uri.data, uri.size);
    size += mbedtls_asn1_write_len(&at, room, uri.size);
    size += mbedtls_asn1_write_tag(&at, room, MBEDTLS_ASN1_CONTEXT_SPECIFIC | 6);
    size += mbedtls_asn1_write_len(&at, room, (size_t)size);
    size += mbedtls_asn1_write_tag(&at, room, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    assert_int_equal(mbedtls_x509write_crt_set_extension(&crt, MBEDTLS_OID_SUBJECT_ALT_NAME,
                                                         MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME), 0, at, (size_t)size),
                     0);
    assert_int_equal(mbedtls_x509write_crt_pem(&crt, pem, sizeof pem, keys_rng, NULL), 0);
    builder_init(out, PEM_BYTES_MAX);
    builder_add_str(out, (const char *)pem);
    builder_add_byte(out, 0);
    mbedtls_mpi_free(&serial);
    mbedtls_pk_free(&pair);
    mbedtls_x509write_crt_free(&crt);
}

/* If "grey://site/1<NUL>x" read as "grey://site/1", a stranger could pass for a node. */
static void odd_bytes_in_names_match_nothing(void **state) {
    (void)state;
    static const char cn[] = "node\0evil\x1b[2J", uri[] = "grey://site/1\0x";
    struct builder crt;
    struct cert_facts facts;
    forge(bytes_of(cn, sizeof cn - 1), bytes_of(uri, sizeof uri - 1), &crt);
    assert_int_equal(cert_read(text_of(&crt), &facts, NULL), E_OK);
    assert_string_equal(facts.subject_cn, "node?evil?[2J");
    assert_string_equal(facts.uri, "grey://site/1?x");
    builder_free(&crt);
}

/* If a name that is too long were left out, a certificate with it would look like one without. */
static void names_too_long_are_an_error(void **state) {
    (void)state;
    char name[300];
    struct builder crt;
    struct cert_facts facts;
    memset(name, 'a', sizeof name);
    forge(bytes_of(name, CERT_CN_BYTES), bytes_of(name, sizeof facts.uri - 1), &crt);
    assert_int_equal(cert_read(text_of(&crt), &facts, NULL), E_OK);
    assert_int_equal(strlen(facts.subject_cn), CERT_CN_BYTES);
    assert_int_equal(strlen(facts.uri), sizeof facts.uri - 1);
    builder_free(&crt);
    forge(bytes_of(name, CERT_CN_BYTES + 1), bytes_str("grey://a/b"), &crt);
    assert_int_equal(cert_read(text_of(&crt), &facts, NULL), E_CERT);
    builder_free(&crt);
    forge(bytes_str("node"), bytes_of(name, sizeof facts.uri), &crt);
    assert_int_equal(cert_read(text_of(&crt), &facts, NULL), E_CERT);
    builder_free(&crt);
}

/* If a file cut short were read past its end, a full disk would crash the program that looks for its cause. */
static void what_is_no_certificate_is_refused(void **state) {
    (void)state;
    struct cert_facts facts;
    struct fault f = {0};
    assert_int_equal(cert_read("", &facts, &f), E_CERT);
    assert_int_equal(f.code, E_CERT);
    assert_int_equal(cert_read(text_of(&key), &facts, NULL), E_CERT);
    char cut[PEM_BYTES_MAX];
    size_t whole = (size_t)(strstr(text_of(&ca), "-----END CERTIFICATE-----") - text_of(&ca)) + 25;
    for (size_t size = 0; size < whole; size++) {
        memcpy(cut, ca.data, size);
        cut[size] = 0;
        assert_int_equal(cert_read(cut, &facts, NULL), E_CERT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openssl_accepts_the_chain),
        cmocka_unit_test(marks_of_ca_and_node_are_right),
        cmocka_unit_test(a_ca_made_by_openssl_can_issue),
        cmocka_unit_test(serial_numbers_differ),
        cmocka_unit_test(an_issuer_that_cannot_issue_is_refused),
        cmocka_unit_test(a_key_that_lies_elsewhere_issues),
        cmocka_unit_test(a_key_elsewhere_that_is_another_or_away_issues_nothing),
        cmocka_unit_test(a_key_of_another_curve_is_refused),
        cmocka_unit_test(names_that_are_none_are_refused),
        cmocka_unit_test(odd_times_are_refused),
        cmocka_unit_test(times_survive_writing_and_reading),
        cmocka_unit_test(facts_are_those_of_the_certificate),
        cmocka_unit_test(odd_bytes_in_names_match_nothing),
        cmocka_unit_test(names_too_long_are_an_error),
        cmocka_unit_test(what_is_no_certificate_is_refused),
    };
    return cmocka_run_group_tests_name("cert", tests, set_up, tear_down);
}
