/* envelope.h: frames between site and core that the broker cannot read, change, repeat or put elsewhere.  AES-256-GCM; the keys come from
 * federation/handshake.h, one for each way, new for each session.
 *
 * A sealed frame is a Grey frame with the flag ENCRYPTED, whose payload is the ciphertext of the plain one's payload and a tag of 16 bytes.
 * Its message id is the age of the key (16 bits) and the number of the frame under it (48 bits, from 1), and is the nonce; header, way
 * and channel are bound to it.  Since a session's keys are drawn anew and kept in memory only, no crash and no disk put back
 * can make a nonce come twice.
 *
 * Who sends turns the key over after so many bytes or so much time: the next is derived from the last one, which is forgotten, so that
 * who takes a key cannot read what went before.  Who receives follows, and keeps the former key for what comes late.
 *
 * Frames of three channels overtake each other: of the last ENVELOPE_WINDOW numbers each is taken once, and older ones never.
 * Pure: time is given. */
#ifndef FEDERATION_ENVELOPE_H
#define FEDERATION_ENVELOPE_H

#include "federation/frame.h"
#include "include/grey/event.h"
#include "platform/cipher.h"

#define ENVELOPE_OVERHEAD_BYTES CIPHER_TAG_BYTES /* of a sealed frame above a plain one */
#define ENVELOPE_WINDOW 1024u
#define ENVELOPE_KEY_BYTES_MAX (1ull << 30) /* under one key, then the next */
#define ENVELOPE_KEY_MS_MAX 3600000u
#define ENVELOPE_AGES_AHEAD_MAX 64u /* keys that were turned over without a word from them arriving */

enum envelope_way { ENVELOPE_UP, ENVELOPE_DOWN };

struct envelope_sender {
    uint8_t key[CIPHER_KEY_BYTES];
    enum envelope_way way;
    uint16_t age;
    uint64_t number, bytes, since_ms;
};

struct envelope_key { /* and which numbers were taken under it */
    uint8_t key[CIPHER_KEY_BYTES];
    uint64_t top;                         /* the highest */
    uint64_t taken[ENVELOPE_WINDOW / 64]; /* a ring of bits, for those below it */
};

struct envelope_receiver {
    struct envelope_key now, former;
    enum envelope_way way;
    uint16_t age; /* of now */
    bool has_former;
};

void envelope_sender_init(struct envelope_sender *s, enum envelope_way way, const uint8_t key[CIPHER_KEY_BYTES], uint64_t now_ms);
void envelope_receiver_init(struct envelope_receiver *r, enum envelope_way way, const uint8_t key[CIPHER_KEY_BYTES]);

/* Appends the plain frame, whole, sealed.  E_BAD_FRAME: it is none; E_TOO_LARGE: its payload leaves no room for the tag; E_STOPPING: no numbers
 * are left, after 65,536 keys: begin another session; E_NO_MEMORY: nothing of `out` may be sent. */
enum grey_error envelope_seal(struct envelope_sender *s, enum event_channel c, struct bytes frame, uint64_t now_ms,
                              struct builder *out);

/* *plain is the frame as it was before, its payload in scratch (whose limit must hold it).  E_SEALED: not ours, or changed on the way; E_REPEATED: it was
 * there already, or is too old to know; E_BAD_FRAME: not sealed.  Nothing but a frame that holds changes r. */
enum grey_error envelope_open(struct envelope_receiver *r, enum event_channel c, const struct frame *sealed,
                              struct builder *scratch, struct frame *plain);

#endif
