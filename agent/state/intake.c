#include "agent/state/intake.h"

#include <inttypes.h>
#include <string.h>

#include "federation/offload.h"
#include "federation/record.h"
#include "include/grey/must.h"
#include "platform/json.h"

struct source {
    const struct intake_options *options;
    struct intake_result *result;
    struct fault *fault;
    struct builder *payload;
    bool cloud_only; /* the content type promised CloudEvents */
};

/* --- Refusals ---------------------------------------------------------------------------------------------------------------------- */

/* `what` says what is wrong with the field; in an array the element is named too. */
static enum grey_error refuse(const struct source *s, enum grey_error err, const char *field, const char *what) {
    if (s->result->array) {
        return fault_set(s->fault, err, "event %" PRIu32 ": \"%s\" %s", s->result->count, field, what);
    }
    return fault_set(s->fault, err, "\"%s\" %s", field, what);
}

static enum grey_error refuse_event(const struct source *s, const char *what) {
    if (s->result->array) {
        return fault_set(s->fault, E_BAD_REQUEST, "event %" PRIu32 " %s", s->result->count, what);
    }
    return fault_set(s->fault, E_BAD_REQUEST, "the event %s", what);
}

/* --- Values ------------------------------------------------------------------------------------------------------------------------ */

static enum grey_error text_of(const struct source *s, const json_t *object, const char *field, struct bytes *out) {
    const json_t *value = json_object_get(object, field);
    *out = bytes_of(NULL, 0);
    if (value == NULL || json_is_null(value)) {
        return E_OK;
    }
    if (!json_is_string(value)) {
        return refuse(s, E_BAD_REQUEST, field, "must be a string");
    }
    *out = bytes_of(json_string_value(value), json_string_length(value));
    if (out->size > LIMIT_EVENT_FIELD_BYTES) {
        return refuse(s, E_BAD_REQUEST, field, "is longer than 256 bytes");
    }
    return out->size > 0 ? E_OK : refuse(s, E_BAD_REQUEST, field, "must not be empty");
}

static_assert(LIMIT_EVENT_FIELD_BYTES == 256, "the refusal says 256");

static enum grey_error priority_of(const struct source *s, const json_t *object, enum event_priority *out) {
    const json_t *value = json_object_get(object, "priority");
    *out = s->options->default_priority;
    if (value == NULL) {
        return E_OK;
    }
    for (unsigned p = 0; p < PRIORITY_COUNT && json_is_string(value); p++) {
        if (bytes_equal_str(bytes_of(json_string_value(value), json_string_length(value)),
                            event_priority_name((enum event_priority)p))) {
            *out = (enum event_priority)p;
            return E_OK;
        }
    }
    return refuse(s, E_BAD_REQUEST, "priority", "must be \"critical\", \"high\", \"normal\" or \"low\"");
}

static uint8_t lower(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 'a' - 'A') : c;
}

/* Whether text goes on at `at` as shape says: 0 is any digit, a letter either case of it. */
static bool has_shape(struct bytes text, size_t at, const char *shape) {
    for (; *shape != 0; at++, shape++) {
        if (at >= text.size ||
            (*shape == '0' ? text.data[at] < '0' || text.data[at] > '9' : lower(text.data[at]) != (uint8_t)*shape)) {
            return false;
        }
    }
    return true;
}

static unsigned number_at(struct bytes text, size_t at, size_t digits) {
    unsigned value = 0;
    for (size_t i = 0; i < digits; i++) {
        value = value * 10 + (unsigned)(text.data[at + i] - '0');
    }
    return value;
}

/* date-time of RFC 3339, 5.6.  Second 60 is taken of any minute: which ones had one is not known here. */
static bool is_date_time(struct bytes text) {
    static const unsigned days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    size_t end = strlen("0000-00-00t00:00:00");
    if (!has_shape(text, 0, "0000-00-00t00:00:00")) {
        return false;
    }
    if (has_shape(text, end, ".0")) {
        for (end++; has_shape(text, end, "0"); end++) {
        }
    }
    bool utc = has_shape(text, end, "z"), offset = has_shape(text, end, "+00:00") || has_shape(text, end, "-00:00");
    if (!(utc || offset) || text.size != end + (utc ? 1 : strlen("+00:00"))) {
        return false;
    }
    unsigned year = number_at(text, 0, 4), month = number_at(text, 5, 2), day = number_at(text, 8, 2);
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] + (leap && month == 2) && number_at(text, 11, 2) <= 23 &&
           number_at(text, 14, 2) <= 59 && number_at(text, 17, 2) <= 60 &&
           (utc || (number_at(text, end + 1, 2) <= 23 && number_at(text, end + 4, 2) <= 59));
}

