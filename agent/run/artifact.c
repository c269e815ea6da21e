#include "agent/run/artifact.h"

#include <string.h>

#include "agent/state/holding.h"

#define QUEUE_BYTES_MAX (256u * 1024u) /* on the way to the launcher; beyond that, wait */
#define WAIT_MS 10u

struct artifact {
    struct loop *loop;
    struct node *node;
    struct launcher *launcher;
    artifact_done *done;
    void *context;
    struct loop_timer timer;
    uint64_t token, generation; /* generation: of the one that is brought, so that late answers are known as such */
    bool busy, reading;         /* reading: a chunk comes from the state */
    bool sent, held;            /* sent: all of it; held: no more for now; the launcher's word is waited for */
    enum grey_error how;        /* not E_OK: what to answer on the next turn */
    char name[LIMIT_NAME_BYTES + 1];
    uint8_t hash[DIGEST_SHA256_BYTES];
    uint64_t issue, offset;
    uint32_t next; /* chunk */
    struct digest_stream digest;
};

struct request {
    struct artifact *artifact;
    uint64_t generation;
};

static void later(struct artifact *a, uint64_t delay_ms) {
    loop_timer_after(a->loop, &a->timer, delay_ms);
}

static void finish(struct artifact *a, enum grey_error how) {
    a->busy = false;
    a->generation++;
    a->done(a->context, a->token, how);
}

static void give_up(struct artifact *a, enum grey_error how) {
    a->how = how;
    later(a, 0);
}

static bool find(struct artifact *a, struct holding *h) {
    return holding_find(state_table(node_state(a->node)), OBJECT_DATA, bytes_str(a->name), h) && h->force.version > 0;
}

/* The last part goes only when the whole is what it should be: nothing else comes on the shelf, and what differs is known here. */
static void send_part(struct artifact *a, const struct holding *h, struct bytes content) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    struct digest_stream so_far;
    digest_stream_add(&a->digest, content);
    a->next++;
    if (a->next >= object_chunk_count(&h->force)) {
        so_far = a->digest;
        digest_stream_end(&so_far, hash);
        if (memcmp(hash, a->hash, sizeof hash) != 0) {
            give_up(a, E_CORRUPT);
            return;
        }
        a->sent = true;
    }
    launcher_send(a->launcher, &(struct launch_message){.kind = LAUNCH_STORE,
                                                        .hash = bytes_of(a->hash, sizeof a->hash),
                                                        .offset = a->offset,
                                                        .end_offset = h->force.size,
                                                        .data = content});
    a->offset += content.size;
    if (!a->sent && !a->held) {
        later(a, 0);
    }
}

static void chunk_read(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct request *q = context;
    struct artifact *a = q->artifact;
    bool late = !a->busy || q->generation != a->generation;
    struct holding h;
    (void)detail;
    mem_free(q);
    if (late) {
        return;
    }
    a->reading = false;
    struct bytes content = payload == NULL ? bytes_of(NULL, 0) : holding_content(blob_bytes(payload));
    if (err != E_OK || content.size == 0 || !find(a, &h) || h.force.issue != a->issue) {
        give_up(a, E_BUSY);
        return;
    }
    send_part(a, &h, content);
}

static void read_next(struct artifact *a) {
    struct holding h;
    if (!find(a, &h)) {
        finish(a, E_NOT_FOUND);
        return;
    }
    if (a->next == 0) {
        a->issue = h.force.issue;
    }
    if (a->issue != h.force.issue) {
        finish(a, E_BUSY);
        return;
    }
    if (object_chunk_count(&h.force) == 0) {
        send_part(a, &h, bytes_of(NULL, 0));
        return;
    }
    struct request *q = mem_new(1, sizeof *q);
    if (q == NULL) {
        finish(a, E_BUSY);
        return;
    }
    a->reading = true;
    *q = (struct request){.artifact = a, .generation = a->generation};
    node_payload(a->node, holding_chunk(state_table(node_state(a->node)), object_hash(&h.force, a->next)), chunk_read, q);
}

static void on_timer(void *context) {
    struct artifact *a = context;
    bool waits = a->reading || a->held;
    if (!a->busy || (waits && a->how == E_OK)) {
        return;
    }
    if (a->how != E_OK) {
        finish(a, a->how);
    } else if (launcher_queued(a->launcher) > QUEUE_BYTES_MAX) {
        later(a, WAIT_MS);
    } else {
        read_next(a);
    }
}

bool artifact_bring(struct artifact *a, uint64_t token, struct bytes object, struct bytes hash) {
    if (a->busy) {
        return false;
    }
    a->busy = true;
    a->sent = a->held = a->reading = false;
    a->how = E_OK;
    a->token = token;
    a->next = 0;
    a->offset = 0;
    memcpy(a->name, object.data, object.size); /* a name, so it has room */
    a->name[object.size] = 0;
    memcpy(a->hash, hash.data, sizeof a->hash);
    digest_stream_begin(&a->digest);
    later(a, 0);
    return true;
}

void artifact_stored(struct artifact *a, const struct launch_message *m) {
    static const enum grey_error errors[LAUNCH_STORED_COUNT] = {[LAUNCH_STORED_WELL] = E_OK,
                                                                [LAUNCH_STORED_TOO_LARGE] = E_TOO_LARGE,
                                                                [LAUNCH_STORED_DIFFERS] = E_CORRUPT,
                                                                [LAUNCH_STORED_FAILED] = E_IO};
    if (!a->busy || memcmp(m->hash.data, a->hash, sizeof a->hash) != 0) {
        return;
    }
    if (m->stored == LAUNCH_STORED_HOLD || m->stored == LAUNCH_STORED_GO_ON) {
        a->held = m->stored == LAUNCH_STORED_HOLD;
        if (!a->held && !a->sent) {
            later(a, 0);
        }
        return;
    }
    loop_timer_cancel(a->loop, &a->timer);
    finish(a, errors[m->stored]);
}

void artifact_reset(struct artifact *a) {
    loop_timer_cancel(a->loop, &a->timer);
    a->busy = false;
    a->generation++;
}

struct artifact *artifact_new(struct loop *loop, struct node *node, struct launcher *launcher, artifact_done *done, void *context) {
    struct artifact *a = mem_new(1, sizeof *a);
    if (a != NULL) {
        *a = (struct artifact){.loop = loop, .node = node, .launcher = launcher, .done = done, .context = context};
        a->timer = (struct loop_timer){.fire = on_timer, .context = a};
    }
    return a;
}

void artifact_free(struct artifact *a) {
    if (a != NULL) {
        loop_timer_cancel(a->loop, &a->timer);
        mem_free(a);
    }
}
