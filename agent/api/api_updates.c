/* Updates of our programs, as this gateway and its site stand to them. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/state/holding.h"
#include "agent/state/updating.h"
#include "platform/now.h"

static void put_time(struct json_writer *w, const char *name, int64_t ms) {
    char text[32];
    now_format(ms, text);
    json_member_str(w, name, text);
}

static void put_gateway(const struct api_call *c, struct json_writer *w, const struct updating_report *r) {
    const struct raft_member *m = node_member(c->api->o.node, r->node);
    char id[24];
    if (m == NULL) { /* it left the site */
        return;
    }
    json_open(w, '{');
    json_member_str(w, "node", m->node.text);
    json_member_str(w, "phase", updating_phase_name(r->phase));
    if (r->phase == UPDATING_FAILED) {
        (void)snprintf(id, sizeof id, "GREY-%u", (unsigned)r->why);
        json_member_str(w, "error", id);
    }
    put_time(w, "since", r->since_ms);
    json_close(w);
}

static void put_update(struct api_call *c, struct json_writer *w, const struct holding *h) {
    const struct object_manifest *any = h->force.version > 0 ? &h->force : &h->coming;
    struct updating u;
    bool known = h->force.version > 0 && updating_find(state_table(node_state(c->api->o.node)), h->force.name, &u);
    json_open(w, '{');
    json_member_text(w, "name", any->name);
    if (h->force.version > 0) {
        json_member_uint(w, "version", h->force.version);
        json_member_uint(w, "issue", h->force.issue);
        json_member_uint(w, "bytes", h->force.size);
        put_time(w, "since", h->since_ms);
        json_member_str(w, "health", supply_health_name(h->health));
    }
    if (h->coming.version > 0) {
        api_coming_put(c, w, &h->coming);
    }
    const struct raft_member *m = known && u.turn != 0 ? node_member(c->api->o.node, u.turn) : NULL;
    if (m != NULL) {
        json_member_str(w, "turn", m->node.text);
        put_time(w, "turn_until", u.until_ms);
    }
    json_key(w, "gateways");
    json_open(w, '[');
    for (uint32_t i = 0; known && u.issue == h->force.issue && i < u.count; i++) {
        put_gateway(c, w, &u.at[i]);
    }
    json_close(w);
    json_close(w);
}

void api_updates_get(struct api_call *c) {
    struct api_answer a;
    struct bytes key = {0};
    struct holding h;
    struct updater_facts facts = {.slot = "-"};
    if (c->api->o.updater != NULL) {
        updater_facts(c->api->o.updater, &facts);
    }
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "program", GREY_VERSION);
    json_member_str(&a.w, "slot", facts.slot);
    json_member_hex(&a.w, "running_id", bytes_of(facts.running_id, UPDATE_ID_BYTES));
    json_member_bool(&a.w, "on_trial", facts.on_trial);
    json_member_bool(&a.w, "damaged", facts.damaged);
    json_member_uint(&a.w, "floor", facts.floor);
    json_key(&a.w, "updates");
    json_open(&a.w, '[');
    while (holding_next(state_table(node_state(c->api->o.node)), key, &key, &h)) {
        if (h.force.kind == OBJECT_UPDATE || h.coming.kind == OBJECT_UPDATE) {
            put_update(c, &a.w, &h);
        }
    }
    json_close(&a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}
