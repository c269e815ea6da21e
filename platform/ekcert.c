#include "platform/ekcert.h"

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/x509_crt.h>
#include <string.h>

#include "platform/digest.h"

#define OID_ENDORSEMENT "\x67\x81\x05\x08\x01" /* 2.23.133.8.1, tcg-kp-EKCertificate */

/* Dates as numbers that compare: YYYYMMDDhhmmss. */
static int64_t comparable(const mbedtls_x509_time *t) {
    return ((((t->year * INT64_C(100) + t->mon) * 100 + t->day) * 100 + t->hour) * 100 + t->min) * 100 + t->sec;
}

/* Unix seconds in the same form (H. Hinnant, "chrono-compatible low-level date algorithms"). */
static int64_t comparable_now(int64_t unix_s) {
    int64_t days = unix_s / 86400 + 719468, rest = unix_s % 86400;
    int64_t era = days / 146097, doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153, day = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 3 : mp - 9;
    int64_t year = yoe + era * 400 + (month <= 2);
    return ((((year * 100 + month) * 100 + day) * 100 + rest / 3600) * 100 + rest / 60 % 60) * 100 + rest % 60;
}

/* mbedTLS judges dates by the machine's clock; here the caller's counts, so its word is replaced for each certificate of the chain. */
static int judge_dates(void *context, mbedtls_x509_crt *crt, int depth, uint32_t *flags) {
    const int64_t *now = context;
    (void)depth;
    *flags &= ~(uint32_t)(MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
    if (*now < comparable(&crt->valid_from)) {
        *flags |= MBEDTLS_X509_BADCERT_FUTURE;
    }
    if (*now > comparable(&crt->valid_to)) {
        *flags |= MBEDTLS_X509_BADCERT_EXPIRED;
    }
    return 0;
}

/* Named itself: mbedTLS's own check passes certificates that name no usage, or any. */
static bool is_for_endorsement(const mbedtls_x509_crt *crt) {
    for (const mbedtls_x509_sequence *usage = &crt->ext_key_usage; usage != NULL; usage = usage->next) {
        if (usage->buf.len == sizeof OID_ENDORSEMENT - 1 && memcmp(usage->buf.p, OID_ENDORSEMENT, usage->buf.len) == 0) {
            return true;
        }
    }
    return false;
}

static enum grey_error judge(mbedtls_x509_crt *crt, mbedtls_x509_crt *roots, int64_t now_s, struct fault *f) {
    int64_t now = comparable_now(now_s);
    uint32_t flags = 0;
    int code =
        mbedtls_x509_crt_verify_with_profile(crt, roots, NULL, &mbedtls_x509_crt_profile_default, NULL, &flags, judge_dates, &now);
    if (code != 0) {
        char reason[160] = "";
        (void)mbedtls_x509_crt_verify_info(reason, sizeof reason, "", flags);
        reason[strcspn(reason, "\n")] = 0;
        return fault_set(f, E_ATTEST_EK, "endorsement certificate: %s", reason);
    }
    if (crt->ca_istrue) {
        return fault_set(f, E_ATTEST_EK, "endorsement certificate: it is one that signs others");
    }
    if (!is_for_endorsement(crt)) {
        return fault_set(f, E_ATTEST_EK, "endorsement certificate: it is not meant for endorsement keys (2.23.133.8.1)");
    }
    if (!mbedtls_pk_can_do(&crt->pk, MBEDTLS_PK_RSA) || mbedtls_pk_get_bitlen(&crt->pk) != EKCERT_MODULUS_BYTES * 8) {
        return fault_set(f, E_ATTEST_EK, "endorsement certificate: its key is not RSA of 2048 bits");
    }
    return E_OK;
}

enum grey_error ekcert_judge(struct bytes der, const char *roots_pem, int64_t now_s, struct ekcert *out, struct fault *f) {
    mbedtls_x509_crt crt, roots;
    enum grey_error err;
    memset(out, 0, sizeof *out);
    mbedtls_x509_crt_init(&crt);
    mbedtls_x509_crt_init(&roots);
    int code = mbedtls_x509_crt_parse(&roots, (const unsigned char *)roots_pem, strlen(roots_pem) + 1);
    if (code != 0) {
        err = fault_set(f, E_CONFIG, "roots of TPM makers: they cannot be read as certificates (mbedTLS %d)", code);
        goto end;
    }
    code = der.size == 0 || der.size > EKCERT_BYTES_MAX ? MBEDTLS_ERR_X509_INVALID_FORMAT
                                                        : mbedtls_x509_crt_parse_der(&crt, der.data, der.size);
    if (code != 0 || crt.raw.len != der.size) {
        err = fault_set(f, E_ATTEST_EK, "endorsement certificate: it cannot be read (mbedTLS %d)", code);
        goto end;
    }
    err = judge(&crt, &roots, now_s, f);
    if (err != E_OK) {
        goto end;
    }
    uint8_t e[4] = {0};
    code =
        mbedtls_rsa_export_raw(mbedtls_pk_rsa(crt.pk), out->modulus, sizeof out->modulus, NULL, 0, NULL, 0, NULL, 0, e, sizeof e);
    out->exponent = bytes_get_be32(e);
    digest_sha256(der, out->fingerprint);
    if (code != 0) {
        memset(out, 0, sizeof *out);
        err = fault_set(f, E_ATTEST_EK, "endorsement certificate: its key cannot be used (mbedTLS %d)", code);
    }
end:
    mbedtls_x509_crt_free(&roots);
    mbedtls_x509_crt_free(&crt);
    return err;
}

enum grey_error ekcert_roots(const char *roots_pem, struct fault *f) {
    mbedtls_x509_crt roots;
    mbedtls_x509_crt_init(&roots);
    int code = mbedtls_x509_crt_parse(&roots, (const unsigned char *)roots_pem, strlen(roots_pem) + 1);
    unsigned number = 0;
    bool good = code == 0;
    for (const mbedtls_x509_crt *c = &roots; good && c != NULL; c = c->next) {
        number++;
        good = c->ca_istrue != 0;
    }
    enum grey_error err = code > 0   ? fault_set(f, E_CONFIG, "%d of its certificates cannot be read", code)
                          : code < 0 ? fault_set(f, E_CONFIG, "no PEM certificates can be read in it (mbedTLS %d)", code)
                          : !good    ? fault_set(f, E_CONFIG, "its certificate number %u signs no others", number)
                                     : E_OK;
    mbedtls_x509_crt_free(&roots);
    return err;
}
