#include "federation/envelope.h"

#include <string.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"

#define NUMBER_BITS 48u
#define NUMBER_MAX ((1ull << NUMBER_BITS) - 1)
#define BOUND_BYTES (FRAME_HEAD_BYTES + 2u)
#define NEXT_KEY "grey-next-key"

static_assert(CHANNEL_COUNT <= 255, "a channel is a byte of what is bound");

static void nonce_of(uint64_t message_id, uint8_t nonce[CIPHER_NONCE_BYTES]) {
    memset(nonce, 0, CIPHER_NONCE_BYTES);
    bytes_put_be64(nonce + CIPHER_NONCE_BYTES - 8, message_id);
}

static void bound_of(const struct frame *sealed, enum envelope_way way, enum event_channel c, uint8_t bound[BOUND_BYTES]) {
    frame_head(sealed, bound);
    bound[FRAME_HEAD_BYTES] = (uint8_t)way;
    bound[FRAME_HEAD_BYTES + 1] = (uint8_t)c;
}

/* The former key cannot be told from it. */
static void turn(const uint8_t key[CIPHER_KEY_BYTES], uint8_t next[CIPHER_KEY_BYTES]) {
    uint8_t made[CIPHER_KEY_BYTES];
    cipher_derive(bytes_of(NULL, 0), bytes_of(key, CIPHER_KEY_BYTES), bytes_str(NEXT_KEY), made, sizeof made);
    memcpy(next, made, sizeof made);
    cipher_wipe(made, sizeof made);
}

/* --- sending -------------------------------------------------------------------------------------------------------------------------------- */

void envelope_sender_init(struct envelope_sender *s, enum envelope_way way, const uint8_t key[CIPHER_KEY_BYTES], uint64_t now_ms) {
    *s = (struct envelope_sender){.way = way, .since_ms = now_ms};
    memcpy(s->key, key, sizeof s->key);
}

static bool due(const struct envelope_sender *s, size_t more_bytes, uint64_t now_ms) {
    return s->number > 0 && (s->number == NUMBER_MAX || s->bytes + more_bytes > ENVELOPE_KEY_BYTES_MAX ||
                             now_ms - s->since_ms >= ENVELOPE_KEY_MS_MAX);
}

enum grey_error envelope_seal(struct envelope_sender *s, enum event_channel c, struct bytes frame, uint64_t now_ms,
                              struct builder *out) {
    struct frame plain, sealed;
    size_t used = 0, need = 0;
    enum grey_error why = E_BAD_FRAME;
    if (frame_read(frame, &plain, &used, &need, &why) != FRAME_READY || used != frame.size ||
        (plain.flags & FRAME_FLAG_ENCRYPTED) != 0) {
        return E_BAD_FRAME;
    }
    if (plain.payload.size > LIMIT_FRAME_PAYLOAD_BYTES - CIPHER_TAG_BYTES) {
        return E_TOO_LARGE;
    }
    if (due(s, plain.payload.size, now_ms)) {
        if (s->age == UINT16_MAX) {
            return E_STOPPING;
        }
        turn(s->key, s->key);
        s->age++;
        s->number = s->bytes = 0;
        s->since_ms = now_ms;
    }
    sealed = plain;
    sealed.flags |= FRAME_FLAG_ENCRYPTED;
    sealed.message_id = (uint64_t)s->age << NUMBER_BITS | ++s->number; /* used up, whatever becomes of the frame */
    sealed.payload = bytes_of(NULL, plain.payload.size + CIPHER_TAG_BYTES);
    s->bytes += plain.payload.size;
    uint8_t nonce[CIPHER_NONCE_BYTES], bound[BOUND_BYTES], *at = frame_room(out, &sealed);
    if (at == NULL) {
        return out->err;
    }
    nonce_of(sealed.message_id, nonce);
    bound_of(&sealed, s->way, c, bound);
    if (!cipher_seal(s->key, nonce, bytes_of(bound, sizeof bound), plain.payload, at)) {
        out->err = E_NO_MEMORY;
        return out->err;
    }
    frame_close(out, &sealed);
    return E_OK;
}

