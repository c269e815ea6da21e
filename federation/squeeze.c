#include "federation/squeeze.h"

#include <string.h>

#include "federation/entropy.h"
#include "federation/record.h"
#include "federation/series.h"
#include "include/grey/must.h"
#include "platform/digest.h"

/* The tables are searched by hash, in sets of WAYS; who was of no use lately makes room.  Both ends do the same with them, so a collision
 * costs bits and nothing else. */
#define WAYS 4u
#define COLUMNS 512u
#define NUMBERS 160u
#define WORDS 512u
#define WORD_INDEX_BITS 9u
#define WORD_SIZE_BITS 5u
#define RANKS 4u /* words that a column remembers */
#define USE_MAX 15u
#define LETTERS 4096u /* models of the letters of new words, by the letter before */
#define LETTERS_SHIFT 20u
#define KEY_PLACE_MAX 31u
#define EVENT_SUM_BYTES 24u
#define GAP_SUM_BYTES 32u

static_assert(1u << WORD_INDEX_BITS == WORDS && 1u << WORD_SIZE_BITS > TOKEN_WORD_BYTES &&
                  UINT32_MAX >> LETTERS_SHIFT == LETTERS - 1 && COLUMNS % WAYS == 0 && NUMBERS % WAYS == 0,
              "tables and their indexes");

struct word {
    uint8_t size, use; /* size 0: the end of a text */
    uint8_t text[TOKEN_WORD_BYTES];
};

struct number {
    uint16_t check;
    uint8_t use;
    struct series series;
};

struct column {
    uint16_t check;
    uint8_t use, known; /* so many words */
    uint16_t words[RANKS];
    uint16_t number; /* the last number here + 1 */
    entropy_model is_number, rank[RANKS], is_known;
};

enum text_field {
    FIELD_SOURCE,
    FIELD_TYPE,
    FIELD_SUBJECT,
    FIELD_ID,
    FIELD_TIME,
    FIELD_CONTENT_TYPE,
    FIELD_TRACEPARENT,
    FIELD_DATA,
    FIELDS
};
enum head { HEAD_SEQ, HEAD_INDEX, HEAD_TIME, HEAD_PRIORITY, HEAD_FLAGS, HEAD_SIZE, HEAD_GAP, HEAD_REASON, HEAD_GAP_BYTES, HEADS };

struct squeeze {
    struct column columns[COLUMNS];
    struct number numbers[NUMBERS];
    struct series heads[HEADS];
    struct word words[WORDS];
    entropy_model letters[LETTERS], word_sizes[1u << WORD_SIZE_BITS];
    entropy_model more, is_gap, is_record, is_raw[FIELDS];
};

static_assert(sizeof(struct squeeze) <= SQUEEZE_BYTES_MAX, "the bound that others count on");

/* One coding, in either direction. */
struct work {
    struct squeeze *s;
    struct entropy c;
    bool reads;
    enum grey_error err;   /* of a reader, beside c.err */
    struct builder *texts; /* a reader puts together here what a writer finds in the event */
};

static bool failed(const struct work *w) {
    return w->err != E_OK || w->c.err != E_OK || (w->texts != NULL && w->texts->err != E_OK);
}

static uint32_t mix(uint32_t h, uint32_t v) {
    h = (h ^ v) * 0x9e3779b1u;
    return h ^ h >> 15;
}

static uint32_t hash_bytes(struct bytes b) {
    uint32_t h = (uint32_t)b.size;
    for (size_t i = 0; i < b.size; i++) {
        h = (h ^ b.data[i]) * 0x01000193u;
    }
    return mix(h, 0);
}

static void be_used(uint8_t *use) {
    *use = (uint8_t)(*use + (*use < USE_MAX));
}

/* --- numbers ---------------------------------------------------------------------------------------------------------------------------- */

static uint64_t code_head(struct work *w, enum head h, uint64_t value) {
    return series_code(&w->c, &w->s->heads[h], value);
}

