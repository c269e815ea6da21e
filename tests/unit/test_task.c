#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/api/taskform.h"
#include "include/grey/protocol.h"

static const char full[] =
    "{\"id\":\"press-7\",\"tenant\":\"acme\",\"namespace\":\"production\",\"lane\":\"high\",\"command\":[\"/bin/press\",\"\"],"
    "\"oci\":{\"image\":\"/srv/press.tar\"},\"env\":{\"A\":\"1\",\"B\":\"x=y\"},\"stdin\":\"go\","
    "\"resources\":{\"cpu_millicores\":250,\"memory_bytes\":1048576,\"io_write_bps\":65536},\"depends_on\":[\"a\",\"b\"],"
    "\"timeout_seconds\":60,\"restart\":\"on-failure\",\"max_retries\":3,\"node_selector\":{\"disk\":\"large\"},"
    "\"on_isolation\":\"keep\",\"on_reconnect\":\"best-score\",\"affinity\":\"n2\","
    "\"health\":{\"http\":{\"port\":8080,\"path\":\"/up\"},\"interval_seconds\":2,\"failures\":4},"
    "\"files\":[{\"name\":\"conf\",\"text\":\"a=1\"}],\"artifacts\":[{\"object\":\"model\",\"mode\":\"0755\",\"sha256\":"
    "\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"},{\"path\":\"/srv/b.bin\",\"sha256\":"
    "\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"}],"
    "\"isolate\":{\"network\":\"none\",\"pid\":true,\"mount\":false},\"stop_signal\":\"USR1\",\"stop_grace_ms\":1500}";

#define H64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static enum grey_error read(struct taskform *form, const char *text, struct fault *f) {
    return taskform_read(form, bytes_str(text), LANE_NORMAL, 0xabc, f);
}

/* What a submitter writes must be what the site runs, through JSON, the log and back. */
static void an_order_survives_its_way(void **context) {
    (void)context;
    struct taskform form;
    struct task_order back;
    struct fault f = {0};
    struct builder b;
    builder_init(&b, TASK_ORDER_BYTES_MAX);
    assert_int_equal(read(&form, full, &f), E_OK);
    task_encode(&b, &form.order);
    assert_int_equal(task_decode(builder_bytes(&b), &back, &f), E_OK);
    assert_true(bytes_equal_str(back.id, "press-7") && bytes_equal_str(back.tenant, "acme") &&
                bytes_equal_str(back.name_space, "production"));
    assert_int_equal(back.lane, LANE_HIGH);
    assert_int_equal(back.command.count, 2);
    assert_true(bytes_equal_str(back.command.at[0], "/bin/press") && back.command.at[1].size == 0);
    assert_true(bytes_equal_str(back.oci, "/srv/press.tar") && !back.bundle && bytes_equal_str(back.standard_input, "go"));
    assert_int_equal(back.env.count, 2);
    assert_true(bytes_equal_str(back.env.at[0], "A=1") && bytes_equal_str(back.env.at[1], "B=x=y"));
    assert_int_equal(back.cpu_millicores, 250);
    assert_int_equal(back.memory_bytes, 1048576);
    assert_true(back.depends_on.count == 2 && bytes_equal_str(back.depends_on.at[1], "b"));
    assert_true(back.timeout_s == 60 && back.restart == RESTART_ON_FAILURE && back.max_retries == 3);
    assert_true(back.selectors.count == 1 && bytes_equal_str(back.selectors.at[0], "disk=large"));
    assert_true(back.isolation == ISOLATION_KEEP && back.reconnect == RECONNECT_BEST_SCORE && bytes_equal_str(back.affinity, "n2"));
    assert_true(back.health.probe == PROBE_HTTP && back.health.port == 8080 && bytes_equal_str(back.health.path, "/up"));
    assert_true(back.health.interval_s == 2 && back.health.timeout_s == 5 && back.health.failures == 4 && back.health.delay_s == 0);
    assert_true(back.file_count == 3 && back.files[0].source == FILE_TEXT && bytes_equal_str(back.files[0].text, "a=1"));
    assert_true(back.files[1].source == FILE_OBJECT && bytes_equal_str(back.files[1].name, "model") && back.files[1].mode == 0755);
    assert_true(back.files[2].source == FILE_PATH && bytes_equal_str(back.files[2].name, "b.bin") && back.files[2].mode == 0644);
    assert_true(back.files[2].hash.size == TASK_HASH_BYTES && back.files[2].hash.data[31] == 0x1f);
    assert_int_equal(back.isolate, TASK_ISOLATE_NETWORK | TASK_ISOLATE_PID);
    assert_true(back.stop_signal == STOP_USR1 && back.stop_grace_ms == 1500 && back.io_write_bps == 65536 && back.io_read_bps == 0);
    assert_int_equal(task_level(&back), FEATURE_LEVEL_IMAGES);
    struct builder again;
    builder_init(&again, TASK_ORDER_BYTES_MAX);
    task_encode(&again, &back);
    assert_true(bytes_equal(builder_bytes(&b), builder_bytes(&again)));
    for (size_t size = 0; size < b.size; size++) { /* no head of it is one */
        assert_int_not_equal(task_decode(bytes_of(b.data, size), &back, &f), E_OK);
    }
    builder_free(&b);
    builder_free(&again);
    taskform_free(&form);
}