static bool same_word(struct bytes a, const char *word) {
    size_t i = 0;
    while (i < a.size && word[i] != 0 && lower(a.data[i]) == (uint8_t)word[i]) {
        i++;
    }
    return i == a.size && word[i] == 0;
}

/* The media type without its parameters. */
static struct bytes media_type(struct bytes content_type) {
    size_t size = 0;
    while (size < content_type.size && content_type.data[size] != ';') {
        size++;
    }
    while (size > 0 && (content_type.data[size - 1] == ' ' || content_type.data[size - 1] == '\t')) {
        size--;
    }
    return bytes_of(content_type.data, size);
}

/* As CloudEvents JSON format 1.0, 3.1 has it: subtype json, or one that ends in +json.  None means JSON. */
static bool is_json(struct bytes content_type) {
    struct bytes type = media_type(content_type);
    if (type.size == 0) {
        return true;
    }
    size_t slash = 0;
    while (slash < type.size && type.data[slash] != '/') {
        slash++;
    }
    bool suffix = type.size > 5 && same_word(bytes_of(type.data + type.size - 5, 5), "+json");
    return suffix || (slash < type.size && same_word(bytes_of(type.data + slash + 1, type.size - slash - 1), "json"));
}

static int base64_digit(uint8_t c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648, section 4, with its padding.  out: room for size / 4 * 3. */
static bool base64_decode(struct bytes in, uint8_t *out, size_t *out_size) {
    *out_size = 0;
    if (in.size % 4 != 0) {
        return false;
    }
    for (size_t i = 0; i < in.size; i += 4) {
        uint32_t group = 0;
        unsigned pad = 0;
        for (size_t j = 0; j < 4; j++) {
            uint8_t c = in.data[i + j];
            bool may_pad = c == '=' && i + 4 == in.size && j >= 2 && (j == 3 || in.data[i + 3] == '=');
            int digit = may_pad ? 0 : base64_digit(c);
            if (digit < 0) {
                return false;
            }
            pad += may_pad;
            group = group << 6 | (uint32_t)digit;
        }
        if ((group & ((1u << 8 * pad) - 1)) != 0) {
            return false; /* bits that no byte holds: another text would mean the same */
        }
        for (unsigned j = 0; j < 3 - pad; j++) {
            out[(*out_size)++] = (uint8_t)(group >> (16 - 8 * j));
        }
    }
    return true;
}

/* The event's data.  *scratch: what data may lie in, to be freed after use. */
static enum grey_error data_of(const struct source *s, const json_t *object, struct bytes text, struct event *e,
                               uint8_t **scratch) {
    const json_t *data = json_object_get(object, "data"), *base64 = json_object_get(object, "data_base64");
    if (data != NULL && base64 != NULL) {
        return refuse(s, E_BAD_REQUEST, "data_base64", "stands beside \"data\": there may be only one of them");
    }
    if (base64 != NULL) {
        if (!json_is_string(base64)) {
            return refuse(s, E_BAD_REQUEST, "data_base64", "must be a string");
        }
        struct bytes in = bytes_of(json_string_value(base64), json_string_length(base64));
        *scratch = mem_new(in.size / 4 * 3 + 1, 1);
        if (*scratch == NULL) {
            return fault_set(s->fault, E_NO_MEMORY, "decoding base64");
        }
        e->data.data = *scratch;
        if (!base64_decode(in, *scratch, &e->data.size)) {
            return refuse(s, E_BAD_REQUEST, "data_base64", "is not base64 (RFC 4648, with padding)");
        }
        e->content_type = e->content_type.size > 0 ? e->content_type : bytes_str("application/octet-stream");
    } else if (data != NULL && json_is_string(data) && !is_json(e->content_type)) {
        e->data = bytes_of(json_string_value(data), json_string_length(data));
    } else if (data != NULL) {
        e->data = json_raw_member(text, "data");
    }
    return e->data.size <= LIMIT_EVENT_BYTES ? E_OK : refuse(s, E_TOO_LARGE, "data", "is larger than 256 KiB");
}

static_assert(LIMIT_EVENT_BYTES == 256 * 1024, "the refusal says 256 KiB");

/* --- Events ------------------------------------------------------------------------------------------------------------------------ */

/* A misspelt field of the short form would be lost in silence, or a critical event take the default priority. */
static enum grey_error short_form_check(const struct source *s, json_t *object) {
    static const char *const known[] = {"type", "priority",        "data",        "id",         "source", "subject",
                                        "time", "datacontenttype", "data_base64", "traceparent"};
    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        size_t i = 0, count = sizeof known / sizeof known[0];
        while (i < count && strcmp(known[i], json_object_iter_key(at)) != 0) {
            i++;
        }
        if (i == count) {
            char field[40] = {0};
            size_t size = strlen(json_object_iter_key(at));
            memcpy(field, json_object_iter_key(at), size < sizeof field ? size : sizeof field - 1);
            return refuse(s, E_BAD_REQUEST, field, "is no field of an event; one with \"specversion\":\"1.0\" may have extensions");
        }
    }
    return E_OK;
}

