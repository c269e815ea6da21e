/* handover.h: a leader that does not reach the core's broker while a neighbour does hands leadership, and with it the link, on.
 *
 * A gateway may be the only one that is cut off: a broken modem, a wrong route, a certificate that was revoked.  Raft does not see that.  So a leader whose
 * broker has not answered for after_ms asks its neighbours whether they reach it; each looks once (one handshake that is closed at once) and says so,
 * and the first that does gets leadership.
 *
 * It must not flap, and must cost nothing when all are cut off: questions are asked after after_ms, 2 after_ms, 4 after_ms ... up to HANDOVER_WAIT_MS_MAX
 * and up to half of that again by chance; who is asked looks at most once in after_ms / 2, and repeats meanwhile what it saw; and who
 * has begun to lead HANDOVER_STARTS_MAX times within an hour keeps leadership until that is over.  Pure: time in monotonic milliseconds and chance are given. */
#ifndef FEDERATION_HANDOVER_H
#define FEDERATION_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#define HANDOVER_WAIT_MS_MAX (4u * 3600000u)
#define HANDOVER_ANSWER_MS 45000u /* a look takes at most 30 s */
#define HANDOVER_STARTS_MAX 3u
#define HANDOVER_HOUR_MS 3600000u

struct handover {
    uint32_t after_ms; /* 0: never */
    uint32_t wait_ms;  /* until the question after the next */
    bool leads, broken;
    uint64_t broken_ms, ask_ms; /* since when; the next question, not before */
    uint64_t number;            /* of the last question */
    uint64_t until_ms;          /* answers to it are awaited; 0: not any more */
    uint64_t starts_ms[HANDOVER_STARTS_MAX];
    uint32_t starts;    /* of leading, ever */
    uint64_t looked_ms; /* 0: never */
    bool looking, saw;
};

void handover_init(struct handover *h, uint32_t after_ms);
void handover_lead(struct handover *h, uint64_t now_ms); /* this gateway leads from now on */
void handover_follow(struct handover *h);
/* The leader's own link: the broker answers, or not. */
void handover_link(struct handover *h, bool reaches, uint64_t now_ms, uint32_t random);
/* True: ask all neighbours now, with h->number. */
bool handover_step(struct handover *h, uint64_t now_ms, uint32_t random);
/* When to step again though nothing happens; UINT64_MAX: no need. */
uint64_t handover_wake_ms(const struct handover *h);
/* A neighbour's answer.  True: hand leadership to it. */
bool handover_answered(struct handover *h, uint64_t number, bool reaches, uint64_t now_ms);

/* Of who is asked: look, or say at once what was seen.  LOOKING: the look that runs answers this one too. */
enum handover_look { HANDOVER_LOOK, HANDOVER_LOOKING, HANDOVER_SAW, HANDOVER_SAW_NOT };
enum handover_look handover_asked(struct handover *h, uint64_t now_ms);
void handover_looked(struct handover *h, bool reaches, uint64_t now_ms);

#endif
