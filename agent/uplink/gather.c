#include "agent/uplink/gather.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/state/stretch.h"
#include "include/grey/must.h"
#include "platform/log.h"

/* scan the rows of each list of the channel -> merge by number -> cut to size -> scan the gap rows -> read the payloads -> items and gaps */

#define UNREADABLE_MAX 8u /* then it is not a row on the move, but damage */
#define ROWS_MAX SYNC_ITEMS_MAX
#define GAP_ROWS 64u        /* scanned at a time */
#define ROW_BYTES_GUESS 64u /* rows asked for by the wished size: few events are smaller */

struct gather {
    struct node *node;
    gather_done *done;
    void *context;
    bool running, dropped;
    enum event_channel channel;
    unsigned list; /* being scanned */
    grey_seq from, next_seq;
    uint32_t bytes_max, rows_max;
    struct outbox_row *rows;
    uint32_t row_count;
    grey_seq scanned_to; /* all rows up to here are known */
    struct stretch stretch;
    struct sitelog_read read;
    struct blob **payloads; /* one for each run of rows of the same entry */
    raft_index *indexes;    /* theirs */
    uint32_t payload_count;
    grey_seq unreadable; /* this one could not be read, so many times in a row */
    uint32_t unreadable_times;
};

struct gather *gather_new(struct node *node, gather_done *done, void *context) {
    struct gather *g = mem_new(1, sizeof *g);
    if (g != NULL) {
        g->node = node;
        g->done = done;
        g->context = context;
    }
    return g;
}

static void clear(struct gather *g) {
    for (uint32_t i = 0; i < g->payload_count && g->payloads != NULL; i++) {
        blob_unref(g->payloads[i]);
    }
    stretch_free(&g->stretch);
    mem_free(g->payloads);
    mem_free(g->indexes);
    mem_free(g->rows);
    g->payloads = NULL;
    g->indexes = NULL;
    g->rows = NULL;
    g->payload_count = g->row_count = 0;
    g->running = false;
}

void gather_free(struct gather *g) {
    if (g == NULL) {
        return;
    }
    if (g->running) {
        g->dropped = true;
    } else {
        mem_free(g);
    }
}

bool gather_running(const struct gather *g) {
    return g->running;
}

/* True when nobody waits any more; g is gone then. */
static bool abandoned(struct gather *g) {
    if (!g->dropped) {
        return false;
    }
    clear(g);
    mem_free(g);
    return true;
}

static void answer(struct gather *g, struct sync_events *e) {
    g->running = false; /* done may begin the next one: what it is lent lives in e */
    g->done(g->context, e);
}

static void nothing(struct gather *g) {
    struct sync_events e = {.channel = g->channel, .from_seq = g->from, .to_seq = g->from - 1};
    clear(g);
    answer(g, &e);
}

/* --- items and gaps ------------------------------------------------------------------------------------------------------------------------- */

/* Where in a batch payload the last record was taken from; rows come in order, so each payload is walked once. */
struct walk {
    uint32_t payload; /* number + 1; 0: none yet */
    uint32_t next_slot;
    uint64_t count;
    struct codec_reader r;
};

static bool take_record(const struct gather *g, struct walk *w, uint32_t payload, uint32_t slot, struct bytes *record) {
    if (g->payloads[payload] == NULL) {
        return false;
    }
    if (w->payload != payload + 1 || slot < w->next_slot) {
        codec_reader_init(&w->r, blob_bytes(g->payloads[payload]));
        *w = (struct walk){.payload = payload + 1, .r = w->r};
        w->count = codec_array(&w->r, LIMIT_BATCH_EVENTS);
    }
    if (slot >= w->count) {
        return false;
    }
    while (w->next_slot <= slot && w->r.err == E_OK) {
        *record = codec_skip(&w->r);
        w->next_slot++;
    }
    return w->r.err == E_OK;
}

/* A row without its payload: freed or given up a moment ago, or damage that the log could not mend. */
static void note_unreadable(struct gather *g, unsigned list, grey_seq seq, raft_index index) {
    char text[96];
    struct channel_facts f;
    state_channel(node_state(g->node), g->channel, &f);
    if (seq > f.acked_seq && seq >= state_lost_below(node_state(g->node), list)) {
        log_limited(LOG_ERROR, "uplink", "payload", "channel=%s seq=%" PRIu64 " index=%" PRIu64 " cannot be read from this disk",
                    event_channel_name(g->channel), seq, index);
        g->unreadable_times = g->unreadable == seq ? g->unreadable_times + 1 : 1;
        g->unreadable = seq;
        if (g->unreadable_times >= UNREADABLE_MAX) {
            (void)snprintf(text, sizeof text, "the payload of entry %" PRIu64 " cannot be read from log.db", index);
            node_damaged(g->node, SITELOG_DAMAGE_LOG, text);
        }
    }
}

