/* The two slots of a gateway's programs.  If this failed, a power cut during an update, or a version that does not work, would leave a gateway that starts nothing, and a man
 * would have to drive there. */
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

#include "agent/slots/letterbox.h"
#include "agent/slots/packing.h"
#include "agent/slots/slots.h"
#include "platform/wholefile.h"
#include "tests/unit/power_rig.h"
#include "tests/unit/slots_rig.h"

#define PROGRAM_BYTES 200000u

static char root[64], slots_dir[128], base[128], bundles[3][160];
static uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
static uint8_t ids[3][UPDATE_ID_BYTES];
static struct fault f;

static void content_of(unsigned version, uint8_t *out) {
    for (unsigned i = 0; i < PROGRAM_BYTES; i++) {
        out[i] = (uint8_t)(i * 31 + i / 251 + version * 97);
    }
}

static void write_file(const char *path, struct bytes content) {
    FILE *to = fopen(path, "wbe");
    assert_non_null(to);
    assert_int_equal(fwrite(content.data, 1, content.size, to), content.size);
    assert_int_equal(fclose(to), 0);
}

static void pack(unsigned version, uint64_t counter) {
    static uint8_t content[PROGRAM_BYTES];
    char path[160], text[16];
    char *paths[] = {path};
    content_of(version, content);
    (void)snprintf(path, sizeof path, "%s/greyd", root);
    (void)snprintf(text, sizeof text, "0.%u.0", version);
    (void)snprintf(bundles[version], sizeof bundles[version], "%s/bundle%u", root, version);
    write_file(path, bytes_of(content, sizeof content));
    struct update_manifest m = {
        .product = bytes_str("agent"), .architecture = bytes_str("arm64"), .version = bytes_str(text), .counter = counter};
    assert_int_equal(packing_write(&m, paths, 1, secret_key, bundles[version], &f), E_OK);
    memcpy(ids[version], m.id, sizeof m.id);
}

static void clear(void) {
    char command[300];
    (void)snprintf(command, sizeof command, "rm -rf %s && mkdir %s", slots_dir, slots_dir);
    assert_int_equal(system(command), 0);
}

static struct slots open_slots(void) {
    struct slots s;
    assert_int_equal(slots_open(&s, slots_dir, base, &f), E_OK);
    return s;
}

static enum grey_error fill(struct slots *s, const char *bundle) {
    uint8_t header[UPDATE_HEADER_BYTES];
    struct update_manifest m;
    struct slots_wants w = {.product = "agent", .architecture = "arm64"};
    memcpy(w.public_key, public_key, sizeof public_key);
    return slots_fill(s, bundle, &w, header, &m, &f);
}

/* Which version the link leads to; 0: the base, -1: nothing that is whole. */
static int running(void) {
    static uint8_t have[PROGRAM_BYTES + 1], want[PROGRAM_BYTES];
    char path[192];
    (void)snprintf(path, sizeof path, "%s/current/greyd", slots_dir);
    FILE *from = fopen(path, "rbe");
    if (from == NULL) {
        return -1;
    }
    size_t size = fread(have, 1, sizeof have, from);
    (void)fclose(from);
    if (size == 4 && memcmp(have, "base", 4) == 0) {
        return 0;
    }
    for (unsigned version = 1; version < 3; version++) {
        content_of(version, want);
        if (size == PROGRAM_BYTES && memcmp(have, want, PROGRAM_BYTES) == 0) {
            return (int)version;
        }
    }
    return -1;
}

static int boot(void) {
    struct slots s = open_slots();
    assert_int_equal(slots_boot(&s, &f), E_OK);
    return running();
}

static void install_and_confirm(unsigned version) {
    struct slots s = open_slots();
    assert_int_equal(fill(&s, bundles[version]), E_OK);
    assert_int_equal(boot(), version);
    s = open_slots();
    assert_int_equal(slots_confirm(&s, ids[version], &f), E_OK);
}

