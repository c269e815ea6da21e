/* Table attestation: what the verifier keeps of a gateway, and beside it what lists are made by: id of the last refusal (0: none), end of the last
 * result (0: none yet). */
#include "core/store_attest.h"

#include <stdio.h>
#include <string.h>

#include "core/policytext.h"
#include "core/store_backend.h"
#include "core/store_objects.h"
#include "include/grey/must.h"

static struct store_value text(const char *t) {
    return store_bytes(bytes_str(t));
}

enum grey_error store_attest_get(struct store *s, const struct store_gateway *g, struct builder *kept, int64_t *revision,
                                 struct fault *f) {
    const struct store_value in[] = {text(g->site), text(g->node)};
    struct store_rows *rows = NULL;
    bool row = false;
    int64_t site_no = 0;
    bool known = false;
    *revision = 0;
    enum grey_error err = store_row(s, STORE_SITE_FIND, in, 1, &site_no, 1, &known, f);
    if (err != E_OK || !known) {
        return err != E_OK ? err : fault_set(f, E_NOT_FOUND, "the site has never said hello");
    }
    err = s->ops->ask(s, STORE_ATTEST, in, 2, &rows, f);
    err = err != E_OK || rows == NULL ? err : s->ops->next(rows, &row, f);
    if (err == E_OK && row) {
        *revision = s->ops->number(rows, 0);
        builder_add(kept, s->ops->bytes(rows, 1));
        err = kept->err;
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

enum grey_error store_attest_put(struct store *s, const struct store_gateway *g, int64_t revision, struct bytes kept,
                                 int64_t now_ms, enum store_attest_put *done, struct fault *f) {
    const struct store_value key[] = {text(g->site), text(g->node)};
    struct verifier_facts facts;
    int64_t now = 0, count = 0;
    bool found = false, counted = false;
    *done = STORE_ATTEST_STALE;
    enum grey_error err = store_row(s, STORE_ATTEST, key, 2, &now, 1, &found, f);
    if (err != E_OK || now != revision) {
        return err;
    }
    err = found ? E_OK : store_row(s, STORE_ATTEST_COUNT, key, 1, &count, 1, &counted, f);
    if (err != E_OK || count >= STORE_ATTEST_NODES_MAX) {
        *done = STORE_ATTEST_FULL;
        return err;
    }
    must(verifier_look(kept, 0, &facts) == E_OK); /* the verifier wrote it just now */
    *done = STORE_ATTEST_DONE;
    /* Rises also over a gateway that was forgotten, so that who judged by what was kept before finds another one. */
    const struct store_value in[] = {key[0],
                                     key[1],
                                     store_number(revision >= now_ms ? revision + 1 : now_ms),
                                     store_bytes(kept),
                                     store_number(facts.why == E_OK ? 0 : error_id(facts.why)),
                                     store_number(facts.until_ms),
                                     store_number(revision)};
    return s->ops->run(s, STORE_ATTEST_PUT, in, 7, f);
}

enum grey_error store_attest_forget(struct store *s, const struct store_gateway *g, struct fault *f) {
    const struct store_value key[] = {text(g->site), text(g->node)};
    int64_t revision = 0;
    bool found = false;
    enum grey_error err = store_row(s, STORE_ATTEST, key, 2, &revision, 1, &found, f);
    return err != E_OK ? err : !found ? E_NOT_FOUND : s->ops->run(s, STORE_ATTEST_FORGET, key, 2, f);
}

/* --- the policy --------------------------------------------------------------------------------------------------------------------------- */

enum grey_error store_attest_policy(struct store *s, const char *site, uint64_t *serial, struct builder *content, struct fault *f) {
    const struct store_value in[] = {text(site), store_number(OBJECT_POLICY), text(POLICYTEXT_NAME)};
    struct store_object object;
    int64_t version = 0;
    bool found = false;
    enum grey_error err = store_row(s, STORE_ATTEST_POLICY, in, 3, &version, 1, &found, f);
    err = err == E_OK && (!found || version == 0) ? fault_set(f, E_NOT_FOUND, "no policy is in force for it") : err;
    err = err != E_OK ? err : store_object_get(s, OBJECT_POLICY, POLICYTEXT_NAME, (uint64_t)version, &object, content, f);
    *serial = err == E_OK ? object.issue : 0;
    return err;
}

enum grey_error store_attest_has_policy(struct store *s, struct fault *f) {
    const struct store_value in[] = {store_number(OBJECT_POLICY), text(POLICYTEXT_NAME)};
    int64_t target = 0;
    bool found = false;
    enum grey_error err = store_row(s, STORE_AIM, in, 2, &target, 1, &found, f);
    return err != E_OK ? err : found ? E_OK : E_NOT_FOUND;
}

enum grey_error store_attest_policy_failed(struct store *s, const char *site, uint64_t serial, struct fault *f) {
    const struct store_value in[] = {text(site), store_number(OBJECT_POLICY), text(POLICYTEXT_NAME), store_number((int64_t)serial)};
    return s->ops->run(s, STORE_HOLDING_FAILED, in, 4, f);
}

/* --- lists -------------------------------------------------------------------------------------------------------------------------------- */

/* What runs there, where a log of starts told it. */
static void put_measured(struct json_writer *w, struct bytes kept) {
    static const uint8_t nothing[DIGEST_SHA256_BYTES];
    struct attested a;
    char text[20];
    if (!verifier_measured(kept, &a)) {
        return;
    }
    json_member_uint(w, "policy_serial", a.policy_serial);
    if (a.pcr_mask != 0) {
        json_member_id(w, "firmware", a.firmware);
        json_member_open(w, "registers", '{');
        for (unsigned pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
            if ((a.pcr_mask >> pcr & 1u) != 0) {
                (void)snprintf(text, sizeof text, "%u", pcr);
                json_member_hex(w, text, bytes_of(a.pcr[pcr], DIGEST_SHA256_BYTES));
            }
        }
        json_close(w);
    }
    if (memcmp(a.program, nothing, sizeof nothing) != 0) {
        json_member_hex(w, "program", bytes_of(a.program, DIGEST_SHA256_BYTES));
        json_member_hex(w, "config", bytes_of(a.config, DIGEST_SHA256_BYTES));
    }
}

static void put_gateway(struct json_writer *w, const struct store_attest_query *q, struct bytes site, struct bytes node,
                        struct bytes kept) {
    struct verifier_facts facts;
    char why[16];
    enum grey_error err = verifier_look(kept, q->now_ms, &facts);
    json_open(w, '{');
    json_member_text(w, "site", site);
    json_member_text(w, "node", node);
    if (err != E_OK) {
        facts = (struct verifier_facts){.state = VERIFIER_FAILED, .why = err, .detail = bytes_str("what is kept cannot be read")};
    }
    json_member_str(w, "state", verifier_state_name(facts.state));
    json_member_str(w, "type", attest_type_name(facts.type));
    store_put_time_if(w, "judged", facts.judged_ms);
    store_put_time_if(w, "until", facts.until_ms);
    json_key(w, "why");
    if (facts.why == E_OK) {
        json_none(w);
    } else {
        (void)snprintf(why, sizeof why, "GREY-%d", error_id(facts.why));
        json_str(w, why);
    }
    json_member_text(w, "detail", facts.detail);
    put_measured(w, kept);
    json_close(w);
}

enum grey_error store_attest_list(struct store *s, const struct store_attest_query *q, struct json_writer *w, uint32_t *count,
                                  struct fault *f) {
    const struct store_value in[] = {
        text(q->site),       text(q->node),       store_number(q->site[0] == 0), store_number(q->node[0] == 0),
        text(q->after_site), text(q->after_node), store_number(q->limit)};
    struct store_rows *rows = NULL;
    bool row = false;
    *count = 0;
    enum grey_error err = s->ops->ask(s, STORE_ATTESTS, in, 7, &rows, f);
    json_open(w, '[');
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        put_gateway(w, q, s->ops->bytes(rows, 0), s->ops->bytes(rows, 1), s->ops->bytes(rows, 2));
        ++*count;
    }
    json_close(w);
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}

enum grey_error store_attest_each(struct store *s, void (*each)(void *context, struct bytes kept), void *context, struct fault *f) {
    const struct store_value in[] = {text(""), text(""), store_number(1),        store_number(1),
                                     text(""), text(""), store_number(INT32_MAX)};
    struct store_rows *rows = NULL;
    bool row = false;
    enum grey_error err = s->ops->ask(s, STORE_ATTESTS, in, 7, &rows, f);
    while (rows != NULL && err == E_OK && (err = s->ops->next(rows, &row, f)) == E_OK && row) {
        each(context, s->ops->bytes(rows, 2));
    }
    if (rows != NULL) {
        s->ops->end(rows);
    }
    return err;
}
