/* greyctl's verbs and its calls.  If an code code or a remedy were wrong, scripts would go on after a failure and people would search in
 * the wrong place. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ctl/verbs.h"

static const struct verb *find(const char *a, const char *b, unsigned *used) {
    const char *const words[] = {a, b};
    return verbs_find(words, b == NULL ? 1 : 2, used);
}

static void longest_verb_wins(void **state) {
    (void)state;
    unsigned used;
    assert_string_equal(find("kv", "put", &used)->name, "kv put");
    assert_int_equal(used, 2);
    assert_string_equal(find("status", "x", &used)->name, "status");
    assert_int_equal(used, 1);
    assert_string_equal(find("attest", "status", &used)->name, "attest status");
    assert_string_equal(find("top", "x", &used)->name, "top");
    assert_null(find("kv", NULL, &used));
    assert_null(find("kv", "pu", &used));
    assert_null(find("statu", NULL, &used));
    assert_int_equal(used, 0);
    assert_string_equal(verbs_nearest("stauts"), "status");
    assert_string_equal(verbs_nearest("kv pot"), "kv put");
}

/* Every verb of the contract is known, so that nobody is told "no such verb" for what a later version brings. */
static void verbs_of_the_contract_are_known(void **state) {
    (void)state;
    static const char *const now[][2] = {{"status", NULL},
                                         {"alive", NULL},
                                         {"cluster", "status"},
                                         {"cluster", "members"},
                                         {"cluster", "leader"},
                                         {"member", "add"},
                                         {"member", "remove"},
                                         {"kv", "get"},
                                         {"kv", "put"},
                                         {"kv", "del"},
                                         {"kv", "list"},
                                         {"kv", "watch"},
                                         {"event", "send"},
                                         {"event", "tail"},
                                         {"queue", NULL},
                                         {"snapshot", "create"},
                                         {"snapshot", "list"},
                                         {"snapshot", "restore"},
                                         {"federation", "status"},
                                         {"doctor", NULL},
                                         {"explain", NULL},
                                         {"config", "show"},
                                         {"config", "check"},
                                         {"completion", NULL},
                                         {"site", "list"},
                                         {"site", "show"},
                                         {"site", "events"},
                                         {"audit", NULL},
                                         {"audit", "verify"},
                                         {"task", "submit"},
                                         {"task", "list"},
                                         {"task", "show"},
                                         {"task", "cancel"},
                                         {"task", "logs"},
                                         {"tenant", "list"},
                                         {"tenant", "show"},
                                         {"tenant", "set"},
                                         {"link", "status"},
                                         {"link", "try"},
                                         {"link", "test"},
                                         {"link", "budget"},
                                         {"site", "label"},
                                         {"config", "set"},
                                         {"config", "get"},
                                         {"config", "rollout"},
                                         {"policy", "set"},
                                         {"policy", "get"},
                                         {"enroll", "token"},
                                         {"enroll", "revoke"},
                                         {"task", "proof"},
                                         {"attest", "list"},
                                         {"attest", "show"},
                                         {"attest", "forget"},
                                         {"attest", "policy"},
                                         {"enroll", "register"},
                                         {"enroll", "registered"},
                                         {"enroll", "unregister"},
                                         {"attest", "status"},
                                         {"attest", "now"},
                                         {"store", "status"},
                                         {"store", "accept"},
                                         {"update", "push"},
                                         {"update", "status"}};
    static const char *const later[][2] = {{"replay", NULL},         {"site", "recover"},      {"federation", "agree"},
                                           {"federation", "revoke"}, {"support-bundle", NULL}, {"top", NULL}};
    unsigned used;
    for (size_t i = 0; i < sizeof now / sizeof now[0]; i++) {
        const struct verb *v = find(now[i][0], now[i][1], &used);
        assert_non_null(v);
        assert_true(v->run != NULL);
    }
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        const struct verb *v = find(later[i][0], later[i][1], &used);
        assert_non_null(v);
        assert_null(v->run);
    }
}

static void help_and_completion_know_all(void **state) {
    (void)state;
    static const char *const shells[] = {"bash", "zsh", "fish"};
    size_t count;
    const struct verb *all = verbs(&count);
    struct builder help, script;
    builder_init(&help, 1u << 20);
    help_all(&help);
    builder_add_byte(&help, 0);
    for (size_t i = 0; i < count; i++) {
        assert_non_null(strstr((const char *)help.data, all[i].name));
        assert_true(all[i].args_min <= all[i].args_max && all[i].args_max <= VERB_ARGS_MAX);
        for (size_t k = 0; k < VERB_OPTIONS_MAX && all[i].options[k].name != NULL; k++) {
            assert_non_null(all[i].options[k].help);
            for (size_t g = 0; g < verbs_global_count; g++) {
                assert_string_not_equal(all[i].options[k].name, verbs_global[g].name);
            }
        }
    }
    builder_free(&help);
    for (size_t s = 0; s < 3; s++) {
        builder_init(&script, 1u << 20);
        assert_int_equal(help_completion(shells[s], &script), E_OK);
        builder_add_byte(&script, 0);
        assert_non_null(strstr((const char *)script.data, "watch"));
        assert_non_null(strstr((const char *)script.data, "if-absent"));
        assert_null(strstr((const char *)script.data, "support-bundle")); /* what does not work is not offered */
        builder_free(&script);
    }
    builder_init(&script, 1000);
    assert_int_equal(help_completion("tcsh", &script), E_USAGE);
    builder_free(&script);
}

