/* The two roots of an image.  If this failed, a power cut while a root is written, tried, kept or left would leave a gateway that starts half of one, or one that tries for ever what
 * does not work, and a man would have to drive there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/slots/packing.h"
#include "agent/slots/slots.h"
#include "platform/wholefile.h"
#include "tests/unit/slots_rig.h"

#define IMAGE_BYTES (64u * 4096u)

static char root[64], slots_dir[128], bundles[3][160];
static uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
static uint8_t ids[3][UPDATE_ID_BYTES];
static struct fault f;

static void content_of(unsigned version, uint8_t *out) {
    memset(out, 0, IMAGE_BYTES);
    for (unsigned i = 0; i < IMAGE_BYTES; i++) {
        bool empty = (i / 4096) % 5 == version % 5;
        out[i] = empty ? 0 : (uint8_t)(1 + (i * 31 + i / 251 + version * 97) % 255);
    }
}

static void write_file(const char *path, struct bytes content) {
    FILE *to = fopen(path, "wbe");
    assert_non_null(to);
    assert_int_equal(fwrite(content.data, 1, content.size, to), content.size);
    assert_int_equal(fclose(to), 0);
}

static void pack(unsigned version) {
    static uint8_t content[IMAGE_BYTES];
    char path[160], text[16];
    content_of(version, content);
    (void)snprintf(path, sizeof path, "%s/image", root);
    (void)snprintf(text, sizeof text, "%u", version);
    (void)snprintf(bundles[version], sizeof bundles[version], "%s/bundle%u", root, version);
    write_file(path, bytes_of(content, sizeof content));
    struct update_manifest m = {
        .product = bytes_str("board"), .architecture = bytes_str("arm64"), .version = bytes_str(text), .counter = version * 10};
    assert_int_equal(packing_image(&m, path, secret_key, bundles[version], &f), E_OK);
    memcpy(ids[version], m.id, sizeof m.id);
}

/* --- the partition with the choice: what deploy/image/slot keeps, "KEEP TRY LEFT" ----------------------------------------------------- */

struct choice {
    char keep, try;
    unsigned left;
};

static void save_choice(const struct choice *c) {
    char path[160], text[16];
    (void)snprintf(path, sizeof path, "%s/choice", root);
    int size = snprintf(text, sizeof text, "%c%c%u", c->keep, c->try, c->left);
    assert_int_equal(wholefile_write(path, bytes_of(text, (size_t)size), 0644, &f), E_OK);
}

static struct choice load_choice(void) {
    char path[160];
    struct builder text;
    (void)snprintf(path, sizeof path, "%s/choice", root);
    builder_init(&text, 64);
    assert_int_equal(wholefile_read(path, &text, &f), E_OK);
    struct choice c = {(char)text.data[0], (char)text.data[1], (unsigned)(text.data[2] - '0')};
    builder_free(&text);
    return c;
}

static enum grey_error told(void *context, enum slots_word word, enum slots_place p, struct fault *fault) {
    struct choice c = load_choice();
    (void)context, (void)fault;
    if (word == SLOTS_KEEP) {
        c = (struct choice){slots_name(p)[0], '-', 0};
    } else {
        c.try = slots_name(p)[0];
        c.left = SLOTS_STARTS;
    }
    save_choice(&c);
    return E_OK;
}

static const struct slots_chooser chooser = {.tell = told};

static struct slots open_slots(void) {
    struct slots s;
    assert_int_equal(slots_open(&s, slots_dir, root, &f), E_OK);
    return s;
}

/* Which image lies in the slot; 0: none that is whole. */
static unsigned in_slot(char slot) {
    static uint8_t have[IMAGE_BYTES], want[IMAGE_BYTES];
    char path[192];
    (void)snprintf(path, sizeof path, "%s/%c", slots_dir, slot);
    FILE *from = fopen(path, "rbe");
    assert_non_null(from);
    size_t size = fread(have, 1, sizeof have, from);
    (void)fclose(from);
    for (unsigned version = 1; version < 3; version++) {
        content_of(version, want);
        if (size == IMAGE_BYTES && memcmp(have, want, IMAGE_BYTES) == 0) {
            return version;
        }
    }
    return 0;
}