/* --- receiving ------------------------------------------------------------------------------------------------------------------------------ */

void envelope_receiver_init(struct envelope_receiver *r, enum envelope_way way, const uint8_t key[CIPHER_KEY_BYTES]) {
    *r = (struct envelope_receiver){.way = way};
    memcpy(r->now.key, key, sizeof r->now.key);
}

static uint64_t *place(struct envelope_key *k, uint64_t number) {
    return &k->taken[number / 64 % (ENVELOPE_WINDOW / 64)];
}

/* The newest word of the ring was the oldest: as many numbers as that holds are not looked back at. */
static bool fresh(struct envelope_key *k, uint64_t number) {
    return number > k->top || (k->top - number < ENVELOPE_WINDOW - 64 && (*place(k, number) >> number % 64 & 1) == 0);
}

static void mark(struct envelope_key *k, uint64_t number) {
    for (uint64_t word = k->top / 64 + 1, i = 0; word <= number / 64 && i < ENVELOPE_WINDOW / 64; word++, i++) {
        *place(k, word * 64) = 0;
    }
    *place(k, number) |= 1ull << number % 64;
    k->top = number > k->top ? number : k->top;
}

static enum grey_error take(struct envelope_key *k, enum envelope_way way, enum event_channel c, const struct frame *sealed,
                            uint8_t *out) {
    uint8_t nonce[CIPHER_NONCE_BYTES], bound[BOUND_BYTES];
    uint64_t number = sealed->message_id & NUMBER_MAX;
    if (!fresh(k, number)) {
        return E_REPEATED;
    }
    nonce_of(sealed->message_id, nonce);
    bound_of(sealed, way, c, bound);
    if (!cipher_open(k->key, nonce, bytes_of(bound, sizeof bound), sealed->payload, out)) {
        return E_SEALED;
    }
    mark(k, number);
    return E_OK;
}

/* The sender has turned its key so many times since. */
static enum grey_error take_ahead(struct envelope_receiver *r, enum event_channel c, const struct frame *sealed, uint16_t ahead,
                                  uint8_t *out) {
    if (ahead > ENVELOPE_AGES_AHEAD_MAX) {
        return E_SEALED;
    }
    struct envelope_key before = r->now, next = {0};
    memcpy(next.key, before.key, sizeof next.key);
    for (uint16_t i = 0; i < ahead; i++) {
        if (i > 0) {
            before = next;
        }
        turn(next.key, next.key);
    }
    enum grey_error err = take(&next, r->way, c, sealed, out);
    if (err == E_OK) {
        r->former = before;
        r->now = next;
        r->has_former = true;
        r->age = (uint16_t)(r->age + ahead);
    }
    cipher_wipe(&before, sizeof before);
    cipher_wipe(&next, sizeof next);
    return err;
}

enum grey_error envelope_open(struct envelope_receiver *r, enum event_channel c, const struct frame *sealed,
                              struct builder *scratch, struct frame *plain) {
    if ((sealed->flags & FRAME_FLAG_ENCRYPTED) == 0 || sealed->payload.size < CIPHER_TAG_BYTES) {
        return E_BAD_FRAME;
    }
    size_t size = sealed->payload.size - CIPHER_TAG_BYTES;
    uint16_t age = (uint16_t)(sealed->message_id >> NUMBER_BITS);
    enum grey_error err = E_REPEATED; /* of a key that is forgotten */
    builder_reset(scratch);
    uint8_t *out = builder_room(scratch, size + 1); /* one more: an empty payload has a place too */
    if (out == NULL) {
        return scratch->err;
    }
    if (age > r->age) {
        err = take_ahead(r, c, sealed, (uint16_t)(age - r->age), out);
    } else if (age == r->age) {
        err = take(&r->now, r->way, c, sealed, out);
    } else if (r->has_former && age + 1 == r->age) {
        err = take(&r->former, r->way, c, sealed, out);
    }
    if (err == E_OK) {
        *plain = *sealed;
        plain->flags &= (uint16_t)~FRAME_FLAG_ENCRYPTED;
        plain->payload = bytes_of(out, size);
    }
    return err;
}
