#include "core/commission.h"

#include <string.h>

#include "platform/json.h"

static void pass(struct json_writer *w, struct bytes object, const char *name) {
    struct bytes value = json_raw_member(object, name);
    if (value.size > 0) {
        json_key(w, name);
        json_raw(w, value);
    }
}

enum grey_error commission_write(struct builder *out, const char *id, const char *tenant, struct bytes errand, struct fault *f) {
    static const char *const members[] = {"command", "env", "stdin", "lane", "delivery", "timeout_seconds"};
    static const char *const amounts[] = {"cpu_millicores", "memory_bytes", "disk_bytes"};
    json_t *doc = json_read(errand, f);
    if (doc == NULL) {
        return f->code;
    }
    enum grey_error err = json_is_object(doc) ? E_OK : fault_set(f, E_BAD_REQUEST, "a task of a site is no object");
    bool needs = json_is_object(json_object_get(doc, "resources"));
    json_decref(doc);
    if (err != E_OK) {
        return err;
    }
    struct json_writer w;
    json_writer_init(&w, out);
    json_open(&w, '{');
    json_member_str(&w, "id", id);
    if (tenant != NULL) {
        json_member_str(&w, "tenant", tenant);
    }
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        pass(&w, errand, members[i]);
    }
    if (needs) {
        struct bytes resources = json_raw_member(errand, "resources");
        json_member_open(&w, "resources", '{');
        for (size_t i = 0; i < sizeof amounts / sizeof amounts[0]; i++) {
            pass(&w, resources, amounts[i]);
        }
        json_close(&w);
    }
    json_close(&w);
    return out->err;
}

bool commission_is_once(struct bytes errand) {
    json_t *doc = json_read(errand, NULL);
    const char *delivery = json_string_value(json_object_get(doc, "delivery"));
    bool may_repeat = json_is_object(doc) && (delivery == NULL || strcmp(delivery, "at-least-once") == 0);
    json_decref(doc);
    return !may_repeat;
}
