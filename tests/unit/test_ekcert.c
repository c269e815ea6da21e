/* Endorsement certificates: which of them make a TPM genuine.  Made by openssl, as a maker of TPMs would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/ekcert.h"

static char folder[] = "/tmp/grey-ekcert-XXXXXX";
static char roots[16384], others[16384];
static uint8_t room[EKCERT_BYTES_MAX + 1];

static const char script[] =
    "cd $1 && exec >log 2>&1 && openssl genrsa -out ek.key 2048 && openssl genrsa -out big.key 3072 && "
    "openssl ecparam -name prime256v1 -genkey -noout -out ec.key && for ca in maker other; do "
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca.key -out $ca.pem -subj /CN=$ca -days 20; "
    "done && "
    "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout between.key -out between.csr -subj /CN=between && "
    "printf 'basicConstraints=critical,CA:TRUE\\n' >ca.ext && "
    "openssl x509 -req -in between.csr -CA maker.pem -CAkey maker.key -CAcreateserial -days 10 -extfile ca.ext -out between.pem && "
    "san='subjectAltName=critical,dirName:tpm'; end='[tpm]\\nCN=TPM of a test'; "
    "printf \"basicConstraints=critical,CA:FALSE\\nextendedKeyUsage=2.23.133.8.1\\n$san\\n$end\\n\" >good.ext && "
    "printf \"basicConstraints=critical,CA:FALSE\\n$san\\n$end\\n\" >none.ext && "
    "printf \"basicConstraints=critical,CA:FALSE\\nextendedKeyUsage=anyExtendedKeyUsage,clientAuth\\n$san\\n$end\\n\" >any.ext && "
    "printf \"basicConstraints=critical,CA:TRUE\\nextendedKeyUsage=2.23.133.8.1\\n$san\\n$end\\n\" >isca.ext && "
    "make() { openssl req -new -key $2.key -subj / -out r.csr && openssl x509 -req -in r.csr -CA $3.pem -CAkey $3.key "
    "-CAcreateserial "
    "-days 5 -extfile $4.ext -outform DER -out $1.der; } && make good ek maker good && make deep ek between good && make none ek "
    "maker none "
    "&& make any ek maker any && make isca ek maker isca && make ec ec maker good && make big big maker good && make stranger ek "
    "other good "
    "&& cat maker.pem between.pem >roots.pem";

static size_t read_file(const char *name, void *into, size_t size) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t got = fread(into, 1, size, file);
    assert_int_equal(fclose(file), 0);
    return got;
}

static int set_up(void **state) {
    char command[sizeof script + 128];
    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(command, sizeof command, "set -- %s; %s", folder, script);
    int status = system(command); // NOLINT(cert-env33-c)
    if (status != 0) {
        room[read_file("log", room, sizeof room - 1)] = 0;
        print_error("%s\n", (const char *)room);
        return -1;
    }
    roots[read_file("roots.pem", roots, sizeof roots - 1)] = 0;
    others[read_file("other.pem", others, sizeof others - 1)] = 0;
    return 0;
}

static int tear_down(void **state) {
    char command[64];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command); // NOLINT(cert-env33-c)
}

static enum grey_error judge(const char *name, const char *trusted, int64_t days, struct ekcert *out) {
    size_t size = read_file(name, room, sizeof room);
    return ekcert_judge(bytes_of(room, size), trusted, (int64_t)time(NULL) + days * 86400, out, NULL);
}

/* If this failed, gateways with genuine TPMs could not enrol. */
static void a_makers_certificate_is_accepted(void **state) {
    struct ekcert a, b;
    (void)state;
    assert_int_equal(judge("good.der", roots, 0, &a), E_OK);
    assert_int_equal(a.exponent, 65537);
    assert_int_equal(judge("deep.der", roots, 0, &b), E_OK);
    assert_memory_equal(a.modulus, b.modulus, sizeof a.modulus);
    assert_memory_not_equal(a.fingerprint, b.fingerprint, sizeof a.fingerprint);
}

/* If this failed, anybody could make a TPM out of software, or any certificate of a trusted maker would do for one. */
static void no_other_is(void **state) {
    struct ekcert out;
    (void)state;
    static const char *const names[] = {"stranger.der", "none.der", "any.der", "isca.der", "ec.der", "big.der", "ek.key"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (judge(names[i], roots, 0, &out) != E_ATTEST_EK) {
            fail_msg("%s is accepted", names[i]);
        }
        assert_int_equal(out.exponent, 0);
    }
    assert_int_equal(judge("good.der", others, 0, &out), E_ATTEST_EK);
    assert_int_equal(judge("good.der", roots, -1, &out), E_ATTEST_EK);
    assert_int_equal(judge("good.der", roots, 6, &out), E_ATTEST_EK);
    assert_int_equal(judge("good.der", "no certificate", 0, &out), E_CONFIG);
}

/* If this failed, damaged certificates could be read as good ones. */
static void damaged_ones_are_refused(void **state) {
    struct ekcert out;
    (void)state;
    size_t size = read_file("good.der", room, sizeof room);
    int64_t now_s = (int64_t)time(NULL);
    for (size_t at = 0; at < size; at++) {
        assert_int_not_equal(ekcert_judge(bytes_of(room, at), roots, now_s, &out, NULL), E_OK);
        room[at] ^= 4;
        assert_int_not_equal(ekcert_judge(bytes_of(room, size), roots, now_s, &out, NULL), E_OK);
        room[at] ^= 4;
    }
    room[size] = 0;
    assert_int_equal(ekcert_judge(bytes_of(room, size), roots, now_s, &out, NULL), E_OK);
    assert_int_equal(ekcert_judge(bytes_of(room, size + 1), roots, now_s, &out, NULL), E_ATTEST_EK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_makers_certificate_is_accepted), cmocka_unit_test(no_other_is),
                                       cmocka_unit_test(damaged_ones_are_refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
