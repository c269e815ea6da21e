#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/state/intake.h"
#include "federation/record.h"

struct door {
    struct intake_options options;
    struct intake_result result;
    struct builder payload;
    struct fault fault;
    struct event events[8];
    const char *content_type;
};

static struct door *door_new(void) {
    struct door *d = calloc(1, sizeof *d);
    d->options = (struct intake_options){.default_source = "grey://s/n", .default_priority = PRIORITY_NORMAL, .id_seed = 0xabc};
    builder_init(&d->payload, LIMIT_PAYLOAD_BYTES);
    d->content_type = "application/json";
    return d;
}

static void door_free(struct door *d) {
    builder_free(&d->payload);
    free(d);
}

/* Sends text in; on success the batch is read back into d->events. */
static enum grey_error knock(struct door *d, struct bytes text) {
    builder_reset(&d->payload);
    enum grey_error err = intake_json(text, bytes_str(d->content_type), &d->options, &d->payload, &d->result, &d->fault);
    if (err != E_OK) {
        assert_int_equal(d->payload.size, 0);
        assert_int_equal(d->fault.code, err);
        intake_result_free(&d->result);
        return err;
    }
    struct codec_reader r;
    codec_reader_init(&r, builder_bytes(&d->payload));
    assert_int_equal(codec_array(&r, LIMIT_BATCH_EVENTS), d->result.count);
    for (uint32_t i = 0; i < d->result.count; i++) {
        struct event e;
        struct bytes id;
        assert_int_equal(record_decode(&r, &e), E_OK);
        assert_true(intake_id(&d->result, i, &id) && bytes_equal(id, e.id));
        assert_false(intake_id(&d->result, d->result.count, &id));
        if (i < 8) {
            d->events[i] = e;
        }
    }
    assert_int_equal(codec_end(&r), E_OK);
    intake_result_free(&d->result);
    return E_OK;
}

static enum grey_error say(struct door *d, const char *text) {
    return knock(d, bytes_str(text));
}

#define assert_text(slice, text) assert_true(bytes_equal_str(slice, text))

/* The three lines of the guide must work, and what a device did not say is filled in. */
static void the_short_form_is_taken(void **context) {
    (void)context;
    struct door *d = door_new();
    assert_int_equal(say(d, "{\"type\":\"door\",\"priority\":\"high\",\"data\":{\"open\": true}}"), E_OK);
    assert_false(d->result.array);
    assert_int_equal(d->result.count, 1);
    assert_int_equal(d->result.most_urgent, PRIORITY_HIGH);
    assert_text(d->events[0].type, "door");
    assert_text(d->events[0].source, "grey://s/n");
    assert_text(d->events[0].id, "0000000000000abc-0");
    assert_text(d->events[0].data, "{\"open\": true}");
    assert_int_equal(d->events[0].priority, PRIORITY_HIGH);
    assert_false(d->events[0].has_id);
    d->options.traceparent = bytes_str("00-a-b-01");
    d->options.provisional = true;
    assert_int_equal(
        say(d, " [ {\"type\":\"a\"} , {\"type\":\"b\",\"priority\":\"critical\",\"id\":\"7\",\"source\":\"s\",\"subject\":\"x\","
               "\"time\":\"2026-07-30t10:00:02+14:00\",\"traceparent\":\"tp\",\"datacontenttype\":\"text/plain\",\"data\":\"hi "
               "\\u00e9\"} ] "),
        E_OK);
    assert_true(d->result.array);
    assert_int_equal(d->result.count, 2);
    assert_int_equal(d->result.most_urgent, PRIORITY_CRITICAL);
    assert_int_equal(d->events[0].priority, PRIORITY_NORMAL);
    assert_int_equal(d->events[0].data.size, 0);
    assert_text(d->events[0].traceparent, "00-a-b-01");
    assert_true(d->events[0].provisional && d->events[1].provisional && d->events[1].has_id);
    assert_text(d->events[1].id, "7");
    assert_text(d->events[1].source, "s");
    assert_text(d->events[1].subject, "x");
    assert_text(d->events[1].time, "2026-07-30t10:00:02+14:00");
    assert_text(d->events[1].traceparent, "tp");
    assert_text(d->events[1].content_type, "text/plain");
    assert_text(d->events[1].data, "hi \xc3\xa9"); /* the characters, since the type is not JSON */
    d->options.traceparent = bytes_of("\xff", 1);
    assert_int_equal(say(d, "{\"type\":\"a\"}"), E_OK); /* a broken header is not the event's fault */
    assert_int_equal(d->events[0].traceparent.size, 0);
    door_free(d);
}