static void a_confirmed_version_stays(void **state) {
    (void)state;
    clear();
    assert_int_equal(boot(), 0);
    install_and_confirm(1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(boot(), 1);
    }
    install_and_confirm(2);
    assert_int_equal(boot(), 2);
    struct slots s = open_slots();
    assert_int_equal(slots_to_base(&s, &f), E_OK); /* the package was upgraded */
    assert_int_equal(running(), 0);
    assert_int_equal(boot(), 0);
    install_and_confirm(2);
    assert_int_equal(boot(), 2);
    s = open_slots();
    assert_int_equal(s.state.floor, 20);
    assert_int_equal(slots_confirm(&s, ids[2], &f), E_OK);        /* told twice */
    assert_int_equal(slots_confirm(&s, ids[1], &f), E_CONDITION); /* of another */
    assert_int_equal(fill(&s, bundles[2]), E_OK);                 /* given twice */
    assert_int_equal(s.state.try, SLOTS_NONE);
}

/* In slot a, as an engineer, or a card that loses what it had. */
static void spoil(const char *name, const char *with) {
    char path[192];
    (void)snprintf(path, sizeof path, "%s/a/%s", slots_dir, name);
    write_file(path, bytes_str(with));
}

static void a_spoiled_slot_heals(void **state) {
    (void)state;
    clear();
    (void)boot();
    install_and_confirm(1);
    spoil("greyd", "half of it");
    assert_int_equal(boot(), 0);
    struct slots s = open_slots();
    assert_int_equal(s.state.keep, SLOTS_BASE);
    assert_int_equal(s.state.floor, 10);
    install_and_confirm(1); /* the same again: greyd of the package wants what is in force */
    spoil(".header", "nonsense");
    spoil("core", "somebody's");
    assert_int_equal(boot(), 0);
    install_and_confirm(2); /* into the slot that cannot be read */
    assert_int_equal(boot(), 2);
    s = open_slots();
    assert_int_equal(s.state.keep, SLOTS_A);
    assert_int_equal(fill(&s, bundles[1]), E_UPDATE_OLDER);
}

static void what_does_not_get_well_is_left(void **state) {
    (void)state;
    clear();
    (void)boot();
    install_and_confirm(1);
    struct slots s = open_slots();
    assert_int_equal(fill(&s, bundles[2]), E_OK);
    for (unsigned i = 0; i < SLOTS_STARTS; i++) {
        assert_int_equal(boot(), 2);
    }
    assert_int_equal(boot(), 1);
    s = open_slots();
    assert_memory_equal(s.state.failed_id, ids[2], UPDATE_ID_BYTES);
    assert_int_equal(s.state.failed_why, error_id(E_UPDATE_UNHEALTHY));
    assert_int_equal(s.state.floor, 10); /* what failed raises nothing */
    assert_int_equal(fill(&s, bundles[2]), E_OK);
    assert_int_equal(boot(), 2);
    s = open_slots();
    assert_int_equal(fill(&s, bundles[1]), E_UPDATE_BUSY); /* what runs is not written over */
    assert_int_equal(slots_revert(&s, 5, &f), E_OK);
    assert_int_equal(running(), 1);
    assert_int_equal(s.state.failed_why, 5);
}

static void what_is_older_or_not_whole_is_refused(void **state) {
    (void)state;
    uint8_t other[KEYS_ED25519_PUBLIC_BYTES], scratch[KEYS_ED25519_SECRET_BYTES], kept[KEYS_ED25519_PUBLIC_BYTES], byte;
    clear();
    (void)boot();
    install_and_confirm(2);
    struct slots s = open_slots();
    assert_int_equal(fill(&s, bundles[1]), E_UPDATE_OLDER);
    assert_int_equal(slots_allow(&s, 10, &f), E_OK);
    FILE *bundle = fopen(bundles[1], "r+be"); /* one bit of the program */
    assert_non_null(bundle);
    assert_int_equal(fseek(bundle, 100000, SEEK_SET), 0);
    assert_int_equal(fread(&byte, 1, 1, bundle), 1);
    byte ^= 4;
    assert_int_equal(fseek(bundle, 100000, SEEK_SET), 0);
    assert_int_equal(fwrite(&byte, 1, 1, bundle), 1);
    assert_int_equal(fclose(bundle), 0);
    assert_int_equal(fill(&s, bundles[1]), E_UPDATE_CONTENT);
    assert_int_equal(truncate(bundles[1], 100000), 0);
    assert_int_equal(fill(&s, bundles[1]), E_UPDATE_CONTENT);
    assert_int_equal(truncate(bundles[1], 1000), 0);
    assert_int_equal(fill(&s, bundles[1]), E_UPDATE_FORMAT);
    pack(1, 10);
    memcpy(kept, public_key, sizeof kept);
    keys_new_ed25519(other, scratch);
    memcpy(public_key, other, sizeof other);
    assert_int_equal(fill(&s, bundles[1]), E_UPDATE_SIGNATURE);
    memcpy(public_key, kept, sizeof kept);
    char link_path[192];
    (void)snprintf(link_path, sizeof link_path, "%s/link", root);
    assert_int_equal(symlink(bundles[1], link_path), 0);
    assert_int_equal(fill(&s, link_path), E_SYSTEM); /* links are not followed */
    assert_int_equal(unlink(link_path), 0);
    assert_int_equal(s.state.try, SLOTS_NONE);
    assert_int_equal(boot(), 2);
    assert_int_equal(fill(&s, bundles[1]), E_OK); /* it was allowed */
    assert_int_equal(boot(), 1);
}