/* Power on: the initramfs chooses, then the root says which one it is.  Which image runs. */
static unsigned boot(void) {
    struct choice c = load_choice();
    char runs = c.keep;
    if (c.try != '-' && c.left > 0) {
        runs = c.try;
        c.left--;
        save_choice(&c);
    } else if (c.try != '-') {
        c.try = '-';
        save_choice(&c);
    }
    struct slots s = open_slots();
    assert_int_equal(slots_started(&s, &chooser, runs == 'a' ? SLOTS_A : SLOTS_B, &f), E_OK);
    return in_slot(runs);
}

static void fresh(void) {
    static uint8_t first[IMAGE_BYTES];
    char command[600], path[192];
    (void)snprintf(command, sizeof command, "rm -rf %s && mkdir %s && head -c %u /dev/zero >%s/b", slots_dir, slots_dir,
                   IMAGE_BYTES, slots_dir);
    assert_int_equal(system(command), 0);
    content_of(1, first);
    (void)snprintf(path, sizeof path, "%s/a", slots_dir);
    write_file(path, bytes_of(first, sizeof first));
    save_choice(&(struct choice){'a', '-', 0});
    assert_int_equal(boot(), 1);
}

static enum grey_error fill(struct slots *s, unsigned version) {
    uint8_t header[UPDATE_HEADER_BYTES];
    struct update_manifest m;
    struct slots_wants w = {.product = "board", .architecture = "arm64"};
    memcpy(w.public_key, public_key, sizeof public_key);
    return slots_fill_root(s, &chooser, bundles[version], &w, header, &m, &f);
}

static void a_confirmed_root_stays(void **state) {
    (void)state;
    fresh();
    struct slots s = open_slots();
    assert_int_equal(fill(&s, 2), E_OK);
    assert_int_equal(fill(&s, 2), E_OK); /* given twice */
    assert_int_equal(boot(), 2);
    s = open_slots();
    assert_int_equal(fill(&s, 1), E_UPDATE_BUSY); /* what runs is not written over */
    assert_int_equal(slots_confirm_root(&s, &chooser, ids[2], &f), E_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(boot(), 2);
    }
    s = open_slots();
    assert_int_equal(s.state.floor, 20);
    assert_int_equal(fill(&s, 1), E_UPDATE_OLDER);
    assert_int_equal(slots_allow(&s, 1, &f), E_OK);
    assert_int_equal(fill(&s, 1), E_OK);
    assert_int_equal(boot(), 1);
}

static void one_that_does_not_get_well_is_left_for_good(void **state) {
    (void)state;
    fresh();
    struct slots s = open_slots();
    assert_int_equal(fill(&s, 2), E_OK);
    for (unsigned i = 0; i < SLOTS_STARTS; i++) {
        assert_int_equal(boot(), 2);
    }
    assert_int_equal(boot(), 1);
    s = open_slots();
    assert_int_equal(s.state.failed_why, error_id(E_UPDATE_UNHEALTHY));
    assert_int_equal(fill(&s, 2), E_UPDATE_UNHEALTHY); /* its bundle still lies there */
    assert_int_equal(boot(), 1);

    fresh(); /* in its time */
    s = open_slots();
    assert_int_equal(fill(&s, 2), E_OK);
    assert_int_equal(boot(), 2);
    s = open_slots();
    assert_int_equal(slots_revert_root(&s, &chooser, 5, &f), E_OK);
    assert_int_equal(boot(), 1);
    s = open_slots();
    assert_int_equal(s.state.failed_why, 5);
}

