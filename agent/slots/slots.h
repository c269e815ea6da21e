/* slots.h: which version of the programs a gateway starts: two folders, a state file and a link that is moved whole.
 *
 *     DIR/state      what follows, one line with its checksum, replaced whole and synced
 *     DIR/a, DIR/b   a version each, complete or not there
 *     DIR/current    a link to the one that runs: a, b, or the base folder with what the package brought
 *
 * At any moment, also after a power cut between any two of its steps, slots_boot finds a version that is whole: the kept one is not touched until
 * another was confirmed, and what is on trial has a bounded number of starts.  Only root writes here; anybody may read.
 * All calls block.  docs/UPDATES.md. */
#ifndef AGENT_SLOTS_H
#define AGENT_SLOTS_H

#include "federation/update.h"
#include "platform/fault.h"

#define SLOTS_STARTS 3u                   /* of a version on trial; then it is left */
#define SLOTS_UNARMED (SLOTS_STARTS + 1u) /* of a root on trial: who chooses at power-on was not told of it yet */

enum slots_place { SLOTS_NONE = 0, SLOTS_BASE, SLOTS_A, SLOTS_B };

struct slots_state {
    enum slots_place keep; /* confirmed; SLOTS_BASE at first */
    uint8_t keep_id[UPDATE_ID_BYTES];
    uint64_t floor;       /* lower counters are refused */
    enum slots_place try; /* on trial; SLOTS_NONE: nothing is */
    uint8_t try_id[UPDATE_ID_BYTES];
    uint64_t try_counter;
    uint32_t left;                      /* starts of it */
    uint8_t failed_id[UPDATE_ID_BYTES]; /* the last that did not make it; zeros: none */
    uint32_t failed_why;                /* the number of an error */
};

struct slots {
    const char *dir, *base; /* borrowed; base: the folder of SLOTS_BASE */
    struct slots_state state;
    /* Called before each step that a power cut could separate from the next; NULL: nobody wants to know. */
    void (*before)(void *context, const char *step);
    void *context;
};

/* Reads DIR/state.  No file: nothing was installed yet.  E_UPDATE_STATE: damaged; the state is then that of no file, good for slots_boot only. */
enum grey_error slots_open(struct slots *s, const char *dir, const char *base, struct fault *f);
const char *slots_name(enum slots_place p); /* "-", "base", "a", "b" */
/* The folder of a place; path: LIMIT_PATH_BYTES + 1. */
void slots_path(const struct slots *s, enum slots_place p, char *path);

/* Before each start of the programs: counts a start of what is on trial down, or leaves it when none is left, and points the link.  Files that are not what was
 * installed are not started: a trial is left, and instead of a kept version the base runs, so that the site gives it again. */
enum grey_error slots_boot(struct slots *s, struct fault *f);
/* What is on trial is kept from now on, and its counter is the floor.  E_CONDITION: nothing of that id is on trial (kept already: E_OK). */
enum grey_error slots_confirm(struct slots *s, const uint8_t id[UPDATE_ID_BYTES], struct fault *f);
/* What is on trial is left, for the reason with that number. */
enum grey_error slots_revert(struct slots *s, uint32_t why, struct fault *f);
/* From now on versions from `counter` on are taken. */
enum grey_error slots_allow(struct slots *s, uint64_t counter, struct fault *f);
/* What the package brought runs from now on; the floor stays. */
enum grey_error slots_to_base(struct slots *s, struct fault *f);
/* Remembers that this one was refused or left. */
enum grey_error slots_note_failed(struct slots *s, const uint8_t id[UPDATE_ID_BYTES], uint32_t why, struct fault *f);

/* slotfill.c: puts the bundle into the slot that does not run, on trial from the next start on.  Signature, product, architecture, counter and the hash of each file are looked at
 * before anything is written, and the hashes again as they lie on the disk.  The same bundle twice: E_OK, nothing is done.
 * m: what the bundle says, borrowing from header, as far as it could be read (file_count 0: not at all).  E_UPDATE_*, E_SYSTEM, E_IO, E_DISK_FULL. */
struct slots_wants {
    uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES];
    const char *product, *architecture;
    uint64_t floor; /* beside the state's */
};
enum grey_error slots_fill(struct slots *s, const char *bundle, const struct slots_wants *w, uint8_t header[UPDATE_HEADER_BYTES],
                           struct update_manifest *m, struct fault *f);

/* --- slotroot.c: slots that are partitions, with a whole root in each.  DIR/a and DIR/b lead to them, DIR/current says which one runs.  What is
 * started is decided before there is a root, from a partition of its own (deploy/image/slot), which also counts the starts of a trial.  So each
 * change is made in two places, in an order from which slots_started can tell what was meant, wherever the power went. --- */

enum slots_word {
    SLOTS_KEEP, /* that slot is started from now on, and nothing is on trial; said twice it does nothing */
    SLOTS_TRY   /* that slot is started SLOTS_STARTS times, then the one that is kept again */
};
struct slots_chooser {
    enum grey_error (*tell)(void *context, enum slots_word word, enum slots_place p, struct fault *f);
    void *context;
};

/* After the start of root `running` (SLOTS_A or SLOTS_B): what was on trial and was left counts as failed; which one runs is the one that is kept, where it is not on trial. */
enum grey_error slots_started(struct slots *s, const struct slots_chooser *c, enum slots_place running, struct fault *f);
/* The image in the bundle goes to the slot that does not run, on trial from the next start on.  Like slots_fill; E_UPDATE_UNHEALTHY: it was left here before. */
enum grey_error slots_fill_root(struct slots *s, const struct slots_chooser *c, const char *bundle, const struct slots_wants *w,
                                uint8_t header[UPDATE_HEADER_BYTES], struct update_manifest *m, struct fault *f);
enum grey_error slots_confirm_root(struct slots *s, const struct slots_chooser *c, const uint8_t id[UPDATE_ID_BYTES],
                                   struct fault *f);
enum grey_error slots_revert_root(struct slots *s, const struct slots_chooser *c, uint32_t why, struct fault *f);

/* Puts the image of a bundle, with an imagemap (federation/imagemap.h) or as its only file, where `out` is, a block device or a file, with the same checks: for who keeps
 * the state by himself. */
enum grey_error slots_unpack(const char *bundle, const struct slots_wants *w, const char *out, uint8_t header[UPDATE_HEADER_BYTES],
                             struct update_manifest *m, struct fault *f);

/* For slotfill.c and slotroot.c. */
void slots_step(struct slots *s, const char *step);
enum grey_error slots_save(struct slots *s, const struct slots_state *next, struct fault *f);
enum grey_error slots_point(struct slots *s, enum slots_place p, struct fault *f); /* moves DIR/current */
void slots_leave(struct slots_state *st, uint32_t why);                            /* what is on trial */

#endif
