/* Keys that a TPM keeps: used for requests and handshakes without leaving it, worth nothing on another machine, and missed with a name and
 * within bounded time.  With two software TPMs and the grey-tpm of this build. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/cert.h"
#include "platform/conn.h"
#include "platform/csr.h"
#include "platform/keyfile.h"
#include "platform/keyring.h"
#include "platform/keys.h"
#include "platform/now.h"
#include "platform/tpm.h"
#include "platform/vault.h"
#include "platform/wholefile.h"
#include "tests/unit/swtpm_rig.h"

static struct swtpm machines[2];
static pid_t keepers[2];
static char *doors[2], *grey_tpm, *dir;

static void open_door(size_t i) {
    (void)unlink(doors[i]);
    keepers[i] = fork();
    if (keepers[i] == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) { /* it tells what it refuses */
            _exit(127);
        }
        execl(grey_tpm, grey_tpm, "--tpm", machines[i].way, "--socket", doors[i], "serve", NULL);
        _exit(127);
    }
    assert_true(keepers[i] > 0);
    for (int tries = 0; access(doors[i], F_OK) != 0; tries++) {
        assert_true(tries < 1000);
        (void)usleep(10000);
    }
}

static void close_door(size_t i) {
    (void)kill(keepers[i], SIGKILL);
    assert_int_equal(waitpid(keepers[i], NULL, 0), keepers[i]);
}

static int set_up(void **state) {
    (void)state;
    char *path = realpath("/proc/self/exe", NULL);
    assert_non_null(path);
    *strstr(path, "/tests/test_vault") = 0;
    grey_tpm = swtpm_text("%s/grey-tpm", path);
    free(path);
    for (size_t i = 0; i < 2; i++) {
        swtpm_start(&machines[i]);
        doors[i] = swtpm_text("%s/door", machines[i].folder);
        open_door(i);
    }
    dir = machines[0].folder;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        close_door(i);
        free(doors[i]);
        swtpm_stop(&machines[i]);
    }
    swtpm_remove_authority();
    free(grey_tpm);
    return 0;
}

static char *key_in(size_t machine) {
    return swtpm_text("tpm:0x%08x@%s", VAULT_HANDLE_TLS, doors[machine]);
}

static void nothing_is_left_in(size_t machine) {
    uint32_t objects, sessions;
    struct fault f = {0};
    struct tpm *t = tpm_open(machines[machine].way, &f);
    assert_non_null(t);
    assert_int_equal(tpm_count_left(t, &objects, &sessions, &f), E_OK);
    assert_int_equal(objects + sessions, 0);
    tpm_close(t);
}

/* If this failed, a gateway with a TPM could not be enrolled with a key that it alone has. */
static void a_request_is_signed_by_the_tpm(void **state) {
    (void)state;
    struct fault f = {0};
    struct keysign key;
    struct builder pem, again;
    struct csr_facts facts, second;
    char *where = key_in(0);
    bool made;
    assert_int_equal(keyring_open(where, &key, &f), E_VAULT_OTHER); /* none is made unasked */
    assert_int_equal(keyring_make(where, &made, &f), E_OK);
    assert_true(made);
    assert_int_equal(keyring_make(where, &made, &f), E_OK);
    assert_false(made);
    builder_init(&pem, CSR_PEM_BYTES_MAX);
    builder_init(&again, CSR_PEM_BYTES_MAX);
    for (size_t i = 0; i < 30; i++) { /* numbers of a signature are now and then shorter */
        builder_reset(&pem);
        assert_int_equal(keyring_open(where, &key, &f), E_OK);
        assert_int_equal(csr_make("site", "1", &key, &pem, &f), E_OK);
        assert_int_equal(csr_read(builder_bytes(&pem), &facts, &f), E_OK); /* which judges the signature */
        keysign_close(&key);
    }
    assert_int_equal(keyring_open(where, &key, &f), E_OK);
    assert_int_equal(csr_make("site", "1", &key, &again, &f), E_OK);
    assert_int_equal(csr_read(builder_bytes(&again), &second, &f), E_OK);
    assert_memory_equal(facts.key_hash, second.key_hash, sizeof facts.key_hash);
    keysign_close(&key);
    assert_int_equal(keyring_read(where, &again, &f), E_KEY); /* it never leaves */
    nothing_is_left_in(0);
    builder_free(&pem);
    builder_free(&again);
    free(where);
}