/* What older gateways do not know is there only when it is used: they must read all other orders. */
static void an_order_with_a_zone_or_a_patience_survives_too(void **context) {
    (void)context;
    static const char *const texts[] = {
        "{\"id\":\"a\",\"command\":[\"x\"],\"schedule\":\"0 2 * * *\",\"time_zone\":\"Europe/Berlin\"}",
        "{\"id\":\"a\",\"command\":[\"x\"],\"offload\":\"local\",\"offload_patience_seconds\":60}",
        "{\"id\":\"a\",\"command\":[\"x\"],\"offload\":\"wait\",\"resources\":{\"disk_bytes\":1000}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct taskform form;
        struct task_order back;
        struct fault f = {0};
        struct builder b, again;
        builder_init(&b, TASK_ORDER_BYTES_MAX);
        builder_init(&again, TASK_ORDER_BYTES_MAX);
        assert_int_equal(read(&form, texts[i], &f), E_OK);
        form.order.zone_rule = i == 0 ? bytes_str("CET-1CEST,M3.5.0,M10.5.0/3") : bytes_of(NULL, 0);
        task_encode(&b, &form.order);
        assert_int_equal(task_decode(builder_bytes(&b), &back, &f), E_OK);
        assert_true(bytes_equal(back.zone, form.order.zone) && bytes_equal(back.zone_rule, form.order.zone_rule));
        assert_true(back.offload == form.order.offload && back.offload_patience_s == (i == 1 ? 60u : 0u));
        assert_int_equal(back.disk_bytes, i == 2 ? 1000 : 0);
        task_encode(&again, &back);
        assert_true(bytes_equal(builder_bytes(&b), builder_bytes(&again)));
        assert_int_equal(task_level(&back), FEATURE_LEVEL_OFFLOAD);
        for (size_t size = 0; size < b.size; size++) {
            assert_int_not_equal(task_decode(bytes_of(b.data, size), &back, &f), E_OK);
        }
        builder_free(&b);
        builder_free(&again);
        taskform_free(&form);
    }
}

