/* render.h: how greyctl shows things to people: spans, sizes, tables, and the verdict in words.
 * Writes into builders only; what comes from outside loses its control characters here, so a terminal never obeys it. */
#ifndef AGENT_CTL_RENDER_H
#define AGENT_CTL_RENDER_H

#include "platform/bytes.h"

#define RENDER_COLUMNS_MAX 12u
#define RENDER_SHORT 40u /* room for a span or a size */

/* "0 s", "42 s", "4 min 12 s", "3 h 5 min", "3 d 4 h", "120 d"; negative counts as zero. */
const char *render_span(double seconds, char out[RENDER_SHORT]);
/* "999 B", "1.2 kB", "61 MB", "1.1 GB": decimal, as links and disks are sold. */
const char *render_size(uint64_t bytes, char out[RENDER_SHORT]);
/* Control characters become '?'. */
void render_text(struct builder *out, struct bytes text);

/* A table: cells row by row, laid out when it ends.  Columns are as wide as their widest cell; numbers (columns whose title ends
 * with ">") stand right.  The table's own memory is freed by render_table_end. */
struct render_table {
    struct builder cells; /* each cell followed by a NUL */
    const char *titles[RENDER_COLUMNS_MAX];
    unsigned columns, cell_count;
};
void render_table_begin(struct render_table *t, const char *const *titles, unsigned columns);
void render_cell(struct render_table *t, const char *text); /* copies; NULL shows as "-" */
void render_cellf(struct render_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void render_table_end(struct render_table *t, struct builder *out);

/* --- the verdict ------------------------------------------------------------------------------------------------------------------- */

enum render_link { LINK_NONE, LINK_UP, LINK_DOWN, LINK_ELSEWHERE };
enum render_verdict { VERDICT_OK, VERDICT_OFFLINE, VERDICT_DEGRADED, VERDICT_NO_QUORUM };

struct render_facts {
    unsigned voters, voters_alive, learners;
    bool one_disk; /* of a site of several nodes, only the leader's disk holds what is answered now */
    bool quorum;
    const char *leader;     /* "" when none is known */
    const char *distrusted; /* names of those in quarantine, likewise */
    const char *silent;     /* names of voters that do not answer, "2, 3"; "" when all do */
    enum render_link link;  /* LINK_ELSEWHERE: the leader knows, and could not be asked */
    double offline_s;       /* since the last contact; negative: none since the leader started */
    uint64_t waiting_events, waiting_bytes, queue_limit_bytes;
    double oldest_s; /* age of the oldest event that waits */
};

/* One line without newline: "OK: 3 of 3 nodes, leader 2, can lose 1 node; link up, 0 events waiting". */
enum render_verdict render_verdict(const struct render_facts *f, bool colour, struct builder *out);
/* How long the queue still holds at the rate it filled so far; negative when that cannot be said. */
double render_room_s(const struct render_facts *f);

#endif
