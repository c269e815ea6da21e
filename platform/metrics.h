/* metrics.h: counters, gauges and histograms, shown as Prometheus text (exposition format 0.0.4).
 *
 * A module defines its metrics as file-level objects and registers them once at start:
 *     static const char *const channels[] = {"control", "events", "data"};
 *     static struct metric pending = METRIC_GAUGE_LABELS("grey_federation_queue_pending", "Events not acknowledged.", "channel", channels);
 *     metrics_register(&pending);   metrics_set(&pending, CHANNEL_DATA, 17);
 * Labels have a fixed list of values, so their number is bounded.  Thread: add, set and observe from any thread. */
#ifndef PLATFORM_METRICS_H
#define PLATFORM_METRICS_H

#include "platform/bytes.h"

enum metric_type { METRIC_COUNTER_TYPE, METRIC_GAUGE_TYPE, METRIC_HISTOGRAM_TYPE };
#define METRIC_LABELS_MAX 20u
#define METRIC_BUCKETS 16 /* seconds: 0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 10 +Inf */

struct metric {
    const char *name, *help;
    enum metric_type type;
    const char *label; /* NULL: no label, and slot 0 is used */
    const char *const *label_values;
    unsigned label_count;
    _Atomic int64_t value[METRIC_LABELS_MAX]; /* counters and gauges; gauges in thousandths when milli is set */
    bool milli;
    _Atomic uint64_t bucket[METRIC_BUCKETS];
    _Atomic uint64_t sum_us;
    struct metric *next;
};

#define METRIC_COUNTER(n, h)                                                                                                       \
    { .name = (n), .help = (h), .type = METRIC_COUNTER_TYPE, .label_count = 1 }
#define METRIC_GAUGE(n, h)                                                                                                         \
    { .name = (n), .help = (h), .type = METRIC_GAUGE_TYPE, .label_count = 1 }
#define METRIC_GAUGE_MILLI(n, h)                                                                                                   \
    { .name = (n), .help = (h), .type = METRIC_GAUGE_TYPE, .label_count = 1, .milli = true }
#define METRIC_HISTOGRAM(n, h)                                                                                                     \
    { .name = (n), .help = (h), .type = METRIC_HISTOGRAM_TYPE, .label_count = 1 }
#define METRIC_COUNTER_LABELS(n, h, l, v)                                                                                          \
    {                                                                                                                              \
        .name = (n), .help = (h), .type = METRIC_COUNTER_TYPE, .label = (l), .label_values = (v),                                  \
        .label_count = sizeof(v) / sizeof(v)[0]                                                                                    \
    }
#define METRIC_GAUGE_LABELS(n, h, l, v)                                                                                            \
    {                                                                                                                              \
        .name = (n), .help = (h), .type = METRIC_GAUGE_TYPE, .label = (l), .label_values = (v),                                    \
        .label_count = sizeof(v) / sizeof(v)[0]                                                                                    \
    }

void metrics_register(struct metric *m); /* lends m for the life of the process; twice is harmless */
void metrics_add(struct metric *m, unsigned slot, int64_t n);
void metrics_set(struct metric *m, unsigned slot, int64_t v);
void metrics_observe_us(struct metric *m, uint64_t us);
int64_t metrics_value(const struct metric *m, unsigned slot);
uint64_t metrics_quantile_us(const struct metric *m, double quantile); /* estimate from the buckets */
void metrics_render(struct builder *out);

#endif
