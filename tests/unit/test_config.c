/* Configuration: a typing error must be refused with the place and the nearest key, not run with a default at 3 a.m. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/config/config.h"
#include "platform/conn.h"

static const char *env_name, *env_value, *file_text, *profile_text;
static char path_read[LIMIT_PATH_BYTES + 1];

static const char *environment(const char *name) {
    return env_name != NULL && strcmp(name, env_name) == 0 ? env_value : NULL;
}

static enum grey_error read_file(const char *path, struct builder *out, struct fault *f) {
    if (strcmp(path, CONFIG_PROFILE_DEFAULT) == 0 || strcmp(path, "profile.yaml") == 0) {
        builder_add_str(out, profile_text == NULL ? "" : profile_text);
        return profile_text == NULL ? fault_set(f, E_NOT_FOUND, "%s", path) : E_OK;
    }
    (void)snprintf(path_read, sizeof path_read, "%s", path);
    if (file_text == NULL) {
        FILE *file = fopen(path, "r");
        char room[4096];
        if (file == NULL) {
            return fault_set(f, E_NOT_FOUND, "%s", path);
        }
        size_t got = fread(room, 1, sizeof room, file);
        builder_add(out, bytes_of(room, got));
        (void)fclose(file);
    } else {
        builder_add_str(out, file_text);
    }
    return E_OK;
}

static enum grey_error load(struct config *c, struct fault *f, const char *a, const char *b, const char *d) {
    char *argv[] = {(char *)(uintptr_t) "greyd", (char *)(uintptr_t)a, (char *)(uintptr_t)b, (char *)(uintptr_t)d, NULL};
    int argc = 1;
    while (argv[argc] != NULL) {
        argc++;
    }
    return config_load(c, argc, argv, environment, read_file, f);
}

static void example_files_are_accepted(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    file_text = NULL;
    assert_int_equal(load(&c, &f, "--config", "tests/unit/data/dev.yaml", NULL), E_OK);
    assert_true(c.mode == CONFIG_MODE_SINGLE && c.election_timeout_ms == 1000 && c.heartbeat_interval_ms == 333 &&
                c.metrics_port == 9091);
    assert_string_equal(c.wal_dir, "./data/wal");
    assert_int_equal(load(&c, &f, "--config", "tests/unit/data/edge-config.yaml", NULL), E_OK);
    assert_true(c.mode == CONFIG_MODE_EDGE && c.endpoint_count == 2 && c.limit_kbps == 10000 && c.queue_size_mb == 1024);
    assert_string_equal(c.site_id, "edge-factory-001");
    assert_true(c.priority_count == 0 && c.failback_s == 300 && c.handover_s == 300 && c.upstream_alpn && c.proxy[0] == 0);
    file_text =
        "federation: {upstream: {endpoints: ['a:1', 'b:443'], priorities: [2, 1], alpn: false}, proxy: {address: 'p:3128'}}\n";
    assert_int_equal(load(&c, &f, "--config", "x.yaml", NULL), E_OK);
    assert_true(c.priorities[0] == 2 && c.priorities[1] == 1 && c.priority_count == 2 && !c.upstream_alpn);
    assert_string_equal(c.proxy, "p:3128");
}

/* What a site engineer writes for the queue is what the site goes by. */
static void shares_and_times_of_the_queue(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    file_text = "federation: {offline: {max_offline_duration_hours: 300, max_age_hours: 500, floor_percent: {low: 5},\n"
                "  time_to_live: [{type: 'debug.*', hours: 1.5}, {type: '*', hours: 24}]}}\n";
    assert_int_equal(load(&c, &f, "--config", "x.yaml", NULL), E_OK);
    assert_true(c.offline_hours_max == 300 && c.age_hours_max == 500 && c.floor_percent[PRIORITY_LOW] == 5 &&
                c.floor_percent[PRIORITY_HIGH] == 0 && c.time_count == 2 && c.times[0].seconds == 5400 &&
                c.times[1].seconds == 86400);
    assert_string_equal(c.times[0].type, "debug.*");
    struct builder b;
    builder_init(&b, 100000);
    config_print(&c, &b);
    builder_add_byte(&b, 0);
    assert_non_null(strstr((char *)b.data, "federation.offline.time_to_live: debug.*: 1.500 h, *: 24.000 h"));
    builder_free(&b);
}