/* Gateways of former versions stop at what they cannot read, so an order says which version it wants, and what it does not use is not written. */
static void an_order_asks_for_the_version_that_it_needs(void **context) {
    (void)context;
    static const struct {
        const char *text;
        uint32_t level, fields;
    } rows[] = {{"{\"command\":[\"x\"]}", FEATURE_LEVEL_TASKS, 22},
                {"{\"command\":[\"x\"],\"resources\":{\"disk_bytes\":5}}", FEATURE_LEVEL_PROOFS, 23},
                {"{\"command\":[\"x\"],\"health\":{\"tcp\":5}}", FEATURE_LEVEL_PROOFS, 23},
                {"{\"oci\":\"/x\"}", FEATURE_LEVEL_IMAGES, 22}, /* readable before, but nobody ran it */
                {"{\"oci\":{\"bundle\":\"/x\"}}", FEATURE_LEVEL_IMAGES, 25},
                {"{\"command\":[\"x\"],\"resources\":{\"io_read_bps\":4096}}", FEATURE_LEVEL_IMAGES, 25},
                {"{\"command\":[\"x\"],\"files\":[{\"name\":\"a\",\"text\":\"\"}]}", FEATURE_LEVEL_IMAGES, 25},
                {"{\"command\":[\"x\"],\"isolate\":{\"mount\":true}}", FEATURE_LEVEL_IMAGES, 25},
                {"{\"command\":[\"x\"],\"stop_signal\":\"INT\"}", FEATURE_LEVEL_IMAGES, 25},
                {"{\"command\":[\"x\"],\"stop_grace_ms\":1,\"resources\":{\"disk_bytes\":5}}", FEATURE_LEVEL_IMAGES, 25}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct taskform form;
        struct task_order back;
        struct fault f = {0};
        struct builder b;
        builder_init(&b, TASK_ORDER_BYTES_MAX);
        assert_int_equal(read(&form, rows[i].text, &f), E_OK);
        assert_int_equal(task_level(&form.order), rows[i].level);
        task_encode(&b, &form.order);
        assert_int_equal(b.data[0], 0x80 + rows[i].fields < 0x98 ? 0x80 + rows[i].fields : 0x98); /* the array's head, RFC 8949 */
        assert_int_equal(b.data[0] == 0x98 ? b.data[1] : b.data[0] - 0x80, rows[i].fields);
        assert_int_equal(task_decode(builder_bytes(&b), &back, &f), E_OK);
        assert_int_equal(task_level(&back), rows[i].level);
        builder_free(&b);
        taskform_free(&form);
    }
}

/* What is left out must be what the documents say. */
static void defaults_are_those_of_the_documents(void **context) {
    (void)context;
    struct taskform form;
    struct fault f = {0};
    assert_int_equal(read(&form, "{\"command\":[\"x\"],\"restart\":\"always\"}", &f), E_OK);
    assert_true(bytes_equal_str(form.order.id, "task-0000000000000abc") && bytes_equal_str(form.order.tenant, "default"));
    assert_true(form.order.lane == LANE_NORMAL && form.order.cpu_millicores == 100 && form.order.memory_bytes == 64u << 20);
    assert_true(form.order.isolation == ISOLATION_KEEP && form.order.delivery == DELIVERY_AT_LEAST_ONCE);
    taskform_free(&form);
    assert_int_equal(read(&form, "{\"command\":[\"x\"],\"priority\":null}", &f), E_OK);
    assert_int_equal(form.order.isolation, ISOLATION_STOP);
    taskform_free(&form);
    static const struct {
        unsigned priority;
        enum task_lane lane;
    } rows[] = {{100, LANE_CRITICAL}, {90, LANE_CRITICAL}, {89, LANE_HIGH}, {70, LANE_HIGH},   {69, LANE_NORMAL}, {50, LANE_NORMAL},
                {30, LANE_NORMAL},    {29, LANE_LOW},      {10, LANE_LOW},  {9, LANE_PREEMPT}, {0, LANE_PREEMPT}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "{\"command\":[\"x\"],\"priority\":%u}", rows[i].priority);
        assert_int_equal(read(&form, text, &f), E_OK);
        assert_int_equal(form.order.lane, rows[i].lane);
        taskform_free(&form);
    }
}

