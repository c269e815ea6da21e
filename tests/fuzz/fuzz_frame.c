/* Frames and the messages in them, as a stranger on the network would send them. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "federation/frame.h"
#include "federation/message.h"
#include "federation/sync.h"
#include "include/grey/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void content_of(struct bytes content) {
    static struct sync_item items[SYNC_ITEMS_MAX];
    static struct sync_gap gaps[SYNC_GAPS_MAX];
    struct message m;
    struct sync_hello h;
    struct sync_events e;
    struct sync_welcome w;
    struct sync_ack a;
    if (message_decode(content, &m) == E_OK) {
        struct builder b;
        builder_init(&b, 4u << 20);
        message_encode(&m, &b);
        if (b.err == E_OK && m.kind != MESSAGE_RAFT && !bytes_equal(builder_bytes(&b), content)) {
            abort(); /* one meaning, one encoding */
        }
        builder_free(&b);
        message_release(&m);
    }
    (void)sync_get_hello(content, &h);
    (void)sync_get_events(content, &e, items, gaps);
    (void)sync_get_welcome(content, &w);
    (void)sync_get_ack(content, &a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct frame f;
    size_t used = 0, need = 0;
    enum grey_error why = E_OK;
    if (frame_read(bytes_of(data, size), &f, &used, &need, &why) == FRAME_READY && used > size) {
        abort();
    }
    content_of(bytes_of(data, size)); /* past the checksum, which a fuzzer cannot guess */
    if (size > 2) {
        struct builder scratch;
        struct bytes content;
        builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
        f = (struct frame){.flags = (uint16_t)(data[0] & 0x0f), .payload = bytes_of(data + 1, size - 1)};
        if (frame_content(&f, &scratch, &content) == E_OK) {
            content_of(content);
        }
        builder_free(&scratch);
    }
    return 0;
}