/* An address that cannot be one is found where it is written, not as "cannot be reached" at the first start in the field. */
static void addresses_are_host_and_port(void **state) {
    (void)state;
    static struct config c;
    static const char *const bad[] = {"nonsense", "127.0.0.1:99999", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:-1", "\"\""};
    static const char *const keys[] = {"http_addr", "peer_addr", "grpc_addr", "peer_advertise"};
    char text[200];
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            struct fault f = {0};
            bool none = k == 3 && strcmp(bad[i], "\"\"") == 0; /* it may be left out */
            (void)snprintf(text, sizeof text, "networking:\n  %s: %s\n", keys[k], bad[i]);
            file_text = text;
            assert_int_equal(load(&c, &f, "--config", "x.yaml", NULL), none ? E_OK : E_CONFIG);
            assert_true(none || strstr(f.text, "x.yaml: line 2, column ") != NULL);
        }
    }
    struct fault f = {0};
    file_text = "federation: {upstream: {endpoints: ['core:443', 'core:70000']}}\n";
    assert_int_equal(load(&c, &f, "--config", "x.yaml", NULL), E_CONFIG);
    file_text = "federation: {proxy: {address: proxy}}\n";
    assert_int_equal(load(&c, &f, "--config", "x.yaml", NULL), E_CONFIG);
    file_text = "storage: {data_dir: ''}\n";
    assert_int_equal(load(&c, &f, "--config", "x.yaml", NULL), E_CONFIG);
    file_text = "mode: site\nnetworking: {http_addr: ':8081', peer_addr: '[::1]:9001'}\n";
    assert_int_equal(load(&c, &f, "--config=x", "--join=127.0.0.1:9001,gateway-2:9001", NULL), E_OK);
    assert_string_equal(c.http_addr, "127.0.0.1:8081");
    assert_int_equal(load(&c, &f, "--config=x", "--join=127.0.0.1:9001,,", NULL), E_USAGE);
    assert_int_equal(load(&c, &f, "--config=x", "--join=gateway-2", NULL), E_USAGE);
    assert_int_equal(load(&c, &f, "--config=x", "--http-addr", "127.0.0.1:99999"), E_USAGE);
    assert_int_equal(load(&c, &f, "--config=x", "--http-addr=unix:/run/grey/api.sock", NULL), E_OK);
}

static void order_of_origins(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    file_text = "storage: {data_dir: /file}\nnode: {id: n1}\n";
    env_name = "GREY_DATA_DIR", env_value = "/env";
    assert_int_equal(load(&c, &f, "--config=x", "--node-id=n2", NULL), E_OK);
    assert_string_equal(c.data_dir, "/env");
    assert_string_equal(c.node_id, "n2");
    assert_string_equal(c.site_id, "n1"); /* the file's node.id names the site */
    assert_int_equal(load(&c, &f, "--config=x", "--data-dir", "/flag"), E_OK);
    assert_string_equal(c.data_dir, "/flag");
    struct builder b;
    builder_init(&b, 100000);
    config_print(&c, &b);
    builder_add_byte(&b, 0);
    assert_non_null(strstr((char *)b.data, "storage.data_dir: \"/flag\""));
    assert_non_null(strstr((char *)b.data, "# --data-dir"));
    assert_non_null(strstr((char *)b.data, "# x:2"));
    builder_free(&b);
    env_name = NULL;
}

/* What is right for a board is a default that the site's own file may change; a mistake in it is named as its own. */
static void a_board_has_its_defaults(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    profile_text = "storage: {cache_kb: 512}\nhardware: {memory_budget_mb: 24}\n";
    file_text = "hardware: {memory_budget_mb: 32}\n";
    assert_int_equal(load(&c, &f, "--config=x", NULL, NULL), E_OK);
    assert_true(c.cache_kb == 512 && c.memory_budget_mb == 32);
    struct builder b;
    builder_init(&b, 100000);
    config_print(&c, &b);
    builder_add_byte(&b, 0);
    assert_non_null(strstr((char *)b.data, "# " CONFIG_PROFILE_DEFAULT ":1"));
    builder_free(&b);
    profile_text = "storage: {cache: 512}\n";
    assert_int_equal(load(&c, &f, "--config=x", "--profile", "profile.yaml"), E_CONFIG);
    assert_non_null(strstr(f.text, "profile.yaml: line 1"));
    profile_text = NULL;
    assert_int_equal(load(&c, &f, "--config=x", "--profile=profile.yaml", NULL), E_CONFIG); /* it was named, so it must be there */
    assert_int_equal(load(&c, &f, "--config=x", NULL, NULL), E_OK);
    assert_true(c.cache_kb == 256);
}

