#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "agent/work/work.h"
#include "platform/digest.h"
#include "platform/log.h"

/* A run on this gateway has ended: its proof is made from the order, from the log's hashes where the entries that moved it are still
 * there, and from what the launcher says, and signed with this gateway's key. */

struct proving {
    struct node *node;
    struct proof proof;
    char task[LIMIT_NAME_BYTES + 1];
    unsigned step; /* whose hash is looked for */
    struct sitelog_read read;
    node_proved *done;
    void *context;
};

static void next_step(struct proving *p);

static void finish(struct proving *p, bool well) {
    struct builder out;
    builder_init(&out, 2 * PROOF_BYTES_MAX);
    if (well) {
        proof_sign(&out, &p->proof, p->node->sealing.signer.secret_key);
    }
    struct blob *blob = well && out.err == E_OK ? builder_blob(&out) : NULL;
    builder_free(&out);
    p->done(p->context, blob);
    blob_unref(blob);
    mem_free(p);
}

static void take_hash(struct proving *p, const struct entry *e) {
    struct proof_transition *t = &p->proof.steps[p->step++];
    t->hashed = e != NULL && e->index == t->index;
    if (t->hashed) {
        memcpy(t->hash, e->hash, sizeof t->hash);
    }
}

static void entry_read(void *context, struct sitelog_read *read) {
    struct proving *p = context;
    if (read->err == E_STOPPING) {
        finish(p, false);
        return;
    }
    take_hash(p, read->err == E_OK && read->entry_count > 0 ? &read->entries[0] : NULL); /* else it was compacted */
    next_step(p);
}

static void next_step(struct proving *p) {
    while (p->step < PROOF_STEPS) {
        raft_index index = p->proof.steps[p->step].index;
        const struct entry *e = index == 0 ? NULL : raft_entry(p->node->raft, index);
        if (index == 0 || e != NULL) {
            take_hash(p, e);
            continue;
        }
        p->read = (struct sitelog_read){
            .kind = SITELOG_ENTRIES, .from = index, .to = index, .bytes_max = 1, .done = entry_read, .context = p};
        enum grey_error err = sitelog_read(p->node->log, &p->read);
        if (err == E_OK) {
            return;
        }
        take_hash(p, NULL);
    }
    finish(p, true);
}

static void order_read(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct proving *p = context;
    (void)err;
    struct task_order ignored;
    if (payload == NULL || payload_task_order(blob_bytes(payload), &ignored, NULL) != E_OK) {
        log_limited(LOG_WARN, "proof", "order", "task=%s: its order cannot be read, so its run has no proof: %s", p->task, detail);
        finish(p, false);
        return;
    }
    digest_sha256(payload_task_order_bytes(blob_bytes(payload)), p->proof.input_hash);
    next_step(p);
}

void node_prove(struct node *n, const struct proof *facts, node_proved *done, void *context) {
    struct proving *p = mem_new(1, sizeof *p);
    if (p == NULL) {
        done(context, NULL);
        return;
    }
    *p = (struct proving){.node = n, .proof = *facts, .done = done, .context = context};
    memcpy(p->task, facts->task.data, facts->task.size); /* a name, so it has room */
    p->proof.task = bytes_str(p->task);
    p->proof.cluster_id = n->cluster_id;
    p->proof.node = n->self;
    p->proof.node_name = bytes_str(n->name.text);
    memcpy(p->proof.public_key, n->sealing.signer.public_key, sizeof p->proof.public_key);
    node_payload(n, facts->steps[PROOF_SUBMITTED].index, order_read, p);
}
