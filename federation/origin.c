#include "federation/origin.h"

#include "platform/codec.h"

enum { KEY_WHO = 0, KEY_ROLE = 1, KEY_ADDRESS = 2, KEY_NODE = 3, KEY_COUNT = 4 };

/* What is left out has these: a caller that shows nothing at a door that stands open, on the gateway itself. */
#define USUAL_WHO "anyone"
#define USUAL_ROLE ROLE_ADMIN
#define USUAL_ADDRESS "127.0.0.1"

void origin_put(struct builder *out, const struct origin *o, bool brief) {
    bool who = !brief || !bytes_equal_str(o->who, USUAL_WHO), role = !brief || o->role != USUAL_ROLE;
    bool address = !brief || !bytes_equal_str(o->address, USUAL_ADDRESS);
    codec_put_map(out, 1u + who + role + address);
    if (who) {
        codec_put_uint(out, KEY_WHO);
        codec_put_text(out, o->who);
    }
    if (role) {
        codec_put_uint(out, KEY_ROLE);
        codec_put_uint(out, o->role);
    }
    if (address) {
        codec_put_uint(out, KEY_ADDRESS);
        codec_put_text(out, o->address);
    }
    codec_put_uint(out, KEY_NODE);
    codec_put_text(out, o->node);
}

struct bytes origin_skip(struct bytes payload, struct origin *o) {
    struct origin found = {.role = ROLE_NONE};
    if (o != NULL) {
        *o = found;
    }
    if (payload.size == 0 || payload.data[0] >> 5 != 5) { /* CBOR's major type of a map */
        return payload;
    }
    struct codec_reader r;
    codec_reader_init(&r, payload);
    uint64_t count = codec_map(&r, KEY_COUNT), last = 0;
    bool well = count > 0;
    found = (struct origin){.who = bytes_str(USUAL_WHO), .role = USUAL_ROLE, .address = bytes_str(USUAL_ADDRESS)};
    for (uint64_t i = 0; i < count && r.err == E_OK && well; i++) {
        uint64_t key = codec_uint(&r, KEY_COUNT - 1);
        well = i == 0 || key > last;
        last = key;
        switch (key) {
        case KEY_WHO:
            found.who = codec_text(&r, ACCESS_WHO_BYTES);
            break;
        case KEY_ROLE:
            found.role = (enum access_role)codec_uint(&r, ACCESS_ROLE_COUNT - 1);
            break;
        case KEY_ADDRESS:
            found.address = codec_text(&r, ACCESS_ADDRESS_BYTES);
            break;
        default:
            found.node = codec_text(&r, LIMIT_NAME_BYTES);
        }
    }
    well = well && last == KEY_NODE; /* it has always one */
    if (!well || r.err != E_OK) {
        return payload;
    }
    if (o != NULL) {
        *o = found;
    }
    return r.rest;
}