static void mistakes_are_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } table[] = {
        {"storage:\n  data_dri: /x\n",
         "line 2, column 3: unknown key 'storage.data_dri'; the nearest known one is 'storage.data_dir'"},
        {"data_dir: /x\n", "storage.data_dir"},
        {"consensus: {election_timeout_ms: 10}\n", "line 1"},
        {"consensus: {election_timeout_ms: fast}\n", "line 1"},
        {"consensus: {election_timeout_ms: 300, heartbeat_interval_ms: 200}\n", "at most half"},
        {"mode: cluster\n", "not one of single|site|edge|witness|dev"},
        {"node: {id: 'a/b'}\n", "no name"},
        {"node: x\n", "more keys"},
        {"security: {tls: {enabled: true}}\n", "security.tls.ca_cert"},
        {"security: {tls: {enabled: 1}}\n", "line 1"},
        {"networking: {http_addr: '0.0.0.0:80'}\n", "can be reached by others"},
        {"federation: {enabled: true}\n", "endpoints"},
        {"federation: {offline: {floor_percent: {high: 50, normal: 30, low: 20}}}\n", "more than 90"},
        {"federation: {offline: {time_to_live: [{type: a}]}}\n", "expected type and hours"},
        {"federation: {offline: {time_to_live: [{type: a, hours: 0.001}]}}\n", "line 1"},
        {"federation: {offline: {time_to_live: {type: a, hours: 1}}}\n", "a list of types and hours"},
        {"federation: {upstream: {endpoints: [nohost]}}\n", "host:port"},
        {"federation: {upstream: {endpoints: ['a:1', 'b:1'], priorities: [1]}}\n", "1 numbers for 2 endpoints"},
        {"federation: {upstream: {endpoints: ['a:1'], priorities: [0]}}\n", "line 1"},
        {"federation: {upstream: {endpoints: ['a:1'], priorities: 1}}\n", "list of numbers"},
        {"federation: {upstream: {failback_secs: 0}}\n", "line 1"},
        {"federation: {proxy: {address: proxyhost}}\n", "host:port"},
        {"a: 1\na: 2\n", "line 2"},
        {"[1, 2]\n", "expected keys and values"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        static struct config c;
        struct fault f = {0};
        file_text = table[i].text;
        assert_int_equal(load(&c, &f, "-c", "x.yaml", NULL), E_CONFIG);
        if (strstr(f.text, table[i].says) == NULL) {
            fail_msg("'%s' said: %s", table[i].text, f.text);
        }
    }
    static struct config c;
    struct fault f = {0};
    file_text = "security: {tls: {min_version: '1.3'}}\n"; /* who asks for it must not get less in silence */
    assert_int_equal(load(&c, &f, "-c", "x.yaml", NULL), conn_tls_knows_13() ? E_OK : E_TLS_VERSION);
    assert_int_equal(load(&c, &f, "--nonsense", NULL, NULL), E_USAGE);
    assert_int_equal(load(&c, &f, "--node-id", NULL, NULL), E_USAGE);
    assert_int_equal(load(&c, &f, "--mode=x", NULL, NULL), E_USAGE);
    assert_int_equal(load(&c, &f, "word", NULL, NULL), E_USAGE);
}

/* The guide's plain command lines, typed as they stand there, must start a site on this machine and expose nothing to others. */
static void guides_command_lines_work(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    file_text = "";
    assert_int_equal(load(&c, &f, "--http-addr=:8081", "--grpc-addr=:9001", "--mode=dev"), E_OK);
    assert_string_equal(c.http_addr, "127.0.0.1:8081");
    assert_string_equal(c.peer_addr, "127.0.0.1:9001");
    assert_string_equal(c.peer_advertise, "127.0.0.1:9001");
    assert_true(c.mode == CONFIG_MODE_SINGLE);
    assert_int_equal(load(&c, &f, "--http-addr=0.0.0.0:8081", NULL, NULL), E_CONFIG);
    assert_int_equal(load(&c, &f, "--http-addr=0.0.0.0:8081", "--insecure-i-know", NULL), E_OK);
    assert_int_equal(load(&c, &f, "--peer-addr=10.0.0.1:9090", NULL, NULL), E_CONFIG);
    assert_non_null(strstr(f.text, "security.tls.enabled"));
}

/* A gateway that lost its file must not start as another node with defaults when the file was asked for by name. */
static void default_file_may_be_absent_a_named_one_not(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    file_text = NULL;
    if (access(CONFIG_FILE_DEFAULT, F_OK) != 0) {
        assert_int_equal(load(&c, &f, "--mode=dev", NULL, NULL), E_OK);
        assert_string_equal(path_read, CONFIG_FILE_DEFAULT);
        assert_string_equal(c.file, "");
    }
    assert_int_equal(load(&c, &f, "--config=/nonexistent/greyd.yaml", NULL, NULL), E_CONFIG);
    assert_non_null(strstr(f.text, "/nonexistent/greyd.yaml"));
    file_text = "node: {id: n7}\n";
    assert_int_equal(load(&c, &f, NULL, NULL, NULL), E_OK);
    assert_string_equal(c.node_id, "n7");
    assert_string_equal(c.file, CONFIG_FILE_DEFAULT);
}