struct records {
    struct gather *g;
    struct walk walk;
    uint32_t payload;
};

static bool record_of(void *context, uint32_t i, struct bytes *record) {
    struct records *r = context;
    const struct outbox_row *row = &r->g->rows[i];
    while (r->g->indexes[r->payload] != row->index) {
        r->payload++;
    }
    bool had = take_record(r->g, &r->walk, r->payload, row->slot, record);
    if (!had) {
        note_unreadable(r->g, row->list, row->seq, row->index);
    }
    return had;
}

/* Rows and payloads are there: what follows each other without a hole. */
static void make_events(struct gather *g) {
    struct sync_item *items = mem_new(ROWS_MAX, sizeof *items);
    struct sync_gap *gaps = mem_new(SYNC_GAPS_MAX, sizeof *gaps);
    struct sync_events e = {.channel = g->channel, .from_seq = g->from, .to_seq = g->from - 1};
    struct records records = {.g = g};
    if (items != NULL && gaps != NULL) {
        stretch_events(&g->stretch, g->rows, g->row_count, g->scanned_to, record_of, &records, items, gaps, &e);
    }
    /* The records lie in the payloads, which must outlive the call; g may be begun anew in it. */
    struct blob **payloads = g->payloads;
    uint32_t payload_count = g->payload_count;
    g->payloads = NULL;
    clear(g);
    answer(g, &e);
    for (uint32_t i = 0; i < payload_count; i++) {
        blob_unref(payloads[i]);
    }
    mem_free(payloads);
    mem_free(items);
    mem_free(gaps);
}

/* --- payloads ------------------------------------------------------------------------------------------------------------------------------- */

static void payloads_read(void *context, struct sitelog_read *read) {
    struct gather *g = context;
    if (abandoned(g)) {
        return;
    }
    for (uint32_t i = 0, k = 0; i < g->payload_count && read->err == E_OK; i++) {
        if (g->payloads[i] == NULL && k < read->index_count) {
            g->payloads[i] = blob_ref(read->payloads[k++]);
        }
    }
    make_events(g);
}

static void fetch_payloads(struct gather *g) {
    uint32_t missing = 0;
    raft_index *wanted = mem_new(g->row_count + 1, sizeof *wanted);
    g->payloads = mem_new(g->row_count + 1, sizeof *g->payloads);
    g->indexes = mem_new(g->row_count + 1, sizeof *g->indexes);
    if (g->payloads == NULL || g->indexes == NULL || wanted == NULL) {
        mem_free(wanted);
        nothing(g);
        return;
    }
    for (uint32_t i = 0; i < g->row_count; i++) {
        raft_index index = g->rows[i].index;
        if (g->payload_count > 0 && g->indexes[g->payload_count - 1] == index) {
            continue; /* numbers are given entry by entry, so events of one entry stand together */
        }
        struct blob *payload = blob_ref(node_payload_in_memory(g->node, index));
        if (payload == NULL) {
            wanted[missing++] = index;
        }
        g->payloads[g->payload_count] = payload;
        g->indexes[g->payload_count++] = index;
    }
    if (missing == 0) {
        mem_free(wanted);
        make_events(g);
        return;
    }
    g->read = (struct sitelog_read){
        .kind = SITELOG_PAYLOADS, .indexes = wanted, .index_count = missing, .done = payloads_read, .context = g};
    if (sitelog_read(node_log(g->node), &g->read) != E_OK) {
        mem_free(wanted);
        nothing(g);
    }
}

/* --- the size of a batch ----------------------------------------------------------------------------------------------------------------- */

static void cut_to_size(struct gather *g) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < g->row_count; i++) {
        bytes += g->rows[i].bytes;
        if (bytes > g->bytes_max && i > 0) {
            g->scanned_to = g->rows[i].seq - 1;
            g->row_count = i;
        }
    }
}

/* --- gap rows ------------------------------------------------------------------------------------------------------------------------------- */

static void scan_gaps(struct gather *g, grey_seq from);

