#include "federation/origin.h"

#include "platform/codec.h"

enum { KEY_WHO = 0, KEY_ROLE = 1, KEY_ADDRESS = 2, KEY_NODE = 3, KEY_COUNT = 4 };

void origin_put(struct builder *out, const struct origin *o) {
    codec_put_map(out, KEY_COUNT);
    codec_put_uint(out, KEY_WHO);
    codec_put_text(out, o->who);
    codec_put_uint(out, KEY_ROLE);
    codec_put_uint(out, o->role);
    codec_put_uint(out, KEY_ADDRESS);
    codec_put_text(out, o->address);
    codec_put_uint(out, KEY_NODE);
    codec_put_text(out, o->node);
}

static bool key(struct codec_reader *r, uint64_t wanted) {
    return codec_uint(r, KEY_COUNT - 1) == wanted;
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
    bool well = codec_map(&r, KEY_COUNT) == KEY_COUNT && key(&r, KEY_WHO);
    found.who = codec_text(&r, ACCESS_WHO_BYTES);
    well = key(&r, KEY_ROLE) && well;
    found.role = (enum access_role)codec_uint(&r, ACCESS_ROLE_COUNT - 1);
    well = key(&r, KEY_ADDRESS) && well;
    found.address = codec_text(&r, ACCESS_ADDRESS_BYTES);
    well = key(&r, KEY_NODE) && well;
    found.node = codec_text(&r, LIMIT_NAME_BYTES);
    if (!well || r.err != E_OK) {
        return payload;
    }
    if (o != NULL) {
        *o = found;
    }
    return r.rest;
}