/* Compose files set variables they do not mean to the empty text. */
static void empty_variables_say_nothing(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    file_text = "";
    env_name = "GREY_RAFT_BOOTSTRAP", env_value = "";
    assert_int_equal(load(&c, &f, NULL, NULL, NULL), E_OK);
    assert_false(c.bootstrap);
    env_value = "true";
    assert_int_equal(load(&c, &f, NULL, NULL, NULL), E_OK);
    assert_true(c.bootstrap);
    env_value = "yes";
    assert_int_equal(load(&c, &f, NULL, NULL, NULL), E_USAGE);
    env_name = "GREY_GRPC_ADDR", env_value = "127.0.0.1:7";
    assert_int_equal(load(&c, &f, NULL, NULL, NULL), E_OK);
    assert_string_equal(c.peer_addr, "127.0.0.1:7");
    env_name = NULL;
}

/* Who types a window wrongly must hear it at the start, not from the provider's bill. */
static void the_link_is_bounded_as_the_file_says(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    struct builder out;
    file_text =
        "federation:\n  bandwidth:\n    limit_mbps: 0.016\n    down_limit_mbps: 2\n    priority_traffic: [control-plane, events]\n"
        "    windows:\n      - \"* 8-17 * * mon-fri limit_mbps=0.5\"\n      - \"0 * * * * forbid=data\"\n"
        "    time_zone: Europe/Berlin\n    budget: {day_mb: 5, month_mb: 0.5, reserve_percent: 20, month_begins_day: 15}\n";
    assert_int_equal(load(&c, &f, "--config", "x.yaml", NULL), E_OK);
    assert_true(c.limit_kbps == 16 && c.down_limit_kbps == 2000 && c.window_count == 2);
    assert_true(c.privileged[CHANNEL_EVENTS] && !c.privileged[CHANNEL_DATA]);
    assert_true(c.windows[0].up_bytes_per_s == 62500 && c.windows[1].forbids[CHANNEL_DATA]);
    assert_true(c.budget_day_kb == 5000 && c.budget_month_kb == 500 && c.budget_reserve_percent == 20 &&
                c.budget_month_begins_day == 15);
    builder_init(&out, 1u << 20);
    config_print(&c, &out);
    builder_add_byte(&out, 0);
    assert_non_null(strstr((const char *)out.data, "\"* 8-17 * * mon-fri limit_mbps=0.5\", \"0 * * * * forbid=data\""));
    assert_non_null(strstr((const char *)out.data, "control-plane, critical-events, events "));
    builder_free(&out);
    static const char *const wrong[][2] = {
        {"limit_mbps: 0.015", "below 0.016"},
        {"down_limit_mbps: 0.001", "below 0.016"},
        {"windows: [\"* 25 * * * forbid=data\"]", "is no hour"},
        {"windows: \"* * * * * forbid=data\"", "a list of windows"},
        {"priority_traffic: [bulk]", "control-plane, critical-events"},
        {"priority_traffic: data", "a list of classes"},
        {"budget: {reserve_percent: 101}", "100"},
        {"budget: {month_begins_day: 29}", "28"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[200];
        (void)snprintf(text, sizeof text, "federation:\n  bandwidth:\n    %s\n", wrong[i][0]);
        file_text = text;
        assert_int_equal(load(&c, &f, "--config", "x.yaml", NULL), E_CONFIG);
        if (strstr(f.text, wrong[i][1]) == NULL) {
            fail_msg("%s: %s", wrong[i][0], f.text);
        }
    }
}

/* What has no effect must be said, above all when it sounds like protection. */
static void keys_without_effect_are_listed(void **state) {
    (void)state;
    static struct config c;
    struct fault f = {0};
    struct builder b;
    file_text = "storage: {max_size_gb: 7}\nsecurity: {auth: {enabled: true}}\nconsensus: {snapshot_threshold: 20}\n";
    assert_int_equal(load(&c, &f, "-c", "x.yaml", NULL), E_OK);
    builder_init(&b, 10000);
    config_list_inert(&c, &b);
    builder_add_byte(&b, 0);
    assert_non_null(strstr((char *)b.data, "x.yaml:1: storage.max_size_gb"));
    assert_non_null(strstr((char *)b.data, "x.yaml:2: security.auth.enabled"));
    assert_null(strstr((char *)b.data, "snapshot_threshold"));
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(guides_command_lines_work),
                                       cmocka_unit_test(default_file_may_be_absent_a_named_one_not),
                                       cmocka_unit_test(empty_variables_say_nothing),
                                       cmocka_unit_test(the_link_is_bounded_as_the_file_says),
                                       cmocka_unit_test(keys_without_effect_are_listed),
                                       cmocka_unit_test(example_files_are_accepted),
                                       cmocka_unit_test(shares_and_times_of_the_queue),
                                       cmocka_unit_test(order_of_origins),
                                       cmocka_unit_test(addresses_are_host_and_port),
                                       cmocka_unit_test(a_board_has_its_defaults),
                                       cmocka_unit_test(mistakes_are_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
