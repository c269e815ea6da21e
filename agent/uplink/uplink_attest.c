#include "agent/uplink/uplink_core.h"
#include "federation/frame.h"

void uplink_on_attest(struct uplink *u, const struct uplink_attest_events *events, void *context) {
    u->attest = events;
    u->attest_context = context;
}

void uplink_attest_begin(struct uplink *u, uint32_t codings) {
    u->judges = (codings & CODING_ATTEST) != 0;
    if (u->judges && u->attest != NULL) {
        u->attest->ready(u->attest_context);
    }
}

bool uplink_attest(struct uplink *u, struct bytes node, enum exchange_word word, struct bytes body) {
    struct builder b;
    if (!u->leads || !u->welcomed || !u->judges || !exchange_goes_up(word)) {
        return false;
    }
    builder_init(&b, LIMIT_FRAME_PAYLOAD_BYTES);
    sync_put_attest(&b, &(struct sync_attest){.node = node, .word = word, .body = body});
    bool said = b.err == E_OK && uplink_send_of(u, CHANNEL_CONTROL, LEDGER_ATTESTATION, builder_bytes(&b), FRAME_FLAG_PRIORITY);
    builder_free(&b);
    return said;
}

void uplink_attest_take(struct uplink *u, const struct sync_attest *a) {
    if (u->attest != NULL) {
        u->attest->heard(u->attest_context, a->node, a->word, a->body);
    }
}
