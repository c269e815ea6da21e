/* If this fails, a board that is too hot, short of power or of memory looks well until it fails; or one that tells nothing looks ill. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/hardware.h"

static char root[] = "/tmp/grey-test-XXXXXX";

/* A file of the kernel, with the directories above it. */
static void put(const char *name, const char *text) {
    char path[512];
    int size = snprintf(path, sizeof path, "%s/%s", root, name);
    assert_true(size > 0 && (size_t)size < sizeof path);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int set_up(void **state) {
    (void)state;
    memcpy(root + sizeof root - 7, "XXXXXX", 6);
    return mkdtemp(root) == NULL;
}

static int tear_down(void **state) {
    (void)state;
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command); /* NOLINT: the name is our own */
}

static void a_board_that_tells_nothing_is_not_at_zero_degrees(void **state) {
    (void)state;
    struct hardware_facts h;
    hardware_look(root, &h);
    assert_true(!h.has_temperature && !h.has_voltage && !h.under_voltage && h.limit_bytes == 0 && h.resident_bytes == 0);
    assert_int_equal(hardware_pressure_open(root), -1);
}

static void the_hottest_zone_counts(void **state) {
    (void)state;
    struct hardware_facts h;
    put("sys/class/thermal/thermal_zone0/temp", "-274000\n"); /* switched off */
    hardware_look(root, &h);
    assert_false(h.has_temperature);
    put("sys/class/thermal/thermal_zone2/temp", "-5500\n"); /* a cabinet in winter */
    hardware_look(root, &h);
    assert_true(h.has_temperature && h.temperature_milli_c == -5500);
    put("sys/class/thermal/thermal_zone1/temp", "61250\n");
    put("sys/class/thermal/thermal_zone3/temp", "58000\n");
    put("sys/class/thermal/thermal_zone4/temp", "hot\n");
    hardware_look(root, &h);
    assert_int_equal(h.temperature_milli_c, 61250);
}

static void only_the_driver_that_knows_tells_the_voltage(void **state) {
    (void)state;
    struct hardware_facts h;
    put("sys/class/hwmon/hwmon0/name", "cpu_thermal\n");
    put("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n");
    hardware_look(root, &h);
    assert_false(h.has_voltage);
    put("sys/class/hwmon/hwmon1/name", "rpi_volt\n");
    put("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n");
    hardware_look(root, &h);
    assert_true(h.has_voltage && !h.under_voltage);
    put("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
    hardware_look(root, &h);
    assert_true(h.under_voltage);
}

static void memory_is_what_is_held_and_the_least_bound_above(void **state) {
    (void)state;
    struct hardware_facts h;
    char page[128];
    put("proc/self/statm", "5000 1200 800 1 0 600 0\n");
    put("proc/self/cgroup", "0::/system.slice/greyd.service\n");
    put("sys/fs/cgroup/system.slice/greyd.service/memory.max", "max\n");
    hardware_look(root, &h);
    assert_true(h.resident_bytes == 1200u * (uint64_t)sysconf(_SC_PAGESIZE) && h.limit_bytes == 0);
    put("sys/fs/cgroup/system.slice/memory.max", "67108864\n");
    hardware_look(root, &h);
    assert_int_equal(h.limit_bytes, 67108864);
    put("sys/fs/cgroup/system.slice/greyd.service/memory.max", "33554432\n");
    hardware_look(root, &h);
    assert_int_equal(h.limit_bytes, 33554432);
    /* Version 1, where "no bound" is a number. */
    put("proc/self/cgroup", "5:cpu:/x\n4:memory:/grey\n0::/\n");
    (void)snprintf(page, sizeof page, "%lld\n", LLONG_MAX / 4096 * 4096);
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", page);
    hardware_look(root, &h);
    assert_int_equal(h.limit_bytes, 0);
    put("sys/fs/cgroup/memory/grey/memory.limit_in_bytes", "64000000\n");
    hardware_look(root, &h);
    assert_int_equal(h.limit_bytes, 64000000);
}

static void this_machine_holds_memory(void **state) {
    (void)state;
    struct hardware_facts h;
    hardware_look("", &h);
    assert_in_range(h.resident_bytes, 100000, UINT32_MAX);
}

/* The group of the process is asked before the machine; what is written is what the kernel's interface wants. */
static void pressure_is_asked_of_the_own_group_first(void **state) {
    (void)state;
    char told[64] = "", path[128];
    put("proc/self/cgroup", "0::/grey\n");
    put("proc/pressure/memory", "");
    put("sys/fs/cgroup/grey/memory.pressure", "");
    int fd = hardware_pressure_open(root);
    assert_true(fd >= 0);
    (void)close(fd);
    (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup/grey/memory.pressure", root);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(told, sizeof told, file));
    (void)fclose(file);
    assert_string_equal(told, "some 200000 2000000");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_board_that_tells_nothing_is_not_at_zero_degrees, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_hottest_zone_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_the_driver_that_knows_tells_the_voltage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_is_what_is_held_and_the_least_bound_above, set_up, tear_down),
        cmocka_unit_test(this_machine_holds_memory),
        cmocka_unit_test_setup_teardown(pressure_is_asked_of_the_own_group_first, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
