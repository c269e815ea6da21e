/* grey-tpm: everything that Grey Edge does with a TPM, in a process that ends when it is done: TPM library and OpenSSL are 4 MiB that an agent
 * need not carry for one quote a day, and what talks to the chip needs no network.  Messages come on standard input and go to standard
 * output, or come and go at the door of `serve`; docs/ATTESTATION.md, man grey-tpm. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/identity/custody.h"
#include "agent/identity/prove.h"
#include "agent/identity/startfile.h"
#include "agent/identity/tpmdoor.h"
#include "federation/attest/inquiry.h"
#include "platform/errand.h"

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define FIRMWARE_LOG "/sys/kernel/security/tpm0/binary_bios_measurements"

struct options {
    const char *way, *start_log, *boot_log, *program, *config, *version;
    const char *socket, *allow; /* of serve */
    uint32_t handle;
    char **command;                 /* what is started after it was measured; NULL: nothing */
    struct builder *input, *output; /* of the orders that have them */
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

static enum grey_error write_all(int fd, const char *name, struct bytes b, struct fault *f) {
    while (b.size > 0) {
        ssize_t wrote = write(fd, b.data, b.size);
        if (wrote < 0 && errno != EINTR) {
            return fault_errno(f, E_IO, "%s", name);
        }
        b = wrote > 0 ? bytes_of(b.data + wrote, b.size - (size_t)wrote) : b;
    }
    return E_OK;
}

/* --- verbs -------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error read_order(const struct options *o, struct inquiry_order *order, struct fault *f) {
    return inquiry_get_order(builder_bytes(o->input), order) == E_OK ? E_OK
                                                                     : fault_set(f, E_ATTEST_FORMAT, "what came is no order");
}

static enum grey_error do_introduce(const struct options *o, struct tpm *t, struct fault *f) {
    struct inquiry_order order;
    enum grey_error err = read_order(o, &order, f);
    return err != E_OK ? err : prove_introduce(t, o->handle, order.type, &order.who, o->output, f);
}

static enum grey_error do_activate(const struct options *o, struct tpm *t, struct fault *f) {
    struct credential challenge;
    uint8_t secret[CREDENTIAL_SECRET_BYTES];
    if (introduce_get_challenge(builder_bytes(o->input), &challenge) != E_OK) {
        return fault_set(f, E_ATTEST_FORMAT, "what came is no challenge");
    }
    enum grey_error err = tpm_activate(t, o->handle, &challenge, secret, f);
    if (err == E_OK) {
        builder_add(o->output, bytes_of(secret, sizeof secret));
    }
    return err;
}

static int64_t wall_clock_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum grey_error do_quote(const struct options *o, struct tpm *t, struct fault *f) {
    struct builder boot_log, start_log;
    struct inquiry_order order;
    struct inquiry inquiry;
    builder_init(&boot_log, BOOTLOG_BYTES_MAX);
    builder_init(&start_log, 2 * STARTLOG_BYTES_MAX);
    enum grey_error err = read_order(o, &order, f);
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
        err = prove_evidence(t, o->handle, &q, o->output, f);
    }
    builder_free(&start_log);
    builder_free(&boot_log);
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

/* Of keys: what came goes to agent/identity/custody.h as it is. */
#define CUSTODY(verb)                                                                                                              \
    static enum grey_error do_##verb(const struct options *o, struct tpm *t, struct fault *f) {                                    \
        return custody_##verb(t, builder_bytes(o->input), o->output, f);                                                           \
    }
CUSTODY(public)
CUSTODY(make)
CUSTODY(sign)
CUSTODY(seal)
CUSTODY(unseal)

static const struct verb {
    const char *name;
    enum grey_error (*run)(const struct options *, struct tpm *, struct fault *); /* NULL: serve */
    size_t input_max, output_max;                                                 /* of orders; 0: it is none */
} verbs[] = {{"introduce", do_introduce, INQUIRY_ORDER_BYTES_MAX, INTRODUCE_BYTES_MAX},
             {"activate", do_activate, INTRODUCE_CHALLENGE_BYTES_MAX, CREDENTIAL_SECRET_BYTES},
             {"quote", do_quote, INQUIRY_ORDER_BYTES_MAX, ATTEST_EVIDENCE_BYTES_MAX},
             {"public", do_public, CUSTODY_INPUT_BYTES_MAX, CUSTODY_OUTPUT_BYTES_MAX},
             {"make", do_make, CUSTODY_INPUT_BYTES_MAX, CUSTODY_OUTPUT_BYTES_MAX},
             {"sign", do_sign, CUSTODY_INPUT_BYTES_MAX, CUSTODY_OUTPUT_BYTES_MAX},
             {"seal", do_seal, CUSTODY_INPUT_BYTES_MAX, CUSTODY_OUTPUT_BYTES_MAX},
             {"unseal", do_unseal, CUSTODY_INPUT_BYTES_MAX, CUSTODY_OUTPUT_BYTES_MAX},
             {"measure", do_measure, 0, 0},
             {"status", do_status, 0, 0},
             {"forget", do_forget, 0, 0},
             {"serve", NULL, 0, 0}};

static const struct verb *verb_of(struct bytes name) {
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (bytes_equal_str(name, verbs[i].name)) {
            return &verbs[i];
        }
    }
    return NULL;
}

static enum grey_error run_verb(const struct options *o, const struct verb *verb, struct fault *f) {
    struct tpm *t = tpm_open(o->way, f);
    enum grey_error err = t == NULL ? f->code : verb->run(o, t, f);
    tpm_close(t);
    return err;
}