static void a_damaged_state_starts_the_base(void **state) {
    (void)state;
    char path[192];
    struct slots s;
    clear();
    (void)boot();
    install_and_confirm(1);
    (void)snprintf(path, sizeof path, "%s/state", slots_dir);
    struct builder text;
    builder_init(&text, 4096);
    assert_int_equal(wholefile_read(path, &text, &f), E_OK);
    for (size_t i = 0; i + 2 < text.size; i++) {
        text.data[i] ^= 1;
        assert_int_equal(wholefile_write(path, bytes_of(text.data, text.size - 1), 0644, &f), E_OK);
        assert_int_equal(slots_open(&s, slots_dir, base, &f), E_UPDATE_STATE);
        text.data[i] ^= 1;
    }
    assert_int_equal(slots_boot(&s, &f), E_OK);
    assert_int_equal(running(), 0);
    builder_free(&text);
    assert_int_equal(slots_allow(&s, 3, &f), E_OK); /* the way out */
    assert_int_equal(boot(), 0);
}

/* --- the power goes ---------------------------------------------------------------------------------------------------------------------- */

static enum grey_error deed_fill(struct slots *s) {
    return fill(s, bundles[2]);
}

static enum grey_error deed_boot(struct slots *s) {
    return slots_boot(s, &f);
}

static enum grey_error deed_confirm(struct slots *s) {
    return slots_confirm(s, ids[2], &f);
}

static enum grey_error deed_revert(struct slots *s) {
    return slots_revert(s, 1, &f);
}

/* Each deed is cut at each of its steps; what starts then is whole, and the update can be carried on. */
static void a_cut_at_any_step_leaves_something_to_start(void **state) {
    (void)state;
    static enum grey_error (*const deeds[])(struct slots *) = {deed_fill, deed_boot, deed_confirm, deed_revert};
    unsigned steps[4] = {0};
    for (unsigned d = 0; d < 4; d++) {
        bool cut = true;
        for (unsigned n = 0; cut; n++) {
            clear();
            (void)boot();
            install_and_confirm(1);
            struct slots s = open_slots();
            if (d > 0) {
                assert_int_equal(fill(&s, bundles[2]), E_OK);
            }
            if (d > 1) {
                assert_int_equal(boot(), 2);
            }
            cut = cut_at(slots_dir, base, n, deeds[d]);
            steps[d] = n;
            int runs = boot();
            assert_true(runs == 1 || runs == 2);
            s = open_slots();
            if (s.state.try == SLOTS_NONE && s.state.keep_id[0] == ids[1][0]) { /* as greyd would have it done again */
                assert_int_equal(fill(&s, bundles[2]), E_OK);
                assert_int_equal(boot(), 2);
                s = open_slots();
            }
            assert_int_equal(slots_confirm(&s, ids[2], &f), E_OK);
            assert_int_equal(boot(), 2);
        }
    }
    assert_true(steps[0] >= 10 && steps[1] >= 3 && steps[2] >= 1 && steps[3] >= 3); /* it was cut at all */
}

