/* certtime.h: dates of certificates as text of digits (RFC 5280, 4.1.2.5).  Proleptic Gregorian, UTC, no clock.  Thread: any. */
#ifndef PLATFORM_CERTTIME_H
#define PLATFORM_CERTTIME_H

#include <stdint.h>

#define CERTTIME_FIRST_S INT64_C(946684800)   /* 2000-01-01: mbedTLS 2.28 writes earlier years in the wrong form */
#define CERTTIME_LAST_S INT64_C(253402300799) /* 9999-12-31 23:59:59, "no end" of RFC 5280 */

/* "20261121130000" of Unix seconds between the two. */
void certtime_format(int64_t unix_s, char out[16]);
int64_t certtime_unix_s(int year, int month, int day, int hour, int minute, int second);

#endif