/* The number of this column and stream.  A new one takes after the last one of the column. */
static struct number *number_of(struct squeeze *s, struct column *column, uint32_t key) {
    struct number *set = &s->numbers[key % (NUMBERS / WAYS) * WAYS], *found = NULL, *least = set;
    for (unsigned i = 0; i < WAYS && found == NULL; i++) {
        found = set[i].check == (uint16_t)(key >> 16) && set[i].use > 0 ? &set[i] : NULL;
        least = set[i].use < least->use ? &set[i] : least;
    }
    if (found == NULL) {
        for (unsigned i = 0; i < WAYS; i++) {
            set[i].use = (uint8_t)(set[i].use > 1 ? set[i].use - 1 : set[i].use);
        }
        found = least;
        if (column->number > 0) {
            found->series = s->numbers[column->number - 1].series;
        } else {
            series_new(&found->series);
        }
        found->check = (uint16_t)(key >> 16);
        found->use = 0;
    }
    be_used(&found->use);
    column->number = (uint16_t)(found - s->numbers + 1);
    return found;
}

/* --- words ----------------------------------------------------------------------------------------------------------------------------- */

static struct bytes word_text(const struct word *w) {
    return bytes_of(w->text, w->size);
}

/* A word that was never seen, letter by letter. */
static void code_new_word(struct work *w, struct word *word) {
    struct squeeze *s = w->s;
    word->size = (uint8_t)entropy_tree(&w->c, s->word_sizes, WORD_SIZE_BITS, word->size);
    if (word->size > TOKEN_WORD_BYTES) {
        w->err = E_CORRUPT;
        word->size = 0;
    }
    uint32_t before = 0;
    for (unsigned i = 0; i < word->size; i++) {
        unsigned node = 1;
        for (unsigned bit = 8; bit-- > 0;) {
            entropy_model *m = &s->letters[((before << 8 | node) * 0x9e3779b1u) >> LETTERS_SHIFT];
            node = node << 1 | (unsigned)entropy_bit(&w->c, m, (word->text[i] >> bit & 1) != 0);
        }
        word->text[i] = (uint8_t)node;
        before = word->text[i];
    }
}

/* Keeps it unless its place is taken by a word of more use.  What was cut at its full length is part of something long and seldom the
 * same again. */
static bool keep_word(struct squeeze *s, unsigned place, const struct word *word) {
    struct word *there = &s->words[place];
    if (word->size == TOKEN_WORD_BYTES && word->text[TOKEN_WORD_BYTES - 1] != '"') {
        return false;
    }
    if (there->use > 0) {
        there->use--;
        return false;
    }
    *there = *word;
    there->use = 0;
    return true;
}

/* The word goes first among those of its column. */
static void move_to_front(struct column *column, unsigned rank, unsigned place) {
    if (rank == column->known) {
        column->known = (uint8_t)(column->known + (column->known < RANKS));
        rank = column->known - 1u;
    }
    memmove(&column->words[1], &column->words[0], rank * sizeof column->words[0]);
    column->words[0] = (uint16_t)place;
}

static void code_word(struct work *w, struct column *column, struct word *word) {
    struct squeeze *s = w->s;
    unsigned place = 0, rank = 0;
    bool known = false;
    if (!w->reads) {
        place = hash_bytes(word_text(word)) % WORDS;
        known = bytes_equal(word_text(&s->words[place]), word_text(word));
    }
    for (bool hit = false; rank < column->known; rank++) {
        hit = !entropy_bit(&w->c, &column->rank[rank], !(known && column->words[rank] == place));
        if (hit) {
            place = column->words[rank];
            *word = s->words[place];
            be_used(&s->words[place].use);
            move_to_front(column, rank, place);
            return;
        }
    }
    if (entropy_bit(&w->c, &column->is_known, known)) {
        place = (unsigned)entropy_raw(&w->c, WORD_INDEX_BITS, place);
        *word = s->words[place];
        be_used(&s->words[place].use);
    } else {
        code_new_word(w, word);
        place = hash_bytes(word_text(word)) % WORDS;
        if (!keep_word(s, place, word)) {
            return;
        }
    }
    move_to_front(column, rank, place);
}

