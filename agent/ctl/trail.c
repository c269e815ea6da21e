/* Verbs about the site's log: what stands in it, and whether it is what was sealed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ctl/verbs.h"
#include "federation/raft/entries.h"
#include "federation/seal.h"

#define PAGE_ENTRIES 1000u
#define LAST_SHOWN 20u

static void put_what(struct render_table *t, const json_t *e) {
    const json_t *ids = json_object_get(e, "ids");
    const char *method = json_string_value(json_object_get(e, "method")), *token = json_string_value(json_object_get(e, "token"));
    const char *key = json_string_value(json_object_get(e, "key")), *first = json_string_value(json_array_get(ids, 0));
    if (method != NULL) {
        render_cellf(t, "%.8s %.60s", method, verbs_text(e, "path"));
    } else if (token != NULL) {
        render_cellf(t, "%s %.8s", json_is_true(json_object_get(e, "revoked")) ? "revoked" : "granted", token);
    } else if (key != NULL) {
        render_cellf(t, "key %.60s", key);
    } else if (first != NULL) {
        size_t count = (size_t)verbs_uint(e, "events");
        render_cellf(t, count > 1 ? "%.40s and %zu more" : "%.40s", first, count - 1);
    } else {
        render_cell(t, "");
    }
}

/* Who asked, and from where; "-" for what the site does by itself. */
static void put_by(struct render_table *t, const json_t *e) {
    const json_t *by = json_object_get(e, "by");
    if (json_is_object(by)) {
        render_cellf(t, "%.60s (%s) from %.60s via %.64s", verbs_text(by, "who"), verbs_text(by, "role"), verbs_text(by, "address"),
                     verbs_text(by, "gateway"));
    } else {
        render_cell(t, NULL);
    }
}

static bool put_path(struct call *c, char *path, size_t size) {
    json_t *status;
    uint64_t from, to, limit;
    const char *type = verbs_option(c, "type");
    if (!verbs_number(c, "from", 1, INT64_MAX, 0, &from) || !verbs_number(c, "to", 1, INT64_MAX, 0, &to) ||
        !verbs_number(c, "limit", 1, PAGE_ENTRIES, 100, &limit)) {
        return false;
    }
    if (from == 0 && to == 0 && client_get(&c->client, CLIENT_NODE, "/v1/raft/status", &status, NULL, &c->problem) == CTL_OK) {
        uint64_t applied = verbs_uint(status, "applied_index"), first = verbs_uint(json_object_get(status, "log"), "first_index");
        from = applied >= first + LAST_SHOWN && type == NULL ? applied - LAST_SHOWN + 1 : first;
        json_decref(status);
    }
    struct builder b;
    builder_init(&b, size);
    builder_addf(&b, "/v1/audit?limit=%" PRIu64, limit);
    if (from > 0) {
        builder_addf(&b, "&from=%" PRIu64, from);
    }
    if (to > 0) {
        builder_addf(&b, "&to=%" PRIu64, to);
    }
    if (type != NULL) {
        builder_add_str(&b, "&type=");
        client_encode(&b, bytes_str(type), true);
    }
    builder_add_byte(&b, 0);
    bool ok = b.err == E_OK;
    if (ok) {
        memcpy(path, b.data, b.size);
    } else {
        (void)fputs("greyctl: --type is too long\n", stderr);
    }
    builder_free(&b);
    return ok;
}