/* One order, from a file or a pipe to another; the reader is told nothing but what came out. */
static enum grey_error run_order(const struct options *o, const struct verb *verb, struct fault *f) {
    struct builder in, out;
    builder_init(&in, verb->input_max);
    builder_init(&out, verb->output_max);
    struct options with = *o;
    with.input = &in, with.output = &out;
    enum grey_error err = read_all(STDIN_FILENO, "standard input", &in, f);
    err = err != E_OK ? err : run_verb(&with, verb, f);
    err = err != E_OK ? err : write_all(STDOUT_FILENO, "standard output", builder_bytes(&out), f);
    builder_free(&in);
    builder_free(&out);
    return err;
}

/* --- the door ----------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error run_said(const struct options *o, struct bytes said, struct builder *out, struct fault *f) {
    struct builder in;
    const uint8_t *end = said.size == 0 ? NULL : memchr(said.data, '\n', said.size);
    const struct verb *verb = end == NULL ? NULL : verb_of(bytes_of(said.data, (size_t)(end - said.data)));
    if (verb == NULL || verb->input_max == 0) {
        return fault_set(f, E_USAGE, "that is no order");
    }
    builder_init(&in, verb->input_max);
    builder_add(&in, bytes_of(end + 1, said.size - (size_t)(end + 1 - said.data)));
    struct options with = *o;
    with.input = &in, with.output = out;
    enum grey_error err = in.err != E_OK ? fault_set(f, in.err, "the order's input") : run_verb(&with, verb, f);
    builder_free(&in);
    return err;
}

static void answer(void *context, int caller) {
    const struct options *o = context;
    struct builder said, out;
    struct fault f = {.code = E_OK, .text = ""};
    builder_init(&said, ERRAND_INPUT_BYTES_MAX);
    builder_init(&out, ATTEST_EVIDENCE_BYTES_MAX + 1);
    builder_add_byte(&out, ERRAND_WELL);
    enum grey_error err = read_all(caller, "the caller", &said, &f);
    err = err != E_OK ? err : run_said(o, builder_bytes(&said), &out, &f);
    if (err != E_OK) {
        (void)complain(&f);
        builder_reset(&out);
        builder_add_byte(&out, ERRAND_FAILED);
        builder_addf(&out, "%s (GREY-%d): %s", error_sentence(err), error_id(err), f.text);
    }
    (void)write_all(caller, "the caller", builder_bytes(&out), &f); /* who hung up is not missed */
}

static int serve(struct options *o) {
    struct fault f = {.code = E_OK};
    if (o->socket == NULL) {
        (void)fault_set(&f, E_USAGE, "serve needs --socket");
    } else {
        (void)tpmdoor_serve(o->socket, o->allow, answer, o, &f);
    }
    return complain(&f);
}

/* --- the command line ------------------------------------------------------------------------------------------------------------------------ */

static const char usage[] =
    "usage: grey-tpm [flags] introduce|activate|quote|measure|status|forget|serve [-- COMMAND ...]\n\n"
    "  introduce   order on standard input, endorsement certificate and attestation key on standard output\n"
    "  activate    challenge in, its secret out\n"
    "  quote       order with an inquiry in, evidence out\n"
    "  public, make, sign, seal, unseal   keys that lie in the TPM, as greyd asks for them at the socket\n"
    "  measure     hash program and configuration, extend register 14, add to the log of starts; then become COMMAND\n"
    "  status      endorsement certificate (SHA-256) and registers\n"
    "  forget      drop the attestation key; the gateway must be enrolled anew\n"
    "  serve       take introduce, activate, quote and the orders about keys at a socket, one after the other\n\n"
    "  --tpm WAY                device:/dev/tpmrm0, or swtpm:path=SOCKET\n"
    "  --handle NUMBER          where the attestation key is kept; 0x81018001\n"
    "  --boot-log FILE          " FIRMWARE_LOG "\n"
    "  --start-log FILE         the log of starts\n"
    "  --program FILE           what is measured as the program\n"
    "  --measured-config FILE   what is measured as its configuration\n"
    "  --program-version TEXT   what the log says about it\n"
    "  --socket PATH            where serve takes orders\n"
    "  --allow USER             who may give them, beside root and the user that it runs as\n";

static bool take_flag(struct options *o, const char *name, const char *value) {
    const struct {
        const char *name;
        const char **to;
    } texts[] = {{"--tpm", &o->way},
                 {"--boot-log", &o->boot_log},
                 {"--start-log", &o->start_log},
                 {"--program", &o->program},
                 {"--measured-config", &o->config},
                 {"--program-version", &o->version},
                 {"--socket", &o->socket},
                 {"--allow", &o->allow}};
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
        verb = before == NULL ? verb_of(bytes_str(argv[i])) : before;
        if (verb == NULL || before != NULL) {
            (void)fprintf(stderr, "grey-tpm: '%s' is not understood\n%s", argv[i], usage);
            return EXIT_USAGE;
        }
    }
    if (verb == NULL || (o.command != NULL && verb->run != do_measure)) {
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (verb->run == NULL) {
        return serve(&o);
    }
    enum grey_error err = verb->input_max > 0 ? run_order(&o, verb, &f) : run_verb(&o, verb, &f);
    int status = err == E_OK ? 0 : complain(&f);
    if (o.command != NULL) {
        /* The agent starts although it could not be measured: attestation tells, and the site goes on. */
        (void)execvp(o.command[0], o.command);
        (void)fprintf(stderr, "grey-tpm: %s: %s\n", o.command[0], strerror(errno));
        return EXIT_FAILED;
    }
    return fflush(stdout) == 0 ? status : EXIT_FAILED;
}
