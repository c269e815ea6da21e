/* grey-update: installs signed versions of the programs into the slot that does not run, and sees that what does not get well is left again.
 * The only part of updates that is root.  It takes two things from greyd's folder, a bundle and a word of confirmation, and believes neither:
 * a bundle counts by its maker's signature, a confirmation can only keep what is on trial. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/slots/letterbox.h"
#include "agent/slots/packing.h"
#include "agent/slots/slots.h"
#include "platform/keyfile.h"
#include "platform/log.h"
#include "platform/now.h"

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define LOOK_MS 200
#define CONFIRM_S_MAX (7u * 24u * 3600u)
#define SIGN_SECRET "update-sign.key"
#define SIGN_PUBLIC "update-sign.pub"

extern char **environ;

static const char usage[] =
    "usage: grey-update boot [--slots DIR] [--base DIR]\n"
    "       grey-update run [--slots DIR] [--base DIR] [--inbox DIR] [--key FILE] [--confirm-s N] -- COMMAND...\n"
    "       grey-update install FILE [--slots DIR] [--base DIR] [--inbox DIR] [--key FILE] [--confirm-s N] -- COMMAND...\n"
    "       grey-update show [--slots DIR]\n"
    "       grey-update allow COUNTER [--slots DIR]\n"
    "       grey-update base [--slots DIR] [--base DIR]\n"
    "       grey-update unpack FILE --out FILE [--key FILE] [--product NAME]\n"
    "       grey-update keygen DIR\n"
    "       grey-update pack --sign DIR --version TEXT --counter N --out FILE FILE...\n"
    "       grey-update pack --sign DIR --version TEXT --counter N --out FILE --product BOARD --image FILE\n"
    "  --slots DIR          where versions lie (default /var/lib/grey-slots)\n"
    "  --base DIR           programs of the package (default /usr/bin)\n"
    "  --inbox DIR          where greyd leaves bundles (default /var/lib/grey/updates)\n"
    "  --key FILE           public key of who makes updates (default /etc/grey/update-sign.pub)\n"
    "  --roots FILE         slots are partitions, this one says which to start (boot, run, install)\n"
    "  --running a|b        boot: of --roots, which one was started\n"
    "  --chooser PROGRAM    what writes --roots (default slot)\n"
    "  --image FILE         pack: the root of an image, instead of files\n"
    "  --product NAME       which bundles this gateway takes, or what is packed (default agent)\n"
    "  --architecture NAME  the same (default: of this program)\n"
    "  --confirm-s N        a version that is not confirmed after so long is left (default 600)\n"
    "  --sign DIR           pack: folder of the secret key\n"
    "  --version TEXT       pack: what people call it\n"
    "  --counter N          pack: gateways that have confirmed a greater one refuse it; unpack: the floor\n"
    "  --replaces N         pack: but not those that have confirmed at most this one\n"
    "  --out FILE           pack: the bundle; unpack: where the image goes, a partition or a file\n"
    "  --help               print this\n";

struct options {
    const char *slots, *base, *inbox, *key, *product, *architecture, *sign, *version, *out, *roots, *running, *chooser, *image;
    uint64_t confirm_s, counter, replaces;
    char **words; /* what follows the verb and is no option */
    uint32_t word_count;
    char **command; /* behind -- */
};

