#include <inttypes.h>

#include "agent/uplink/uplink_core.h"
#include "platform/log.h"

#define PATIENCE_MS_MAX 240000u
#define PROPOSE_MS 500u /* acknowledgements become log entries at most this often: each is a commit on every disk */

void uplink_ack_release(struct uplink *u) {
    if (u->stopped && u->proposals == 0) {
        mem_free(u);
    }
}

static void ack_applied(void *context, const struct node_answer *a) {
    struct uplink_stream *s = context;
    struct uplink *u = s->owner;
    s->proposed = false;
    u->proposals--;
    if (u->stopped) {
        uplink_ack_release(u);
        return;
    }
    if (a->err == E_OK) {
        uplink_ack_propose(u); /* what came meanwhile */
    } else {
        log_limited(LOG_WARN, "uplink", "ack", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
        loop_timer_after(u->x.loop, &u->ack_timer, UPLINK_RETRY_MS);
    }
}

void uplink_ack_propose(struct uplink *u) {
    struct site_facts site;
    uint64_t now_ms = loop_now_ms(u->x.loop);
    if (!u->leads || !state_site(uplink_state(u), &site)) {
        return;
    }
    bool early = now_ms < u->acks_proposed_ms + PROPOSE_MS;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct uplink_stream *s = &u->streams[i];
        struct channel_facts f;
        state_channel(uplink_state(u), (enum event_channel)i, &f);
        bool tell = i == CHANNEL_CONTROL && uplink_meter_tell(u);
        if (s->proposed || (s->out.acked <= f.acked_seq && !tell)) {
            continue;
        }
        if (early) {
            if (u->ack_timer.place == 0) {
                loop_timer_set(u->x.loop, &u->ack_timer, u->acks_proposed_ms + PROPOSE_MS);
            }
            return;
        }
        struct builder b;
        builder_init(&b, 256);
        grey_seq acked = s->out.acked > f.acked_seq ? s->out.acked : f.acked_seq;
        const struct budget_used *used = uplink_meter_told(u);
        if (used != NULL) {
            payload_ack_usage(&b, site.incarnation, (enum event_channel)i, acked, used);
        } else {
            payload_ack(&b, site.incarnation, (enum event_channel)i, acked);
        }
        struct blob *payload = builder_blob(&b);
        builder_free(&b);
        if (payload != NULL) {
            s->proposed = true;
            u->acks_proposed_ms = now_ms;
            u->proposals++;
            node_propose(u->node, ENTRY_ACK, payload, false, ack_applied, s);
            blob_unref(payload);
        }
    }
}

void uplink_ack_timer(void *context) {
    uplink_ack_propose(context);
}

void uplink_ack_take(struct uplink *u, enum event_channel c, grey_seq seq) {
    struct uplink_stream *s = &u->streams[c];
    struct channel_facts f;
    state_channel(uplink_state(u), c, &f);
    if (seq >= f.next_seq) {
        uplink_session_refused();
        log_limited(LOG_ERROR, "uplink", "ack", "channel=%s seq=%" PRIu64 " was never given (next is %" PRIu64 "): ignored",
                    event_channel_name(c), seq, f.next_seq);
        return;
    }
    if (channel_acked(&s->out, seq)) {
        s->waiting_since_ms = s->out.frames > 0 ? loop_now_ms(u->x.loop) : 0;
        u->patience_ms = UPLINK_PATIENCE_MS_MIN;
        uplink_ack_propose(u);
    }
}

void uplink_ack_look(struct uplink *u, uint64_t now_ms) {
    for (int i = 0; i < CHANNEL_COUNT && u->welcomed; i++) {
        struct uplink_stream *s = &u->streams[i];
        if (s->out.frames > 0 && s->waiting_since_ms > 0 && now_ms >= s->waiting_since_ms + u->patience_ms) {
            u->patience_ms = u->patience_ms * 2 > PATIENCE_MS_MAX ? PATIENCE_MS_MAX : u->patience_ms * 2;
            uplink_session_again(u, "the broker takes events, but the core acknowledges none");
        }
    }
}
