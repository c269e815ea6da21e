/* render.h: what greyctl prints: tables from JSON, ages and sizes for people, colour only on a terminal (NO_COLOR honoured). */
#ifndef AGENT_CTL_RENDER_H
#define AGENT_CTL_RENDER_H

#include "platform/json.h"

enum render_form { RENDER_TABLE, RENDER_JSON, RENDER_WIDE };

struct render_column {
    const char *title, *path; /* "channels.data.acked_seq": members down the object */
    bool wide_only;
};

void render_table(const json_t *rows, const struct render_column *columns, size_t count, bool wide); /* rows: an array of objects */
/* The value at path as text: numbers as they are, true and false as yes and no, null and absent as "-". */
void render_value(const json_t *object, const char *path, char *out, size_t out_size);
void render_bytes(double bytes, char out[16]);      /* "61 MB" */
void render_duration(double seconds, char out[24]); /* "3 d 4 h" */

enum render_tone { TONE_GOOD, TONE_WARN, TONE_BAD, TONE_PLAIN };
void render_verdict(enum render_tone tone, const char *text); /* one line */

#endif
