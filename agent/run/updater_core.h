/* updater_core.h: the inside of the updater, for its sources: updater.c (this gateway's part), delivery.c (a bundle for grey-update), captain.c (as leader), and
 * nobody else. */
#ifndef AGENT_UPDATER_CORE_H
#define AGENT_UPDATER_CORE_H

#include "agent/run/updater.h"
#include "agent/state/holding.h"
#include "platform/worker.h"

#define UPDATER_TARGETS 8u /* objects whose header is known; more are read again when their turn comes */
#define UPDATER_LAG 1000u  /* entries behind, and still well */

struct updater_target {
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t issue;
    uint8_t id[UPDATE_ID_BYTES];
    uint64_t counter, replaces_max;
    enum grey_error fit; /* E_OK, E_UPDATE_FORMAT, E_UPDATE_PRODUCT */
};

struct updater {
    struct conn_context x;
    struct updater_options o;
    struct node *node;
    const char *architecture;
    struct loop_timer timer;
    uint32_t pending; /* answers that are to come */
    bool stopped, freed, proposing, asking, ordering;

    enum slots_place place; /* what this process was started from */
    struct slots_state state;
    uint8_t running_id[UPDATE_ID_BYTES];
    bool damaged, trial, in_turn, was_in_turn, confirmed;
    uint64_t well_since_ms;

    struct updater_target targets[UPDATER_TARGETS], asked;
    uint32_t target_count, oldest;

    /* delivery.c: a bundle on its way to the inbox */
    char inbox[LIMIT_PATH_BYTES + 1];
    int file; /* -1: none */
    struct updater_target writing;
    uint32_t chunk;
    bool reading, came, moving;
    enum grey_error error;
    struct worker_job job;

    /* delivery.c: the word that this version is well, on its way there */
    bool confirming;
    uint8_t confirming_id[UPDATE_ID_BYTES]; /* the worker's until it is done, as are the two below */
    enum grey_error confirm_error;
    struct fault confirm_fault;
    struct worker_job confirm_job;
};

struct table *updater_rows(const struct updater *u);
raft_id updater_self(const struct updater *u);
void updater_propose(struct updater *u, enum entry_kind kind, struct builder *b); /* takes b */
void updater_report(struct updater *u, struct bytes name, uint64_t issue, const struct updating_report *r);
void updater_soon(struct updater *u);
void updater_release(struct updater *u); /* frees it when it was the last to be waited for */

void delivery_prepare(struct updater *u);
void delivery_begin(struct updater *u, const struct holding *h,
                    const struct updater_target *t); /* harmless while one is under way, or lies there */
bool delivery_under_way(const struct updater *u);    /* what is on its way may have greyd restarted at any moment */
void delivery_withdraw(struct updater *u);           /* what was not begun in this gateway's turn is not begun after it */
void delivery_confirm(struct updater *u);            /* that what runs is well; harmless while that is being written, or was */
void delivery_drop(struct updater *u);

bool captain_look(struct updater *u, const struct holding *h); /* as leader: the site's next step; true: it waits for something */

#endif
