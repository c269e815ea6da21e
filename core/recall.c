#include "core/recall.h"

#include <stdio.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/now.h"

#define PAGE 64u
#define PAUSE_MS 250u   /* between pages: 256 sites a second are asked, and say hello */
#define HOLES_MAX 4096u /* being watched; of more, sites find out by themselves */

/* A site has sent something beyond a hole: is it still there after a while? */
struct hole {
    struct grey_name site;
    uint64_t incarnation, due_ms;
    grey_epoch epoch;
    enum event_channel channel;
};

struct hole_job {
    struct storage_job storage;
    struct recall *recall;
    struct hole hole;
    struct store_taken taken;
    uint32_t wait_ms;
};

/* One page of sites at a time, as the broker takes them. */
struct page {
    struct storage_job storage;
    struct recall *recall;
    char after[LIMIT_NAME_BYTES + 1];
    struct store_stand stands[PAGE];
    size_t count;
    bool running;
};

struct recall {
    struct loop *loop;
    struct worker *storage;
    struct answers *answers;
    struct page *page;  /* all sites are being told; NULL: done */
    struct hole *holes; /* a ring of HOLES_MAX, in order of their times, nearly */
    uint32_t hole_first, hole_count, jobs;
    struct loop_timer page_timer, hole_timer;
    bool stopping;
};

/* --- all sites ------------------------------------------------------------------------------------------------------------------------------ */

static void run_page(struct storage_job *storage, struct store *store) {
    struct page *p = (struct page *)(void *)storage;
    storage->err = store_stands(store, p->after, now_wall_ms(), p->stands, PAGE, &p->count, &storage->fault);
}

static void page_done(struct worker_job *worker_job) {
    struct page *p = (struct page *)(void *)worker_job;
    struct recall *r = p->recall;
    p->running = false;
    r->jobs--;
    for (size_t i = 0; i < p->count && p->storage.err == E_OK; i++) {
        struct answer one = {
            .site = p->stands[i].site, .channel = CHANNEL_CONTROL, .kind = MESSAGE_DOWN_RESYNC, .welcome = p->stands[i].at};
        answers_give(r->answers, &one);
    }
    if (p->count < PAGE || p->storage.err != E_OK) {
        mem_free(p);
        r->page = NULL;
        return;
    }
    (void)snprintf(p->after, sizeof p->after, "%s", p->stands[p->count - 1].site.text);
    if (!r->stopping) {
        loop_timer_after(r->loop, &r->page_timer, PAUSE_MS);
    }
}

static void next_page(struct recall *r) {
    struct page *p = r->page;
    if (p == NULL || p->running || r->stopping) {
        return;
    }
    p->running = true;
    r->jobs++;
    p->storage = (struct storage_job){.job = {.done = page_done}, .is_write = true, .run = run_page};
    if (worker_submit(r->storage, &p->storage.job) != E_OK) {
        p->running = false; /* sites find out by themselves */
        r->jobs--;
    }
}

static void on_page_timer(void *context) {
    struct recall *r = context;
    if (!answers_wait(r->answers)) {
        next_page(r);
    } /* otherwise when the broker has taken the answers */
}

void recall_go_on(struct recall *r) {
    if (r->page_timer.place == 0) {
        next_page(r);
    }
}

void recall_all(struct recall *r) {
    if (r->page == NULL && (r->page = mem_new(1, sizeof *r->page)) != NULL) {
        r->page->recall = r;
    }
    if (r->page != NULL && !r->page->running) {
        r->page->after[0] = 0;
        next_page(r);
    }
}

/* --- holes ---------------------------------------------------------------------------------------------------------------------------------- */

static void watch(struct recall *r, const struct hole *h, uint32_t wait_ms) {
    if (r->hole_count < HOLES_MAX && !r->stopping) {
        struct hole *place = &r->holes[(r->hole_first + r->hole_count++) % HOLES_MAX];
        *place = *h;
        place->due_ms = loop_now_ms(r->loop) + wait_ms;
        if (r->hole_timer.place == 0) {
            loop_timer_set(r->loop, &r->hole_timer, place->due_ms);
        }
    }
}