/* If this failed, whoever may ask the service for signatures could have the attestation key sign, or fill the TPM with keys. */
static void other_handles_are_not_lent(void **state) {
    (void)state;
    struct fault f = {0};
    uint8_t pair[VAULT_PAIR_BYTES], hash[DIGEST_SHA256_BYTES] = {1};
    static const uint32_t handles[] = {TPM_KEY_HANDLE, 0x81010001u, VAULT_HANDLE_FIRST - 1, VAULT_HANDLE_LAST + 1, 0};
    for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++) {
        assert_int_equal(vault_sign(doors[0], handles[i], hash, pair, &f), E_BAD_MESSAGE);
        assert_int_equal(vault_make(doors[0], handles[i], pair, &f), E_BAD_MESSAGE);
    }
    struct keysign key;
    assert_int_equal(keyring_open("tpm:0x81018001", &key, &f), E_KEY);
    assert_int_equal(keyring_open("tpm:nonsense", &key, &f), E_KEY);
    assert_int_equal(keyring_open("tpm:", &key, &f), E_KEY);
}

/* If this failed, who takes the disk out of a gateway could sign in its name with the help of any other TPM. */
static void a_stolen_disk_is_worth_nothing(void **state) {
    (void)state;
    struct fault f = {0};
    struct keyfile mine, again;
    struct stat st;
    struct builder text, key;
    bool made;
    char *path = swtpm_text("%s/signer.key", dir);
    assert_int_equal(keyfile_open_sealed(dir, "signer.key", doors[0], &mine, &f), E_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(keyfile_open_sealed(dir, "signer.key", doors[0], &again, &f), E_OK);
    assert_memory_equal(&mine, &again, sizeof mine);
    assert_int_equal(keyfile_open_sealed(dir, "signer.key", doors[1], &again, &f), E_VAULT_OTHER);
    assert_int_equal(keyfile_open(dir, "signer.key", &again, &f), E_KEY);
    assert_non_null(strstr(f.text, "security.signing_key"));
    builder_init(&text, 8192);
    assert_int_equal(wholefile_read(path, &text, &f), E_OK);
    char hex[2 * KEYS_ED25519_SECRET_BYTES + 1];
    bytes_hex(mine.secret_key, KEYS_ED25519_SECRET_BYTES, hex);
    hex[32] = 0;
    assert_null(strstr((const char *)text.data, hex));
    for (size_t at = 14; at + 2 < text.size; at += 37) { /* one digit is another */
        char was = (char)text.data[at];
        text.data[at] = was == '0' ? '1' : '0';
        assert_int_equal(wholefile_write(path, bytes_of(text.data, text.size - 1), 0600, &f), E_OK);
        assert_int_not_equal(keyfile_open_sealed(dir, "signer.key", doors[0], &again, &f), E_OK);
        text.data[at] = (uint8_t)was;
    }
    assert_int_equal(unlink(path), 0);
    free(path);

    /* the same for TLS keys: sealed in a file, and at a handle that is empty in the thief's TPM, or holds another */
    char *here = swtpm_text("tpm:%s/node.key@%s", dir, doors[0]), *there = swtpm_text("tpm:%s/node.key@%s", dir, doors[1]);
    char *other = key_in(1);
    struct keysign k;
    assert_int_equal(keyring_make(here, &made, &f), E_OK);
    assert_true(made);
    assert_int_equal(keyring_open(here, &k, &f), E_OK);
    keysign_close(&k);
    assert_int_equal(keyring_open(there, &k, &f), E_VAULT_OTHER);
    assert_int_equal(keyring_open(other, &k, &f), E_VAULT_OTHER);
    builder_init(&key, KEYRING_TEXT_BYTES_MAX);
    assert_int_equal(keyring_read(here, &key, &f), E_OK);
    assert_int_equal(key.data[0], 0x30);
    builder_free(&key);
    builder_free(&text);
    free(here);
    free(there);
    free(other);
    nothing_is_left_in(0);
    nothing_is_left_in(1);
}

/* If this failed, a gateway that gets a TPM later would go on with a key that anybody can read from its disk. */
static void a_plain_key_is_sealed(void **state) {
    (void)state;
    struct fault f = {0};
    struct keyfile plain, sealed;
    struct builder text;
    char *path = swtpm_text("%s/signer.key", dir);
    assert_int_equal(keyfile_open(dir, "signer.key", &plain, &f), E_OK);
    assert_int_equal(keyfile_open_sealed(dir, "signer.key", doors[0], &sealed, &f), E_OK);
    assert_memory_equal(&plain, &sealed, sizeof plain);
    builder_init(&text, 8192);
    assert_int_equal(wholefile_read(path, &text, &f), E_OK);
    assert_true(vault_is_sealed(builder_bytes(&text)));
    builder_free(&text);
    assert_int_equal(unlink(path), 0);
    free(path);
}

/* --- handshakes ---------------------------------------------------------------------------------------------------------------------------- */

struct end {
    struct conn *conn;
    bool open, closed;
    enum grey_error why;
    char detail[200];
};

static struct loop *loop;
static struct end ends[2]; /* client, server */

static void on_open(void *context, struct conn *c) {
    struct end *e = context;
    e->conn = c;
    e->open = true;
    if (ends[0].open && ends[1].open) {
        loop_stop(loop);
    }
}

static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    (void)context, (void)c;
    return in.size;
}

