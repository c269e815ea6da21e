/* Tasks that an emergency stopped: the leader tells of each by an event of the site.  What a former leader did not come to tell is told again;
 * the site remembers the ids, so each goes up once. */
#include <inttypes.h>
#include <stdio.h>

#include "agent/node/node_core.h"
#include "agent/work/work.h"
#include "federation/offload.h"
#include "federation/record.h"
#include "include/grey/protocol.h"
#include "platform/json.h"
#include "platform/log.h"

#define AT_ONCE 16u
#define DATA_BYTES_MAX 1024u
#define TOLD_AGAIN_MS 600000 /* by a new leader: what is older the former one has told */

static void put_event(struct node *n, const struct scheduler_alarm *a, struct builder *out) {
    char name[OFFLOAD_NAME_BYTES], id[OFFLOAD_NAME_BYTES + 32], source[LIMIT_NAME_BYTES + 16];
    struct builder text;
    struct json_writer w;
    offload_name(name, bytes_str(a->task.text), a->token);
    (void)snprintf(id, sizeof id, EMERGENCY_STOPPED ":%s", name);
    (void)snprintf(source, sizeof source, "grey://%s", n->site.text);
    builder_init(&text, DATA_BYTES_MAX);
    json_writer_init(&w, &text);
    json_open(&w, '{');
    json_member_str(&w, "task", a->task.text);
    json_member_uint(&w, "token", a->token);
    json_member_str(&w, "tenant", a->tenant.text);
    json_member_str(&w, "lane", task_name(NAMES_LANE, a->lane));
    json_member_str(&w, "node", a->node.text);
    json_member_uint(&w, "cpu_permille", a->cpu_permille);
    json_member_uint(&w, "memory_permille", a->memory_permille);
    json_close(&w);
    struct event e = {.id = bytes_str(id),
                      .source = bytes_str(source),
                      .type = bytes_str(EMERGENCY_STOPPED),
                      .subject = bytes_str(name),
                      .data = builder_bytes(&text),
                      .priority = PRIORITY_HIGH,
                      .has_id = true};
    record_encode(&e, out);
    builder_free(&text);
    log_warn("emergency", "stop",
             "task=%s token=%" PRIu64 " node=%s cpu=%" PRIu32 ".%" PRIu32 "%% memory=%" PRIu32 ".%" PRIu32 "%%", a->task.text,
             a->token, a->node.text, a->cpu_permille / 10, a->cpu_permille % 10, a->memory_permille / 10, a->memory_permille % 10);
}

static void told(void *context, const struct node_answer *a) {
    struct node *n = context;
    n->emergency.busy = false;
    if (a->err == E_OK) {
        n->emergency.told = n->emergency.telling;
    } else { /* again with the next look */
        log_limited(LOG_WARN, "emergency", "propose", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
}

void emergency_look(struct node *n, const struct scheduler *s) {
    struct emergency *h = &n->emergency;
    if (!n->leading) {
        h->told = 0;
        return;
    }
    uint64_t oldest = s->alarm_count > SCHEDULER_ALARMS ? s->alarm_count - SCHEDULER_ALARMS : 0;
    h->told = h->told > s->alarm_count || h->told < oldest ? oldest : h->told; /* above: the scheduler was made anew */
    while (h->told < s->alarm_count && s->alarms[h->told % SCHEDULER_ALARMS].time_ms < s->now_ms - TOLD_AGAIN_MS) {
        h->told++;
    }
    if (h->busy || h->told == s->alarm_count) {
        return;
    }
    struct builder b;
    uint64_t count = s->alarm_count - h->told < AT_ONCE ? s->alarm_count - h->told : AT_ONCE;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    codec_put_array(&b, (uint32_t)count);
    for (uint64_t i = h->told; i < h->told + count; i++) {
        put_event(n, &s->alarms[i % SCHEDULER_ALARMS], &b);
    }
    struct blob *blob = builder_blob(&b);
    builder_free(&b);
    if (blob != NULL) {
        h->busy = true;
        h->telling = h->told + count;
        requests_propose(n, ENTRY_EVENTS, blob, true, told, n);
        blob_unref(blob);
    }
}
