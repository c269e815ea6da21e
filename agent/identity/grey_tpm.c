/* grey-tpm: everything that Grey Edge does with a TPM, in a process that ends when it is done: TPM library and OpenSSL are 4 MiB that an agent
 * need not carry for one quote a day, and what talks to the chip needs no network.  Messages come on standard input and go to standard
 * output; docs/ATTESTATION.md, man grey-tpm. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/identity/prove.h"
#include "agent/identity/startfile.h"
#include "federation/attest/inquiry.h"

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define FIRMWARE_LOG "/sys/kernel/security/tpm0/binary_bios_measurements"

struct options {
    const char *way, *start_log, *boot_log, *program, *config, *version;
    uint32_t handle;
    char **command; /* what is started after it was measured; NULL: nothing */
};

static int complain(const struct fault *f) {
    (void)fprintf(stderr, "grey-tpm: %s (GREY-%d): %s\n  -> %s\n", error_sentence(f->code), error_id(f->code), f->text,
                  error_remedy(f->code));
    return f->code == E_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

static enum grey_error read_all(int fd, const char *name, struct builder *out, struct fault *f) {
    uint8_t room[8192];
    ssize_t got;
    while ((got = read(fd, room, sizeof room)) != 0) {
        if (got < 0 && errno != EINTR) {
            return fault_errno(f, E_IO, "%s", name);
        }
        builder_add(out, bytes_of(room, got > 0 ? (size_t)got : 0));
        if (out->err != E_OK) {
            return fault_set(f, out->err, "%s", name);
        }
    }
    return E_OK;
}

/* A file that need not be there. */
static enum grey_error read_if_there(const char *path, struct builder *out, struct fault *f) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? E_OK : fault_errno(f, E_IO, "%s", path);
    }
    enum grey_error err = read_all(fd, path, out, f);
    (void)close(fd);
    return err;
}

static enum grey_error write_all(struct bytes b, struct fault *f) {
    while (b.size > 0) {
        ssize_t wrote = write(STDOUT_FILENO, b.data, b.size);
        if (wrote < 0 && errno != EINTR) {
            return fault_errno(f, E_IO, "standard output");
        }
        b = wrote > 0 ? bytes_of(b.data + wrote, b.size - (size_t)wrote) : b;
    }
    return E_OK;
}

