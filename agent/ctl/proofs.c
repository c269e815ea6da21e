/* task proof: shows the signed proof of a task's last run, or checks one, here and not on the gateway, without any of the site. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ctl/input.h"
#include "agent/ctl/verbs.h"
#include "federation/proof.h"

#define BUNDLE_BYTES_MAX (64u * 1024u)

struct check {
    const json_t *bundle;
    struct proof proof;
    uint8_t body[PROOF_BYTES_MAX];
    size_t body_size;
    char why[160]; /* empty: it holds */
};

static void blame(struct check *k, const char *what, const char *field) {
    if (k->why[0] == 0) {
        (void)snprintf(k->why, sizeof k->why, "%s%s", field, what);
    }
}

static void same_uint(struct check *k, const json_t *object, const char *name, uint64_t signed_value) {
    const json_t *v = json_object_get(object, name);
    if (!json_is_integer(v) || (uint64_t)json_integer_value(v) != signed_value) {
        blame(k, " is not what was signed", name);
    }
}

static void same_text(struct check *k, const char *name, struct bytes signed_value) {
    if (!bytes_equal_str(signed_value, verbs_text(k->bundle, name))) {
        blame(k, " is not what was signed", name);
    }
}

/* known false: the bundle must have null there. */
static void same_hash(struct check *k, const json_t *object, const char *name, const char *called, const uint8_t hash[DIGEST_BYTES],
                      bool known) {
    uint8_t said[DIGEST_BYTES];
    bool well = known ? verbs_hex(object, name, said, sizeof said) && memcmp(said, hash, sizeof said) == 0
                      : json_is_null(json_object_get(object, name));
    if (!well) {
        blame(k, " is not what was signed", called);
    }
}

static void same_id(struct check *k, const char *name, uint64_t id) {
    char text[17];
    (void)snprintf(text, sizeof text, "%016" PRIx64, id);
    same_text(k, name, bytes_str(text));
}

static void same_steps(struct check *k) {
    static const char *const names[PROOF_STEPS] = {"submitted", "assigned", "running"};
    const json_t *list = json_object_get(k->bundle, "transitions");
    size_t at = 0;
    for (unsigned i = 0; i < PROOF_STEPS; i++) {
        const struct proof_transition *t = &k->proof.steps[i];
        if (t->index == 0) {
            continue;
        }
        const json_t *said = json_array_get(list, at++);
        if (strcmp(verbs_text(said, "state"), names[i]) != 0 || verbs_uint(said, "index") != t->index) {
            blame(k, " are not what was signed", "transitions");
        }
        same_hash(k, said, "hash", "the hash of a transition", t->hash, t->hashed);
    }
    if (json_array_size(list) != at) {
        blame(k, " are not what was signed", "transitions");
    }
}

/* What the bundle says in words must be what its signature covers. */
static void same_fields(struct check *k) {
    static const char *const streams[PROOF_STREAMS] = {"stdout", "stderr"};
    const struct proof *p = &k->proof;
    const json_t *output = json_object_get(k->bundle, "output"), *resources = json_object_get(k->bundle, "resources");
    same_text(k, "task", p->task);
    same_uint(k, k->bundle, "token", p->token);
    same_id(k, "cluster_id", p->cluster_id);
    same_text(k, "node", p->node_name);
    same_id(k, "node_id", p->node);
    same_hash(k, k->bundle, "input_sha256", "input_sha256", p->input_hash, true);
    same_steps(k);
    same_text(k, "end", p->end);
    same_text(k, "reason", p->reason);
    const json_t *status = json_object_get(k->bundle, "exit_status");
    if (!json_is_integer(status) || json_integer_value(status) != p->status) {
        blame(k, " is not what was signed", "exit_status");
    }
    for (unsigned i = 0; i < PROOF_STREAMS; i++) {
        same_uint(k, json_object_get(output, streams[i]), "bytes", p->output_bytes[i]);
        same_hash(k, json_object_get(output, streams[i]), "sha256", i == 0 ? "output.stdout.sha256" : "output.stderr.sha256",
                  p->output_hash[i], true);
    }
    same_uint(k, resources, "cpu_microseconds", p->cpu_us);
    same_uint(k, resources, "memory_peak_bytes", p->memory_peak_bytes);
    same_uint(k, resources, "wall_milliseconds", p->wall_ms);
    same_hash(k, k->bundle, "public_key", "public_key", p->public_key, true);
}