/* A key with blanks, slashes and signs must reach the node as it was typed. */
static void paths_are_encoded(void **state) {
    (void)state;
    struct builder out;
    builder_init(&out, 1000);
    client_encode(&out, bytes_str("a b/c?d%e&\xc3\xbc"), false);
    builder_add_byte(&out, ' ');
    client_encode(&out, bytes_str("a/b"), true);
    builder_add_byte(&out, 0);
    assert_string_equal((const char *)out.data, "a%20b/c%3Fd%25e%26%C3%BC a%2Fb");
    builder_free(&out);
}

/* --- against a server that says what we want ------------------------------------------------------------------------------------------ */

struct server {
    int listener;
    const char *answer;
    char path[108], address[128];
    pthread_t thread;
};

static void *serve(void *context) {
    struct server *s = context;
    char request[4096];
    int fd = accept(s->listener, NULL, NULL);
    if (fd >= 0) {
        if (recv(fd, request, sizeof request, 0) > 0 && send(fd, s->answer, strlen(s->answer), MSG_NOSIGNAL) < 0) {
            perror("send");
        }
        (void)close(fd);
    }
    return NULL;
}

static void server_start(struct server *s, const char *answer) {
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    (void)snprintf(s->path, sizeof s->path, "/tmp/test_verbs.%d.sock", (int)getpid());
    (void)snprintf(s->address, sizeof s->address, "unix:%s", s->path);
    (void)unlink(s->path);
    memcpy(u.sun_path, s->path, sizeof u.sun_path);
    s->answer = answer;
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (const struct sockaddr *)&u, sizeof u), 0);
    assert_int_equal(listen(s->listener, 1), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s) {
    (void)pthread_join(s->thread, NULL);
    (void)close(s->listener);
    (void)unlink(s->path);
}

static int ask(const char *answer, struct client_problem *p, json_t **doc) {
    struct server s;
    server_start(&s, answer);
    struct client c = {.address = {s.address, NULL}, .timeout_ms = 5000};
    memset(p, 0, sizeof *p);
    int code = client_get(&c, CLIENT_NODE, "/v1/queue", doc, NULL, p);
    server_stop(&s);
    return code;
}

static void exit_codes_tell_what_happened(void **state) {
    (void)state;
    struct client_problem p;
    json_t *doc;
    assert_int_equal(ask("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}", &p, &doc), CTL_OK);
    assert_int_equal(verbs_uint(doc, "a"), 1);
    json_decref(doc);
    assert_int_equal(ask("HTTP/1.1 503 X\r\nConnection: close\r\n\r\n{\"type\":\"/errors/GREY-1001\",\"title\":\"too "
                         "few\",\"detail\":\"d\",\"remedy\":\"r\"}",
                         &p, &doc),
                     CTL_NO_QUORUM);
    assert_string_equal(p.id, "GREY-1001");
    assert_string_equal(p.title, "too few");
    assert_string_equal(p.detail, "d");
    assert_string_equal(p.remedy, "r");
    assert_null(doc);
    assert_int_equal(ask("HTTP/1.1 504 X\r\nConnection: close\r\n\r\n{\"type\":\"/errors/GREY-1003#outcome-unknown\"}", &p, &doc),
                     CTL_NO_QUORUM);
    assert_string_equal(p.id, "GREY-1003");
    assert_int_equal(ask("HTTP/1.1 507 X\r\nConnection: close\r\n\r\n{\"type\":\"/errors/GREY-1005\"}", &p, &doc), CTL_REFUSED);
    assert_int_equal(p.http_status, 507);
    assert_int_equal(ask("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n<html>", &p, &doc), CTL_REFUSED);
    assert_string_equal(p.id, "");
    assert_int_equal(ask("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>", &p, &doc), CTL_FAILED); /* some other web server */
    assert_int_equal(ask("SSH-2.0-OpenSSH\r\n", &p, &doc), CTL_FAILED);
    struct client nobody = {.address = {"unix:/nonexistent/greyd.sock", NULL}, .timeout_ms = 1000};
    assert_int_equal(client_get(&nobody, CLIENT_NODE, "/", &doc, NULL, &p), CTL_FAILED);
    assert_int_equal(p.http_status, 0);
    assert_true(p.remedy[0] != 0 && strstr(p.detail, "/nonexistent/greyd.sock") != NULL);
    nobody.address[CLIENT_NODE] = "ftp://x";
    assert_int_equal(client_get(&nobody, CLIENT_NODE, "/", &doc, NULL, &p), CTL_USAGE);
}

/* The order that docs/ARCHITECTURE.md states: option, environment, then the usual place. */
static void addresses_are_searched_in_order(void **state) {
    (void)state;
    struct client_problem p;
    struct client c = {.address = {"unix:/option", NULL}};
    assert_int_equal(setenv("GREY_ADDR", "http://127.0.0.1:1", 1), 0);
    assert_string_equal(client_address(&c, CLIENT_NODE, &p), "unix:/option");
    c.address[CLIENT_NODE] = NULL;
    assert_string_equal(client_address(&c, CLIENT_NODE, &p), "http://127.0.0.1:1");
    assert_int_equal(unsetenv("GREY_ADDR") + unsetenv("GREY_CORE"), 0);
    assert_string_equal(client_address(&c, CLIENT_CORE, &p), "http://127.0.0.1:8080");
    c.address[CLIENT_CORE] = NULL;
    assert_int_equal(setenv("GREY_CORE", "http://core:1", 1), 0);
    assert_string_equal(client_address(&c, CLIENT_CORE, &p), "http://core:1");
    assert_int_equal(unsetenv("GREY_CORE"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(longest_verb_wins),
                                       cmocka_unit_test(verbs_of_the_contract_are_known),
                                       cmocka_unit_test(help_and_completion_know_all),
                                       cmocka_unit_test(paths_are_encoded),
                                       cmocka_unit_test(exit_codes_tell_what_happened),
                                       cmocka_unit_test(addresses_are_searched_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
