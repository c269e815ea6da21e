#include "platform/metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>

#include "include/grey/must.h"

static const uint64_t bounds_us[METRIC_BUCKETS] = {100,   250,    500,    1000,   2500,    5000,    10000,    25000,
                                                   50000, 100000, 250000, 500000, 1000000, 2500000, 10000000, UINT64_MAX};
static const char *const bounds_text[METRIC_BUCKETS] = {"0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025",
                                                        "0.05",   "0.1",     "0.25",   "0.5",   "1",      "2.5",   "10",   "+Inf"};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric *first, **end = &first; /* under list_lock, in the order of registration */

void metrics_register(struct metric *m) {
    must(m->label_count >= 1 && m->label_count <= METRIC_LABELS_MAX);
    must((m->label == NULL) == (m->label_values == NULL));
    (void)pthread_mutex_lock(&list_lock);
    if (m->next == NULL && end != &m->next) {
        *end = m;
        end = &m->next;
    }
    (void)pthread_mutex_unlock(&list_lock);
}

void metrics_add(struct metric *m, unsigned slot, int64_t n) {
    must(slot < m->label_count && m->type != METRIC_HISTOGRAM_TYPE);
    atomic_fetch_add_explicit(&m->value[slot], n, memory_order_relaxed);
}

void metrics_set(struct metric *m, unsigned slot, int64_t v) {
    must(slot < m->label_count && m->type != METRIC_HISTOGRAM_TYPE);
    atomic_store_explicit(&m->value[slot], v, memory_order_relaxed);
}

void metrics_observe_us(struct metric *m, uint64_t us) {
    must(m->type == METRIC_HISTOGRAM_TYPE);
    unsigned i = 0;
    while (us > bounds_us[i]) {
        i++;
    }
    atomic_fetch_add_explicit(&m->bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->sum_us, us, memory_order_relaxed);
}

/* Copies the buckets, so that what follows agrees with itself while other threads count on.  Returns their sum. */
static uint64_t copy_buckets(const struct metric *m, uint64_t out[METRIC_BUCKETS]) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < METRIC_BUCKETS; i++) {
        out[i] = atomic_load_explicit(&m->bucket[i], memory_order_relaxed);
        sum += out[i];
    }
    return sum;
}

int64_t metrics_value(const struct metric *m, unsigned slot) {
    must(slot < m->label_count);
    if (m->type == METRIC_HISTOGRAM_TYPE) {
        uint64_t buckets[METRIC_BUCKETS];
        return (int64_t)copy_buckets(m, buckets);
    }
    return atomic_load_explicit(&m->value[slot], memory_order_relaxed);
}

uint64_t metrics_quantile_us(const struct metric *m, double quantile) {
    must(m->type == METRIC_HISTOGRAM_TYPE && quantile >= 0 && quantile <= 1);
    uint64_t buckets[METRIC_BUCKETS];
    double rank = quantile * (double)copy_buckets(m, buckets);
    double below = 0;
    for (unsigned i = 0; i < METRIC_BUCKETS - 1; i++) {
        double here = (double)buckets[i];
        if (here > 0 && below + here >= rank) {
            double from_us = i == 0 ? 0 : (double)bounds_us[i - 1];
            return (uint64_t)(from_us + ((double)bounds_us[i] - from_us) * (rank - below) / here);
        }
        below += here;
    }
    return buckets[METRIC_BUCKETS - 1] > 0 ? bounds_us[METRIC_BUCKETS - 2] : 0; /* beyond the last bound: it is what we know */
}

/* Help texts and label values with \ and line feeds escaped, in label values " as well. */
static void add_escaped(struct builder *out, const char *text, bool in_quotes) {
    for (; *text != '\0'; text++) {
        if (*text == '\n') {
            builder_add_str(out, "\\n");
        } else {
            if (*text == '\\' || (in_quotes && *text == '"')) {
                builder_add_byte(out, '\\');
            }
            builder_add_byte(out, (uint8_t)*text);
        }
    }
}

static void render_histogram(const struct metric *m, struct builder *out) {
    uint64_t buckets[METRIC_BUCKETS], count = 0;
    (void)copy_buckets(m, buckets);
    for (unsigned i = 0; i < METRIC_BUCKETS; i++) {
        count += buckets[i];
        builder_addf(out, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", m->name, bounds_text[i], count);
    }
    uint64_t sum_us = atomic_load_explicit(&m->sum_us, memory_order_relaxed);
    builder_addf(out, "%s_sum %" PRIu64 ".%06" PRIu64 "\n", m->name, sum_us / 1000000, sum_us % 1000000);
    builder_addf(out, "%s_count %" PRIu64 "\n", m->name, count);
}

static void render_values(const struct metric *m, struct builder *out) {
    for (unsigned slot = 0; slot < m->label_count; slot++) {
        builder_add_str(out, m->name);
        if (m->label != NULL) {
            builder_addf(out, "{%s=\"", m->label);
            add_escaped(out, m->label_values[slot], true);
            builder_add_str(out, "\"}");
        }
        int64_t v = atomic_load_explicit(&m->value[slot], memory_order_relaxed);
        if (m->milli) {
            uint64_t size = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
            builder_addf(out, " %s%" PRIu64 ".%03" PRIu64 "\n", v < 0 ? "-" : "", size / 1000, size % 1000);
        } else {
            builder_addf(out, " %" PRId64 "\n", v);
        }
    }
}

void metrics_render(struct builder *out) {
    static const char *const types[] = {
        [METRIC_COUNTER_TYPE] = "counter", [METRIC_GAUGE_TYPE] = "gauge", [METRIC_HISTOGRAM_TYPE] = "histogram"};
    (void)pthread_mutex_lock(&list_lock);
    for (const struct metric *m = first; m != NULL; m = m->next) {
        builder_addf(out, "# HELP %s ", m->name);
        add_escaped(out, m->help, false);
        builder_addf(out, "\n# TYPE %s %s\n", m->name, types[m->type]);
        if (m->type == METRIC_HISTOGRAM_TYPE) {
            render_histogram(m, out);
        } else {
            render_values(m, out);
        }
    }
    (void)pthread_mutex_unlock(&list_lock);
}
