#include "agent/run/outputs.h"

#define OPEN_MAX 64u

struct outputs_request {
    struct outputs_request *next;
    uint64_t number;
    outputs_done *done;
    void *context;
};

void outputs_ask(struct outputs *o, const struct launch_message *read, outputs_done *done, void *context) {
    bool up = launcher_up(o->launcher);
    struct outputs_request *q = up && o->count < OPEN_MAX ? mem_new(1, sizeof *q) : NULL;
    if (q == NULL) {
        done(context, up ? E_BUSY : E_CONNECT, bytes_of(NULL, 0), 0, 0);
        return;
    }
    struct launch_message m = *read;
    m.kind = LAUNCH_READ;
    m.number = ++o->next_number;
    *q = (struct outputs_request){.next = o->first, .number = m.number, .done = done, .context = context};
    o->first = q;
    o->count++;
    launcher_send(o->launcher, &m);
}

void outputs_part(struct outputs *o, const struct launch_message *m) {
    for (struct outputs_request **at = &o->first; *at != NULL; at = &(*at)->next) {
        struct outputs_request *q = *at;
        if (q->number == m->number) {
            *at = q->next;
            o->count--;
            q->done(q->context, E_OK, m->data, m->offset, m->end_offset);
            mem_free(q);
            return;
        }
    }
}

void outputs_give_up(struct outputs *o, enum grey_error why) {
    while (o->first != NULL) {
        struct outputs_request *q = o->first;
        o->first = q->next;
        q->done(q->context, why, bytes_of(NULL, 0), 0, 0);
        mem_free(q);
    }
    o->count = 0;
}