int trail_list(struct call *c) {
    static const char *const titles[] = {"INDEX>", "TIME", "EPOCH>", "TYPE", "WHAT", "BY", "PROPOSER", "SEALED AT>", "HASH"};
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    char path[512];
    size_t i;
    const json_t *e;
    if (!put_path(c, path, sizeof path)) {
        return CTL_USAGE;
    }
    if (verbs_get(c, CLIENT_NODE, path, &doc, &code)) {
        return code;
    }
    bool wide = c->output == OUTPUT_WIDE;
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, wide ? 9 : 8);
    json_array_foreach(json_object_get(doc, "entries"), i, e) {
        render_cellf(&t, "%" PRIu64, verbs_uint(e, "index"));
        render_cell(&t, verbs_text(e, "time"));
        render_cellf(&t, "%" PRIu64, verbs_uint(e, "epoch"));
        render_cell(&t, verbs_text(e, "type"));
        put_what(&t, e);
        put_by(&t, e);
        render_cell(&t, json_string_value(json_object_get(e, "proposer")));
        if (json_is_integer(json_object_get(e, "sealed_at"))) {
            render_cellf(&t, "%" PRIu64, verbs_uint(e, "sealed_at"));
        } else {
            render_cell(&t, NULL);
        }
        if (wide) {
            render_cell(&t, verbs_text(e, "hash"));
        }
    }
    render_table_end(&t, &out);
    if (json_is_integer(json_object_get(doc, "next"))) {
        builder_addf(&out, "more: greyctl audit --from %" PRIu64 "\n", verbs_uint(doc, "next"));
    }
    json_decref(doc);
    return verbs_print(&out);
}

/* --- verify -------------------------------------------------------------------------------------------------------------------------- */
struct verdict {
    uint64_t cluster_id;
    raft_index first, last; /* verified entries */
    raft_index sealed;      /* up to here */
    uint32_t seals;
    char signers[256]; /* names of those whose seals hold */
    uint8_t hash[DIGEST_BYTES];
    bool begun;
    bool broken;
    char why[200];
};

