#include "agent/state/standing.h"

#include <string.h>

const char *standing_name(enum standing s) {
    static const char *const names[] = {"none", "pending", "trusted", "failed", "expired"};
    return names[s];
}

const struct standing_of *standing_find(const struct standings *s, raft_id id) {
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->at[i].id == id) {
            return &s->at[i];
        }
    }
    return NULL;
}

static void say_why(struct standing_of *s, enum grey_error why, const char *detail) {
    size_t size = strlen(detail) < sizeof s->detail ? strlen(detail) : sizeof s->detail - 1;
    s->why = why;
    memcpy(s->detail, detail, size);
    s->detail[size] = 0;
}

/* The result of m's row, as far as it holds here. */
static enum standing judge_result(const struct verdicts_row *v, const char *site, const struct raft_member *m, const uint8_t *key,
                                  int64_t now_s, struct standing_of *s) {
    struct verdict result;
    struct fault f = {.text = ""};
    uint8_t keys[1][KEYS_ED25519_PUBLIC_BYTES];
    memcpy(keys[0], key, sizeof keys[0]);
    enum grey_error err = verdict_open(v->result, (const uint8_t(*)[KEYS_ED25519_PUBLIC_BYTES])keys, 1, now_s, &result, &f);
    if (err != E_OK && err != E_ATTEST_EXPIRED) {
        say_why(s, err, f.text);
        return STANDING_PENDING;
    }
    if (result.who.raft_id != m->id || !bytes_equal_str(result.who.site, site) || !bytes_equal_str(result.who.node, m->node.text) ||
        memcmp(result.who.signing_key, m->sign_key, sizeof result.who.signing_key) != 0) {
        say_why(s, E_ATTEST_RESULT, "it is of another gateway than the member of this name");
        return STANDING_PENDING;
    }
    s->type = result.type;
    s->status = result.status;
    s->from_s = result.from_s;
    s->until_s = result.until_s;
    s->policy_serial = result.policy_serial;
    if (err == E_ATTEST_EXPIRED) {
        say_why(s, err, f.text);
    }
    return err == E_OK ? STANDING_TRUSTED : STANDING_EXPIRED;
}

static void judge(struct table *t, const char *site, const struct raft_member *m, const uint8_t *key, int64_t now_s,
                  struct standing_of *s) {
    struct verdicts_row v;
    *s = (struct standing_of){.id = m->id, .standing = STANDING_NONE};
    if (!verdicts_find(t, m->node.text, &v)) {
        return;
    }
    s->standing = STANDING_PENDING;
    if (v.id != m->id || key == NULL) {
        return;
    }
    if (v.result.size > 0) {
        s->standing = judge_result(&v, site, m, key, now_s, s);
    }
    /* from_s: of a result that holds, or 0 */
    if (v.failed || (v.since != 0 && s->from_s <= v.refused_ms / 1000)) {
        s->standing = STANDING_FAILED;
        s->since = v.since;
        s->refused_ms = v.refused_ms;
        say_why(s, verdicts_why(v.number), v.detail);
    }
}

/* Who comes first into quarantine: the refused before the expired, the earlier before the later. */
static bool comes_before(const struct standing_of *a, const struct standing_of *b) {
    if (a->standing != b->standing) {
        return a->standing == STANDING_FAILED;
    }
    if (a->standing == STANDING_FAILED && a->since != b->since) {
        return a->since < b->since;
    }
    return a->standing == STANDING_EXPIRED && a->until_s != b->until_s ? a->until_s < b->until_s : a->id < b->id;
}

static void put_in_quarantine(struct standings *s) {
    for (uint32_t room = s->count > 0 ? (s->count - 1) / 2 : 0; room > 0; room--) {
        struct standing_of *first = NULL;
        for (uint32_t i = 0; i < s->count; i++) {
            struct standing_of *one = &s->at[i];
            bool wanted = !one->quarantined && (one->standing == STANDING_FAILED || one->standing == STANDING_EXPIRED);
            first = wanted && (first == NULL || comes_before(one, first)) ? one : first;
        }
        if (first == NULL) {
            return;
        }
        first->quarantined = true;
    }
}

void standing_judge(struct table *t, const char *site, const struct raft_members *members,
                    const uint8_t key[KEYS_ED25519_PUBLIC_BYTES], int64_t now_s, struct standings *out) {
    out->count = members->count;
    out->change_s = INT64_MAX;
    for (uint32_t i = 0; i < members->count; i++) {
        judge(t, site, &members->at[i], key, now_s, &out->at[i]);
        if (out->at[i].standing == STANDING_TRUSTED && out->at[i].until_s < out->change_s) {
            out->change_s = out->at[i].until_s;
        }
    }
    put_in_quarantine(out);
}