/* The kept one cannot be mounted, so the initramfs took the other: that must not be written over by halves. */
static void a_spoiled_root_is_replaced(void **state) {
    (void)state;
    fresh();
    struct slots s = open_slots();
    assert_int_equal(fill(&s, 2), E_OK);
    assert_int_equal(boot(), 2);
    s = open_slots();
    assert_int_equal(slots_confirm_root(&s, &chooser, ids[2], &f), E_OK);
    save_choice(&(struct choice){'b', '-', 0});
    assert_int_equal(slots_started(&s, &chooser, SLOTS_A, &f), E_OK); /* b was chosen, a runs */
    assert_int_equal(fill(&s, 2), E_OK);                              /* goes to b, again */
    struct choice c = load_choice();
    assert_true(c.keep == 'a' && c.try == 'b');
    assert_int_equal(boot(), 2);
}

/* --- the power goes ---------------------------------------------------------------------------------------------------------------------- */

static enum grey_error deed_fill(struct slots *s) {
    return fill(s, 2);
}

static enum grey_error deed_start(struct slots *s) {
    return slots_started(s, &chooser, load_choice().try == 'b' ? SLOTS_B : SLOTS_A, &f);
}

static enum grey_error deed_confirm(struct slots *s) {
    return slots_confirm_root(s, &chooser, ids[2], &f);
}

static enum grey_error deed_revert(struct slots *s) {
    return slots_revert_root(s, &chooser, 1, &f);
}

/* Each deed is cut at each of its steps; what starts then is whole, and what was meant is done in the end. */
static void a_cut_at_any_step_leaves_a_root_to_start(void **state) {
    (void)state;
    static enum grey_error (*const deeds[])(struct slots *) = {deed_fill, deed_start, deed_confirm, deed_revert};
    unsigned steps[4] = {0};
    for (unsigned d = 0; d < 4; d++) {
        bool cut = true;
        for (unsigned n = 0; cut; n++) {
            fresh();
            struct slots s = open_slots();
            if (d > 0) {
                assert_int_equal(fill(&s, 2), E_OK);
            }
            if (d > 1) {
                assert_int_equal(boot(), 2);
            }
            cut = cut_at(slots_dir, root, n, deeds[d]);
            steps[d] = n;
            unsigned runs = boot();
            assert_true(runs == 1 || runs == 2);
            s = open_slots();
            if (d == 3 && runs == 1) { /* it was left, and stays so */
                assert_int_equal(fill(&s, 2), E_UPDATE_UNHEALTHY);
                continue;
            }
            if (runs == 1) { /* nothing failed: the bundle is taken again */
                assert_int_equal(s.state.failed_why, 0);
                assert_int_equal(fill(&s, 2), E_OK);
                assert_int_equal(boot(), 2);
                s = open_slots();
            }
            assert_int_equal(slots_confirm_root(&s, &chooser, ids[2], &f), E_OK);
            for (int i = 0; i < 4; i++) {
                assert_int_equal(boot(), 2);
            }
        }
    }
    assert_true(steps[0] >= 8 && steps[1] >= 2 && steps[2] >= 2 && steps[3] >= 2); /* it was cut at all */
}

static void without_its_partition_nothing_is_tried(void **state) {
    (void)state;
    char path[192];
    fresh();
    (void)snprintf(path, sizeof path, "%s/b", slots_dir);
    assert_int_equal(unlink(path), 0);
    struct slots s = open_slots();
    assert_int_equal(fill(&s, 2), E_UPDATE_SLOTS);
    assert_int_not_equal(access(path, F_OK), 0); /* nor is a file made, which would lie in memory */
    assert_int_equal(boot(), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_its_partition_nothing_is_tried),      cmocka_unit_test(a_confirmed_root_stays),
        cmocka_unit_test(one_that_does_not_get_well_is_left_for_good), cmocka_unit_test(a_spoiled_root_is_replaced),
        cmocka_unit_test(a_cut_at_any_step_leaves_a_root_to_start),
    };
    char command[128];
    (void)snprintf(root, sizeof root, "/tmp/test_slotroot.XXXXXX");
    assert_non_null(mkdtemp(root));
    (void)snprintf(slots_dir, sizeof slots_dir, "%s/slots", root);
    keys_new_ed25519(public_key, secret_key);
    pack(1);
    pack(2);
    int status = cmocka_run_group_tests_name("slotroot", tests, NULL, NULL);
    (void)snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command) == 0 ? status : 1;
}