static enum grey_error cloud_event_check(const struct source *s, const json_t *object) {
    const json_t *version = json_object_get(object, "specversion");
    if (version == NULL) {
        return refuse(s, E_BAD_REQUEST, "specversion", "is missing");
    }
    bool ok = json_is_string(version) && strcmp(json_string_value(version), "1.0") == 0;
    return ok ? E_OK : refuse(s, E_BAD_REQUEST, "specversion", "must be \"1.0\"");
}

/* Reads one element and appends its record. */
static enum grey_error take(const struct source *s, json_t *object, struct bytes text) {
    if (!json_is_object(object)) {
        return refuse_event(s, "is not a JSON object");
    }
    bool cloud = s->cloud_only || json_object_get(object, "specversion") != NULL;
    struct event e = {.provisional = s->options->provisional};
    struct {
        const char *name;
        struct bytes *place;
    } texts[] = {{"id", &e.id},
                 {"source", &e.source},
                 {"type", &e.type},
                 {"subject", &e.subject},
                 {"time", &e.time},
                 {"datacontenttype", &e.content_type},
                 {"traceparent", &e.traceparent}};
    enum grey_error err = cloud ? cloud_event_check(s, object) : short_form_check(s, object);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && err == E_OK; i++) {
        err = text_of(s, object, texts[i].name, texts[i].place);
    }
    if (err == E_OK && e.type.size == 0) {
        err = refuse(s, E_BAD_REQUEST, "type", "is missing");
    }
    if (err == E_OK && e.time.size > 0 && !is_date_time(e.time)) {
        err = refuse(s, E_BAD_REQUEST, "time", "is not a date and time of RFC 3339, such as 2026-07-30T10:00:02.5Z");
    }
    if (err == E_OK && offload_reserved(e.type)) {
        err = refuse(s, E_BAD_REQUEST, "type", "begins with grey.task., which only the site itself says");
    }
    if (err == E_OK) {
        err = priority_of(s, object, &e.priority);
    }
    uint8_t *scratch = NULL;
    if (err == E_OK) {
        err = data_of(s, object, text, &e, &scratch);
    }
    if (err != E_OK) {
        mem_free(scratch);
        return err;
    }

    struct intake_result *r = s->result;
    size_t id_start = r->ids.size;
    e.has_id = e.id.size > 0;
    if (e.has_id) {
        builder_add(&r->ids, e.id);
    } else {
        builder_addf(&r->ids, "%016" PRIx64 "-%" PRIu32, s->options->id_seed, r->count);
    }
    uint8_t end[4];
    bytes_put_be32(end, (uint32_t)r->ids.size);
    builder_add(&r->id_ends, bytes_of(end, sizeof end));
    struct bytes trace = s->options->traceparent;
    if (r->ids.err == E_OK && r->id_ends.err == E_OK) {
        e.id = bytes_of(r->ids.data + id_start, r->ids.size - id_start);
        e.source = e.source.size > 0 ? e.source : bytes_str(s->options->default_source);
        if (e.traceparent.size == 0 && trace.size <= LIMIT_EVENT_FIELD_BYTES && bytes_utf8_valid(trace)) {
            e.traceparent = trace; /* a header that is none is the proxy's fault, not the event's */
        }
        record_encode(&e, s->payload);
        r->most_urgent = e.priority < r->most_urgent ? e.priority : r->most_urgent;
        r->count++;
    }
    mem_free(scratch);
    return E_OK; /* the builders keep their error: intake_json */
}