/* --- texts ------------------------------------------------------------------------------------------------------------------------------ */

/* Where in a text: behind which JSON key, how many quoted texts later, how many tokens later. */
struct place {
    uint32_t field, stream;
    uint32_t key, key_before, last_quoted;
    uint32_t quoted, tokens;
};

static struct column *column_of(struct squeeze *s, const struct place *p) {
    uint32_t h = mix(mix(mix(p->key, p->key_before), p->field), p->quoted << 8 | p->tokens);
    struct column *set = &s->columns[h % (COLUMNS / WAYS) * WAYS], *least = set;
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].use > 0 && set[i].check == (uint16_t)(h >> 16)) {
            be_used(&set[i].use);
            return &set[i];
        }
        least = set[i].use < least->use ? &set[i] : least;
    }
    for (unsigned i = 0; i < WAYS; i++) {
        set[i].use = (uint8_t)(set[i].use > 1 ? set[i].use - 1 : set[i].use);
    }
    *least = (struct column){.check = (uint16_t)(h >> 16), .use = 1, .is_number = ENTROPY_MODEL_NEW, .is_known = ENTROPY_MODEL_NEW};
    entropy_models_new(least->rank, RANKS);
    return least;
}

static void behind_number(struct place *p) {
    p->tokens += p->tokens < KEY_PLACE_MAX;
    p->last_quoted = 0;
}

static void behind_word(struct place *p, const struct word *word) {
    if (word->text[0] == ':' && p->last_quoted != 0) { /* what was quoted before it is a key */
        p->key_before = p->key;
        p->key = p->last_quoted;
        p->quoted = p->tokens = 0;
    }
    if (word->text[word->size - 1] == '"') {
        p->last_quoted = hash_bytes(word_text(word)) | 1;
        p->quoted += p->quoted < KEY_PLACE_MAX;
        p->tokens = 0;
    } else {
        p->tokens += p->tokens < KEY_PLACE_MAX;
        p->last_quoted = 0;
    }
}

static void code_number(struct work *w, struct column *column, const struct place *p, struct bytes text) {
    char digits[TOKEN_NUMBER_BYTES];
    struct number *n = number_of(w->s, column, mix(mix((uint32_t)(column - w->s->columns) + 1, p->stream), column->check));
    struct token_form form = n->series.form;
    int64_t value = w->reads ? 0 : token_value(text, &form);
    series_code_form(&w->c, &n->series, form);
    value = (int64_t)series_code(&w->c, &n->series, (uint64_t)value);
    if (w->reads) {
        size_t size = failed(w) ? 0 : token_render(n->series.form, value, digits);
        w->err = size == 0 && w->err == E_OK ? E_CORRUPT : w->err;
        builder_add(w->texts, bytes_of(digits, size));
    }
}

static void code_tokens(struct work *w, enum text_field field, uint32_t stream, struct bytes text, size_t size_max) {
    struct place p = {.field = (uint32_t)field + 1, .stream = stream};
    struct word word = {.size = 1};
    size_t at = 0, start = w->reads ? w->texts->size : 0;
    while (word.size > 0 && !failed(w)) {
        struct column *column = column_of(w->s, &p);
        bool number = false;
        size_t size = !w->reads && at < text.size ? token_next(text, at, &number) : 0;
        number = entropy_bit(&w->c, &column->is_number, number);
        if (number) {
            code_number(w, column, &p, size > 0 ? bytes_of(text.data + at, size) : text);
            behind_number(&p);
        } else {
            word = (struct word){.size = (uint8_t)size};
            if (size > 0) {
                memcpy(word.text, text.data + at, size);
            }
            code_word(w, column, &word);
            if (word.size > 0) {
                behind_word(&p, &word);
            }
            if (w->reads) {
                builder_add(w->texts, word_text(&word));
            }
        }
        at += size;
        if (w->reads && w->texts->size - start > size_max) {
            w->err = E_CORRUPT;
        }
    }
}