/* Whoever speaks CloudEvents 1.0 need not learn another format. */
static void cloud_events_are_taken(void **context) {
    (void)context;
    struct door *d = door_new();
    const char *event =
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/m\",\"type\":\"t\",\"datacontenttype\":\"application/x+JSON; v=1\","
        "\"dataschema\":\"u\",\"comexampleextension\":5,\"data\":\"text\"}";
    char array[512];
    (void)snprintf(array, sizeof array, "[%s]", event);
    d->content_type = "application/CloudEvents+json ; charset=utf-8";
    assert_int_equal(say(d, event), E_OK);
    assert_text(d->events[0].data, "\"text\"");
    assert_int_equal(say(d, array), E_BAD_REQUEST);
    assert_int_equal(say(d, "{\"type\":\"t\"}"), E_BAD_REQUEST);
    assert_string_equal(d->fault.text, "\"specversion\" is missing");
    d->content_type = "application/cloudevents-batch+json";
    assert_int_equal(say(d, array), E_OK);
    assert_int_equal(say(d, event), E_BAD_REQUEST);
    d->content_type = "";
    assert_int_equal(say(d, array), E_OK);
    assert_int_equal(say(d, "{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"/m\",\"type\":\"t\"}"), E_BAD_REQUEST);
    assert_string_equal(d->fault.text, "\"specversion\" must be \"1.0\"");
    door_free(d);
}

/* A reading must arrive as it was measured: 1.0 is not 1, and the order of members may be signed. */
static void data_is_kept_byte_for_byte(void **context) {
    (void)context;
    struct door *d = door_new();
    static const char *const values[] = {"1.0",  "1e30",        "-0",    "{\"b\":1, \"a\" : 2}", "[1 ,2]",
                                         "null", "\"\\u0041\"", "false", "\"}\\\"],{\\\\\""};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[200];
        (void)snprintf(text, sizeof text, "[{\"type\":\"t\", \"data\" : %s }, {\"data\":%s,\"type\":\"t\"}]", values[i], values[i]);
        assert_int_equal(say(d, text), E_OK);
        assert_text(d->events[0].data, values[i]);
        assert_text(d->events[1].data, values[i]);
    }
    static const struct {
        const char *text, *bytes;
    } base64[] = {{"", ""}, {"Zg==", "f"}, {"Zm8=", "fo"}, {"Zm9v", "foo"}, {"Zm9vYmE=", "fooba"}, {"/+8=", "\xff\xef"}};
    for (size_t i = 0; i < sizeof base64 / sizeof base64[0]; i++) { /* RFC 4648, section 10 */
        char text[200];
        (void)snprintf(text, sizeof text, "{\"type\":\"t\",\"data_base64\":\"%s\"}", base64[i].text);
        assert_int_equal(say(d, text), E_OK);
        assert_text(d->events[0].data, base64[i].bytes);
        assert_text(d->events[0].content_type, "application/octet-stream");
    }
    static const char *const bad[] = {"Zg=", "Zg", "Z===", "====", "Zh==", "Zm9=", "Z=9v", "Zg==Zg==", "Zm 9", "Zm\\n9v", "Zm9_"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[200];
        (void)snprintf(text, sizeof text, "{\"type\":\"t\",\"data_base64\":\"%s\"}", bad[i]);
        assert_int_equal(say(d, text), E_BAD_REQUEST);
        assert_string_equal(d->fault.text, "\"data_base64\" is not base64 (RFC 4648, with padding)");
    }
    door_free(d);
}