static void on_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct end *e = context;
    (void)c;
    e->closed = true;
    e->why = why;
    e->conn = NULL;
    (void)snprintf(e->detail, sizeof e->detail, "%s", detail);
    if (ends[0].closed && ends[1].closed) {
        loop_stop(loop);
    }
}

static const struct conn_events *events_of(void) {
    static const struct conn_events events = {.on_open = on_open, .on_bytes = on_bytes, .on_closed = on_closed};
    return &events;
}

static struct conn_tls *server_tls;

static bool accepted(void *context, struct conn_options *o) {
    (void)context;
    *o = (struct conn_options){.tls = server_tls,
                               .input_limit_bytes = 4096,
                               .output_limit_bytes = 4096,
                               .open_timeout_ms = 60000,
                               .events = events_of(),
                               .context = &ends[1]};
    return true;
}

static void meet(struct conn_tls *client, struct conn_tls *server) {
    struct fault f = {0};
    memset(ends, 0, sizeof ends);
    server_tls = server;
    loop = loop_new(&f);
    assert_non_null(loop);
    struct worker *crypto = worker_new(loop, "crypto", 16, NULL, NULL, &f);
    struct conn_context x = {.loop = loop, .crypto = crypto};
    char address[40];
    struct conn_listener *l = conn_listen(&x, "127.0.0.1:0", accepted, NULL, &f);
    assert_non_null(l);
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", conn_listener_port(l));
    struct conn_options o = {.tls = client,
                             .input_limit_bytes = 4096,
                             .output_limit_bytes = 4096,
                             .open_timeout_ms = 60000,
                             .events = events_of(),
                             .context = &ends[0]};
    ends[0].conn = conn_dial(&x, address, &o, &f);
    assert_non_null(ends[0].conn);
    loop_run(loop);
    conn_close(ends[0].conn);
    conn_close(ends[1].conn);
    conn_listener_close(l);
    worker_stop(crypto);
    loop_free(loop);
}

static void put(const char *name, const struct builder *text) {
    struct fault f = {0};
    char *path = swtpm_text("%s/%s", dir, name);
    assert_int_equal(wholefile_write(path, builder_bytes(text), 0600, &f), E_OK);
    free(path);
}

/* CA and a certificate for the key at this place. */
static void certify(const char *where) {
    struct fault f = {0};
    struct keysign key;
    struct builder ca_key, ca, crt, public_key;
    int64_t now_s = now_wall_ms() / 1000;
    builder_init(&ca_key, 4096), builder_init(&ca, 4096), builder_init(&crt, 4096), builder_init(&public_key, 200);
    assert_int_equal(keys_new_p256(&ca_key, &f), E_OK);
    builder_add_byte(&ca_key, 0);
    struct cert_request q = {
        .subject = "CN=ca", .key_pem = (const char *)ca_key.data, .not_before_s = now_s - 100, .not_after_s = now_s + 10000};
    assert_int_equal(cert_issue(&q, &ca, &f), E_OK);
    put("ca.crt", &ca);
    builder_add_byte(&ca, 0);
    assert_int_equal(keyring_open(where, &key, &f), E_OK);
    assert_int_equal(key.public_key(key.key, &public_key, &f), E_OK);
    keysign_close(&key);
    q = (struct cert_request){.subject = "CN=site",
                              .public_key = builder_bytes(&public_key),
                              .issuer_pem = (const char *)ca.data,
                              .issuer_key_pem = (const char *)ca_key.data,
                              .server = true,
                              .client = true,
                              .not_before_s = now_s - 100,
                              .not_after_s = now_s + 10000};
    assert_int_equal(cert_issue(&q, &crt, &f), E_OK);
    put("node.crt", &crt);
    builder_free(&ca_key), builder_free(&ca), builder_free(&crt), builder_free(&public_key);
}

