#include "platform/certtime.h"

#include <stdio.h>
#include <string.h>

/* Days since 1970-01-01 to civil date and back (H. Hinnant, "chrono-compatible low-level date algorithms"). */
void certtime_format(int64_t unix_s, char out[16]) {
    int64_t days = unix_s / 86400 + 719468, rest = unix_s % 86400;
    int64_t era = days / 146097;
    int64_t doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    int64_t day = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);
    char text[64];
    (void)snprintf(text, sizeof text, "%04d%02d%02d%02d%02d%02d", (int)year, (int)month, (int)day, (int)(rest / 3600),
                   (int)(rest / 60 % 60), (int)(rest % 60));
    memcpy(out, text, 14);
    out[14] = 0;
}

int64_t certtime_unix_s(int year, int month, int day, int hour, int minute, int second) {
    int64_t y = year - (month <= 2);
    int64_t era = y / 400, yoe = y - era * 400;
    int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return ((era * 146097 + doe - 719468) * 24 + hour) * 3600 + minute * 60 + second;
}