static void code_raw(struct work *w, struct bytes text, size_t size_max) {
    uint64_t size = code_head(w, HEAD_SIZE, text.size);
    if (w->reads && size > size_max) {
        w->err = E_CORRUPT;
    }
    uint8_t *room = w->reads && !failed(w) && size > 0 ? builder_room(w->texts, (size_t)size) : NULL;
    for (size_t i = 0; i < size && !failed(w); i++) {
        uint8_t byte = (uint8_t)entropy_raw(&w->c, 8, i < text.size ? text.data[i] : 0);
        if (room != NULL) {
            room[i] = byte;
        }
    }
}

static bool looks_like_text(struct bytes b) {
    for (size_t i = 0; i < b.size; i++) {
        if (b.data[i] < ' ' && b.data[i] != '\n' && b.data[i] != '\r' && b.data[i] != '\t') {
            return false;
        }
    }
    return true;
}

/* A reader gets the place of the text in w->texts: its data is set when all texts are there. */
static struct bytes code_text(struct work *w, enum text_field field, uint32_t stream, struct bytes text) {
    size_t start = w->reads ? w->texts->size : 0;
    size_t size_max = field == FIELD_DATA ? LIMIT_EVENT_BYTES : LIMIT_EVENT_FIELD_BYTES;
    if (failed(w)) {
        return bytes_of(NULL, 0);
    }
    if (entropy_bit(&w->c, &w->s->is_raw[field], !w->reads && !looks_like_text(text))) {
        code_raw(w, text, size_max);
    } else {
        code_tokens(w, field, stream, text, size_max);
    }
    return w->reads ? bytes_of(NULL, w->texts->size - start) : text;
}

/* --- records ---------------------------------------------------------------------------------------------------------------------------- */

static struct bytes tail_of(const struct builder *b, size_t size) {
    return size > 0 ? bytes_of(b->data + b->size - size, size) : bytes_of(NULL, 0);
}

static void code_event(struct work *w, struct event *e) {
    struct bytes *const texts[FIELDS] = {[FIELD_SOURCE] = &e->source,
                                         [FIELD_TYPE] = &e->type,
                                         [FIELD_SUBJECT] = &e->subject,
                                         [FIELD_ID] = &e->id,
                                         [FIELD_TIME] = &e->time,
                                         [FIELD_CONTENT_TYPE] = &e->content_type,
                                         [FIELD_TRACEPARENT] = &e->traceparent,
                                         [FIELD_DATA] = &e->data};
    uint32_t stream = 0;
    for (int f = 0; f < FIELDS; f++) {
        *texts[f] = code_text(w, (enum text_field)f, stream, *texts[f]);
        if (f <= FIELD_SUBJECT && !failed(w)) { /* these say whose numbers go on */
            stream = mix(stream, hash_bytes(w->reads ? tail_of(w->texts, texts[f]->size) : *texts[f]));
        }
    }
    uint64_t priority = code_head(w, HEAD_PRIORITY, e->priority);
    uint64_t flags = code_head(w, HEAD_FLAGS, e->provisional | (uint64_t)e->has_id << 1);
    if (w->reads && (priority >= PRIORITY_COUNT || flags > 3)) {
        w->err = E_CORRUPT;
    }
    e->priority = (enum event_priority)(priority % PRIORITY_COUNT);
    e->provisional = (flags & 1) != 0;
    e->has_id = (flags & 2) != 0;
    const uint8_t *at = w->reads ? w->texts->data : NULL;
    for (int f = 0; f < FIELDS && w->reads && !failed(w); f++) {
        texts[f]->data = at;
        at = texts[f]->size > 0 ? at + texts[f]->size : at;
    }
}