static void gaps_scanned(void *context, enum grey_error err, const struct node_row *rows, size_t count, bool more) {
    struct gather *g = context;
    if (abandoned(g)) {
        return;
    }
    for (size_t i = 0; i < count && err == E_OK; i++) {
        err = stretch_add(&g->stretch, rows[i].key, rows[i].value);
    }
    if (err == E_CORRUPT) {
        log_limited(LOG_ERROR, "uplink", "gap-row", "channel=%s a row of the state that tells of lost events cannot be read",
                    event_channel_name(g->channel));
    }
    if (err != E_OK) {
        nothing(g);
    } else if (more && !stretch_enough(&g->stretch, g->scanned_to)) {
        scan_gaps(g, g->stretch.seen + 1);
    } else {
        fetch_payloads(g);
    }
}

static void scan_gaps(struct gather *g, grey_seq from) {
    bool lost = false;
    for (unsigned list = 0; list < STATE_LISTS; list++) {
        lost = lost || (state_list_channel(list) == g->channel && state_lost_below(node_state(g->node), list) > g->from);
    }
    if (!lost) {
        fetch_payloads(g);
        return;
    }
    uint8_t low[9], high[9];
    state_gap_key(g->channel, from, low);
    state_gap_key(g->channel, g->next_seq, high);
    node_scan(g->node, TABLE_GAP, bytes_of(low, sizeof low), bytes_of(high, sizeof high), GAP_ROWS, gaps_scanned, g);
}

/* --- rows ----------------------------------------------------------------------------------------------------------------------------------- */

static void scan_next(struct gather *g);

/* Merges the rows of this list with those of the ones before, by number; at most rows_max, the rest comes with the next batch. */
static void scanned(void *context, enum grey_error err, const struct node_row *rows, size_t count, bool more) {
    struct gather *g = context;
    if (abandoned(g)) {
        return;
    }
    struct outbox_row *merged = err == E_OK ? mem_new(g->rows_max, sizeof *merged) : NULL;
    if (merged == NULL) {
        nothing(g);
        return;
    }
    struct outbox_row row;
    uint32_t merged_count = 0, old = 0;
    size_t fresh = 0;
    if (more) { /* of this list, nothing is known behind its last row */
        grey_seq last = 0;
        if (count > 0 && state_outbox_row(rows[count - 1].key, rows[count - 1].value, &row) == E_OK) {
            last = row.seq;
        }
        g->scanned_to = last < g->scanned_to ? last : g->scanned_to;
    }
    while (merged_count < g->rows_max && (old < g->row_count || fresh < count)) {
        bool have = false;
        if (fresh < count) {
            have =
                state_outbox_row(rows[fresh].key, rows[fresh].value, &row) == E_OK && row.seq >= g->from && row.seq < g->next_seq;
            if (!have) {
                fresh++;
                continue;
            }
        }
        if (have && (old == g->row_count || row.seq < g->rows[old].seq)) {
            merged[merged_count++] = row;
            fresh++;
        } else {
            merged[merged_count++] = g->rows[old++];
        }
    }
    if ((old < g->row_count || fresh < count) && merged[merged_count - 1].seq < g->scanned_to) {
        g->scanned_to = merged[merged_count - 1].seq;
    }
    mem_free(g->rows);
    g->rows = merged;
    while (merged_count > 0 && merged[merged_count - 1].seq > g->scanned_to) {
        merged_count--;
    }
    g->row_count = merged_count;
    g->list++;
    scan_next(g);
}

static void scan_next(struct gather *g) {
    while (g->list < STATE_LISTS &&
           (state_list_channel(g->list) != g->channel || !state_list_waits(node_state(g->node), g->list))) {
        g->list++;
    }
    if (g->list == STATE_LISTS) {
        cut_to_size(g);
        scan_gaps(g, g->from);
        return;
    }
    uint8_t low[9], high[9];
    state_outbox_key(g->list, g->from, low);
    state_outbox_key(g->list, g->next_seq, high);
    node_scan(g->node, TABLE_OUTBOX, bytes_of(low, sizeof low), bytes_of(high, sizeof high), g->rows_max, scanned, g);
}

void gather_begin(struct gather *g, enum event_channel c, grey_seq from, grey_seq next_seq, uint32_t bytes_max) {
    must(!g->running && from > 0 && from < next_seq);
    uint32_t rows = bytes_max / ROW_BYTES_GUESS + 1;
    g->running = true;
    g->channel = c;
    g->list = 0;
    stretch_begin(&g->stretch, from);
    g->from = from;
    g->next_seq = next_seq;
    g->bytes_max = bytes_max;
    g->rows_max = rows < ROWS_MAX ? rows : ROWS_MAX;
    g->scanned_to = next_seq - 1;
    scan_next(g);
}