static int complain(const struct fault *f) {
    (void)fprintf(stderr, "grey-update: %s (GREY-%d): %s\n  -> %s\n", error_sentence(f->code), error_id(f->code), f->text,
                  error_remedy(f->code));
    return f->code == E_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

/* One at a time changes the state: boot runs beside run.  The lock ends with the file. */
static int lock(const struct options *o, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1];
    (void)snprintf(path, sizeof path, "%.900s/lock", o->slots);
    if (mkdir(o->slots, 0755) != 0 && errno != EEXIST) {
        (void)fault_errno(f, E_SYSTEM, "%s", o->slots);
        return -1;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) {
        (void)fault_errno(f, E_SYSTEM, "%s", path);
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    return fd;
}

/* --- roots in partitions: the choice is made before there is a root (deploy/image/slot) --------------------------------------------- */

static int run_command(char *const *command) {
    int pid, status = 0;
    int err = posix_spawnp(&pid, command[0], NULL, NULL, command, environ);
    while (err == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (err != 0 || status != 0) {
        log_error("update", "command", "%s: %s status=%d", command[0], err != 0 ? strerror(err) : "it failed", status);
    }
    return err != 0 ? err : status;
}

static enum grey_error tell_chooser(void *context, enum slots_word word, enum slots_place p, struct fault *f) {
    const struct options *o = context;
    const char *const words[] = {o->chooser, word == SLOTS_TRY ? "try" : "keep", o->roots, slots_name(p), NULL};
    char *command[sizeof words / sizeof *words];
    memcpy(command, words, sizeof words);
    return run_command(command) == 0 ? E_OK : fault_set(f, E_IO, "%s %s %s %s", words[0], words[1], words[2], words[3]);
}

static struct slots_chooser chooser_of(const struct options *o) {
    return (struct slots_chooser){.tell = tell_chooser, .context = (void *)(uintptr_t)o};
}

static enum grey_error boot_root(const struct options *o, struct slots *s, struct fault *f) {
    struct slots_chooser c = chooser_of(o);
    bool a = o->running != NULL && strcmp(o->running, "a") == 0, b = o->running != NULL && strcmp(o->running, "b") == 0;
    if (!a && !b) {
        return fault_set(f, E_USAGE, "boot --roots takes --running a or b");
    }
    return slots_started(s, &c, a ? SLOTS_A : SLOTS_B, f);
}

static enum grey_error do_boot(const struct options *o, struct fault *f) {
    struct slots s;
    int held = lock(o, f);
    if (held < 0) {
        return f->code;
    }
    struct fault damage = {0};
    enum grey_error read = slots_open(&s, o->slots, o->base, &damage);
    if (read != E_OK) { /* what a damaged file says of a trial is not known: what the package brought runs */
        log_error("update", "boot", "%s", damage.text);
    }
    enum grey_error err = o->roots != NULL ? boot_root(o, &s, f) : slots_boot(&s, f);
    if (s.state.try ==
        SLOTS_NONE) { /* a bundle from before may be of a turn that is over: greyd hands it over again while it has its turn */
        char bundle[LIMIT_PATH_BYTES + 1];
        letterbox_path(o->inbox, LETTERBOX_BUNDLE, bundle);
        (void)unlink(bundle);
    }
    log_info("update", "boot", "runs=%s left=%" PRIu32, slots_name(s.state.try != SLOTS_NONE ? s.state.try : s.state.keep),
             s.state.left);
    (void)close(held);
    return err;
}

/* --- run: a bundle, its trial, the end of it --------------------------------------------------------------------------------------- */

static void restart(const struct options *o) {
    if (o->command != NULL && run_command(o->command) != 0) {
        log_error("update", "restart", "what is installed starts with the next start");
    }
}

static enum grey_error confirm(const struct options *o, struct slots *s, const uint8_t id[UPDATE_ID_BYTES], struct fault *f) {
    struct slots_chooser c = chooser_of(o);
    return o->roots != NULL ? slots_confirm_root(s, &c, id, f) : slots_confirm(s, id, f);
}

static enum grey_error revert(const struct options *o, struct slots *s, struct fault *f) {
    struct slots_chooser c = chooser_of(o);
    uint32_t why = (uint32_t)error_id(E_UPDATE_UNHEALTHY);
    return o->roots != NULL ? slots_revert_root(s, &c, why, f) : slots_revert(s, why, f);
}

static enum grey_error fill(const struct options *o, struct slots *s, const char *bundle, const struct slots_wants *w,
                            uint8_t header[UPDATE_HEADER_BYTES], struct update_manifest *m, struct fault *f) {
    struct slots_chooser c = chooser_of(o);
    return o->roots != NULL ? slots_fill_root(s, &c, bundle, w, header, m, f) : slots_fill(s, bundle, w, header, m, f);
}

/* True: something new is on trial. */
static enum grey_error install(const struct options *o, const uint8_t key[KEYS_ED25519_PUBLIC_BYTES], const char *bundle,
                               struct slots *s, struct fault *f) {
    char id[2 * UPDATE_ID_BYTES + 1];
    uint8_t header[UPDATE_HEADER_BYTES];
    struct update_manifest m = {0};
    struct slots_wants w = {.product = o->product, .architecture = o->architecture, .floor = GREY_UPDATE_COUNTER};
    memcpy(w.public_key, key, sizeof w.public_key);
    /* What was said of an earlier trial must not end this one. */
    enum grey_error err = s->state.try == SLOTS_NONE ? letterbox_forget(o->inbox, f) : E_OK;
    err = err == E_OK ? fill(o, s, bundle, &w, header, &m, f) : err;
    if (err == E_NOT_FOUND || err == E_UPDATE_BUSY) {
        return err;
    }
    bytes_hex(m.id, sizeof m.id, id);
    if (err == E_OK) {
        log_info("update", "install", "version=%.*s counter=%" PRIu64 " slot=%s id=%.16s", (int)m.version.size, m.version.data,
                 m.counter, slots_name(s->state.try), id);
    } else {
        log_error("update", "refused", "%s (GREY-%d): %s", error_sentence(err), error_id(err), f->text);
        struct fault saving = {0};
        if (m.file_count > 0 && slots_note_failed(s, m.id, (uint32_t)error_id(err), &saving) != E_OK) {
            log_error("update", "state", "%s", saving.text);
        }
    }
    return err;
}

/* The trial ends: true.  A confirmation stays where it is until it is in the state: when that cannot be written now, it is tried again, for however
 * long, since the version is well.  told: the error that was logged last. */
static bool judge(const struct options *o, uint64_t deadline_ms, enum grey_error *told) {
    struct slots s;
    struct fault f = {0};
    uint8_t id[UPDATE_ID_BYTES];
    int held = lock(o, &f);
    if (held < 0) { /* looked at again soon; starts are counted all the same */
        return false;
    }
    enum grey_error err = slots_open(&s, o->slots, o->base, &f);
    bool over = err != E_OK || s.state.try == SLOTS_NONE, reverts = false;
    if (!over && letterbox_confirmation(o->inbox, id) && memcmp(id, s.state.try_id, sizeof id) == 0) {
        err = confirm(o, &s, id, &f);
        over = err == E_OK;
        if (over) {
            log_info("update", "confirm", "slot=%s floor=%" PRIu64, slots_name(s.state.keep), s.state.floor);
            (void)letterbox_forget(o->inbox, &f); /* else before the next trial */
        }
    } else if (!over && now_monotonic_ms() >= deadline_ms) {
        err = revert(o, &s, &f);
        over = reverts = o->roots == NULL || err == E_OK; /* of a root: tried again until it is told */
        log_error("update", "revert", "not confirmed in %" PRIu64 " s; runs=%s", o->confirm_s, slots_name(s.state.keep));
    }
    if (err != E_OK && err != *told) {
        log_error("update", "state", "%s (GREY-%d): %s", error_sentence(err), error_id(err), f.text);
    }
    *told = err;
    (void)close(held);
    if (reverts) {
        restart(o);
    }
    return over;
}

/* Installs, and stays until the trial has ended; one that was begun before is carried on. */
static enum grey_error install_and_wait(const struct options *o, const char *bundle, bool *tried, struct fault *f) {
    uint8_t key[KEYS_ED25519_PUBLIC_BYTES];
    struct slots s;
    *tried = false;
    enum grey_error keyed =
        keyfile_get_public(o->key, key, f); /* without it nothing new is taken; a trial comes to its end all the same */
    int held = lock(o, f);
    if (held < 0) {
        return f->code;
    }
    enum grey_error err = slots_open(&s, o->slots, o->base, f), opened = err, told = E_OK;
    bool tries_before = s.state.try != SLOTS_NONE;
    err = err == E_OK ? keyed : err;
    err = err == E_OK ? install(o, key, bundle, &s, f) : err;
    *tried = opened == E_OK && s.state.try != SLOTS_NONE;
    (void)close(held);
    if (*tried && !tries_before) {
        restart(o);
    }
    uint64_t deadline_ms = now_monotonic_ms() + o->confirm_s * 1000;
    while (*tried && !judge(o, deadline_ms, &told)) {
        (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000l}, NULL);
    }
    return err;
}

/* What was refused is remembered in the state, for greyd to tell; it is no failure of this program. */
static enum grey_error do_run(const struct options *o, struct fault *f) {
    char bundle[LIMIT_PATH_BYTES + 1];
    enum grey_error err = E_OK;
    letterbox_path(o->inbox, LETTERBOX_BUNDLE, bundle);
    for (bool again = true; again;) {
        bool tried;
        err = install_and_wait(o, bundle, &tried, f);
        if (err != E_UPDATE_BUSY && err != E_KEY && err != E_UPDATE_STATE && unlink(bundle) != 0 && errno != ENOENT) {
            return fault_errno(f, E_SYSTEM, "%s", bundle);
        }
        again = tried && letterbox_has_bundle(o->inbox);
    }
    return err == E_KEY || err == E_UPDATE_STATE ? err : E_OK;
}

/* By hand, at one gateway: of a file that somebody brought. */
static enum grey_error do_install(const struct options *o, struct fault *f) {
    struct slots s;
    bool tried;
    if (o->word_count != 1) {
        return fault_set(f, E_USAGE, "install takes a bundle");
    }
    enum grey_error err = install_and_wait(o, o->words[0], &tried, f);
    if (err == E_OK && tried && slots_open(&s, o->slots, o->base, f) == E_OK && s.state.failed_why != 0) {
        err = fault_set(f, error_by_id((int)s.state.failed_why), "%s runs again", slots_name(s.state.keep));
    }
    return err;
}

/* --- for people --------------------------------------------------------------------------------------------------------------------- */

static void show_id(const char *name, const uint8_t id[UPDATE_ID_BYTES]) {
    char text[2 * UPDATE_ID_BYTES + 1];
    bytes_hex(id, UPDATE_ID_BYTES, text);
    (void)printf("%-10s %s\n", name, text);
}

static enum grey_error do_show(const struct options *o, struct fault *f) {
    struct slots s;
    enum grey_error err = slots_open(&s, o->slots, o->base, f);
    if (err != E_OK) {
        return err;
    }
    (void)printf("%-10s %s\n", "keep", slots_name(s.state.keep));
    show_id("keep-id", s.state.keep_id);
    (void)printf("%-10s %" PRIu64 "\n", "floor",
                 s.state.floor > GREY_UPDATE_COUNTER ? s.state.floor : (uint64_t)GREY_UPDATE_COUNTER);
    (void)printf("%-10s %s\n", "try", slots_name(s.state.try));
    show_id("try-id", s.state.try_id);
    (void)printf("%-10s %" PRIu32 "\n", "left", s.state.left);
    show_id("failed-id", s.state.failed_id);
    (void)printf("%-10s %" PRIu32 "\n", "failed-why", s.state.failed_why);
    return E_OK;
}

static bool number_of(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == 0 && *out <= INT64_MAX;
}

/* Also the way out of a damaged state file: it begins a new one. */
static enum grey_error do_allow(const struct options *o, struct fault *f) {
    struct slots s;
    uint64_t counter;
    if (o->word_count != 1 || !number_of(o->words[0], &counter)) {
        return fault_set(f, E_USAGE, "allow takes a counter");
    }
    int held = lock(o, f);
    if (held < 0) {
        return f->code;
    }
    enum grey_error err = slots_open(&s, o->slots, o->base, f);
    if (err == E_OK || err == E_UPDATE_STATE) {
        *f = (struct fault){0};
        err = slots_allow(&s, counter, f);
        log_warn("update", "allow", "floor=%" PRIu64 "; older versions are taken from now on, down to this counter", counter);
    }
    (void)close(held);
    return err;
}

/* For images: deploy/image/slot knows the partitions.  The floor is the counter of the root that runs: this program came with it. */
static enum grey_error do_unpack(const struct options *o, struct fault *f) {
    uint8_t header[UPDATE_HEADER_BYTES];
    struct update_manifest m;
    struct slots_wants w = {.product = o->product, .architecture = o->architecture, .floor = o->counter};
    if (o->word_count != 1 || o->out == NULL) {
        return fault_set(f, E_USAGE, "unpack takes a bundle and --out");
    }
    w.floor = w.floor > GREY_UPDATE_COUNTER ? w.floor : GREY_UPDATE_COUNTER;
    enum grey_error err = keyfile_get_public(o->key, w.public_key, f);
    err = err == E_OK ? slots_unpack(o->words[0], &w, o->out, header, &m, f) : err;
    if (err == E_OK) {
        log_info("update", "unpack", "version=%.*s counter=%" PRIu64 " to=%s", (int)m.version.size, m.version.data, m.counter,
                 o->out);
    }
    return err;
}

/* The package was upgraded: whoever did that wants what it brought. */
static enum grey_error do_base(const struct options *o, struct fault *f) {
    struct slots s;
    int held = lock(o, f);
    if (held < 0) {
        return f->code;
    }
    enum grey_error err = slots_open(&s, o->slots, o->base, f);
    err = err == E_OK ? slots_to_base(&s, f) : err;
    (void)close(held);
    return err;
}

static enum grey_error do_keygen(const struct options *o, struct fault *f) {
    struct keyfile k;
    if (o->word_count != 1) {
        return fault_set(f, E_USAGE, "keygen takes a folder");
    }
    if (mkdir(o->words[0], 0700) != 0 && errno != EEXIST) {
        return fault_errno(f, E_SYSTEM, "%s", o->words[0]);
    }
    enum grey_error err = keyfile_open(o->words[0], SIGN_SECRET, &k, f);
    err = err == E_OK ? keyfile_put_public(o->words[0], SIGN_PUBLIC, &k, f) : err;
    keys_wipe(&k, sizeof k);
    return err;
}

static enum grey_error do_pack(const struct options *o, struct fault *f) {
    struct keyfile k;
    struct update_manifest m = {.product = bytes_str(o->product),
                                .architecture = bytes_str(o->architecture),
                                .version = bytes_str(o->version),
                                .counter = o->counter,
                                .replaces_max = o->replaces};
    char secret[LIMIT_PATH_BYTES + 1], id[2 * UPDATE_ID_BYTES + 1];
    if (o->sign == NULL || o->version == NULL || o->out == NULL || (o->word_count == 0) == (o->image == NULL)) {
        return fault_set(f, E_USAGE, "pack takes --sign, --version, --counter, --out and files, or --image");
    }
    (void)snprintf(secret, sizeof secret, "%.900s/" SIGN_SECRET, o->sign);
    if (access(secret, R_OK) != 0) { /* keyfile_open would make one */
        return fault_errno(f, E_KEY, "%s", secret);
    }
    enum grey_error err = keyfile_open(o->sign, SIGN_SECRET, &k, f);
    if (err == E_OK) {
        err = o->image != NULL ? packing_image(&m, o->image, k.secret_key, o->out, f)
                               : packing_write(&m, o->words, o->word_count, k.secret_key, o->out, f);
    }
    keys_wipe(&k, sizeof k);
    if (err == E_OK) {
        bytes_hex(m.id, sizeof m.id, id);
        (void)printf("%s %s\n", id, o->out);
    }
    return err;
}

enum { ANY_WORDS = INT32_MAX };
static const struct verb {
    const char *name;
    enum grey_error (*run)(const struct options *o, struct fault *f);
    uint32_t words_max;
    bool commands; /* needs what restarts greyd: else a version would be left without ever having run */
} verbs[] = {{"boot", do_boot, 0, false},     {"run", do_run, 0, true},        {"install", do_install, 1, true},
             {"show", do_show, 0, false},     {"allow", do_allow, 1, false},   {"base", do_base, 0, false},
             {"unpack", do_unpack, 1, false}, {"keygen", do_keygen, 1, false}, {"pack", do_pack, ANY_WORDS, false}};

static bool take_option(struct options *o, const char *name, const char *value) {
    const struct {
        const char *name;
        const char **to;
    } texts[] = {{"--slots", &o->slots}, {"--base", &o->base},       {"--inbox", &o->inbox},
                 {"--key", &o->key},     {"--product", &o->product}, {"--architecture", &o->architecture},
                 {"--sign", &o->sign},   {"--version", &o->version}, {"--out", &o->out},
                 {"--roots", &o->roots}, {"--running", &o->running}, {"--chooser", &o->chooser},
                 {"--image", &o->image}};
    const struct {
        const char *name;
        uint64_t *to;
        uint64_t max;
    } numbers[] = {{"--confirm-s", &o->confirm_s, CONFIRM_S_MAX},
                   {"--counter", &o->counter, INT64_MAX},
                   {"--replaces", &o->replaces, INT64_MAX}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].to = value;
            return true;
        }
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            return number_of(value, numbers[i].to) && *numbers[i].to <= numbers[i].max;
        }
    }
    return false;
}

