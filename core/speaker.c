#include "core/speaker.h"

#include <stdio.h>

#include "federation/frame.h"
#include "platform/now.h"

/* Plain words are those that promise nothing: where the core stands, who it is; and a welcome that is sealed in itself. */
static bool may_be_plain(enum message_kind kind) {
    return kind == MESSAGE_DOWN_RESYNC || kind == MESSAGE_DOWN_ROUTE || kind == MESSAGE_DOWN_SEALED_WELCOME;
}

enum grey_error speaker_publish(struct speaker *s, const struct grey_name *site, enum event_channel c, enum message_kind kind,
                                struct bytes content) {
    struct builder frame, sealed;
    char topic[TOPIC_BYTES_MAX];
    int id;
    builder_init(&frame, content.size + FRAME_OVERHEAD_BYTES);
    builder_init(&sealed, content.size + FRAME_OVERHEAD_BYTES + ENVELOPE_OVERHEAD_BYTES);
    frame_write(&frame, FRAME_FLAG_PRIORITY | FRAME_FLAG_IDEMPOTENT, ++s->message_id, (uint64_t)now_wall_ms() * 1000000u, content);
    enum grey_error err = frame.err;
    bool seal = !may_be_plain(kind) && sealed_manner(s->sealed, site->text) == SEALED_SEALED;
    if (err == E_OK && seal) {
        err = sealed_seal(s->sealed, site->text, c, builder_bytes(&frame), &sealed);
    }
    sync_topic(topic, site->text, false, c);
    err = err != E_OK ? err : mqtt_publish(s->mqtt, topic, builder_bytes(seal ? &sealed : &frame), &id);
    builder_free(&frame);
    builder_free(&sealed);
    return err;
}

/* To a hello that came sealed the welcome goes sealed. */
static enum grey_error say_welcome(struct speaker *s, const struct answer *a, struct bytes welcome) {
    if (!sealed_awaits(s->sealed, a->site.text)) {
        return sealed_manner(s->sealed, a->site.text) == SEALED_SEALED
                   ? E_OK /* it was answered: this one is of a hello that was said twice */
                   : speaker_publish(s, &a->site, a->channel, MESSAGE_DOWN_WELCOME, welcome);
    }
    struct builder content;
    builder_init(&content, 1024);
    enum grey_error err = sealed_welcome(s->sealed, a->site.text, welcome, &content);
    err = err != E_OK ? err : speaker_publish(s, &a->site, a->channel, MESSAGE_DOWN_SEALED_WELCOME, builder_bytes(&content));
    if (err == E_OK) {
        sealed_welcomed(s->sealed, a->site.text);
    }
    builder_free(&content);
    return err;
}

enum grey_error speaker_answer(struct speaker *s, const struct answer *r) {
    struct builder content;
    builder_init(&content, 1024);
    if (r->kind == MESSAGE_DOWN_WELCOME) {
        sync_put_welcome(&content, &r->welcome);
    } else if (r->kind == MESSAGE_DOWN_RESYNC) {
        sync_put_resync(&content, &r->welcome);
    } else if (r->kind == MESSAGE_DOWN_ROUTE) {
        struct sync_route route = {.incarnation = r->welcome.incarnation, .epoch = r->welcome.epoch};
        (void)snprintf(route.route, sizeof route.route, "%s", s->route);
        sync_put_route(&content, &route);
    } else {
        sync_put_ack(&content, &r->ack);
    }
    enum grey_error err = r->kind == MESSAGE_DOWN_WELCOME
                              ? say_welcome(s, r, builder_bytes(&content))
                              : speaker_publish(s, &r->site, r->channel, r->kind, builder_bytes(&content));
    builder_free(&content);
    return err;
}