static void find_broken(struct verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void find_broken(struct verdict *v, const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vsnprintf(v->why, sizeof v->why, format, args);
    va_end(args);
    v->broken = true;
}

static uint64_t id_of(const json_t *object, const char *name) {
    return strtoull(verbs_text(object, name), NULL, 16);
}

static const json_t *signer_of(const json_t *page, uint64_t id) {
    size_t i;
    const json_t *s;
    json_array_foreach(json_object_get(page, "signers"), i, s) {
        if (id_of(s, "id") == id) {
            return s;
        }
    }
    return NULL;
}

static void check_seal(struct verdict *v, const json_t *page, const json_t *object) {
    struct seal s = {.index = verbs_uint(object, "index"), .epoch = verbs_uint(object, "epoch"), .signer = id_of(object, "signer")};
    uint8_t key[KEYS_ED25519_PUBLIC_BYTES];
    const json_t *signer = signer_of(page, s.signer);
    const char *node = verbs_text(signer, "node");
    if (!verbs_hex(object, "hash", s.hash, sizeof s.hash) || !verbs_hex(object, "signature", s.signature, sizeof s.signature)) {
        find_broken(v, "the seal of entry %" PRIu64 " cannot be read", s.index);
    } else if (signer == NULL || !verbs_hex(signer, "public_key", key, sizeof key)) {
        find_broken(v, "the key of the seal of entry %" PRIu64 " is missing", s.index);
    } else if (!seal_verify(&s, v->cluster_id, key)) {
        find_broken(v, "the seal of entry %" PRIu64 " was not made with the key of %.64s: forged, or of another cluster", s.index,
                    node);
    } else if (memcmp(s.hash, v->hash, sizeof s.hash) != 0) {
        find_broken(v, "an entry from %" PRIu64 " to %" PRIu64 " is not what %.64s sealed in epoch %" PRIu64,
                    v->sealed > 0 ? v->sealed + 1 : v->first, s.index, node, s.epoch);
    } else {
        v->sealed = s.index;
        v->seals++;
        size_t used = strlen(v->signers);
        if (strstr(v->signers, node) == NULL && used + strlen(node) + 3 < sizeof v->signers) {
            (void)snprintf(v->signers + used, sizeof v->signers - used, "%s%s", used > 0 ? ", " : "", node);
        }
    }
}

static void check_entry(struct verdict *v, const json_t *object) {
    struct entry e = {.index = verbs_uint(object, "index"),
                      .term = verbs_uint(object, "term"),
                      .epoch = verbs_uint(object, "epoch"),
                      .time_ms = json_integer_value(json_object_get(object, "time_ms")),
                      .kind = (uint16_t)verbs_uint(object, "kind"),
                      .schema = (uint16_t)verbs_uint(object, "schema"),
                      .stripped_bytes = (uint32_t)verbs_uint(object, "size")};
    uint8_t said[DIGEST_BYTES];
    if (!verbs_hex(object, "digest", e.digest, sizeof e.digest) || !verbs_hex(object, "hash", said, sizeof said)) {
        find_broken(v, "entry %" PRIu64 " cannot be read", e.index);
        return;
    }
    if (e.index != v->last + 1) {
        find_broken(v, "entry %" PRIu64 " is missing", v->last + 1);
        return;
    }
    entry_seal(&e, v->hash);
    if (memcmp(e.hash, said, sizeof said) != 0) {
        find_broken(v, "entry %" PRIu64 " does not follow from the one before: it was changed, or is out of its place", e.index);
        return;
    }
    memcpy(v->hash, e.hash, sizeof e.hash);
    v->last = e.index;
}

static void check_page(struct verdict *v, const json_t *page) {
    const json_t *entries = json_object_get(page, "entries"), *seals = json_object_get(page, "seals");
    size_t seal = 0, i;
    const json_t *e;
    if (!v->begun) {
        v->begun = true;
        v->cluster_id = id_of(page, "cluster_id");
        v->first = verbs_uint(json_array_get(entries, 0), "index");
        v->last = v->first - 1;
        if (v->first == 0 || !verbs_hex(page, "previous_hash", v->hash, sizeof v->hash)) {
            find_broken(v, "the answer of the node holds no entries");
        }
    }
    json_array_foreach(entries, i, e) {
        if (v->broken) {
            return;
        }
        check_entry(v, e);
        while (!v->broken && seal < json_array_size(seals) && verbs_uint(json_array_get(seals, seal), "index") <= v->last) {
            if (verbs_uint(json_array_get(seals, seal), "index") == v->last) {
                check_seal(v, page, json_array_get(seals, seal));
            }
            seal++;
        }
    }
}

static int show(struct call *c, const struct verdict *v) {
    struct builder out;
    struct json_writer w;
    builder_init(&out, 65536);
    if (c->output == OUTPUT_JSON) {
        json_writer_init(&w, &out);
        json_open(&w, '{');
        json_member_bool(&w, "ok", !v->broken);
        json_member_uint(&w, "first_index", v->first);
        json_member_uint(&w, "last_index", v->last);
        json_member_uint(&w, "sealed_index", v->sealed);
        json_member_uint(&w, "seals", v->seals);
        json_member_str(&w, "problem", v->why);
        json_close(&w);
        builder_add_byte(&out, '\n');
    } else if (v->broken) {
        builder_addf(&out, "BROKEN: %s\n", v->why);
        if (v->last >= v->first) {
            builder_addf(&out, "entries %" PRIu64 " to %" PRIu64 " hold%s\n", v->first, v->last,
                         v->sealed > 0 ? "" : ", but none of them is sealed");
        }
        builder_add_str(
            &out, "compare with another gateway: greyctl audit verify --addr ...; a restart makes this one take the log anew\n");
    } else {
        builder_addf(&out, "OK: entries %" PRIu64 " to %" PRIu64 " are one chain; %" PRIu32 " seals hold", v->first, v->last,
                     v->seals);
        if (v->seals > 0) {
            builder_addf(&out, " (by %s); sealed up to %" PRIu64, v->signers, v->sealed);
        }
        builder_add_byte(&out, '\n');
    }
    int code = verbs_print(&out);
    return code == CTL_OK && v->broken ? CTL_REFUSED : code;
}

int trail_verify(struct call *c) {
    struct verdict v = {0};
    uint64_t from;
    if (!verbs_number(c, "from", 1, INT64_MAX, 0, &from)) {
        return CTL_USAGE;
    }
    for (bool more = true; more && !v.broken;) {
        char path[128];
        json_t *page;
        int n = snprintf(path, sizeof path, "/v1/audit?limit=%u", PAGE_ENTRIES);
        if (from > 0) {
            (void)snprintf(path + n, sizeof path - (size_t)n, "&from=%" PRIu64, from);
        }
        if (client_get(&c->client, CLIENT_NODE, path, &page, NULL, &c->problem) != CTL_OK) {
            return client_complain(&c->problem);
        }
        check_page(&v, page);
        from = verbs_uint(page, "next");
        more = from > 0;
        json_decref(page);
    }
    return show(c, &v);
}
