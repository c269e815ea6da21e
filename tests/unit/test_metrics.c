#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "platform/metrics.h"

static const char *const channels[] = {"control", "events", "da\"t\\a\n"};

/* If the page were not in Prometheus' format, monitoring would show a gateway as gone. */
static void the_page_is_prometheus_text(void **state) {
    (void)state;
    static struct metric sent = METRIC_COUNTER("grey_sent_total", "Frames\nsent.");
    static struct metric pending = METRIC_GAUGE_LABELS("grey_pending", "Events waiting.", "channel", channels);
    static struct metric phi = METRIC_GAUGE_MILLI("grey_phi", "Suspicion.");
    static struct metric commit = METRIC_HISTOGRAM("grey_commit_seconds", "Commit latency.");
    metrics_register(&sent);
    metrics_register(&pending);
    metrics_register(&sent); /* twice is harmless, as the first, in the middle and as the last */
    metrics_register(&pending);
    metrics_register(&phi);
    metrics_register(&pending);
    metrics_register(&commit);
    metrics_register(&commit);
    metrics_add(&sent, 0, 3);
    metrics_add(&sent, 0, 4);
    metrics_set(&pending, 2, 17);
    metrics_set(&phi, 0, -1250);
    metrics_observe_us(&commit, 0);
    metrics_observe_us(&commit, 100);
    metrics_observe_us(&commit, 101);
    metrics_observe_us(&commit, 10000000);
    metrics_observe_us(&commit, 10000001);
    struct builder b;
    builder_init(&b, 65536);
    metrics_render(&b);
    builder_add_byte(&b, 0);
    assert_int_equal(b.err, E_OK);
    assert_string_equal(b.data, "# HELP grey_sent_total Frames\\nsent.\n"
                                "# TYPE grey_sent_total counter\n"
                                "grey_sent_total 7\n"
                                "# HELP grey_pending Events waiting.\n"
                                "# TYPE grey_pending gauge\n"
                                "grey_pending{channel=\"control\"} 0\n"
                                "grey_pending{channel=\"events\"} 0\n"
                                "grey_pending{channel=\"da\\\"t\\\\a\\n\"} 17\n"
                                "# HELP grey_phi Suspicion.\n"
                                "# TYPE grey_phi gauge\n"
                                "grey_phi -1.250\n"
                                "# HELP grey_commit_seconds Commit latency.\n"
                                "# TYPE grey_commit_seconds histogram\n"
                                "grey_commit_seconds_bucket{le=\"0.0001\"} 2\n"
                                "grey_commit_seconds_bucket{le=\"0.00025\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.0005\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.001\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.0025\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.005\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.01\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.025\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.05\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.1\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.25\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"0.5\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"1\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"2.5\"} 3\n"
                                "grey_commit_seconds_bucket{le=\"10\"} 4\n"
                                "grey_commit_seconds_bucket{le=\"+Inf\"} 5\n"
                                "grey_commit_seconds_sum 20.000202\n"
                                "grey_commit_seconds_count 5\n");
    assert_int_equal(metrics_value(&sent, 0), 7);
    assert_int_equal(metrics_value(&pending, 2), 17);
    assert_int_equal(metrics_value(&commit, 0), 5);
    builder_free(&b);
}

/* If the estimate were wrong, time-outs that follow the disk's speed would be too short. */
static void quantiles_are_estimated_within_their_bucket(void **state) {
    (void)state;
    static struct metric m = METRIC_HISTOGRAM("grey_x_seconds", "X.");
    assert_int_equal(metrics_quantile_us(&m, 0.5), 0);
    for (int i = 0; i < 90; i++) {
        metrics_observe_us(&m, 700);
    }
    for (int i = 0; i < 10; i++) {
        metrics_observe_us(&m, 30000);
    }
    assert_in_range(metrics_quantile_us(&m, 0.5), 500, 1000);
    assert_in_range(metrics_quantile_us(&m, 0.9), 500, 1000);
    assert_in_range(metrics_quantile_us(&m, 0.99), 25000, 50000);
    assert_in_range(metrics_quantile_us(&m, 1), 25000, 50000);
    assert_in_range(metrics_quantile_us(&m, 0), 500, 1000);
    metrics_observe_us(&m, UINT64_MAX / 2);
    assert_int_equal(metrics_quantile_us(&m, 1), 10000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_is_prometheus_text),
        cmocka_unit_test(quantiles_are_estimated_within_their_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