/* key: the one that the node is known to have; NULL: the one in the bundle. */
static void check(struct check *k, const char *key) {
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES], known[KEYS_ED25519_PUBLIC_BYTES];
    k->body_size = strlen(verbs_text(k->bundle, "signed")) / 2;
    if (k->body_size > sizeof k->body || !verbs_hex(k->bundle, "signed", k->body, k->body_size) ||
        proof_read_body(bytes_of(k->body, k->body_size), &k->proof) != E_OK) {
        blame(k, " cannot be read", "signed");
        return;
    }
    same_fields(k);
    if (!verbs_hex(k->bundle, "signature", signature, sizeof signature) ||
        !proof_verify(bytes_of(k->body, k->body_size), bytes_of(signature, sizeof signature), k->proof.public_key)) {
        blame(k, " was not made with the key of that node over what is signed", "signature");
    }
    json_t *given = key == NULL ? NULL : json_pack("{s:s}", "key", key);
    bool read =
        key == NULL ? verbs_hex(k->bundle, "member_public_key", known, sizeof known) : verbs_hex(given, "key", known, sizeof known);
    json_decref(given);
    if (!read) {
        blame(k,
              key == NULL ? ": the site knows no key of that node any more; give it with --key"
                          : ": 64 hexadecimal digits are a key",
              "");
    } else if (memcmp(known, k->proof.public_key, sizeof known) != 0) {
        blame(k, " is not the one that the node is known to have", "public_key");
    }
}

static int say(struct call *c, const struct check *k) {
    struct builder out;
    struct json_writer w;
    builder_init(&out, 65536);
    if (c->output == OUTPUT_JSON) {
        json_writer_init(&w, &out);
        json_open(&w, '{');
        json_member_bool(&w, "ok", k->why[0] == 0);
        json_member_str(&w, "problem", k->why);
        json_close(&w);
        builder_add_byte(&out, '\n');
    } else if (k->why[0] != 0) {
        builder_addf(&out, "BROKEN: %s\n", k->why);
    } else {
        builder_add_str(&out, "OK: ");
        render_text(&out, k->proof.task);
        builder_addf(&out, ", token %" PRIu64 ", is what ", k->proof.token);
        render_text(&out, k->proof.node_name);
        builder_addf(&out, " signed: %s, exit status %" PRId32 ", %.3f s of processor, %" PRIu64 " bytes written\n",
                     verbs_text(k->bundle, "end"), k->proof.status, (double)k->proof.cpu_us / 1e6,
                     k->proof.output_bytes[0] + k->proof.output_bytes[1]);
    }
    int code = verbs_print(&out);
    return code == CTL_OK && k->why[0] != 0 ? CTL_REFUSED : code;
}

static json_t *read_bundle(const char *file) {
    struct builder text;
    struct fault f = {0};
    builder_init(&text, BUNDLE_BYTES_MAX);
    json_t *doc = input_read(file, "a proof", &text) ? json_read(builder_bytes(&text), &f) : NULL;
    if (doc == NULL && f.code != E_OK) {
        (void)fprintf(stderr, "greyctl: %s: %s\n", file, f.text);
    }
    builder_free(&text);
    return doc;
}

int proofs_show(struct call *c) {
    const char *file = verbs_option(c, "file"), *key = verbs_option(c, "key");
    bool verify = verbs_option(c, "verify") != NULL || file != NULL;
    struct builder path, out;
    struct check k = {0};
    json_t *doc = NULL;
    if ((file == NULL) == (c->arg_count == 0)) {
        (void)fputs("greyctl: name the task, or a proof that was kept with --file FILE ('-' reads stdin)\n", stderr);
        return CTL_USAGE;
    }
    if (file != NULL) {
        doc = read_bundle(file);
        if (doc == NULL) {
            return CTL_FAILED;
        }
    } else {
        builder_init(&path, 4096);
        builder_add_str(&path, "/v1/tasks/");
        client_encode(&path, bytes_str(c->args[0]), true);
        builder_add_str(&path, "/proof");
        builder_add_byte(&path, 0);
        int code = client_get(&c->client, CLIENT_NODE, (const char *)path.data, &doc, NULL, &c->problem);
        builder_free(&path);
        if (code != CTL_OK) {
            return client_complain(&c->problem);
        }
    }
    int code;
    if (verify) {
        k.bundle = doc;
        check(&k, key);
        code = say(c, &k);
    } else { /* the bundle itself, to be kept */
        char *text = json_dumps(doc, JSON_INDENT(2));
        builder_init(&out, BUNDLE_BYTES_MAX);
        builder_add_str(&out, text == NULL ? "" : text);
        builder_add_byte(&out, '\n');
        free(text);
        code = verbs_print(&out);
    }
    json_decref(doc);
    return code;
}
