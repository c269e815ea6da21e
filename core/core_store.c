#include "core/core_store.h"

#include <string.h>

#include "core/store_objects.h"
#include "core/store_restored.h"
#include "platform/log.h"
#include "platform/now.h"

#define ANSWER_BYTES_MAX (1024u * 1024u)

struct call {
    struct storage_job storage;
    struct core_api *api;
    struct http_request *q;
    struct builder out;
    struct json_writer w;
};

static void run_show(struct storage_job *storage, struct store *store) {
    struct call *c = (struct call *)(void *)storage;
    json_open(&c->w, '{');
    json_key(&c->w, "restored");
    storage->err = store_restored_list(store, &c->w, &storage->fault);
    json_close(&c->w);
}

static void run_accept(struct storage_job *storage, struct store *store) {
    int64_t now_ms = now_wall_ms();
    storage->err = store_restored_accept(store, now_ms, &storage->fault);
    storage->err = storage->err != E_OK ? storage->err : store_holdings_outdo(store, now_ms, &storage->fault);
}

static void call_done(struct worker_job *job) {
    struct call *c = (struct call *)(void *)job;
    enum grey_error err = c->storage.err;
    if (err != E_OK) {
        http_reply_error(c->q, err, c->storage.fault.text);
    } else if (c->storage.is_write) {
        log_warn("store", "accept", "peer=%s: the older copy of the store counts from now on", http_peer_address(c->q));
        http_reply(c->q, 204, NULL, bytes_of(NULL, 0), NULL, 0);
        giver_news(c->api->giver);
    } else {
        http_reply_json(c->q, 200, &c->out, NULL, 0);
    }
    builder_free(&c->out);
    mem_free(c);
}

bool core_store_handle(struct core_api *api, struct http_request *q) {
    struct bytes path = http_path(q);
    bool accept = bytes_equal_str(path, "/v1/store/accept"), post = strcmp(http_method(q), "POST") == 0;
    if (!accept && !bytes_equal_str(path, "/v1/store")) {
        return false;
    }
    if (accept ? !post : strcmp(http_method(q), "GET") != 0 && strcmp(http_method(q), "HEAD") != 0) {
        http_reply_error(q, E_METHOD, accept ? "this is done with POST" : "this is read with GET");
        return true;
    }
    struct call *c = mem_new(1, sizeof *c);
    if (c == NULL) {
        http_reply_error(q, E_NO_MEMORY, "");
        return true;
    }
    c->api = api;
    c->q = q;
    c->storage = (struct storage_job){.job = {.done = call_done}, .is_write = accept, .run = accept ? run_accept : run_show};
    builder_init(&c->out, ANSWER_BYTES_MAX);
    json_writer_init(&c->w, &c->out);
    enum grey_error err = worker_submit(api->storage, &c->storage.job);
    if (err != E_OK) {
        http_reply_error(q, err, "");
        builder_free(&c->out);
        mem_free(c);
    }
    return true;
}
