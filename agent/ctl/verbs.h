/* verbs.h: the table of greyctl's verbs, from which dispatch, help, completion and the manual page's list come. */
#ifndef AGENT_CTL_VERBS_H
#define AGENT_CTL_VERBS_H

#include "agent/ctl/client.h"
#include "agent/ctl/render.h"

#define VERB_OPTIONS_MAX 12u
#define VERB_ARGS_MAX 16u

enum verb_output { OUTPUT_TABLE, OUTPUT_WIDE, OUTPUT_JSON };

struct verb_option {
    const char *name, *value, *help; /* value NULL: a switch */
};

/* One call of greyctl.  options[i] belongs to verb->options[i]: NULL when not given, "" for a switch that is. */
struct call {
    const struct verb *verb;
    struct client client;
    struct client_problem problem; /* filled by whoever failed */
    enum verb_output output;
    bool colour;
    const char *args[VERB_ARGS_MAX];
    unsigned arg_count;
    const char *options[VERB_OPTIONS_MAX];
};

/* Runs a verb: prints its result to stdout and returns the exit code.  On failure it has told the user why. */
typedef int verb_run(struct call *c);

struct verb {
    const char *name; /* one word or two */
    const char *args; /* as the usage line shows them */
    unsigned args_min, args_max;
    const char *help; /* one line */
    verb_run *run;    /* NULL: of a later version */
    struct verb_option options[VERB_OPTIONS_MAX];
};

/* The whole table; *count verbs in the order of the help. */
const struct verb *verbs(size_t *count);
/* The verb that words[0..count) begin with, the longest match; *used says how many words it took.  NULL: none. */
const struct verb *verbs_find(const char *const *words, unsigned count, unsigned *used);
/* The known verb that is spelt most alike. */
const char *verbs_nearest(const char *text);
bool verbs_is_group(const char *word); /* verbs of two words begin with it: "kv" */
/* Options that every verb takes. */
extern const struct verb_option verbs_global[];
extern const size_t verbs_global_count;

/* The value of the option `name`, NULL when it was not given. */
const char *verbs_option(const struct call *c, const char *name);
/* An option that is a number; `fallback` when not given.  False, and the user told, when it is none or out of range. */
bool verbs_number(struct call *c, const char *name, uint64_t min, uint64_t max, uint64_t fallback, uint64_t *out);
/* Prints b to stdout and frees it.  CTL_OK, or CTL_FAILED when stdout takes no more. */
int verbs_print(struct builder *b);
/* GET; with -o json prints the answer as it is and returns true with *code set: the verb is done.  Else *out is the document. */
bool verbs_get(struct call *c, enum client_side side, const char *path, json_t **out, int *code);
/* A request that changes something.  True, with *code: it failed and the user was told, or with -o json (or when it is none) the answer
 * was printed as it is.  Else *out is the document, NULL when nothing was answered; the caller owns it. */
bool verbs_send(struct call *c, const struct client_request *q, json_t **out, int *code);
/* verbs_send of a JSON body or none; frees the body. */
bool verbs_send_json(struct call *c, enum client_side side, const char *method, const char *path, struct builder *body,
                     json_t **out, int *code);
/* Asks the core and prints its answer as it came. */
int verbs_relay(struct call *c, const char *method, const char *path, struct bytes body, const char *type);
/* Is it a name of a site, a gateway ...?  False: the user was told. */
bool verbs_named(const char *what, const char *name);
/* An option that is a time, such as 90s, 30m, 12h or 7d; seconds without a letter.  False, and the user told, when it is none or above
 * days_max; *seconds stays as it is when it was not given. */
bool verbs_seconds(const struct call *c, const char *name, uint64_t days_max, uint64_t *seconds);

/* help.c */
void help_all(struct builder *out);
void help_verb(const struct verb *v, struct builder *out);
void help_group(const char *group, struct builder *out);                 /* all verbs that begin with the word */
enum grey_error help_completion(const char *shell, struct builder *out); /* E_USAGE: not bash, zsh or fish */

/* Small readers for answers; safe on NULL. */
const char *verbs_text(const json_t *object, const char *name); /* "" when absent or no text */
uint64_t verbs_uint(const json_t *object, const char *name);
bool verbs_hex(const json_t *object, const char *name, uint8_t *out, size_t size); /* false: not so many hexadecimal digits */
double verbs_real(const json_t *object, const char *name, double fallback);

verb_run members_add, members_remove, members_leave, members_transfer;
verb_run site_status, site_alive, site_cluster, site_members, site_leader, site_queue, site_federation, site_snapshot_create,
    site_snapshot_list, site_snapshot_restore;
verb_run pairs_get, pairs_put, pairs_del, pairs_list, pairs_watch;
verb_run admit_token, admit_list, admit_end, admit_certificates, admit_revoke, admit_register, admit_registered, admit_unregister;
verb_run events_send, events_tail;
verb_run trail_list, trail_verify;
verb_run jobs_submit, jobs_list, jobs_show, jobs_cancel, jobs_logs, jobs_tenants, jobs_tenant, jobs_tenant_set, jobs_tenant_remove,
    proofs_show;
verb_run fleet_list, fleet_show, fleet_events;
verb_run given_config_set, given_config_get, given_policy_set, given_policy_get, given_rollout, given_label, given_update_push;
verb_run appraised_list, appraised_show, appraised_forget, appraised_policy;
verb_run kept_status, kept_accept;
verb_run updates_status;
verb_run local_explain, local_config_show, local_config_check, local_completion, local_help, local_version;
verb_run tokens_create, tokens_list, tokens_revoke;
verb_run doctor_run;
verb_run proven_status, proven_now;
verb_run link_status, link_try;
verb_run cost_budget, cost_probe;
/* What the link may carry just now, of an answer of /v1/federation/status. */
void cost_put_limits(const json_t *federation, struct builder *out);

#endif