/* The sender at the other end of a thin link must learn from one answer which element and which field to mend. */
static void refusals_name_element_and_field(void **context) {
    (void)context;
    struct door *d = door_new();
    static const struct {
        const char *text;
        enum grey_error err;
        const char *detail; /* NULL: jansson's */
    } cases[] = {
        {"", E_BAD_JSON, NULL},
        {"{\"type\":\"a\"", E_BAD_JSON, NULL},
        {"{\"type\":\"a\",\"type\":\"b\"}", E_BAD_JSON, NULL},
        {"{\"type\":\"a\\u0000\"}", E_BAD_JSON, NULL},
        {"5", E_BAD_REQUEST, "the event is not a JSON object"},
        {"[]", E_BAD_REQUEST, "the array holds no event"},
        {"{}", E_BAD_REQUEST, "\"type\" is missing"},
        {"{\"type\":\"grey.task.offload\",\"data\":{}}", E_BAD_REQUEST,
         "\"type\" begins with grey.task., which only the site itself says"},
        {"[{\"type\":\"a\"},[]]", E_BAD_REQUEST, "event 1 is not a JSON object"},
        {"[{\"type\":\"a\"},{\"type\":5}]", E_BAD_REQUEST, "event 1: \"type\" must be a string"},
        {"{\"type\":\"\"}", E_BAD_REQUEST, "\"type\" must not be empty"},
        {"{\"type\":\"a\",\"id\":\"\"}", E_BAD_REQUEST, "\"id\" must not be empty"},
        {"{\"type\":\"a\",\"id\":null}", E_OK, ""},
        {"{\"type\":\"a\",\"priority\":\"urgent\"}", E_BAD_REQUEST,
         "\"priority\" must be \"critical\", \"high\", \"normal\" or \"low\""},
        {"{\"type\":\"a\",\"priority\":1}", E_BAD_REQUEST, "\"priority\" must be \"critical\", \"high\", \"normal\" or \"low\""},
        {"{\"type\":\"a\",\"prio\":\"high\"}", E_BAD_REQUEST,
         "\"prio\" is no field of an event; one with \"specversion\":\"1.0\" may have extensions"},
        {"{\"type\":\"a\",\"data\":1,\"data_base64\":\"\"}", E_BAD_REQUEST,
         "\"data_base64\" stands beside \"data\": there may be only one of them"},
        {"{\"type\":\"a\",\"data_base64\":1}", E_BAD_REQUEST, "\"data_base64\" must be a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(say(d, cases[i].text), cases[i].err);
        if (cases[i].err != E_OK && cases[i].detail != NULL) {
            assert_string_equal(d->fault.text, cases[i].detail);
        }
    }
    builder_reset(&d->payload);
    assert_int_equal(intake_json(bytes_str("{"), bytes_str(""), &d->options, &d->payload, &d->result, NULL), E_BAD_JSON);
    intake_result_free(&d->result);
    door_free(d);
}

/* If this failed, a device's wrong clock would cost its events, or the core be given a time that no program can read. */
static void a_time_may_be_wrong_but_must_be_one(void **context) {
    (void)context;
    static const char *const right[] = {"2026-07-30T10:00:02Z",           "2026-07-30t10:00:02.5z",    "9999-12-31T23:59:59Z",
                                        "1969-12-31T23:59:59.999999999Z", "0000-01-01T00:00:00-00:00", "2024-02-29T00:00:00+23:59",
                                        "2000-02-29T00:00:00Z",           "2016-12-31T23:59:60Z"};
    static const char *const wrong[] = {"now",
                                        "-1",
                                        "2026-07-30",
                                        "1785405602",
                                        "2026-07-30T10:00:02",
                                        "2026-07-30 10:00:02Z",
                                        "2026-07-30T10:00:02.Z",
                                        "2026-07-30T10:00:02,5Z",
                                        "2026-07-30T10:00:02+1400",
                                        "2026-07-30T10:00:02+14",
                                        "2026-07-30T10:00:02+24:00",
                                        "2026-07-30T10:00:02-00:60",
                                        "2026-07-30T10:00:02Z ",
                                        " 2026-07-30T10:00:02Z",
                                        "2026-07-30T10:00:02ZZ",
                                        "2026-07-30T24:00:00Z",
                                        "2026-07-30T10:60:02Z",
                                        "2026-07-30T10:00:61Z",
                                        "2026-13-01T00:00:00Z",
                                        "2026-00-01T00:00:00Z",
                                        "2026-04-31T00:00:00Z",
                                        "2026-02-29T00:00:00Z",
                                        "1900-02-29T00:00:00Z",
                                        "2026-01-00T00:00:00Z",
                                        "026-07-30T10:00:02Z",
                                        "-026-07-30T10:00:02Z",
                                        "+2026-07-30T10:00:02Z"};
    struct door *d = door_new();
    char text[200];
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        (void)snprintf(text, sizeof text, "{\"type\":\"t\",\"time\":\"%s\"}", right[i]);
        assert_int_equal(say(d, text), E_OK);
        assert_text(d->events[0].time, right[i]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        (void)snprintf(text, sizeof text, "[{\"type\":\"t\"},{\"type\":\"t\",\"time\":\"%s\"}]", wrong[i]);
        assert_int_equal(say(d, text), E_BAD_REQUEST);
        assert_non_null(strstr(d->fault.text, "event 1: \"time\" is not a date and time of RFC 3339"));
    }
    door_free(d);
}

/* What would not fit the log must be refused at the door; what fits must not be. */
static void bounds_are_exact(void **context) {
    (void)context;
    struct door *d = door_new();
    struct builder b;
    builder_init(&b, LIMIT_BATCH_BYTES + 100);
    static char big[LIMIT_EVENT_BYTES + 1];
    memset(big, '7', sizeof big);
    static const char *const fields[] = {"type", "id", "source", "subject", "time", "datacontenttype", "traceparent"};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        for (size_t over = 0; over < 2; over++) {
            builder_reset(&b);
            bool time = strcmp(fields[i], "time") == 0;
            const char *begin = time ? "2026-07-30T10:00:02." : "", *end = time ? "Z" : "";
            builder_addf(&b, "{%s\"%s\":\"%s%.*s%s\"}", i == 0 ? "" : "\"type\":\"t\",", fields[i], begin,
                         (int)(LIMIT_EVENT_FIELD_BYTES - strlen(begin) - strlen(end) + over), big, end);
            assert_int_equal(knock(d, builder_bytes(&b)), over ? E_BAD_REQUEST : E_OK);
            if (over) {
                assert_non_null(strstr(d->fault.text, "is longer than 256 bytes"));
            }
        }
    }
    for (size_t over = 0; over < 2; over++) {
        builder_reset(&b);
        builder_add_str(&b, "{\"type\":\"t\",\"data\":\"");
        builder_add(&b, bytes_of(big, LIMIT_EVENT_BYTES - 2 + over));
        builder_add_str(&b, "\"}");
        assert_int_equal(knock(d, builder_bytes(&b)), over ? E_TOO_LARGE : E_OK);
    }
    for (size_t over = 0; over < 2; over++) {
        builder_reset(&b);
        builder_add_str(&b, "[{\"type\":\"t\"}");
        for (size_t i = 1; i < LIMIT_BATCH_EVENTS + over; i++) {
            builder_add_str(&b, ",{\"type\":\"t\"}");
        }
        builder_add_str(&b, "]");
        assert_int_equal(knock(d, builder_bytes(&b)), over ? E_TOO_LARGE : E_OK);
    }
    for (size_t over = 0; over < 2; over++) { /* the most bytes in the most events, each with all that is filled in */
        d->options.traceparent = bytes_of(big, 55);
        builder_reset(&b);
        size_t each = LIMIT_BATCH_BYTES / LIMIT_BATCH_EVENTS - sizeof "{\"type\":\"t\",\"data\":\"\"},";
        for (size_t i = 0; i < LIMIT_BATCH_EVENTS; i++) {
            builder_add_str(&b, i == 0 ? "[" : ",");
            builder_add_str(&b, "{\"type\":\"t\",\"data\":\"");
            builder_add(&b, bytes_of(big, each));
            builder_add_str(&b, "\"}");
        }
        builder_add_str(&b, "]");
        while (b.size < LIMIT_BATCH_BYTES + over) {
            builder_add_byte(&b, ' ');
        }
        assert_int_equal(knock(d, builder_bytes(&b)), over ? E_TOO_LARGE : E_OK);
    }
    builder_free(&b);
    door_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_short_form_is_taken),
        cmocka_unit_test(cloud_events_are_taken),
        cmocka_unit_test(data_is_kept_byte_for_byte),
        cmocka_unit_test(refusals_name_element_and_field),
        cmocka_unit_test(a_time_may_be_wrong_but_must_be_one),
        cmocka_unit_test(bounds_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
