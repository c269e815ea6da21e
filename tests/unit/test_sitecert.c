/* Neighbours that vouch, as greyd does it: if this failed, a site whose gateways keep their keys in TPMs, or which saw many gateways come and go, would fall
 * apart a few weeks after the core went away.  With a software TPM, the grey-tpm of this build, and a site's log that is played by this test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/identity/sitecert.h"
#include "agent/node/node.h"
#include "agent/store/rowset.h"
#include "core/authority.h"
#include "federation/certify.h"
#include "platform/keyring.h"
#include "platform/now.h"
#include "platform/vault.h"
#include "platform/vouch.h"
#include "platform/wholefile.h"
#include "tests/unit/swtpm_rig.h"

#define DAY_S INT64_C(86400)
#define ROWS_MAX 128u
#define PATIENCE_MS 60000u /* on a machine that is busy */

static struct swtpm machine;
static pid_t keeper;
static char *grey_tpm, *door;
static struct authority ca;
static struct loop *loop;

/* --- the site's log ------------------------------------------------------------------------------------------------------------------------- */

static struct {
    char key[96];
    char *text; /* version: its number here, from 1 */
} rows[ROWS_MAX];
static uint32_t row_count;
static struct raft_members members;
static char *written; /* under the name of b */

static void put_row(const char *name, const char *text) {
    assert_true(row_count < ROWS_MAX);
    (void)snprintf(rows[row_count].key, sizeof rows[0].key, CERTIFY_KEY_CERTIFICATE "%s", name);
    rows[row_count++].text = swtpm_text("%s", text);
}

static void put_member(raft_id id, const char *name) {
    struct raft_member m = {.id = id, .voter = true};
    (void)snprintf(m.node.text, sizeof m.node.text, "%s", name);
    assert_int_equal(raft_members_put(&members, &m), E_OK);
}

struct state *node_state(struct node *n) {
    (void)n;
    return NULL;
}

bool state_site(const struct state *s, struct site_facts *out) {
    (void)s;
    *out = (struct site_facts){.feature_level = FEATURE_LEVEL_VOUCH};
    return true;
}

void node_raft_status(const struct node *n, struct raft_status *s) {
    (void)n;
    *s = (struct raft_status){.members = &members};
}

enum table_found state_kv(struct state *s, struct bytes key, struct kv_row *out) {
    (void)s;
    for (uint32_t i = 0; i < row_count; i++) {
        if (bytes_equal_str(key, rows[i].key)) {
            *out = (struct kv_row){.version = i + 1};
            return TABLE_FOUND;
        }
    }
    return TABLE_ABSENT;
}

void node_fetch_rows(struct node *n, struct builder *wants, node_done *done, void *context) {
    struct bytes all = builder_bytes(wants), key;
    enum table_id id;
    uint32_t count = 0;
    (void)n;
    assert_int_equal(wants->err, E_OK);
    while (rowset_want_next(&all, &id, &key)) {
        assert_int_equal(id, TABLE_KV);
        count++;
    }
    assert_int_equal(all.size, 0);
    assert_int_equal(count, LIMIT_MEMBERS - 1); /* one name stands there twice */
    builder_free(wants);
    done(context, &(struct node_answer){.err = E_OK});
}

static void put_value(struct builder *out, const char *text) {
    builder_init(out, 65536);
    payload_kv(out, false, bytes_str("k"), KV_ALWAYS, 0, bytes_str("application/pem-certificate-chain"), bytes_str(text));
}

void node_payload(struct node *n, raft_index index, node_payload_done *done, void *context) {
    struct builder b;
    (void)n;
    assert_true(index > 0 && index <= row_count);
    put_value(&b, rows[index - 1].text);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    done(context, E_OK, "", payload);
    blob_unref(payload);
}

void node_propose(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, node_done *done, void *context) {
    struct bytes type, value;
    (void)n, (void)urgent;
    assert_int_equal(kind, ENTRY_KV);
    assert_true(payload_kv_value(blob_bytes(payload), &type, &value));
    if (bytes_equal_str(payload_kv_key(blob_bytes(payload)), CERTIFY_KEY_CERTIFICATE "b")) {
        assert_null(written);
        written = swtpm_text("%.*s", (int)value.size, (const char *)value.data);
        loop_stop(loop);
    }
    done(context, &(struct node_answer){.err = E_OK});
}

/* --- a gateway a, whose key lies here or there, and b, which is due ------------------------------------------------------------------------- */

static void put_file(const char *name, const char *text) {
    struct fault f = {0};
    char *path = swtpm_text("%s/%s", machine.folder, name);
    assert_int_equal(wholefile_write(path, bytes_str(text), 0600, &f), E_OK);
    free(path);
}

/* What the core gave so many days ago, for 30 days: own and delegation, with a NUL. */
static void certify(const char *where, const char *node, int64_t days_ago, struct builder *own, struct builder *delegation) {
    struct fault f = {0};
    struct builder request, given;
    struct csr_facts asked;
    struct keysign key;
    bool made;
    int64_t then_s = now_wall_ms() / 1000 - days_ago * DAY_S;
    builder_init(&request, CSR_PEM_BYTES_MAX), builder_init(&given, 16384);
    builder_init(own, 16384), builder_init(delegation, 16384);
    assert_int_equal(keyring_make(where, &made, &f), E_OK);
    assert_int_equal(keyring_open(where, &key, &f), E_OK);
    assert_int_equal(csr_make("plant", node, &key, &request, &f), E_OK);
    keysign_close(&key);
    assert_int_equal(csr_read(builder_bytes(&request), &asked, &f), E_OK);
    assert_int_equal(authority_sign(&ca, &asked, then_s, 30 * DAY_S, &given, &f), E_OK);
    assert_int_equal(authority_delegate(&ca, &asked, then_s, 30 * DAY_S, &given, &f), E_OK);
    builder_add_byte(&given, 0);
    assert_int_equal(vouch_split((const char *)given.data, own, delegation, &f), E_OK);
    builder_add_byte(own, 0);
    builder_add_byte(delegation, 0);
    builder_free(&request);
    builder_free(&given);
}

