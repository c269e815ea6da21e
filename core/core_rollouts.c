#include "core/core_rollouts.h"

#include <string.h>

#include "core/store_rollouts.h"
#include "platform/now.h"

#define ANSWER_BYTES_MAX (256u * 1024u)
#define LABELS_MAX 64u

struct call {
    struct storage_job storage;
    struct core_api *api;
    struct http_request *q;
    enum object_kind kind;
    char name[LIMIT_NAME_BYTES + 1]; /* of the object or the site */
    json_t *body;
    struct store_stage stages[ROLLOUT_STAGES_MAX];
    const char *labels[LABELS_MAX]; /* in body */
    uint32_t count;
    struct builder out;
    struct json_writer w;
};

static void run_rollout_put(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    storage->err = store_stages_put(store, c->kind, c->name, c->stages, c->count, &storage->fault);
}

static void run_rollout_get(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    storage->err = store_rollout_get(store, c->kind, c->name, now_wall_ms(), &c->w, &storage->fault);
}

static void run_labels_put(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    storage->err = store_labels_put(store, c->name, c->labels, c->count, &storage->fault);
}

static void run_labels_get(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    storage->err = store_labels_get(store, c->name, &c->w, &storage->fault);
}

static void call_free(struct call *c) {
    json_decref(c->body);
    builder_free(&c->out);
    mem_free(c);
}

static void call_done(struct worker_job *job) {
    struct call *c = (struct call *)(void *)job;
    enum grey_error err = c->storage.err;
    if (err != E_OK) {
        http_reply_error(c->q, err, err == E_NOT_FOUND ? "no such site, object or rollout" : c->storage.fault.text);
    } else if (c->storage.is_write) {
        http_reply(c->q, 204, NULL, bytes_of(NULL, 0), NULL, 0);
        giver_news(c->api->giver); /* a site may be in a stage now */
    } else {
        http_reply_json(c->q, 200, &c->out, NULL, 0);
    }
    call_free(c);
}

/* key=value, both of letters, digits, '.', '_' and '-'. */
static bool label_valid(const char *text) {
    const char *equals = text == NULL ? NULL : strchr(text, '=');
    return equals != NULL && grey_name_valid(text, (size_t)(equals - text)) && grey_name_valid(equals + 1, strlen(equals + 1)) &&
           strlen(text) <= ROLLOUT_LABEL_BYTES_MAX;
}

static const char *read_labels(struct call *c) {
    if (!json_is_array(c->body) || json_array_size(c->body) > LABELS_MAX) {
        return "expected an array of up to 64 labels such as \"ring=canary\"";
    }
    for (c->count = 0; c->count < json_array_size(c->body); c->count++) {
        c->labels[c->count] = json_string_value(json_array_get(c->body, c->count));
        if (!label_valid(c->labels[c->count])) {
            return "a label is key=value, each 1 to 64 of A-Z a-z 0-9 . _ -";
        }
    }
    return NULL;
}

static const char *read_stages(struct call *c) {
    const json_t *stages = json_object_get(c->body, "stages");
    if (!json_is_array(stages) || json_array_size(stages) > ROLLOUT_STAGES_MAX) {
        return "expected {\"stages\":[{\"label\":\"ring=canary\",\"soak_seconds\":600}]}, at most 16 of them, or none";
    }
    for (c->count = 0; c->count < json_array_size(stages); c->count++) {
        const json_t *one = json_array_get(stages, c->count), *soak = json_object_get(one, "soak_seconds");
        const char *label = json_string_value(json_object_get(one, "label"));
        json_int_t seconds = json_integer_value(soak);
        if (!label_valid(label) || !json_is_integer(soak) || seconds < 0 || seconds > ROLLOUT_SOAK_S_MAX) {
            return "a stage wants a label (key=value) and soak_seconds, at most 30 days";
        }
        memcpy(c->stages[c->count].label, label, strlen(label) + 1);
        c->stages[c->count].soak_s = (uint32_t)seconds;
    }
    return NULL;
}

static const char *read_kind(struct call *c) {
    char text[16];
    c->kind = OBJECT_CONFIG;
    if (!http_query(c->q, "kind", text, sizeof text)) {
        return NULL;
    }
    for (enum object_kind k = OBJECT_CONFIG; k <= OBJECT_UPDATE; k++) {
        if (strcmp(text, object_kind_name(k)) == 0) {
            c->kind = k;
            return NULL;
        }
    }
    return "kind is config, policy, data or update";
}

static void handle(struct core_api *api, struct http_request *q, struct bytes name, bool labels) {
    bool put = strcmp(http_method(q), "PUT") == 0;
    struct fault f = {0};
    if (!put && strcmp(http_method(q), "GET") != 0) {
        http_reply_error(q, E_METHOD, "this is read with GET and set with PUT");
        return;
    }
    struct call *c = mem_new(1, sizeof *c);
    if (c == NULL) {
        http_reply_error(q, E_NO_MEMORY, "");
        return;
    }
    c->api = api;
    c->q = q;
    c->storage = (struct storage_job){.job = {.done = call_done}, .is_write = put};
    c->storage.run = labels ? (put ? run_labels_put : run_labels_get) : (put ? run_rollout_put : run_rollout_get);
    memcpy(c->name, name.data, name.size);
    builder_init(&c->out, ANSWER_BYTES_MAX);
    json_writer_init(&c->w, &c->out);
    const char *wrong = read_kind(c);
    if (put && wrong == NULL) {
        c->body = json_read(http_body(q), &f);
        wrong = c->body == NULL ? f.text : labels ? read_labels(c) : read_stages(c);
    }
    enum grey_error err = wrong != NULL ? E_BAD_REQUEST : worker_submit(api->storage, &c->storage.job);
    if (err != E_OK) {
        http_reply_error(q, err, wrong);
        call_free(c);
    }
}

bool core_rollouts_handle(struct core_api *api, struct http_request *q) {
    static const char rollouts[] = "/v1/rollouts/", sites[] = "/v1/sites/", labels[] = "/labels";
    struct bytes path = http_path(q);
    bool is_rollout = path.size > strlen(rollouts) && memcmp(path.data, rollouts, strlen(rollouts)) == 0;
    bool is_labels = path.size > strlen(sites) + strlen(labels) && memcmp(path.data, sites, strlen(sites)) == 0 &&
                     memcmp(path.data + path.size - strlen(labels), labels, strlen(labels)) == 0;
    size_t skip = is_rollout ? strlen(rollouts) : strlen(sites), behind = is_rollout ? 0 : strlen(labels);
    if (!is_rollout && !is_labels) {
        return false;
    }
    struct bytes name = bytes_of(path.data + skip, path.size - skip - behind);
    if (!grey_name_valid((const char *)name.data, name.size)) {
        return false;
    }
    handle(api, q, name, is_labels);
    return true;
}
