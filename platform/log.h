/* log.h: one line per event on stderr: time, level, module, event word, then keys with units:
 *     log_info("outbox", "evict", "channel=%s from_seq=%" PRIu64 " bytes=%zu", ...)
 * No secrets.  Thread: any.  errno survives.  Under systemd ($JOURNAL_STREAM set) lines carry <N> priority prefixes.
 * What can repeat goes through log_limited: at most one line a second per call site, with the number left out. */
#ifndef PLATFORM_LOG_H
#define PLATFORM_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_PRETTY, LOG_JSON };

void log_configure(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
bool log_level_parse(const char *text, enum log_level *level);
void log_write(enum log_level level, const char *module, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

struct log_limit {
    uint64_t next_ms; /* start with zeros */
    uint32_t left_out;
};
bool log_limit_pass(struct log_limit *limit, uint32_t *left_out); /* true: write now; *left_out were not written since the last */

#define log_at(level, module, event, ...) (log_enabled(level) ? log_write(level, module, event, __VA_ARGS__) : (void)0)
#define log_trace(module, event, ...) log_at(LOG_TRACE, module, event, __VA_ARGS__)
#define log_debug(module, event, ...) log_at(LOG_DEBUG, module, event, __VA_ARGS__)
#define log_info(module, event, ...) log_at(LOG_INFO, module, event, __VA_ARGS__)
#define log_warn(module, event, ...) log_at(LOG_WARN, module, event, __VA_ARGS__)
#define log_error(module, event, ...) log_at(LOG_ERROR, module, event, __VA_ARGS__)
/* Use in a loop thread only; one static limit per call site. */
#define log_limited(level, module, event, ...)                                                                                     \
    do {                                                                                                                           \
        static struct log_limit limit_here;                                                                                        \
        uint32_t left_out_here = 0;                                                                                                \
        if (log_enabled(level) && log_limit_pass(&limit_here, &left_out_here)) {                                                   \
            log_write(level, module, event, __VA_ARGS__);                                                                          \
            if (left_out_here > 0) {                                                                                               \
                log_write(level, module, event, "left_out=%u", (unsigned)left_out_here);                                           \
            }                                                                                                                      \
        }                                                                                                                          \
    } while (0)

#endif