static void give_up(void *context) {
    (void)context;
    loop_stop(loop);
}

static void vouches_with(const char *where) {
    struct fault f = {0};
    struct builder own, delegation, others, nothing;
    char *theirs = swtpm_text("%s/b.key", machine.folder), *cert = swtpm_text("%s/node.crt", machine.folder),
         *root = swtpm_text("%s/ca.crt", machine.folder), *trust = swtpm_text("%s/trust.pem", machine.folder);
    certify(where, "a", 5, &own, &delegation);
    put_file("node.crt", (const char *)own.data);
    put_file("delegation.crt", (const char *)delegation.data);
    certify(theirs, "b", 25, &others, &nothing);
    put_row("a", (const char *)own.data);
    for (int i = 0; i < 100; i++) { /* gateways of former times, which stand before b, and are members no more */
        char *name = swtpm_text("a%03d", i);
        put_row(name, "of former times");
        free(name);
    }
    put_row("b", (const char *)others.data);

    loop = loop_new(&f);
    assert_non_null(loop);
    struct worker *crypto = worker_new(loop, "crypto", 16, NULL, NULL, &f);
    assert_non_null(crypto);
    struct conn_context x = {.loop = loop, .crypto = crypto};
    struct sitecert_options o = {.site = "plant",
                                 .node = "a",
                                 .data_dir = machine.folder,
                                 .ca_path = root,
                                 .cert_path = cert,
                                 .key_path = where,
                                 .trust_path = trust};
    struct loop_timer patience = {.fire = give_up};
    struct sitecert *s = sitecert_new(&x, &o, NULL, &f);
    assert_non_null(s);
    loop_timer_after(loop, &patience, PATIENCE_MS);
    sitecert_changed(s);
    loop_run(loop);
    sitecert_stop(s);
    worker_stop(crypto);
    sitecert_free(s);
    loop_timer_cancel(loop, &patience);
    loop_free(loop);

    struct vouch_facts v;
    assert_non_null(written); /* else nobody vouched for b */
    assert_int_equal(vouch_read(written, (const char *)ca.bundle.data, &v, &f), E_OK);
    assert_true(v.by_site);
    assert_string_equal(v.shown.uri, "grey://plant/b");
    assert_int_equal(cert_verify(written, (const char *)ca.bundle.data, &f), E_OK);

    while (row_count > 0) {
        free(rows[--row_count].text);
    }
    free(written);
    written = NULL;
    builder_free(&own), builder_free(&delegation), builder_free(&others), builder_free(&nothing);
    free(theirs), free(cert), free(root), free(trust);
}

static void a_key_in_a_file_vouches(void **state) {
    (void)state;
    char *where = swtpm_text("%s/a.key", machine.folder);
    vouches_with(where);
    free(where);
}

static void a_key_that_is_sealed_vouches(void **state) {
    (void)state;
    char *where = swtpm_text("tpm:%s/sealed.key@%s", machine.folder, door);
    vouches_with(where);
    free(where);
}

static void a_key_at_a_handle_vouches(void **state) {
    (void)state;
    char *where = swtpm_text("tpm:0x%08x@%s", VAULT_HANDLE_TLS, door);
    vouches_with(where);
    free(where);
}

static int set_up(void **state) {
    (void)state;
    char *path = realpath("/proc/self/exe", NULL);
    assert_non_null(path);
    *strstr(path, "/tests/test_sitecert") = 0;
    grey_tpm = swtpm_text("%s/grey-tpm", path);
    free(path);
    swtpm_start(&machine);
    door = swtpm_text("%s/door", machine.folder);
    keeper = fork();
    if (keeper == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) { /* it tells what it refuses */
            _exit(127);
        }
        execl(grey_tpm, grey_tpm, "--tpm", machine.way, "--socket", door, "serve", NULL);
        _exit(127);
    }
    assert_true(keeper > 0);
    for (int tries = 0; access(door, F_OK) != 0; tries++) {
        assert_true(tries < 1000);
        (void)usleep(10000);
    }
    assert_int_equal(authority_init(machine.folder, NULL), E_OK);
    assert_int_equal(authority_open(machine.folder, &ca, NULL), E_OK);
    put_member(1, "a"); /* as many as may be, and one name twice, while a wiped gateway takes its former self's place */
    put_member(2, "b");
    put_member(3, "b");
    for (raft_id id = 4; id <= LIMIT_MEMBERS; id++) {
        char *name = swtpm_text("c%u", (unsigned)id);
        put_member(id, name);
        free(name);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    authority_close(&ca);
    (void)kill(keeper, SIGKILL);
    assert_int_equal(waitpid(keeper, NULL, 0), keeper);
    swtpm_stop(&machine);
    swtpm_remove_authority();
    free(door);
    free(grey_tpm);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_in_a_file_vouches),
        cmocka_unit_test(a_key_that_is_sealed_vouches),
        cmocka_unit_test(a_key_at_a_handle_vouches),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