/* A typing error must be told with its field, not run as something else. */
static void what_is_no_task_is_refused_with_its_field(void **context) {
    (void)context;
    static const char *const bad[][2] = {
        {"[]", "object"},
        {"{}", "command"},
        {"{\"command\":\"x\"}", "command"},
        {"{\"command\":[\"x\"],\"health\":{}}", "health"},
        {"{\"command\":[\"x\"],\"health\":{\"tcp\":0}}", "health"},
        {"{\"command\":[\"x\"],\"health\":{\"tcp\":1,\"exec\":[\"y\"]}}", "health"},
        {"{\"command\":[\"x\"],\"health\":{\"http\":{\"port\":1,\"path\":\"up\"}}}", "health"},
        {"{\"command\":[\"x\"],\"health\":{\"tcp\":1,\"interval_seconds\":0}}", "interval"},
        {"{\"command\":[1]}", "command"},
        {"{\"command\":[\"a\\u0001\"],\"lane\":\"fast\"}", "lane"},
        {"{\"command\":[\"x\"],\"lane\":\"low\",\"priority\":1}", "priority"},
        {"{\"command\":[\"x\"],\"priority\":101}", "priority"},
        {"{\"command\":[\"x\"],\"id\":\"a b\"}", "names"},
        {"{\"command\":[\"x\"],\"id\":\"\"}", "names"},
        {"{\"command\":[\"x\"],\"commands\":[]}", "commands"},
        {"{\"command\":[\"x\"],\"resources\":{\"cpu\":1}}", "cpu"},
        {"{\"command\":[\"x\"],\"resources\":{\"cpu_millicores\":0}}", "cpu_millicores"},
        {"{\"command\":[\"x\"],\"resources\":{\"memory_bytes\":1000}}", "memory_bytes"},
        {"{\"command\":[\"x\"],\"resources\":{\"cpu_millicores\":-1}}", "cpu_millicores"},
        {"{\"command\":[\"x\"],\"env\":{\"A\":1}}", "env"},
        {"{\"command\":[\"x\"],\"env\":{\"\":\"1\"}}", "env"},
        {"{\"command\":[\"x\"],\"env\":{\"A=B\":\"1\"}}", "env"},
        {"{\"command\":[\"x\"],\"node_selector\":{\"a=b\":\"1\"}}", "node_selector"},
        {"{\"command\":[\"x\"],\"depends_on\":[\"a\",\"a\"]}", "twice"},
        {"{\"command\":[\"x\"],\"depends_on\":[\"a/b\"]}", "depends_on"},
        {"{\"command\":[\"x\"],\"node_selector\":{\"a b\":\"c\"}}", "node_selector"},
        {"{\"command\":[\"x\"],\"delivery\":\"at-most-once\",\"restart\":\"always\"}", "most once"},
        {"{\"command\":[\"x\"],\"delivery\":\"at-most-once\",\"on_isolation\":\"keep\"}", "most once"},
        {"{\"command\":[\"x\"],\"schedule\":\"* * *\"}", "schedule"},
        {"{\"command\":[\"x\"],\"schedule\":\"@daily\",\"depends_on\":[\"a\"]}", "scheduled"},
        {"{\"command\":[\"x\"],\"timeout_seconds\":99999999}", "timeout_seconds"},
        {"{\"command\":[\"x\"],\"missed_runs_max\":0}", "missed_max"},
        {"{\"oci\":7}", "oci"},
        {"{\"command\":[\"x\"],\"time_zone\":\"Europe/Berlin\"}", "time_zone"},
        {"{\"command\":[\"x\"],\"offload\":\"cloud\"}", "offload"},
        {"{\"command\":[\"x\"],\"offload\":\"wait\",\"offload_patience_seconds\":5}", "patience"},
        {"{\"command\":[\"x\"],\"offload\":\"local\",\"delivery\":\"at-most-once\"}", "most once"},
        {"{\"command\":[\"x\"],\"offload\":\"local\",\"affinity\":\"n1\"}", "affinity"},
        {"{\"command\":[\"x\"],\"offload\":\"wait\",\"restart\":\"always\"}", "restart"},
        {"{\"oci\":\"/x\",\"offload\":\"wait\"}", "oci"},
        {"{\"command\":[\"x\"],\"files\":[{\"name\":\"a\",\"text\":\"\"}],\"offload\":\"wait\"}", "files"},
        {"{\"oci\":\"press:1\"}", "absolute path"},
        {"{\"oci\":{\"picture\":\"/x\"}}", "oci"},
        {"{\"oci\":\"/x\",\"health\":{\"exec\":[\"y\"]}}", "exec"},
        {"{\"command\":[\"x\"],\"files\":[{\"name\":\"../x\",\"text\":\"\"}]}", "plain name"},
        {"{\"command\":[\"x\"],\"files\":[{\"name\":\"..\",\"text\":\"\"}]}", "plain name"},
        {"{\"command\":[\"x\"],\"files\":[{\"name\":\"a\"}]}", "text"},
        {"{\"command\":[\"x\"],\"files\":[{\"name\":\"a\",\"text\":\"\"},{\"name\":\"a\",\"text\":\"\"}]}", "two"},
        {"{\"command\":[\"x\"],\"files\":[{\"name\":\"a\",\"text\":\"\",\"mode\":\"888\"}]}", "mode"},
        {"{\"command\":[\"x\"],\"files\":[{\"name\":\"a\",\"text\":\"\",\"mode\":\"04755\"}]}", "mode"},
        {"{\"command\":[\"x\"],\"artifacts\":[{\"path\":\"/a\"}]}", "sha256"},
        {"{\"command\":[\"x\"],\"artifacts\":[{\"path\":\"a\",\"sha256\":\"" H64 "\"}]}", "absolute path"},
        {"{\"command\":[\"x\"],\"artifacts\":[{\"path\":\"/a\",\"object\":\"b\",\"sha256\":\"" H64 "\"}]}", "path or an object"},
        {"{\"command\":[\"x\"],\"artifacts\":[{\"path\":\"/a\",\"sha256\":\"00\"}]}", "sha256"},
        {"{\"command\":[\"x\"],\"artifacts\":[{\"url\":\"http://x\",\"sha256\":\"" H64 "\"}]}", "url"},
        {"{\"command\":[\"x\"],\"isolate\":{\"network\":\"some\"}}", "isolate"},
        {"{\"command\":[\"x\"],\"isolate\":{\"user\":true}}", "isolate"},
        {"{\"command\":[\"x\"],\"stop_signal\":\"KILL\"}", "stop_signal"},
        {"{\"command\":[\"x\"],\"stop_grace_ms\":600001}", "stop_grace_ms"},
        {"{\"command\":[\"x\"],\"resources\":{\"io_read_bps\":1}}", "io_read_bps"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct taskform form;
        struct fault f = {0};
        enum grey_error err = read(&form, bad[i][0], &f);
        if (err != E_BAD_REQUEST || strstr(f.text, bad[i][1]) == NULL) {
            fail_msg("%s: %d, %s", bad[i][0], err, f.text);
        }
        taskform_free(&form);
    }
    struct taskform form;
    struct fault f = {0};
    assert_int_equal(read(&form, "{\"command\":", &f), E_BAD_JSON);
    taskform_free(&form);
}

/* The one table of states: what has ended stays so, and nothing runs that was not given a node. */
static void states_follow_each_other_as_the_table_says(void **context) {
    (void)context;
    static const char *const table[TASK_STATE_COUNT] = {
        /* to:  pending queued assigned running completed failed cancelled preempted */
        [TASK_PENDING] = " q   fc ",   [TASK_QUEUED] = "  a   c ", [TASK_ASSIGNED] = "pq rdfcx",  [TASK_RUNNING] = "pq  dfcx",
        [TASK_COMPLETED] = "        ", [TASK_FAILED] = "        ", [TASK_CANCELLED] = "        ", [TASK_PREEMPTED] = "pq  dfc ",
    };
    for (unsigned from = 0; from < TASK_STATE_COUNT; from++) {
        bool any = false;
        for (unsigned to = 0; to < TASK_STATE_COUNT; to++) {
            bool may = task_may_follow((enum task_state)from, (enum task_state)to);
            any = any || may;
            if (may != (table[from][to] != ' ')) {
                fail_msg("%s to %s", task_name(NAMES_STATE, from), task_name(NAMES_STATE, to));
            }
        }
        assert_int_equal(task_ended((enum task_state)from), !any);
    }
    uint64_t last = 0;
    for (unsigned i = 1; i < 12; i++) {
        assert_true(task_backoff_ms(i) >= last && task_backoff_ms(i) <= 300000);
        last = task_backoff_ms(i);
    }
    assert_int_equal(task_backoff_ms(1), 1000);
    assert_int_equal(task_backoff_ms(4), 8000);
    assert_int_equal(task_backoff_ms(UINT32_MAX), 300000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_survives_its_way),
        cmocka_unit_test(an_order_with_a_zone_or_a_patience_survives_too),
        cmocka_unit_test(an_order_asks_for_the_version_that_it_needs),
        cmocka_unit_test(defaults_are_those_of_the_documents),
        cmocka_unit_test(what_is_no_task_is_refused_with_its_field),
        cmocka_unit_test(states_follow_each_other_as_the_table_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