static enum grey_error take_all(const struct source *s, json_t *root, struct bytes text) {
    size_t count = json_array_size(root);
    if (count == 0) {
        return fault_set(s->fault, E_BAD_REQUEST, "the array holds no event");
    }
    if (count > LIMIT_BATCH_EVENTS) {
        return fault_set(s->fault, E_TOO_LARGE, "the array holds %zu events, at most %u are taken at once", count,
                         LIMIT_BATCH_EVENTS);
    }
    struct bytes *slices = mem_new(count, sizeof *slices);
    if (slices == NULL) {
        return fault_set(s->fault, E_NO_MEMORY, "reading %zu events", count);
    }
    must(json_raw_elements(text, slices, count) == count); /* json_read found the text well-formed */
    codec_put_array(s->payload, count);
    enum grey_error err = E_OK;
    for (size_t i = 0; i < count && err == E_OK; i++) {
        err = take(s, json_array_get(root, i), slices[i]);
    }
    mem_free(slices);
    return err;
}

enum grey_error intake_json(struct bytes text, struct bytes content_type, const struct intake_options *o, struct builder *payload,
                            struct intake_result *r, struct fault *f) {
    *r = (struct intake_result){.most_urgent = PRIORITY_LOW};
    builder_init(&r->ids, LIMIT_BATCH_EVENTS * LIMIT_EVENT_FIELD_BYTES);
    builder_init(&r->id_ends, LIMIT_BATCH_EVENTS * 4);
    struct bytes type = media_type(content_type);
    bool one = same_word(type, "application/cloudevents+json"), many = same_word(type, "application/cloudevents-batch+json");
    struct source s = {.options = o, .result = r, .fault = f, .payload = payload, .cloud_only = one || many};
    if (text.size > LIMIT_BATCH_BYTES) {
        return fault_set(f, E_TOO_LARGE, "%zu bytes of events, at most %u are taken at once", text.size, LIMIT_BATCH_BYTES);
    }
    json_t *root = json_read(text, f);
    if (root == NULL) {
        return f != NULL ? f->code : E_BAD_JSON;
    }
    size_t size_before = payload->size;
    enum grey_error err;
    r->array = json_is_array(root);
    if (r->array && one) {
        err = fault_set(f, E_BAD_REQUEST, "an array came as application/cloudevents+json, which is one event");
    } else if (!r->array && many) {
        err = fault_set(f, E_BAD_REQUEST, "what came as application/cloudevents-batch+json is not an array");
    } else if (r->array) {
        err = take_all(&s, root, text);
    } else {
        codec_put_array(payload, 1);
        err = take(&s, root, text);
    }
    json_decref(root);
    const struct builder *builders[] = {&r->ids, &r->id_ends, payload};
    for (size_t i = 0; i < 3 && err == E_OK; i++) {
        if (builders[i]->err != E_OK) {
            err = fault_set(f, builders[i]->err, "the batch takes more room than an entry of the log has");
        }
    }
    if (err != E_OK && payload->size > size_before) {
        payload->size = size_before;
    }
    return err;
}

bool intake_id(const struct intake_result *r, uint32_t element, struct bytes *id) {
    *id = bytes_of(NULL, 0);
    if (element >= r->count) {
        return false;
    }
    size_t start = element == 0 ? 0 : bytes_get_be32(r->id_ends.data + (element - 1) * 4);
    *id = bytes_of(r->ids.data + start, bytes_get_be32(r->id_ends.data + element * 4) - start);
    return true;
}

void intake_result_free(struct intake_result *r) {
    builder_free(&r->ids);
    builder_free(&r->id_ends);
}
