/* Verbs about the core's store: is it an older copy of itself, and the operator's word that he knows. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl/verbs.h"

int kept_status(struct call *c) {
    static const char *const titles[] = {"SITE", "WHO REMEMBERS MORE", "STORE", "THERE", "FOUND", "ACCEPTED"};
    static const char *const whos[][2] = {{"mark", "the CA's directory"},
                                          {"list", "the CA's list of revoked"},
                                          {"issue", "the site: what it was given"},
                                          {"events", "the site: what it has freed"}};
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    size_t i;
    const json_t *k;
    if (verbs_get(c, CLIENT_CORE, "/v1/store", &doc, &code)) {
        return code;
    }
    const json_t *all = json_object_get(doc, "restored");
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, sizeof titles / sizeof titles[0]);
    json_array_foreach(all, i, k) {
        const char *site = verbs_text(k, "site"), *who = verbs_text(k, "evidence"), *accepted = verbs_text(k, "accepted");
        char number[24];
        for (size_t w = 0; w < sizeof whos / sizeof whos[0]; w++) {
            who = strcmp(who, whos[w][0]) == 0 ? whos[w][1] : who;
        }
        render_cell(&t, site[0] != 0 ? site : "(all)");
        render_cell(&t, who);
        (void)snprintf(number, sizeof number, "%" PRIu64, verbs_uint(k, "known"));
        render_cell(&t, number);
        (void)snprintf(number, sizeof number, "%" PRIu64, verbs_uint(k, "held"));
        render_cell(&t, number);
        render_cell(&t, verbs_text(k, "found"));
        render_cell(&t, accepted[0] != 0 ? accepted : "no");
    }
    if (json_array_size(all) == 0) {
        builder_free(&t.cells);
        builder_add_str(&out, "the core's store was never found to be an older copy of itself\n");
    } else {
        render_table_end(&t, &out);
    }
    json_decref(doc);
    return verbs_print(&out);
}

int kept_accept(struct call *c) {
    struct client_request q = {.side = CLIENT_CORE, .method = "POST", .path = "/v1/store/accept"};
    struct http_answer a;
    int code = client_call(&c->client, &q, &a, &c->problem);
    builder_free(&a.body);
    if (code != CTL_OK) {
        return client_complain(&c->problem);
    }
    (void)printf("the older copy counts; its policies go out again, and boards that were registered may come in\n");
    return CTL_OK;
}