/* --- verbs -------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error read_order(struct builder *in, struct inquiry_order *order, struct fault *f) {
    enum grey_error err = read_all(STDIN_FILENO, "standard input", in, f);
    if (err == E_OK && inquiry_get_order(builder_bytes(in), order) != E_OK) {
        err = fault_set(f, E_ATTEST_FORMAT, "standard input is no order");
    }
    return err;
}

static enum grey_error do_introduce(const struct options *o, struct tpm *t, struct fault *f) {
    struct builder in, out;
    struct inquiry_order order;
    builder_init(&in, INQUIRY_ORDER_BYTES_MAX);
    builder_init(&out, INTRODUCE_BYTES_MAX);
    enum grey_error err = read_order(&in, &order, f);
    err = err != E_OK ? err : prove_introduce(t, o->handle, order.type, &order.who, &out, f);
    err = err != E_OK ? err : write_all(builder_bytes(&out), f);
    builder_free(&out);
    builder_free(&in);
    return err;
}

static enum grey_error do_activate(const struct options *o, struct tpm *t, struct fault *f) {
    struct builder in;
    struct credential challenge;
    uint8_t secret[CREDENTIAL_SECRET_BYTES];
    builder_init(&in, INTRODUCE_CHALLENGE_BYTES_MAX);
    enum grey_error err = read_all(STDIN_FILENO, "standard input", &in, f);
    if (err == E_OK && introduce_get_challenge(builder_bytes(&in), &challenge) != E_OK) {
        err = fault_set(f, E_ATTEST_FORMAT, "standard input is no challenge");
    }
    err = err != E_OK ? err : tpm_activate(t, o->handle, &challenge, secret, f);
    err = err != E_OK ? err : write_all(bytes_of(secret, sizeof secret), f);
    builder_free(&in);
    return err;
}

static int64_t wall_clock_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum grey_error do_quote(const struct options *o, struct tpm *t, struct fault *f) {
    struct builder in, out, boot_log, start_log;
    struct inquiry_order order;
    struct inquiry inquiry;
    builder_init(&in, INQUIRY_ORDER_BYTES_MAX);
    builder_init(&out, ATTEST_EVIDENCE_BYTES_MAX);
    builder_init(&boot_log, BOOTLOG_BYTES_MAX);
    builder_init(&start_log, 2 * STARTLOG_BYTES_MAX);
    enum grey_error err = read_order(&in, &order, f);
    if (err == E_OK && inquiry_get(order.inquiry, &inquiry) != E_OK) {
        err = fault_set(f, E_ATTEST_FORMAT, "the order holds no inquiry");
    }
    err = err != E_OK ? err : read_if_there(o->boot_log, &boot_log, f);
    err = err != E_OK || o->start_log == NULL ? err : startfile_read(o->start_log, &start_log, f);
    if (err == E_OK) {
        struct prove_question q = {.type = order.type,
                                   .who = order.who,
                                   .pcr_mask = inquiry.pcr_mask,
                                   .boot_log_known = inquiry.boot_log_known,
                                   .boot_log = inquiry.boot_log_known ? bytes_of(NULL, 0) : builder_bytes(&boot_log),
                                   .start_log = builder_bytes(&start_log),
                                   .now_ms = wall_clock_ms()};
        memcpy(q.nonce, inquiry.nonce, sizeof q.nonce);
        err = prove_evidence(t, o->handle, &q, &out, f);
    }
    err = err != E_OK ? err : write_all(builder_bytes(&out), f);
    builder_free(&start_log);
    builder_free(&boot_log);
    builder_free(&out);
    builder_free(&in);
    return err;
}

static enum grey_error hash_file(const char *path, uint8_t out[DIGEST_SHA256_BYTES], struct fault *f) {
    struct builder whole;
    struct stat about = {0};
    builder_init(&whole, 256u * 1024 * 1024);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum grey_error err = fd < 0 || fstat(fd, &about) != 0 ? fault_errno(f, E_IO, "%s", path) : read_all(fd, path, &whole, f);
    if (err == E_OK && !S_ISREG(about.st_mode)) {
        err = fault_set(f, E_IO, "%s: it is no file", path);
    }
    digest_sha256(builder_bytes(&whole), out);
    builder_free(&whole);
    if (fd >= 0) {
        (void)close(fd);
    }
    return err;
}

static enum grey_error do_measure(const struct options *o, struct tpm *t, struct fault *f) {
    struct startlog_start start = {.version = bytes_str(o->version)};
    uint8_t replayed[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES] = {{0}};
    struct builder boot_log;
    uint32_t touched;
    if (o->start_log == NULL || o->program == NULL || o->config == NULL) {
        return fault_set(f, E_USAGE, "measure needs --start-log, --program and --measured-config");
    }
    if (start.version.size > STARTLOG_VERSION_BYTES || !bytes_utf8_valid(start.version)) {
        return fault_set(f, E_USAGE, "--program-version: at most %u bytes of UTF-8", STARTLOG_VERSION_BYTES);
    }
    builder_init(&boot_log, BOOTLOG_BYTES_MAX);
    enum grey_error err = read_if_there(o->boot_log, &boot_log, f);
    if (err == E_OK && boot_log.size > 0 && bootlog_replay(builder_bytes(&boot_log), replayed, &touched) != E_OK) {
        memset(replayed, 0, sizeof replayed); /* who judges it will say so */
    }
    builder_free(&boot_log);
    err = err != E_OK ? err : hash_file(o->program, start.program, f);
    err = err != E_OK ? err : hash_file(o->config, start.config, f);
    return err != E_OK ? err : startfile_add(o->start_log, t, replayed[STARTLOG_PCR], &start, f);
}

static void print_hex(const char *what, struct bytes b) {
    (void)printf("%-14s", what);
    for (size_t i = 0; i < b.size; i++) {
        (void)printf("%02x", b.data[i]);
    }
    (void)putchar('\n');
}

static enum grey_error do_status(const struct options *o, struct tpm *t, struct fault *f) {
    struct builder certificate;
    uint8_t digest[DIGEST_SHA256_BYTES], values[TPM_PCR_COUNT][DIGEST_SHA256_BYTES];
    (void)printf("%-14s%s\n", "TPM", o->way);
    builder_init(&certificate, EKCERT_BYTES_MAX);
    enum grey_error err = tpm_read_endorsement(t, &certificate, f);
    if (err == E_OK) {
        digest_sha256(builder_bytes(&certificate), digest);
        print_hex("endorsement", bytes_of(digest, sizeof digest));
    } else if (err == E_NOT_FOUND) {
        (void)printf("%-14snone: its maker left no certificate\n", "endorsement");
        err = E_OK;
    }
    builder_free(&certificate);
    err = err != E_OK ? err : tpm_read_pcrs(t, TPMWIRE_PCR_MASK, values, f);
    for (uint32_t pcr = 0; pcr < TPM_PCR_COUNT && err == E_OK; pcr++) {
        char name[16];
        (void)snprintf(name, sizeof name, "register %u", (unsigned)pcr);
        print_hex(name, bytes_of(values[pcr], DIGEST_SHA256_BYTES));
    }
    return err;
}