static void run_hole(struct storage_job *storage, struct store *store) {
    struct hole_job *job = (struct hole_job *)(void *)storage;
    const struct store_hole hole = {
        .site = job->hole.site.text, .incarnation = job->hole.incarnation, .epoch = job->hole.epoch, .channel = job->hole.channel};
    storage->err = store_hole(store, &hole, now_wall_ms(), &job->taken, &job->wait_ms, &storage->fault);
}

static void hole_done(struct worker_job *worker_job) {
    struct hole_job *job = (struct hole_job *)(void *)worker_job;
    struct recall *r = job->recall;
    const struct hole *h = &job->hole;
    r->jobs--;
    if (job->storage.err == E_OK && job->taken.ask_again) {
        struct answer one = {.site = h->site, .channel = h->channel, .kind = MESSAGE_DOWN_RESYNC};
        one.welcome = (struct sync_welcome){.incarnation = h->incarnation, .epoch = h->epoch, .time_ms = now_wall_ms()};
        one.welcome.position[h->channel] = job->taken.position;
        answers_give_now(r->answers, &one);
    }
    if (job->storage.err == E_OK && job->wait_ms > 0) {
        watch(r, h, job->wait_ms);
    }
    mem_free(job);
}

static void on_hole_timer(void *context) {
    struct recall *r = context;
    uint64_t now_ms = loop_now_ms(r->loop);
    while (r->hole_count > 0 && r->holes[r->hole_first].due_ms <= now_ms) {
        struct hole_job *job = mem_new(1, sizeof *job);
        if (job != NULL) {
            job->storage = (struct storage_job){.job = {.done = hole_done}, .is_write = true, .run = run_hole};
            job->recall = r;
            job->hole = r->holes[r->hole_first];
            job->storage.site = job->hole.site.text;
            r->jobs++;
            if (worker_submit(r->storage, &job->storage.job) != E_OK) { /* busy: the site will find out by itself */
                r->jobs--;
                mem_free(job);
            }
        }
        r->hole_first = (r->hole_first + 1) % HOLES_MAX;
        r->hole_count--;
    }
    if (r->hole_count > 0) {
        loop_timer_set(r->loop, &r->hole_timer, r->holes[r->hole_first].due_ms);
    }
}

void recall_hole(struct recall *r, const struct grey_name *site, uint64_t incarnation, grey_epoch epoch,
                 enum event_channel channel) {
    struct hole h = {.site = *site, .incarnation = incarnation, .epoch = epoch, .channel = channel};
    watch(r, &h, STORE_HOLE_MS);
}

/* --- life ----------------------------------------------------------------------------------------------------------------------------------- */

struct recall *recall_new(struct loop *loop, struct worker *storage, struct answers *answers) {
    struct recall *r = mem_new(1, sizeof *r);
    if (r != NULL) {
        *r = (struct recall){.loop = loop, .storage = storage, .answers = answers};
        r->page_timer = (struct loop_timer){.fire = on_page_timer, .context = r};
        r->hole_timer = (struct loop_timer){.fire = on_hole_timer, .context = r};
        r->holes = mem_new(HOLES_MAX, sizeof *r->holes);
    }
    if (r != NULL && r->holes == NULL) {
        mem_free(r);
        return NULL;
    }
    return r;
}

void recall_stop(struct recall *r) {
    r->stopping = true;
    loop_timer_cancel(r->loop, &r->page_timer);
    loop_timer_cancel(r->loop, &r->hole_timer);
}

void recall_free(struct recall *r) {
    if (r != NULL) {
        must(r->jobs == 0);
        mem_free(r->page);
        mem_free(r->holes);
        mem_free(r);
    }
}

uint32_t recall_jobs(const struct recall *r) {
    return r->jobs;
}