static uint32_t sum_item(uint32_t sum, const struct sync_item *item) {
    uint8_t numbers[EVENT_SUM_BYTES];
    bytes_put_be64(numbers, item->seq);
    bytes_put_be64(numbers + 8, item->index);
    bytes_put_be64(numbers + 16, (uint64_t)item->time_ms);
    return digest_crc32(digest_crc32(sum, bytes_of(numbers, sizeof numbers)), item->record);
}

static uint32_t sum_gap(uint32_t sum, const struct sync_gap *gap) {
    uint8_t numbers[GAP_SUM_BYTES];
    bytes_put_be64(numbers, gap->from_seq);
    bytes_put_be64(numbers + 8, gap->to_seq);
    bytes_put_be64(numbers + 16, (uint64_t)gap->reason);
    bytes_put_be64(numbers + 24, gap->bytes);
    return digest_crc32(sum, bytes_of(numbers, sizeof numbers));
}

/* *whole: the record is one of federation/record.h, which e holds; else its bytes stand in item, or for a reader in w->texts. */
static void code_item(struct work *w, struct sync_item *item, struct event *e, bool *whole) {
    item->seq = code_head(w, HEAD_SEQ, item->seq);
    item->index = code_head(w, HEAD_INDEX, item->index);
    item->time_ms = (int64_t)code_head(w, HEAD_TIME, (uint64_t)item->time_ms);
    *whole = entropy_bit(&w->c, &w->s->is_record, *whole);
    if (w->reads) {
        builder_reset(w->texts);
    }
    if (*whole) {
        code_event(w, e);
    } else {
        code_raw(w, item->record, LIMIT_FRAME_PAYLOAD_BYTES);
    }
}

static void code_gap(struct work *w, struct sync_gap *gap) {
    gap->from_seq = code_head(w, HEAD_SEQ, gap->from_seq);
    gap->to_seq = gap->from_seq + code_head(w, HEAD_GAP, gap->to_seq - gap->from_seq);
    gap->reason = (enum sync_gap_reason)(code_head(w, HEAD_REASON, (uint64_t)gap->reason) & 0xff);
    gap->bytes = code_head(w, HEAD_GAP_BYTES, gap->bytes);
    w->s->heads[HEAD_SEQ].last = gap->to_seq; /* the next number follows on it */
}

/* --- both ends -------------------------------------------------------------------------------------------------------------------------- */

void squeeze_forget(struct squeeze *s) {
    memset(s, 0, sizeof *s);
    for (int i = 0; i < HEADS; i++) {
        series_new(&s->heads[i]);
    }
    entropy_models_new(s->letters, LETTERS);
    entropy_models_new(s->word_sizes, sizeof s->word_sizes / sizeof s->word_sizes[0]);
    entropy_models_new(s->is_raw, FIELDS);
    s->more = s->is_gap = s->is_record = ENTROPY_MODEL_NEW;
}

struct squeeze *squeeze_new(void) {
    struct squeeze *s = mem_new(1, sizeof *s);
    if (s != NULL) {
        squeeze_forget(s);
    }
    return s;
}

void squeeze_free(struct squeeze *s) {
    mem_free(s);
}

static void write_item(struct work *w, const struct sync_item *item) {
    struct sync_item copy = *item;
    struct event e;
    struct codec_reader r;
    codec_reader_init(&r, item->record);
    bool whole = record_decode(&r, &e) == E_OK && codec_end(&r) == E_OK;
    code_item(w, &copy, &e, &whole);
}