int main(int argc, char **argv) {
    struct options o = {.slots = "/var/lib/grey-slots",
                        .base = "/usr/bin",
                        .inbox = "/var/lib/grey/updates",
                        .key = "/etc/grey/" SIGN_PUBLIC,
                        .product = UPDATE_PRODUCT_AGENT,
                        .architecture = UPDATE_ARCHITECTURE,
                        .chooser = "slot",
                        .confirm_s = 600};
    const struct verb *verb = NULL;
    struct fault f = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        (void)fputs(usage, stdout);
        return 0;
    }
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++) {
        verb = strcmp(argv[1], verbs[i].name) == 0 ? &verbs[i] : verb;
    }
    o.words = argv + 2; /* moved to the front as they come */
    for (int i = 2; verb != NULL && i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            o.command = i + 1 < argc ? argv + i + 1 : NULL;
            break;
        }
        if (argv[i][0] != '-') {
            o.words[o.word_count++] = argv[i];
        } else if (i + 1 < argc && take_option(&o, argv[i], argv[i + 1])) {
            i++;
        } else {
            (void)fault_set(&f, E_USAGE, "%s is no option, or has no value that fits; grey-update --help lists them", argv[i]);
            return complain(&f);
        }
    }
    if (verb == NULL) {
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (o.word_count > verb->words_max) {
        (void)fault_set(&f, E_USAGE, "%s has no use for '%s'", verb->name, o.words[verb->words_max]);
        return complain(&f);
    }
    if (verb->commands && o.command == NULL) {
        (void)fault_set(&f, E_USAGE, "%s takes -- and a command that has greyd restarted", verb->name);
        return complain(&f);
    }
    (void)umask(022);
    log_configure(LOG_INFO, LOG_PRETTY);
    return verb->run(&o, &f) == E_OK ? 0 : complain(&f);
}
