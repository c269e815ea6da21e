/* Verbs about the core's store: is it an older copy of itself, and the operator's word that he knows. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl/listing.h"

static void put_site(struct render_table *t, const json_t *row, const char *name, bool wide) {
    const char *site = verbs_text(row, name);
    (void)wide;
    render_cell(t, site[0] != 0 ? site : "(all)");
}

static void put_who(struct render_table *t, const json_t *row, const char *name, bool wide) {
    static const char *const whos[][2] = {{"mark", "the CA's directory"},
                                          {"list", "the CA's list of revoked"},
                                          {"issue", "the site: what it was given"},
                                          {"events", "the site: what it has freed"}};
    const char *who = verbs_text(row, name);
    (void)wide;
    for (size_t i = 0; i < sizeof whos / sizeof whos[0]; i++) {
        who = strcmp(who, whos[i][0]) == 0 ? whos[i][1] : who;
    }
    render_cell(t, who);
}

static void put_number(struct render_table *t, const json_t *row, const char *name, bool wide) {
    (void)wide;
    render_cellf(t, "%" PRIu64, verbs_uint(row, name));
}

static void put_accepted(struct render_table *t, const json_t *row, const char *name, bool wide) {
    const char *accepted = verbs_text(row, name);
    (void)wide;
    render_cell(t, accepted[0] != 0 ? accepted : "no");
}

int kept_status(struct call *c) {
    static const struct listing_column columns[] = {LISTING_BY("SITE", "site", put_site),
                                                    LISTING_BY("WHO REMEMBERS MORE", "evidence", put_who),
                                                    LISTING_BY("STORE", "known", put_number),
                                                    LISTING_BY("THERE", "held", put_number),
                                                    LISTING("FOUND", "found"),
                                                    LISTING_BY("ACCEPTED", "accepted", put_accepted)};
    static const struct listing l = {.columns = columns,
                                     .count = sizeof columns / sizeof columns[0],
                                     .rows = "restored",
                                     .none = "the core's store was never found to be an older copy of itself\n"};
    return listing_get(c, CLIENT_CORE, "/v1/store", &l);
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
