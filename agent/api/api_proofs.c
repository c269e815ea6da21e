/* GET /v1/tasks/{id}/proof: the newest proof of a task's run, with all that is needed to check it elsewhere. */
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/work/work.h"
#include "platform/now.h"

struct asking {
    struct api_call *c;
    struct work_proof row;
};

static void put_hash(struct json_writer *w, const char *name, const uint8_t hash[DIGEST_BYTES], bool known) {
    if (known) {
        json_member_hex(w, name, bytes_of(hash, DIGEST_BYTES));
    } else {
        json_key(w, name);
        json_none(w);
    }
}

static void put_steps(struct json_writer *w, const struct proof *p) {
    static const char *const names[PROOF_STEPS] = {"submitted", "assigned", "running"};
    json_member_open(w, "transitions", '[');
    for (unsigned i = 0; i < PROOF_STEPS; i++) {
        if (p->steps[i].index > 0) {
            json_open(w, '{');
            json_member_str(w, "state", names[i]);
            json_member_uint(w, "index", p->steps[i].index);
            put_hash(w, "hash", p->steps[i].hash, p->steps[i].hashed);
            json_close(w);
        }
    }
    json_close(w);
}

static void put_outcome(struct json_writer *w, const struct proof *p) {
    static const char *const streams[PROOF_STREAMS] = {"stdout", "stderr"};
    json_member_text(w, "end", p->end);
    json_member_text(w, "reason", p->reason);
    json_member_int(w, "exit_status", p->status);
    json_member_open(w, "output", '{');
    for (unsigned i = 0; i < PROOF_STREAMS; i++) {
        json_member_open(w, streams[i], '{');
        json_member_uint(w, "bytes", p->output_bytes[i]);
        put_hash(w, "sha256", p->output_hash[i], true);
        json_close(w);
    }
    json_close(w);
    json_member_open(w, "resources", '{');
    json_member_uint(w, "cpu_microseconds", p->cpu_us);
    json_member_uint(w, "memory_peak_bytes", p->memory_peak_bytes);
    json_member_uint(w, "wall_milliseconds", p->wall_ms);
    json_close(w);
}

/* The key that the site's log has for that member, which is what makes the proof that member's. */
static void put_member_key(struct json_writer *w, const struct node *n, raft_id id) {
    struct raft_status s;
    node_raft_status(n, &s);
    const struct raft_member *m = raft_members_find(s.members, id);
    put_hash(w, "member_public_key", m == NULL ? NULL : m->sign_key, m != NULL);
}

static void send_proof(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct asking *q = context;
    struct api_call *c = q->c;
    struct work_proof row = q->row;
    struct bytes proof, body, signature;
    struct proof p;
    char time_text[32];
    mem_free(q);
    if (err != E_OK && err != E_NOT_FOUND) {
        api_call_error(c, err, detail);
        return;
    }
    if (payload == NULL || !payload_task_proof(blob_bytes(payload), &proof) || proof_read(proof, &p, &body, &signature) != E_OK) {
        api_call_error(c, E_NOT_FOUND, "the proof cannot be read on this gateway; ask another");
        return;
    }
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_text(&a.w, "task", p.task);
    json_member_uint(&a.w, "token", p.token);
    json_member_id(&a.w, "cluster_id", p.cluster_id);
    json_member_text(&a.w, "node", p.node_name);
    json_member_id(&a.w, "node_id", p.node);
    put_hash(&a.w, "input_sha256", p.input_hash, true);
    put_steps(&a.w, &p);
    put_outcome(&a.w, &p);
    put_hash(&a.w, "public_key", p.public_key, true);
    json_member_hex(&a.w, "signed", body);
    json_member_hex(&a.w, "signature", signature);
    put_member_key(&a.w, c->api->o.node, p.node);
    now_format(row.time_ms, time_text);
    json_member_open(&a.w, "recorded", '{');
    json_member_uint(&a.w, "index", row.index);
    put_hash(&a.w, "hash", row.hash, true);
    json_member_str(&a.w, "time", time_text);
    json_close(&a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

/* Also of a task that the site has forgotten since. */
static bool newest_of(struct table *t, struct bytes task, struct work_proof *found) {
    struct bytes from = bytes_of(NULL, 0), key, value;
    raft_index ref;
    uint8_t after[9] = {0};
    bool any = false;
    struct work_proof p;
    while (table_next(t, TABLE_PROOF, from, &key, &value, &ref) && key.size < sizeof after) {
        if (work_proof_row(key, value, &p) && bytes_equal(p.task, task)) {
            *found = p;
            any = true;
        }
        memcpy(after, key.data, key.size);
        from = bytes_of(after, sizeof after);
    }
    return any;
}

static void find(void *context, const struct node_answer *answer) {
    struct api_call *c = context;
    struct work_proof row = {0};
    const struct scheduler *s = answer->err == E_OK ? state_scheduler(node_state(c->api->o.node)) : NULL;
    if (s == NULL) {
        api_call_error(c, answer->err != E_OK ? answer->err : E_NO_MEMORY, answer->detail);
        return;
    }
    bool there = newest_of(node_table(c->api->o.node), bytes_of(c->arg, c->arg_size), &row);
    if (!there || node_site_time_ms(c->api->o.node) - row.time_ms > (int64_t)s->saved.proof_s * 1000) {
        api_call_error(c, E_NOT_FOUND,
                       s->saved.proof_s == 0 ? "this site keeps no proofs: scheduler.proof_retention_days is 0"
                       : there               ? "the proof is older than scheduler.proof_retention_days"
                                             : "no run of such a task has ended, or its proof is gone");
        return;
    }
    struct asking *q = mem_new(1, sizeof *q);
    if (q == NULL) {
        api_call_error(c, E_NO_MEMORY, "");
        return;
    }
    *q = (struct asking){c, row};
    node_payload(c->api->o.node, row.index, send_proof, q);
}

void api_task_proof(struct api_call *c) {
    node_read_barrier(c->api->o.node, find, c);
}
