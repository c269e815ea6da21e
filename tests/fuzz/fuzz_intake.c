/* Any bytes as the body of POST /v1/events, under each content type: what is accepted is a batch that the state takes. */
#include "agent/state/intake.h"
#include "federation/record.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const types[] = {"application/json", "application/cloudevents+json", "application/cloudevents-batch+json"};
    struct intake_options o = {.default_source = "grey://s/n", .default_priority = PRIORITY_LOW};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct builder payload;
        struct intake_result result;
        struct fault f = {0};
        builder_init(&payload, LIMIT_PAYLOAD_BYTES);
        enum grey_error err = intake_json(bytes_of(data, size), bytes_str(types[i]), &o, &payload, &result, &f);
        must(err == f.code && (err == E_OK) == (payload.size > 0));
        if (err == E_OK) {
            struct codec_reader r;
            codec_reader_init(&r, builder_bytes(&payload));
            must(codec_array(&r, LIMIT_BATCH_EVENTS) == result.count && result.count > 0);
            for (uint32_t k = 0; k < result.count; k++) {
                struct event e;
                struct bytes id;
                must(record_decode(&r, &e) == E_OK && intake_id(&result, k, &id) && bytes_equal(id, e.id));
                must(e.priority >= result.most_urgent);
            }
            must(codec_end(&r) == E_OK);
        }
        intake_result_free(&result);
        builder_free(&payload);
    }
    return 0;
}
