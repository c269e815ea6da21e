/* Any bytes: the scanner for raw slices must be safe on all of them; where json_read accepts, each raw slice must say the same as
 * jansson's value at that place, and what the writer makes of the values must be read again. */
#include "include/grey/must.h"
#include "platform/json.h"

#define ELEMENTS_MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_say(struct bytes raw, const json_t *wanted) {
    must(raw.size > 0);
    json_t *value = json_read(raw, NULL);
    must(value != NULL && json_equal(value, wanted) == 1);
    json_decref(value);
}

static void check_slices(struct bytes text, json_t *value) {
    if (json_is_array(value)) {
        struct bytes raw[ELEMENTS_MAX];
        size_t count = json_raw_elements(text, raw, ELEMENTS_MAX);
        must(count == json_array_size(value));
        for (size_t i = 0; i < count && i < ELEMENTS_MAX; i++) {
            must_say(raw[i], json_array_get(value, i));
            struct bytes one = json_raw_element(text, i);
            must(one.data == raw[i].data && one.size == raw[i].size);
        }
        must(json_raw_element(text, count).size == 0);
    } else {
        must(json_raw_elements(text, NULL, 0) == 0);
    }
    if (json_is_object(value)) {
        const char *name;
        json_t *member;
        unsigned checked = 0;
        json_object_foreach(value, name, member) {
            if (checked++ == ELEMENTS_MAX) {
                break;
            }
            must_say(json_raw_member(text, name), member);
        }
    }
}

static void check_writer(struct bytes in, struct bytes raw) {
    struct builder out;
    struct json_writer w;
    builder_init(&out, 16 * in.size + 64);
    json_writer_init(&w, &out);
    json_open(&w, '[');
    json_text(&w, in);
    json_base64(&w, in);
    if (raw.size > 0) {
        json_raw(&w, raw);
    }
    json_close(&w);
    must(out.err == E_OK);
    json_t *value = json_read(builder_bytes(&out), NULL);
    /* NUL is written as an escape that json_read refuses; nesting may be one too deep for it. */
    for (size_t i = 0; value == NULL && raw.size == 0 && i <= in.size; i++) {
        must(i < in.size);
        if (in.data[i] == 0) {
            break;
        }
    }
    json_decref(value);
    builder_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes text = bytes_of(data, size);
    struct bytes raw[4];
    (void)json_raw_elements(text, raw, 4);
    (void)json_raw_element(text, 3);
    (void)json_raw_member(text, "id");
    (void)json_raw_member(text, "\xf0\x9f\x98\x80");
    json_t *value = json_read(text, NULL);
    if (value != NULL) {
        check_slices(text, value);
    }
    check_writer(text, value == NULL ? bytes_of(NULL, 0) : text);
    json_decref(value);
    return 0;
}