static enum grey_error do_forget(const struct options *o, struct tpm *t, struct fault *f) {
    return tpm_forget_key(t, o->handle, f);
}

static const struct verb {
    const char *name;
    enum grey_error (*run)(const struct options *, struct tpm *, struct fault *);
} verbs[] = {{"introduce", do_introduce}, {"activate", do_activate}, {"quote", do_quote},
             {"measure", do_measure},     {"status", do_status},     {"forget", do_forget}};

static const char usage[] =
    "usage: grey-tpm [flags] introduce|activate|quote|measure|status|forget [-- COMMAND ...]\n\n"
    "  introduce   order on standard input, endorsement certificate and attestation key on standard output\n"
    "  activate    challenge in, its secret out\n"
    "  quote       order with an inquiry in, evidence out\n"
    "  measure     hash program and configuration, extend register 14, add to the log of starts; then become COMMAND\n"
    "  status      endorsement certificate (SHA-256) and registers\n"
    "  forget      drop the attestation key; the gateway must be enrolled anew\n\n"
    "  --tpm WAY                device:/dev/tpmrm0, or swtpm:path=SOCKET\n"
    "  --handle NUMBER          where the attestation key is kept; 0x81018001\n"
    "  --boot-log FILE          " FIRMWARE_LOG "\n"
    "  --start-log FILE         the log of starts\n"
    "  --program FILE           what is measured as the program\n"
    "  --measured-config FILE   what is measured as its configuration\n"
    "  --program-version TEXT   what the log says about it\n";

static bool take_flag(struct options *o, const char *name, const char *value) {
    const struct {
        const char *name;
        const char **to;
    } texts[] = {{"--tpm", &o->way},         {"--boot-log", &o->boot_log},      {"--start-log", &o->start_log},
                 {"--program", &o->program}, {"--measured-config", &o->config}, {"--program-version", &o->version}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].to = value;
            return true;
        }
    }
    char *end = NULL;
    unsigned long handle = strcmp(name, "--handle") == 0 ? strtoul(value, &end, 0) : 0;
    o->handle = handle >= 0x81000000u && handle <= 0x81ffffffu ? (uint32_t)handle : 0;
    return end != NULL && *end == 0 && o->handle != 0;
}

int main(int argc, char **argv) {
    struct options o = {.way = "device:/dev/tpmrm0", .boot_log = FIRMWARE_LOG, .handle = TPM_KEY_HANDLE, .version = GREY_VERSION};
    const struct verb *verb = NULL;
    struct fault f = {.code = E_OK};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            (void)fputs(usage, stdout);
            return 0;
        }
        if (strcmp(argv[i], "--") == 0 && i + 1 < argc) {
            o.command = argv + i + 1;
            break;
        }
        if (argv[i][0] == '-' && i + 1 < argc && take_flag(&o, argv[i], argv[i + 1])) {
            i++;
            continue;
        }
        const struct verb *before = verb;
        for (size_t at = 0; before == NULL && at < sizeof verbs / sizeof *verbs; at++) {
            verb = strcmp(argv[i], verbs[at].name) == 0 ? &verbs[at] : verb;
        }
        if (verb == before) {
            (void)fprintf(stderr, "grey-tpm: '%s' is not understood\n%s", argv[i], usage);
            return EXIT_USAGE;
        }
    }
    if (verb == NULL || (o.command != NULL && verb->run != do_measure)) {
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
    struct tpm *t = tpm_open(o.way, &f);
    enum grey_error err = t == NULL ? f.code : verb->run(&o, t, &f);
    tpm_close(t);
    int status = err == E_OK ? 0 : complain(&f);
    if (o.command != NULL) {
        /* The agent starts although it could not be measured: attestation tells, and the site goes on. */
        (void)execvp(o.command[0], o.command);
        (void)fprintf(stderr, "grey-tpm: %s: %s\n", o.command[0], strerror(errno));
        return EXIT_FAILED;
    }
    return fflush(stdout) == 0 ? status : EXIT_FAILED;
}