enum grey_error squeeze_pack(struct squeeze *s, struct sync_events *e, size_t packed_bytes_max, struct builder *out,
                             uint32_t *sum) {
    struct work w = {.s = s};
    size_t start = out->size;
    uint32_t items = 0, gaps = 0;
    entropy_write(&w.c, out);
    *sum = 0;
    while ((items < e->item_count || gaps < e->gap_count) && (items + gaps == 0 || out->size - start < packed_bytes_max)) {
        bool gap = gaps < e->gap_count && (items == e->item_count || e->gaps[gaps].from_seq < e->items[items].seq);
        (void)entropy_bit(&w.c, &s->more, true);
        (void)entropy_bit(&w.c, &s->is_gap, gap);
        if (gap) {
            struct sync_gap copy = e->gaps[gaps++];
            *sum = sum_gap(*sum, &copy);
            e->to_seq = copy.to_seq;
            code_gap(&w, &copy);
        } else {
            *sum = sum_item(*sum, &e->items[items]);
            e->to_seq = e->items[items].seq;
            write_item(&w, &e->items[items++]);
        }
    }
    (void)entropy_bit(&w.c, &s->more, false);
    e->item_count = items;
    e->gap_count = gaps;
    return entropy_end(&w.c);
}

/* Appends its record to records, where it will be when no more of them move it. */
static bool read_item(struct work *w, struct sync_item *item, struct builder *records, uint32_t *sum) {
    struct event e = {0};
    bool whole = false;
    size_t start = records->size;
    *item = (struct sync_item){0};
    code_item(w, item, &e, &whole);
    if (failed(w)) {
        return false;
    }
    if (whole) {
        record_encode(&e, records);
    } else {
        builder_add(records, builder_bytes(w->texts));
    }
    if (records->err != E_OK) {
        w->err = records->err;
        return false;
    }
    item->record = tail_of(records, records->size - start);
    *sum = sum_item(*sum, item);
    return true;
}

static void read_frame(struct work *w, struct sync_events *e, struct sync_item *items, struct sync_gap *gaps,
                       struct builder *records, uint32_t *sum) {
    while (entropy_bit(&w->c, &w->s->more, false) && !failed(w)) {
        bool gap = entropy_bit(&w->c, &w->s->is_gap, false);
        if (gap ? e->gap_count == SYNC_GAPS_MAX : e->item_count == SYNC_ITEMS_MAX) {
            w->err = E_CORRUPT;
        } else if (gap) {
            struct sync_gap *next = &gaps[e->gap_count++];
            *next = (struct sync_gap){0};
            code_gap(w, next);
            *sum = sum_gap(*sum, next);
            e->to_seq = next->to_seq;
        } else if (read_item(w, &items[e->item_count], records, sum)) {
            e->to_seq = items[e->item_count++].seq;
        }
        if (failed(w)) {
            return;
        }
    }
}

enum grey_error squeeze_unpack(struct squeeze *s, struct bytes packed, uint32_t sum, struct sync_events *e, struct sync_item *items,
                               struct sync_gap *gaps, struct builder *records) {
    struct builder texts;
    struct work w = {.s = s, .reads = true, .texts = &texts};
    uint32_t got = 0;
    builder_init(&texts, LIMIT_FRAME_PAYLOAD_BYTES + TOKEN_NUMBER_BYTES);
    builder_reset(records);
    entropy_read(&w.c, packed);
    e->item_count = e->gap_count = 0;
    e->items = items;
    e->gaps = gaps;
    read_frame(&w, e, items, gaps, records, &got);
    enum grey_error err = w.err != E_OK ? w.err : texts.err != E_OK ? texts.err : entropy_end(&w.c);
    if (err != E_NO_MEMORY && err != E_TOO_LARGE && (err != E_OK || got != sum)) {
        err = E_CORRUPT; /* be it that a text is none */
    }
    builder_free(&texts);
    if (err != E_OK) {
        e->item_count = e->gap_count = 0;
    }
    const uint8_t *at = records->data;
    for (uint32_t i = 0; i < e->item_count; i++) {
        items[i].record.data = at;
        at = items[i].record.size > 0 ? at + items[i].record.size : at;
    }
    return err;
}