static struct conn_tls *open_tls(const char *where, struct fault *f) {
    char *ca = swtpm_text("%s/ca.crt", dir), *crt = swtpm_text("%s/node.crt", dir);
    struct conn_tls *t = conn_tls_new(ca, crt, where, f);
    free(ca);
    free(crt);
    return t;
}

/* If this failed, gateways whose keys lie in their TPMs could not talk to each other; or would need the key in memory after all. */
static void handshakes_are_signed_by_the_tpm(void **state) {
    (void)state;
    struct fault f = {0};
    char *where = key_in(0), *other = key_in(1);
    bool made;
    assert_int_equal(keyring_make(where, &made, &f), E_OK);
    assert_int_equal(keyring_make(other, &made, &f), E_OK);
    certify(where);
    struct conn_tls *t = open_tls(where, &f);
    if (!conn_tls_signs_elsewhere()) { /* mbedTLS 3.6 */
        assert_null(t);
        assert_int_equal(f.code, E_VAULT_LIBRARY);
        free(where);
        free(other);
        return;
    }
    if (t == NULL) {
        fail_msg("%s", f.text);
    }
    meet(t, t); /* it signs as client and as server */
    if (!ends[0].open || !ends[1].open) {
        fail_msg("client: %s; server: %s", ends[0].detail, ends[1].detail);
    }
    assert_int_equal(conn_tls_reload(t, &f), E_OK);
    meet(t, t);
    assert_true(ends[0].open && ends[1].open);
    nothing_is_left_in(0);
    assert_null(open_tls(other, &f)); /* the TPM of a thief has a key there, but not this one */
    assert_int_equal(f.code, E_VAULT_OTHER);

    /* The service is gone: the next handshake fails with its name, and all is well when it is back. */
    close_door(0);
    assert_int_equal(conn_tls_reload(t, &f), E_OK); /* a reload does not ask it */
    meet(t, t);
    assert_false(ends[1].open);
    assert_int_equal(ends[1].why, E_VAULT_AWAY);
    assert_null(open_tls(where, &f));
    assert_int_equal(f.code, E_VAULT_AWAY);
    open_door(0);
    meet(t, t);
    assert_true(ends[0].open && ends[1].open);
    conn_tls_free(t);
    free(where);
    free(other);
}

/* If this failed, a key that is sealed to the TPM would do for no TLS library, or one that knows no TPM (3.6) could use none. */
static void a_sealed_key_shakes_hands(void **state) {
    (void)state;
    struct fault f = {0};
    bool made;
    char *where = swtpm_text("tpm:%s/tls.key@%s", dir, doors[0]), *there = swtpm_text("tpm:%s/tls.key@%s", dir, doors[1]);
    assert_int_equal(keyring_make(where, &made, &f), E_OK);
    certify(where);
    struct conn_tls *t = open_tls(where, &f);
    assert_non_null(t);
    meet(t, t);
    assert_true(ends[0].open && ends[1].open);
    conn_tls_free(t);
    assert_null(open_tls(there, &f));
    assert_int_equal(f.code, E_VAULT_OTHER);
    free(where);
    free(there);
}

/* If this failed, one stuck chip would hold up the thread that shakes hands with everybody, for ever. */
static void a_silent_service_is_not_waited_for(void **state) {
    (void)state;
    struct fault f = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t pair[VAULT_PAIR_BYTES];
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/mute", dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    uint64_t began_ms = now_monotonic_ms();
    assert_int_equal(vault_public(address.sun_path, VAULT_HANDLE_TLS, pair, &f), E_VAULT_AWAY);
    assert_non_null(strstr(f.text, "in time"));
    assert_true(now_monotonic_ms() - began_ms >= VAULT_WAIT_MS);
    (void)close(fd);
    assert_int_equal(vault_public("/nonexistent/door", VAULT_HANDLE_TLS, pair, &f), E_VAULT_AWAY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_signed_by_the_tpm),    cmocka_unit_test(other_handles_are_not_lent),
        cmocka_unit_test(a_stolen_disk_is_worth_nothing),    cmocka_unit_test(a_plain_key_is_sealed),
        cmocka_unit_test(handshakes_are_signed_by_the_tpm),  cmocka_unit_test(a_sealed_key_shakes_hands),
        cmocka_unit_test(a_silent_service_is_not_waited_for)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