/* On the disk of a cut something starts, and the update can be carried on; what was confirmed is not given up. */
static void starts_and_goes_on(const struct power_cut *cut, void *context) {
    (void)context;
    char kept[sizeof slots_dir];
    (void)strcpy(kept, slots_dir);
    (void)snprintf(slots_dir, sizeof slots_dir, "%s", cut->dir);
    const int *promised = cut->promise;
    struct slots s;
    if (slots_open(&s, slots_dir, base, &f) != E_OK) {
        fail_msg("%s: %s", cut->what, f.text);
    }
    enum grey_error err = slots_boot(&s, &f);
    int runs = running();
    if (err != E_OK || runs < (promised == NULL ? 1 : *promised) || runs > 2) {
        fail_msg("%s: version %d runs: %s", cut->what, runs, err == E_OK ? "" : f.text);
    }
    s = open_slots();
    if (runs == 1 && s.state.try == SLOTS_NONE) { /* as greyd would have it done again */
        assert_int_equal(fill(&s, bundles[2]), E_OK);
        assert_int_equal(boot(), 2);
        s = open_slots();
    }
    assert_int_equal(slots_confirm(&s, ids[2], &f), E_OK);
    assert_int_equal(boot(), 2);
    (void)strcpy(slots_dir, kept);
}

/* The same with what a disk may lose, tear and turn round: the power goes at any file call of a whole update. */
static void a_cut_at_any_file_call_leaves_something_to_start(void **state) {
    (void)state;
    clear();
    (void)boot();
    install_and_confirm(1);
    power_watch(slots_dir);
    struct slots s = open_slots();
    assert_int_equal(fill(&s, bundles[2]), E_OK);
    assert_int_equal(boot(), 2);
    s = open_slots();
    assert_int_equal(slots_confirm(&s, ids[2], &f), E_OK);
    int confirmed = 2;
    power_promise(&confirmed, sizeof confirmed);
    assert_int_equal(boot(), 2);
    struct power_tally t = power_cuts(power_boundaries(60), starts_and_goes_on, NULL);
    print_message("%zu file calls, %zu cuts at %zu boundaries\n", t.calls, t.cuts, t.boundaries);
    assert_true(t.calls > 25);
}

static void only_a_whole_confirmation_counts(void **state) {
    (void)state;
    uint8_t id[UPDATE_ID_BYTES];
    char path[LIMIT_PATH_BYTES + 1];
    assert_false(letterbox_confirmation(root, id));
    assert_int_equal(letterbox_confirm(root, ids[1], &f), E_OK);
    for (int i = 0; i < 2; i++) { /* to read it uses nothing up: what it says may not be possible yet */
        memset(id, 0, sizeof id);
        assert_true(letterbox_confirmation(root, id));
        assert_memory_equal(id, ids[1], sizeof id);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(letterbox_forget(root, &f), E_OK);
        assert_false(letterbox_confirmation(root, id)); /* it is gone */
    }
    letterbox_path(root, LETTERBOX_CONFIRM, path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(letterbox_forget(root, &f), E_SYSTEM); /* what cannot be taken away is told */
    assert_int_equal(rmdir(path), 0);
    write_file(path, bytes_str("0123"));
    assert_false(letterbox_confirmation(root, id));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(bundles[1], path), 0);
    assert_false(letterbox_confirmation(root, id));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody is waited for */
    assert_false(letterbox_confirmation(root, id));
}

static int begin(void **state) {
    (void)state;
    char path[192];
    (void)snprintf(root, sizeof root, "/tmp/grey-slots-XXXXXX");
    if (mkdtemp(root) == NULL) {
        return 1;
    }
    (void)snprintf(slots_dir, sizeof slots_dir, "%s/slots", root);
    (void)snprintf(base, sizeof base, "%s/base", root);
    (void)snprintf(path, sizeof path, "%s/greyd", base);
    if (mkdir(base, 0755) != 0) {
        return 1;
    }
    write_file(path, bytes_str("base"));
    keys_new_ed25519(public_key, secret_key);
    pack(1, 10);
    pack(2, 20);
    return 0;
}

static int end(void **state) {
    (void)state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_confirmed_version_stays),
        cmocka_unit_test(a_spoiled_slot_heals),
        cmocka_unit_test(what_does_not_get_well_is_left),
        cmocka_unit_test(what_is_older_or_not_whole_is_refused),
        cmocka_unit_test(a_damaged_state_starts_the_base),
        cmocka_unit_test(a_cut_at_any_step_leaves_something_to_start),
        cmocka_unit_test(a_cut_at_any_file_call_leaves_something_to_start),
        cmocka_unit_test(only_a_whole_confirmation_counts),
    };
    return cmocka_run_group_tests_name("slots", tests, begin, end);
}
