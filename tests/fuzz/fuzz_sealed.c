/* What comes sealed from between a site and its core: a handshake's boxes, past and with their seals, and frames. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "federation/envelope.h"
#include "federation/handshake.h"
#include "include/grey/limits.h"
#include "include/grey/protocol.h"
#include "platform/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t core_public[KEYS_ED25519_PUBLIC_BYTES], core_secret[KEYS_ED25519_SECRET_BYTES];
static const uint8_t fresh[KEYS_X25519_BYTES] = {1, 2, 3}, key[CIPHER_KEY_BYTES] = {4, 5, 6};

/* As it is; and as what stands in a box that holds. */
static void hello(struct bytes in, struct builder *scratch) {
    struct handshake site, core;
    struct handshake_hello heard;
    struct handshake_keys keys;
    struct builder out;
    struct bytes welcome;
    (void)handshake_get_hello(&core, "site", core_secret, in, scratch, &heard);
    if (!handshake_begin(&site, "site", core_public, fresh)) {
        abort();
    }
    (void)handshake_get_welcome(&site, in, scratch, &welcome, &keys);
    size_t a = in.size / 3, b = in.size / 2;
    if (b - a > HANDSHAKE_CERT_BYTES_MAX || in.size - b > HANDSHAKE_SIGNATURE_BYTES_MAX) {
        return;
    }
    builder_init(&out, LIMIT_FRAME_PAYLOAD_BYTES);
    handshake_put_hello(&out, &site, bytes_of(in.data, a), bytes_of(in.data + a, b - a), bytes_of(in.data + b, in.size - b));
    if (out.err != E_OK || handshake_get_hello(&core, "site", core_secret, builder_bytes(&out), scratch, &heard) != E_OK ||
        !bytes_equal(heard.hello, bytes_of(in.data, a)) || !bytes_equal(heard.cert, bytes_of(in.data + a, b - a))) {
        abort();
    }
    builder_free(&out);
}

static void frames(struct bytes in, struct builder *scratch) {
    struct envelope_receiver r;
    struct envelope_sender s;
    struct builder plain, sealed;
    struct frame f, got;
    size_t used, need;
    enum grey_error why;
    envelope_receiver_init(&r, ENVELOPE_UP, key);
    envelope_sender_init(&s, ENVELOPE_UP, key, 0);
    builder_init(&plain, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&sealed, LIMIT_FRAME_PAYLOAD_BYTES);
    f = (struct frame){.flags = FRAME_FLAG_ENCRYPTED, .message_id = in.size > 8 ? bytes_get_be64(in.data) : 1, .payload = in};
    if (envelope_open(&r, CHANNEL_EVENTS, &f, scratch, &got) == E_OK) {
        abort(); /* nobody but us has the key */
    }
    frame_write(&plain, 0, 1, 1, in);
    if (envelope_seal(&s, CHANNEL_EVENTS, builder_bytes(&plain), 0, &sealed) != E_OK ||
        frame_read(builder_bytes(&sealed), &f, &used, &need, &why) != FRAME_READY ||
        envelope_open(&r, CHANNEL_EVENTS, &f, scratch, &got) != E_OK || !bytes_equal(got.payload, in)) {
        abort();
    }
    builder_free(&plain);
    builder_free(&sealed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool ready;
    struct builder scratch;
    if (!ready) {
        keys_new_ed25519(core_public, core_secret);
        ready = true;
    }
    if (size == 0) {
        return 0;
    }
    builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    hello(bytes_of(data, size), &scratch);
    frames(bytes_of(data, size), &scratch);
    builder_free(&scratch);
    return 0;
}
